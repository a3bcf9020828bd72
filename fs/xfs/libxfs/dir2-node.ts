/**
 * Directories with a tree of hashes: leaves under nodes, and a free index, blocks that
 * hold the longest free space ("best") of each data block.
 *
 * A look-up for a new name brings the free-index block of a name with the same hash, a
 * look-up for anything else the data block of the name: `extrablk`.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_dir2_node.c.
 *
 * @module
 */

import { EEXIST, ENOENT, ENOSPC } from "../../../lib/errno.ts";
import { xfsBmapLastOffset } from "./bmap.ts";
import type { BufTarg, XfsBuf, XfsBufOps } from "./buf.ts";
import {
  daChooseNeighbour,
  daCorrupt,
  daCount,
  type DaLeafOps,
  daNodeBufOps,
  daOrder,
  type DaStateBlk,
  XFS_DA_OP_ADDNAME,
  XFS_DA_OP_JUSTCHECK,
  xfsDa3BlkLink,
  xfsDa3Fixhashpath,
  xfsDa3Join,
  xfsDa3NodeLookupInt,
  xfsDa3Split,
  xfsDaGetBuf,
  xfsDaGrowInode,
  XfsDaState,
  xfsDaTryReadBuf,
} from "./da-btree.ts";
import {
  bestLength,
  bestOffset,
  DATA_ENTRY_OFFSET,
  dir3BlkInit,
  dir3BlkOwned,
  dir3BlkVerify,
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
  leafAddress,
  leafBests,
  leafEnt,
  leafHash,
  leafInsert,
  leafLasthash,
  leafLive,
  leafLogEnts,
  leafMakeStale,
  leafSearchHash,
  leafSetCounts,
  leafStale,
  leafVerify,
  xfsDir2NodeToLeaf,
  xfsDir3LeafCompact,
  xfsDir3LeafGetBuf,
} from "./dir2-leaf.ts";
import {
  dataptrToDb,
  dataptrToOff,
  dbOffToDataptr,
  dbToDa,
  LEAF_ENTRY_SIZE,
  NULLDATAOFF,
  XFS_DIR2_NULL_DATAPTR,
  xfsDir2GrowInode,
  xfsDir2ShrinkInode,
  type XfsDirArgs,
} from "./dir2-priv.ts";
import * as F from "./format.ts";

type DirState = XfsDaState<XfsDirArgs>;

// ---- the free index ----

/** Slots of a free-index block that count. */
export function dirFreeNvalid(bp: XfsBuf): number {
  return bp.view.getUint32(F.DIR3_FREE_NVALID);
}

function freeNused(bp: XfsBuf): number {
  return bp.view.getUint32(F.DIR3_FREE_NUSED);
}

function freeFirstdb(bp: XfsBuf): number {
  return bp.view.getUint32(F.DIR3_FREE_FIRSTDB);
}

/** Best of a slot; `NULLDATAOFF` if the data block does not exist. */
export function dirFreeBest(bp: XfsBuf, i: number): number {
  return bp.view.getUint16(F.DIR3_FREE_HDR_SIZE + 2 * i);
}

function putFreeBest(
  args: XfsDirArgs,
  bp: XfsBuf,
  i: number,
  best: number,
): void {
  const at = F.DIR3_FREE_HDR_SIZE + 2 * i;
  bp.view.setUint16(at, best);
  args.tp.logBuf(bp, at, at + 1);
}

function setFreeCounts(
  args: XfsDirArgs,
  bp: XfsBuf,
  nvalid: number,
  nused: number,
): void {
  bp.view.setUint32(F.DIR3_FREE_NVALID, nvalid);
  bp.view.setUint32(F.DIR3_FREE_NUSED, nused);
  args.tp.logBuf(bp, 0, F.DIR3_FREE_HDR_SIZE - 1);
}

/** Directory block of the free index that covers a data block (kernel:
 * `xfs_dir2_db_to_fdb`). */
