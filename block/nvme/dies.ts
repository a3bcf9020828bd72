/**
 * The dies of a flash device and the channels to them: reads, and what the device
 * does by itself.
 *
 * Reads are a timeline: they are booked when they come, and their end is known.
 * Programs and erases are begun one at a time, as a die gets to them, so that a
 * read waits for the one that runs and not for all that are queued. Nothing runs
 * between commands: {@linkcode DieArray.advance} works off what has become due.
 * Only while somebody waits for a program is there an event for it.
 *
 * @module
 */

import type { Clock, EventId } from "../../lib/clock.ts";
import { Lane, transferTime } from "./lane.ts";
import type { Waiter } from "./pending.ts";

/** Piece of a transfer, so that die, channel and PCIe overlap. */
const PIECE = 16384;
/** Piece of which one fits between two pieces of a program's data. */
const GAP = 4096;
/** Reads that a suspended program lets through before it goes on. */
const BURST = 8;

/** Dies and channels; times in nanoseconds. */
export interface DieParams {
  /** Channels. */
  channels: number;
  /** Dies on each. */
  diesPerChannel: number;
  /** Megabytes a second of each channel; 0 if it takes no time. */
  channelMBps: number;
  /**
   * A program can be suspended for a read every so many nanoseconds; absent if it
   * cannot.
   */
  programSlice?: number;
  /** Slices that a resumed program runs before it can be suspended again. */
  resumedSlices?: number;
}

/** A program, erase or move on one die. */
export class DieOp {
  /** Where. */
  die = 0;
  /** Bytes that go over the channel first. */
  bytes = 0;
  /** Then the die is busy so long. */
  array = 0;
  /** Unit of flash that it fills, or -1. */
  unit: number = -1;
  /** Bytes of the write buffer that it holds. */
  held = 0;
  /** Who waits for its end. */
  readonly waiters: Waiter[] = [];
  /** The next on its die. */
  next: DieOp | null = null;
}

/** Whoever has the dies do something. */
export interface DieOwner {
  /** An operation has ended. */
  opDone(op: DieOp, time: number): void;
  /** The time of {@linkcode DieArray.wakeAt} has come. */
  wake(time: number): void;
}

/** All dies of a device. */
export class DieArray {
  /** Dies. */
  readonly count: number;
  /** When the owner wants to be woken, if time gets there. */
  wakeAt = Infinity;
  readonly #p: DieParams;
  readonly #owner: DieOwner;
  readonly #clock: Clock;
  readonly #channels: Lane[];
  /** When the last read that is booked ends. */
  readonly #readFree: Float64Array;
  /** The operation that runs: since when without a pause, and until when; 0 if none. */
  readonly #opFrom: Float64Array;
  readonly #opEnd: Float64Array;
  /** Reads since the operation was last suspended, 0 if it never was. */
  readonly #reads: Uint8Array;
  readonly #running: (DieOp | null)[];
  /** The last one queued on each die. */
  readonly #last: (DieOp | null)[];
  /** No operation ends before. */
  #next = Infinity;
  #waiting = 0;
  #event: EventId = 0;
  #eventAt = Infinity;
  #idle: DieOp[] = [];

  /** Dies that are idle. */
  constructor(p: DieParams, owner: DieOwner, clock: Clock) {
    const count = p.channels * p.diesPerChannel;
    this.#p = p;
    this.#owner = owner;
    this.#clock = clock;
    this.count = count;
    this.#channels = Array.from({ length: p.channels }, () => new Lane());
    this.#readFree = new Float64Array(count);
    this.#opFrom = new Float64Array(count);
    this.#opEnd = new Float64Array(count);
    this.#reads = new Uint8Array(count);
    this.#running = new Array(count).fill(null);
    this.#last = new Array(count).fill(null);
  }

