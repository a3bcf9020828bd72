/**
 * Seeded random numbers: one stream per component, so that adding a component
 * does not shift the others.
 *
 * @module
 */

/** xoshiro128** over a seed and a stream name; not for secrets. */
export class Prng {
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  /**
   * @param seed Any safe integer; the run's seed.
   * @param stream Name of the component that draws.
   */
  constructor(seed: number, stream = "") {
    // splitmix32 over seed and stream name spreads nearby seeds apart.
    let h = (seed ^ Math.floor(seed / 2 ** 32)) >>> 0;
    const next = () => {
      h = (h + 0x9e3779b9) >>> 0;
      let z = h;
      z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
      return (z ^ (z >>> 16)) >>> 0;
    };
    for (let i = 0; i < stream.length; i++) {
      h = (h ^ stream.charCodeAt(i)) >>> 0;
      h = next();
    }
    this.#a = next();
    this.#b = next();
    this.#c = next();
    this.#d = next() | 1;
  }

  /** Next 32 bits, 0 to 2^32 - 1. */
  u32(): number {
    const x = Math.imul(this.#b, 5);
    const result = Math.imul((x << 7) | (x >>> 25), 9) >>> 0;
    const t = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= t;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return result;
  }

  /** Next fraction, 0 inclusive to 1 exclusive, with 53 bits. */
  float(): number {
    return ((this.u32() >>> 5) * 2 ** 26 + (this.u32() >>> 6)) / 2 ** 53;
  }

  /**
   * A whole number from 0 to `n` - 1.
   *
   * @param n Exclusive upper bound, 1 to 2^53.
   */
  below(n: number): number {
    return n <= 2 ** 32
      ? Math.floor(this.u32() * n / 2 ** 32)
      : Math.floor(this.float() * n);
  }
}