function dbToFdb(args: XfsDirArgs, db: number): number {
  const { geo } = args;
  return geo.freeblk / geo.fsbcount + Math.floor(db / geo.freeMaxBests);
}

/** First data block that a block of the free index covers. */
function fdbToFirstdb(args: XfsDirArgs, fdb: number): number {
  const { geo } = args;
  return (fdb - geo.freeblk / geo.fsbcount) * geo.freeMaxBests;
}

function freeVerify(bp: XfsBuf, targ: BufTarg): string | null {
  const why = dir3BlkVerify(bp, targ, F.XFS_DIR3_FREE_MAGIC);
  if (why !== null) return why;
  const most = (bp.data.length - F.DIR3_FREE_HDR_SIZE) / 2;
  const nvalid = dirFreeNvalid(bp);
  if (freeFirstdb(bp) % most !== 0) return `firstdb ${freeFirstdb(bp)}`;
  if (nvalid > most) return `nvalid ${nvalid}`;
  return freeNused(bp) > nvalid ? `nused ${freeNused(bp)}` : null;
}

/** Of the free index (kernel: `xfs_dir3_free_buf_ops`). */
export const xfsDir3FreeBufOps: XfsBufOps = {
  name: "xfs_dir3_free",
  crcOffset: F.DIR3_CRC,
  verify: freeVerify,
};

/** Reads a block of the free index (kernel: `xfs_dir2_free_try_read`).
 * @param fdb Its number in directory blocks.
 * @returns It; 0 if it does not exist; a negative errno. */
function freeTryRead(args: XfsDirArgs, fdb: number): XfsBuf | number {
  const { trans, dp, geo } = args;
  const bno = dbToDa(geo, fdb);
  const ops = xfsDir3FreeBufOps;
  const read = xfsDaTryReadBuf(trans, dp, bno, F.XFS_DATA_FORK, ops);
  const bp = dir3BlkOwned(read, dp, bno);
  if (typeof bp === "number") return bp;
  const firstdb = freeFirstdb(bp);
  if (firstdb === fdbToFirstdb(args, fdb)) return bp;
  return daCorrupt(dp, bno, `firstdb ${firstdb}`);
}

/** Reads a block of the free index that must exist (kernel: `xfs_dir2_free_read`); it or
 * a negative errno. */
export function xfsDir2FreeRead(
  args: XfsDirArgs,
  fdb: number,
): XfsBuf | number {
  const bp = freeTryRead(args, fdb);
  if (bp !== 0) return bp;
  return daCorrupt(args.dp, dbToDa(args.geo, fdb), "no free index");
}

/** Makes a block of the free index, without slots (kernel:
 * `xfs_dir3_free_get_buf`). */
function freeGetBuf(args: XfsDirArgs, fdb: number): XfsBuf | number {
  const { tp, dp, geo } = args;
  const bno = dbToDa(geo, fdb);
  const bp = xfsDaGetBuf(tp, dp, bno, F.XFS_DATA_FORK, xfsDir3FreeBufOps);
  if (typeof bp === "number") return bp;
  dir3BlkInit(bp, dp, F.XFS_DIR3_FREE_MAGIC);
  bp.view.setUint32(F.DIR3_FREE_FIRSTDB, fdbToFirstdb(args, fdb));
  tp.logBuf(bp, 0, F.DIR3_FREE_HDR_SIZE - 1);
  return bp;
}

/** Frees the last block of the free index if it is empty (kernel:
 * `xfs_dir2_node_trim_free`); 1 if it was, 0 if not, or a negative errno.
 * @param bno Its first file block. */
export function xfsDir2NodeTrimFree(args: XfsDirArgs, bno: number): number {
  const fdb = bno / args.geo.fsbcount;
  const bp = freeTryRead(args, fdb);
  if (typeof bp === "number") return bp;
  if (freeNused(bp) > 0) return 0;
  const error = xfsDir2ShrinkInode(args, fdb, bp);
  return error < 0 ? error : 1;
}

