/**
 * Choosing blocks, and giving them back.
 *
 * The free extents of a group are in two trees. An allocation near some block looks
 * into both at a time: from the block to both sides, and through the sizes; one
 * without such a wish takes the smallest extent that is long enough. Before anything
 * else the list of blocks that the trees themselves may need, the AGFL, is brought to
 * the length that their height asks for: no change of a tree can then run out of
 * blocks half-way.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_alloc.c; the deferred freeing of
 * xfs_extfree_item.c.
 *
 * @module
 */

import { bugOn } from "../../../lib/bug.ts";
import { EFSCORRUPTED } from "../../../lib/errno.ts";
import { printk } from "../../../lib/printk.ts";
import type { XfsMount } from "../mount.ts";
import {
  xfsAgflSize,
  xfsAllocReadAgf,
  xfsAllocReadAgfl,
  type XfsPerag,
} from "./ag.ts";
import {
  XFS_AG_RESV_AGFL,
  XFS_AG_RESV_NONE,
  xfsAgResvAllocExtent,
  xfsAgResvFreeExtent,
  xfsAgResvNeeded,
  type XfsAgResvType,
} from "./ag-resv.ts";
import {
  type XfsAllocCur,
  type XfsAllocRec,
  xfsBnobtInitCursor,
  xfsBnobtOps,
  xfsCntbtInitCursor,
} from "./alloc-btree.ts";
import {
  XFS_LOOKUP_EQ,
  XFS_LOOKUP_GE,
  XFS_LOOKUP_LE,
  xfsBtreeDecrement,
  xfsBtreeDelCursor,
  xfsBtreeDelete,
  xfsBtreeGetRec,
  xfsBtreeGotoLast,
  xfsBtreeIncrement,
  xfsBtreeInsert,
  xfsBtreeIsLastBlock,
  xfsBtreeLookup,
  xfsBtreeUpdate,
  type XfsLookup,
} from "./btree.ts";
import type { XfsBuf } from "./buf.ts";
import { type DeferOp, type DeferOpType, xfsDeferAdd } from "./defer.ts";
import {
  type BusyTrim,
  xfsExtentBusyClearAll,
  xfsExtentBusyInsert,
  xfsExtentBusyReuse,
  xfsExtentBusyTrim,
} from "./extent-busy.ts";
import * as F from "./format.ts";
import {
  XFS_RMAP_OINFO_AG,
  XFS_RMAP_OINFO_SKIP_UPDATE,
  type XfsOwnerInfo,
  xfsRmapAlloc,
  xfsRmapFree,
  xfsRmapShouldSkipOwnerUpdate,
} from "./rmap.ts";
import type { XfsTrans } from "./trans.ts";

/** Data of a file (kernel: `XFS_ALLOC_USERDATA`). */
export const XFS_ALLOC_USERDATA = 1 << 0;
/** The first data of a file (kernel: `XFS_ALLOC_INITIAL_USER_DATA`). */
export const XFS_ALLOC_INITIAL_USER_DATA = 1 << 1;
/** Busy extents will do (kernel: `XFS_ALLOC_NOBUSY`). */
export const XFS_ALLOC_NOBUSY = 1 << 2;

/** Blocks of every group that are needed to fill its AGFL (kernel:
 * `XFS_ALLOCBT_AGFL_RESERVE`). */
const XFS_ALLOCBT_AGFL_RESERVE = 4;

/** What is wanted, and what came of it (kernel: `struct xfs_alloc_arg`). It may be used
 * again after another {@linkcode XfsAllocArg.init}. */
export class XfsAllocArg {
  tp!: XfsTrans;
  mp!: XfsMount;
  /** AGF of the group; null if nothing can be allocated in it. */
  agbp: XfsBuf | null = null;
  /** Group, where the caller demands one. */
  pag: XfsPerag | null = null;
  /** Out: first block, or `NULLFSBLOCK`. */
  fsbno: number = F.NULLFSBLOCK;
  /** Out: its group. */
  agno = -1;
  /** Out: its block in the group, or `NULLAGBLOCK`. */
  agbno = F.NULLAGBLOCK;
  /** Fewest and most blocks. */
  minlen = 1;
  maxlen = 1;
  /** The length should be `mod` more than a multiple of `prod`. */
  mod = 0;
  prod = 1;
  /** Blocks that must stay free in the group. */
  minleft = 0;
  /** Blocks that the transaction will need in all. */
  total = 0;
  /** The first block should be a multiple of it. */
  alignment = 1;
  /** Blocks more that an exact allocation may be moved by later (kernel:
   * `minalignslop`). */
  minalignslop = 0;
  /** Bounds of the first block near a target; both 0 for none. */
  minAgbno = 0;
  maxAgbno = 0;
  /** Out: blocks. */
  len = 0;
  /** A delayed allocation has counted the blocks off already. */
  wasdel = false;
  /** Out: the block came from the AGFL. */
  wasfromfl = false;
  /** Owner, for the reverse map. */
  oinfo: XfsOwnerInfo = XFS_RMAP_OINFO_SKIP_UPDATE;
  /** What they are for. */
  resv: XfsAgResvType = XFS_AG_RESV_NONE;
  /** `XFS_ALLOC_USERDATA` and so on. */
  datatype = 0;

  /** Forgets everything: one block of metadata is wanted. */
  init(tp: XfsTrans): this {
    this.tp = tp;
    this.mp = tp.mp;
    this.agbp = this.pag = null;
    this.fsbno = F.NULLFSBLOCK;
    this.agno = -1;
    this.agbno = F.NULLAGBLOCK;
    this.minlen =
      this.maxlen =
      this.prod =
      this.alignment =
        1;
    this.mod =
      this.minleft =
      this.total =
      this.minalignslop =
        0;
    this.minAgbno = this.maxAgbno = this.len = 0;
    this.wasdel = this.wasfromfl = false;
    this.oinfo = XFS_RMAP_OINFO_SKIP_UPDATE;
    this.resv = XFS_AG_RESV_NONE;
    this.datatype = 0;
    return this;
  }
}

/** Blocks of the file system that allocation cannot give away: what every AGFL needs to
 * be filled, and as much for the map of a file that is split (kernel:
 * `xfs_alloc_set_aside`). */
export function xfsAllocSetAside(mp: XfsMount): number {
  return mp.sb.agcount * (XFS_ALLOCBT_AGFL_RESERVE + 4);
}

/** Most blocks of a group that can be one extent (kernel:
 * `xfs_alloc_ag_max_usable`). */
export function xfsAllocAgMaxUsable(mp: XfsMount): number {
  const { sb } = mp;
  // Headers, AGFL, and the roots of the trees.
  let blocks = sb.headerBlocks + XFS_ALLOCBT_AGFL_RESERVE + 3;
  if (sb.hasFinobt) blocks++;
  if (sb.hasRmapbt) blocks++;
  if (sb.hasReflink) blocks++;
  return sb.agblocks - blocks;
}

/** Length that the AGFL of a group must have: every tree may be split twice up to its
 * root (kernel: `xfs_alloc_min_freelist`).
 * @param pag Null for the trees of an empty group. */
export function xfsAllocMinFreelist(
  mp: XfsMount,
  pag: XfsPerag | null,
): number {
  const { alloc, rmap } = mp.maxlevels;
  let blocks = splitTwice(pag?.pagfBnoLevel ?? 1, alloc);
  blocks += splitTwice(pag?.pagfCntLevel ?? 1, alloc);
  if (mp.sb.hasRmapbt) blocks += splitTwice(pag?.pagfRmapLevel ?? 1, rmap);
  return blocks;
}

