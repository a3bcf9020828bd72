/**
 * The driver's part between the block layer's queues and the controller's: what is
 * sent, what becomes of what has failed, and what is done about what does not end.
 *
 * What fails is sent again unless the device says that it would fail again. A
 * command that does not end is aborted, and if that does not help the controller is
 * reset: then everything under way is sent again.
 *
 * Kernel counterpart: drivers/nvme/host/pci.c, drivers/nvme/host/core.c.
 *
 * @module
 */

import {
  blkMarkDiskDead,
  blkMqEndRequest,
  type BlkMqOps,
  blkMqRequeueRequest,
  blkMqRunHwQueues,
  HCTX_TYPE_POLL,
  type HwQueue,
  type Request,
  RequestQueue,
} from "../blk-mq.ts";
import {
  BLK_STS_IOERR,
  BLK_STS_OFFLINE,
  BLK_STS_OK,
  REQ_OP_DRV_IN,
  REQ_OP_MASK,
  REQ_OP_ZONE_APPEND,
  SECTOR_SIZE,
} from "../blk-types.ts";
import type { BlockDevice, QueueLimits } from "../blkdev.ts";
import { MSEC } from "../../lib/clock.ts";
import type { NvmeController } from "./controller.ts";
import { NvmeAdmin, nvmeIdentify, nvmeSetupIoQueues } from "./host-admin.ts";
import {
  nvmeErrorStatus,
  type NvmeNamespace,
  nvmeShallRetry,
  type PassthruCommand,
} from "./host-cmd.ts";
import { nvmeHasDeac, type NvmeIdentity } from "./host-limits.ts";
import { NvmeQueue, type NvmeQueueOwner } from "./host-queue.ts";
import {
  NVME_ADMIN_ABORT_CMD,
  NVME_SC_HOST_ABORTED_CMD,
  NVME_SC_SUCCESS,
  NVME_STATUS_CRD,
} from "./nvme.ts";

/** Unit of a retry delay, nanoseconds. */
const CRD_UNIT = 100 * MSEC;
/** Where CRD lies in a status. */
const CRD_SHIFT = 11;
/** Instead of a count of retries: the device that it was to be sent to again is gone. */
const LOST = 255;

/** Queues of a device. */
export interface NvmeQueueCounts {
  /** For what has no queue of its own. */
  queues: number;
  /** For reads. */
  readQueues: number;
  /** For polled I/O. */
  pollQueues: number;
  /** Commands under way in each. */
  depth: number;
}

/** How it is (kernel: `enum nvme_ctrl_state`). */
export type NvmeState = "live" | "dead" | "closed";

/** A request with the queue that it was under way on. */
type Taken = [NvmeQueue, Request];

/** The driver of one controller (kernel: `struct nvme_dev`). */
export class NvmeDriver implements BlkMqOps, NvmeQueueOwner {
  /** The device. */
  readonly controller: NvmeController;
  /** Its admin queue. */
  readonly admin: NvmeAdmin;
  /** The block layer's queues. */
  readonly queue: RequestQueue;
  /** What commands depend on; known once it has been identified. */
  namespace: NvmeNamespace = { blockSize: SECTOR_SIZE, deac: false };
  readonly #bdev: BlockDevice;
  /** By index of the block layer's queue; numbers at the device begin at 1. */
  readonly #queues: NvmeQueue[];
  /** Retry delays that a status may select, nanoseconds. */
  #retryDelays: number[] = [];
  #state: NvmeState = "dead";
  /** How often it has been given up. */
  #stops = 0;

