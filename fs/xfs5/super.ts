/**
 * Mounting, syncing and unmounting.
 *
 * There is no log yet: while anything may be written, the super block says that the
 * image needs repair, so that one that was not unmounted is refused here and by the
 * kernel.
 *
 * Kernel counterpart: fs/xfs/xfs_super.c, xfs_mount.c.
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
import {
  EFSBADCRC,
  EFSCORRUPTED,
  EINVAL,
  EIO,
  ENOSPC,
  ENOSYS,
  errnoName,
} from "../../lib/errno.ts";
import { andThen, type MaybePromise, repeat } from "../../lib/maybe-promise.ts";
import type { Mm } from "../../mm/mm.ts";
import {
  type FileSystemType,
  type MountError,
  S_IFDIR,
  S_IFMT,
  type StatFs,
  type SuperBlock,
  type SuperOperations,
} from "../fs.ts";
import { flushInode, freeAllBlockgc, xfsIget, xfsInactive } from "./icache.ts";
import type { XfsInode } from "./inode.ts";
import { xfsAllocReadAgf, xfsIallocReadAgi } from "./libxfs/ag.ts";
import { xfsAgResvFree, xfsAgResvInit } from "./libxfs/ag-resv.ts";
import { xfsAllocComputeMaxlevels } from "./libxfs/alloc-btree.ts";
import { xfsAllocAgMaxUsable, xfsAllocSetAside } from "./libxfs/alloc.ts";
import { xfsBmapComputeMaxlevels } from "./libxfs/bmap.ts";
import type { XfsBufOps } from "./libxfs/buf.ts";
import { xfsExtentBusyClearAll } from "./libxfs/extent-busy.ts";
import {
  XFS_ATTR_FORK,
  XFS_DATA_FORK,
  XFS_SB_FEAT_INCOMPAT_NEEDSREPAIR,
  XFS_SB_FEAT_RO_COMPAT_ALL,
} from "./libxfs/format.ts";
import { xfsIallocComputeMaxlevels } from "./libxfs/ialloc.ts";
import { type LogRead, xlogFindHead } from "./libxfs/log-head.ts";
import { xfsRefcountbtComputeMaxlevels } from "./libxfs/refcount-btree.ts";
import { xfsRmapbtComputeMaxlevels } from "./libxfs/rmap-btree.ts";
import { xfsCalcAtomicWriteUnitMax } from "./libxfs/trans-resv.ts";
import { decodeSb, encodeSb, type XfsSb } from "./libxfs/sb.ts";
import { XfsMount, type XfsMountOptions } from "./mount.ts";
import { xfsReflinkRecoverCow } from "./reflink.ts";

/** Bytes that are read to find the super block: the largest sector. */
const SB_READ = 32768;
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
  const options: XfsMountOptions = { allocsizeLog: null, readOnly: false };
  for (const option of text.split(",")) {
    if (option === "") continue;
    const [name, ...rest] = option.split("=");
    const value = rest.join("=");
    if (option === "ro") options.readOnly = true;
    else if (option === "rw") options.readOnly = false;
    else if (name === "allocsize") {
      const log = Math.log2(parseSize(value));
      if (!Number.isInteger(log) || log < MIN_IO_LOG || log > MAX_IO_LOG) {
        const why = `mount option allocsize=${value} is no power of two ` +
          `from 4k to 1g`;
        return mountError(-EINVAL, why);
      }
      options.allocsizeLog = log;
    } else return mountError(-EINVAL, `unknown mount option "${name}"`);
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
  const bio = new Bio(bdev, REQ_OP_READ | REQ_META | REQ_SYNC);
  const data = new Uint8Array(Math.min(SB_READ, bdev.nrSectors * 512));
  bio.addData(data, 0, data.length);
  return andThen(submitBioWait(bio), (error) => {
    if (error < 0) return mountError(error, "the super block cannot be read");
    const sb = decodeSb(data);
    if ("reason" in sb) {
      const { errno, reason } = sb;
      return mountError(errno === -EFSBADCRC ? -EFSCORRUPTED : errno, reason);
    }
    const refused = checkSb(bdev, sb, options);
    return refused ?? mountFs(new XfsMount(bdev, mm, superOps, sb, options));
  });
}

/** What the super block asks of device and mount (kernel: `xfs_fs_fill_super`,
 * `xfs_check_sizes`). */
function checkSb(
  bdev: BlockDevice,
  sb: XfsSb,
  options: XfsMountOptions,
): MountError | null {
  const { logicalBlockSize } = bdev.limits;
  if (sb.sectsize < logicalBlockSize) {
    const why = `sectors of ${sb.sectsize} bytes are smaller than the ` +
      `device's ${logicalBlockSize}`;
    return mountError(-ENOSYS, why);
  }
  const have = Math.floor(bdev.nrSectors / sb.bbPerBlock);
  if (sb.dblocks > have) {
    const why = `${sb.dblocks} blocks do not fit on a device of ${have}`;
    return mountError(-EFSCORRUPTED, why);
  }
  if (sb.logstart === 0) {
    return mountError(-EINVAL, "its log is on another device");
  }
  const log = sb.verifyFsbext(sb.logstart, sb.logblocks);
  if (!log) {
    const where = `${sb.logstart}+${sb.logblocks}`;
    return mountError(-EFSCORRUPTED, `log at ${where}`);
  }
  if (!sb.verifyIno(sb.rootino)) {
    return mountError(-EFSCORRUPTED, `rootino ${sb.rootino}`);
  }
  const unknown = (sb.featuresRoCompat & ~XFS_SB_FEAT_RO_COMPAT_ALL) >>> 0;
  if (unknown !== 0 && !options.readOnly) {
    const why = `read-only compatible features 0x${unknown.toString(16)} ` +
      `are not known; mount it with "ro"`;
    return mountError(-EINVAL, why);
  }
  return null;
}

