/**
 * The tree of reverse mappings of a group: which blocks belong to whom, and to what of
 * them. Its records may overlap, as blocks may be shared.
 *
 * Its blocks come from the AGFL, like those of the free-space trees: every allocation
 * changes it, so it cannot be what allocates.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_rmap_btree.c.
 *
 * @module
 */

import type { XfsMount } from "../mount.ts";
import {
  XFS_AG_RESV_RMAPBT,
  xfsAgResvAllocExtent,
  xfsAgResvFreeExtent,
} from "./ag-resv.ts";
import type { XfsPerag } from "./ag.ts";
import { xfsAllocGetFreelist, xfsAllocPutFreelist } from "./alloc.ts";
import {
  XfsAgBtreeOps,
  xfsBtreeAgCursor,
  xfsBtreeComputeMaxlevels,
  type XfsBtreeCur,
  xfsBtreeSpaceToHeight,
} from "./btree.ts";
import type { XfsBuf } from "./buf.ts";
import { getU64, putU64 } from "./bytes.ts";
import { xfsExtentBusyInsert, xfsExtentBusyReuse } from "./extent-busy.ts";
import * as F from "./format.ts";
import type { XfsSb } from "./sb.ts";
import type { XfsTrans } from "./trans.ts";

/** A reverse mapping (kernel: `struct xfs_rmap_irec`). */
export class XfsRmapIrec {
  /** First block, within the group. */
  startblock = 0;
  /** Blocks. */
  blockcount = 0;
  /** Inode number, or `XFS_RMAP_OWN_*`. */
  owner = 0;
  /** File block that the first block is; 0 for blocks that are not of a fork's contents.
   * NaN if bits that have no meaning are set on disk. */
  offset = 0;
  /** `XFS_RMAP_ATTR_FORK` and so on. */
  flags = 0;

  /** Fills in all fields; returns itself. */
  set(
    startblock: number,
    blockcount: number,
    owner: number,
    offset: number,
    flags: number,
  ): this {
    this.startblock = startblock;
    this.blockcount = blockcount;
    this.owner = owner;
    this.offset = offset;
    this.flags = flags;
    return this;
  }

  /** Takes over another's fields; returns itself. */
  copy(from: XfsRmapIrec): this {
    const { startblock, blockcount, owner, offset, flags } = from;
    return this.set(startblock, blockcount, owner, offset, flags);
  }

  /** First block after it. */
  get end(): number {
    return this.startblock + this.blockcount;
  }
}

/** A cursor in the tree. */
export type XfsRmapCur = XfsBtreeCur<XfsRmapIrec>;

const REC_LEN = 24;
const REC_COUNT = 4;
const REC_OWNER = 8;
const REC_OFFSET = 16;

// Keys are packed: block, owner and offset.
const KEY_LEN = 20;
const KEY_OWNER = 4;
const KEY_OFFSET = 12;

// Upper half of an offset: flags, and the upper bits of the file block.
const OFF_ATTR: number = 2 ** 31;
const OFF_BMBT: number = 2 ** 30;
const OFF_UNWRITTEN: number = 2 ** 29;
const OFF_UNDEFINED = 0x1fc0_0000;
const OFF_HIGH_MASK = 0x003f_ffff;
/** What of it is part of a key: all but whether the blocks are written. */
const OFF_KEY_MASK = 0xdfff_ffff;

/** Whether an owner is no inode (kernel: `XFS_RMAP_NON_INODE_OWNER`). */
export function xfsRmapNonInodeOwner(owner: number): boolean {
  return owner < 0;
}

/** Whether a mapping has no place in a file: it is no inode's, or of a block of an
 * inode's tree. */
export function xfsRmapIgnoresOffset(owner: number, flags: number): boolean {
  return owner < 0 || (flags & F.XFS_RMAP_BMBT_BLOCK) !== 0;
}

/** Upper half of the offset of a record on disk. */
function packHigh(rec: XfsRmapIrec): number {
  const { flags } = rec;
  let high = Math.floor(rec.offset / 2 ** 32);
  if ((flags & F.XFS_RMAP_ATTR_FORK) !== 0) high += OFF_ATTR;
  if ((flags & F.XFS_RMAP_BMBT_BLOCK) !== 0) high += OFF_BMBT;
  if ((flags & F.XFS_RMAP_UNWRITTEN) !== 0) high += OFF_UNWRITTEN;
  return high;
}

function unpackFlags(high: number): number {
  let flags = 0;
  if ((high & OFF_ATTR) !== 0) flags |= F.XFS_RMAP_ATTR_FORK;
  if ((high & OFF_BMBT) !== 0) flags |= F.XFS_RMAP_BMBT_BLOCK;
  if ((high & OFF_UNWRITTEN) !== 0) flags |= F.XFS_RMAP_UNWRITTEN;
  return flags;
}

