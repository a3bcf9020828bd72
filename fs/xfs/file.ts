/**
 * Open files: reading and writing through the cache and past it, syncing,
 * preallocating.
 *
 * Kernel counterpart: fs/xfs/xfs_file.c.
 *
 * @module
 */

import { blkdevIssueFlush } from "../../block/blk-lib.ts";
import {
  EAGAIN,
  EFBIG,
  EINVAL,
  EIO,
  ENOPROTOOPT,
  ENOSPC,
  ENOTBLK,
  EOPNOTSUPP,
} from "../../lib/errno.ts";
import type { IovIter } from "../../lib/iov-iter.ts";
import {
  andThen,
  andThenWith,
  type MaybePromise,
} from "../../lib/maybe-promise.ts";
import {
  filemapFdatawriteRange,
  filemapRead,
  fileWriteAndWaitRange,
} from "../../mm/filemap.ts";
import {
  filemapFault,
  filemapMapPages,
  type VmFault,
  type VmOperations,
} from "../../mm/mmap.ts";
import type { SwapInfo } from "../../mm/swap.ts";
import {
  iomapFileBufferedWrite,
  iomapPageMkwrite,
} from "../../iomap/buffered-io.ts";
import { iocbBioIopoll, iomapDioRw } from "../../iomap/direct-io.ts";
import {
  IOMAP_DIO_COW,
  IOMAP_DIO_FORCE_WAIT,
  IOMAP_DIO_OVERWRITE_ONLY,
  IOMAP_DIO_UNWRITTEN,
  type IomapDioOps,
} from "../../iomap/iomap.ts";
import { iomapSeekData, iomapSeekHole } from "../../iomap/seek.ts";
import { iomapSwapfileActivate } from "../../iomap/swapfile.ts";
import {
  type DirEntry,
  FALLOC_FL_COLLAPSE_RANGE,
  FALLOC_FL_INSERT_RANGE,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_UNSHARE_RANGE,
  FALLOC_FL_ZERO_RANGE,
  type File,
  type FileOperations,
  FMODE_BUF_WASYNC,
  FMODE_CAN_ATOMIC_WRITE,
  FMODE_CAN_ODIRECT,
  FMODE_DONTCACHE,
  FMODE_NOWAIT,
  FMODE_WRITE,
  type Inode,
  MAX_LFS_FILESIZE,
  SEEK_DATA,
} from "../fs.ts";
import {
  fileAccessed,
  fileUpdateTime,
  inodeDioWait,
  inodeLock,
  inodeLockIocb,
  inodeUnlock,
  kiocbModified,
} from "../inode.ts";
import {
  IOCB_ATOMIC,
  IOCB_DIRECT,
  IOCB_DSYNC,
  IOCB_NOWAIT,
  IOCB_SYNC,
  type Kiocb,
} from "../kiocb.ts";
import { genericAtomicWriteValid, genericWriteChecks } from "../read-write.ts";
import { genericWriteSync } from "../sync.ts";
import {
  allocFileSpace,
  canFreeEofblocks,
  collapseFileSpace,
  freeEofblocks,
  freeFileSpace,
  insertFileSpace,
} from "./bmap-util.ts";
import { XfsDirReader } from "./dir2-readdir.ts";
import { freeSpace } from "./icache.ts";
import type { XfsInode } from "./inode.ts";
import {
  xfsAtomicWriteCowIomapOps,
  xfsBufferedWriteIomapOps,
  xfsDirectWriteIomapOps,
  xfsIomapWriteOps,
  xfsIomapWriteUnwritten,
  xfsReadIomapOps,
  xfsSeekIomapOps,
  xfsSetfilesize,
  xfsZeroRange,
} from "./iomap.ts";
import { setattrSize, xfsFtypeToMode } from "./iops.ts";
import { decodeName } from "./name.ts";
import {
  xfsReflinkEndAtomicCow,
  xfsReflinkEndCow,
  xfsReflinkRemapFileRange,
  xfsReflinkUnshare,
} from "./reflink.ts";
import { logForce } from "./super.ts";

/** Goes on with a call. What may wait and is on the path of a hit goes on like this:
 * merely to contain a closure costs a function an object each time it is called. */
