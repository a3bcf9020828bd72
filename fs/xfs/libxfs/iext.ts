/**
 * The extent list of a fork in memory, ordered by file offset.
 *
 * A tree of three levels: leaves of at most 128 extents in typed arrays, nodes of at
 * most 128 leaves, and the list of nodes, which has a hundred entries when a file has a
 * million extents. A look-up takes three short binary searches, and the extent that was
 * found last is tried first; a change moves part of one leaf. The list knows nothing of
 * how extents merge or where their blocks come from: that is `bmap.ts`.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_iext_tree.c.
 *
 * @module
 */

import type { XfsBtreeBlock } from "./btree.ts";

/** Start block that is reported for promised space; never in the list (kernel:
 * `DELAYSTARTBLOCK`). */
export const DELAYSTARTBLOCK: number = -1;
/** Start block of a hole; never in the list (kernel: `HOLESTARTBLOCK`). */
export const HOLESTARTBLOCK: number = -2;
/** Start blocks from here down are promised space. */
const DELAYED: number = -16;

/** Start block of promised space (kernel: `nullstartblock`).
 * @param indlen Blocks that are reserved for the map itself. */
export function nullstartblock(indlen: number): number {
  return DELAYED - indlen;
}

/** Whether a start block is no block: promised space, whether from the list or as it is
 * reported, or a hole (kernel: `isnullstartblock`). */
export function isnullstartblock(startblock: number): boolean {
  return startblock < 0;
}

/** Blocks reserved for the map of promised space (kernel: `startblockval`). */
export function startblockval(startblock: number): number {
  return DELAYED - startblock;
}

/** One extent, in blocks (kernel: `struct xfs_bmbt_irec`). */
export class BmbtIrec {
  /** First block in the file. */
  startoff = 0;
  /** First block on the device (an fsbno), or {@linkcode nullstartblock}; in what look-ups
   * report, `DELAYSTARTBLOCK` or `HOLESTARTBLOCK`, too. */
  startblock = 0;
  /** Blocks. */
  count = 0;
  /** Allocated, but reads as zero. */
  unwritten = false;

  /** First block in the file after it. */
  get endoff(): number {
    return this.startoff + this.count;
  }

  /** Fills in all fields; returns itself. */
  set(
    startoff: number,
    startblock: number,
    count: number,
    unwritten: boolean,
  ): this {
    this.startoff = startoff;
    this.startblock = startblock;
    this.count = count;
    this.unwritten = unwritten;
    return this;
  }

  /** Takes over another's fields; returns itself. */
  copy(from: BmbtIrec): this {
    return this.set(
      from.startoff,
      from.startblock,
      from.count,
      from.unwritten,
    );
  }
}

/** Most extents of a leaf. */
const LEAF_EXTENTS = 128;
/** A leaf with so few extents or less is joined with a neighbour, if there is room. */
const LEAF_FEW = LEAF_EXTENTS / 4;
/** Most extents of two leaves that are joined: the next insert must not split again. */
const LEAF_JOINED = 3 * LEAF_FEW;
/** Room of a first leaf: most files have few extents. */
const FIRST_EXTENTS = 4;
/** Most leaves of a node. */
const NODE_LEAVES = 128;

class Leaf {
  readonly room: number;
  readonly off: Float64Array;
  readonly block: Float64Array;
  readonly count: Float64Array;
  readonly unwritten: Uint8Array;
  n = 0;

  constructor(room: number) {
    this.room = room;
    this.off = new Float64Array(room);
    this.block = new Float64Array(room);
    this.count = new Float64Array(room);
    this.unwritten = new Uint8Array(room);
  }

  get(at: number, out: BmbtIrec): void {
    out.startoff = this.off[at]!;
    out.startblock = this.block[at]!;
    out.count = this.count[at]!;
    out.unwritten = this.unwritten[at] !== 0;
  }

  put(at: number, rec: BmbtIrec): void {
    this.off[at] = rec.startoff;
    this.block[at] = rec.startblock;
    this.count[at] = rec.count;
    this.unwritten[at] = rec.unwritten ? 1 : 0;
  }

  /** Moves what begins at `from` to `to`. */
  shift(to: number, from: number): void {
    this.off.copyWithin(to, from, this.n);
    this.block.copyWithin(to, from, this.n);
    this.count.copyWithin(to, from, this.n);
    this.unwritten.copyWithin(to, from, this.n);
    this.n += to - from;
  }

