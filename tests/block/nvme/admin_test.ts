import { assertEquals } from "@std/assert";
import {
  decodeCommandSet,
  decodeController,
  decodeNamespace,
  decodeNvmController,
  decodeZonedController,
  decodeZonedNamespace,
} from "../../../block/nvme/identify.ts";
import {
  NVME_ADMIN_ABORT_CMD,
  NVME_ADMIN_ASYNC_EVENT,
  NVME_ADMIN_CREATE_CQ,
  NVME_ADMIN_CREATE_SQ,
  NVME_ADMIN_DELETE_CQ,
  NVME_ADMIN_DELETE_SQ,
  NVME_ADMIN_FORMAT_NVM,
  NVME_ADMIN_GET_FEATURES,
  NVME_ADMIN_GET_LOG_PAGE,
  NVME_ADMIN_IDENTIFY,
  NVME_ADMIN_SET_FEATURES,
  NVME_CMD_FLUSH,
  NVME_CMD_READ,
  NVME_CMD_WRITE,
  NVME_FEAT_ARBITRATION,
  NVME_FEAT_ASYNC_EVENT,
  NVME_FEAT_IRQ_COALESCE,
  NVME_FEAT_IRQ_CONFIG,
  NVME_FEAT_NUM_QUEUES,
  NVME_FEAT_VOLATILE_WC,
  NVME_FEAT_WRITE_ATOMIC,
  NVME_FEAT_WRITE_PROTECT,
  NVME_LOG_CMD_EFFECTS,
  NVME_LOG_ERROR,
  NVME_LOG_SMART,
  NVME_REG_CC,
} from "../../../block/nvme/nvme.ts";
import { NVME_PRESETS } from "../../../block/nvme/presets.ts";
import { CompletionQueue, SubmissionQueue } from "../../../block/nvme/queue.ts";
import type { ZoneOptions } from "../../../block/nvme/zns.ts";
import { DNR, RawHost, Ring, type Sqe } from "./raw_host.ts";

const CACHED = { preset: NVME_PRESETS["mlc-970pro"] };
const OPTANE = { preset: NVME_PRESETS.optane };
const ZONES: ZoneOptions = {
  size: 2 ** 20,
  blockSize: 512,
  zoneSize: 64 * 512,
  zoneCapacity: 48 * 512,
  conventional: 1,
  maxOpen: 14,
  maxActive: 0,
  flavor: "zns",
  crossRead: true,
  append: true,
  maxAppend: 16384,
};

/** An Identify, and its answer if it succeeded. */
function identify(host: RawHost, cns: number, nsid = 1, csi = 0) {
  const memory = new Uint8Array(4096).fill(0xee);
  const { status } = host.adminCommand({
    opcode: NVME_ADMIN_IDENTIFY,
    nsid,
    cdw10: cns,
    cdw11: csi * 2 ** 24,
    memory,
  });
  return { status, data: memory };
}

Deno.test("Identify tells of the controller", () => {
  const host = new RawHost({
    ...CACHED,
    controller: { crdt: [1, 20, 300], acwu: 7, rab: 2 },
  });
  const { status, data } = identify(host, 1, 0);
  assertEquals(status, 0);
  const id = decodeController(data);
  assertEquals(id.crdt, [1, 20, 300]);
  assertEquals([id.acwu, id.rab, id.acl, id.aerl], [7, 2, 3, 3]);
  assertEquals([id.vwc & 1, id.fuses, id.mdts], [1, 1, 7]);
  assertEquals(id.model, NVME_PRESETS["mlc-970pro"].model);
  // Offsets of struct nvme_id_ctrl: SQES, CQES, NN, CRDT1.
  const view = new DataView(data.buffer);
  assertEquals([data[512], data[513], data[128]], [0x66, 0x44, 1]);
  assertEquals(view.getUint32(516, true), 1);
  assertEquals(view.getUint32(80, true), 0x2_0000);
});

