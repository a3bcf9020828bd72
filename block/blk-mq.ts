/**
 * The multi-queue layer: bios become requests with a tag, and requests go to
 * the driver on one of its hardware queues.
 *
 * A tag is a slot of the hardware queue. Where the kernel's submitter sleeps for
 * one, the bio waits here in a line, and goes on when a request has ended.
 *
 * Kernel counterpart: block/blk-mq.c, block/blk-mq-tag.c.
 *
 * @module
 */

import { type Bio, bioEndIo, bioEndWith } from "./bio.ts";
import { flushDataEnd, FlushQueue, insertFlush } from "./blk-flush.ts";
import { bioSplitToLimits } from "./blk-merge.ts";
import {
  BLK_STS_AGAIN,
  BLK_STS_IOERR,
  BLK_STS_NOTSUPP,
  BLK_STS_OK,
  opIsFlush,
  opIsWrite,
  REQ_NOWAIT,
  REQ_POLLED,
  SECTOR_SIZE,
} from "./blk-types.ts";
import type { BlockDevice } from "./blkdev.ts";
import { DiskStats } from "./part-stat.ts";

/** What a driver gives (kernel: `struct blk_mq_ops`). */
export interface BlkMqOps {
  /**
   * Takes a request (kernel: `queue_rq`). It ends, now or later, through
   * {@linkcode blkMqEndRequest}, unless this returns an error.
   *
   * @returns `BLK_STS_OK`, or the status that the request ends with.
   */
  queueRq(rq: Request): number;
}

/** One command on its way to a device (kernel: `struct request`). */
export class Request {
  /** The hardware queue that it goes to. */
  readonly hctx: HwQueue;
  /** Its slot of that queue, from 0. */
  tag: number;
  /** `REQ_OP_*` and `REQ_*` flags. */
  opf = 0;
  /** First 512-byte sector. */
  sector = 0;
  /** Bytes. */
  size = 0;
  /** What it does the work of; null for a FLUSH of the flush machinery. */
  bio: Bio | null = null;
  /** When it was made, nanoseconds. */
  startTime = 0;
  /** Steps of a flush sequence that are done; 0 outside of one (kernel: `flush.seq`). */
  flushSeq = 0;

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

/** One hardware queue with its tags (kernel: `struct blk_mq_hw_ctx`). */
export class HwQueue {
  /** The queue that it is part of. */
  readonly queue: RequestQueue;
  /** Its number, from 0. */
  readonly index: number;
  /** Its flush machinery. */
  readonly flush: FlushQueue;
  /** Requests by tag, made on first use. */
  readonly #requests: Request[] = [];
  readonly #freeTags: Int32Array;
  #freeCount: number;
  /** Bios that wait for a tag, first come first; those before `#first` have gone. */
  #waiting: Bio[] = [];
  #first = 0;
  #waking = false;

  /**
   * Made by its queue.
   *
   * @param queue The queue that it is part of.
   * @param index Its number.
   * @param depth Its tags.
   */
  constructor(queue: RequestQueue, index: number, depth: number) {
    this.queue = queue;
    this.index = index;
    this.flush = new FlushQueue(this);
    // Lowest tag on top.
    this.#freeTags = Int32Array.from(
      { length: depth },
      (_, i) => depth - 1 - i,
    );
    this.#freeCount = depth;
  }

  /** Makes a request of a bio and issues it, or lets it wait for a tag. */
  submit(bio: Bio): void {
    const taken = this.#freeCount === 0 || this.#waiting.length > 0;
    if (!taken) this.#start(bio);
    else if ((bio.opf & REQ_NOWAIT) !== 0) bioEndWith(bio, BLK_STS_AGAIN);
    else this.#waiting.push(bio);
  }

  /** Gives a request's tag back (kernel: `blk_mq_put_tag`). */
  putTag(rq: Request): void {
    this.#freeTags[this.#freeCount++] = rq.tag;
  }

