/**
 * From names to inodes, and changing names.
 *
 * A walk takes no reference and no lock: what it found may have gone by the time a
 * lock is held, so every change looks its name up again under the directory's lock,
 * and what is handed out is an inode with a reference.
 *
 * Kernel counterpart: fs/namei.c, fs/readdir.c.
 *
 * @module
 */

import {
  EACCES,
  EAGAIN,
  EBUSY,
  EEXIST,
  EILSEQ,
  EINVAL,
  EISDIR,
  ELOOP,
  EMLINK,
  ENAMETOOLONG,
  ENOENT,
  ENOTDIR,
  ENOTEMPTY,
  EPERM,
  EROFS,
} from "../lib/errno.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import { dAncestor, type Dentry } from "./dcache.ts";
import {
  type DirEntry,
  type File,
  FMODE_WRITE,
  type Inode,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  S_DEAD,
  S_IFLNK,
  S_IFMT,
  S_SWAPFILE,
  type SuperBlock,
} from "./fs.ts";
import { ihold, inodeLock, inodeUnlock, iput, isDir, isReg } from "./inode.ts";
import { doTruncate, fileClose, fileOpen } from "./open.ts";

/** Longest name, bytes of UTF-8. */
const NAME_MAX = 255;
/** Longest path with its end mark, bytes. */
const PATH_MAX = 4096;
/** Most symbolic links that one walk follows (kernel: `MAXSYMLINKS`). */
const MAXSYMLINKS = 40;

/** How to open a file (kernel: `struct open_flags`). */
export interface OpenHow {
  /** `FMODE_READ`, `FMODE_WRITE`. */
  mode: number;
  /** `IOCB_*` of every call on the file. */
  iocbFlags: number;
  /** Make it if it is absent (O_CREAT). */
  create: boolean;
  /** With `create`: fail if it exists (O_EXCL). */
  exclusive: boolean;
  /** Empty it (O_TRUNC). */
  truncate: boolean;
  /** Permission bits of a new file. */
  permissions: number;
}

/** One walk. */
interface Walk {
  /** Where absolute paths begin. */
  root: Dentry;
  /** Symbolic links that it has followed. */
  links: number;
}

/** Where a path leads but for its last name (kernel: `struct nameidata`). */
interface PathEnd {
  walk: Walk;
  parent: Dentry;
  /** Last name; ".", ".." or "/" are no names that can be made or removed. */
  last: string;
  /** A slash follows: it has to be a directory. */
  slashes: boolean;
}

const utf8 = new TextEncoder();

/** A half of a surrogate pair, but for those that stand for a byte. */
export const HALF_PAIR: RegExp = /[\ud800-\udc7f\udd00-\udfff]/u;
/** A byte of a name that is not UTF-8: U+DC00 plus the byte, as disks may have it. */
const RAW_BYTE = /[\udc80-\udcff]/gu;

/** Bytes of a string in UTF-8, exact where it matters. */
export function byteLength(text: string, limit: number): number {
  if (text.length * 3 <= limit) return text.length;
  const { length } = utf8.encode(text);
  if (text.isWellFormed()) return length;
  return length - 2 * (text.match(RAW_BYTE)?.length ?? 0);
}

/** Splits a path (kernel: `getname`); no names for the root. */
function getname(path: string): string[] | number {
  if (path === "") return -ENOENT;
  if (path.includes("\0")) return -EINVAL;
  if (HALF_PAIR.test(path)) return -EILSEQ;
  if (byteLength(path, PATH_MAX - 1) >= PATH_MAX) return -ENAMETOOLONG;
  return path.split("/").filter((name) => name !== "");
}

function isLink(inode: Inode | null): boolean {
  return inode !== null && (inode.mode & S_IFMT) === S_IFLNK;
}

function isDots(name: string): boolean {
  return name === "." || name === ".." || name === "/";
}

/** Walks to where a path leads but for its last name, and goes on from there (kernel:
 * `filename_parentat`). */
