/**
 * Inodes on disk: checking, reading and writing them, and the blocks that they are in.
 *
 * A block of inodes has no checksum; each inode has its own, which is set when the
 * inode is written into the block.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_inode_buf.c, xfs_ialloc.c (`xfs_imap`),
 * fs/xfs/xfs_inode.c (`xfs_iflush`).
 *
 * @module
 */

import { EFBIG, EFSCORRUPTED, EINVAL } from "../../../lib/errno.ts";
import {
  MAX_LFS_FILESIZE,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
} from "../../fs.ts";
import type { XfsInode } from "../inode.ts";
import type { XfsMount } from "../mount.ts";
import { xfsAttrShortformVerify } from "./attr-sf.ts";
import { BMBT_REC_LEN } from "./bmap-btree.ts";
import {
  bufCrcOk,
  bufSeal,
  type BufTarg,
  type XfsBuf,
  type XfsBufOps,
} from "./buf.ts";
import { bytesEqual, getU64, putU64 } from "./bytes.ts";
import { xfsDir2SfVerify } from "./dir2-sf.ts";
import * as F from "./format.ts";
import {
  xfsDforkAttrExtents,
  xfsDforkDataExtents,
  xfsForkCorrupt,
  xfsIextMaxNextents,
  xfsIflushFork,
  xfsIforkInitCow,
  xfsIformatAttrFork,
  xfsIformatDataFork,
  xfsInodeHasLargeExtentCounts,
} from "./inode-fork.ts";

/** Seconds of a time in 32 bits. */
const MAX_LEGACY_TIME = 2 ** 31 - 1;
const MIN_LEGACY_TIME = -(2 ** 31);
/** Last second that a BIGTIME count can tell (kernel: `XFS_BIGTIME_TIME_MAX`). */
const MAX_BIGTIME = 16_299_260_424;
const NSEC_PER_SEC = 1_000_000_000;
/** Bytes of a directory's address space (kernel: `XFS_DIR2_MAX_SPACES` of
 * `XFS_DIR2_SPACE_SIZE`). */
const DIR_SPACE: number = 3 * 2 ** 35;

// ---- where inodes are ----

/** Where an inode is on the device (kernel: `struct xfs_imap`). */
export class XfsImap {
  /** First basic block of the inode's cluster. */
  blkno = 0;
  /** Basic blocks of the cluster. */
  len = 0;
  /** Byte of the inode in it. */
  boffset = 0;
}

/**
 * Works out where an inode is (kernel: `xfs_imap`, for a number that has been checked).
 * Clusters are aligned: a mount sees to that.
 *
 * @param out Filled in.
 * @returns 0, or -EINVAL if there can be no such inode.
 */
export function xfsImap(mp: XfsMount, ino: number, out: XfsImap): number {
  const { sb } = mp;
  if (!sb.verifyIno(ino)) return -EINVAL;
  const agino = sb.inoToAgino(ino);
  const agbno = sb.aginoToAgbno(agino);
  const cluster = agbno - agbno % sb.blocksPerCluster;
  out.blkno = sb.agbToDaddr(sb.inoToAgno(ino), cluster);
  out.len = sb.blocksPerCluster * sb.bbPerBlock;
  out.boffset = (agino - cluster * sb.inopblock) * sb.inodesize;
  return 0;
}

const imap = new XfsImap();

/**
 * Reads the block that an inode is in (kernel: `xfs_imap_to_bp`).
 *
 * @param out Filled in: where.
 * @returns The buffer; -EINVAL if there can be no such inode; -EFSCORRUPTED, or an
 *   errno of the device.
 */
export function xfsInodeReadBuf(
  mp: XfsMount,
  ino: number,
  out: XfsImap,
): XfsBuf | number {
  const error = xfsImap(mp, ino, out);
  if (error < 0) return error;
  return mp.targ.read(out.blkno, out.len, xfsInodeBufOps);
}

/** Blocks of inodes (kernel: `xfs_inode_buf_ops`): each is an inode, in use or not, and
 * its pointer to the next unlinked one stays within the group. */