function splitTwice(level: number, most: number): number {
  return 2 * Math.min(level + 1, most) - 2;
}

/** The longest extent that a group can give away (kernel:
 * `xfs_alloc_longest_free_extent`).
 * @param need Length that the AGFL must have.
 * @param reserved Blocks that are kept for others. */
export function xfsAllocLongestFreeExtent(
  pag: XfsPerag,
  need: number,
  reserved: number,
): number {
  let delta = Math.max(0, need - pag.pagfFlcount);
  const others = pag.pagfFreeblks - pag.pagfLongest;
  if (others < reserved) delta += reserved - others;
  if (pag.pagfLongest > delta) {
    return Math.min(pag.mp.agMaxUsable, pag.pagfLongest - delta);
  }
  // There may be one block yet.
  return pag.pagfFlcount > 0 || pag.pagfLongest > 0 ? 1 : 0;
}

// ---- records ----

/** In `flags` of a cursor: there may be more in its direction. */
const ACTIVE = 1;

function lookup(
  cur: XfsAllocCur,
  dir: XfsLookup,
  bno: number,
  len: number,
): number {
  cur.rec.startblock = bno;
  cur.rec.blockcount = len;
  const there = xfsBtreeLookup(cur, dir);
  cur.flags = there === 1 ? ACTIVE : 0;
  return there;
}

function isActive(cur: XfsAllocCur): boolean {
  return cur.flags === ACTIVE;
}

/** Kernel: `XFS_IS_CORRUPT`, in a group's free space. */
function corrupt(pag: XfsPerag, why: string): number {
  pag.mp.corrupt(`free space of AG ${pag.agno}`, why);
  return -EFSCORRUPTED;
}

/**
 * Decodes the free extent that a cursor stands at (kernel: `xfs_alloc_get_rec`).
 *
 * @returns 1; 0 if there is none; -EFSCORRUPTED if it cannot be.
 */
function xfsAllocGetRec(cur: XfsAllocCur, rec: XfsAllocRec): number {
  if (xfsBtreeGetRec(cur, rec) === 0) return 0;
  const pag = cur.pag!;
  if (pag.verifyAgbext(rec.startblock, rec.blockcount)) return 1;
  return corrupt(
    pag,
    `${cur.ops.name}: ${rec.blockcount} blocks at ${rec.startblock}`,
  );
}

/** The same where there has to be one. */
function mustGetRec(cur: XfsAllocCur, rec: XfsAllocRec): number {
  const there = xfsAllocGetRec(cur, rec);
  return there === 0 ? corrupt(cur.pag!, `${cur.ops.name}: no record`) : there;
}

/** Looks for exactly this extent, which has to be there. */
function mustFind(cur: XfsAllocCur, bno: number, len: number): number {
  const there = lookup(cur, XFS_LOOKUP_EQ, bno, len);
  if (there < 0) return there;
  if (there === 1) {
    // By block it is found by its start alone.
    xfsBtreeGetRec(cur, cur.found);
    if (cur.found.blockcount === len) return 1;
  }
  return corrupt(cur.pag!, `${cur.ops.name}: no ${len} blocks at ${bno}`);
}

/** Inserts an extent, which must not be there. */
function mustInsert(cur: XfsAllocCur, bno: number, len: number): number {
  const there = lookup(cur, XFS_LOOKUP_EQ, bno, len);
  if (there < 0) return there;
  if (there === 1) {
    return corrupt(cur.pag!, `${cur.ops.name}: ${bno} is there twice`);
  }
  return insertHere(cur);
}

/** Inserts `cur.rec` where a lookup has led. */
function insertHere(cur: XfsAllocCur): number {
  const done = xfsBtreeInsert(cur);
  return done === 0 ? corrupt(cur.pag!, "the AGFL is too short") : done;
}

function mustDelete(cur: XfsAllocCur): number {
  const done = xfsBtreeDelete(cur);
  return done === 0 ? corrupt(cur.pag!, `${cur.ops.name}: no record`) : done;
}

function update(cur: XfsAllocCur, bno: number, len: number): void {
  cur.rec.startblock = bno;
  cur.rec.blockcount = len;
  xfsBtreeUpdate(cur);
}

// ---- the AGF ----

function logAgf(tp: XfsTrans, agbp: XfsBuf, first: number, last: number): void {
  tp.logBuf(agbp, first, last + 3);
}

function setLongest(cur: XfsAllocCur, longest: number): void {
  const agbp = cur.agbp!;
  cur.pag!.pagfLongest = longest;
  agbp.view.setUint32(F.AGF_LONGEST, longest);
  logAgf(cur.tp!, agbp, F.AGF_LONGEST, F.AGF_LONGEST);
}

/** Finds the longest extent anew, after one of its length has gone (kernel:
 * `xfs_alloc_fixup_longest`). */
function fixupLongest(cnt: XfsAllocCur, rec: XfsAllocRec): number {
  const there = xfsBtreeGotoLast(cnt);
  if (there < 0) return there;
  if (there === 0) {
    setLongest(cnt, 0);
    return 0;
  }
  const got = mustGetRec(cnt, rec);
  if (got < 0) return got;
  if (rec.blockcount !== cnt.pag!.pagfLongest) setLongest(cnt, rec.blockcount);
  return 0;
}

/** Counts blocks in (above 0) or out of the trees (kernel:
 * `xfs_alloc_update_counters`). */
function updateCounters(
  tp: XfsTrans,
  agbp: XfsBuf,
  pag: XfsPerag,
  delta: number,
): number {
  const free = pag.pagfFreeblks + delta;
  if (free < 0 || free > pag.blocks) return corrupt(pag, `freeblks ${free}`);
  pag.pagfFreeblks = free;
  agbp.view.setUint32(F.AGF_FREEBLKS, free);
  logAgf(tp, agbp, F.AGF_FREEBLKS, F.AGF_FREEBLKS);
  return 0;
}

/** Takes an allocated range out of both trees (kernel: `xfs_alloc_fixup_trees`).
 * @param free The free extent that it lies in.
 * @returns 0 or a negative errno. */
function fixupTrees(
  cnt: XfsAllocCur,
  bno: XfsAllocCur,
  free: XfsAllocRec,
  start: number,
  len: number,
  cntFound: boolean,
  bnoFound: boolean,
): number {
  const { startblock, blockcount } = free;
  let error = cntFound ? 1 : mustFind(cnt, startblock, blockcount);
  if (error < 0) return error;
  error = bnoFound ? 1 : mustFind(bno, startblock, blockcount);
  if (error < 0) return error;
  error = mustDelete(cnt);
  if (error < 0) return error;
  const before = start - startblock;
  const after = startblock + blockcount - (start + len);
  if (before > 0) error = mustInsert(cnt, startblock, before);
  if (error < 0) return error;
  if (after > 0) error = mustInsert(cnt, start + len, after);
  if (error < 0) return error;
  if (before > 0) update(bno, startblock, before);
  else if (after > 0) update(bno, start + len, after);
  else error = mustDelete(bno);
  if (error < 0) return error;
  if (before > 0 && after > 0) error = mustInsert(bno, start + len, after);
  if (error < 0) return error;
  return blockcount >= cnt.pag!.pagfLongest ? fixupLongest(cnt, free) : 0;
}

