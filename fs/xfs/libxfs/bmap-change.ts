/**
 * How the extents of a fork change: some that lie one behind the other are replaced by
 * others, in the list, in the tree and in the counters ({@linkcode replace}). What a
 * change adds is merged with its neighbours where it can be ({@linkcode plan}), and the
 * extents move to a tree when they do not fit into the inode, and back.
 *
 * For `bmap.ts` alone, which says what is changed.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_bmap.c (`xfs_bmap_add_extent_*`,
 * `xfs_bmap_extents_to_btree`, `xfs_bmap_btree_to_extents`).
 *
 * @module
 */

import { ENOSPC } from "../../../lib/errno.ts";
import type { XfsInode } from "../inode.ts";
import type { XfsMount } from "../mount.ts";
import { XFS_BMAPI_NORMAP, XfsBmalloca } from "./bmap-alloc.ts";
import {
  BMBT_REC_LEN,
  XFS_BTREE_BMBT_WASDEL,
  xfsBmbtAllocBlock,
  xfsBmbtDiskSetAll,
  xfsBmbtFreeBlock,
  xfsBmbtInitCursor,
  xfsBmbtOps,
  xfsBmdrMaxrecs,
  xfsBrootAlloc,
  xfsBrootPtrAt,
} from "./bmap-btree.ts";
import {
  XFS_LOOKUP_EQ,
  type XfsBtreeCur,
  xfsBtreeDelCursor,
  xfsBtreeDelete,
  xfsBtreeIncrement,
  xfsBtreeInitBlock,
  xfsBtreeInsert,
  xfsBtreeLookup,
  xfsBtreeMaxrecs,
  xfsBtreeUpdate,
} from "./btree.ts";
import type { XfsBuf } from "./buf.ts";
import { getU64, putU64 } from "./bytes.ts";
import * as F from "./format.ts";
import {
  BmbtIrec,
  IextCursor,
  type Ifork,
  isnullstartblock,
  nullstartblock,
  startblockval,
} from "./iext.ts";
import {
  xfsForkCorrupt,
  xfsIforkMaxext,
  xfsIforkPtr,
  xfsInodeForkSize,
} from "./inode-fork.ts";
import { xfsRmapConvertExtent, xfsRmapMapExtent } from "./rmap.ts";
import {
  XFS_ILOG_ABROOT,
  XFS_ILOG_AEXT,
  XFS_ILOG_CORE,
  XFS_ILOG_DBROOT,
  XFS_ILOG_DEXT,
  type XfsTrans,
} from "./trans.ts";

// Scratch. Nothing here is entered twice: nothing waits, and what allocation and the
// trees call does not come back.
const bma = new XfsBmalloca();
/** What a change takes out. */
export const OLD: readonly BmbtIrec[] = [
  new BmbtIrec(),
  new BmbtIrec(),
  new BmbtIrec(),
];
/** What it puts in. */
export const NEW: readonly BmbtIrec[] = [
  new BmbtIrec(),
  new BmbtIrec(),
  new BmbtIrec(),
];
const left = new BmbtIrec();
const right = new BmbtIrec();
const whole = new BmbtIrec();
const span = new BmbtIrec();
const part = new BmbtIrec();
const icur = new IextCursor();
const scan = new IextCursor();

/**
 * Blocks that the tree may need for a run of file blocks, each mapped by itself (kernel:
 * `xfs_bmap_worst_indlen`).
 *
 * @param len Blocks of the run.
 */
export function xfsBmapWorstIndlen(ip: XfsInode, len: number): number {
  const maxrecs = xfsBtreeMaxrecs(ip.mount.sb, xfsBmbtOps, true);
  const levels = ip.mount.maxlevels.bmapData;
  let blocks = len;
  let sum = 0;
  for (let level = 0; level < levels; level++) {
    blocks = Math.ceil(blocks / maxrecs);
    sum += blocks;
    if (blocks === 1) return sum + levels - level - 1;
  }
  return sum;
}

/** Whether two extents with blocks are one, but for the length. */
export function adjoins(a: BmbtIrec, b: BmbtIrec): boolean {
  return !isnullstartblock(a.startblock) && !isnullstartblock(b.startblock) &&
    a.endoff === b.startoff && a.startblock + a.count === b.startblock &&
    a.unwritten === b.unwritten &&
    a.count + b.count <= F.XFS_MAX_BMBT_EXTLEN;
}

// ---- replacing ----

