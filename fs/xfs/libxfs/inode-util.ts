/**
 * Inodes in use and out of it: what a new one begins with, counting its names, the lists
 * of those without names, and freeing.
 *
 * An inode whose last name goes may still be open. Its group has it on one of 64 lists
 * then, so that after a crash it can be found and freed. A list is linked forward only,
 * in the inodes on disk; who comes before whom is kept in memory
 * ({@linkcode XfsPerag.prevUnlinked}), or has to be found by walking the list.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_inode_util.c; `xfs_ifree` of fs/xfs/xfs_inode.c.
 *
 * @module
 */

import { EFSCORRUPTED } from "../../../lib/errno.ts";
import {
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
} from "../../fs.ts";
import { currentTime } from "../../inode.ts";
import type { XfsInode } from "../inode.ts";
import type { XfsMount } from "../mount.ts";
import { xfsIallocReadAgi, type XfsPerag } from "./ag.ts";
import { xfsDefaultAttroffset } from "./bmap.ts";
import { bufCrcOk, bufSeal, type XfsBuf } from "./buf.ts";
import { getU64 } from "./bytes.ts";
import * as F from "./format.ts";
import { xfsDifree, XfsIcluster, xfsInodeClusterBuf } from "./ialloc.ts";
import { XfsImap, xfsInodeReadBuf } from "./inode-buf.ts";
import {
  xfsIdestroyFork,
  xfsIforkInitAttr,
  xfsIforkZapAttr,
} from "./inode-fork.ts";
import { XFS_ILOG_CORE, XFS_ILOG_DEV, type XfsTrans } from "./trans.ts";

/** A count of names that is not counted any more (kernel: `XFS_NLINK_PINNED`). */
const XFS_NLINK_PINNED: number = 2 ** 32 - 1;
const S_ISGID = 0o2000;

// ---- new inodes ----

/** Flags that a new inode has whatever it is (kernel: `m_ino_geo.new_diflags2`). */
function newDiflags2(mp: XfsMount): number {
  return (mp.sb.hasBigtime ? F.XFS_DIFLAG2_BIGTIME : 0) |
    (mp.sb.hasNrext64 ? F.XFS_DIFLAG2_NREXT64 : 0);
}

/** What is inherited as it is (kernel: `xfs_inherit_noatime` and so on, but for
 * `xfs_inherit_nosymlinks`, which is off). */
const INHERITED = F.XFS_DIFLAG_NOATIME | F.XFS_DIFLAG_NODUMP |
  F.XFS_DIFLAG_SYNC | F.XFS_DIFLAG_NODEFRAG | F.XFS_DIFLAG_FILESTREAM;
/** What directories inherit besides. */
const INHERITED_BY_DIRS = INHERITED | F.XFS_DIFLAG_RTINHERIT |
  F.XFS_DIFLAG_EXTSZINHERIT | F.XFS_DIFLAG_PROJINHERIT;

/** Flags and hints of the directory go over (kernel: `xfs_inode_inherit_flags`,
 * `xfs_inode_inherit_flags2`). */
function inheritFlags(ip: XfsInode, parent: XfsInode): void {
  const isDirectory = (ip.mode & S_IFMT) === S_IFDIR;
  ip.diflags = parent.diflags & (isDirectory ? INHERITED_BY_DIRS : INHERITED);
  if ((parent.diflags & F.XFS_DIFLAG_EXTSZINHERIT) !== 0) {
    if (!isDirectory) ip.diflags |= F.XFS_DIFLAG_EXTSIZE;
    ip.extsize = parent.extsize;
  }
  ip.diflags2 |= parent.diflags2 &
    (F.XFS_DIFLAG2_COWEXTSIZE | F.XFS_DIFLAG2_DAX);
  if ((parent.diflags2 & F.XFS_DIFLAG2_COWEXTSIZE) !== 0) {
    ip.cowextsize = parent.cowextsize;
  }
}

/** Owner, group, mode and project (kernel: `inode_init_owner`,
 * `xfs_get_initial_prid`). */
