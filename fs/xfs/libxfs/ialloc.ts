/**
 * Inode numbers: which are free, allocating and freeing them, and laying out the chunks
 * of 64 that they come in.
 *
 * A file's number is near that of its directory; directories go round the groups. A
 * chunk continues the one before it if it can, so that numbers and blocks stay
 * together; where space is in pieces, it is laid out with holes.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_ialloc.c.
 *
 * @module
 */

import { EAGAIN, EFSCORRUPTED, EINVAL, ENOSPC } from "../../../lib/errno.ts";
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from "../../fs.ts";
import type { XfsMount } from "../mount.ts";
import { xfsAllocReadAgf, xfsIallocReadAgi, type XfsPerag } from "./ag.ts";
import { XFS_AG_RESV_NONE } from "./ag-resv.ts";
import {
  XfsAllocArg,
  xfsAllocVextentExactBno,
  xfsAllocVextentNearBno,
  xfsFreeExtentLater,
} from "./alloc.ts";
import {
  XFS_LOOKUP_EQ,
  XFS_LOOKUP_GE,
  XFS_LOOKUP_LE,
  xfsBtreeComputeMaxlevels,
  xfsBtreeDecrement,
  xfsBtreeDelCursor,
  xfsBtreeDelete,
  xfsBtreeGetRec,
  xfsBtreeIncrement,
  xfsBtreeInsert,
  xfsBtreeLookup,
  xfsBtreeUpdate,
  type XfsLookup,
} from "./btree.ts";
import { bufSeal, type XfsBuf } from "./buf.ts";
import { putU64 } from "./bytes.ts";
import * as F from "./format.ts";
import {
  hweight32,
  inobtHolesHi,
  inobtHolesLo,
  xfsFinobtInitCursor,
  type XfsInobtCur,
  xfsInobtInitCursor,
  xfsInobtOps,
  type XfsInobtRec,
} from "./ialloc-btree.ts";
import { xfsInodeBufOps } from "./inode-buf.ts";
import { XFS_RMAP_OINFO_INODES } from "./rmap.ts";
import type { XfsSb } from "./sb.ts";
import type { XfsTrans } from "./trans.ts";

/** Bits of a hole mask. */
const HOLEMASK_BITS = 16;
/** Chunks that are looked at on both sides of a directory's for a free inode, where
 * there is no tree of free ones (kernel: `searchdistance`). */
const SEARCH_DISTANCE = 10;

/** Most levels of the inode trees: a group full of inodes, and the blocks of the
 * trees as empty as can be (kernel: a part of `xfs_ialloc_setup_geometry`; the rest is
 * in {@linkcode XfsSb.derive}). */
export function xfsIallocComputeMaxlevels(sb: XfsSb): number {
  const inodes = 2 ** (sb.inopblog + sb.agblklog);
  const chunks = Math.floor(inodes / F.XFS_INODES_PER_CHUNK);
  return xfsBtreeComputeMaxlevels(sb, xfsInobtOps, chunks);
}

// ---- records ----

/** Looks for a chunk by its first inode (kernel: `xfs_inobt_lookup`); as
 * {@linkcode xfsBtreeLookup}. */
function xfsInobtLookup(
  cur: XfsInobtCur,
  startino: number,
  dir: XfsLookup,
): number {
  cur.rec.startino = startino;
  return xfsBtreeLookup(cur, dir);
}

/** The record as it is encoded. */
function setRec(cur: XfsInobtCur, rec: XfsInobtRec): void {
  cur.ops.copyRec(rec, cur.rec);
  // The byte belongs to a wider counter.
  if (!cur.mp.sb.hasSparseInodes) cur.rec.count = 0;
}

function update(cur: XfsInobtCur, rec: XfsInobtRec): number {
  setRec(cur, rec);
  return xfsBtreeUpdate(cur);
}

/** Inserts a record where a lookup found none.
 * @returns 0; -ENOSPC if the tree could not get a block. */
function insert(cur: XfsInobtCur, rec: XfsInobtRec): number {
  setRec(cur, rec);
  const done = xfsBtreeInsert(cur);
  if (done < 0) return done;
  return done === 0 ? -ENOSPC : 0;
}

function remove(cur: XfsInobtCur): number {
  const done = xfsBtreeDelete(cur);
  return done < 0 ? done : 0;
}

/** Free inodes of a chunk by its mask (kernel: `xfs_inobt_rec_freecount`). */
function countFree(rec: XfsInobtRec): number {
  return hweight32(rec.freeLo & ~inobtHolesLo(rec)) +
    hweight32(rec.freeHi & ~inobtHolesHi(rec));
}

/** Whether all inodes of a chunk are free or not there (kernel:
 * `XFS_INOBT_ALL_FREE`). */
function allFree(rec: XfsInobtRec): boolean {
  return (rec.freeLo & rec.freeHi) === -1;
}

/** Whether the mask says that an inode is free or not there. */
function isFree(rec: XfsInobtRec, offset: number): boolean {
  const word = offset < 32 ? rec.freeLo : rec.freeHi;
  return (word & 1 << (offset & 31)) !== 0;
}

function isHole(rec: XfsInobtRec, offset: number): boolean {
  const bit = Math.floor(offset / F.XFS_INODES_PER_HOLEMASK_BIT);
  return (rec.holemask & 1 << bit) !== 0;
}