function withPath<T>(
  sb: SuperBlock,
  path: string,
  work: (end: PathEnd) => MaybePromise<T | number>,
): MaybePromise<T | number> {
  const { dcache } = sb;
  const { root } = dcache;
  const epoch = dcache.begin();
  const walked = parentFrom(root, path, { root, links: 0 });
  const done = andThen(
    walked,
    (end) => typeof end === "number" ? end : work(end),
  );
  return andThen(done, (result) => {
    dcache.end(epoch);
    return result;
  });
}

/** The same for a path that begins at a directory, unless it is absolute. */
function parentFrom(
  from: Dentry,
  path: string,
  nd: Walk,
): MaybePromise<PathEnd | number> {
  const names = getname(path);
  if (typeof names === "number") return names;
  const last = names.pop() ?? "/";
  const slashes = last !== "/" && path.endsWith("/");
  const start = path.startsWith("/") ? nd.root : from;
  return andThen(walk(start, names, 0, nd), (parent) => {
    if (typeof parent === "number") return parent;
    if (!isDir(parent.inode!)) return -ENOTDIR;
    return { walk: nd, parent, last, slashes };
  });
}

/** Follows names, and symbolic links, from the `next`th on (kernel:
 * `link_path_walk`). */
function walk(
  from: Dentry,
  names: string[],
  next: number,
  nd: Walk,
): MaybePromise<Dentry | number> {
  let dentry = from;
  for (let i = next; i < names.length; i++) {
    const found = followed(dentry, walkComponent(dentry, names[i]!), nd);
    if (found instanceof Promise) {
      return found.then((d) =>
        typeof d === "number" ? d : walk(d, names, i + 1, nd)
      );
    }
    if (typeof found === "number") return found;
    dentry = found;
  }
  // The wait of a lookup may have seen it go.
  return dentry.inode === null ? -ENOENT : dentry;
}

/** What a name in `parent` leads to in the end (kernel: `step_into`). */
function followed(
  parent: Dentry,
  found: MaybePromise<Dentry | number>,
  nd: Walk,
): MaybePromise<Dentry | number> {
  if (found instanceof Promise) {
    return found.then((d) => followed(parent, d, nd));
  }
  if (typeof found === "number" || !isLink(found.inode)) return found;
  return andThen(linkEnd(parent, found.inode!, nd), (end) => {
    if (typeof end === "number") return end;
    return followEnd(end);
  });
}

/** Where a symbolic link leads but for the last name. */
function linkEnd(
  parent: Dentry,
  link: Inode,
  nd: Walk,
): MaybePromise<PathEnd | number> {
  if (++nd.links > MAXSYMLINKS) return -ELOOP;
  return andThen(getLink(link), (target) => {
    if (typeof target === "number") return target;
    return parentFrom(parent, target, nd);
  });
}

/** What the last name leads to in the end. */
function followEnd(end: PathEnd): MaybePromise<Dentry | number> {
  const found = walkComponent(end.parent, end.last);
  return andThen(followed(end.parent, found, end.walk), (dentry) => {
    if (typeof dentry === "number") return dentry;
    if (dentry.inode === null) return -ENOENT;
    return end.slashes && !isDir(dentry.inode) ? -ENOTDIR : dentry;
  });
}

/** Target of a symbolic link, which may lose its last name meanwhile (kernel:
 * `pick_link`). */
function getLink(link: Inode): MaybePromise<string | number> {
  if (link.iop.getLink === undefined) return -EINVAL;
  ihold(link);
  return andThen(link.iop.getLink(link), (target) => {
    iput(link);
    return target;
  });
}

/** One step to something that exists (kernel: `walk_component`). */
function walkComponent(
  dir: Dentry,
  name: string,
): MaybePromise<Dentry | number> {
  if (dir.inode === null) return -ENOENT;
  if (!isDir(dir.inode)) return -ENOTDIR;
  if (name === "." || name === "/") return dir;
  const { dcache } = dir.inode.sb;
  if (name === "..") return dcache.touch(dir.parent ?? dir);
  return andThen(lookup(dir, name), (dentry) => {
    if (typeof dentry === "number") return dentry;
    return dentry.inode === null ? -ENOENT : dentry;
  });
}

