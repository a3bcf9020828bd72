/**
 * What a program says about its use of a file.
 *
 * Kernel counterpart: mm/fadvise.c.
 *
 * @module
 */

import { EINVAL } from "../lib/errno.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import { filemapFdatawriteRange } from "../mm/filemap.ts";
import { PAGE_MASK, PAGE_SIZE } from "../mm/folio.ts";
import { forcePageCacheRa, Readahead } from "../mm/readahead.ts";
import { invalidateMappingPages } from "../mm/truncate.ts";
import { type File, MAX_LFS_FILESIZE } from "./fs.ts";

/** Advice on a file, after posix_fadvise(2). `random` and `sequential` switch
 * readahead off and double it; of a range, `willneed` starts to read it and
 * `dontneed` drops its clean pages. */
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
 * @param len Bytes; 0 is to the end of the file.
 * @returns 0; -EINVAL for a negative length or an advice that does not exist.
 */
export function vfsFadvise(
  file: File,
  offset: number,
  len: number,
  advice: Advice,
): MaybePromise<number> {
  if (offset < 0 || len < 0) return -EINVAL;
  const end = offset + len;
  const last = len === 0
    ? MAX_LFS_FILESIZE
    : Math.min(end - 1, MAX_LFS_FILESIZE);
  switch (advice) {
    case "normal":
      file.ra.raPages = file.inode.sb.bdev.bdi.raPages;
      file.ra.random = false;
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
      return 0;
    default:
      return -EINVAL;
  }
}

/** Starts to read; whoever needs a page later waits for it. */
function willNeed(
  file: File,
  start: number,
  last: number,
): MaybePromise<number> {
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
  const written = filemapFdatawriteRange(mapping, start, last, false);
  return andThen(written, () => {
    const first = Math.ceil(start / PAGE_SIZE);
    let end = Math.floor(last / PAGE_SIZE);
    // A page used in part stays, unless the range ends where the file does.
    if ((last & PAGE_MASK) !== PAGE_MASK && last !== inode.size - 1) end--;
    if (end >= first) invalidateMappingPages(mapping, first, end);
    return 0;
  });
}