// ---- what a free extent is good for ----

/** Part of a free extent that may be used. */
const usable: BusyTrim = { bno: 0, len: 0 };

function roundUp(n: number, to: number): number {
  return Math.ceil(n / to) * to;
}

/** Works out what of a free extent is neither busy nor off the alignment, into
 * {@linkcode usable} (kernel: `xfs_alloc_compute_aligned`).
 * @returns Whether any of it was busy. */
function computeAligned(
  args: XfsAllocArg,
  found: XfsAllocRec,
): boolean {
  usable.bno = found.startblock;
  usable.len = found.blockcount;
  const pag = args.pag!;
  const busy = pag.busy.count > 0 &&
    xfsExtentBusyTrim(pag, args.minlen, args.maxlen, usable);
  const below = args.minAgbno - usable.bno;
  if (below > 0 && usable.len > below) {
    usable.bno += below;
    usable.len -= below;
  }
  if (args.alignment > 1 && usable.len >= args.minlen) {
    const aligned = roundUp(usable.bno, args.alignment);
    usable.len = Math.max(0, usable.len - (aligned - usable.bno));
    usable.bno = aligned;
  }
  return busy;
}

/** Block of a free extent from which an allocation would begin best, or `NULLAGBLOCK`
 * (kernel: `xfs_alloc_compute_diff`). */
function bestStart(args: XfsAllocArg, freebno: number, len: number): number {
  const { agbno: want, len: wantlen, alignment } = args;
  const freeend = freebno + len;
  const wantend = want + wantlen;
  const userdata = (args.datatype & XFS_ALLOC_USERDATA) !== 0;
  // From its beginning if it lies behind; data also if it lies before: the file may
  // go on growing there.
  if (freebno >= want || (userdata && freeend < wantend)) {
    const start = roundUp(freebno, alignment);
    return start < freeend ? start : F.NULLAGBLOCK;
  }
  if (freeend >= wantend) {
    return alignment > 1
      ? alignedAround(want, wantlen, alignment, freebno, freeend)
      : want;
  }
  const last = freeend - wantlen;
  const start = roundUp(last, alignment);
  if (start > last && start - alignment >= freebno) return start - alignment;
  return start < freeend ? start : F.NULLAGBLOCK;
}

/** The aligned block before or after the one wanted: whichever gives more, or is
 * nearer. */
function alignedAround(
  want: number,
  wantlen: number,
  alignment: number,
  freebno: number,
  freeend: number,
): number {
  const up = roundUp(want, alignment);
  const down = up - alignment;
  if (up >= freeend) return down >= freebno ? down : F.NULLAGBLOCK;
  if (down < freebno) return up;
  const upLen = Math.min(wantlen, freeend - up);
  const downLen = Math.min(wantlen, freeend - down);
  if (upLen !== downLen) return upLen < downLen ? down : up;
  return up - want > Math.abs(down - want) ? down : up;
}

/** Shortens `args.len` to `mod` more than a multiple of `prod`, if it can be (kernel:
 * `xfs_alloc_fix_len`). */
function fixLen(args: XfsAllocArg): void {
  const { mod, prod, len } = args;
  if (prod <= 1 || len < mod || len === args.maxlen) return;
  if (mod === 0 && len < prod) return;
  const k = len % prod;
  if (k === mod) return;
  const shorter = k > mod ? len - (k - mod) : len - prod + (mod - k);
  if (shorter >= args.minlen) args.len = shorter;
}

// ---- near a block ----

/** A search near a block, and the best that it has found (kernel: `struct
 * xfs_alloc_cur`). */
class NearSearch {
  readonly args: XfsAllocArg;
  readonly cnt: XfsAllocCur;
  /** To the left and to the right of the target. */
  readonly left: XfsAllocCur;
  readonly right: XfsAllocCur;
  /** Length that is looked for. */
  curLen: number;
  /** Free extent that the best is in. */
  readonly best: XfsAllocRec = { startblock: 0, blockcount: 0 };
  bno = 0;
  /** 0 as long as nothing has been found. */
  len = 0;
  /** Distance from the target. */
  diff: number = Infinity;
  /** Something was passed over because it is busy. */
  busy = false;
  /** Scratch. */
  readonly rec: XfsAllocRec = { startblock: 0, blockcount: 0 };

  constructor(args: XfsAllocArg) {
    const { mp, tp, pag, agbp } = args;
    this.args = args;
    this.cnt = xfsCntbtInitCursor(mp, tp, agbp!, pag!);
    this.left = xfsBnobtInitCursor(mp, tp, agbp!, pag!);
    this.right = xfsBnobtInitCursor(mp, tp, agbp!, pag!);
    this.curLen = args.maxlen;
  }

  /** Kernel: `xfs_alloc_cur_close`. */
  close(): void {
    xfsBtreeDelCursor(this.cnt);
    xfsBtreeDelCursor(this.left);
    xfsBtreeDelCursor(this.right);
  }
}

/** Looks at the free extent that a cursor stands at, and deactivates the cursor if
 * there is nothing better to come (kernel: `xfs_alloc_cur_check`).
 * @returns 1 if it is the best so far, 0 if not, or a negative errno. */
function curCheck(s: NearSearch, cur: XfsAllocCur): number {
  const { args, rec } = s;
  const byBlock = cur.ops === xfsBnobtOps;
  const error = mustGetRec(cur, rec);
  if (error < 0) return error;
  if (rec.blockcount < args.minlen) {
    if (!byBlock) cur.flags = 0;
    return 0;
  }
  if (computeAligned(args, rec)) s.busy = true;
  if (usable.bno < args.minAgbno || usable.bno > args.maxAgbno) {
    if (byBlock) cur.flags = 0;
    return 0;
  }
  if (usable.len < args.minlen) return 0;
  args.len = Math.min(usable.len, args.maxlen);
  fixLen(args);
  if (args.len < s.len) return 0;
  const start = bestStart(args, usable.bno, usable.len);
  if (start === F.NULLAGBLOCK) return 0;
  const diff = Math.abs(start - args.agbno);
  if (diff > s.diff) {
    if (byBlock) cur.flags = 0;
    return 0;
  }
  s.best.startblock = rec.startblock;
  s.best.blockcount = rec.blockcount;
  s.bno = start;
  s.len = args.len;
  s.diff = diff;
  // It cannot be better.
  if (diff === 0 && s.len === args.maxlen) cur.flags = 0;
  return 1;
}

const FORWARD = true;
const BACKWARD = false;

/** Looks at up to `count` extents in one direction (kernel: `xfs_alloc_walk_iter`).
 * @param findOne The first candidate will do.
 * @returns 1 if a better one was found, 0 if not, or a negative errno. */
function walkIter(
  s: NearSearch,
  cur: XfsAllocCur,
  forward: boolean,
  findOne: boolean,
  count: number,
): number {
  let found = 0;
  for (let left = count; isActive(cur) && left > 0; left--) {
    const better = curCheck(s, cur);
    if (better < 0) return better;
    if (better === 1) {
      found = 1;
      if (findOne) break;
    }
    if (!isActive(cur)) break;
    const there = forward ? xfsBtreeIncrement(cur) : xfsBtreeDecrement(cur);
    if (there < 0) return there;
    if (there === 0) cur.flags = 0;
  }
  return found;
}

