/**
 * Where new blocks of a file are best taken: near its other blocks, in one piece, on the
 * boundaries that hints and stripes ask for; and what is done when space is short.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_bmap.c (`xfs_bmap_btalloc` and what it calls).
 *
 * @module
 */

import type { XfsInode } from "../inode.ts";
import type { XfsMount } from "../mount.ts";
import { xfsAllocReadAgf, type XfsPerag } from "./ag.ts";
import { XFS_AG_RESV_NONE, xfsAgResvNeeded } from "./ag-resv.ts";
import {
  XFS_ALLOC_USERDATA,
  XfsAllocArg,
  xfsAllocLongestFreeExtent,
  xfsAllocMinFreelist,
  xfsAllocVextentExactBno,
  xfsAllocVextentFirstAg,
  xfsAllocVextentStartAg,
} from "./alloc.ts";
import type { XfsBtreeCur } from "./btree.ts";
import {
  NULLFSBLOCK,
  XFS_COW_FORK,
  XFS_DATA_FORK,
  XFS_MAX_BMBT_EXTLEN,
} from "./format.ts";
import { BmbtIrec, IextCursor, type Ifork, isnullstartblock } from "./iext.ts";
import { XFS_ILOG_CORE, type XfsTrans } from "./trans.ts";

/** A gap in the file is kept on the device if it is at most this many times as long as
 * what is allocated (kernel: `XFS_ALLOC_GAP_UNITS`). */
const XFS_ALLOC_GAP_UNITS = 4;
/** Small blocks are allocated by pages, so that a page lies in one piece. */
const PAGE_SIZE = 4096;

// What a function of bmap.ts is asked to do (kernel: XFS_BMAPI_*).
/** Report whole extents, not cut to the request. */
export const XFS_BMAPI_ENTIRE = 1 << 0;
/** For a directory, a link or attributes, not for a file's data. */
export const XFS_BMAPI_METADATA = 1 << 1;
/** In the attribute fork. */
export const XFS_BMAPI_ATTRFORK = 1 << 2;
/** Allocate unwritten extents. */
export const XFS_BMAPI_PREALLOC = 1 << 3;
/** All in one piece or not at all. */
export const XFS_BMAPI_CONTIG = 1 << 4;
/** Unwritten extents become written; with PREALLOC the other way round. */
export const XFS_BMAPI_CONVERT = 1 << 5;
/** Only the map changes: the blocks stay in use. */
export const XFS_BMAPI_REMAP = 1 << 7;
/** In the copy-on-write fork. */
export const XFS_BMAPI_COWFORK = 1 << 8;
/** Leave the reverse map alone. */
export const XFS_BMAPI_NORMAP = 1 << 10;
/** The start of an allocation is on a multiple of the hint, too. */
export const XFS_BMAPI_EXTSZALIGN = 1 << 11;

/** A change of a fork's extents that is going on, and what it wants to have allocated
 * (kernel: `struct xfs_bmalloca`). */
export class XfsBmalloca {
  /** Null only for the copy-on-write fork, of which nothing is on disk. */
  tp: XfsTrans | null = null;
  /** Whose fork. */
  ip!: XfsInode;
  /** Which. */
  whichfork: number = XFS_DATA_FORK;
  /** The same. */
  fork!: Ifork;
  /** Place in the list. */
  icur: IextCursor = new IextCursor();
  /** Place in the tree; null as long as it was not needed. */
  cur: XfsBtreeCur<BmbtIrec> | null = null;
  /** What has to be logged of the inode. */
  logflags = 0;
  /** `XFS_BMAPI_*`. */
  flags = 0;

