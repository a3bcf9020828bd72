/**
 * Extent maps for users: FS_IOC_FIEMAP, and FIBMAP for single blocks.
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
  FIEMAP_FLAG_XATTR,
} from "../fs/ioctl.ts";
import { EBADR, EFBIG, EINVAL, ENOENT } from "../lib/errno.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import type { AddressSpace } from "../mm/address-space.ts";
import { filemapWriteAndWaitRange } from "../mm/filemap.ts";
import {
  type Iomap,
  IOMAP_DELALLOC,
  IOMAP_F_MERGED,
  IOMAP_F_SHARED,
  IOMAP_HOLE,
  IOMAP_INLINE,
  IOMAP_MAPPED,
  IOMAP_NULL_ADDR,
  IOMAP_REPORT,
  IOMAP_UNWRITTEN,
  IomapIter,
  iomapIterInit,
  type IomapOps,
  iomapSector,
} from "./iomap.ts";
import { iomapIterAdvanceFull, iomapWalk } from "./iter.ts";

/** What a request may ask for (kernel: `FIEMAP_FLAGS_COMPAT`). */
const FIEMAP_FLAGS_COMPAT = FIEMAP_FLAG_SYNC | FIEMAP_FLAG_XATTR;

/**
 * Checks a request and writes the file back if it asks for that (kernel:
 * `fiemap_prep`).
 *
 * @param start First byte.
 * @param len Bytes.
 * @param supported `FIEMAP_FLAG_*` that the file system serves beside SYNC: XATTR
 *   alone can be.
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
  // Whatever a file system says, CACHE is for itself to take away before.
  const served = (supported | FIEMAP_FLAG_SYNC) & FIEMAP_FLAGS_COMPAT;
  const refused = info.flags & ~served;
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

/** Sectors of 512 bytes, as a power of two. */
const SECTOR_SHIFT = 9;

/** What the walk of {@linkcode iomapBmap} has found; it is over with one mapping. */
interface Bmap {
  block: number;
}

function iomapBmapIter({ iomap, inode, pos }: IomapIter, bmap: Bmap): number {
  if (iomap.type === IOMAP_MAPPED) {
    const sectors = 2 ** (inode.blkbits - SECTOR_SHIFT);
    bmap.block = Math.floor(iomapSector(iomap, pos) / sectors);
  }
  return 0;
}

/**
 * Finds the block of the device that holds a block of a file, which is written back
 * first (kernel: `iomap_bmap`).
 *
 * @param block In blocks of the file system, from the start of the file.
 * @param ops Mapping callbacks, called with REPORT.
 * @returns Block of the device; 0 if it holds no data there, be it a hole, unwritten,
 *   promised or inline, and for every error.
 */
export function iomapBmap(
  mapping: AddressSpace,
  block: number,
  ops: IomapOps,
): MaybePromise<number> {
  const inode = mapping.host as unknown as Inode;
  const written = filemapWriteAndWaitRange(mapping, 0, inode.sb.maxBytes);
  return andThen(written, (error) => {
    if (error !== 0) return 0;
    const bs = 2 ** inode.blkbits;
    const iter = new IomapIter();
    iomapIterInit(iter, inode, block * bs, bs, IOMAP_REPORT, "iomap_bmap");
    const bmap = { block: 0 };
    const walked = iomapWalk(iter, ops, iomapBmapIter, bmap);
    return andThen(walked, (ret) => ret === 0 ? bmap.block : 0);
  });
}