// ---- leaves of the tree ----

const leafnBufOps: XfsBufOps = daNodeBufOps((bp, targ) =>
  leafVerify(bp, targ, F.XFS_DIR3_LEAFN_MAGIC)
);

function lookupInt(blk: DaStateBlk, state: DirState): number {
  const { args } = state;
  if (daCount(blk.bp!) === 0) return daCorrupt(args.dp, blk.blkno, "is empty");
  return (args.opFlags & XFS_DA_OP_ADDNAME) !== 0
    ? lookupForAddname(blk, state)
    : lookupForEntry(blk, state);
}

/** Looks for a data block with room that has a name of the same hash (kernel:
 * `xfs_dir2_leafn_lookup_for_addname`). */
function lookupForAddname(blk: DaStateBlk, state: DirState): number {
  const { args, extrablk } = state;
  const { geo, hashval } = args;
  const bp = blk.bp!;
  const count = daCount(bp);
  const length = xfsDir2DataEntsize(args.name.length);
  let fbp = state.extravalid ? extrablk.bp : null;
  let fdb = state.extravalid ? extrablk.blkno : -1;
  let place = -1;
  let last = -1;
  let i = leafSearchHash(bp, hashval);
  for (; i < count && leafHash(bp, i) === hashval; i++) {
    const address = leafAddress(bp, i);
    if (address === XFS_DIR2_NULL_DATAPTR) continue;
    const db = dataptrToDb(geo, address);
    if (db === last) continue;
    last = db;
    if (dbToFdb(args, db) !== fdb) {
      fdb = dbToFdb(args, db);
      const read = xfsDir2FreeRead(args, fdb);
      if (typeof read === "number") return read;
      fbp = read;
    }
    const slot = db % geo.freeMaxBests;
    const best = slot < dirFreeNvalid(fbp!)
      ? dirFreeBest(fbp!, slot)
      : NULLDATAOFF;
    if (best === NULLDATAOFF) {
      return daCorrupt(args.dp, blk.blkno, `name in missing block ${db}`);
    }
    if (best >= length) {
      place = slot;
      break;
    }
  }
  state.extravalid = fbp !== null;
  extrablk.bp = fbp;
  extrablk.blkno = fdb;
  extrablk.index = place;
  blk.index = i;
  return -ENOENT;
}

/** Finds the name and its data block (kernel: `xfs_dir2_leafn_lookup_for_entry`). */
function lookupForEntry(blk: DaStateBlk, state: DirState): number {
  const { args, extrablk } = state;
  const { geo, hashval } = args;
  const bp = blk.bp!;
  const count = daCount(bp);
  let i = leafSearchHash(bp, hashval);
  for (; i < count && leafHash(bp, i) === hashval; i++) {
    const address = leafAddress(bp, i);
    if (address === XFS_DIR2_NULL_DATAPTR) continue;
    const db = dataptrToDb(geo, address);
    if (!state.extravalid || extrablk.blkno !== db) {
      const dbp = xfsDir3DataRead(args.trans, args.dp, db);
      if (typeof dbp === "number") return dbp;
      state.extravalid = true;
      extrablk.bp = dbp;
      extrablk.blkno = db;
    }
    const off = dataptrToOff(geo, address);
    const match = xfsDir2DataMatch(args, extrablk.bp!, off);
    if (match < 0) return match;
    if (match === 0) continue;
    extrablk.index = off;
    blk.index = i;
    return -EEXIST;
  }
  blk.index = i;
  return -ENOENT;
}

/** Adds the hash of the name at (`args.blkno`, `args.index`) (kernel:
 * `xfs_dir2_leafn_add`); 0, or -ENOSPC if the leaf is full. */
function leafnAdd(args: XfsDirArgs, bp: XfsBuf, index: number): number {
  const full = daCount(bp) === args.geo.leafMaxEnts;
  if (full && leafStale(bp) === 0) return -ENOSPC;
  if ((args.opFlags & XFS_DA_OP_JUSTCHECK) !== 0) return 0;
  const address = dbOffToDataptr(args.geo, args.blkno, args.index);
  leafInsert(args, bp, index, full && leafStale(bp) > 1, address);
  return 0;
}

