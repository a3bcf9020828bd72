/**
 * Taking folios out of the cache.
 *
 * Kernel counterpart: mm/truncate.c.
 *
 * @module
 */

import { EBUSY } from "../lib/errno.ts";
import {
  andThen,
  andThenWith,
  type MaybePromise,
  repeatWith,
} from "../lib/maybe-promise.ts";
import {
  type AddressSpace,
  PAGECACHE_TAG_DIRTY,
  PAGECACHE_TAG_TOWRITE,
} from "./address-space.ts";
import { FGP_LOCK, filemapGetFolio } from "./filemap.ts";
import {
  type Folio,
  folioGet,
  folioLock,
  folioNextIndex,
  folioNrPages,
  folioPut,
  folioTrylock,
  folioUnlock,
  folioWaitWriteback,
  PAGE_SIZE,
  PG_BUSY,
  PG_LOCKED,
  PG_READAHEAD,
} from "./folio.ts";
import {
  filemapLookup,
  filemapNextFolio,
  filemapReleaseFolio,
  filemapRemoveFolio,
} from "./page-cache.ts";
import { folioCancelDirty } from "./page-writeback.ts";
import { folioMkclean, folioUnmap, unmapMappingPages } from "./rmap.ts";

/** What both halves of a split folio have: a sync that goes on writes both. */
const SPLIT_TAGS = [PAGECACHE_TAG_DIRTY, PAGECACHE_TAG_TOWRITE];

/** Drops a range: whole folios go, partly covered ones are zeroed (kernel:
 * `truncate_pagecache_range`, `truncate_inode_pages_range`). A large folio that is
 * partly covered is split, unless it is dirty and the file system keeps state with
 * it: then it stays, zeroed. The caller holds `mapping.invalidateLock` exclusively
 * where readers may bring folios in.
 * @param last Last byte, inclusive; Infinity for everything beyond. */
export function truncatePagecacheRange(
  mapping: AddressSpace,
  start: number,
  last: number,
): MaybePromise<void> {
  if (isEmpty(mapping) || last < start) return;
  const range = new TruncateRange(mapping, start, last);
  unmapMappingPages(mapping, range.cursor, range.end - 1, false);
  const first = truncateEdge(range, start);
  const second = andThenWith(first, truncateLastEdge, range);
  return andThenWith(second, truncateWholeFolios, range);
}

/** Whether neither pages nor shadows are there (kernel: `mapping_empty`). */
function isEmpty(mapping: AddressSpace): boolean {
  return mapping.nrPages === 0 && mapping.pages.nrShadows === 0;
}

/** A truncation, for steps that are taken up again after a wait. */
class TruncateRange {
  readonly mapping: AddressSpace;
  /** First byte. */
  readonly start: number;
  /** Last byte. */
  readonly last: number;
  /** Where the walk over whole folios is, pages. */
  cursor: number;
  /** Page behind the last one wholly covered. */
  readonly end: number;
  /** Whether the folio at the start holds the last byte too. */
  sameFolio = false;

  constructor(mapping: AddressSpace, start: number, last: number) {
    this.mapping = mapping;
    this.start = start;
    this.last = last;
    this.cursor = Math.ceil(start / PAGE_SIZE);
    this.end = Math.floor((last + 1) / PAGE_SIZE);
  }
}

/** Deals with the folio that holds the first or the last byte, if there is one. */
function truncateEdge(range: TruncateRange, pos: number): MaybePromise<void> {
  const index = Math.floor(pos / PAGE_SIZE);
  const found = filemapGetFolio(range.mapping, index, FGP_LOCK, 0);
  return andThenWith(found, truncateFound, range);
}

function truncateLastEdge(
  _first: void,
  range: TruncateRange,
): MaybePromise<void> {
  if (range.last === Infinity || range.sameFolio) return;
  return truncateEdge(range, range.last);
}

function truncateFound(
  folio: Folio | number,
  range: TruncateRange,
): MaybePromise<void> {
  if (typeof folio === "number") return;
  range.sameFolio = range.last < folio.pos + folio.size;
  return andThen(folioWaitWriteback(folio), () => {
    truncatePartialFolio(folio, range);
    folioUnlock(folio);
    folioPut(folio);
  });
}

/** Zeroes what the range covers of a folio and splits the folio there (kernel:
 * `truncate_inode_partial_folio`). */
