/**
 * Blocks of directories and attributes, and the tree of hash values over them.
 *
 * @module
 */

import * as F from "../libxfs/format.ts";
import { type BlockKind, type FsckContext, viewOf } from "./context.ts";
import type { Extents } from "./fork.ts";

/** Header of nodes and leaves of either tree. */
export function daKind(name: string, magic: number): BlockKind {
  return {
    name,
    magic,
    magicAt: F.DA3_MAGIC,
    magicBytes: 2,
    crcAt: F.DA3_CRC,
    blknoAt: F.DA3_BLKNO,
    lsnAt: F.DA3_LSN,
    uuidAt: F.DA3_UUID,
    ownerAt: F.DA3_OWNER,
    ownerBytes: 8,
  };
}

/** Header of blocks with part of a value, or of a target. */
export function rmtKind(name: string, magic: number): BlockKind {
  return {
    name,
    magic,
    magicAt: F.RMT_MAGIC,
    magicBytes: 4,
    crcAt: F.RMT_CRC,
    blknoAt: F.RMT_BLKNO,
    lsnAt: F.RMT_LSN,
    uuidAt: F.RMT_UUID,
    ownerAt: F.RMT_OWNER,
    ownerBytes: 8,
  };
}

const NODE: BlockKind = daKind("da node", F.XFS_DA3_NODE_MAGIC);

/** A run of blocks of a file. */
export interface FileBlocks {
  data: Uint8Array;
  /** Where the first of them lies. */
  daddr: number;
}

/** Reads blocks of a file, which may lie in several places. */
export class FileReader {
  readonly ctx: FsckContext;
  readonly ino: number;
  readonly extents: Extents;
  /** Said in front of findings. */
  readonly name: string;

  constructor(
    ctx: FsckContext,
    ino: number,
    extents: Extents,
    name: string,
  ) {
    this.ctx = ctx;
    this.ino = ino;
    this.extents = extents;
    this.name = name;
  }

  found(why: string): void {
    this.ctx.found(`${this.name} ${this.ino}: ${why}`);
  }

  /** Reads file blocks; null, with a finding, if that cannot be done. */
  read(fileBlock: number, count: number): FileBlocks | null {
    const { sb } = this.ctx;
    if (!this.ctx.spend(count)) return null;
    const data = new Uint8Array(count * sb.blocksize);
    let daddr = -1;
    for (let done = 0; done < count;) {
      const i = this.extents.find(fileBlock + done);
      if (i < 0) {
        this.found(`file block ${fileBlock + done} is not mapped`);
        return null;
      }
      const skip = fileBlock + done - this.extents.offset[i]!;
      const n = Math.min(count - done, this.extents.len[i]! - skip);
      const at = sb.fsbToDaddr(this.extents.fsbno[i]! + skip);
      const what = `${this.name} ${this.ino}`;
      const piece = this.ctx.readBytes(at * F.BBSIZE, n * sb.blocksize, what);
      if (piece === null) return null;
      data.set(piece, done * sb.blocksize);
      if (done === 0) daddr = at;
      done += n;
    }
    return { data, daddr };
  }

  /** Reads a metadata block and looks at its header. */
  readKind(
    kind: BlockKind,
    fileBlock: number,
    count: number,
  ): Uint8Array | null {
    const blocks = this.read(fileBlock, count);
    if (blocks === null) return null;
    const what = `${this.name} ${this.ino}: ${kind.name} ${fileBlock}`;
    const { data, daddr } = blocks;
    return this.ctx.checkBlock(kind, data, daddr, this.ino, what) ? data : null;
  }
}

/** Takes a leaf. @returns Its highest hash value, or -1 if it has none. */
export type DaLeafVisitor = (view: DataView, fileBlock: number) => number;

/** One level of the tree: its blocks, and the highest hash value that the parent
 * says each has. */
interface DaLevel {
  blocks: number[];
  hashes: (number | null)[];
}

/** Walks a tree of hash values, level by level. */
export class DaWalk {
  readonly #file: FileReader;
  readonly #leafKind: BlockKind;
  /** Blocks of a node or leaf. */
  readonly #blocks: number;
  readonly #leaf: DaLeafVisitor;
  /** First file blocks of what was met. */
  readonly seen = new Set<number>();
  /** Everything was as it should be. */
  ok = true;

