/**
 * Dirty pages: their marks, their accounting, the walk that writes them back, and
 * the limits that keep writers from making more than the device takes.
 *
 * A writer over the limit waits for the flusher. The kernel has each writer pause every
 * few pages, for as long as its own rate, the device's measured speed and the distance
 * to the limit say (`pos_ratio`); here there are no rates. A writer runs at full speed
 * up to the limit and then stands still, with all who come meanwhile, until a quarter of
 * what may be dirty has gone, whoever made it dirty. So the mean rate over more than those 5 % of memory is the
 * device's, the limits hold, and a stall has a bound; but a stall is long where the
 * kernel's are many and short, writers that come at the same time share the speed by
 * turns and not by rate, and a light writer waits as long as a heavy one, or as one of a
 * slower device. A synchronous writer writes back in its own context.
 *
 * Kernel counterpart: mm/page-writeback.c.
 *
 * @module
 */

import { bugOn } from "../lib/bug.ts";
import { EAGAIN } from "../lib/errno.ts";
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
  PAGECACHE_TAG_WRITEBACK,
  type WritebackControl,
} from "./address-space.ts";
import {
  wbFirstDirty,
  wbMarkClean,
  wbMarkDirty,
  wbStartBackgroundWriteback,
  writebackControl,
} from "./backing-dev.ts";
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
  PG_DIRTY,
  PG_DROPBEHIND,
  PG_RECLAIM,
  PG_WRITEBACK,
} from "./folio.ts";
import type { Mm } from "./mm.ts";
import {
  filemapNextFolio,
  filemapReleaseFolio,
  filemapRemoveFolio,
} from "./page-cache.ts";
import { folioMkclean } from "./rmap.ts";

/** Marks dirty: flag, tag, accounting, inode (kernel: `filemap_dirty_folio`).
 * True if it was clean. */
export function filemapDirtyFolio(
  mapping: AddressSpace,
  folio: Folio,
): boolean {
  if ((folio.flags & PG_DIRTY) !== 0) return false;
  folio.flags |= PG_DIRTY;
  // Truncated meanwhile: nobody will write it.
  if (folio.mapping === null) return true;
  const first = mapping.nrDirty === 0;
  countDirty(mapping, folioNrPages(folio));
  mapping.pages.setTag(folio.index, PAGECACHE_TAG_DIRTY);
  if (first) {
    wbMarkDirty(mapping);
    mapping.host.markDirtyPages();
  }
  return true;
}

/** Kernel: `folio_account_dirtied`, `folio_account_cleaned`. */
function countDirty(mapping: AddressSpace, pages: number): void {
  mapping.nrDirty += pages;
  mapping.wb.nrDirty += pages;
  mapping.mm.nrDirty += pages;
}

/** `mapping.ops.dirtyFolio` (kernel: `folio_mark_dirty`). */
export function folioMarkDirty(folio: Folio): boolean {
  const { mapping } = folio;
  if (mapping !== null) return mapping.ops.dirtyFolio(mapping, folio);
  const clean = !folio.dirty;
  folio.flags |= PG_DIRTY;
  return clean;
}

/** Clears the dirty flag for I/O; true if it was set. The tag stays until
 * writeback starts. Mappings may not store to it any more without a fault (kernel:
 * `folio_clear_dirty_for_io`). */
export function folioClearDirtyForIo(folio: Folio): boolean {
  if ((folio.flags & PG_DIRTY) === 0) return false;
  folio.flags &= ~PG_DIRTY;
  const { mapping } = folio;
  if (mapping !== null) {
    if (folio.mapcount > 0) folioMkclean(folio);
    countDirty(mapping, -folioNrPages(folio));
    if (mapping.nrDirty === 0) wbMarkClean(mapping);
  }
  return true;
}

/** Throws dirt away: flag, tag and accounting (kernel: `folio_cancel_dirty`). */
export function folioCancelDirty(folio: Folio): void {
  if (!folioClearDirtyForIo(folio)) return;
  folio.mapping?.pages.clearTag(folio.index, PAGECACHE_TAG_DIRTY);
}

/** Sets the writeback flag and tag, clears the dirty tag if the folio is clean
 * (kernel: `folio_start_writeback`). The caller holds the lock. */
export function folioStartWriteback(folio: Folio): void {
  const { pages, mm, wb } = folio.mapping!;
  bugOn(folio.writeback, "folioStartWriteback() of a folio under writeback");
  folio.flags |= PG_WRITEBACK;
  mm.nrWriteback += folioNrPages(folio);
  wb.nrWriteback += folioNrPages(folio);
  pages.setTag(folio.index, PAGECACHE_TAG_WRITEBACK);
  if (!folio.dirty) pages.clearTag(folio.index, PAGECACHE_TAG_DIRTY);
  pages.clearTag(folio.index, PAGECACHE_TAG_TOWRITE);
}

/** Clears the writeback flag and tag, wakes, drops dropbehind folios (kernel:
 * `folio_end_writeback`). What reclaim has met meanwhile goes next. */