/** Compares two owners as the unsigned numbers that they are on disk: special ones come
 * last. */
function cmpOwners(a: number, b: number): number {
  if ((a < 0) !== (b < 0)) return a < 0 ? 1 : -1;
  return a - b;
}

/** Compares a block, an owner and an offset on disk with those of a record. */
function cmpWithRec(
  view: DataView,
  at: number,
  ownerAt: number,
  offsetAt: number,
  rec: XfsRmapIrec,
): number {
  const diff = view.getUint32(at) - rec.startblock;
  if (diff !== 0) return diff;
  const owners = cmpOwners(getU64(view, ownerAt), rec.owner);
  if (owners !== 0) return owners;
  const high = (view.getUint32(offsetAt) & OFF_KEY_MASK) >>> 0;
  const recHigh = (packHigh(rec) & OFF_KEY_MASK) >>> 0;
  if (high !== recHigh) return high - recHigh;
  return view.getUint32(offsetAt + 4) - rec.offset % 2 ** 32;
}

/** Compares eight bytes as unsigned numbers; `mask` says what of the upper half counts. */
function cmpWide(
  a: DataView,
  aAt: number,
  b: DataView,
  bAt: number,
  mask: number,
): number {
  const diff = ((a.getUint32(aAt) & mask) >>> 0) -
    ((b.getUint32(bAt) & mask) >>> 0);
  return diff !== 0 ? diff : a.getUint32(aAt + 4) - b.getUint32(bAt + 4);
}

class RmapbtOps extends XfsAgBtreeOps<XfsRmapIrec> {
  constructor() {
    super(
      "xfs_rmapbt",
      F.XFS_RMAP_CRC_MAGIC,
      REC_LEN,
      KEY_LEN,
      F.AGF_RMAPROOT,
      F.AGF_RMAPLEVEL,
      true,
    );
  }

  newRec(): XfsRmapIrec {
    return new XfsRmapIrec();
  }

  copyRec(from: XfsRmapIrec, to: XfsRmapIrec): void {
    to.copy(from);
  }

  getRec(view: DataView, at: number, rec: XfsRmapIrec): void {
    const high = view.getUint32(at + REC_OFFSET);
    const low = view.getUint32(at + REC_OFFSET + 4);
    rec.startblock = view.getUint32(at);
    rec.blockcount = view.getUint32(at + REC_COUNT);
    rec.owner = getU64(view, at + REC_OWNER);
    rec.offset = (high & OFF_UNDEFINED) !== 0
      ? NaN
      : (high & OFF_HIGH_MASK) * 2 ** 32 + low;
    rec.flags = unpackFlags(high);
  }

  putRec(view: DataView, at: number, rec: XfsRmapIrec): void {
    view.setUint32(at, rec.startblock);
    view.setUint32(at + REC_COUNT, rec.blockcount);
    putU64(view, at + REC_OWNER, rec.owner);
    view.setUint32(at + REC_OFFSET, packHigh(rec));
    view.setUint32(at + REC_OFFSET + 4, rec.offset % 2 ** 32);
  }

  initKeyFromRec(
    key: DataView,
    keyAt: number,
    rec: DataView,
    recAt: number,
  ): void {
    key.setUint32(keyAt, rec.getUint32(recAt));
    key.setUint32(keyAt + KEY_OWNER, rec.getUint32(recAt + REC_OWNER));
    key.setUint32(keyAt + KEY_OWNER + 4, rec.getUint32(recAt + REC_OWNER + 4));
    const high = rec.getUint32(recAt + REC_OFFSET) & OFF_KEY_MASK;
    key.setUint32(keyAt + KEY_OFFSET, high);
    const low = rec.getUint32(recAt + REC_OFFSET + 4);
    key.setUint32(keyAt + KEY_OFFSET + 4, low);
  }

  initHighKeyFromRec(
    key: DataView,
    keyAt: number,
    rec: DataView,
    recAt: number,
  ): void {
    this.initKeyFromRec(key, keyAt, rec, recAt);
    const more = rec.getUint32(recAt + REC_COUNT) - 1;
    key.setUint32(keyAt, rec.getUint32(recAt) + more);
    const high = rec.getUint32(recAt + REC_OFFSET);
    const special = rec.getUint32(recAt + REC_OWNER) >= 2 ** 31;
    if (special || (high & OFF_BMBT) !== 0) return;
    const low = rec.getUint32(recAt + REC_OFFSET + 4) + more;
    const carry = low >= 2 ** 32 ? 1 : 0;
    key.setUint32(keyAt + KEY_OFFSET, (high & OFF_KEY_MASK) + carry);
    key.setUint32(keyAt + KEY_OFFSET + 4, low);
  }

