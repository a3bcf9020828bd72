/**
 * Sharing blocks between files, and what that takes: new blocks for whoever writes to
 * shared ones.
 *
 * A write to shared blocks goes to other blocks, which the copy-on-write fork maps in the
 * meantime. On disk nobody knows whose they are; the reference counts only say that they
 * are set aside, so that they can be freed after a crash. Once the data is on the device
 * they take the place of the shared ones in the data fork: never before, or a crash would
 * show what they held earlier.
 *
 * The fork may hold more than a write asked for, by the extent size hint: promised space
 * first, then unwritten blocks, and written ones from the moment on that data is on its
 * way to them. Only written ones are moved to the data fork.
 *
 * Kernel counterpart: fs/xfs/xfs_reflink.c.
 *
 * @module
 */

import { EINVAL, EIO, ENOSPC, EOPNOTSUPP } from "../../lib/errno.ts";
import { andThen, type MaybePromise } from "../../lib/maybe-promise.ts";
import { iomapFileUnshare } from "../../iomap/buffered-io.ts";
import { PAGECACHE_TAG_WRITEBACK } from "../../mm/address-space.ts";
import { filemapWriteAndWaitRange } from "../../mm/filemap.ts";
import { type File, REMAP_FILE_CAN_SHORTEN, REMAP_FILE_DEDUP } from "../fs.ts";
import { inodeDioWait, inodeLock, inodeUnlock } from "../inode.ts";
import { IOCB_DSYNC, IOCB_SYNC } from "../kiocb.ts";
import {
  genericRemapFileRangePrep,
  type RemapLen,
  type RemapRange,
} from "../remap-range.ts";
import { flushUnmapRange } from "./bmap-util.ts";
import { ilockExcl, type XfsInode } from "./inode.ts";
import {
  bToFsb,
  bToFsbt,
  xfsBufferedWriteIomapOps,
  xfsIomapWriteOps,
  xfsZeroRange,
} from "./iomap.ts";
import {
  XFS_AG_RESV_METADATA,
  XFS_AG_RESV_NONE,
  XFS_AG_RESV_RMAPBT,
  xfsAgResvCritical,
} from "./libxfs/ag-resv.ts";
import { xfsFreeExtentLater } from "./libxfs/alloc.ts";
import {
  XFS_BMAPI_COWFORK,
  XFS_BMAPI_PREALLOC,
  xfsBmapAddExtentUnwrittenReal,
  xfsBmapDelExtentCow,
  xfsBmapDelExtentDelay,
  xfsBmapiRead,
  xfsBmapiWrite,
  xfsBmapMapExtent,
  xfsBmapUnmapExtent,
  xfsBunmapi,
  xfsIreadExtents,
  xfsTrimExtent,
} from "./libxfs/bmap.ts";
import { xfsDeferFinish } from "./libxfs/defer.ts";
import {
  NULLAGBLOCK,
  XFS_COW_FORK,
  XFS_DATA_FORK,
  XFS_DIFLAG2_COWEXTSIZE,
  XFS_DIFLAG2_REFLINK,
} from "./libxfs/format.ts";
import {
  BmbtIrec,
  DELAYSTARTBLOCK,
  IextCursor,
  isnullstartblock,
} from "./libxfs/iext.ts";
import {
  XFS_IEXT_ADD_NOSPLIT_CNT,
  XFS_IEXT_REFLINK_END_COW_CNT,
  xfsIextCountExtend,
  xfsIforkInitCow,
} from "./libxfs/inode-fork.ts";
import {
  xfsRefcountDecreaseExtent,
  xfsRefcountFindShared,
  xfsRefcountFreeCowExtent,
  xfsRefcountIncreaseExtent,
  xfsRefcountRecoverCowLeftovers,
  type XfsSharedRange,
} from "./libxfs/refcount.ts";
import { xfsDiostratSpaceRes } from "./libxfs/trans-space.ts";
import {
  XFS_ILOG_CORE,
  XFS_TRANS_RESERVE,
  type XfsTrans,
  xfsTransAlloc,
} from "./libxfs/trans.ts";
import type { XfsMount } from "./mount.ts";
import { logForce } from "./super.ts";

// Scratch: nothing here is entered twice, as nothing waits while it is in use.
const cur = new IextCursor();
const got = new BmbtIrec();
const del = new BmbtIrec();
const data = new BmbtIrec();
const dataMaps = [data];
const fresh = new BmbtIrec();
const freshMaps = [fresh];
const sharedRange: XfsSharedRange = { fbno: NULLAGBLOCK, flen: 0 };

/** Whether an extent has blocks, written or not (kernel:
 * `xfs_bmap_is_real_extent`). */
