/**
 * The mounted file system that users hold.
 *
 * @module
 */

import type { BlockDevice } from "../block/blkdev.ts";
import type { Clock } from "../lib/clock.ts";
import { EBUSY, EINVAL, ENODEV, show } from "../lib/errno.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import { Mm } from "../mm/mm.ts";
import { FsFile } from "./fs-file.ts";
import {
  type DirEntry as VfsDirEntry,
  type FileSystemType,
  FMODE_READ,
  FMODE_WRITE,
  type Inode,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  S_IFDIR,
  S_IFLNK,
  S_IFREG,
  type StatFs,
  SuperBlock,
  XATTR_CREATE,
  XATTR_REPLACE,
} from "./fs.ts";
import { iput, isDir } from "./inode.ts";
import { IOCB_APPEND, IOCB_DIRECT, IOCB_DSYNC, IOCB_SYNC } from "./kiocb.ts";
import {
  type OpenHow,
  vfsLink,
  vfsLookup,
  vfsMkdir,
  vfsOpen,
  vfsReaddir,
  vfsReadlink,
  vfsRename,
  vfsRmdir,
  vfsSymlink,
  vfsUnlink,
} from "./namei.ts";
import { fileClose, vfsTruncate } from "./open.ts";
import { type FileInfo, vfsGetattr } from "./stat.ts";
import { vfsMount, vfsUnmount } from "./super.ts";
import {
  type ActiveSwapFile,
  type SwapFile,
  vfsSwapoff,
  vfsSwapon,
} from "./swap.ts";
import { vfsSyncfs } from "./sync.ts";
import {
  checkCount,
  checkFlag,
  checkMode,
  checkOffset,
  checkOptions,
  deviceCall,
  failure,
  orThrow,
  runSync,
  type Syscall,
} from "./syscall.ts";
import {
  importXattrName,
  setxattrCopy,
  vfsGetxattr,
  vfsListxattr,
  vfsSetxattr,
} from "./xattr.ts";

/** How to open a file: `Deno.OpenOptions`, and flags of open(2). */
export interface OpenOptions {
  /** Open for reading. */
  read?: boolean;
  /** Open for writing. */
  write?: boolean;
  /** Open for writing at the end of the file, wherever the position is. */
  append?: boolean;
  /** Empty the file. */
  truncate?: boolean;
  /** Make the file if it is absent. */
  create?: boolean;
  /** Make the file; EEXIST if it exists. */
  createNew?: boolean;
  /** Permission bits of a new file; 0o644 if absent. */
  mode?: number;
  /** Bypass the page cache (O_DIRECT). */
  direct?: boolean;
  /** Every write is durable, with attributes, when it returns (O_SYNC). */
  sync?: boolean;
  /** Every write is durable when it returns (O_DSYNC). */
  dsync?: boolean;
}

const OPEN_OPTIONS = [
  "read",
  "write",
  "append",
  "truncate",
  "create",
  "createNew",
  "mode",
  "direct",
  "sync",
  "dsync",
];

/** Options of {@linkcode Mount.mkdir}. */
export interface MkdirOptions {
  /** Permission bits; 0o755 if absent. */
  mode?: number;
}

/** Options of {@linkcode Mount.rename}. */
export interface RenameOptions {
  /** EEXIST rather than replace what the new path names (RENAME_NOREPLACE). */
  noReplace?: boolean;
  /** The two names change places (RENAME_EXCHANGE). */
  exchange?: boolean;
}

/** Options of {@linkcode Mount.setXattr}. */
export interface SetXattrOptions {
  /** EEXIST if there is such an attribute (XATTR_CREATE). */
  create?: boolean;
  /** ENODATA if there is none (XATTR_REPLACE). */
  replace?: boolean;
}

/** An entry of a directory, as `Deno.DirEntry`, with its inode number. */
export interface DirEntry extends Deno.DirEntry {
  /** Inode number. */
  ino: number;
}

/** Options of {@linkcode mount}. */
export interface MountOptions {
  /** The file system's own, as after `mount -o`. */
  options?: string;
  /** Most bytes of page cache, 4 KiB to 1 TiB; 1 GiB if absent. */
  memory?: number;
}

/** Least bytes of page cache: a page. */
const MIN_MEMORY = 4096;
/** Most: a number of pages that the allocator can count. */
const MAX_MEMORY = 2 ** 40;

