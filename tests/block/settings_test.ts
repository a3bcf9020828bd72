import { assertEquals } from "@std/assert";
import {
  BadLimit,
  BLK_FEAT_FUA,
  BLK_FEAT_NOWAIT,
  BLK_FEAT_POLL,
  BLK_FEAT_ROTATIONAL,
  BLK_FEAT_WRITE_CACHE,
  BLK_FEAT_ZONED,
  BLK_FLAG_MISALIGNED,
  blkdevOpen,
  blkSetStackingLimits,
  blkStackLimits,
  blkValidateLimits,
  diskUpdateReadahead,
  LinearDevice,
  Partition,
  type QueueLimits,
  queueLimitsCommitUpdate,
  queueLimitsCommitUpdateFrozen,
  REQ_FUA,
  REQ_OP_WRITE,
  REQ_PREFLUSH,
  setWriteCache,
} from "../../block/mod.ts";
import { createNvme, VirtualClock } from "../../mod.ts";
import { FakeDevice, limits, makeBio, settle, submit } from "./fake_device.ts";

Deno.test("blkValidateLimits() gives the kernel's defaults", () => {
  const lim = limits({});
  const set = Object.entries(lim).filter(([, value]) => value !== 0);
  assertEquals(Object.fromEntries(set), {
    logicalBlockSize: 512,
    physicalBlockSize: 512,
    ioMin: 512,
    maxHwSectors: 255,
    maxSectors: 255,
    maxSegments: 128,
    maxSegmentSize: 65536,
    segBoundaryMask: 0xffff_ffff,
    dmaAlignment: 511,
    maxDiscardSegments: 1,
    maxUserDiscardSectors: 0xffff_ffff,
  });
});

const MAX_OF_BOTH = BLK_FEAT_WRITE_CACHE | BLK_FEAT_FUA;

const refused: [string, keyof QueueLimits, number, Partial<QueueLimits>?][] = [
  ["", "logicalBlockSize", 256],
  ["", "physicalBlockSize", 5000],
  ["", "maxHwSectors", 7],
  ["of less than a block", "maxHwSectors", 64, { logicalBlockSize: 65536 }],
  ["", "maxSegmentSize", 2048],
  ["", "segBoundaryMask", 2047],
  ["", "dmaAlignment", 8191],
  ["", "ioOpt", -1],
  ["", "ioOpt", 0.5],
  ["", "maxHwWzeroesUnmapSectors", 8, { maxWriteZeroesSectors: 16 }],
  ["without zones", "maxActiveZones", 1],
  ["without zones", "zoneWriteGranularity", 4096],
];
for (const [how, field, value, others] of refused) {
  Deno.test(`blkValidateLimits() refuses ${field} ${value} ${how} by name and changes nothing`, () => {
    const given: Partial<QueueLimits> = { ...others };
    given[field] = value;
    const before = { ...given };
    assertEquals(blkValidateLimits(given), new BadLimit(field, value));
    assertEquals(given, before);
  });
}

Deno.test("corner case 53: a logical block of 768 or 131072 bytes is refused, the limits in force stay", () => {
  const device = new FakeDevice();
  const before = device.limits;
  for (const size of [768, 131072]) {
    const changes = { logicalBlockSize: size, ioOpt: 65536 };
    assertEquals(
      queueLimitsCommitUpdate(device, changes),
      new BadLimit("logicalBlockSize", size),
    );
  }
  assertEquals(device.limits === before, true);
});

Deno.test("corner case 54: physical and ioMin are raised, ioOpt is rounded down", () => {
  const lim = limits({
    logicalBlockSize: 4096,
    physicalBlockSize: 512,
    ioMin: 512,
    ioOpt: 10_000,
  });
  assertEquals([lim.physicalBlockSize, lim.ioMin, lim.ioOpt], [
    4096,
    4096,
    8192,
  ]);
});

Deno.test("corner case 55: a user's cap of 7 sectors is refused, 8 is taken", () => {
  const device = new FakeDevice();
  assertEquals(
    queueLimitsCommitUpdate(device, { maxUserSectors: 7 }),
    new BadLimit("maxUserSectors", 7),
  );
  assertEquals(device.limits.maxSectors, 8192);
  assertEquals(queueLimitsCommitUpdate(device, { maxUserSectors: 8 }), null);
  assertEquals(device.limits.maxSectors, 8);
  assertEquals(queueLimitsCommitUpdate(device, { maxUserSectors: 0 }), null);
  assertEquals(device.limits.maxSectors, 8192);
});

