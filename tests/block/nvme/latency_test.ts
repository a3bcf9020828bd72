import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { Lane, LatencyModel } from "../../../block/nvme/latency.ts";
import {
  createNvme,
  type LatencyParams,
  NVME_PRESETS,
  type NvmePresetName,
} from "../../../block/nvme/mod.ts";
import {
  Bio,
  REQ_OP_READ,
  REQ_OP_WRITE,
  submitBio,
} from "../../../block/mod.ts";
import { SEC, USEC, VirtualClock } from "../../../lib/clock.ts";
import { Prng } from "../../../lib/prng.ts";

const KiB = 1024;
const MiB = 1024 * KiB;

/** The device of vector 144: 1 us firmware, 50 us array, 5 us channel, 1 us PCIe. */
const simple: LatencyParams = {
  host: 0,
  firmwareRead4k: 1000,
  firmwareRead: 1000,
  firmwareWrite: 1000,
  firmwareWritePer4k: 0,
  firmwareKiops: 1000,
  channels: 2,
  diesPerChannel: 2,
  flashPage: 4096,
  channelMBps: 819.2,
  pcieReadMBps: 4096,
  pcieWriteMBps: 4096,
  flash: {
    read4k: [50 * USEC],
    read: [50 * USEC],
    program: 200 * USEC,
    oneShot: 4096,
  },
  writeBuffer: 0,
};

const model = (params = simple) => new LatencyModel(params, MiB, new Prng(1));
/** Pages on dies of channel 0, 1, 0, 1. */
const PAGE = 4096;

Deno.test("LatencyModel.read() 144. queues for die, channel and PCIe", () => {
  const second = (page: number) => {
    const m = model();
    assertEquals(m.read(1, 0, 0, PAGE), 57 * USEC);
    return m.read(1, 0, page * PAGE, PAGE) / USEC;
  };
  assertEquals([second(4), second(2), second(1)], [112, 62, 58]);
});

Deno.test("LatencyModel.read() of a large range uses its dies at the same time", () => {
  const m = model();
  const one = model().read(1, 0, 0, PAGE);
  const four = m.read(1, 0, 0, 4 * PAGE);
  // Two channels send two pages each; the last page's PCIe overlaps with nothing.
  assertEquals([one, four], [57 * USEC, 63 * USEC]);
  // Depth helps no more when all dies are busy.
  assertEquals(m.read(1, 0, 0, PAGE) > four, true);
});

Deno.test("LatencyModel.write() waits for its media without a buffer, and not with one", () => {
  const through = model().write(1, 0, 0, PAGE, false);
  assertEquals(through, (1 + 1 + 200) * USEC);
  const params = { ...simple, writeBuffer: 4 * PAGE };
  assertEquals(model(params).write(1, 0, 0, PAGE, false), 2 * USEC);
  // FUA: until the program is done, after 5 us on the channel.
  assertEquals(model(params).write(1, 0, 0, PAGE, true), 207 * USEC);
});

Deno.test("LatencyModel.write() without room holds up its queue, and no other", () => {
  const m = model({ ...simple, writeBuffer: 2 * PAGE });
  const writes = [0, 1, 2].map((i) => m.write(1, 0, i * PAGE, PAGE, false));
  assertEquals(writes.slice(0, 2), [2 * USEC, 3 * USEC]);
  // Room comes back when the first program is done, at 207 us.
  assertEquals(writes[2], 208 * USEC);
  assert(m.read(1, 0, 8 * PAGE, PAGE) > 207 * USEC, "behind the write");
  const other = model({ ...simple, writeBuffer: 2 * PAGE });
  for (const i of [0, 1, 2]) other.write(1, 0, i * PAGE, PAGE, false);
  other.read(1, 0, 8 * PAGE, PAGE);
  // Page 7 lies on the one die that is not programmed.
  assert(other.read(2, 0, 7 * PAGE, PAGE) < 100 * USEC);
});