  /** Moves the extents from `at` on into a new leaf. */
  split(at: number): Leaf {
    const upper = new Leaf(LEAF_EXTENTS);
    upper.append(this, at);
    this.n = at;
    return upper;
  }

  /** A leaf with the same extents and more room. */
  grown(room: number): Leaf {
    const leaf = new Leaf(Math.min(room, LEAF_EXTENTS));
    leaf.append(this, 0);
    return leaf;
  }

  /** Takes over another's extents from `at` on, behind its own. */
  append(from: Leaf, at: number): void {
    this.off.set(from.off.subarray(at, from.n), this.n);
    this.block.set(from.block.subarray(at, from.n), this.n);
    this.count.set(from.count.subarray(at, from.n), this.n);
    this.unwritten.set(from.unwritten.subarray(at, from.n), this.n);
    this.n += from.n - at;
  }
}

class Node {
  readonly leaves: Leaf[];
  /** First file block of each leaf. */
  readonly lows: number[];

  constructor(leaves: Leaf[], lows: number[]) {
    this.leaves = leaves;
    this.lows = lows;
  }

  /** Index of the last leaf that begins at or before `bno`, or 0. */
  find(bno: number): number {
    const { lows } = this;
    let low = 0;
    let high = lows.length - 1;
    while (low < high) {
      const mid = (low + high + 1) >> 1;
      if (lows[mid]! <= bno) low = mid;
      else high = mid - 1;
    }
    return low;
  }
}

/** What an empty list consists of; has no room. */
const NOTHING: Node[] = [new Node([new Leaf(0)], [0])];

/** A place in the list; good until the list changes (kernel: `struct xfs_iext_cursor`). */
export class IextCursor {
  /** Index of the node. */
  node = 0;
  /** Index of the leaf in it. */
  leaf = 0;
  /** Index in the leaf. */
  at = 0;
}

/** One fork: data, attributes or copy-on-write (kernel: `struct xfs_ifork`). */
export class Ifork {
  /** `XFS_DINODE_FMT_*`. */
  format = 0;
  /** Contents of a local fork, else null (kernel: `if_data`). */
  local: Uint8Array | null = null;
  /** Root of a fork's tree, else null: a block in the long form with just the room that
   * the fork has on disk (kernel: `if_broot`). */
  broot: XfsBtreeBlock | null = null;
  /** The tree has been read into the list (kernel: `!xfs_need_iread_extents`). */
  loaded = true;
  /** Extents that have blocks; on disk if it is not the copy-on-write fork. Kept by
   * whoever changes the list (kernel: `if_nextents`). */
  nextents = 0;
  /** Extents in the list, promised ones too (kernel: `xfs_iext_count`). */
  count = 0;
  /** Changes so far; what a mapping's validity cookie is made of (kernel: `if_seq`). */
  seq = 0;
  #nodes: Node[] = NOTHING;
  // The last extent that a look-up found.
  readonly #hit = new IextCursor();

  /**
   * Finds the extent that covers `bno`, or the first after it (kernel:
   * `xfs_iext_lookup_extent`).
   *
   * @param cur Set to its place, or to the end.
   * @param got Filled in if there is one.
   * @returns False if `bno` lies beyond all extents.
   */
  lookup(bno: number, cur: IextCursor, got: BmbtIrec): boolean {
    const { node, leaf, at } = this.#hit;
    const hit = this.#nodes[node]?.leaves[leaf];
    if (hit === undefined || at >= hit.n) return this.#search(bno, cur, got);
    const off = hit.off[at]!;
    if (bno < off || bno >= off + hit.count[at]!) {
      return this.#search(bno, cur, got);
    }
    cur.node = node;
    cur.leaf = leaf;
    cur.at = at;
    hit.get(at, got);
    return true;
  }

  #search(bno: number, cur: IextCursor, got: BmbtIrec): boolean {
    const nodes = this.#nodes;
    let low = 0;
    let high = nodes.length - 1;
    while (low < high) {
      const mid = (low + high + 1) >> 1;
      if (nodes[mid]!.lows[0]! <= bno) low = mid;
      else high = mid - 1;
    }
    cur.node = low;
    cur.leaf = nodes[low]!.find(bno);
    const leaf = nodes[low]!.leaves[cur.leaf]!;
    let from = 0;
    let to = leaf.n;
    while (from < to) {
      const mid = (from + to) >> 1;
      if (leaf.off[mid]! + leaf.count[mid]! <= bno) from = mid + 1;
      else to = mid;
    }
    cur.at = from;
    if (!this.#settle(cur)) return false;
    this.#hit.node = cur.node;
    this.#hit.leaf = cur.leaf;
    this.#hit.at = cur.at;
    this.#leafAt(cur).get(cur.at, got);
    return true;
  }