function markFree(rec: XfsInobtRec, offset: number): void {
  const bit = 1 << (offset & 31);
  if (offset < 32) rec.freeLo = (rec.freeLo | bit) >>> 0;
  else rec.freeHi = (rec.freeHi | bit) >>> 0;
  rec.freecount++;
}

function markUsed(rec: XfsInobtRec, offset: number): void {
  const bit = 1 << (offset & 31);
  if (offset < 32) rec.freeLo = (rec.freeLo & ~bit) >>> 0;
  else rec.freeHi = (rec.freeHi & ~bit) >>> 0;
  rec.freecount--;
}

/** First free inode of a chunk that has one (kernel: `xfs_inobt_first_free_inode`). */
function firstFree(rec: XfsInobtRec): number {
  const lo = rec.freeLo & ~inobtHolesLo(rec);
  if (lo !== 0) return 31 - Math.clz32(lo & -lo);
  const hi = rec.freeHi & ~inobtHolesHi(rec);
  return 63 - Math.clz32(hi & -hi);
}

/** Whether both trees say the same of a chunk. */
function sameFree(a: XfsInobtRec, b: XfsInobtRec): boolean {
  return a.freeLo === b.freeLo && a.freeHi === b.freeHi &&
    a.freecount === b.freecount && a.holemask === b.holemask;
}

/**
 * Whether a chunk can be (kernel: `xfs_inobt_check_irec`, and what is known of its place
 * and its holes).
 *
 * @returns null, or the check that failed with the value.
 */
export function xfsInobtCheckIrec(
  pag: XfsPerag,
  rec: XfsInobtRec,
): string | null {
  const { sb } = pag.mp;
  const { startino, count, freecount, holemask } = rec;
  const last = startino + F.XFS_INODES_PER_CHUNK - 1;
  const agbno = sb.aginoToAgbno(startino);
  const inBlock = startino - agbno * sb.inopblock;
  if (
    inBlock % F.XFS_INODES_PER_CHUNK !== 0 || agbno % sb.clusterAlign !== 0 ||
    !sb.verifyAgbno(pag.agno, agbno) ||
    !sb.verifyAgbno(pag.agno, sb.aginoToAgbno(last))
  ) return `chunk at ${startino}`;
  const holes = hweight32(holemask) * F.XFS_INODES_PER_HOLEMASK_BIT;
  if (
    count < F.XFS_INODES_PER_HOLEMASK_BIT ||
    count !== F.XFS_INODES_PER_CHUNK - holes || !holesAreClusters(pag.mp, rec)
  ) return `chunk ${startino}: count ${count}, holemask ${holemask}`;
  if (freecount === countFree(rec)) return null;
  return `chunk ${startino}: freecount ${freecount}, not ${countFree(rec)}`;
}

/** Buffers of inodes are there as a whole or not at all. */
function holesAreClusters(mp: XfsMount, rec: XfsInobtRec): boolean {
  const { holemask } = rec;
  if (holemask === 0) return true;
  const { inodesPerCluster } = mp.sb;
  const bits = inodesPerCluster / F.XFS_INODES_PER_HOLEMASK_BIT;
  const all = 2 ** bits - 1;
  for (let at = 0; at < HOLEMASK_BITS; at += bits) {
    const some = holemask >>> at & all;
    if (some !== 0 && some !== all) return false;
  }
  return true;
}

/**
 * Decodes the record that the cursor stands at, and checks it (kernel:
 * `xfs_inobt_get_rec`).
 *
 * @returns 1; 0 if it stands at none; -EFSCORRUPTED if there can be no such record.
 */
function xfsInobtGetRec(cur: XfsInobtCur, rec: XfsInobtRec): number {
  const there = xfsBtreeGetRec(cur, rec);
  if (there !== 1) return there;
  let why: string | null = null;
  if (!cur.mp.sb.hasSparseInodes) {
    if (rec.holemask !== 0 || rec.count !== 0) {
      why = `chunk ${rec.startino}: freecount above 255`;
    }
    rec.count = F.XFS_INODES_PER_CHUNK;
  }
  why ??= xfsInobtCheckIrec(cur.pag!, rec);
  return why === null ? 1 : corrupt(cur, why);
}

function corrupt(cur: XfsInobtCur, why: string): number {
  cur.mp.corrupt(`${cur.ops.name} of AG ${cur.pag!.agno}`, why);
  return -EFSCORRUPTED;
}

/** The record that a lookup must have found.
 * @returns 0 or a negative errno. */
function mustGet(
  cur: XfsInobtCur,
  startino: number,
  dir: XfsLookup,
  rec: XfsInobtRec,
): number {
  let there = xfsInobtLookup(cur, startino, dir);
  if (there === 1) there = xfsInobtGetRec(cur, rec);
  if (there < 0) return there;
  return there === 1 ? 0 : corrupt(cur, `no chunk for ${startino}`);
}

// ---- counters of a group ----

/** Counts inodes in the AGI, in the group and in the file system. */
function modAgi(
  pag: XfsPerag,
  tp: XfsTrans,
  agibp: XfsBuf,
  count: number,
  freecount: number,
): void {
  const { view } = agibp;
  view.setUint32(F.AGI_COUNT, view.getUint32(F.AGI_COUNT) + count);
  view.setUint32(F.AGI_FREECOUNT, view.getUint32(F.AGI_FREECOUNT) + freecount);
  tp.logBuf(agibp, F.AGI_COUNT, F.AGI_FREECOUNT + 3);
  pag.pagiCount += count;
  pag.pagiFreecount += freecount;
  tp.modInodes(count, freecount);
}

