/**
 * fio's JSON report with fio 3.33's keys in fio's order and spacing, so that
 * tools which read fio's can read this, even those that read it line by line.
 *
 * Source: fio 3.33's output, workloads.md 2.2.
 *
 * @module
 */

import { fixed } from "./num2str.ts";
import {
  BATCH_KEYS,
  DEPTH_KEYS,
  DIRECTION_NAMES,
  type DiskUtil,
  LATENCY_KEYS,
  LATENCY_MS_KEYS,
  type ReportGroup,
  reportGroups,
  type ReportJob,
  type RunReport,
  sum,
} from "./report.ts";
import {
  type DirectionStats,
  type GroupTotals,
  type JobStats,
  type Latency,
  shareOfGroup,
  shares,
} from "./stat.ts";

/** fio's answer to how long a job still takes, before it has an estimate. */
const ETA_UNKNOWN = 2147483647;
/** From this many seconds on fio estimates, and an ended job takes 0 more. */
const ETA_FROM_SEC = 3;

/** Members of an object, in order. */
type Members = [key: string, value: Value][];
/** A number, text or real already in JSON, an array, or an object. */
type Value = number | string | { items: Value[] } | Members;

/** A real number, as fio prints every value that may have decimals. */
function real(value: number): string {
  return fixed(value, 6);
}

function text(value: string): string {
  return JSON.stringify(value);
}

function print(value: Value, indent: string): string {
  if (typeof value !== "object") return String(value);
  const inner = indent + "  ";
  const [open, close, items] = Array.isArray(value)
    ? ["{", "}", value.map(([key, v]) => `${text(key)} : ${print(v, inner)}`)]
    : ["[", "]", value.items.map((v) => print(v, inner))];
  const lines = items.map((item) => inner + item).join(",\n");
  return `${open}\n${lines}\n${indent}${close}`;
}

/** `key` with `members`, or nothing where there are none. */
function unlessEmpty(key: string, members: Members): Members {
  return members.length === 0 ? [] : [[key, members]];
}

/**
 * The report of a run as JSON, ended by a newline.
 *
 * @param run What was measured.
 * @param plus Give the histograms' bins (fio's `json+`).
 */
export function jsonReport(run: RunReport, plus = false): string {
  const groups = reportGroups(run);
  const jobs = run.jobs.map((job) =>
    jobMembers(job, groups[job.groupid]!, plus)
  );
  const disks = run.disks.map(diskMembers);
  const members: Members = [
    ["fio version", text(run.version)],
    ["timestamp", Math.floor(run.timestampMs / 1000)],
    ["timestamp_ms", run.timestampMs],
    ["time", text(run.timeText)],
    ...unlessEmpty("global options", optionMembers(run.globalOptions)),
    ["jobs", { items: jobs }],
  ];
  if (disks.length > 0) members.push(["disk_util", { items: disks }]);
  return print(members, "") + "\n";
}

function optionMembers(options: [string, string][]): Members {
  return options.map(([name, value]) => [name, text(value)]);
}

function jobMembers(
  job: ReportJob,
  group: ReportGroup,
  plus: boolean,
): Members {
  const stats = job.stats.reported();
  const { submits, completes, totalIos } = stats;
  const us = LATENCY_KEYS.length;
  const latencies = shares(stats.latencies, totalIos, 0.01);
  return [
    ["jobname", text(job.name)],
    ["groupid", job.groupid],
    ["error", stats.error],
    ["eta", job.elapsedSec < ETA_FROM_SEC ? ETA_UNKNOWN : 0],
    ["elapsed", job.elapsedSec],
    ...unlessEmpty("job options", optionMembers(job.options)),
    ...directionsMembers(stats, group, plus),
    ["job_runtime", job.jobRuntimeMs],
    ["usr_cpu", real(job.usrCpu)],
    ["sys_cpu", real(job.sysCpu)],
    ["ctx", job.ctx],
    ["majf", job.majf],
    ["minf", job.minf],
    ["iodepth_level", table(DEPTH_KEYS, shares(stats.depths, totalIos, 0.1))],
    ["iodepth_submit", table(BATCH_KEYS, shares(submits, sum(submits), 0.1))],
    [
      "iodepth_complete",
      table(BATCH_KEYS, shares(completes, sum(completes), 0.1)),
    ],
    ["latency_ns", table(LATENCY_KEYS, latencies.slice(0, us))],
    ["latency_us", table(LATENCY_KEYS, latencies.slice(us, 2 * us))],
    ["latency_ms", table(LATENCY_MS_KEYS, latencies.slice(2 * us))],
    ...errorMembers(stats),
    ["latency_depth", job.latencyDepth],
    ["latency_target", job.latencyTarget],
    ["latency_percentile", real(job.latencyPercentile)],
    ["latency_window", job.latencyWindow],
    ...(job.description ? [["desc", text(job.description)]] as Members : []),
  ];
}

