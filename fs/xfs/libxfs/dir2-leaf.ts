/**
 * Directories with one leaf: data blocks, and one block with the hashes of all names
 * and, at its end, the longest free space ("best") of each data block.
 *
 * A removed name leaves a stale entry in the leaf, with its hash and no address, which
 * the next name that comes near uses again. The functions for the entries of a leaf
 * serve the node form as well.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_dir2_leaf.c.
 *
 * @module
 */

import { EEXIST, ENOENT, ENOSPC } from "../../../lib/errno.ts";
import { xfsBmapLastBefore, xfsBmapLastOffset } from "./bmap.ts";
import type { BufTarg, XfsBuf, XfsBufOps } from "./buf.ts";
import {
  daCorrupt,
  daCount,
  daInitHeader,
  XFS_DA_OP_JUSTCHECK,
  xfsDa3BlkinfoVerify,
  xfsDa3NodeRead,
  xfsDaGetBuf,
  xfsDaGrowInode,
  type XfsDaState,
} from "./da-btree.ts";
import { blockToData, xfsDir2LeafToBlock } from "./dir2-block.ts";
import {
  bestLength,
  bestOffset,
  BLOCK_TAIL_SIZE,
  blockLeafAt,
  DATA_ENTRY_OFFSET,
  entryFtype,
  entryIno,
  replaceEntry,
  xfsDir2DataAddEntry,
  xfsDir2DataEntsize,
  xfsDir2DataMatch,
  xfsDir2DataRemoveEntry,
  xfsDir3DataInit,
  xfsDir3DataRead,
} from "./dir2-data.ts";
import {
  dirFreeBest,
  dirFreeNvalid,
  xfsDir2FreeRead,
  xfsDir2LeafToNode,
  xfsDir2NodeAddname,
  xfsDir2NodeTrimFree,
} from "./dir2-node.ts";
import {
  dataptrToDb,
  dataptrToOff,
  dbOffToDataptr,
  LEAF_ENTRY_SIZE,
  NULLDATAOFF,
  XFS_DIR2_NULL_DATAPTR,
  xfsDir2GrowInode,
  xfsDir2ShrinkInode,
  type XfsDirArgs,
} from "./dir2-priv.ts";
import * as F from "./format.ts";

/** Bytes of the tail of a leaf with bests: their number. */
const LEAF_TAIL_SIZE = 4;

// ---- entries of a leaf ----

/** Byte of entry `i`. */
export function leafEnt(i: number): number {
  return F.DA3_HDR_SIZE + i * LEAF_ENTRY_SIZE;
}

/** Hash of entry `i`. */
export function leafHash(bp: XfsBuf, i: number): number {
  return bp.view.getUint32(leafEnt(i));
}

/** Place of entry `i`'s name; 0 if it is stale. */
export function leafAddress(bp: XfsBuf, i: number): number {
  return bp.view.getUint32(leafEnt(i) + 4);
}

/** Entries without a name. */
export function leafStale(bp: XfsBuf): number {
  return bp.view.getUint16(F.DIR3_LEAF_STALE);
}

/** Entries with a name. */
export function leafLive(bp: XfsBuf): number {
  return daCount(bp) - leafStale(bp);
}

/** Last hash; 0 if there is no entry (kernel: `xfs_dir2_leaf_lasthash`). */
export function leafLasthash(bp: XfsBuf): number {
  const count = daCount(bp);
  return count === 0 ? 0 : leafHash(bp, count - 1);
}

/** Sets the counts, and logs them. */
export function leafSetCounts(
  args: XfsDirArgs,
  bp: XfsBuf,
  count: number,
  stale: number,
): void {
  bp.view.setUint16(F.DA3_COUNT, count);
  bp.view.setUint16(F.DIR3_LEAF_STALE, stale);
  args.tp.logBuf(bp, 0, F.DA3_HDR_SIZE - 1);
}

/** Logs entries `first` up to, not including, `end` (kernel:
 * `xfs_dir3_leaf_log_ents`). */
export function leafLogEnts(
  args: XfsDirArgs,
  bp: XfsBuf,
  first: number,
  end: number,
): void {
  if (first < end) args.tp.logBuf(bp, leafEnt(first), leafEnt(end) - 1);
}

/**
 * First entry whose hash is not below the one wanted: where equal ones begin, or where
 * it belongs (kernel: `xfs_dir2_leaf_search_hash`).
 *
 * @param at Byte of the first entry: the block form has the same, elsewhere.
 */
