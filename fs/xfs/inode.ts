/**
 * Inodes: in memory, to and from their records, made and freed.
 *
 * Kernel counterpart: fs/xfs/xfs_inode.c, xfs_icache.c, libxfs/xfs_inode_buf.c.
 *
 * @module
 */

/*
 * Lock order, outermost first:
 *
 *   inode.rwsem (IOLOCK)              read, write, truncate, fallocate
 *     mapping.invalidateLock (MMAPLOCK)
 *       folio lock
 *         ip.ilock (ILOCK)            inside iomapBegin, iomapEnd, conversion
 *
 * All metadata is in memory, so nobody waits while holding the ILOCK, and taking it
 * never waits.
 */

import {
  bdevAtomicWriteUnitMaxBytes,
  bdevAtomicWriteUnitMinBytes,
} from "../../block/blkdev.ts";
import { bugOn } from "../../lib/bug.ts";
import { crc32c } from "../../lib/crc32c.ts";
import { EFSCORRUPTED } from "../../lib/errno.ts";
import { Rwsem } from "../../lib/locks.ts";
import { andThen, type MaybePromise } from "../../lib/maybe-promise.ts";
import { MAX_PAGECACHE_ORDER } from "../../mm/folio.ts";
import { Inode, S_IFDIR, S_IFMT, S_IFREG } from "../fs.ts";
import { currentTime, iget, insertInode, markInodeDirty } from "../inode.ts";
import type { IomapIoend } from "../../iomap/ioend.ts";
import { allocInode, freeInode, inodeInUse } from "./ialloc.ts";
import { xfsAddressSpaceOperations } from "./aops.ts";
import { bunmapi } from "./bmap.ts";
import { canFreeEofblocks, freeEofblocks } from "./bmap-util.ts";
import { allocBlob, fillBlob, freeBlob, readBlob } from "./buf.ts";
import { XfsDir } from "./dir.ts";
import { xfsDirFileOperations, xfsFileOperations } from "./file.ts";
import { INODE_SIZE } from "./format.ts";
import { Ifork } from "./iext.ts";
import { xfsDirInodeOperations, xfsInodeOperations } from "./iops.ts";
import type { XfsMount } from "./mount.ts";
import {
  type BlobRef,
  decodeDir,
  decodeExtents,
  decodeInode,
  type DiskInode,
  emptyBlob,
  encodeDir,
  encodeExtents,
  encodeInode,
  INLINE_BYTES,
} from "./ondisk.ts";

/** Blocks may be shared with another file: writes go to new ones. */
export const XFS_DIFLAG2_REFLINK: number = 1 << 1;
/** Space was preallocated on purpose: it stays beyond the end of the file. */
export const XFS_DIFLAG_PREALLOC = 0x2;

/** One file or directory (kernel: `struct xfs_inode`). */
export class XfsInode extends Inode {
  /** Its file system. */
  readonly mount: XfsMount;
  /** Extents of the data. */
  readonly df: Ifork = new Ifork();
  /** Entries of a directory. */
  dir: XfsDir | null = null;
  /** Blocks allocated to the file (kernel: `i_nblocks`). */
  nblocks = 0;
  /** Blocks promised to it (kernel: `i_delayed_blks`). */
  delayedBlocks = 0;
  /** Size as far as data is on the device, bytes (kernel: `i_disk_size`). */
  diskSize = 0;
  /** `XFS_DIFLAG_*`. */
  diflags = 0;
  /** `XFS_DIFLAG2_*`. */
  diflags2 = 0;
  /** ILOCK: the extent list and what belongs to it. */
  readonly ilock: Rwsem = new Rwsem("ILOCK");
  /** A datasync has something to commit: extents or size changed. */
  mapLogged = false;
  /** Old data went in a truncation: data is written back on close (kernel:
   * `XFS_ITRUNCATED`). */
  truncated = false;
  /** Space beyond the end has been freed by a close (kernel:
   * `XFS_EOFBLOCKS_RELEASED`). */
  eofblocksReleased = false;
  /** Written data whose completion work is still to be done (kernel: `i_ioend_list`). */
  readonly ioends: IomapIoend[] = [];
  /** Where the content is if it does not fit in the inode. */
  blob: BlobRef = emptyBlob();

