/**
 * The mapping callbacks: one small set of operations for each kind of use.
 *
 * Kernel counterpart: fs/xfs/xfs_iomap.c.
 *
 * @module
 */

import {
  EAGAIN,
  EINVAL,
  EIO,
  ENOENT,
  ENOPROTOOPT,
  ENOSPC,
} from "../../lib/errno.ts";
import { andThen, type MaybePromise } from "../../lib/maybe-promise.ts";
import { truncatePagecacheRange } from "../../mm/truncate.ts";
import {
  iomapTruncatePage,
  iomapWriteDelallocRelease,
  iomapZeroRange,
} from "../../iomap/buffered-io.ts";
import {
  type Iomap,
  IOMAP_ATOMIC,
  IOMAP_DELALLOC,
  IOMAP_DIRECT,
  IOMAP_F_ATOMIC_BIO,
  IOMAP_F_DIRTY,
  IOMAP_F_NEW,
  IOMAP_F_SHARED,
  IOMAP_FAULT,
  IOMAP_HOLE,
  IOMAP_MAPPED,
  IOMAP_NOWAIT,
  IOMAP_NULL_ADDR,
  IOMAP_OVERWRITE_ONLY,
  IOMAP_REPORT,
  IOMAP_UNSHARE,
  IOMAP_UNWRITTEN,
  IOMAP_ZERO,
  iomapLastWrittenBlock,
  type IomapOps,
  type IomapWriteOps,
} from "../../iomap/iomap.ts";
import type { Inode } from "../fs.ts";
import { ilockExcl, ilockShared, needsIread, type XfsInode } from "./inode.ts";
import {
  XFS_BMAPI_ATTRFORK,
  XFS_BMAPI_CONVERT,
  XFS_BMAPI_COWFORK,
  XFS_BMAPI_EXTSZALIGN,
  XFS_BMAPI_PREALLOC,
  xfsBmapiConvertDelalloc,
  xfsBmapiRead,
  xfsBmapiReserveDelalloc,
  xfsBmapiWrite,
  xfsIreadExtents,
  xfsTrimExtent,
} from "./libxfs/bmap.ts";
import { xfsBmapPunchDelallocRange } from "./bmap-util.ts";
import { XFS_MAX_BMBT_EXTLEN } from "./libxfs/format.ts";
import {
  BmbtIrec,
  DELAYSTARTBLOCK,
  HOLESTARTBLOCK,
  IextCursor,
  type Ifork,
  isnullstartblock,
} from "./libxfs/iext.ts";
import { xfsIforkInitCow } from "./libxfs/inode-fork.ts";
import { XFS_COW_FORK, XFS_DATA_FORK } from "./libxfs/format.ts";
import { xfsDiostratSpaceRes } from "./libxfs/trans-space.ts";
import {
  XFS_ILOG_CORE,
  XFS_TRANS_RESERVE,
  xfsTransAlloc,
} from "./libxfs/trans.ts";
import type { XfsMount } from "./mount.ts";
import {
  xfsBmapTrimCow,
  xfsReflinkAllocateCow,
  xfsReflinkConvertCowLocked,
  xfsReflinkTrimAroundShared,
} from "./reflink.ts";

/** One write maps at most this much of a hole at a time: 1024 pages. */
const MAX_MAP_BYTES = 4 * 2 ** 20;

// Scratch: nothing here is entered twice, as no begin waits while it uses them.
const icur = new IextCursor();
const ccur = new IextCursor();
const pcur = new IextCursor();
const imap = new BmbtIrec();
const cmap = new BmbtIrec();
const before = new BmbtIrec();
const maps = [imap];
const cowMaps = [cmap];

/** Block that a byte lies in (kernel: `XFS_B_TO_FSBT`). */
export function bToFsbt(mp: XfsMount, bytes: number): number {
  return Math.floor(bytes / mp.sb.blocksize);
}

/** Blocks that bytes take (kernel: `XFS_B_TO_FSB`). */
export function bToFsb(mp: XfsMount, bytes: number): number {
  return Math.ceil(bytes / mp.sb.blocksize);
}

/** First block after a range (kernel: `xfs_iomap_end_fsb`). */
function endFsb(mp: XfsMount, offset: number, count: number): number {
  return bToFsb(mp, Math.min(offset + count, mp.maxBytes));
}

/** What a mapping's validity is told by (kernel: `xfs_iomap_inode_sequence`). */
export function xfsIomapInodeSequence(ip: XfsInode, flags: number): number {
  const shared = (flags & IOMAP_F_SHARED) !== 0 && ip.cow !== null;
  // 21 bits of the other fork's count are what a number has room for.
  return ip.df.seq + (shared ? ip.cow!.seq % 2 ** 20 * 2 ** 32 : 0);
}

/**
 * Fills in a mapping from an extent (kernel: `xfs_bmbt_to_iomap`). The caller holds
 * the ILOCK, or held it when it took the sequence number.
 *
 * @param flags `IOMAP_F_*` that the extent does not tell.
 * @param seq See {@linkcode xfsIomapInodeSequence}.
 * @returns 0, or -EFSCORRUPTED for blocks where none can be.
 */
