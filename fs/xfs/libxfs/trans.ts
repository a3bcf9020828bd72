/**
 * Transactions: what one change of the metadata touches, and the space that it was
 * promised.
 *
 * A transaction runs from {@linkcode xfsTransAlloc} to its commit in one go: nothing
 * in between lets another task run. One that has changed something can no longer be
 * taken back: cancelling it shuts the file system down, as in the kernel.
 *
 * Kernel counterpart: fs/xfs/xfs_trans.c, xfs_trans_buf.c, libxfs/xfs_trans_inode.c.
 *
 * @module
 */

import { EIO, ENOSPC } from "../../../lib/errno.ts";
import type { XfsInode } from "../inode.ts";
import type { XfsMount } from "../mount.ts";
import { XFS_BLF_CHUNK, type XfsBuf, type XfsBufOps } from "./buf.ts";
import { type DeferPending, xfsDeferFinishNoroll } from "./defer.ts";

/** May dip into the reserve: what frees space must work on a full file system (kernel:
 * `XFS_TRANS_RESERVE`). */
export const XFS_TRANS_RESERVE = 1 << 0;

// What of an inode a transaction changed (kernel: XFS_ILOG_*).
/** Anything of the core. */
export const XFS_ILOG_CORE = 0x001;
/** Data of a local data fork. */
export const XFS_ILOG_DDATA = 0x002;
/** Extent list of the data fork. */
export const XFS_ILOG_DEXT = 0x004;
/** Root of the data fork's tree. */
export const XFS_ILOG_DBROOT = 0x008;
/** Device number. */
export const XFS_ILOG_DEV = 0x010;
/** Data of a local attribute fork. */
export const XFS_ILOG_ADATA = 0x040;
/** Extent list of the attribute fork. */
export const XFS_ILOG_AEXT = 0x080;
/** Root of the attribute fork's tree. */
export const XFS_ILOG_ABROOT = 0x100;
/** Only timestamps; a datasync need not wait for it. */
export const XFS_ILOG_TIMESTAMP = 0x4000;

/** One transaction (kernel: `struct xfs_trans`). */
export class XfsTrans {
  /** File system. */
  readonly mp: XfsMount;
  /** `XFS_TRANS_*`. */
  readonly flags: number;
  /** Blocks promised (kernel: `t_blk_res`). */
  blkRes: number;
  /** Of these, used. */
  blkResUsed = 0;
  /** Something has been changed. */
  dirty = false;
  /** Highest group whose free space it has changed, -1 before the first: it must not
   * go back to lower ones (kernel: `t_highest_agno`). */
  highestAgno = -1;
  /** Buffers that it changed. */
  readonly bufs: Set<XfsBuf> = new Set();
  /** Inodes that it changed: `XFS_ILOG_*` of each. */
  readonly inodes: Map<XfsInode, number> = new Map();
  /** Free space is so short that allocation takes whatever it finds (kernel:
   * `XFS_TRANS_LOWMODE`). */
  lowmode = false;
  /** Changes of counters, to be made at commit. */
  icountDelta = 0;
  ifreeDelta = 0;
  /** Freed (above 0) and used blocks, against `blkRes` (kernel: `t_fdblocks_delta`). */
  fdblocksDelta = 0;
  /** Blocks used of what a delayed allocation had promised: already counted off
   * (kernel: `t_res_fdblocks_delta`). */
  resFdblocksDelta = 0;
  /** Work that is left for transactions that follow, in groups. */
  readonly deferred: DeferPending[] = [];

  /** {@linkcode xfsTransAlloc} makes them. */
  constructor(mp: XfsMount, blkRes: number, flags: number) {
    this.mp = mp;
    this.blkRes = blkRes;
    this.flags = flags;
  }

  /**
   * A buffer that is about to be filled anew (kernel: `xfs_trans_get_buf`). Its
   * contents are what they are; the caller sets `ops` and all of it.
   */
  getBuf(
    daddr: number,
    bbs: number,
    ops: XfsBufOps,
    maps: number[] | null = null,
  ): XfsBuf {
    const bp = this.mp.targ.get(daddr, bbs, maps);
    bp.ops = ops;
    bp.uptodate = true;
    bp.stale = false;
    return bp;
  }

  /** A buffer with its contents (kernel: `xfs_trans_read_buf`); it or a negative errno. */
  readBuf(
    daddr: number,
    bbs: number,
    ops: XfsBufOps,
    maps: number[] | null = null,
  ): XfsBuf | number {
    return this.mp.targ.read(daddr, bbs, ops, maps);
  }

  /**
   * Bytes of a buffer have been changed (kernel: `xfs_trans_log_buf`).
   *
   * @param first First byte.
   * @param last Last byte.
   */
  logBuf(bp: XfsBuf, first: number, last: number): void {
    this.dirty = true;
    this.bufs.add(bp);
    bp.trans = this;
    const nr = Math.ceil(bp.data.length / XFS_BLF_CHUNK);
    bp.chunks ??= new Uint32Array(Math.ceil(nr / 32));
    const to = Math.floor(last / XFS_BLF_CHUNK);
    for (let i = Math.floor(first / XFS_BLF_CHUNK); i <= to; i++) {
      bp.chunks[i >>> 5]! |= 1 << (i & 31);
    }
  }

  /** All of a buffer has been changed. */
  logWholeBuf(bp: XfsBuf): void {
    this.logBuf(bp, 0, bp.data.length - 1);
  }

