/**
 * Walking a B+tree from its root, level by level, and looking at everything that
 * holds for all of them: headers, levels, siblings, how full blocks are, and that the
 * keys of a node are those of its children.
 *
 * Level by level, each block's neighbours are known without following a pointer
 * twice, and no image can make the walk deep or endless.
 *
 * @module
 */

import { getU64 } from "../libxfs/bytes.ts";
import * as F from "../libxfs/format.ts";
import { type BlockKind, type FsckContext, viewOf } from "./context.ts";

/** What distinguishes a kind of tree. */
export interface TreeKind {
  readonly block: BlockKind;
  /** Bytes of a header, record, key and pointer. */
  readonly header: number;
  readonly recBytes: number;
  readonly keyBytes: number;
  readonly ptrBytes: 4 | 8;
  /** Nodes hold the highest key of each child beside the lowest. */
  readonly overlapping: boolean;
  /** Lowest key of the record at a byte, as numbers. */
  lowKey(view: DataView, at: number): number[];
  /** The highest, where the tree is an overlapping one. */
  highKey(view: DataView, at: number): number[];
  /** A key in a node, as numbers. */
  nodeKey(view: DataView, at: number): number[];
}

function shortKind(name: string, magic: number): BlockKind {
  return {
    name,
    magic,
    magicAt: F.BB_MAGIC,
    magicBytes: 4,
    crcAt: F.SBB_CRC,
    blknoAt: F.SBB_BLKNO,
    lsnAt: F.SBB_LSN,
    uuidAt: F.SBB_UUID,
    ownerAt: F.SBB_OWNER,
    ownerBytes: 4,
  };
}

const none = (): number[] => [];
const one32 = (view: DataView, at: number) => [view.getUint32(at)];
const two32 = (view: DataView, at: number) => [
  view.getUint32(at),
  view.getUint32(at + 4),
];

function shortTree(
  name: string,
  magic: number,
  recBytes: number,
  keyBytes: number,
  key: (view: DataView, at: number) => number[],
): TreeKind {
  return {
    block: shortKind(`${name} block`, magic),
    header: F.XFS_BTREE_SBLOCK_CRC_LEN,
    recBytes,
    keyBytes,
    ptrBytes: 4,
    overlapping: false,
    lowKey: key,
    highKey: none,
    nodeKey: key,
  };
}

/** Free space by block. */
export const BNOBT: TreeKind = shortTree(
  "bnobt",
  F.XFS_ABTB_CRC_MAGIC,
  8,
  8,
  two32,
);
/** Free space by size. */
export const CNTBT: TreeKind = shortTree(
  "cntbt",
  F.XFS_ABTC_CRC_MAGIC,
  8,
  8,
  two32,
);
/** Inode chunks. */
export const INOBT: TreeKind = shortTree(
  "inobt",
  F.XFS_IBT_CRC_MAGIC,
  16,
  4,
  one32,
);
/** Chunks that have free inodes. */
export const FINOBT: TreeKind = shortTree(
  "finobt",
  F.XFS_FIBT_CRC_MAGIC,
  16,
  4,
  one32,
);
/** Shared blocks. */
export const REFCBT: TreeKind = shortTree(
  "refcountbt",
  F.XFS_REFC_CRC_MAGIC,
  12,
  4,
  one32,
);

/** Owner as two words, then flags and offset as two words without the unwritten bit:
 * as numbers that compare as the tree orders them. */
function rmapKey(
  view: DataView,
  block: number,
  owner: number,
  offset: number,
): number[] {
  return [
    block,
    view.getUint32(owner),
    view.getUint32(owner + 4),
    (view.getUint32(offset) & 0xdfff_ffff) >>> 0,
    view.getUint32(offset + 4),
  ];
}

/** Owners of blocks. */
export const RMAPBT: TreeKind = {
  ...shortTree("rmapbt", F.XFS_RMAP_CRC_MAGIC, 24, 40, none),
  overlapping: true,
  lowKey: (view, at) => rmapKey(view, view.getUint32(at), at + 8, at + 16),
  highKey: rmapHighKey,
  nodeKey: (view, at) => rmapKey(view, view.getUint32(at), at + 4, at + 12),
};

/** The last block of a record, and the offset that it has. */
function rmapHighKey(view: DataView, at: number): number[] {
  const more = view.getUint32(at + 4) - 1;
  const key = rmapKey(view, view.getUint32(at) + more, at + 8, at + 16);
  const special = key[1]! >= 2 ** 31;
  const isBmbt = (key[3]! & 0x4000_0000) !== 0;
  if (special || isBmbt) return key;
  const low = key[4]! + more;
  key[4] = low % 2 ** 32;
  key[3] = key[3]! + Math.floor(low / 2 ** 32);
  return key;
}

/** Start of a mapping, file blocks. */
function bmbtRecKey(view: DataView, at: number): number[] {
  const high = view.getUint32(at) & 0x7fff_ffff;
  const low = view.getUint32(at + 4);
  return [high * 2 ** 23 + Math.floor(low / 2 ** 9)];
}

