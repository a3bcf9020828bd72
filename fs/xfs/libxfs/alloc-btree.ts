/**
 * The two trees of free extents of a group: by block and by size. Both hold the same
 * extents, none of which touch.
 *
 * Their blocks come from the AGFL: allocating one by the trees themselves would go
 * round in circles.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_alloc_btree.c.
 *
 * @module
 */

import type { XfsMount } from "../mount.ts";
import type { XfsPerag } from "./ag.ts";
import { xfsAllocGetFreelist, xfsAllocPutFreelist } from "./alloc.ts";
import {
  XfsAgBtreeOps,
  xfsBtreeAgCursor,
  xfsBtreeComputeMaxlevels,
  type XfsBtreeCur,
} from "./btree.ts";
import type { XfsBuf } from "./buf.ts";
import { xfsExtentBusyInsert, xfsExtentBusyReuse } from "./extent-busy.ts";
import * as F from "./format.ts";
import type { XfsSb } from "./sb.ts";
import type { XfsTrans } from "./trans.ts";

/** A free extent (kernel: `struct xfs_alloc_rec_incore`). */
export interface XfsAllocRec {
  /** First block, within the group. */
  startblock: number;
  /** Blocks. */
  blockcount: number;
}

/** A cursor in one of the two trees. */
export type XfsAllocCur = XfsBtreeCur<XfsAllocRec>;

const REC_LEN = 8;
const START = 0;
const COUNT = 4;

/** What both trees have in common: record and key are the same 8 bytes. */
abstract class AllocbtOps extends XfsAgBtreeOps<XfsAllocRec> {
  constructor(name: string, magic: number, rootAt: number, levelAt: number) {
    super(name, magic, REC_LEN, REC_LEN, rootAt, levelAt);
  }

  newRec(): XfsAllocRec {
    return { startblock: 0, blockcount: 0 };
  }

  copyRec(from: XfsAllocRec, to: XfsAllocRec): void {
    to.startblock = from.startblock;
    to.blockcount = from.blockcount;
  }

  getRec(view: DataView, at: number, rec: XfsAllocRec): void {
    rec.startblock = view.getUint32(at + START);
    rec.blockcount = view.getUint32(at + COUNT);
  }

  putRec(view: DataView, at: number, rec: XfsAllocRec): void {
    view.setUint32(at + START, rec.startblock);
    view.setUint32(at + COUNT, rec.blockcount);
  }

  initKeyFromRec(
    key: DataView,
    keyAt: number,
    rec: DataView,
    recAt: number,
  ): void {
    key.setUint32(keyAt + START, rec.getUint32(recAt + START));
    key.setUint32(keyAt + COUNT, rec.getUint32(recAt + COUNT));
  }

  cmpRecWithRec(view: DataView, recAt: number, rec: XfsAllocRec): number {
    return this.cmpKeyWithRec(view, recAt, rec);
  }

  maxlevels(mp: XfsMount): number {
    return mp.maxlevels.alloc;
  }

  /** Takes a block from the AGFL (kernel: `xfs_allocbt_alloc_block`). */
  allocBlock(cur: XfsAllocCur, _near: number): number {
    const pag = cur.pag!;
    const agbno = xfsAllocGetFreelist(pag, cur.tp!, cur.agbp!, true);
    if (agbno <= 0) return agbno;
    cur.mp.allocbtBlks++;
    xfsExtentBusyReuse(pag, agbno, 1);
    return agbno;
  }

  /** Puts a block on the AGFL (kernel: `xfs_allocbt_free_block`). */
  freeBlock(cur: XfsAllocCur, bp: XfsBuf): number {
    const pag = cur.pag!;
    const agbno = cur.mp.sb.daddrToAgbno(bp.daddr);
    const error = xfsAllocPutFreelist(pag, cur.tp!, cur.agbp!, agbno, true);
    if (error < 0) return error;
    cur.mp.allocbtBlks--;
    xfsExtentBusyInsert(pag, agbno, 1);
    return 0;
  }
}

class BnobtOps extends AllocbtOps {
  constructor() {
    super("xfs_bnobt", F.XFS_ABTB_CRC_MAGIC, F.AGF_BNOROOT, F.AGF_BNOLEVEL);
  }

