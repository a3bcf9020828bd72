import { assert, assertEquals } from "@std/assert";
import {
  NVME_ADMIN_ABORT_CMD,
  NVME_ADMIN_DELETE_SQ,
  NVME_CC_ENABLE,
  NVME_CC_SHN_ABRUPT,
  NVME_CC_SHN_NORMAL,
  NVME_CMD_COMPARE,
  NVME_CMD_FLUSH,
  NVME_CMD_READ,
  NVME_CMD_WRITE,
  NVME_CMD_WRITE_ZEROES,
  NVME_CSTS_CFS,
  NVME_CSTS_RDY,
  NVME_CSTS_SHST_CMPLT,
  NVME_REG_AQA,
  NVME_REG_CAP,
  NVME_REG_CC,
  NVME_REG_CSTS,
  NVME_REG_DBS,
  NVME_REG_INTMC,
  NVME_REG_INTMS,
  NVME_REG_VS,
} from "../../../block/nvme/nvme.ts";
import { NVME_PRESETS } from "../../../block/nvme/presets.ts";
import { SubmissionQueue } from "../../../block/nvme/queue.ts";
import type { TimingParams } from "../../../block/nvme/timing.ts";
import type { ZoneOptions } from "../../../block/nvme/zns.ts";
import { Prng } from "../../../lib/prng.ts";
import { type Cqe, DNR, RawHost, type Ring } from "./raw_host.ts";

const OPTANE = { preset: NVME_PRESETS.optane };
const CACHED = { preset: NVME_PRESETS["mlc-970pro"] };

/** I/O and admin commands. */
const OPCODES = [
  0,
  1,
  2,
  4,
  5,
  6,
  8,
  9,
  0x0a,
  0x0c,
  0x19,
  0x79,
  0x7a,
  0x7d,
  0x80,
];
const ZONES: ZoneOptions = {
  size: 2 ** 20,
  blockSize: 512,
  zoneSize: 64 * 512,
  zoneCapacity: 48 * 512,
  conventional: 1,
  maxOpen: 2,
  maxActive: 3,
  flavor: "zns",
  crossRead: true,
  append: true,
  maxAppend: 0,
};

const AER = 0x0c;
const GET_LOG = 0x02;

/** A block of one value. */
function block(value: number, blocks = 1): Uint8Array {
  return new Uint8Array(512 * blocks).fill(value);
}

/** First bytes of blocks, as read through the device. */
function firstBytes(host: RawHost, queue: Ring, slba: number, n: number) {
  const data = new Uint8Array(512 * n);
  const sqe = { opcode: NVME_CMD_READ, slba, cdw12: n - 1, memory: data };
  assertEquals(host.status(queue, sqe), 0);
  return Array.from({ length: n }, (_, i) => data[512 * i]);
}