function rwThen(
  value: MaybePromise<number>,
  next: (value: number, iocb: Kiocb, iter: IovIter) => MaybePromise<number>,
  iocb: Kiocb,
  iter: IovIter,
): MaybePromise<number> {
  return value instanceof Promise
    ? rwLater(value, next, iocb, iter)
    : next(value, iocb, iter);
}

function rwLater(
  value: Promise<number>,
  next: (value: number, iocb: Kiocb, iter: IovIter) => MaybePromise<number>,
  iocb: Kiocb,
  iter: IovIter,
): Promise<number> {
  return value.then((n) => next(n, iocb, iter));
}

/** Kernel: `xfs_file_read_iter`. */
function readIter(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  if (iter.count === 0) return 0;
  if ((iocb.file.inode as XfsInode).mount.dead) return -EIO;
  if ((iocb.flags & IOCB_DIRECT) !== 0) return dioRead(iocb, iter);
  return rwThen(inodeLockIocb(iocb, false), readLocked, iocb, iter);
}

function readLocked(
  error: number,
  iocb: Kiocb,
  iter: IovIter,
): MaybePromise<number> {
  if (error < 0) return error;
  return andThenWith(filemapRead(iocb, iter), readDone, iocb.file.inode);
}

function readDone(ret: number, inode: Inode): number {
  inode.rwsem.upRead();
  fileAccessed(inode);
  return ret;
}

/** Kernel: `xfs_file_dio_read`. */
function dioRead(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  fileAccessed(iocb.file.inode);
  return rwThen(inodeLockIocb(iocb, false), dioReadLocked, iocb, iter);
}

function dioReadLocked(
  error: number,
  iocb: Kiocb,
  iter: IovIter,
): MaybePromise<number> {
  if (error < 0) return error;
  const ret = iomapDioRw(iocb, iter, xfsReadIomapOps, null, 0, null, 0);
  return andThenWith(ret, dioUnlockShared, iocb.file.inode);
}

function dioUnlockShared(ret: number, inode: Inode): number {
  inode.rwsem.upRead();
  return ret;
}

/** Kernel: `xfs_file_write_iter`. */
function writeIter(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  if (iter.count === 0) return 0;
  const ip = iocb.file.inode as XfsInode;
  if (ip.mount.dead) return -EIO;
  if ((iocb.flags & IOCB_ATOMIC) !== 0) {
    const { atomicWriteMin, atomicWriteMax } = ip;
    if (iter.count < atomicWriteMin || iter.count > atomicWriteMax) {
      return -EINVAL;
    }
    const invalid = genericAtomicWriteValid(iocb, iter);
    if (invalid !== 0) return invalid;
  }
  return (iocb.flags & IOCB_DIRECT) === 0
    ? bufferedWrite(iocb, iter)
    : rwThen(dioWrite(iocb, iter), dioWriteFallback, iocb, iter);
}

/** What the cache would not let go of is written through it. */
function dioWriteFallback(
  ret: number,
  iocb: Kiocb,
  iter: IovIter,
): MaybePromise<number> {
  return ret === -ENOTBLK ? bufferedWrite(iocb, iter) : ret;
}

/** Kernel: `xfs_file_buffered_write`. */
function bufferedWrite(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  return rwThen(bufferedWriteOnce(iocb, iter), bufferedWriteEnd, iocb, iter);
}

function bufferedWriteEnd(
  ret: number,
  iocb: Kiocb,
  iter: IovIter,
): MaybePromise<number> {
  return ret === -ENOSPC ? bufferedWriteAgain(iocb, iter) : ret;
}

/** Once more, after space has been freed: now ENOSPC is final. */
function bufferedWriteAgain(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  const freed = freeSpace((iocb.file.inode as XfsInode).mount);
  return andThen(freed, () => bufferedWriteOnce(iocb, iter));
}

function bufferedWriteOnce(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  return rwThen(inodeLockIocb(iocb, true), bufferedWriteLocked, iocb, iter);
}

function bufferedWriteLocked(
  error: number,
  iocb: Kiocb,
  iter: IovIter,
): MaybePromise<number> {
  if (error < 0) return error;
  const written = rwThen(writeChecks(iocb, iter), writeToCache, iocb, iter);
  return andThenWith(written, bufferedWriteDone, iocb);
}