  /**
   * Books a read that is ready at `ready`: the array for `array` ns, then `bytes`
   * over the channel and, piece by piece, over `pcie`.
   *
   * @returns When the last piece is at the host.
   */
  read(
    now: number,
    ready: number,
    die: number,
    array: number,
    bytes: number,
    pcie: Lane,
    pcieMBps: number,
  ): number {
    const from = Math.max(ready, this.#readFree[die]!);
    const running = this.#opEnd[die]! > from;
    const start = running ? this.#suspend(die, from) : from;
    const channel = this.#channels[die % this.#p.channels]!;
    let t = start + array;
    let done = t;
    for (let sent = 0; sent < bytes; sent += PIECE) {
      const piece = Math.min(PIECE, bytes - sent);
      t = channel.book(now, t, transferTime(piece, this.#p.channelMBps));
      done = pcie.book(now, t, transferTime(piece, pcieMBps));
    }
    // The die keeps the page until the channel has taken it.
    this.#readFree[die] = t;
    if (running) this.#resume(die, start, t);
    return done;
  }

  /** When a read that comes at `time` can begin, though the die is busy. */
  #suspend(die: number, time: number): number {
    const end = this.#opEnd[die]!;
    const { programSlice = 0, resumedSlices = 1 } = this.#p;
    if (programSlice === 0) return end;
    const from = this.#opFrom[die]!;
    const reads = this.#reads[die]!;
    if (time <= from && reads > 0 && reads < BURST) return from;
    const slices = Math.max(
      reads > 0 ? resumedSlices : 1,
      Math.ceil((time - from) / programSlice),
    );
    this.#reads[die] = 0;
    return Math.min(end, from + slices * programSlice);
  }

  /** A read took the die from `start` to `time`: what it interrupted goes on. */
  #resume(die: number, start: number, time: number): void {
    const left = this.#opEnd[die]! - start;
    if (left <= 0) return;
    this.#reads[die]!++;
    this.#opFrom[die] = time;
    this.#opEnd[die] = time + left;
  }

  /** An operation to fill in. */
  newOp(die: number, array: number): DieOp {
    const op = this.#idle.pop() ?? new DieOp();
    op.die = die;
    op.array = array;
    op.bytes = 0;
    op.unit = -1;
    op.held = 0;
    op.next = null;
    return op;
  }

  /** Queues an operation at `time`. */
  enqueue(op: DieOp, time: number): void {
    const last = this.#last[op.die]!;
    this.#last[op.die] = op;
    if (last === null) this.#begin(op, time);
    else last.next = op;
  }

  /** Works off what ends until `now`. */
  advance(now: number): void {
    while (this.#next <= now || this.wakeAt <= now) this.#step(now);
  }

  /** Somebody waits for an operation: time must go on to its end. */
  hold(): void {
    this.#waiting++;
    this.#arm();
  }

  /** Somebody waits no longer. */
  unhold(): void {
    if (--this.#waiting === 0) this.#disarm();
  }

  /** Nobody waits. */
  unholdAll(): void {
    this.#waiting = 0;
    this.#disarm();
  }

  #disarm(): void {
    this.#clock.cancel(this.#event);
    this.#eventAt = Infinity;
  }

  #arm(): void {
    if (this.#waiting === 0 || this.#next >= this.#eventAt) return;
    this.#clock.cancel(this.#event);
    this.#eventAt = this.#next;
    this.#event = this.#clock.at(this.#next, DieArray.#due, this);
  }

  static #due(dies: DieArray): void {
    dies.#eventAt = Infinity;
    dies.advance(dies.#clock.now());
    dies.#arm();
  }

  /** The operation that ends first, if it ends until `now`, or the owner's wish. */
  #step(now: number): void {
    let first = -1;
    let end = Infinity;
    for (let die = 0; die < this.count; die++) {
      if (this.#running[die] !== null && this.#opEnd[die]! < end) {
        end = this.#opEnd[die]!;
        first = die;
      }
    }
    this.#next = end;
    const { wakeAt } = this;
    if (wakeAt <= now && wakeAt <= end) {
      this.wakeAt = Infinity;
      this.#owner.wake(wakeAt);
    } else if (end <= now) this.#end(first, end);
  }

  #end(die: number, time: number): void {
    const op = this.#running[die]!;
    this.#running[die] = null;
    this.#opEnd[die] = 0;
    if (op.next === null) this.#last[die] = null;
    else this.#begin(op.next, time);
    this.#owner.opDone(op, time);
    op.waiters.length = 0;
    this.#idle.push(op);
  }

  #begin(op: DieOp, time: number): void {
    const { die } = op;
    const { channels, channelMBps } = this.#p;
    const from = Math.max(time, this.#readFree[die]!);
    const gap = transferTime(GAP, channelMBps);
    let sent = from;
    for (let at = 0; at < op.bytes; at += PIECE) {
      const piece = Math.min(PIECE, op.bytes - at);
      // Between two pieces there is room for somebody's read.
      const start = at === 0 ? from : sent + gap;
      const service = transferTime(piece, channelMBps);
      sent = this.#channels[die % channels]!.book(time, start, service);
    }
    this.#running[die] = op;
    this.#reads[die] = 0;
    this.#opFrom[die] = from;
    this.#opEnd[die] = sent + op.array;
    this.#next = Math.min(this.#next, this.#opEnd[die]!);
    this.#arm();
  }
}
