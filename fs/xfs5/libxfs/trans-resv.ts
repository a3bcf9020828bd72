/**
 * How much of the log the end of an atomic write out of place takes, and so how large
 * such a write can be: all of it ends in one transaction.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_trans_resv.c
 * (`xfs_calc_max_atomic_write_fsblocks`), fs/xfs/xfs_mount.c
 * (`xfs_calc_atomic_write_unit_max`).
 *
 * @module
 */

import type { XfsMount } from "../mount.ts";
import { XFS_BTREE_LBLOCK_CRC_LEN } from "./format.ts";

/** Most bytes of a write (kernel: `MAX_RW_COUNT`). */
const MAX_RW_COUNT = 0x7fff_f000;
// Bytes in the log: of what goes with a buffer, of an operation's header, of an inode's
// format, of the quota records that a transaction may change.
const BUF_OVERHEAD = 128;
const OP_HEADER = 12;
const INODE_LOG_FORMAT = 56;
const DQUOT_LOGRES = 6 * (24 + 104);

/** Bytes of an item of one piece (kernel: `xlog_item_space`). */
function itemSpace(bytes: number): number {
  return Math.ceil((bytes + 8 + OP_HEADER) / 8) * 8;
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

/** Bytes of the largest steps (kernel: `xfs_calc_itruncate_reservation`,
 * `xfs_calc_finish_*_reservation`). */
function reservations(mp: XfsMount): { ioend: number; step: number } {
  const { sb, maxlevels } = mp;
  const blocks = (n: number) => n * (sb.blocksize + BUF_OVERHEAD);
  const sectors = (n: number) => n * (sb.sectsize + BUF_OVERHEAD);
  const rmap = sb.hasRmapbt ? 2 * maxlevels.rmap - 1 : 0;
  const allocFree = 2 * (2 * maxlevels.alloc - 1) + rmap;
  const refcount = sb.hasReflink ? 2 * maxlevels.refcount - 1 : 0;
  const map = 4 * OP_HEADER + INODE_LOG_FORMAT + sb.inodesize +
    2 * XFS_BTREE_LBLOCK_CRC_LEN + blocks(maxlevels.bmapData + 1);
  const ioend = DQUOT_LOGRES + Math.max(
    map,
    sectors(9) + blocks(4 * allocFree),
    sectors(2) + blocks(2 * refcount),
  );
  const step = Math.max(
    DQUOT_LOGRES + map,
    sectors(2) + blocks(allocFree),
    sectors(1) + blocks(refcount),
  );
  return { ioend, step };
}

function powerBelow(n: number): number {
  return n < 1 ? 0 : 2 ** Math.floor(Math.log2(n));
}

/**
 * Most blocks of an atomic write out of place (kernel:
 * `xfs_calc_atomic_write_unit_max`). The heights of the trees are known.
 *
 * @returns A power of two, or 0 without reflink.
 */
export function xfsCalcAtomicWriteUnitMax(mp: XfsMount): number {
  if (!mp.sb.hasReflink) return 0;
  const { ioend, step } = reservations(mp);
  return Math.min(
    powerBelow(MAX_RW_COUNT / mp.sb.blocksize),
    powerBelow((ioend - step) / perIntent()),
    powerBelow(mp.sb.agblocks),
  );
}
