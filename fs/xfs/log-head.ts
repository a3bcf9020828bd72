/**
 * Where a log ends and begins.
 *
 * Buffers of the log may reach the device in any order, and a power cut may leave any
 * of those that were on their way, or pieces of them. So near the head there may be
 * holes and records that are not whole: the head moves back before the first of them.
 *
 * Kernel counterpart: fs/xfs/xfs_log_recover.c (`xlog_find_head`, `xlog_find_tail`).
 *
 * @module
 */

import { printk } from "../../lib/printk.ts";
import { BBSIZE } from "./libxfs/format.ts";
import * as L from "./libxfs/log-format.ts";
import { type Xlog, xlogCksum, type XlogRecHeader } from "./log.ts";

/** Blocks that may be on their way to the device at a time (kernel:
 * `XLOG_TOTAL_REC_SHIFT`). */
const MAX_IN_FLIGHT: number = L.XLOG_MAX_ICLOGS * L.XLOG_MAX_RECORD_BSIZE /
  BBSIZE;
/** Blocks of the longest record (kernel: `XLOG_REC_SHIFT`). */
const MAX_RECORD: number = L.XLOG_MAX_RECORD_BSIZE / BBSIZE;

/** What a log holds. */
export interface XlogRange {
  /** Nothing has to be replayed. */
  clean: boolean;
  /** Where the next record belongs; cycle 0 if there never was one. */
  head: L.XfsLsn;
  /** First block that has to be replayed. */
  tail: number;
  /** Block of the last record. */
  last: number;
}

/** Why a log cannot be used. */
export class XlogDamage {
  readonly why: string;
  constructor(why: string) {
    this.why = why;
  }
}

/** A head or tail, a negative errno, or what is wrong. */
type Found = number | XlogDamage;

function failed(found: Found): found is Found {
  return typeof found !== "number" || found < 0;
}

function hex(block: number): string {
  return `0x${block.toString(16)}`;
}

// ---- cycles ----

/** First block of a cycle, of which the last block is (kernel:
 * `xlog_find_cycle_start`). */
function findCycleStart(log: Xlog, cycle: number): number {
  let low = 0;
  let high = log.bbs - 1;
  while (high - low > 1) {
    const mid = Math.floor((low + high) / 2);
    const at = log.cycleAt(mid);
    if (at < 0) return at;
    if (at === cycle) high = mid;
    else low = mid;
  }
  return high;
}

/** Finds a block of a cycle that should not be there (kernel:
 * `xlog_find_verify_cycle`).
 * @returns `none` if there is none; a negative errno. */
function findVerifyCycle(
  log: Xlog,
  start: number,
  end: number,
  cycle: number,
  none: number,
): number {
  for (let block = start; block < end; block++) {
    const at = log.cycleAt(block);
    if (at < 0) return at;
    if (at === cycle) return block;
  }
  return none;
}

/** Blocks around the head that were written in the wrong order. */
function findHole(log: Xlog, head: number, stop: number): number {
  const from = Math.max(0, head - MAX_IN_FLIGHT);
  const around = Math.min(log.bbs, MAX_IN_FLIGHT) - head;
  if (around > 0 && stop > 0) {
    const start = Math.max(head, log.bbs - around);
    const hole = findVerifyCycle(log, start, log.bbs, stop - 1, -1);
    if (hole >= 0) return hole;
  }
  return findVerifyCycle(log, from, head, stop, head);
}

// ---- records ----

/** Looks for headers backwards from a head to a tail (kernel:
 * `xlog_rseek_logrec_hdr`).
 * @param count Headers.
 * @returns The last one that was found. */
function rseek(log: Xlog, head: number, tail: number, count: number): Found {
  const span = head > tail ? head - tail : head - tail + log.bbs;
  let found = -1;
  for (let back = 1; back <= span && count > 0; back++) {
    const block = (head - back + log.bbs) % log.bbs;
    const is = log.isHeader(block);
    if (typeof is === "number") return is;
    if (is) {
      found = block;
      count--;
    }
  }
  return found >= 0 ? found : new XlogDamage(`no record before ${hex(head)}`);
}

/** Looks for a header from a block on (kernel: `xlog_seek_logrec_hdr`). */
function seek(log: Xlog, head: number, from: number): Found {
  const span = head > from ? head - from : head - from + log.bbs;
  for (let i = 0; i < span; i++) {
    const block = (from + i) % log.bbs;
    const is = log.isHeader(block);
    if (typeof is === "number") return is;
    if (is) return block;
  }
  return new XlogDamage(`no record from ${hex(from)} on`);
}