/** Begins a change. */
export function begin(
  tp: XfsTrans | null,
  ip: XfsInode,
  whichfork: number,
): XfsBmalloca {
  bma.tp = tp;
  bma.ip = ip;
  bma.whichfork = whichfork;
  bma.fork = xfsIforkPtr(ip, whichfork)!;
  bma.icur = icur;
  bma.cur = null;
  bma.logflags =
    bma.flags =
    bma.nallocs =
    bma.datatype =
      0;
  bma.minlen = bma.minleft = bma.total = 0;
  bma.wasdel =
    bma.aeof =
    bma.conv =
    bma.eof =
    bma.hasPrev =
      false;
  return bma;
}

/** Ends it: logs what has changed, even where it went wrong, so that cancelling shuts
 * the file system down (kernel: `xfs_bmapi_finish`). */
export function finish(ap: XfsBmalloca): void {
  const { fork, ip, tp } = ap;
  if (fork.format !== F.XFS_DINODE_FMT_EXTENTS) ap.logflags &= ~logExt(ap);
  if (fork.format !== F.XFS_DINODE_FMT_BTREE) ap.logflags &= ~logBroot(ap);
  if (ap.logflags !== 0 && tp !== null) tp.logInode(ip, ap.logflags);
  if (ap.cur !== null) xfsBtreeDelCursor(ap.cur);
  ap.cur = null;
  ap.tp = null;
}

/** Kernel: `xfs_ilog_fext`. */
function logExt(ap: XfsBmalloca): number {
  return ap.whichfork === F.XFS_ATTR_FORK ? XFS_ILOG_AEXT : XFS_ILOG_DEXT;
}

/** Kernel: `xfs_ilog_fbroot`. */
function logBroot(ap: XfsBmalloca): number {
  return ap.whichfork === F.XFS_ATTR_FORK ? XFS_ILOG_ABROOT : XFS_ILOG_DBROOT;
}

/** Has a cursor into the tree, if the fork has one. */
function openTree(ap: XfsBmalloca): void {
  const { fork, ip } = ap;
  if (fork.format !== F.XFS_DINODE_FMT_BTREE) return;
  ap.cur ??= xfsBmbtInitCursor(ip.mount, ap.tp, ip, ap.whichfork);
  if (ap.wasdel) ap.cur.flags |= XFS_BTREE_BMBT_WASDEL;
}

// Where records go into the tree when one extent comes to be several. It decides which
// blocks split: as in the kernel, so that trees come out the same.
/** The first takes the place of the old one, the others are looked up. */
const BY_KEY = 0;
/** The first takes the place of the old one, the second comes behind it. */
const BEHIND = 1;
/** The last takes the place of the old one, the first comes before it. */
const BEFORE = 2;

/**
 * Replaces extents that lie one behind the other: in the tree those that have blocks,
 * then in the list.
 *
 * @param ap Its place is the first of the old ones, or where new ones go if there are
 *   none; afterwards the new one of index `on`, or if there is none the extent before.
 * @param nOld How many of `OLD` there are.
 * @param nNew How many of `NEW` come in their place.
 * @param order `BEHIND` or `BEFORE` where one comes to be several in that way.
 * @returns 0; -ENOSPC if the tree needs a block and nothing is reserved: then nothing has
 *   changed; -EFSCORRUPTED or an errno of the device.
 */
export function replace(
  ap: XfsBmalloca,
  nOld: number,
  nNew: number,
  on: number,
  order = BY_KEY,
): number {
  openTree(ap);
  if (ap.cur !== null) {
    const error = order === BY_KEY
      ? replaceInTree(ap, ap.cur, nOld, nNew)
      : divideInTree(ap, ap.cur, nNew, order);
    if (error < 0) return error;
  }
  replaceInList(ap.fork, ap.icur, nOld, nNew, on);
  const more = countReal(NEW, nNew) - countReal(OLD, nOld);
  ap.fork.nextents += more;
  if (ap.whichfork === F.XFS_COW_FORK) return 0;
  if (more !== 0) ap.logflags |= XFS_ILOG_CORE;
  if (ap.cur === null) ap.logflags |= logExt(ap);
  return 0;
}

function countReal(recs: readonly BmbtIrec[], n: number): number {
  let real = 0;
  for (let i = 0; i < n; i++) {
    if (!isnullstartblock(recs[i]!.startblock)) real++;
  }
  return real;
}

