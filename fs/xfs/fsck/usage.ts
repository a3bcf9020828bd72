/**
 * Who uses which blocks, a group at a time, as found by walking everything: what the
 * records of free space, of shared blocks and of owners have to agree with.
 *
 * @module
 */

import * as F from "../libxfs/format.ts";

/** Of a use: it may be one of several of the same blocks. */
export const USE_SHAREABLE = 1 << 0;
/** The inode says that it has shared blocks. */
export const USE_REFLINK = 1 << 1;
/** The extent is unwritten. */
export const USE_UNWRITTEN = 1 << 2;
/** It belongs to the attribute fork. */
export const USE_ATTR = 1 << 3;
/** It is a block of a fork's B+tree. */
export const USE_BMBT = 1 << 4;

/** What distinguishes reverse mappings. */
const RMAP_FLAGS = USE_UNWRITTEN | USE_ATTR | USE_BMBT;
const FIRST = 64;

/** Runs of blocks and whose they are, in columns. */
export class Uses {
  count = 0;
  start = new Uint32Array(FIRST);
  len = new Uint32Array(FIRST);
  /** Inode, or `XFS_RMAP_OWN_*`. */
  owner = new Float64Array(FIRST);
  /** File block. */
  offset = new Float64Array(FIRST);
  flags = new Uint8Array(FIRST);

  /** Adds a run. One that continues the run before, in every respect, joins it. */
  add(
    start: number,
    len: number,
    owner: number,
    offset: number,
    flags: number,
  ): void {
    const last = this.count - 1;
    if (last >= 0 && this.#continues(last, start, owner, offset, flags)) {
      this.len[last]! += len;
      return;
    }
    if (this.count === this.start.length) this.#grow();
    const i = this.count++;
    this.start[i] = start;
    this.len[i] = len;
    this.owner[i] = owner;
    this.offset[i] = offset;
    this.flags[i] = flags;
  }

  #continues(
    i: number,
    start: number,
    owner: number,
    offset: number,
    flags: number,
  ): boolean {
    if (this.start[i]! + this.len[i]! !== start) return false;
    if (this.owner[i] !== owner || this.flags[i] !== flags) return false;
    const anywhere = owner < 0 || (flags & USE_BMBT) !== 0;
    return anywhere || this.offset[i]! + this.len[i]! === offset;
  }

  #grow(): void {
    const n = 2 * this.start.length;
    this.start = grown(this.start, new Uint32Array(n));
    this.len = grown(this.len, new Uint32Array(n));
    this.owner = grown(this.owner, new Float64Array(n));
    this.offset = grown(this.offset, new Float64Array(n));
    this.flags = grown(this.flags, new Uint8Array(n));
  }

  /** Block after the last of a run. */
  end(i: number): number {
    return this.start[i]! + this.len[i]!;
  }

  /** The runs in the order of reverse mappings: by block, owner, offset. What
   * continues another run is made one with it. */
  sorted(): Uses {
    const order = new Uint32Array(this.count).map((_, i) => i);
    order.sort((a, b) => this.compare(a, this, b));
    const out = new Uses();
    for (const i of order) {
      out.add(
        this.start[i]!,
        this.len[i]!,
        this.owner[i]!,
        this.offset[i]!,
        this.flags[i]!,
      );
    }
    return out;
  }

  /** Orders as the reverse-map tree does: owners as unsigned numbers, the attribute
   * and B+tree flags as the highest bits of the offset. */
  compare(i: number, other: Uses, j: number): number {
    return this.start[i]! - other.start[j]! ||
      unsigned(this.owner[i]!) - unsigned(other.owner[j]!) ||
      offsetRank(this.flags[i]!) - offsetRank(other.flags[j]!) ||
      this.offset[i]! - other.offset[j]!;
  }

  /** Whether two runs are the same reverse mapping. */
  sameRmap(i: number, other: Uses, j: number): boolean {
    return this.compare(i, other, j) === 0 && this.len[i] === other.len[j] &&
      (this.flags[i]! & RMAP_FLAGS) === (other.flags[j]! & RMAP_FLAGS);
  }

  /** A run in words: "(agno/agbno) len 8 owner -7 off 0". */
  describe(agno: number, i: number): string {
    const flags = this.flags[i]!;
    return `(${agno}/${this.start[i]}) ` +
      ((flags & USE_UNWRITTEN) !== 0 ? "unwritten " : "") +
      `len ${this.len[i]} owner ${this.owner[i]} ` +
      ((flags & USE_ATTR) !== 0 ? "attr " : "") +
      ((flags & USE_BMBT) !== 0 ? "bmbt " : "") +
      `off ${this.offset[i]}`;
  }
}

function grown<T extends Uint8Array | Uint32Array | Float64Array>(
  old: T,
  larger: T,
): T {
  larger.set(old);
  return larger;
}

/** Special owners come after all inodes. */
function unsigned(owner: number): number {
  return owner < 0 ? 2 ** 53 + 2 * owner : owner;
}

function offsetRank(flags: number): number {
  return ((flags & USE_ATTR) !== 0 ? 2 : 0) +
    ((flags & USE_BMBT) !== 0 ? 1 : 0);
}

const OWNERS = new Map<number, string>([
  [F.XFS_RMAP_OWN_FS, "group headers"],
  [F.XFS_RMAP_OWN_LOG, "the log"],
  [F.XFS_RMAP_OWN_AG, "free-space btrees or AGFL"],
  [F.XFS_RMAP_OWN_INOBT, "inode btrees"],
  [F.XFS_RMAP_OWN_INODES, "inodes"],
  [F.XFS_RMAP_OWN_REFC, "refcount btree"],
  [F.XFS_RMAP_OWN_COW, "CoW staging"],
]);

/** An owner in words. */
export function ownerName(owner: number, flags: number): string {
  const special = OWNERS.get(owner);
  if (special !== undefined) return special;
  if ((flags & USE_BMBT) !== 0) return `bmap btree of inode ${owner}`;
  return (flags & USE_ATTR) !== 0
    ? `attr fork of inode ${owner}`
    : `data fork of inode ${owner}`;
}

/** Runs of blocks with a number, in columns: free space, or shared blocks. */
export class Runs {
  count = 0;
  start = new Uint32Array(FIRST);
  len = new Uint32Array(FIRST);
  /** Reference count; 0 where it does not matter. */
  refs = new Uint32Array(FIRST);

  /** Adds a run. */
  add(start: number, len: number, refs: number): void {
    if (this.count === this.start.length) {
      const n = 2 * this.count;
      this.start = grown(this.start, new Uint32Array(n));
      this.len = grown(this.len, new Uint32Array(n));
      this.refs = grown(this.refs, new Uint32Array(n));
    }
    const i = this.count++;
    this.start[i] = start;
    this.len[i] = len;
    this.refs[i] = refs;
  }

  /** Adds a run, or lengthens the last one if it continues it. */
  append(start: number, len: number, refs: number): void {
    const i = this.count - 1;
    const joins = i >= 0 && this.end(i) === start && this.refs[i] === refs;
    if (joins) this.len[i]! += len;
    else this.add(start, len, refs);
  }

  /** Block after the last of a run. */
  end(i: number): number {
    return this.start[i]! + this.len[i]!;
  }

  /** Index of the run that begins at a block, or -1. The runs are ascending. */
  find(start: number): number {
    let low = 0;
    let high = this.count - 1;
    while (low <= high) {
      const mid = (low + high) >> 1;
      const at = this.start[mid]!;
      if (at === start) return mid;
      if (at < start) low = mid + 1;
      else high = mid - 1;
    }
    return -1;
  }
}