export const xfsInodeBufOps: XfsBufOps = {
  name: "xfs_inode",
  crcOffset: -1,
  verify(bp: XfsBuf, targ: BufTarg): string | null {
    const { sb } = targ.mount as XfsMount;
    const agno = sb.daddrToAgno(bp.daddr);
    for (let at = 0; at < bp.data.length; at += sb.inodesize) {
      const magic = bp.view.getUint16(at + F.DI_MAGIC);
      const version = bp.view.getUint8(at + F.DI_VERSION);
      const next = bp.view.getUint32(at + F.DI_NEXT_UNLINKED);
      if (magic !== F.XFS_DINODE_MAGIC) return `magic ${magic} at byte ${at}`;
      if (version !== 3) return `version ${version} at byte ${at}`;
      if (next === F.NULLAGINO) continue;
      if (!sb.verifyAgbno(agno, sb.aginoToAgbno(next))) {
        return `next unlinked ${next} at byte ${at}`;
      }
    }
    return null;
  },
};

// ---- checking ----

/**
 * Whether an inode on disk can be (kernel: `xfs_dinode_verify`).
 *
 * @param data Block that it is in.
 * @param at Byte of it.
 * @returns null, or the check that failed with the value.
 */
export function xfsDinodeVerify(
  mp: XfsMount,
  ino: number,
  data: Uint8Array,
  at: number,
): string | null {
  const { sb } = mp;
  const view = new DataView(data.buffer, data.byteOffset + at, sb.inodesize);
  if (view.getUint16(F.DI_MAGIC) !== F.XFS_DINODE_MAGIC) {
    return `magic ${view.getUint16(F.DI_MAGIC)}`;
  }
  if (view.getUint8(F.DI_VERSION) !== 3) {
    return `version ${view.getUint8(F.DI_VERSION)}`;
  }
  if (!bufCrcOk(data.subarray(at, at + sb.inodesize), F.DI_CRC)) {
    return "checksum";
  }
  if (getU64(view, F.DI_INO) !== ino) return `ino ${getU64(view, F.DI_INO)}`;
  if (!bytesEqual(data, at + F.DI_UUID, mp.targ.uuid, 0, 16)) return "uuid";
  return verifyCore(view) ?? verifyCounts(mp, view) ??
    verifyForks(mp, view) ?? verifyHints(mp, view) ?? verifyFlags2(mp, view);
}

function isFileType(mode: number): boolean {
  switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
      return true;
  }
  return false;
}

function verifyCore(view: DataView): string | null {
  const mode = view.getUint16(F.DI_MODE);
  if (view.getUint16(F.DI_METATYPE) !== 0) {
    return `metatype ${view.getUint16(F.DI_METATYPE)}`;
  }
  if (view.getUint32(F.DI_SIZE) >= 0x8000_0000) return "size above 2^63";
  if (mode !== 0 && !isFileType(mode)) return `mode ${mode.toString(8)}`;
  const type = mode & S_IFMT;
  const linked = view.getUint32(F.DI_NLINK) !== 0;
  if ((type === S_IFLNK || type === S_IFDIR) && linked) {
    if (getU64(view, F.DI_SIZE) === 0) return "size 0";
  }
  return null;
}

/** Kernel: `xfs_dinode_verify_nrext64`, and what the counts must be to each other. */
function verifyCounts(mp: XfsMount, view: DataView): string | null {
  const flags2 = view.getUint32(F.DI_FLAGS2 + 4);
  if ((flags2 & F.XFS_DIFLAG2_NREXT64) !== 0) {
    if (!mp.sb.hasNrext64) return "NREXT64 without the feature";
    if (view.getUint16(F.DI_ANEXTENTS) !== 0) return "padding of the counters";
  } else if (getU64(view, F.DI_BIG_NEXTENTS) !== 0) {
    return "padding of the counters";
  }
  const mode = view.getUint16(F.DI_MODE);
  const nextents = xfsDforkDataExtents(view);
  const all = nextents + xfsDforkAttrExtents(view);
  const nblocks = getU64(view, F.DI_NBLOCKS);
  if (!Number.isSafeInteger(nblocks) || nblocks < 0) {
    return `nblocks ${nblocks}`;
  }
  if (nextents < 0 || (mode !== 0 && all > nblocks)) {
    return `${all} extents of ${nblocks} blocks`;
  }
  if (all === 0 && nblocks !== 0) return `nblocks ${nblocks} without extents`;
  if ((mode & S_IFMT) === S_IFDIR && nextents > DIR_SPACE / mp.sb.blocksize) {
    return `nextents ${nextents} of a directory`;
  }
  return null;
}