export function folioEndWriteback(folio: Folio): void {
  const { mm, mapping } = folio;
  bugOn(!folio.writeback, "folioEndWriteback() of a folio not under writeback");
  // Whoever is woken may give up the last reference.
  folioGet(folio);
  folio.flags &= ~PG_WRITEBACK;
  mm.nrWriteback -= folioNrPages(folio);
  mm.nrWritten++;
  if (mapping !== null) {
    mapping.wb.nrWriteback -= folioNrPages(folio);
    mapping.pages.clearTag(folio.index, PAGECACHE_TAG_WRITEBACK);
    if ((folio.flags & PG_RECLAIM) !== 0) folioRotateReclaimable(folio);
  }
  if (folio.waiters !== null) folio.waiters.wakeAll();
  mm.writebackEnded.wakeAll();
  if (mm.nrWriteback === 0 || !overFreerun(mm)) mm.throttled.wakeAll();
  if ((folio.flags & PG_DROPBEHIND) !== 0) folioEndDropbehind(folio);
  folioPut(folio);
}

/** (kernel: `folio_rotate_reclaimable`) */
function folioRotateReclaimable(folio: Folio): void {
  folio.flags &= ~PG_RECLAIM;
  if (!folio.dirty && !folio.locked) folio.mm.lru.rotateReclaimable(folio);
}

/** Drops a folio that was to be dropped after use, if it is clean and nobody has
 * it locked (kernel: `folio_end_dropbehind`). The caller holds a reference. */
export function folioEndDropbehind(folio: Folio): void {
  if ((folio.flags & (PG_DIRTY | PG_WRITEBACK)) !== 0) return;
  if (!folioTrylock(folio)) return;
  folio.flags &= ~PG_DROPBEHIND;
  if (folio.mapping !== null && filemapReleaseFolio(folio)) {
    filemapRemoveFolio(folio);
  }
  folioUnlock(folio);
}

/** Next dirty folio of `wbc`: locked, dirty flag cleared, not under writeback,
 * reference held (kernel: `writeback_iter`). The caller unlocks and puts it. Null
 * at the end. */
export interface WritebackIter {
  /** First error so far. */
  error: number;
  /**
   * Goes on to the next folio.
   *
   * @param lastError What became of the folio before: 0 or a negative errno.
   */
  next(lastError: number): MaybePromise<Folio | null>;
}

/** Starts a walk over a mapping's dirty folios. */
export function writebackIter(
  mapping: AddressSpace,
  wbc: WritebackControl,
): WritebackIter {
  return new DirtyFolios(mapping, wbc);
}

class DirtyFolios implements WritebackIter {
  error = 0;
  readonly #mapping: AddressSpace;
  readonly #wbc: WritebackControl;
  readonly #tag: number;
  #index: number;
  readonly #last: number;
  /** Pages of the folio that was given out last. */
  #given = 0;

  constructor(mapping: AddressSpace, wbc: WritebackControl) {
    const tagFirst = wbc.syncAll || wbc.taggedWritepages;
    this.#mapping = mapping;
    this.#wbc = wbc;
    this.#tag = tagFirst ? PAGECACHE_TAG_TOWRITE : PAGECACHE_TAG_DIRTY;
    if (wbc.rangeCyclic) {
      this.#index = mapping.writebackIndex;
      this.#last = Infinity;
    } else {
      this.#index = Math.floor(wbc.rangeStart / PAGE_SIZE);
      this.#last = Math.floor(wbc.rangeEnd / PAGE_SIZE);
    }
    if (tagFirst) tagPagesForWriteback(mapping, this.#index, this.#last);
  }

  next(lastError: number): MaybePromise<Folio | null> {
    const wbc = this.#wbc;
    if (this.error === 0) this.error = lastError;
    wbc.nrToWrite -= this.#given;
    if (this.#given > 0 && !wbc.syncAll) {
      if (this.error !== 0 || wbc.nrToWrite <= 0) {
        return this.#stop(this.#index);
      }
    }
    return this.#find();
  }

  /** Ends the walk; a cyclic one says where the next begins. */
  #stop(index: number): null {
    if (this.#wbc.rangeCyclic) this.#mapping.writebackIndex = index;
    return null;
  }

  #find(): MaybePromise<Folio | null> {
    for (;;) {
      const folio = filemapNextFolio(
        this.#mapping,
        this.#index,
        this.#last,
        this.#tag,
      );
      if (folio === null) return this.#stop(0);
      this.#index = folioNextIndex(folio);
      const taken = this.#take(folio);
      if (taken instanceof Promise) return this.#findAsync(taken, folio);
      if (taken) return folio;
    }
  }

