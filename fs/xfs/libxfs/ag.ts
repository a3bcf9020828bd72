/**
 * An allocation group in memory, and its three headers: AGF (free space), AGI (inodes)
 * and AGFL (the list of blocks kept for the free-space trees).
 *
 * What is used at every turn is kept here as numbers, filled from the headers when
 * they are first read; whoever changes a header changes both.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_ag.c; the verifiers of xfs_alloc.c and
 * xfs_ialloc.c.
 *
 * @module
 */

import type { XfsMount } from "../mount.ts";
import type { BufTarg, XfsBuf, XfsBufOps } from "./buf.ts";
import { bytesEqual } from "./bytes.ts";
import { XfsExtentBusyTree } from "./extent-busy.ts";
import * as F from "./format.ts";
import type { XfsTrans } from "./trans.ts";

/** Blocks kept for one use (kernel: `struct xfs_ag_resv`). */
export interface XfsAgResv {
  /** Blocks taken off the free counter for it. */
  origReserved: number;
  /** Blocks that are still to be had. */
  reserved: number;
  /** Most blocks that it can need, with those in use. */
  asked: number;
}

/** One allocation group (kernel: `struct xfs_perag`). Blocks count from its start. */
export class XfsPerag {
  /** File system. */
  readonly mp: XfsMount;
  /** Number of the group. */
  readonly agno: number;
  /** Blocks of the group. */
  readonly blocks: number;

  /** The AGF has been read: the fields with `pagf` count. */
  pagfInit = false;
  /** Blocks in the free-space trees. */
  pagfFreeblks = 0;
  /** Blocks on the AGFL. */
  pagfFlcount = 0;
  /** Longest free extent. */
  pagfLongest = 0;
  /** Blocks of the two free-space trees and the reverse map, roots not counted. */
  pagfBtreeblks = 0;
  /** Height of the tree of free extents by block; and so on. */
  pagfBnoLevel = 0;
  pagfCntLevel = 0;
  pagfRmapLevel = 0;
  pagfRefcountLevel = 0;
  /** The AGFL is not as long as the AGF says: it is emptied before use. */
  pagfAgflreset = false;

  /** The AGI has been read: the fields with `pagi` count. */
  pagiInit = false;
  /** Inodes. */
  pagiCount = 0;
  /** Free ones of them. */
  pagiFreecount = 0;
  /** Directory that an inode was looked for last, and the chunks to both sides of it up
   * to which the search came; `NULLAGINO` if there are none (kernel: `pagl_pagino`,
   * `pagl_leftrec`, `pagl_rightrec`). */
  paglPagino = F.NULLAGINO;
  paglLeftrec = F.NULLAGINO;
  paglRightrec = F.NULLAGINO;
  /** Of unlinked inodes, the one that points to them, as far as that is known; the first
   * of a list has none (kernel: `i_prev_unlinked`). */
  readonly prevUnlinked: Map<number, number> = new Map();

  /** For the trees of free inodes and of reference counts (kernel:
   * `pag_meta_resv`). */
  readonly metaResv: XfsAgResv = { origReserved: 0, reserved: 0, asked: 0 };
  /** For the reverse map (kernel: `pag_rmapbt_resv`). */
  readonly rmapbtResv: XfsAgResv = { origReserved: 0, reserved: 0, asked: 0 };
  /** Blocks freed that must not be used for data yet (kernel: `pagb_tree`). */
  readonly busy: XfsExtentBusyTree = new XfsExtentBusyTree();

  /** A group of which nothing has been read. */
  constructor(mp: XfsMount, agno: number, blocks: number) {
    this.mp = mp;
    this.agno = agno;
    this.blocks = blocks;
  }

  /** Whether a run of blocks can hold anything but headers (kernel:
   * `xfs_verify_agbext`). */
  verifyAgbext(agbno: number, len: number): boolean {
    const { sb } = this.mp;
    return len > 0 && sb.verifyAgbno(this.agno, agbno) &&
      agbno + len <= this.blocks;
  }
}

/** Whether the log lies in a group (kernel: `xfs_ag_contains_log`). */
export function xfsAgContainsLog(mp: XfsMount, agno: number): boolean {
  const { logstart } = mp.sb;
  return logstart > 0 && mp.sb.fsbToAgno(logstart) === agno;
}

/** Entries that an AGFL has room for (kernel: `xfs_agfl_size`). */
export function xfsAgflSize(mp: XfsMount): number {
  return (mp.sb.sectsize - F.AGFL_BNO) / 4;
}