export function searchHash(
  bp: XfsBuf,
  at: number,
  count: number,
  hashval: number,
): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const mid = (low + high) >>> 1;
    const hash = bp.view.getUint32(at + mid * LEAF_ENTRY_SIZE);
    if (hash < hashval) low = mid + 1;
    else high = mid;
  }
  return low;
}

/** The same, in a leaf. */
export function leafSearchHash(bp: XfsBuf, hashval: number): number {
  return searchHash(bp, leafEnt(0), daCount(bp), hashval);
}

// ---- stale entries ----

/** The stale entry that is nearest to a place; one there or after it if two are (kernel:
 * `xfs_dir3_leaf_find_stale`, and the choice that follows it). */
function nearestStale(bp: XfsBuf, index: number): number {
  const count = daCount(bp);
  let low = index - 1;
  while (low >= 0 && leafAddress(bp, low) !== XFS_DIR2_NULL_DATAPTR) low--;
  for (let high = index; high < count; high++) {
    if (low >= 0 && index - low <= high - index) return low;
    if (leafAddress(bp, high) === XFS_DIR2_NULL_DATAPTR) {
      return low >= 0 && index - low - 1 < high - index ? low : high;
    }
  }
  return low;
}

/** Removes stale entries but `keep`, -1 for none; the counts are set and logged (kernel:
 * `xfs_dir3_leaf_compact`). */
function compactBut(args: XfsDirArgs, bp: XfsBuf, keep: number): void {
  const count = daCount(bp);
  let to = 0;
  let first = count;
  for (let from = 0; from < count; from++) {
    const stale = leafAddress(bp, from) === XFS_DIR2_NULL_DATAPTR;
    if (stale && from !== keep) {
      first = Math.min(first, to);
      continue;
    }
    if (from > to) {
      bp.view.setUint32(leafEnt(to), leafHash(bp, from));
      bp.view.setUint32(leafEnt(to) + 4, leafAddress(bp, from));
    }
    to++;
  }
  leafSetCounts(args, bp, to, keep < 0 ? 0 : 1);
  leafLogEnts(args, bp, first, to);
}

/** Removes all stale entries (kernel: `xfs_dir3_leaf_compact`). */
export function xfsDir3LeafCompact(args: XfsDirArgs, bp: XfsBuf): void {
  if (leafStale(bp) > 0) compactBut(args, bp, -1);
}

/** Removes all stale entries but the one nearest to a place (kernel:
 * `xfs_dir3_leaf_compact_x1`); answers where the place is now. */
function compactX1(args: XfsDirArgs, bp: XfsBuf, index: number): number {
  const keep = nearestStale(bp, index);
  let now = index;
  for (let i = 0; i < index; i++) {
    if (i !== keep && leafAddress(bp, i) === XFS_DIR2_NULL_DATAPTR) now--;
  }
  compactBut(args, bp, keep);
  return now;
}

/**
 * Puts an entry in (kernel: `xfs_dir3_leaf_find_entry`). There is room, or a stale entry
 * to use.
 *
 * @param index Entry to put it before.
 * @param compact Only removing stale entries makes room.
 */
export function leafInsert(
  args: XfsDirArgs,
  bp: XfsBuf,
  index: number,
  compact: boolean,
  address: number,
): void {
  if (compact) index = compactX1(args, bp, index);
  const count = daCount(bp);
  const stale = leafStale(bp);
  let first = index;
  let end = count + 1;
  if (stale === 0) {
    bp.data.copyWithin(leafEnt(index + 1), leafEnt(index), leafEnt(count));
    leafSetCounts(args, bp, count + 1, 0);
  } else {
    const use = nearestStale(bp, index);
    if (use < index) {
      bp.data.copyWithin(leafEnt(use), leafEnt(use + 1), leafEnt(index));
      first = use;
      end = index;
      index--;
    } else {
      bp.data.copyWithin(leafEnt(index + 1), leafEnt(index), leafEnt(use));
      end = use + 1;
    }
    leafSetCounts(args, bp, count, stale - 1);
  }
  bp.view.setUint32(leafEnt(index), args.hashval);
  bp.view.setUint32(leafEnt(index) + 4, address);
  leafLogEnts(args, bp, first, end);
}