  async #findAsync(
    taken: Promise<boolean>,
    folio: Folio,
  ): Promise<Folio | null> {
    return await taken ? folio : this.#find();
  }

  /** Locks and prepares a folio; lets it go and answers false where there is
   * nothing to write. */
  #take(folio: Folio): MaybePromise<boolean> {
    folioGet(folio);
    const locked = folioLock(folio);
    return locked instanceof Promise
      ? this.#prepareLater(locked, folio)
      : this.#prepare(folio);
  }

  async #prepareLater(wait: Promise<void>, folio: Folio): Promise<boolean> {
    await wait;
    return this.#prepare(folio);
  }

  #prepare(folio: Folio): MaybePromise<boolean> {
    const wanted = folio.mapping === this.#mapping && folio.dirty;
    if (wanted && folio.writeback && this.#wbc.syncAll) {
      const ended = folioWaitWriteback(folio);
      if (ended instanceof Promise) return this.#prepareLater(ended, folio);
    }
    if (wanted && !folio.writeback && folioClearDirtyForIo(folio)) {
      this.#given = folioNrPages(folio);
      return true;
    }
    folioUnlock(folio);
    folioPut(folio);
    return false;
  }
}

/** Settles what a sync writeback has to write: what gets dirty meanwhile is not
 * its business (kernel: `tag_pages_for_writeback`). */
function tagPagesForWriteback(
  mapping: AddressSpace,
  start: number,
  last: number,
): void {
  let index = start;
  for (;;) {
    const folio = filemapNextFolio(mapping, index, last, PAGECACHE_TAG_DIRTY);
    if (folio === null) return;
    mapping.pages.setTag(folio.index, PAGECACHE_TAG_TOWRITE);
    index = folioNextIndex(folio);
  }
}

/** Pages that count against the limits (kernel: `domain_dirty_avail`). */
function dirtyLevel(mm: Mm): number {
  return mm.nrDirty + mm.nrWriteback;
}

function overFreerun(mm: Mm): boolean {
  return dirtyLevel(mm) > mm.freerun;
}

/** Keeps a writer from dirtying faster than the device takes it (kernel:
 * `balance_dirty_pages_ratelimited_flags`). Cheap when below the limits. The caller
 * holds no folio's lock.
 * @param nowait -EAGAIN instead of waiting.
 * @returns 0 or -EAGAIN. */
export function balanceDirtyPagesRatelimited(
  mapping: AddressSpace,
  nowait: boolean,
): MaybePromise<number> {
  const { mm } = mapping;
  const level = dirtyLevel(mm);
  if (level <= mm.backgroundThresh) return 0;
  if (mm.nrDirty > mm.backgroundThresh) wbStartBackgroundWriteback(mapping.wb);
  // Who comes while others wait does not keep them waiting.
  const bound = mm.nrThrottled > 0 ? mm.freerun : mm.dirtyThresh;
  if (level <= bound) return 0;
  if (nowait) return -EAGAIN;
  return andThenWith(repeatWith(throttleStep, mapping), returnZero, mapping);
}

function returnZero(): number {
  return 0;
}

/** Has a writer wait until there is less dirty; false once that is so, or nothing can
 * be done about it (kernel: `balance_dirty_pages`). */
function throttleStep(mapping: AddressSpace): MaybePromise<boolean> {
  const { mm, wb } = mapping;
  if (!overFreerun(mm)) return false;
  if (mm.clock.inSync) return writeInPlace(mapping);
  wbStartBackgroundWriteback(wb);
  const before = mm.nrWritten;
  mm.nrThrottled++;
  const waited = mm.throttled.wait(
    mm.clock,
    () => !overFreerun(mm) || !wb.running && mm.nrWriteback === 0,
  );
  return andThen(waited, () => {
    mm.nrThrottled--;
    // A file system that gets nothing written must not hold the writer for ever.
    return mm.nrWritten > before;
  });
}

/** Writes what is dirty beyond the background limit, the writer's own file first,
 * or waits for what is being written. False if there is neither. */
function writeInPlace(mapping: AddressSpace): MaybePromise<boolean> {
  const { mm } = mapping;
  const before = mm.nrDirty;
  const victim = mapping.nrDirty > 0 ? mapping : firstDirty(mm);
  if (victim === null || before <= mm.backgroundThresh) {
    return waitForWriteback(mm);
  }
  return andThenWith(
    writeSome(victim, before - mm.backgroundThresh),
    (_error, mm) => mm.nrDirty < before || waitForWriteback(mm),
    mm,
  );
}

/** Waits until some writeback has ended. False if there is none. */
export function waitForWriteback(mm: Mm): MaybePromise<boolean> {
  if (mm.nrWriteback === 0) return false;
  const before = mm.nrWritten;
  const ended = mm.writebackEnded.wait(mm.clock, () => mm.nrWritten > before);
  return andThenWith(ended, returnTrue, mm);
}

function returnTrue(): boolean {
  return true;
}

/** A mapping with dirty pages, or null. */
export function firstDirty(mm: Mm): AddressSpace | null {
  for (const wb of mm.bdis) {
    const mapping = wbFirstDirty(wb);
    if (mapping !== null) return mapping;
  }
  return null;
}

/** Starts to write back what is easy.
 * @param pages How many pages.
 * @returns 0 or a negative errno; fsync reports it too. */
export function writeSome(
  mapping: AddressSpace,
  pages: number,
): MaybePromise<number> {
  return mapping.ops.writepages(mapping, writebackControl(pages));
}
