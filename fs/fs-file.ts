/**
 * The open file that users hold, after `Deno.FsFile`.
 *
 * A newcomer gets this wrong: `readSync` does not make a promise wait. What it has
 * to wait for is run in place on the clock; where another task would have to go on
 * first, it throws EAGAIN.
 *
 * @module
 */

import type { Clock } from "../lib/clock.ts";
import {
  EAGAIN,
  EBADF,
  EFAULT,
  EINVAL,
  EIOCBQUEUED,
  EOPNOTSUPP,
  type FsError,
  show,
} from "../lib/errno.ts";
import { IovIter } from "../lib/iov-iter.ts";
import { Mutex } from "../lib/locks.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import { type CacheStat, filemapCachestat } from "../mm/filemap.ts";
import { PAGE_SIZE } from "../mm/folio.ts";
import { VM_SHARED, VM_WRITE } from "../mm/rmap.ts";
import { type Advice, vfsFadvise, vfsReadahead } from "./fadvise.ts";
import {
  FALLOC_FL_COLLAPSE_RANGE,
  FALLOC_FL_INSERT_RANGE,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_UNSHARE_RANGE,
  FALLOC_FL_ZERO_RANGE,
  type FiemapExtent,
  type FiemapExtentInfo,
  type File,
  MAX_LFS_FILESIZE,
} from "./fs.ts";
import { canIopoll, Iopoll } from "./iopoll.ts";
import {
  FIEMAP_FLAG_CACHE,
  FIEMAP_FLAG_SYNC,
  FIEMAP_FLAG_XATTR,
  ioctlFibmap,
  vfsFiemap,
} from "./ioctl.ts";
import {
  IOCB_APPEND,
  IOCB_ATOMIC,
  IOCB_DIO_CALLER_COMP,
  IOCB_DIRECT,
  IOCB_DONTCACHE,
  IOCB_DSYNC,
  IOCB_HIPRI,
  IOCB_NOWAIT,
  IOCB_SYNC,
  IOCB_SYNC_CALL,
  Kiocb,
} from "./kiocb.ts";
import { MemoryMapping, type MmapOptions, vfsMmap } from "./mmap.ts";
import { fileClose, vfsFallocate, vfsFtruncate } from "./open.ts";
import { vfsLlseek, vfsRead, vfsWrite } from "./read-write.ts";
import {
  type RemapRange,
  vfsCloneFileRange,
  vfsCopyFileRange,
  vfsDedupeFileRange,
} from "./remap-range.ts";
import { type FileInfo, vfsGetattr } from "./stat.ts";
import { syncFileRange, vfsFsync } from "./sync.ts";
import {
  checkCount,
  checkFlag,
  checkInteger,
  checkOffset,
  checkOptions,
  failure,
  orThrow,
  runSync,
  type Syscall,
  unknownOption,
} from "./syscall.ts";

/** Bytes that a stream reads at once. */
const STREAM_CHUNK = 65536;

/** Options of a read, after preadv2(2). */
export interface ReadOptions {
  /** Offset in the file, bytes; the file position, which then moves, if absent. */
  at?: number;
  /** EAGAIN rather than wait for I/O or a lock (RWF_NOWAIT). */
  nowait?: boolean;
  /** Drop the pages once they have been used (RWF_DONTCACHE). */
  dontcache?: boolean;
  /** Poll for the completion (RWF_HIPRI): of an asynchronous call on a file that is
   * open for direct I/O, on a device with queues for it. No effect elsewhere. */
  hipri?: boolean;
}

/** Options of a write, after pwritev2(2). */
export interface WriteOptions extends ReadOptions {
  /** Write at the end of the file (RWF_APPEND). */
  append?: boolean;
  /** Data is durable when the call returns (RWF_DSYNC). */
  dsync?: boolean;
  /** Data and attributes are durable when the call returns (RWF_SYNC). */
  sync?: boolean;
  /** All or nothing, even if the power fails (RWF_ATOMIC). */
  atomic?: boolean;
}

/** What part of the extent map to ask for, and how. */
export interface FiemapOptions {
  /** First byte; 0 if absent. */
  start?: number;
  /** Bytes; to the end of the file if absent. */
  length?: number;
  /** Write back the file first. */
  sync?: boolean;
  /** The extents of its attributes, not of its data. */
  xattr?: boolean;
  /** Read the extent map into memory; EBADR where the file system does not. */
  cache?: boolean;
  /** Most extents, above 0. */
  max?: number;
}

/** A range of another file, and its place in this one. */
export interface RangeOptions {
  /** First byte in the other file; 0 if absent. */
  srcOffset?: number;
  /** First byte in this file; 0 if absent. */
  offset?: number;
  /** Bytes; to the end of the other file if absent. */
  length?: number;
}

// `at` of the options parsed last, -1 if absent; taken at once. To hand it back in an
// object would make one for each call, as would a variable for each number above 2^31.
const parsedAt = new Float64Array(1);

const READ = false;
const WRITE = true;

