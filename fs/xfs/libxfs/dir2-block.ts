/**
 * Directories of one block: a data block with the hashes of its names at its end.
 *
 * The hashes grow downwards into the unused piece before them, so a new name needs room
 * twice; where the last piece is in use, only a stale hash will do.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_dir2_block.c.
 *
 * @module
 */

import { EEXIST, ENOENT, ENOSPC } from "../../../lib/errno.ts";
import { xfsBmapLocalToExtentsEmpty } from "./bmap.ts";
import type { BufTarg, XfsBuf, XfsBufOps } from "./buf.ts";
import {
  daCount,
  XFS_DA_OP_JUSTCHECK,
  xfsDaHashname,
  xfsDaReadBuf,
  xfsDaShrinkInode,
} from "./da-btree.ts";
import {
  bestLength,
  bestOffset,
  BLOCK_TAIL_SIZE,
  blockLeafAt,
  DATA_ENTRY_OFFSET,
  dir3BlkOwned,
  dir3BlkVerify,
  entryFtype,
  entryIno,
  entryNameAt,
  entryNamelen,
  isUnused,
  pieceLength,
  putEntry,
  putUnusedPiece,
  replaceEntry,
  tagBefore,
  unusedLength,
  xfsDir2DataAddEntry,
  xfsDir2DataEntsize,
  xfsDir2DataFreescan,
  xfsDir2DataMakeFree,
  xfsDir2DataMatch,
  xfsDir2DataRemoveEntry,
  xfsDir2DataUseFree,
  xfsDir3DataBufOps,
  xfsDir3DataCheck,
  xfsDir3DataInit,
  xfsDir3DataRead,
} from "./dir2-data.ts";
import {
  leafAddress,
  leafHash,
  leafLive,
  leafTrimData,
  searchHash,
  xfsDir2BlockToLeaf,
  xfsDir2LeafAddname,
  xfsDir3Leaf1BufOps,
} from "./dir2-leaf.ts";
import {
  dataptrToOff,
  LEAF_ENTRY_SIZE,
  XFS_DIR2_NULL_DATAPTR,
  xfsDir2GrowInode,
  type XfsDirArgs,
} from "./dir2-priv.ts";
import {
  SfReader,
  xfsDataForkSize,
  xfsDir2BlockSfsize,
  xfsDir2BlockToSf,
} from "./dir2-sf.ts";
import * as F from "./format.ts";
import { XFS_ILOG_CORE } from "./trans.ts";

const DOT = new Uint8Array([0x2e]);
const DOTDOT = new Uint8Array([0x2e, 0x2e]);

// ---- the tail ----

function tailAt(bp: XfsBuf): number {
  return bp.data.length - BLOCK_TAIL_SIZE;
}

function blockCount(bp: XfsBuf): number {
  return bp.view.getUint32(tailAt(bp));
}

function blockStale(bp: XfsBuf): number {
  return bp.view.getUint32(tailAt(bp) + 4);
}

function setTail(
  args: XfsDirArgs,
  bp: XfsBuf,
  count: number,
  stale: number,
): void {
  bp.view.setUint32(tailAt(bp), count);
  bp.view.setUint32(tailAt(bp) + 4, stale);
  args.tp.logBuf(bp, tailAt(bp), bp.data.length - 1);
}

/** Byte of (hash, address) pair `i`. */
function pairAt(bp: XfsBuf, i: number): number {
  return blockLeafAt(bp) + i * LEAF_ENTRY_SIZE;
}

function pairHash(bp: XfsBuf, i: number): number {
  return bp.view.getUint32(pairAt(bp, i));
}

function pairAddress(bp: XfsBuf, i: number): number {
  return bp.view.getUint32(pairAt(bp, i) + 4);
}

function putPair(bp: XfsBuf, i: number, hash: number, address: number): void {
  bp.view.setUint32(pairAt(bp, i), hash);
  bp.view.setUint32(pairAt(bp, i) + 4, address);
}

/** Logs pairs `first` up to, not including, `end`. */
function logPairs(
  args: XfsDirArgs,
  bp: XfsBuf,
  first: number,
  end: number,
): void {
  if (first < end) args.tp.logBuf(bp, pairAt(bp, first), pairAt(bp, end) - 1);
}

