/**
 * Making room: which folios leave memory when it is full.
 *
 * Folios go from the tail of the inactive list, where all begin. One that has been
 * used twice goes to the active list instead, and comes back once that has more than
 * its share: a file that is read once pushes out nothing but itself.
 *
 * Kernel counterpart: mm/vmscan.c.
 *
 * @module
 */

import { andThen, type MaybePromise, repeat } from "../lib/maybe-promise.ts";
import { wakeupFlusherThreads, wbAnyRunning } from "./backing-dev.ts";
import {
  type Folio,
  folioGet,
  folioNrPages,
  folioPut,
  folioWaitLocked,
  PG_ACTIVATE,
  PG_READING,
  PG_RECLAIM,
  PG_REFERENCED,
} from "./folio.ts";
import { LRU_ACTIVE_FILE, LRU_INACTIVE_FILE } from "./lru.ts";
import type { Mm } from "./mm.ts";
import { filemapEvictFolio, filemapReleaseFolio } from "./page-cache.ts";
import { firstDirty, waitForWriteback, writeSome } from "./page-writeback.ts";
import { VM_RAND_READ, VM_SEQ_READ } from "./rmap.ts";
import { workingsetActivation } from "./workingset.ts";

/** Fewest pages freed in one go (kernel: `SWAP_CLUSTER_MAX`). */
const SWAP_CLUSTER_MAX = 32;
/** The first look is at 1/4096 of the lists, the last one at all (kernel:
 * `DEF_PRIORITY`). */
const DEF_PRIORITY = 12;
/** A folio larger than this part of memory is made only where there is room. */
const LARGE_SHARE = 4;
/** Pages written back at once where only dirty ones are left. */
const RECLAIM_WRITE = 1024;

/**
 * Takes memory for a folio, giving up clean folios for it (kernel: `folio_alloc`
 * with direct reclaim). Does not wait.
 *
 * @returns A folio, not locked, with one reference; null if there was no room, or
 *   none in one piece.
 */
export function allocFolio(mm: Mm, order: number): Folio | null {
  const count = 1 << order;
  const missing = mm.nrPages + count - mm.limit;
  if (missing > 0 && (order === 0 || count * LARGE_SHARE <= mm.limit)) {
    shrinkFolios(mm, Math.max(SWAP_CLUSTER_MAX, missing));
  }
  return mm.newFolio(order, false);
}

/**
 * {@linkcode allocFolio} for what cannot do without: waits for writeback and swaps
 * out where that makes room, goes beyond the limit by a tenth where nothing does, and
 * then waits for what is being read.
 *
 * @returns Null if all of it is in use.
 */
export function allocFolioWait(
  mm: Mm,
  order: number,
): MaybePromise<Folio | null> {
  let folio = allocFolio(mm, order);
  if (folio !== null) return folio;
  const tried = repeat(() =>
    andThen(makeRoom(mm, 1 << order), (progress) => {
      folio = progress ? allocFolio(mm, order) : mm.newFolio(order, true);
      if (folio !== null) return false;
      return progress || waitForRead(mm, 1 << order);
    })
  );
  return andThen(tried, () => folio);
}

/** Frees pages, or gets some cleaned; false if there is nothing to do. */
function makeRoom(mm: Mm, wanted: number): MaybePromise<boolean> {
  // A large folio may want more than allocFolio() gives up for it.
  if (shrinkFolios(mm, wanted) > 0) return true;
  return andThen(
    mm.clock.inSync ? writeForRoom(mm) : reclaimThrottle(mm),
    (progress) => progress || swapForRoom(mm),
  );
}

/** Waits for the folio that is next to go of those that are being read, after which
 * nobody may need it. False if there is none. */
function waitForRead(mm: Mm, wanted: number): MaybePromise<boolean> {
  const { reclaimed, reading } = tryToFreePages(mm, wanted);
  if (reclaimed > 0 || reading === null) return reclaimed > 0;
  folioGet(reading);
  return andThen(folioWaitLocked(reading), () => {
    folioPut(reading);
    return true;
  });
}

