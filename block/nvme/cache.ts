/**
 * The volatile write cache: what was written and is not yet on the media.
 *
 * Every write becomes versions of the pages that it touches. They are kept in the order in
 * which the writes completed, older ones beside newer ones, until a flush makes
 * them durable: any of them may be what is found after the power has failed.
 *
 * @module
 */

import type { Media } from "./media.ts";

const PAGE = 4096;
const SECTOR = 512;
/** All eight sectors of a page. */
const FULL = 0xff;
/** Pages that are allocated together. */
const SLAB_PAGES = 512;

/** What one write left in one page. */
interface Version {
  /** Page number. */
  page: number;
  /** The write's number, in the order of completion. */
  seq: number;
  /** Sectors of the page that it holds, a bit each. */
  mask: number;
  /** The page's memory; null for zeroes. */
  data: Uint8Array | null;
}

/** Completed writes that are not durable. */
export class WriteCache {
  readonly #media: Media;
  readonly #maxPages: number;
  readonly #pages = new Map<number, Version[]>();
  /** All versions, oldest first; those before `#first` are durable. */
  #versions: Version[] = [];
  #first = 0;
  #seq = 0;
  readonly #free: Uint8Array[] = [];

  /**
   * @param media Where it drains to.
   * @param bytes What it holds: the oldest data drains by itself when there is
   *   more.
   */
  constructor(media: Media, bytes: number) {
    this.#media = media;
    this.#maxPages = Math.floor(bytes / PAGE);
  }

  /** Number of the last write that has completed; {@linkcode drain} takes it. */
  get seq(): number {
    return this.#seq;
  }

  /** A write command begins to complete: its pieces are one write. */
  begin(): void {
    this.#seq++;
  }

  /** Reads what the media or a newer write says; as {@linkcode Media.read}. */
  read(at: number, data: Uint8Array, offset: number, len: number): number {
    const error = this.#media.read(at, data, offset, len);
    if (error !== 0 || this.#pages.size === 0) return error;
    const end = at + len;
    for (let page = Math.floor(at / PAGE); page * PAGE < end; page++) {
      const versions = this.#pages.get(page);
      if (versions === undefined) continue;
      const from = Math.max(at, page * PAGE);
      const to = Math.min(end, (page + 1) * PAGE);
      for (const v of versions) {
        readVersion(
          v,
          v.mask & maskOf(from, to),
          data,
          offset + page * PAGE - at,
        );
      }
    }
    return 0;
  }

  /** Keeps a piece of a write; as {@linkcode Media.write}. */
  write(at: number, data: Uint8Array, offset: number, len: number): number {
    const end = at + len;
    for (let page = Math.floor(at / PAGE); page * PAGE < end; page++) {
      const from = Math.max(at, page * PAGE);
      const to = Math.min(end, (page + 1) * PAGE);
      const error = this.#makeRoom();
      if (error !== 0) return error;
      const version = this.#add(page, from, to, this.#allocate());
      version.data!.set(
        data.subarray(offset + from - at, offset + to - at),
        from - page * PAGE,
      );
    }
    return 0;
  }

  /** Keeps zeroes; as {@linkcode Media.zero}. */
  zero(at: number, len: number): number {
    const end = at + len;
    for (let page = Math.floor(at / PAGE); page * PAGE < end; page++) {
      const from = Math.max(at, page * PAGE);
      const to = Math.min(end, (page + 1) * PAGE);
      const error = this.#makeRoom();
      if (error !== 0) return error;
      this.#add(page, from, to, null);
    }
    return 0;
  }

  /**
   * Makes durable every write up to number `seq`.
   *
   * @returns 0 or -EIO: what could not be written stays.
   */
  drain(seq: number): number {
    while (this.#count > 0 && this.#versions[this.#first]!.seq <= seq) {
      const error = this.#drainOldest();
      if (error !== 0) return error;
    }
    return 0;
  }

  /** Forgets a range: what has been written to the media is newer. */
  forget(at: number, len: number): void {
    const end = at + len;
    for (let page = Math.floor(at / PAGE); page * PAGE < end; page++) {
      const versions = this.#pages.get(page);
      if (versions === undefined) continue;
      const gone = maskOf(
        Math.max(at, page * PAGE),
        Math.min(end, (page + 1) * PAGE),
      );
      for (const v of versions) v.mask &= ~gone;
    }
  }

  get #count(): number {
    return this.#versions.length - this.#first;
  }

  #makeRoom(): number {
    return this.#count < this.#maxPages ? 0 : this.#drainOldest();
  }

  #add(
    page: number,
    from: number,
    to: number,
    data: Uint8Array | null,
  ): Version {
    const mask = maskOf(from, to);
    const version = { page, seq: this.#seq, mask, data };
    const versions = this.#pages.get(page);
    if (versions === undefined) this.#pages.set(page, [version]);
    else versions.push(version);
    this.#versions.push(version);
    return version;
  }

  #drainOldest(): number {
    const version = this.#versions[this.#first]!;
    const { page, mask, data } = version;
    for (let from = nextIn(mask, 0), to; from < 8; from = nextIn(mask, to)) {
      to = nextIn(~mask, from);
      const start = from * SECTOR;
      const len = (to - from) * SECTOR;
      const error = data === null
        ? this.#media.zero(page * PAGE + start, len)
        : this.#media.write(page * PAGE + start, data, start, len);
      if (error !== 0) return error;
    }
    // The oldest of all is the oldest of its page.
    const versions = this.#pages.get(page)!;
    versions.shift();
    if (versions.length === 0) this.#pages.delete(page);
    if (data !== null) this.#free.push(data);
    this.#first++;
    if (this.#first > 1024 && this.#first > this.#versions.length / 2) {
      this.#versions = this.#versions.slice(this.#first);
      this.#first = 0;
    }
    return 0;
  }

  #allocate(): Uint8Array {
    if (this.#free.length === 0) {
      const slab = new Uint8Array(SLAB_PAGES * PAGE);
      for (let at = 0; at < slab.length; at += PAGE) {
        this.#free.push(slab.subarray(at, at + PAGE));
      }
    }
    return this.#free.pop()!;
  }
}

/** Bits of the sectors in `[from, to)`, a range within one page. */
function maskOf(from: number, to: number): number {
  if (to - from === PAGE) return FULL;
  const first = (from & (PAGE - 1)) / SECTOR;
  return ((1 << (to - from) / SECTOR) - 1) << first;
}

/** Copies the sectors of `mask` to where the page begins at `offset` of `data`. */
function readVersion(
  version: Version,
  mask: number,
  data: Uint8Array,
  offset: number,
): void {
  for (let from = nextIn(mask, 0), to; from < 8; from = nextIn(mask, to)) {
    to = nextIn(~mask, from);
    const start = from * SECTOR;
    const stop = to * SECTOR;
    if (version.data === null) data.fill(0, offset + start, offset + stop);
    else data.set(version.data.subarray(start, stop), offset + start);
  }
}

/** First sector of a page from `from` on that is in `mask`, or 8. */
function nextIn(mask: number, from: number): number {
  let n = from;
  while (n < 8 && (mask & (1 << n)) === 0) n++;
  return n;
}
