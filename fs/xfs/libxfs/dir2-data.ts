/**
 * Data blocks of a directory: entries and unused space, without a gap between them,
 * each ending with its own offset; and the header's table of the three longest unused
 * pieces. The block form has the same, and a tail of hashes behind.
 *
 * The table must be what a scan of the whole block would find. It is kept up to date
 * without one where that is certain; where it is not, the caller is told to scan.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_dir2_data.c.
 *
 * @module
 */

import type { XfsInode } from "../inode.ts";
import type { XfsMount } from "../mount.ts";
import type { BufTarg, XfsBuf, XfsBufOps } from "./buf.ts";
import { bytesEqual, getU64, putU64 } from "./bytes.ts";
import {
  daCorrupt,
  xfsDaCompname,
  xfsDaGetBuf,
  xfsDaReadBuf,
} from "./da-btree.ts";
import { dbToDa, LEAF_ENTRY_SIZE, type XfsDirArgs } from "./dir2-priv.ts";
import * as F from "./format.ts";
import type { XfsTrans } from "./trans.ts";

/** First byte of an entry. */
export const DATA_ENTRY_OFFSET: number = F.DIR3_DATA_HDR_SIZE;
/** First bytes of an unused piece, where an entry has the top of its inode number. */
const FREE_TAG = 0xffff;
/** Entries of the table of longest pieces. */
const FD_COUNT = 3;
/** Bytes of the tail of a block-form directory: count, stale. */
export const BLOCK_TAIL_SIZE = 8;

// ---- fields ----

/** Bytes of an entry: number, length, name, type, tag, to 8 (kernel:
 * `xfs_dir2_data_entsize`). */
export function xfsDir2DataEntsize(namelen: number): number {
  return (12 + namelen + 7) & ~7;
}

/** Inode number of the entry at a byte. */
export function entryIno(bp: XfsBuf, off: number): number {
  return getU64(bp.view, off);
}

/** Bytes of its name, which begins 9 bytes after it. */
export function entryNamelen(bp: XfsBuf, off: number): number {
  return bp.data[off + 8]!;
}

/** First byte of its name. */
export function entryNameAt(off: number): number {
  return off + 9;
}

/** Its `XFS_DIR3_FT_*`. */
export function entryFtype(bp: XfsBuf, off: number): number {
  const ftype = bp.data[off + 9 + bp.data[off + 8]!]!;
  return ftype < F.XFS_DIR3_FT_MAX ? ftype : F.XFS_DIR3_FT_UNKNOWN;
}

/** Whether the piece at a byte is unused. */
export function isUnused(bp: XfsBuf, off: number): boolean {
  return bp.view.getUint16(off) === FREE_TAG;
}

/** Bytes of the unused piece at a byte. */
export function unusedLength(bp: XfsBuf, off: number): number {
  return bp.view.getUint16(off + 2);
}

/** Bytes of the piece at a byte, used or not. */
export function pieceLength(bp: XfsBuf, off: number): number {
  return isUnused(bp, off)
    ? unusedLength(bp, off)
    : xfsDir2DataEntsize(entryNamelen(bp, off));
}

/** Offset of the piece that ends at a byte. */
export function tagBefore(bp: XfsBuf, end: number): number {
  return bp.view.getUint16(end - 2);
}

/** Offset of a table entry's piece. */
export function bestOffset(bp: XfsBuf, i: number): number {
  return bp.view.getUint16(F.DIR3_BESTFREE + 4 * i);
}

/** Bytes of a table entry's piece; 0 if there is none. */
export function bestLength(bp: XfsBuf, i: number): number {
  return bp.view.getUint16(F.DIR3_BESTFREE + 4 * i + 2);
}

function putBest(bp: XfsBuf, i: number, offset: number, length: number): void {
  bp.view.setUint16(F.DIR3_BESTFREE + 4 * i, offset);
  bp.view.setUint16(F.DIR3_BESTFREE + 4 * i + 2, length);
}

function isBlockForm(bp: XfsBuf): boolean {
  return bp.view.getUint32(F.DIR3_MAGIC) === F.XFS_DIR3_BLOCK_MAGIC;
}

