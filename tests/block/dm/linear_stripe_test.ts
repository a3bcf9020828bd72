import { assertEquals } from "@std/assert";
import {
  Bio,
  BLK_STS_AGAIN,
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_NOTSUPP,
  BLK_STS_OK,
  type BlockDevice,
  LinearDevice,
  REQ_FUA,
  REQ_NOWAIT,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_POLLED,
  REQ_PREFLUSH,
  StripeDevice,
  submitBio,
  submitBioWait,
} from "../../../block/mod.ts";
import { USEC, VirtualClock } from "../../../lib/clock.ts";
import {
  FakeDevice,
  type FakeOptions,
  makeBio,
  settle,
  submit,
} from "../fake_device.ts";

/** Legs that write to one log, each line with the leg's number in front. */
function legs(n: number, options: FakeOptions[] = []) {
  const clock = new VirtualClock();
  const log: string[] = [];
  const made = Array.from({ length: n }, (_, i) => {
    const device = new FakeDevice(options[i] ?? options[0] ?? {}, clock);
    device.log.push = (line) => log.push(`${i} ${line}`);
    return device;
  });
  return { clock, log, legs: made };
}

/** What a bio ends with, and how often. */
function run(device: BlockDevice, opf: number, at: number, sectors: number) {
  const ended = submit(makeBio(device, opf, at, sectors));
  settle(device.clock);
  return [ended.status, ended.times];
}

Deno.test("LinearDevice 23. adds its start once, also to what is split", () => {
  const disk = new FakeDevice({ limits: { maxHwSectors: 8 } });
  const part = new LinearDevice(disk, { startSector: 1000, nrSectors: 64 });
  const inner = new LinearDevice(part, { startSector: 8 });
  assertEquals(run(inner, REQ_OP_WRITE, 8, 24), [BLK_STS_OK, 1]);
  assertEquals(disk.log.map((l) => l.split(" ")[1]), [
    "1016+8",
    "1024+8",
    "1032+8",
  ]);
});

Deno.test("LinearDevice leaves the bio as it was submitted", () => {
  const disk = new FakeDevice({ limits: { maxHwSectors: 8 } });
  const part = new LinearDevice(disk, { startSector: 1000 });
  const bio = makeBio(part, REQ_OP_WRITE, 8, 24);
  submit(bio);
  settle(disk.clock);
  assertEquals([bio.bdev, bio.sector, bio.size], [part, 8, 24 * 512]);
});

Deno.test("LinearDevice ends with IOERR beyond its end, though the disk goes on", () => {
  const disk = new FakeDevice();
  const part = new LinearDevice(disk, { startSector: 1000, nrSectors: 64 });
  assertEquals(run(part, REQ_OP_READ, 57, 8), [BLK_STS_IOERR, 1]);
  assertEquals(run(part, REQ_OP_READ, 64, 1), [BLK_STS_IOERR, 1]);
  assertEquals(disk.log, []);
  assertEquals(run(part, REQ_OP_READ, 56, 8), [BLK_STS_OK, 1]);
  assertEquals(disk.log.length, 1);
});

Deno.test("LinearDevice passes flush and FUA", () => {
  const disk = new FakeDevice();
  const part = new LinearDevice(disk, { startSector: 1000 });
  assertEquals(run(part, REQ_OP_WRITE | REQ_PREFLUSH, 0, 0), [BLK_STS_OK, 1]);
  run(part, REQ_OP_WRITE | REQ_FUA | REQ_PREFLUSH, 0, 8);
  assertEquals(disk.log, [
    "FLUSH @0",
    "FLUSH @100",
    "WRITE+FUA 1000+8 @200",
  ]);
});

Deno.test("DmDevice refuses what is polled or not aligned to logical blocks", () => {
  const { legs: disks, log } = legs(2, [{
    limits: { logicalBlockSize: 4096 },
  }]);
  const top = new StripeDevice(disks, { chunkSectors: 8 });
  // Two chunks: a bio that is split loses POLLED.
  assertEquals(run(top, REQ_OP_READ | REQ_POLLED, 0, 16), [BLK_STS_NOTSUPP, 1]);
  assertEquals(run(top, REQ_OP_READ, 1, 8), [BLK_STS_IOERR, 1]);
  assertEquals(run(top, REQ_OP_READ, 8, 9), [BLK_STS_IOERR, 1]);
  assertEquals(log, []);
});

