/** What all models have in common, and the timeline of the dies. */

import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertThrows,
} from "@std/assert";
import {
  checkPreset,
  NVME_PRESETS,
  type NvmePresetName,
} from "../../../block/nvme/presets.ts";
import type { FlashParams } from "../../../block/nvme/flash.ts";
import { Jitter } from "../../../block/nvme/jitter.ts";
import { Lane } from "../../../block/nvme/lane.ts";
import {
  NVME_CMD_COMPARE,
  NVME_CMD_COPY,
  NVME_CMD_DSM,
  NVME_CMD_FLUSH,
  NVME_CMD_VERIFY,
  NVME_CMD_WRITE_ZEROES,
  NVME_CMD_ZONE_APPEND,
} from "../../../block/nvme/nvme.ts";
import { USEC } from "../../../lib/clock.ts";
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
const ZONE = 2 * GiB;

/** 1 µs firmware, 50 µs array, 5 µs channel, 1 µs PCIe; two channels of two dies. */
const VECTOR: FlashParams = {
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
  writeBuffer: 8 * PAGE,
  powerLossProtected: false,
};

Deno.test("corner case 144: reads queue for die, channel and PCIe", () => {
  const second = (page: number) => {
    const bench = new Bench(VECTOR, MiB);
    const first = bench.start();
    const other = bench.start({ at: page * PAGE });
    bench.until();
    assertEquals(first.done, 57 * USEC);
    return other.done / USEC;
  };
  // Pages lie on the dies of channel 0, 1, 0, 1.
  assertEquals([second(4), second(2), second(1)], [112, 62, 58]);
});

Deno.test("corner case 145: no time is booked twice, nor before it is asked for", () => {
  const random = new Prng(9);
  for (let run = 0; run < 50; run++) {
    const lane = new Lane();
    const busy: [number, number][] = [];
    let now = 0;
    let last = 0;
    for (let i = 0; i < 60; i++) {
      now += random.below(20);
      const arrival = now + random.below(200);
      const service = 1 + random.below(15);
      const end = lane.book(now, arrival, service);
      assert(end - service >= arrival);
      busy.push([end - service, end]);
      last = Math.max(last, end);
    }
    busy.sort((a, b) => a[0] - b[0]);
    for (let i = 1; i < busy.length; i++) {
      assert(busy[i - 1]![1] <= busy[i]![0], `${busy[i - 1]} and ${busy[i]}`);
    }
    assert(busy.reduce((sum, [from, end]) => sum + end - from, 0) <= last);
  }
});

Deno.test("Lane.book() fills a gap that is large enough, and forgets what has passed", () => {
  const lane = new Lane();
  assertEquals(lane.book(0, 10, 5), 15);
  assertEquals(lane.book(0, 20, 5), 25);
  assertEquals(lane.book(0, 0, 6), 6);
  assertEquals(lane.book(0, 5, 4), 10);
  assertEquals(lane.book(0, 5, 6), 31);
  assertEquals(lane.book(0, 11, 5), 20);
  assertEquals(lane.book(100, 100, 1), 101);
  // Many apart from each other: the arrays grow, and what has passed makes room.
  for (let i = 0; i < 300; i++) {
    assertEquals(lane.book(101 + 5 * i, 200 + 10 * i, 3), 203 + 10 * i);
  }
  assertEquals(lane.book(1700, 1701, 7), 1710);
});

/** Name, depth, I/Os a second at saturation: 1 over the service time of its slowest part. */
const SATURATED: [NvmePresetName, number, number][] = [
  ["optane", 32, 1e9 / 1710],
  ["optane2", 128, 1e9 / 660],
  ["tlc-dc", 512, 1e9 / 1111],
  ["mlc-970pro", 1024, 16 * 1e9 / (35_760 + 5_120)],
  ["qlc", 512, 8 * 1e9 / (110_000 + 5_120)],
  ["zns", 512, 438_000],
];

Deno.test("corner case 146: depth is rate times latency, and rate one over the slowest service", () => {
  for (const [name, depth, limit] of SATURATED) {
    const random = new Prng(3);
    const next = (command: TestCommand) => {
      command.opcode = NVME_CMD_READ;
      command.at = random.below(1024) * MiB + random.below(256) * PAGE;
    };
    const one = new Bench(NVME_PRESETS[name].timing!, 4 * GiB);
    const single = one.load(1, 300, next);
    assertAlmostEquals(single.iops * single.mean / 1e9, 1, 0.01, name);
    const many = new Bench(NVME_PRESETS[name].timing!, 4 * GiB);
    many.load(depth, 10 * depth, next);
    const full = many.load(depth, 40 * depth, next);
    assertAlmostEquals(full.iops / limit, 1, 0.05, name);
    assertAlmostEquals(full.iops * full.mean / 1e9 / depth, 1, 0.05, name);
  }
});

