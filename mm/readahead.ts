/**
 * Reading ahead of a sequential reader.
 *
 * A window of folios is read at a time. One of them is marked: who gets there
 * starts the next window, so that a sequential reader finds it in memory. What is
 * in the window is in the cache, locked, before the file system is asked.
 *
 * Kernel counterpart: mm/readahead.c.
 *
 * @module
 */

import {
  andThen,
  andThenWith,
  type MaybePromise,
  repeat,
  repeatWith,
} from "../lib/maybe-promise.ts";
import type { AddressSpace, ReadaheadControl } from "./address-space.ts";
import {
  type Folio,
  folioGet,
  folioNextIndex,
  folioNrPages,
  folioPut,
  folioUnlock,
  PAGE_SIZE,
  PG_DROPBEHIND,
  PG_READAHEAD,
  PG_READING,
} from "./folio.ts";
import {
  filemapAddFolio,
  filemapLookup,
  filemapRangeFree,
  filemapRemoveFolio,
} from "./page-cache.ts";
import { allocFolio } from "./vmscan.ts";

/** Pages of one step of forced readahead, 2 MiB. */
const FORCED_STEP = 512;

/** Readahead state of one open file (kernel: `struct file_ra_state`). */
export class FileRaState {
  /** First page of the window. */
  start = 0;
  /** Pages in it. */
  size = 0;
  /** Pages of it that are read ahead asynchronously. */
  asyncSize = 0;
  /** Largest window, pages; 0 switches readahead off. */
  raPages = 32;
  /** Largest I/O of the device, pages, which a read larger than `raPages` may
   * have for its window (kernel: `bdi->io_pages`). */
  ioPages = 1024;
  /** No more is read than was asked for (kernel: `FMODE_RANDOM`). */
  random = false;
  /** Memory mappings of it do not keep pages in memory (kernel: `FMODE_NOREUSE`). */
  noreuse = false;
  /** Last byte read plus one, or -1. */
  prevPos: number = -1;
  /** Folio order of the last round. */
  order = 0;
  /** Faults of mappings that missed, less those that hit. */
  mmapMiss = 0;
}

/** One round of readahead (kernel: `struct readahead_control`). */
export class Readahead implements ReadaheadControl {
  /** Where the folios are cached. */
  readonly mapping: AddressSpace;
  /** The open file's state. */
  readonly ra: FileRaState;
  /** Whether the folios are dropped once they have been read. */
  readonly dropbehind: boolean;
  /** First page not yet taken. */
  index: number;
  /** Pages in the cache and not yet taken. */
  nrPages = 0;
  // The round's course, for steps that are taken up again.
  /** Next page to enter. */
  cursor = 0;
  /** Page behind the last one to enter. */
  end = 0;
  /** Page whose folio is marked, or -1. */
  mark: number = -1;

  /**
   * A round that has not entered a folio.
   *
   * @param index Page from which to read.
   */
  constructor(
    mapping: AddressSpace,
    ra: FileRaState,
    index: number,
    dropbehind: boolean,
  ) {
    this.mapping = mapping;
    this.ra = ra;
    this.index = index;
    this.dropbehind = dropbehind;
  }

  get pos(): number {
    return this.index * PAGE_SIZE;
  }

  get length(): number {
    return this.nrPages * PAGE_SIZE;
  }

  nextFolio(): Folio | null {
    if (this.nrPages === 0) return null;
    const folio = filemapLookup(this.mapping, this.index)!;
    this.nrPages -= folioNrPages(folio);
    this.index += folioNrPages(folio);
    return folio;
  }
}

/**
 * Reads what a reader misses, and ahead of it if it looks sequential (kernel:
 * `page_cache_sync_ra`). The caller holds `mapping.invalidateLock` shared.
 *
 * @param reqCount Pages that the reader wants.
 */
export function pageCacheSyncRa(
  rac: Readahead,
  reqCount: number,
): MaybePromise<void> {
  const { mapping, ra, index } = rac;
  if (ra.raPages === 0) return forcePageCacheRa(rac, 1);
  if (ra.random) return forcePageCacheRa(rac, reqCount);
  const max = maxPages(ra, reqCount);
  const prevIndex = Math.floor(ra.prevPos / PAGE_SIZE);
  const step = index - prevIndex;
  const sequential = ra.prevPos >= 0 && (step === 0 || step === 1);
  if (index === 0 || reqCount > max || sequential) {
    ra.start = index;
    ra.size = initRaSize(reqCount, max);
    ra.asyncSize = ra.size > reqCount ? ra.size - reqCount : ra.size >> 1;
  } else {
    const miss = prevMiss(mapping, index - 1, max);
    let history = index - miss - 1;
    // A small read that stands alone: no more than it asks for.
    if (history <= reqCount) return doPageCacheRa(rac, reqCount, 0);
    // Cached from the very beginning: most likely the whole file is read.
    if (miss < 0) history *= 2;
    ra.start = index;
    ra.size = Math.min(history + reqCount, max);
    ra.asyncSize = 1;
  }
  ra.order = 0;
  return pageCacheRaOrder(rac);
}