/** First byte of the hashes of a block-form directory. */
export function blockLeafAt(bp: XfsBuf): number {
  const tail = bp.data.length - BLOCK_TAIL_SIZE;
  return tail - bp.view.getUint32(tail) * LEAF_ENTRY_SIZE;
}

/** End of the entries (kernel: `xfs_dir3_data_end_offset`). */
export function dataEnd(bp: XfsBuf): number {
  return isBlockForm(bp) ? blockLeafAt(bp) : bp.data.length;
}

// ---- checks ----

/** Checks the header that data, block and free-index blocks share. */
export function dir3BlkVerify(
  bp: XfsBuf,
  targ: BufTarg,
  magic: number,
): string | null {
  const found = bp.view.getUint32(F.DIR3_MAGIC);
  if (found !== magic) return `magic ${found}`;
  if (!bytesEqual(bp.data, F.DIR3_UUID, targ.uuid, 0, 16)) return "uuid";
  const blkno = getU64(bp.view, F.DIR3_BLKNO);
  return blkno === bp.daddr ? null : `blkno ${blkno}`;
}

/** Makes a block all zero but for such a header. */
export function dir3BlkInit(bp: XfsBuf, dp: XfsInode, magic: number): void {
  bp.data.fill(0);
  bp.view.setUint32(F.DIR3_MAGIC, magic);
  putU64(bp.view, F.DIR3_BLKNO, bp.daddr);
  bp.data.set(dp.mount.targ.uuid, F.DIR3_UUID);
  putU64(bp.view, F.DIR3_OWNER, dp.ino);
}

/** Checks that such a block is this inode's; it or -EFSCORRUPTED. */
export function dir3BlkOwned(
  bp: XfsBuf | number,
  dp: XfsInode,
  bno: number,
): XfsBuf | number {
  if (typeof bp === "number") return bp;
  const owner = getU64(bp.view, F.DIR3_OWNER);
  return owner === dp.ino ? bp : daCorrupt(dp, bno, `owner ${owner}`);
}

function tableVerify(bp: XfsBuf): string | null {
  for (let i = 0; i < FD_COUNT; i++) {
    if (bestLength(bp, i) === 0 && bestOffset(bp, i) !== 0) {
      return `bestfree ${i} at ${bestOffset(bp, i)} without length`;
    }
    if (i > 0 && bestLength(bp, i) > bestLength(bp, i - 1)) {
      return `bestfree ${i} is longer than the one before`;
    }
  }
  return null;
}

/**
 * Checks header, table and every piece of a data or block-form block: what passes can
 * be walked (kernel: `__xfs_dir3_data_check`). The hashes of a block form are left to
 * its own check.
 *
 * @returns null, or the check that failed.
 */
export function xfsDir3DataCheck(
  bp: XfsBuf,
  targ: BufTarg,
  end: number,
): string | null {
  const why = tableVerify(bp);
  if (why !== null) return why;
  const { sb } = targ.mount as XfsMount;
  let seen = 0;
  let wasFree = false;
  let off = DATA_ENTRY_OFFSET;
  while (off < end) {
    const free = isUnused(bp, off);
    const len = pieceLength(bp, off);
    if (len < 8 || (len & 7) !== 0 || off + len > end) {
      return `length ${len} at ${off}`;
    }
    if (tagBefore(bp, off + len) !== off) return `tag at ${off}`;
    if (free) {
      if (wasFree) return `unused pieces touch at ${off}`;
      const i = freefind(bp, off);
      if (i >= 0 && bestLength(bp, i) !== len) return `bestfree ${i}`;
      if (i >= 0) seen++;
      else if (len > bestLength(bp, 2)) return `bestfree lacks ${off}`;
    } else {
      const ino = entryIno(bp, off);
      if (entryNamelen(bp, off) === 0) return `no name at ${off}`;
      if (!sb.verifyIno(ino)) return `inode number ${ino} at ${off}`;
      const ftype = bp.data[off + 9 + entryNamelen(bp, off)]!;
      if (ftype >= F.XFS_DIR3_FT_MAX) return `ftype ${ftype} at ${off}`;
    }
    wasFree = free;
    off += len;
  }
  for (let i = 0; i < FD_COUNT; i++) if (bestLength(bp, i) === 0) seen++;
  return seen === FD_COUNT ? null : "bestfree of what is not unused";
}

