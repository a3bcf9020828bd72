/**
 * What a fio job measures while it runs: latencies, rates and queue depths.
 *
 * Percentiles come from a histogram with 64 buckets per power of two and name a
 * bucket's middle, so they are rounded on purpose; `min`, `max`, mean and
 * deviation are exact. `addSample` runs once an I/O and allocates nothing.
 *
 * Source: fio 3.33's output, workloads.md chapter 2.
 *
 * @module
 */

/** Read, as an index of {@linkcode JobStats.directions}. */
export const DDIR_READ = 0;
/** Write, as an index of {@linkcode JobStats.directions}. */
export const DDIR_WRITE = 1;
/** Trim, as an index of {@linkcode JobStats.directions}. */
export const DDIR_TRIM = 2;
/** One of `DDIR_READ`, `DDIR_WRITE` and `DDIR_TRIM`. */
export type Ddir = typeof DDIR_READ | typeof DDIR_WRITE | typeof DDIR_TRIM;

const COUNT = 0;
const MIN = 1;
const MAX = 2;
const MEAN = 3;
/** Sum of the squared distances from the mean. */
const SQUARES = 4;

/** Count, extremes, mean and deviation of a stream of values, kept running. */
export class Tally {
  // One typed row: fields that hold doubles would be boxed at each update.
  readonly #row = new Float64Array(5);

