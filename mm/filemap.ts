/**
 * The page cache: finding, reading, waiting for and writing back folios.
 *
 * A read that hits is one plain loop; the first miss leaves it for a walk object
 * that can be taken up again after a wait. What was looked up before a wait is
 * looked up again after it.
 *
 * Kernel counterpart: mm/filemap.c.
 *
 * @module
 */

import {
  EAGAIN,
  EFAULT,
  EINVAL,
  EIO,
  ENOENT,
  ENOMEM,
  ENOSPC,
  ENXIO,
} from "../lib/errno.ts";
import type { IovIter } from "../lib/iov-iter.ts";
import { lockTracker } from "../lib/lockdep.ts";
import {
  andThen,
  andThenWith,
  type MaybePromise,
  repeatWith,
} from "../lib/maybe-promise.ts";
import {
  type AddressSpace,
  AS_EIO,
  AS_ENOSPC,
  PAGECACHE_TAG_DIRTY,
  PAGECACHE_TAG_WRITEBACK,
} from "./address-space.ts";
import {
  type Errseq,
  errseqCheckAndAdvance,
  errseqSample,
  type WbErrCursor,
} from "./errseq.ts";
import {
  type Folio,
  folioGet,
  folioLock,
  folioMarkAccessed,
  folioNextIndex,
  folioNrPages,
  folioPut,
  folioTrylock,
  folioUnlock,
  folioWaitLocked,
  folioWaitWriteback,
  PAGE_SIZE,
  PG_BUSY,
  PG_DROPBEHIND,
  PG_LOCKED,
  PG_READAHEAD,
  PG_READING,
  PG_UPTODATE,
} from "./folio.ts";
import {
  IOCB_DONTCACHE,
  IOCB_NOIO,
  IOCB_NOWAIT,
  IOCB_SYNC_CALL,
  IOCB_WAITQ,
} from "./iocb-flags.ts";
import { SLAB_FRAMES } from "./page-alloc.ts";
import { INDEX_SHADOW } from "./page-index.ts";
import {
  filemapAddFolio,
  filemapLookup,
  filemapNextFolio,
  filemapRangeFree,
} from "./page-cache.ts";
import { folioEndDropbehind } from "./page-writeback.ts";
import {
  type FileRaState,
  pageCacheAsyncRa,
  pageCacheSyncRa,
  Readahead,
} from "./readahead.ts";
import { allocFolio, allocFolioWait } from "./vmscan.ts";
import { workingsetTestRecent } from "./workingset.ts";

export {
  filemapDirtyFolio,
  folioCancelDirty,
  folioClearDirtyForIo,
  folioEndWriteback,
  folioMarkDirty,
  folioStartWriteback,
  type WritebackIter,
  writebackIter,
} from "./page-writeback.ts";
export { filemapLookup } from "./page-cache.ts";

/** What the page cache needs of a read call; `fs/kiocb.ts` has the whole. */
export interface FilemapIocb {
  /** File offset, bytes; advanced by what is read. */
  pos: number;
  /** `IOCB_*`. */
  readonly flags: number;
  /** The file's page cache. */
  readonly mapping: AddressSpace;
  /** The open file's readahead state. */
  readonly ra: FileRaState;
}

/** Mark as used. */
export const FGP_ACCESSED = 0x1;
/** Return it locked. */
export const FGP_LOCK = 0x2;
/** Make it if absent. */
export const FGP_CREAT = 0x4;
/** For a write. */
export const FGP_WRITE = 0x8;
/** -EAGAIN rather than wait. */
export const FGP_NOWAIT = 0x20;
/** Wait for writeback if the device needs stable pages; none here does. */
export const FGP_STABLE = 0x80;
/** A folio made here is dropped after use. */
export const FGP_DONTCACHE = 0x100;
/** What a buffered write asks for. */
export const FGP_WRITEBEGIN: number = FGP_LOCK | FGP_WRITE | FGP_CREAT |
  FGP_STABLE;

/** Finds or makes a folio with a reference held (kernel: `__filemap_get_folio`).
 * One that is made is locked, whatever `fgp` says.
 * @param index Page in the file.
 * @param fgp `FGP_*`.
 * @param size Bytes from `index` that the caller will write; a new folio is as
 *   large as index alignment and the mapping's orders allow for it.
 * @returns The folio, or -ENOENT (absent, no FGP_CREAT), -EAGAIN (FGP_NOWAIT), -ENOMEM. */