function initOwner(
  ip: XfsInode,
  parent: XfsInode | null,
  mode: number,
): void {
  ip.uid = ip.gid = ip.projid = 0;
  ip.mode = mode;
  if (parent === null) return;
  if ((parent.mode & S_ISGID) !== 0) {
    ip.gid = parent.gid;
    if ((mode & S_IFMT) === S_IFDIR) ip.mode |= S_ISGID;
  }
  if ((parent.diflags & F.XFS_DIFLAG_PROJINHERIT) !== 0) {
    ip.projid = parent.projid;
  }
}

/** An empty attribute fork, as most files get an attribute of security at once (kernel:
 * `xfs_icreate_want_attrfork`). */
function initAttrFork(ip: XfsInode): void {
  ip.forkoff = Math.floor(xfsDefaultAttroffset(ip) / 8);
  xfsIforkInitAttr(ip, F.XFS_DINODE_FMT_EXTENTS, 0);
  ip.mount.sb.versionnum |= F.XFS_SB_VERSION_ATTRBIT;
}

/**
 * Sets a new inode up and logs it (kernel: `xfs_inode_init`): one name, or two for a
 * directory; no data. Its number is allocated, and its generation is what it is.
 *
 * @param parent Directory that it is for, or null.
 * @param mode Type and permissions.
 */
export function xfsInodeInit(
  tp: XfsTrans,
  ip: XfsInode,
  parent: XfsInode | null,
  mode: number,
): void {
  const type = mode & S_IFMT;
  initOwner(ip, parent, mode);
  ip.nlink = type === S_IFDIR ? 2 : 1;
  ip.size = ip.diskSize = 0;
  ip.nblocks = 0;
  ip.extsize = ip.cowextsize = 0;
  ip.diflags = 0;
  ip.diflags2 = newDiflags2(ip.mount);
  ip.changecount = 1;
  ip.atime =
    ip.mtime =
    ip.ctime =
    ip.crtime =
      currentTime(ip.mount);
  ip.df.format = F.XFS_DINODE_FMT_EXTENTS;
  let fields = XFS_ILOG_CORE;
  switch (type) {
    case S_IFIFO:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFSOCK:
      ip.df.format = F.XFS_DINODE_FMT_DEV;
      fields |= XFS_ILOG_DEV;
      break;
    case S_IFREG:
    case S_IFDIR:
      if (parent !== null) inheritFlags(ip, parent);
  }
  if (type !== S_IFLNK) initAttrFork(ip);
  tp.logInode(ip, fields);
}

// ---- names ----

/** A name of an inode goes; with the last one it is put on a list of its group (kernel:
 * `xfs_droplink`).
 * @returns 0 or a negative errno, as {@linkcode xfsIunlink}. */
export function xfsDroplink(tp: XfsTrans, ip: XfsInode): number {
  ip.ctime = currentTime(ip.mount);
  // A count that was wrong: better a lost file than one freed in use.
  if (ip.nlink === 0) ip.nlink = XFS_NLINK_PINNED;
  if (ip.nlink !== XFS_NLINK_PINNED) ip.nlink--;
  tp.logInode(ip, XFS_ILOG_CORE);
  return ip.nlink > 0 ? 0 : xfsIunlink(tp, ip);
}

/** An inode gets another name (kernel: `xfs_bumplink`). */
export function xfsBumplink(tp: XfsTrans, ip: XfsInode): void {
  ip.ctime = currentTime(ip.mount);
  if (ip.nlink !== XFS_NLINK_PINNED) ip.nlink++;
  tp.logInode(ip, XFS_ILOG_CORE);
}

// ---- lists of inodes without names ----

const imap = new XfsImap();

/** What makes a list: group, header and place of its head. */
class Bucket {
  pag!: XfsPerag;
  agibp!: XfsBuf;
  /** Byte of the head in the AGI. */
  at = 0;
  /** Which one. */
  index = 0;

  /** First inode, or `NULLAGINO`. */
  get head(): number {
    return this.agibp.view.getUint32(this.at);
  }

