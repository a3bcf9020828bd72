/**
 * Blocks that every group keeps for its own trees, which must be able to grow when
 * nothing else is free: reference counts, free inodes and the reverse map.
 *
 * The trees of reference counts and free inodes are used space, so what is kept for
 * them is what they do not have yet. The reverse map lives in space that counts as
 * free, so all that it may need is kept from everybody else.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_ag_resv.c; the reservations of
 * xfs_refcount_btree.c, xfs_ialloc_btree.c and xfs_rmap_btree.c.
 *
 * @module
 */

import { ENOSPC } from "../../../lib/errno.ts";
import { printk } from "../../../lib/printk.ts";
import {
  xfsAgContainsLog,
  type XfsAgResv,
  xfsAllocReadAgf,
  xfsIallocReadAgi,
  type XfsPerag,
} from "./ag.ts";
import {
  xfsBtreeCalcSize,
  xfsBtreeCountBlocks,
  xfsBtreeDelCursor,
} from "./btree.ts";
import type { XfsBuf } from "./buf.ts";
import * as F from "./format.ts";
import { xfsFinobtInitCursor, xfsFinobtOps } from "./ialloc-btree.ts";
import { xfsRefcountbtOps } from "./refcount-btree.ts";
import { xfsRmapbtOps } from "./rmap-btree.ts";
import type { XfsTrans } from "./trans.ts";

/** Nothing was kept for it (kernel: `XFS_AG_RESV_NONE`). */
export const XFS_AG_RESV_NONE = 0;
/** For the AGFL, which counts as free (kernel: `XFS_AG_RESV_AGFL`). */
export const XFS_AG_RESV_AGFL = 1;
/** For trees of metadata (kernel: `XFS_AG_RESV_METADATA`). */
export const XFS_AG_RESV_METADATA = 2;
/** For the reverse map (kernel: `XFS_AG_RESV_RMAPBT`). */
export const XFS_AG_RESV_RMAPBT = 3;

/** What an allocation or a freeing is for: `XFS_AG_RESV_*` (kernel: `enum
 * xfs_ag_resv_type`). */
export type XfsAgResvType = 0 | 1 | 2 | 3;

/** Blocks of a group that are kept for others than `type` (kernel:
 * `xfs_ag_resv_needed`). */
export function xfsAgResvNeeded(pag: XfsPerag, type: XfsAgResvType): number {
  const meta = type === XFS_AG_RESV_METADATA ? 0 : pag.metaResv.reserved;
  const rmap = type === XFS_AG_RESV_RMAPBT ? 0 : pag.rmapbtResv.reserved;
  return meta + rmap;
}

/** Counts an allocation against what was kept or promised (kernel:
 * `xfs_ag_resv_alloc_extent`).
 * @param wasdel A delayed allocation has counted the blocks off already. */
export function xfsAgResvAllocExtent(
  pag: XfsPerag,
  type: XfsAgResvType,
  tp: XfsTrans,
  len: number,
  wasdel: boolean,
): void {
  if (type === XFS_AG_RESV_AGFL) return;
  if (type === XFS_AG_RESV_NONE) {
    if (wasdel) tp.modResFdblocks(-len);
    else tp.modFdblocks(-len);
    return;
  }
  const resv = resvOf(pag, type);
  const kept = Math.min(len, resv.reserved);
  resv.reserved -= kept;
  // Its blocks go on counting as free.
  if (type === XFS_AG_RESV_RMAPBT) return;
  tp.modResFdblocks(-kept);
  if (len > kept) tp.modFdblocks(kept - len);
}

/** Counts a freeing: to what is kept, as long as that is not all there, else as free
 * for all (kernel: `xfs_ag_resv_free_extent`). */
export function xfsAgResvFreeExtent(
  pag: XfsPerag,
  type: XfsAgResvType,
  tp: XfsTrans,
  len: number,
): void {
  if (type === XFS_AG_RESV_AGFL) return;
  if (type === XFS_AG_RESV_NONE) {
    tp.modFdblocks(len);
    return;
  }
  const resv = resvOf(pag, type);
  const kept = Math.min(len, resv.asked - resv.reserved);
  resv.reserved += kept;
  if (type === XFS_AG_RESV_RMAPBT) return;
  tp.modResFdblocks(kept);
  if (len > kept) tp.modFdblocks(len - kept);
}

function resvOf(pag: XfsPerag, type: XfsAgResvType): XfsAgResv {
  return type === XFS_AG_RESV_RMAPBT ? pag.rmapbtResv : pag.metaResv;
}

/** Whether so little is left for a kind of tree that nothing should be begun that makes
 * it grow: less than a tenth, or than a tree is high (kernel: `xfs_ag_resv_critical`). */