/** Moves entries from one leaf to another (kernel: `xfs_dir3_leafn_moveents`). */
function moveEnts(
  args: XfsDirArgs,
  from: XfsBuf,
  start: number,
  to: XfsBuf,
  at: number,
  n: number,
): void {
  if (n === 0) return;
  const fromCount = daCount(from);
  const toCount = daCount(to);
  let stale = 0;
  for (let i = start; i < start + n; i++) {
    if (leafAddress(from, i) === XFS_DIR2_NULL_DATAPTR) stale++;
  }
  to.data.copyWithin(leafEnt(at + n), leafEnt(at), leafEnt(toCount));
  const moved = from.data.subarray(leafEnt(start), leafEnt(start + n));
  to.data.set(moved, leafEnt(at));
  from.data.copyWithin(leafEnt(start), leafEnt(start + n), leafEnt(fromCount));
  leafSetCounts(args, to, toCount + n, leafStale(to) + stale);
  leafSetCounts(args, from, fromCount - n, leafStale(from) - stale);
  leafLogEnts(args, to, at, toCount + n);
  leafLogEnts(args, from, start, fromCount - n);
}

/** Splits a full leaf in two halves and adds the new name's hash (kernel:
 * `xfs_dir2_leafn_split`, `xfs_dir2_leafn_rebalance`). */
function leafnSplit(
  state: DirState,
  oldblk: DaStateBlk,
  newblk: DaStateBlk,
): number {
  const { args } = state;
  const blkno = xfsDaGrowInode(args);
  if (blkno < 0) return blkno;
  const magic = F.XFS_DIR3_LEAFN_MAGIC;
  const to = xfsDir3LeafGetBuf(args, blkno, magic, leafnBufOps);
  if (typeof to === "number") return to;
  newblk.blkno = blkno;
  newblk.bp = to;
  newblk.leaf = true;
  const from = oldblk.bp!;
  // Full, so an even number.
  const half = daCount(from) >>> 1;
  moveEnts(args, from, half, to, 0, half);
  state.inleaf = oldblk.index <= half;
  newblk.index = oldblk.index - half;
  let error = xfsDa3BlkLink(state, oldblk, newblk);
  if (error < 0) return error;
  error = state.inleaf
    ? leafnAdd(args, from, oldblk.index)
    : leafnAdd(args, to, newblk.index);
  oldblk.hashval = leafLasthash(from);
  newblk.hashval = leafLasthash(to);
  return error;
}

/** Whether a leaf is less than half full and can be joined (kernel:
 * `xfs_dir2_leafn_toosmall`). An empty leaf stays, as with the kernel. */
function leafnToosmall(state: DirState): number {
  const { args, path } = state;
  const bp = path.last.bp!;
  const live = leafLive(bp);
  if (leafEnt(live) > args.geo.blksize >>> 1) return 0;
  return live === 0 ? 0 : daChooseNeighbour(state);
}

/** Whether two leaves fit into one with a quarter to spare. */
function leafnFits(args: XfsDirArgs, leaf: XfsBuf, other: XfsBuf): boolean {
  const { blksize } = args.geo;
  const bytes = (leafLive(leaf) + leafLive(other)) * LEAF_ENTRY_SIZE;
  return bytes <= blksize - (blksize >>> 2);
}

/** Kernel: `xfs_dir2_leafn_unbalance`. */
function leafnUnbalance(
  state: DirState,
  drop: DaStateBlk,
  save: DaStateBlk,
): void {
  const { args } = state;
  const from = drop.bp!;
  const to = save.bp!;
  xfsDir3LeafCompact(args, from);
  xfsDir3LeafCompact(args, to);
  drop.hashval = leafLasthash(from);
  const at = daOrder(dirLeafOps, to, from) ? 0 : daCount(to);
  moveEnts(args, from, 0, to, at, daCount(from));
  save.hashval = leafLasthash(to);
}