/** A name in a directory that the caller has not locked; a negative dentry if
 * there is none (kernel: `lookup_fast`, `lookup_slow`). */
function lookup(parent: Dentry, name: string): MaybePromise<Dentry | number> {
  const dir = parent.inode!;
  const cached = dir.sb.dcache.find(parent, name);
  if (cached !== undefined) return cached;
  if (byteLength(name, NAME_MAX) > NAME_MAX) return -ENAMETOOLONG;
  return andThen(inodeLock(dir, false), (error) => {
    if (error < 0) return error;
    return andThen(lookupLocked(parent, dir, name), (dentry) => {
      inodeUnlock(dir, false);
      return dentry;
    });
  });
}

/** The same under the lock of `dir`, the directory (kernel: `lookup_one_qstr_excl`). */
function lookupLocked(
  parent: Dentry,
  dir: Inode,
  name: string,
): MaybePromise<Dentry | number> {
  // It may have been removed while its lock was waited for, and made anew.
  if (parent.inode !== dir || (dir.flags & S_DEAD) !== 0) return -ENOENT;
  const { dcache } = dir.sb;
  const cached = dcache.find(parent, name);
  if (cached !== undefined) return cached;
  if (byteLength(name, NAME_MAX) > NAME_MAX) return -ENAMETOOLONG;
  if (dir.iop.lookup === undefined) return -ENOTDIR;
  return andThen(dir.iop.lookup(dir, name), (inode) => {
    if (typeof inode === "number" && inode !== -ENOENT) return inode;
    const found = typeof inode === "number" ? null : inode;
    // Another that also held the lock shared may have been first.
    const other = dcache.find(parent, name);
    if (other === undefined) return dcache.splice(parent, name, found);
    if (found !== null) iput(found);
    return other;
  });
}

/** Locks in the given order, works, and unlocks. */
function withLocks<T>(
  inodes: Inode[],
  work: () => MaybePromise<T | number>,
): MaybePromise<T | number> {
  let taken = 0;
  const step = (): MaybePromise<T | number> => {
    if (taken === inodes.length) return work();
    return andThen(inodeLock(inodes[taken]!, true), (error) => {
      if (error < 0) return error;
      taken++;
      return step();
    });
  };
  return andThen(step(), (result) => {
    while (taken > 0) inodeUnlock(inodes[--taken]!, true);
    return result;
  });
}

/** Finds the last name in its directory, which is locked. */
function withDentry<T>(
  end: PathEnd,
  dir: Inode,
  work: (dentry: Dentry) => MaybePromise<T | number>,
): MaybePromise<T | number> {
  return andThen(
    lookupLocked(end.parent, dir, end.last),
    (dentry) => typeof dentry === "number" ? dentry : work(dentry),
  );
}

/** Locks the directory and finds the name in it, for a change. */
function withName<T>(
  end: PathEnd,
  work: (dir: Inode, dentry: Dentry) => MaybePromise<T | number>,
): MaybePromise<T | number> {
  // Gone since the walk: a wait came between.
  const dir = end.parent.inode;
  if (dir === null) return -ENOENT;
  return withLocks(
    [dir],
    () => withDentry(end, dir, (dentry) => work(dir, dentry)),
  );
}

/** The call waits for an inode that it was the last to hold, if it can wait. */
function afterIput(
  sb: SuperBlock,
  gone: MaybePromise<void>,
): MaybePromise<number> {
  if (!(gone instanceof Promise) || sb.bdev.clock.inSync) return 0;
  return gone.then(() => 0);
}

