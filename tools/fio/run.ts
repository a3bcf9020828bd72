/**
 * Runs a set of jobs: makes their files, starts them in fio's order, and
 * gathers what they measured into a report.
 *
 * A newcomer would get this wrong: all files are laid out before the first job
 * starts, also those of jobs that wait behind a `stonewall`.
 *
 * @module
 */

import { FsError, strerror } from "../../mod.ts";
import { NullFile, type Storage } from "./engines.ts";
import { Progress } from "./eta.ts";
import {
  fillBuffer,
  SEED_FILE_SIZE,
  Taus88,
  threadSeeds,
} from "./generators.ts";
import { errnoOf, Job, type JobContext, JobFile } from "./job.ts";
import { ENGINES, type JobOptions, type SizeValue } from "./options.ts";
import { type JobSet, type JobSpec, smallestBlock } from "./parse.ts";
import {
  type DiskUtil,
  jobHeaderLines,
  type ReportJob,
  type RunReport,
} from "./report.ts";
import { JobStats } from "./stat.ts";

const ENOSPC = 28;
const EINVAL = 22;
const MIB = 1024 * 1024;
const MSEC = 1_000_000;

/** How to run, apart from the jobs. */
export interface RunOptions {
  /** Stands in for chance. */
  seed: number;
  /** Host time is charged: the clock is a virtual one. */
  virtual: boolean;
  /** Takes what fio prints before the jobs start. */
  announce: (text: string) => void;
  /** Takes news of jobs that end early. */
  info: (text: string) => void;
  /** Takes what goes wrong. */
  err: (text: string) => void;
  /** Takes the progress line; null for none. */
  progress: ((text: string) => void) | null;
  /** What the devices did since the last call, once the jobs are done. */
  disks: (elapsedNs: number) => DiskUtil[];
  /** Called once the files are there, right before the first job. */
  onStart: () => void;
}

/** What a run leaves. */
export interface RunResult {
  report: RunReport;
  /** Jobs that failed: fio's exit status. */
  failed: number;
}

/** A clone of a job, before it has files. */
interface Planned {
  spec: JobSpec;
  threadNumber: number;
  subjob: number;
  groupid: number;
  /** Waits for all jobs before it. */
  barrier: boolean;
}

/** Where a job's files are and how much of them it uses. */
interface Region {
  files: JobFile[];
  /** Bytes to move. */
  ioSize: number;
}

/** The job cannot be set up; the reason has been printed. */
class SetupError extends Error {}

/** Runs all jobs of a set. */
export async function runJobs(
  set: JobSet,
  storage: Storage,
  options: RunOptions,
): Promise<RunResult> {
  const plan = planJobs(set);
  options.announce(announcement(set, plan));
  const run = new Run(storage, options);
  for (const planned of plan) await run.prepare(planned);
  await run.all();
  return run.result(set);
}

/** Expands clones, and numbers threads and groups. */
function planJobs(set: JobSet): Planned[] {
  const plan: Planned[] = [];
  let groupid = 0;
  let inGroup = 0;
  for (const spec of set.jobs) {
    const { stonewall, newGroup, numjobs } = spec.options;
    if ((stonewall || newGroup) && inGroup > 0) {
      groupid++;
      inGroup = 0;
    }
    for (let subjob = 0; subjob < numjobs; subjob++) {
      plan.push({
        spec,
        threadNumber: plan.length + 1,
        subjob,
        groupid,
        barrier: stonewall && subjob === 0,
      });
      inGroup++;
    }
  }
  return plan;
}

/** What fio prints before it starts. */
function announcement(set: JobSet, plan: readonly Planned[]): string {
  const first = plan.filter((p) => p.subjob === 0);
  const headers = jobHeaderLines(first.map(({ spec, groupid }) => ({
    name: spec.options.name,
    groupid,
    clones: spec.options.numjobs,
    headerLine: headerLine(spec.options),
  })));
  let threads = 0;
  for (const { options } of set.jobs) {
    if (options.thread) threads += options.numjobs;
  }
  const processes = plan.length - threads;
  const parts: string[] = [];
  if (threads > 0) parts.push(`${threads} thread${threads > 1 ? "s" : ""}`);
  if (processes > 0) {
    parts.push(`${processes} process${processes > 1 ? "es" : ""}`);
  }
  return `${headers}fio-3.33\nStarting ${parts.join(" and ")}\n`;
}

