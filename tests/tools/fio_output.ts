/**
 * Reads what the real fio printed back into the statistics it came from, so that
 * tests can hold our report of the same numbers against it.
 *
 * What JSON does not hold is filled with something that prints the same: samples
 * between two percentiles lie on the upper one, and shares become counts.
 *
 * @module
 */

import { fixed } from "../../tools/fio/num2str.ts";
import {
  BATCH_KEYS,
  DEPTH_KEYS,
  LATENCY_KEYS,
  LATENCY_MS_KEYS,
  type ReportHeaderLine,
  type ReportJob,
  type RunReport,
} from "../../tools/fio/report.ts";
import {
  type DirectionStats,
  Histogram,
  JobStats,
  type JobStatsOptions,
  type Latency,
  samplesAt,
  Tally,
} from "../../tools/fio/stat.ts";

/** fio's default `percentile_list`. */
export const DEFAULT_PERCENTILES: number[] = //
  [1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.5, 99.9, 99.95, 99.99];

/** `slat_ns` and the like. */
export interface FioLatency {
  min: number;
  max: number;
  mean: number;
  stddev: number;
  N: number;
  percentile?: Record<string, number>;
  bins?: Record<string, number>;
}

/** `read`, `write`, `trim` or `mixed`. */
export interface FioDirection {
  io_bytes: number;
  runtime: number;
  total_ios: number;
  short_ios: number;
  drop_ios: number;
  slat_ns: FioLatency;
  clat_ns: FioLatency;
  lat_ns: FioLatency;
  bw_min: number;
  bw_max: number;
  bw_mean: number;
  bw_dev: number;
  bw_samples: number;
  iops_min: number;
  iops_max: number;
  iops_mean: number;
  iops_stddev: number;
  iops_samples: number;
}

type Shares = Record<string, number>;

/** One of `jobs`. */
export interface FioJob {
  jobname: string;
  groupid: number;
  error: number;
  elapsed: number;
  "job options"?: Record<string, string>;
  read?: FioDirection;
  write?: FioDirection;
  trim?: FioDirection;
  mixed?: FioDirection;
  sync?: { total_ios: number; lat_ns: FioLatency };
  job_runtime: number;
  usr_cpu: number;
  sys_cpu: number;
  ctx: number;
  majf: number;
  minf: number;
  iodepth_level: Shares;
  iodepth_submit: Shares;
  iodepth_complete: Shares;
  latency_ns: Shares;
  latency_us: Shares;
  latency_ms: Shares;
  total_err?: number;
  first_error?: number;
  latency_depth: number;
  desc?: string;
}

/** fio's JSON report. */
export interface FioJson {
  timestamp_ms: number;
  time: string;
  "global options"?: Record<string, string>;
  jobs: FioJob[];
  disk_util?: {
    name: string;
    read_ios: number;
    write_ios: number;
    read_merges: number;
    write_merges: number;
    read_ticks: number;
    write_ticks: number;
    in_queue: number;
    util: number;
  }[];
}

/** Standard output of fio, cut in three. */
export interface FioOutput {
  /** Lines before the run. */
  header: string;
  /** The JSON report. */
  json: string;
  /** The text report, from its blank line on. */
  report: string;
}

/** Cuts the output of a run with `--output-format=normal,json`. */
export function cutOutput(output: string): FioOutput {
  const start = output.indexOf("{\n");
  const end = output.indexOf("\n}\n", start) + 3;
  return {
    header: output.slice(0, start),
    json: output.slice(start, end),
    report: output.slice(end),
  };
}

/**
 * The numbers behind a JSON report.
 *
 * @param jsonText The JSON.
 * @param report The text report of the same run: it alone has the process ids.
 */
