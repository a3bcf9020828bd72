import { assertEquals } from "@std/assert";
import {
  Bio,
  BLK_FEAT_ATOMIC_WRITES,
  BLK_FEAT_NOWAIT,
  BLK_FEAT_POLL,
  BLK_FEAT_WRITE_CACHE,
  BLK_STS_DEV_RESOURCE,
  BLK_STS_OK,
  blkExecuteRqNowait,
  blkFinishPlug,
  blkStartPlug,
  type QueueLimits,
  REQ_ATOMIC,
  REQ_FAILFAST_DEV,
  REQ_FAILFAST_MASK,
  REQ_FUA,
  REQ_NOMERGE,
  REQ_OP_DISCARD,
  REQ_OP_DRV_OUT,
  REQ_OP_READ,
  REQ_OP_SECURE_ERASE,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_OP_ZONE_APPEND,
  REQ_POLLED,
  REQ_PREFLUSH,
  REQ_RAHEAD,
  submitBio,
} from "../../block/mod.ts";
import {
  FakeDevice,
  type FakeOptions,
  makeBio,
  settle,
  submit,
} from "./fake_device.ts";
import { ZONE, ZonedDevice } from "./zoned_device.ts";

const W = REQ_OP_WRITE;
const R = REQ_OP_READ;

/** A bio of 8 sectors at block `i`. */
function block(device: FakeDevice, i: number, opf = W): Bio {
  return makeBio(device, opf, 8 * i, 8);
}

/** What reaches the driver, without the time. */
function seen(device: FakeDevice): string[] {
  settle(device.clock);
  return device.log.map((line) => line.split(" @")[0]!);
}

/** Submits bios under one plug: what reaches the driver. */
function plugged(
  device: FakeDevice,
  make: (device: FakeDevice) => Bio[],
): string[] {
  blkStartPlug();
  const all = make(device).map(submit);
  blkFinishPlug();
  const lines = seen(device);
  for (const { status, times } of all) {
    assertEquals([status, times], [BLK_STS_OK, 1]);
  }
  return lines;
}

Deno.test("corner case 41: two adjacent writes in one plug are one request, and end in order", () => {
  const device = new FakeDevice();
  const order: string[] = [];
  blkStartPlug();
  for (const i of [0, 1]) {
    const bio = block(device, i);
    bio.endIo = () => order.push(`${i} @${device.clock.now()}`);
    submitBio(bio);
  }
  blkFinishPlug();
  assertEquals(seen(device), ["WRITE 0+16"]);
  assertEquals(order, ["0 @10000", "1 @10000"]);
  const { write } = device.queue.stats;
  assertEquals([write.ios, write.merges, write.bytes], [1, 1, 16 * 512]);
});

Deno.test("blkMqAttemptBioMerge() adds to the front, too, and a front ends first", () => {
  const device = new FakeDevice();
  const order: number[] = [];
  blkStartPlug();
  for (const i of [5, 4, 6, 3]) {
    const bio = block(device, i, R);
    bio.endIo = () => order.push(i);
    submitBio(bio);
  }
  blkFinishPlug();
  assertEquals(seen(device), ["READ 24+32"]);
  assertEquals(order, [3, 4, 5, 6]);
  assertEquals(device.queue.stats.read.merges, 3);
});

Deno.test("blkMqAttemptBioMerge() does not look beyond the newest request of the plug", () => {
  const device = new FakeDevice();
  assertEquals(
    plugged(device, (d) => [block(d, 0), block(d, 9), block(d, 1)]),
    ["WRITE 0+8", "WRITE 72+8", "WRITE 8+8"],
  );
});

Deno.test("blkMqAttemptBioMerge() takes the oldest request of its device in a plug of several", () => {
  const one = new FakeDevice();
  const other = new FakeDevice();
  blkStartPlug();
  submit(block(one, 0));
  submit(block(one, 20));
  submit(block(other, 0));
  submit(block(one, 1));
  submit(block(one, 21));
  blkFinishPlug();
  assertEquals(seen(one), ["WRITE 0+16", "WRITE 160+8", "WRITE 168+8"]);
  assertEquals(seen(other), ["WRITE 0+8"]);
});

