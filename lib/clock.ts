/**
 * Time: the only file that reads a clock or sets a timer.
 *
 * Both clocks hold the same heap of events. `VirtualClock` moves time only when
 * nothing else can run, so that one seed gives one execution; `RealClock` runs
 * events against `performance.now`. A newcomer gets this wrong: an event that is
 * popped may make promises continue, and those must run before time moves on, so
 * the virtual clock runs each event from a callback of the event loop, between
 * which all promises have their turn.
 *
 * A synchronous caller (`readSync`) cannot let promises run. Between
 * {@linkcode Clock.enterSync} and {@linkcode Clock.leaveSync} whoever has to wait
 * runs the events in place; see `lib/wait.ts`.
 *
 * @module
 */

import { EINVAL, FsError, show } from "./errno.ts";
import {
  BACKGROUND,
  type Callback,
  EventHeap,
  WAKEUP,
  WORK,
} from "./event-heap.ts";
import { Histogram } from "./histogram.ts";

/** One microsecond in nanoseconds. */
export const USEC = 1_000;
/** One millisecond in nanoseconds. */
export const MSEC = 1_000_000;
/** One second in nanoseconds. */
export const SEC = 1_000_000_000;

/** Names one event for {@linkcode Clock.cancel}; never 0. */
export type EventId = number;

/**
 * What an event's callback returns if it has let nobody go on: it settled no
 * promise, and called nothing that may have. The virtual clock then runs the next
 * event at once, in a third of the time. Anything else that is returned says
 * nothing.
 */
export const QUIET: unique symbol = Symbol("quiet");

/** A source of time and the queue of what is due. */
export interface Clock {
  /** Current time, whole nanoseconds since the clock began. */
  now(): number;
  /**
   * Runs `fn(arg)` when time reaches `time`; events of the same time run in the
   * order in which they were added. All that `fn` lets go on, through promises,
   * has come to rest before time moves; see {@linkcode QUIET}.
   *
   * @param time Absolute, nanoseconds. A time that has passed means now.
   * @throws {FsError} EINVAL if it is no number, or never comes; ENOMEM if 2^22
   *   events wait.
   */
  at<T>(time: number, fn: (arg: T) => void, arg: T): EventId;
  /**
   * Like {@linkcode Clock.at} for housekeeping: a background event runs once
   * other events carry time past it, and by itself neither moves virtual time
   * nor keeps the process alive.
   */
  atBackground<T>(time: number, fn: (arg: T) => void, arg: T): EventId;
  /** Takes an event back; one that has run or is unknown is ignored. */
  cancel(id: EventId): void;
  /**
   * Makes an event one of housekeeping, as {@linkcode Clock.atBackground}'s are, or
   * one to wait for, as {@linkcode Clock.at}'s; cheaper than to take it back and
   * add it again. One that has run or is unknown is ignored.
   */
  setBackground(id: EventId, background: boolean): void;
  /** Resolves after `ns` nanoseconds. */
  sleep(ns: number): Promise<void>;
  /** Wall-clock time for timestamps, nanoseconds since 1970 (about 200 ns exact). */
  realtime(): number;
  /**
   * Events that wait and may move time. None, with a task that still waits: what
   * it waits for never comes.
   */
  readonly pending: number;
  /** How late events ran; null if none ever is, on a virtual clock. */
  readonly lateness: Lateness | null;
  /** Begins a stretch in which waiting runs events in place; nests. */
  enterSync(): void;
  /** Ends what {@linkcode Clock.enterSync} began. */
  leaveSync(): void;
  /** Whether the caller is in such a stretch. */
  readonly inSync: boolean;
  /** How many such stretches, and runs of events in place, the caller is in: more
   * than before means that whoever was running waits for the caller to be done. */
  readonly nesting: number;
  /**
   * Runs events in place until `done()` holds or none is left that could bring it
   * about: the end of a {@linkcode Clock.sleep} could not, as the task that slept
   * goes on only after the caller.
   *
   * @returns What `done()` says at the end.
   */
  runUntil(done: () => boolean): boolean;
}