/** 4 KiB read and write at depth 1, µs: the row "model" of the presets. */
const MODEL: [NvmePresetName, number, number][] = [
  ["optane", 8.9, 8.9],
  ["optane2", 5.8, 5.8],
  ["tlc-dc", 67, 9.2],
  ["mlc-970pro", 66, 8.6],
  ["qlc", 134, 16],
  ["zns", 72.6, 11.36],
];

Deno.test("corner case 152: models take the time of their row at depth 1, ZN540 appends 480 µs at 64", () => {
  for (const [name, read, write] of MODEL) {
    const random = new Prng(4);
    const reads = new Bench(NVME_PRESETS[name].timing!, 4 * GiB).load(
      1,
      1000,
      (command) => command.at = random.below(256 * 1024) * PAGE,
    );
    const writes = new Bench(NVME_PRESETS[name].timing!, 4 * GiB).load(
      1,
      300,
      (command, i) => {
        command.opcode = NVME_CMD_WRITE;
        command.at = i * PAGE;
      },
    );
    assertAlmostEquals(reads.mean / USEC, read, read * 0.05, name);
    assertAlmostEquals(writes.mean / USEC, write, write * 0.05, name);
  }
  const bench = new Bench(NVME_PRESETS.zns.timing!, 4 * GiB);
  const append = (command: TestCommand) => {
    command.opcode = NVME_CMD_ZONE_APPEND;
    command.zone = 0;
  };
  bench.load(64, 64, append);
  assertAlmostEquals(bench.load(64, 4000, append).mean / USEC, 480, 24);
});

Deno.test("Jitter.sample() has the quantiles of its table", () => {
  const jitter = new Jitter({
    median: 1000,
    quantiles: [[0.5, 1], [0.9, 1.2], [0.99, 2], [0.999, 4]],
  }, new Prng(1));
  const drawn = Array.from({ length: 100_000 }, () => 1000 + jitter.sample())
    .sort((a, b) => a - b);
  for (const [q, value] of [[0.3, 1000], [0.9, 1200], [0.99, 2000]] as const) {
    assertAlmostEquals(drawn[q * 100_000]!, value, value * 0.03);
  }
  assertEquals(drawn.at(-1), 4000);
});

const TIMED = Object.values(NVME_PRESETS).filter((row) => row.timing !== null);

Deno.test("makeTiming() completes every kind of command once, later than it came", () => {
  const opcodes = [
    NVME_CMD_READ,
    NVME_CMD_WRITE,
    NVME_CMD_FLUSH,
    NVME_CMD_WRITE_ZEROES,
    NVME_CMD_DSM,
    NVME_CMD_COPY,
    NVME_CMD_COMPARE,
    NVME_CMD_VERIFY,
    0x79,
    0x7a,
  ];
  for (const { timing, model } of TIMED) {
    const random = new Prng(2);
    const bench = new Bench(timing!, 8 * ZONE);
    const commands: TestCommand[] = [];
    for (let i = 0; i < 400; i++) {
      const at = random.below(8) * ZONE + random.below(1000) * PAGE;
      const opcode = opcodes[i % opcodes.length]!;
      const ranged = opcode === NVME_CMD_COPY || opcode === NVME_CMD_DSM;
      commands.push(bench.start({
        opcode,
        at,
        zone: Math.floor(at / ZONE),
        qid: 1 + i % 3,
        len: 512 * (1 + random.below(64)),
        fua: random.below(4) === 0,
        action: 1 + random.below(5),
        ranges: ranged ? Float64Array.of(0, PAGE, ZONE, 3 * PAGE) : null,
      }));
      bench.until(bench.clock.now() + random.below(200 * USEC));
    }
    bench.until();
    for (const command of commands) {
      assert(command.done > command.since, `${model}: ${command.opcode}`);
      assertEquals(command.event, 0);
      assert(Number.isInteger(command.done), model);
    }
  }
});