/** Makes an entry stale. */
export function leafMakeStale(
  args: XfsDirArgs,
  bp: XfsBuf,
  index: number,
): void {
  leafSetCounts(args, bp, daCount(bp), leafStale(bp) + 1);
  bp.view.setUint32(leafEnt(index) + 4, XFS_DIR2_NULL_DATAPTR);
  leafLogEnts(args, bp, index, index + 1);
}

// ---- bests ----

function bestcount(bp: XfsBuf): number {
  return bp.view.getUint32(bp.data.length - LEAF_TAIL_SIZE);
}

/** Byte of the first best. */
function bestsAt(bp: XfsBuf): number {
  return bp.data.length - LEAF_TAIL_SIZE - 2 * bestcount(bp);
}

function leafBest(bp: XfsBuf, db: number): number {
  return bp.view.getUint16(bestsAt(bp) + 2 * db);
}

function putLeafBest(
  args: XfsDirArgs,
  bp: XfsBuf,
  db: number,
  best: number,
): void {
  const at = bestsAt(bp) + 2 * db;
  bp.view.setUint16(at, best);
  args.tp.logBuf(bp, at, at + 1);
}

/** Lets there be `n` bests, adding or dropping the last ones, and logs them all. */
function resizeBests(args: XfsDirArgs, bp: XfsBuf, n: number): void {
  const tail = bp.data.length - LEAF_TAIL_SIZE;
  const kept = Math.min(n, bestcount(bp));
  bp.data.copyWithin(tail - 2 * n, bestsAt(bp), bestsAt(bp) + 2 * kept);
  bp.view.setUint32(tail, n);
  args.tp.logBuf(bp, tail - 2 * n, bp.data.length - 1);
}

// ---- blocks ----

/** Checks the entries of a leaf of either kind (kernel: `xfs_dir3_leaf_check_int`); null
 * or the check that failed. */
export function leafVerify(
  bp: XfsBuf,
  targ: BufTarg,
  magic: number,
): string | null {
  const why = xfsDa3BlkinfoVerify(bp, targ, magic);
  if (why !== null) return why;
  const count = daCount(bp);
  let end = bp.data.length;
  if (magic === F.XFS_DIR3_LEAF1_MAGIC) {
    if (bestcount(bp) > bp.data.length / 2) return `bests ${bestcount(bp)}`;
    end = bestsAt(bp);
  }
  if (leafEnt(count) > end) return `count ${count}`;
  let stale = 0;
  for (let i = 0; i < count; i++) {
    if (i > 0 && leafHash(bp, i - 1) > leafHash(bp, i)) {
      return `hash order at ${i}`;
    }
    if (leafAddress(bp, i) === XFS_DIR2_NULL_DATAPTR) stale++;
  }
  return leafStale(bp) === stale ? null : `stale ${leafStale(bp)}`;
}

/** Of the single leaf (kernel: `xfs_dir3_leaf1_buf_ops`). */
export const xfsDir3Leaf1BufOps: XfsBufOps = {
  name: "xfs_dir3_leaf1",
  crcOffset: F.DA3_CRC,
  verify: (bp, targ) => leafVerify(bp, targ, F.XFS_DIR3_LEAF1_MAGIC),
};

function leafRead(args: XfsDirArgs): XfsBuf | number {
  const { trans, dp, geo } = args;
  const ops = xfsDir3Leaf1BufOps;
  return xfsDa3NodeRead(trans, dp, geo.leafblk, F.XFS_DATA_FORK, ops);
}

/** Makes a leaf without entries (kernel: `xfs_dir3_leaf_get_buf`).
 * @param magic Of the single leaf, or of leaves of the node form. */
export function xfsDir3LeafGetBuf(
  args: XfsDirArgs,
  bno: number,
  magic: number,
  ops: XfsBufOps,
): XfsBuf | number {
  const { tp, dp } = args;
  const bp = xfsDaGetBuf(tp, dp, bno, F.XFS_DATA_FORK, ops);
  if (typeof bp === "number") return bp;
  daInitHeader(bp, dp.mount, dp.ino, magic);
  tp.logBuf(bp, 0, F.DA3_HDR_SIZE - 1);
  return bp;
}

/** Converts the block form: its hashes go to a leaf (kernel:
 * `xfs_dir2_block_to_leaf`); 0 or a negative errno. */
