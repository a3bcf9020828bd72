/**
 * Inodes in and out of memory: reading, making and freeing them, writing them to their
 * blocks; and giving back what files hold without need.
 *
 * Kernel counterpart: fs/xfs/xfs_icache.c, xfs_inode.c.
 *
 * @module
 */

import { EFSCORRUPTED, ENOENT, ENOSPC } from "../../lib/errno.ts";
import { andThen, type MaybePromise, repeat } from "../../lib/maybe-promise.ts";
import { filemapWriteAndWaitRange } from "../../mm/filemap.ts";
import { MAX_PAGECACHE_ORDER, PAGE_SIZE } from "../../mm/folio.ts";
import {
  type FileOperations,
  type InodeOperations,
  MAX_LFS_FILESIZE,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
} from "../fs.ts";
import { iget, insertInode } from "../inode.ts";
import { xfsAddressSpaceOperations } from "./aops.ts";
import {
  canFreeEofblocks,
  freeEofblocks,
  itruncateExtents,
} from "./bmap-util.ts";
import { xfsDirFileOperations, xfsFileOperations } from "./file.ts";
import { ilockExcl, XfsInode } from "./inode.ts";
import {
  xfsDirInodeOperations,
  xfsInodeOperations,
  xfsSymlinkInodeOperations,
} from "./iops.ts";
import { xfsAttrInactive } from "./libxfs/attr.ts";
import {
  xfsDinodeVerify,
  xfsIflush,
  XfsImap,
  xfsImap,
  xfsInodeFromDisk,
  xfsInodeReadBuf,
} from "./libxfs/inode-buf.ts";
import { xfsIfree, xfsInodeInit } from "./libxfs/inode-util.ts";
import { xfsSymlinkRemoteTruncate } from "./libxfs/symlink-remote.ts";
import { xfsIfreeSpaceRes } from "./libxfs/trans-space.ts";
import {
  XFS_ILOG_CORE,
  XFS_TRANS_RESERVE,
  type XfsTrans,
  xfsTransAlloc,
} from "./libxfs/trans.ts";
import type { XfsMount } from "./mount.ts";
import { xfsCanFreeCowblocks, xfsReflinkCancelCowRange } from "./reflink.ts";

const imap = new XfsImap();

/** Methods of whatever is neither file, directory nor link: nothing can be done with
 * it here but naming it. */
const noFileOperations: FileOperations = {};

/** An inode with the methods of its kind. */
function newInode(mp: XfsMount, ino: number, mode: number): XfsInode {
  const type = mode & S_IFMT;
  let iop: InodeOperations = xfsInodeOperations;
  let fop: FileOperations = noFileOperations;
  if (type === S_IFREG) fop = xfsFileOperations;
  else if (type === S_IFDIR) {
    iop = xfsDirInodeOperations;
    fop = xfsDirFileOperations;
  } else if (type === S_IFLNK) iop = xfsSymlinkInodeOperations;
  const ip = new XfsInode(mp, ino, mode, iop, fop, xfsAddressSpaceOperations);
  ip.mapping.maxOrder = MAX_PAGECACHE_ORDER;
  ip.mapping.minOrder = Math.max(0, Math.log2(mp.sb.blocksize / PAGE_SIZE));
  return ip;
}

/**
 * Finds an inode, reading it if it is not in memory (kernel: `xfs_iget`).
 *
 * @returns The inode with a reference; -ENOENT if it is free; -EINVAL if there can be no
 *   such number; -EFSCORRUPTED if its record is damaged (then the file system is shut
 *   down); the device's errno.
 */
export function xfsIget(
  mp: XfsMount,
  ino: number,
): MaybePromise<XfsInode | number> {
  const cached = iget(mp, ino);
  if (cached !== null) return cached as XfsInode;
  const error = xfsImap(mp, ino, imap);
  if (error < 0) return error;
  return andThen(
    mp.targ.readAhead(imap.blkno, imap.len),
    () => readInode(mp, ino),
  );
}

