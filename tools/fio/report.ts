/**
 * fio's terminal report: the lines after a run, laid out as fio 3.33 prints
 * them.
 *
 * Scripts cut these lines apart by column, so widths, units and rounding follow
 * fio to the byte. What differs on purpose: a combined line under
 * `unified_rw_reporting=both` has its true rates (fio 3.33 prints `IOPS=0`).
 *
 * Source: fio 3.33's output, workloads.md 2.1.
 *
 * @module
 */

import { fixed, num2str } from "./num2str.ts";
import {
  type DirectionStats,
  type GroupTotals,
  groupTotals,
  type Histogram,
  type JobStats,
  shareOfGroup,
  shares,
  type Tally,
} from "./stat.ts";

/** What the line that announces a job says of its options. */
export interface ReportHeaderLine {
  /** The pattern, e.g. `randread`. */
  rw: string;
  /** Smallest and largest read in bytes. */
  bsR: [number, number];
  /** Smallest and largest write in bytes. */
  bsW: [number, number];
  /** Smallest and largest trim in bytes. */
  bsT: [number, number];
  /** Name of the I/O engine. */
  ioengine: string;
  /** I/Os in flight at most. */
  iodepth: number;
}

/** A job's result, or that of a group folded by `group_reporting`. */
export interface ReportJob {
  /** Name of the section. */
  name: string;
  /** Reporting group, from 0. */
  groupid: number;
  /** Jobs in this result; in a header line the job's `numjobs`. */
  clones: number;
  /** Process id of the first. */
  pid: number;
  /** When it ended, as C's ctime prints it. */
  ctime: string;
  /** Text of `description`. */
  description?: string;
  /** Options in the job file's words, in the order of the JSON. */
  options: [string, string][];
  /** For the line that announces it. */
  headerLine: ReportHeaderLine;
  /** What it measured. */
  stats: JobStats;
  /** Time in user mode in percent of the job's runtime. */
  usrCpu: number;
  /** Time in kernel mode in percent of the job's runtime. */
  sysCpu: number;
  /** Context switches. */
  ctx: number;
  /** Page faults with I/O. */
  majf: number;
  /** Page faults without I/O. */
  minf: number;
  /** Whole seconds since the run began. */
  elapsedSec: number;
  /** Runtimes of all its jobs in ms. */
  jobRuntimeMs: number;
  /** Queue depth that `latency_target` settled on: `iodepth` without one. */
  latencyDepth: number;
  /** No latency target is supported. */
  latencyTarget: 0;
  /** No latency target is supported. */
  latencyWindow: 0;
  /** No latency target is supported. */
  latencyPercentile: 100;
  /** What ended the job, as in `func=io_u error, error=No space left on device`. */
  errorText?: string;
}

/** What a block device did during the run. */
export interface DiskUtil {
  /** Its name. */
  name: string;
  /** Reads completed. */
  readIos: number;
  /** Writes completed. */
  writeIos: number;
  /** Reads merged into others. */
  readMerges: number;
  /** Writes merged into others. */
  writeMerges: number;
  /** Time of all reads in ms. */
  readTicksMs: number;
  /** Time of all writes in ms. */
  writeTicksMs: number;
  /** Time of all requests in ms. */
  inQueueMs: number;
  /** Share of the run in which it was busy. */
  utilPercent: number;
}

/** Everything that a report prints. */
export interface RunReport {
  /** The version whose output this is. */
  version: "fio-3.33";
  /** When the report was made, in ms since 1970. */
  timestampMs: number;
  /** The same as C's ctime prints it. */
  timeText: string;
  /** Options of `[global]` sections in the order of the JSON. */
  globalOptions: [string, string][];
  /** Results in order, groups already folded where asked. */
  jobs: ReportJob[];
  /** Devices that the jobs' files lie on. */
  disks: DiskUtil[];
}

/** Names of the directions, in the order of `JobStats.directions`. */
export const DIRECTION_NAMES = ["read", "write", "trim"] as const;
/** Bounds of the ns and us tables of `JobStats.latencies`. */
export const LATENCY_KEYS: readonly string[] = //
  ["2", "4", "10", "20", "50", "100", "250", "500", "750", "1000"];
/** Bounds of the ms table of `JobStats.latencies`. */
export const LATENCY_MS_KEYS: readonly string[] = //
  [...LATENCY_KEYS, "2000", ">=2000"];
/** Buckets of `JobStats.depths`, by smallest depth. */
export const DEPTH_KEYS: readonly string[] = //
  ["1", "2", "4", "8", "16", "32", ">=64"];
/** Buckets of `JobStats.submits` and `completes`, by largest batch. */
export const BATCH_KEYS: readonly string[] = //
  ["0", "4", "8", "16", "32", "64", ">=64"];

/**
 * The lines that announce jobs before they run, each ended by a newline.
 *
 * @param jobs One for each section; its clones become a line `...`.
 */