export function xfsDir2BlockToLeaf(args: XfsDirArgs, dbp: XfsBuf): number {
  const blkno = xfsDaGrowInode(args);
  if (blkno < 0) return blkno;
  const magic = F.XFS_DIR3_LEAF1_MAGIC;
  const lbp = xfsDir3LeafGetBuf(args, blkno, magic, xfsDir3Leaf1BufOps);
  if (typeof lbp === "number") return lbp;
  const from = blockLeafAt(dbp);
  const tail = dbp.data.length - BLOCK_TAIL_SIZE;
  const count = dbp.view.getUint32(tail);
  const stale = dbp.view.getUint32(tail + 4);
  lbp.data.set(dbp.data.subarray(from, tail), leafEnt(0));
  leafSetCounts(args, lbp, count, stale);
  leafLogEnts(args, lbp, 0, count);
  const error = blockToData(args, dbp);
  if (error < 0) return error;
  resizeBests(args, lbp, 1);
  putLeafBest(args, lbp, 0, bestLength(dbp, 0));
  return 0;
}

// ---- adding ----

/** First entry from `index` on that has the new name's hash, and is in a data block with
 * room: names of equal hash are best found together. If there is none, the entry after
 * all of that hash. */
function afterEqual(
  args: XfsDirArgs,
  lbp: XfsBuf,
  index: number,
  length: number,
): number {
  const n = bestcount(lbp);
  const count = daCount(lbp);
  for (; index < count && leafHash(lbp, index) === args.hashval; index++) {
    const address = leafAddress(lbp, index);
    if (address === XFS_DIR2_NULL_DATAPTR) continue;
    const db = dataptrToDb(args.geo, address);
    if (db >= n || leafBest(lbp, db) === NULLDATAOFF) continue;
    if (leafBest(lbp, db) >= length) break;
  }
  return index;
}

/** Data block to put the new name into; -1 for a new one, or one that is missing.
 * @param index From {@linkcode afterEqual}. */
function chooseBlock(
  args: XfsDirArgs,
  lbp: XfsBuf,
  index: number,
  length: number,
): number {
  if (index < daCount(lbp) && leafHash(lbp, index) === args.hashval) {
    return dataptrToDb(args.geo, leafAddress(lbp, index));
  }
  let use = -1;
  for (let db = 0; db < bestcount(lbp); db++) {
    const best = leafBest(lbp, db);
    if (best === NULLDATAOFF && use === -1) use = db;
    // A second missing block passes for one with room, and ends the search.
    else if (best >= length) return db;
  }
  return use;
}

/**
 * Adds the operation's name, which is not there (kernel: `xfs_dir2_leaf_addname`);
 * converts to the node form if the leaf is full.
 *
 * @returns 0; -ENOSPC if it would take new blocks and there are none to take; another
 *   negative errno.
 */
export function xfsDir2LeafAddname(args: XfsDirArgs): number {
  const lbp = leafRead(args);
  if (typeof lbp === "number") return lbp;
  const length = xfsDir2DataEntsize(args.name.length);
  const first = leafSearchHash(lbp, args.hashval);
  const index = afterEqual(args, lbp, first, length);
  let db = chooseBlock(args, lbp, index, length);
  const stale = leafStale(lbp);
  const needed = (stale === 0 ? LEAF_ENTRY_SIZE : 0) + (db === -1 ? 2 : 0);
  if (db !== -1 && leafBest(lbp, db) === NULLDATAOFF) db = -1;
  const full = bestsAt(lbp) - leafEnt(daCount(lbp)) < needed;
  const justcheck = (args.opFlags & XFS_DA_OP_JUSTCHECK) !== 0;
  if (full && stale <= 1) {
    if (justcheck || args.total === 0) return -ENOSPC;
    const error = xfsDir2LeafToNode(args, lbp);
    return error < 0 ? error : xfsDir2NodeAddname(args);
  }
  if (justcheck) return db === -1 ? -ENOSPC : 0;
  if (args.total === 0 && db === -1) return -ENOSPC;
  return addToBlock(args, lbp, db, index, full);
}

