/**
 * The interface of before 6.18, for file systems that were written against it: hooks
 * that a mapping brings along, `map_blocks`, `prepare_ioend`, `discard_folio`, and
 * the punching of delayed allocation in one call.
 *
 * Each adapter makes of the old kind what the library takes today; nothing in the
 * library knows of them. The old hooks of a folio were a mapping's, so that one file
 * could have several kinds; the new ones are a call's, and find the mapping's.
 *
 * Kernel counterpart: include/linux/iomap.h of Linux 6.2 to 6.16.
 *
 * @module
 */

import { bioEndIo } from "../block/bio.ts";
import { errnoToBlkStatus } from "../block/blk-types.ts";
import type { Inode } from "../fs/fs.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import type { WritebackControl } from "../mm/address-space.ts";
import { type Folio, folioPut, folioUnlock } from "../mm/folio.ts";
import { iomapGetFolio, iomapWriteDelallocRelease } from "./buffered-io.ts";
import {
  ioendWritebackEndBio,
  iomapAddToIoend,
  type IomapIoend,
  iomapIoendWritebackSubmit,
} from "./ioend.ts";
import {
  Iomap,
  IOMAP_DELALLOC,
  IOMAP_F_NEW,
  IOMAP_F_SHARED,
  IOMAP_IOEND_SHARED,
  IOMAP_IOEND_UNWRITTEN,
  IOMAP_MAPPED,
  IOMAP_UNWRITTEN,
  type IomapIter,
  iomapLastWrittenBlock,
  type IomapOps,
  type IomapWritebackOps,
  type IomapWriteOps,
  IomapWritepageCtx,
} from "./iomap.ts";
import { iomapIterAdvance } from "./iter.ts";

/** Hooks of buffered writes that a mapping brings along (kernel: `struct
 * iomap_folio_ops`, before that `iomap_page_ops`). */
export interface IomapFolioOps {
  /** See `IomapWriteOps.getFolio`. */
  getFolio?(
    iter: IomapIter,
    pos: number,
    len: number,
  ): MaybePromise<Folio | number>;
  /** See `IomapWriteOps.putFolio`. */
  putFolio?(inode: Inode, pos: number, copied: number, folio: Folio): void;
  /** See `IomapWriteOps.iomapValid`. */
  iomapValid?(inode: Inode, iomap: Iomap): boolean;
}

/** A mapping that may bring hooks along. */
export class OldIomap extends Iomap {
  /** Hooks of buffered writes to it, or null (kernel: `iomap->folio_ops`). */
  folioOps: IomapFolioOps | null = null;
}

/** {@linkcode IomapOps} whose mappings may bring hooks along. */
export interface OldIomapOps {
  /** See `IomapOps.iomapBegin`. */
  iomapBegin(
    inode: Inode,
    pos: number,
    length: number,
    flags: number,
    iomap: OldIomap,
    srcmap: OldIomap,
  ): MaybePromise<number>;
  /** See `IomapOps.iomapEnd`; `iomap` is the one that `iomapBegin` filled in. */
  iomapEnd?(
    inode: Inode,
    pos: number,
    length: number,
    written: number,
    flags: number,
    iomap: OldIomap,
  ): MaybePromise<number>;
}

/** What the library's calls take in place of {@linkcode OldIomapOps}. */
export interface IomapOpsPair {
  /** For every call. */
  readonly ops: IomapOps;
  /** For those that write to the cache: the hooks of whichever mapping is in use. */
  readonly writeOps: IomapWriteOps;
}

/**
 * Callbacks whose mappings bring hooks along, as callbacks and hooks apart.
 *
 * @param old The file system's.
 */
export function iomapOpsFromOld(old: OldIomapOps): IomapOpsPair {
  // By the library's mapping: the file system's, with its hooks.
  const mappings = new WeakMap<Iomap, OldIomap>();
  return { ops: opsFromOld(old, mappings), writeOps: hooksOf(mappings) };
}

