/**
 * Mounting, syncing and unmounting.
 *
 * A log that the kernel has left is recovered, but none is written yet: while anything
 * may be written, the super block says that the image needs repair, so that one that
 * was not unmounted is refused here and by the kernel.
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
import { EFSCORRUPTED, EINVAL, EIO, ENOSPC, ENOSYS } from "../../lib/errno.ts";
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
import {
  flushInode,
  freeAllBlockgc,
  mayEvict,
  xfsIget,
  xfsInactive,
} from "./icache.ts";
import { trackWork } from "../inode.ts";
import type { XfsInode } from "./inode.ts";
import { xfsAllocReadAgf, xfsIallocReadAgi } from "./libxfs/ag.ts";
import { xfsAgResvFree, xfsAgResvInit } from "./libxfs/ag-resv.ts";
import { xfsAllocAgMaxUsable, xfsAllocSetAside } from "./libxfs/alloc.ts";
import { xfsExtentBusyClearAll } from "./libxfs/extent-busy.ts";
import {
  XFS_SB_FEAT_INCOMPAT_NEEDSREPAIR,
  XFS_SB_FEAT_RO_COMPAT_ALL,
} from "./libxfs/format.ts";
import { XLOG_BIG_RECORD_BSIZE } from "./libxfs/log-format.ts";
import { xfsLogCalcMinimumSize } from "./libxfs/log-rlimit.ts";
import { decodeSb, encodeSb, type XfsSb } from "./libxfs/sb.ts";
import {
  xlogRecoverProcessIntents,
  xlogRecoverProcessIunlinks,
} from "./log-finish.ts";
import { xlogClean, xlogRecover, type XlogRecovered } from "./log-recover.ts";
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
    else if (option === "norecovery") options.norecovery = true;
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
  if (options.norecovery === true && !options.readOnly) {
    return mountError(-EINVAL, "no-recovery mounts must be read-only");
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
  return andThen(readMount(bdev, mm, options), (mp) => {
    if ("errno" in mp) return mp;
    if (options.norecovery === true) return mountFs(mp, null);
    return andThen(xlogRecover(mp), (recovered) => {
      if (typeof recovered === "number") {
        return mountError(recovered, mp.complaint || "its log cannot be read");
      }
      if (recovered === null) return mountFs(mp, null);
      // The super block may have been in the log.
      return andThen(
        readMount(bdev, mm, options),
        (fresh) => "errno" in fresh ? fresh : mountFs(fresh, recovered),
      );
    });
  });
}

/** A mount that knows what the super block says (kernel: `xfs_readsb`). */
function readMount(
  bdev: BlockDevice,
  mm: Mm,
  options: XfsMountOptions,
): MaybePromise<XfsMount | MountError> {
  const bio = new Bio(bdev, REQ_OP_READ | REQ_META | REQ_SYNC);
  const data = new Uint8Array(Math.min(SB_READ, bdev.nrSectors * 512));
  bio.addData(data, 0, data.length);
  return andThen(submitBioWait(bio), (error) => {
    if (error < 0) return mountError(error, "the super block cannot be read");
    const sb = decodeSb(data);
    if ("reason" in sb) return mountError(sb.errno, sb.reason);
    const refused = checkSb(bdev, sb, options);
    return refused ?? new XfsMount(bdev, mm, superOps, sb, options);
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
    // The kernel tries to read the last one.
    const why = `${sb.dblocks} blocks do not fit on a device of ${have}`;
    return mountError(-EIO, why);
  }
  if (sb.logstart === 0) {
    return mountError(-EINVAL, "its log is on another device");
  }
  const log = sb.verifyFsbext(sb.logstart, sb.logblocks);
  if (!log) {
    const where = `${sb.logstart}+${sb.logblocks}`;
    return mountError(-EFSCORRUPTED, `log at ${where}`);
  }
  const least = xfsLogCalcMinimumSize(sb, XLOG_BIG_RECORD_BSIZE);
  if (sb.logblocks < least) {
    const why = `log of ${sb.logblocks} blocks is too small; the least is ` +
      `${least}`;
    return mountError(-EINVAL, why);
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

/** Kernel: `xfs_mountfs`.
 * @param recovered What the log has left to be done; null if it was clean. */
function mountFs(
  mp: XfsMount,
  recovered: XlogRecovered | null,
): MaybePromise<SuperBlock | MountError> {
  mp.blockgcFlushAll = () => freeAllBlockgc(mp);
  mp.pushAil = () => pushSoon(mp);
  const { readOnly } = mp;
  // What the log has left is done even if nothing is to be changed later.
  if (recovered !== null) mp.readOnly = false;
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
    if (error < 0) {
      const why = mp.complaint || "the header of a group cannot be read";
      return mountError(error, why);
    }
    return mountRoot(mp, recovered, readOnly);
  });
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
function mountRoot(
  mp: XfsMount,
  recovered: XlogRecovered | null,
  readOnly: boolean,
): MaybePromise<SuperBlock | MountError> {
  return andThen(xfsIget(mp, mp.sb.rootino), (root) => {
    if (typeof root === "number") {
      return mountError(root, mp.complaint || "the root cannot be read");
    }
    if ((root.mode & S_IFMT) !== S_IFDIR) {
      return mountError(-EFSCORRUPTED, "the root is no directory");
    }
    mp.root = root;
    return andThen(finishMount(mp, recovered), (error) => {
      mp.readOnly = readOnly;
      if (error === 0) return mp;
      const why = mp.complaint || "what the log has left cannot be done";
      return mountError(error, why);
    });
  });
}

/** Does what the last mount has left undone (kernel: `xfs_log_mount_finish`,
 * `xfs_reflink_recover_cow`).
 * @returns 0 or a negative errno. */
function finishMount(
  mp: XfsMount,
  recovered: XlogRecovered | null,
): MaybePromise<number> {
  if (mp.readOnly) return 0;
  const intents = recovered?.intents ?? [];
  return andThen(xlogRecoverProcessIntents(mp, intents), (failed) => {
    if (failed < 0) return failed;
    return andThen(xlogRecoverProcessIunlinks(mp), (error) => {
      if (error < 0) return error;
      const cow = xfsReflinkRecoverCow(mp);
      return cow < 0 || recovered === null ? cow : finishLog(mp, recovered);
    });
  });
}

/** Brings to the device what recovery has done, and empties the log. */
function finishLog(
  mp: XfsMount,
  recovered: XlogRecovered,
): MaybePromise<number> {
  return andThen(pushAll(mp), (error) => {
    if (error < 0) return error;
    // The log can be replayed again as long as nothing was done that it does not hold;
    // else the super block refuses that until the log is empty.
    const inUse = mp.markedInUse;
    const before = inUse ? 0 : writeSuper(mp, true);
    return andThen(before, (failed) => {
      if (failed < 0) return failed;
      return andThen(xlogClean(mp, recovered), (cleaned) => {
        if (cleaned < 0 || !inUse) return cleaned;
        return writeSuper(mp, true);
      });
    });
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

/** Starts writing metadata as soon as whoever runs has to wait, or is done (kernel:
 * `xfsaild`). What fails is left to the next sync, which says so. */
function pushSoon(mp: XfsMount): void {
  if (mp.pushing) return;
  mp.pushing = true;
  const pushed = Promise.resolve().then(() => pushAll(mp));
  trackWork(mp, pushed.then((error) => mp.pushing = error < 0));
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
      mp.pushing = false;
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
  mayEvict: (inode) => mayEvict(inode as XfsInode),
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
