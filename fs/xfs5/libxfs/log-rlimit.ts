/**
 * The smallest log that a file system can live with: three times what its largest
 * transaction may take.
 *
 * mkfs uses it, and mount refuses a log below it. The rules keep what early versions
 * of reverse mapping and reflink took, although less would do by now: or an image
 * made today would not mount on a kernel of that time.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_log_rlimit.c, xfs_trans_resv.c,
 * xfs_trans_space.h; xfs_log.c (`xfs_log_calc_unit_res`).
 *
 * @module
 */

import * as F from "./format.ts";
import type { XfsSb } from "./sb.ts";

/** Bytes of a log buffer that mount takes unless told otherwise (kernel:
 * `XLOG_BIG_RECORD_BSIZE`). */
export const XLOG_BIG_RECORD_BSIZE = 32 * 1024;
/** Bytes of the largest log buffer; mkfs reckons with it (kernel:
 * `XLOG_MAX_RECORD_BSIZE`). */
export const XLOG_MAX_RECORD_BSIZE = 256 * 1024;
/** Bytes of log that one header block speaks for (kernel: `XLOG_HEADER_CYCLE_SIZE`). */
const XLOG_HEADER_CYCLE_SIZE = 32 * 1024;
/** Largest transactions that fit a log (kernel: `XFS_MIN_LOG_FACTOR`). */
const XFS_MIN_LOG_FACTOR = 3;
/** Bytes: op header, transaction header, the two of a logged buffer, rounded up. */
const OP_HEADER = 12;
const TRANS_HEADER = 16;
const BUF_OVERHEAD = 128;
/** Bytes of six logged quota records (kernel: `XFS_DQUOT_LOGRES`). */
const DQUOT_LOGRES = 6 * (24 + 104);
/** Bytes of an inode's log format. */
const INODE_LOG_FORMAT = 56;
/** Height that reverse mapping was once reckoned with (kernel:
 * `XFS_OLD_REFLINK_RMAP_MAXLEVELS`). */
const OLD_REFLINK_RMAP_MAXLEVELS = 9;
/** Times that a write or a truncation rolls, with reflink (kernel:
 * `XFS_WRITE_LOG_COUNT_REFLINK`). */
const LOG_COUNT_REFLINK = 8;
/** Kernel: `XFS_SYMLINK_MAXLEN`. */
const SYMLINK_MAXLEN = 1024;
/** Kernel: `MAXNAMELEN`. */
const MAXNAMELEN = 256;

/** Most levels of each kind of tree, for a whole group. */
interface Heights {
  alloc: number;
  rmap: number;
  refcount: number;
  inobt: number;
  bmapData: number;
  bmapAttr: number;
}

/** Height of a tree of `records` whose blocks are filled as little as may be (kernel:
 * `xfs_btree_compute_maxlevels`). */
function computeMaxlevels(
  leafMin: number,
  nodeMin: number,
  records: number,
): number {
  let level = 1;
  for (let n = Math.ceil(records / leafMin); n > 1; level++) {
    n = Math.ceil(n / nodeMin);
  }
  return level;
}

/** Kernel: `xfs_bmap_compute_maxlevels`. */
function bmapMaxlevels(
  blocksize: number,
  extents: number,
  rootMax: number,
): number {
  const min = Math.floor(fit(blocksize, F.XFS_BTREE_LBLOCK_CRC_LEN, 16) / 2);
  let level = 1;
  for (let n = Math.ceil(extents / min); n > 1; level++) {
    n = n <= rootMax ? 1 : Math.ceil(n / min);
  }
  return level;
}

/** Records that fit a block. */
function fit(blocksize: number, header: number, size: number): number {
  return Math.floor((blocksize - header) / size);
}

function heights(sb: XfsSb): Heights {
  const min = (size: number) =>
    Math.floor(fit(sb.blocksize, F.XFS_BTREE_SBLOCK_CRC_LEN, size) / 2);
  const chunks = 2 ** (sb.inopblog + sb.agblklog) / F.XFS_INODES_PER_CHUNK;
  const rmap = sb.hasReflink
    ? OLD_REFLINK_RMAP_MAXLEVELS
    : computeMaxlevels(min(24), min(44), sb.agblocks);
  return {
    alloc: computeMaxlevels(min(8), min(12), Math.ceil(sb.agblocks / 2)),
    rmap: sb.hasRmapbt ? rmap : 0,
    refcount: sb.hasReflink
      ? computeMaxlevels(min(12), min(8), sb.agblocks)
      : 0,
    inobt: computeMaxlevels(min(16), min(8), chunks),
    bmapData: bmapMaxlevels(
      sb.blocksize,
      sb.hasNrext64 ? 2 ** 48 - 1 : 2 ** 31 - 1,
      3,
    ),
    bmapAttr: bmapMaxlevels(
      sb.blocksize,
      sb.hasNrext64 ? 2 ** 32 - 1 : 2 ** 15 - 1,
      2,
    ),
  };
}

