/**
 * A mounted file system: geometry, groups, counters, options, and what waits to be
 * written.
 *
 * Kernel counterpart: fs/xfs/xfs_mount.h, xfs_mount.c.
 *
 * @module
 */

import type { BlockDevice } from "../../block/blkdev.ts";
import { bugOn } from "../../lib/bug.ts";
import { EFSCORRUPTED, ENOSPC } from "../../lib/errno.ts";
import { printk } from "../../lib/printk.ts";
import { Prng } from "../../lib/prng.ts";
import type { Mm } from "../../mm/mm.ts";
import { MAX_LFS_FILESIZE, SuperBlock, type SuperOperations } from "../fs.ts";
import { markInodeDirty } from "../inode.ts";
import type { XfsInode } from "./inode.ts";
import { XfsPerag } from "./libxfs/ag.ts";
import { BufTarg } from "./libxfs/buf.ts";
import { XfsDaGeometry } from "./libxfs/da-btree.ts";
import { xfsComputeMaxlevels, type XfsMaxlevels } from "./libxfs/maxlevels.ts";
import type { XfsSb } from "./libxfs/sb.ts";
import { XFS_ILOG_TIMESTAMP, type XfsTrans } from "./libxfs/trans.ts";
import { xfsCalcAtomicWriteUnitMax } from "./libxfs/trans-resv.ts";

/** Default of the smallest speculative preallocation, log2 bytes (kernel:
 * `XFS_WRITEIO_LOG_LARGE`). */
const DEFAULT_ALLOCSIZE_LOG = 16;
/** Most blocks of the reserve (kernel: `xfs_default_resblks`). */
const MAX_RESBLKS = 8192;

/** What `mount -o` can say. */
export interface XfsMountOptions {
  /** log2 of `allocsize=`, or null if it was not given. */
  allocsizeLog: number | null;
  /** `ro`: nothing is changed. */
  readOnly: boolean;
  /** `norecovery`: the log is not looked at. */
  norecovery?: boolean;
  /** Where generation numbers of new inodes come from; 0 if absent. */
  seed?: number;
}

/** One mounted file system (kernel: `struct xfs_mount`). */
export class XfsMount extends SuperBlock {
  /** Super block. Its counters are what is committed, its `fdblocks` with everything
   * counted that the format counts as free. */
  readonly sb: XfsSb;
  /** Metadata buffers. */
  readonly targ: BufTarg;
  /** Allocation groups. */
  readonly perags: XfsPerag[];
  /** Sizes and places of directories (kernel: `m_dir_geo`). */
  readonly dirGeo: XfsDaGeometry;
  /** The same of trees of attributes (kernel: `m_attr_geo`). */
  readonly attrGeo: XfsDaGeometry;
  /** Free blocks that nobody has been promised (kernel: `m_fdblocks`). */
  fdblocks = 0;
  /** Free blocks in the reserve (kernel: `m_resblks_avail`). */
  resblksAvail = 0;
  /** Size of the reserve (kernel: `m_resblks`). */
  resblks = 0;
  /** Blocks that allocation cannot give away, as trees need them to free it (kernel:
   * `m_alloc_set_aside`). */
  allocSetAside = 0;
  /** Blocks of the free-space trees, roots not counted: they count as free, too, and
   * cannot be given away either (kernel: `m_allocbt_blks`). */
  allocbtBlks = 0;
  /** Nothing is kept for the trees of free inodes (kernel: `m_finobt_nores`). */
  finobtNores = false;
  /** Longest extent that can be allocated (kernel: `m_ag_max_usable`). */
  agMaxUsable = 0;
  /** Most levels of each kind of tree (kernel: `m_*_maxlevels`). */
  readonly maxlevels: XfsMaxlevels;
  /** Most blocks of an atomic write out of place (kernel: `awu_max`). */
  readonly awuMax: number;
  /** Whether `allocsize=` was given: preallocation does not grow. */
  readonly fixedAllocsize: boolean;
  /** log2 bytes of the smallest preallocation (kernel: `m_allocsize_log`). */
  readonly allocsizeLog: number;
  /** The same in blocks. */
  readonly allocsizeBlocks: number;
  /** Inodes that may have space beyond their end or for copy-on-write to give back
   * (kernel: `XFS_ICI_BLOCKGC_TAG`). */
  readonly blockgc: Set<XfsInode> = new Set();
  /** Gives back what files hold without need; set by mount (kernel:
   * `xfs_blockgc_flush_all`). */
  blockgcFlushAll: () => void = () => {};
  /** Inodes that have changed since they were written to their buffers. */
  readonly dirtyXfsInodes: Set<XfsInode> = new Set();
  /** The transaction that is going on; they nest only where one waits in place. */
  #active = 0;
  /** Group of the next new directory (kernel: `m_agirotor`). */
  agirotor = 0;
  /** Generation numbers of new inodes (kernel: `get_random_u32`). */
  readonly inodeGenerations: Prng;