// ---- laying out chunks ----

/**
 * A buffer for a cluster of inodes that is being laid out or removed.
 *
 * @param agbno First block of the cluster.
 * @returns It, or -EFSCORRUPTED if something else is there.
 */
export function xfsInodeClusterBuf(
  tp: XfsTrans,
  pag: XfsPerag,
  agbno: number,
): XfsBuf | number {
  const { targ, sb } = tp.mp;
  const daddr = sb.agbToDaddr(pag.agno, agbno);
  const bbs = sb.blocksPerCluster * sb.bbPerBlock;
  const old = targ.incore(daddr);
  if (old !== null && old.bbs !== bbs && (old.dirty || old.trans !== null)) {
    return tp.mp.corrupt(`inode cluster at daddr ${daddr}`, "in other use");
  }
  return tp.getBuf(daddr, bbs, xfsInodeBufOps);
}

/**
 * Makes blocks into free inodes (kernel: `xfs_ialloc_inode_init`).
 *
 * @param agbno First block.
 * @param length Blocks.
 * @param gen Generation number, of all of them.
 * @returns 0 or -EFSCORRUPTED.
 */
export function xfsIallocInodeInit(
  tp: XfsTrans,
  pag: XfsPerag,
  agbno: number,
  length: number,
  gen: number,
): number {
  const { sb } = tp.mp;
  for (let at = agbno; at < agbno + length; at += sb.blocksPerCluster) {
    const bp = xfsInodeClusterBuf(tp, pag, at);
    if (typeof bp === "number") return bp;
    const ino = sb.aginoToIno(pag.agno, at * sb.inopblock);
    initInodeCluster(sb, tp.mp.targ.uuid, bp, ino, gen);
    tp.logWholeBuf(bp);
  }
  return 0;
}

/**
 * Fills a buffer with free inodes.
 *
 * @param uuid UUID that blocks bear.
 * @param ino The first of them.
 * @param gen Generation number, of all of them.
 */
export function initInodeCluster(
  sb: XfsSb,
  uuid: Uint8Array,
  bp: XfsBuf,
  ino: number,
  gen: number,
): void {
  const { inodesize } = sb;
  const { data, view } = bp;
  data.fill(0);
  for (let at = 0; at < data.length; at += inodesize) {
    view.setUint16(at + F.DI_MAGIC, F.XFS_DINODE_MAGIC);
    view.setUint8(at + F.DI_VERSION, 3);
    view.setUint32(at + F.DI_GEN, gen);
    view.setUint32(at + F.DI_NEXT_UNLINKED, F.NULLAGINO);
    putU64(view, at + F.DI_INO, ino++);
    data.set(uuid, at + F.DI_UUID);
    bufSeal(data.subarray(at, at + inodesize), F.DI_CRC);
  }
}

/** Allocates right behind the last chunk, if that place is free. */
function allocExact(args: XfsAllocArg, agibp: XfsBuf): number {
  const { mp } = args;
  const { sb } = mp;
  const newino = agibp.view.getUint32(F.AGI_NEWINO);
  if (newino === F.NULLAGINO) return 0;
  const agbno = sb.aginoToAgbno(newino) + sb.ialloBlks;
  // The field is a hint: nobody has checked it.
  if (!sb.verifyAgbno(args.pag!.agno, agbno)) return 0;
  if (agbno % sb.clusterAlign !== 0) return 0;
  args.alignment = 1;
  // What comes next must not need more than this: by then the free list is changed.
  args.minalignslop = sb.clusterAlign - 1;
  const target = sb.agbToFsb(args.pag!.agno, agbno);
  const error = xfsAllocVextentExactBno(args, target);
  args.minalignslop = 0;
  return error;
}

/** Allocates a chunk near the tree of inodes. */
function allocAligned(args: XfsAllocArg, target: number): number {
  const { sb } = args.mp;
  args.alignment = sb.ialloAlign || sb.clusterAlign;
  let error = xfsAllocVextentNearBno(args, target);
  if (error === 0 && args.fsbno === F.NULLFSBLOCK && sb.ialloAlign > 0) {
    args.alignment = sb.clusterAlign;
    error = xfsAllocVextentNearBno(args, target);
  }
  return error;
}

/** Allocates a part of a chunk. The whole of it must lie within the group, and not at its
 * start. */
function allocSparse(args: XfsAllocArg, target: number): number {
  const { sb } = args.mp;
  const { blocks } = args.pag!;
  args.alignment = sb.spinoAlign;
  args.minlen = args.maxlen = sb.ialloMinBlks;
  args.minAgbno = sb.inoalignmt;
  args.maxAgbno = blocks - blocks % sb.inoalignmt - 1;
  return xfsAllocVextentNearBno(args, target);
}

/** Finds blocks for a chunk, or for a part of one.
 * @returns 0, with `args.fsbno` of `NULLFSBLOCK` if there are none; a negative errno. */
