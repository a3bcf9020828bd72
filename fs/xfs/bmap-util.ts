/**
 * Space of a file as a whole: preallocating, freeing and shifting ranges, and what lies
 * beyond its end.
 *
 * Kernel counterpart: fs/xfs/xfs_bmap_util.c, xfs_inode.c (`xfs_itruncate_extents`).
 *
 * @module
 */

import { ENOSPC } from "../../lib/errno.ts";
import { andThen, type MaybePromise } from "../../lib/maybe-promise.ts";
import { filemapWriteAndWaitRange } from "../../mm/filemap.ts";
import { PAGE_MASK, PAGE_SIZE } from "../../mm/folio.ts";
import { truncatePagecacheRange } from "../../mm/truncate.ts";
import { MAX_LFS_FILESIZE } from "../fs.ts";
import { inodeDioWait, isReg } from "../inode.ts";
import { ilockExcl, type XfsInode } from "./inode.ts";
import { bToFsb, bToFsbt, xfsZeroRange } from "./iomap.ts";
import {
  type BmapShift,
  XFS_BMAPI_PREALLOC,
  xfsBmapCanInsertExtents,
  xfsBmapCollapseExtents,
  xfsBmapDelExtentDelay,
  xfsBmapInsertExtents,
  xfsBmapiWrite,
  xfsBmapSplitExtent,
  xfsBunmapi,
  xfsBunmapiRange,
  xfsIreadExtents,
  xfsTrimExtent,
} from "./libxfs/bmap.ts";
import { XFS_DIFLAG_PREALLOC, XFS_MAX_BMBT_EXTLEN } from "./libxfs/format.ts";
import {
  BmbtIrec,
  IextCursor,
  type Ifork,
  isnullstartblock,
} from "./libxfs/iext.ts";
import { XFS_COW_FORK, XFS_DATA_FORK } from "./libxfs/format.ts";
import { xfsDiostratSpaceRes } from "./libxfs/trans-space.ts";
import {
  XFS_ILOG_CORE,
  XFS_TRANS_RESERVE,
  type XfsTrans,
  xfsTransAlloc,
} from "./libxfs/trans.ts";
import {
  xfsReflinkCancelCowBlocks,
  xfsReflinkCancelCowRange,
  xfsReflinkClearInodeFlag,
} from "./reflink.ts";

/** Extents that one transaction unmaps (kernel: `XFS_ITRUNC_MAX_EXTENTS`). */
const ITRUNC_MAX_EXTENTS = 2;

const cur = new IextCursor();
const got = new BmbtIrec();
const del = new BmbtIrec();
const imap = new BmbtIrec();
const maps = [imap];

/**
 * Takes promised space of a range back; allocated blocks stay (kernel:
 * `xfs_bmap_punch_delalloc_range`).
 *
 * @param whichfork Data or copy-on-write.
 * @param start First byte.
 * @param end First byte after the range; Infinity for all beyond.
 */
export function xfsBmapPunchDelallocRange(
  ip: XfsInode,
  whichfork: number,
  start: number,
  end: number,
): void {
  const { mount } = ip;
  const fork = whichfork === XFS_COW_FORK ? ip.cow : ip.df;
  if (fork === null || !fork.loaded) return;
  ilockExcl(ip);
  punchFsbs(ip, fork, whichfork, bToFsbt(mount, start), bToFsb(mount, end));
  ip.ilock.upWrite();
}

function punchFsbs(
  ip: XfsInode,
  fork: Ifork,
  whichfork: number,
  start: number,
  end: number,
): void {
  let from = start;
  while (from < end && fork.lookup(from, cur, got) && got.startoff < end) {
    const next = got.endoff;
    if (isnullstartblock(got.startblock)) {
      del.copy(got);
      xfsTrimExtent(del, start, end - start);
      xfsBmapDelExtentDelay(ip, whichfork, cur, got, del, 0);
    }
    from = next;
  }
}

/**
 * Whether a file has space beyond its end that may be freed (kernel:
 * `xfs_can_free_eofblocks`).
 */
