import { assertEquals } from "@std/assert";
import {
  Bio,
  bioChain,
  bioEndIo,
  BLK_STS_AGAIN,
  BLK_STS_INVAL,
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_NOTSUPP,
  BLK_STS_OFFLINE,
  BLK_STS_OK,
  blkStatusToErrno,
  BlockDevice,
  errnoToBlkStatus,
  type QueueLimits,
  REQ_ATOMIC,
  REQ_FUA,
  REQ_NOWAIT,
  REQ_OP_DISCARD,
  REQ_OP_FLUSH,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_POLLED,
  REQ_PREFLUSH,
  submitBio,
  submitBioWait,
} from "../../block/mod.ts";
import { EINVAL, EIO } from "../../lib/errno.ts";
import { VirtualClock } from "../../lib/clock.ts";
import {
  FakeDevice,
  type FakeOptions,
  limits,
  makeBio,
  settle,
  submit,
} from "./fake_device.ts";

/** What a refused or trivial bio ends with, and what the driver sees of it. */
interface Case {
  name: string;
  options?: FakeOptions;
  opf: number;
  /** Sector and sectors. */
  at?: [number, number];
  status: number;
  log?: string[];
}

const cases: Case[] = [
  {
    name: "1. FLUSH in a bio",
    opf: REQ_OP_FLUSH,
    status: BLK_STS_NOTSUPP,
  },
  {
    name: "2. empty PREFLUSH without a cache",
    options: { cache: "none" },
    opf: REQ_OP_WRITE | REQ_PREFLUSH,
    status: BLK_STS_OK,
  },
  {
    name: "3. empty PREFLUSH with a cache",
    opf: REQ_OP_WRITE | REQ_PREFLUSH,
    status: BLK_STS_OK,
    log: ["FLUSH @0"],
  },
  {
    name: "4. empty FUA with a cache and FUA",
    opf: REQ_OP_WRITE | REQ_FUA,
    status: BLK_STS_OK,
  },
  {
    name: "4. empty FUA with a cache and no FUA",
    options: { cache: "no-fua" },
    opf: REQ_OP_WRITE | REQ_FUA,
    status: BLK_STS_OK,
    log: ["FLUSH @0"],
  },
  {
    name: "5. READ with FUA",
    opf: REQ_OP_READ | REQ_FUA,
    at: [0, 8],
    status: BLK_STS_IOERR,
  },
  {
    name: "5. READ with PREFLUSH",
    opf: REQ_OP_READ | REQ_PREFLUSH,
    at: [0, 8],
    status: BLK_STS_IOERR,
  },
  {
    name: "6. DISCARD with FUA",
    opf: REQ_OP_DISCARD | REQ_FUA,
    at: [0, 8],
    status: BLK_STS_IOERR,
  },
  {
    name: "7. sector 1 on LBS 4096",
    options: { limits: { logicalBlockSize: 4096 } },
    opf: REQ_OP_READ,
    at: [1, 8],
    status: BLK_STS_IOERR,
  },
  {
    name: "8. length 0 at capacity",
    options: { nrSectors: 64 },
    opf: REQ_OP_READ,
    at: [64, 0],
    status: BLK_STS_OK,
  },
  {
    name: "8. one sector at capacity",
    options: { nrSectors: 64 },
    opf: REQ_OP_READ,
    at: [64, 1],
    status: BLK_STS_IOERR,
  },
  {
    name: "9. up to capacity",
    options: { nrSectors: 64 },
    opf: REQ_OP_WRITE,
    at: [56, 8],
    status: BLK_STS_OK,
    log: ["WRITE 56+8 @0"],
  },
  {
    name: "9. one sector beyond capacity",
    options: { nrSectors: 64 },
    opf: REQ_OP_WRITE,
    at: [57, 8],
    status: BLK_STS_IOERR,
  },
  {
    name: "10. sector so large that a sum is not exact",
    options: { nrSectors: 64 },
    opf: REQ_OP_READ,
    at: [Number.MAX_SAFE_INTEGER, 8],
    status: BLK_STS_IOERR,
  },
  {
    name: "11. NOWAIT without the feature",
    options: { limits: { features: 0 } },
    opf: REQ_OP_READ | REQ_NOWAIT,
    at: [0, 8],
    status: BLK_STS_NOTSUPP,
  },
  {
    name: "13. NOWAIT that needs a split",
    options: { limits: { maxHwSectors: 16 } },
    opf: REQ_OP_READ | REQ_NOWAIT,
    at: [0, 32],
    status: BLK_STS_AGAIN,
  },
  {
    name: "15. ATOMIC on a device without atomic writes",
    opf: REQ_OP_WRITE | REQ_ATOMIC,
    at: [0, 8],
    status: BLK_STS_INVAL,
  },
  {
    name: "16. POLLED without poll queues",
    opf: REQ_OP_READ | REQ_POLLED,
    at: [0, 8],
    status: BLK_STS_NOTSUPP,
  },
  {
    name: "18. DISCARD without support",
    opf: REQ_OP_DISCARD,
    at: [0, 8],
    status: BLK_STS_NOTSUPP,
  },
  {
    name: "19. WRITE_ZEROES without support",
    opf: REQ_OP_WRITE_ZEROES,
    at: [0, 8],
    status: BLK_STS_NOTSUPP,
  },
  {
    name: "unknown operation",
    opf: 63,
    at: [0, 8],
    status: BLK_STS_NOTSUPP,
  },
  {
    name: "memory that is not aligned for the device",
    options: { limits: { dmaAlignment: 1023 } },
    opf: REQ_OP_READ,
    at: [0, 1],
    status: BLK_STS_INVAL,
  },
];

