import { assertEquals } from "@std/assert";
import { NVME_CTRL_VWC_PRESENT } from "../../../block/nvme/identify.ts";
import {
  NVME_ADMIN_SET_FEATURES,
  NVME_CMD_COMPARE,
  NVME_CMD_COPY,
  NVME_CMD_DSM,
  NVME_CMD_FLUSH,
  NVME_CMD_READ,
  NVME_CMD_VERIFY,
  NVME_CMD_WRITE,
  NVME_CMD_WRITE_UNCOR,
  NVME_CMD_WRITE_ZEROES,
  NVME_CMD_ZONE_APPEND,
  NVME_CMD_ZONE_MGMT_RECV,
  NVME_CMD_ZONE_MGMT_SEND,
  NVME_DSMGMT_AD,
  NVME_FEAT_ERR_RECOVERY,
  NVME_FEAT_VOLATILE_WC,
  NVME_FEAT_WRITE_PROTECT,
  NVME_RW_FUA,
  NVME_RW_LR,
  NVME_WZ_DEAC,
} from "../../../block/nvme/nvme.ts";
import { NVME_PRESETS } from "../../../block/nvme/presets.ts";
import type { ZoneOptions } from "../../../block/nvme/zns.ts";
import { USEC } from "../../../lib/clock.ts";
import { DNR, RawHost, type Ring, type Sqe } from "./raw_host.ts";

const CACHED = { preset: NVME_PRESETS["mlc-970pro"] };
const OPTANE = { preset: NVME_PRESETS.optane };

function blocks(...values: number[]): Uint8Array {
  const data = new Uint8Array(512 * values.length);
  values.forEach((value, i) => data.fill(value, 512 * i, 512 * (i + 1)));
  return data;
}

function write(slba: number, ...values: number[]): Sqe {
  const memory = blocks(...values);
  return { opcode: NVME_CMD_WRITE, slba, cdw12: values.length - 1, memory };
}

function read(slba: number, n: number): Sqe & { memory: Uint8Array } {
  const memory = new Uint8Array(512 * n).fill(0xee);
  return { opcode: NVME_CMD_READ, slba, cdw12: n - 1, memory };
}

/** A host with a queue, and ways to use it. */
class Session extends RawHost {
  readonly queue: Ring = this.createQueue(1, 64);

  send(sqe: Sqe): number {
    return this.status(this.queue, sqe);
  }

  /** First byte of each block, or the status. */
  values(slba: number, n: number): number[] | number {
    const sqe = read(slba, n);
    const status = this.send(sqe);
    if (status !== 0) return status;
    return Array.from({ length: n }, (_, i) => sqe.memory[512 * i]!);
  }

  setFeature(fid: number, value: number): number {
    return this.adminCommand({
      opcode: NVME_ADMIN_SET_FEATURES,
      cdw10: fid,
      cdw11: value,
    }).status;
  }
}

/** Ranges of Dataset Management. */
function dsm(...ranges: [number, number][]): Sqe {
  const memory = new Uint8Array(16 * ranges.length);
  const view = new DataView(memory.buffer);
  ranges.forEach(([slba, n], i) => {
    view.setUint32(16 * i + 4, n, true);
    view.setBigUint64(16 * i + 8, BigInt(slba), true);
  });
  return {
    opcode: NVME_CMD_DSM,
    cdw10: ranges.length - 1,
    cdw11: NVME_DSMGMT_AD,
    memory,
  };
}

/** Source ranges of a copy. */
function copy(sdlba: number, ...ranges: [number, number][]): Sqe {
  const memory = new Uint8Array(32 * ranges.length);
  const view = new DataView(memory.buffer);
  ranges.forEach(([slba, n], i) => {
    view.setBigUint64(32 * i + 8, BigInt(slba), true);
    view.setUint16(32 * i + 16, n - 1, true);
  });
  return {
    opcode: NVME_CMD_COPY,
    slba: sdlba,
    cdw12: ranges.length - 1,
    memory,
  };
}