/** An event that runs this much after its time is late, nanoseconds. */
const LATE = 20 * USEC;

/** By how much events ran after they were due, nanoseconds of their clock. */
export class Lateness extends Histogram {
  #late = 0;

  /** Events that were late by more than 20 us. */
  get late(): number {
    return this.#late;
  }

  /** Counts an event. */
  override record(ns: number): void {
    super.record(ns);
    if (ns > LATE) this.#late++;
  }

  /** Forgets all. */
  override clear(): void {
    super.clear();
    this.#late = 0;
  }
}

/** One event at such a time would take the clock there for ever. */
function checkTime(time: number): number {
  if (typeof time === "number" && time < Infinity) return time;
  throw new FsError(EINVAL, `Cannot wait until ${show(time)}`);
}

/** What both clocks share: the queue of what is due, and synchronous stretches. */
export abstract class EventClock implements Clock {
  readonly #events = new EventHeap();
  #syncDepth = 0;
  #running = 0;

  /** See {@linkcode Clock.lateness}. */
  abstract readonly lateness: Lateness | null;
  /** Current time, ns. */
  abstract now(): number;
  /** Wall-clock time, ns since 1970. */
  abstract realtime(): number;
  /** Does the work of {@linkcode Clock.runUntil}. */
  protected abstract runEvents(done: () => boolean): boolean;
  /** Sees to it that the first event runs when it is due. */
  protected abstract arm(): void;

  /** See {@linkcode Clock.pending}. */
  get pending(): number {
    return this.#events.foreground;
  }

  /** Whether an event waits that may move time. */
  protected get busy(): boolean {
    return this.#events.foreground > 0;
  }

  /** Whether an event waits that a synchronous caller may wait for. */
  protected get working(): boolean {
    return this.#events.work > 0;
  }

  /** When the first event is due, or Infinity. */
  protected firstTime(): number {
    return this.#events.firstTime();
  }

  /** Whether the event that {@linkcode firstTime} has found is housekeeping. */
  protected firstIsBackground(): boolean {
    return this.#events.firstKind() === BACKGROUND;
  }

  /** Runs the event that {@linkcode firstTime} has found.
   * @returns What its callback does. */
  protected runFirst(): unknown {
    return this.#events.runFirst();
  }

  /** See {@linkcode Clock.at}. */
  at<T>(time: number, fn: (arg: T) => void, arg: T): EventId {
    return this.#add(time, fn as Callback, arg, WORK);
  }

  /** See {@linkcode Clock.atBackground}. */
  atBackground<T>(time: number, fn: (arg: T) => void, arg: T): EventId {
    return this.#add(time, fn as Callback, arg, BACKGROUND);
  }

  #add(time: number, fn: Callback, arg: unknown, kind: number): EventId {
    const due = Math.max(checkTime(time), this.now());
    const id = this.#events.push(due, fn, arg, kind);
    this.arm();
    return id;
  }

  /** See {@linkcode Clock.cancel}. */
  cancel(id: EventId): void {
    this.#events.cancel(id);
  }

  /** See {@linkcode Clock.setBackground}. */
  setBackground(id: EventId, background: boolean): void {
    this.#events.setKind(id, background ? BACKGROUND : WORK);
    if (!background) this.arm();
  }

  /** See {@linkcode Clock.sleep}. */
  sleep(ns: number): Promise<void> {
    return new Promise((resolve) => {
      this.#add(this.now() + ns, resolve as Callback, undefined, WAKEUP);
    });
  }

  /** See {@linkcode Clock.enterSync}. */
  enterSync(): void {
    this.#syncDepth++;
  }

  /** See {@linkcode Clock.leaveSync}. */
  leaveSync(): void {
    this.#syncDepth--;
  }

  /** See {@linkcode Clock.runUntil}. */
  runUntil(done: () => boolean): boolean {
    this.#running++;
    try {
      return this.runEvents(done);
    } finally {
      this.#running--;
    }
  }

  /** See {@linkcode Clock.inSync}. */
  get inSync(): boolean {
    return this.#syncDepth > 0;
  }

  /** See {@linkcode Clock.nesting}. */
  get nesting(): number {
    return this.#syncDepth + this.#running;
  }
}