/** @param ready Bytes that may be written, or why none. */
function writeToCache(
  ready: number,
  iocb: Kiocb,
  iter: IovIter,
): MaybePromise<number> {
  if (ready <= 0) return ready;
  return iomapFileBufferedWrite(
    iocb,
    iter,
    xfsBufferedWriteIomapOps,
    xfsIomapWriteOps,
    null,
  );
}

function bufferedWriteDone(ret: number, iocb: Kiocb): MaybePromise<number> {
  iocb.file.inode.rwsem.upWrite();
  return ret > 0 ? genericWriteSync(iocb, ret) : ret;
}

/**
 * What comes before every write, under the IOLOCK, exclusively (kernel:
 * `xfs_file_write_checks`).
 *
 * @returns Bytes to write; 0 for none, or a negative errno.
 */
function writeChecks(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  const count = genericWriteChecks(iocb, iter);
  if (count <= 0) return count;
  if (iocb.pos > iocb.file.inode.size) return zeroEof(iocb, iter);
  const error = kiocbModified(iocb);
  return error < 0 ? error : count;
}

/** The write begins beyond the end of the file: what lies between has to read as zero
 * (kernel: `xfs_file_write_zero_eof`). */
function zeroEof(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  if ((iocb.flags & IOCB_NOWAIT) !== 0) return -EAGAIN;
  const ip = iocb.file.inode as XfsInode;
  return andThen(inodeDioWait(ip), () => {
    // Direct I/O that was in flight may have moved the end.
    const count = genericWriteChecks(iocb, iter);
    if (count <= 0) return count;
    return andThen(zeroGap(ip, iocb.pos), (error) => {
      if (error === 0) error = kiocbModified(iocb);
      return error < 0 ? error : count;
    });
  });
}

/** Zeroes from the end of the file to `pos`. */
function zeroGap(ip: XfsInode, pos: number): MaybePromise<number> {
  if (pos <= ip.size) return 0;
  const { invalidateLock } = ip.mapping;
  return andThen(invalidateLock.downWrite(), () => {
    const zeroed = xfsZeroRange(ip, ip.size, pos - ip.size, null);
    return andThen(zeroed, (error) => {
      invalidateLock.upWrite();
      return error;
    });
  });
}

/** Kernel: `xfs_file_dio_write`. */
function dioWrite(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  const { mount } = iocb.file.inode as XfsInode;
  const sectorMask = mount.bdev.limits.logicalBlockSize - 1;
  const blockMask = mount.sb.blocksize - 1;
  const { pos } = iocb;
  const { count } = iter;
  if ((pos & sectorMask) !== 0 || (count & sectorMask) !== 0) return -EINVAL;
  if ((iocb.flags & IOCB_ATOMIC) !== 0) return dioWriteAtomic(iocb, iter);
  return (pos & blockMask) !== 0 || (count & blockMask) !== 0
    ? dioWriteUnaligned(iocb, iter)
    : dioWriteAligned(iocb, iter);
}

/** Whole blocks: many at once, even where the file grows (kernel:
 * `xfs_file_dio_write_aligned`). */
function dioWriteAligned(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  return dioWriteShared(iocb, iter, dioSubmitShared, dioWriteBeyond);
}

/**
 * All or nothing (kernel: `xfs_file_dio_write_atomic`): by the device, or where it cannot
 * do that, out of place.
 */
function dioWriteAtomic(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  const ip = iocb.file.inode as XfsInode;
  if (iter.count > ip.atomicHwMax) return dioWriteAtomicCow(iocb, iter);
  return andThen(dioWriteAligned(iocb, iter), (ret) => {
    if (ret !== -ENOPROTOOPT) return ret;
    // Where the file lies the device cannot.
    return ip.mount.sb.hasReflink ? dioWriteAtomicCow(iocb, iter) : -EINVAL;
  });
}

function dioWriteAtomicCow(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  return dioWriteShared(iocb, iter, dioSubmitAtomicCow, dioWriteBeyondCow);
}

