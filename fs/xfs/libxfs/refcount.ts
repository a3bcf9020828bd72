/**
 * Reference counts of blocks: how many files share them, and which are set aside for
 * copies to come.
 *
 * Blocks with one owner have no record: a gap in the tree counts as 1. Two neighbours
 * with one count are one record at all times, so a change first splits the records at
 * both ends of its range, then sees whether what comes out at an end has the count of
 * what lies beyond it, and only then goes through the records in between.
 *
 * How many records a range has is for its files to say, so a change may be too much for
 * one transaction: then it goes on in the next one.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_refcount.c, xfs_refcount_item.c.
 *
 * @module
 */

import { EFSCORRUPTED } from "../../../lib/errno.ts";
import type { XfsMount } from "../mount.ts";
import { XFS_AG_RESV_NONE } from "./ag-resv.ts";
import { xfsAllocReadAgf, type XfsPerag } from "./ag.ts";
import { xfsFreeExtentLater } from "./alloc.ts";
import {
  XFS_LOOKUP_EQ,
  XFS_LOOKUP_GE,
  XFS_LOOKUP_LE,
  xfsBtreeDecrement,
  xfsBtreeDelCursor,
  xfsBtreeDelete,
  xfsBtreeGetRec,
  xfsBtreeIncrement,
  xfsBtreeInsert,
  xfsBtreeLookup,
  xfsBtreeQueryRange,
  xfsBtreeUpdate,
} from "./btree.ts";
import { type DeferOp, type DeferOpType, xfsDeferAdd } from "./defer.ts";
import * as F from "./format.ts";
import type { BmbtIrec } from "./iext.ts";
import {
  XFS_REFC_DOMAIN_COW,
  XFS_REFC_DOMAIN_SHARED,
  xfsRefcountbtInitCursor,
  type XfsRefcountCur,
  XfsRefcountIrec,
} from "./refcount-btree.ts";
import { xfsRmapAllocExtent, xfsRmapFreeExtent } from "./rmap.ts";
import { type XfsTrans, xfsTransAlloc } from "./trans.ts";

// ---- records ----

/** What is wrong with a record, or null (kernel: `xfs_refcount_check_irec`). */
export function xfsRefcountCheckIrec(
  pag: XfsPerag,
  rec: XfsRefcountIrec,
): string | null {
  const { startblock, blockcount, refcount, domain } = rec;
  if (!pag.verifyAgbext(startblock, blockcount)) {
    return `blocks ${startblock} + ${blockcount}`;
  }
  const ok = domain === XFS_REFC_DOMAIN_COW ? refcount === 1 : refcount >= 2;
  return ok ? null : `count ${refcount} of block ${startblock}`;
}

function complain(cur: XfsRefcountCur, why: string): number {
  cur.mp.corrupt(`reference counts of group ${cur.pag!.agno}`, why);
  return -EFSCORRUPTED;
}

/** Decodes the record at the cursor and checks it (kernel:
 * `xfs_refcount_get_rec`).
 * @returns 1; 0 if there is none; -EFSCORRUPTED. */
export function xfsRefcountGetRec(
  cur: XfsRefcountCur,
  rec: XfsRefcountIrec,
): number {
  const there = xfsBtreeGetRec(cur, rec);
  if (there !== 1) return there;
  const why = xfsRefcountCheckIrec(cur.pag!, rec);
  return why === null ? 1 : complain(cur, why);
}

/** Looks a block of a domain up and decodes what is found, if it is of the domain.
 * @returns 1, 0 or a negative errno. */
function lookupRec(
  cur: XfsRefcountCur,
  dir: 0 | 1 | 2,
  domain: number,
  bno: number,
  out: XfsRefcountIrec,
): number {
  cur.rec.set(bno, 0, 0, domain);
  const found = xfsBtreeLookup(cur, dir);
  return found === 1 ? recOfDomain(cur, domain, out) : found;
}

/** Goes to the next record and decodes it, if it is of the domain. */
function nextRec(
  cur: XfsRefcountCur,
  domain: number,
  out: XfsRefcountIrec,
): number {
  const found = xfsBtreeIncrement(cur);
  return found === 1 ? recOfDomain(cur, domain, out) : found;
}

