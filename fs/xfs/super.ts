/**
 * Mounting, syncing and unmounting.
 *
 * A mount marks the image as in use. Only unmounting, which writes the groups' free
 * space, makes it mountable again: there is no log yet to recover it from.
 *
 * Kernel counterpart: fs/xfs/xfs_super.c.
 *
 * @module
 */

import { Bio, submitBioWait } from "../../block/bio.ts";
import {
  REQ_FUA,
  REQ_META,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_PREFLUSH,
  REQ_SYNC,
} from "../../block/blk-types.ts";
import { blkdevIssueFlush } from "../../block/blk-lib.ts";
import type { BlockDevice } from "../../block/blkdev.ts";
import { EFSCORRUPTED, EINVAL, EIO, errnoName } from "../../lib/errno.ts";
import { andThen, type MaybePromise, repeat } from "../../lib/maybe-promise.ts";
import type { Mm } from "../../mm/mm.ts";
import type {
  FileSystemType,
  MountError,
  StatFs,
  SuperBlock,
  SuperOperations,
} from "../fs.ts";
import { clearBusy } from "./alloc.ts";
import { allocBlob, fillBlob, freeBlob, readBlob } from "./buf.ts";
import { XfsGeometry } from "./format.ts";
import { writeInode, xfsIget, xfsInactive, type XfsInode } from "./inode.ts";
import { XfsMount, type XfsMountOptions } from "./mount.ts";
import {
  decodeGroups,
  decodeSuper,
  type DiskSuper,
  encodeGroups,
  encodeSuper,
  groupsBytes,
  MAX_RUNS,
} from "./ondisk.ts";

/** Bytes that are read to find the super block: a block of any device. */
const SB_READ = 4096;
/** allocsize= is at least a page (kernel: `XFS_MIN_IO_LOG`). */
const MIN_IO_LOG = 12;
/** allocsize= is at most 1 GiB (kernel: `XFS_MAX_IO_LOG`). */
const MAX_IO_LOG = 30;
const SUFFIXES = "kmg";

function mountError(errno: number, message: string): MountError {
  return { errno, message };
}

/** Reads `-o` text (kernel: `xfs_fs_parse_param`). */
function parseOptions(text: string): XfsMountOptions | MountError {
  const options: XfsMountOptions = { allocsizeLog: null };
  for (const option of text.split(",")) {
    if (option === "") continue;
    const [name, ...rest] = option.split("=");
    if (name !== "allocsize") {
      return mountError(-EINVAL, `unknown mount option "${name}"`);
    }
    const value = rest.join("=");
    const bytes = parseSize(value);
    const log = Math.log2(bytes);
    if (!Number.isInteger(log) || log < MIN_IO_LOG || log > MAX_IO_LOG) {
      return mountError(
        -EINVAL,
        `mount option allocsize=${value} is no power of two ` +
          `from 4k to 1g`,
      );
    }
    options.allocsizeLog = log;
  }
  return options;
}

/** A number with an optional k, m or g; NaN if it is none (kernel:
 * `suffix_kstrtoint`). */
function parseSize(text: string): number {
  const match = /^(\d+)([kmg]?)$/i.exec(text);
  if (match === null) return NaN;
  const power = SUFFIXES.indexOf(match[2]!.toLowerCase()) + 1;
  return Number(match[1]) * 1024 ** (match[2] === "" ? 0 : power);
}

/** Kernel: `xfs_fs_fill_super`. */
function fillSuper(
  bdev: BlockDevice,
  mm: Mm,
  text: string,
): MaybePromise<SuperBlock | MountError> {
  const options = parseOptions(text);
  if ("errno" in options) return options;
  const bytes = bdev.nrSectors * 512;
  if (bytes < SB_READ) {
    return mountError(-EINVAL, `a device of ${bytes} bytes is too small`);
  }
  const bio = new Bio(bdev, REQ_OP_READ | REQ_META | REQ_SYNC);
  const data = new Uint8Array(SB_READ);
  bio.addData(data, 0, SB_READ);
  return andThen(submitBioWait(bio), (error) => {
    if (error < 0) return mountError(error, "the super block cannot be read");
    const disk = decodeSuper(data, bytes);
    if ("reason" in disk) {
      return mountError(disk.foreign ? -EINVAL : -EFSCORRUPTED, disk.reason);
    }
    return mountDisk(bdev, mm, options, disk);
  });
}

/** Kernel: `xfs_mountfs`. */
function mountDisk(
  bdev: BlockDevice,
  mm: Mm,
  options: XfsMountOptions,
  disk: DiskSuper,
): MaybePromise<SuperBlock | MountError> {
  if (!disk.clean) {
    return mountError(
      -EFSCORRUPTED,
      "it was not unmounted, and there is no log to recover it from",
    );
  }
  const sectorSize = bdev.limits.logicalBlockSize;
  if (disk.blockSize < sectorSize) {
    return mountError(
      -EINVAL,
      `blocks of ${disk.blockSize} bytes are smaller than the device's ` +
        `${sectorSize}`,
    );
  }
  const { blockSize, dblocks, agCount, agBlocks } = disk;
  const geo = new XfsGeometry(blockSize, dblocks, agCount, agBlocks);
  const mp = new XfsMount(
    bdev,
    mm,
    xfsSuperOperations,
    geo,
    disk.label,
    options,
  );
  mp.rootIno = disk.rootIno;
  mp.groups = disk.groups;
  return andThen(readBlob(mp, mp.groups), (content) => {
    if (typeof content === "number") {
      const why = `free space cannot be read: ${errnoName(content)}`;
      return mountError(content, why);
    }
    const wrong = decodeGroups(content, mp.ags, geo.chunkBlocks);
    if (wrong !== null) return mountError(-EFSCORRUPTED, wrong);
    mp.countFree();
    return mountRoot(mp);
  });
}