  /**
   * An inode that is in no cache yet.
   *
   * @param mount File system.
   * @param ino Number.
   * @param mode Type and permissions.
   */
  constructor(mount: XfsMount, ino: number, mode: number) {
    const isDirectory = (mode & S_IFMT) === S_IFDIR;
    super(
      mount,
      ino,
      mode,
      isDirectory ? xfsDirInodeOperations : xfsInodeOperations,
      isDirectory ? xfsDirFileOperations : xfsFileOperations,
      xfsAddressSpaceOperations,
    );
    this.mount = mount;
    this.mapping.maxOrder = MAX_PAGECACHE_ORDER;
  }

  /** Sectors of 512 bytes, promised ones too. */
  override get blocks(): number {
    const blocks = this.nblocks + this.delayedBlocks;
    return blocks * (this.mount.geo.blockSize / 512);
  }

  /** Whether its blocks may be shared (kernel: `xfs_is_cow_inode`). */
  get isCow(): boolean {
    return (this.diflags2 & XFS_DIFLAG2_REFLINK) !== 0;
  }

  /** Largest write that the device keeps whole, bytes; 0 if it does not do that with
   * a block (kernel: `bt_awu_max`). */
  get atomicHwMax(): number {
    const { bdev, geo } = this.mount;
    const max = bdevAtomicWriteUnitMaxBytes(bdev);
    const fits = bdevAtomicWriteUnitMinBytes(bdev) <= geo.blockSize &&
      max >= geo.blockSize;
    return fits ? max : 0;
  }

  /**
   * Bytes of every atomic write; 0 if there are none (kernel:
   * `xfs_get_atomic_write_min` and `_max`). The device may take more, but without
   * writing out of place nothing else could be promised: the extents of a file lie as
   * they lie.
   */
  get atomicWriteUnit(): number {
    return this.atomicHwMax > 0 ? this.mount.geo.blockSize : 0;
  }

  /** The extents or the size on disk changed (kernel: `xfs_trans_log_inode` with
   * `XFS_ILOG_CORE`). */
  logMap(): void {
    this.mapLogged = true;
    markInodeDirty(this);
  }
}

/** Takes the ILOCK exclusively (kernel: `xfs_ilock` with `XFS_ILOCK_EXCL`). */
export function ilockExcl(ip: XfsInode): void {
  mustBeFree(ip.ilock.downWrite());
}

/** Takes the ILOCK shared. */
export function ilockShared(ip: XfsInode): void {
  mustBeFree(ip.ilock.downRead());
}

function mustBeFree(wait: MaybePromise<void>): void {
  bugOn(wait instanceof Promise, "somebody waits while holding an ILOCK");
}

/**
 * Finds an inode, reading it if it is not in memory (kernel: `xfs_iget`).
 *
 * @returns The inode with a reference; -EFSCORRUPTED if its record is damaged or not
 *   in use (`mp.complaint` says which check failed), or the device's errno.
 */
export function xfsIget(
  mp: XfsMount,
  ino: number,
): MaybePromise<XfsInode | number> {
  const cached = iget(mp, ino);
  if (cached !== null) return cached as XfsInode;
  if (!inodeInUse(mp, ino)) return refuse(mp, `inode ${ino}: not in use`);
  return mp.bufs.read(mp.geo.inoToFsb(ino), 1, () => {
    const disk = decodeInode(inodeRecord(mp, ino), ino, mp.geo);
    if ("reason" in disk) return refuse(mp, disk.reason);
    const content = disk.inline ?? readBlob(mp, disk.blob);
    return andThen(content, (bytes) => loadInode(mp, disk, bytes));
  });
}

function refuse(mp: XfsMount, reason: string): number {
  mp.complaint = reason;
  return -EFSCORRUPTED;
}

function inodeRecord(mp: XfsMount, ino: number): Uint8Array {
  const block = mp.bufs.get(mp.geo.inoToFsb(ino));
  const at = mp.geo.inoToOffset(ino);
  return block.subarray(at, at + INODE_SIZE);
}

/** Kernel: `xfs_inode_from_disk`. */
function loadInode(
  mp: XfsMount,
  disk: DiskInode,
  content: Uint8Array | number,
): XfsInode | number {
  const name = `inode ${disk.ino}`;
  if (typeof content === "number") {
    mp.complaint = `${name}: content cannot be read`;
    return content;
  }
  // Another lookup may have been first while this one read.
  const other = iget(mp, disk.ino);
  if (other !== null) return other as XfsInode;
  const type = disk.mode & S_IFMT;
  if (type !== S_IFREG && type !== S_IFDIR) return refuse(mp, `${name}: mode`);
  const ip = new XfsInode(mp, disk.ino, disk.mode);
  ip.nlink = disk.nlink;
  ip.uid = disk.uid;
  ip.gid = disk.gid;
  ip.diflags = disk.diflags;
  ip.nblocks = disk.nblocks;
  ip.atime = disk.atime;
  ip.mtime = disk.mtime;
  ip.ctime = disk.ctime;
  ip.blob = disk.blob;
  ip.size = ip.diskSize = disk.size;
  let wrong: string | null;
  if (type === S_IFDIR) {
    ip.dir = new XfsDir(disk.ino);
    wrong = decodeDir(content, ip.dir);
  } else wrong = decodeExtents(content, ip.df, mp.geo.dblocks);
  if (wrong !== null) return refuse(mp, `${name}: ${wrong}`);
  insertInode(ip);
  return ip;
}