  /** Finds the list of an inode.
   * @returns 0 or a negative errno. */
  find(tp: XfsTrans, ino: number): number {
    const { mp } = tp;
    this.pag = mp.perags[mp.sb.inoToAgno(ino)]!;
    const agibp = xfsIallocReadAgi(this.pag, tp);
    if (typeof agibp === "number") return agibp;
    this.agibp = agibp;
    this.index = mp.sb.inoToAgino(ino) % F.XFS_AGI_UNLINKED_BUCKETS;
    this.at = F.AGI_UNLINKED + this.index * 4;
    return 0;
  }

  /** Kernel: `xfs_iunlink_update_bucket`. */
  setHead(tp: XfsTrans, agino: number): void {
    this.agibp.view.setUint32(this.at, agino);
    tp.logBuf(this.agibp, this.at, this.at + 3);
  }

  corrupt(why: string): number {
    const { mp, agno } = this.pag;
    mp.corrupt(`unlinked list ${this.index} of AG ${agno}`, why);
    return -EFSCORRUPTED;
  }
}

const bucket = new Bucket();

/** Pointer to the next inode of a list.
 * @returns It or a negative errno. */
function readNext(mp: XfsMount, ino: number): number {
  const bp = xfsInodeReadBuf(mp, ino, imap);
  if (typeof bp === "number") return bp;
  return bp.view.getUint32(imap.boffset + F.DI_NEXT_UNLINKED);
}

/** Changes the pointer to the next inode of a list (kernel: `xfs_iunlink_log_dinode`).
 * @param old What it must be now.
 * @returns 0 or a negative errno. */
function updateNext(
  tp: XfsTrans,
  agino: number,
  old: number,
  next: number,
): number {
  const { mp, agno } = bucket.pag;
  const bp = xfsInodeReadBuf(mp, mp.sb.aginoToIno(agno, agino), imap);
  if (typeof bp === "number") return bp;
  const at = imap.boffset;
  const found = bp.view.getUint32(at + F.DI_NEXT_UNLINKED);
  if (found !== old) {
    return bucket.corrupt(`inode ${agino} points to ${found}, not ${old}`);
  }
  if (old === next) return 0;
  bp.view.setUint32(at + F.DI_NEXT_UNLINKED, next);
  bufSeal(bp.data.subarray(at, at + mp.sb.inodesize), F.DI_CRC);
  tp.logBuf(bp, at + F.DI_NEXT_UNLINKED, at + F.DI_CRC + 3);
  return 0;
}

/** Finds the inode that points to `agino` by walking the list from its head. What it
 * passes is remembered; an inode that two point to would be a ring.
 * @returns It or a negative errno. */
function walkToPrev(agino: number): number {
  const { pag, head } = bucket;
  const { mp, agno, prevUnlinked } = pag;
  for (let at = head; at !== F.NULLAGINO;) {
    const why = checkListed(mp, mp.sb.aginoToIno(agno, at));
    if (why !== null) return bucket.corrupt(`inode ${at}: ${why}`);
    const next = readNext(mp, mp.sb.aginoToIno(agno, at));
    if (next < 0) return next;
    if (next === agino) return at;
    const prev = prevUnlinked.get(next) ?? at;
    if (next === head || prev !== at) return bucket.corrupt("a ring");
    prevUnlinked.set(next, at);
    at = next;
  }
  return bucket.corrupt(`no inode ${agino}`);
}

/** Whether an inode may be on the list; null if so. */
function checkListed(mp: XfsMount, ino: number): string | null {
  if (mp.sb.inoToAgino(ino) % F.XFS_AGI_UNLINKED_BUCKETS !== bucket.index) {
    return "on the wrong list";
  }
  const bp = xfsInodeReadBuf(mp, ino, imap);
  if (typeof bp === "number") return "cannot be read";
  const at = imap.boffset;
  const data = bp.data.subarray(at, at + mp.sb.inodesize);
  if (!bufCrcOk(data, F.DI_CRC)) return "checksum";
  const found = getU64(bp.view, at + F.DI_INO);
  return found === ino ? null : `ino ${found}`;
}

/**
 * Puts an inode at the head of its list (kernel: `xfs_iunlink`).
 *
 * @returns 0; -EFSCORRUPTED if it is on one, or if the list cannot be; an errno of the
 *   device.
 */
