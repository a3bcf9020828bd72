/**
 * fio on the simulated stack: reads fio job files, runs them on an XFS-like
 * file system over an emulated NVMe device, and prints what fio 3.33 prints.
 *
 * ```sh
 * deno task fio examples/randrw.fio
 * deno task fio --device=tlc-dc --output-format=json --name=a --size=1m
 * ```
 *
 * A newcomer would get `--size` wrong: before the first `--name` it is the
 * size of the device, after it the job's option of that name.
 *
 * @module
 */

import {
  type Clock,
  createNvme,
  FileMedia,
  FsError,
  mkfsXfs,
  mount,
  type NvmeDevice,
  RealClock,
  VirtualClock,
  xfs,
} from "../mod.ts";
import { FileStorage, RawStorage, type Storage } from "./fio/engines.ts";
import { jsonReport } from "./fio/json.ts";
import { findOption, parseInteger } from "./fio/options.ts";
import {
  JobParser,
  type JobSet,
  ParseError,
  type ParseHost,
} from "./fio/parse.ts";
import { type DiskUtil, normalReport } from "./fio/report.ts";
import { runJobs } from "./fio/run.ts";

const USAGE = `fio-3.33 on iomap for Deno
fio [switches] [job options] <job file(s)>
  --fs=xfs|none         File system, or the bare device (default xfs)
  --device=PRESET       What the device is like (default optane)
  --clock=virtual|real  Simulated time, or time as it passes (default virtual)
  --size=SIZE           Size of the device; after --name the job's (default 16g)
  --image=FILE          Keep the device's contents in a file, made if absent
  --seed=N              Seed of the run (default 1)
  --mount=OPTIONS       Mount options, for example allocsize=64k
  --output=FILE         Write output to file
  --output-format=TYPE  Output format (json,json+,normal)
  --eta=WHEN            When the progress line is printed: always, never, auto
  --section=NAME        Only run this section; may be given several times
  --readonly            Refuse jobs that write
  --parse-only          Parse options only, don't start any IO
  --version             Print version info and exit
  --help                Print this page
`;

/** Switches that take a value, and those of fio that do not exist here. */
const SWITCHES = new Set(
  ("fs device clock size image seed mount output output-format eta section")
    .split(" "),
);
const BARE_SWITCHES = new Set(["readonly", "parse-only", "version", "help"]);
const UNSUPPORTED_SWITCHES = new Set(
  ("debug merge-blktrace-only bandwidth-log minimal append-terse " +
    "terse-version cpuclock-test crctest cmdhelp enghelp showcmd eta-newline " +
    "eta-interval status-interval alloc-size warnings-fatal max-jobs server " +
    "daemonize client remote-config idle-prof inflate-log trigger-file " +
    "trigger-timeout trigger trigger-remote aux-path latency-log").split(" "),
);

const FORMATS = ["normal", "json", "json+"];
const DEFAULT_SIZE = 16 * 2 ** 30;
const DEFAULT_DEVICE = "optane";
/** How much of an image is looked at to tell whether something is on it. */
const BLANK_CHECK_BYTES = 1 << 20;

/** The command line, taken apart. */
interface CommandLine {
  switches: Map<string, string>;
  sections: string[];
  /** Job options, by the `--name` before them. */
  jobs: { name: string | null; options: [string, string | null][] }[];
  files: string[];
}

/** The command line is wrong; the message says how. */
class UsageError extends Error {}

function readCommandLine(args: readonly string[]): CommandLine {
  const line: CommandLine = {
    switches: new Map(),
    sections: [],
    jobs: [{ name: null, options: [] }],
    files: [],
  };
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (!arg.startsWith("-") || arg === "-") {
      line.files.push(arg);
      continue;
    }
    const [, name = "", given] = /^--?([^=]*)(?:=(.*))?$/s.exec(arg)!;
    const takeNext = () => {
      const next = args[i + 1];
      if (next === undefined) {
        throw new UsageError(`fio: option '--${name}' requires an argument`);
      }
      i++;
      return next;
    };
    if (!takeSwitch(line, name, given, takeNext)) {
      takeJobOption(line, name, given, takeNext);
    }
  }
  return line;
}

function takeSwitch(
  line: CommandLine,
  name: string,
  given: string | undefined,
  takeNext: () => string,
): boolean {
  if (UNSUPPORTED_SWITCHES.has(name)) {
    throw new UsageError(`fio: option '--${name}' is not supported`);
  }
  if (BARE_SWITCHES.has(name)) {
    line.switches.set(name, "1");
    return true;
  }
  const inJob = line.jobs.length > 1;
  if (!SWITCHES.has(name) || (name === "size" && inJob)) return false;
  const value = given ?? takeNext();
  if (name === "section") line.sections.push(value);
  else line.switches.set(name, value);
  return true;
}

