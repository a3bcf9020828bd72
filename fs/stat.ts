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
}

/** Gathers an inode's attributes (kernel: `vfs_getattr`). */
export function vfsGetattr(inode: Inode): FileInfo {
  const { major, minor } = inode.sb.bdev.dev;
  return {
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
  };
}