Deno.test("LatencyModel.flush() ends with the last program, a part-filled one too", () => {
  const flash = { ...simple.flash, oneShot: 4 * PAGE };
  const m = model({ ...simple, flash, writeBuffer: 64 * PAGE });
  const written = m.write(1, 0, 0, PAGE, false);
  assertEquals(written, 2 * USEC);
  // 20 us for the whole unit on the channel.
  assertEquals(m.flush(1, written), (2 + 1 + 20 + 200) * USEC);
  assertEquals(m.flush(1, SEC), SEC + USEC);
});

Deno.test("LatencyModel.read() of data that is still in the buffer needs no die", () => {
  const flash = { ...simple.flash, oneShot: 4 * PAGE };
  const m = model({ ...simple, flash, writeBuffer: 64 * PAGE });
  m.write(1, 0, 0, PAGE, false);
  assertEquals(m.read(1, 10 * USEC, 0, PAGE), 12 * USEC);
  assertEquals(m.read(1, 20 * USEC, PAGE, PAGE), 77 * USEC);
  // Programmed since, and no longer in the buffer.
  m.flush(1, 100 * USEC);
  assertEquals(m.read(1, SEC, 0, PAGE), SEC + 57 * USEC);
});

Deno.test("LatencyModel slows down when the fast region is full, and recovers when idle", () => {
  const m = model({
    ...simple,
    writeBuffer: 2 * PAGE,
    slc: { ...simple.flash, program: 20 * USEC, share: 8 / 256 },
  });
  const fua = (now: number, page: number) =>
    m.write(1, now, page * PAGE, PAGE, true) - now;
  for (let i = 0; i < 8; i++) assertEquals(fua(i * SEC / 10, i), 27 * USEC);
  assertEquals(fua(SEC, 8), 207 * USEC);
  assertEquals(fua(60 * SEC, 9), 27 * USEC);
});

Deno.test("Lane.book() 145. never books a time twice, nor before it is asked for", () => {
  const random = new Prng(9);
  for (let run = 0; run < 50; run++) {
    const lane = new Lane();
    const busy: [number, number][] = [];
    let now = 0;
    for (let i = 0; i < 60; i++) {
      now += random.below(20);
      const arrival = now + random.below(200);
      const service = 1 + random.below(15);
      const end = lane.book(now, arrival, service);
      assert(end - service >= arrival);
      busy.push([end - service, end]);
    }
    busy.sort((a, b) => a[0] - b[0]);
    for (let i = 1; i < busy.length; i++) {
      assert(busy[i - 1]![1] <= busy[i]![0], `${busy[i - 1]} and ${busy[i]}`);
    }
  }
});

/** Runs `count` I/Os of `len` bytes, `depth` at a time; how long each took, and all. */
async function run(
  preset: NvmePresetName,
  op: number,
  depth: number,
  count: number,
  len = 4 * KiB,
  options = {},
): Promise<{ mean: number; total: number; times: number[] }> {
  const clock = new VirtualClock();
  const size = 4096 * MiB;
  const device = createNvme(clock, { size, preset, ...options });
  const random = new Prng(3, "offsets");
  const data = new Uint8Array(len);
  const times: number[] = [];
  let left = count;
  let at = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  const next = () => {
    left--;
    const bio = new Bio(device, op);
    bio.sector = len > 4 * KiB
      ? (at += len) % (64 * MiB) / 512
      : random.below(size / len) * len / 512;
    bio.addData(data, 0, len);
    const start = clock.now();
    bio.endIo = () => {
      times.push(clock.now() - start);
      if (left > 0) next();
      else if (times.length === count) resolve();
    };
    submitBio(bio);
  };
  // The test runs the clock itself: a turn of the event loop per event is slow.
  for (let i = 0; i < depth; i++) next();
  clock.runUntil(() => times.length === count);
  await promise;
  const total = clock.now();
  device.close();
  const mean = times.reduce((a, b) => a + b) / count;
  return { mean, total, times };
}