/**
 * Mounts a device.
 *
 * @param device Holds a file system of the type; one mount at a time.
 * @param type The kind of file system, such as `xfs`.
 * @throws FsError EINVAL (not such a file system, or a mount option that does not
 *   exist; the message says which), EBUSY (mounted already), EUCLEAN (corrupt), EIO.
 */
export async function mount(
  device: BlockDevice,
  type: FileSystemType,
  options: MountOptions = {},
): Promise<Mount> {
  const call = deviceCall("mount", "mount", device);
  if (typeof type?.mount !== "function") {
    throw failure(call, EINVAL, `type ${show(type)} is not a file system type`);
  }
  checkOptions(call, options, ["options", "memory"]);
  const { options: text = "", memory } = options;
  if (typeof text !== "string") {
    throw failure(call, EINVAL, `options ${show(text)} are not a string`);
  }
  if (memory !== undefined) checkMemory(call, memory);
  const mm = new Mm(device.clock, memory === undefined ? {} : { memory });
  const sb = await vfsMount(type, device, mm, text);
  if (sb instanceof SuperBlock) return new Mount(sb);
  throw failure(call, sb.errno, sb.message);
}

/**
 * A mounted file system. Paths are absolute, with or without the first slash; every
 * method throws, or rejects with, an `FsError`. What all of them can meet: ENOENT,
 * ENOTDIR, ENAMETOOLONG (a name above 255 bytes), EINVAL (not a string, or a NUL in
 * it), EIO, and ENODEV once it is unmounted.
 *
 * The methods that end in `Sync` throw EAGAIN where they would have to wait for
 * another task.
 */
export class Mount implements AsyncDisposable {
  /** The kernel layers' view. */
  readonly superBlock: SuperBlock;
  readonly #clock: Clock;
  #mounted = true;
  /** Calls that wait for something. */
  #pending = 0;
  readonly #swaps: ActiveSwapFile[] = [];

  /** Use {@linkcode mount}. */
  constructor(superBlock: SuperBlock) {
    this.superBlock = superBlock;
    this.#clock = superBlock.bdev.clock;
  }

  /**
   * Opens a file; for reading if `options` are absent.
   *
   * @throws FsError EEXIST (`createNew`), EISDIR (a directory, to be written), EINVAL
   *   (neither read, write nor append; an option that does not exist; direct I/O that
   *   the file system does not support), ENOSPC, EROFS.
   */
  async open(
    path: string,
    options: OpenOptions = { read: true },
  ): Promise<FsFile> {
    return await this.#open(path, options);
  }

