import { assertEquals, assertThrows } from "@std/assert";
import {
  BD_MAKE_IT_FAIL,
  Bio,
  BIO_REMAPPED,
  bioChain,
  bioEndIo,
  bioPoll,
  bioReset,
  BLK_FEAT_ATOMIC_WRITES,
  BLK_FEAT_NOWAIT,
  BLK_FEAT_WRITE_CACHE,
  BLK_FEAT_ZONED,
  BLK_POLL_ONESHOT,
  BLK_STS_AGAIN,
  BLK_STS_DEV_RESOURCE,
  BLK_STS_DM_REQUEUE,
  BLK_STS_INVAL,
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_NOTSUPP,
  BLK_STS_OFFLINE,
  BLK_STS_OK,
  BLK_STS_RESOURCE,
  BLKDEV_ZERO_NOFALLBACK,
  blkdevIssueZeroout,
  blkdevOpen,
  blkFinishPlug,
  blkStartPlug,
  blkStatusToErrno,
  BlockDevice,
  errnoToBlkStatus,
  Partition,
  type QueueLimits,
  queueLimitsCommitUpdate,
  REQ_ATOMIC,
  REQ_FUA,
  REQ_INTEGRITY,
  REQ_NOMERGE,
  REQ_NOWAIT,
  REQ_OP_DISCARD,
  REQ_OP_DRV_IN,
  REQ_OP_DRV_OUT,
  REQ_OP_FLUSH,
  REQ_OP_READ,
  REQ_OP_SECURE_ERASE,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_OP_ZONE_APPEND,
  REQ_OP_ZONE_RESET,
  REQ_OP_ZONE_RESET_ALL,
  REQ_POLLED,
  REQ_PREFLUSH,
  submitBio,
  submitBioNoacct,
  submitBioWait,
} from "../../block/mod.ts";
import { setWarningHandler } from "../../lib/bug.ts";
import { EINVAL, EIO, EOPNOTSUPP, EPERM, FsError } from "../../lib/errno.ts";
import { MSEC, SEC, USEC, VirtualClock } from "../../lib/clock.ts";
import {
  type Ended,
  FakeDevice,
  type FakeOptions,
  limits,
  makeBio,
  settle,
  submit,
} from "./fake_device.ts";
import { ZONE, ZonedDevice } from "./zoned_device.ts";

const CACHED = BLK_FEAT_NOWAIT | BLK_FEAT_WRITE_CACHE;
/** Atomic writes of 512 bytes to 64 KiB. */
const ATOMIC_LIMITS: Partial<QueueLimits> = {
  features: CACHED | BLK_FEAT_ATOMIC_WRITES,
  atomicWriteHwMax: 65536,
  atomicWriteHwUnitMin: 512,
  atomicWriteHwUnitMax: 65536,
};

/** A bio, and what becomes of it. */
interface Step {
  options?: FakeOptions;
  opf: number;
  /** Sector and sectors. */
  at?: [number, number];
  status: number;
  log?: string[];
}

