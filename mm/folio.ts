/**
 * The page cache's unit: 2^order pages of contiguous memory.
 *
 * A folio's memory is a slice of a 32 MiB slab that all its neighbours share:
 * `data` is the slab, `offset` where the folio begins in it. Objects and slabs
 * are recycled for ever; a folio is valid only while a reference is held or it
 * is found in a mapping without having waited since.
 *
 * Kernel counterpart: include/linux/mm_types.h, include/linux/page-flags.h.
 *
 * @module
 */

import { bugOn } from "../lib/bug.ts";
import { type ClassedLock, lockTracker } from "../lib/lockdep.ts";
import type { MaybePromise } from "../lib/maybe-promise.ts";
import { WaitQueue } from "../lib/wait.ts";
import type { AddressSpace } from "./address-space.ts";
import type { Mm } from "./mm.ts";

/** Bytes of a page. */
export const PAGE_SIZE = 4096;
/** Mask of an offset within a page; exact for every safe integer. */
export const PAGE_MASK = 4095;
/** Largest folio: 2^9 pages, 2 MiB. */
export const MAX_PAGECACHE_ORDER = 9;

/** Locked. */
export const PG_LOCKED = 1 << 0;
/** Whole contents valid. */
export const PG_UPTODATE = 1 << 1;
/** To be written back. */
export const PG_DIRTY = 1 << 2;
/** Being written back. */
export const PG_WRITEBACK = 1 << 3;
/** Reaching it starts the next readahead. */
export const PG_READAHEAD = 1 << 4;
/** Used once, or shown by a page table that was used, since the last scan. */
export const PG_REFERENCED = 1 << 5;
/** Used again after that: reclaim moves it to the active list when it comes by. The
 * bit above {@linkcode PG_REFERENCED}, see {@linkcode folioMarkAccessed}. */
export const PG_ACTIVATE = 1 << 6;
/** On the active list. */
export const PG_ACTIVE = 1 << 7;
/** Reclaim has met it: to be given up once its writeback ends. */
export const PG_RECLAIM = 1 << 9;
/** Drop it when its writeback ends. */
export const PG_DROPBEHIND = 1 << 10;
/** Locked to be read: who reads it gives the lock back. */
export const PG_READING = 1 << 11;
/** A copy of a private mapping's own: it belongs to no file. */
export const PG_ANON: number = 1 << 12;
/** What keeps a folio from being dropped at once. */
export const PG_BUSY: number = PG_LOCKED | PG_DIRTY | PG_WRITEBACK;

/** Times that the lock may be taken before the eyes of one who was woken for it, before
 * it is handed to him (kernel: `sysctl_page_lock_unfairness`). */
const PAGE_LOCK_UNFAIRNESS = 5;

/** A task that waits for a folio's lock (kernel: `struct wait_page_queue`). */
export interface LockWaiter {
  /** Whether it has been handed the lock. */
  owner: boolean;
}

/** 2^order pages of a file (kernel: `struct folio`). */
export class Folio implements ClassedLock {
  /** Where its lock stands in the lock order; see `lib/lockdep.ts`. */
  get lockClass(): string {
    return "folio lock";
  }
  /** Memory that it belongs to. */
  readonly mm: Mm;
  /** Number of its first page frame. */
  readonly frame: number;
  /** The slab that holds the memory. */
  readonly data: Uint8Array;
  /** First byte of the folio in `data`. */
  readonly offset: number;
  /** log2 of its pages. */
  order = 0;
  /** `PG_*`. */
  flags = 0;
  /** First page in the file. */
  index = 0;
  /** Where it is cached; null once it has been removed. */
  mapping: AddressSpace | null = null;
  /** The mapping's owner's own; iomap keeps its per-block state here. */
  private: unknown = null;
  /** Holders: the page cache counts as one, page tables only for what is no file's. */
  refcount = 0;
  /** Page table entries that show it. */
  mapcount = 0;
  /** Who waits for the lock or the end of writeback; made when somebody does. */
  waiters: WaitQueue | null = null;
  /** Who gets the lock next, having been overtaken too often. */
  heir: LockWaiter | null = null;
  /** Times that it has been unlocked, as far as anybody has ever waited. */
  unlocks = 0;

  /** Only `Mm` makes them. */
  constructor(mm: Mm, frame: number, data: Uint8Array, offset: number) {
    this.mm = mm;
    this.frame = frame;
    this.data = data;
    this.offset = offset;
  }

  /** Bytes (kernel: `folio_size`). */
  get size(): number {
    return PAGE_SIZE << this.order;
  }

  /** Offset in the file, bytes (kernel: `folio_pos`). */
  get pos(): number {
    return this.index * PAGE_SIZE;
  }

  /** Whether somebody holds its lock. */
  get locked(): boolean {
    return (this.flags & PG_LOCKED) !== 0;
  }

  /** Whether its whole contents are valid. */
  get uptodate(): boolean {
    return (this.flags & PG_UPTODATE) !== 0;
  }