function truncatePartialFolio(folio: Folio, range: TruncateRange): void {
  const mapping = folio.mapping!;
  const { size, index } = folio;
  const from = Math.max(0, range.start - folio.pos);
  const to = Math.min(size, range.last + 1 - folio.pos);
  if (to - from === size) return truncateFolio(folio);
  folio.data.fill(0, folio.offset + from, folio.offset + to);
  if (folio.private !== null) {
    mapping.ops.invalidateFolio(folio, from, to - from);
  }
  if (folio.order === 0) return;
  if (splitFolio(folio, index + Math.floor(from / PAGE_SIZE))) {
    if (to < size) splitAt(mapping, index + Math.floor(to / PAGE_SIZE));
  } else if (!folio.dirty) truncateFolio(folio);
}

/** Splits the large folio that holds a page, if nobody else uses it. */
function splitAt(mapping: AddressSpace, index: number): void {
  const folio = filemapLookup(mapping, index);
  if (folio === null || folio.order === 0 || !folioTrylock(folio)) return;
  folioGet(folio);
  splitFolio(folio, index);
  folioUnlock(folio);
  folioPut(folio);
}

/** Makes smaller folios of one: the smallest possible around page `index`, its
 * buddies beside (kernel: `try_folio_split`). The caller holds lock and reference;
 * the folio keeps both and its beginning. False if somebody else holds it, or the
 * file system does not let go of its state. */
function splitFolio(folio: Folio, index: number): boolean {
  const { minOrder } = folio.mapping!;
  if (folio.order <= minOrder || folio.refcount !== 2) return false;
  if (!filemapReleaseFolio(folio)) return false;
  folioUnmap(folio);
  let piece = folio;
  while (piece.order > minOrder) {
    const upper = splitUpperHalf(piece);
    if (index >= upper.index) piece = upper;
  }
  return true;
}

/** The upper half becomes a folio of its own, not locked, held by the cache alone. */
function splitUpperHalf(folio: Folio): Folio {
  const { pages } = folio.mapping!;
  folio.order--;
  const count = folioNrPages(folio);
  const upper = folio.mm.folioAt(folio.frame + count, folio.order);
  upper.flags = folio.flags & ~(PG_LOCKED | PG_READAHEAD);
  upper.index = folio.index + count;
  upper.mapping = folio.mapping;
  pages.set(upper.index, count, upper.frame);
  folio.mm.lru.split(folio, upper);
  for (const tag of SPLIT_TAGS) {
    if (pages.hasTag(folio.index, tag)) pages.setTag(upper.index, tag);
  }
  return upper;
}

/** Takes a folio out with everything in it (kernel: `truncate_inode_folio`). The caller
 * holds its lock and a reference; it is not under writeback. */
function truncateFolio(folio: Folio): void {
  const { mapping } = folio;
  if (mapping === null) return;
  if (folio.private !== null) {
    mapping.ops.invalidateFolio(folio, 0, folio.size);
  }
  folioCancelDirty(folio);
  filemapRemoveFolio(folio);
}

function truncateWholeFolios(
  _edges: void,
  range: TruncateRange,
): MaybePromise<void> {
  range.mapping.pages.clearShadows(range.cursor, range.end - 1);
  return repeatWith(truncateNext, range);
}

function truncateNext(range: TruncateRange): MaybePromise<boolean> {
  const { mapping, cursor, end } = range;
  const folio = filemapNextFolio(mapping, cursor, end - 1);
  if (folio === null) return false;
  range.cursor = folioNextIndex(folio);
  // One that reaches beyond the range could not be split: it stays, zeroed.
  if (folio.index < cursor || range.cursor > end) return true;
  folioGet(folio);
  const locked = andThenWith(folioLock(folio), waitWriteback, folio);
  return andThenWith(locked, truncateHeld, folio);
}

function waitWriteback(_locked: void, folio: Folio): MaybePromise<void> {
  return folioWaitWriteback(folio);
}

function truncateHeld(_idle: void, folio: Folio): boolean {
  truncateFolio(folio);
  folioUnlock(folio);
  folioPut(folio);
  return true;
}

/** Sets the size and drops the cache beyond it (kernel: `truncate_setsize`). The
 * caller holds the inode's rwsem and `mapping.invalidateLock` exclusively. */
export function truncateSetsize(
  mapping: AddressSpace,
  size: number,
): MaybePromise<void> {
  const { host } = mapping;
  const old = host.size;
  host.size = size;
  if (size > old) pagecacheIsizeExtended(mapping, old, size);
  return truncatePagecache(mapping, size);
}

