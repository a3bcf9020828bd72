/**
 * Buffered I/O: between the page cache and the file system's mappings.
 *
 * A folio that holds more than one block keeps two bits for each in
 * `folio.private`: uptodate and dirty. It has them only once they say something:
 * a folio that is written or read whole does without.
 *
 * What a write needs across a wait is in a {@linkcode FolioWrite}: each function
 * that may have to wait hands it on to the next, so that the cached case runs
 * through without a closure, a promise or an allocation.
 *
 * Kernel counterpart: fs/iomap/buffered-io.c.
 *
 * @module
 */

/*
 * Lock order, outermost first:
 *
 *   inode.rwsem                 exclusive: write, zero, unshare
 *     mapping.invalidateLock    exclusive: zero, unshare, delalloc release
 *       folio lock              ascending index when more than one
 *         fs mapping lock       inside iomapBegin, iomapEnd, punch, writebackRange
 */

import { Bio, submitBio, submitBioWait } from "../block/bio.ts";
import { blkFinishPlug, blkStartPlug } from "../block/blk-plug.ts";
import {
  blkStatusToErrno,
  REQ_OP_READ,
  REQ_RAHEAD,
} from "../block/blk-types.ts";
import type { Inode } from "../fs/fs.ts";
import { IOCB_DONTCACHE, IOCB_NOWAIT, type Kiocb } from "../fs/kiocb.ts";
import { markInodeDirty } from "../fs/inode.ts";
import {
  bitmapClear,
  bitmapSet,
  bitmapWords,
  findNextBit,
  findNextZeroBit,
  testBit,
} from "../lib/bitmap.ts";
import { warnOn, warnOnOnce } from "../lib/bug.ts";
import { EAGAIN, EFAULT, EIO } from "../lib/errno.ts";
import type { IovIter } from "../lib/iov-iter.ts";
import {
  andThen,
  andThenWith,
  type MaybePromise,
  repeatWith,
} from "../lib/maybe-promise.ts";
import {
  type AddressSpace,
  type MappingHost,
  mappingSetError,
  type ReadaheadControl,
} from "../mm/address-space.ts";
import {
  FGP_DONTCACHE,
  FGP_LOCK,
  FGP_NOWAIT,
  FGP_WRITEBEGIN,
  filemapDirtyFolio,
  filemapGetFolio,
  filemapRangeNeedsWriteback,
  filemapWriteAndWaitRange,
  folioCancelDirty,
  folioEndWriteback,
  folioMarkDirty,
  folioStartWriteback,
  mappingSeekHoleData,
  type WritebackIter,
  writebackIter,
} from "../mm/filemap.ts";
import {
  type Folio,
  folioEndRead,
  folioLock,
  folioLockToIo,
  folioMarkAccessed,
  folioMarkUptodate,
  folioPut,
  folioUnlock,
  PAGE_MASK,
  PAGE_SIZE,
} from "../mm/folio.ts";
import { type VmFault, vmfFsError } from "../mm/mmap.ts";
import { balanceDirtyPagesRatelimited } from "../mm/page-writeback.ts";
import {
  pagecacheIsizeExtended,
  truncatePagecacheRange,
} from "../mm/truncate.ts";
import {
  type Iomap,
  IOMAP_DONTCACHE,
  IOMAP_F_NEW,
  IOMAP_F_SIZE_CHANGED,
  IOMAP_F_STALE,
  IOMAP_FAULT,
  IOMAP_HOLE,
  IOMAP_INLINE,
  IOMAP_MAPPED,
  IOMAP_NOWAIT,
  IOMAP_UNSHARE,
  IOMAP_UNWRITTEN,
  IOMAP_WRITE,
  IOMAP_ZERO,
  iomapInlineData,
  iomapInlineDataValid,
  IomapIter,
  iomapIterInit,
  iomapIterRelease,
  iomapIterSrcmap,
  iomapLength,
  type IomapOps,
  IomapReadFolioCtx,
  type IomapReadOps,
  iomapSector,
  iomapWantUnshareIter,
  type IomapWriteOps,
  type IomapWritepageCtx,
} from "./iomap.ts";
import { iomapIterAdvance, iomapIterAdvanceFull, iomapWalk } from "./iter.ts";
import { traceIomapRange, traceIomapReadpage, tracer } from "./trace.ts";

/** State of the blocks of one folio (kernel: `struct iomap_folio_state`). */
class IomapFolioState {
  readonly nrBlocks: number;
  /** Bytes that bios in flight will fill. */
  readBytesPending = 0;
  /** Bytes that bios in flight write, and 1 while more are being added. */
  writeBytesPending = 0;
  /** Bits [0, nrBlocks): uptodate; [nrBlocks, 2 * nrBlocks): dirty. */
  readonly state: Uint32Array;

  constructor(nrBlocks: number) {
    this.nrBlocks = nrBlocks;
    this.state = new Uint32Array(bitmapWords(2 * nrBlocks));
  }
}

function folioState(folio: Folio): IomapFolioState | null {
  return folio.private as IomapFolioState | null;
}

function blocksPerFolio(host: MappingHost, folio: Folio): number {
  return folio.size >> host.blkbits;
}

function ifsUptodate(ifs: IomapFolioState): boolean {
  return findNextZeroBit(ifs.state, ifs.nrBlocks, 0) === ifs.nrBlocks;
}

/** Whether every block is uptodate now. */
function ifsSetRangeUptodate(
  ifs: IomapFolioState,
  blkbits: number,
  off: number,
  len: number,
): boolean {
  const first = off >> blkbits;
  const last = (off + len - 1) >> blkbits;
  bitmapSet(ifs.state, first, last - first + 1);
  return ifsUptodate(ifs);
}

function iomapSetRangeUptodate(
  host: MappingHost,
  folio: Folio,
  off: number,
  len: number,
): void {
  if (folio.uptodate) return;
  const ifs = folioState(folio);
  if (ifs === null || ifsSetRangeUptodate(ifs, host.blkbits, off, len)) {
    folioMarkUptodate(folio);
  }
}

function ifsClearRangeDirty(ifs: IomapFolioState): void {
  bitmapClear(ifs.state, ifs.nrBlocks, ifs.nrBlocks);
}

function ifsSetRangeDirty(
  ifs: IomapFolioState,
  blkbits: number,
  off: number,
  len: number,
): void {
  const first = off >> blkbits;
  const last = (off + len - 1) >> blkbits;
  bitmapSet(ifs.state, ifs.nrBlocks + first, last - first + 1);
}

/** The folio's block state, made if it has none; null if it holds one block. */
function ifsAlloc(host: MappingHost, folio: Folio): IomapFolioState | null {
  const nrBlocks = blocksPerFolio(host, folio);
  const old = folioState(folio);
  if (old !== null || nrBlocks <= 1) return old;
  const ifs = new IomapFolioState(nrBlocks);
  if (folio.uptodate) bitmapSet(ifs.state, 0, nrBlocks);
  if (folio.dirty) bitmapSet(ifs.state, nrBlocks, nrBlocks);
  folio.private = ifs;
  return ifs;
}

function ifsFree(folio: Folio): void {
  const ifs = folioState(folio);
  if (ifs === null) return;
  const pending = ifs.readBytesPending !== 0 || ifs.writeBytesPending !== 0;
  warnOnOnce(pending, "iomap: block state freed while I/O is in flight");
  warnOnOnce(
    ifsUptodate(ifs) !== folio.uptodate,
    "iomap: block state disagrees with the folio",
  );
  folio.private = null;
}

function folioZero(folio: Folio, start: number, end: number): void {
  if (start >= end) return;
  folio.data.fill(0, folio.offset + start, folio.offset + end);
}

// Result of adjustReadRange; used up before anything else can run.
let rangeOff = 0;
let rangeLen = 0;