export function filemapGetFolio(
  mapping: AddressSpace,
  index: number,
  fgp: number,
  size: number,
): MaybePromise<Folio | number> {
  const folio = filemapLookup(mapping, index);
  if (folio === null) {
    if ((fgp & FGP_CREAT) === 0) return -ENOENT;
    return createFolio(mapping, index, fgp, size);
  }
  if ((fgp & FGP_LOCK) !== 0) {
    if ((folio.flags & PG_LOCKED) !== 0) {
      return lockFolio(mapping, folio, index, fgp, size);
    }
    folio.flags |= PG_LOCKED;
    if (lockTracker !== null) lockTracker.acquire(folio, "exclusive", true);
  }
  folio.refcount++;
  return useFolio(folio, fgp);
}

/** Notes how a folio that was found is used. */
function useFolio(folio: Folio, fgp: number): Folio {
  if ((fgp & FGP_ACCESSED) !== 0) folioMarkAccessed(folio);
  if ((fgp & FGP_DONTCACHE) === 0) folio.flags &= ~PG_DROPBEHIND;
  return folio;
}

/** {@linkcode filemapGetFolio} where somebody else holds the lock. */
function lockFolio(
  mapping: AddressSpace,
  folio: Folio,
  index: number,
  fgp: number,
  size: number,
): MaybePromise<Folio | number> {
  if ((fgp & FGP_NOWAIT) !== 0) return -EAGAIN;
  folioGet(folio);
  return andThen(
    folioLock(folio),
    () => lockedFolio(mapping, folio, index, fgp, size),
  );
}

/** The folio may have left the file before its lock came. */
function lockedFolio(
  mapping: AddressSpace,
  folio: Folio,
  index: number,
  fgp: number,
  size: number,
): MaybePromise<Folio | number> {
  if (folio.mapping === mapping) return useFolio(folio, fgp);
  folioUnlock(folio);
  folioPut(folio);
  return filemapGetFolio(mapping, index, fgp, size);
}

/** {@linkcode filemapGetFolio} where nothing is cached. */
function createFolio(
  mapping: AddressSpace,
  wanted: number,
  fgp: number,
  size: number,
): MaybePromise<Folio | number> {
  const { minOrder, mm } = mapping;
  const index = wanted - (wanted & ((1 << minOrder) - 1));
  let order = folioOrder(mapping, index, size);
  while (order > minOrder && !filemapRangeFree(mapping, index, 1 << order)) {
    order--;
  }
  for (; order >= minOrder; order--) {
    const folio = allocFolio(mm, order);
    if (folio !== null) return enterFolio(mapping, folio, index, fgp);
  }
  if ((fgp & FGP_NOWAIT) !== 0) return -EAGAIN;
  return createFolioWait(mapping, index, fgp, size);
}

/** {@linkcode createFolio} where memory has to be waited for. */
function createFolioWait(
  mapping: AddressSpace,
  index: number,
  fgp: number,
  size: number,
): MaybePromise<Folio | number> {
  return andThen(allocFolioWait(mapping.mm, mapping.minOrder), (folio) => {
    if (folio === null) return -ENOMEM;
    if (filemapRangeFree(mapping, index, folioNrPages(folio))) {
      return enterFolio(mapping, folio, index, fgp);
    }
    // Somebody else has made it meanwhile.
    folioPut(folio);
    return filemapGetFolio(mapping, index, fgp, size);
  });
}

function enterFolio(
  mapping: AddressSpace,
  folio: Folio,
  index: number,
  fgp: number,
): Folio {
  if ((fgp & FGP_ACCESSED) !== 0) folioMarkAccessed(folio);
  if ((fgp & FGP_DONTCACHE) !== 0) folio.flags |= PG_DROPBEHIND;
  filemapAddFolio(mapping, folio, index, (fgp & FGP_WRITE) !== 0);
  return folio;
}

/** Order of a new folio: no more than the bytes wanted, the file's largest, and
 * what the index is aligned to. */
function folioOrder(
  mapping: AddressSpace,
  index: number,
  size: number,
): number {
  const pages = Math.min(Math.floor(size / PAGE_SIZE), 2 ** mapping.maxOrder);
  let order = pages === 0 ? 0 : 31 - Math.clz32(pages);
  const odd = index & ((1 << order) - 1);
  if (odd !== 0) order = 31 - Math.clz32(odd & -odd);
  return Math.max(order, mapping.minOrder);
}