/** Command and status: what is refused before anything is done. */
const refused: [string, Sqe, number][] = [
  ["read of more than MDTS", read(0, 1025), 0x002],
  ["write of more than MDTS", write(0, ...new Array(1025).fill(1)), 0x002],
  ["compare of more than MDTS", {
    ...read(0, 1025),
    opcode: NVME_CMD_COMPARE,
  }, 0x002],
  ["read past the last block", read(2048, 1), 0x080],
  ["write across the last block", write(2047, 1, 1), 0x080],
  [
    "zeroes past 2^32 blocks",
    { opcode: NVME_CMD_WRITE_ZEROES, slba: 2 ** 32 },
    0x080,
  ],
  ["verify past the end", { opcode: NVME_CMD_VERIFY, slba: 2048 }, 0x080],
  ["another namespace", { ...read(0, 1), nsid: 2 }, 0x00b],
  ["every namespace", { ...write(0, 1), nsid: 0xffff_ffff }, 0x00b],
  ["an unknown opcode", { opcode: 0x0d }, 0x001],
  [
    "a zone command without zones",
    { opcode: NVME_CMD_ZONE_APPEND, memory: blocks(1) },
    0x001,
  ],
  ["deallocation past the end", dsm([0, 1], [2047, 2]), 0x080],
  ["ranges that are not there", { ...dsm([0, 1]), memory: null }, 0x004],
  ["copy to past the end", copy(2040, [0, 9]), 0x080],
  ["copy from past the end", copy(0, [2040, 9]), 0x080],
  ["copy of too much of a range", copy(0, [0, 129]), 0x183],
  ["copy of too much in all", copy(0, [0, 128], [200, 1]), 0x183],
  ["copy in another format", { ...copy(0, [0, 1]), cdw12: 1 << 8 }, 0x002],
];
for (const [name, sqe, status] of refused) {
  Deno.test(`IoCommands refuses ${name}, and says DNR`, () => {
    const session = new Session(OPTANE);
    assertEquals(session.send(sqe), status | DNR);
    assertEquals(session.clock.now(), 0);
  });
}

Deno.test("IoCommands takes what is just not refused", () => {
  const session = new Session(OPTANE);
  assertEquals(session.send(read(0, 1024)), 0);
  assertEquals(session.send(write(2047, 1)), 0);
  const zeroes = { opcode: NVME_CMD_WRITE_ZEROES, cdw12: 2047 };
  assertEquals(session.send(zeroes), 0);
  assertEquals(session.send({ opcode: NVME_CMD_FLUSH, nsid: 0xffff_ffff }), 0);
  assertEquals(session.send(copy(0, [0, 64], [100, 64])), 0);
  // Limited retry changes nothing.
  assertEquals(session.send({ ...read(0, 1), cdw12: NVME_RW_LR }), 0);
});

Deno.test("IoCommands writes and reads blocks of 4096 bytes", () => {
  const session = new Session({ logicalBlockSize: 4096 });
  const memory = new Uint8Array(8192).fill(3);
  const sqe = { opcode: NVME_CMD_WRITE, slba: 254, cdw12: 1, memory };
  assertEquals(session.send(sqe), 0);
  assertEquals(session.send({ ...sqe, slba: 255 }), 0x080 | DNR);
  const out = new Uint8Array(4096);
  session.media.read(255 * 4096, out, 0, 4096);
  assertEquals(out, memory.subarray(4096));
});

Deno.test("corner case 102: a compare that fails is 0x285; a pair writes only if it does not", () => {
  const session = new Session(OPTANE);
  assertEquals(session.send(write(4, 1, 2)), 0);
  const compare = (slba: number, ...values: number[]): Sqe => ({
    ...write(slba, ...values),
    opcode: NVME_CMD_COMPARE,
  });
  assertEquals(session.send(compare(4, 1, 2)), 0);
  assertEquals(session.send(compare(4, 1, 3)), 0x285);

  const pair = (first: Sqe, second: Sqe) =>
    session.run(
      session.queue,
      { ...first, fuse: 1, cid: 1 },
      { ...second, fuse: 2, cid: 2 },
    ).map(({ cid, status }) => [cid, status]);
  assertEquals(pair(compare(4, 9), write(4, 5)), [[1, 0x285], [2, 0x009]]);
  assertEquals(session.values(4, 2), [1, 2]);
  assertEquals(pair(compare(4, 1), write(4, 5)), [[1, 0], [2, 0]]);
  assertEquals(session.values(4, 2), [5, 2]);

  // The second half is missing, or another command, or in the next doorbell.
  const first = { ...compare(4, 5), fuse: 1, cid: 1 };
  assertEquals(session.send(first), 0x00a | DNR);
  const ends = session.run(session.queue, first, { ...read(4, 1), cid: 2 });
  assertEquals(ends.map((c) => [c.cid, c.status]), [[1, 0x00a | DNR], [2, 0]]);
  assertEquals(session.send({ ...write(4, 7), fuse: 2 }), 0x00a | DNR);
  assertEquals(session.values(4, 1), [5]);
});

