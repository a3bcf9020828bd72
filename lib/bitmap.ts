/**
 * Bitmaps over Uint32Array words.
 *
 * Kernel counterpart: lib/bitmap.c, lib/find_bit.c.
 *
 * @module
 */

/** Words needed for `bits` bits. */
export function bitmapWords(bits: number): number {
  return (bits + 31) >>> 5;
}

/** Whether bit `n` is set (kernel: `test_bit`). */
export function testBit(map: Uint32Array, n: number): boolean {
  return (map[n >>> 5]! & (1 << (n & 31))) !== 0;
}

/** Sets bit `n` (kernel: `__set_bit`). */
export function setBit(map: Uint32Array, n: number): void {
  map[n >>> 5]! |= 1 << (n & 31);
}

/** Clears bit `n` (kernel: `__clear_bit`). */
export function clearBit(map: Uint32Array, n: number): void {
  map[n >>> 5]! &= ~(1 << (n & 31));
}

/** Mask of bits [from, to) of one word, 0 <= from < to <= 32. */
function wordMask(from: number, to: number): number {
  const high = to === 32 ? -1 : (1 << to) - 1;
  return high & ~((1 << from) - 1);
}

/** Sets `count` bits from `start` (kernel: `bitmap_set`). */
export function bitmapSet(
  map: Uint32Array,
  start: number,
  count: number,
): void {
  for (let n = start, end = start + count; n < end;) {
    const from = n & 31;
    const to = Math.min(32, from + end - n);
    map[n >>> 5]! |= wordMask(from, to);
    n += to - from;
  }
}

/** Clears `count` bits from `start` (kernel: `bitmap_clear`). */
export function bitmapClear(
  map: Uint32Array,
  start: number,
  count: number,
): void {
  for (let n = start, end = start + count; n < end;) {
    const from = n & 31;
    const to = Math.min(32, from + end - n);
    map[n >>> 5]! &= ~wordMask(from, to);
    n += to - from;
  }
}

/**
 * First set bit at or after `start` (kernel: `find_next_bit`).
 *
 * @param size Bits looked at end before this one.
 * @returns Its number, or `size` if there is none.
 */
export function findNextBit(
  map: Uint32Array,
  size: number,
  start: number,
): number {
  return findNext(map, size, start, 0);
}

/** First clear bit at or after `start`, or `size` (kernel: `find_next_zero_bit`). */
export function findNextZeroBit(
  map: Uint32Array,
  size: number,
  start: number,
): number {
  return findNext(map, size, start, -1);
}

function findNext(
  map: Uint32Array,
  size: number,
  start: number,
  invert: number,
): number {
  if (start >= size) return size;
  let word = start >>> 5;
  let bits = (map[word]! ^ invert) & ~((1 << (start & 31)) - 1);
  for (;;) {
    if (bits !== 0) {
      // The lowest set bit alone, then its number.
      const n = word * 32 + 31 - Math.clz32(bits & -bits);
      return Math.min(n, size);
    }
    if (++word * 32 >= size) return size;
    bits = map[word]! ^ invert;
  }
}
