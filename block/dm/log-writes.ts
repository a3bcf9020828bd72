/**
 * A log of every write, from which the device can be had as it was at any point.
 *
 * The log is in the order in which data gets safe, not in that of submission: a
 * write is logged when a flush that was submitted after the write's completion
 * has completed; one with FUA when it completes itself. So W1 W2 W3, C3 C2, flush
 * submitted, C1, flush completed gives W3 W2 flush, and W1 with the next flush.
 * What fails is not logged.
 *
 * Kernel counterpart: drivers/md/dm-log-writes.c.
 *
 * @module
 */

import { checkCount, EINVAL, FsError, show } from "../../lib/errno.ts";
import {
  andThen,
  type MaybePromise,
  repeatWith,
} from "../../lib/maybe-promise.ts";
import { Bio, bioEndIo, bioEndWith, submitBio, submitBioWait } from "../bio.ts";
import { blkdevIssueFlush, blkdevIssueZeroout } from "../blk-lib.ts";
import {
  BLK_STS_OK,
  opIsWrite,
  REQ_FUA,
  REQ_META,
  REQ_OP_DISCARD,
  REQ_OP_WRITE,
  REQ_POLLED,
  REQ_PREFLUSH,
  reqOp,
  SECTOR_SIZE,
} from "../blk-types.ts";
import { BLK_FEAT_WRITE_CACHE, type BlockDevice } from "../blkdev.ts";
import {
  bioClone,
  copyPayload,
  DM_DISCARD,
  DmDevice,
  type DmOptions,
  wholeOf,
} from "./dm.ts";

/** The write came with a flush of what was written before. */
export const LOG_FLUSH_FLAG: number = 1 << 0;
/** The write was safe when it completed. */
export const LOG_FUA_FLAG: number = 1 << 1;
/** Sectors were given back; there is no data. */
export const LOG_DISCARD_FLAG: number = 1 << 2;
/** Not a write: a mark. */
export const LOG_MARK_FLAG: number = 1 << 3;
/** The write was metadata. */
export const LOG_METADATA_FLAG: number = 1 << 4;

const WRITE_LOG_MAGIC = 0x6a736677736872;
const WRITE_LOG_VERSION = 1;
/** Bytes of an entry's head; the text of a mark follows it in the same sector. */
const ENTRY_SIZE = 32;

/** One write or mark (kernel: `struct log_write_entry`). */
export interface LogEntry {
  /** First 512-byte sector. */
  readonly sector: number;
  /** Sectors of 512 bytes. */
  readonly nrSectors: number;
  /** OR of `LOG_*_FLAG`. */
  readonly flags: number;
  /** What was written, or the text of a mark in UTF-8; else empty. */
  readonly data: Uint8Array;
}

/** Writes in order, with marks. */
export class WriteLog {
  /** Unit in which the stored form counts, bytes. */
  readonly sectorSize: number;
  readonly #entries: LogEntry[] = [];

  /**
   * An empty log.
   *
   * @param sectorSize Bytes of a logical block of the device.
   * @throws {FsError} EINVAL if it is no power of two from 512 to 65536.
   */
  constructor(sectorSize = SECTOR_SIZE) {
    const isPower = (sectorSize & (sectorSize - 1)) === 0;
    if (!(isPower && sectorSize >= 512 && sectorSize <= 65536)) {
      throw new FsError(EINVAL, `No log has sectors of ${show(sectorSize)}`);
    }
    this.sectorSize = sectorSize;
  }

  /** All that is logged. */
  get entries(): readonly LogEntry[] {
    return this.#entries;
  }

  /** Appends an entry. */
  push(entry: LogEntry): void {
    this.#entries.push(entry);
  }

  /**
   * Appends a mark (kernel: message `mark`).
   *
   * @throws {FsError} EINVAL if it does not fit in a sector of the log.
   */
  mark(text: string): void {
    const data = new TextEncoder().encode(text);
    // The kernel keeps a zero behind the text.
    if (data.length >= this.sectorSize - ENTRY_SIZE) {
      throw new FsError(EINVAL, `Mark ${show(text)} is too long`);
    }
    this.push({ sector: 0, nrSectors: 0, flags: LOG_MARK_FLAG, data });
  }

