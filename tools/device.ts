/**
 * Shows what each model of device does beside what it should do.
 *
 * ```sh
 * deno task device            # all of them: the page docs/device-models.md
 * deno task device zns        # one
 * ```
 *
 * Everything is measured with bios on the virtual clock. Exits with 1 if a figure
 * is further from its target than it may be, or a model by more than 5 % on average.
 *
 * @module
 */

import {
  Bio,
  type BlockDevice,
  REQ_FUA,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_OP_ZONE_APPEND,
  REQ_OP_ZONE_CLOSE,
  REQ_OP_ZONE_FINISH,
  REQ_OP_ZONE_OPEN,
  REQ_OP_ZONE_RESET,
  submitBio,
} from "../block/mod.ts";
import {
  createNvme,
  type EventClock,
  type Media,
  NVME_PRESETS,
  type NvmePreset,
  type NvmePresetName,
  VirtualClock,
} from "../mod.ts";

const USAGE = "usage: device [PRESET]\n";
const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;
const SECTOR = 512;
const SEC = 1e9;

/** One line of a table. */
export interface Figure {
  /** What was measured. */
  name: string;
  /** Of both numbers. */
  unit: string;
  /** What came out. */
  model: number;
  /** What should. */
  target: number;
  /** How far it may be off, as a share of the target; 0.05 unless it says so. */
  tolerance?: number;
}

/** Random numbers for a workload; the same in every run. */
class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  /** A fraction, 0 inclusive to 1 exclusive (mulberry32). */
  float(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let z = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  }

  below(n: number): number {
    return Math.floor(this.float() * n);
  }
}

/** What a workload does next: fills in the bio. */
type Next = (bio: Bio, i: number) => void;

/** How long I/Os took. */
interface Result {
  /** Mean, microseconds. */
  mean: number;
  /** I/Os a second. */
  iops: number;
  /** Microseconds of each, of those that count. */
  times: number[];
  /** Nanoseconds that all of it took. */
  ns: number;
}

/** Media that keep nothing: what counts here is time. */
class NoMedia implements Media {
  readonly size: number;

  constructor(size: number) {
    this.size = size;
  }

  read(): number {
    return 0;
  }

  write(): number {
    return 0;
  }

  zero(): number {
    return 0;
  }

  close(): void {}
}

/** A device under load. */
class Rig {
  readonly clock: EventClock = new VirtualClock();
  readonly device: BlockDevice & { close(): void };
  readonly size: number;
  readonly random = new Random(7);
  readonly #data = new Uint8Array(MiB);

  constructor(preset: NvmePresetName | NvmePreset, size: number) {
    this.size = size;
    this.device = createNvme(this.clock, {
      preset,
      media: new NoMedia(size),
    });
  }

  /**
   * Keeps `depth` bios under way until `count` have completed, and measures those
   * after the first `skip`.
   */
  load(depth: number, count: number, next: Next, skip = 0): Result {
    const times: number[] = [];
    let begun = 0;
    let done = 0;
    let from = this.clock.now();
    const begin = () => {
      const bio = new Bio(this.device, REQ_OP_READ);
      next(bio, begun++);
      const since = this.clock.now();
      bio.endIo = () => {
        if (bio.status !== 0) throw new Error(`I/O ended with ${bio.status}`);
        if (++done > skip) times.push((this.clock.now() - since) / 1000);
        if (done === skip) from = this.clock.now();
        if (begun < count) begin();
      };
      submitBio(bio);
    };
    for (let i = 0; i < depth; i++) begin();
    this.clock.runUntil(() => done === count);
    const ns = this.clock.now() - from;
    const mean = times.reduce((a, b) => a + b, 0) / times.length;
    return { mean, iops: times.length / ns * SEC, times, ns };
  }

  /** One bio; how long it takes, microseconds. */
  one(op: number, at: number, len = 0): number {
    return this.load(1, 1, (bio) => this.set(bio, op, at, len)).mean;
  }

