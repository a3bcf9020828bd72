/**
 * Replaying what was logged of buffers: pieces of 128 bytes that were changed.
 *
 * A buffer on the device may be newer than the transaction: then it stays. Blocks of
 * inodes are no buffers of that kind; of them, only the pointers of the lists of
 * unlinked inodes are logged.
 *
 * Kernel counterpart: fs/xfs/xfs_buf_item_recover.c.
 *
 * @module
 */

import { xfsAgfBufOps, xfsAgflBufOps, xfsAgiBufOps } from "./libxfs/ag.ts";
import { xfsBnobtOps, xfsCntbtOps } from "./libxfs/alloc-btree.ts";
import { xfsAttr3LeafBufOps } from "./libxfs/attr-leaf.ts";
import { xfsAttr3RmtBufOps } from "./libxfs/attr-remote.ts";
import { xfsBmbtOps } from "./libxfs/bmap-btree.ts";
import { xfsBufLsn } from "./libxfs/buf-lsn.ts";
import {
  bufSeal,
  XFS_BLF_CHUNK,
  type XfsBuf,
  type XfsBufOps,
} from "./libxfs/buf.ts";
import { xfsDir3BlockBufOps } from "./libxfs/dir2-block.ts";
import { xfsDir3DataBufOps } from "./libxfs/dir2-data.ts";
import { xfsDir3Leaf1BufOps } from "./libxfs/dir2-leaf.ts";
import { dirLeafOps, xfsDir3FreeBufOps } from "./libxfs/dir2-node.ts";
import * as F from "./libxfs/format.ts";
import { xfsFinobtOps, xfsInobtOps } from "./libxfs/ialloc-btree.ts";
import { xfsInodeBufOps } from "./libxfs/inode-buf.ts";
import * as L from "./libxfs/log-format.ts";
import { xfsRefcountbtOps } from "./libxfs/refcount-btree.ts";
import { xfsRmapbtOps } from "./libxfs/rmap-btree.ts";
import { decodeSb } from "./libxfs/sb.ts";
import { xfsSymlinkBufOps } from "./libxfs/symlink-remote.ts";
import {
  XLOG_REORDER_BUFFER_LIST,
  XLOG_REORDER_CANCEL_LIST,
  XLOG_REORDER_INODE_BUFFER_LIST,
  type XlogRecoverItem,
  type XlogRecoverItemOps,
  type XlogRecovery,
} from "./log-item.ts";

/** Basic blocks of the largest buffer. */
const MAX_BUFFER_BBS = 128;

/** A super block, the first or a copy. */
const sbBufOps: XfsBufOps = {
  name: "xfs_sb",
  crcOffset: F.SB_CRC,
  verify: (bp) => bp.view.getUint32(0) === F.XFS_SB_MAGIC ? null : "magic",
};
/** A buffer of which the log does not say what it is; it is written as it is. */
const unknownBufOps: XfsBufOps = {
  name: "xfs_unknown",
  crcOffset: -1,
  verify: () => null,
};

const BTREES = new Map<number, XfsBufOps>([
  [F.XFS_ABTB_CRC_MAGIC, xfsBnobtOps.bufOps],
  [F.XFS_ABTC_CRC_MAGIC, xfsCntbtOps.bufOps],
  [F.XFS_IBT_CRC_MAGIC, xfsInobtOps.bufOps],
  [F.XFS_FIBT_CRC_MAGIC, xfsFinobtOps.bufOps],
  [F.XFS_RMAP_CRC_MAGIC, xfsRmapbtOps.bufOps],
  [F.XFS_REFC_CRC_MAGIC, xfsRefcountbtOps.bufOps],
  [F.XFS_BMAP_CRC_MAGIC, xfsBmbtOps.bufOps],
]);
const KINDS = new Map<number, XfsBufOps>([
  [L.XFS_BLFT_AGF_BUF, xfsAgfBufOps],
  [L.XFS_BLFT_AGFL_BUF, xfsAgflBufOps],
  [L.XFS_BLFT_AGI_BUF, xfsAgiBufOps],
  [L.XFS_BLFT_DINO_BUF, xfsInodeBufOps],
  [L.XFS_BLFT_SYMLINK_BUF, xfsSymlinkBufOps],
  [L.XFS_BLFT_DIR_BLOCK_BUF, xfsDir3BlockBufOps],
  [L.XFS_BLFT_DIR_DATA_BUF, xfsDir3DataBufOps],
  [L.XFS_BLFT_DIR_FREE_BUF, xfsDir3FreeBufOps],
  [L.XFS_BLFT_DIR_LEAF1_BUF, xfsDir3Leaf1BufOps],
  [L.XFS_BLFT_DIR_LEAFN_BUF, dirLeafOps.bufOps],
  [L.XFS_BLFT_DA_NODE_BUF, dirLeafOps.bufOps],
  [L.XFS_BLFT_ATTR_LEAF_BUF, xfsAttr3LeafBufOps],
  [L.XFS_BLFT_ATTR_RMT_BUF, xfsAttr3RmtBufOps],
  [L.XFS_BLFT_SB_BUF, sbBufOps],
]);