export function runFromFio(jsonText: string, report = ""): RunReport {
  const json: FioJson = JSON.parse(jsonText);
  const lines = [...report.matchAll(
    /^.*: \(groupid=\d+, jobs=(\d+)\): err= ?\d+(?: \((.*)\))?: pid=(\d+): (.*)$/gm,
  )];
  return {
    version: "fio-3.33",
    timestampMs: json.timestamp_ms,
    timeText: json.time,
    globalOptions: Object.entries(json["global options"] ?? {}),
    jobs: json.jobs.map((job, i) => jobFromFio(job, lines[i] ?? [])),
    disks: (json.disk_util ?? []).map((disk) => ({
      name: disk.name,
      readIos: disk.read_ios,
      writeIos: disk.write_ios,
      readMerges: disk.read_merges,
      writeMerges: disk.write_merges,
      readTicksMs: disk.read_ticks,
      writeTicksMs: disk.write_ticks,
      inQueueMs: disk.in_queue,
      utilPercent: disk.util,
    })),
  };
}

function jobFromFio(
  job: FioJob,
  [, clones = "1", errorText = "", pid = "0", ctime = ""]: string[],
): ReportJob {
  return {
    name: job.jobname,
    groupid: job.groupid,
    clones: Number(clones),
    pid: Number(pid),
    ctime,
    ...(job.desc === undefined ? {} : { description: job.desc }),
    options: Object.entries(job["job options"] ?? {}),
    headerLine: { // Not part of a report.
      rw: "read",
      bsR: [0, 0],
      bsW: [0, 0],
      bsT: [0, 0],
      ioengine: "psync",
      iodepth: 1,
    },
    stats: statsFromFio(job),
    usrCpu: job.usr_cpu,
    sysCpu: job.sys_cpu,
    ctx: job.ctx,
    majf: job.majf,
    minf: job.minf,
    elapsedSec: job.elapsed,
    jobRuntimeMs: job.job_runtime,
    latencyDepth: job.latency_depth,
    latencyTarget: 0,
    latencyWindow: 0,
    latencyPercentile: 100,
    errorText,
  };
}

/** The statistics behind one job of a JSON report. */
export function statsFromFio(job: FioJob): JobStats {
  const stats = new JobStats(optionsFromFio(job));
  const { mixed } = job;
  const directions = job.read ? [job.read, job.write, job.trim] : [mixed];
  directions.forEach((from, ddir) => {
    if (from) fillDirection(stats.directions[ddir]!, from);
  });
  const listed = stats.percentiles;
  if (job.sync) fillLatency(stats.sync, job.sync.lat_ns, listed);
  const ios = stats.totalIos;
  stats.depths.set(countsOf(DEPTH_KEYS, job.iodepth_level, ios, 0.1));
  stats.submits.set(batchesOf(job.iodepth_submit));
  stats.completes.set(batchesOf(job.iodepth_complete));
  stats.latencies.set([
    ...countsOf(LATENCY_KEYS, job.latency_ns, ios, 0.01),
    ...countsOf(LATENCY_KEYS, job.latency_us, ios, 0.01),
    ...countsOf(LATENCY_MS_KEYS, job.latency_ms, ios, 0.01),
  ]);
  stats.error = job.error;
  stats.totalErr = job.total_err ?? 0;
  stats.firstError = job.first_error ?? 0;
  return stats;
}

function optionsFromFio(job: FioJob): JobStatsOptions {
  const directions = [job.read, job.write, job.trim, job.mixed]
    .filter((direction) => direction !== undefined);
  const has = (kind: "slat_ns" | "clat_ns" | "lat_ns") =>
    directions.some((direction) => direction[kind].percentile !== undefined);
  const text = job["job options"]?.percentile_list;
  const list = text?.split(":") ?? [];
  return {
    percentiles: text ? list.map(Number) : DEFAULT_PERCENTILES,
    slatPercentiles: has("slat_ns"),
    clatPercentiles: has("clat_ns"),
    latPercentiles: has("lat_ns"),
    unifiedRw: job.mixed === undefined ? 0 : job.read === undefined ? 1 : 2,
    ...(text && {
      percentilePrecision: Math.max(
        ...list.map((item) => item.split(".")[1]?.length ?? 0),
      ),
    }),
  };
}

function fillDirection(direction: DirectionStats, from: FioDirection): void {
  direction.bytes = from.io_bytes;
  direction.ios = from.total_ios;
  direction.shortIos = from.short_ios;
  direction.dropIos = from.drop_ios;
  direction.runtimeMs = from.runtime;
  fillLatency(direction.slat, from.slat_ns);
  fillLatency(direction.clat, from.clat_ns);
  fillLatency(direction.lat, from.lat_ns);
  direction.bw.merge(
    Tally.of(
      from.bw_samples,
      from.bw_min,
      from.bw_max,
      from.bw_mean,
      from.bw_dev,
    ),
  );
  direction.iops.merge(
    Tally.of(
      from.iops_samples,
      from.iops_min,
      from.iops_max,
      from.iops_mean,
      from.iops_stddev,
    ),
  );
}