/** Flags of a folio that is read from without further ado, when masked. */
const PLAIN = PG_UPTODATE | PG_READAHEAD | PG_DROPBEHIND;

/** Look it up again: it was not, or is no longer, what the reader wants (kernel:
 * `AOP_TRUNCATED_PAGE`). */
const LOOK_AGAIN = 1;

/**
 * Cached buffered read (kernel: `filemap_read`). Spec 3.17.
 *
 * @returns Bytes read, 0 at or beyond the end of the file; if none, -EINVAL for a
 *   negative position, -EIO if the file system could not read, -EAGAIN where
 *   IOCB_NOWAIT or IOCB_NOIO forbids what it takes, or another task has the lock
 *   that a synchronous caller needs, -EFAULT if the caller's memory went while the
 *   call waited, -ENOMEM.
 */
export function filemapRead(
  iocb: FilemapIocb,
  iter: IovIter,
): MaybePromise<number> {
  const start = iocb.pos;
  if (start < 0) return -EINVAL;
  const { mapping } = iocb;
  // Leaves the readahead state alone, or the next read would look sequential.
  if (start >= mapping.host.size) return 0;
  readHits(iocb, iter, mapping);
  if (iter.count > 0 && iocb.pos < mapping.host.size) {
    const walk = new ReadWalk(iocb, iter, start);
    return andThenWith(repeatWith(readStep, walk), readEnd, walk);
  }
  iocb.ra.prevPos = iocb.pos;
  return iocb.pos - start;
}

/** Copies as far as everything is cached and valid. Folios that follow each other
 * in memory too are copied in one go. */
function readHits(
  iocb: FilemapIocb,
  iter: IovIter,
  mapping: AddressSpace,
): void {
  const { pages } = mapping;
  const { folios, views } = mapping.mm;
  let pos = iocb.pos;
  let last = iocb.ra.prevPos;
  const end = Math.min(mapping.host.size, pos + iter.count);
  while (pos < end) {
    const frame = pages.get(Math.floor(pos / PAGE_SIZE));
    if (frame <= 0) break;
    const folio = folios[frame]!;
    if ((folio.flags & PLAIN) !== PG_UPTODATE) break;
    if (!isLastRead(folio, last)) folioMarkAccessed(folio);
    const from = folio.offset + pos - folio.index * PAGE_SIZE;
    let nextFrame = frame + (1 << folio.order);
    let nextIndex = folio.index + (1 << folio.order);
    while (
      nextIndex * PAGE_SIZE < end && (nextFrame & (SLAB_FRAMES - 1)) !== 0 &&
      pages.get(nextIndex) === nextFrame
    ) {
      const next = folios[nextFrame]!;
      if ((next.flags & PLAIN) !== PG_UPTODATE) break;
      folioMarkAccessed(next);
      nextFrame += 1 << next.order;
      nextIndex += 1 << next.order;
    }
    const len = Math.min(nextIndex * PAGE_SIZE, end) - pos;
    const copied = iter.copyTo(views.get(folio, from, len), 0, len);
    pos += copied;
    last = pos;
    if (copied < len) break;
  }
  iocb.pos = pos;
}

/** Whether a folio holds the byte before `last`, up to which has been read: to go on in
 * it is no second use (kernel: `pos_same_folio`). */
function isLastRead(folio: Folio, last: number): boolean {
  const from = last - 1 - folio.index * PAGE_SIZE;
  return from >= 0 && from < PAGE_SIZE << folio.order;
}

/** A read that has missed. */
class ReadWalk {
  readonly iocb: FilemapIocb;
  readonly iter: IovIter;
  readonly mapping: AddressSpace;
  readonly start: number;
  /** Why it ends before it is complete. */
  error = 0;
  /** The folio at the position, with a reference, during a step. */
  folio: Folio | null = null;

  constructor(iocb: FilemapIocb, iter: IovIter, start: number) {
    this.iocb = iocb;
    this.iter = iter;
    this.mapping = iocb.mapping;
    this.start = start;
  }

  get index(): number {
    return Math.floor(this.iocb.pos / PAGE_SIZE);
  }

  has(flags: number): boolean {
    return (this.iocb.flags & flags) !== 0;
  }