/** A record that does not end at the head is not whole: the head is before it (kernel:
 * `xlog_find_verify_log_record`). */
function verifyLogRecord(log: Xlog, head: number, zeroed: boolean): Found {
  const most = zeroed ? head : log.bbs;
  for (let back = 1; back <= Math.min(MAX_RECORD, most); back++) {
    const block = (head - back + log.bbs) % log.bbs;
    const is = log.isHeader(block);
    if (typeof is === "number") return is;
    if (!is) continue;
    const rec = log.header(block);
    if (typeof rec === "number") return rec;
    // What is wrong with it is found out when its checksum is.
    if (typeof rec === "string") return block;
    return rec.hblks + rec.len / BBSIZE === back ? head : block;
  }
  return new XlogDamage(`no record in front of the head ${hex(head)}`);
}

/** Block after the last record that may be whole (kernel: `xlog_find_head`).
 * @returns It, 0 if that is the last block of the log. */
function findHead(log: Xlog): Found {
  const first = log.cycleAt(0);
  if (first < 0) return first;
  const last = log.cycleAt(log.bbs - 1);
  if (last < 0) return last;
  if (last === 0 && first !== 1) {
    return new XlogDamage(`first cycle ${first}, last 0: no log`);
  }
  const even = first === last;
  const start = even ? log.bbs : findCycleStart(log, last);
  if (start < 0) return start;
  const head = last === 0
    ? findVerifyCycle(log, Math.max(0, start - MAX_IN_FLIGHT), start, 0, start)
    : findHole(log, start, even ? last - 1 : last);
  if (head < 0) return head;
  const whole = verifyLogRecord(log, head, last === 0);
  return typeof whole === "number" && whole >= 0 ? whole % log.bbs : whole;
}

// ---- checksums ----

/**
 * Checks all records of a stretch (kernel: `xlog_do_recovery_pass` with
 * `XLOG_RECOVER_CRCPASS`).
 *
 * @returns First block that is no good record, or -1.
 */
function crcPass(log: Xlog, head: number, tail: number): number | IoError {
  let left = (head - tail + log.bbs) % log.bbs;
  let block = tail;
  while (left > 0) {
    const rec = log.header(block);
    if (typeof rec === "number") return new IoError(rec);
    if (typeof rec === "string") return block;
    const bbs = rec.hblks + rec.len / BBSIZE;
    if (bbs > left) return block;
    const data = log.record(rec);
    if (typeof data === "number") return new IoError(data);
    // The record of mkfs has none.
    if (rec.crc !== 0 && xlogCksum(data, rec.hblks) !== rec.crc) return block;
    left -= bbs;
    block = log.after(rec);
  }
  return -1;
}

/** The device failed. */
class IoError {
  readonly errno: number;
  constructor(errno: number) {
    this.errno = errno;
  }
}

/** Old records at the tail may have been written over by new ones that are not whole:
 * they were not needed any more (kernel: `xlog_verify_tail`).
 * @returns The tail. */
function verifyTail(
  log: Xlog,
  head: number,
  wanted: number,
  size: number,
): Found {
  let tail = seek(log, head, wanted);
  for (;;) {
    if (failed(tail)) return tail;
    const bad = crcPass(log, head, tail as number);
    if (bad instanceof IoError) return bad.errno;
    if (bad < 0) break;
    const distance = bad > head ? bad - head : bad - head + log.bbs;
    if (distance > L.XLOG_MAX_ICLOGS * size / BBSIZE) {
      return new XlogDamage(damagedRecord(log, bad));
    }
    tail = seek(log, head, (bad + 1) % log.bbs);
  }
  if (tail !== wanted) {
    printk(
      `XFS (${log.mp.id}): Tail block (${hex(wanted)}) overwrite detected. ` +
        `Updated to ${hex(tail as number)}`,
    );
  }
  return tail;
}

/** Which record is damaged, and how. */
function damagedRecord(log: Xlog, block: number): string {
  const rec = log.header(block);
  if (typeof rec === "number") return `block ${hex(block)} cannot be read`;
  if (typeof rec === "string") return `record at block ${hex(block)}: ${rec}`;
  return `record at block ${hex(block)}, LSN ${L.lsnText(rec.lsn)}: checksum`;
}

// ---- all together ----

function isUnmount(log: Xlog, rec: XlogRecHeader): boolean {
  if (rec.numLogops !== 1) return false;
  const bb = log.bb((rec.block + rec.hblks) % log.bbs);
  return typeof bb !== "number" &&
    (bb[L.OH_FLAGS]! & L.XLOG_UNMOUNT_TRANS) !== 0;
}