Deno.test("Identify tells of the namespace", () => {
  const given = {
    nsfeat: 2,
    dlfeat: 9,
    nawun: 63,
    nawupf: 7,
    nacwu: 3,
    nabsn: 127,
    nabo: 4,
    nabspf: 15,
    noiob: 256,
    npwg: 7,
    npwa: 6,
    npdg: 5,
    npda: 4,
    nows: 255,
    mssrl: 64,
    mcl: 1000,
    msrc: 3,
  };
  const host = new RawHost({ namespace: given });
  const { data } = identify(host, 0);
  const id = decodeNamespace(data);
  assertEquals(id, { ...given, blocks: 2048, blockSize: 512, nsattr: 0 });
  // Offsets of struct nvme_id_ns.
  const view = new DataView(data.buffer);
  const fields = [34, 36, 38, 40, 42, 44, 46, 64, 66, 68, 70, 72, 74];
  assertEquals(
    fields.map((at) => view.getUint16(at, true)),
    [63, 7, 3, 127, 4, 15, 256, 7, 6, 5, 4, 255, 64],
  );
  assertEquals([data[24], data[33], data[80], data[130], data[134]], [
    2,
    9,
    3,
    9,
    12,
  ]);
});

Deno.test("Identify tells of zones where there are some", () => {
  const host = new RawHost({ zones: ZONES });
  assertEquals(decodeCommandSet(identify(host, 3).data), 2);
  const zoned = decodeZonedNamespace(identify(host, 5, 1, 2).data, 512);
  const none = 0xffff_ffff;
  assertEquals(zoned, { zoc: 0, ozcs: 1, mar: none, mor: 13, zsze: 64 });
  assertEquals(decodeZonedController(identify(host, 6, 1, 2).data), 2);

  const plain = new RawHost({ nvm: { wzsl: 3, dmrl: 8 } });
  assertEquals(decodeCommandSet(identify(plain, 3).data), 0);
  const nvm = decodeNvmController(identify(plain, 6).data);
  assertEquals(nvm, { vsl: 0, wzsl: 3, wusl: 0, dmrl: 8, dmrsl: 0 });
  assertEquals(identify(plain, 5).data, new Uint8Array(4096));
  assertEquals(identify(plain, 5, 1, 2).status, 0x002 | DNR);
  assertEquals(identify(plain, 6, 1, 2).status, 0x002 | DNR);
});

Deno.test("Identify lists the namespace, and knows no other", () => {
  const host = new RawHost();
  const first = (nsid: number) => identify(host, 2, nsid).data[0];
  assertEquals([first(0), first(1)], [1, 0]);
  const status = (cns: number, nsid: number) =>
    identify(host, cns, nsid).status;
  assertEquals(status(2, 0xffff_ffff), 0x00b | DNR);
  assertEquals(status(0, 2), 0x00b | DNR);
  assertEquals(status(0, 0xffff_ffff), 0);
  assertEquals(status(3, 0), 0x00b | DNR);
  assertEquals(status(0x10, 1), 0x002 | DNR);
  const nowhere = { opcode: NVME_ADMIN_IDENTIFY, cdw10: 1, memory: null };
  assertEquals(host.adminCommand(nowhere).status, 0x004 | DNR);
});

/** Word 10 of a queue's creation. */
function queueWord(qid: number, entries: number): number {
  return qid | (entries - 1) << 16;
}