  /** Makes a bio what a workload wants. */
  set(bio: Bio, op: number, at: number, len: number): void {
    bio.opf = op;
    bio.sector = at / SECTOR;
    if (op === REQ_OP_WRITE_ZEROES) bio.size = len;
    else if (len > 0) bio.addData(this.#data, 0, len);
  }

  /** Random 4 KiB. */
  random4k(op: number, span: number = this.size): Next {
    const blocks = Math.floor(span / (4 * KiB));
    return (bio) =>
      this.set(bio, op, this.random.below(blocks) * 4 * KiB, 4 * KiB);
  }

  /** One range after the other, from the start again at the end of `span`. */
  sequential(op: number, len: number, span: number): Next {
    let at = -len;
    return (bio) => {
      at = (at + len) % span;
      this.set(bio, op, at, len);
    };
  }

  /** Gigabytes a second of 256 KiB in sequence, 16 at a time, after `skip` of them. */
  stream(op: number, count: number, skip: number): number {
    const len = 256 * KiB;
    const next = this.sequential(op, len, this.size / 2);
    const { ns } = this.load(16, count + skip, next, skip);
    return count * len / ns;
  }
}

function quantile(times: number[], q: number): number {
  const sorted = times.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length * q)]!;
}

function progress(what: string): void {
  if (Deno.stderr.isTerminal()) console.error(what);
}

/** Targets that all SSDs have. */
interface SsdTargets {
  read: number;
  write: number;
  saturated: number;
  depth: number;
  readGBps: number;
  writeGBps: number;
}

function ssd(preset: NvmePresetName, t: SsdTargets): Figure[] {
  const rig = () => new Rig(preset, 4 * GiB);
  const one = rig();
  const reads = one.load(1, 2000, one.random4k(REQ_OP_READ));
  const writes = one.load(1, 500, one.random4k(REQ_OP_WRITE, 64 * MiB));
  const deep = rig();
  const random = deep.random4k(REQ_OP_READ);
  const saturated = deep.load(t.depth, 100 * t.depth, random, t.depth);
  return [
    us("4 KiB read, QD1", reads.mean, t.read),
    us("4 KiB write, QD1", writes.mean, t.write),
    {
      name: `4 KiB random read, QD${t.depth}`,
      unit: "K IOPS",
      model: saturated.iops / 1000,
      target: t.saturated,
    },
    gbps("sequential read", rig().stream(REQ_OP_READ, 1000, 32), t.readGBps),
    gbps(
      "sequential write, sustained",
      rig().stream(REQ_OP_WRITE, 800, 700),
      t.writeGBps,
    ),
  ];
}

function us(name: string, model: number, target: number): Figure {
  return { name, unit: "µs", model, target };
}

function ms(name: string, model: number, target: number): Figure {
  return { name, unit: "ms", model: model / 1000, target };
}

function gbps(name: string, model: number, target: number): Figure {
  return { name, unit: "GB/s", model, target };
}

function optane(): Figure[] {
  const rig = new Rig("optane", 4 * GiB);
  const one = rig.load(1, 20_000, rig.random4k(REQ_OP_READ));
  const deep = rig.load(16, 20_000, rig.random4k(REQ_OP_READ), 100);
  return [
    ...ssd("optane", {
      read: 8.9,
      write: 8.9,
      saturated: 585,
      depth: 32,
      readGBps: 2.4,
      writeGBps: 2.2,
    }),
    us("4 KiB read, QD1, p99", quantile(one.times, 0.99), 10),
    {
      name: "4 KiB random read, QD16",
      unit: "K IOPS",
      model: deep.iops / 1000,
      target: 585,
    },
  ];
}

function qlc(): Figure[] {
  progress("qlc");
  const { slc: _none, ...timing } = NVME_PRESETS.qlc.timing as { slc: unknown };
  const slow = { ...NVME_PRESETS.qlc, timing } as NvmePreset;
  const raw = new Rig(slow, GiB).stream(REQ_OP_WRITE, 400, 200);
  return [
    ...qlcReads(slow),
    ...qlcFast(),
    gbps("sequential write, region full, not folding", raw, 0.167),
    gbps("sequential write, region full, folding", qlcFolding(), 0.1),
    qlcRegion(),
  ];
}

