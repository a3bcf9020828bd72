/**
 * Names and attributes.
 *
 * Kernel counterpart: fs/xfs/xfs_iops.c, xfs_inode.c (`xfs_create`, `xfs_remove`,
 * `xfs_link`, `xfs_rename`).
 *
 * @module
 */

import {
  EEXIST,
  EIO,
  ENAMETOOLONG,
  ENOENT,
  ENOSPC,
  ENOTEMPTY,
} from "../../lib/errno.ts";
import { toDate } from "../../lib/clock.ts";
import { andThen, type MaybePromise } from "../../lib/maybe-promise.ts";
import { filemapWriteAndWaitRange } from "../../mm/filemap.ts";
import { truncateSetsize } from "../../mm/truncate.ts";
import { iomapFiemap } from "../../iomap/fiemap.ts";
import {
  type FiemapExtentInfo,
  type Iattr,
  type Inode,
  type InodeOperations,
  RENAME_EXCHANGE,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
} from "../fs.ts";
import { FIEMAP_FLAG_XATTR } from "../ioctl.ts";
import {
  currentTime,
  inodeDioWait,
  inodeLock,
  inodeUnlock,
  iput,
  setattrCopy,
} from "../inode.ts";
import { type FileInfo, genericFillStatxAtomicWrites } from "../stat.ts";
import { itruncateExtents } from "./bmap-util.ts";
import { freeSpace, xfsIcreate, xfsIget } from "./icache.ts";
import { ilockExcl, type XfsInode } from "./inode.ts";
import {
  xfsReadIomapOps,
  xfsTruncatePage,
  xfsXattrIomapOps,
  xfsZeroRange,
} from "./iomap.ts";
import { XFS_DIFLAG2_REFLINK } from "./libxfs/format.ts";
import {
  xfsDirCanenter,
  xfsDirCreatename,
  xfsDirInit,
  xfsDirIsempty,
  xfsDirLookup,
  xfsDirRemovename,
  xfsDirReplace,
  type XfsName,
} from "./libxfs/dir2.ts";
import { xfsDialloc } from "./libxfs/ialloc.ts";
import { xfsBumplink, xfsDroplink } from "./libxfs/inode-util.ts";
import {
  xfsSymlinkBlocks,
  xfsSymlinkRead,
  xfsSymlinkWriteTarget,
} from "./libxfs/symlink-remote.ts";
import {
  xfsCreateSpaceRes,
  xfsDirenterSpaceRes,
  xfsDirremoveSpaceRes,
  xfsRenameSpaceRes,
  xfsSymlinkSpaceRes,
} from "./libxfs/trans-space.ts";
import {
  XFS_ILOG_CORE,
  XFS_TRANS_RESERVE,
  type XfsTrans,
  xfsTransAlloc,
} from "./libxfs/trans.ts";
import type { XfsMount } from "./mount.ts";
import { decodeName, encodeName } from "./name.ts";
import { getXattr, listXattr, setXattr } from "./xattr.ts";

/** Kinds of inodes in the order of `XFS_DIR3_FT_*`; a look-up asks for none. */
const FTYPES: readonly number[] = [
  0,
  S_IFREG,
  S_IFDIR,
  S_IFCHR,
  S_IFBLK,
  S_IFIFO,
  S_IFSOCK,
  S_IFLNK,
];
/** Longest target of a symbolic link, bytes (kernel: `XFS_SYMLINK_MAXLEN` less its
 * end mark). */
const SYMLINK_MAX = 1023;

const DOTDOT_BYTES: Uint8Array = encodeName("..");

/** A name that stands for an inode, or is to. */
function xfsName(name: string, mode = 0): XfsName {
  return { name: encodeName(name), type: xfsModeToFtype(mode) };
}

/** ".." of a directory. */
function dotdot(): XfsName {
  return { name: DOTDOT_BYTES, type: xfsModeToFtype(S_IFDIR) };
}

/** What a directory entry says of an inode's kind (kernel: `xfs_mode_to_ftype`). */
function xfsModeToFtype(mode: number): number {
  return FTYPES.indexOf(mode & S_IFMT);
}

/** The kind, `S_IF*`, that a directory entry tells. */
export function xfsFtypeToMode(ftype: number): number {
  return FTYPES[ftype] ?? 0;
}

/** Time stamps of a directory or inode whose names changed. */
function touch(tp: XfsTrans, ip: XfsInode, data: boolean): void {
  const now = currentTime(ip.mount);
  if (data) ip.mtime = now;
  ip.ctime = now;
  tp.logInode(ip, XFS_ILOG_CORE);
}