function verifyForks(mp: XfsMount, view: DataView): string | null {
  const mode = view.getUint16(F.DI_MODE);
  const flags = view.getUint16(F.DI_FLAGS);
  const forkoff = view.getUint8(F.DI_FORKOFF);
  if (mode !== 0 && (flags & F.XFS_DIFLAG_REALTIME) !== 0) {
    return "realtime without a realtime device";
  }
  const wrong = verifyForkoff(mp, view);
  if (wrong !== null) return wrong;
  switch (mode & S_IFMT) {
    case 0:
      break;
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK: {
      const why = verifyFork(mp, view, F.XFS_DATA_FORK);
      if (why !== null) return why;
      break;
    }
    default:
      if (view.getUint8(F.DI_FORMAT) !== F.XFS_DINODE_FMT_DEV) {
        return `format ${view.getUint8(F.DI_FORMAT)} of a special file`;
      }
  }
  if (forkoff !== 0) return verifyFork(mp, view, F.XFS_ATTR_FORK);
  const aformat = view.getUint8(F.DI_AFORMAT);
  // In a new cluster it is 0.
  if (aformat !== 0 && aformat !== F.XFS_DINODE_FMT_EXTENTS) {
    return `aformat ${aformat} without a fork`;
  }
  const anextents = xfsDforkAttrExtents(view);
  return anextents === 0 ? null : `anextents ${anextents} without a fork`;
}

/** Kernel: `xfs_dinode_verify_forkoff`. */
function verifyForkoff(mp: XfsMount, view: DataView): string | null {
  const forkoff = view.getUint8(F.DI_FORKOFF);
  const format = view.getUint8(F.DI_FORMAT);
  if (forkoff === 0) return null;
  const most = Math.floor((mp.sb.inodesize - F.DI_SIZE_V3) / 8) - 1;
  switch (format) {
    case F.XFS_DINODE_FMT_DEV:
      return forkoff === 1 ? null : `forkoff ${forkoff} of a special file`;
    case F.XFS_DINODE_FMT_LOCAL:
    case F.XFS_DINODE_FMT_EXTENTS:
    case F.XFS_DINODE_FMT_BTREE:
      return forkoff <= most ? null : `forkoff ${forkoff}`;
  }
  return `forkoff ${forkoff} with format ${format}`;
}

/** Kernel: `xfs_dinode_verify_fork`. */
function verifyFork(
  mp: XfsMount,
  view: DataView,
  whichfork: number,
): string | null {
  const isData = whichfork === F.XFS_DATA_FORK;
  const format = view.getUint8(isData ? F.DI_FORMAT : F.DI_AFORMAT);
  const all = mp.sb.inodesize - F.DI_SIZE_V3;
  const forkoff = view.getUint8(F.DI_FORKOFF) * 8;
  const dataSize = forkoff === 0 ? all : forkoff;
  const size = isData ? dataSize : all - dataSize;
  if (isData) {
    const why = verifyDataFormat(view, format, size);
    if (why !== null) return why;
  }
  const nextents = isData
    ? xfsDforkDataExtents(view)
    : xfsDforkAttrExtents(view);
  const what = isData ? "data" : "attribute";
  switch (format) {
    case F.XFS_DINODE_FMT_LOCAL:
      return nextents === 0 ? null : `${nextents} extents in a local fork`;
    case F.XFS_DINODE_FMT_EXTENTS:
      return nextents <= Math.floor(size / BMBT_REC_LEN)
        ? null
        : `${nextents} ${what} extents in ${size} bytes`;
    case F.XFS_DINODE_FMT_BTREE: {
      const flags2 = view.getUint32(F.DI_FLAGS2 + 4);
      const large = (flags2 & F.XFS_DIFLAG2_NREXT64) !== 0;
      return nextents <= xfsIextMaxNextents(large, whichfork)
        ? null
        : `${nextents} ${what} extents`;
    }
  }
  return `format ${format} of the ${what} fork`;
}

/** What fits into the inode is there; what does not is not. */
function verifyDataFormat(
  view: DataView,
  format: number,
  forkSize: number,
): string | null {
  const size = getU64(view, F.DI_SIZE);
  const local = format === F.XFS_DINODE_FMT_LOCAL;
  const why = `format ${format} of ${size} bytes`;
  switch (view.getUint16(F.DI_MODE) & S_IFMT) {
    case S_IFDIR:
      if (size !== 0 && size <= forkSize && !local) return why;
      break;
    case S_IFLNK:
      if (size > forkSize || local) break;
      if (format !== F.XFS_DINODE_FMT_EXTENTS) return why;
      break;
    case S_IFREG:
      if (local) return why;
  }
  return local && size > forkSize ? why : null;
}

