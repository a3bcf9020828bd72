/**
 * What mapped devices pass on beside reads, writes and flushes, and how.
 */
import { assertEquals } from "@std/assert";
import {
  Bio,
  bioEndIo,
  bioPoll,
  BLK_FEAT_ATOMIC_WRITES,
  BLK_FEAT_NOWAIT,
  BLK_FEAT_POLL,
  BLK_FEAT_WRITE_CACHE,
  BLK_POLL_ONESHOT,
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_NOTSUPP,
  BLK_STS_OK,
  type BlockDevice,
  DelayDevice,
  ErrorDevice,
  FlakeyDevice,
  LinearDevice,
  LogWritesDevice,
  type QueueLimits,
  REQ_ATOMIC,
  REQ_OP_DISCARD,
  REQ_OP_READ,
  REQ_OP_SECURE_ERASE,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_POLLED,
  StripeDevice,
  submitBio,
} from "../../../block/mod.ts";
import { setWarningHandler } from "../../../lib/bug.ts";
import { USEC, VirtualClock } from "../../../lib/clock.ts";
import { Prng } from "../../../lib/prng.ts";
import {
  FakeDevice,
  type FakeOptions,
  makeBio,
  settle,
  submit,
} from "../fake_device.ts";

const KINDS: Record<string, (bdev: BlockDevice) => BlockDevice> = {
  linear: (bdev) => new LinearDevice(bdev, { startSector: 64 }),
  stripe: (bdev) => new StripeDevice([bdev], { chunkSectors: 64 }),
  error: (bdev) => new ErrorDevice(bdev),
  delay: (bdev) => new DelayDevice(bdev, { readNs: USEC }),
  flakey: (bdev) => new FlakeyDevice(bdev, { fromWrite: 1000 }),
  log: (bdev) => new LogWritesDevice(bdev),
};

const ATOMIC: Partial<QueueLimits> = {
  features: BLK_FEAT_ATOMIC_WRITES | BLK_FEAT_NOWAIT | BLK_FEAT_WRITE_CACHE,
  atomicWriteHwMax: 16384,
  atomicWriteHwUnitMin: 512,
  atomicWriteHwUnitMax: 16384,
};

/** A device that has every operation there is but those of zones. */
function able(more: FakeOptions = {}, clock = new VirtualClock()): FakeDevice {
  return new FakeDevice({
    ...more,
    limits: {
      ...ATOMIC,
      maxHwDiscardSectors: 2048,
      discardGranularity: 4096,
      maxSecureEraseSectors: 2048,
      maxWriteZeroesSectors: 2048,
      maxHwWzeroesUnmapSectors: 2048,
      ...more.limits,
    },
  }, clock);
}

function run(device: BlockDevice, opf: number, at: number, sectors: number) {
  const bio = opf === REQ_OP_DISCARD || opf === REQ_OP_SECURE_ERASE ||
      opf === REQ_OP_WRITE_ZEROES
    ? new Bio(device, opf)
    : makeBio(device, opf, at, sectors);
  bio.sector = at;
  bio.size = sectors * 512;
  const ended = submit(bio);
  settle(device.clock);
  assertEquals(ended.times, 1);
  return ended.status;
}

const OPS: [string, number][] = [
  ["discard", REQ_OP_DISCARD],
  ["secure erase", REQ_OP_SECURE_ERASE],
  ["write zeroes", REQ_OP_WRITE_ZEROES],
  ["atomic write", REQ_OP_WRITE | REQ_ATOMIC],
];
// As the kernel's targets do.
const PASSED: Record<string, string[]> = {
  linear: ["discard", "secure erase", "write zeroes", "atomic write"],
  stripe: ["discard", "secure erase", "write zeroes", "atomic write"],
  error: ["discard", "secure erase", "write zeroes", "atomic write"],
  delay: ["discard"],
  flakey: ["discard"],
  log: ["discard"],
};
for (const [kind, passed] of Object.entries(PASSED)) {
  Deno.test(`DmDevice ${kind} passes ${passed.join(", ")} and nothing else`, () => {
    const disk = able();
    const top = KINDS[kind]!(disk);
    const done = OPS.filter(([, opf]) => run(top, opf, 64, 8) === BLK_STS_OK);
    assertEquals(done.map(([name]) => name), passed);
    assertEquals(disk.log.length, passed.length);
    const { features } = top.limits;
    const nowait = kind === "linear" || kind === "stripe" || kind === "error";
    assertEquals((features & BLK_FEAT_NOWAIT) !== 0, nowait);
  });
}