  /** The extent before the place; see `hasPrev`. */
  readonly prev: BmbtIrec = new BmbtIrec();
  /** There is an extent before the place. */
  hasPrev = false;
  /** The extent at or after the place, unless `eof`. */
  readonly got: BmbtIrec = new BmbtIrec();
  /** Nothing is mapped from the place on. */
  eof = false;
  /** First file block to be allocated. */
  offset = 0;
  /** Blocks to be allocated; those that were. */
  length = 0;
  /** Where; {@linkcode NULLFSBLOCK} if there was no space. */
  blkno: number = NULLFSBLOCK;
  /** Blocks that the whole transaction needs in the group. */
  total = 0;
  /** Fewest blocks that are of use. */
  minlen = 0;
  /** Blocks that must be left for the tree. */
  minleft = 0;
  /** The space was promised before. */
  wasdel = false;
  /** The allocation is at the end of the fork, and as long as a stripe unit. */
  aeof = false;
  /** Unwritten extents are being converted: no alignment. */
  conv = false;
  /** `XFS_ALLOC_*`. */
  datatype = 0;
  /** Allocations so far. */
  nallocs = 0;
}

/** A run of file blocks. */
export class FileRange {
  /** First block. */
  off = 0;
  /** Blocks. */
  len = 0;
}

// ---- extent size hints ----

/**
 * Widens a request to multiples of a hint, as far as the extents around it leave room
 * (kernel: `xfs_bmap_extsize_align`).
 *
 * @param got Next extent, unless `eof`.
 * @param prev Extent before, or null.
 * @param extsz Hint, blocks.
 * @param delay Space is being promised.
 * @param range In: the request. Out: what to ask for.
 */
export function xfsBmapExtsizeAlign(
  got: BmbtIrec,
  prev: BmbtIrec | null,
  extsz: number,
  eof: boolean,
  delay: boolean,
  range: FileRange,
): void {
  const { off } = range;
  const end = off + range.len;
  // What overlaps an extent is filling in promised space.
  if (!delay && !eof && off >= got.startoff && end <= got.endoff) return;
  let start = off - off % extsz;
  let len = Math.ceil((end - start) / extsz) * extsz;
  if (len > XFS_MAX_BMBT_EXTLEN) {
    len = XFS_MAX_BMBT_EXTLEN - XFS_MAX_BMBT_EXTLEN % extsz;
  }
  const low = prev === null ? 0 : prev.endoff;
  const high = eof ? Infinity : got.startoff;
  // Moved up behind the extent before, down before the one after, and up again: where
  // both are in the way, it is cut.
  if (start !== off && start < low) start = low;
  if (start + len !== end && start + len > high) {
    start = Math.max(0, high - len);
  }
  if (start !== off && start < low) start = low;
  if (start + len !== end && start + len > high) len = high - start;
  range.off = start;
  range.len = len;
}

const range = new FileRange();

/** Applies hints to a request; answers the stripe unit, blocks (kernel:
 * `xfs_bmap_compute_alignments`). */
function computeAlignments(ap: XfsBmalloca, args: XfsAllocArg): number {
  const { ip } = ap;
  const { sb } = ip.mount;
  let align = 0;
  if (ap.whichfork === XFS_COW_FORK) align = ip.cowextszHint;
  else if ((ap.datatype & XFS_ALLOC_USERDATA) !== 0) align = ip.extszHint;
  if (align > 1 && (ap.flags & XFS_BMAPI_EXTSZALIGN) !== 0) {
    args.alignment = align;
  }
  if (align > 0) {
    range.off = ap.offset;
    range.len = ap.length;
    const prev = ap.hasPrev ? ap.prev : null;
    if (!ap.conv) {
      xfsBmapExtsizeAlign(ap.got, prev, align, ap.eof, false, range);
    }
    ap.offset = range.off;
    ap.length = range.len;
  }
  args.prod = align > 0 ? align : Math.max(1, PAGE_SIZE / sb.blocksize);
  const over = ap.offset % args.prod;
  args.mod = over === 0 ? 0 : args.prod - over;
  return sb.unit;
}

// ---- near what ----

/** Whether a block is one, and in the same group as another (kernel:
 * `xfs_bmap_adjacent_valid`). */
function adjacentValid(mp: XfsMount, x: number, y: number): boolean {
  const { sb } = mp;
  if (x < 0) return false;
  const agno = sb.fsbToAgno(x);
  return agno === sb.fsbToAgno(y) && agno < sb.agcount &&
    sb.fsbToAgbno(x) < sb.agblocks;
}

