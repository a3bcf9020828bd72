/**
 * The tree of a fork's extents: its records, its root in the inode, its blocks.
 *
 * In memory the root is a block in the long form with the room that the fork has; on
 * disk it is shorter (bmdr): level and count, then keys, then pointers. When the
 * attribute fork's offset moves, the data fork's root is laid out anew the next time
 * that it is used.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_bmap_btree.c.
 *
 * @module
 */

import { bugOn } from "../../../lib/bug.ts";
import type { XfsInode } from "../inode.ts";
import type { XfsMount } from "../mount.ts";
import { XFS_AG_RESV_NONE } from "./ag-resv.ts";
import {
  XfsAllocArg,
  xfsAllocVextentStartAg,
  xfsFreeExtentLater,
} from "./alloc.ts";
import { xfsBmapiMinleft } from "./bmap.ts";
import {
  xfsBtreeAllocCursor,
  type XfsBtreeBlock,
  type XfsBtreeCur,
  XfsBtreeOps,
} from "./btree.ts";
import type { XfsBuf } from "./buf.ts";
import { getU64, putU64 } from "./bytes.ts";
import * as F from "./format.ts";
import { BmbtIrec } from "./iext.ts";
import { xfsIforkPtr, xfsInodeForkSize } from "./inode-fork.ts";
import { xfsRmapInoBmbtOwner } from "./rmap.ts";
import {
  XFS_ILOG_ABROOT,
  XFS_ILOG_CORE,
  XFS_ILOG_DBROOT,
  type XfsTrans,
} from "./trans.ts";

/** Bytes of a record (kernel: `xfs_bmbt_rec_t`). */
export const BMBT_REC_LEN = 16;
/** Bytes of a key, and of a pointer. */
const BMBT_KEY_LEN = 8;
/** Bytes of the root on disk before its keys (kernel: `struct xfs_bmdr_block`). */
const BMDR_HDR_LEN = 4;
/** Bytes of the root in memory before its keys. */
const BROOT_HDR_LEN = F.XFS_BTREE_LBLOCK_CRC_LEN;

/** Of a cursor: its blocks were promised when the space was (kernel:
 * `XFS_BTREE_BMBT_WASDEL`). */
export const XFS_BTREE_BMBT_WASDEL = 1 << 0;

// ---- records ----

/** Decodes a record (kernel: `xfs_bmbt_disk_get_all`). */
export function xfsBmbtDiskGetAll(
  view: DataView,
  at: number,
  rec: BmbtIrec,
): void {
  const a = view.getUint32(at);
  const b = view.getUint32(at + 4);
  const d = view.getUint32(at + 12);
  rec.unwritten = a >= 0x8000_0000;
  rec.startoff = (a & 0x7fff_ffff) * 2 ** 23 + (b >>> 9);
  rec.startblock = (b & 0x1ff) * 2 ** 43 + view.getUint32(at + 8) * 2 ** 11 +
    (d >>> 21);
  rec.count = d & F.XFS_MAX_BMBT_EXTLEN;
}

/** First file block of a record (kernel: `xfs_bmbt_disk_get_startoff`). */
export function xfsBmbtDiskGetStartoff(view: DataView, at: number): number {
  return (view.getUint32(at) & 0x7fff_ffff) * 2 ** 23 +
    (view.getUint32(at + 4) >>> 9);
}

/** Encodes a record (kernel: `xfs_bmbt_disk_set_all`). */
export function xfsBmbtDiskSetAll(
  view: DataView,
  at: number,
  rec: BmbtIrec,
): void {
  const { startoff, startblock } = rec;
  const high = Math.floor(startoff / 2 ** 23);
  const low = startoff - high * 2 ** 23;
  const blockHigh = Math.floor(startblock / 2 ** 43);
  const blockRest = startblock - blockHigh * 2 ** 43;
  const blockMid = Math.floor(blockRest / 2 ** 11);
  view.setUint32(at, high + (rec.unwritten ? 0x8000_0000 : 0));
  view.setUint32(at + 4, low * 2 ** 9 + blockHigh);
  view.setUint32(at + 8, blockMid);
  const blockLow = blockRest - blockMid * 2 ** 11;
  view.setUint32(at + 12, blockLow * 2 ** 21 + rec.count);
}

