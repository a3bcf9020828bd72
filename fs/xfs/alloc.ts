/**
 * Choosing blocks: near a target, at it, or by size.
 *
 * Space is promised before blocks are chosen: {@linkcode reserveBlocks} counts it
 * off, so a write meets ENOSPC when it is made and not when it is written back.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_alloc.c, xfs_mount.c (`xfs_mod_freecounter`).
 *
 * @module
 */

import { EFSCORRUPTED, ENOSPC } from "../../lib/errno.ts";
import { warnOn } from "../../lib/bug.ts";
import type { XfsPerag } from "./ag.ts";
import type { XfsMount } from "./mount.ts";

/** Free extents looked at on each side of the target before size alone decides. */
const NEAR_STEPS = 64;
/** Freed runs of a group that wait for the log at most. */
const MAX_BUSY = 4096;

/** What an allocation came to (kernel: `struct xfs_alloc_arg`). */
export interface Allocation {
  /** First block on the device. */
  fsbno: number;
  /** Blocks; 0 if nothing was found. */
  count: number;
}

/**
 * Counts space off the free counter (kernel: `xfs_dec_fdblocks`).
 *
 * @param blocks Blocks to promise.
 * @param usePool The reserve may be used: for metadata, which must not fail.
 * @returns 0, or -ENOSPC: then nothing was counted.
 */
export function reserveBlocks(
  mp: XfsMount,
  blocks: number,
  usePool = false,
): number {
  if (mp.fdblocks >= blocks) {
    mp.fdblocks -= blocks;
    return 0;
  }
  const missing = blocks - mp.fdblocks;
  if (!usePool || mp.poolBlocks < missing) return -ENOSPC;
  mp.poolBlocks -= missing;
  mp.fdblocks = 0;
  return 0;
}

/** Gives promised or freed space back; the reserve is filled first (kernel:
 * `xfs_add_fdblocks`). */
export function unreserveBlocks(mp: XfsMount, blocks: number): void {
  const toPool = Math.min(blocks, mp.poolSize - mp.poolBlocks);
  mp.poolBlocks += toPool;
  mp.fdblocks += blocks - toPool;
}

/**
 * Allocates blocks that have been reserved, in the target's group or the first
 * after it that has them (kernel: `xfs_alloc_vextent_start_ag`).
 *
 * @param target Block to be near.
 * @param want Blocks; fewer come if no free extent is that long.
 * @param out Filled in; `count` is 0 only if nothing at all is free.
 */
export function allocVextent(
  mp: XfsMount,
  target: number,
  want: number,
  out: Allocation,
): void {
  const first = Math.min(
    Math.floor(target / mp.geo.agBlocks),
    mp.ags.length - 1,
  );
  let ag = chooseAg(mp, first, want);
  if (ag === null || ag.longest < want) {
    // Better to write the log now than to break up the file.
    clearBusy(mp);
    ag = chooseAg(mp, first, want);
  }
  out.count = 0;
  if (ag === null) return;
  const wish = ag.agno === first ? target - first * mp.geo.agBlocks : 0;
  allocNear(ag, wish, Math.min(want, ag.longest), out);
  out.fsbno += ag.agno * mp.geo.agBlocks;
}

/** First group from `first` on that can give it all in one piece, else the one that
 * comes closest (kernel: `xfs_bmap_btalloc_select_lengths`). */
function chooseAg(
  mp: XfsMount,
  first: number,
  want: number,
): XfsPerag | null {
  let best: XfsPerag | null = null;
  let longest = 0;
  for (let i = 0; i < mp.ags.length; i++) {
    const ag = mp.ags[(first + i) % mp.ags.length]!;
    const length = ag.longest;
    if (length >= want) return ag;
    if (length > longest) {
      best = ag;
      longest = length;
    }
  }
  return best;
}

/** Takes `count` blocks as near to `wish` as they are (kernel:
 * `xfs_alloc_ag_vextent_near`). Some free extent is that long. */
function allocNear(
  ag: XfsPerag,
  wish: number,
  count: number,
  out: Allocation,
): void {
  const at = findNear(ag, wish, count);
  out.fsbno = at >= 0 ? at : findBySize(ag, count);
  out.count = count;
  ag.take(out.fsbno, count);
}

/** The nearest place among the free extents around `wish`, or -1. */
function findNear(ag: XfsPerag, wish: number, count: number): number {
  const { bnobt } = ag;
  let best = -1;
  let distance = Infinity;
  let more = bnobt.lookupLt(wish, Infinity);
  for (let i = 0; more && i < NEAR_STEPS; i++) {
    if (bnobt.b >= count) {
      best = placeNear(bnobt.a, bnobt.b, wish, count);
      distance = Math.abs(wish - best);
      break;
    }
    more = bnobt.prev();
  }
  more = bnobt.lookupGe(wish, Infinity);
  for (let i = 0; more && i < NEAR_STEPS; i++) {
    if (bnobt.a - wish >= distance) break;
    if (bnobt.b >= count) return bnobt.a;
    more = bnobt.next();
  }
  return best;
}

/** Where in a free extent `count` blocks lie nearest to `wish` (kernel:
 * `xfs_alloc_compute_diff`). */
function placeNear(
  start: number,
  length: number,
  wish: number,
  count: number,
): number {
  if (start >= wish) return start;
  // One that is not long enough from the wish on is used from its start, so that
  // the file can grow into the rest.
  return start + length < wish + count ? start : wish;
}

/** The first of the smallest free extents that are long enough (kernel:
 * `xfs_alloc_ag_vextent_size`). */
function findBySize(ag: XfsPerag, count: number): number {
  ag.cntbt.lookupGe(count, 0);
  return ag.cntbt.b;
}

/** The log is written, or there is none to wait for: freed blocks may be used (kernel:
 * `xfs_extent_busy_flush`). */
export function clearBusy(mp: XfsMount): void {
  for (const ag of mp.ags) ag.clearBusy();
}

/**
 * Frees blocks. They count as free space at once, but are not used again before the
 * log is written (kernel: `xfs_free_extent`).
 *
 * @returns 0, or -EFSCORRUPTED if they were not in use: then nothing is changed.
 */
export function freeExtent(
  mp: XfsMount,
  fsbno: number,
  count: number,
): number {
  const agno = Math.floor(fsbno / mp.geo.agBlocks);
  const ag = mp.ags[agno];
  const ok = ag !== undefined && ag.free(fsbno - agno * mp.geo.agBlocks, count);
  if (warnOn(!ok, `freeing blocks ${fsbno}+${count} that are not in use`)) {
    return -EFSCORRUPTED;
  }
  unreserveBlocks(mp, count);
  // The log writes itself when it has grown.
  if (ag!.busyRuns > MAX_BUSY) ag!.clearBusy();
  return 0;
}