function allocChunkBlocks(args: XfsAllocArg, agibp: XfsBuf): number {
  const { sb } = args.mp;
  const { agno } = args.pag!;
  const root = agibp.view.getUint32(F.AGI_ROOT);
  if (!sb.verifyAgbno(agno, root)) {
    return args.mp.corrupt(`xfs_agi of AG ${agno}`, `root ${root}`);
  }
  const target = sb.agbToFsb(agno, root);
  args.minlen = args.maxlen = sb.ialloBlks;
  // The trees may have to be split.
  args.minleft = args.mp.maxlevels.inobt;
  let error = allocExact(args, agibp);
  if (error === 0 && args.fsbno === F.NULLFSBLOCK) {
    error = allocAligned(args, target);
  }
  const sparse = sb.hasSparseInodes && sb.ialloMinBlks < sb.ialloBlks;
  if (error === 0 && args.fsbno === F.NULLFSBLOCK && sparse) {
    error = allocSparse(args, target);
  }
  return error;
}

/**
 * Lays out a chunk of inodes in a group (kernel: `xfs_ialloc_ag_alloc`).
 *
 * @param agibp Buffer of the AGI.
 * @returns The number of inodes; 0 if there is no room; -ENOSPC if there must not be
 *   more inodes in the file system; -EFSCORRUPTED, or an errno of the device.
 */
function iallocAgAlloc(pag: XfsPerag, tp: XfsTrans, agibp: XfsBuf): number {
  const { mp } = pag;
  const { sb } = mp;
  if (sb.maxicount > 0 && sb.icount + sb.ialloInos > sb.maxicount) {
    return -ENOSPC;
  }
  const args = new XfsAllocArg().init(tp);
  args.pag = pag;
  args.oinfo = XFS_RMAP_OINFO_INODES;
  let error = allocChunkBlocks(args, agibp);
  if (error < 0) return error;
  if (args.fsbno === F.NULLFSBLOCK) return 0;
  const { agbno, len } = args;
  const gen = mp.inodeGenerations.u32();
  error = xfsIallocInodeInit(tp, pag, agbno, len, gen);
  if (error < 0) return error;
  const inodes = len * sb.inopblock;
  const agino = agbno * sb.inopblock;
  const newino = len < sb.ialloBlks
    ? insertSparse(pag, tp, agibp, agino, inodes)
    : insertChunks(pag, tp, agibp, agino, inodes);
  if (newino < 0) return newino;
  modAgi(pag, tp, agibp, inodes, inodes);
  agibp.view.setUint32(F.AGI_NEWINO, newino);
  tp.logBuf(agibp, F.AGI_NEWINO, F.AGI_NEWINO + 3);
  return inodes;
}

const newRec: XfsInobtRec = xfsInobtOps.newRec();
const oldRec: XfsInobtRec = xfsInobtOps.newRec();

/** Inserts whole chunks of free inodes into both trees (kernel: `xfs_inobt_insert`); a
 * block may hold several.
 * @returns The first inode, or a negative errno. */
function insertChunks(
  pag: XfsPerag,
  tp: XfsTrans,
  agibp: XfsBuf,
  agino: number,
  inodes: number,
): number {
  const end = agino + inodes;
  newRec.holemask = 0;
  newRec.count = newRec.freecount = F.XFS_INODES_PER_CHUNK;
  newRec.freeLo = newRec.freeHi = 0xffff_ffff;
  for (let at = agino; at < end; at += F.XFS_INODES_PER_CHUNK) {
    newRec.startino = at;
    const error = inBothTrees(pag, tp, agibp, insertChunk, insertChunk);
    if (error < 0) return error;
  }
  return agino;
}

/** Does something with `newRec` in the one tree and then in the other. */
function inBothTrees(
  pag: XfsPerag,
  tp: XfsTrans,
  agibp: XfsBuf,
  inInobt: (cur: XfsInobtCur) => number,
  inFinobt: (cur: XfsInobtCur) => number,
): number {
  const cur = xfsInobtInitCursor(pag.mp, tp, agibp, pag);
  let error = inInobt(cur);
  xfsBtreeDelCursor(cur);
  if (error < 0 || !pag.mp.sb.hasFinobt) return error;
  const fcur = xfsFinobtInitCursor(pag.mp, tp, agibp, pag);
  error = inFinobt(fcur);
  xfsBtreeDelCursor(fcur);
  return error;
}

function insertChunk(cur: XfsInobtCur): number {
  const there = xfsInobtLookup(cur, newRec.startino, XFS_LOOKUP_EQ);
  if (there < 0) return there;
  if (there === 0) return insert(cur, newRec);
  return corrupt(cur, `chunk ${newRec.startino} lies in free space`);
}

/** Inserts a part of a chunk; its record begins where the whole chunk would (kernel:
 * `xfs_align_sparse_ino`).
 * @returns The first inode of the chunk, or a negative errno. */
function insertSparse(
  pag: XfsPerag,
  tp: XfsTrans,
  agibp: XfsBuf,
  agino: number,
  inodes: number,
): number {
  const chunk = pag.mp.sb.inoalignmt * pag.mp.sb.inopblock;
  const offset = agino % chunk;
  const bits = inodes / F.XFS_INODES_PER_HOLEMASK_BIT;
  const allocated = (1 << bits) - 1 << offset / F.XFS_INODES_PER_HOLEMASK_BIT;
  newRec.startino = agino - offset;
  newRec.holemask = ~allocated & 0xffff;
  newRec.count = newRec.freecount = inodes;
  newRec.freeLo = newRec.freeHi = 0xffff_ffff;
  const error = inBothTrees(
    pag,
    tp,
    agibp,
    inobtInsertSprec,
    finobtInsertSprec,
  );
  return error < 0 ? error : newRec.startino;
}