/** Kernel: `xfs_mountfs`. */
function mountFs(mp: XfsMount): MaybePromise<SuperBlock | MountError> {
  mp.blockgcFlushAll = () => freeAllBlockgc(mp);
  const log = checkLog(mp);
  if (log !== null) return log;
  computeMaxlevels(mp);
  const { sb } = mp;
  const header = sb.sectsize / 512;
  let next = 0;
  // The groups' headers: AGF and AGI, one read each.
  const ahead = repeat(() => {
    if (next === 2 * sb.agcount) return false;
    const daddr = sb.agHeaderDaddr(Math.floor(next / 2), 1 + next % 2);
    next++;
    return andThen(mp.targ.readAhead(daddr, header), () => true);
  });
  return andThen(ahead, () => {
    const error = initCounters(mp);
    if (error < 0) return mountError(error, mp.complaint || errnoName(error));
    return mountRoot(mp);
  });
}

const rawOps: XfsBufOps = {
  name: "xfs_log",
  crcOffset: -1,
  verify: () => null,
};

/** A log that holds changes would have to be replayed. */
function checkLog(mp: XfsMount): MountError | null {
  const { sb, targ } = mp;
  const start = sb.fsbToDaddr(sb.logstart);
  const sector = sb.sectsize / 512;
  const read: LogRead = (bb, count) => {
    // The device reads whole sectors.
    const from = bb - bb % sector;
    const blocks = Math.ceil((bb + count - from) / sector) * sector;
    const bp = targ.read(start + from, blocks, rawOps);
    if (typeof bp === "number") return bp;
    targ.markStale(bp);
    return bp.data.subarray((bb - from) * 512, (bb - from + count) * 512);
  };
  const head = xlogFindHead(sb.logblocks * sb.bbPerBlock, read);
  if (typeof head === "number") return mountError(head, "its log");
  if (typeof head === "string") {
    return mountError(-EFSCORRUPTED, `log: ${head}`);
  }
  if (head.clean) return null;
  return mountError(-EFSCORRUPTED, "its log holds changes to be replayed");
}

function computeMaxlevels(mp: XfsMount): void {
  xfsAllocComputeMaxlevels(mp);
  mp.maxlevels.bmapData = xfsBmapComputeMaxlevels(mp, XFS_DATA_FORK);
  mp.maxlevels.bmapAttr = xfsBmapComputeMaxlevels(mp, XFS_ATTR_FORK);
  xfsIallocComputeMaxlevels(mp);
  xfsRmapbtComputeMaxlevels(mp);
  xfsRefcountbtComputeMaxlevels(mp);
  mp.awuMax = xfsCalcAtomicWriteUnitMax(mp);
}

/** Counts what the groups hold: what the super block says is only a summary (kernel:
 * `xfs_initialize_perag_data`). */
function initCounters(mp: XfsMount): number {
  let free = 0;
  let icount = 0;
  let ifree = 0;
  for (const pag of mp.perags) {
    const agf = xfsAllocReadAgf(pag, null);
    if (typeof agf === "number") return agf;
    const agi = xfsIallocReadAgi(pag, null);
    if (typeof agi === "number") return agi;
    free += pag.pagfFreeblks + pag.pagfFlcount + pag.pagfBtreeblks;
    icount += pag.pagiCount;
    ifree += pag.pagiFreecount;
  }
  mp.sb.fdblocks = free;
  mp.sb.icount = icount;
  mp.sb.ifree = ifree;
  mp.fdblocks = free;
  mp.allocSetAside = xfsAllocSetAside(mp);
  mp.agMaxUsable = xfsAllocAgMaxUsable(mp);
  if (mp.readOnly) return 0;
  mp.reserveBlocks();
  for (const pag of mp.perags) {
    const error = xfsAgResvInit(pag, null);
    // It has been said; the file system may run out of space.
    if (error < 0 && error !== -ENOSPC) return error;
  }
  return 0;
}

/** Kernel: the last part of `xfs_mountfs`. */
function mountRoot(mp: XfsMount): MaybePromise<SuperBlock | MountError> {
  return andThen(xfsIget(mp, mp.sb.rootino), (root) => {
    if (typeof root === "number") {
      return mountError(root, mp.complaint || "the root cannot be read");
    }
    if ((root.mode & S_IFMT) !== S_IFDIR) {
      return mountError(-EFSCORRUPTED, "the root is no directory");
    }
    const error = mp.readOnly ? 0 : xfsReflinkRecoverCow(mp);
    if (error < 0) return mountError(error, mp.complaint || errnoName(error));
    mp.root = root;
    return mp;
  });
}