  /**
   * Finds the last extent that begins before `end` (kernel:
   * `xfs_iext_lookup_extent_before`).
   *
   * @param end First block after the range that counts.
   * @returns False if there is none.
   */
  lookupBefore(end: number, cur: IextCursor, got: BmbtIrec): boolean {
    if (this.lookup(end - 1, cur, got) && got.startoff < end) return true;
    return this.prev(cur, got);
  }

  /** Moves to the first extent (kernel: `xfs_iext_first`). */
  first(cur: IextCursor, got: BmbtIrec): boolean {
    cur.node = 0;
    cur.leaf = 0;
    cur.at = 0;
    return this.get(cur, got);
  }

  /** Moves to the last extent (kernel: `xfs_iext_last`). */
  last(cur: IextCursor, got: BmbtIrec): boolean {
    this.end(cur);
    return this.prev(cur, got);
  }

  /** Moves behind the last extent: what is inserted there is appended. */
  end(cur: IextCursor): void {
    cur.node = this.#nodes.length - 1;
    cur.leaf = this.#nodes[cur.node]!.leaves.length - 1;
    cur.at = this.#leafAt(cur).n;
  }

  /** The extent at a cursor (kernel: `xfs_iext_get_extent`); false at either end. */
  get(cur: IextCursor, got: BmbtIrec): boolean {
    if (!this.#settle(cur)) return false;
    this.#leafAt(cur).get(cur.at, got);
    return true;
  }

  /** Moves one extent up (kernel: `xfs_iext_next_extent`). */
  next(cur: IextCursor, got: BmbtIrec): boolean {
    cur.at++;
    return this.get(cur, got);
  }

  /** Moves one extent down (kernel: `xfs_iext_prev_extent`). From the first one the
   * cursor goes to where there is none. */
  prev(cur: IextCursor, got: BmbtIrec): boolean {
    if (cur.at <= 0 && !this.#stepBack(cur)) return false;
    cur.at--;
    this.#leafAt(cur).get(cur.at, got);
    return true;
  }

  /** To the end of the leaf before; if there is none, before the first extent. */
  #stepBack(cur: IextCursor): boolean {
    if (cur.leaf > 0) cur.leaf--;
    else if (cur.node > 0) {
      cur.leaf = this.#nodes[--cur.node]!.leaves.length - 1;
    } else {
      cur.at = -1;
      return false;
    }
    cur.at = this.#leafAt(cur).n;
    return true;
  }

  /** The extent before a cursor, which stays (kernel: `xfs_iext_peek_prev_extent`). */
  peekPrev(cur: IextCursor, got: BmbtIrec): boolean {
    const { node, leaf, at } = cur;
    const found = this.prev(cur, got);
    cur.node = node;
    cur.leaf = leaf;
    cur.at = at;
    return found;
  }

  /** The extent after the one at a cursor, which stays (kernel:
   * `xfs_iext_peek_next_extent`). */
  peekNext(cur: IextCursor, got: BmbtIrec): boolean {
    const { node, leaf, at } = cur;
    const found = this.next(cur, got);
    cur.node = node;
    cur.leaf = leaf;
    cur.at = at;
    return found;
  }

  /** The extent at a cursor takes other values, in the same place of the order
   * (kernel: `xfs_iext_update_extent`). */
  update(cur: IextCursor, rec: BmbtIrec): void {
    this.#leafAt(cur).put(cur.at, rec);
    if (cur.at === 0) this.#nodes[cur.node]!.lows[cur.leaf] = rec.startoff;
    this.seq = (this.seq + 1) >>> 0;
  }

  /** Puts an extent in before the cursor, which then stands on it (kernel:
   * `xfs_iext_insert`). */
  insert(cur: IextCursor, rec: BmbtIrec): void {
    if (this.#nodes === NOTHING) {
      this.#nodes = [new Node([new Leaf(FIRST_EXTENTS)], [0])];
    }
    const leaf = this.#makeRoom(cur);
    leaf.shift(cur.at + 1, cur.at);
    leaf.put(cur.at, rec);
    if (cur.at === 0) this.#nodes[cur.node]!.lows[cur.leaf] = rec.startoff;
    this.count++;
    this.seq = (this.seq + 1) >>> 0;
  }

  /** The cursor's leaf, with room for one more; the cursor may move to another. */
  #makeRoom(cur: IextCursor): Leaf {
    const leaf = this.#leafAt(cur);
    if (leaf.n < leaf.room) return leaf;
    const node = this.#nodes[cur.node]!;
    if (leaf.n < LEAF_EXTENTS) {
      return node.leaves[cur.leaf] = leaf.grown(2 * leaf.n);
    }
    // Appending leaves full leaves behind.
    const half = cur.at === leaf.n ? leaf.n : leaf.n >> 1;
    const upper = leaf.split(half);
    node.leaves.splice(cur.leaf + 1, 0, upper);
    node.lows.splice(cur.leaf + 1, 0, upper.off[0]!);
    if (cur.at > half || half === LEAF_EXTENTS) {
      cur.leaf++;
      cur.at -= half;
    }
    this.#splitNode(cur);
    return this.#leafAt(cur);
  }

