/**
 * The multi-queue layer: bios become requests with a tag, and requests go to
 * the driver on one of its hardware queues.
 *
 * A tag is a slot of the hardware queue. Where the kernel's submitter sleeps for
 * one, or until a frozen queue thaws, the bio waits here in a line, and its
 * submitter goes on. So the line is bounded by nothing but the submitters, as in the
 * kernel the number of tasks that sleep is. A request that the driver cannot take now is kept: on the
 * dispatch list, which is served before anything else, or behind it on the
 * software queue, where bios may still join it.
 *
 * Kernel counterpart: block/blk-mq.c, block/blk-mq-tag.c, block/blk-mq-sched.c.
 *
 * @module
 */

import {
  type Bio,
  BIO_EMULATES_ZONE_APPEND,
  BIO_TRACE_COMPLETION,
  BIO_ZONE_WRITE_PLUGGING,
  bioAdvance,
  bioEndIo,
  bioEndWith,
  bioIsEmpty,
} from "./bio.ts";
import { submitBioNoacctNocheck } from "./blk-core.ts";
import { flushDataEnd, FlushQueue, insertFlush } from "./blk-flush.ts";
import { bioSplitToLimits } from "./blk-merge.ts";
import { blkMqAttemptBioMerge } from "./blk-mq-merge.ts";
import { blkAddRqToPlug, blkFlushPlug, plug } from "./blk-plug.ts";
import {
  MQ_RQ_IDLE,
  MQ_RQ_IN_FLIGHT,
  Request,
  RequestList,
} from "./blk-request.ts";
import { TimeoutTimer } from "./blk-timeout.ts";
import {
  blockTracer,
  traceBlockBio,
  traceBlockRequeue,
  traceBlockRq,
  traceBlockRqEnd,
} from "./blktrace.ts";
import {
  BLK_STS_AGAIN,
  BLK_STS_DEV_RESOURCE,
  BLK_STS_IOERR,
  BLK_STS_NOTSUPP,
  BLK_STS_OK,
  BLK_STS_RESOURCE,
  opIsFlush,
  opIsSync,
  REQ_NOWAIT,
  REQ_OP_DRV_IN,
  REQ_OP_MASK,
  REQ_OP_READ,
  REQ_OP_ZONE_APPEND,
  REQ_POLLED,
  SECTOR_SIZE,
} from "./blk-types.ts";
import {
  blkZonePlugBio,
  blkZoneWritePlugFinish,
  blkZoneWritePlugInitRequest,
} from "./blk-zoned.ts";
import type { BlockDevice } from "./blkdev.ts";
import { checkCount, EINVAL } from "../lib/errno.ts";
import { MSEC, SEC } from "../lib/clock.ts";
import type { MaybePromise } from "../lib/maybe-promise.ts";
import { WaitQueue } from "../lib/wait.ts";
import { DiskStats } from "./part-stat.ts";

export { Request } from "./blk-request.ts";

/** What a driver gives (kernel: `struct blk_mq_ops`). */
export interface BlkMqOps {
  /**
   * Takes a request (kernel: `queue_rq`). It ends, now or later, through
   * {@linkcode blkMqEndRequest}, unless this returns something else than OK.
   *
   * @param last No other follows at once: the time to ring a doorbell.
   * @returns `BLK_STS_OK`; `BLK_STS_RESOURCE` if it cannot be taken for want of
   *   something of the host's, and is to be tried again in 3 ms;
   *   `BLK_STS_DEV_RESOURCE` if it is to be tried again when another request has
   *   ended; else the status that the request ends with.
   */
  queueRq(rq: Request, last: boolean): number;
  /**
   * Those that were taken with `last` false are all for now (kernel:
   * `commit_rqs`). Called only if none with `last` true was taken after them.
   */
  commitRqs?(hctx: HwQueue): void;
  /**
   * Ends what the device has done of a poll queue (kernel: `poll`).
   *
   * @returns Requests ended.
   */
  poll?(hctx: HwQueue): number;
  /**
   * A request has not ended in time (kernel: `timeout`). A driver without this
   * waits for ever.
   *
   * @returns `"done"` if the driver has ended it, or will; `"reset-timer"` to
   *   give it as much time again.
   */
  timeout?(rq: Request): "done" | "reset-timer";
}