/** Ends a change: commits what went well, or takes it back. */
function finish(tp: XfsTrans, error: number): number {
  if (error < 0) {
    tp.cancel();
    return error;
  }
  return tp.commit();
}

/** Does a change that needs space, and if there is none, does it again after space has
 * been freed (kernel: `xfs_flush_inodes` and another try). */
function withSpace<T>(
  mp: XfsMount,
  change: () => T | number,
): MaybePromise<T | number> {
  const done = change();
  if (done !== -ENOSPC) return done;
  return andThen(freeSpace(mp), change);
}

/** Begins a change of names. Where there is no space it has none reserved, and does
 * what fits into the blocks that the directory has (kernel: `xfs_trans_alloc_dir`). */
function dirTrans(mp: XfsMount, blocks: number, flags = 0): XfsTrans | number {
  const tp = xfsTransAlloc(mp, blocks, flags);
  return tp === -ENOSPC ? xfsTransAlloc(mp, 0, flags) : tp;
}

/** Enters a name, if there is room for it. */
function enterName(
  tp: XfsTrans,
  dp: XfsInode,
  name: XfsName,
  ino: number,
): number {
  const total = tp.blkRes;
  const room = total > 0 ? 0 : xfsDirCanenter(tp, dp, name);
  return room < 0 ? room : xfsDirCreatename(tp, dp, name, ino, total);
}

/** Runs with the ILOCKs of several inodes, each once (kernel: `xfs_lock_inodes`). */
function withIlocks<T>(inodes: (XfsInode | null)[], work: () => T): T {
  const locked = [...new Set(inodes)].filter((ip) => ip !== null);
  locked.sort((a, b) => a.ino - b.ino);
  for (const ip of locked) ilockExcl(ip);
  try {
    return work();
  } finally {
    for (const ip of locked) ip.ilock.upWrite();
  }
}

/** Kernel: `xfs_vn_lookup`. */
function lookup(dir: Inode, name: string): MaybePromise<Inode | number> {
  const dp = dir as XfsInode;
  if (dp.mount.dead) return -EIO;
  const ino = xfsDirLookup(null, dp, xfsName(name));
  return ino < 0 ? ino : xfsIget(dp.mount, ino);
}

/** Makes an inode and its first name (kernel: `xfs_create`).
 * @param init Gives it its contents within the transaction. */
function makeNode(
  dir: Inode,
  name: string,
  mode: number,
  blocks: number,
  init: (tp: XfsTrans, ip: XfsInode) => number,
): MaybePromise<Inode | number> {
  const dp = dir as XfsInode;
  const { mount } = dp;
  const xname = xfsName(name, mode);
  return withSpace(mount, () => {
    const tp = xfsTransAlloc(mount, blocks);
    if (typeof tp === "number") return tp;
    ilockExcl(dp);
    const made = makeIn(tp, dp, xname, mode, init);
    const error = finish(tp, typeof made === "number" ? made : 0);
    dp.ilock.upWrite();
    if (error < 0 && typeof made !== "number") iput(made);
    return error < 0 ? error : made;
  });
}

function makeIn(
  tp: XfsTrans,
  dp: XfsInode,
  name: XfsName,
  mode: number,
  init: (tp: XfsTrans, ip: XfsInode) => number,
): XfsInode | number {
  const ino = xfsDialloc(tp, dp.ino, mode);
  if (ino < 0) return ino;
  const ip = xfsIcreate(tp, ino, dp, mode);
  if (typeof ip === "number") return ip;
  const total = tp.blkRes - tp.blkResUsed;
  let error = xfsDirCreatename(tp, dp, name, ino, total);
  if (error === 0) {
    touch(tp, dp, true);
    error = init(tp, ip);
  }
  if (error < 0) iput(ip);
  return error < 0 ? error : ip;
}

function create(
  dir: Inode,
  name: string,
  mode: number,
): MaybePromise<Inode | number> {
  const { mount } = dir as XfsInode;
  const blocks = xfsCreateSpaceRes(mount);
  return makeNode(dir, name, S_IFREG | mode, blocks, () => 0);
}

function mkdir(
  dir: Inode,
  name: string,
  mode: number,
): MaybePromise<Inode | number> {
  const dp = dir as XfsInode;
  const blocks = xfsCreateSpaceRes(dp.mount);
  return makeNode(dir, name, S_IFDIR | mode, blocks, (tp, ip) => {
    const error = xfsDirInit(tp, ip, dp);
    // The new directory's ".." is a name of its parent.
    if (error === 0) xfsBumplink(tp, dp);
    return error;
  });
}