/** Of data blocks (kernel: `xfs_dir3_data_buf_ops`). */
export const xfsDir3DataBufOps: XfsBufOps = {
  name: "xfs_dir3_data",
  crcOffset: F.DIR3_CRC,
  verify: (bp, targ) =>
    dir3BlkVerify(bp, targ, F.XFS_DIR3_DATA_MAGIC) ??
      xfsDir3DataCheck(bp, targ, bp.data.length),
};

/** Reads data block `db` (kernel: `xfs_dir3_data_read`); it or a negative errno. */
export function xfsDir3DataRead(
  tp: XfsTrans | null,
  dp: XfsInode,
  db: number,
): XfsBuf | number {
  const bno = dbToDa(dp.mount.dirGeo, db);
  const ops = xfsDir3DataBufOps;
  const bp = xfsDaReadBuf(tp, dp, bno, F.XFS_DATA_FORK, ops);
  return dir3BlkOwned(bp, dp, bno);
}

/** Makes data block `db`, all unused (kernel: `xfs_dir3_data_init`). */
export function xfsDir3DataInit(
  args: XfsDirArgs,
  db: number,
): XfsBuf | number {
  const { tp, dp, geo } = args;
  const bno = dbToDa(geo, db);
  const bp = xfsDaGetBuf(tp, dp, bno, F.XFS_DATA_FORK, xfsDir3DataBufOps);
  if (typeof bp === "number") return bp;
  dir3BlkInit(bp, dp, F.XFS_DIR3_DATA_MAGIC);
  const length = geo.blksize - DATA_ENTRY_OFFSET;
  putBest(bp, 0, DATA_ENTRY_OFFSET, length);
  logHeader(args, bp);
  putUnusedPiece(args, bp, DATA_ENTRY_OFFSET, length);
  return bp;
}

/**
 * Whether the entry that a hash points to has the operation's name.
 *
 * @param off Byte in the block.
 * @returns 1, 0, or -EFSCORRUPTED if no entry begins there.
 */
export function xfsDir2DataMatch(
  args: XfsDirArgs,
  bp: XfsBuf,
  off: number,
): number {
  if (!isEntry(bp, off)) {
    return blockCorrupt(args, bp, `no entry at ${off}`);
  }
  const namelen = entryNamelen(bp, off);
  return xfsDaCompname(args.name, bp.data, off + 9, namelen) ? 1 : 0;
}

function blockCorrupt(args: XfsDirArgs, bp: XfsBuf, why: string): number {
  const { mount, ino } = args.dp;
  return mount.corrupt(`directory ${ino}, block at daddr ${bp.daddr}`, why);
}

function isEntry(bp: XfsBuf, off: number): boolean {
  const end = dataEnd(bp);
  if (off < DATA_ENTRY_OFFSET || off + 16 > end || isUnused(bp, off)) {
    return false;
  }
  const namelen = entryNamelen(bp, off);
  const next = off + xfsDir2DataEntsize(namelen);
  return namelen > 0 && next <= end && tagBefore(bp, next) === off;
}

// ---- what the log needs ----

function logHeader(args: XfsDirArgs, bp: XfsBuf): void {
  args.tp.logBuf(bp, 0, F.DIR3_DATA_HDR_SIZE - 1);
}

/** Kernel: `xfs_dir2_data_log_entry`. */
function logEntry(args: XfsDirArgs, bp: XfsBuf, off: number): void {
  const len = xfsDir2DataEntsize(entryNamelen(bp, off));
  args.tp.logBuf(bp, off, off + len - 1);
}

/** Makes a piece unused, and logs its two ends (kernel: `xfs_dir2_data_log_unused`). */
export function putUnusedPiece(
  args: XfsDirArgs,
  bp: XfsBuf,
  off: number,
  length: number,
): void {
  bp.view.setUint16(off, FREE_TAG);
  bp.view.setUint16(off + 2, length);
  bp.view.setUint16(off + length - 2, off);
  args.tp.logBuf(bp, off, off + 3);
  args.tp.logBuf(bp, off + length - 2, off + length - 1);
}

