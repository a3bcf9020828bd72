/**
 * Types, flags and small helpers of the iomap library.
 *
 * Kernel counterpart: include/linux/iomap.h.
 *
 * @module
 */

import type { Bio } from "../block/bio.ts";
import { SECTOR_SIZE } from "../block/blk-types.ts";
import type { BlockDevice } from "../block/blkdev.ts";
import type { Inode } from "../fs/fs.ts";
import type { Kiocb } from "../fs/kiocb.ts";
import type { MaybePromise } from "../lib/maybe-promise.ts";
import type {
  ReadaheadControl,
  WritebackControl,
} from "../mm/address-space.ts";
import { type Folio, PAGE_SIZE } from "../mm/folio.ts";

/** Nothing allocated; reads as zero. */
export const IOMAP_HOLE = 0;
/** Space promised, no address yet. */
export const IOMAP_DELALLOC = 1;
/** Allocated and holding data. */
export const IOMAP_MAPPED = 2;
/** Allocated; reads as zero until converted. */
export const IOMAP_UNWRITTEN = 3;
/** Contents are in memory at `inlineData`. */
export const IOMAP_INLINE = 4;

/** Device address of a mapping without storage. */
export const IOMAP_NULL_ADDR: number = -1;

/** Allocated by this call: what is not written must be zeroed. */
export const IOMAP_F_NEW: number = 1 << 0;
/** Uncommitted metadata is needed to reach the data. */
export const IOMAP_F_DIRTY: number = 1 << 1;
/** Blocks shared, or the target of copy-on-write. */
export const IOMAP_F_SHARED: number = 1 << 2;
/** A merge of several block records. */
export const IOMAP_F_MERGED: number = 1 << 3;
/** Through buffer heads, of which there are none here: a write gets -EIO. */
export const IOMAP_F_BUFFER_HEAD: number = 1 << 4;
/** Maps the extended-attribute fork. */
export const IOMAP_F_XATTR: number = 1 << 5;
/** I/O starting here must not be merged into the I/O before it. */
export const IOMAP_F_BOUNDARY: number = 1 << 6;
/** No address yet: chosen when the bio is submitted. */
export const IOMAP_F_ANON_WRITE: number = 1 << 7;
/** A direct write must go out as one REQ_ATOMIC bio. */
export const IOMAP_F_ATOMIC_BIO: number = 1 << 8;
/** The file system's own. */
export const IOMAP_F_PRIVATE: number = 1 << 12;
/** A buffered write moved i_size under this mapping. */
export const IOMAP_F_SIZE_CHANGED: number = 1 << 14;
/** Out of date: map the rest again. */
export const IOMAP_F_STALE: number = 1 << 15;

/** The call writes. */
export const IOMAP_WRITE: number = 1 << 0;
/** The call zeroes. */
export const IOMAP_ZERO: number = 1 << 1;
/** The call only reports. */
export const IOMAP_REPORT: number = 1 << 2;
/** A page fault. */
export const IOMAP_FAULT: number = 1 << 3;
/** Direct I/O. */
export const IOMAP_DIRECT: number = 1 << 4;
/** -EAGAIN rather than wait. */
export const IOMAP_NOWAIT: number = 1 << 5;
/** No allocation. */
export const IOMAP_OVERWRITE_ONLY: number = 1 << 6;
/** Give shared blocks a private copy. */
export const IOMAP_UNSHARE: number = 1 << 7;
/** Direct access to memory. */
export const IOMAP_DAX: number = 1 << 8;
/** All or nothing. */
export const IOMAP_ATOMIC: number = 1 << 9;
/** Drop from the cache after use. */
export const IOMAP_DONTCACHE: number = 1 << 10;

/** Where one byte range of a file lives on storage (kernel: `struct iomap`). */
export class Iomap {
  /** Device address in bytes, or `IOMAP_NULL_ADDR`. */
  addr = 0;
  /** First byte of the file that is mapped. */
  offset = 0;
  /** Bytes covered; never 0 once `iomapBegin` has returned 0. */
  length = 0;
  /** `IOMAP_HOLE` and so on. */
  type: number = IOMAP_HOLE;
  /** `IOMAP_F_*`. */
  flags = 0;
  /** Device of `addr`. */
  bdev: BlockDevice | null = null;
  /** Contents of an INLINE mapping; its first byte is file byte `offset`. */
  inlineData: Uint8Array | null = null;
  /** The file system's own. */
  private: unknown = null;
  /** What `iomapValid` compares. */
  validityCookie = 0;
}

/** Makes a mapping what `iomapBegin` is handed: a hole of no length. */
export function iomapReset(iomap: Iomap): void {
  iomap.addr = 0;
  iomap.offset = 0;
  iomap.length = 0;
  iomap.type = IOMAP_HOLE;
  iomap.flags = 0;
  iomap.bdev = null;
  iomap.inlineData = null;
  iomap.private = null;
  iomap.validityCookie = 0;
}