/** First pair whose hash is not below the operation's. */
function blockSearch(args: XfsDirArgs, bp: XfsBuf): number {
  return searchHash(bp, blockLeafAt(bp), blockCount(bp), args.hashval);
}

// ---- checks ----

/** Every name must have its pair; pairs in order, as many stale as the tail says. */
function pairsVerify(bp: XfsBuf): string | null {
  const count = blockCount(bp);
  let stale = 0;
  for (let i = 0; i < count; i++) {
    if (i > 0 && pairHash(bp, i - 1) > pairHash(bp, i)) {
      return `hash order at ${i}`;
    }
    if (pairAddress(bp, i) === XFS_DIR2_NULL_DATAPTR) stale++;
  }
  if (stale !== blockStale(bp)) return `stale ${blockStale(bp)}`;
  let names = 0;
  const end = blockLeafAt(bp);
  for (let off = DATA_ENTRY_OFFSET; off < end; off += pieceLength(bp, off)) {
    if (isUnused(bp, off)) continue;
    names++;
    if (!hasPair(bp, off)) return `no hash of the name at ${off}`;
  }
  return names === count - stale ? null : `count ${count}`;
}

function hasPair(bp: XfsBuf, off: number): boolean {
  const at = entryNameAt(off);
  const hash = xfsDaHashname(bp.data, at, at + entryNamelen(bp, off));
  const count = blockCount(bp);
  let i = searchHash(bp, blockLeafAt(bp), count, hash);
  for (; i < count && pairHash(bp, i) === hash; i++) {
    if (pairAddress(bp, i) === off / 8) return true;
  }
  return false;
}

function blockVerify(bp: XfsBuf, targ: BufTarg): string | null {
  const why = dir3BlkVerify(bp, targ, F.XFS_DIR3_BLOCK_MAGIC);
  if (why !== null) return why;
  const count = blockCount(bp);
  const room = tailAt(bp) - DATA_ENTRY_OFFSET;
  if (count * LEAF_ENTRY_SIZE > room) return `count ${count}`;
  return xfsDir3DataCheck(bp, targ, blockLeafAt(bp)) ?? pairsVerify(bp);
}

/** Of the single block (kernel: `xfs_dir3_block_buf_ops`). */
export const xfsDir3BlockBufOps: XfsBufOps = {
  name: "xfs_dir3_block",
  crcOffset: F.DIR3_CRC,
  verify: blockVerify,
};

/** Reads the block (kernel: `xfs_dir3_block_read`); it or a negative errno. */
export function xfsDir3BlockRead(args: XfsDirArgs): XfsBuf | number {
  const { trans, dp } = args;
  const ops = xfsDir3BlockBufOps;
  return dir3BlkOwned(
    xfsDaReadBuf(trans, dp, 0, F.XFS_DATA_FORK, ops),
    dp,
    0,
  );
}

// ---- adding ----

/** Where a new name would go; nothing waits while it is in use. */
const space = {
  /** Unused piece, or where one will be after compaction; -1 if there is none. */
  dup: -1,
  /** Unused piece that ends at the hashes, if it is to give room for one. */
  enddup: -1,
  /** Stale hashes must be removed first. */
  compact: false,
};

/** Looks for space for an entry and its hash (kernel: `xfs_dir2_block_need_space`). */
function needSpace(bp: XfsBuf, len: number): void {
  const leaf = blockLeafAt(bp);
  const last = tagBefore(bp, leaf);
  const lastFree = isUnused(bp, last) ? unusedLength(bp, last) : 0;
  space.dup = space.enddup = -1;
  space.compact = false;
  if (blockStale(bp) > 0) {
    needSpaceStale(bp, len, last, lastFree);
    return;
  }
  // Without a stale hash there must be room in front of the hashes.
  if (lastFree === 0) return;
  space.enddup = last;
  const best = bestOffset(bp, 0);
  if (best !== last) {
    if (bestLength(bp, 0) >= len) space.dup = best;
  } else if (lastFree >= len + LEAF_ENTRY_SIZE) {
    space.dup = best;
  } else if (bestLength(bp, 1) >= len) {
    space.dup = bestOffset(bp, 1);
  }
}