/** Kernel: `xfs_inode_validate_extsize`, `xfs_inode_validate_cowextsize`. */
function verifyHints(mp: XfsMount, view: DataView): string | null {
  const mode = view.getUint16(F.DI_MODE);
  const type = mode & S_IFMT;
  const flags = view.getUint16(F.DI_FLAGS);
  const extsize = view.getUint32(F.DI_EXTSIZE);
  const hint = (flags & F.XFS_DIFLAG_EXTSIZE) !== 0;
  const inherit = (flags & F.XFS_DIFLAG_EXTSZINHERIT) !== 0;
  if (
    (hint && type !== S_IFREG) || (inherit && type !== S_IFDIR) ||
    !hintOk(mp, mode, hint || inherit, extsize)
  ) return `extsize ${extsize}`;
  const flags2 = view.getUint32(F.DI_FLAGS2 + 4);
  const cowextsize = view.getUint32(F.DI_COWEXTSIZE);
  const cowhint = (flags2 & F.XFS_DIFLAG2_COWEXTSIZE) !== 0;
  if (
    (cowhint && !mp.sb.hasReflink) ||
    (cowhint && type !== S_IFREG && type !== S_IFDIR) ||
    !hintOk(mp, mode, cowhint, cowextsize)
  ) return `cowextsize ${cowextsize}`;
  return null;
}

/** A hint has a size, and a size has a hint; a free inode keeps the size. */
function hintOk(
  mp: XfsMount,
  mode: number,
  hint: boolean,
  size: number,
): boolean {
  if (hint && size === 0) return false;
  if (mode !== 0 && !hint && size !== 0) return false;
  return size <= F.XFS_MAX_BMBT_EXTLEN && size <= mp.sb.agblocks / 2;
}

function verifyFlags2(mp: XfsMount, view: DataView): string | null {
  const flags2 = view.getUint32(F.DI_FLAGS2 + 4);
  const type = view.getUint16(F.DI_MODE) & S_IFMT;
  if ((flags2 & F.XFS_DIFLAG2_REFLINK) !== 0) {
    if (!mp.sb.hasReflink) return "REFLINK without the feature";
    if (type !== S_IFREG) return "REFLINK of no regular file";
  }
  if ((flags2 & F.XFS_DIFLAG2_BIGTIME) !== 0 && !mp.sb.hasBigtime) {
    return "BIGTIME without the feature";
  }
  return null;
}

// ---- timestamps ----

/** Reads a time (kernel: `xfs_inode_from_disk_ts`): nanoseconds since 1970, as exact as
 * a number is. */
function getTime(view: DataView, at: number, bigtime: boolean): number {
  if (!bigtime) {
    return view.getInt32(at) * NSEC_PER_SEC + view.getUint32(at + 4);
  }
  // Divided by hand, 16 bits at a time: the count takes more than 53.
  let seconds = 0;
  let nsec = 0;
  for (let i = 0; i < 8; i += 2) {
    const rest = nsec * 65536 + view.getUint16(at + i);
    const digit = Math.floor(rest / NSEC_PER_SEC);
    seconds = seconds * 65536 + digit;
    nsec = rest - digit * NSEC_PER_SEC;
  }
  return (seconds - F.XFS_BIGTIME_EPOCH_OFFSET) * NSEC_PER_SEC + nsec;
}

/** Writes a time (kernel: `xfs_inode_to_disk_ts`). One that has not changed keeps the
 * nanoseconds that a number cannot hold. */
function putTime(
  view: DataView,
  at: number,
  time: number,
  bigtime: boolean,
  wasBigtime: boolean,
): void {
  if (bigtime === wasBigtime && getTime(view, at, bigtime) === time) return;
  const rest = time % NSEC_PER_SEC;
  const nsec = rest < 0 ? rest + NSEC_PER_SEC : rest;
  const seconds = (time - nsec) / NSEC_PER_SEC;
  if (!bigtime) {
    const s = Math.min(Math.max(seconds, MIN_LEGACY_TIME), MAX_LEGACY_TIME);
    view.setInt32(at, s);
    view.setUint32(at + 4, nsec);
    return;
  }
  const s = Math.min(Math.max(seconds, MIN_LEGACY_TIME), MAX_BIGTIME) +
    F.XFS_BIGTIME_EPOCH_OFFSET;
  // (high * 2^16 + low) * 10^9 + nsec
  const high = Math.floor(s / 65536);
  const low = (s - high * 65536) * NSEC_PER_SEC + nsec;
  const carry = Math.floor(low / 65536);
  const top = high * NSEC_PER_SEC + carry;
  view.setUint32(at, Math.floor(top / 65536));
  view.setUint32(at + 4, (top % 65536) * 65536 + (low - carry * 65536));
}

