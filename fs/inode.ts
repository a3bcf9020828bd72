/**
 * The inode cache, and what is common to all inodes: references, locks, direct
 * I/O counts, timestamps.
 *
 * An inode that has a name stays in the cache for a while after its last reference
 * went; one without names, and at unmount every one, leaves at once.
 *
 * Kernel counterpart: fs/inode.c, fs/direct-io.c (`inode_dio_*`).
 *
 * @module
 */

/*
 * Lock order, outermost first:
 *
 *   sb.renameMutex              rename between directories
 *     directory rwsem           ancestor before descendant
 *       inode.rwsem             of what is unlinked, linked, replaced; read, write
 *         mapping.invalidateLock
 *           folio lock
 *             the file system's mapping lock
 */

import { EAGAIN } from "../lib/errno.ts";
import { bugOn } from "../lib/bug.ts";
import { MSEC } from "../lib/clock.ts";
import type { MaybePromise } from "../lib/maybe-promise.ts";
import type { Rwsem } from "../lib/locks.ts";
import { truncatePagecacheRange } from "../mm/truncate.ts";
import {
  type Iattr,
  type Inode,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
  type SuperBlock,
} from "./fs.ts";
import { IOCB_NOWAIT, IOCB_SYNC_CALL, type Kiocb } from "./kiocb.ts";

/** Timestamps move on in steps of a kernel tick (`CONFIG_HZ=250`), nanoseconds. */
const TICK = 4 * MSEC;
/** Inodes that nobody uses that stay in memory; more, if they cannot leave. */
const UNUSED_MAX = 1024;
/** Of these, how many are looked at when another one comes. */
const UNUSED_SCAN = 4;
/** relatime: an access time older than this is renewed, nanoseconds. */
const DAY = 86_400_000 * MSEC;

/** Whether it is a directory (kernel: `S_ISDIR`). */
export function isDir(inode: Inode): boolean {
  return (inode.mode & S_IFMT) === S_IFDIR;
}

/** Whether it is a regular file (kernel: `S_ISREG`). */
export function isReg(inode: Inode): boolean {
  return (inode.mode & S_IFMT) === S_IFREG;
}

/**
 * Finds a cached inode (kernel: `ilookup`).
 *
 * @returns It with a reference for the caller, or null: then the file system
 *   makes one and hands it to {@linkcode insertInode}.
 */
export function iget(sb: SuperBlock, ino: number): Inode | null {
  const inode = sb.inodes.get(ino);
  if (inode === undefined) return null;
  if (inode.refcount++ === 0) sb.unusedInodes.delete(inode);
  return inode;
}

/** Puts a new inode into the cache, with a reference for the caller (kernel:
 * `insert_inode_hash`). */
export function insertInode(inode: Inode): void {
  const inodes = inode.sb.inodes;
  bugOn(inodes.has(inode.ino), `inode ${inode.ino} is in the cache already`);
  inodes.set(inode.ino, inode);
  inode.refcount++;
}

/** Takes a further reference (kernel: `ihold`). */
export function ihold(inode: Inode): void {
  inode.refcount++;
}

/**
 * Gives a reference back. The last one of an inode without names evicts it; another is
 * kept for a while (kernel: `iput`).
 *
 * The caller holds no lock of the inode.
 *
 * @returns When it has been evicted. Nobody needs to wait for it: unmount does.
 */
export function iput(inode: Inode): MaybePromise<void> {
  bugOn(inode.refcount <= 0, `iput() of inode ${inode.ino} without reference`);
  if (--inode.refcount > 0) return;
  if (inode.nlink === 0) return trackWork(inode.sb, evict(inode));
  if (inode.sb.ops.mayEvict !== undefined) keepUnused(inode);
}

/** Keeps an inode that nobody uses, in place of one that has long been unused (kernel:
 * `inode_lru_list_add`, `prune_icache_sb`). */
function keepUnused(inode: Inode): void {
  const { unusedInodes } = inode.sb;
  unusedInodes.add(inode);
  let scan = UNUSED_SCAN;
  for (const oldest of unusedInodes) {
    if (unusedInodes.size <= UNUSED_MAX || scan-- === 0) return;
    unusedInodes.delete(oldest);
    if (isIdle(oldest)) trackWork(oldest.sb, evict(oldest));
    else unusedInodes.add(oldest);
  }
}

/** Whether nothing of an inode would be lost, nor anybody disturbed. */
function isIdle(inode: Inode): boolean {
  const { dioCount, mapping, rwsem, sb } = inode;
  if (mapping.nrPages > 0 || dioCount > 0 || rwsem.isLocked) return false;
  return !mapping.invalidateLock.isLocked && sb.ops.mayEvict!(inode);
}

/**
 * Takes an inode out of memory: cache, pages and the file system's part (kernel:
 * `evict`). Its dirty pages are lost; whoever wants them has written them.
 */
export function evict(inode: Inode): MaybePromise<void> {
  const { sb } = inode;
  sb.inodes.delete(inode.ino);
  sb.unusedInodes.delete(inode);
  sb.dirtyInodes.delete(inode);
  const dropped = truncatePagecacheRange(inode.mapping, 0, Infinity);
  return dropped instanceof Promise
    ? dropped.then(() => sb.ops.evictInode(inode))
    : sb.ops.evictInode(inode);
}

/** Has unmount wait for work that is going on.
 * @returns `work`. */
