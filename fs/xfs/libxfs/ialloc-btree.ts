/**
 * The two trees of inodes of a group: of all chunks of 64, and of those with a free
 * inode. A record of the second is the same as that of the first.
 *
 * A chunk need not be there as a whole: where space is in pieces, a bit of the hole
 * mask stands for four inodes that have no blocks. Their bits in the mask of free
 * inodes are set, but they do not count. Without the feature, the field of the hole
 * mask and the count is a wider counter of free inodes; it decodes to zeros, and who
 * reads records makes up for it ({@linkcode xfsInobtGetRec} of ialloc.ts).
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_ialloc_btree.c.
 *
 * @module
 */

import type { XfsMount } from "../mount.ts";
import {
  XFS_AG_RESV_METADATA,
  XFS_AG_RESV_NONE,
  type XfsAgResvType,
} from "./ag-resv.ts";
import type { XfsPerag } from "./ag.ts";
import {
  XfsAllocArg,
  xfsAllocVextentNearBno,
  xfsFreeExtentLater,
} from "./alloc.ts";
import { XfsAgBtreeOps, xfsBtreeAgCursor, type XfsBtreeCur } from "./btree.ts";
import type { XfsBuf } from "./buf.ts";
import * as F from "./format.ts";
import { XFS_RMAP_OINFO_INOBT } from "./rmap.ts";
import type { XfsTrans } from "./trans.ts";

/** A chunk of 64 inodes (kernel: `struct xfs_inobt_rec_incore`). Masks of 64 bits are
 * two words, neither below 0; bit 0 of the low one is the first inode. */
export interface XfsInobtRec {
  /** First inode, within the group. */
  startino: number;
  /** A bit for each four inodes that are not there. */
  holemask: number;
  /** Inodes that are there. */
  count: number;
  /** Free ones of them. */
  freecount: number;
  /** Inodes that are free or not there: the first 32. */
  freeLo: number;
  /** The other 32. */
  freeHi: number;
}

/** A cursor in one of the two trees. */
export type XfsInobtCur = XfsBtreeCur<XfsInobtRec>;

const REC_LEN = 16;
const KEY_LEN = 4;
const STARTINO = 0;
const HOLEMASK = 4;
const COUNT = 6;
const FREECOUNT = 7;
const FREE_HI = 8;
const FREE_LO = 12;

/** What both trees have in common: all but where the root and its counters are. */
class InobtOps extends XfsAgBtreeOps<XfsInobtRec> {
  readonly #blocksAt: number;

  constructor(
    name: string,
    magic: number,
    rootAt: number,
    levelAt: number,
    blocksAt: number,
  ) {
    super(name, magic, REC_LEN, KEY_LEN, rootAt, levelAt);
    this.#blocksAt = blocksAt;
  }

  newRec(): XfsInobtRec {
    return {
      startino: 0,
      holemask: 0,
      count: 0,
      freecount: 0,
      freeLo: 0,
      freeHi: 0,
    };
  }

  copyRec(from: XfsInobtRec, to: XfsInobtRec): void {
    to.startino = from.startino;
    to.holemask = from.holemask;
    to.count = from.count;
    to.freecount = from.freecount;
    to.freeLo = from.freeLo;
    to.freeHi = from.freeHi;
  }

  getRec(view: DataView, at: number, rec: XfsInobtRec): void {
    rec.startino = view.getUint32(at + STARTINO);
    rec.holemask = view.getUint16(at + HOLEMASK);
    rec.count = view.getUint8(at + COUNT);
    rec.freecount = view.getUint8(at + FREECOUNT);
    rec.freeHi = view.getUint32(at + FREE_HI);
    rec.freeLo = view.getUint32(at + FREE_LO);
  }

  putRec(view: DataView, at: number, rec: XfsInobtRec): void {
    view.setUint32(at + STARTINO, rec.startino);
    view.setUint16(at + HOLEMASK, rec.holemask);
    view.setUint8(at + COUNT, rec.count);
    view.setUint8(at + FREECOUNT, rec.freecount);
    view.setUint32(at + FREE_HI, rec.freeHi);
    view.setUint32(at + FREE_LO, rec.freeLo);
  }

  initKeyFromRec(
    key: DataView,
    keyAt: number,
    rec: DataView,
    recAt: number,
  ): void {
    key.setUint32(keyAt, rec.getUint32(recAt + STARTINO));
  }

  initHighKeyFromRec(
    key: DataView,
    keyAt: number,
    rec: DataView,
    recAt: number,
  ): void {
    const last = rec.getUint32(recAt + STARTINO) + F.XFS_INODES_PER_CHUNK - 1;
    key.setUint32(keyAt, last);
  }

  cmpKeyWithRec(view: DataView, keyAt: number, rec: XfsInobtRec): number {
    return view.getUint32(keyAt) - rec.startino;
  }

  cmpRecWithRec(view: DataView, recAt: number, rec: XfsInobtRec): number {
    return view.getUint32(recAt + STARTINO) - rec.startino;
  }

  cmpTwoKeys(a: DataView, aAt: number, b: DataView, bAt: number): number {
    return a.getUint32(aAt) - b.getUint32(bAt);
  }