// ---- the table ----

/** Place in the table of the piece at a byte, or -1 (kernel:
 * `xfs_dir2_data_freefind`). */
function freefind(bp: XfsBuf, off: number): number {
  for (let i = 0; i < FD_COUNT; i++) {
    if (bestLength(bp, i) === 0) return -1;
    if (bestOffset(bp, i) === off) return i;
  }
  return -1;
}

/** Puts a piece into the table if it is longer than one there; its place or -1 (kernel:
 * `xfs_dir2_data_freeinsert`). */
function freeinsert(bp: XfsBuf, off: number, length: number): number {
  for (let i = 0; i < FD_COUNT; i++) {
    if (length <= bestLength(bp, i)) continue;
    for (let j = FD_COUNT - 1; j > i; j--) {
      putBest(bp, j, bestOffset(bp, j - 1), bestLength(bp, j - 1));
    }
    putBest(bp, i, off, length);
    return i;
  }
  return -1;
}

/** Takes a piece out of the table (kernel: `xfs_dir2_data_freeremove`). */
function freeremove(bp: XfsBuf, i: number): void {
  for (; i < FD_COUNT - 1; i++) {
    putBest(bp, i, bestOffset(bp, i + 1), bestLength(bp, i + 1));
  }
  putBest(bp, FD_COUNT - 1, 0, 0);
}

/**
 * Fills the table by a walk over all pieces (kernel: `xfs_dir2_data_freescan`).
 *
 * @returns 0, or -EFSCORRUPTED if the pieces do not fit together.
 */
export function xfsDir2DataFreescan(args: XfsDirArgs, bp: XfsBuf): number {
  const end = dataEnd(bp);
  for (let i = 0; i < FD_COUNT; i++) putBest(bp, i, 0, 0);
  let off = DATA_ENTRY_OFFSET;
  while (off < end) {
    const length = pieceLength(bp, off);
    if (length < 8 || off + length > end) {
      return blockCorrupt(args, bp, `length ${length} at ${off}`);
    }
    if (isUnused(bp, off)) freeinsert(bp, off, length);
    off += length;
  }
  logHeader(args, bp);
  return 0;
}

// ---- using and freeing space ----

/**
 * Makes a piece of a block unused, joining it with unused neighbours (kernel:
 * `xfs_dir2_data_make_free`).
 *
 * @param off First byte; an entry begins there, or the hashes of a block form.
 * @returns 0; 1 if the caller has to call {@linkcode xfsDir2DataFreescan}.
 */
export function xfsDir2DataMakeFree(
  args: XfsDirArgs,
  bp: XfsBuf,
  off: number,
  len: number,
): number {
  const end = dataEnd(bp);
  const prev = unusedBefore(bp, off);
  const next = off + len < end && isUnused(bp, off + len) ? off + len : -1;
  logHeader(args, bp);
  if (prev >= 0 && next >= 0) return freeBetween(args, bp, prev, next);
  const joined = prev >= 0 ? prev : next;
  const place = joined >= 0 ? freefind(bp, joined) : -1;
  const start = prev >= 0 ? prev : off;
  const length = len + (joined >= 0 ? unusedLength(bp, joined) : 0);
  putUnusedPiece(args, bp, start, length);
  // A piece that was not in the table may belong into it now, as the third: only a scan
  // knows what else it displaces.
  if (joined >= 0 && place < 0) return length > bestLength(bp, 2) ? 1 : 0;
  if (place >= 0) freeremove(bp, place);
  freeinsert(bp, start, length);
  return 0;
}

/** The unused piece that ends at a byte, or -1. */
function unusedBefore(bp: XfsBuf, off: number): number {
  if (off <= DATA_ENTRY_OFFSET) return -1;
  const prev = tagBefore(bp, off);
  const ok = prev >= DATA_ENTRY_OFFSET && prev < off && isUnused(bp, prev) &&
    prev + unusedLength(bp, prev) === off;
  return ok ? prev : -1;
}

