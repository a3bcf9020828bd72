/**
 * Direct I/O: bios straight over the caller's memory.
 *
 * A request counts its bios and one for its submission; who drops the last count
 * completes it. So a request whose bios were all done while they were submitted
 * completes in the call, and never becomes asynchronous.
 *
 * Polled completion (IOCB_HIPRI) and completion by the issuer
 * (IOCB_DIO_CALLER_COMP) are not done: both flags are hints, and have no effect.
 *
 * Kernel counterpart: fs/iomap/direct-io.c.
 *
 * @module
 */

import { Bio, submitBio } from "../block/bio.ts";
import { blkFinishPlug, blkStartPlug } from "../block/blk-plug.ts";
import {
  blkStatusToErrno,
  REQ_ATOMIC,
  REQ_FUA,
  REQ_IDLE,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_SYNC,
} from "../block/blk-types.ts";
import type { Inode } from "../fs/fs.ts";
import { inodeDioBegin, inodeDioEnd, markInodeDirty } from "../fs/inode.ts";
import {
  IOCB_ATOMIC,
  IOCB_DSYNC,
  IOCB_NOWAIT,
  IOCB_SYNC,
  IOCB_WRITE,
  isSyncKiocb,
  type Kiocb,
} from "../fs/kiocb.ts";
import { genericWriteSync } from "../fs/sync.ts";
import { warnOnOnce } from "../lib/bug.ts";
import {
  EAGAIN,
  EFAULT,
  EINVAL,
  EIO,
  EIOCBQUEUED,
  ENOTBLK,
} from "../lib/errno.ts";
import type { IovIter } from "../lib/iov-iter.ts";
import { andThenWith, type MaybePromise } from "../lib/maybe-promise.ts";
import { WaitQueue } from "../lib/wait.ts";
import { errseqSet } from "../mm/errseq.ts";
import {
  filemapRangeHasPage,
  filemapRangeNeedsWriteback,
  filemapWriteAndWaitRange,
} from "../mm/filemap.ts";
import { invalidateInodePages2Range } from "../mm/truncate.ts";
import {
  type Iomap,
  IOMAP_ATOMIC,
  IOMAP_DELALLOC,
  IOMAP_DIO_COW,
  IOMAP_DIO_FORCE_WAIT,
  IOMAP_DIO_OVERWRITE_ONLY,
  IOMAP_DIO_PARTIAL,
  IOMAP_DIO_UNWRITTEN,
  IOMAP_DIRECT,
  IOMAP_F_ANON_WRITE,
  IOMAP_F_ATOMIC_BIO,
  IOMAP_F_DIRTY,
  IOMAP_F_NEW,
  IOMAP_F_SHARED,
  IOMAP_HOLE,
  IOMAP_INLINE,
  IOMAP_MAPPED,
  IOMAP_NOWAIT,
  IOMAP_OVERWRITE_ONLY,
  IOMAP_UNWRITTEN,
  IOMAP_WRITE,
  type IomapDioOps,
  iomapInlineDataValid,
  IomapIter,
  iomapIterInit,
  iomapIterRelease,
  iomapLength,
  type IomapOps,
  iomapSector,
} from "./iomap.ts";
import { iomapIterAdvance, iomapWalk } from "./iter.ts";
import {
  traceIomapDioComplete,
  traceIomapDioRwBegin,
  traceIomapRange,
  tracer,
} from "./trace.ts";

// Private bits of IomapDio.flags, beside IOMAP_DIO_UNWRITTEN and IOMAP_DIO_COW.

/** Every piece so far went out with FUA. */
const IOMAP_DIO_WRITE_THROUGH = 1 << 28;
/** Durable before the call ends. */
const IOMAP_DIO_NEED_SYNC = 1 << 29;
const IOMAP_DIO_WRITE = 1 << 30;

/** Largest piece written to fill up a block: the largest block. */
const IOMAP_ZERO_PAGE_SIZE = 65536;
const ZEROES = new Uint8Array(IOMAP_ZERO_PAGE_SIZE);
/** Largest bio, as its size has 32 bits. */
const MAX_BIO_SIZE = 2 ** 30;