Deno.test("corner case 42: bios of another priority, hint, stream or operation do not merge", () => {
  const two = ["WRITE 0+8", "WRITE 8+8"];
  for (const field of ["ioprio", "writeHint", "writeStream"] as const) {
    const make = (value: number) => (device: FakeDevice) => {
      const bios = [block(device, 0), block(device, 1)];
      bios[0]![field] = 3;
      bios[1]![field] = value;
      return bios;
    };
    assertEquals(plugged(new FakeDevice(), make(4)), two, field);
    assertEquals(plugged(new FakeDevice(), make(3)), ["WRITE 0+16"], field);
  }
  assertEquals(
    plugged(new FakeDevice(), (d) => [block(d, 0, R), block(d, 1, W)]),
    ["READ 0+8", "WRITE 8+8"],
  );
  // A hint of the submitter about failures is none about the kind.
  assertEquals(
    plugged(
      new FakeDevice(),
      (d) => [block(d, 0, R), block(d, 1, R | REQ_RAHEAD)],
    ),
    ["READ 0+16"],
  );
});

Deno.test("corner case 43: FUA, PREFLUSH, NOMERGE, WRITE_ZEROES, ZONE_APPEND and a driver's own never merge", () => {
  const both = (opf: number) =>
    plugged(
      new FakeDevice({ limits: { maxWriteZeroesSectors: 1024 } }),
      (d) => [block(d, 0, opf), block(d, 1, opf)],
    ).filter((line) => line !== "FLUSH").length;
  for (const flag of [REQ_FUA, REQ_PREFLUSH, REQ_NOMERGE]) {
    assertEquals(both(W | flag), 2);
    // Nor if only one of them is such.
    for (const first of [true, false]) {
      const lines = plugged(
        new FakeDevice(),
        (d) => [
          block(d, 0, first ? W | flag : W),
          block(d, 1, first ? W : W | flag),
        ],
      );
      assertEquals(lines.includes("WRITE 0+16"), false);
    }
  }
  assertEquals(both(W), 1);

  const zeroes = new FakeDevice({ limits: { maxWriteZeroesSectors: 1024 } });
  assertEquals(
    plugged(zeroes, (d) =>
      [0, 1].map((i) => {
        const bio = new Bio(d, REQ_OP_WRITE_ZEROES);
        bio.sector = 8 * i;
        bio.size = 4096;
        return bio;
      })),
    ["WRITE_ZEROES 0+8", "WRITE_ZEROES 8+8"],
  );

  const own = new FakeDevice();
  blkStartPlug();
  for (const i of [0, 1]) {
    blkExecuteRqNowait(own.queue, block(own, i, REQ_OP_DRV_OUT));
  }
  blkFinishPlug();
  assertEquals(seen(own), ["op35 0+8", "op35 8+8"]);

  const zoned = ZonedDevice.registered();
  blkStartPlug();
  const appended = [0, 1].map(() =>
    submit(makeBio(zoned, REQ_OP_ZONE_APPEND, ZONE, 4))
  );
  blkFinishPlug();
  settle(zoned.clock);
  assertEquals(appended.map((e) => e.status), [BLK_STS_OK, BLK_STS_OK]);
  assertEquals(zoned.queue.stats.write.ios, 2);
});

Deno.test("corner case 44: atomic writes merge with atomic ones, up to the most and within a boundary", () => {
  const atomic = (): FakeOptions => ({
    limits: {
      features: BLK_FEAT_ATOMIC_WRITES | BLK_FEAT_NOWAIT | BLK_FEAT_WRITE_CACHE,
      atomicWriteHwMax: 16384,
      atomicWriteHwUnitMin: 4096,
      atomicWriteHwUnitMax: 16384,
      atomicWriteHwBoundary: 32768,
    },
  });
  const a = W | REQ_ATOMIC;
  const lines = (opfs: number[], from = 0) =>
    plugged(
      new FakeDevice(atomic()),
      (d) => opfs.map((opf, i) => block(d, from + i, opf)),
    );
  assertEquals(lines([a, W]), ["WRITE 0+8", "WRITE 8+8"]);
  assertEquals(lines([W, a]), ["WRITE 0+8", "WRITE 8+8"]);
  assertEquals(lines([a, a, a, a]), ["WRITE 0+32"]);
  assertEquals(lines([a, a, a, a, a]), ["WRITE 0+32", "WRITE 32+8"]);
  // Blocks 7 and 8 lie in two cells.
  assertEquals(lines([a, a, a], 6), ["WRITE 48+16", "WRITE 64+8"]);
  assertEquals(lines([W, W, W], 6), ["WRITE 48+24"]);
});

