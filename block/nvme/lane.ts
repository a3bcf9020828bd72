/**
 * A part that serves one customer at a time: a bus, a link.
 *
 * @module
 */

/** Nanoseconds that `bytes` take at a rate in MB/s; 0 MB/s takes none. */
export function transferTime(bytes: number, mbps: number): number {
  return mbps === 0 ? 0 : Math.round(bytes * 1000 / mbps);
}

/** Serves one customer at a time; who needs it briefly may go in a gap. */
export class Lane {
  // Busy intervals, ascending, none touching the next, in [#head, #tail).
  #starts = new Float64Array(16);
  #ends = new Float64Array(16);
  #head = 0;
  #tail = 0;

  /**
   * Books the first stretch of `service` that is free from `arrival` on.
   *
   * @param now Current time: what lies before it is forgotten.
   * @param arrival When the customer comes, not before `now`.
   * @param service How long it needs, nanoseconds.
   * @returns Its end.
   */
  book(now: number, arrival: number, service: number): number {
    if (service === 0) return arrival;
    while (this.#head < this.#tail && this.#ends[this.#head]! < now) {
      this.#head++;
    }
    // Most come after all that is booked.
    if (
      this.#head === this.#tail || this.#ends[this.#tail - 1]! < arrival
    ) {
      this.#append(arrival, arrival + service);
      return arrival + service;
    }
    let start = arrival;
    let i = this.#firstEndingFrom(arrival);
    for (; i < this.#tail; i++) {
      if (this.#starts[i]! - start >= service) break;
      start = Math.max(start, this.#ends[i]!);
    }
    this.#insert(i, start, start + service);
    return start + service;
  }

  /** Forgets what is booked. */
  clear(): void {
    this.#head = this.#tail = 0;
  }

  /** The first interval that does not end before `time`, by halving. */
  #firstEndingFrom(time: number): number {
    let low = this.#head;
    let high = this.#tail;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#ends[middle]! < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #append(start: number, end: number): void {
    if (this.#tail === this.#starts.length) this.#makeRoom();
    this.#starts[this.#tail] = start;
    this.#ends[this.#tail] = end;
    this.#tail++;
  }

  /** Puts an interval before the `i`-th, joining what it touches. */
  #insert(i: number, start: number, end: number): void {
    const starts = this.#starts;
    const ends = this.#ends;
    const joinsLeft = i > this.#head && ends[i - 1] === start;
    const joinsRight = i < this.#tail && starts[i] === end;
    if (joinsLeft && joinsRight) {
      ends[i - 1] = ends[i]!;
      starts.copyWithin(i, i + 1, this.#tail);
      ends.copyWithin(i, i + 1, this.#tail);
      this.#tail--;
    } else if (joinsLeft) ends[i - 1] = end;
    else if (joinsRight) starts[i] = start;
    else this.#insertApart(i, start, end);
  }

  #insertApart(index: number, start: number, end: number): void {
    let i = index;
    if (this.#tail === this.#starts.length) {
      i -= this.#head;
      this.#makeRoom();
    }
    this.#starts.copyWithin(i + 1, i, this.#tail);
    this.#ends.copyWithin(i + 1, i, this.#tail);
    this.#starts[i] = start;
    this.#ends[i] = end;
    this.#tail++;
  }

  /** Moves the intervals to the front, of larger arrays if they fill half. */
  #makeRoom(): void {
    const count = this.#tail - this.#head;
    const length = this.#starts.length;
    const size = count > length / 2 ? length * 2 : length;
    this.#starts = moved(this.#starts, this.#head, this.#tail, size);
    this.#ends = moved(this.#ends, this.#head, this.#tail, size);
    this.#head = 0;
    this.#tail = count;
  }
}

function moved(
  from: Float64Array<ArrayBuffer>,
  head: number,
  tail: number,
  size: number,
): Float64Array<ArrayBuffer> {
  const to = size === from.length ? from : new Float64Array(size);
  if (to === from) to.copyWithin(0, head, tail);
  else to.set(from.subarray(head, tail));
  return to;
}