/**
 * Cuts a range of a folio to its first run of blocks that are not uptodate:
 * `rangeOff` and `rangeLen`, bytes in the folio; `rangeLen` 0 if there is none.
 */
function adjustReadRange(
  host: MappingHost,
  folio: Folio,
  off: number,
  len: number,
): void {
  const { blkbits, size } = host;
  const wanted = Math.min(folio.size, off + len);
  let start = off;
  let end = wanted;
  const ifs = folioState(folio);
  if (ifs !== null) {
    const limit = ((end - 1) >> blkbits) + 1;
    const first = findNextZeroBit(ifs.state, limit, start >> blkbits);
    start = Math.max(start, first << blkbits);
    end = Math.min(end, findNextBit(ifs.state, limit, first) << blkbits);
  }
  // Blocks beyond the end of the file are zeroed, not read: split there.
  const { pos } = folio;
  if (pos + off <= size && pos + wanted > size) {
    const eofEnd = ((((size - 1) & (folio.size - 1)) >> blkbits) + 1) <<
      blkbits;
    if (start < eofEnd) end = Math.min(end, eofEnd);
  }
  // What is valid may go on behind a range that ends within a block.
  rangeOff = Math.min(start, wanted);
  rangeLen = Math.max(0, end - start);
}

function iomapBlockNeedsZeroing(iter: IomapIter, pos: number): boolean {
  const srcmap = iomapIterSrcmap(iter);
  return srcmap.type !== IOMAP_MAPPED || (srcmap.flags & IOMAP_F_NEW) !== 0 ||
    pos >= iter.inode.size;
}

/** Fills a folio from an INLINE mapping; 0 or -EIO. */
function iomapReadInlineData(iter: IomapIter, folio: Folio): number {
  if (folio.uptodate) return 0;
  const iomap = iomapIterSrcmap(iter);
  const size = iter.inode.size - iomap.offset;
  const off = iomap.offset - folio.pos;
  if (
    warnOn(size < 0, "iomap: INLINE begins beyond the end of the file") ||
    warnOn(size > iomap.length, "iomap: INLINE ends before the file") ||
    // What lies beside a folio is somebody else's memory.
    warnOn(off < 0 || off + size > folio.size, "iomap: INLINE in two folios")
  ) return -EIO;
  if (off > 0) ifsAlloc(iter.inode, folio);
  folio.data.set(iomap.inlineData!.subarray(0, size), folio.offset + off);
  folioZero(folio, off + size, folio.size);
  iomapSetRangeUptodate(iter.inode, folio, off, folio.size - off);
  return 0;
}

/**
 * Part of a folio has been read, or could not be (kernel: `iomap_finish_folio_read`).
 * The last part unlocks the folio, and marks it uptodate if all of it is.
 *
 * @param folio Locked; part of it was given to `readFolioRange`.
 * @param off First byte in the folio.
 * @param len Bytes.
 * @param error 0 or a negative errno: then the blocks do not become uptodate.
 */
export function iomapFinishFolioRead(
  folio: Folio,
  off: number,
  len: number,
  error: number,
): void {
  const ifs = folioState(folio);
  if (ifs === null) return folioEndRead(folio, error === 0);
  const { blkbits } = folio.mapping!.host;
  const uptodate = error === 0 && ifsSetRangeUptodate(ifs, blkbits, off, len);
  ifs.readBytesPending -= len;
  if (ifs.readBytesPending === 0) folioEndRead(folio, uptodate);
}

/** The pieces of folios that a bio reads, in its `private`. */
interface ReadSegments {
  folios: Folio[];
  /** Offset in the folio, bytes. */
  offsets: number[];
  lens: number[];
}

function iomapReadEndIo(bio: Bio): void {
  const error = blkStatusToErrno(bio.status);
  const { folios, offsets, lens } = bio.private as ReadSegments;
  for (let i = 0; i < folios.length; i++) {
    iomapFinishFolioRead(folios[i]!, offsets[i]!, lens[i]!, error);
  }
}

function newReadBio(
  iomap: Iomap,
  sector: number,
  ctx: IomapReadFolioCtx,
): Bio {
  const readahead = ctx.rac === null ? 0 : REQ_RAHEAD;
  const bio = new Bio(iomap.bdev!, REQ_OP_READ | readahead);
  const segments: ReadSegments = { folios: [], offsets: [], lens: [] };
  bio.sector = sector;
  bio.private = segments;
  bio.endIo = iomapReadEndIo;
  return bio;
}

/** Has the bio in `ctx.readCtx` fill the range, or another one behind it. */
function iomapBioReadFolioRange(
  iter: IomapIter,
  ctx: IomapReadFolioCtx,
  len: number,
): number {
  const { iomap, pos } = iter;
  const folio = ctx.curFolio!;
  const sector = iomapSector(iomap, pos);
  const off = pos & (folio.size - 1);
  const at = folio.offset + off;
  let bio = ctx.readCtx as Bio | null;
  if (
    bio === null || bio.endSector !== sector ||
    !bio.addData(folio.data, at, len)
  ) {
    if (bio !== null) submitBio(bio);
    ctx.readCtx = bio = newReadBio(iomap, sector, ctx);
    bio.addData(folio.data, at, len);
  }
  const { folios, offsets, lens } = bio.private as ReadSegments;
  folios.push(folio);
  offsets.push(off);
  lens.push(len);
  return 0;
}

function iomapBioSubmitRead(_iter: IomapIter, ctx: IomapReadFolioCtx): void {
  submitBio(ctx.readCtx as Bio);
}

/** Reads by bios, those that follow each other on the device together (kernel:
 * `iomap_bio_read_ops`). */
export const iomapBioReadOps: IomapReadOps = {
  readFolioRange: iomapBioReadFolioRange,
  submitRead: iomapBioSubmitRead,
};

/** Gives [`iter.pos`, `iter.pos + len`) of the folio to the reader: 0 or the negative
 * errno that it answers. */
function handOut(iter: IomapIter, ctx: IomapReadFolioCtx, len: number): number {
  const folio = ctx.curFolio!;
  const ifs = folioState(folio);
  if (ifs !== null) {
    // The folio must not end with its first part, before the last is handed out.
    if (!ctx.biased) ifs.readBytesPending++;
    ctx.biased = true;
    ifs.readBytesPending += len;
  }
  folioLockToIo(folio);
  const error = ctx.ops.readFolioRange(iter, ctx, len);
  if (error === 0) ctx.handedOut = true;
  else if (ifs !== null) ifs.readBytesPending -= len;
  return error;
}

/** Reads or zeroes the first run of blocks of `ctx.curFolio` that needs it. */
function iomapReadRun(iter: IomapIter, ctx: IomapReadFolioCtx): number {
  const folio = ctx.curFolio!;
  const { inode, iomap, pos } = iter;
  if (iomap.type === IOMAP_INLINE) {
    return iomapReadInlineData(iter, folio) || iomapIterAdvanceFull(iter);
  }
  ifsAlloc(inode, folio);
  const start = pos & (folio.size - 1);
  adjustReadRange(inode, folio, start, iomapLength(iter));
  const off = rangeOff;
  const len = rangeLen;
  let ret = iomapIterAdvance(iter, off - start);
  if (ret !== 0 || len === 0) return ret;
  if (iomapBlockNeedsZeroing(iter, iter.pos)) {
    folioZero(folio, off, off + len);
    iomapSetRangeUptodate(inode, folio, off, len);
  } else ret = handOut(iter, ctx, len);
  return ret < 0 ? ret : iomapIterAdvance(iter, len);
}

function iomapReadFolioIter(iter: IomapIter, ctx: IomapReadFolioCtx): number {
  let ret = 0;
  while (ret === 0 && iomapLength(iter) > 0) ret = iomapReadRun(iter, ctx);
  return ret;
}

