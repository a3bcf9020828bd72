/**
 * The numbers behind a workload: fio's random streams, bit for bit.
 *
 * Every job owns a set of streams, each seeded from the job's seed and its
 * thread number, so that changing the number of draws in one (block sizes, say)
 * leaves the others as they were. All arithmetic is on unsigned 32-bit words;
 * the two places where fio computes with 64 bits use pairs of words.
 *
 * @module
 */

/** Which stream of a job draws what: an index into {@linkcode threadSeeds}. */
export const SEED_BLOCK_SIZE = 0;
/** Read or write in a mixed job. */
export const SEED_RWMIX = 4;
/** Which file is next. */
export const SEED_FILE = 5;
/** Offsets. */
export const SEED_OFFSET = 6;
/** Sizes of files. */
export const SEED_FILE_SIZE = 7;
/** Contents of buffers. */
export const SEED_BUFFER = 9;
/** Sequential or random I/O (`percentage_random`). */
export const SEED_SEQ_RAND = 10;
/** How long a job waits before it starts. */
export const SEED_START_DELAY = 13;
/** Poisson arrivals of reads, writes and trims. */
export const SEED_POISSON: readonly number[] = [15, 17, 18];
const SEED_COUNT = 21;

/** fio's default `randseed`. */
const DEFAULT_RANDSEED = 0x89;
const U32 = 2 ** 32;
const GOLDEN_RATIO = 0x9e370001;
const REPEATABLE_SEED = 0xb1899bed;

/** L'Ecuyer's taus88, seeded as fio does. */
export class Taus88 {
  readonly #s = new Int32Array(3);

  /** @param seed Only its low 32 bits count. */
  constructor(seed: number) {
    const next = (x: number) => Math.imul(x, 69069) ^ seed;
    const minimum = [1, 7, 15];
    // 53 is C's `(2^31) + (2^17) + (2^7)`: exclusive or, not powers.
    let x = 53;
    for (let i = 0; i < 3; i++) {
      x = next(x);
      if ((x >>> 0) < minimum[i]!) x += minimum[i]!;
      this.#s[i] = x;
    }
    for (let i = 0; i < 6; i++) this.next();
  }

  /** Next 32 bits, 0 to 2^32 - 1. */
  next(): number {
    const s = this.#s;
    const a = s[0]!, b = s[1]!, c = s[2]!;
    const a2 = ((a & ~1) << 12) ^ (((a << 13) ^ a) >>> 19);
    const b2 = ((b & ~7) << 4) ^ (((b << 2) ^ b) >>> 25);
    const c2 = ((c & ~15) << 17) ^ (((c << 3) ^ c) >>> 11);
    s[0] = a2;
    s[1] = b2;
    s[2] = c2;
    return (a2 ^ b2 ^ c2) >>> 0;
  }

  /** A whole number from `low` to `high`, both inclusive. */
  between(low: number, high: number): number {
    return low + Math.floor((high - low + 1) * (this.next() / 2 ** 32));
  }
}

/** What decides a job's seeds. */
export interface SeedOptions {
  /** `randseed`; null where the job file gives none. */
  randseed: number | null;
  /** `randrepeat`. */
  randrepeat: boolean;
  /** `allrandrepeat`. */
  allrandrepeat: boolean;
  /** Seed of the run: stands in for chance where fio asks the system for it. */
  seed: number;
}

/**
 * Seeds of all streams of one job; only the low 32 bits of fio's 64 are used.
 *
 * @param threadNumber Counts from 1 over all jobs and their clones.
 */
export function threadSeeds(
  options: SeedOptions,
  threadNumber: number,
): Uint32Array {
  const seeds = new Uint32Array(SEED_COUNT);
  const repeatable = Math.imul(REPEATABLE_SEED, threadNumber);
  if (options.allrandrepeat) {
    for (let i = 0; i < SEED_COUNT; i++) seeds[i] = repeatable + i;
  } else if (options.randseed === null && !options.randrepeat) {
    const chance = new Taus88(
      options.seed ^ Math.imul(GOLDEN_RATIO, threadNumber),
    );
    for (let i = 0; i < SEED_COUNT; i++) seeds[i] = chance.next();
  } else {
    let word = (options.randseed ?? DEFAULT_RANDSEED) % U32;
    for (let i = 0; i < 4; i++) word = Math.imul(word, GOLDEN_RATIO);
    for (let i = 0; i < SEED_COUNT; i++) {
      seeds[i] = Math.imul(word, threadNumber) + i;
      word = Math.imul(word, GOLDEN_RATIO);
    }
  }
  // Even where `randseed` is set: fio 3.33 heeds it only with `randrepeat=0`.
  if (options.randrepeat) seeds[SEED_OFFSET] = repeatable;
  return seeds;
}