Deno.test("DmDevice has an operation only if all devices below have it, and WRITE_ZEROES that unmap likewise", () => {
  const clock = new VirtualClock();
  const pair = (limits: Partial<QueueLimits>) =>
    new StripeDevice([able({}, clock), able({ limits }, clock)], {
      chunkSectors: 64,
    });
  const have = (top: BlockDevice) => {
    const l = top.limits;
    return [
      l.maxDiscardSectors,
      l.maxSecureEraseSectors,
      l.maxWriteZeroesSectors,
      l.maxHwWzeroesUnmapSectors,
      l.atomicWriteUnitMax,
    ].map((n) => n > 0);
  };
  assertEquals(have(pair({})), [true, true, true, true, true]);
  assertEquals(have(pair({ maxHwDiscardSectors: 0 })), [
    false,
    true,
    true,
    true,
    true,
  ]);
  assertEquals(
    have(pair({ maxSecureEraseSectors: 0, features: BLK_FEAT_NOWAIT })),
    [true, false, true, true, false],
  );
  assertEquals(
    have(pair({ maxWriteZeroesSectors: 0, maxHwWzeroesUnmapSectors: 0 })),
    [true, true, false, false, true],
  );
});

Deno.test("LinearDevice has atomic writes only where its start lets their units lie as they should", () => {
  const disk = able({ limits: { atomicWriteHwBoundary: 16384 } });
  const max = (startSector: number) =>
    new LinearDevice(disk, { startSector }).limits.atomicWriteUnitMax;
  assertEquals([max(0), max(32), max(8)], [16384, 16384, 0]);
});

Deno.test("StripeDevice sends each device one discard, of what lies there in one piece", () => {
  const clock = new VirtualClock();
  const disks = [0, 1, 2].map(() => able({}, clock));
  const top = new StripeDevice(disks, { chunkSectors: 24 });
  const random = new Prng(4);
  for (let round = 0; round < 300; round++) {
    const at = random.below(500) * 8;
    const sectors = (1 + random.below(40)) * 8;
    const op = random.below(2) === 0 ? REQ_OP_DISCARD : REQ_OP_SECURE_ERASE;
    for (const disk of disks) disk.log.length = 0;
    assertEquals(run(top, op, at, sectors), BLK_STS_OK);
    // Which sectors a read would take from where.
    const expected = disks.map(() => [] as number[]);
    for (let s = at; s < at + sectors; s++) {
      const chunk = Math.floor(s / 24);
      expected[chunk % 3]!.push(Math.floor(chunk / 3) * 24 + s % 24);
    }
    disks.forEach(({ log }, i) => {
      assertEquals(log.length, expected[i]!.length > 0 ? 1 : 0);
      if (log.length === 0) return;
      const [, from, n] = log[0]!.match(/ (\d+)\+(\d+) /)!;
      assertEquals([Number(from), Number(n)], [
        expected[i]![0],
        expected[i]!.length,
      ]);
    });
  }
});

Deno.test("StripeDevice splits a discard by the devices' limit, and tells an error of any part", () => {
  const clock = new VirtualClock();
  const bad = () => BLK_STS_MEDIUM;
  const disks = [able({}, clock), able({ status: bad }, clock)];
  const top = new StripeDevice(disks, { chunkSectors: 8 });
  assertEquals(run(top, REQ_OP_DISCARD, 0, 5000), BLK_STS_MEDIUM);
  // 2048, 2048 and 904 sectors, half of each on one device.
  assertEquals(disks.map(({ log }) => log.length), [3, 3]);
  assertEquals(run(top, REQ_OP_DISCARD, 0, 8), BLK_STS_OK);
  assertEquals(run(top, REQ_OP_DISCARD, 8, 8), BLK_STS_MEDIUM);
});

Deno.test("FlakeyDevice drops and fails discards as it does writes", () => {
  for (
    const [how, status] of [
      ["dropWrites", BLK_STS_OK],
      ["errorWrites", BLK_STS_IOERR],
    ] as const
  ) {
    const disk = able();
    const top = new FlakeyDevice(disk, { [how]: true });
    assertEquals(run(top, REQ_OP_DISCARD, 0, 8), status);
    assertEquals(disk.log, []);
  }
  // What has no memory has no byte to change.
  const disk = able();
  const corrupt = { offset: 0, direction: "write", value: 1 } as const;
  const top = new FlakeyDevice(disk, { corrupt });
  assertEquals(run(top, REQ_OP_DISCARD, 0, 8), BLK_STS_OK);
  assertEquals(disk.log.length, 1);
});

