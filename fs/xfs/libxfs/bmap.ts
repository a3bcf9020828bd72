/**
 * Maps from file blocks to device blocks: looking up, promising space, allocating it,
 * converting it, taking it away, moving it.
 *
 * What is to be changed is worked out here; how the extents of a fork change, in the list
 * and on disk, is `bmap-change.ts`, and where blocks are taken from `bmap-alloc.ts`.
 *
 * Nothing here waits or touches the page cache. The caller holds the inode's ILOCK:
 * shared to read a fork that is in memory, else exclusively.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_bmap.c.
 *
 * @module
 */

import { EAGAIN, EINVAL, EIO, ENOSPC } from "../../../lib/errno.ts";
import { ilockExcl, type XfsInode } from "../inode.ts";
import { XFS_AG_RESV_NONE } from "./ag-resv.ts";
import {
  XFS_ALLOC_INITIAL_USER_DATA,
  XFS_ALLOC_NOBUSY,
  XFS_ALLOC_USERDATA,
  XfsAllocArg,
  xfsAllocVextentStartAg,
  xfsFreeExtentLater,
} from "./alloc.ts";
import {
  FileRange,
  XFS_BMAPI_ATTRFORK,
  XFS_BMAPI_CONTIG,
  XFS_BMAPI_CONVERT,
  XFS_BMAPI_COWFORK,
  XFS_BMAPI_ENTIRE,
  XFS_BMAPI_METADATA,
  XFS_BMAPI_PREALLOC,
  XFS_BMAPI_REMAP,
  type XfsBmalloca,
  xfsBmapBtalloc,
  xfsBmapExtsizeAlign,
} from "./bmap-alloc.ts";
import {
  MAX_FILEOFF,
  xfsBmapValidateExtent,
  xfsBmbtInitCursor,
  xfsBmbtOps,
  xfsBmdrMaxrecs,
  xfsBmdrSpaceCalc,
} from "./bmap-btree.ts";
import {
  addExtentDelayReal,
  addExtentHoleReal,
  adjoins,
  begin,
  changePromise,
  convertExtent,
  cutOut,
  cutPart,
  finish,
  fixFormat,
  NEW,
  OLD,
  replace,
  replaceInList,
  xfsBmapWorstIndlen,
} from "./bmap-change.ts";
import {
  type XfsBtreeCur,
  xfsBtreeDelCursor,
  xfsBtreeGetRec,
  xfsBtreeGotoFirst,
  xfsBtreeIncrement,
  xfsBtreeMinrecs,
} from "./btree.ts";
import type { XfsBuf } from "./buf.ts";
import {
  type DeferOp,
  type DeferOpType,
  xfsDeferAdd,
  xfsDeferFinish,
} from "./defer.ts";
import * as F from "./format.ts";
import {
  BmbtIrec,
  DELAYSTARTBLOCK,
  HOLESTARTBLOCK,
  IextCursor,
  type Ifork,
  isnullstartblock,
  nullstartblock,
  startblockval,
} from "./iext.ts";
import {
  XFS_IEXT_ADD_NOSPLIT_CNT,
  xfsForkCorrupt,
  xfsIextCountExtend,
  xfsIextMaxNextents,
  xfsIforkHasExtents,
  xfsIforkMaxext,
  xfsIforkPtr,
} from "./inode-fork.ts";
import {
  xfsRefcountAllocCowExtent,
  xfsRefcountDecreaseExtent,
} from "./refcount.ts";
import {
  XfsOwnerInfo,
  xfsRmapInoOwner,
  xfsRmapMapExtent,
  xfsRmapUnmapExtent,
} from "./rmap.ts";
import type { XfsSb } from "./sb.ts";
import {
  XFS_ILOG_AEXT,
  XFS_ILOG_CORE,
  XFS_ILOG_DEXT,
  XFS_TRANS_RESERVE,
  type XfsTrans,
  xfsTransAlloc,
} from "./trans.ts";

export {
  XFS_BMAPI_ATTRFORK,
  XFS_BMAPI_CONTIG,
  XFS_BMAPI_CONVERT,
  XFS_BMAPI_COWFORK,
  XFS_BMAPI_ENTIRE,
  XFS_BMAPI_EXTSZALIGN,
  XFS_BMAPI_METADATA,
  XFS_BMAPI_NORMAP,
  XFS_BMAPI_PREALLOC,
  XFS_BMAPI_REMAP,
} from "./bmap-alloc.ts";
export {
  xfsBmapAddExtentUnwrittenReal,
  xfsBmapExtentsToFit,
  xfsBmapWorstIndlen,
} from "./bmap-change.ts";

/** Extents that one transaction unmaps at most (kernel: `XFS_ITRUNC_MAX_EXTENTS`). */
const XFS_ITRUNC_MAX_EXTENTS = 2;

/** Children of the smallest root of a data fork's tree (kernel: `MINDBTPTRS`). */
const MINDBTPTRS = 3;
/** The same of an attribute fork's (kernel: `MINABTPTRS`). */
const MINABTPTRS = 2;

/** Where a shift of extents has come to (kernel: the arguments `next_fsb` and `done` of
 * `xfs_bmap_collapse_extents`). */
export interface BmapShift {
  /** The next extent; -1 for the last one (kernel: `NULLFSBLOCK`). */
  nextFsb: number;
  /** Nothing is left to shift. */
  done: boolean;
}

/** Fills the block that takes over a local fork's contents, and logs it. */
export type LocalToExtentsInit = (
  tp: XfsTrans,
  bp: XfsBuf,
  ip: XfsInode,
  fork: Ifork,
) => void;

// Scratch. Nothing here is entered twice: nothing waits, and what allocation and the
// trees call does not come back.
const left = new BmbtIrec();
const right = new BmbtIrec();
const got = new BmbtIrec();
const del = new BmbtIrec();
const part = new BmbtIrec();
const map = new BmbtIrec();
const fresh = new BmbtIrec();
const icur = new IextCursor();
const scan = new IextCursor();
const range = new FileRange();

function forkOfFlags(flags: number): number {
  if ((flags & XFS_BMAPI_COWFORK) !== 0) return F.XFS_COW_FORK;
  return (flags & XFS_BMAPI_ATTRFORK) !== 0 ? F.XFS_ATTR_FORK : F.XFS_DATA_FORK;
}

/** Whether a fork is there and consists of extents; they are in memory then.
 * @returns 0; -EFSCORRUPTED; -EIO if the file system is shut down. */
function mustHaveExtents(ip: XfsInode, whichfork: number): number {
  const fork = xfsIforkPtr(ip, whichfork);
  if (fork === null) return xfsForkCorrupt(ip, whichfork, "there is none");
  if (!xfsIforkHasExtents(fork)) {
    return xfsForkCorrupt(ip, whichfork, `format ${fork.format}`);
  }
  if (ip.mount.dead) return -EIO;
  return xfsIreadExtents(null, ip, whichfork);
}

