import { assertEquals } from "@std/assert";
import {
  type HostMemory,
  MemoryMedia,
  NVME_PRESETS,
  NvmeController,
  type NvmePresetName,
  type QueuePair,
} from "../../../block/nvme/mod.ts";
import {
  CQE_WORDS,
  NVME_CMD_FLUSH,
  NVME_CMD_READ,
  NVME_CMD_WRITE,
  NVME_CMD_WRITE_ZEROES,
  SQE_WORDS,
} from "../../../block/nvme/nvme.ts";
import { VirtualClock } from "../../../lib/clock.ts";
import { settle } from "../fake_device.ts";

const DNR = 0x4000;

interface Cqe {
  cid: number;
  status: number;
  phase: number;
  sqHead: number;
  qid: number;
}

/** A host that does by hand what the driver does, one queue. */
class RawHost {
  readonly clock = new VirtualClock();
  readonly media = new MemoryMedia(2 ** 20);
  readonly controller: NvmeController;
  readonly pair: QueuePair;
  interrupts = 0;
  #tail = 0;

  constructor(preset: NvmePresetName, entries: number, logicalBlockSize = 512) {
    this.controller = new NvmeController(this.clock, {
      preset: NVME_PRESETS[preset],
      media: this.media,
      logicalBlockSize,
      seed: 1,
    });
    this.pair = this.controller.createQueue(entries);
    this.pair.onInterrupt = () => this.interrupts++;
  }

  /** Fills an entry; blocks count from 1. */
  add(opcode: number, cid: number, slba = 0, blocks = 1, nsid = 1): void {
    const { sq } = this.pair;
    const at = this.#tail * SQE_WORDS;
    sq[at] = opcode | (cid << 16);
    sq[at + 1] = nsid;
    sq[at + 10] = slba;
    sq[at + 11] = slba / 2 ** 32;
    sq[at + 12] = blocks - 1;
    this.pair.memory[cid] = memory(blocks * 512, cid);
    this.#tail = this.pair.next(this.#tail);
  }