/** One direct read or write (kernel: `struct iomap_dio`). Recycled. */
class IomapDio {
  iocb!: Kiocb;
  dops: IomapDioOps | null = null;
  from!: IovIter;
  readonly iter: IomapIter = new IomapIter();
  /** i_size at the start; what lies beyond is not read. */
  iSize = 0;
  /** Bytes submitted. */
  size = 0;
  /** Bios in flight, and 1 for the submission. */
  ref = 0;
  /** `IOMAP_DIO_*`: for `endIo`, and private. */
  flags = 0;
  /** As `iomapDioRw` got it. */
  dioFlags = 0;
  /** First negative errno, or 0. */
  error = 0;
  doneBefore = 0;
  /** What the call answers, while completing. */
  ret = 0;
  waitForCompletion = false;
  /** Made for the first that waits. */
  waiter: WaitQueue | null = null;
  readonly done = (): boolean => this.ref === 0;
}

const freeDios: IomapDio[] = [];

function dioPut(dio: IomapDio): void {
  // What is kept for later keeps nothing else in memory.
  dio.iocb = null as never;
  dio.from = null as never;
  dio.dops = null;
  iomapIterRelease(dio.iter);
  freeDios.push(dio);
}

function iomapDioSubmitBio(
  iter: IomapIter,
  dio: IomapDio,
  bio: Bio,
  pos: number,
): void {
  dio.ref++;
  bio.private = dio;
  bio.endIo = iomapDioBioEndIo;
  if (dio.dops?.submitIo) {
    dio.dops.submitIo(iter, bio, pos);
    return;
  }
  const anon = (iter.iomap.flags & IOMAP_F_ANON_WRITE) !== 0;
  warnOnOnce(anon, "iomap: a write without address needs submitIo");
  submitBio(bio);
}

function iomapDioSetError(dio: IomapDio, error: number): void {
  if (dio.error === 0) dio.error = error;
}

/** All I/O is done: wake who waits, or complete on behalf of who does not. */
function iomapDioDone(dio: IomapDio): void {
  if (dio.waitForCompletion) {
    dio.waiter?.wakeAll();
    return;
  }
  const { iocb } = dio;
  const ret = iomapDioComplete(dio);
  if (ret instanceof Promise) kiCompleteLater(ret, iocb);
  else iocb.kiComplete!(iocb, ret);
}

function kiCompleteLater(ret: Promise<number>, iocb: Kiocb): void {
  ret.then((value) => iocb.kiComplete!(iocb, value));
}

/** Counts one bio of a request as done; a file system that submits bios itself
 * chains to it (kernel: `iomap_dio_bio_end_io`). */
export function iomapDioBioEndIo(bio: Bio): void {
  const dio = bio.private as IomapDio;
  if (bio.status !== 0) iomapDioSetError(dio, blkStatusToErrno(bio.status));
  if (--dio.ref === 0) iomapDioDone(dio);
}

/**
 * Ends a request all of whose I/O is done (kernel: `iomap_dio_complete`):
 * `endIo`, dropping the cache that a reader made meanwhile, `iocb.pos`, and the
 * sync that a durable write asks for.
 *
 * @returns Bytes or a negative errno, as {@linkcode iomapDioRw}.
 */
function iomapDioComplete(dio: IomapDio): MaybePromise<number> {
  const { dops, iocb, size, error, flags } = dio;
  if (!dops?.endIo) return dioEnded(error, dio);
  return andThenWith(dops.endIo(iocb, size, error, flags), dioEnded, dio);
}

function dioEnded(ret: number, dio: IomapDio): MaybePromise<number> {
  const { iocb, size, flags } = dio;
  const isWrite = (flags & IOMAP_DIO_WRITE) !== 0;
  if (ret === 0) {
    ret = size;
    if (!isWrite) ret = Math.min(ret, dio.iSize - iocb.pos);
  }
  dio.ret = ret;
  if (!isWrite || dio.error !== 0 || size === 0) return dioEnd(dio);
  const { mapping } = iocb;
  // A reader may have cached what was there before the write reached the device.
  if (mapping.nrPages === 0) return dioEnd(dio);
  const last = iocb.pos + size - 1;
  const dropped = invalidateInodePages2Range(mapping, iocb.pos, last);
  return andThenWith(dropped, dioInvalidated, dio);
}

function dioInvalidated(error: number, dio: IomapDio): MaybePromise<number> {
  if (error !== 0) {
    // For fsync alone: no writeback has failed, so AS_EIO stays clear.
    const { mapping } = dio.iocb;
    mapping.wbErr = errseqSet(mapping.wbErr, -EIO);
  }
  return dioEnd(dio);
}

