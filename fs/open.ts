/**
 * Opening, closing, truncating and preallocating.
 *
 * Kernel counterpart: fs/open.c, fs/attr.c, fs/file_table.c.
 *
 * @module
 */

import {
  EBADF,
  EFBIG,
  EINVAL,
  EISDIR,
  ENODEV,
  EOPNOTSUPP,
  EROFS,
  ETXTBSY,
} from "../lib/errno.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import { filemapSampleWbErr } from "../mm/filemap.ts";
import {
  FALLOC_FL_COLLAPSE_RANGE,
  FALLOC_FL_INSERT_RANGE,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_UNSHARE_RANGE,
  FALLOC_FL_WRITE_ZEROES,
  FALLOC_FL_ZERO_RANGE,
  File,
  FMODE_CAN_ODIRECT,
  FMODE_WRITE,
  type Inode,
  MAX_LFS_FILESIZE,
  S_SWAPFILE,
} from "./fs.ts";
import {
  currentTime,
  ihold,
  inodeLock,
  inodeUnlock,
  iput,
  isDir,
  isReg,
  trackWork,
} from "./inode.ts";
import { IOCB_DIRECT } from "./kiocb.ts";

/**
 * Makes an open file of an inode (kernel: `do_dentry_open`).
 *
 * @param mode `FMODE_READ`, `FMODE_WRITE`.
 * @param iocbFlags `IOCB_*` that every call on it gets.
 * @returns The file, which holds a reference to the inode until
 *   {@linkcode fileClose}; -EINVAL for direct I/O that the file does not support.
 */
export function fileOpen(
  inode: Inode,
  path: string,
  mode: number,
  iocbFlags: number,
): MaybePromise<File | number> {
  const file = new File(inode, path, mode, iocbFlags);
  file.wbErr = filemapSampleWbErr(inode.mapping);
  ihold(inode);
  inode.sb.openFiles++;
  return andThen(inode.fop.open?.(inode, file) ?? 0, (error) => {
    const direct = (iocbFlags & IOCB_DIRECT) !== 0;
    if (error === 0 && direct && (file.mode & FMODE_CAN_ODIRECT) === 0) {
      error = -EINVAL;
    }
    if (error === 0) return file;
    fileClose(file);
    return error;
  });
}

/**
 * Ends an open file (kernel: `__fput`).
 *
 * @returns When all of it is done. Nobody needs to wait for it: unmount does.
 */
export function fileClose(file: File): MaybePromise<void> {
  const { inode } = file;
  inode.sb.openFiles--;
  const released = andThen(inode.fop.release?.(file), () => iput(inode));
  return trackWork(inode.sb, released);
}

/**
 * Sets the size of a regular file (kernel: `do_truncate`, `inode_newsize_ok`).
 *
 * @param size Bytes.
 * @param touch Its times become now even if it has that size (kernel: `time_attrs`).
 * @returns 0; -EINVAL for a negative size; -EFBIG beyond the largest file; -ETXTBSY
 *   for a swap file; -EAGAIN in a synchronous call where another holds the lock.
 */
export function doTruncate(
  inode: Inode,
  size: number,
  touch: boolean,
): MaybePromise<number> {
  if (size < 0) return -EINVAL;
  return andThen(inodeLock(inode, true), (error) => {
    if (error < 0) return error;
    return andThen(setSize(inode, size, touch), (result) => {
      inodeUnlock(inode, true);
      return result;
    });
  });
}

function setSize(
  inode: Inode,
  size: number,
  touch: boolean,
): MaybePromise<number> {
  if (size > inode.size) {
    if (size > inode.sb.maxBytes) return -EFBIG;
  } else if ((inode.flags & S_SWAPFILE) !== 0) return -ETXTBSY;
  const attr = touch ? { size, mtime: currentTime(inode.sb) } : { size };
  return inode.iop.setattr(inode, attr);
}

/** Truncates by name (kernel: `vfs_truncate`): -EISDIR for a directory, -EINVAL for
 * anything else that is not a regular file, -EROFS, else as {@linkcode doTruncate}. */
export function vfsTruncate(inode: Inode, size: number): MaybePromise<number> {
  if (size < 0) return -EINVAL;
  if (isDir(inode)) return -EISDIR;
  if (!isReg(inode)) return -EINVAL;
  if (inode.sb.readOnly) return -EROFS;
  return doTruncate(inode, size, false);
}

/** Truncates an open file (kernel: `do_ftruncate`): -EINVAL if it is not a regular
 * file open for writing, else as {@linkcode doTruncate}. */
export function vfsFtruncate(file: File, size: number): MaybePromise<number> {
  if (size < 0) return -EINVAL;
  if (!isReg(file.inode) || (file.mode & FMODE_WRITE) === 0) return -EINVAL;
  return doTruncate(file.inode, size, true);
}

/**
 * Preallocates, punches, zeroes, collapses, inserts (kernel: `vfs_fallocate`).
 *
 * @param mode `FALLOC_FL_*`.
 * @returns 0; -EINVAL if `offset` is negative or `len` not positive; -EOPNOTSUPP for
 *   a mode that does not exist or that the file system lacks; -EBADF if the file is
 *   not open for writing; -ETXTBSY for a swap file; -EISDIR, -ENODEV for what is not
 *   a regular file; -EFBIG if the range passes the largest file.
 */
export function vfsFallocate(
  file: File,
  mode: number,
  offset: number,
  len: number,
): MaybePromise<number> {
  const { inode } = file;
  if (offset < 0 || len <= 0) return -EINVAL;
  if (!fallocateModeExists(mode)) return -EOPNOTSUPP;
  if ((file.mode & FMODE_WRITE) === 0) return -EBADF;
  if ((inode.flags & S_SWAPFILE) !== 0) return -ETXTBSY;
  if (isDir(inode)) return -EISDIR;
  if (!isReg(inode)) return -ENODEV;
  const limit = Math.min(inode.sb.maxBytes, MAX_LFS_FILESIZE);
  if (offset + len > limit) return -EFBIG;
  if (inode.fop.fallocate === undefined) return -EOPNOTSUPP;
  return inode.fop.fallocate(file, mode, offset, len);
}

/** One operation at a time, with KEEP_SIZE where it has a meaning. */
function fallocateModeExists(mode: number): boolean {
  const keepSize = (mode & FALLOC_FL_KEEP_SIZE) !== 0;
  switch (mode & ~FALLOC_FL_KEEP_SIZE) {
    case 0:
    case FALLOC_FL_UNSHARE_RANGE:
    case FALLOC_FL_ZERO_RANGE:
      return true;
    case FALLOC_FL_PUNCH_HOLE:
      return keepSize;
    case FALLOC_FL_COLLAPSE_RANGE:
    case FALLOC_FL_INSERT_RANGE:
    case FALLOC_FL_WRITE_ZEROES:
      return !keepSize;
    default:
      return false;
  }
}