/** First file block that there cannot be: the largest file has as many of the smallest
 * blocks. */
export const MAX_FILEOFF: number = 2 ** 53;

/**
 * Whether an extent of a fork can be (kernel: `xfs_bmap_validate_extent`).
 *
 * @returns null, or the check that failed with the value.
 */
export function xfsBmapValidateExtent(
  mp: XfsMount,
  whichfork: number,
  rec: BmbtIrec,
): string | null {
  if (rec.startoff > MAX_FILEOFF - rec.count) {
    return `extent at file block ${rec.startoff}`;
  }
  if (!mp.sb.verifyFsbext(rec.startblock, rec.count)) {
    return `extent of ${rec.count} blocks at ${rec.startblock}`;
  }
  if (rec.unwritten && whichfork !== F.XFS_DATA_FORK) {
    return `unwritten extent at file block ${rec.startoff}`;
  }
  return null;
}

// ---- the root in the inode ----

/** Most children that a root of so many bytes on disk has (kernel:
 * `xfs_bmdr_maxrecs`). */
export function xfsBmdrMaxrecs(bytes: number): number {
  return Math.floor((bytes - BMDR_HDR_LEN) / (2 * BMBT_KEY_LEN));
}

/** Bytes on disk of a root with so many children (kernel: `xfs_bmdr_space_calc`). */
export function xfsBmdrSpaceCalc(nrecs: number): number {
  return BMDR_HDR_LEN + nrecs * 2 * BMBT_KEY_LEN;
}

/** Bytes on disk that a root needs (kernel: `xfs_bmap_bmdr_space`). */
export function xfsBmapBmdrSpace(broot: XfsBtreeBlock): number {
  return xfsBmdrSpaceCalc(broot.view.getUint16(F.BB_NUMRECS));
}

/** A root without children, in the memory form.
 * @param room Children that it has room for. */
export function xfsBrootAlloc(room: number, level: number): XfsBtreeBlock {
  const data = new Uint8Array(BROOT_HDR_LEN + room * 2 * BMBT_KEY_LEN);
  const view = new DataView(data.buffer);
  view.setUint32(F.BB_MAGIC, F.XFS_BMAP_CRC_MAGIC);
  view.setUint16(F.BB_LEVEL, level);
  putU64(view, F.LBB_LEFTSIB, F.NULLFSBLOCK);
  putU64(view, F.LBB_RIGHTSIB, F.NULLFSBLOCK);
  return { data, view };
}

/** Children that a root in memory has room for. */
function brootRoom(broot: XfsBtreeBlock): number {
  return (broot.data.length - BROOT_HDR_LEN) / (2 * BMBT_KEY_LEN);
}

/** Byte of the first pointer of a root in memory. */
export function xfsBrootPtrAt(broot: XfsBtreeBlock): number {
  return BROOT_HDR_LEN + brootRoom(broot) * BMBT_KEY_LEN;
}

/** Reads a root from disk (kernel: `xfs_bmdr_to_bmbt`). Its count has been checked.
 * @param size Bytes of the fork. */
export function xfsBmdrToBmbt(
  data: Uint8Array,
  at: number,
  size: number,
): XfsBtreeBlock {
  const view = new DataView(data.buffer, data.byteOffset + at, size);
  const room = xfsBmdrMaxrecs(size);
  const nrecs = view.getUint16(2);
  const broot = xfsBrootAlloc(room, view.getUint16(0));
  broot.view.setUint16(F.BB_NUMRECS, nrecs);
  const keys = at + BMDR_HDR_LEN;
  const ptrs = keys + room * BMBT_KEY_LEN;
  const len = nrecs * BMBT_KEY_LEN;
  broot.data.set(data.subarray(keys, keys + len), BROOT_HDR_LEN);
  broot.data.set(data.subarray(ptrs, ptrs + len), xfsBrootPtrAt(broot));
  return broot;
}

/** Writes a root to disk (kernel: `xfs_bmbt_to_bmdr`).
 * @param size Bytes of the fork. */
