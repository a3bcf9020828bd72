/**
 * Blocks that were freed, but whose freeing is not in the log yet: after a crash they
 * would still be somebody's. Data must not go there before; metadata may, as the log
 * writes it after the freeing.
 *
 * What is left of a free extent depends on the order in which the busy extents in it
 * are met, and that is the order of their tree from the root down. So the tree is the
 * kernel's: red-black, an extent as it was freed for each node, and nothing is joined.
 *
 * Kernel counterpart: fs/xfs/xfs_extent_busy.c.
 *
 * @module
 */

import type { XfsMount } from "../mount.ts";
import type { XfsPerag } from "./ag.ts";

/** Extents of a group after which they are taken as logged: so much would have filled
 * what the log holds back. */
const MAX_BUSY = 32768;

/** No node: the leaves of the tree, which are black. */
const NIL = 0;
const BLACK = 0;
const RED = 1;

/** The busy extents of a group (kernel: `pagb_tree`). Nodes are numbers from 1 on. */
export class XfsExtentBusyTree {
  /** Extents. */
  count = 0;
  /** Root, or 0. */
  root = NIL;
  /** First block and length of each. */
  bno: Uint32Array = new Uint32Array(0);
  len: Uint32Array = new Uint32Array(0);
  /** Children of each, or 0. */
  left: Uint16Array = new Uint16Array(0);
  right: Uint16Array = new Uint16Array(0);
  #parent = new Uint16Array(0);
  #color = new Uint8Array(0);
  /** Nodes ever made since all were cleared. */
  #made = 0;
  /** Node that can be used again; the others follow by `right`. */
  #unused = NIL;

  /** Forgets all of them. */
  clear(): void {
    this.count = 0;
    this.root = this.#unused = NIL;
    this.#made = 0;
  }

  /** Adds an extent, none of which is busy. */
  insert(bno: number, len: number): void {
    if (this.count >= MAX_BUSY) this.clear();
    const node = this.#newNode(bno, len);
    let parent = NIL;
    let at = this.root;
    while (at !== NIL) {
      parent = at;
      at = bno < this.bno[at]! ? this.left[at]! : this.right[at]!;
    }
    this.#parent[node] = parent;
    if (parent === NIL) this.root = node;
    else if (bno < this.bno[parent]!) this.left[parent] = node;
    else this.right[parent] = node;
    this.#insertColor(node);
    this.count++;
  }

  #newNode(bno: number, len: number): number {
    let node = this.#unused;
    if (node !== NIL) this.#unused = this.right[node]!;
    else {
      node = ++this.#made;
      if (node >= this.bno.length) this.#grow();
    }
    this.bno[node] = bno;
    this.len[node] = len;
    this.left[node] = this.right[node] = NIL;
    this.#color[node] = RED;
    return node;
  }

  #grow(): void {
    const larger = <T extends Uint8Array | Uint16Array | Uint32Array>(
      old: T,
      more: T,
    ): T => {
      more.set(old);
      return more;
    };
    const size = Math.max(64, this.bno.length * 2);
    this.bno = larger(this.bno, new Uint32Array(size));
    this.len = larger(this.len, new Uint32Array(size));
    this.left = larger(this.left, new Uint16Array(size));
    this.right = larger(this.right, new Uint16Array(size));
    this.#parent = larger(this.#parent, new Uint16Array(size));
    this.#color = larger(this.#color, new Uint8Array(size));
  }

  /** A node takes the place of another below the other's parent. */
  #replace(old: number, node: number): void {
    const parent = this.#parent[old]!;
    if (parent === NIL) this.root = node;
    else if (this.left[parent] === old) this.left[parent] = node;
    else this.right[parent] = node;
    this.#parent[node] = parent;
  }

  /** The child on one side comes up, and the node goes down to the other. */
  #rotate(node: number, down: Uint16Array, up: Uint16Array): void {
    const child = up[node]!;
    const inner = down[child]!;
    up[node] = inner;
    if (inner !== NIL) this.#parent[inner] = node;
    this.#replace(node, child);
    down[child] = node;
    this.#parent[node] = child;
  }

  /** Kernel: `rb_insert_color`. */
  #insertColor(inserted: number): void {
    const color = this.#color;
    let node = inserted;
    let parent = this.#parent[node]!;
    while (color[parent] === RED) {
      const grand = this.#parent[parent]!;
      const onLeft = this.left[grand] === parent;
      const near = onLeft ? this.left : this.right;
      const far = onLeft ? this.right : this.left;
      const uncle = far[grand]!;
      if (color[uncle] === RED) {
        color[parent] = color[uncle] = BLACK;
        color[grand] = RED;
        node = grand;
        parent = this.#parent[node]!;
        continue;
      }
      if (far[parent] === node) {
        this.#rotate(parent, near, far);
        node = parent;
        parent = this.#parent[node]!;
      }
      color[parent] = BLACK;
      color[grand] = RED;
      this.#rotate(grand, far, near);
    }
    color[this.root] = BLACK;
  }

  /** Takes a node out (kernel: `rb_erase`). */
  erase(node: number): void {
    const { left, right } = this;
    const color = this.#color;
    let gone = color[node]!;
    let child: number;
    if (left[node] === NIL) {
      child = right[node]!;
      this.#replace(node, child);
    } else if (right[node] === NIL) {
      child = left[node]!;
      this.#replace(node, child);
    } else {
      let next = right[node]!;
      while (left[next] !== NIL) next = left[next]!;
      gone = color[next]!;
      child = right[next]!;
      if (this.#parent[next] === node) this.#parent[child] = next;
      else {
        this.#replace(next, child);
        right[next] = right[node]!;
        this.#parent[right[next]!] = next;
      }
      this.#replace(node, next);
      left[next] = left[node]!;
      this.#parent[left[next]!] = next;
      color[next] = color[node]!;
    }
    if (gone === BLACK) this.#eraseColor(child);
    right[node] = this.#unused;
    this.#unused = node;
    this.count--;
  }

  /** Kernel: `__rb_erase_color`. The node, which may be none, lacks a black one. */
  #eraseColor(lacking: number): void {
    const color = this.#color;
    let node = lacking;
    while (node !== this.root && color[node] === BLACK) {
      const parent = this.#parent[node]!;
      const onLeft = this.left[parent] === node;
      const near = onLeft ? this.left : this.right;
      const far = onLeft ? this.right : this.left;
      let sibling = far[parent]!;
      if (color[sibling] === RED) {
        color[sibling] = BLACK;
        color[parent] = RED;
        this.#rotate(parent, near, far);
        sibling = far[parent]!;
      }
      if (color[near[sibling]!] === BLACK && color[far[sibling]!] === BLACK) {
        color[sibling] = RED;
        node = parent;
        continue;
      }
      if (color[far[sibling]!] === BLACK) {
        color[near[sibling]!] = BLACK;
        color[sibling] = RED;
        this.#rotate(sibling, far, near);
        sibling = far[parent]!;
      }
      color[sibling] = color[parent]!;
      color[parent] = color[far[sibling]!] = BLACK;
      this.#rotate(parent, near, far);
      node = this.root;
    }
    color[node] = BLACK;
  }
}

