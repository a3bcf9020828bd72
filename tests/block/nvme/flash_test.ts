/** Write buffer, translation, collection and fast region of flash; zones. */

import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { DieArray, type DieOp } from "../../../block/nvme/dies.ts";
import type { FlashParams, FlashTiming } from "../../../block/nvme/flash.ts";
import { Ftl, HOST_STREAM, MOVE_STREAM } from "../../../block/nvme/ftl.ts";
import { Lane } from "../../../block/nvme/lane.ts";
import {
  NVME_CMD_DSM,
  NVME_CMD_FLUSH,
  NVME_CMD_ZONE_MGMT_SEND,
  NVME_ZONE_CLOSE,
  NVME_ZONE_FINISH,
  NVME_ZONE_OPEN,
  NVME_ZONE_RESET,
} from "../../../block/nvme/nvme.ts";
import { NVME_PRESETS } from "../../../block/nvme/presets.ts";
import type { ZnsParams } from "../../../block/nvme/zns-timing.ts";
import { MSEC, SEC, USEC, VirtualClock } from "../../../lib/clock.ts";
import { Prng } from "../../../lib/prng.ts";
import {
  Bench,
  NVME_CMD_READ,
  NVME_CMD_WRITE,
  NVME_CMD_ZONE_APPEND,
  type TestCommand,
} from "./timing_harness.ts";

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const PAGE = 4096;
const write = { opcode: NVME_CMD_WRITE };
const flush = { opcode: NVME_CMD_FLUSH, len: 0 };

/** Firmware 1 µs, array 50, channel 5, PCIe 1, program 200; 2 channels of 2 dies. */
const SIMPLE: FlashParams = {
  kind: "flash",
  host: 0,
  firmwareRead4k: 1000,
  firmwareRead: 1000,
  firmwareWrite: 1000,
  firmwareWritePer4k: 0,
  firmwareKiops: 1000,
  channels: 2,
  diesPerChannel: 2,
  page: PAGE,
  channelMBps: 819.2,
  pcieReadMBps: 4096,
  pcieWriteMBps: 4096,
  flash: {
    read4k: [50 * USEC],
    read: [50 * USEC],
    program: 200 * USEC,
    oneShot: PAGE,
  },
  erase: 0,
  eraseBlock: PAGE,
  overProvisioning: 0.07,
  writeBuffer: 64 * PAGE,
  powerLossProtected: false,
};
/** Four pages to a unit. */
const WIDE = { ...SIMPLE, flash: { ...SIMPLE.flash, oneShot: 4 * PAGE } };

Deno.test("FlashTiming completes a write when it is in the buffer, with FUA when it is in flash", () => {
  assertEquals(new Bench(SIMPLE, MiB).run(write), 2 * USEC);
  // 5 µs on the channel, then the program; it begins when the page has been put there.
  assertEquals(new Bench(SIMPLE, MiB).run({ ...write, fua: true }), 205 * USEC);
  const safe = { ...SIMPLE, powerLossProtected: true };
  assertEquals(new Bench(safe, MiB).run({ ...write, fua: true }), 2 * USEC);
});

Deno.test("FlashTiming holds up the queue of a write without room, and no other", () => {
  const small = { ...SIMPLE, writeBuffer: 2 * PAGE };
  const bench = new Bench(small, MiB);
  const writes = [0, 1, 2].map((i) => bench.start({ ...write, at: i * PAGE }));
  const behind = bench.start({ at: 8 * PAGE });
  // Page 7 lies on the one die that is not programmed.
  const other = bench.start({ at: 7 * PAGE, qid: 2 });
  bench.until();
  assertEquals(writes.map((w) => w.done), [2 * USEC, 3 * USEC, 207 * USEC]);
  assert(behind.done > 205 * USEC, "behind the write");
  assert(other.done < 100 * USEC);
});