Deno.test("IoCommands refuses fused pairs that are no compare-and-write of one range", () => {
  const session = new Session({ controller: { acwu: 1 } });
  const compare = { ...write(0, 0), opcode: NVME_CMD_COMPARE };
  const wide = (n: number, opcode: number): Sqe => ({
    ...write(0, ...new Array(n).fill(0)),
    opcode,
  });
  const cases: [Sqe, Sqe, number, number][] = [
    [compare, write(1, 1), 0x002 | DNR, 0x009],
    [write(0, 1), write(0, 1), 0x002 | DNR, 0x009],
    [compare, read(0, 1), 0x002 | DNR, 0x009],
    [wide(2, NVME_CMD_COMPARE), wide(2, NVME_CMD_WRITE), 0, 0],
    [wide(3, NVME_CMD_COMPARE), wide(3, NVME_CMD_WRITE), 0x014 | DNR, 0x009],
    // The half that is wrong by itself says so.
    [{ ...compare, slba: 4000 }, write(0, 1), 0x080 | DNR, 0x009],
    [compare, write(4000, 1), 0x009, 0x080 | DNR],
  ];
  for (const [first, second, one, two] of cases) {
    const ends = session.run(
      session.queue,
      { ...first, fuse: 1, cid: 1 },
      { ...second, fuse: 2, cid: 2 },
    );
    const byCid = ends.toSorted((a, b) => a.cid - b.cid);
    assertEquals(byCid.map((c) => c.status), [one, two]);
  }
  assertEquals(session.send({ ...compare, fuse: 3 }), 0x002 | DNR);
});

Deno.test("IoCommands lets no write come between compare and write", () => {
  const session = new Session(OPTANE);
  const { queue, clock } = session;
  queue.add({ ...write(0, 0), opcode: NVME_CMD_COMPARE, fuse: 1, cid: 1 });
  queue.add({ ...write(0, 5), fuse: 2, cid: 2 });
  session.ring(queue);
  // It is done before the pair's compare has had its time and its write.
  clock.at(2 * USEC, () => {
    queue.add({ ...write(0, 7), cid: 3 });
    session.ring(queue);
  }, undefined);
  clock.runUntil(() => false);
  const ends = queue.take().map((c) => [c.cid, c.status]);
  session.controller.ringCq(1, queue.head);
  assertEquals(ends, [[3, 0], [1, 0x285], [2, 0x009]]);
  assertEquals(session.values(0, 1), [7]);
});

Deno.test("corner case 103: uncorrectable blocks cannot be read until they are written", () => {
  const session = new Session(CACHED);
  assertEquals(session.send(write(4, 1, 2, 3)), 0);
  const spoil = { opcode: NVME_CMD_WRITE_UNCOR, slba: 4, cdw12: 1 };
  assertEquals(session.send(spoil), 0);
  assertEquals(session.values(4, 1), 0x281);
  assertEquals(session.values(3, 2), 0x281);
  const verify = { opcode: NVME_CMD_VERIFY, slba: 4, cdw12: 2 };
  assertEquals(session.send(verify), 0x281);
  assertEquals(session.values(6, 1), [3]);
  assertEquals(session.send({ opcode: NVME_CMD_FLUSH }), 0);
  assertEquals(session.values(5, 1), 0x281);
  assertEquals(session.send(write(4, 7, 8)), 0);
  assertEquals(session.values(4, 3), [7, 8, 3]);
  assertEquals(session.send(verify), 0);
});

Deno.test("corner case 104: what is deallocated reads as zeroes, and stays so", () => {
  for (const options of [OPTANE, CACHED]) {
    const session = new Session(options);
    assertEquals(session.send(write(4, 1, 2, 3, 4)), 0);
    assertEquals(session.send(dsm([4, 1], [6, 1], [9, 0])), 0);
    for (let i = 0; i < 3; i++) {
      assertEquals(session.values(4, 4), [0, 2, 0, 4]);
      assertEquals(session.send({ opcode: NVME_CMD_FLUSH }), 0);
    }
    // Without AD the ranges are hints.
    assertEquals(session.send({ ...dsm([5, 1]), cdw11: 3 }), 0);
    assertEquals(session.send(write(4, 8)), 0);
    assertEquals(session.values(4, 4), [8, 2, 0, 4]);
  }
});

