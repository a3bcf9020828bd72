/**
 * The smallest log that a file system can live with: three times what its largest
 * transaction may take.
 *
 * mkfs makes none below it, as the kernel would not mount that. The rules keep what
 * early versions of reverse mapping and reflink took, although less would do by now: or
 * an image made today would not mount on a kernel of that time.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_log_rlimit.c, xfs_trans_resv.c (with
 * `for_minlogsize`); xfs_log.c (`xfs_log_calc_unit_res`).
 *
 * @module
 */

import * as F from "./format.ts";
import * as L from "./log-format.ts";
import { xfsComputeMaxlevels, type XfsMaxlevels } from "./maxlevels.ts";
import type { XfsSb } from "./sb.ts";
import { LogSpace, XFS_DQUOT_LOGRES } from "./trans-resv.ts";
import { xfsDaenterSpaceRes, xfsNextentaddSpaceRes } from "./trans-space.ts";

/** Largest transactions that fit a log (kernel: `XFS_MIN_LOG_FACTOR`). */
const XFS_MIN_LOG_FACTOR = 3;
/** Height that reverse mapping was once reckoned with (kernel:
 * `XFS_OLD_REFLINK_RMAP_MAXLEVELS`). */
const OLD_REFLINK_RMAP_MAXLEVELS = 9;
/** Times that a write or a truncation rolls, with reflink (kernel:
 * `XFS_WRITE_LOG_COUNT_REFLINK`). */
const LOG_COUNT_REFLINK = 8;

/** Heights as they were reckoned with once. */
function oldMaxlevels(sb: XfsSb): XfsMaxlevels {
  const levels = xfsComputeMaxlevels(sb);
  return sb.hasRmapbt && sb.hasReflink
    ? { ...levels, rmap: OLD_REFLINK_RMAP_MAXLEVELS }
    : levels;
}

/** What a kind of transaction reserves (kernel: `struct xfs_trans_res`). */
interface TransRes {
  /** Bytes of a step. */
  logres: number;
  /** Steps. */
  logcount: number;
}

/** Works out the reservations that can be the largest. */
class Reservations extends LogSpace {
  constructor(sb: XfsSb) {
    super(sb, oldMaxlevels(sb));
  }

