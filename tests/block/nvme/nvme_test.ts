import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  createNvme,
  type CutOptions,
  type CutReport,
  cutStates,
  type Media,
  MemoryMedia,
  NVME_PRESETS,
  type NvmeDevice,
  type NvmeOptions,
} from "../../../block/nvme/mod.ts";
import {
  Bio,
  BLK_FEAT_DAX,
  BLK_FEAT_ROTATIONAL,
  BLK_FEAT_SYNCHRONOUS,
  BLK_FEAT_ZONED,
  BLK_STS_AGAIN,
  BLK_STS_INVAL,
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_OFFLINE,
  BLK_STS_OK,
  BLK_STS_TARGET,
  BLK_ZONE_COND_EMPTY,
  BLK_ZONE_COND_OFFLINE,
  BLK_ZONE_COND_READONLY,
  BLK_ZONE_TYPE_CONVENTIONAL,
  BLK_ZONE_TYPE_SEQWRITE_REQ,
  blkdevIssueFlush,
  blkdevIssueZeroout,
  blkdevReportZones,
  blkFinishPlug,
  blkStartPlug,
  type BlkZone,
  REQ_FUA,
  REQ_NOWAIT,
  REQ_OP_DISCARD,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_OP_ZONE_APPEND,
  REQ_POLLED,
  REQ_PREFLUSH,
  submitBio,
  submitBioWait,
} from "../../../block/mod.ts";
import {
  type Clock,
  type EventId,
  RealClock,
  USEC,
  VirtualClock,
} from "../../../lib/clock.ts";
import { EINVAL, EIO, ENODATA, ENODEV, FsError } from "../../../lib/errno.ts";
import { Prng } from "../../../lib/prng.ts";
import { FakeDevice, makeBio, settle, submit } from "../fake_device.ts";

const MiB = 2 ** 20;
const SIZE = 16 * MiB;

/** A device with a volatile cache that does not tear 4 KiB, and its media to look at. */
function cached(depth = 1023): { device: NvmeDevice; media: MemoryMedia } {
  const media = new MemoryMedia(SIZE);
  const device = createNvme(new VirtualClock(), {
    media,
    preset: "mlc-970pro",
    atomics: { nawupf: 7 },
    depth,
  });
  return { device, media };
}

/** A write of 4 KiB of one byte. */
function write(device: NvmeDevice, page: number, byte: number, flags = 0): Bio {
  const bio = makeBio(device, REQ_OP_WRITE | flags, page * 8, 8);
  bio.vecs[0]!.data.fill(byte);
  return bio;
}

/** First byte of pages, as the device reads them. */
async function read(device: NvmeDevice, ...pages: number[]): Promise<number[]> {
  const bytes = [];
  for (const page of pages) {
    const bio = makeBio(device, REQ_OP_READ, page * 8, 8);
    assertEquals(await submitBioWait(bio), 0);
    bytes.push(bio.vecs[0]!.data[0]!);
  }
  return bytes;
}

/** First byte of pages, as they are on the media. */
function durable(media: Media, ...pages: number[]): number[] {
  const data = new Uint8Array(1);
  return pages.map((page) => {
    media.read(page * 4096, data, 0, 1);
    return data[0]!;
  });
}

const bad: [NvmeOptions, string][] = [
  [{}, "neither size nor media"],
  [{ size: 0 }, "size 0 "],
  [{ size: 3584 }, "size 3584 "],
  [{ size: 4096.5 }, "size 4096.5 "],
  [{ size: 10_000 }, "size 10000 "],
  [{ size: 4608, logicalBlockSize: 4096 }, "size 4608 "],
  [{ size: NaN }, "size NaN "],
  [{ size: SIZE, logicalBlockSize: 1024 }, "logicalBlockSize 1024"],
  [{ size: SIZE, preset: "floppy" }, 'no preset "floppy" (there are null, '],
  [{ size: SIZE, preset: "toString" }, 'no preset "toString"'],
  [{ size: SIZE, seed: 0.5 }, "seed 0.5"],
  [{ size: SIZE, queues: 0 }, "queues 0"],
  [{ size: SIZE, queues: 129 }, "queues 129"],
  [{ size: SIZE, depth: 4096 }, "depth 4096"],
  [{ size: SIZE, depth: 1.5 }, "depth 1.5"],
  [{ size: SIZE, readQueues: -1 }, "readQueues -1"],
  [{ size: SIZE, pollQueues: 129 }, "pollQueues 129"],
  [{ size: SIZE, writeCache: 1 as never }, "writeCache 1"],
  [{ size: SIZE, tearing: "no" as never }, 'tearing "no"'],
  [{ size: SIZE, atomics: { awupf: 65536 } }, "awupf 65536"],
  [{ size: SIZE, atomics: { awun: 3, awupf: 7 } }, "awupf 7 is above awun 3"],
  [{ size: SIZE, atomics: { nawun: 3, nawupf: 7 } }, "nawupf 7 is above nawun"],
  [{ size: SIZE, atomics: { nabo: -1 } }, "nabo -1"],
  [{ size: SIZE, atomics: { unit: 7 } as never }, 'atomic unit "unit"'],
  [{ size: SIZE, zoned: 5 as never }, "zone options are 5"],
  [{ size: SIZE, zoned: { size: 7 } as never }, 'zone option "size"'],
  [{ size: SIZE, zoned: { zoneSize: 3 * MiB } }, "zoneSize 3145728"],
  [{ size: SIZE, zoned: { zoneSize: MiB, zoneCapacity: 1 } }, "zoneCapacity 1"],
  [{ size: SIZE, zoned: { zoneSize: MiB, conventional: 16 } }, "conventional"],
  [{ size: SIZE, zoned: { maxOpen: 2, maxActive: 1 } }, "maxOpen 2"],
  [{ size: SIZE, zoned: { maxActive: NaN } }, "maxActive NaN"],
  [{ size: SIZE, zoned: { flavor: "smr" as never } }, "flavor smr"],
  [{ size: SIZE, zoned: { append: 1 as never } }, "append 1"],
  [{ size: SIZE, zoned: { maxAppend: 100 } }, "maxAppend 100"],
  [{ size: SIZE, preset: { model: "x" } as never }, "no preset"],
  [
    { size: SIZE, preset: { ...NVME_PRESETS.optane, mdts: "7" as never } },
    "mdts of the preset",
  ],
  [{ size: SIZE, preset: "zns", zoned: false }, "zones"],
  [{ size: SIZE, media: new MemoryMedia(MiB) }, `size ${SIZE}`],
  [{ size: SIZE, sizes: 1 } as NvmeOptions, '"sizes"'],
];
for (const [options, says] of bad) {
  Deno.test(`createNvme() refuses ${says}`, () => {
    const error = assertThrows(
      () => createNvme(new VirtualClock(), options),
      FsError,
    );
    assertEquals(error.errno, EINVAL);
    assert(error.message.includes(says), error.message);
  });
}