Deno.test("corner case 105: turning the cache off flushes it, and writes are durable when they are done", () => {
  const session = new Session(CACHED);
  const { store } = session.controller.namespace;
  assertEquals(session.send(write(0, 1)), 0);
  assertEquals(store.undecided([]).length, 1);
  assertEquals(session.setFeature(NVME_FEAT_VOLATILE_WC, 0), 0);
  assertEquals(store.undecided([]).length, 0);
  assertEquals(session.send(write(1, 2)), 0);
  store.cut([], 0, { keep: "none" });
  assertEquals(session.values(0, 2), [1, 2]);
});

Deno.test("IoCommands takes as long for writes without the cache as with FUA", () => {
  const time = (session: Session, sqe: Sqe) => {
    const start = session.clock.now();
    assertEquals(session.send(sqe), 0);
    return session.clock.now() - start;
  };
  const cached = time(new Session(CACHED), write(0, 1));
  const fua = time(new Session(CACHED), {
    ...write(0, 1),
    cdw12: NVME_RW_FUA,
  });
  const off = new Session(CACHED);
  off.setFeature(NVME_FEAT_VOLATILE_WC, 0);
  assertEquals(time(off, write(0, 1)), fua);
  assertEquals(fua > 2 * cached, true);
});

Deno.test("IoCommands waits for the media with FUA, of writes and of reads", () => {
  const session = new Session(CACHED);
  const { store } = session.controller.namespace;
  const fua = (sqe: Sqe) => ({ ...sqe, cdw12: sqe.cdw12! | NVME_RW_FUA });
  assertEquals(session.send(fua(write(0, 1))), 0);
  assertEquals(store.undecided([]).length, 0);
  assertEquals(session.send(write(1, 2)), 0);
  assertEquals(session.values(1, 1), [2]);
  assertEquals(store.undecided([]).length, 1);
  assertEquals(session.send(fua(read(1, 1))), 0);
  assertEquals(store.undecided([]).length, 0);
});

Deno.test("IoCommands flushes what had completed when the flush was fetched", () => {
  const session = new Session(CACHED);
  const { queue, clock } = session;
  assertEquals(session.send(write(0, 1)), 0);
  queue.add({ ...write(1, 2), cid: 1 });
  queue.add({ opcode: NVME_CMD_FLUSH, cid: 2 });
  session.ring(queue);
  clock.runUntil(() => false);
  const { store } = session.controller.namespace;
  const left = store.undecided([]).map((fragment) => fragment.sector);
  assertEquals(left, [1]);
});

Deno.test("IoCommands copies ranges within the namespace, read before any is written", () => {
  const session = new Session();
  assertEquals(session.send(write(0, 1, 2, 3, 4)), 0);
  const [end] = session.run(session.queue, copy(1, [0, 2], [3, 1]));
  assertEquals([end?.status, end?.result], [0, 2]);
  assertEquals(session.values(0, 5), [1, 1, 2, 4, 0]);
  session.send({ opcode: NVME_CMD_WRITE_UNCOR, slba: 9 });
  const [failed] = session.run(session.queue, copy(0, [0, 1], [9, 1]));
  // The second range is to blame, and nothing has been copied.
  assertEquals([failed?.status, failed?.result], [0x281, 1]);
  assertEquals(session.values(0, 3), [1, 1, 2]);
});

Deno.test("IoCommands writes nothing to a namespace that is write protected", () => {
  const session = new Session();
  assertEquals(session.send(write(0, 1)), 0);
  assertEquals(session.setFeature(NVME_FEAT_WRITE_PROTECT, 1), 0);
  const all: Sqe[] = [
    write(0, 2),
    { opcode: NVME_CMD_WRITE_ZEROES },
    { opcode: NVME_CMD_WRITE_UNCOR },
    dsm([0, 1]),
    copy(0, [1, 1]),
  ];
  for (const sqe of all) assertEquals(session.send(sqe), 0x020 | DNR);
  assertEquals(session.values(0, 1), [1]);
  assertEquals(session.setFeature(NVME_FEAT_WRITE_PROTECT, 0), 0);
  assertEquals(session.send(write(0, 2)), 0);
});

