/**
 * Sharing ranges between files, and copying them: what is checked before and beside
 * what a file system does.
 *
 * Kernel counterpart: fs/remap_range.c, fs/read_write.c (`vfs_copy_file_range`).
 *
 * @module
 */

import {
  EBADE,
  EBADF,
  EFBIG,
  EINVAL,
  EISDIR,
  EOPNOTSUPP,
  EOVERFLOW,
  EROFS,
  ETXTBSY,
  EXDEV,
} from "../lib/errno.ts";
import { IovIter } from "../lib/iov-iter.ts";
import { andThen, type MaybePromise, repeat } from "../lib/maybe-promise.ts";
import { filemapWriteAndWaitRange, readMappingFolio } from "../mm/filemap.ts";
import { folioPut, PAGE_MASK, PAGE_SIZE } from "../mm/folio.ts";
import {
  type File,
  FMODE_READ,
  FMODE_WRITE,
  type Inode,
  REMAP_FILE_CAN_SHORTEN,
  REMAP_FILE_DEDUP,
  S_SWAPFILE,
} from "./fs.ts";
import { inodeDioWait, isDir, isReg, kiocbModified } from "./inode.ts";
import { IOCB_APPEND, Kiocb } from "./kiocb.ts";
import { MAX_RW_COUNT, vfsRead, vfsWrite } from "./read-write.ts";

/** Most bytes of one request to share equal ranges. */
const MAX_DEDUPE: number = 2 ** 30;
/** Bytes that are copied at a time: those of a pipe. */
const CHUNK = 65536;

/** A range of one file and its place in another: bytes. */
export interface RemapRange {
  fileIn: File;
  posIn: number;
  fileOut: File;
  posOut: number;
  len: number;
}

/** Kernel: `generic_file_rw_checks`. */
function rwChecks(fileIn: File, fileOut: File): number {
  const [src, dst] = [fileIn.inode, fileOut.inode];
  if (isDir(src) || isDir(dst)) return -EISDIR;
  if (!isReg(src) || !isReg(dst)) return -EINVAL;
  if ((fileIn.mode & FMODE_READ) === 0) return -EBADF;
  if ((fileOut.mode & FMODE_WRITE) === 0) return -EBADF;
  return (fileOut.iocbFlags & IOCB_APPEND) !== 0 ? -EBADF : 0;
}

/** Kernel: `remap_verify_area`. */
function verifyArea(pos: number, len: number): number {
  const ok = pos >= 0 && len >= 0 && pos + len <= Number.MAX_SAFE_INTEGER;
  return ok ? 0 : -EINVAL;
}

/**
 * Shares a range with another file (kernel: `ioctl_file_clone_range`).
 *
 * @param range `len` 0 is to the end of `fileIn`.
 * @returns 0; -EXDEV for files of two file systems; -EISDIR; -EINVAL for what is no
 *   regular file, a range that is not on block borders, beyond the end of `fileIn` or
 *   over itself; -EBADF if one is not open for it, or the other for appending;
 *   -EOPNOTSUPP where nothing can be shared; -ETXTBSY for a swap file; -ENOSPC; -EFBIG.
 */
export function vfsCloneFileRange(range: RemapRange): MaybePromise<number> {
  const { fileIn, posIn, fileOut, posOut, len } = range;
  if (fileIn.inode.sb !== fileOut.inode.sb) return -EXDEV;
  const error = rwChecks(fileIn, fileOut);
  if (error !== 0) return error;
  const { remapFileRange } = fileIn.inode.fop;
  if (remapFileRange === undefined) return -EOPNOTSUPP;
  const wrong = verifyArea(posIn, len) || verifyArea(posOut, len);
  if (wrong !== 0) return wrong;
  const cloned = remapFileRange(fileIn, posIn, fileOut, posOut, len, 0);
  return andThen(cloned, (done) => {
    if (done < 0) return done;
    return len > 0 && done !== len ? -EINVAL : 0;
  });
}

/**
 * Shares a range with another file if both hold the same (kernel:
 * `vfs_dedupe_file_range`, for one target).
 *
 * @param range At most 1 GiB of it counts.
 * @returns Bytes; -EBADE if they differ (FILE_DEDUPE_RANGE_DIFFERS); errors as
 *   {@linkcode vfsCloneFileRange}'s, and -EINVAL for a range beyond the end of either;
 *   -EROFS.
 */
