import { assertEquals, assertThrows } from "@std/assert";
import {
  Bio,
  BLK_STS_IOERR,
  BLK_STS_OK,
  blkdevIssueFlush,
  type BlockDevice,
  LOG_DISCARD_FLAG,
  LOG_FLUSH_FLAG,
  LOG_FUA_FLAG,
  LOG_MARK_FLAG,
  LOG_METADATA_FLAG,
  LogWritesDevice,
  REQ_FUA,
  REQ_META,
  REQ_OP_DISCARD,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_PREFLUSH,
  submitBioWait,
  WriteLog,
} from "../../../block/mod.ts";
import { USEC, VirtualClock } from "../../../lib/clock.ts";
import { EINVAL, EIO, EOPNOTSUPP, FsError } from "../../../lib/errno.ts";
import { Prng } from "../../../lib/prng.ts";
import { createNvme, mkfsXfs, mount, xfs } from "../../../mod.ts";
import {
  FakeDevice,
  type FakeOptions,
  makeBio,
  settle,
  submit,
} from "../fake_device.ts";
import { assertCleanImage } from "../../fs/xfs/clean.ts";

const FLUSH = REQ_OP_WRITE | REQ_PREFLUSH;

/** Entries as text: flags, sector + sectors, or a mark. */
function shown(log: WriteLog): string[] {
  return log.entries.map(({ flags, sector, nrSectors, data }) =>
    (flags & LOG_MARK_FLAG) !== 0
      ? `mark ${new TextDecoder().decode(data)}`
      : `${flags} ${sector}+${nrSectors}`
  );
}

/** A logged device whose writes take as long as their sector says, us. */
function logged(options: FakeOptions = {}) {
  const time: FakeOptions["time"] = (rq) =>
    (rq.bio === null ? 100 : rq.sector) * USEC;
  const disk = new FakeDevice({ time, ...options });
  return { clock: disk.clock, disk, top: new LogWritesDevice(disk) };
}

Deno.test("LogWritesDevice 131. orders by completion, and by what a flush covers", () => {
  const { clock, top } = logged();
  // W1, W2, W3, C3, C2, Wflush, C1, Cflush.
  submit(makeBio(top, REQ_OP_WRITE, 50, 1));
  submit(makeBio(top, REQ_OP_WRITE, 20, 2));
  submit(makeBio(top, REQ_OP_WRITE, 10, 3));
  clock.at(30 * USEC, () => submit(makeBio(top, FLUSH, 0, 0)), undefined);
  settle(clock);
  assertEquals(shown(top.log), ["0 10+3", "0 20+2", "1 0+0"]);
  submit(makeBio(top, FLUSH, 0, 0));
  settle(clock);
  assertEquals(shown(top.log).slice(3), ["0 50+1", "1 0+0"]);
});

Deno.test("LogWritesDevice logs FUA when it completes, and keeps flags", () => {
  const { clock, top } = logged();
  submit(makeBio(top, REQ_OP_WRITE, 10, 1));
  submit(makeBio(top, REQ_OP_WRITE | REQ_FUA, 40, 1));
  submit(makeBio(top, REQ_OP_WRITE | REQ_FUA | REQ_META, 30, 1));
  submit(makeBio(top, REQ_OP_READ, 5, 1));
  settle(clock);
  const meta = LOG_FUA_FLAG | LOG_METADATA_FLAG;
  assertEquals(shown(top.log), [`${meta} 30+1`, `${LOG_FUA_FLAG} 40+1`]);
  // A flush that comes with data is one of its own, behind what it covers.
  submit(makeBio(top, FLUSH | REQ_FUA, 7, 1));
  settle(clock);
  assertEquals(shown(top.log).slice(2), [
    "0 10+1",
    `${LOG_FLUSH_FLAG} 0+0`,
    `${LOG_FUA_FLAG} 7+1`,
  ]);
});

Deno.test("LogWritesDevice is flushed though the device below has no cache", () => {
  const { clock, disk, top } = logged({ cache: "none" });
  submit(makeBio(top, REQ_OP_WRITE, 10, 1));
  settle(clock);
  assertEquals(shown(top.log), []);
  submit(makeBio(top, FLUSH, 0, 0));
  settle(clock);
  assertEquals(shown(top.log), ["0 10+1", "1 0+0"]);
  assertEquals(disk.log.length, 1);
});

