/**
 * What one write left and the media does not have yet, and the memory for it.
 *
 * @module
 */

/** Data of the host. */
export const VERSION_DATA = 0;
/** Zeroes: written as such, or deallocated. */
export const VERSION_ZEROES = 1;
/** Blocks that cannot be read (Write Uncorrectable). */
export const VERSION_UNREADABLE = 2;
/** An emptied zone; its blocks are zeroes. */
export const VERSION_ZONE_RESET = 3;
/** A finished zone; no block changes. */
export const VERSION_ZONE_FINISH = 4;

/** One write that is not durable, or not done. */
export class Version {
  /** `VERSION_*`. */
  readonly kind: number;
  /** First byte. */
  readonly at: number;
  /** Bytes. */
  readonly len: number;
  /** Its command's number, in the order of submission. */
  readonly submitted: number;
  /** When it was done, in the same count; Infinity while it is under way. */
  completed: number = Infinity;
  /** Sequential zone that it is in, or -1. */
  readonly zone: number;
  /** Memory that holds its data. */
  slab: Slab | null = null;
  /** Where in that memory the data begins. */
  offset = 0;
  /** Where on the media it goes: `at`, elsewhere if it is misdirected, -1 if it is lost. */
  target: number;
  /** Whether it has been written there. */
  isDurable = false;

  /** A write that is under way. */
  constructor(
    kind: number,
    at: number,
    len: number,
    submitted: number,
    zone: number,
  ) {
    this.kind = kind;
    this.at = at;
    this.len = len;
    this.submitted = submitted;
    this.zone = zone;
    this.target = at;
  }
}

/** Bytes that are allocated together. */
const SLAB_SIZE = 2 ** 20;
/** Empty slabs that are kept for later. */
const MAX_IDLE = 64;

/** Memory of several versions. */
export class Slab {
  /** The memory. */
  readonly data: Uint8Array;
  /** Bytes of it that have been given out. */
  used = 0;
  /** Versions that have some of it. */
  versions = 0;

  /** Memory of `size` bytes. */
  constructor(size: number) {
    this.data = new Uint8Array(size);
  }
}

/**
 * Memory for versions. They become durable roughly in the order in which they were
 * written, so whole slabs become free, and are used again.
 */
export class Slabs {
  readonly #idle: Slab[] = [];
  #current = new Slab(0);

  /** Gives a version memory for its data. */
  allocate(version: Version): void {
    let slab = this.#current;
    if (slab.data.length - slab.used < version.len) {
      slab = version.len > SLAB_SIZE
        ? new Slab(version.len)
        : this.#idle.pop() ?? new Slab(SLAB_SIZE);
      this.#current = slab;
    }
    version.slab = slab;
    version.offset = slab.used;
    slab.used += version.len;
    slab.versions++;
  }

  /** Takes the memory back. */
  release(version: Version): void {
    const { slab } = version;
    if (slab === null) return;
    version.slab = null;
    if (--slab.versions > 0) return;
    slab.used = 0;
    const keeps = slab !== this.#current && slab.data.length === SLAB_SIZE &&
      this.#idle.length < MAX_IDLE;
    if (keeps) this.#idle.push(slab);
  }
}
