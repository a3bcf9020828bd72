/**
 * Making files and file systems durable.
 *
 * Kernel counterpart: fs/sync.c.
 *
 * @module
 */

import { EINVAL, ESPIPE } from "../lib/errno.ts";
import { andThen, type MaybePromise, repeat } from "../lib/maybe-promise.ts";
import {
  fileFdatawaitRange,
  filemapFdatawaitKeepErrors,
  filemapFdatawriteRange,
  filemapRangeNeedsWriteback,
} from "../mm/filemap.ts";
import { errseqCheckAndAdvance, type WbErrCursor } from "../mm/errseq.ts";
import {
  type File,
  type Inode,
  MAX_LFS_FILESIZE,
  type SuperBlock,
} from "./fs.ts";
import { isDir, isReg } from "./inode.ts";
import { IOCB_DONTCACHE, IOCB_DSYNC, IOCB_SYNC, type Kiocb } from "./kiocb.ts";

/** Wait for writeback of the range that is going on, first. */
export const SYNC_FILE_RANGE_WAIT_BEFORE = 1;
/** Start writeback of the range. */
export const SYNC_FILE_RANGE_WRITE = 2;
/** Wait for it. */
export const SYNC_FILE_RANGE_WAIT_AFTER = 4;
const SYNC_FILE_RANGE_ALL = 7;

/**
 * Makes a file's data and attributes durable (kernel: `vfs_fsync_range`).
 *
 * @param start First byte.
 * @param end Last byte, inclusive.
 * @param datasync Attributes only as far as they are needed to read the data.
 * @returns 0; -EINVAL if the file cannot be synced, or the file system's errno.
 */
export function vfsFsyncRange(
  file: File,
  start: number,
  end: number,
  datasync: boolean,
): MaybePromise<number> {
  const { fop } = file.inode;
  if (fop.fsync === undefined) return -EINVAL;
  return fop.fsync(file, start, end, datasync);
}

/** Makes all of a file durable (kernel: `vfs_fsync`). */
export function vfsFsync(file: File, datasync: boolean): MaybePromise<number> {
  return vfsFsyncRange(file, 0, MAX_LFS_FILESIZE, datasync);
}

/**
 * Ends a write call that has to be durable (kernel: `generic_write_sync`). The
 * caller holds no lock of the inode; `iocb.pos` is behind what was written.
 *
 * @param count Bytes written, above 0.
 * @returns `count`, or the negative errno of the sync.
 */
export function genericWriteSync(
  iocb: Kiocb,
  count: number,
): MaybePromise<number> {
  if ((iocb.flags & (IOCB_DSYNC | IOCB_SYNC | IOCB_DONTCACHE)) === 0) {
    return count;
  }
  return writeSync(iocb, count);
}

/** Apart: its closures would cost every write. */
function writeSync(iocb: Kiocb, count: number): MaybePromise<number> {
  const start = iocb.pos - count;
  const last = iocb.pos - 1;
  if ((iocb.flags & (IOCB_DSYNC | IOCB_SYNC)) === 0) {
    const kicked = filemapFdatawriteRange(iocb.mapping, start, last, false);
    return andThen(kicked, () => count);
  }
  const datasync = (iocb.flags & IOCB_SYNC) === 0;
  const synced = vfsFsyncRange(iocb.file, start, last, datasync);
  return andThen(synced, (error) => error < 0 ? error : count);
}

/**
 * Writes back a range of data alone: no attributes, no device flush (kernel:
 * `ksys_sync_file_range`).
 *
 * @param len Bytes; 0 is to the end of the file.
 * @param flags `SYNC_FILE_RANGE_*`.
 * @returns 0; -EINVAL for an unknown flag or a range that is not one; -ESPIPE for
 *   what has no data; else the error of the writeback.
 */