function dioEnd(dio: IomapDio): MaybePromise<number> {
  const { iocb, ret, flags } = dio;
  inodeDioEnd(iocb.file.inode);
  if (ret <= 0) return dioResult(ret, dio);
  iocb.pos += ret;
  if ((flags & IOMAP_DIO_NEED_SYNC) === 0) return dioResult(ret, dio);
  return andThenWith(genericWriteSync(iocb, ret), dioResult, dio);
}

function dioResult(ret: number, dio: IomapDio): number {
  if (ret > 0) ret += dio.doneBefore;
  if (tracer !== null) traceIomapDioComplete(dio.iocb, dio.error, ret);
  dioPut(dio);
  return ret;
}

/** Writes zeroes to fill up a block; 0 or -EINVAL for more than 64 KiB. */
function iomapDioZero(
  iter: IomapIter,
  dio: IomapDio,
  pos: number,
  len: number,
): number {
  const tooLong = len > IOMAP_ZERO_PAGE_SIZE;
  if (warnOnOnce(tooLong, "iomap: more than 64 KiB to zero")) return -EINVAL;
  const bio = new Bio(iter.iomap.bdev!, REQ_OP_WRITE | REQ_SYNC | REQ_IDLE);
  bio.sector = iomapSector(iter.iomap, pos);
  bio.addData(ZEROES, 0, len);
  iomapDioSubmitBio(iter, dio, bio, pos);
  return 0;
}

/** FUA makes a separate flush needless, if no metadata has to reach the device. */
function iomapDioCanUseFua(iomap: Iomap, dio: IomapDio): boolean {
  if ((iomap.flags & (IOMAP_F_SHARED | IOMAP_F_DIRTY)) !== 0) return false;
  if ((dio.flags & IOMAP_DIO_WRITE_THROUGH) === 0) return false;
  const bdev = iomap.bdev!;
  return !bdev.writeCache || bdev.fua;
}

/** `opf` of a write's bios; notes in `dio.flags` what kind of blocks it touches. */
function iomapDioBioWriteOpf(iomap: Iomap, dio: IomapDio): number {
  let opf = REQ_OP_WRITE | REQ_SYNC | REQ_IDLE;
  if ((iomap.flags & IOMAP_F_ATOMIC_BIO) !== 0) opf |= REQ_ATOMIC;
  if (iomap.type === IOMAP_UNWRITTEN) dio.flags |= IOMAP_DIO_UNWRITTEN;
  if ((iomap.flags & IOMAP_F_SHARED) !== 0) dio.flags |= IOMAP_DIO_COW;
  const inPlace = iomap.type === IOMAP_MAPPED &&
    (iomap.flags & IOMAP_F_NEW) === 0;
  if (inPlace && iomapDioCanUseFua(iomap, dio)) opf |= REQ_FUA;
  // One piece without FUA, and only a flush makes the whole durable.
  else dio.flags &= ~IOMAP_DIO_WRITE_THROUGH;
  return opf;
}

/**
 * Puts the caller's memory into a bio, at most `max` bytes.
 *
 * @returns Bytes, a multiple of the logical block size; or -EFAULT.
 */
function fillBio(bio: Bio, from: IovIter, max: number): number {
  let done = 0;
  while (done < max) {
    const { data, offset, len } = from.segment(max - done);
    if (len === 0 || !bio.addData(data, offset, len)) break;
    from.advance(len);
    done += len;
  }
  const lbs = bio.bdev.limits.logicalBlockSize;
  const excess = done & (lbs - 1);
  if (excess > 0) trimBio(bio, from, excess);
  return done - excess || -EFAULT;
}

/** Gives the last bytes of a bio back to the caller's memory. */
function trimBio(bio: Bio, from: IovIter, bytes: number): void {
  from.revert(bytes);
  bio.size -= bytes;
  for (let left = bytes; left > 0;) {
    const vec = bio.vecs.at(-1)!;
    const step = Math.min(left, vec.len);
    vec.len -= step;
    left -= step;
    if (vec.len === 0) bio.vecs.pop();
  }
}