Deno.test("FlashTiming takes a write that is larger than its buffer, piece by piece", () => {
  const bench = new Bench({ ...SIMPLE, writeBuffer: 2 * PAGE }, MiB);
  // Four dies, but two pages at a time: 32 programs of two.
  const time = bench.run({ ...write, len: 64 * PAGE });
  assert(time > 31 * 205 * USEC && time < 34 * 205 * USEC, `${time}`);
});

Deno.test("FlashTiming flushes by programming what is there, a part-filled unit too", () => {
  const bench = new Bench(WIDE, MiB);
  const at = bench.run(write);
  assertEquals(at, 2 * USEC);
  // 20 µs for the whole unit on the channel, in one piece.
  assertEquals(bench.run(flush), (20 + 200) * USEC);
  assertEquals(bench.run(flush), USEC);
  const safe = new Bench({ ...WIDE, powerLossProtected: true }, MiB);
  safe.run(write);
  assertEquals(safe.run(flush), USEC);
});

Deno.test("FlashTiming reads what is in the buffer without a die", () => {
  const bench = new Bench(WIDE, MiB);
  bench.run(write);
  assertEquals(bench.run(), 2 * USEC);
  assertEquals(bench.run({ at: PAGE }), 57 * USEC);
  bench.run(flush);
  assertEquals(bench.run(), 57 * USEC);
});

Deno.test("FlashTiming writes a page again in its place while its unit is open", () => {
  const bench = new Bench(WIDE, MiB);
  for (let i = 0; i < 100; i++) bench.run(write);
  const [written] = (bench.timing as FlashTiming).writes();
  assertEquals(written, 1);
});

Deno.test("FlashTiming charges for reads of pages that were never written", () => {
  assertEquals(new Bench(SIMPLE, MiB).run({ at: 200 * PAGE }), 57 * USEC);
});

Deno.test("a read waits for the program that runs, not for those behind it", () => {
  const bench = new Bench({ ...SIMPLE, channels: 1, diesPerChannel: 1 }, MiB);
  for (let i = 0; i < 10; i++) bench.start({ ...write, at: i * PAGE, qid: 2 });
  bench.until(10 * USEC);
  // The first program ends at 205 µs.
  const read = bench.start({ at: 100 * PAGE });
  bench.until();
  assertEquals(read.done, (205 + 56) * USEC);
});

const CLOCKLESS = { opDone() {}, wake() {} };

Deno.test("DieArray.read() suspends a program between two slices, not twice in a row", () => {
  const ended: number[] = [];
  const clock = new VirtualClock();
  const dies = new DieArray(
    {
      channels: 1,
      diesPerChannel: 1,
      channelMBps: 0,
      programSlice: 100,
      resumedSlices: 3,
    },
    { ...CLOCKLESS, opDone: (_op: DieOp, time) => ended.push(time) },
    clock,
  );
  const pcie = new Lane();
  const read = (now: number) => dies.read(now, now, 0, 30, 4096, pcie, 0);
  dies.enqueue(dies.newOp(0, 1000), 0);
  assertEquals(read(50), 130);
  // Waits with the first for the same border, or comes while the program rests.
  assertEquals(read(60), 160);
  // Resumed at 160; three slices to the next border.
  assertEquals(read(200), 490);
  dies.advance(2000);
  assertEquals(ended, [1090]);
});

Deno.test("DieArray serves one at a time: what it does takes as long as its parts", () => {
  for (const slice of [0, 70]) {
    const random = new Prng(slice + 1);
    const clock = new VirtualClock();
    const p = { channels: 1, diesPerChannel: 1, channelMBps: 0 };
    let last = 0;
    const dies = new DieArray(
      slice === 0 ? p : { ...p, programSlice: slice, resumedSlices: 2 },
      { ...CLOCKLESS, opDone: (_op: DieOp, time) => last = time },
      clock,
    );
    const pcie = new Lane();
    let sum = 0;
    let now = 0;
    for (let i = 0; i < 2000; i++) {
      dies.advance(now);
      const service = 1 + random.below(random.below(10) === 0 ? 500 : 40);
      sum += service;
      if (random.below(8) === 0) dies.enqueue(dies.newOp(0, service), now);
      else {
        const ready = now + random.below(20);
        const end = dies.read(now, ready, 0, service, 4096, pcie, 0);
        assert(end >= ready + service);
        last = Math.max(last, end);
      }
      now += random.below(60);
    }
    dies.advance(1e9);
    assert(last >= sum, `${last} is less than the sum ${sum}`);
  }
});