export function xfsBmbtToIomap(
  ip: XfsInode,
  iomap: Iomap,
  rec: BmbtIrec,
  flags: number,
  seq: number,
): number {
  const { mount } = ip;
  const { blocksize } = mount.sb;
  const { startblock } = rec;
  if (startblock >= 0) {
    // Block 0 holds the super block; what else cannot be is refused when it is read.
    if (startblock === 0) return mount.corrupt(`inode ${ip.ino}`, "block 0");
    iomap.addr = mount.sb.fsbToByte(startblock);
    iomap.type = rec.unwritten ? IOMAP_UNWRITTEN : IOMAP_MAPPED;
  } else {
    iomap.addr = IOMAP_NULL_ADDR;
    iomap.type = startblock === HOLESTARTBLOCK ? IOMAP_HOLE : IOMAP_DELALLOC;
  }
  iomap.offset = rec.startoff * blocksize;
  iomap.length = rec.count * blocksize;
  iomap.bdev = mount.bdev;
  iomap.flags = ip.mapLogged ? flags | IOMAP_F_DIRTY : flags;
  iomap.validityCookie = seq;
  return 0;
}

/** A hole up to `end` (kernel: `xfs_hole_to_iomap`). Blocks. */
function xfsHoleToIomap(
  ip: XfsInode,
  iomap: Iomap,
  off: number,
  end: number,
): number {
  const { blocksize } = ip.mount.sb;
  iomap.addr = IOMAP_NULL_ADDR;
  iomap.type = IOMAP_HOLE;
  iomap.offset = off * blocksize;
  iomap.length = (end - off) * blocksize;
  iomap.bdev = ip.mount.bdev;
  iomap.flags = 0;
  iomap.validityCookie = xfsIomapInodeSequence(ip, 0);
  return 0;
}

/** Mapping for reads of every kind, and for reports (kernel: `xfs_read_iomap_begin`). */
function xfsReadIomapBegin(
  inode: Inode,
  pos: number,
  length: number,
  flags: number,
  iomap: Iomap,
): number {
  const ip = inode as XfsInode;
  if (ip.mount.dead) return -EIO;
  const off = bToFsbt(ip.mount, pos);
  const end = endFsb(ip.mount, pos, length);
  if (needsIread(ip) && (flags & IOMAP_NOWAIT) !== 0) return -EAGAIN;
  ilockShared(ip);
  let ret = xfsBmapiRead(ip, off, end - off, maps, 1, 0);
  if (ret > 0 && (flags & IOMAP_REPORT) !== 0) {
    ret = xfsReflinkTrimAroundShared(ip, imap);
  } else if (ret > 0) ret = 0;
  if (ret >= 0) {
    const shared = ret > 0 ? IOMAP_F_SHARED : 0;
    const seq = xfsIomapInodeSequence(ip, shared);
    ret = xfsBmbtToIomap(ip, iomap, imap, shared, seq);
  }
  ip.ilock.upRead();
  return ret;
}

/** Reads, buffered and direct, and FIEMAP (kernel: `xfs_read_iomap_ops`). */
export const xfsReadIomapOps: IomapOps = {
  name: "xfs_read_iomap_ops",
  iomapBegin: xfsReadIomapBegin,
};

/** Mapping for SEEK_DATA and SEEK_HOLE (kernel: `xfs_seek_iomap_begin`). */
function xfsSeekIomapBegin(
  inode: Inode,
  pos: number,
  length: number,
  _flags: number,
  iomap: Iomap,
): number {
  const ip = inode as XfsInode;
  if (ip.mount.dead) return -EIO;
  ilockShared(ip);
  const loaded = xfsIreadExtents(null, ip, XFS_DATA_FORK);
  const ret = loaded < 0 ? loaded : seekMap(ip, pos, length, iomap);
  ip.ilock.upRead();
  return ret;
}

function seekMap(
  ip: XfsInode,
  pos: number,
  length: number,
  iomap: Iomap,
): number {
  const off = bToFsbt(ip.mount, pos);
  const end = endFsb(ip.mount, pos, length);
  let dataFsb: number;
  if (ip.df.lookup(off, icur, imap)) {
    if (imap.startoff <= off) return seekFound(ip, imap, off, end, iomap);
    dataFsb = Math.min(end, imap.startoff);
  } else dataFsb = end;
  // What only the copy-on-write fork knows of: whether it is data, the cache tells.
  let cowFsb = Infinity;
  if (ip.cow !== null && ip.cow.lookup(off, ccur, cmap)) {
    cowFsb = cmap.startoff;
  }
  if (cowFsb <= off) {
    const limit = Math.min(end, dataFsb);
    xfsTrimExtent(cmap, off, limit - off);
    const seq = xfsIomapInodeSequence(ip, IOMAP_F_SHARED);
    const error = xfsBmbtToIomap(ip, iomap, delayed(cmap), IOMAP_F_SHARED, seq);
    // So that the cache is asked.
    iomap.type = IOMAP_UNWRITTEN;
    return error;
  }
  imap.set(off, HOLESTARTBLOCK, Math.min(dataFsb, cowFsb) - off, false);
  return seekFound(ip, imap, off, end, iomap);
}

