/**
 * The tree of reference counts of a group: ranges with two references or more, and
 * after them, told apart by a bit of their start, ranges allocated for copies to come.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_refcount_btree.c.
 *
 * @module
 */

import type { XfsMount } from "../mount.ts";
import { XFS_AG_RESV_METADATA } from "./ag-resv.ts";
import type { XfsPerag } from "./ag.ts";
import {
  XfsAllocArg,
  xfsAllocVextentNearBno,
  xfsFreeExtentLater,
} from "./alloc.ts";
import {
  XfsAgBtreeOps,
  xfsBtreeAgCursor,
  xfsBtreeComputeMaxlevels,
  type XfsBtreeCur,
} from "./btree.ts";
import type { XfsBuf } from "./buf.ts";
import * as F from "./format.ts";
import { XFS_RMAP_OINFO_REFC } from "./rmap.ts";
import type { XfsSb } from "./sb.ts";
import type { XfsTrans } from "./trans.ts";

/** References of files (kernel: `XFS_REFC_DOMAIN_SHARED`). */
export const XFS_REFC_DOMAIN_SHARED = 0;
/** Blocks allocated for copies to come (kernel: `XFS_REFC_DOMAIN_COW`). */
export const XFS_REFC_DOMAIN_COW = 1;

/** A range of blocks with one count (kernel: `struct xfs_refcount_irec`). */
export class XfsRefcountIrec {
  /** First block, within the group. */
  startblock = 0;
  /** Blocks. */
  blockcount = 0;
  /** References. */
  refcount = 0;
  /** `XFS_REFC_DOMAIN_*`. */
  domain = XFS_REFC_DOMAIN_SHARED;

  /** Fills in all fields; returns itself. */
  set(
    startblock: number,
    blockcount: number,
    refcount: number,
    domain: number,
  ): this {
    this.startblock = startblock;
    this.blockcount = blockcount;
    this.refcount = refcount;
    this.domain = domain;
    return this;
  }

  /** Takes over another's fields; returns itself. */
  copy(from: XfsRefcountIrec): this {
    const { startblock, blockcount, refcount, domain } = from;
    return this.set(startblock, blockcount, refcount, domain);
  }

  /** First block after it. */
  get end(): number {
    return this.startblock + this.blockcount;
  }
}

/** A cursor in the tree. */
export type XfsRefcountCur = XfsBtreeCur<XfsRefcountIrec>;

const REC_LEN = 12;
const KEY_LEN = 4;
const REC_COUNT = 4;
const REC_REFCOUNT = 8;

/** The start as it is on disk (kernel: `xfs_refcount_encode_startblock`). */
function encodeStart(rec: XfsRefcountIrec): number {
  return rec.domain === XFS_REFC_DOMAIN_COW
    ? rec.startblock + F.XFS_REFC_COWFLAG
    : rec.startblock;
}

class RefcountbtOps extends XfsAgBtreeOps<XfsRefcountIrec> {
  constructor() {
    super(
      "xfs_refcountbt",
      F.XFS_REFC_CRC_MAGIC,
      REC_LEN,
      KEY_LEN,
      F.AGF_REFCNTROOT,
      F.AGF_REFCNTLEVEL,
    );
  }

  newRec(): XfsRefcountIrec {
    return new XfsRefcountIrec();
  }

  copyRec(from: XfsRefcountIrec, to: XfsRefcountIrec): void {
    to.copy(from);
  }

  getRec(view: DataView, at: number, rec: XfsRefcountIrec): void {
    const start = view.getUint32(at);
    const cow = start >= F.XFS_REFC_COWFLAG;
    rec.startblock = cow ? start - F.XFS_REFC_COWFLAG : start;
    rec.domain = cow ? XFS_REFC_DOMAIN_COW : XFS_REFC_DOMAIN_SHARED;
    rec.blockcount = view.getUint32(at + REC_COUNT);
    rec.refcount = view.getUint32(at + REC_REFCOUNT);
  }

  putRec(view: DataView, at: number, rec: XfsRefcountIrec): void {
    view.setUint32(at, encodeStart(rec));
    view.setUint32(at + REC_COUNT, rec.blockcount);
    view.setUint32(at + REC_REFCOUNT, rec.refcount);
  }

  initKeyFromRec(
    key: DataView,
    keyAt: number,
    rec: DataView,
    recAt: number,
  ): void {
    key.setUint32(keyAt, rec.getUint32(recAt));
  }