/** Submits with the IOLOCK held shared, and gives it back. */
function dioSubmitAtomicCow(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  const written = iomapDioRw(
    iocb,
    iter,
    xfsAtomicWriteCowIomapOps,
    dioWriteOps,
    0,
    null,
    0,
  );
  return andThenWith(written, dioUnlockShared, iocb.file.inode);
}

type DioWrite = (iocb: Kiocb, iter: IovIter) => MaybePromise<number>;

/**
 * Checks a write under the IOLOCK, shared.
 *
 * @param submit Goes on, and gives the lock back.
 * @param beyond Takes over, without the lock, what begins beyond the end of the file.
 */
function dioWriteShared(
  iocb: Kiocb,
  iter: IovIter,
  submit: DioWrite,
  beyond: DioWrite,
): MaybePromise<number> {
  const { inode } = iocb.file;
  return andThen(inodeLockIocb(iocb, false), (error) => {
    if (error < 0) return error;
    const count = genericWriteChecks(iocb, iter);
    if (count > 0 && iocb.pos > inode.size) {
      inodeUnlock(inode, false);
      return beyond(iocb, iter);
    }
    const modified = count > 0 ? kiocbModified(iocb) : count;
    if (count > 0 && modified === 0) return submit(iocb, iter);
    inodeUnlock(inode, false);
    return modified;
  });
}

/** Zeroing up to where the write begins needs the file for itself; the write does
 * not. */
function dioWriteBeyond(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  return beyondEof(iocb, iter, dioSubmitShared);
}

function dioWriteBeyondCow(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  return beyondEof(iocb, iter, dioSubmitAtomicCow);
}

function beyondEof(
  iocb: Kiocb,
  iter: IovIter,
  submit: DioWrite,
): MaybePromise<number> {
  if ((iocb.flags & IOCB_NOWAIT) !== 0) return -EAGAIN;
  const { inode } = iocb.file;
  return andThen(inodeLockIocb(iocb, true), (error) => {
    if (error < 0) return error;
    return andThen(writeChecks(iocb, iter), (count) => {
      if (count <= 0) {
        inodeUnlock(inode, true);
        return count;
      }
      inode.rwsem.downgradeWrite();
      return submit(iocb, iter);
    });
  });
}

/** Submits with the IOLOCK held shared, and gives it back. */
function dioSubmitShared(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  return andThenWith(dioRw(iocb, iter, 0), dioUnlockShared, iocb.file.inode);
}

function dioRw(
  iocb: Kiocb,
  iter: IovIter,
  dioFlags: number,
): MaybePromise<number> {
  return iomapDioRw(
    iocb,
    iter,
    xfsDirectWriteIomapOps,
    dioWriteOps,
    dioFlags,
    null,
    0,
  );
}

/** Parts of blocks: shared with others only where written blocks are overwritten
 * (kernel: `xfs_file_dio_write_unaligned`). */
function dioWriteUnaligned(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  const ip = iocb.file.inode as XfsInode;
  // At the end of the file the rest of the last block is zeroed.
  const alone = iocb.pos + iter.count >= ip.size;
  if (alone && (iocb.flags & IOCB_NOWAIT) !== 0) return -EAGAIN;
  return alone
    ? dioWriteAlone(iocb, iter)
    : dioWriteShared(iocb, iter, dioOverwriteShared, dioWriteAlone);
}

/** Overwrites with the IOLOCK held shared, and gives it back; what turns out to be more
 * than that is done again, alone. */
function dioOverwriteShared(
  iocb: Kiocb,
  iter: IovIter,
): MaybePromise<number> {
  const written = mayShareBlocks(iocb)
    ? -ENOTBLK
    : dioRw(iocb, iter, IOMAP_DIO_OVERWRITE_ONLY);
  return andThen(written, (ret) => {
    inodeUnlock(iocb.file.inode, false);
    return ret === -EAGAIN ? dioWriteAlone(iocb, iter) : ret;
  });
}

/** Part of a shared block cannot get a copy of its own: that is left to the cache. The
 * IOLOCK is held, so nobody begins to share. */
function mayShareBlocks(iocb: Kiocb): boolean {
  return (iocb.file.inode as XfsInode).isReflink;
}

/** With no other direct I/O in flight: completion of one would convert, and zero, what
 * the other has written. */