/**
 * Starts the next window once the reader has got to the mark (kernel:
 * `page_cache_async_ra`). The caller holds `mapping.invalidateLock` shared.
 *
 * @param folio The marked folio; the mark goes.
 * @param reqCount Pages that the reader wants.
 */
export function pageCacheAsyncRa(
  rac: Readahead,
  folio: Folio,
  reqCount: number,
): MaybePromise<void> {
  const { mapping, ra, index } = rac;
  if (ra.raPages === 0 || folio.writeback) return;
  folio.flags &= ~PG_READAHEAD;
  const max = maxPages(ra, reqCount);
  const expected = roundDown(
    ra.start + ra.size - ra.asyncSize,
    folioNrPages(folio),
  );
  if (index === expected) {
    ra.start += ra.size;
    ra.size = Math.max(ra.size, nextRaSize(ra.size, max));
  } else {
    // Another stream on the same file: what is cached tells its window.
    const start = nextMiss(mapping, index + 1, max);
    if (start - index > max) return;
    ra.start = start;
    ra.size = nextRaSize(start - index + reqCount, max);
  }
  ra.order += 2;
  alignEnd(ra, max);
  ra.asyncSize = ra.size;
  rac.index = ra.start;
  return pageCacheRaOrder(rac);
}

/** Has the window end where a folio of its order can. */
function alignEnd(ra: FileRaState, max: number): void {
  const lowBit = max & -max;
  const align = Math.min(2 ** ra.order, lowBit);
  const end = ra.start + ra.size;
  const aligned = roundDown(end, align);
  if (aligned > ra.start) ra.size -= end - aligned;
}

function roundDown(value: number, step: number): number {
  return Math.floor(value / step) * step;
}

/** Largest window for a request (kernel: `ractl_max_pages`). */
function maxPages(ra: FileRaState, reqCount: number): number {
  return reqCount > ra.raPages && ra.ioPages > ra.raPages
    ? Math.min(reqCount, ra.ioPages)
    : ra.raPages;
}

/** First window of a stream (kernel: `get_init_ra_size`). */
function initRaSize(size: number, max: number): number {
  let rounded = 1;
  while (rounded < size) rounded *= 2;
  if (rounded <= Math.floor(max / 32)) return rounded * 4;
  if (rounded <= Math.floor(max / 4)) return rounded * 2;
  return max;
}

/** The window after one of `size` pages (kernel: `get_next_ra_size`). */
function nextRaSize(size: number, max: number): number {
  if (size < Math.floor(max / 16)) return 4 * size;
  if (size <= Math.floor(max / 2)) return 2 * size;
  return max;
}

/** First page missing before `index`, itself included; the last one looked at if
 * there is none within `max`; -1 if all is cached from the beginning. */
function prevMiss(mapping: AddressSpace, index: number, max: number): number {
  let at = index;
  for (let n = 1; n < max && at >= 0 && mapping.pages.get(at) > 0; n++) at--;
  return at;
}

/** First page missing from `index` on; `index + max` if there is none before. */
function nextMiss(mapping: AddressSpace, index: number, max: number): number {
  let at = index;
  while (at < index + max && mapping.pages.get(at) > 0) at++;
  return at;
}

/** Reads what is asked for, without looking ahead (kernel: `force_page_cache_ra`).
 * The caller holds `mapping.invalidateLock` shared. */
export function forcePageCacheRa(
  rac: Readahead,
  count: number,
): MaybePromise<void> {
  const bound = Math.max(rac.ra.ioPages, rac.ra.raPages);
  let next = rac.index;
  const end = next + Math.min(count, bound);
  return repeat(() => {
    if (next >= end) return false;
    rac.index = next;
    const step = Math.min(end - next, FORCED_STEP);
    next += step;
    return andThen(doPageCacheRa(rac, step, 0), () => true);
  });
}

/** Reads the window of `rac.ra` in folios of the order that the stream has got to
 * (kernel: `page_cache_ra_order`). The caller holds `mapping.invalidateLock` shared. */
export function pageCacheRaOrder(rac: Readahead): MaybePromise<void> {
  const { mapping, ra, index: start } = rac;
  if (mapping.maxOrder === 0) {
    ra.order = 0;
    return doPageCacheRa(rac, ra.size, ra.asyncSize);
  }
  const order = Math.min(mapping.maxOrder, ra.order, 31 - Math.clz32(ra.size));
  ra.order = Math.max(order, mapping.minOrder);
  rac.index = roundDown(start, 2 ** mapping.minOrder);
  rac.cursor = rac.index;
  rac.mark = start + ra.size - ra.asyncSize;
  const whole = enterLargeFolios(rac, start + ra.size - 1);
  const read = readPages(rac);
  return whole ? read : andThenWith(read, readRest, rac);
}

