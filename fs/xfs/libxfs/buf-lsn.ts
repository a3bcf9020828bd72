/**
 * Which place in the log a block of metadata bears.
 *
 * Kernel counterpart: fs/xfs/xfs_buf_item_recover.c (`xlog_recover_get_buf_lsn`).
 *
 * @module
 */

import type { XfsBuf } from "./buf.ts";
import { bytesEqual, getU64 } from "./bytes.ts";
import * as F from "./format.ts";
import { getLsn, type XfsLsn } from "./log-format.ts";

/** Where a kind of block has place, UUID and its own address; -1 if it has none. */
interface LsnFields {
  readonly lsn: number;
  readonly uuid: number;
  readonly blkno: number;
}

const SHORT = { lsn: F.SBB_LSN, uuid: F.SBB_UUID, blkno: F.SBB_BLKNO };
const LONG = { lsn: F.LBB_LSN, uuid: F.LBB_UUID, blkno: F.LBB_BLKNO };
const DIR = { lsn: F.DIR3_LSN, uuid: F.DIR3_UUID, blkno: F.DIR3_BLKNO };
const DA = { lsn: F.DA3_LSN, uuid: F.DA3_UUID, blkno: F.DA3_BLKNO };
const SYMLINK = { lsn: F.RMT_LSN, uuid: F.RMT_UUID, blkno: F.RMT_BLKNO };

const BY_MAGIC = new Map<number, LsnFields>([
  [F.XFS_SB_MAGIC, { lsn: F.SB_LSN, uuid: -1, blkno: -1 }],
  [F.XFS_AGF_MAGIC, { lsn: F.AGF_LSN, uuid: F.AGF_UUID, blkno: -1 }],
  [F.XFS_AGI_MAGIC, { lsn: F.AGI_LSN, uuid: F.AGI_UUID, blkno: -1 }],
  [F.XFS_AGFL_MAGIC, { lsn: F.AGFL_LSN, uuid: F.AGFL_UUID, blkno: -1 }],
  [F.XFS_ABTB_CRC_MAGIC, SHORT],
  [F.XFS_ABTC_CRC_MAGIC, SHORT],
  [F.XFS_IBT_CRC_MAGIC, SHORT],
  [F.XFS_FIBT_CRC_MAGIC, SHORT],
  [F.XFS_RMAP_CRC_MAGIC, SHORT],
  [F.XFS_REFC_CRC_MAGIC, SHORT],
  [F.XFS_BMAP_CRC_MAGIC, LONG],
  [F.XFS_DIR3_BLOCK_MAGIC, DIR],
  [F.XFS_DIR3_DATA_MAGIC, DIR],
  [F.XFS_DIR3_FREE_MAGIC, DIR],
  [F.XFS_SYMLINK_MAGIC, SYMLINK],
]);
const BY_DA_MAGIC = new Map<number, LsnFields>([
  [F.XFS_DIR3_LEAF1_MAGIC, DA],
  [F.XFS_DIR3_LEAFN_MAGIC, DA],
  [F.XFS_DA3_NODE_MAGIC, DA],
  [F.XFS_ATTR3_LEAF_MAGIC, DA],
]);

/** Inodes have places of their own, and remote values have none. */
function fieldsOf(bp: XfsBuf): LsnFields | null {
  const found = BY_MAGIC.get(bp.view.getUint32(0));
  if (found !== undefined) return found;
  return BY_DA_MAGIC.get(bp.view.getUint16(F.DA3_MAGIC)) ?? null;
}

/** Byte at which a block has the place in the log of its last change; -1 for blocks
 * that have none. */
export function xfsBufLsnAt(bp: XfsBuf): number {
  return fieldsOf(bp)?.lsn ?? -1;
}

/**
 * Up to which place in the log a block on the device is complete (kernel:
 * `xlog_recover_get_buf_lsn`).
 *
 * @param uuid UUID that blocks bear.
 * @returns null if that is not known: what is in the log is newer.
 */
export function xfsBufLsn(bp: XfsBuf, uuid: Uint8Array): XfsLsn | null {
  const fields = fieldsOf(bp);
  if (fields === null) return null;
  const { data, view } = bp;
  // What another file system has left, or a copy in a file's data.
  if (fields.uuid >= 0 && !bytesEqual(data, fields.uuid, uuid, 0, 16)) {
    return null;
  }
  if (fields.blkno >= 0 && getU64(view, fields.blkno) !== bp.daddr) return null;
  const lsn = getLsn(view, fields.lsn);
  const none = lsn.cycle === 0 && lsn.block === 0 ||
    lsn.cycle === 0xffff_ffff && lsn.block === 0xffff_ffff;
  return none ? null : lsn;
}
