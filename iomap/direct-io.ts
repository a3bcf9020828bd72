/**
 * Direct I/O: bios straight over the caller's memory.
 *
 * A request counts its bios and one for its submission; who drops the last count
 * completes it. So a request whose bios were all done while they were submitted
 * completes in the call, and never becomes asynchronous.
 *
 * An asynchronous request ends in one of three places. A read that went well ends
 * where its last bio does. A write that needs nothing more is handed to its issuer,
 * if that has asked for it (IOCB_DIO_CALLER_COMP), whether it went well or not. All
 * else is a worker's: an event of the clock, due at once.
 *
 * Kernel counterpart: fs/iomap/direct-io.c.
 *
 * @module
 */

import { Bio, submitBio } from "../block/bio.ts";
import { bioPoll } from "../block/blk-core.ts";
import { blkFinishPlug, blkStartPlug } from "../block/blk-plug.ts";
import {
  blkStatusToErrno,
  REQ_ATOMIC,
  REQ_FUA,
  REQ_IDLE,
  REQ_NOWAIT,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_POLLED,
  REQ_SYNC,
} from "../block/blk-types.ts";
import type { BlockDevice } from "../block/blkdev.ts";
import type { File, Inode } from "../fs/fs.ts";
import { inodeDioBegin, inodeDioEnd, markInodeDirty } from "../fs/inode.ts";
import {
  IOCB_ATOMIC,
  IOCB_DIO_CALLER_COMP,
  IOCB_DSYNC,
  IOCB_HIPRI,
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
import {
  andThen,
  andThenWith,
  type MaybePromise,
} from "../lib/maybe-promise.ts";
import { printk, Ratelimit } from "../lib/printk.ts";
import { WaitQueue } from "../lib/wait.ts";
import { errseqSet } from "../mm/errseq.ts";
import {
  filemapRangeHasPage,
  filemapRangeNeedsWriteback,
  filemapWriteAndWaitRange,
} from "../mm/filemap.ts";
import { invalidateInodePages2Range } from "../mm/truncate.ts";
import type { IomapIoend } from "./ioend.ts";
import {
  type Iomap,
  IOMAP_ATOMIC,
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

/** Nothing is cached that could have to go at the end. */
const IOMAP_DIO_NO_INVALIDATE = 1 << 25;
/** The issuer may end it. */
const IOMAP_DIO_CALLER_COMP = 1 << 26;
/** It may end where its last bio does. */
const IOMAP_DIO_INLINE_COMP = 1 << 27;
/** Every piece so far went out with FUA. */
const IOMAP_DIO_WRITE_THROUGH = 1 << 28;
/** Durable before the call ends. */
const IOMAP_DIO_NEED_SYNC = 1 << 29;
const IOMAP_DIO_WRITE = 1 << 30;
/** Somebody keeps book of what is read into the memory. */
const IOMAP_DIO_DIRTY = 1 << 31;

/** Largest piece written to fill up a block: the largest block. */
const IOMAP_ZERO_PAGE_SIZE = 65536;
const ZEROES = new Uint8Array(IOMAP_ZERO_PAGE_SIZE);
/** Largest bio, as its size has 32 bits. */
const MAX_BIO_SIZE = 2 ** 30;

/** One direct read or write (kernel: `struct iomap_dio`): from
 * {@linkcode __iomapDioRw} to {@linkcode iomapDioComplete}, which recycles it. */
export interface IomapDio {
  /** The call. */
  readonly iocb: Kiocb;
  /** Bytes submitted. */
  readonly size: number;
  /** First negative errno, or 0. */
  readonly error: number;
}

class Dio implements IomapDio {
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

const freeDios: Dio[] = [];

function dioPut(dio: Dio): void {
  // What is kept for later keeps nothing else in memory.
  dio.iocb = null as never;
  dio.from = null as never;
  dio.dops = null;
  iomapIterRelease(dio.iter);
  freeDios.push(dio);
}

function iomapDioAllocBio(
  bdev: BlockDevice,
  dio: Dio,
  opf: number,
): Bio {
  const bio = dio.dops?.bioSet?.bioAlloc(bdev, opf) ?? new Bio(bdev, opf);
  bio.writeHint = dio.iter.inode.writeHint;
  bio.private = dio;
  bio.endIo = iomapDioBioEndIo;
  return bio;
}

function iomapDioSubmitBio(
  iter: IomapIter,
  dio: Dio,
  bio: Bio,
  pos: number,
): void {
  const { iocb } = dio;
  dio.ref++;
  // Nobody could poll for a synchronous call: it goes to sleep.
  if ((iocb.flags & IOCB_HIPRI) !== 0 && !isSyncKiocb(iocb)) {
    bioSetPolled(bio, iocb);
  }
  if (dio.dops?.submitIo) {
    dio.dops.submitIo(iter, bio, pos);
    return;
  }
  const anon = (iter.iomap.flags & IOMAP_F_ANON_WRITE) !== 0;
  warnOnOnce(anon, "iomap: a write without address needs submitIo");
  submitBio(bio);
}

/** Kernel: `bio_set_polled`. */
function bioSetPolled(bio: Bio, iocb: Kiocb): void {
  bio.opf |= REQ_POLLED;
  // Who polls must not wait for a request: nobody would find what frees one.
  if ((iocb.flags & IOCB_NOWAIT) !== 0) bio.opf |= REQ_NOWAIT;
  iocb.private = bio;
}

/**
 * Looks for completions of polled direct I/O (kernel: `iocb_bio_iopoll`); a file
 * system's `iopoll`.
 *
 * @param iocb A call that was made with IOCB_HIPRI, returned -EIOCBQUEUED, and has
 *   not completed.
 * @param flags `BLK_POLL_*`.
 * @returns Completions found, not necessarily of this call; 0 also if it is not
 *   polled (see {@linkcode iomapDioRw}).
 */
export function iocbBioIopoll(iocb: Kiocb, flags: number): number {
  const bio = iocb.private;
  return bio instanceof Bio ? bioPoll(bio, flags) : 0;
}

function iomapDioSetError(dio: Dio, error: number): void {
  if (dio.error === 0) dio.error = error;
}

/** All I/O is done: wake who waits, or complete on behalf of who does not. */
function iomapDioDone(dio: Dio): void {
  if (dio.waitForCompletion) {
    dio.waiter?.wakeAll();
    return;
  }
  const { iocb } = dio;
  // A file system may have to wait to clean up.
  if (dio.error !== 0) dio.flags &= ~IOMAP_DIO_INLINE_COMP;
  if ((dio.flags & IOMAP_DIO_INLINE_COMP) !== 0) {
    // Polling ends with that.
    iocb.private = null;
    iomapDioCompleteWork(dio);
  } else if ((dio.flags & IOMAP_DIO_CALLER_COMP) !== 0) {
    iocb.private = dio;
    iocb.dioComplete = iomapDioDeferredComplete;
    // The result is what `dioComplete` answers.
    iocb.kiComplete!(iocb, 0);
  } else {
    const { clock } = iocb.file.inode.sb.bdev;
    clock.at(clock.now(), iomapDioCompleteWork, dio);
  }
}

/** `Kiocb.dioComplete` of what is left to its issuer. */
function iomapDioDeferredComplete(data: unknown): MaybePromise<number> {
  return iomapDioComplete(data as Dio);
}

/** Ends an asynchronous request, and tells the issuer. */
function iomapDioCompleteWork(dio: Dio): void {
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
  const dio = bio.private as Dio;
  if (bio.status !== 0) iomapDioSetError(dio, blkStatusToErrno(bio.status));
  if ((dio.flags & IOMAP_DIO_DIRTY) !== 0) dirtyPages(dio, bio);
  if (--dio.ref === 0) iomapDioDone(dio);
}

/** Kernel: `bio_check_pages_dirty`. */
function dirtyPages({ from }: Dio, { vecs }: Bio): void {
  for (const { data, offset, len } of vecs) from.pagesDirty!(data, offset, len);
}

/**
 * Counts an ioend of direct I/O as done (kernel: `iomap_finish_ioend_direct`); the
 * ioend was made by `submitIo` with IOMAP_IOEND_DIRECT.
 *
 * @param request What its bio had for `private` before it became an ioend's.
 */
export function iomapFinishIoendDirect(
  ioend: IomapIoend,
  request: IomapDio,
): void {
  const dio = request as Dio;
  if (ioend.error !== 0) iomapDioSetError(dio, ioend.error);
  if ((dio.flags & IOMAP_DIO_DIRTY) !== 0) dirtyPages(dio, ioend.bio);
  if (--dio.ref > 0) return;
  // This is a worker already. But it is the one that ends writeback, for which the
  // cache would have to wait.
  if (dio.iocb.mapping.nrPages === 0) {
    dio.flags |= IOMAP_DIO_INLINE_COMP | IOMAP_DIO_NO_INVALIDATE;
  }
  dio.flags &= ~IOMAP_DIO_CALLER_COMP;
  iomapDioDone(dio);
}

/**
 * Ends a request all of whose I/O is done (kernel: `iomap_dio_complete`):
 * `endIo`, dropping the cache that a reader made meanwhile, `iocb.pos`, and the
 * sync that a durable write asks for.
 *
 * @param request From {@linkcode __iomapDioRw}; recycled.
 * @returns Bytes or a negative errno, as {@linkcode iomapDioRw}.
 */
export function iomapDioComplete(request: IomapDio): MaybePromise<number> {
  const dio = request as Dio;
  const { dops, iocb, size, error, flags } = dio;
  if (!dops?.endIo) return dioEnded(error, dio);
  return andThenWith(dops.endIo(iocb, size, error, flags), dioEnded, dio);
}

function dioEnded(ret: number, dio: Dio): MaybePromise<number> {
  const { iocb, size, flags } = dio;
  const isWrite = (flags & IOMAP_DIO_WRITE) !== 0;
  if (ret === 0) {
    ret = size;
    if (!isWrite) ret = Math.min(ret, dio.iSize - iocb.pos);
  }
  dio.ret = ret;
  if (!isWrite || dio.error !== 0 || size === 0) return dioEnd(dio);
  const { mapping } = iocb;
  const keep = (flags & IOMAP_DIO_NO_INVALIDATE) !== 0;
  // A reader may have cached what was there before the write reached the device.
  if (keep || mapping.nrPages === 0) return dioEnd(dio);
  const last = iocb.pos + size - 1;
  const dropped = invalidateInodePages2Range(mapping, iocb.pos, last);
  return andThenWith(dropped, dioInvalidated, dio);
}

function dioInvalidated(error: number, dio: Dio): MaybePromise<number> {
  if (error !== 0) {
    // For fsync alone: no writeback has failed, so AS_EIO stays clear.
    const { mapping, file } = dio.iocb;
    mapping.wbErr = errseqSet(mapping.wbErr, -EIO);
    warnStalePagecache(file);
  }
  return dioEnd(dio);
}

const staleLimit = new Ratelimit();
const collisionLimit = new Ratelimit();
/** Who does all I/O here. */
const COMM = "iomap";

/** Kernel: `dio_warn_stale_pagecache`. */
function warnStalePagecache(file: File): void {
  if (!staleLimit.allow(file.inode.sb.bdev.clock.now())) return;
  printk(
    "Page cache invalidation failure on direct I/O.  Possible data corruption " +
      "due to collision with buffered I/O!",
  );
  printk(`File: ${file.path} PID: 1 Comm: ${COMM}`);
}

function dioEnd(dio: Dio): MaybePromise<number> {
  const { iocb, ret, flags } = dio;
  inodeDioEnd(iocb.file.inode);
  if (ret <= 0) return dioResult(ret, dio);
  iocb.pos += ret;
  if ((flags & IOMAP_DIO_NEED_SYNC) === 0) return dioResult(ret, dio);
  return andThenWith(genericWriteSync(iocb, ret), dioResult, dio);
}

function dioResult(ret: number, dio: Dio): number {
  if (ret > 0) ret += dio.doneBefore;
  if (tracer !== null) traceIomapDioComplete(dio.iocb, dio.error, ret);
  dioPut(dio);
  return ret;
}

/** Writes zeroes to fill up a block; 0 or -EINVAL for more than 64 KiB. */
function iomapDioZero(
  iter: IomapIter,
  dio: Dio,
  pos: number,
  len: number,
): number {
  const tooLong = len > IOMAP_ZERO_PAGE_SIZE;
  if (warnOnOnce(tooLong, "iomap: more than 64 KiB to zero")) return -EINVAL;
  const opf = REQ_OP_WRITE | REQ_SYNC | REQ_IDLE;
  const bio = iomapDioAllocBio(iter.iomap.bdev!, dio, opf);
  bio.sector = iomapSector(iter.iomap, pos);
  bio.addData(ZEROES, 0, len);
  iomapDioSubmitBio(iter, dio, bio, pos);
  return 0;
}

/** FUA makes a separate flush needless, if no metadata has to reach the device. */
function iomapDioCanUseFua(iomap: Iomap, dio: Dio): boolean {
  if ((iomap.flags & (IOMAP_F_SHARED | IOMAP_F_DIRTY)) !== 0) return false;
  if ((dio.flags & IOMAP_DIO_WRITE_THROUGH) === 0) return false;
  const bdev = iomap.bdev!;
  return !bdev.writeCache || bdev.fua;
}

/** Whether what of its blocks is not written reads as zero afterwards. */
function needsZeroout(iomap: Iomap): boolean {
  return iomap.type === IOMAP_UNWRITTEN || (iomap.flags & IOMAP_F_NEW) !== 0;
}

/** `opf` of a write's bios; notes in `dio.flags` what kind of blocks it touches. */
function iomapDioBioWriteOpf(iomap: Iomap, dio: Dio): number {
  let opf = REQ_OP_WRITE | REQ_SYNC | REQ_IDLE;
  if ((iomap.flags & IOMAP_F_ATOMIC_BIO) !== 0) opf |= REQ_ATOMIC;
  if (iomap.type === IOMAP_UNWRITTEN) dio.flags |= IOMAP_DIO_UNWRITTEN;
  if ((iomap.flags & IOMAP_F_SHARED) !== 0) dio.flags |= IOMAP_DIO_COW;
  const inPlace = iomap.type === IOMAP_MAPPED && !needsZeroout(iomap);
  if (inPlace && iomapDioCanUseFua(iomap, dio)) opf |= REQ_FUA;
  // One piece without FUA, and only a flush makes the whole durable.
  else dio.flags &= ~IOMAP_DIO_WRITE_THROUGH;
  return opf;
}

/** Whether the issuer cannot end a write: more is to be done than to move on. */
function needsWorker(iter: IomapIter, dio: Dio, opf: number): boolean {
  if (needsZeroout(iter.iomap) || iter.pos >= iter.inode.size) return true;
  return (dio.flags & IOMAP_DIO_NEED_SYNC) !== 0 && (opf & REQ_FUA) === 0;
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
  dio: Dio,
  opf: number,
  length: number,
): number {
  const { iomap } = iter;
  let done = 0;
  // Once a bio has failed the rest cannot help.
  while (done < length && dio.error === 0) {
    const pos = iter.pos + done;
    const bio = iomapDioAllocBio(iomap.bdev!, dio, opf);
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
    // One bio can be polled for, not two.
    if (done < length) dio.iocb.flags &= ~IOCB_HIPRI;
    iomapDioSubmitBio(iter, dio, bio, pos);
  }
  return done;
}

function iomapDioBioIter(iter: IomapIter, dio: Dio): number {
  const length = iomapLength(iter);
  const lbs = iter.iomap.bdev!.limits.logicalBlockSize;
  if (((iter.pos | length) & (lbs - 1)) !== 0) return -EINVAL;
  if ((dio.flags & IOMAP_DIO_WRITE) !== 0) {
    return iomapDioBioWriteIter(iter, dio, length);
  }
  const done = submitData(iter, dio, REQ_OP_READ | REQ_SYNC | REQ_IDLE, length);
  return done > 0 ? iomapIterAdvance(iter, done) : done;
}

function iomapDioBioWriteIter(
  iter: IomapIter,
  dio: Dio,
  length: number,
): number {
  const { iomap, inode, pos } = iter;
  const atomic = (iomap.flags & IOMAP_F_ATOMIC_BIO) !== 0;
  if (atomic && length !== iter.len) return -EINVAL;
  const opf = iomapDioBioWriteOpf(iomap, dio);
  if (needsWorker(iter, dio, opf)) dio.flags &= ~IOMAP_DIO_CALLER_COMP;
  // A worker does not poll.
  if ((dio.flags & IOMAP_DIO_CALLER_COMP) === 0) dio.iocb.flags &= ~IOCB_HIPRI;
  const bsMask = (1 << inode.blkbits) - 1;
  const head = pos & bsMask;
  if (needsZeroout(iomap) && head > 0) {
    const error = iomapDioZero(iter, dio, pos - head, head);
    if (error !== 0) return error;
  }
  let ret = submitData(iter, dio, opf, length);
  const done = Math.max(0, ret);
  const stopped = dio.error !== 0 && done < length;
  if (!stopped) ret = iomapDioZeroTail(iter, dio, pos + done, ret);
  return done > 0 ? iomapIterAdvance(iter, done) : ret;
}

/**
 * Fills up the block in which a write ends. Beyond the end of the file too: a reader
 * of the block would see what was there before. It happens after memory that cannot
 * be read as well, and hides that error.
 *
 * @returns `ret`, or what it is replaced by.
 */
function iomapDioZeroTail(
  iter: IomapIter,
  dio: Dio,
  end: number,
  ret: number,
): number {
  const { iomap, inode } = iter;
  if (!needsZeroout(iomap) && end < inode.size) return ret;
  const bsMask = (1 << inode.blkbits) - 1;
  const pad = end & bsMask;
  if (pad === 0) return ret;
  return iomapDioZero(iter, dio, end, bsMask + 1 - pad);
}

/** Nothing to read: zeroes for the caller. */
function iomapDioHoleIter(iter: IomapIter, dio: Dio): number {
  const length = dio.from.zero(iomapLength(iter));
  dio.size += length;
  return length === 0 ? -EFAULT : iomapIterAdvance(iter, length);
}

function iomapDioInlineIter(iter: IomapIter, dio: Dio): number {
  const { inode, iomap, pos } = iter;
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

function warnCollision(file: File): void {
  if (!collisionLimit.allow(file.inode.sb.bdev.clock.now())) return;
  printk(
    `Direct I/O collision with buffered writes! File: ${file.path} Comm: ${COMM}`,
  );
}

function iomapDioIter(iter: IomapIter, dio: Dio): number {
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
    default:
      // DELALLOC: a store through a memory mapping got in between, and its data is in
      // the cache.
      warnCollision(dio.iocb.file);
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
  return written === 0
    ? invalidateInodePages2Range(mapping, pos, last)
    : invalidateAfter(written, iocb, last);
}

/** Apart: its closure would cost every write. */
function invalidateAfter(
  written: MaybePromise<number>,
  { mapping, pos }: Kiocb,
  last: number,
): MaybePromise<number> {
  return andThen(
    written,
    (error) =>
      error !== 0 ? error : invalidateInodePages2Range(mapping, pos, last),
  );
}

/**
 * Reads or writes past the page cache (kernel: `iomap_dio_rw`):
 * {@linkcode __iomapDioRw}, and {@linkcode iomapDioComplete} of what is not left to
 * a completion.
 *
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
  const dio = __iomapDioRw(iocb, from, ops, dops, dioFlags, priv, doneBefore);
  return dio instanceof Promise ? dio.then(completeOrNot) : completeOrNot(dio);
}

function completeOrNot(dio: IomapDio | number): MaybePromise<number> {
  return typeof dio === "number" ? dio : iomapDioComplete(dio);
}

/**
 * Reads or writes past the page cache, up to the point where all I/O is done
 * (kernel: `__iomap_dio_rw`): a file system that has something to do before
 * {@linkcode iomapDioComplete} calls this.
 *
 * The caller holds `inode.rwsem` as its kind of file wants it; it may let go of it
 * when the call returns, as `inode.dioCount` counts what is in flight.
 *
 * @param iocb Its `kiComplete` is told the result of a call that returned
 *   -EIOCBQUEUED. `iocb.pos` moves by what was done. With IOCB_HIPRI and if
 *   asynchronous, one bio is submitted for polling and is `iocb.private` until it has
 *   ended: of a read, or of a write that its issuer ends (IOCB_DIO_CALLER_COMP), with
 *   one mapping and one bio; anything more, and the flag is taken back.
 * @param from The caller's memory; stays in use until the request is complete.
 * @param ops Mapping callbacks, called with DIRECT, and WRITE, NOWAIT,
 *   OVERWRITE_ONLY, ATOMIC as they apply.
 * @param dops Hooks, or null.
 * @param dioFlags `IOMAP_DIO_FORCE_WAIT` and so on.
 * @param priv For `iter.private`.
 * @param doneBefore Bytes that the caller has done already; added to a result
 *   above 0.
 * @returns The request, whose errors are for `iomapDioComplete` to tell; 0 if there
 *   was nothing to do; -EIOCBQUEUED; or a negative errno of what comes before the
 *   first mapping.
 */
export function __iomapDioRw(
  iocb: Kiocb,
  from: IovIter,
  ops: IomapOps,
  dops: IomapDioOps | null,
  dioFlags: number,
  priv: unknown,
  doneBefore: number,
): MaybePromise<IomapDio | number> {
  const { count } = from;
  if (tracer !== null) traceIomapDioRwBegin(iocb, count, dioFlags, doneBefore);
  if (count === 0) return 0;
  const { inode } = iocb.file;
  const { pos } = iocb;
  const isWrite = (iocb.flags & IOCB_WRITE) !== 0;
  if (!isWrite && pos >= inode.size) return 0;
  const overwrite = isWrite && (dioFlags & IOMAP_DIO_OVERWRITE_ONLY) !== 0;
  // What is beyond the end of the file has no blocks, or none with data.
  if (overwrite && pos + count > inode.size) return -EAGAIN;
  const dio = freeDios.pop() ?? new Dio();
  dio.iocb = iocb;
  dio.dops = dops;
  dio.from = from;
  dio.iSize = inode.size;
  dio.size = 0;
  dio.ref = 1;
  dio.flags = isWrite ? dioWriteFlags(iocb) : dioReadFlags(from);
  dio.dioFlags = dioFlags;
  dio.error = 0;
  dio.doneBefore = doneBefore;
  dio.waitForCompletion = false;
  const flags = operationFlags(iocb, isWrite, overwrite);
  // Here too the caller is the part that walks.
  iomapIterInit(dio.iter, inode, pos, count, flags, "__iomap_dio_rw");
  dio.iter.private = priv;
  const clean = isWrite
    ? kiocbInvalidatePages(iocb, count)
    : kiocbWriteAndWait(iocb, count);
  return clean === 0
    ? dioWalk(dio, ops)
    : andThenWith(clean, dioCleaned, { dio, ops });
}

/** `IOMAP_*` flags that the file system is called with. */
function operationFlags(
  iocb: Kiocb,
  isWrite: boolean,
  overwrite: boolean,
): number {
  let flags = IOMAP_DIRECT;
  if ((iocb.flags & IOCB_NOWAIT) !== 0) flags |= IOMAP_NOWAIT;
  if (!isWrite) return flags;
  flags |= IOMAP_WRITE;
  if (overwrite) flags |= IOMAP_OVERWRITE_ONLY;
  if ((iocb.flags & IOCB_ATOMIC) !== 0) flags |= IOMAP_ATOMIC;
  return flags;
}

function dioReadFlags(from: IovIter): number {
  const dirty = from.pagesDirty === null ? 0 : IOMAP_DIO_DIRTY;
  return IOMAP_DIO_INLINE_COMP | dirty;
}

function dioWriteFlags(iocb: Kiocb): number {
  let flags = IOMAP_DIO_WRITE;
  if ((iocb.flags & IOCB_DIO_CALLER_COMP) !== 0) flags |= IOMAP_DIO_CALLER_COMP;
  if ((iocb.flags & IOCB_DSYNC) === 0) return flags;
  flags |= IOMAP_DIO_NEED_SYNC;
  // Without attributes to make durable FUA may do.
  if ((iocb.flags & IOCB_SYNC) === 0) flags |= IOMAP_DIO_WRITE_THROUGH;
  return flags;
}

function dioCleaned(
  error: number,
  { dio, ops }: { dio: Dio; ops: IomapOps },
): MaybePromise<Dio | number> {
  if (error === 0) return dioWalk(dio, ops);
  const { iocb, iter } = dio;
  const { inode, pos, len, flags } = iter;
  dioPut(dio);
  if ((flags & IOMAP_WRITE) === 0 || error === -EAGAIN) return error;
  if (tracer !== null) {
    traceIomapRange("iomap_dio_invalidate_fail", inode, pos, len);
  }
  // What is to be atomic is not redone through the cache.
  return (iocb.flags & IOCB_ATOMIC) !== 0 ? -EAGAIN : -ENOTBLK;
}

function dioWalk(
  dio: Dio,
  ops: IomapOps,
): MaybePromise<Dio | number> {
  inodeDioBegin(dio.iter.inode);
  return andThenWith(pluggedWalk(dio, ops), dioSubmitted, dio);
}

/** What is submitted before the walk first waits goes to the device together. */
function pluggedWalk(dio: Dio, ops: IomapOps): MaybePromise<number> {
  blkStartPlug();
  try {
    return iomapWalk(dio.iter, ops, iomapDioMapping, dio);
  } finally {
    blkFinishPlug();
  }
}

function iomapDioMapping(iter: IomapIter, dio: Dio): number {
  const status = iomapDioIter(iter, dio);
  // A second mapping would be a second bio.
  dio.iocb.flags &= ~IOCB_HIPRI;
  return status;
}

/** All that will be submitted has been. */
function dioSubmitted(
  ret: number,
  dio: Dio,
): MaybePromise<Dio | number> {
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
  if (--dio.ref === 0) return dio;
  if (wait) return dioWait(dio, iter.inode);
  if (tracer !== null) traceQueued(dio);
  return -EIOCBQUEUED;
}

function isPartial(dio: Dio): boolean {
  return (dio.dioFlags & IOMAP_DIO_PARTIAL) !== 0;
}

function traceQueued({ iter }: Dio): void {
  traceIomapRange("iomap_dio_rw_queued", iter.inode, iter.pos, iter.len);
}

function dioWait(dio: Dio, inode: Inode): MaybePromise<Dio> {
  dio.waiter ??= new WaitQueue();
  const waited = dio.waiter.wait(inode.sb.bdev.clock, dio.done);
  return waited instanceof Promise ? waited.then(() => dio) : dio;
}