export function vfsDedupeFileRange(range: RemapRange): MaybePromise<number> {
  const { fileIn, posIn, fileOut, posOut } = range;
  const [src, dst] = [fileIn.inode, fileOut.inode];
  if ((fileIn.mode & FMODE_READ) === 0) return -EINVAL;
  if (isDir(src)) return -EISDIR;
  if (!isReg(src)) return -EINVAL;
  const { remapFileRange } = src.fop;
  if (remapFileRange === undefined) return -EOPNOTSUPP;
  const wrong = verifyArea(posIn, range.len);
  if (wrong !== 0) return wrong;
  if (posIn + range.len > src.size) return -EINVAL;
  const len = Math.min(range.len, MAX_DEDUPE);
  // It need not be open for writing.
  if (dst.sb.readOnly) return -EROFS;
  const off = verifyArea(posOut, len);
  if (off !== 0) return off;
  if (src.sb !== dst.sb) return -EXDEV;
  if (isDir(dst)) return -EISDIR;
  if (dst.fop.remapFileRange === undefined) return -EINVAL;
  if (len === 0) return 0;
  const flags = REMAP_FILE_DEDUP | REMAP_FILE_CAN_SHORTEN;
  const shared = remapFileRange(fileIn, posIn, fileOut, posOut, len, flags);
  return andThen(shared, (done) => done < 0 ? done : len);
}

/**
 * Copies a range to another file, by sharing it where that can be done (kernel:
 * `vfs_copy_file_range`).
 *
 * @returns Bytes copied, fewer at the end of `fileIn`; -EXDEV for files of two file
 *   systems; -EISDIR, -EBADF, -EINVAL (no regular file, or a range over itself),
 *   -ETXTBSY, -EOVERFLOW, -EFBIG; what reading or writing meets.
 */
export function vfsCopyFileRange(range: RemapRange): MaybePromise<number> {
  const { fileIn, posIn, fileOut, posOut } = range;
  const [src, dst] = [fileIn.inode, fileOut.inode];
  const error = rwChecks(fileIn, fileOut);
  if (error !== 0) return error;
  if (src.sb !== dst.sb) return -EXDEV;
  if (src.isSwapfile || dst.isSwapfile) return -ETXTBSY;
  const end = Math.max(posIn, posOut) + range.len;
  if (end > Number.MAX_SAFE_INTEGER) return -EOVERFLOW;
  let len = Math.max(0, Math.min(range.len, src.size - posIn));
  const room = dst.sb.maxBytes - posOut;
  if (room <= 0) return -EFBIG;
  len = Math.min(len, room);
  const over = posOut + len > posIn && posOut < posIn + len;
  if (src === dst && over) return -EINVAL;
  if (len === 0) return 0;
  const copy = {
    fileIn,
    posIn,
    fileOut,
    posOut,
    len: Math.min(len, MAX_RW_COUNT),
  };
  return andThen(
    shareForCopy(copy),
    (done) => done > 0 ? done : copyBytes(copy),
  );
}

function shareForCopy(range: RemapRange): MaybePromise<number> {
  const { fileIn, posIn, fileOut, posOut, len } = range;
  const { fop } = fileIn.inode;
  if (fop.remapFileRange === undefined) return -EOPNOTSUPP;
  const flags = REMAP_FILE_CAN_SHORTEN;
  return fop.remapFileRange(fileIn, posIn, fileOut, posOut, len, flags);
}

/** Kernel: `do_splice_direct`. */
function copyBytes(range: RemapRange): MaybePromise<number> {
  const { fileIn, posIn, fileOut, posOut, len } = range;
  const chunk = new Uint8Array(Math.min(CHUNK, len));
  let done = 0;
  let error = 0;
  const copied = repeat(() => {
    if (done >= len) return false;
    const want = chunk.subarray(0, Math.min(chunk.length, len - done));
    const from = new Kiocb(fileIn, posIn + done, fileIn.iocbFlags);
    return andThen(vfsRead(from, new IovIter(want), 0), (got) => {
      if (got <= 0) {
        error = got;
        return false;
      }
      const to = new Kiocb(fileOut, posOut + done, fileOut.iocbFlags);
      const data = new IovIter(want.subarray(0, got));
      return andThen(vfsWrite(to, data, 0), (put) => {
        if (put < 0) error = put;
        else done += put;
        return put === got;
      });
    });
  });
  return andThen(copied, () => done > 0 ? done : error);
}

/** What {@linkcode genericRemapFileRangePrep} works on: `len` is set to what may be
 * done. */
export interface RemapLen {
  value: number;
}

/**
 * Checks, waits for and writes back two ranges that are about to be shared; compares
 * them for a deduplication (kernel: `generic_remap_file_range_prep`). The caller holds
 * both rwsems and invalidate locks exclusively.
 *
 * @param len In: bytes, 0 to the end of `fileIn`. Out: bytes to share, 0 for none.
 * @param flags `REMAP_FILE_*`.
 * @returns 0 or a negative errno; see {@linkcode vfsCloneFileRange}. -EBADE if the
 *   ranges differ.
 */