/** Runs random writes over a full device until the pace is steady; pages per page. */
function amplification(overProvisioning: number): number {
  const size = GiB;
  const shape = { size, unit: 96 * 1024, fastUnit: 0, overProvisioning };
  const ftl = new Ftl({ ...shape, fastShare: 0, fastOfFree: 0 }, {
    unitFull() {},
    unitMoved() {},
    erased() {},
  });
  const pages = size / PAGE;
  const random = new Prng(6);
  for (let page = 0; page < pages; page++) ftl.write(page);
  for (let i = 0; i < 2 * pages; i++) ftl.write(random.below(pages));
  const [host, moved] = [...ftl.written];
  for (let i = 0; i < pages; i++) ftl.write(random.below(pages));
  const more = ftl.written[MOVE_STREAM]! - moved!;
  return 1 + more / (ftl.written[HOST_STREAM]! - host!);
}

Deno.test("Ftl amplifies random writes as greedy collection does: (1 + OP) / (2 OP)", () => {
  for (const op of [0.07, 0.28]) {
    const formula = (1 + op) / (2 * op);
    assertAlmostEquals(amplification(op), formula, formula * 0.08);
  }
});

Deno.test("Ftl moves nothing if writes are in order, or if what is written again was discarded", () => {
  for (const discards of [false, true]) {
    const size = 64 * MiB;
    let free = 0;
    const ftl = new Ftl({
      size,
      unit: 32 * 1024,
      fastUnit: 0,
      overProvisioning: 0.07,
      fastShare: 0,
      fastOfFree: 0,
    }, { unitFull() {}, unitMoved() {}, erased: () => free++ });
    const pages = size / PAGE;
    const random = new Prng(7);
    for (let round = 0; round < 4; round++) {
      for (let i = 0; i < pages; i++) {
        ftl.write(discards ? random.below(pages) : i);
      }
      if (discards) ftl.unmap(0, pages);
    }
    assertEquals(ftl.written[MOVE_STREAM], 0);
    assert(free > 1000);
    assertEquals(ftl.slotOf(5) < 0, discards);
  }
});

Deno.test("Ftl finds each page in a slot of its own, whatever was written, moved and forgotten", () => {
  const random = new Prng(8);
  for (const fastUnit of [0, 8 * 1024]) {
    const ftl = new Ftl({
      size: 4 * MiB,
      unit: 32 * 1024,
      fastUnit,
      overProvisioning: 0.1,
      fastShare: fastUnit === 0 ? 0 : 0.05,
      fastOfFree: 0.1,
    }, { unitFull() {}, unitMoved() {}, erased() {} });
    const mapped = new Set<number>();
    for (let i = 0; i < 50_000; i++) {
      const page = random.below(1024);
      const what = random.below(50);
      if (what === 0) {
        ftl.unmap(page, 20);
        for (let j = 0; j < 20; j++) mapped.delete(page + j);
      } else if (what === 1) ftl.fold();
      else if (what === 2 && ftl.written[HOST_STREAM]! > 0) ftl.closeHostUnit();
      else {
        ftl.write(page);
        mapped.add(page);
      }
      if (i % 1000 !== 0) continue;
      const slots = new Set<number>();
      for (let p = 0; p < 1024; p++) {
        assertEquals(ftl.slotOf(p) >= 0, mapped.has(p));
        if (mapped.has(p)) slots.add(ftl.slotOf(p));
      }
      assertEquals(slots.size, mapped.size);
    }
  }
});

