/**
 * An allocation group: its free space in two orders, and its inode chunks.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_ag.c, xfs_alloc.c (`xfs_free_ag_extent`,
 * `xfs_alloc_fixup_trees`).
 *
 * @module
 */

import { bugOn, warnOn } from "../../lib/bug.ts";
import { PairTree } from "./btree.ts";

/** Inodes that are allocated together (kernel: `XFS_INODES_PER_CHUNK`). */
export const INODES_PER_CHUNK = 64;

/** 64 inodes in a run of blocks (kernel: `struct xfs_inobt_rec_incore`). */
export interface InodeChunk {
  /** First block in the group. */
  agbno: number;
  /** Inodes 0 to 31 in use, a bit each. */
  usedLow: number;
  /** Inodes 32 to 63 in use. */
  usedHigh: number;
}

/** One allocation group (kernel: `struct xfs_perag`). Blocks count from its start. */
export class XfsPerag {
  /** Number of the group. */
  readonly agno: number;
  /** Blocks of the group. */
  readonly blocks: number;
  /** Free extents by block: (start, length) (kernel: the bnobt). */
  readonly bnobt: PairTree = new PairTree();
  /** Free extents by size: (length, start) (kernel: the cntbt). */
  readonly cntbt: PairTree = new PairTree();
  /** Blocks in the trees. */
  freeBlocks = 0;
  /** Runs that were freed, but whose freeing is not on the device yet: (start, length)
   * in turn. Writing over them now would destroy what a crash brings back (kernel:
   * `pagb_tree`). */
  readonly #busy: number[] = [];
  /** Inode chunks by first block. */
  readonly chunks: Map<number, InodeChunk> = new Map();
  /** Chunks with a free inode. */
  readonly freeChunks: Set<InodeChunk> = new Set();

  /**
   * A group in which nothing is free.
   *
   * @param agno Number of the group.
   * @param blocks Its size.
   */
  constructor(agno: number, blocks: number) {
    this.agno = agno;
    this.blocks = blocks;
  }

  /** Longest free extent, blocks (kernel: `pagf_longest`). */
  get longest(): number {
    return this.cntbt.last() ? this.cntbt.a : 0;
  }

  /** Takes a run out of the free space (kernel: `xfs_alloc_fixup_trees`). It lies
   * within one free extent. */
  take(agbno: number, count: number): void {
    const { bnobt } = this;
    const found = bnobt.lookupLt(agbno, Infinity);
    const start = bnobt.a;
    const length = bnobt.b;
    bugOn(
      !found || start + length < agbno + count,
      `blocks ${agbno}+${count} of group ${this.agno} are not free`,
    );
    this.#remove(start, length);
    if (start < agbno) this.#insert(start, agbno - start);
    const end = agbno + count;
    if (end < start + length) this.#insert(end, start + length - end);
    this.freeBlocks -= count;
  }

  /**
   * Gives a run back, joined with its free neighbours (kernel:
   * `xfs_free_ag_extent`).
   *
   * @returns False if part of it is free already or lies outside the group: then
   *   nothing is changed.
   */
  give(agbno: number, count: number): boolean {
    if (agbno < 0 || count <= 0 || agbno + count > this.blocks) return false;
    const { bnobt } = this;
    let start = agbno;
    let end = agbno + count;
    let before = 0;
    let after = 0;
    if (bnobt.lookupLt(agbno, Infinity)) {
      if (bnobt.a + bnobt.b > agbno) return false;
      if (bnobt.a + bnobt.b === agbno) before = bnobt.b;
    }
    if (bnobt.lookupGe(agbno, 0)) {
      if (bnobt.a < end) return false;
      if (bnobt.a === end) after = bnobt.b;
    }
    if (before > 0) this.#remove(start - before, before);
    if (after > 0) this.#remove(end, after);
    start -= before;
    end += after;
    this.#insert(start, end - start);
    this.freeBlocks += count;
    return true;
  }

  /**
   * Adds an inode chunk whose blocks have been taken.
   *
   * @param agbno First block.
   * @param usedLow Inodes 0 to 31 in use, a bit each.
   * @param usedHigh Inodes 32 to 63.
   */
  addChunk(agbno: number, usedLow: number, usedHigh: number): InodeChunk {
    const chunk = { agbno, usedLow, usedHigh };
    this.chunks.set(agbno, chunk);
    if (usedLow !== -1 || usedHigh !== -1) this.freeChunks.add(chunk);
    return chunk;
  }

  /**
   * Frees a run that may be used again once the log is written (kernel:
   * `xfs_extent_busy_insert`).
   *
   * @returns False if it lies outside the group or is free already.
   */
  free(agbno: number, count: number): boolean {
    if (agbno < 0 || count <= 0 || agbno + count > this.blocks) return false;
    const { bnobt } = this;
    const last = agbno + count;
    if (bnobt.lookupLt(last, 0) && bnobt.a + bnobt.b > agbno) return false;
    this.#busy.push(agbno, count);
    return true;
  }

  /** Runs that wait for the log. */
  get busyRuns(): number {
    return this.#busy.length / 2;
  }

  /** The log is written: what was freed may be used (kernel:
   * `xfs_extent_busy_clear`). */
  clearBusy(): void {
    const runs = this.#busy.splice(0);
    for (let i = 0; i < runs.length; i += 2) {
      const ok = this.give(runs[i]!, runs[i + 1]!);
      // An image can say that two files have the same blocks.
      warnOn(!ok, `blocks ${runs[i]} of group ${this.agno} were freed twice`);
    }
  }

  #insert(start: number, length: number): void {
    this.bnobt.insert(start, length);
    this.cntbt.insert(length, start);
  }

  #remove(start: number, length: number): void {
    const both = this.bnobt.remove(start, length) &&
      this.cntbt.remove(length, start);
    bugOn(!both, `free space trees of group ${this.agno} disagree`);
  }
}