  #splitNode(cur: IextCursor): void {
    const node = this.#nodes[cur.node]!;
    if (node.leaves.length <= NODE_LEAVES) return;
    const atEnd = cur.leaf === node.leaves.length - 1;
    const half = atEnd ? cur.leaf : node.leaves.length >> 1;
    const upper = new Node(node.leaves.splice(half), node.lows.splice(half));
    this.#nodes.splice(cur.node + 1, 0, upper);
    if (cur.leaf >= half) {
      cur.node++;
      cur.leaf -= half;
    }
  }

  /** Takes out the extent at the cursor, which then stands on the one after it
   * (kernel: `xfs_iext_remove`). */
  remove(cur: IextCursor): void {
    const node = this.#nodes[cur.node]!;
    const leaf = this.#leafAt(cur);
    leaf.shift(cur.at, cur.at + 1);
    this.count--;
    this.seq = (this.seq + 1) >>> 0;
    if (cur.at === 0) node.lows[cur.leaf] = leaf.off[0]!;
    if (leaf.n === 0) this.#dropLeaf(cur);
    else if (leaf.n <= LEAF_FEW) this.#join(node, leaf, cur);
    this.#settle(cur);
  }

  /** Takes the cursor's empty leaf out. */
  #dropLeaf(cur: IextCursor): void {
    if (this.count === 0) return this.clear(cur);
    const node = this.#nodes[cur.node]!;
    node.leaves.splice(cur.leaf, 1);
    node.lows.splice(cur.leaf, 1);
    if (node.leaves.length === 0) {
      this.#nodes.splice(cur.node, 1);
      if (cur.node === this.#nodes.length) this.end(cur);
      else cur.leaf = 0;
    } else if (cur.leaf === node.leaves.length) {
      cur.leaf--;
      cur.at = this.#leafAt(cur).n;
    }
  }

  /** Joins a leaf of few extents with a neighbour of the same node. */
  #join(node: Node, leaf: Leaf, cur: IextCursor): void {
    const next = node.leaves[cur.leaf + 1];
    const prev = node.leaves[cur.leaf - 1];
    if (next !== undefined && leaf.n + next.n <= LEAF_JOINED) {
      this.#joinNext(node, cur.leaf);
    } else if (prev !== undefined && prev.n + leaf.n <= LEAF_JOINED) {
      cur.at += prev.n;
      this.#joinNext(node, --cur.leaf);
    }
  }

  #joinNext(node: Node, at: number): void {
    const next = node.leaves[at + 1]!;
    if (node.leaves[at]!.room < LEAF_EXTENTS) {
      node.leaves[at] = node.leaves[at]!.grown(LEAF_EXTENTS);
    }
    node.leaves[at]!.append(next, 0);
    node.leaves.splice(at + 1, 1);
    node.lows.splice(at + 1, 1);
  }

  /** Takes all extents out (kernel: `xfs_iext_destroy`).
   * @param cur Set to the end, if given. */
  clear(cur: IextCursor | null = null): void {
    this.#nodes = NOTHING;
    this.count = 0;
    if (cur !== null) this.end(cur);
  }

  #leafAt(cur: IextCursor): Leaf {
    return this.#nodes[cur.node]!.leaves[cur.leaf]!;
  }

  /** Steps over the end of a leaf; false at either end of the list. */
  #settle(cur: IextCursor): boolean {
    if (cur.at < 0) return false;
    const node = this.#nodes[cur.node]!;
    if (cur.at < node.leaves[cur.leaf]!.n) return true;
    if (cur.leaf < node.leaves.length - 1) cur.leaf++;
    else if (cur.node === this.#nodes.length - 1) return false;
    else {
      cur.node++;
      cur.leaf = 0;
    }
    cur.at = 0;
    return true;
  }
}