  /** Kernel: `xfs_calc_inobt_res`. */
  #inobt(): number {
    return this.blocks(this.maxlevels.inobt) + this.allocFree(1);
  }
  #finobt(): number {
    return this.sb.hasFinobt ? this.#inobt() : 0;
  }
  /** Bytes of the larger of a block and an inode cluster. */
  #cluster(): number {
    return this.sb.blocksPerCluster * this.sb.blocksize;
  }
  #iunlinkRemove(): number {
    return this.sectors(1) + 2 * this.#cluster();
  }
  #iunlinkAdd(): number {
    return this.sectors(1) + this.#cluster();
  }
  /** Kernel: `XFS_DIROP_LOG_COUNT`. */
  #dirOp(): number {
    return xfsDaenterSpaceRes(this, F.XFS_DATA_FORK) + 1;
  }

  #write(): number {
    const trees = this.allocFree(2) + this.refcount(2);
    return XFS_DQUOT_LOGRES + Math.max(
      this.inodes(1) + this.blocks(this.maxlevels.bmapData) + this.sectors(3) +
        trees,
      this.sectors(5) + trees,
    );
  }
  #itruncate(): number {
    return XFS_DQUOT_LOGRES + Math.max(
      this.inodes(1) + this.blocks(this.maxlevels.bmapData + 1),
      this.sectors(9) + this.allocFree(4) + this.refcount(4),
    );
  }
  #rename(): number {
    return XFS_DQUOT_LOGRES + Math.max(
      this.inodes(5) + this.blocks(2 * this.#dirOp()),
      this.sectors(7) + this.allocFree(3),
    );
  }
  #link(): number {
    return XFS_DQUOT_LOGRES + this.#iunlinkRemove() + Math.max(
      this.inodes(2) + this.blocks(this.#dirOp()),
      this.sectors(3) + this.allocFree(1),
    );
  }
  #remove(): number {
    return XFS_DQUOT_LOGRES + this.#iunlinkAdd() + Math.max(
      this.inodes(2) + this.blocks(this.#dirOp()),
      this.sectors(4) + this.allocFree(2),
    );
  }
  #icreate(): number {
    const { sectsize, blocksize } = this.sb;
    return XFS_DQUOT_LOGRES + Math.max(
      this.sectors(2) + sectsize + this.allocFree(1) + this.#inobt() +
        this.#finobt(),
      this.inodes(2) + this.sectors(1) + blocksize +
        this.blocks(this.#dirOp()) + this.#finobt(),
    );
  }
  #attrinval(): number {
    return Math.max(
      this.inodes(1) + this.blocks(this.maxlevels.bmapAttr),
      this.sectors(9) + this.allocFree(4),
    );
  }
  #attrsetm(): number {
    return XFS_DQUOT_LOGRES + this.inodes(1) + this.sectors(1) +
      this.blocks(F.XFS_DA_NODE_MAXDEPTH);
  }
  #attrrm(): number {
    return XFS_DQUOT_LOGRES + Math.max(
      this.inodes(1) + this.blocks(F.XFS_DA_NODE_MAXDEPTH) +
        this.sb.blocksize * this.maxlevels.bmapAttr +
        this.bufs(this.maxlevels.bmapData, 0),
      this.sectors(5) + this.allocFree(2),
    );
  }

  /** Bytes of setting the largest attribute that a leaf holds (kernel:
   * `xfs_log_calc_max_attrsetm_res`). */
  attrset(): number {
    const { blocksize } = this.sb;
    const size = blocksize / 2 + blocksize / 4 - F.MAXNAMELEN - 1;
    const blocks = xfsDaenterSpaceRes(this, F.XFS_ATTR_FORK) +
      Math.ceil(size / blocksize) +
      xfsNextentaddSpaceRes(this, size, F.XFS_ATTR_FORK);
    const each = this.sectors(1) + this.blocks(this.maxlevels.bmapAttr);
    return this.#attrsetm() + each * blocks;
  }

  /** The largest (kernel: `xfs_log_get_max_trans_res`). */
  max(): TransRes {
    const reflink = this.sb.hasReflink ? LOG_COUNT_REFLINK : 2;
    const create = this.#icreate();
    const all: TransRes[] = [
      { logres: this.#write(), logcount: reflink },
      { logres: this.#itruncate(), logcount: reflink },
      { logres: this.#rename(), logcount: 2 },
      { logres: this.#link(), logcount: 2 },
      { logres: this.#remove(), logcount: 2 },
      { logres: create + this.bufs(1, F.XFS_SYMLINK_MAXLEN), logcount: 3 },
      { logres: create, logcount: 3 },
      { logres: this.#attrinval(), logcount: 1 },
      { logres: this.#attrsetm(), logcount: 3 },
      { logres: this.#attrrm(), logcount: 3 },
      // A write that also allocates a quota record.
      {
        logres: this.#write() + this.bufs(1, this.sb.blocksize - 1),
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
function xfsLogCalcUnitRes(
  bytes: number,
  iclogSize: number,
  logsunit: number,
): number {
  const header = Math.ceil(iclogSize / L.XLOG_HEADER_CYCLE_SIZE) * F.BBSIZE;
  const space = iclogSize - header;
  const body = bytes + 2 * L.XLOG_OP_HEADER_LEN + L.XFS_TRANS_HEADER_LEN;
  let headers = Math.ceil(body / space);
  // Cut into records, it needs a further op header for each, and so may need more.
  while (Math.ceil((body + headers * L.XLOG_OP_HEADER_LEN) / space) > headers) {
    headers++;
  }
  const roundoff = logsunit > 1 ? 2 * logsunit : 2 * F.BBSIZE;
  return body + headers * (L.XLOG_OP_HEADER_LEN + header) + header + roundoff;
}

/**
 * Blocks of the smallest log that the file system may have (kernel:
 * `xfs_log_calc_minimum_size`).
 *
 * @param sb Geometry and features; derived.
 * @param iclogSize Bytes of a log buffer: `XLOG_MAX_RECORD_BSIZE` for mkfs.
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
