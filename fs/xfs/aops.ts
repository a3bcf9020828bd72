/**
 * The page cache's methods: reading folios in, writing them back, and what is to be
 * done once they are on the device.
 *
 * Kernel counterpart: fs/xfs/xfs_aops.c.
 *
 * @module
 */

import type { Bio } from "../../block/bio.ts";
import { blkStatusToErrno } from "../../block/blk-types.ts";
import { EIO } from "../../lib/errno.ts";
import type { MaybePromise } from "../../lib/maybe-promise.ts";
import type {
  AddressSpace,
  AddressSpaceOperations,
  WritebackControl,
} from "../../mm/address-space.ts";
import type { Folio } from "../../mm/folio.ts";
import {
  iomapDirtyFolio,
  iomapInvalidateFolio,
  iomapIsPartiallyUptodate,
  iomapReadahead,
  iomapReadFolio,
  iomapReleaseFolio,
  iomapWritepages,
} from "../../iomap/buffered-io.ts";
import { iomapBmap } from "../../iomap/fiemap.ts";
import {
  iomapAddToIoend,
  iomapFinishIoends,
  type IomapIoend,
  iomapIoendTryMerge,
  iomapIoendWritebackSubmit,
  iomapSortIoends,
} from "../../iomap/ioend.ts";
import {
  IOMAP_IOEND_DONTCACHE,
  IOMAP_IOEND_SHARED,
  IOMAP_IOEND_UNWRITTEN,
  type IomapWritebackOps,
  IomapWritepageCtx,
} from "../../iomap/iomap.ts";
import type { Inode } from "../fs.ts";
import { bmapiConvertDelalloc, bmapPunchDelalloc } from "./bmap.ts";
import {
  BmbtIrec,
  DELAYSTARTBLOCK,
  HOLESTARTBLOCK,
  IextCursor,
} from "./iext.ts";
import { ilockExcl, ilockShared, type XfsInode } from "./inode.ts";
import {
  bToFsb,
  bToFsbt,
  setDiskSize,
  xfsBmbtToIomap,
  xfsIomapWriteUnwritten,
  xfsReadIomapOps,
} from "./iomap.ts";

const cur = new IextCursor();
const imap = new BmbtIrec();

/** Whether the mapping of the last folio serves this one too (kernel:
 * `xfs_imap_valid`). */
function imapValid(wpc: IomapWritepageCtx, pos: number): boolean {
  const { iomap } = wpc;
  if (pos < iomap.offset || pos >= iomap.offset + iomap.length) return false;
  return iomap.validityCookie === (wpc.inode as XfsInode).df.seq;
}

/**
 * Makes `wpc.iomap` cover dirty bytes: promised space becomes blocks here (kernel:
 * `xfs_map_blocks`).
 *
 * @returns 0 or a negative errno.
 */
function mapBlocks(
  wpc: IomapWritepageCtx,
  pos: number,
  len: number,
): number {
  const ip = wpc.inode as XfsInode;
  if (ip.mount.dead) return -EIO;
  if (imapValid(wpc, pos)) return 0;
  const off = bToFsbt(ip.mount, pos);
  ilockShared(ip);
  const found = ip.df.lookup(off, cur, imap);
  if (!found || imap.startoff > off) {
    // A hole, or beyond the end: the folio raced with a truncation.
    const end = found ? imap.startoff : bToFsb(ip.mount, pos + len);
    imap.set(off, HOLESTARTBLOCK, end - off, false);
  }
  ip.ilock.upRead();
  let error = 0;
  if (imap.startblock === DELAYSTARTBLOCK) {
    ilockExcl(ip);
    error = bmapiConvertDelalloc(ip, off, imap);
    ip.ilock.upWrite();
  }
  return error < 0 ? error : xfsBmbtToIomap(ip, wpc.iomap, imap, 0);
}

/** Maps dirty bytes and adds them to an ioend (kernel: `xfs_writeback_range`). */
function writebackRange(
  wpc: IomapWritepageCtx,
  folio: Folio,
  pos: number,
  len: number,
  endPos: number,
): MaybePromise<number> {
  const error = mapBlocks(wpc, pos, len);
  if (error < 0) {
    discardFolio(wpc.inode as XfsInode, folio, pos);
    return error;
  }
  return iomapAddToIoend(wpc, folio, pos, endPos, len);
}