  /** Pages from the folio at `index` to the end of the request, in folios of the
   * smallest size. */
  pagesFrom(index: number): number {
    const step = 2 ** this.mapping.minOrder;
    const end = this.iocb.pos + this.iter.count;
    return Math.ceil(end / (step * PAGE_SIZE)) * step - index;
  }
}

/** Progress wins: an error shows only where nothing has been read. Then the readahead
 * state says nothing of it, or to try again would look sequential. */
function readEnd(_walked: void, walk: ReadWalk): number {
  const { iocb, start } = walk;
  if (iocb.pos === start) return walk.error;
  iocb.ra.prevPos = iocb.pos;
  return iocb.pos - start;
}

/** Gets one folio and copies from it. False at the end of the read. */
function readStep(walk: ReadWalk): MaybePromise<boolean> {
  const { iocb, iter, mapping } = walk;
  readHits(iocb, iter, mapping);
  if (iter.count === 0 || iocb.pos >= mapping.host.size) return false;
  const folio = filemapLookup(mapping, walk.index);
  if (folio === null) return andThenWith(readMiss(walk), readStepEnd, walk);
  folioGet(folio);
  walk.folio = folio;
  const marked = (folio.flags & PG_READAHEAD) !== 0
    ? readMarked(walk, folio)
    : 0;
  const valid = andThenWith(marked, updateFolio, walk);
  return andThenWith(valid, readStepEnd, walk);
}

/** Copies from the walk's folio and lets go of it. */
function readStepEnd(error: number, walk: ReadWalk): boolean {
  const { folio } = walk;
  if (folio !== null) {
    if (error === 0) {
      error = copyFolio(walk, folio);
      if ((folio.flags & PG_DROPBEHIND) !== 0) folioEndDropbehind(folio);
    }
    folioPut(folio);
    walk.folio = null;
  }
  if (error < 0) walk.error = error;
  return error >= 0;
}

/** 0, or -EFAULT where the caller's memory is gone. */
function copyFolio(walk: ReadWalk, folio: Folio): number {
  const { iocb, iter } = walk;
  // Read again: a truncation may have moved it while the folio was awaited.
  const size = walk.mapping.host.size;
  const end = Math.min(size, folio.pos + folio.size, iocb.pos + iter.count);
  if (end <= iocb.pos) return 0;
  const from = folio.offset + iocb.pos - folio.pos;
  const last = iocb.pos > walk.start ? iocb.pos : iocb.ra.prevPos;
  if (!isLastRead(folio, last)) folioMarkAccessed(folio);
  iocb.pos += iter.copyTo(folio.data, from, end - iocb.pos);
  return iocb.pos < end ? -EFAULT : 0;
}

/** Takes `mapping.invalidateLock` shared; 0 or -EAGAIN. */
function invalidateLockShared(walk: ReadWalk): MaybePromise<number> {
  const { invalidateLock } = walk.mapping;
  if (walk.has(IOCB_NOWAIT | IOCB_SYNC_CALL)) {
    return invalidateLock.tryDownRead() ? 0 : -EAGAIN;
  }
  return andThenWith(invalidateLock.downRead(), lockTaken, walk);
}

function lockTaken(): number {
  return 0;
}

/** Gives the lock back and hands a result on. */
function unlockShared(error: number, walk: ReadWalk): number {
  walk.mapping.invalidateLock.upRead();
  return error;
}

/** Nothing is cached at the position: reads ahead, or makes a folio and reads it. */
function readMiss(walk: ReadWalk): MaybePromise<number> {
  if (walk.has(IOCB_NOIO)) return -EAGAIN;
  const ahead = andThenWith(invalidateLockShared(walk), syncReadahead, walk);
  if (ahead instanceof Promise && walk.has(IOCB_NOWAIT)) return -EAGAIN;
  return andThenWith(ahead, afterReadahead, walk);
}

function syncReadahead(error: number, walk: ReadWalk): MaybePromise<number> {
  if (error < 0) return error;
  const { mapping, iocb, index } = walk;
  const rac = new Readahead(
    mapping,
    iocb.ra,
    index,
    walk.has(IOCB_DONTCACHE),
  );
  const read = pageCacheSyncRa(rac, walk.pagesFrom(index));
  return andThenWith(read, readaheadDone, walk);
}

function readaheadDone(_read: void, walk: ReadWalk): number {
  return unlockShared(0, walk);
}