/** Checks an AGF (kernel: `xfs_agf_verify`). */
function verifyAgf(bp: XfsBuf, targ: BufTarg): string | null {
  const mp = targ.mount as XfsMount;
  const { view } = bp;
  const u32 = (at: number) => view.getUint32(at);
  const common = verifyHeader(
    bp,
    mp,
    targ,
    F.XFS_AGF_MAGIC,
    F.AGF_SEQNO,
    F.AGF_UUID,
  );
  if (common !== null) return common;
  if (u32(F.AGF_VERSIONNUM) !== F.XFS_AGF_VERSION) {
    return `version ${u32(F.AGF_VERSIONNUM)}`;
  }
  const length = u32(F.AGF_LENGTH);
  if (length !== mp.sb.agSize(mp.sb.daddrToAgno(bp.daddr))) {
    return `length ${length}`;
  }
  const size = xfsAgflSize(mp);
  if (u32(F.AGF_FLFIRST) >= size) return `flfirst ${u32(F.AGF_FLFIRST)}`;
  if (u32(F.AGF_FLLAST) >= size) return `fllast ${u32(F.AGF_FLLAST)}`;
  if (u32(F.AGF_FLCOUNT) > size) return `flcount ${u32(F.AGF_FLCOUNT)}`;
  const free = u32(F.AGF_FREEBLKS);
  if (free > length) return `freeblks ${free}`;
  if (u32(F.AGF_LONGEST) > free) return `longest ${u32(F.AGF_LONGEST)}`;
  if (u32(F.AGF_BTREEBLKS) > length) {
    return `btreeblks ${u32(F.AGF_BTREEBLKS)}`;
  }
  return verifyAgfTrees(view, mp, length);
}

function verifyAgfTrees(
  view: DataView,
  mp: XfsMount,
  length: number,
): string | null {
  const { alloc, rmap, refcount } = mp.maxlevels;
  const bno = view.getUint32(F.AGF_BNOLEVEL);
  const cnt = view.getUint32(F.AGF_CNTLEVEL);
  if (bno < 1 || bno > alloc) return `bnolevel ${bno}`;
  if (cnt < 1 || cnt > alloc) return `cntlevel ${cnt}`;
  if (mp.sb.hasRmapbt) {
    const level = view.getUint32(F.AGF_RMAPLEVEL);
    if (level < 1 || level > rmap) return `rmaplevel ${level}`;
    const blocks = view.getUint32(F.AGF_RMAPBLOCKS);
    if (blocks > length) return `rmapblocks ${blocks}`;
  }
  if (mp.sb.hasReflink) {
    const level = view.getUint32(F.AGF_REFCNTLEVEL);
    if (level < 1 || level > refcount) return `refcntlevel ${level}`;
    const blocks = view.getUint32(F.AGF_REFCNTBLOCKS);
    if (blocks > length) return `refcntblocks ${blocks}`;
  }
  return null;
}

/** Checks an AGI (kernel: `xfs_agi_verify`). */
function verifyAgi(bp: XfsBuf, targ: BufTarg): string | null {
  const mp = targ.mount as XfsMount;
  const { view } = bp;
  const common = verifyHeader(
    bp,
    mp,
    targ,
    F.XFS_AGI_MAGIC,
    F.AGI_SEQNO,
    F.AGI_UUID,
  );
  if (common !== null) return common;
  const version = view.getUint32(F.AGI_VERSIONNUM);
  if (version !== F.XFS_AGI_VERSION) return `version ${version}`;
  const agno = mp.sb.daddrToAgno(bp.daddr);
  const length = view.getUint32(F.AGI_LENGTH);
  if (length !== mp.sb.agSize(agno)) return `length ${length}`;
  const { inobt } = mp.maxlevels;
  const level = view.getUint32(F.AGI_LEVEL);
  if (level < 1 || level > inobt) return `level ${level}`;
  const free = view.getUint32(F.AGI_FREE_LEVEL);
  if (mp.sb.hasFinobt && (free < 1 || free > inobt)) {
    return `free_level ${free}`;
  }
  for (let i = 0; i < F.XFS_AGI_UNLINKED_BUCKETS; i++) {
    const agino = view.getUint32(F.AGI_UNLINKED + i * 4);
    if (agino === F.NULLAGINO) continue;
    if (!mp.sb.verifyAgbno(agno, mp.sb.aginoToAgbno(agino))) {
      return `unlinked[${i}] ${agino}`;
    }
  }
  return null;
}

/** Checks an AGFL (kernel: `xfs_agfl_verify`). */
function verifyAgfl(bp: XfsBuf, targ: BufTarg): string | null {
  const mp = targ.mount as XfsMount;
  const common = verifyHeader(
    bp,
    mp,
    targ,
    F.XFS_AGFL_MAGIC,
    F.AGFL_SEQNO,
    F.AGFL_UUID,
  );
  if (common !== null) return common;
  const size = xfsAgflSize(mp);
  const length = mp.sb.agSize(mp.sb.daddrToAgno(bp.daddr));
  for (let i = 0; i < size; i++) {
    const agbno = bp.view.getUint32(F.AGFL_BNO + i * 4);
    if (agbno !== F.NULLAGBLOCK && agbno >= length) {
      return `entry ${i}: ${agbno}`;
    }
  }
  return null;
}