export function syncFileRange(
  file: File,
  offset: number,
  len: number,
  flags: number,
): MaybePromise<number> {
  if ((flags & ~SYNC_FILE_RANGE_ALL) !== 0) return -EINVAL;
  if (offset < 0 || len < 0 || offset + len > MAX_LFS_FILESIZE) return -EINVAL;
  const { inode } = file;
  if (!isReg(inode) && !isDir(inode)) return -ESPIPE;
  const last = len === 0 ? MAX_LFS_FILESIZE : offset + len - 1;
  const { mapping } = inode;
  const waited = (flags & SYNC_FILE_RANGE_WAIT_BEFORE) !== 0
    ? fileFdatawaitRange(mapping, file, offset, last)
    : 0;
  const written = andThen(waited, (error) => {
    if (error < 0 || (flags & SYNC_FILE_RANGE_WRITE) === 0) return error;
    // Only a caller that waits on both sides gets what is in flight written again.
    const syncAll = flags === SYNC_FILE_RANGE_ALL;
    return filemapFdatawriteRange(mapping, offset, last, syncAll);
  });
  return andThen(written, (error) => {
    if (error < 0 || (flags & SYNC_FILE_RANGE_WAIT_AFTER) === 0) return error;
    return fileFdatawaitRange(mapping, file, offset, last);
  });
}

/** What a sync of a file system has met: 0 or the first negative errno. */
interface SyncErrors {
  /** Of writing data. */
  data: number;
  /** Of the rest. */
  fs: number;
}

/**
 * Makes a whole file system durable (kernel: `sync_filesystem`).
 *
 * @returns 0, or the first error; the rest is written all the same. Errors of data are
 *   among them as long as no fsync has reported them.
 */
export function syncFilesystem(sb: SuperBlock): MaybePromise<number> {
  return andThen(syncSuper(sb), ({ data, fs }) => data < 0 ? data : fs);
}

/**
 * Makes a whole file system durable, for somebody who wants to be told once of every
 * error (kernel: `syncfs`).
 *
 * @param cursor What he has been told.
 * @returns 0, the file system's errno, or that of any file's data that could not be
 *   written since he was last told, whether an fsync has reported it or not.
 */
export function vfsSyncfs(
  sb: SuperBlock,
  cursor: WbErrCursor,
): MaybePromise<number> {
  return andThen(syncSuper(sb), ({ fs }) => {
    const reported = errseqCheckAndAdvance(sb.wb, cursor);
    return fs < 0 ? fs : reported;
  });
}

function syncSuper(sb: SuperBlock): MaybePromise<SyncErrors> {
  const inodes = [...sb.dirtyInodes];
  const errors: SyncErrors = { data: 0, fs: 0 };
  const note = (error: number) => {
    if (errors.data === 0 && error < 0) errors.data = error;
    return true;
  };
  // All data is on its way before the first wait.
  const started = forEachInode(
    inodes,
    (inode) => filemapFdatawriteRange(inode.mapping, 0, MAX_LFS_FILESIZE, true),
    note,
  );
  const waited = andThen(started, () =>
    forEachInode(
      inodes,
      (inode) => filemapFdatawaitKeepErrors(inode.mapping),
      note,
    ));
  return andThen(waited, () => {
    const stamps = inodes.map((inode) => inode.dirtied);
    return andThen(sb.ops.syncFs(sb), (error) => {
      errors.fs = Math.min(0, error);
      forgetClean(sb, inodes.filter((inode, i) => inode.dirtied === stamps[i]));
      return errors;
    });
  });
}

function forEachInode(
  inodes: Inode[],
  work: (inode: Inode) => MaybePromise<number>,
  note: (error: number) => boolean,
): MaybePromise<void> {
  let next = 0;
  return repeat(() =>
    next < inodes.length ? andThen(work(inodes[next++]!), note) : false
  );
}

/** An inode with pages that were dirtied meanwhile stays for the next sync. */
function forgetClean(sb: SuperBlock, inodes: Inode[]): void {
  for (const inode of inodes) {
    const { mapping } = inode;
    if (!filemapRangeNeedsWriteback(mapping, 0, MAX_LFS_FILESIZE)) {
      sb.dirtyInodes.delete(inode);
    }
  }
}