/** All of `ctx.curFolio` has been looked at: unlocks it, unless a reader will. */
function iomapReadFolioDone(ctx: IomapReadFolioCtx): void {
  const folio = ctx.curFolio!;
  const { handedOut, biased } = ctx;
  ctx.curFolio = null;
  ctx.handedOut = ctx.biased = false;
  if (biased) {
    const ifs = folioState(folio)!;
    if (--ifs.readBytesPending === 0) folioEndRead(folio, ifsUptodate(ifs));
  } else if (!handedOut) folioUnlock(folio);
  // Else it may have been read by now, and be somebody else's.
}

/** What a walk of a buffered read ends with. Always 0. */
function iomapReadEnd(
  _ret: number,
  { iter, ctx }: { iter: IomapIter; ctx: IomapReadFolioCtx },
): number {
  if (ctx.readCtx !== null) ctx.ops.submitRead?.(iter, ctx);
  if (ctx.curFolio !== null) iomapReadFolioDone(ctx);
  return 0;
}

/**
 * Fills a folio; it is unlocked when that is done, uptodate if it succeeded
 * (kernel: `iomap_read_folio`, through bios as by `iomap_bio_read_folio`).
 *
 * @param folio Locked, in a mapping.
 * @param ops Mapping callbacks, called without flags.
 * @returns Always 0: errors leave the folio not uptodate.
 */
export function iomapReadFolio(
  folio: Folio,
  ops: IomapOps,
): MaybePromise<number> {
  const ctx = new IomapReadFolioCtx(iomapBioReadOps, folio, null);
  return iomapReadFolioWith(ops, ctx, null);
}

/**
 * {@linkcode iomapReadFolio} for a file system that reads in its own way (kernel:
 * `iomap_read_folio` as it is after 6.18).
 *
 * @param ops Mapping callbacks, called without flags.
 * @param ctx How to read, and the folio.
 * @param priv For `iter.private`.
 * @returns Always 0: errors leave the folio not uptodate.
 */
export function iomapReadFolioWith(
  ops: IomapOps,
  ctx: IomapReadFolioCtx,
  priv: unknown,
): MaybePromise<number> {
  const folio = ctx.curFolio!;
  const inode = folio.mapping!.host as Inode;
  if (tracer !== null) traceIomapReadpage("iomap_readpage", inode, 1);
  const iter = new IomapIter();
  iomapIterInit(iter, inode, folio.pos, folio.size, 0, "iomap_read_folio");
  iter.private = priv;
  const read = iomapWalk(iter, ops, iomapReadFolioIter, ctx);
  return andThenWith(read, iomapReadEnd, { iter, ctx });
}

function iomapReadaheadIter(iter: IomapIter, ctx: IomapReadFolioCtx): number {
  let ret = 0;
  while (ret === 0 && iomapLength(iter) > 0) {
    const { curFolio } = ctx;
    if (curFolio !== null && (iter.pos & (curFolio.size - 1)) === 0) {
      iomapReadFolioDone(ctx);
    }
    if (ctx.curFolio === null) {
      ctx.curFolio = ctx.rac!.nextFolio();
      const none = ctx.curFolio === null;
      if (warnOnOnce(none, "iomap: readahead window too short")) return -EIO;
    }
    ret = iomapReadRun(iter, ctx);
  }
  return ret;
}

function ignore(): void {}

/**
 * Starts to fill a window of folios (kernel: `iomap_readahead`, through bios as by
 * `iomap_bio_readahead`). Errors are not reported: what was not read is read again
 * when it is used.
 *
 * @param rac Folios that are locked; each is unlocked when it has been read.
 * @param ops Mapping callbacks, called without flags.
 */
export function iomapReadahead(
  rac: ReadaheadControl,
  ops: IomapOps,
): MaybePromise<void> {
  const ctx = new IomapReadFolioCtx(iomapBioReadOps, null, rac);
  return iomapReadaheadWith(ops, ctx, null);
}

/**
 * {@linkcode iomapReadahead} for a file system that reads in its own way (kernel:
 * `iomap_readahead` as it is after 6.18).
 *
 * @param ops Mapping callbacks, called without flags.
 * @param ctx How to read, and the window.
 * @param priv For `iter.private`.
 */
export function iomapReadaheadWith(
  ops: IomapOps,
  ctx: IomapReadFolioCtx,
  priv: unknown,
): MaybePromise<void> {
  const rac = ctx.rac!;
  const inode = rac.mapping.host as Inode;
  const { pos, length } = rac;
  if (tracer !== null) {
    const pages = Math.ceil(length / PAGE_SIZE);
    traceIomapReadpage("iomap_readahead", inode, pages);
  }
  const iter = new IomapIter();
  iomapIterInit(iter, inode, pos, length, 0, "iomap_readahead");
  iter.private = priv;
  blkStartPlug();
  try {
    const read = iomapWalk(iter, ops, iomapReadaheadIter, ctx);
    return andThen(andThenWith(read, iomapReadEnd, { iter, ctx }), ignore);
  } finally {
    blkFinishPlug();
  }
}

/** Reads [pos, pos + len) of a folio and waits: 0 or a negative errno. */
function iomapBioReadFolioRangeSync(
  iter: IomapIter,
  folio: Folio,
  pos: number,
  len: number,
): MaybePromise<number> {
  const srcmap = iomapIterSrcmap(iter);
  const bio = new Bio(srcmap.bdev!, REQ_OP_READ);
  bio.sector = iomapSector(srcmap, pos);
  bio.addData(folio.data, folio.offset + (pos & (folio.size - 1)), len);
  return submitBioWait(bio);
}

/**
 * Whether part of a folio that is not uptodate as a whole can be used (kernel:
 * `iomap_is_partially_uptodate`).
 *
 * @param from First byte in the folio.
 * @param count Bytes; what lies beyond the folio does not count.
 * @returns False for a folio without block state, even if it is uptodate.
 */
export function iomapIsPartiallyUptodate(
  folio: Folio,
  from: number,
  count: number,
): boolean {
  const ifs = folioState(folio);
  if (ifs === null) return false;
  const { blkbits } = folio.mapping!.host;
  const len = Math.min(folio.size - from, count);
  const limit = ((from + len - 1) >> blkbits) + 1;
  return findNextZeroBit(ifs.state, limit, from >> blkbits) === limit;
}

/**
 * Finds or makes the folio that a write at `pos` goes to (kernel: `iomap_get_folio`).
 *
 * @param len Bytes that will be written; a new folio is as large as suits them.
 * @returns The folio, locked and with a reference; -EAGAIN if `iter.flags` has
 *   NOWAIT and it would have to wait; -ENOMEM.
 */
export function iomapGetFolio(
  iter: IomapIter,
  pos: number,
  len: number,
): MaybePromise<Folio | number> {
  let fgp = FGP_WRITEBEGIN;
  if ((iter.flags & IOMAP_NOWAIT) !== 0) fgp |= FGP_NOWAIT;
  if ((iter.flags & IOMAP_DONTCACHE) !== 0) fgp |= FGP_DONTCACHE;
  const index = Math.floor(pos / PAGE_SIZE);
  return filemapGetFolio(iter.inode.mapping, index, fgp, len);
}

/** Lets go of a folio's block state (kernel: `iomap_release_folio`).
 * @returns False if the folio is dirty: the state is still needed. */
export function iomapReleaseFolio(folio: Folio): boolean {
  if (tracer !== null) {
    const inode = folio.mapping!.host as Inode;
    traceIomapRange("iomap_release_folio", inode, folio.pos, folio.size);
  }
  if (folio.dirty) return false;
  ifsFree(folio);
  return true;
}

/** Throws a folio's dirt and block state away if all of it goes; part of it
 * changes nothing (kernel: `iomap_invalidate_folio`). */