/** Flash that was never written is read as if it were in the slow mode. */
function qlcReads(slow: NvmePreset): Figure[] {
  const rig = new Rig(slow, 4 * GiB);
  const reads = rig.load(1, 1000, rig.random4k(REQ_OP_READ));
  const deep = rig.load(256, 20_000, rig.random4k(REQ_OP_READ), 256);
  const stream = new Rig(slow, 4 * GiB).stream(REQ_OP_READ, 400, 32);
  return [
    us("4 KiB read, QD1", reads.mean, 134),
    {
      name: "4 KiB random read, QD256",
      unit: "K IOPS",
      model: deep.iops / 1000,
      target: 69,
    },
    gbps("sequential read", stream, 1.8),
  ];
}

function qlcFast(): Figure[] {
  const rig = new Rig("qlc", 16 * GiB);
  const write = rig.stream(REQ_OP_WRITE, 1600, 800);
  rig.one(REQ_OP_WRITE | REQ_FUA, 0, 4 * KiB);
  const span = 512 * MiB;
  const reads = rig.load(1, 500, rig.random4k(REQ_OP_READ, span));
  const deep = rig.load(256, 20_000, rig.random4k(REQ_OP_READ, span), 256);
  const one = new Rig("qlc", GiB);
  const writes = one.load(1, 500, one.random4k(REQ_OP_WRITE));
  return [
    us("4 KiB read, QD1, fast region", reads.mean, 64),
    {
      name: "4 KiB random read, QD256, fast region",
      unit: "K IOPS",
      model: deep.iops / 1000,
      target: 177,
    },
    us("4 KiB write, QD1", writes.mean, 16),
    gbps("sequential write, fast region", write, 1.45),
  ];
}

/** Long after the region has filled. */
function qlcFolding(): number {
  return new Rig("qlc", 4 * GiB).stream(REQ_OP_WRITE, 1400, 3300);
}

/** How much an empty drive takes before it slows down. */
function qlcRegion(): Figure {
  const rig = new Rig("qlc", 32 * GiB);
  const len = 256 * KiB;
  const next = rig.sequential(REQ_OP_WRITE, len, rig.size);
  let written = 0;
  // In the fast mode a write waits for 0.2 ms, in the slow one for 1.5 ms.
  while (rig.load(16, 64, next).ns < 64 * 1e6) written += 64 * len;
  return {
    name: "fast region, empty drive",
    unit: "% of size",
    model: written / rig.size * 100,
    target: 14,
  };
}

// The ZN540's zones, in 4 KiB.
const ZONE = 2 * GiB;
const CAPACITY = 275_712;
const PAGE = 4 * KiB;

function zns(): Figure[] {
  return [
    ...znsReads(),
    ...znsWrites(),
    ...znsKernel(),
    ...znsFinish(),
    ...znsReset(),
    ...znsOther(),
    ...znsInterference(),
  ];
}

function zoned(preset: NvmePresetName | NvmePreset = "zns"): Rig {
  return new Rig(preset, 16 * ZONE);
}

/** A random page below the capacity of one of the zones. */
function znsRandom(rig: Rig): number {
  return rig.random.below(16) * ZONE + rig.random.below(CAPACITY) * PAGE;
}

function znsReads(): Figure[] {
  const columns = [
    [1, 72.6, 13.7],
    [4, 76.0, 52.4],
    [16, 91.5, 174],
    [64, 175, 365],
    [128, 301, 424],
    [256, 585, 437],
  ] as const;
  return columns.flatMap(([depth, mean, kiops]) => {
    progress(`zns: reads, QD${depth}`);
    const rig = zoned();
    const next = (bio: Bio) => rig.set(bio, REQ_OP_READ, znsRandom(rig), PAGE);
    const got = rig.load(depth, 20_000 + 50 * depth, next, depth);
    return [
      us(`4 KiB random read, QD${depth}`, got.mean, mean),
      {
        name: `4 KiB random read, QD${depth}`,
        unit: "K IOPS",
        model: got.iops / 1000,
        target: kiops,
      },
    ];
  });
}

function znsWrites(): Figure[] {
  const rig = zoned();
  const write = rig.load(1, 8000, rig.sequential(REQ_OP_WRITE, PAGE, ZONE), 1);
  const columns = [[1, 14.83], [4, 29.7], [16, 119.7], [64, 480], [128, 961]];
  return [
    us("4 KiB write, QD1", write.mean, 11.36),
    {
      name: "4 KiB write, QD1",
      unit: "K IOPS",
      model: write.iops / 1000,
      target: 85,
    },
    ...columns.flatMap(([depth, mean]) => znsAppends(depth!, mean!)),
  ];
}

