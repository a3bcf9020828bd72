/**
 * The mapping callbacks: one small set of operations for each kind of use.
 *
 * Kernel counterpart: fs/xfs/xfs_iomap.c.
 *
 * @module
 */

import {
  EAGAIN,
  EFSCORRUPTED,
  EIO,
  ENOENT,
  ENOPROTOOPT,
  ENOSPC,
} from "../../lib/errno.ts";
import { andThen, type MaybePromise } from "../../lib/maybe-promise.ts";
import { truncatePagecacheRange } from "../../mm/truncate.ts";
import {
  iomapWriteDelallocRelease,
  iomapZeroRange,
} from "../../iomap/buffered-io.ts";
import {
  type Iomap,
  IOMAP_ATOMIC,
  IOMAP_DELALLOC,
  IOMAP_F_ATOMIC_BIO,
  IOMAP_F_DIRTY,
  IOMAP_F_NEW,
  IOMAP_FAULT,
  IOMAP_HOLE,
  IOMAP_MAPPED,
  IOMAP_NOWAIT,
  IOMAP_NULL_ADDR,
  IOMAP_OVERWRITE_ONLY,
  IOMAP_UNSHARE,
  IOMAP_UNWRITTEN,
  IOMAP_ZERO,
  iomapLastWrittenBlock,
  type IomapOps,
  type IomapWriteOps,
} from "../../iomap/iomap.ts";
import type { Inode } from "../fs.ts";
import {
  bmapConvertUnwritten,
  bmapiConvertDelalloc,
  bmapiRead,
  bmapiReserveDelalloc,
  bmapiWrite,
  bmapPunchDelalloc,
  MAX_BMBT_EXTLEN,
} from "./bmap.ts";
import { freeAllEofblocks } from "./bmap-util.ts";
import {
  BmbtIrec,
  DELAYSTARTBLOCK,
  HOLESTARTBLOCK,
  IextCursor,
} from "./iext.ts";
import { ilockExcl, ilockShared, type XfsInode } from "./inode.ts";
import type { XfsMount } from "./mount.ts";

/** One write maps at most this much of a hole at a time: 1024 pages. */
const MAX_MAP_BYTES = 4 * 2 ** 20;

// Scratch: nothing here is entered twice, as no begin waits while it uses them.
const cur = new IextCursor();
const imap = new BmbtIrec();
const before = new BmbtIrec();

/** Block that a byte lies in (kernel: `XFS_B_TO_FSBT`). */
export function bToFsbt(mp: XfsMount, bytes: number): number {
  return Math.floor(bytes / mp.geo.blockSize);
}

/** Blocks that bytes take (kernel: `XFS_B_TO_FSB`). */
export function bToFsb(mp: XfsMount, bytes: number): number {
  return Math.ceil(bytes / mp.geo.blockSize);
}

/** First block after a range (kernel: `xfs_iomap_end_fsb`). */
function endFsb(mp: XfsMount, offset: number, count: number): number {
  return bToFsb(mp, Math.min(offset + count, mp.maxBytes));
}

/**
 * Fills in a mapping from an extent (kernel: `xfs_bmbt_to_iomap`). The caller holds
 * the ILOCK, or held it when it took the sequence number.
 *
 * @param flags `IOMAP_F_*` that the extent does not tell.
 * @returns 0, or -EFSCORRUPTED for blocks where none can be.
 */
export function xfsBmbtToIomap(
  ip: XfsInode,
  iomap: Iomap,
  rec: BmbtIrec,
  flags: number,
): number {
  const { mount } = ip;
  const { blockSize } = mount.geo;
  if (rec.startblock === 0) return -EFSCORRUPTED;
  if (rec.startblock > 0) {
    iomap.addr = rec.startblock * blockSize;
    iomap.type = rec.unwritten ? IOMAP_UNWRITTEN : IOMAP_MAPPED;
  } else {
    iomap.addr = IOMAP_NULL_ADDR;
    iomap.type = rec.startblock === HOLESTARTBLOCK
      ? IOMAP_HOLE
      : IOMAP_DELALLOC;
  }
  iomap.offset = rec.startoff * blockSize;
  iomap.length = rec.count * blockSize;
  iomap.bdev = mount.bdev;
  iomap.flags = ip.mapLogged ? flags | IOMAP_F_DIRTY : flags;
  iomap.validityCookie = ip.df.seq;
  return 0;
}