/** Kernel: `xfs_iget_cache_miss`. */
function readInode(mp: XfsMount, ino: number): XfsInode | number {
  // Another lookup may have been first while this one read.
  const other = iget(mp, ino);
  if (other !== null) return other as XfsInode;
  const bp = xfsInodeReadBuf(mp, ino, imap);
  if (typeof bp === "number") return bp;
  const at = imap.boffset;
  const why = xfsDinodeVerify(mp, ino, bp.data, at);
  if (why !== null) return mp.corrupt(`inode ${ino}`, why);
  const mode = bp.view.getUint16(at + 2);
  if (mode === 0) return -ENOENT;
  const ip = newInode(mp, ino, mode);
  const error = xfsInodeFromDisk(ip, bp.data, at);
  if (error === -EFSCORRUPTED && !mp.dead) {
    return mp.corrupt(`inode ${ino}`, "its forks");
  }
  if (error < 0) return error;
  insertInode(ip);
  return ip;
}

/**
 * Makes an inode whose number has been allocated (kernel: `xfs_icreate`).
 *
 * @param parent Directory that it is for, or null.
 * @param mode Type and permissions.
 * @returns It with a reference, or a negative errno.
 */
export function xfsIcreate(
  tp: XfsTrans,
  ino: number,
  parent: XfsInode | null,
  mode: number,
): XfsInode | number {
  const { mp } = tp;
  if (mp.inodes.has(ino)) return mp.corrupt(`inode ${ino}`, "free, but in use");
  const bp = xfsInodeReadBuf(mp, ino, imap);
  if (typeof bp === "number") return bp;
  const ip = newInode(mp, ino, mode);
  const error = xfsInodeFromDisk(ip, bp.data, imap.boffset);
  if (error < 0) return error;
  if (ip.mode !== 0) return mp.corrupt(`inode ${ino}`, "free, but has a mode");
  xfsInodeInit(tp, ip, parent, mode);
  insertInode(ip);
  return ip;
}

/**
 * Writes what transactions have changed of an inode into its block (kernel:
 * `xfs_iflush`).
 *
 * @returns 0 or a negative errno.
 */
export function flushInode(ip: XfsInode): number {
  const { mount } = ip;
  if (!mount.dirtyXfsInodes.has(ip)) return 0;
  const error = xfsIflush(ip);
  if (error < 0) return error;
  mount.dirtyXfsInodes.delete(ip);
  ip.ilogged = 0;
  return 0;
}

/**
 * Whether an inode that nobody uses, and that has no pages, can leave memory without a
 * wait. What transactions have changed of it is in its block then.
 */
export function mayEvict(ip: XfsInode): boolean {
  const { mount } = ip;
  // Whoever gave it back may be half-way with something else.
  if (mount.busy || ip.ilock.isLocked || ip.ioends.length > 0) return false;
  return mount.dead || flushInode(ip) === 0;
}

/**
 * An inode leaves memory: without names it is freed, else what it holds beyond its end
 * goes (kernel: `xfs_inactive`). Its page cache is empty.
 *
 * @returns 0 or a negative errno.
 */
export function xfsInactive(ip: XfsInode): MaybePromise<number> {
  const { mount } = ip;
  mount.blockgc.delete(ip);
  if (mount.dead || mount.readOnly) return 0;
  if (ip.cow !== null && ip.cow.nextents > 0) {
    const error = xfsReflinkCancelCowRange(ip, 0, Infinity, true);
    if (error < 0) return error;
  }
  if (ip.nlink > 0) {
    const freed = canFreeEofblocks(ip) ? freeEofblocks(ip) : 0;
    return andThen(freed, (error) => error < 0 ? error : flushInode(ip));
  }
  const emptied = inactiveForks(ip);
  if (emptied < 0) return emptied;
  return inactiveIfree(ip);
}

/** Blocks of both forks are freed (kernel: `xfs_inactive_truncate`,
 * `xfs_attr_inactive`). */
