/**
 * Random schedules: many calls on one file at once, in an order that a seed gives.
 *
 * Goal: what only some order of events shows: data that is lost, or stale or torn
 * where it must not be, wrong sizes, hangs, lock orders that contradict each other.
 * Method: a plan of calls, drawn from a seed, is run on a stack whose wake-ups and
 * completions come in chance order. Oracle: a model of what each byte may be while
 * calls overlap; it has to be exact once nothing goes on, and after unmount and mount.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  FsError,
  type FsFile,
  MemoryFault,
  type MemoryMapping,
  type Mount,
  mount,
  SEEK_CUR,
  SEEK_DATA,
  SEEK_HOLE,
  xfs,
} from "../../mod.ts";
import { clearWarnOnce, setWarningHandler } from "../../lib/bug.ts";
import { setLogHandler } from "../../lib/printk.ts";
import { Prng } from "../../lib/prng.ts";
import { setScheduler } from "../../lib/wait.ts";
import { exampleFs } from "../example_fs.ts";
import { checkIdle, checkNoFolios } from "../fs/xfs/stress.ts";
import { checkPageTables } from "../mm/checks.ts";
import { asTask, checkLocks } from "../lockdep.ts";
import {
  ContentModel,
  type Effect,
  type Pending,
  type SizeChange,
  type SizeLook,
  SizeModel,
} from "./schedules_model.ts";
import {
  ChanceDisk,
  freshDisk,
  oneIn,
  SchedulingClock,
} from "./schedules_stack.ts";
import { assertCleanImage } from "../fs/xfs/clean.ts";

const KiB = 1024;
const PAGE = 4096;

/** What a task may call. */
type Kind =
  | "read"
  | "write"
  | "append"
  | "direct read"
  | "direct write"
  | "load"
  | "store"
  | "truncate"
  | "punch"
  | "zero"
  | "allocate"
  | "sync"
  | "sync range"
  | "drop"
  | "fiemap"
  | "seek"
  | "reopen"
  | "msync"
  | "forget";

/** One call of a plan. */
export interface PlannedCall {
  round: number;
  task: number;
  kind: Kind;
  at: number;
  len: number;
  /** The synchronous twin is tried first. */
  sync: boolean;
  /** What else there is to choose: 0 to 7. */
  choice: number;
  /** Nanoseconds before it. */
  delay: number;
}

/** All that a run is made of: the same plan gives the same run. */
export interface Plan {
  seed: number;
  /** The XFS-like file system, or the example of the README. */
  fs: "xfs" | "example";
  blockSize: number;
  /** Bytes of page cache. */
  memory: number;
  /** Largest file. */
  capacity: number;
  /** What the file is at first: written and not cached, nothing but promised space, or
   * a hole. */
  start: "written" | "allocated" | "hole";
  /** Its size. */
  size: number;
  failReads: number;
  failWrites: number;
  calls: PlannedCall[];
}

const WRITERS: Kind[] = ["write", "append", "direct write", "store"];
const KINDS: Kind[] = [
  ...WRITERS,
  "read",
  "direct read",
  "load",
  "truncate",
  "punch",
  "zero",
  "allocate",
  "sync",
  "sync range",
  "msync",
  "drop",
  "forget",
  "fiemap",
  "seek",
  "reopen",
];

/** Mixtures whose calls get into each other's way most. */
const MIXTURES: Kind[][] = [
  // What is behind the end of the file.
  ["truncate", "truncate", "store", "store", "load", "write", "append", "drop"],
  ["truncate", "store", "load", "direct write", "append", "drop"],
  // Mappings that are not true any more.
  ["write", "write", "load", "load", "drop", "sync range"],
  // Two that fill up the same block; what a reader caches meanwhile.
  ["direct write", "direct write", "read", "load", "truncate", "reopen"],
  ["direct write", "direct read", "punch", "zero", "allocate", "read"],
  // Space that is promised, and taken back.
  ["write", "store", "load", "punch", "zero", "allocate", "sync range"],
];

/** Draws the few kinds of calls that a seed uses: of all together few would meet. */
function kindsOf(prng: Prng, fs: Plan["fs"]): Kind[] {
  const kinds = oneIn(prng, 2)
    ? pick(prng, MIXTURES)
    : [...KINDS.filter(() => oneIn(prng, 3)), pick(prng, WRITERS)];
  return kinds.filter((kind) => has(fs, kind));
}

/** The example has no fallocate. */
function has(fs: Plan["fs"], kind: Kind): boolean {
  return fs === "xfs" || !["punch", "zero", "allocate"].includes(kind);
}

/** KiB of the largest file, and of the page cache. */
const SIZES: [number, number][] = [
  [8, 1600],
  [24, 160],
  [64, 64],
  [200, 64],
  [200, 64],
  [200, 1600],
];