Deno.test("Create Queue refuses numbers, sizes and vectors that cannot be", () => {
  const host = new RawHost();
  host.createQueue(1, 8);
  const cq = (qid: number, entries: number, cdw11 = 3): Sqe => ({
    opcode: NVME_ADMIN_CREATE_CQ,
    cdw10: queueWord(qid, entries),
    cdw11,
    memory: new CompletionQueue(qid, entries),
  });
  const sq = (qid: number, entries: number, cqid = 1): Sqe => ({
    opcode: NVME_ADMIN_CREATE_SQ,
    cdw10: queueWord(qid, entries),
    cdw11: 1 | cqid << 16,
    memory: new SubmissionQueue(qid, entries),
  });
  const refused: [string, Sqe, number][] = [
    ["the admin queue", cq(0, 8), 0x101],
    ["a number that is taken", cq(1, 8), 0x101],
    ["a number beyond all", cq(60000, 8), 0x101],
    ["one entry", cq(2, 1), 0x102],
    ["no vector", cq(2, 8, 3 | 60000 << 16), 0x108],
    ["scattered memory", cq(2, 8, 2), 0x002],
    ["other memory", { ...cq(2, 8), memory: new CompletionQueue(2, 9) }, 0x002],
    ["no memory", { ...cq(2, 8), memory: null }, 0x002],
    ["a completion queue that is not there", sq(2, 8, 5), 0x100],
    ["the admin queue's completions", sq(2, 8, 0), 0x100],
    ["a number that is taken", sq(1, 8), 0x101],
    ["one entry", sq(2, 1), 0x102],
  ];
  for (const [name, sqe, status] of refused) {
    assertEquals(host.adminCommand(sqe).status, status | DNR, name);
  }
  assertEquals(host.adminCommand(sq(2, 8)).status, 0);
});

Deno.test("Delete Queue ends what is under way, submission queues first", () => {
  const host = new RawHost(OPTANE);
  const queue = host.createQueue(1, 8);
  for (const cid of [4, 5]) {
    queue.add({ opcode: NVME_CMD_READ, cid, memory: new Uint8Array(512) });
  }
  host.ring(queue);
  const remove = (opcode: number, qid: number) =>
    host.adminCommand({ opcode, cdw10: qid }).status;
  assertEquals(remove(NVME_ADMIN_DELETE_CQ, 1), 0x10c | DNR);
  assertEquals(remove(NVME_ADMIN_DELETE_SQ, 1), 0);
  assertEquals(queue.take().map((c) => [c.cid, c.status]), [[4, 8], [5, 8]]);
  assertEquals(remove(NVME_ADMIN_DELETE_SQ, 1), 0x101 | DNR);
  assertEquals(remove(NVME_ADMIN_DELETE_CQ, 1), 0);
  assertEquals(remove(NVME_ADMIN_DELETE_CQ, 1), 0x101 | DNR);
  assertEquals(remove(NVME_ADMIN_DELETE_SQ, 0), 0x101 | DNR);
  host.clock.runUntil(() => false);
  assertEquals(queue.take(), []);
  assertEquals(host.status(host.createQueue(1, 8), { opcode: 0 }), 0);
});

function set(host: RawHost, cdw10: number, cdw11: number) {
  return host.adminCommand({ opcode: NVME_ADMIN_SET_FEATURES, cdw10, cdw11 });
}

/** Value of a feature; word 10 also selects which. */
function get(host: RawHost, cdw10: number, cdw11 = 0) {
  const opcode = NVME_ADMIN_GET_FEATURES;
  const { status, result } = host.adminCommand({ opcode, cdw10, cdw11 });
  return status === 0 ? result : -status;
}

Deno.test("Features keep what they are set to, until a reset", () => {
  const host = new RawHost(CACHED);
  const values: [number, number, number][] = [
    [NVME_FEAT_ARBITRATION, 3, 0x0102_0304],
    [NVME_FEAT_IRQ_COALESCE, 0, 0x0205],
    [NVME_FEAT_WRITE_ATOMIC, 0, 1],
    [NVME_FEAT_ASYNC_EVENT, 0, 0x100],
    [NVME_FEAT_VOLATILE_WC, 1, 0],
  ];
  for (const [fid, initial, value] of values) {
    assertEquals(get(host, fid), initial);
    assertEquals(set(host, fid, value).status, 0);
    assertEquals(get(host, fid), value);
    assertEquals(get(host, fid | 1 << 8), initial);
    // Changeable, and of the controller.
    assertEquals(get(host, fid | 3 << 8), 4);
    // None can be kept over a reset.
    assertEquals(set(host, fid + 2 ** 31, value).status, 0x10d | DNR);
  }
  host.controller.writeRegister(NVME_REG_CC, 0);
  host.enable();
  for (const [fid, initial] of values) assertEquals(get(host, fid), initial);
});