  /** {@linkcode Mount.open}, synchronously. */
  openSync(path: string, options: OpenOptions = { read: true }): FsFile {
    return this.#now(
      syscall("open", "open", path),
      () => this.#open(path, options),
      (file) => file.close(),
    );
  }

  #open(path: string, options: OpenOptions): MaybePromise<FsFile> {
    const call = syscall("open", "open", path);
    const sb = this.#enter(call, path);
    const opened = vfsOpen(sb, path, openHow(call, options));
    return this.#leave(
      opened,
      (file) => new FsFile(orThrow(call, file)),
    );
  }

  /** Makes a directory.
   * @throws FsError EEXIST, EMLINK, ENOSPC, EROFS. */
  async mkdir(path: string, options: MkdirOptions = {}): Promise<void> {
    await this.#mkdir(path, options);
  }

  /** {@linkcode Mount.mkdir}, synchronously. */
  mkdirSync(path: string, options: MkdirOptions = {}): void {
    const call = syscall("mkdir", "make", path);
    this.#now(call, () => this.#mkdir(path, options));
  }

  #mkdir(path: string, options: MkdirOptions): MaybePromise<void> {
    const call = syscall("mkdir", "make", path);
    const sb = this.#enter(call, path);
    checkOptions(call, options, ["mode"]);
    const mode = checkMode(call, options.mode, 0o755);
    return this.#done(call, vfsMkdir(sb, path, mode));
  }

  /** Removes an empty directory.
   * @throws FsError ENOTEMPTY, ENOTDIR, EBUSY (the root), EROFS. */
  async rmdir(path: string): Promise<void> {
    await this.#rmdir(path);
  }

  /** {@linkcode Mount.rmdir}, synchronously. */
  rmdirSync(path: string): void {
    const call = syscall("rmdir", "remove", path);
    this.#now(call, () => this.#rmdir(path));
  }

  #rmdir(path: string): MaybePromise<void> {
    const call = syscall("rmdir", "remove", path);
    return this.#done(call, vfsRmdir(this.#enter(call, path), path));
  }

  /** Removes a name of a file.
   * @throws FsError EISDIR, EROFS. */
  async unlink(path: string): Promise<void> {
    await this.#unlink(path);
  }

  /** {@linkcode Mount.unlink}, synchronously. */
  unlinkSync(path: string): void {
    const call = syscall("unlink", "remove", path);
    this.#now(call, () => this.#unlink(path));
  }

  #unlink(path: string): MaybePromise<void> {
    const call = syscall("unlink", "remove", path);
    return this.#done(call, vfsUnlink(this.#enter(call, path), path));
  }

  /** Removes a file, or an empty directory, as `Deno.remove` does.
   * @throws FsError ENOTEMPTY, EBUSY (the root), EROFS. */
  async remove(path: string): Promise<void> {
    await this.#remove(path);
  }

  /** {@linkcode Mount.remove}, synchronously. */
  removeSync(path: string): void {
    const call = syscall("unlink", "remove", path);
    this.#now(call, () => this.#remove(path));
  }

  #remove(path: string): MaybePromise<void> {
    const call = syscall("unlink", "remove", path);
    const sb = this.#enter(call, path);
    const removed = andThen(vfsLookup(sb, path, false), (inode) => {
      if (typeof inode === "number") return inode;
      const directory = isDir(inode);
      iput(inode);
      return directory ? vfsRmdir(sb, path) : vfsUnlink(sb, path);
    });
    return this.#done(call, removed);
  }

  /** Renames; what `newPath` names is replaced.
   * @throws FsError EISDIR and ENOTDIR (one is a directory, the other is not),
   *   ENOTEMPTY or EEXIST (the replaced directory is not empty), EEXIST (`noReplace`),
   *   ENOENT (`exchange`, and `newPath` does not exist), EINVAL (into its own subtree;
   *   both options), EBUSY (the root), EROFS. */
  async rename(
    oldPath: string,
    newPath: string,
    options: RenameOptions = {},
  ): Promise<void> {
    await this.#rename(oldPath, newPath, options);
  }

  /** {@linkcode Mount.rename}, synchronously. */
  renameSync(
    oldPath: string,
    newPath: string,
    options: RenameOptions = {},
  ): void {
    const call = syscall("rename", "rename", oldPath);
    this.#now(call, () => this.#rename(oldPath, newPath, options));
  }

  #rename(
    oldPath: string,
    newPath: string,
    options: RenameOptions,
  ): MaybePromise<void> {
    const call = syscall("rename", "rename", oldPath);
    const sb = this.#enter(call, oldPath, newPath);
    checkOptions(call, options, ["noReplace", "exchange"]);
    const flag = (name: keyof RenameOptions, bit: number) =>
      checkFlag(call, name, options[name]) ? bit : 0;
    const flags = flag("noReplace", RENAME_NOREPLACE) |
      flag("exchange", RENAME_EXCHANGE);
    const renamed = vfsRename(sb, oldPath, newPath, flags);
    return this.#done(call, renamed, `to "${newPath}"`);
  }

  /** Makes a symbolic link, as `Deno.symlink` does.
   * @param target Where it leads; need not exist.
   * @throws FsError EEXIST, ENOENT (an empty target), ENOSPC, EROFS. */
  async symlink(target: string, path: string): Promise<void> {
    await this.#symlink(target, path);
  }

  /** {@linkcode Mount.symlink}, synchronously. */
  symlinkSync(target: string, path: string): void {
    const call = syscall("symlink", "make", path);
    this.#now(call, () => this.#symlink(target, path));
  }

  #symlink(target: string, path: string): MaybePromise<void> {
    const call = syscall("symlink", "make", path);
    const sb = this.#enter(call, target, path);
    const made = vfsSymlink(sb, target, path);
    return this.#done(call, made, `to "${target}"`);
  }

  /** Target of a symbolic link.
   * @throws FsError EINVAL (not a symbolic link). */
  async readLink(path: string): Promise<string> {
    return await this.#readLink(path);
  }

  /** {@linkcode Mount.readLink}, synchronously. */
  readLinkSync(path: string): string {
    const call = syscall("readlink", "read", path);
    return this.#now(call, () => this.#readLink(path));
  }

  #readLink(path: string): MaybePromise<string> {
    const call = syscall("readlink", "read", path);
    const read = vfsReadlink(this.#enter(call, path), path);
    return this.#leave(read, (target) => orThrow(call, target) as string);
  }

  /** Value of an extended attribute; links are followed.
   * @param name With its prefix: "user.", "trusted." or "security.".
   * @throws FsError ENODATA (there is none), EOPNOTSUPP (another prefix, or the file
   *   system has none), ERANGE (a name that is empty or above 255 bytes). */
  async getXattr(path: string, name: string): Promise<Uint8Array> {
    return await this.#getXattr(path, name);
  }

  /** {@linkcode Mount.getXattr}, synchronously. */
  getXattrSync(path: string, name: string): Uint8Array {
    const call = syscall("getxattr", "read an attribute of", path);
    return this.#now(call, () => this.#getXattr(path, name));
  }

  #getXattr(path: string, name: string): MaybePromise<Uint8Array> {
    const call = syscall("getxattr", "read an attribute of", path);
    const sb = this.#enter(call, path);
    checkName(call, name, importXattrName);
    const got = withInode(sb, path, (inode) => vfsGetxattr(inode, name));
    return this.#leave(got, (value) => orThrow(call, value) as Uint8Array);
  }

  /** Sets an extended attribute; links are followed.
   * @param value At most 64 KiB.
   * @throws FsError EEXIST (`create`), ENODATA (`replace`), E2BIG, ENOSPC, EROFS; and as
   *   {@linkcode Mount.getXattr}. */
  async setXattr(
    path: string,
    name: string,
    value: Uint8Array,
    options: SetXattrOptions = {},
  ): Promise<void> {
    await this.#setXattr(path, name, value, options);
  }

  /** {@linkcode Mount.setXattr}, synchronously. */
  setXattrSync(
    path: string,
    name: string,
    value: Uint8Array,
    options: SetXattrOptions = {},
  ): void {
    const call = syscall("setxattr", "set an attribute of", path);
    this.#now(call, () => this.#setXattr(path, name, value, options));
  }

  #setXattr(
    path: string,
    name: string,
    value: Uint8Array,
    options: SetXattrOptions,
  ): MaybePromise<void> {
    const call = syscall("setxattr", "set an attribute of", path);
    const sb = this.#enter(call, path);
    if (!(value instanceof Uint8Array)) {
      throw failure(call, EINVAL, `value ${show(value)} is not a Uint8Array`);
    }
    checkName(call, name, () => setxattrCopy(name, value.length));
    checkOptions(call, options, ["create", "replace"]);
    const flag = (key: keyof SetXattrOptions, bit: number) =>
      checkFlag(call, key, options[key]) ? bit : 0;
    const flags = flag("create", XATTR_CREATE) |
      flag("replace", XATTR_REPLACE);
    const set = withInode(
      sb,
      path,
      (inode) => vfsSetxattr(inode, name, value, flags),
    );
    return this.#done(call, set, name);
  }

  /** Removes an extended attribute; links are followed.
   * @throws FsError ENODATA (there is none), EROFS; and as {@linkcode Mount.getXattr}. */
  async removeXattr(path: string, name: string): Promise<void> {
    await this.#removeXattr(path, name);
  }

  /** {@linkcode Mount.removeXattr}, synchronously. */
  removeXattrSync(path: string, name: string): void {
    const call = syscall("removexattr", "remove an attribute of", path);
    this.#now(call, () => this.#removeXattr(path, name));
  }

  #removeXattr(path: string, name: string): MaybePromise<void> {
    const call = syscall("removexattr", "remove an attribute of", path);
    const sb = this.#enter(call, path);
    checkName(call, name, importXattrName);
    const gone = withInode(
      sb,
      path,
      (inode) => vfsSetxattr(inode, name, null, XATTR_REPLACE),
    );
    return this.#done(call, gone, name);
  }

  /** Names of the extended attributes, with their prefixes, in no order.
   * @throws FsError EOPNOTSUPP (the file system has none). */
  async listXattrs(path: string): Promise<string[]> {
    return await this.#listXattrs(path);
  }

  /** {@linkcode Mount.listXattrs}, synchronously. */
  listXattrsSync(path: string): string[] {
    const call = syscall("listxattr", "list attributes of", path);
    return this.#now(call, () => this.#listXattrs(path));
  }

  #listXattrs(path: string): MaybePromise<string[]> {
    const call = syscall("listxattr", "list attributes of", path);
    const sb = this.#enter(call, path);
    const listed = withInode(sb, path, vfsListxattr);
    return this.#leave(listed, (names) => orThrow(call, names) as string[]);
  }

  /** Gives a file a further name.
   * @throws FsError EEXIST, EPERM (a directory), EMLINK, EROFS. */
  async link(oldPath: string, newPath: string): Promise<void> {
    await this.#link(oldPath, newPath);
  }

  /** {@linkcode Mount.link}, synchronously. */
  linkSync(oldPath: string, newPath: string): void {
    const call = syscall("link", "link", oldPath);
    this.#now(call, () => this.#link(oldPath, newPath));
  }

  #link(oldPath: string, newPath: string): MaybePromise<void> {
    const call = syscall("link", "link", oldPath);
    const sb = this.#enter(call, oldPath, newPath);
    return this.#done(call, vfsLink(sb, oldPath, newPath), `as "${newPath}"`);
  }

  /** The entries of a directory, without "." and "..". They are read when the first
   * is asked for.
   * @throws FsError ENOTDIR, at the first entry. */
  readDir(path: string): AsyncIterable<DirEntry> {
    const list = () => Promise.try(() => this.#readDir(path));
    return {
      [Symbol.asyncIterator]: () => new DirIterator(list),
    };
  }

  /** {@linkcode Mount.readDir}, synchronously. */
  readDirSync(path: string): Iterable<DirEntry> {
    const call = syscall("getdents64", "list", path);
    return this.#now(call, () => this.#readDir(path));
  }

  #readDir(path: string): MaybePromise<DirEntry[]> {
    const call = syscall("getdents64", "list", path);
    const listed = vfsReaddir(this.#enter(call, path), path);
    return this.#leave(listed, (list) => orThrow(call, list).map(toEntry));
  }

  /** What is known of a file or directory. */
  async stat(path: string): Promise<FileInfo> {
    return await this.#stat(path, true);
  }

  /** {@linkcode Mount.stat}, synchronously. */
  statSync(path: string): FileInfo {
    const call = syscall("stat", "stat", path);
    return this.#now(call, () => this.#stat(path, true));
  }

  /** As {@linkcode Mount.stat}, of a symbolic link itself. */
  async lstat(path: string): Promise<FileInfo> {
    return await this.#stat(path, false);
  }

  /** {@linkcode Mount.lstat}, synchronously. */
  lstatSync(path: string): FileInfo {
    const call = syscall("lstat", "stat", path);
    return this.#now(call, () => this.#stat(path, false));
  }

  #stat(path: string, follow: boolean): MaybePromise<FileInfo> {
    const call = syscall(follow ? "stat" : "lstat", "stat", path);
    const found = vfsLookup(this.#enter(call, path), path, follow);
    return this.#leave(found, (result) => {
      const inode = orThrow(call, result);
      const info = vfsGetattr(inode);
      iput(inode);
      return info;
    });
  }

  /** Sets the size of a file.
   * @param len Bytes; 0 if absent.
   * @throws FsError EISDIR, EINVAL (negative), EFBIG, ETXTBSY (a swap file). */
  async truncate(path: string, len = 0): Promise<void> {
    await this.#truncate(path, len);
  }

  /** {@linkcode Mount.truncate}, synchronously. */
  truncateSync(path: string, len = 0): void {
    const call = syscall("truncate", "truncate", path);
    this.#now(call, () => this.#truncate(path, len));
  }

  #truncate(path: string, len: number): MaybePromise<void> {
    const call = syscall("truncate", "truncate", path);
    const sb = this.#enter(call, path);
    checkOffset(call, "length", len);
    const truncated = andThen(vfsLookup(sb, path), (inode) => {
      if (typeof inode === "number") return inode;
      return andThen(vfsTruncate(inode, len), (error) => {
        iput(inode);
        return error;
      });
    });
    return this.#done(call, truncated, `length ${len}`);
  }

  /** Makes everything durable (syncfs).
   * @throws FsError EIO, ENOSPC: what writeback of any file met since the last sync. */
  async sync(): Promise<void> {
    await this.#sync();
  }

  /** {@linkcode Mount.sync}, synchronously. */
  syncSync(): void {
    this.#now(syscall("syncfs", "sync", "/"), () => this.#sync());
  }

  #sync(): MaybePromise<void> {
    const call = syscall("syncfs", "sync", "/");
    const sb = this.#enter(call);
    return this.#done(call, vfsSyncfs(sb, sb.syncErr));
  }

  /**
   * Takes a file into use as swap space: pages of private mappings go there where memory
   * is short. It begins with a header, see `swapHeader`, and has no holes. As long as it
   * is in use it is open, and can be neither written nor truncated.
   *
   * @throws FsError EBUSY (in use already), EINVAL (no header, or blocks that cannot be
   *   swapped to: the log says why), EISDIR, EPERM (too many), EIO.
   */
  async swapon(path: string): Promise<SwapFile> {
    return await this.#swapon(path);
  }

  /** {@linkcode Mount.swapon}, synchronously. */
  swaponSync(path: string): SwapFile {
    const call = syscall("swapon", "swap to", path);
    return this.#now(call, () => this.#swapon(path));
  }

  #swapon(path: string): MaybePromise<SwapFile> {
    const call = syscall("swapon", "swap to", path);
    const sb = this.#enter(call, path);
    const how = openHow(call, { read: true, write: true });
    const activated = andThen(vfsOpen(sb, path, how), (file) => {
      if (typeof file === "number") return file;
      return andThen(vfsSwapon(file), (area) => {
        if (typeof area === "number") fileClose(file);
        else this.#swaps.push(area);
        return area;
      });
    });
    return this.#leave(activated, (area) => orThrow(call, area));
  }

  /** Takes a swap file out of use; what is there comes back to memory.
   * @throws FsError EINVAL (not in use), ENOMEM (no room; it stays in use). */
  async swapoff(path: string): Promise<void> {
    await this.#swapoff(path);
  }

  /** {@linkcode Mount.swapoff}, synchronously. */
  swapoffSync(path: string): void {
    const call = syscall("swapoff", "stop swapping to", path);
    this.#now(call, () => this.#swapoff(path));
  }

  #swapoff(path: string): MaybePromise<void> {
    const call = syscall("swapoff", "stop swapping to", path);
    const sb = this.#enter(call, path);
    const removed = andThen(vfsLookup(sb, path), (inode) => {
      if (typeof inode === "number") return inode;
      iput(inode);
      const area = this.#swaps.find(({ file }) => file.inode === inode);
      if (area === undefined) return -EINVAL;
      this.#swaps.splice(this.#swaps.indexOf(area), 1);
      return andThen(vfsSwapoff(area), (error) => {
        if (error < 0) this.#swaps.push(area);
        else fileClose(area.file);
        return error;
      });
    });
    return this.#done(call, removed);
  }

  /** The swap files in use (`/proc/swaps`). */
  swaps(): SwapFile[] {
    return [...this.#swaps];
  }

  /** Space in use and free. */
  statfs(): StatFs {
    const sb = this.#enter(syscall("statfs", "stat", "/"));
    return sb.ops.statfs(sb);
  }

  /**
   * Writes everything and gives the device back.
   *
   * @throws FsError EBUSY (files are open, or calls go on; nothing has happened then),
   *   EIO (not everything could be written; it is unmounted all the same).
   */
  async unmount(): Promise<void> {
    const call = syscall("umount", "unmount", this.superBlock.id);
    const sb = this.#enter(call);
    if (sb.openFiles > 0) {
      throw failure(call, EBUSY, `${sb.openFiles} files are open`);
    }
    if (this.#pending > 0) {
      throw failure(call, EBUSY, `${this.#pending} calls go on`);
    }
    this.#mounted = false;
    orThrow(call, await vfsUnmount(sb));
  }

  /** Unmounts if it is mounted. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#mounted) await this.unmount();
  }

  /** Begins a call: the file system has to be mounted, and paths strings. */
  #enter(call: Syscall, ...paths: string[]): SuperBlock {
    if (!this.#mounted) throw failure(call, ENODEV, "it is unmounted");
    for (const path of paths) {
      if (typeof path !== "string") {
        throw failure(call, EINVAL, `path ${show(path)} is not a string`);
      }
    }
    return this.superBlock;
  }

  /** Ends a call; unmount must not come between. */
  #leave<T, R>(
    result: MaybePromise<T>,
    end: (result: T) => R,
  ): MaybePromise<R> {
    if (!(result instanceof Promise)) return end(result);
    this.#pending++;
    return result.then(end).finally(() => this.#pending--);
  }

  #done(
    call: Syscall,
    result: MaybePromise<number>,
    detail = "",
  ): MaybePromise<void> {
    return this.#leave(result, (error) => {
      if (error < 0) throw failure(call, error, detail);
    });
  }

  #now<T>(
    call: Syscall,
    run: () => MaybePromise<T>,
    abandon?: (late: T) => void,
  ): T {
    return runSync(this.#clock, call, run, abandon);
  }
}