/** Leaves of a directory's tree. */
export const dirLeafOps: DaLeafOps<XfsDirArgs> = {
  bufOps: leafnBufOps,
  lookupInt,
  firsthash: (bp) => leafHash(bp, 0),
  lasthash: leafLasthash,
  split: leafnSplit,
  toosmall: leafnToosmall,
  fits: leafnFits,
  unbalance: leafnUnbalance,
};

// ---- from the leaf form ----

/** Converts the leaf form: the bests go to a block of the free index (kernel:
 * `xfs_dir2_leaf_to_node`); 0 or a negative errno. */
export function xfsDir2LeafToNode(args: XfsDirArgs, lbp: XfsBuf): number {
  const fdb = xfsDir2GrowInode(args, args.geo.freeblk);
  if (fdb < 0) return fdb;
  const fbp = freeGetBuf(args, fdb);
  if (typeof fbp === "number") return fbp;
  const bests = leafBests(lbp);
  const n = bests.length / 2;
  if (n > args.geo.freeMaxBests) {
    return daCorrupt(args.dp, args.geo.leafblk, `${n} bests`);
  }
  fbp.data.set(bests, F.DIR3_FREE_HDR_SIZE);
  let used = 0;
  for (let i = 0; i < n; i++) {
    if (dirFreeBest(fbp, i) !== NULLDATAOFF) used++;
  }
  setFreeCounts(args, fbp, n, used);
  args.tp.logBuf(fbp, 0, F.DIR3_FREE_HDR_SIZE + 2 * n - 1);
  lbp.view.setUint16(F.DA3_MAGIC, F.XFS_DIR3_LEAFN_MAGIC);
  lbp.ops = leafnBufOps;
  leafSetCounts(args, lbp, daCount(lbp), leafStale(lbp));
  return 0;
}

// ---- adding ----

/** Where {@linkcode findFreeblk} found space; nothing waits while it is in use. */
const space = { db: -1, slot: 0, fbp: null as XfsBuf | null };

/** Looks for a data block with room, in that of a name with the same hash, else from the
 * end of the free index on backwards (kernel: `xfs_dir2_node_find_freeblk`); 0 with
 * `space` filled in, its `db` -1 if there is none, or a negative errno. */
function findFreeblk(state: DirState, length: number): number {
  const { args, extrablk } = state;
  space.db = -1;
  let tried = -1;
  if (state.extravalid) {
    if (extrablk.index >= 0) {
      space.fbp = extrablk.bp;
      space.slot = extrablk.index;
      space.db = freeFirstdb(extrablk.bp!) + extrablk.index;
      return 0;
    }
    // As with the kernel, all that this block covers is passed over.
    tried = extrablk.blkno;
  }
  const { geo } = args;
  const last = xfsBmapLastOffset(args.dp, F.XFS_DATA_FORK);
  if (last < 0) return last;
  const first = geo.freeblk / geo.fsbcount;
  const end = Math.floor(last / geo.fsbcount);
  for (let fdb = end - 1; fdb >= first && space.db < 0; fdb--) {
    if (fdb === tried) continue;
    const fbp = freeTryRead(args, fdb);
    if (fbp === 0) continue;
    if (typeof fbp === "number") return fbp;
    searchBests(fbp, length);
  }
  return 0;
}

function searchBests(fbp: XfsBuf, length: number): void {
  for (let i = dirFreeNvalid(fbp) - 1; i >= 0; i--) {
    const best = dirFreeBest(fbp, i);
    if (best < length || best === NULLDATAOFF) continue;
    space.fbp = fbp;
    space.slot = i;
    space.db = freeFirstdb(fbp) + i;
    return;
  }
}

/** Adds a data block and its slot of the free index (kernel:
 * `xfs_dir2_node_add_datablk`); it with `space` filled in, or a negative errno. */
