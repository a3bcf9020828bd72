/**
 * Directories that fit into the inode itself: a count, the parent, and the names one
 * after the other.
 *
 * Each name has the offset that it would have as an entry of a directory block, so that
 * a position of readdir stays good when the directory grows into one. Removed names
 * leave gaps in these offsets, which new ones fill only when there is no room behind.
 * Inode numbers take 4 bytes, or all 8 as soon as one of them needs it.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_dir2_sf.c.
 *
 * @module
 */

import { EEXIST, ENOENT, ENOSPC } from "../../../lib/errno.ts";
import type { XfsInode } from "../inode.ts";
import type { XfsMount } from "../mount.ts";
import type { XfsBuf } from "./buf.ts";
import { getU64, putU64 } from "./bytes.ts";
import { XFS_DA_OP_JUSTCHECK, xfsDaCompname } from "./da-btree.ts";
import {
  xfsDir2BlockAddname,
  xfsDir2BlockReplace,
  xfsDir2SfToBlock,
} from "./dir2-block.ts";
import {
  BLOCK_TAIL_SIZE,
  DATA_ENTRY_OFFSET,
  entryFtype,
  entryIno,
  entryNameAt,
  entryNamelen,
  isUnused,
  pieceLength,
  xfsDir2DataEntsize,
} from "./dir2-data.ts";
import {
  LEAF_ENTRY_SIZE,
  setDirSize,
  XFS_DIR2_MAX_SHORT_INUM,
  xfsDir2ShrinkInode,
  type XfsDirArgs,
} from "./dir2-priv.ts";
import * as F from "./format.ts";
import { xfsInodeForkSize } from "./inode-fork.ts";
import { XFS_ILOG_CORE, XFS_ILOG_DDATA } from "./trans.ts";

/** Offset of the first name: after "." and "..". */
const DATA_FIRST_OFFSET = DATA_ENTRY_OFFSET + 32;

// Fields of the header.
const SF_COUNT = 0;
const SF_I8COUNT = 1;
const SF_PARENT = 2;
// Fields of an entry; then come name, type and inode number.
const SFE_NAMELEN = 0;
const SFE_OFFSET = 1;
const SFE_NAME = 3;

/** Bytes of an inode number. */
function inoSize(i8count: number): number {
  return i8count === 0 ? 4 : 8;
}

/** Kernel: `xfs_dir2_sf_hdr_size`. */
function hdrSize(i8count: number): number {
  return SF_PARENT + inoSize(i8count);
}

/** Kernel: `xfs_dir2_sf_entsize`. */
function entSize(i8count: number, namelen: number): number {
  return SFE_NAME + namelen + 1 + inoSize(i8count);
}

function getIno(view: DataView, at: number, i8count: number): number {
  return i8count === 0 ? view.getUint32(at) : getU64(view, at);
}

function putIno(
  view: DataView,
  at: number,
  i8count: number,
  ino: number,
): void {
  if (i8count === 0) view.setUint32(at, ino);
  else putU64(view, at, ino);
}

function isBig(ino: number): boolean {
  return ino > XFS_DIR2_MAX_SHORT_INUM;
}

/** Goes through the names of a short form, which has been checked. */
export class SfReader {
  /** Contents of the fork. */
  readonly data: Uint8Array;
  readonly #view: DataView;
  /** Names. */
  readonly count: number;
  /** Inode numbers, the parent's too, that need 8 bytes. */
  readonly i8count: number;
  /** Byte of the present entry. */
  at = 0;
  #left: number;
  #next: number;

  constructor(data: Uint8Array) {
    this.data = data;
    this.#view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    this.count = this.#left = data[SF_COUNT]!;
    this.i8count = data[SF_I8COUNT]!;
    this.#next = hdrSize(this.i8count);
  }