  constructor(
    file: FileReader,
    leafKind: BlockKind,
    blocks: number,
    leaf: DaLeafVisitor,
  ) {
    this.#file = file;
    this.#leafKind = leafKind;
    this.#blocks = blocks;
    this.#leaf = leaf;
  }

  #found(why: string): void {
    this.ok = false;
    this.#file.found(why);
  }

  /** Walks from the root at a file block. */
  from(root: number): void {
    const first = this.#file.read(root, this.#blocks);
    if (first === null) {
      this.ok = false;
      return;
    }
    const view = viewOf(first.data);
    const isNode = view.getUint16(F.DA3_MAGIC) === F.XFS_DA3_NODE_MAGIC;
    const level = isNode ? view.getUint16(F.DA3_LEVEL) : 0;
    if (level > F.XFS_DA_NODE_MAXDEPTH || (isNode && level === 0)) {
      return this.#found(`bad level ${level} in root node ${root}`);
    }
    let here: DaLevel = { blocks: [root], hashes: [null] };
    for (let l = level; l >= 0; l--) {
      const next: DaLevel = { blocks: [], hashes: [] };
      for (let i = 0; i < here.blocks.length; i++) {
        this.#visit(here, i, l, next);
      }
      here = next;
    }
  }

  #visit(here: DaLevel, i: number, level: number, next: DaLevel): void {
    const block = here.blocks[i]!;
    if (this.seen.has(block)) return this.#found(`block ${block} is met twice`);
    this.seen.add(block);
    const kind = level > 0 ? NODE : this.#leafKind;
    const data = this.#file.readKind(kind, block, this.#blocks);
    if (data === null) {
      this.ok = false;
      return;
    }
    const view = viewOf(data);
    this.#checkSiblings(here, i, view);
    const hash = level > 0
      ? this.#node(view, block, level, next)
      : this.#leaf(view, block);
    const want = here.hashes[i]!;
    if (want === null || hash === want) return;
    this.#found(
      `bad hash value 0x${
        want.toString(16)
      } of block ${block} in its parent, ` +
        `should be 0x${hash.toString(16)}`,
    );
  }

  #checkSiblings(here: DaLevel, i: number, view: DataView): void {
    const forw = view.getUint32(F.DA3_FORW);
    const back = view.getUint32(F.DA3_BACK);
    const wantForw = here.blocks[i + 1] ?? 0;
    const wantBack = here.blocks[i - 1] ?? 0;
    if (forw === wantForw && back === wantBack) return;
    this.#found(
      `bad sibling pointers of block ${
        here.blocks[i]
      }: forw ${forw} should be ` +
        `${wantForw}, back ${back} should be ${wantBack}`,
    );
  }

  /** @returns Its highest hash value. */
  #node(view: DataView, block: number, level: number, next: DaLevel): number {
    const has = view.getUint16(F.DA3_LEVEL);
    if (has !== level) {
      this.#found(`expected level ${level} got ${has} in node ${block}`);
      return -1;
    }
    const count = view.getUint16(F.DA3_COUNT);
    const max = Math.floor((view.byteLength - F.DA3_HDR_SIZE) / 8);
    if (count === 0 || count > max) {
      this.#found(`bad count ${count} in node ${block}, max ${max}`);
      return -1;
    }
    let last = 0;
    for (let i = 0; i < count; i++) {
      const at = F.DA3_HDR_SIZE + 8 * i;
      const hash = view.getUint32(at);
      if (hash < last) this.#found(`hash values out of order in node ${block}`);
      last = hash;
      next.hashes.push(hash);
      next.blocks.push(view.getUint32(at + 4));
    }
    return last;
  }
}

/** Hash value of a name (kernel: `xfs_da_hashname`). */
export function hashName(data: Uint8Array, at: number, len: number): number {
  let hash = 0;
  for (let i = 0; i < len; i++) {
    hash = data[at + i]! ^ (hash << 7 | hash >>> 25);
  }
  return hash >>> 0;
}
