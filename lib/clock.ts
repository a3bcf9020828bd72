/**
 * Time: the only file that reads a clock or sets a timer.
 *
 * Both clocks hold the same heap of events. `VirtualClock` moves time only when
 * nothing else can run, so that one seed gives one execution; `RealClock` runs
 * events against `performance.now`. A newcomer gets this wrong: an event that is
 * popped may make promises continue, and those must run before time moves on, so
 * the virtual clock runs one event per turn of the event loop.
 *
 * A synchronous caller (`readSync`) cannot let promises run. Between
 * {@linkcode Clock.enterSync} and {@linkcode Clock.leaveSync} whoever has to wait
 * runs the events in place; see `lib/wait.ts`.
 *
 * @module
 */

import { EINVAL, FsError, show } from "./errno.ts";

/** One microsecond in nanoseconds. */
export const USEC = 1_000;
/** One millisecond in nanoseconds. */
export const MSEC = 1_000_000;
/** One second in nanoseconds. */
export const SEC = 1_000_000_000;

/** Names one event for {@linkcode Clock.cancel}; never 0. */
export type EventId = number;

/** A source of time and the queue of what is due. */
export interface Clock {
  /** Current time, whole nanoseconds since the clock began. */
  now(): number;
  /**
   * Runs `fn(arg)` when time reaches `time`; events of the same time run in the
   * order in which they were added.
   *
   * @param time Absolute, nanoseconds. A time that has passed means now.
   * @throws {FsError} EINVAL if it is no number, or never comes.
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
  /** Resolves after `ns` nanoseconds. */
  sleep(ns: number): Promise<void>;
  /** Wall-clock time for timestamps, nanoseconds since 1970 (about 200 ns exact). */
  realtime(): number;
  /** Begins a stretch in which waiting runs events in place; nests. */
  enterSync(): void;
  /** Ends what {@linkcode Clock.enterSync} began. */
  leaveSync(): void;
  /** Whether the caller is in such a stretch. */
  readonly inSync: boolean;
  /**
   * Runs events in place until `done()` holds or none is left that could bring it
   * about: the end of a {@linkcode Clock.sleep} could not, as the task that slept
   * goes on only after the caller.
   *
   * @returns What `done()` says at the end.
   */
  runUntil(done: () => boolean): boolean;
}

type Callback = (arg: unknown) => void;

const SLOT_BITS = 2 ** 22;

// Kinds of events.
/** Neither moves time nor keeps the process alive. */
const BACKGROUND = 0;
/** Settles a promise and does nothing else. */
const WAKEUP = 1;
const WORK = 2;

/** A 4-ary heap ordered by (time, insertion), with cancellation by tag. */
class EventHeap {
  #times = new Float64Array(64);
  #seqs = new Float64Array(64);
  #slots = new Int32Array(64);
  #size = 0;
  #seq = 0;
  // Columns by slot.
  #fns: (Callback | null)[] = [];
  #args: unknown[] = [];
  #generations: number[] = [];
  #kinds: number[] = [];
  #free: number[] = [];
  /** Events that may move time. */
  foreground = 0;
  /** Those among them that do more than let a task go on. */
  work = 0;

  /** Adds an event; see {@linkcode Clock.at}. */
  push(
    time: number,
    fn: Callback,
    arg: unknown,
    kind: number,
  ): EventId {
    const slot = this.#free.pop() ?? this.#fns.length;
    this.#fns[slot] = fn;
    this.#args[slot] = arg;
    this.#kinds[slot] = kind;
    const generation = (this.#generations[slot] ?? 0) + 1;
    this.#generations[slot] = generation;
    this.#count(kind, 1);
    if (this.#size === this.#times.length) this.#grow();
    this.#siftUp(this.#size++, time, this.#seq++, slot);
    return generation * SLOT_BITS + slot;
  }

  /** Takes an event back, unless it has run. */
  cancel(id: EventId): void {
    const slot = id % SLOT_BITS;
    if (this.#generations[slot] !== (id - slot) / SLOT_BITS) return;
    if (this.#fns[slot] === null) return;
    this.#fns[slot] = null;
    this.#args[slot] = undefined;
    this.#count(this.#kinds[slot]!, -1);
  }

  /** Time of the first live event, or Infinity. */
  firstTime(): number {
    while (this.#size > 0 && this.#fns[this.#slots[0]!] === null) {
      this.#release(this.#removeFirst());
    }
    return this.#size > 0 ? this.#times[0]! : Infinity;
  }

  /** Takes the first live event, which {@linkcode firstTime} has found. */
  runFirst(): void {
    const slot = this.#removeFirst();
    const fn = this.#fns[slot]!;
    const arg = this.#args[slot];
    this.#count(this.#kinds[slot]!, -1);
    this.#release(slot);
    fn(arg);
  }

  #count(kind: number, by: number): void {
    if (kind !== BACKGROUND) this.foreground += by;
    if (kind === WORK) this.work += by;
  }

  #release(slot: number): void {
    this.#fns[slot] = null;
    this.#args[slot] = undefined;
    this.#free.push(slot);
  }

  #removeFirst(): number {
    const first = this.#slots[0]!;
    const last = --this.#size;
    if (last > 0) {
      this.#siftDown(
        this.#times[last]!,
        this.#seqs[last]!,
        this.#slots[last]!,
      );
    }
    return first;
  }