/**
 * Picks the block to allocate near: behind the blocks that come before in the file, or
 * before those that come after, whichever gap is smaller (kernel:
 * `xfs_bmap_adjacent`).
 *
 * @returns Whether `ap.blkno` was set.
 */
function adjacent(ap: XfsBmalloca): boolean {
  const { prev, got, ip } = ap;
  const mp = ip.mount;
  const afterPrev = ap.hasPrev && !isnullstartblock(prev.startblock)
    ? prev.startblock + prev.count
    : NULLFSBLOCK;
  const prevOk = afterPrev > 0 && adjacentValid(mp, afterPrev, prev.startblock);
  const gap = ap.hasPrev ? ap.offset - prev.endoff : 0;
  if (ap.eof) {
    if (!prevOk) return false;
    const kept = adjacentValid(mp, afterPrev + gap, prev.startblock);
    ap.blkno = kept ? afterPrev + gap : afterPrev;
    return true;
  }
  let left = NULLFSBLOCK;
  let leftCost = Infinity;
  if (prevOk) {
    const kept = gap <= XFS_ALLOC_GAP_UNITS * ap.length &&
      adjacentValid(mp, afterPrev + gap, prev.startblock);
    left = kept ? afterPrev + gap : afterPrev;
    leftCost = kept ? gap : 2 * gap;
  }
  let right = NULLFSBLOCK;
  let rightCost = Infinity;
  if (!isnullstartblock(got.startblock)) {
    const room = got.startoff - ap.offset;
    right = got.startblock;
    if (
      room <= XFS_ALLOC_GAP_UNITS * ap.length &&
      adjacentValid(mp, right - room, right)
    ) {
      right -= room;
      rightCost = room;
    } else if (adjacentValid(mp, right - ap.length, right)) {
      right -= ap.length;
      rightCost = 2 * room - ap.length;
    } else rightCost = 2 * room;
  }
  if (left === NULLFSBLOCK && right === NULLFSBLOCK) return false;
  ap.blkno = leftCost <= rightCost ? left : right;
  return true;
}

// ---- how much ----

/** Longest free extent that a group has for us, or a negative errno (kernel:
 * `xfs_bmap_longest_free_extent`). */
function longestFreeExtent(pag: XfsPerag): number {
  if (!pag.pagfInit) {
    const agbp = xfsAllocReadAgf(pag, null);
    if (typeof agbp === "number") return agbp;
  }
  return xfsAllocLongestFreeExtent(
    pag,
    xfsAllocMinFreelist(pag.mp, pag),
    xfsAgResvNeeded(pag, XFS_AG_RESV_NONE),
  );
}

/**
 * Sets the fewest blocks to take: all of the request if some group has them in one
 * piece, else the longest piece that there is (kernel:
 * `xfs_bmap_btalloc_select_lengths`).
 *
 * @returns Longest free extent that was seen, blocks, or a negative errno.
 */
function selectLengths(ap: XfsBmalloca, args: XfsAllocArg): number {
  const mp = ap.ip.mount;
  const { sb } = mp;
  if (ap.tp!.lowmode) {
    args.total = args.minlen = ap.minlen;
    return 0;
  }
  args.total = ap.total;
  const first = sb.fsbToAgno(ap.blkno);
  let best = 0;
  for (let i = 0; i < sb.agcount && best < args.maxlen; i++) {
    const agno = (first + i) % sb.agcount;
    const longest = longestFreeExtent(mp.perags[agno]!);
    if (longest < 0) return longest;
    best = Math.max(best, longest);
  }
  args.minlen = best < ap.minlen ? ap.minlen : Math.min(best, args.maxlen);
  return best;
}

// ---- allocation ----

/** Goes on where the file ends, else begins on a stripe unit (kernel:
 * `xfs_bmap_btalloc_at_eof`).
 * @param best Longest free extent. */