function addToBlock(
  args: XfsDirArgs,
  lbp: XfsBuf,
  db: number,
  index: number,
  compact: boolean,
): number {
  // The new best may need the bytes that compaction frees.
  const grow = db === -1;
  if (grow && compact) {
    index = compactX1(args, lbp, index);
    compact = false;
  }
  if (grow) db = growLeaf(args, lbp);
  if (db < 0) return db;
  const dbp = xfsDir3DataRead(args.trans, args.dp, db);
  if (typeof dbp === "number") return dbp;
  const off = bestOffset(dbp, 0);
  const error = xfsDir2DataAddEntry(args, dbp, off);
  if (error < 0) return error;
  const best = bestLength(dbp, 0);
  if (leafBest(lbp, db) !== best) putLeafBest(args, lbp, db, best);
  const address = dbOffToDataptr(args.geo, db, off);
  leafInsert(args, lbp, index, compact, address);
  return 0;
}

/** Adds a data block; its number or a negative errno. */
function growLeaf(args: XfsDirArgs, lbp: XfsBuf): number {
  const db = xfsDir2GrowInode(args, 0);
  if (db < 0) return db;
  const dbp = xfsDir3DataInit(args, db);
  if (typeof dbp === "number") return dbp;
  const n = bestcount(lbp);
  if (db > n) return daCorrupt(args.dp, args.geo.leafblk, `${n} bests`);
  if (db === n) resizeBests(args, lbp, n + 1);
  putLeafBest(args, lbp, db, bestLength(dbp, 0));
  return db;
}

// ---- looking up, replacing, removing ----

/** Where {@linkcode lookup} found the name; nothing waits while it is in use. */
const found = { index: 0, db: 0, off: 0, dbp: null as XfsBuf | null };

/** Finds the name (kernel: `xfs_dir2_leaf_lookup_int`); 0 with `found` filled in, or a
 * negative errno. */
function lookup(args: XfsDirArgs, lbp: XfsBuf): number {
  const { geo, hashval } = args;
  const count = daCount(lbp);
  let dbp: XfsBuf | null = null;
  let db = -1;
  let i = leafSearchHash(lbp, hashval);
  for (; i < count && leafHash(lbp, i) === hashval; i++) {
    const address = leafAddress(lbp, i);
    if (address === XFS_DIR2_NULL_DATAPTR) continue;
    if (dbp === null || dataptrToDb(geo, address) !== db) {
      db = dataptrToDb(geo, address);
      const bp = xfsDir3DataRead(args.trans, args.dp, db);
      if (typeof bp === "number") return bp;
      dbp = bp;
    }
    const off = dataptrToOff(geo, address);
    const match = xfsDir2DataMatch(args, dbp, off);
    if (match < 0) return match;
    if (match === 0) continue;
    found.index = i;
    found.db = db;
    found.off = off;
    found.dbp = dbp;
    return 0;
  }
  return -ENOENT;
}

/** Finds the operation's name and sets `inumber` and `filetype` (kernel:
 * `xfs_dir2_leaf_lookup`); -EEXIST, -ENOENT or another negative errno. */
export function xfsDir2LeafLookup(args: XfsDirArgs): number {
  const lbp = leafRead(args);
  if (typeof lbp === "number") return lbp;
  const error = lookup(args, lbp);
  if (error < 0) return error;
  args.inumber = entryIno(found.dbp!, found.off);
  args.filetype = entryFtype(found.dbp!, found.off);
  return -EEXIST;
}

/** Lets the name be of another inode (kernel: `xfs_dir2_leaf_replace`); 0, -ENOENT or
 * another negative errno. */
export function xfsDir2LeafReplace(args: XfsDirArgs): number {
  const lbp = leafRead(args);
  if (typeof lbp === "number") return lbp;
  const error = lookup(args, lbp);
  if (error < 0) return error;
  replaceEntry(args, found.dbp!, found.off);
  return 0;
}

/** Removes the name, an emptied data block with it, and converts to the block form if
 * that will do (kernel: `xfs_dir2_leaf_removename`); 0, -ENOENT or another negative
 * errno. */
export function xfsDir2LeafRemovename(args: XfsDirArgs): number {
  const lbp = leafRead(args);
  if (typeof lbp === "number") return lbp;
  let error = lookup(args, lbp);
  if (error < 0) return error;
  const { index, db, off } = found;
  const dbp = found.dbp!;
  const oldbest = bestLength(dbp, 0);
  if (db >= bestcount(lbp) || leafBest(lbp, db) !== oldbest) {
    return daCorrupt(args.dp, args.geo.leafblk, `best of data block ${db}`);
  }
  leafMakeStale(args, lbp, index);
  error = xfsDir2DataRemoveEntry(args, dbp, off);
  if (error < 0) return error;
  const best = bestLength(dbp, 0);
  if (best !== oldbest) putLeafBest(args, lbp, db, best);
  if (best === args.geo.blksize - DATA_ENTRY_OFFSET) {
    error = xfsDir2ShrinkInode(args, db, dbp);
    // It stays as an empty block where the map cannot be cut without a new block.
    if (error === -ENOSPC && args.total === 0) return 0;
    if (error < 0) return error;
    dropBest(args, lbp, db);
  }
  return xfsDir2LeafToBlock(args, lbp);
}

