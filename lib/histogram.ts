/**
 * How often values of which size occurred, in a fixed amount of memory.
 *
 * Each power of two is divided into 32 buckets, so what a percentile says is true
 * to 1 part in 32; values below 32 are exact.
 *
 * @module
 */

const SUB_BITS = 5;
const SUB = 2 ** SUB_BITS;
/** Buckets for values up to 2^53. */
const BUCKETS = (53 - SUB_BITS + 1) * SUB;

/** Bucket of a whole number from 0 to 2^53 - 1. */
function bucketOf(value: number): number {
  if (value < SUB) return value;
  const high = Math.floor(value / 2 ** 32);
  const bits = high > 0 ? 64 - Math.clz32(high) : 32 - Math.clz32(value);
  const shift = bits - 1 - SUB_BITS;
  return shift * SUB + Math.floor(value / 2 ** shift);
}

/** Smallest value of a bucket. */
function startOf(bucket: number): number {
  if (bucket < SUB) return bucket;
  const shift = Math.floor(bucket / SUB) - 1;
  return (bucket - shift * SUB) * 2 ** shift;
}

/** Counts of values; 12 KiB. */
export class Histogram {
  readonly #counts = new Float64Array(BUCKETS);
  #count = 0;
  #sum = 0;
  #max = 0;

  /** Values recorded. */
  get count(): number {
    return this.#count;
  }

  /** The largest; 0 if there is none. */
  get max(): number {
    return this.#max;
  }

  /** The mean; 0 if there is none. */
  get mean(): number {
    return this.#count === 0 ? 0 : this.#sum / this.#count;
  }

  /** Records a value; a fraction is cut off, and what is negative counts as 0. */
  record(value: number): void {
    const v = value > 0 ? Math.floor(value) : 0;
    this.#counts[bucketOf(v)]!++;
    this.#count++;
    this.#sum += v;
    if (v > this.#max) this.#max = v;
  }

  /**
   * The value that a share of all does not exceed.
   *
   * @param share From 0 to 1: 0.99 for the 99th percentile.
   * @returns The largest value of the bucket in which it lies; 0 if there is none.
   */
  percentile(share: number): number {
    const rank = Math.max(1, Math.ceil(share * this.#count));
    let seen = 0;
    for (let i = 0; i < BUCKETS; i++) {
      seen += this.#counts[i]!;
      if (seen >= rank) return Math.min(startOf(i + 1) - 1, this.#max);
    }
    return this.#max;
  }

  /** Buckets that are not empty, in order: the smallest value of each, and how
   * many values lie in it. */
  *buckets(): IterableIterator<{ from: number; count: number }> {
    for (let i = 0; i < BUCKETS; i++) {
      const count = this.#counts[i]!;
      if (count > 0) yield { from: startOf(i), count };
    }
  }

  /** Forgets all. */
  clear(): void {
    this.#counts.fill(0);
    this.#count = this.#sum = this.#max = 0;
  }
}