function afterReadahead(error: number, walk: ReadWalk): MaybePromise<number> {
  if (error < 0) return error;
  if (filemapLookup(walk.mapping, walk.index) !== null) return LOOK_AGAIN;
  if (walk.has(IOCB_NOWAIT | IOCB_WAITQ)) return -EAGAIN;
  const { mm, minOrder } = walk.mapping;
  return andThenWith(allocFolioWait(mm, minOrder), createAndRead, walk);
}

/** (kernel: `filemap_create_folio`) */
function createAndRead(
  folio: Folio | null,
  walk: ReadWalk,
): MaybePromise<number> {
  if (folio === null) return -ENOMEM;
  walk.folio = folio;
  if (walk.has(IOCB_DONTCACHE)) folio.flags |= PG_DROPBEHIND;
  return andThenWith(invalidateLockShared(walk), enterAndRead, walk);
}

function enterAndRead(error: number, walk: ReadWalk): MaybePromise<number> {
  if (error < 0) return error;
  const { mapping, index } = walk;
  const folio = walk.folio!;
  const first = index - (index & (folioNrPages(folio) - 1));
  if (!filemapRangeFree(mapping, first, folioNrPages(folio))) {
    return unlockShared(LOOK_AGAIN, walk);
  }
  filemapAddFolio(mapping, folio, first, false);
  const read = filemapReadFolio(mapping, walk.iocb.ra, folio);
  return andThenWith(read, unlockShared, walk);
}

/** Reads a locked folio, which unlocks it, and waits for it (kernel:
 * `filemap_read_folio`).
 * @returns 0, -EIO if it is not valid then, or the errno of starting it. */
export function filemapReadFolio(
  mapping: AddressSpace,
  ra: FileRaState,
  folio: Folio,
): MaybePromise<number> {
  folio.flags |= PG_READING;
  const started = mapping.ops.readFolio(folio);
  return andThenWith(andThenWith(started, waitForRead, folio), readDone, ra);
}

/**
 * A folio with its contents, read if it has to be (kernel: `read_mapping_folio`). The
 * caller holds the invalidate lock, or sees to it otherwise that the file keeps its end.
 *
 * @param index Page in the file.
 * @returns The folio with a reference, unlocked; -EIO if it cannot be read, -ENOMEM, or
 *   the errno of reading it.
 */
export function readMappingFolio(
  mapping: AddressSpace,
  ra: FileRaState,
  index: number,
): MaybePromise<Folio | number> {
  const fgp = FGP_LOCK | FGP_CREAT;
  return andThen(filemapGetFolio(mapping, index, fgp, PAGE_SIZE), (folio) => {
    if (typeof folio === "number") return folio;
    if (folio.uptodate) {
      folioUnlock(folio);
      return folio;
    }
    return andThen(filemapReadFolio(mapping, ra, folio), (error) => {
      if (error === 0) return folio;
      folioPut(folio);
      return error;
    });
  });
}

function waitForRead(error: number, folio: Folio): MaybePromise<number> {
  if (error < 0) return error;
  return andThenWith(folioWaitLocked(folio), uptodateOrEio, folio);
}

function uptodateOrEio(_waited: void, folio: Folio): number {
  return folio.uptodate ? 0 : -EIO;
}

function readDone(error: number, ra: FileRaState): number {
  // A device with errors is read in smaller pieces from now on.
  if (error === -EIO) ra.raPages = Math.floor(ra.raPages / 4);
  return error;
}

/** The reader has come to the mark: starts the next window. */
function readMarked(walk: ReadWalk, folio: Folio): MaybePromise<number> {
  if (walk.has(IOCB_NOIO)) return -EAGAIN;
  if (!walk.mapping.invalidateLock.tryDownRead()) return 0;
  const rac = new Readahead(
    walk.mapping,
    walk.iocb.ra,
    folio.index,
    walk.has(IOCB_DONTCACHE),
  );
  const read = pageCacheAsyncRa(rac, folio, walk.pagesFrom(folio.index));
  const done = andThenWith(read, readaheadDone, walk);
  return done instanceof Promise && walk.has(IOCB_NOWAIT) ? 0 : done;
}

/** Sees to it that the walk's folio can be read from (kernel: `filemap_update_page`). */
function updateFolio(error: number, walk: ReadWalk): MaybePromise<number> {
  if (error < 0 || walk.folio!.uptodate) return error;
  return andThenWith(invalidateLockShared(walk), updateLocked, walk);
}