  recsInorder(view: DataView, aAt: number, bAt: number): boolean {
    const end = view.getUint32(aAt + STARTINO) + F.XFS_INODES_PER_CHUNK;
    return end <= view.getUint32(bAt + STARTINO);
  }

  maxlevels(mp: XfsMount): number {
    return mp.maxlevels.inobt;
  }

  /** What its blocks are taken from (kernel: `xfs_finobt_alloc_block`). */
  protected resvType(_mp: XfsMount): XfsAgResvType {
    return XFS_AG_RESV_NONE;
  }

  /** Kernel: `__xfs_inobt_alloc_block`. */
  allocBlock(cur: XfsInobtCur, near: number): number {
    const pag = cur.pag!;
    const args = new XfsAllocArg().init(cur.tp!);
    args.pag = pag;
    args.oinfo = XFS_RMAP_OINFO_INOBT;
    args.resv = this.resvType(cur.mp);
    const target = cur.mp.sb.agbToFsb(pag.agno, near);
    const error = xfsAllocVextentNearBno(args, target);
    if (error < 0) return error;
    if (args.fsbno === F.NULLFSBLOCK) return 0;
    this.#modBlockcount(cur, 1);
    return cur.mp.sb.fsbToAgbno(args.fsbno);
  }

  /** Kernel: `__xfs_inobt_free_block`. */
  freeBlock(cur: XfsInobtCur, bp: XfsBuf): number {
    this.#modBlockcount(cur, -1);
    return xfsFreeExtentLater(
      cur.tp!,
      cur.mp.sb.daddrToFsb(bp.daddr),
      1,
      XFS_RMAP_OINFO_INOBT,
      this.resvType(cur.mp),
    );
  }

  /** Kernel: `xfs_inobt_mod_blockcount`. */
  #modBlockcount(cur: XfsInobtCur, blocks: number): void {
    if (!cur.mp.sb.hasInobtcounts) return;
    const { view } = cur.agbp!;
    const at = this.#blocksAt;
    view.setUint32(at, view.getUint32(at) + blocks);
    cur.tp!.logBuf(cur.agbp!, at, at + 3);
  }
}

/** The tree of free inodes is as large as it can be where space is in pieces, so blocks
 * are kept for it. */
class FinobtOps extends InobtOps {
  protected override resvType(mp: XfsMount): XfsAgResvType {
    return mp.finobtNores ? XFS_AG_RESV_NONE : XFS_AG_RESV_METADATA;
  }
}

/** The tree of all chunks (kernel: `xfs_inobt_ops`). */
export const xfsInobtOps: XfsAgBtreeOps<XfsInobtRec> = new InobtOps(
  "xfs_inobt",
  F.XFS_IBT_CRC_MAGIC,
  F.AGI_ROOT,
  F.AGI_LEVEL,
  F.AGI_IBLOCKS,
);
/** The tree of chunks with free inodes (kernel: `xfs_finobt_ops`). */
export const xfsFinobtOps: XfsAgBtreeOps<XfsInobtRec> = new FinobtOps(
  "xfs_finobt",
  F.XFS_FIBT_CRC_MAGIC,
  F.AGI_FREE_ROOT,
  F.AGI_FREE_LEVEL,
  F.AGI_FBLOCKS,
);

/** A cursor in the tree of all chunks (kernel: `xfs_inobt_init_cursor`).
 * @param agbp Buffer of the AGI. */
export function xfsInobtInitCursor(
  mp: XfsMount,
  tp: XfsTrans | null,
  agbp: XfsBuf,
  pag: XfsPerag,
): XfsInobtCur {
  return xfsBtreeAgCursor(mp, tp, xfsInobtOps, agbp, pag);
}

/** A cursor in the tree of chunks with free inodes (kernel:
 * `xfs_finobt_init_cursor`).
 * @param agbp Buffer of the AGI. */
export function xfsFinobtInitCursor(
  mp: XfsMount,
  tp: XfsTrans | null,
  agbp: XfsBuf,
  pag: XfsPerag,
): XfsInobtCur {
  return xfsBtreeAgCursor(mp, tp, xfsFinobtOps, agbp, pag);
}

// ---- masks ----

/** The 32 inodes that 8 bits of a hole mask stand for. */
const HOLES = new Uint32Array(256);
for (let bits = 0; bits < 256; bits++) {
  for (let i = 0; i < 8; i++) {
    if ((bits & 1 << i) !== 0) HOLES[bits]! |= 0xf << i * 4;
  }
}

/** First 32 inodes of a chunk: a bit for each that is not there (kernel: the opposite of
 * `xfs_inobt_irec_to_allocmask`). */
export function inobtHolesLo(rec: XfsInobtRec): number {
  return HOLES[rec.holemask & 0xff]!;
}

/** The same of the other 32. */
export function inobtHolesHi(rec: XfsInobtRec): number {
  return HOLES[rec.holemask >>> 8]!;
}

/** Bits that are set in a word (kernel: `hweight32`). */
export function hweight32(word: number): number {
  let n = word - (word >>> 1 & 0x5555_5555);
  n = (n & 0x3333_3333) + (n >>> 2 & 0x3333_3333);
  n = n + (n >>> 4) & 0x0f0f_0f0f;
  return Math.imul(n, 0x0101_0101) >>> 24;
}