// ---- geometry ----

/** Most levels that the tree of a fork can have (kernel:
 * `xfs_bmap_compute_maxlevels`). */
export function xfsBmapComputeMaxlevels(
  sb: XfsSb,
  whichfork: number,
): number {
  const children = whichfork === F.XFS_ATTR_FORK ? MINABTPTRS : MINDBTPTRS;
  const rootRecs = xfsBmdrMaxrecs(xfsBmdrSpaceCalc(children));
  const least = xfsBtreeMinrecs(sb, xfsBmbtOps, true);
  const most = xfsIextMaxNextents(sb.hasNrext64, whichfork);
  let blocks = Math.ceil(most / least);
  let level = 1;
  for (; blocks > 1; level++) {
    blocks = blocks <= rootRecs ? 1 : Math.ceil(blocks / least);
  }
  return level;
}

/** Blocks that must be left in a group for the fork's tree (kernel:
 * `xfs_bmapi_minleft`). */
export function xfsBmapiMinleft(
  tp: XfsTrans | null,
  ip: XfsInode,
  whichfork: number,
): number {
  // What was allocated first has seen to it.
  if (tp !== null && tp.highestAgno >= 0) return 0;
  const fork = xfsIforkPtr(ip, whichfork)!;
  if (fork.format !== F.XFS_DINODE_FMT_BTREE) return 1;
  return fork.broot!.view.getUint16(F.BB_LEVEL) + 1;
}

/** Cuts an extent to [bno, bno + len); `count` is 0 if nothing is left of it (kernel:
 * `xfs_trim_extent`). Promised space that loses its beginning is
 * {@linkcode DELAYSTARTBLOCK} then. */
export function xfsTrimExtent(rec: BmbtIrec, bno: number, len: number): void {
  const end = bno + len;
  if (rec.endoff <= bno || rec.startoff >= end) {
    rec.count = 0;
    return;
  }
  if (rec.startoff < bno) {
    const cut = bno - rec.startoff;
    if (rec.startblock >= 0) rec.startblock += cut;
    else if (rec.startblock !== HOLESTARTBLOCK) {
      rec.startblock = DELAYSTARTBLOCK;
    }
    rec.startoff += cut;
    rec.count -= cut;
  }
  if (rec.endoff > end) rec.count = end - rec.startoff;
}

// ---- reading the tree in ----

/**
 * Reads the extents of a fork into memory, if they are not there (kernel:
 * `xfs_iread_extents`).
 *
 * @param tp Transaction that goes on, if any.
 * @returns 0; -EFSCORRUPTED; an errno of the device.
 */
export function xfsIreadExtents(
  tp: XfsTrans | null,
  ip: XfsInode,
  whichfork: number,
): number {
  const fork = xfsIforkPtr(ip, whichfork)!;
  if (fork.loaded) return 0;
  const cur = xfsBmbtInitCursor(ip.mount, tp, ip, whichfork);
  const error = readAll(cur, ip, whichfork, fork);
  xfsBtreeDelCursor(cur);
  if (error < 0) fork.clear();
  else fork.loaded = true;
  return error;
}

function readAll(
  cur: XfsBtreeCur<BmbtIrec>,
  ip: XfsInode,
  whichfork: number,
  fork: Ifork,
): number {
  let end = 0;
  fork.clear(icur);
  let more = xfsBtreeGotoFirst(cur);
  while (more === 1) {
    xfsBtreeGetRec(cur, got);
    const why = got.startoff < end
      ? `extent at file block ${got.startoff}, not from ${end} on`
      : xfsBmapValidateExtent(ip.mount, whichfork, got);
    if (why !== null) return xfsForkCorrupt(ip, whichfork, why);
    if (fork.count === fork.nextents) break;
    end = got.endoff;
    fork.insert(icur, got);
    icur.at++;
    more = xfsBtreeIncrement(cur, 0);
  }
  if (more < 0) return more;
  if (more === 0 && fork.count === fork.nextents) return 0;
  return xfsForkCorrupt(
    ip,
    whichfork,
    `not ${fork.nextents} extents in the tree`,
  );
}

// ---- what is where ----

/**
 * The last extent of a fork (kernel: `xfs_bmap_last_extent`).
 *
 * @param rec Filled in if there is one.
 * @returns 1; 0 if the fork is empty; -EFSCORRUPTED or an errno of the device.
 */
function xfsBmapLastExtent(
  tp: XfsTrans | null,
  ip: XfsInode,
  whichfork: number,
  rec: BmbtIrec,
): number {
  const error = xfsIreadExtents(tp, ip, whichfork);
  if (error < 0) return error;
  return xfsIforkPtr(ip, whichfork)!.last(scan, rec) ? 1 : 0;
}

/**
 * The first file block behind all extents of a fork; 0 of a local one (kernel:
 * `xfs_bmap_last_offset`).
 *
 * @returns It; -EFSCORRUPTED or an errno of the device.
 */
export function xfsBmapLastOffset(ip: XfsInode, whichfork: number): number {
  const fork = xfsIforkPtr(ip, whichfork);
  if (fork === null || fork.format === F.XFS_DINODE_FMT_LOCAL) return 0;
  const error = mustHaveExtents(ip, whichfork);
  if (error < 0) return error;
  return fork.last(scan, got) ? got.endoff : 0;
}

/**
 * The first file block behind the last extent that begins before `last`; 0 if there is
 * none, or the fork is local (kernel: `xfs_bmap_last_before`).
 *
 * @returns It, at most `last`; -EFSCORRUPTED or an errno of the device.
 */
export function xfsBmapLastBefore(
  tp: XfsTrans | null,
  ip: XfsInode,
  last: number,
  whichfork: number,
): number {
  const fork = xfsIforkPtr(ip, whichfork)!;
  if (fork.format === F.XFS_DINODE_FMT_LOCAL) return 0;
  if (!xfsIforkHasExtents(fork)) {
    return xfsForkCorrupt(ip, whichfork, `format ${fork.format}`);
  }
  const error = xfsIreadExtents(tp, ip, whichfork);
  if (error < 0) return error;
  if (!fork.lookupBefore(last, icur, got)) return 0;
  return Math.min(last, got.endoff);
}

/**
 * The first hole of so many file blocks (kernel: `xfs_bmap_first_unused`).
 *
 * @param len Blocks.
 * @param from File block at or after which it has to be.
 * @returns Its first file block; 0 of a local fork; -EFSCORRUPTED or an errno of the
 *   device.
 */
