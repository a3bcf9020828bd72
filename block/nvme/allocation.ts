/**
 * Which logical blocks have been written and not deallocated since.
 *
 * Kept only where the host can make reads of other blocks fail (DULBE). What the media
 * held before counts as never written. Sparse: a stretch that nothing was written to
 * takes no room.
 *
 * @module
 */

import { bitmapClear, bitmapSet, findNextZeroBit } from "../../lib/bitmap.ts";

/** Blocks of one bitmap, 4 KiB of it. */
const STRETCH = 32768;

/** A bit for each logical block. */
export class Allocation {
  readonly #bitmaps = new Map<number, Uint32Array>();

  /** Blocks `[start, end)` have been written. */
  add(start: number, end: number): void {
    eachStretch(start, end, (index, from, count) => {
      let bitmap = this.#bitmaps.get(index);
      if (bitmap === undefined) {
        bitmap = new Uint32Array(STRETCH / 32);
        this.#bitmaps.set(index, bitmap);
      }
      bitmapSet(bitmap, from, count);
      return true;
    });
  }

  /** Blocks `[start, end)` have been deallocated. */
  delete(start: number, end: number): void {
    eachStretch(start, end, (index, from, count) => {
      const bitmap = this.#bitmaps.get(index);
      if (count === STRETCH) this.#bitmaps.delete(index);
      else if (bitmap !== undefined) bitmapClear(bitmap, from, count);
      return true;
    });
  }

  /** Whether all of `[start, end)` have been written. */
  has(start: number, end: number): boolean {
    return eachStretch(start, end, (index, from, count) => {
      const bitmap = this.#bitmaps.get(index);
      const to = from + count;
      return bitmap !== undefined && findNextZeroBit(bitmap, to, from) === to;
    });
  }

  /** All blocks have been deallocated. */
  clear(): void {
    this.#bitmaps.clear();
  }
}

/** Calls `visit` for each stretch that `[start, end)` touches, until it answers false.
 * @returns Whether it never did. */
function eachStretch(
  start: number,
  end: number,
  visit: (index: number, from: number, count: number) => boolean,
): boolean {
  for (let pos = start; pos < end;) {
    const index = Math.floor(pos / STRETCH);
    const from = pos - index * STRETCH;
    const count = Math.min(STRETCH - from, end - pos);
    if (!visit(index, from, count)) return false;
    pos += count;
  }
  return true;
}