/**
 * Sector at which file byte `pos` is stored (kernel: `iomap_sector`).
 *
 * @returns 512-byte sector, or -1 for a mapping that gets its address only when
 *   the bio is submitted.
 */
export function iomapSector(iomap: Iomap, pos: number): number {
  if ((iomap.flags & IOMAP_F_ANON_WRITE) !== 0) return -1;
  return Math.floor((iomap.addr + pos - iomap.offset) / SECTOR_SIZE);
}

/** Whether a mapping of storage says where that is, or need not yet. */
export function iomapHasAddr({ addr, flags }: Iomap): boolean {
  return addr >= 0 || (flags & IOMAP_F_ANON_WRITE) !== 0;
}

/** Whether an INLINE mapping's memory holds all of it, within a page (kernel:
 * `iomap_inline_data_valid`). */
export function iomapInlineDataValid(iomap: Iomap): boolean {
  const { inlineData, length } = iomap;
  return inlineData !== null && length <= inlineData.length &&
    length <= PAGE_SIZE;
}

/**
 * Memory of an INLINE mapping from file byte `pos` on (kernel: `iomap_inline_data`).
 */
export function iomapInlineData(iomap: Iomap, pos: number): Uint8Array {
  return iomap.inlineData!.subarray(pos - iomap.offset);
}

/**
 * Finds and gives back mappings (kernel: `struct iomap_ops`).
 *
 * What `iomapBegin` answers with 0 is checked; a mapping that breaks a rule raises a
 * warning that names it, is given back as one with which nothing was done, and the
 * call fails with -EIO:
 *
 * - it covers `pos`: `offset <= pos < offset + length`, in whole bytes; so does `srcmap`,
 *   if it is one;
 * - its type is one of the five;
 * - HOLE and DELALLOC have no address: `addr` is `IOMAP_NULL_ADDR`;
 * - MAPPED and UNWRITTEN have a device, and an address unless it is an ANON_WRITE;
 * - `offset` and `length` are multiples of the block size, but for HOLE and INLINE;
 * - INLINE has its memory, within a page, unless it is only reported;
 * - it is not STALE from the start;
 * - a buffered write or a fault does not get a HOLE, nor a BUFFER_HEAD mapping.
 */
export interface IomapOps {
  /** What tracepoints call it: the kernel's symbol. */
  readonly name?: string;
  /**
   * Maps `pos` and as much as is convenient of `length` bytes from there.
   *
   * @param iomap Filled in; all zero before.
   * @param srcmap Filled in for out-of-place writes only.
   * @returns 0 or a negative errno.
   */
  iomapBegin(
    inode: Inode,
    pos: number,
    length: number,
    flags: number,
    iomap: Iomap,
    srcmap: Iomap,
  ): MaybePromise<number>;
  /**
   * Ends what `iomapBegin` began.
   *
   * @param written Bytes done, 0 to `length`.
   * @returns 0 or a negative errno, which counts only if `written` is 0.
   */
  iomapEnd?(
    inode: Inode,
    pos: number,
    length: number,
    written: number,
    flags: number,
    iomap: Iomap,
  ): MaybePromise<number>;
}

/** A walk over the mappings of a range (kernel: `struct iomap_iter`). */
export class IomapIter {
  /** File that is walked. */
  inode!: Inode;
  /** Current byte. */
  pos = 0;
  /** Bytes left. */
  len = 0;
  /** Where the mapping was obtained. */
  iterStartPos = 0;
  /** 0 or a negative errno that the body met. */
  status = 0;
  /** Times in a row that the mapping was stale before anything was done with it. */
  staleRounds = 0;
  /** `IOMAP_WRITE` and so on. */
  flags = 0;
  /** Where data goes. */
  readonly iomap: Iomap = new Iomap();
  /** What is there now, if that is somewhere else; else a hole. */
  readonly srcmap: Iomap = new Iomap();
  /** The caller's own. */
  private: unknown = null;
  /** The library function that walks, by its kernel name; for tracepoints. */
  caller = "";
}

/** Begins a walk over [`pos`, `pos + len`) with an iterator that may be an old one. */
export function iomapIterInit(
  iter: IomapIter,
  inode: Inode,
  pos: number,
  len: number,
  flags: number,
  caller: string,
): void {
  iter.inode = inode;
  iter.pos = pos;
  iter.len = len;
  iter.iterStartPos = 0;
  iter.status = 0;
  iter.staleRounds = 0;
  iter.flags = flags;
  iter.private = null;
  iter.caller = caller;
  iomapReset(iter.iomap);
  iomapReset(iter.srcmap);
}