function isReal(rec: BmbtIrec): boolean {
  return rec.startblock >= 0;
}

/** Whether an extent has blocks with data (kernel: `xfs_bmap_is_written_extent`). */
function isWritten(rec: BmbtIrec): boolean {
  return rec.startblock >= 0 && !rec.unwritten;
}

// ---- what is shared ----

/** Finds the first shared blocks of an extent, in `sharedRange` (kernel:
 * `xfs_reflink_find_shared`). */
function findShared(
  tp: XfsTrans | null,
  mp: XfsMount,
  rec: BmbtIrec,
  findEnd: boolean,
): number {
  const { sb } = mp;
  if (!sb.verifyFsbext(rec.startblock, rec.count)) {
    return mp.corrupt("extent", `${rec.count} blocks at ${rec.startblock}`);
  }
  const pag = mp.perags[sb.fsbToAgno(rec.startblock)]!;
  const agbno = sb.fsbToAgbno(rec.startblock);
  return xfsRefcountFindShared(tp, pag, agbno, rec.count, findEnd, sharedRange);
}

/**
 * Cuts an extent where its blocks stop being shared, or begin to be (kernel:
 * `xfs_reflink_trim_around_shared`).
 *
 * @param rec Extent of the data fork; comes out shorter.
 * @returns 1 if it is shared now, 0 if not, or a negative errno.
 */
export function xfsReflinkTrimAroundShared(
  ip: XfsInode,
  rec: BmbtIrec,
): number {
  if (!ip.isReflink || !isWritten(rec)) return 0;
  const { mount } = ip;
  const error = findShared(null, mount, rec, true);
  if (error < 0 || sharedRange.fbno === NULLAGBLOCK) return error;
  const agbno = mount.sb.fsbToAgbno(rec.startblock);
  if (sharedRange.fbno === agbno) {
    rec.count = sharedRange.flen;
    return 1;
  }
  rec.count = sharedRange.fbno - agbno;
  return 0;
}

/**
 * Cuts an extent that is to be written to, so that all of it needs other blocks or none
 * of it (kernel: `xfs_bmap_trim_cow`).
 *
 * @returns As {@linkcode xfsReflinkTrimAroundShared}.
 */
export function xfsBmapTrimCow(ip: XfsInode, rec: BmbtIrec): number {
  return xfsReflinkTrimAroundShared(ip, rec);
}

// ---- blocks for copies ----

/**
 * Blocks of the copy-on-write fork become written: from now on data is on its way to
 * them (kernel: `xfs_reflink_convert_cow_locked`). The caller holds the ILOCK
 * exclusively.
 *
 * @param offFsb First file block.
 * @param count Blocks.
 * @returns 0, or -EIO if some of it is only promised.
 */
export function xfsReflinkConvertCowLocked(
  ip: XfsInode,
  offFsb: number,
  count: number,
): number {
  const { cow } = ip;
  if (cow === null) return 0;
  const end = offFsb + count;
  let from = offFsb;
  while (from < end && cow.lookup(from, cur, got) && got.startoff < end) {
    from = got.endoff;
    if (isWritten(got)) continue;
    // What is written back has got its blocks before.
    if (!isReal(got)) return -EIO;
    xfsTrimExtent(got, offFsb, count);
    got.unwritten = false;
    const error = xfsBmapAddExtentUnwrittenReal(
      null,
      ip,
      XFS_COW_FORK,
      cur,
      got,
    );
    if (error < 0) return error;
  }
  return 0;
}

/**
 * The same for a range of bytes; takes the ILOCK (kernel: `xfs_reflink_convert_cow`).
 *
 * @returns As {@linkcode xfsReflinkConvertCowLocked}.
 */
export function xfsReflinkConvertCow(
  ip: XfsInode,
  offset: number,
  count: number,
): number {
  const off = bToFsbt(ip.mount, offset);
  const end = bToFsb(ip.mount, offset + count);
  ilockExcl(ip);
  const error = xfsReflinkConvertCowLocked(ip, off, end - off);
  ip.ilock.upWrite();
  return error;
}

/** Results of {@linkcode findTrimCowExtent}. */
const NOT_SHARED = 0;
/** The copy-on-write fork has blocks: `cmap`. */
const FOUND = 1;
/** It has promised space. */
const PROMISED = 2;
/** It has nothing. */
const HOLE = 3;

/** Finds what the copy-on-write fork has for the start of `imap`, and cuts `imap` to
 * where that is the same for all of it (kernel: `xfs_find_trim_cow_extent`). */