Deno.test("StripeDevice puts chunk after chunk on device after device", () => {
  const { legs: disks, log } = legs(3);
  const top = new StripeDevice(disks, { chunkSectors: 16 });
  assertEquals(run(top, REQ_OP_WRITE, 40, 80), [BLK_STS_OK, 1]);
  assertEquals(log, [
    "2 WRITE 8+8 @0",
    "0 WRITE 16+16 @0",
    "1 WRITE 16+16 @0",
    "2 WRITE 16+16 @0",
    "0 WRITE 32+16 @0",
    "1 WRITE 32+8 @0",
  ]);
});

Deno.test("StripeDevice has the whole chunks of its smallest device on each", () => {
  const { legs: disks } = legs(2, [{ nrSectors: 100 }, { nrSectors: 999 }]);
  const top = new StripeDevice(disks, { chunkSectors: 24 });
  assertEquals(top.nrSectors, 192);
  assertEquals(run(top, REQ_OP_READ, 191, 1), [BLK_STS_OK, 1]);
  assertEquals(run(top, REQ_OP_READ, 192, 1), [BLK_STS_IOERR, 1]);
});

Deno.test("StripeDevice flushes every device, and data waits for the last", () => {
  const slow: FakeOptions = {
    time: (rq) => (rq.bio === null ? 300 : 10) * USEC,
  };
  const { legs: disks, log } = legs(2, [{}, slow]);
  const top = new StripeDevice(disks, { chunkSectors: 8 });
  const empty = submit(makeBio(top, REQ_OP_WRITE | REQ_PREFLUSH, 0, 0));
  settle(top.clock);
  assertEquals([empty.status, empty.times, empty.at], [BLK_STS_OK, 1, 300]);
  run(top, REQ_OP_WRITE | REQ_PREFLUSH | REQ_FUA, 8, 16);
  assertEquals(log, [
    "0 FLUSH @0",
    "1 FLUSH @0",
    "0 FLUSH @300",
    "1 FLUSH @300",
    "1 WRITE+FUA 0+8 @600",
    "0 WRITE+FUA 8+8 @600",
  ]);
});

Deno.test("StripeDevice strips flushes for a device without a cache only, and flushes after FUA where it must", () => {
  const { legs: disks, log } = legs(2, [
    { cache: "none" },
    { cache: "no-fua" },
  ]);
  const top = new StripeDevice(disks, { chunkSectors: 8 });
  run(top, REQ_OP_WRITE | REQ_PREFLUSH, 0, 0);
  run(top, REQ_OP_WRITE | REQ_FUA, 0, 16);
  run(top, REQ_OP_WRITE | REQ_FUA, 0, 0);
  assertEquals(log, [
    "1 FLUSH @0",
    "0 WRITE 0+8 @100",
    "1 WRITE 0+8 @100",
    "1 FLUSH @110",
    // What has neither data nor PREFLUSH goes to one device, as a read would.
  ]);
});

Deno.test("StripeDevice writes no data when a flush has failed", () => {
  const failing: FakeOptions = {
    status: (rq) => rq.bio === null ? BLK_STS_MEDIUM : BLK_STS_OK,
  };
  const { legs: disks, log } = legs(2, [{}, failing]);
  const top = new StripeDevice(disks, { chunkSectors: 8 });
  assertEquals(run(top, REQ_OP_WRITE | REQ_PREFLUSH, 0, 16), [
    BLK_STS_MEDIUM,
    1,
  ]);
  assertEquals(log, ["0 FLUSH @0", "1 FLUSH @0"]);
});

