/** What a fio job measures, held against plain arithmetic and real fio runs. */

import { assertAlmostEquals, assertEquals } from "@std/assert";
import {
  DDIR_READ,
  DDIR_TRIM,
  DDIR_WRITE,
  groupTotals,
  Histogram,
  JobStats,
  type JobStatsOptions,
  perSecond,
  samplesAt,
  shareOfGroup,
  Tally,
} from "../../tools/fio/stat.ts";
import { DEFAULT_PERCENTILES, type FioJson } from "./fio_output.ts";

const OPTIONS: JobStatsOptions = {
  percentiles: DEFAULT_PERCENTILES,
  slatPercentiles: true,
  clatPercentiles: true,
  latPercentiles: true,
  unifiedRw: 0,
};
const MS = 1e6;

/** 1000 latencies over nine powers of ten, always the same. */
const VALUES = Array.from(
  { length: 1000 },
  (_, i) => Math.floor(10 ** (i * 7919 % 1000 / 111)),
);

function tallyOf(values: number[]): Tally {
  const tally = new Tally();
  for (const value of values) tally.add(value);
  return tally;
}

function assertTally(tally: Tally, values: number[]): void {
  const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
  const squares = values.reduce((sum, v) => sum + (v - mean) ** 2, 0);
  assertEquals(tally.count, values.length);
  assertEquals(tally.min, Math.min(...values));
  assertEquals(tally.max, Math.max(...values));
  assertAlmostEquals(tally.mean / mean, 1, 1e-12);
  const stddev = Math.sqrt(squares / (values.length - 1));
  assertAlmostEquals(tally.stddev / stddev, 1, 1e-12);
}

Deno.test("Tally.add() keeps extremes, mean and deviation", () => {
  assertTally(tallyOf(VALUES), VALUES);
});

Deno.test("Tally answers zeros without values, no deviation with one", () => {
  const tally = new Tally();
  assertEquals([tally.count, tally.min, tally.max, tally.mean], [0, 0, 0, 0]);
  assertEquals(tally.stddev, 0);

  tally.add(5);

  assertEquals([tally.count, tally.min, tally.max, tally.mean], [1, 5, 5, 5]);
  assertEquals(tally.stddev, 0);
});

Deno.test("Tally.merge() answers as if all values had come to one", () => {
  const tally = new Tally();
  tally.merge(tallyOf(VALUES.slice(0, 10)));
  tally.merge(new Tally());
  tally.merge(tallyOf(VALUES.slice(10, 700)));
  tally.merge(tallyOf(VALUES.slice(700)));

  assertTally(tally, VALUES);
});

Deno.test("Tally.addUp() sums the rates of jobs as fio's groups do", () => {
  // Bandwidth logs of three jobs of a real run, and their group's line.
  const sum = new Tally();
  sum.addUp(tallyOf([1104, 1136, 1056, 1018, 1184]));
  sum.addUp(tallyOf([1138, 1152, 1328, 1098, 1248]));
  sum.addUp(tallyOf([14172, 14656, 14752, 13915, 14016]));

  assertEquals([sum.count, sum.min, sum.max], [15, 16031, 17264]);
  assertEquals(sum.mean.toFixed(2), "16594.60");
  assertEquals(sum.stddev.toFixed(2), "211.84");
});

Deno.test("Histogram names the middle of a bucket", () => {
  const middles: [ns: number, middle: number][] = [
    [0, 0],
    [102, 102],
    [127, 127],
    [128, 129],
    [129, 129],
    [1168, 1176],
    [25600, 25728],
    [25855, 25728],
    [25856, 25984],
    [2 ** 31, 2164260864],
    [2 ** 32 - 1, 4278190080],
    [2 ** 32, 4328521728],
    [2 ** 34 - 1, 17112760320],
    [2 ** 35, 17112760320],
  ];
  for (const [ns, middle] of middles) {
    const histogram = new Histogram();
    histogram.add(ns);
    assertEquals(histogram.bins(), [[middle, 1]], String(ns));
  }
});