/** The chunk may have other parts already: `newRec` becomes all of it (kernel:
 * `xfs_inobt_insert_sprec`). */
function inobtInsertSprec(cur: XfsInobtCur): number {
  const there = xfsInobtLookup(cur, newRec.startino, XFS_LOOKUP_EQ);
  if (there < 0) return there;
  if (there === 0) return insert(cur, newRec);
  const got = xfsInobtGetRec(cur, oldRec);
  if (got < 0) return got;
  // A part must be a hole in what was there (kernel: __xfs_inobt_can_merge).
  if ((newRec.holemask | oldRec.holemask) !== 0xffff) {
    return corrupt(cur, `chunk ${newRec.startino} lies in free space`);
  }
  newRec.count += oldRec.count;
  newRec.freecount += oldRec.freecount;
  newRec.holemask &= oldRec.holemask;
  newRec.freeLo = (newRec.freeLo & oldRec.freeLo) >>> 0;
  newRec.freeHi = (newRec.freeHi & oldRec.freeHi) >>> 0;
  return update(cur, newRec);
}

/** A chunk that was full has no record yet (kernel: `xfs_finobt_insert_sprec`). */
function finobtInsertSprec(cur: XfsInobtCur): number {
  const there = xfsInobtLookup(cur, newRec.startino, XFS_LOOKUP_EQ);
  if (there < 0) return there;
  return there === 0 ? insert(cur, newRec) : update(cur, newRec);
}

// ---- choosing an inode ----

const rec: XfsInobtRec = xfsInobtOps.newRec();
const leftRec: XfsInobtRec = xfsInobtOps.newRec();
const rightRec: XfsInobtRec = xfsInobtOps.newRec();

/** Finds the chunk with a free inode that is closest to a directory (kernel:
 * `xfs_dialloc_ag_finobt_near`).
 * @returns 0 with the cursor there and the chunk in `rec`, or a negative errno. */
function finobtNear(cur: XfsInobtCur, pagino: number): number {
  let left = xfsInobtLookup(cur, pagino, XFS_LOOKUP_LE);
  if (left === 1) left = xfsInobtGetRec(cur, leftRec);
  if (left < 0) return left;
  const end = leftRec.startino + F.XFS_INODES_PER_CHUNK;
  if (left === 1 && pagino < end) {
    cur.ops.copyRec(leftRec, rec);
    return 0;
  }
  let right = xfsInobtLookup(cur, pagino, XFS_LOOKUP_GE);
  if (right === 1) right = xfsInobtGetRec(cur, rec);
  if (right < 0) return right;
  if (left === 0 && right === 0) return corrupt(cur, "no free inode");
  const closer = right === 1 &&
    (left === 0 || pagino - leftRec.startino + F.XFS_INODES_PER_CHUNK - 1 >
        rec.startino - pagino);
  return closer ? 0 : mustGet(cur, leftRec.startino, XFS_LOOKUP_EQ, rec);
}

/** Finds a chunk with a free inode: the newest, or else the first (kernel:
 * `xfs_dialloc_ag_finobt_newino`).
 * @returns As {@linkcode finobtNear}. */
function finobtNewino(cur: XfsInobtCur): number {
  const newino = cur.agbp!.view.getUint32(F.AGI_NEWINO);
  if (newino !== F.NULLAGINO) {
    let there = xfsInobtLookup(cur, newino, XFS_LOOKUP_EQ);
    if (there === 1) there = xfsInobtGetRec(cur, rec);
    if (there !== 0) return there < 0 ? there : 0;
  }
  return mustGet(cur, 0, XFS_LOOKUP_GE, rec);
}

/** Takes an inode that the tree of free ones has (kernel: `xfs_dialloc_ag`).
 * @param pagino Directory, or 0 if it is in another group.
 * @returns The inode, or a negative errno. */
function diallocFinobt(cur: XfsInobtCur, pagino: number): number {
  const error = pagino > 0 ? finobtNear(cur, pagino) : finobtNewino(cur);
  if (error < 0) return error;
  if (rec.freecount === 0) return corrupt(cur, `chunk ${rec.startino} is full`);
  const offset = firstFree(rec);
  markUsed(rec, offset);
  const changed = rec.freecount > 0 ? update(cur, rec) : remove(cur);
  return changed < 0 ? changed : rec.startino + offset;
}

/** The other tree follows (kernel: `xfs_dialloc_ag_update_inobt`). */
function diallocUpdateInobt(cur: XfsInobtCur, agino: number): number {
  const error = mustGet(cur, rec.startino, XFS_LOOKUP_EQ, oldRec);
  if (error < 0) return error;
  markUsed(oldRec, agino - oldRec.startino);
  if (!sameFree(oldRec, rec)) {
    return corrupt(cur, `chunk ${rec.startino} is not that of the finobt`);
  }
  return update(cur, oldRec);
}

/** Goes to the chunk before or after (kernel: `xfs_ialloc_next_rec`).
 * @returns 1 with the chunk in `out`, 0 if there is none, or a negative errno. */
function nextRec(cur: XfsInobtCur, left: boolean, out: XfsInobtRec): number {
  const there = left ? xfsBtreeDecrement(cur) : xfsBtreeIncrement(cur);
  return there === 1 ? xfsInobtGetRec(cur, out) : there;
}