Deno.test("FlashTiming slows random writes down to what collection leaves, and reads beside them", () => {
  const size = 64 * MiB;
  const timing = NVME_PRESETS["tlc-dc"].timing as FlashParams;
  const bench = new Bench({ ...timing, writeBuffer: 2 * MiB }, size);
  const pages = size / PAGE;
  const random = new Prng(9);
  const writes = (command: TestCommand) => {
    command.opcode = NVME_CMD_WRITE;
    command.at = random.below(pages) * PAGE;
  };
  const fresh = bench.load(32, pages, writes).iops;
  bench.load(32, 3 * pages, writes);
  const steady = bench.load(32, pages, writes).iops;
  assert(steady < fresh / 2, `${fresh} then ${steady}`);
  let slow = 0;
  bench.load(32, pages, (command) => {
    writes(command);
    if (random.below(2) === 0) command.opcode = NVME_CMD_READ;
  }, (time, { opcode }) => {
    if (opcode === NVME_CMD_READ && time > 500 * USEC) slow++;
  });
  assert(slow > pages / 100);
});

Deno.test("FlashTiming forgets what is deallocated: the pages need not be moved", () => {
  const bench = new Bench(NVME_PRESETS["tlc-dc"].timing!, 64 * MiB);
  const fill = () =>
    bench.load(4, 512, (command, i) => {
      command.opcode = NVME_CMD_WRITE;
      command.len = 128 * 1024;
      command.at = i * 128 * 1024;
    });
  for (let round = 0; round < 4; round++) {
    fill();
    bench.run({
      opcode: NVME_CMD_DSM,
      len: 0,
      ranges: Float64Array.of(0, 32 * MiB, 32 * MiB, 32 * MiB),
    });
  }
  assertEquals([...(bench.timing as FlashTiming).writes()], [65536, 0]);
});

Deno.test("a fast region fills, makes way for the slow mode, and is folded while idle", () => {
  const bench = new Bench(NVME_PRESETS.qlc.timing!, GiB);
  let at = 0;
  const pace = () => {
    const { ns } = bench.load(16, 100, (command) => {
      command.opcode = NVME_CMD_WRITE;
      command.len = 256 * 1024;
      command.at = at;
      at += command.len;
    });
    return 100 * 256 * 1024 / ns;
  };
  for (let i = 0; i < 3; i++) pace();
  assert(pace() > 1.3);
  for (let i = 0; i < 5; i++) pace();
  assert(pace() < 0.18);
  // Half a second is not enough to begin, a minute is to be done. The buffer, which
  // is empty after both, takes what comes first.
  for (
    const [idle, least, most] of [[SEC / 2, 0.1, 0.18], [60 * SEC, 1.3, 3]]
  ) {
    bench.until(bench.clock.now() + idle!);
    for (let i = 0; i < 3; i++) pace();
    const got = pace();
    assert(got > least! && got < most!, `${got}`);
  }
});

Deno.test("a flash device of 1 TiB costs little until it is written, 65 TiB are refused", () => {
  const timing = NVME_PRESETS["tlc-dc"].timing!;
  const bench = new Bench(timing, 2 ** 40);
  for (let i = 0; i < 100; i++) {
    bench.run({ ...write, at: i * 10 * GiB });
    bench.run({ at: i * 10 * GiB });
  }
  // Of 268 million pages a hundred have been written, each far from the others.
  const times = bench.load(4, 200, (c, i) => c.at = i * GiB).mean;
  assert(times > 50 * USEC);
  let refused = "";
  try {
    new Bench(timing, 65 * 2 ** 40);
  } catch (error) {
    refused = String(error);
  }
  assert(refused.includes("EINVAL") || refused.includes("65"), refused);
});

const ZNS = NVME_PRESETS.zns.timing as ZnsParams;
const ZONE = 2 * GiB;
const CAPACITY = 275_712 * PAGE;

/** What zone management takes, once `written` bytes are in zone 1. */
function manage(action: number, written: number, finished = false): number {
  const bench = new Bench(ZNS, 8 * ZONE);
  bench.zones.wp.set(1, written);
  if (finished) bench.zones.full.add(1);
  const opcode = NVME_CMD_ZONE_MGMT_SEND;
  return bench.run({ opcode, action, zone: 1, at: ZONE, len: 0 });
}

