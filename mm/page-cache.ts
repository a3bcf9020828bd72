/**
 * Folios in and out of a mapping.
 *
 * Nothing here waits. A folio that is found without a reference may be gone once
 * its finder has waited or has taken memory.
 *
 * Kernel counterpart: mm/filemap.c.
 *
 * @module
 */

import { warnOn } from "../lib/bug.ts";
import { lockTracker } from "../lib/lockdep.ts";
import type { AddressSpace } from "./address-space.ts";
import {
  type Folio,
  folioNrPages,
  folioPut,
  PG_DIRTY,
  PG_LOCKED,
  PG_WRITEBACK,
} from "./folio.ts";
import { INDEX_PRESENT } from "./page-index.ts";
import { folioUnmap } from "./rmap.ts";

/** Finds a folio without locking it or taking a reference; valid until the
 * caller waits. Null if nothing is cached (kernel: `filemap_get_entry`). */
export function filemapLookup(
  mapping: AddressSpace,
  index: number,
): Folio | null {
  const frame = mapping.pages.get(index);
  return frame === 0 ? null : mapping.mm.folios[frame]!;
}

/**
 * Finds the first folio that holds a page of [start, last], or begins there and
 * has a tag (kernel: `filemap_get_folios_tag`).
 *
 * @param tag `PAGECACHE_TAG_*`; any folio if absent.
 */
export function filemapNextFolio(
  mapping: AddressSpace,
  start: number,
  last: number,
  tag: number = INDEX_PRESENT,
): Folio | null {
  const { pages } = mapping;
  // A large folio that holds `start` has its tags further up.
  const around = filemapLookup(mapping, start);
  if (around !== null && pages.hasTag(around.index, tag)) {
    return start <= last ? around : null;
  }
  const index = pages.next(start, last, tag);
  return index < 0 ? null : filemapLookup(mapping, index);
}

/** Whether nothing is cached in [start, start + count) pages. */
export function filemapRangeFree(
  mapping: AddressSpace,
  start: number,
  count: number,
): boolean {
  return filemapNextFolio(mapping, start, start + count - 1) === null;
}

/**
 * Caches a new folio, locked (kernel: `filemap_add_folio`). The range is free; the
 * caller holds `mapping.invalidateLock` shared, or the inode's lock exclusively.
 */
export function filemapAddFolio(
  mapping: AddressSpace,
  folio: Folio,
  index: number,
): void {
  const count = folioNrPages(folio);
  folio.index = index;
  folio.mapping = mapping;
  folio.flags |= PG_LOCKED;
  // Nobody else can hold the lock of what was not cached: no wait.
  if (lockTracker !== null) lockTracker.acquire(folio, "exclusive", false);
  folio.refcount++;
  mapping.nrPages += count;
  mapping.pages.set(index, count, folio.frame);
}

/** Takes a folio out of the cache and of page tables, with the cache's reference
 * (kernel: `filemap_remove_folio`). It is neither dirty nor under writeback. */
export function filemapRemoveFolio(folio: Folio): void {
  const mapping = folio.mapping!;
  const count = folioNrPages(folio);
  const busy = (folio.flags & (PG_DIRTY | PG_WRITEBACK)) !== 0;
  warnOn(busy, "a folio leaves the page cache with data to be written");
  if (folio.mapcount > 0) folioUnmap(folio);
  mapping.pages.clear(folio.index, count);
  mapping.nrPages -= count;
  folio.mapping = null;
  folioPut(folio);
}

/** Has the file system let go of what it keeps with a folio (kernel:
 * `filemap_release_folio`). False if it must stay. */
export function filemapReleaseFolio(folio: Folio): boolean {
  if (folio.private === null) return true;
  if (folio.writeback) return false;
  return folio.mapping!.ops.releaseFolio(folio);
}
