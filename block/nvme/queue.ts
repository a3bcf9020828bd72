/**
 * A pair of rings in memory that host and controller share: commands go one
 * way, completions the other.
 *
 * A ring of N slots is full with N - 1: head and tail are equal only if it is
 * empty. The phase bit of a completion says whether it is of this lap: 1 in
 * the first, for the ring starts as zeroes.
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
}

/** One submission queue with its completion queue. */
export class QueuePair {
  /** Number; 0 is the admin queue. */
  readonly qid: number;
  /** Slots of each ring. */
  readonly entries: number;
  /** Submission entries, 16 words each. */
  readonly sq: Uint32Array;
  /** Completion entries, 4 words each. */
  readonly cq: Uint32Array;
  /**
   * What the data pointers of commands name, by command identifier: addresses
   * of memory are not to be had here.
   */
  readonly memory: (HostMemory | null)[] = [];
  /** The controller's interrupt for this queue: completions are there. */
  onInterrupt: () => void = () => {};

  /**
   * Empty rings.
   *
   * @param qid Number.
   * @param entries Slots of each ring, at least 2.
   */
  constructor(qid: number, entries: number) {
    this.qid = qid;
    this.entries = entries;
    this.sq = new Uint32Array(entries * SQE_WORDS);
    this.cq = new Uint32Array(entries * CQE_WORDS);
  }

  /** The slot after `slot`. */
  next(slot: number): number {
    return slot + 1 === this.entries ? 0 : slot + 1;
  }
}