  /** Inode number of the parent. */
  get parent(): number {
    return getIno(this.#view, SF_PARENT, this.i8count);
  }

  /** Moves to the next name; false at the end, with `at` after the last. */
  next(): boolean {
    this.at = this.#next;
    if (this.#left === 0) return false;
    this.#left--;
    this.#next = this.at + entSize(this.i8count, this.namelen);
    return true;
  }

  /** Bytes of the name. */
  get namelen(): number {
    return this.data[this.at + SFE_NAMELEN]!;
  }

  /** Offset that it has as an entry of a block. */
  get offset(): number {
    return this.#view.getUint16(this.at + SFE_OFFSET);
  }

  /** First byte of the name. */
  get nameAt(): number {
    return this.at + SFE_NAME;
  }

  /** The name itself; it is not copied. */
  name(): Uint8Array {
    return this.data.subarray(this.nameAt, this.nameAt + this.namelen);
  }

  /** Its `XFS_DIR3_FT_*`. */
  get ftype(): number {
    return this.data[this.nameAt + this.namelen]!;
  }

  /** Its inode number. */
  get ino(): number {
    return getIno(this.#view, this.inoAt, this.i8count);
  }

  /** Byte of its inode number. */
  get inoAt(): number {
    return this.nameAt + this.namelen + 1;
  }
}

function readerOf(args: XfsDirArgs): SfReader {
  return new SfReader(args.dp.df.local!);
}

/** The fork has other contents from now on. */
function setFork(args: XfsDirArgs, data: Uint8Array): void {
  args.dp.df.local = data;
  setDirSize(args, data.length);
  args.tp.logInode(args.dp, XFS_ILOG_CORE | XFS_ILOG_DDATA);
}

// ---- checks ----

/**
 * Checks a short form as it comes from disk: what passes can be walked (kernel:
 * `xfs_dir2_sf_verify`).
 *
 * @param data Contents of the fork.
 * @returns null, or the check that failed.
 */
export function xfsDir2SfVerify(mp: XfsMount, data: Uint8Array): string | null {
  if (data.length < SF_PARENT || data.length < hdrSize(data[SF_I8COUNT]!)) {
    return `size ${data.length}`;
  }
  const sf = new SfReader(data);
  if (!mp.sb.verifyIno(sf.parent)) return `parent ${sf.parent}`;
  let big = isBig(sf.parent) ? 1 : 0;
  let offset = DATA_FIRST_OFFSET;
  let at = hdrSize(sf.i8count);
  for (let i = 0; i < sf.count; i++) {
    if (at >= data.length || data[at] === 0) return `no name at ${at}`;
    at += entSize(sf.i8count, data[at]!);
    if (at > data.length) return `name beyond the end, at ${at}`;
    sf.next();
    if (sf.offset < offset) return `offset ${sf.offset}, not ${offset}`;
    offset = sf.offset + xfsDir2DataEntsize(sf.namelen);
    if (!mp.sb.verifyIno(sf.ino)) return `inode number ${sf.ino}`;
    if (isBig(sf.ino)) big++;
    if (sf.ftype >= F.XFS_DIR3_FT_MAX) return `ftype ${sf.ftype}`;
  }
  if (big !== sf.i8count) return `i8count ${sf.i8count}, not ${big}`;
  if (at !== data.length) return `size ${data.length}, not ${at}`;
  const size = offset + (sf.count + 2) * LEAF_ENTRY_SIZE + BLOCK_TAIL_SIZE;
  return size > mp.sb.dirblksize ? `offset ${offset}` : null;
}

/** Bytes that the data fork has in the inode. */
export function xfsDataForkSize(dp: XfsInode): number {
  return xfsInodeForkSize(dp, F.XFS_DATA_FORK);
}

// ---- making ----

/** Makes an empty directory (kernel: `xfs_dir2_sf_create`).
 * @param parent Inode number. */
export function xfsDir2SfCreate(args: XfsDirArgs, parent: number): void {
  const i8count = isBig(parent) ? 1 : 0;
  const data = new Uint8Array(hdrSize(i8count));
  data[SF_I8COUNT] = i8count;
  putIno(new DataView(data.buffer), SF_PARENT, i8count, parent);
  args.dp.df.format = F.XFS_DINODE_FMT_LOCAL;
  setFork(args, data);
}

/** Bytes that the names of a block would take as a short form (kernel:
 * `xfs_dir2_block_sfsize`).
 * @param end End of its entries.
 * @param limit Once there are more, it is left at that. */
export function xfsDir2BlockSfsize(
  bp: XfsBuf,
  end: number,
  limit: number,
): number {
  let size = hdrSize(0);
  let numbers = 1;
  let big = false;
  for (let off = DATA_ENTRY_OFFSET; off < end; off += pieceLength(bp, off)) {
    if (isUnused(bp, off) || isDots(bp, off, 1)) continue;
    big ||= isBig(entryIno(bp, off));
    if (isDots(bp, off, 2)) continue;
    size += entSize(0, entryNamelen(bp, off));
    numbers++;
    if (size > limit) return size;
  }
  return big ? size + 4 * numbers : size;
}

/** A piece that is neither unused nor "." nor "..". */
function isName(bp: XfsBuf, off: number): boolean {
  return !isUnused(bp, off) && !isDots(bp, off, 1) && !isDots(bp, off, 2);
}

/** Whether the name of an entry is "." (`n` 1) or ".." (2). */
function isDots(bp: XfsBuf, off: number, n: number): boolean {
  const at = entryNameAt(off);
  return entryNamelen(bp, off) === n && bp.data[at] === 0x2e &&
    bp.data[at + n - 1] === 0x2e;
}

function countBig(bp: XfsBuf, end: number): number {
  let big = 0;
  for (let off = DATA_ENTRY_OFFSET; off < end; off += pieceLength(bp, off)) {
    if (isUnused(bp, off) || isDots(bp, off, 1)) continue;
    if (isBig(entryIno(bp, off))) big++;
  }
  return big;
}

/** Converts the block form (kernel: `xfs_dir2_block_to_sf`); 0 or a negative errno.
 * @param end End of its entries.
 * @param size From {@linkcode xfsDir2BlockSfsize}. */
export function xfsDir2BlockToSf(
  args: XfsDirArgs,
  bp: XfsBuf,
  end: number,
  size: number,
): number {
  const data = new Uint8Array(size);
  const view = new DataView(data.buffer);
  const i8count = countBig(bp, end);
  data[SF_I8COUNT] = i8count;
  let at = hdrSize(i8count);
  for (let off = DATA_ENTRY_OFFSET; off < end; off += pieceLength(bp, off)) {
    if (isUnused(bp, off)) continue;
    const ino = entryIno(bp, off);
    if (isDots(bp, off, 2)) putIno(view, SF_PARENT, i8count, ino);
    if (!isName(bp, off)) continue;
    const from = entryNameAt(off);
    const name = bp.data.subarray(from, from + entryNamelen(bp, off));
    const ftype = entryFtype(bp, off);
    at = putSfEntry(view, at, i8count, off, ino, name, ftype);
    data[SF_COUNT]!++;
  }
  const error = xfsDir2ShrinkInode(args, 0, bp);
  if (error < 0) return error;
  args.dp.df.format = F.XFS_DINODE_FMT_LOCAL;
  setFork(args, data);
  return 0;
}

/** Writes an entry; where the next one begins. */
function putSfEntry(
  view: DataView,
  at: number,
  i8count: number,
  offset: number,
  ino: number,
  name: Uint8Array,
  ftype: number,
): number {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  bytes[at + SFE_NAMELEN] = name.length;
  view.setUint16(at + SFE_OFFSET, offset);
  bytes.set(name, at + SFE_NAME);
  bytes[at + SFE_NAME + name.length] = ftype;
  putIno(view, at + SFE_NAME + name.length + 1, i8count, ino);
  return at + entSize(i8count, name.length);
}

// ---- adding ----

/** Where a new name goes; nothing waits while it is in use. */
const pick = {
  /** Byte in the fork; -1 if it does not fit. */
  at: -1,
  /** Offset as an entry of a block. */
  offset: 0,
};

/**
 * Looks for a place for a name (kernel: `xfs_dir2_sf_addname_pick`): behind all others,
 * or in the first gap of offsets that is wide enough, if there is no room behind or
 * the inode numbers are about to grow.
 */
function pickPlace(args: XfsDirArgs, toI8: boolean): void {
  const size = xfsDir2DataEntsize(args.name.length);
  const sf = readerOf(args);
  let offset = DATA_FIRST_OFFSET;
  let gap = -1;
  let gapOffset = 0;
  while (sf.next()) {
    if (gap < 0 && offset + size <= sf.offset) {
      gap = sf.at;
      gapOffset = offset;
    }
    offset = sf.offset + xfsDir2DataEntsize(sf.namelen);
  }
  const used = offset + (sf.count + 3) * LEAF_ENTRY_SIZE + BLOCK_TAIL_SIZE;
  const { blksize } = args.geo;
  const behind = used + size <= blksize;
  const inGap = gap >= 0 && (toI8 || !behind) && used <= blksize;
  pick.at = inGap ? gap : behind ? sf.at : -1;
  pick.offset = inGap ? gapOffset : offset;
}

/**
 * Adds the operation's name, which is not there (kernel: `xfs_dir2_sf_addname`);
 * converts to the block form if it does not fit.
 *
 * @returns 0; -ENOSPC if it would take new blocks and there are none to take; another
 *   negative errno.
 */
export function xfsDir2SfAddname(args: XfsDirArgs): number {
  const sf = readerOf(args);
  const toI8 = isBig(args.inumber) && sf.i8count === 0;
  const i8count = toI8 ? 1 : sf.i8count;
  const grown = toI8 ? (sf.count + 1) * 4 : 0;
  const more = entSize(i8count, args.name.length) + grown;
  let fits = args.dp.diskSize + more <= xfsDataForkSize(args.dp);
  if (fits) {
    pickPlace(args, toI8);
    fits = pick.at >= 0;
  }
  const justcheck = (args.opFlags & XFS_DA_OP_JUSTCHECK) !== 0;
  if (!fits) {
    if (justcheck || args.total === 0) return -ENOSPC;
    const error = xfsDir2SfToBlock(args);
    return error < 0 ? error : xfsDir2BlockAddname(args);
  }
  if (justcheck) return 0;
  insert(args, toI8);
  return 0;
}

/** Puts the name in where {@linkcode pickPlace} said. */
function insert(args: XfsDirArgs, toI8: boolean): void {
  const { name, inumber, filetype } = args;
  // Bytes before the place, in the entries as they are now.
  let { at } = pick;
  if (toI8) at += resized(args, at, 1);
  const old = args.dp.df.local!;
  const i8count = old[SF_I8COUNT]!;
  const len = entSize(i8count, name.length);
  const data = new Uint8Array(old.length + len);
  data.set(old.subarray(0, at));
  data.set(old.subarray(at), at + len);
  const view = new DataView(data.buffer);
  putSfEntry(view, at, i8count, pick.offset, inumber, name, filetype);
  data[SF_COUNT]!++;
  if (isBig(inumber) && !toI8) data[SF_I8COUNT]!++;
  setFork(args, data);
}

/**
 * Lets all inode numbers take 8 bytes, or 4 (kernel: `xfs_dir2_sf_toino8`,
 * `xfs_dir2_sf_toino4`).
 *
 * @param at Byte between two entries.
 * @param i8count New count of big ones: 1 or 0.
 * @returns By how much that byte has moved.
 */
function resized(args: XfsDirArgs, at: number, i8count: number): number {
  const sf = readerOf(args);
  const delta = inoSize(i8count) - inoSize(sf.i8count);
  const size = sf.data.length + (sf.count + 1) * delta;
  const data = new Uint8Array(size);
  const view = new DataView(data.buffer);
  data[SF_COUNT] = sf.count;
  data[SF_I8COUNT] = i8count;
  putIno(view, SF_PARENT, i8count, sf.parent);
  let to = hdrSize(i8count);
  let moved = delta;
  while (sf.next()) {
    if (sf.at < at) moved += delta;
    const { offset, ino, ftype } = sf;
    to = putSfEntry(view, to, i8count, offset, ino, sf.name(), ftype);
  }
  setFork(args, data);
  return moved;
}

// ---- looking up, replacing, removing ----

/** Moves a reader to the operation's name; false if it is not there. */
function findName(args: XfsDirArgs, sf: SfReader): boolean {
  while (sf.next()) {
    if (xfsDaCompname(args.name, sf.data, sf.nameAt, sf.namelen)) return true;
  }
  return false;
}

function isDotName(name: Uint8Array, n: number): boolean {
  return name.length === n && name[0] === 0x2e && name[n - 1] === 0x2e;
}

/** Finds the operation's name and sets `inumber` and `filetype` (kernel:
 * `xfs_dir2_sf_lookup`); -EEXIST or -ENOENT. */
export function xfsDir2SfLookup(args: XfsDirArgs): number {
  const sf = readerOf(args);
  args.filetype = F.XFS_DIR3_FT_DIR;
  if (isDotName(args.name, 1)) {
    args.inumber = args.dp.ino;
    return -EEXIST;
  }
  if (isDotName(args.name, 2)) {
    args.inumber = sf.parent;
    return -EEXIST;
  }
  if (!findName(args, sf)) return -ENOENT;
  args.inumber = sf.ino;
  args.filetype = sf.ftype;
  return -EEXIST;
}

/** Removes the name (kernel: `xfs_dir2_sf_removename`); 0 or -ENOENT. */
export function xfsDir2SfRemovename(args: XfsDirArgs): number {
  const sf = readerOf(args);
  if (!findName(args, sf)) return -ENOENT;
  const { at, ino } = sf;
  const len = entSize(sf.i8count, sf.namelen);
  const data = new Uint8Array(sf.data.length - len);
  data.set(sf.data.subarray(0, at));
  data.set(sf.data.subarray(at + len), at);
  data[SF_COUNT]!--;
  setFork(args, data);
  dropBig(args, ino);
  return 0;
}

/** An inode number is no longer in it. */
function dropBig(args: XfsDirArgs, ino: number): void {
  if (!isBig(ino)) return;
  const data = args.dp.df.local!;
  if (data[SF_I8COUNT] === 1) resized(args, 0, 0);
  else data[SF_I8COUNT]!--;
}

/** Lets the name, which may be "..", be of another inode (kernel:
 * `xfs_dir2_sf_replace`); 0, -ENOENT, or the errno of a conversion to the block form. */
export function xfsDir2SfReplace(args: XfsDirArgs): number {
  const { dp, name, inumber } = args;
  let sf = readerOf(args);
  const dotdot = isDotName(name, 2);
  if (!dotdot && !findName(args, sf)) return -ENOENT;
  const old = dotdot ? sf.parent : sf.ino;
  const toI8 = isBig(inumber) && sf.i8count === 0;
  if (toI8) {
    const size = dp.diskSize + (sf.count + 1) * 4;
    if (size > xfsDataForkSize(dp)) {
      const error = xfsDir2SfToBlock(args);
      return error < 0 ? error : xfsDir2BlockReplace(args);
    }
    resized(args, 0, 1);
    sf = readerOf(args);
    if (!dotdot) findName(args, sf);
  }
  const { data } = sf;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  putIno(view, dotdot ? SF_PARENT : sf.inoAt, sf.i8count, inumber);
  if (!dotdot) data[sf.nameAt + sf.namelen] = args.filetype;
  args.tp.logInode(dp, XFS_ILOG_DDATA);
  if (isBig(inumber) && !isBig(old) && !toI8) data[SF_I8COUNT]!++;
  if (!isBig(inumber)) dropBig(args, old);
  return 0;
}
