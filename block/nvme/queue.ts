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

/**
 * Calls `piece` with each run of a command's memory, until one answers other than 0.
 *
 * @param len Bytes.
 * @returns What the last call answered; -1 if the memory is
 *   not there: it is shorter, or a buffer has been transferred or shrunk since the
 *   command was sent.
 */
function walkMemory(
  memory: HostMemory | null,
  len: number,
  piece: (data: Uint8Array, offset: number, len: number) => number,
): number {
  let left = len;
  for (let m = memory; left > 0; m = m.next) {
    if (m === null) return MEMORY_FAULT;
    let room = Math.min(m.size, left);
    let skip = m.vecDone;
    for (let i = m.vecIndex; room > 0; i++) {
      const vec = m.vecs[i];
      if (vec === undefined) return MEMORY_FAULT;
      const { data, offset } = vec;
      if (offset + vec.len > data.length) return MEMORY_FAULT;
      const n = Math.min(vec.len - skip, room);
      const status = piece(data, offset + skip, n);
      if (status !== 0) return status;
      room -= n;
      left -= n;
      skip = 0;
    }
  }
  return 0;
}

/** Host memory that is not there; not a status. */
const MEMORY_FAULT: number = -1;

/**
 * Copies from a command's memory.
 *
 * @returns Whether there was as much as `to` takes.
 */
export function readMemory(memory: HostMemory | null, to: Uint8Array): boolean {
  let done = 0;
  return walkMemory(memory, to.length, (data, offset, len) => {
    to.set(data.subarray(offset, offset + len), done);
    done += len;
    return 0;
  }) === 0;
}

/**
 * Copies to a command's memory.
 *
 * @returns Whether there was room for all of `from`.
 */
export function writeMemory(
  memory: HostMemory | null,
  from: Uint8Array,
): boolean {
  let done = 0;
  return walkMemory(memory, from.length, (data, offset, len) => {
    data.set(from.subarray(done, done + len), offset);
    done += len;
    return 0;
  }) === 0;
}
