/**
 * The host's side of rings: commands are written and rung for, completions taken.
 *
 * A request's tag is the lower part of its command identifier; the upper four bits
 * count, so that a completion that comes too late, of a tag that has been given
 * anew, is told from one that is due. A ring holds one command less than it has
 * slots, and there are as many tags as that: a request with a tag has a slot.
 *
 * Kernel counterpart: drivers/nvme/host/pci.c, drivers/nvme/host/nvme.h.
 *
 * @module
 */

import type { Request } from "../blk-mq.ts";
import { BLK_STS_OK } from "../blk-types.ts";
import type { QueueLimits } from "../blkdev.ts";
import { warnOn } from "../../lib/bug.ts";
import type { NvmeController } from "./controller.ts";
import { nvmeMapData, type NvmeNamespace, nvmeSetupCmd } from "./host-cmd.ts";
import { CQE_WORDS, SQE_WORDS } from "./nvme.ts";
import { CompletionQueue, SubmissionQueue } from "./queue.ts";

/** Bits of a command identifier that are the tag (kernel: `nvme_tag_from_cid`). */
const TAG_BITS = 12;
/** Most tags of a queue that a command identifier can tell apart. */
export const NVME_MAX_DEPTH: number = 2 ** TAG_BITS - 1;

/** Two rings, and how far the host has come in them. */
export class HostRings {
  /** Commands. */
  readonly sq: SubmissionQueue;
  /** Completions. */
  readonly cq: CompletionQueue;
  /** Slot of the next command (kernel: `sq_tail`). */
  sqTail = 0;
  /** What the controller has been told of it (kernel: `last_sq_tail`). */
  #rungTail = 0;
  #cqHead = 0;
  /** Phase of a completion that is new. */
  #phase = 1;

  /**
   * Empty rings.
   *
   * @param qid Number of both; 0 for the admin queue.
   * @param entries Slots of each.
   */
  constructor(qid: number, entries: number) {
    this.sq = new SubmissionQueue(qid, entries);
    this.cq = new CompletionQueue(qid, entries);
  }

  /** The command in the next slot is complete (kernel: `nvme_sq_copy_cmd`). */
  push(): void {
    this.sqTail = this.sqTail + 1 === this.sq.entries ? 0 : this.sqTail + 1;
  }

  /** Whether one more command would end where the last doorbell did, and so be
   * taken for none (kernel: in `nvme_write_sq_db`). */
  get lapped(): boolean {
    const next = this.sqTail + 1 === this.sq.entries ? 0 : this.sqTail + 1;
    return next === this.#rungTail;
  }