Deno.test("createNvme() derives limits and size from what the device says", () => {
  const clock = new VirtualClock();
  const plain = createNvme(clock, { size: SIZE });
  assertEquals(plain.nrSectors, SIZE / 512);
  assertEquals([plain.writeCache, plain.fua], [false, false]);
  const { logicalBlockSize, physicalBlockSize, maxSectors, maxHwSectors } =
    plain.limits;
  assertEquals(
    [logicalBlockSize, physicalBlockSize, maxSectors, maxHwSectors],
    [512, 4096, 8192, 16384],
  );
  const { device } = cached();
  assertEquals([device.writeCache, device.fua], [true, true]);
  assertEquals(device.limits.maxSectors, 1024);
  const large = createNvme(clock, { size: 2 ** 45, logicalBlockSize: 4096 });
  assertEquals(large.nrSectors, 2 ** 36);
  assertEquals(large.limits.logicalBlockSize, 4096);
});

/** Counts the events that anybody asks for. */
class CountingClock extends VirtualClock {
  asked = 0;
  override at<T>(time: number, fn: (arg: T) => void, arg: T): EventId {
    this.asked++;
    return super.at(time, fn, arg);
  }
}

Deno.test("corner case 148: null completes at the time of submission, within it, without an event", () => {
  const clock = new CountingClock();
  const device = createNvme(clock, { size: SIZE });
  const bio = write(device, 3, 0x33);
  const ended = submit(bio);
  assertEquals(ended, { status: BLK_STS_OK, at: 0, times: 1 });
  assertEquals(clock.asked, 0);
  device.close();
});

Deno.test("NvmeDevice takes 10,000 resubmissions from endIo, at any depth", () => {
  for (const depth of [1, 3, 1023]) {
    const device = createNvme(new VirtualClock(), { size: SIZE, depth });
    let left = 10_000;
    const bio = makeBio(device, REQ_OP_READ, 0, 8);
    bio.endIo = (done) => {
      if (--left > 0) submitBio(done);
    };
    submitBio(bio);
    assertEquals([left, device.stats.read.ios], [0, 10_000]);
  }
});

Deno.test("NvmeDevice moves every byte to its place, whatever the memory and the size", async () => {
  // Random reads and writes from random pieces of memory, some larger than a
  // command; the oracle is an array.
  for (const preset of ["null", "optane", "mlc-970pro"]) {
    for (const logicalBlockSize of [512, 4096]) {
      const device = createNvme(new VirtualClock(), {
        size: SIZE,
        preset,
        logicalBlockSize,
        queues: 2,
        depth: 2,
      });
      await checkRandomly(device, logicalBlockSize);
      device.close();
    }
  }
});

async function checkRandomly(device: NvmeDevice, lbs: number): Promise<void> {
  const random = new Prng(7);
  const disk = new Uint8Array(SIZE);
  for (let round = 0; round < 60; round++) {
    const op = round % 2 === 0 ? REQ_OP_WRITE : REQ_OP_READ;
    const bio = new Bio(device, op);
    const max = round % 7 === 0 ? MiB : 65536;
    for (let n = 1 + random.below(4); n > 0; n--) {
      const len = lbs * (1 + random.below(max / lbs));
      const memory = new Uint8Array(len + 64);
      memory.fill(op === REQ_OP_WRITE ? 1 + random.below(255) : 0xee);
      bio.addData(memory, 4 * random.below(16), len);
    }
    const at = lbs * random.below((SIZE - bio.size) / lbs);
    bio.sector = at / 512;
    assertEquals(await submitBioWait(bio), 0);
    let pos = at;
    for (const { data, offset, len } of bio.vecs) {
      const piece = data.subarray(offset, offset + len);
      if (op === REQ_OP_WRITE) disk.set(piece, pos);
      else {
        const wrong = piece.findIndex((byte, i) => byte !== disk[pos + i]);
        assertEquals(wrong, -1);
        assertEquals(data.subarray(0, offset).every((b) => b === 0xee), true);
        assertEquals(data[offset + len] ?? 0xee, 0xee);
      }
      pos += len;
    }
  }
}

Deno.test("NvmeDevice refuses memory that is not aligned to 4 bytes with INVAL", () => {
  const device = createNvme(new VirtualClock(), { size: SIZE });
  const memory = new Uint8Array(8192);
  const status = (data: Uint8Array, offset: number) => {
    const bio = new Bio(device, REQ_OP_READ);
    bio.addData(data, offset, 4096);
    return submit(bio).status;
  };
  assertEquals(status(memory, 2), BLK_STS_INVAL);
  assertEquals(status(memory, 4), BLK_STS_OK);
  assertEquals(status(memory.subarray(1), 0), BLK_STS_INVAL);
  assertEquals(status(memory.subarray(1), 3), BLK_STS_OK);
});