/** Waits for the flushers to get something clean (kernel: `reclaim_throttle`). */
function reclaimThrottle(mm: Mm): MaybePromise<boolean> {
  if (!wakeupFlusherThreads(mm)) return waitForWriteback(mm);
  const before = mm.nrWritten;
  const waited = mm.writebackEnded.wait(
    mm.clock,
    () => mm.nrWritten > before || !wbAnyRunning(mm),
  );
  return andThen(waited, () => mm.nrWritten > before || waitForWriteback(mm));
}

/** {@linkcode reclaimThrottle} for a synchronous caller, which writes by itself. */
function writeForRoom(mm: Mm): MaybePromise<boolean> {
  const victim = firstDirty(mm);
  if (victim === null) return waitForWriteback(mm);
  const before = mm.nrDirty;
  return andThen(
    writeSome(victim, RECLAIM_WRITE),
    () =>
      andThen(waitForWriteback(mm), (ended) => ended || mm.nrDirty < before),
  );
}

/** Swaps out pages that have no file. */
function swapForRoom(mm: Mm): MaybePromise<boolean> {
  const { swap } = mm;
  if (swap.anon.size === 0 || !swap.hasRoom) return false;
  return andThen(swap.shrink(), (freed) => freed > 0);
}

/** One round of reclaim (kernel: `struct scan_control`). */
class ScanControl {
  readonly mm: Mm;
  /** Pages to free. */
  readonly toReclaim: number;
  /** Pages freed. */
  reclaimed = 0;
  /** Pages in the way that are dirty, and nobody writes yet. */
  nrUnqueuedDirty = 0;
  /** Whether there was nothing else at some place of the list. */
  wantsFlushers = false;
  /** The first folio in the way that is being read; valid until the next wait. */
  reading: Folio | null = null;
  /** Whether the active list is looked at however long the other one is. */
  forceDeactivate = false;

  constructor(mm: Mm, toReclaim: number) {
    this.mm = mm;
    this.toReclaim = toReclaim;
  }

  get done(): boolean {
    return this.reclaimed >= this.toReclaim;
  }
}

/**
 * Gives up clean folios until `wanted` pages are free (kernel:
 * `do_try_to_free_pages`). Has the flushers start where it meets dirty ones alone.
 *
 * @returns Pages freed.
 */
export function shrinkFolios(mm: Mm, wanted: number): number {
  return tryToFreePages(mm, wanted).reclaimed;
}

/** {@linkcode shrinkFolios}, with what has been seen on the way. */
function tryToFreePages(mm: Mm, wanted: number): ScanControl {
  const sc = new ScanControl(mm, wanted);
  if (mm.reclaiming) return sc;
  mm.reclaiming = true;
  try {
    shrinkLruvecs(sc);
    if (sc.reclaimed === 0) {
      // All that is inactive may be in use, as what is being read is.
      sc.forceDeactivate = true;
      shrinkLruvecs(sc);
    }
  } finally {
    mm.reclaiming = false;
  }
  if (sc.wantsFlushers) wakeupFlusherThreads(mm);
  return sc;
}

/** Looks at more and more of both lists until enough is free (kernel:
 * `shrink_zones`). */
function shrinkLruvecs(sc: ScanControl): void {
  for (let at = DEF_PRIORITY; at >= 0 && !sc.done; at--) shrinkLruvec(sc, at);
}

/** Looks at a part of both lists (kernel: `shrink_lruvec`). */
function shrinkLruvec(sc: ScanControl, priority: number): void {
  const { lru } = sc.mm;
  const part = (list: number) =>
    Math.max(SWAP_CLUSTER_MAX, lru.pages(list) >> priority);
  let active = part(LRU_ACTIVE_FILE);
  let inactive = part(LRU_INACTIVE_FILE);
  while (inactive > 0 && !sc.done) {
    const deactivate = sc.forceDeactivate || lru.inactiveIsLow;
    if (active > 0 && deactivate) active -= shrinkActiveList(sc);
    inactive -= shrinkInactiveList(sc);
  }
}

