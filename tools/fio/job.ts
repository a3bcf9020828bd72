/**
 * The life of one job: it opens its files, issues I/O until its time or its
 * bytes are used up, and closes them.
 *
 * There are two loops. A synchronous engine has one I/O at a time; while its
 * job is the only one that runs, page-cache hits go through the synchronous
 * calls and time moves in place, which is an order of magnitude cheaper than a
 * turn of the event loop each. An asynchronous engine keeps `iodepth` I/Os in
 * flight, submits and reaps in batches, and may wait in between.
 *
 * On the virtual clock the host's own time would not pass: so each call is
 * charged what `engines.ts` says a host takes.
 *
 * @module
 */

import { type Clock, FsError, strerror } from "../../mod.ts";
import {
  HOST_CALL_NS,
  HOST_COPY_BYTES_PER_NS,
  HOST_NULL_NS,
  type IoFile,
  type IoOpen,
} from "./engines.ts";
import {
  fillBuffer,
  SEED_BUFFER,
  SEED_POISSON,
  SEED_START_DELAY,
  Taus88,
} from "./generators.ts";
import { type Io, IoStream, StreamFile } from "./io-stream.ts";
import {
  DDIR_DATASYNC,
  DDIR_SYNC,
  ENGINES,
  type JobOptions,
  type Triple,
} from "./options.ts";
import { largestBlock } from "./parse.ts";
import {
  type Ddir,
  DDIR_READ,
  DDIR_TRIM,
  DDIR_WRITE,
  JobStats,
} from "./stat.ts";

const EIO = 5;
const USEC = 1_000;
/** Nanoseconds between two samples of the bandwidth. */
const SAMPLE_NS = 500_000_000;
/** I/Os after which a job that never waits lets others go on. */
const YIELD_EVERY = 64;
const DDIR_NAMES = [
  "read",
  "write",
  "trim",
  "sync",
  "datasync",
  "sync_file_range",
];

/** A file that a job works on. */
export class JobFile extends StreamFile {
  /** Open while the job runs. */
  handle: IoFile | null = null;
}

/** What a job needs of its run. */
export interface JobContext {
  readonly clock: Clock;
  /** Host time is charged: the clock is a virtual one. */
  readonly virtual: boolean;
  /** Opens a file of the job. */
  open(file: JobFile, how: IoOpen): Promise<IoFile>;
  /** Whether no other job is under way. */
  alone(): boolean;
  /** A moment to show how far the run is. */
  poll(): void;
  /** Prints what went wrong. */
  err(text: string): void;
  /** Prints what may be told among the results. */
  info(text: string): void;
}

/** Where a job is in its life; the letters are those of fio's progress line. */
export type Phase =
  | "setup"
  | "delayed"
  | "ramp"
  | "running"
  | "syncing"
  | "finished";

/** An I/O in flight. */
class Slot implements Io<JobFile> {
  file: JobFile | null = null;
  ddir = 0;
  offset = 0;
  length = 0;
  readonly buffer: Uint8Array;
  start = 0;
  issued = 0;
  error: Error | null = null;
  readonly done: () => void;
  readonly failed: (error: Error) => void;

  constructor(size: number, finish: (slot: Slot) => void) {
    this.buffer = new Uint8Array(size);
    this.done = () => finish(this);
    this.failed = (error) => {
      this.error = error;
      finish(this);
    };
  }
}

/** One job, or one clone of it. */
export class Job {
  readonly options: JobOptions;
  /** Counts from 1 over all jobs; stands for the process id as well. */
  readonly threadNumber: number;
  /** Which clone it is, from 0. */
  readonly subjob: number;
  readonly groupid: number;
  readonly stats: JobStats;
  readonly files: readonly JobFile[];
  phase: Phase = "setup";
  /** When the first I/O could be issued and when all was done, ns. */
  startNs = 0;
  endNs = 0;
  /** Host time that was charged, ns. */
  hostNs = 0;
  /** How often it waited. */
  waits = 0;
  /** What ended it, in fio's words. */
  errorText: string | null = null;