function pick<T>(prng: Prng, list: readonly T[]): T {
  return list[prng.below(list.length)]!;
}

/** Places of a file at which calls meet: its ends, and those of what they do. */
function spotsOf(prng: Prng, capacity: number): number[] {
  const unit = pick(prng, [1, 512, PAGE]);
  return Array.from({ length: 1 + prng.below(3) }, () => {
    const spot = prng.below(capacity);
    return spot - spot % unit;
  });
}

/** Draws where a call goes: mostly it begins or ends near one of the spots. */
function rangeOf(
  prng: Prng,
  capacity: number,
  spots: readonly number[],
): { at: number; len: number } {
  const longest = pick(prng, [600, 5000, 20_000, 20_000]);
  const len = Math.min(1 + prng.below(longest), capacity - 1);
  const near = pick(prng, [1, 600, 4000]);
  const spot = pick(prng, spots) + prng.below(2 * near) - near;
  const at = pick(prng, [prng.below(capacity - len), spot, spot, spot - len]);
  return { at: Math.max(0, Math.min(at, capacity - 1 - len)), len };
}

/** Draws the plan of a seed. */
export function planOf(seed: number): Plan {
  const prng = new Prng(seed, "plan");
  const fs = oneIn(prng, 6) ? "example" : "xfs";
  const kinds = kindsOf(prng, fs);
  const [most, cache] = pick(prng, SIZES);
  const capacity = most * KiB;
  const spots = spotsOf(prng, capacity);
  const tasks = 2 + prng.below(5);
  const rounds = 2 + prng.below(5);
  const faulty = oneIn(prng, 5);
  const calls: PlannedCall[] = [];
  for (let round = 0; round < rounds; round++) {
    for (let n = tasks * (3 + prng.below(6)); n > 0; n--) {
      calls.push({
        round,
        task: prng.below(tasks),
        kind: pick(prng, kinds),
        ...rangeOf(prng, capacity, spots),
        sync: oneIn(prng, 4),
        choice: prng.below(8),
        delay: oneIn(prng, 2) ? 0 : prng.below(60_000),
      });
    }
  }
  return {
    seed,
    fs,
    blockSize: fs === "xfs" ? pick(prng, [1024, 4096]) : 4096,
    memory: cache * KiB,
    capacity,
    start: fs === "xfs"
      ? pick(prng, ["written", "allocated", "hole", "hole"])
      : pick(prng, ["written", "hole"]),
    size: pick(prng, [0, capacity, ...spots]),
    failReads: faulty && oneIn(prng, 2) ? 12 : 0,
    failWrites: faulty && oneIn(prng, 2) ? 12 : 0,
    calls,
  };
}

/**
 * Runs a plan on a stack of its own; fails where anything is as it must not be.
 *
 * @returns When it ended, nanoseconds.
 */
export async function runPlan(plan: Plan): Promise<number> {
  const { seed, blockSize } = plan;
  const warnings: string[] = [];
  const memory = await freshDisk(blockSize);
  const prng = new Prng(seed, "schedule");
  const clock = new SchedulingClock(prng);
  const disk = new ChanceDisk(clock, memory, prng);
  clearWarnOnce();
  const oldWarn = setWarningHandler((message) => warnings.push(message));
  const oldLog = setLogHandler(() => {});
  const oldWake = setScheduler(clock.wake);
  try {
    await checkLocks(() =>
      unlessHung(clock, new Run(plan, clock, disk).whole())
    );
    assertEquals(warnings, []);
    return clock.now();
  } finally {
    setWarningHandler(oldWarn);
    setLogHandler(oldLog);
    setScheduler(oldWake);
  }
}

/** Turns without an event after which what waits will wait for ever. */
const IDLE_TURNS = 16;
/** Turns after which a run will not come to an end. */
const MAX_TURNS = 200_000;