/** Submits the data of one mapping; bytes submitted, or a negative errno if none. */
function submitData(
  iter: IomapIter,
  dio: IomapDio,
  opf: number,
  length: number,
): number {
  const { iomap } = iter;
  let done = 0;
  // Once a bio has failed the rest cannot help.
  while (done < length && dio.error === 0) {
    const pos = iter.pos + done;
    const bio = new Bio(iomap.bdev!, opf);
    bio.sector = iomapSector(iomap, pos);
    const n = fillBio(bio, dio.from, Math.min(length - done, MAX_BIO_SIZE));
    if (n < 0) return done > 0 ? done : n;
    const torn = (opf & REQ_ATOMIC) !== 0 && n !== length;
    if (warnOnOnce(torn, "iomap: an atomic write that needs two bios")) {
      dio.from.revert(n);
      return -EINVAL;
    }
    dio.size += n;
    done += n;
    iomapDioSubmitBio(iter, dio, bio, pos);
  }
  return done;
}

function iomapDioBioIter(iter: IomapIter, dio: IomapDio): number {
  const { iomap, inode, pos } = iter;
  const length = iomapLength(iter);
  const lbs = iomap.bdev!.limits.logicalBlockSize;
  if (((pos | length) & (lbs - 1)) !== 0) return -EINVAL;
  if ((dio.flags & IOMAP_DIO_WRITE) === 0) {
    const done = submitData(iter, dio, REQ_OP_READ, length);
    return done > 0 ? iomapIterAdvance(iter, done) : done;
  }
  const atomic = (iomap.flags & IOMAP_F_ATOMIC_BIO) !== 0;
  if (atomic && length !== iter.len) return -EINVAL;
  const opf = iomapDioBioWriteOpf(iomap, dio);
  const zeroout = iomap.type === IOMAP_UNWRITTEN ||
    (iomap.flags & IOMAP_F_NEW) !== 0;
  const bsMask = (1 << inode.blkbits) - 1;
  const head = pos & bsMask;
  if (zeroout && head > 0) {
    const error = iomapDioZero(iter, dio, pos - head, head);
    if (error !== 0) return error;
  }
  let ret = submitData(iter, dio, opf, length);
  const done = Math.max(0, ret);
  const end = pos + done;
  const pad = end & bsMask;
  // Beyond the end of the file a reader of the block would see what was there
  // before. This also happens, and hides the error, after memory that cannot be read.
  if ((zeroout || end >= inode.size) && pad > 0) {
    const error = iomapDioZero(iter, dio, end, bsMask + 1 - pad);
    if (ret <= 0 || error !== 0) ret = error;
  }
  return done > 0 ? iomapIterAdvance(iter, done) : ret;
}

/** Nothing to read: zeroes for the caller. */
function iomapDioHoleIter(iter: IomapIter, dio: IomapDio): number {
  const length = dio.from.zero(iomapLength(iter));
  dio.size += length;
  return length === 0 ? -EFAULT : iomapIterAdvance(iter, length);
}

function iomapDioInlineIter(iter: IomapIter, dio: IomapDio): number {
  const { inode, iomap, pos } = iter;
  const valid = iomapInlineDataValid(iomap);
  if (warnOnOnce(!valid, "iomap: INLINE without room for it")) return -EIO;
  const data = iomap.inlineData!;
  const at = pos - iomap.offset;
  let copied;
  if ((dio.flags & IOMAP_DIO_WRITE) !== 0) {
    if (pos > inode.size) data.fill(0, inode.size - iomap.offset, at);
    copied = dio.from.copyFrom(data, at, iomapLength(iter));
    if (copied > 0) {
      inode.size = Math.max(inode.size, pos + copied);
      markInodeDirty(inode);
    }
  } else copied = dio.from.copyTo(data, at, iomapLength(iter));
  dio.size += copied;
  return copied === 0 ? -EFAULT : iomapIterAdvance(iter, copied);
}

function iomapDioIter(iter: IomapIter, dio: IomapDio): number {
  const isWrite = (dio.flags & IOMAP_DIO_WRITE) !== 0;
  switch (iter.iomap.type) {
    case IOMAP_HOLE:
      if (warnOnOnce(isWrite, "iomap: a hole for a direct write")) return -EIO;
      return iomapDioHoleIter(iter, dio);
    case IOMAP_UNWRITTEN:
      if (!isWrite) return iomapDioHoleIter(iter, dio);
      return iomapDioBioIter(iter, dio);
    case IOMAP_MAPPED:
      return iomapDioBioIter(iter, dio);
    case IOMAP_INLINE:
      return iomapDioInlineIter(iter, dio);
    case IOMAP_DELALLOC:
      // A store through a memory mapping got in between: its data is in the cache.
      return -EIO;
    default:
      warnOnOnce(true, "iomap: unknown type of mapping");
      return -EIO;
  }
}

