/**
 * A mounted XFS-like file system: its groups, counters and options.
 *
 * Kernel counterpart: fs/xfs/xfs_mount.h, xfs_mount.c.
 *
 * @module
 */

import type { BlockDevice } from "../../block/blkdev.ts";
import type { Mm } from "../../mm/mm.ts";
import { MAX_LFS_FILESIZE, SuperBlock, type SuperOperations } from "../fs.ts";
import { XfsPerag } from "./ag.ts";
import { BufCache } from "./buf.ts";
import type { XfsGeometry } from "./format.ts";
import type { XfsInode } from "./inode.ts";
import { type BlobRef, emptyBlob } from "./ondisk.ts";

/** Default of the smallest speculative preallocation, log2 bytes (kernel:
 * `XFS_WRITEIO_LOG_LARGE`). */
const DEFAULT_ALLOCSIZE_LOG = 16;
/** Most blocks of the reserve for metadata (kernel: `xfs_default_resblks`). */
const MAX_POOL = 8192;

/** What `mount -o` can say. */
export interface XfsMountOptions {
  /** log2 of `allocsize=`, or null if it was not given. */
  allocsizeLog: number | null;
}

/** One mounted file system (kernel: `struct xfs_mount`). */
export class XfsMount extends SuperBlock {
  /** Geometry. */
  readonly geo: XfsGeometry;
  /** Allocation groups. */
  readonly ags: XfsPerag[];
  /** Metadata blocks. */
  readonly bufs: BufCache;
  /** Text that mkfs was given. */
  readonly label: string;
  /** Number of the root directory. */
  rootIno = 0;
  /** Free blocks that nobody has been promised (kernel: `m_fdblocks`). */
  fdblocks = 0;
  /** Free blocks in the reserve for metadata (kernel: `m_resblks_avail`). */
  poolBlocks = 0;
  /** Size of the reserve. */
  poolSize = 0;
  /** Inodes laid out. */
  inodeCount = 0;
  /** Of these, not in use. */
  inodesFree = 0;
  /** Whether `allocsize=` was given: preallocation does not grow. */
  readonly fixedAllocsize: boolean;
  /** log2 bytes of the smallest preallocation (kernel: `m_allocsize_log`). */
  readonly allocsizeLog: number;
  /** The same in blocks. */
  readonly allocsizeBlocks: number;
  /** Inodes that may have space beyond their end (kernel: `XFS_ICI_BLOCKGC_TAG`). */
  readonly blockgc: Set<XfsInode> = new Set();
  /** Where the groups' state was written last. */
  groups: BlobRef = emptyBlob();
  /** First error of an inode that left memory: the image stays in use. */
  evictError = 0;
  /** The check that a refused structure failed last. */
  complaint = "";
  #dirAg = -1;

  /**
   * A mount whose groups have nothing free yet.
   *
   * @param bdev Device.
   * @param mm Memory.
   * @param ops Super block methods.
   * @param geo Geometry.
   * @param label Text.
   * @param options From the mount.
   */
  constructor(
    bdev: BlockDevice,
    mm: Mm,
    ops: SuperOperations,
    geo: XfsGeometry,
    label: string,
    options: XfsMountOptions,
  ) {
    super(bdev, mm, ops);
    this.geo = geo;
    this.label = label;
    this.blkbits = geo.blockLog;
    this.maxBytes = MAX_LFS_FILESIZE;
    this.bufs = new BufCache(bdev, geo.blockSize);
    this.ags = Array.from(
      { length: geo.agCount },
      (_, agno) => new XfsPerag(agno, geo.agSize(agno)),
    );
    this.fixedAllocsize = options.allocsizeLog !== null;
    this.allocsizeLog = Math.max(
      options.allocsizeLog ?? DEFAULT_ALLOCSIZE_LOG,
      geo.blockLog,
    );
    this.allocsizeBlocks = 2 ** (this.allocsizeLog - geo.blockLog);
  }

  /** Blocks that can hold anything: all but the groups' headers. */
  get usableBlocks(): number {
    return this.geo.dblocks - this.geo.agCount * this.geo.headerBlocks;
  }

  /** Sets the counters from what the groups hold (kernel:
   * `xfs_initialize_perag_data`). */
  countFree(): void {
    let free = 0;
    this.inodeCount = 0;
    this.inodesFree = 0;
    for (const ag of this.ags) {
      free += ag.freeBlocks;
      this.inodeCount += ag.chunks.size * 64;
      for (const { usedLow, usedHigh } of ag.chunks.values()) {
        this.inodesFree += 64 - popcount(usedLow) - popcount(usedHigh);
      }
    }
    this.poolSize = Math.min(Math.floor(this.geo.dblocks / 20), MAX_POOL);
    this.poolBlocks = Math.min(this.poolSize, free);
    this.fdblocks = free - this.poolBlocks;
  }

  /** Group of the next new directory: each in turn (kernel: `m_agirotor`). */
  nextDirAg(): number {
    this.#dirAg = (this.#dirAg + 1) % this.ags.length;
    return this.#dirAg;
  }
}

function popcount(word: number): number {
  let n = 0;
  for (let w = word; w !== 0; w &= w - 1) n++;
  return n;
}
