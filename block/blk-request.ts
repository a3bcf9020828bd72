/**
 * Requests, and lists of them.
 *
 * Kernel counterpart: include/linux/blk-mq.h.
 *
 * @module
 */

import type { Bio } from "./bio.ts";
import type { HwQueue } from "./blk-mq.ts";
import type { ZoneWritePlug } from "./blk-zoned.ts";

/** The driver does not have it (kernel: `MQ_RQ_IDLE`). */
export const MQ_RQ_IDLE = 0;
/** The driver has it (kernel: `MQ_RQ_IN_FLIGHT`). */
export const MQ_RQ_IN_FLIGHT = 1;

/** One command on its way to a device (kernel: `struct request`). */
export class Request {
  /** The hardware queue that it goes to. */
  readonly hctx: HwQueue;
  /** Its slot of that queue, from 0. */
  tag: number;
  /** `REQ_OP_*` and `REQ_*` flags. */
  opf = 0;
  /** First 512-byte sector; of a ZONE_APPEND the driver puts here where it went. */
  sector = 0;
  /** Bytes, of all its bios. */
  size = 0;
  /** First of the bios that it does the work of, linked by `next`; null for a
   * FLUSH of the flush machinery. */
  bio: Bio | null = null;
  /** Last of them. */
  biotail: Bio | null = null;
  /** Bios of a DISCARD: each is a range (kernel: `blk_rq_nr_discard_segments`). */
  nrRanges = 1;
  /** Memory segments of all its bios (kernel: `nr_phys_segments`). */
  nrSegs = 0;
  /** When it was made, nanoseconds. */
  startTime = 0;
  /** When its time is over, nanoseconds; of use while the driver has it. */
  deadline = 0;
  /** Whether the driver has it (kernel: `MQ_RQ_*`). */
  state: number = MQ_RQ_IDLE;
  /** Steps of a flush sequence that are done; 0 outside of one (kernel: `flush.seq`). */
  flushSeq = 0;
  /** The write plug of its zone, if it went through one (kernel:
   * `RQF_ZONE_WRITE_PLUGGING`). */
  zonePlug: ZoneWritePlug | null = null;
  /** The driver's own (kernel: `blk_mq_rq_to_pdu`); stays with the tag. */
  private: unknown = null;
  /** The next on a list. */
  next: Request | null = null;
  /** The one before it on a list. */
  prev: Request | null = null;

  /**
   * Made by its hardware queue.
   *
   * @param hctx Its hardware queue.
   * @param tag Its slot.
   */
  constructor(hctx: HwQueue, tag: number) {
    this.hctx = hctx;
    this.tag = tag;
  }
}

/** Requests in order; one is on one list at a time. */
export class RequestList {
  /** The oldest, or null. */
  first: Request | null = null;
  /** The newest, or null. */
  last: Request | null = null;

  /** Adds a request behind the others. */
  push(rq: Request): void {
    rq.next = null;
    rq.prev = this.last;
    if (this.last === null) this.first = rq;
    else this.last.next = rq;
    this.last = rq;
  }

  /** Adds a request before the others. */
  unshift(rq: Request): void {
    rq.prev = null;
    rq.next = this.first;
    if (this.first === null) this.last = rq;
    else this.first.prev = rq;
    this.first = rq;
  }

  /** Takes the oldest, or null. */
  shift(): Request | null {
    const rq = this.first;
    if (rq === null) return null;
    this.first = rq.next;
    if (this.first === null) this.last = null;
    else this.first.prev = null;
    rq.next = null;
    return rq;
  }

  /** Adds all of another list, which is empty then. */
  append(list: RequestList): void {
    const { first } = list;
    if (first === null) return;
    if (this.last === null) this.first = first;
    else this.last.next = first;
    first.prev = this.last;
    this.last = list.last;
    list.first = null;
    list.last = null;
  }

  /** Takes all of them. */
  takeAll(): RequestList {
    const all = new RequestList();
    all.first = this.first;
    all.last = this.last;
    this.first = null;
    this.last = null;
    return all;
  }
}