export function xfsBmbtToBmdr(
  broot: XfsBtreeBlock,
  data: Uint8Array,
  at: number,
  size: number,
): void {
  const view = new DataView(data.buffer, data.byteOffset + at, size);
  const nrecs = broot.view.getUint16(F.BB_NUMRECS);
  view.setUint16(0, broot.view.getUint16(F.BB_LEVEL));
  view.setUint16(2, nrecs);
  const keys = at + BMDR_HDR_LEN;
  const ptrs = keys + xfsBmdrMaxrecs(size) * BMBT_KEY_LEN;
  const len = nrecs * BMBT_KEY_LEN;
  const from = xfsBrootPtrAt(broot);
  data.set(broot.data.subarray(BROOT_HDR_LEN, BROOT_HDR_LEN + len), keys);
  data.set(broot.data.subarray(from, from + len), ptrs);
}

/** The root of a fork, with the room that the fork has now. */
export function xfsIforkBroot(ip: XfsInode, whichfork: number): XfsBtreeBlock {
  const fork = xfsIforkPtr(ip, whichfork)!;
  const old = fork.broot!;
  const room = xfsBmdrMaxrecs(xfsInodeForkSize(ip, whichfork));
  if (brootRoom(old) === room) return old;
  const nrecs = old.view.getUint16(F.BB_NUMRECS);
  bugOn(nrecs > room, `root of ${nrecs} in a fork for ${room}`);
  const broot = xfsBrootAlloc(room, old.view.getUint16(F.BB_LEVEL));
  broot.view.setUint16(F.BB_NUMRECS, nrecs);
  const len = nrecs * BMBT_KEY_LEN;
  const from = xfsBrootPtrAt(old);
  const keys = old.data.subarray(BROOT_HDR_LEN, BROOT_HDR_LEN + len);
  broot.data.set(keys, BROOT_HDR_LEN);
  broot.data.set(old.data.subarray(from, from + len), xfsBrootPtrAt(broot));
  return fork.broot = broot;
}

// ---- the tree ----

function compare(a: number, b: number): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

class BmbtOps extends XfsBtreeOps<BmbtIrec> {
  constructor() {
    super(
      "xfs_bmbt",
      F.XFS_BMAP_CRC_MAGIC,
      8,
      BMBT_REC_LEN,
      BMBT_KEY_LEN,
    );
  }

  newRec(): BmbtIrec {
    return new BmbtIrec();
  }

  copyRec(from: BmbtIrec, to: BmbtIrec): void {
    to.copy(from);
  }

  getRec(view: DataView, at: number, rec: BmbtIrec): void {
    xfsBmbtDiskGetAll(view, at, rec);
  }

  putRec(view: DataView, at: number, rec: BmbtIrec): void {
    xfsBmbtDiskSetAll(view, at, rec);
  }

  initKeyFromRec(
    key: DataView,
    keyAt: number,
    rec: DataView,
    recAt: number,
  ): void {
    putU64(key, keyAt, xfsBmbtDiskGetStartoff(rec, recAt));
  }

  initHighKeyFromRec(
    key: DataView,
    keyAt: number,
    rec: DataView,
    recAt: number,
  ): void {
    const count = rec.getUint32(recAt + 12) & F.XFS_MAX_BMBT_EXTLEN;
    putU64(key, keyAt, xfsBmbtDiskGetStartoff(rec, recAt) + count - 1);
  }

  cmpKeyWithRec(view: DataView, keyAt: number, rec: BmbtIrec): number {
    return compare(getU64(view, keyAt), rec.startoff);
  }

  cmpRecWithRec(view: DataView, recAt: number, rec: BmbtIrec): number {
    return compare(xfsBmbtDiskGetStartoff(view, recAt), rec.startoff);
  }

  cmpTwoKeys(a: DataView, aAt: number, b: DataView, bAt: number): number {
    return compare(getU64(a, aAt), getU64(b, bAt));
  }

  recsInorder(view: DataView, aAt: number, bAt: number): boolean {
    const count = view.getUint32(aAt + 12) & F.XFS_MAX_BMBT_EXTLEN;
    return xfsBmbtDiskGetStartoff(view, aAt) + count <=
      xfsBmbtDiskGetStartoff(view, bAt);
  }

  maxlevels(mp: XfsMount): number {
    return mp.maxlevels.bmapData;
  }

  override iroot(cur: XfsBtreeCur<BmbtIrec>): XfsBtreeBlock {
    return xfsIforkBroot(cur.ip!, cur.whichfork);
  }