Deno.test("LogWritesDevice logs nothing that failed; the next flush covers what one that failed did not", () => {
  let bad = true;
  const { clock, top } = logged({
    status: (rq) =>
      bad && (rq.bio === null || rq.sector === 20) ? BLK_STS_IOERR : BLK_STS_OK,
  });
  submit(makeBio(top, REQ_OP_WRITE, 10, 1));
  const failed = submit(makeBio(top, REQ_OP_WRITE, 20, 1));
  settle(clock);
  const flush = submit(makeBio(top, FLUSH, 0, 0));
  submit(makeBio(top, REQ_OP_WRITE, 30, 1));
  settle(clock);
  assertEquals([failed.status, flush.status], [BLK_STS_IOERR, BLK_STS_IOERR]);
  assertEquals(shown(top.log), []);
  bad = false;
  submit(makeBio(top, FLUSH, 0, 0));
  settle(clock);
  assertEquals(shown(top.log), ["0 10+1", "0 30+1", "1 0+0"]);
});

Deno.test("LogWritesDevice logs discards without data, and ends them where the device has none", () => {
  for (const below of [0, 2048]) {
    const time = (rq: { bio: unknown }) => (rq.bio === null ? 100 : 10) * USEC;
    const { clock, disk, top } = logged({
      time,
      limits: { maxHwDiscardSectors: below },
    });
    const discard = submit(makeBio(top, REQ_OP_DISCARD, 16, 1000));
    settle(clock);
    submit(makeBio(top, FLUSH, 0, 0));
    settle(clock);
    assertEquals([discard.status, discard.times], [BLK_STS_OK, 1]);
    assertEquals(shown(top.log), [
      `${LOG_DISCARD_FLAG} 16+1000`,
      `${LOG_FLUSH_FLAG} 0+0`,
    ]);
    assertEquals(top.log.entries[0]!.data.length, 0);
    const reached = disk.log.filter((line) => line.startsWith("DISCARD"));
    assertEquals(reached.length, below === 0 ? 0 : 1);
  }
});

Deno.test("LogWritesDevice ends its log before the first write that does not fit", () => {
  const disk = new FakeDevice();
  const top = new LogWritesDevice(disk, { maxBytes: 3 * 512 });
  const flush = () => {
    const ended = submit(makeBio(top, FLUSH, 0, 0));
    settle(disk.clock);
    return ended.status;
  };
  submit(makeBio(top, REQ_OP_WRITE, 0, 1));
  settle(disk.clock);
  assertEquals(flush(), BLK_STS_OK);
  submit(makeBio(top, REQ_OP_WRITE, 1, 2));
  settle(disk.clock);
  assertEquals([top.full, top.log.entries.length], [false, 2]);
  const tooMuch = submit(makeBio(top, REQ_OP_WRITE, 3, 1));
  settle(disk.clock);
  assertEquals([tooMuch.status, top.full], [BLK_STS_OK, true]);
  assertEquals(flush(), BLK_STS_OK);
  top.finish();
  // Sectors 1 and 2 are safe, but so is 3, and that is not in the log.
  assertEquals(shown(top.log), ["0 0+1", `${LOG_FLUSH_FLAG} 0+0`]);
  assertThrows(() => new LogWritesDevice(disk, { maxBytes: -1 }), FsError);
});

Deno.test("LogWritesDevice takes what failed, or is under way when the log gets full, for nothing", () => {
  let bad = true;
  const disk = new FakeDevice({
    status: () => bad ? BLK_STS_IOERR : BLK_STS_OK,
  });
  const top = new LogWritesDevice(disk, { maxBytes: 2 * 512 });
  for (let i = 0; i < 5; i++) {
    submit(makeBio(top, REQ_OP_WRITE, i, 2));
    settle(disk.clock);
  }
  assertEquals(top.full, false);
  bad = false;
  submit(makeBio(top, REQ_OP_WRITE | REQ_FUA, 7, 1));
  submit(makeBio(top, REQ_OP_WRITE | REQ_FUA, 8, 2));
  settle(disk.clock);
  assertEquals([top.full, top.log.entries.length], [true, 0]);
});