function seekFound(
  ip: XfsInode,
  rec: BmbtIrec,
  off: number,
  end: number,
  iomap: Iomap,
): number {
  const seq = xfsIomapInodeSequence(ip, 0);
  xfsTrimExtent(rec, off, end - off);
  return xfsBmbtToIomap(ip, iomap, delayed(rec), 0, seq);
}

/** An extent from the list, as it is reported. */
function delayed(rec: BmbtIrec): BmbtIrec {
  if (rec.startblock < 0 && rec.startblock !== HOLESTARTBLOCK) {
    rec.startblock = DELAYSTARTBLOCK;
  }
  return rec;
}

/** SEEK_DATA and SEEK_HOLE (kernel: `xfs_seek_iomap_ops`). */
export const xfsSeekIomapOps: IomapOps = {
  name: "xfs_seek_iomap_ops",
  iomapBegin: xfsSeekIomapBegin,
};

/** Mapping for FIEMAP of attributes (kernel: `xfs_xattr_iomap_begin`). */
function xfsXattrIomapBegin(
  inode: Inode,
  pos: number,
  length: number,
  _flags: number,
  iomap: Iomap,
): number {
  const ip = inode as XfsInode;
  if (ip.mount.dead) return -EIO;
  const off = bToFsbt(ip.mount, pos);
  const end = bToFsb(ip.mount, pos + length);
  ilockShared(ip);
  let ret: number = -ENOENT;
  // Attributes in the inode have no blocks.
  if (ip.af !== null && ip.af.nextents > 0) {
    ret = xfsBmapiRead(ip, off, end - off, maps, 1, XFS_BMAPI_ATTRFORK);
    if (ret > 0) ret = xfsBmbtToIomap(ip, iomap, imap, 0, ip.af.seq);
  }
  ip.ilock.upRead();
  return ret;
}

/** FIEMAP of attributes (kernel: `xfs_xattr_iomap_ops`). */
export const xfsXattrIomapOps: IomapOps = {
  name: "xfs_xattr_iomap_ops",
  iomapBegin: xfsXattrIomapBegin,
};

/**
 * Mapping for a buffered write or zeroing: what is there, else promised space
 * (kernel: `xfs_buffered_write_iomap_begin`).
 */
function xfsBufferedWriteIomapBegin(
  inode: Inode,
  pos: number,
  length: number,
  flags: number,
  iomap: Iomap,
  srcmap: Iomap,
): MaybePromise<number> {
  const ip = inode as XfsInode;
  const { mount } = ip;
  if (mount.dead) return -EIO;
  // Promised space cannot keep to a hint.
  if (ip.extszHint !== 0) {
    return xfsDirectWriteIomapBegin(inode, pos, length, flags, iomap, srcmap);
  }
  if (needsIread(ip) && (flags & IOMAP_NOWAIT) !== 0) return -EAGAIN;
  ilockExcl(ip);
  const loaded = xfsIreadExtents(null, ip, XFS_DATA_FORK);
  const ret = loaded < 0
    ? loaded
    : bufferedWriteMap(ip, pos, length, flags, iomap, srcmap);
  ip.ilock.upWrite();
  return ret === CONVERT_DELAY ? convertDelay(ip, pos, iomap) : ret;
}

/** What {@linkcode bufferedWriteMap} answers where promised space beyond the end of
 * the file is to be zeroed. */
const CONVERT_DELAY = 1;

function bufferedWriteMap(
  ip: XfsInode,
  pos: number,
  length: number,
  flags: number,
  iomap: Iomap,
  srcmap: Iomap,
): number {
  const { mount } = ip;
  const off = bToFsbt(mount, pos);
  let end = endFsb(mount, pos, length);
  const eof = !ip.df.lookup(off, icur, imap);
  if (eof) imap.startoff = end;
  if (
    (flags & (IOMAP_ZERO | IOMAP_UNSHARE)) !== 0 && imap.startoff > off
  ) {
    // What is not there needs neither zeroing nor a copy.
    return xfsHoleToIomap(ip, iomap, off, imap.startoff);
  }
  const promised = !eof && isnullstartblock(imap.startblock);
  if ((flags & IOMAP_ZERO) !== 0 && imap.startoff <= off && promised) {
    const sizeFsb = bToFsb(mount, ip.size);
    if (off >= sizeFsb) return CONVERT_DELAY;
    if (end > sizeFsb) {
      end = sizeFsb;
      xfsTrimExtent(imap, off, end - off);
    }
  }
  if (ip.isReflink) {
    xfsIforkInitCow(ip);
    const cowEof = !ip.cow!.lookup(off, ccur, cmap);
    if (!cowEof && cmap.startoff <= off) {
      return foundCow(ip, off, 0, iomap, srcmap);
    }
    if (imap.startoff <= off) {
      return overwriteMap(ip, off, end, flags, cowEof, iomap, srcmap);
    }
  } else if (imap.startoff <= off) return foundData(ip, 0, iomap);
  return reserveForWrite(ip, pos, length, off, eof, iomap);
}

/** The write goes to an extent that a reflinked file has: shared blocks get others
 * promised in their place. `cmap` is the extent of the copy-on-write fork behind it
 * unless `cowEof`. */