/** Most turns of the event loop that the virtual clock asks for at a time. */
const MAX_TURNS = 128;
/** Most quiet events of one turn: timers and signals have to get theirs, too. */
const MAX_QUIET = 256;

/** Time that moves only when nothing else can run. */
export class VirtualClock extends EventClock {
  /** No event is late. */
  readonly lateness: null = null;
  #now = 0;
  /** Turns that were asked for and are still to come. */
  #turnsLeft = 0;
  /** Turns to ask for next time. */
  #turns = 1;
  readonly #epoch: number;

  /**
   * A clock at time 0.
   *
   * @param options `epoch`: what {@linkcode Clock.realtime} says at time 0,
   *   nanoseconds since 1970; 2025-01-01 if absent.
   * @throws {FsError} EINVAL if it is not a finite number.
   */
  constructor(options: { epoch?: number } = {}) {
    super();
    const { epoch = 1_735_689_600 * SEC } = options;
    if (!Number.isFinite(epoch)) {
      throw new FsError(EINVAL, `Cannot make a clock, epoch ${show(epoch)}`);
    }
    this.#epoch = epoch;
  }

  /** Current time, ns. */
  now(): number {
    return this.#now;
  }

  /** Wall-clock time, ns since 1970. */
  realtime(): number {
    return this.#epoch + this.#now;
  }

  /** Runs events in place. */
  protected runEvents(done: () => boolean): boolean {
    while (!done()) {
      if (!this.working) return false;
      this.#runFirst();
    }
    return true;
  }

  /** Sees to it that the first event runs when it is due. */
  protected arm(): void {
    if (this.#turnsLeft > 0 || !this.busy) return;
    // Callbacks that are asked for together run one after the other, each with
    // all that it lets go on, at a fifth of the cost of one that asks for the
    // next. So the more of them found work, the more are asked for.
    this.#turnsLeft = this.#turns;
    for (let i = this.#turns; i > 0; i--) setImmediate(this.#turn);
    this.#turns = Math.min(2 * this.#turns, MAX_TURNS);
  }

  // One event a turn: the promises that it settles go on before time does.
  readonly #turn = (): void => {
    this.#turnsLeft--;
    try {
      this.#runTurn();
    } finally {
      this.arm();
    }
  };

  #runTurn(): void {
    if (!this.busy) {
      this.#turns = 1;
      return;
    }
    for (let n = 0; n < MAX_QUIET && this.busy; n++) {
      if (this.#runFirst() !== QUIET) return;
    }
  }

  #runFirst(): unknown {
    this.#now = this.firstTime();
    return this.runFirst();
  }
}

/** How long before an event is due the loop starts to poll, nanoseconds. */
const POLL_AHEAD = 2 * MSEC;
/** Longest timeout that there is, milliseconds. */
const MAX_TIMEOUT = 2 ** 31 - 1;

/** Time as it passes: events run when `performance.now` reaches them. */
export class RealClock extends EventClock {
  /** By how much events ran after they were due; housekeeping is not counted. */
  readonly lateness: Lateness = new Lateness();
  readonly #scale: number;
  readonly #start = performance.now();
  readonly #epoch: number = Math.round(Date.now() * MSEC);
  readonly #word = new Int32Array(new SharedArrayBuffer(4));
  #polling = false;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #timerDue = Infinity;

  /**
   * A clock that begins now, at time 0.
   *
   * @param options `scale`: how many nanoseconds pass for one of the clock's; 1 if
   *   absent. Slow motion (10, 100) gives a model of a fast device the time to be
   *   exact.
   * @throws {FsError} EINVAL if it is not a finite number above 0. Where time need
   *   not pass at all, a {@linkcode VirtualClock} does.
   */
  constructor(options: { scale?: number } = {}) {
    super();
    const { scale = 1 } = options;
    if (!(Number.isFinite(scale) && scale > 0)) {
      throw new FsError(EINVAL, `Cannot make a clock, scale ${show(scale)}`);
    }
    this.#scale = scale;
  }