  ring(): void {
    this.controller.ringSq(1, this.#tail);
  }

  cqe(slot: number): Cqe {
    const at = slot * CQE_WORDS;
    const [, , dw2 = 0, dw3 = 0] = this.pair.cq.subarray(at, at + CQE_WORDS);
    return {
      cid: dw3 & 0xffff,
      status: dw3 >>> 17,
      phase: (dw3 >>> 16) & 1,
      sqHead: dw2 & 0xffff,
      qid: dw2 >>> 16,
    };
  }
}

function memory(len: number, fill: number): HostMemory {
  const data = new Uint8Array(len).fill(fill);
  return { vecs: [{ data, offset: 0, len }], vecIndex: 0, vecDone: 0 };
}

Deno.test("NvmeController 91. writes phase 1 in the first lap and 0 in the second", () => {
  const host = new RawHost("null", 4);
  const phases: number[][] = [];
  for (let i = 0; i < 10; i++) {
    host.add(NVME_CMD_READ, i);
    host.ring();
    assertEquals([host.cqe(i % 4).cid, host.cqe(i % 4).status], [i, 0]);
    phases.push([0, 1, 2, 3].map((slot) => host.cqe(slot).phase));
    host.controller.ringCq(1, (i + 1) % 4);
  }
  assertEquals(phases, [
    [1, 0, 0, 0],
    [1, 1, 0, 0],
    [1, 1, 1, 0],
    [1, 1, 1, 1],
    [0, 1, 1, 1],
    [0, 0, 1, 1],
    [0, 0, 0, 1],
    [0, 0, 0, 0],
    [1, 0, 0, 0],
    [1, 1, 0, 0],
  ]);
});

Deno.test("NvmeController 92. tells the submission queue's head with each completion", () => {
  const host = new RawHost("optane", 8);
  for (const cid of [5, 6, 7]) host.add(NVME_CMD_READ, cid, cid);
  host.ring();
  assertEquals(host.interrupts, 0);
  settle(host.clock);
  // All were fetched before the first was done.
  assertEquals(
    [0, 1, 2].map((slot) => host.cqe(slot)),
    [5, 6, 7].map((cid) => ({
      cid,
      status: 0,
      phase: 1,
      sqHead: 3,
      qid: 1,
    })),
  );
});

Deno.test("NvmeController 93. refuses an identifier that is under way, and does the first", () => {
  const host = new RawHost("optane", 8);
  host.add(NVME_CMD_WRITE, 9, 4);
  host.ring();
  host.add(NVME_CMD_WRITE, 9, 5);
  host.ring();
  assertEquals([host.cqe(0).cid, host.cqe(0).status], [9, 0x003 | DNR]);
  settle(host.clock);
  assertEquals([host.cqe(1).cid, host.cqe(1).status], [9, 0]);
  const data = new Uint8Array(1024);
  host.media.read(4 * 512, data, 0, 1024);
  assertEquals([data[0], data[512]], [9, 0]);
  // The identifier is free again.
  host.add(NVME_CMD_READ, 9, 5);
  host.ring();
  settle(host.clock);
  assertEquals(host.cqe(2).status, 0);
});

Deno.test("NvmeController 94. holds completions back while the queue is full", () => {
  const host = new RawHost("null", 4);
  for (const cid of [1, 2, 3]) host.add(NVME_CMD_READ, cid);
  host.ring();
  for (const cid of [4, 5]) host.add(NVME_CMD_READ, cid);
  host.ring();
  assertEquals([0, 1, 2, 3].map((slot) => host.cqe(slot).cid), [1, 2, 3, 0]);

  host.controller.ringCq(1, 1);
  assertEquals([0, 1, 2, 3].map((slot) => host.cqe(slot).cid), [1, 2, 3, 4]);
  host.controller.ringCq(1, 3);
  assertEquals(host.cqe(0), { cid: 5, status: 0, phase: 0, sqHead: 1, qid: 1 });
});

/** Opcode, first block, blocks, namespace; the status. */
const refused: [string, number, number, number, number, number][] = [
  ["96. more than MDTS", NVME_CMD_READ, 0, 1025, 1, 0x002],
  ["96. more than MDTS", NVME_CMD_WRITE, 0, 1025, 1, 0x002],
  ["96. past the last block", NVME_CMD_READ, 2048, 1, 1, 0x080],
  ["96. past the last block", NVME_CMD_WRITE, 2047, 2, 1, 0x080],
  ["past 2^32 blocks", NVME_CMD_WRITE_ZEROES, 2 ** 32, 1, 1, 0x080],
  ["another namespace", NVME_CMD_READ, 0, 1, 2, 0x00b],
  ["every namespace", NVME_CMD_WRITE, 0, 1, 0xffff_ffff, 0x00b],
  ["an unknown opcode", 0x05, 0, 1, 1, 0x001],
];
for (const [name, opcode, slba, blocks, nsid, status] of refused) {
  Deno.test(`NvmeController refuses opcode ${opcode} with ${name}`, () => {
    const host = new RawHost("optane", 4);
    host.add(opcode, 1, slba, blocks, nsid);
    host.ring();
    settle(host.clock);
    assertEquals([host.cqe(0).cid, host.cqe(0).status], [1, status | DNR]);
  });
}

Deno.test("NvmeController takes what is just not refused", () => {
  const host = new RawHost("optane", 8);
  host.add(NVME_CMD_READ, 1, 0, 1024);
  host.add(NVME_CMD_WRITE, 2, 2047, 1);
  host.add(NVME_CMD_WRITE_ZEROES, 3, 0, 2048);
  host.add(NVME_CMD_FLUSH, 4, 0, 1, 0xffff_ffff);
  host.ring();
  settle(host.clock);
  const status = [0, 1, 2, 3].map((slot) => host.cqe(slot));
  assertEquals(status.map((c) => c.status), [0, 0, 0, 0]);
  assertEquals(status.map((c) => c.cid).toSorted(), [1, 2, 3, 4]);
});
