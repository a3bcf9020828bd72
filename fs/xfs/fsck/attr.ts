/**
 * Checking extended attributes in all their forms.
 *
 * @module
 */

import * as F from "../libxfs/format.ts";
import { type BlockKind, type FsckContext, viewOf } from "./context.ts";
import { daKind, DaWalk, FileReader, hashName, rmtKind } from "./da.ts";
import type { Extents, ForkPlace } from "./fork.ts";

const LEAF: BlockKind = daKind("attr leaf", F.XFS_ATTR3_LEAF_MAGIC);
const REMOTE: BlockKind = rmtKind("remote attr block", F.XFS_ATTR3_RMT_MAGIC);
const NAMESPACES = F.XFS_ATTR_ROOT | F.XFS_ATTR_SECURE | F.XFS_ATTR_PARENT;
const MAX_VALUE = 65536;

/** What is wrong with flags, or null. */
function badFlags(flags: number, known: number): string | null {
  if ((flags & ~known) !== 0) return `unknown flags 0x${flags.toString(16)}`;
  const spaces = flags & NAMESPACES;
  return (spaces & (spaces - 1)) === 0
    ? null
    : `several namespaces 0x${flags.toString(16)}`;
}

/** Looks at attributes that are in the inode. */
export function checkShortformAttr(
  ctx: FsckContext,
  ino: number,
  inode: Uint8Array,
  fork: ForkPlace,
): void {
  const found = (why: string) => ctx.found(`shortform attrs of ${ino}: ${why}`);
  const data = inode.subarray(fork.at, fork.at + fork.size);
  const view = viewOf(data);
  if (fork.size < 4) return found("no room for a header");
  const total = view.getUint16(0);
  const count = view.getUint8(2);
  if (total < 4 || total > fork.size) {
    return found(`bad totsize ${total}, room for ${fork.size}`);
  }
  const names = new Set<string>();
  let at = 4;
  for (let i = 0; i < count; i++) {
    const namelen = at + 3 <= total ? view.getUint8(at) : 0;
    const valuelen = at + 3 <= total ? view.getUint8(at + 1) : 0;
    const end = at + 3 + namelen + valuelen;
    if (namelen === 0 || end > total) {
      return found(`entry ${i} of ${count} does not fit totsize ${total}`);
    }
    const flags = view.getUint8(at + 2);
    const wrong = badFlags(flags, NAMESPACES | F.XFS_ATTR_INCOMPLETE);
    if (wrong !== null) found(`entry ${i}: ${wrong}`);
    const key = String.fromCharCode(
      flags,
      ...data.subarray(at + 3, at + 3 + namelen),
    );
    if (names.has(key)) found(`entry ${i}: the name is there twice`);
    names.add(key);
    at = end;
  }
  if (at !== total) found(`totsize ${total}, counted ${at}`);
}

/** Looks at attributes that are in blocks. */
export function checkAttrFork(
  ctx: FsckContext,
  ino: number,
  extents: Extents,
): void {
  if (extents.count === 0) return;
  const file = new FileReader(ctx, ino, extents, "attr fork of");
  const leaves = new LeafCheck(file);
  const walk = new DaWalk(file, LEAF, 1, (v, block) => leaves.leaf(v, block));
  walk.from(0);
  if (!walk.ok || !leaves.ok) return;
  let blocks = 0;
  for (let i = 0; i < extents.count; i++) blocks += extents.len[i]!;
  const used = walk.seen.size + leaves.remoteBlocks;
  if (blocks !== used) file.found(`maps ${blocks} blocks, uses ${used}`);
}

/** A stretch of a leaf. */
type Stretch = [from: number, to: number];

/** Looks at leaves, one after the other. */
class LeafCheck {
  readonly #file: FileReader;
  /** Blocks of values. */
  remoteBlocks = 0;
  ok = true;
  #last = 0;

  constructor(file: FileReader) {
    this.#file = file;
  }

