/**
 * Ioends: one bio of writeback, with what has to happen when it is done.
 *
 * `size` ends at the end of the file as it was at submission, though the bio goes
 * on to the end of the block: the on-disk size must not pass what was written.
 *
 * Kernel counterpart: fs/iomap/ioend.c.
 *
 * @module
 */

import { Bio, bioEndIo, bioSplit, submitBio } from "../block/bio.ts";
import { bioSplitRwAt } from "../block/blk-merge.ts";
import {
  blkStatusToErrno,
  errnoToBlkStatus,
  REQ_BACKGROUND,
  REQ_OP_WRITE,
  REQ_SYNC,
  SECTOR_SIZE,
} from "../block/blk-types.ts";
import type { Inode } from "../fs/fs.ts";
import { warnOn, warnOnOnce } from "../lib/bug.ts";
import { EINVAL, EIO } from "../lib/errno.ts";
import type { MaybePromise } from "../lib/maybe-promise.ts";
import { printk, Ratelimit } from "../lib/printk.ts";
import { mappingSetError } from "../mm/address-space.ts";
import { type Folio, PG_DROPBEHIND } from "../mm/folio.ts";
import { iomapFinishFolioWrite, iomapStartFolioWrite } from "./buffered-io.ts";
import { type IomapDio, iomapFinishIoendDirect } from "./direct-io.ts";
import {
  type BioSet,
  type Iomap,
  IOMAP_F_ANON_WRITE,
  IOMAP_F_BOUNDARY,
  IOMAP_F_SHARED,
  IOMAP_HOLE,
  IOMAP_IOEND_BOUNDARY,
  IOMAP_IOEND_DIRECT,
  IOMAP_IOEND_DONTCACHE,
  IOMAP_IOEND_NOMERGE_FLAGS,
  IOMAP_IOEND_SHARED,
  IOMAP_IOEND_UNWRITTEN,
  IOMAP_MAPPED,
  IOMAP_UNWRITTEN,
  iomapHasAddr,
  iomapSector,
  type IomapWritepageCtx,
} from "./iomap.ts";
import { traceIomapAddToIoend, tracer } from "./trace.ts";

/** Most folios of one ioend. */
const IOEND_BATCH_SIZE = 4096;
/** Folios that are ended in one go, before other tasks get their turn. */
const COMPLETIONS_AT_ONCE = 8 * IOEND_BATCH_SIZE;

const writebackErrors = new Ratelimit();

/**
 * One bio of writeback, or of direct I/O (kernel: `struct iomap_ioend`). The kernel's
 * bios of `iomap_ioend_bioset` have one built in; here any bio can be given one, and
 * {@linkcode iomapIoendFromBio} leads back from it.
 */
export class IomapIoend {
  /** File that it writes to. */
  readonly inode: Inode;
  /** The I/O. */
  readonly bio: Bio;
  /** File offset, bytes. */
  offset: number;
  /** Bytes of the file that it writes. */
  size: number;
  /** First 512-byte sector. */
  sector: number;
  /** `IOMAP_IOEND_*`. */
  flags: number;
  /** 0 or a negative errno. */
  error = 0;
  /** Completions still to come: its own, and one for each part split off. */
  remaining = 1;
  /** What it is a part of. */
  parent: IomapIoend | null = null;
  /** Ioends that were merged behind it, in order of offset. */
  merged: IomapIoend[] | null = null;
  /** Folios that the bio writes, in order. */
  readonly folios: Folio[] = [];
  /** Bytes of each of `folios`. */
  readonly lens: number[] = [];
  /** Of direct I/O: the request, which `bio.private` was before. */
  dio: IomapDio | null = null;
  /** The file system's own. */
  private: unknown = null;

  /** Use {@linkcode iomapInitIoend}. */
  constructor(inode: Inode, bio: Bio, fileOffset: number, flags: number) {
    this.inode = inode;
    this.bio = bio;
    this.offset = fileOffset;
    this.size = bio.size;
    this.sector = bio.sector;
    this.flags = flags;
  }
}

/** Where the bios of ioends come from, for `IomapDioOps.bioSet` (kernel:
 * `iomap_ioend_bioset`). */
export const iomapIoendBioset: BioSet = {
  bioAlloc: (bdev, opf) => new Bio(bdev, opf),
};

/** The ioend of a bio, in its `endIo` (kernel: `iomap_ioend_from_bio`). */
export function iomapIoendFromBio(bio: Bio): IomapIoend {
  return bio.private as IomapIoend;
}

/**
 * Makes the ioend of a bio (kernel: `iomap_init_ioend`).
 *
 * @param bio Becomes the ioend's, through `private`. With IOMAP_IOEND_DIRECT it is
 *   one that `IomapDioOps.submitIo` got; its `endIo` must lead to
 *   {@linkcode iomapFinishIoends} then.
 * @param fileOffset Bytes.
 * @param flags `IOMAP_IOEND_*`.
 */
