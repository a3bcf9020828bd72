/**
 * The host's side: a request becomes a command, and a completion ends a request.
 * What the device can do is asked of it by Identify.
 *
 * A request's tag is its command identifier. A ring holds one command less than
 * it has slots, and there are as many tags as that: a request with a tag has a
 * slot.
 *
 * Kernel counterpart: drivers/nvme/host/core.c, drivers/nvme/host/pci.c.
 *
 * @module
 */

import type { Bio } from "../bio.ts";
import {
  blkMqEndRequest,
  type BlkMqOps,
  blkMqSubmitBio,
  type Request,
  RequestQueue,
} from "../blk-mq.ts";
import { BadLimit, blkValidateLimits } from "../blk-settings.ts";
import {
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_NOSPC,
  BLK_STS_NOTSUPP,
  BLK_STS_OFFLINE,
  BLK_STS_OK,
  BLK_STS_TARGET,
  REQ_FUA,
  REQ_OP_FLUSH,
  REQ_OP_MASK,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  SECTOR_SIZE,
} from "../blk-types.ts";
import {
  BLK_FEAT_FUA,
  BLK_FEAT_NOWAIT,
  BLK_FEAT_WRITE_CACHE,
  BlockDevice,
  type QueueLimits,
} from "../blkdev.ts";
import type { DiskStats } from "../part-stat.ts";
import type { Clock } from "../../lib/clock.ts";
import { bugOn } from "../../lib/bug.ts";
import type { NvmeController } from "./controller.ts";
import {
  type ControllerIdentity,
  decodeController,
  decodeNamespace,
  type NamespaceIdentity,
  NVME_IDENTIFY_DATA_SIZE,
} from "./identify.ts";
import {
  CQE_WORDS,
  NVME_ADMIN_IDENTIFY,
  NVME_CMD_FLUSH,
  NVME_CMD_READ,
  NVME_CMD_WRITE,
  NVME_CMD_WRITE_ZEROES,
  NVME_ID_CNS_CTRL,
  NVME_ID_CNS_NS,
  NVME_NSID,
  NVME_RW_FUA,
  NVME_SC_CAP_EXCEEDED,
  NVME_SC_INVALID_FIELD,
  NVME_SC_INVALID_NS,
  NVME_SC_INVALID_OPCODE,
  NVME_SC_LBA_RANGE,
  NVME_SC_READ_ERROR,
  NVME_SC_SUCCESS,
  NVME_SC_WRITE_FAULT,
  NVME_STATUS_DNR,
  SQE_WORDS,
} from "./nvme.ts";
import type { QueuePair } from "./queue.ts";

/** Blocks of a command's 16-bit count. */
const MAX_BLOCKS = 65536;
/** Most the driver sends in one command, 8 MiB (kernel: `NVME_MAX_KB_SZ`). */
const MAX_SECTORS = 8192 * 1024 / SECTOR_SIZE;
/** Most segments of one command (kernel: `NVME_MAX_SEGS`). */
const MAX_SEGMENTS = 128;

/** The host's side of one queue (kernel: `struct nvme_queue`). */
class NvmeQueue {
  readonly controller: NvmeController;
  readonly pair: QueuePair;
  /** Requests under way, by command identifier. */
  readonly requests: (Request | null)[] = [];
  #sqTail = 0;
  #cqHead = 0;
  /** Phase of a completion that is new. */
  #phase = 1;
  #reaping = false;

  constructor(controller: NvmeController, pair: QueuePair) {
    this.controller = controller;
    this.pair = pair;
    pair.onInterrupt = () => this.reap();
  }

