/**
 * The extent list of a fork in memory, ordered by file offset.
 *
 * Leaves of at most 128 extents in typed arrays, and a list of leaves: a look-up
 * in a file of a hundred thousand extents takes two short binary searches, and
 * the extent that was found last is tried first. The list knows nothing of how
 * extents merge or where their blocks come from: that is `bmap.ts`.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_iext_tree.c.
 *
 * @module
 */

/** Start block of an extent whose space is promised but not chosen (kernel:
 * `nullstartblock`). */
export const DELAYSTARTBLOCK: number = -1;
/** Start block of a hole; never in the list (kernel: `HOLESTARTBLOCK`). */
export const HOLESTARTBLOCK: number = -2;

/** One extent, in blocks (kernel: `struct xfs_bmbt_irec`). */
export class BmbtIrec {
  /** First block in the file. */
  startoff = 0;
  /** First block on the device, or `DELAYSTARTBLOCK`, `HOLESTARTBLOCK`. */
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
/** Room of a first leaf: most files have few extents. */
const FIRST_EXTENTS = 4;

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

  /** Moves the upper half into a new leaf. */
  split(): Leaf {
    const half = this.n >> 1;
    const upper = this.#copy(new Leaf(LEAF_EXTENTS), half);
    this.n = half;
    return upper;
  }

  /** A leaf with the same extents and more room. */
  grown(): Leaf {
    const room = Math.max(FIRST_EXTENTS, 2 * this.room);
    return this.#copy(new Leaf(Math.min(room, LEAF_EXTENTS)), 0);
  }

  #copy(to: Leaf, from: number): Leaf {
    to.off.set(this.off.subarray(from, this.n));
    to.block.set(this.block.subarray(from, this.n));
    to.count.set(this.count.subarray(from, this.n));
    to.unwritten.set(this.unwritten.subarray(from, this.n));
    to.n = this.n - from;
    return to;
  }
}

/** What an empty list begins with; has no room. */
const EMPTY = new Leaf(0);

/** A place in the list; good until the list changes (kernel: `struct xfs_iext_cursor`). */
export class IextCursor {
  /** Index of the leaf. */
  leaf = 0;
  /** Index in the leaf. */
  at = 0;
}

/** The extents of one fork: data, or copy-on-write (kernel: `struct xfs_ifork`). */
export class Ifork {
  #leaves: Leaf[] = [EMPTY];
  // The last extent that a look-up found.
  #hitLeaf = 0;
  #hitAt = 0;
  /** Extents. */
  nextents = 0;
  /** Changes so far; what a mapping's validity cookie is made of (kernel: `if_seq`). */
  seq = 0;

  /**
   * Finds the extent that covers `bno`, or the first after it (kernel:
   * `xfs_iext_lookup_extent`).
   *
   * @param cur Set to its place, or to the end.
   * @param got Filled in if there is one.
   * @returns False if `bno` lies beyond all extents.
   */
  lookup(bno: number, cur: IextCursor, got: BmbtIrec): boolean {
    const hit = this.#leaves[this.#hitLeaf];
    const at = this.#hitAt;
    if (hit !== undefined && at < hit.n) {
      const off = hit.off[at]!;
      if (off <= bno && bno < off + hit.count[at]!) {
        cur.leaf = this.#hitLeaf;
        cur.at = at;
        hit.get(at, got);
        return true;
      }
    }
    return this.#search(bno, cur, got);
  }

  #search(bno: number, cur: IextCursor, got: BmbtIrec): boolean {
    const leaves = this.#leaves;
    let low = 0;
    let high = leaves.length - 1;
    while (low < high) {
      const mid = (low + high + 1) >> 1;
      if (leaves[mid]!.off[0]! <= bno) low = mid;
      else high = mid - 1;
    }
    const leaf = leaves[low]!;
    let from = 0;
    let to = leaf.n;
    while (from < to) {
      const mid = (from + to) >> 1;
      if (leaf.off[mid]! + leaf.count[mid]! <= bno) from = mid + 1;
      else to = mid;
    }
    cur.leaf = low;
    cur.at = from;
    if (!this.#settle(cur)) return false;
    this.#hitLeaf = cur.leaf;
    this.#hitAt = cur.at;
    this.#leaves[cur.leaf]!.get(cur.at, got);
    return true;
  }

