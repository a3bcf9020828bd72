/**
 * Names and attributes.
 *
 * Kernel counterpart: fs/xfs/xfs_iops.c, xfs_inode.c (`xfs_create`, `xfs_remove`,
 * `xfs_link`, `xfs_rename`).
 *
 * @module
 */

import { EEXIST, ENOENT, ENOSPC, ENOTEMPTY } from "../../lib/errno.ts";
import { andThen, type MaybePromise } from "../../lib/maybe-promise.ts";
import { filemapWriteAndWaitRange } from "../../mm/filemap.ts";
import { truncateSetsize } from "../../mm/truncate.ts";
import { iomapTruncatePage } from "../../iomap/buffered-io.ts";
import { iomapFiemap } from "../../iomap/fiemap.ts";
import {
  type FiemapExtentInfo,
  type Iattr,
  type Inode,
  type InodeOperations,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
} from "../fs.ts";
import { FIEMAP_FLAG_XATTR } from "../ioctl.ts";
import {
  currentTime,
  inodeDioWait,
  inodeLock,
  inodeUnlock,
  setattrCopy,
} from "../inode.ts";
import { type FileInfo, genericFillStatxAtomicWrites } from "../stat.ts";
import { bunmapi } from "./bmap.ts";
import { freeAllEofblocks } from "./bmap-util.ts";
import type { XfsDirEntry } from "./dir.ts";
import { ilockExcl, xfsIcreate, xfsIget, type XfsInode } from "./inode.ts";
import {
  bToFsb,
  xfsBufferedWriteIomapOps,
  xfsIomapWriteOps,
  xfsReadIomapOps,
  xfsXattrIomapOps,
  xfsZeroRange,
} from "./iomap.ts";

/** A directory's names changed: its size and times follow. */
function dirChanged(dp: XfsInode): void {
  dp.size = dp.diskSize = dp.dir!.size;
  dp.mtime = dp.ctime = currentTime(dp.mount);
  dp.logMap();
}

/** The number of names of an inode changed. */
function bumpLink(ip: XfsInode, by: number): void {
  ip.nlink += by;
  ip.ctime = currentTime(ip.mount);
  ip.logMap();
}

function entryOf(ip: XfsInode): XfsDirEntry {
  return { ino: ip.ino, type: ip.mode & S_IFMT };
}

function addName(dp: XfsInode, name: string, ip: XfsInode): void {
  const { ino, type } = entryOf(ip);
  dp.dir!.add(name, ino, type);
  dirChanged(dp);
}

function removeName(dp: XfsInode, name: string): void {
  dp.dir!.remove(name);
  dirChanged(dp);
}

/** Kernel: `xfs_vn_lookup`. */
function lookup(dir: Inode, name: string): MaybePromise<Inode | number> {
  const dp = dir as XfsInode;
  const entry = dp.dir!.entries.get(name);
  return entry === undefined ? -ENOENT : xfsIget(dp.mount, entry.ino);
}

/** Makes an inode and its first name (kernel: `xfs_create`). */
function makeNode(
  dir: Inode,
  name: string,
  mode: number,
): MaybePromise<Inode | number> {
  const dp = dir as XfsInode;
  const made = xfsIcreate(dp.mount, dp.ino, mode);
  if (made !== -ENOSPC) return nameNode(dp, name, made);
  // Files may have been promised more than they need.
  return andThen(
    freeAllEofblocks(dp.mount),
    () => nameNode(dp, name, xfsIcreate(dp.mount, dp.ino, mode)),
  );
}

/** A new inode gets its first name. */
function nameNode(
  dp: XfsInode,
  name: string,
  ip: XfsInode | number,
): XfsInode | number {
  if (typeof ip === "number") return ip;
  addName(dp, name, ip);
  // The new directory's ".." is a name of its parent.
  if (ip.dir !== null) bumpLink(dp, 1);
  return ip;
}

/** Kernel: `xfs_vn_link`. */
function link(target: Inode, dir: Inode, name: string): number {
  addName(dir as XfsInode, name, target as XfsInode);
  bumpLink(target as XfsInode, 1);
  return 0;
}

/** Kernel: `xfs_vn_unlink`, `xfs_remove`. */
function remove(dir: Inode, name: string, victim: Inode): number {
  const dp = dir as XfsInode;
  const ip = victim as XfsInode;
  if (ip.dir !== null) {
    if (ip.dir.entries.size > 0) return -ENOTEMPTY;
    bumpLink(dp, -1);
    bumpLink(ip, -1);
  }
  bumpLink(ip, -1);
  removeName(dp, name);
  return 0;
}

/** Kernel: `xfs_rename`. */
function rename(
  oldDir: Inode,
  oldName: string,
  source: Inode,
  newDir: Inode,
  newName: string,
  victim: Inode | null,
): number {
  const from = oldDir as XfsInode;
  const to = newDir as XfsInode;
  const ip = source as XfsInode;
  if (victim !== null) {
    // Unlike rmdir, and as XFS alone has it.
    if (remove(to, newName, victim) < 0) return -EEXIST;
  }
  removeName(from, oldName);
  addName(to, newName, ip);
  bumpLink(ip, 0);
  if (ip.dir !== null && from !== to) {
    ip.dir.parent = to.ino;
    bumpLink(from, -1);
    bumpLink(to, 1);
  }
  return 0;
}