export function jobHeaderLines(
  jobs: Pick<ReportJob, "name" | "groupid" | "clones" | "headerLine">[],
): string {
  return jobs.map((job) => {
    const { rw, bsR, bsW, bsT, ioengine, iodepth } = job.headerLine;
    return `${job.name}: (g=${job.groupid}): rw=${rw}, ` +
      `bs=(R) ${sizes(bsR)}, (W) ${sizes(bsW)}, (T) ${sizes(bsT)}, ` +
      `ioengine=${ioengine}, iodepth=${iodepth}\n` +
      (job.clones > 1 ? "...\n" : "");
  }).join("");
}

function sizes([min, max]: [number, number]): string {
  return `${num2str(min, 4, true, "B")}-${num2str(max, 4, true, "B")}`;
}

/** The whole report, from the blank line before the first job to a newline. */
export function normalReport(run: RunReport): string {
  const groups = reportGroups(run);
  const lines = [
    "",
    ...run.jobs.flatMap((job) => jobLines(job, groups[job.groupid]!)),
    ...groups.flatMap((group, groupid) => [
      "",
      `Run status group ${groupid} (all jobs):`,
      ...groupLines(group),
    ]),
    ...diskLines(run.disks),
  ];
  return lines.join("\n") + "\n";
}

/** What the jobs of a reporting group moved together. */
export interface ReportGroup {
  /** By direction; under `DDIR_READ` for both, where they report as one. */
  directions: GroupTotals[];
  /** All directions, where a job reports `both` or `mixed`. */
  mixed: GroupTotals | null;
  /** OR of its jobs' `unifiedRw`. */
  unifiedRw: number;
}

/** Adds up each reporting group of a run, from 0. */
export function reportGroups(run: RunReport): ReportGroup[] {
  const last = Math.max(-1, ...run.jobs.map((job) => job.groupid));
  return Array.from({ length: last + 1 }, (_, groupid) => {
    const jobs = run.jobs.filter((job) => job.groupid === groupid);
    const stats = jobs.map((job) => job.stats.reported());
    const directions = DIRECTION_NAMES.map((_, ddir) =>
      groupTotals(stats.map((job) => job.directions[ddir]!))
    );
    const unifiedRw = stats.reduce((m, job) => m | job.options.unifiedRw, 0);
    return { directions, mixed: mixedTotals(directions), unifiedRw };
  });
}

/** All directions of a group side by side: `both` adds them as if jobs. */
function mixedTotals(directions: GroupTotals[]): GroupTotals | null {
  const ran = directions.filter((totals) => totals.maxRunMs > 0);
  if (ran.length === 0) return null;
  return {
    bytes: ran.reduce((sum, totals) => sum + totals.bytes, 0),
    bandwidth: ran.reduce((sum, totals) => sum + totals.bandwidth, 0),
    minBandwidth: Math.min(...ran.map((totals) => totals.minBandwidth)),
    maxBandwidth: Math.max(...ran.map((totals) => totals.maxBandwidth)),
    minRunMs: Math.min(...ran.map((totals) => totals.minRunMs)),
    maxRunMs: Math.max(...ran.map((totals) => totals.maxRunMs)),
  };
}

function jobLines(job: ReportJob, group: ReportGroup): string[] {
  const stats = job.stats.reported();
  if (stats.totalIos === 0) return [];
  return [
    jobLine(job),
    ...(job.description ? [`  Description  : [${job.description}]`] : []),
    ...directionsLines(stats, group),
    ...latencyTableLines(stats),
    ...syncLines(stats),
    `  cpu          : usr=${fixed(job.usrCpu, 2)}%, ` +
    `sys=${fixed(job.sysCpu, 2)}%, ctx=${job.ctx}, majf=${job.majf}, ` +
    `minf=${job.minf}`,
    ...depthLines(stats),
    issuedLine(stats),
    ...errorLines(job),
    `     latency   : target=${job.latencyTarget}, ` +
    `window=${job.latencyWindow}, ` +
    `percentile=${fixed(job.latencyPercentile, 2)}%, depth=${job.latencyDepth}`,
  ];
}

function jobLine(job: ReportJob): string {
  const error = job.stats.error;
  const text = error === 0 ? "" : ` (${job.errorText ?? ""})`;
  return `${job.name}: (groupid=${job.groupid}, jobs=${job.clones}): ` +
    `err=${String(error).padStart(2)}${text}: pid=${job.pid}: ${job.ctime}`;
}

function directionsLines(stats: JobStats, group: ReportGroup): string[] {
  const { unifiedRw } = stats.options;
  const lines = stats.directions.flatMap((direction, ddir) => {
    const name = unifiedRw === 1 ? "mixed" : DIRECTION_NAMES[ddir]!;
    return directionLines(name, direction, group.directions[ddir]!, stats);
  });
  if (unifiedRw !== 2 || group.mixed === null) return lines;
  const mixed = stats.unified().directions[0];
  return [...lines, ...directionLines("mixed", mixed, group.mixed, stats)];
}