Deno.test("corner case 91: completions have phase 1 in the first lap, 0 in the second", () => {
  const host = new RawHost();
  const queue = host.createQueue(1, 4);
  assertEquals(queue.cq.ring.every((word) => word === 0), true);
  const phases: number[][] = [];
  for (let i = 0; i < 10; i++) {
    queue.add({ opcode: NVME_CMD_FLUSH, cid: i });
    host.ring(queue);
    assertEquals([queue.cqe(i % 4).cid, queue.cqe(i % 4).status], [i, 0]);
    phases.push([0, 1, 2, 3].map((slot) => queue.cqe(slot).phase));
    // One with the wrong phase is not taken: there is exactly one.
    assertEquals(queue.take().length, 1);
    host.controller.ringCq(1, queue.head);
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

Deno.test("corner case 92: a completion tells the submission queue's head", () => {
  const host = new RawHost(OPTANE);
  const queue = host.createQueue(1, 8);
  for (const cid of [5, 6, 7]) {
    queue.add({ opcode: NVME_CMD_READ, cid, slba: cid, memory: block(0) });
  }
  host.ring(queue);
  assertEquals(queue.take(), []);
  host.clock.runUntil(() => false);
  // All were fetched before the first was done: their slots are free.
  assertEquals(
    [0, 1, 2].map((slot) => queue.cqe(slot)),
    [5, 6, 7].map((cid) => ({
      cid,
      status: 0,
      phase: 1,
      sqHead: 3,
      qid: 1,
      result: 0,
    })),
  );
});

Deno.test("corner case 93: an identifier that is under way is refused, and the first is done", () => {
  const host = new RawHost(OPTANE);
  const queue = host.createQueue(1, 8);
  const write = (slba: number) =>
    queue.add({ opcode: NVME_CMD_WRITE, cid: 9, slba, memory: block(9) });
  write(4);
  host.ring(queue);
  write(5);
  host.ring(queue);
  assertEquals([queue.cqe(0).cid, queue.cqe(0).status], [9, 0x003 | DNR]);
  host.clock.runUntil(() => false);
  assertEquals([queue.cqe(1).cid, queue.cqe(1).status], [9, 0]);
  queue.take();
  host.controller.ringCq(1, queue.head);
  assertEquals(firstBytes(host, queue, 4, 2), [9, 0]);
  // The identifier is free again.
  write(5);
  host.ring(queue);
  host.clock.runUntil(() => false);
  assertEquals(queue.take().map((cqe) => cqe.status), [0]);
});

Deno.test("corner case 94: completions are held back while the completion queue is full", () => {
  const host = new RawHost();
  const queue = host.createQueue(1, 4);
  const add = (...cids: number[]) => {
    for (const cid of cids) queue.add({ opcode: NVME_CMD_FLUSH, cid });
    host.ring(queue);
  };
  add(1, 2, 3);
  add(4, 5);
  const cids = () => [0, 1, 2, 3].map((slot) => queue.cqe(slot).cid);
  assertEquals(cids(), [1, 2, 3, 0]);

  host.controller.ringCq(1, 1);
  assertEquals(cids(), [1, 2, 3, 4]);
  host.controller.ringCq(1, 3);
  const last = { cid: 5, status: 0, phase: 0, sqHead: 1, qid: 1, result: 0 };
  assertEquals(queue.cqe(0), last);
});

Deno.test("NvmeController fetches nothing from a queue whose completions have no room", () => {
  const host = new RawHost();
  const queue = host.createQueue(1, 4);
  // Rounds in which the host takes no completion: what is held back has a bound.
  for (let i = 0; i < 3; i++) queue.add({ opcode: NVME_CMD_FLUSH, cid: i });
  host.ring(queue);
  for (let i = 3; i < 6; i++) queue.add({ opcode: NVME_CMD_FLUSH, cid: i });
  host.ring(queue);
  const taken = queue.take();
  // The fourth is done and held back; the fifth is still in its slot.
  assertEquals(taken.map((cqe) => cqe.cid), [0, 1, 2]);
  host.controller.ringCq(1, queue.head);
  const rest = queue.take();
  assertEquals(rest.map((cqe) => [cqe.cid, cqe.sqHead]), [[3, 0], [4, 1], [
    5,
    2,
  ]]);
});

Deno.test("corner case 90: a ring of N slots takes N - 1 commands, and the N-th must wait", () => {
  const host = new RawHost(OPTANE);
  const queue = host.createQueue(1, 4);
  const cids = (cqes: Cqe[]) => cqes.map((cqe) => cqe.cid);
  for (const cid of [1, 2, 3]) {
    queue.add({ opcode: NVME_CMD_READ, cid, memory: block(0) });
  }
  host.ring(queue);
  // All are fetched, but their completions have three slots and no more.
  queue.add({ opcode: NVME_CMD_READ, cid: 4, memory: block(0) });
  host.ring(queue);
  host.clock.runUntil(() => false);
  assertEquals(cids(queue.take()), [1, 2, 3]);
  host.controller.ringCq(1, queue.head);
  assertEquals(cids(queue.take()), [4]);
  // Four at once would make tail equal to head: that is an empty ring.
  host.controller.ringCq(1, queue.head);
  for (const cid of [1, 2, 3, 4]) {
    queue.add({ opcode: NVME_CMD_READ, cid, memory: block(0) });
  }
  host.ring(queue);
  host.clock.runUntil(() => false);
  assertEquals(queue.take(), []);
});

/** Has one event request under way; what has ended of the admin queue. */
function requestEvent(host: RawHost): () => Cqe[] {
  host.admin.add({ opcode: AER, cid: 77 });
  host.ring(host.admin);
  return () => host.admin.take();
}

Deno.test("corner case 95: a doorbell that cannot be is an error event; 32 commands need one", () => {
  const bad: [string, (host: RawHost) => void, number][] = [
    ["a queue that is not there", (h) => h.controller.ringSq(5, 1), 0],
    ["a completion queue", (h) => h.controller.ringCq(5, 1), 0],
    ["tail beyond the ring", (h) => h.controller.ringSq(1, 64), 1],
    ["head beyond the ring", (h) => h.controller.ringCq(1, 64), 1],
    ["no number of a slot", (h) => h.controller.ringSq(1, 1.5), 1],
    ["head past the tail", (h) => h.controller.ringCq(1, 1), 1],
  ];
  for (const [name, ring, info] of bad) {
    const host = new RawHost();
    const queue = host.createQueue(1, 64);
    const events = requestEvent(host);
    ring(host);
    const [event] = events();
    // Type 0, an error; the error log tells more.
    assertEquals(event?.result, info << 8 | 0x01 << 16, name);
    assertEquals(host.status(queue, { opcode: NVME_CMD_FLUSH }), 0, name);
  }
  // Past the head: the ring has 7 entries that have not been fetched.
  const host = new RawHost();
  const queue = host.createQueue(1, 64, { irq: false });
  const events = requestEvent(host);
  for (let cid = 0; cid < 63; cid++) queue.add({ opcode: NVME_CMD_FLUSH, cid });
  host.ring(queue);
  queue.add({ opcode: NVME_CMD_FLUSH, cid: 100 });
  for (let i = 0; i < 7; i++) {
    queue.add({ opcode: NVME_CMD_FLUSH, cid: 101 + i });
  }
  host.ring(queue);
  host.controller.ringSq(1, 3);
  assertEquals(events().length, 1);

  const batch = new RawHost(OPTANE);
  const ring = batch.createQueue(1, 64);
  for (let cid = 0; cid < 32; cid++) {
    ring.add({ opcode: NVME_CMD_READ, cid, memory: block(0) });
  }
  batch.controller.writeRegister(NVME_REG_DBS + 8, ring.tail);
  batch.clock.runUntil(() => false);
  assertEquals(ring.take().length, 32);
});

Deno.test("NvmeController tells of one doorbell error until the log has been read", () => {
  const host = new RawHost();
  const events = requestEvent(host);
  host.controller.ringSq(9, 1);
  assertEquals(events().length, 1);
  host.controller.ringCq(0, host.admin.head);
  assertEquals(requestEvent(host)(), []);
  host.controller.ringSq(9, 1);
  assertEquals(host.admin.take(), []);
  const log = new Uint8Array(64);
  const cdw10 = 0x01 | 15 << 16;
  assertEquals(
    host.adminCommand({ opcode: GET_LOG, cdw10, memory: log, cid: 1 }).status,
    0,
  );
  host.controller.ringSq(9, 1);
  assertEquals(host.admin.take().map((cqe) => cqe.cid), [77]);
});

Deno.test("corner case 106: a reset of the controller keeps what is in the cache, a loss of power need not", () => {
  const host = new RawHost(CACHED);
  const queue = host.createQueue(1, 8);
  const write = { opcode: NVME_CMD_WRITE, slba: 3, memory: block(5) };
  assertEquals(host.status(queue, write), 0);
  host.controller.writeRegister(NVME_REG_CC, 0);
  assertEquals(host.controller.readRegister(NVME_REG_CSTS), 0);
  host.enable();
  assertEquals(firstBytes(host, host.createQueue(1, 8), 3, 1), [5]);

  const { store } = host.controller.namespace;
  store.cut(host.controller.inFlight(), 0, { keep: "none" });
  host.controller.powerOff();
  host.controller.powerOn();
  host.enable();
  assertEquals(firstBytes(host, host.createQueue(1, 8), 3, 1), [0]);
});

Deno.test("corner case 107: a normal shutdown leaves nothing volatile", () => {
  const host = new RawHost(CACHED);
  const queue = host.createQueue(1, 8);
  const write = { opcode: NVME_CMD_WRITE, slba: 3, memory: block(5) };
  assertEquals(host.status(queue, write), 0);
  const { namespace } = host.controller;
  assertEquals(namespace.store.undecided([]).length, 1);
  const cc = host.controller.readRegister(NVME_REG_CC);
  host.controller.writeRegister(NVME_REG_CC, cc | NVME_CC_SHN_NORMAL);
  const csts = host.controller.readRegister(NVME_REG_CSTS);
  assertEquals(csts & NVME_CSTS_SHST_CMPLT, NVME_CSTS_SHST_CMPLT);
  assertEquals(namespace.store.undecided([]).length, 0);
  const data = new Uint8Array(512);
  host.media.read(3 * 512, data, 0, 512);
  assertEquals(data, block(5));
});

Deno.test("NvmeController keeps what is volatile over an abrupt shutdown, and loses it with the power", () => {
  const host = new RawHost(CACHED);
  const write = { opcode: NVME_CMD_WRITE, slba: 3, memory: block(5) };
  assertEquals(host.status(host.createQueue(1, 8), write), 0);
  const cc = host.controller.readRegister(NVME_REG_CC);
  host.controller.writeRegister(NVME_REG_CC, cc | NVME_CC_SHN_ABRUPT);
  assertEquals(host.controller.namespace.store.undecided([]).length, 1);
});

Deno.test("NvmeController has registers", () => {
  const host = new RawHost();
  const read = (offset: number) => host.controller.readRegister(offset);
  // 65536 entries, contiguous, weighted round robin.
  assertEquals(read(NVME_REG_CAP) & 0x3_ffff, 0x3_ffff);
  assertEquals(read(NVME_REG_VS), 0x2_0000);
  assertEquals(read(NVME_REG_AQA), 31 | 31 << 16);
  assertEquals(read(0x38), 0);
  host.controller.powerOff();
  assertEquals(read(NVME_REG_CSTS), 0xffff_ffff);
  // Nothing answers, and nothing breaks.
  host.controller.writeRegister(NVME_REG_CC, NVME_CC_ENABLE);
  host.controller.ringSq(0, 1);
  host.controller.powerOn();
  assertEquals(read(NVME_REG_CSTS), 0);
});

Deno.test("NvmeController does not start without admin queues or with what it does not know", () => {
  const host = new RawHost();
  for (const cc of [3 << 11, 1 << 7]) {
    host.controller.writeRegister(NVME_REG_CC, 0);
    host.controller.writeRegister(NVME_REG_CC, NVME_CC_ENABLE | cc);
    assertEquals(host.controller.readRegister(NVME_REG_CSTS), NVME_CSTS_CFS);
  }
  host.controller.writeRegister(NVME_REG_CC, 0);
  host.enable();
  assertEquals(host.controller.readRegister(NVME_REG_CSTS), NVME_CSTS_RDY);
});

Deno.test("NvmeController drops what is under way when it is reset", () => {
  const host = new RawHost(OPTANE);
  const queue = host.createQueue(1, 8);
  const write = { opcode: NVME_CMD_WRITE, cid: 1, memory: block(5) };
  queue.add(write);
  host.ring(queue);
  assertEquals(host.controller.inFlight().map((c) => c.cid), [1]);
  host.controller.writeRegister(NVME_REG_CC, 0);
  assertEquals(host.controller.inFlight(), []);
  host.clock.runUntil(() => false);
  assertEquals(queue.take(), []);
  host.enable();
  const again = host.createQueue(1, 8);
  // The identifier is free, and the write has not been done.
  assertEquals(host.status(again, { ...write, opcode: NVME_CMD_READ }), 0);
  assertEquals(firstBytes(host, again, 0, 1), [0]);
});

Deno.test("NvmeController may be reset from within a completion", () => {
  const host = new RawHost();
  const queue = host.createQueue(1, 8);
  let interrupts = 0;
  host.controller.setInterrupt(1, () => {
    interrupts++;
    host.controller.writeRegister(NVME_REG_CC, 0);
    // The admin queue works at once.
    host.enable();
    host.createQueue(2, 8);
  });
  for (const cid of [1, 2, 3]) queue.add({ opcode: NVME_CMD_FLUSH, cid });
  host.ring(queue);
  assertEquals([interrupts, queue.take().length], [1, 1]);
  assertEquals(firstBytes(host, host.createQueue(1, 8), 0, 1), [0]);
});

Deno.test("NvmeController carries out admin commands that are sent from within admin completions", () => {
  const host = new RawHost();
  const results: number[] = [];
  host.controller.setInterrupt(0, () => {
    const taken = host.admin.take();
    host.controller.ringCq(0, host.admin.head);
    results.push(...taken.map((cqe) => cqe.cid));
    if (results.length > 1) return;
    host.admin.add({ opcode: 0x0a, cdw10: 1, cid: 2 });
    host.ring(host.admin);
    // Its answer is there already.
    assertEquals(results, [1, 2]);
  });
  host.admin.add({ opcode: 0x0a, cdw10: 1, cid: 1 });
  host.ring(host.admin);
  assertEquals(results, [1, 2]);
});

Deno.test("NvmeController lets several submission queues share a completion queue", () => {
  const host = new RawHost();
  const one = host.createQueue(1, 8);
  const two = host.createQueue(2, 8, { shares: one });
  one.add({ opcode: NVME_CMD_FLUSH, cid: 3 });
  two.add({ opcode: NVME_CMD_FLUSH, cid: 3 });
  host.ring(one);
  host.ring(two);
  const ends = one.take().map(({ qid, cid, sqHead }) => [qid, cid, sqHead]);
  assertEquals(ends, [[1, 3, 1], [2, 3, 1]]);
});

Deno.test("NvmeController interrupts for no completion queue that is polled, nor a masked vector", () => {
  const host = new RawHost();
  const polled = host.createQueue(1, 8, { irq: false });
  const masked = host.createQueue(2, 8);
  const count = [0, 0, 0];
  for (const vector of [1, 2]) {
    host.controller.setInterrupt(vector, () => count[vector]!++);
  }
  host.controller.writeRegister(NVME_REG_INTMS, 1 << 2);
  assertEquals(host.controller.readRegister(NVME_REG_INTMS), 1 << 2);
  for (const queue of [polled, masked]) {
    queue.add({ opcode: NVME_CMD_FLUSH });
    host.ring(queue);
    assertEquals(queue.take().length, 1);
  }
  assertEquals(count, [0, 0, 0]);
  host.controller.writeRegister(NVME_REG_INTMC, 1 << 2);
  assertEquals(count, [0, 0, 1]);
});

Deno.test("NvmeController.afterWrites() tells of the n-th write while it is under way", () => {
  const host = new RawHost();
  const queue = host.createQueue(1, 8);
  const seen: number[][] = [];
  host.controller.afterWrites(2, () => {
    seen.push(host.controller.inFlight().map((c) => c.cid));
    host.controller.powerOff();
    return true;
  });
  const ends = host.run(
    queue,
    { opcode: NVME_CMD_WRITE, cid: 1, memory: block(1) },
    { opcode: NVME_CMD_READ, cid: 2, memory: block(1) },
    { opcode: NVME_CMD_WRITE_ZEROES, cid: 3, slba: 9 },
    { opcode: NVME_CMD_WRITE, cid: 4, memory: block(4) },
  );
  assertEquals(seen, [[3]]);
  assertEquals(ends.map((cqe) => cqe.cid), [1, 2]);
});

Deno.test("NvmeController ends a command whose memory is gone with a transfer error", () => {
  const host = new RawHost();
  const queue = host.createQueue(1, 8);
  const short = block(0).subarray(0, 100);
  for (const memory of [null, short, new SubmissionQueue(1, 4)]) {
    for (const opcode of [NVME_CMD_READ, NVME_CMD_WRITE, NVME_CMD_COMPARE]) {
      assertEquals(host.status(queue, { opcode, memory }) & 0x7ff, 0x004);
    }
  }
});

/*
 * Goal: nothing that a host writes breaks the controller. Method: words by chance in
 * entries, doorbells and registers, of a device with zones. Oracle: nothing throws, and
 * after a reset the controller works.
 */
for (const preset of ["null", "optane", "mlc-970pro"] as const) {
  Deno.test(`NvmeController withstands a host that writes anything, preset ${preset}`, () => {
    const zones: ZoneOptions | null = preset === "null" ? ZONES : null;
    const host = new RawHost({ preset: NVME_PRESETS[preset], zones });
    const { controller, clock } = host;
    const random = new Prng(96, preset);
    const pick = <T>(values: readonly T[]): T =>
      values[random.below(values.length)]!;
    const memories = [null, block(1, 64), block(2).subarray(0, 100)];
    let queues: Ring[] = [];
    const restart = () => {
      controller.writeRegister(NVME_REG_CC, 0);
      host.enable();
      queues = [1, 2, 3].map((qid) => host.createQueue(qid, 16));
      queues.push(host.admin);
    };
    const word = () => pick([0, 1, 2, 7, 64, 2048, random.u32()]);
    restart();
    for (let i = 0; i < 4000; i++) {
      const queue = pick(queues);
      const dice = random.below(100);
      if (dice < 60) {
        queue.add({
          opcode: pick([...OPCODES, random.below(256)]),
          cid: random.below(8),
          fuse: pick([0, 0, 0, 0, 1, 2, 3]),
          nsid: pick([1, 1, 1, 1, 0xffff_ffff, 2]),
          cdw10: word(),
          cdw11: pick([0, 0, 0, random.u32(), 4]),
          cdw12: pick([0, 0, random.below(65536), random.u32()]),
          cdw13: pick([0, 1, 2, 3, 4, 0x104, random.u32()]),
          cdw14: pick([0, random.u32()]),
          memory: pick(memories),
        });
        host.ring(queue);
      } else if (dice < 80) {
        queue.take();
        controller.ringCq(queue.cq.qid, queue.head);
      } else if (dice < 85) {
        controller.ringSq(random.below(6), random.below(40));
      } else if (dice < 90) {
        controller.ringCq(random.below(6), random.below(40));
      } else if (dice < 95) clock.runUntil(() => random.below(4) === 0);
      else if (dice < 98) controller.writeRegister(word() & 0xff, random.u32());
      else restart();
    }
    restart();
    const data = block(7);
    const write = { opcode: NVME_CMD_WRITE_ZEROES, memory: data };
    assertEquals(host.status(queues[0]!, write) & 0x700, 0);
  });
}

/** A controller whose write buffer has room for two programs, and two queues. */
function stalling(preset: "tlc-dc" | "zns" | "hdd"): [RawHost, Ring, Ring] {
  const usual = NVME_PRESETS[preset];
  const small = {
    writeBuffer: 2 * 98_304,
    zoneBuffer: 2 * 98_304,
    cache: 2 ** 18,
  };
  const timing = { ...usual.timing, ...small } as TimingParams;
  const zones = preset !== "zns" ? null : {
    size: 2 ** 24,
    blockSize: 512,
    zoneSize: 2 ** 23,
    zoneCapacity: 2 ** 23,
    conventional: 0,
    maxOpen: 0,
    maxActive: 0,
    flavor: "zns" as const,
    crossRead: false,
    append: true,
    maxAppend: 0,
  };
  const host = new RawHost({ preset: { ...usual, timing }, zones }, 0, 2 ** 24);
  return [host, host.createQueue(1, 64), host.createQueue(2, 64)];
}

Deno.test("NvmeController leaves a write without room in its queue, and what comes after it", () => {
  for (const preset of ["tlc-dc", "zns", "hdd"] as const) {
    const [host, queue, other] = stalling(preset);
    const memory = new Uint8Array(65536);
    for (let cid = 0; cid < 20; cid++) {
      queue.add({
        opcode: NVME_CMD_WRITE,
        cid,
        slba: 128 * cid,
        cdw12: 127,
        memory,
      });
    }
    queue.add({ opcode: NVME_CMD_READ, cid: 20, memory: block(0) });
    host.ring(queue);
    const fetched = host.controller.inFlight().length;
    assert(fetched > 1 && fetched < 6, `${preset}: ${fetched}`);
    // One that has not been fetched cannot be aborted, and is not lost with the power.
    const { result } = host.adminCommand({
      opcode: NVME_ADMIN_ABORT_CMD,
      cdw10: 1 | 19 << 16,
    });
    assertEquals(result, 1);
    const { store } = host.controller.namespace;
    assertEquals(
      new Set(store.undecided(host.controller.inFlight()).map((f) => f.write))
        .size,
      fetched,
    );
    // Another queue goes on.
    other.add({ opcode: NVME_CMD_READ, cid: 1, slba: 32000, memory: block(0) });
    host.ring(other);
    host.clock.runUntil(() => other.cqe(0).phase === 1);
    const done = queue.take();
    assert(done.length < 20, preset);
    for (const { sqHead } of done) assert(sqHead < 20, `${preset}: ${sqHead}`);
    host.clock.runUntil(() => false);
    const all = done.concat(queue.take());
    assertEquals(all.map((cqe) => cqe.status), new Array(21).fill(0), preset);
    assertEquals(queue.cqe(20).sqHead, 21);
  }
});

Deno.test("NvmeController forgets what waits for room when its queue is deleted, or all are", () => {
  for (const how of ["delete", "reset"]) {
    const [host, queue] = stalling("tlc-dc");
    const memory = new Uint8Array(65536);
    const fill = (ring: Ring) => {
      for (let cid = 0; cid < 20; cid++) {
        const slba = 128 * cid;
        ring.add({ opcode: NVME_CMD_WRITE, cid, slba, cdw12: 127, memory });
      }
      host.ring(ring);
    };
    fill(queue);
    if (how === "delete") {
      const gone = { opcode: NVME_ADMIN_DELETE_SQ, cdw10: 1 };
      assertEquals(host.adminCommand(gone).status, 0);
    } else {
      host.controller.writeRegister(NVME_REG_CC, 0);
      host.enable();
    }
    host.clock.runUntil(() => false);
    const before = queue.take().length;
    assert(before < 20);
    const fresh = host.createQueue(3, 64);
    fill(fresh);
    host.clock.runUntil(() => false);
    assertEquals(fresh.take().length, 20);
    assertEquals(queue.take().length, 0);
  }
});