export function xfsBmapFirstUnused(
  tp: XfsTrans | null,
  ip: XfsInode,
  len: number,
  from: number,
  whichfork: number,
): number {
  const fork = xfsIforkPtr(ip, whichfork)!;
  if (fork.format === F.XFS_DINODE_FMT_LOCAL) return 0;
  const error = xfsIreadExtents(tp, ip, whichfork);
  if (error < 0) return error;
  let at = from;
  let more = fork.lookup(from, icur, got);
  while (more && got.startoff < at + len) {
    at = Math.max(at, got.endoff);
    more = fork.next(icur, got);
  }
  return at;
}

/**
 * Whether an allocation is behind all that is mapped, or in promised space that is the
 * last of it (kernel: `xfs_bmap_isaeof`). The fork is in memory.
 */
function isAeof(ap: XfsBmalloca): boolean {
  if (!ap.fork.last(scan, got)) return true;
  if (ap.offset >= got.endoff) return true;
  return ap.offset >= got.startoff && isnullstartblock(got.startblock);
}

// ---- reporting ----

/** The part of an extent that is reported (kernel: `xfs_bmapi_trim_map`). */
function trimMap(
  out: BmbtIrec,
  rec: BmbtIrec,
  bno: number,
  end: number,
  flags: number,
): void {
  out.copy(rec);
  if (isnullstartblock(rec.startblock)) out.startblock = DELAYSTARTBLOCK;
  if ((flags & XFS_BMAPI_ENTIRE) === 0) xfsTrimExtent(out, bno, end - bno);
}

/** Adds a mapping to those that are reported, joining it with the last one; how many
 * there are now (kernel: `xfs_bmapi_update_map`). */
function updateMap(mval: BmbtIrec[], n: number, rec: BmbtIrec): number {
  if (n > 0) {
    const last = mval[n - 1]!;
    const bothDelayed = last.startblock === DELAYSTARTBLOCK &&
      rec.startblock === DELAYSTARTBLOCK && last.endoff === rec.startoff;
    const follows = last.startblock >= 0 && rec.startblock >= 0 &&
      last.startblock + last.count === rec.startblock &&
      last.endoff === rec.startoff && last.unwritten === rec.unwritten;
    if (bothDelayed || follows) {
      last.count += rec.count;
      return n;
    }
  }
  mval[n]!.copy(rec);
  return n + 1;
}

/**
 * Looks up what file blocks are mapped to; holes are reported as such (kernel:
 * `xfs_bmapi_read`).
 *
 * @param bno First file block.
 * @param len Blocks, above 0.
 * @param mval Filled in; at least `nmap` of them.
 * @param nmap Mappings to report at most.
 * @param flags ATTRFORK, ENTIRE.
 * @returns How many mappings there are; -EFSCORRUPTED; -EIO if the file system is shut
 *   down, or an errno of the device.
 */
export function xfsBmapiRead(
  ip: XfsInode,
  bno: number,
  len: number,
  mval: BmbtIrec[],
  nmap: number,
  flags = 0,
): number {
  const whichfork = forkOfFlags(flags);
  const error = mustHaveExtents(ip, whichfork);
  if (error < 0) return error;
  const fork = xfsIforkPtr(ip, whichfork)!;
  const end = bno + len;
  let at = bno;
  let n = 0;
  let more = fork.lookup(at, icur, got);
  while (at < end && n < nmap) {
    if (!more || got.startoff > at) {
      const stop = more ? Math.min(got.startoff, end) : end;
      mval[n++]!.set(at, HOLESTARTBLOCK, stop - at, false);
      at = stop;
      continue;
    }
    trimMap(map, got, at, end, flags);
    n = updateMap(mval, n, map);
    at = map.endoff;
    if (at < end && n < nmap) more = fork.next(icur, got);
  }
  return n;
}

// ---- promising space ----

/** Puts promised space into a hole (kernel: `xfs_bmap_add_extent_hole_delay`). */
function addExtentHoleDelay(
  ip: XfsInode,
  fork: Ifork,
  icur: IextCursor,
  rec: BmbtIrec,
): void {
  const hasRight = fork.get(icur, right);
  const hasLeft = fork.peekPrev(icur, left);
  const joinsLeft = hasLeft && bothDelayed(left, rec);
  const most = F.XFS_MAX_BMBT_EXTLEN - (joinsLeft ? left.count : 0);
  const joinsRight = hasRight && bothDelayed(rec, right) &&
    rec.count + right.count <= most;
  let promised = startblockval(rec.startblock);
  NEW[0]!.copy(rec);
  let nOld = 0;
  if (joinsLeft) {
    promised += startblockval(left.startblock);
    NEW[0]!.startoff = left.startoff;
    NEW[0]!.count += left.count;
    fork.prev(icur, part);
    nOld++;
  }
  if (joinsRight) {
    promised += startblockval(right.startblock);
    NEW[0]!.count += right.count;
    nOld++;
  }
  if (nOld > 0) {
    const worst = xfsBmapWorstIndlen(ip, NEW[0]!.count);
    const indlen = Math.min(worst, promised);
    NEW[0]!.startblock = nullstartblock(indlen);
    changePromise(ip.mount, promised, indlen);
  }
  replaceInList(fork, icur, nOld, 1, 0);
}

function bothDelayed(a: BmbtIrec, b: BmbtIrec): boolean {
  return isnullstartblock(a.startblock) && isnullstartblock(b.startblock) &&
    a.endoff === b.startoff && a.count + b.count <= F.XFS_MAX_BMBT_EXTLEN;
}

/**
 * Promises space for a hole, and for what the tree may need for it (kernel:
 * `xfs_bmapi_reserve_delalloc`).
 *
 * @param off First file block.
 * @param len Blocks to be written.
 * @param prealloc Blocks more, if they are free of other extents.
 * @param rec In: the next extent, unless `eof`. Out: what was promised, without the
 *   promised neighbours that it joins in the list.
 * @param cur Place of the next extent; afterwards of the promised one.
 * @param eof Nothing is mapped from `off` on.
 * @returns 0, or -ENOSPC: then nothing was promised.
 */
export function xfsBmapiReserveDelalloc(
  ip: XfsInode,
  whichfork: number,
  off: number,
  len: number,
  prealloc: number,
  rec: BmbtIrec,
  cur: IextCursor,
  eof: boolean,
): number {
  const isCow = whichfork === F.XFS_COW_FORK;
  const widen = isCow && prealloc === 0;
  let error = reserve(ip, whichfork, off, len + prealloc, rec, cur, eof, widen);
  if (error === -ENOSPC && (prealloc > 0 || widen)) {
    error = reserve(ip, whichfork, off, len, rec, cur, eof, false);
  }
  if (error < 0) return error;
  // Whoever is short of space looks here for what was promised beyond need.
  if (isCow || rec.endoff > off + len) {
    if (rec.startoff < off || rec.endoff > off + len) ip.mount.blockgc.add(ip);
  }
  return 0;
}

