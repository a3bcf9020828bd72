/**
 * What most file systems do alike: methods of files and of the page cache, ready
 * made from the mapping callbacks.
 *
 * Every write, and every direct write until it has been submitted, has the inode's
 * lock for itself; reads share it. A file system that wants more at a time, or has
 * more to do around a call, writes its own methods from the same functions: each of
 * these here is the order in which they are called.
 *
 * Kernel counterpart: fs/ext2/file.c and fs/ext2/inode.c, as far as they use iomap.
 *
 * @module
 */

/*
 * Lock order, outermost first:
 *
 *   inode.rwsem                 exclusive: write, new size; shared: read, fiemap
 *     mapping.invalidateLock    exclusive: zeroing, new size; shared: store faults
 *       folio lock
 */

import type { Bio } from "../block/bio.ts";
import { blkdevIssueFlush } from "../block/blk-lib.ts";
import { blkStatusToErrno } from "../block/blk-types.ts";
import {
  type FiemapExtentInfo,
  type File,
  type FileOperations,
  FMODE_BUF_WASYNC,
  FMODE_CAN_ODIRECT,
  FMODE_DONTCACHE,
  FMODE_NOWAIT,
  type Iattr,
  type Inode,
  type InodeOperations,
  SEEK_DATA,
} from "../fs/fs.ts";
import {
  fileAccessed,
  fileUpdateTime,
  inodeDioWait,
  inodeLock,
  inodeLockIocb,
  inodeUnlock,
  kiocbModified,
  markInodeDirty,
  setattrCopy,
} from "../fs/inode.ts";
import { IOCB_DIRECT, IOCB_NOWAIT, type Kiocb } from "../fs/kiocb.ts";
import { genericWriteChecks } from "../fs/read-write.ts";
import { genericWriteSync } from "../fs/sync.ts";
import { EAGAIN, ENOTBLK } from "../lib/errno.ts";
import type { IovIter } from "../lib/iov-iter.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import type { AddressSpaceOperations } from "../mm/address-space.ts";
import { filemapRead, fileWriteAndWaitRange } from "../mm/filemap.ts";
import {
  filemapFault,
  filemapMapPages,
  type VmFault,
  type VmOperations,
} from "../mm/mmap.ts";
import { truncateSetsize } from "../mm/truncate.ts";
import {
  iomapDirtyFolio,
  iomapFileBufferedWrite,
  iomapInvalidateFolio,
  iomapIsPartiallyUptodate,
  iomapPageMkwrite,
  iomapReadahead,
  iomapReadFolio,
  iomapReleaseFolio,
  iomapTruncatePage,
  iomapWritepages,
  iomapZeroRange,
} from "./buffered-io.ts";
import { iocbBioIopoll, iomapDioRw } from "./direct-io.ts";
import { iomapBmap, iomapFiemap } from "./fiemap.ts";
import {
  iomapAddToIoend,
  iomapFinishIoends,
  type IomapIoend,
  iomapIoendWritebackSubmit,
} from "./ioend.ts";
import {
  Iomap,
  IOMAP_DIO_FORCE_WAIT,
  IOMAP_DIO_UNWRITTEN,
  IOMAP_IOEND_UNWRITTEN,
  type IomapDioOps,
  type IomapOps,
  iomapReset,
  type IomapWritebackOps,
  type IomapWriteOps,
  IomapWritepageCtx,
} from "./iomap.ts";
import { iomapSeekData, iomapSeekHole } from "./seek.ts";
import { iomapSwapfileActivate } from "./swapfile.ts";

/** What a file system gives, to be given methods for it. */
export interface GenericIomapFs {
  /** Mapping callbacks, for every use; with IOMAP_NOWAIT they answer -EAGAIN rather than
   * wait. Writeback maps as a read does: what can be dirty
   * has an address by then, from the IOMAP_WRITE that came before. */
  ops: IomapOps;
  /** Hooks of writes to the cache. `iomapValid` is asked by writeback, too. */
  writeOps?: IomapWriteOps;
  /**
   * Data has reached the device in blocks some of which were mapped as UNWRITTEN:
   * from now on they are MAPPED.
   *
   * @param pos Bytes.
   * @param len Bytes.
   * @returns 0, or a negative errno: then the write has failed.
   */
  convert?(inode: Inode, pos: number, len: number): MaybePromise<number>;
  /**
   * A file has been cut off, or has grown: frees what lies beyond `size`. Nobody can
   * bring it back into the cache meanwhile.
   *
   * @returns 0 or a negative errno.
   */
  truncated?(inode: Inode, size: number): MaybePromise<number>;
}