function findTrimCowExtent(
  ip: XfsInode,
  imap: BmbtIrec,
  cmap: BmbtIrec,
): number {
  const { startoff, count } = imap;
  if (!ip.cow!.lookup(startoff, cur, cmap)) cmap.startoff = startoff + count;
  if (cmap.startoff > startoff) {
    xfsTrimExtent(imap, startoff, cmap.startoff - startoff);
    const shared = xfsBmapTrimCow(ip, imap);
    return shared > 0 ? HOLE : shared;
  }
  if (isnullstartblock(cmap.startblock)) {
    xfsTrimExtent(imap, cmap.startoff, cmap.count);
    return PROMISED;
  }
  xfsTrimExtent(cmap, startoff, count);
  return FOUND;
}

/** Blocks between two borders of the extent size hint around a range (kernel:
 * `xfs_aligned_fsb_count`). */
function alignedFsbCount(off: number, count: number, hint: number): number {
  const end = Math.ceil((off + count) / hint) * hint;
  return end - Math.floor(off / hint) * hint;
}

/** Allocates unwritten blocks in the copy-on-write fork, in `cmap`.
 * @param blocks Most that may be used; 0 for what has been promised before. */
function allocateInCow(
  ip: XfsInode,
  off: number,
  count: number,
  blocks: number,
  cmap: BmbtIrec,
): number {
  const { mount } = ip;
  const tp = xfsTransAlloc(mount, blocks);
  if (typeof tp === "number") return tp;
  const flags = XFS_BMAPI_COWFORK | XFS_BMAPI_PREALLOC;
  const n = xfsBmapiWrite(tp, ip, off, count, flags, 0, freshMaps, 1);
  if (n <= 0) {
    tp.cancel();
    return n < 0 ? n : -ENOSPC;
  }
  cmap.copy(fresh);
  mount.blockgc.add(ip);
  return tp.commit();
}

/** Kernel: `xfs_reflink_fill_cow_hole`. */
function fillCowHole(ip: XfsInode, imap: BmbtIrec, cmap: BmbtIrec): number {
  const { startoff, count } = imap;
  const wanted = alignedFsbCount(startoff, count, ip.cowextszHint);
  const blocks = xfsDiostratSpaceRes(ip.mount, wanted);
  return allocateInCow(ip, startoff, count, blocks, cmap);
}

/** Kernel: `xfs_reflink_fill_delalloc`. The space may come in pieces. */
function fillDelalloc(ip: XfsInode, imap: BmbtIrec, cmap: BmbtIrec): number {
  let found = PROMISED;
  while (found === PROMISED) {
    const { startoff, count } = cmap;
    const error = allocateInCow(ip, startoff, count, 0, cmap);
    if (error < 0) return error;
    if (cmap.endoff > imap.startoff) return 0;
    found = findTrimCowExtent(ip, imap, cmap);
  }
  return found < 0 ? found : 0;
}

/** What was allocated is cut to what was asked for, and made written if data is about
 * to be written at once (kernel: `xfs_reflink_convert_unwritten`). */
function convertUnwritten(
  ip: XfsInode,
  imap: BmbtIrec,
  cmap: BmbtIrec,
  convertNow: boolean,
): number {
  const { startoff, count } = imap;
  xfsTrimExtent(cmap, startoff, count);
  if (!convertNow || !cmap.unwritten) return 0;
  const error = xfsReflinkConvertCowLocked(ip, cmap.startoff, cmap.count);
  cmap.unwritten = error < 0;
  return error;
}

/**
 * Sees to it that a write to shared blocks has others to go to (kernel:
 * `xfs_reflink_allocate_cow`). The caller holds the ILOCK exclusively.
 *
 * @param imap Extent of the data fork to be written to; comes out cut to what `cmap`
 *   has, or to what is not shared.
 * @param cmap Out: blocks to write to, if it is shared.
 * @param convertNow Data is written to them at once: they come out written.
 * @returns 1 if it is shared, 0 if it can be written to as it is; -ENOSPC,
 *   -EFSCORRUPTED, -EIO if the file system is shut down, or an errno of the device.
 */
export function xfsReflinkAllocateCow(
  ip: XfsInode,
  imap: BmbtIrec,
  cmap: BmbtIrec,
  convertNow: boolean,
): number {
  xfsIforkInitCow(ip);
  const found = findTrimCowExtent(ip, imap, cmap);
  if (found <= NOT_SHARED) return found;
  let error = 0;
  if (found === HOLE) error = fillCowHole(ip, imap, cmap);
  else if (found === PROMISED) error = fillDelalloc(ip, imap, cmap);
  if (error < 0) return error;
  error = convertUnwritten(ip, imap, cmap, convertNow);
  return error < 0 ? error : 1;
}