export function iomapInitIoend(
  inode: Inode,
  bio: Bio,
  fileOffset: number,
  flags: number,
): IomapIoend {
  const ioend = new IomapIoend(inode, bio, fileOffset, flags);
  if ((flags & IOMAP_IOEND_DIRECT) !== 0) ioend.dio = bio.private as IomapDio;
  bio.private = ioend;
  return ioend;
}

/** Ends the writeback of the folios that the ioend writes.
 * @returns How many. */
function iomapFinishIoendBuffered(ioend: IomapIoend): number {
  const { inode, folios, lens, error } = ioend;
  if (error !== 0) reportError(ioend);
  for (let i = 0; i < folios.length; i++) {
    iomapFinishFolioWrite(inode, folios[i]!, lens[i]!);
  }
  return folios.length;
}

function reportError(ioend: IomapIoend): void {
  const { inode, offset, sector } = ioend;
  const { sb } = inode;
  mappingSetError(inode.mapping, ioend.error);
  if (!writebackErrors.allow(sb.bdev.clock.now())) return;
  printk(
    `${sb.id}: writeback error on inode ${inode.ino}, ` +
      `offset ${offset}, sector ${sector}`,
  );
}

/** Ends an ioend with nothing to be done about it but for its folios (kernel:
 * `ioend_writeback_end_bio`): what `bio.endIo` is if a file system sets none. */
export function ioendWritebackEndBio(bio: Bio): void {
  const ioend = iomapIoendFromBio(bio);
  ioend.error = blkStatusToErrno(bio.status);
  iomapFinishIoendBuffered(ioend);
}

/**
 * Submits the pending ioend, `wpc.wbCtx` (kernel: `iomap_ioend_writeback_submit`).
 * A file system with work to do at completion sets `ioend.bio.endIo` before; that
 * must lead to {@linkcode iomapFinishIoends}.
 *
 * @param error Negative errno: nothing is submitted, the bio completes with it.
 * @returns 0, `error`, or -EIO for a mapping that has no address yet.
 */
export function iomapIoendWritebackSubmit(
  wpc: IomapWritepageCtx,
  error: number,
): number {
  const { bio } = wpc.wbCtx as IomapIoend;
  bio.endIo ??= ioendWritebackEndBio;
  const anon = (wpc.iomap.flags & IOMAP_F_ANON_WRITE) !== 0;
  if (warnOnOnce(anon, "iomap: a write without address needs its own submit")) {
    error = -EIO;
  }
  if (error !== 0) {
    bio.status = errnoToBlkStatus(error);
    bioEndIo(bio);
    return error;
  }
  submitBio(bio);
  return 0;
}

function iomapAllocIoend(
  wpc: IomapWritepageCtx,
  pos: number,
  flags: number,
): IomapIoend {
  const hint = wpc.wbc.syncAll ? REQ_SYNC : REQ_BACKGROUND;
  const bio = iomapIoendBioset.bioAlloc(wpc.iomap.bdev!, REQ_OP_WRITE | hint);
  bio.sector = iomapSector(wpc.iomap, pos);
  bio.writeHint = wpc.inode.writeHint;
  wpc.nrFolios = 0;
  return iomapInitIoend(wpc.inode, bio, pos, flags);
}

function iomapCanAddToIoend(
  wpc: IomapWritepageCtx,
  ioend: IomapIoend,
  pos: number,
  flags: number,
): boolean {
  const differ = (flags ^ ioend.flags) & IOMAP_IOEND_NOMERGE_FLAGS;
  if ((flags & IOMAP_IOEND_BOUNDARY) !== 0 || differ !== 0) return false;
  if (pos !== ioend.offset + ioend.size) return false;
  const anon = (wpc.iomap.flags & IOMAP_F_ANON_WRITE) !== 0;
  if (!anon && iomapSector(wpc.iomap, pos) !== ioend.bio.endSector) {
    return false;
  }
  // Bounds the work that one completion does.
  return wpc.nrFolios < IOEND_BATCH_SIZE;
}

/** False if the bio is full. */
function appendFolio(
  ioend: IomapIoend,
  folio: Folio,
  pos: number,
  len: number,
): boolean {
  const offset = pos & (folio.size - 1);
  if (!ioend.bio.addData(folio.data, folio.offset + offset, len)) return false;
  const { folios, lens } = ioend;
  const last = folios.length - 1;
  if (last >= 0 && folios[last] === folio) lens[last]! += len;
  else {
    folios.push(folio);
    lens.push(len);
  }
  iomapStartFolioWrite(ioend.inode, folio, len);
  return true;
}