Deno.test("Features that are not there are invalid fields", () => {
  const host = new RawHost();
  for (const fid of [0x02, 0x04, 0x0c, 0x99]) {
    assertEquals(set(host, fid, 0).status, 0x002 | DNR);
    assertEquals(get(host, fid), -(0x002 | DNR));
  }
  // Of a device without a cache.
  assertEquals(set(host, NVME_FEAT_VOLATILE_WC, 1).status, 0x002 | DNR);
  assertEquals(get(host, NVME_FEAT_WRITE_PROTECT | 3 << 8), 6);
  assertEquals(set(host, NVME_FEAT_WRITE_PROTECT, 2).status, 0x002 | DNR);
  assertEquals(get(host, NVME_FEAT_IRQ_CONFIG, 0), 1 << 16);
});

Deno.test("Number of Queues is granted as asked, before there are queues", () => {
  const host = new RawHost();
  const asked = set(host, NVME_FEAT_NUM_QUEUES, 7 | 3 << 16);
  assertEquals([asked.status, asked.result], [0, 7 | 3 << 16]);
  const many = set(host, NVME_FEAT_NUM_QUEUES, 60000);
  assertEquals(many.result, 1023);
  assertEquals(set(host, NVME_FEAT_NUM_QUEUES, 0xffff).status, 0x002 | DNR);
  host.createQueue(1, 8);
  assertEquals(set(host, NVME_FEAT_NUM_QUEUES, 7).status, 0x00c | DNR);
});

/** A log page from `offset` on. */
function log(host: RawHost, lid: number, len = 512, offset = 0, csi = 0) {
  const memory = new Uint8Array(len);
  const { status } = host.adminCommand({
    opcode: NVME_ADMIN_GET_LOG_PAGE,
    cdw10: lid | (len / 4 - 1) << 16,
    cdw12: offset,
    cdw14: csi * 2 ** 24,
    memory,
  });
  return { status, view: new DataView(memory.buffer) };
}

Deno.test("Get Log Page has health with real counters", () => {
  const host = new RawHost();
  const queue = host.createQueue(1, 8);
  const memory = new Uint8Array(4096 * 200);
  const sqe = { opcode: NVME_CMD_WRITE, cdw12: 1599, memory };
  host.run(queue, sqe, { ...sqe, opcode: NVME_CMD_READ, cid: 1 });
  host.run(queue, { ...sqe, opcode: NVME_CMD_READ, cid: 2 });
  host.controller.powerOff();
  host.controller.powerOn();
  host.enable();
  const { view } = log(host, NVME_LOG_SMART);
  const at = (offset: number) => Number(view.getBigUint64(offset, true));
  // Thousands of 512 bytes, read and written; commands; cycles, without a shutdown.
  assertEquals([at(32), at(48), at(64), at(80)], [4, 2, 2, 1]);
  assertEquals([at(112), at(144), at(160)], [2, 1, 0]);
});

