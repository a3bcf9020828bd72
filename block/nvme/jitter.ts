/**
 * Chance in service times, from quantiles that were measured.
 *
 * @module
 */

import type { Prng } from "../../lib/prng.ts";

/** A distribution that is known at some quantiles. */
export interface JitterTable {
  /** Nanoseconds. */
  median: number;
  /** Pairs of a quantile and a multiple of the median, ascending. */
  quantiles: readonly (readonly [number, number])[];
}

/**
 * Draws from a table: between two quantiles the logarithm of the value is linear
 * in that of the tail's share; outside of them it is that of the nearest.
 */
export class Jitter {
  readonly #random: Prng;
  readonly #median: number;
  readonly #quantiles: number[];
  /** Logarithms of 1 - quantile, and of the multiples. */
  readonly #tails: number[];
  readonly #logs: number[];

  /** Draws from `table`, with `random` as the chance. */
  constructor(table: JitterTable, random: Prng) {
    this.#random = random;
    this.#median = table.median;
    this.#quantiles = table.quantiles.map(([q]) => q);
    this.#tails = table.quantiles.map(([q]) => Math.log(1 - q));
    this.#logs = table.quantiles.map(([, multiple]) => Math.log(multiple));
  }

  /** How much longer than the median it takes this time, nanoseconds. */
  sample(): number {
    const log = this.#logAt(this.#random.float());
    // Half of them take the median's time.
    return log === 0 ? 0 : Math.round((Math.exp(log) - 1) * this.#median);
  }

  #logAt(u: number): number {
    const logs = this.#logs;
    const last = logs.length - 1;
    if (u < this.#quantiles[0]!) return logs[0]!;
    if (u >= this.#quantiles[last]!) return logs[last]!;
    let i = 0;
    while (u >= this.#quantiles[i + 1]!) i++;
    const from = this.#tails[i]!;
    const part = (Math.log(1 - u) - from) / (this.#tails[i + 1]! - from);
    return logs[i]! + part * (logs[i + 1]! - logs[i]!);
  }
}