/** @param widen To the hint of the copy-on-write fork. */
function reserve(
  ip: XfsInode,
  whichfork: number,
  off: number,
  want: number,
  rec: BmbtIrec,
  cur: IextCursor,
  eof: boolean,
  widen: boolean,
): number {
  const { mount } = ip;
  const fork = xfsIforkPtr(ip, whichfork)!;
  range.off = off;
  range.len = Math.min(want, F.XFS_MAX_BMBT_EXTLEN);
  if (!eof) range.len = Math.min(range.len, rec.startoff - off);
  if (widen) {
    const prev = fork.peekPrev(cur, left) ? left : null;
    xfsBmapExtsizeAlign(rec, prev, ip.cowextszHint, eof, true, range);
  }
  const indlen = xfsBmapWorstIndlen(ip, range.len);
  const error = mount.decFdblocks(range.len + indlen, false);
  if (error < 0) return error;
  ip.delayedBlks += range.len;
  rec.set(range.off, nullstartblock(indlen), range.len, false);
  addExtentHoleDelay(ip, fork, cur, rec);
  return 0;
}

// ---- allocating ----

/** Allocates blocks for what `ap` asks for and puts them into the fork (kernel:
 * `xfs_bmapi_allocate`). `ap.got` is what they are in then.
 * @returns 0; -ENOSPC; -EFSCORRUPTED or an errno of the device. */
function allocate(ap: XfsBmalloca): number {
  const { flags, fork, ip } = ap;
  const { unit } = ip.mount.sb;
  ap.minlen = (flags & XFS_BMAPI_CONTIG) !== 0 ? ap.length : 1;
  ap.datatype = 0;
  ap.aeof = false;
  if ((flags & XFS_BMAPI_METADATA) === 0) {
    ap.datatype = XFS_ALLOC_NOBUSY;
    if (ap.whichfork !== F.XFS_ATTR_FORK) {
      ap.datatype |= XFS_ALLOC_USERDATA;
      if (ap.offset === 0) ap.datatype |= XFS_ALLOC_INITIAL_USER_DATA;
      if (unit > 0 && ap.length >= unit) ap.aeof = isAeof(ap);
    }
  }
  let error = xfsBmapBtalloc(ap);
  if (error < 0) return error;
  if (ap.blkno === F.NULLFSBLOCK) return -ENOSPC;
  ap.nallocs++;
  const unwritten = (flags & XFS_BMAPI_PREALLOC) !== 0;
  fresh.set(ap.offset, ap.blkno, ap.length, unwritten);
  error = ap.wasdel
    ? addExtentDelayReal(ap, fresh)
    : addExtentHoleReal(ap, fresh);
  if (error < 0) return error;
  fork.get(ap.icur, ap.got);
  if (ap.whichfork === F.XFS_COW_FORK) {
    // On the device nobody else knows of them: a crash must not lose them.
    xfsRefcountAllocCowExtent(ap.tp!, ap.blkno, ap.length);
  }
  return 0;
}

/** Gives a mapping the state that was asked for (kernel:
 * `xfs_bmapi_convert_unwritten`).
 * @param len Blocks of the request that are left.
 * @returns 0; -EAGAIN if it may have become part of a longer one; a negative errno. */
function convertUnwritten(ap: XfsBmalloca, rec: BmbtIrec, len: number): number {
  const both = XFS_BMAPI_PREALLOC | XFS_BMAPI_CONVERT;
  if (rec.unwritten && (ap.flags & XFS_BMAPI_PREALLOC) !== 0) return 0;
  if (!rec.unwritten && (ap.flags & both) !== both) return 0;
  rec.unwritten = !rec.unwritten;
  const error = convertExtent(ap, rec);
  // Even where only the tree has changed: a sync has to find the inode in the log.
  if (ap.whichfork !== F.XFS_COW_FORK) ap.logflags |= XFS_ILOG_CORE;
  if (error < 0) return error;
  ap.fork.get(ap.icur, ap.got);
  return rec.count < len ? -EAGAIN : 0;
}

/**
 * Sees to it that file blocks are mapped: holes and promised space get blocks, and
 * extents the state that was asked for (kernel: `xfs_bmapi_write`). Unwritten extents
 * become written unless PREALLOC is given.
 *
 * @param tp Has blocks reserved, but for what was promised.
 * @param bno First file block.
 * @param len Blocks, above 0.
 * @param flags METADATA, ATTRFORK, PREALLOC, CONTIG, CONVERT, COWFORK, NORMAP,
 *   EXTSZALIGN.
 * @param total Blocks that the transaction needs in all, where they had best be in one
 *   group; 0 if that does not matter.
 * @param mval Filled in; at least `nmap` of them.
 * @param nmap Mappings to make at most.
 * @returns How many there are: they may not reach to the end of the request; -ENOSPC if
 *   nothing could be allocated; -EFSCORRUPTED; -EIO if the file system is shut down, or
 *   an errno of the device.
 */
export function xfsBmapiWrite(
  tp: XfsTrans,
  ip: XfsInode,
  bno: number,
  len: number,
  flags: number,
  total: number,
  mval: BmbtIrec[],
  nmap: number,
): number {
  const whichfork = forkOfFlags(flags);
  const wrong = mustHaveExtents(ip, whichfork);
  if (wrong < 0) return wrong;
  const ap = begin(tp, ip, whichfork);
  ap.flags = flags;
  ap.total = total;
  ap.conv = (flags & XFS_BMAPI_CONVERT) !== 0;
  ap.minleft = xfsBmapiMinleft(tp, ip, whichfork);
  const n = writeMappings(ap, bno, bno + len, mval, nmap);
  const error = n < 0 ? n : fixFormat(ap);
  finish(ap);
  return error < 0 ? error : n;
}

function writeMappings(
  ap: XfsBmalloca,
  bno: number,
  end: number,
  mval: BmbtIrec[],
  nmap: number,
): number {
  const { fork, icur } = ap;
  let eof = !fork.lookup(bno, icur, ap.got);
  ap.hasPrev = fork.peekPrev(icur, ap.prev);
  let at = bno;
  let n = 0;
  for (;;) {
    const hole = eof || ap.got.startoff > at;
    if (hole || isnullstartblock(ap.got.startblock)) {
      ap.eof = eof;
      ap.wasdel = !hole;
      ap.offset = at;
      ap.length = Math.min(end - at, F.XFS_MAX_BMBT_EXTLEN);
      const stop = hole ? ap.got.startoff : ap.got.endoff;
      if (!eof) ap.length = Math.min(ap.length, stop - at);
      const error = allocate(ap);
      if (error === -ENOSPC && ap.nallocs > 0) return n;
      if (error < 0) return error;
    }
    trimMap(map, ap.got, at, end, ap.flags);
    const error = convertUnwritten(ap, map, end - at);
    if (error === -EAGAIN) continue;
    if (error < 0) return error;
    n = updateMap(mval, n, map);
    at = map.endoff;
    if (at >= end || n >= nmap || ap.nallocs >= nmap) return n;
    ap.prev.copy(ap.got);
    ap.hasPrev = true;
    if (!fork.next(icur, ap.got)) eof = true;
  }
}

