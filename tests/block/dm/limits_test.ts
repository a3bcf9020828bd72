import { assertEquals, assertThrows } from "@std/assert";
import {
  BLK_FEAT_FUA,
  BLK_FEAT_NOWAIT,
  BLK_FEAT_WRITE_CACHE,
  BLK_FLAG_MISALIGNED,
  blkSetStackingLimits,
  blkStackLimits,
  LinearDevice,
  type QueueLimits,
  StripeDevice,
} from "../../../block/mod.ts";
import { VirtualClock } from "../../../lib/clock.ts";
import { FsError } from "../../../lib/errno.ts";
import { FakeDevice, limits } from "../fake_device.ts";

/** Limits over devices at their sector 0, and whether each lined up. */
function stack(...below: Partial<QueueLimits>[]): [QueueLimits, boolean[]] {
  const t = blkSetStackingLimits(BLK_FEAT_NOWAIT);
  return [t, below.map((lim) => blkStackLimits(t, limits(lim), 0))];
}

interface Row {
  name: string;
  below: Partial<QueueLimits>[];
  expected: Partial<QueueLimits>;
  aligned?: boolean[];
}

const both = BLK_FEAT_WRITE_CACHE | BLK_FEAT_FUA;
const rows: Row[] = [
  {
    name: "63. ORs cache and FUA",
    below: [{ features: both | BLK_FEAT_NOWAIT }, {
      features: BLK_FEAT_NOWAIT,
    }],
    expected: { features: both | BLK_FEAT_NOWAIT },
  },
  {
    name: "63. ANDs NOWAIT",
    below: [{ features: BLK_FEAT_NOWAIT }, { features: 0 }],
    expected: { features: 0 },
  },
  {
    name: "64. takes the larger logical block",
    below: [{ logicalBlockSize: 4096 }, { logicalBlockSize: 512 }],
    expected: { logicalBlockSize: 4096, physicalBlockSize: 4096, ioMin: 4096 },
  },
  {
    name: "64. takes the gcd of chunks",
    below: [{ chunkSectors: 96 }, { chunkSectors: 64 }],
    expected: { chunkSectors: 32, flags: 0 },
  },
  {
    name: "64. takes the lcm of optimal sizes",
    below: [{ ioOpt: 65536 }, { ioOpt: 98304 }],
    expected: { ioOpt: 196608 },
  },
  {
    name: "takes the smaller of limits, 0 being none but for WRITE_ZEROES",
    below: [
      { maxSegments: 7, virtBoundaryMask: 4095, maxWriteZeroesSectors: 64 },
      { maxHwSectors: 100, maxUserSectors: 64 },
    ],
    expected: {
      maxSegments: 7,
      virtBoundaryMask: 4095,
      maxHwSectors: 100,
      maxUserSectors: 64,
      maxSectors: 64,
      maxSegmentSize: 65536,
      maxWriteZeroesSectors: 0,
      dmaAlignment: 511,
    },
  },
  {
    name: "gives up a chunk and an optimal size that split physical blocks",
    below: [{ ioOpt: 5120, chunkSectors: 10 }, { physicalBlockSize: 4096 }],
    expected: { ioOpt: 0, chunkSectors: 0, flags: BLK_FLAG_MISALIGNED },
    aligned: [true, false],
  },
];

for (const { name, below, expected, aligned } of rows) {
  Deno.test(`blkStackLimits() ${name}`, () => {
    const [t, lined] = stack(...below);
    assertEquals({ ...t, ...expected }, t);
    assertEquals(lined, aligned ?? below.map(() => true));
  });
}

Deno.test("blkStackLimits() finds offsets that do not line up", () => {
  const lim = limits({ physicalBlockSize: 4096 });
  const t = blkSetStackingLimits(0);
  assertEquals(blkStackLimits(t, lim, 63), true);
  // Sector 1 is where the physical block below begins that sector 64 is in.
  assertEquals([t.alignmentOffset, t.flags], [512, 0]);
  assertEquals(blkStackLimits(t, lim, 63), true);
  assertEquals(blkStackLimits(t, lim, 62), false);
  assertEquals(t.flags, BLK_FLAG_MISALIGNED);
  // Who lies over what is misaligned is so, too.
  const above = blkSetStackingLimits(0);
  blkStackLimits(above, t, 0);
  assertEquals(above.flags, BLK_FLAG_MISALIGNED);
});