/** Kernel: `xfs_symlink`. */
function symlink(
  dir: Inode,
  name: string,
  target: string,
): MaybePromise<Inode | number> {
  const { mount } = dir as XfsInode;
  const bytes = encodeName(target);
  if (bytes.length > SYMLINK_MAX) return -ENAMETOOLONG;
  const b = xfsSymlinkBlocks(mount, bytes.length);
  const blocks = xfsSymlinkSpaceRes(mount, b);
  return makeNode(dir, name, S_IFLNK | 0o777, blocks, (tp, ip) => {
    const left = tp.blkRes - tp.blkResUsed;
    return xfsSymlinkWriteTarget(tp, ip, bytes, b, left);
  });
}

/** Kernel: `xfs_vn_get_link`. */
function getLink(inode: Inode): MaybePromise<string | number> {
  const ip = inode as XfsInode;
  if (ip.mount.dead) return -EIO;
  const target = xfsSymlinkRead(ip);
  return typeof target === "number" ? target : decodeName(target);
}

/** Kernel: `xfs_vn_link`, `xfs_link`. */
function link(target: Inode, dir: Inode, name: string): MaybePromise<number> {
  const dp = dir as XfsInode;
  const ip = target as XfsInode;
  const { mount } = dp;
  const xname = xfsName(name, ip.mode);
  const tp = dirTrans(mount, xfsDirenterSpaceRes(mount));
  if (typeof tp === "number") return tp;
  return withIlocks([dp, ip], () => {
    const error = enterName(tp, dp, xname, ip.ino);
    if (error === 0) {
      touch(tp, dp, true);
      xfsBumplink(tp, ip);
      touch(tp, ip, false);
    }
    return finish(tp, error);
  });
}

/** Kernel: `xfs_vn_unlink`, `xfs_remove`. */
function remove(dir: Inode, name: string, victim: Inode): number {
  const dp = dir as XfsInode;
  const ip = victim as XfsInode;
  const { mount } = dp;
  const blocks = xfsDirremoveSpaceRes(mount);
  const tp = dirTrans(mount, blocks, XFS_TRANS_RESERVE);
  if (typeof tp === "number") return tp;
  return withIlocks([dp, ip], () => {
    const error = removeIn(tp, dp, xfsName(name), ip);
    return finish(tp, error);
  });
}

/** Takes a name away, and what it counted for. */
function removeIn(
  tp: XfsTrans,
  dp: XfsInode,
  name: XfsName,
  ip: XfsInode,
): number {
  const isDirectory = (ip.mode & S_IFMT) === S_IFDIR;
  if (isDirectory) {
    const empty = xfsDirIsempty(ip);
    if (!empty || ip.nlink !== 2) return -ENOTEMPTY;
    // Its "..", and its ".".
    const dropped = xfsDroplink(tp, dp) || xfsDroplink(tp, ip) ||
      forgetParent(tp, ip, dp);
    if (dropped < 0) return dropped;
  } else tp.logInode(dp, XFS_ILOG_CORE);
  touch(tp, dp, true);
  touch(tp, ip, false);
  const dropped = xfsDroplink(tp, ip);
  if (dropped < 0) return dropped;
  const blocks = tp.blkRes;
  const error = xfsDirRemovename(tp, dp, name, ip.ino, blocks);
  return error === -ENOENT
    ? tp.mp.corrupt(`directory ${dp.ino}`, "a name that was found is gone")
    : error;
}

/** A directory without a name that is still in use must not refer to a parent that may
 * go before it: its ".." is the root. */
function forgetParent(tp: XfsTrans, ip: XfsInode, dp: XfsInode): number {
  const { rootino } = tp.mp.sb;
  return dp.ino === rootino ? 0 : xfsDirReplace(tp, ip, dotdot(), rootino, 0);
}

/** Kernel: `xfs_rename`. */
function rename(
  oldDir: Inode,
  oldName: string,
  source: Inode,
  newDir: Inode,
  newName: string,
  victim: Inode | null,
  flags: number,
): MaybePromise<number> {
  const from: Place = { dp: oldDir as XfsInode, name: xfsName(oldName) };
  const to: Place = { dp: newDir as XfsInode, name: xfsName(newName) };
  const ip = source as XfsInode;
  const other = victim as XfsInode | null;
  const { mount } = ip;
  const tp = dirTrans(mount, xfsRenameSpaceRes(mount));
  if (typeof tp === "number") return tp;
  return withIlocks([from.dp, to.dp, ip, other], () => {
    const error = flags === RENAME_EXCHANGE
      ? exchangeIn(tp, from, ip, to, other!)
      : renameIn(tp, from, ip, to, other);
    return finish(tp, error);
  });
}