function opsFromOld(
  old: OldIomapOps,
  mappings: WeakMap<Iomap, OldIomap>,
): IomapOps {
  const ops: IomapOps = {
    iomapBegin(inode, pos, length, flags, iomap, srcmap) {
      const mine = new OldIomap();
      const source = new OldIomap();
      const begun = old.iomapBegin(inode, pos, length, flags, mine, source);
      return andThen(begun, (error) => {
        copyIomap(iomap, mine);
        copyIomap(srcmap, source);
        mappings.set(iomap, mine);
        return error;
      });
    },
  };
  if (old.iomapEnd === undefined) return ops;
  ops.iomapEnd = (inode, pos, length, written, flags, iomap) => {
    const mine = mappings.get(iomap)!;
    mine.flags = iomap.flags;
    return old.iomapEnd!(inode, pos, length, written, flags, mine);
  };
  return ops;
}

function hooksOf(mappings: WeakMap<Iomap, OldIomap>): IomapWriteOps {
  // putFolio is told of no mapping; but a folio is locked from get to put.
  const inUse = new WeakMap<Folio, IomapFolioOps>();
  return {
    getFolio(iter, pos, len) {
      const folioOps = mappings.get(iter.iomap)?.folioOps ?? {};
      const got = folioOps.getFolio
        ? folioOps.getFolio(iter, pos, len)
        : iomapGetFolio(iter, pos, len);
      return andThen(got, (folio) => {
        if (typeof folio !== "number") inUse.set(folio, folioOps);
        return folio;
      });
    },
    putFolio(inode, pos, copied, folio) {
      const folioOps = inUse.get(folio)!;
      inUse.delete(folio);
      if (folioOps.putFolio) {
        return folioOps.putFolio(inode, pos, copied, folio);
      }
      folioUnlock(folio);
      folioPut(folio);
    },
    iomapValid(inode, iomap) {
      const mine = mappings.get(iomap);
      if (mine === undefined) return true;
      mine.flags = iomap.flags;
      return mine.folioOps?.iomapValid?.(inode, mine) ?? true;
    },
  };
}

function copyIomap(to: Iomap, from: Iomap): void {
  to.addr = from.addr;
  to.offset = from.offset;
  to.length = from.length;
  to.type = from.type;
  to.flags = from.flags;
  to.bdev = from.bdev;
  to.inlineData = from.inlineData;
  to.private = from.private;
  to.validityCookie = from.validityCookie;
}

/**
 * What the body of a walk returned when it did not advance the iterator itself, as
 * what it returns now (kernel: `iter->processed`).
 *
 * @param processed Bytes done, or a negative errno.
 * @returns For `iter.status`: 0 or a negative errno.
 */
export function iomapIterProcessed(iter: IomapIter, processed: number): number {
  return processed < 0 ? processed : iomapIterAdvance(iter, processed);
}

/** Hooks of writeback by their older names (kernel: `struct iomap_writeback_ops` up to
 * 6.16). */
export interface OldIomapWritebackOps {
  /**
   * Makes `wpc.iomap` cover `offset`; the mapping that is there may do.
   *
   * @param len Dirty bytes from `offset`.
   * @returns 0 or a negative errno.
   */
  mapBlocks(
    wpc: OldIomapWritepageCtx,
    inode: Inode,
    offset: number,
    len: number,
  ): MaybePromise<number>;
  /**
   * Called before an ioend is submitted, or completed with an error: where
   * `ioend.bio.endIo` is set.
   *
   * @param status 0, or the negative errno for which it will not be submitted.
   * @returns `status`, or another errno for which it is not to be submitted.
   */
  prepareIoend?(ioend: IomapIoend, status: number): number;
  /**
   * Takes the place of `prepareIoend`, and submits `wpc.ioend` itself if `status` is
   * 0 (6.14 to 6.16).
   *
   * @returns 0 if it was submitted; else a negative errno, with which it completes.
   */
  submitIoend?(wpc: OldIomapWritepageCtx, status: number): number;
  /** Blocks from `pos` to the end of the folio could not be mapped: what was reserved
   * for them is to be given back. */
  discardFolio?(folio: Folio, pos: number): void;
}

/** State of a writepages call over older hooks; for `iomapWritepages`. */
export class OldIomapWritepageCtx extends IomapWritepageCtx {
  /** A writeback of `wbc`'s range. */
  constructor(
    inode: Inode,
    wbc: WritebackControl,
    ops: OldIomapWritebackOps,
  ) {
    super(inode, wbc, iomapWritebackOpsFromOld(ops));
  }