function updateLocked(error: number, walk: ReadWalk): MaybePromise<number> {
  if (error < 0) return error;
  const folio = walk.folio!;
  if (folioTrylock(folio)) {
    return andThenWith(updateOwned(walk, folio), unlockShared, walk);
  }
  walk.mapping.invalidateLock.upRead();
  if (walk.has(IOCB_NOWAIT | IOCB_NOIO)) return -EAGAIN;
  // Mostly a readahead that is on its way.
  return andThenWith(folioWaitLocked(folio), lookAgain, walk);
}

function lookAgain(): number {
  return LOOK_AGAIN;
}

/** The folio's lock is held; it is given up here or at the end of the read. */
function updateOwned(walk: ReadWalk, folio: Folio): MaybePromise<number> {
  let error = 0;
  if (folio.mapping === null) error = LOOK_AGAIN;
  else if (!rangeUptodate(walk, folio)) {
    if (!walk.has(IOCB_NOWAIT | IOCB_NOIO | IOCB_WAITQ)) {
      return filemapReadFolio(walk.mapping, walk.iocb.ra, folio);
    }
    error = -EAGAIN;
  }
  folioUnlock(folio);
  return error;
}

/** Whether what the reader wants of a folio is valid (kernel: `filemap_range_uptodate`). */
function rangeUptodate(walk: ReadWalk, folio: Folio): boolean {
  if (folio.uptodate) return true;
  const { mapping, iocb, iter } = walk;
  if (2 ** mapping.host.blkbits >= folio.size) return false;
  const from = iocb.pos - folio.pos;
  if (from === 0 && iter.count >= folio.size) return false;
  return mapping.ops.isPartiallyUptodate(folio, from, iter.count);
}

/** Starts writeback of dirty folios in [start, end] and waits (kernel:
 * `filemap_write_and_wait_range`).
 * @returns 0; the error of starting it; or -EIO or -ENOSPC if some writeback of the
 *   file has failed and nobody has asked yet. */
export function filemapWriteAndWaitRange(
  mapping: AddressSpace,
  start: number,
  endInclusive: number,
): MaybePromise<number> {
  if (endInclusive < start) return 0;
  return andThenWith(
    writeAndWait(mapping, start, endInclusive),
    checkErrors,
    mapping,
  );
}

function writeAndWait(
  mapping: AddressSpace,
  start: number,
  last: number,
): MaybePromise<number> {
  if (mapping.nrPages === 0) return 0;
  const started = filemapFdatawriteRange(mapping, start, last, true);
  if (!(started instanceof Promise)) {
    return waitUnlessEio(started, mapping, start, last);
  }
  return started.then((error) => waitUnlessEio(error, mapping, start, last));
}

/** After -EIO nothing may be on its way any more that could be waited for. */
function waitUnlessEio(
  error: number,
  mapping: AddressSpace,
  start: number,
  last: number,
): MaybePromise<number> {
  if (error === -EIO) return error;
  return andThen(waitForRange(mapping, start, last), () => error);
}

/** The first of `error` and the errors noted at the mapping, which are forgotten
 * (kernel: `filemap_check_errors`). */
function checkErrors(error: number, mapping: AddressSpace): number {
  const { flags } = mapping;
  mapping.flags = flags & ~(AS_EIO | AS_ENOSPC);
  if (error < 0) return error;
  if ((flags & AS_EIO) !== 0) return -EIO;
  return (flags & AS_ENOSPC) !== 0 ? -ENOSPC : 0;
}

/** Starts writeback without waiting for the I/O (kernel: `__filemap_fdatawrite_range`).
 * @param syncAll Every dirty folio, those already being written once more; else
 *   what is easy.
 * @returns 0 or the error of starting it. */
export function filemapFdatawriteRange(
  mapping: AddressSpace,
  start: number,
  endInclusive: number,
  syncAll: boolean,
): MaybePromise<number> {
  if (!mapping.pages.tagged(PAGECACHE_TAG_DIRTY)) return 0;
  return mapping.ops.writepages(mapping, {
    syncAll,
    rangeStart: start,
    rangeEnd: endInclusive,
    nrToWrite: Infinity,
    taggedWritepages: false,
  });
}

/** Waits for writeback in flight (kernel: `filemap_fdatawait_range`).
 * @returns 0, or -EIO or -ENOSPC as {@linkcode filemapWriteAndWaitRange}. */
