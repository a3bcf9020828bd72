import { assertEquals } from "@std/assert";
import {
  bdevAtomicWriteUnitMaxBytes,
  bdevAtomicWriteUnitMinBytes,
  bdevCanAtomicWrite,
  BLK_FEAT_ATOMIC_WRITES,
  BLK_FEAT_NOWAIT,
  BLK_STS_INVAL,
  BLK_STS_OK,
  blkdevOpen,
  blkSetStackingLimits,
  blkStackLimits,
  Partition,
  type QueueLimits,
  REQ_ATOMIC,
  REQ_OP_WRITE,
  RWF_ATOMIC,
} from "../../block/mod.ts";
import { EINVAL, EOPNOTSUPP } from "../../lib/errno.ts";
import { createNvme, mkfsXfs, mount, VirtualClock, xfs } from "../../mod.ts";
import { FakeDevice, limits, makeBio, settle, submit } from "./fake_device.ts";

const KiB = 1024;

/** A device that keeps writes of 4 to 16 KiB whole. */
const ATOMIC: Partial<QueueLimits> = {
  features: BLK_FEAT_ATOMIC_WRITES | BLK_FEAT_NOWAIT,
  atomicWriteHwMax: 16 * KiB,
  atomicWriteHwUnitMin: 4 * KiB,
  atomicWriteHwUnitMax: 16 * KiB,
};

/** What is derived: most bytes, unit min, unit max, boundary. */
function derived(given: Partial<QueueLimits>): number[] {
  const lim = limits({ features: BLK_FEAT_ATOMIC_WRITES, ...given });
  return [
    lim.atomicWriteMaxSectors * 512,
    lim.atomicWriteUnitMin,
    lim.atomicWriteUnitMax,
    lim.atomicWriteBoundary,
  ];
}

/** A device without a limit on its I/O that says this of its atomic writes, KiB. */
function hw(max: number, unitMax: number, boundary = 0): Partial<QueueLimits> {
  return {
    maxHwSectors: 0xffff,
    atomicWriteHwMax: max * KiB,
    atomicWriteHwUnitMin: 512,
    atomicWriteHwUnitMax: unitMax * KiB,
    atomicWriteHwBoundary: boundary * KiB,
  };
}

const NONE = [0, 0, 0, 0];

Deno.test("corner case 58: an atomic unit is not larger than a bio of any memory can be", () => {
  const unitMax = (maxSegments: number) =>
    derived({ ...hw(64, 64), maxSegments })[2];
  assertEquals([127, 3, 1].map(unitMax), [65536, 4096, 512]);
});

Deno.test("corner case 59: the largest request is the device's, the largest unit what any memory allows", () => {
  const given = { ...hw(1024, 1024), maxHwSectors: 1024, maxSegments: 127 };
  assertEquals(derived(given), [512 * KiB, 512, 256 * KiB, 0]);
});

Deno.test("corner case 60: a boundary within the largest write leaves none", () => {
  assertEquals(derived(hw(128, 64, 64)), NONE);
  assertEquals(derived(hw(64, 64, 64)), [65536, 512, 65536, 65536]);
});

Deno.test("corner case 61: a chunk and the boundary must divide one another", () => {
  const chunk = (kib: number) =>
    derived({ ...hw(16, 16, 16), chunkSectors: 2 * kib });
  assertEquals(chunk(24), NONE);
  assertEquals(chunk(48), [16384, 512, 16384, 16384]);
});

Deno.test("corner case 62: a chunk within the largest write leaves none", () => {
  const chunk = (kib: number) =>
    derived({ ...hw(64, 16), chunkSectors: 2 * kib });
  assertEquals(chunk(32), NONE);
  assertEquals(chunk(64), [65536, 512, 16384, 0]);
});

Deno.test("blkValidateLimits() derives no atomic writes from what makes no sense", () => {
  const nonsense: Partial<QueueLimits>[] = [
    { features: 0 },
    { atomicWriteHwMax: 0 },
    { atomicWriteHwUnitMin: 0 },
    { atomicWriteHwUnitMin: 1536 },
    { atomicWriteHwUnitMax: 24 * KiB },
    { atomicWriteHwUnitMin: 32 * KiB },
    { atomicWriteHwUnitMax: 128 * KiB },
    { atomicWriteHwBoundary: 96 * KiB },
  ];
  for (const given of nonsense) {
    assertEquals(derived({ ...hw(64, 16), ...given }), NONE);
  }
  assertEquals(derived(hw(64, 16)), [65536, 512, 16384, 0]);
});

/** Atomic limits over devices, each at a start sector. */
function stack(
  chunkSectors: number,
  ...below: [Partial<QueueLimits>, number][]
): number[] {
  const t = blkSetStackingLimits(BLK_FEAT_ATOMIC_WRITES);
  t.chunkSectors = chunkSectors;
  for (const [lim, start] of below) {
    const features = lim.features ?? BLK_FEAT_ATOMIC_WRITES;
    blkStackLimits(t, limits({ ...lim, features }), start);
  }
  return derived(t);
}

Deno.test("blkStackLimits() narrows atomic writes to what all devices below have in common", () => {
  const a = hw(64, 64);
  const b = { ...hw(32, 16), atomicWriteHwUnitMin: 4096 };
  assertEquals(stack(0, [a, 0]), [65536, 512, 65536, 0]);
  assertEquals(stack(0, [a, 0], [b, 0]), [32768, 4096, 16384, 0]);
  // Units that do not meet, a device without, another boundary.
  const large = { ...hw(64, 64), atomicWriteHwUnitMin: 32768 };
  assertEquals(stack(0, [b, 0], [large, 0]), NONE);
  assertEquals(stack(0, [a, 0], [{ features: 0 }, 0]), NONE);
  assertEquals(stack(0, [{ features: 0 }, 0], [a, 0]), NONE);
  assertEquals(stack(0, [a, 0], [hw(64, 64, 64), 0]), NONE);
});