async function unlessHung(
  clock: SchedulingClock,
  work: Promise<void>,
): Promise<void> {
  let settled = false;
  const settle = () => settled = true;
  work.then(settle, settle);
  for (let turns = 0, idle = 0; !settled; turns++) {
    await turn();
    idle = clock.dry ? idle + 1 : 0;
    if (idle > IDLE_TURNS) throw new Error(`hung at ${clock.now()} ns`);
    if (turns > MAX_TURNS) throw new Error(`endless at ${clock.now()} ns`);
  }
  await work;
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Bytes that are read ahead. */
const READAHEAD = 128 * KiB;
/** The choice that makes a write not wait. */
const NOWAIT = 2;

/** A write past the cache, and what the size of the file may have been meanwhile. */
interface PastCache {
  effect: Effect;
  sizes: SizeLook;
}

/** A run of a plan. */
class Run {
  readonly #plan: Plan;
  readonly #clock: SchedulingClock;
  readonly #disk: ChanceDisk;
  readonly #content: ContentModel;
  readonly #size = new SizeModel();
  /** Steps of the history. */
  #now = 0;
  #fs!: Mount;
  #file!: FsFile;
  #direct!: FsFile;
  #map!: MemoryMapping;
  /** By task: each has a position of its own. */
  #appenders: FsFile[] = [];
  /** What went past the cache in this round, and what went into it: calls of the two
   * that overlap may lose what went past (as the kernel warns). */
  #past: PastCache[] = [];
  #into: Effect[] = [];
  readonly #stores = new Set<Effect>();
  /** All that was to be stored in this round, behind the end of the file too. */
  #stored: { at: number; data: Uint8Array }[] = [];
  #looks: (() => void)[] = [];
  /** Calls that nobody waits for any more. */
  #abandoned: { effect: Effect | null; pending: Pending | null }[] = [];

  constructor(plan: Plan, clock: SchedulingClock, disk: ChanceDisk) {
    this.#plan = plan;
    this.#clock = clock;
    this.#disk = disk;
    this.#content = new ContentModel(plan.capacity + 2 * PAGE);
    disk.lost = () => this.#content.tainted = true;
  }

  async whole(): Promise<void> {
    const rounds = Math.max(...this.#plan.calls.map((c) => c.round), -1) + 1;
    await this.#mount();
    await asTask(() => this.#begin());
    for (let round = 0; round < rounds; round++) {
      await this.#round(round);
      await this.#settle();
    }
    const contents = await this.#read(this.#file, this.#file.statSync().size);
    await this.#unmount();
    // What the example knows of files is in memory alone.
    if (this.#plan.fs === "example") return;
    await this.#mount();
    const again = await this.#read(this.#file, this.#file.statSync().size);
    assertSame(again, contents, "after unmount and mount");
    await this.#unmount();
  }

  /** Makes the file what it is at first. */
  async #begin(): Promise<void> {
    const { start, size } = this.#plan;
    const contents = new Uint8Array(size);
    if (start === "hole") await this.#file.truncate(size);
    else if (size > 0 && start === "allocated") {
      await this.#file.fallocate(0, 0, size);
    } else if (size > 0) {
      contents.set(this.#data(size));
      await this.#file.write(contents, { at: 0 });
    }
    await this.#file.sync();
    await this.#file.advise("dontneed", 0, 0);
    this.#content.settle(contents);
    this.#size.settle(size);
  }

  async #mount(): Promise<void> {
    const { memory, fs: name } = this.#plan;
    const type = name === "xfs" ? xfs : exampleFs;
    const fs = await asTask(() => mount(this.#disk, type, { memory }));
    const options = { read: true, write: true, create: true };
    this.#fs = fs;
    this.#file = await asTask(() => fs.open("/f", options));
    this.#direct = await asTask(() =>
      fs.open("/f", { ...options, direct: true })
    );
  }

  async #unmount(): Promise<void> {
    this.#file.close();
    this.#direct.close();
    await asTask(() => this.#fs.unmount());
    checkNoFolios(this.#fs.superBlock);
    if (this.#plan.fs !== "xfs") return;
    checkIdle(this.#fs.superBlock);
    assertCleanImage(this.#disk.memory);
  }

  /** Runs the calls of a round: one after the other in each task, the tasks at once. */
  async #round(round: number): Promise<void> {
    const { calls, capacity, failReads, failWrites } = this.#plan;
    const tasks = Map.groupBy(
      calls.filter((call) => call.round === round),
      (call) => call.task,
    );
    const whole = { length: capacity, write: true };
    this.#map = this.#file.mmapSync(whole);
    for (const task of tasks.keys()) {
      const options = { append: true, read: true };
      this.#appenders[task] = await asTask(() => this.#fs.open("/f", options));
    }
    this.#disk.failReads = failReads;
    this.#disk.failWrites = failWrites;
    await Promise.all([...tasks.values()].map((list) => this.#task(list)));
    while (!this.#clock.dry) await turn();
    this.#disk.failReads = this.#disk.failWrites = 0;
    checkPageTables(this.#fs.superBlock);
    this.#map.unmap();
    for (const appender of this.#appenders) appender?.close();
    this.#appenders = [];
  }

  async #task(calls: readonly PlannedCall[]): Promise<void> {
    for (const call of calls) {
      if (call.delay > 0) await this.#clock.sleep(call.delay);
      try {
        await asTask(() => this.#call(call));
      } catch (error) {
        if (!this.#mayFail(call, error)) {
          throw new Error(`${nameOf(call)}: ${error}`, { cause: error });
        }
      }
    }
  }

  #mayFail({ round, kind, choice }: PlannedCall, error: unknown): boolean {
    if (!(error instanceof FsError)) return false;
    if (error.code === "ENXIO") return kind === "seek";
    if (error.code === "EAGAIN") return kind === "write" && choice === NOWAIT;
    // All of so small a memory may be waiting to be read at once.
    if (error.code === "ENOMEM") return this.#plan.memory < 2 * READAHEAD;
    if (error instanceof MemoryFault && kind === "forget") return true;
    if (error.code !== "EIO") return false;
    // What a store has promised space for cannot be reached past the cache.
    const stored = kind.startsWith("direct") &&
      this.#plan.calls.some((c) => c.round === round && c.kind === "store");
    // A sync, or a write that ends with one, also tells of data that a collision has
    // lost.
    return this.#faulty || stored || this.#collided();
  }

  #call(call: PlannedCall): Promise<unknown> {
    const { at, len, choice } = call;
    switch (call.kind) {
      case "read":
        return this.#pread(call, this.#file, at, len);
      case "direct read": {
        const range = this.#aligned(call);
        return this.#pread(call, this.#direct, range.at, range.len);
      }
      case "write":
        return this.#write(call);
      case "append":
        return this.#append(call);
      case "direct write":
        return this.#directWrite(call);
      case "load":
        return this.#load(call);
      case "store":
        return this.#store(call);
      case "truncate":
        return this.#truncate(call);
      case "punch":
        return this.#space(call, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
      case "zero":
        return this.#space(
          call,
          FALLOC_FL_ZERO_RANGE | (choice & FALLOC_FL_KEEP_SIZE),
        );
      case "allocate":
        return this.#space(call, choice & FALLOC_FL_KEEP_SIZE);
      case "sync":
        return oneOf(choice, [
          () => this.#file.sync(),
          () => this.#file.syncData(),
          () => this.#fs.sync(),
        ])();
      case "sync range":
        return this.#file.syncRange(at, len, choice);
      case "msync":
        return this.#map.sync();
      case "drop":
        return this.#file.advise(choice < 6 ? "dontneed" : "willneed", at, len);
      case "reopen":
        return this.#reopen();
      case "forget": {
        const offset = at - at % PAGE;
        const advice = choice < 5 ? "dontneed" : "populate-read";
        return this.#map.advise(advice, offset, Math.min(len, PAGE));
      }
      case "fiemap":
        return this.#file.fiemap({ sync: choice < 2 });
      case "seek":
        return this.#file.seek(at, choice < 4 ? SEEK_DATA : SEEK_HOLE);
    }
  }

  /** The last close of a writer gives space back. */
  async #reopen(): Promise<void> {
    const file = await this.#fs.open("/f", { write: true });
    await file[Symbol.asyncDispose]();
  }

  async #pread(
    call: PlannedCall,
    file: FsFile,
    at: number,
    len: number,
  ): Promise<void> {
    let p = new Uint8Array(len).fill(0xee);
    const options = oneOf(call.choice, [{ at }, { at }, { at }, {
      at,
      dontcache: file === this.#file,
    }]);
    const start = ++this.#now;
    const look = this.#size.look();
    try {
      const n = await either(
        call.sync,
        () => file.readSync(p, options),
        // What was begun still goes on, and may fill the buffer at any time.
        () => file.read(p = p.slice(), options),
      ) ?? 0;
      const possible = [...look].some((size) => {
        const most = Math.max(0, Math.min(len, size - at));
        return n === most || this.#faulty && n > 0 && n < most;
      });
      const sizes = [...look].join(" or ");
      assert(possible, `${nameOf(call)} got ${n} bytes, size ${sizes}`);
      this.#look(call, start, at, p.subarray(0, n));
    } catch (error) {
      const past = file === this.#direct && this.#endsBefore(look, at + len);
      if (!past || !isError(error, "EIO")) throw error;
    } finally {
      this.#size.looked(look);
    }
  }

  /**
   * Whether the last block of the file may end before `end`. A read past the cache walks
   * on to where it was asked to end, and answers EIO, as Linux 6.18 does, where space
   * beyond the end of the file is promised to a write that was cached: a write past the
   * cache has made the file end before it.
   */
  #endsBefore(look: SizeLook, end: number): boolean {
    const { blockSize } = this.#plan;
    return [...look].some((size) =>
      Math.ceil(size / blockSize) * blockSize < end
    );
  }

  /** What was read is compared once all of the round is known. */
  #look(call: PlannedCall, start: number, at: number, data: Uint8Array): void {
    const look = { what: nameOf(call), start, end: ++this.#now, at, data };
    this.#looks.push(() => {
      const wrong = this.#content.check(look);
      if (wrong !== null) throw new Error(wrong);
    });
  }

  /** Behind the end of the file there are zeroes, and what somebody has stored there. */
  #lookBehind(call: PlannedCall, at: number, data: Uint8Array): void {
    this.#looks.push(() => {
      for (let i = 0; i < data.length; i++) {
        const stored = this.#stored.some(({ at: from, data: bytes }) =>
          bytes[at + i - from] === data[i]
        );
        if (data[i] === 0 || stored) continue;
        throw new Error(
          `${nameOf(call)}: byte ${at + i} behind the end is ${data[i]}`,
        );
      }
    });
  }

  #effect(from: number, to: number, data: Uint8Array | null): Effect {
    const start = ++this.#now;
    const effect = { start, end: Infinity, from, to, data, sure: false };
    this.#content.effects.push(effect);
    return effect;
  }

  /** A write has ended. @param done Bytes; the rest may be there or not. */
  #written(effect: Effect, done: number): void {
    effect.end = ++this.#now;
    effect.sure = true;
    const { from, to, data } = effect;
    if (done === to - from) return;
    effect.to = from + done;
    const rest = data?.subarray(done) ?? null;
    const { start, end } = effect;
    const unsure = { start, end, from: from + done, to, data: rest };
    this.#content.effects.push({ ...unsure, sure: false });
  }

  /** Calls the synchronous twin; if that cannot go on, it may still do its work. */
  async #either<T>(
    call: PlannedCall,
    effect: Effect,
    change: SizeChange | null,
    now: () => T,
    later: () => Promise<T>,
  ): Promise<T> {
    if (!call.sync) return await asTask(later);
    try {
      return now();
    } catch (error) {
      if (!isError(error, "EAGAIN")) throw error;
      const pending = change === null ? null : this.#size.begin(change);
      const again = { ...effect };
      this.#content.effects.push(again);
      this.#collidesAs(effect, again);
      this.#abandoned.push({ effect: again, pending });
      return await asTask(later);
    }
  }

  /** What somebody does a second time can collide a second time. */
  #collidesAs(effect: Effect, again: Effect): void {
    if (this.#into.includes(effect)) this.#into.push(again);
    if (this.#stores.has(effect)) this.#stores.add(again);
    const past = this.#past.find((p) => p.effect === effect);
    if (past !== undefined) this.#past.push({ ...past, effect: again });
  }

  async #write(call: PlannedCall): Promise<void> {
    const { at, len, choice } = call;
    const data = this.#data(len);
    const options = {
      at,
      dsync: choice === 0,
      dontcache: choice === 1,
      nowait: choice === NOWAIT,
    };
    const effect = this.#effect(at, at + len, data);
    this.#into.push(effect);
    const partial = this.#faulty || options.nowait;
    const change = extend(at, len, partial ? this.#plan.blockSize : 0);
    const pending = this.#size.begin(change);
    try {
      const n = await this.#either(
        call,
        effect,
        change,
        () => this.#file.writeSync(data, options),
        () => this.#file.write(data, options),
      );
      assert(n === len || partial, `${nameOf(call)} wrote ${n}`);
      this.#written(effect, n);
      this.#size.end(pending, n === len ? true : null);
    } catch (error) {
      effect.end = ++this.#now;
      this.#size.end(pending, null);
      throw error;
    }
  }

  /** Whether the device fails now and then. */
  get #faulty(): boolean {
    return this.#plan.failReads > 0 || this.#plan.failWrites > 0;
  }

  async #append(call: PlannedCall): Promise<void> {
    const { len } = call;
    const file = this.#appenders[call.task]!;
    if (Math.max(...this.#size.sizes) + len > this.#plan.capacity) return;
    const data = this.#data(len);
    // Nobody knows where it goes before it has ended.
    const effect = this.#effect(0, 0, data);
    this.#into.push(effect);
    const pending = this.#size.begin((size) => [size + len]);
    try {
      const n = await file.write(data);
      const to = file.seekSync(0, SEEK_CUR);
      effect.from = to - n;
      effect.to = effect.from + len;
      assert(n === len || this.#faulty, `${nameOf(call)} wrote ${n}`);
      this.#written(effect, n);
      this.#size.end(pending, n === len ? true : null);
    } catch (error) {
      effect.end = ++this.#now;
      this.#size.end(pending, false);
      throw error;
    }
  }

  /** Direct I/O goes by sectors, and mostly by blocks. */
  #aligned({ at, len, choice }: PlannedCall): { at: number; len: number } {
    const unit = choice < 3 ? 512 : PAGE;
    const from = at - at % unit;
    const most = this.#plan.capacity - from;
    return { at: from, len: Math.min(Math.ceil(len / unit) * unit, most) };
  }

  async #directWrite(call: PlannedCall): Promise<void> {
    const { at, len } = this.#aligned(call);
    const data = this.#data(len);
    const options = { at, dsync: call.choice === 4 };
    const effect = this.#effect(at, at + len, data);
    // Where the cache could not be written back, it goes through the cache.
    const change = extend(at, len, this.#faulty ? this.#plan.blockSize : 0);
    const pending = this.#size.begin(change);
    const sizes = this.#size.look();
    this.#past.push({ effect, sizes });
    try {
      const n = await this.#either(
        call,
        effect,
        change,
        () => this.#direct.writeSync(data, options),
        () => this.#direct.write(data, options),
      );
      assert(n === len || this.#faulty, `${nameOf(call)} wrote ${n}`);
      this.#written(effect, n);
      this.#size.end(pending, n === len ? true : null);
    } catch (error) {
      effect.end = ++this.#now;
      this.#size.end(pending, null);
      throw error;
    } finally {
      this.#size.looked(sizes);
    }
  }

  async #load(call: PlannedCall): Promise<void> {
    const { at, len } = call;
    const p = new Uint8Array(len).fill(0xee);
    const start = ++this.#now;
    const look = this.#size.look();
    try {
      await either(
        call.sync,
        () => this.#map.loadSync(at, p),
        () => this.#map.load(at, p),
      );
      const shown = Math.min(...look);
      const some = Math.ceil(Math.max(...look) / PAGE) * PAGE;
      assert(some >= at + len, `${nameOf(call)} beyond the end of the file`);
      const n = Math.max(0, Math.min(len, shown - at));
      this.#look(call, start, at, p.subarray(0, n));
      const behind = Math.max(at, ...look);
      this.#lookBehind(call, behind, p.subarray(behind - at));
    } catch (error) {
      this.#checkSignal(call, error, look);
    } finally {
      this.#size.looked(look);
    }
  }

  /** SIGBUS tells of the end of the file.
   * @returns Bytes before it. */
  #checkSignal(call: PlannedCall, error: unknown, look: Set<number>): number {
    if (!(error instanceof MemoryFault)) throw error;
    if (this.#faulty) return error.offset - call.at;
    const { offset } = error;
    const page = offset - offset % PAGE;
    const possible = [...look].some((size) => size <= page);
    const sizes = [...look].join(" or ");
    assert(possible, `${nameOf(call)}: SIGBUS at ${offset}, size ${sizes}`);
    return offset - call.at;
  }

  async #store(call: PlannedCall): Promise<void> {
    const { at, len } = call;
    const data = this.#data(len);
    const effect = this.#effect(at, at + len, data);
    this.#into.push(effect);
    this.#stores.add(effect);
    this.#stored.push({ at, data });
    const look = this.#size.look();
    let done = len;
    try {
      await this.#either(
        call,
        effect,
        null,
        () => this.#map.storeSync(at, data),
        () => this.#map.store(at, data),
      );
    } catch (error) {
      done = this.#checkSignal(call, error, look);
    } finally {
      this.#size.looked(look);
    }
    // What was stored behind the end of the file never gets into it.
    const most = Math.max(...look);
    const least = Math.min(...look);
    effect.to = Math.max(at, Math.min(at + done, most));
    this.#written(effect, Math.max(0, Math.min(effect.to, least) - at));
  }

  async #truncate(call: PlannedCall): Promise<void> {
    const { at } = call;
    const effect = this.#effect(at, Infinity, null);
    const pending = this.#size.begin(() => [at]);
    try {
      await this.#file.truncate(at);
      this.#written(effect, Infinity);
      this.#size.end(pending, true);
    } catch (error) {
      effect.end = ++this.#now;
      this.#size.end(pending, null);
      throw error;
    }
  }

  async #space(call: PlannedCall, mode: number): Promise<void> {
    const { at, len } = call;
    const zeroes = (mode & ~FALLOC_FL_KEEP_SIZE) !== 0;
    const effect = this.#effect(at, zeroes ? at + len : at, null);
    const grows = (mode & FALLOC_FL_KEEP_SIZE) === 0;
    const pending = grows ? this.#size.begin(extend(at, len, 0)) : null;
    let done: boolean | null = null;
    try {
      await this.#file.fallocate(mode, at, len);
      done = true;
    } finally {
      if (done) this.#written(effect, effect.to - effect.from);
      else effect.end = ++this.#now;
      if (pending !== null) this.#size.end(pending, done);
    }
  }

  #dataCount = 0;
  /** Bytes like no others of this run, none of them 0. */
  #data(len: number): Uint8Array {
    const data = new Uint8Array(len);
    const first = this.#dataCount++ * 37;
    for (let i = 0; i < len; i++) {
      data[i] = 1 + (first + i * 7 + (i >> 7) * 3) % 255;
    }
    return data;
  }

  /** Whether two calls met: at the same time, in the same pages. A store dirties all
   * of a folio, however large. */
  #overlap(past: Effect, into: Effect): boolean {
    const met = into.start <= past.end && into.end >= past.start;
    if (past === into || !met) return false;
    if (this.#stores.has(into)) return true;
    const from = into.from - into.from % PAGE;
    const to = Math.ceil(into.to / PAGE) * PAGE;
    return past.from < to && past.to > from;
  }

  /** Whether something went into the cache while something else went past it. */
  #collided(): boolean {
    const cached = this.#cached();
    return this.#past.some(({ effect }) =>
      cached.some((into) => this.#overlap(effect, into))
    );
  }

  /** What went into the cache. What was to go past it did so too if somebody stored to
   * its pages before they could be dropped. */
  #cached(): Effect[] {
    const stores = [...this.#stores];
    const refused = this.#past.map(({ effect }) => effect).filter((past) =>
      stores.some((store) => this.#overlap(past, store))
    );
    return [...this.#into, ...refused];
  }

  /** Of two that collided either may be lost: what went past the cache under what
   * was cached; what was stored under zeroes that fill up a block past the cache. */
  #loseCollided(): boolean {
    let any = false;
    const cached = this.#cached();
    for (const { effect: past } of this.#past) {
      for (const into of cached) {
        if (!this.#overlap(past, into)) continue;
        any = true;
        past.sure = false;
        if (this.#stores.has(into)) into.sure = false;
      }
    }
    return any;
  }

  /**
   * A page in which the file ends gets blocks for what of it is in the file, once it
   * is first stored to. What makes the file longer then takes the permission to store
   * away, so that the next store gets blocks for the rest; but not what goes past the
   * cache (Linux 6.18: `xfs_dio_write_end_io` sets the size, and nobody calls
   * `pagecache_isize_extended`). Until the page is written back, what is stored behind
   * the block of the old end has no block, and goes with the page.
   */
  #loseBehindEnd(): boolean {
    const { blockSize } = this.#plan;
    let any = false;
    for (const { effect: past, sizes } of this.#past) {
      for (const size of sizes) {
        const from = Math.ceil(size / blockSize) * blockSize;
        const to = Math.ceil(size / PAGE) * PAGE;
        if (from === to || size >= past.to) continue;
        const first = this.#firstStore(past, to - PAGE, to);
        for (const store of this.#stores) {
          if (store.end >= first && this.#doubt(store, from, to)) any = true;
        }
      }
    }
    return any;
  }

  /** When the first store to a range began that met a write past the cache;
   * Infinity if none did. */
  #firstStore(past: Effect, from: number, to: number): number {
    let first = Infinity;
    for (const { start, end, from: at, to: stop } of this.#stores) {
      const met = start <= past.end && end >= past.start;
      if (met && at < to && stop > from) first = Math.min(first, start);
    }
    return first;
  }

  /** What of an effect lies in a range may be lost; false if nothing does. */
  #doubt(effect: Effect, from: number, to: number): boolean {
    const { effects } = this.#content;
    const start = Math.max(from, effect.from);
    const end = Math.min(to, effect.to);
    if (start >= end || !effect.sure) return false;
    if (effect.to > end) effects.push(part(effect, end, effect.to));
    effects.push({ ...part(effect, start, end), sure: false });
    effect.to = start;
    return true;
  }

  /** Nothing goes on: what is there now is compared, and is what there is. */
  async #settle(): Promise<void> {
    for (const { effect, pending } of this.#abandoned.splice(0)) {
      if (effect !== null) effect.end = ++this.#now;
      if (pending !== null) this.#size.end(pending, null);
    }
    const collided = this.#loseCollided();
    const lost = this.#loseBehindEnd();
    const { tainted } = this.#content;
    for (const check of this.#looks.splice(0)) check();
    const { size } = this.#file.statSync();
    const sizes = this.#size.sizes;
    const sizeText = sizes.join(" or ");
    assert(sizes.includes(size), `size ${size}, not ${sizeText}`);
    if (collided || lost || tainted) await this.#reconcile();
    const contents = await this.#read(this.#file, size);
    const start = ++this.#now;
    const wrong = this.#content.check({
      what: "the end of the round",
      start,
      end: ++this.#now,
      at: 0,
      data: contents,
    });
    if (wrong !== null) throw new Error(wrong);
    await this.#checkHoles(contents);
    const past = await this.#read(this.#direct, size);
    if (!tainted) assertSame(past, contents, "directly read");
    this.#past = [];
    this.#into = [];
    this.#stores.clear();
    this.#stored = [];
    // What a failed write was to make durable never will be.
    if (tainted) await asTask(() => this.#file.truncate(0));
    this.#content.settle(tainted ? new Uint8Array(0) : contents);
    this.#size.settle(tainted ? 0 : size);
    await asTask(() => this.#file.sync());
  }

  /** Cache and device may differ after a failure: what is on the device counts. */
  async #reconcile(): Promise<void> {
    for (let n = 0; n < 2; n++) {
      await this.#fs.sync().catch(() => {});
      await this.#file.sync().catch(() => {});
      await this.#direct.sync().catch(() => {});
      await this.#file.advise("dontneed", 0, 0);
    }
  }

  /** What a seek calls a hole reads as zero. */
  async #checkHoles(contents: Uint8Array): Promise<void> {
    for (let pos = 0; pos < contents.length;) {
      const data = await this.#seek(pos, SEEK_DATA) ?? contents.length;
      for (let at = pos; at < data; at++) {
        if (contents[at] === 0) continue;
        throw new Error(`byte ${at} is in a hole, and not zero`);
      }
      if (data >= contents.length) return;
      const hole = await this.#seek(data, SEEK_HOLE);
      assert(hole !== null && hole > data, `data at ${data} ends at ${hole}`);
      pos = hole;
    }
  }

  async #seek(pos: number, whence: number): Promise<number | null> {
    try {
      return await asTask(() => this.#file.seek(pos, whence));
    } catch (error) {
      if (isError(error, "ENXIO")) return null;
      throw error;
    }
  }

  async #read(file: FsFile, size: number): Promise<Uint8Array> {
    // Direct I/O takes whole sectors.
    const p = new Uint8Array(Math.ceil(size / 512) * 512);
    if (size === 0) return p;
    const n = await asTask(() => file.read(p, { at: 0 }));
    assertEquals(n, size, "bytes of the whole file");
    return p.subarray(0, size);
  }
}