function takeJobOption(
  line: CommandLine,
  name: string,
  given: string | undefined,
  takeNext: () => string,
): void {
  const row = findOption(name);
  // Only what is known and no flag takes the next word as its value.
  const value = given ??
    (row === null || row.kind === "flag" ? null : takeNext());
  if (name === "name") line.jobs.push({ name: value ?? "", options: [] });
  if (name !== "name" || value !== "global") {
    line.jobs.at(-1)!.options.push([name, value]);
  }
}

/** What the switches ask for, checked. */
interface Settings {
  fs: "xfs" | "none";
  device: string;
  clock: "virtual" | "real";
  /** Bytes of the device; null if not said. */
  size: number | null;
  image: string | null;
  seed: number;
  mountOptions: string;
  output: string | null;
  formats: string[];
  eta: "always" | "never" | "auto";
}

function readSettings(switches: ReadonlyMap<string, string>): Settings {
  const word = <T extends string>(name: string, words: readonly T[]): T => {
    const value = switches.get(name) ?? words[0]!;
    const found = words.find((w) => w === value);
    if (found !== undefined) return found;
    throw new UsageError(
      `fio: --${name}=${value} is none of ${words.join(", ")}`,
    );
  };
  const formats = (switches.get("output-format") ?? "normal").split(",");
  for (const format of formats) {
    if (FORMATS.includes(format)) continue;
    throw new UsageError(
      format === "terse"
        ? "fio: output format terse is not supported"
        : `fio: invalid output format ${format}\n` +
          "fio: failed parsing output-format",
    );
  }
  const sizeText = switches.get("size");
  const size = sizeText === undefined ? null : parseInteger(sizeText);
  if (sizeText !== undefined && (size === null || size <= 0)) {
    throw new UsageError(`fio: failed parsing size=${sizeText}`);
  }
  const seed = Number(switches.get("seed") ?? 1);
  if (!Number.isSafeInteger(seed)) {
    throw new UsageError(`fio: failed parsing seed=${switches.get("seed")}`);
  }
  return {
    fs: word("fs", ["xfs", "none"]),
    device: switches.get("device") ?? DEFAULT_DEVICE,
    clock: word("clock", ["virtual", "real"]),
    size,
    image: switches.get("image") ?? null,
    seed,
    mountOptions: switches.get("mount") ?? "",
    output: switches.get("output") ?? null,
    formats,
    eta: word("eta", ["auto", "always", "never"]),
  };
}

/** Device and what is on it. */
interface Stack extends AsyncDisposable {
  device: NvmeDevice;
  storage: Storage;
}

async function makeStack(settings: Settings): Promise<Stack> {
  const clock: Clock = settings.clock === "real"
    ? new RealClock()
    : new VirtualClock();
  const isBlank = settings.image === null || await isBlankImage(settings.image);
  const device = makeDevice(settings, clock);
  try {
    if (settings.fs === "none") {
      return {
        device,
        storage: new RawStorage(device),
        [Symbol.asyncDispose]: () => Promise.resolve(device.close()),
      };
    }
    if (isBlank) await mkfsXfs(device);
    const fs = await mount(device, xfs, { options: settings.mountOptions });
    return {
      device,
      storage: new FileStorage(fs, clock),
      async [Symbol.asyncDispose]() {
        await fs.unmount();
        device.close();
      },
    };
  } catch (error) {
    device.close();
    throw error;
  }
}

function makeDevice(settings: Settings, clock: Clock): NvmeDevice {
  const { image, size, device: preset, seed } = settings;
  if (image === null) {
    return createNvme(clock, { preset, seed, size: size ?? DEFAULT_SIZE });
  }
  // The size of an image that is there is its own.
  const media = FileMedia.open(
    image,
    size === null && hasBytes(image) ? {} : { size: size ?? DEFAULT_SIZE },
  );
  return createNvme(clock, { preset, seed, media });
}

function hasBytes(path: string): boolean {
  try {
    return Deno.statSync(path).size > 0;
  } catch (error) {
    // What else is wrong with it, FileMedia says.
    return !(error instanceof Deno.errors.NotFound);
  }
}

/** Whether nothing is on an image: it is absent, or begins with zeroes only. */
async function isBlankImage(path: string): Promise<boolean> {
  try {
    using file = await Deno.open(path);
    const head = new Uint8Array(BLANK_CHECK_BYTES);
    const n = await file.read(head) ?? 0;
    return head.subarray(0, n).every((byte) => byte === 0);
  } catch (error) {
    // What cannot be read must not be made anew; FileMedia says why.
    return error instanceof Deno.errors.NotFound;
  }
}

