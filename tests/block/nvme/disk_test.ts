/** Arm, rotation, order and cache of a disk. */

import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { type DiskParams, Geometry } from "../../../block/nvme/disk-timing.ts";
import {
  NVME_CMD_FLUSH,
  NVME_CMD_ZONE_MGMT_SEND,
  NVME_ZONE_OPEN,
  NVME_ZONE_RESET,
} from "../../../block/nvme/nvme.ts";
import { NVME_PRESETS } from "../../../block/nvme/presets.ts";
import { MSEC, SEC, USEC } from "../../../lib/clock.ts";
import { Prng } from "../../../lib/prng.ts";
import {
  Bench,
  NVME_CMD_READ,
  NVME_CMD_WRITE,
  type TestCommand,
} from "./timing_harness.ts";

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const PAGE = 4096;
const SIZE = 4e12;
const DISK = NVME_PRESETS.hdd.timing as DiskParams;
const REVOLUTION = DISK.revolution;

Deno.test("Geometry: the outer half of the stroke holds more than half of the bytes", () => {
  const geometry = new Geometry(DISK, SIZE);
  assertEquals([geometry.stroke(0), geometry.stroke(SIZE)], [0, 1]);
  // 250 MB/s to 125: the outer half holds (250 + 187.5) / (2 * 187.5) / 2.
  assertAlmostEquals(geometry.stroke(SIZE * 7 / 12), 0.5, 1e-9);
  const track = 250e6 * REVOLUTION / 1e9;
  assertAlmostEquals(geometry.pass(track / 2), REVOLUTION / 2, 2);
  const next = geometry.pass(track + 10) - geometry.pass(track - 10);
  assertAlmostEquals(next, DISK.headSwitch, 200);
});

Deno.test("Geometry: seeks take what the curve says, none within a track", () => {
  const geometry = new Geometry(DISK, SIZE);
  const { seekRead } = DISK;
  assertEquals(geometry.seek(0, MiB, seekRead), 0);
  assertAlmostEquals(geometry.seek(0, 3 * MiB, seekRead), 230e3, 10e3);
  assertAlmostEquals(geometry.seek(0, SIZE, seekRead), 16e6, 1);
  assertEquals(
    geometry.seek(SIZE, 5, seekRead),
    geometry.seek(5, SIZE, seekRead),
  );
});

Deno.test("a disk's rotation is a function of absolute time", () => {
  const at = (time: number) => {
    const bench = new Bench(DISK, SIZE);
    bench.until(time);
    return bench.run({ at: 100 * GiB });
  };
  const one = at(MSEC);
  assertAlmostEquals(at(MSEC + 3 * REVOLUTION), one, 2);
  assert(Math.abs(at(3 * MSEC) - one) > MSEC);
});

Deno.test("a disk reads on for a millisecond: what follows costs only its transfer", () => {
  const bench = new Bench(DISK, SIZE);
  bench.run({ at: GiB, len: 64 * 1024 });
  const transfer = 64 * 1024 * 1000 / 250;
  const next = bench.run({ at: GiB + 64 * 1024, len: 64 * 1024 });
  assert(next < transfer + 200 * USEC, `${next}`);
  bench.until(bench.clock.now() + 2 * MSEC);
  const late = bench.run({ at: GiB + 128 * 1024, len: 64 * 1024 });
  assert(late > 4 * MSEC, `${late}`);
});

Deno.test("a disk with a queue serves first what it reaches first, and none waits for ever", () => {
  const random = new Prng(1);
  const reads = (command: TestCommand) => {
    command.opcode = NVME_CMD_READ;
    command.at = random.below(SIZE / PAGE) * PAGE;
  };
  const single = new Bench(DISK, SIZE).load(1, 300, reads);
  let longest = 0;
  const queued = new Bench(DISK, SIZE).load(
    32,
    1500,
    reads,
    (time) => longest = Math.max(longest, time),
  );
  assert(queued.iops > 1.8 * single.iops, `${queued.iops}, ${single.iops}`);
  // All that are older than half a second go before the rest, in order.
  assert(longest < DISK.aging + 32 * 20 * MSEC, `${longest / MSEC} ms`);
  const impatient = new Bench({ ...DISK, aging: 0 }, SIZE);
  assert(impatient.load(32, 300, reads).iops < 1.2 * single.iops);
});

Deno.test("a disk's cache takes writes at once until it is full, then at the arm's pace", () => {
  const bench = new Bench({ ...DISK, cache: 8 * MiB }, SIZE);
  const random = new Prng(2);
  const writes = (command: TestCommand) => {
    command.opcode = NVME_CMD_WRITE;
    command.at = random.below(SIZE / PAGE) * PAGE;
  };
  const fast = bench.load(1, 1000, writes);
  assertAlmostEquals(fast.mean, 107.4 * USEC, USEC);
  bench.load(1, 2000, writes);
  const slow = bench.load(1, 500, writes);
  assert(slow.mean > MSEC, `${slow.mean}`);
  // In the order of positions, two thousand of them take less than a seek each.
  assert(slow.mean < 6 * MSEC, `${slow.mean}`);
});

Deno.test("a disk drains its cache by itself while it is idle, and reads what is in it at once", () => {
  const bench = new Bench(DISK, SIZE);
  for (let i = 0; i < 50; i++) {
    bench.run({ opcode: NVME_CMD_WRITE, at: i * 10 * GiB });
  }
  const flush = { opcode: NVME_CMD_FLUSH, len: 0 };
  assert(bench.run({ at: 490 * GiB }) < 200 * USEC);
  bench.until(bench.clock.now() + 2 * SEC);
  assertEquals(bench.run(flush), DISK.overhead);
  assert(bench.run({ at: 490 * GiB }) > MSEC);
});

Deno.test("a flush waits for what was written before it, a FUA write for itself", () => {
  const bench = new Bench(DISK, SIZE);
  const write = (i: number) =>
    bench.start({ opcode: NVME_CMD_WRITE, at: i * 10 * GiB });
  for (let i = 0; i < 20; i++) write(i);
  bench.until(MSEC);
  const flush = bench.start({ opcode: NVME_CMD_FLUSH, len: 0 });
  for (let i = 50; i < 300; i++) write(i);
  bench.until();
  assert(flush.done > 40 * MSEC && flush.done < 20 * 300 * MSEC);
  const fua = { opcode: NVME_CMD_WRITE, at: GiB, fua: true };
  assert(bench.run(fua) > 300 * USEC);
});

Deno.test("a reset of a shingled disk's zone takes a seek and a revolution, an open nothing", () => {
  const bench = new Bench(NVME_PRESETS.smr.timing!, SIZE);
  const manage = (action: number) =>
    bench.run({
      opcode: NVME_CMD_ZONE_MGMT_SEND,
      action,
      zone: 100,
      at: 100 * 256 * MiB,
      len: 0,
    });
  assertEquals(manage(NVME_ZONE_OPEN), DISK.overhead);
  assert(manage(NVME_ZONE_RESET) > REVOLUTION);
  assertAlmostEquals(manage(NVME_ZONE_RESET), REVOLUTION + DISK.overhead, 2);
});
