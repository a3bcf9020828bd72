/**
 * Swap files: where on the device their pages lie, and that nothing will move them.
 *
 * A swap file is read and written without asking the file system again, by whole
 * pages of the device: what of an extent is not one whole page there is not used.
 *
 * Kernel counterpart: fs/iomap/swapfile.c.
 *
 * @module
 */

import type { File, Inode } from "../fs/fs.ts";
import { vfsFsync } from "../fs/sync.ts";
import { EINVAL } from "../lib/errno.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import { printk } from "../lib/printk.ts";
import { PAGE_SIZE } from "../mm/folio.ts";
import { addSwapExtent, type SwapInfo } from "../mm/swap.ts";
import {
  type Iomap,
  IOMAP_DELALLOC,
  IOMAP_F_DIRTY,
  IOMAP_F_SHARED,
  IOMAP_HOLE,
  IOMAP_INLINE,
  IOMAP_REPORT,
  IomapIter,
  iomapIterInit,
  type IomapOps,
} from "./iomap.ts";
import { iomapIterAdvanceFull, iomapWalk } from "./iter.ts";

/** What has been gathered of a swap file (kernel: `struct iomap_swapfile_info`). */
class SwapfileInfo {
  readonly sis: SwapInfo;
  readonly file: File;
  /** The run on the device that still grows: where in the file, where on the device,
   * and how long it is; bytes. */
  offset = 0;
  addr = 0;
  length = 0;
  /** Pages of the device used, lowest and highest; the header's does not count. */
  lowest = Infinity;
  highest = 0;
  /** Pages found. */
  nrPages = 0;
  /** Extents added. */
  nrExtents = 0;

  constructor(sis: SwapInfo, file: File) {
    this.sis = sis;
    this.file = file;
  }
}

/** Adds the whole pages of the run (kernel: `iomap_swapfile_add_extent`). */
function iomapSwapfileAddExtent(isi: SwapfileInfo): void {
  const { sis, addr, length, nrPages } = isi;
  if (nrPages >= sis.max) return;
  const first = Math.ceil(addr / PAGE_SIZE);
  const next = Math.floor((addr + length) / PAGE_SIZE);
  if (first >= next) return;
  const count = Math.min(next - first, sis.max - nrPages);
  // The header is no page that is swapped to.
  isi.lowest = Math.min(isi.lowest, isi.offset === 0 ? first + 1 : first);
  isi.highest = Math.max(isi.highest, next - 1);
  isi.nrExtents += addSwapExtent(sis, nrPages, count, first);
  isi.nrPages += count;
}

/** Why a mapping cannot be swapped to, or null. */
function refusal(iomap: Iomap, sis: SwapInfo): string | null {
  switch (iomap.type) {
    case IOMAP_INLINE:
      return "is inline";
    case IOMAP_HOLE:
    case IOMAP_DELALLOC:
      return "has unallocated extents";
  }
  // What is not committed may be elsewhere after a crash; what is shared is copied.
  if ((iomap.flags & IOMAP_F_DIRTY) !== 0) return "is not committed";
  if ((iomap.flags & IOMAP_F_SHARED) !== 0) return "has shared extents";
  return iomap.bdev === sis.bdev ? null : "outside the main device";
}

function iomapSwapfileIter(iter: IomapIter, isi: SwapfileInfo): number {
  const { iomap } = iter;
  const refused = refusal(iomap, isi.sis);
  if (refused !== null) {
    printk(`swapon: file ${isi.file.path} ${refused}`);
    return -EINVAL;
  }
  if (isi.length > 0 && isi.addr + isi.length === iomap.addr) {
    isi.length += iomap.length;
  } else {
    if (isi.length > 0) iomapSwapfileAddExtent(isi);
    isi.offset = iomap.offset;
    isi.addr = iomap.addr;
    isi.length = iomap.length;
  }
  return iomapIterAdvanceFull(iter);
}

/**
 * Gathers the extents of a swap file (kernel: `iomap_swapfile_activate`). For
 * `FileOperations.swapActivate`. Data is made durable first.
 *
 * @param sis `bdev` and `max` are set; it gets the extents, and `max` and `pages` of
 *   what was found.
 * @param file The caller holds its inode's rwsem exclusively.
 * @param pagespan Gets the pages of the device from the first to the last one used.
 * @param ops Mapping callbacks, called with REPORT.
 * @returns Extents; -EINVAL if there are holes, promised space, inline data, shared
 *   blocks, uncommitted metadata, blocks of another device, or no whole page: the log
 *   says which; the negative errno of fdatasync or of `ops`.
 */
export function iomapSwapfileActivate(
  sis: SwapInfo,
  file: File,
  pagespan: { value: number },
  ops: IomapOps,
): MaybePromise<number> {
  const isi = new SwapfileInfo(sis, file);
  return andThen(vfsFsync(file, true), (synced) => {
    if (synced < 0) return synced;
    const walked = walkFile(file.inode, isi, ops);
    return andThen(
      walked,
      (error) => error < 0 ? error : activated(isi, pagespan),
    );
  });
}

function walkFile(
  inode: Inode,
  isi: SwapfileInfo,
  ops: IomapOps,
): MaybePromise<number> {
  const iter = new IomapIter();
  const len = Math.floor(inode.size / PAGE_SIZE) * PAGE_SIZE;
  const caller = "iomap_swapfile_activate";
  iomapIterInit(iter, inode, 0, len, IOMAP_REPORT, caller);
  return iomapWalk(iter, ops, iomapSwapfileIter, isi);
}

function activated(isi: SwapfileInfo, pagespan: { value: number }): number {
  const { sis } = isi;
  if (isi.length > 0) iomapSwapfileAddExtent(isi);
  if (isi.nrPages === 0) {
    printk("swapon: Cannot find a single usable page in file.");
    return -EINVAL;
  }
  pagespan.value = 1 + isi.highest - isi.lowest;
  sis.max = isi.nrPages;
  sis.pages = isi.nrPages - 1;
  return isi.nrExtents;
}