/** A read or write that goes on; used again and again by its file. */
class Call extends Kiocb {
  readonly iter: IovIter = new IovIter();
  readonly complete: (call: Call, ret: number) => void;
  readonly crash: (error: unknown) => void;
  write = false;
  /** Offset asked for, bytes; -1 for the file position. */
  at = -1;
  /** Bytes asked for. */
  length = 0;
  /** Who polls for it; null if nobody does. */
  iopoll: Iopoll | null = null;
  /** Whether there is a promise to settle. */
  promised = true;
  /** The result that came before there was one. */
  early: number | null = null;
  resolve!: (value: number | null) => void;
  reject!: (error: unknown) => void;
  // Functions made once, not for each call.
  readonly executor = (
    resolve: (value: number | null) => void,
    reject: (error: unknown) => void,
  ): void => {
    this.resolve = resolve;
    this.reject = reject;
    this.promised = true;
  };
  readonly settle = (ret: number): void => {
    if (ret !== -EIOCBQUEUED) this.complete(this, ret);
  };

  constructor(
    file: File,
    complete: (call: Call, ret: number) => void,
    crash: (call: Call, error: unknown) => void,
  ) {
    super(file);
    this.complete = complete;
    this.crash = (error) => crash(this, error);
  }
}

/** `Kiocb.kiComplete` of asynchronous calls. */
function callComplete(iocb: Kiocb, ret: number): void {
  const call = iocb as Call;
  if (call.dioComplete === null) return call.complete(call, ret);
  // It is for us to end it.
  const ended = call.dioComplete(call.private);
  if (typeof ended === "number") call.complete(call, ended);
  else ended.then(call.settle, call.crash);
}

/** A promise of what is there already: made like this it is awaited in three quarters
 * of the time that one of `Promise.resolve` takes. */
// deno-lint-ignore require-await
async function promiseOf<T>(value: T): Promise<T> {
  return value;
}

function stopPolling(call: Call): void {
  call.iopoll?.remove(call);
  call.iopoll = null;
}

/**
 * An open file. Offsets and lengths are bytes; every method throws, or rejects with,
 * an `FsError`: EBADF once it is closed, EINVAL for an argument that makes no sense,
 * and what Linux answers otherwise.
 *
 * Each method has a synchronous twin, which throws EAGAIN where it would have to
 * wait for another task.
 */
export class FsFile implements Disposable, AsyncDisposable {
  readonly #file: File;
  readonly #clock: Clock;
  readonly #position = new Mutex("f_pos");
  readonly #calls: Call[] = [];
  #iopoll: Iopoll | null = null;
  #inFlight = 0;
  #closed = false;
  #released: MaybePromise<void> = undefined;
  #readable: ReadableStream<Uint8Array<ArrayBuffer>> | null = null;
  #writable: WritableStream<Uint8Array<ArrayBufferLike>> | null = null;

  /** Only a mount makes them. @param file Is closed with it. */
  constructor(file: File) {
    this.#file = file;
    this.#clock = file.inode.sb.bdev.clock;
  }

  /** As given to open. */
  get path(): string {
    return this.#file.path;
  }