export function canFreeEofblocks(ip: XfsInode): boolean {
  if (!isReg(ip)) return false;
  const { mount } = ip;
  if (mount.dead || mount.readOnly || !ip.df.loaded) return false;
  // What was asked for stays; what a write promised itself goes.
  if ((ip.diflags & XFS_DIFLAG_PREALLOC) !== 0 && ip.delayedBlks === 0) {
    return false;
  }
  if (ip.delayedBlks > 0) return true;
  return ip.df.lookup(bToFsb(mount, ip.size), cur, got);
}

/**
 * Frees space beyond the end of a file (kernel: `xfs_free_eofblocks`). The caller
 * holds the IOLOCK exclusively.
 *
 * @returns 0 or a negative errno.
 */
export function freeEofblocks(ip: XfsInode): MaybePromise<number> {
  return andThen(inodeDioWait(ip), () => {
    if ((ip.diflags & XFS_DIFLAG_PREALLOC) !== 0) {
      // The block that the file ends in stays.
      const end = bToFsb(ip.mount, ip.size) * ip.mount.sb.blocksize;
      xfsBmapPunchDelallocRange(ip, XFS_DATA_FORK, end, Infinity);
      return 0;
    }
    const tp = xfsTransAlloc(ip.mount, 0, XFS_TRANS_RESERVE);
    if (typeof tp === "number") return tp;
    ilockExcl(ip);
    let error = itruncateExtents(tp, ip, ip.size);
    if (error < 0) tp.cancel();
    else error = tp.commit();
    ip.ilock.upWrite();
    return error;
  });
}

/**
 * Frees all blocks from a size on, in as many transactions as that takes (kernel:
 * `xfs_itruncate_extents`). The caller holds the ILOCK exclusively.
 *
 * @param tp Rolls on; the caller commits it, or cancels it after an error.
 * @param size Bytes.
 * @returns 0 or a negative errno.
 */
export function itruncateExtents(
  tp: XfsTrans,
  ip: XfsInode,
  size: number,
): number {
  const first = bToFsb(ip.mount, size);
  const last = bToFsb(ip.mount, MAX_LFS_FILESIZE);
  if (first >= last) return 0;
  const error = xfsBunmapiRange(tp, ip, 0, first, last);
  if (error < 0) return error;
  const canceled = ip.cow === null
    ? 0
    : xfsReflinkCancelCowBlocks(tp, ip, first, last, true);
  if (canceled < 0) return canceled;
  // Without any block none is shared (kernel: xfs_itruncate_clear_reflink_flags).
  const empty = ip.df.nextents === 0 && (ip.cow?.nextents ?? 0) === 0;
  if (empty && ip.delayedBlks === 0) {
    const cleared = xfsReflinkClearInodeFlag(tp, ip);
    if (cleared < 0) return cleared;
  }
  tp.logInode(ip, XFS_ILOG_CORE);
  return 0;
}

/**
 * Allocates unwritten blocks wherever a range has none (kernel:
 * `xfs_alloc_file_space`). The caller holds the IOLOCK exclusively.
 *
 * @param offset First byte.
 * @param len Bytes, above 0.
 * @returns 0, or -ENOSPC: then part of it may be allocated.
 */
export function allocFileSpace(
  ip: XfsInode,
  offset: number,
  len: number,
): number {
  const { mount } = ip;
  let off = bToFsbt(mount, offset);
  const end = bToFsb(mount, offset + len);
  while (off < end) {
    const want = Math.min(end - off, XFS_MAX_BMBT_EXTLEN);
    const error = allocOneExtent(ip, off, want);
    if (error < 0) return error;
    off = imap.endoff;
  }
  return 0;
}