/** Mappings of a fork. */
export const BMBT: TreeKind = {
  block: {
    name: "bmap btree block",
    magic: F.XFS_BMAP_CRC_MAGIC,
    magicAt: F.BB_MAGIC,
    magicBytes: 4,
    crcAt: F.LBB_CRC,
    blknoAt: F.LBB_BLKNO,
    lsnAt: F.LBB_LSN,
    uuidAt: F.LBB_UUID,
    ownerAt: F.LBB_OWNER,
    ownerBytes: 8,
  },
  header: F.XFS_BTREE_LBLOCK_CRC_LEN,
  recBytes: 16,
  keyBytes: 8,
  ptrBytes: 8,
  overlapping: false,
  lowKey: bmbtRecKey,
  highKey: none,
  nodeKey: (view, at) => [getU64(view, at)],
};

/** Keys as the tree orders them. */
function compareKeys(a: number[], b: number[]): number {
  for (let i = 0; i < a.length; i++) {
    if (a[i] !== b[i]) return a[i]! - b[i]!;
  }
  return 0;
}

/** Blocks of one level, from left to right, and what their parents say. */
interface Level {
  /** Block of the group, or of the file system. */
  ptrs: number[];
  low: (number[] | null)[];
  high: (number[] | null)[];
}

/** Takes the records of a leaf. */
export type LeafVisitor = (view: DataView, at: number, count: number) => void;

/** Walks one tree. */
export class TreeWalk {
  readonly #ctx: FsckContext;
  readonly #kind: TreeKind;
  readonly #agno: number;
  readonly #owner: number;
  readonly #where: string;
  readonly #seen = new Set<number>();
  /** Blocks of it, in the order in which they were met. */
  readonly blocks: number[] = [];
  /** Everything was as it should be. */
  ok = true;

  /**
   * @param agno Group that it lies in; -1 for a fork's, which may lie in any.
   * @param owner Group or inode.
   * @param where Said in front of findings about it.
   */
  constructor(
    ctx: FsckContext,
    kind: TreeKind,
    agno: number,
    owner: number,
    where: string,
  ) {
    this.#ctx = ctx;
    this.#kind = kind;
    this.#agno = agno;
    this.#owner = owner;
    this.#where = where;
  }

