/**
 * Maps from file blocks to device blocks: looking up, promising space, choosing
 * it, converting, taking it away.
 *
 * Nothing here waits or touches the page cache. The caller holds the inode's
 * ILOCK: shared to read, else exclusive.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_bmap.c.
 *
 * @module
 */

import { bugOn } from "../../lib/bug.ts";
import { EAGAIN, ENOSPC } from "../../lib/errno.ts";
import {
  type Allocation,
  allocVextent,
  freeExtent,
  reserveBlocks,
  unreserveBlocks,
} from "./alloc.ts";
import {
  BmbtIrec,
  DELAYSTARTBLOCK,
  HOLESTARTBLOCK,
  IextCursor,
  type Ifork,
} from "./iext.ts";
import type { XfsInode } from "./inode.ts";

/** Longest extent, blocks (kernel: `XFS_MAX_BMBT_EXTLEN`). */
export const MAX_BMBT_EXTLEN = 0x1f_ffff;

/** An allocation keeps a gap that the file has if the gap is at most this many times
 * its own length (kernel: `XFS_ALLOC_GAP_UNITS`). */
const GAP_UNITS = 4;

// Scratch: nothing here is entered twice, as nothing waits.
const cur = new IextCursor();
const prev = new BmbtIrec();
const next = new BmbtIrec();
const ext = new BmbtIrec();
const part = new BmbtIrec();
const allocation: Allocation = { fsbno: 0, count: 0 };

/** Cuts an extent to [startoff, startoff + count) (kernel: `xfs_trim_extent`). */
function trimExtent(
  rec: BmbtIrec,
  startoff: number,
  count: number,
): void {
  if (rec.startoff < startoff) {
    const cut = startoff - rec.startoff;
    if (rec.startblock >= 0) rec.startblock += cut;
    rec.startoff += cut;
    rec.count -= cut;
  }
  if (rec.endoff > startoff + count) {
    rec.count = startoff + count - rec.startoff;
  }
}

/**
 * The mapping of a file block, cut to the request; holes are reported as such
 * (kernel: `xfs_bmapi_read` with room for one mapping).
 *
 * @param off First block in the file.
 * @param len Blocks, above 0.
 * @param out Filled in.
 */
export function bmapiRead(
  fork: Ifork,
  off: number,
  len: number,
  out: BmbtIrec,
): void {
  const end = off + len;
  const found = fork.lookup(off, cur, out);
  if (!found || out.startoff > off) {
    const hole = Math.min(found ? out.startoff : end, end) - off;
    out.set(off, HOLESTARTBLOCK, hole, false);
  } else trimExtent(out, off, len);
}

/** Whether `right` goes on where `left` ends, in the file and on the device. */
function adjoins(left: BmbtIrec, right: BmbtIrec): boolean {
  if (left.endoff !== right.startoff) return false;
  if (left.unwritten !== right.unwritten) return false;
  if (left.count + right.count > MAX_BMBT_EXTLEN) return false;
  return left.startblock < 0
    ? right.startblock === left.startblock
    : left.startblock + left.count === right.startblock;
}

/**
 * Puts an extent into a hole and joins it with its neighbours (kernel:
 * `xfs_bmap_add_extent_hole_delay`, `xfs_bmap_add_extent_hole_real`).
 *
 * @param rec The extent; becomes the joined one.
 */
function bmapAddExtent(fork: Ifork, rec: BmbtIrec): void {
  const hasNext = fork.lookup(rec.startoff, cur, next);
  bugOn(hasNext && next.startoff < rec.endoff, "extents overlap");
  const joinsNext = hasNext && adjoins(rec, next);
  const joinsPrev = fork.peekPrev(cur, prev) && adjoins(prev, rec);
  if (joinsPrev) {
    const both = joinsNext &&
      prev.count + rec.count + next.count <= MAX_BMBT_EXTLEN;
    rec.set(
      prev.startoff,
      prev.startblock,
      prev.count + rec.count + (both ? next.count : 0),
      rec.unwritten,
    );
    if (both) fork.remove(cur);
    fork.prev(cur, prev);
    fork.update(cur, rec);
  } else if (joinsNext) {
    rec.count += next.count;
    fork.update(cur, rec);
  } else fork.insert(cur, rec);
}

/**
 * Promises space for a hole of the data fork (kernel:
 * `xfs_bmapi_reserve_delalloc`).
 *
 * @param off First block.
 * @param len Blocks to be written.
 * @param prealloc Blocks more, if they are free of other extents.
 * @param got In: the next extent after `off` unless `eof`. Out: what was promised,
 *   without the promised neighbours that it joins in the fork.
 * @param eof Nothing is mapped from `off` on.
 * @returns 0 or -ENOSPC.
 */
