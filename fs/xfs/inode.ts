/**
 * An inode in memory.
 *
 * Kernel counterpart: fs/xfs/xfs_inode.h, xfs_inode.c, xfs_icache.c.
 *
 * @module
 */

import {
  bdevAtomicWriteUnitMaxBytes,
  bdevAtomicWriteUnitMinBytes,
} from "../../block/blkdev.ts";
import { bugOn } from "../../lib/bug.ts";
import { Rwsem } from "../../lib/locks.ts";
import type { MaybePromise } from "../../lib/maybe-promise.ts";
import type { IomapIoend } from "../../iomap/ioend.ts";
import type { AddressSpaceOperations } from "../../mm/address-space.ts";
import { type FileOperations, Inode, type InodeOperations } from "../fs.ts";
import { Ifork } from "./libxfs/iext.ts";
import {
  XFS_DIFLAG2_COWEXTSIZE,
  XFS_DIFLAG2_REFLINK,
  XFS_DIFLAG_EXTSIZE,
  XFS_DINODE_FMT_EXTENTS,
} from "./libxfs/format.ts";
import type { XfsMount } from "./mount.ts";

/** Blocks by which copies of shared blocks are allocated (kernel:
 * `XFS_DEFAULT_COWEXTSZ_HINT`). */
const XFS_DEFAULT_COWEXTSZ_HINT = 32;

/** One file, directory or link (kernel: `struct xfs_inode`). */
export class XfsInode extends Inode {
  /** Its file system. */
  readonly mount: XfsMount;
  /** Data fork. */
  readonly df: Ifork = new Ifork();
  /** Attribute fork, or null if there is none (kernel: `i_af` with `i_forkoff`). */
  af: Ifork | null = null;
  /** Extents that writes will go to instead of shared ones; null before the first
   * (kernel: `i_cowfp`). */
  cow: Ifork | null = null;
  /** Blocks allocated to the file, both forks and their trees (kernel: `i_nblocks`). */
  nblocks = 0;
  /** Blocks promised to it (kernel: `i_delayed_blks`). */
  delayedBlks = 0;
  /** Size as far as data is on the device, bytes (kernel: `i_disk_size`). */
  diskSize = 0;
  /** `XFS_DIFLAG_*`. */
  diflags = 0;
  /** `XFS_DIFLAG2_*`. */
  diflags2 = 0;
  /** Extent size hint, blocks. */
  extsize = 0;
  /** The same for copy-on-write; 0 is the default of 32 blocks. */
  cowextsize = 0;
  /** Where the attribute fork begins, in units of 8 bytes; 0 if there is none. */
  forkoff = 0;
  /** Generation number. */
  gen = 0;
  /** Counts changes (kernel: `i_version`). */
  changecount = 0;
  /** Birth time, nanoseconds since 1970. */
  crtime = 0;
  /** Project. */
  projid = 0;
  /** Device number of a special file, as on disk. */
  rdev = 0;
  /** ILOCK: the forks and what belongs to them. */
  readonly ilock: Rwsem = new Rwsem("ILOCK");
  /** `XFS_ILOG_*` since the inode was written to its buffer last. */
  ilogged = 0;
  /** A datasync has something to commit: extents or size changed. */
  mapLogged = false;
  /** Old data went in a truncation: data is written back on close (kernel:
   * `XFS_ITRUNCATED`). */
  truncated = false;
  /** Space beyond the end has been freed by a close (kernel:
   * `XFS_EOFBLOCKS_RELEASED`). */
  eofblocksReleased = false;
  /** Written data whose completion work is still to be done (kernel: `i_ioend_list`). */
  readonly ioends: IomapIoend[] = [];

  /** An inode that is in no cache yet.
   * @param mode Type and permissions. */
  constructor(
    mount: XfsMount,
    ino: number,
    mode: number,
    iop: InodeOperations,
    fop: FileOperations,
    aops: AddressSpaceOperations,
  ) {
    super(mount, ino, mode, iop, fop, aops);
    this.mount = mount;
    this.df.format = XFS_DINODE_FMT_EXTENTS;
  }

  /** Sectors of 512 bytes, promised ones too. */
  override get blocks(): number {
    return (this.nblocks + this.delayedBlks) * this.mount.sb.bbPerBlock;
  }

  /** Whether its blocks may be shared (kernel: `xfs_is_reflink_inode`). */
  get isReflink(): boolean {
    return (this.diflags2 & XFS_DIFLAG2_REFLINK) !== 0;
  }

  /** Extent size hint that counts, blocks; 0 if there is none (kernel:
   * `xfs_get_extsz_hint`). */
  get extszHint(): number {
    return (this.diflags & XFS_DIFLAG_EXTSIZE) !== 0 ? this.extsize : 0;
  }

  /** Extent size hint for copy-on-write, blocks (kernel: `xfs_get_cowextsz_hint`). */
  get cowextszHint(): number {
    const own = (this.diflags2 & XFS_DIFLAG2_COWEXTSIZE) !== 0
      ? this.cowextsize
      : 0;
    return Math.max(own, this.extszHint) || XFS_DEFAULT_COWEXTSZ_HINT;
  }

  /** Largest write that the device keeps whole, bytes; 0 if it does not do that with
   * a block (kernel: `bt_awu_max`). */
  get atomicHwMax(): number {
    const { bdev, sb } = this.mount;
    const max = bdevAtomicWriteUnitMaxBytes(bdev);
    const fits = bdevAtomicWriteUnitMinBytes(bdev) <= sb.blocksize &&
      max >= sb.blocksize;
    return fits ? max : 0;
  }

  /** Smallest atomic write, bytes; 0 if there are none (kernel:
   * `xfs_get_atomic_write_min`). */
  get atomicWriteMin(): number {
    const can = this.mount.sb.hasReflink || this.atomicHwMax > 0;
    return can ? this.mount.sb.blocksize : 0;
  }

  /** Largest atomic write, bytes; 0 if there are none (kernel:
   * `xfs_get_atomic_write_max`). More than a block needs writing out of place: the
   * extents of a file lie as they lie. */
  get atomicWriteMax(): number {
    const { mount } = this;
    if (!mount.sb.hasReflink) return this.atomicWriteMin;
    return mount.awuMax * mount.sb.blocksize;
  }
}

/** Takes the ILOCK exclusively (kernel: `xfs_ilock` with `XFS_ILOCK_EXCL`). */
export function ilockExcl(ip: XfsInode): void {
  mustBeFree(ip.ilock.downWrite());
}

/** Takes the ILOCK shared. */
export function ilockShared(ip: XfsInode): void {
  mustBeFree(ip.ilock.downRead());
}

function mustBeFree(wait: MaybePromise<void>): void {
  bugOn(wait instanceof Promise, "somebody waits while holding an ILOCK");
}

/** Whether the extents of the data fork are still to be read (kernel:
 * `xfs_need_iread_extents`). */
export function needsIread(ip: XfsInode): boolean {
  return !ip.df.loaded;
}
