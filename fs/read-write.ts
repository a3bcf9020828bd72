/**
 * Reading, writing and seeking: what is checked before a file system is asked.
 *
 * Kernel counterpart: fs/read_write.c, include/linux/fs.h
 * (`kiocb_set_rw_flags`).
 *
 * @module
 */

import {
  EBADF,
  EFBIG,
  EINVAL,
  EISDIR,
  ENXIO,
  EOPNOTSUPP,
  ETXTBSY,
} from "../lib/errno.ts";
import type { IovIter } from "../lib/iov-iter.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import {
  type File,
  FMODE_BUF_WASYNC,
  FMODE_CAN_ATOMIC_WRITE,
  FMODE_DONTCACHE,
  FMODE_NOWAIT,
  FMODE_READ,
  FMODE_WRITE,
  S_SWAPFILE,
  SEEK_CUR,
  SEEK_DATA,
  SEEK_END,
  SEEK_HOLE,
  SEEK_SET,
} from "./fs.ts";
import { isDir } from "./inode.ts";
import {
  IOCB_APPEND,
  IOCB_ATOMIC,
  IOCB_DIRECT,
  IOCB_DONTCACHE,
  IOCB_DSYNC,
  IOCB_NOWAIT,
  IOCB_SYNC,
  IOCB_WRITE,
  type Kiocb,
} from "./kiocb.ts";

/** Most bytes that one call reads or writes; more is cut (kernel: `MAX_RW_COUNT`). */
export const MAX_RW_COUNT = 0x7ffff000;

/** `RWF_*`: they have the values of the `IOCB_*` of the same name. */
const GATED = IOCB_NOWAIT | IOCB_ATOMIC | IOCB_DONTCACHE;

/**
 * Reads at `iocb.pos` (kernel: `vfs_read`, `vfs_iocb_iter_read`).
 *
 * @param iocb Its flags are the file's (`file.iocbFlags`) and the caller's own.
 * @param iter Where the bytes go.
 * @param rwf `RWF_*` flags of the call: HIPRI, DSYNC, SYNC, NOWAIT, APPEND,
 *   ATOMIC, DONTCACHE.
 * @returns Bytes, 0 at the end of the file; -EIOCBQUEUED if `iocb.kiComplete`
 *   will be told; -EBADF if the file is not open for reading; -EISDIR for a
 *   directory; -EINVAL if the file cannot be read, or the range is not one;
 *   -EOPNOTSUPP for a flag that the file does not support.
 */
export function vfsRead(
  iocb: Kiocb,
  iter: IovIter,
  rwf: number,
): MaybePromise<number> {
  const { file } = iocb;
  if ((file.mode & FMODE_READ) === 0) return -EBADF;
  const { fop } = file.inode;
  if (fop.readIter === undefined) return isDir(file.inode) ? -EISDIR : -EINVAL;
  if (iter.count === 0) return 0;
  const error = rwVerifyArea(iocb, iter);
  if (error !== 0) return error;
  if (rwf !== 0) {
    const refused = kiocbSetRwFlags(iocb, rwf, false);
    if (refused !== 0) return refused;
  }
  return fop.readIter(iocb, iter);
}

/**
 * Writes at `iocb.pos`, or at the end with APPEND (kernel: `vfs_write`,
 * `vfs_iocb_iter_write`). Arguments and results as {@linkcode vfsRead}'s; besides
 * -EFBIG, -ENOSPC and the like from the file system.
 */
export function vfsWrite(
  iocb: Kiocb,
  iter: IovIter,
  rwf: number,
): MaybePromise<number> {
  const { file } = iocb;
  if ((file.mode & FMODE_WRITE) === 0) return -EBADF;
  const { fop } = file.inode;
  if (fop.writeIter === undefined) return -EINVAL;
  if (iter.count === 0) return 0;
  const error = rwVerifyArea(iocb, iter);
  if (error !== 0) return error;
  iocb.flags |= IOCB_WRITE;
  if (rwf !== 0) {
    const refused = kiocbSetRwFlags(iocb, rwf, true);
    if (refused !== 0) return refused;
  }
  return fop.writeIter(iocb, iter);
}

/** Kernel: `rw_verify_area`. Here a range ends at the largest safe integer. */
function rwVerifyArea(iocb: Kiocb, iter: IovIter): number {
  if (iocb.pos < 0) return -EINVAL;
  if (iocb.pos + iter.count > Number.MAX_SAFE_INTEGER) return -EINVAL;
  if (iter.count > MAX_RW_COUNT) iter.count = MAX_RW_COUNT;
  return 0;
}