Deno.test("LogWritesDevice ends with what no flush covers, and a mark", () => {
  const { clock, top } = logged();
  top.log.mark("begin");
  submit(makeBio(top, REQ_OP_WRITE, 10, 1));
  settle(clock);
  top.finish();
  assertEquals(shown(top.log), [
    "mark begin",
    "0 10+1",
    "mark dm-log-writes-end",
  ]);
});

Deno.test("LogWritesDevice has no WRITE_ZEROES: its users write zeroes", async () => {
  const disk = createNvme(new VirtualClock(), { size: 65536 });
  const top = new LogWritesDevice(disk);
  const zeroes = new Bio(top, REQ_OP_WRITE_ZEROES);
  zeroes.size = 4096;
  assertEquals(await submitBioWait(zeroes), -EOPNOTSUPP);
  disk.close();
});

async function writeBytes(
  bdev: BlockDevice,
  sector: number,
  bytes: Uint8Array,
) {
  const bio = new Bio(bdev, REQ_OP_WRITE);
  bio.sector = sector;
  bio.addData(bytes, 0, bytes.length);
  assertEquals(await submitBioWait(bio), 0);
}

async function contents(bdev: BlockDevice): Promise<Uint8Array> {
  const bio = makeBio(bdev, REQ_OP_READ, 0, bdev.nrSectors);
  assertEquals(await submitBioWait(bio), 0);
  return bio.vecs[0]!.data;
}

Deno.test("WriteLog.replay() gives every prefix, in one go or step by step", async () => {
  const clock = new VirtualClock();
  const size = 32768;
  const disk = createNvme(clock, { size });
  const top = new LogWritesDevice(disk);
  const prng = new Prng(3);
  const states: [number, Uint8Array][] = [];
  for (let i = 0; i < 20; i++) {
    const bytes = new Uint8Array(512 * (1 + prng.below(8))).fill(i + 1);
    await writeBytes(top, prng.below(50), bytes);
    // The writer's memory is its own again.
    bytes.fill(255);
    assertEquals(await blkdevIssueFlush(top), 0);
    states.push([top.log.entries.length, await contents(disk)]);
  }
  const stepped = createNvme(clock, { size });
  let at = 0;
  for (const [end, expected] of states) {
    const fresh = createNvme(clock, { size });
    assertEquals(await top.log.replay(fresh, end), 0);
    assertEquals(await contents(fresh), expected);
    fresh.close();
    assertEquals(await top.log.replay(stepped, end, at), 0);
    assertEquals(await contents(stepped), expected);
    at = end;
  }
  const small = createNvme(clock, { size: 4096 });
  assertEquals(await top.log.replay(small), -EIO);
  for (const [end, start] of [[41, 0], [1, 2], [1.5, 0], [1, -1]] as const) {
    assertEquals(await top.log.replay(small, end, start), -EINVAL);
  }
  for (const device of [disk, stepped, small]) device.close();
});

Deno.test("WriteLog.toBytes() stores what dm-log-writes does", async () => {
  const clock = new VirtualClock();
  const disk = createNvme(clock, { size: 65536, logicalBlockSize: 4096 });
  const top = new LogWritesDevice(disk);
  await writeBytes(top, 16, new Uint8Array(4096).fill(7));
  assertEquals(await blkdevIssueFlush(top), 0);
  top.log.mark("état");
  const bytes = top.log.toBytes();
  const u64 = (at: number) =>
    Number(new DataView(bytes.buffer).getBigUint64(at, true));
  assertEquals(bytes.length, 5 * 4096);
  assertEquals([0, 8, 16].map(u64), [0x6a736677736872, 1, 3]);
  assertEquals(new DataView(bytes.buffer).getUint32(24, true), 4096);
  const entry = (n: number) => [0, 8, 16, 24].map((i) => u64(n * 4096 + i));
  assertEquals(entry(1), [2, 1, 0, 0]);
  assertEquals([bytes[8191], bytes[8192], bytes[12287]], [0, 7, 7]);
  assertEquals(entry(3), [0, 0, LOG_FLUSH_FLAG, 0]);
  assertEquals(entry(4), [0, 0, LOG_MARK_FLAG, 5]);
  const text = bytes.subarray(4 * 4096 + 32, 4 * 4096 + 37);
  assertEquals(new TextDecoder().decode(text), "état");

  const read = WriteLog.fromBytes(bytes);
  assertEquals(read.sectorSize, 4096);
  assertEquals(read.entries, top.log.entries);
  assertEquals([read.findMark("état"), read.findMark("x")], [2, -1]);
  // A log device is larger than its log; and the bytes may lie anywhere.
  const larger = new Uint8Array(bytes.length + 1000);
  larger.set(bytes, 100);
  assertEquals(WriteLog.fromBytes(larger.subarray(100)).entries.length, 3);
  disk.close();
});