function overwriteMap(
  ip: XfsInode,
  off: number,
  end: number,
  flags: number,
  cowEof: boolean,
  iomap: Iomap,
  srcmap: Iomap,
): number {
  if ((flags & IOMAP_ZERO) !== 0 && imap.unwritten) {
    return foundData(ip, 0, iomap);
  }
  xfsTrimExtent(imap, off, end - off);
  const shared = xfsBmapTrimCow(ip, imap);
  if (shared <= 0) return shared < 0 ? shared : foundData(ip, 0, iomap);
  const reserved = xfsBmapiReserveDelalloc(
    ip,
    XFS_COW_FORK,
    off,
    imap.endoff - off,
    0,
    cmap,
    ccur,
    cowEof,
  );
  if (reserved < 0) return reserved;
  return foundCow(ip, off, IOMAP_F_NEW, iomap, srcmap);
}

/** The data fork's extent in `imap` is the mapping. */
function foundData(ip: XfsInode, flags: number, iomap: Iomap): number {
  const seq = xfsIomapInodeSequence(ip, flags);
  return xfsBmbtToIomap(ip, iomap, delayed(imap), flags, seq);
}

/** The copy-on-write fork's extent in `cmap` is the mapping, `imap` what is read. */
function foundCow(
  ip: XfsInode,
  off: number,
  flags: number,
  iomap: Iomap,
  srcmap: Iomap,
): number {
  if (imap.startoff <= off) {
    const seq = xfsIomapInodeSequence(ip, 0);
    const error = xfsBmbtToIomap(ip, srcmap, delayed(imap), 0, seq);
    if (error < 0) return error;
  } else xfsTrimExtent(cmap, off, imap.startoff - off);
  const shared = flags | IOMAP_F_SHARED;
  const seq = xfsIomapInodeSequence(ip, shared);
  return xfsBmbtToIomap(ip, iomap, delayed(cmap), shared, seq);
}

/** Zeroing beyond the end of the file: the space becomes real instead, and reads as
 * zero by itself. */
function convertDelay(
  ip: XfsInode,
  pos: number,
  iomap: Iomap,
): MaybePromise<number> {
  const dropped = truncatePagecacheRange(ip.mapping, pos, Infinity);
  return andThen(dropped, () => {
    const off = bToFsbt(ip.mount, pos);
    const error = xfsBmapiConvertDelalloc(ip, XFS_DATA_FORK, off, imap);
    if (error < 0) return error;
    return xfsBmbtToIomap(ip, iomap, imap, 0, xfsIomapInodeSequence(ip, 0));
  });
}

/** Promises space for a write into a hole; `imap` is the extent after it unless
 * `eof`, and the cursor stands there. */
function reserveForWrite(
  ip: XfsInode,
  pos: number,
  length: number,
  off: number,
  eof: boolean,
  iomap: Iomap,
): number {
  const count = Math.min(length, MAX_MAP_BYTES);
  const end = endFsb(ip.mount, pos, count);
  let prealloc = 0;
  if (eof && pos + count > ip.size) {
    prealloc = preallocBlocks(ip, pos, count, end);
  }
  const ret = xfsBmapiReserveDelalloc(
    ip,
    XFS_DATA_FORK,
    off,
    end - off,
    prealloc,
    imap,
    icur,
    eof,
  );
  return ret < 0 ? ret : foundData(ip, IOMAP_F_NEW, iomap);
}

/** Blocks to promise beyond what a write at the end of the file needs. */
function preallocBlocks(
  ip: XfsInode,
  pos: number,
  count: number,
  end: number,
): number {
  const { mount } = ip;
  const blocks = mount.fixedAllocsize
    ? mount.allocsizeBlocks
    : preallocSize(ip, pos);
  if (blocks === 0) return 0;
  const unit = 2 ** mount.allocsizeLog;
  const aligned = Math.floor((pos + count - 1) / unit) * unit;
  let wish = bToFsbt(mount, aligned) + blocks;
  const align = eofAlignment(ip);
  if (align > 0) wish = Math.ceil(wish / align) * align;
  return Math.max(0, Math.min(wish, bToFsb(mount, mount.maxBytes)) - end);
}

/** Blocks to whose multiple a file's space ends, 0 if to none (kernel:
 * `xfs_eof_alignment`). */
function eofAlignment(ip: XfsInode): number {
  const { unit } = ip.mount.sb;
  return unit > 0 && ip.size >= unit * ip.mount.sb.blocksize ? unit : 0;
}

/** Size of the speculative preallocation, blocks: it grows with the contiguous extents
 * at the end of the file (kernel: `xfs_iomap_prealloc_size`). */