  override irootMaxrecs(cur: XfsBtreeCur<BmbtIrec>): number {
    return xfsBmdrMaxrecs(xfsInodeForkSize(cur.ip!, cur.whichfork));
  }

  override logIroot(cur: XfsBtreeCur<BmbtIrec>): void {
    const attr = cur.whichfork === F.XFS_ATTR_FORK;
    cur.tp!.logInode(cur.ip!, attr ? XFS_ILOG_ABROOT : XFS_ILOG_DBROOT);
  }

  allocBlock(cur: XfsBtreeCur<BmbtIrec>, near: number): number {
    const wasdel = (cur.flags & XFS_BTREE_BMBT_WASDEL) !== 0;
    const { tp, ip, whichfork } = cur;
    const minleft = xfsBmapiMinleft(tp, ip!, whichfork);
    const ptr = xfsBmbtAllocBlock(tp!, ip!, whichfork, near, wasdel, minleft);
    if (ptr > 0) cur.allocated++;
    return ptr;
  }

  freeBlock(cur: XfsBtreeCur<BmbtIrec>, bp: XfsBuf): number {
    const { tp, ip, whichfork, mp } = cur;
    const fsbno = mp.sb.daddrToFsb(bp.daddr);
    return xfsBmbtFreeBlock(tp!, ip!, whichfork, fsbno);
  }
}

/**
 * Allocates a block for a fork's tree and counts it (kernel: `xfs_bmbt_alloc_block`).
 *
 * @param near Block that it should be near.
 * @param wasdel It has been promised.
 * @param minleft Blocks that must be left in the group, if there is a choice.
 * @returns The block; 0 if there is no space, or none is reserved; a negative errno.
 */
export function xfsBmbtAllocBlock(
  tp: XfsTrans,
  ip: XfsInode,
  whichfork: number,
  near: number,
  wasdel: boolean,
  minleft: number,
): number {
  if (!wasdel && tp.blkRes === 0) return 0;
  const args = new XfsAllocArg().init(tp);
  args.oinfo = xfsRmapInoBmbtOwner(ip.ino, whichfork);
  args.wasdel = wasdel;
  args.minleft = minleft;
  let error = xfsAllocVextentStartAg(args, near);
  if (error === 0 && args.fsbno === F.NULLFSBLOCK && minleft > 0) {
    // One from anywhere, even if none is left for the next.
    args.minleft = 0;
    error = xfsAllocVextentStartAg(args, 0);
    tp.lowmode = true;
  }
  if (error < 0) return error;
  if (args.fsbno === F.NULLFSBLOCK) return 0;
  ip.nblocks++;
  tp.logInode(ip, XFS_ILOG_CORE);
  return args.fsbno;
}

/** Frees a block of a fork's tree when the transaction commits (kernel:
 * `xfs_bmbt_free_block`).
 * @returns 0, or -EFSCORRUPTED if there is no such block. */
export function xfsBmbtFreeBlock(
  tp: XfsTrans,
  ip: XfsInode,
  whichfork: number,
  fsbno: number,
): number {
  const owner = xfsRmapInoBmbtOwner(ip.ino, whichfork);
  const error = xfsFreeExtentLater(tp, fsbno, 1, owner, XFS_AG_RESV_NONE);
  if (error < 0) return error;
  ip.nblocks--;
  tp.logInode(ip, XFS_ILOG_CORE);
  return 0;
}

/** The tree of extents. */
export const xfsBmbtOps: XfsBtreeOps<BmbtIrec> = new BmbtOps();

/** A cursor into the tree of a fork (kernel: `xfs_bmbt_init_cursor`). */
export function xfsBmbtInitCursor(
  mp: XfsMount,
  tp: XfsTrans | null,
  ip: XfsInode,
  whichfork: number,
): XfsBtreeCur<BmbtIrec> {
  const cur = xfsBtreeAllocCursor(mp, tp, xfsBmbtOps);
  cur.ip = ip;
  cur.whichfork = whichfork;
  const broot = xfsIforkBroot(ip, whichfork);
  cur.nlevels = broot.view.getUint16(F.BB_LEVEL) + 1;
  return cur;
}