// ---- from disk and to disk ----

/**
 * Fills in an inode from what is on disk (kernel: `xfs_inode_from_disk`). It has passed
 * {@linkcode xfsDinodeVerify}. Of a free inode only the generation counts.
 *
 * @param data Block that it is in.
 * @param at Byte of it.
 * @returns 0; -EFSCORRUPTED if a fork cannot be; -EFBIG if it is longer than a number
 *   can tell.
 */
export function xfsInodeFromDisk(
  ip: XfsInode,
  data: Uint8Array,
  at: number,
): number {
  const view = new DataView(data.buffer, data.byteOffset + at);
  ip.gen = view.getUint32(F.DI_GEN);
  ip.mode = view.getUint16(F.DI_MODE);
  if (ip.mode === 0) return 0;
  const size = getU64(view, F.DI_SIZE);
  if (size > MAX_LFS_FILESIZE) return -EFBIG;
  getCore(ip, view);
  ip.size = ip.diskSize = size;
  let error = xfsIformatDataFork(ip, data, at);
  if (error === 0) error = verifyLocalData(ip);
  if (error === 0 && ip.forkoff !== 0) {
    error = xfsIformatAttrFork(ip, data, at);
    if (error === 0) error = verifyLocalAttr(ip);
  }
  if (error === 0 && ip.isReflink) xfsIforkInitCow(ip);
  return error;
}

/** Checks what a local data fork holds (kernel: `xfs_ifork_verify_local_data`). */
function verifyLocalData(ip: XfsInode): number {
  const { local } = ip.df;
  if (local === null) return 0;
  let why: string | null = null;
  switch (ip.mode & S_IFMT) {
    case S_IFDIR:
      why = xfsDir2SfVerify(ip.mount, local);
      break;
    case S_IFLNK:
      if (local.includes(0)) why = "zero byte in a target";
  }
  return why === null ? 0 : xfsForkCorrupt(ip, F.XFS_DATA_FORK, why);
}

/** The same of the attribute fork (kernel: `xfs_ifork_verify_local_attr`). */
function verifyLocalAttr(ip: XfsInode): number {
  const local = ip.af?.local ?? null;
  const why = local === null ? null : xfsAttrShortformVerify(local);
  return why === null ? 0 : xfsForkCorrupt(ip, F.XFS_ATTR_FORK, why);
}

function getCore(ip: XfsInode, view: DataView): void {
  ip.uid = view.getUint32(F.DI_UID);
  ip.gid = view.getUint32(F.DI_GID);
  ip.nlink = view.getUint32(F.DI_NLINK);
  ip.projid = view.getUint16(F.DI_PROJID_HI) * 65536 +
    view.getUint16(F.DI_PROJID_LO);
  ip.diflags2 = view.getUint32(F.DI_FLAGS2 + 4);
  const bigtime = (ip.diflags2 & F.XFS_DIFLAG2_BIGTIME) !== 0;
  ip.atime = getTime(view, F.DI_ATIME, bigtime);
  ip.mtime = getTime(view, F.DI_MTIME, bigtime);
  ip.ctime = getTime(view, F.DI_CTIME, bigtime);
  ip.crtime = getTime(view, F.DI_CRTIME, bigtime);
  ip.nblocks = getU64(view, F.DI_NBLOCKS);
  ip.extsize = view.getUint32(F.DI_EXTSIZE);
  ip.cowextsize = view.getUint32(F.DI_COWEXTSIZE);
  ip.forkoff = view.getUint8(F.DI_FORKOFF);
  ip.diflags = view.getUint16(F.DI_FLAGS);
  ip.changecount = getU64(view, F.DI_CHANGECOUNT);
}

/**
 * Writes an inode over what is on disk (kernel: `xfs_inode_to_disk`). The pointer to
 * the next unlinked one stays: it is changed in the block itself.
 *
 * @param data Block that it is in.
 * @param at Byte of it.
 */