  /** Moves to the first extent (kernel: `xfs_iext_first`). */
  first(cur: IextCursor, got: BmbtIrec): boolean {
    cur.leaf = 0;
    cur.at = 0;
    return this.get(cur, got);
  }

  /** Moves to the last extent (kernel: `xfs_iext_last`). */
  last(cur: IextCursor, got: BmbtIrec): boolean {
    cur.leaf = this.#leaves.length - 1;
    cur.at = this.#leaves[cur.leaf]!.n;
    return this.prev(cur, got);
  }

  /** The extent at a cursor (kernel: `xfs_iext_get_extent`); false at the end. */
  get(cur: IextCursor, got: BmbtIrec): boolean {
    if (!this.#settle(cur)) return false;
    this.#leaves[cur.leaf]!.get(cur.at, got);
    return true;
  }

  /** Moves one extent up (kernel: `xfs_iext_next_extent`). */
  next(cur: IextCursor, got: BmbtIrec): boolean {
    cur.at++;
    return this.get(cur, got);
  }

  /** Moves one extent down (kernel: `xfs_iext_prev_extent`). At the first one the
   * cursor stays. */
  prev(cur: IextCursor, got: BmbtIrec): boolean {
    if (cur.at === 0) {
      if (cur.leaf === 0) return false;
      cur.leaf--;
      cur.at = this.#leaves[cur.leaf]!.n;
    }
    cur.at--;
    this.#leaves[cur.leaf]!.get(cur.at, got);
    return true;
  }

  /** The extent before a cursor, which stays (kernel: `xfs_iext_peek_prev_extent`). */
  peekPrev(cur: IextCursor, got: BmbtIrec): boolean {
    if (cur.at > 0) {
      this.#leaves[cur.leaf]!.get(cur.at - 1, got);
      return true;
    }
    if (cur.leaf === 0) return false;
    const leaf = this.#leaves[cur.leaf - 1]!;
    leaf.get(leaf.n - 1, got);
    return true;
  }

  /** The extent at a cursor takes other values, in the same place of the order
   * (kernel: `xfs_iext_update_extent`). */
  update(cur: IextCursor, rec: BmbtIrec): void {
    this.#leaves[cur.leaf]!.put(cur.at, rec);
    this.seq = (this.seq + 1) >>> 0;
  }

  /** Puts an extent in before the cursor, which then stands on it (kernel:
   * `xfs_iext_insert`). */
  insert(cur: IextCursor, rec: BmbtIrec): void {
    let leaf = this.#leaves[cur.leaf]!;
    if (leaf.n === LEAF_EXTENTS) {
      this.#leaves.splice(cur.leaf + 1, 0, leaf.split());
      if (cur.at > leaf.n) {
        cur.at -= leaf.n;
        leaf = this.#leaves[++cur.leaf]!;
      }
    } else if (leaf.n === leaf.room) {
      leaf = this.#leaves[cur.leaf] = leaf.grown();
    }
    leaf.shift(cur.at + 1, cur.at);
    leaf.put(cur.at, rec);
    this.nextents++;
    this.seq = (this.seq + 1) >>> 0;
  }

  /** Takes out the extent at the cursor, which then stands on the one after it
   * (kernel: `xfs_iext_remove`). */
  remove(cur: IextCursor): void {
    const leaf = this.#leaves[cur.leaf]!;
    leaf.shift(cur.at, cur.at + 1);
    if (leaf.n === 0 && this.#leaves.length > 1) {
      this.#leaves.splice(cur.leaf, 1);
      cur.at = 0;
      if (cur.leaf === this.#leaves.length) {
        cur.leaf--;
        cur.at = this.#leaves[cur.leaf]!.n;
      }
    }
    this.nextents--;
    this.seq = (this.seq + 1) >>> 0;
  }

  /** Steps over the end of a leaf; false at the end of the list. */
  #settle(cur: IextCursor): boolean {
    if (cur.at < this.#leaves[cur.leaf]!.n) return true;
    if (cur.leaf === this.#leaves.length - 1) return false;
    cur.leaf++;
    cur.at = 0;
    return true;
  }
}