/** Looks at the extents of the present length that are nearest to the target, and makes
 * the length longer (kernel: `xfs_alloc_cntbt_iter`). */
function cntbtIter(s: NearSearch): number {
  const { args, cnt, rec } = s;
  if (!isActive(cnt)) return 0;
  const wanted = s.curLen;
  const there = lookup(cnt, XFS_LOOKUP_GE, args.agbno, wanted);
  if (there !== 1) return there;
  let error = curCheck(s, cnt);
  if (error < 0) return error;
  const { startblock, blockcount } = rec;
  s.curLen = blockcount;
  // The one before may be nearer, if it has the same length.
  if (startblock > args.agbno) {
    error = xfsBtreeDecrement(cnt);
    if (error === 1) error = mustGetRec(cnt, rec);
    if (error === 1 && rec.blockcount === blockcount) error = curCheck(s, cnt);
    if (error < 0) return error;
  }
  // With a candidate in hand the search is hurried on.
  if (s.len === 0 || s.curLen >= wanted * 2) s.curLen++;
  else s.curLen = wanted * 2;
  return 0;
}

/** Searches from the target to both sides and through the sizes, a step each at a time
 * (kernel: `xfs_alloc_ag_vextent_locality`).
 * @returns 0 or a negative errno; `s.len` says whether there is something. */
function searchLocality(s: NearSearch): number {
  const { args, cnt, left, right } = s;
  let error = lookup(cnt, XFS_LOOKUP_GE, args.agbno, s.curLen);
  if (error < 0) return error;
  error = lookup(left, XFS_LOOKUP_LE, args.agbno, 0);
  if (error < 0) return error;
  error = lookup(right, XFS_LOOKUP_GE, args.agbno, 0);
  if (error < 0) return error;
  // Where the last part of the search goes on.
  let rest: XfsAllocCur | null = null;
  let forward = BACKWARD;
  while (isActive(left) || isActive(right) || isActive(cnt)) {
    let found = walkIter(s, left, BACKWARD, true, 1);
    if (found < 0) return found;
    if (found === 1) {
      rest = right;
      forward = FORWARD;
      break;
    }
    found = walkIter(s, right, FORWARD, true, 1);
    if (found < 0) return found;
    if (found === 1) {
      rest = left;
      break;
    }
    error = cntbtIter(s);
    if (error < 0) return error;
    if (!isActive(cnt)) break;
  }
  if (!isActive(cnt) && s.len === 0 && !s.busy) {
    // The longest there is.
    const there = xfsBtreeDecrement(cnt);
    if (there < 0) return there;
    if (there === 1) {
      cnt.flags = ACTIVE;
      rest = cnt;
      forward = BACKWARD;
    }
  }
  if (rest === null) return 0;
  const found = walkIter(s, rest, forward, true, Infinity);
  return found < 0 ? found : 0;
}

/** Looks at every extent of the last leaf that is long enough: all the long ones are
 * there (kernel: `xfs_alloc_ag_vextent_lastblock`).
 * @param fromStart Not from where the cursor stands, but from the first that will do. */
function searchLastBlock(s: NearSearch, fromStart: boolean): number {
  const { args, cnt, rec } = s;
  if (fromStart) {
    cnt.ptrs[0] = 1;
    for (;;) {
      const error = mustGetRec(cnt, rec);
      if (error < 0) return error;
      if (rec.blockcount >= args.minlen) break;
      const there = xfsBtreeIncrement(cnt);
      if (there !== 1) return there;
    }
  }
  const found = walkIter(s, cnt, FORWARD, false, Infinity);
  return found < 0 ? found : 0;
}

/** Kernel: `xfs_alloc_ag_vextent_near`. */
function agVextentNear(args: XfsAllocArg): number {
  if (args.minAgbno === 0 && args.maxAgbno === 0) {
    args.maxAgbno = args.mp.sb.agblocks - 1;
  }
  const target = Math.max(args.minAgbno, Math.min(args.agbno, args.maxAgbno));
  for (;;) {
    args.agbno = target;
    const s = new NearSearch(args);
    let error = searchNear(s);
    if (error === 0 && s.len > 0) {
      error = fixupTrees(s.cnt, s.left, s.best, s.bno, s.len, false, false);
      args.agbno = s.bno;
      args.len = s.len;
    }
    s.close();
    if (error < 0) return error;
    if (s.len > 0 || args.agbno === F.NULLAGBLOCK || args.wasfromfl) return 0;
    if (!s.busy) {
      args.agbno = F.NULLAGBLOCK;
      return 0;
    }
    // The kernel forces the log for them.
    xfsExtentBusyClearAll(args.mp);
  }
}

/** The search alone. What comes off the AGFL, and that there is nothing, is in `args`
 * already. */
function searchNear(s: NearSearch): number {
  const { args, cnt } = s;
  let there = lookup(cnt, XFS_LOOKUP_GE, 0, args.maxlen);
  if (there < 0) return there;
  const none = there === 0;
  if (none) {
    there = agVextentSmall(args, cnt, s.rec);
    if (there < 0) return there;
    if (there === 0 || s.rec.blockcount === 0) return 0;
  }
  if (xfsBtreeIsLastBlock(cnt, 0)) {
    const error = searchLastBlock(s, none || args.alignment > 1);
    if (error < 0 || s.len > 0) return error;
  }
  return searchLocality(s);
}

/**
 * No free extent is as long as wanted: takes the longest, or a block of the AGFL
 * (kernel: `xfs_alloc_ag_vextent_small`).
 *
 * @param cnt Stands behind the last.
 * @param rec Out: the longest, of length 0 if it is too short.
 * @returns 1; 0 if a block of the AGFL has been allocated; a negative errno.
 */
function agVextentSmall(
  args: XfsAllocArg,
  cnt: XfsAllocCur,
  rec: XfsAllocRec,
): number {
  const there = xfsBtreeDecrement(cnt);
  if (there < 0) return there;
  rec.blockcount = 0;
  if (there === 1) {
    const error = mustGetRec(cnt, rec);
    if (error < 0) return error;
  } else if (mayUseFreelist(args)) {
    const agbno = xfsAllocGetFreelist(args.pag!, args.tp, args.agbp!, false);
    if (agbno < 0) return agbno;
    if (agbno > 0) return takeFromFreelist(args, agbno);
  }
  if (rec.blockcount < args.minlen) {
    args.agbno = F.NULLAGBLOCK;
    rec.blockcount = 0;
  }
  return 1;
}

function mayUseFreelist(args: XfsAllocArg): boolean {
  return args.minlen === 1 && args.alignment === 1 &&
    args.resv !== XFS_AG_RESV_AGFL && args.pag!.pagfFlcount > args.minleft;
}

function takeFromFreelist(args: XfsAllocArg, agbno: number): number {
  const pag = args.pag!;
  const { sb, targ } = args.mp;
  xfsExtentBusyReuse(pag, agbno, 1);
  if ((args.datatype & XFS_ALLOC_USERDATA) !== 0) {
    targ.invalidate(sb.agbToDaddr(pag.agno, agbno), sb.bbPerBlock);
  }
  args.agbno = agbno;
  args.len = 1;
  args.wasfromfl = true;
  // It belongs to the trees of free space no longer.
  return xfsRmapFree(args.tp, args.agbp!, pag, agbno, 1, XFS_RMAP_OINFO_AG);
}

// ---- at a block, and by size ----