  /** The ioend that is being put together. */
  get ioend(): IomapIoend | null {
    return this.wbCtx as IomapIoend | null;
  }
}

/**
 * Hooks of writeback by their older names as those of today. They are for a
 * {@linkcode OldIomapWritepageCtx}, which makes them.
 */
function iomapWritebackOpsFromOld(
  old: OldIomapWritebackOps,
): IomapWritebackOps {
  return {
    writebackRange(wpc, folio, pos, len, endPos) {
      const ctx = wpc as OldIomapWritepageCtx;
      const mapped = old.mapBlocks(ctx, wpc.inode, pos, len);
      const added = andThen(
        mapped,
        (error) => error || iomapAddToIoend(wpc, folio, pos, endPos, len),
      );
      return andThen(added, (ret) => {
        if (ret < 0) old.discardFolio?.(folio, pos);
        return ret;
      });
    },
    writebackSubmit(wpc, error) {
      const ctx = wpc as OldIomapWritepageCtx;
      if (old.submitIoend) return submitOld(ctx, old.submitIoend, error);
      const status = old.prepareIoend?.(ctx.ioend!, error) ?? error;
      return iomapIoendWritebackSubmit(wpc, status);
    },
  };
}

function submitOld(
  wpc: OldIomapWritepageCtx,
  submitIoend: (wpc: OldIomapWritepageCtx, status: number) => number,
  error: number,
): number {
  const { bio } = wpc.ioend!;
  bio.endIo ??= ioendWritebackEndBio;
  const status = submitIoend(wpc, error);
  if (status !== 0) {
    bio.status = errnoToBlkStatus(status);
    bioEndIo(bio);
  }
  return status;
}

/** Type of the blocks that an ioend writes to: UNWRITTEN or MAPPED (kernel:
 * `ioend->io_type`). */
export function iomapIoendType(ioend: IomapIoend): number {
  const unwritten = (ioend.flags & IOMAP_IOEND_UNWRITTEN) !== 0;
  return unwritten ? IOMAP_UNWRITTEN : IOMAP_MAPPED;
}

/** `IOMAP_F_*` of the blocks that an ioend writes to, as far as it was split by them:
 * SHARED (kernel: `ioend->io_flags` up to 6.13). */
export function iomapIoendMapFlags(ioend: IomapIoend): number {
  const shared = (ioend.flags & IOMAP_IOEND_SHARED) !== 0;
  return shared ? IOMAP_F_SHARED : 0;
}

/**
 * Gives reservations back that a short write did not use, for `iomapEnd` (kernel:
 * `iomap_file_buffered_write_punch_delalloc`). Does what its callers do now by
 * themselves: looks whether there is anything to give back, rounds to blocks, takes
 * `mapping.invalidateLock` exclusively.
 *
 * @param pos As `iomapEnd` got it, like `length` and `written`; bytes.
 * @param punch Gives delayed allocation back, folios locked or not; after a negative
 *   errno it is not called again.
 * @returns 0, or the negative errno of `punch`.
 */
export function iomapFileBufferedWritePunchDelalloc(
  inode: Inode,
  iomap: Iomap,
  pos: number,
  length: number,
  written: number,
  punch: (inode: Inode, pos: number, length: number) => number,
): MaybePromise<number> {
  const fresh = (iomap.flags & IOMAP_F_NEW) !== 0;
  if (iomap.type !== IOMAP_DELALLOC || !fresh) return 0;
  const bs = 2 ** inode.blkbits;
  const start = iomapLastWrittenBlock(inode, pos, written);
  const end = Math.ceil((pos + length) / bs) * bs;
  if (start >= end) return 0;
  let error = 0;
  const punchOnce = (_: Inode, offset: number, len: number) => {
    if (error === 0) error = punch(inode, offset, len);
  };
  const { invalidateLock } = inode.mapping;
  const released = andThen(
    invalidateLock.downWrite(),
    () => iomapWriteDelallocRelease(inode, start, end, 0, iomap, punchOnce),
  );
  return andThen(released, () => {
    invalidateLock.upWrite();
    return error;
  });
}