Deno.test("NvmeDevice has room for as many commands as its depth", () => {
  const clock = new VirtualClock();
  const device = createNvme(clock, { size: SIZE, preset: "optane", depth: 3 });
  const take = (i: number, flags = 0) =>
    submit(makeBio(device, REQ_OP_READ | flags, i * 8, 8));
  const first = [0, 1, 2].map((i) => take(i));
  const waits = take(3);
  assertEquals(take(4, REQ_NOWAIT).status, BLK_STS_AGAIN);
  settle(clock);
  assertEquals(first.every((e) => e.status === BLK_STS_OK), true);
  assert(waits.at > Math.min(...first.map((e) => e.at)) + 5, `${waits.at}`);
  // The ring was lapped; it still works.
  for (let i = 0; i < 20; i++) take(i);
  settle(clock);
  assertEquals(device.stats.read.ios, 24);
  device.close();
});

Deno.test("corner case 75: a read after a completed write that is not durable gives the new data", async () => {
  const { device, media } = cached();
  assertEquals(await submitBioWait(write(device, 5, 0x55)), 0);
  assertEquals(await read(device, 5), [0x55]);
  assertEquals(durable(media, 5), [0]);
  assertEquals(await blkdevIssueFlush(device), 0);
  assertEquals(durable(media, 5), [0x55]);
  assertEquals(device.stats.flush.ios, 1);
  device.close();
});

Deno.test("NvmeDevice drains with FUA what is written, and nothing else", async () => {
  const { device, media } = cached();
  await submitBioWait(write(device, 1, 0x11));
  await submitBioWait(write(device, 2, 0x22));
  await submitBioWait(write(device, 2, 0x23, REQ_FUA));
  assertEquals(durable(media, 1, 2), [0, 0x23]);
  // An older write of the block must not come back with a later flush.
  await blkdevIssueFlush(device);
  assertEquals(durable(media, 1, 2), [0x11, 0x23]);
  assertEquals(await read(device, 1, 2), [0x11, 0x23]);
  device.close();
});

Deno.test("NvmeDevice keeps an earlier write that a failed FUA write was to replace", async () => {
  const { device, media } = cached();
  await submitBioWait(write(device, 1, 0x11));
  const healthy = media.write.bind(media);
  media.write = () => -EIO;
  const failed = await submitBioWait(write(device, 1, 0x12, REQ_FUA));
  assertEquals(failed, -ENODATA);
  assertEquals(await read(device, 1), [0x11]);
  media.write = healthy;
  assertEquals(await blkdevIssueFlush(device), 0);
  assertEquals(durable(media, 1), [0x11]);
  device.close();
});

Deno.test("NvmeDevice makes earlier writes durable before a PREFLUSH write's data", async () => {
  const { device, media } = cached();
  await submitBioWait(write(device, 1, 0x11));
  await submitBioWait(write(device, 2, 0x22, REQ_PREFLUSH));
  assertEquals(durable(media, 1, 2), [0x11, 0]);
  await submitBioWait(write(device, 3, 0x33, REQ_PREFLUSH | REQ_FUA));
  assertEquals(durable(media, 1, 2, 3), [0x11, 0x22, 0x33]);
  device.close();
});

Deno.test("corner case 74: a flush covers what had completed when it began, not what was in flight", () => {
  const { device, media } = cached();
  const early = submit(write(device, 1, 0x11));
  settle(device.clock);
  assertEquals(early.times, 1);
  const inFlight = submit(write(device, 2, 0x22));
  const flush = submit(makeBio(device, REQ_OP_WRITE | REQ_PREFLUSH, 0, 0));
  settle(device.clock);
  assert(inFlight.at < flush.at, `${inFlight.at} ${flush.at}`);
  assertEquals(durable(media, 1, 2), [0x11, 0]);
  device.close();
});

Deno.test("corner case 76: a flush on one queue covers what completed on another", async () => {
  const media = new MemoryMedia(SIZE);
  const device = createNvme(new VirtualClock(), {
    media,
    preset: "qlc",
    queues: 4,
  });
  for (let i = 1; i <= 3; i++) await submitBioWait(write(device, i, i));
  assertEquals(durable(media, 1, 2, 3), [0, 0, 0]);
  await blkdevIssueFlush(device);
  assertEquals(durable(media, 1, 2, 3), [1, 2, 3]);
  device.close();
});

Deno.test("NvmeDevice without a cache is durable at completion", async () => {
  const media = new MemoryMedia(SIZE);
  const device = createNvme(new VirtualClock(), { media, preset: "tlc-dc" });
  await submitBioWait(write(device, 1, 0x11));
  assertEquals(durable(media, 1), [0x11]);
  assertEquals(await blkdevIssueFlush(device), 0);
  assertEquals(device.stats.flush.ios, 0);
  device.close();
});

Deno.test("blkdevIssueZeroout() zeroes exactly its range, with WRITE_ZEROES", async () => {
  for (const [preset, commands] of [["null", 7], ["mlc-970pro", 98]] as const) {
    const device = createNvme(new VirtualClock(), { size: 64 * MiB, preset });
    const bio = makeBio(device, REQ_OP_WRITE, 0, 128);
    bio.vecs[0]!.data.fill(0xff);
    await submitBioWait(bio);
    const before = device.stats.write.ios;
    // More than one command does: it is as large as a transfer may be.
    assertEquals(await blkdevIssueZeroout(device, 8, 100_000), 0);
    assertEquals(device.stats.write.ios - before, commands);
    const after = makeBio(device, REQ_OP_READ, 0, 128);
    await submitBioWait(after);
    const { data } = after.vecs[0]!;
    assertEquals([data[4095], data[4096], data[65535]], [0xff, 0, 0]);
    assertEquals(await blkdevIssueZeroout(device, 8, 0), 0);
    device.close();
  }
});

