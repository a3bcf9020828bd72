/**
 * Super blocks, inodes, dentries, open files, and what a file system supplies.
 *
 * Kernel layers return negative errno values; only `fs/mount.ts` and
 * `fs/fs-file.ts`, the face that users see, throw.
 *
 * Kernel counterpart: include/linux/fs.h.
 *
 * @module
 */

import type { BlockDevice, BlockHolder } from "../block/blkdev.ts";
import type { IovIter } from "../lib/iov-iter.ts";
import { Mutex, Rwsem } from "../lib/locks.ts";
import type { MaybePromise } from "../lib/maybe-promise.ts";
import { WaitQueue } from "../lib/wait.ts";
import {
  AddressSpace,
  type AddressSpaceOperations,
  type MappingHost,
} from "../mm/address-space.ts";
import { BdiWriteback } from "../mm/backing-dev.ts";
import type { WbErrCursor } from "../mm/errseq.ts";
import type { Mm } from "../mm/mm.ts";
import type { VmOperations } from "../mm/mmap.ts";
import type { SwapInfo } from "../mm/swap.ts";
import { FileRaState } from "../mm/readahead.ts";
import type { Dcache } from "./dcache.ts";
import type { Kiocb } from "./kiocb.ts";
import type { FileInfo } from "./stat.ts";

/** Mask of the file type in a mode. */
export const S_IFMT = 0o170000;
/** Regular file. */
export const S_IFREG = 0o100000;
/** Directory. */
export const S_IFDIR = 0o040000;
/** Symbolic link. */
export const S_IFLNK = 0o120000;
/** Character device. */
export const S_IFCHR = 0o020000;
/** Block device. */
export const S_IFBLK = 0o060000;
/** Named pipe. */
export const S_IFIFO = 0o010000;
/** Socket. */
export const S_IFSOCK = 0o140000;

/** Largest file, bytes (kernel: `MAX_LFS_FILESIZE`, here the largest safe integer). */
export const MAX_LFS_FILESIZE: number = Number.MAX_SAFE_INTEGER;

/** The directory has been removed: nothing can be made in it any more. */
export const S_DEAD = 1 << 4;
/** The inode is swap space. */
export const S_SWAPFILE = 1 << 8;

/** Open for reading. */
export const FMODE_READ = 0x1;
/** Open for writing. */
export const FMODE_WRITE = 0x2;
/** RWF_NOWAIT is supported. */
export const FMODE_NOWAIT = 0x4;
/** RWF_ATOMIC is supported. */
export const FMODE_CAN_ATOMIC_WRITE = 0x8;
/** O_DIRECT is supported. */
export const FMODE_CAN_ODIRECT = 0x10;
/** RWF_DONTCACHE is supported (kernel: `FOP_DONTCACHE`). */
export const FMODE_DONTCACHE = 0x20;
/** RWF_NOWAIT is supported for buffered writes too (kernel: `FOP_BUFFER_WASYNC`);
 * `genericWriteChecks` answers -EINVAL without it. */
export const FMODE_BUF_WASYNC = 0x40;

/** fallocate(2) modes. */
export const FALLOC_FL_KEEP_SIZE = 0x01;
/** Deallocate. */
export const FALLOC_FL_PUNCH_HOLE = 0x02;
/** Remove a range and close the gap. */
export const FALLOC_FL_COLLAPSE_RANGE = 0x08;
/** Zero a range. */
export const FALLOC_FL_ZERO_RANGE = 0x10;
/** Open a gap. */
export const FALLOC_FL_INSERT_RANGE = 0x20;
/** Give shared blocks a private copy. */
export const FALLOC_FL_UNSHARE_RANGE = 0x40;
/** Write zeroes. */
export const FALLOC_FL_WRITE_ZEROES = 0x80;

/** renameat2(2): the new name must not exist. */
export const RENAME_NOREPLACE = 1 << 0;
/** renameat2(2): the names change places. */
export const RENAME_EXCHANGE = 1 << 1;

/** setxattr(2): the attribute must not exist. */
export const XATTR_CREATE = 0x1;
/** setxattr(2): it must exist. */
export const XATTR_REPLACE = 0x2;

