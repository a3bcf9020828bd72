/**
 * Forks of an inode: what of it holds data, extents or a tree, and how that is read
 * from the inode on disk and written back to it.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_inode_fork.c.
 *
 * @module
 */

import { EFBIG } from "../../../lib/errno.ts";
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from "../../fs.ts";
import type { XfsInode } from "../inode.ts";
import {
  BMBT_REC_LEN,
  xfsBmapValidateExtent,
  xfsBmbtDiskGetAll,
  xfsBmbtDiskSetAll,
  xfsBmbtToBmdr,
  xfsBmdrSpaceCalc,
  xfsBmdrToBmbt,
  xfsIforkBroot,
} from "./bmap-btree.ts";
import { getU64 } from "./bytes.ts";
import * as F from "./format.ts";
import { BmbtIrec, IextCursor, Ifork, isnullstartblock } from "./iext.ts";
import { XFS_ILOG_CORE, type XfsTrans } from "./trans.ts";

/** Extents that an operation may add to a fork: what maps into a hole (kernel:
 * `XFS_IEXT_ADD_NOSPLIT_CNT`). */
export const XFS_IEXT_ADD_NOSPLIT_CNT = 1;
/** What puts a new extent over the middle of an old one (kernel:
 * `XFS_IEXT_REFLINK_END_COW_CNT`). */
export const XFS_IEXT_REFLINK_END_COW_CNT = 2;

const cur = new IextCursor();
const rec = new BmbtIrec();

// ---- sizes ----

/** Bytes of an inode that its forks share (kernel: `XFS_LITINO`). */
function litino(ip: XfsInode): number {
  return ip.mount.sb.inodesize - F.DI_SIZE_V3;
}

/** Bytes that a fork has in the inode (kernel: `xfs_inode_fork_size`). */
export function xfsInodeForkSize(ip: XfsInode, whichfork: number): number {
  const data = ip.forkoff !== 0 ? ip.forkoff * 8 : litino(ip);
  if (whichfork === F.XFS_DATA_FORK) return data;
  return whichfork === F.XFS_ATTR_FORK ? litino(ip) - data : 0;
}

/** Extents that a fork has room for in the inode (kernel: `XFS_IFORK_MAXEXT`). */
export function xfsIforkMaxext(ip: XfsInode, whichfork: number): number {
  return Math.floor(xfsInodeForkSize(ip, whichfork) / BMBT_REC_LEN);
}

/** A fork, or null if the inode has no such fork (kernel: `xfs_ifork_ptr`). */
export function xfsIforkPtr(ip: XfsInode, whichfork: number): Ifork | null {
  if (whichfork === F.XFS_DATA_FORK) return ip.df;
  return whichfork === F.XFS_ATTR_FORK ? ip.af : ip.cow;
}

/** Whether a fork consists of extents, in the inode or in a tree (kernel:
 * `xfs_ifork_has_extents`). */
export function xfsIforkHasExtents(fork: Ifork): boolean {
  return fork.format === F.XFS_DINODE_FMT_EXTENTS ||
    fork.format === F.XFS_DINODE_FMT_BTREE;
}

// ---- numbers of extents ----

/** Whether an inode counts extents in 64 bits (kernel:
 * `xfs_inode_has_large_extent_counts`). */
export function xfsInodeHasLargeExtentCounts(ip: XfsInode): boolean {
  return (ip.diflags2 & F.XFS_DIFLAG2_NREXT64) !== 0;
}

/** Most extents of a fork (kernel: `xfs_iext_max_nextents`). */
export function xfsIextMaxNextents(large: boolean, whichfork: number): number {
  if (whichfork !== F.XFS_ATTR_FORK) return large ? 2 ** 48 - 1 : 2 ** 31 - 1;
  return large ? 2 ** 32 - 1 : 2 ** 15 - 1;
}

/**
 * Sees to it that a fork can have more extents; wider counters are used from now on if
 * they must be (kernel: `xfs_iext_count_extend`).
 *
 * @param more Extents that the transaction may add.
 * @returns 0, or -EFBIG if there would be too many.
 */
export function xfsIextCountExtend(
  tp: XfsTrans,
  ip: XfsInode,
  whichfork: number,
  more: number,
): number {
  if (whichfork === F.XFS_COW_FORK) return 0;
  const nextents = xfsIforkPtr(ip, whichfork)!.nextents + more;
  const large = xfsInodeHasLargeExtentCounts(ip);
  if (nextents <= xfsIextMaxNextents(large, whichfork)) return 0;
  if (large || !ip.mount.sb.hasNrext64) return -EFBIG;
  ip.diflags2 |= F.XFS_DIFLAG2_NREXT64;
  tp.logInode(ip, XFS_ILOG_CORE);
  return 0;
}

// ---- making and dropping forks ----

/** The inode has an attribute fork from now on (kernel: `xfs_ifork_init_attr`).
 * @param format `XFS_DINODE_FMT_*`. */
export function xfsIforkInitAttr(
  ip: XfsInode,
  format: number,
  nextents: number,
): void {
  ip.af = new Ifork();
  ip.af.format = format;
  ip.af.nextents = nextents;
}