function recOfDomain(
  cur: XfsRefcountCur,
  domain: number,
  out: XfsRefcountIrec,
): number {
  const there = xfsRefcountGetRec(cur, out);
  return there === 1 && out.domain !== domain ? 0 : there;
}

/** Kernel: `xfs_refcount_update`. The cursor stands at the record. */
function updateRec(cur: XfsRefcountCur, rec: XfsRefcountIrec): number {
  cur.rec.copy(rec);
  return xfsBtreeUpdate(cur);
}

/** Inserts a record before the one that the cursor stands at, which must come after it
 * (kernel: `xfs_refcount_insert`). Where in the tree it goes in decides which blocks
 * split. */
function insertRec(cur: XfsRefcountCur, rec: XfsRefcountIrec): number {
  cur.rec.copy(rec);
  const done = xfsBtreeInsert(cur);
  return done === 0 ? complain(cur, "no block for the tree") : done;
}

/** Kernel: `xfs_refcount_delete`. The cursor stands at the record. */
function deleteRec(cur: XfsRefcountCur): number {
  const done = xfsBtreeDelete(cur);
  return done === 0 ? complain(cur, "no record to delete") : done;
}

/** Sets the cursor to a record that has to be there. */
function seek(cur: XfsRefcountCur, rec: XfsRefcountIrec): number {
  cur.rec.copy(rec);
  const found = xfsBtreeLookup(cur, XFS_LOOKUP_EQ);
  return found === 0 ? complain(cur, `no block ${rec.startblock}`) : found;
}

// ---- the ends of a range ----

// Scratch: changes of counts do not nest.
const tmp = new XfsRefcountIrec();
const ext = new XfsRefcountIrec();

/** A record outside a range, at one of its ends, and the one inside. */
class RangeEnd {
  /** There is one outside that touches the range. */
  found = false;
  /** It. */
  readonly outer = new XfsRefcountIrec();
  /** What is inside at that end; a gap is a range with one reference. */
  readonly inner = new XfsRefcountIrec();
  /** Inside is a record, no gap. */
  real = false;
}

const left = new RangeEnd();
const right = new RangeEnd();

/** The range that is being changed; it gets smaller as that goes on. */
class Range {
  bno = 0;
  len = 0;

  /** First block after it. */
  get end(): number {
    return this.bno + this.len;
  }
}

const range = new Range();

/** Splits the record that a block is in the middle of (kernel:
 * `xfs_refcount_split_extent`).
 * @returns 1 if there was one, 0 if not, or a negative errno. */
function splitExtent(
  cur: XfsRefcountCur,
  domain: number,
  bno: number,
): number {
  const found = lookupRec(cur, XFS_LOOKUP_LE, domain, bno, ext);
  if (found !== 1) return found;
  if (ext.startblock === bno || ext.end <= bno) return 0;
  const before = bno - ext.startblock;
  tmp.set(bno, ext.blockcount - before, ext.refcount, domain);
  const error = updateRec(cur, tmp);
  if (error < 0) return error;
  ext.blockcount = before;
  return insertRec(cur, ext);
}

/** Finds what is on both sides of the start of the range (kernel:
 * `xfs_refcount_find_left_extents`).
 * @returns 0 or a negative errno. */
function findLeftExtents(cur: XfsRefcountCur, domain: number): number {
  const { outer, inner } = left;
  const { bno, len } = range;
  left.found = false;
  let found = lookupRec(cur, XFS_LOOKUP_LE, domain, bno - 1, outer);
  if (found !== 1) return found;
  if (outer.end !== bno) return 0;
  left.found = true;
  found = nextRec(cur, domain, inner);
  if (found < 0) return found;
  left.real = found === 1 && inner.startblock === bno;
  if (left.real) return 0;
  const gap = found === 1 ? Math.min(len, inner.startblock - bno) : len;
  inner.set(bno, gap, 1, domain);
  return 0;
}