/**
 * Turns promised space into allocated, unwritten blocks: the whole promised extent
 * around a block, or its first part where free space is in pieces (kernel:
 * `xfs_bmapi_convert_delalloc`).
 *
 * @param off Block in the file.
 * @param out The extent that the blocks are in now; what covers `off` if that was not
 *   promised space.
 * @returns 0; -EAGAIN if nothing is mapped at `off`; -EFBIG if the fork has too many
 *   extents; -ENOSPC, which promised space excludes; -EFSCORRUPTED; -EIO if the file
 *   system is shut down, or an errno of the device.
 */
export function xfsBmapiConvertDelalloc(
  ip: XfsInode,
  whichfork: number,
  off: number,
  out: BmbtIrec,
): number {
  do {
    const error = convertOneDelalloc(ip, whichfork, off, out);
    if (error < 0) return error;
  } while (out.endoff <= off);
  return 0;
}

/** Kernel: `xfs_bmapi_convert_one_delalloc`. Its blocks have been promised: the
 * transaction reserves none. */
function convertOneDelalloc(
  ip: XfsInode,
  whichfork: number,
  off: number,
  out: BmbtIrec,
): number {
  const fork = xfsIforkPtr(ip, whichfork)!;
  if (!fork.lookup(off, icur, out) || out.startoff > off) return -EAGAIN;
  if (!isnullstartblock(out.startblock)) return 0;
  const tp = xfsTransAlloc(ip.mount, 0, XFS_TRANS_RESERVE);
  if (typeof tp === "number") return tp;
  ilockExcl(ip);
  const more = XFS_IEXT_ADD_NOSPLIT_CNT;
  let error = xfsIextCountExtend(tp, ip, whichfork, more);
  if (error === 0) error = convertAt(tp, ip, whichfork, off, out);
  if (error === 0) error = tp.commit();
  else tp.cancel();
  ip.ilock.upWrite();
  return error;
}

function convertAt(
  tp: XfsTrans,
  ip: XfsInode,
  whichfork: number,
  off: number,
  out: BmbtIrec,
): number {
  const ap = begin(tp, ip, whichfork);
  ap.fork.lookup(off, ap.icur, ap.got);
  ap.hasPrev = ap.fork.peekPrev(ap.icur, ap.prev);
  ap.flags = XFS_BMAPI_PREALLOC;
  ap.wasdel = true;
  ap.minleft = xfsBmapiMinleft(tp, ip, whichfork);
  ap.offset = ap.got.startoff;
  ap.length = ap.got.count;
  let error = allocate(ap);
  if (error === 0) out.copy(ap.got);
  if (error === 0) error = fixFormat(ap);
  finish(ap);
  return error;
}

/**
 * Maps blocks that are in use into a hole (kernel: `xfs_bmapi_remap`). They have been
 * counted as promised; see {@linkcode xfsBmapMapExtent}.
 *
 * @param bno First file block.
 * @param len Blocks.
 * @param startblock First block.
 * @param flags ATTRFORK, PREALLOC, NORMAP.
 * @returns 0; -EFSCORRUPTED if it is no hole; -EIO if the file system is shut down, or an
 *   errno of the device.
 */
function xfsBmapiRemap(
  tp: XfsTrans,
  ip: XfsInode,
  bno: number,
  len: number,
  startblock: number,
  flags: number,
): number {
  const whichfork = forkOfFlags(flags);
  const wrong = mustHaveExtents(ip, whichfork);
  if (wrong < 0) return wrong;
  const ap = begin(tp, ip, whichfork);
  ap.flags = flags;
  if (ap.fork.lookup(bno, ap.icur, got) && got.startoff < bno + len) {
    return xfsForkCorrupt(
      ip,
      whichfork,
      `file block ${got.startoff} is mapped already`,
    );
  }
  ip.nblocks += len;
  ip.delayedBlks -= len;
  ap.logflags = XFS_ILOG_CORE;
  const unwritten = (flags & XFS_BMAPI_PREALLOC) !== 0;
  fresh.set(bno, startblock, len, unwritten);
  let error = addExtentHoleReal(ap, fresh);
  if (error === 0) error = fixFormat(ap);
  finish(ap);
  return error;
}

// ---- taking away ----

/**
 * Takes promised space back (kernel: `xfs_bmap_del_extent_delay`).
 *
 * @param cur Place of the extent; afterwards of what is left of it, or of the extent
 *   before.
 * @param rec The extent.
 * @param gone The part of it that goes.
 * @param flags REMAP: the blocks stay promised, only the tree's are given back.
 */
export function xfsBmapDelExtentDelay(
  ip: XfsInode,
  whichfork: number,
  cur: IextCursor,
  rec: BmbtIrec,
  gone: BmbtIrec,
  flags: number,
): void {
  const { mount } = ip;
  const head = gone.startoff - rec.startoff;
  const tail = rec.endoff - gone.endoff;
  const fork = xfsIforkPtr(ip, whichfork)!;
  let promised = startblockval(rec.startblock);
  let freed = gone.count;
  let nNew = 0;
  const worstHead = head > 0 ? xfsBmapWorstIndlen(ip, head) : 0;
  const worstTail = tail > 0 ? xfsBmapWorstIndlen(ip, tail) : 0;
  if (head > 0 && tail > 0 && worstHead + worstTail > promised) {
    // Two extents may need more than one did: it is taken from what goes.
    const stolen = Math.min(worstHead + worstTail - promised, freed);
    promised += stolen;
    freed -= stolen;
  }
  const headLen = splitIndlen(promised, worstHead, worstTail);
  const tailLen = Math.min(worstTail, promised - headLen);
  if (head > 0) {
    NEW[nNew++]!.set(rec.startoff, nullstartblock(headLen), head, false);
  }
  if (tail > 0) {
    NEW[nNew++]!.set(gone.endoff, nullstartblock(tailLen), tail, false);
  }
  replaceInList(fork, cur, 1, nNew, nNew - 1);
  ip.delayedBlks -= gone.count;
  if ((flags & XFS_BMAPI_REMAP) !== 0) freed = 0;
  mount.addFdblocks(promised - headLen - tailLen + freed);
}

/** The first extent's share of a reservation for two, each in proportion to what it may
 * need, none without any if there is enough for both (kernel:
 * `xfs_bmap_split_indlen`). */