function dioWriteAlone(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
  if ((iocb.flags & IOCB_NOWAIT) !== 0) return -EAGAIN;
  const { inode } = iocb.file;
  return andThen(inodeLockIocb(iocb, true), (error) => {
    if (error < 0) return error;
    const checked = mayShareBlocks(iocb) ? -ENOTBLK : writeChecks(iocb, iter);
    const written = andThen(checked, (count) => {
      if (count <= 0) return count;
      return andThen(
        inodeDioWait(inode),
        () => dioRw(iocb, iter, IOMAP_DIO_FORCE_WAIT),
      );
    });
    return andThen(written, (ret) => {
      inodeUnlock(inode, true);
      return ret;
    });
  });
}

/** A direct write has ended (kernel: `xfs_dio_write_end_io`). */
function dioWriteEndIo(
  iocb: Kiocb,
  size: number,
  error: number,
  flags: number,
): MaybePromise<number> {
  const { targ } = (iocb.file.inode as XfsInode).mount;
  if (!targ.busy) return endDio(iocb, size, error, flags);
  // Called by an event while something else is half-way.
  return new Promise<void>((resolve) => targ.whenIdle(resolve)).then(() =>
    endDio(iocb, size, error, flags)
  );
}

function endDio(
  iocb: Kiocb,
  size: number,
  error: number,
  flags: number,
): number {
  const ip = iocb.file.inode as XfsInode;
  if (ip.mount.dead) return -EIO;
  if (error !== 0 || size === 0) return error;
  const { pos } = iocb;
  if ((flags & IOMAP_DIO_COW) !== 0) {
    const atomic = (iocb.flags & IOCB_ATOMIC) !== 0;
    const moved = atomic
      ? xfsReflinkEndAtomicCow(ip, pos, size)
      : xfsReflinkEndCow(ip, pos, size);
    if (moved < 0) return moved;
  }
  if ((flags & IOMAP_DIO_UNWRITTEN) !== 0) {
    // Size and state change together: data never shows up as a hole in between.
    return xfsIomapWriteUnwritten(ip, pos, size, true);
  }
  if (pos + size <= ip.size) return 0;
  ip.size = pos + size;
  return xfsSetfilesize(ip, pos, size);
}

/** Kernel: `xfs_dio_write_ops`. */
const dioWriteOps: IomapDioOps = { endIo: dioWriteEndIo };

/** Kernel: `xfs_file_fsync`. */
function fsync(
  file: File,
  start: number,
  end: number,
  datasync: boolean,
): MaybePromise<number> {
  const ip = file.inode as XfsInode;
  const written = fileWriteAndWaitRange(ip.mapping, file, start, end);
  return andThen(written, (error) => {
    if (error < 0) return error;
    if (ip.mount.dead) return -EIO;
    // What a truncation exposed is safe: nothing is left for a close to do.
    ip.truncated = false;
    // A datasync leaves timestamps alone.
    return datasync && !ip.mapLogged
      ? blkdevIssueFlush(ip.mount.bdev)
      : logForce(ip);
  });
}

/** Kernel: `xfs_file_fallocate`. */
function fallocate(
  file: File,
  mode: number,
  offset: number,
  len: number,
): MaybePromise<number> {
  const work = fallocateMode(mode);
  if (work === null) return -EOPNOTSUPP;
  const ip = file.inode as XfsInode;
  const { invalidateLock } = ip.mapping;
  return andThen(inodeLock(ip, true), (refused) => {
    if (refused < 0) return refused;
    const worked = andThen(
      invalidateLock.downWrite(),
      () =>
        andThen(inodeDioWait(ip), () => {
          if (ip.mount.dead) return -EIO;
          fileUpdateTime(ip);
          return work(ip, mode, offset, len);
        }),
    );
    const synced = andThen(worked, (error) => {
      const sync = (file.iocbFlags & (IOCB_SYNC | IOCB_DSYNC)) !== 0;
      return error < 0 || !sync ? error : logForce(ip);
    });
    return andThen(synced, (error) => {
      invalidateLock.upWrite();
      inodeUnlock(ip, true);
      return error;
    });
  });
}

type FallocateWork = (
  ip: XfsInode,
  mode: number,
  offset: number,
  len: number,
) => MaybePromise<number>;