/** The same at the end of the range (kernel: `xfs_refcount_find_right_extents`). */
function findRightExtents(cur: XfsRefcountCur, domain: number): number {
  const { outer, inner } = right;
  const { bno, end } = range;
  right.found = false;
  let found = lookupRec(cur, XFS_LOOKUP_GE, domain, end, outer);
  if (found !== 1) return found;
  if (outer.startblock !== end) return 0;
  right.found = true;
  found = xfsBtreeDecrement(cur);
  if (found === 1) found = recOfDomain(cur, domain, inner);
  if (found < 0) return found;
  right.real = found === 1 && inner.end === end;
  if (right.real) return 0;
  const from = found === 1 ? Math.max(bno, inner.end) : bno;
  inner.set(from, end - from, 1, domain);
  return 0;
}

/** Whether what is inside comes to have the count of what is outside. */
function wantMerge({ found, outer, inner }: RangeEnd, adjust: number): boolean {
  if (!found) return false;
  const most = F.XFS_REFC_REFCOUNT_MAX;
  // What has that many references keeps them for ever.
  const count = inner.refcount === most ? most : inner.refcount + adjust;
  return outer.refcount === count;
}

/** Both neighbours and the range become one record (kernel:
 * `xfs_refcount_merge_center_extents`). */
function mergeCenter(cur: XfsRefcountCur): number {
  let error = left.real ? seekAndDelete(cur, left.inner) : 0;
  if (error < 0) return error;
  error = seekAndDelete(cur, right.outer);
  if (error < 0) return error;
  error = seek(cur, left.outer);
  if (error < 0) return error;
  left.outer.blockcount += range.len + right.outer.blockcount;
  range.len = 0;
  return updateRec(cur, left.outer);
}

function seekAndDelete(cur: XfsRefcountCur, rec: XfsRefcountIrec): number {
  const found = seek(cur, rec);
  return found < 0 ? found : deleteRec(cur);
}

/** The start of the range becomes part of the record before it (kernel:
 * `xfs_refcount_merge_left_extent`). */
function mergeLeft(cur: XfsRefcountCur): number {
  const { outer, inner, real } = left;
  let error = real ? seekAndDelete(cur, inner) : 0;
  if (error < 0) return error;
  error = seek(cur, outer);
  if (error < 0) return error;
  outer.blockcount += inner.blockcount;
  range.bno += inner.blockcount;
  range.len -= inner.blockcount;
  return updateRec(cur, outer);
}

/** The end of the range becomes part of the record after it (kernel:
 * `xfs_refcount_merge_right_extent`). */
function mergeRight(cur: XfsRefcountCur): number {
  const { outer, inner, real } = right;
  let error = real ? seekAndDelete(cur, inner) : 0;
  if (error < 0) return error;
  error = seek(cur, outer);
  if (error < 0) return error;
  outer.startblock -= inner.blockcount;
  outer.blockcount += inner.blockcount;
  range.len -= inner.blockcount;
  return updateRec(cur, outer);
}

/** Joins the ends of the range with their neighbours, if they come to have the same
 * counts; that part of the range is then done (kernel: `xfs_refcount_merge_extents`).
 * @returns 1 if something was joined, 0 if not, or a negative errno. */
function mergeExtents(
  cur: XfsRefcountCur,
  domain: number,
  adjust: number,
): number {
  let error = findLeftExtents(cur, domain);
  if (error < 0) return error;
  error = findRightExtents(cur, domain);
  if (error < 0) return error;
  const atLeft = wantMerge(left, adjust);
  let atRight = wantMerge(right, adjust);
  const whole = left.found && left.inner.blockcount === range.len;
  if (atLeft && atRight && whole) error = mergeCenter(cur);
  else {
    if (atLeft) error = mergeLeft(cur);
    // Nothing is left of what was at both ends.
    if (atLeft && whole) atRight = false;
    if (atRight && error >= 0) error = mergeRight(cur);
  }
  if (error < 0) return error;
  return atLeft || atRight ? 1 : 0;
}

// ---- going through a range ----

/** Bytes that a changed record takes in a log (kernel:
 * `XFS_REFCOUNT_ITEM_OVERHEAD`). */
const ITEM_OVERHEAD = 32;
/** Blocks beyond those of a tree that a transaction of a file logs. */
const FILE_BLOCKS = 8;

/** Blocks that so many changes of the free-space trees and the reverse map may log
 * (kernel: `xfs_allocfree_block_count`). */