Deno.test("DmDevice clones carry priority, hint and stream", () => {
  const disk = able();
  const bio = makeBio(new LinearDevice(disk, { startSector: 8 }), 1, 0, 8);
  Object.assign(bio, { ioprio: 3, writeHint: 4, writeStream: 5 });
  const seen: number[][] = [];
  disk.submit = (clone) => {
    seen.push([clone.ioprio, clone.writeHint, clone.writeStream]);
    bioEndIo(clone);
  };
  submitBio(bio);
  assertEquals(seen, [[3, 4, 5]]);
});

const POLL: FakeOptions = {
  pollQueues: 1,
  time: () => 10 * USEC,
  limits: { features: BLK_FEAT_POLL | BLK_FEAT_NOWAIT },
};

Deno.test("DmDevice is polled where all devices below can be", () => {
  const clock = new VirtualClock();
  const polling = () => new FakeDevice(POLL, clock);
  const other = new FakeDevice({}, clock);
  const stripe = (...legs: BlockDevice[]) =>
    new StripeDevice(legs, { chunkSectors: 8 });
  const mixed = stripe(polling(), other);
  assertEquals(run(mixed, REQ_OP_READ | REQ_POLLED, 0, 8), BLK_STS_NOTSUPP);

  const top = new LinearDevice(stripe(polling(), polling()), {
    startSector: 8,
  });
  const bios = [0, 8, 16].map((at) =>
    makeBio(top, REQ_OP_READ | REQ_POLLED, at, 8)
  );
  const ended = bios.map(submit);
  settle(clock);
  // The device has long done them; nobody has looked.
  assertEquals(ended.map(({ times }) => times), [0, 0, 0]);
  assertEquals(bioPoll(bios[1]!, BLK_POLL_ONESHOT), 3);
  assertEquals(
    ended.map(({ status, times }) => [status, times]),
    [0, 0, 0].map(() => [BLK_STS_OK, 1]),
  );
  assertEquals(bioPoll(bios[1]!, BLK_POLL_ONESHOT), 0);
});

Deno.test("StripeDevice reaps by interrupt what it has to split", () => {
  const clock = new VirtualClock();
  const top = new StripeDevice(
    [0, 1].map(() => new FakeDevice(POLL, clock)),
    { chunkSectors: 8 },
  );
  assertEquals(run(top, REQ_OP_READ | REQ_POLLED, 0, 16), BLK_STS_OK);
});

Deno.test("DmDevice.poll() does not go on with what is submitted meanwhile", () => {
  const disk = new FakeDevice({ ...POLL, time: () => 0 });
  const top = new LinearDevice(disk, { startSector: 8 });
  const bio = makeBio(top, REQ_OP_READ | REQ_POLLED, 0, 8);
  let ended = 0;
  bio.endIo = () => {
    // Without end, if it were for the poller.
    if (++ended < 1000) submitBio(bio);
  };
  submitBio(bio);
  assertEquals([bioPoll(bio, BLK_POLL_ONESHOT), ended], [1, 1]);
  while (ended < 1000) bioPoll(bio, BLK_POLL_ONESHOT);
});

Deno.test("DmDevice ends what is hostile once, and no layer throws", () => {
  const sectors = [0, 8, -8, 1.5, NaN, Infinity, 2 ** 53, 2 ** 60];
  const sizes = [0, 4096, 513, -512, NaN, Infinity, 2 ** 40];
  const old = setWarningHandler(() => {});
  try {
    const make = (bdev: BlockDevice) => [
      ...Object.values(KINDS).map((kind) => kind(bdev)),
      new FlakeyDevice(bdev, {
        corrupt: { offset: 1000, direction: "read", value: 1 },
      }),
      new FlakeyDevice(bdev, {
        corrupt: { offset: 1000, direction: "write", value: 1 },
      }),
    ];
    for (const top of make(new FakeDevice())) {
      for (const op of [REQ_OP_READ, REQ_OP_WRITE, REQ_OP_DISCARD, 17, 19]) {
        for (const sector of sectors) {
          for (const size of sizes) {
            for (const memory of [0, 512]) {
              const bio = makeBio(top, op, sector, memory / 512);
              bio.size = size;
              const ended = submit(bio);
              settle(top.clock);
              assertEquals(
                ended.times,
                1,
                `${top.name} ${op} ${sector} ${size}`,
              );
            }
          }
        }
      }
    }
  } finally {
    setWarningHandler(old);
  }
});