const cases: [string, ...Step[]][] = [
  ["corner case 1: a FLUSH operation in a bio is NOTSUPP", {
    opf: REQ_OP_FLUSH,
    status: BLK_STS_NOTSUPP,
  }],
  ["corner case 2: an empty PREFLUSH without a cache reaches no driver", {
    options: { cache: "none" },
    opf: REQ_OP_WRITE | REQ_PREFLUSH,
    status: BLK_STS_OK,
  }],
  ["corner case 3: an empty PREFLUSH with a cache is one FLUSH", {
    opf: REQ_OP_WRITE | REQ_PREFLUSH,
    status: BLK_STS_OK,
    log: ["FLUSH @0"],
  }],
  [
    "corner case 4: an empty FUA is nothing with FUA, one FLUSH without",
    { opf: REQ_OP_WRITE | REQ_FUA, status: BLK_STS_OK },
    {
      options: { cache: "no-fua" },
      opf: REQ_OP_WRITE | REQ_FUA,
      status: BLK_STS_OK,
      log: ["FLUSH @0"],
    },
  ],
  [
    "corner case 5: a READ with FUA or PREFLUSH is IOERR",
    { opf: REQ_OP_READ | REQ_FUA, at: [0, 8], status: BLK_STS_IOERR },
    { opf: REQ_OP_READ | REQ_PREFLUSH, at: [0, 8], status: BLK_STS_IOERR },
  ],
  ["corner case 6: a DISCARD with FUA is IOERR", {
    options: { limits: { features: CACHED, maxHwDiscardSectors: 64 } },
    opf: REQ_OP_DISCARD | REQ_FUA,
    at: [0, 8],
    status: BLK_STS_IOERR,
  }],
  [
    "corner case 8: a read of nothing at capacity is OK, of a sector IOERR",
    {
      options: { nrSectors: 64 },
      opf: REQ_OP_READ,
      at: [64, 0],
      status: BLK_STS_OK,
    },
    {
      options: { nrSectors: 64 },
      opf: REQ_OP_READ,
      at: [64, 1],
      status: BLK_STS_IOERR,
    },
  ],
  [
    "corner case 9: a bio may end at capacity, and fails whole beyond",
    {
      options: { nrSectors: 64 },
      opf: REQ_OP_WRITE,
      at: [56, 8],
      status: BLK_STS_OK,
      log: ["WRITE 56+8 @0"],
    },
    {
      options: { nrSectors: 64, limits: { maxHwSectors: 8 } },
      opf: REQ_OP_WRITE,
      at: [41, 24],
      status: BLK_STS_IOERR,
    },
  ],
  ["corner case 10: a sector so large that a sum is not exact is IOERR", {
    options: { nrSectors: 64 },
    opf: REQ_OP_READ,
    at: [Number.MAX_SAFE_INTEGER, 8],
    status: BLK_STS_IOERR,
  }],
  ["corner case 11: NOWAIT without the feature is NOTSUPP", {
    options: { limits: { features: 0 } },
    opf: REQ_OP_READ | REQ_NOWAIT,
    at: [0, 8],
    status: BLK_STS_NOTSUPP,
  }],
  [
    "corner case 13: NOWAIT that needs a split is AGAIN, and nothing is issued",
    {
      options: { limits: { maxHwSectors: 16 } },
      opf: REQ_OP_READ | REQ_NOWAIT,
      at: [0, 32],
      status: BLK_STS_AGAIN,
    },
  ],
  ["corner case 16: POLLED without poll queues is NOTSUPP", {
    opf: REQ_OP_READ | REQ_POLLED,
    at: [0, 8],
    status: BLK_STS_NOTSUPP,
  }],
  ["corner case 20: SECURE_ERASE where there is only DISCARD is NOTSUPP", {
    options: { limits: { maxHwDiscardSectors: 64 } },
    opf: REQ_OP_SECURE_ERASE,
    at: [0, 8],
    status: BLK_STS_NOTSUPP,
  }],
  [
    "corner case 22: RESET_ALL without zones is NOTSUPP, RESET IOERR",
    { opf: REQ_OP_ZONE_RESET_ALL, status: BLK_STS_NOTSUPP },
    { opf: REQ_OP_ZONE_RESET, status: BLK_STS_IOERR },
  ],
  [
    "submitBio() refuses what is none for a bio",
    { opf: 63, at: [0, 8], status: BLK_STS_NOTSUPP },
    { opf: REQ_OP_DRV_IN, status: BLK_STS_NOTSUPP },
    { opf: REQ_OP_DRV_OUT, status: BLK_STS_NOTSUPP },
    { opf: REQ_OP_ZONE_APPEND, at: [0, 8], status: BLK_STS_NOTSUPP },
    { opf: REQ_OP_READ | REQ_INTEGRITY, at: [0, 8], status: BLK_STS_NOTSUPP },
    {
      options: { limits: ATOMIC_LIMITS },
      opf: REQ_OP_READ | REQ_ATOMIC,
      at: [0, 8],
      status: BLK_STS_INVAL,
    },
  ],
  [
    "submitBio() checks in the kernel's order",
    {
      options: { limits: { features: 0 }, nrSectors: 8 },
      opf: REQ_OP_READ | REQ_NOWAIT,
      at: [8, 8],
      status: BLK_STS_NOTSUPP,
    },
    {
      options: { nrSectors: 8 },
      opf: REQ_OP_DISCARD,
      at: [8, 8],
      status: BLK_STS_IOERR,
    },
    { opf: REQ_OP_DISCARD | REQ_FUA, at: [0, 8], status: BLK_STS_IOERR },
    {
      options: { limits: { logicalBlockSize: 4096 } },
      opf: REQ_OP_WRITE | REQ_ATOMIC,
      at: [1, 8],
      status: BLK_STS_INVAL,
    },
  ],
  ["submitBio() refuses memory that is not aligned for the device", {
    options: { limits: { dmaAlignment: 1023 } },
    opf: REQ_OP_READ,
    at: [0, 1],
    status: BLK_STS_INVAL,
  }],
];

for (const [name, ...steps] of cases) {
  Deno.test(name, () => {
    for (const { options, opf, at, status, log = [] } of steps) {
      const device = new FakeDevice(options);

      const ended = submit(makeBio(device, opf, ...at ?? [0, 0]));
      settle(device.clock);

      assertEquals([ended.status, ended.times], [status, 1]);
      assertEquals(device.log, log);
    }
  });
}