export function iomapInvalidateFolio(
  folio: Folio,
  offset: number,
  len: number,
): void {
  if (tracer !== null) {
    const inode = folio.mapping!.host as Inode;
    const pos = folio.pos + offset;
    traceIomapRange("iomap_invalidate_folio", inode, pos, len);
  }
  if (offset !== 0 || len !== folio.size) return;
  warnOnOnce(folio.writeback, "iomap: invalidating a folio under writeback");
  folioCancelDirty(folio);
  ifsFree(folio);
}

/** Marks a folio and all of its blocks dirty (kernel: `iomap_dirty_folio`).
 * @returns True if it was clean. */
export function iomapDirtyFolio(mapping: AddressSpace, folio: Folio): boolean {
  const { host } = mapping;
  const ifs = ifsAlloc(host, folio);
  if (ifs !== null) ifsSetRangeDirty(ifs, host.blkbits, 0, folio.size);
  return filemapDirtyFolio(mapping, folio);
}

/** A write beyond the end of the file failed: what it cached there goes. */
function iomapWriteFailed(
  inode: Inode,
  pos: number,
  len: number,
): MaybePromise<void> {
  if (pos + len <= inode.size) return;
  const start = Math.max(pos, inode.size);
  return truncatePagecacheRange(inode.mapping, start, pos + len - 1);
}

/** What a write, a zeroing or an unsharing keeps across waits. Recycled. */
class FolioWrite {
  readonly iter: IomapIter = new IomapIter();
  writeOps: IomapWriteOps | null = null;
  /** Bytes of this step; the file system's folio may shorten it. */
  bytes = 0;
  /** Locked folio of this step, and where the step begins in it. */
  folio: Folio | null = null;
  offset = 0;
  /** What is still to be looked at of the blocks that the step touches. */
  fillOff = 0;
  fillEnd = 0;
  /** Pairs of start and end in the folio, bytes: runs of blocks that this step has made
   * valid by zeroing them around what it is about to write. */
  readonly zeroed: number[] = [];
  /** What ended the walk through the mapping. */
  status = 0;

  // Writing.
  iocb: Kiocb | null = null;
  from: IovIter | null = null;
  /** Steps end at a multiple of this: the largest folio, less after a short copy. */
  chunk = 0;
  /** Bytes that a short copy could take, to be tried again; else 0. */
  retry = 0;
  /** Whether anything was written under this mapping. */
  progress = false;

  // Zeroing.
  didZero: { value: boolean } | null = null;
  /** Whether dirty cache may lie over holes and unwritten extents. */
  rangeDirty = false;
}

const freeWrites: FolioWrite[] = [];

function folioWriteGet(
  inode: Inode,
  pos: number,
  len: number,
  flags: number,
  caller: string,
  writeOps: IomapWriteOps | null,
): FolioWrite {
  const w = freeWrites.pop() ?? new FolioWrite();
  iomapIterInit(w.iter, inode, pos, len, flags, caller);
  w.writeOps = writeOps;
  w.status = 0;
  return w;
}

function folioWritePut(w: FolioWrite): void {
  iomapIterRelease(w.iter);
  w.writeOps = null;
  w.folio = null;
  w.iocb = null;
  w.from = null;
  w.didZero = null;
  freeWrites.push(w);
}

/**
 * Makes every block valid that the step will leave valid only in part: reads or
 * zeroes each run of blocks that is not uptodate and that the step begins or ends
 * within. 0 or a negative errno.
 */
function writeBeginBlocks(w: FolioWrite): MaybePromise<number> {
  const { iter, offset } = w;
  const { inode } = iter;
  const folio = w.folio!;
  w.zeroed.length = 0;
  const unshare = (iter.flags & IOMAP_UNSHARE) !== 0;
  if (!unshare && offset === 0 && w.bytes === folio.size) return 0;
  ifsAlloc(inode, folio);
  if (folio.uptodate) return 0;
  const bs = 1 << inode.blkbits;
  w.fillOff = offset & -bs;
  w.fillEnd = (offset + w.bytes + bs - 1) & -bs;
  return fillBlocks(w);
}

function fillBlocks(w: FolioWrite): MaybePromise<number> {
  const { iter } = w;
  const folio = w.folio!;
  while (w.fillOff < w.fillEnd) {
    const len = w.fillEnd - w.fillOff;
    adjustReadRange(iter.inode, folio, w.fillOff, len);
    if (rangeLen === 0) return 0;
    w.fillOff = rangeOff + rangeLen;
    const status = fillRun(w, folio, rangeOff, rangeLen);
    if (status instanceof Promise) return andThenWith(status, filled, w);
    if (status !== 0) return status;
  }
  return 0;
}

function filled(status: number, w: FolioWrite): MaybePromise<number> {
  return status !== 0 ? status : fillBlocks(w);
}

function fillRun(
  w: FolioWrite,
  folio: Folio,
  off: number,
  len: number,
): MaybePromise<number> {
  const { iter, offset } = w;
  const { inode } = iter;
  const end = off + len;
  const writeEnd = offset + w.bytes;
  const unshare = (iter.flags & IOMAP_UNSHARE) !== 0;
  const beginsInside = off < offset && offset < end;
  const endsInside = off < writeEnd && writeEnd < end;
  if (!unshare && !beginsInside && !endsInside) return 0;
  const pos = folio.pos + off;
  if (iomapBlockNeedsZeroing(iter, pos)) {
    if (warnOnOnce(unshare, "iomap: unsharing what holds no data")) return -EIO;
    folioZero(folio, off, Math.min(offset, end));
    folioZero(folio, Math.max(writeEnd, off), end);
    iomapSetRangeUptodate(inode, folio, off, len);
    w.zeroed.push(off, end);
    return 0;
  }
  if ((iter.flags & IOMAP_NOWAIT) !== 0) return -EAGAIN;
  const read = w.writeOps?.readFolioRange
    ? w.writeOps.readFolioRange(iter, folio, pos, len)
    : iomapBioReadFolioRangeSync(iter, folio, pos, len);
  return andThen(read, (error) => {
    if (error === 0) iomapSetRangeUptodate(inode, folio, off, len);
    return error;
  });
}

/**
 * Takes the folio at `w.iter.pos` and makes it ready to be written `w.bytes` of,
 * or as many as it holds: then `w.folio`, `w.offset` and `w.bytes` are set.
 *
 * @returns 0 or a negative errno. 0 without a folio and with F_STALE set in the
 *   mapping: it has to be obtained again.
 */
function iomapWriteBegin(w: FolioWrite): MaybePromise<number> {
  const { iter, writeOps } = w;
  const { pos } = iter;
  let len = Math.min(w.bytes, iomapLength(iter));
  if (iter.inode.mapping.maxOrder === 0) {
    len = Math.min(len, PAGE_SIZE - (pos & PAGE_MASK));
  }
  w.bytes = len;
  const folio = writeOps?.getFolio
    ? writeOps.getFolio(iter, pos, len)
    : iomapGetFolio(iter, pos, len);
  return andThenWith(folio, writeBeginFolio, w);
}

function writeBeginFolio(
  folio: Folio | number,
  w: FolioWrite,
): MaybePromise<number> {
  if (typeof folio === "number") return folio;
  const { iter, writeOps } = w;
  const { iomap } = iter;
  w.folio = folio;
  // Writeback may have changed what the mapping says until the lock was held.
  if (writeOps?.iomapValid && !writeOps.iomapValid(iter.inode, iomap)) {
    iomap.flags |= IOMAP_F_STALE;
    iomapPutFolio(w, 0);
    return 0;
  }
  w.offset = iter.pos & (folio.size - 1);
  w.bytes = Math.min(w.bytes, folio.size - w.offset);
  const prepared = iomapIterSrcmap(iter).type === IOMAP_INLINE
    ? iomapWriteBeginInline(iter, folio)
    : writeBeginBlocks(w);
  return prepared === 0 ? 0 : andThenWith(prepared, writeBeginEnd, w);
}

