/**
 * Cached names: a tree of dentries, with those that are known not to exist.
 *
 * A dentry is a place in the tree, not a name: rename moves it with all that is
 * below. A negative one says that the name does not exist; only so many of them
 * are kept, as their names can come from anywhere.
 *
 * Kernel counterpart: fs/dcache.c.
 *
 * @module
 */

import type { MaybePromise } from "../lib/maybe-promise.ts";
import type { Inode, SuperBlock } from "./fs.ts";
import { ihold, iput } from "./inode.ts";

/** Negative dentries kept for one file system. */
const NEGATIVE_MAX = 4096;

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

  /** A tree of the root alone; `sb.root` is set. */
  constructor(sb: SuperBlock) {
    ihold(sb.root);
    this.root = new Dentry("/", null, sb.root);
  }

  /** Puts a name into the tree (kernel: `d_add`).
   * @param inode Its reference passes to the dentry; null if there is no such name. */
  add(parent: Dentry, name: string, inode: Inode | null): Dentry {
    const dentry = new Dentry(name, parent, inode);
    parent.children ??= new Map();
    parent.children.set(name, dentry);
    if (inode === null) this.#keepNegative(dentry);
    return dentry;
  }

  /** A name has come into being (kernel: `d_instantiate`). The caller holds the
   * directory's lock exclusively; the inode's reference passes to the dentry. */
  instantiate(parent: Dentry, name: string, inode: Inode): void {
    const dentry = parent.children?.get(name);
    if (dentry === undefined) this.add(parent, name, inode);
    else {
      this.#negative.delete(dentry);
      dentry.inode = inode;
    }
  }

  /** The name has been removed: it is negative from now on (kernel: `d_delete`).
   * @returns When an inode that this was the last of is gone. */
  delete(dentry: Dentry): MaybePromise<void> {
    const inode = dentry.inode!;
    this.#dropChildren(dentry);
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
    this.#dropChildren(target);
    target.parent = null;
    const { inode } = target;
    target.inode = null;
    if (inode !== null) return iput(inode);
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
