import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  createNvme,
  type Media,
  MemoryMedia,
  type NvmeDevice,
  type NvmeOptions,
} from "../../../block/nvme/mod.ts";
import { nvmeErrorStatus } from "../../../block/nvme/host.ts";
import {
  Bio,
  BLK_STS_AGAIN,
  BLK_STS_INVAL,
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_NOSPC,
  BLK_STS_NOTSUPP,
  BLK_STS_OFFLINE,
  BLK_STS_OK,
  BLK_STS_TARGET,
  blkdevIssueFlush,
  blkdevIssueZeroout,
  REQ_FUA,
  REQ_NOWAIT,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
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

/** A device with a volatile cache, and its media to look at. */
function cached(): { device: NvmeDevice; media: MemoryMedia } {
  const media = new MemoryMedia(SIZE);
  const preset = "mlc-970pro";
  return { device: createNvme(new VirtualClock(), { media, preset }), media };
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
  [{ size: SIZE, preset: "zns" }, 'no preset "zns"'],
  [{ size: SIZE, preset: "toString" }, 'no preset "toString"'],
  [{ size: SIZE, seed: 0.5 }, "seed 0.5"],
  [{ size: SIZE, queues: 0 }, "queues 0"],
  [{ size: SIZE, queues: 129 }, "queues 129"],
  [{ size: SIZE, depth: 4096 }, "depth 4096"],
  [{ size: SIZE, depth: 1.5 }, "depth 1.5"],
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

Deno.test("null 148. completes at the time of submission, within it, without an event", () => {
  const clock = new CountingClock();
  const device = createNvme(clock, { size: SIZE });
  const bio = write(device, 3, 0x33);
  const ended = submit(bio);
  assertEquals(ended, { status: BLK_STS_OK, at: 0, times: 1 });
  assertEquals(clock.asked, 0);
  device.close();
});

Deno.test("null 27. takes 10,000 resubmissions from endIo, at any depth", () => {
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

Deno.test("NvmeDevice 12, 90. has room for as many commands as its depth", () => {
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

Deno.test("NvmeDevice 75. reads a completed write that is not durable", async () => {
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

Deno.test("NvmeDevice 74, 131. flushes what had completed when the flush began, not what was in flight", () => {
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

Deno.test("NvmeDevice 76. flushes on one queue what completed on another", async () => {
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
  for (const preset of ["null", "mlc-970pro"]) {
    const device = createNvme(new VirtualClock(), { size: 64 * MiB, preset });
    const bio = makeBio(device, REQ_OP_WRITE, 0, 128);
    bio.vecs[0]!.data.fill(0xff);
    await submitBioWait(bio);
    const before = device.stats.write.ios;
    // More than the 65536 blocks of one command.
    assertEquals(await blkdevIssueZeroout(device, 8, 100_000), 0);
    assertEquals(device.stats.write.ios - before, 2);
    const after = makeBio(device, REQ_OP_READ, 0, 128);
    await submitBioWait(after);
    const { data } = after.vecs[0]!;
    assertEquals([data[4095], data[4096], data[65535]], [0xff, 0, 0]);
    assertEquals(await blkdevIssueZeroout(device, 8, 0), 0);
    device.close();
  }
});

Deno.test("blkdevIssueZeroout() 19. writes zero pages where there is no command", async () => {
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
    `op9 0+${2 ** 23 - 1} @0`,
    `op9 ${2 ** 23 - 1}+${2 ** 23 - 1} @0`,
    `op9 ${2 ** 24 - 2}+2 @0`,
  ]);
});

Deno.test("submitBio() 9. refuses what ends 4 GiB beyond the device", () => {
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

const statuses: [number, number][] = [
  [0x000, BLK_STS_OK],
  [0x081, BLK_STS_NOSPC],
  [0x4080, BLK_STS_TARGET],
  [0x4001, BLK_STS_NOTSUPP],
  [0x4002, BLK_STS_NOTSUPP],
  [0x400b, BLK_STS_NOTSUPP],
  [0x280, BLK_STS_MEDIUM],
  [0x281, BLK_STS_MEDIUM],
  [0x006, BLK_STS_IOERR],
  [0x4003, BLK_STS_IOERR],
];
Deno.test("nvmeErrorStatus() gives the kernel's block status", () => {
  for (const [status, expected] of statuses) {
    assertEquals(nvmeErrorStatus(status), expected, status.toString(16));
  }
});

Deno.test("NvmeDevice 147. ends the same bios on the real clock, not before they are due", async () => {
  const clock: Clock = new RealClock();
  const device = createNvme(clock, { size: SIZE, preset: "qlc" });
  const start = clock.now();
  const bios = [0, 1, 2].map((i) => submitBioWait(write(device, i, i + 1)));
  assertEquals(await Promise.all(bios), [0, 0, 0]);
  assert(clock.now() - start >= 16 * USEC);
  assertEquals(await read(device, 0, 1, 2), [1, 2, 3]);
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