  /** How many values were added. */
  get count(): number {
    return this.#row[COUNT]!;
  }
  /** Smallest value; 0 without values. */
  get min(): number {
    return this.#row[MIN]!;
  }
  /** Largest value; 0 without values. */
  get max(): number {
    return this.#row[MAX]!;
  }
  /** Arithmetic mean; 0 without values. */
  get mean(): number {
    return this.#row[MEAN]!;
  }
  /** Sample standard deviation; 0 with fewer than two values. */
  get stddev(): number {
    const count = this.#row[COUNT]!;
    return count > 1 ? Math.sqrt(this.#row[SQUARES]! / (count - 1)) : 0;
  }

  /** A tally as it would stand after values with these properties. */
  static of(
    count: number,
    min: number,
    max: number,
    mean: number,
    stddev: number,
  ): Tally {
    const tally = new Tally();
    tally.#row.set([count, min, max, mean, stddev * stddev * (count - 1)]);
    return tally;
  }

  /** Adds one value (Welford's running mean and variance). */
  add(value: number): void {
    const row = this.#row;
    const count = row[COUNT]! + 1;
    row[COUNT] = count;
    if (value < row[MIN]! || count === 1) row[MIN] = value;
    if (value > row[MAX]!) row[MAX] = value;
    const delta = value - row[MEAN]!;
    const mean = row[MEAN]! + delta / count;
    row[MEAN] = mean;
    row[SQUARES]! += delta * (value - mean);
  }

  /** Takes in another's values, as if all had been added here. */
  merge(other: Tally): void {
    if (other.count === 0) return;
    if (this.count === 0) return this.#row.set(other.#row);
    const a = this.#row;
    const b = other.#row;
    const count = a[COUNT]! + b[COUNT]!;
    const delta = b[MEAN]! - a[MEAN]!;
    a[SQUARES]! += b[SQUARES]! + delta * delta * a[COUNT]! * b[COUNT]! / count;
    a[MEAN] = (a[MEAN]! * a[COUNT]! + b[MEAN]! * b[COUNT]!) / count;
    a[MIN] = Math.min(a[MIN]!, b[MIN]!);
    a[MAX] = Math.max(a[MAX]!, b[MAX]!);
    a[COUNT] = count;
  }

  /**
   * Adds up rates that were sampled side by side: the bandwidth of two jobs
   * together is the sum of both, not their mean, so every figure is summed.
   */
  addUp(other: Tally): void {
    for (let i = 0; i < this.#row.length; i++) this.#row[i]! += other.#row[i]!;
  }
}

const BUCKET_BITS = 6;
const BUCKETS_PER_GROUP = 1 << BUCKET_BITS;
const BUCKETS = 29 * BUCKETS_PER_GROUP;

/**
 * The histogram bucket that counts `ns`. Up to 127 each value has its own; above,
 * each power of two is cut into 64.
 */
function bucketOf(ns: number): number {
  if (ns < 2 * BUCKETS_PER_GROUP) return ns;
  if (ns < 2 ** 32) {
    const shift = 31 - BUCKET_BITS - Math.clz32(ns);
    return (shift << BUCKET_BITS) + (ns >>> shift);
  }
  const shift = 63 - BUCKET_BITS - Math.clz32(Math.floor(ns / 2 ** 32));
  const bucket = (shift << BUCKET_BITS) + Math.floor(ns / 2 ** shift);
  return Math.min(bucket, BUCKETS - 1);
}

/** The value that stands for a bucket: its middle, in ns. */
function bucketMiddle(bucket: number): number {
  if (bucket < 2 * BUCKETS_PER_GROUP) return bucket;
  const shift = (bucket >> BUCKET_BITS) - 1;
  const mantissa = BUCKETS_PER_GROUP + bucket % BUCKETS_PER_GROUP;
  return Math.floor((mantissa + 0.5) * 2 ** shift);
}

/** Latencies by size, for percentiles. */
export class Histogram {
  readonly #counts = new Float64Array(BUCKETS);

  /**
   * Counts a latency.
   *
   * @param ns Nanoseconds, a whole number.
   * @param times How often it was met.
   */
  add(ns: number, times = 1): void {
    this.#counts[bucketOf(ns)]! += times;
  }

  /** Takes in another's counts. */
  merge(other: Histogram): void {
    for (let i = 0; i < BUCKETS; i++) this.#counts[i]! += other.#counts[i]!;
  }

  /** Buckets that are not empty, as middle in ns and count, ascending. */
  bins(): [middle: number, count: number][] {
    const bins: [number, number][] = [];
    for (let i = 0; i < BUCKETS; i++) {
      if (this.#counts[i]! > 0) bins.push([bucketMiddle(i), this.#counts[i]!]);
    }
    return bins;
  }

  /**
   * Latencies that the given shares of all samples do not exceed.
   *
   * @param list Percentages above 0 up to 100, ascending.
   * @returns Middles of buckets in ns, one for each of `list`; none when empty.
   */
  percentiles(list: readonly number[]): number[] {
    const bins = this.bins();
    const total = bins.reduce((sum, [, count]) => sum + count, 0);
    const values: number[] = [];
    let sum = 0;
    for (const [middle, count] of bins) {
      sum += count;
      while (
        values.length < list.length &&
        sum >= samplesAt(list[values.length]!, total)
      ) values.push(middle);
    }
    return values;
  }
}

/**
 * How many of `total` samples make `percent` of them. fio compares in C's long
 * double, and where the share is nearly whole its rounding decides by one sample.
 *
 * @param percent Above 0 up to 100.
 * @param total A whole number.
 */
export function samplesAt(percent: number, total: number): number {
  const [share, shareUnit] = roundTo64Bits(...fraction(percent, 100n));
  const [need, unit] = roundTo64Bits(share * BigInt(total), shareUnit);
  return Number((need + unit - 1n) / unit);
}

/** `value / divisor` exactly, as numerator and denominator. */
function fraction(value: number, divisor: bigint): [bigint, bigint] {
  let denominator = divisor;
  while (!Number.isInteger(value)) {
    value *= 2;
    denominator *= 2n;
  }
  return [BigInt(value), denominator];
}

/** A fraction below 2^60, rounded half to even to 64 significant bits. */
function roundTo64Bits(num: bigint, den: bigint): [bigint, bigint] {
  const bits = (n: bigint) => n.toString(2).length;
  let shift = BigInt(64 + bits(den) - bits(num));
  if ((num << shift) / den >= 1n << 64n) shift -= 1n;
  const quotient = (num << shift) / den;
  const twice = 2n * ((num << shift) % den);
  const up = twice > den || (twice === den && (quotient & 1n) === 1n);
  return [up ? quotient + 1n : quotient, 1n << shift];
}

/** Latencies of one kind: figures, and a histogram where percentiles are asked. */
export class Latency {
  /** Count, extremes, mean and deviation in ns. */
  readonly tally: Tally = new Tally();
  /** Absent where no percentiles of this kind are reported. */
  readonly histogram: Histogram | null;

  /**
   * Starts empty.
   *
   * @param percentiles Keep a histogram.
   */
  constructor(percentiles: boolean) {
    this.histogram = percentiles ? new Histogram() : null;
  }

  /** Adds one latency in whole ns. */
  add(ns: number): void {
    this.tally.add(ns);
    if (this.histogram !== null) this.histogram.add(ns);
  }

  /** Takes in another's samples. */
  merge(other: Latency): void {
    this.tally.merge(other.tally);
    if (this.histogram !== null && other.histogram !== null) {
      this.histogram.merge(other.histogram);
    }
  }
}

/** What a job is to keep and how it is to be shown. */
export interface JobStatsOptions {
  /** Percentages to report, above 0 up to 100. */
  percentiles: number[];
  /** Report percentiles of completion latency (issue to completion). */
  clatPercentiles: boolean;
  /** Report percentiles of submission latency (start to issue). */
  slatPercentiles: boolean;
  /** Report percentiles of total latency (start to completion). */
  latPercentiles: boolean;
  /** fio's `unified_rw_reporting`: 0 none, 1 all directions as one, 2 both. */
  unifiedRw: 0 | 1 | 2;
  /**
   * Most decimals in the text of `percentile_list`; without it, those that the
   * numbers need. The default list has 2.
   */
  percentilePrecision?: number;
}

/** One direction (read, write or trim) of a job. */
export class DirectionStats {
  /** Bytes moved. */
  bytes = 0;
  /** I/Os issued. */
  ios = 0;
  /** I/Os that moved less than asked. */
  shortIos = 0;
  /** I/Os that were dropped. */
  dropIos = 0;
  /** Time in which this direction moved bytes, in whole ms; 0 if it moved none. */
  runtimeMs = 0;
  /** Submission latency; empty for synchronous engines. */
  readonly slat: Latency;
  /** Completion latency. */
  readonly clat: Latency;
  /** Total latency. */
  readonly lat: Latency;
  /** Bandwidth samples in KiB/s. */
  readonly bw: Tally = new Tally();
  /** Samples of I/Os per second. */
  readonly iops: Tally = new Tally();

  #tickBytes = 0;
  #tickIos = 0;
  #phaseBytes = 0;
  #elapsedUs = 0;

  /**
   * Starts empty.
   *
   * @param options Which percentiles to keep.
   */
  constructor(options: JobStatsOptions) {
    this.slat = new Latency(options.slatPercentiles);
    this.clat = new Latency(options.clatPercentiles);
    this.lat = new Latency(options.latPercentiles);
  }

  /** Bytes per second over the runtime, rounded down. */
  get bandwidth(): number {
    return perSecond(this.bytes, this.runtimeMs);
  }

  /** Takes one sample of both rates over the `spentMs` since the last. */
  tick(spentMs: number): void {
    const bytes = this.bytes - this.#tickBytes;
    const ios = this.ios - this.#tickIos;
    this.#tickBytes = this.bytes;
    this.#tickIos = this.ios;
    // fio leaves intervals out in which nothing moved.
    if (bytes > 0) this.bw.add(Math.floor(bytes * 1000 / spentMs / 1024));
    if (ios > 0) this.iops.add(Math.floor(ios * 1000 / spentMs));
  }

  /** Ends a phase of `us`: it counts if this direction moved bytes in it. */
  endPhase(us: number): void {
    if (this.bytes === this.#phaseBytes) return;
    this.#phaseBytes = this.bytes;
    this.#elapsedUs += us;
    // On the virtual clock a whole run may take no time; fio never reports 0.
    this.runtimeMs = Math.max(1, Math.ceil(this.#elapsedUs / 1000));
  }

  /** Takes in another's I/Os; both ran side by side. */
  merge(other: DirectionStats): void {
    this.bytes += other.bytes;
    this.ios += other.ios;
    this.shortIos += other.shortIos;
    this.dropIos += other.dropIos;
    this.runtimeMs = Math.max(this.runtimeMs, other.runtimeMs);
    this.slat.merge(other.slat);
    this.clat.merge(other.clat);
    this.lat.merge(other.lat);
    this.bw.addUp(other.bw);
    this.iops.addUp(other.iops);
  }
}

/** `amount` in `ms`, per second and rounded down; 0 when no time passed. */
export function perSecond(amount: number, ms: number): number {
  // A petabyte times 1000 is no longer a safe integer.
  return ms === 0 ? 0 : Number(BigInt(amount) * 1000n / BigInt(ms));
}

/** Upper bounds of the latency tables; a bucket ends below its bound. */
const LATENCY_BOUNDS = [2, 4, 10, 20, 50, 100, 250, 500, 750, 1000];
/** Bucket of each whole latency below 1000, in any unit. */
const LATENCY_BUCKET = Uint8Array.from(
  { length: 1000 },
  (_, value) => LATENCY_BOUNDS.findIndex((bound) => value < bound),
);
const LATENCY_US = LATENCY_BOUNDS.length;
const LATENCY_MS = 2 * LATENCY_BOUNDS.length;
const LATENCY_SECONDS = 3 * LATENCY_BOUNDS.length;

/** Index into the three latency tables, which lie one behind the other. */
function latencyBucket(ns: number): number {
  if (ns < 1e3) return LATENCY_BUCKET[ns]!;
  if (ns < 1e6) return LATENCY_US + LATENCY_BUCKET[(ns / 1e3) | 0]!;
  if (ns < 1e9) return LATENCY_MS + LATENCY_BUCKET[(ns / 1e6) | 0]!;
  return LATENCY_SECONDS + (ns < 2e9 ? 0 : 1);
}

/** Bucket of a queue depth: 1, 2-3, 4-7, 8-15, 16-31, 32-63, 64 and more. */
function depthBucket(depth: number): number {
  return Math.min(6, 31 - Math.clz32(depth));
}

/** Bucket of a batch size: 0, 1-4, 5-8, 9-16, 17-32, 33-64, 65 and more. */
function batchBucket(n: number): number {
  return n === 0 ? 0 : Math.min(6, Math.max(1, 31 - Math.clz32(n - 1)));
}

/** All that one job measures; times are whole ns. */
export class JobStats {
  /** What is kept and how it is shown. */
  readonly options: JobStatsOptions;
  /** Percentages to report, ascending. */
  readonly percentiles: readonly number[];
  /** Read, write and trim. */
  directions!: [DirectionStats, DirectionStats, DirectionStats];
  /** Latency of fsync and its kin. */
  sync!: Latency;
  /** I/Os issued at depth 1, 2-3, 4-7, 8-15, 16-31, 32-63, 64 and more. */
  depths!: Float64Array;
  /** Submissions of 0, 1-4, 5-8, 9-16, 17-32, 33-64, 65 and more I/Os. */
  submits!: Float64Array;
  /** Reaps of completions, in the buckets of `submits`. */
  completes!: Float64Array;
  /**
   * I/Os by completion latency: 10 buckets of ns, 10 of us, 12 of ms. They end
   * below 2 4 10 20 50 100 250 500 750 1000, then 2000 and above.
   */
  latencies!: Float64Array;
  /** errno that ended the job; 0 if fine. */
  error = 0;
  /** errno of the first failed I/O that the job went on after. */
  firstError = 0;
  /** Failed I/Os that the job went on after. */
  totalErr = 0;

  #startNs = 0;
  #tickNs = 0;
  readonly #lastIoNs = new Float64Array(1);

  /**
   * Starts empty.
   *
   * @param options What to keep.
   */
  constructor(options: JobStatsOptions) {
    this.options = options;
    this.percentiles = options.percentiles.toSorted((a, b) => a - b);
    this.#clear();
  }

  #clear(): void {
    const direction = () => new DirectionStats(this.options);
    this.directions = [direction(), direction(), direction()];
    this.sync = new Latency(true);
    this.depths = new Float64Array(7);
    this.submits = new Float64Array(7);
    this.completes = new Float64Array(7);
    this.latencies = new Float64Array(LATENCY_SECONDS + 2);
  }

  /** I/Os issued in all directions, without syncs. */
  get totalIos(): number {
    return this.directions.reduce((sum, direction) => sum + direction.ios, 0);
  }

  /**
   * Counts a finished I/O.
   *
   * @param ddir Its direction.
   * @param bytes Bytes moved.
   * @param slat From start to issue; negative if the engine has no such step.
   * @param clat From issue to completion.
   * @param lat From start to completion.
   * @param nowNs When it finished.
   */
  addSample(
    ddir: Ddir,
    bytes: number,
    slat: number,
    clat: number,
    lat: number,
    nowNs: number,
  ): void {
    const direction = this.directions[ddir];
    direction.bytes += bytes;
    direction.ios += 1;
    if (slat >= 0) direction.slat.add(slat);
    direction.clat.add(clat);
    direction.lat.add(lat);
    this.latencies[latencyBucket(clat)]! += 1;
    this.#lastIoNs[0] = nowNs;
  }

  /** Counts an I/O that was issued and failed. */
  addFailed(ddir: Ddir): void {
    this.directions[ddir].ios += 1;
  }

  /** Counts a sync that took `latNs`. */
  addSync(latNs: number): void {
    this.sync.add(latNs);
  }

  /** Counts an I/O issued as the `depth`-th in flight, 1 or more. */
  addDepth(depth: number): void {
    this.depths[depthBucket(depth)]! += 1;
  }

  /** Counts a submission of `n` I/Os. */
  addSubmit(n: number): void {
    this.submits[batchBucket(n)]! += 1;
  }

  /** Counts a reap of `n` completions. */
  addComplete(n: number): void {
    this.completes[batchBucket(n)]! += 1;
  }

  /** Counts an I/O that moved less than asked. */
  addShort(ddir: Ddir): void {
    this.directions[ddir].shortIos += 1;
  }

  /** Counts an I/O that was dropped. */
  addDrop(ddir: Ddir): void {
    this.directions[ddir].dropIos += 1;
  }

  /** Samples bandwidth and IOPS since the last call; due each 500 ms of a run. */
  bwTick(nowNs: number): void {
    const spentMs = Math.floor((nowNs - this.#tickNs) / 1e6);
    if (spentMs === 0) return;
    this.#tickNs = nowNs;
    for (const direction of this.directions) direction.tick(spentMs);
  }

  /** Begins a phase of I/O. */
  start(nowNs: number): void {
    this.#startNs = nowNs;
    this.#tickNs = nowNs;
  }

  /** Ends a phase of I/O: directions that moved bytes in it ran that long. */
  finish(nowNs: number): void {
    // A loop that stops early may have I/Os that finish after its last look.
    const endNs = Math.max(nowNs, this.#lastIoNs[0]!);
    const us = Math.floor((endNs - this.#startNs) / 1000);
    for (const direction of this.directions) direction.endPhase(us);
  }

  /** Forgets all of the ramp time and begins the phase that counts. */
  resetForRamp(nowNs: number): void {
    this.#clear();
    this.start(nowNs);
  }

  /** Takes in a job of the same group (`group_reporting`). */
  merge(other: JobStats): void {
    other.directions.forEach((from, ddir) =>
      this.directions[ddir]!.merge(from)
    );
    this.#mergeShared(other);
  }

  /**
   * What to report: this, or under `unified_rw_reporting=mixed` all directions
   * as one.
   */
  reported(): JobStats {
    return this.options.unifiedRw === 1 ? this.unified() : this;
  }

  /** A copy in which all directions are one, under `DDIR_READ`. */
  unified(): JobStats {
    const copy = new JobStats(this.options);
    for (const direction of this.directions) {
      copy.directions[0].merge(direction);
    }
    copy.#mergeShared(this);
    return copy;
  }

  #mergeShared(other: JobStats): void {
    this.sync.merge(other.sync);
    addEach(this.depths, other.depths);
    addEach(this.submits, other.submits);
    addEach(this.completes, other.completes);
    addEach(this.latencies, other.latencies);
    this.error ||= other.error;
    this.firstError ||= other.firstError;
    this.totalErr += other.totalErr;
  }
}

function addEach(into: Float64Array, from: Float64Array): void {
  for (let i = 0; i < into.length; i++) into[i]! += from[i]!;
}

/**
 * Shares of a total in percent. What was met at all is never shown as nothing.
 *
 * @param counts How often each bucket was met.
 * @param total What 100 % is.
 * @param least Smallest share to show for a bucket that was met.
 */
export function shares(
  counts: Float64Array,
  total: number,
  least: number,
): number[] {
  return Array.from(counts, (count) => {
    if (count === 0 || total === 0) return 0;
    return Math.max(least, count / total * 100);
  });
}

/** One direction of a reporting group. */
export interface GroupTotals {
  /** Bytes moved by all jobs. */
  bytes: number;
  /** Bytes per second of all jobs over the longest runtime. */
  bandwidth: number;
  /** Bytes per second of the slowest job. */
  minBandwidth: number;
  /** Bytes per second of the fastest job. */
  maxBandwidth: number;
  /** Shortest runtime in ms. */
  minRunMs: number;
  /** Longest runtime in ms; 0 if nothing moved in this direction. */
  maxRunMs: number;
}

/**
 * Adds up one direction over the jobs of a reporting group.
 *
 * @param jobs That direction of each job; those that moved nothing are left out.
 */
export function groupTotals(jobs: DirectionStats[]): GroupTotals {
  const ran = jobs.filter((job) => job.runtimeMs > 0);
  const bytes = ran.reduce((sum, job) => sum + job.bytes, 0);
  const bandwidths = ran.map((job) => job.bandwidth);
  const runs = ran.map((job) => job.runtimeMs);
  const maxRunMs = Math.max(0, ...runs);
  return {
    bytes,
    bandwidth: perSecond(bytes, maxRunMs),
    minBandwidth: Math.min(...bandwidths),
    maxBandwidth: Math.max(...bandwidths),
    minRunMs: Math.min(...runs),
    maxRunMs,
  };
}

/**
 * A job's mean sampled bandwidth as a share of its group's, in percent.
 *
 * @param meanKiB Mean of the job's samples in KiB/s.
 * @param bandwidth The group's bytes per second.
 */
export function shareOfGroup(meanKiB: number, bandwidth: number): number {
  // Below 1 KiB/s the samples are too coarse to compare.
  if (bandwidth <= 1024) return 100;
  return Math.min(100, Math.floor(meanKiB) * 100 / (bandwidth / 1024));
}