Deno.test("corner case 7: what is no whole blocks is IOERR in a bio, EINVAL in a file", async () => {
  const device = new FakeDevice({ limits: { logicalBlockSize: 4096 } });
  const odd = new Bio(device, REQ_OP_READ);
  odd.addData(new Uint8Array(513), 0, 513);
  assertEquals(submit(odd).status, BLK_STS_IOERR);
  const late = submit(makeBio(device, REQ_OP_READ, 1, 8));
  assertEquals(late.status, BLK_STS_IOERR);

  using file = blkdevOpen(device);
  assertEquals(await file.read(new Uint8Array(513), 0), -EINVAL);
  assertEquals(await file.read(new Uint8Array(4096), 512), -EINVAL);
  assertEquals(device.log, []);
});

Deno.test("corner case 15: ATOMIC that needs a split is INVAL, and nothing is issued", () => {
  const atomic = (
    lim: Partial<QueueLimits>,
    sector: number,
    pieces: number,
  ) => {
    const device = new FakeDevice({ limits: { ...ATOMIC_LIMITS, ...lim } });
    const bio = new Bio(device, REQ_OP_WRITE | REQ_ATOMIC);
    bio.sector = sector;
    const memory = new Uint8Array(65536);
    // Each piece a segment: they do not follow one another in memory.
    const len = 32768 / pieces;
    for (let i = pieces - 1; i >= 0; i--) bio.addData(memory, 2 * i * len, len);
    const ended = submit(bio);
    settle(device.clock);
    return [ended.status, device.log.length];
  };
  assertEquals(atomic({ maxSegments: 16 }, 0, 8), [BLK_STS_OK, 1]);
  assertEquals(atomic({ maxSegments: 16 }, 0, 64), [BLK_STS_INVAL, 0]);
  assertEquals(atomic({ chunkSectors: 128 }, 64, 8), [BLK_STS_OK, 1]);
  assertEquals(atomic({ chunkSectors: 128 }, 96, 8), [BLK_STS_INVAL, 0]);
  assertEquals(atomic({ virtBoundaryMask: 4095 }, 0, 8), [BLK_STS_OK, 1]);
  assertEquals(atomic({ virtBoundaryMask: 4095 }, 0, 64), [BLK_STS_INVAL, 0]);
});

Deno.test("corner case 18: DISCARD without support is NOTSUPP, and EOPNOTSUPP in a file", () => {
  const device = new FakeDevice();
  const ended = submit(makeBio(device, REQ_OP_DISCARD, 0, 8));
  assertEquals([ended.status, ended.times], [BLK_STS_NOTSUPP, 1]);
  using file = blkdevOpen(device);
  assertEquals(file.discard(0, 4096), -EOPNOTSUPP);
  assertEquals(device.log, []);
});

Deno.test("corner case 19: WRITE_ZEROES without support is NOTSUPP, and pages of zeroes in the library", async () => {
  const device = new FakeDevice();
  const ended = submit(makeBio(device, REQ_OP_WRITE_ZEROES, 0, 8));
  assertEquals([ended.status, ended.times], [BLK_STS_NOTSUPP, 1]);
  const noFallback = blkdevIssueZeroout(device, 0, 8, BLKDEV_ZERO_NOFALLBACK);
  assertEquals(noFallback, -EOPNOTSUPP);
  assertEquals(device.log, []);
  assertEquals(await blkdevIssueZeroout(device, 8, 16), 0);
  assertEquals(device.log, ["WRITE 8+16 @0"]);
});

Deno.test("corner case 21: a bio is written to a read-only device with one warning, a file's is EPERM", () => {
  const warnings: string[] = [];
  const old = setWarningHandler((text) => warnings.push(text));
  try {
    const device = new FakeDevice({ time: () => 0 });
    device.readOnly = true;
    for (const s of [0, 8]) {
      const ended = submit(makeBio(device, REQ_OP_WRITE, s, 8));
      assertEquals(ended.status, BLK_STS_OK);
    }
    assertEquals(device.log, ["WRITE 0+8 @0", "WRITE 8+8 @0"]);
    assertEquals(warnings, ["Trying to write to read-only block device fake0"]);
    using file = blkdevOpen(device);
    assertEquals(file.write(new Uint8Array(4096), 0), -EPERM);
    assertEquals(device.log.length, 2);
  } finally {
    setWarningHandler(old);
  }
});