/**
 * Finds what a path names (kernel: `kern_path`).
 *
 * @param follow Whether a symbolic link as its last name is followed.
 * @returns The inode with a reference; -ENOENT for an empty path or a name that
 *   does not exist; -ENOTDIR if a name on the way, or one with a slash behind it, is
 *   no directory; -ELOOP for more than 40 symbolic links on the way; -ENAMETOOLONG for
 *   a name above 255 bytes or a path above 4095; -EINVAL for a NUL; -EILSEQ for text
 *   that is not Unicode; -EAGAIN in a synchronous call that would have to wait for
 *   another's lock.
 */
export function vfsLookup(
  sb: SuperBlock,
  path: string,
  follow = true,
): MaybePromise<Inode | number> {
  return withPath(sb, path, (end) => {
    return lookupEnd(end, follow);
  });
}

function lookupEnd(
  end: PathEnd,
  follow: boolean,
): MaybePromise<Inode | number> {
  const found = follow || end.slashes
    ? followEnd(end)
    : walkComponent(end.parent, end.last);
  return andThen(found, (dentry) => {
    if (typeof dentry === "number") return dentry;
    const { inode } = dentry;
    if (inode === null) return -ENOENT;
    ihold(inode);
    return inode;
  });
}

/**
 * Opens a file, and makes it before if asked to (kernel: `do_filp_open`).
 *
 * @returns The open file; as {@linkcode vfsLookup}, and -EEXIST if it exists and
 *   must not; -EISDIR for a directory to be written, made or emptied; -EACCES where
 *   nothing can be made; -EROFS; -EINVAL for direct I/O that the file does not
 *   support; the file system's errno.
 */
export function vfsOpen(
  sb: SuperBlock,
  path: string,
  how: OpenHow,
): MaybePromise<File | number> {
  return withPath(sb, path, (end) => {
    if (!how.create || isDots(end.last)) {
      return andThen(
        lookupEnd(end, true),
        (inode) => doOpen(inode, path, how, false),
      );
    }
    if (end.slashes) return -EISDIR;
    return openCreate(end, path, how);
  });
}

/** Kernel: `open_last_lookups` with O_CREAT. */
function openCreate(
  end: PathEnd,
  path: string,
  how: OpenHow,
): MaybePromise<File | number> {
  const { dcache } = end.walk.root.inode!.sb;
  const cached = dcache.find(end.parent, end.last)?.inode;
  if (cached && !how.exclusive && !isLink(cached)) {
    ihold(cached);
    return doOpen(cached, path, how, false);
  }
  let created = false;
  const found = withName<Inode>(end, (dir, dentry) => {
    if (dentry.inode !== null) {
      ihold(dentry.inode);
      return dentry.inode;
    }
    if (dir.sb.readOnly) return -EROFS;
    if (dir.iop.create === undefined) return -EACCES;
    const made = dir.iop.create(dir, end.last, how.permissions & 0o7777);
    return andThen(made, (inode) => {
      if (typeof inode === "number") return inode;
      created = true;
      dir.sb.dcache.instantiate(end.parent, end.last, inode);
      ihold(inode);
      return inode;
    });
  });
  return andThen(found, (inode) => {
    if (typeof inode === "number" || !isLink(inode) || how.exclusive) {
      return doOpen(inode, path, how, created);
    }
    return createThrough(end, inode, path, how);
  });
}

/** Opens, or makes, what a symbolic link points to. Its reference is given back. */
function createThrough(
  { parent, walk }: PathEnd,
  link: Inode,
  path: string,
  how: OpenHow,
): MaybePromise<File | number> {
  return andThen(linkEnd(parent, link, walk), (end) => {
    iput(link);
    if (typeof end === "number") return end;
    if (isDots(end.last) || end.slashes) return -EISDIR;
    return openCreate(end, path, how);
  });
}