/**
 * Writes the super block, after everything that was written before (kernel:
 * `xfs_sync_sb`).
 *
 * @param clean What it says is all on the device: the image can be mounted.
 * @returns 0 or a negative errno.
 */
function writeSuper(mp: XfsMount, clean: boolean): MaybePromise<number> {
  if (mp.dead) return -EIO;
  const { sb } = mp;
  const flags = sb.featuresIncompat;
  if (!clean) sb.featuresIncompat |= XFS_SB_FEAT_INCOMPAT_NEEDSREPAIR;
  const block = encodeSb(sb);
  sb.featuresIncompat = flags;
  const opf = REQ_OP_WRITE | REQ_META | REQ_SYNC | REQ_PREFLUSH | REQ_FUA;
  const bio = new Bio(mp.bdev, opf);
  bio.addData(block, 0, block.length);
  return andThen(submitBioWait(bio), (error) => {
    if (error === 0) mp.markedInUse = !clean;
    return error;
  });
}

/** Writes all metadata that has changed (kernel: `xfs_ail_push_all_sync`). */
function pushAll(mp: XfsMount): MaybePromise<number> {
  let error = 0;
  for (const ip of [...mp.dirtyXfsInodes]) error ||= flushInode(ip);
  if (error < 0) return error;
  if (!mp.targ.hasDirty) return 0;
  const marked = mp.markedInUse ? 0 : writeSuper(mp, false);
  return andThen(marked, (failed) => failed < 0 ? failed : mp.targ.flush());
}

/**
 * Makes durable what an inode, or anything, has committed (kernel: `xfs_log_force`).
 *
 * @returns 0 or a negative errno.
 */
export function logForce(ip: XfsInode): MaybePromise<number> {
  const { mount } = ip;
  const logged = ip.mapLogged;
  // What is logged while the flush goes on waits for the next one.
  ip.mapLogged = false;
  return andThen(blkdevIssueFlush(mount.bdev), (error) => {
    if (error === 0) xfsExtentBusyClearAll(mount);
    else if (logged) ip.mapLogged = true;
    return error;
  });
}

/** Kernel: `xfs_fs_sync_fs`. */
function syncFs(sb: SuperBlock): MaybePromise<number> {
  const mp = sb as XfsMount;
  if (mp.readOnly) return 0;
  return andThen(pushAll(mp), (error) => {
    if (error < 0 || mp.dead) return error || -EIO;
    return andThen(blkdevIssueFlush(mp.bdev), (failed) => {
      if (failed < 0) return failed;
      for (const inode of mp.inodes.values()) {
        const ip = inode as XfsInode;
        if (ip.ilogged === 0) ip.mapLogged = false;
      }
      xfsExtentBusyClearAll(mp);
      return 0;
    });
  });
}

/** Leaves an image that can be mounted: all metadata, then the super block (kernel:
 * `xfs_unmountfs`). All inodes have left memory. */
function putSuper(sb: SuperBlock): MaybePromise<number> {
  const mp = sb as XfsMount;
  if (mp.evictError < 0) return mp.evictError;
  if (mp.readOnly) return 0;
  xfsExtentBusyClearAll(mp);
  for (const pag of mp.perags) xfsAgResvFree(pag);
  return andThen(pushAll(mp), (error) => {
    if (error < 0 || !mp.markedInUse) return error;
    return writeSuper(mp, true);
  });
}

/** Kernel: `xfs_fs_statfs`. */
function statfs(sb: SuperBlock): StatFs {
  const mp = sb as XfsMount;
  const { blocksize, dblocks, logblocks, inopblock, maxicount } = mp.sb;
  const blocksFree = Math.max(
    0,
    mp.fdblocks - mp.allocSetAside - mp.allocbtBlks,
  );
  const fakeInos = blocksFree * inopblock;
  let files = mp.sb.icount + fakeInos;
  if (maxicount > 0) files = Math.min(files, maxicount);
  files = Math.max(files, mp.sb.icount);
  return {
    blockSize: blocksize,
    blocks: dblocks - logblocks,
    blocksFree,
    files,
    filesFree: Math.max(0, files - (mp.sb.icount - mp.sb.ifree)),
  };
}

/** Methods of a mounted file system (kernel: `xfs_super_operations`). */
const superOps: SuperOperations = {
  evictInode: (inode) =>
    andThen(xfsInactive(inode as XfsInode), (error) => {
      const mp = inode.sb as XfsMount;
      mp.evictError ||= error;
    }),
  dirtyInode: (inode) => {
    (inode.sb as XfsMount).dirtyXfsInodes.add(inode as XfsInode);
  },
  syncFs,
  putSuper,
  shutdown: (sb) => {
    (sb as XfsMount).targ.dead = true;
  },
  statfs,
};

/** The XFS-like file system, for `mount` (kernel: `xfs_fs_type`). */
export const xfs: FileSystemType = { name: "xfs", mount: fillSuper };
