/**
 * The index of one file's cached pages: page number to frame number, with tags.
 *
 * A radix tree of 512-way nodes. A leaf is an Int32Array of frame numbers in
 * which every page of a large folio has the folio's first frame. Tags sit at a
 * folio's first page only; each node above has a bit for every child in which
 * something has the tag, so a walk visits nothing else. Page numbers go up to
 * 2^41 and a leaf's number to 2^32, which is why it is kept as an unsigned 32-bit
 * integer. The leaves of the file's beginning have their frames in one array, where a
 * lookup needs no walk: at random the nodes on its way are in no cache of the processor.
 *
 * Where a page has been evicted, a number below 0 may stay: its shadow, which says
 * when that was. It is no page: it has a tag of its own and none of the others.
 *
 * Kernel counterpart: lib/xarray.c.
 *
 * @module
 */

import { bitmapSet, findNextBit } from "../lib/bitmap.ts";

const SLOT_BITS = 9;
const SLOTS = 1 << SLOT_BITS;
const SLOT_MASK = SLOTS - 1;
/** Words of one tag's bitmap. */
const WORDS = SLOTS / 32;

/** The tag that every folio has. */
export const INDEX_PRESENT = 3;
/** The tag of every page that has a shadow. */
export const INDEX_SHADOW = 4;
const TAGS = 5;

const NO_FRAMES = new Int32Array(0);
const NO_CHILDREN: (IndexNode | null)[] = [];

/** A leaf, or a node above; one shape for both keeps the walks monomorphic. */
class IndexNode {
  /** A leaf's; set when it has been made. */
  frames: Int32Array = NO_FRAMES;
  readonly children: (IndexNode | null)[];
  readonly tags: Uint32Array = new Uint32Array(TAGS * WORDS);
  parent: IndexNode | null = null;
  /** Its place in the parent. */
  slot = 0;
  /** Whether it is one of {@linkcode ShadowNodes}. */
  listed = false;

  constructor(leaf: boolean) {
    this.children = leaf ? NO_CHILDREN : new Array(SLOTS).fill(null);
  }

  /** Whether something here or below has the tag. */
  any(tag: number): boolean {
    const end = (tag + 1) * WORDS;
    for (let w = tag * WORDS; w < end; w++) {
      if (this.tags[w] !== 0) return true;
    }
    return false;
  }
}

/** Leaves in which nothing but shadows is left, of all files of one memory: as many as
 * are worth their room (kernel: `shadow_nodes`). */
export class ShadowNodes {
  readonly #max: number;
  readonly #leaves = new Map<IndexNode, PageIndex>();

  /** None yet. @param max Most leaves; the oldest go first. */
  constructor(max: number) {
    this.#max = max;
  }

  /** Leaves that there are. */
  get size(): number {
    return this.#leaves.size;
  }

  /** The last folio of a leaf has gone, shadows have not.
   * @internal */
  add(leaf: IndexNode, index: PageIndex): void {
    leaf.listed = true;
    this.#leaves.set(leaf, index);
    if (this.#leaves.size <= this.#max) return;
    const [oldest, owner] = this.#leaves.entries().next().value!;
    owner.dropLeaf(oldest);
  }

  /** The leaf has a folio again, or nothing at all.
   * @internal */
  delete(leaf: IndexNode): void {
    leaf.listed = false;
    this.#leaves.delete(leaf);
  }
}

/** Pages below one slot of a node that many levels above the leaves. */
const SPANS = [1, 2 ** 9, 2 ** 18, 2 ** 27, 2 ** 36, 2 ** 45];

/** Cached pages of one file (kernel: `i_pages`). */
export class PageIndex {
  #root: IndexNode | null = null;
  /** Levels above the leaves. */
  #height = 0;
  /** Leaves that so many levels can hold. */
  #capacity = 1;
  /** Leaf last looked at: hot and sequential lookups stop there. */
  #lastLeaf: IndexNode | null = null;
  #lastNumber = -1;
  /** Leaves that there are. */
  #nrLeaves = 0;
  /** Frames of the first pages: each leaf there has a part of it. */
  #near: Int32Array = NO_FRAMES;
  /** Pages that have a shadow. */
  #nrShadows = 0;
  readonly #shadowNodes: ShadowNodes | null;