/** Opens what was found; its reference is given back (kernel: `do_open`). */
function doOpen(
  inode: Inode | number,
  path: string,
  how: OpenHow,
  created: boolean,
): MaybePromise<File | number> {
  if (typeof inode === "number") return inode;
  const refused = mayOpen(inode, how, created);
  const opened = refused !== 0
    ? refused
    : fileOpen(inode, path, how.mode, how.iocbFlags);
  const emptied = andThen(opened, (file) => {
    if (typeof file === "number") return file;
    if (!how.truncate || created || !isReg(inode)) return file;
    return andThen(doTruncate(inode, 0, true), (error) => {
      if (error === 0) return file;
      fileClose(file);
      return error;
    });
  });
  return andThen(emptied, (result) => {
    iput(inode);
    return result;
  });
}

/** Kernel: `do_open`, `may_open`. */
function mayOpen(inode: Inode, how: OpenHow, created: boolean): number {
  if (how.create) {
    if (how.exclusive && !created) return -EEXIST;
    if (isDir(inode)) return -EISDIR;
  }
  if ((how.mode & FMODE_WRITE) === 0 && !how.truncate) return 0;
  if (isDir(inode)) return -EISDIR;
  return inode.sb.readOnly ? -EROFS : 0;
}

/**
 * Makes a directory (kernel: `do_mkdirat`).
 *
 * @param permissions Permission bits.
 * @returns 0; as {@linkcode vfsLookup}, and -EEXIST; -EMLINK if the parent can hold
 *   no more directories; -EPERM where none can be made; -EROFS.
 */
export function vfsMkdir(
  sb: SuperBlock,
  path: string,
  permissions: number,
): MaybePromise<number> {
  return withPath(sb, path, (end) => {
    if (isDots(end.last)) return -EEXIST;
    return withName(end, (dir, dentry) => {
      if (dentry.inode !== null) return -EEXIST;
      if (sb.readOnly) return -EROFS;
      if (dir.iop.mkdir === undefined) return -EPERM;
      if (dir.nlink >= sb.maxLinks) return -EMLINK;
      const made = dir.iop.mkdir(dir, end.last, permissions & 0o1777);
      return andThen(made, (inode) => {
        if (typeof inode === "number") return inode;
        sb.dcache.instantiate(end.parent, end.last, inode);
        return 0;
      });
    });
  });
}

/**
 * Makes a symbolic link (kernel: `do_symlinkat`).
 *
 * @param target Where it leads: any text, which nobody looks at before it is followed.
 * @returns 0; as {@linkcode vfsLookup} of `path`, and -ENOENT for an empty target;
 *   -ENAMETOOLONG for one above 4095 bytes; -EEXIST; -EPERM where none can be made;
 *   -EROFS; the file system's errno.
 */
export function vfsSymlink(
  sb: SuperBlock,
  target: string,
  path: string,
): MaybePromise<number> {
  const text = getname(target);
  if (typeof text === "number") return text;
  return withPath(sb, path, (end) => {
    if (isDots(end.last)) return -EEXIST;
    return withName(end, (dir, dentry) => {
      if (dentry.inode !== null) return -EEXIST;
      if (end.slashes) return -ENOENT;
      if (sb.readOnly) return -EROFS;
      if (dir.iop.symlink === undefined) return -EPERM;
      return andThen(dir.iop.symlink(dir, end.last, target), (inode) => {
        if (typeof inode === "number") return inode;
        sb.dcache.instantiate(end.parent, end.last, inode);
        return 0;
      });
    });
  });
}

/**
 * Target of a symbolic link (kernel: `do_readlinkat`).
 *
 * @returns It; as {@linkcode vfsLookup}, and -EINVAL if it is no symbolic link.
 */
export function vfsReadlink(
  sb: SuperBlock,
  path: string,
): MaybePromise<string | number> {
  return andThen(vfsLookup(sb, path, false), (inode) => {
    if (typeof inode === "number") return inode;
    const target = isLink(inode) ? getLink(inode) : -EINVAL;
    return andThen(target, (text) => {
      iput(inode);
      return text;
    });
  });
}

/** Whether a name can be removed as what the caller takes it for (kernel:
 * `may_delete`). */