// ---- copies that are not needed ----

/** More than any file block. */
const MAX_FILEOFF: number = 2 ** 53;

/**
 * Gives back what the copy-on-write fork has in a range (kernel:
 * `xfs_reflink_cancel_cow_blocks`). The caller holds the ILOCK exclusively.
 *
 * @param tp Rolls on with every extent.
 * @param firstFsb First file block.
 * @param endFsb First file block after the range.
 * @param cancelReal Written blocks, too, to which data may be on its way.
 * @returns 0 or a negative errno.
 */
export function xfsReflinkCancelCowBlocks(
  tp: XfsTrans,
  ip: XfsInode,
  firstFsb: number,
  endFsb: number,
  cancelReal: boolean,
): number {
  const { cow } = ip;
  if (cow === null) return 0;
  let end = Math.min(endFsb, MAX_FILEOFF);
  while (cow.lookupBefore(end, cur, got) && got.endoff > firstFsb) {
    del.copy(got);
    xfsTrimExtent(del, firstFsb, end - firstFsb);
    end = del.startoff;
    if (isnullstartblock(got.startblock)) {
      xfsBmapDelExtentDelay(ip, XFS_COW_FORK, cur, got, del, 0);
    } else if (got.unwritten || cancelReal) {
      const { startblock, count } = del;
      xfsRefcountFreeCowExtent(tp, startblock, count);
      let error = xfsFreeExtentLater(
        tp,
        startblock,
        count,
        null,
        XFS_AG_RESV_NONE,
      );
      if (error === 0) error = xfsDeferFinish(tp);
      if (error < 0) return error;
      xfsBmapDelExtentCow(ip, cur, got, del);
    }
  }
  return 0;
}

/**
 * The same for a range of bytes, in a transaction of its own (kernel:
 * `xfs_reflink_cancel_cow_range`).
 *
 * @param count Bytes; Infinity for all behind `offset`.
 * @returns 0 or a negative errno.
 */
export function xfsReflinkCancelCowRange(
  ip: XfsInode,
  offset: number,
  count: number,
  cancelReal: boolean,
): number {
  const { mount } = ip;
  const first = bToFsbt(mount, offset);
  const end = bToFsb(mount, offset + count);
  const tp = xfsTransAlloc(mount, 0);
  if (typeof tp === "number") return tp;
  ilockExcl(ip);
  let error = xfsReflinkCancelCowBlocks(tp, ip, first, end, cancelReal);
  if (error < 0) tp.cancel();
  else error = tp.commit();
  ip.ilock.upWrite();
  return error;
}

// ---- copies that are complete ----

/** Finds in `got` the first written extent of the copy-on-write fork that is in a range,
 * and in `del` its part in the range. Others are there by the extent size hint. */
function findWritten(ip: XfsInode, off: number, end: number): boolean {
  const { cow } = ip;
  if (cow === null || !cow.lookup(off, cur, got)) return false;
  while (!isWritten(got)) {
    if (!cow.next(cur, got)) return false;
  }
  if (got.startoff >= end) return false;
  del.copy(got);
  xfsTrimExtent(del, off, end - off);
  return true;
}

/** Moves the first blocks of a range that were written to the data fork (kernel:
 * `xfs_reflink_end_cow_extent_locked`).
 * @returns File block up to which the range is done, or a negative errno. */
function endCowExtentLocked(
  tp: XfsTrans,
  ip: XfsInode,
  off: number,
  end: number,
): number {
  // Another write to the range may have been first.
  if (!findWritten(ip, off, end)) return end;
  const more = XFS_IEXT_REFLINK_END_COW_CNT;
  let error = xfsIextCountExtend(tp, ip, XFS_DATA_FORK, more);
  if (error < 0) return error;
  error = xfsBmapiRead(ip, del.startoff, del.count, dataMaps, 1, 0);
  if (error < 0) return error;
  data.count = del.count = Math.min(data.count, del.count);
  if (isReal(data)) {
    xfsBmapUnmapExtent(tp, ip, XFS_DATA_FORK, data);
    xfsRefcountDecreaseExtent(tp, data);
  } else if (data.startblock === DELAYSTARTBLOCK) {
    error = xfsBunmapi(tp, ip, data.startoff, data.count, 0, 1);
    if (error < 0) return error;
  }
  xfsRefcountFreeCowExtent(tp, del.startblock, del.count);
  xfsBmapMapExtent(tp, ip, XFS_DATA_FORK, del);
  xfsBmapDelExtentCow(ip, cur, got, del);
  return del.endoff;
}

