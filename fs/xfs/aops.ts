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
import { EAGAIN, EIO } from "../../lib/errno.ts";
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
  IOMAP_F_SHARED,
  IOMAP_IOEND_DONTCACHE,
  IOMAP_IOEND_SHARED,
  IOMAP_IOEND_UNWRITTEN,
  type IomapWritebackOps,
  IomapWritepageCtx,
} from "../../iomap/iomap.ts";
import { printk } from "../../lib/printk.ts";
import type { Inode } from "../fs.ts";
import { xfsBmapPunchDelallocRange } from "./bmap-util.ts";
import { ilockShared, type XfsInode } from "./inode.ts";
import {
  bToFsb,
  bToFsbt,
  xfsBmbtToIomap,
  xfsIomapInodeSequence,
  xfsIomapWriteUnwritten,
  xfsReadIomapOps,
  xfsSetfilesize,
} from "./iomap.ts";
import { xfsBmapiConvertDelalloc, xfsIreadExtents } from "./libxfs/bmap.ts";
import { BmbtIrec, HOLESTARTBLOCK, IextCursor } from "./libxfs/iext.ts";
import { XFS_COW_FORK, XFS_DATA_FORK } from "./libxfs/format.ts";
import {
  xfsReflinkCancelCowRange,
  xfsReflinkConvertCow,
  xfsReflinkEndCow,
} from "./reflink.ts";

const icur = new IextCursor();
const ccur = new IextCursor();
const imap = new BmbtIrec();
const cmap = new BmbtIrec();

/** A walk over dirty folios (kernel: `struct xfs_writepage_ctx`). */
class XfsWritepageCtx extends IomapWritepageCtx {
  /** State of the copy-on-write fork when it got its mapping. */
  cowSeq = 0;
}

/** Whether the mapping of the last folio serves this one too (kernel:
 * `xfs_imap_valid`). */
function imapValid(wpc: IomapWritepageCtx, pos: number): boolean {
  const { iomap } = wpc;
  if (pos < iomap.offset || pos >= iomap.offset + iomap.length) return false;
  // What goes to the copy-on-write fork stays there until it is on the device.
  if ((iomap.flags & IOMAP_F_SHARED) !== 0) return true;
  const ip = wpc.inode as XfsInode;
  if (iomap.validityCookie % 2 ** 32 !== ip.df.seq) return false;
  return ip.cow === null || ip.cow.nextents === 0 ||
    (wpc as XfsWritepageCtx).cowSeq === ip.cow.seq;
}

/**
 * Makes `wpc.iomap` cover dirty bytes: promised space becomes blocks here (kernel:
 * `xfs_map_blocks`).
 *
 * @returns 0 or a negative errno.
 */
function mapBlocks(wpc: IomapWritepageCtx, pos: number, len: number): number {
  const ip = wpc.inode as XfsInode;
  if (ip.mount.dead) return -EIO;
  if (imapValid(wpc, pos)) return 0;
  const error = mapOnce(wpc, ip, pos, len);
  // Somebody else took the promised space meanwhile: it is found where it is now.
  return error === -EAGAIN ? mapOnce(wpc, ip, pos, len) : error;
}

function mapOnce(
  wpc: IomapWritepageCtx,
  ip: XfsInode,
  pos: number,
  len: number,
): number {
  const off = bToFsbt(ip.mount, pos);
  ilockShared(ip);
  const loaded = xfsIreadExtents(null, ip, XFS_DATA_FORK);
  const whichfork = loaded < 0 ? loaded : findMap(wpc, ip, off, pos + len);
  ip.ilock.upRead();
  if (whichfork < 0) return whichfork;
  const shared = whichfork === XFS_COW_FORK ? IOMAP_F_SHARED : 0;
  if (isPromised(imap)) {
    const error = xfsBmapiConvertDelalloc(ip, whichfork, off, imap);
    if (error < 0) return error;
    // What comes after it may be written out of place.
    if (shared === 0) cutAtCow(ip, off);
  }
  const seq = xfsIomapInodeSequence(ip, shared);
  return xfsBmbtToIomap(ip, wpc.iomap, imap, shared, seq);
}