/** Replaces them in the list alone, as {@linkcode replace} does. */
export function replaceInList(
  fork: Ifork,
  icur: IextCursor,
  nOld: number,
  nNew: number,
  on: number,
): void {
  const both = Math.min(nOld, nNew);
  for (let i = 0; i < both; i++) {
    fork.update(icur, NEW[i]!);
    fork.next(icur, part);
  }
  for (let i = both; i < nOld; i++) fork.remove(icur);
  for (let i = both; i < nNew; i++) {
    fork.insert(icur, NEW[i]!);
    fork.next(icur, part);
  }
  for (let i = nNew; i > on; i--) fork.prev(icur, part);
}

/** Index of the first record with blocks from `i` on. */
function real(recs: readonly BmbtIrec[], i: number, n: number): number {
  while (i < n && isnullstartblock(recs[i]!.startblock)) i++;
  return i;
}

function replaceInTree(
  ap: XfsBmalloca,
  cur: XfsBtreeCur<BmbtIrec>,
  nOld: number,
  nNew: number,
): number {
  let i = real(OLD, 0, nOld);
  let j = real(NEW, 0, nNew);
  let error = 0;
  while (i < nOld && j < nNew && error === 0) {
    error = updateInTree(ap, cur, OLD[i]!, NEW[j]!);
    i = real(OLD, i + 1, nOld);
    j = real(NEW, j + 1, nNew);
  }
  for (let k = nOld - 1; k >= i && error === 0; k--) {
    const gone = !isnullstartblock(OLD[k]!.startblock);
    if (gone) error = deleteInTree(ap, cur, OLD[k]!);
  }
  for (; j < nNew && error === 0; j = real(NEW, j + 1, nNew)) {
    error = insertInTree(ap, cur, NEW[j]!);
  }
  return error;
}

/** One extent with blocks becomes two or three. */
function divideInTree(
  ap: XfsBmalloca,
  cur: XfsBtreeCur<BmbtIrec>,
  nNew: number,
  order: number,
): number {
  const before = order === BEFORE;
  const first = NEW[before ? nNew - 1 : 0]!;
  const second = NEW[before ? 0 : 1]!;
  let error = updateInTree(ap, cur, OLD[0]!, first);
  if (error === 0 && !before) error = Math.min(xfsBtreeIncrement(cur), 0);
  if (error === 0) error = insertHere(cur, second);
  if (error === 0 && nNew === 3) error = insertInTree(ap, cur, NEW[1]!);
  if (error === -ENOSPC && !before) {
    // Cutting an extent in two where nothing is reserved: it stays one.
    const undone = updateInTree(ap, cur, first, OLD[0]!);
    return undone < 0 ? undone : error;
  }
  return error;
}

/** Finds an extent in the tree; it is there. */
function findInTree(
  ap: XfsBmalloca,
  cur: XfsBtreeCur<BmbtIrec>,
  rec: BmbtIrec,
): number {
  cur.rec.copy(rec);
  const found = xfsBtreeLookup(cur, XFS_LOOKUP_EQ);
  if (found !== 0) return found < 0 ? found : 0;
  return xfsForkCorrupt(
    ap.ip,
    ap.whichfork,
    `no extent at ${rec.startoff} in the tree`,
  );
}

function updateInTree(
  ap: XfsBmalloca,
  cur: XfsBtreeCur<BmbtIrec>,
  from: BmbtIrec,
  to: BmbtIrec,
): number {
  const error = findInTree(ap, cur, from);
  if (error < 0) return error;
  cur.rec.copy(to);
  return xfsBtreeUpdate(cur);
}

function deleteInTree(
  ap: XfsBmalloca,
  cur: XfsBtreeCur<BmbtIrec>,
  rec: BmbtIrec,
): number {
  const error = findInTree(ap, cur, rec);
  if (error < 0) return error;
  const done = xfsBtreeDelete(cur);
  if (done === 1) return 0;
  return done < 0
    ? done
    : xfsForkCorrupt(ap.ip, ap.whichfork, "no extent to delete");
}

function insertInTree(
  ap: XfsBmalloca,
  cur: XfsBtreeCur<BmbtIrec>,
  rec: BmbtIrec,
): number {
  cur.rec.copy(rec);
  const found = xfsBtreeLookup(cur, XFS_LOOKUP_EQ);
  if (found < 0) return found;
  if (found === 1) {
    return xfsForkCorrupt(
      ap.ip,
      ap.whichfork,
      `extent at ${rec.startoff} in the tree`,
    );
  }
  return insertHere(cur, rec);
}