export function bmapiReserveDelalloc(
  ip: XfsInode,
  off: number,
  len: number,
  prealloc: number,
  got: BmbtIrec,
  eof: boolean,
): number {
  let count = Math.min(len + prealloc, MAX_BMBT_EXTLEN);
  if (!eof) count = Math.min(count, got.startoff - off);
  const error = reserveBlocks(ip.mount, count);
  if (error < 0) return error;
  ip.delayedBlocks += count;
  bmapAddExtent(ip.df, ext.set(off, DELAYSTARTBLOCK, count, false));
  got.set(off, DELAYSTARTBLOCK, count, false);
  return 0;
}

/** Where new blocks had best lie: behind what comes before in the file, or before what
 * comes after (kernel: `xfs_bmap_adjacent`). */
function allocTarget(
  ip: XfsInode,
  off: number,
  len: number,
  left: BmbtIrec | null,
  right: BmbtIrec | null,
): number {
  const { agBlocks } = ip.mount.geo;
  const sameAg = (a: number, b: number) =>
    Math.floor(a / agBlocks) === Math.floor(b / agBlocks);
  let target = -1;
  let distance = Infinity;
  if (left !== null && left.startblock >= 0) {
    const gap = off - left.endoff;
    const end = left.startblock + left.count;
    // Behind the last extent of a file a gap is kept whatever its size.
    const keep = (right === null || gap <= GAP_UNITS * len) &&
      sameAg(end + gap, left.startblock);
    target = keep ? end + gap : end;
    distance = keep ? gap : 2 * gap;
  }
  if (right !== null && right.startblock >= 0) {
    const gap = right.startoff - off;
    let at = right.startblock;
    let cost = 2 * gap;
    if (gap <= GAP_UNITS * len && sameAg(at - gap, at)) {
      at -= gap;
      cost = gap;
    } else if (sameAg(at - len, at)) {
      at -= len;
      cost = 2 * gap - len;
    }
    if (target < 0 || cost < distance) target = at;
  }
  return target >= 0 ? target : ip.mount.geo.inoToFsb(ip.ino);
}

/**
 * Turns promised space into allocated, unwritten blocks: the whole promised extent
 * around a block, or its first part where free space is in pieces (kernel:
 * `xfs_bmapi_convert_delalloc`).
 *
 * @param off Block in the file.
 * @param out The extent that the blocks are in now; what covers `off` if that
 *   was not promised space.
 * @returns 0; -EAGAIN if nothing is mapped at `off`; -ENOSPC if no block is free,
 *   which promised space excludes.
 */
export function bmapiConvertDelalloc(
  ip: XfsInode,
  off: number,
  out: BmbtIrec,
): number {
  do {
    if (!ip.df.lookup(off, cur, out) || out.startoff > off) return -EAGAIN;
    if (out.startblock !== DELAYSTARTBLOCK) return 0;
    const error = convertOneDelalloc(ip, out, out.startoff, out.count);
    if (error < 0) return error;
  } while (out.endoff <= off);
  return 0;
}

/**
 * Allocates blocks for part of a promised extent, fewer where free space is in
 * pieces.
 *
 * @param rec In: the promised extent, at the cursor. Out: what the blocks are in.
 */
function convertOneDelalloc(
  ip: XfsInode,
  rec: BmbtIrec,
  off: number,
  len: number,
): number {
  const { df } = ip;
  const left = df.peekPrev(cur, prev) ? prev : null;
  const target = allocTarget(ip, off, len, left, rec);
  allocVextent(ip.mount, target, len, allocation);
  const { fsbno, count } = allocation;
  if (count === 0) return -ENOSPC;
  ext.copy(rec);
  cutOut(df, off, off + count);
  ip.delayedBlocks -= count;
  ip.nblocks += count;
  bmapAddExtent(df, rec.set(off, fsbno, count, true));
  ip.logMap();
  return 0;
}

/**
 * Sees to it that a block has space on the device: promised space and holes get
 * unwritten blocks as far as the request goes (kernel: `xfs_bmapi_write` with
 * `XFS_BMAPI_PREALLOC` and room for one mapping).
 *
 * @param off First block.
 * @param len Blocks.
 * @param out The mapping at `off`, cut to the request.
 * @returns 0 or -ENOSPC.
 */