  /**
   * A driver that has not started.
   *
   * @param bdev The block device.
   * @param controller The device behind it.
   * @param counts Its queues.
   */
  constructor(
    bdev: BlockDevice,
    controller: NvmeController,
    counts: NvmeQueueCounts,
  ) {
    this.#bdev = bdev;
    this.controller = controller;
    this.admin = new NvmeAdmin(controller);
    this.queue = new RequestQueue(bdev, this, counts);
    this.queue.stats.lateness = bdev.clock.lateness;
    this.#queues = this.queue.hctxs.map((hctx) => {
      const polled = hctx.type === HCTX_TYPE_POLL;
      return new NvmeQueue(this, hctx.index + 1, counts.depth, polled);
    });
  }

  /** Limits in force. */
  get limits(): QueueLimits {
    return this.#bdev.limits;
  }

  /** How it is. */
  get state(): NvmeState {
    return this.#state;
  }

  /**
   * Enables the controller, asks it what it is, and creates the I/O queues (kernel:
   * `nvme_reset_work`).
   *
   * @returns What it said of itself; null if it does not answer.
   */
  start(): NvmeIdentity | null {
    const identity = this.admin.enable() ? this.identify() : null;
    if (identity === null) return null;
    if (!nvmeSetupIoQueues(this.controller, this.admin, this.#queues)) {
      return null;
    }
    this.#state = "live";
    this.queue.revive();
    return identity;
  }

  /** Asks the device what it is, and goes by that; null if it does not answer. */
  identify(): NvmeIdentity | null {
    const identity = nvmeIdentify(this.admin);
    if (identity === null) return null;
    const { ns, ctrl } = identity;
    this.namespace = { blockSize: ns.blockSize, deac: nvmeHasDeac(ns) };
    this.#retryDelays = ctrl.crdt.map((units) => units * CRD_UNIT);
    return identity;
  }

  /** Takes a request (kernel: `nvme_queue_rq`). */
  queueRq(rq: Request, last: boolean): number {
    const queue = this.#queues[rq.hctx.index]!;
    if (this.#state === "live" && queue.retries[rq.tag] !== LOST) {
      return queue.submit(rq, last);
    }
    queue.retries[rq.tag] = 0;
    return this.#state === "closed" ? BLK_STS_OFFLINE : BLK_STS_IOERR;
  }

  /** Rings for requests that were taken without (kernel: `nvme_commit_rqs`). */
  commitRqs(hctx: HwQueue): void {
    this.#queues[hctx.index]!.commit();
  }

  /** Takes new completions of a queue (kernel: `nvme_poll`). */
  poll(hctx: HwQueue): number {
    return this.#queues[hctx.index]!.poll();
  }

  /** A command has ended (kernel: `nvme_complete_rq`). */
  complete(
    queue: NvmeQueue,
    rq: Request,
    status: number,
    low: number,
    high: number,
  ): void {
    const op = rq.opf & REQ_OP_MASK;
    if (op >= REQ_OP_DRV_IN) {
      const command = rq.bio!.private as PassthruCommand;
      command.status = status;
      command.result = high * 2 ** 32 + low;
    }
    if (status !== NVME_SC_SUCCESS) return this.#failed(queue, rq, status);
    if (op === REQ_OP_ZONE_APPEND) {
      const slba = high * 2 ** 32 + low;
      rq.sector = slba * (this.namespace.blockSize / SECTOR_SIZE);
    }
    queue.retries[rq.tag] = 0;
    blkMqEndRequest(rq, BLK_STS_OK);
  }

  #failed(queue: NvmeQueue, rq: Request, status: number): void {
    const { tag } = rq;
    const retries = queue.retries[tag]!;
    if (
      this.#state === "live" && nvmeShallRetry(status, rq.opf, retries)
    ) {
      queue.retries[tag] = retries + 1;
      const crd = (status & NVME_STATUS_CRD) >>> CRD_SHIFT;
      blkMqRequeueRequest(rq, crd === 0 ? 0 : this.#retryDelays[crd - 1]!);
      return;
    }
    queue.retries[tag] = 0;
    const closed = this.#state === "closed";
    blkMqEndRequest(rq, closed ? BLK_STS_OFFLINE : nvmeErrorStatus(status));
  }

  /**
   * A request has not ended in time (kernel: `nvme_timeout`): its completion is
   * looked for, then it is aborted, and at the next time the controller is reset.
   */
  timeout(rq: Request): "done" | "reset-timer" {
    const queue = this.#queues[rq.hctx.index]!;
    const { tag } = rq;
    const cid = queue.cid(tag);
    const gone = () => !queue.has(rq) || queue.cid(tag) !== cid;
    if (!gone()) queue.poll();
    if (gone()) return "done";
    if (queue.aborted[tag] !== 0) {
      this.reset();
      return "done";
    }
    queue.aborted[tag] = 1;
    this.admin.submit(
      { opcode: NVME_ADMIN_ABORT_CMD, nsid: 0, cdw10: queue.qid | cid << 16 },
      null,
      () => {},
    );
    // Without an interrupt nobody else would look for what that has brought.
    if (queue.polled) queue.poll();
    return gone() ? "done" : "reset-timer";
  }

  /**
   * Resets the controller (kernel: `nvme_reset_ctrl`). What is under way is sent
   * again, or ends with IOERR if it must not be.
   */
  reset(): void {
    if (this.#state !== "live") return;
    for (const queue of this.#queues) queue.poll();
    // Whoever was told of a completion may have closed it, or cut its power.
    if (this.#state !== "live") return;
    const taken = this.#takeAll();
    if (this.start() === null) this.stop("dead");
    this.#cancel(taken);
  }

  /**
   * Gives the device up: what is under way and all that comes ends with IOERR, or
   * OFFLINE if it was closed (kernel: `nvme_mark_namespaces_dead`,
   * `nvme_dev_disable`).
   */
  stop(state: "dead" | "closed"): void {
    this.#state = state;
    this.#stops++;
    if (state === "dead") blkMarkDiskDead(this.queue);
    const taken = this.#takeAll();
    // What waits to be sent again was under way: it must not reach a device that
    // is back by then.
    for (const { retries } of this.#queues) {
      retries.forEach((n, tag) => retries[tag] = n === 0 ? 0 : LOST);
    }
    this.admin.cancel();
    this.#cancel(taken);
    blkMqRunHwQueues(this.queue);
  }

  #takeAll(): Taken[] {
    return this.#queues.flatMap((queue) =>
      queue.reset().map((rq): Taken => [queue, rq])
    );
  }

  /** Ends requests that were under way, or has them sent again. Whoever is told of the
   * first may take the power away and bring it back: the rest must not reach a device
   * that they were not sent to. */
  #cancel(taken: Taken[]): void {
    const stops = this.#state === "live" ? this.#stops : -1;
    for (const [queue, rq] of taken) {
      if (this.#stops !== stops) queue.retries[rq.tag] = LOST;
      this.complete(queue, rq, NVME_SC_HOST_ABORTED_CMD, 0, 0);
    }
  }
}