Deno.test("Get Log Page has the last errors, newest first", () => {
  const host = new RawHost();
  const queue = host.createQueue(1, 128);
  for (let i = 0; i < 70; i++) {
    host.status(queue, { opcode: NVME_CMD_READ, cid: i, slba: 5000 + i });
  }
  const { view } = log(host, NVME_LOG_ERROR, 4096);
  const entry = (i: number) => [
    Number(view.getBigUint64(64 * i, true)),
    view.getUint16(64 * i + 8, true),
    view.getUint16(64 * i + 10, true),
    view.getUint16(64 * i + 12, true) >>> 1,
  ];
  assertEquals(entry(0), [70, 1, 69, 0x080 | DNR]);
  assertEquals(entry(63), [7, 1, 6, 0x080 | DNR]);
  const second = log(host, NVME_LOG_ERROR, 64, 64).view;
  assertEquals(Number(second.getBigUint64(0, true)), 69);
});

Deno.test("Get Log Page has effects, firmware and changes, and nothing else", () => {
  const host = new RawHost();
  const zoned = new RawHost({ zones: ZONES });
  const append = 4 * (256 + 0x7d);
  const effects = (h: RawHost, csi: number) =>
    log(h, NVME_LOG_CMD_EFFECTS, 4096, 0, csi);
  assertEquals(effects(host, 0).view.getUint8(append), 0);
  assertEquals(effects(host, 0).view.getUint8(4 * 256 + 4), 3);
  assertEquals(effects(host, 2).status, 0x109 | DNR);
  assertEquals(effects(zoned, 2).view.getUint8(append), 3);
  assertEquals(log(host, 0x03).view.getUint8(0), 1);
  assertEquals(log(host, 0x04, 4096).status, 0);
  assertEquals(log(host, 0x70).status, 0x109 | DNR);
  assertEquals(log(host, NVME_LOG_SMART, 512, 516).status, 0x002 | DNR);
  assertEquals(log(host, NVME_LOG_SMART, 512, 2).status, 0x002 | DNR);
});

Deno.test("Abort takes a command back, and says whether it did", () => {
  const host = new RawHost(OPTANE);
  const queue = host.createQueue(1, 8);
  const memory = new Uint8Array(512).fill(7);
  queue.add({ opcode: NVME_CMD_WRITE, cid: 5, memory });
  queue.add({ opcode: NVME_CMD_WRITE, cid: 6, slba: 1, memory });
  host.ring(queue);
  const abort = (qid: number, cid: number) => {
    const cdw10 = qid | cid << 16;
    return host.adminCommand({ opcode: NVME_ADMIN_ABORT_CMD, cdw10 });
  };
  assertEquals([abort(1, 5).result, abort(1, 9).result, abort(9, 5).result], [
    0,
    1,
    1,
  ]);
  // Its own: it is too late for that.
  const own = { opcode: NVME_ADMIN_ABORT_CMD, cid: 3, cdw10: 3 << 16 };
  const { status, result } = host.adminCommand(own);
  assertEquals([status, result], [0, 1]);
  host.clock.runUntil(() => false);
  assertEquals(queue.take().map((c) => [c.cid, c.status]), [[5, 7], [6, 0]]);
  const data = new Uint8Array(1024);
  host.media.read(0, data, 0, 1024);
  assertEquals([data[0], data[512]], [0, 7]);
});

Deno.test("Abort takes both halves of a fused pair back", () => {
  const host = new RawHost(OPTANE);
  const queue = host.createQueue(1, 8);
  const memory = new Uint8Array(512);
  queue.add({ opcode: 0x05, cid: 1, fuse: 1, memory });
  queue.add({ opcode: 0x01, cid: 2, fuse: 2, memory });
  host.ring(queue);
  const cdw10 = 1 | 1 << 16;
  host.adminCommand({ opcode: NVME_ADMIN_ABORT_CMD, cdw10 });
  assertEquals(queue.take().map((c) => [c.cid, c.status]), [[1, 7], [2, 9]]);
  host.clock.runUntil(() => false);
  assertEquals(queue.take(), []);
});