/** Lets go of what an iterator refers to, so that one kept for later keeps nothing
 * else in memory. */
export function iomapIterRelease(iter: IomapIter): void {
  // Nobody looks at it before the next iomapIterInit.
  iter.inode = null as never;
  iter.private = null;
  iomapReset(iter.iomap);
  iomapReset(iter.srcmap);
}

/** Bytes from `pos` on, at most `len`, that the mapping covers, and the source
 * mapping if there is one (kernel: `iomap_length_trim`). */
export function iomapLengthTrim(
  iter: IomapIter,
  pos: number,
  len: number,
): number {
  const { iomap, srcmap } = iter;
  let end = iomap.offset + iomap.length;
  if (srcmap.type !== IOMAP_HOLE) {
    end = Math.min(end, srcmap.offset + srcmap.length);
  }
  return Math.min(len, end - pos);
}

/** Bytes from `iter.pos` on that the mapping covers; 0 once it is used up
 * (kernel: `iomap_length`). */
export function iomapLength(iter: IomapIter): number {
  return iomapLengthTrim(iter, iter.pos, iter.len);
}

/** The mapping of what is there now: `srcmap`, or `iomap` where there is none
 * (kernel: `iomap_iter_srcmap`). */
export function iomapIterSrcmap(iter: IomapIter): Iomap {
  return iter.srcmap.type !== IOMAP_HOLE ? iter.srcmap : iter.iomap;
}

/** Whether unsharing has to copy: shared, and the data to copy is known (kernel:
 * `iomap_want_unshare_iter`). */
export function iomapWantUnshareIter(iter: IomapIter): boolean {
  return (iter.iomap.flags & IOMAP_F_SHARED) !== 0 &&
    iter.srcmap.type === IOMAP_MAPPED;
}

/** End of the last block that a short write touched, bytes; where nothing was
 * written, the start of `pos`'s block (kernel: `iomap_last_written_block`). */
export function iomapLastWrittenBlock(
  inode: Inode,
  pos: number,
  written: number,
): number {
  const bs = 2 ** inode.blkbits;
  if (written === 0) return pos - (pos & (bs - 1));
  return Math.ceil((pos + written) / bs) * bs;
}

/** Hooks of buffered writes (kernel: `struct iomap_write_ops`). */
export interface IomapWriteOps {
  /** A locked folio with a reference, or a negative errno; `iomapGetFolio` if absent. */
  getFolio?(
    iter: IomapIter,
    pos: number,
    len: number,
  ): MaybePromise<Folio | number>;
  /** Must unlock and put the folio. Called once for each `getFolio`; `copied` 0 on failure. */
  putFolio?(inode: Inode, pos: number, copied: number, folio: Folio): void;
  /** Whether the mapping still holds; called with the folio locked. */
  iomapValid?(inode: Inode, iomap: Iomap): boolean;
  /**
   * Reads [`pos`, `pos + len`) of a folio, and waits for it, before blocks are
   * overwritten in part; through a bio, from the source mapping, if absent.
   *
   * @returns 0 or a negative errno.
   */
  readFolioRange?(
    iter: IomapIter,
    folio: Folio,
    pos: number,
    len: number,
  ): MaybePromise<number>;
}

/**
 * How folios are read in (kernel: `struct iomap_read_ops`). The library's own way is
 * by bios, `iomapBioReadOps`.
 */
export interface IomapReadOps {
  /**
   * Starts to read [`iter.pos`, `iter.pos + len`) into `ctx.curFolio`. Once it has
   * answered 0, `iomapFinishFolioRead` must be called for that range, whether the
   * read succeeds or not, at once or later.
   *
   * @returns 0 or a negative errno: then the rest is not read either.
   */
  readFolioRange(iter: IomapIter, ctx: IomapReadFolioCtx, len: number): number;
  /** Sends off what `readFolioRange` has put together in `ctx.readCtx`; not called
   * where that is null. */
  submitRead?(iter: IomapIter, ctx: IomapReadFolioCtx): void;
}

/** One buffered read (kernel: `struct iomap_read_folio_ctx`). */
export class IomapReadFolioCtx {
  /** Who reads. */
  readonly ops: IomapReadOps;
  /** Locked folio that is being filled; null between two of a window. */
  curFolio: Folio | null;
  /** The window, where it is a readahead. */
  readonly rac: ReadaheadControl | null;
  /** The reader's own. */
  readCtx: unknown = null;
  /** The library's: whether the reader has been given part of `curFolio`. */
  handedOut = false;
  /** The library's: whether `curFolio` is kept from ending before all of it has been
   * looked at. */
  biased = false;