/** Goes to a chunk (kernel: `xfs_ialloc_get_rec`); as {@linkcode nextRec}. */
function recAt(cur: XfsInobtCur, startino: number, out: XfsInobtRec): number {
  const there = xfsInobtLookup(cur, startino, XFS_LOOKUP_EQ);
  return there === 1 ? xfsInobtGetRec(cur, out) : there;
}

/** Keeps how far a search for a directory's inodes has come. */
function saveSearch(pag: XfsPerag, pagino: number): void {
  pag.paglPagino = pagino;
  pag.paglLeftrec = leftRec.startino;
  pag.paglRightrec = rightRec.startino;
}

/**
 * Finds a chunk with a free inode not far from a directory, by going left and right from
 * it at a time (kernel: the first half of `xfs_dialloc_ag_inobt`). The next search for
 * the same directory goes on where this one ends.
 *
 * @param lcur Goes left.
 * @param rcur Goes right.
 * @returns 1 with the chunk in `rec`, 0 if there is none, or a negative errno.
 */
function inobtNear(
  pag: XfsPerag,
  lcur: XfsInobtCur,
  rcur: XfsInobtCur,
  pagino: number,
): number {
  let distance = SEARCH_DISTANCE;
  for (;;) {
    const error = mustGet(rcur, pagino, XFS_LOOKUP_LE, rec);
    if (error < 0) return error;
    if (rec.freecount > 0) return 1;
    let left = startSearch(pag, lcur, true, pagino);
    let right = startSearch(pag, rcur, false, pagino);
    while (--distance > 0 && (left === 1 || right === 1)) {
      if (left < 0 || right < 0) return Math.min(left, right);
      const last = leftRec.startino + F.XFS_INODES_PER_CHUNK - 1;
      const goLeft = left === 1 &&
        (right === 0 || pagino - last < rightRec.startino - pagino);
      const got = goLeft ? leftRec : rightRec;
      if (got.freecount > 0) {
        saveSearch(pag, pagino);
        rcur.ops.copyRec(got, rec);
        return 1;
      }
      if (goLeft) left = nextRec(lcur, true, leftRec);
      else right = nextRec(rcur, false, rightRec);
    }
    if (left < 0 || right < 0) return Math.min(left, right);
    if (distance <= 0) {
      saveSearch(pag, pagino);
      return 0;
    }
    // Both ends of the tree were met: what is free lies closer than the search began.
    pag.paglPagino = pag.paglLeftrec = pag.paglRightrec = F.NULLAGINO;
  }
}

/** Begins one side of a search: where the last one for the directory has ended, or beside
 * the chunk in `rec`, which is the directory's; as {@linkcode nextRec}. */
function startSearch(
  pag: XfsPerag,
  cur: XfsInobtCur,
  left: boolean,
  pagino: number,
): number {
  const out = left ? leftRec : rightRec;
  const resume = pag.paglPagino === pagino &&
    pag.paglLeftrec !== F.NULLAGINO && pag.paglRightrec !== F.NULLAGINO;
  if (resume) return recAt(cur, left ? pag.paglLeftrec : pag.paglRightrec, out);
  const there = recAt(cur, rec.startino, out);
  return there === 1 ? nextRec(cur, left, out) : there;
}

/** Finds a chunk with a free inode: the newest, or else the first (kernel: the second half
 * of `xfs_dialloc_ag_inobt`).
 * @returns 0 with the chunk in `rec`, or a negative errno. */
function inobtAnywhere(cur: XfsInobtCur): number {
  const newino = cur.agbp!.view.getUint32(F.AGI_NEWINO);
  if (newino !== F.NULLAGINO) {
    const there = recAt(cur, newino, rec);
    if (there < 0 || (there === 1 && rec.freecount > 0)) {
      return there < 0 ? there : 0;
    }
  }
  const error = mustGet(cur, 0, XFS_LOOKUP_GE, rec);
  if (error < 0) return error;
  while (rec.freecount === 0) {
    const there = nextRec(cur, false, rec);
    if (there < 0) return there;
    if (there === 0) return corrupt(cur, "no free inode");
  }
  return 0;
}

/** Takes an inode where there is no tree of free ones (kernel: `xfs_dialloc_ag_inobt`).
 * @param pagino Directory, or 0 if it is in another group.
 * @returns The inode, or a negative errno. */
function diallocInobt(
  pag: XfsPerag,
  lcur: XfsInobtCur,
  cur: XfsInobtCur,
  pagino: number,
): number {
  let found = pagino > 0 ? inobtNear(pag, lcur, cur, pagino) : 0;
  if (found === 0) found = inobtAnywhere(cur);
  if (found < 0) return found;
  const offset = firstFree(rec);
  markUsed(rec, offset);
  const error = diallocUpdateInobt(cur, rec.startino + offset);
  return error < 0 ? error : rec.startino + offset;
}

/** Takes an inode from the trees.
 * @returns The inode within the group, or a negative errno. */
function takeFromTrees(
  pag: XfsPerag,
  tp: XfsTrans,
  agibp: XfsBuf,
  pagino: number,
): number {
  const { mp } = pag;
  const cur = xfsInobtInitCursor(mp, tp, agibp, pag);
  let agino: number;
  if (mp.sb.hasFinobt) {
    const fcur = xfsFinobtInitCursor(mp, tp, agibp, pag);
    agino = diallocFinobt(fcur, pagino);
    xfsBtreeDelCursor(fcur);
    const error = agino < 0 ? agino : diallocUpdateInobt(cur, agino);
    if (error < 0) agino = error;
  } else {
    const lcur = xfsInobtInitCursor(mp, tp, agibp, pag);
    agino = diallocInobt(pag, lcur, cur, pagino);
    xfsBtreeDelCursor(lcur);
  }
  xfsBtreeDelCursor(cur);
  return agino;
}