/**
 * Makes an inode that no name leads to yet (kernel: `xfs_icreate`).
 *
 * @param parent Number of the directory that it is for; its own for the root.
 * @param mode Type and permissions.
 * @returns The inode with a reference, or -ENOSPC.
 */
export function xfsIcreate(
  mp: XfsMount,
  parent: number,
  mode: number,
): XfsInode | number {
  const isDirectory = (mode & S_IFMT) === S_IFDIR;
  const ino = allocInode(mp, parent, isDirectory);
  if (ino < 0) return ino;
  const ip = new XfsInode(mp, ino, mode);
  ip.atime = ip.mtime = ip.ctime = currentTime(mp);
  if (isDirectory) {
    ip.nlink = 2;
    ip.dir = new XfsDir(parent);
    ip.size = ip.diskSize = ip.dir.size;
  }
  ip.logMap();
  insertInode(ip);
  return ip;
}

/**
 * Brings an inode's record up to date in memory; it is written with the next flush
 * (kernel: `xfs_iflush`).
 *
 * @returns 0; -ENOSPC if its content does not fit anywhere, or the device's errno.
 */
export function writeInode(ip: XfsInode): MaybePromise<number> {
  const { mount, ino } = ip;
  // The record shares its block with others.
  return mount.bufs.read(mount.geo.inoToFsb(ino), 1, () => {
    const content = ip.dir !== null ? encodeDir(ip.dir) : encodeExtents(ip.df);
    const placed = placeContent(ip, content);
    if (placed < 0) return placed;
    const inline = ip.blob.runs.length === 0 ? content : null;
    putRecord(ip, inline);
    return 0;
  });
}

/** Puts content that does not fit in the inode into a blob. */
function placeContent(ip: XfsInode, content: Uint8Array): number {
  const { mount, blob } = ip;
  const fits = content.length <= INLINE_BYTES;
  const same = content.length === blob.length && crc32c(content) === blob.crc;
  if (fits ? blob.runs.length === 0 : same) return 0;
  let place: BlobRef | number = emptyBlob();
  if (!fits) {
    place = allocBlob(mount, content.length, mount.geo.inoToFsb(ip.ino));
    if (typeof place === "number") return place;
    fillBlob(mount, place, content);
  }
  freeBlob(mount, blob);
  ip.blob = place;
  return 0;
}

function putRecord(ip: XfsInode, inline: Uint8Array | null): void {
  const { mount, ino, blob } = ip;
  const record = inodeRecord(mount, ino);
  const before = record.slice();
  encodeInode(record, {
    ino,
    mode: ip.mode,
    nlink: ip.nlink,
    uid: ip.uid,
    gid: ip.gid,
    size: ip.diskSize,
    nblocks: ip.nblocks,
    atime: ip.atime,
    mtime: ip.mtime,
    ctime: ip.ctime,
    diflags: ip.diflags,
    inline,
    blob,
  });
  if (before.every((byte, i) => byte === record[i])) return;
  mount.bufs.markDirty(mount.geo.inoToFsb(ino));
}

/**
 * An inode leaves memory: without names it is freed, else space beyond its end goes
 * and its record is brought up to date (kernel: `xfs_inactive`). Its page cache is
 * empty.
 *
 * @returns 0 or a negative errno.
 */
export function xfsInactive(ip: XfsInode): MaybePromise<number> {
  const { mount } = ip;
  mount.blockgc.delete(ip);
  if (ip.nlink > 0) {
    const freed = canFreeEofblocks(ip) ? freeEofblocks(ip) : 0;
    return andThen(freed, () => writeInode(ip));
  }
  ilockExcl(ip);
  bunmapi(ip, 0, Infinity);
  ip.ilock.upWrite();
  freeBlob(mount, ip.blob);
  freeInode(mount, ip.ino);
  mount.dirtyInodes.delete(ip);
  return 0;
}
