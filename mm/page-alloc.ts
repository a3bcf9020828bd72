/**
 * Page frames: a buddy allocator over 2 MiB chunks.
 *
 * The first touch of fresh memory costs more than a whole write into it, so a
 * chunk is taken from the system once and recycled for ever. A block of 2^order
 * frames is aligned to its size, and two free halves are joined at once.
 *
 * Kernel counterpart: mm/page_alloc.c.
 *
 * @module
 */

import { bugOn } from "../lib/bug.ts";

/** Bytes of a frame. */
const FRAME_SIZE = 4096;
/** Largest block: a whole chunk. */
const MAX_ORDER = 9;
/** Frames of a chunk. */
export const CHUNK_FRAMES: number = 1 << MAX_ORDER;
/** log2 of the frames of a slab, 32 MiB: what is asked of the system at a time.
 * Copies to and from buffers of 2 MiB measure a quarter slower. */
const SLAB_ORDER = MAX_ORDER + 4;
/** Frames of a slab; frames that follow each other in one are neighbours in memory. */
export const SLAB_FRAMES: number = 1 << SLAB_ORDER;
/** First frame that exists: frame 0 means none, and chunks begin at a multiple. */
export const FIRST_FRAME: number = CHUNK_FRAMES;

/** Gives out blocks of 2^order frames; frame numbers begin at {@linkcode FIRST_FRAME}. */
export class PageAllocator {
  /** Frames given out. */
  used = 0;
  readonly #maxChunks: number;
  /** Chunks taken; the first is number 1. */
  #chunks = 0;
  /** By frame / SLAB_FRAMES. */
  readonly #slabs: Uint8Array[] = [];
  /** First free block of each order, 0 if none. */
  readonly #heads = new Int32Array(MAX_ORDER + 1);
  // Columns by frame. They are touched only as far as chunks exist.
  /** Next free block; of a frame in use it is its user's (kernel: `page->lru`). */
  readonly next: Int32Array;
  /** Free block before; of a frame in use it is its user's. */
  readonly prev: Int32Array;
  /** Order plus one of the free block that begins here; 0 if none does. */
  readonly #freeOrder: Uint8Array;

  /** @param maxChunks Chunks of 2 MiB that it may take from the system. */
  constructor(maxChunks: number) {
    const frames = (maxChunks + 1) * CHUNK_FRAMES;
    this.#maxChunks = maxChunks;
    this.next = new Int32Array(frames);
    this.prev = new Int32Array(frames);
    this.#freeOrder = new Uint8Array(frames);
  }

  /** The memory that holds a frame. */
  slabOf(frame: number): Uint8Array {
    return this.#slabs[frame >> SLAB_ORDER]!;
  }

  /** Where a frame begins in its slab, bytes. */
  offsetOf(frame: number): number {
    return (frame & (SLAB_FRAMES - 1)) * FRAME_SIZE;
  }

  /**
   * Takes a block (kernel: `alloc_pages`). What it holds is whatever was there.
   *
   * @returns Its first frame, or 0 if no block of that size is left.
   */
  alloc(order: number): number {
    let from = order;
    while (from <= MAX_ORDER && this.#heads[from] === 0) from++;
    if (from > MAX_ORDER) {
      if (!this.#grow()) return 0;
      from = MAX_ORDER;
    }
    const frame = this.#heads[from]!;
    this.#unlink(frame, from);
    // Upper halves go back, so that blocks come in ascending order.
    while (from > order) {
      from--;
      this.#link(frame + (1 << from), from);
    }
    this.used += 1 << order;
    return frame;
  }

  /** Gives a block back, or an aligned part of one (kernel: `free_pages`). */
  free(frame: number, order: number): void {
    bugOn(this.#freeOrder[frame] !== 0, "a frame is freed twice");
    this.used -= 1 << order;
    let first = frame;
    let to = order;
    while (to < MAX_ORDER) {
      const buddy = first ^ (1 << to);
      if (this.#freeOrder[buddy] !== to + 1) break;
      this.#unlink(buddy, to);
      first = Math.min(first, buddy);
      to++;
    }
    this.#link(first, to);
  }

  #grow(): boolean {
    if (this.#chunks === this.#maxChunks) return false;
    const frame = ++this.#chunks * CHUNK_FRAMES;
    // The system gives memory as it is touched, so most of a slab costs nothing yet.
    this.#slabs[frame >> SLAB_ORDER] ??= new Uint8Array(
      // Frame 0 to the last: a small memory needs no whole slab.
      Math.min(SLAB_FRAMES, this.next.length) * FRAME_SIZE,
    );
    this.#link(frame, MAX_ORDER);
    return true;
  }

  #link(frame: number, order: number): void {
    const next = this.#heads[order]!;
    this.next[frame] = next;
    this.prev[frame] = 0;
    this.prev[next] = frame;
    this.#heads[order] = frame;
    this.#freeOrder[frame] = order + 1;
  }

  #unlink(frame: number, order: number): void {
    const next = this.next[frame]!;
    const prev = this.prev[frame]!;
    if (prev === 0) this.#heads[order] = next;
    else this.next[prev] = next;
    this.prev[next] = prev;
    this.#freeOrder[frame] = 0;
  }
}