Deno.test("blkValidateLimits() caps I/O at what device, user or 4 MiB allow", () => {
  const max = (given: Partial<QueueLimits>) => limits(given).maxSectors;
  assertEquals(max({ maxHwSectors: 100_000 }), 8192);
  assertEquals(max({ maxHwSectors: 100_000, maxDevSectors: 1000 }), 1000);
  assertEquals(max({ maxHwSectors: 100_000, ioOpt: 8 * 2 ** 20 }), 16384);
  assertEquals(max({ maxHwSectors: 100_000, ioMin: 8 * 2 ** 20 }), 16384);
  assertEquals(max({ maxHwSectors: 21, logicalBlockSize: 4096 }), 16);
});

Deno.test("corner case 56: FUA without a write cache is dropped", () => {
  assertEquals(limits({ features: BLK_FEAT_FUA }).features, 0);
  assertEquals(limits({ features: MAX_OF_BOTH }).features, MAX_OF_BOTH);
});

Deno.test("corner case 57: limits on zones need zones, and open zones are active ones", () => {
  const zoned = (maxOpenZones: number, maxActiveZones: number) =>
    blkValidateLimits({
      features: BLK_FEAT_ZONED,
      chunkSectors: 4096,
      maxOpenZones,
      maxActiveZones,
    });
  assertEquals(
    blkValidateLimits({ maxOpenZones: 1 }),
    new BadLimit("maxOpenZones", 1),
  );
  assertEquals(zoned(3, 2), new BadLimit("maxOpenZones", 3));
  assertEquals(zoned(3, 0) instanceof BadLimit, false);
  assertEquals(zoned(2, 2) instanceof BadLimit, false);
});

Deno.test("blkValidateLimits() derives the limit of appends", () => {
  const append = (given: Partial<QueueLimits>) =>
    limits({
      features: BLK_FEAT_ZONED,
      maxHwSectors: 1024,
      chunkSectors: 4096,
      ...given,
    }).maxZoneAppendSectors;
  assertEquals(append({}), 1024);
  assertEquals(append({ maxHwZoneAppendSectors: 256 }), 256);
  assertEquals(append({ maxHwZoneAppendSectors: 2048 }), 1024);
  assertEquals(append({ chunkSectors: 512 }), 512);
});

Deno.test("blkValidateLimits() derives the limits of discards", () => {
  const of = (given: Partial<QueueLimits>) => {
    const lim = limits({ physicalBlockSize: 4096, ...given });
    return [lim.maxDiscardSectors, lim.discardGranularity];
  };
  assertEquals(of({ discardGranularity: 8192 }), [0, 0]);
  assertEquals(of({ maxHwDiscardSectors: 64 }), [64, 4096]);
  const hw = { maxHwDiscardSectors: 64, discardGranularity: 8192 };
  assertEquals(of({ ...hw, maxUserDiscardSectors: 16 }), [16, 8192]);
  assertEquals(of({ ...hw, maxUserDiscardSectors: 0 }), [0, 0]);
});

Deno.test("blkValidateLimits() lets segments be any size with a virtual boundary", () => {
  const of = (maxSegmentSize: number) =>
    limits({ virtBoundaryMask: 4095, maxSegmentSize }).maxSegmentSize;
  assertEquals([of(0), of(2048)], [0xffff_ffff, 2048]);
});

Deno.test("blkValidateLimits() takes a known offset for no misalignment", () => {
  const lim = limits({
    physicalBlockSize: 4096,
    alignmentOffset: 8192 + 512,
    flags: BLK_FLAG_MISALIGNED,
  });
  assertEquals([lim.alignmentOffset, lim.flags], [512, 0]);
});

Deno.test("corner case 63: a cache below is one above, NOWAIT and polling need all", () => {
  const below = (features: number) => limits({ features });
  const stack = (...features: number[]) => {
    const t = blkSetStackingLimits(BLK_FEAT_NOWAIT | BLK_FEAT_POLL);
    for (const f of features) blkStackLimits(t, below(f), 0);
    return t.features;
  };
  const all = BLK_FEAT_NOWAIT | BLK_FEAT_POLL;
  assertEquals(stack(all | MAX_OF_BOTH, all), all | MAX_OF_BOTH);
  assertEquals(stack(all, BLK_FEAT_POLL), BLK_FEAT_POLL);
  assertEquals(stack(BLK_FEAT_NOWAIT, all), BLK_FEAT_NOWAIT);
  assertEquals(stack(BLK_FEAT_ROTATIONAL, all), BLK_FEAT_ROTATIONAL);
});