Deno.test("blkStackLimits() fits atomic writes into chunks and behind start sectors", () => {
  const a = hw(64, 64);
  // A chunk of 24 KiB holds units of 8 KiB.
  assertEquals(stack(48, [a, 0]), [24 * KiB, 512, 8 * KiB, 0]);
  assertEquals(stack(48, [hw(64, 64, 64), 0]), NONE);
  const min4k = { ...a, atomicWriteHwUnitMin: 4096 };
  assertEquals(stack(0, [min4k, 7]), NONE);
  assertEquals(stack(0, [min4k, 8]), [65536, 4096, 65536, 0]);
});

Deno.test("corner case 78: RWF_ATOMIC of no power of two or off its multiple is EINVAL, elsewhere EOPNOTSUPP", async () => {
  using file = blkdevOpen(new FakeDevice({ limits: ATOMIC }));
  const write = (len: number, pos: number) =>
    file.write(new Uint8Array(len), pos, RWF_ATOMIC);
  assertEquals(write(12 * KiB, 0), -EINVAL);
  assertEquals(write(8 * KiB, 4 * KiB), -EINVAL);
  assertEquals(await write(8 * KiB, 8 * KiB), 8 * KiB);
  // Across the end of the device, and in two pieces of memory.
  using small = blkdevOpen(new FakeDevice({ limits: ATOMIC, nrSectors: 24 }));
  const across = small.write(new Uint8Array(8 * KiB), 8 * KiB, RWF_ATOMIC);
  assertEquals(across, -EINVAL);
  const pieces = [new Uint8Array(4 * KiB), new Uint8Array(4 * KiB)];
  assertEquals(file.write(pieces, 0, RWF_ATOMIC), -EINVAL);

  using plain = blkdevOpen(new FakeDevice());
  const none = plain.write(new Uint8Array(4096), 0, RWF_ATOMIC);
  assertEquals(none, -EOPNOTSUPP);

  const device = createNvme(new VirtualClock(), { size: 512 * 2 ** 20 });
  await mkfsXfs(device);
  await using fs = await mount(device, xfs);
  using buffered = await fs.open("/a", { write: true, create: true });
  const error = await buffered.write(new Uint8Array(4096), {
    at: 0,
    atomic: true,
  }).catch((e) => e.code);
  assertEquals(error, "EOPNOTSUPP");
});

/** How an atomic write of some bytes ends, and what reaches the driver. */
function atomic(lim: Partial<QueueLimits>, sector: number, bytes: number) {
  const device = new FakeDevice({ limits: lim });
  const opf = REQ_OP_WRITE | REQ_ATOMIC;
  const ended = submit(makeBio(device, opf, sector, bytes / 512));
  settle(device.clock);
  return [ended.status, ...device.log];
}

Deno.test("corner case 79: an ATOMIC bio may have any multiple of the smallest unit", () => {
  assertEquals(atomic(ATOMIC, 8, 12 * KiB), [BLK_STS_OK, "WRITE 8+24 @0"]);
});

Deno.test("corner case 80: ATOMIC above the largest unit or below the smallest is INVAL", () => {
  assertEquals(atomic(ATOMIC, 0, 16 * KiB + 512), [BLK_STS_INVAL]);
  const more = { ...ATOMIC, atomicWriteHwMax: 64 * KiB };
  assertEquals(atomic(more, 0, 32 * KiB), [BLK_STS_INVAL]);
  assertEquals(atomic(ATOMIC, 0, 2 * KiB), [BLK_STS_INVAL]);
});

Deno.test("corner case 81: ATOMIC across the boundary is INVAL", () => {
  const lim = { ...ATOMIC, atomicWriteHwBoundary: 16 * KiB };
  assertEquals(atomic(lim, 24, 8 * KiB), [BLK_STS_INVAL]);
  assertEquals(atomic(lim, 16, 8 * KiB), [BLK_STS_OK, "WRITE 16+16 @0"]);
});

Deno.test("corner case 82: ATOMIC may be larger than max_sectors", () => {
  const lim = { ...ATOMIC, maxHwSectors: 64, maxUserSectors: 8 };
  assertEquals(atomic(lim, 0, 16 * KiB), [BLK_STS_OK, "WRITE 0+32 @0"]);
});

Deno.test("corner case 89: a partition that begins off the boundary has no atomic writes", () => {
  const lim = { ...ATOMIC, atomicWriteHwBoundary: 16 * KiB };
  const disk = new FakeDevice({ limits: lim });
  const at = (sector: number) => {
    const part = new Partition(disk, 1, sector);
    using file = blkdevOpen(part);
    return [
      bdevCanAtomicWrite(part),
      bdevAtomicWriteUnitMinBytes(part),
      bdevAtomicWriteUnitMaxBytes(part),
      // No bio is made where there is no such write.
      typeof file.write(new Uint8Array(4096), 0, RWF_ATOMIC),
    ];
  };
  assertEquals(at(63), [false, 0, 0, "number"]);
  assertEquals(at(64), [true, 4096, 16 * KiB, "object"]);
  settle(disk.clock);
  assertEquals(disk.log, ["WRITE 64+8 @0"]);
});