Deno.test("Histogram cuts each power of two into 64 buckets", () => {
  for (let power = 7; power < 34; power++) {
    const width = 2 ** (power - 6);
    const histogram = new Histogram();
    for (let i = 0; i < 64; i++) {
      histogram.add(2 ** power + i * width);
      histogram.add(2 ** power + (i + 1) * width - 1);
    }
    const middles = Array.from(
      { length: 64 },
      (_, i) => 2 ** power + i * width + width / 2,
    );
    assertEquals(histogram.bins(), middles.map((middle) => [middle, 2]));
  }
});

Deno.test("Histogram.percentiles() finds fio's from the bins of its json+", () => {
  const text = Deno.readTextFileSync(
    new URL("../data/fio/json/06-rated-poisson.out", import.meta.url),
  );
  const { jobs }: FioJson = JSON.parse(text);
  const latencies = jobs.flatMap((job) => [job.read!, job.write!])
    .map((direction) => direction.clat_ns).filter((latency) => latency.N > 0);
  assertEquals(latencies.length, 3);
  for (const { bins, percentile, N } of latencies) {
    const histogram = new Histogram();
    for (const [ns, n] of Object.entries(bins!)) histogram.add(Number(ns), n);

    const counts = histogram.bins();
    assertEquals(
      counts.map(([ns, n]) => [String(ns), n]),
      Object.entries(bins!),
    );
    assertEquals(counts.reduce((sum, [, n]) => sum + n, 0), N);
    assertEquals(
      histogram.percentiles(Object.keys(percentile!).map(Number)),
      Object.values(percentile!),
    );
  }
});

Deno.test("samplesAt() rounds shares as C's long double does", () => {
  // Answers of a C program; doubles differ in some by one.
  const needs: [percent: number, total: number, need: number][] = [
    [30, 50, 16],
    [30, 1000, 300],
    [60, 50, 31],
    [60, 1545, 928],
    [30, 90, 28],
    [90, 50, 45],
    [99.9, 1000, 1000],
    [99.99, 2048, 2048],
    [50, 3, 2],
    [1, 1, 1],
    [100, 7, 7],
  ];
  for (const [percent, total, need] of needs) {
    assertEquals(samplesAt(percent, total), need, `${percent} of ${total}`);
  }
});

Deno.test("Histogram.percentiles() answers none without samples", () => {
  assertEquals(new Histogram().percentiles([50, 99]), []);
});

Deno.test("JobStats reports percentiles in ascending order", () => {
  const stats = new JobStats({ ...OPTIONS, percentiles: [99, 5, 50] });

  assertEquals(stats.percentiles, [5, 50, 99]);
});

Deno.test("JobStats.addSample() counts, sums and sorts by direction", () => {
  const stats = new JobStats(OPTIONS);
  stats.addSample(DDIR_READ, 4096, 10, 200, 210, 1000);
  stats.addSample(DDIR_READ, 8192, 20, 400, 420, 2000);
  stats.addSample(DDIR_WRITE, 512, -1, 3000, 3000, 3000);

  const [read, write, trim] = stats.directions;
  assertEquals([read.bytes, read.ios], [12288, 2]);
  assertEquals([read.slat.tally.mean, read.clat.tally.mean], [15, 300]);
  assertEquals(read.lat.tally.max, 420);
  assertEquals(read.clat.histogram!.bins(), [[201, 1], [402, 1]]);
  assertEquals([write.bytes, write.ios, write.slat.tally.count], [512, 1, 0]);
  assertEquals(write.clat.tally.count, 1);
  assertEquals(trim.ios, 0);
  assertEquals(stats.totalIos, 3);
});

Deno.test("JobStats.addSample() puts completion latency into fio's tables", () => {
  // The first value of each bucket and the last of the one before it.
  const bucketOf = (ns: number) => {
    const stats = new JobStats(OPTIONS);
    stats.addSample(DDIR_READ, 1, 0, ns, 5 * ns, 0);
    return stats.latencies.indexOf(1);
  };
  const bounds = [2, 4, 10, 20, 50, 100, 250, 500, 750, 1000];
  const edges = [1, 1e3, 1e6].flatMap((unit) => bounds.map((b) => b * unit));
  edges.push(2e9);
  edges.forEach((edge, bucket) => {
    assertEquals(bucketOf(edge - 1), bucket, String(edge));
    assertEquals(bucketOf(edge), bucket + 1, String(edge));
  });
  assertEquals(bucketOf(0), 0);
  assertEquals(bucketOf(1e12), 31);
});