/** Flags of an ioend that begins at `pos` under the cached mapping. */
function ioendFlags(
  wpc: IomapWritepageCtx,
  folio: Folio,
  pos: number,
): number {
  const { iomap } = wpc;
  let flags = iomap.type === IOMAP_UNWRITTEN ? IOMAP_IOEND_UNWRITTEN : 0;
  if ((iomap.flags & IOMAP_F_SHARED) !== 0) flags |= IOMAP_IOEND_SHARED;
  if ((folio.flags & PG_DROPBEHIND) !== 0) flags |= IOMAP_IOEND_DONTCACHE;
  if ((iomap.flags & IOMAP_F_BOUNDARY) !== 0 && pos === iomap.offset) {
    flags |= IOMAP_IOEND_BOUNDARY;
  }
  return flags;
}

/**
 * Adds dirty bytes of a folio to the pending ioend; submits that and begins
 * another where they do not fit on (kernel: `iomap_add_to_ioend`).
 *
 * The folio is locked and under writeback; `wpc.iomap` covers `pos`.
 *
 * @param pos First dirty byte in the file.
 * @param endPos End of the file or of the folio, whichever is first.
 * @param dirtyLen Dirty bytes from `pos`.
 * @returns Bytes taken care of, at most `dirtyLen`; over a hole they are not
 *   written. -EIO for an INLINE or DELALLOC mapping, or the error of submitting.
 */
export function iomapAddToIoend(
  wpc: IomapWritepageCtx,
  folio: Folio,
  pos: number,
  endPos: number,
  dirtyLen: number,
): MaybePromise<number> {
  const { iomap } = wpc;
  const len = Math.min(dirtyLen, iomap.offset + iomap.length - pos);
  const covers = iomap.offset <= pos && len > 0;
  if (warnOn(!covers, "iomap: writeback to a mapping that is elsewhere")) {
    return -EIO;
  }
  warnOnOnce(
    len < dirtyLen && folio.private === null,
    "iomap: part of a folio without block state",
  );
  if (tracer !== null) traceIomapAddToIoend(wpc.inode, pos, dirtyLen, iomap);
  if (iomap.type === IOMAP_HOLE) return len;
  if (
    warnOn(
      !isStorage(iomap),
      "iomap: writeback to a mapping without storage",
    ) ||
    warnOn(
      !iomapHasAddr(iomap),
      "iomap: writeback to a mapping without address",
    )
  ) return -EIO;
  const flags = ioendFlags(wpc, folio, pos);
  const pending = wpc.wbCtx as IomapIoend | null;
  if (pending === null) {
    return startIoend(wpc, flags, folio, pos, endPos, len);
  }
  if (
    iomapCanAddToIoend(wpc, pending, pos, flags) &&
    appendFolio(pending, folio, pos, len)
  ) {
    growIoend(pending, len, endPos);
    return len;
  }
  const submitted = wpc.ops.writebackSubmit(wpc, 0);
  if (submitted instanceof Promise) {
    return submitted.then((error) =>
      afterSubmit(error, wpc, flags, folio, pos, endPos, len)
    );
  }
  return afterSubmit(submitted, wpc, flags, folio, pos, endPos, len);
}

function isStorage({ type, bdev }: Iomap): boolean {
  return (type === IOMAP_MAPPED || type === IOMAP_UNWRITTEN) && bdev !== null;
}

function afterSubmit(
  error: number,
  wpc: IomapWritepageCtx,
  flags: number,
  folio: Folio,
  pos: number,
  endPos: number,
  len: number,
): number {
  wpc.wbCtx = null;
  if (error !== 0) return error;
  return startIoend(wpc, flags, folio, pos, endPos, len);
}

function startIoend(
  wpc: IomapWritepageCtx,
  flags: number,
  folio: Folio,
  pos: number,
  endPos: number,
  len: number,
): number {
  const ioend = iomapAllocIoend(wpc, pos, flags);
  wpc.wbCtx = ioend;
  appendFolio(ioend, folio, pos, len);
  growIoend(ioend, len, endPos);
  return len;
}

function growIoend(ioend: IomapIoend, len: number, endPos: number): void {
  ioend.size = Math.min(ioend.size + len, endPos - ioend.offset);
}

/** How much work it was: folios ended, or pieces of memory. */
function iomapFinishIoend(ioend: IomapIoend, error: number): number {
  const whole = ioend.parent ?? ioend;
  if (error !== 0 && whole.error === 0) whole.error = error;
  if (--whole.remaining > 0) return 0;
  if (whole.dio === null) return iomapFinishIoendBuffered(whole);
  iomapFinishIoendDirect(whole, whole.dio);
  return whole.bio.vecs.length;
}