Deno.test("abort() takes a command back at any time: the others complete, it does not", () => {
  for (const { timing, model } of TIMED) {
    const random = new Prng(5);
    const bench = new Bench(timing!, 8 * ZONE);
    const commands: TestCommand[] = [];
    const aborted = new Set<TestCommand>();
    for (let i = 0; i < 300; i++) {
      commands.push(bench.start({
        opcode: i % 7 === 0 ? NVME_CMD_FLUSH : 1 + i % 2,
        at: random.below(4096) * 128 * 1024,
        zone: 0,
        qid: 1 + i % 2,
        len: 128 * 1024,
        fua: i % 5 === 0,
      }));
      const victim = commands[random.below(commands.length)]!;
      const pending = victim.done < 0 && !aborted.has(victim);
      if (i % 3 !== 0) continue;
      assertEquals(bench.timing.abort(victim), pending, `${model}, ${i}`);
      if (pending) aborted.add(victim);
    }
    bench.until();
    for (const command of commands) {
      assertEquals(command.done < 0, aborted.has(command), model);
    }
  }
});

Deno.test("reset() forgets all, and the model goes on", () => {
  for (const { timing, model } of TIMED) {
    const bench = new Bench(timing!, 8 * ZONE);
    const lost = Array.from({ length: 200 }, (_, i) =>
      bench.start({
        opcode: i % 9 === 0 ? NVME_CMD_FLUSH : 1 + i % 2,
        at: i * MiB,
        len: 512 * 1024,
        zone: 0,
        fua: i % 3 === 0,
      }));
    bench.until(5 * USEC);
    bench.timing.reset();
    bench.until();
    assert(lost.filter((command) => command.done < 0).length > 100, model);
    assert(bench.run({ opcode: NVME_CMD_WRITE, zone: 1, at: ZONE }) > 0, model);
    assert(bench.run({ opcode: NVME_CMD_FLUSH }) > 0, model);
  }
});

Deno.test("a model with one seed gives the same times, and one with chance other times with another", () => {
  const times = (name: NvmePresetName, seed: number) => {
    const random = new Prng(8);
    const all: number[] = [];
    new Bench(NVME_PRESETS[name].timing!, 8 * ZONE, seed).load(
      8,
      2000,
      (command) => {
        command.opcode = 1 + random.below(2);
        command.zone = random.below(8);
        command.at = command.zone * ZONE + random.below(4096) * PAGE;
      },
      (time) => all.push(time),
    );
    return all.join();
  };
  for (const name of ["optane", "tlc-dc", "qlc", "zns", "hdd"] as const) {
    assertEquals(times(name, 1), times(name, 1));
  }
  for (const name of ["optane", "zns"] as const) {
    assert(times(name, 1) !== times(name, 2));
  }
});

Deno.test("checkPreset() takes the presets, and names what cannot be", () => {
  for (const preset of Object.values(NVME_PRESETS)) checkPreset(preset);
  const flash = NVME_PRESETS["tlc-dc"].timing as FlashParams;
  const bad: [string, object][] = [
    ["channels", { ...flash, channels: 0 }],
    ["channels", { ...flash, channels: 2.5 }],
    ["host", { ...flash, host: NaN }],
    ["host", { ...flash, host: -1 }],
    ["host", { ...flash, host: "3" }],
    ["oneShot", { ...flash, flash: { ...flash.flash, oneShot: 5000 } }],
    ["read4k", { ...flash, flash: { ...flash.flash, read4k: [] } }],
    ["writeBuffer", { ...flash, writeBuffer: 4096 }],
    ["slc", { ...flash, slc: 5 }],
    ["share", { ...flash, slc: {} }],
    ["kind", { ...flash, kind: "tape" }],
    ["flash", { ...flash, flash: undefined }],
  ];
  for (const [name, timing] of bad) {
    const preset = { ...NVME_PRESETS["tlc-dc"], timing } as never;
    assertThrows(() => checkPreset(preset), Error, name);
  }
  assertThrows(() => checkPreset({} as never), Error, "preset");
});

Deno.test("an append takes the time and the room of a write, in every model", () => {
  for (const [name, { timing }] of Object.entries(NVME_PRESETS)) {
    // The ZN540's appends have figures of their own.
    if (timing === null || timing.kind === "zns") continue;
    const [write, append] = [NVME_CMD_WRITE, NVME_CMD_ZONE_APPEND].map(
      (opcode) => {
        const bench = new Bench(timing, 2 ** 30);
        return bench.load(8, 400, (command, i) => {
          command.opcode = opcode;
          command.zone = 0;
          command.len = 2 ** 18;
          command.at = i * command.len;
        }).ns;
      },
    );
    assertEquals(append, write, name);
  }
});