function znsAppends(depth: number, mean: number): Figure[] {
  progress(`zns: appends, QD${depth}`);
  const rig = zoned();
  const next = (bio: Bio) => rig.set(bio, REQ_OP_ZONE_APPEND, 0, PAGE);
  const got = rig.load(depth, 6000 + depth, next, depth);
  return [
    us(`4 KiB append, QD${depth}`, got.mean, mean),
    {
      name: `4 KiB append, QD${depth}`,
      unit: "K IOPS",
      model: got.iops / 1000,
      target: depth === 1 ? 65.7 : 132,
    },
  ];
}

/** The same drive behind interrupts and a system call, which cost what they cost. */
function znsKernel(): Figure[] {
  const timing = {
    ...NVME_PRESETS.zns.timing,
    hostRead: 3_000 + 13_700,
    hostWrite: 3_000 + 7_340,
  };
  const preset = { ...NVME_PRESETS.zns, timing } as NvmePreset;
  const rig = zoned(preset);
  const read = (bio: Bio) => rig.set(bio, REQ_OP_READ, znsRandom(rig), PAGE);
  const reads = rig.load(1, 5000, read);
  const writes = zoned(preset);
  const next = writes.sequential(REQ_OP_WRITE, PAGE, ZONE);
  const sequential = writes.load(1, 5000, next, 1);
  return [
    us("kernel path: 4 KiB random read, QD1", reads.mean, 86.3),
    us("kernel path: 4 KiB write, QD1", sequential.mean, 18.7),
    us(
      "kernel path: 4 KiB write, QD1, random zone",
      znsRandomZones(preset),
      21.85,
    ),
  ];
}

/** More zones than may be open: a write mostly opens its zone. */
function znsRandomZones(preset: NvmePreset): number {
  const zones = 256;
  const timing = { ...NVME_PRESETS.zns.zones!, maxActive: 0 };
  const rig = new Rig({ ...preset, zones: timing }, zones * ZONE);
  const wp = new Map<number, number>();
  return rig.load(1, 5000, (bio) => {
    const zone = rig.random.below(zones);
    const at = wp.get(zone) ?? 0;
    wp.set(zone, at + PAGE);
    rig.set(bio, REQ_OP_WRITE, zone * ZONE + at, PAGE);
  }).mean;
}

/** Writes the first `pages` of a zone, without content. */
function fill(rig: Rig, zone: number, pages: number): void {
  const most = 64;
  for (let at = 0; at < pages; at += most) {
    const n = Math.min(most, pages - at);
    rig.one(REQ_OP_WRITE_ZEROES, zone * ZONE + at * PAGE, n * PAGE);
  }
}

/** How many pages a share of a zone is. */
function pagesOf(share: number): number {
  return Math.round(share * CAPACITY);
}

function znsFinish(): Figure[] {
  const columns: [string, number, number][] = [
    ["1 page", 1, 907.4],
    ["6.25 %", pagesOf(0.0625), 848.2],
    ["12.5 %", pagesOf(0.125), 792.3],
    ["25 %", pagesOf(0.25), 680.8],
    ["50 %", pagesOf(0.5), 456.7],
    ["all but 1 page", CAPACITY - 1, 2.58],
  ];
  const figures = columns.map(([name, pages, target]) => {
    progress(`zns: finish, ${name}`);
    const rig = zoned();
    fill(rig, 0, pages);
    return ms(
      `finish, ${name} written`,
      rig.one(REQ_OP_ZONE_FINISH, 0),
      target,
    );
  });
  return [
    us("finish, empty", zoned().one(REQ_OP_ZONE_FINISH, 0), 13.5),
    ...figures,
  ];
}

