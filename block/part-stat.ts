/**
 * What a disk has done: the numbers behind /proc/diskstats and fio's "Disk stats".
 *
 * Kernel counterpart: include/linux/part_stat.h, block/genhd.c.
 *
 * @module
 */

import {
  opIsWrite,
  REQ_OP_DISCARD,
  REQ_OP_DRV_IN,
  REQ_OP_MASK,
} from "./blk-types.ts";

import type { Lateness } from "../lib/clock.ts";

/** One kind of request, as the kernel groups them. */
export interface StatGroup {
  /** Requests ended. */
  ios: number;
  /** Bios that joined another's request. */
  merges: number;
  /** Bytes done. */
  bytes: number;
  /** Nanoseconds from request to end, summed over requests. */
  ticks: number;
}

function noneYet(): StatGroup {
  return { ios: 0, merges: 0, bytes: 0, ticks: 0 };
}

/** Counters of one disk since it was made (kernel: `struct disk_stats`). */
export class DiskStats {
  /** Reads. */
  readonly read: StatGroup = noneYet();
  /** Writes, and whatever else changes the disk but discards. */
  readonly write: StatGroup = noneYet();
  /** Discards. */
  readonly discard: StatGroup = noneYet();
  /** FLUSH commands. */
  readonly flush: StatGroup = noneYet();
  /** How late what the device waits for came, on the real clock; null on a virtual
   * one, where nothing is late. All that goes by the clock is counted. */
  lateness: Lateness | null = null;
  /** Requests that have not ended. */
  inFlight = 0;
  /** Nanoseconds in which at least one request was under way; what is under way now not counted. */
  ioTicks = 0;
  #busySince = 0;

  /** Nanoseconds in the queue, summed over all requests. */
  get timeInQueue(): number {
    return this.read.ticks + this.write.ticks + this.discard.ticks +
      this.flush.ticks;
  }

  /** A request was made at `now` (kernel: `blk_account_io_start`). */
  start(now: number): void {
    if (this.inFlight++ === 0) this.#busySince = now;
  }

  /** A request has ended at `now`. */
  end(now: number): void {
    if (--this.inFlight === 0) this.ioTicks += now - this.#busySince;
  }

  /** Counts a request that has ended, with the bytes that were left of it (kernel:
   * `blk_account_io_done`). A driver's own commands are not counted. */
  accountDone(opf: number, bytes: number, ns: number): void {
    if ((opf & REQ_OP_MASK) >= REQ_OP_DRV_IN) return;
    const group = this.#groupOf(opf);
    group.ios++;
    group.bytes += bytes;
    group.ticks += ns;
  }

  /** Counts bytes of a request that goes on (kernel: `blk_account_io_completion`). */
  accountBytes(opf: number, bytes: number): void {
    this.#groupOf(opf).bytes += bytes;
  }

  /** Counts a bio that has joined a request (kernel: `blk_account_io_merge_bio`). */
  accountMerge(opf: number): void {
    this.#groupOf(opf).merges++;
  }

  /** Counts a FLUSH that has ended (kernel: `blk_account_io_flush`). */
  accountFlush(ns: number): void {
    this.flush.ios++;
    this.flush.ticks += ns;
  }

  /** Kernel: `op_stat_group`. */
  #groupOf(opf: number): StatGroup {
    if ((opf & REQ_OP_MASK) === REQ_OP_DISCARD) return this.discard;
    return opIsWrite(opf) ? this.write : this.read;
  }
}
