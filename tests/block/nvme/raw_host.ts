/**
 * A host that does by hand what the driver does: it writes entries, rings
 * doorbells and reads completions itself.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import {
  type ControllerOptions,
  NvmeController,
} from "../../../block/nvme/controller.ts";
import { MemoryMedia } from "../../../block/nvme/media.ts";
import {
  CQE_WORDS,
  NVME_ADMIN_CREATE_CQ,
  NVME_ADMIN_CREATE_SQ,
  NVME_CC_ENABLE,
  NVME_CC_IOCQES,
  NVME_CC_IOSQES,
  NVME_CQ_IRQ_ENABLED,
  NVME_CSTS_RDY,
  NVME_QUEUE_PHYS_CONTIG,
  NVME_REG_CC,
  NVME_REG_CSTS,
  SQE_WORDS,
} from "../../../block/nvme/nvme.ts";
import { NVME_PRESETS } from "../../../block/nvme/presets.ts";
import {
  CompletionQueue,
  type HostMemory,
  SubmissionQueue,
} from "../../../block/nvme/queue.ts";
import { VirtualClock } from "../../../lib/clock.ts";

export const DNR = 0x4000;

/** Words of a command; word 12 of I/O commands is the number of blocks less one. */
export interface Sqe {
  opcode: number;
  cid?: number;
  /** 1 first, 2 second half of a pair. */
  fuse?: number;
  nsid?: number;
  /** First block: words 10 and 11. */
  slba?: number;
  cdw10?: number;
  cdw11?: number;
  cdw12?: number;
  cdw13?: number;
  cdw14?: number;
  memory?: HostMemory | SubmissionQueue | CompletionQueue | Uint8Array | null;
}

export interface Cqe {
  cid: number;
  status: number;
  phase: number;
  sqHead: number;
  qid: number;
  result: number;
}

/** A buffer as the memory of a command. */
export function memoryOf(data: Uint8Array): HostMemory {
  const vecs = [{ data, offset: 0, len: data.length }];
  return { vecs, vecIndex: 0, vecDone: 0, size: data.length, next: null };
}

/** A pair of rings, or a submission ring that shares another's completion ring. */
export class Ring {
  readonly sq: SubmissionQueue;
  readonly cq: CompletionQueue;
  tail = 0;
  head = 0;
  phase = 1;

  constructor(
    qid: number,
    entries: number,
    cq = new CompletionQueue(qid, entries),
  ) {
    this.sq = new SubmissionQueue(qid, entries);
    this.cq = cq;
  }

  /** Fills the next entry. */
  add(sqe: Sqe): void {
    const { ring, memory, entries } = this.sq;
    const at = this.tail * SQE_WORDS;
    const { slba = 0, fuse = 0, cid = 0, nsid = 1 } = sqe;
    ring.fill(0, at, at + SQE_WORDS);
    ring[at] = sqe.opcode | fuse << 8 | cid << 16;
    ring[at + 1] = nsid;
    ring[at + 10] = sqe.cdw10 ?? slba;
    ring[at + 11] = sqe.cdw11 ?? slba / 2 ** 32;
    ring[at + 12] = sqe.cdw12 ?? 0;
    ring[at + 13] = sqe.cdw13 ?? 0;
    ring[at + 14] = sqe.cdw14 ?? 0;
    const m = sqe.memory ?? null;
    memory[this.tail] = m instanceof Uint8Array ? memoryOf(m) : m;
    this.tail = (this.tail + 1) % entries;
  }

  /** The entry in a slot of the completion ring. */
  cqe(slot: number): Cqe {
    const at = slot * CQE_WORDS;
    const [low = 0, high = 0, dw2 = 0, dw3 = 0] = this.cq.ring
      .subarray(at, at + CQE_WORDS);
    return {
      cid: dw3 & 0xffff,
      status: dw3 >>> 17,
      phase: (dw3 >>> 16) & 1,
      sqHead: dw2 & 0xffff,
      qid: dw2 >>> 16,
      result: high * 2 ** 32 + low,
    };
  }