Deno.test("IoCommands fails reads of deallocated blocks when the host wants it (DULBE)", () => {
  const plain = new Session();
  const dulbe = 1 << 16;
  assertEquals(plain.setFeature(NVME_FEAT_ERR_RECOVERY, dulbe), 0x002 | DNR);
  // NSFEAT: atomics and DULBE.
  const session = new Session({ namespace: { nsfeat: 1 << 1 | 1 << 2 } });
  assertEquals(session.send(write(4, 1, 2, 3)), 0);
  assertEquals(session.values(3, 3), [0, 1, 2]);
  assertEquals(session.setFeature(NVME_FEAT_ERR_RECOVERY, dulbe), 0);
  assertEquals(session.values(3, 3), 0x287);
  assertEquals(session.values(4, 3), [1, 2, 3]);
  assertEquals(session.send(dsm([5, 1])), 0);
  assertEquals(session.values(4, 3), 0x287);
  const zeroes = { opcode: NVME_CMD_WRITE_ZEROES, slba: 5 };
  assertEquals(session.send(zeroes), 0);
  assertEquals(session.values(4, 3), [1, 0, 3]);
  assertEquals(session.send({ ...zeroes, cdw12: NVME_WZ_DEAC }), 0);
  assertEquals(session.values(4, 3), 0x287);
  const others = [NVME_CMD_COMPARE, NVME_CMD_VERIFY];
  const status = others.map((opcode) =>
    session.send({ opcode, slba: 5, memory: new Uint8Array(512) })
  );
  assertEquals(status, [0x287, 0x287]);
});

/** Reads a block every 100 ns while a write of several lands; what was seen. */
function readsDuring(session: Session, n: number): number[][] {
  const { queue, clock } = session;
  const seen: number[][] = [];
  queue.add(write(0, ...new Array(n).fill(1)));
  session.ring(queue);
  for (let time = 0; time < 20 * USEC; time += 100) {
    clock.at(time, () => {
      const data = new Uint8Array(512 * n);
      session.controller.namespace.store.readInto(0, data);
      seen.push(Array.from({ length: n }, (_, i) => data[512 * i]!));
    }, undefined);
  }
  clock.runUntil(() => false);
  return seen.filter((row, i) => `${row}` !== `${seen[i - 1]}`);
}

Deno.test("IoCommands lets writes land whole, or piece by piece if it is to tear", () => {
  const zero = [0, 0, 0, 0];
  const one = [1, 1, 1, 1];
  assertEquals(readsDuring(new Session(), 4), [one]);
  const awun = (n: number, nabsn = 0) => ({
    tearing: true,
    controller: { awun: 0, awupf: 0 },
    namespace: { nawun: n - 1, nawupf: 0, nabsn, nabo: 0 },
  });
  assertEquals(readsDuring(new Session(awun(4)), 4), [one]);
  assertEquals(readsDuring(new Session(awun(2)), 4), [[1, 1, 0, 0], one]);
  // Boundaries every third block, from block 0 or 1 on.
  assertEquals(readsDuring(new Session(awun(8, 2)), 4), [[1, 1, 1, 0], one]);
  const shifted = awun(8, 2);
  shifted.namespace.nabo = 1;
  assertEquals(readsDuring(new Session(shifted), 4), [[1, 0, 0, 0], one]);
  assertEquals(readsDuring(new Session(shifted), 2), [[1, 0], [1, 1]]);
  const timed = new Session({ ...OPTANE, ...awun(1) });
  assertEquals(readsDuring(timed, 4), [
    zero,
    [1, 0, 0, 0],
    [1, 1, 0, 0],
    [1, 1, 1, 0],
    one,
  ]);
});

const ZONES: ZoneOptions = {
  size: 2 ** 20,
  blockSize: 512,
  zoneSize: 64 * 512,
  zoneCapacity: 48 * 512,
  conventional: 1,
  maxOpen: 2,
  maxActive: 3,
  flavor: "zns",
  crossRead: false,
  append: true,
  maxAppend: 0,
};