Deno.test("JobStats sorts depths by lower and batches by upper bounds", () => {
  const depths = [1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 300];
  const batches = [0, 1, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 300];
  const stats = new JobStats(OPTIONS);
  depths.forEach((depth) => stats.addDepth(depth));
  batches.forEach((n) => stats.addSubmit(n));
  batches.slice(1).forEach((n) => stats.addComplete(n));

  assertEquals([...stats.depths], [1, 2, 2, 2, 2, 2, 2]);
  assertEquals([...stats.submits], [1, 2, 2, 2, 2, 2, 2]);
  assertEquals([...stats.completes], [0, 2, 2, 2, 2, 2, 2]);
});

Deno.test("JobStats counts what went wrong without moving bytes", () => {
  const stats = new JobStats(OPTIONS);
  stats.start(0);
  stats.addFailed(DDIR_WRITE);
  stats.addShort(DDIR_WRITE);
  stats.addDrop(DDIR_TRIM);
  stats.finish(5 * MS);

  const [, write, trim] = stats.directions;
  assertEquals([write.ios, write.bytes, write.runtimeMs], [1, 0, 0]);
  assertEquals([write.shortIos, trim.dropIos], [1, 1]);
  assertEquals(write.bandwidth, 0);
});

Deno.test("JobStats.finish() gives a phase to directions that moved in it", () => {
  const stats = new JobStats(OPTIONS);
  stats.start(0);
  stats.addSample(DDIR_WRITE, 4096, 0, 10, 10, 10 * MS);
  stats.finish(20 * MS + 1000);
  stats.start(30 * MS);
  stats.addSample(DDIR_READ, 4096, 0, 10, 10, 31 * MS);
  stats.finish(32 * MS);

  const [read, write, trim] = stats.directions;
  assertEquals(
    [read.runtimeMs, write.runtimeMs, trim.runtimeMs],
    [2, 21, 0],
  );
});

Deno.test("JobStats.finish() never ends before the last I/O, nor after 0 ms", () => {
  const late = new JobStats(OPTIONS);
  late.start(0);
  late.addSample(DDIR_READ, 1, 0, 1, 1, 9 * MS);
  late.finish(5 * MS);
  assertEquals(late.directions[0].runtimeMs, 9);

  const instant = new JobStats(OPTIONS);
  instant.start(7);
  instant.addSample(DDIR_READ, 1, 0, 0, 0, 7);
  instant.finish(7);
  assertEquals(instant.directions[0].runtimeMs, 1);
});

Deno.test("JobStats.bwTick() samples rates of directions that moved", () => {
  const stats = new JobStats(OPTIONS);
  stats.start(1000 * MS);
  for (let i = 0; i < 127; i++) stats.addSample(DDIR_READ, 4096, 0, 1, 1, 0);
  stats.bwTick(1000 * MS);
  stats.bwTick(1499 * MS);
  for (let i = 0; i < 50; i++) stats.addSample(DDIR_WRITE, 8192, 0, 1, 1, 0);
  stats.bwTick(1999 * MS);

  const [read, write, trim] = stats.directions;
  // Real fio logged 1018 KiB/s and 254 IOPS for 127 blocks in 499 ms.
  assertEquals([read.bw.count, read.bw.max], [1, 1018]);
  assertEquals([read.iops.count, read.iops.max], [1, 254]);
  assertEquals([write.bw.max, write.iops.max], [800, 100]);
  assertEquals(trim.bw.count, 0);
});

Deno.test("JobStats.resetForRamp() forgets the ramp", () => {
  const stats = new JobStats(OPTIONS);
  stats.start(0);
  stats.addSample(DDIR_READ, 4096, 0, 1, 1, 0);
  stats.addSync(5);
  stats.addDepth(1);
  stats.bwTick(500 * MS);
  stats.resetForRamp(700 * MS);
  stats.addSample(DDIR_READ, 512, 0, 1, 1, 0);
  stats.finish(701 * MS);

  const [read] = stats.directions;
  assertEquals([read.bytes, read.ios, read.runtimeMs], [512, 1, 1]);
  assertEquals([read.bw.count, stats.sync.tally.count], [0, 0]);
  assertEquals(stats.depths[0], 0);
});

