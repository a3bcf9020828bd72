/**
 * Rings in memory that host and controller share: commands go one way,
 * completions the other.
 *
 * A ring of N slots is full with N - 1: head and tail are equal only if it is
 * empty. The phase bit of a completion says whether it is of this lap: 1 in
 * the first, for the ring starts as zeroes.
 *
 * The host makes both rings. It hands them over where a real host would give
 * their address: the admin queues with `setAdminQueues`, the others in the
 * `memory` of the command that creates them.
 *
 * @module
 */

import type { BioVec } from "../bio.ts";
import { CQE_WORDS, SQE_WORDS } from "./nvme.ts";

/** Memory of the host that a command reads or fills; a bio is one. */
export interface HostMemory {
  /** Pieces, in order. */
  readonly vecs: readonly BioVec[];
  /** Piece in which the command's data begins. */
  readonly vecIndex: number;
  /** Bytes of that piece before it. */
  readonly vecDone: number;
  /** Bytes of the data in these pieces. */
  readonly size: number;
  /** More memory, after those bytes. */
  readonly next: HostMemory | null;
}

/** A submission queue, as the host makes it. */
export class SubmissionQueue {
  /** Number; 0 is the admin queue. */
  readonly qid: number;
  /** Slots. */
  readonly entries: number;
  /** Entries, 16 words each. */
  readonly ring: Uint32Array;
  /**
   * What the data pointer of the command in each slot names, for addresses of
   * memory are not to be had here. It is looked at when the command is fetched.
   */
  readonly memory: (HostMemory | SubmissionQueue | CompletionQueue | null)[];

  /**
   * An empty ring.
   *
   * @param qid Number.
   * @param entries Slots, 2 to 65536.
   */
  constructor(qid: number, entries: number) {
    this.qid = qid;
    this.entries = entries;
    this.ring = new Uint32Array(entries * SQE_WORDS);
    this.memory = new Array(entries).fill(null);
  }
}

/** A completion queue, as the host makes it. */
export class CompletionQueue {
  /** Number; 0 is the admin queue. */
  readonly qid: number;
  /** Slots. */
  readonly entries: number;
  /** Entries, 4 words each. */
  readonly ring: Uint32Array;

  /**
   * An empty ring.
   *
   * @param qid Number.
   * @param entries Slots, 2 to 65536.
   */
  constructor(qid: number, entries: number) {
    this.qid = qid;
    this.entries = entries;
    this.ring = new Uint32Array(entries * CQE_WORDS);
  }
}

/** A buffer as the memory of a command. */
export function bufferMemory(data: Uint8Array): HostMemory {
  const vecs: BioVec[] = [{ data, offset: 0, len: data.length }];
  return { vecs, vecIndex: 0, vecDone: 0, size: data.length, next: null };
}

/** Walks the host's memory, piece by piece; used again for each command. */
export class MemoryPieces {
  /** The piece's buffer. */
  data: Uint8Array = new Uint8Array(0);
  /** Where the piece begins in it. */
  offset = 0;
  /** Bytes of the piece. */
  len = 0;
  #memory: HostMemory | null = null;
  #index = 0;
  #skip = 0;
  /** Bytes that are left: of this memory, and in all. */
  #here = 0;
  #left = 0;

  /** Begins at the start of memory that has `len` bytes. */
  begin(memory: HostMemory | null, len: number): void {
    this.#left = len;
    this.#enter(memory);
  }

  /** Goes to the next piece.
   * @returns False if there is none. */
  next(): boolean {
    while (this.#left > 0) {
      while (this.#memory !== null && this.#here === 0) {
        this.#enter(this.#memory.next);
      }
      const vec = this.#memory?.vecs[this.#index++];
      if (vec === undefined) return false;
      const n = Math.min(vec.len - this.#skip, this.#here, this.#left);
      this.data = vec.data;
      this.offset = vec.offset + this.#skip;
      this.len = n;
      this.#skip = 0;
      this.#here -= n;
      this.#left -= n;
      if (n > 0) return true;
    }
    return false;
  }

  /** Whether memory has `len` bytes that are there: a buffer may have been
   * transferred or shrunk since the command was sent. */
  cover(memory: HostMemory | null, len: number): boolean {
    this.begin(memory, len);
    while (this.next()) {
      if (this.offset + this.len > this.data.length) return false;
    }
    return this.#left === 0;
  }

  #enter(memory: HostMemory | null): void {
    this.#memory = memory;
    if (memory === null) return;
    this.#index = memory.vecIndex;
    this.#skip = memory.vecDone;
    this.#here = memory.size;
  }
}

/**
 * Copies from a command's memory.
 *
 * @returns Whether there was as much as `to` takes; if not, nothing is copied.
 */
export function readMemory(memory: HostMemory | null, to: Uint8Array): boolean {
  const pieces = new MemoryPieces();
  if (!pieces.cover(memory, to.length)) return false;
  pieces.begin(memory, to.length);
  for (let done = 0; pieces.next(); done += pieces.len) {
    const { data, offset, len } = pieces;
    to.set(data.subarray(offset, offset + len), done);
  }
  return true;
}

/**
 * Copies to a command's memory.
 *
 * @returns Whether there was room for all of `from`; if not, nothing is copied.
 */
export function writeMemory(
  memory: HostMemory | null,
  from: Uint8Array,
): boolean {
  const pieces = new MemoryPieces();
  if (!pieces.cover(memory, from.length)) return false;
  pieces.begin(memory, from.length);
  for (let done = 0; pieces.next(); done += pieces.len) {
    const { data, offset, len } = pieces;
    data.set(from.subarray(done, done + len), offset);
  }
  return true;
}