/** Methods for the inodes of a file system's regular files. */
export interface GenericIomapMethods {
  /** Attributes, size and extent map. */
  inode: InodeOperations;
  /** Open files: reads and writes through the cache and past it, fsync, SEEK_DATA and
   * SEEK_HOLE, mmap, swap. fsync writes back the file and flushes the device; a file
   * system with attributes or maps on the device puts its own in place of it. */
  file: FileOperations;
  /** The page cache. */
  mapping: AddressSpaceOperations;
}

/** Makes the methods of a file system's regular files from its mapping callbacks. */
export function genericIomapMethods(fs: GenericIomapFs): GenericIomapMethods {
  const { ops } = fs;
  const files = new GenericFiles(fs);
  return {
    inode: {
      setattr: (inode, attr) => files.setattr(inode, attr),
      fiemap: (inode, info, start, len) =>
        fiemapLocked(inode, info, start, len, ops),
    },
    file: {
      open(_inode, file) {
        file.mode |= FMODE_NOWAIT | FMODE_BUF_WASYNC | FMODE_CAN_ODIRECT |
          FMODE_DONTCACHE;
        return 0;
      },
      readIter: (iocb, iter) => files.readIter(iocb, iter),
      writeIter: (iocb, iter) => files.writeIter(iocb, iter),
      fsync: fileFsync,
      llseek: ({ inode }, offset, whence) =>
        whence === SEEK_DATA
          ? iomapSeekData(inode, offset, ops)
          : iomapSeekHole(inode, offset, ops),
      iopoll: iocbBioIopoll,
      mmap(file) {
        fileAccessed(file.inode);
        return files.vmOps;
      },
      swapActivate: (sis, file, span) =>
        iomapSwapfileActivate(sis, file, span, ops),
    },
    mapping: addressSpaceOperations(fs),
  };
}

/** Kernel: `ext2_aops`. */
function addressSpaceOperations(fs: GenericIomapFs): AddressSpaceOperations {
  const { ops } = fs;
  const writebackOps = writebackOf(fs);
  return {
    readFolio: (folio) => iomapReadFolio(folio, ops),
    readahead: (rac) => iomapReadahead(rac, ops),
    writepages: (mapping, wbc) => {
      const inode = mapping.host as Inode;
      return iomapWritepages(new IomapWritepageCtx(inode, wbc, writebackOps));
    },
    dirtyFolio: iomapDirtyFolio,
    releaseFolio: iomapReleaseFolio,
    invalidateFolio: iomapInvalidateFolio,
    isPartiallyUptodate: iomapIsPartiallyUptodate,
    bmap: (mapping, block) => iomapBmap(mapping, block, ops),
  };
}

/** Kernel: `blkdev_writeback_ops`; `xfs_writeback_ops` for the conversion. */
function writebackOf(
  { ops, writeOps, convert }: GenericIomapFs,
): IomapWritebackOps {
  // Nobody writes where the source of a copy is.
  const srcmap = new Iomap();
  const map = (
    { inode, iomap }: IomapWritepageCtx,
    pos: number,
    len: number,
  ) => {
    const covers = pos >= iomap.offset && pos < iomap.offset + iomap.length;
    if (covers && writeOps?.iomapValid?.(inode, iomap)) return 0;
    iomapReset(iomap);
    iomapReset(srcmap);
    const begun = ops.iomapBegin(inode, pos, len, 0, iomap, srcmap);
    return andThen(begun, (error) => {
      // The next folio must not take it for a mapping that still holds.
      if (error < 0) iomapReset(iomap);
      return error;
    });
  };
  const endBio = (bio: Bio) => {
    const ioend = bio.private as IomapIoend;
    const { inode, offset, size } = ioend;
    const failed = blkStatusToErrno(bio.status);
    const ended = failed < 0 ? failed : convert!(inode, offset, size);
    andThen(ended, (error) => iomapFinishIoends(ioend, error));
  };
  return {
    writebackRange: (wpc, folio, pos, len, endPos) =>
      andThen(
        map(wpc, pos, len),
        (error) =>
          error < 0 ? error : iomapAddToIoend(wpc, folio, pos, endPos, len),
      ),
    writebackSubmit(wpc, error) {
      const ioend = wpc.wbCtx as IomapIoend;
      const unwritten = (ioend.flags & IOMAP_IOEND_UNWRITTEN) !== 0;
      if (unwritten && convert) ioend.bio.endIo = endBio;
      return iomapIoendWritebackSubmit(wpc, error);
    },
  };
}