  /** Walks from a root that is a block. */
  fromBlock(root: number, levels: number, leaf: LeafVisitor): void {
    this.#down(
      { ptrs: [root], low: [null], high: [null] },
      levels - 1,
      leaf,
      true,
    );
  }

  /**
   * Walks from a root that is in an inode: its keys and pointers.
   *
   * @param level Of the root: its children have one less.
   */
  fromKeys(
    keys: number[],
    ptrs: number[],
    level: number,
    leaf: LeafVisitor,
  ): void {
    const low = keys.map((key) => [key]);
    const high = ptrs.map(() => null);
    this.#down({ ptrs, low, high }, level - 1, leaf, false);
  }

  #found(why: string): void {
    this.ok = false;
    this.#ctx.found(`${this.#where}: ${why}`);
  }

  #down(
    first: Level,
    level: number,
    leaf: LeafVisitor,
    hasRoot: boolean,
  ): void {
    let here = first;
    for (let l = level; l >= 0; l--) {
      const next: Level = { ptrs: [], low: [], high: [] };
      const isRoot = hasRoot && l === level;
      for (let i = 0; i < here.ptrs.length; i++) {
        this.#visit(here, i, l, isRoot, leaf, next);
        // More pointers than blocks: some point where others do.
        if (next.ptrs.length > this.#ctx.sb.dblocks) {
          return this.#found(`level ${l - 1} has more blocks than there are`);
        }
      }
      here = next;
    }
  }

  #name(ptr: number): string {
    const { sb } = this.#ctx;
    const agno = this.#agno < 0 ? sb.fsbToAgno(ptr) : this.#agno;
    const agbno = this.#agno < 0 ? sb.fsbToAgbno(ptr) : ptr;
    return `${this.#kind.block.name} ${agno}/${agbno}`;
  }

  #visit(
    here: Level,
    i: number,
    level: number,
    isRoot: boolean,
    leaf: LeafVisitor,
    next: Level,
  ): void {
    const ptr = here.ptrs[i]!;
    const name = this.#name(ptr);
    const data = this.#read(ptr, name);
    if (data === null) {
      this.ok = false;
      return;
    }
    const view = viewOf(data);
    if (view.getUint16(F.BB_LEVEL) !== level) {
      this.#found(
        `expected level ${level} got ${view.getUint16(F.BB_LEVEL)} in ${name}`,
      );
      return;
    }
    this.#checkSiblings(here, i, view, name);
    const count = view.getUint16(F.BB_NUMRECS);
    const alone = isRoot || here.ptrs.length === 1;
    if (!this.#checkCount(count, level, isRoot, alone, name)) return;
    if (level === 0) this.#visitLeaf(here, i, view, count, name, leaf);
    else this.#visitNode(here, i, view, count, name, next);
  }

  #read(ptr: number, name: string): Uint8Array | null {
    const { sb } = this.#ctx;
    const inFork = this.#agno < 0;
    const valid = inFork
      ? sb.verifyFsbno(ptr)
      : sb.verifyAgbno(this.#agno, ptr);
    if (!valid) {
      this.#found(`bad pointer ${ptr}`);
      return null;
    }
    if (this.#seen.has(ptr)) {
      this.#found(`${name} is met twice`);
      return null;
    }
    this.#seen.add(ptr);
    const agno = inFork ? sb.fsbToAgno(ptr) : this.#agno;
    const agbno = inFork ? sb.fsbToAgbno(ptr) : ptr;
    const what = `${this.#where}: ${name}`;
    const data = this.#ctx.readAg(agno, agbno, 1, what);
    if (data === null) return null;
    const daddr = sb.agbToDaddr(agno, agbno);
    const { block } = this.#kind;
    if (!this.#ctx.checkBlock(block, data, daddr, this.#owner, what)) {
      return null;
    }
    this.blocks.push(ptr);
    return data;
  }

  #checkSiblings(here: Level, i: number, view: DataView, name: string): void {
    const wide = this.#kind.ptrBytes === 8;
    const left = wide
      ? getU64(view, F.LBB_LEFTSIB)
      : view.getUint32(F.SBB_LEFTSIB);
    const right = wide
      ? getU64(view, F.LBB_RIGHTSIB)
      : view.getUint32(F.SBB_RIGHTSIB);
    const none = wide ? F.NULLFSBLOCK : F.NULLAGBLOCK;
    const show = (ptr: number) => ptr === none ? "NULL" : `${ptr}`;
    const wantLeft = here.ptrs[i - 1] ?? none;
    const wantRight = here.ptrs[i + 1] ?? none;
    if (left !== wantLeft) {
      this.#found(
        `bad back (left) sibling pointer (saw ${show(left)} should be ` +
          `${show(wantLeft)}) in ${name}`,
      );
    }
    if (right !== wantRight) {
      this.#found(
        `bad fwd (right) sibling pointer (saw ${show(right)} should be ` +
          `${show(wantRight)}) in ${name}`,
      );
    }
  }

  /** Most entries of a block. */
  #max(level: number): number {
    const { header, recBytes, keyBytes, ptrBytes } = this.#kind;
    const size = level === 0 ? recBytes : keyBytes + ptrBytes;
    return Math.floor((this.#ctx.sb.blocksize - header) / size);
  }

  #checkCount(
    count: number,
    level: number,
    isRoot: boolean,
    alone: boolean,
    name: string,
  ): boolean {
    const max = this.#max(level);
    const usual = Math.floor(max / 2);
    // A root has at least two children, or it would not be there.
    const least = isRoot ? (level === 0 ? 0 : 2) : alone ? 1 : usual;
    if (count >= least && count <= max) return true;
    this.#found(
      `bad btree nrecs (${count}, min=${least}, max=${max}) in ${name}`,
    );
    return count > 0 && count <= max;
  }

  #visitLeaf(
    here: Level,
    i: number,
    view: DataView,
    count: number,
    name: string,
    leaf: LeafVisitor,
  ): void {
    const { header, recBytes, overlapping } = this.#kind;
    if (count > 0) {
      this.#checkLow(here.low[i]!, this.#kind.lowKey(view, header), name);
      if (overlapping) {
        let high = this.#kind.highKey(view, header);
        for (let r = 1; r < count; r++) {
          const key = this.#kind.highKey(view, header + r * recBytes);
          if (compareKeys(key, high) > 0) high = key;
        }
        this.#checkHigh(here.high[i]!, high, name);
      }
    }
    leaf(view, header, count);
  }

  #visitNode(
    here: Level,
    i: number,
    view: DataView,
    count: number,
    name: string,
    next: Level,
  ): void {
    const { header, keyBytes, ptrBytes, overlapping } = this.#kind;
    const ptrs = header + this.#max(1) * keyBytes;
    let highest: number[] | null = null;
    for (let k = 0; k < count; k++) {
      const at = header + k * keyBytes;
      const low = this.#kind.nodeKey(view, at);
      if (k === 0) this.#checkLow(here.low[i]!, low, name);
      next.low.push(low);
      const high = overlapping
        ? this.#kind.nodeKey(view, at + keyBytes / 2)
        : null;
      next.high.push(high);
      if (
        high !== null && (highest === null || compareKeys(high, highest) > 0)
      ) {
        highest = high;
      }
      const ptr = ptrs + k * ptrBytes;
      next.ptrs.push(ptrBytes === 4 ? view.getUint32(ptr) : getU64(view, ptr));
    }
    if (highest !== null) this.#checkHigh(here.high[i]!, highest, name);
  }

  #checkLow(want: number[] | null, has: number[], name: string): void {
    if (want === null || compareKeys(want, has) === 0) return;
    this.#found(
      `key ${want} of ${name} is not that of its first record, ${has}`,
    );
  }

  #checkHigh(want: number[] | null, has: number[], name: string): void {
    if (want === null || compareKeys(want, has) === 0) return;
    this.#found(`high key ${want} of ${name} is not its highest, ${has}`);
  }
}