  protected override setLevel(pag: XfsPerag, level: number): void {
    pag.pagfBnoLevel = level;
  }

  initHighKeyFromRec(
    key: DataView,
    keyAt: number,
    rec: DataView,
    recAt: number,
  ): void {
    const end = rec.getUint32(recAt + START) + rec.getUint32(recAt + COUNT);
    key.setUint32(keyAt + START, end - 1);
    key.setUint32(keyAt + COUNT, 0);
  }

  cmpKeyWithRec(view: DataView, keyAt: number, rec: XfsAllocRec): number {
    return view.getUint32(keyAt + START) - rec.startblock;
  }

  cmpTwoKeys(a: DataView, aAt: number, b: DataView, bAt: number): number {
    return a.getUint32(aAt + START) - b.getUint32(bAt + START);
  }

  recsInorder(view: DataView, aAt: number, bAt: number): boolean {
    const end = view.getUint32(aAt + START) + view.getUint32(aAt + COUNT);
    return end <= view.getUint32(bAt + START) &&
      view.getUint32(aAt + COUNT) > 0;
  }
}

class CntbtOps extends AllocbtOps {
  constructor() {
    super("xfs_cntbt", F.XFS_ABTC_CRC_MAGIC, F.AGF_CNTROOT, F.AGF_CNTLEVEL);
  }

  protected override setLevel(pag: XfsPerag, level: number): void {
    pag.pagfCntLevel = level;
  }

  initHighKeyFromRec(
    key: DataView,
    keyAt: number,
    rec: DataView,
    recAt: number,
  ): void {
    key.setUint32(keyAt + START, 0);
    key.setUint32(keyAt + COUNT, rec.getUint32(recAt + COUNT));
  }

  cmpKeyWithRec(view: DataView, keyAt: number, rec: XfsAllocRec): number {
    const diff = view.getUint32(keyAt + COUNT) - rec.blockcount;
    return diff !== 0 ? diff : view.getUint32(keyAt + START) - rec.startblock;
  }

  cmpTwoKeys(a: DataView, aAt: number, b: DataView, bAt: number): number {
    const diff = a.getUint32(aAt + COUNT) - b.getUint32(bAt + COUNT);
    if (diff !== 0) return diff;
    return a.getUint32(aAt + START) - b.getUint32(bAt + START);
  }

  recsInorder(view: DataView, aAt: number, bAt: number): boolean {
    return this.cmpTwoKeys(view, aAt, view, bAt) < 0;
  }
}

/** The tree by block (kernel: `xfs_bnobt_ops`). */
export const xfsBnobtOps: XfsAgBtreeOps<XfsAllocRec> = new BnobtOps();
/** The tree by size, then by block (kernel: `xfs_cntbt_ops`). */
export const xfsCntbtOps: XfsAgBtreeOps<XfsAllocRec> = new CntbtOps();

/** A cursor in the tree by block (kernel: `xfs_bnobt_init_cursor`).
 * @param agbp Buffer of the AGF. */
export function xfsBnobtInitCursor(
  mp: XfsMount,
  tp: XfsTrans | null,
  agbp: XfsBuf,
  pag: XfsPerag,
): XfsAllocCur {
  return xfsBtreeAgCursor(mp, tp, xfsBnobtOps, agbp, pag);
}

/** A cursor in the tree by size (kernel: `xfs_cntbt_init_cursor`).
 * @param agbp Buffer of the AGF. */
export function xfsCntbtInitCursor(
  mp: XfsMount,
  tp: XfsTrans | null,
  agbp: XfsBuf,
  pag: XfsPerag,
): XfsAllocCur {
  return xfsBtreeAgCursor(mp, tp, xfsCntbtOps, agbp, pag);
}

/** Most levels of the trees: every other block is free, and the blocks of the
 * trees are as empty as can be (kernel: `xfs_alloc_compute_maxlevels`). */
export function xfsAllocComputeMaxlevels(sb: XfsSb): number {
  const records = Math.ceil(sb.agblocks / 2);
  return xfsBtreeComputeMaxlevels(sb, xfsBnobtOps, records);
}
