/**
 * What is known of a file.
 *
 * Kernel counterpart: fs/stat.c.
 *
 * @module
 */

import { toDate } from "../lib/clock.ts";
import { PAGE_SIZE } from "../mm/folio.ts";
import { type Inode, S_IFLNK, S_IFMT } from "./fs.ts";
import { isDir, isReg } from "./inode.ts";

/** What `stat` answers, as `Deno.stat` does; only the time of birth is not kept. */
export interface FileInfo extends Deno.FileInfo {
  /** Last read. */
  atime: NonNullable<Deno.FileInfo["atime"]>;
  /** Last change of the data. */
  mtime: NonNullable<Deno.FileInfo["mtime"]>;
  /** Last change of data or attributes. */
  ctime: NonNullable<Deno.FileInfo["ctime"]>;
  /** Inode number. */
  ino: number;
  /** Kind and permission bits. */
  mode: number;
  /** Names. */
  nlink: number;
  /** Owner. */
  uid: number;
  /** Owner's group. */
  gid: number;
  /** Bytes of the device that the file occupies, by 512. */
  blocks: number;
  /** Memory for direct I/O begins and ends at a multiple of this, bytes; 0 if the file
   * cannot be opened for it (statx `stx_dio_mem_align`). */
  dioMemAlign: number;
  /** Direct writes begin and end at a multiple of this, bytes. */
  dioOffsetAlign: number;
  /** Direct reads begin and end at a multiple of this, bytes. */
  dioReadOffsetAlign: number;
  /** Smallest write that can be all or nothing, bytes; 0 if none can. */
  atomicWriteUnitMin: number;
  /** Largest such write, bytes. */
  atomicWriteUnitMax: number;
  /** Largest such write that is as fast as another, bytes; 0 if all are. */
  atomicWriteUnitMaxOpt: number;
  /** Buffers of such a write: 1, or 0 if there is none. */
  atomicWriteSegmentsMax: number;
}

/** Notes the limits of atomic writes, if there are such (kernel:
 * `generic_fill_statx_atomic_writes`). Bytes. */
export function genericFillStatxAtomicWrites(
  info: FileInfo,
  unitMin: number,
  unitMax: number,
  unitMaxOpt: number,
): void {
  if (unitMin === 0) return;
  info.atomicWriteUnitMin = unitMin;
  info.atomicWriteUnitMax = unitMax;
  info.atomicWriteUnitMaxOpt = unitMaxOpt;
  info.atomicWriteSegmentsMax = 1;
}

/** Gathers an inode's attributes (kernel: `vfs_getattr`). */
export function vfsGetattr(inode: Inode): FileInfo {
  const { major, minor } = inode.sb.bdev.dev;
  const info: FileInfo = {
    isFile: isReg(inode),
    isDirectory: isDir(inode),
    isSymlink: (inode.mode & S_IFMT) === S_IFLNK,
    size: inode.size,
    mtime: toDate(inode.mtime),
    atime: toDate(inode.atime),
    birthtime: null,
    ctime: toDate(inode.ctime),
    dev: major * 256 + minor,
    ino: inode.ino,
    mode: inode.mode,
    nlink: inode.nlink,
    uid: inode.uid,
    gid: inode.gid,
    rdev: 0,
    blksize: Math.max(PAGE_SIZE, 2 ** inode.blkbits),
    blocks: inode.blocks,
    isBlockDevice: false,
    isCharDevice: false,
    isFifo: false,
    isSocket: false,
    dioMemAlign: 0,
    dioOffsetAlign: 0,
    dioReadOffsetAlign: 0,
    atomicWriteUnitMin: 0,
    atomicWriteUnitMax: 0,
    atomicWriteUnitMaxOpt: 0,
    atomicWriteSegmentsMax: 0,
  };
  inode.iop.getattr?.(inode, info);
  return info;
}