function writeBeginEnd(status: number, w: FolioWrite): number {
  if (status !== 0) iomapPutFolio(w, 0);
  return status;
}

function iomapWriteBeginInline(iter: IomapIter, folio: Folio): number {
  const atStart = iomapIterSrcmap(iter).offset === 0;
  if (warnOnOnce(!atStart, "iomap: INLINE that does not begin the file")) {
    return -EIO;
  }
  return iomapReadInlineData(iter, folio);
}

function iomapPutFolio(w: FolioWrite, copied: number): void {
  const folio = w.folio!;
  w.folio = null;
  if (w.writeOps?.putFolio) {
    w.writeOps.putFolio(w.iter.inode, w.iter.pos, copied, folio);
  } else {
    folioUnlock(folio);
    folioPut(folio);
  }
}

/**
 * Zeroes what a short copy has left out of blocks that were zeroed around it: their
 * memory holds what it was last used for, and they are valid already. The kernel does
 * not, and shows it to the file's readers.
 */
function zeroBehindShortCopy(w: FolioWrite, copied: number): void {
  const { zeroed, offset, bytes } = w;
  const folio = w.folio!;
  for (let i = 0; i < zeroed.length; i += 2) {
    const from = Math.max(zeroed[i]!, offset + copied);
    folioZero(folio, from, Math.min(zeroed[i + 1]!, offset + bytes));
  }
}

/** Marks what was copied of the step valid and dirty; false: none of it counts. */
function iomapWriteEnd(w: FolioWrite, copied: number): boolean {
  const { iter, offset, bytes } = w;
  const folio = w.folio!;
  const { inode } = iter;
  if (iomapIterSrcmap(iter).type === IOMAP_INLINE) {
    return iomapWriteEndInline(iter, folio, copied);
  }
  if (copied < bytes) {
    zeroBehindShortCopy(w, copied);
    // What has not been filled in skipped the part that was to be copied.
    if (copied === 0 || !folio.uptodate) return false;
  }
  iomapSetRangeUptodate(inode, folio, offset, bytes);
  const ifs = folioState(folio);
  if (ifs !== null) ifsSetRangeDirty(ifs, inode.blkbits, offset, copied);
  filemapDirtyFolio(inode.mapping, folio);
  return true;
}

function iomapWriteEndInline(
  iter: IomapIter,
  folio: Folio,
  copied: number,
): boolean {
  const { iomap, pos } = iter;
  const { uptodate } = folio;
  const inline = iomapInlineDataValid(iomap);
  if (
    warnOn(!uptodate, "iomap: INLINE written to a folio not uptodate") ||
    warnOn(!inline, "iomap: INLINE is the source of a write that is not")
  ) return false;
  const at = folio.offset + (pos & (folio.size - 1));
  iomapInlineData(iomap, pos).set(folio.data.subarray(at, at + copied));
  markInodeDirty(iter.inode);
  return true;
}

function iomapWriteIter(iter: IomapIter, w: FolioWrite): MaybePromise<number> {
  w.chunk = PAGE_SIZE << iter.inode.mapping.maxOrder;
  w.retry = 0;
  w.status = 0;
  w.progress = false;
  return andThenWith(repeatWith(writeStep, w), writeIterStatus, w);
}

function writeIterStatus(_: void, w: FolioWrite): number {
  return w.progress ? 0 : w.status;
}

/** Writes to one folio; false if the walk through this mapping is over. */
function writeStep(w: FolioWrite): MaybePromise<boolean> {
  const { iter, chunk } = w;
  const toChunkEnd = chunk - (iter.pos & (chunk - 1));
  const wanted = w.retry > 0 ? w.retry : w.from!.count;
  w.bytes = Math.min(wanted, toChunkEnd);
  const nowait = (iter.flags & IOMAP_NOWAIT) !== 0;
  const paced = balanceDirtyPagesRatelimited(iter.inode.mapping, nowait);
  return andThenWith(paced, writePaced, w);
}

function writePaced(error: number, w: FolioWrite): MaybePromise<boolean> {
  // Before the folio is locked: what is not there must not be made or read for.
  if (error === 0 && !w.from!.readable) error = -EFAULT;
  if (error !== 0) {
    w.status = error;
    return false;
  }
  return andThenWith(iomapWriteBegin(w), writeBegun, w);
}

function writeBegun(error: number, w: FolioWrite): MaybePromise<boolean> {
  const { iter } = w;
  const { inode, iomap, pos } = iter;
  if (error !== 0) return writeStop(w, error);
  if ((iomap.flags & IOMAP_F_STALE) !== 0) return false;
  const folio = w.folio!;
  const at = folio.offset + w.offset;
  const copied = w.from!.copyFrom(folio.data, at, w.bytes);
  const written = iomapWriteEnd(w, copied) ? copied : 0;
  const oldSize = inode.size;
  // Before the folio is unlocked, or writeback takes its tail for beyond the end.
  if (pos + written > oldSize) {
    inode.size = pos + written;
    iomap.flags |= IOMAP_F_SIZE_CHANGED;
  }
  iomapPutFolio(w, written);
  if (oldSize < pos) pagecacheIsizeExtended(inode.mapping, oldSize, pos);
  if (written === 0) return writeShort(w, copied);
  w.retry = 0;
  w.progress = true;
  iter.pos += written;
  iter.len -= written;
  return w.from!.count > 0 && iomapLength(iter) > 0;
}

/** Ends the walk through the mapping with a status. */
function writeStop(w: FolioWrite, error: number): MaybePromise<boolean> {
  w.status = error;
  const dropped = iomapWriteFailed(w.iter.inode, w.iter.pos, w.bytes);
  return dropped instanceof Promise ? dropped.then(stop) : false;
}

function stop(): boolean {
  return false;
}

/** The caller's memory gave less than the folio needs: tries with what it gave. */
function writeShort(w: FolioWrite, copied: number): MaybePromise<boolean> {
  // It went while the folio was waited for.
  if (copied === 0) return writeStop(w, -EFAULT);
  w.from!.revert(copied);
  // More of the same would not help.
  if (copied === w.bytes) return writeStop(w, -EIO);
  if (w.chunk > PAGE_SIZE) w.chunk /= 2;
  w.retry = copied;
  const dropped = iomapWriteFailed(w.iter.inode, w.iter.pos, w.bytes);
  return dropped instanceof Promise ? dropped.then(() => true) : true;
}

/**
 * Writes to the page cache (kernel: `iomap_file_buffered_write`).
 *
 * The caller holds `inode.rwsem` exclusively, has done the checks of write(2), and
 * has zeroed from the end of the file to `iocb.pos`. Nothing is made durable here.
 *
 * @param iocb `iocb.pos` moves by what was written; NOWAIT and DONTCACHE count.
 * @param from Where the bytes come from; moves as well.
 * @param ops Mapping callbacks, called with WRITE.
 * @param writeOps Hooks, or null.
 * @param priv For `iter.private`.
 * @returns Bytes written, if any; else a negative errno: of `ops`, of reading a
 *   block that is written in part; -EAGAIN where NOWAIT would have to wait;
 *   -EFAULT if the caller's memory cannot be read.
 */
export function iomapFileBufferedWrite(
  iocb: Kiocb,
  from: IovIter,
  ops: IomapOps,
  writeOps: IomapWriteOps | null,
  priv: unknown,
): MaybePromise<number> {
  let flags = IOMAP_WRITE;
  if ((iocb.flags & IOCB_NOWAIT) !== 0) flags |= IOMAP_NOWAIT;
  if ((iocb.flags & IOCB_DONTCACHE) !== 0) flags |= IOMAP_DONTCACHE;
  const w = folioWriteGet(
    iocb.file.inode,
    iocb.pos,
    from.count,
    flags,
    "iomap_file_buffered_write",
    writeOps,
  );
  w.iter.private = priv;
  w.iocb = iocb;
  w.from = from;
  return andThenWith(iomapWalk(w.iter, ops, iomapWriteIter, w), writeEnd, w);
}