  /** Index of the first mark with a text, or -1. */
  findMark(text: string): number {
    return this.#entries.findIndex(({ flags, data }) =>
      (flags & LOG_MARK_FLAG) !== 0 && new TextDecoder().decode(data) === text
    );
  }

  /**
   * Writes entries to another device, one after the other, and flushes it.
   *
   * @param bdev The device; the log's first state has to be on it.
   * @param end How many entries of the log it then has.
   * @param start How many it has already.
   * @returns 0; -EINVAL if the log has no such entries, or a discard is not aligned
   *   to the device's logical blocks; else the negative errno of the write that
   *   failed.
   */
  replay(
    bdev: BlockDevice,
    end: number = this.#entries.length,
    start = 0,
  ): MaybePromise<number> {
    const isRange = Number.isInteger(start) && Number.isInteger(end) &&
      start >= 0 && start <= end && end <= this.#entries.length;
    if (!isRange) return -EINVAL;
    const walk = { bdev, entries: this.#entries, next: start, end, error: 0 };
    return andThen(
      repeatWith(replayStep, walk),
      () => walk.error || blkdevIssueFlush(bdev),
    );
  }

  /** The log as dm-log-writes stores it on its log device. */
  toBytes(): Uint8Array {
    const unit = this.sectorSize;
    const size = (e: LogEntry) => unit + (hasData(e) ? e.data.length : 0);
    const total = this.#entries.reduce((sum, e) => sum + size(e), unit);
    const bytes = new Uint8Array(total);
    const view = new DataView(bytes.buffer);
    putU64(view, 0, WRITE_LOG_MAGIC);
    putU64(view, 8, WRITE_LOG_VERSION);
    putU64(view, 16, this.#entries.length);
    view.setUint32(24, unit, true);
    let at = unit;
    for (const entry of this.#entries) {
      const isMark = (entry.flags & LOG_MARK_FLAG) !== 0;
      putU64(view, at, entry.sector * SECTOR_SIZE / unit);
      putU64(view, at + 8, entry.nrSectors * SECTOR_SIZE / unit);
      putU64(view, at + 16, entry.flags);
      putU64(view, at + 24, isMark ? entry.data.length : 0);
      bytes.set(entry.data, at + (isMark ? ENTRY_SIZE : unit));
      at += size(entry);
    }
    return bytes;
  }

  /**
   * Reads what {@linkcode WriteLog.toBytes} or the kernel stored.
   *
   * @param bytes The log; what follows its last entry does not matter.
   * @throws {FsError} EINVAL if it is no log, naming the entry that cannot be.
   */
  static fromBytes(bytes: Uint8Array): WriteLog {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    if (bytes.length < SECTOR_SIZE || getU64(view, 0) !== WRITE_LOG_MAGIC) {
      throw new FsError(EINVAL, "Not a write log");
    }
    const version = getU64(view, 8);
    if (version !== WRITE_LOG_VERSION) {
      throw new FsError(EINVAL, `Version ${version} of a write log`);
    }
    const log = new WriteLog(view.getUint32(24, true));
    const count = getU64(view, 16);
    let at = log.sectorSize;
    for (let i = 0; i < count; i++) at = readEntry(log, view, at, i);
    return log;
  }
}

interface Walk {
  bdev: BlockDevice;
  entries: readonly LogEntry[];
  next: number;
  end: number;
  error: number;
}

function replayStep(walk: Walk): MaybePromise<boolean> {
  if (walk.next === walk.end) return false;
  const entry = walk.entries[walk.next++]!;
  return andThen(replayEntry(walk.bdev, entry), (error) => {
    walk.error = error;
    return error === 0;
  });
}

function replayEntry(bdev: BlockDevice, entry: LogEntry): MaybePromise<number> {
  const { sector, nrSectors, flags, data } = entry;
  if ((flags & LOG_DISCARD_FLAG) !== 0) {
    return blkdevIssueZeroout(bdev, sector, nrSectors);
  }
  if (!hasData(entry)) return 0;
  const bio = new Bio(bdev, REQ_OP_WRITE);
  bio.sector = sector;
  bio.addData(data, 0, data.length);
  return submitBioWait(bio);
}

/** Whether data follows the entry's sector. */
function hasData({ flags, nrSectors }: LogEntry): boolean {
  return (flags & (LOG_DISCARD_FLAG | LOG_MARK_FLAG)) === 0 && nrSectors > 0;
}

/** Reads one entry.
 * @returns Where the next begins. */
function readEntry(
  log: WriteLog,
  view: DataView,
  at: number,
  index: number,
): number {
  const unit = log.sectorSize;
  const fail = (what: string) =>
    new FsError(EINVAL, `Entry ${index} of the write log ${what}`);
  if (at + unit > view.byteLength) throw fail("is cut off");
  const flags = getU64(view, at + 16);
  if (flags > 0x1f) throw fail(`has flags ${flags}`);
  const perUnit = unit / SECTOR_SIZE;
  const head = {
    sector: getU64(view, at) * perUnit,
    nrSectors: getU64(view, at + 8) * perUnit,
    flags,
    data: new Uint8Array(),
  };
  if (!Number.isSafeInteger(head.sector + head.nrSectors)) {
    throw fail(`has sector ${head.sector}`);
  }
  const isMark = (flags & LOG_MARK_FLAG) !== 0;
  let [from, len] = [at + unit, 0];
  if (isMark) [from, len] = [at + ENTRY_SIZE, getU64(view, at + 24)];
  else if (hasData(head)) len = head.nrSectors * SECTOR_SIZE;
  if (isMark && len > unit - ENTRY_SIZE) throw fail("has a mark too long");
  if (from + len > view.byteLength) throw fail("is cut off");
  const start = view.byteOffset + from;
  const data = new Uint8Array(view.buffer.slice(start, start + len));
  log.push({ ...head, data });
  return isMark ? at + unit : at + unit + len;
}

function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

function getU64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

/** Largest DISCARD where the device below has none, sectors. */
const MAX_DISCARD_SECTORS = 2 ** 23 - 1;

/** What {@linkcode LogWritesDevice} takes. */
export interface LogWritesOptions extends DmOptions {
  /** Bytes of data that the log may hold; 1 GiB if absent. What comes after the
   * first write that does not fit is not logged, see {@linkcode LogWritesDevice.full}. */
  maxBytes?: number;
}

/**
 * A device that logs what is written to it (kernel: target `log-writes`). It
 * asks for flushes even if the device below has no cache: they order the log. It
 * takes discards even if the device below does not, and logs them.
 */
export class LogWritesDevice extends DmDevice {
  /** What has been logged. */
  readonly log: WriteLog;
  readonly #bottom: BlockDevice;
  readonly #passesDiscards: boolean;
  readonly #maxBytes: number;
  /** Of data that the log has, or may yet get. */
  #bytes = 0;
  #full = false;
  /** Completed, and not known to be safe. */
  #unflushed: LogEntry[] = [];

  /**
   * Lays a log over a device.
   *
   * @param bottom The device.
   * @param options Its number, and how much it may log.
   * @throws {FsError} EINVAL if `maxBytes` is no whole number, or the device has
   *   zones.
   */
  constructor(bottom: BlockDevice, options: LogWritesOptions = {}) {
    const { maxBytes = 2 ** 30 } = options;
    checkCount("maxBytes", maxBytes, 0);
    super({
      ...wholeOf(bottom, DM_DISCARD),
      hints: (limits) => {
        limits.features |= BLK_FEAT_WRITE_CACHE;
        if (limits.maxHwDiscardSectors !== 0) return;
        limits.maxHwDiscardSectors = MAX_DISCARD_SECTORS;
        limits.discardGranularity = limits.logicalBlockSize;
      },
    }, options);
    this.#bottom = bottom;
    this.#passesDiscards = bottom.limits.maxDiscardSectors !== 0;
    this.#maxBytes = maxBytes;
    this.log = new WriteLog(this.limits.logicalBlockSize);
  }

  /** Whether a write did not fit: the log ends before it, and stays as it is. */
  get full(): boolean {
    return this.#full;
  }

  /**
   * Ends the log: what has completed without a flush comes last, and then the
   * mark `dm-log-writes-end` (kernel: `log_writes_dtr`). A log that is full has no
   * such end.
   */
  finish(): void {
    if (this.#full) return;
    this.#append(this.#unflushed);
    this.#unflushed = [];
    this.log.mark("dm-log-writes-end");
  }

  /** Passes a bio, and keeps what it writes (kernel: `log_writes_map`). */
  protected override map(bio: Bio): void {
    const flush = (bio.opf & REQ_PREFLUSH) !== 0;
    const nothing = bio.size === 0 && !flush;
    if (!opIsWrite(bio.opf) || nothing || !this.#hasRoomFor(bio)) {
      return this.#passOn(bio);
    }
    const entry = entryOf(bio);
    // What completes from now on is not covered.
    const covered = flush ? this.#unflushed : [];
    if (flush) this.#unflushed = [];
    if (this.#isSwallowed(bio)) {
      this.#ended(entry, covered, BLK_STS_OK);
      return bioEndIo(bio);
    }
    const clone = bioClone(bio, this.#bottom, bio.sector);
    clone.opf &= ~REQ_POLLED;
    clone.endIo = ({ status }) => {
      this.#ended(entry, covered, status);
      bioEndWith(bio, status);
    };
    submitBio(clone);
  }

  #passOn(bio: Bio): void {
    if (this.#isSwallowed(bio)) bioEndIo(bio);
    else this.pass(bio, this.#bottom, bio.sector);
  }

  #isSwallowed(bio: Bio): boolean {
    return reqOp(bio.opf) === REQ_OP_DISCARD && !this.#passesDiscards;
  }

  #hasRoomFor(bio: Bio): boolean {
    if (this.#full) return false;
    if (bio.vecs.length > 0) this.#bytes += bio.size;
    if (this.#bytes <= this.#maxBytes) return true;
    this.#full = true;
    this.#unflushed = [];
    return false;
  }

  #ended(entry: LogEntry, covered: LogEntry[], status: number): void {
    // A write is missing: what comes after it would be in no such order.
    if (this.#full) return;
    if (status !== BLK_STS_OK) {
      this.#bytes -= entry.data.length;
      // The next flush covers it.
      if (covered.length > 0) this.#unflushed = covered.concat(this.#unflushed);
    } else if ((entry.flags & (LOG_FLUSH_FLAG | LOG_FUA_FLAG)) === 0) {
      this.#unflushed.push(entry);
    } else {
      this.#append(covered);
      this.log.push(entry);
    }
  }

  #append(entries: LogEntry[]): void {
    for (const entry of entries) this.log.push(entry);
  }
}

function entryOf(bio: Bio): LogEntry {
  let flags = 0;
  if ((bio.opf & REQ_PREFLUSH) !== 0) flags |= LOG_FLUSH_FLAG;
  if ((bio.opf & REQ_FUA) !== 0) flags |= LOG_FUA_FLAG;
  if ((bio.opf & REQ_META) !== 0) flags |= LOG_METADATA_FLAG;
  const isDiscard = reqOp(bio.opf) === REQ_OP_DISCARD;
  if (isDiscard) flags |= LOG_DISCARD_FLAG;
  return {
    sector: bio.sector,
    nrSectors: bio.size / SECTOR_SIZE,
    flags,
    data: isDiscard ? new Uint8Array() : copyPayload(bio),
  };
}
