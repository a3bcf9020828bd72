/**
 * Where every field of the log lies. Headers of records and of operations are
 * big-endian; what the operations carry is as the machine has it that wrote the log,
 * little-endian here, but for copies of what is on disk.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_log_format.h.
 *
 * @module
 */

/** First word of a record's header (kernel: `XLOG_HEADER_MAGIC_NUM`). */
export const XLOG_HEADER_MAGIC_NUM = 0xfeed_babe;
/** Records that may be on their way to the device at a time (kernel:
 * `XLOG_MAX_ICLOGS`). */
export const XLOG_MAX_ICLOGS = 8;
/** Bytes of the longest record with its headers (kernel:
 * `XLOG_MAX_RECORD_BSIZE`). */
export const XLOG_MAX_RECORD_BSIZE: number = 256 * 1024;
/** Bytes of the usual record (kernel: `XLOG_BIG_RECORD_BSIZE`). */
export const XLOG_BIG_RECORD_BSIZE: number = 32 * 1024;
/** Bytes of data for whose first words a header block has room (kernel:
 * `XLOG_HEADER_CYCLE_SIZE`). */
export const XLOG_HEADER_CYCLE_SIZE: number = 32 * 1024;

// ---- header of a record (kernel: struct xlog_rec_header) ----
export const H_MAGICNO = 0;
export const H_CYCLE = 4;
export const H_VERSION = 8;
export const H_LEN = 12;
export const H_LSN = 16;
export const H_TAIL_LSN = 24;
export const H_CRC = 32;
export const H_PREV_BLOCK = 36;
export const H_NUM_LOGOPS = 40;
export const H_CYCLE_DATA = 44;
export const H_FMT = 300;
export const H_FS_UUID = 304;
export const H_SIZE = 320;
/** Bytes that the checksum counts. */
export const XLOG_REC_HEADER_LEN = 328;
/** First words of data in a further header block (kernel: `struct
 * xlog_rec_ext_header`). */
export const XH_CYCLE_DATA = 4;
/** Bytes of it that the checksum counts. */
export const XLOG_REC_EXT_HEADER_LEN = 260;
export const XLOG_VERSION_2 = 2;
/** Written by a little-endian machine (kernel: `XLOG_FMT_LINUX_LE`). */
export const XLOG_FMT_LINUX_LE = 1;

// ---- header of an operation (kernel: struct xlog_op_header) ----
export const OH_TID = 0;
export const OH_LEN = 4;
export const OH_CLIENTID = 8;
export const OH_FLAGS = 9;
export const XLOG_OP_HEADER_LEN = 12;
export const XFS_TRANSACTION = 0x69;
export const XFS_LOG = 0xaa;
export const XLOG_START_TRANS = 0x01;
export const XLOG_COMMIT_TRANS = 0x02;
export const XLOG_CONTINUE_TRANS = 0x04;
export const XLOG_WAS_CONT_TRANS = 0x08;
export const XLOG_END_TRANS = 0x10;
export const XLOG_UNMOUNT_TRANS = 0x20;
/** Magic number of what an unmount says, little-endian (kernel:
 * `XLOG_UNMOUNT_TYPE`). */
export const XLOG_UNMOUNT_TYPE = 0x556e;

// ---- header of a transaction (kernel: struct xfs_trans_header) ----
export const XFS_TRANS_HEADER_MAGIC = 0x5452_414e;
export const XFS_TRANS_HEADER_LEN = 16;

// ---- items: type, then number of regions, 16 bits each ----
export const ITEM_TYPE = 0;
export const ITEM_SIZE = 2;
/** Most regions of an item (kernel: `XLOG_MAX_REGIONS_IN_ITEM`). */
export const XLOG_MAX_REGIONS_IN_ITEM = 257;
export const XFS_LI_EFI = 0x1236;
export const XFS_LI_EFD = 0x1237;
export const XFS_LI_INODE = 0x123b;
export const XFS_LI_BUF = 0x123c;
export const XFS_LI_DQUOT = 0x123d;
export const XFS_LI_QUOTAOFF = 0x123e;
export const XFS_LI_ICREATE = 0x123f;
export const XFS_LI_RUI = 0x1240;
export const XFS_LI_RUD = 0x1241;
export const XFS_LI_CUI = 0x1242;
export const XFS_LI_CUD = 0x1243;
export const XFS_LI_BUI = 0x1244;
export const XFS_LI_BUD = 0x1245;
export const XFS_LI_ATTRI = 0x1246;
export const XFS_LI_ATTRD = 0x1247;
export const XFS_LI_XMI = 0x1248;
export const XFS_LI_XMD = 0x1249;