Deno.test("corner case 23: a partition's start is added once, also to what is left of a split bio", () => {
  const device = new FakeDevice({ limits: { maxHwSectors: 16 } });
  const part = new Partition(device, 1, 1000, 100);
  const bio = makeBio(part, REQ_OP_WRITE, 8, 40);
  const ended = submit(bio);
  settle(device.clock);
  assertEquals(device.log.map((l) => l.split(" ")[1]), [
    "1008+16",
    "1024+16",
    "1040+8",
  ]);
  assertEquals([ended.status, ended.times], [BLK_STS_OK, 1]);
  // A driver that submits it again, and a user who does so once it has ended.
  const seen: number[] = [];
  const disk = new StackedDevice("disk", (bio) => {
    seen.push(bio.sector);
    if (seen.length % 2 === 1) submitBioNoacct(bio);
    else bioEndIo(bio);
  });
  const again = makeBio(new Partition(disk, 1, 1000, 100), REQ_OP_READ, 8, 8);
  submitBio(again);
  again.sector = 16;
  submitBio(again);
  assertEquals(seen, [1008, 1008, 1016, 1016]);
});

Deno.test("Partition() ends where it ends, shares the disk's limits and readahead, and refuses what cannot be", () => {
  const device = new FakeDevice({ limits: { logicalBlockSize: 4096 } });
  const part = new Partition(device, 2, 64, 64);
  assertEquals([part.name, part.dev], ["fake0p2", { major: 259, minor: 2 }]);
  assertEquals(submit(makeBio(part, REQ_OP_READ, 64, 8)).status, BLK_STS_IOERR);
  assertEquals(part.limits === device.limits && part.bdi === device.bdi, true);
  queueLimitsCommitUpdate(part, { maxUserSectors: 8 });
  assertEquals([device.limits.maxSectors, part.limits.maxSectors], [8, 8]);
  for (
    const [what, ...args] of [
      ["partition number 0", 0, 64, 64],
      ["startSector 4", 1, 4, 64],
      ["nrSectors 12", 1, 8, 12],
      ["nrSectors", 1, 64, 2 ** 21],
    ] as [string, number, number, number][]
  ) {
    assertThrows(() => new Partition(device, ...args), FsError, what);
  }
  assertThrows(() => new Partition(part, 1, 0, 8), FsError, "is a partition");
  assertThrows(() => new Partition(zoned(), 1, 0, 64), FsError, "has zones");
  assertEquals(part.readOnly, false);
  device.readOnly = true;
  assertEquals(part.readOnly, true);
});

/** A device with zones of 64 sectors and appends of 32. */
function zoned(lim: Partial<QueueLimits> = {}): FakeDevice {
  return new FakeDevice({
    limits: {
      features: CACHED | BLK_FEAT_ZONED,
      chunkSectors: 64,
      maxHwZoneAppendSectors: 32,
      ...lim,
    },
  });
}

Deno.test("submitBio() lets an append go to the start of a zone, and no other", () => {
  const append = (sector: number, sectors: number, flags = 0) => {
    const device = zoned();
    const bio = makeBio(device, REQ_OP_ZONE_APPEND | flags, sector, sectors);
    const ended = submit(bio);
    settle(device.clock);
    const noMerge = (bio.opf & REQ_NOMERGE) !== 0;
    return [ended.status, device.log.length, noMerge];
  };
  assertEquals(append(64, 32), [BLK_STS_OK, 1, true]);
  assertEquals(append(64, 8, REQ_PREFLUSH), [BLK_STS_OK, 2, true]);
  assertEquals(append(72, 8), [BLK_STS_IOERR, 0, false]);
  assertEquals(append(64, 33), [BLK_STS_IOERR, 0, false]);
});

Deno.test("submitBio() manages zones that nobody has looked at yet", () => {
  const device = zoned();
  const bio = new Bio(device, REQ_OP_ZONE_RESET);
  bio.sector = 64;
  const ended = submit(bio);
  settle(device.clock);
  assertEquals([ended.status, device.log.length], [BLK_STS_OK, 1]);
});

Deno.test("submitBio() does not manage a conventional zone", () => {
  const device = ZonedDevice.registered({ zones: { conventional: 1 } });
  const reset = (sector: number) => {
    const bio = new Bio(device, REQ_OP_ZONE_RESET);
    bio.sector = sector;
    const ended = submit(bio);
    settle(device.clock);
    return [ended.status, device.log.length];
  };
  assertEquals([reset(0), reset(64)], [[BLK_STS_IOERR, 0], [BLK_STS_OK, 1]]);
});