/** Allocates an inode in a group that has a free one (kernel: `xfs_dialloc_ag`).
 * @returns The inode number, or a negative errno. */
function diallocAg(
  pag: XfsPerag,
  tp: XfsTrans,
  agibp: XfsBuf,
  parent: number,
): number {
  const { sb } = pag.mp;
  const pagino = sb.inoToAgno(parent) === pag.agno ? sb.inoToAgino(parent) : 0;
  const agino = takeFromTrees(pag, tp, agibp, pagino);
  if (agino < 0) return agino;
  modAgi(pag, tp, agibp, 0, -1);
  return sb.aginoToIno(pag.agno, agino);
}

// ---- choosing a group ----

/** Whether it is worth looking at a group (kernel: `xfs_dialloc_good_ag`).
 * @param first With the first round, space for alignment counts.
 * @returns 1, 0, or -EAGAIN if its headers are not to be had now. */
function diallocGoodAg(
  pag: XfsPerag,
  tp: XfsTrans,
  mode: number,
  first: boolean,
  okAlloc: boolean,
): number {
  if (!pag.pagiInit) {
    const agibp = xfsIallocReadAgi(pag, tp);
    if (typeof agibp === "number") return agibp === -EAGAIN ? agibp : 0;
  }
  if (pag.pagiFreecount !== 0) return 1;
  if (!okAlloc) return 0;
  if (!pag.pagfInit) {
    const agbp = xfsAllocReadAgf(pag, tp);
    if (typeof agbp === "number") return agbp === -EAGAIN ? agbp : 0;
  }
  const { sb } = pag.mp;
  let need = sb.ialloMinBlks;
  if (first && need > 1) need += sb.clusterAlign;
  // The file will have a block of its own.
  const own = mode === S_IFDIR || mode === S_IFREG || mode === S_IFLNK ? 1 : 0;
  const longest = pag.pagfLongest || (pag.pagfFlcount > 0 ? 1 : 0);
  return pag.pagfFreeblks >= own + need && longest >= need ? 1 : 0;
}

/** Allocates an inode in a group, and a chunk before it if none is free (kernel:
 * `xfs_dialloc_try_ag`).
 * @returns The inode number; 0 if there is no room; a negative errno. */
function diallocTryAg(
  pag: XfsPerag,
  tp: XfsTrans,
  parent: number,
  okAlloc: boolean,
): number {
  const agibp = xfsIallocReadAgi(pag, tp);
  if (typeof agibp === "number") return agibp;
  if (pag.pagiFreecount === 0) {
    if (!okAlloc) return 0;
    const inodes = iallocAgAlloc(pag, tp, agibp);
    if (inodes <= 0) return inodes;
    const error = tp.roll();
    if (error < 0) return error;
  }
  return diallocAg(pag, tp, agibp, parent);
}

/** Goes round the groups once.
 * @returns As {@linkcode diallocTryAg}. */
function diallocRound(
  tp: XfsTrans,
  start: number,
  parent: number,
  mode: number,
  first: boolean,
  okAlloc: boolean,
): number {
  const { mp } = tp;
  for (let i = 0; i < mp.sb.agcount; i++) {
    const pag = mp.perags[(start + i) % mp.sb.agcount]!;
    const good = diallocGoodAg(pag, tp, mode, first, okAlloc);
    const ino = good === 1 ? diallocTryAg(pag, tp, parent, okAlloc) : good;
    if (ino !== 0) return ino;
    if (mp.dead) return -EFSCORRUPTED;
  }
  return 0;
}

/** First group to look at. */
function startAgno(mp: XfsMount, parent: number, mode: number): number {
  const { sb } = mp;
  if (mode === S_IFDIR) {
    const agno = mp.agirotor;
    mp.agirotor = (agno + 1) % sb.agcount;
    return agno;
  }
  const agno = sb.inoToAgno(parent);
  return agno < sb.agcount ? agno : 0;
}

/**
 * Allocates an inode number (kernel: `xfs_dialloc`). The transaction may be rolled; its
 * reservation is that of `xfsIallocSpaceRes`.
 *
 * @param parent Inode number of the directory, or 0 if there is none.
 * @param mode Type of the new inode, in `S_IFMT`.
 * @returns The number; -ENOSPC if there is neither a free inode nor room for more, or no
 *   more inodes are allowed; -EFSCORRUPTED if trees or headers contradict each other, or
 *   an errno of the device.
 */
export function xfsDialloc(tp: XfsTrans, parent: number, mode: number): number {
  const { mp } = tp;
  const { sb } = mp;
  const type = mode & S_IFMT;
  const start = startAgno(mp, parent, type);
  const full = sb.maxicount > 0 && sb.icount + sb.ialloInos > sb.maxicount;
  // With little space left, the free inodes of all groups are used up first.
  const lowSpace = mp.fdblocks < Math.floor(sb.dblocks / 100);
  let okAlloc = !full && !lowSpace;
  let ino = diallocRound(tp, start, parent, type, true, okAlloc);
  if (ino === 0) {
    okAlloc ||= lowSpace;
    ino = diallocRound(tp, start, parent, type, false, okAlloc);
  }
  if (ino === 0) return -ENOSPC;
  if (ino < 0) return ino;
  if (ino === parent || ino === sb.rootino || !sb.verifyIno(ino)) {
    return mp.corrupt(`inode ${ino}`, "in use, but the trees have it free");
  }
  return ino;
}