/** Kernel: `generic_file_fsync`, without the inode. */
function fileFsync(
  file: File,
  start: number,
  end: number,
): MaybePromise<number> {
  const { mapping, sb } = file.inode;
  const written = fileWriteAndWaitRange(mapping, file, start, end);
  return andThen(
    written,
    (error) => error < 0 ? error : blkdevIssueFlush(sb.bdev),
  );
}

/** Kernel: `ext2_fiemap`. */
function fiemapLocked(
  inode: Inode,
  info: FiemapExtentInfo,
  start: number,
  len: number,
  ops: IomapOps,
): MaybePromise<number> {
  return andThen(inodeLock(inode, false), (error) => {
    if (error < 0) return error;
    return andThen(iomapFiemap(inode, info, start, len, ops), (ret) => {
      inodeUnlock(inode, false);
      return ret;
    });
  });
}

/** What needs the file system's hooks. */
class GenericFiles {
  readonly #fs: GenericIomapFs;
  readonly #writeOps: IomapWriteOps | null;
  readonly #dioOps: IomapDioOps;
  readonly vmOps: VmOperations;

  constructor(fs: GenericIomapFs) {
    this.#fs = fs;
    this.#writeOps = fs.writeOps ?? null;
    this.#dioOps = {
      endIo: (iocb, size, error, flags) =>
        this.#dioWriteEndIo(iocb, size, error, flags),
    };
    this.vmOps = {
      fault: filemapFault,
      mapPages: filemapMapPages,
      pageMkwrite: (vmf) => this.#pageMkwrite(vmf),
    };
  }

  readIter(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
    if (iter.count === 0) return 0;
    const locked = inodeLockIocb(iocb, false);
    if (locked instanceof Promise) {
      return locked.then((error) => this.#readLocked(iocb, iter, error));
    }
    return this.#readLocked(iocb, iter, locked);
  }

  #readLocked(
    iocb: Kiocb,
    iter: IovIter,
    error: number,
  ): MaybePromise<number> {
    if (error < 0) return error;
    const ret = (iocb.flags & IOCB_DIRECT) === 0
      ? filemapRead(iocb, iter)
      : iomapDioRw(iocb, iter, this.#fs.ops, null, 0, null, 0);
    if (ret instanceof Promise) return ret.then((n) => readEnd(iocb, n));
    return readEnd(iocb, ret);
  }

  writeIter(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
    if (iter.count === 0) return 0;
    const { inode } = iocb.file;
    return andThen(inodeLockIocb(iocb, true), (error) => {
      if (error < 0) return error;
      const written = andThen(this.#prepare(iocb, iter), (count) => {
        if (count <= 0) return count;
        return (iocb.flags & IOCB_DIRECT) === 0
          ? this.#writeCache(iocb, iter)
          : this.#writeDirect(iocb, iter);
      });
      return andThen(written, (ret) => {
        inodeUnlock(inode, true);
        // Direct I/O has synced itself.
        const cached = (iocb.flags & IOCB_DIRECT) === 0;
        return ret > 0 && cached ? genericWriteSync(iocb, ret) : ret;
      });
    });
  }

  /** What comes before every write. Bytes to write, 0 for none, or -errno. */
  #prepare(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
    const { inode } = iocb.file;
    const count = genericWriteChecks(iocb, iter);
    if (count <= 0) return count;
    const gap = iocb.pos - inode.size;
    if (gap > 0 && (iocb.flags & IOCB_NOWAIT) !== 0) return -EAGAIN;
    const zeroed = gap > 0 ? this.#zeroGap(inode, iocb.pos) : 0;
    return andThen(zeroed, (error) => {
      if (error === 0) error = kiocbModified(iocb);
      return error < 0 ? error : count;
    });
  }

  /** What lies between the end of the file and a write has to read as zero. */
  #zeroGap(inode: Inode, pos: number): MaybePromise<number> {
    return andThen(inodeDioWait(inode), () => {
      // Direct I/O that was in flight may have moved the end.
      if (inode.size >= pos) return 0;
      return withMappingLocked(inode, () => this.#zeroFor(inode, pos));
    });
  }

  #writeCache(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
    return iomapFileBufferedWrite(
      iocb,
      iter,
      this.#fs.ops,
      this.#writeOps,
      null,
    );
  }

  #writeDirect(iocb: Kiocb, iter: IovIter): MaybePromise<number> {
    const { inode } = iocb.file;
    const mask = 2 ** inode.blkbits - 1;
    const parts = (iocb.pos & mask) !== 0 || (iter.count & mask) !== 0;
    // Two that fill up the same block, or move the end, must not overlap.
    const alone = parts || iocb.pos + iter.count > inode.size;
    if (alone && (iocb.flags & IOCB_NOWAIT) !== 0) return -EAGAIN;
    const ready = alone ? inodeDioWait(inode) : undefined;
    const flags = alone ? IOMAP_DIO_FORCE_WAIT : 0;
    const ret = andThen(
      ready,
      () => iomapDioRw(iocb, iter, this.#fs.ops, this.#dioOps, flags, null, 0),
    );
    return andThen(ret, (n) => {
      if (n !== -ENOTBLK) return n;
      // What the cache would not let go of is written through it.
      iocb.flags &= ~IOCB_DIRECT;
      return this.#writeCache(iocb, iter);
    });
  }

  /** Kernel: `xfs_write_fault`. */
  #pageMkwrite(vmf: VmFault): MaybePromise<number> {
    const inode = vmf.vma.mapping.host as Inode;
    const { invalidateLock } = inode.mapping;
    fileUpdateTime(inode);
    return andThen(invalidateLock.downRead(), () => {
      const made = iomapPageMkwrite(vmf, this.#fs.ops, null);
      return andThen(made, (code) => {
        invalidateLock.upRead();
        return code;
      });
    });
  }

  /** Kernel: `ext2_dio_write_end_io`, `xfs_dio_write_end_io`. */
  #dioWriteEndIo(
    { file, pos }: Kiocb,
    size: number,
    error: number,
    flags: number,
  ): MaybePromise<number> {
    if (error !== 0 || size === 0) return error;
    const { inode } = file;
    const unwritten = (flags & IOMAP_DIO_UNWRITTEN) !== 0;
    const ended = unwritten ? this.#fs.convert?.(inode, pos, size) ?? 0 : 0;
    return andThen(ended, (ret) => {
      if (ret === 0 && pos + size > inode.size) {
        inode.size = pos + size;
        markInodeDirty(inode);
      }
      return ret;
    });
  }

  /** Kernel: `ext2_setattr`. */
  setattr(inode: Inode, attr: Iattr): MaybePromise<number> {
    const { size } = attr;
    const sized = size === undefined ? 0 : this.#setsize(inode, size);
    return andThen(sized, (error) => {
      if (error === 0) setattrCopy(inode, attr);
      return error;
    });
  }

  /** Kernel: `ext2_setsize`. */
  #setsize(inode: Inode, size: number): MaybePromise<number> {
    const resize = () =>
      andThen(this.#zeroFor(inode, size), (error) => {
        if (error < 0) return error;
        const dropped = truncateSetsize(inode.mapping, size);
        return andThen(dropped, () => this.#fs.truncated?.(inode, size) ?? 0);
      });
    return andThen(inodeDioWait(inode), () => withMappingLocked(inode, resize));
  }

  /** What a file that grows again shows must read as zero. */
  #zeroFor(inode: Inode, size: number): MaybePromise<number> {
    const { ops } = this.#fs;
    const from = inode.size;
    return size > from
      ? iomapZeroRange(
        inode,
        from,
        size - from,
        null,
        ops,
        this.#writeOps,
        null,
      )
      : iomapTruncatePage(inode, size, null, ops, this.#writeOps, null);
  }
}

function readEnd({ file }: Kiocb, ret: number): number {
  inodeUnlock(file.inode, false);
  fileAccessed(file.inode);
  return ret;
}

function withMappingLocked(
  inode: Inode,
  work: () => MaybePromise<number>,
): MaybePromise<number> {
  const { invalidateLock } = inode.mapping;
  return andThen(invalidateLock.downWrite(), () =>
    andThen(work(), (ret) => {
      invalidateLock.upWrite();
      return ret;
    }));
}