  readonly #context: JobContext;
  readonly #stream: IoStream<JobFile>;
  readonly #clock: Clock;
  readonly #ioSize: number;
  #epoch = 0;
  #rampEnd = 0;
  #deadline = Infinity;
  #outOfTime = false;
  #issuedBytes = 0;
  #passBytes = 0;
  #doneBytes = 0;
  #issuedIos = 0;
  #doneIos = 0;
  #tick = 0;
  #pacer: Pacer | null;
  /** I/Os, by `thinktime_blocks_type`, at the last pause. */
  #thoughtAt = 0;
  #fillSeeds: Taus88;
  // Asynchronous engine.
  readonly #free: Slot[] = [];
  readonly #queued: Slot[] = [];
  #done: Slot[] = [];
  #inFlight = 0;
  #wakeReaper: (() => void) | null = null;
  #reapAt = 0;
  // Synchronous engine.
  #awake = true;
  readonly #isAwake = () => this.#awake;
  readonly #wake = () => {
    this.#awake = true;
  };

  /**
   * @param ioSize Bytes to move; all of the files where the job file gives none.
   * @param seed The run's seed.
   */
  constructor(
    context: JobContext,
    options: JobOptions,
    files: readonly JobFile[],
    ioSize: number,
    place: { threadNumber: number; subjob: number; groupid: number },
    seed: number,
  ) {
    const o = options;
    this.options = o;
    this.files = files;
    this.threadNumber = place.threadNumber;
    this.subjob = place.subjob;
    this.groupid = place.groupid;
    this.#context = context;
    this.#clock = context.clock;
    this.#stream = new IoStream(o, files, place.threadNumber, seed);
    this.#ioSize = ioSize;
    this.stats = new JobStats({
      percentiles: o.percentileList,
      clatPercentiles: o.clatPercentiles,
      slatPercentiles: o.slatPercentiles,
      latPercentiles: o.latPercentiles,
      unifiedRw: o.unifiedRw,
    });
    const poisson = SEED_POISSON.map((i) => this.#stream.seedOf(i));
    this.#pacer = Pacer.isNeeded(o) ? new Pacer(o, poisson) : null;
    this.#fillSeeds = new Taus88(this.#stream.seedOf(SEED_BUFFER));
  }

  /** How much of the job is done, 0 to 1. */
  get progress(): number {
    if (this.phase === "finished") return 1;
    if (this.phase === "setup" || this.phase === "delayed") return 0;
    const o = this.options;
    const spent = this.#clock.now() - this.startNs;
    const byTime = o.runtime > 0
      ? spent / ((o.runtime + o.rampTime) * USEC)
      : 0;
    const byBytes = o.timeBased ? 0 : this.#doneBytes / this.#limit();
    return Math.min(1, Math.max(byTime, byBytes));
  }

  /** Bytes of all loops. */
  #limit(): number {
    return this.#ioSize * Math.max(1, this.options.loops);
  }

  /** Runs the job to its end; what fails is in {@linkcode stats}. */
  async run(): Promise<void> {
    await this.#delay();
    if (await this.#openFiles()) {
      this.#begin();
      await this.#passes();
      this.#clock.cancel(this.#tick);
    }
    for (const file of this.files) await file.handle?.close();
    this.endNs = this.#clock.now();
    this.phase = "finished";
  }

  async #delay(): Promise<void> {
    const [low, high] = this.options.startDelay;
    this.startNs = this.#clock.now();
    if (high === 0) return;
    this.phase = "delayed";
    const random = new Taus88(this.#stream.seedOf(SEED_START_DELAY));
    const us = low === high ? low : random.between(low, high);
    await this.#clock.sleep(us * USEC);
  }

  async #openFiles(): Promise<boolean> {
    const { write, direct, sync, allowFileCreate, invalidate } = this.options;
    const how = { write, direct, sync, create: write && allowFileCreate };
    for (const file of this.files) {
      try {
        file.handle = await this.#context.open(file, how);
        if (direct) continue;
        if (invalidate) await file.handle.invalidate();
        const advice = this.#advice();
        if (advice !== null) await file.handle.advise(advice);
      } catch (error) {
        this.#context.err(`fio: ${(error as Error).message}\n`);
        this.#fail(error, "open");
        return false;
      }
    }
    return true;
  }

  /** What the host is told of the I/O to come (`fadvise_hint`). */
  #advice(): "random" | "sequential" | null {
    const { fadviseHint, random } = this.options;
    if (fadviseHint !== "pattern") return fadviseHint;
    return random ? "random" : "sequential";
  }

  #begin(): void {
    const { rampTime, runtime } = this.options;
    const now = this.#clock.now();
    this.startNs = now;
    this.phase = rampTime > 0 ? "ramp" : "running";
    this.#rampEnd = now + rampTime * USEC;
    this.#epoch = now;
    // The runtime begins when the ramp has ended.
    if (runtime > 0 && rampTime === 0) this.#deadline = now + runtime * USEC;
    this.stats.start(now);
    this.#sampleLater();
  }

  #sampleLater(): void {
    const due = this.#clock.now() + SAMPLE_NS;
    this.#tick = this.#clock.atBackground(due, () => {
      if (this.phase !== "ramp") this.stats.bwTick(this.#clock.now());
      this.#context.poll();
      this.#sampleLater();
    }, undefined);
  }

  #endRamp(now: number): void {
    const { runtime } = this.options;
    this.phase = "running";
    this.#epoch = now;
    if (runtime > 0) this.#deadline = now + runtime * USEC;
    this.stats.resetForRamp(now);
    this.#stream.resetCounters();
    this.#pacer?.restart();
  }

  async #passes(): Promise<void> {
    const o = this.options;
    const kind = ENGINES.get(o.ioengine)!;
    const isAsync = kind === "async" || (kind === "null" && o.iodepth > 1);
    const size = largestBlock(o);
    const depth = isAsync ? o.iodepth : 1;
    for (let i = 0; i < depth; i++) this.#free.push(this.#newSlot(size));
    let loops = o.loops;
    for (let pass = 0; this.#hasAnotherPass(loops); pass++) {
      if (loops > 0) loops--;
      if (pass > 0) {
        this.#stream.restart();
        this.stats.start(this.#clock.now());
      }
      this.#passBytes = 0;
      await (isAsync ? this.#runAsync() : this.#runSync());
      if (this.stats.error === 0) await this.#syncAtEnd();
      this.stats.finish(this.#clock.now());
      if (this.#passBytes === 0) return this.#nothingDone(pass);
    }
  }

  #newSlot(size: number): Slot {
    const slot = new Slot(size, (s) => this.#finished(s));
    if (!this.options.zeroBuffers) {
      fillBuffer(slot.buffer, this.#fillSeeds.next());
    }
    return slot;
  }

  #nothingDone(pass: number): void {
    if (pass > 0 || this.stats.error !== 0 || this.#outOfTime) return;
    const { name, ioengine } = this.options;
    this.#context.err(
      `${name}: No I/O performed by ${ioengine}, ` +
        "perhaps try --debug=io option for details?\n",
    );
  }

  #hasAnotherPass(loops: number): boolean {
    const o = this.options;
    if (this.stats.error !== 0 || this.#outOfTime) return false;
    if (o.timeBased || loops > 0) return true;
    if (this.#reachedNumber()) return false;
    // Once the loops are over, they do not count.
    const left = this.#ioSize - this.#issuedBytes;
    if (left < largestBlock(o)) return false;
    const wantsMore = o.ioSize.bytes > 0 || o.ioSize.percent > 0;
    return wantsMore || !this.#stream.exhausted;
  }

  #reachedNumber(): boolean {
    const { numberIos } = this.options;
    if (numberIos === 0) return false;
    const [reads, writes, trims] = this.#stream.issued;
    return reads + writes + trims >= numberIos;
  }

  /** Whether another I/O may be issued in this pass. */
  #goesOn(): boolean {
    if (this.stats.error !== 0) return false;
    const now = this.#clock.now();
    if (this.phase === "ramp" && now >= this.#rampEnd) this.#endRamp(now);
    if (now >= this.#deadline) {
      this.#outOfTime = true;
      return false;
    }
    if (this.options.timeBased) return true;
    return this.#issuedBytes < this.#limit() && !this.#reachedNumber();
  }

  /** Chooses the next I/O; false at the end of the pass. */
  #next(io: Slot): boolean | Promise<boolean> {
    if (this.#pacer !== null) return this.#nextPaced(io, this.#pacer);
    if (!this.#stream.next(io)) return false;
    this.#account(io);
    return true;
  }

  async #nextPaced(io: Slot, pacer: Pacer): Promise<boolean> {
    for (;;) {
      const file = this.#stream.pickFile();
      if (file === null) return false;
      let ddir = this.#stream.pickDirection(file);
      if (ddir < DDIR_SYNC) {
        const sinceUs = (this.#clock.now() - this.#epoch) / USEC;
        const chosen = pacer.choose(ddir as Ddir, sinceUs);
        if (chosen.waitUs > 0 && !await this.#waitForTurn(chosen.waitUs)) {
          return false;
        }
        if (chosen.ddir !== ddir) this.#stream.overrideDirection(chosen.ddir);
        ddir = chosen.ddir;
      }
      if (this.#stream.fill(io, file, ddir)) {
        if (ddir < DDIR_SYNC) pacer.issued(ddir as Ddir, io.length);
        this.#account(io);
        return true;
      }
      this.#stream.finishFile(file);
    }
  }

  /** @returns False if the job's time is up before. */
  async #waitForTurn(us: number): Promise<boolean> {
    await this.#quiesce();
    // The clock counts whole ns: a wait that is cut short would spin.
    const due = Math.ceil(this.#clock.now() + us * USEC);
    const until = Math.min(due, this.#deadline);
    await this.#clock.sleep(until - this.#clock.now());
    this.#outOfTime = due >= this.#deadline;
    return !this.#outOfTime;
  }

  #account(io: Slot): void {
    this.#issuedBytes += io.length;
    this.#passBytes += io.length;
    if (io.ddir >= DDIR_SYNC) return;
    this.#issuedIos++;
    if (this.options.refillBuffers && io.ddir === DDIR_WRITE) {
      fillBuffer(io.buffer, this.#fillSeeds.next());
    }
  }

  // The synchronous engines.

  async #runSync(): Promise<void> {
    const slot = this.#free[0]!;
    let untilYield = YIELD_EVERY;
    while (this.#goesOn()) {
      const more = this.#next(slot);
      if (!(more instanceof Promise ? await more : more)) return;
      slot.start = this.#clock.now();
      this.stats.addDepth(1);
      this.stats.addSubmit(1);
      if (!await this.#performSync(slot)) return;
      this.#countSync(slot);
      if (this.options.thinktime > 0) await this.#think(slot.ddir);
      if (--untilYield === 0) {
        untilYield = YIELD_EVERY;
        this.#context.poll();
        await this.#clock.sleep(0);
      }
    }
  }

  #countSync(slot: Slot): void {
    const now = this.#clock.now();
    const lat = now - slot.start;
    this.stats.addComplete(1);
    if (slot.ddir >= DDIR_SYNC) this.stats.addSync(lat);
    else {
      this.#doneBytes += slot.length;
      this.#doneIos++;
      const ddir = slot.ddir as Ddir;
      this.stats.addSample(ddir, slot.length, -1, lat, lat, now);
    }
  }

  /** @returns False, or a promise of it, if the I/O failed. */
  #performSync(slot: Slot): boolean | Promise<boolean> {
    const alone = this.#context.alone();
    if (!alone || !this.#performNow(slot)) return this.#performLater(slot);
    if (this.stats.error !== 0) return false;
    const ns = this.#hostTime(slot);
    if (ns > 0) this.#advance(ns);
    return true;
  }

  /** @returns False if the I/O has to wait. */
  #performNow(slot: Slot): boolean {
    const { ddir, length, buffer, offset } = slot;
    if (ddir > DDIR_WRITE || this.options.direct) return false;
    const handle = slot.file!.handle!;
    const view = buffer.length === length ? buffer : buffer.subarray(0, length);
    try {
      const n = ddir === DDIR_READ
        ? handle.readNow(view, offset)
        : handle.writeNow(view, offset);
      // A rest is moved by the other path, from the start.
      return n === length;
    } catch (error) {
      this.#failIo(slot, error);
      return true;
    }
  }

  async #performLater(slot: Slot): Promise<boolean> {
    try {
      const before = this.#clock.now();
      await this.#perform(slot);
      if (this.#clock.now() > before) this.waits++;
    } catch (error) {
      this.#failIo(slot, error);
      return false;
    }
    const ns = this.#hostTime(slot);
    if (ns > 0) await this.#clock.sleep(ns);
    return true;
  }

  /** Moves all bytes of an I/O, in several calls if one moves too few. */
  async #perform(slot: Slot): Promise<void> {
    const { ddir, offset, length, buffer } = slot;
    const handle = slot.file!.handle!;
    if (ddir > DDIR_WRITE) return await this.#performOther(slot, handle);
    for (let done = 0; done < length;) {
      const view = buffer.subarray(done, length);
      const n = ddir === DDIR_READ
        ? await handle.read(view, offset + done)
        : await handle.write(view, offset + done);
      if (n === 0) throw new FsError(EIO, `Nothing moved at ${offset + done}`);
      done += n;
      if (done < length) this.stats.addShort(ddir as Ddir);
    }
  }

  #performOther(slot: Slot, handle: IoFile): Promise<void> {
    switch (slot.ddir) {
      case DDIR_TRIM:
        return handle.trim(slot.offset, slot.length);
      case DDIR_SYNC:
        return handle.sync();
      case DDIR_DATASYNC:
        return handle.syncData();
      default:
        return handle.syncRange(this.options.syncFileRange.flags);
    }
  }

  /** Host time that the I/O takes on the virtual clock, ns. */
  #hostTime(slot: Slot): number {
    if (!this.#context.virtual) return 0;
    const { ioengine, direct } = this.options;
    let ns = ioengine === "null" ? HOST_NULL_NS : HOST_CALL_NS;
    if (!direct && slot.ddir <= DDIR_WRITE && ioengine !== "null") {
      ns += Math.ceil(slot.length / HOST_COPY_BYTES_PER_NS);
    }
    this.hostNs += ns;
    return ns;
  }

  /** Lets time pass without a turn of the event loop. */
  #advance(ns: number): void {
    this.#awake = false;
    this.#clock.at<void>(this.#clock.now() + ns, this.#wake, undefined);
    this.#clock.runUntil(this.#isAwake);
  }

  // The asynchronous engines.

  async #runAsync(): Promise<void> {
    const o = this.options;
    const batch = o.batchSubmit === 0
      ? o.iodepth
      : Math.min(o.batchSubmit, o.iodepth);
    let untilYield = YIELD_EVERY;
    while (this.#goesOn()) {
      const slot = this.#free.pop()!;
      const more = this.#next(slot);
      if (!(more instanceof Promise ? await more : more)) {
        this.#free.push(slot);
        break;
      }
      slot.start = this.#clock.now();
      if (slot.ddir >= DDIR_SYNC) await this.#syncBetween(slot);
      else {
        this.#queued.push(slot);
        if (this.#queued.length >= batch) await this.#commit();
      }
      await this.#reapAsNeeded();
      if (o.thinktime > 0) await this.#think(slot.ddir);
      if (--untilYield === 0) {
        untilYield = YIELD_EVERY;
        this.#context.poll();
        if (!this.#context.virtual) await this.#clock.sleep(0);
      }
    }
    await this.#quiesce();
  }

  /** Submits what is queued, in one call. */
  async #commit(): Promise<void> {
    const n = this.#queued.length;
    if (n === 0) return;
    let ns = 0;
    for (const slot of this.#queued) ns += this.#hostTime(slot);
    if (ns > 0) await this.#clock.sleep(ns);
    this.stats.addSubmit(n);
    const now = this.#clock.now();
    for (const slot of this.#queued) {
      slot.issued = now;
      slot.error = null;
      this.#inFlight++;
      this.stats.addDepth(this.#inFlight);
      this.#perform(slot).then(slot.done, slot.failed);
    }
    this.#queued.length = 0;
  }

  #finished(slot: Slot): void {
    this.#done.push(slot);
    if (this.#done.length >= this.#reapAt) this.#wakeReaper?.();
  }

  async #syncBetween(slot: Slot): Promise<void> {
    await this.#commit();
    this.stats.addDepth(1);
    this.stats.addSubmit(1);
    if (await this.#performLater(slot)) {
      this.stats.addSync(this.#clock.now() - slot.start);
      this.stats.addComplete(1);
    }
    this.#free.push(slot);
  }

  /** Waits for completions once no slot is free. */
  async #reapAsNeeded(): Promise<void> {
    const o = this.options;
    if (this.#free.length > 0) {
      // `iodepth_batch_complete_min=0`: take what is there, wait for nothing.
      if (o.batchCompleteMin === 0 && this.#done.length > 0) this.#reap(0);
      return;
    }
    await this.#commit();
    const low = o.iodepthLow === 0 ? o.iodepth : o.iodepthLow;
    do {
      const depth = this.#inFlight;
      await this.#waitFor(Math.max(1, Math.min(o.batchCompleteMin, depth)));
      this.#reap(Math.max(o.batchCompleteMax, o.batchCompleteMin, 1));
    } while (this.#inFlight > low);
  }

  /** Submits and reaps everything. */
  async #quiesce(): Promise<void> {
    await this.#commit();
    if (this.#inFlight === 0) return;
    await this.#waitFor(this.#inFlight);
    this.#reap(0);
  }

  async #waitFor(n: number): Promise<void> {
    if (this.#done.length >= n) return;
    this.waits++;
    this.#reapAt = n;
    await new Promise<void>((resolve) => this.#wakeReaper = resolve);
    this.#wakeReaper = null;
  }

  /** Counts up to `most` completions; 0: all. They end when they are seen. */
  #reap(most: number): void {
    const all = this.#done;
    const n = most === 0 ? all.length : Math.min(most, all.length);
    const now = this.#clock.now();
    this.stats.addComplete(n);
    for (let i = 0; i < n; i++) {
      const slot = all[i]!;
      this.#inFlight--;
      this.#free.push(slot);
      if (slot.error !== null) {
        this.#failIo(slot, slot.error);
        continue;
      }
      this.#doneBytes += slot.length;
      this.#doneIos++;
      const { start, issued, length } = slot;
      const ddir = slot.ddir as Ddir;
      this.stats.addSample(
        ddir,
        length,
        issued - start,
        now - issued,
        now - start,
        now,
      );
    }
    this.#done = all.slice(n);
  }

  // What both have in common.

  /** Waits between blocks (`thinktime`). */
  async #think(ddir: number): Promise<void> {
    const o = this.options;
    if (ddir >= DDIR_SYNC) return;
    const ios = o.thinktimeBlocksType === "issue"
      ? this.#issuedIos
      : this.#doneIos;
    if (ios < this.#thoughtAt + o.thinktimeBlocks) return;
    this.#thoughtAt = ios;
    await this.#quiesce();
    const end = this.#clock.now() + o.thinktime * USEC;
    const until = Math.min(end, this.#deadline);
    const now = this.#clock.now();
    if (until > now) await this.#clock.sleep(until - now);
    // Spinning is host time; what is left of the time is slept.
    this.hostNs += Math.min(o.thinktimeSpin, o.thinktime) * USEC;
  }

  async #syncAtEnd(): Promise<void> {
    const o = this.options;
    if (!o.write || !(o.endFsync || o.fsyncOnClose)) return;
    if (this.#stream.lastWasSync) return;
    const before = this.phase;
    this.phase = "syncing";
    for (const file of this.files) {
      try {
        await file.handle!.sync();
      } catch (error) {
        this.#context.err(`fio: end_fsync failed for file ${file.name}\n`);
        this.#fail(error, "end_fsync");
      }
    }
    this.phase = before;
  }

  #failIo(slot: Slot, error: unknown): void {
    const { file, ddir, offset, length } = slot;
    if (ddir <= DDIR_TRIM) this.stats.addFailed(ddir as Ddir);
    if (ddir === DDIR_TRIM) return this.#fail(error, "td_io_queue");
    const text = strerror(errnoOf(error));
    this.#context.err(
      `fio: io_u error on file ${file!.name}: ${text}: ` +
        `${DDIR_NAMES[ddir]} offset=${offset}, buflen=${length}\n`,
    );
    this.#fail(error, "io_u error");
  }

  /** Ends the job; the first failure is the one that is told. */
  #fail(error: unknown, func: string): void {
    if (this.stats.error !== 0) return;
    const errno = errnoOf(error);
    this.stats.error = errno;
    this.errorText = `func=${func}, error=${strerror(errno)}`;
    this.#context.info(
      `fio: pid=${this.threadNumber}, err=${errno}/${this.errorText}\n`,
    );
  }
}