export function xfsInodeToDisk(
  ip: XfsInode,
  data: Uint8Array,
  at: number,
): void {
  const view = new DataView(data.buffer, data.byteOffset + at);
  const oldFlags2 = view.getUint32(F.DI_FLAGS2 + 4);
  const wasBigtime = (oldFlags2 & F.XFS_DIFLAG2_BIGTIME) !== 0;
  if (ip.mount.sb.hasBigtime) ip.diflags2 |= F.XFS_DIFLAG2_BIGTIME;
  const bigtime = (ip.diflags2 & F.XFS_DIFLAG2_BIGTIME) !== 0;
  view.setUint16(F.DI_MAGIC, F.XFS_DINODE_MAGIC);
  view.setUint16(F.DI_MODE, ip.mode);
  view.setUint8(F.DI_VERSION, 3);
  view.setUint8(F.DI_FORMAT, ip.df.format);
  view.setUint16(F.DI_METATYPE, 0);
  view.setUint32(F.DI_UID, ip.uid);
  view.setUint32(F.DI_GID, ip.gid);
  view.setUint32(F.DI_NLINK, ip.nlink);
  view.setUint16(F.DI_PROJID_LO, ip.projid % 65536);
  view.setUint16(F.DI_PROJID_HI, Math.floor(ip.projid / 65536));
  putTime(view, F.DI_ATIME, ip.atime, bigtime, wasBigtime);
  putTime(view, F.DI_MTIME, ip.mtime, bigtime, wasBigtime);
  putTime(view, F.DI_CTIME, ip.ctime, bigtime, wasBigtime);
  putTime(view, F.DI_CRTIME, ip.crtime, bigtime, wasBigtime);
  putU64(view, F.DI_SIZE, ip.diskSize);
  putU64(view, F.DI_NBLOCKS, ip.nblocks);
  view.setUint32(F.DI_EXTSIZE, ip.extsize);
  view.setUint8(F.DI_FORKOFF, ip.forkoff);
  view.setUint8(F.DI_AFORMAT, ip.af?.format ?? F.XFS_DINODE_FMT_EXTENTS);
  view.setUint16(F.DI_FLAGS, ip.diflags);
  view.setUint32(F.DI_GEN, ip.gen);
  putU64(view, F.DI_CHANGECOUNT, ip.changecount);
  view.setUint32(F.DI_FLAGS2 + 4, ip.diflags2);
  view.setUint32(F.DI_COWEXTSIZE, ip.cowextsize);
  putU64(view, F.DI_INO, ip.ino);
  data.set(ip.mount.targ.uuid, at + F.DI_UUID);
  putCounters(ip, view);
}

/** Kernel: `xfs_inode_to_disk_iext_counters`. */
function putCounters(ip: XfsInode, view: DataView): void {
  const anextents = ip.af?.nextents ?? 0;
  if (xfsInodeHasLargeExtentCounts(ip)) {
    putU64(view, F.DI_BIG_NEXTENTS, ip.df.nextents);
    view.setUint32(F.DI_NEXTENTS, anextents);
    view.setUint16(F.DI_ANEXTENTS, 0);
  } else {
    putU64(view, F.DI_BIG_NEXTENTS, 0);
    view.setUint32(F.DI_NEXTENTS, ip.df.nextents);
    view.setUint16(F.DI_ANEXTENTS, anextents);
  }
}

/**
 * Writes an inode into its block, with its checksum, and the block has to be written
 * (kernel: `xfs_iflush`).
 *
 * @returns 0; -EFSCORRUPTED if what is in memory cannot be; an errno of the device.
 */
export function xfsIflush(ip: XfsInode): number {
  const { mount } = ip;
  const bp = xfsInodeReadBuf(mount, ip.ino, imap);
  if (typeof bp === "number") return bp;
  const extents = ip.df.nextents + (ip.af?.nextents ?? 0);
  if (ip.mode !== 0 && extents > ip.nblocks) {
    mount.corrupt(
      `inode ${ip.ino}`,
      `${extents} extents of ${ip.nblocks} blocks`,
    );
    return -EFSCORRUPTED;
  }
  const at = imap.boffset;
  xfsInodeToDisk(ip, bp.data, at);
  xfsIflushFork(ip, bp.data, at, F.XFS_DATA_FORK);
  if (ip.forkoff !== 0) xfsIflushFork(ip, bp.data, at, F.XFS_ATTR_FORK);
  bufSeal(bp.data.subarray(at, at + mount.sb.inodesize), F.DI_CRC);
  mount.targ.markDirty(bp);
  return 0;
}