/** A hole up to `end` (kernel: `xfs_hole_to_iomap`). Blocks. */
function xfsHoleToIomap(
  ip: XfsInode,
  iomap: Iomap,
  off: number,
  end: number,
): number {
  imap.set(off, HOLESTARTBLOCK, end - off, false);
  return xfsBmbtToIomap(ip, iomap, imap, 0);
}

/** Mapping for reads of every kind, and for reports (kernel: `xfs_read_iomap_begin`). */
function xfsReadIomapBegin(
  inode: Inode,
  pos: number,
  length: number,
  _flags: number,
  iomap: Iomap,
): number {
  const ip = inode as XfsInode;
  if (ip.mount.dead) return -EIO;
  const off = bToFsbt(ip.mount, pos);
  ilockShared(ip);
  bmapiRead(ip.df, off, endFsb(ip.mount, pos, length) - off, imap);
  const error = xfsBmbtToIomap(ip, iomap, imap, 0);
  ip.ilock.upRead();
  return error;
}

/** Reads, buffered and direct, and FIEMAP (kernel: `xfs_read_iomap_ops`). */
export const xfsReadIomapOps: IomapOps = {
  name: "xfs_read_iomap_ops",
  iomapBegin: xfsReadIomapBegin,
};

/** Mapping for SEEK_DATA and SEEK_HOLE (kernel: `xfs_seek_iomap_begin`). Data that
 * only the copy-on-write fork knows of would be looked for here. */
export const xfsSeekIomapOps: IomapOps = {
  name: "xfs_seek_iomap_ops",
  iomapBegin: xfsReadIomapBegin,
};

/** Mapping for FIEMAP of attributes, which no inode has blocks for (kernel:
 * `xfs_xattr_iomap_ops`). */
export const xfsXattrIomapOps: IomapOps = {
  name: "xfs_xattr_iomap_ops",
  iomapBegin: () => -ENOENT,
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
): MaybePromise<number> {
  const ip = inode as XfsInode;
  const { mount } = ip;
  if (mount.dead) return -EIO;
  const off = bToFsbt(mount, pos);
  ilockExcl(ip);
  const eof = !ip.df.lookup(off, cur, imap);
  let ret: number;
  if (!eof && imap.startoff <= off) {
    const promised = imap.startblock === DELAYSTARTBLOCK;
    if (promised && (flags & IOMAP_ZERO) !== 0) {
      const sizeFsb = bToFsb(mount, ip.size);
      if (off >= sizeFsb) {
        ip.ilock.upWrite();
        return convertDelay(ip, pos, iomap);
      }
      if (endFsb(mount, pos, length) > sizeFsb) {
        imap.count = Math.min(imap.count, sizeFsb - imap.startoff);
      }
    }
    ret = xfsBmbtToIomap(ip, iomap, imap, 0);
  } else if ((flags & (IOMAP_ZERO | IOMAP_UNSHARE)) !== 0) {
    // What is not there needs neither zeroing nor a copy.
    const end = eof ? endFsb(mount, pos, length) : imap.startoff;
    ret = xfsHoleToIomap(ip, iomap, off, end);
  } else {
    ret = reserveForWrite(ip, pos, length, off, eof, iomap);
  }
  ip.ilock.upWrite();
  return ret;
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
    ilockExcl(ip);
    let ret = bmapiConvertDelalloc(ip, bToFsbt(ip.mount, pos), imap);
    if (ret === 0) ret = xfsBmbtToIomap(ip, iomap, imap, 0);
    ip.ilock.upWrite();
    return ret;
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
  const { mount } = ip;
  const count = Math.min(length, MAX_MAP_BYTES);
  const end = endFsb(mount, pos, count);
  let prealloc = 0;
  if (eof && pos + count > ip.size) {
    prealloc = preallocBlocks(ip, pos, count, end);
  }
  let ret = bmapiReserveDelalloc(ip, off, end - off, prealloc, imap, eof);
  if (ret === -ENOSPC && prealloc > 0) {
    prealloc = 0;
    ret = bmapiReserveDelalloc(ip, off, end - off, 0, imap, eof);
  }
  if (ret < 0) return ret;
  if (prealloc > 0) mount.blockgc.add(ip);
  return xfsBmbtToIomap(ip, iomap, imap, IOMAP_F_NEW);
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
  const wish = bToFsbt(mount, aligned) + blocks;
  return Math.max(0, Math.min(wish, bToFsb(mount, mount.maxBytes)) - end);
}