  /** The blocks of a buffer have been freed: nobody must write them back (kernel:
   * `xfs_trans_binval`). */
  binval(bp: XfsBuf): void {
    this.dirty = true;
    this.bufs.delete(bp);
    bp.trans = null;
    bp.chunks = null;
    this.mp.targ.markStale(bp);
  }

  /**
   * An inode has been changed (kernel: `xfs_trans_log_inode`). The caller holds its
   * ILOCK exclusively.
   *
   * @param fields `XFS_ILOG_*`.
   */
  logInode(ip: XfsInode, fields: number): void {
    this.dirty = true;
    const before = this.inodes.get(ip);
    // Once a transaction (kernel: inode_maybe_inc_iversion).
    if (before === undefined && (fields & XFS_ILOG_CORE) !== 0) {
      ip.changecount++;
    }
    this.inodes.set(ip, (before ?? 0) | fields);
  }

  /** Counts inodes allocated and free (kernel: `xfs_trans_mod_sb`). */
  modInodes(icount: number, ifree: number): void {
    this.dirty = true;
    this.icountDelta += icount;
    this.ifreeDelta += ifree;
  }

  /** Counts blocks freed (above 0) or used (kernel: `xfs_trans_mod_sb` with
   * `XFS_TRANS_SB_FDBLOCKS`). */
  modFdblocks(delta: number): void {
    this.dirty = true;
    if (delta < 0) {
      this.blkResUsed -= delta;
      // Only an image can bring that about whose trees are not what they seem.
      if (this.blkResUsed > this.blkRes) {
        const used = `${this.blkResUsed} of ${this.blkRes} blocks`;
        this.mp.forceShutdown(`a transaction used ${used}`);
      }
    }
    this.fdblocksDelta += delta;
  }

  /** Counts blocks used that were counted off before, by a delayed allocation (kernel:
   * `XFS_TRANS_SB_RES_FDBLOCKS`). */
  modResFdblocks(delta: number): void {
    this.dirty = true;
    this.resFdblocksDelta += delta;
  }

  /**
   * Makes the changes count, after the work that was left has been done (kernel:
   * `xfs_trans_commit`). The transaction is over, whatever comes.
   *
   * @returns 0; -EIO if the file system is shut down, or the errno of what was left:
   *   then it is shut down now.
   */
  commit(): number {
    if (this.deferred.length > 0) {
      const error = xfsDeferFinishNoroll(this);
      if (error < 0) {
        this.cancel();
        return error;
      }
    }
    if (this.mp.dead) {
      this.cancel();
      return -EIO;
    }
    this.#apply(this.blkRes);
    this.mp.transEnded(this);
    return 0;
  }

  /**
   * Commits what there is and goes on with what is left of the reservation (kernel:
   * `xfs_trans_roll`).
   *
   * @returns 0, or -EIO if the file system is shut down; the transaction goes on all
   *   the same, to be cancelled.
   */
  roll(): number {
    if (this.mp.dead) return -EIO;
    const used = this.blkResUsed;
    this.#apply(used);
    this.blkRes -= used;
    this.blkResUsed = 0;
    return 0;
  }

  /** Ends it without effect; if it has changed something that is too late, and the file
   * system is shut down (kernel: `xfs_trans_cancel`). */
  cancel(): void {
    if (this.dirty || this.deferred.length > 0) {
      this.mp.forceShutdown("a transaction was cancelled half-way");
    }
    for (const bp of this.bufs) {
      bp.trans = null;
      bp.chunks = null;
    }
    this.bufs.clear();
    this.mp.addFdblocks(this.blkRes);
    this.mp.transEnded(this);
  }

  /** The changes become those of the file system, to be written back.
   * @param returned Blocks of the promise that end with it, used or not. */
  #apply(returned: number): void {
    const { mp } = this;
    for (const bp of this.bufs) {
      bp.trans = null;
      bp.chunks = null;
      mp.targ.markDirty(bp);
    }
    this.bufs.clear();
    for (const [ip, fields] of this.inodes) mp.inodeLogged(ip, fields);
    this.inodes.clear();
    mp.sb.icount += this.icountDelta;
    mp.sb.ifree += this.ifreeDelta;
    mp.sb.fdblocks += this.fdblocksDelta + this.resFdblocksDelta;
    mp.addFdblocks(returned + this.fdblocksDelta);
    this.icountDelta = this.ifreeDelta = 0;
    this.fdblocksDelta = this.resFdblocksDelta = 0;
    this.highestAgno = -1;
    this.dirty = false;
  }
}

/**
 * Begins a transaction (kernel: `xfs_trans_alloc`).
 *
 * @param blocks Blocks that it may use; what it does not use comes back.
 * @param flags `XFS_TRANS_*`.
 * @returns It; -ENOSPC if so much is not free, -EIO if the file system is shut down.
 */
export function xfsTransAlloc(
  mp: XfsMount,
  blocks: number,
  flags = 0,
): XfsTrans | number {
  if (mp.dead) return -EIO;
  const reserve = (flags & XFS_TRANS_RESERVE) !== 0;
  if (blocks > 0 && mp.decFdblocks(blocks, reserve) < 0) {
    // Files may have been promised more than they need.
    mp.blockgcFlushAll();
    if (mp.decFdblocks(blocks, reserve) < 0) return -ENOSPC;
  }
  const tp = new XfsTrans(mp, blocks, flags);
  mp.transBegun(tp);
  return tp;
}