function znsReset(): Figure[] {
  const columns: [string, number, number][] = [
    ["empty", 0, 1.61],
    ["1 page", 1, 1.70],
    ["6.25 %", pagesOf(0.0625), 5.16],
    ["12.5 %", pagesOf(0.125), 6.05],
    ["25 %", pagesOf(0.25), 7.88],
    ["50 %", pagesOf(0.5), 11.3],
    ["full", CAPACITY, 15.8],
  ];
  const figures = columns.map(([name, pages, target]) => {
    progress(`zns: reset, ${name}`);
    const rig = zoned();
    fill(rig, 0, pages);
    return ms(`reset, ${name}`, rig.one(REQ_OP_ZONE_RESET, 0), target);
  });
  const finished = [0.25, 0.5].map((share) => {
    const rig = zoned();
    fill(rig, 0, pagesOf(share));
    rig.one(REQ_OP_ZONE_FINISH, 0);
    const name = `reset, finished at ${share * 100} %`;
    return ms(name, rig.one(REQ_OP_ZONE_RESET, 0), 1.58 + 13.8 * share);
  });
  return [...figures, ...finished];
}

function znsOther(): Figure[] {
  const rig = zoned();
  const open = rig.one(REQ_OP_ZONE_OPEN, 0);
  const close = rig.one(REQ_OP_ZONE_CLOSE, 0);
  const zone = (i: number) => i * ZONE;
  const first = (op: number, i: number) => rig.one(op, zone(i), PAGE);
  // One of each kind would be chance: they vary as other writes do.
  const many = (op: number) => {
    let sum = 0;
    for (let i = 0; i < 400; i++) {
      sum += first(op, 1);
      rig.one(REQ_OP_ZONE_RESET, zone(1));
    }
    return sum / 400;
  };
  const write = many(REQ_OP_WRITE);
  const append = many(REQ_OP_ZONE_APPEND);
  first(REQ_OP_WRITE, 2);
  return [
    us("explicit open", open, 9.6),
    us("close", close, 10.96),
    us("close after a write", rig.one(REQ_OP_ZONE_CLOSE, zone(2)), 15.2),
    us("first write to an empty zone", write, 13.65),
    us("first append to an empty zone", append, 17.5),
  ];
}

function znsInterference(): Figure[] {
  const columns = [
    [0, 81, 82],
    [0.05, 81, 181],
    [0.1, 81, 222],
    [0.25, 154, 264],
    [0.5, 218, 371],
  ] as const;
  return columns.flatMap(([share, p99, p999]) => {
    progress(`zns: reads beside ${share * 100} % appends`);
    const times = mixed(share, 120_000);
    const name = share === 0
      ? "4 KiB read, QD1, alone"
      : `4 KiB read, QD1, ${share * 100} % appends`;
    return [
      { ...us(`${name}, p99`, quantile(times, 0.99), p99), tolerance: 0.1 },
      { ...us(`${name}, p99.9`, quantile(times, 0.999), p999), tolerance: 0.1 },
    ];
  });
}

/** Microseconds of `count` reads, with appends between them. */
function mixed(share: number, count: number): number[] {
  const rig = zoned();
  const times: number[] = [];
  let appends = 0;
  let read = true;
  let since = 0;
  const total = Math.round(count / (1 - share));
  rig.load(1, total, (bio, i) => {
    const now = rig.clock.now();
    if (i > 0 && read) times.push((now - since) / 1000);
    since = now;
    read = rig.random.float() >= share;
    if (read) rig.set(bio, REQ_OP_READ, znsRandom(rig), PAGE);
    else {
      const zone = Math.floor(appends++ / CAPACITY);
      rig.set(bio, REQ_OP_ZONE_APPEND, zone * ZONE, PAGE);
    }
  });
  return times;
}

/** 4 TB, as the data sheet's drive: what counts is where on the disk something is. */
const DISK = 4e12;

function hdd(): Figure[] {
  progress("hdd");
  const rig = new Rig("hdd", DISK);
  const reads = rig.load(1, 3000, rig.random4k(REQ_OP_READ));
  const writes = rig.load(1, 3000, rig.random4k(REQ_OP_WRITE | REQ_FUA));
  const cached = rig.load(1, 100, rig.random4k(REQ_OP_WRITE));
  // Overhead, half a revolution, the sectors themselves.
  const rest = 100 + 8333 / 2 + 31;
  return [
    ms("4 KiB random read, QD1", reads.mean, 11.7),
    {
      name: "4 KiB random read, QD1",
      unit: "IOPS",
      model: reads.iops,
      target: 86,
    },
    ms("average seek, read", reads.mean - rest, 7.4),
    ms("average seek, write", writes.mean - rest, 8.2),
    ms("next track, read", shortest(REQ_OP_READ, 2 * MiB), 0.23),
    ms("next track, write", shortest(REQ_OP_WRITE | REQ_FUA, 2 * MiB), 0.32),
    ms("full stroke, read", shortest(REQ_OP_READ, DISK - 2 * MiB), 16),
    ms(
      "full stroke, write",
      shortest(REQ_OP_WRITE | REQ_FUA, DISK - 2 * MiB),
      17,
    ),
    us("4 KiB write into the cache", cached.mean, 107.4),
    // A track passes in a revolution, and the next comes after a head switch.
    mbps("sequential read, outside", streamAt(0), 250 * 8.333 / 8.833),
    mbps("sequential read, inside", streamAt(DISK - GiB), 125 * 8.333 / 8.833),
    mbps("sequential write, cache full", streamWrites(), 250 * 8.333 / 8.833),
  ];
}

