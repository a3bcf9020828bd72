/**
 * A multi-queue device for tests of the block layer: it moves no bytes, notes
 * what reaches it, and takes and answers what the test says.
 *
 * @module
 */

import {
  BadLimit,
  Bio,
  BLK_FEAT_FUA,
  BLK_FEAT_NOWAIT,
  BLK_FEAT_WRITE_CACHE,
  BLK_STS_OK,
  blkMqEndRequest,
  type BlkMqOps,
  blkMqPoll,
  blkMqSubmitBio,
  blkValidateLimits,
  BlockDevice,
  HCTX_TYPE_POLL,
  type HwQueue,
  type QueueLimits,
  REQ_FUA,
  REQ_OP_DISCARD,
  REQ_OP_FLUSH,
  REQ_OP_READ,
  REQ_OP_SECURE_ERASE,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  reqOp,
  type Request,
  RequestQueue,
  submitBio,
} from "../../block/mod.ts";
import { type Clock, USEC, VirtualClock } from "../../lib/clock.ts";

/** Limits, or a failed test. */
export function limits(given: Partial<QueueLimits>): QueueLimits {
  const lim = blkValidateLimits(given);
  if (lim instanceof BadLimit) throw new Error(`bad limit ${lim.field}`);
  return lim;
}

export interface FakeOptions {
  /** Beside the defaults: LBS 512, physical 4096, one large segment. */
  limits?: Partial<QueueLimits>;
  /** Absent: a cache and FUA. */
  cache?: "none" | "no-fua";
  queues?: number;
  depth?: number;
  nrSectors?: number;
  /** How long a command takes, ns; 0 ends it within the submission. Absent: write 10 us, FLUSH 100 us. */
  time?: (rq: Request) => number;
  /** What it ends with. */
  status?: (rq: Request) => number;
  readQueues?: number;
  /** Requests on these end when they are polled. */
  pollQueues?: number;
  /** What the driver answers; absent: it takes everything. */
  take?: (rq: Request) => number;
  /** Absent: the driver knows no timeouts. */
  timeout?: (rq: Request) => "done" | "reset-timer";
}

export class FakeDevice extends BlockDevice {
  override readonly name = "fake0";
  override readonly clock: Clock;
  override limits: QueueLimits;
  override readonly nrSectors: number;
  override readonly dev = { major: 259, minor: 0 };
  readonly queue: RequestQueue;
  /** What reached the driver: operation, sector + sectors, time in us. */
  readonly log: string[] = [];
  /** Times that the driver was told to begin. */
  doorbells = 0;
  /** Times that the driver was asked to look. */
  polls = 0;
  readonly #options: FakeOptions;
  /** Polled requests that the device has done. */
  readonly #done: Request[] = [];

  constructor(options: FakeOptions = {}, clock: Clock = new VirtualClock()) {
    super();
    this.clock = clock;
    this.#options = options;
    const cache = options.cache === "none" ? 0 : BLK_FEAT_WRITE_CACHE;
    const fua = options.cache === undefined ? BLK_FEAT_FUA : 0;
    this.limits = limits({
      features: BLK_FEAT_NOWAIT | cache | fua,
      physicalBlockSize: 4096,
      maxSegmentSize: 0xffff_ffff,
      maxHwSectors: 0xffff_ffff,
      dmaAlignment: 3,
      ...options.limits,
    });
    this.nrSectors = options.nrSectors ?? 2 ** 21;
    const { queues = 1, depth = 1024, readQueues = 0, pollQueues = 0 } =
      options;
    const { timeout } = options;
    const ops: BlkMqOps = {
      queueRq: (rq, last) => this.#queueRq(rq, last),
      commitRqs: () => void this.doorbells++,
      poll: (hctx) => this.#reap(hctx),
      ...(timeout && { timeout }),
    };
    this.queue = new RequestQueue(this, ops, {
      queues,
      depth,
      readQueues,
      pollQueues,
    });
  }

  override submit(bio: Bio): void {
    blkMqSubmitBio(this.queue, bio);
  }

  override poll(cookie: number): number {
    return blkMqPoll(this.queue, cookie);
  }

  #queueRq(rq: Request, last: boolean): number {
    const status = this.#options.take?.(rq) ?? BLK_STS_OK;
    if (status !== BLK_STS_OK) return status;
    if (last) this.doorbells++;
    const name = OPS.get(reqOp(rq.opf)) ?? `op${reqOp(rq.opf)}`;
    const flags = (rq.opf & REQ_FUA) !== 0 ? "+FUA" : "";
    const range = rq.bio === null ? "" : ` ${rq.sector}+${rq.size / 512}`;
    this.log.push(`${name}${flags}${range} @${this.clock.now() / USEC}`);
    const time = (this.#options.time ?? usual)(rq);
    if (time === 0) this.#complete(rq);
    else if (time < Infinity) {
      this.clock.at(
        this.clock.now() + time,
        (r: Request) => this.#complete(r),
        rq,
      );
    }
    return BLK_STS_OK;
  }

  #complete(rq: Request): void {
    if (rq.hctx.type === HCTX_TYPE_POLL) this.#done.push(rq);
    else this.end(rq);
  }

  /** Takes what is done of a polled queue. */
  #reap(hctx: HwQueue): number {
    this.polls++;
    const done = this.#done.filter((rq) => rq.hctx === hctx);
    for (const rq of done) {
      this.#done.splice(this.#done.indexOf(rq), 1);
      this.end(rq);
    }
    return done.length;
  }

  /** Ends a request. */
  end(rq: Request): void {
    blkMqEndRequest(rq, this.#options.status?.(rq) ?? BLK_STS_OK);
  }
}

const OPS = new Map([
  [REQ_OP_READ, "READ"],
  [REQ_OP_WRITE, "WRITE"],
  [REQ_OP_FLUSH, "FLUSH"],
  [REQ_OP_DISCARD, "DISCARD"],
  [REQ_OP_SECURE_ERASE, "SECURE_ERASE"],
  [REQ_OP_WRITE_ZEROES, "WRITE_ZEROES"],
]);

function usual(rq: Request): number {
  return rq.bio === null ? 100 * USEC : 10 * USEC;
}

/** How a bio ended. */
export interface Ended {
  status: number;
  /** When, us. */
  at: number;
  /** How many times; must be 1 once all is done. */
  times: number;
}

/** Submits a bio and notes how it ends; `times` is 0 until then. */
export function submit(bio: Bio): Ended {
  const ended: Ended = { status: -1, at: -1, times: 0 };
  bio.endIo = (done) => {
    ended.status = done.status;
    ended.at = bio.bdev.clock.now() / USEC;
    ended.times++;
  };
  submitBio(bio);
  return ended;
}

/** A bio over memory of its own, in one piece. */
export function makeBio(
  bdev: BlockDevice,
  opf: number,
  sector: number,
  sectors: number,
): Bio {
  const bio = new Bio(bdev, opf);
  bio.sector = sector;
  if (sectors > 0) bio.addData(new Uint8Array(sectors * 512), 0, sectors * 512);
  return bio;
}

/** Runs the clock until nothing is left to do. */
export function settle(clock: Clock): void {
  clock.runUntil(() => false);
}