/** Equal ranges are to be shared; different ones stay (FIDEDUPERANGE). */
export const REMAP_FILE_DEDUP = 1 << 0;
/** Less than what was asked for will do. */
export const REMAP_FILE_CAN_SHORTEN = 1 << 1;

/** lseek(2) origins. */
export const SEEK_SET = 0;
/** From the position. */
export const SEEK_CUR = 1;
/** From the end. */
export const SEEK_END = 2;
/** Next data. */
export const SEEK_DATA = 3;
/** Next hole. */
export const SEEK_HOLE = 4;

/** What setattr changes; absent fields stay (kernel: `struct iattr`). */
export interface Iattr {
  /** New size, bytes. */
  size?: number;
  /** Permission bits. */
  mode?: number;
  /** Owner. */
  uid?: number;
  /** Owner's group. */
  gid?: number;
  /** Last read, nanoseconds since 1970. */
  atime?: number;
  /** Last change of the data, nanoseconds since 1970. */
  mtime?: number;
}

/** A request for an extent map, and its answer (kernel: `struct fiemap_extent_info`). */
export interface FiemapExtentInfo {
  /** `FIEMAP_FLAG_*`; on -EBADR the bits that were refused. */
  flags: number;
  /** Room for extents; 0 only counts. */
  extentsMax: number;
  /** Extents found. */
  extentsMapped: number;
  /** Where they go. */
  extents: FiemapExtent[];
}

/** One row of an extent map (kernel: `struct fiemap_extent`). */
export interface FiemapExtent {
  /** Offset in the file, bytes. */
  logical: number;
  /** Address on the device, bytes; 0 where there is none. */
  physical: number;
  /** Bytes. */
  length: number;
  /** `FIEMAP_EXTENT_*`. */
  flags: number;
}

/** An entry of a directory. */
export interface DirEntry {
  /** Without a slash. */
  name: string;
  /** Inode number. */
  ino: number;
  /** `S_IF*`. */
  type: number;
}

/** A file system's methods on names. All return 0 or what they say, or a negative
 * errno. The caller holds the directory's rwsem: shared for lookup, else exclusive;
 * and the rwsem of what is unlinked, linked or replaced, exclusively. The VFS has
 * looked at kinds, lengths and link counts; link counts and the times of directory and
 * victim are the file system's to change, and so is -ENOTEMPTY to find. */
export interface InodeOperations {
  /** The inode of a name with a reference for the caller (`iget`, `insertInode`),
   * or -ENOENT. */
  lookup?(dir: Inode, name: string): MaybePromise<Inode | number>;
  /** A new inode with a reference for the caller; so has `mkdir`'s.
   * @param mode Permission bits only. */
  create?(dir: Inode, name: string, mode: number): MaybePromise<Inode | number>;
  /** A new directory, as `create`. */
  mkdir?(dir: Inode, name: string, mode: number): MaybePromise<Inode | number>;
  /** A further name of a file. */
  link?(target: Inode, dir: Inode, name: string): MaybePromise<number>;
  /** Takes away a name of a file. */
  unlink?(dir: Inode, name: string, victim: Inode): MaybePromise<number>;
  /** Takes away a directory; -ENOTEMPTY if it holds a name. */
  rmdir?(dir: Inode, name: string, victim: Inode): MaybePromise<number>;
  /** A new symbolic link, as `create`. */
  symlink?(
    dir: Inode,
    name: string,
    target: string,
  ): MaybePromise<Inode | number>;
  /** Target of a symbolic link. No lock is held. */
  getLink?(inode: Inode): MaybePromise<string | number>;
  /** Gives a name another place. `victim` is what `newName` names now, or null.
   * @param flags `RENAME_*`: with EXCHANGE `victim` gets the old name. */
  rename?(
    oldDir: Inode,
    oldName: string,
    source: Inode,
    newDir: Inode,
    newName: string,
    victim: Inode | null,
    flags: number,
  ): MaybePromise<number>;
  /** Value of an extended attribute, or -ENODATA; the rwsem is not held.
   * @param name With its prefix, which the VFS has checked. */
  getXattr?(inode: Inode, name: string): MaybePromise<Uint8Array | number>;
  /** Sets an extended attribute, or removes it; the rwsem is held exclusively.
   * @param value null removes.
   * @param flags `XATTR_*`. */
  setXattr?(
    inode: Inode,
    name: string,
    value: Uint8Array | null,
    flags: number,
  ): MaybePromise<number>;
  /** Names of all extended attributes; the rwsem is not held. */
  listXattr?(inode: Inode): MaybePromise<string[] | number>;
  /** Applies attributes that the VFS has checked; the inode's rwsem is held exclusively. */
  setattr(inode: Inode, attr: Iattr): MaybePromise<number>;
  /** Adds to what the VFS has gathered what the file system alone knows. */
  getattr?(inode: Inode, info: FileInfo): void;
  /** Fills `info` with the extents of a range; the rwsem is not held. */
  fiemap?(
    inode: Inode,
    info: FiemapExtentInfo,
    start: number,
    len: number,
  ): MaybePromise<number>;
}