Deno.test("corner case 45: past max_sectors or max_segments nothing is added, then or later", () => {
  // 2 more sectors would fit, but the request has met its limit.
  const bytes = new FakeDevice({ limits: { maxHwSectors: 20 } });
  assertEquals(
    plugged(bytes, (d) => [
      block(d, 1),
      block(d, 2),
      block(d, 3),
      makeBio(d, W, 6, 2),
    ]),
    ["WRITE 8+16", "WRITE 24+8", "WRITE 6+2"],
  );
  const within = new FakeDevice({ limits: { maxHwSectors: 20 } });
  assertEquals(
    plugged(within, (d) => [block(d, 1), block(d, 2), makeBio(d, W, 6, 2)]),
    ["WRITE 6+18"],
  );

  // A request that waits further down the line is asked again, and must refuse.
  const waiting = busy({ maxHwSectors: 20 });
  for (const i of [100, 1, 2, 3]) submit(block(waiting.device, i));
  submit(makeBio(waiting.device, W, 6, 2));
  assertEquals(waiting.device.queue.stats.write.merges, 1);
  waiting.state.open = true;
  assertEquals(seen(waiting.device).slice(1), [
    "WRITE 8+16",
    "WRITE 24+8",
    "WRITE 6+2",
  ]);

  const segments = new FakeDevice({ limits: { maxSegments: 3 } });
  assertEquals(
    plugged(segments, (d) => [0, 1, 2, 3, 4].map((i) => block(d, i))),
    ["WRITE 0+24", "WRITE 24+16"],
  );
});

Deno.test("corner case 46: nothing is added where the device would have to skip a gap in memory", () => {
  const gap = () => new FakeDevice({ limits: { virtBoundaryMask: 4095 } });
  assertEquals(
    plugged(gap(), (d) => [makeBio(d, W, 0, 1), makeBio(d, W, 1, 8)]),
    ["WRITE 0+1", "WRITE 1+8"],
  );
  // Neither at the front.
  assertEquals(
    plugged(gap(), (d) => [makeBio(d, W, 1, 8), makeBio(d, W, 0, 1)]),
    ["WRITE 1+8", "WRITE 0+1"],
  );
  assertEquals(
    plugged(gap(), (d) => [block(d, 0), block(d, 1)]),
    ["WRITE 0+16"],
  );
  // Memory that goes on where the other ends has no gap, wherever that is.
  const buffer = new Uint8Array(8192);
  const part = (d: FakeDevice, sector: number, sectors: number) => {
    const bio = new Bio(d, W);
    bio.sector = sector;
    bio.addData(buffer, sector * 512, sectors * 512);
    return bio;
  };
  assertEquals(
    plugged(gap(), (d) => [part(d, 0, 1), part(d, 1, 1), part(d, 2, 6)]),
    ["WRITE 0+8"],
  );
  // The gap is the memory's, not the request's limit: what fits later is added.
  assertEquals(
    plugged(gap(), (d) => [part(d, 0, 1), makeBio(d, W, 1, 1), part(d, 1, 1)]),
    ["WRITE 0+1", "WRITE 1+1", "WRITE 1+1"],
  );
});

Deno.test("corner case 47: nothing is added across a chunk, however small the sum", () => {
  const device = () => new FakeDevice({ limits: { chunkSectors: 24 } });
  assertEquals(
    plugged(device(), (d) => [block(d, 1), block(d, 2), block(d, 3)]),
    ["WRITE 8+16", "WRITE 24+8"],
  );
  assertEquals(
    plugged(device(), (d) => [block(d, 3), block(d, 2)]),
    ["WRITE 24+8", "WRITE 16+8"],
  );
});

/** A bio without memory. */
function range(
  device: FakeDevice,
  op: number,
  sector: number,
  sectors: number,
): Bio {
  const bio = new Bio(device, op);
  bio.sector = sector;
  bio.size = sectors * 512;
  return bio;
}

Deno.test("corner case 48: discards of any ranges merge where a command has several, else adjacent ones", () => {
  const ranges: [number, number][] = [[0, 8], [64, 16], [8, 8], [16, 8]];
  const lines = (maxDiscardSegments: number) => {
    const limits = { maxHwDiscardSectors: 1024, maxDiscardSegments };
    const device = new FakeDevice({ limits });
    const all = plugged(
      device,
      (d) => ranges.map(([s, n]) => range(d, REQ_OP_DISCARD, s, n)),
    );
    return [all, device.queue.stats.discard.merges];
  };
  // The size is that of all ranges.
  assertEquals(lines(256), [["DISCARD 0+40"], 3]);
  assertEquals(lines(3), [["DISCARD 0+32", "DISCARD 16+8"], 2]);
  assertEquals(lines(1), [["DISCARD 0+8", "DISCARD 64+16", "DISCARD 8+16"], 1]);
});