/** Which blocks of a file have been used, with a search for the next free one. */
export class RandomMap {
  /** Bit = used; a bit of the next level = the word below it is full. */
  readonly #levels: Int32Array[] = [];
  readonly #blocks: number;

  /** @param blocks 1 to 2^31. */
  constructor(blocks: number) {
    this.#blocks = blocks;
    let bits = blocks;
    do {
      const words = Math.ceil(bits / 32);
      this.#levels.push(new Int32Array(words));
      bits = words;
    } while (bits > 1);
    this.reset();
  }

  /** Makes all blocks free. */
  reset(): void {
    let bits = this.#blocks;
    for (const words of this.#levels) {
      words.fill(0);
      // What lies beyond the end counts as used.
      if ((bits & 31) !== 0) words[words.length - 1] = -1 << (bits & 31);
      bits = words.length;
    }
  }

  /** Whether a block has not been used. */
  isFree(block: number): boolean {
    return (this.#levels[0]![block >>> 5]! & (1 << (block & 31))) === 0;
  }

  /** The first free block from `block` on, from 0 where there is none; or -1. */
  nextFree(block: number): number {
    const found = this.#firstFree(block);
    return found === -1 ? this.#firstFree(0) : found;
  }

  /**
   * Marks up to `count` blocks from `block` on as used, up to the first that
   * is used already.
   *
   * @returns Blocks marked.
   */
  mark(block: number, count: number): number {
    let n = 0;
    while (n < count && block + n < this.#blocks && this.isFree(block + n)) {
      this.#set(block + n);
      n++;
    }
    return n;
  }

  #set(block: number): void {
    let bit = block;
    for (const words of this.#levels) {
      const word = bit >>> 5;
      words[word] = words[word]! | (1 << (bit & 31));
      if (words[word] !== -1) return;
      bit = word;
    }
  }

  #firstFree(from: number): number {
    let bit = from;
    for (let level = 0; level < this.#levels.length; level++) {
      const words = this.#levels[level]!;
      if ((bit >>> 5) >= words.length) return -1;
      const free = ~words[bit >>> 5]! & (-1 << (bit & 31));
      if (free !== 0) {
        return this.#descend(level, (bit & ~31) + lowestBit(free));
      }
      bit = (bit >>> 5) + 1;
    }
    return -1;
  }

  #descend(from: number, bit: number): number {
    let at = bit;
    for (let level = from - 1; level >= 0; level--) {
      at = at * 32 + lowestBit(~this.#levels[level]![at]!);
    }
    return at;
  }
}

function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word);
}

/** Skewed choice of a block. */
export interface Distribution {
  /** Next block, 0 to n - 1. */
  next(): number;
}

const HASH_HIGH = 0x61c88646;
const HASH_LOW = 0x80b583eb;

/** High word of the product of two unsigned words. */
function mulHigh(a: number, b: number): number {
  const a0 = a & 0xffff, a1 = a >>> 16, b0 = b & 0xffff, b1 = b >>> 16;
  const mid = a1 * b0 + Math.floor((a0 * b0) / 65536);
  const mid2 = a0 * b1 + (mid % 65536);
  return a1 * b1 + Math.floor(mid / 65536) + Math.floor(mid2 / 65536);
}

/**
 * `(v * 0x61C8864680B583EB mod 2^64 + shift) mod n`, in pairs of words.
 *
 * @param v Below 2^53.
 * @param shift Below 2^53.
 * @param n 1 to 2^32.
 */
export function hashedBlock(v: number, shift: number, n: number): number {
  const vLow = v >>> 0, vHigh = Math.floor(v / U32);
  const product = Math.imul(vLow, HASH_LOW) >>> 0;
  const high = (mulHigh(vLow, HASH_LOW) + Math.imul(vLow, HASH_HIGH) +
    Math.imul(vHigh, HASH_LOW)) >>> 0;
  const sumLow = product + shift % U32;
  const low = sumLow % U32;
  const sumHigh = (high + Math.floor(shift / U32) + (sumLow >= U32 ? 1 : 0)) %
    U32;
  let rest = sumHigh % n;
  rest = (rest * 65536 + (low >>> 16)) % n;
  return (rest * 65536 + (low & 0xffff)) % n;
}

const MAX_ZETA_TERMS = 10_000_000;

/** `random_distribution=zipf:theta[:center]`. */
export class Zipf implements Distribution {
  readonly #random: Taus88;
  readonly #n: number;
  readonly #shift: number;
  readonly #zeta: number;
  readonly #eta: number;
  readonly #second: number;
  readonly #power: number;