Deno.test("blkdevIssueZeroout() writes zero pages where there is no command", async () => {
  const device = new FakeDevice({ time: () => 0 });
  assertEquals(await blkdevIssueZeroout(device, 8, 40_000), 0);
  // 16 MiB is one bio of 256 segments, cut to requests of 4 MiB.
  const sizes = device.log.map((line) => Number(/\+(\d+)/.exec(line)![1]));
  assertEquals(sizes.reduce((a, b) => a + b), 40_000);
  assertEquals(device.log[0], "WRITE 8+8192 @0");
});

Deno.test("blkdevIssueZeroout() refuses a range that is not aligned, and reports an error once", async () => {
  const device = createNvme(new VirtualClock(), {
    size: 64 * MiB,
    logicalBlockSize: 4096,
  });
  assertEquals(await blkdevIssueZeroout(device, 1, 8), -EINVAL);
  assertEquals(await blkdevIssueZeroout(device, 8, 7), -EINVAL);
  assertEquals(await blkdevIssueZeroout(device, 64 * MiB / 512, 8), -EIO);
  // The first of several bios fails, at once, and the last does not.
  const failing = new FakeDevice({
    time: () => 0,
    limits: { maxWriteZeroesSectors: 8 },
    status: (rq) => rq.sector === 0 ? BLK_STS_MEDIUM : BLK_STS_OK,
  });
  assertEquals(await blkdevIssueZeroout(failing, 0, 24), -ENODATA);
  assertEquals(failing.log.length, 3);
});

Deno.test("blkdevIssueZeroout() keeps to what a bio can hold, however much the device takes", async () => {
  const device = new FakeDevice({
    time: () => 0,
    nrSectors: 2 ** 32,
    limits: { maxWriteZeroesSectors: 2 ** 30 },
  });
  assertEquals(await blkdevIssueZeroout(device, 0, 2 ** 24), 0);
  // 2^32 bytes less a block, and the rest.
  assertEquals(device.log, [
    `WRITE_ZEROES 0+${2 ** 23 - 1} @0`,
    `WRITE_ZEROES ${2 ** 23 - 1}+${2 ** 23 - 1} @0`,
    `WRITE_ZEROES ${2 ** 24 - 2}+2 @0`,
  ]);
});

Deno.test("submitBio() refuses what ends 4 GiB beyond the device", () => {
  const { device } = cached();
  const bio = new Bio(device, REQ_OP_WRITE_ZEROES);
  bio.size = 2 ** 32 + 4096;
  assertEquals(submit(bio).status, BLK_STS_IOERR);
  assertEquals(device.stats.write.ios, 0);
  device.close();
});

Deno.test("NvmeDevice.close() makes completed writes durable and ends the rest with OFFLINE", async () => {
  const { device, media } = cached();
  // The media is looked at as it is when it is closed.
  let atClose: number[] = [];
  media.close = () => atClose = durable(media, 1, 2);
  await submitBioWait(write(device, 1, 0x11));
  const inFlight = submit(write(device, 2, 0x22));
  const flush = submit(makeBio(device, REQ_OP_WRITE | REQ_PREFLUSH, 0, 0));
  device.close();
  device.close();
  const later = submit(write(device, 3, 0x33));
  settle(device.clock);

  assertEquals(atClose, [0x11, 0]);
  for (const ended of [inFlight, flush, later]) {
    assertEquals([ended.status, ended.times], [BLK_STS_OFFLINE, 1]);
  }
  assertEquals(await submitBioWait(write(device, 3, 0x33)), -ENODEV);
  assertEquals(device.stats.inFlight, 0);
});

Deno.test("NvmeDevice.close() ends bios that wait for a tag", () => {
  const clock = new VirtualClock();
  const device = createNvme(clock, { size: SIZE, preset: "optane", depth: 1 });
  const all = [0, 1, 2, 3].map((i) =>
    submit(makeBio(device, REQ_OP_READ, i, 1))
  );
  device.close();
  settle(clock);
  assertEquals(
    all.map((e) => [e.status, e.times]),
    all.map(() => [
      BLK_STS_OFFLINE,
      1,
    ]),
  );
  assertEquals(clock.now(), 0);
});

Deno.test("NvmeDevice reports what its media cannot do as MEDIUM", async () => {
  const media = new MemoryMedia(SIZE);
  media.read = () => -EIO;
  media.write = () => -EIO;
  media.zero = () => -EIO;
  for (const preset of ["null", "optane"]) {
    const device = createNvme(new VirtualClock(), { media, preset });
    for (const op of [REQ_OP_READ, REQ_OP_WRITE]) {
      const bio = makeBio(device, op, 0, 8);
      assertEquals(await submitBioWait(bio), -ENODATA);
    }
    const zeroes = new Bio(device, REQ_OP_WRITE_ZEROES);
    zeroes.size = 4096;
    assertEquals(await submitBioWait(zeroes), -ENODATA);
  }
});

Deno.test("NvmeDevice keeps what a flush could not write, and the flush fails", async () => {
  const { device, media } = cached();
  await submitBioWait(write(device, 1, 0x11));
  const healthy = media.write.bind(media);
  media.write = () => -EIO;
  assertEquals(await blkdevIssueFlush(device), -ENODATA);
  assertEquals(await read(device, 1), [0x11]);
  media.write = healthy;
  assertEquals(await blkdevIssueFlush(device), 0);
  assertEquals(durable(media, 1), [0x11]);
  device.close();
});

