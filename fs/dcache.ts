/**
 * Cached names: a tree of dentries, with those that are known not to exist.
 *
 * A dentry is a place in the tree, not a name: rename moves it with all that is
 * below. A negative one says that the name does not exist. Only so many of both kinds
 * are kept: names can come from anywhere.
 *
 * An operation keeps what it has found for as long as it goes on, whatever it waits for,
 * and takes no reference. So only names are forgotten that none of those that go on can
 * have come by. Operations and finds are told apart by epochs, of which only the current
 * one and the one before have operations that go on: what was found last before these is
 * nobody's.
 *
 * Kernel counterpart: fs/dcache.c.
 *
 * @module
 */

import { ELOOP, ESTALE } from "../lib/errno.ts";
import type { MaybePromise } from "../lib/maybe-promise.ts";
import type { Inode, SuperBlock } from "./fs.ts";
import { ihold, iput, isDir } from "./inode.ts";

/** Negative dentries kept for one file system. */
const NEGATIVE_MAX = 4096;

/** Names of files kept for one file system, if they can be found again. */
const POSITIVE_MAX = 131_072;
/** Names that are looked at, at the end of an operation, for some to forget. */
const POSITIVE_SCAN = 32;

/** A name in a directory (kernel: `struct dentry`). */
export class Dentry {
  /** Without a slash. */
  name: string;
  /** Null for the root, and once it is out of the tree. */
  parent: Dentry | null;
  /** What it names, with a reference; null if the name does not exist. */
  inode: Inode | null;
  /** What is cached of a directory. */
  children: Map<string, Dentry> | null = null;
  /** It has been found since somebody last looked for names to forget (kernel:
   * `DCACHE_REFERENCED`). */
  referenced = false;
  /** Epoch in which it was found last. */
  epoch = 0;

  /** Use `Dcache.add`. */
  constructor(name: string, parent: Dentry | null, inode: Inode | null) {
    this.name = name;
    this.parent = parent;
    this.inode = inode;
  }
}

/** The names of one file system. */
export class Dcache {
  /** Top of the tree. */
  readonly root: Dentry;
  // In the order in which they became negative.
  readonly #negative = new Set<Dentry>();
  // The others but the root, the longest unused first, as far as it is known.
  readonly #positive = new Set<Dentry>();
  /** Names of files that are kept. */
  max: number = POSITIVE_MAX;
  #epoch = 2;
  /** Operations of the even and of the odd one of the last two epochs that go on. */
  readonly #running = [0, 0];
  /** Of each directory in the tree its one place. */
  readonly #dirs = new Map<Inode, Dentry>();

  /** A tree of the root alone; `sb.root` is set. */
  constructor(sb: SuperBlock) {
    ihold(sb.root);
    this.root = new Dentry("/", null, sb.root);
    this.#dirs.set(sb.root, this.root);
  }

  /** Puts a name into the tree (kernel: `d_add`).
   * @param inode Its reference passes to the dentry; null if there is no such name. */
  add(parent: Dentry, name: string, inode: Inode | null): Dentry {
    const dentry = new Dentry(name, parent, inode);
    parent.children ??= new Map();
    parent.children.set(name, dentry);
    if (inode === null) this.#keepNegative(dentry);
    else this.#keepPositive(dentry, inode);
    return this.touch(dentry);
  }

  /** What is cached of a name, or undefined (kernel: `d_lookup`). */
  find(parent: Dentry, name: string): Dentry | undefined {
    const dentry = parent.children?.get(name);
    return dentry === undefined ? undefined : this.touch(dentry);
  }

  /** Whoever calls has come by a dentry.
   * @returns It. */
  touch(dentry: Dentry): Dentry {
    dentry.referenced = true;
    dentry.epoch = this.#epoch;
    return dentry;
  }

  /** An operation on names begins.
   * @returns What {@linkcode Dcache.end} is to be told. */
  begin(): number {
    this.#running[this.#epoch & 1]!++;
    return this.#epoch;
  }

