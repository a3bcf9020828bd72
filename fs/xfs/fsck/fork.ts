/**
 * The mappings of a fork: read from the inode or from its B+tree, and looked at.
 *
 * @module
 */

import { getU64 } from "../libxfs/bytes.ts";
import * as F from "../libxfs/format.ts";
import { BMBT, TreeWalk } from "./btree.ts";
import type { FsckContext } from "./context.ts";

const MAX_FILEOFF = 2 ** 54 - 1;
const FIRST = 16;

/** Mappings of a fork, in columns. */
export class Extents {
  count = 0;
  /** File blocks. */
  offset = new Float64Array(FIRST);
  /** Block of the file system. */
  fsbno = new Float64Array(FIRST);
  len = new Uint32Array(FIRST);
  unwritten = new Uint8Array(FIRST);
  /** Blocks of the fork's B+tree. */
  treeBlocks: number[] = [];
  /** Nothing was wrong with them. */
  ok = true;

  /** Makes it empty, to be used again. */
  clear(): void {
    this.count = 0;
    this.treeBlocks = [];
    this.ok = true;
  }

  /** Adds the record at a byte. */
  addRecord(view: DataView, at: number): void {
    if (this.count === this.len.length) this.#grow();
    const w0 = view.getUint32(at);
    const w1 = view.getUint32(at + 4);
    const w2 = view.getUint32(at + 8);
    const w3 = view.getUint32(at + 12);
    const i = this.count++;
    this.unwritten[i] = w0 >>> 31;
    this.offset[i] = (w0 & 0x7fff_ffff) * 2 ** 23 + (w1 >>> 9);
    this.fsbno[i] = (w1 & 0x1ff) * 2 ** 43 + w2 * 2 ** 11 + (w3 >>> 21);
    this.len[i] = w3 & 0x1f_ffff;
  }

  #grow(): void {
    const n = 2 * this.len.length;
    const f64 = (old: Float64Array) => {
      const more = new Float64Array(n);
      more.set(old);
      return more;
    };
    this.offset = f64(this.offset);
    this.fsbno = f64(this.fsbno);
    const len = new Uint32Array(n);
    len.set(this.len);
    this.len = len;
    const unwritten = new Uint8Array(n);
    unwritten.set(this.unwritten);
    this.unwritten = unwritten;
  }

  /** File block after the last mapping. */
  get end(): number {
    const i = this.count - 1;
    return i < 0 ? 0 : this.offset[i]! + this.len[i]!;
  }

  /** Index of the mapping that holds a file block, or -1. */
  find(fileBlock: number): number {
    let low = 0;
    let high = this.count - 1;
    while (low <= high) {
      const mid = (low + high) >> 1;
      const start = this.offset[mid]!;
      if (fileBlock < start) high = mid - 1;
      else if (fileBlock >= start + this.len[mid]!) low = mid + 1;
      else return mid;
    }
    return -1;
  }

  /** Index of the first mapping that ends after a file block. */
  findFrom(fileBlock: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const mid = (low + high) >> 1;
      if (this.offset[mid]! + this.len[mid]! <= fileBlock) low = mid + 1;
      else high = mid;
    }
    return low;
  }
}

/** Which fork of which inode, and where in the inode it lies. */
export interface ForkPlace {
  ino: number;
  isAttr: boolean;
  /** `XFS_DINODE_FMT_*`. */
  format: number;
  /** Extents that the inode says there are. */
  nextents: number;
  /** First byte, and bytes. */
  at: number;
  size: number;
}

/**
 * Reads the mappings of a fork that has some.
 *
 * @param out Filled; `ok` is false if anything was wrong: what can be used of it is
 *   there all the same.
 */
export function readFork(
  ctx: FsckContext,
  inode: DataView,
  fork: ForkPlace,
  out: Extents,
): void {
  out.clear();
  const name = `${fork.isAttr ? "attr" : "data"} fork in inode ${fork.ino}`;
  const found = (why: string) => {
    out.ok = false;
    ctx.found(`${name}: ${why}`);
  };
  if (fork.format === F.XFS_DINODE_FMT_EXTENTS) {
    const max = Math.floor(fork.size / 16);
    if (fork.nextents > max) {
      return found(`bad nextents ${fork.nextents}, room for ${max}`);
    }
    for (let i = 0; i < fork.nextents; i++) {
      out.addRecord(inode, fork.at + 16 * i);
    }
  } else readBtree(ctx, inode, fork, name, found, out);
  if (out.count !== fork.nextents && out.ok) {
    found(`nextents ${fork.nextents}, counted ${out.count}`);
  }
  checkExtents(ctx, found, out);
}

function readBtree(
  ctx: FsckContext,
  inode: DataView,
  fork: ForkPlace,
  name: string,
  found: (why: string) => void,
  out: Extents,
): void {
  const level = inode.getUint16(fork.at);
  const numrecs = inode.getUint16(fork.at + 2);
  const max = Math.floor((fork.size - 4) / 16);
  if (level < 1 || level > F.XFS_BTREE_MAXLEVELS) {
    return found(`bad level ${level} of its btree root`);
  }
  if (numrecs < 1 || numrecs > max) {
    return found(`bad numrecs ${numrecs} of its btree root, max ${max}`);
  }
  const keys: number[] = [];
  const ptrs: number[] = [];
  for (let i = 0; i < numrecs; i++) {
    keys.push(getU64(inode, fork.at + 4 + 8 * i));
    ptrs.push(getU64(inode, fork.at + 4 + 8 * max + 8 * i));
  }
  const walk = new TreeWalk(ctx, BMBT, -1, fork.ino, name);
  walk.fromKeys(keys, ptrs, level, (view, at, count) => {
    for (let i = 0; i < count; i++) out.addRecord(view, at + 16 * i);
  });
  out.treeBlocks = walk.blocks;
  if (!walk.ok) out.ok = false;
  if (fork.nextents <= Math.floor(fork.size / 16)) {
    found(`nextents ${fork.nextents} would fit without a btree`);
  }
}

/** Order, and that they lie within groups. */
function checkExtents(
  ctx: FsckContext,
  found: (why: string) => void,
  out: Extents,
): void {
  let end = 0;
  let bad = 0;
  for (let i = 0; i < out.count; i++) {
    const offset = out.offset[i]!;
    const len = out.len[i]!;
    const fsbno = out.fsbno[i]!;
    const words = () => `entry ${i} [${offset}, ${fsbno}, ${len}]`;
    if (offset < end) {
      found(`bmap rec out of order, ${words()}`);
      bad++;
    } else if (!ctx.sb.verifyFsbext(fsbno, len)) {
      found(`bad blocks, ${words()}`);
      bad++;
    } else if (offset + len > MAX_FILEOFF) found(`too far, ${words()}`);
    end = Math.max(end, offset + len);
    if (bad > 100) break;
  }
  // What cannot be is not there: nobody need look again.
  if (bad > 0) dropBad(ctx, out);
}

function dropBad(ctx: FsckContext, out: Extents): void {
  let n = 0;
  let end = 0;
  for (let i = 0; i < out.count; i++) {
    const ok = out.offset[i]! >= end &&
      ctx.sb.verifyFsbext(out.fsbno[i]!, out.len[i]!);
    if (!ok) continue;
    end = out.offset[i]! + out.len[i]!;
    out.offset[n] = out.offset[i]!;
    out.fsbno[n] = out.fsbno[i]!;
    out.len[n] = out.len[i]!;
    out.unwritten[n] = out.unwritten[i]!;
    n++;
  }
  out.count = n;
}