/** A data block has gone: it has no best any more, nor have missing ones at the end. */
function dropBest(args: XfsDirArgs, lbp: XfsBuf, db: number): void {
  if (db !== bestcount(lbp) - 1) {
    putLeafBest(args, lbp, db, NULLDATAOFF);
    return;
  }
  let last = db - 1;
  while (last > 0 && leafBest(lbp, last) === NULLDATAOFF) last--;
  resizeBests(args, lbp, last + 1);
}

/** Frees data blocks at the end that were left empty where none could be freed (kernel:
 * the beginning of `xfs_dir2_leaf_to_block`, and `xfs_dir2_leaf_trim_data`).
 * @returns 1 if only the first is left, 0 if not, or a negative errno. */
export function leafTrimData(args: XfsDirArgs, lbp: XfsBuf): number {
  const { dp, geo } = args;
  while (dp.diskSize > geo.blksize) {
    const db = bestcount(lbp) - 1;
    if (db <= 0) return daCorrupt(dp, geo.leafblk, "too few bests");
    if (leafBest(lbp, db) !== geo.blksize - DATA_ENTRY_OFFSET) return 0;
    const dbp = xfsDir3DataRead(args.trans, dp, db);
    if (typeof dbp === "number") return dbp;
    const error = xfsDir2ShrinkInode(args, db, dbp);
    if (error < 0) return error;
    dropBest(args, lbp, db);
  }
  return 1;
}

// ---- from the node form ----

/** Converts the node form when one leaf and the bests fit into one block, and on to the
 * block form if that will do (kernel: `xfs_dir2_node_to_leaf`); 0 or a negative errno. */
export function xfsDir2NodeToLeaf(state: XfsDaState<XfsDirArgs>): number {
  const { args, path } = state;
  const { trans, dp, geo } = args;
  if (path.active > 1 || !path.blk[0]!.leaf) return 0;
  let last = xfsBmapLastOffset(dp, F.XFS_DATA_FORK);
  if (last < 0) return last;
  // Empty blocks of the free index may have been left where none could be freed.
  for (last -= geo.fsbcount; last > geo.freeblk; last -= geo.fsbcount) {
    const trimmed = xfsDir2NodeTrimFree(args, last);
    if (trimmed <= 0) return trimmed;
  }
  last = xfsBmapLastBefore(trans, dp, last, F.XFS_DATA_FORK);
  if (last < 0) return last;
  if (last > geo.leafblk + geo.fsbcount) return 0;
  const fbp = xfsDir2FreeRead(args, geo.freeblk / geo.fsbcount);
  if (typeof fbp === "number") return fbp;
  const lbp = path.blk[0]!.bp!;
  const bests = dirFreeNvalid(fbp);
  const size = leafEnt(leafLive(lbp)) + 2 * bests + LEAF_TAIL_SIZE;
  if (size > geo.blksize) return 0;
  xfsDir3LeafCompact(args, lbp);
  lbp.ops = xfsDir3Leaf1BufOps;
  lbp.view.setUint16(F.DA3_MAGIC, F.XFS_DIR3_LEAF1_MAGIC);
  leafSetCounts(args, lbp, daCount(lbp), 0);
  lbp.view.setUint32(geo.blksize - LEAF_TAIL_SIZE, 0);
  resizeBests(args, lbp, bests);
  for (let db = 0; db < bests; db++) {
    putLeafBest(args, lbp, db, dirFreeBest(fbp, db));
  }
  const error = xfsDir2ShrinkInode(args, geo.freeblk / geo.fsbcount, fbp);
  return error < 0 ? error : xfsDir2LeafToBlock(args, lbp);
}

/** Number and place of the bests, for the conversion to the node form. */
export function leafBests(lbp: XfsBuf): Uint8Array {
  const tail = lbp.data.length - LEAF_TAIL_SIZE;
  return lbp.data.subarray(bestsAt(lbp), tail);
}