function writeEnd(ret: number, w: FolioWrite): number {
  const iocb = w.iocb!;
  const done = w.iter.pos - iocb.pos;
  folioWritePut(w);
  if (done === 0) return ret;
  iocb.pos += done;
  return done;
}

/** Takes a reservation back: only delalloc, and without locking a folio. */
export type IomapPunch = (
  inode: Inode,
  offset: number,
  length: number,
  iomap: Iomap,
) => void;

/** State of one {@linkcode iomapWriteDelallocRelease}; offsets in bytes. */
class DelallocScan {
  readonly inode: Inode;
  readonly iomap: Iomap;
  readonly punch: IomapPunch;
  /** All before is settled. */
  punchFrom: number;
  /** Position in the cached range that ends at `dataEnd`. */
  pos: number;
  dataEnd: number;
  readonly scanEnd: number;

  constructor(
    inode: Inode,
    start: number,
    scanEnd: number,
    iomap: Iomap,
    punch: IomapPunch,
  ) {
    this.inode = inode;
    this.iomap = iomap;
    this.punch = punch;
    this.punchFrom = this.pos = this.dataEnd = start;
    this.scanEnd = scanEnd;
  }
}

function scanFolio(scan: DelallocScan, folio: Folio): void {
  const { inode, iomap, pos, punchFrom } = scan;
  const { blkbits } = inode;
  const end = Math.min(scan.dataEnd, folio.pos + folio.size);
  if (pos > punchFrom) scan.punch(inode, punchFrom, pos - punchFrom, iomap);
  // The block that the file ends in is dirty as a whole: the kernel goes on from the
  // end of the file, and a punch that rounds down takes that block's space.
  scan.punchFrom = Math.ceil(end / 2 ** blkbits) * 2 ** blkbits;
  const ifs = folioState(folio);
  if (ifs === null) return;
  const last = (end - 1 - folio.pos) >> blkbits;
  for (let i = (pos - folio.pos) >> blkbits; i <= last; i++) {
    if (testBit(ifs.state, ifs.nrBlocks + i)) continue;
    scan.punch(inode, folio.pos + i * 2 ** blkbits, 2 ** blkbits, iomap);
  }
}

/** Looks at the next folio of what is cached; false at the end. */
function scanStep(scan: DelallocScan): MaybePromise<boolean> {
  const { mapping } = scan.inode;
  const { scanEnd } = scan;
  if (scan.pos >= scan.dataEnd) {
    const data = mappingSeekHoleData(mapping, scan.dataEnd, scanEnd, true);
    if (data < 0 || data >= scanEnd) return false;
    scan.pos = data;
    scan.dataEnd = mappingSeekHoleData(mapping, data, scanEnd, false);
  }
  const index = Math.floor(scan.pos / PAGE_SIZE);
  const folio = filemapGetFolio(mapping, index, FGP_LOCK, 0);
  return andThenWith(folio, scanLocked, scan);
}

function scanLocked(folio: Folio | number, scan: DelallocScan): boolean {
  if (typeof folio === "number") {
    scan.pos = (Math.floor(scan.pos / PAGE_SIZE) + 1) * PAGE_SIZE;
    return true;
  }
  if (folio.dirty) scanFolio(scan, folio);
  scan.pos = folio.pos + folio.size;
  folioUnlock(folio);
  folioPut(folio);
  return true;
}

function scanEnded(end: number, scan: DelallocScan): void {
  const { inode, punchFrom, iomap } = scan;
  if (punchFrom < end) scan.punch(inode, punchFrom, end - punchFrom, iomap);
}

/**
 * Gives reservations back that a short write did not use: all but those under
 * dirty blocks inside the end of the file (kernel: `iomap_write_delalloc_release`).
 *
 * For `iomapEnd`, where the mapping is DELALLOC and NEW. The caller holds
 * `mapping.invalidateLock` exclusively.
 *
 * @param start End of the last block written, `iomapLastWrittenBlock`.
 * @param end End of the reservation, rounded up to a block.
 * @param _flags `IOMAP_WRITE` and so on.
 * @param punch Called for each range to give back, folios locked or not.
 */
export function iomapWriteDelallocRelease(
  inode: Inode,
  start: number,
  end: number,
  _flags: number,
  iomap: Iomap,
  punch: IomapPunch,
): MaybePromise<void> {
  const scanEnd = Math.min(inode.size, end);
  const scan = new DelallocScan(inode, start, scanEnd, iomap, punch);
  const scanned = start < scanEnd ? repeatWith(scanStep, scan) : undefined;
  return andThen(scanned, () => scanEnded(end, scan));
}

function iomapUnshareIter(
  iter: IomapIter,
  w: FolioWrite,
): MaybePromise<number> {
  w.status = 0;
  if (!iomapWantUnshareIter(iter)) return iomapIterAdvanceFull(iter);
  return andThenWith(repeatWith(unshareStep, w), stepStatus, w);
}

function stepStatus(_: void, w: FolioWrite): number {
  return w.status;
}

function unshareStep(w: FolioWrite): MaybePromise<boolean> {
  w.bytes = iomapLength(w.iter);
  return andThenWith(iomapWriteBegin(w), unshareBegun, w);
}

function unshareBegun(error: number, w: FolioWrite): MaybePromise<boolean> {
  const { iter } = w;
  w.status = error;
  if (error !== 0 || (iter.iomap.flags & IOMAP_F_STALE) !== 0) return false;
  const { bytes } = w;
  if (!rewriteFolio(w)) return false;
  iomapIterAdvance(iter, bytes);
  const paced = balanceDirtyPagesRatelimited(iter.inode.mapping, false);
  return andThenWith(paced, stepMore, w);
}

function stepMore(_: number, w: FolioWrite): boolean {
  return iomapLength(w.iter) > 0;
}

/** Dirties the step's bytes as they are in the folio, and puts it. */
function rewriteFolio(w: FolioWrite): boolean {
  const { bytes } = w;
  const done = iomapWriteEnd(w, bytes);
  iomapPutFolio(w, bytes);
  if (warnOnOnce(!done, "iomap: a whole write to the cache failed")) {
    w.status = -EIO;
  }
  return done;
}

/**
 * Makes shared blocks dirty in the cache, so that writeback gives the file its own
 * (kernel: `iomap_file_unshare`). The caller holds `inode.rwsem` and
 * `mapping.invalidateLock` exclusively, and writes back afterwards.
 *
 * @param pos Bytes; what lies beyond the end of the file is left alone.
 * @param ops Mapping callbacks, called with WRITE and UNSHARE.
 * @returns 0 or a negative errno.
 */
export function iomapFileUnshare(
  inode: Inode,
  pos: number,
  len: number,
  ops: IomapOps,
  writeOps: IomapWriteOps | null,
): MaybePromise<number> {
  if (pos < 0 || pos >= inode.size) return 0;
  const w = folioWriteGet(
    inode,
    pos,
    Math.min(len, inode.size - pos),
    IOMAP_WRITE | IOMAP_UNSHARE,
    "iomap_file_unshare",
    writeOps,
  );
  return andThenWith(iomapWalk(w.iter, ops, iomapUnshareIter, w), walked, w);
}

function walked(ret: number, w: FolioWrite): number {
  folioWritePut(w);
  return ret;
}

/** Zeroes under any mapping, through the cache. */
function iomapZeroIter(iter: IomapIter, w: FolioWrite): MaybePromise<number> {
  w.status = 0;
  if (iomapLength(iter) === 0) return 0;
  return andThenWith(repeatWith(zeroStep, w), stepStatus, w);
}