function table(keys: readonly string[], percent: number[]): Members {
  return keys.map((key, i) => [key, real(percent[i]!)]);
}

function errorMembers(stats: JobStats): Members {
  if (stats.totalErr === 0) return [];
  return [["total_err", stats.totalErr], ["first_error", stats.firstError]];
}

/** `read`, `write`, `trim` and `sync`, or `mixed`, or all five. */
function directionsMembers(
  stats: JobStats,
  group: ReportGroup,
  plus: boolean,
): Members {
  const { unifiedRw, clatPercentiles, latPercentiles } = stats.options;
  const direction = (from: DirectionStats, totals: GroupTotals | undefined) =>
    directionMembers(from, totals?.bandwidth ?? 0, stats, plus);
  if (unifiedRw === 1) {
    return [["mixed", direction(stats.directions[0], group.directions[0])]];
  }
  const members: Members = DIRECTION_NAMES.map((name, ddir) => [
    name,
    direction(stats.directions[ddir]!, group.directions[ddir]),
  ]);
  const withPercentiles = clatPercentiles || latPercentiles;
  members.push(["sync", [
    ["total_ios", stats.sync.tally.count],
    ["lat_ns", latencyMembers(stats.sync, withPercentiles, stats, plus)],
  ]]);
  if (unifiedRw === 2) {
    const mixed = stats.unified().directions[0];
    members.push(["mixed", direction(mixed, group.mixed ?? undefined)]);
  }
  return members;
}

function directionMembers(
  direction: DirectionStats,
  groupBandwidth: number,
  stats: JobStats,
  plus: boolean,
): Members {
  const { bytes, ios, runtimeMs, bandwidth, bw, iops } = direction;
  const { slatPercentiles, clatPercentiles, latPercentiles } = stats.options;
  const share = bw.count === 0 ? 0 : shareOfGroup(bw.mean, groupBandwidth);
  return [
    ["io_bytes", bytes],
    ["io_kbytes", Math.floor(bytes / 1024)],
    ["bw_bytes", bandwidth],
    ["bw", Math.floor(bandwidth / 1024)],
    ["iops", real(runtimeMs === 0 ? 0 : 1000 * ios / runtimeMs)],
    ["runtime", runtimeMs],
    ["total_ios", ios],
    ["short_ios", direction.shortIos],
    ["drop_ios", direction.dropIos],
    ["slat_ns", latencyMembers(direction.slat, slatPercentiles, stats, plus)],
    ["clat_ns", latencyMembers(direction.clat, clatPercentiles, stats, plus)],
    ["lat_ns", latencyMembers(direction.lat, latPercentiles, stats, plus)],
    ["bw_min", bw.min],
    ["bw_max", bw.max],
    ["bw_agg", real(share)],
    ["bw_mean", real(bw.mean)],
    ["bw_dev", real(bw.stddev)],
    ["bw_samples", bw.count],
    ["iops_min", iops.min],
    ["iops_max", iops.max],
    ["iops_mean", real(iops.mean)],
    ["iops_stddev", real(iops.stddev)],
    ["iops_samples", iops.count],
  ];
}

function latencyMembers(
  latency: Latency,
  withPercentiles: boolean,
  stats: JobStats,
  plus: boolean,
): Members {
  const { tally, histogram } = latency;
  const members: Members = [
    ["min", tally.min],
    ["max", tally.max],
    ["mean", real(tally.mean)],
    ["stddev", real(tally.stddev)],
    ["N", tally.count],
  ];
  if (!withPercentiles || histogram === null || tally.count === 0) {
    return members;
  }
  const values = histogram.percentiles(stats.percentiles);
  members.push([
    "percentile",
    values.map((ns, i) => [real(stats.percentiles[i]!), ns]),
  ]);
  if (plus) {
    const bins = histogram.bins();
    members.push(["bins", bins.map(([ns, count]) => [String(ns), count])]);
  }
  return members;
}

function diskMembers(disk: DiskUtil): Members {
  return [
    ["name", text(disk.name)],
    ["read_ios", disk.readIos],
    ["write_ios", disk.writeIos],
    ["read_merges", disk.readMerges],
    ["write_merges", disk.writeMerges],
    ["read_ticks", disk.readTicksMs],
    ["write_ticks", disk.writeTicksMs],
    ["in_queue", disk.inQueueMs],
    ["util", real(disk.utilPercent)],
  ];
}