  /** A read of one folio, or of a window of them. */
  constructor(
    ops: IomapReadOps,
    folio: Folio | null,
    rac: ReadaheadControl | null,
  ) {
    this.ops = ops;
    this.curFolio = folio;
    this.rac = rac;
  }
}

/** State of one writepages call (kernel: `struct iomap_writepage_ctx`). */
export class IomapWritepageCtx {
  /** File that is written back. */
  readonly inode: Inode;
  /** What to write. */
  readonly wbc: WritebackControl;
  /** The file system's hooks. */
  readonly ops: IomapWritebackOps;
  /** The cached mapping. */
  readonly iomap: Iomap = new Iomap();
  /** Folios in the pending ioend. */
  nrFolios = 0;
  /** Pending ioend, or the file system's. */
  wbCtx: unknown = null;

  /** A writeback of `wbc`'s range. */
  constructor(inode: Inode, wbc: WritebackControl, ops: IomapWritebackOps) {
    this.inode = inode;
    this.wbc = wbc;
    this.ops = ops;
  }
}

/** Hooks of writeback (kernel: `struct iomap_writeback_ops`). */
export interface IomapWritebackOps {
  /** Maps dirty bytes and adds them to an ioend (`iomapAddToIoend`).
   * @returns Bytes handled, above 0, or a negative errno. */
  writebackRange(
    wpc: IomapWritepageCtx,
    folio: Folio,
    pos: number,
    len: number,
    endPos: number,
  ): MaybePromise<number>;
  /** Submits `wpc.wbCtx`, or completes it with `error`. 0 or -errno. */
  writebackSubmit(wpc: IomapWritepageCtx, error: number): MaybePromise<number>;
}

/** Ioend: writes to copy-on-write blocks. */
export const IOMAP_IOEND_SHARED: number = 1 << 0;
/** Ioend: writes to unwritten blocks, to be converted. */
export const IOMAP_IOEND_UNWRITTEN: number = 1 << 1;
/** Ioend: must not join the I/O before it. */
export const IOMAP_IOEND_BOUNDARY: number = 1 << 2;
/** Ioend: belongs to direct I/O. */
export const IOMAP_IOEND_DIRECT: number = 1 << 3;
/** Ioend: its folios are dropped when it is done. */
export const IOMAP_IOEND_DONTCACHE: number = 1 << 4;
/** Ioends that differ in one of these are kept apart. */
export const IOMAP_IOEND_NOMERGE_FLAGS: number = IOMAP_IOEND_SHARED |
  IOMAP_IOEND_UNWRITTEN | IOMAP_IOEND_DIRECT | IOMAP_IOEND_DONTCACHE;

/** Caller: wait even if the call is asynchronous. */
export const IOMAP_DIO_FORCE_WAIT: number = 1 << 0;
/** Caller: no allocation and no zeroing; -EAGAIN instead. */
export const IOMAP_DIO_OVERWRITE_ONLY: number = 1 << 1;
/** Caller: on -EFAULT after progress return the progress. */
export const IOMAP_DIO_PARTIAL: number = 1 << 2;
/** End of I/O: it touched unwritten extents. */
export const IOMAP_DIO_UNWRITTEN: number = 1 << 0;
/** End of I/O: it went to a copy-on-write mapping. */
export const IOMAP_DIO_COW: number = 1 << 1;

/** Where bios come from (kernel: `struct bio_set`). */
export interface BioSet {
  /**
   * A new bio, of a class of the file system's own if it has more to keep with each
   * (kernel: `bio_alloc_bioset`).
   *
   * @param bdev Where it goes.
   * @param opf `REQ_OP_*` and `REQ_*` flags.
   */
  bioAlloc(bdev: BlockDevice, opf: number): Bio;
}

/** Hooks of direct I/O (kernel: `struct iomap_dio_ops`). */
export interface IomapDioOps {
  /**
   * Called once at the end, also on error, before the cache is dropped a second time
   * and `iocb.pos` moves.
   *
   * @param size Bytes submitted.
   * @param error 0 or a negative errno.
   * @param flags `IOMAP_DIO_UNWRITTEN` and `IOMAP_DIO_COW`; the bits above them are
   *   the library's own.
   * @returns 0 or a negative errno: it replaces `error`, both ways.
   */
  endIo?(
    iocb: Kiocb,
    size: number,
    error: number,
    flags: number,
  ): MaybePromise<number>;
  /**
   * Submits a bio instead of the block layer; whoever takes `bio.endIo` for himself
   * calls `iomapDioBioEndIo` at the end.
   *
   * @param fileOffset Where in the file the bio begins, bytes.
   */
  submitIo?(iter: IomapIter, bio: Bio, fileOffset: number): void;
  /** Where the bios come from. */
  bioSet?: BioSet;
}