/** Takes some of the active list back to the inactive one, used or not (kernel:
 * `shrink_active_list`).
 * @returns Pages looked at; Infinity at the end of the list. */
function shrinkActiveList(sc: ScanControl): number {
  const { lru, folios } = sc.mm;
  let scanned = 0;
  while (scanned < SWAP_CLUSTER_MAX) {
    const frame = lru.tail(LRU_ACTIVE_FILE);
    if (frame === 0) return Infinity;
    const folio = folios[frame]!;
    scanned += folioNrPages(folio);
    // A page table's mark counts from now on; a read's may make it active again.
    if (folio.mapcount > 0) folio.flags &= ~PG_REFERENCED;
    lru.deactivate(folio);
  }
  return scanned;
}

/** Frees some of the inactive list (kernel: `shrink_inactive_list`).
 * @returns Pages looked at; Infinity at the end of the list. */
function shrinkInactiveList(sc: ScanControl): number {
  const { lru, folios } = sc.mm;
  const dirtyBefore = sc.nrUnqueuedDirty;
  let scanned = 0;
  let ended = false;
  while (scanned < SWAP_CLUSTER_MAX && !sc.done) {
    const frame = lru.tail(LRU_INACTIVE_FILE);
    ended = frame === 0;
    if (ended) break;
    const folio = folios[frame]!;
    scanned += folioNrPages(folio);
    shrinkFolio(sc, folio);
  }
  if (scanned > 0 && sc.nrUnqueuedDirty - dirtyBefore === scanned) {
    sc.wantsFlushers = true;
  }
  return ended ? Infinity : scanned;
}

/** Decides about the folio at the tail (kernel: `shrink_folio_list`): it leaves the
 * place in any case. */
function shrinkFolio(sc: ScanControl, folio: Folio): void {
  const { lru } = sc.mm;
  if (folio.locked) {
    if ((folio.flags & PG_READING) !== 0) sc.reading ??= folio;
    return lru.rotate(folio);
  }
  // Held by more than the cache.
  if (folio.refcount !== 1) return lru.rotate(folio);
  if (folio.mapcount > 0) {
    if (checkMapped(folio)) return keepMapped(folio);
  } else if ((folio.flags & PG_ACTIVATE) !== 0) {
    workingsetActivation(folio);
    return lru.activate(folio);
  }
  if (folio.dirty || folio.writeback) {
    // Out of the way; it is the next to go once it has been written.
    if (!folio.writeback) sc.nrUnqueuedDirty += folioNrPages(folio);
    folio.flags |= PG_RECLAIM;
    return lru.activate(folio);
  }
  if (!filemapReleaseFolio(folio)) return lru.activate(folio);
  sc.reclaimed += folioNrPages(folio);
  filemapEvictFolio(folio);
}

/** Whether page tables have been used that show it (kernel:
 * `folio_check_references`). */
function checkMapped(folio: Folio): boolean {
  if ((folio.flags & PG_REFERENCED) !== 0 && hasRecency(folio)) return true;
  folio.flags &= ~(PG_REFERENCED | PG_ACTIVATE);
  return false;
}

/** Whether its mappings' use tells of uses to come (kernel: `vma_has_recency`). */
function hasRecency(folio: Folio): boolean {
  for (const { flags, ra } of folio.mapping!.mmaps!) {
    if ((flags & (VM_SEQ_READ | VM_RAND_READ)) === 0 && !ra.noreuse) {
      return true;
    }
  }
  return false;
}

/** The first time it stays where it is; the second time it becomes active. */
function keepMapped(folio: Folio): void {
  const { lru } = folio.mm;
  if ((folio.flags & PG_ACTIVATE) !== 0) return lru.activate(folio);
  folio.flags = folio.flags & ~PG_REFERENCED | PG_ACTIVATE;
  lru.rotate(folio);
}