function zeroStep(w: FolioWrite): MaybePromise<boolean> {
  w.bytes = iomapLength(w.iter);
  return andThenWith(iomapWriteBegin(w), zeroBegun, w);
}

function zeroBegun(error: number, w: FolioWrite): boolean {
  const { iter } = w;
  w.status = error;
  if (error !== 0) return false;
  if ((iter.iomap.flags & IOMAP_F_STALE) === 0) {
    const { offset, bytes } = w;
    const folio = w.folio!;
    const beyond = folio.pos > iter.inode.size;
    warnOnOnce(beyond, "iomap: zeroing a folio beyond the end of the file");
    if (tracer !== null) {
      const pos = folio.pos + offset;
      traceIomapRange("iomap_zero_iter", iter.inode, pos, bytes);
    }
    folioZero(folio, offset, offset + bytes);
    folioMarkAccessed(folio);
    if (!rewriteFolio(w)) return false;
    iomapIterAdvance(iter, bytes);
    if (iomapLength(iter) > 0) return true;
  }
  if (w.didZero !== null) w.didZero.value = true;
  return false;
}

/** Dirty cache over a hole or an unwritten extent: write it back and look again. */
function iomapZeroIterFlushAndStale(iter: IomapIter): MaybePromise<number> {
  iter.iomap.flags |= IOMAP_F_STALE;
  const last = iter.pos + iter.len - 1;
  return filemapWriteAndWaitRange(iter.inode.mapping, iter.pos, last);
}

function iomapZeroRangeIter(
  iter: IomapIter,
  w: FolioWrite,
): MaybePromise<number> {
  const { type } = iomapIterSrcmap(iter);
  if (type !== IOMAP_HOLE && type !== IOMAP_UNWRITTEN) {
    return iomapZeroIter(iter, w);
  }
  if (!w.rangeDirty) return iomapIterAdvanceFull(iter);
  w.rangeDirty = false;
  return iomapZeroIterFlushAndStale(iter);
}

/**
 * Zeroes what holds data in a range, through the cache: holes and clean unwritten
 * extents are left alone (kernel: `iomap_zero_range`).
 *
 * The caller holds `inode.rwsem` and `mapping.invalidateLock` exclusively. i_size
 * stays as it is.
 *
 * @param pos Bytes.
 * @param didZero `value` becomes true if anything was zeroed; null if nobody asks.
 * @param ops Mapping callbacks, called with ZERO.
 * @param writeOps Hooks, or null.
 * @param priv For `iter.private`.
 * @returns 0 or a negative errno: of `ops`, of reading a block that is zeroed in
 *   part, or of writing back dirty cache.
 */
export function iomapZeroRange(
  inode: Inode,
  pos: number,
  len: number,
  didZero: { value: boolean } | null,
  ops: IomapOps,
  writeOps: IomapWriteOps | null,
  priv: unknown,
): MaybePromise<number> {
  const caller = "iomap_zero_range";
  const w = folioWriteGet(inode, pos, len, IOMAP_ZERO, caller, writeOps);
  const { iter } = w;
  iter.private = priv;
  w.didZero = didZero;
  const bs = 1 << inode.blkbits;
  const off = pos & (bs - 1);
  const first = Math.min(len, bs - off);
  // Writing back and remapping the whole range for the dirty rest of a block
  // would make every extending write wait.
  if (off === 0 || !iterNeedsWriteback(iter, first)) return zeroRest(w, ops);
  iter.len = first;
  return andThen(iomapWalk(iter, ops, iomapZeroIter, w), (ret) => {
    iter.len = len - (iter.pos - pos);
    return ret !== 0 || iter.len === 0 ? walked(ret, w) : zeroRest(w, ops);
  });
}

function iterNeedsWriteback(iter: IomapIter, len: number): boolean {
  const last = iter.pos + len - 1;
  return filemapRangeNeedsWriteback(iter.inode.mapping, iter.pos, last);
}

function zeroRest(w: FolioWrite, ops: IomapOps): MaybePromise<number> {
  w.rangeDirty = iterNeedsWriteback(w.iter, w.iter.len);
  return andThenWith(iomapWalk(w.iter, ops, iomapZeroRangeIter, w), walked, w);
}

/**
 * Zeroes from `pos` to the end of its block (kernel: `iomap_truncate_page`).
 *
 * @param pos Bytes; at the start of a block nothing is done.
 * @returns As {@linkcode iomapZeroRange}.
 */
export function iomapTruncatePage(
  inode: Inode,
  pos: number,
  didZero: { value: boolean } | null,
  ops: IomapOps,
  writeOps: IomapWriteOps | null,
  priv: unknown,
): MaybePromise<number> {
  const bs = 1 << inode.blkbits;
  const off = pos & (bs - 1);
  if (off === 0) return 0;
  return iomapZeroRange(inode, pos, bs - off, didZero, ops, writeOps, priv);
}

/** (kernel: `iomap_folio_mkwrite_iter`) */
function iomapFolioMkwriteIter(iter: IomapIter, folio: Folio): number {
  warnOnOnce(!folio.uptodate, "iomap: a store to a folio that is not uptodate");
  folioMarkDirty(folio);
  return iomapIterAdvanceFull(iter);
}

/** Bytes of a locked folio that are in the file; -EFAULT if none is, or if it has left
 * the file (kernel: `folio_mkwrite_check_truncate`). */
function folioMkwriteCheckTruncate(folio: Folio, inode: Inode): number {
  if (folio.mapping !== inode.mapping || folio.pos >= inode.size) {
    return -EFAULT;
  }
  return Math.min(folio.size, inode.size - folio.pos);
}

/**
 * A page that a mapping shows is about to be stored to: gets it space, and marks all
 * blocks of its folio dirty (kernel: `iomap_page_mkwrite`).
 *
 * The caller holds `mapping.invalidateLock` shared, and has updated the file's times.
 * Whether the mapping is still valid is not asked: nothing is copied here.
 *
 * @param vmf `vmf.folio` is not locked.
 * @param ops Mapping callbacks, called with WRITE and FAULT for what of the folio is in
 *   the file.
 * @param priv For `iter.private`.
 * @returns `VM_FAULT_LOCKED`, with the folio locked; else it is not: `VM_FAULT_NOPAGE`
 *   if it is beyond the end of the file or no longer part of it; `vmfFsError` of the
 *   negative errno of `ops`.
 */
export function iomapPageMkwrite(
  vmf: VmFault,
  ops: IomapOps,
  priv: unknown,
): MaybePromise<number> {
  const folio = vmf.folio!;
  const inode = vmf.vma.mapping.host as Inode;
  return andThen(folioLock(folio), () => {
    const len = folioMkwriteCheckTruncate(folio, inode);
    const walked = len < 0 ? len : mkwriteWalk(folio, inode, len, ops, priv);
    return andThen(walked, (error) => {
      if (error < 0) folioUnlock(folio);
      return vmfFsError(error);
    });
  });
}

function mkwriteWalk(
  folio: Folio,
  inode: Inode,
  len: number,
  ops: IomapOps,
  priv: unknown,
): MaybePromise<number> {
  const iter = new IomapIter();
  const flags = IOMAP_WRITE | IOMAP_FAULT;
  iomapIterInit(iter, inode, folio.pos, len, flags, "iomap_page_mkwrite");
  iter.private = priv;
  return iomapWalk(iter, ops, iomapFolioMkwriteIter, folio);
}

/** Bytes of a folio under writeback go into a bio (kernel: `iomap_start_folio_write`). */
export function iomapStartFolioWrite(
  inode: Inode,
  folio: Folio,
  len: number,
): void {
  const ifs = folioState(folio);
  const stateless = ifs === null && blocksPerFolio(inode, folio) > 1;
  warnOnOnce(stateless, "iomap: writeback of a folio without block state");
  if (ifs !== null) ifs.writeBytesPending += len;
}

