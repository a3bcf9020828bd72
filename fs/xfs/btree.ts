/**
 * The free space trees of an allocation group: pairs of numbers in order, by
 * block (start, length) and by size (length, start).
 *
 * Two levels: leaves of at most 256 pairs in typed arrays, and a list of leaves.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_btree.c, xfs_alloc_btree.c.
 *
 * @module
 */

const LEAF_PAIRS = 256;

class Leaf {
  readonly a = new Float64Array(LEAF_PAIRS);
  readonly b = new Float64Array(LEAF_PAIRS);
  n = 0;

  insert(at: number, a: number, b: number): void {
    this.a.copyWithin(at + 1, at, this.n);
    this.b.copyWithin(at + 1, at, this.n);
    this.a[at] = a;
    this.b[at] = b;
    this.n++;
  }

  remove(at: number): void {
    this.a.copyWithin(at, at + 1, this.n);
    this.b.copyWithin(at, at + 1, this.n);
    this.n--;
  }

  /** Moves the upper half into a new leaf. */
  split(): Leaf {
    const upper = new Leaf();
    const half = this.n >> 1;
    upper.a.set(this.a.subarray(half, this.n));
    upper.b.set(this.b.subarray(half, this.n));
    upper.n = this.n - half;
    this.n = half;
    return upper;
  }

  /** First pair at or after (a, b), or `n`. */
  search(a: number, b: number): number {
    let low = 0;
    let high = this.n;
    while (low < high) {
      const mid = (low + high) >> 1;
      const x = this.a[mid]!;
      if (x < a || (x === a && this.b[mid]! < b)) low = mid + 1;
      else high = mid;
    }
    return low;
  }
}

/** Ordered pairs with a cursor (kernel: `struct xfs_btree_cur`). */
export class PairTree {
  #leaves: Leaf[] = [new Leaf()];
  #leaf = 0;
  #at = 0;
  /** Pairs in the tree. */
  size = 0;
  /** First number of the pair at the cursor; valid if the last move said so. */
  a = 0;
  /** Second number of the pair at the cursor. */
  b = 0;

  /**
   * Moves the cursor to the first pair at or after (a, b) (kernel:
   * `xfs_alloc_lookup_ge`).
   *
   * @returns Whether there is one.
   */
  lookupGe(a: number, b: number): boolean {
    const leaves = this.#leaves;
    let low = 0;
    let high = leaves.length - 1;
    // The last leaf that begins at or before (a, b) holds it or ends before it.
    while (low < high) {
      const mid = (low + high + 1) >> 1;
      const leaf = leaves[mid]!;
      const x = leaf.a[0]!;
      if (x < a || (x === a && leaf.b[0]! <= b)) low = mid;
      else high = mid - 1;
    }
    this.#leaf = low;
    this.#at = leaves[low]!.search(a, b);
    return this.#settle();
  }

  /** Moves to the last pair before (a, b) (kernel: `xfs_alloc_lookup_le`). */
  lookupLt(a: number, b: number): boolean {
    this.lookupGe(a, b);
    return this.prev();
  }

  /** Moves to the last pair. */
  last(): boolean {
    return this.lookupLt(Infinity, Infinity);
  }

  /** Moves one pair up. */
  next(): boolean {
    this.#at++;
    return this.#settle();
  }

  /** Moves one pair down. */
  prev(): boolean {
    if (this.#at === 0) {
      if (this.#leaf === 0) return false;
      this.#leaf--;
      this.#at = this.#leaves[this.#leaf]!.n;
      if (this.#at === 0) return false;
    }
    this.#at--;
    return this.#load();
  }

  /** Adds a pair that is not in the tree. */
  insert(a: number, b: number): void {
    this.lookupGe(a, b);
    let leaf = this.#leaves[this.#leaf]!;
    if (leaf.n === LEAF_PAIRS) {
      this.#leaves.splice(this.#leaf + 1, 0, leaf.split());
      if (this.#at > leaf.n) {
        this.#at -= leaf.n;
        leaf = this.#leaves[++this.#leaf]!;
      }
    }
    leaf.insert(this.#at, a, b);
    this.size++;
  }

  /**
   * Takes a pair out.
   *
   * @returns Whether it was there.
   */
  remove(a: number, b: number): boolean {
    if (!this.lookupGe(a, b) || this.a !== a || this.b !== b) return false;
    const leaf = this.#leaves[this.#leaf]!;
    leaf.remove(this.#at);
    if (leaf.n === 0 && this.#leaves.length > 1) {
      this.#leaves.splice(this.#leaf, 1);
    }
    this.size--;
    return true;
  }

  /** Steps over the end of a leaf. */
  #settle(): boolean {
    if (this.#at === this.#leaves[this.#leaf]!.n) {
      if (this.#leaf === this.#leaves.length - 1) return false;
      this.#leaf++;
      this.#at = 0;
    }
    return this.#load();
  }

  #load(): boolean {
    const leaf = this.#leaves[this.#leaf]!;
    this.a = leaf.a[this.#at]!;
    this.b = leaf.b[this.#at]!;
    return true;
  }
}