/** A name in a directory. */
interface Place {
  dp: XfsInode;
  name: XfsName;
}

/** The name of a place, for an inode. */
function nameFor({ name }: Place, ip: XfsInode): XfsName {
  return { name: name.name, type: xfsModeToFtype(ip.mode) };
}

/** Kernel: `xfs_dir_rename_children`. */
function renameIn(
  tp: XfsTrans,
  from: Place,
  ip: XfsInode,
  to: Place,
  victim: XfsInode | null,
): number {
  const directory = (ip.mode & S_IFMT) === S_IFDIR;
  const moves = from.dp !== to.dp;
  const total = tp.blkRes;
  let error: number;
  if (victim === null) {
    error = enterName(tp, to.dp, nameFor(to, ip), ip.ino);
    if (error === 0 && directory && moves) xfsBumplink(tp, to.dp);
  } else error = replaceIn(tp, to, ip, victim, total);
  if (error < 0) return error;
  touch(tp, to.dp, true);
  if (directory && moves) {
    error = xfsDirReplace(tp, ip, dotdot(), to.dp.ino, total);
    if (error < 0) return error;
  }
  touch(tp, ip, false);
  // Its ".." is a name of the old directory no more.
  if (directory && (moves || victim !== null)) {
    error = xfsDroplink(tp, from.dp);
    if (error < 0) return error;
  }
  error = xfsDirRemovename(tp, from.dp, from.name, ip.ino, total);
  touch(tp, from.dp, true);
  return error;
}

/** The name is there already: it names something else from now on. */
function replaceIn(
  tp: XfsTrans,
  to: Place,
  ip: XfsInode,
  victim: XfsInode,
  total: number,
): number {
  const directory = (victim.mode & S_IFMT) === S_IFDIR;
  // Unlike rmdir, and as XFS alone has it.
  if (directory && (!xfsDirIsempty(victim) || victim.nlink > 2)) return -EEXIST;
  let error = xfsDirReplace(tp, to.dp, nameFor(to, ip), ip.ino, total);
  if (error < 0) return error;
  touch(tp, victim, false);
  error = xfsDroplink(tp, victim);
  if (error === 0 && directory) error = xfsDroplink(tp, victim);
  return error;
}

/** Kernel: `xfs_dir_exchange_children`. */
function exchangeIn(
  tp: XfsTrans,
  from: Place,
  ip: XfsInode,
  to: Place,
  other: XfsInode,
): number {
  const total = tp.blkRes;
  let error = xfsDirReplace(
    tp,
    from.dp,
    nameFor(from, other),
    other.ino,
    total,
  );
  if (error < 0) return error;
  error = xfsDirReplace(tp, to.dp, nameFor(to, ip), ip.ino, total);
  if (error < 0) return error;
  if (from.dp !== to.dp) {
    error = reparent(tp, ip, from.dp, to.dp, total);
    if (error === 0) error = reparent(tp, other, to.dp, from.dp, total);
    if (error < 0) return error;
  }
  touch(tp, ip, false);
  touch(tp, other, false);
  touch(tp, from.dp, true);
  touch(tp, to.dp, true);
  return 0;
}

/** A directory has another parent. */
function reparent(
  tp: XfsTrans,
  ip: XfsInode,
  from: XfsInode,
  to: XfsInode,
  total: number,
): number {
  if ((ip.mode & S_IFMT) !== S_IFDIR) return 0;
  const error = xfsDirReplace(tp, ip, dotdot(), to.ino, total);
  if (error < 0) return error;
  xfsBumplink(tp, to);
  return xfsDroplink(tp, from);
}

/** Applies attributes (kernel: `xfs_vn_setattr`). The caller holds the IOLOCK
 * exclusively. */
function setattr(inode: Inode, attr: Iattr): MaybePromise<number> {
  const ip = inode as XfsInode;
  if (ip.mount.dead) return -EIO;
  const { size } = attr;
  if (size === undefined) return setattrNonsize(ip, attr);
  const { invalidateLock } = ip.mapping;
  return andThen(
    invalidateLock.downWrite(),
    () =>
      andThen(setattrSize(ip, size, attr), (error) => {
        invalidateLock.upWrite();
        return error;
      }),
  );
}