  cmpKeyWithRec(view: DataView, keyAt: number, rec: XfsRmapIrec): number {
    const owner = keyAt + KEY_OWNER;
    return cmpWithRec(view, keyAt, owner, keyAt + KEY_OFFSET, rec);
  }

  cmpRecWithRec(view: DataView, recAt: number, rec: XfsRmapIrec): number {
    const owner = recAt + REC_OWNER;
    return cmpWithRec(view, recAt, owner, recAt + REC_OFFSET, rec);
  }

  cmpTwoKeys(a: DataView, aAt: number, b: DataView, bAt: number): number {
    const diff = a.getUint32(aAt) - b.getUint32(bAt);
    if (diff !== 0) return diff;
    const all = 0xffff_ffff;
    const owners = cmpWide(a, aAt + KEY_OWNER, b, bAt + KEY_OWNER, all);
    if (owners !== 0) return owners;
    return cmpWide(a, aAt + KEY_OFFSET, b, bAt + KEY_OFFSET, OFF_KEY_MASK);
  }

  recsInorder(view: DataView, aAt: number, bAt: number): boolean {
    const diff = view.getUint32(aAt) - view.getUint32(bAt);
    if (diff !== 0) return diff < 0;
    const all = 0xffff_ffff;
    const owners = cmpWide(view, aAt + REC_OWNER, view, bAt + REC_OWNER, all);
    if (owners !== 0) return owners < 0;
    const [a, b] = [aAt + REC_OFFSET, bAt + REC_OFFSET];
    return cmpWide(view, a, view, b, OFF_KEY_MASK) < 0;
  }

  maxlevels(mp: XfsMount): number {
    return mp.maxlevels.rmap;
  }

  /** Takes a block from the AGFL (kernel: `xfs_rmapbt_alloc_block`). */
  allocBlock(cur: XfsRmapCur, _near: number): number {
    const pag = cur.pag!;
    const tp = cur.tp!;
    const agbno = xfsAllocGetFreelist(pag, tp, cur.agbp!, true);
    if (agbno <= 0) return agbno;
    xfsExtentBusyReuse(pag, agbno, 1);
    countBlocks(cur, 1);
    xfsAgResvAllocExtent(pag, XFS_AG_RESV_RMAPBT, tp, 1, false);
    return agbno;
  }

  /** Puts a block on the AGFL (kernel: `xfs_rmapbt_free_block`). */
  freeBlock(cur: XfsRmapCur, bp: XfsBuf): number {
    const pag = cur.pag!;
    const tp = cur.tp!;
    const agbno = cur.mp.sb.daddrToAgbno(bp.daddr);
    countBlocks(cur, -1);
    const error = xfsAllocPutFreelist(pag, tp, cur.agbp!, agbno, true);
    if (error < 0) return error;
    xfsExtentBusyInsert(pag, agbno, 1);
    xfsAgResvFreeExtent(pag, XFS_AG_RESV_RMAPBT, tp, 1);
    return 0;
  }

  protected override setLevel(pag: XfsPerag, level: number): void {
    pag.pagfRmapLevel = level;
  }
}

function countBlocks(cur: XfsRmapCur, n: number): void {
  const { view } = cur.agbp!;
  const blocks = view.getUint32(F.AGF_RMAPBLOCKS) + n;
  view.setUint32(F.AGF_RMAPBLOCKS, blocks);
  cur.tp!.logBuf(cur.agbp!, F.AGF_RMAPBLOCKS, F.AGF_RMAPBLOCKS + 3);
}

/** The tree (kernel: `xfs_rmapbt_ops`). */
export const xfsRmapbtOps: XfsAgBtreeOps<XfsRmapIrec> = new RmapbtOps();

/** A cursor in the tree (kernel: `xfs_rmapbt_init_cursor`).
 * @param agbp Buffer of the AGF. */
export function xfsRmapbtInitCursor(
  mp: XfsMount,
  tp: XfsTrans | null,
  agbp: XfsBuf,
  pag: XfsPerag,
): XfsRmapCur {
  return xfsBtreeAgCursor(mp, tp, xfsRmapbtOps, agbp, pag);
}

/** Most levels of the tree, 0 if there is none (kernel:
 * `xfs_rmapbt_compute_maxlevels`). With reflink, blocks may have any number of owners: the tree may fill its group. */
export function xfsRmapbtComputeMaxlevels(sb: XfsSb): number {
  const { hasRmapbt, hasReflink, agblocks } = sb;
  if (!hasRmapbt) return 0;
  if (!hasReflink) return xfsBtreeComputeMaxlevels(sb, xfsRmapbtOps, agblocks);
  const most = xfsBtreeSpaceToHeight(sb, xfsRmapbtOps, agblocks);
  return Math.min(most, F.XFS_BTREE_MAXLEVELS);
}