/** For all but reads and polled I/O (kernel: `HCTX_TYPE_DEFAULT`). */
export const HCTX_TYPE_DEFAULT = 0;
/** For reads (kernel: `HCTX_TYPE_READ`). */
export const HCTX_TYPE_READ = 1;
/** For polled I/O (kernel: `HCTX_TYPE_POLL`). */
export const HCTX_TYPE_POLL = 2;

/** After which time a queue runs again whose driver was out of something,
 * nanoseconds (kernel: `BLK_MQ_RESOURCE_DELAY`). */
const BLK_MQ_RESOURCE_DELAY = 3 * MSEC;
/** Most bios that go on together when tags are free (kernel: `SBQ_WAKE_BATCH`). */
const SBQ_WAKE_BATCH = 8;
/** A batch is at most this part of all tags (kernel: `SBQ_WAIT_QUEUES`). */
const SBQ_WAIT_QUEUES = 8;
/** Most tags of a hardware queue. */
const BLK_MQ_MAX_DEPTH = 10240;
/** How long a request may take, nanoseconds (kernel: `rq_timeout`). */
const BLK_MQ_TIMEOUT = 30 * SEC;

/** One hardware queue with its tags (kernel: `struct blk_mq_hw_ctx`). */
export class HwQueue {
  /** The queue that it is part of. */
  readonly queue: RequestQueue;
  /** Its number, from 0. */
  readonly index: number;
  /** `HCTX_TYPE_*`. */
  readonly type: number;
  /** Its flush machinery. */
  readonly flush: FlushQueue;
  /** Requests that the driver would not take; they go first. */
  readonly dispatch: RequestList = new RequestList();
  /** Requests that wait behind those (kernel: `struct blk_mq_ctx`). */
  readonly software: RequestList = new RequestList();
  /** Requests by tag, made on first use. */
  readonly #requests: Request[] = [];
  readonly #freeTags: Int32Array;
  #freeCount: number;
  /** Bios that wait for a tag, first come first; those before `#first` have gone. */
  #waiting: Bio[] = [];
  #first = 0;
  #waking = false;
  #running = false;
  /** How often the driver was busy of late (kernel: `dispatch_busy`). */
  #busy = 0;
  /** The event that runs the queue again, 0 if there is none. */
  #rerun = 0;
  /** The driver holds requests that it has not been told to begin with. */
  #uncommitted = false;