function addDatablk(args: XfsDirArgs): XfsBuf | number {
  if (args.total === 0) return -ENOSPC;
  const db = xfsDir2GrowInode(args, 0);
  if (db < 0) return db;
  const dbp = xfsDir3DataInit(args, db);
  if (typeof dbp === "number") return dbp;
  const fdb = dbToFdb(args, db);
  let fbp = freeTryRead(args, fdb);
  if (fbp === 0) {
    const got = xfsDir2GrowInode(args, args.geo.freeblk);
    if (got < 0) return got;
    if (got !== fdb) {
      return daCorrupt(args.dp, dbToDa(args.geo, got), `not ${fdb}`);
    }
    fbp = freeGetBuf(args, fdb);
  }
  if (typeof fbp === "number") return fbp;
  const slot = db % args.geo.freeMaxBests;
  const nvalid = dirFreeNvalid(fbp);
  // Slots between are of blocks that do not exist.
  for (let i = nvalid; i < slot; i++) putFreeBest(args, fbp, i, NULLDATAOFF);
  const isNew = slot >= nvalid || dirFreeBest(fbp, slot) === NULLDATAOFF;
  const nused = freeNused(fbp) + (isNew ? 1 : 0);
  setFreeCounts(args, fbp, Math.max(nvalid, slot + 1), nused);
  putFreeBest(args, fbp, slot, bestLength(dbp, 0));
  space.db = db;
  space.slot = slot;
  space.fbp = fbp;
  return dbp;
}

/** Adds the data entry (kernel: `xfs_dir2_node_addname_int`); 0 with its place in `args`,
 * or a negative errno. */
function addnameInt(state: DirState): number {
  const { args } = state;
  const length = xfsDir2DataEntsize(args.name.length);
  const error = findFreeblk(state, length);
  if (error < 0) return error;
  if ((args.opFlags & XFS_DA_OP_JUSTCHECK) !== 0) {
    return space.db < 0 ? -ENOSPC : 0;
  }
  const dbp = space.db < 0
    ? addDatablk(args)
    : xfsDir3DataRead(args.trans, args.dp, space.db);
  if (typeof dbp === "number") return dbp;
  return addToBlock(args, dbp, space.db, space.fbp!, space.slot);
}

function addToBlock(
  args: XfsDirArgs,
  dbp: XfsBuf,
  db: number,
  fbp: XfsBuf,
  slot: number,
): number {
  const off = bestOffset(dbp, 0);
  const error = xfsDir2DataAddEntry(args, dbp, off);
  if (error < 0) return error;
  const best = bestLength(dbp, 0);
  if (dirFreeBest(fbp, slot) !== best) putFreeBest(args, fbp, slot, best);
  args.blkno = db;
  args.index = off;
  return 0;
}

/**
 * Adds the operation's name, which is not there (kernel: `xfs_dir2_node_addname`).
 *
 * @returns 0; -EEXIST; -ENOSPC if it would take new blocks and there are none to take;
 *   another negative errno.
 */
export function xfsDir2NodeAddname(args: XfsDirArgs): number {
  const state = new XfsDaState(args, dirLeafOps);
  let error = xfsDa3NodeLookupInt(state);
  if (error !== -ENOENT) return error;
  error = addnameInt(state);
  if (error < 0) return error;
  const blk = state.path.last;
  error = leafnAdd(args, blk.bp!, blk.index);
  if (error === -ENOSPC) {
    return args.total === 0 ? -ENOSPC : xfsDa3Split(state);
  }
  if ((args.opFlags & XFS_DA_OP_JUSTCHECK) === 0) {
    xfsDa3Fixhashpath(state, state.path);
  }
  return 0;
}

// ---- looking up, replacing, removing ----

/** Finds the operation's name and sets `inumber` and `filetype` (kernel:
 * `xfs_dir2_node_lookup`); -EEXIST, -ENOENT or another negative errno. */