/** Part of an effect. */
function part(effect: Effect, from: number, to: number): Effect {
  const data = effect.data?.subarray(from - effect.from, to - effect.from);
  return { ...effect, from, to, data: data ?? null };
}

/** Sizes that a write may leave.
 * @param unit A multiple of which it may end at before its time; 0 if it may not. */
function extend(at: number, len: number, unit: number): SizeChange {
  return (size) => {
    const sizes = [Math.max(size, at + len)];
    if (unit === 0) return sizes;
    const first = at - at % unit + unit;
    for (let end = first; end < at + len; end += unit) {
      sizes.push(Math.max(size, end));
    }
    return sizes;
  };
}

function isError(error: unknown, code: string): boolean {
  return error instanceof FsError && error.code === code;
}

function oneOf<T>(choice: number, list: readonly T[]): T {
  return list[choice % list.length]!;
}

async function either<T>(
  sync: boolean,
  now: () => T,
  later: () => Promise<T>,
): Promise<T> {
  if (!sync) return await asTask(later);
  try {
    return now();
  } catch (error) {
    if (!isError(error, "EAGAIN")) throw error;
    return await asTask(later);
  }
}

function nameOf({ kind, at, len, task, sync }: PlannedCall): string {
  return `${kind} ${at}+${len} of task ${task}${sync ? ", synchronous" : ""}`;
}