function needSpaceStale(
  bp: XfsBuf,
  len: number,
  last: number,
  lastFree: number,
): void {
  if (bestLength(bp, 0) >= len) {
    space.dup = bestOffset(bp, 0);
    return;
  }
  space.compact = true;
  const gained = (blockStale(bp) - 1) * LEAF_ENTRY_SIZE;
  if (lastFree + gained < len) return;
  space.dup = lastFree > 0 ? last : blockLeafAt(bp);
}

/** Removes stale hashes but the last one, and gives their room to the entries (kernel:
 * `xfs_dir2_block_compact`); 0 or -EFSCORRUPTED. */
function compact(args: XfsDirArgs, bp: XfsBuf): number {
  const count = blockCount(bp);
  const stale = blockStale(bp);
  const leaf = blockLeafAt(bp);
  let kept = false;
  let to = count - 1;
  for (let from = count - 1; from >= 0; from--) {
    const address = pairAddress(bp, from);
    if (address === XFS_DIR2_NULL_DATAPTR) {
      if (kept) continue;
      kept = true;
    }
    if (from < to) putPair(bp, to, pairHash(bp, from), address);
    to--;
  }
  setTail(args, bp, count - (stale - 1), 1);
  logPairs(args, bp, 0, blockCount(bp));
  const gained = (stale - 1) * LEAF_ENTRY_SIZE;
  const scan = xfsDir2DataMakeFree(args, bp, leaf, gained);
  return scan === 1 ? xfsDir2DataFreescan(args, bp) : 0;
}

/**
 * Adds the operation's name, which is not there (kernel: `xfs_dir2_block_addname`);
 * converts to the leaf form if the block is full.
 *
 * @returns 0; -ENOSPC if it would take new blocks and there are none to take; another
 *   negative errno.
 */
export function xfsDir2BlockAddname(args: XfsDirArgs): number {
  const bp = xfsDir3BlockRead(args);
  if (typeof bp === "number") return bp;
  needSpace(bp, xfsDir2DataEntsize(args.name.length));
  const { dup, enddup } = space;
  if ((args.opFlags & XFS_DA_OP_JUSTCHECK) !== 0) {
    return dup < 0 ? -ENOSPC : 0;
  }
  if (dup < 0) {
    if (args.total === 0) return -ENOSPC;
    const error = xfsDir2BlockToLeaf(args, bp);
    return error < 0 ? error : xfsDir2LeafAddname(args);
  }
  if (space.compact) {
    const error = compact(args, bp);
    if (error < 0) return error;
  }
  const error = blockStale(bp) === 0
    ? insertPair(args, bp, enddup, dup / 8)
    : insertStale(args, bp, dup / 8);
  return error < 0 ? error : xfsDir2DataAddEntry(args, bp, dup);
}

/** Puts a pair in, for which the hashes grow by one. */
function insertPair(
  args: XfsDirArgs,
  bp: XfsBuf,
  enddup: number,
  address: number,
): number {
  const at = blockSearch(args, bp);
  const leaf = blockLeafAt(bp);
  const new0 = leaf - LEAF_ENTRY_SIZE;
  const scan = xfsDir2DataUseFree(args, bp, enddup, new0, LEAF_ENTRY_SIZE);
  if (scan < 0) return scan;
  setTail(args, bp, blockCount(bp) + 1, 0);
  bp.data.copyWithin(new0, leaf, leaf + at * LEAF_ENTRY_SIZE);
  putPair(bp, at, args.hashval, address);
  logPairs(args, bp, 0, at + 1);
  return scan === 1 ? xfsDir2DataFreescan(args, bp) : 0;
}

/** Puts a pair in at the place of the nearest stale one. */
function insertStale(args: XfsDirArgs, bp: XfsBuf, address: number): number {
  const at = blockSearch(args, bp);
  const count = blockCount(bp);
  const none = XFS_DIR2_NULL_DATAPTR;
  let low = at - 1;
  while (low >= 0 && pairAddress(bp, low) !== none) low--;
  let high = at;
  while (high < count && pairAddress(bp, high) !== none) high++;
  const down = low >= 0 && (high === count || at - 1 - low <= high - at);
  let place = at;
  if (down) {
    place = at - 1;
    bp.data.copyWithin(pairAt(bp, low), pairAt(bp, low + 1), pairAt(bp, at));
  } else {
    bp.data.copyWithin(pairAt(bp, at + 1), pairAt(bp, at), pairAt(bp, high));
  }
  putPair(bp, place, args.hashval, address);
  if (down) logPairs(args, bp, low, at);
  else logPairs(args, bp, at, high + 1);
  setTail(args, bp, count, blockStale(bp) - 1);
  return 0;
}

