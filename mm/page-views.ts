/**
 * Views of cached memory that is read again and again.
 *
 * To copy out of part of an array takes a view of that part, which costs a third of
 * a small copy to make and is garbage at once. The views of what is hot are kept; all
 * others are still made for each copy, as a view for every page would burden every
 * collection of garbage.
 *
 * @module
 */

import type { Folio } from "./folio.ts";
import { PAGE_MASK, PAGE_SIZE } from "./folio.ts";

/** Views kept: 4 MiB of hot pages. */
const SLOTS = 1024;

/** The views of one machine's memory. */
export class PageViews {
  readonly #views: (Uint8Array | null)[] = new Array(SLOTS).fill(null);
  /** By slot: the page that its view begins in. */
  readonly #frames = new Int32Array(SLOTS);
  /** By slot: the page that was wanted last and not found. One that is wanted twice
   * in a row is kept: a view that is never used again is not worth to outlive its use. */
  readonly #missed = new Int32Array(SLOTS);

  /**
   * Bytes [offset, offset + len) of a folio's slab, of which the first is the folio's.
   * Folios never lose their slab, so a view that is kept stays valid.
   */
  get(folio: Folio, offset: number, len: number): Uint8Array {
    const page = (offset - folio.offset) / PAGE_SIZE | 0;
    const frame = folio.frame + page;
    const slot = (frame + (offset & PAGE_MASK)) & (SLOTS - 1);
    if (this.#frames[slot] === frame) {
      const view = this.#views[slot]!;
      if (view.byteOffset === offset && view.length === len) return view;
    }
    return this.#make(folio, offset, len, frame, slot);
  }

  #make(
    folio: Folio,
    offset: number,
    len: number,
    frame: number,
    slot: number,
  ): Uint8Array {
    const view = folio.data.subarray(offset, offset + len);
    if (this.#missed[slot] === frame) {
      this.#views[slot] = view;
      this.#frames[slot] = frame;
    }
    this.#missed[slot] = frame;
    return view;
  }
}
