/**
 * Lists of folios by age of use.
 *
 * What is new goes to the head of the inactive list, what is used again to the active
 * one; reclaim takes from the tail. A list is linked through the columns of the page
 * allocator, which needs them for free frames alone, and its sentinel is a frame that
 * no folio has.
 *
 * Kernel counterpart: mm/swap.c, include/linux/mm_inline.h.
 *
 * @module
 */

import {
  type Folio,
  folioNrPages,
  PG_ACTIVATE,
  PG_ACTIVE,
  PG_REFERENCED,
} from "./folio.ts";

/** Folios used once. */
export const LRU_INACTIVE_FILE = 1;
/** Folios used again. */
export const LRU_ACTIVE_FILE = 2;

/** The list that a folio is on (kernel: `folio_lru_list`). */
function listOf(folio: Folio): number {
  return (folio.flags & PG_ACTIVE) !== 0 ? LRU_ACTIVE_FILE : LRU_INACTIVE_FILE;
}

/** The lists of one memory (kernel: `struct lruvec`). */
export class Lruvec {
  /** Pages evicted or made active, ever: the clock of evictions (kernel:
   * `nonresident_age`). */
  nonresidentAge = 0;
  readonly #next: Int32Array;
  readonly #prev: Int32Array;
  /** Pages of each list. */
  readonly #pages = [0, 0, 0];

  /** Empty lists. @param next Column by frame. @param prev The other way. */
  constructor(next: Int32Array, prev: Int32Array) {
    this.#next = next;
    this.#prev = prev;
    for (const list of [LRU_INACTIVE_FILE, LRU_ACTIVE_FILE]) {
      next[list] = list;
      prev[list] = list;
    }
  }

  /** Pages of a list (kernel: `lruvec_page_state`). */
  pages(list: number): number {
    return this.#pages[list]!;
  }

  /** Frame of the folio that is next to go; 0 if the list is empty. */
  tail(list: number): number {
    const frame = this.#prev[list]!;
    return frame === list ? 0 : frame;
  }

  /** Enters a folio at the head of its list (kernel: `lruvec_add_folio`). */
  add(folio: Folio): void {
    const list = listOf(folio);
    this.#link(folio.frame, list);
    this.#pages[list]! += folioNrPages(folio);
  }

  /** Takes a folio out of its list (kernel: `lruvec_del_folio`). */
  delete(folio: Folio): void {
    this.#unlink(folio.frame);
    this.#pages[listOf(folio)]! -= folioNrPages(folio);
  }

  /** Back to the head of its list. */
  rotate(folio: Folio): void {
    this.#unlink(folio.frame);
    this.#link(folio.frame, listOf(folio));
  }

  /** To the head of the active list (kernel: `folio_activate`). */
  activate(folio: Folio): void {
    this.delete(folio);
    folio.flags = folio.flags & ~(PG_REFERENCED | PG_ACTIVATE) | PG_ACTIVE;
    this.add(folio);
  }

  /** To the head of the inactive list (kernel: `lru_deactivate`). */
  deactivate(folio: Folio): void {
    this.delete(folio);
    folio.flags &= ~(PG_ACTIVATE | PG_ACTIVE);
    this.add(folio);
  }

  /** To the tail of the inactive list: it goes next (kernel:
   * `folio_rotate_reclaimable`). */
  rotateReclaimable(folio: Folio): void {
    this.deactivate(folio);
    this.#unlink(folio.frame);
    this.#link(folio.frame, this.#prev[LRU_INACTIVE_FILE]!);
  }

  /** Enters the upper half of a folio beside the lower one (kernel:
   * `lru_add_split_folio`). Its pages are counted already. */
  split(lower: Folio, upper: Folio): void {
    this.#link(upper.frame, lower.frame);
  }

  /** Whether the active list has more than its share (kernel: `inactive_is_low`). */
  get inactiveIsLow(): boolean {
    const inactive = this.pages(LRU_INACTIVE_FILE);
    const active = this.pages(LRU_ACTIVE_FILE);
    const gb = (inactive + active) >>> 18;
    const ratio = gb > 0 ? Math.floor(Math.sqrt(10 * gb)) : 1;
    return inactive * ratio < active;
  }

  #link(frame: number, before: number): void {
    const next = this.#next;
    const prev = this.#prev;
    const after = next[before]!;
    next[frame] = after;
    prev[frame] = before;
    prev[after] = frame;
    next[before] = frame;
  }

  #unlink(frame: number): void {
    const next = this.#next[frame]!;
    const prev = this.#prev[frame]!;
    this.#next[prev] = next;
    this.#prev[next] = prev;
  }
}