/** Moves one extent, or part of it, in a transaction of its own (kernel:
 * `xfs_reflink_end_cow_extent`). */
function endCowExtent(ip: XfsInode, off: number, end: number): number {
  const blocks = xfsDiostratSpaceRes(ip.mount, 0);
  const tp = xfsTransAlloc(ip.mount, blocks, XFS_TRANS_RESERVE);
  if (typeof tp === "number") return tp;
  ilockExcl(ip);
  const next = endCowExtentLocked(tp, ip, off, end);
  let error = next;
  if (next < 0) tp.cancel();
  else error = tp.commit();
  ip.ilock.upWrite();
  return error < 0 ? error : next;
}

/**
 * Data has been written out of place: its blocks take the place of the old ones, extent
 * by extent (kernel: `xfs_reflink_end_cow`).
 *
 * @param offset First byte.
 * @param count Bytes.
 * @returns 0 or a negative errno.
 */
export function xfsReflinkEndCow(
  ip: XfsInode,
  offset: number,
  count: number,
): number {
  const end = bToFsb(ip.mount, offset + count);
  let off = bToFsbt(ip.mount, offset);
  while (off < end) {
    off = endCowExtent(ip, off, end);
    if (off < 0) return off;
  }
  return 0;
}

/**
 * The same, all of it or nothing (kernel: `xfs_reflink_end_atomic_cow`).
 *
 * @returns 0 or a negative errno.
 */
export function xfsReflinkEndAtomicCow(
  ip: XfsInode,
  offset: number,
  count: number,
): number {
  const { mount } = ip;
  const end = bToFsb(mount, offset + count);
  let off = bToFsbt(mount, offset);
  // In the worst case every block is an extent.
  const blocks = (end - off) * xfsDiostratSpaceRes(mount, 0);
  const tp = xfsTransAlloc(mount, blocks, XFS_TRANS_RESERVE);
  if (typeof tp === "number") return tp;
  ilockExcl(ip);
  while (off >= 0 && off < end) off = endCowExtentLocked(tp, ip, off, end);
  let error = off;
  if (off < 0) tp.cancel();
  else error = tp.commit();
  ip.ilock.upWrite();
  return error;
}

/** Frees what was set aside for copies when the file system went down (kernel:
 * `xfs_reflink_recover_cow`). Only at mount.
 * @returns 0 or a negative errno. */
export function xfsReflinkRecoverCow(mp: XfsMount): number {
  if (!mp.sb.hasReflink) return 0;
  for (const pag of mp.perags) {
    const error = xfsRefcountRecoverCowLeftovers(pag);
    if (error < 0) return error;
  }
  return 0;
}

// ---- sharing a range ----

/** Two files in the order in which they are locked; one of them if they are the same. */
function lockOrder(a: XfsInode, b: XfsInode): XfsInode[] {
  if (a === b) return [a];
  return a.ino < b.ino ? [a, b] : [b, a];
}

/** Works with IOLOCK and MMAPLOCK of both files held exclusively (kernel:
 * `xfs_ilock2_io_mmap`, `xfs_iunlock2_io_mmap`). */
function withLocks(
  a: XfsInode,
  b: XfsInode,
  work: () => MaybePromise<number>,
): MaybePromise<number> {
  const inodes = lockOrder(a, b);
  let io = 0;
  let mmap = 0;
  const lock = (): MaybePromise<number> => {
    if (io < inodes.length) {
      return andThen(inodeLock(inodes[io]!, true), (error) => {
        if (error < 0) return error;
        io++;
        return lock();
      });
    }
    if (mmap === inodes.length) return work();
    const { invalidateLock } = inodes[mmap]!.mapping;
    return andThen(invalidateLock.downWrite(), () => {
      mmap++;
      return lock();
    });
  };
  return andThen(lock(), (result) => {
    while (mmap > 0) inodes[--mmap]!.mapping.invalidateLock.upWrite();
    while (io > 0) inodeUnlock(inodes[--io]!, true);
    return result;
  });
}

/** Both files may share blocks from now on (kernel: `xfs_reflink_set_inode_flag`). */
function setInodeFlag(src: XfsInode, dst: XfsInode): number {
  if (src.isReflink && dst.isReflink) return 0;
  const tp = xfsTransAlloc(src.mount, 0);
  if (typeof tp === "number") return tp;
  const inodes = lockOrder(src, dst);
  for (const ip of inodes) {
    ilockExcl(ip);
    if (ip.isReflink) continue;
    ip.diflags2 |= XFS_DIFLAG2_REFLINK;
    tp.logInode(ip, XFS_ILOG_CORE);
    xfsIforkInitCow(ip);
  }
  const error = tp.commit();
  for (const ip of inodes) ip.ilock.upWrite();
  return error;
}