  /** Current time, ns. */
  now(): number {
    return Math.round((performance.now() - this.#start) * MSEC / this.#scale);
  }

  /** Wall-clock time, ns since 1970. */
  realtime(): number {
    return this.#epoch + this.now();
  }

  /** Runs events in place. */
  protected runEvents(done: () => boolean): boolean {
    while (!done()) {
      if (!this.working) return false;
      const ahead = this.#realTimeUntil(this.firstTime());
      if (ahead <= 0) this.#runFirst();
      // The last part is spun: waking from a sleep is late by up to 100 us.
      else if (ahead > 200 * USEC) {
        Atomics.wait(this.#word, 0, 0, (ahead - 150 * USEC) / MSEC);
      }
    }
    return true;
  }

  /** See {@linkcode Clock.cancel}. */
  override cancel(id: EventId): void {
    super.cancel(id);
    this.#release();
  }

  /** See {@linkcode Clock.setBackground}. */
  override setBackground(id: EventId, background: boolean): void {
    super.setBackground(id, background);
    this.#release();
  }

  /** Sees to it that the first event runs when it is due. */
  protected arm(): void {
    if (this.#polling) return;
    const due = this.firstTime();
    const ahead = this.#realTimeUntil(due);
    if (ahead <= POLL_AHEAD && this.busy) {
      // What is queued keeps the process alive, and lets timers and I/O have
      // their turn, neither of which a promise does.
      this.#polling = true;
      setImmediate(this.#poll);
    } else if (due < this.#timerDue) {
      if (this.#timer !== null) clearTimeout(this.#timer);
      // A timeout is late by a millisecond or more: wake early, then poll.
      const ms = Math.min(
        Math.max(0, (ahead - POLL_AHEAD) / MSEC),
        MAX_TIMEOUT,
      );
      this.#timerDue = due;
      this.#timer = setTimeout(this.#wake, ms);
      if (!this.busy) Deno.unrefTimer(this.#timer);
    } else if (this.busy && this.#timer !== null) {
      Deno.refTimer(this.#timer);
    } else this.#release();
  }

  /** A timer for what is not to come any more would keep the process alive. */
  #release(): void {
    if (this.#timer === null || this.busy) return;
    if (this.firstTime() < Infinity) return Deno.unrefTimer(this.#timer);
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#timerDue = Infinity;
  }

  readonly #wake = (): void => {
    this.#timer = null;
    this.#timerDue = Infinity;
    this.#runDue();
  };

  readonly #poll = (): void => {
    this.#polling = false;
    this.#runDue();
  };

  #runDue(): void {
    // Bounded by what is due now: an event that adds another for this moment
    // lets the loop turn first.
    const now = this.now();
    try {
      while (this.firstTime() <= now) this.#runFirst();
    } finally {
      this.arm();
    }
  }

  #runFirst(): void {
    if (!this.firstIsBackground()) {
      this.lateness.record(this.now() - this.firstTime());
    }
    this.runFirst();
  }

  /** Nanoseconds that will have passed when the clock shows `time`. */
  #realTimeUntil(time: number): number {
    return (time - this.now()) * this.#scale;
  }
}

/**
 * Throws an error from an event of its own, at this time: for a loop that others
 * depend on, when a callback of theirs throws. The loop goes on, and the error comes
 * out where those of events do.
 */
export function throwLater(clock: Clock, error: unknown): void {
  clock.at(clock.now(), rethrow, error);
}

function rethrow(error: unknown): never {
  throw error;
}

/** A timestamp as a `Date`.
 * @param ns Nanoseconds since 1970. */
export function toDate(ns: number): Date {
  return new Date(ns / MSEC);
}