function preallocSize(ip: XfsInode, pos: number): number {
  const { mount, df } = ip;
  const least = mount.allocsizeBlocks;
  if (ip.size < least * mount.sb.blocksize) return 0;
  if (ip.size < mount.sb.unit * mount.sb.blocksize) return least;
  const found = df.last(pcur, before);
  if (!found || before.endoff < bToFsbt(mount, pos)) return least;
  let run = before.count;
  let start = before.startoff;
  let block = before.startblock;
  while (run <= XFS_MAX_BMBT_EXTLEN / 2 && df.prev(pcur, before)) {
    const contiguous = before.startblock >= 0 && before.endoff === start &&
      before.startblock + before.count === block;
    if (!contiguous) break;
    run += before.count;
    start = before.startoff;
    block = before.startblock;
  }
  let blocks = run * 2;
  if (blocks > XFS_MAX_BMBT_EXTLEN) blocks = bToFsb(mount, pos);
  blocks = Math.min(blocks, XFS_MAX_BMBT_EXTLEN + 1);
  const free = mount.fdblocks;
  blocks = Math.floor(blocks / 2 ** lowSpaceShift(mount, free));
  if (blocks > 0) blocks = 2 ** Math.floor(Math.log2(blocks));
  blocks = Math.min(blocks, XFS_MAX_BMBT_EXTLEN);
  while (blocks > 0 && blocks >= free) blocks = Math.floor(blocks / 16);
  return Math.max(blocks, least);
}

/** Preallocation shrinks as space runs out: below 5 % free by 2 bits, by one more below
 * each of 4, 3, 2 and 1 %. */
function lowSpaceShift(mp: XfsMount, free: number): number {
  const percent = Math.floor(mp.sb.dblocks / 100);
  if (free >= 5 * percent) return 0;
  let shift = 2;
  for (let p = 4; p > 0; p--) if (free < p * percent) shift++;
  return shift;
}

/** Gives promised space back that a short write did not use (kernel:
 * `xfs_buffered_write_iomap_end`). */
function xfsBufferedWriteIomapEnd(
  inode: Inode,
  pos: number,
  length: number,
  written: number,
  flags: number,
  iomap: Iomap,
): MaybePromise<number> {
  if (iomap.type !== IOMAP_DELALLOC || (iomap.flags & IOMAP_F_NEW) === 0) {
    return 0;
  }
  // A fault promised the whole page and has written nothing yet.
  if ((flags & IOMAP_FAULT) !== 0) return 0;
  const start = iomapLastWrittenBlock(inode, pos, written);
  const bs = (inode as XfsInode).mount.sb.blocksize;
  const end = Math.ceil((pos + length) / bs) * bs;
  return start < end ? releaseUnused(inode, start, end, flags, iomap) : 0;
}

/** Gives promised space back; apart, as its closure would cost every write. */
function releaseUnused(
  inode: Inode,
  start: number,
  end: number,
  flags: number,
  iomap: Iomap,
): MaybePromise<number> {
  // Zeroing and unsharing hold the lock already.
  if ((flags & (IOMAP_UNSHARE | IOMAP_ZERO)) !== 0) {
    return andThen(releaseDelalloc(inode, start, end, flags, iomap), zero);
  }
  const { invalidateLock } = inode.mapping;
  return andThen(invalidateLock.downWrite(), () => {
    const released = releaseDelalloc(inode, start, end, flags, iomap);
    return andThen(released, () => {
      invalidateLock.upWrite();
      return 0;
    });
  });
}

function zero(): number {
  return 0;
}

function releaseDelalloc(
  inode: Inode,
  start: number,
  end: number,
  flags: number,
  iomap: Iomap,
): MaybePromise<void> {
  return iomapWriteDelallocRelease(
    inode,
    start,
    end,
    flags,
    iomap,
    punchDelalloc,
  );
}

/** Takes promised space of whole blocks back (kernel:
 * `xfs_buffered_write_delalloc_punch`). Bytes. */
function punchDelalloc(
  inode: Inode,
  offset: number,
  length: number,
  iomap: Iomap,
): void {
  const shared = (iomap.flags & IOMAP_F_SHARED) !== 0;
  xfsBmapPunchDelallocRange(
    inode as XfsInode,
    shared ? XFS_COW_FORK : XFS_DATA_FORK,
    offset,
    offset + length,
  );
}

/** Buffered writes and zeroing (kernel: `xfs_buffered_write_iomap_ops`). */
export const xfsBufferedWriteIomapOps: IomapOps = {
  name: "xfs_buffered_write_iomap_ops",
  iomapBegin: xfsBufferedWriteIomapBegin,
  iomapEnd: xfsBufferedWriteIomapEnd,
};

/** Whether a mapping still holds (kernel: `xfs_iomap_valid`). A hole always does: what
 * is written into one is not lost, as it gets space of its own at writeback. */
function xfsIomapValid(inode: Inode, iomap: Iomap): boolean {
  if (iomap.type === IOMAP_HOLE) return true;
  const seq = xfsIomapInodeSequence(inode as XfsInode, iomap.flags);
  return iomap.validityCookie === seq;
}

/** Hooks of buffered writes (kernel: `xfs_iomap_write_ops`). */
export const xfsIomapWriteOps: IomapWriteOps = { iomapValid: xfsIomapValid };

/**
 * Mapping for a direct write: blocks of its own, unwritten where they are new (kernel:
 * `xfs_direct_write_iomap_begin`).
 */
