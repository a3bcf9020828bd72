/**
 * A file system in memory for tests of the VFS: names and bytes, no device, and no
 * page cache on its data path. Its hooks make calls wait, fail or complete later.
 *
 * @module
 */

import type { Bio } from "../../block/bio.ts";
import { BlockDevice, type QueueLimits } from "../../block/blkdev.ts";
import {
  type DirEntry,
  type File,
  type FileOperations,
  type FileSystemType,
  FMODE_BUF_WASYNC,
  FMODE_CAN_ODIRECT,
  FMODE_DONTCACHE,
  FMODE_NOWAIT,
  type Iattr,
  Inode,
  type InodeOperations,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
  SuperBlock,
} from "../../fs/fs.ts";
import {
  fileAccessed,
  iget,
  inodeLockIocb,
  inodeUnlock,
  insertInode,
  kiocbModified,
} from "../../fs/inode.ts";
import type { Kiocb } from "../../fs/kiocb.ts";
import { type Mount, mount, type MountOptions } from "../../fs/mount.ts";
import { genericWriteChecks } from "../../fs/read-write.ts";
import { genericWriteSync } from "../../fs/sync.ts";
import { type Clock, VirtualClock } from "../../lib/clock.ts";
import { EEXIST, EINVAL, ENOENT, ENOTEMPTY } from "../../lib/errno.ts";
import type { IovIter } from "../../lib/iov-iter.ts";
import { andThen, type MaybePromise } from "../../lib/maybe-promise.ts";
import type { AddressSpaceOperations } from "../../mm/address-space.ts";
import { filemapDirtyFolio } from "../../mm/filemap.ts";
import { folioEndRead } from "../../mm/folio.ts";

/** A device that nothing reaches. */
export class NullDevice extends BlockDevice {
  override readonly name = "null0";
  override readonly clock: Clock;
  override readonly limits = {
    logicalBlockSize: 512,
    physicalBlockSize: 4096,
  } as QueueLimits;
  override readonly nrSectors = 2048;
  override readonly dev = { major: 259, minor: 0 };

  constructor(clock: Clock) {
    super();
    this.clock = clock;
  }

  override submit(_bio: Bio): void {
    throw new Error("a test reached the device");
  }
}

/** What a test wants to happen; each is asked at the start of the call. */
export interface RamHooks {
  /** Something other than the read or write to answer. */
  rw?: (iocb: Kiocb, iter: IovIter) => MaybePromise<number> | undefined;
  /** Before a lookup. */
  lookup?: (name: string) => Promise<void> | undefined;
  fsync?: (start: number, end: number, datasync: boolean) => number;
  fallocate?: (mode: number, offset: number, len: number) => number;
  release?: () => Promise<void> | undefined;
  syncFs?: () => MaybePromise<number>;
  /** FMODE_* that files support. */
  mode?: number;
}

class RamInode extends Inode {
  bytes = new Uint8Array(0);
  readonly names = new Map<string, Inode>();

  override get blocks(): number {
    return this.bytes.length / 512;
  }

  resize(size: number): void {
    if (size > this.bytes.length) {
      const grown = new Uint8Array(Math.ceil(size / 4096) * 4096);
      grown.set(this.bytes);
      this.bytes = grown;
    }
    this.bytes.fill(0, size);
    this.size = size;
  }
}

const aops: AddressSpaceOperations = {
  readFolio(folio) {
    folio.data.fill(0, folio.offset, folio.offset + folio.size);
    folioEndRead(folio, true);
    return 0;
  },
  readahead(rac) {
    for (let folio = rac.nextFolio(); folio; folio = rac.nextFolio()) {
      this.readFolio(folio);
    }
  },
  writepages: () => 0,
  dirtyFolio: filemapDirtyFolio,
  releaseFolio: () => true,
  invalidateFolio() {},
  isPartiallyUptodate: () => false,
};

/** The super block of one mount, with what the test looks at. */
export class RamSuper {
  readonly hooks: RamHooks;
  /** Inode numbers, in the order in which they were evicted. */
  readonly evicted: number[] = [];
  #nextIno = 128;

  constructor(hooks: RamHooks) {
    this.hooks = hooks;
  }

  newInode(sb: SuperBlock, mode: number): RamInode {
    const ino = this.#nextIno++;
    const inode = new RamInode(sb, ino, mode, this.#iop, this.#fop, aops);
    inode.nlink = (mode & S_IFMT) === S_IFDIR ? 2 : 1;
    insertInode(inode);
    return inode;
  }

  #add(dir: Inode, name: string, mode: number): Inode {
    const inode = this.newInode(dir.sb, mode);
    (dir as RamInode).names.set(name, inode);
    if ((mode & S_IFMT) === S_IFDIR) dir.nlink++;
    return inode;
  }