/** Row "model" of the table: 4 KiB at depth 1, read and write, us. */
const depthOne: [NvmePresetName, number, number][] = [
  ["optane", 8.9, 8.9],
  ["optane2", 5.8, 5.8],
  ["tlc-dc", 67, 9.2],
  ["mlc-970pro", 66, 8.6],
  ["qlc", 134, 16],
];
for (const [preset, read, write] of depthOne) {
  Deno.test(`${preset} 152. takes its model's time for 4 KiB at depth 1`, async () => {
    const reads = await run(preset, REQ_OP_READ, 1, 300);
    const writes = await run(preset, REQ_OP_WRITE, 1, 60);
    assertAlmostEquals(reads.mean / USEC, read, read * 0.05);
    assertAlmostEquals(writes.mean / USEC, write, write * 0.05);
    // 146. Little's law at depth 1.
    assertAlmostEquals(reads.mean * 300 / reads.total, 1, 0.01);
  });
}

/** Random 4 KiB reads a second at saturation, thousands, and the depth that it takes. */
const saturated: [NvmePresetName, number, number][] = [
  ["optane", 32, 585],
  ["optane2", 128, 1515],
  ["tlc-dc", 512, 900],
  ["mlc-970pro", 512, 394],
  ["qlc", 256, 69],
];
for (const [preset, depth, kiops] of saturated) {
  Deno.test(`${preset} 146. saturates where its slowest part does`, async () => {
    const count = Math.max(4000, 30 * depth);
    const { mean, total } = await run(preset, REQ_OP_READ, depth, count);
    const got = count / (total / SEC) / 1000;
    assert(got > kiops * 0.9 && got < kiops * 1.03, `${got} K IOPS`);
    // Little's law; filling and emptying the queue at the ends costs a little.
    assertAlmostEquals(count / total * mean / depth, 1, 0.06);
  });
}

/** Sequential MB/s: read, and write once the buffer is full. */
const streams: [NvmePresetName, number, number, object?][] = [
  ["optane", 2400, 2200],
  ["optane2", 7200, 6200],
  ["tlc-dc", 6500, 3150],
  ["mlc-970pro", 3360, 2300],
  // Reads are of data that is not in the fast region; writes go there.
  ["qlc", 933, 1450],
];
for (const [preset, read, write] of streams) {
  Deno.test(`${preset} streams at its bandwidth`, async () => {
    const reads = await run(preset, REQ_OP_READ, 16, 400, 256 * KiB);
    const got = 400 * 256 * KiB / reads.total * 1000;
    assert(got > read * 0.9 && got < read * 1.15, `read ${got} MB/s`);
    // The buffer's room is used up first: what counts is the pace after that.
    const of = (n: number) => run(preset, REQ_OP_WRITE, 16, n, 256 * KiB);
    const [some, more] = [await of(700), await of(1000)];
    const pace = 300 * 256 * KiB / (more.total - some.total) * 1000;
    assert(pace > write * 0.9 && pace < write * 1.1, `write ${pace} MB/s`);
  });
}

Deno.test("a device with one seed gives the same completion times, and with another not", async () => {
  const times = async (seed: number) =>
    (await run("optane", REQ_OP_READ, 8, 500, 4 * KiB, { seed })).times;
  const first = await times(1);
  assertEquals(await times(1), first);
  assert((await times(2)).join() !== first.join());
  assert(first.every(Number.isInteger));
});

Deno.test("optane has the tail of its table in reads: one in a hundred 10 % late", async () => {
  const { times } = await run("optane", REQ_OP_READ, 1, 4000);
  const sorted = times.toSorted((a, b) => a - b);
  assertAlmostEquals(sorted[2000]! / USEC, 8.92, 0.2);
  assertAlmostEquals(sorted[3960]! / USEC, 9.81, 0.3);
});

Deno.test("every preset but null takes time, and is named in the table", () => {
  assertEquals(Object.keys(NVME_PRESETS), [
    "null",
    "optane",
    "optane2",
    "tlc-dc",
    "mlc-970pro",
    "qlc",
  ]);
  for (const [name, preset] of Object.entries(NVME_PRESETS)) {
    assertEquals(preset.latency === null, name === "null");
  }
});