/** Checks, and what has to be done before the extents are shared; sets `len` (kernel:
 * `xfs_reflink_remap_prep`). */
function remapPrep(
  range: RemapRange,
  len: RemapLen,
  flags: number,
): MaybePromise<number> {
  const src = range.fileIn.inode as XfsInode;
  const dst = range.fileOut.inode as XfsInode;
  const { posOut } = range;
  const checked = genericRemapFileRangePrep(range, len, flags);
  return andThen(checked, (refused) => {
    if (refused < 0 || len.value === 0) return refused;
    const { size } = dst;
    // What lies beyond the end may hold anything.
    const zeroed = posOut > size
      ? xfsZeroRange(dst, size, posOut - size, null)
      : 0;
    return andThen(zeroed, (failed) => {
      if (failed < 0) return failed;
      const error = setInodeFlag(src, dst);
      if (error < 0) return error;
      const from = Math.min(posOut, size);
      return flushUnmapRange(dst, from, posOut + len.value - from);
    });
  });
}

/** Sharing more blocks of a group would need more of its trees than there is room for
 * (kernel: `xfs_reflink_ag_has_free_space`). */
function agHasFreeSpace(mp: XfsMount, fsbno: number): number {
  if (!mp.sb.hasRmapbt) return 0;
  const pag = mp.perags[mp.sb.fsbToAgno(fsbno)]!;
  const critical = xfsAgResvCritical(pag, XFS_AG_RESV_RMAPBT) ||
    xfsAgResvCritical(pag, XFS_AG_RESV_METADATA);
  return critical ? -ENOSPC : 0;
}

/** Sharing an extent takes the place of whatever the file has there; `dmap` is the extent
 * at its place in the file, and comes out cut to what has been done (kernel:
 * `xfs_reflink_remap_extent`).
 * @param newSize Size that the file has at the end of it all. */
function remapExtent(ip: XfsInode, dmap: BmbtIrec, newSize: number): number {
  const { mount } = ip;
  const tp = xfsTransAlloc(mount, xfsDiostratSpaceRes(mount, 0));
  if (typeof tp === "number") return tp;
  ilockExcl(ip);
  const changed = switchMapping(tp, ip, dmap, newSize);
  let error = changed;
  if (changed <= 0) tp.cancel();
  else error = tp.commit();
  ip.ilock.upWrite();
  return error;
}

/** @returns 1, 0 if there is nothing to do, or a negative errno. */
function switchMapping(
  tp: XfsTrans,
  ip: XfsInode,
  dmap: BmbtIrec,
  newSize: number,
): number {
  const { mount } = ip;
  let error = xfsBmapiRead(ip, dmap.startoff, dmap.count, dataMaps, 1, 0);
  if (error < 0) return error;
  data.count = dmap.count = Math.min(data.count, dmap.count);
  if (data.startblock === dmap.startblock) {
    if (data.unwritten === dmap.unwritten) return 0;
    const why = `blocks at ${data.startblock} are written and unwritten`;
    return mount.corrupt(`inode ${ip.ino}`, why);
  }
  if (data.unwritten && dmap.unwritten) return 0;
  const written = isWritten(dmap);
  if (written) {
    error = agHasFreeSpace(mount, dmap.startblock);
    if (error < 0) return error;
  }
  const more = (isReal(data) ? 1 : 0) + (written ? 1 : 0);
  const count = more * XFS_IEXT_ADD_NOSPLIT_CNT;
  error = xfsIextCountExtend(tp, ip, XFS_DATA_FORK, count);
  if (error < 0) return error;
  if (isReal(data)) {
    xfsBmapUnmapExtent(tp, ip, XFS_DATA_FORK, data);
    xfsRefcountDecreaseExtent(tp, data);
  } else if (data.startblock === DELAYSTARTBLOCK) {
    error = xfsBunmapi(tp, ip, data.startoff, data.count, 0, 1);
    if (error < 0) return error;
  }
  if (written) {
    xfsRefcountIncreaseExtent(tp, dmap);
    xfsBmapMapExtent(tp, ip, XFS_DATA_FORK, dmap);
  }
  const size = Math.min(dmap.endoff * mount.sb.blocksize, newSize);
  if (size > ip.size) {
    ip.size = ip.diskSize = size;
    tp.logInode(ip, XFS_ILOG_CORE);
  }
  return 1;
}

/** A range that is being shared: file blocks. */
class RemapWalk {
  readonly src: XfsInode;
  readonly dst: XfsInode;
  srcOff: number;
  dstOff: number;
  left: number;
  readonly newSize: number;
  error = 0;
  readonly map = new BmbtIrec();
  readonly maps = [this.map];