/** Finds in `imap` where a block is written to; the fork that says so. */
function findMap(
  wpc: IomapWritepageCtx,
  ip: XfsInode,
  off: number,
  endPos: number,
): number {
  if (ip.cow !== null) {
    (wpc as XfsWritepageCtx).cowSeq = ip.cow.seq;
    if (ip.cow.lookup(off, ccur, cmap) && cmap.startoff <= off) {
      imap.copy(cmap);
      return XFS_COW_FORK;
    }
  }
  const found = ip.df.lookup(off, icur, imap);
  if (!found || imap.startoff > off) {
    // A hole, or beyond the end: the folio raced with a truncation.
    const end = found ? imap.startoff : bToFsb(ip.mount, endPos);
    imap.set(off, HOLESTARTBLOCK, end - off, false);
  }
  if (!isPromised(imap)) cutAtCow(ip, off);
  return XFS_DATA_FORK;
}

/** Whether blocks are still to be chosen. */
function isPromised({ startblock }: BmbtIrec): boolean {
  return startblock < 0 && startblock !== HOLESTARTBLOCK;
}

/** The mapping in `imap` ends where the copy-on-write fork has an extent. */
function cutAtCow(ip: XfsInode, off: number): void {
  if (ip.cow === null || !ip.cow.lookup(off, ccur, cmap)) return;
  if (cmap.startoff > off && cmap.startoff < imap.endoff) {
    imap.count = cmap.startoff - imap.startoff;
  }
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
  if (ip.mount.dead) return;
  printk(
    `XFS (${ip.mount.id}): page discard on page of inode ${ip.ino}, pos ${pos}.`,
  );
  xfsBmapPunchDelallocRange(ip, XFS_DATA_FORK, pos, folio.pos + folio.size);
}

/** Sends an ioend on its way (kernel: `xfs_writeback_submit`). */
function writebackSubmit(
  wpc: IomapWritepageCtx,
  error: number,
): MaybePromise<number> {
  const ioend = wpc.wbCtx as IomapIoend;
  const ip = ioend.inode as XfsInode;
  let failed = error;
  if (failed === 0 && (ioend.flags & IOMAP_IOEND_SHARED) !== 0) {
    // From now on the blocks can hold nothing but what is written to them.
    failed = xfsReflinkConvertCow(ip, ioend.offset, ioend.size);
  }
  if (needsCompletionWork(ioend)) ioend.bio.endIo = endBio;
  return iomapIoendWritebackSubmit(wpc, failed);
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

function endIo(ip: XfsInode): void {
  ip.mount.targ.whenIdle(() => endAllIo(ip));
}

/** Completion work of all ioends of an inode that have come in (kernel:
 * `xfs_end_io`). */
function endAllIo(ip: XfsInode): void {
  const ioends = ip.ioends.splice(0);
  iomapSortIoends(ioends);
  while (ioends.length > 0) {
    const ioend = ioends.shift()!;
    iomapIoendTryMerge(ioend, ioends);
    iomapFinishIoends(ioend, endIoend(ip, ioend));
  }
}

/** Kernel: `xfs_end_ioend`. */
function endIoend(ip: XfsInode, ioend: IomapIoend): number {
  const { offset, size } = ioend;
  if (ip.mount.dead) return -EIO;
  const shared = (ioend.flags & IOMAP_IOEND_SHARED) !== 0;
  let error = blkStatusToErrno(ioend.bio.status);
  if (error < 0) {
    if (shared) {
      xfsReflinkCancelCowRange(ip, offset, size, true);
      xfsBmapPunchDelallocRange(ip, XFS_DATA_FORK, offset, offset + size);
    }
    return error;
  }
  if (shared) error = xfsReflinkEndCow(ip, offset, size);
  else if ((ioend.flags & IOMAP_IOEND_UNWRITTEN) !== 0) {
    error = xfsIomapWriteUnwritten(ip, offset, size, false);
  }
  return error < 0 ? error : xfsSetfilesize(ip, offset, size);
}

/** Kernel: `xfs_vm_writepages`. */
function writepages(
  mapping: AddressSpace,
  wbc: WritebackControl,
): MaybePromise<number> {
  const ip = mapping.host as unknown as XfsInode;
  const { targ } = ip.mount;
  if (!targ.busy) return writeNow(ip, wbc);
  // Called by an event while something else is half-way.
  return new Promise<void>((resolve) => targ.whenIdle(resolve)).then(() =>
    writeNow(ip, wbc)
  );
}

function writeNow(inode: Inode, wbc: WritebackControl): MaybePromise<number> {
  return iomapWritepages(new XfsWritepageCtx(inode, wbc, writebackOps));
}

/** Kernel: `xfs_vm_bmap`. */
function bmap(mapping: AddressSpace, block: number): MaybePromise<number> {
  // Whoever asks may want to write there, into somebody else's block.
  if ((mapping.host as unknown as XfsInode).isReflink) return 0;
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