Deno.test("WriteLog.replay() zeroes what was discarded", async () => {
  const log = new WriteLog();
  const data = new Uint8Array(2048).fill(1);
  log.push({ sector: 0, nrSectors: 4, flags: 0, data });
  log.push({
    sector: 1,
    nrSectors: 2,
    flags: LOG_DISCARD_FLAG,
    data: new Uint8Array(),
  });
  const read = WriteLog.fromBytes(log.toBytes());
  assertEquals(read.entries, log.entries);
  const disk = createNvme(new VirtualClock(), { size: 4096 });
  assertEquals(await read.replay(disk), 0);
  const seen = await contents(disk);
  assertEquals([0, 512, 1535, 1536].map((i) => seen[i]), [1, 0, 0, 1]);
  disk.close();
});

/** A log of one write and one mark, with bytes changed. */
function spoiled(at: number, ...values: number[]): Uint8Array {
  const log = new WriteLog();
  log.push({ sector: 0, nrSectors: 1, flags: 0, data: new Uint8Array(512) });
  log.mark("m");
  const bytes = log.toBytes();
  bytes.set(values, at);
  return bytes;
}

const damaged: [string, Uint8Array][] = [
  ["Not a write log", new Uint8Array()],
  ["Not a write log", spoiled(0, 0)],
  ["Version 2", spoiled(8, 2)],
  ["sectors of 513", spoiled(24, 1)],
  ["Entry 2 of the write log is cut off", spoiled(16, 3)],
  ["Entry 0 of the write log is cut off", spoiled(512 + 8, 200)],
  ["Entry 0 of the write log has flags 32", spoiled(512 + 16, 32)],
  ["Entry 0 of the write log has sector", spoiled(512 + 7, 255)],
  ["Entry 1 of the write log has a mark too long", spoiled(1536 + 25, 2)],
];
for (const [text, bytes] of damaged) {
  Deno.test(`WriteLog.fromBytes() refuses what cannot be: ${text}`, () => {
    const read = () => WriteLog.fromBytes(bytes);
    assertEquals(assertThrows(read, FsError, text).code, "EINVAL");
  });
}

Deno.test("WriteLog.mark() refuses what does not fit in a sector", () => {
  const log = new WriteLog();
  log.mark("m".repeat(479));
  assertThrows(() => log.mark("m".repeat(480)), FsError, "too long");
  assertEquals(WriteLog.fromBytes(log.toBytes()).entries, log.entries);
});

Deno.test("WriteLog.replay() up to a mark mounts with what there was then", async () => {
  const clock = new VirtualClock();
  const size = 32 * 2 ** 20;
  const disk = createNvme(clock, { size, preset: "optane" });
  const top = new LogWritesDevice(disk);
  await mkfsXfs(top);
  for (const letter of "xy") {
    await using fs = await mount(top, xfs);
    using file = await fs.open("/a", { write: true, create: true });
    await file.write(new TextEncoder().encode(letter.repeat(9000)), { at: 0 });
    file.close();
    await fs.unmount();
    assertCleanImage(disk);
    top.log.mark(letter);
  }
  const log = WriteLog.fromBytes(top.log.toBytes());
  for (const letter of "xy") {
    const copy = createNvme(clock, { size });
    assertEquals(await log.replay(copy, log.findMark(letter) + 1), 0);
    const fs = await mount(copy, xfs);
    const file = await fs.open("/a", { read: true });
    const bytes = new Uint8Array(9000);
    assertEquals(await file.read(bytes, { at: 0 }), 9000);
    assertEquals(new TextDecoder().decode(bytes), letter.repeat(9000));
    file.close();
    await fs.unmount();
    copy.close();
  }
  disk.close();
});