/** What a buffer is after it has been replayed (kernel:
 * `xlog_recover_validate_buf_type`).
 * @returns null if it is not what the log says. */
function kindOf(bp: XfsBuf, flags: number): XfsBufOps | null {
  const blft = flags >>> L.XFS_BLFT_SHIFT;
  if (blft === L.XFS_BLFT_UNKNOWN_BUF) return unknownBufOps;
  if (blft === L.XFS_BLFT_BTREE_BUF) {
    return BTREES.get(bp.view.getUint32(0)) ?? null;
  }
  return KINDS.get(blft) ?? null;
}

/** Head of an item (kernel: `struct xfs_buf_log_format`). */
class BufFormat {
  readonly flags: number;
  readonly blkno: number;
  readonly len: number;
  readonly #view: DataView;

  constructor(item: XlogRecoverItem) {
    this.#view = item.format;
    this.flags = this.#view.getUint16(L.BLF_FLAGS, true);
    this.len = this.#view.getUint16(L.BLF_LEN, true);
    this.blkno = L.getU64Le(this.#view, L.BLF_BLKNO);
  }

  /** Pieces in the map. */
  get bits(): number {
    return this.#view.getUint32(L.BLF_MAP_SIZE, true) * 32;
  }

  bit(n: number): boolean {
    const word = this.#view.getUint32(L.BLF_DATA_MAP + (n >>> 5) * 4, true);
    return (word >>> (n & 31) & 1) !== 0;
  }

  /** First piece from `n` on that was logged, or not; `bits` if there is none. */
  next(n: number, logged: boolean): number {
    const { bits } = this;
    while (n < bits && this.bit(n) !== logged) n++;
    return n;
  }
}

function checkFormat(item: XlogRecoverItem): string | null {
  const { format } = item;
  if (format.byteLength < L.BLF_DATA_MAP) return "length";
  const words = format.getUint32(L.BLF_MAP_SIZE, true);
  if (format.byteLength < L.BLF_DATA_MAP + words * 4) return `map of ${words}`;
  const { len, flags, blkno } = new BufFormat(item);
  if (len === 0 || len > MAX_BUFFER_BBS) {
    return `${len} sectors at daddr ${blkno}`;
  }
  return (flags & L.XFS_BLF_DQUOT_BUF) === 0 ? null : "quota is not known";
}

/** Calls `copy` with every region and the byte of the buffer that it begins at.
 * A run of pieces may be in several regions, as the buffer was in several pages.
 * @returns null, or the check that failed. */
function eachRegion(
  item: XlogRecoverItem,
  blf: BufFormat,
  copy: (region: Uint8Array, at: number) => string | null,
): string | null {
  let bit = 0;
  for (const region of item.regions.slice(1)) {
    bit = blf.next(bit, true);
    const run = blf.next(bit, false) - bit;
    const pieces = Math.min(run, Math.floor(region.length / XFS_BLF_CHUNK));
    if (pieces === 0) return `region of ${region.length} bytes`;
    const at = bit * XFS_BLF_CHUNK;
    const len = pieces * XFS_BLF_CHUNK;
    if (at + len > blf.len * F.BBSIZE) {
      return `pieces beyond ${blf.len} sectors`;
    }
    const why = copy(region.subarray(0, len), at);
    if (why !== null) return why;
    bit += pieces;
  }
  return blf.next(bit, true) === blf.bits ? null : "regions are missing";
}

/** Kernel: `xlog_recover_do_reg_buffer`. */
function regBuffer(
  recovery: XlogRecovery,
  item: XlogRecoverItem,
  blf: BufFormat,
  bp: XfsBuf,
): string | null {
  const why = eachRegion(item, blf, (region, at) => {
    bp.data.set(region, at);
    return null;
  });
  if (why !== null) return why;
  const ops = kindOf(bp, blf.flags);
  if (ops === null) {
    const magic = bp.view.getUint32(0).toString(16);
    return `kind ${blf.flags >>> L.XFS_BLFT_SHIFT} with magic 0x${magic}`;
  }
  if (ops === sbBufOps && blf.blkno === 0) {
    const refused = primarySb(recovery, bp);
    if (refused !== null) return refused;
  }
  recovery.changed(bp, ops);
  return null;
}

/** Kernel: `xlog_recover_do_primary_sb_buffer`. */
function primarySb(recovery: XlogRecovery, bp: XfsBuf): string | null {
  // Its checksum is set when it is written; until then it counts for nothing.
  const copy = bp.data.slice();
  bufSeal(copy, F.SB_CRC);
  const sb = decodeSb(copy);
  if ("reason" in sb) return `super block: ${sb.reason}`;
  const old = recovery.mp.sb;
  if (sb.dblocks === old.dblocks && sb.agcount === old.agcount) return null;
  return `super block: growing to ${sb.dblocks} blocks is not known`;
}

/** Copies the pointers of the lists of unlinked inodes (kernel:
 * `xlog_recover_do_inode_buffer`). */
function inodeBuffer(
  recovery: XlogRecovery,
  item: XlogRecoverItem,
  blf: BufFormat,
  bp: XfsBuf,
): string | null {
  const { inodesize } = recovery.mp.sb;
  const why = eachRegion(item, blf, (region, at) => {
    const view = new DataView(region.buffer, region.byteOffset, region.length);
    const first = Math.floor(at / inodesize) * inodesize;
    for (let ino = first; ino < at + region.length; ino += inodesize) {
      const field = ino + F.DI_NEXT_UNLINKED - at;
      if (field < 0 || field + 4 > region.length) continue;
      const next = view.getUint32(field);
      if (next === 0) return `next unlinked 0 at byte ${ino}`;
      bp.view.setUint32(ino + F.DI_NEXT_UNLINKED, next);
      bufSeal(bp.data.subarray(ino, ino + inodesize), F.DI_CRC);
    }
    return null;
  });
  if (why !== null) return why;
  recovery.changed(bp, xfsInodeBufOps);
  return null;
}

/** Buffers (kernel: `xlog_buf_item_ops`). */
export const bufItem: XlogRecoverItemOps = {
  type: L.XFS_LI_BUF,

  reorder(item): number {
    const { flags } = new BufFormat(item);
    if ((flags & L.XFS_BLF_CANCEL) !== 0) return XLOG_REORDER_CANCEL_LIST;
    return (flags & L.XFS_BLF_INODE_BUF) !== 0
      ? XLOG_REORDER_INODE_BUFFER_LIST
      : XLOG_REORDER_BUFFER_LIST;
  },

  check: checkFormat,

  commitPass1(recovery, item): void {
    const { flags, blkno, len } = new BufFormat(item);
    if ((flags & L.XFS_BLF_CANCEL) !== 0) recovery.cancels.add(blkno, len);
  },

  commitPass2(recovery, item): number {
    const blf = new BufFormat(item);
    const { flags, blkno, len } = blf;
    if ((flags & L.XFS_BLF_CANCEL) !== 0) {
      recovery.cancels.put(blkno, len);
      return 0;
    }
    if (recovery.cancels.has(blkno, len)) return 0;
    if (!recovery.inDevice(blkno, len)) {
      return recovery.damaged(`buffer of ${len} sectors at daddr ${blkno}`);
    }
    const bp = recovery.read(blkno, len);
    if (typeof bp === "number") return bp;
    const lsn = xfsBufLsn(bp, recovery.mp.targ.uuid);
    if (lsn !== null && L.lsnCmp(lsn, recovery.lsn) >= 0) return 0;
    const inodes = (flags & L.XFS_BLF_INODE_BUF) !== 0;
    const why = inodes
      ? inodeBuffer(recovery, item, blf, bp)
      : regBuffer(recovery, item, blf, bp);
    if (why === null) return 0;
    return recovery.damaged(`buffer at daddr ${blkno}: ${why}`);
  },
};