/** Kernel: `xfs_setattr_nonsize`. */
function setattrNonsize(ip: XfsInode, attr: Iattr): number {
  const tp = xfsTransAlloc(ip.mount, 0);
  if (typeof tp === "number") return tp;
  ilockExcl(ip);
  setattrCopy(ip, attr);
  tp.logInode(ip, XFS_ILOG_CORE);
  const error = tp.commit();
  ip.ilock.upWrite();
  return error;
}

/**
 * Sets the size of a file (kernel: `xfs_setattr_size`). The caller holds IOLOCK and
 * MMAPLOCK exclusively.
 *
 * @param size Bytes.
 * @param attr What else changes. The times of a file whose size changes do, of another
 *   one only if they are given.
 * @returns 0 or a negative errno; the cache may have been truncated all the same.
 */
export function setattrSize(
  ip: XfsInode,
  size: number,
  attr: Iattr = {},
): MaybePromise<number> {
  if (
    size === 0 && ip.size === 0 && ip.df.nextents === 0 && ip.delayedBlks === 0
  ) return attr.mtime === undefined ? 0 : setattrNonsize(ip, attr);
  // Only then is it known where the file ends: a direct write may still move it.
  return andThen(inodeDioWait(ip), () => changeSize(ip, size, attr));
}

function changeSize(
  ip: XfsInode,
  size: number,
  attr: Iattr,
): MaybePromise<number> {
  const oldSize = ip.size;
  const didZero = { value: false };
  const zeroed = size > oldSize
    ? xfsZeroRange(ip, oldSize, size - oldSize, didZero)
    : xfsTruncatePage(ip, size, didZero);
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
    return commitSize(ip, size, oldSize, attr);
  });
}

/** The transaction of a new size: what lies beyond it is freed. */
function commitSize(
  ip: XfsInode,
  size: number,
  oldSize: number,
  attr: Iattr,
): number {
  const tp = xfsTransAlloc(ip.mount, 0, XFS_TRANS_RESERVE);
  if (typeof tp === "number") return tp;
  ilockExcl(ip);
  if (size !== oldSize || attr.mtime !== undefined) {
    setattrCopy(ip, { mtime: currentTime(ip.mount), ...attr });
  }
  ip.diskSize = size;
  tp.logInode(ip, XFS_ILOG_CORE);
  let error = 0;
  if (size <= oldSize) {
    error = itruncateExtents(tp, ip, size);
    ip.truncated = true;
    // Blocks for copies may be left below the end.
    if ((ip.cow?.nextents ?? 0) === 0) ip.mount.blockgc.delete(ip);
  }
  error = finish(tp, error);
  ip.ilock.upWrite();
  return error;
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

/** What direct and atomic writes have to be (kernel: `xfs_vn_getattr`,
 * `xfs_report_dioalign`, `xfs_report_atomic_write`). */
function getattr(inode: Inode, info: FileInfo): void {
  const ip = inode as XfsInode;
  const { bdev, sb } = ip.mount;
  info.birthtime = toDate(ip.crtime);
  if ((ip.mode & S_IFMT) !== S_IFREG) return;
  const { dmaAlignment, logicalBlockSize } = bdev.limits;
  info.dioMemAlign = dmaAlignment + 1;
  info.dioReadOffsetAlign = logicalBlockSize;
  info.dioOffsetAlign = (ip.diflags2 & XFS_DIFLAG2_REFLINK) !== 0
    ? sb.blocksize
    : logicalBlockSize;
  const max = ip.atomicWriteMax;
  // What the device does itself is faster; of one block there is nothing to say.
  const opt = max <= sb.blocksize ? 0 : Math.min(max, ip.atomicHwMax);
  genericFillStatxAtomicWrites(info, ip.atomicWriteMin, max, opt);
}

/** Methods of a file, and of what has no others (kernel: `xfs_inode_operations`). */
export const xfsInodeOperations: InodeOperations = {
  setattr,
  getattr,
  fiemap,
  getXattr,
  setXattr,
  listXattr,
};

/** Methods of a symbolic link (kernel: `xfs_symlink_inode_operations`). */
export const xfsSymlinkInodeOperations: InodeOperations = {
  getLink,
  setattr,
  getattr,
  getXattr,
  setXattr,
  listXattr,
};

/** Methods of a directory (kernel: `xfs_dir_inode_operations`). */
export const xfsDirInodeOperations: InodeOperations = {
  lookup,
  create,
  mkdir,
  symlink,
  link,
  unlink: remove,
  rmdir: remove,
  rename,
  setattr,
  getattr,
  getXattr,
  setXattr,
  listXattr,
};