Deno.test("corner case 24: 18 is no status, an unknown errno is IOERR, EINVAL is INVAL", () => {
  assertEquals(blkStatusToErrno(18), -EIO);
  assertEquals(errnoToBlkStatus(-9999), BLK_STS_IOERR);
  assertEquals(errnoToBlkStatus(-EINVAL), BLK_STS_INVAL);
  assertEquals(blkStatusToErrno(BLK_STS_INVAL), -EINVAL);
});

Deno.test("corner case 25: no endIo sees DM_REQUEUE, RESOURCE or DEV_RESOURCE", () => {
  for (
    const status of [
      BLK_STS_DM_REQUEUE,
      BLK_STS_RESOURCE,
      BLK_STS_DEV_RESOURCE,
    ]
  ) {
    // The driver says so of the second request, while the first is under way.
    let calls = 0;
    const refuses = new FakeDevice({
      take: () => ++calls === 2 ? status : BLK_STS_OK,
    });
    const ends = [0, 8].map((s) => submit(makeBio(refuses, REQ_OP_READ, s, 8)));
    settle(refuses.clock);
    assertEquals(ends.map((e) => e.times), [1, 1]);
    assertEquals(ends[1]!.status === status, false);
    // It says so when it is done.
    const fails = new FakeDevice({ status: () => status });
    const ended = submit(makeBio(fails, REQ_OP_READ, 0, 8));
    settle(fails.clock);
    assertEquals([ended.status, ended.times], [BLK_STS_IOERR, 1]);
  }
});

Deno.test("corner case 26: endIo runs once per bio, also when it fails within submit", () => {
  const device = new FakeDevice({ time: () => 0, nrSectors: 64 });
  const ends: Ended[] = [];
  for (const opf of [REQ_OP_READ, REQ_OP_WRITE, REQ_OP_FLUSH, 63]) {
    for (const flags of [0, REQ_FUA, REQ_PREFLUSH, REQ_ATOMIC, REQ_POLLED]) {
      for (const [sector, n] of [[0, 8], [60, 8], [0, 0]] as const) {
        ends.push(submit(makeBio(device, opf | flags, sector, n)));
      }
    }
  }
  settle(device.clock);
  assertEquals(ends.map((e) => e.times), ends.map(() => 1));
});

Deno.test("submitBio() ends what has no memory for its size with IOERR, and warns", () => {
  const warnings: string[] = [];
  const old = setWarningHandler((text) => warnings.push(text));
  try {
    const device = new FakeDevice();
    const none = new Bio(device, REQ_OP_WRITE);
    none.size = 4096;
    const some = makeBio(device, REQ_OP_READ, 0, 8);
    some.size = 8192;
    assertEquals(submit(none).status, BLK_STS_IOERR);
    assertEquals(submit(some).status, BLK_STS_IOERR);
    assertEquals(device.log, []);
    assertEquals(warnings, ["a bio has no memory for all of its size"]);
  } finally {
    setWarningHandler(old);
  }
});

Deno.test("submitBio() lets the disk's error injection and make-it-fail end a bio", () => {
  const device = new FakeDevice({ time: () => 0 });
  const part = new Partition(device, 1, 8, 64);
  device.errorInjection = {
    inject: (bio) => bio.sector === 8 ? BLK_STS_MEDIUM : BLK_STS_OK,
  };
  const read = (bdev: BlockDevice, sector: number) =>
    submit(makeBio(bdev, REQ_OP_READ, sector, 8)).status;
  assertEquals([read(device, 0), read(device, 8)], [0, BLK_STS_MEDIUM]);
  assertEquals([read(part, 0), read(part, 8)], [BLK_STS_MEDIUM, 0]);
  device.errorInjection = null;
  device.bdFlags |= BD_MAKE_IT_FAIL;
  assertEquals([read(device, 0), read(part, 0)], [
    BLK_STS_IOERR,
    BLK_STS_IOERR,
  ]);
});

Deno.test("corner case 12: NOWAIT is AGAIN when all tags are taken, others wait for one", () => {
  const device = new FakeDevice({ depth: 2 });

  const first = [0, 8].map((s) => submit(makeBio(device, REQ_OP_READ, s, 8)));
  const nowait = submit(makeBio(device, REQ_OP_READ | REQ_NOWAIT, 16, 8));
  const waits = submit(makeBio(device, REQ_OP_READ, 24, 8));
  assertEquals(nowait, { status: BLK_STS_AGAIN, at: 0, times: 1 });
  assertEquals(waits.times, 0);
  settle(device.clock);

  assertEquals(first.map((e) => e.at), [10, 10]);
  assertEquals(waits, { status: BLK_STS_OK, at: 20, times: 1 });
  assertEquals(device.log, ["READ 0+8 @0", "READ 8+8 @0", "READ 24+8 @10"]);
});