export function filemapFdatawaitRange(
  mapping: AddressSpace,
  start: number,
  endInclusive: number,
): MaybePromise<number> {
  const waited = waitForRange(mapping, start, endInclusive);
  return andThen(waited, () => checkErrors(0, mapping));
}

/** Waits for a file's writeback in flight without forgetting its errors, which are
 * fsync's to report (kernel: `filemap_fdatawait_keep_errors`).
 * @returns 0, or -EIO or -ENOSPC if some writeback of the file has failed. */
export function filemapFdatawaitKeepErrors(
  mapping: AddressSpace,
): MaybePromise<number> {
  return andThen(waitForRange(mapping, 0, Number.MAX_SAFE_INTEGER), () => {
    if ((mapping.flags & AS_EIO) !== 0) return -EIO;
    return (mapping.flags & AS_ENOSPC) !== 0 ? -ENOSPC : 0;
  });
}

/** A walk over the folios under writeback. */
interface WaitWalk {
  readonly mapping: AddressSpace;
  index: number;
  readonly last: number;
}

function waitForRange(
  mapping: AddressSpace,
  start: number,
  last: number,
): MaybePromise<void> {
  if (last < start || !mapping.pages.tagged(PAGECACHE_TAG_WRITEBACK)) return;
  return repeatWith(waitStep, {
    mapping,
    index: Math.floor(start / PAGE_SIZE),
    last: Math.floor(last / PAGE_SIZE),
  });
}

function waitStep(walk: WaitWalk): MaybePromise<boolean> {
  const folio = filemapNextFolio(
    walk.mapping,
    walk.index,
    walk.last,
    PAGECACHE_TAG_WRITEBACK,
  );
  if (folio === null) return false;
  walk.index = folioNextIndex(folio);
  folioGet(folio);
  return andThenWith(folioWaitWriteback(folio), waitedFor, folio);
}

function waitedFor(_ended: void, folio: Folio): boolean {
  folioPut(folio);
  return true;
}

/** Where a file that is opened now begins (kernel: `filemap_sample_wb_err`): an error
 * that nobody has been told is still to be reported. */
export function filemapSampleWbErr(mapping: AddressSpace): Errseq {
  return errseqSample(mapping.wbErr);
}

/** fsync's write and wait; each cursor gets an error once (kernel:
 * `file_write_and_wait_range`).
 * @returns 0; the error of starting it; or the errno of a writeback that has failed
 *   since the cursor was last asked. */
export function fileWriteAndWaitRange(
  mapping: AddressSpace,
  cursor: WbErrCursor,
  start: number,
  endInclusive: number,
): MaybePromise<number> {
  if (endInclusive < start) return 0;
  return andThen(writeAndWait(mapping, start, endInclusive), (error) => {
    const reported = fileCheckAndAdvanceWbErr(mapping, cursor);
    return error < 0 ? error : reported;
  });
}

/** Waits for writeback in flight; each cursor gets an error once (kernel:
 * `file_fdatawait_range`).
 * @returns 0, or the errno of a writeback that has failed since the cursor was last
 *   asked. */
export function fileFdatawaitRange(
  mapping: AddressSpace,
  cursor: WbErrCursor,
  start: number,
  endInclusive: number,
): MaybePromise<number> {
  const waited = waitForRange(mapping, start, endInclusive);
  return andThen(waited, () => fileCheckAndAdvanceWbErr(mapping, cursor));
}

/** (kernel: `file_check_and_advance_wb_err`) */
function fileCheckAndAdvanceWbErr(
  mapping: AddressSpace,
  cursor: WbErrCursor,
): number {
  mapping.flags &= ~(AS_EIO | AS_ENOSPC);
  return errseqCheckAndAdvance(mapping, cursor);
}

/** Whether a range has dirty, locked or writeback folios (kernel:
 * `filemap_range_needs_writeback`). */
export function filemapRangeNeedsWriteback(
  mapping: AddressSpace,
  start: number,
  endInclusive: number,
): boolean {
  const { pages } = mapping;
  // A locked folio matters only while something is written or to be written.
  const busy = pages.tagged(PAGECACHE_TAG_DIRTY) ||
    pages.tagged(PAGECACHE_TAG_WRITEBACK);
  if (!busy || endInclusive < start) return false;
  const last = Math.floor(endInclusive / PAGE_SIZE);
  let index = Math.floor(start / PAGE_SIZE);
  for (;;) {
    const folio = filemapNextFolio(mapping, index, last);
    if (folio === null) return false;
    if ((folio.flags & PG_BUSY) !== 0) return true;
    index = folioNextIndex(folio);
  }
}