function allocfreeBlockCount(mp: XfsMount, ops: number): number {
  const { alloc, rmap } = mp.maxlevels;
  const count = ops * 2 * (2 * alloc - 1);
  return mp.sb.hasRmapbt ? count + ops * (2 * rmap - 1) : count;
}

/** Whether another record can be changed in this transaction (kernel:
 * `xfs_refcount_still_have_space`): it may log what the mapping of an extent does, and
 * every change of the shape of the tree may go through all others. */
function stillHaveSpace(cur: XfsRefcountCur): boolean {
  if (cur.nrOps === 0) return true;
  const { mp } = cur;
  const all = allocfreeBlockCount(mp, 2) + mp.maxlevels.bmapData + FILE_BLOCKS;
  const shape = allocfreeBlockCount(mp, cur.shapeChanges) + cur.nlevels;
  return (all - shape) * mp.sb.blocksize > cur.nrOps * ITEM_OVERHEAD;
}

/** Adds `adjust` to the counts of what the range has between its ends (kernel:
 * `xfs_refcount_adjust_extents`). What comes to 0 is freed.
 * @returns 0 or a negative errno. */
function adjustExtents(cur: XfsRefcountCur, adjust: number): number {
  const shared = XFS_REFC_DOMAIN_SHARED;
  if (range.len === 0) return 0;
  let found = lookupRec(cur, XFS_LOOKUP_GE, shared, range.bno, ext);
  while (found >= 0 && range.len > 0 && stillHaveSpace(cur)) {
    const next = found === 1 ? ext.startblock : Infinity;
    if (next < range.bno) return complain(cur, `block ${next} is out of order`);
    if (next > range.bno) {
      const error = adjustGap(
        cur,
        Math.min(range.len, next - range.bno),
        adjust,
      );
      if (error < 0) return error;
      found = lookupRec(cur, XFS_LOOKUP_GE, shared, range.bno, ext);
      continue;
    }
    if (ext.blockcount > range.len) {
      return complain(cur, `blocks ${next} + ${ext.blockcount} are not split`);
    }
    const error = adjustRec(cur, adjust);
    if (error < 0) return error;
    range.bno += ext.blockcount;
    range.len -= ext.blockcount;
    // After a deletion the cursor stands where it may.
    found = error === DELETED
      ? lookupRec(cur, XFS_LOOKUP_GE, shared, range.bno, ext)
      : nextRec(cur, shared, ext);
  }
  return Math.min(found, 0);
}

/** What {@linkcode adjustRec} answers if the record has gone. */
const DELETED = 1;

/** The record in `ext`, at the cursor, gets another count. */
function adjustRec(cur: XfsRefcountCur, adjust: number): number {
  // So many that it is not known any more how many: they are never freed.
  if (ext.refcount === F.XFS_REFC_REFCOUNT_MAX) return 0;
  ext.refcount += adjust;
  cur.nrOps++;
  if (ext.refcount > 1) return updateRec(cur, ext);
  const error = deleteRec(cur);
  return error < 0 ? error : DELETED;
}

/** The first blocks of the range, which have one reference, get another or lose it. */
function adjustGap(cur: XfsRefcountCur, len: number, adjust: number): number {
  const { bno } = range;
  cur.nrOps++;
  range.bno += len;
  range.len -= len;
  if (adjust > 0) {
    tmp.set(bno, len, 1 + adjust, XFS_REFC_DOMAIN_SHARED);
    return insertRec(cur, tmp);
  }
  const fsbno = cur.mp.sb.agbToFsb(cur.pag!.agno, bno);
  return xfsFreeExtentLater(cur.tp!, fsbno, len, null, XFS_AG_RESV_NONE);
}

/** Splits what crosses an end of the range, then joins the ends with what is beyond
 * (the first half of kernel: `xfs_refcount_adjust`, `xfs_refcount_adjust_cow`). */
function adjustEnds(
  cur: XfsRefcountCur,
  domain: number,
  adjust: number,
): number {
  const first = splitExtent(cur, domain, range.bno);
  if (first < 0) return first;
  const second = splitExtent(cur, domain, range.end);
  if (second < 0) return second;
  const merged = mergeExtents(cur, domain, adjust);
  if (merged < 0) return merged;
  if (first + second + merged > 0) cur.shapeChanges++;
  return 0;
}