/** Kernel: `xfs_alloc_ag_vextent_exact`. */
function agVextentExact(args: XfsAllocArg): number {
  const { mp, tp, pag, agbp } = args;
  const bno = xfsBnobtInitCursor(mp, tp, agbp!, pag!);
  const free: XfsAllocRec = { startblock: 0, blockcount: 0 };
  let error = lookup(bno, XFS_LOOKUP_LE, args.agbno, args.minlen);
  if (error === 1) error = mustGetRec(bno, free);
  if (error === 1 && exactFits(args, free)) {
    const cnt = xfsCntbtInitCursor(mp, tp, agbp!, pag!);
    error = fixupTrees(cnt, bno, free, args.agbno, args.len, false, true);
    xfsBtreeDelCursor(cnt);
  } else args.agbno = F.NULLAGBLOCK;
  xfsBtreeDelCursor(bno);
  return error < 0 ? error : 0;
}

/** Whether the allocation fits into a free extent; sets its length. */
function exactFits(args: XfsAllocArg, free: XfsAllocRec): boolean {
  usable.bno = free.startblock;
  usable.len = free.blockcount;
  xfsExtentBusyTrim(args.pag!, args.minlen, args.maxlen, usable);
  const end = usable.bno + usable.len;
  if (usable.bno > args.agbno || usable.len < args.minlen) return false;
  if (end < args.agbno + args.minlen) return false;
  args.len = Math.min(end, args.agbno + args.maxlen) - args.agbno;
  fixLen(args);
  return true;
}

/** Kernel: `xfs_alloc_ag_vextent_size`. */
function agVextentSize(args: XfsAllocArg): number {
  const { mp, tp, pag, agbp } = args;
  for (;;) {
    const cnt = xfsCntbtInitCursor(mp, tp, agbp!, pag!);
    const done = sizeOnce(args, cnt);
    xfsBtreeDelCursor(cnt);
    if (done !== BUSY) return done;
    xfsExtentBusyClearAll(mp);
  }
}

/** Of {@linkcode sizeOnce}: only busy extents would do. */
const BUSY = 1;

/** @returns 0, {@linkcode BUSY} or a negative errno. */
function sizeOnce(args: XfsAllocArg, cnt: XfsAllocCur): number {
  const free: XfsAllocRec = { startblock: 0, blockcount: 0 };
  const wanted = args.maxlen + args.alignment - 1;
  let there = lookup(cnt, XFS_LOOKUP_GE, 0, wanted);
  if (there < 0) return there;
  let busy = false;
  if (there === 0) {
    there = agVextentSmall(args, cnt, free);
    if (there < 0) return there;
    if (there === 0 || free.blockcount === 0) return 0;
    busy = computeAligned(args, free);
    if (usable.len < args.maxlen) {
      const found = searchShorter(args, cnt, free);
      if (found < 0) return found;
      if (found === BUSY) busy = true;
    }
  } else {
    const found = searchLonger(args, cnt, free);
    if (found !== 0) return found;
  }
  args.len = Math.min(args.maxlen, usable.len);
  if (args.len < args.minlen) {
    args.agbno = F.NULLAGBLOCK;
    return busy ? BUSY : 0;
  }
  return sizeFinish(args, cnt, free);
}

/** Goes on to longer extents until one is not busy; {@linkcode usable} is what can be
 * had of it.
 * @returns 0, {@linkcode BUSY} if all are, or a negative errno. */
function searchLonger(
  args: XfsAllocArg,
  cnt: XfsAllocCur,
  free: XfsAllocRec,
): number {
  for (;;) {
    const error = mustGetRec(cnt, free);
    if (error < 0) return error;
    computeAligned(args, free);
    if (usable.len >= args.maxlen) return 0;
    const there = xfsBtreeIncrement(cnt);
    if (there < 0) return there;
    if (there === 0) return BUSY;
  }
}

/** Goes back to shorter extents, which may yield more, as they are aligned better; the
 * best is in `free` and {@linkcode usable}, and the cursor stands at it.
 * @returns 0; {@linkcode BUSY} if the last one seen was; a negative errno. */
function searchShorter(
  args: XfsAllocArg,
  cnt: XfsAllocCur,
  free: XfsAllocRec,
): number {
  const rec: XfsAllocRec = { startblock: 0, blockcount: 0 };
  let bestBno = usable.bno;
  let bestLen = usable.len;
  let busy = 0;
  while (bestLen < args.maxlen) {
    const there = xfsBtreeDecrement(cnt);
    if (there < 0) return there;
    if (there === 0) break;
    const error = mustGetRec(cnt, rec);
    if (error < 0) return error;
    if (rec.blockcount <= bestLen) break;
    busy = computeAligned(args, rec) ? BUSY : 0;
    const len = Math.min(args.maxlen, usable.len);
    if (len <= bestLen) continue;
    bestLen = len;
    bestBno = usable.bno;
    free.startblock = rec.startblock;
    free.blockcount = rec.blockcount;
  }
  usable.bno = bestBno;
  usable.len = bestLen;
  const there = mustFind(cnt, free.startblock, free.blockcount);
  return there < 0 ? there : busy;
}

function sizeFinish(
  args: XfsAllocArg,
  cnt: XfsAllocCur,
  free: XfsAllocRec,
): number {
  const { mp, tp, pag, agbp } = args;
  const start = usable.bno;
  fixLen(args);
  const bno = xfsBnobtInitCursor(mp, tp, agbp!, pag!);
  const error = fixupTrees(cnt, bno, free, start, args.len, true, false);
  xfsBtreeDelCursor(bno);
  args.agbno = start;
  return error;
}

// ---- the AGFL ----

/**
 * Takes a block off the AGFL (kernel: `xfs_alloc_get_freelist`).
 *
 * @param btreeblk It becomes a block of one of the trees that count as free.
 * @returns Block; 0 if the list is empty; -EFSCORRUPTED, or an errno of the device.
 */
export function xfsAllocGetFreelist(
  pag: XfsPerag,
  tp: XfsTrans,
  agbp: XfsBuf,
  btreeblk: boolean,
): number {
  const { view } = agbp;
  const count = view.getUint32(F.AGF_FLCOUNT);
  if (count === 0) return 0;
  const agflbp = xfsAllocReadAgfl(pag, tp);
  if (typeof agflbp === "number") return agflbp;
  const first = view.getUint32(F.AGF_FLFIRST);
  const agbno = agflbp.view.getUint32(F.AGFL_BNO + first * 4);
  if (!pag.mp.sb.verifyAgbno(pag.agno, agbno)) {
    return corrupt(pag, `block ${agbno} on the AGFL`);
  }
  view.setUint32(F.AGF_FLFIRST, (first + 1) % xfsAgflSize(pag.mp));
  view.setUint32(F.AGF_FLCOUNT, count - 1);
  pag.pagfFlcount--;
  logAgf(tp, agbp, F.AGF_FLFIRST, F.AGF_FLCOUNT);
  if (btreeblk) countBtreeBlock(pag, tp, agbp, 1);
  return agbno;
}

/**
 * Puts a block on the AGFL (kernel: `xfs_alloc_put_freelist`).
 *
 * @param btreeblk It was a block of one of the trees that count as free.
 * @returns 0; -EFSCORRUPTED if there is no room, or an errno of the device.
 */