// ---- looking up, replacing, removing ----

/** Finds the name (kernel: `xfs_dir2_block_lookup_int`); its pair or a negative errno. */
function lookup(args: XfsDirArgs, bp: XfsBuf): number {
  const { geo, hashval } = args;
  const count = blockCount(bp);
  let i = blockSearch(args, bp);
  for (; i < count && pairHash(bp, i) === hashval; i++) {
    const address = pairAddress(bp, i);
    if (address === XFS_DIR2_NULL_DATAPTR) continue;
    const match = xfsDir2DataMatch(args, bp, dataptrToOff(geo, address));
    if (match < 0) return match;
    if (match === 1) return i;
  }
  return -ENOENT;
}

function pairOff(args: XfsDirArgs, bp: XfsBuf, i: number): number {
  return dataptrToOff(args.geo, pairAddress(bp, i));
}

/** Finds the operation's name and sets `inumber` and `filetype` (kernel:
 * `xfs_dir2_block_lookup`); -EEXIST, -ENOENT or another negative errno. */
export function xfsDir2BlockLookup(args: XfsDirArgs): number {
  const bp = xfsDir3BlockRead(args);
  if (typeof bp === "number") return bp;
  const i = lookup(args, bp);
  if (i < 0) return i;
  args.inumber = entryIno(bp, pairOff(args, bp, i));
  args.filetype = entryFtype(bp, pairOff(args, bp, i));
  return -EEXIST;
}

/** Lets the name be of another inode (kernel: `xfs_dir2_block_replace`); 0, -ENOENT or
 * another negative errno. */
export function xfsDir2BlockReplace(args: XfsDirArgs): number {
  const bp = xfsDir3BlockRead(args);
  if (typeof bp === "number") return bp;
  const i = lookup(args, bp);
  if (i < 0) return i;
  replaceEntry(args, bp, pairOff(args, bp, i));
  return 0;
}

/** Removes the name, and converts to the short form if that will do (kernel:
 * `xfs_dir2_block_removename`); 0, -ENOENT or another negative errno. */
export function xfsDir2BlockRemovename(args: XfsDirArgs): number {
  const bp = xfsDir3BlockRead(args);
  if (typeof bp === "number") return bp;
  const i = lookup(args, bp);
  if (i < 0) return i;
  const off = pairOff(args, bp, i);
  setTail(args, bp, blockCount(bp), blockStale(bp) + 1);
  putPair(bp, i, pairHash(bp, i), XFS_DIR2_NULL_DATAPTR);
  logPairs(args, bp, i, i + 1);
  const error = xfsDir2DataRemoveEntry(args, bp, off);
  return error < 0 ? error : shrinkToSf(args, bp);
}

function shrinkToSf(args: XfsDirArgs, bp: XfsBuf): number {
  const room = xfsDataForkSize(args.dp);
  const size = xfsDir2BlockSfsize(bp, blockLeafAt(bp), room);
  if (size > room) return 0;
  return xfsDir2BlockToSf(args, bp, blockLeafAt(bp), size);
}

// ---- conversions ----

/** Makes the room of the hashes unused and the block a data block (kernel: within
 * `xfs_dir2_block_to_leaf`); 0 or -EFSCORRUPTED. */
export function blockToData(args: XfsDirArgs, bp: XfsBuf): number {
  const leaf = blockLeafAt(bp);
  const scan = xfsDir2DataMakeFree(args, bp, leaf, bp.data.length - leaf);
  bp.view.setUint32(F.DIR3_MAGIC, F.XFS_DIR3_DATA_MAGIC);
  bp.ops = xfsDir3DataBufOps;
  return scan === 1 ? xfsDir2DataFreescan(args, bp) : 0;
}