/** A file system's methods on open files (kernel: `struct file_operations`). */
export interface FileOperations {
  /** Open: sets what the file supports in `file.mode` (`FMODE_NOWAIT`,
   * `FMODE_CAN_ODIRECT`, `FMODE_DONTCACHE`, `FMODE_BUF_WASYNC`,
   * `FMODE_CAN_ATOMIC_WRITE`). Nothing of it is supported where there is no `open`. */
  open?(inode: Inode, file: File): MaybePromise<number>;
  /** Bytes, -EIOCBQUEUED or a negative errno. */
  readIter?(iocb: Kiocb, iter: IovIter): MaybePromise<number>;
  /** Bytes, -EIOCBQUEUED or a negative errno. */
  writeIter?(iocb: Kiocb, iter: IovIter): MaybePromise<number>;
  /** Looks for completions of polled direct I/O: how many it has found. */
  iopoll?(iocb: Kiocb, flags: number): number;
  /** Start and end (inclusive) of the range in bytes. */
  fsync?(
    file: File,
    start: number,
    end: number,
    datasync: boolean,
  ): MaybePromise<number>;
  /** `FALLOC_FL_*` on a range that the VFS has checked; the rwsem is not held. */
  fallocate?(
    file: File,
    mode: number,
    offset: number,
    len: number,
  ): MaybePromise<number>;
  /**
   * Shares a range with another file; no lock is held (kernel: `remap_file_range`).
   *
   * @param len Bytes; 0 is to the end of `fileIn`.
   * @param flags `REMAP_FILE_*`.
   * @returns Bytes that are shared now; -EINVAL for ranges that cannot be; -EBADE
   *   (dedupe) if they differ; a negative errno.
   */
  remapFileRange?(
    fileIn: File,
    posIn: number,
    fileOut: File,
    posOut: number,
    len: number,
    flags: number,
  ): MaybePromise<number>;
  /** SEEK_DATA and SEEK_HOLE only; others are generic. New offset or -errno. */
  llseek?(file: File, offset: number, whence: number): MaybePromise<number>;
  /** What is done about faults of a mapping, or a negative errno; no file can be mapped
   * where it is absent. */
  mmap?(file: File): VmOperations | number;
  /**
   * Says where the blocks of a swap file are (kernel: `a_ops->swap_activate`). The
   * rwsem is held exclusively.
   *
   * @param sis `bdev` and `max` are set; it gets the extents, and `max` and `pages`
   *   of what there is.
   * @param span Gets the pages from the first to the last block used.
   * @returns Extents, or a negative errno.
   */
  swapActivate?(
    sis: SwapInfo,
    file: File,
    span: { value: number },
  ): MaybePromise<number>;
  /** The file is no swap space any more. */
  swapDeactivate?(file: File): void;
  /** All entries but "." and "..". */
  iterate?(dir: Inode): MaybePromise<DirEntry[] | number>;
  /** Last close of this open file. */
  release?(file: File): MaybePromise<void>;
}