function allocAtEof(
  ap: XfsBmalloca,
  args: XfsAllocArg,
  best: number,
  stripe: number,
): number {
  if (ap.eof) {
    args.alignment = 1;
    // The second attempt must not need more than the first has made sure of.
    const next = best > stripe && best <= args.maxlen
      ? best - stripe
      : args.minlen;
    args.minalignslop = Math.max(0, next + stripe - args.minlen - 1);
    const error = xfsAllocVextentExactBno(args, ap.blkno);
    if (error < 0 || args.fsbno !== NULLFSBLOCK) return error;
    args.alignment = stripe;
    args.minlen = next;
  } else {
    args.alignment = stripe;
    if (best > stripe && best <= args.maxlen + stripe) {
      args.minlen = best - stripe;
    }
  }
  args.minalignslop = 0;
  const error = xfsAllocVextentStartAg(args, ap.blkno);
  if (args.fsbno === NULLFSBLOCK) args.alignment = 1;
  return error;
}

/** Takes whatever there is: the fewest blocks near the file, then the fewest blocks
 * anywhere without regard to what is needed later (kernel:
 * `xfs_bmap_btalloc_low_space`). */
function allocLowSpace(ap: XfsBmalloca, args: XfsAllocArg): number {
  if (args.minlen > ap.minlen) {
    args.minlen = ap.minlen;
    const error = xfsAllocVextentStartAg(args, ap.blkno);
    if (error < 0 || args.fsbno !== NULLFSBLOCK) return error;
  }
  args.total = ap.minlen;
  const error = xfsAllocVextentFirstAg(args, 0);
  if (error < 0) return error;
  ap.tp!.lowmode = true;
  return 0;
}

/** Kernel: `xfs_bmap_btalloc_best_length`. */
function allocBestLength(
  ap: XfsBmalloca,
  args: XfsAllocArg,
  stripe: number,
): number {
  ap.blkno = ap.ip.mount.sb.inoToFsb(ap.ip.ino);
  if (!adjacent(ap)) ap.eof = false;
  const best = selectLengths(ap, args);
  if (best < 0) return best;
  if (ap.aeof && !ap.tp!.lowmode) {
    const error = allocAtEof(ap, args, best, stripe);
    if (error < 0 || args.fsbno !== NULLFSBLOCK) return error;
  }
  const error = xfsAllocVextentStartAg(args, ap.blkno);
  if (error < 0 || args.fsbno !== NULLFSBLOCK) return error;
  return allocLowSpace(ap, args);
}

/**
 * Allocates blocks for a file (kernel: `xfs_bmap_btalloc`).
 *
 * @param ap In: what is wanted. Out: `blkno`, `offset` and `length` of what there is;
 *   `blkno` is {@linkcode NULLFSBLOCK} if there is nothing.
 * @returns 0, -EFSCORRUPTED or an errno of the device.
 */
export function xfsBmapBtalloc(ap: XfsBmalloca): number {
  const { mount } = ap.ip;
  const { offset, length } = ap;
  const args = new XfsAllocArg().init(ap.tp!);
  args.minleft = ap.minleft;
  args.wasdel = ap.wasdel;
  args.datatype = ap.datatype;
  const stripe = computeAlignments(ap, args);
  args.maxlen = Math.min(ap.length, mount.agMaxUsable);
  const error = allocBestLength(ap, args, stripe);
  if (error < 0) return error;
  ap.blkno = args.fsbno;
  if (args.fsbno === NULLFSBLOCK) {
    ap.length = 0;
    return 0;
  }
  ap.length = args.len;
  // With a hint more was asked for than is needed. What came must serve the request.
  if (ap.length <= length) ap.offset = offset;
  else if (ap.offset + ap.length < offset + length) {
    ap.offset = offset + length - ap.length;
  }
  account(ap);
  return 0;
}

/** Counts what was allocated (kernel: `xfs_bmap_alloc_account`). Blocks for
 * copy-on-write are in memory only: they count as promised until they are the file's. */
function account(ap: XfsBmalloca): void {
  const { ip } = ap;
  if (ap.whichfork === XFS_COW_FORK) {
    if (!ap.wasdel) ip.delayedBlks += ap.length;
    return;
  }
  ip.nblocks += ap.length;
  if (ap.wasdel) ip.delayedBlks -= ap.length;
  ap.tp!.logInode(ip, XFS_ILOG_CORE);
}