  constructor(range: RemapRange, len: number) {
    this.src = range.fileIn.inode as XfsInode;
    this.dst = range.fileOut.inode as XfsInode;
    const { mount } = this.src;
    this.srcOff = bToFsbt(mount, range.posIn);
    this.dstOff = bToFsbt(mount, range.posOut);
    this.left = bToFsb(mount, len);
    this.newSize = range.posOut + len;
  }

  /** Shares one extent after the other. */
  run(): void {
    while (this.error === 0 && this.left > 0) this.error = this.#remapNext();
  }

  #remapNext(): number {
    const { src, map } = this;
    ilockExcl(src);
    const n = xfsBmapiRead(src, this.srcOff, this.left, this.maps, 1, 0);
    src.ilock.upWrite();
    if (n < 0) return n;
    if (map.startblock === DELAYSTARTBLOCK) {
      return src.mount.corrupt(`inode ${src.ino}`, "promised after writeback");
    }
    map.startoff += this.dstOff - this.srcOff;
    const error = remapExtent(this.dst, map, this.newSize);
    if (error < 0) return error;
    this.srcOff += map.count;
    this.dstOff += map.count;
    this.left -= map.count;
    return 0;
  }
}

/** Shares the extents (kernel: `xfs_reflink_remap_blocks`).
 * @returns Bytes that are shared, or a negative errno if nothing is. */
function remapBlocks(range: RemapRange, len: number): number {
  const walk = new RemapWalk(range, len);
  const blocks = walk.left;
  walk.run();
  const done = (blocks - walk.left) * walk.src.mount.sb.blocksize;
  return done > 0 ? Math.min(done, len) : walk.error;
}

/** The hint that the destination takes over: that of a file of which it is a copy
 * (kernel: in `xfs_file_remap_range`). */
function inheritedHint(range: RemapRange, len: number): number {
  const src = range.fileIn.inode as XfsInode;
  const dst = range.fileOut.inode as XfsInode;
  const whole = range.posIn === 0 && range.posOut === 0 && len === src.size &&
    len >= dst.size;
  const has = (src.diflags2 & XFS_DIFLAG2_COWEXTSIZE) !== 0;
  const free = (dst.diflags2 & XFS_DIFLAG2_COWEXTSIZE) === 0;
  return whole && has && free ? src.cowextsize : 0;
}

/** Kernel: `xfs_reflink_update_dest`. */
function updateDest(ip: XfsInode, size: number, cowextsize: number): number {
  if (size <= ip.size && cowextsize === 0) return 0;
  const tp = xfsTransAlloc(ip.mount, 0);
  if (typeof tp === "number") return tp;
  ilockExcl(ip);
  if (size > ip.size) ip.size = ip.diskSize = size;
  if (cowextsize > 0) {
    ip.cowextsize = cowextsize;
    ip.diflags2 |= XFS_DIFLAG2_COWEXTSIZE;
  }
  tp.logInode(ip, XFS_ILOG_CORE);
  const error = tp.commit();
  ip.ilock.upWrite();
  return error;
}

function isSync({ iocbFlags }: File): boolean {
  return (iocbFlags & (IOCB_SYNC | IOCB_DSYNC)) !== 0;
}

/** The locks are held. */
function remapLocked(range: RemapRange, flags: number): MaybePromise<number> {
  const dst = range.fileOut.inode as XfsInode;
  const len: RemapLen = { value: range.len };
  return andThen(remapPrep(range, len, flags), (refused) => {
    if (refused < 0 || len.value === 0) return refused;
    const hint = inheritedHint(range, len.value);
    return andThen(remapBlocks(range, len.value), (done) => {
      if (done < len.value) return done;
      const error = updateDest(dst, range.posOut + len.value, hint);
      if (error < 0) return done;
      const sync = isSync(range.fileIn) || isSync(range.fileOut);
      return sync ? andThen(logForce(dst), () => done) : done;
    });
  });
}

/**
 * Shares a range of a file with another, or with another place in itself (kernel:
 * `xfs_file_remap_range`): the `remapFileRange` of files.
 *
 * Written extents are shared; holes and unwritten ones become holes. The last block of
 * `fileIn` may be shared though the file ends in it.
 *
 * @param len Bytes; 0 is to the end of `fileIn`.
 * @param flags `REMAP_FILE_*`.
 * @returns Bytes that are shared now; -EOPNOTSUPP without reflink; -EINVAL for unknown
 *   flags or ranges that are not of whole blocks; -EBADE (dedupe) if they differ;
 *   -ENOSPC; -EIO if the file system is shut down; another negative errno.
 */