Deno.test("JobStats.merge() adds what ran side by side", () => {
  const jobs = [1, 2, 3].map((n) => {
    const stats = new JobStats(OPTIONS);
    stats.start(0);
    stats.addSample(DDIR_READ, 1024 * n, n, 10 * n, 11 * n, 0);
    stats.addSample(DDIR_TRIM, 100, n, 10, 10, 0);
    stats.addSync(n);
    stats.addDepth(n);
    stats.addSubmit(n);
    stats.addComplete(n);
    stats.finish(n * MS);
    return stats;
  });
  jobs[1]!.error = 28;
  jobs[2]!.error = 5;
  jobs[0]!.firstError = 84;
  jobs[2]!.firstError = 5;
  jobs[0]!.totalErr = 2;
  jobs[2]!.totalErr = 3;
  const group = new JobStats(OPTIONS);
  for (const job of jobs) group.merge(job);

  const [read, , trim] = group.directions;
  assertEquals([read.bytes, read.ios, read.runtimeMs], [6144, 3, 3]);
  assertEquals([read.clat.tally.mean, read.clat.tally.max], [20, 30]);
  assertEquals(read.clat.histogram!.bins(), [[10, 1], [20, 1], [30, 1]]);
  assertEquals([trim.bytes, trim.clat.tally.count], [300, 3]);
  assertEquals([group.sync.tally.count, group.sync.tally.mean], [3, 2]);
  assertEquals([...group.depths].slice(0, 3), [1, 2, 0]);
  assertEquals([group.submits[1], group.completes[1]], [3, 3]);
  assertEquals(group.latencies.reduce((sum, n) => sum + n), 6);
  assertEquals([group.error, group.firstError, group.totalErr], [28, 84, 5]);
});

Deno.test("JobStats.reported() makes one direction of all when mixed", () => {
  const mixed = new JobStats({ ...OPTIONS, unifiedRw: 1 });
  mixed.start(0);
  mixed.addSample(DDIR_READ, 1000, 1, 10, 11, 0);
  mixed.addSample(DDIR_WRITE, 2000, 1, 20, 21, 0);
  mixed.addSample(DDIR_TRIM, 3000, 1, 30, 31, 0);
  mixed.bwTick(1 * MS);
  mixed.finish(2 * MS);

  const [all, write, trim] = mixed.reported().directions;
  assertEquals([all.bytes, all.ios, all.runtimeMs], [6000, 3, 2]);
  assertEquals([all.clat.tally.mean, all.iops.count], [20, 3]);
  assertEquals(all.iops.mean, 3000);
  assertEquals([write.ios, trim.ios], [0, 0]);
  assertEquals(mixed.totalIos, mixed.reported().totalIos);

  const plain = new JobStats(OPTIONS);
  assertEquals(plain.reported() === plain, true);
});

Deno.test("groupTotals() spans the slowest and fastest of the jobs that ran", () => {
  const [a, b, idle] = [[1e6, 4], [3e6, 2], [0, 0]].map(
    ([bytes, runtimeMs]) => {
      const [read] = new JobStats(OPTIONS).directions;
      return Object.assign(read, { bytes, runtimeMs });
    },
  );

  assertEquals(groupTotals([a!, b!, idle!]), {
    bytes: 4e6,
    bandwidth: 1e9,
    minBandwidth: 25e7,
    maxBandwidth: 15e8,
    minRunMs: 2,
    maxRunMs: 4,
  });
  assertEquals(groupTotals([idle!]).maxRunMs, 0);
});

Deno.test("perSecond() is exact beyond the safe integers", () => {
  assertEquals(perSecond(2349065314758278, 1624), 1446468789875786);
  assertEquals(perSecond(8388608, 19), 441505684);
  assertEquals(perSecond(1, 0), 0);
});

Deno.test("shareOfGroup() cuts the mean and never passes 100 %", () => {
  // `per=0.41%` for avg=21.67 in a group of 5253kB/s, as fio printed it.
  assertEquals(shareOfGroup(21.67, 5253000).toFixed(2), "0.41");
  assertEquals(shareOfGroup(9000, 1024 * 1024), 100);
  assertEquals(shareOfGroup(0, 1024), 100);
});