  /** Lets bios go on that wait for a tag (kernel: `sbitmap_queue_wake_up`). */
  wakeUp(): void {
    // What is started here may end at once and come here again: one loop is enough.
    if (this.#waiting.length === 0 || this.#waking) return;
    this.#waking = true;
    while (this.#freeCount > 0 && this.#first < this.#waiting.length) {
      this.#start(this.#waiting[this.#first++]!);
    }
    this.#waking = false;
    // A line that never empties must not keep all that have gone.
    if (this.#first * 2 > this.#waiting.length) {
      this.#waiting = this.#waiting.slice(this.#first);
      this.#first = 0;
    }
  }

  #start(bio: Bio): void {
    const tag = this.#freeTags[--this.#freeCount]!;
    const rq = this.#requests[tag] ??= new Request(this, tag);
    rq.opf = bio.opf;
    rq.sector = bio.sector;
    rq.size = bio.size;
    rq.bio = bio;
    rq.flushSeq = 0;
    const { device, stats } = this.queue;
    rq.startTime = device.clock.now();
    stats.start(rq.startTime);
    if (opIsFlush(rq.opf) && insertFlush(rq)) return;
    blkMqIssue(rq);
  }
}

/** All of a device's hardware queues (kernel: `struct request_queue`). */
export class RequestQueue {
  /** The device. */
  readonly device: BlockDevice;
  /** Its driver. */
  readonly ops: BlkMqOps;
  /** Its hardware queues. */
  readonly hctxs: readonly HwQueue[];
  /** What it has done. */
  readonly stats: DiskStats = new DiskStats();
  #next = 0;

  /**
   * Makes a device's queues (kernel: `blk_mq_alloc_queue`).
   *
   * @param device The device.
   * @param ops Its driver.
   * @param queues Hardware queues, at least 1.
   * @param depth Tags of each, at least 1.
   */
  constructor(
    device: BlockDevice,
    ops: BlkMqOps,
    queues: number,
    depth: number,
  ) {
    this.device = device;
    this.ops = ops;
    this.hctxs = Array.from(
      { length: queues },
      (_, i) => new HwQueue(this, i, depth),
    );
  }

  /** Hardware queue of the next bio: each in turn, as if from the next CPU. */
  nextHctx(): HwQueue {
    const hctx = this.hctxs[this.#next]!;
    if (++this.#next === this.hctxs.length) this.#next = 0;
    return hctx;
  }
}

/**
 * A multi-queue device's `submit` (kernel: `blk_mq_submit_bio`). Beside what the
 * driver says a bio may end with IOERR (not aligned to logical blocks), NOTSUPP
 * (polled, and there is no queue to poll), AGAIN (NOWAIT, and all tags are taken
 * or it needs a split), INVAL (cannot be split to the limits).
 */
export function blkMqSubmitBio(queue: RequestQueue, bio: Bio): void {
  const { limits } = queue.device;
  const mask = limits.logicalBlockSize - 1;
  // A sector times 512 may pass 2^53; its low bits say as much.
  const sectorMask = limits.logicalBlockSize / SECTOR_SIZE - 1;
  if (((bio.size & mask) | (bio.sector & sectorMask)) !== 0) {
    bioEndWith(bio, BLK_STS_IOERR);
  } else if ((bio.opf & REQ_POLLED) !== 0) {
    bioEndWith(bio, BLK_STS_NOTSUPP);
  } else if (bio.size === 0 && !opIsFlush(bio.opf)) {
    // No command moves nothing: its count of blocks begins at 1.
    bioEndIo(bio);
  } else {
    const front = bioSplitToLimits(bio, limits);
    if (front !== null) queue.nextHctx().submit(front);
  }
}

/** Hands a request to the driver (kernel: `blk_mq_try_issue_directly`). */
export function blkMqIssue(rq: Request): void {
  const status = rq.hctx.queue.ops.queueRq(rq);
  if (status !== BLK_STS_OK) blkMqEndRequest(rq, status);
}

/**
 * A request has ended (kernel: `blk_mq_end_request`): the flush machinery takes
 * its next step, or its bio ends and its tag is free.
 *
 * @param status `BLK_STS_*`.
 */
export function blkMqEndRequest(rq: Request, status: number): void {
  if (rq.bio === null) rq.hctx.flush.flushEnd(status);
  else if (rq.flushSeq !== 0) flushDataEnd(rq, status);
  else blkMqFinishRequest(rq, status);
}

/** Ends a request for good. */
export function blkMqFinishRequest(rq: Request, status: number): void {
  const { hctx } = rq;
  const { device, stats } = hctx.queue;
  const now = device.clock.now();
  const group = opIsWrite(rq.opf) ? stats.write : stats.read;
  // An empty flush counts, beside the FLUSH that it causes, as a write of nothing.
  stats.account(group, rq.size, now - rq.startTime);
  stats.end(now);
  const bio = rq.bio!;
  rq.bio = null;
  hctx.putTag(rq);
  bioEndWith(bio, status);
  hctx.wakeUp();
}