function assertSame(got: Uint8Array, want: Uint8Array, what: string): void {
  assertEquals(got.length, want.length, what);
  for (let i = 0; i < got.length; i++) {
    if (got[i] === want[i]) continue;
    throw new Error(`${what}: byte ${i} is ${got[i]}, not ${want[i]}`);
  }
}

/** Runs the plan of a seed. What fails is reported with the calls that it takes. */
export async function runSeed(seed: number): Promise<void> {
  const plan = planOf(seed);
  try {
    await runPlan(plan);
  } catch (cause) {
    const small = await shrink(plan, cause);
    throw new Error(`seed ${seed}: ${cause}\n${showPlan(small)}`, { cause });
  }
}

/** What went wrong, without where. */
function kindOfFailure(error: unknown): string {
  return `${error}`.replace(/[0-9]+/g, "");
}

/** Leaves calls out as long as the run still fails in the same way. */
async function shrink(
  whole: Plan,
  error: unknown,
): Promise<Plan> {
  let plan = whole;
  for (let size = plan.calls.length >> 1; size > 0; size >>= 1) {
    for (let at = 0; at < plan.calls.length;) {
      const calls = plan.calls.toSpliced(at, size);
      try {
        await runPlan({ ...plan, calls });
        at += size;
      } catch (smaller) {
        if (kindOfFailure(smaller) !== kindOfFailure(error)) at += size;
        else plan = { ...plan, calls };
      }
    }
  }
  return plan;
}

function showPlan({ calls, ...rest }: Plan): string {
  const rows = calls.map((call) => `    ${JSON.stringify(call)},`);
  return `${JSON.stringify(rest)}\n  calls: [\n${rows.join("\n")}\n  ]`;
}
