/**
 * Flush and FUA: writes that need the cache flushed before or after them go
 * through a sequence of steps, and all that wait share a FLUSH.
 *
 * A FLUSH covers what had completed when it was issued. So a request that
 * arrives while one runs goes to the other of two lists, and waits for the next:
 * many fsyncs at once cost two FLUSHes, and none is told too much.
 *
 * Kernel counterpart: block/blk-flush.c.
 *
 * @module
 */

import { bugOn } from "../lib/bug.ts";
import { SEC } from "../lib/clock.ts";
import { blkMqFinishRequest, type HwQueue } from "./blk-mq.ts";
import { Request } from "./blk-request.ts";
import {
  BLK_STS_OK,
  REQ_DRV,
  REQ_FAILFAST_MASK,
  REQ_FUA,
  REQ_OP_FLUSH,
  REQ_PREFLUSH,
  REQ_SYNC,
} from "./blk-types.ts";

const REQ_FSEQ_PREFLUSH = 1 << 0;
const REQ_FSEQ_DATA = 1 << 1;
const REQ_FSEQ_POSTFLUSH = 1 << 2;
const REQ_FSEQ_DONE = 1 << 3;
const REQ_FSEQ_ACTIONS = REQ_FSEQ_PREFLUSH | REQ_FSEQ_DATA | REQ_FSEQ_POSTFLUSH;

/** How long data in flight may hold up a FLUSH, nanoseconds. */
const FLUSH_PENDING_TIMEOUT = 5 * SEC;

/** Flush state of one hardware queue (kernel: `struct blk_flush_queue`). */
export class FlushQueue {
  readonly #hctx: HwQueue;
  /** Who waits for a FLUSH: one list collects while the other's FLUSH runs. */
  readonly #lists: [Request[], Request[]] = [[], []];
  #pendingIdx = 0;
  /** Differs from `#pendingIdx` while a FLUSH runs. */
  #runningIdx = 0;
  #pendingSince = 0;
  /** The one FLUSH; on its way it has the tag of the first that waits for it. */
  #flushRq: Request | null = null;
  /** Sequenced requests in their data step. */
  dataInFlight = 0;

  /**
   * Nobody waits yet.
   *
   * @param hctx Its hardware queue.
   */
  constructor(hctx: HwQueue) {
    this.#hctx = hctx;
  }

  /** The FLUSH, made on first use. */
  get request(): Request | null {
    return this.#flushRq;
  }

  /** Puts a request among those that wait for the next FLUSH. */
  addPending(rq: Request): void {
    const pending = this.#lists[this.#pendingIdx]!;
    if (pending.length === 0) this.#pendingSince = this.#now();
    pending.push(rq);
  }

  /** Issues a FLUSH if one is waited for and may go now (kernel: `blk_kick_flush`). */
  kick(): void {
    const pending = this.#lists[this.#pendingIdx]!;
    if (this.#pendingIdx !== this.#runningIdx || pending.length === 0) return;
    // Requests in their data step will want a FLUSH, too: let them share it, but
    // not for ever.
    const now = this.#now();
    if (
      this.dataInFlight > 0 && now < this.#pendingSince + FLUSH_PENDING_TIMEOUT
    ) {
      return;
    }
    this.#pendingIdx ^= 1;
    const rq = this.#flushRq ??= new Request(this.#hctx, 0);
    const first = pending[0]!;
    rq.tag = first.tag;
    rq.opf = REQ_OP_FLUSH | REQ_PREFLUSH |
      (first.opf & (REQ_DRV | REQ_FAILFAST_MASK));
    rq.startTime = now;
    this.#hctx.send(rq, now);
  }

  /** The FLUSH has ended: all that waited for it go on (kernel: `flush_end_io`).
   * A request that has no bio and is not it has ended before. */
  flushEnd(rq: Request, status: number): void {
    const isRunning = this.#pendingIdx !== this.#runningIdx;
    bugOn(rq !== this.#flushRq || !isRunning, "a request has ended twice");
    const took = this.#now() - rq.startTime;
    this.#hctx.queue.stats.accountFlush(took);
    const running = this.#lists[this.#runningIdx]!;
    this.#lists[this.#runningIdx] = [];
    this.#runningIdx ^= 1;
    for (const waiter of running) {
      flushCompleteSeq(waiter, nextStep(waiter), status);
    }
  }

  #now(): number {
    return this.#hctx.queue.device.clock.now();
  }
}

/**
 * Takes a request with FUA or PREFLUSH into the machinery (kernel:
 * `blk_insert_flush`).
 *
 * @returns False if the request is to be issued as it now is.
 */
export function insertFlush(rq: Request): boolean {
  const { flush, queue } = rq.hctx;
  const { fua } = queue.device;
  const policy = flushPolicy(rq);
  // Every step is its own request: the data carries no flag but a native FUA.
  rq.opf &= ~REQ_PREFLUSH;
  if (!fua) rq.opf &= ~REQ_FUA;
  rq.opf |= REQ_SYNC;
  if (policy === 0) {
    blkMqFinishRequest(rq, BLK_STS_OK);
    return true;
  }
  if (policy === REQ_FSEQ_DATA) return false;
  if (policy === (REQ_FSEQ_DATA | REQ_FSEQ_POSTFLUSH)) {
    // It goes the way of all others, and comes back when it has been written.
    rq.flushSeq = REQ_FSEQ_PREFLUSH;
    flush.dataInFlight++;
    return false;
  }
  flushCompleteSeq(rq, REQ_FSEQ_ACTIONS & ~policy, BLK_STS_OK);
  return true;
}

/** Steps that a request needs (kernel: `blk_flush_policy`). Without data, PREFLUSH
 * and FUA are two FLUSHes where the device has no FUA. */
function flushPolicy(rq: Request): number {
  const { writeCache, fua } = rq.hctx.queue.device;
  let policy = rq.size > 0 ? REQ_FSEQ_DATA : 0;
  if (!writeCache) return policy;
  if ((rq.opf & REQ_PREFLUSH) !== 0) policy |= REQ_FSEQ_PREFLUSH;
  if ((rq.opf & REQ_FUA) !== 0 && !fua) policy |= REQ_FSEQ_POSTFLUSH;
  return policy;
}

/** First step that is not done. */
function nextStep(rq: Request): number {
  return ~rq.flushSeq & (rq.flushSeq + 1);
}

/** The data of a sequenced request has been written, or not (kernel: `mq_flush_data_end_io`). */
export function flushDataEnd(rq: Request, status: number): void {
  rq.hctx.flush.dataInFlight--;
  flushCompleteSeq(rq, REQ_FSEQ_DATA, status);
}

/**
 * Marks steps as done and starts the next (kernel: `blk_flush_complete_seq`).
 * An error ends the sequence: data is not written after a flush that failed.
 */
function flushCompleteSeq(rq: Request, seq: number, status: number): void {
  const { flush } = rq.hctx;
  rq.flushSeq |= seq;
  switch (status === BLK_STS_OK ? nextStep(rq) : REQ_FSEQ_DONE) {
    case REQ_FSEQ_PREFLUSH:
    case REQ_FSEQ_POSTFLUSH:
      flush.addPending(rq);
      break;
    case REQ_FSEQ_DATA:
      flush.dataInFlight++;
      rq.hctx.send(rq, rq.hctx.queue.device.clock.now());
      break;
    case REQ_FSEQ_DONE:
      rq.flushSeq = 0;
      blkMqFinishRequest(rq, status);
  }
  flush.kick();
}