/** Adds a call's own flags (kernel: `kiocb_set_rw_flags`). */
function kiocbSetRwFlags(iocb: Kiocb, rwf: number, write: boolean): number {
  const { mode } = iocb.file;
  if ((rwf & GATED) !== 0) {
    if ((rwf & IOCB_NOWAIT) !== 0 && (mode & FMODE_NOWAIT) === 0) {
      return -EOPNOTSUPP;
    }
    if (
      (rwf & IOCB_ATOMIC) !== 0 &&
      (!write || (mode & FMODE_CAN_ATOMIC_WRITE) === 0)
    ) return -EOPNOTSUPP;
    if ((rwf & IOCB_DONTCACHE) !== 0 && (mode & FMODE_DONTCACHE) === 0) {
      return -EOPNOTSUPP;
    }
  }
  if ((rwf & IOCB_SYNC) !== 0) rwf |= IOCB_DSYNC;
  iocb.flags |= rwf;
  return 0;
}

/**
 * What every write checks under the inode's lock (kernel: `generic_write_checks`).
 * Moves `iocb.pos` to the end of the file for APPEND, and cuts `iter` at the
 * largest file size.
 *
 * @returns Bytes to write, 0 for none; -ETXTBSY for a swap file; -EINVAL for a
 *   buffered NOWAIT write where the file does not support it; -EFBIG at or beyond
 *   the largest file size.
 */
export function genericWriteChecks(iocb: Kiocb, iter: IovIter): number {
  const { file, flags } = iocb;
  const { inode } = file;
  if ((inode.flags & S_SWAPFILE) !== 0) return -ETXTBSY;
  if (iter.count === 0) return 0;
  if ((flags & IOCB_APPEND) !== 0) iocb.pos = inode.size;
  if (
    (flags & IOCB_NOWAIT) !== 0 && (flags & IOCB_DIRECT) === 0 &&
    (file.mode & FMODE_BUF_WASYNC) === 0
  ) return -EINVAL;
  const room = inode.sb.maxBytes - iocb.pos;
  if (room <= 0) return -EFBIG;
  if (iter.count > room) iter.count = room;
  return iter.count;
}

/**
 * What every atomic write has to be (kernel: `generic_atomic_write_valid`).
 *
 * @returns 0; -EINVAL if the memory is not one buffer, its length no power of two or
 *   the position no multiple of that; -EOPNOTSUPP if the write goes through the cache.
 */
export function genericAtomicWriteValid(iocb: Kiocb, iter: IovIter): number {
  const { count } = iter;
  if (!iter.isUbuf || Math.log2(count) % 1 !== 0) return -EINVAL;
  if (iocb.pos % count !== 0) return -EINVAL;
  return (iocb.flags & IOCB_DIRECT) === 0 ? -EOPNOTSUPP : 0;
}

/**
 * Moves the file position (kernel: `vfs_llseek`). The caller holds the position's
 * lock.
 *
 * @param whence `SEEK_*`.
 * @returns The new position; -EINVAL for an unknown `whence`, or a position
 *   below 0 or beyond the largest file; -ENXIO if DATA or HOLE finds none.
 */
export function vfsLlseek(
  file: File,
  offset: number,
  whence: number,
): MaybePromise<number> {
  switch (whence) {
    case SEEK_SET:
      return vfsSetpos(file, offset);
    case SEEK_CUR:
      return vfsSetpos(file, file.pos + offset);
    case SEEK_END:
      return vfsSetpos(file, file.inode.size + offset);
    case SEEK_DATA:
    case SEEK_HOLE:
      return andThen(
        seekHoleData(file, offset, whence),
        (pos) => pos < 0 ? pos : vfsSetpos(file, pos),
      );
    default:
      return -EINVAL;
  }
}

/** All is data up to the end where the file system does not know better. */
function seekHoleData(
  file: File,
  offset: number,
  whence: number,
): MaybePromise<number> {
  const { fop, size } = file.inode;
  if (fop.llseek !== undefined) return fop.llseek(file, offset, whence);
  if (offset < 0 || offset >= size) return -ENXIO;
  return whence === SEEK_DATA ? offset : size;
}

function vfsSetpos(file: File, pos: number): number {
  if (pos < 0 || pos > file.inode.sb.maxBytes) return -EINVAL;
  file.pos = pos;
  return pos;
}