export function xfsAllocPutFreelist(
  pag: XfsPerag,
  tp: XfsTrans,
  agbp: XfsBuf,
  agbno: number,
  btreeblk: boolean,
): number {
  const { view } = agbp;
  const size = xfsAgflSize(pag.mp);
  const count = view.getUint32(F.AGF_FLCOUNT);
  if (count >= size) return corrupt(pag, "the AGFL is full");
  const agflbp = xfsAllocReadAgfl(pag, tp);
  if (typeof agflbp === "number") return agflbp;
  const last = (view.getUint32(F.AGF_FLLAST) + 1) % size;
  view.setUint32(F.AGF_FLLAST, last);
  view.setUint32(F.AGF_FLCOUNT, count + 1);
  pag.pagfFlcount++;
  logAgf(tp, agbp, F.AGF_FLLAST, F.AGF_FLCOUNT);
  if (btreeblk) countBtreeBlock(pag, tp, agbp, -1);
  const at = F.AGFL_BNO + last * 4;
  agflbp.view.setUint32(at, agbno);
  tp.logBuf(agflbp, at, at + 3);
  return 0;
}

function countBtreeBlock(
  pag: XfsPerag,
  tp: XfsTrans,
  agbp: XfsBuf,
  delta: number,
): void {
  pag.pagfBtreeblks = Math.max(0, pag.pagfBtreeblks + delta);
  agbp.view.setUint32(F.AGF_BTREEBLKS, pag.pagfBtreeblks);
  logAgf(tp, agbp, F.AGF_BTREEBLKS, F.AGF_BTREEBLKS);
}

/** The list cannot be trusted: its blocks are lost to everybody (kernel:
 * `xfs_agfl_reset`). */
function agflReset(tp: XfsTrans, agbp: XfsBuf, pag: XfsPerag): void {
  const { mp, agno, pagfFlcount } = pag;
  printk(
    `XFS (${mp.id}): WARNING: Reset corrupted AGFL on AG ${agno}. ${pagfFlcount} blocks leaked. Please unmount and run xfs_repair.`,
  );
  const { view } = agbp;
  view.setUint32(F.AGF_FLFIRST, 0);
  view.setUint32(F.AGF_FLLAST, xfsAgflSize(mp) - 1);
  view.setUint32(F.AGF_FLCOUNT, 0);
  logAgf(tp, agbp, F.AGF_FLFIRST, F.AGF_FLCOUNT);
  pag.pagfFlcount = 0;
  pag.pagfAgflreset = false;
}

/** Whether a group has room for the allocation; shortens `args.maxlen` to what it has
 * (kernel: `xfs_alloc_space_available`). */
function spaceAvailable(args: XfsAllocArg, minFree: number): boolean {
  const pag = args.pag!;
  const reserved = xfsAgResvNeeded(pag, args.resv);
  const wanted = args.minlen + args.alignment - 1 + args.minalignslop;
  if (xfsAllocLongestFreeExtent(pag, minFree, reserved) < wanted) return false;
  // What is too much on the AGFL is about to be freed, but not at once.
  const listed = Math.min(pag.pagfFlcount, minFree);
  const available = pag.pagfFreeblks + listed - reserved - minFree -
    args.minleft;
  if (available < Math.max(args.total, wanted)) return false;
  args.maxlen = Math.min(args.maxlen, available);
  return true;
}

/**
 * Decides whether a group will do, and brings its AGFL to the right length (kernel:
 * `xfs_alloc_fix_freelist`).
 *
 * @param args `agbp` comes out as the AGF, or null if the group will not do.
 * @param freeing Blocks are to be freed: that must work in any group.
 * @returns 0 or a negative errno.
 */
function xfsAllocFixFreelist(
  args: XfsAllocArg,
  freeing: boolean,
): number {
  const { tp, mp } = args;
  const pag = args.pag!;
  args.agbp = null;
  const agbp = xfsAllocReadAgf(pag, tp);
  if (typeof agbp === "number") return agbp;
  if (!freeing && !spaceAvailable(args, xfsAllocMinFreelist(mp, pag))) {
    return 0;
  }
  if (pag.pagfAgflreset) {
    agflReset(tp, agbp, pag);
    if (!freeing && !spaceAvailable(args, xfsAllocMinFreelist(mp, pag))) {
      return 0;
    }
  }
  const need = xfsAllocMinFreelist(mp, pag);
  let error = shrinkFreelist(pag, tp, agbp, need);
  if (error === 0 && pag.pagfFlcount < need) {
    error = growFreelist(pag, tp, agbp, need);
  }
  if (error < 0) return error;
  if (pag.pagfFlcount < need && !freeing) return 0;
  args.agbp = agbp;
  return 0;
}

/** Leaves what is too much to be freed later, one block at a time. */
function shrinkFreelist(
  pag: XfsPerag,
  tp: XfsTrans,
  agbp: XfsBuf,
  need: number,
): number {
  while (pag.pagfFlcount > need) {
    const agbno = xfsAllocGetFreelist(pag, tp, agbp, false);
    if (agbno < 0) return agbno;
    const fsbno = pag.mp.sb.agbToFsb(pag.agno, agbno);
    const error = xfsFreeExtentLater(
      tp,
      fsbno,
      1,
      XFS_RMAP_OINFO_AG,
      XFS_AG_RESV_AGFL,
    );
    if (error < 0) return error;
  }
  return 0;
}

/** Allocates blocks for the list; stops if there are none. */
function growFreelist(
  pag: XfsPerag,
  tp: XfsTrans,
  agbp: XfsBuf,
  need: number,
): number {
  const targs = new XfsAllocArg().init(tp);
  targs.pag = pag;
  targs.agno = pag.agno;
  targs.agbp = agbp;
  targs.resv = XFS_AG_RESV_AGFL;
  while (pag.pagfFlcount < need) {
    targs.agbno = 0;
    targs.maxlen = need - pag.pagfFlcount;
    let error = agVextentSize(targs);
    if (error < 0) return error;
    if (targs.agbno === F.NULLAGBLOCK) break;
    error = xfsRmapAlloc(
      tp,
      agbp,
      pag,
      targs.agbno,
      targs.len,
      XFS_RMAP_OINFO_AG,
    );
    if (error < 0) return error;
    error = updateCounters(tp, agbp, pag, -targs.len);
    if (error < 0) return error;
    for (let i = 0; i < targs.len; i++) {
      error = xfsAllocPutFreelist(pag, tp, agbp, targs.agbno + i, false);
      if (error < 0) return error;
    }
  }
  return 0;
}

// ---- allocation ----

/** Checks what the caller gave (kernel: `xfs_alloc_vextent_check_args`).
 * @returns Whether it can be allocated at all. */
function checkArgs(args: XfsAllocArg, target: number): boolean {
  const { sb } = args.mp;
  args.fsbno = F.NULLFSBLOCK;
  args.maxlen = Math.min(args.maxlen, sb.agblocks);
  args.wasfromfl = false;
  bugOn(args.minlen < 1 || args.alignment < 1, "allocation of nothing");
  const ok = target >= 0 && sb.fsbToAgno(target) < sb.agcount &&
    sb.fsbToAgbno(target) < sb.agblocks && args.minlen <= args.maxlen &&
    args.mod < args.prod;
  return ok && (args.agno < 0 || args.agno >= args.tp.highestAgno);
}

/** Makes a group ready for it (kernel: `xfs_alloc_vextent_prepare_ag`).
 * @returns 1 if it is, 0 if not, or a negative errno. */