function headerLine(o: JobOptions): ReportJob["headerLine"] {
  return {
    rw: o.rw,
    bsR: [o.minBs[0], o.maxBs[0]],
    bsW: [o.minBs[1], o.maxBs[1]],
    bsT: [o.minBs[2], o.maxBs[2]],
    ioengine: o.ioengine,
    iodepth: o.iodepth,
  };
}

class Run {
  readonly #storage: Storage;
  readonly #options: RunOptions;
  readonly #jobs: { job: Job; planned: Planned }[] = [];
  readonly #context: JobContext;
  #live = 0;
  #failed = 0;
  #startNs = 0;
  #progress: Progress | null = null;

  constructor(storage: Storage, options: RunOptions) {
    this.#storage = storage;
    this.#options = options;
    this.#context = {
      clock: storage.clock,
      virtual: options.virtual,
      open: (file, how) => storage.open(file.name, how),
      alone: () => this.#live === 1,
      poll: () => this.#progress?.poll(),
      err: options.err,
      info: options.info,
    };
  }

  /** Makes a job and its files; one that cannot be is reported, but not run. */
  async prepare(planned: Planned): Promise<void> {
    const { options } = planned.spec;
    const seed = this.#options.seed;
    try {
      const region = options.ioengine === "null"
        ? this.#imagined(planned)
        : await this.#makeFiles(planned);
      if (options.createOnly) return;
      if (ENGINES.get(options.ioengine) === "sync" && options.iodepth > 1) {
        this.#options.err(
          "note: both iodepth >= 1 and synchronous I/O engine are selected, " +
            "queue depth will be capped at 1\n",
        );
      }
      const context = options.ioengine === "null"
        ? { ...this.#context, open: () => Promise.resolve(new NullFile()) }
        : this.#context;
      const { files, ioSize } = region;
      const job = new Job(context, options, files, ioSize, planned, seed);
      this.#jobs.push({ job, planned });
    } catch (error) {
      if (!(error instanceof SetupError)) this.#tellSetup(error);
      const job = new Job(this.#context, options, [], 0, planned, seed);
      job.stats.error = error instanceof SetupError ? EINVAL : errnoOf(error);
      this.#jobs.push({ job, planned });
      this.#failed++;
    }
  }

  /** Runs all jobs, each after those that it waits for. */
  async all(): Promise<void> {
    const { clock } = this.#storage;
    const ready = this.#jobs.filter(({ job }) => job.stats.error === 0);
    const jobs = ready.map(({ job }) => job);
    const { progress } = this.#options;
    if (progress !== null) this.#progress = new Progress(jobs, clock, progress);
    this.#options.onStart();
    this.#startNs = clock.now();
    let next = 0;
    while (next < jobs.length) {
      const together = [jobs[next++]!];
      while (next < jobs.length && !ready[next]!.planned.barrier) {
        together.push(jobs[next++]!);
      }
      // All of them count before the first one looks whether it is alone.
      this.#live = together.length;
      await Promise.all(together.map((job) => this.#runOne(job)));
    }
    this.#progress?.end();
  }

  async #runOne(job: Job): Promise<void> {
    await job.run();
    this.#live--;
    if (job.stats.error !== 0) this.#failed++;
    if (!job.options.unlink || job.options.ioengine === "null") return;
    for (const file of job.files) {
      if (await this.#storage.sizeOf(file.name) !== null) {
        await this.#storage.unlink(file.name);
      }
    }
  }

  result(set: JobSet): RunResult {
    const { clock } = this.#storage;
    const now = clock.realtime();
    const jobs: ReportJob[] = [];
    let host = 0, run = 0;
    for (const { job, planned } of this.#jobs) {
      const last = jobs.at(-1);
      const joins = job.options.groupReporting &&
        last?.groupid === job.groupid;
      if (!joins) host = run = 0;
      host += job.hostNs;
      run += job.endNs - job.startNs;
      if (joins) fold(last, job);
      else jobs.push(this.#reportJob(job, planned));
      const entry = jobs.at(-1)!;
      entry.jobRuntimeMs = Math.floor(run / MSEC);
      entry.sysCpu = run === 0 ? 0 : Math.min(100, host / run * 100);
    }
    const report: RunReport = {
      version: "fio-3.33",
      timestampMs: Math.floor(now / MSEC),
      timeText: ctime(now),
      globalOptions: set.global,
      jobs,
      disks: set.jobs.every((spec) => spec.options.diskUtil)
        ? this.#options.disks(clock.now() - this.#startNs)
        : [],
    };
    return { report, failed: this.#failed };
  }

  #reportJob(job: Job, planned: Planned): ReportJob {
    const o = job.options;
    const { clock } = this.#storage;
    const elapsedMs = (clock.now() - this.#startNs) / MSEC;
    const stats = new JobStats(job.stats.options);
    stats.merge(job.stats);
    return {
      name: o.name,
      groupid: job.groupid,
      clones: 1,
      pid: job.threadNumber,
      ctime: ctime(clock.realtime() - (clock.now() - job.endNs)),
      ...(o.description === null ? {} : { description: o.description }),
      options: planned.spec.given,
      headerLine: headerLine(o),
      stats,
      usrCpu: 0,
      sysCpu: 0,
      ctx: job.waits,
      majf: 0,
      minf: 0,
      elapsedSec: Math.max(1, Math.ceil(elapsedMs / 1000)),
      jobRuntimeMs: 0,
      latencyDepth: o.iodepth,
      latencyTarget: 0,
      latencyWindow: 0,
      latencyPercentile: 100,
      ...(job.errorText === null ? {} : { errorText: job.errorText }),
    };
  }

  // Files.

  /** The null engine's region: nothing is there but its size. */
  #imagined(planned: Planned): Region {
    const { options } = planned.spec;
    const names = fileNames(options, planned.subjob);
    if (options.size.bytes === 0 && options.filesize[1] === 0) {
      this.#tellNoSize(options);
    }
    return this.#measure(planned, names, names.map(() => 0));
  }

  async #makeFiles(planned: Planned): Promise<Region> {
    const o = planned.spec.options;
    const { deviceName } = this.#storage;
    if (deviceName !== null) this.#tellDevice(o, deviceName);
    const names = deviceName === null
      ? fileNames(o, planned.subjob)
      : [deviceName];
    const sizes: (number | null)[] = [];
    for (const name of names) {
      if (deviceName === null) await this.#makeParents(name);
      sizes.push(await this.#storage.sizeOf(name));
    }
    const existing = sizes.map((size) => size ?? 0);
    const nothing = existing.every((size) => size === 0);
    if (o.size.bytes === 0 && o.filesize[1] === 0 && nothing) {
      this.#tellNoSize(o);
    }
    const region = this.#measure(planned, names, existing);
    if (deviceName === null) await this.#layOut(o, region.files, sizes);
    return region;
  }

  /** Where there is no file system, what a job says of files says nothing. */
  #tellDevice(o: JobOptions, device: string): void {
    if (o.directory.length + o.filename.length === 0 && o.nrfiles < 2) return;
    if (o.filename.length === 1 && o.filename[0] === device) return;
    this.#options.err(
      `note: ${o.name} runs on ${device}: there are no files without a ` +
        "file system\n",
    );
  }

  async #makeParents(name: string): Promise<void> {
    const slash = name.lastIndexOf("/");
    if (slash <= 0) return;
    const directory = name.slice(0, slash);
    try {
      await this.#storage.makeDirectory(directory);
    } catch (error) {
      if (!(error instanceof FsError)) throw error;
      this.#options.err(`fio: ${directory} is not a directory\n`);
      throw new SetupError();
    }
  }

  /** Works out which part of each file the job uses. */
  #measure(planned: Planned, names: string[], existing: number[]): Region {
    const o = planned.spec.options;
    const isDevice = this.#storage.deviceName !== null &&
      o.ioengine !== "null";
    const sizeRandom = new Taus88(
      threadSeeds({ ...o, seed: this.#options.seed }, planned.threadNumber)[
        SEED_FILE_SIZE
      ]!,
    );
    const files = names.map((name, i) => {
      const real = existing[i]!;
      const start = startOffset(o, planned.subjob, real);
      let size = regionSize(o, names.length, real, start, sizeRandom);
      if (isDevice) size = Math.max(0, Math.min(size, real - start));
      return new JobFile(name, start, size, Math.max(real, start + size));
    });
    const total = files.reduce((sum, file) => sum + file.size, 0);
    const size = o.size.bytes === 0 ? total : Math.min(o.size.bytes, total);
    if (size < smallestBlock(o)) {
      this.#options.err("fio: blocksize too large for data set\n");
      throw new SetupError();
    }
    const ioSize = resolveSize(o.ioSize, size);
    return { files, ioSize: ioSize === 0 ? size : ioSize };
  }

  /** Makes files that are absent or too short. */
  async #layOut(
    o: JobOptions,
    files: JobFile[],
    existing: (number | null)[],
  ): Promise<void> {
    if (o.createOnOpen) return;
    const short = files.filter((file, i) =>
      (existing[i] ?? 0) < file.start + file.size
    );
    if (short.length === 0) return;
    const bytes = short.reduce((sum, file) => sum + file.start + file.size, 0);
    const many = short.length > 1 ? "s" : "";
    this.#options.announce(
      `${o.name}: Laying out IO file${many} (${short.length} file${many} / ` +
        `${many && "total "}${Math.floor(bytes / MIB)}MiB)\n`,
    );
    if (!o.allowFileCreate && existing.includes(null)) {
      this.#options.err(
        "fio: file creation disallowed by allow_file_create=0\n",
      );
      throw new SetupError();
    }
    const contents = o.read || (o.write && o.overwrite)
      ? new Uint8Array(MIB)
      : null;
    if (contents !== null) fillBuffer(contents, this.#options.seed + 1);
    for (const file of short) {
      const old = existing[files.indexOf(file)] ?? null;
      if (old !== null) await this.#storage.unlink(file.name);
      const trouble = await this.#storage.layOut(file.name, {
        size: file.start + file.size,
        fallocate: o.fallocate,
        contents,
        sync: o.createFsync,
      });
      if (trouble === null) continue;
      const why = strerror(trouble.errno);
      this.#options.err(`fio: ${o.fallocate}_fallocate fails: ${why}\n`);
    }
  }

  #tellNoSize(o: JobOptions): never {
    this.#options.err(`${o.name}: you need to specify size=\n`);
    this.#options.err(
      `fio: pid=0, err=${EINVAL}/func=total_file_size, ` +
        `error=${strerror(EINVAL)}\n`,
    );
    throw new SetupError();
  }

  #tellSetup(error: unknown): void {
    const errno = errnoOf(error);
    if (errno === ENOSPC) {
      this.#options.info("fio: ENOSPC on laying out file, stopping\n");
    }
    this.#options.err(
      `fio: pid=0, err=${errno}/func=write, error=${strerror(errno)}\n` +
        `fio: ${(error as Error).message}\n`,
    );
  }
}