Deno.test("submitBio() keeps the order of bios that wait for a tag", () => {
  const device = new FakeDevice({ depth: 1 });

  const all = [0, 8, 16, 24].map((s) =>
    submit(makeBio(device, REQ_OP_READ, s, 8))
  );
  settle(device.clock);

  assertEquals(all.map((e) => e.at), [10, 20, 30, 40]);
  assertEquals(all.map((e) => e.times), [1, 1, 1, 1]);
});

Deno.test("submitBio() in endIo goes behind those that wait for a tag already", () => {
  const device = new FakeDevice({ depth: 1 });
  const first = makeBio(device, REQ_OP_READ, 0, 8);
  first.endIo = () => submitBio(makeBio(device, REQ_OP_READ, 24, 8));
  submitBio(first);
  for (const s of [8, 16]) submitBio(makeBio(device, REQ_OP_READ, s, 8));
  settle(device.clock);
  assertEquals(device.log, [
    "READ 0+8 @0",
    "READ 8+8 @10",
    "READ 16+8 @20",
    "READ 24+8 @30",
  ]);
});

Deno.test("corner case 27: resubmitted from endIo 10,000 times a bio does not grow the stack", () => {
  // The device answers within the submission, the worst case.
  const device = new FakeDevice({ time: () => 0 });
  const bio = makeBio(device, REQ_OP_READ, 0, 8);
  let left = 10_000;
  let deepest = 0;
  let depth = 0;
  bio.endIo = (done) => {
    deepest = Math.max(deepest, ++depth);
    if (--left > 0) submitBio(done);
    depth--;
  };

  submitBio(bio);

  assertEquals([left, deepest], [0, 1]);
  assertEquals(device.log.length, 10_000);
});

Deno.test("submitBio() with 10,000 bios waiting for one tag does not grow the stack", () => {
  const device = new FakeDevice({
    depth: 1,
    time: (rq) => rq.sector === 0 ? 1000 : 0,
  });
  let ended = 0;
  for (let i = 0; i < 10_000; i++) {
    const bio = makeBio(device, REQ_OP_READ, i, 1);
    bio.endIo = () => ended++;
    submitBio(bio);
  }
  assertEquals(ended, 0);
  settle(device.clock);
  assertEquals(ended, 10_000);
});

/** A device that hands bios on to others and notes when it is called. */
class StackedDevice extends BlockDevice {
  override readonly name: string;
  override readonly clock = new VirtualClock();
  override readonly limits: QueueLimits = limits({});
  override readonly nrSectors = 2048;
  override readonly dev = { major: 253, minor: 0 };
  readonly #submit: (bio: Bio) => void;

  constructor(name: string, submit: (bio: Bio) => void) {
    super();
    this.name = name;
    this.#submit = submit;
  }
  override submit(bio: Bio): void {
    this.#submit(bio);
  }
}

Deno.test("corner case 28: what a driver submits runs after that driver returns, lower devices first", () => {
  const order: string[] = [];
  const lower = new StackedDevice("lower", (bio) => {
    order.push(`lower ${bio.sector}`);
    bioEndIo(bio);
  });
  const upper: StackedDevice = new StackedDevice("upper", (bio) => {
    order.push(`upper ${bio.sector}`);
    if (bio.sector === 0) {
      for (const [bdev, sector] of [[upper, 8], [lower, 1], [lower, 2]]) {
        submitBio(
          makeBio(bdev as BlockDevice, REQ_OP_READ, sector as number, 1),
        );
      }
      order.push("upper returns");
    }
    bioEndIo(bio);
  });

  submitBio(makeBio(upper, REQ_OP_READ, 0, 1));

  assertEquals(order, [
    "upper 0",
    "upper returns",
    "lower 1",
    "lower 2",
    "upper 8",
  ]);
});

/** A parent with children that end with the statuses, in this order. */
function chain(...statuses: number[]): { parent: Bio; ends: number[] } {
  const device = new FakeDevice();
  const parent = makeBio(device, REQ_OP_READ, 0, 8);
  // How often the parent has ended after each child.
  const ends: number[] = [];
  let ended = 0;
  parent.endIo = () => ended++;
  const children = statuses.map(() => makeBio(device, REQ_OP_READ, 8, 8));
  for (const child of children) bioChain(child, parent);
  bioEndIo(parent);
  for (const [i, status] of statuses.entries()) {
    children[i]!.status = status;
    bioEndIo(children[i]!);
    ends.push(ended);
  }
  return { parent, ends };
}

Deno.test("corner case 29: with two failing children the parent has the first error", () => {
  const { parent } = chain(BLK_STS_MEDIUM, BLK_STS_IOERR);
  assertEquals(parent.status, BLK_STS_MEDIUM);
});