/** One mapping of the range, into `imap`. */
function allocOneExtent(ip: XfsInode, off: number, want: number): number {
  const { mount } = ip;
  const hint = ip.extszHint;
  let blocks = want;
  if (hint > 0) {
    const first = Math.floor(off / hint) * hint;
    blocks = Math.ceil((off + want) / hint) * hint - first;
  }
  const res = xfsDiostratSpaceRes(
    mount,
    Math.min(blocks, XFS_MAX_BMBT_EXTLEN),
  );
  const tp = xfsTransAlloc(mount, res);
  if (typeof tp === "number") return tp;
  ilockExcl(ip);
  const flags = XFS_BMAPI_PREALLOC;
  const nmaps = xfsBmapiWrite(tp, ip, off, want, flags, 0, maps, 1);
  let error = nmaps;
  if (nmaps < 0) tp.cancel();
  else {
    ip.diflags |= XFS_DIFLAG_PREALLOC;
    tp.logInode(ip, XFS_ILOG_CORE);
    error = tp.commit();
    if (error === 0 && nmaps === 0) error = -ENOSPC;
  }
  ip.ilock.upWrite();
  return error;
}

/**
 * Writes a range back and drops it from the cache, whole pages and blocks around it
 * (kernel: `xfs_flush_unmap_range`).
 *
 * @returns 0 or a negative errno.
 */
export function flushUnmapRange(
  ip: XfsInode,
  offset: number,
  len: number,
): MaybePromise<number> {
  const unit = Math.max(ip.mount.sb.blocksize, PAGE_SIZE);
  const start = Math.floor(offset / unit) * unit;
  const last = Math.ceil((offset + len) / unit) * unit - 1;
  const written = filemapWriteAndWaitRange(ip.mapping, start, last);
  return andThen(written, (error) => {
    if (error < 0) return error;
    const dropped = truncatePagecacheRange(ip.mapping, start, last);
    return andThen(dropped, () => 0);
  });
}

/**
 * Makes a range a hole: whole blocks are freed, the rest is zeroed up to the end of the
 * file (kernel: `xfs_free_file_space`). The caller holds IOLOCK and MMAPLOCK
 * exclusively.
 *
 * @returns 0 or a negative errno.
 */
export function freeFileSpace(
  ip: XfsInode,
  offset: number,
  len: number,
): MaybePromise<number> {
  const { mount } = ip;
  return andThen(flushUnmapRange(ip, offset, len), (error) => {
    if (error < 0) return error;
    const first = bToFsb(mount, offset);
    const end = bToFsbt(mount, offset + len);
    const freed = end > first ? unmapRange(ip, first, end) : 0;
    if (freed < 0 || offset >= ip.size) return freed;
    const stop = Math.min(offset + len, ip.size);
    return andThen(
      xfsZeroRange(ip, offset, stop - offset, null),
      (zeroed) => zeroed < 0 ? zeroed : flushEofPage(ip, stop),
    );
  });
}

/** Frees whole blocks, a few extents a transaction (kernel: `xfs_unmap_extent`). */
function unmapRange(ip: XfsInode, first: number, end: number): number {
  const { mount } = ip;
  let error = 0;
  let done = false;
  while (error === 0 && !done) {
    const res = xfsDiostratSpaceRes(mount, 0);
    const tp = xfsTransAlloc(mount, res, XFS_TRANS_RESERVE);
    if (typeof tp === "number") return tp;
    ilockExcl(ip);
    const most = ITRUNC_MAX_EXTENTS;
    const unmapped = xfsBunmapi(tp, ip, first, end - first, 0, most);
    done = unmapped === 1;
    if (unmapped < 0) {
      tp.cancel();
      error = unmapped;
    } else error = tp.commit();
    ip.ilock.upWrite();
  }
  return error;
}

/** What a mapping of the last page shows beyond the end is zeroed by writing it back. */
function flushEofPage(ip: XfsInode, end: number): MaybePromise<number> {
  if (end < ip.size || (end & PAGE_MASK) === 0) return 0;
  const page = Math.floor(end / PAGE_SIZE) * PAGE_SIZE;
  return filemapWriteAndWaitRange(ip.mapping, page, MAX_LFS_FILESIZE);
}

/** Nothing is cached or promised from one block before `offset` on: what lies there may
 * move, or be joined by what does (kernel: `xfs_prepare_shift`). */