/** Adds 1 or -1 to the counts of the range, as far as the transaction goes; what is left
 * of it is in `range` (kernel: `xfs_refcount_adjust`). */
function adjustShared(cur: XfsRefcountCur, adjust: number): number {
  const error = adjustEnds(cur, XFS_REFC_DOMAIN_SHARED, adjust);
  return error < 0 ? error : adjustExtents(cur, adjust);
}

/** The range is set aside for copies from now on (kernel:
 * `__xfs_refcount_cow_alloc`). */
function cowAlloc(cur: XfsRefcountCur): number {
  const domain = XFS_REFC_DOMAIN_COW;
  let found = lookupRec(cur, XFS_LOOKUP_LE, domain, range.end - 1, ext);
  if (found < 0) return found;
  if (found === 1 && ext.end > range.bno) {
    return complain(cur, `block ${range.bno} is set aside already`);
  }
  // An implied count of 1 is what a record of the domain has.
  found = adjustEnds(cur, domain, 0);
  if (found < 0 || range.len === 0) return found;
  found = lookupRec(cur, XFS_LOOKUP_GE, domain, range.bno, ext);
  if (found < 0) return found;
  tmp.set(range.bno, range.len, 1, domain);
  return Math.min(insertRec(cur, tmp), 0);
}

/** The range is not set aside any more (kernel: `__xfs_refcount_cow_free`). */
function cowFree(cur: XfsRefcountCur): number {
  const domain = XFS_REFC_DOMAIN_COW;
  let found = adjustEnds(cur, domain, -1);
  if (found < 0) return found;
  found = lookupRec(cur, XFS_LOOKUP_GE, domain, range.bno, ext);
  if (found < 0) return found;
  const { bno, len } = range;
  if (found === 0 || ext.startblock !== bno || ext.blockcount !== len) {
    return complain(cur, `blocks ${bno} + ${len} are not set aside`);
  }
  return Math.min(deleteRec(cur), 0);
}

// ---- as deferred work ----

/** Blocks get another reference; as numbered in a log (kernel: `enum
 * xfs_refcount_intent_type`). */
export const XFS_REFCOUNT_INCREASE = 1;
/** They lose one, the last of which frees them. */
export const XFS_REFCOUNT_DECREASE = 2;
/** They are set aside for copies. */
export const XFS_REFCOUNT_ALLOC_COW = 3;
/** They are not any more. */
export const XFS_REFCOUNT_FREE_COW = 4;

/** Most changes that an intent has room for (kernel: `XFS_CUI_MAX_FAST_EXTENTS`). */
const CUI_MAX_FAST_EXTENTS = 16;

/** A change that is to be made (kernel: `struct xfs_refcount_intent`). */
export class XfsRefcountIntent implements DeferOp {
  readonly type: DeferOpType = xfsRefcountUpdateDeferType;
  /** `XFS_REFCOUNT_INCREASE` and so on. */
  readonly op: number;
  /** Group of the blocks (kernel: `ri_group`). */
  readonly pag: XfsPerag;
  /** First block that is left to do, of the file system. */
  startblock: number;
  /** Blocks that are left to do. */
  blockcount: number;

  constructor(
    mp: XfsMount,
    op: number,
    startblock: number,
    blockcount: number,
  ) {
    this.op = op;
    this.pag = mp.perags[mp.sb.fsbToAgno(startblock)]!;
    this.startblock = startblock;
    this.blockcount = blockcount;
  }
}

/** Kernel: `xfs_refcount_update_defer_type`. */
class RefcountDeferType implements DeferOpType {
  readonly name = "refcount";
  readonly maxItems: number = CUI_MAX_FAST_EXTENTS;
  /** In the group that the last item was of; null between groups of items. */
  #cur: XfsRefcountCur | null = null;

  diffItems(a: XfsRefcountIntent, b: XfsRefcountIntent): number {
    return a.pag.agno - b.pag.agno;
  }