export function xfsAgResvCritical(
  pag: XfsPerag,
  type: XfsAgResvType,
): boolean {
  const rmap = type === XFS_AG_RESV_RMAPBT;
  const left = rmap
    ? pag.pagfFreeblks + pag.pagfFlcount - pag.metaResv.reserved
    : pag.pagfFreeblks - pag.rmapbtResv.reserved;
  const { alloc, inobt, refcount, rmap: rmapLevels } = pag.mp.maxlevels;
  const highest = Math.max(alloc, inobt, refcount, rmapLevels);
  return left < resvOf(pag, type).asked / 10 || left < highest;
}

/** The log never becomes free, so no tree will describe it. */
function usableBlocks(pag: XfsPerag): number {
  const { mp, agno, blocks } = pag;
  return xfsAgContainsLog(mp, agno) ? blocks - mp.sb.logblocks : blocks;
}

/**
 * Keeps blocks for a group's trees (kernel: `xfs_ag_resv_init`).
 *
 * @returns 0; -ENOSPC if so much is not free: then less is kept, and the mount goes on
 *   with a warning; another negative errno if the headers cannot be read.
 */
export function xfsAgResvInit(pag: XfsPerag, tp: XfsTrans | null): number {
  const agbp = xfsAllocReadAgf(pag, tp);
  if (typeof agbp === "number") return agbp;
  const agibp = xfsIallocReadAgi(pag, tp);
  if (typeof agibp === "number") return agibp;
  const { sb } = pag.mp;
  const blocks = usableBlocks(pag);
  let asked = 0;
  let used = 0;
  if (sb.hasReflink) {
    asked += xfsBtreeCalcSize(sb, xfsRefcountbtOps, blocks);
    used += agbp.view.getUint32(F.AGF_REFCNTBLOCKS);
  }
  let error = 0;
  if (sb.hasFinobt) {
    const chunks = Math.floor(
      blocks * sb.inopblock / F.XFS_INODES_PER_CHUNK,
    );
    const more = xfsBtreeCalcSize(sb, xfsFinobtOps, chunks);
    const fblocks = finobtBlocks(pag, tp, agibp);
    if (fblocks < 0) return fblocks;
    error = keep(pag, XFS_AG_RESV_METADATA, asked + more, used + fblocks);
    // The tree of free inodes can do without.
    if (error < 0) pag.mp.finobtNores = true;
  }
  if (pag.metaResv.asked === 0) {
    error = keep(pag, XFS_AG_RESV_METADATA, asked, used);
  }
  if (!sb.hasRmapbt) return error;
  const onePercent = Math.floor(blocks / 100);
  const largest = xfsBtreeCalcSize(sb, xfsRmapbtOps, blocks);
  const rmapBlocks = agbp.view.getUint32(F.AGF_RMAPBLOCKS);
  const ask = Math.max(onePercent, largest);
  return keep(pag, XFS_AG_RESV_RMAPBT, ask, rmapBlocks) || error;
}

/** Blocks of the tree of free inodes; where the AGI does not tell, they are counted
 * (kernel: `xfs_finobt_count_blocks`). */
function finobtBlocks(
  pag: XfsPerag,
  tp: XfsTrans | null,
  agibp: XfsBuf,
): number {
  if (pag.mp.sb.hasInobtcounts) return agibp.view.getUint32(F.AGI_FBLOCKS);
  const cur = xfsFinobtInitCursor(pag.mp, tp, agibp, pag);
  const blocks = xfsBtreeCountBlocks(cur);
  xfsBtreeDelCursor(cur);
  return blocks;
}

/** Kernel: `__xfs_ag_resv_init`. */
function keep(
  pag: XfsPerag,
  type: XfsAgResvType,
  ask: number,
  used: number,
): number {
  const { mp } = pag;
  const asked = Math.max(ask, used);
  const hidden = type === XFS_AG_RESV_RMAPBT ? asked : asked - used;
  if (mp.decFdblocks(hidden, true) < 0) {
    const where = `AG ${pag.agno}`;
    printk(
      `XFS (${mp.id}): Per-AG reservation for ${where} failed.  Filesystem may run out of space.`,
    );
    return -ENOSPC;
  }
  // The limit is for all groups; the first one stands for them.
  if (pag.agno === 0) mp.agMaxUsable -= asked;
  const resv = resvOf(pag, type);
  resv.asked = asked;
  resv.origReserved = hidden;
  resv.reserved = asked - used;
  return 0;
}

/** Gives what is kept for a group back (kernel: `xfs_ag_resv_free`). */
export function xfsAgResvFree(pag: XfsPerag): void {
  giveBack(pag, XFS_AG_RESV_RMAPBT);
  giveBack(pag, XFS_AG_RESV_METADATA);
}

function giveBack(pag: XfsPerag, type: XfsAgResvType): void {
  const resv = resvOf(pag, type);
  if (pag.agno === 0) pag.mp.agMaxUsable += resv.asked;
  // The reverse map never takes from the free counter what it uses.
  const rmap = type === XFS_AG_RESV_RMAPBT;
  pag.mp.addFdblocks(rmap ? resv.origReserved : resv.reserved);
  resv.asked = resv.reserved = resv.origReserved = 0;
}