/** Inserts an extent before the one that the cursor stands at. */
function insertHere(cur: XfsBtreeCur<BmbtIrec>, rec: BmbtIrec): number {
  cur.rec.copy(rec);
  const done = xfsBtreeInsert(cur);
  if (done === 1) return 0;
  return done < 0 ? done : -ENOSPC;
}

// ---- extents in the inode, or in a tree ----

/** Gives the fork the form that its number of extents needs. */
export function fixFormat(ap: XfsBmalloca): number {
  const { fork, ip, whichfork } = ap;
  if (whichfork === F.XFS_COW_FORK) return 0;
  const fits = fork.nextents <= xfsIforkMaxext(ip, whichfork);
  if (fork.format === F.XFS_DINODE_FMT_EXTENTS) {
    return fits ? 0 : extentsToBtree(ap);
  }
  return fits ? btreeToExtents(ap) : 0;
}

/** Moves the extents to a block of their own, with a root above it (kernel:
 * `xfs_bmap_extents_to_btree`). */
function extentsToBtree(ap: XfsBmalloca): number {
  const { fork, ip, whichfork } = ap;
  const tp = ap.tp!;
  const { sb } = ip.mount;
  const near = sb.inoToFsb(ip.ino);
  const fsbno = xfsBmbtAllocBlock(tp, ip, whichfork, near, ap.wasdel, 0);
  if (fsbno <= 0) return fsbno === 0 ? -ENOSPC : fsbno;
  const { bufOps } = xfsBmbtOps;
  const bp = tp.getBuf(sb.fsbToDaddr(fsbno), sb.bbPerBlock, bufOps);
  const broot = xfsBrootAlloc(
    xfsBmdrMaxrecs(xfsInodeForkSize(ip, whichfork)),
    1,
  );
  fork.broot = broot;
  fork.format = F.XFS_DINODE_FMT_BTREE;
  openTree(ap);
  ap.cur!.allocated++;
  xfsBtreeInitBlock(ap.cur!, bp, 0);
  fillLeaf(tp, fork, bp);
  fork.first(scan, part);
  while (isnullstartblock(part.startblock)) fork.next(scan, part);
  broot.view.setUint16(F.BB_NUMRECS, 1);
  putU64(broot.view, F.XFS_BTREE_LBLOCK_CRC_LEN, part.startoff);
  putU64(broot.view, xfsBrootPtrAt(broot), fsbno);
  ap.logflags |= XFS_ILOG_CORE | logBroot(ap);
  return 0;
}

/** Writes the extents that have blocks into a leaf. */
function fillLeaf(tp: XfsTrans, fork: Ifork, bp: XfsBuf): void {
  let at = F.XFS_BTREE_LBLOCK_CRC_LEN;
  for (let more = fork.first(scan, part); more; more = fork.next(scan, part)) {
    if (isnullstartblock(part.startblock)) continue;
    xfsBmbtDiskSetAll(bp.view, at, part);
    at += BMBT_REC_LEN;
  }
  bp.view.setUint16(F.BB_NUMRECS, fork.nextents);
  tp.logBuf(bp, 0, at - 1);
}

/** Moves the extents back into the inode; their block is freed (kernel:
 * `xfs_bmap_btree_to_extents`). */
function btreeToExtents(ap: XfsBmalloca): number {
  const { fork, ip, whichfork } = ap;
  const tp = ap.tp!;
  const { mount } = ip;
  const broot = fork.broot!;
  const level = broot.view.getUint16(F.BB_LEVEL);
  const nrecs = broot.view.getUint16(F.BB_NUMRECS);
  if (level !== 1 || nrecs !== 1) {
    const why = `${fork.nextents} extents in ${nrecs} blocks of level ${level}`;
    return xfsForkCorrupt(ip, whichfork, why);
  }
  const { sb } = mount;
  const fsbno = getU64(broot.view, xfsBrootPtrAt(broot));
  if (!sb.verifyFsbno(fsbno)) {
    return xfsForkCorrupt(ip, whichfork, `leaf ${fsbno}`);
  }
  const daddr = sb.fsbToDaddr(fsbno);
  const bp = tp.readBuf(daddr, sb.bbPerBlock, xfsBmbtOps.bufOps);
  if (typeof bp === "number") return bp;
  if (
    bp.view.getUint16(F.BB_LEVEL) !== 0 ||
    getU64(bp.view, F.LBB_OWNER) !== ip.ino
  ) return xfsForkCorrupt(ip, whichfork, `leaf ${fsbno} is none, or another's`);
  const error = xfsBmbtFreeBlock(tp, ip, whichfork, fsbno);
  if (error < 0) return error;
  tp.binval(bp);
  if (ap.cur !== null) xfsBtreeDelCursor(ap.cur);
  ap.cur = null;
  fork.broot = null;
  fork.format = F.XFS_DINODE_FMT_EXTENTS;
  ap.logflags |= XFS_ILOG_CORE | logExt(ap);
  return 0;
}