Deno.test("corner case 64: the larger block, the gcd of chunks, the lcm of optimal sizes", () => {
  const stack = (...below: Partial<QueueLimits>[]) => {
    const t = blkSetStackingLimits(0);
    for (const lim of below) blkStackLimits(t, limits(lim), 0);
    return t;
  };
  const { logicalBlockSize } = stack({}, { logicalBlockSize: 4096 });
  assertEquals(logicalBlockSize, 4096);
  const { chunkSectors } = stack({ chunkSectors: 96 }, { chunkSectors: 64 });
  assertEquals(chunkSectors, 32);
  const { ioOpt } = stack({ ioOpt: 65536 }, { ioOpt: 98304 });
  assertEquals(ioOpt, 196608);
});

Deno.test("blkStackLimits() stacks what a device can do without data", () => {
  const t = blkSetStackingLimits(0);
  const a = limits({
    maxHwDiscardSectors: 1000,
    discardGranularity: 8192,
    maxDiscardSegments: 256,
    maxWriteZeroesSectors: 500,
    maxHwWzeroesUnmapSectors: 500,
    maxSecureEraseSectors: 64,
  });
  const b = limits({ maxHwDiscardSectors: 800, maxWriteZeroesSectors: 600 });
  assertEquals(blkStackLimits(t, a, 8), true);
  // Sector 8 lies half a unit before the next one.
  assertEquals([t.discardAlignment, t.maxDiscardSegments], [4096, 256]);
  blkStackLimits(t, b, 0);
  const lim = limits(t);
  assertEquals([lim.maxDiscardSectors, lim.discardGranularity], [800, 8192]);
  assertEquals([lim.maxDiscardSegments, lim.maxSecureEraseSectors], [1, 64]);
  assertEquals(
    [lim.maxWriteZeroesSectors, lim.maxHwWzeroesUnmapSectors],
    [500, 0],
  );
});

Deno.test("blkStackLimits() caps I/O at whole blocks that all devices take", () => {
  const t = blkSetStackingLimits(0);
  const b = limits({ maxHwSectors: 255, maxDevSectors: 100 });
  blkStackLimits(t, b, 0);
  assertEquals([t.maxHwSectors, t.maxDevSectors, t.maxSectors], [
    255,
    100,
    100,
  ]);
  const large = limits({ logicalBlockSize: 65536, maxHwSectors: 1024 });
  blkStackLimits(t, large, 0);
  // A page at least, as if there were smaller blocks.
  assertEquals([t.maxHwSectors, t.maxDevSectors, t.maxSectors], [128, 8, 8]);
});

Deno.test("queueLimitsCommitUpdate() never changes limits that somebody holds", () => {
  const device = new FakeDevice();
  const before = device.limits;
  const copy = { ...before };
  assertEquals(queueLimitsCommitUpdate(device, { ioOpt: 2 ** 20 }), null);
  assertEquals(before, copy);
  assertEquals([device.limits.ioOpt, device.bdi.raPages], [2 ** 20, 512]);
});

Deno.test("diskUpdateReadahead() follows the optimal size, and rotational disks' largest I/O", () => {
  const after = (lim: Partial<QueueLimits>, raPages = 32) => {
    const device = new FakeDevice({ limits: lim });
    device.bdi.raPages = raPages;
    diskUpdateReadahead(device);
    return [device.bdi.raPages, device.bdi.ioPages];
  };
  assertEquals(after({ maxHwSectors: 1024 }), [32, 128]);
  assertEquals(after({ ioOpt: 2 ** 20 }), [512, 1024]);
  assertEquals(after({ ioOpt: 2 ** 20 }, 1000), [1000, 1024]);
  const rotational = { features: BLK_FEAT_ROTATIONAL, maxHwSectors: 1024 };
  assertEquals(after(rotational), [256, 128]);
  assertEquals(after({ ...rotational, ioOpt: 2 ** 16 }), [32, 128]);
});