function splitIndlen(promised: number, a: number, b: number): number {
  if (a + b <= promised) return a;
  if (b === 0) return Math.min(a, promised);
  const percent = Math.floor(promised * 100 / (a + b));
  let first = Math.floor(a * percent / 100);
  let second = Math.floor(b * percent / 100);
  let rest = promised - first - second;
  if (rest > 0 && second === 0) {
    second++;
    rest--;
  }
  for (; rest > 0; rest--) {
    if (first < a) first++;
    else second++;
    if (--rest === 0) break;
    if (second < b) second++;
    else first++;
  }
  return first;
}

/**
 * Takes blocks out of the copy-on-write fork; what becomes of them is the caller's
 * business (kernel: `xfs_bmap_del_extent_cow`).
 *
 * @param cur Place of the extent; afterwards of what is left of it, or of the extent
 *   before.
 * @param rec The extent.
 * @param gone The part of it that goes.
 */
export function xfsBmapDelExtentCow(
  ip: XfsInode,
  cur: IextCursor,
  rec: BmbtIrec,
  gone: BmbtIrec,
): void {
  const ap = begin(null, ip, F.XFS_COW_FORK);
  ap.icur = cur;
  cutOut(ap, rec, gone);
  ip.delayedBlks -= gone.count;
}

/** Takes blocks out of a fork and frees them (kernel: `xfs_bmap_del_extent_real`).
 * @returns 0; -ENOSPC if an extent would be cut in two, the tree needs a block for that
 *   and none is reserved: then nothing has changed; a negative errno. */
function delExtentReal(ap: XfsBmalloca, rec: BmbtIrec, gone: BmbtIrec): number {
  const { fork, ip, whichfork } = ap;
  const tp = ap.tp!;
  const inTwo = gone.startoff > rec.startoff && gone.endoff < rec.endoff;
  if (
    inTwo && tp.blkRes === 0 && fork.format === F.XFS_DINODE_FMT_EXTENTS &&
    fork.nextents >= xfsIforkMaxext(ip, whichfork)
  ) return -ENOSPC;
  const error = cutOut(ap, rec, gone);
  if (error < 0) return error;
  ap.logflags |= XFS_ILOG_CORE;
  xfsRmapUnmapExtent(tp, ip, whichfork, gone);
  ip.nblocks -= gone.count;
  if ((ap.flags & XFS_BMAPI_REMAP) !== 0) return 0;
  if (ip.isReflink && whichfork === F.XFS_DATA_FORK) {
    xfsRefcountDecreaseExtent(tp, gone);
    return 0;
  }
  const { startblock, count } = gone;
  return xfsFreeExtentLater(tp, startblock, count, null, XFS_AG_RESV_NONE);
}

/**
 * Takes the mapping of file blocks away, from the end of the range on downwards, and
 * frees the blocks (kernel: `__xfs_bunmapi`).
 *
 * @param start First file block.
 * @param len Blocks; Infinity for all behind it.
 * @param flags ATTRFORK; REMAP: the blocks stay in use.
 * @param nexts Extents to take away at most; 0 for all.
 * @returns Blocks from `start` on that are left to do; -ENOSPC if the tree needs a block
 *   and none is reserved; -EFSCORRUPTED; -EIO if the file system is shut down, or an
 *   errno of the device.
 */
function xfsBunmapiRemaining(
  tp: XfsTrans,
  ip: XfsInode,
  start: number,
  len: number,
  flags: number,
  nexts: number,
): number {
  const whichfork = forkOfFlags(flags);
  const wrong = mustHaveExtents(ip, whichfork);
  if (wrong < 0) return wrong;
  const ap = begin(tp, ip, whichfork);
  ap.flags = flags;
  const rest = unmapDownwards(ap, start, start + len, nexts);
  const error = rest < 0 ? rest : fixFormat(ap);
  finish(ap);
  return error < 0 ? error : rest;
}

function unmapDownwards(
  ap: XfsBmalloca,
  start: number,
  stop: number,
  nexts: number,
): number {
  const { fork, icur, ip, whichfork } = ap;
  let end = stop;
  let more = fork.lookupBefore(end, icur, got);
  for (let n = 0; more; n++) {
    end = Math.min(end, got.endoff);
    if (end <= start) return 0;
    if (nexts > 0 && n === nexts) return end - start;
    const from = Math.max(start, got.startoff);
    cutPart(del, got, from, end);
    if (isnullstartblock(got.startblock)) {
      xfsBmapDelExtentDelay(ip, whichfork, icur, got, del, ap.flags);
    } else {
      const error = delExtentReal(ap, got, del);
      if (error < 0) return error;
    }
    end = from;
    more = fork.get(icur, got);
    if (!more || got.startoff >= end) more = fork.prev(icur, got);
  }
  return 0;
}

/**
 * Takes the mapping of file blocks away and frees the blocks (kernel: `xfs_bunmapi`).
 *
 * @param bno First file block.
 * @param len Blocks; Infinity for all behind it.
 * @param flags ATTRFORK; REMAP: the blocks stay in use.
 * @param nexts Extents to take away at most; 0 for all.
 * @returns 1 if all is done, 0 if there is more; negative errnos as
 *   {@linkcode xfsBunmapiRemaining}.
 */
export function xfsBunmapi(
  tp: XfsTrans,
  ip: XfsInode,
  bno: number,
  len: number,
  flags: number,
  nexts: number,
): number {
  const rest = xfsBunmapiRemaining(tp, ip, bno, len, flags, nexts);
  return rest < 0 ? rest : rest === 0 ? 1 : 0;
}

/**
 * The same for however many extents there are, in as many transactions as that takes
 * (kernel: `xfs_bunmapi_range`). All but the last are committed.
 *
 * @param flags ATTRFORK.
 * @param startoff First file block.
 * @param endoff First file block after the range; Infinity for all.
 * @returns 0, or negative errnos as {@linkcode xfsBunmapiRemaining}.
 */
export function xfsBunmapiRange(
  tp: XfsTrans,
  ip: XfsInode,
  flags: number,
  startoff: number,
  endoff: number,
): number {
  let rest = endoff - startoff;
  while (rest > 0) {
    const most = XFS_ITRUNC_MAX_EXTENTS;
    rest = xfsBunmapiRemaining(tp, ip, startoff, rest, flags, most);
    if (rest < 0) return rest;
    const error = xfsDeferFinish(tp);
    if (error < 0) return error;
  }
  return 0;
}

// ---- shifting ----

/** Begins a change of the data fork's extents that moves them. */
function beginShift(tp: XfsTrans, ip: XfsInode): XfsBmalloca | number {
  const wrong = mustHaveExtents(ip, F.XFS_DATA_FORK);
  return wrong < 0 ? wrong : begin(tp, ip, F.XFS_DATA_FORK);
}

function endShift(ap: XfsBmalloca, error: number): number {
  const wrong = error < 0 ? error : fixFormat(ap);
  finish(ap);
  return wrong;
}