function fallocateMode(mode: number): FallocateWork | null {
  switch (mode & ~FALLOC_FL_KEEP_SIZE) {
    case 0:
      return fallocAllocateRange;
    case FALLOC_FL_PUNCH_HOLE:
      return (ip, _mode, offset, len) => freeFileSpace(ip, offset, len);
    case FALLOC_FL_ZERO_RANGE:
      return fallocZeroRange;
    case FALLOC_FL_COLLAPSE_RANGE:
      return fallocCollapseRange;
    case FALLOC_FL_INSERT_RANGE:
      return fallocInsertRange;
    case FALLOC_FL_UNSHARE_RANGE:
      return fallocUnshareRange;
    default:
      return null;
  }
}

/** Whether a range is of whole blocks (kernel: `xfs_is_falloc_aligned`). */
function isFallocAligned(ip: XfsInode, offset: number, len: number): boolean {
  const bs = ip.mount.sb.blocksize;
  return offset % bs === 0 && len % bs === 0;
}

/** Kernel: `xfs_falloc_collapse_range`. */
function fallocCollapseRange(
  ip: XfsInode,
  _mode: number,
  offset: number,
  len: number,
): MaybePromise<number> {
  if (!isFallocAligned(ip, offset, len)) return -EINVAL;
  // That would be a truncation.
  if (offset + len >= ip.size) return -EINVAL;
  const size = ip.size - len;
  return andThen(
    collapseFileSpace(ip, offset, len),
    (error) => error < 0 ? error : setattrSize(ip, size),
  );
}

/** Kernel: `xfs_falloc_insert_range`. */
function fallocInsertRange(
  ip: XfsInode,
  _mode: number,
  offset: number,
  len: number,
): MaybePromise<number> {
  if (!isFallocAligned(ip, offset, len)) return -EINVAL;
  if (len > ip.mount.maxBytes - ip.size) return -EFBIG;
  if (offset >= ip.size) return -EINVAL;
  return andThen(
    setattrSize(ip, ip.size + len),
    (error) => error < 0 ? error : insertFileSpace(ip, offset, len),
  );
}

/** Kernel: `xfs_falloc_unshare_range`. */
function fallocUnshareRange(
  ip: XfsInode,
  mode: number,
  offset: number,
  len: number,
): MaybePromise<number> {
  return andThen(
    xfsReflinkUnshare(ip, offset, len),
    (error) => error < 0 ? error : fallocAllocateRange(ip, mode, offset, len),
  );
}

/** Kernel: `xfs_falloc_allocate_range`. */
function fallocAllocateRange(
  ip: XfsInode,
  mode: number,
  offset: number,
  len: number,
): MaybePromise<number> {
  return andThen(
    allocFileSpace(ip, offset, len),
    (error) => error < 0 ? error : fallocSetsize(ip, mode, offset + len),
  );
}

/** Kernel: `xfs_falloc_zero_range`. */
function fallocZeroRange(
  ip: XfsInode,
  mode: number,
  offset: number,
  len: number,
): MaybePromise<number> {
  const freed = freeFileSpace(ip, offset, len);
  const allocated = andThen(
    freed,
    (error) => error < 0 ? error : allocFileSpace(ip, offset, len),
  );
  return andThen(
    allocated,
    (error) => error < 0 ? error : fallocSetsize(ip, mode, offset + len),
  );
}

/** The file grows to the end of the range unless it must not (kernel:
 * `xfs_falloc_setsize`). */
function fallocSetsize(
  ip: XfsInode,
  mode: number,
  end: number,
): MaybePromise<number> {
  if ((mode & FALLOC_FL_KEEP_SIZE) !== 0 || end <= ip.size) return 0;
  return setattrSize(ip, end);
}

/** Kernel: `xfs_file_llseek`. */
function llseek(
  file: File,
  offset: number,
  whence: number,
): MaybePromise<number> {
  if ((file.inode as XfsInode).mount.dead) return -EIO;
  return whence === SEEK_DATA
    ? iomapSeekData(file.inode, offset, xfsSeekIomapOps)
    : iomapSeekHole(file.inode, offset, xfsSeekIomapOps);
}