/** Applies attributes (kernel: `xfs_vn_setattr`). The caller holds the IOLOCK
 * exclusively. */
function setattr(inode: Inode, attr: Iattr): MaybePromise<number> {
  const ip = inode as XfsInode;
  if (attr.size === undefined) return setattrNonsize(ip, attr);
  const { size } = attr;
  const { invalidateLock } = ip.mapping;
  return andThen(
    invalidateLock.downWrite(),
    () =>
      andThen(setattrSize(ip, size), (error) => {
        invalidateLock.upWrite();
        return error < 0 ? error : setattrNonsize(ip, attr);
      }),
  );
}

/** Kernel: `xfs_setattr_nonsize`. */
function setattrNonsize(ip: XfsInode, attr: Iattr): number {
  setattrCopy(ip, attr);
  ip.logMap();
  return 0;
}

/**
 * Sets the size of a file (kernel: `xfs_setattr_size`). The caller holds IOLOCK and
 * MMAPLOCK exclusively.
 *
 * @param size Bytes.
 * @returns 0 or a negative errno; the cache may have been truncated all the same.
 */
export function setattrSize(
  ip: XfsInode,
  size: number,
): MaybePromise<number> {
  if (size === 0 && ip.size === 0 && ip.df.nextents === 0) return 0;
  // Only then is it known where the file ends: a direct write may still move it.
  return andThen(inodeDioWait(ip), () => changeSize(ip, size));
}

function changeSize(ip: XfsInode, size: number): MaybePromise<number> {
  const oldSize = ip.size;
  const didZero = { value: false };
  const zeroed = size > oldSize
    ? xfsZeroRange(ip, oldSize, size - oldSize, didZero)
    : truncatePage(ip, size, didZero);
  const resized = andThen(zeroed, (error) => {
    if (error < 0) return error;
    return andThen(truncateSetsize(ip.mapping, size), () => 0);
  });
  const flushed = andThen(resized, (error) => {
    if (error < 0) return error;
    // Data between the size on disk and the new one must not come after it.
    const behind = size > ip.diskSize && oldSize !== ip.diskSize;
    if (!didZero.value && !behind) return 0;
    return filemapWriteAndWaitRange(ip.mapping, ip.diskSize, size - 1);
  });
  return andThen(flushed, (error) => {
    if (error < 0) return error;
    commitSize(ip, size, oldSize);
    return 0;
  });
}

function truncatePage(
  ip: XfsInode,
  size: number,
  didZero: { value: boolean },
): MaybePromise<number> {
  return iomapTruncatePage(
    ip,
    size,
    didZero,
    xfsBufferedWriteIomapOps,
    xfsIomapWriteOps,
    null,
  );
}

/** The transaction of a new size: what lies beyond it is freed. */
function commitSize(ip: XfsInode, size: number, oldSize: number): void {
  ilockExcl(ip);
  ip.diskSize = size;
  if (size <= oldSize) {
    bunmapi(ip, bToFsb(ip.mount, size), Infinity);
    ip.truncated = true;
    ip.mount.blockgc.delete(ip);
  }
  ip.logMap();
  ip.ilock.upWrite();
}

/** Kernel: `xfs_vn_fiemap`. */
function fiemap(
  inode: Inode,
  info: FiemapExtentInfo,
  start: number,
  len: number,
): MaybePromise<number> {
  return andThen(inodeLock(inode, false), (error) => {
    if (error < 0) return error;
    const xattr = (info.flags & FIEMAP_FLAG_XATTR) !== 0;
    info.flags &= ~FIEMAP_FLAG_XATTR;
    const ops = xattr ? xfsXattrIomapOps : xfsReadIomapOps;
    const mapped = iomapFiemap(inode, info, start, len, ops);
    return andThen(mapped, (result) => {
      inodeUnlock(inode, false);
      return result;
    });
  });
}

/** What direct and atomic writes have to be (kernel: `xfs_report_dioalign`,
 * `xfs_report_atomic_write`). */
function getattr(inode: Inode, info: FileInfo): void {
  const ip = inode as XfsInode;
  const { bdev, geo } = ip.mount;
  const { dmaAlignment, logicalBlockSize } = bdev.limits;
  info.dioMemAlign = dmaAlignment + 1;
  info.dioReadOffsetAlign = logicalBlockSize;
  info.dioOffsetAlign = ip.isCow ? geo.blockSize : logicalBlockSize;
  const unit = ip.atomicWriteUnit;
  genericFillStatxAtomicWrites(info, unit, unit, 0);
}

/** Methods of a file (kernel: `xfs_inode_operations`). */
export const xfsInodeOperations: InodeOperations = {
  setattr,
  getattr,
  fiemap,
};

/** Methods of a directory (kernel: `xfs_dir_inode_operations`). */
export const xfsDirInodeOperations: InodeOperations = {
  lookup,
  create: (dir, name, mode) => makeNode(dir, name, S_IFREG | mode),
  mkdir: (dir, name, mode) => makeNode(dir, name, S_IFDIR | mode),
  link,
  unlink: remove,
  rmdir: remove,
  rename,
  setattr,
};
