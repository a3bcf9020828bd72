/**
 * Where the bytes of a file are: extent maps, and single blocks.
 *
 * Kernel counterpart: fs/ioctl.c, include/uapi/linux/fiemap.h. What prepares the
 * request, `fiemapPrep`, is in `iomap/fiemap.ts`: a file system's `fiemap` calls it.
 *
 * @module
 */

import { EINVAL, ENOTTY, EOPNOTSUPP, ERANGE } from "../lib/errno.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import { printk, Ratelimit } from "../lib/printk.ts";
import type { FiemapExtentInfo, File, Inode } from "./fs.ts";
import { isReg } from "./inode.ts";

/** Write back the file first. */
export const FIEMAP_FLAG_SYNC = 0x1;
/** Map the extended attributes. */
export const FIEMAP_FLAG_XATTR = 0x2;
/** Read the extents into memory. */
export const FIEMAP_FLAG_CACHE = 0x4;

/** Last extent of the range asked for. */
export const FIEMAP_EXTENT_LAST = 0x1;
/** It has no address yet. */
export const FIEMAP_EXTENT_UNKNOWN = 0x2;
/** Space promised, not chosen; comes with UNKNOWN. */
export const FIEMAP_EXTENT_DELALLOC = 0x4;
/** Cannot be read from the device as it is. */
export const FIEMAP_EXTENT_ENCODED = 0x8;
/** Encrypted. */
export const FIEMAP_EXTENT_DATA_ENCRYPTED = 0x80;
/** Not block aligned. */
export const FIEMAP_EXTENT_NOT_ALIGNED = 0x100;
/** Among metadata; comes with NOT_ALIGNED. */
export const FIEMAP_EXTENT_DATA_INLINE = 0x200;
/** Several files' tails in a block. */
export const FIEMAP_EXTENT_DATA_TAIL = 0x400;
/** Allocated; reads as zero. */
export const FIEMAP_EXTENT_UNWRITTEN = 0x800;
/** Several blocks that the file system does not keep as an extent. */
export const FIEMAP_EXTENT_MERGED = 0x1000;
/** Shared with another file. */
export const FIEMAP_EXTENT_SHARED = 0x2000;

/**
 * Maps a file's extents into `info` (kernel: `ioctl_fiemap`).
 *
 * @param start First byte.
 * @param len Bytes.
 * @returns 0; -EOPNOTSUPP if the file system cannot; -EINVAL for `len` 0; -EFBIG if
 *   `start` is beyond the largest file; -EBADR for a flag that is not supported.
 */
export function vfsFiemap(
  inode: Inode,
  info: FiemapExtentInfo,
  start: number,
  len: number,
): MaybePromise<number> {
  if (inode.iop.fiemap === undefined) return -EOPNOTSUPP;
  return inode.iop.fiemap(inode, info, start, len);
}

const INT_MAX = 2 ** 31 - 1;
const truncateLimit = new Ratelimit();

/**
 * Finds the block of the device that holds a block of a file (kernel: `ioctl_fibmap`).
 * Nobody here lacks CAP_SYS_RAWIO.
 *
 * @param block In blocks of the file system, from the start of the file.
 * @returns Block of the device, 0 if there is none (a hole, say); -ENOTTY if it is no
 *   regular file; -EINVAL if `block` is negative or no `int`, or the file system has
 *   no answer; -ERANGE if the answer is no `int`.
 */
export function ioctlFibmap(file: File, block: number): MaybePromise<number> {
  const { inode } = file;
  if (!isReg(inode)) return -ENOTTY;
  const { mapping } = inode;
  if (block < 0 || block > INT_MAX) return -EINVAL;
  if (mapping.ops.bmap === undefined) return -EINVAL;
  return andThen(mapping.ops.bmap(mapping, block), (found) => {
    if (found <= INT_MAX) return found;
    if (truncateLimit.allow(inode.sb.bdev.clock.now())) {
      printk(
        `[iomap/1] FS: ${inode.sb.id} File: ${file.path} would truncate fibmap result`,
      );
    }
    return -ERANGE;
  });
}