/** A file system's methods on the whole (kernel: `struct super_operations`). */
export interface SuperOperations {
  /** The inode leaves memory: its last reference went while nlink was 0 (truncate
   * and free it on disk), or the file system is being unmounted (nlink above 0). Its
   * page cache is empty, and the inode cache no longer holds it. */
  evictInode(inode: Inode): MaybePromise<void>;
  /**
   * Whether an inode that nobody uses, and that has no pages, may leave memory now: what
   * it has to write has been written, and `evictInode` will not wait. Inodes without
   * names to find them by again stay where this is absent.
   */
  mayEvict?(inode: Inode): boolean;
  /** The inode's timestamps or other attributes changed in memory (kernel:
   * `dirty_inode`). */
  dirtyInode?(inode: Inode): void;
  /** Makes everything durable; data has been written already. */
  syncFs(sb: SuperBlock): MaybePromise<number>;
  /** Unmount: leaves a clean image; not called if the device has gone. */
  putSuper(sb: SuperBlock): MaybePromise<number>;
  /** The device has gone: from now on nothing may reach what may come in its place
   * (kernel: `shutdown`). */
  shutdown?(sb: SuperBlock): void;
  /** Space in use and free. */
  statfs(sb: SuperBlock): StatFs;
}

/** Space of a file system. */
export interface StatFs {
  /** Bytes of a block. */
  blockSize: number;
  /** Blocks for data. */
  blocks: number;
  /** Of these, free. */
  blocksFree: number;
  /** Most inodes. */
  files: number;
  /** Of these, free. */
  filesFree: number;
}

/** A mounted file system (kernel: `struct super_block`). */
export class SuperBlock {
  /** The device. */
  readonly bdev: BlockDevice;
  /** The memory that caches its files. */
  readonly mm: Mm;
  /** Writeback of its files (kernel: `s_bdi`). */
  readonly wb: BdiWriteback;
  /** The file system's methods. */
  readonly ops: SuperOperations;
  /** log2 of the block size. */
  blkbits = 12;
  /** Largest file, bytes. */
  maxBytes: number = MAX_LFS_FILESIZE;
  /** Every change is -EROFS. */
  readOnly = false;
  /** The device has gone: what needs it is -EIO (kernel: `xfs_is_shutdown`). */
  dead = false;
  /** Most names that an inode can have (kernel: `s_max_links`). */
  maxLinks = 2 ** 31 - 1;
  /** Granularity of timestamps, ns. */
  timeGran = 1;
  /** The root directory, with a reference of the file system's own. */
  root!: Inode;
  /** Name for messages (kernel: `s_id`). */
  readonly id: string;
  /** Inodes in memory by number (kernel: the inode hash). */
  readonly inodes: Map<number, Inode> = new Map();
  /** Of these, those without a reference, the longest unused first (kernel:
   * `s_inode_lru`). */
  readonly unusedInodes: Set<Inode> = new Set();
  /** Inodes with dirty pages or attributes, in the order in which they became so.
   * `syncFilesystem` takes them out once `ops.syncFs` has returned, but for those
   * that became dirty meanwhile. */
  readonly dirtyInodes: Set<Inode> = new Set();
  /** Cached names; made by mount.
   * @internal */
  dcache!: Dcache;
  /** What gives it the device; made by mount.
   * @internal */
  claim!: BlockHolder;
  /** One rename between directories at a time (kernel: `s_vfs_rename_mutex`). */
  readonly renameMutex: Mutex = new Mutex("s_vfs_rename_mutex");
  /** Open files. */
  openFiles = 0;
  /** Writeback errors that whoever mounted it has been told (kernel: `f_sb_err`). */
  readonly syncErr: WbErrCursor = { wbErr: 0 };
  /** Work that nobody waits for, such as freeing an unlinked file; unmount does. */
  readonly pendingWork: Set<Promise<unknown>> = new Set();

  /** File systems extend it, and set `root`. */
  constructor(bdev: BlockDevice, mm: Mm, ops: SuperOperations) {
    this.bdev = bdev;
    this.mm = mm;
    this.wb = new BdiWriteback(mm);
    this.ops = ops;
    this.id = bdev.name;
  }
}