/**
 * Moves extents that do not fit into the inode any more, as the fork has become smaller,
 * to a tree (kernel: `xfs_bmap_add_attrfork_extents`).
 *
 * @returns 0; -ENOSPC; -EFSCORRUPTED or an errno of the device.
 */
export function xfsBmapExtentsToFit(
  tp: XfsTrans,
  ip: XfsInode,
  whichfork: number,
): number {
  const ap = begin(tp, ip, whichfork);
  const error = settle(ap);
  finish(ap);
  return error;
}

// ---- adding extents ----

/** What {@linkcode plan} has worked out. */
let nOld = 0;
let nNew = 0;
/** Index of the new extent. */
let on = 0;

/** The part of an extent before `end`, or from `from` on. Promised space has its
 * reservation worked out later. */
export function cutPart(
  out: BmbtIrec,
  rec: BmbtIrec,
  from: number,
  end: number,
): void {
  const block = isnullstartblock(rec.startblock)
    ? nullstartblock(0)
    : rec.startblock + from - rec.startoff;
  out.set(from, block, end - from, rec.unwritten);
}

/**
 * Works out what a new extent replaces: itself and the neighbours that it continues
 * become one. The place is set to the first of those replaced.
 *
 * @param rec New extent; it has blocks.
 * @param over Extent at the place that it covers all or part of; null for a hole.
 */
function plan(ap: XfsBmalloca, rec: BmbtIrec, over: BmbtIrec | null): void {
  const { fork, icur } = ap;
  const hasRight = over === null
    ? fork.get(icur, right)
    : fork.peekNext(icur, right);
  const joinsLeft = fork.peekPrev(icur, left) && adjoins(left, rec);
  const most = F.XFS_MAX_BMBT_EXTLEN - (joinsLeft ? left.count : 0);
  const joinsRight = hasRight && adjoins(rec, right) &&
    rec.count + right.count <= most;
  whole.copy(rec);
  nOld = nNew = 0;
  if (joinsLeft) {
    whole.set(
      left.startoff,
      left.startblock,
      left.count + rec.count,
      rec.unwritten,
    );
    OLD[nOld++]!.copy(left);
    fork.prev(icur, part);
  }
  if (over !== null) {
    OLD[nOld++]!.copy(over);
    if (over.startoff < rec.startoff) {
      cutPart(NEW[nNew++]!, over, over.startoff, rec.startoff);
    }
  }
  if (joinsRight) {
    whole.count += right.count;
    OLD[nOld++]!.copy(right);
  }
  on = nNew;
  NEW[nNew++]!.copy(whole);
  if (over !== null && rec.endoff < over.endoff) {
    cutPart(NEW[nNew++]!, over, rec.endoff, over.endoff);
  }
}

/** Puts an extent into a hole (kernel: `xfs_bmap_add_extent_hole_real`). */
export function addExtentHoleReal(ap: XfsBmalloca, rec: BmbtIrec): number {
  plan(ap, rec, null);
  const error = replace(ap, nOld, nNew, on);
  if (error < 0) return error;
  if ((ap.flags & XFS_BMAPI_NORMAP) === 0) {
    xfsRmapMapExtent(ap.tp!, ap.ip, ap.whichfork, rec);
  }
  return settle(ap);
}

/** Puts the extents into a tree if they are too many now; what was allocated for it has
 * been reserved (kernel: the ends of `xfs_bmap_add_extent_*`). */
export function settle(ap: XfsBmalloca): number {
  const error = needsBtree(ap) ? extentsToBtree(ap) : 0;
  if (ap.cur !== null && error === 0) ap.cur.allocated = 0;
  return error;
}

/** Kernel: `xfs_bmap_needs_btree`. */
function needsBtree(ap: XfsBmalloca): boolean {
  const { fork, whichfork } = ap;
  return whichfork !== F.XFS_COW_FORK &&
    fork.format === F.XFS_DINODE_FMT_EXTENTS &&
    fork.nextents > xfsIforkMaxext(ap.ip, whichfork);
}