  /**
   * @param n Blocks, at least 1.
   * @param center Where the hot spot is, 0 to 1; -1 leaves it to the stream.
   */
  constructor(n: number, theta: number, center: number, seed: number) {
    this.#random = new Taus88(seed);
    this.#n = n;
    this.#shift = firstShift(this.#random, n, center);
    let zeta = 0;
    for (let i = 1; i <= Math.min(n, MAX_ZETA_TERMS); i++) {
      zeta += Math.pow(1 / i, theta);
    }
    this.#zeta = zeta;
    this.#second = 1 + Math.pow(0.5, theta);
    this.#power = 1 / (1 - theta);
    this.#eta = (1 - Math.pow(2 / n, 1 - theta)) / (1 - this.#second / zeta);
  }

  next(): number {
    const u = this.#random.next() / (U32 - 1);
    const uz = u * this.#zeta;
    let v = 0;
    if (uz >= this.#second) {
      const x = this.#eta * u - this.#eta + 1;
      v = Math.floor(this.#n * Math.pow(x, this.#power));
    } else if (uz >= 1) v = 1;
    return hashedBlock(v, this.#shift, this.#n);
  }
}

/** `random_distribution=pareto:h[:center]`. */
export class Pareto implements Distribution {
  readonly #random: Taus88;
  readonly #n: number;
  readonly #shift: number;
  readonly #power: number;

  constructor(n: number, h: number, center: number, seed: number) {
    this.#random = new Taus88(seed);
    this.#n = n;
    this.#shift = firstShift(this.#random, n, center);
    this.#power = Math.log(h) / Math.log(1 - h);
  }

  next(): number {
    const u = this.#random.next() / (U32 - 1);
    const v = Math.floor((this.#n - 1) * Math.pow(u, this.#power));
    return hashedBlock(v, this.#shift, this.#n);
  }
}

function firstShift(random: Taus88, n: number, center: number): number {
  const drawn = random.next();
  return center < 0 ? drawn : Math.floor(n * center);
}

/** `random_distribution=normal:deviation[:center]`, a sum of twelve draws. */
export class Normal implements Distribution {
  readonly #random: Taus88;
  readonly #n: number;
  readonly #shift: number;
  readonly #deviation: number;

  /** @param deviation Percent of the blocks, 0 to 100. */
  constructor(n: number, deviation: number, center: number, seed: number) {
    this.#random = new Taus88(seed);
    this.#n = n;
    this.#deviation = Math.min(
      Math.ceil(n * deviation / 100),
      Math.floor(n / 2),
    );
    this.#shift = center < 0 ? 0 : Math.floor(n * (center - 0.5));
  }

  next(): number {
    const n = this.#n;
    let sum = 0;
    for (let i = 0; i < 12; i++) sum += this.#random.next() % (n + 1);
    let v = Math.floor((sum + 11) / 12);
    if (this.#deviation > 0) {
      let d = this.#random.between(0, this.#deviation - 1) -
        Math.floor(this.#deviation / 2);
      while (d + v >= n) d = Math.trunc(d / 2);
      v += d;
    }
    // A negative shift wraps as it would in 64 bits: 2^64 mod n comes off.
    return this.#shift >= 0
      ? hashedBlock(v, this.#shift, n)
      : hashedBelow(v, -this.#shift, n);
  }
}

/** `(v * 0x61C8864680B583EB - shift mod 2^64) mod n` where nothing borrows. */
function hashedBelow(v: number, shift: number, n: number): number {
  return (hashedBlock(v, 0, n) - shift % n + n) % n;
}

/**
 * Hash of a file name, which seeds its skewed offsets: Bob Jenkins' lookup3 with
 * fio's two departures. It begins with the golden ratio, and of every twelve
 * bytes that are not the last ones it takes in three.
 */
export function hashName(name: string): number {
  const bytes = new TextEncoder().encode(name);
  const start = (NAME_HASH_START + bytes.length) | 0;
  const abc: [number, number, number] = [start, start, start];
  let at = 0;
  for (; bytes.length - at > 12; at += 12) {
    abc.forEach((_, i) => abc[i]! += bytes[at + 4 * i]!);
    for (const [to, from, bits] of MIX_STEPS) mixStep(abc, to, from, bits);
  }
  if (at === bytes.length) return abc[2] >>> 0;
  for (let i = at; i < bytes.length; i++) {
    abc[(i - at) >> 2]! += bytes[i]! << (8 * ((i - at) & 3));
  }
  for (const [to, from, bits] of FINAL_STEPS) {
    abc[to] = ((abc[to]! ^ abc[from]!) - rotate(abc[from]!, bits)) | 0;
  }
  return abc[2] >>> 0;
}

const NAME_HASH_START = 0x61c88647;

/** Which word takes in which, and by how many bits that is rotated. */
const MIX_STEPS = [[0, 2, 4], [1, 0, 6], [2, 1, 8], [0, 2, 16], [1, 0, 19], [
  2,
  1,
  4,
]] as const;
/** The same, once the last bytes are in. */
const FINAL_STEPS = [
  [2, 1, 14],
  [0, 2, 11],
  [1, 0, 25],
  [2, 1, 16],
  [
    0,
    2,
    4,
  ],
  [1, 0, 14],
  [2, 1, 24],
] as const;

function mixStep(abc: number[], to: number, from: number, bits: number): void {
  abc[to] = ((abc[to]! - abc[from]!) | 0) ^ rotate(abc[from]!, bits);
  const other = 3 - to - from;
  abc[from] = (abc[from]! + abc[other]!) | 0;
}

function rotate(x: number, bits: number): number {
  return (x << bits) | (x >>> (32 - bits));
}

/** One entry of `bssplit`. */
export interface BlockSplit {
  /** Bytes. */
  size: number;
  /** Whole percent. */
  percent: number;
}

/** Draws the size of each I/O of one direction. */
export class BlockSizes {
  readonly #random: Taus88;
  readonly #min: number;
  readonly #max: number;
  readonly #unaligned: boolean;
  readonly #split: readonly BlockSplit[];

  /** @param split Empty for a plain size or a range. */
  constructor(
    min: number,
    max: number,
    unaligned: boolean,
    split: readonly BlockSplit[],
    seed: number,
  ) {
    this.#random = new Taus88(seed);
    this.#min = min;
    this.#max = max;
    this.#unaligned = unaligned;
    this.#split = split.filter((s) => s.percent > 0)
      .sort((a, b) => a.percent - b.percent);
  }

  /**
   * Size of the next I/O, in bytes.
   *
   * @param room Bytes to the end of the region.
   * @returns 0 if not even the smallest size fits.
   */
  next(room: number): number {
    if (this.#min === this.#max) return this.#min;
    if (room < this.#min) return 0;
    for (;;) {
      const r = this.#random.next();
      let size = this.#split.length > 0
        ? this.#pick(r, room)
        : this.#min + Math.floor(this.#max * (r / U32));
      if (!this.#unaligned) size -= size % this.#min;
      if (size > this.#max) size = this.#max;
      if (size <= room) return size;
    }
  }

  #pick(r: number, room: number): number {
    let sum = 0, size = this.#max;
    for (const entry of this.#split) {
      size = entry.size;
      sum += entry.percent;
      if (Math.floor(r / sum) <= 42949672 && size <= room) break;
    }
    return size;
  }
}

/** Chooses between reading and writing in a mixed job. */
export class RwMix {
  readonly #random: Taus88;
  readonly #percentRead: number;
  #limit = 0;
  #write = false;

  constructor(percentRead: number, seed: number) {
    this.#random = new Taus88(seed);
    this.#percentRead = percentRead;
  }

  /**
   * Whether the next I/O is a write. A choice stands for some I/Os: a new one
   * is drawn only once enough have been issued in the present direction.
   *
   * @param reads Reads issued so far.
   * @param writes Writes issued so far.
   */
  nextIsWrite(reads: number, writes: number): boolean {
    const issued = this.#write ? writes : reads;
    if (issued < this.#limit) return this.#write;
    const write = this.#random.between(1, 100) > this.#percentRead;
    if (write !== this.#write) {
      const share = this.#write ? this.#percentRead : 100 - this.#percentRead;
      this.#limit = Math.floor(issued * share / 100);
    }
    this.#write = write;
    return write;
  }

  /** A rate limit made the job go the other way. */
  force(write: boolean): void {
    this.#write = write;
  }
}

/**
 * Fills a buffer with incompressible data: four lanes of 64-bit words, each
 * hashed on from its seed.
 */
export function fillBuffer(buffer: Uint8Array, seed: number): void {
  const lanes = [1, 2, 3, 5].map((k) => ({
    low: Math.imul(seed, k) >>> 0,
    high: Math.floor((seed * k) / U32),
  }));
  const whole = buffer.byteLength - buffer.byteLength % 8;
  const view = new DataView(buffer.buffer, buffer.byteOffset, whole);
  for (let at = 0, i = 0; at < whole; at += 8, i++) {
    const lane = lanes[i & 3]!;
    view.setUint32(at, lane.low, true);
    view.setUint32(at + 4, lane.high, true);
    const high = mulHigh(lane.low, HASH_LOW) +
      Math.imul(lane.low, HASH_HIGH) + Math.imul(lane.high, HASH_LOW);
    lane.low = Math.imul(lane.low, HASH_LOW) >>> 0;
    lane.high = high >>> 0;
  }
}