Deno.test("LinearDevice() says where physical blocks begin", () => {
  const disk = new FakeDevice();
  const at = (startSector: number) =>
    new LinearDevice(disk, { startSector }).limits.alignmentOffset;
  assertEquals([0, 1, 7, 8, 63].map(at), [0, 3584, 512, 0, 512]);
  // The next device up sees the sum.
  const part = new LinearDevice(disk, { startSector: 63 });
  assertEquals(
    new LinearDevice(part, { startSector: 1 }).limits.alignmentOffset,
    0,
  );
});

Deno.test("DmDevice() is cached, takes FUA and NOWAIT, as those below", () => {
  const clock = new VirtualClock();
  const cached = new FakeDevice({}, clock);
  const plain = new FakeDevice({ cache: "none" }, clock);
  const slow = new FakeDevice({ limits: { features: 0 } }, clock);
  const of = (...legs: FakeDevice[]) => {
    const top = new StripeDevice(legs, { chunkSectors: 8 });
    const nowait = (top.limits.features & BLK_FEAT_NOWAIT) !== 0;
    return [top.writeCache, top.fua, nowait];
  };
  assertEquals(of(cached, plain), [true, true, true]);
  assertEquals(of(plain), [false, false, true]);
  assertEquals(of(slow, plain), [false, false, false]);
  // The device below flushes after what carries FUA.
  const noFua = new FakeDevice({ cache: "no-fua" }, clock);
  assertEquals(of(noFua, plain), [true, true, true]);
});

Deno.test("StripeDevice() hints its chunk and its width, and reads ahead twice that", () => {
  const clock = new VirtualClock();
  const legs = [1, 2, 3].map(() => new FakeDevice({}, clock));
  const { limits: lim, bdi } = new StripeDevice(legs, { chunkSectors: 256 });
  assertEquals(
    [lim.chunkSectors, lim.ioMin, lim.ioOpt],
    [256, 131072, 393216],
  );
  assertEquals([bdi.raPages, bdi.ioPages], [192, 1024]);
});

Deno.test("DmDevice() numbers itself above those below", () => {
  const disk = new FakeDevice();
  const a = new LinearDevice(disk, { startSector: 0, nrSectors: 64 });
  const b = new LinearDevice(disk, { startSector: 64, minor: 7 });
  const top = new StripeDevice([a, b], { chunkSectors: 8 });
  assertEquals([a, b, top].map((d) => d.name), ["dm-0", "dm-7", "dm-8"]);
  assertEquals(top.dev, { major: 253, minor: 8 });
  assertEquals(top.clock === disk.clock, true);
});

const disk = new FakeDevice({ nrSectors: 1000 });
const disk4k = new FakeDevice({
  nrSectors: 1024,
  limits: { logicalBlockSize: 4096 },
});
const refused: [string, () => unknown][] = [
  ["startSector 1000", () => new LinearDevice(disk, { startSector: 1000 })],
  ["startSector -1", () => new LinearDevice(disk, { startSector: -1 })],
  [
    "nrSectors 11",
    () => new LinearDevice(disk, { startSector: 990, nrSectors: 11 }),
  ],
  ["Start sector 4", () => new LinearDevice(disk4k, { startSector: 4 })],
  [
    "nrSectors 12",
    () => new LinearDevice(disk4k, { startSector: 8, nrSectors: 12 }),
  ],
  ["minor -1", () => new LinearDevice(disk, { startSector: 0, minor: -1 })],
  ["number of devices 0", () => new StripeDevice([], { chunkSectors: 8 })],
  ["chunkSectors 0", () => new StripeDevice([disk], { chunkSectors: 0 })],
  ["chunkSectors 12", () => new StripeDevice([disk4k], { chunkSectors: 12 })],
  ["smallest device", () => new StripeDevice([disk], { chunkSectors: 1001 })],
  [
    "different clocks",
    () => new StripeDevice([disk, disk4k], { chunkSectors: 8 }),
  ],
];
for (const [text, make] of refused) {
  Deno.test(`DmDevice() refuses what cannot be: ${text}`, () => {
    assertEquals(assertThrows(make, FsError, text).code, "EINVAL");
  });
}