Deno.test("setWriteCache() stops and starts what makes writes durable", () => {
  const device = new FakeDevice({ time: () => 0 });
  const sync = () => {
    device.log.length = 0;
    submit(makeBio(device, REQ_OP_WRITE | REQ_FUA, 0, 8));
    submit(makeBio(device, REQ_OP_WRITE | REQ_PREFLUSH, 0, 0));
    settle(device.clock);
    return [device.writeCache, device.fua, ...device.log];
  };
  setWriteCache(device, "write through");
  assertEquals(sync(), [false, true, "WRITE 0+8 @0"]);
  setWriteCache(device, "write back");
  assertEquals(sync(), [true, true, "WRITE+FUA 0+8 @0", "FLUSH @0"]);
});

/** Whether what an fsync said is safe survives, and how many flushes it took. */
async function survives(mode: "write back" | "write through") {
  const device = createNvme(new VirtualClock(), {
    size: 64 * 2 ** 20,
    preset: "mlc-970pro",
    writeCache: true,
  });
  using file = blkdevOpen(device);
  setWriteCache(device, mode);
  assertEquals(await file.write(new Uint8Array(4096).fill(7), 0), 4096);
  assertEquals(await file.fsync(), 0);
  const flushes = device.stats.flush.ios;
  device.powerCut({ keep: "none" });
  device.powerOn();
  const back = new Uint8Array(4096);
  assertEquals(await file.read(back, 0), 4096);
  device.close();
  return [back[0], flushes];
}

Deno.test("corner case 65: written through, no FLUSH is sent, and a power cut takes what was acknowledged", async () => {
  assertEquals(await survives("write back"), [7, 1]);
  assertEquals(await survives("write through"), [0, 0]);
});

Deno.test("queueLimitsCommitUpdateFrozen() changes limits when what is under way has ended, others wait", async () => {
  const device = new FakeDevice({ limits: { maxHwSectors: 64 }, depth: 1 });
  const write = () => submit(makeBio(device, REQ_OP_WRITE, 0, 64));
  const inside = [write(), write()];
  const done = queueLimitsCommitUpdateFrozen(device, { maxUserSectors: 32 });
  const outside = write();
  assertEquals(device.limits.maxSectors, 64);
  assertEquals(await done, null);
  assertEquals(inside.map(({ at }) => at), [10, 20]);
  settle(device.clock);
  assertEquals(outside.times, 1);
  assertEquals(device.log, [
    "WRITE 0+64 @0",
    "WRITE 0+64 @10",
    "WRITE 0+32 @20",
    "WRITE 32+32 @30",
  ]);
  // What cannot be changes nothing, and lets the queue go on.
  const bad = await queueLimitsCommitUpdateFrozen(device, {
    maxUserSectors: 7,
  });
  assertEquals(bad, new BadLimit("maxUserSectors", 7));
  assertEquals([device.limits.maxSectors, device.queue.closed], [32, false]);
});

Deno.test("setWriteCache() lets a flush sequence that is under way end by the cache that it began with", async () => {
  const device = new FakeDevice({ cache: "no-fua" });
  const inside = submit(
    makeBio(device, REQ_OP_WRITE | REQ_PREFLUSH | REQ_FUA, 0, 8),
  );
  const done = setWriteCache(device, "write through");
  const outside = submit(makeBio(device, REQ_OP_WRITE | REQ_FUA, 0, 8));
  await done;
  settle(device.clock);
  assertEquals([inside.at, outside.times], [210, 1]);
  assertEquals(device.log, [
    "FLUSH @0",
    "WRITE 0+8 @100",
    "FLUSH @110",
    "WRITE 0+8 @210",
  ]);
});

Deno.test("setWriteCache() of a partition or of a device over others waits for the disk's queue or for none", async () => {
  const disk = new FakeDevice();
  const part = new Partition(disk, 1, 8);
  assertEquals(setWriteCache(part, "write through"), undefined);
  assertEquals(disk.writeCache, false);
  const inside = submit(makeBio(disk, REQ_OP_WRITE, 0, 8));
  await setWriteCache(part, "write back");
  assertEquals([inside.times, disk.writeCache], [1, true]);
  const top = new LinearDevice(disk, { startSector: 8 });
  assertEquals(setWriteCache(top, "write through"), undefined);
});

Deno.test("blkValidateLimits() takes no number for a power of two by its low bits", () => {
  const physicalBlockSize = 2 ** 32 + 4096;
  const bad = new BadLimit("physicalBlockSize", physicalBlockSize);
  assertEquals(blkValidateLimits({ physicalBlockSize }), bad);
});