Deno.test("StripeDevice splits WRITE_ZEROES by chunks", () => {
  const { legs: disks } = legs(2, [{ limits: { maxWriteZeroesSectors: 64 } }]);
  const seen: string[] = [];
  for (const [i, disk] of disks.entries()) {
    const submit = disk.submit.bind(disk);
    disk.submit = (bio) => {
      seen.push(`${i} ${bio.sector}+${bio.size / 512}`);
      submit(bio);
    };
  }
  const top = new StripeDevice(disks, { chunkSectors: 8 });
  const bio = new Bio(top, REQ_OP_WRITE_ZEROES);
  bio.sector = 4;
  bio.size = 16 * 512;
  const ended = submit(bio);
  settle(top.clock);
  assertEquals([ended.status, ended.times], [BLK_STS_OK, 1]);
  assertEquals(seen, ["0 4+4", "1 0+8", "0 8+4"]);
});

Deno.test("StripeDevice 13. ends NOWAIT with AGAIN where it has to split", () => {
  const { legs: disks, log } = legs(2);
  const top = new StripeDevice(disks, { chunkSectors: 8 });
  const opf = REQ_OP_READ | REQ_NOWAIT;
  assertEquals(run(top, opf, 4, 8), [BLK_STS_AGAIN, 1]);
  assertEquals(log, []);
  assertEquals(run(top, opf, 8, 8), [BLK_STS_OK, 1]);
});

Deno.test("StripeDevice 28. bios for lower devices go before the rest of its own", () => {
  const { legs: disks } = legs(2);
  const seen: string[] = [];
  const inner = new StripeDevice(disks, { chunkSectors: 8, minor: 1 });
  const outer = new StripeDevice([inner], { chunkSectors: 16, minor: 2 });
  for (const device of [...disks, inner, outer]) {
    const submit = device.submit.bind(device);
    device.submit = (bio) => {
      seen.push(`${device.name} ${bio.sector}+${bio.size / 512}`);
      submit(bio);
      seen.push("-");
    };
  }
  assertEquals(run(outer, REQ_OP_READ, 0, 32), [BLK_STS_OK, 1]);
  const leaf = (sector: number) => [`fake0 ${sector}+8`, "-"];
  assertEquals(seen, [
    ...["dm-2 0+32", "-", "dm-1 0+16", "-", ...leaf(0)],
    ...["dm-1 8+8", "-", ...leaf(0)],
    ...["dm-2 16+16", "-", "dm-1 16+16", "-", ...leaf(8)],
    ...["dm-1 24+8", "-", ...leaf(8)],
  ]);
});

Deno.test("StripeDevice 29, 30. the first error wins, and the end waits for all", () => {
  const fails = (status: number, us: number): FakeOptions => ({
    status: () => status,
    time: () => us * USEC,
  });
  const { legs: disks, log } = legs(3, [
    fails(BLK_STS_IOERR, 50),
    fails(BLK_STS_MEDIUM, 20),
    fails(BLK_STS_OK, 90),
  ]);
  const top = new StripeDevice(disks, { chunkSectors: 8 });
  const ended = submit(makeBio(top, REQ_OP_READ, 0, 24));
  settle(top.clock);
  assertEquals([ended.status, ended.times, ended.at], [BLK_STS_MEDIUM, 1, 90]);
  assertEquals(log.length, 3);
});

Deno.test("StripeDevice a bio of 10,000 chunks that all end at once ends once", () => {
  const { legs: disks } = legs(2, [{ time: () => 0 }]);
  const top = new StripeDevice(disks, { chunkSectors: 1 });
  const bio = new Bio(top, REQ_OP_READ);
  bio.addData(new Uint8Array(10_000 * 512), 0, 10_000 * 512);
  let ends = 0;
  bio.endIo = () => ends++;
  submitBio(bio);
  assertEquals([ends, bio.status], [1, BLK_STS_OK]);
});

Deno.test("StripeDevice a synchronous caller's flush with data ends, also from within a submission", () => {
  const { legs: disks, clock } = legs(2);
  const top = new StripeDevice(disks, { chunkSectors: 8 });
  const instant = new FakeDevice({ time: () => 0 }, clock);
  const outer = makeBio(instant, REQ_OP_READ, 0, 8);
  let answer: unknown;
  outer.endIo = () => {
    clock.enterSync();
    answer = submitBioWait(makeBio(top, REQ_OP_WRITE | REQ_PREFLUSH, 0, 16));
    clock.leaveSync();
  };
  submitBio(outer);
  assertEquals(answer, 0);
});