function xfsDirectWriteIomapBegin(
  inode: Inode,
  pos: number,
  length: number,
  flags: number,
  iomap: Iomap,
  srcmap: Iomap,
): MaybePromise<number> {
  const ip = inode as XfsInode;
  const { mount } = ip;
  if (mount.dead) return -EIO;
  // Beyond the end of the file completion has a size to commit.
  let iomapFlags = pos + length > ip.size ? IOMAP_F_DIRTY : 0;
  if ((flags & IOMAP_ATOMIC) !== 0) iomapFlags |= IOMAP_F_ATOMIC_BIO;
  if (needsIread(ip) && (flags & IOMAP_NOWAIT) !== 0) return -EAGAIN;
  // Copying may have to allocate or convert.
  const exclusive = ip.isReflink || needsIread(ip);
  if (exclusive) ilockExcl(ip);
  else ilockShared(ip);
  const ret = directWriteMap(
    ip,
    pos,
    length,
    flags,
    iomapFlags,
    iomap,
    srcmap,
  );
  if (exclusive) ip.ilock.upWrite();
  else ip.ilock.upRead();
  if (ret !== ALLOCATE) return ret;
  return writeDirect(ip, pos, length, iomapFlags, iomap);
}

/** What {@linkcode directWriteMap} answers where blocks are to be allocated: `imap` says
 * for what. */
const ALLOCATE = 1;

function directWriteMap(
  ip: XfsInode,
  pos: number,
  length: number,
  flags: number,
  iomapFlags: number,
  iomap: Iomap,
  srcmap: Iomap,
): number {
  const { mount } = ip;
  const off = bToFsbt(mount, pos);
  const lastFsb = endFsb(mount, pos, length);
  let end = lastFsb;
  let len = length;
  const read = xfsBmapiRead(ip, off, end - off, maps, 1, 0);
  if (read < 0) return read;
  const atomic = (flags & IOMAP_ATOMIC) !== 0;
  if (needsCow(ip, flags)) {
    if ((flags & IOMAP_NOWAIT) !== 0) return -EAGAIN;
    const convert = (flags & IOMAP_DIRECT) !== 0;
    const shared = xfsReflinkAllocateCow(ip, imap, cmap, convert);
    if (shared < 0) return shared;
    if (shared > 0) {
      if (atomic && !mayWriteAtomic(ip, cmap, off, end)) return -ENOPROTOOPT;
      return directCow(ip, iomapFlags, iomap, srcmap);
    }
    end = imap.endoff;
    len = end * mount.sb.blocksize - pos;
  }
  const needsBlocks = (flags & IOMAP_ZERO) === 0 && imap.startblock < 0;
  if (atomic) {
    // More blocks may be allocated in more places than one.
    if (needsBlocks && lastFsb - off > 1) return -ENOPROTOOPT;
    if (!mayWriteAtomic(ip, imap, off, lastFsb)) return -ENOPROTOOPT;
  }
  if (needsBlocks) {
    const must = (flags & (IOMAP_NOWAIT | IOMAP_OVERWRITE_ONLY)) !== 0;
    return must ? -EAGAIN : ALLOCATE;
  }
  const error = mayOverwrite(mount, pos, len, flags, off, end);
  return error < 0 ? error : foundData(ip, iomapFlags, iomap);
}

/** Whether what is in `imap` may be shared with others (kernel: `imap_needs_cow`). */
function needsCow(ip: XfsInode, flags: number): boolean {
  if (!ip.isReflink) return false;
  if ((flags & (IOMAP_UNSHARE | IOMAP_ZERO)) === 0) return true;
  return imap.startblock !== HOLESTARTBLOCK && !imap.unwritten;
}

/** A direct write goes to `cmap`; `imap` is what it takes the place of. */
function directCow(
  ip: XfsInode,
  iomapFlags: number,
  iomap: Iomap,
  srcmap: Iomap,
): number {
  if (imap.startblock !== HOLESTARTBLOCK) {
    const seq = xfsIomapInodeSequence(ip, 0);
    const error = xfsBmbtToIomap(ip, srcmap, delayed(imap), 0, seq);
    if (error < 0) return error;
  }
  const flags = (iomapFlags & IOMAP_F_ATOMIC_BIO) | IOMAP_F_SHARED;
  const seq = xfsIomapInodeSequence(ip, IOMAP_F_SHARED);
  return xfsBmbtToIomap(ip, iomap, delayed(cmap), flags, seq);
}

/** Whether the device keeps a write to an extent whole (kernel:
 * `xfs_bmap_hw_atomic_write_possible`). Blocks. */
function mayWriteAtomic(
  ip: XfsInode,
  rec: BmbtIrec,
  off: number,
  end: number,
): boolean {
  const count = end - off;
  if (count * ip.mount.sb.blocksize > ip.atomicHwMax) return false;
  // A single block that is still to be allocated is whole wherever it comes to lie.
  if (rec.startblock < 0) return true;
  const one = rec.startoff <= off && rec.endoff >= end;
  return one && (rec.startblock + off - rec.startoff) % count === 0;
}

/** Whether a write may use the extent in `imap`, or the errno. */
function mayOverwrite(
  mp: XfsMount,
  pos: number,
  length: number,
  flags: number,
  off: number,
  end: number,
): number {
  if ((flags & (IOMAP_NOWAIT | IOMAP_OVERWRITE_ONLY)) === 0) return 0;
  // One that spans extents would have to wait half-way.
  if (imap.startoff > off || imap.endoff < end) return -EAGAIN;
  if ((flags & IOMAP_OVERWRITE_ONLY) === 0 || !imap.unwritten) return 0;
  // Converting part of a block needs its rest zeroed, by one task alone.
  const mask = mp.sb.blocksize - 1;
  return (pos & mask) !== 0 || (length & mask) !== 0 ? -EAGAIN : 0;
}