function directionLines(
  name: string,
  direction: DirectionStats,
  group: GroupTotals,
  stats: JobStats,
): string[] {
  const { bytes, ios, runtimeMs, bandwidth } = direction;
  if (runtimeMs === 0) return [];
  const iops = Math.floor(ios * 1000 / runtimeMs);
  return [
    `  ${name}: IOPS=${num2str(iops, 4, false, "")}, ` +
    `BW=${rate(bandwidth, true)} (${rate(bandwidth, false)})` +
    `(${num2str(bytes, 4, true, "B")}/${runtimeMs}msec)` +
    (name === "write" ? "; 0 zone resets" : ""),
    ...timeLines("slat", direction.slat.tally),
    ...timeLines("clat", direction.clat.tally),
    ...timeLines(" lat", direction.lat.tally),
    ...percentileLines("slat", direction.slat.histogram, stats),
    ...percentileLines("clat", direction.clat.histogram, stats),
    ...percentileLines("lat", direction.lat.histogram, stats),
    ...sampleLines(direction, group),
  ];
}

function rate(bytesPerSecond: number, pow2: boolean): string {
  return `${num2str(bytesPerSecond, 4, pow2, "B")}/s`;
}

/** min, max, avg and stdev of latencies, in the largest unit that suits all. */
function timeLines(name: string, times: Tally): string[] {
  const { count, min, max, mean, stddev } = times;
  if (count === 0) return [];
  const [unit, divisor] = timeUnit(min, max, stddev);
  const extreme = (ns: number) =>
    num2str(Math.floor(ns / divisor), 6, false, "");
  return [
    `    ${name} (${unit}): min=${extreme(min)}, max=${extreme(max)}, ` +
    `avg=${wide(mean / divisor)}, stdev=${wide(stddev / divisor)}`,
  ];
}

/**
 * The unit for a range of times. One sample has no deviation, so it stays in ns
 * however long it took.
 */
function timeUnit(
  min: number,
  max: number,
  stddev: number,
): [unit: string, divisor: number] {
  if (min > 2e6 && max > 99_999_999 && stddev > 1e6) return ["msec", 1e6];
  if (min > 2e3 && max > 99_999 && stddev > 1e3) return ["usec", 1e3];
  return ["nsec", 1];
}

/** C's `%5.02f`. */
function wide(value: number): string {
  return fixed(value, 2).padStart(5);
}

/** Percentiles of one kind, as many in a line as 80 columns hold. */
function percentileLines(
  name: string,
  histogram: Histogram | null,
  stats: JobStats,
): string[] {
  const values = histogram?.percentiles(stats.percentiles) ?? [];
  if (values.length === 0) return [];
  const max = values.at(-1)!;
  const [unit, divisor] = timeUnit(values[0]!, max, Infinity);
  const precision = stats.options.percentilePrecision ??
    Math.max(...stats.percentiles.map(decimals));
  const width = Math.max(5, String(Math.floor(max / divisor)).length);
  const perLine = Math.floor((80 - 7) / (precision + 10 + width));
  const cells = values.map((ns, i) => {
    const label = fixed(stats.percentiles[i]!, precision);
    const value = String(Math.ceil(ns / divisor)).padStart(width);
    return ` ${label.padStart(precision + 3)}th=[${value}]`;
  });
  const lines = [`    ${name} percentiles (${unit}):`];
  for (let i = 0; i < cells.length; i += perLine) {
    const end = i + perLine < cells.length ? "," : "";
    lines.push(`     |${cells.slice(i, i + perLine).join(",")}${end}`);
  }
  return lines;
}

function decimals(value: number): number {
  return String(value).split(".")[1]?.length ?? 0;
}

/** The 500 ms samples of bandwidth and IOPS; none in a shorter run. */
function sampleLines(direction: DirectionStats, group: GroupTotals): string[] {
  const { bw, iops } = direction;
  const lines: string[] = [];
  if (bw.count > 0) {
    const share = fixed(shareOfGroup(bw.mean, group.bandwidth), 2);
    const inMiB = bw.mean > 1024 * 1024;
    lines.push(
      `   bw (  ${inMiB ? "MiB" : "KiB"}/s): ` +
        sampleText(bw, inMiB ? 1024 : 1, `per=${share}%, `),
    );
  }
  if (iops.count > 0) lines.push(`   iops        : ${sampleText(iops, 1, "")}`);
  return lines;
}