function mayDelete(victim: Inode, asDirectory: boolean): number {
  if ((victim.flags & S_SWAPFILE) !== 0) return -EPERM;
  if (asDirectory) return isDir(victim) ? 0 : -ENOTDIR;
  return isDir(victim) ? -EISDIR : 0;
}

/**
 * Removes a name of a file; the file goes with its last name and last user
 * (kernel: `do_unlinkat`).
 *
 * @returns 0; as {@linkcode vfsLookup}, and -EISDIR for a directory; -EPERM where
 *   nothing can be removed, or for a swap file; -EROFS.
 */
export function vfsUnlink(sb: SuperBlock, path: string): MaybePromise<number> {
  return withPath(sb, path, (end) => {
    if (isDots(end.last)) return -EISDIR;
    if (sb.readOnly) return -EROFS;
    return removeName(end, false);
  });
}

/**
 * Removes an empty directory (kernel: `do_rmdir`).
 *
 * @returns 0; as {@linkcode vfsLookup}, and -ENOTDIR for anything else; -ENOTEMPTY;
 *   -EBUSY for the root; -EINVAL for "."; -EPERM where nothing can be removed;
 *   -EROFS.
 */
export function vfsRmdir(sb: SuperBlock, path: string): MaybePromise<number> {
  return withPath(sb, path, (end) => {
    if (end.last === "/") return -EBUSY;
    if (end.last === ".") return -EINVAL;
    if (end.last === "..") return -ENOTEMPTY;
    if (sb.readOnly) return -EROFS;
    return removeName(end, true);
  });
}

/** A directory that was removed is dead before its lock is given back: whoever
 * waits for it makes nothing in it. */
function markDead(victim: Inode, error: number): number {
  if (error === 0 && isDir(victim)) victim.flags |= S_DEAD;
  return error;
}

/** Kernel: `vfs_unlink`, `vfs_rmdir`. */
function removeName(end: PathEnd, asDirectory: boolean): MaybePromise<number> {
  const { sb } = end.parent.inode!;
  let gone: MaybePromise<void>;
  const removed = withName(end, (dir, dentry) => {
    const victim = dentry.inode;
    if (victim === null) return -ENOENT;
    if (end.slashes && !asDirectory) return isDir(victim) ? -EISDIR : -ENOTDIR;
    const refused = mayDelete(victim, asDirectory);
    if (refused !== 0) return refused;
    const { iop } = dir;
    const removed = withLocks([victim], () => {
      const done = (asDirectory
        ? iop.rmdir?.(dir, end.last, victim)
        : iop.unlink?.(dir, end.last, victim)) ?? -EPERM;
      return andThen(done, (error) =>
        markDead(victim, error));
    });
    return andThen(removed, (error) => {
      if (error === 0) gone = sb.dcache.delete(dentry);
      return error;
    });
  });
  return andThen(removed, (error) => error !== 0 ? error : afterIput(sb, gone));
}

/**
 * Gives a file a further name (kernel: `do_linkat`).
 *
 * @returns 0; as {@linkcode vfsLookup}, and -EEXIST if the new name exists; -EPERM
 *   for a directory; -EMLINK if the file can have no more names; -ENOENT if it has
 *   lost its last; -EROFS.
 */
export function vfsLink(
  sb: SuperBlock,
  oldPath: string,
  newPath: string,
): MaybePromise<number> {
  return andThen(vfsLookup(sb, oldPath, false), (target) => {
    if (typeof target === "number") return target;
    return andThen(linkInode(sb, target, newPath), (error) => {
      iput(target);
      return error;
    });
  });
}