  /** Without any pages. @param shadowNodes Null if there are no shadows. */
  constructor(shadowNodes: ShadowNodes | null = null) {
    this.#shadowNodes = shadowNodes;
  }

  /** Pages that have a shadow. */
  get nrShadows(): number {
    return this.#nrShadows;
  }

  /** Frame of the folio that holds a page; 0 if there is none, or its shadow below. */
  get(index: number): number {
    if (index < this.#near.length) return this.#near[index]!;
    const number = (index / SLOTS) >>> 0;
    if (number !== this.#lastNumber && !this.#find(number)) return 0;
    return this.#lastLeaf!.frames[index & SLOT_MASK]!;
  }

  /** Enters a folio: `count` pages from `index`, aligned to their number. */
  set(index: number, count: number, frame: number): void {
    const number = (index / SLOTS) >>> 0;
    if (number !== this.#lastNumber && !this.#find(number)) this.#make(number);
    const leaf = this.#lastLeaf!;
    const first = index & SLOT_MASK;
    if (count === 1) {
      if (this.#nrShadows > 0) this.#loseShadow(leaf, first);
      leaf.frames[first] = frame;
    } else {
      if (this.#nrShadows > 0) this.#loseShadows(leaf, first, first + count);
      leaf.frames.fill(frame, first, first + count);
    }
    setTag(leaf, first, INDEX_PRESENT);
    if (leaf.listed) this.#shadowNodes!.delete(leaf);
  }

  /** Takes a folio out, with its tags. */
  clear(index: number, count: number): void {
    const number = (index / SLOTS) >>> 0;
    if (number !== this.#lastNumber && !this.#find(number)) return;
    const leaf = this.#lastLeaf!;
    const first = index & SLOT_MASK;
    if (count === 1) leaf.frames[first] = 0;
    else leaf.frames.fill(0, first, first + count);
    for (let tag = 0; tag < INDEX_SHADOW; tag++) clearTag(leaf, first, tag);
    if (!leaf.any(INDEX_PRESENT)) this.#emptied(leaf);
  }

  /** Takes a folio out, and leaves a shadow of each of its pages. @param shadow Below 0. */
  evict(index: number, count: number, shadow: number): void {
    const number = (index / SLOTS) >>> 0;
    if (number !== this.#lastNumber && !this.#find(number)) return;
    const leaf = this.#lastLeaf!;
    const first = index & SLOT_MASK;
    setTag(leaf, first, INDEX_SHADOW);
    if (count === 1) leaf.frames[first] = shadow;
    else {
      leaf.frames.fill(shadow, first, first + count);
      bitmapSet(leaf.tags, INDEX_SHADOW * SLOTS + first, count);
    }
    this.#nrShadows += count;
    for (let tag = 0; tag < INDEX_SHADOW; tag++) clearTag(leaf, first, tag);
    if (!leaf.any(INDEX_PRESENT)) this.#emptied(leaf);
  }

  /** Forgets the shadows of [start, last] (kernel: `clear_shadow_entries`).
   * @param last May be Infinity. */
  clearShadows(start: number, last: number): void {
    let index = start;
    while (this.#nrShadows > 0) {
      index = this.next(index, last, INDEX_SHADOW);
      if (index < 0) return;
      this.#find((index / SLOTS) >>> 0);
      const leaf = this.#lastLeaf!;
      const first = index & SLOT_MASK;
      const end = Math.min(SLOTS, first + last - index + 1);
      this.#loseShadows(leaf, first, end);
      if (!leaf.any(INDEX_PRESENT) && !leaf.any(INDEX_SHADOW)) {
        if (leaf.listed) this.#shadowNodes!.delete(leaf);
        this.#prune(leaf);
      }
      index += end - first;
    }
  }

  /** Forgets all shadows of a leaf that has nothing else.
   * @internal */
  dropLeaf(leaf: IndexNode): void {
    this.#shadowNodes!.delete(leaf);
    this.#loseShadows(leaf, 0, SLOTS);
    this.#prune(leaf);
  }

  /** Forgets the shadows of slots [first, end) of a leaf. */
  #loseShadows(leaf: IndexNode, first: number, end: number): void {
    const base = INDEX_SHADOW * SLOTS;
    for (let slot = first;; slot++) {
      slot = findNextBit(leaf.tags, base + end, base + slot) - base;
      if (slot === end) return;
      this.#loseShadow(leaf, slot);
    }
  }

  #loseShadow(leaf: IndexNode, slot: number): void {
    if (leaf.frames[slot]! >= 0) return;
    leaf.frames[slot] = 0;
    this.#nrShadows--;
    clearTag(leaf, slot, INDEX_SHADOW);
  }

  /** The last folio of a leaf has gone. */
  #emptied(leaf: IndexNode): void {
    if (leaf.any(INDEX_SHADOW)) this.#shadowNodes!.add(leaf, this);
    else this.#prune(leaf);
  }

  /** Sets a tag of the folio that begins at `index`. */
  setTag(index: number, tag: number): void {
    const number = (index / SLOTS) >>> 0;
    if (number !== this.#lastNumber && !this.#find(number)) return;
    setTag(this.#lastLeaf!, index & SLOT_MASK, tag);
  }

  /** Clears a tag of the folio that begins at `index`. */
  clearTag(index: number, tag: number): void {
    const number = (index / SLOTS) >>> 0;
    if (number !== this.#lastNumber && !this.#find(number)) return;
    clearTag(this.#lastLeaf!, index & SLOT_MASK, tag);
  }

  /** Whether the folio that begins at `index` has a tag. */
  hasTag(index: number, tag: number): boolean {
    const number = (index / SLOTS) >>> 0;
    if (number !== this.#lastNumber && !this.#find(number)) return false;
    const slot = index & SLOT_MASK;
    const word = this.#lastLeaf!.tags[tag * WORDS + (slot >>> 5)]!;
    return (word & (1 << (slot & 31))) !== 0;
  }

  /** Whether any folio has a tag. */
  tagged(tag: number): boolean {
    return this.#root !== null && this.#root.any(tag);
  }

  /**
   * First folio with a tag that begins in [start, last].
   *
   * @param last May be Infinity.
   * @returns Its first page, or -1.
   */
  next(start: number, last: number, tag: number): number {
    let index = start;
    while (index <= last && this.#root !== null) {
      if (index >= SPANS[this.#height + 1]!) return -1;
      let node = this.#root;
      let level = this.#height;
      for (;;) {
        const below = SPANS[level]!;
        const whole = SPANS[level + 1]!;
        const slot = Math.floor(index / below) & SLOT_MASK;
        const bit = tag * SLOTS;
        const found = findNextBit(node.tags, bit + SLOTS, bit + slot) - bit;
        const base = Math.floor(index / whole) * whole;
        if (found === SLOTS) {
          // Nothing more in this node: on with the one behind it.
          if (level === this.#height) return -1;
          index = base + whole;
          break;
        }
        if (found !== slot) index = base + found * below;
        if (level === 0) return index <= last ? index : -1;
        node = node.children[found]!;
        level--;
      }
    }
    return -1;
  }

  /** Makes the leaf of that number the last one; false if there is none. */
  #find(number: number): boolean {
    let node = this.#root;
    if (node === null || number >= this.#capacity) return false;
    for (let level = this.#height; level > 0; level--) {
      node = node.children[(number >>> ((level - 1) * SLOT_BITS)) & SLOT_MASK]!;
      if (node === null) return false;
    }
    this.#lastLeaf = node;
    this.#lastNumber = number;
    return true;
  }

  #make(number: number): void {
    while (this.#root === null || number >= this.#capacity) {
      this.#raise(number);
    }
    let node = this.#root;
    for (let level = this.#height; level > 0; level--) {
      const slot = (number >>> ((level - 1) * SLOT_BITS)) & SLOT_MASK;
      node = node.children[slot] ??
        adopt(node, slot, new IndexNode(level === 1));
    }
    node.frames = this.#newFrames(number);
    this.#lastLeaf = node;
    this.#lastNumber = number;
  }

  /** Room for the frames of a leaf that has just been made. */
  #newFrames(number: number): Int32Array {
    const end = (number + 1) * SLOTS;
    this.#nrLeaves++;
    if (end > this.#near.length) {
      // Half of what it is made for exists, so sparse files take no room for nothing.
      if (number >= 2 * this.#nrLeaves) return new Int32Array(SLOTS);
      this.#growNear(end);
    }
    return this.#near.subarray(end - SLOTS, end);
  }

  /** Moves the frames of the leaves up to `end` pages into one array. */
  #growNear(end: number): void {
    const near = new Int32Array(2 ** Math.ceil(Math.log2(end)));
    for (let at = 0; at < near.length; at += SLOTS) {
      if (!this.#find(at / SLOTS)) continue;
      const leaf = this.#lastLeaf!;
      near.set(leaf.frames, at);
      leaf.frames = near.subarray(at, at + SLOTS);
    }
    this.#near = near;
  }

  /** A first root, or one more level above the root. */
  #raise(number: number): void {
    const old = this.#root;
    if (old === null) {
      while (number >= this.#capacity) this.#setHeight(this.#height + 1);
      this.#root = new IndexNode(this.#height === 0);
      return;
    }
    this.#root = new IndexNode(false);
    this.#setHeight(this.#height + 1);
    adopt(this.#root, 0, old);
    for (let tag = 0; tag < TAGS; tag++) {
      if (old.any(tag)) setTag(this.#root, 0, tag);
    }
  }

  #setHeight(height: number): void {
    this.#height = height;
    this.#capacity = SPANS[height]!;
  }

  /** Drops nodes in which nothing is left. */
  #prune(leaf: IndexNode): void {
    let node = leaf;
    this.#nrLeaves--;
    while (node.parent !== null && isEmpty(node)) {
      node.parent.children[node.slot] = null;
      node = node.parent;
    }
    if (isEmpty(node)) {
      this.#root = null;
      this.#near = NO_FRAMES;
      this.#setHeight(0);
    }
    this.#lastLeaf = null;
    this.#lastNumber = -1;
  }
}

function adopt(parent: IndexNode, slot: number, child: IndexNode): IndexNode {
  parent.children[slot] = child;
  child.parent = parent;
  child.slot = slot;
  return child;
}

function setTag(leaf: IndexNode, first: number, tag: number): void {
  let slot = first;
  for (let node: IndexNode | null = leaf; node !== null; node = node.parent) {
    const w = tag * WORDS + (slot >>> 5);
    const word = node.tags[w]!;
    node.tags[w] = word | (1 << (slot & 31));
    // Where one bit is set, the nodes above know already.
    if (word !== 0) return;
    slot = node.slot;
  }
}

function clearTag(leaf: IndexNode, first: number, tag: number): void {
  const bit = 1 << (first & 31);
  if ((leaf.tags[tag * WORDS + (first >>> 5)]! & bit) === 0) return;
  let slot = first;
  for (let node: IndexNode | null = leaf; node !== null; node = node.parent) {
    const w = tag * WORDS + (slot >>> 5);
    const word = node.tags[w]! & ~(1 << (slot & 31));
    node.tags[w] = word;
    if (word !== 0 || node.any(tag)) return;
    slot = node.slot;
  }
}

function isEmpty(node: IndexNode): boolean {
  return !node.any(INDEX_PRESENT) && !node.any(INDEX_SHADOW);
}