Deno.test("NvmeDevice ends the same bios on the real clock, not before they are due", async () => {
  const clock: Clock = new RealClock();
  const device = createNvme(clock, { size: SIZE, preset: "qlc" });
  const start = clock.now();
  const bios = [0, 1, 2].map((i) => submitBioWait(write(device, i, i + 1)));
  assertEquals(await Promise.all(bios), [0, 0, 0]);
  assert(clock.now() - start >= 16 * USEC);
  assertEquals(await read(device, 0, 1, 2), [1, 2, 3]);
  // Three writes and three reads, at least.
  assert(device.stats.lateness!.count >= 6);
  assertEquals(cached().device.stats.lateness, null);
  device.close();
});

Deno.test("createNvme() device ends a command IOERR whose buffer is gone, and goes on", async () => {
  const device = createNvme(new VirtualClock(), {
    size: SIZE,
    preset: "optane",
  });
  for (const op of [REQ_OP_READ, REQ_OP_WRITE]) {
    const bio = makeBio(device, op, 0, 8);
    const ended = submitBioWait(bio);
    (bio.vecs[0]!.data.buffer as ArrayBuffer).transfer();
    assertEquals(await ended, -EIO);
    assertEquals(await submitBioWait(makeBio(device, op, 0, 8)), 0);
  }
  device.close();
});

// Queues.

/** Queue numbers of the commands that the device has. */
function qids(device: NvmeDevice): number[] {
  return device.controller.inFlight().map(({ qid }) => qid).sort();
}

Deno.test("NvmeDevice sends reads and polled bios on queues of their own", () => {
  const device = createNvme(new VirtualClock(), {
    size: SIZE,
    preset: "optane",
    queues: 2,
    readQueues: 1,
    pollQueues: 1,
  });
  const all = [REQ_OP_WRITE, REQ_OP_WRITE, REQ_OP_READ].map((op, i) =>
    submit(makeBio(device, op, 8 * i, 8))
  );
  assertEquals(qids(device), [1, 2, 3]);
  const polled = makeBio(device, REQ_OP_READ | REQ_POLLED, 64, 8);
  const ended = submit(polled);
  assertEquals(qids(device), [1, 2, 3, 4]);
  device.clock.runUntil(() => qids(device).length === 0);
  assertEquals(all.map((e) => e.times), [1, 1, 1]);
  // No interrupt has told of it.
  assertEquals(ended.times, 0);
  assertEquals(device.poll(polled.cookie), 1);
  assertEquals([ended.status, device.poll(polled.cookie)], [BLK_STS_OK, 0]);
  device.close();
});

Deno.test("NvmeDevice rings once for a batch", () => {
  const device = createNvme(new VirtualClock(), {
    size: SIZE,
    preset: "optane",
  });
  const { controller } = device;
  const ring = controller.ringSq.bind(controller);
  const tails: number[] = [];
  controller.ringSq = (qid, tail) => {
    tails.push(tail);
    ring(qid, tail);
  };
  blkStartPlug();
  for (let i = 0; i < 8; i++) submit(makeBio(device, REQ_OP_READ, 64 * i, 8));
  assertEquals(tails, []);
  blkFinishPlug();
  assertEquals(tails, [8]);
  settle(device.clock);
  assertEquals(device.stats.read.ios, 8);
  device.close();
});

Deno.test("NvmeDevice sends a discard of several ranges as one command", async () => {
  const media = new MemoryMedia(SIZE);
  const device = createNvme(new VirtualClock(), { media });
  for (let page = 0; page < 8; page++) {
    await submitBioWait(write(device, page, page + 1));
  }
  blkStartPlug();
  const ended = [1, 3, 6].map((page) => {
    const bio = new Bio(device, REQ_OP_DISCARD);
    bio.sector = page * 8;
    bio.size = 4096;
    return submit(bio);
  });
  blkFinishPlug();
  assertEquals(ended.map((e) => e.status), [0, 0, 0]);
  assertEquals(device.stats.discard.ios, 1);
  assertEquals(durable(media, 0, 1, 2, 3, 4, 5, 6, 7), [
    1,
    0,
    3,
    0,
    5,
    6,
    0,
    8,
  ]);
  device.close();
});

// Power.

Deno.test("NvmeDevice.powerCut() ends all bios with IOERR until powerOn()", async () => {
  const { device } = cached(2);
  await submitBioWait(write(device, 1, 0x11));
  await blkdevIssueFlush(device);
  await submitBioWait(write(device, 1, 0x12));
  const under = [2, 3, 4, 5].map((page) => submit(write(device, page, 0x22)));
  const report = device.powerCut({ keep: "none" });
  assertEquals(device.dead, true);
  // Three writes are undecided: the completed one, and two that had a tag.
  assertEquals(
    report.fragments.map(({ sector, completed }) => [sector, completed]),
    [[8, true], [16, false], [24, false]],
  );
  const late = submit(write(device, 6, 0x66));
  const flush = submit(makeBio(device, REQ_OP_WRITE | REQ_PREFLUSH, 0, 0));
  for (const ended of [...under, late, flush]) {
    assertEquals([ended.status, ended.times], [BLK_STS_IOERR, 1]);
  }
  settle(device.clock);
  device.powerOn();
  assertEquals(device.dead, false);
  assertEquals(await read(device, 1, 2, 3, 4, 5, 6), [0x11, 0, 0, 0, 0, 0]);
  assertEquals(device.stats.inFlight, 0);
  device.powerOn();
  device.close();
});

