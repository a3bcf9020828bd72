/**
 * Arbitration: from which submission queue the next commands are fetched.
 *
 * Plain round robin treats all queues alike. Weighted round robin takes the commands
 * of urgent queues first, and shares what is left among the classes high, medium and
 * low: each round, each class has its weight of commands. The admin queue does not
 * come here: its commands are taken at once.
 *
 * Only queues with something to fetch are listed, so that idle ones cost nothing.
 *
 * @module
 */

import type { SqState } from "./queues.ts";

/** Burst that stands for "no limit" in feature 0x01. */
const BURST_UNLIMITED = 7;
/** Rings in order of precedence: urgent (and all without weights), high, medium, low. */
const RINGS = 4;
/** The first ring that has a weight. */
const HIGH = 1;

/** Queues of one class, served in turn. */
class Ring {
  readonly queues: SqState[] = [];
  /** The one whose turn it is. */
  turn = 0;
}

/** Chooses among queues that have something to fetch. */
export class Arbiter {
  readonly #rings = Array.from({ length: RINGS }, () => new Ring());
  #weighted = false;
  #burst = 1;
  #weights: readonly number[] = [1, 1, 1];
  readonly #credits = [0, 0, 0];
  /** Index of the ring that {@linkcode next} chose from. */
  #chosen = 0;
  #listed = 0;

  /** Whether any queue is listed. */
  get busy(): boolean {
    return this.#listed > 0;
  }

  /** Selects the mechanism, with no queue listed. */
  reset(weighted: boolean): void {
    this.#weighted = weighted;
    for (const ring of this.#rings) {
      for (const sq of ring.queues) sq.listed = false;
      ring.queues.length = 0;
      ring.turn = 0;
    }
    this.#listed = 0;
    this.#credits.fill(0);
  }

  /** Sets burst and weights: the value of feature 0x01. */
  configure(feature: number): void {
    const ab = feature & 7;
    this.#burst = ab === BURST_UNLIMITED ? Infinity : 1 << ab;
    this.#weights = [
      (feature >>> 24) + 1,
      (feature >>> 16 & 0xff) + 1,
      (feature >>> 8 & 0xff) + 1,
    ];
    this.#credits.fill(0);
  }

  /** A queue has something to fetch. */
  list(sq: SqState): void {
    if (sq.listed) return;
    sq.listed = true;
    this.#listed++;
    this.#ringOf(sq).queues.push(sq);
  }

  /** A queue has nothing to fetch for now. */
  unlist(sq: SqState): void {
    if (!sq.listed) return;
    sq.listed = false;
    this.#listed--;
    const ring = this.#ringOf(sq);
    const { queues } = ring;
    const at = queues.indexOf(sq);
    if (at === queues.length - 1) queues.pop();
    else queues.splice(at, 1);
    if (at < ring.turn) ring.turn--;
    if (ring.turn >= queues.length) ring.turn = 0;
  }

  /** The queue to fetch from, or null if none has anything. */
  next(): SqState | null {
    const index = this.#choose();
    if (index < 0) return null;
    this.#chosen = index;
    const ring = this.#rings[index]!;
    return ring.queues[ring.turn]!;
  }

  /** Most commands to fetch from the queue that {@linkcode next} gave. */
  get quota(): number {
    const i = this.#chosen - HIGH;
    return i < 0 ? this.#burst : Math.min(this.#burst, this.#credits[i]!);
  }

  /** `count` commands have been fetched from it; it is another's turn. */
  charge(sq: SqState, count: number): void {
    const i = this.#chosen - HIGH;
    if (i >= 0) this.#credits[i]! -= count;
    // One that is no longer listed has given its place to the next already.
    if (!sq.listed) return;
    const ring = this.#rings[this.#chosen]!;
    ring.turn = ring.turn + 1 < ring.queues.length ? ring.turn + 1 : 0;
  }

  #ringOf(sq: SqState): Ring {
    return this.#rings[this.#weighted ? sq.priority : 0]!;
  }

  #choose(): number {
    if (this.#rings[0]!.queues.length > 0) return 0;
    if (!this.#weighted) return -1;
    const found = this.#weightedClass();
    if (found >= 0) return found;
    // A round is over when no class with work has credits left.
    for (let i = 0; i < 3; i++) this.#credits[i] = this.#weights[i]!;
    return this.#weightedClass();
  }

  #weightedClass(): number {
    for (let i = 0; i < 3; i++) {
      const index = HIGH + i;
      if (this.#credits[i]! > 0 && this.#rings[index]!.queues.length > 0) {
        return index;
      }
    }
    return -1;
  }
}