Deno.test("blkMqAttemptBioMerge() keeps discards and secure erases to their own limits", () => {
  const limits = {
    maxHwDiscardSectors: 24,
    maxSecureEraseSectors: 16,
    maxDiscardSegments: 256,
  };
  const three = (op: number) =>
    plugged(
      new FakeDevice({ limits }),
      (d) => [0, 1, 2, 3].map((i) => range(d, op, 8 * i, 8)),
    );
  assertEquals(three(REQ_OP_DISCARD), ["DISCARD 0+24", "DISCARD 24+8"]);
  assertEquals(three(REQ_OP_SECURE_ERASE), [
    "SECURE_ERASE 0+16",
    "SECURE_ERASE 16+16",
  ]);
});

Deno.test("blkMqAttemptBioMerge() does not mix polled and other reads", () => {
  const device = new FakeDevice({
    pollQueues: 1,
    limits: { features: BLK_FEAT_POLL | BLK_FEAT_NOWAIT },
  });
  blkStartPlug();
  const all = [
    block(device, 0, R),
    block(device, 1, R | REQ_POLLED),
    block(device, 2, R | REQ_POLLED),
  ];
  all.forEach(submit);
  blkFinishPlug();
  assertEquals(seen(device), ["READ 0+8", "READ 8+16"]);
  // Each of those that have merged can be polled for.
  assertEquals(all.map((bio) => bio.cookie), [-1, 1, 1]);
  assertEquals(device.poll(1), 1);
});

/** A driver that takes nothing until it is told: requests wait. */
function busy(limits: Partial<QueueLimits> = {}) {
  const state = { open: false };
  const device = new FakeDevice({
    limits,
    take: () => state.open ? BLK_STS_OK : BLK_STS_DEV_RESOURCE,
  });
  return { state, device };
}

Deno.test("corner case 51: of the requests that wait the newest 8 are looked at", () => {
  const { state, device } = busy();
  // The first is on the dispatch list, and out of reach.
  const far = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90];
  for (const i of far) submit(block(device, i));
  submit(block(device, 1));
  assertEquals(device.queue.stats.write.merges, 0);
  // Now 30 to 90 and 1 are the newest: 20 is one too old.
  submit(block(device, 21));
  assertEquals(device.queue.stats.write.merges, 0);
  // And 40 to 90, 1, 21.
  submit(block(device, 41));
  assertEquals(device.queue.stats.write.merges, 1);
  submit(block(device, 31));
  assertEquals(device.queue.stats.write.merges, 1);
  state.open = true;
  const lines = seen(device);
  assertEquals(lines.length, 13);
  assertEquals(lines.includes("WRITE 320+16"), true);
});

Deno.test("corner case 52: with nomerges 2 adjacent writes of one plug are two requests", () => {
  const device = new FakeDevice();
  device.queue.nomerges = 2;
  assertEquals(
    plugged(device, (d) => [block(d, 0), block(d, 1)]),
    ["WRITE 0+8", "WRITE 8+8"],
  );
  device.log.length = 0;
  device.queue.nomerges = 1;
  assertEquals(
    plugged(device, (d) => [block(d, 0), block(d, 1)]),
    ["WRITE 0+16"],
  );
});

Deno.test("blkMqAttemptBioMerge() lets the first bio say whether a request is tried again", () => {
  const seen: number[] = [];
  const device = new FakeDevice({
    take: (rq) => {
      seen.push(rq.opf & REQ_FAILFAST_MASK);
      return BLK_STS_OK;
    },
  });
  const pair = (...bios: [number, number][]) => {
    blkStartPlug();
    for (const [i, opf] of bios) {
      submit(makeBio(device, REQ_OP_READ | opf, 8 * i, 8));
    }
    blkFinishPlug();
  };
  pair([1, 0], [0, REQ_FAILFAST_DEV]);
  pair([1, REQ_FAILFAST_DEV], [0, 0]);
  pair([1, REQ_FAILFAST_DEV], [2, 0]);
  settle(device.clock);
  assertEquals(seen, [REQ_FAILFAST_DEV, 0, REQ_FAILFAST_DEV]);
});

Deno.test("blkMqAttemptBioMerge() makes no request of more bytes than 32 bits count", () => {
  const device = new FakeDevice({
    nrSectors: 2 ** 30,
    limits: { maxHwDiscardSectors: 2 ** 30 },
  });
  blkStartPlug();
  for (const at of [0, 2 ** 22]) {
    const bio = new Bio(device, REQ_OP_DISCARD);
    bio.sector = at;
    bio.size = 2 ** 22 * 512;
    submit(bio);
  }
  blkFinishPlug();
  settle(device.clock);
  assertEquals(device.log.length, 2);
});