Deno.test("IoCommands carries out zone commands", () => {
  const session = new Session({ ...OPTANE, zones: ZONES });
  const append = { ...write(64, 1, 2), opcode: NVME_CMD_ZONE_APPEND };
  const ends = session.run(session.queue, append, { ...append, cid: 1 });
  assertEquals(ends.map((c) => [c.status, c.result]).toSorted(), [
    [0, 64],
    [0, 66],
  ]);
  assertEquals(session.values(64, 4), [1, 2, 1, 2]);
  assertEquals(session.send(write(70, 1)), 0x1bc | DNR);
  assertEquals(session.send({ ...append, slba: 65 }), 0x002 | DNR);

  const report = new Uint8Array(64 * 3);
  const receive = {
    opcode: NVME_CMD_ZONE_MGMT_RECV,
    cdw12: report.length / 4 - 1,
    memory: report,
  };
  assertEquals(session.send(receive), 0);
  // 32 zones in all; of the second the write pointer is at 68.
  assertEquals([report[0], report[2 * 64 + 24]], [32, 68]);
  assertEquals(session.send({ ...receive, slba: 4096 }), 0x080 | DNR);
  assertEquals(session.send({ ...receive, cdw13: 9 }), 0x002 | DNR);

  const zoneSend = (slba: number, cdw13: number) =>
    session.send({ opcode: NVME_CMD_ZONE_MGMT_SEND, slba, cdw13 });
  assertEquals(zoneSend(64, 2), 0);
  assertEquals(session.send(write(68, 1)), 0x1b9 | DNR);
  assertEquals(zoneSend(64, 4), 0);
  assertEquals(session.values(64, 4), [0, 0, 0, 0]);
  assertEquals(zoneSend(65, 4), 0x002 | DNR);
  assertEquals(zoneSend(64, 1), 0x1bf | DNR);
  assertEquals(zoneSend(0, 4 | 1 << 8), 0);
  // Deallocation is for conventional zones; others keep their blocks.
  session.send(write(0, 7));
  session.send(write(64, 8));
  assertEquals(session.send(dsm([0, 1], [64, 1])), 0);
  assertEquals(session.values(0, 1), [0]);
  assertEquals(session.values(64, 1), [8]);
});

Deno.test("IoCommands gives a zone its place back when a write is aborted", () => {
  const session = new Session({ ...OPTANE, zones: ZONES });
  const { queue } = session;
  queue.add({ ...write(64, 1), cid: 5 });
  session.ring(queue);
  const abort = session.adminCommand({ opcode: 0x08, cdw10: 1 | 5 << 16 });
  assertEquals([abort.status, abort.result], [0, 0]);
  session.clock.runUntil(() => false);
  assertEquals(queue.take().map((c) => [c.cid, c.status]), [[5, 0x007]]);
  session.controller.ringCq(1, queue.head);
  assertEquals(session.send(write(64, 2)), 0);
  assertEquals(session.values(64, 1), [2]);
});

Deno.test("IoCommands gives a zone all places back when its writes are dropped", () => {
  const session = new Session({ ...OPTANE, zones: ZONES });
  const { queue, controller } = session;
  const fill = (q: Ring) => {
    for (let i = 0; i < 4; i++) q.add({ ...write(64 + i, i), cid: i });
    session.ring(q);
  };
  fill(queue);
  const opcode = 0x00;
  assertEquals(session.adminCommand({ opcode, cdw10: 1 }).status, 0);
  const ends = queue.take().map((c) => [c.cid, c.status]);
  assertEquals(ends, [[0, 8], [1, 8], [2, 8], [3, 8]]);
  controller.ringCq(1, queue.head);

  const second = session.createQueue(2, 8);
  fill(second);
  controller.writeRegister(0x14, 0);
  session.enable();
  const third = session.createQueue(1, 8);
  assertEquals(session.status(third, write(64, 9)), 0);
});

Deno.test("IoCommands has faults strike commands whose time has come", () => {
  const session = new Session(OPTANE);
  const { faults } = session.controller.namespace;
  faults.add({ kind: "transient", op: "read", status: "interrupted" });
  assertEquals(session.values(0, 1), 0x021);
  assertEquals(session.values(0, 1), [0]);
  faults.add({ kind: "hang", op: "write" });
  session.queue.add({ ...write(0, 1), cid: 8 });
  session.ring(session.queue);
  session.clock.runUntil(() => false);
  assertEquals(session.queue.take(), []);
  const abort = session.adminCommand({ opcode: 0x08, cdw10: 1 | 8 << 16 });
  assertEquals(abort.result, 0);
  assertEquals(session.queue.take().map((c) => [c.cid, c.status]), [[8, 7]]);
});

Deno.test("IoCommands flushes at once a device without a cache", () => {
  const session = new Session({ controller: { vwc: 0 } });
  assertEquals(session.send({ opcode: NVME_CMD_FLUSH }), 0);
  const cached = new Session({
    controller: { vwc: NVME_CTRL_VWC_PRESENT },
  });
  assertEquals(cached.send(write(0, 1)), 0);
  assertEquals(cached.controller.namespace.store.undecided([]).length, 1);
  assertEquals(cached.send({ opcode: NVME_CMD_FLUSH }), 0);
  assertEquals(cached.controller.namespace.store.undecided([]).length, 0);
});