function freeBetween(
  args: XfsDirArgs,
  bp: XfsBuf,
  prev: number,
  next: number,
): number {
  const more = bestLength(bp, 2) !== 0;
  putUnusedPiece(args, bp, prev, next + unusedLength(bp, next) - prev);
  if (more) return 1;
  // There were just these two.
  freeremove(bp, 1);
  freeremove(bp, 0);
  freeinsert(bp, prev, unusedLength(bp, prev));
  return 0;
}

/**
 * Takes a part of an unused piece into use (kernel: `xfs_dir2_data_use_free`). What
 * lies there then is the caller's to fill in, before any scan.
 *
 * @param dup First byte of the piece.
 * @param off First byte of the part.
 * @returns 0; 1 if the caller has to call {@linkcode xfsDir2DataFreescan};
 *   -EFSCORRUPTED if the part does not lie in an unused piece.
 */
export function xfsDir2DataUseFree(
  args: XfsDirArgs,
  bp: XfsBuf,
  dup: number,
  off: number,
  len: number,
): number {
  const oldlen = dup >= DATA_ENTRY_OFFSET && isUnused(bp, dup)
    ? unusedLength(bp, dup)
    : 0;
  const back = dup + oldlen - (off + len);
  if (back < 0 || off < dup || tagBefore(bp, dup + oldlen) !== dup) {
    return blockCorrupt(args, bp, `no ${len} unused bytes at ${off}`);
  }
  const place = freefind(bp, dup);
  const front = off - dup;
  if (front > 0) putUnusedPiece(args, bp, dup, front);
  if (back > 0) putUnusedPiece(args, bp, off + len, back);
  if (place < 0) return 0;
  logHeader(args, bp);
  // There may be a fourth piece that now belongs into the table, unless what is left is
  // one piece that has not become the last.
  const full = bestLength(bp, FD_COUNT - 1) !== 0;
  if (full && front > 0 === back > 0) return 1;
  freeremove(bp, place);
  let rank = 0;
  if (front > 0) rank = freeinsert(bp, dup, front);
  if (back > 0) rank = freeinsert(bp, off + len, back);
  return full && rank === FD_COUNT - 1 ? 1 : 0;
}

/** Writes an entry into space that was taken into use, and logs it. */
export function putEntry(
  args: XfsDirArgs,
  bp: XfsBuf,
  off: number,
  ino: number,
  name: Uint8Array,
  ftype: number,
): void {
  const end = off + xfsDir2DataEntsize(name.length);
  bp.data.fill(0, off + 9 + name.length, end);
  putU64(bp.view, off, ino);
  bp.data[off + 8] = name.length;
  bp.data.set(name, off + 9);
  bp.data[off + 9 + name.length] = ftype;
  bp.view.setUint16(end - 2, off);
  logEntry(args, bp, off);
}

/** Lets an entry be of another inode, and logs it. */
export function replaceEntry(args: XfsDirArgs, bp: XfsBuf, off: number): void {
  putU64(bp.view, off, args.inumber);
  bp.data[off + 9 + entryNamelen(bp, off)] = args.filetype;
  logEntry(args, bp, off);
}

/**
 * Enters the operation's name at the front of the unused piece at a byte.
 *
 * @returns 0 or -EFSCORRUPTED.
 */
export function xfsDir2DataAddEntry(
  args: XfsDirArgs,
  bp: XfsBuf,
  dup: number,
): number {
  const len = xfsDir2DataEntsize(args.name.length);
  const scan = xfsDir2DataUseFree(args, bp, dup, dup, len);
  if (scan < 0) return scan;
  putEntry(args, bp, dup, args.inumber, args.name, args.filetype);
  return scan === 1 ? xfsDir2DataFreescan(args, bp) : 0;
}

/** Removes the entry at a byte; 0 or -EFSCORRUPTED. */
export function xfsDir2DataRemoveEntry(
  args: XfsDirArgs,
  bp: XfsBuf,
  off: number,
): number {
  const len = xfsDir2DataEntsize(entryNamelen(bp, off));
  const scan = xfsDir2DataMakeFree(args, bp, off, len);
  return scan === 1 ? xfsDir2DataFreescan(args, bp) : 0;
}
