/**
 * Interrupt vectors: at once, or coalesced.
 *
 * An interrupt says that there is at least one new completion. Coalescing waits
 * until a number of them are there, or a time has passed since the first.
 *
 * @module
 */

import { type Clock, type EventId, USEC } from "../../lib/clock.ts";

/** Vectors with a mask bit; those beyond cannot be masked. */
const MASKABLE = 32;

/** One interrupt vector. */
export class Vector {
  /** Its number; vector 0 is the admin queue's. */
  readonly index: number;
  readonly #clock: Clock;
  readonly #rule: CoalescingRule;
  /** What the host runs. */
  handler: (() => void) | null = null;
  /** Whether its interrupts are not coalesced (feature 0x09). */
  coalescingDisabled = false;
  #masked = false;
  /** Completions that the host has not been told of. */
  #pending = 0;
  #timer: EventId = 0;

  constructor(index: number, clock: Clock, rule: CoalescingRule) {
    this.index = index;
    this.#clock = clock;
    this.#rule = rule;
  }

  /** There is a new completion. */
  raise(): void {
    this.#pending++;
    if (this.#masked) return;
    const { threshold, delay } = this.#rule;
    const direct = threshold <= 1 || delay === 0 || this.index === 0 ||
      this.coalescingDisabled;
    if (direct || this.#pending >= threshold) this.#fire();
    else if (this.#timer === 0) {
      const due = this.#clock.now() + delay;
      this.#timer = this.#clock.at(due, Vector.#expired, this);
    }
  }

  /** The host has found everything by itself: there is nothing left to tell. */
  clear(): void {
    this.#pending = 0;
    if (this.#timer === 0) return;
    this.#clock.cancel(this.#timer);
    this.#timer = 0;
  }

  /** Masks it, or unmasks it; then what was held back is told. */
  mask(on: boolean): void {
    this.#masked = on;
    if (!on && this.#pending > 0) this.#fire();
  }

  /** Whether it is masked. */
  get masked(): boolean {
    return this.#masked;
  }

  static #expired(vector: Vector): void {
    vector.#timer = 0;
    if (vector.#pending > 0 && !vector.#masked) vector.#fire();
  }

  #fire(): void {
    this.clear();
    this.handler?.();
  }
}

/** When a vector that coalesces tells (feature 0x08). */
class CoalescingRule {
  /** Completions at which it tells at once. */
  threshold = 1;
  /** Longest that one waits, nanoseconds; 0 turns coalescing off. */
  delay = 0;
}

/** The vectors of a controller. */
export class Interrupts {
  /** Made when they are first asked for. */
  readonly #vectors: Vector[] = [];
  readonly #clock: Clock;
  readonly #count: number;
  readonly #rule = new CoalescingRule();

  /**
   * Vectors that no one handles.
   *
   * @param clock Times coalescing.
   * @param count How many.
   */
  constructor(clock: Clock, count: number) {
    this.#clock = clock;
    this.#count = count;
  }

  /** A vector by number, or undefined if there is none. */
  vector(index: number): Vector | undefined {
    const vectors = this.#vectors;
    if (index >= this.#count) return undefined;
    while (vectors.length <= index) {
      vectors.push(new Vector(vectors.length, this.#clock, this.#rule));
    }
    return vectors[index];
  }

  /** Sets threshold and time: the value of feature 0x08. */
  configure(feature: number): void {
    this.#rule.threshold = (feature & 0xff) + 1;
    this.#rule.delay = (feature >>> 8 & 0xff) * 100 * USEC;
  }

  /** Masks, or unmasks, the vectors whose bit is set. */
  mask(bits: number, on: boolean): void {
    for (let i = 0; i < MASKABLE; i++) {
      if ((bits >>> i & 1) !== 0) this.vector(i)?.mask(on);
    }
  }

  /** The mask: a bit for each vector that is masked. */
  get maskBits(): number {
    let bits = 0;
    for (const vector of this.#vectors.slice(0, MASKABLE)) {
      if (vector.masked) bits |= 1 << vector.index;
    }
    return bits >>> 0;
  }

  /** As after a reset: nothing pending, nothing masked, no coalescing. */
  reset(): void {
    this.configure(0);
    for (const vector of this.#vectors) {
      vector.clear();
      vector.mask(false);
      vector.coalescingDisabled = false;
    }
  }
}