/** What the headers have in common: magic number, group and UUID. */
function verifyHeader(
  bp: XfsBuf,
  mp: XfsMount,
  targ: BufTarg,
  wanted: number,
  seqnoAt: number,
  uuidAt: number,
): string | null {
  const magic = bp.view.getUint32(0);
  if (magic !== wanted) return `magic number 0x${magic.toString(16)}`;
  const seqno = bp.view.getUint32(seqnoAt);
  if (seqno !== mp.sb.daddrToAgno(bp.daddr)) return `seqno ${seqno}`;
  return bytesEqual(bp.data, uuidAt, targ.uuid, 0, 16) ? null : "UUID";
}

/** Kernel: `xfs_agf_buf_ops`. */
export const xfsAgfBufOps: XfsBufOps = {
  name: "xfs_agf",
  crcOffset: F.AGF_CRC,
  verify: verifyAgf,
};
/** Kernel: `xfs_agi_buf_ops`. */
export const xfsAgiBufOps: XfsBufOps = {
  name: "xfs_agi",
  crcOffset: F.AGI_CRC,
  verify: verifyAgi,
};
/** Kernel: `xfs_agfl_buf_ops`. */
export const xfsAgflBufOps: XfsBufOps = {
  name: "xfs_agfl",
  crcOffset: F.AGFL_CRC,
  verify: verifyAgfl,
};

/** Sectors of the headers within a group. */
const AGF_SECTOR = 1;
const AGI_SECTOR = 2;
const AGFL_SECTOR = 3;

function readHeader(
  pag: XfsPerag,
  sector: number,
  ops: XfsBufOps,
): XfsBuf | number {
  const { targ, sb } = pag.mp;
  const daddr = sb.agHeaderDaddr(pag.agno, sector);
  return targ.read(daddr, sb.sectsize / F.BBSIZE, ops);
}

/**
 * Reads the AGF, and fills the group's `pagf` fields if that has not been done
 * (kernel: `xfs_alloc_read_agf`).
 *
 * @returns Its buffer, or a negative errno as of {@linkcode BufTarg.read}.
 */
export function xfsAllocReadAgf(
  pag: XfsPerag,
  _tp: XfsTrans | null,
): XfsBuf | number {
  const bp = readHeader(pag, AGF_SECTOR, xfsAgfBufOps);
  if (typeof bp !== "number" && !pag.pagfInit) initPagf(pag, bp);
  return bp;
}

function initPagf(pag: XfsPerag, bp: XfsBuf): void {
  const { view } = bp;
  const { mp } = pag;
  pag.pagfFreeblks = view.getUint32(F.AGF_FREEBLKS);
  pag.pagfBtreeblks = view.getUint32(F.AGF_BTREEBLKS);
  pag.pagfFlcount = view.getUint32(F.AGF_FLCOUNT);
  pag.pagfLongest = view.getUint32(F.AGF_LONGEST);
  pag.pagfBnoLevel = view.getUint32(F.AGF_BNOLEVEL);
  pag.pagfCntLevel = view.getUint32(F.AGF_CNTLEVEL);
  pag.pagfRmapLevel = view.getUint32(F.AGF_RMAPLEVEL);
  pag.pagfRefcountLevel = view.getUint32(F.AGF_REFCNTLEVEL);
  pag.pagfAgflreset = agflNeedsReset(mp, view);
  pag.pagfInit = true;
  // The blocks of the reverse map have a reservation of their own. Its count has the
  // root, the other one does not.
  let blocks = pag.pagfBtreeblks;
  if (mp.sb.hasRmapbt) blocks -= view.getUint32(F.AGF_RMAPBLOCKS) - 1;
  if (blocks > 0) mp.allocbtBlks += blocks;
}

/** Whether the ring has another length than is counted (kernel:
 * `xfs_agfl_needs_reset`). */
function agflNeedsReset(mp: XfsMount, view: DataView): boolean {
  const first = view.getUint32(F.AGF_FLFIRST);
  const last = view.getUint32(F.AGF_FLLAST);
  const count = view.getUint32(F.AGF_FLCOUNT);
  if (count === 0) return false;
  const active = last - first + 1;
  return count !== (last >= first ? active : active + xfsAgflSize(mp));
}

/**
 * Reads the AGI, and fills the group's `pagi` fields if that has not been done
 * (kernel: `xfs_ialloc_read_agi`).
 *
 * @returns Its buffer, or a negative errno as of {@linkcode BufTarg.read}.
 */
export function xfsIallocReadAgi(
  pag: XfsPerag,
  _tp: XfsTrans | null,
): XfsBuf | number {
  const bp = readHeader(pag, AGI_SECTOR, xfsAgiBufOps);
  if (typeof bp !== "number" && !pag.pagiInit) {
    pag.pagiCount = bp.view.getUint32(F.AGI_COUNT);
    pag.pagiFreecount = bp.view.getUint32(F.AGI_FREECOUNT);
    pag.pagiInit = true;
  }
  return bp;
}

/** Reads the AGFL (kernel: `xfs_alloc_read_agfl`); its buffer or a negative errno. */
export function xfsAllocReadAgfl(
  pag: XfsPerag,
  _tp: XfsTrans | null,
): XfsBuf | number {
  return readHeader(pag, AGFL_SECTOR, xfsAgflBufOps);
}