/** Follows what the device does from now on. */
function watchDevice(device: NvmeDevice): (elapsedNs: number) => DiskUtil[] {
  const { read, write, timeInQueue, ioTicks } = device.stats;
  const [readBefore, writeBefore] = [{ ...read }, { ...write }];
  const ms = (ns: number) => Math.round(ns / 1e6);
  return (elapsedNs) => {
    const busy = device.stats.ioTicks - ioTicks;
    return [{
      name: device.name,
      readIos: read.ios - readBefore.ios,
      writeIos: write.ios - writeBefore.ios,
      readMerges: read.merges - readBefore.merges,
      writeMerges: write.merges - writeBefore.merges,
      readTicksMs: ms(read.ticks - readBefore.ticks),
      writeTicksMs: ms(write.ticks - writeBefore.ticks),
      inQueueMs: ms(device.stats.timeInQueue - timeInQueue),
      utilPercent: elapsedNs === 0 ? 0 : Math.min(100, busy / elapsedNs * 100),
    }];
  };
}

function collectJobs(line: CommandLine, host: ParseHost): JobSet {
  const parser = new JobParser(host, line.sections);
  for (const { name, options } of line.jobs) {
    parser.commandLine(name, options);
  }
  let barrier = false;
  for (const file of line.files) {
    parser.file(file, barrier);
    barrier = true;
  }
  return parser.result;
}

/** Writes all of a text, in pieces if need be. */
function printTo(sink: { writeSync(p: Uint8Array): number }, text: string) {
  const bytes = new TextEncoder().encode(text);
  try {
    for (let at = 0; at < bytes.length;) {
      at += sink.writeSync(bytes.subarray(at));
    }
  } catch (error) {
    // Nobody reads any more (`| head`): the run goes on, so that an image is whole.
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}

function readText(path: string): string | null {
  try {
    if (path !== "-") return Deno.readTextFileSync(path);
    const parts: Uint8Array[] = [];
    const buffer = new Uint8Array(65536);
    for (;;) {
      const n = Deno.stdin.readSync(buffer);
      if (n === null) break;
      parts.push(buffer.slice(0, n));
    }
    return parts.map((p) => new TextDecoder().decode(p)).join("");
  } catch {
    return null;
  }
}

/** Empties or makes the file of `--output`. */
function openOutput(path: string): Deno.FsFile {
  try {
    return Deno.openSync(path, { write: true, create: true, truncate: true });
  } catch (error) {
    throw new UsageError(
      `fio: output file open error: ${(error as Error).message}`,
    );
  }
}

async function runSet(
  set: JobSet,
  settings: Settings,
  out: (text: string) => void,
  err: (text: string) => void,
): Promise<number> {
  const isNormal = settings.formats.includes("normal");
  const isShown = settings.eta === "always" ||
    (settings.eta === "auto" && Deno.stderr.isTerminal());
  await using stack = await makeStack(settings);
  let disks = watchDevice(stack.device);
  const { report, failed } = await runJobs(set, stack.storage, {
    seed: settings.seed,
    virtual: settings.clock === "virtual",
    announce: isNormal ? out : () => {},
    info: isNormal ? out : err,
    err,
    progress: isShown ? err : null,
    disks: (elapsedNs) => disks(elapsedNs),
    onStart: () => {
      disks = watchDevice(stack.device);
    },
  });
  const { formats } = settings;
  if (formats.includes("json+")) out(jsonReport(report, true) + "\n");
  else if (formats.includes("json")) out(jsonReport(report) + "\n");
  if (isNormal) out(normalReport(report));
  return failed;
}

/**
 * Runs fio.
 *
 * @param args The command line.
 * @returns The exit status: the number of jobs that failed, or 1 if none could
 *   be run.
 */
export async function main(args: readonly string[]): Promise<number> {
  const err = (text: string) => printTo(Deno.stderr, text);
  let out = (text: string) => printTo(Deno.stdout, text);
  try {
    const line = readCommandLine(args);
    if (line.switches.has("help") || line.switches.has("version")) {
      out(line.switches.has("help") ? USAGE : "fio-3.33\n");
      return 0;
    }
    const settings = readSettings(line.switches);
    const env = (name: string) => Deno.env.get(name);
    const set = collectJobs(line, { env, read: readText, out, err });
    if (set.jobs.length === 0) {
      out(USAGE);
      err("No job(s) defined\n\n");
      return 1;
    }
    if (line.switches.has("readonly")) refuseWriters(set);
    if (line.switches.has("parse-only")) return 0;
    if (settings.output === null) return await runSet(set, settings, out, err);
    using file = openOutput(settings.output);
    out = (text) => printTo(file, text);
    return await runSet(set, settings, out, err);
  } catch (error) {
    if (error instanceof UsageError) err(error.message + "\n");
    else if (error instanceof FsError) err(`fio: ${error.message}\n`);
    // The parser has printed what was wrong.
    else if (!(error instanceof ParseError)) throw error;
    return 1;
  }
}

function refuseWriters(set: JobSet): void {
  const writer = set.jobs.find(({ options: o }) => o.write || o.trim);
  if (writer === undefined) return;
  throw new UsageError(
    `fio: job <${writer.options.name}> has write or trim bit set, ` +
      "but fio is in read-only mode",
  );
}

if (import.meta.main) Deno.exitCode = await main(Deno.args);