  /**
   * A mount that knows its geometry.
   *
   * @param bdev Device.
   * @param mm Memory.
   * @param ops Super block methods.
   * @param sb Super block.
   * @param options From the mount.
   */
  constructor(
    bdev: BlockDevice,
    mm: Mm,
    ops: SuperOperations,
    sb: XfsSb,
    options: XfsMountOptions,
  ) {
    super(bdev, mm, ops);
    this.sb = sb;
    this.dirGeo = new XfsDaGeometry(sb, true);
    this.attrGeo = new XfsDaGeometry(sb, false);
    this.maxlevels = xfsComputeMaxlevels(sb);
    this.awuMax = xfsCalcAtomicWriteUnitMax(this);
    this.blkbits = sb.blocklog;
    this.readOnly = options.readOnly;
    this.maxBytes = MAX_LFS_FILESIZE;
    this.targ = new BufTarg(bdev);
    this.targ.uuid = sb.blockUuid;
    this.targ.mount = this;
    this.targ.onCorruption = (bp, kind, why) =>
      this.corrupt(`${kind.name} at daddr ${bp.daddr}`, why);
    this.perags = Array.from(
      { length: sb.agcount },
      (_, agno) => new XfsPerag(this, agno, sb.agSize(agno)),
    );
    this.inodeGenerations = new Prng(options.seed ?? 0, "inode generation");
    this.fixedAllocsize = options.allocsizeLog !== null;
    this.allocsizeLog = Math.max(
      options.allocsizeLog ?? DEFAULT_ALLOCSIZE_LOG,
      sb.blocklog,
    );
    this.allocsizeBlocks = 2 ** (this.allocsizeLog - sb.blocklog);
  }

  /** Sets free space aside for what must not fail (kernel: `xfs_reserve_blocks`). */
  reserveBlocks(): void {
    const wanted = Math.floor(this.sb.dblocks / 20);
    this.resblks = Math.min(wanted, MAX_RESBLKS);
    this.resblksAvail = Math.max(
      0,
      Math.min(this.resblks, this.fdblocks - this.allocSetAside),
    );
    this.fdblocks -= this.resblksAvail;
  }

  /**
   * Promises blocks (kernel: `xfs_dec_fdblocks`).
   *
   * @param reserve The reserve may be used.
   * @returns 0, or -ENOSPC: then nothing was counted.
   */
  decFdblocks(blocks: number, reserve: boolean): number {
    const unavailable = this.allocSetAside + this.allocbtBlks;
    if (this.fdblocks - unavailable >= blocks) {
      this.fdblocks -= blocks;
      return 0;
    }
    if (!reserve || this.resblksAvail < blocks) return -ENOSPC;
    this.resblksAvail -= blocks;
    return 0;
  }

  /** Writes metadata soon that nobody has synced (kernel: `xfs_ail_push_all`); set by
   * mount. */
  pushAil: () => void = () => {};

  /** Gives promised or freed blocks back; the reserve is filled first (kernel:
   * `xfs_add_fdblocks`). */
  addFdblocks(blocks: number): void {
    const missing = this.resblks - this.resblksAvail;
    const back = Math.max(0, Math.min(blocks, missing));
    this.resblksAvail += back;
    this.fdblocks += blocks - back;
  }

  /** A transaction begins. */
  transBegun(_tp: XfsTrans): void {
    // Waiting in place for a block, it must not meet another one half-way.
    bugOn(this.targ.busy, "a transaction begins while another waits in place");
    this.#active++;
    bugOn(this.#active > 1, "a transaction begins within another");
  }

  /** A transaction goes on, or somebody waits in place: no other can begin. */
  get busy(): boolean {
    return this.#active > 0 || this.targ.busy;
  }

  /** A transaction has ended. */
  transEnded(_tp: XfsTrans): void {
    this.#active--;
    this.targ.shrink();
    if (this.targ.crowded) this.pushAil();
  }

  /** A transaction that changed an inode has committed.
   * @param fields `XFS_ILOG_*`. */
  inodeLogged(ip: XfsInode, fields: number): void {
    ip.ilogged |= fields;
    if ((fields & ~XFS_ILOG_TIMESTAMP) !== 0) ip.mapLogged = true;
    markInodeDirty(ip);
  }

  /** Something on the device cannot be: it is logged, and nothing is written any more
   * (kernel: `xfs_corruption_error`, `xfs_buf_verifier_error`).
   * @param where "xfs_agf at daddr 1".
   * @param why The check that failed.
   * @returns -EFSCORRUPTED. */
  corrupt(where: string, why: string): number {
    this.complaint = `${where}: ${why}`;
    printk(`XFS (${this.id}): Metadata corruption detected, ${this.complaint}`);
    this.forceShutdown("corruption of metadata");
    return -EFSCORRUPTED;
  }

  /** The check that failed last. */
  complaint = "";
  /** Metadata is being written without a sync; or that has failed. */
  pushing = false;
  /** The super block on the device says that the image is in use. */
  markedInUse = false;
  /** First error of an inode that left memory: the image stays in use. */
  evictError = 0;

  /** From now on everything is -EIO, and nothing is written (kernel:
   * `xfs_force_shutdown`). */
  forceShutdown(why: string): void {
    if (this.dead) return;
    printk(`XFS (${this.id}): ${why}. Shutting down filesystem.`);
    this.dead = true;
    this.targ.dead = true;
  }
}