/** Kernel: `xfs_mountfs`'s last part. */
function mountRoot(mp: XfsMount): MaybePromise<SuperBlock | MountError> {
  return andThen(xfsIget(mp, mp.rootIno), (root) => {
    if (typeof root === "number") return mountError(root, mp.complaint);
    if (root.dir === null) {
      return mountError(-EFSCORRUPTED, "the root is no directory");
    }
    mp.root = root;
    return andThen(
      writeSuper(mp, false),
      (error) =>
        error < 0 ? mountError(error, "the super block cannot be written") : mp,
    );
  });
}

/**
 * Writes the super block, after everything that was written before (kernel:
 * `xfs_sync_sb`).
 *
 * @param clean Groups and inodes have been written: the image can be mounted.
 * @returns 0 or a negative errno.
 */
function writeSuper(mp: XfsMount, clean: boolean): MaybePromise<number> {
  if (mp.dead) return -EIO;
  const { geo } = mp;
  const opf = REQ_OP_WRITE | REQ_META | REQ_SYNC | REQ_PREFLUSH | REQ_FUA;
  const bio = new Bio(mp.bdev, opf);
  const block = new Uint8Array(geo.blockSize);
  block.set(encodeSuper({
    blockSize: geo.blockSize,
    dblocks: geo.dblocks,
    agCount: geo.agCount,
    agBlocks: geo.agBlocks,
    rootIno: mp.rootIno,
    label: mp.label,
    clean,
    groups: mp.groups,
  }));
  bio.addData(block, 0, block.length);
  return submitBioWait(bio);
}

/** Brings the records of dirty inodes up to date and writes them (kernel:
 * `xfs_fs_sync_fs`). */
function syncFs(sb: SuperBlock): MaybePromise<number> {
  const mp = sb as XfsMount;
  const inodes = [...mp.dirtyInodes] as XfsInode[];
  let next = 0;
  let first = 0;
  const encoded = repeat(() => {
    const ip = inodes[next++];
    if (ip === undefined) return false;
    if (ip.nlink === 0) return true;
    ip.mapLogged = false;
    return andThen(writeInode(ip), (error) => {
      first ||= error;
      return true;
    });
  });
  const flushed = andThen(encoded, () => mp.bufs.flush());
  return andThen(flushed, (error) => {
    first ||= error;
    if (mp.dead) return first || -EIO;
    return andThen(blkdevIssueFlush(mp.bdev), (failed) => {
      first ||= failed;
      if (first === 0) clearBusy(mp);
      return first;
    });
  });
}

/**
 * Leaves an image that can be mounted: groups, inodes, then the super block (kernel:
 * `xfs_unmountfs`). All inodes have left memory.
 *
 * @returns 0 or a negative errno.
 */
export function unmountFs(mp: XfsMount): MaybePromise<number> {
  freeBlob(mp, mp.groups);
  clearBusy(mp);
  // Allocating the blob splits free extents; each run of it may add one.
  const room = groupsBytes(mp.ags, MAX_RUNS);
  const near = mp.geo.agBlocks - 1;
  const groups = allocBlob(mp, room, near);
  if (typeof groups === "number") return groups;
  fillBlob(mp, groups, encodeGroups(mp.ags));
  mp.groups = groups;
  return andThen(
    mp.bufs.flush(),
    (error) => error < 0 ? error : writeSuper(mp, true),
  );
}

/** Kernel: `xfs_fs_statfs`. */
function statfs(sb: SuperBlock): StatFs {
  const mp = sb as XfsMount;
  return {
    blockSize: mp.geo.blockSize,
    blocks: mp.usableBlocks,
    blocksFree: mp.fdblocks,
    files: mp.inodeCount + Math.floor(mp.fdblocks * mp.geo.inodesPerBlock),
    filesFree: mp.inodesFree + Math.floor(mp.fdblocks * mp.geo.inodesPerBlock),
  };
}

/** Methods of a mounted file system (kernel: `xfs_super_operations`). */
export const xfsSuperOperations: SuperOperations = {
  evictInode: (inode) =>
    andThen(xfsInactive(inode as XfsInode), (error) => {
      const mp = inode.sb as XfsMount;
      mp.evictError ||= error;
    }),
  syncFs,
  putSuper: (sb) => {
    const mp = sb as XfsMount;
    return mp.evictError < 0 ? mp.evictError : unmountFs(mp);
  },
  shutdown: (sb) => {
    (sb as XfsMount).bufs.dead = true;
  },
  statfs,
};

/** The XFS-like file system, for `mount` (kernel: `xfs_fs_type`). */
export const xfs: FileSystemType = { name: "xfs", mount: fillSuper };