for (const { name, options, opf, at, status, log = [] } of cases) {
  Deno.test(`submitBio() ${name}: ends once, as it should`, () => {
    const device = new FakeDevice(options);

    const ended = submit(makeBio(device, opf, ...at ?? [0, 0]));
    settle(device.clock);

    assertEquals([ended.status, ended.times], [status, 1]);
    assertEquals(device.log, log);
  });
}

Deno.test("submitBio() 7. ends a bio of 513 bytes with IOERR", () => {
  const device = new FakeDevice();
  const bio = new Bio(device, REQ_OP_READ);
  bio.addData(new Uint8Array(513), 0, 513);

  assertEquals(submit(bio).status, BLK_STS_IOERR);
  assertEquals(device.log, []);
});

Deno.test("submitBio() 12. answers NOWAIT with AGAIN when all tags are taken, and lets others wait", () => {
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

Deno.test("blkStatusToErrno() 24. and errnoToBlkStatus() agree, and unknown is I/O", () => {
  assertEquals(blkStatusToErrno(18), -EIO);
  assertEquals(errnoToBlkStatus(-9999), BLK_STS_IOERR);
  assertEquals(errnoToBlkStatus(-EINVAL), BLK_STS_INVAL);
  assertEquals(blkStatusToErrno(BLK_STS_INVAL), -EINVAL);
});

Deno.test("submitBio() 27. resubmitted from endIo 10,000 times does not grow the stack", () => {
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

Deno.test("submitBio() 27. with 10,000 bios waiting for one tag does not grow the stack", () => {
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
  override readonly writeCache = false;
  override readonly fua = false;
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

Deno.test("submitBio() 28. runs what a driver submits after that driver, lower devices first", () => {
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

Deno.test("bioChain() 29, 30. ends the parent after all children, with the first error", () => {
  const device = new FakeDevice();
  const parent = makeBio(device, REQ_OP_READ, 0, 8);
  const children = [8, 16, 24].map((s) => makeBio(device, REQ_OP_READ, s, 8));
  let ends = 0;
  parent.endIo = () => ends++;
  for (const child of children) bioChain(child, parent);

  bioEndIo(parent);
  children[1]!.status = BLK_STS_MEDIUM;
  bioEndIo(children[1]!);
  children[0]!.status = BLK_STS_IOERR;
  bioEndIo(children[0]!);
  assertEquals(ends, 0);
  bioEndIo(children[2]!);

  assertEquals([ends, parent.status], [1, BLK_STS_MEDIUM]);
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