Deno.test("NvmeDevice.powerCutAfterWrites() stops at the n-th write command", async () => {
  for (const preset of ["null", "mlc-970pro"]) {
    for (const keep of ["none", "all"] as const) {
      const clock = new VirtualClock();
      const atomics = { nawupf: 7 };
      const device = createNvme(clock, { size: SIZE, preset, atomics });
      const cut = device.powerCutAfterWrites(3, { keep });
      const all = [1, 2, 3, 4, 5].map((page) => {
        const ended = submit(write(device, page, page));
        if (page % 2 === 0) submit(makeBio(device, REQ_OP_READ, 0, 8));
        clock.runUntil(() => ended.times === 1);
        return ended.status;
      });
      assertEquals(all, [
        BLK_STS_OK,
        BLK_STS_OK,
        BLK_STS_IOERR,
        BLK_STS_IOERR,
        BLK_STS_IOERR,
      ]);
      const { fragments } = await cut;
      assertEquals(fragments.at(-1)!.sector, 24);
      device.powerOn();
      const durableFrom = preset === "null" || keep === "all";
      assertEquals(await read(device, 1, 2, 3, 4, 5), [
        durableFrom ? 1 : 0,
        durableFrom ? 2 : 0,
        keep === "all" ? 3 : 0,
        0,
        0,
      ]);
      device.close();
    }
  }
});

Deno.test("NvmeDevice.powerCutAt() cuts when its time has come, unless another cut came first", async () => {
  const clock = new VirtualClock();
  const device = createNvme(clock, { size: SIZE, preset: "optane" });
  device.powerCutAt(50 * USEC);
  const cut = device.powerCutAt(3 * USEC, { keep: "all" });
  const ended = submit(write(device, 1, 1));
  const { fragments } = await cut;
  assertEquals(fragments.length, 1);
  assertEquals([ended.status, ended.at], [BLK_STS_IOERR, 3]);
  device.powerOn();
  assertEquals(await read(device, 1), [1]);
  await clock.sleep(100 * USEC);
  assertEquals(device.dead, false);
  device.close();
});

Deno.test("NvmeDevice.powerCut() names one state by seed, event and bitmap", async () => {
  const after = async (options: CutOptions) => {
    const { device } = cached();
    for (let page = 1; page <= 6; page++) {
      await submitBioWait(write(device, page, page));
    }
    const report = device.powerCut(options);
    device.powerOn();
    const bytes = await read(device, 1, 2, 3, 4, 5, 6);
    device.close();
    return { report, bytes };
  };
  const first = await after({ seed: 7 });
  assertEquals((await after({ seed: 7 })).bytes, first.bytes);
  const { kept, seed } = first.report;
  assertEquals((await after({ keep: kept, seed })).bytes, first.bytes);
  assertEquals((await after({ keep: 2 })).bytes, [1, 2, 0, 0, 0, 0]);
});

Deno.test("NvmeDevice.powerCutAtEvent() leaves again what a report names, whatever happens when", async () => {
  // What a run leaves that is cut by itself, or at an event, and its media.
  const run = (
    options: CutOptions,
    cutAt: number | null,
    moment: number,
  ) => {
    const media = new MemoryMedia(2 ** 18);
    const clock = new VirtualClock();
    const device = createNvme(clock, { media, preset: "mlc-970pro", seed: 3 });
    device.faults.add({ kind: "transient", chance: 9, op: "write" });
    const random = new Prng(5, "load");
    let tag = 0;
    let report: CutReport | null = null;
    const cut = cutAt === null ? null : device.powerCutAtEvent(cutAt, options);
    const next = () => {
      if (device.dead) return;
      if (++tag === moment) {
        report = device.powerCut(options);
        return;
      }
      const flags = [0, 0, 0, REQ_FUA, REQ_PREFLUSH][random.below(5)]!;
      const sectors = 1 + random.below(16);
      const bio = new Bio(device, REQ_OP_WRITE | flags);
      bio.addData(new Uint8Array(512 * 16).fill(tag), 0, 512 * sectors);
      bio.sector = random.below(32) * 8;
      bio.endIo = next;
      submitBio(bio);
    };
    for (let i = 0; i < 8; i++) next();
    settle(clock);
    const image = new Uint8Array(media.size);
    media.read(0, image, 0, image.length);
    device.close();
    return { image, report: report ?? cut! };
  };
  for (let moment = 30; moment < 60; moment += 3) {
    const first = run({ tear: "undefined" }, null, moment);
    const { seed, event, kept } = await first.report;
    const again = run({ seed, keep: kept, tear: "undefined" }, event, Infinity);
    const { kept: keptAgain } = await again.report;
    assertEquals(keptAgain, kept);
    assertEquals(again.image, first.image);
  }
});

Deno.test("NvmeDevice.powerCutAtEvent() refuses an event that has been", async () => {
  const device = createNvme(new VirtualClock(), { size: SIZE });
  const { events } = device;
  const past = () => device.powerCutAtEvent(events);
  assertEquals(assertThrows(past, FsError).code, "EINVAL");
  const cut = device.powerCutAtEvent(events + 2, { keep: "none" });
  // Fetched, and carried out; the write has no completion.
  assertEquals(submit(write(device, 1, 1)).status, BLK_STS_IOERR);
  assertEquals((await cut).event, events + 2);
  device.powerOn();
  assertEquals(await read(device, 1), [1]);
  device.close();
});

Deno.test("NvmeDevice.powerCutAt() and its like change nothing when they refuse", async () => {
  const { device } = cached();
  const cut = device.powerCutAt(5 * USEC);
  assertThrows(() => device.powerCutAt(NaN), FsError);
  assertThrows(() => device.powerCutAfterWrites(0), FsError);
  assertThrows(() => device.powerCutAtEvent(0), FsError);
  await cut;
  assertEquals(device.dead, true);
  device.close();
});