/** Drops the cache beyond a new size, and what private mappings have there (kernel:
 * `truncate_pagecache`). */
function truncatePagecache(
  mapping: AddressSpace,
  size: number,
): MaybePromise<void> {
  const first = Math.ceil(size / PAGE_SIZE);
  unmapMappingPages(mapping, first, Infinity, true);
  const dropped = truncatePagecacheRange(mapping, size, Infinity);
  // A fault that had found its page before may have copied it meanwhile.
  return andThen(
    dropped,
    () => unmapMappingPages(mapping, first, Infinity, true),
  );
}

/** Size grows from `from` to `to`: the old tail must read as zero (kernel:
 * `pagecache_isize_extended`). Spec 3.3. Only where blocks are smaller than pages:
 * else the page is wholly mapped, and its writer has zeroed the tail. */
export function pagecacheIsizeExtended(
  mapping: AddressSpace,
  from: number,
  to: number,
): void {
  const block = 2 ** mapping.host.blkbits;
  const blockEnd = Math.ceil(from / block) * block;
  if (block >= PAGE_SIZE || to <= blockEnd || blockEnd % PAGE_SIZE === 0) {
    return;
  }
  const folio = filemapLookup(mapping, Math.floor(from / PAGE_SIZE));
  if (folio === null) return;
  // The next store through a mapping has to reserve the blocks that the file has now.
  folioMkclean(folio);
  if (!folio.dirty) return;
  const end = Math.min(to - folio.pos, folio.size);
  folio.data.fill(0, folio.offset + from - folio.pos, folio.offset + end);
}

/** A walk that drops clean folios. */
interface InvalidateWalk {
  readonly mapping: AddressSpace;
  index: number;
  readonly last: number;
  /** Last failure. */
  error: number;
}

/** Drops clean folios, waiting for writeback (kernel: `invalidate_inode_pages2_range`).
 * A folio goes whole, even where the range covers only part of it. Offsets in
 * bytes, last inclusive.
 * @returns 0, or -EBUSY if a folio stays because it is dirty or the file system
 *   does not let go of it; the others go all the same. */
export function invalidateInodePages2Range(
  mapping: AddressSpace,
  start: number,
  last: number,
): MaybePromise<number> {
  if (isEmpty(mapping) || last < start) return 0;
  const walk: InvalidateWalk = {
    mapping,
    index: Math.floor(start / PAGE_SIZE),
    last: Math.floor(last / PAGE_SIZE),
    error: 0,
  };
  unmapMappingPages(mapping, walk.index, walk.last, false);
  mapping.pages.clearShadows(walk.index, walk.last);
  return andThenWith(repeatWith(invalidateNext, walk), invalidateEnd, walk);
}

function invalidateEnd(_walked: void, walk: InvalidateWalk): number {
  return walk.error;
}

function invalidateNext(walk: InvalidateWalk): MaybePromise<boolean> {
  const { mapping } = walk;
  const folio = filemapNextFolio(mapping, walk.index, walk.last);
  if (folio === null) return false;
  walk.index = folioNextIndex(folio);
  folioGet(folio);
  const locked = andThenWith(folioLock(folio), waitWriteback, folio);
  return andThen(locked, () => {
    if (folio.mapping === mapping && !dropFolio(folio)) walk.error = -EBUSY;
    folioUnlock(folio);
    folioPut(folio);
    return true;
  });
}

/** Drops a locked folio that is clean; false if it stays. */
function dropFolio(folio: Folio): boolean {
  if (!filemapReleaseFolio(folio) || folio.dirty) return false;
  filemapRemoveFolio(folio);
  return true;
}

/** Drops clean, unused folios without waiting (kernel: `invalidate_mapping_pages`;
 * POSIX_FADV_DONTNEED). Folios that lie only partly in the range stay.
 * @returns Pages dropped. */
export function invalidateMappingPages(
  mapping: AddressSpace,
  startIndex: number,
  lastIndex: number,
): number {
  const before = mapping.nrPages;
  mapping.pages.clearShadows(startIndex, lastIndex);
  let index = startIndex;
  for (;;) {
    const folio = filemapNextFolio(mapping, index, lastIndex);
    if (folio === null) break;
    index = folioNextIndex(folio);
    const inside = folio.index >= startIndex && index <= lastIndex + 1;
    const unused = folio.refcount === 1 && folio.mapcount === 0;
    if (inside && unused && (folio.flags & PG_BUSY) === 0) dropFolio(folio);
  }
  return before - mapping.nrPages;
}