  initHighKeyFromRec(
    key: DataView,
    keyAt: number,
    rec: DataView,
    recAt: number,
  ): void {
    const last = rec.getUint32(recAt) + rec.getUint32(recAt + REC_COUNT) - 1;
    key.setUint32(keyAt, last);
  }

  cmpKeyWithRec(view: DataView, keyAt: number, rec: XfsRefcountIrec): number {
    return view.getUint32(keyAt) - encodeStart(rec);
  }

  cmpRecWithRec(view: DataView, recAt: number, rec: XfsRefcountIrec): number {
    return view.getUint32(recAt) - encodeStart(rec);
  }

  cmpTwoKeys(a: DataView, aAt: number, b: DataView, bAt: number): number {
    return a.getUint32(aAt) - b.getUint32(bAt);
  }

  recsInorder(view: DataView, aAt: number, bAt: number): boolean {
    const count = view.getUint32(aAt + REC_COUNT);
    return count > 0 && view.getUint32(aAt) + count <= view.getUint32(bAt);
  }

  maxlevels(mp: XfsMount): number {
    return mp.maxlevels.refcount;
  }

  /** Kernel: `xfs_refcountbt_alloc_block`. */
  allocBlock(cur: XfsRefcountCur, _near: number): number {
    const tp = cur.tp!;
    const { mp } = cur;
    const args = new XfsAllocArg().init(tp);
    args.pag = cur.pag;
    args.oinfo = XFS_RMAP_OINFO_REFC;
    args.resv = XFS_AG_RESV_METADATA;
    const target = mp.sb.agbToFsb(cur.pag!.agno, xfsRefcBlock(mp));
    const error = xfsAllocVextentNearBno(args, target);
    if (error < 0) return error;
    if (args.fsbno === F.NULLFSBLOCK) return 0;
    countBlocks(cur, 1);
    return args.agbno;
  }

  /** Kernel: `xfs_refcountbt_free_block`. */
  freeBlock(cur: XfsRefcountCur, bp: XfsBuf): number {
    countBlocks(cur, -1);
    return xfsFreeExtentLater(
      cur.tp!,
      cur.mp.sb.daddrToFsb(bp.daddr),
      1,
      XFS_RMAP_OINFO_REFC,
      XFS_AG_RESV_METADATA,
    );
  }

  protected override setLevel(pag: XfsPerag, level: number): void {
    pag.pagfRefcountLevel = level;
  }
}

function countBlocks(cur: XfsRefcountCur, n: number): void {
  const { view } = cur.agbp!;
  const blocks = view.getUint32(F.AGF_REFCNTBLOCKS) + n;
  view.setUint32(F.AGF_REFCNTBLOCKS, blocks);
  cur.tp!.logBuf(cur.agbp!, F.AGF_REFCNTBLOCKS, F.AGF_REFCNTBLOCKS + 3);
}

/** Block of a group where mkfs puts the root: after those of the other trees (kernel:
 * `xfs_refc_block`). */
function xfsRefcBlock(mp: XfsMount): number {
  const { headerBlocks, hasFinobt, hasRmapbt } = mp.sb;
  return headerBlocks + 3 + (hasFinobt ? 1 : 0) + (hasRmapbt ? 1 : 0);
}

/** The tree (kernel: `xfs_refcountbt_ops`). */
export const xfsRefcountbtOps: XfsAgBtreeOps<XfsRefcountIrec> =
  new RefcountbtOps();

/** A cursor in the tree (kernel: `xfs_refcountbt_init_cursor`).
 * @param agbp Buffer of the AGF. */
export function xfsRefcountbtInitCursor(
  mp: XfsMount,
  tp: XfsTrans | null,
  agbp: XfsBuf,
  pag: XfsPerag,
): XfsRefcountCur {
  return xfsBtreeAgCursor(mp, tp, xfsRefcountbtOps, agbp, pag);
}

/** Most levels of the tree, 0 without reflink: every block has a record of its own
 * (kernel: `xfs_refcountbt_compute_maxlevels`). */
export function xfsRefcountbtComputeMaxlevels(sb: XfsSb): number {
  if (!sb.hasReflink) return 0;
  return xfsBtreeComputeMaxlevels(sb, xfsRefcountbtOps, sb.agblocks);
}