Deno.test("corner case 30: a failing child does not stop the others, and the parent waits for all", () => {
  const { parent, ends } = chain(BLK_STS_IOERR, BLK_STS_OK, BLK_STS_OK);
  assertEquals([parent.status, ends], [BLK_STS_IOERR, [0, 0, 1]]);
  const device = new FakeDevice({
    limits: { maxHwSectors: 8 },
    status: (rq) => rq.sector === 0 ? BLK_STS_IOERR : BLK_STS_OK,
  });
  const ended = submit(makeBio(device, REQ_OP_READ, 0, 24));
  settle(device.clock);
  assertEquals([ended.status, device.log.length], [BLK_STS_IOERR, 3]);
});

Deno.test("bioEndIo() unwinds a chain of 10,000 without recursion", () => {
  const device = new FakeDevice();
  let bio = makeBio(device, REQ_OP_READ, 0, 8);
  const last = bio;
  let ends = 0;
  last.endIo = () => ends++;
  const chain = [last];
  for (let i = 0; i < 10_000; i++) {
    const child = makeBio(device, REQ_OP_READ, 0, 8);
    bioChain(child, bio);
    chain.push(child);
    bio = child;
  }
  for (const link of chain.slice(0, -1)) bioEndIo(link);
  assertEquals(ends, 0);
  chain.at(-1)!.status = BLK_STS_OFFLINE;
  bioEndIo(chain.at(-1)!);
  assertEquals([ends, last.status], [1, BLK_STS_OFFLINE]);
});

Deno.test("submitBioWait() answers at once in a synchronous call, and by a promise elsewhere", async () => {
  const device = new FakeDevice({ status: () => BLK_STS_MEDIUM });
  device.clock.enterSync();
  const plain = submitBioWait(makeBio(device, REQ_OP_READ, 0, 8));
  device.clock.leaveSync();
  assertEquals(plain, blkStatusToErrno(BLK_STS_MEDIUM));

  const later = submitBioWait(makeBio(device, REQ_OP_READ, 0, 8));
  assertEquals(later instanceof Promise, true);
  assertEquals(await later, blkStatusToErrno(BLK_STS_MEDIUM));
});

Deno.test("submitBioWait() of a synchronous call inside endIo does not wait for the loop above it", () => {
  const device = new FakeDevice({ time: () => 0 });
  const bio = makeBio(device, REQ_OP_READ, 0, 8);
  let inner: unknown;
  bio.endIo = () => {
    device.clock.enterSync();
    inner = submitBioWait(makeBio(device, REQ_OP_WRITE, 8, 8));
    device.clock.leaveSync();
  };

  submitBio(bio);

  assertEquals(inner, 0);
  assertEquals(device.log, ["READ 0+8 @0", "WRITE 8+8 @0"]);
});

Deno.test("submitBio() of a synchronous call inside endIo does not wait for the loop above it", () => {
  const device = new FakeDevice({ time: () => 0 });
  const { clock } = device;
  const first = makeBio(device, REQ_OP_READ, 0, 8);
  const done: boolean[] = [];
  first.endIo = () => {
    // Not a synchronous call: the loop above takes it up.
    const later = submit(makeBio(device, REQ_OP_READ, 8, 8));
    clock.enterSync();
    const inner = submit(makeBio(device, REQ_OP_READ, 16, 8));
    clock.leaveSync();
    done.push(later.times === 1, inner.times === 1);
  };
  submitBio(first);
  assertEquals(done, [false, true]);
  assertEquals(device.log, ["READ 0+8 @0", "READ 16+8 @0", "READ 8+8 @0"]);
});

Deno.test("submitBio() of an event that is run in place does not wait for who runs it", () => {
  const device = new FakeDevice();
  const { clock } = device;
  // A driver that waits within its submission, and whose device below is slow.
  const upper = new StackedDevice("upper", (bio) => {
    let ended = false;
    clock.at(1000, () => {
      const late = makeBio(device, REQ_OP_READ, 0, 8);
      late.endIo = () => ended = true;
      submitBio(late);
    }, null);
    assertEquals(clock.runUntil(() => ended), true);
    assertEquals(submitBioWait(makeBio(device, REQ_OP_READ, 8, 8)), 0);
    bioEndIo(bio);
  });
  clock.enterSync();
  const ended = submit(makeBio(upper, REQ_OP_READ, 0, 8));
  clock.leaveSync();
  assertEquals([ended.times, device.log.length], [1, 2]);
});