/** The number of a failure of the stack; anything else is a bug and thrown. */
export function errnoOf(error: unknown): number {
  if (error instanceof FsError) return error.errno;
  throw error;
}

/** Spreads I/O over time: `rate`, `rate_iops` and `rate_process`. */
class Pacer {
  readonly #rate: Triple;
  readonly #blockRate: Triple;
  readonly #poisson: Taus88[] | null;
  readonly #bytes: Triple = [0, 0, 0];
  /** When the next I/O of each direction is due, us since the job's epoch. */
  readonly #due: Triple = [0, 0, 0];
  readonly #isMixed: boolean;

  static isNeeded(o: JobOptions): boolean {
    return o.rate.some((r) => r > 0) || o.rateIops.some((r) => r > 0);
  }

  constructor(o: JobOptions, seeds: number[]) {
    this.#rate = o.rateIops.map((iops, i) =>
      iops > 0 ? iops * o.minBs[i]! : o.rate[i]!
    ) as Triple;
    this.#blockRate = this.#rate.map((rate, i) =>
      Math.floor(rate / o.minBs[i]!)
    ) as Triple;
    this.#poisson = o.rateProcess === "poisson"
      ? seeds.map((seed) => new Taus88(seed))
      : null;
    this.#isMixed = o.read && o.write;
  }

  /** The ramp is over: times are counted from here. */
  restart(): void {
    this.#bytes.fill(0);
    this.#due.fill(0);
  }

  /**
   * Says which direction is next and how long to wait for it. A mixed job that
   * is ahead of its rate goes the other way.
   *
   * @param nowUs Microseconds since the job's epoch.
   */
  choose(ddir: Ddir, nowUs: number): { ddir: Ddir; waitUs: number } {
    const due = this.#due[ddir];
    if (due <= nowUs) return { ddir, waitUs: 0 };
    if (!this.#isMixed) return { ddir, waitUs: due - nowUs };
    const other = ddir === DDIR_READ ? DDIR_WRITE : DDIR_READ;
    const otherDue = this.#due[other];
    if (otherDue <= nowUs) return { ddir: other, waitUs: 0 };
    return due <= otherDue
      ? { ddir, waitUs: due - nowUs }
      : { ddir: other, waitUs: otherDue - nowUs };
  }

  /** An I/O was issued: when is the next one due? */
  issued(ddir: Ddir, bytes: number): void {
    const rate = this.#rate[ddir];
    if (rate === 0) return;
    this.#bytes[ddir] += bytes;
    if (this.#poisson === null) {
      this.#due[ddir] = Math.floor(this.#bytes[ddir] * 1e6 / rate);
      return;
    }
    const u = (this.#poisson[ddir]!.next() + 1) / 2 ** 32;
    const mean = Math.floor(1e6 / Math.max(1, this.#blockRate[ddir]));
    this.#due[ddir] += Math.floor(mean * -Math.log(u));
  }
}
