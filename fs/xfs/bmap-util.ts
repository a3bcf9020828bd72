/**
 * Space of a file as a whole: preallocating, freeing ranges, and what lies beyond its
 * end.
 *
 * Kernel counterpart: fs/xfs/xfs_bmap_util.c, xfs_inode.c (`xfs_itruncate_extents`),
 * xfs_icache.c (`xfs_blockgc_*`).
 *
 * @module
 */

import { ENOSPC } from "../../lib/errno.ts";
import { andThen, type MaybePromise, repeat } from "../../lib/maybe-promise.ts";
import { filemapWriteAndWaitRange } from "../../mm/filemap.ts";
import { PAGE_MASK, PAGE_SIZE } from "../../mm/folio.ts";
import { truncatePagecacheRange } from "../../mm/truncate.ts";
import { MAX_LFS_FILESIZE } from "../fs.ts";
import { inodeDioWait, isReg } from "../inode.ts";
import {
  bmapiRead,
  bmapiWrite,
  bmapPunchDelalloc,
  bunmapi,
  MAX_BMBT_EXTLEN,
} from "./bmap.ts";
import { BmbtIrec, HOLESTARTBLOCK } from "./iext.ts";
import { ilockExcl, XFS_DIFLAG_PREALLOC, type XfsInode } from "./inode.ts";
import { bToFsb, bToFsbt, xfsZeroRange } from "./iomap.ts";
import type { XfsMount } from "./mount.ts";

const imap = new BmbtIrec();

/**
 * Whether a file has space beyond its end that may be freed (kernel:
 * `xfs_can_free_eofblocks`).
 */
export function canFreeEofblocks(ip: XfsInode): boolean {
  if (!isReg(ip) || ip.df.nextents === 0) return false;
  const { mount } = ip;
  // What was asked for stays; what a write promised itself goes.
  if ((ip.diflags & XFS_DIFLAG_PREALLOC) !== 0 && ip.delayedBlocks === 0) {
    return false;
  }
  const end = bToFsb(mount, ip.size);
  const last = bToFsb(mount, mount.maxBytes);
  if (last <= end) return false;
  bmapiRead(ip.df, end, last - end, imap);
  return imap.startblock !== HOLESTARTBLOCK || ip.delayedBlocks > 0;
}

/**
 * Frees space beyond the end of a file (kernel: `xfs_free_eofblocks`). The caller
 * holds the IOLOCK exclusively.
 *
 * @returns 0.
 */
export function freeEofblocks(ip: XfsInode): MaybePromise<number> {
  return andThen(inodeDioWait(ip), () => {
    const end = bToFsb(ip.mount, ip.size);
    ilockExcl(ip);
    if ((ip.diflags & XFS_DIFLAG_PREALLOC) !== 0) {
      bmapPunchDelalloc(ip, end, Infinity);
    } else {
      bunmapi(ip, end, Infinity);
      ip.mount.blockgc.delete(ip);
    }
    ip.ilock.upWrite();
    return 0;
  });
}

/** Frees space beyond the end of all files that nobody is using (kernel:
 * `xfs_blockgc_free_space`). */
export function freeAllEofblocks(mp: XfsMount): MaybePromise<void> {
  const inodes = [...mp.blockgc];
  let next = 0;
  return repeat(() => {
    const ip = inodes[next++];
    if (ip === undefined) return false;
    if (!canFreeEofblocks(ip) || !ip.rwsem.tryDownWrite()) return true;
    return andThen(freeEofblocks(ip), () => {
      ip.rwsem.upWrite();
      return true;
    });
  });
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
): MaybePromise<number> {
  const { mount } = ip;
  let off = bToFsbt(mount, offset);
  const end = bToFsb(mount, offset + len);
  let error = 0;
  let retried = false;
  const walked = repeat(() => {
    if (off >= end) return false;
    const want = Math.min(end - off, MAX_BMBT_EXTLEN);
    if (want > mount.fdblocks && !retried) {
      retried = true;
      return andThen(freeAllEofblocks(mount), () => true);
    }
    error = want > mount.fdblocks ? -ENOSPC : allocOneExtent(ip, off, want);
    off = imap.endoff;
    return error === 0;
  });
  return andThen(walked, () => error);
}

/** One mapping of the range, into `imap`. */
function allocOneExtent(ip: XfsInode, off: number, want: number): number {
  ilockExcl(ip);
  const error = bmapiWrite(ip, off, want, imap);
  if (error === 0) {
    ip.diflags |= XFS_DIFLAG_PREALLOC;
    ip.logMap();
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
function flushUnmapRange(
  ip: XfsInode,
  offset: number,
  len: number,
): MaybePromise<number> {
  const unit = Math.max(ip.mount.geo.blockSize, PAGE_SIZE);
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
    if (end > first) {
      ilockExcl(ip);
      bunmapi(ip, first, end);
      ip.ilock.upWrite();
    }
    if (offset >= ip.size) return 0;
    const stop = Math.min(offset + len, ip.size);
    return andThen(
      xfsZeroRange(ip, offset, stop - offset, null),
      (zeroed) => zeroed < 0 ? zeroed : flushEofPage(ip, stop),
    );
  });
}

/** What a mapping of the last page shows beyond the end is zeroed by writing it back. */
function flushEofPage(ip: XfsInode, end: number): MaybePromise<number> {
  if (end < ip.size || (end & PAGE_MASK) === 0) return 0;
  const page = Math.floor(end / PAGE_SIZE) * PAGE_SIZE;
  return filemapWriteAndWaitRange(ip.mapping, page, MAX_LFS_FILESIZE);
}
