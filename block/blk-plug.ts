/**
 * The plug: while a task sends several bios, their requests are held back, so
 * that bios which follow one another become one request, and what is left goes to
 * the driver as one batch with one doorbell.
 *
 * A plug covers a synchronous stretch of a task: it is finished before the task
 * gives anything back to the event loop, so one for all tasks is enough. Before
 * the running task waits in place it is flushed, or the task would wait for what
 * it holds back itself.
 *
 * Kernel counterpart: block/blk-core.c, block/blk-mq.c, `struct blk_plug`.
 *
 * @module
 */

import { bugOn } from "../lib/bug.ts";
import { setWaitHooks } from "../lib/wait.ts";
import { type Request, RequestList } from "./blk-request.ts";
import { blockTracer, traceBlockPlug, traceBlockUnplug } from "./blktrace.ts";

/** Requests of a plug that holds those of one device; twice as many if they are of
 * several (kernel: `BLK_MAX_REQUEST_COUNT`). */
const BLK_MAX_REQUEST_COUNT = 32;
/** A request of this many bytes goes before more are added (kernel: `BLK_PLUG_FLUSH_SIZE`). */
const BLK_PLUG_FLUSH_SIZE = 128 * 1024;

/** What the running task holds back (kernel: `struct blk_plug`). */
class BlkPlug {
  /** Plugs begun and not finished; only the outermost counts. */
  depth = 0;
  /** Number of the outermost one. */
  serial = 0;
  /** Requests held back. */
  readonly list: RequestList = new RequestList();
  /** How many they are. */
  count = 0;
  /** Whether they are of several devices. */
  multipleQueues = false;
  /** Whether they are of several hardware queues. */
  multipleHctxs = false;
}

/** The plug of the task that runs. */
export const plug: BlkPlug = new BlkPlug();

/**
 * Begins to hold requests back (kernel: `blk_start_plug`). Every call needs its
 * {@linkcode blkFinishPlug} before the caller waits or returns to the event loop,
 * also if it throws. Nests; only the outermost counts.
 */
export function blkStartPlug(): void {
  if (plug.depth++ === 0) plug.serial++;
}

/**
 * Sends what has been held back, if this is the outermost plug (kernel:
 * `blk_finish_plug`).
 *
 * @throws {Error} BUG if none has been begun.
 */
export function blkFinishPlug(): void {
  bugOn(plug.depth === 0, "a plug is finished that nobody began");
  if (--plug.depth === 0 && plug.count > 0) blkFlushPlug();
}

/** Adds a request to the plug (kernel: `blk_add_rq_to_plug`). */
export function blkAddRqToPlug(rq: Request): void {
  const { last } = plug.list;
  if (last === null) {
    if (blockTracer !== null) traceBlockPlug(rq);
  } else if (isFull(last, rq)) {
    blkFlushPlug();
    if (blockTracer !== null) traceBlockPlug(rq);
  } else if (last.hctx !== rq.hctx) {
    plug.multipleHctxs = true;
    if (last.hctx.queue !== rq.hctx.queue) plug.multipleQueues = true;
  }
  plug.list.push(rq);
  plug.count++;
}

/** Whether the plug is to be emptied before `rq` is added. */
function isFull(last: Request, rq: Request): boolean {
  const max = plug.multipleQueues
    ? 2 * BLK_MAX_REQUEST_COUNT
    : BLK_MAX_REQUEST_COUNT;
  return plug.count >= max ||
    (last.size >= BLK_PLUG_FLUSH_SIZE && rq.hctx.queue.nomerges !== 2);
}

/** What is on its way to the drivers. */
const outbox: RequestList = new RequestList();
/** Whether that may be of several hardware queues. */
let outboxMixed = false;
/** The clock's `nesting` when sending began; -1: nobody sends. */
let sendingNesting = -1;

/** Sends what is held back, a batch for each hardware queue; the plug goes on
 * (kernel: `blk_mq_flush_plug_list`). */
export function blkFlushPlug(): void {
  if (plug.count > 0) empty();
  if (outbox.first !== null && !isSending(outbox.first)) sendOutbox();
}

function empty(): void {
  if (blockTracer !== null) traceBlockUnplug();
  outboxMixed ||= plug.multipleHctxs || outbox.first !== null;
  outbox.append(plug.list);
  plug.count = 0;
  plug.multipleQueues = false;
  plug.multipleHctxs = false;
}

/** Whether a loop further up the stack sends: a request that ends meanwhile may lead
 * to more, and one loop is enough. */
function isSending({ hctx }: Request): boolean {
  return hctx.queue.device.clock.nesting <= sendingNesting;
}

function sendOutbox(): void {
  const above = sendingNesting;
  sendingNesting = outbox.first!.hctx.queue.device.clock.nesting;
  try {
    while (outbox.first !== null) {
      const mixed = outboxMixed;
      outboxMixed = false;
      const all = outbox.takeAll();
      if (mixed) sendByHctx(all);
      else all.first!.hctx.sendAll(all);
    }
  } finally {
    sendingNesting = above;
  }
}

function sendByHctx(all: RequestList): void {
  let left = all;
  while (left.first !== null) {
    const { hctx } = left.first;
    const batch = new RequestList();
    const others = new RequestList();
    for (let rq = left.shift(); rq !== null; rq = left.shift()) {
      (rq.hctx === hctx ? batch : others).push(rq);
    }
    hctx.sendAll(batch);
    left = others;
  }
}

/** The running task is about to wait. */
function sleep(inPlace: boolean): void {
  if (plug.count > 0) empty();
  // A loop further up does not go on before what runs in place is done.
  if (outbox.first !== null && (inPlace || !isSending(outbox.first))) {
    sendOutbox();
  }
}

/** Who runs in place of a task has a plug of his own. */
function suspend(): number {
  const { depth } = plug;
  plug.depth = 0;
  return depth;
}

function resume(depth: number): void {
  plug.depth = depth;
}

setWaitHooks({ sleep, suspend, resume });
