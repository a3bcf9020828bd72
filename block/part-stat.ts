/**
 * What a disk has done: the numbers behind /proc/diskstats and fio's "Disk stats".
 *
 * Kernel counterpart: include/linux/part_stat.h, block/genhd.c.
 *
 * @module
 */

/** One kind of request, as the kernel groups them. */
export interface StatGroup {
  /** Requests ended. */
  ios: number;
  /** Bios that joined another's request. */
  merges: number;
  /** Bytes of the requests ended. */
  bytes: number;
  /** Nanoseconds from request to end, summed over requests. */
  ticks: number;
}

/** Counters of one disk since it was made (kernel: `struct disk_stats`). */
export class DiskStats {
  /** Reads. */
  readonly read: StatGroup = { ios: 0, merges: 0, bytes: 0, ticks: 0 };
  /** Writes, and WRITE_ZEROES. */
  readonly write: StatGroup = { ios: 0, merges: 0, bytes: 0, ticks: 0 };
  /** FLUSH commands. */
  readonly flush: StatGroup = { ios: 0, merges: 0, bytes: 0, ticks: 0 };
  /** Requests that have not ended. */
  inFlight = 0;
  /** Nanoseconds in which at least one request was under way; what is under way now not counted. */
  ioTicks = 0;
  #busySince = 0;

  /** Nanoseconds in the queue, summed over all requests. */
  get timeInQueue(): number {
    return this.read.ticks + this.write.ticks + this.flush.ticks;
  }

  /** A request was made at `now` (kernel: `blk_account_io_start`). */
  start(now: number): void {
    if (this.inFlight++ === 0) this.#busySince = now;
  }

  /** A request has ended at `now`. */
  end(now: number): void {
    if (--this.inFlight === 0) this.ioTicks += now - this.#busySince;
  }

  /** Counts a request that has ended (kernel: `blk_account_io_done`). */
  account(group: StatGroup, bytes: number, ns: number): void {
    group.ios++;
    group.bytes += bytes;
    group.ticks += ns;
  }
}