Deno.test("Asynchronous Event Request has a limit, and can be aborted", () => {
  const host = new RawHost();
  const { admin } = host;
  for (let cid = 1; cid <= 5; cid++) {
    admin.add({ opcode: NVME_ADMIN_ASYNC_EVENT, cid });
  }
  host.ring(admin);
  assertEquals(admin.take().map((c) => [c.cid, c.status]), [[5, 0x105 | DNR]]);
  host.controller.ringCq(0, admin.head);
  admin.add({ opcode: NVME_ADMIN_ABORT_CMD, cid: 9, cdw10: 2 << 16 });
  host.ring(admin);
  const ends = admin.take().map((c) => [c.cid, c.status, c.result]);
  assertEquals(ends, [[2, 7, 0], [9, 0, 0]]);
});

Deno.test("Format empties the namespace, and may change its blocks", () => {
  const host = new RawHost(CACHED);
  const queue = host.createQueue(1, 8);
  const memory = new Uint8Array(512).fill(7);
  assertEquals(host.status(queue, { opcode: NVME_CMD_WRITE, memory }), 0);
  const format = (cdw10: number, nsid = 1) => {
    const opcode = NVME_ADMIN_FORMAT_NVM;
    return host.adminCommand({ opcode, cdw10, nsid }).status;
  };
  assertEquals(format(2), 0x10a | DNR);
  assertEquals(format(1 << 5), 0x10a | DNR);
  assertEquals(format(3 << 9), 0x002 | DNR);
  assertEquals(format(1, 2), 0x00b | DNR);
  queue.add({ opcode: NVME_CMD_FLUSH });
  host.ring(queue);
  assertEquals(format(1), 0x00c | DNR);
  host.clock.runUntil(() => false);
  queue.take();
  host.controller.ringCq(1, queue.head);
  // 4096 bytes, user data erase.
  assertEquals(format(1 | 1 << 9), 0);
  const id = decodeNamespace(identify(host, 0).data);
  assertEquals([id.blockSize, id.blocks], [4096, 256]);
  const page = new Uint8Array(4096).fill(0xee);
  const read = { opcode: NVME_CMD_READ, memory: page };
  assertEquals(host.status(queue, read), 0);
  assertEquals(page, new Uint8Array(4096));
  assertEquals(host.status(queue, { ...read, slba: 256 }), 0x080 | DNR);
});

Deno.test("Format leaves the cache off", () => {
  const host = new RawHost(CACHED);
  assertEquals(set(host, NVME_FEAT_VOLATILE_WC, 0).status, 0);
  const format = { opcode: NVME_ADMIN_FORMAT_NVM, cdw10: 0 };
  assertEquals(host.adminCommand(format).status, 0);
  assertEquals(get(host, NVME_FEAT_VOLATILE_WC), 0);
  assertEquals(host.controller.namespace.store.volatile, false);
});

Deno.test("Format leaves a namespace alone that is write protected", () => {
  const host = new RawHost();
  const queue = host.createQueue(1, 4);
  const data = new Uint8Array(512).fill(1);
  assertEquals(
    host.status(queue, { opcode: NVME_CMD_WRITE, memory: data }),
    0,
  );
  assertEquals(set(host, NVME_FEAT_WRITE_PROTECT, 1).status, 0);
  const format = { opcode: NVME_ADMIN_FORMAT_NVM, cdw10: 0 };
  assertEquals(host.adminCommand(format).status, 0x020 | DNR);
  data.fill(0);
  host.run(queue, { opcode: NVME_CMD_READ, memory: data });
  assertEquals(data[0], 1);
});

Deno.test("Admin commands that are not there are invalid opcodes", () => {
  const host = new RawHost();
  for (const opcode of [0x0d, 0x10, 0x7c, 0x84, 0xff]) {
    assertEquals(host.adminCommand({ opcode }).status, 0x001 | DNR);
  }
  const fused = { opcode: NVME_ADMIN_IDENTIFY, fuse: 1 };
  assertEquals(host.adminCommand(fused).status, 0x002 | DNR);
  assertEquals(new Ring(1, 2).take(), []);
});