  /** Kernel: `xfs_refcount_finish_one`. */
  finish(tp: XfsTrans, ri: XfsRefcountIntent): number {
    const error = this.#goTo(tp, ri.pag);
    if (error < 0) return error;
    const { sb } = tp.mp;
    range.bno = sb.fsbToAgbno(ri.startblock);
    range.len = ri.blockcount;
    const failed = change(this.#cur!, ri.op);
    if (failed < 0) return failed;
    if (range.len === 0) return 0;
    ri.startblock = sb.agbToFsb(ri.pag.agno, range.bno);
    ri.blockcount = range.len;
    return 1;
  }

  /** Sees to it that the cursor is one of the group. What has been changed in another
   * one counts for the transaction all the same. */
  #goTo(tp: XfsTrans, pag: XfsPerag): number {
    const old = this.#cur;
    if (old !== null && old.pag === pag) return 0;
    const nrOps = old?.nrOps ?? 0;
    const shapeChanges = old?.shapeChanges ?? 0;
    this.cleanup();
    const agbp = xfsAllocReadAgf(pag, tp);
    if (typeof agbp === "number") return agbp;
    this.#cur = xfsRefcountbtInitCursor(tp.mp, tp, agbp, pag);
    this.#cur.nrOps = nrOps;
    this.#cur.shapeChanges = shapeChanges;
    return 0;
  }