/** Allocates for a direct write what `imap`, a hole or promised space, lacks. */
function writeDirect(
  ip: XfsInode,
  pos: number,
  length: number,
  iomapFlags: number,
  iomap: Iomap,
): MaybePromise<number> {
  const { mount } = ip;
  // Only so far it is known that no copy is being made.
  const known = ip.isReflink ? imap.endoff * mount.sb.blocksize - pos : length;
  const count = Math.min(length, known, MAX_MAP_BYTES);
  const off = bToFsbt(mount, pos);
  let end = endFsb(mount, pos, count);
  if (pos + count > ip.size) end = eofAlignLastFsb(ip, end);
  else if (imap.startblock === HOLESTARTBLOCK) end = Math.min(end, imap.endoff);
  return allocateDirect(ip, off, end, iomapFlags, iomap);
}

/** Where an allocation at the end of a file ends (kernel:
 * `xfs_iomap_eof_align_last_fsb`). Blocks. */
function eofAlignLastFsb(ip: XfsInode, end: number): number {
  const hint = ip.extszHint;
  let align = eofAlignment(ip);
  if (hint > 0) align = align > 0 ? Math.ceil(align / hint) * hint : hint;
  if (align === 0) return end;
  const last = Math.ceil(end / align) * align;
  // Only behind all that is there.
  return ip.df.last(pcur, before) && before.endoff > end ? end : last;
}

/** Blocks [off, end) of the file get space, or as many from `off` on as one mapping
 * has (kernel: `xfs_iomap_write_direct`). */
function allocateDirect(
  ip: XfsInode,
  off: number,
  end: number,
  iomapFlags: number,
  iomap: Iomap,
): number {
  const { mount } = ip;
  const hint = ip.extszHint;
  const blocks = hint > 0
    ? Math.ceil(end / hint) * hint - Math.floor(off / hint) * hint
    : end - off;
  const tp = xfsTransAlloc(mount, xfsDiostratSpaceRes(mount, blocks));
  if (typeof tp === "number") return tp;
  ilockExcl(ip);
  const nmaps = xfsBmapiWrite(
    tp,
    ip,
    off,
    end - off,
    XFS_BMAPI_PREALLOC,
    0,
    maps,
    1,
  );
  let error = nmaps;
  if (nmaps < 0) tp.cancel();
  else error = tp.commit();
  if (error === 0) {
    const seq = xfsIomapInodeSequence(ip, 0);
    const flags = IOMAP_F_NEW | iomapFlags;
    error = nmaps === 0
      ? -ENOSPC
      : xfsBmbtToIomap(ip, iomap, delayed(imap), flags, seq);
  }
  ip.ilock.upWrite();
  return error;
}

/** Direct writes (kernel: `xfs_direct_write_iomap_ops`). */
export const xfsDirectWriteIomapOps: IomapOps = {
  name: "xfs_direct_write_iomap_ops",
  iomapBegin: xfsDirectWriteIomapBegin,
};

/** Mapping for an atomic write that the device does not keep whole: other blocks, which
 * take the place of the old ones in one transaction (kernel:
 * `xfs_atomic_write_cow_iomap_begin`). */
function xfsAtomicWriteCowIomapBegin(
  inode: Inode,
  pos: number,
  length: number,
  flags: number,
  iomap: Iomap,
): number {
  const ip = inode as XfsInode;
  const { mount } = ip;
  if (mount.dead) return -EIO;
  if (!mount.sb.hasReflink) return -EINVAL;
  if ((flags & IOMAP_NOWAIT) !== 0) return -EAGAIN;
  const off = bToFsbt(mount, pos);
  const end = endFsb(mount, pos, length);
  xfsIforkInitCow(ip);
  const promised = convertPromisedCow(ip, ip.cow!, off);
  if (promised < 0) return promised;
  ilockExcl(ip);
  let error = atomicCowExtent(ip, ip.cow!, off, end);
  if (error === 0 && cmap.unwritten) {
    error = xfsReflinkConvertCowLocked(ip, cmap.startoff, cmap.count);
    cmap.unwritten = false;
  }
  if (error === 0) {
    const seq = xfsIomapInodeSequence(ip, IOMAP_F_SHARED);
    error = xfsBmbtToIomap(ip, iomap, cmap, IOMAP_F_SHARED, seq);
  }
  ip.ilock.upWrite();
  return error;
}

/** What was promised for a copy of a neighbouring block may reach to `off`, and the cache
 * still hold what is to be written there: it gets its blocks now. */
function convertPromisedCow(ip: XfsInode, cow: Ifork, off: number): number {
  if (!cow.lookup(off, ccur, cmap) || cmap.startoff > off) return 0;
  if (!isnullstartblock(cmap.startblock)) return 0;
  return xfsBmapiConvertDelalloc(ip, XFS_COW_FORK, off, cmap);
}

/** Sees to it that the copy-on-write fork has blocks at `off`: those up to `end`, or the
 * next extent there. The result is in `cmap`. */