/** Moves the extent at the place in the file (kernel:
 * `xfs_bmap_shift_update_extent`). */
function moveExtent(ap: XfsBmalloca, rec: BmbtIrec, startoff: number): number {
  OLD[0]!.copy(rec);
  NEW[0]!.set(startoff, rec.startblock, rec.count, rec.unwritten);
  return remapMoved(ap, rec, startoff, 1, 0);
}

/** Replaces, and tells the reverse map of what has moved. */
function remapMoved(
  ap: XfsBmalloca,
  rec: BmbtIrec,
  startoff: number,
  old: number,
  at: number,
): number {
  const error = replace(ap, old, 1, at);
  if (error < 0) return error;
  ap.logflags |= XFS_ILOG_CORE;
  xfsRmapUnmapExtent(ap.tp!, ap.ip, ap.whichfork, rec);
  map.set(startoff, rec.startblock, rec.count, rec.unwritten);
  xfsRmapMapExtent(ap.tp!, ap.ip, ap.whichfork, map);
  return 0;
}

/**
 * Moves one extent towards the beginning of the file, over a hole; it becomes one with
 * the extent before where it can (kernel: `xfs_bmap_collapse_extents`).
 *
 * @param shift `nextFsb`: the extent at or after it is moved. Afterwards the next one.
 * @param offsetShift Blocks to move it by.
 * @returns 0; -EINVAL if there is no such hole; -EFSCORRUPTED if it is promised space;
 *   -EIO if the file system is shut down, or an errno of the device.
 */
export function xfsBmapCollapseExtents(
  tp: XfsTrans,
  ip: XfsInode,
  shift: BmapShift,
  offsetShift: number,
): number {
  const ap = beginShift(tp, ip);
  if (typeof ap === "number") return ap;
  return endShift(ap, collapse(ap, shift, offsetShift));
}

function collapse(ap: XfsBmalloca, shift: BmapShift, by: number): number {
  const { fork, icur, ip, whichfork } = ap;
  if (!fork.lookup(shift.nextFsb, icur, got)) {
    shift.done = true;
    return 0;
  }
  if (isnullstartblock(got.startblock)) {
    return xfsForkCorrupt(ip, whichfork, `promised space at ${got.startoff}`);
  }
  const startoff = got.startoff - by;
  const hasPrev = fork.peekPrev(icur, left);
  if (startoff < (hasPrev ? left.endoff : 0)) return -EINVAL;
  map.set(startoff, got.startblock, got.count, got.unwritten);
  let error: number;
  if (hasPrev && adjoins(left, map)) {
    OLD[0]!.copy(left);
    OLD[1]!.copy(got);
    NEW[0]!.copy(left);
    NEW[0]!.count += got.count;
    fork.prev(icur, part);
    error = remapMoved(ap, got, startoff, 2, 0);
  } else error = moveExtent(ap, got, startoff);
  if (error < 0) return error;
  shift.done = !fork.next(icur, got);
  if (!shift.done) shift.nextFsb = got.startoff;
  return 0;
}

/**
 * Whether all that is mapped can be moved by so much towards the end of the file
 * (kernel: `xfs_bmap_can_insert_extents`).
 *
 * @param off First file block of what is moved.
 * @param shift Blocks.
 * @returns 0; -EINVAL if not; -EIO if the file system is shut down; -EFSCORRUPTED or an
 *   errno of the device.
 */
export function xfsBmapCanInsertExtents(
  ip: XfsInode,
  off: number,
  shift: number,
): number {
  if (ip.mount.dead) return -EIO;
  const some = xfsBmapLastExtent(null, ip, F.XFS_DATA_FORK, got);
  if (some <= 0) return some;
  return got.startoff >= off && got.endoff + shift > MAX_FILEOFF ? -EINVAL : 0;
}

/**
 * Moves one extent towards the end of the file, over a hole (kernel:
 * `xfs_bmap_insert_extents`).
 *
 * @param shift `nextFsb`: the extent at or after it is moved, the last one if it is -1.
 *   Afterwards the one before.
 * @param offsetShift Blocks to move it by.
 * @param stop Nothing before this file block is moved.
 * @returns 0; -EINVAL if there is no such hole; -EFSCORRUPTED if it is promised space,
 *   or before `stop`; -EIO if the file system is shut down, or an errno of the device.
 */
export function xfsBmapInsertExtents(
  tp: XfsTrans,
  ip: XfsInode,
  shift: BmapShift,
  offsetShift: number,
  stop: number,
): number {
  const ap = beginShift(tp, ip);
  if (typeof ap === "number") return ap;
  return endShift(ap, insertShift(ap, shift, offsetShift, stop));
}

function insertShift(
  ap: XfsBmalloca,
  shift: BmapShift,
  by: number,
  stop: number,
): number {
  const { fork, icur, ip, whichfork } = ap;
  const first = shift.nextFsb < 0;
  const found = first
    ? fork.last(icur, got)
    : fork.lookup(shift.nextFsb, icur, got);
  if (!found || (first && stop > got.startoff)) {
    shift.done = true;
    return 0;
  }
  if (isnullstartblock(got.startblock) || stop > got.startoff) {
    return xfsForkCorrupt(
      ip,
      whichfork,
      `extent at ${got.startoff}, from ${stop} on`,
    );
  }
  const startoff = got.startoff + by;
  if (fork.peekNext(icur, right) && startoff + got.count > right.startoff) {
    return -EINVAL;
  }
  const error = moveExtent(ap, got, startoff);
  if (error < 0) return error;
  shift.done = !fork.prev(icur, got) || stop >= got.endoff;
  if (!shift.done) shift.nextFsb = got.startoff;
  return 0;
}

/**
 * Makes two extents of one, so that a file block is the first of an extent (kernel:
 * `xfs_bmap_split_extent`).
 *
 * @param split The file block; nothing happens if it is in a hole.
 * @returns 0; -ENOSPC; -EFSCORRUPTED; -EIO if the file system is shut down, or an errno
 *   of the device.
 */
export function xfsBmapSplitExtent(
  tp: XfsTrans,
  ip: XfsInode,
  split: number,
): number {
  const ap = beginShift(tp, ip);
  if (typeof ap === "number") return ap;
  const found = ap.fork.lookup(split, ap.icur, got) && got.startoff < split;
  if (!found) return endShift(ap, 0);
  OLD[0]!.copy(got);
  cutPart(NEW[0]!, got, got.startoff, split);
  cutPart(NEW[1]!, got, split, got.endoff);
  return endShift(ap, replace(ap, 1, 2, 0));
}

// ---- changes that are left for later ----

/** Whether a later transaction maps blocks or takes a mapping away (kernel:
 * `enum xfs_bmap_intent_type`). */
export const XFS_BMAP_MAP = 1;
/** See {@linkcode XFS_BMAP_MAP}. */
export const XFS_BMAP_UNMAP = 2;