  /** Tells the controller of all commands so far (kernel: `nvme_write_sq_db`). */
  ringSq(controller: NvmeController): void {
    if (this.#rungTail === this.sqTail) return;
    this.#rungTail = this.sqTail;
    controller.ringSq(this.sq.qid, this.sqTail);
  }

  /** First word of the next completion, which is taken with this, or -1. */
  take(): number {
    const at = this.#cqHead * CQE_WORDS;
    if (((this.cq.ring[at + 3]! >>> 16) & 1) !== this.#phase) return -1;
    this.#cqHead = this.#cqHead + 1 === this.cq.entries ? 0 : this.#cqHead + 1;
    if (this.#cqHead === 0) this.#phase ^= 1;
    return at;
  }

  /** Tells the controller what has been taken (kernel: `nvme_ring_cq_doorbell`). */
  ringCq(controller: NvmeController): void {
    controller.ringCq(this.cq.qid, this.#cqHead);
  }
}

/** Who has a queue: what its commands depend on, and where they go when they end. */
export interface NvmeQueueOwner {
  /** The device. */
  readonly controller: NvmeController;
  /** The namespace. */
  readonly namespace: NvmeNamespace;
  /** Limits in force. */
  readonly limits: QueueLimits;
  /**
   * A command has ended (kernel: `nvme_complete_rq`).
   *
   * @param status As in the completion.
   * @param low First word of the completion.
   * @param high Its second.
   */
  complete(
    queue: NvmeQueue,
    rq: Request,
    status: number,
    low: number,
    high: number,
  ): void;
}

/** An I/O queue (kernel: `struct nvme_queue`). */
export class NvmeQueue {
  /** Its rings; a reset makes new ones. */
  rings: HostRings;
  /** Whether completions wait to be looked for. */
  readonly polled: boolean;
  readonly #owner: NvmeQueueOwner;
  /** Requests under way, by tag. */
  readonly #requests: (Request | null)[];
  /** Upper part of each tag's last command identifier (kernel: `genctr`). */
  readonly #generations: Uint8Array;
  /** How often each tag's request has been sent again (kernel: `retries`). */
  readonly retries: Uint8Array;
  /** Whether an Abort has been sent for each tag (kernel: `IOD_ABORTED`). */
  readonly aborted: Uint8Array;
  #reaping = false;

  /**
   * A queue that the controller does not know yet.
   *
   * @param owner Who has it.
   * @param qid Its number, from 1.
   * @param depth Commands under way.
   * @param polled Whether it has no interrupt.
   */
  constructor(
    owner: NvmeQueueOwner,
    qid: number,
    depth: number,
    polled: boolean,
  ) {
    this.rings = new HostRings(qid, depth + 1);
    this.polled = polled;
    this.#owner = owner;
    this.#requests = new Array(depth).fill(null);
    this.#generations = new Uint8Array(depth);
    this.retries = new Uint8Array(depth);
    this.aborted = new Uint8Array(depth);
  }

  /** Its number. */
  get qid(): number {
    return this.rings.sq.qid;
  }

  /**
   * Sends a request's command, or leaves the doorbell to
   * {@linkcode NvmeQueue.commit} (kernel: `nvme_queue_rq`).
   *
   * @param last Whether nothing follows at once.
   * @returns `BLK_STS_OK`, or why there is no such command.
   */
  submit(rq: Request, last: boolean): number {
    const { rings } = this;
    const { namespace, limits, controller } = this.#owner;
    const { sq, sqTail } = rings;
    const { tag } = rq;
    const at = sqTail * SQE_WORDS;
    const status = nvmeSetupCmd(sq.ring, at, rq, namespace, limits);
    if (status !== BLK_STS_OK) return status;
    const generation = (this.#generations[tag]! + 1) & 15;
    this.#generations[tag] = generation;
    sq.ring[at]! |= (generation << TAG_BITS | tag) << 16;
    sq.memory[sqTail] = nvmeMapData(rq, namespace.blockSize);
    this.#requests[tag] = rq;
    rings.push();
    if (last || rings.lapped) rings.ringSq(controller);
    return BLK_STS_OK;
  }

  /** Rings for what has been submitted without (kernel: `nvme_commit_rqs`). */
  commit(): void {
    this.rings.ringSq(this.#owner.controller);
  }

  /** The last command identifier of a tag (kernel: `nvme_cid`). */
  cid(tag: number): number {
    return this.#generations[tag]! << TAG_BITS | tag;
  }

  /** Whether a request is under way here. */
  has(rq: Request): boolean {
    return this.#requests[rq.tag] === rq;
  }

  /** The interrupt (kernel: `nvme_irq`). */
  interrupt(): void {
    // A request that ends may lead to another that is done at once: the loop
    // further up takes it.
    if (!this.#reaping) this.poll();
  }

  /** Takes new completions (kernel: `nvme_poll_cq`).
   * @returns How many there were. */
  poll(): number {
    const outer = this.#reaping;
    this.#reaping = true;
    try {
      return this.#reap();
    } finally {
      this.#reaping = outer;
    }
  }

  #reap(): number {
    let found = 0;
    for (let before = -1; before !== found;) {
      before = found;
      // A request that ends may lead to a reset, which makes new rings.
      for (let at = this.rings.take(); at >= 0; at = this.rings.take()) {
        found++;
        this.#handle(at);
      }
      // The room that this gives may bring what the controller had held back.
      if (before !== found) this.rings.ringCq(this.#owner.controller);
    }
    return found;
  }

  /** One completion (kernel: `nvme_handle_cqe`). */
  #handle(at: number): void {
    const { ring } = this.rings.cq;
    const low = ring[at]!;
    const high = ring[at + 1]!;
    const word = ring[at + 3]!;
    const tag = word & (2 ** TAG_BITS - 1);
    const generation = (word & 0xffff) >>> TAG_BITS;
    const rq = this.#requests[tag];
    if (!rq || generation !== this.#generations[tag]) {
      warnOn(true, `nvme: invalid id ${word & 0xffff} on queue ${this.qid}`);
      return;
    }
    this.#requests[tag] = null;
    this.aborted[tag] = 0;
    this.#owner.complete(this, rq, word >>> 17, low, high);
  }

  /**
   * Takes all requests off that are under way, and empties the rings: the
   * controller does not know the queue any more (kernel: `nvme_cancel_tagset`,
   * `nvme_init_queue`).
   */
  reset(): Request[] {
    const taken = this.#requests.filter((rq) => rq !== null);
    this.#requests.fill(null);
    this.aborted.fill(0);
    const { qid, entries } = this.rings.sq;
    this.rings = new HostRings(qid, entries);
    return taken;
  }
}