/**
 * Completes an ioend and those merged behind it (kernel: `iomap_finish_ioends`). After
 * 32,768 folios other events get their turn before it goes on.
 *
 * @param error 0 or a negative errno, which fsync will report; the first one counts.
 */
export function iomapFinishIoends(ioend: IomapIoend, error: number): void {
  const { merged } = ioend;
  ioend.merged = null;
  const completions = iomapFinishIoend(ioend, error);
  if (merged !== null) finishSome({ merged, next: 0, error, completions });
}

/** Ioends that are being completed. */
interface Finishing {
  readonly merged: IomapIoend[];
  /** Index of the first that is not done. */
  next: number;
  readonly error: number;
  /** Folios ended since others had their turn. */
  completions: number;
}

function finishSome(finishing: Finishing): void {
  const { merged, error } = finishing;
  while (finishing.next < merged.length) {
    const ioend = merged[finishing.next]!;
    if (finishing.completions > COMPLETIONS_AT_ONCE) {
      finishing.completions = 0;
      const { clock } = ioend.inode.sb.bdev;
      // An event, not a promise: a synchronous caller may be waiting for it.
      clock.at(clock.now(), finishSome, finishing);
      return;
    }
    finishing.next++;
    finishing.completions += iomapFinishIoend(ioend, error);
  }
}

/**
 * Splits an ioend that is too large for one I/O (kernel: `iomap_split_ioend`). The
 * original completes only after the part has.
 *
 * @param ioend Not submitted yet; what is left of it starts behind the part. Its
 *   `sector` stays where it was for an append, whose place the device chooses.
 * @param maxLen Most bytes of the part, which ends with a block.
 * @param isAppend It goes out by zone append: the device's limits count, too.
 * @returns The first part, with the same `endIo`; null if there is nothing to split;
 *   -EINVAL if not even one block fits, or for memory that the device cannot take.
 */
export function iomapSplitIoend(
  ioend: IomapIoend,
  maxLen: number,
  isAppend: boolean,
): IomapIoend | null | number {
  const { bio, inode } = ioend;
  const fits = isAppend ? appendFits(bio, maxLen) : sizeFits(bio, maxLen);
  if (fits === 0) return null;
  if (fits < 0) return fits;
  const len = fits - (fits & ((1 << inode.blkbits) - 1));
  if (len === 0) return -EINVAL;
  const front = bioSplit(bio, len / SECTOR_SIZE);
  front.endIo = bio.endIo;
  if (ioend.dio !== null) front.private = ioend.dio;
  const part = iomapInitIoend(inode, front, ioend.offset, ioend.flags);
  part.parent = ioend.parent ?? ioend;
  part.parent.remaining++;
  part.sector = ioend.sector;
  ioend.offset += len;
  ioend.size -= len;
  if (!isAppend) ioend.sector += len / SECTOR_SIZE;
  return part;
}

/** Bytes of a front that is short enough; 0 if all is. */
function sizeFits(bio: Bio, maxLen: number): number {
  return bio.size <= maxLen ? 0 : maxLen;
}

/** Bytes of a front that can be appended to a zone; 0 if all can. */
function appendFits(bio: Bio, maxLen: number): number {
  const { limits } = bio.bdev;
  const most = Math.min(maxLen, limits.maxZoneAppendSectors * SECTOR_SIZE);
  const sectors = bioSplitRwAt(bio, limits, most);
  return sectors < 0 ? sectors : sectors * SECTOR_SIZE;
}

function iomapIoendCanMerge(ioend: IomapIoend, next: IomapIoend): boolean {
  const differ = (ioend.flags ^ next.flags) & IOMAP_IOEND_NOMERGE_FLAGS;
  return ioend.bio.status === next.bio.status &&
    (next.flags & IOMAP_IOEND_BOUNDARY) === 0 && differ === 0 &&
    ioend.offset + ioend.size === next.offset &&
    ioend.sector + Math.floor(ioend.size / SECTOR_SIZE) === next.sector;
}

/**
 * Takes from the front of `list` what directly follows `ioend` in file and on
 * the device, so that one transaction does for all (kernel: `iomap_ioend_try_merge`).
 *
 * @param list Completed ioends after {@linkcode iomapSortIoends}.
 */
export function iomapIoendTryMerge(
  ioend: IomapIoend,
  list: IomapIoend[],
): void {
  let n = 0;
  while (n < list.length && iomapIoendCanMerge(ioend, list[n]!)) {
    ioend.size += list[n]!.size;
    n++;
  }
  if (n === 0) return;
  const taken = list.splice(0, n);
  ioend.merged = ioend.merged === null ? taken : ioend.merged.concat(taken);
}

/** Sorts by file offset, in place (kernel: `iomap_sort_ioends`). */
export function iomapSortIoends(list: IomapIoend[]): void {
  list.sort((a, b) => a.offset - b.offset);
}
