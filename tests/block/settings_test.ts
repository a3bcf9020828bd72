import { assertEquals } from "@std/assert";
import {
  BadLimit,
  BLK_FEAT_FUA,
  BLK_FEAT_WRITE_CACHE,
  blkValidateLimits,
  type QueueLimits,
} from "../../block/mod.ts";
import { limits } from "./fake_device.ts";

Deno.test("blkValidateLimits() gives the kernel's defaults", () => {
  assertEquals(limits({}), {
    features: 0,
    logicalBlockSize: 512,
    physicalBlockSize: 512,
    ioMin: 512,
    ioOpt: 0,
    maxHwSectors: 255,
    maxUserSectors: 0,
    maxSectors: 255,
    chunkSectors: 0,
    maxSegments: 128,
    maxSegmentSize: 65536,
    segBoundaryMask: 0xffff_ffff,
    virtBoundaryMask: 0,
    dmaAlignment: 511,
    maxWriteZeroesSectors: 0,
  });
});

const refused: [keyof QueueLimits, number][] = [
  ["logicalBlockSize", 768],
  ["logicalBlockSize", 131072],
  ["logicalBlockSize", 256],
  ["physicalBlockSize", 5000],
  ["maxHwSectors", 7],
  ["maxUserSectors", 7],
  ["maxSegmentSize", 2048],
  ["segBoundaryMask", 2047],
  ["dmaAlignment", 8191],
];
for (const [field, value] of refused) {
  Deno.test(`blkValidateLimits() 53, 55. refuses ${field} ${value} by name and changes nothing`, () => {
    const given: Partial<QueueLimits> = { ioOpt: 5000 };
    given[field] = value;
    const before = { ...given };
    assertEquals(blkValidateLimits(given), new BadLimit(field, value));
    assertEquals(given, before);
  });
}

Deno.test("blkValidateLimits() 54. raises physical and ioMin and rounds ioOpt down", () => {
  const lim = limits({ logicalBlockSize: 4096, ioOpt: 10_000 });
  assertEquals([lim.physicalBlockSize, lim.ioMin, lim.ioOpt], [
    4096,
    4096,
    8192,
  ]);
});

Deno.test("blkValidateLimits() 55. takes a user's cap of one page, and caps at 4 MiB otherwise", () => {
  const max = (given: Partial<QueueLimits>) => limits(given).maxSectors;
  assertEquals(max({ maxHwSectors: 100_000, maxUserSectors: 8 }), 8);
  assertEquals(max({ maxHwSectors: 100_000 }), 8192);
  assertEquals(max({ maxHwSectors: 100_000, ioOpt: 8 * 2 ** 20 }), 16384);
  assertEquals(max({ maxHwSectors: 21, logicalBlockSize: 4096 }), 16);
});

Deno.test("blkValidateLimits() 56. drops FUA without a write cache", () => {
  const both = BLK_FEAT_FUA | BLK_FEAT_WRITE_CACHE;
  assertEquals(limits({ features: BLK_FEAT_FUA }).features, 0);
  assertEquals(limits({ features: both }).features, both);
});

Deno.test("blkValidateLimits() lets segments be any size with a virtual boundary", () => {
  assertEquals(limits({ virtBoundaryMask: 4095 }).maxSegmentSize, 0xffff_ffff);
});
