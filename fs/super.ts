/**
 * Mounting and unmounting.
 *
 * Kernel counterpart: fs/super.c, fs/statfs.c.
 *
 * @module
 */

import type { BlockDevice, BlockHolder } from "../block/blkdev.ts";
import { warnOn } from "../lib/bug.ts";
import { EBUSY, EIO } from "../lib/errno.ts";
import { andThen, type MaybePromise, repeat } from "../lib/maybe-promise.ts";
import { wbShutdown } from "../mm/backing-dev.ts";
import type { Mm } from "../mm/mm.ts";
import { Dcache } from "./dcache.ts";
import { type FileSystemType, type MountError, SuperBlock } from "./fs.ts";
import { evict } from "./inode.ts";
import { syncFilesystem } from "./sync.ts";

/**
 * Takes a device for oneself alone (kernel: `bd_prepare_to_claim`).
 *
 * @param holder Told if the device goes: then it has no claim any more.
 * @returns False if it is mounted, or being made or mounted just now.
 */
export function claimDevice(bdev: BlockDevice, holder: BlockHolder): boolean {
  if (bdev.holder !== null) return false;
  bdev.holder = holder;
  return true;
}

/** Gives back what {@linkcode claimDevice} took, unless it is somebody else's by now
 * (kernel: `bd_release`). */
export function releaseDevice(bdev: BlockDevice, holder: BlockHolder): void {
  if (bdev.holder === holder) bdev.holder = null;
}

/** The claim of a mount (kernel: `fs_holder_ops`). */
export class MountClaim implements BlockHolder {
  /** The file system, once there is one. */
  sb: SuperBlock | null = null;
  /** Whether the device has gone. */
  dead = false;

  /** Kernel: `fs_bdev_mark_dead`. */
  markDead(): void {
    this.dead = true;
    const { sb } = this;
    if (sb === null) return;
    sb.dead = true;
    sb.ops.shutdown?.(sb);
  }
}

/**
 * Mounts a device (kernel: `get_tree_bdev`).
 *
 * @returns The file system, or why it cannot be mounted: -EBUSY if it is mounted
 *   already, else the file system's reason.
 */
export function vfsMount(
  type: FileSystemType,
  bdev: BlockDevice,
  mm: Mm,
  options: string,
): MaybePromise<SuperBlock | MountError> {
  const claim = new MountClaim();
  if (!claimDevice(bdev, claim)) {
    return { errno: -EBUSY, message: `${bdev.name} is in use` };
  }
  return andThen(type.mount(bdev, mm, options), (sb) => {
    if (!(sb instanceof SuperBlock)) {
      releaseDevice(bdev, claim);
      return sb;
    }
    sb.dcache = new Dcache(sb);
    sb.claim = claim;
    claim.sb = sb;
    if (claim.dead) claim.markDead();
    return sb;
  });
}

/**
 * Unmounts (kernel: `generic_shutdown_super`): everything is written, then nothing
 * is in memory any more. The caller has seen to it that no file is open and that no
 * call is going on.
 *
 * @returns 0, or the first error. The file system is unmounted all the same. If it has
 *   shut down, nothing is written: -EIO, or 0 if that was because its device has gone.
 */
export function vfsUnmount(sb: SuperBlock): MaybePromise<number> {
  let first = 0;
  const gone = () => sb.claim instanceof MountClaim && sb.claim.dead;
  const note = (error: number) => {
    if (first === 0 && error < 0) first = error;
  };
  const dropped = andThen(waitForWork(sb), () => {
    sb.dcache.dropAll();
    return waitForWork(sb);
  });
  const synced = andThen(dropped, () => syncFilesystem(sb));
  const evicted = andThen(synced, (error) => {
    note(error);
    return evictInodes(sb);
  });
  const settled = andThen(evicted, () => waitForWork(sb));
  const put = andThen(settled, () => sb.dead ? -EIO : sb.ops.putSuper(sb));
  return andThen(put, (error) => {
    note(error);
    wbShutdown(sb.wb);
    releaseDevice(sb.bdev, sb.claim);
    return gone() ? 0 : first;
  });
}

/** What was left running may leave more behind. */
function waitForWork(sb: SuperBlock): MaybePromise<void> {
  const again = () => sb.pendingWork.size > 0;
  return repeat(() =>
    again() ? Promise.allSettled(sb.pendingWork).then(again) : false
  );
}

/** Kernel: `evict_inodes`. */
function evictInodes(sb: SuperBlock): MaybePromise<void> {
  const inodes = [...sb.inodes.values()];
  let next = 0;
  return repeat(() => {
    if (next === inodes.length) return false;
    const inode = inodes[next++]!;
    warnOn(
      inode.refcount > 0 && inode !== sb.root,
      `inode ${inode.ino} is in use after unmount of ${sb.id}`,
    );
    return andThen(evict(inode), () => true);
  });
}