/** Enters the window's folios; false where one could not be made. */
function enterLargeFolios(rac: Readahead, lastWanted: number): boolean {
  const { mapping, ra } = rac;
  const limit = Math.min(lastPage(mapping), lastWanted);
  while (rac.cursor <= limit) {
    const index = rac.cursor;
    let order = ra.order;
    const odd = index & ((1 << order) - 1);
    if (odd !== 0) order = 31 - Math.clz32(odd & -odd);
    // No pages beyond the end of the file.
    while (order > mapping.minOrder && index + (1 << order) - 1 > limit) {
      order--;
    }
    if (!enterFolio(rac, order, roundDown(rac.mark, 1 << order))) return false;
  }
  return true;
}

/** Some pages are cached already, or memory is short: the rest page by page. */
function readRest(_read: void, rac: Readahead): MaybePromise<void> {
  const { ra } = rac;
  const left = ra.start + ra.size - rac.cursor;
  if (left <= 0) return;
  rac.index = rac.cursor;
  return doPageCacheRa(rac, left, ra.asyncSize);
}

/** Reads pages in the smallest folios, those that are not cached (kernel:
 * `do_page_cache_ra`, `page_cache_ra_unbounded`).
 * @param lookahead Pages at the end that are read ahead; the first is marked. */
function doPageCacheRa(
  rac: Readahead,
  count: number,
  lookahead: number,
): MaybePromise<void> {
  const { mapping, index: start } = rac;
  const step = 2 ** mapping.minOrder;
  const last = lastPage(mapping);
  if (start > last) return;
  rac.end = Math.min(start + count, last + 1);
  const mark = Math.ceil((rac.end - lookahead) / step) * step;
  rac.mark = lookahead > 0 ? mark : -1;
  rac.index = roundDown(start, step);
  rac.cursor = rac.index;
  return repeatWith(readRun, rac);
}

/** Reads up to the next page that is cached, and steps over that. */
function readRun(rac: Readahead): MaybePromise<boolean> {
  const { minOrder } = rac.mapping;
  rac.index = rac.cursor;
  let room = true;
  while (rac.cursor < rac.end && room) {
    if (filemapLookup(rac.mapping, rac.cursor) !== null) break;
    room = enterFolio(rac, minOrder, rac.mark);
  }
  if (rac.nrPages > 0) {
    return andThenWith(readPages(rac), room ? moreToRead : nothingMore, rac);
  }
  rac.cursor += 2 ** minOrder;
  return room && rac.cursor < rac.end;
}

function moreToRead(_read: void, rac: Readahead): boolean {
  return rac.cursor < rac.end;
}

function nothingMore(): boolean {
  return false;
}

/** Makes a folio and enters it at the cursor; false if that cannot be. */
function enterFolio(rac: Readahead, order: number, mark: number): boolean {
  const { mapping, cursor } = rac;
  if (!filemapRangeFree(mapping, cursor, 1 << order)) return false;
  const folio = allocFolio(mapping.mm, order);
  if (folio === null) return false;
  folio.flags |= cursor === mark ? PG_READING | PG_READAHEAD : PG_READING;
  if (rac.dropbehind) folio.flags |= PG_DROPBEHIND;
  filemapAddFolio(mapping, folio, cursor, false);
  // The cache's reference is enough: a locked folio does not leave.
  folioPut(folio);
  rac.nrPages += 1 << order;
  rac.cursor = folioNextIndex(folio);
  return true;
}

/** Hands the folios to the file system and removes those it has not taken
 * (kernel: `read_pages`). */
function readPages(rac: Readahead): MaybePromise<void> {
  if (rac.nrPages === 0) return;
  return andThenWith(rac.mapping.ops.readahead(rac), dropRest, rac);
}

function dropRest(_read: void, rac: Readahead): void {
  const { ra } = rac;
  for (let f = rac.nextFolio(); f !== null; f = rac.nextFolio()) {
    ra.size -= folioNrPages(f);
    if (ra.asyncSize >= folioNrPages(f)) ra.asyncSize -= folioNrPages(f);
    folioGet(f);
    filemapRemoveFolio(f);
    folioUnlock(f);
    folioPut(f);
  }
}

/** Page with the last byte of the file; -1 if it is empty. */
function lastPage(mapping: AddressSpace): number {
  return Math.ceil(mapping.host.size / PAGE_SIZE) - 1;
}