/** Kernel: `xfs_file_open`. */
function open(inode: Inode, file: File): number {
  file.mode |= FMODE_NOWAIT | FMODE_CAN_ODIRECT | FMODE_BUF_WASYNC |
    FMODE_DONTCACHE;
  if ((inode as XfsInode).atomicWriteMin > 0) {
    file.mode |= FMODE_CAN_ATOMIC_WRITE;
  }
  return 0;
}

/** Kernel: `xfs_file_release`. */
function release(file: File): MaybePromise<void> {
  const ip = file.inode as XfsInode;
  if (ip.mount.dead || ip.mount.readOnly) return;
  let flushed: MaybePromise<number> = 0;
  if (ip.truncated) {
    ip.truncated = false;
    ip.eofblocksReleased = false;
    // A file that is emptied and written anew must not be found empty later.
    if (ip.delayedBlks > 0) {
      flushed = filemapFdatawriteRange(ip.mapping, 0, MAX_LFS_FILESIZE, false);
    }
  }
  const trimmed = andThen(flushed, () => releaseEofblocks(ip, file));
  return andThen(trimmed, () => undefined);
}

/** The first close of a writer frees what was promised beyond the end. A file that is
 * opened and closed again and again for appending keeps it after that. */
function releaseEofblocks(ip: XfsInode, file: File): MaybePromise<number> {
  if (ip.nlink === 0 || (file.mode & FMODE_WRITE) === 0) return 0;
  if (ip.eofblocksReleased || !canFreeEofblocks(ip)) return 0;
  if (!ip.rwsem.tryDownWrite()) return 0;
  ip.eofblocksReleased = true;
  return andThen(freeEofblocks(ip), (error) => {
    ip.rwsem.upWrite();
    return error;
  });
}

/** Kernel: `xfs_file_readdir`. */
function iterate(dir: Inode): MaybePromise<DirEntry[] | number> {
  const dp = dir as XfsInode;
  if (dp.mount.dead) return -EIO;
  fileAccessed(dir);
  const reader = new XfsDirReader(dp, false);
  const entries: DirEntry[] = [];
  for (;;) {
    const dirent = reader.next();
    if (dirent === 0) return entries;
    if (typeof dirent === "number") return dirent;
    const type = xfsFtypeToMode(dirent.ftype);
    entries.push({ name: decodeName(dirent.name), ino: dirent.ino, type });
  }
}

/** Kernel: `xfs_dir_fsync`. */
function dirFsync(file: File): MaybePromise<number> {
  return logForce(file.inode as XfsInode);
}

/** Kernel: `xfs_write_fault`. */
function writeFault(vmf: VmFault): MaybePromise<number> {
  const ip = vmf.vma.mapping.host as XfsInode;
  const { invalidateLock } = ip.mapping;
  fileUpdateTime(ip);
  return andThen(invalidateLock.downRead(), () => {
    const made = iomapPageMkwrite(vmf, xfsBufferedWriteIomapOps, null);
    return andThen(made, (code) => {
      invalidateLock.upRead();
      return code;
    });
  });
}

/** Faults of mapped files (kernel: `xfs_file_vm_ops`). */
const vmOps: VmOperations = {
  fault: filemapFault,
  mapPages: filemapMapPages,
  pageMkwrite: writeFault,
};

/** Kernel: `xfs_file_mmap`. */
function mmap(file: File): VmOperations {
  fileAccessed(file.inode);
  return vmOps;
}

/** Kernel: `xfs_vm_swap_activate`. */
function swapActivate(
  sis: SwapInfo,
  file: File,
  span: { value: number },
): MaybePromise<number> {
  return iomapSwapfileActivate(sis, file, span, xfsReadIomapOps);
}

/** Methods of open files (kernel: `xfs_file_operations`). */
export const xfsFileOperations: FileOperations = {
  open,
  readIter,
  writeIter,
  fsync,
  fallocate,
  llseek,
  release,
  iopoll: iocbBioIopoll,
  remapFileRange: xfsReflinkRemapFileRange,
  mmap,
  swapActivate,
};

/** Methods of open directories (kernel: `xfs_dir_file_operations`). */
export const xfsDirFileOperations: FileOperations = {
  iterate,
  fsync: dirFsync,
};