/** Whether anything is cached (kernel: `filemap_range_has_page`). */
export function filemapRangeHasPage(
  mapping: AddressSpace,
  start: number,
  endInclusive: number,
): boolean {
  if (endInclusive < start) return false;
  const first = Math.floor(start / PAGE_SIZE);
  const last = Math.floor(endInclusive / PAGE_SIZE);
  return filemapNextFolio(mapping, first, last) !== null;
}

/** How much of a range is in memory, pages (kernel: `struct cachestat`). */
export interface CacheStat {
  /** Cached. */
  nrCache: number;
  /** Of these, dirty. */
  nrDirty: number;
  /** Of these, being written back. */
  nrWriteback: number;
  /** Evicted since, as far as is known. */
  nrEvicted: number;
  /** Of these, so lately that they are taken for part of the working set. */
  nrRecentlyEvicted: number;
}

/**
 * Counts what is cached of a range (kernel: `filemap_cachestat`).
 *
 * @param first First page.
 * @param last Last page; may be Infinity.
 */
export function filemapCachestat(
  mapping: AddressSpace,
  first: number,
  last: number,
): CacheStat {
  const { pages } = mapping;
  const stat: CacheStat = {
    nrCache: 0,
    nrDirty: 0,
    nrWriteback: 0,
    nrEvicted: 0,
    nrRecentlyEvicted: 0,
  };
  let folio = filemapNextFolio(mapping, first, last);
  while (folio !== null) {
    const next = folioNextIndex(folio);
    const count = Math.min(next, last + 1) - Math.max(folio.index, first);
    stat.nrCache += count;
    if (pages.hasTag(folio.index, PAGECACHE_TAG_DIRTY)) stat.nrDirty += count;
    if (folio.writeback) stat.nrWriteback += count;
    folio = filemapNextFolio(mapping, next, last);
  }
  let index = pages.next(first, last, INDEX_SHADOW);
  for (; index >= 0; index = pages.next(index + 1, last, INDEX_SHADOW)) {
    stat.nrEvicted++;
    if (workingsetTestRecent(mapping.mm, pages.get(index))) {
      stat.nrRecentlyEvicted++;
    }
  }
  return stat;
}

/** Page cache half of SEEK_DATA/SEEK_HOLE (kernel: `mapping_seek_hole_data`). Spec 3.13.
 * A page that reclaim has evicted counts as data while its shadow is there.
 * @param start First byte looked at.
 * @param end Byte behind the last.
 * @returns Where data, or a hole, begins: `start` itself if it is in one. -ENXIO if
 *   there is no data; `end` if there is no hole. */
export function mappingSeekHoleData(
  mapping: AddressSpace,
  start: number,
  end: number,
  data: boolean,
): number {
  if (end <= start) return -ENXIO;
  const last = Math.floor((end - 1) / PAGE_SIZE);
  let at = start;
  while (at < end) {
    const index = Math.floor(at / PAGE_SIZE);
    const folio = filemapNextFolio(mapping, index, last);
    const shadow = mapping.pages.next(index, last, INDEX_SHADOW);
    if (folio === null && shadow < 0) break;
    const evicted = shadow >= 0 && (folio === null || shadow < folio.index);
    const pos = evicted ? shadow * PAGE_SIZE : folio!.pos;
    if (at < pos) {
      if (!data) return at;
      at = pos;
    }
    const next = pos + (evicted ? PAGE_SIZE : folio!.size);
    if (!evicted) at = seekInFolio(mapping, folio!, at, next, data);
    else if (!data) at = next;
    if (at < next) return Math.min(at, end);
  }
  if (data) return -ENXIO;
  return Math.min(at, end);
}

/** Where in a folio data, or a hole, begins; its end if nowhere (kernel:
 * `folio_seek_hole_data`). */
function seekInFolio(
  mapping: AddressSpace,
  folio: Folio,
  start: number,
  end: number,
  data: boolean,
): number {
  if (folio.uptodate) return data ? start : end;
  const block = 2 ** mapping.host.blkbits;
  let at = start;
  for (; at < end; at = Math.floor(at / block + 1) * block) {
    const offset = Math.floor((at - folio.pos) / block) * block;
    const valid = mapping.ops.isPartiallyUptodate(folio, offset, block);
    if (valid === data) return at;
  }
  return at;
}
