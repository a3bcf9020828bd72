/**
 * What a program says about its use of a file.
 *
 * Kernel counterpart: mm/fadvise.c.
 *
 * @module
 */

import { EBADF, EINVAL } from "../lib/errno.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import { filemapFdatawriteRange } from "../mm/filemap.ts";
import { PAGE_MASK, PAGE_SIZE } from "../mm/folio.ts";
import { forcePageCacheRa, Readahead } from "../mm/readahead.ts";
import { invalidateMappingPages } from "../mm/truncate.ts";
import { type File, FMODE_READ, MAX_LFS_FILESIZE } from "./fs.ts";
import { isReg } from "./inode.ts";

/** Advice on a file, after posix_fadvise(2). `random` and `sequential` switch
 * readahead off and double it; `noreuse` has memory mappings of the file not keep its
 * pages; of a range, `willneed` starts to read it and `dontneed` drops its clean
 * pages. */
export type Advice =
  | "normal"
  | "random"
  | "sequential"
  | "willneed"
  | "dontneed"
  | "noreuse";

/**
 * Takes advice (kernel: `generic_fadvise`).
 *
 * @param offset Bytes. Below 0 it is no error: the range then goes on to the end of the
 *   file, but there is nothing to be read, and dropped only if its first whole page is
 *   the file's.
 * @param len Bytes; 0 is to the end of the file.
 * @returns 0; -EINVAL for a negative length or an advice that does not exist.
 */
export function vfsFadvise(
  file: File,
  offset: number,
  len: number,
  advice: Advice,
): MaybePromise<number> {
  if (len < 0) return -EINVAL;
  const last = len === 0 || offset < 0
    ? MAX_LFS_FILESIZE
    : Math.min(offset + len - 1, MAX_LFS_FILESIZE);
  switch (advice) {
    case "normal":
      file.ra.raPages = file.inode.sb.bdev.bdi.raPages;
      file.ra.random = false;
      file.ra.noreuse = false;
      return 0;
    case "random":
      file.ra.random = true;
      return 0;
    case "sequential":
      file.ra.raPages = 2 * file.inode.sb.bdev.bdi.raPages;
      file.ra.random = false;
      return 0;
    case "dontneed":
      return dontNeed(file, offset, last);
    case "willneed":
      return willNeed(file, offset, last);
    case "noreuse":
      file.ra.noreuse = true;
      return 0;
    default:
      return -EINVAL;
  }
}

/**
 * Reads a range into memory ahead of its use (kernel: `ksys_readahead`).
 *
 * @returns 0; -EBADF if the file is not open for reading; -EINVAL for a negative length,
 *   or what is no regular file.
 */
export function vfsReadahead(
  file: File,
  offset: number,
  len: number,
): MaybePromise<number> {
  if ((file.mode & FMODE_READ) === 0) return -EBADF;
  if (!isReg(file.inode)) return -EINVAL;
  return vfsFadvise(file, offset, len, "willneed");
}

/** Starts to read; whoever needs a page later waits for it. */
function willNeed(
  file: File,
  start: number,
  last: number,
): MaybePromise<number> {
  // Only regular files have pages.
  if (start < 0 || !isReg(file.inode)) return 0;
  const { mapping } = file.inode;
  const first = Math.floor(start / PAGE_SIZE);
  const count = Math.floor(last / PAGE_SIZE) - first + 1;
  // Advice is not worth a wait for whoever empties the cache just now.
  if (!mapping.invalidateLock.tryDownRead()) return 0;
  const rac = new Readahead(mapping, file.ra, first, false);
  return andThen(forcePageCacheRa(rac, count), () => {
    mapping.invalidateLock.upRead();
    return 0;
  });
}

/** Dirty pages start on their way; those that are clean already go. */
function dontNeed(
  file: File,
  start: number,
  last: number,
): MaybePromise<number> {
  const { inode } = file;
  const { mapping } = inode;
  const written = start < 0
    ? 0
    : filemapFdatawriteRange(mapping, start, last, false);
  return andThen(written, () => {
    const first = Math.ceil(start / PAGE_SIZE);
    if (first < 0) return 0;
    let end = Math.floor(last / PAGE_SIZE);
    // A page used in part stays, unless the range ends where the file does.
    if ((last & PAGE_MASK) !== PAGE_MASK && last !== inode.size - 1) end--;
    if (end >= first) invalidateMappingPages(mapping, first, end);
    return 0;
  });
}
