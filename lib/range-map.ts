/**
 * Ranges of numbers with a value each, none overlapping another, in order.
 *
 * Finding, setting and clearing cost the logarithm of the number of ranges and
 * nothing that depends on how long they are.
 *
 * @module
 */

/** Ranges of one leaf at most. */
const LEAF = 64;

/** Columns of neighbouring ranges. */
class Leaf<T> {
  count = 0;
  readonly starts = new Float64Array(LEAF);
  readonly ends = new Float64Array(LEAF);
  readonly values: (T | undefined)[] = [];

  /** Makes room for a range at `index`. */
  insert(index: number, start: number, end: number, value: T): void {
    const { starts, ends, values } = this;
    for (let i = this.count++; i > index; i--) {
      starts[i] = starts[i - 1]!;
      ends[i] = ends[i - 1]!;
      values[i] = values[i - 1];
    }
    starts[index] = start;
    ends[index] = end;
    values[index] = value;
  }

  /** Takes the range at `index` out. */
  remove(index: number): void {
    const { starts, ends, values } = this;
    const last = --this.count;
    for (let i = index; i < last; i++) {
      starts[i] = starts[i + 1]!;
      ends[i] = ends[i + 1]!;
      values[i] = values[i + 1];
    }
    values[last] = undefined;
  }

  /** A copy of the ranges from `from` on. */
  copy(from: number): Leaf<T> {
    const copy = new Leaf<T>();
    copy.starts.set(this.starts.subarray(from));
    copy.ends.set(this.ends.subarray(from));
    copy.count = this.count - from;
    for (let i = 0; i < copy.count; i++) copy.values[i] = this.values[from + i];
    return copy;
  }
}

/** A map from ranges to values. */
export class RangeMap<T> {
  /** In order; none is empty but for the only one. */
  #leaves: Leaf<T>[] = [new Leaf<T>()];
  /** Where a search ended: leaf, and range in it. */
  #leaf = 0;
  #index = 0;
  #size = 0;
  /** First number of the range that {@linkcode seek} found. */
  start = 0;
  /** First number behind that range. */
  end = 0;
  /** Its value. */
  value: T | undefined = undefined;

  /** Ranges in it. */
  get size(): number {
    return this.#size;
  }

  /**
   * Finds the first range that ends behind `at`: the one that holds it, or else the
   * next one. `start`, `end` and `value` tell about it.
   *
   * @returns False if there is none.
   */
  seek(at: number): boolean {
    if (this.#size === 0 || !this.#find(at)) return false;
    const leaf = this.#leaves[this.#leaf]!;
    this.start = leaf.starts[this.#index]!;
    this.end = leaf.ends[this.#index]!;
    this.value = leaf.values[this.#index]!;
    return true;
  }

  /** Whether a range touches `[start, end)`. */
  touches(start: number, end: number): boolean {
    return this.seek(start) && this.start < end;
  }

  /** Gives `[start, end)` a value, whatever it had before. */
  set(start: number, end: number, value: T): void {
    if (this.#find(start)) {
      const leaf = this.#leaves[this.#leaf]!;
      const i = this.#index;
      if (leaf.starts[i] === start && leaf.ends[i] === end) {
        leaf.values[i] = value;
        return;
      }
      if (leaf.starts[i]! < end) {
        this.clear(start, end);
        this.#find(start);
      }
    }
    this.#insert(start, end, value);
  }

  /** Takes `[start, end)` out; a range that goes beyond it keeps the rest. */
  clear(start: number, end: number): void {
    if (this.#size === 0 || !this.#find(start)) return;
    for (;;) {
      const leaf = this.#leaves[this.#leaf]!;
      const i = this.#index;
      const from = leaf.starts[i]!;
      const to = leaf.ends[i]!;
      if (from >= end) return;
      if (from < start) {
        leaf.ends[i] = start;
        this.#step();
        if (to > end) return this.#insert(end, to, leaf.values[i] as T);
      } else if (to > end) {
        leaf.starts[i] = end;
        return;
      } else this.#remove();
      if (this.#leaf === this.#leaves.length || this.#size === 0) return;
    }
  }

  /** Takes everything out. */
  clearAll(): void {
    this.#leaves = [new Leaf<T>()];
    this.#size = 0;
    this.value = undefined;
  }

  /** A copy that goes its own way. */
  clone(): RangeMap<T> {
    const copy = new RangeMap<T>();
    copy.#size = this.#size;
    copy.#leaves = this.#leaves.map((leaf) => leaf.copy(0));
    return copy;
  }

  /** All ranges, in order: start, end and value. */
  *[Symbol.iterator](): IterableIterator<[number, number, T]> {
    for (const { count, starts, ends, values } of this.#leaves) {
      for (let i = 0; i < count; i++) {
        yield [starts[i]!, ends[i]!, values[i] as T];
      }
    }
  }

  /** Goes to the first range that ends behind `at`, or to the end.
   * @returns Whether there is one. */
  #find(at: number): boolean {
    const leaves = this.#leaves;
    // The last leaf that begins at or before it, then the first end behind it.
    let low = 0;
    let high = leaves.length - 1;
    while (low < high) {
      const mid = (low + high + 1) >>> 1;
      if (leaves[mid]!.starts[0]! <= at) low = mid;
      else high = mid - 1;
    }
    const { ends, count } = leaves[low]!;
    this.#leaf = low;
    low = 0;
    high = count;
    while (low < high) {
      const mid = (low + high) >>> 1;
      if (ends[mid]! <= at) low = mid + 1;
      else high = mid;
    }
    this.#index = low;
    if (low < count) return true;
    if (this.#leaf + 1 === leaves.length) return false;
    this.#leaf++;
    this.#index = 0;
    return true;
  }

  #step(): void {
    if (++this.#index < this.#leaves[this.#leaf]!.count) return;
    this.#leaf++;
    this.#index = 0;
  }

  /** Inserts before where the search ended. */
  #insert(start: number, end: number, value: T): void {
    this.#size++;
    if (this.#leaf === this.#leaves.length) {
      // Behind all: the last leaf takes it.
      this.#index = this.#leaves[--this.#leaf]!.count;
    }
    if (this.#leaves[this.#leaf]!.count === LEAF) this.#split();
    this.#leaves[this.#leaf]!.insert(this.#index, start, end, value);
  }

  /** Makes two leaves of a full one; the search is where it was. */
  #split(): void {
    const left = this.#leaves[this.#leaf]!;
    const right = left.copy(LEAF / 2);
    left.count = LEAF / 2;
    left.values.fill(undefined, LEAF / 2);
    this.#leaves.splice(this.#leaf + 1, 0, right);
    if (this.#index <= LEAF / 2) return;
    this.#leaf++;
    this.#index -= LEAF / 2;
  }

  /** Removes where the search ended; what follows is there then. */
  #remove(): void {
    const leaf = this.#leaves[this.#leaf]!;
    leaf.remove(this.#index);
    this.#size--;
    if (leaf.count === 0 && this.#leaves.length > 1) {
      this.#leaves.splice(this.#leaf, 1);
      this.#index = 0;
    } else if (this.#index === leaf.count) {
      this.#leaf++;
      this.#index = 0;
    }
  }
}