function prepareShift(ip: XfsInode, offset: number): MaybePromise<number> {
  const trimmed = canFreeEofblocks(ip) ? freeEofblocks(ip) : 0;
  return andThen(trimmed, (error) => {
    if (error < 0) return error;
    const start = Math.max(0, offset - ip.mount.sb.blocksize);
    return andThen(
      flushUnmapRange(ip, start, ip.size),
      (failed) => failed < 0 ? failed : cancelCowFrom(ip, start),
    );
  });
}

function cancelCowFrom(ip: XfsInode, offset: number): number {
  if (ip.cow === null) return 0;
  return xfsReflinkCancelCowRange(ip, offset, Infinity, true);
}

/**
 * Takes a range out of a file and closes the gap (kernel: `xfs_collapse_file_space`).
 * The caller holds IOLOCK and MMAPLOCK exclusively; the range is one of whole blocks
 * before the end of the file, whose size the caller changes.
 *
 * @returns 0 or a negative errno.
 */
export function collapseFileSpace(
  ip: XfsInode,
  offset: number,
  len: number,
): MaybePromise<number> {
  return andThen(freeFileSpace(ip, offset, len), (error) => {
    if (error < 0) return error;
    return andThen(
      prepareShift(ip, offset),
      (failed) => failed < 0 ? failed : shiftLeft(ip, offset, len),
    );
  });
}

function shiftLeft(ip: XfsInode, offset: number, len: number): number {
  const { mount } = ip;
  const shift: BmapShift = {
    nextFsb: bToFsb(mount, offset + len),
    done: false,
  };
  const by = bToFsb(mount, len);
  while (!shift.done) {
    const res = xfsDiostratSpaceRes(mount, 0);
    const tp = xfsTransAlloc(mount, res, XFS_TRANS_RESERVE);
    if (typeof tp === "number") return tp;
    ilockExcl(ip);
    let error = xfsBmapCollapseExtents(tp, ip, shift, by);
    if (error < 0) tp.cancel();
    else error = tp.commit();
    ip.ilock.upWrite();
    if (error < 0) return error;
  }
  return 0;
}

/**
 * Opens a gap in a file (kernel: `xfs_insert_file_space`). The caller holds IOLOCK and
 * MMAPLOCK exclusively; offset and length are of whole blocks, and the file has grown
 * already.
 *
 * @returns 0; -EINVAL if an extent would move beyond what a file can map; a negative
 *   errno.
 */
export function insertFileSpace(
  ip: XfsInode,
  offset: number,
  len: number,
): MaybePromise<number> {
  const { mount } = ip;
  const stop = bToFsb(mount, offset);
  const by = bToFsb(mount, len);
  ilockExcl(ip);
  const can = xfsBmapCanInsertExtents(ip, stop, by);
  ip.ilock.upWrite();
  if (can < 0) return can;
  return andThen(
    prepareShift(ip, offset),
    (error) => error < 0 ? error : shiftRight(ip, stop, by),
  );
}

function shiftRight(ip: XfsInode, stop: number, by: number): number {
  const loaded = xfsIreadExtents(null, ip, XFS_DATA_FORK);
  if (loaded < 0) return loaded;
  let error = inTrans(ip, (tp) => xfsBmapSplitExtent(tp, ip, stop));
  const shift: BmapShift = { nextFsb: -1, done: false };
  while (error === 0 && !shift.done) {
    error = inTrans(
      ip,
      (tp) => xfsBmapInsertExtents(tp, ip, shift, by, stop),
    );
  }
  return error;
}

/** Runs one change of the data fork in a transaction of its own. */
function inTrans(ip: XfsInode, change: (tp: XfsTrans) => number): number {
  const res = xfsDiostratSpaceRes(ip.mount, 0);
  const tp = xfsTransAlloc(ip.mount, res, XFS_TRANS_RESERVE);
  if (typeof tp === "number") return tp;
  ilockExcl(ip);
  let error = change(tp);
  if (error < 0) tp.cancel();
  else error = tp.commit();
  ip.ilock.upWrite();
  return error;
}