// ---- buffers (kernel: struct xfs_buf_log_format) ----
export const BLF_FLAGS = 4;
export const BLF_LEN = 6;
export const BLF_BLKNO = 8;
export const BLF_MAP_SIZE = 16;
export const BLF_DATA_MAP = 20;
export const XFS_BLF_INODE_BUF = 1 << 0;
export const XFS_BLF_CANCEL = 1 << 1;
export const XFS_BLF_DQUOT_BUF = 0x1c;
/** Where in the flags the kind of buffer is (kernel: `XFS_BLFT_SHIFT`). */
export const XFS_BLFT_SHIFT = 11;
export const XFS_BLFT_UNKNOWN_BUF = 0;
export const XFS_BLFT_BTREE_BUF = 4;
export const XFS_BLFT_AGF_BUF = 5;
export const XFS_BLFT_AGFL_BUF = 6;
export const XFS_BLFT_AGI_BUF = 7;
export const XFS_BLFT_DINO_BUF = 8;
export const XFS_BLFT_SYMLINK_BUF = 9;
export const XFS_BLFT_DIR_BLOCK_BUF = 10;
export const XFS_BLFT_DIR_DATA_BUF = 11;
export const XFS_BLFT_DIR_FREE_BUF = 12;
export const XFS_BLFT_DIR_LEAF1_BUF = 13;
export const XFS_BLFT_DIR_LEAFN_BUF = 14;
export const XFS_BLFT_DA_NODE_BUF = 15;
export const XFS_BLFT_ATTR_LEAF_BUF = 16;
export const XFS_BLFT_ATTR_RMT_BUF = 17;
export const XFS_BLFT_SB_BUF = 18;

// ---- inodes (kernel: struct xfs_inode_log_format) ----
export const ILF_FIELDS = 4;
export const ILF_RDEV = 24;
export const ILF_INO = 16;
export const ILF_BLKNO = 40;
export const ILF_LEN = 48;
export const ILF_BOFFSET = 52;
export const XFS_INODE_LOG_FORMAT_LEN = 56;

// ---- new inodes (kernel: struct xfs_icreate_log), big-endian from byte 4 on ----
export const ICL_AG = 4;
export const ICL_AGBNO = 8;
export const ICL_COUNT = 12;
export const ICL_ISIZE = 16;
export const ICL_LENGTH = 20;
export const ICL_GEN = 24;
export const XFS_ICREATE_LOG_LEN = 28;

// ---- intents and what says that they are done ----
/** Extents of an intent. */
export const INTENT_NEXTENTS = 4;
/** Number of an intent, here and where it is done. */
export const INTENT_ID = 8;
export const INTENT_HDR_LEN = 16;
/** Bytes of an extent to be freed (kernel: `struct xfs_extent`), and of a change of a
 * reference count (kernel: `struct xfs_phys_extent`). */
export const XFS_EXTENT_LEN = 16;
export const EXTENT_START = 0;
export const EXTENT_COUNT = 8;
export const PHYS_EXTENT_FLAGS = 12;
/** Bytes of a change of a map or of the reverse map (kernel: `struct
 * xfs_map_extent`). */
export const XFS_MAP_EXTENT_LEN = 32;
export const ME_OWNER = 0;
export const ME_STARTBLOCK = 8;
export const ME_STARTOFF = 16;
export const ME_LEN = 24;
export const ME_FLAGS = 28;
/** What is to be done, in the flags. */
export const EXTENT_TYPE_MASK = 0xff;
export const EXTENT_ATTR_FORK: number = 2 ** 31;
export const EXTENT_BMBT_BLOCK: number = 2 ** 30;
export const EXTENT_UNWRITTEN: number = 2 ** 29;

/** A place in a log (kernel: `xfs_lsn_t`). */
export interface XfsLsn {
  /** How often the log had been around. */
  readonly cycle: number;
  /** Basic block of the log. */
  readonly block: number;
}

/** Which place comes first: below 0 if `a` does, 0 if they are one (kernel:
 * `XFS_LSN_CMP`). */
export function lsnCmp(a: XfsLsn, b: XfsLsn): number {
  return a.cycle === b.cycle ? a.block - b.block : a.cycle - b.cycle;
}

/** Reads a place. */
export function getLsn(view: DataView, at: number): XfsLsn {
  return { cycle: view.getUint32(at), block: view.getUint32(at + 4) };
}

/** Writes a place. */
export function putLsn(view: DataView, at: number, lsn: XfsLsn): void {
  view.setUint32(at, lsn.cycle);
  view.setUint32(at + 4, lsn.block);
}

/** "3:128", as the kernel prints it. */
export function lsnText(lsn: XfsLsn): string {
  return `${lsn.cycle}:${lsn.block}`;
}

/** Reads an unsigned 64-bit little-endian field; -1 … -2^32 as `getU64` has them. */
export function getU64Le(view: DataView, at: number): number {
  const low = view.getUint32(at, true);
  const high = view.getUint32(at + 4, true);
  if (high === 0xffff_ffff) return low - 2 ** 32;
  return high * 2 ** 32 + low;
}