  /** It has ended: what has long been unused may go. */
  end(epoch: number): void {
    this.#running[epoch & 1]!--;
    if (this.#running[1 - (this.#epoch & 1)] === 0) this.#epoch++;
    if (this.#positive.size > this.max) this.#shrink();
  }

  /**
   * Puts a name that has been looked up into the tree (kernel: `d_splice_alias`). A
   * directory has one place: if it is in the tree already, a damaged image gives it two
   * names, and it moves. Two places of one directory would be locked as if they were two.
   *
   * @param inode As for {@linkcode Dcache.add}; its reference is taken in any case.
   * @returns The dentry; -ELOOP if the directory is above its own name; -ESTALE if it
   *   cannot be moved now.
   */
  splice(parent: Dentry, name: string, inode: Inode | null): Dentry | number {
    const alias = inode === null ? undefined : this.#dirs.get(inode);
    if (alias === undefined) return this.add(parent, name, inode);
    const error = this.#unalias(alias, parent, name);
    iput(inode!);
    return error < 0 ? error : this.touch(alias);
  }

  /** Kernel: `__d_unalias`. */
  #unalias(alias: Dentry, parent: Dentry, name: string): number {
    if (alias === parent || dAncestor(alias, parent) !== null) return -ELOOP;
    const { rwsem, sb } = alias.parent!.inode!;
    if (sb.renameMutex.isLocked) return -ESTALE;
    // The caller may hold it itself: two names in one directory.
    if (alias.parent !== parent && rwsem.isLocked) return -ESTALE;
    this.move(alias, parent, name);
    return 0;
  }

  /** A name has come into being (kernel: `d_instantiate`). The caller holds the
   * directory's lock exclusively; the inode's reference passes to the dentry. */
  instantiate(parent: Dentry, name: string, inode: Inode): void {
    const dentry = parent.children?.get(name);
    if (dentry === undefined) this.add(parent, name, inode);
    else {
      this.#negative.delete(dentry);
      dentry.inode = inode;
      this.#keepPositive(dentry, inode);
    }
  }

  /** The name has been removed: it is negative from now on (kernel: `d_delete`).
   * @returns When an inode that this was the last of is gone. */
  delete(dentry: Dentry): MaybePromise<void> {
    const inode = dentry.inode!;
    this.#dropChildren(dentry);
    this.#dirs.delete(inode);
    this.#positive.delete(dentry);
    dentry.inode = null;
    this.#keepNegative(dentry);
    return iput(inode);
  }

  /** Gives a dentry another place, with all below it; what was there goes (kernel:
   * `d_move`). The caller holds both directories' locks exclusively.
   * @returns When an inode that the replaced name was the last of is gone. */
  move(dentry: Dentry, parent: Dentry, name: string): MaybePromise<void> {
    const target = parent.children?.get(name);
    dentry.parent!.children!.delete(dentry.name);
    dentry.parent = parent;
    dentry.name = name;
    parent.children ??= new Map();
    parent.children.set(name, dentry);
    if (target === undefined) return;
    this.#negative.delete(target);
    this.#positive.delete(target);
    this.#dropChildren(target);
    target.parent = null;
    const { inode } = target;
    target.inode = null;
    if (inode === null) return;
    this.#dirs.delete(inode);
    return iput(inode);
  }

  /** Two names change places, with all below them (kernel: `d_exchange`). The caller
   * holds both directories' locks exclusively. */
  exchange(a: Dentry, b: Dentry): void {
    [a.parent, b.parent] = [b.parent, a.parent];
    [a.name, b.name] = [b.name, a.name];
    a.parent!.children!.set(a.name, a);
    b.parent!.children!.set(b.name, b);
  }

  /** Lets go of all names, at unmount. */
  dropAll(): void {
    const stack = [this.root];
    for (let dentry = stack.pop(); dentry; dentry = stack.pop()) {
      if (dentry.children !== null) stack.push(...dentry.children.values());
      const { inode } = dentry;
      dentry.inode = null;
      dentry.children = null;
      if (inode !== null) iput(inode);
    }
    this.#negative.clear();
    this.#positive.clear();
    this.#dirs.clear();
  }

  #keepPositive(dentry: Dentry, inode: Inode): void {
    if (isDir(inode)) this.#dirs.set(inode, dentry);
    if (inode.sb.ops.mayEvict !== undefined) this.#positive.add(dentry);
  }

  /** Kernel: `prune_dcache_sb`. */
  #shrink(): void {
    let scan = POSITIVE_SCAN;
    for (const oldest of this.#positive) {
      if (this.#positive.size <= this.max || scan-- === 0) return;
      this.#positive.delete(oldest);
      if (this.#isIdle(oldest)) this.#prune(oldest);
      else this.#positive.add(oldest);
      oldest.referenced = false;
    }
  }

  /** Whether a name can be forgotten, until somebody looks it up again. */
  #isIdle(dentry: Dentry): boolean {
    const inode = dentry.inode!;
    if (dentry.referenced || dentry.epoch >= this.#epoch - 1) return false;
    if (inode.refcount > 1) return false;
    if (!isDir(inode)) return true;
    for (const child of dentry.children?.values() ?? []) {
      if (child.inode !== null) return false;
    }
    return true;
  }

  #prune(dentry: Dentry): void {
    const inode = dentry.inode!;
    this.#dropChildren(dentry);
    this.#dirs.delete(inode);
    this.#forget(dentry);
    dentry.inode = null;
    iput(inode);
  }

  #keepNegative(dentry: Dentry): void {
    this.#negative.add(dentry);
    if (this.#negative.size <= NEGATIVE_MAX) return;
    for (const oldest of this.#negative) {
      this.#forget(oldest);
      return;
    }
  }

  #forget(dentry: Dentry): void {
    this.#negative.delete(dentry);
    dentry.parent!.children!.delete(dentry.name);
    dentry.parent = null;
  }

  /** An empty directory has only negative names below it. */
  #dropChildren(dentry: Dentry): void {
    if (dentry.children === null) return;
    for (const child of dentry.children.values()) {
      this.#negative.delete(child);
      child.parent = null;
    }
    dentry.children = null;
  }
}

/**
 * Whether, and through which of its children, `ancestor` holds `dentry` (kernel:
 * `d_ancestor`).
 *
 * @returns The child of `ancestor` that is `dentry` or above it, or null.
 */
export function dAncestor(ancestor: Dentry, dentry: Dentry): Dentry | null {
  for (let d = dentry; d.parent !== null; d = d.parent) {
    if (d.parent === ancestor) return d;
  }
  return null;
}
