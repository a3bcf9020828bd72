/**
 * What a file may contain while many calls go on at once.
 *
 * Every byte is a register: a read answers what some write has put there that had
 * begun before the read ended, unless another write that took place for certain came
 * between, after the one and before the other. The size is tracked as the set of all
 * that it can be. Once nothing is going on, a look at the file settles both.
 *
 * @module
 */

import { Buffer } from "node:buffer";

/** Something that puts bytes into the file. Times are steps of the history. */
export interface Effect {
  start: number;
  /** Infinity while it goes on. */
  end: number;
  /** First byte. */
  from: number;
  /** End of the range, exclusive. */
  to: number;
  /** The bytes, from `from` on; null for zeroes. */
  data: Uint8Array | null;
  /** Whether all of it has certainly taken place by `end`. */
  sure: boolean;
}

/** What a read got. */
export interface Look {
  what: string;
  start: number;
  end: number;
  at: number;
  data: Uint8Array;
}

/** Contents of a file under concurrent calls. */
export class ContentModel {
  /** Contents when nothing was going on last; beyond it there are zeroes. */
  #base: Uint8Array;
  readonly effects: Effect[] = [];
  /** What was written may be lost: a write to the device has failed. */
  tainted = false;
  readonly #zeroes: Uint8Array;

  constructor(capacity: number) {
    this.#base = new Uint8Array(capacity);
    this.#zeroes = new Uint8Array(capacity);
  }

  /** Nothing is going on, and this is what the file contains. */
  settle(contents: Uint8Array): void {
    this.#base.fill(0);
    this.#base.set(contents);
    this.effects.length = 0;
    this.tainted = false;
  }

  /** Says which byte cannot be, or answers null. */
  check(look: Look): string | null {
    const end = look.at + look.data.length;
    const near = this.effects.filter((e) =>
      e.from < end && e.to > look.at && e.start <= look.end
    );
    const cuts = new Set([look.at, end]);
    for (const { from, to } of near) {
      if (from > look.at) cuts.add(from);
      if (to < end) cuts.add(to);
    }
    const bounds = [...cuts].sort((a, b) => a - b);
    for (let i = 1; i < bounds.length; i++) {
      const wrong = this.#checkPiece(look, near, bounds[i - 1]!, bounds[i]!);
      if (wrong !== null) return wrong;
    }
    return null;
  }

  /** A range over which the same writes may show. */
  #checkPiece(
    look: Look,
    near: readonly Effect[],
    from: number,
    to: number,
  ): string | null {
    const here = near.filter((e) => e.from <= from && e.to >= to);
    const latest = this.tainted ? -Infinity : latestStart(here, look.start);
    const sources = here
      .filter((e) => e.end >= latest)
      .map((e) => e.data?.subarray(from - e.from, to - e.from) ?? null);
    if (latest === -Infinity) sources.push(this.#base.subarray(from, to));
    if (this.tainted) sources.push(null);
    const got = look.data.subarray(from - look.at, to - look.at);
    const all = sources.map((s) => s ?? this.#zeroes.subarray(0, to - from));
    if (all.some((s) => Buffer.compare(s, got) === 0)) return null;
    for (let i = 0; i < got.length; i++) {
      if (all.some((s) => s[i] === got[i])) continue;
      const may = [...new Set(all.map((s) => s[i]))].join(" or ");
      return `${look.what} at ${look.at}+${look.data.length}: ` +
        `byte ${from + i} is ${got[i]}, not ${may}`;
    }
    return null;
  }
}

/** When the last of the writes began that were certainly done before `time`. */
function latestStart(effects: readonly Effect[], time: number): number {
  let latest = -Infinity;
  for (const { sure, start, end } of effects) {
    if (sure && end < time) latest = Math.max(latest, start);
  }
  return latest;
}

/** What a call does to the size; 0 or more sizes may come of one. */
export type SizeChange = (size: number) => readonly number[];

/** A change that may be made or not. */
export interface Pending {
  change: SizeChange;
  bit: number;
}

/** A look at the size that goes on; it collects what the size may have been. */
export type SizeLook = Set<number>;

/** All that the size of a file can be. */
export class SizeModel {
  /** By size: the sets of pending changes that may have been made by then. */
  #states = new Map<number, Set<number>>([[0, new Set([0])]]);
  readonly #pending = new Set<Pending>();
  readonly #looks = new Set<SizeLook>();

  /** Sizes that can be now. */
  get sizes(): number[] {
    return [...this.#states.keys()];
  }

  /** Nothing is going on, and this is the size. */
  settle(size: number): void {
    this.#states = new Map([[size, new Set([0])]]);
    this.#pending.clear();
  }

  /** A call begins that may change the size from now on. */
  begin(change: SizeChange): Pending {
    let used = 0;
    for (const { bit } of this.#pending) used |= bit;
    // The lowest bit that is free.
    const pending = { change, bit: ~used & (used + 1) };
    this.#pending.add(pending);
    this.#close();
    return pending;
  }

  /** It has ended: `made` if the change has certainly taken place, null if nobody
   * knows. */
  end(pending: Pending, made: boolean | null): void {
    this.#pending.delete(pending);
    const { bit } = pending;
    const old = this.#states;
    this.#states = new Map();
    for (const [size, sets] of old) {
      for (const set of sets) {
        const applied = (set & bit) !== 0;
        if (made === null || made === applied) this.#add(size, set & ~bit);
      }
    }
    this.#close();
  }

  /** Begins a look. */
  look(): SizeLook {
    const look = new Set(this.sizes);
    this.#looks.add(look);
    return look;
  }

  /** Ends a look.
   * @returns The same set: what the size may have been meanwhile. */
  looked(look: SizeLook): SizeLook {
    this.#looks.delete(look);
    return look;
  }

  #add(size: number, set: number): boolean {
    let sets = this.#states.get(size);
    if (sets === undefined) this.#states.set(size, sets = new Set());
    if (sets.has(set)) return false;
    sets.add(set);
    for (const look of this.#looks) look.add(size);
    return true;
  }

  /** Makes every pending change wherever it has not been made. */
  #close(): void {
    const work: [number, number][] = [];
    for (const [size, sets] of this.#states) {
      for (const set of sets) work.push([size, set]);
    }
    for (const [size, set] of work) {
      for (const { change, bit } of this.#pending) {
        if ((set & bit) !== 0) continue;
        for (const next of change(size)) {
          if (this.#add(next, set | bit)) work.push([next, set | bit]);
        }
      }
    }
  }
}
