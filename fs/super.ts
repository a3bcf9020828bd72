/**
 * Mounting and unmounting.
 *
 * Kernel counterpart: fs/super.c, fs/statfs.c.
 *
 * @module
 */

import type { BlockDevice } from "../block/blkdev.ts";
import { warnOn } from "../lib/bug.ts";
import { EBUSY } from "../lib/errno.ts";
import { andThen, type MaybePromise, repeat } from "../lib/maybe-promise.ts";
import type { Mm } from "../mm/mm.ts";
import { Dcache } from "./dcache.ts";
import { type FileSystemType, type MountError, SuperBlock } from "./fs.ts";
import { evict } from "./inode.ts";
import { syncFilesystem } from "./sync.ts";

/** Devices that hold a mounted file system, or are about to. */
const claimed = new WeakSet<BlockDevice>();

/**
 * Takes a device for oneself alone (kernel: `bd_prepare_to_claim`).
 *
 * @returns False if it is mounted, or being made or mounted just now.
 */
export function claimDevice(bdev: BlockDevice): boolean {
  if (claimed.has(bdev)) return false;
  claimed.add(bdev);
  return true;
}

/** Gives back what {@linkcode claimDevice} took (kernel: `bd_release`). */
export function releaseDevice(bdev: BlockDevice): void {
  claimed.delete(bdev);
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
  if (!claimDevice(bdev)) {
    return { errno: -EBUSY, message: `${bdev.name} is in use` };
  }
  return andThen(type.mount(bdev, mm, options), (sb) => {
    if (sb instanceof SuperBlock) sb.dcache = new Dcache(sb);
    else releaseDevice(bdev);
    return sb;
  });
}

/**
 * Unmounts (kernel: `generic_shutdown_super`): everything is written, then nothing
 * is in memory any more. The caller has seen to it that no file is open and that no
 * call is going on.
 *
 * @returns 0, or the first error. The file system is unmounted all the same.
 */
export function vfsUnmount(sb: SuperBlock): MaybePromise<number> {
  let first = 0;
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
  const put = andThen(evicted, () => sb.ops.putSuper(sb));
  return andThen(put, (error) => {
    note(error);
    releaseDevice(sb.bdev);
    return first;
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