/** Size of the speculative preallocation, blocks: it grows with the contiguous extents
 * at the end of the file (kernel: `xfs_iomap_prealloc_size`). */
function preallocSize(ip: XfsInode, pos: number): number {
  const { mount, df } = ip;
  const least = mount.allocsizeBlocks;
  if (ip.size < least * mount.geo.blockSize) return 0;
  const found = df.last(cur, before);
  if (!found || before.endoff < bToFsbt(mount, pos)) return least;
  let run = before.count;
  let start = before.startoff;
  let block = before.startblock;
  while (run <= MAX_BMBT_EXTLEN / 2 && df.prev(cur, before)) {
    const contiguous = before.startblock >= 0 && before.endoff === start &&
      before.startblock + before.count === block;
    if (!contiguous) break;
    run += before.count;
    start = before.startoff;
    block = before.startblock;
  }
  let blocks = run * 2;
  if (blocks > MAX_BMBT_EXTLEN) blocks = bToFsb(mount, pos);
  blocks = Math.min(blocks, MAX_BMBT_EXTLEN + 1);
  const free = mount.fdblocks;
  blocks = Math.floor(blocks / 2 ** lowSpaceShift(mount, free));
  if (blocks > 0) blocks = 2 ** Math.floor(Math.log2(blocks));
  blocks = Math.min(blocks, MAX_BMBT_EXTLEN);
  while (blocks > 0 && blocks >= free) blocks = Math.floor(blocks / 16);
  return Math.max(blocks, least);
}

/** Preallocation shrinks as space runs out: below 5 % free by 2 bits, by one more below
 * each of 4, 3, 2 and 1 %. */