function sampleText(samples: Tally, divisor: number, share: string): string {
  const extreme = (value: number) =>
    String(Math.floor(value / divisor)).padStart(5);
  return `min=${extreme(samples.min)}, max=${extreme(samples.max)}, ${share}` +
    `avg=${wide(samples.mean / divisor)}, ` +
    `stdev=${wide(samples.stddev / divisor)}, samples=${samples.count}`;
}

/** Shares of I/Os by completion latency, buckets that were met only. */
function latencyTableLines(stats: JobStats): string[] {
  const percent = shares(stats.latencies, stats.totalIos, 0.01);
  const us = LATENCY_KEYS.length;
  return [
    ...tableLines("nsec", LATENCY_KEYS, percent.slice(0, us)),
    ...tableLines("usec", LATENCY_KEYS, percent.slice(us, 2 * us)),
    ...tableLines("msec", LATENCY_MS_KEYS, percent.slice(2 * us)),
  ];
}

function tableLines(
  unit: string,
  keys: readonly string[],
  percent: number[],
): string[] {
  const cells = keys.flatMap((key, i) =>
    percent[i]! > 0 ? [`${key}=${fixed(percent[i]!, 2)}%`] : []
  );
  const lines: string[] = [];
  for (let i = 0; i < cells.length; i += 5) {
    lines.push(`  lat (${unit})   : ${cells.slice(i, i + 5).join(", ")}`);
  }
  return lines;
}

function syncLines(stats: JobStats): string[] {
  if (stats.sync.tally.count === 0) return [];
  return [
    "  fsync/fdatasync/sync_file_range:",
    ...timeLines("sync", stats.sync.tally),
    ...percentileLines("sync", stats.sync.histogram, stats),
  ];
}

function depthLines(stats: JobStats): string[] {
  const line = (
    name: string,
    keys: readonly string[],
    counts: Float64Array,
    total: number,
  ) => {
    const percent = shares(counts, total, 0.1);
    const cells = keys.map((key, i) => `${key}=${fixed(percent[i]!, 1)}%`);
    return `${name}: ${cells.join(", ")}`;
  };
  const { depths, submits, completes, totalIos } = stats;
  return [
    line("  IO depths    ", DEPTH_KEYS, depths, totalIos),
    line("     submit    ", BATCH_KEYS, submits, sum(submits)),
    line("     complete  ", BATCH_KEYS, completes, sum(completes)),
  ];
}

/** All that an array of counts counted. */
export function sum(counts: Float64Array): number {
  return counts.reduce((total, count) => total + count, 0);
}

function issuedLine(stats: JobStats): string {
  const each = (pick: (direction: DirectionStats) => number) =>
    stats.directions.map(pick).join(",");
  return `     issued rwts: total=${
    each((d) => d.ios)
  },${stats.sync.tally.count}` +
    ` short=${each((d) => d.shortIos)},0 dropped=${each((d) => d.dropIos)},0`;
}

function errorLines(job: ReportJob): string[] {
  const { totalErr, firstError } = job.stats;
  if (totalErr === 0) return [];
  const text = job.errorText?.match(/error=(.*)/)?.[1] ?? "";
  return [
    `     errors    : total=${totalErr}, first_error=${firstError}/<${text}>`,
  ];
}

function groupLines(group: ReportGroup): string[] {
  const names = group.unifiedRw === 1
    ? ["  MIXED", "  MIXED", "  MIXED"]
    : ["   READ", "  WRITE", "   TRIM"];
  const lines = names.flatMap((name, ddir) =>
    groupLine(name, group.directions[ddir]!)
  );
  if (group.unifiedRw !== 2 || group.mixed === null) return lines;
  return [...lines, ...groupLine("  MIXED", group.mixed)];
}

function groupLine(name: string, totals: GroupTotals): string[] {
  if (totals.maxRunMs === 0) return [];
  const { bytes, bandwidth, minBandwidth, maxBandwidth } = totals;
  const range = (pow2: boolean) =>
    `${rate(minBandwidth, pow2)}-${rate(maxBandwidth, pow2)}`;
  return [
    `${name}: bw=${rate(bandwidth, true)} (${rate(bandwidth, false)}), ` +
    `${range(true)} (${range(false)}), ` +
    `io=${num2str(bytes, 4, true, "B")} (${num2str(bytes, 4, false, "B")}), ` +
    `run=${totals.minRunMs}-${totals.maxRunMs}msec`,
  ];
}

function diskLines(disks: DiskUtil[]): string[] {
  if (disks.length === 0) return [];
  return [
    "",
    "Disk stats (read/write):",
    ...disks.map((disk) =>
      `  ${disk.name}: ios=${disk.readIos}/${disk.writeIos}, ` +
      `merge=${disk.readMerges}/${disk.writeMerges}, ` +
      `ticks=${disk.readTicksMs}/${disk.writeTicksMs}, ` +
      `in_queue=${disk.inQueueMs}, util=${fixed(disk.utilPercent, 2)}%`
    ),
  ];
}
