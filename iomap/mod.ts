/**
 * What the author of a file system needs: the iomap library, and the parts of the
 * VFS, the page cache and the block layer that a file system touches.
 *
 * A file system says where bytes are, through `iomapBegin`; the library does
 * buffered and direct I/O, writeback, seeking and extent maps with that. Names are
 * the kernel's, in camelCase. Functions answer negative errno numbers, and a
 * promise only where they have to wait.
 *
 * @example Buffered reads of a file that is one extent
 * ```ts
 * import {
 *   IOMAP_MAPPED,
 *   type IomapOps,
 *   iomapReadFolio,
 * } from "@iomap/iomap/iomap";
 *
 * const ops: IomapOps = {
 *   iomapBegin(inode, _pos, _length, _flags, iomap) {
 *     iomap.type = IOMAP_MAPPED;
 *     iomap.length = inode.size;
 *     iomap.addr = 4096;
 *     iomap.bdev = inode.sb.bdev;
 *     return 0;
 *   },
 * };
 * const readFolio = (folio: Parameters<typeof iomapReadFolio>[0]) =>
 *   iomapReadFolio(folio, ops);
 * ```
 *
 * @module
 */

export * from "./iomap.ts";
export * from "./iter.ts";
export * from "./buffered-io.ts";
export * from "./ioend.ts";
export * from "./compat.ts";
export * from "./direct-io.ts";
export * from "./seek.ts";
export * from "./fiemap.ts";
export * from "./swapfile.ts";
export * from "./generic.ts";
export {
  formatIomapTrace,
  iomapFlagNames,
  iomapOpFlagNames,
  type IomapTraceAddToIoend,
  type IomapTraceDioBegin,
  type IomapTraceDioComplete,
  type IomapTraceEvent,
  type IomapTraceInode,
  type IomapTraceIter,
  type IomapTraceIterMap,
  type IomapTraceMapping,
  type IomapTraceRange,
  type IomapTraceReadpage,
  iomapTypeName,
  printIomapTrace,
  setIomapTracer,
} from "./trace.ts";

export * from "../fs/fs.ts";
export * from "../fs/inode.ts";
export * from "../fs/ioctl.ts";
export * from "../fs/kiocb.ts";
export {
  filemapPageMkwrite,
  genericFileMmap,
  genericFileVmOps,
} from "../fs/mmap.ts";
export * from "../fs/read-write.ts";
export * from "../fs/sync.ts";

export * from "../mm/address-space.ts";
export { BdiWriteback } from "../mm/backing-dev.ts";
export type { Errseq, WbErrCursor } from "../mm/errseq.ts";
export * from "../mm/filemap.ts";
export * from "../mm/folio.ts";
export * from "../mm/mm.ts";
export * from "../mm/mmap.ts";
export type { Lruvec } from "../mm/lru.ts";
export type { PageIndex, ShadowNodes } from "../mm/page-index.ts";
export type { PageViews } from "../mm/page-views.ts";
export * from "../mm/readahead.ts";
export * from "../mm/rmap.ts";
export * from "../mm/swap.ts";
export * from "../mm/truncate.ts";

export * from "../block/bio.ts";
export { blkdevIssueFlush } from "../block/blk-lib.ts";
export * from "../block/blk-types.ts";
export * from "../block/blkdev.ts";

export type { Clock, EventId } from "../lib/clock.ts";
export * from "../lib/errno.ts";
export * from "../lib/iov-iter.ts";
export * from "../lib/lockdep.ts";
export * from "../lib/locks.ts";
export * from "../lib/maybe-promise.ts";
export * from "../lib/wait.ts";