/** What could not be mapped gives its promised space back: nothing will come of it
 * (kernel: `xfs_discard_folio`). */
function discardFolio(ip: XfsInode, folio: Folio, pos: number): void {
  const { mount } = ip;
  ilockExcl(ip);
  bmapPunchDelalloc(
    ip,
    bToFsbt(mount, pos),
    bToFsb(mount, folio.pos + folio.size),
  );
  ip.ilock.upWrite();
}

/** Sends an ioend on its way (kernel: `xfs_writeback_submit`). */
function writebackSubmit(
  wpc: IomapWritepageCtx,
  error: number,
): MaybePromise<number> {
  const ioend = wpc.wbCtx as IomapIoend;
  if (needsCompletionWork(ioend)) ioend.bio.endIo = endBio;
  return iomapIoendWritebackSubmit(wpc, error);
}

/** Whether something is to be committed once the data is written (kernel:
 * `xfs_ioend_needs_wq_completion`). */
function needsCompletionWork(ioend: IomapIoend): boolean {
  const flags = IOMAP_IOEND_UNWRITTEN | IOMAP_IOEND_SHARED |
    IOMAP_IOEND_DONTCACHE;
  const ip = ioend.inode as XfsInode;
  return (ioend.flags & flags) !== 0 ||
    ioend.offset + ioend.size > ip.diskSize;
}

const writebackOps: IomapWritebackOps = { writebackRange, writebackSubmit };

/** An ioend's data is written: its inode's worker takes it from here (kernel:
 * `xfs_end_bio`). */
function endBio(bio: Bio): void {
  const ioend = bio.private as IomapIoend;
  const ip = ioend.inode as XfsInode;
  const { clock } = ip.mount.bdev;
  if (ip.ioends.length === 0) clock.at(clock.now(), endIo, ip);
  ip.ioends.push(ioend);
}

/** Completion work of all ioends of an inode that have come in (kernel:
 * `xfs_end_io`). */
function endIo(ip: XfsInode): void {
  const ioends = ip.ioends.splice(0);
  iomapSortIoends(ioends);
  while (ioends.length > 0) {
    const ioend = ioends.shift()!;
    iomapIoendTryMerge(ioend, ioends);
    endIoend(ip, ioend);
  }
}

/** Kernel: `xfs_end_ioend`. */
function endIoend(ip: XfsInode, ioend: IomapIoend): void {
  const { offset, size } = ioend;
  const error = blkStatusToErrno(ioend.bio.status);
  if (error === 0) {
    if ((ioend.flags & IOMAP_IOEND_UNWRITTEN) !== 0) {
      xfsIomapWriteUnwritten(ip, offset, size, false);
    } else setDiskSize(ip, offset + size);
  }
  iomapFinishIoends(ioend, error);
}

/** Kernel: `xfs_vm_writepages`. */
function writepages(
  mapping: AddressSpace,
  wbc: WritebackControl,
): MaybePromise<number> {
  const inode = mapping.host as unknown as Inode;
  return iomapWritepages(new IomapWritepageCtx(inode, wbc, writebackOps));
}

/** Kernel: `xfs_vm_bmap`. */
function bmap(mapping: AddressSpace, block: number): MaybePromise<number> {
  // Whoever asks may want to write there, into somebody else's block.
  if ((mapping.host as unknown as XfsInode).isCow) return 0;
  return iomapBmap(mapping, block, xfsReadIomapOps);
}

/** Methods of a file's page cache (kernel: `xfs_address_space_operations`). */
export const xfsAddressSpaceOperations: AddressSpaceOperations = {
  readFolio: (folio) => iomapReadFolio(folio, xfsReadIomapOps),
  readahead: (rac) => iomapReadahead(rac, xfsReadIomapOps),
  writepages,
  dirtyFolio: iomapDirtyFolio,
  releaseFolio: iomapReleaseFolio,
  invalidateFolio: iomapInvalidateFolio,
  isPartiallyUptodate: iomapIsPartiallyUptodate,
  bmap,
};