Deno.test("bioReset() makes a bio as good as new", () => {
  const device = new FakeDevice();
  const other = new FakeDevice({}, device.clock);
  const bio = makeBio(device, REQ_OP_READ | REQ_POLLED, 8, 8);
  const { vecs } = bio;
  Object.assign(bio, {
    vecIndex: 1,
    vecDone: 2,
    flags: BIO_REMAPPED,
    ioprio: 3,
    writeHint: 4,
    writeStream: 5,
    cookie: 6,
    status: BLK_STS_IOERR,
    private: 7,
    next: bio,
    nrSegs: 8,
  });
  bioReset(bio, other, REQ_OP_WRITE);
  assertEquals({ ...bio, bdev: null }, {
    ...new Bio(other, REQ_OP_WRITE),
    bdev: null,
  });
  assertEquals([bio.bdev === other, vecs.length], [true, 1]);
});

Deno.test("bioPoll() finds nothing of a bio that is not polled, and is done with it in a bounded time", () => {
  const device = new FakeDevice({ pollQueues: 1 });
  const plain = makeBio(device, REQ_OP_READ, 0, 8);
  submit(plain);
  assertEquals([bioPoll(plain), device.clock.now()], [0, 0]);
  const polled = makeBio(device, REQ_OP_READ | REQ_POLLED, 8, 8);
  const ended = submit(polled);
  assertEquals([bioPoll(polled, BLK_POLL_ONESHOT), ended.times], [0, 0]);
  assertEquals([bioPoll(polled), ended.times, ended.at], [1, 1, 10]);
  settle(device.clock);
  assertEquals(device.clock.now(), 10 * USEC);
  // What is held back is sent before it is looked for.
  blkStartPlug();
  submit(polled);
  assertEquals([polled.cookie, bioPoll(polled), polled.cookie], [-1, 1, 1]);
  blkFinishPlug();

  const stuck = new FakeDevice({ pollQueues: 1, time: () => 60 * SEC });
  const slow = makeBio(stuck, REQ_OP_READ | REQ_POLLED, 0, 8);
  submit(slow);
  assertEquals([bioPoll(slow), stuck.clock.now()], [0, 8 * MSEC]);
});

Deno.test("submitBio() counts requests, bytes and time in the disk's statistics", () => {
  const device = new FakeDevice({ depth: 1 });
  submit(makeBio(device, REQ_OP_READ, 0, 8));
  submit(makeBio(device, REQ_OP_WRITE, 0, 16));
  settle(device.clock);
  submit(makeBio(device, REQ_OP_WRITE | REQ_PREFLUSH, 0, 0));
  settle(device.clock);

  const { read, write, flush, ioTicks, timeInQueue, inFlight } =
    device.queue.stats;
  assertEquals(read, { ios: 1, merges: 0, bytes: 4096, ticks: 10_000 });
  // An empty flush is two in Linux's /proc/diskstats: a write of nothing, and its FLUSH.
  assertEquals(write, { ios: 2, merges: 0, bytes: 8192, ticks: 110_000 });
  assertEquals(flush, { ios: 1, merges: 0, bytes: 0, ticks: 100_000 });
  assertEquals([ioTicks, timeInQueue, inFlight], [120_000, 220_000, 0]);
});

Deno.test("DiskStats.ioTicks counts time with two requests under way once", () => {
  const device = new FakeDevice({
    time: (rq) => rq.sector === 0 ? 10_000 : 25_000,
  });
  for (const s of [0, 8]) submit(makeBio(device, REQ_OP_READ, s, 8));
  settle(device.clock);
  const { ioTicks, timeInQueue } = device.queue.stats;
  assertEquals([ioTicks, timeInQueue], [25_000, 35_000]);
});

Deno.test("submitBio() of a bio that is under way is a bug, afterwards it is none", () => {
  const device = new FakeDevice({ depth: 1 });
  const other = submit(makeBio(device, REQ_OP_READ, 64, 8));
  // One with the driver, one in line for a tag.
  const bio = makeBio(device, REQ_OP_READ, 0, 8);
  const ended = submit(bio);
  assertThrows(() => submitBio(bio), Error, "BUG: a bio is submitted twice");
  settle(device.clock);
  assertEquals([other.times, ended.times], [1, 1]);
  submitBio(bio);
  settle(device.clock);
  assertEquals([ended.times, device.log.length], [2, 3]);
});

Deno.test("submitBio() manages no zone at what is no sector", () => {
  const device = ZonedDevice.registered();
  for (const sector of [-ZONE, 1.5, NaN, Infinity, 2 ** 60]) {
    const bio = new Bio(device, REQ_OP_ZONE_RESET);
    bio.sector = sector;
    assertEquals(submit(bio).status, BLK_STS_IOERR, `${sector}`);
  }
  assertEquals(device.log, []);
});
