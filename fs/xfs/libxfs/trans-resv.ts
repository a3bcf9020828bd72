/**
 * How much of the log transactions take; and so how large an atomic write out of place
 * can be, all of which ends in one transaction.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_trans_resv.c
 * (`xfs_calc_max_atomic_write_fsblocks` and so on), fs/xfs/xfs_mount.c
 * (`xfs_calc_atomic_write_unit_max`).
 *
 * @module
 */

import { XFS_BTREE_LBLOCK_CRC_LEN } from "./format.ts";
import { XFS_INODE_LOG_FORMAT_LEN, XLOG_OP_HEADER_LEN } from "./log-format.ts";
import type { XfsMaxlevels } from "./maxlevels.ts";
import type { XfsSb } from "./sb.ts";
import type { XfsTreeSizes } from "./trans-space.ts";

/** Most bytes of a write (kernel: `MAX_RW_COUNT`). */
const MAX_RW_COUNT = 0x7fff_f000;
/** Bytes of six logged quota records, as many as a transaction may change (kernel:
 * `XFS_DQUOT_LOGRES`). */
export const XFS_DQUOT_LOGRES: number = 6 * (24 + 104);
/** Bytes that go with a logged buffer: its op header and its format, rounded up (kernel:
 * `xfs_buf_log_overhead`). */
const BUF_OVERHEAD = 128;

/** Bytes of an item of one piece (kernel: `xlog_item_space`). */
function itemSpace(bytes: number): number {
  return Math.ceil((bytes + 8 + XLOG_OP_HEADER_LEN) / 8) * 8;
}

/** Bytes for each extent of the write: the largest of the steps, from the intents to map
 * the new blocks and to count the old ones down, to the freeing of those. */
function perIntent(): number {
  const efi = itemSpace(32);
  const rui = itemSpace(48);
  const cui = itemSpace(32);
  const bui = itemSpace(48);
  const done = itemSpace(16);
  return Math.max(
    bui + cui,
    done + rui + cui + done,
    done + efi,
    // Others of the same write are moved on in the log meanwhile.
    bui + done + cui + done,
  );
}

/** Bytes that what a transaction changes takes in the log: the terms of which every
 * reservation is made. */
export class LogSpace implements XfsTreeSizes {
  readonly sb: XfsSb;
  readonly maxlevels: XfsMaxlevels;

  constructor(sb: XfsSb, maxlevels: XfsMaxlevels) {
    this.sb = sb;
    this.maxlevels = maxlevels;
  }

  /** Kernel: `xfs_calc_buf_res`. */
  bufs(count: number, size: number): number {
    return count * (size + BUF_OVERHEAD);
  }

  /** Whole blocks. */
  blocks(count: number): number {
    return this.bufs(count, this.sb.blocksize);
  }

  /** Headers of groups. */
  sectors(count: number): number {
    return this.bufs(count, this.sb.sectsize);
  }

  /** Kernel: `xfs_calc_inode_res`. */
  inodes(count: number): number {
    return count *
      (4 * XLOG_OP_HEADER_LEN + XFS_INODE_LOG_FORMAT_LEN + this.sb.inodesize +
        2 * XFS_BTREE_LBLOCK_CRC_LEN);
  }

  /** Blocks of the trees of free space and of the reverse map that so many
   * allocations or freeings change (kernel: `xfs_allocfree_block_count`). */
  allocFree(ops: number): number {
    const { alloc, rmap } = this.maxlevels;
    const each = 2 * (2 * alloc - 1) + (this.sb.hasRmapbt ? 2 * rmap - 1 : 0);
    return this.blocks(ops * each);
  }

  /** Blocks of the tree of reference counts that so many changes change, 0 without
   * reflink (kernel: `xfs_refcountbt_block_count`). */
  refcount(ops: number): number {
    if (!this.sb.hasReflink) return 0;
    return this.blocks(ops * (2 * this.maxlevels.refcount - 1));
  }
}

/** Bytes of the largest steps (kernel: `xfs_calc_itruncate_reservation`,
 * `xfs_calc_finish_*_reservation`). */
function reservations(mp: XfsTreeSizes): { ioend: number; step: number } {
  const log = new LogSpace(mp.sb, mp.maxlevels);
  const map = log.inodes(1) + log.blocks(mp.maxlevels.bmapData + 1);
  const ioend = XFS_DQUOT_LOGRES + Math.max(
    map,
    log.sectors(9) + log.allocFree(4),
    log.sectors(2) + log.refcount(2),
  );
  const step = Math.max(
    XFS_DQUOT_LOGRES + map,
    log.sectors(2) + log.allocFree(1),
    log.sectors(1) + log.refcount(1),
  );
  return { ioend, step };
}

function powerBelow(n: number): number {
  return n < 1 ? 0 : 2 ** Math.floor(Math.log2(n));
}

/**
 * Most blocks of an atomic write out of place (kernel:
 * `xfs_calc_atomic_write_unit_max`).
 *
 * @returns A power of two, or 0 without reflink.
 */
export function xfsCalcAtomicWriteUnitMax(mp: XfsTreeSizes): number {
  const { sb } = mp;
  if (!sb.hasReflink) return 0;
  const { ioend, step } = reservations(mp);
  return Math.min(
    powerBelow(MAX_RW_COUNT / sb.blocksize),
    powerBelow((ioend - step) / perIntent()),
    powerBelow(sb.agblocks),
  );
}