/** Header of the last record in front of a head.
 * @returns It, a negative errno or what is wrong. */
function lastRecord(
  log: Xlog,
  head: number,
): XlogRecHeader | number | XlogDamage {
  const at = rseek(log, head, head, 1);
  if (typeof at !== "number" || at < 0) return at;
  const rec = log.header(at);
  if (typeof rec !== "string") return rec;
  return new XlogDamage(damagedRecord(log, at));
}

function range(
  head: number,
  rec: XlogRecHeader,
  tail: number,
  clean: boolean,
): XlogRange {
  // Beyond the end of the log, the next cycle has begun.
  const cycle = head > rec.block ? rec.cycle : rec.cycle + 1;
  return { clean, head: { cycle, block: head }, tail, last: rec.block };
}

/**
 * Finds head and tail of a log (kernel: `xlog_find_tail`).
 *
 * @returns Them; a negative errno of the device; or what is wrong with the log.
 */
export function xlogFindTail(log: Xlog): XlogRange | number | XlogDamage {
  const first = log.cycleAt(0);
  // Nobody has ever written to it.
  if (first === 0) {
    const head = { cycle: 0, block: 0 };
    return { clean: true, head, tail: 0, last: 0 };
  }
  const head = findHead(log);
  if (typeof head !== "number" || head < 0) return head;
  return fromHead(log, head);
}

function fromHead(
  log: Xlog,
  found: number,
): XlogRange | number | XlogDamage {
  const before = lastRecord(log, found);
  if (typeof before === "number") return before;
  const unmounted = unmountedAt(log, found, before);
  if (unmounted !== null) return unmounted;
  const head = verifyHead(log, found);
  if (typeof head !== "number" || head < 0) return head;
  const rec = lastRecord(log, head);
  if (typeof rec === "number" || rec instanceof XlogDamage) return rec;
  const earlier = unmountedAt(log, head, rec);
  if (earlier !== null) return earlier;
  if (head % log.sectorBbs !== 0) {
    return new XlogDamage(`the head ${hex(head)} is within a sector`);
  }
  if (rec.tail.block === head) {
    return new XlogDamage(
      `record at block ${hex(rec.block)}: the tail is the head ${hex(head)}`,
    );
  }
  const tail = verifyTail(log, head, rec.tail.block, rec.size);
  if (typeof tail !== "number" || tail < 0) return tail;
  return range(head, rec, tail, false);
}

/** The range of a log whose last record is that of an unmount, or null. */
function unmountedAt(
  log: Xlog,
  head: number,
  rec: XlogRecHeader | XlogDamage,
): XlogRange | null {
  if (rec instanceof XlogDamage) return null;
  if (log.after(rec) !== head || !isUnmount(log, rec)) return null;
  return range(head, rec, head, true);
}

/** Drops the last records if they are not whole (kernel: `xlog_verify_head`).
 * @returns The head. */
function verifyHead(log: Xlog, head: number): Found {
  const at = rseek(log, head, head, 1);
  if (failed(at)) return at;
  const rec = log.header(at as number);
  if (typeof rec === "number") return rec;
  // One that cannot be read has no tail either: look as far as there may be any.
  const stop = typeof rec === "string" ? head : rec.tail.block;
  const from = rseek(log, head, stop, L.XLOG_MAX_ICLOGS);
  if (failed(from)) return from;
  const bad = crcPass(log, head, from as number);
  if (bad instanceof IoError) return bad.errno;
  if (bad < 0) return head;
  printk(
    `XFS (${log.mp.id}): Torn write (CRC failure) detected at log block ` +
      `${hex(bad)}. Truncating head block from ${hex(head)}.`,
  );
  return bad;
}

/** Whether the geometry of a log can be (kernel: `xfs_validate_sb_common`,
 * `xlog_alloc_log`).
 * @returns null, or the field that cannot be. */
export function xlogCheckGeometry(log: Xlog): string | null {
  const { logsunit, logsectsize } = log.mp.sb;
  const sector = logsectsize === 0 || logsectsize === BBSIZE ||
    (logsectsize > BBSIZE && logsectsize <= 32768 &&
      (logsectsize & (logsectsize - 1)) === 0);
  if (!sector) return `logsectsize ${logsectsize}`;
  const unit = logsunit <= 1 ||
    (logsunit % BBSIZE === 0 && logsunit <= L.XLOG_MAX_RECORD_BSIZE);
  if (!unit) return `logsunit ${logsunit}`;
  return log.bbs >= 2 * log.roundoff ? null : `logblocks ${log.bbs}`;
}