/** Adds a job of the same group to an entry of the report. */
function fold(entry: ReportJob, job: Job): void {
  entry.stats.merge(job.stats);
  entry.clones++;
  entry.ctx += job.waits;
  if (job.errorText !== null) entry.errorText ??= job.errorText;
}

/** Names of a clone's files, with their directory. */
export function fileNames(o: JobOptions, subjob: number): string[] {
  const directory = o.directory.length === 0
    ? ""
    : o.directory[subjob % o.directory.length]! + "/";
  const names = o.filename.length > 0
    ? o.filename
    : Array.from({ length: o.nrfiles || 1 }, (_, i) =>
      o.filenameFormat
        .replaceAll("$jobname", o.name)
        .replaceAll("$jobnum", String(subjob))
        .replaceAll("$filenum", String(i)));
  return names.map((name) => directory + name);
}

function resolveSize(value: SizeValue, whole: number): number {
  return value.percent > 0
    ? Math.floor(whole * value.percent / 100)
    : value.bytes;
}

function startOffset(o: JobOptions, subjob: number, real: number): number {
  const at = resolveSize(o.offset, real) +
    subjob * resolveSize(o.offsetIncrement, real);
  const align = o.offsetAlign || (o.offset.percent > 0 ? smallestBlock(o) : 1);
  return Math.ceil(at / align) * align;
}

/** Bytes of one file that the job uses. */
function regionSize(
  o: JobOptions,
  files: number,
  real: number,
  start: number,
  random: Taus88,
): number {
  const [low, high] = o.filesize;
  if (high > 0) {
    const size = low === high ? low : random.between(low, high);
    return Math.max(0, size - start);
  }
  if (o.size.bytes > 0) return Math.floor(o.size.bytes / files);
  const rest = Math.max(0, real - start);
  if (o.size.percent === 0) return rest;
  const part = Math.floor(rest * o.size.percent / 100);
  return part - part % smallestBlock(o);
}

const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");

/** What C's ctime(3) prints for a time in ns since 1970, in UTC. */
export function ctime(realtimeNs: number): string {
  const date = new Date(realtimeNs / MSEC);
  const time = date.toISOString().slice(11, 19);
  const day = String(date.getUTCDate()).padStart(2);
  return `${DAYS[date.getUTCDay()]} ${MONTHS[date.getUTCMonth()]} ${day} ` +
    `${time} ${date.getUTCFullYear()}`;
}