function linkInode(
  sb: SuperBlock,
  target: Inode,
  path: string,
): MaybePromise<number> {
  return withPath(sb, path, (end) => {
    if (isDots(end.last)) return -EEXIST;
    return withName(end, (dir, dentry) => {
      if (dentry.inode !== null) return -EEXIST;
      if (end.slashes) return -ENOENT;
      if (sb.readOnly) return -EROFS;
      if (dir.iop.link === undefined || isDir(target)) return -EPERM;
      return withLocks([target], () => {
        if (target.nlink === 0) return -ENOENT;
        if (target.nlink >= sb.maxLinks) return -EMLINK;
        const linked = dir.iop.link!(target, dir, end.last);
        return andThen(linked, (error) => {
          if (error !== 0) return error;
          ihold(target);
          sb.dcache.instantiate(end.parent, end.last, target);
          return 0;
        });
      });
    });
  });
}

/**
 * Renames, replacing what the new name names (kernel: `do_renameat2`).
 *
 * @param flags `RENAME_NOREPLACE`: -EEXIST if the new name exists; `RENAME_EXCHANGE`:
 *   the two names change places, -ENOENT if the new one does not exist.
 * @returns 0, also if both name the same file; as {@linkcode vfsLookup}, and -EBUSY
 *   for the root, "." and ".."; -EINVAL for a directory into its own subtree;
 *   -ENOTEMPTY if the new name is above the old; -EISDIR and -ENOTDIR if one is a
 *   directory and the other is not; -EMLINK; -EPERM where nothing can be renamed;
 *   -EROFS; the file system's -ENOTEMPTY or -EEXIST for a directory that is not
 *   empty.
 */
export function vfsRename(
  sb: SuperBlock,
  oldPath: string,
  newPath: string,
  flags = 0,
): MaybePromise<number> {
  const both = RENAME_NOREPLACE | RENAME_EXCHANGE;
  if ((flags & ~both) !== 0 || flags === both) return -EINVAL;
  return withPath(sb, oldPath, (from) => {
    return withPath(sb, newPath, (to) => {
      if (isDots(from.last)) return -EBUSY;
      if (isDots(to.last)) return flags === RENAME_NOREPLACE ? -EEXIST : -EBUSY;
      if (sb.readOnly) return -EROFS;
      if (from.parent === to.parent) return renameLocked(sb, from, to, flags);
      return renameAcross(sb, from, to, flags);
    });
  });
}

/** The tree keeps its shape while two directories are locked. */
function renameAcross(
  sb: SuperBlock,
  from: PathEnd,
  to: PathEnd,
  flags: number,
): MaybePromise<number> {
  const { renameMutex } = sb;
  // A synchronous caller could not wait for whoever holds it.
  if (sb.bdev.clock.inSync && renameMutex.isLocked) return -EAGAIN;
  const taken = renameMutex.lock();
  const renamed = andThen(taken, () => renameLocked(sb, from, to, flags));
  return andThen(renamed, (error) => {
    renameMutex.unlock();
    return error;
  });
}

/** Locks the directories (kernel: `lock_rename`), then renames. */
function renameLocked(
  sb: SuperBlock,
  from: PathEnd,
  to: PathEnd,
  flags: number,
): MaybePromise<number> {
  const oldDir = from.parent.inode;
  const newDir = to.parent.inode;
  if (oldDir === null || newDir === null) return -ENOENT;
  let dirs = [oldDir, newDir];
  if (oldDir === newDir) dirs = [oldDir];
  else if (dAncestor(to.parent, from.parent) !== null) dirs = [newDir, oldDir];
  let gone: MaybePromise<void>;
  const change = (source: Dentry, target: Dentry): MaybePromise<number> => {
    const refused = mayRename(source, target, from, to, flags);
    if (refused !== 0) return refused;
    if (source.inode === target.inode) return 0;
    const done = renameInode(source, target.inode, from, to, flags);
    return andThen(done, (error) => {
      if (error !== 0) return error;
      if (flags === RENAME_EXCHANGE) sb.dcache.exchange(source, target);
      else gone = sb.dcache.move(source, to.parent, to.last);
      return 0;
    });
  };
  const renamed = withLocks(dirs, () =>
    withDentry(from, oldDir, (source) => {
      if (source.inode === null) return -ENOENT;
      return withDentry(to, newDir, (target) => change(source, target));
    }));
  return andThen(renamed, (error) => error !== 0 ? error : afterIput(sb, gone));
}