function syscall(name: string, task: string, path: string): Syscall {
  // It has not been checked yet.
  return { name, task, path: typeof path === "string" ? path : show(path) };
}

/** Refuses a name that is not a string (EINVAL), or that `check` refuses. */
function checkName(
  call: Syscall,
  name: string,
  check: (name: string) => number,
): void {
  if (typeof name !== "string") {
    throw failure(call, EINVAL, `name ${show(name)} is not a string`);
  }
  const error = check(name);
  if (error < 0) throw failure(call, error, `name ${show(name)}`);
}

/** Looks at what a path names. */
function withInode<T>(
  sb: SuperBlock,
  path: string,
  use: (inode: Inode) => MaybePromise<T | number>,
): MaybePromise<T | number> {
  return andThen(vfsLookup(sb, path), (inode) => {
    if (typeof inode === "number") return inode;
    return andThen(use(inode), (result) => {
      iput(inode);
      return result;
    });
  });
}

/** Refuses a page cache too small to work with, or beyond any machine (EINVAL). */
function checkMemory(call: Syscall, memory: number): void {
  checkCount(call, "memory", memory);
  if (memory >= MIN_MEMORY && memory <= MAX_MEMORY) return;
  throw failure(
    call,
    EINVAL,
    `memory ${memory} is not between ${MIN_MEMORY} and ${MAX_MEMORY} bytes`,
  );
}