export function bmapiWrite(
  ip: XfsInode,
  off: number,
  len: number,
  out: BmbtIrec,
): number {
  const { df } = ip;
  const found = df.lookup(off, cur, out);
  let error = 0;
  if (!found || out.startoff > off) {
    error = allocateHole(ip, off, len, found, out);
  } else if (out.startblock === DELAYSTARTBLOCK) {
    const want = Math.min(len, out.endoff - off);
    error = convertOneDelalloc(ip, out, off, want);
  }
  trimExtent(out, off, len);
  return error;
}

/** @param rec In: the next extent, at the cursor, if `found`. Out: the new one. */
function allocateHole(
  ip: XfsInode,
  off: number,
  len: number,
  found: boolean,
  rec: BmbtIrec,
): number {
  const { df, mount } = ip;
  const room = found ? rec.startoff - off : Infinity;
  const want = Math.min(len, room, MAX_BMBT_EXTLEN);
  const error = reserveBlocks(mount, want);
  if (error < 0) return error;
  const left = df.peekPrev(cur, prev) ? prev : null;
  const target = allocTarget(ip, off, want, left, found ? rec : null);
  allocVextent(mount, target, want, allocation);
  const { fsbno, count } = allocation;
  unreserveBlocks(mount, want - count);
  if (count === 0) return -ENOSPC;
  ip.nblocks += count;
  bmapAddExtent(df, rec.set(off, fsbno, count, true));
  ip.logMap();
  return 0;
}

/**
 * Marks unwritten blocks of a range as written; others stay as they are (kernel:
 * `xfs_bmapi_write` with `XFS_BMAPI_CONVERT`).
 *
 * @param off First block.
 * @param len Blocks.
 */
export function bmapConvertUnwritten(
  ip: XfsInode,
  off: number,
  len: number,
): void {
  const { df } = ip;
  const end = off + len;
  let from = off;
  while (from < end && df.lookup(from, cur, ext) && ext.startoff < end) {
    from = ext.endoff;
    if (!ext.unwritten) continue;
    cutOut(df, off, end);
    part.unwritten = false;
    bmapAddExtent(df, part);
    ip.logMap();
  }
}

/**
 * Takes the part of `ext`, which is at the cursor, within [off, end) out of the fork;
 * `part` is what was taken, the rest stays.
 */
function cutOut(fork: Ifork, off: number, end: number): void {
  part.copy(ext);
  trimExtent(part, off, end - off);
  const headCount = part.startoff - ext.startoff;
  const tailCount = ext.endoff - part.endoff;
  const tailStart = part.endoff;
  const tailBlock = ext.startblock < 0
    ? ext.startblock
    : part.startblock + part.count;
  const { startoff, startblock, unwritten } = ext;
  if (headCount > 0 && tailCount > 0) {
    fork.update(cur, next.set(tailStart, tailBlock, tailCount, unwritten));
    fork.insert(cur, next.set(startoff, startblock, headCount, unwritten));
  } else if (headCount > 0) {
    fork.update(cur, next.set(startoff, startblock, headCount, unwritten));
  } else if (tailCount > 0) {
    fork.update(cur, next.set(tailStart, tailBlock, tailCount, unwritten));
  } else fork.remove(cur);
}

/**
 * Takes the mapping of a range away and frees its blocks (kernel: `xfs_bunmapi`).
 *
 * @param off First block.
 * @param end First block after the range; Infinity for all beyond.
 */
export function bunmapi(ip: XfsInode, off: number, end: number): void {
  const { df, mount } = ip;
  while (df.lookup(off, cur, ext) && ext.startoff < end) {
    cutOut(df, off, end);
    if (part.startblock === DELAYSTARTBLOCK) {
      ip.delayedBlocks -= part.count;
      unreserveBlocks(mount, part.count);
    } else {
      ip.nblocks -= part.count;
      freeExtent(mount, part.startblock, part.count);
      ip.logMap();
    }
  }
}

/** Takes promised space of a range back; allocated blocks stay (kernel:
 * `xfs_bmap_punch_delalloc_range`). Blocks; `end` may be Infinity. */
export function bmapPunchDelalloc(
  ip: XfsInode,
  off: number,
  end: number,
): void {
  const { df } = ip;
  let from = off;
  while (from < end && df.lookup(from, cur, ext) && ext.startoff < end) {
    from = ext.endoff;
    if (ext.startblock !== DELAYSTARTBLOCK) continue;
    cutOut(df, off, end);
    ip.delayedBlocks -= part.count;
    unreserveBlocks(ip.mount, part.count);
  }
}
