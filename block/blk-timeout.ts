/**
 * Timeouts of requests: one timer for a queue, none for a request.
 *
 * While the driver has a request the timer counts as something to wait for, so
 * that on the virtual clock a command that never ends still times out when nothing
 * else is left to happen. While it has none, the timer stays where it is as
 * housekeeping: an idle device neither moves time nor keeps the process alive,
 * and the next request needs no new event.
 *
 * Kernel counterpart: block/blk-timeout.c.
 *
 * @module
 */

import type { EventId } from "../lib/clock.ts";
import { blkMqTagsetBusyIter, type RequestQueue } from "./blk-mq.ts";
import { MQ_RQ_IN_FLIGHT, type Request } from "./blk-request.ts";

/** The timer of one request queue. */
export class TimeoutTimer {
  readonly #queue: RequestQueue;
  #event: EventId = 0;
  /** Whether the driver has requests; always, as it were, if it has no `timeout`. */
  #watching: boolean;

  /**
   * Nothing is watched yet.
   *
   * @param queue Its queue.
   */
  constructor(queue: RequestQueue) {
    this.#queue = queue;
    this.#watching = queue.ops.timeout === undefined;
  }

  /** The driver has taken a request, and perhaps ended it already (kernel:
   * `blk_add_timer`). */
  watch(): void {
    if (this.#watching || this.#queue.issued === 0) return;
    this.#watching = true;
    const { device, timeout } = this.#queue;
    const { clock } = device;
    if (this.#event !== 0) clock.setBackground(this.#event, false);
    else this.#event = clock.at(clock.now() + timeout, expired, this);
  }

  /** The driver has no request any more. */
  rest(): void {
    if (this.#event === 0) return;
    this.#watching = false;
    this.#queue.device.clock.setBackground(this.#event, true);
  }

  /** Forgets the timer. */
  stop(): void {
    if (this.#event === 0) return;
    this.#queue.device.clock.cancel(this.#event);
    this.#event = 0;
    this.#watching = false;
  }

  /** Tells the driver of requests whose time is over, and sets the timer to when
   * the next one's is (kernel: `blk_mq_timeout_work`). */
  expire(): void {
    this.#event = 0;
    this.#watching = false;
    const now = this.#queue.device.clock.now();
    const late: Request[] = [];
    blkMqTagsetBusyIter(this.#queue, (rq) => {
      if (rq.deadline <= now) late.push(rq);
    });
    try {
      for (const rq of late) this.#tell(rq, now);
    } finally {
      this.#setToNext();
    }
  }

  #tell(rq: Request, now: number): void {
    // What was done about one before may have ended this one.
    if (rq.state !== MQ_RQ_IN_FLIGHT || rq.deadline > now) return;
    // The driver sees to it, or asks to be told again.
    rq.deadline = Infinity;
    const { ops, timeout } = this.#queue;
    if (ops.timeout!(rq) === "reset-timer") rq.deadline = now + timeout;
  }

  #setToNext(): void {
    let next = Infinity;
    blkMqTagsetBusyIter(this.#queue, (rq) => {
      next = Math.min(next, rq.deadline);
    });
    if (next === Infinity || this.#watching) return;
    this.#watching = true;
    this.#event = this.#queue.device.clock.at(next, expired, this);
  }
}

function expired(timer: TimeoutTimer): void {
  timer.expire();
}