function atomicCowExtent(
  ip: XfsInode,
  cow: Ifork,
  off: number,
  end: number,
): number {
  const { mount } = ip;
  if (!cow.lookup(off, ccur, cmap)) cmap.startoff = end;
  if (cmap.startoff <= off) {
    xfsTrimExtent(cmap, off, end - off);
    return 0;
  }
  // As far as the next one, and not only as far as it is asked for.
  const last = cmap.startoff;
  const hint = ip.cowextszHint;
  const blocks = Math.ceil(last / hint) * hint - Math.floor(off / hint) * hint;
  const res = xfsDiostratSpaceRes(mount, blocks);
  const tp = xfsTransAlloc(mount, res);
  if (typeof tp === "number") return tp;
  const nmaps = xfsBmapiWrite(
    tp,
    ip,
    off,
    last - off,
    XFS_BMAPI_COWFORK | XFS_BMAPI_PREALLOC | XFS_BMAPI_EXTSZALIGN,
    0,
    cowMaps,
    1,
  );
  mount.blockgc.add(ip);
  if (nmaps <= 0) {
    tp.cancel();
    return nmaps < 0 ? nmaps : -ENOSPC;
  }
  const error = tp.commit();
  // Blocks beyond the write stay as they are.
  if (error === 0) xfsTrimExtent(cmap, off, end - off);
  return error;
}

/** Atomic writes out of place (kernel: `xfs_atomic_write_cow_iomap_ops`). */
export const xfsAtomicWriteCowIomapOps: IomapOps = {
  name: "xfs_atomic_write_cow_iomap_ops",
  iomapBegin: xfsAtomicWriteCowIomapBegin,
};

/**
 * Data has been written into unwritten blocks: from now on they read as it (kernel:
 * `xfs_iomap_write_unwritten`). A transaction for each extent.
 *
 * @param offset First byte.
 * @param count Bytes.
 * @param updateSize The file may end here: direct I/O.
 * @returns 0 or a negative errno.
 */
export function xfsIomapWriteUnwritten(
  ip: XfsInode,
  offset: number,
  count: number,
  updateSize: boolean,
): number {
  const { mount } = ip;
  let off = bToFsbt(mount, offset);
  const end = bToFsb(mount, offset + count);
  const res = xfsDiostratSpaceRes(mount, 0) * 2;
  while (off < end) {
    const tp = xfsTransAlloc(mount, res, XFS_TRANS_RESERVE);
    if (typeof tp === "number") return tp;
    ilockExcl(ip);
    const flags = XFS_BMAPI_CONVERT;
    const n = xfsBmapiWrite(tp, ip, off, end - off, flags, res, maps, 1);
    if (n < 0) {
      tp.cancel();
      ip.ilock.upWrite();
      return n;
    }
    // Size and state change together: data never shows up as a hole in between.
    const done = Math.min(offset + count, imap.endoff * mount.sb.blocksize);
    if (updateSize && done > ip.size) ip.size = done;
    const size = Math.min(done, ip.size);
    if (size > ip.diskSize) {
      ip.diskSize = size;
      tp.logInode(ip, XFS_ILOG_CORE);
    }
    const error = tp.commit();
    ip.ilock.upWrite();
    if (error < 0) return error;
    if (n === 0 || imap.startblock < 0) {
      return mount.corrupt(`inode ${ip.ino}`, `no blocks at ${off} to convert`);
    }
    off = imap.endoff;
  }
  return 0;
}

/**
 * The size on disk grows to the end of what was written, but not beyond the file's
 * (kernel: `xfs_setfilesize`).
 *
 * @returns 0 or a negative errno.
 */
export function xfsSetfilesize(
  ip: XfsInode,
  offset: number,
  count: number,
): number {
  const size = Math.min(offset + count, ip.size);
  if (size <= ip.diskSize) return 0;
  const tp = xfsTransAlloc(ip.mount, 0);
  if (typeof tp === "number") return tp;
  ilockExcl(ip);
  ip.diskSize = size;
  tp.logInode(ip, XFS_ILOG_CORE);
  const error = tp.commit();
  ip.ilock.upWrite();
  return error;
}

/**
 * Zeroes a range where it is mapped (kernel: `xfs_zero_range`). The caller holds
 * IOLOCK and MMAPLOCK exclusively.
 *
 * @param didZero Told whether anything was zeroed.
 * @returns 0 or a negative errno.
 */
export function xfsZeroRange(
  ip: XfsInode,
  pos: number,
  len: number,
  didZero: { value: boolean } | null,
): MaybePromise<number> {
  return iomapZeroRange(
    ip,
    pos,
    len,
    didZero,
    xfsBufferedWriteIomapOps,
    xfsIomapWriteOps,
    null,
  );
}

/**
 * Zeroes the rest of the block at a new end of the file (kernel: `xfs_truncate_page`).
 * The caller holds IOLOCK and MMAPLOCK exclusively.
 *
 * @returns 0 or a negative errno.
 */
export function xfsTruncatePage(
  ip: XfsInode,
  pos: number,
  didZero: { value: boolean } | null,
): MaybePromise<number> {
  return iomapTruncatePage(
    ip,
    pos,
    didZero,
    xfsBufferedWriteIomapOps,
    xfsIomapWriteOps,
    null,
  );
}