/** Cached data of the range goes to the device before a read: 0 or -errno. */
function kiocbWriteAndWait(iocb: Kiocb, count: number): MaybePromise<number> {
  const { mapping, pos } = iocb;
  const last = pos + count - 1;
  if ((iocb.flags & IOCB_NOWAIT) !== 0) {
    return filemapRangeNeedsWriteback(mapping, pos, last) ? -EAGAIN : 0;
  }
  return filemapWriteAndWaitRange(mapping, pos, last);
}

/** Nothing of the range stays cached before a write: 0 or -errno. */
function kiocbInvalidatePages(
  iocb: Kiocb,
  count: number,
): MaybePromise<number> {
  const { mapping, pos } = iocb;
  const last = pos + count - 1;
  if ((iocb.flags & IOCB_NOWAIT) !== 0) {
    return filemapRangeHasPage(mapping, pos, last) ? -EAGAIN : 0;
  }
  const written = filemapWriteAndWaitRange(mapping, pos, last);
  if (written === 0 && mapping.nrPages === 0) return 0;
  return invalidateAfter(written, iocb, last);
}

function invalidateAfter(
  written: MaybePromise<number>,
  iocb: Kiocb,
  last: number,
): MaybePromise<number> {
  return andThenWith(
    written,
    (error, { mapping, pos }) =>
      error !== 0 ? error : invalidateInodePages2Range(mapping, pos, last),
    iocb,
  );
}

/**
 * Reads or writes past the page cache (kernel: `iomap_dio_rw`).
 *
 * The caller holds `inode.rwsem` as its kind of file wants it; it may let go of it
 * when the call returns, as `inode.dioCount` counts what is in flight.
 *
 * @param iocb Its `kiComplete` is told the result of a call that returned
 *   -EIOCBQUEUED. `iocb.pos` moves by what was done.
 * @param from The caller's memory; stays in use until the request is complete.
 * @param ops Mapping callbacks, called with DIRECT, and WRITE, NOWAIT,
 *   OVERWRITE_ONLY, ATOMIC as they apply.
 * @param dops Hooks, or null.
 * @param dioFlags `IOMAP_DIO_FORCE_WAIT` and so on.
 * @param priv For `iter.private`.
 * @param doneBefore Bytes that the caller has done already; added to a result
 *   above 0.
 * @returns Bytes (short at the end of the file or, with PARTIAL, at memory that
 *   cannot be used), or -EIOCBQUEUED. Else: -EINVAL if the range is not aligned to
 *   logical blocks; -EAGAIN where NOWAIT would have to wait, or OVERWRITE_ONLY to
 *   allocate; -ENOTBLK if the cache could not be emptied for a write, which the
 *   caller does buffered then; -EFAULT; -EIO for a mapping that will not do; the
 *   error of `ops`, `dops.endIo` or the device. What was done before an error does
 *   not count.
 */
