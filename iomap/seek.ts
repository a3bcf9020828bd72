/**
 * Finding data and holes: the walks behind lseek(2) SEEK_DATA and SEEK_HOLE.
 *
 * A mapping alone does not decide. An unwritten extent counts as data where the
 * page cache is up to date, so both walks also ask the page cache.
 *
 * Kernel counterpart: fs/iomap/seek.c.
 *
 * @module
 */

import type { Inode } from "../fs/fs.ts";
import { ENXIO } from "../lib/errno.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import { mappingSeekHoleData } from "../mm/filemap.ts";
import {
  IOMAP_HOLE,
  IOMAP_REPORT,
  IOMAP_UNWRITTEN,
  IomapIter,
  iomapIterInit,
  iomapLength,
  type IomapOps,
} from "./iomap.ts";
import { iomapIterAdvanceFull, iomapWalk } from "./iter.ts";

/** What a walk has found, bytes. A walk that stays where it is has found it. */
interface Found {
  pos: number;
}

function iomapSeekHoleIter(iter: IomapIter, found: Found): number {
  const { pos, inode } = iter;
  const end = pos + iomapLength(iter);
  switch (iter.iomap.type) {
    case IOMAP_UNWRITTEN:
      found.pos = mappingSeekHoleData(inode.mapping, pos, end, false);
      return found.pos === end ? iomapIterAdvanceFull(iter) : 0;
    case IOMAP_HOLE:
      found.pos = pos;
      return 0;
    default:
      return iomapIterAdvanceFull(iter);
  }
}

/**
 * Finds the first hole at or after `pos` (kernel: `iomap_seek_hole`). The end of
 * the file counts as one, so a file without holes answers its size.
 *
 * @param pos File offset in bytes.
 * @param ops Mapping callbacks, called with REPORT.
 * @returns Offset of the hole in bytes; -ENXIO if `pos` is negative or not below
 *   the file size, or the negative errno of `ops.iomapBegin`.
 */
export function iomapSeekHole(
  inode: Inode,
  pos: number,
  ops: IomapOps,
): MaybePromise<number> {
  const { size } = inode;
  if (pos < 0 || pos >= size) return -ENXIO;
  const iter = new IomapIter();
  iomapIterInit(iter, inode, pos, size - pos, IOMAP_REPORT, "iomap_seek_hole");
  const found = { pos };
  return andThen(iomapWalk(iter, ops, iomapSeekHoleIter, found), (ret) => {
    if (ret < 0) return ret;
    return iter.len > 0 ? found.pos : size;
  });
}

function iomapSeekDataIter(iter: IomapIter, found: Found): number {
  const { pos, inode } = iter;
  const end = pos + iomapLength(iter);
  switch (iter.iomap.type) {
    case IOMAP_HOLE:
      return iomapIterAdvanceFull(iter);
    case IOMAP_UNWRITTEN:
      found.pos = mappingSeekHoleData(inode.mapping, pos, end, true);
      return found.pos < 0 ? iomapIterAdvanceFull(iter) : 0;
    default:
      found.pos = pos;
      return 0;
  }
}

/**
 * Finds the first data at or after `pos` (kernel: `iomap_seek_data`).
 *
 * @param pos File offset in bytes.
 * @param ops Mapping callbacks, called with REPORT.
 * @returns Offset of the data in bytes; -ENXIO if there is none, or if `pos` is
 *   negative or not below the file size; or the negative errno of
 *   `ops.iomapBegin`.
 */
export function iomapSeekData(
  inode: Inode,
  pos: number,
  ops: IomapOps,
): MaybePromise<number> {
  const { size } = inode;
  if (pos < 0 || pos >= size) return -ENXIO;
  const iter = new IomapIter();
  iomapIterInit(iter, inode, pos, size - pos, IOMAP_REPORT, "iomap_seek_data");
  const found = { pos };
  return andThen(iomapWalk(iter, ops, iomapSeekDataIter, found), (ret) => {
    if (ret < 0) return ret;
    return iter.len > 0 ? found.pos : -ENXIO;
  });
}