function prepareAg(args: XfsAllocArg): number {
  args.wasfromfl = false;
  const error = xfsAllocFixFreelist(args, false);
  if (error === 0 && args.agbp !== null) return 1;
  args.agbno = F.NULLAGBLOCK;
  return error;
}

/** Counts what has been allocated, and tells its address (kernel:
 * `xfs_alloc_vextent_finish`).
 * @returns 0, with `NULLFSBLOCK` if there was nothing, or a negative errno. */
function finish(args: XfsAllocArg, error: number): number {
  const { tp, mp } = args;
  if (args.agbp !== null) tp.highestAgno = Math.max(tp.highestAgno, args.agno);
  if (error < 0 || args.agbno === F.NULLAGBLOCK) {
    args.fsbno = F.NULLFSBLOCK;
    return error < 0 ? error : 0;
  }
  const pag = args.pag!;
  args.fsbno = mp.sb.agbToFsb(args.agno, args.agbno);
  let failed = 0;
  if (!xfsRmapShouldSkipOwnerUpdate(args.oinfo)) {
    failed = xfsRmapAlloc(
      tp,
      args.agbp!,
      pag,
      args.agbno,
      args.len,
      args.oinfo,
    );
  }
  if (failed === 0 && !args.wasfromfl) {
    failed = updateCounters(tp, args.agbp!, pag, -args.len);
  }
  if (failed < 0) return failed;
  xfsAgResvAllocExtent(pag, args.resv, tp, args.len, args.wasdel);
  return 0;
}

/** Chooses the group, which an earlier attempt may have left in `args`. */
function setGroup(args: XfsAllocArg, agno: number, agbno: number): void {
  args.agno = agno;
  args.agbno = agbno;
  args.pag = args.mp.perags[agno] ?? null;
}

/**
 * Allocates anywhere in one group: the shortest extent that will do (kernel:
 * `xfs_alloc_vextent_this_ag`).
 *
 * @returns 0: `args.fsbno` and `args.len` say what was found, `NULLFSBLOCK` if nothing;
 *   -EFSCORRUPTED, or an errno of the device.
 */
export function xfsAllocVextentThisAg(
  args: XfsAllocArg,
  agno: number,
): number {
  setGroup(args, agno, 0);
  args.agbp = null;
  if (!checkArgs(args, args.mp.sb.agbToFsb(agno, 0))) return 0;
  let error = prepareAg(args);
  if (error === 1) error = agVextentSize(args);
  return finish(args, error);
}

/**
 * Allocates near `target` if its group has room, else anywhere in the groups that
 * follow, and from the first one on (kernel: `xfs_alloc_vextent_start_ag`).
 *
 * @param target Block of the file system.
 * @returns As {@linkcode xfsAllocVextentThisAg}.
 */
export function xfsAllocVextentStartAg(
  args: XfsAllocArg,
  target: number,
): number {
  const { sb } = args.mp;
  args.agno = -1;
  args.agbno = F.NULLAGBLOCK;
  args.agbp = null;
  if (!checkArgs(args, target)) return 0;
  const first = Math.max(args.tp.highestAgno, sb.fsbToAgno(target));
  return finish(args, iterateAgs(args, first, sb.fsbToAgbno(target)));
}

/**
 * The same; the kernel tells them apart by what the caller means (kernel:
 * `xfs_alloc_vextent_first_ag`).
 *
 * @returns As {@linkcode xfsAllocVextentThisAg}.
 */
export const xfsAllocVextentFirstAg: typeof xfsAllocVextentStartAg =
  xfsAllocVextentStartAg;

/** Kernel: `xfs_alloc_vextent_iterate_ags`. There are no locks to be tried, so once
 * around is all. */
function iterateAgs(
  args: XfsAllocArg,
  first: number,
  targetAgbno: number,
): number {
  const { agcount } = args.mp.sb;
  for (let i = 0; i < agcount; i++) {
    const agno = (first + i) % agcount;
    setGroup(args, agno, F.NULLAGBLOCK);
    const ready = prepareAg(args);
    if (ready < 0) return ready;
    if (ready === 0) continue;
    const near = i === 0 && targetAgbno !== 0;
    args.agbno = near ? targetAgbno : 0;
    return near ? agVextentNear(args) : agVextentSize(args);
  }
  return 0;
}

/**
 * Allocates at a block or not at all (kernel: `xfs_alloc_vextent_exact_bno`).
 *
 * @param target Block of the file system.
 * @returns As {@linkcode xfsAllocVextentThisAg}.
 */
export function xfsAllocVextentExactBno(
  args: XfsAllocArg,
  target: number,
): number {
  return inOneGroup(args, target, agVextentExact);
}

/**
 * Allocates near a block, in its group (kernel: `xfs_alloc_vextent_near_bno`).
 *
 * @param target Block of the file system.
 * @returns As {@linkcode xfsAllocVextentThisAg}.
 */
export function xfsAllocVextentNearBno(
  args: XfsAllocArg,
  target: number,
): number {
  return inOneGroup(args, target, agVextentNear);
}

function inOneGroup(
  args: XfsAllocArg,
  target: number,
  allocate: (args: XfsAllocArg) => number,
): number {
  const { sb } = args.mp;
  setGroup(args, sb.fsbToAgno(target), sb.fsbToAgbno(target));
  args.agbp = null;
  const { agbno } = args;
  if (!checkArgs(args, target)) return 0;
  let error = prepareAg(args);
  if (error === 1) {
    args.agbno = agbno;
    error = allocate(args);
  }
  return finish(args, error);
}

// ---- freeing ----

/**
 * Puts a range into both trees, together with its neighbours (kernel:
 * `xfs_free_ag_extent`).
 *
 * @param type What it was allocated for.
 * @returns 0; -EFSCORRUPTED if any of it is free already; an errno of the device.
 */
function xfsFreeAgExtent(
  tp: XfsTrans,
  agbp: XfsBuf,
  pag: XfsPerag,
  bno: number,
  len: number,
  oinfo: XfsOwnerInfo,
  type: XfsAgResvType,
): number {
  let error = 0;
  if (!xfsRmapShouldSkipOwnerUpdate(oinfo)) {
    error = xfsRmapFree(tp, agbp, pag, bno, len, oinfo);
    if (error < 0) return error;
  }
  const bnoCur = xfsBnobtInitCursor(pag.mp, tp, agbp, pag);
  const cntCur = xfsCntbtInitCursor(pag.mp, tp, agbp, pag);
  error = mergeIn(bnoCur, cntCur, bno, len);
  xfsBtreeDelCursor(bnoCur);
  xfsBtreeDelCursor(cntCur);
  if (error < 0) return error;
  error = updateCounters(tp, agbp, pag, len);
  if (error < 0) return error;
  xfsAgResvFreeExtent(pag, type, tp, len);
  return 0;
}

/** Inserts a free range, joining it with the free extents that it touches. */
function mergeIn(
  bnoCur: XfsAllocCur,
  cntCur: XfsAllocCur,
  bno: number,
  len: number,
): number {
  const pag = bnoCur.pag!;
  const left: XfsAllocRec = { startblock: 0, blockcount: 0 };
  const right: XfsAllocRec = { startblock: 0, blockcount: 0 };
  let there = lookup(bnoCur, XFS_LOOKUP_LE, bno, len);
  if (there === 1) there = mustGetRec(bnoCur, left);
  if (there < 0) return there;
  const leftEnd = left.startblock + left.blockcount;
  if (there === 1 && leftEnd > bno) return corrupt(pag, `${bno} is free`);
  const haveLeft = there === 1 && leftEnd === bno;
  there = xfsBtreeIncrement(bnoCur);
  if (there === 1) there = mustGetRec(bnoCur, right);
  if (there < 0) return there;
  if (there === 1 && bno + len > right.startblock) {
    return corrupt(pag, `${right.startblock} is free`);
  }
  const haveRight = there === 1 && bno + len === right.startblock;
  return mergeWith(
    bnoCur,
    cntCur,
    bno,
    len,
    haveLeft ? left : null,
    haveRight ? right : null,
  );
}

