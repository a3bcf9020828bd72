/**
 * Chance in service times, from quantiles that were measured.
 *
 * Logarithms and powers are worked out here, of sums, products and quotients alone:
 * those are the same on every machine to the last bit, `Math.log` need not be.
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
    this.#tails = table.quantiles.map(([q]) => ln(1 - q));
    this.#logs = table.quantiles.map(([, multiple]) => ln(multiple));
  }

  /** How much longer than the median it takes this time, nanoseconds. */
  sample(): number {
    const log = this.#logAt(this.#random.float());
    // Half of them take the median's time.
    return log === 0 ? 0 : Math.round((exp(log) - 1) * this.#median);
  }

  #logAt(u: number): number {
    const logs = this.#logs;
    const last = logs.length - 1;
    if (u < this.#quantiles[0]!) return logs[0]!;
    if (u >= this.#quantiles[last]!) return logs[last]!;
    let i = 0;
    while (u >= this.#quantiles[i + 1]!) i++;
    const from = this.#tails[i]!;
    const part = (ln(1 - u) - from) / (this.#tails[i + 1]! - from);
    return logs[i]! + part * (logs[i + 1]! - logs[i]!);
  }
}

const LN2 = 0.6931471805599453;

/** Natural logarithm of a number above 0. */
function ln(x: number): number {
  let power = 0;
  let m = x;
  for (; m > Math.SQRT2; m /= 2) power++;
  for (; m < Math.SQRT1_2; m *= 2) power--;
  // ln m = 2 artanh s, of which the series has converged after so many terms.
  const s = (m - 1) / (m + 1);
  const square = s * s;
  let sum = 0;
  for (let n = 23; n > 0; n -= 2) sum = sum * square + 1 / n;
  return power * LN2 + 2 * s * sum;
}

/** The exponential of a number that is not large. */
function exp(x: number): number {
  const power = Math.round(x / LN2);
  const rest = x - power * LN2;
  let sum = 1;
  for (let n = 16; n > 0; n--) sum = 1 + sum * rest / n;
  // Exact: a power of two.
  for (let i = power; i > 0; i--) sum *= 2;
  for (let i = power; i < 0; i++) sum /= 2;
  return sum;
}