Deno.test("NvmeDevice.faults lets a zone fail, and reads give what there was", async () => {
  const device = createNvme(new VirtualClock(), {
    size: SIZE,
    zoned: { zoneSize: MiB },
  });
  await submitBioWait(write(device, 0, 0x11));
  device.faults.add({ kind: "stale-read", sectors: 8, count: 1 });
  device.faults.add({ kind: "bad-zone", zone: 0, state: "read-only" });
  device.faults.add({ kind: "bad-zone", zone: 1, state: "offline" });
  assertEquals(await read(device, 0), [0x11]);
  const offline = makeBio(device, REQ_OP_READ, 2048, 8);
  assertEquals(submit(offline).status, BLK_STS_IOERR);
  const zones: BlkZone[] = [];
  await blkdevReportZones(device, 0, 2, (zone) => {
    zones.push({ ...zone });
    return 0;
  });
  assertEquals(zones.map((zone) => zone.cond), [
    BLK_ZONE_COND_READONLY,
    BLK_ZONE_COND_OFFLINE,
  ]);
  device.close();
});

Deno.test("NvmeDevice.fork() is what a power cut would leave, and the device goes on", async () => {
  const { device } = cached();
  for (let page = 1; page <= 3; page++) {
    await submitBioWait(write(device, page, page));
  }
  assertEquals(device.undecided().length, 3);
  const states = new Set<string>();
  for (const keep of cutStates(device.undecided())) {
    const { device: fork, report } = device.fork({ keep });
    assertEquals(report.kept, keep);
    states.add((await read(fork, 1, 2, 3)).join());
    await submitBioWait(write(fork, 1, 0x99));
    fork.close();
  }
  assertEquals(states.size, 8);
  assertEquals(await read(device, 1, 2, 3), [1, 2, 3]);
  device.close();
});

Deno.test("NvmeDevice.disconnect() ends all bios with IOERR, and powerOn() finds what was in the cache", async () => {
  const { device } = cached();
  await submitBioWait(write(device, 1, 0x11));
  const under = submit(write(device, 2, 0x22));
  device.disconnect();
  device.disconnect();
  assertEquals([under.status, device.dead], [BLK_STS_IOERR, true]);
  assertEquals(submit(write(device, 3, 3)).status, BLK_STS_IOERR);
  device.powerOn();
  assertEquals(await read(device, 1, 2, 3), [0x11, 0, 0]);
  device.close();
});

Deno.test("NvmeDevice refuses to cut the power of what has none, or as it cannot be", () => {
  const { device } = cached();
  const code = (fn: () => unknown) => assertThrows(fn, FsError).code;
  assertEquals(code(() => device.powerCut({ p: 2 })), "EINVAL");
  assertEquals(code(() => device.powerCutAfterWrites(0)), "EINVAL");
  assertEquals(code(() => device.powerCutAt(NaN)), "EINVAL");
  device.powerCut();
  assertEquals(code(() => device.powerCut()), "ENODEV");
  assertEquals(code(() => device.fork()), "ENODEV");
  assertEquals(code(() => device.undecided()), "ENODEV");
  device.close();
  device.powerOn();
  assertEquals(code(() => device.powerCutAt(0)), "ENODEV");
});

// The user's own commands.

Deno.test("NvmeDevice.passthru() sends I/O and admin commands, and tells how they ended", async () => {
  const device = createNvme(new VirtualClock(), {
    size: SIZE,
    preset: "optane",
  });
  await submitBioWait(write(device, 1, 0x11));
  const data = new Uint8Array(4096);
  const first = { cdw10: 8, cdw12: 7, data };
  assertEquals(await device.passthru({ opcode: 0x02, ...first }), {
    status: 0,
    result: 0,
  });
  assertEquals(data[0], 0x11);
  // Past the end, with DNR; an opcode that there is not.
  const past = await device.passthru({ opcode: 0x02, cdw10: 32768, data });
  assertEquals(past.status, 0x4080);
  assertEquals((await device.passthru({ opcode: 0xff })).status, 0x4001);
  // A comparison that fails is not sent again, though it could be.
  data[7] = 1;
  const compare = await device.passthru({ opcode: 0x05, ...first });
  assertEquals(compare.status & 0x7ff, 0x285);
  const feature = { opcode: 0x0a, admin: true, cdw10: 0x07 };
  assertEquals((await device.passthru(feature)).status, 0);
  const identify = { opcode: 0x06, admin: true, cdw10: 1, nsid: 0, data };
  assertEquals((await device.passthru(identify)).status, 0);
  assertEquals(data[512], 0x66);
  device.close();
  const gone = { status: 0x370, result: 0 };
  assertEquals(await device.passthru({ opcode: 0x02, ...first }), gone);
  assertEquals(await device.passthru(feature), gone);
});

Deno.test("corner case 96: more than MDTS is an invalid field, past the last block TARGET", async () => {
  const device = createNvme(new VirtualClock(), {
    size: SIZE,
    preset: "optane",
  });
  const data = new Uint8Array(513 * 1024);
  for (const opcode of [0x01, 0x02]) {
    const most = { opcode, cdw12: 1023, data };
    assertEquals((await device.passthru(most)).status, 0);
    const more = { opcode, cdw12: 1024, data };
    assertEquals((await device.passthru(more)).status, 0x4002);
    const end = device.nrSectors;
    const last = { opcode, cdw10: end - 1, data };
    assertEquals((await device.passthru(last)).status, 0);
    const past = { opcode, cdw10: end - 1, cdw12: 1, data };
    assertEquals((await device.passthru(past)).status, 0x4080);
  }
  // The block layer cuts the first and refuses the second, so it must be misled.
  const bio = new Bio(device, REQ_OP_READ);
  bio.addData(data, 0, data.length);
  assertEquals(await submitBioWait(bio), 0);
  assertEquals(device.stats.read.ios, 2);
  const late = () => makeBio(device, REQ_OP_READ, SIZE / 512, 1);
  assertEquals(submit(late()).status, BLK_STS_IOERR);
  Object.defineProperty(device, "nrSectors", { value: SIZE });
  const ended = submit(late());
  settle(device.clock);
  assertEquals(ended.status, BLK_STS_TARGET);
  device.close();
});