function lowSpaceShift(mp: XfsMount, free: number): number {
  const percent = mp.geo.dblocks / 100;
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
  const bs = (inode as XfsInode).mount.geo.blockSize;
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
function punchDelalloc(inode: Inode, offset: number, length: number): void {
  const ip = inode as XfsInode;
  ilockExcl(ip);
  bmapPunchDelalloc(
    ip,
    bToFsbt(ip.mount, offset),
    bToFsb(ip.mount, offset + length),
  );
  ip.ilock.upWrite();
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
  return iomap.validityCookie === (inode as XfsInode).df.seq;
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
): MaybePromise<number> {
  const ip = inode as XfsInode;
  const { mount } = ip;
  if (mount.dead) return -EIO;
  const off = bToFsbt(mount, pos);
  const end = endFsb(mount, pos, length);
  // Beyond the end of the file completion has a size to commit.
  let iomapFlags = pos + length > ip.size ? IOMAP_F_DIRTY : 0;
  const atomic = (flags & IOMAP_ATOMIC) !== 0;
  if (atomic) iomapFlags |= IOMAP_F_ATOMIC_BIO;
  ilockShared(ip);
  bmapiRead(ip.df, off, end - off, imap);
  const needsBlocks = imap.startblock < 0;
  let error = atomic ? mayWriteAtomic(ip, off, end) : 0;
  if (error === 0) {
    error = needsBlocks
      ? mayAllocate(flags)
      : mayOverwrite(mount, pos, length, flags, end);
  }
  if (!needsBlocks && error === 0) {
    error = xfsBmbtToIomap(ip, iomap, imap, iomapFlags);
  }
  ip.ilock.upRead();
  if (!needsBlocks || error < 0) return error;
  return writeDirect(ip, pos, length, iomapFlags, iomap);
}

/** Whether the device keeps a write to `imap` whole, or -ENOPROTOOPT (kernel:
 * `xfs_bmap_hw_atomic_write_possible`). Blocks. */
function mayWriteAtomic(ip: XfsInode, off: number, end: number): number {
  const count = end - off;
  // More blocks may be allocated in more places than one.
  if (imap.startblock < 0) return count > 1 ? -ENOPROTOOPT : 0;
  const one = imap.startoff <= off && imap.endoff >= end;
  const fits = count * ip.mount.geo.blockSize <= ip.atomicHwMax;
  const aligned = imap.startblock % imap.count === 0;
  return one && fits && aligned ? 0 : -ENOPROTOOPT;
}

/** Whether a write may use the extent in `imap`, or the errno. */
function mayOverwrite(
  mp: XfsMount,
  pos: number,
  length: number,
  flags: number,
  end: number,
): number {
  if ((flags & (IOMAP_NOWAIT | IOMAP_OVERWRITE_ONLY)) === 0) return 0;
  // One that spans extents would have to wait half-way.
  if (imap.endoff < end) return -EAGAIN;
  if ((flags & IOMAP_OVERWRITE_ONLY) === 0 || !imap.unwritten) return 0;
  // Converting part of a block needs its rest zeroed, by one task alone.
  const mask = mp.geo.blockSize - 1;
  return (pos & mask) !== 0 || (length & mask) !== 0 ? -EAGAIN : 0;
}

/** Whether a write may wait for an allocation, or the errno. */
function mayAllocate(flags: number): number {
  return (flags & (IOMAP_NOWAIT | IOMAP_OVERWRITE_ONLY)) !== 0 ? -EAGAIN : 0;
}

/** Allocates for a direct write what `imap`, a hole or promised space, lacks (kernel:
 * `xfs_iomap_write_direct`). */
function writeDirect(
  ip: XfsInode,
  pos: number,
  length: number,
  iomapFlags: number,
  iomap: Iomap,
): MaybePromise<number> {
  const { mount } = ip;
  const count = Math.min(length, MAX_MAP_BYTES);
  const off = bToFsbt(mount, pos);
  let end = endFsb(mount, pos, count);
  const beyond = pos + count > ip.size;
  if (!beyond && imap.startblock === HOLESTARTBLOCK) {
    end = Math.min(end, imap.endoff);
  }
  const error = allocateDirect(ip, off, end, iomapFlags, iomap);
  if (error !== -ENOSPC) return error;
  // Others may have been promised more than they need.
  return andThen(
    freeAllEofblocks(mount),
    () => allocateDirect(ip, off, end, iomapFlags, iomap),
  );
}

/** Blocks [off, end) of the file get space, or as many from `off` on as one mapping
 * has. */
function allocateDirect(
  ip: XfsInode,
  off: number,
  end: number,
  iomapFlags: number,
  iomap: Iomap,
): number {
  ilockExcl(ip);
  let error = bmapiWrite(ip, off, end - off, imap);
  if (error === 0) {
    error = xfsBmbtToIomap(ip, iomap, imap, IOMAP_F_NEW | iomapFlags);
  }
  ip.ilock.upWrite();
  return error;
}

/** Direct writes (kernel: `xfs_direct_write_iomap_ops`). */
export const xfsDirectWriteIomapOps: IomapOps = {
  name: "xfs_direct_write_iomap_ops",
  iomapBegin: xfsDirectWriteIomapBegin,
};

/**
 * Data has been written into unwritten blocks: from now on they read as it (kernel:
 * `xfs_iomap_write_unwritten`).
 *
 * @param offset First byte.
 * @param count Bytes.
 * @param updateSize The file may end here: direct I/O.
 */
export function xfsIomapWriteUnwritten(
  ip: XfsInode,
  offset: number,
  count: number,
  updateSize: boolean,
): void {
  const { mount } = ip;
  const off = bToFsbt(mount, offset);
  const end = offset + count;
  ilockExcl(ip);
  bmapConvertUnwritten(ip, off, bToFsb(mount, end) - off);
  if (updateSize && end > ip.size) ip.size = end;
  setDiskSize(ip, end);
  ip.ilock.upWrite();
}

/** The size on disk grows to `end`, but not beyond the file's (kernel: `xfs_new_eof`,
 * `xfs_setfilesize`). */
export function setDiskSize(ip: XfsInode, end: number): void {
  const size = Math.min(end, ip.size);
  if (size <= ip.diskSize) return;
  ip.diskSize = size;
  ip.logMap();
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