// ---- freeing ----

/** What became of the chunk of a freed inode (kernel: `struct xfs_icluster`). */
export class XfsIcluster {
  /** It is gone. */
  deleted = false;
  /** Its first inode, within the group. */
  startino = 0;
  /** Its inodes that were not there, as in `XfsInobtRec.holemask`. */
  holemask = 0;
}

/** Leaves the blocks of a chunk to be freed (kernel: `xfs_difree_inode_chunk`). */
function difreeInodeChunk(
  pag: XfsPerag,
  tp: XfsTrans,
  chunk: XfsInobtRec,
): number {
  const { sb } = pag.mp;
  const start = sb.aginoToAgbno(chunk.startino);
  const { holemask } = chunk;
  for (let bit = 0; bit < HOLEMASK_BITS; bit++) {
    const from = bit;
    while (bit < HOLEMASK_BITS && (holemask & 1 << bit) === 0) bit++;
    if (bit === from) continue;
    const blocks = (n: number) =>
      n * F.XFS_INODES_PER_HOLEMASK_BIT / sb.inopblock;
    const error = xfsFreeExtentLater(
      tp,
      sb.agbToFsb(pag.agno, start + blocks(from)),
      blocks(bit - from),
      XFS_RMAP_OINFO_INODES,
      XFS_AG_RESV_NONE,
    );
    if (error < 0) return error;
  }
  return 0;
}

/** Whether the chunk in `rec` goes. A block with several chunks stays. */
function chunkGoes(mp: XfsMount): boolean {
  return allFree(rec) && mp.sb.inopblock <= F.XFS_INODES_PER_CHUNK;
}

/** Marks an inode free in the tree of all chunks (kernel: `xfs_difree_inobt`).
 * @param xic Filled in.
 * @returns 0 with the chunk in `rec`, or a negative errno. */
function difreeInobt(
  cur: XfsInobtCur,
  agino: number,
  xic: XfsIcluster,
): number {
  const error = mustGet(cur, agino, XFS_LOOKUP_LE, rec);
  if (error < 0) return error;
  const offset = agino - rec.startino;
  if (offset >= F.XFS_INODES_PER_CHUNK || isHole(rec, offset)) {
    return corrupt(cur, `no chunk for ${agino}`);
  }
  if (isFree(rec, offset)) return corrupt(cur, `inode ${agino} is free`);
  markFree(rec, offset);
  const pag = cur.pag!;
  const tp = cur.tp!;
  xic.deleted = chunkGoes(cur.mp);
  if (!xic.deleted) {
    modAgi(pag, tp, cur.agbp!, 0, 1);
    return update(cur, rec);
  }
  xic.startino = rec.startino;
  xic.holemask = rec.holemask;
  modAgi(pag, tp, cur.agbp!, -rec.freecount, 1 - rec.freecount);
  const removed = remove(cur);
  return removed < 0 ? removed : difreeInodeChunk(pag, tp, rec);
}

/** The tree of free inodes follows (kernel: `xfs_difree_finobt`); the chunk is in
 * `rec`. */
function difreeFinobt(cur: XfsInobtCur, agino: number): number {
  let there = xfsInobtLookup(cur, rec.startino, XFS_LOOKUP_EQ);
  if (there < 0) return there;
  const why = `chunk ${rec.startino} is not that of the inobt`;
  if (there === 0) {
    // It was full, and has no record yet.
    return rec.freecount === 1 ? insert(cur, rec) : corrupt(cur, why);
  }
  there = xfsInobtGetRec(cur, oldRec);
  if (there < 0) return there;
  markFree(oldRec, agino - oldRec.startino);
  if (!sameFree(oldRec, rec)) return corrupt(cur, why);
  return chunkGoes(cur.mp) ? remove(cur) : update(cur, oldRec);
}

/**
 * Frees an inode number, and its chunk if no other inode of it is in use (kernel:
 * `xfs_difree`).
 *
 * @param xic Filled in: whether the chunk is gone. Then the caller drops its buffers.
 * @returns 0; -EINVAL if there can be no such inode; -EFSCORRUPTED if it is free, or if
 *   trees contradict each other; -ENOSPC if the tree of free inodes could not grow; an
 *   errno of the device.
 */
export function xfsDifree(
  tp: XfsTrans,
  ino: number,
  xic: XfsIcluster,
): number {
  const { mp } = tp;
  if (!mp.sb.verifyIno(ino)) return -EINVAL;
  const pag = mp.perags[mp.sb.inoToAgno(ino)]!;
  const agino = mp.sb.inoToAgino(ino);
  const agibp = xfsIallocReadAgi(pag, tp);
  if (typeof agibp === "number") return agibp;
  const cur = xfsInobtInitCursor(mp, tp, agibp, pag);
  let error = difreeInobt(cur, agino, xic);
  xfsBtreeDelCursor(cur);
  if (error < 0 || !mp.sb.hasFinobt) return error;
  const fcur = xfsFinobtInitCursor(mp, tp, agibp, pag);
  error = difreeFinobt(fcur, agino);
  xfsBtreeDelCursor(fcur);
  return error;
}