  /**
   * Made by its queue.
   *
   * @param queue The queue that it is part of.
   * @param index Its number.
   * @param type `HCTX_TYPE_*`.
   * @param depth Its tags.
   */
  constructor(
    queue: RequestQueue,
    index: number,
    type: number,
    depth: number,
  ) {
    this.queue = queue;
    this.index = index;
    this.type = type;
    this.flush = new FlushQueue(this);
    // Lowest tag on top.
    this.#freeTags = Int32Array.from(
      { length: depth },
      (_, i) => depth - 1 - i,
    );
    this.#freeCount = depth;
  }

  /** Whether nothing is under way here. */
  get idle(): boolean {
    return this.#freeCount === this.#freeTags.length &&
      this.#first === this.#waiting.length;
  }

  /** Tags that may still be handed out. */
  get #available(): number {
    return this.#freeCount - this.#freeTags.length + this.queue.nrRequests;
  }

  /** Makes a request of a bio and sends it on, or lets it wait for a tag
   * (kernel: `blk_mq_get_new_requests`). */
  submit(bio: Bio): void {
    if (this.#available > 0 && this.#first === this.#waiting.length) {
      return this.#start(bio);
    }
    if ((bio.opf & REQ_NOWAIT) !== 0) {
      // It never waits, so nobody is before it.
      if (this.#available > 0) this.#start(bio);
      else bioEndWith(bio, BLK_STS_AGAIN);
      return;
    }
    this.#waiting.push(bio);
    // Going to sleep: what is held back holds tags.
    this.run();
    blkFlushPlug();
    this.wakeUp();
  }

  /** Gives a request's tag back (kernel: `blk_mq_put_tag`). */
  putTag(rq: Request): void {
    this.#freeTags[this.#freeCount++] = rq.tag;
  }

  /**
   * Lets bios go on that wait for a tag, once there are tags for some of them
   * (kernel: `sbitmap_queue_wake_up`).
   */
  wakeUp(): void {
    // What is started here may end at once and come here again: one loop is enough.
    if (this.#first === this.#waiting.length || this.#waking) return;
    if (this.#available < this.queue.wakeBatch) return;
    this.#waking = true;
    try {
      while (this.#available > 0 && this.#first < this.#waiting.length) {
        this.#start(this.#waiting[this.#first++]!);
      }
    } finally {
      this.#waking = false;
    }
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
    rq.biotail = bio;
    rq.nrRanges = 1;
    rq.nrSegs = bio.nrSegs;
    rq.flushSeq = 0;
    const { device, stats } = this.queue;
    const now = device.clock.now();
    rq.startTime = now;
    stats.start(now);
    if (blockTracer !== null) traceBlockBio("block_getrq", bio);
    if ((bio.flags & BIO_ZONE_WRITE_PLUGGING) !== 0) {
      blkZoneWritePlugInitRequest(rq);
    }
    if (opIsFlush(rq.opf) && insertFlush(rq)) return;
    if (plug.depth > 0) blkAddRqToPlug(rq);
    else this.send(rq, now);
  }

  /** Hands a new request to the driver, or lets it wait behind others (kernel:
   * the end of `blk_mq_submit_bio`). */
  send(rq: Request, now: number): void {
    const { queue } = this;
    const wait = queue.quiesceDepth > 0 ||
      (this.#busy > 0 && (queue.hctxs.length === 1 || !opIsSync(rq.opf)));
    if (wait) {
      this.software.push(rq);
      if (blockTracer !== null) traceBlockRq("block_rq_insert", rq);
      this.run();
    } else if (!this.#issue(rq, true, now)) this.dispatch.push(rq);
  }

  /** Hands a batch of this queue's requests to the driver: one doorbell (kernel:
   * `blk_mq_issue_direct`). */
  sendAll(batch: RequestList): void {
    const now = this.queue.device.clock.now();
    let stopped = this.queue.quiesceDepth > 0;
    for (let rq = batch.shift(); rq !== null; rq = batch.shift()) {
      if (stopped) this.software.push(rq);
      else if (!this.#issue(rq, batch.first === null, now)) {
        this.dispatch.push(rq);
        stopped = true;
      }
    }
    this.#commit();
  }

  /** Hands what waits to the driver (kernel: `blk_mq_run_hw_queue`). */
  run(): void {
    if (this.dispatch.first === null && this.software.first === null) return;
    if (this.#running || this.queue.quiesceDepth > 0) return;
    this.#running = true;
    const now = this.queue.device.clock.now();
    try {
      if (this.#serve(this.dispatch, now)) this.#serve(this.software, now);
    } finally {
      this.#running = false;
    }
  }

  /** Hands over what is on a list until the driver takes no more (kernel:
   * `blk_mq_dispatch_rq_list`); whether it has taken all. */
  #serve(list: RequestList, now: number): boolean {
    let more = true;
    for (let rq = list.shift(); rq !== null; rq = list.shift()) {
      more = this.#issue(rq, list.first === null, now);
      if (more) continue;
      this.dispatch.unshift(rq);
      break;
    }
    this.#commit();
    return more;
  }

  #commit(): void {
    if (!this.#uncommitted) return;
    this.#uncommitted = false;
    this.queue.ops.commitRqs?.(this);
  }

  /**
   * Hands a request to the driver (kernel: `__blk_mq_issue_directly`).
   *
   * @returns False if the driver cannot take it now: it is to be kept.
   */
  #issue(rq: Request, last: boolean, now: number): boolean {
    const { queue } = this;
    rq.state = MQ_RQ_IN_FLIGHT;
    rq.deadline = now + queue.timeout;
    queue.issued++;
    if ((rq.opf & REQ_POLLED) !== 0) this.#setCookie(rq);
    if (blockTracer !== null) traceBlockRq("block_rq_issue", rq);
    const status = queue.ops.queueRq(rq, last);
    if (status === BLK_STS_OK) {
      this.#uncommitted = !last;
      // The driver is as busy as it was seven eighths of the time.
      if (this.#busy > 0) this.#busy = (this.#busy * 7) >> 3;
      queue.timer.watch();
      return true;
    }
    rq.state = MQ_RQ_IDLE;
    queue.issued--;
    if (status === BLK_STS_RESOURCE || status === BLK_STS_DEV_RESOURCE) {
      this.#driverBusy(status);
      return false;
    }
    blkMqEndRequest(rq, status);
    return true;
  }

  #driverBusy(status: number): void {
    this.#busy = (this.#busy * 7 + 16) >> 3;
    // With nothing under way no completion will run the queue.
    if (status === BLK_STS_RESOURCE || this.queue.issued === 0) {
      this.runLater(BLK_MQ_RESOURCE_DELAY);
    } else this.queue.starved = true;
  }

  /** Runs the queue after some time (kernel: `blk_mq_delay_run_hw_queue`). */
  runLater(ns: number): void {
    if (this.#rerun !== 0) return;
    const { clock } = this.queue.device;
    this.#rerun = clock.at(clock.now() + ns, rerun, this);
  }

  /** Forgets {@linkcode runLater}. */
  stop(): void {
    if (this.#rerun !== 0) this.queue.device.clock.cancel(this.#rerun);
    this.#rerun = 0;
  }

  /** The time of {@linkcode runLater} has come. */
  runNow(): void {
    this.#rerun = 0;
    this.run();
  }

  #setCookie(rq: Request): void {
    for (let bio = rq.bio; bio !== null; bio = bio.next) {
      bio.cookie = this.index;
    }
  }

  /** Calls `fn` with each request that the driver has. */
  forEachIssued(fn: (rq: Request) => void): void {
    for (const rq of this.#requests) {
      if (rq !== undefined && rq.state === MQ_RQ_IN_FLIGHT) fn(rq);
    }
    const flush = this.flush.request;
    if (flush !== null && flush.state === MQ_RQ_IN_FLIGHT) fn(flush);
  }
}

function rerun(hctx: HwQueue): void {
  hctx.runNow();
}

/** The hardware queues for one kind of I/O (kernel: `struct blk_mq_queue_map`). */
class QueueMap {
  readonly #hctxs: readonly HwQueue[];
  #next = 0;
  /** The plug that the last bio was under. */
  #plug = 0;

  constructor(hctxs: readonly HwQueue[]) {
    this.#hctxs = hctxs;
  }

  /** Queue of the next bio: each in turn, as if from the next CPU; but what is
   * under one plug comes from one. */
  next(): HwQueue {
    const hctxs = this.#hctxs;
    if (hctxs.length === 1) return hctxs[0]!;
    if (plug.depth > 0) {
      if (this.#plug === plug.serial) return hctxs[this.#next]!;
      this.#plug = plug.serial;
    }
    if (++this.#next === hctxs.length) this.#next = 0;
    return hctxs[this.#next]!;
  }
}

/** More queues of a kind than any device has: their numbers are of 16 bits. */
const MAX_QUEUES = 65535;

/** What {@linkcode RequestQueue} is made with. */
export interface RequestQueueOptions {
  /** Hardware queues for all but polled I/O, or for all but that and reads; at least 1. */
  queues: number;
  /** Tags of each, 1 to 10240. */
  depth: number;
  /** Hardware queues for reads; none if absent: reads share `queues`. */
  readQueues?: number;
  /** Hardware queues for polled I/O; none if absent: there is no polled I/O. */
  pollQueues?: number;
  /** How long a request may take, nanoseconds; 30 s if absent. */
  timeout?: number;
}

/** All of a device's hardware queues (kernel: `struct request_queue`). */
export class RequestQueue {
  /** The device. */
  readonly device: BlockDevice;
  /** Its driver. */
  readonly ops: BlkMqOps;
  /** Its hardware queues: those of type DEFAULT, then READ, then POLL. */
  readonly hctxs: readonly HwQueue[];
  /** What it has done. */
  readonly stats: DiskStats = new DiskStats();
  /** How long a request may take, nanoseconds. */
  readonly timeout: number;
  /** Looks for requests whose time is over. */
  readonly timer: TimeoutTimer;
  /** Tags of each hardware queue. */
  readonly depth: number;
  /** Tags that may be in use at once; see {@linkcode blkMqUpdateNrRequests}. */
  nrRequests: number;
  /** Free tags that bios in line wait for, of each hardware queue. */
  wakeBatch: number;
  /**
   * Whether bios are merged (kernel: `nomerges`): 2 turns that off; 1 turns off
   * what only a scheduler would try, so there being none it is as 0.
   */
  nomerges: 0 | 1 | 2 = 0;
  /** Requests that the driver has. */
  issued = 0;
  /** Whether some hardware queue waits for the next completion, on whichever. */
  starved = false;
  /** Times that somebody wants the driver to be left alone. */
  quiesceDepth = 0;
  /** Whether {@linkcode enter} has something to say. */
  closed = false;
  #dead = false;
  #freezeDepth = 0;
  /** Bios that came while the queue was frozen. */
  #frozen: Bio[] = [];
  readonly #drained = new WaitQueue();
  readonly #maps: readonly QueueMap[];
  readonly #canPoll: boolean;

  /**
   * Makes a device's queues (kernel: `blk_mq_alloc_queue`).
   *
   * @param device The device.
   * @param ops Its driver.
   * @param options How many there are.
   * @throws {FsError} EINVAL, naming the number that cannot be.
   */
  constructor(
    device: BlockDevice,
    ops: BlkMqOps,
    options: RequestQueueOptions,
  ) {
    const { queues, depth, readQueues = 0, pollQueues = 0 } = options;
    const { timeout = BLK_MQ_TIMEOUT } = options;
    checkCount("queues", queues, 1, MAX_QUEUES);
    checkCount("readQueues", readQueues, 0, MAX_QUEUES);
    checkCount("pollQueues", pollQueues, 0, MAX_QUEUES);
    checkCount("depth", depth, 1, BLK_MQ_MAX_DEPTH);
    checkCount("timeout", timeout, 1);
    this.device = device;
    device.requestQueue = this;
    this.ops = ops;
    this.timeout = timeout;
    this.depth = depth;
    this.nrRequests = depth;
    this.wakeBatch = wakeBatchOf(depth);
    const end = queues + readQueues;
    this.hctxs = Array.from({ length: end + pollQueues }, (_, i) => {
      const type = i < queues
        ? HCTX_TYPE_DEFAULT
        : i < end
        ? HCTX_TYPE_READ
        : HCTX_TYPE_POLL;
      return new HwQueue(this, i, type, depth);
    });
    const all = new QueueMap(this.hctxs.slice(0, queues));
    this.#maps = [
      all,
      readQueues > 0 ? new QueueMap(this.hctxs.slice(queues, end)) : all,
      pollQueues > 0 ? new QueueMap(this.hctxs.slice(end)) : all,
    ];
    this.#canPoll = pollQueues > 0;
    this.timer = new TimeoutTimer(this);
  }

  /** Whether there is a queue for polled I/O. */
  get canPoll(): boolean {
    return this.#canPoll;
  }

  /** Whether the device is gone (kernel: `GD_DEAD`). */
  get dead(): boolean {
    return this.#dead;
  }

  /** Hardware queue of the next bio (kernel: `blk_mq_map_queue`). */
  mapQueue(opf: number): HwQueue {
    const type = (opf & REQ_POLLED) !== 0
      ? HCTX_TYPE_POLL
      : (opf & REQ_OP_MASK) === REQ_OP_READ
      ? HCTX_TYPE_READ
      : HCTX_TYPE_DEFAULT;
    return this.#maps[type]!.next();
  }

  /**
   * Whether a bio may go on (kernel: `bio_queue_enter`). If not, it has ended
   * (IOERR if the disk is dead, else AGAIN if it must not wait), or waits until
   * the queue is no longer frozen.
   */
  enter(bio: Bio): boolean {
    if (this.#dead) bioEndWith(bio, BLK_STS_IOERR);
    else if (this.#freezeDepth === 0) return true;
    else if ((bio.opf & REQ_NOWAIT) !== 0) bioEndWith(bio, BLK_STS_AGAIN);
    else {
      this.#frozen.push(bio);
      blkFlushPlug();
    }
    return false;
  }

  /** See {@linkcode blkFreezeQueueStart}. */
  freezeStart(): void {
    this.#freezeDepth++;
    this.closed = true;
  }

  /** See {@linkcode blkMqFreezeQueueWait}. */
  freezeWait(): MaybePromise<void> {
    return this.#drained.wait(this.device.clock, this.#idle);
  }

  /** See {@linkcode blkMqUnfreezeQueue}. */
  unfreeze(): void {
    if (--this.#freezeDepth > 0) return;
    this.closed = this.#dead;
    const bios = this.#frozen;
    this.#frozen = [];
    for (const bio of bios) {
      if ((bio.opf & REQ_OP_MASK) >= REQ_OP_DRV_IN) {
        blkExecuteRqNowait(this, bio);
      } else submitBioNoacctNocheck(bio);
    }
  }

  /** See {@linkcode blkMarkDiskDead}. */
  markDead(): void {
    this.#dead = true;
    this.closed = true;
    const bios = this.#frozen;
    this.#frozen = [];
    for (const bio of bios) bioEndWith(bio, BLK_STS_IOERR);
  }

  /** A disk that was dead is there again. */
  revive(): void {
    this.#dead = false;
    this.closed = this.#freezeDepth > 0;
  }

  /** A request has ended while the queue was closed. */
  noteEnd(): void {
    if (this.#idle()) this.#drained.wakeAll();
  }

  readonly #idle = (): boolean => this.hctxs.every((hctx) => hctx.idle);
}

function wakeBatchOf(nrRequests: number): number {
  const part = Math.floor(nrRequests / SBQ_WAIT_QUEUES);
  return Math.min(Math.max(part, 1), SBQ_WAKE_BATCH);
}

/**
 * A multi-queue device's `submit` (kernel: `blk_mq_submit_bio`). Beside what the
 * driver says a bio may end with IOERR (not aligned to logical blocks, or the
 * disk is dead), NOTSUPP (polled, and there is no queue to poll), AGAIN (NOWAIT,
 * and all tags are taken, the queue is frozen, or it needs a split), INVAL
 * (cannot be split to the limits).
 */
export function blkMqSubmitBio(queue: RequestQueue, bio: Bio): void {
  if ((bio.flags & BIO_ZONE_WRITE_PLUGGING) !== 0) {
    // It has been here before, and waited in the write plug of its zone.
    return queue.mapQueue(bio.opf).submit(bio);
  }
  if (queue.closed && !queue.enter(bio)) return;
  const { limits } = queue.device;
  const mask = limits.logicalBlockSize - 1;
  // A sector times 512 may pass 2^53; its low bits say as much.
  const sectorMask = limits.logicalBlockSize / SECTOR_SIZE - 1;
  if (((bio.size & mask) | (bio.sector & sectorMask)) !== 0) {
    bioEndWith(bio, BLK_STS_IOERR);
  } else if ((bio.opf & REQ_POLLED) !== 0 && !queue.canPoll) {
    bioEndWith(bio, BLK_STS_NOTSUPP);
  } else if (bioIsEmpty(bio)) bioEndIo(bio);
  else {
    const front = bioSplitToLimits(bio, limits);
    if (front !== null) submitPart(queue, front);
  }
}

function submitPart(queue: RequestQueue, bio: Bio): void {
  const hctx = queue.mapQueue(bio.opf);
  if (queue.nomerges !== 2 && blkMqAttemptBioMerge(hctx, bio)) return;
  const { zones } = queue.device;
  if (zones !== null && blkZonePlugBio(zones, bio)) return;
  hctx.submit(bio);
}

/**
 * Submits a driver's own command (kernel: `blk_execute_rq_nowait`): a bio of
 * operation DRV_IN or DRV_OUT, which `submitBio` refuses. The driver finds the
 * command through `rq.bio.private`. It ends as a bio does: through `endIo`; IOERR
 * if the disk is dead.
 */
export function blkExecuteRqNowait(queue: RequestQueue, bio: Bio): void {
  if (queue.closed && !queue.enter(bio)) return;
  queue.mapQueue(bio.opf).submit(bio);
}

/**
 * A request has ended (kernel: `blk_mq_end_request`): the flush machinery takes
 * its next step, or its bios end, in order, and its tag is free.
 *
 * @param status `BLK_STS_*`.
 * @throws {Error} BUG if it has ended before.
 */
export function blkMqEndRequest(rq: Request, status: number): void {
  if (rq.state === MQ_RQ_IN_FLIGHT) {
    rq.state = MQ_RQ_IDLE;
    const { queue } = rq.hctx;
    if (--queue.issued === 0) queue.timer.rest();
  }
  if (blockTracer !== null) traceBlockRqEnd(rq, status, rq.size);
  if (rq.bio === null) rq.hctx.flush.flushEnd(rq, status);
  else if (rq.flushSeq !== 0) flushDataEnd(rq, status);
  else blkMqFinishRequest(rq, status);
}

/** Ends a request for good. */
export function blkMqFinishRequest(rq: Request, status: number): void {
  const { hctx } = rq;
  const { queue } = hctx;
  const { stats } = queue;
  const now = queue.device.clock.now();
  // An empty flush counts, beside the FLUSH that it causes, as a write of nothing.
  stats.accountDone(rq.opf, rq.size, now - rq.startTime);
  stats.end(now);
  const { bio, zonePlug } = rq;
  rq.bio = null;
  rq.biotail = null;
  rq.zonePlug = null;
  hctx.putTag(rq);
  if (bio!.next === null) endBio(rq, bio!, status);
  else endBios(bio!, status);
  if (zonePlug !== null) blkZoneWritePlugFinish(queue.device, zonePlug);
  if (queue.starved) {
    queue.starved = false;
    blkMqRunHwQueues(queue);
  } else hctx.run();
  hctx.wakeUp();
  if (queue.closed) queue.noteEnd();
}

function endBio(rq: Request, bio: Bio, status: number): void {
  // That of the request has been traced.
  bio.flags &= ~BIO_TRACE_COMPLETION;
  if ((rq.opf & REQ_OP_MASK) === REQ_OP_ZONE_APPEND) bio.sector = rq.sector;
  bioEndWith(bio, status);
}

function endBios(first: Bio, status: number): void {
  let bio: Bio | null = first;
  while (bio !== null) {
    const next: Bio | null = bio.next;
    bio.next = null;
    bio.flags &= ~BIO_TRACE_COMPLETION;
    bioEndWith(bio, status);
    bio = next;
  }
}

/**
 * The first bytes of a request are done (kernel: `blk_update_request`): bios end
 * that lie in them, and the request is what is left. An error is that of every
 * bio which the bytes touch. Part of a ZONE_APPEND is an error.
 *
 * @param bytes More than 0, a multiple of 512.
 * @returns False, with nothing done, if the bytes are all that is left: then
 *   {@linkcode blkMqEndRequest} is to be told.
 */
export function blkUpdateRequest(
  rq: Request,
  status: number,
  bytes: number,
): boolean {
  if (bytes >= rq.size) return false;
  // What of an append has been written where cannot be told.
  const append = (rq.opf & REQ_OP_MASK) === REQ_OP_ZONE_APPEND ||
    (rq.bio!.flags & BIO_EMULATES_ZONE_APPEND) !== 0;
  if (append && status === BLK_STS_OK) status = BLK_STS_IOERR;
  if (blockTracer !== null) traceBlockRqEnd(rq, status, bytes);
  rq.hctx.queue.stats.accountBytes(rq.opf, bytes);
  rq.size -= bytes;
  rq.sector += bytes / SECTOR_SIZE;
  for (let left = bytes; left > 0;) {
    const bio = rq.bio!;
    const step = Math.min(left, bio.size);
    left -= step;
    if (bio.status === BLK_STS_OK) bio.status = status;
    bio.flags &= ~BIO_TRACE_COMPLETION;
    if (step < bio.size) bioAdvance(bio, step);
    else {
      rq.bio = bio.next;
      bio.next = null;
      bioEndIo(bio);
    }
  }
  return true;
}

/**
 * Puts a request that the driver has back, to be handed to it again (kernel:
 * `blk_mq_requeue_request`, `blk_mq_delay_kick_requeue_list`).
 *
 * @param delay Nanoseconds to wait before.
 */
export function blkMqRequeueRequest(rq: Request, delay = 0): void {
  const { hctx } = rq;
  const { queue } = hctx;
  rq.state = MQ_RQ_IDLE;
  if (--queue.issued === 0) queue.timer.rest();
  if (blockTracer !== null) traceBlockRequeue(rq);
  const { clock } = queue.device;
  clock.at(clock.now() + delay, insertRequeued, rq);
}

function insertRequeued(rq: Request): void {
  rq.hctx.dispatch.push(rq);
  rq.hctx.run();
}

/** Hands what waits on any hardware queue to the driver (kernel: `blk_mq_run_hw_queues`). */
export function blkMqRunHwQueues(queue: RequestQueue): void {
  for (const hctx of queue.hctxs) hctx.run();
}

/** Calls `fn` with each request that the driver has (kernel: `blk_mq_tagset_busy_iter`). */
export function blkMqTagsetBusyIter(
  queue: RequestQueue,
  fn: (rq: Request) => void,
): void {
  for (const hctx of queue.hctxs) hctx.forEachIssued(fn);
}

/**
 * Looks for completions on a poll queue (kernel: `blk_mq_poll`); a frozen queue
 * can be polled, or it could not drain.
 *
 * @param cookie Of a bio: -1 if it has none.
 * @returns Completions found.
 */
export function blkMqPoll(queue: RequestQueue, cookie: number): number {
  const hctx = queue.hctxs[cookie];
  if (hctx === undefined || hctx.type !== HCTX_TYPE_POLL) return 0;
  return queue.ops.poll?.(hctx) ?? 0;
}

/**
 * Sets how many requests there may be on each hardware queue (kernel:
 * `blk_mq_update_nr_requests`, sysfs `nr_requests`).
 *
 * @returns 0; -EINVAL if there are not as many tags, or `nr` is no number from 1 on.
 */
export function blkMqUpdateNrRequests(queue: RequestQueue, nr: number): number {
  if (!(Number.isInteger(nr) && nr >= 1 && nr <= queue.depth)) return -EINVAL;
  queue.nrRequests = nr;
  queue.wakeBatch = wakeBatchOf(nr);
  for (const hctx of queue.hctxs) hctx.wakeUp();
  return 0;
}

/**
 * Lets no more bios in (kernel: `blk_freeze_queue_start`): those that come wait,
 * or end with AGAIN if they carry NOWAIT. Nests.
 */
export function blkFreezeQueueStart(queue: RequestQueue): void {
  queue.freezeStart();
}

/** Waits until nothing is under way in a queue that lets no more in (kernel:
 * `blk_mq_freeze_queue_wait`). */
export function blkMqFreezeQueueWait(queue: RequestQueue): MaybePromise<void> {
  return queue.freezeWait();
}

/** Lets no more bios in and waits until all that are in have ended (kernel:
 * `blk_mq_freeze_queue`). */
export function blkMqFreezeQueue(queue: RequestQueue): MaybePromise<void> {
  queue.freezeStart();
  return queue.freezeWait();
}

/** Undoes one {@linkcode blkFreezeQueueStart}; after the last, those that waited
 * go on in order (kernel: `blk_mq_unfreeze_queue`). */
export function blkMqUnfreezeQueue(queue: RequestQueue): void {
  queue.unfreeze();
}

/** Hands nothing to the driver any more (kernel: `blk_mq_quiesce_queue`). Nests. */
export function blkMqQuiesceQueue(queue: RequestQueue): void {
  queue.quiesceDepth++;
}

/** Undoes one {@linkcode blkMqQuiesceQueue} (kernel: `blk_mq_unquiesce_queue`). */
export function blkMqUnquiesceQueue(queue: RequestQueue): void {
  if (--queue.quiesceDepth === 0) blkMqRunHwQueues(queue);
}

/** The queue is not used any more (kernel: `blk_mq_destroy_queue`): nothing of it
 * is left on the clock. */
export function blkMqDestroyQueue(queue: RequestQueue): void {
  queue.timer.stop();
  for (const hctx of queue.hctxs) hctx.stop();
}

/**
 * The device is gone (kernel: `blk_mark_disk_dead`): all bios that come, and
 * those that wait for a frozen queue, end with IOERR. What the driver has, it
 * must end itself.
 */
export function blkMarkDiskDead(queue: RequestQueue): void {
  queue.markDead();
}