/** Converts the leaf form if there is one data block and room for the hashes at its end
 * (kernel: `xfs_dir2_leaf_to_block`), and on to the short form; 0 or a negative errno. */
export function xfsDir2LeafToBlock(args: XfsDirArgs, lbp: XfsBuf): number {
  const { geo, dp } = args;
  const single = leafTrimData(args, lbp);
  if (single <= 0) return single;
  const bp = xfsDir3DataRead(args.trans, dp, 0);
  if (typeof bp === "number") return bp;
  const live = leafLive(lbp);
  const size = BLOCK_TAIL_SIZE + live * LEAF_ENTRY_SIZE;
  const last = tagBefore(bp, geo.blksize);
  if (!isUnused(bp, last) || unusedLength(bp, last) < size) return 0;
  const from = geo.blksize - size;
  const scan = xfsDir2DataUseFree(args, bp, last, from, size);
  if (scan < 0) return scan;
  bp.view.setUint32(F.DIR3_MAGIC, F.XFS_DIR3_BLOCK_MAGIC);
  bp.ops = xfsDir3BlockBufOps;
  args.tp.logBuf(bp, 0, F.DIR3_DATA_HDR_SIZE - 1);
  setTail(args, bp, live, 0);
  const count = daCount(lbp);
  for (let i = 0, to = 0; i < count; i++) {
    const address = leafAddress(lbp, i);
    if (address === XFS_DIR2_NULL_DATAPTR) continue;
    putPair(bp, to++, leafHash(lbp, i), address);
  }
  logPairs(args, bp, 0, live);
  let error = scan === 1 ? xfsDir2DataFreescan(args, bp) : 0;
  if (error < 0) return error;
  error = xfsDaShrinkInode(args, geo.leafblk, lbp, xfsDir3Leaf1BufOps);
  return error < 0 ? error : shrinkToSf(args, bp);
}

/** Converts the short form (kernel: `xfs_dir2_sf_to_block`). Entries go to the offsets
 * that they have had in it; 0 or a negative errno. */
export function xfsDir2SfToBlock(args: XfsDirArgs): number {
  const { tp, dp } = args;
  const sf = new SfReader(dp.df.local!);
  xfsBmapLocalToExtentsEmpty(tp, dp, F.XFS_DATA_FORK);
  tp.logInode(dp, XFS_ILOG_CORE);
  dp.diskSize = 0;
  const db = xfsDir2GrowInode(args, 0);
  if (db < 0) return db;
  const bp = xfsDir3DataInit(args, db);
  if (typeof bp === "number") return bp;
  bp.ops = xfsDir3BlockBufOps;
  bp.view.setUint32(F.DIR3_MAGIC, F.XFS_DIR3_BLOCK_MAGIC);
  setTail(args, bp, sf.count + 2, 0);
  const pairs: SfPair[] = [];
  let off = DATA_ENTRY_OFFSET;
  off = fillEntry(args, bp, pairs, off, dp.ino, DOT, F.XFS_DIR3_FT_DIR);
  off = fillEntry(args, bp, pairs, off, sf.parent, DOTDOT, F.XFS_DIR3_FT_DIR);
  while (sf.next()) {
    if (off < sf.offset) putUnusedPiece(args, bp, off, sf.offset - off);
    off = sf.offset;
    off = fillEntry(args, bp, pairs, off, sf.ino, sf.name(), sf.ftype);
  }
  const end = blockLeafAt(bp);
  if (off < end) putUnusedPiece(args, bp, off, end - off);
  pairs.sort((a, b) => a.hash - b.hash);
  pairs.forEach((pair, i) => putPair(bp, i, pair.hash, pair.off / 8));
  logPairs(args, bp, 0, pairs.length);
  return xfsDir2DataFreescan(args, bp);
}

interface SfPair {
  hash: number;
  off: number;
}

/** Puts one entry into the new block; where the next one begins. */
function fillEntry(
  args: XfsDirArgs,
  bp: XfsBuf,
  pairs: SfPair[],
  off: number,
  ino: number,
  name: Uint8Array,
  ftype: number,
): number {
  putEntry(args, bp, off, ino, name, ftype);
  pairs.push({ hash: xfsDaHashname(name), off });
  return off + xfsDir2DataEntsize(name.length);
}
