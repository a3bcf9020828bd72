/**
 * A cursor over a caller's buffers.
 *
 * A whole-buffer copy into the cache hands the caller's array to `set` as it is:
 * that is the case that must not allocate.
 *
 * Kernel counterpart: lib/iov_iter.c.
 *
 * @module
 */

/**
 * Caller's memory with a position in it (kernel: `struct iov_iter`).
 *
 * A buffer may be transferred or shrink while its call waits: the bytes that are
 * gone are as unreadable as an unmapped page, and copies stop there.
 */
export class IovIter {
  #buffers: Uint8Array[] = [];
  #single: Uint8Array | null = null;
  #segment = 0;
  #offset = 0;
  /** Bytes left. */
  count = 0;
  /**
   * Told of each piece that a device has filled, where somebody keeps book of what
   * was written to the memory (kernel: `bio_set_pages_dirty`); null if nobody does.
   */
  pagesDirty: ((data: Uint8Array, offset: number, len: number) => void) | null =
    null;

  /**
   * A cursor at the first byte.
   *
   * @param buffers Where the bytes come from or go to, in order.
   */
  constructor(...buffers: Uint8Array[]) {
    if (buffers.length === 1) this.reset(buffers[0]!);
    else if (buffers.length > 1) this.resetAll(buffers);
  }

  /** Whether it is over one buffer (kernel: `iter_is_ubuf`). */
  get isUbuf(): boolean {
    return this.#single !== null;
  }

  /** Starts again over one buffer. */
  reset(buffer: Uint8Array): void {
    this.#single = buffer;
    this.#segment = 0;
    this.#offset = 0;
    this.count = buffer.length;
  }

  /** Starts again over several buffers. */
  resetAll(buffers: Uint8Array[]): void {
    this.#single = null;
    this.#buffers = buffers;
    this.#segment = 0;
    this.#offset = 0;
    this.count = 0;
    for (const b of buffers) this.count += b.length;
  }

  /**
   * Copies out of the cache into the caller's memory (kernel: `copy_to_iter`).
   *
   * @returns Bytes copied: `len`, or less where the caller's memory ends or is gone.
   */
  copyTo(src: Uint8Array, srcOffset: number, len: number): number {
    const n = Math.min(len, this.count);
    for (let done = 0; done < n;) {
      const dst = this.#current();
      const step = Math.min(n - done, dst.length - this.#offset);
      if (step <= 0) return done;
      const from = srcOffset + done;
      const part = step === src.length ? src : src.subarray(from, from + step);
      dst.set(part, this.#offset);
      this.advance(step);
      done += step;
    }
    return n;
  }

  /**
   * Copies from the caller's memory into the cache (kernel: `copy_from_iter`).
   *
   * @returns Bytes copied: `len`, or less where the caller's memory ends or is gone.
   */
  copyFrom(dst: Uint8Array, dstOffset: number, len: number): number {
    const n = Math.min(len, this.count);
    for (let done = 0; done < n;) {
      const src = this.#current();
      const step = Math.min(n - done, src.length - this.#offset);
      if (step <= 0) return done;
      if (step === src.length) dst.set(src, dstOffset + done);
      else {
        dst.set(
          src.subarray(this.#offset, this.#offset + step),
          dstOffset + done,
        );
      }
      this.advance(step);
      done += step;
    }
    return n;
  }

  /** Whether the byte at the cursor is there to be read (kernel:
   * `fault_in_iov_iter_readable`). */
  get readable(): boolean {
    return this.#offset < this.#current().length;
  }

  /** Zero-fills the caller's memory (kernel: `iov_iter_zero`).
   * @returns Bytes zeroed: `len`, or less where the memory ends or is gone. */
  zero(len: number): number {
    const n = Math.min(len, this.count);
    for (let done = 0; done < n;) {
      const dst = this.#current();
      const step = Math.min(n - done, dst.length - this.#offset);
      if (step <= 0) return done;
      dst.fill(0, this.#offset, this.#offset + step);
      this.advance(step);
      done += step;
    }
    return n;
  }

  /** Moves on without copying (kernel: `iov_iter_advance`). */
  advance(bytes: number): void {
    this.count -= bytes;
    let left = this.#offset + bytes;
    while (this.#single === null && this.#segment < this.#buffers.length) {
      const size = this.#buffers[this.#segment]!.length;
      if (left < size || this.#segment === this.#buffers.length - 1) break;
      left -= size;
      this.#segment++;
    }
    this.#offset = left;
  }

  /** Moves back (kernel: `iov_iter_revert`). */
  revert(bytes: number): void {
    this.count += bytes;
    this.#offset -= bytes;
    while (this.#offset < 0) {
      this.#offset += this.#buffers[--this.#segment]!.length;
    }
  }

  /**
   * The contiguous piece at the cursor, for I/O straight from or to the
   * caller's memory (kernel: `iov_iter_extract_pages`). Does not advance.
   *
   * @param max Upper bound in bytes.
   * @returns The piece; of no length where the caller's memory is gone.
   */
  segment(max: number): { data: Uint8Array; offset: number; len: number } {
    const data = this.#current();
    const offset = this.#offset;
    const len = Math.min(max, data.length - offset, this.count);
    return { data, offset, len: Math.max(0, len) };
  }

  #current(): Uint8Array {
    if (this.#single !== null) return this.#single;
    // An empty buffer, or a finished one, is stepped over here.
    while (
      this.#offset >= this.#buffers[this.#segment]!.length &&
      this.#segment < this.#buffers.length - 1
    ) {
      this.#offset -= this.#buffers[this.#segment]!.length;
      this.#segment++;
    }
    return this.#buffers[this.#segment]!;
  }
}