/**
 * Turns promised space at the place, or part of it, into an extent with blocks (kernel:
 * `xfs_bmap_add_extent_delay_real`). What was promised for the tree and is needed no
 * more is given back.
 */
export function addExtentDelayReal(ap: XfsBmalloca, rec: BmbtIrec): number {
  const { fork, ip } = ap;
  fork.get(ap.icur, span);
  const promised = startblockval(span.startblock);
  const head = rec.startoff - span.startoff;
  const tail = span.endoff - rec.endoff;
  plan(ap, rec, span);
  let error = replace(ap, nOld, nNew, on);
  if (error < 0) return error;
  if ((ap.flags & XFS_BMAPI_NORMAP) === 0) {
    xfsRmapMapExtent(ap.tp!, ip, ap.whichfork, rec);
  }
  if (needsBtree(ap)) error = extentsToBtree(ap);
  if (error < 0) return error;
  const used = ap.cur?.allocated ?? 0;
  let headLen = head > 0 ? xfsBmapWorstIndlen(ip, head) : 0;
  let tailLen = tail > 0 ? xfsBmapWorstIndlen(ip, tail) : 0;
  if (head === 0 || tail === 0) {
    const rest = Math.max(0, promised - used);
    headLen = Math.min(headLen, rest);
    tailLen = Math.min(tailLen, rest);
  }
  if (head > 0) setIndlen(ap, -1, headLen);
  if (tail > 0) setIndlen(ap, 1, tailLen);
  if (ap.cur !== null) ap.cur.allocated = 0;
  return changePromise(ip.mount, promised, headLen + tailLen + used);
}

/** Sets the reservation of promised space beside the place.
 * @param side -1 before it, 1 behind it. */
function setIndlen(ap: XfsBmalloca, side: number, indlen: number): void {
  const { fork, icur } = ap;
  if (side < 0) fork.prev(icur, part);
  else fork.next(icur, part);
  part.startblock = nullstartblock(indlen);
  fork.update(icur, part);
  if (side < 0) fork.next(icur, part);
  else fork.prev(icur, part);
}

/** Blocks promised to trees become more or fewer. */
export function changePromise(mp: XfsMount, from: number, to: number): number {
  if (to > from) return mp.decFdblocks(to - from, true);
  if (to < from) mp.addFdblocks(from - to);
  return 0;
}

/** Makes the extent at the place, or part of it, written or unwritten. */
export function convertExtent(ap: XfsBmalloca, rec: BmbtIrec): number {
  ap.fork.get(ap.icur, span);
  ap.wasdel = false;
  if (ap.cur !== null) ap.cur.flags &= ~XFS_BTREE_BMBT_WASDEL;
  plan(ap, rec, span);
  const rest = nNew > nOld && on < nNew - 1;
  const error = replace(ap, nOld, nNew, on, rest ? BEFORE : BY_KEY);
  if (error < 0) return error;
  if (ap.tp !== null) {
    xfsRmapConvertExtent(ap.tp, ap.ip, ap.whichfork, rec);
  }
  return settle(ap);
}

/**
 * Makes an extent, or part of it, written or unwritten (kernel:
 * `xfs_bmap_add_extent_unwritten_real`).
 *
 * @param tp Null for the copy-on-write fork.
 * @param cur Place of the extent; afterwards of what it has become part of.
 * @param rec The part, with its new state.
 * @returns 0; -EFSCORRUPTED or an errno of the device.
 */
export function xfsBmapAddExtentUnwrittenReal(
  tp: XfsTrans | null,
  ip: XfsInode,
  whichfork: number,
  cur: IextCursor,
  rec: BmbtIrec,
): number {
  const ap = begin(tp, ip, whichfork);
  ap.icur = cur;
  const error = convertExtent(ap, rec);
  finish(ap);
  return error;
}

/** Takes part of the extent at the place out of the list, and of the tree. The place is
 * what is left behind the part, else what is left before it, else the extent before. */
export function cutOut(ap: XfsBmalloca, rec: BmbtIrec, gone: BmbtIrec): number {
  OLD[0]!.copy(rec);
  let nNew = 0;
  if (rec.startoff < gone.startoff) {
    cutPart(NEW[nNew++]!, rec, rec.startoff, gone.startoff);
  }
  if (gone.endoff < rec.endoff) {
    cutPart(NEW[nNew++]!, rec, gone.endoff, rec.endoff);
  }
  return replace(ap, 1, nNew, nNew - 1, nNew === 2 ? BEHIND : BY_KEY);
}