export function iomapDioRw(
  iocb: Kiocb,
  from: IovIter,
  ops: IomapOps,
  dops: IomapDioOps | null,
  dioFlags: number,
  priv: unknown,
  doneBefore: number,
): MaybePromise<number> {
  const { count } = from;
  if (tracer !== null) traceIomapDioRwBegin(iocb, count, dioFlags, doneBefore);
  if (count === 0) return 0;
  const { inode } = iocb.file;
  const { pos } = iocb;
  let flags = IOMAP_DIRECT;
  let dioPrivate = 0;
  if ((iocb.flags & IOCB_NOWAIT) !== 0) flags |= IOMAP_NOWAIT;
  if ((iocb.flags & IOCB_WRITE) === 0) {
    if (pos >= inode.size) return 0;
  } else {
    flags |= IOMAP_WRITE;
    dioPrivate = IOMAP_DIO_WRITE;
    if ((dioFlags & IOMAP_DIO_OVERWRITE_ONLY) !== 0) {
      if (pos >= inode.size || pos + count > inode.size) return -EAGAIN;
      flags |= IOMAP_OVERWRITE_ONLY;
    }
    if ((iocb.flags & IOCB_ATOMIC) !== 0) flags |= IOMAP_ATOMIC;
    if ((iocb.flags & IOCB_DSYNC) !== 0) {
      dioPrivate |= IOMAP_DIO_NEED_SYNC;
      if ((iocb.flags & IOCB_SYNC) === 0) dioPrivate |= IOMAP_DIO_WRITE_THROUGH;
    }
  }
  const dio = freeDios.pop() ?? new IomapDio();
  dio.iocb = iocb;
  dio.dops = dops;
  dio.from = from;
  dio.iSize = inode.size;
  dio.size = 0;
  dio.ref = 1;
  dio.flags = dioPrivate;
  dio.dioFlags = dioFlags;
  dio.error = 0;
  dio.doneBefore = doneBefore;
  dio.waitForCompletion = false;
  iomapIterInit(dio.iter, inode, pos, count, flags, "iomap_dio_rw");
  dio.iter.private = priv;
  const clean = (flags & IOMAP_WRITE) === 0
    ? kiocbWriteAndWait(iocb, count)
    : kiocbInvalidatePages(iocb, count);
  return clean === 0
    ? dioWalk(dio, ops)
    : andThenWith(clean, dioCleaned, { dio, ops });
}

function dioCleaned(
  error: number,
  { dio, ops }: { dio: IomapDio; ops: IomapOps },
): MaybePromise<number> {
  if (error === 0) return dioWalk(dio, ops);
  const { iocb, iter } = dio;
  const { inode, pos, len, flags } = iter;
  dioPut(dio);
  if ((flags & IOMAP_WRITE) === 0 || error === -EAGAIN) return error;
  if (tracer !== null) {
    traceIomapRange("iomap_dio_invalidate_fail", inode, pos, len);
  }
  return (iocb.flags & IOCB_ATOMIC) !== 0 ? -EAGAIN : -ENOTBLK;
}

function dioWalk(dio: IomapDio, ops: IomapOps): MaybePromise<number> {
  inodeDioBegin(dio.iter.inode);
  return andThenWith(pluggedWalk(dio, ops), dioSubmitted, dio);
}

/** What is submitted before the walk first waits goes to the device together. */
function pluggedWalk(dio: IomapDio, ops: IomapOps): MaybePromise<number> {
  blkStartPlug();
  try {
    return iomapWalk(dio.iter, ops, iomapDioIter, dio);
  } finally {
    blkFinishPlug();
  }
}

/** All that will be submitted has been. */
function dioSubmitted(ret: number, dio: IomapDio): MaybePromise<number> {
  const { iter, iocb } = dio;
  let wait = isSyncKiocb(iocb) || (dio.dioFlags & IOMAP_DIO_FORCE_WAIT) !== 0;
  if ((dio.flags & IOMAP_DIO_WRITE) === 0 && iter.pos > dio.iSize) {
    dio.from.revert(iter.pos - dio.iSize);
  }
  if (ret === -EFAULT && dio.size > 0 && isPartial(dio)) {
    wait ||= (iocb.flags & IOCB_NOWAIT) === 0;
    ret = 0;
  } else if (ret === -ENOTBLK) {
    wait = true;
    ret = 0;
  }
  if (ret < 0) iomapDioSetError(dio, ret);
  if ((dio.flags & IOMAP_DIO_WRITE_THROUGH) !== 0) {
    dio.flags &= ~IOMAP_DIO_NEED_SYNC;
  }
  dio.waitForCompletion = wait;
  if (--dio.ref === 0) return iomapDioComplete(dio);
  if (wait) return dioWait(dio, iter.inode);
  if (tracer !== null) traceQueued(dio);
  return -EIOCBQUEUED;
}

function isPartial(dio: IomapDio): boolean {
  return (dio.dioFlags & IOMAP_DIO_PARTIAL) !== 0;
}

function traceQueued({ iter }: IomapDio): void {
  traceIomapRange("iomap_dio_rw_queued", iter.inode, iter.pos, iter.len);
}

function dioWait(dio: IomapDio, inode: Inode): MaybePromise<number> {
  dio.waiter ??= new WaitQueue();
  const waited = dio.waiter.wait(inode.sb.bdev.clock, dio.done);
  return andThenWith(waited, dioWaited, dio);
}

function dioWaited(_: void, dio: IomapDio): MaybePromise<number> {
  return iomapDioComplete(dio);
}