/** What a kind of transaction reserves (kernel: `struct xfs_trans_res`). */
interface TransRes {
  /** Bytes of a step. */
  logres: number;
  /** Steps. */
  logcount: number;
}

/** Works out the reservations that can be the largest. */
class Reservations {
  readonly #sb: XfsSb;
  readonly #h: Heights;

  constructor(sb: XfsSb) {
    this.#sb = sb;
    this.#h = heights(sb);
  }

  /** Kernel: `xfs_calc_buf_res`. */
  #bufs(count: number, size: number): number {
    return count * (size + BUF_OVERHEAD);
  }
  #blocks(count: number): number {
    return this.#bufs(count, this.#sb.blocksize);
  }
  #sectors(count: number): number {
    return this.#bufs(count, this.#sb.sectsize);
  }
  /** Kernel: `xfs_calc_inode_res`. */
  #inodes(count: number): number {
    return count * (4 * OP_HEADER + INODE_LOG_FORMAT + this.#sb.inodesize +
      2 * F.XFS_BTREE_LBLOCK_CRC_LEN);
  }
  /** Kernel: `xfs_allocfree_block_count`. */
  #allocFree(ops: number): number {
    let count = ops * 2 * (2 * this.#h.alloc - 1);
    if (this.#sb.hasRmapbt) count += ops * (2 * this.#h.rmap - 1);
    return this.#blocks(count);
  }
  /** Kernel: `xfs_refcountbt_block_count`, 0 without reflink. */
  #refcount(ops: number): number {
    if (!this.#sb.hasReflink) return 0;
    return this.#blocks(ops * (2 * this.#h.refcount - 1));
  }
  /** Kernel: `xfs_calc_inobt_res`. */
  #inobt(): number {
    return this.#blocks(this.#h.inobt) + this.#allocFree(1);
  }
  #finobt(): number {
    return this.#sb.hasFinobt ? this.#inobt() : 0;
  }
  /** Bytes of the larger of a block and an inode cluster. */
  #cluster(): number {
    return this.#sb.blocksPerCluster * this.#sb.blocksize;
  }
  #iunlinkRemove(): number {
    return this.#sectors(1) + 2 * this.#cluster();
  }
  #iunlinkAdd(): number {
    return this.#sectors(1) + this.#cluster();
  }
  /** Kernel: `XFS_NEXTENTADD_SPACE_RES`. */
  #extentAdd(count: number, maxlevels: number): number {
    const { blocksize } = this.#sb;
    const max = fit(blocksize, F.XFS_BTREE_SBLOCK_CRC_LEN, 8);
    const spare = max - Math.floor(max / 2);
    return Math.ceil(count / spare) * (maxlevels - 1);
  }
  /** Kernel: `XFS_DIROP_LOG_COUNT`. */
  #dirOp(): number {
    const depth = F.XFS_DA_NODE_MAXDEPTH + 2;
    const { dirblkFsbs } = this.#sb;
    const maps = this.#extentAdd(dirblkFsbs, this.#h.bmapData);
    return depth * dirblkFsbs + depth * maps + 1;
  }

  #write(): number {
    const trees = this.#allocFree(2) + this.#refcount(2);
    return DQUOT_LOGRES + Math.max(
      this.#inodes(1) + this.#blocks(this.#h.bmapData) + this.#sectors(3) +
        trees,
      this.#sectors(5) + trees,
    );
  }
  #itruncate(): number {
    return DQUOT_LOGRES + Math.max(
      this.#inodes(1) + this.#blocks(this.#h.bmapData + 1),
      this.#sectors(9) + this.#allocFree(4) + this.#refcount(4),
    );
  }
  #rename(): number {
    return DQUOT_LOGRES + Math.max(
      this.#inodes(5) + this.#blocks(2 * this.#dirOp()),
      this.#sectors(7) + this.#allocFree(3),
    );
  }
  #link(): number {
    return DQUOT_LOGRES + this.#iunlinkRemove() + Math.max(
      this.#inodes(2) + this.#blocks(this.#dirOp()),
      this.#sectors(3) + this.#allocFree(1),
    );
  }
  #remove(): number {
    return DQUOT_LOGRES + this.#iunlinkAdd() + Math.max(
      this.#inodes(2) + this.#blocks(this.#dirOp()),
      this.#sectors(4) + this.#allocFree(2),
    );
  }
  #icreate(): number {
    const { sectsize, blocksize } = this.#sb;
    return DQUOT_LOGRES + Math.max(
      this.#sectors(2) + sectsize + this.#allocFree(1) + this.#inobt() +
        this.#finobt(),
      this.#inodes(2) + this.#sectors(1) + blocksize +
        this.#blocks(this.#dirOp()) + this.#finobt(),
    );
  }
  #attrinval(): number {
    return Math.max(
      this.#inodes(1) + this.#blocks(this.#h.bmapAttr),
      this.#sectors(9) + this.#allocFree(4),
    );
  }
  #attrsetm(): number {
    return DQUOT_LOGRES + this.#inodes(1) + this.#sectors(1) +
      this.#blocks(F.XFS_DA_NODE_MAXDEPTH);
  }
  #attrrm(): number {
    return DQUOT_LOGRES + Math.max(
      this.#inodes(1) + this.#blocks(F.XFS_DA_NODE_MAXDEPTH) +
        this.#sb.blocksize * this.#h.bmapAttr +
        this.#bufs(this.#h.bmapData, 0),
      this.#sectors(5) + this.#allocFree(2),
    );
  }

  /** Bytes of setting the largest attribute that a leaf holds (kernel:
   * `xfs_log_calc_max_attrsetm_res`). */
  attrset(): number {
    const { blocksize } = this.#sb;
    const size = blocksize / 2 + blocksize / 4 - MAXNAMELEN - 1;
    const depth = F.XFS_DA_NODE_MAXDEPTH;
    const blocks = depth + depth * this.#extentAdd(1, this.#h.bmapAttr) +
      Math.ceil(size / blocksize) + this.#extentAdd(size, this.#h.bmapAttr);
    const each = this.#sectors(1) + this.#blocks(this.#h.bmapAttr);
    return this.#attrsetm() + each * blocks;
  }

  /** The largest (kernel: `xfs_log_get_max_trans_res`). */
  max(): TransRes {
    const reflink = this.#sb.hasReflink ? LOG_COUNT_REFLINK : 2;
    const create = this.#icreate();
    const all: TransRes[] = [
      { logres: this.#write(), logcount: reflink },
      { logres: this.#itruncate(), logcount: reflink },
      { logres: this.#rename(), logcount: 2 },
      { logres: this.#link(), logcount: 2 },
      { logres: this.#remove(), logcount: 2 },
      { logres: create + this.#bufs(1, SYMLINK_MAXLEN), logcount: 3 },
      { logres: create, logcount: 3 },
      { logres: this.#attrinval(), logcount: 1 },
      { logres: this.#attrsetm(), logcount: 3 },
      { logres: this.#attrrm(), logcount: 3 },
      // A write that also allocates a quota record.
      {
        logres: this.#write() + this.#bufs(1, this.#sb.blocksize - 1),
        logcount: reflink,
      },
    ];
    let best = all[0]!;
    for (const res of all) {
      if (res.logres * res.logcount > best.logres * best.logcount) best = res;
    }
    const attr = this.attrset();
    return attr > best.logres * best.logcount
      ? { logres: attr, logcount: 3 }
      : best;
  }
}

/**
 * Bytes that a step of a transaction takes in the log with all that goes around it
 * (kernel: `xfs_log_calc_unit_res`).
 *
 * @param bytes What the transaction reserves itself.
 * @param iclogSize Bytes of a log buffer.
 * @param logsunit Log stripe unit, bytes; 1 or 0 if there is none.
 */
export function xfsLogCalcUnitRes(
  bytes: number,
  iclogSize: number,
  logsunit: number,
): number {
  const header = Math.ceil(iclogSize / XLOG_HEADER_CYCLE_SIZE) * F.BBSIZE;
  const space = iclogSize - header;
  const body = bytes + 2 * OP_HEADER + TRANS_HEADER;
  let headers = Math.ceil(body / space);
  // Cut into records, it needs a further op header for each, and so may need more.
  while (Math.ceil((body + headers * OP_HEADER) / space) > headers) headers++;
  const roundoff = logsunit > 1 ? 2 * logsunit : 2 * F.BBSIZE;
  return body + headers * (OP_HEADER + header) + header + roundoff;
}

/**
 * Blocks of the smallest log that the file system may have (kernel:
 * `xfs_log_calc_minimum_size`).
 *
 * @param sb Geometry and features; derived.
 * @param iclogSize Bytes of a log buffer: `XLOG_BIG_RECORD_BSIZE` at mount,
 *   `XLOG_MAX_RECORD_BSIZE` for mkfs.
 */
export function xfsLogCalcMinimumSize(sb: XfsSb, iclogSize: number): number {
  const { logres, logcount } = new Reservations(sb).max();
  const bytes = xfsLogCalcUnitRes(logres, iclogSize, sb.logsunit) * logcount;
  let bbs = Math.ceil(bytes / F.BBSIZE);
  if (sb.logsunit > 1) {
    const unit = sb.logsunit / F.BBSIZE;
    bbs = Math.ceil(bbs / unit) * unit + 2 * unit;
  } else {
    // Twice the bytes of a basic block, counted as basic blocks: so be it.
    bbs += 2 * F.BBSIZE;
  }
  return Math.ceil(XFS_MIN_LOG_FACTOR * bbs / sb.bbPerBlock);
}
