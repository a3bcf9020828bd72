/**
 * Where a log ends, and whether the file system was unmounted.
 *
 * Kernel counterpart: fs/xfs/xfs_log_recover.c (`xlog_find_head`, `xlog_find_tail`).
 *
 * @module
 */

import { XLOG_HEADER_MAGIC_NUM } from "./format.ts";

/** Blocks that may be on their way to the device at a time, out of order: eight buffers
 * of 256 KiB (kernel: `XLOG_TOTAL_REC_SHIFT`). */
const MAX_IN_FLIGHT = 4096;
/** Longest record with its headers, basic blocks. */
const MAX_RECORD = 512 + 8;
const BB = 512;
// Of a record's header.
const H_CYCLE = 4;
const H_VERSION = 8;
const H_LEN = 12;
const H_NUM_LOGOPS = 40;
const H_SIZE = 320;
/** Bytes of log that one header block speaks for. */
const HEADER_CYCLE_SIZE = 32768;
/** Flag of the operation that ends a mount, and where it is. */
const XLOG_UNMOUNT_TRANS = 0x20;
const OH_FLAGS = 9;

/** Reads basic blocks of the log; a negative errno if that fails. */
export type LogRead = (bb: number, count: number) => Uint8Array | number;

/** What was found. */
export interface LogHead {
  /** The last thing in it is the record of an unmount, or there is nothing at all. */
  clean: boolean;
  /** Cycle of the last record; 0 if there is none. */
  cycle: number;
  /** Basic block after the last record. */
  block: number;
}

/**
 * Finds the head of a log.
 *
 * @param bbs Basic blocks of the log.
 * @returns It; the errno of a read; or why it is no log, a text.
 */
export function xlogFindHead(
  bbs: number,
  read: LogRead,
): LogHead | number | string {
  const first = cycleAt(read, 0);
  const last = cycleAt(read, bbs - 1);
  if (first < 0) return first;
  if (last < 0) return last;
  if (first === 0) return { clean: true, cycle: 0, block: 0 };
  if (last === 0 && first !== 1) return `first cycle ${first}, last 0`;
  if (last > first || (last !== 0 && first - last > 1)) {
    return `first cycle ${first}, last ${last}`;
  }
  let head = bbs;
  if (first !== last) {
    const found = findDrop(read, bbs, first);
    if (found < 0) return found;
    head = found;
  }
  const back = findHole(read, head, first);
  if (back < 0) return back;
  return lastRecord(read, bbs, back, back === bbs ? 0 : back);
}

/** Number of the cycle in which a block was written. */
function cycleAt(read: LogRead, bb: number): number {
  const data = read(bb, 1);
  return typeof data === "number" ? data : cycleOf(data, 0);
}

function cycleOf(data: Uint8Array, at: number): number {
  const view = new DataView(data.buffer, data.byteOffset + at, BB);
  const word = view.getUint32(0);
  return word === XLOG_HEADER_MAGIC_NUM ? view.getUint32(H_CYCLE) : word;
}

/** First block that was not written in this cycle. */
function findDrop(read: LogRead, bbs: number, cycle: number): number {
  let low = 0;
  let high = bbs - 1;
  while (low < high) {
    const mid = Math.floor((low + high) / 2);
    const at = cycleAt(read, mid);
    if (at < 0) return at;
    if (at === cycle) low = mid + 1;
    else high = mid;
  }
  return low;
}

/** Writes before the head that never came: the head is before them. */
function findHole(read: LogRead, head: number, cycle: number): number {
  const from = Math.max(0, head - MAX_IN_FLIGHT);
  if (from === head) return head;
  const data = read(from, head - from);
  if (typeof data === "number") return data;
  for (let bb = from; bb < head; bb++) {
    if (cycleOf(data, (bb - from) * BB) !== cycle) return bb;
  }
  return head;
}

/** Looks at the record that ends at the head. */
function lastRecord(
  read: LogRead,
  bbs: number,
  from: number,
  head: number,
): LogHead | number | string {
  const start = from === 0 ? bbs : from;
  for (let back = 1; back <= Math.min(MAX_RECORD, start); back++) {
    const data = read(start - back, 1);
    if (typeof data === "number") return data;
    const view = new DataView(data.buffer, data.byteOffset, BB);
    if (view.getUint32(0) !== XLOG_HEADER_MAGIC_NUM) continue;
    const clean = isUnmount(read, bbs, view, start - back, head);
    if (typeof clean === "number") return clean;
    return { clean, cycle: view.getUint32(H_CYCLE), block: head };
  }
  return `no record before block ${head}`;
}

/** Whether a record is that of an unmount, and ends at the head. */
function isUnmount(
  read: LogRead,
  bbs: number,
  header: DataView,
  bb: number,
  head: number,
): boolean | number {
  if (header.getUint32(H_VERSION) !== 2) return false;
  const size = header.getUint32(H_SIZE);
  const headers = Math.max(1, Math.ceil(size / HEADER_CYCLE_SIZE));
  const blocks = Math.ceil(header.getUint32(H_LEN) / BB);
  if (blocks > MAX_RECORD || headers > MAX_RECORD) return false;
  if ((bb + headers + blocks) % bbs !== head % bbs) return false;
  if (header.getUint32(H_NUM_LOGOPS) !== 1) return false;
  const data = read((bb + headers) % bbs, 1);
  if (typeof data === "number") return data;
  return (data[OH_FLAGS]! & XLOG_UNMOUNT_TRANS) !== 0;
}