  #found(block: number, why: string): void {
    this.ok = false;
    this.#file.found(`${why} in block ${block}`);
  }

  /** @returns The highest hash value. */
  leaf(view: DataView, block: number): number {
    const size = view.byteLength;
    const count = view.getUint16(F.DA3_COUNT);
    const tableEnd = F.ATTR3_HDR_SIZE + 8 * count;
    if (tableEnd > size) {
      this.#found(block, `bad count ${count}`);
      return -1;
    }
    const used: Stretch[] = [[0, tableEnd]];
    for (let i = 0; i < count; i++) {
      const name = this.#entry(view, block, i, tableEnd);
      if (name !== null) used.push(name);
    }
    this.#checkSpace(view, block, used, tableEnd);
    return count === 0
      ? -1
      : view.getUint32(F.ATTR3_HDR_SIZE + 8 * (count - 1));
  }

  /** @returns Where its name lies; null if that makes no sense. */
  #entry(
    view: DataView,
    block: number,
    i: number,
    tableEnd: number,
  ): Stretch | null {
    const at = F.ATTR3_HDR_SIZE + 8 * i;
    const hash = view.getUint32(at);
    const name = view.getUint16(at + 4);
    const flags = view.getUint8(at + 6);
    if (hash < this.#last) this.#found(block, `entry ${i} out of order`);
    this.#last = hash;
    const known = NAMESPACES | F.XFS_ATTR_LOCAL | F.XFS_ATTR_INCOMPLETE;
    const wrong = badFlags(flags, known);
    if (wrong !== null) this.#found(block, `entry ${i}: ${wrong}`);
    const isLocal = (flags & F.XFS_ATTR_LOCAL) !== 0;
    const header = isLocal ? 3 : 9;
    if (name < tableEnd || name + header > view.byteLength) {
      this.#found(block, `entry ${i}: bad nameidx ${name}`);
      return null;
    }
    const namelen = view.getUint8(name + header - 1);
    const valuelen = isLocal ? view.getUint16(name) : 0;
    // The structure of a remote value ends in a byte more than it has, and padding.
    const bytes = isLocal ? 3 + namelen + valuelen : 11 + namelen;
    const end = name + Math.ceil(bytes / 4) * 4;
    if (namelen === 0 || end > view.byteLength) {
      this.#found(block, `entry ${i}: bad name at ${name}`);
      return null;
    }
    const data = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    const counted = hashName(data, name + header, namelen);
    if (counted !== hash && (flags & F.XFS_ATTR_PARENT) === 0) {
      this.#found(block, `entry ${i}: bad hash 0x${hash.toString(16)}`);
    }
    if (!isLocal) this.#remote(view, block, i, name, flags);
    return [name, end];
  }

  #remote(
    view: DataView,
    block: number,
    i: number,
    name: number,
    flags: number,
  ): void {
    // What it names may not have been written.
    const { sb } = this.#file.ctx;
    const first = view.getUint32(name);
    const valuelen = view.getUint32(name + 4);
    if ((flags & F.XFS_ATTR_INCOMPLETE) !== 0) {
      this.#found(block, `entry ${i}: incomplete`);
      return;
    }
    if (valuelen === 0 || valuelen > MAX_VALUE) {
      return this.#found(block, `entry ${i}: bad valuelen ${valuelen}`);
    }
    const room = sb.blocksize - F.RMT_HDR_SIZE;
    const blocks = Math.ceil(valuelen / room);
    this.remoteBlocks += blocks;
    for (let k = 0; k < blocks; k++) {
      const data = this.#file.readKind(REMOTE, first + k, 1);
      if (data === null) {
        this.ok = false;
        return;
      }
      const header = viewOf(data);
      const offset = header.getUint32(F.RMT_OFFSET);
      const bytes = header.getUint32(F.RMT_BYTES);
      const want = Math.min(room, valuelen - k * room);
      if (offset !== k * room || bytes !== want) {
        return this.#found(
          first + k,
          `bad remote value: offset ${offset} bytes ${bytes}`,
        );
      }
    }
  }

  /** Names may not overlap; counters and free regions have to agree with them. */
  #checkSpace(
    view: DataView,
    block: number,
    used: Stretch[],
    tableEnd: number,
  ): void {
    used.sort((a, b) => a[0] - b[0]);
    let usedbytes = 0;
    for (let i = 1; i < used.length; i++) {
      usedbytes += used[i]![1] - used[i]![0];
      if (used[i]![0] >= used[i - 1]![1]) continue;
      this.#found(block, `names overlap at ${used[i]![0]}`);
    }
    const has = view.getUint16(F.ATTR3_USEDBYTES);
    if (has !== usedbytes) {
      this.#found(block, `usedbytes ${has}, counted ${usedbytes}`);
    }
    const size = view.byteLength;
    const lowest = used[1]?.[0] ?? size;
    const stored = view.getUint16(F.ATTR3_FIRSTUSED);
    const firstused = stored === 0 && size === 65536 ? 65536 : stored;
    if (firstused > lowest || firstused < tableEnd) {
      this.#found(block, `firstused ${firstused}, counted ${lowest}`);
    }
    for (let i = 0; i < 3; i++) this.#checkFreemap(view, block, i, used);
  }

  #checkFreemap(
    view: DataView,
    block: number,
    i: number,
    used: Stretch[],
  ): void {
    const base = view.getUint16(F.ATTR3_FREEMAP + 4 * i);
    const size = view.getUint16(F.ATTR3_FREEMAP + 4 * i + 2);
    const words = `freemap ${i} [${base}, ${size}]`;
    if (base % 4 !== 0 || size % 4 !== 0 || base + size > view.byteLength) {
      return this.#found(block, `bad ${words}`);
    }
    if (size === 0) return;
    for (const [from, to] of used) {
      if (base >= to || base + size <= from) continue;
      return this.#found(block, `${words} overlaps what is at ${from}`);
    }
  }
}