  cleanup(): void {
    if (this.#cur !== null) xfsBtreeDelCursor(this.#cur);
    this.#cur = null;
  }
}

/** Changes the range; what is left of it has to wait for another transaction. */
function change(cur: XfsRefcountCur, op: number): number {
  if (op === XFS_REFCOUNT_INCREASE) return adjustShared(cur, 1);
  if (op === XFS_REFCOUNT_DECREASE) return adjustShared(cur, -1);
  const error = op === XFS_REFCOUNT_ALLOC_COW ? cowAlloc(cur) : cowFree(cur);
  range.len = 0;
  return error;
}

/** Changes of reference counts as deferred work. */
export const xfsRefcountUpdateDeferType: DeferOpType = new RefcountDeferType();

function addChange(tp: XfsTrans, op: number, fsbno: number, len: number): void {
  xfsDeferAdd(tp, new XfsRefcountIntent(tp.mp, op, fsbno, len));
}

/** An extent of a file is mapped once more (kernel:
 * `xfs_refcount_increase_extent`). */
export function xfsRefcountIncreaseExtent(tp: XfsTrans, rec: BmbtIrec): void {
  if (!tp.mp.sb.hasReflink) return;
  addChange(tp, XFS_REFCOUNT_INCREASE, rec.startblock, rec.count);
}

/** An extent leaves a file; what nobody else has is freed (kernel:
 * `xfs_refcount_decrease_extent`). */
export function xfsRefcountDecreaseExtent(tp: XfsTrans, rec: BmbtIrec): void {
  if (!tp.mp.sb.hasReflink) return;
  addChange(tp, XFS_REFCOUNT_DECREASE, rec.startblock, rec.count);
}

/** Blocks that were allocated are set aside for copies, so that they are found after a
 * crash (kernel: `xfs_refcount_alloc_cow_extent`). */
export function xfsRefcountAllocCowExtent(
  tp: XfsTrans,
  fsbno: number,
  len: number,
): void {
  if (!tp.mp.sb.hasReflink) return;
  addChange(tp, XFS_REFCOUNT_ALLOC_COW, fsbno, len);
  xfsRmapAllocExtent(tp, fsbno, len, F.XFS_RMAP_OWN_COW);
}

/** Blocks are not set aside any more: they become a file's, or are freed (kernel:
 * `xfs_refcount_free_cow_extent`). */
export function xfsRefcountFreeCowExtent(
  tp: XfsTrans,
  fsbno: number,
  len: number,
): void {
  if (!tp.mp.sb.hasReflink) return;
  xfsRmapFreeExtent(tp, fsbno, len, F.XFS_RMAP_OWN_COW);
  addChange(tp, XFS_REFCOUNT_FREE_COW, fsbno, len);
}

// ---- questions ----

/** Answer of {@linkcode xfsRefcountFindShared}. */
export interface XfsSharedRange {
  /** First shared block within the group, or `NULLAGBLOCK`. */
  fbno: number;
  /** Shared blocks from there on. */
  flen: number;
}

/**
 * Finds the first shared blocks of a range (kernel: `xfs_refcount_find_shared`).
 *
 * @param tp Null outside a transaction.
 * @param bno First block of the range, within the group.
 * @param len Blocks.
 * @param findEndOfShared Goes on beyond where the count changes, as long as all is
 *   shared.
 * @param out Result; within the range.
 * @returns 0 or a negative errno.
 */
export function xfsRefcountFindShared(
  tp: XfsTrans | null,
  pag: XfsPerag,
  bno: number,
  len: number,
  findEndOfShared: boolean,
  out: XfsSharedRange,
): number {
  out.fbno = F.NULLAGBLOCK;
  out.flen = 0;
  const agbp = xfsAllocReadAgf(pag, tp);
  if (typeof agbp === "number") return agbp;
  const cur = xfsRefcountbtInitCursor(pag.mp, tp, agbp, pag);
  const error = findShared(cur, bno, bno + len, findEndOfShared, out);
  xfsBtreeDelCursor(cur);
  return error;
}

function findShared(
  cur: XfsRefcountCur,
  bno: number,
  end: number,
  findEndOfShared: boolean,
  out: XfsSharedRange,
): number {
  const shared = XFS_REFC_DOMAIN_SHARED;
  let found = lookupRec(cur, XFS_LOOKUP_LE, shared, bno, ext);
  if (found === 0 || (found === 1 && ext.end <= bno)) {
    found = nextRec(cur, shared, ext);
  }
  if (found !== 1) return found;
  if (ext.startblock >= end) return 0;
  out.fbno = Math.max(ext.startblock, bno);
  let to = ext.end;
  while (findEndOfShared && to < end) {
    found = nextRec(cur, shared, ext);
    if (found < 0) return found;
    if (found === 0 || ext.startblock !== to) break;
    to = ext.end;
  }
  out.flen = Math.min(to, end) - out.fbno;
  return 0;
}

// ---- after a crash ----

function collectLeftover(
  cur: XfsRefcountCur,
  rec: XfsRefcountIrec,
  found: number[],
): number {
  const why = xfsRefcountCheckIrec(cur.pag!, rec);
  if (why !== null) return complain(cur, why);
  if (rec.domain !== XFS_REFC_DOMAIN_COW) return 0;
  found.push(rec.startblock, rec.blockcount);
  return 0;
}

/**
 * Frees what was set aside for copies when the file system went down: nobody knows what
 * for (kernel: `xfs_refcount_recover_cow_leftovers`). Only at mount.
 *
 * @returns 0 or a negative errno.
 */
export function xfsRefcountRecoverCowLeftovers(pag: XfsPerag): number {
  const { mp } = pag;
  const agbp = xfsAllocReadAgf(pag, null);
  if (typeof agbp === "number") return agbp;
  const found: number[] = [];
  const cur = xfsRefcountbtInitCursor(mp, null, agbp, pag);
  const low = new XfsRefcountIrec().set(0, 0, 0, XFS_REFC_DOMAIN_COW);
  const high = new XfsRefcountIrec().set(
    F.XFS_REFC_COWFLAG - 1,
    0,
    0,
    XFS_REFC_DOMAIN_COW,
  );
  let error = xfsBtreeQueryRange(cur, low, high, collectLeftover, found);
  xfsBtreeDelCursor(cur);
  for (let i = 0; i < found.length && error === 0; i += 2) {
    error = freeLeftover(
      mp,
      mp.sb.agbToFsb(pag.agno, found[i]!),
      found[i + 1]!,
    );
  }
  return error;
}

function freeLeftover(mp: XfsMount, fsbno: number, len: number): number {
  const tp = xfsTransAlloc(mp, 0);
  if (typeof tp === "number") return tp;
  xfsRefcountFreeCowExtent(tp, fsbno, len);
  const error = xfsFreeExtentLater(tp, fsbno, len, null, XFS_AG_RESV_NONE);
  if (error === 0) return tp.commit();
  tp.cancel();
  return error;
}