export function genericRemapFileRangePrep(
  range: RemapRange,
  len: RemapLen,
  flags: number,
): MaybePromise<number> {
  const { fileIn, posIn, fileOut, posOut } = range;
  const [src, dst] = [fileIn.inode, fileOut.inode];
  if (((src.flags | dst.flags) & S_SWAPFILE) !== 0) return -ETXTBSY;
  if (isDir(src) || isDir(dst)) return -EISDIR;
  if (!isReg(src) || !isReg(dst)) return -EINVAL;
  const dedupe = (flags & REMAP_FILE_DEDUP) !== 0;
  if (len.value === 0) {
    if (dedupe || posIn === src.size) return 0;
    if (posIn > src.size) return -EINVAL;
    len.value = src.size - posIn;
  }
  const wrong = remapChecks(range, len, flags);
  if (wrong !== 0 || len.value === 0) return wrong;
  return andThen(settle(src, posIn, len.value), (first) => {
    if (first < 0) return first;
    return andThen(settle(dst, posOut, len.value), (second) => {
      if (second < 0) return second;
      const same = dedupe ? compare(range, len.value) : true;
      return andThen(same, (equal) => {
        if (typeof equal === "number") return equal;
        if (!equal) return -EBADE;
        const error = checkLen(dst, posOut, len, flags);
        if (error !== 0 || len.value === 0 || dedupe) return error;
        return kiocbModified(new Kiocb(fileOut, posOut, fileOut.iocbFlags));
      });
    });
  });
}

/** No direct I/O goes on, and what is dirty is written. */
function settle(inode: Inode, pos: number, len: number): MaybePromise<number> {
  return andThen(
    inodeDioWait(inode),
    () => filemapWriteAndWaitRange(inode.mapping, pos, pos + len - 1),
  );
}

/** Kernel: `generic_remap_checks`. */
function remapChecks(
  { fileIn, posIn, fileOut, posOut }: RemapRange,
  len: RemapLen,
  flags: number,
): number {
  const [src, dst] = [fileIn.inode, fileOut.inode];
  const bs = 2 ** dst.blkbits;
  let count = len.value;
  if (posIn % bs !== 0 || posOut % bs !== 0) return -EINVAL;
  const dedupe = (flags & REMAP_FILE_DEDUP) !== 0;
  if (dedupe) {
    if (posIn >= src.size || posIn + count > src.size) return -EINVAL;
    if (posOut >= dst.size || posOut + count > dst.size) return -EINVAL;
  }
  if (posIn >= src.size) return -EINVAL;
  count = Math.min(count, src.size - posIn);
  const room = dst.sb.maxBytes - posOut;
  if (room <= 0) return -EFBIG;
  count = Math.min(count, room);
  // The last block of a file may be shared though it is not whole.
  const toEnd = posIn + count === src.size &&
    (!dedupe || posOut + count === dst.size);
  if (!toEnd) count -= count % bs;
  const span = Math.ceil(count / bs) * bs;
  if (src === dst && posOut + span > posIn && posOut < posIn + span) {
    return -EINVAL;
  }
  if (count !== len.value && (flags & REMAP_FILE_CAN_SHORTEN) === 0) {
    return -EINVAL;
  }
  len.value = count;
  return 0;
}

/** A part of a block must not land within the other file (kernel:
 * `generic_remap_check_len`). */
function checkLen(
  dst: Inode,
  posOut: number,
  len: RemapLen,
  flags: number,
): number {
  const part = len.value % 2 ** dst.blkbits;
  if (part === 0 || posOut + len.value >= dst.size) return 0;
  if ((flags & REMAP_FILE_CAN_SHORTEN) !== 0) {
    len.value -= part;
    return 0;
  }
  return (flags & REMAP_FILE_DEDUP) !== 0 ? -EBADE : -EINVAL;
}

/** Whether two ranges hold the same (kernel: `vfs_dedupe_file_range_compare`). */
function compare(
  { fileIn, posIn, fileOut, posOut }: RemapRange,
  len: number,
): MaybePromise<boolean | number> {
  const a = new Uint8Array(PAGE_SIZE);
  const b = new Uint8Array(PAGE_SIZE);
  let at = 0;
  let result: boolean | number = true;
  const compared = repeat(() => {
    if (at >= len) return false;
    const left = PAGE_SIZE - ((posIn + at) & PAGE_MASK);
    const right = PAGE_SIZE - ((posOut + at) & PAGE_MASK);
    const n = Math.min(len - at, left, right);
    return andThen(readPage(fileIn, posIn + at, a, n), (error) => {
      if (error < 0) result = error;
      if (error < 0) return false;
      return andThen(readPage(fileOut, posOut + at, b, n), (failed) => {
        result = failed < 0 ? failed : equal(a, b, n);
        at += n;
        return result === true;
      });
    });
  });
  return andThen(compared, () => result);
}

/** Copies out part of a page. Reading as others do would wait for the invalidate lock,
 * which is held here. */
function readPage(
  { inode, ra }: File,
  pos: number,
  data: Uint8Array,
  n: number,
): MaybePromise<number> {
  const index = Math.floor(pos / PAGE_SIZE);
  return andThen(readMappingFolio(inode.mapping, ra, index), (folio) => {
    if (typeof folio === "number") return folio;
    const at = pos - folio.pos;
    const from = folio.offset + at;
    data.set(folio.data.subarray(from, from + n));
    folioPut(folio);
    return 0;
  });
}

function equal(a: Uint8Array, b: Uint8Array, n: number): boolean {
  for (let i = 0; i < n; i++) if (a[i] !== b[i]) return false;
  return true;
}