function mbps(name: string, model: number, target: number): Figure {
  return { name, unit: "MB/s", model, target };
}

/** The shortest access over a distance, without overhead: the rotation is chance. */
function shortest(op: number, distance: number): number {
  const rig = new Rig("hdd", DISK);
  const { times } = rig.load(1, 6000, (bio, i) => {
    const at = i % 2 * distance + rig.random.below(500) * 4 * KiB;
    rig.set(bio, op, at, 4 * KiB);
  }, 2);
  return Math.min(...times) - 100 - 24;
}

function streamAt(from: number): number {
  const rig = new Rig("hdd", DISK);
  const len = 256 * KiB;
  const { ns } = rig.load(1, 1000, (bio, i) => {
    rig.set(bio, REQ_OP_READ, from + i * len, len);
  }, 1);
  return 999 * len * 1000 / ns;
}

/** The pace at which the cache is drained. */
function streamWrites(): number {
  const rig = new Rig("hdd", DISK);
  const len = 256 * KiB;
  const next = rig.sequential(REQ_OP_WRITE, len, GiB);
  return 500 * len * 1000 / rig.load(8, 2000, next, 1500).ns;
}

function smr(): Figure[] {
  progress("smr");
  const zone = 256 * MiB;
  const rig = new Rig("smr", 4096 * zone);
  const reads = rig.load(1, 2000, rig.random4k(REQ_OP_READ));
  let sum = 0;
  for (let i = 0; i < 400; i++) {
    sum += rig.one(REQ_OP_ZONE_RESET, (64 + rig.random.below(4000)) * zone);
  }
  return [
    ms("4 KiB random read, QD1", reads.mean, 11.7),
    ms("reset, random zone", sum / 400, 8.2 + 8.333 + 0.1),
  ];
}

function pmem(): Figure[] {
  const rig = new Rig("pmem", 4 * GiB);
  // The first 64 bytes, then the rest at a module's rate.
  const rest = (4096 - 64) / 1000;
  const random = rig.load(1, 1000, rig.random4k(REQ_OP_READ));
  const next = rig.sequential(REQ_OP_READ, 4 * KiB, GiB);
  const sequential = rig.load(1, 1000, next, 1);
  const write = rig.load(1, 200, rig.random4k(REQ_OP_WRITE, 16 * MiB));
  const flood = (op: number) => {
    const busy = new Rig("pmem", 4 * GiB);
    const { ns } = busy.load(
      32,
      8000,
      busy.sequential(op, 4 * KiB, 16 * MiB),
      64,
    );
    return 7936 * 4 * KiB / ns;
  };
  return [
    us("4 KiB random read, QD1", random.mean, 0.305 + rest / (39.4 / 6)),
    us(
      "4 KiB sequential read, QD1",
      sequential.mean,
      0.169 + rest / (39.4 / 6),
    ),
    us("4 KiB write, QD1", write.mean, 0.09 + rest / (13.9 / 6)),
    gbps("read, six modules", flood(REQ_OP_READ), 39.4),
    gbps("write, six modules", flood(REQ_OP_WRITE), 13.9),
  ];
}