/** The inode has no attribute fork any more (kernel: `xfs_ifork_zap_attr`). */
export function xfsIforkZapAttr(ip: XfsInode): void {
  ip.af = null;
}

/** The inode has a fork for copy-on-write from now on (kernel:
 * `xfs_ifork_init_cow`). */
export function xfsIforkInitCow(ip: XfsInode): void {
  if (ip.cow !== null) return;
  ip.cow = new Ifork();
  ip.cow.format = F.XFS_DINODE_FMT_EXTENTS;
}

/** A local fork has this for its contents (kernel: `xfs_init_local_fork`).
 * @param data Copied. */
export function xfsInitLocalFork(
  ip: XfsInode,
  whichfork: number,
  data: Uint8Array,
): void {
  xfsIforkPtr(ip, whichfork)!.local = data.slice();
}

/**
 * A local fork gets longer or shorter at its end; what is new is zero (kernel:
 * `xfs_idata_realloc`).
 *
 * @param delta Bytes.
 * @returns Its contents.
 */
export function xfsIdataRealloc(
  ip: XfsInode,
  delta: number,
  whichfork: number,
): Uint8Array {
  const fork = xfsIforkPtr(ip, whichfork)!;
  const old = fork.local ?? new Uint8Array(0);
  if (delta === 0) return fork.local = old;
  const data = new Uint8Array(old.length + delta);
  data.set(old.subarray(0, data.length));
  return fork.local = data;
}

/** Forgets what a fork holds in memory (kernel: `xfs_idestroy_fork`). */
export function xfsIdestroyFork(fork: Ifork): void {
  fork.local = null;
  fork.broot = null;
  fork.nextents = 0;
  fork.loaded = true;
  fork.clear();
}

// ---- from disk ----

/** A fork cannot be like this: the file system is shut down (kernel:
 * `xfs_bmap_mark_sick`, `xfs_inode_verifier_error`).
 * @param why The check that failed.
 * @returns -EFSCORRUPTED. */
export function xfsForkCorrupt(
  ip: XfsInode,
  whichfork: number,
  why: string,
): number {
  const names = ["data", "attribute", "copy-on-write"];
  return ip.mount.corrupt(`${names[whichfork]!} fork of inode ${ip.ino}`, why);
}

/**
 * Reads the data fork (kernel: `xfs_iformat_data_fork`). What a local one holds is
 * checked by whoever knows what it is.
 *
 * @param data Block that the inode is in.
 * @param at Byte of the inode.
 * @returns 0 or -EFSCORRUPTED.
 */
export function xfsIformatDataFork(
  ip: XfsInode,
  data: Uint8Array,
  at: number,
): number {
  const view = new DataView(data.buffer, data.byteOffset + at);
  const from = at + F.DI_SIZE_V3;
  ip.df.format = view.getUint8(F.DI_FORMAT);
  ip.df.nextents = xfsDforkDataExtents(view);
  switch (ip.mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
      return iformat(ip, F.XFS_DATA_FORK, data, from, ip.diskSize);
  }
  ip.diskSize = 0;
  ip.rdev = view.getUint32(F.DI_SIZE_V3);
  return 0;
}

/**
 * Reads the attribute fork (kernel: `xfs_iformat_attr_fork`).
 *
 * @returns 0 or -EFSCORRUPTED.
 */
export function xfsIformatAttrFork(
  ip: XfsInode,
  data: Uint8Array,
  at: number,
): number {
  const view = new DataView(data.buffer, data.byteOffset + at);
  const from = at + F.DI_SIZE_V3 + ip.forkoff * 8;
  const format = view.getUint8(F.DI_AFORMAT);
  xfsIforkInitAttr(ip, format, xfsDforkAttrExtents(view));
  // A short form begins with its length.
  const room = xfsInodeForkSize(ip, F.XFS_ATTR_FORK);
  const size = room < 4 ? 0 : data[from]! * 256 + data[from + 1]!;
  const error = iformat(ip, F.XFS_ATTR_FORK, data, from, size);
  if (error < 0) xfsIforkZapAttr(ip);
  return error;
}

/** Data extents of an inode on disk (kernel: `xfs_dfork_data_extents`). */
export function xfsDforkDataExtents(view: DataView): number {
  return hasLargeCounts(view)
    ? getU64(view, F.DI_BIG_NEXTENTS)
    : view.getUint32(F.DI_NEXTENTS);
}

/** Attribute extents of an inode on disk (kernel: `xfs_dfork_attr_extents`). */
export function xfsDforkAttrExtents(view: DataView): number {
  return hasLargeCounts(view)
    ? view.getUint32(F.DI_NEXTENTS)
    : view.getUint16(F.DI_ANEXTENTS);
}

function hasLargeCounts(view: DataView): boolean {
  return (view.getUint32(F.DI_FLAGS2 + 4) & F.XFS_DIFLAG2_NREXT64) !== 0;
}

/** @param from Byte of the fork.
 * @param size Bytes that a local fork says it has. */