/** A change of a map that is left for later (kernel: `struct xfs_bmap_intent`). */
export class XfsBmapIntent implements DeferOp {
  /** Changes of maps. */
  readonly type: DeferOpType;
  /** {@linkcode XFS_BMAP_MAP} or {@linkcode XFS_BMAP_UNMAP}. */
  readonly kind: number;
  /** Whose map. */
  readonly ip: XfsInode;
  /** Data or attribute. */
  readonly whichfork: number;
  /** What is mapped, or not any more; `count` is 0 when it has been done. */
  readonly rec: BmbtIrec;

  /** Work that is not left yet: see {@linkcode xfsBmapMapExtent}.
   * @param rec Copied. */
  constructor(kind: number, ip: XfsInode, whichfork: number, rec: BmbtIrec) {
    this.type = xfsBmapUpdateDeferType;
    this.kind = kind;
    this.ip = ip;
    this.whichfork = whichfork;
    this.rec = new BmbtIrec().copy(rec);
  }
}

/** Changes of maps (kernel: `xfs_bmap_update_defer_type`). */
export const xfsBmapUpdateDeferType: DeferOpType = {
  name: "bmap",
  maxItems: 1,
  diffItems(a: DeferOp, b: DeferOp): number {
    return (a as XfsBmapIntent).ip.ino - (b as XfsBmapIntent).ip.ino;
  },
  finish: xfsBmapFinishOne,
};

/** Kernel: `xfs_bmap_finish_one`. */
function xfsBmapFinishOne(tp: XfsTrans, op: DeferOp): number {
  const { kind, ip, whichfork, rec } = op as XfsBmapIntent;
  const attr = whichfork === F.XFS_ATTR_FORK ? XFS_BMAPI_ATTRFORK : 0;
  const { startoff, startblock, count } = rec;
  if (kind === XFS_BMAP_MAP) {
    const flags = attr | (rec.unwritten ? XFS_BMAPI_PREALLOC : 0);
    rec.count = 0;
    return xfsBmapiRemap(tp, ip, startoff, count, startblock, flags);
  }
  const flags = attr | XFS_BMAPI_REMAP;
  const rest = xfsBunmapiRemaining(tp, ip, startoff, count, flags, 1);
  if (rest < 0) return rest;
  rec.count = rest;
  return rest > 0 ? 1 : 0;
}

/** Blocks that are in use are to be mapped into a hole of a fork, by a following
 * transaction (kernel: `xfs_bmap_map_extent`). Until then they count as promised. */
export function xfsBmapMapExtent(
  tp: XfsTrans,
  ip: XfsInode,
  whichfork: number,
  rec: BmbtIrec,
): void {
  if (isnullstartblock(rec.startblock)) return;
  ip.delayedBlks += rec.count;
  xfsDeferAdd(tp, new XfsBmapIntent(XFS_BMAP_MAP, ip, whichfork, rec));
}

/** A mapping is to be taken away by a following transaction; its blocks stay in use
 * (kernel: `xfs_bmap_unmap_extent`). */
export function xfsBmapUnmapExtent(
  tp: XfsTrans,
  ip: XfsInode,
  whichfork: number,
  rec: BmbtIrec,
): void {
  if (isnullstartblock(rec.startblock)) return;
  xfsDeferAdd(tp, new XfsBmapIntent(XFS_BMAP_UNMAP, ip, whichfork, rec));
}

// ---- what was in the inode goes to blocks ----

/** A local fork that has been emptied becomes one of extents, of which there are none
 * (kernel: `xfs_bmap_local_to_extents_empty`). */
export function xfsBmapLocalToExtentsEmpty(
  tp: XfsTrans,
  ip: XfsInode,
  whichfork: number,
): void {
  const fork = xfsIforkPtr(ip, whichfork)!;
  if (whichfork === F.XFS_ATTR_FORK) resetForkoff(ip);
  fork.local = null;
  fork.format = F.XFS_DINODE_FMT_EXTENTS;
  fork.nextents = 0;
  tp.logInode(ip, XFS_ILOG_CORE);
}

/** Bytes of the data fork in an inode that gets an attribute fork, unless there is
 * reason for another number (kernel: `xfs_default_attroffset`). */
export function xfsDefaultAttroffset(ip: XfsInode): number {
  if (ip.df.format === F.XFS_DINODE_FMT_DEV) return 8;
  return xfsBmdrSpaceCalc(6 * MINABTPTRS);
}

/** An attribute fork without attributes in it leaves the data fork its usual room
 * (kernel: `xfs_bmap_forkoff_reset`). */
function resetForkoff(ip: XfsInode): void {
  const { format } = ip.df;
  if (
    format === F.XFS_DINODE_FMT_DEV || format === F.XFS_DINODE_FMT_BTREE
  ) return;
  const usual = Math.floor(xfsDefaultAttroffset(ip) / 8);
  ip.forkoff = Math.max(ip.forkoff, usual);
}

/**
 * Moves what a local fork holds to a block (kernel: `xfs_bmap_local_to_extents`).
 *
 * @param total Blocks that the transaction needs in all.
 * @param init Fills and logs the block; the fork is as it was then.
 * @returns 0; -ENOSPC; -EFSCORRUPTED or an errno of the device.
 */
export function xfsBmapLocalToExtents(
  tp: XfsTrans,
  ip: XfsInode,
  total: number,
  whichfork: number,
  init: LocalToExtentsInit,
): number {
  const fork = xfsIforkPtr(ip, whichfork)!;
  if (fork.local === null || fork.local.length === 0) {
    xfsBmapLocalToExtentsEmpty(tp, ip, whichfork);
    return 0;
  }
  const { sb, targ } = ip.mount;
  const args = new XfsAllocArg().init(tp);
  args.oinfo = new XfsOwnerInfo();
  xfsRmapInoOwner(args.oinfo, ip.ino, whichfork, 0);
  args.total = total;
  const error = xfsAllocVextentStartAg(args, sb.inoToFsb(ip.ino));
  if (error < 0) return error;
  if (args.fsbno === F.NULLFSBLOCK) return -ENOSPC;
  const bp = targ.get(sb.fsbToDaddr(args.fsbno), sb.bbPerBlock);
  bp.uptodate = true;
  bp.stale = false;
  init(tp, bp, ip, fork);
  xfsBmapLocalToExtentsEmpty(tp, ip, whichfork);
  fork.clear(icur);
  fork.insert(icur, got.set(0, args.fsbno, 1, false));
  fork.nextents = 1;
  ip.nblocks++;
  const ext = whichfork === F.XFS_ATTR_FORK ? XFS_ILOG_AEXT : XFS_ILOG_DEXT;
  tp.logInode(ip, XFS_ILOG_CORE | ext);
  return 0;
}
