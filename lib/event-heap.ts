/**
 * What is due: events by time, and those of one time in the order in which they
 * were added.
 *
 * A 4-ary heap in typed arrays. Events that are taken back stay where they are
 * until they come to the top or there are more of them than of others.
 *
 * @module
 */

import { ENOMEM, FsError } from "./errno.ts";

/** What an event calls. */
export type Callback = (arg: unknown) => unknown;

// Kinds of events.
/** Neither moves time nor keeps the process alive. */
export const BACKGROUND = 0;
/** Settles a promise and does nothing else. */
export const WAKEUP = 1;
/** Anything else. */
export const WORK = 2;

/** Most events that may wait. */
const MAX_SLOTS = 2 ** 22;
/** Uses of a slot after which its ids come round again. */
const MAX_GENERATION = 2 ** 31;
/** Fewer dead events than this are not worth a tidying up. */
const FEW = 64;

/** Events ordered by (time, insertion), each of which can be taken back. */
export class EventHeap {
  // The heap, by position.
  #times = new Float64Array(64);
  #seqs = new Float64Array(64);
  #slots = new Int32Array(64);
  #size = 0;
  #seq = 0;
  /** Events of the heap that were taken back. */
  #dead = 0;
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

  /**
   * Adds an event.
   *
   * @returns Its id, never 0.
   * @throws {FsError} ENOMEM if 2^22 wait already.
   */
  push(time: number, fn: Callback, arg: unknown, kind: number): number {
    const slot = this.#free.pop() ?? this.#newSlot();
    this.#fns[slot] = fn;
    this.#args[slot] = arg;
    this.#kinds[slot] = kind;
    this.#count(kind, 1);
    if (this.#size === this.#times.length) this.#grow();
    this.#siftUp(this.#size++, time, this.#seq++, slot);
    return this.#generations[slot]! * MAX_SLOTS + slot;
  }

  /** Takes an event back, unless it has run. */
  cancel(id: number): void {
    const slot = this.#find(id);
    if (slot < 0) return;
    this.#fns[slot] = null;
    this.#args[slot] = undefined;
    this.#count(this.#kinds[slot]!, -1);
    if (++this.#dead > FEW && this.#dead * 2 > this.#size) this.#tidy();
  }

  /** Makes an event one of another kind, unless it has run. */
  setKind(id: number, kind: number): void {
    const slot = this.#find(id);
    if (slot < 0) return;
    this.#count(this.#kinds[slot]!, -1);
    this.#kinds[slot] = kind;
    this.#count(kind, 1);
  }

  /** Time of the first event, or Infinity. */
  firstTime(): number {
    while (this.#size > 0 && this.#fns[this.#slots[0]!] === null) {
      this.#dead--;
      this.#release(this.#removeFirst());
    }
    return this.#size > 0 ? this.#times[0]! : Infinity;
  }

  /**
   * Takes the event that {@linkcode firstTime} has found, and runs it.
   *
   * @returns What its callback does.
   */
  runFirst(): unknown {
    const slot = this.#removeFirst();
    const fn = this.#fns[slot]!;
    const arg = this.#args[slot];
    this.#count(this.#kinds[slot]!, -1);
    this.#release(slot);
    return fn(arg);
  }

  /** Kind of the event that {@linkcode firstTime} has found. */
  firstKind(): number {
    return this.#kinds[this.#slots[0]!]!;
  }

  #newSlot(): number {
    const slot = this.#fns.length;
    if (slot === MAX_SLOTS) {
      throw new FsError(ENOMEM, `${MAX_SLOTS} events wait already`);
    }
    this.#generations[slot] = 1;
    return slot;
  }

  /** Slot of an event that has not run, or -1. */
  #find(id: number): number {
    const slot = id % MAX_SLOTS;
    if (this.#generations[slot] !== (id - slot) / MAX_SLOTS) return -1;
    return this.#fns[slot] === null ? -1 : slot;
  }

  #count(kind: number, by: number): void {
    if (kind !== BACKGROUND) this.foreground += by;
    if (kind === WORK) this.work += by;
  }

  /** A slot may be used again, under other ids. */
  #release(slot: number): void {
    this.#fns[slot] = null;
    this.#args[slot] = undefined;
    const generation = this.#generations[slot]! + 1;
    this.#generations[slot] = generation === MAX_GENERATION ? 1 : generation;
    this.#free.push(slot);
  }

  /** @returns The slot of what was the first event of the heap. */
  #removeFirst(): number {
    const first = this.#slots[0]!;
    const last = --this.#size;
    if (last > 0) {
      const slot = this.#slots[last]!;
      this.#siftDown(0, this.#times[last]!, this.#seqs[last]!, slot);
    }
    return first;
  }

  /** Drops the events that were taken back. */
  #tidy(): void {
    const size = this.#size;
    let kept = 0;
    for (let i = 0; i < size; i++) {
      const slot = this.#slots[i]!;
      if (this.#fns[slot] === null) this.#release(slot);
      else this.#put(kept++, this.#times[i]!, this.#seqs[i]!, slot);
    }
    this.#size = kept;
    this.#dead = 0;
    for (let i = (kept - 2) >> 2; i >= 0; i--) {
      this.#siftDown(i, this.#times[i]!, this.#seqs[i]!, this.#slots[i]!);
    }
  }

  #siftUp(at: number, time: number, seq: number, slot: number): void {
    const [times, seqs, slots] = [this.#times, this.#seqs, this.#slots];
    let i = at;
    while (i > 0) {
      const parent = (i - 1) >> 2;
      // A new event has the highest sequence number: ties stay below.
      if (times[parent]! <= time) break;
      times[i] = times[parent]!;
      seqs[i] = seqs[parent]!;
      slots[i] = slots[parent]!;
      i = parent;
    }
    this.#put(i, time, seq, slot);
  }

  #siftDown(at: number, time: number, seq: number, slot: number): void {
    const [times, seqs, slots] = [this.#times, this.#seqs, this.#slots];
    const size = this.#size;
    let i = at;
    for (let first = 4 * i + 1; first < size; first = 4 * i + 1) {
      let child = first;
      let earliest = times[first]!;
      const end = Math.min(first + 4, size);
      for (let j = first + 1; j < end; j++) {
        const t = times[j]!;
        if (t < earliest || (t === earliest && seqs[j]! < seqs[child]!)) {
          child = j;
          earliest = t;
        }
      }
      if (time < earliest || (time === earliest && seq < seqs[child]!)) break;
      times[i] = earliest;
      seqs[i] = seqs[child]!;
      slots[i] = slots[child]!;
      i = child;
    }
    this.#put(i, time, seq, slot);
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