export function xfsIunlink(tp: XfsTrans, ip: XfsInode): number {
  let error = bucket.find(tp, ip.ino);
  if (error < 0) return error;
  const { pag, head } = bucket;
  const agino = pag.mp.sb.inoToAgino(ip.ino);
  if (head === agino || pag.prevUnlinked.has(agino)) {
    return bucket.corrupt(`inode ${agino} is on it twice`);
  }
  error = updateNext(tp, agino, F.NULLAGINO, head);
  if (error < 0) return error;
  if (head !== F.NULLAGINO) pag.prevUnlinked.set(head, agino);
  bucket.setHead(tp, agino);
  return 0;
}

/**
 * Takes an inode off its list (kernel: `xfs_iunlink_remove`).
 *
 * @returns 0; -EFSCORRUPTED if it is on none, or if the list cannot be; an errno of the
 *   device.
 */
export function xfsIunlinkRemove(tp: XfsTrans, ip: XfsInode): number {
  let error = bucket.find(tp, ip.ino);
  if (error < 0) return error;
  const { pag, head } = bucket;
  const { prevUnlinked } = pag;
  const agino = pag.mp.sb.inoToAgino(ip.ino);
  const first = head === agino;
  const prev = first ? agino : prevUnlinked.get(agino) ?? walkToPrev(agino);
  if (prev < 0) return prev;
  const next = readNext(pag.mp, ip.ino);
  if (next < 0) return next;
  error = updateNext(tp, agino, next, F.NULLAGINO);
  if (error < 0) return error;
  if (first) bucket.setHead(tp, next);
  else error = updateNext(tp, prev, agino, next);
  prevUnlinked.delete(agino);
  if (first) prevUnlinked.delete(next);
  else if (next !== F.NULLAGINO) prevUnlinked.set(next, prev);
  return error;
}

// ---- freeing ----

const xic = new XfsIcluster();

/** Nobody writes the blocks of a chunk any more (kernel: `xfs_ifree_cluster`). */
function ifreeCluster(tp: XfsTrans, pag: XfsPerag): number {
  const { sb } = tp.mp;
  const { inodesPerCluster } = sb;
  for (let i = 0; i < F.XFS_INODES_PER_CHUNK; i += inodesPerCluster) {
    const bit = Math.floor(i / F.XFS_INODES_PER_HOLEMASK_BIT);
    if ((xic.holemask & 1 << bit) !== 0) continue;
    const agbno = sb.aginoToAgbno(xic.startino + i);
    const bp = xfsInodeClusterBuf(tp, pag, agbno);
    if (typeof bp === "number") return bp;
    tp.binval(bp);
  }
  return 0;
}

/** The inode in memory is a free one from now on (kernel: the end of
 * `xfs_inode_uninit`). */
function reset(tp: XfsTrans, ip: XfsInode): void {
  xfsIdestroyFork(ip.df);
  xfsIforkZapAttr(ip);
  ip.mode = 0;
  ip.diflags = 0;
  ip.diflags2 = newDiflags2(ip.mount);
  ip.forkoff = 0;
  ip.df.format = F.XFS_DINODE_FMT_EXTENTS;
  // Handles to it must not find the next one of this number.
  ip.gen = ip.gen + 1 >>> 0;
  tp.logInode(ip, XFS_ILOG_CORE);
}

/**
 * Frees an inode without names and without blocks, which is on a list of its group
 * (kernel: `xfs_ifree`).
 *
 * @returns 0; 1 if all of its chunk is gone: then it must not be written any more;
 *   -EFSCORRUPTED if it is free already, or if the trees or the list cannot be; -ENOSPC
 *   if the tree of free inodes could not grow; an errno of the device.
 */
export function xfsIfree(tp: XfsTrans, ip: XfsInode): number {
  let error = xfsDifree(tp, ip.ino, xic);
  if (error < 0) return error;
  error = xfsIunlinkRemove(tp, ip);
  if (error < 0) return error;
  reset(tp, ip);
  if (!xic.deleted) return 0;
  error = ifreeCluster(tp, bucket.pag);
  return error < 0 ? error : 1;
}