/** @param bnoCur Stands after where the range belongs, at `right` if there is one. */
function mergeWith(
  bnoCur: XfsAllocCur,
  cntCur: XfsAllocCur,
  bno: number,
  len: number,
  left: XfsAllocRec | null,
  right: XfsAllocRec | null,
): number {
  let error = left === null ? 0 : deleteSize(cntCur, left);
  if (error < 0) return error;
  error = right === null ? 0 : deleteSize(cntCur, right);
  if (error < 0) return error;
  const start = left === null ? bno : left.startblock;
  const total = len + (left?.blockcount ?? 0) + (right?.blockcount ?? 0);
  if (left !== null) {
    if (right !== null) error = mustDelete(bnoCur);
    if (error < 0) return error;
    error = xfsBtreeDecrement(bnoCur);
    if (error < 0) return error;
    if (error === 0) return corrupt(bnoCur.pag!, "no extent to the left");
  }
  if (left !== null || right !== null) update(bnoCur, start, total);
  else {
    bnoCur.rec.startblock = bno;
    bnoCur.rec.blockcount = len;
    error = insertHere(bnoCur);
    if (error < 0) return error;
  }
  error = mustInsert(cntCur, start, total);
  if (error < 0) return error;
  if (total > cntCur.pag!.pagfLongest) setLongest(cntCur, total);
  return 0;
}

function deleteSize(cnt: XfsAllocCur, rec: XfsAllocRec): number {
  const there = mustFind(cnt, rec.startblock, rec.blockcount);
  return there < 0 ? there : mustDelete(cnt);
}

/**
 * Brings the AGFL of a group to the length that freeing in it, or a change of its reverse
 * map, needs (kernel: `xfs_free_extent_fix_freelist`).
 *
 * @returns Its AGF, or a negative errno.
 */
export function xfsFreeExtentFixFreelist(
  tp: XfsTrans,
  pag: XfsPerag,
): XfsBuf | number {
  const args = new XfsAllocArg().init(tp);
  args.pag = pag;
  args.agno = pag.agno;
  const error = xfsAllocFixFreelist(args, true);
  return error < 0 ? error : args.agbp!;
}

/**
 * Frees a range of a group at once (kernel: `__xfs_free_extent`).
 *
 * @param type What it was allocated for.
 * @returns 0; -EFSCORRUPTED if it cannot have been in use; an errno of the device.
 */
function xfsFreeExtent(
  tp: XfsTrans,
  pag: XfsPerag,
  agbno: number,
  len: number,
  oinfo: XfsOwnerInfo,
  type: XfsAgResvType,
): number {
  const agbp = xfsFreeExtentFixFreelist(tp, pag);
  if (typeof agbp === "number") return agbp;
  if (!pag.verifyAgbext(agbno, len)) {
    return corrupt(pag, `${len} blocks at ${agbno} to be freed`);
  }
  const failed = xfsFreeAgExtent(tp, agbp, pag, agbno, len, oinfo, type);
  if (failed < 0) return failed;
  xfsExtentBusyInsert(pag, agbno, len);
  return 0;
}

/** A range that is freed in a following transaction (kernel: `struct
 * xfs_extent_free_item`). */
export class XfsExtentFreeOp implements DeferOp {
  readonly type: DeferOpType;
  readonly pag: XfsPerag;
  /** First block, of the file system. */
  readonly startblock: number;
  readonly blockcount: number;
  readonly oinfo: XfsOwnerInfo;
  readonly agresv: XfsAgResvType;

  constructor(
    pag: XfsPerag,
    startblock: number,
    blockcount: number,
    oinfo: XfsOwnerInfo,
    agresv: XfsAgResvType,
  ) {
    this.pag = pag;
    this.type = agresv === XFS_AG_RESV_AGFL
      ? xfsAgflFreeDeferType
      : xfsExtentFreeDeferType;
    this.startblock = startblock;
    this.blockcount = blockcount;
    this.oinfo = oinfo;
    this.agresv = agresv;
  }
}

/** Items of one intent (kernel: `XFS_EFI_MAX_FAST_EXTENTS`). */
const XFS_EFI_MAX_FAST_EXTENTS = 16;

/** Kernel: `xfs_extent_free_diff_items`. */
function diffGroups(a: DeferOp, b: DeferOp): number {
  return (a as XfsExtentFreeOp).pag.agno - (b as XfsExtentFreeOp).pag.agno;
}

/** Kernel: `xfs_extent_free_defer_type`. */
export const xfsExtentFreeDeferType: DeferOpType = {
  name: "extent_free",
  maxItems: XFS_EFI_MAX_FAST_EXTENTS,
  diffItems: diffGroups,
  finish(tp: XfsTrans, op: DeferOp): number {
    const { pag, startblock, blockcount, oinfo, agresv } =
      op as XfsExtentFreeOp;
    const agbno = tp.mp.sb.fsbToAgbno(startblock);
    return xfsFreeExtent(tp, pag, agbno, blockcount, oinfo, agresv);
  },
};

/** Kernel: `xfs_agfl_free_defer_type`. */
export const xfsAgflFreeDeferType: DeferOpType = {
  name: "agfl_free",
  maxItems: XFS_EFI_MAX_FAST_EXTENTS,
  diffItems: diffGroups,
  finish(tp: XfsTrans, op: DeferOp): number {
    const { pag, startblock, oinfo, agresv } = op as XfsExtentFreeOp;
    const agbp = xfsAllocReadAgf(pag, tp);
    if (typeof agbp === "number") return agbp;
    const agbno = tp.mp.sb.fsbToAgbno(startblock);
    return xfsFreeAgExtent(tp, agbp, pag, agbno, 1, oinfo, agresv);
  },
};

/**
 * Leaves a range to be freed when the transaction commits (kernel:
 * `xfs_free_extent_later`).
 *
 * @param fsbno First block, of the file system.
 * @param len Blocks; all in one group.
 * @param oinfo Owner, null if the reverse map has nothing to forget.
 * @param type What it was allocated for.
 * @returns 0, or -EFSCORRUPTED if there are no such blocks.
 */
export function xfsFreeExtentLater(
  tp: XfsTrans,
  fsbno: number,
  len: number,
  oinfo: XfsOwnerInfo | null,
  type: XfsAgResvType,
): number {
  const { mp } = tp;
  if (!mp.sb.verifyFsbext(fsbno, len)) {
    mp.corrupt("extent to be freed", `${len} blocks at ${fsbno}`);
    return -EFSCORRUPTED;
  }
  const owner = oinfo ?? XFS_RMAP_OINFO_SKIP_UPDATE;
  const pag = mp.perags[mp.sb.fsbToAgno(fsbno)]!;
  xfsDeferAdd(tp, new XfsExtentFreeOp(pag, fsbno, len, owner, type));
  return 0;
}