  #remove(dir: Inode, name: string, victim: Inode): number {
    const { names } = victim as RamInode;
    if (names.size > 0) return -ENOTEMPTY;
    (dir as RamInode).names.delete(name);
    const directory = (victim.mode & S_IFMT) === S_IFDIR;
    victim.nlink -= directory ? 2 : 1;
    if (directory) dir.nlink--;
    return 0;
  }

  readonly #iop: InodeOperations = {
    lookup: (dir, name) =>
      andThen(this.hooks.lookup?.(name), () => {
        const inode = (dir as RamInode).names.get(name);
        return inode ? iget(dir.sb, inode.ino)! : -ENOENT;
      }),
    create: (dir, name, mode) => this.#add(dir, name, S_IFREG | mode),
    mkdir: (dir, name, mode) => this.#add(dir, name, S_IFDIR | mode),
    link(target, dir, name) {
      (dir as RamInode).names.set(name, target);
      target.nlink++;
      return 0;
    },
    unlink: (dir, name, victim) => this.#remove(dir, name, victim),
    rmdir: (dir, name, victim) => this.#remove(dir, name, victim),
    rename: (oldDir, oldName, source, newDir, newName, victim) => {
      if (victim !== null) {
        const error = this.#remove(newDir, newName, victim);
        // As XFS answers it.
        if (error !== 0) return -EEXIST;
      }
      (oldDir as RamInode).names.delete(oldName);
      (newDir as RamInode).names.set(newName, source);
      if ((source.mode & S_IFMT) === S_IFDIR) {
        oldDir.nlink--;
        newDir.nlink++;
      }
      return 0;
    },
    setattr(inode: Inode, attr: Iattr) {
      if (attr.size !== undefined) (inode as RamInode).resize(attr.size);
      return 0;
    },
  };

  readonly #fop: FileOperations = {
    open: (_inode: Inode, file: File) => {
      file.mode |= this.hooks.mode ??
        FMODE_NOWAIT | FMODE_CAN_ODIRECT | FMODE_DONTCACHE | FMODE_BUF_WASYNC;
      return 0;
    },
    readIter: (iocb, iter) =>
      this.hooks.rw?.(iocb, iter) ??
        andThen(inodeLockIocb(iocb, false), (error) => {
          if (error < 0) return error;
          const n = read(iocb, iter);
          inodeUnlock(iocb.file.inode, false);
          return n;
        }),
    writeIter: (iocb, iter) =>
      this.hooks.rw?.(iocb, iter) ??
        andThen(inodeLockIocb(iocb, true), (error) => {
          if (error < 0) return error;
          const n = write(iocb, iter);
          inodeUnlock(iocb.file.inode, true);
          return n > 0 ? genericWriteSync(iocb, n) : n;
        }),
    fsync: (_file, start, end, datasync) =>
      this.hooks.fsync?.(start, end, datasync) ?? 0,
    fallocate: (_file, mode, offset, len) =>
      this.hooks.fallocate?.(mode, offset, len) ?? 0,
    iterate: (dir: Inode): DirEntry[] =>
      [...(dir as RamInode).names].map(([name, inode]) => ({
        name,
        ino: inode.ino,
        type: inode.mode & S_IFMT,
      })),
    release: () => this.hooks.release?.(),
  };

  /** The type that mounts it. */
  readonly type: FileSystemType = {
    name: "ramfs",
    mount: (bdev, mm, options) => {
      if (options !== "") {
        return { errno: -EINVAL, message: `there is no option "${options}"` };
      }
      const sb = new SuperBlock(bdev, mm, {
        evictInode: (inode) => {
          this.evicted.push(inode.ino);
        },
        syncFs: () => this.hooks.syncFs?.() ?? 0,
        putSuper: () => 0,
        statfs: () => ({
          blockSize: 4096,
          blocks: 100,
          blocksFree: 50,
          files: 10,
          filesFree: 5,
        }),
      });
      sb.maxBytes = 2 ** 40;
      sb.root = this.newInode(sb, S_IFDIR | 0o755);
      return sb;
    },
  };
}

function read(iocb: Kiocb, iter: IovIter): number {
  const inode = iocb.file.inode as RamInode;
  fileAccessed(inode);
  const n = Math.max(0, Math.min(iter.count, inode.size - iocb.pos));
  iter.copyTo(inode.bytes, iocb.pos, n);
  iocb.pos += n;
  return n;
}

function write(iocb: Kiocb, iter: IovIter): number {
  const inode = iocb.file.inode as RamInode;
  const n = genericWriteChecks(iocb, iter);
  if (n <= 0) return n;
  const error = kiocbModified(iocb);
  if (error < 0) return error;
  if (iocb.pos + n > inode.size) inode.resize(iocb.pos + n);
  iter.copyFrom(inode.bytes, iocb.pos, n);
  iocb.pos += n;
  return n;
}

/** A mounted one. */
export async function ramMount(
  hooks: RamHooks = {},
  options: MountOptions = {},
): Promise<
  { fs: Mount; ram: RamSuper; clock: VirtualClock; bdev: NullDevice }
> {
  const clock = new VirtualClock();
  const bdev = new NullDevice(clock);
  const ram = new RamSuper(hooks);
  return { fs: await mount(bdev, ram.type, options), ram, clock, bdev };
}

/** What a call throws: the code of its error, or "none". */
export function codeOf(call: () => unknown): string {
  try {
    call();
    return "none";
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

/** As {@linkcode codeOf}, of a promise. */
export async function codeOfAsync(call: () => unknown): Promise<string> {
  try {
    await call();
    return "none";
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}
