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
  folioNextIndex,
  folioNrPages,
  folioPut,
  PG_ACTIVE,
  PG_DIRTY,
  PG_LOCKED,
  PG_WRITEBACK,
} from "./folio.ts";
import { INDEX_PRESENT, INDEX_SHADOW } from "./page-index.ts";
import { folioUnmap } from "./rmap.ts";
import { workingsetEviction, workingsetRefault } from "./workingset.ts";

/** Finds a folio without locking it or taking a reference; valid until the
 * caller waits. Null if nothing is cached (kernel: `filemap_get_entry`). */
export function filemapLookup(
  mapping: AddressSpace,
  index: number,
): Folio | null {
  const frame = mapping.pages.get(index);
  return frame <= 0 ? null : mapping.mm.folios[frame]!;
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
 *
 * @param write It is made to be written to: what was there before does not tell how
 *   soon it is used again.
 */
export function filemapAddFolio(
  mapping: AddressSpace,
  folio: Folio,
  index: number,
  write: boolean,
): void {
  const count = folioNrPages(folio);
  folio.index = index;
  folio.mapping = mapping;
  folio.flags |= PG_LOCKED;
  // Nobody else can hold the lock of what was not cached: no wait.
  if (lockTracker !== null) lockTracker.acquire(folio, "exclusive", false);
  folio.refcount++;
  mapping.nrPages += count;
  if (mapping.pages.nrShadows > 0 && !write) findShadow(mapping, folio);
  mapping.pages.set(index, count, folio.frame);
  mapping.mm.lru.add(folio);
}

/** Notes whether a folio that is about to be cached was evicted lately. */
function findShadow(mapping: AddressSpace, folio: Folio): void {
  const { pages } = mapping;
  const last = folioNextIndex(folio) - 1;
  const index = pages.next(folio.index, last, INDEX_SHADOW);
  if (index >= 0) workingsetRefault(folio, pages.get(index));
}

/** Takes a folio out of the cache and of page tables, with the cache's reference
 * (kernel: `filemap_remove_folio`). It is neither dirty nor under writeback. */
export function filemapRemoveFolio(folio: Folio): void {
  removeFolio(folio, 0);
}

/** {@linkcode filemapRemoveFolio} by reclaim, which leaves shadows (kernel:
 * `__remove_mapping`). */
export function filemapEvictFolio(folio: Folio): void {
  removeFolio(folio, workingsetEviction(folio));
}

function removeFolio(folio: Folio, shadow: number): void {
  const mapping = folio.mapping!;
  const count = folioNrPages(folio);
  const busy = (folio.flags & (PG_DIRTY | PG_WRITEBACK)) !== 0;
  warnOn(busy, "a folio leaves the page cache with data to be written");
  if (folio.mapcount > 0) folioUnmap(folio);
  if (shadow === 0) mapping.pages.clear(folio.index, count);
  else mapping.pages.evict(folio.index, count, shadow);
  mapping.nrPages -= count;
  mapping.mm.lru.delete(folio);
  folio.flags &= ~PG_ACTIVE;
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