function iformat(
  ip: XfsInode,
  whichfork: number,
  data: Uint8Array,
  from: number,
  size: number,
): number {
  const fork = xfsIforkPtr(ip, whichfork)!;
  switch (fork.format) {
    case F.XFS_DINODE_FMT_LOCAL: {
      const room = xfsInodeForkSize(ip, whichfork);
      if (size > room) {
        return xfsForkCorrupt(ip, whichfork, `local size ${size}`);
      }
      fork.local = data.slice(from, from + size);
      return 0;
    }
    case F.XFS_DINODE_FMT_EXTENTS:
      return iformatExtents(ip, whichfork, fork, data, from);
    case F.XFS_DINODE_FMT_BTREE:
      return iformatBtree(ip, whichfork, fork, data, from);
  }
  return xfsForkCorrupt(ip, whichfork, `format ${fork.format}`);
}

/** Kernel: `xfs_iformat_extents`. */
function iformatExtents(
  ip: XfsInode,
  whichfork: number,
  fork: Ifork,
  data: Uint8Array,
  from: number,
): number {
  const { nextents } = fork;
  if (nextents > xfsIforkMaxext(ip, whichfork)) {
    return xfsForkCorrupt(ip, whichfork, `nextents ${nextents}`);
  }
  const view = new DataView(data.buffer, data.byteOffset + from);
  let end = 0;
  fork.clear(cur);
  for (let i = 0; i < nextents; i++) {
    xfsBmbtDiskGetAll(view, i * BMBT_REC_LEN, rec);
    const why = rec.startoff < end
      ? `extent at file block ${rec.startoff}, not from ${end} on`
      : xfsBmapValidateExtent(ip.mount, whichfork, rec);
    if (why !== null) {
      fork.clear();
      return xfsForkCorrupt(ip, whichfork, why);
    }
    end = rec.endoff;
    fork.insert(cur, rec);
    cur.at++;
  }
  return 0;
}

/** Kernel: `xfs_iformat_btree`. */
function iformatBtree(
  ip: XfsInode,
  whichfork: number,
  fork: Ifork,
  data: Uint8Array,
  from: number,
): number {
  const size = xfsInodeForkSize(ip, whichfork);
  const { nextents } = fork;
  if (nextents <= xfsIforkMaxext(ip, whichfork) || nextents > ip.nblocks) {
    return xfsForkCorrupt(ip, whichfork, `nextents ${nextents} in a tree`);
  }
  if (size < xfsBmdrSpaceCalc(1)) {
    return xfsForkCorrupt(ip, whichfork, `size ${size}`);
  }
  const view = new DataView(data.buffer, data.byteOffset + from);
  const level = view.getUint16(0);
  const nrecs = view.getUint16(2);
  if (nrecs === 0 || xfsBmdrSpaceCalc(nrecs) > size) {
    return xfsForkCorrupt(ip, whichfork, `root of ${nrecs} blocks`);
  }
  const { bmapAttr, bmapData } = ip.mount.maxlevels;
  const most = whichfork === F.XFS_ATTR_FORK ? bmapAttr : bmapData;
  if (level === 0 || level > most) {
    return xfsForkCorrupt(ip, whichfork, `root of level ${level}`);
  }
  fork.broot = xfsBmdrToBmbt(data, from, size);
  fork.loaded = false;
  return 0;
}

// ---- to disk ----

/**
 * Writes a fork into its inode on disk (kernel: `xfs_iflush_fork`). What the fork does
 * not need is zero.
 *
 * @param data Block that the inode is in.
 * @param at Byte of the inode.
 */
export function xfsIflushFork(
  ip: XfsInode,
  data: Uint8Array,
  at: number,
  whichfork: number,
): void {
  const fork = xfsIforkPtr(ip, whichfork);
  if (fork === null) return;
  const size = xfsInodeForkSize(ip, whichfork);
  const start = whichfork === F.XFS_ATTR_FORK ? ip.forkoff * 8 : 0;
  const from = at + F.DI_SIZE_V3 + start;
  data.fill(0, from, from + size);
  switch (fork.format) {
    case F.XFS_DINODE_FMT_DEV:
      new DataView(data.buffer, data.byteOffset + from).setUint32(0, ip.rdev);
      break;
    case F.XFS_DINODE_FMT_LOCAL:
      if (fork.local !== null) data.set(fork.local, from);
      break;
    case F.XFS_DINODE_FMT_EXTENTS:
      xfsIextentsCopy(fork, data, from);
      break;
    case F.XFS_DINODE_FMT_BTREE:
      xfsBmbtToBmdr(xfsIforkBroot(ip, whichfork), data, from, size);
  }
}

/** Writes the extents that have blocks as records (kernel: `xfs_iextents_copy`). */
function xfsIextentsCopy(fork: Ifork, data: Uint8Array, from: number): void {
  const view = new DataView(data.buffer, data.byteOffset);
  let at = from;
  for (let more = fork.first(cur, rec); more; more = fork.next(cur, rec)) {
    if (isnullstartblock(rec.startblock)) continue;
    xfsBmbtDiskSetAll(view, at, rec);
    at += BMBT_REC_LEN;
  }
}