export function xfsDir2NodeLookup(args: XfsDirArgs): number {
  const state = new XfsDaState(args, dirLeafOps);
  const ret = xfsDa3NodeLookupInt(state);
  if (ret !== -EEXIST) return ret;
  const { bp, index } = state.extrablk;
  args.inumber = entryIno(bp!, index);
  args.filetype = entryFtype(bp!, index);
  return ret;
}

/** Lets the name be of another inode (kernel: `xfs_dir2_node_replace`); 0, -ENOENT or
 * another negative errno. */
export function xfsDir2NodeReplace(args: XfsDirArgs): number {
  const state = new XfsDaState(args, dirLeafOps);
  const ret = xfsDa3NodeLookupInt(state);
  if (ret !== -EEXIST) return ret;
  replaceEntry(args, state.extrablk.bp!, state.extrablk.index);
  return 0;
}

/** Removes the name, joins leaves, and converts to the leaf form if that will do
 * (kernel: `xfs_dir2_node_removename`); 0, -ENOENT or another negative errno. */
export function xfsDir2NodeRemovename(args: XfsDirArgs): number {
  const state = new XfsDaState(args, dirLeafOps);
  const ret = xfsDa3NodeLookupInt(state);
  if (ret !== -EEXIST) return ret;
  const { bp, index } = state.path.last;
  let error = removeData(args, state.extrablk);
  if (error < 0) return error;
  leafMakeStale(args, bp!, index);
  xfsDa3Fixhashpath(state, state.path);
  const small = leafEnt(leafLive(bp!)) < args.geo.magicpct;
  if (small && state.path.active > 1) {
    error = xfsDa3Join(state);
    if (error < 0) return error;
  }
  return xfsDir2NodeToLeaf(state);
}

/** Removes the data entry, an emptied data block with it (kernel:
 * `xfs_dir2_leafn_remove`); 0 or a negative errno. */
function removeData(args: XfsDirArgs, dblk: DaStateBlk): number {
  const dbp = dblk.bp!;
  const db = dblk.blkno;
  const oldbest = bestLength(dbp, 0);
  const error = xfsDir2DataRemoveEntry(args, dbp, dblk.index);
  if (error < 0) return error;
  const best = bestLength(dbp, 0);
  if (best <= oldbest) return 0;
  const fdb = dbToFdb(args, db);
  const fbp = xfsDir2FreeRead(args, fdb);
  if (typeof fbp === "number") return fbp;
  const slot = db % args.geo.freeMaxBests;
  if (slot >= dirFreeNvalid(fbp) || dirFreeBest(fbp, slot) === NULLDATAOFF) {
    return daCorrupt(args.dp, dbToDa(args.geo, fdb), `no slot for ${db}`);
  }
  putFreeBest(args, fbp, slot, best);
  if (best < args.geo.blksize - DATA_ENTRY_OFFSET) return 0;
  const gone = xfsDir2ShrinkInode(args, db, dbp);
  // It stays as an empty block where the map cannot be cut without a new block.
  if (gone === -ENOSPC && args.total === 0) return 0;
  return gone < 0 ? gone : dropSlot(args, fbp, fdb, slot);
}

/** A data block has gone: so does its slot, and a block of the free index that is left
 * without any (kernel: `xfs_dir3_data_block_free`). */
function dropSlot(
  args: XfsDirArgs,
  fbp: XfsBuf,
  fdb: number,
  slot: number,
): number {
  let nvalid = dirFreeNvalid(fbp);
  putFreeBest(args, fbp, slot, NULLDATAOFF);
  if (slot === nvalid - 1) {
    while (nvalid > 0 && dirFreeBest(fbp, nvalid - 1) === NULLDATAOFF) nvalid--;
  }
  const nused = freeNused(fbp) - 1;
  setFreeCounts(args, fbp, nvalid, nused);
  if (nused > 0) return 0;
  const error = xfsDir2ShrinkInode(args, fdb, fbp);
  return error === -ENOSPC && args.total === 0 ? 0 : error;
}