  /** Whether it is to be written back. */
  get dirty(): boolean {
    return (this.flags & PG_DIRTY) !== 0;
  }

  /** Whether it is being written back. */
  get writeback(): boolean {
    return (this.flags & PG_WRITEBACK) !== 0;
  }
}

/** Pages of a folio (kernel: `folio_nr_pages`). */
export function folioNrPages(folio: Folio): number {
  return 1 << folio.order;
}

/** First page behind a folio (kernel: `folio_next_index`). */
export function folioNextIndex(folio: Folio): number {
  return folio.index + (1 << folio.order);
}

/** Takes a reference (kernel: `folio_get`). */
export function folioGet(folio: Folio): void {
  folio.refcount++;
}

/** Gives a reference back; the last one frees the memory (kernel: `folio_put`). */
export function folioPut(folio: Folio): void {
  bugOn(folio.refcount <= 0, "folioPut() without a reference");
  if (--folio.refcount === 0) folio.mm.freeFolio(folio);
}

/** Locks if nobody holds it (kernel: `folio_trylock`). */
export function folioTrylock(folio: Folio): boolean {
  if (!tryLock(folio)) return false;
  if (lockTracker !== null) lockTracker.acquire(folio, "exclusive", false);
  return true;
}

function tryLock(folio: Folio): boolean {
  if ((folio.flags & PG_LOCKED) !== 0) return false;
  folio.flags |= PG_LOCKED;
  return true;
}

/** Locks, waiting for the holder; the caller holds a reference (kernel: `folio_lock`). */
export function folioLock(folio: Folio): MaybePromise<void> {
  if (lockTracker !== null) lockTracker.acquire(folio, "exclusive", true);
  if (!tryLock(folio)) return waitForLock(folio);
}

/** Whoever is awake may take the lock first, which is quick; but who has been overtaken
 * too often has it handed over, or he might wait for ever. */
function waitForLock(folio: Folio): MaybePromise<void> {
  const waiter: LockWaiter = { owner: false };
  let tries = 0;
  folio.waiters ??= new WaitQueue();
  return folio.waiters.wait(folio.mm.clock, () => {
    if (waiter.owner || tryLock(folio)) return true;
    if (tries++ >= PAGE_LOCK_UNFAIRNESS) folio.heir ??= waiter;
    return false;
  });
}

/** Unlocks and wakes (kernel: `folio_unlock`). */
export function folioUnlock(folio: Folio): void {
  bugOn((folio.flags & PG_LOCKED) === 0, "folioUnlock() of a folio not locked");
  if (lockTracker !== null) lockTracker.release(folio);
  if (folio.waiters === null) folio.flags &= ~(PG_LOCKED | PG_READING);
  else unlockAndWake(folio, folio.waiters);
}

function unlockAndWake(folio: Folio, waiters: WaitQueue): void {
  const { heir } = folio;
  folio.unlocks++;
  folio.flags &= ~PG_READING;
  if (heir === null) folio.flags &= ~PG_LOCKED;
  else {
    folio.heir = null;
    heir.owner = true;
  }
  waiters.wakeAll();
}

/** Waits until it has been unlocked, once: by then another may have locked it. The
 * caller holds a reference (kernel: `folio_wait_locked`). */
export function folioWaitLocked(folio: Folio): MaybePromise<void> {
  if (folio.locked) return waitForUnlock(folio);
}

function waitForUnlock(folio: Folio): MaybePromise<void> {
  const { unlocks } = folio;
  folio.waiters ??= new WaitQueue();
  return folio.waiters.wait(
    folio.mm.clock,
    () => !folio.locked || folio.unlocks !== unlocks,
  );
}

/** Marks the whole contents valid (kernel: `folio_mark_uptodate`). */
export function folioMarkUptodate(folio: Folio): void {
  folio.flags |= PG_UPTODATE;
}

/** The lock goes from the task that took it to the I/O that will give it back. */
export function folioLockToIo(folio: Folio): void {
  if (lockTracker !== null) lockTracker.release(folio);
}

/** Ends a read: unlocks, and marks valid if it succeeded (kernel: `folio_end_read`). */
export function folioEndRead(folio: Folio, success: boolean): void {
  if (success) folio.flags |= PG_UPTODATE;
  folioUnlock(folio);
}

/** Waits until it is not being written back; the caller holds a reference
 * (kernel: `folio_wait_writeback`). */
export function folioWaitWriteback(folio: Folio): MaybePromise<void> {
  if (folio.writeback) return waitForWritebackEnd(folio);
}

function waitForWritebackEnd(folio: Folio): MaybePromise<void> {
  folio.waiters ??= new WaitQueue();
  return folio.waiters.wait(folio.mm.clock, () => !folio.writeback);
}

/** Marks a use for reclaim (kernel: `folio_mark_accessed`): the second one makes it
 * active. That is but two bits; the move is reclaim's. */
export function folioMarkAccessed(folio: Folio): void {
  const { flags } = folio;
  folio.flags = flags | PG_REFERENCED | (flags & PG_REFERENCED) << 1;
}