/** Translates options to what the VFS takes. */
function openHow(call: Syscall, options: OpenOptions): OpenHow {
  checkOptions(call, options, OPEN_OPTIONS);
  const flag = (name: Exclude<keyof OpenOptions, "mode">) =>
    checkFlag(call, name, options[name]);
  const append = flag("append");
  const sync = flag("sync");
  const exclusive = flag("createNew");
  const mode = (flag("read") ? FMODE_READ : 0) |
    (flag("write") || append ? FMODE_WRITE : 0);
  if (mode === 0) {
    throw failure(call, EINVAL, "none of read, write and append is true");
  }
  return {
    mode,
    iocbFlags: (append ? IOCB_APPEND : 0) |
      (flag("direct") ? IOCB_DIRECT : 0) |
      (flag("dsync") || sync ? IOCB_DSYNC : 0) | (sync ? IOCB_SYNC : 0),
    create: flag("create") || exclusive,
    exclusive,
    truncate: flag("truncate"),
    permissions: checkMode(call, options.mode, 0o644),
  };
}

function toEntry({ name, ino, type }: VfsDirEntry): DirEntry {
  return {
    name,
    ino,
    isFile: type === S_IFREG,
    isDirectory: type === S_IFDIR,
    isSymlink: type === S_IFLNK,
  };
}

/** Walks a list that is asked for at the first step. */
class DirIterator implements AsyncIterator<DirEntry> {
  readonly #list: () => Promise<DirEntry[]>;
  #entries: Iterator<DirEntry> | null = null;

  constructor(list: () => Promise<DirEntry[]>) {
    this.#list = list;
  }

  async next(): Promise<IteratorResult<DirEntry>> {
    this.#entries ??= (await this.#list()).values();
    return this.#entries.next();
  }
}