/** The checks of `do_renameat2` and `vfs_rename`, in their order. */
function mayRename(
  source: Dentry,
  target: Dentry,
  from: PathEnd,
  to: PathEnd,
  flags: number,
): number {
  const inode = source.inode!;
  const directory = isDir(inode);
  const other = target.inode;
  const exchange = flags === RENAME_EXCHANGE;
  if (flags === RENAME_NOREPLACE && other !== null) return -EEXIST;
  if (exchange) {
    if (other === null) return -ENOENT;
    if (!isDir(other) && to.slashes) return -ENOTDIR;
  }
  if (!directory && (from.slashes || (!exchange && to.slashes))) {
    return -ENOTDIR;
  }
  if (dAncestor(from.parent, to.parent) === source) return -EINVAL;
  if (dAncestor(to.parent, from.parent) === target) {
    return exchange ? -EINVAL : -ENOTEMPTY;
  }
  if (other === inode) return 0;
  const kept = mayDelete(inode, directory);
  if (kept !== 0) return kept;
  if (other !== null) {
    const victim = mayDelete(other, exchange ? isDir(other) : directory);
    if (victim !== 0) return victim;
  }
  const oldDir = from.parent.inode!;
  const newDir = to.parent.inode!;
  if (newDir.iop.rename === undefined) return -EPERM;
  if (oldDir === newDir) return 0;
  // Directories that come from elsewhere bring a ".." with them.
  const { maxLinks } = oldDir.sb;
  const intoNew = directory && (exchange ? !isDir(other!) : other === null);
  if (intoNew && newDir.nlink >= maxLinks) return -EMLINK;
  const intoOld = exchange && isDir(other!) && !directory;
  return intoOld && oldDir.nlink >= maxLinks ? -EMLINK : 0;
}

/** Kernel: the locked part of `vfs_rename`. */
function renameInode(
  source: Dentry,
  victim: Inode | null,
  from: PathEnd,
  to: PathEnd,
  flags: number,
): MaybePromise<number> {
  const inode = source.inode!;
  const oldDir = from.parent.inode!;
  const newDir = to.parent.inode!;
  const locks = victim === null ? [] : [victim];
  // A directory that stays in its parent does not change. Its lock could be held by
  // a rename between it and the victim, as that takes them in the other order.
  if (!isDir(inode) || oldDir !== newDir) locks.push(inode);
  // Names of the same two files can be renamed in two directories at once.
  locks.sort((a, b) => a.ino - b.ino);
  const { iop } = oldDir;
  return withLocks(locks, () => {
    const done = iop.rename!(
      oldDir,
      from.last,
      inode,
      newDir,
      to.last,
      victim,
      flags,
    );
    if (victim === null || flags === RENAME_EXCHANGE) return done;
    return andThen(done, (error) => markDead(victim, error));
  });
}

/**
 * Lists a directory (kernel: `iterate_dir`).
 *
 * @returns Its entries but "." and ".."; as {@linkcode vfsLookup}, and -ENOTDIR.
 */
export function vfsReaddir(
  sb: SuperBlock,
  path: string,
): MaybePromise<DirEntry[] | number> {
  return andThen(vfsLookup(sb, path), (dir) => {
    if (typeof dir === "number") return dir;
    return andThen(iterateDir(dir), (entries) => {
      iput(dir);
      return entries;
    });
  });
}

function iterateDir(dir: Inode): MaybePromise<DirEntry[] | number> {
  if (!isDir(dir) || dir.fop.iterate === undefined) return -ENOTDIR;
  return andThen(inodeLock(dir, false), (error) => {
    if (error < 0) return error;
    const listed = (dir.flags & S_DEAD) !== 0 ? -ENOENT : dir.fop.iterate!(dir);
    return andThen(listed, (entries) => {
      inodeUnlock(dir, false);
      return entries;
    });
  });
}