  /**
   * Reads up to `p.length` bytes.
   *
   * Calls on a file that is open for direct I/O may be many at a time; those without
   * `at` take turns.
   *
   * @returns Bytes read, or null at the end of the file.
   * @throws FsError EBADF (not open for reading), EISDIR, EAGAIN (nowait), EINVAL
   *   (unaligned direct I/O), EIO (the device failed), EOPNOTSUPP (an option that the
   *   file does not support).
   */
  read(p: Uint8Array, options?: ReadOptions): Promise<number | null> {
    try {
      return this.#later(p, this.#flags(options, READ), READ);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** {@linkcode FsFile.read}, synchronously. After EAGAIN what was begun goes on: it may
   * still fill `p`. */
  readSync(p: Uint8Array, options?: ReadOptions): number | null {
    const n = this.#now(p, this.#flags(options, READ), READ);
    return n === 0 && p.length > 0 ? null : n;
  }

  /**
   * Writes up to `p.length` bytes.
   *
   * @returns Bytes written; fewer only where write(2) may, as when the device fills
   *   up.
   * @throws FsError EBADF (not open for writing), ENOSPC, EFBIG, EAGAIN (nowait),
   *   EINVAL (unaligned direct I/O), EIO, ETXTBSY (a swap file), EOPNOTSUPP (an option
   *   that the file does not support).
   */
  write(p: Uint8Array, options?: WriteOptions): Promise<number> {
    try {
      const written = this.#later(p, this.#flags(options, WRITE), WRITE);
      return written as Promise<number>;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** {@linkcode FsFile.write}, synchronously. */
  writeSync(p: Uint8Array, options?: WriteOptions): number {
    return this.#now(p, this.#flags(options, WRITE), WRITE);
  }

  /**
   * Moves the file position.
   *
   * @param whence `Deno.SeekMode`, or `SEEK_DATA`, `SEEK_HOLE`.
   * @returns The new position.
   * @throws FsError EINVAL (unknown whence, or a position below 0 or beyond the
   *   largest file), ENXIO (no data or hole from `offset` on).
   */
  async seek(offset: number, whence: number): Promise<number> {
    return await this.#seek(offset, whence);
  }

  /** {@linkcode FsFile.seek}, synchronously. */
  seekSync(offset: number, whence: number): number {
    const call = this.#call("lseek", "seek in");
    return runSync(this.#clock, call, () => this.#seek(offset, whence));
  }

  #seek(offset: number, whence: number): MaybePromise<number> {
    const call = this.#call("lseek", "seek in");
    const file = this.#open(call);
    checkInteger(call, "offset", offset);
    if (this.#clock.inSync && this.#position.isLocked) {
      throw failure(call, EAGAIN, "another call uses the position");
    }
    const sought = andThen(
      this.#position.lock(),
      () => vfsLlseek(file, offset, whence),
    );
    return this.#hold(sought, (pos) => {
      this.#position.unlock();
      if (pos >= 0) return pos;
      throw failure(call, pos, `offset ${offset}, whence ${show(whence)}`);
    });
  }

  /** What is known of the file. */
  stat(): Promise<FileInfo> {
    return Promise.try(() => this.statSync());
  }

  /** {@linkcode FsFile.stat}, synchronously. */
  statSync(): FileInfo {
    return vfsGetattr(this.#open(this.#call("fstat", "stat")).inode);
  }

  /**
   * Sets the size: what is cut off is gone, what is added reads as zero.
   *
   * @param len Bytes; 0 if absent.
   * @throws FsError EINVAL (negative, or not a regular file open for writing), EFBIG,
   *   ETXTBSY (a swap file).
   */
  async truncate(len = 0): Promise<void> {
    await this.#truncate(len);
  }

  /** {@linkcode FsFile.truncate}, synchronously. */
  truncateSync(len = 0): void {
    const call = this.#call("ftruncate", "truncate");
    runSync(this.#clock, call, () => this.#truncate(len));
  }

  #truncate(len: number): MaybePromise<void> {
    const call = this.#call("ftruncate", "truncate");
    checkOffset(call, "length", len);
    const truncated = vfsFtruncate(this.#open(call), len);
    return this.#done(call, truncated, `length ${len}`);
  }

  /** Makes data and attributes durable (fsync).
   * @throws FsError EIO, ENOSPC: what writeback met since the file was opened or last
   *   synced. */
  async sync(): Promise<void> {
    await this.#fsync(false);
  }

  /** {@linkcode FsFile.sync}, synchronously. */
  syncSync(): void {
    const call = this.#call("fsync", "sync");
    runSync(this.#clock, call, () => this.#fsync(false));
  }

  /** Makes data durable, and what is needed to read it (fdatasync). Throws as
   * {@linkcode FsFile.sync}. */
  async syncData(): Promise<void> {
    await this.#fsync(true);
  }

  /** {@linkcode FsFile.syncData}, synchronously. */
  syncDataSync(): void {
    const call = this.#call("fdatasync", "sync");
    runSync(this.#clock, call, () => this.#fsync(true));
  }

  #fsync(datasync: boolean): MaybePromise<void> {
    const call = this.#call(datasync ? "fdatasync" : "fsync", "sync");
    return this.#done(call, vfsFsync(this.#open(call), datasync));
  }

  /**
   * Writes back a range of data, without attributes and without a flush of the
   * device: no guarantee that it survives a power cut (sync_file_range).
   *
   * @param length 0 is to the end of the file.
   * @param flags `SYNC_FILE_RANGE_*`; all of them if absent.
   * @throws FsError EINVAL (unknown flag), ESPIPE (no data), EIO.
   */
  async syncRange(offset: number, length: number, flags = 7): Promise<void> {
    await this.#syncRange(offset, length, flags);
  }

  /** {@linkcode FsFile.syncRange}, synchronously. */
  syncRangeSync(offset: number, length: number, flags = 7): void {
    const call = this.#call("sync_file_range", "sync a range of");
    runSync(
      this.#clock,
      call,
      () => this.#syncRange(offset, length, flags),
    );
  }

  #syncRange(
    offset: number,
    length: number,
    flags: number,
  ): MaybePromise<void> {
    const call = this.#call("sync_file_range", "sync a range of");
    const file = this.#open(call);
    checkRange(call, offset, length);
    if (!(Number.isInteger(flags) && flags >= 0 && flags <= 7)) {
      throw failure(call, EINVAL, `flags ${show(flags)} are not from 0 to 7`);
    }
    const synced = syncFileRange(file, offset, length, flags);
    return this.#done(call, synced, `range ${offset}+${length}`);
  }

  /**
   * Preallocates, punches, zeroes, collapses or inserts a range.
   *
   * @param mode `FALLOC_FL_*`; 0 preallocates.
   * @param length Above 0.
   * @throws FsError EOPNOTSUPP (no such mode), EBADF (not open for writing), EFBIG,
   *   ENOSPC, EISDIR, ETXTBSY (a swap file), EINVAL (unaligned collapse or insert).
   */
  async fallocate(mode: number, offset: number, length: number): Promise<void> {
    await this.#fallocate(mode, offset, length);
  }

  /** {@linkcode FsFile.fallocate}, synchronously. */
  fallocateSync(mode: number, offset: number, length: number): void {
    const call = this.#call("fallocate", fallocateTask(mode));
    runSync(
      this.#clock,
      call,
      () => this.#fallocate(mode, offset, length),
    );
  }

  #fallocate(mode: number, offset: number, length: number): MaybePromise<void> {
    const call = this.#call("fallocate", fallocateTask(mode));
    const file = this.#open(call);
    checkRange(call, offset, length);
    if (length === 0) throw failure(call, EINVAL, "length is 0");
    checkInteger(call, "mode", mode);
    // Beyond 32 bits it would be taken for another one.
    const done = mode === (mode | 0)
      ? vfsFallocate(file, mode, offset, length)
      : -EOPNOTSUPP;
    return this.#done(call, done, `mode ${mode}, range ${offset}+${length}`);
  }

  /**
   * Shares a range of another file: both then use the same blocks, and whichever is
   * written first gets its own (FICLONERANGE).
   *
   * @param src Open for reading.
   * @throws FsError EOPNOTSUPP (the file system shares nothing), EXDEV (a file of
   *   another one), EINVAL (not on block borders, over itself, or beyond the end of
   *   `src`), EBADF, EISDIR, ETXTBSY (a swap file), ENOSPC, EFBIG.
   */
  async cloneRange(src: FsFile, options: RangeOptions = {}): Promise<void> {
    await this.#cloneRange(src, options);
  }

  /** {@linkcode FsFile.cloneRange}, synchronously. */
  cloneRangeSync(src: FsFile, options: RangeOptions = {}): void {
    const call = this.#call("ioctl", "clone a range to");
    runSync(this.#clock, call, () => this.#cloneRange(src, options));
  }

  #cloneRange(src: FsFile, options: RangeOptions): MaybePromise<void> {
    const call = this.#call("ioctl", "clone a range to");
    const range = this.#range(call, src, options);
    return this.#done(call, this.#borrow(src, vfsCloneFileRange(range)));
  }

  /**
   * Shares a range with another file if both hold the same (FIDEDUPERANGE).
   *
   * @param src Open for reading.
   * @returns Bytes; at most 1 GiB at a time.
   * @throws FsError EBADE (they differ), EINVAL (beyond the end of either file); and as
   *   {@linkcode FsFile.cloneRange}.
   */
  async dedupeRange(src: FsFile, options: RangeOptions = {}): Promise<number> {
    return await this.#dedupeRange(src, options);
  }

  /** {@linkcode FsFile.dedupeRange}, synchronously. */
  dedupeRangeSync(src: FsFile, options: RangeOptions = {}): number {
    const call = this.#call("ioctl", "deduplicate a range of");
    return runSync(this.#clock, call, () => this.#dedupeRange(src, options));
  }

  #dedupeRange(src: FsFile, options: RangeOptions): MaybePromise<number> {
    const call = this.#call("ioctl", "deduplicate a range of");
    const range = this.#range(call, src, options);
    if (options.length === undefined) {
      range.len = Math.max(0, range.fileIn.inode.size - range.posIn);
    }
    const shared = this.#borrow(src, vfsDedupeFileRange(range));
    return this.#hold(shared, (bytes) => orThrow(call, bytes));
  }

  /**
   * Copies a range of another file, by sharing it where that can be done
   * (copy_file_range).
   *
   * @param src Open for reading.
   * @returns Bytes copied; fewer at the end of `src`.
   * @throws FsError EXDEV, EBADF, EISDIR, EINVAL (over itself), ETXTBSY, EFBIG, ENOSPC,
   *   EIO.
   */
  async copyRange(src: FsFile, options: RangeOptions = {}): Promise<number> {
    return await this.#copyRange(src, options);
  }

  /** {@linkcode FsFile.copyRange}, synchronously. */
  copyRangeSync(src: FsFile, options: RangeOptions = {}): number {
    const call = this.#call("copy_file_range", "copy a range to");
    return runSync(this.#clock, call, () => this.#copyRange(src, options));
  }

  #copyRange(src: FsFile, options: RangeOptions): MaybePromise<number> {
    const call = this.#call("copy_file_range", "copy a range to");
    const range = this.#range(call, src, options);
    if (options.length === undefined) {
      range.len = Math.max(0, range.fileIn.inode.size - range.posIn);
    }
    const copied = this.#borrow(src, vfsCopyFileRange(range));
    return this.#hold(copied, (bytes) => orThrow(call, bytes));
  }

  #range(call: Syscall, src: FsFile, options: RangeOptions): RemapRange {
    const fileOut = this.#open(call);
    if (!(src instanceof FsFile)) {
      throw failure(call, EINVAL, `${show(src)} is not an open file`);
    }
    checkOptions(call, options, ["srcOffset", "offset", "length"]);
    const { srcOffset = 0, offset = 0, length = 0 } = options;
    checkRange(call, srcOffset, length);
    checkRange(call, offset, length);
    return {
      fileIn: src.#open(call),
      posIn: srcOffset,
      fileOut,
      posOut: offset,
      len: length,
    };
  }

  /** The other file must not be closed under a call, either. */
  #borrow(src: FsFile, result: MaybePromise<number>): MaybePromise<number> {
    return src === this ? result : src.#hold(result, (value) => value);
  }

  /**
   * The extents of the file, in order, without holes.
   *
   * @throws FsError EOPNOTSUPP (the file system has none), EINVAL (length 0), EFBIG
   *   (beyond the largest file), EBADR (an option that the file system does not serve).
   */
  async fiemap(options: FiemapOptions = {}): Promise<FiemapExtent[]> {
    return await this.#fiemap(options);
  }

  /** {@linkcode FsFile.fiemap}, synchronously. */
  fiemapSync(options: FiemapOptions = {}): FiemapExtent[] {
    const call = this.#call("ioctl", "map the extents of");
    return runSync(this.#clock, call, () => this.#fiemap(options));
  }

  #fiemap(options: FiemapOptions): MaybePromise<FiemapExtent[]> {
    const call = this.#call("ioctl", "map the extents of");
    const { inode } = this.#open(call);
    checkOptions(call, options, FIEMAP_OPTIONS);
    const { start = 0, length = MAX_LFS_FILESIZE, max } = options;
    checkOffset(call, "start", start);
    checkOffset(call, "length", length);
    if (max !== undefined) checkCount(call, "max", max);
    const info: FiemapExtentInfo = {
      flags: fiemapFlags(call, options),
      extentsMax: max ?? Number.MAX_SAFE_INTEGER,
      extentsMapped: 0,
      extents: [],
    };
    const mapped = vfsFiemap(inode, info, start, length);
    const done = this.#done(call, mapped, `range ${start}+${length}`);
    return andThen(done, () => info.extents);
  }

  /**
   * Finds the block of the device that holds a block of the file (FIBMAP). Both count
   * in blocks of the file system.
   *
   * @returns 0 if there is none, as in a hole.
   * @throws FsError EINVAL (negative, or the file system has no answer), ERANGE (the
   *   answer is above 2^31 - 1), ENOTTY (not a regular file).
   */
  async bmap(block: number): Promise<number> {
    return await this.#bmap(block);
  }

  /** {@linkcode FsFile.bmap}, synchronously. */
  bmapSync(block: number): number {
    const call = this.#call("ioctl", "map a block of");
    return runSync(this.#clock, call, () => this.#bmap(block));
  }

  #bmap(block: number): MaybePromise<number> {
    const call = this.#call("ioctl", "map a block of");
    const file = this.#open(call);
    checkInteger(call, "block", block);
    return this.#hold(ioctlFibmap(file, block), (found) => {
      if (found < 0) throw failure(call, found, `block ${block}`);
      return found;
    });
  }

  /**
   * Says how a range will be used (posix_fadvise); `"dontneed"` drops its clean
   * pages.
   *
   * @param offset May be below 0, as Linux has it.
   * @param length 0 is to the end of the file.
   */
  async advise(advice: Advice, offset = 0, length = 0): Promise<void> {
    await this.#advise(advice, offset, length);
  }

  /** {@linkcode FsFile.advise}, synchronously. */
  adviseSync(advice: Advice, offset = 0, length = 0): void {
    const call = this.#call("fadvise64", "advise on");
    runSync(this.#clock, call, () => this.#advise(advice, offset, length));
  }

  #advise(advice: Advice, offset: number, length: number): MaybePromise<void> {
    const call = this.#call("fadvise64", "advise on");
    const file = this.#open(call);
    checkInteger(call, "offset", offset);
    checkOffset(call, "length", length);
    const advised = vfsFadvise(file, offset, length, advice);
    return this.#done(call, advised, `advice ${show(advice)}`);
  }

  /**
   * Starts to read a range into memory (readahead).
   *
   * @param offset May be below 0, as Linux has it: then nothing is read.
   * @param length 0 is to the end of the file.
   * @throws FsError EBADF (not open for reading), EINVAL (not a regular file).
   */
  async readahead(offset: number, length: number): Promise<void> {
    await this.#readahead(offset, length);
  }

  /** {@linkcode FsFile.readahead}, synchronously. */
  readaheadSync(offset: number, length: number): void {
    const call = this.#call("readahead", "read ahead in");
    runSync(this.#clock, call, () => this.#readahead(offset, length));
  }

  #readahead(offset: number, length: number): MaybePromise<void> {
    const call = this.#call("readahead", "read ahead in");
    const file = this.#open(call);
    checkInteger(call, "offset", offset);
    checkOffset(call, "length", length);
    const begun = vfsReadahead(file, offset, length);
    return this.#done(call, begun, `range ${offset}+${length}`);
  }

  /**
   * How much of a range is in memory, and in which state (cachestat).
   *
   * @param length 0 is to the end of the file.
   */
  cachestat(offset = 0, length = 0): Promise<CacheStat> {
    return Promise.try(() => this.cachestatSync(offset, length));
  }

  /** {@linkcode FsFile.cachestat}, synchronously. */
  cachestatSync(offset = 0, length = 0): CacheStat {
    const call = this.#call("cachestat", "count the pages of");
    const { mapping } = this.#open(call).inode;
    checkRange(call, offset, length);
    const last = length === 0
      ? Infinity
      : Math.floor((offset + length - 1) / PAGE_SIZE);
    return filemapCachestat(mapping, Math.floor(offset / PAGE_SIZE), last);
  }

  /**
   * Maps a range of the file into memory.
   *
   * @throws FsError EACCES (not open for reading; a shared mapping for stores of a file
   *   not open for writing), EINVAL (no bytes, or an offset within a page), EOVERFLOW
   *   (beyond the largest file), ENODEV (it cannot be mapped), ETXTBSY (a swap file).
   */
  mmap(options: MmapOptions = {}): Promise<MemoryMapping> {
    return Promise.try(() => this.mmapSync(options));
  }

  /** {@linkcode FsFile.mmap}, synchronously. */
  mmapSync(options: MmapOptions = {}): MemoryMapping {
    const call = this.#call("mmap", "map");
    const file = this.#open(call);
    checkOptions(call, options, ["offset", "length", "write", "private"]);
    const { offset = 0 } = options;
    checkOffset(call, "offset", offset);
    const { length = Math.max(0, file.inode.size - offset) } = options;
    checkOffset(call, "length", length);
    const flags = (checkFlag(call, "write", options.write) ? VM_WRITE : 0) |
      (checkFlag(call, "private", options.private) ? 0 : VM_SHARED);
    const vma = vfsMmap(file, offset, length, flags);
    if (typeof vma === "number") {
      throw failure(call, vma, `range ${offset}+${length}`);
    }
    // As a call does, it keeps the file open.
    this.#inFlight++;
    return new MemoryMapping(file, vma, () => this.#landed());
  }

  /** The bytes from the file position on. The file is closed at the end, when the
   * stream is cancelled, and when a read fails. */
  get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    this.#readable ??= new ReadableStream({
      type: "bytes",
      autoAllocateChunkSize: STREAM_CHUNK,
      pull: async (controller) => {
        const request = controller.byobRequest!;
        const n = await this.#orClose(this.read(request.view as Uint8Array));
        if (n === null) {
          controller.close();
          this[Symbol.dispose]();
        }
        request.respond(n ?? 0);
      },
      cancel: () => this[Symbol.dispose](),
    });
    return this.#readable;
  }

  /** Writes from the file position on. The file is closed with the stream, and when a
   * write fails. */
  get writable(): WritableStream<Uint8Array<ArrayBufferLike>> {
    this.#writable ??= new WritableStream({
      write: async (chunk: Uint8Array) => {
        let done = await this.#orClose(this.write(chunk));
        while (done < chunk.length) {
          done += await this.#orClose(this.write(chunk.subarray(done)));
        }
      },
      close: () => this[Symbol.dispose](),
      abort: () => this[Symbol.dispose](),
    });
    return this.#writable;
  }

  async #orClose<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Closes the file; calls that go on are finished first.
   * @throws FsError EBADF if it is closed already. */
  close(): void {
    if (this.#closed) throw failure(this.#call("close", "close"), EBADF);
    this.#closed = true;
    if (this.#inFlight === 0) this.#released = fileClose(this.#file);
  }

  /** Closes the file if it is open. */
  [Symbol.dispose](): void {
    if (!this.#closed) this.close();
  }

  /** Closes the file if it is open, and waits for what that frees. */
  async [Symbol.asyncDispose](): Promise<void> {
    this[Symbol.dispose]();
    await this.#released;
  }

  #call(name: string, task: string): Syscall {
    return { name, task, path: this.#file.path };
  }

  #open(call: Syscall): File {
    if (this.#closed) throw failure(call, EBADF, "the file is closed");
    return this.#file;
  }

  #done(
    call: Syscall,
    result: MaybePromise<number>,
    detail = "",
  ): MaybePromise<void> {
    return this.#hold(result, (error) => {
      if (error < 0) throw failure(call, error, detail);
    });
  }

  /** Ends a call that is no read or write; the file stays open until then. */
  #hold<R>(
    result: MaybePromise<number>,
    end: (result: number) => R,
  ): MaybePromise<R> {
    if (!(result instanceof Promise)) return end(result);
    this.#inFlight++;
    return result.then(end).finally(() => this.#landed());
  }

  /** Parses the options of a read or write into `RWF_*` and `parsedAt`. */
  #flags(options: WriteOptions | undefined, write: boolean): number {
    parsedAt[0] = -1;
    if (options === undefined) return 0;
    if (typeof options !== "object" || options === null) {
      checkOptions(this.#rwCall(write), options, []);
    }
    let rwf = 0;
    for (const key in options) {
      switch (key) {
        case "at":
          parsedAt[0] = this.#at(options.at, write);
          continue;
        case "nowait":
          rwf |= this.#bit(options.nowait, IOCB_NOWAIT, key, write);
          continue;
        case "dontcache":
          rwf |= this.#bit(options.dontcache, IOCB_DONTCACHE, key, write);
          continue;
        case "hipri":
          rwf |= this.#bit(options.hipri, IOCB_HIPRI, key, write);
          continue;
      }
      if (!write) throw unknownOption(this.#rwCall(write), key);
      rwf |= this.#writeFlag(options, key);
    }
    return rwf;
  }

  #writeFlag(options: WriteOptions, key: string): number {
    switch (key) {
      case "append":
        return this.#bit(options.append, IOCB_APPEND, key, WRITE);
      case "dsync":
        return this.#bit(options.dsync, IOCB_DSYNC, key, WRITE);
      case "sync":
        return this.#bit(options.sync, IOCB_SYNC, key, WRITE);
      case "atomic":
        return this.#bit(options.atomic, IOCB_ATOMIC, key, WRITE);
      default:
        throw unknownOption(this.#rwCall(WRITE), key);
    }
  }

  #at(at: number | undefined, write: boolean): number {
    if (at === undefined) return -1;
    if (Number.isSafeInteger(at) && at >= 0) return at;
    return checkOffset(this.#rwCall(write), "offset", at);
  }

  #bit(
    value: boolean | undefined,
    bit: number,
    key: string,
    write: boolean,
  ): number {
    if (value === true) return bit;
    if (value !== false && value !== undefined) {
      checkFlag(this.#rwCall(write), key, value);
    }
    return 0;
  }

  /** A synchronous read or write at `parsedAt`. */
  #now(p: Uint8Array, rwf: number, write: boolean): number {
    const at = parsedAt[0]!;
    const positional = at < 0;
    if (this.#closed || !(p instanceof Uint8Array)) this.#refuse(p, write);
    if (positional && !this.#position.tryLock()) {
      throw this.#rwFailure(-EAGAIN, write, at, p.length);
    }
    const call = this.#prepare(p, at, write);
    call.flags |= IOCB_SYNC_CALL;
    call.kiComplete = null;
    const clock = this.#clock;
    let ret: MaybePromise<number>;
    clock.enterSync();
    try {
      ret = write
        ? vfsWrite(call, call.iter, rwf)
        : vfsRead(call, call.iter, rwf);
    } catch (error) {
      // What a layer throws is a bug: the caller sees it, and can go on.
      if (positional) this.#position.unlock();
      throw error;
    } finally {
      clock.leaveSync();
    }
    return typeof ret === "number"
      ? this.#answer(call, ret)
      : this.#abandon(call, ret);
  }

  /** Ends a call that did not have to wait. */
  #answer(call: Call, ret: number): number {
    const { write, at, length } = call;
    if (at < 0) this.#movePosition(call, ret);
    this.#calls.push(call);
    if (ret < 0) throw this.#rwFailure(ret, write, at, length);
    return ret;
  }

  /** Another task has to go on first: what was begun ends by itself. */
  #abandon(call: Call, ret: Promise<number>): never {
    this.#inFlight++;
    const { write, at, length } = call;
    call.executor(() => {}, () => {});
    ret.then(call.settle, call.crash);
    throw this.#rwFailure(-EAGAIN, write, at, length);
  }

  /** An asynchronous read or write at `parsedAt`. */
  #later(
    p: Uint8Array,
    rwf: number,
    write: boolean,
  ): Promise<number | null> {
    const at = parsedAt[0]!;
    if (this.#closed || !(p instanceof Uint8Array)) this.#refuse(p, write);
    const call = this.#prepare(p, at, write);
    call.kiComplete = callComplete;
    if (write) call.flags |= IOCB_DIO_CALLER_COMP;
    if ((rwf & IOCB_HIPRI) !== 0) rwf = this.#poll(call, rwf);
    const direct = (call.flags & IOCB_DIRECT) !== 0;
    if (!direct && (at >= 0 || this.#position.tryLock())) {
      return this.#laterCached(call, rwf);
    }
    const promise = new Promise<number | null>(call.executor);
    this.#inFlight++;
    if (at >= 0) this.#start(call, rwf);
    else this.#startInTurn(call, rwf);
    return promise;
  }

  #startInTurn(call: Call, rwf: number): void {
    const taken = this.#position.lock();
    if (taken instanceof Promise) taken.then(() => this.#start(call, rwf));
    else this.#start(call, rwf);
  }

  /** Goes on with a call through the cache, which usually answers at once: then the
   * promise is made last, as one that has its value already costs half. */
  #laterCached(call: Call, rwf: number): Promise<number | null> {
    const { write, at, length } = call;
    call.promised = false;
    call.early = null;
    let ret: MaybePromise<number>;
    try {
      ret = write
        ? vfsWrite(call, call.iter, rwf)
        : vfsRead(call, call.iter, rwf);
    } catch (error) {
      if (at < 0) this.#position.unlock();
      throw error;
    }
    if (typeof ret === "number" && ret !== -EIOCBQUEUED) {
      const n = this.#answer(call, ret);
      return promiseOf(n === 0 && !write && length > 0 ? null : n);
    }
    this.#inFlight++;
    const promise = new Promise<number | null>(call.executor);
    if (typeof ret !== "number") ret.then(call.settle, call.crash);
    else if (call.early !== null) this.#complete(call, call.early);
    return promise;
  }

  /** Sees to it that somebody looks for the completion of a polled call.
   * @returns `rwf`; without HIPRI if nobody could find it. */
  #poll(call: Call, rwf: number): number {
    if (!canIopoll(this.#file)) return rwf & ~IOCB_HIPRI;
    call.iopoll = this.#iopoll ??= new Iopoll(this.#clock);
    call.iopoll.add(call);
    return rwf;
  }

  #start(call: Call, rwf: number): void {
    // Others may have moved it while this call waited for its turn.
    if (call.at < 0) call.pos = this.#file.pos;
    let ret: MaybePromise<number>;
    try {
      ret = call.write
        ? vfsWrite(call, call.iter, rwf)
        : vfsRead(call, call.iter, rwf);
    } catch (error) {
      return call.crash(error);
    }
    if (typeof ret === "number") call.settle(ret);
    else ret.then(call.settle, call.crash);
  }

  #prepare(p: Uint8Array, at: number, write: boolean): Call {
    const file = this.#file;
    const call = this.#calls.pop() ??
      new Call(file, this.#complete, this.#crash);
    call.write = write;
    call.at = at;
    call.length = p.length;
    call.pos = at < 0 ? file.pos : at;
    call.flags = file.iocbFlags;
    call.private = null;
    call.dioComplete = null;
    call.iter.reset(p);
    return call;
  }

  readonly #complete = (call: Call, ret: number): void => {
    if (!call.promised) {
      call.early = ret;
      return;
    }
    const { write, at, length, resolve, reject } = call;
    if (at < 0) this.#movePosition(call, ret);
    if (call.iopoll !== null) stopPolling(call);
    this.#calls.push(call);
    if (ret < 0) reject(this.#rwFailure(ret, write, at, length));
    else resolve(ret === 0 && !write && length > 0 ? null : ret);
    this.#landed();
  };

  /** What a layer throws is a bug: the caller sees it, and can go on. Parts of the
   * call may still be under way, so it is not used again. */
  readonly #crash = (call: Call, error: unknown): void => {
    call.kiComplete = () => {};
    stopPolling(call);
    if (call.at < 0) this.#position.unlock();
    call.reject(error);
    this.#landed();
  };

  /** A call in flight has ended. */
  #landed(): void {
    if (--this.#inFlight === 0 && this.#closed) {
      this.#released = fileClose(this.#file);
    }
  }

  #movePosition(call: Call, ret: number): void {
    if (ret > 0) this.#file.pos = call.pos;
    this.#position.unlock();
  }

  #refuse(p: unknown, write: boolean): never {
    const call = this.#rwCall(write);
    this.#open(call);
    throw failure(call, EFAULT, `buffer ${show(p)} is not a Uint8Array`);
  }

  #rwCall(write: boolean): Syscall {
    return write ? this.#call("pwrite", "write") : this.#call("pread", "read");
  }

  #rwFailure(
    errno: number,
    write: boolean,
    at: number,
    length: number,
  ): FsError {
    const where = at < 0 ? "the file position" : `offset ${at}`;
    let detail = `${length} bytes at ${where}`;
    if (errno === -EINVAL && (this.#file.iocbFlags & IOCB_DIRECT) !== 0) {
      const unit = this.#file.inode.sb.bdev.limits.logicalBlockSize;
      detail += `; direct I/O goes by blocks of ${unit} bytes`;
    }
    return failure(this.#rwCall(write), errno, detail);
  }
}

const FIEMAP_OPTIONS = ["start", "length", "sync", "xattr", "cache", "max"];

function fiemapFlags(call: Syscall, options: FiemapOptions): number {
  let flags = checkFlag(call, "sync", options.sync) ? FIEMAP_FLAG_SYNC : 0;
  if (checkFlag(call, "xattr", options.xattr)) flags |= FIEMAP_FLAG_XATTR;
  if (checkFlag(call, "cache", options.cache)) flags |= FIEMAP_FLAG_CACHE;
  return flags;
}

function checkRange(call: Syscall, offset: number, length: number): void {
  checkOffset(call, "offset", offset);
  checkOffset(call, "length", length);
}

/** What `fallocate` is called for, in its error messages; `mode` is not checked yet. */
function fallocateTask(mode: number): string {
  switch (Number.isInteger(mode) ? mode & ~FALLOC_FL_KEEP_SIZE : 0) {
    case FALLOC_FL_PUNCH_HOLE:
      return "punch a hole in";
    case FALLOC_FL_ZERO_RANGE:
      return "zero a range of";
    case FALLOC_FL_COLLAPSE_RANGE:
      return "collapse a range of";
    case FALLOC_FL_INSERT_RANGE:
      return "insert a range into";
    case FALLOC_FL_UNSHARE_RANGE:
      return "unshare a range of";
    default:
      return "preallocate a range of";
  }
}