/** Result of {@linkcode xfsExtentBusyTrim}. */
export interface BusyTrim {
  /** First block that may be used. */
  bno: number;
  /** Blocks that may be used; 0 if there are not enough. */
  len: number;
}

/** A range was freed (kernel: `xfs_extent_busy_insert`). */
export function xfsExtentBusyInsert(
  pag: XfsPerag,
  bno: number,
  len: number,
): void {
  pag.busy.insert(bno, len);
}

/** Metadata takes blocks, busy or not: they are not any more (kernel:
 * `xfs_extent_busy_reuse`). */
export function xfsExtentBusyReuse(
  pag: XfsPerag,
  bno: number,
  len: number,
): void {
  const { busy } = pag;
  const end = bno + len;
  let node = busy.root;
  while (node !== NIL) {
    const from = busy.bno[node]!;
    const to = from + busy.len[node]!;
    if (end <= from) node = busy.left[node]!;
    else if (bno >= to) node = busy.right[node]!;
    else {
      // What is in the middle of an extent cannot be told from it: the log is forced.
      if (from < bno && to > end) busy.clear();
      else if (from >= bno && to <= end) busy.erase(node);
      else if (from < bno) busy.len[node] = bno - from;
      else {
        busy.bno[node] = end;
        busy.len[node] = to - end;
      }
      node = busy.root;
    }
  }
}

/**
 * Cuts what is busy off a free extent (kernel: `xfs_extent_busy_trim`). Where busy
 * blocks lie in its middle, the part before them is taken if it has `maxlen` blocks,
 * else the part after them if it is much longer, else the part before if it will do.
 *
 * @param minlen Fewest blocks that are of use.
 * @param maxlen Blocks that are wanted.
 * @param out In: the free extent; out: the part that is not busy.
 * @returns Whether any of it was busy.
 */
export function xfsExtentBusyTrim(
  pag: XfsPerag,
  minlen: number,
  maxlen: number,
  out: BusyTrim,
): boolean {
  const { busy } = pag;
  const { len } = out;
  let { bno } = out;
  let end = bno + len;
  let node = busy.root;
  while (node !== NIL && end - bno >= minlen) {
    const from = busy.bno[node]!;
    const to = from + busy.len[node]!;
    if (end <= from) node = busy.left[node]!;
    else if (bno >= to) node = busy.right[node]!;
    else if (from <= bno) {
      if (end <= to) end = bno;
      else bno = to;
      if (end === bno) break;
    } else if (to >= end || from - bno >= maxlen) end = from;
    else if (end - to >= maxlen * 4) bno = to;
    else if (from - bno >= minlen) end = from;
    else {
      end = bno;
      break;
    }
  }
  out.bno = bno;
  out.len = end - bno;
  return out.len !== len;
}

/** All that has been done is in the log, so nothing is busy any more (kernel:
 * `xfs_extent_busy_clear` by a checkpoint, `xfs_extent_busy_flush`). */
export function xfsExtentBusyClearAll(mp: XfsMount): void {
  for (const pag of mp.perags) pag.busy.clear();
}
