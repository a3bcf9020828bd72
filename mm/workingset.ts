/**
 * Telling a working set that does not fit from a file that is read once.
 *
 * An evicted page leaves a shadow: the age of the lists at that time. If it is read
 * again when fewer pages have been evicted or made active since than the active list
 * holds, it would have stayed, had it been on that list: it goes there at once.
 *
 * Kernel counterpart: mm/workingset.c.
 *
 * @module
 */

import { type Folio, folioNrPages, PG_ACTIVE } from "./folio.ts";
import { LRU_ACTIVE_FILE } from "./lru.ts";
import type { Mm } from "./mm.ts";

/** Ages are compared modulo this, so that a shadow has room in an index. */
const AGES = 2 ** 30;

/** The shadow of a folio that is evicted now; always below 0 (kernel:
 * `workingset_eviction`, `pack_shadow`). */
export function workingsetEviction(folio: Folio): number {
  const { lru } = folio.mm;
  const age = lru.nonresidentAge & (AGES - 1);
  lru.nonresidentAge = (age + folioNrPages(folio)) & (AGES - 1);
  return -1 - age;
}

/** Whether a page was evicted so lately that the active list would have kept it
 * (kernel: `workingset_test_recent`). */
export function workingsetTestRecent(mm: Mm, shadow: number): boolean {
  const { lru } = mm;
  const distance = (lru.nonresidentAge + 1 + shadow) & (AGES - 1);
  return distance <= lru.pages(LRU_ACTIVE_FILE);
}

/** A page that was evicted has been read again (kernel: `workingset_refault`). The
 * folio is not on a list yet. */
export function workingsetRefault(folio: Folio, shadow: number): void {
  const { mm } = folio;
  if (!workingsetTestRecent(mm, shadow)) return;
  folio.flags |= PG_ACTIVE;
  workingsetActivation(folio);
}

/** A folio becomes active (kernel: `workingset_age_nonresident`). */
export function workingsetActivation(folio: Folio): void {
  folio.mm.lru.nonresidentAge += folioNrPages(folio);
}