function fillLatency(
  latency: Latency,
  from: FioLatency,
  listed: readonly number[] = [],
): void {
  const { N, min, max, mean, stddev } = from;
  latency.tally.merge(Tally.of(N, min, max, mean, stddev));
  if (N === 0) return;
  if (from.bins !== undefined) {
    for (const [ns, n] of Object.entries(from.bins)) {
      latency.histogram!.add(Number(ns), n);
    }
  } else if (from.percentile !== undefined) {
    latency.histogram!.merge(histogramOf(from.percentile, N));
  } else if (listed.length > 0) {
    throw new Error("sync latencies without percentiles: " + N);
  }
}

/** A histogram of `total` samples with these percentiles. */
function histogramOf(
  percentiles: Record<string, number>,
  total: number,
): Histogram {
  const histogram = new Histogram();
  let done = 0;
  let last = 0;
  for (const [percent, ns] of Object.entries(percentiles)) {
    const need = samplesAt(Number(percent), total);
    histogram.add(ns, need - done);
    done = need;
    last = ns;
  }
  histogram.add(last, total - done);
  return histogram;
}

/** Counts whose shares of `total` print as these do; null if there are none. */
function countsFor(
  shares: number[],
  total: number,
  least: number,
): number[] | null {
  const print = (n: number) => fixed(Math.max(least, n / total * 100), 6);
  const counts = shares.map((share) => {
    if (share === 0) return 0;
    const count = Math.round(share / 100 * total);
    // A share that was raised to the least one says only that it was met.
    return [1, count].find((n) => print(n) === fixed(share, 6)) ?? NaN;
  });
  return counts.some(Number.isNaN) ? null : counts;
}

function countsOf(
  keys: readonly string[],
  shares: Shares,
  total: number,
  least: number,
): number[] {
  const counts = countsFor(keys.map((key) => shares[key]!), total, least);
  if (counts === null) throw new Error(`no counts of ${total} for ${shares}`);
  return counts;
}

/** Like {@linkcode countsOf} where JSON does not say what the total was. */
function batchesOf(shares: Shares): number[] {
  const list = BATCH_KEYS.map((key) => shares[key]!);
  if (list.every((share) => share === 0)) return list;
  for (let total = 1; total < 100_000; total++) {
    const counts = countsFor(list, total, 0.1);
    if (counts?.reduce((sum, n) => sum + n) === total) return counts;
  }
  throw new Error(`no total for ${JSON.stringify(shares)}`);
}

/** Bytes from fio's `4096B` or `16.0KiB`. */
function bytesOf(text: string): number {
  const [, number, prefix] = text.match(/^([\d.]+)([KMG]?)i?B$/)!;
  return Number(number) * 1024 ** ["", "K", "M", "G"].indexOf(prefix!);
}

/** What `jobHeaderLines` takes, from the lines that it is to print. */
export function headersFromFio(header: string): {
  name: string;
  groupid: number;
  clones: number;
  headerLine: ReportHeaderLine;
}[] {
  const range = (text: string): [number, number] => {
    const [min, max] = text.split("-");
    return [bytesOf(min!), bytesOf(max!)];
  };
  return [...header.matchAll(
    /^(.*): \(g=(\d+)\): rw=(\w+), bs=\(R\) (\S+), \(W\) (\S+), \(T\) (\S+), ioengine=(\w+), iodepth=(\d+)\n(\.\.\.)?/gm,
  )].map(([, name, group, rw, bsR, bsW, bsT, ioengine, depth, more]) => ({
    name: name!,
    groupid: Number(group),
    clones: more ? 2 : 1,
    headerLine: {
      rw: rw!,
      bsR: range(bsR!),
      bsW: range(bsW!),
      bsT: range(bsT!),
      ioengine: ioengine!,
      iodepth: Number(depth),
    },
  }));
}