function inactiveForks(ip: XfsInode): number {
  if (ip.df.nextents > 0 || ip.delayedBlks > 0) {
    const link = (ip.mode & S_IFMT) === S_IFLNK;
    const tp = xfsTransAlloc(ip.mount, 0, XFS_TRANS_RESERVE);
    if (typeof tp === "number") return tp;
    ilockExcl(ip);
    // First the size: were the power cut now, nothing could be read any more.
    ip.diskSize = 0;
    tp.logInode(ip, XFS_ILOG_CORE);
    let error = link
      ? xfsSymlinkRemoteTruncate(tp, ip)
      : itruncateExtents(tp, ip, 0);
    if (error < 0) tp.cancel();
    else error = tp.commit();
    ip.ilock.upWrite();
    if (error < 0) return error;
  }
  return ip.af === null ? 0 : xfsAttrInactive(ip);
}

/** Kernel: `xfs_inactive_ifree`. */
function inactiveIfree(ip: XfsInode): number {
  const { mount } = ip;
  const blocks = xfsIfreeSpaceRes(mount);
  let tp = xfsTransAlloc(mount, blocks, XFS_TRANS_RESERVE);
  // The tree of free inodes has blocks set aside, unless there were too few.
  if (tp === -ENOSPC) tp = xfsTransAlloc(mount, 0, XFS_TRANS_RESERVE);
  if (typeof tp === "number") return tp;
  ilockExcl(ip);
  const freed = xfsIfree(tp, ip);
  let error = freed;
  if (freed < 0) tp.cancel();
  else error = tp.commit();
  ip.ilock.upWrite();
  if (error < 0) return error;
  // With its whole chunk, its block has gone.
  if (freed > 0) mount.dirtyXfsInodes.delete(ip);
  return flushInode(ip);
}

/** Gives back what files hold beyond their ends and for copies to come, of all files
 * that nobody is using (kernel: `xfs_blockgc_flush_all`). */
export function freeAllBlockgc(mp: XfsMount): void {
  for (const ip of [...mp.blockgc]) {
    // Direct I/O in flight would have to be waited for; and who asks for space while
    // it holds the ILOCK is at work on this file.
    if (ip.dioCount > 0 || ip.ilock.isLocked) continue;
    if (!ip.rwsem.tryDownWrite()) continue;
    blockgcScan(ip);
    ip.rwsem.upWrite();
  }
}

/** Gets space back that was promised for more than it is needed for (kernel:
 * `xfs_flush_inodes`, `xfs_blockgc_free_space`). */
export function freeSpace(mp: XfsMount): MaybePromise<void> {
  const inodes = [...mp.dirtyInodes];
  let next = 0;
  const flushed = repeat(() => {
    const inode = inodes[next++];
    if (inode === undefined) return false;
    const { mapping } = inode;
    return andThen(
      filemapWriteAndWaitRange(mapping, 0, MAX_LFS_FILESIZE),
      () => true,
    );
  });
  return andThen(flushed, () => freeAllBlockgc(mp));
}

/** Kernel: `xfs_blockgc_scan_inode`. The caller holds the IOLOCK exclusively, and no
 * direct I/O is in flight. */
function blockgcScan(ip: XfsInode): void {
  // What is dirty would have to be written back first.
  if (ip.mapping.nrDirty > 0) return;
  ip.mount.blockgc.delete(ip);
  if (canFreeEofblocks(ip)) freeEofblocks(ip);
  freeCowblocks(ip);
}

/** What was allocated for copies, but is not needed by anything dirty (kernel:
 * `xfs_inode_free_cowblocks`). */
function freeCowblocks(ip: XfsInode): number {
  if (ip.cow === null || ip.cow.nextents === 0) return 0;
  const free = xfsCanFreeCowblocks(ip);
  if (!free || !ip.mapping.invalidateLock.tryDownWrite()) {
    ip.mount.blockgc.add(ip);
    return 0;
  }
  const error = xfsReflinkCancelCowRange(ip, 0, Infinity, false);
  ip.mapping.invalidateLock.upWrite();
  return error;
}