export function trackWork<T>(
  sb: SuperBlock,
  work: MaybePromise<T>,
): MaybePromise<T> {
  if (work instanceof Promise) {
    const done = () => sb.pendingWork.delete(work);
    sb.pendingWork.add(work);
    work.then(done, done);
  }
  return work;
}

/** The inode has attributes to write (kernel: `mark_inode_dirty`). */
export function markInodeDirty(inode: Inode): void {
  inode.dirtied++;
  inode.sb.dirtyInodes.add(inode);
  inode.sb.ops.dirtyInode?.(inode);
}

/**
 * Takes the inode's rwsem (kernel: `inode_lock`, `inode_lock_shared`).
 *
 * @returns 0, or -EAGAIN in a synchronous call where somebody holds it, as only
 *   another task could give it back.
 */
export function inodeLock(
  inode: Inode,
  exclusive: boolean,
): MaybePromise<number> {
  const { rwsem } = inode;
  if (inode.sb.bdev.clock.inSync) return tryLock(rwsem, exclusive);
  const waited = exclusive ? rwsem.downWrite() : rwsem.downRead();
  return waited instanceof Promise ? waited.then(zero) : 0;
}

/**
 * Takes the rwsem for a read or write call (kernel: `xfs_ilock_iocb`).
 *
 * @returns 0, or -EAGAIN if it is held and the call must not wait
 *   (`IOCB_NOWAIT`) or is synchronous (`IOCB_SYNC_CALL`).
 */
export function inodeLockIocb(
  iocb: Kiocb,
  exclusive: boolean,
): MaybePromise<number> {
  const { rwsem } = iocb.file.inode;
  if ((iocb.flags & (IOCB_NOWAIT | IOCB_SYNC_CALL)) !== 0) {
    return tryLock(rwsem, exclusive);
  }
  const waited = exclusive ? rwsem.downWrite() : rwsem.downRead();
  return waited instanceof Promise ? waited.then(zero) : 0;
}

function tryLock(rwsem: Rwsem, exclusive: boolean): number {
  const taken = exclusive ? rwsem.tryDownWrite() : rwsem.tryDownRead();
  return taken ? 0 : -EAGAIN;
}

/** Gives back what {@linkcode inodeLock} or {@linkcode inodeLockIocb} took. */
export function inodeUnlock(inode: Inode, exclusive: boolean): void {
  if (exclusive) inode.rwsem.upWrite();
  else inode.rwsem.upRead();
}

function zero(): number {
  return 0;
}

/** Direct I/O starts: before any mapping is made (kernel: `inode_dio_begin`). */
export function inodeDioBegin(inode: Inode): void {
  inode.dioCount++;
}

/** Direct I/O has ended (kernel: `inode_dio_end`). */
export function inodeDioEnd(inode: Inode): void {
  if (--inode.dioCount === 0) inode.dioWait.wakeAll();
}

/** Waits for direct I/O in flight. The caller holds the rwsem exclusively, so
 * that no more of it starts (kernel: `inode_dio_wait`). */
export function inodeDioWait(inode: Inode): MaybePromise<void> {
  if (inode.dioCount === 0) return;
  return inode.dioWait.wait(inode.sb.bdev.clock, () => inode.dioCount === 0);
}

/** Time for stamps: that of the last tick, in units of `sb.timeGran` (kernel:
 * `current_time`). Nanoseconds since 1970. */
export function currentTime(sb: SuperBlock): number {
  const step = Math.max(TICK, sb.timeGran);
  return Math.floor(sb.bdev.clock.realtime() / step) * step;
}

/**
 * A write is about to change the file: mtime and ctime become now (kernel:
 * `kiocb_modified`).
 *
 * @returns 0, or -EAGAIN if a stamp would change and the call must not wait.
 */
export function kiocbModified(iocb: Kiocb): number {
  const { inode } = iocb.file;
  const now = currentTime(inode.sb);
  if (inode.mtime === now && inode.ctime === now) return 0;
  if ((iocb.flags & IOCB_NOWAIT) !== 0) return -EAGAIN;
  setModified(inode, now);
  return 0;
}

/** Takes attributes over but the size, which is not the inode's alone; ctime becomes
 * now (kernel: `setattr_copy`). */
export function setattrCopy(inode: Inode, attr: Iattr): void {
  const { mode, uid, gid, atime, mtime } = attr;
  if (mode !== undefined) inode.mode = inode.mode & S_IFMT | mode & ~S_IFMT;
  if (uid !== undefined) inode.uid = uid;
  if (gid !== undefined) inode.gid = gid;
  if (atime !== undefined) inode.atime = atime;
  if (mtime !== undefined) inode.mtime = mtime;
  inode.ctime = currentTime(inode.sb);
  markInodeDirty(inode);
}

/** A mapping of the file is about to be stored to: mtime and ctime become now (kernel:
 * `file_update_time`). */
export function fileUpdateTime(inode: Inode): void {
  const now = currentTime(inode.sb);
  if (inode.mtime !== now || inode.ctime !== now) setModified(inode, now);
}

function setModified(inode: Inode, now: number): void {
  inode.mtime = now;
  inode.ctime = now;
  markInodeDirty(inode);
}

/** A read happened: atime becomes now if it is older than the last change or than
 * a day (kernel: `file_accessed` with relatime). */
export function fileAccessed(inode: Inode): void {
  const { atime } = inode;
  const now = currentTime(inode.sb);
  if (atime > inode.mtime && atime > inode.ctime && now - atime < DAY) return;
  if (atime === now || inode.sb.readOnly) return;
  inode.atime = now;
  markInodeDirty(inode);
}