export function xfsReflinkRemapFileRange(
  fileIn: File,
  posIn: number,
  fileOut: File,
  posOut: number,
  len: number,
  flags: number,
): MaybePromise<number> {
  const known = REMAP_FILE_DEDUP | REMAP_FILE_CAN_SHORTEN;
  if ((flags & ~known) !== 0) return -EINVAL;
  const src = fileIn.inode as XfsInode;
  const dst = fileOut.inode as XfsInode;
  if (!src.mount.sb.hasReflink) return -EOPNOTSUPP;
  if (src.mount.dead) return -EIO;
  const range = { fileIn, posIn, fileOut, posOut, len };
  return withLocks(src, dst, () => remapLocked(range, flags));
}

// ---- sharing no more ----

/**
 * Whether any block of a file is shared (kernel:
 * `xfs_reflink_inode_has_shared_extents`). The caller holds the ILOCK exclusively.
 *
 * @returns 1 if so, 0 if not, or a negative errno.
 */
export function xfsReflinkInodeHasSharedExtents(
  tp: XfsTrans | null,
  ip: XfsInode,
): number {
  const error = xfsIreadExtents(tp, ip, XFS_DATA_FORK);
  if (error < 0) return error;
  let more = ip.df.first(cur, got);
  while (more) {
    if (isWritten(got)) {
      const failed = findShared(tp, ip.mount, got, false);
      if (failed < 0) return failed;
      if (sharedRange.fbno !== NULLAGBLOCK) return 1;
    }
    more = ip.df.next(cur, got);
  }
  return 0;
}

/** Whether nothing will be written to the blocks for copies: dirty pages beside shared
 * blocks have theirs there, and so has I/O in flight, even if nothing is shared any more
 * (kernel: `xfs_can_free_cowblocks`). */
export function xfsCanFreeCowblocks({ mapping, dioCount }: XfsInode): boolean {
  return mapping.nrDirty === 0 && dioCount === 0 &&
    !mapping.pages.tagged(PAGECACHE_TAG_WRITEBACK);
}

/**
 * A file that shares nothing any more is as it was before, unless its copy-on-write fork
 * is in use (kernel:
 * `xfs_reflink_clear_inode_flag`). The caller holds the ILOCK exclusively.
 *
 * @param tp Rolls on if blocks for copies are to be freed.
 * @returns 0 or a negative errno.
 */
export function xfsReflinkClearInodeFlag(tp: XfsTrans, ip: XfsInode): number {
  if (!ip.isReflink || !xfsCanFreeCowblocks(ip)) return 0;
  const shared = xfsReflinkInodeHasSharedExtents(tp, ip);
  if (shared !== 0) return Math.min(shared, 0);
  const error = xfsReflinkCancelCowBlocks(tp, ip, 0, MAX_FILEOFF, true);
  if (error < 0) return error;
  ip.diflags2 &= ~XFS_DIFLAG2_REFLINK;
  tp.logInode(ip, XFS_ILOG_CORE);
  return 0;
}

/** The same in a transaction of its own (kernel:
 * `xfs_reflink_try_clear_inode_flag`).
 * @returns 0 or a negative errno. */
export function xfsReflinkTryClearInodeFlag(ip: XfsInode): number {
  const tp = xfsTransAlloc(ip.mount, 0);
  if (typeof tp === "number") return tp;
  ilockExcl(ip);
  let error = xfsReflinkClearInodeFlag(tp, ip);
  if (error < 0) tp.cancel();
  else error = tp.commit();
  ip.ilock.upWrite();
  return error;
}

/**
 * Gives a file blocks of its own wherever a range is shared (kernel:
 * `xfs_reflink_unshare`). The caller holds IOLOCK and MMAPLOCK exclusively.
 *
 * @param offset First byte.
 * @param len Bytes.
 * @returns 0, -ENOSPC or another negative errno.
 */
export function xfsReflinkUnshare(
  ip: XfsInode,
  offset: number,
  len: number,
): MaybePromise<number> {
  if (!ip.isReflink) return 0;
  return andThen(inodeDioWait(ip), () => {
    const copied = iomapFileUnshare(
      ip,
      offset,
      len,
      xfsBufferedWriteIomapOps,
      xfsIomapWriteOps,
    );
    return andThen(copied, (error) => {
      if (error < 0) return error;
      const last = offset + len - 1;
      const written = filemapWriteAndWaitRange(ip.mapping, offset, last);
      return andThen(
        written,
        (failed) => failed < 0 ? failed : xfsReflinkTryClearInodeFlag(ip),
      );
    });
  });
}