  /** Sends a request's command. */
  submit(rq: Request, blockSize: number): void {
    const { pair } = this;
    const { tag, bio } = rq;
    this.requests[tag] = rq;
    pair.memory[tag] = bio;
    fillCommand(pair.sq, this.#sqTail * SQE_WORDS, rq, blockSize);
    this.#sqTail = pair.next(this.#sqTail);
    this.controller.ringSq(pair.qid, this.#sqTail);
  }

  /** Takes new completions (kernel: `nvme_poll_cq`). */
  reap(): void {
    // A request that ends may lead to another that is done at once.
    if (this.#reaping) return;
    this.#reaping = true;
    const { cq, qid } = this.pair;
    for (;;) {
      const word = cq[this.#cqHead * CQE_WORDS + 3]!;
      if (((word >>> 16) & 1) !== this.#phase) break;
      this.#cqHead = this.pair.next(this.#cqHead);
      if (this.#cqHead === 0) this.#phase ^= 1;
      this.#end(word & 0xffff, word >>> 17);
    }
    this.#reaping = false;
    this.controller.ringCq(qid, this.#cqHead);
  }

  /** Ends everything under way, for the device is gone. */
  failAll(): void {
    for (let cid = 0; cid < this.requests.length; cid++) {
      const rq = this.requests[cid];
      if (rq) this.#take(cid, rq, BLK_STS_OFFLINE);
    }
  }

  #end(cid: number, status: number): void {
    const rq = this.requests[cid];
    if (!rq) throw new Error(`BUG: completion of idle command ${cid}`);
    this.#take(cid, rq, nvmeErrorStatus(status));
  }

  #take(cid: number, rq: Request, status: number): void {
    this.requests[cid] = null;
    this.pair.memory[cid] = null;
    blkMqEndRequest(rq, status);
  }
}

/** Writes a request into a submission entry (kernel: `nvme_setup_cmd`). */
function fillCommand(
  sq: Uint32Array,
  at: number,
  rq: Request,
  blockSize: number,
): void {
  const op = rq.opf & REQ_OP_MASK;
  sq[at] = opcodeOf(op) | (rq.tag << 16);
  sq[at + 1] = NVME_NSID;
  if (op === REQ_OP_FLUSH) return;
  const slba = rq.sector / (blockSize / SECTOR_SIZE);
  sq[at + 10] = slba;
  sq[at + 11] = slba / 2 ** 32;
  const fua = (rq.opf & REQ_FUA) !== 0 ? NVME_RW_FUA : 0;
  sq[at + 12] = (rq.size / blockSize - 1) | fua;
}

function opcodeOf(op: number): number {
  switch (op) {
    case REQ_OP_READ:
      return NVME_CMD_READ;
    case REQ_OP_WRITE:
      return NVME_CMD_WRITE;
    case REQ_OP_FLUSH:
      return NVME_CMD_FLUSH;
    default:
      bugOn(op !== REQ_OP_WRITE_ZEROES, `no command for operation ${op}`);
      return NVME_CMD_WRITE_ZEROES;
  }
}

/** Block status of a command's status (kernel: `nvme_error_status`). */
export function nvmeErrorStatus(status: number): number {
  switch (status & ~NVME_STATUS_DNR) {
    case NVME_SC_SUCCESS:
      return BLK_STS_OK;
    case NVME_SC_CAP_EXCEEDED:
      return BLK_STS_NOSPC;
    case NVME_SC_LBA_RANGE:
      return BLK_STS_TARGET;
    case NVME_SC_INVALID_OPCODE:
    case NVME_SC_INVALID_FIELD:
    case NVME_SC_INVALID_NS:
      return BLK_STS_NOTSUPP;
    case NVME_SC_WRITE_FAULT:
    case NVME_SC_READ_ERROR:
      return BLK_STS_MEDIUM;
    default:
      return BLK_STS_IOERR;
  }
}

/** An NVMe namespace as a block device, with the controller that it belongs to. */
export class NvmeDevice extends BlockDevice implements BlkMqOps {
  /** Its name. */
  override readonly name = "nvme0n1";
  /** Tells the time that its commands take. */
  override readonly clock: Clock;
  /** What it can do in one request. */
  override readonly limits: QueueLimits;
  /** Size in 512-byte sectors. */
  override readonly nrSectors: number;
  /** Its number, as Linux gives it to the first such device. */
  override readonly dev: { major: number; minor: number } = {
    major: 259,
    minor: 0,
  };
  /** Whether completed writes can be lost with the power. */
  override readonly writeCache: boolean;
  /** Whether it takes FUA: it does if it has a cache. */
  override readonly fua: boolean;
  /** The device behind it. */
  readonly controller: NvmeController;
  readonly #queue: RequestQueue;
  readonly #hwQueues: NvmeQueue[];
  readonly #blockSize: number;
  #closed = false;

  /**
   * Asks the controller what it is, and makes its I/O queues (kernel: `nvme_probe`).
   *
   * @param clock Time.
   * @param controller The device behind it.
   * @param queues I/O queues, at least 1.
   * @param depth Commands under way in each, 1 to 65535.
   */
  constructor(
    clock: Clock,
    controller: NvmeController,
    queues: number,
    depth: number,
  ) {
    super();
    this.clock = clock;
    this.controller = controller;
    const ctrl = decodeController(identify(controller, NVME_ID_CNS_CTRL));
    const ns = decodeNamespace(identify(controller, NVME_ID_CNS_NS));
    this.limits = deviceLimits(ctrl, ns);
    this.bdi.ioPages = Math.floor(this.limits.maxSectors / 8);
    this.#blockSize = ns.blockSize;
    this.nrSectors = ns.blocks * (ns.blockSize / SECTOR_SIZE);
    this.writeCache = (this.limits.features & BLK_FEAT_WRITE_CACHE) !== 0;
    this.fua = (this.limits.features & BLK_FEAT_FUA) !== 0;
    this.#queue = new RequestQueue(this, this, queues, depth);
    this.#hwQueues = this.#queue.hctxs.map(() =>
      new NvmeQueue(controller, controller.createQueue(depth + 1))
    );
  }

  /** What it has done, for "Disk stats". */
  get stats(): DiskStats {
    return this.#queue.stats;
  }

  /** Takes a bio; used by `submitBio` (kernel: `blk_mq_submit_bio`). */
  override submit(bio: Bio): void {
    blkMqSubmitBio(this.#queue, bio);
  }

  /** Takes a request; used by the block layer (kernel: `nvme_queue_rq`). */
  queueRq(rq: Request): number {
    if (this.#closed) return BLK_STS_OFFLINE;
    this.#hwQueues[rq.hctx.index]!.submit(rq, this.#blockSize);
    return BLK_STS_OK;
  }

  /**
   * Shuts the device down and closes its media. What has completed is durable
   * then; bios under way, and all that come later, end with `BLK_STS_OFFLINE`.
   * Closing again does nothing.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.controller.shutdown();
    for (const queue of this.#hwQueues) queue.failAll();
  }

  /** Closes it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** Asks a controller to describe itself or its namespace. */
function identify(controller: NvmeController, cns: number): Uint8Array {
  const data = new Uint8Array(NVME_IDENTIFY_DATA_SIZE);
  const pair = controller.adminQueue;
  const vecs = [{ data, offset: 0, len: data.length }];
  pair.memory[cns] = { vecs, vecIndex: 0, vecDone: 0 };
  // Entry and command identifier `cns`: each is asked for once, in order.
  const at = cns * SQE_WORDS;
  pair.sq[at] = NVME_ADMIN_IDENTIFY | (cns << 16);
  pair.sq[at + 1] = NVME_NSID;
  pair.sq[at + 10] = cns;
  controller.ringSq(0, cns + 1);
  return data;
}

/** Queue limits of a namespace (kernel: `nvme_set_ctrl_limits`, `nvme_update_disk_info`). */
function deviceLimits(
  ctrl: ControllerIdentity,
  ns: NamespaceIdentity,
): QueueLimits {
  const mdts = ctrl.mdts === 0 ? Infinity : 2 ** ctrl.mdts * 4096 / SECTOR_SIZE;
  const perBlock = ns.blockSize / SECTOR_SIZE;
  const limits = blkValidateLimits({
    features: BLK_FEAT_NOWAIT |
      (ctrl.vwc ? BLK_FEAT_WRITE_CACHE | BLK_FEAT_FUA : 0),
    logicalBlockSize: ns.blockSize,
    physicalBlockSize: ns.writeUnit,
    maxHwSectors: Math.min(mdts, MAX_SECTORS, MAX_BLOCKS * perBlock),
    maxSegments: MAX_SEGMENTS,
    virtBoundaryMask: 4095,
    dmaAlignment: 3,
    maxWriteZeroesSectors: ctrl.writeZeroes ? MAX_BLOCKS * perBlock : 0,
  });
  if (limits instanceof BadLimit) {
    throw new Error(`BUG: limit ${limits.field} of ${limits.value}`);
  }
  return limits;
}