Deno.test("NvmeDevice.passthru() ends as aborted what is under way when the device goes", async () => {
  const device = createNvme(new VirtualClock(), {
    size: SIZE,
    preset: "optane",
  });
  const data = new Uint8Array(4096);
  const io = device.passthru({ opcode: 0x02, cdw12: 7, data });
  const event = device.passthru({ opcode: 0x0c, admin: true });
  device.powerCut();
  assertEquals((await io).status, 0x371);
  assertEquals((await event).status, 0x371);
  device.close();
});

Deno.test("NvmeDevice.passthru() of a Format changes the block size", async () => {
  const device = createNvme(new VirtualClock(), { size: SIZE });
  await submitBioWait(write(device, 1, 0x11));
  const format = { opcode: 0x80, admin: true, cdw10: 1 };
  assertEquals((await device.passthru(format)).status, 0);
  assertEquals(device.limits.logicalBlockSize, 4096);
  assertEquals(device.nrSectors, SIZE / 512);
  assertEquals(await read(device, 1), [0]);
  assertEquals(
    submit(makeBio(device, REQ_OP_READ, 1, 8)).status,
    BLK_STS_IOERR,
  );
  device.close();
});

// Models and zones.

Deno.test("createNvme() makes a device of each preset", async () => {
  for (const preset of Object.keys(NVME_PRESETS)) {
    const device = createNvme(new VirtualClock(), { size: 64 * MiB, preset });
    const { features } = device.limits;
    const has = (feature: number) => (features & feature) !== 0;
    const isDisk = preset === "hdd" || preset === "smr";
    const isZoned = preset === "zns" || preset === "smr";
    assertEquals(has(BLK_FEAT_ROTATIONAL), isDisk, preset);
    assertEquals(has(BLK_FEAT_ZONED), isZoned, preset);
    assertEquals(has(BLK_FEAT_DAX), preset === "pmem", preset);
    assertEquals(has(BLK_FEAT_SYNCHRONOUS), preset === "pmem", preset);
    assertEquals(device.zones !== null, isZoned, preset);
    assertEquals(await submitBioWait(write(device, 0, 0x5a)), 0, preset);
    assertEquals(await read(device, 0), [0x5a], preset);
    device.close();
  }
});

const ZONED = { zoneSize: MiB, zoneCapacity: MiB - 4096 };

Deno.test("createNvme() makes zones of any device, as it is told", async () => {
  const device = createNvme(new VirtualClock(), {
    size: SIZE,
    preset: "optane",
    zoned: { ...ZONED, conventional: 2, maxOpen: 3, maxActive: 5 },
  });
  const { limits } = device;
  assertEquals(
    [limits.chunkSectors, limits.maxOpenZones, limits.maxActiveZones],
    [2048, 3, 5],
  );
  const zones: BlkZone[] = [];
  const count = await blkdevReportZones(device, 3000, Infinity, (zone) => {
    zones.push({ ...zone });
    return 0;
  });
  assertEquals([count, zones.length], [15, 15]);
  assertEquals(zones[0]!.type, BLK_ZONE_TYPE_CONVENTIONAL);
  assertEquals(zones[1], {
    start: 4096,
    len: 2048,
    wp: 4096,
    type: BLK_ZONE_TYPE_SEQWRITE_REQ,
    cond: BLK_ZONE_COND_EMPTY,
    capacity: 2040,
  });
  device.close();
});

Deno.test("NvmeDevice tells where an append went, by the device or by the block layer", async () => {
  for (const append of [true, false]) {
    const device = createNvme(new VirtualClock(), {
      size: SIZE,
      preset: "optane",
      logicalBlockSize: 4096,
      zoned: { ...ZONED, append },
    });
    assertEquals(device.limits.maxHwZoneAppendSectors > 0, append);
    const sectors = [];
    for (let i = 0; i < 3; i++) {
      const bio = makeBio(device, REQ_OP_ZONE_APPEND, 2048, 16);
      assertEquals(await submitBioWait(bio), 0);
      sectors.push(bio.sector);
    }
    assertEquals(sectors, [2048, 2064, 2080]);
    const count = await blkdevReportZones(device, 2048, 1, (zone) => {
      assertEquals(zone.wp, 2096);
      return 0;
    });
    assertEquals(count, 1);
    device.close();
  }
});

Deno.test("NvmeDevice knows its zones again after a power cut", async () => {
  const device = createNvme(new VirtualClock(), {
    size: SIZE,
    preset: "mlc-970pro",
    zoned: ZONED,
  });
  const append = (start: number) =>
    submitBioWait(makeBio(device, REQ_OP_WRITE, start, 16));
  assertEquals([await append(0), await append(2048)], [0, 0]);
  assertEquals(await blkdevIssueFlush(device), 0);
  assertEquals(await append(16), 0);
  device.powerCut({ keep: "none" });
  device.powerOn();
  // The last write is gone, and its place is where the next one goes.
  assertEquals([await append(16), await append(2064)], [0, 0]);
  assertEquals(await append(48), -EIO);
  const { device: fork } = device.fork({ keep: "all" });
  const wps: number[] = [];
  await blkdevReportZones(fork, 0, 2, (zone) => {
    wps.push(zone.wp);
    return 0;
  });
  assertEquals(wps, [32, 2080]);
  fork.close();
  // Whoever is only disconnected loses nothing.
  device.disconnect();
  device.powerOn();
  assertEquals([await append(32), await append(2080)], [0, 0]);
  device.close();
});