  #siftUp(at: number, time: number, seq: number, slot: number): void {
    let i = at;
    while (i > 0) {
      const parent = (i - 1) >> 2;
      // A new event has the highest sequence number: ties stay below.
      if (this.#times[parent]! <= time) break;
      this.#move(parent, i);
      i = parent;
    }
    this.#put(i, time, seq, slot);
  }

  #siftDown(time: number, seq: number, slot: number): void {
    const size = this.#size;
    let i = 0;
    for (;;) {
      let child = 4 * i + 1;
      if (child >= size) break;
      const end = Math.min(child + 4, size);
      for (let j = child + 1; j < end; j++) {
        if (this.#before(j, this.#times[child]!, this.#seqs[child]!)) child = j;
      }
      if (!this.#before(child, time, seq)) break;
      this.#move(child, i);
      i = child;
    }
    this.#put(i, time, seq, slot);
  }

  #before(i: number, time: number, seq: number): boolean {
    const t = this.#times[i]!;
    return t < time || (t === time && this.#seqs[i]! < seq);
  }

  #move(from: number, to: number): void {
    this.#put(to, this.#times[from]!, this.#seqs[from]!, this.#slots[from]!);
  }

  #put(i: number, time: number, seq: number, slot: number): void {
    this.#times[i] = time;
    this.#seqs[i] = seq;
    this.#slots[i] = slot;
  }

  #grow(): void {
    const size = this.#times.length * 2;
    const times = new Float64Array(size);
    const seqs = new Float64Array(size);
    const slots = new Int32Array(size);
    times.set(this.#times);
    seqs.set(this.#seqs);
    slots.set(this.#slots);
    this.#times = times;
    this.#seqs = seqs;
    this.#slots = slots;
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

  /** Current time, ns. */
  abstract now(): number;
  /** Wall-clock time, ns since 1970. */
  abstract realtime(): number;
  /** See {@linkcode Clock.runUntil}. */
  abstract runUntil(done: () => boolean): boolean;
  /** Sees to it that the first event runs when it is due. */
  protected abstract arm(): void;

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

  /** Runs the event that {@linkcode firstTime} has found. */
  protected runFirst(): void {
    this.#events.runFirst();
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

  /** See {@linkcode Clock.inSync}. */
  get inSync(): boolean {
    return this.#syncDepth > 0;
  }
}

/** Time that moves only when nothing else can run. */
export class VirtualClock extends EventClock {
  #now = 0;
  #armed = false;
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

  /** Runs events in place; see {@linkcode Clock.runUntil}. */
  runUntil(done: () => boolean): boolean {
    while (!done()) {
      if (!this.working) return false;
      this.#runFirst();
    }
    return true;
  }

  /** Sees to it that the first event runs when it is due. */
  protected arm(): void {
    if (this.#armed || !this.busy) return;
    this.#armed = true;
    setImmediate(this.#turn);
  }

  // One event a turn: the promises that it settles go on before time does.
  readonly #turn = (): void => {
    this.#armed = false;
    try {
      this.#runFirst();
    } finally {
      this.arm();
    }
  };

  #runFirst(): void {
    if (!this.busy) return;
    this.#now = Math.max(this.#now, this.firstTime());
    this.runFirst();
  }
}

/** How long before an event is due the loop starts to poll, nanoseconds. */
const POLL_AHEAD = 2 * MSEC;

/** Time as it passes: events run when `performance.now` reaches them. */
export class RealClock extends EventClock {
  readonly #start = performance.now();
  readonly #epoch: number = Math.round(Date.now() * MSEC);
  readonly #word = new Int32Array(new SharedArrayBuffer(4));
  #polling = false;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #timerDue = Infinity;

  /** Current time, ns. */
  now(): number {
    return Math.round((performance.now() - this.#start) * MSEC);
  }

  /** Wall-clock time, ns since 1970. */
  realtime(): number {
    return this.#epoch + this.now();
  }

  /** Runs events in place; see {@linkcode Clock.runUntil}. */
  runUntil(done: () => boolean): boolean {
    while (!done()) {
      if (!this.working) return false;
      const ahead = this.firstTime() - this.now();
      if (ahead <= 0) this.runFirst();
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
    if (this.#timer === null) return;
    // A timer for what is not to come would keep the process alive.
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#timerDue = Infinity;
    this.arm();
  }

  /** Sees to it that the first event runs when it is due. */
  protected arm(): void {
    if (this.#polling) return;
    const due = this.firstTime();
    if (due === Infinity) return;
    const ahead = due - this.now();
    if (ahead <= POLL_AHEAD && this.busy) {
      this.#polling = true;
      setImmediate(this.#poll);
    } else if (due < this.#timerDue) {
      if (this.#timer !== null) clearTimeout(this.#timer);
      // A timeout is late by a millisecond or more: wake early, then poll.
      const ms = Math.max(0, (ahead - POLL_AHEAD) / MSEC);
      this.#timerDue = due;
      this.#timer = setTimeout(this.#wake, ms);
      if (!this.busy) Deno.unrefTimer(this.#timer);
    } else if (this.busy && this.#timer !== null) {
      Deno.refTimer(this.#timer);
    }
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
      while (this.firstTime() <= now) this.runFirst();
    } finally {
      this.arm();
    }
  }
}

/** A timestamp as a `Date`.
 * @param ns Nanoseconds since 1970. */
export function toDate(ns: number): Date {
  return new Date(ns / MSEC);
}