/** Figures of each model. */
const MODELS: Record<NvmePresetName, () => Figure[]> = {
  "null": () => [
    { name: "4 KiB read, QD1", unit: "µs", model: nullRead(), target: 0 },
  ],
  optane,
  "optane2": () =>
    ssd("optane2", {
      read: 5.8,
      write: 5.8,
      saturated: 1515,
      depth: 128,
      readGBps: 7.2,
      writeGBps: 6.2,
    }),
  "tlc-dc": () =>
    ssd("tlc-dc", {
      read: 67,
      write: 9.2,
      saturated: 900,
      depth: 512,
      readGBps: 6.5,
      writeGBps: 3.15,
    }),
  "mlc-970pro": () =>
    ssd("mlc-970pro", {
      read: 66,
      write: 8.6,
      saturated: 394,
      depth: 512,
      readGBps: 3.4,
      writeGBps: 2.3,
    }),
  qlc,
  zns,
  hdd,
  smr,
  pmem,
};

function nullRead(): number {
  const rig = new Rig("null", GiB);
  return rig.load(1, 10, rig.random4k(REQ_OP_READ)).mean;
}

/** Measures the figures of a model. */
export function figuresOf(preset: NvmePresetName): Figure[] {
  return MODELS[preset]();
}

/** How far a figure is off, as a share of its target. */
function errorOf({ model, target }: Figure): number {
  return target === 0 ? model : model / target - 1;
}

/** Whether it is further off than it may be. */
export function isOff(figure: Figure): boolean {
  return Math.abs(errorOf(figure)) > (figure.tolerance ?? 0.05);
}

/** Mean of how far figures are off. */
function meanError(figures: Figure[]): number {
  return figures.reduce((sum, f) => sum + Math.abs(errorOf(f)), 0) /
    figures.length;
}

function percent(share: number): string {
  // Adding 0 makes 0 of -0.
  return `${(Math.round(share * 1000) / 10 + 0).toFixed(1)} %`;
}

/** Four digits that count. */
function show(value: number): string {
  return value === 0 ? "0" : value.toPrecision(4);
}

/** The table of a model, as Markdown. */
export function table(preset: NvmePresetName, figures: Figure[]): string {
  const rows = figures.map((figure) => {
    const { name, unit, model, target } = figure;
    const error = percent(errorOf(figure));
    return [
      name,
      `${show(model)} ${unit}`,
      `${show(target)} ${unit}`,
      isOff(figure) ? `${error} **off**` : error,
    ];
  });
  return [
    `## ${preset}`,
    "",
    ...aligned([["figure", "model", "target", "error"], ...rows]),
    "",
    `Mean error ${percent(meanError(figures))}.`,
    "",
  ].join("\n");
}

/** Rows of a table whose columns are as wide as what is in them; a line below the first. */
function aligned(rows: string[][]): string[] {
  const widths = rows[0]!.map((_, i) =>
    Math.max(...rows.map((row) => row[i]!.length))
  );
  const line = (row: string[]) =>
    `| ${row.map((cell, i) => cell.padEnd(widths[i]!)).join(" | ")} |`;
  const [head, ...body] = rows.map(line);
  return [head!, line(widths.map((n) => "-".repeat(n))), ...body];
}

/** Names of the models, in the order in which they are shown. */
export const MODEL_NAMES: NvmePresetName[] = Object.keys(
  MODELS,
) as NvmePresetName[];

/**
 * Runs the program.
 *
 * @param args Its arguments.
 * @param write Prints.
 * @returns Exit status: 1 if a figure is off, 2 if the arguments are wrong.
 */
export function main(
  args: string[],
  write: (text: string) => void,
): number {
  const names = args.length === 0
    ? MODEL_NAMES
    : MODEL_NAMES.filter((name) => name === args[0]);
  if (args.length > 1 || names.length === 0) {
    const help = args.length === 1 && /^(-h|--help)$/.test(args[0]!);
    if (!help) write(`device: there is no preset "${args.join(" ")}"\n`);
    write(`${USAGE}PRESET is one of ${MODEL_NAMES.join(", ")}\n`);
    return help ? 0 : 2;
  }
  let status = 0;
  for (const name of names) {
    const figures = figuresOf(name);
    if (figures.some(isOff) || meanError(figures) > 0.05) status = 1;
    write(`${name === names[0] ? "" : "\n"}${table(name, figures)}`);
  }
  return status;
}

if (import.meta.main) {
  const encoder = new TextEncoder();
  Deno.exit(main(Deno.args, (text) => {
    Deno.stdout.writeSync(encoder.encode(text));
  }));
}