/** Bytes of a folio have been written, or not (kernel: `iomap_finish_folio_write`). */
export function iomapFinishFolioWrite(
  _inode: Inode,
  folio: Folio,
  len: number,
): void {
  const ifs = folioState(folio);
  if (ifs !== null) ifs.writeBytesPending -= len;
  if (ifs === null || ifs.writeBytesPending === 0) folioEndWriteback(folio);
}

/** State of one {@linkcode iomapWritebackFolio}; offsets in the file, bytes. */
class FolioWriteback {
  readonly wpc: IomapWritepageCtx;
  readonly folio: Folio;
  /** End of what counts of the folio: its own, or the file's. */
  readonly endPos: number;
  /** Current run of dirty blocks. */
  pos: number;
  left = 0;
  /** Whether a bio ends the folio's writeback. */
  pending = false;
  error = 0;

  constructor(wpc: IomapWritepageCtx, folio: Folio, endPos: number) {
    this.wpc = wpc;
    this.folio = folio;
    this.pos = folio.pos;
    this.endPos = endPos;
  }
}

/** Moves on to the next run of dirty blocks; false if there is none. */
function findDirtyRange(fw: FolioWriteback): boolean {
  const { folio, pos } = fw;
  const { blkbits } = fw.wpc.inode;
  const bs = 2 ** blkbits;
  const end = Math.ceil((fw.endPos - folio.pos) / bs);
  const ifs = folioState(folio);
  let first = (pos - folio.pos) / bs;
  let last = end;
  if (ifs !== null) {
    const base = ifs.nrBlocks;
    first = findNextBit(ifs.state, base + end, base + first) - base;
    last = findNextZeroBit(ifs.state, base + end, base + first) - base;
  }
  fw.pos = folio.pos + first * bs;
  fw.left = (last - first) * bs;
  return first < end;
}

/**
 * Where a folio's writeback ends, bytes; zeroes the memory beyond the end of the
 * file, which a mapping may have stored to. -1 if all of it is beyond.
 */
function iomapWritebackHandleEof(folio: Folio, inode: Inode): number {
  const { pos, size } = folio;
  if (pos + size <= inode.size) return pos + size;
  if (pos >= inode.size) return -1;
  folioZero(folio, inode.size - pos, size);
  return inode.size;
}

function writebackStep(fw: FolioWriteback): MaybePromise<boolean> {
  if (fw.left === 0 && !findDirtyRange(fw)) return false;
  const { wpc, folio, pos, left, endPos } = fw;
  const handled = wpc.ops.writebackRange(wpc, folio, pos, left, endPos);
  return andThenWith(handled, rangeHandled, fw);
}

function rangeHandled(handled: number, fw: FolioWriteback): boolean {
  const right = handled < 0 || handled > 0 && handled <= fw.left;
  if (warnOnOnce(!right, "iomap: writebackRange took nothing, or too much")) {
    handled = -EIO;
  }
  if (handled < 0) {
    fw.error = handled;
    return false;
  }
  if (fw.wpc.iomap.type !== IOMAP_HOLE) fw.pending = true;
  fw.pos += handled;
  fw.left -= handled;
  return true;
}

function writebackFolioEnd(_: void, fw: FolioWriteback): number {
  const { wpc, folio, error } = fw;
  if (fw.pending) wpc.nrFolios++;
  const ifs = folioState(folio);
  if (ifs !== null) {
    ifsClearRangeDirty(ifs);
    if (--ifs.writeBytesPending === 0) folioEndWriteback(folio);
  } else if (!fw.pending) folioEndWriteback(folio);
  mappingSetError(wpc.inode.mapping, error);
  return error;
}

/**
 * Writes a folio's dirty blocks back (kernel: `iomap_writeback_folio`). What
 * happens to the I/O shows when `folio.writeback` ends.
 *
 * @param folio Locked, its dirty flag cleared for this, not under writeback.
 * @returns 0 or a negative errno of `wpc.ops.writebackRange`, which is recorded
 *   for fsync; -EIO if that took nothing or too much. The folio is clean after all.
 */
export function iomapWritebackFolio(
  wpc: IomapWritepageCtx,
  folio: Folio,
): MaybePromise<number> {
  const { inode } = wpc;
  const ready = folio.locked && !folio.dirty && !folio.writeback;
  warnOnOnce(!ready, "iomap: writeback of a folio that is not ready for it");
  if (tracer !== null) {
    traceIomapRange("iomap_writeback_folio", inode, folio.pos, folio.size);
  }
  const endPos = iomapWritebackHandleEof(folio, inode);
  if (endPos < 0) return 0;
  let ifs = folioState(folio);
  if (ifs === null && blocksPerFolio(inode, folio) > 1) {
    ifs = ifsAlloc(inode, folio)!;
    ifsSetRangeDirty(ifs, inode.blkbits, 0, endPos - folio.pos);
  }
  if (ifs !== null) {
    const inFlight = ifs.writeBytesPending !== 0;
    warnOnOnce(inFlight, "iomap: writeback before the last one has ended");
    // Or the writeback would end with the first bio, before all are submitted.
    ifs.writeBytesPending++;
  }
  folioStartWriteback(folio);
  const fw = new FolioWriteback(wpc, folio, endPos);
  return andThenWith(repeatWith(writebackStep, fw), writebackFolioEnd, fw);
}

/** State of one {@linkcode iomapWritepages}. */
class WritepagesWalk {
  readonly wpc: IomapWritepageCtx;
  readonly folios: WritebackIter;
  folio: Folio | null = null;
  /** Of the last folio. */
  error = 0;

  constructor(wpc: IomapWritepageCtx, folios: WritebackIter) {
    this.wpc = wpc;
    this.folios = folios;
  }
}

function writepagesStep(walk: WritepagesWalk): MaybePromise<boolean> {
  return andThenWith(walk.folios.next(walk.error), writepagesFolio, walk);
}

function writepagesFolio(
  folio: Folio | null,
  walk: WritepagesWalk,
): MaybePromise<boolean> {
  if (folio === null) return false;
  walk.folio = folio;
  return andThenWith(
    iomapWritebackFolio(walk.wpc, folio),
    writepagesFolioEnd,
    walk,
  );
}

function writepagesFolioEnd(error: number, walk: WritepagesWalk): boolean {
  const folio = walk.folio!;
  walk.error = error;
  folioUnlock(folio);
  folioPut(folio);
  return true;
}

function writepagesEnd(_: void, walk: WritepagesWalk): MaybePromise<number> {
  const { wpc } = walk;
  const { error } = walk.folios;
  return wpc.wbCtx === null ? error : wpc.ops.writebackSubmit(wpc, error);
}

/**
 * Writes the dirty folios of `wpc.wbc`'s range back (kernel: `iomap_writepages`).
 *
 * @param wpc Made for this call.
 * @returns 0 or a negative errno: the first where `wbc.syncAll` is set, else the
 *   one that ended it. With an error the pending ioend fails, too. -EIO, with nothing
 *   written, where reclaim calls it, which may have run out of stack.
 */
export function iomapWritepages(wpc: IomapWritepageCtx): MaybePromise<number> {
  const { reclaiming } = wpc.inode.mapping.mm;
  if (warnOnOnce(reclaiming, "iomap: writeback from within reclaim")) {
    return -EIO;
  }
  const folios = writebackIter(wpc.inode.mapping, wpc.wbc);
  const walk = new WritepagesWalk(wpc, folios);
  blkStartPlug();
  try {
    return andThenWith(repeatWith(writepagesStep, walk), writepagesEnd, walk);
  } finally {
    blkFinishPlug();
  }
}