/** A file, directory or link in memory (kernel: `struct inode`). */
export class Inode implements MappingHost {
  /** Its file system. */
  readonly sb: SuperBlock;
  /** Inode number. */
  readonly ino: number;
  /** Kind (`S_IF*`) and permission bits. */
  mode = 0;
  /** Names. */
  nlink = 1;
  /** Owner. */
  uid = 0;
  /** Owner's group. */
  gid = 0;
  /** i_size, bytes. */
  size = 0;
  readonly blkbits: number;
  /** How long its data is expected to live: `writeHint` of its bios (kernel:
   * `i_write_hint`). */
  writeHint = 0;
  /** Last read, nanoseconds since 1970. */
  atime = 0;
  /** Last change of the data, nanoseconds since 1970. */
  mtime = 0;
  /** Last change of data or attributes, nanoseconds since 1970. */
  ctime = 0;
  /** `S_SWAPFILE` and the like. */
  flags = 0;
  /** Its page cache. */
  readonly mapping: AddressSpace;
  /** i_rwsem. */
  readonly rwsem: Rwsem;
  /** Direct I/O in flight (kernel: `i_dio_count`). */
  dioCount = 0;
  /** Whoever waits for `dioCount` to become 0. */
  readonly dioWait: WaitQueue = new WaitQueue();
  /** References: dentries, open files, walks (kernel: `i_count`). */
  refcount = 0;
  /** Counts `markInodeDirty`: a sync tells by it what changed meanwhile. */
  dirtied = 0;
  /** Methods on names. */
  readonly iop: InodeOperations;
  /** Methods on open files. */
  readonly fop: FileOperations;

  /** File systems extend it. */
  constructor(
    sb: SuperBlock,
    ino: number,
    mode: number,
    iop: InodeOperations,
    fop: FileOperations,
    aops: AddressSpaceOperations,
  ) {
    this.sb = sb;
    this.ino = ino;
    this.mode = mode;
    this.blkbits = sb.blkbits;
    this.iop = iop;
    this.fop = fop;
    this.rwsem = new Rwsem(
      (mode & S_IFMT) === S_IFDIR ? "i_rwsem (directory)" : "i_rwsem",
    );
    this.mapping = new AddressSpace(this, sb.wb, aops);
    // A folio holds whole blocks; a page is 2^12 bytes.
    const order = Math.max(0, sb.blkbits - 12);
    this.mapping.minOrder = this.mapping.maxOrder = order;
  }

  /** Whether it is swap space. */
  get isSwapfile(): boolean {
    return (this.flags & S_SWAPFILE) !== 0;
  }

  /** Sectors of 512 bytes that the file occupies; file systems override it. */
  get blocks(): number {
    return 0;
  }

  markDirtyPages(): void {
    this.sb.dirtyInodes.add(this);
  }
}

/** An open file (kernel: `struct file`). */
export class File implements WbErrCursor {
  /** What is open. */
  readonly inode: Inode;
  /** As given to open, for messages. */
  readonly path: string;
  /** `FMODE_*`. */
  mode: number;
  /** `IOCB_*` that every call on it gets: DIRECT, DSYNC, SYNC, APPEND. */
  iocbFlags: number;
  /** File position, bytes. */
  pos = 0;
  /** Readahead state. */
  readonly ra: FileRaState = new FileRaState();
  /** Writeback errors up to here have been reported (kernel: `f_wb_err`). */
  wbErr = 0;

  /** `fileOpen` in `fs/open.ts` makes one with all that belongs to it. */
  constructor(inode: Inode, path: string, mode: number, iocbFlags: number) {
    this.inode = inode;
    this.path = path;
    this.mode = mode;
    this.iocbFlags = iocbFlags;
    const { raPages, ioPages } = inode.sb.bdev.bdi;
    this.ra.raPages = raPages;
    this.ra.ioPages = ioPages;
  }
}

/** A kind of file system (kernel: `struct file_system_type`). */
export interface FileSystemType {
  /** `"xfs"`. */
  readonly name: string;
  /** Reads the super block and the root inode.
   * @param options As after `mount -o`.
   * @returns The mounted file system, or a negative errno with a message saying which value was wrong. */
  mount(
    bdev: BlockDevice,
    mm: Mm,
    options: string,
  ): MaybePromise<SuperBlock | MountError>;
}

/** Why a mount failed. */
export interface MountError {
  /** Negative errno. */
  errno: number;
  /** Which value was wrong. */
  message: string;
}