Deno.test("ZnsTiming: finish and reset depend on how much of the zone was written", () => {
  const finish = (share: number) => manage(NVME_ZONE_FINISH, share * CAPACITY);
  assertEquals(finish(0), 13_500);
  assertAlmostEquals(finish(0.5), 456.7 * MSEC, 5 * MSEC);
  assertAlmostEquals(finish(1 - 1 / 275_712), 2.58 * MSEC, 0.02 * MSEC);
  const reset = (share: number) => manage(NVME_ZONE_RESET, share * CAPACITY);
  assertEquals(reset(0), 1.61 * MSEC);
  assertEquals(reset(1), 15.8 * MSEC);
  assert(reset(0.3) > reset(0.25) && reset(0.3) < reset(0.5));
  assertEquals(
    manage(NVME_ZONE_RESET, 0.5 * CAPACITY, true),
    (1.58 + 6.9) * MSEC,
  );
  assertEquals(manage(NVME_ZONE_OPEN, 0), 9_600);
  assertEquals(manage(NVME_ZONE_CLOSE, 0), 10_960);
});

Deno.test("ZnsTiming: a zone whose buffer is full holds its queue up, other zones' writes go on", () => {
  const bench = new Bench(ZNS, 8 * ZONE);
  const big = { opcode: NVME_CMD_WRITE, len: 512 * 1024 };
  const first = Array.from(
    { length: 16 },
    () => bench.start({ ...big, zone: 0 }),
  );
  const other = bench.start({ ...big, zone: 1, at: ZONE, qid: 2 });
  bench.until();
  // The link takes 0.17 ms for each of them that has room.
  assert(other.done < 2 * MSEC);
  assert(first.at(-1)!.done > 2.8 * MSEC);
});

Deno.test("ZnsTiming: a zone's newest data are read from its buffer", () => {
  const bench = new Bench(ZNS, 8 * ZONE);
  bench.run({ opcode: NVME_CMD_ZONE_APPEND, zone: 0, len: 16 * 1024 });
  assert(bench.run({ at: PAGE }) < 20 * USEC);
  assert(bench.run({ at: 64 * MiB }) > 60 * USEC);
});

Deno.test("ZnsTiming: flush waits for programs unless power loss is provided for", () => {
  const volatile = { ...ZNS, powerLossProtected: false };
  for (
    const [params, least, most] of [
      [ZNS, 0, 20 * USEC],
      [volatile, 2 * MSEC, 4 * MSEC],
    ] as const
  ) {
    const bench = new Bench(params, 8 * ZONE);
    bench.run({ opcode: NVME_CMD_WRITE, zone: 0 });
    const time = bench.run(flush);
    assert(time > least && time < most, `${time}`);
    assert(bench.run(flush) < 20 * USEC);
  }
});

Deno.test("FlashTiming forgets what zones held that are emptied: nothing of it is moved", () => {
  const params = NVME_PRESETS["tlc-dc"].timing as FlashParams;
  const moved = [NVME_ZONE_RESET, NVME_ZONE_CLOSE].map((action) => {
    const size = 2 ** 26;
    const bench = new Bench(params, size);
    bench.load(4, size / 2 ** 18, (command, i) => {
      command.opcode = NVME_CMD_ZONE_APPEND;
      command.len = 2 ** 18;
      command.at = i * command.len;
    });
    bench.run({ opcode: NVME_CMD_ZONE_MGMT_SEND, action, zone: -1, len: 0 });
    const random = new Prng(1, "pages");
    bench.load(4, size / 8192, (command) => {
      command.opcode = NVME_CMD_WRITE;
      command.len = 4096;
      command.at = 4096 * random.below(size / 4096);
    });
    return (bench.timing as FlashTiming).writes()[1]!;
  });
  assertEquals(moved[0], 0);
  assert(moved[1]! > 1000);
});
