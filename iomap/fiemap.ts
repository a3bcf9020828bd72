/**
 * Extent maps for users: FS_IOC_FIEMAP.
 *
 * A mapping is reported when the next one has been found, so that the last can be
 * marked as such. It is the last of the range that was asked for, not of the file.
 *
 * Kernel counterpart: fs/iomap/fiemap.c, fs/ioctl.c (`fiemap_prep`,
 * `fiemap_fill_next_extent`).
 *
 * @module
 */

import type { FiemapExtentInfo, Inode } from "../fs/fs.ts";
import {
  FIEMAP_EXTENT_DATA_INLINE,
  FIEMAP_EXTENT_DELALLOC,
  FIEMAP_EXTENT_LAST,
  FIEMAP_EXTENT_MERGED,
  FIEMAP_EXTENT_NOT_ALIGNED,
  FIEMAP_EXTENT_SHARED,
  FIEMAP_EXTENT_UNKNOWN,
  FIEMAP_EXTENT_UNWRITTEN,
  FIEMAP_FLAG_SYNC,
} from "../fs/ioctl.ts";
import { EBADR, EFBIG, EINVAL, ENOENT } from "../lib/errno.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import { filemapWriteAndWaitRange } from "../mm/filemap.ts";
import {
  type Iomap,
  IOMAP_DELALLOC,
  IOMAP_F_MERGED,
  IOMAP_F_SHARED,
  IOMAP_HOLE,
  IOMAP_INLINE,
  IOMAP_NULL_ADDR,
  IOMAP_REPORT,
  IOMAP_UNWRITTEN,
  IomapIter,
  iomapIterInit,
  type IomapOps,
} from "./iomap.ts";
import { iomapIterAdvanceFull, iomapWalk } from "./iter.ts";

/**
 * Checks a request and writes the file back if it asks for that (kernel:
 * `fiemap_prep`).
 *
 * @param start First byte.
 * @param len Bytes.
 * @param supported `FIEMAP_FLAG_*` that the file system serves beside SYNC.
 * @returns Bytes to look at: `len`, less at the largest offset of a file. -EINVAL
 *   if `len` is 0; -EFBIG if `start` is at or beyond the largest file; -EBADR for
 *   another flag, then `info.flags` has what was refused; or the error of writing.
 */
export function fiemapPrep(
  inode: Inode,
  info: FiemapExtentInfo,
  start: number,
  len: number,
  supported: number,
): MaybePromise<number> {
  const { maxBytes } = inode.sb;
  if (len === 0) return -EINVAL;
  if (start >= maxBytes) return -EFBIG;
  const clipped = Math.min(len, maxBytes - start);
  const refused = info.flags & ~(supported | FIEMAP_FLAG_SYNC);
  if (refused !== 0) {
    info.flags = refused;
    return -EBADR;
  }
  if ((info.flags & FIEMAP_FLAG_SYNC) === 0) return clipped;
  const written = filemapWriteAndWaitRange(inode.mapping, 0, maxBytes);
  return andThen(written, (error) => error < 0 ? error : clipped);
}

/** True if the request takes no more (kernel: `fiemap_fill_next_extent`). */
function fiemapFillNextExtent(
  info: FiemapExtentInfo,
  iomap: Iomap,
  flags: number,
): boolean {
  if (info.extentsMax === 0) {
    info.extentsMapped++;
    return false;
  }
  if (info.extentsMapped >= info.extentsMax) return true;
  info.extents.push({
    logical: iomap.offset,
    physical: iomap.addr === IOMAP_NULL_ADDR ? 0 : iomap.addr,
    length: iomap.length,
    flags,
  });
  info.extentsMapped++;
  return info.extentsMapped === info.extentsMax;
}

/** Reports a mapping, unless it is a hole; true if the request takes no more. */
function iomapToFiemap(
  info: FiemapExtentInfo,
  iomap: Iomap,
  flags: number,
): boolean {
  switch (iomap.type) {
    case IOMAP_HOLE:
      return false;
    case IOMAP_DELALLOC:
      flags |= FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNKNOWN;
      break;
    case IOMAP_UNWRITTEN:
      flags |= FIEMAP_EXTENT_UNWRITTEN;
      break;
    case IOMAP_INLINE:
      flags |= FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED;
      break;
  }
  if ((iomap.flags & IOMAP_F_MERGED) !== 0) flags |= FIEMAP_EXTENT_MERGED;
  if ((iomap.flags & IOMAP_F_SHARED) !== 0) flags |= FIEMAP_EXTENT_SHARED;
  return fiemapFillNextExtent(info, iomap, flags);
}

/** A walk, and the mapping that waits to be reported; null before the first. */
interface FiemapWalk {
  readonly info: FiemapExtentInfo;
  held: Iomap | null;
}

function iomapFiemapIter(iter: IomapIter, walk: FiemapWalk): number {
  if (iter.iomap.type === IOMAP_HOLE) return iomapIterAdvanceFull(iter);
  const full = walk.held !== null && iomapToFiemap(walk.info, walk.held, 0);
  walk.held = { ...iter.iomap };
  // Standing still ends the walk.
  return full ? 0 : iomapIterAdvanceFull(iter);
}

/**
 * Reports the mappings of a range (kernel: `iomap_fiemap`). The caller holds
 * `inode.rwsem` shared.
 *
 * @param info Takes the rows; see `fiemapPrep` for its flags.
 * @param start First byte.
 * @param len Bytes. Mappings are reported as the file system returns them, not cut
 *   to the range.
 * @param ops Mapping callbacks, called with REPORT; -ENOENT from them is an end.
 * @returns 0; the error of {@linkcode fiemapPrep}; or that of `ops.iomapBegin`, but
 *   only if nothing was found before it.
 */
export function iomapFiemap(
  inode: Inode,
  info: FiemapExtentInfo,
  start: number,
  len: number,
  ops: IomapOps,
): MaybePromise<number> {
  return andThen(fiemapPrep(inode, info, start, len, 0), (clipped) => {
    if (clipped < 0) return clipped;
    const iter = new IomapIter();
    iomapIterInit(iter, inode, start, clipped, IOMAP_REPORT, "iomap_fiemap");
    const walk: FiemapWalk = { info, held: null };
    return andThen(iomapWalk(iter, ops, iomapFiemapIter, walk), (ret) => {
      if (walk.held !== null) {
        iomapToFiemap(info, walk.held, FIEMAP_EXTENT_LAST);
        return 0;
      }
      return ret === -ENOENT ? 0 : ret;
    });
  });
}