  /** Takes the completions that are there. */
  take(): Cqe[] {
    const taken: Cqe[] = [];
    for (;;) {
      const cqe = this.cqe(this.head);
      if (cqe.phase !== this.phase) return taken;
      taken.push(cqe);
      this.head = (this.head + 1) % this.cq.entries;
      if (this.head === 0) this.phase ^= 1;
    }
  }
}

/** A controller with its admin queue, enabled. */
export class RawHost {
  readonly clock = new VirtualClock();
  readonly media: MemoryMedia;
  readonly controller: NvmeController;
  admin = new Ring(0, 32);

  constructor(
    options: Partial<ControllerOptions> = {},
    cc = 0,
    size = 2 ** 20,
  ) {
    this.media = new MemoryMedia(size);
    this.controller = new NvmeController(this.clock, {
      preset: NVME_PRESETS.null,
      media: this.media,
      logicalBlockSize: 512,
      seed: 1,
      ...options,
    });
    this.enable(cc);
  }

  /** Enables the controller, with empty admin queues. */
  enable(cc = 0): void {
    const { controller } = this;
    this.admin = new Ring(0, 32);
    controller.setAdminQueues(this.admin.sq, this.admin.cq);
    controller.writeRegister(
      NVME_REG_CC,
      NVME_CC_ENABLE | NVME_CC_IOSQES | NVME_CC_IOCQES | cc,
    );
    assertEquals(controller.readRegister(NVME_REG_CSTS), NVME_CSTS_RDY);
  }

  /** Sends an admin command; its completion, which must be there at once. */
  adminCommand(sqe: Sqe): Cqe {
    this.admin.add(sqe);
    this.controller.ringSq(0, this.admin.tail);
    const [cqe, ...more] = this.admin.take();
    this.controller.ringCq(0, this.admin.head);
    assertEquals(more, []);
    return cqe!;
  }

  /** Makes a pair of queues, or a submission queue on another's completion queue. */
  createQueue(
    qid: number,
    entries: number,
    o: { irq?: boolean; priority?: number; shares?: Ring } = {},
  ): Ring {
    const { irq = true, priority = 0, shares } = o;
    const ring = new Ring(qid, entries, shares?.cq);
    const cdw10 = qid | (entries - 1) << 16;
    if (shares === undefined) {
      const { status } = this.adminCommand({
        opcode: NVME_ADMIN_CREATE_CQ,
        cdw10,
        cdw11: NVME_QUEUE_PHYS_CONTIG |
          (irq ? NVME_CQ_IRQ_ENABLED | qid << 16 : 0),
        memory: ring.cq,
      });
      assertEquals(status, 0);
    }
    const { status } = this.adminCommand({
      opcode: NVME_ADMIN_CREATE_SQ,
      cdw10,
      cdw11: NVME_QUEUE_PHYS_CONTIG | priority << 1 | ring.cq.qid << 16,
      memory: ring.sq,
    });
    assertEquals(status, 0);
    return ring;
  }

  /** Rings the submission doorbell of a queue. */
  ring(queue: Ring): void {
    this.controller.ringSq(queue.sq.qid, queue.tail);
  }

  /** Sends commands with one doorbell, lets them end, and takes their completions. */
  run(queue: Ring, ...sqes: Sqe[]): Cqe[] {
    for (const sqe of sqes) queue.add(sqe);
    this.ring(queue);
    this.clock.runUntil(() => false);
    const taken = queue.take();
    this.controller.ringCq(queue.cq.qid, queue.head);
    return taken;
  }

  /** The status of one command. */
  status(queue: Ring, sqe: Sqe): number {
    const taken = this.run(queue, sqe);
    assertEquals(taken.length, 1);
    return taken[0]!.status;
  }
}
