/**
 * What a loss of power may leave: the writes that are not durable, in the fragments
 * that persist or not each for itself, and ways to choose among them.
 *
 * A state is named by the seed, the number of the event and the bitmap of the
 * fragments that persist. The seed decides what the bitmap does not: in which order
 * overlapping writes took effect that were under way at the same time, and what
 * became of torn blocks. Seed 0 takes writes in the order of their completion.
 *
 * In a sequential zone what persists is a prefix. A bitmap that says something else
 * is corrected, and the report has the one that was used.
 *
 * @module
 */

import { EINVAL, FsError, show } from "../../lib/errno.ts";
import { Prng } from "../../lib/prng.ts";
import { RangeMap } from "../../lib/range-map.ts";
import {
  type Version,
  VERSION_DATA,
  VERSION_UNREADABLE,
  VERSION_ZONE_FINISH,
  VERSION_ZONE_RESET,
} from "./version.ts";

const SECTOR = 512;
/** Bytes of the page in which larger writes tear in mode "page". */
const TEAR_PAGE = 4096;
/** Fragments of a command without data at most: it may cover the whole device. */
const MAX_ZERO_FRAGMENTS = 64;

/**
 * How a write tears that is larger than the power-fail atomic unit: by logical block, by
 * page of 4 KiB, or by logical block with anything in those blocks of a write under way
 * that do not persist: what was there, garbage, or nothing that can be read.
 */
export type TearMode = "lba" | "page" | "undefined";

/** Which fragments persist: none, all, each by chance, the first so many, or those in
 * a bitmap (bit `i & 7` of byte `i >> 3`; what lies behind its end does not). */
export type CutKeep = "none" | "all" | "random" | number | Uint8Array;

/** How the power goes. */
export interface CutOptions {
  /** Seed of what is left to chance, a safe integer; 0 takes writes in the order of
   * their completion. If absent, one of the device's, for `"random"`, and else 0. */
  seed?: number;
  /** What persists; `"random"` if absent. */
  keep?: CutKeep;
  /** Of `"random"`: chance that a fragment persists, 0 to 1; 0.5 if absent. */
  p?: number;
  /** How large writes tear; `"lba"` if absent. */
  tear?: TearMode;
}

/** A part of a write that persists or not. */
export interface CutFragment {
  /** Number of its command, in the order of submission. */
  readonly write: number;
  /** What the command does. */
  readonly op:
    | "write"
    | "write-zeroes"
    | "uncorrectable"
    | "zone-reset"
    | "zone-finish";
  /** First sector. */
  readonly sector: number;
  /** Sectors; 0 of what changes none. */
  readonly sectors: number;
  /** Sequential zone that it lies in, or -1. */
  readonly zone: number;
  /** Whether the command had completed. */
  readonly completed: boolean;
}

/** What a loss of power has left. */
export interface CutReport {
  /** The seed that was used; see {@linkcode CutOptions.seed}. */
  seed: number;
  /** Number of the moment: events of the device until then, for `powerCutAtEvent`. */
  event: number;
  /** The fragments that persist, as a bitmap. */
  kept: Uint8Array;
  /** All that might have persisted: completed writes in that order, then those under
   * way as they were submitted, each by address. */
  fragments: readonly CutFragment[];
}

/** Power-fail atomicity, in logical blocks as Identify tells it. */
export interface AtomicUnits {
  /** Largest write that is whole or not at all, less one. */
  awupf: number;
  /** Boundary that such a write does not cross, less one; 0 if there is none. */
  nabspf: number;
  /** First block of the first boundary. */
  nabo: number;
}

/** Checks what a user gives.
 * @throws {FsError} EINVAL, naming the option that cannot be. */
export function checkCutOptions(options: CutOptions): void {
  const fail = (what: string): never => {
    throw new FsError(EINVAL, `Cannot cut the power, ${what}`);
  };
  if (typeof options !== "object" || options === null) {
    fail(`options are ${show(options)}, not an object`);
  }
  for (const name in options) {
    if (!OPTIONS.has(name)) fail(`unknown option "${name}"`);
  }
  const { seed = 0, keep = "random", p = 0.5, tear = "lba" } = options;
  if (!Number.isSafeInteger(seed)) fail(`seed ${show(seed)} is not an integer`);
  if (!(p >= 0 && p <= 1)) fail(`p ${show(p)} is not from 0 to 1`);
  if (tear !== "lba" && tear !== "page" && tear !== "undefined") {
    fail(`tear ${show(tear)} is none of "lba", "page", "undefined"`);
  }
  const isKeep = typeof keep === "number"
    ? Number.isSafeInteger(keep) && keep >= 0
    : keep instanceof Uint8Array || KEEPS.has(keep);
  if (!isKeep) {
    fail(`keep ${show(keep)} is no bitmap, count, "none", "all" or "random"`);
  }
}

const OPTIONS: ReadonlySet<string> = new Set<keyof CutOptions>([
  "seed",
  "keep",
  "p",
  "tear",
]);
const KEEPS: ReadonlySet<unknown> = new Set(["none", "all", "random"]);

/** A fragment with the write that it is of. */
export class Fragment implements CutFragment {
  /** The write. */
  readonly version: Version;
  /** First byte. */
  readonly at: number;
  /** Bytes. */
  readonly len: number;
  /** Whether the write is in several fragments. */
  readonly torn: boolean;

  /** A part of a write. */
  constructor(version: Version, at: number, len: number) {
    this.version = version;
    this.at = at;
    this.len = len;
    this.torn = len < version.len;
  }

  get write(): number {
    return this.version.submitted;
  }

  get op(): CutFragment["op"] {
    switch (this.version.kind) {
      case VERSION_DATA:
        return "write";
      case VERSION_UNREADABLE:
        return "uncorrectable";
      case VERSION_ZONE_RESET:
        return "zone-reset";
      case VERSION_ZONE_FINISH:
        return "zone-finish";
      default:
        return "write-zeroes";
    }
  }

  get sector(): number {
    return this.at / SECTOR;
  }

  get sectors(): number {
    return this.len / SECTOR;
  }

  get zone(): number {
    return this.version.zone;
  }

  get completed(): boolean {
    return this.version.completed < Infinity;
  }
}

/** Whether a bit of a bitmap is set; what lies behind its end is not. */
export function isKept(kept: Uint8Array, i: number): boolean {
  return ((kept[i >>> 3] ?? 0) & (1 << (i & 7))) !== 0;
}

function keepBit(kept: Uint8Array, i: number): void {
  kept[i >>> 3]! |= 1 << (i & 7);
}

/** Whether a write is whole or not at all. */
function isAtomic(
  version: Version,
  blockSize: number,
  { awupf, nabspf, nabo }: AtomicUnits,
): boolean {
  const { at, len, kind } = version;
  if (kind === VERSION_ZONE_RESET || kind === VERSION_ZONE_FINISH) return true;
  const blocks = len / blockSize;
  if (blocks === 1) return true;
  if (blocks > awupf + 1) return false;
  if (nabspf === 0) return true;
  const first = at / blockSize - nabo;
  const cell = nabspf + 1;
  return Math.floor(first / cell) === Math.floor((first + blocks - 1) / cell);
}

/** Adds a write's fragments, in the order of their addresses. */
export function addFragments(
  to: Fragment[],
  version: Version,
  blockSize: number,
  units: AtomicUnits,
  tear: TearMode,
): void {
  const { at, len, kind } = version;
  if (isAtomic(version, blockSize, units)) {
    to.push(new Fragment(version, at, len));
    return;
  }
  let size = tear === "page" ? Math.max(TEAR_PAGE, blockSize) : blockSize;
  if (kind !== VERSION_DATA && len > size * MAX_ZERO_FRAGMENTS) {
    size *= Math.ceil(len / size / MAX_ZERO_FRAGMENTS);
  }
  // The borders are the device's, not the write's.
  for (let from = at; from < at + len;) {
    const border = (Math.floor(from / size) + 1) * size;
    const stop = Math.min(border, at + len);
    to.push(new Fragment(version, from, stop - from));
    from = stop;
  }
}

/** The bitmap that options ask for. */
export function chooseKept(
  count: number,
  seed: number,
  { keep = "random", p = 0.5 }: CutOptions,
): Uint8Array {
  const kept = new Uint8Array(Math.ceil(count / 8));
  const random = keep === "random" ? new Prng(seed, "power cut") : null;
  const first = keep === "all" ? count : typeof keep === "number" ? keep : 0;
  for (let i = 0; i < count; i++) {
    const takes = random !== null
      ? random.float() < p
      : keep instanceof Uint8Array
      ? isKept(keep, i)
      : i < first;
    if (takes) keepBit(kept, i);
  }
  return kept;
}

/** Fragments of each sequential zone, in the order in which they took effect. */
export function byZone(
  fragments: readonly Fragment[],
): Map<number, number[]> {
  const zones = new Map<number, number[]>();
  fragments.forEach(({ version: { zone } }, i) => {
    if (zone < 0) return;
    const list = zones.get(zone);
    if (list === undefined) zones.set(zone, [i]);
    else list.push(i);
  });
  for (const list of zones.values()) {
    list.sort((a, b) =>
      effectInZone(fragments, a) - effectInZone(fragments, b) || a - b
    );
  }
  return zones;
}

/** A write has its place in a zone from its submission on, anything else acts when
 * it is done. */
function effectInZone(fragments: readonly Fragment[], i: number): number {
  const { kind, submitted, completed } = fragments[i]!.version;
  // Finite, so that two of them can be subtracted.
  return kind === VERSION_ZONE_RESET || kind === VERSION_ZONE_FINISH
    ? Math.min(completed, Number.MAX_SAFE_INTEGER)
    : submitted;
}

/**
 * Corrects a bitmap so that what persists of each zone is a prefix, and holds at least
 * what lies before data that is durable already.
 *
 * @param durable Bytes of a zone that are durable.
 */
export function keepPrefixes(
  kept: Uint8Array,
  fragments: readonly Fragment[],
  zones: ReadonlyMap<number, readonly number[]>,
  zoneSize: number,
  durable: (zone: number) => number,
): void {
  for (const [zone, list] of zones) {
    const forced = zone * zoneSize + durable(zone);
    let isOld = true;
    let isPrefix = true;
    for (const i of list) {
      const { at, version } = fragments[i]!;
      if (version.kind === VERSION_ZONE_RESET) isOld = false;
      if (isOld && at < forced) keepBit(kept, i);
      else if (!isKept(kept, i)) isPrefix = false;
      if (!isPrefix) kept[i >>> 3]! &= ~(1 << (i & 7));
    }
  }
}

/**
 * The order in which the fragments took effect. That of a write was at some point
 * between its submission and its completion, which is all that is known about it.
 *
 * @param seed Chooses the points; 0 takes the completions.
 * @param now Number of the latest submission or completion.
 */
export function orderOf(
  fragments: readonly Fragment[],
  zones: ReadonlyMap<number, readonly number[]>,
  seed: number,
  now: number,
): number[] {
  const random = new Prng(seed, "power cut order");
  const points = fragments.map(({ version: { submitted, completed } }) => {
    // Those under way would end after all others, as they were submitted.
    const end = completed < Infinity ? completed : now + submitted;
    // The borders themselves are tried more often: they make the most of overlaps.
    const where = seed === 0 ? 0 : random.below(3);
    if (where === 0) return end;
    return where === 1
      ? submitted
      : submitted + random.float() * (end - submitted);
  });
  const order = fragments.map((_, i) => i);
  order.sort((a, b) => points[a]! - points[b]! || a - b);
  // Those of a zone go in the zone's order, in the places that they have.
  const rank = new Map<number, number>();
  return order.map((i) => {
    const { zone } = fragments[i]!;
    if (zone < 0) return i;
    const n = rank.get(zone) ?? 0;
    rank.set(zone, n + 1);
    return zones.get(zone)![n]!;
  });
}

/** How many states {@linkcode cutStates} looks for, and where chance comes from. */
export interface CutStatesOptions {
  /** States at most, a whole number from 1 on; 1000 if absent. */
  limit?: number;
  /** Seed of the random subsets, a safe integer; 1 if absent. */
  seed?: number;
}

/** Fragments up to which all subsets are tried. */
const EXHAUSTIVE = 12;
/** Fragments up to which all pairs are. */
const PAIRS = 32;
/** Chances of the random subsets, in turn. */
const CHANCES = [0.5, 0.1, 0.9];

/**
 * Bitmaps for `powerCut` and `fork` that are worth trying: all subsets of up to 12
 * fragments; else none and all, every prefix in the order of submission and of
 * completion, the last write torn at every fragment, all but one, only one, pairs kept
 * and dropped (up to 32 fragments), and random subsets until there are enough. Two that
 * leave the same blocks (by write, in the order of completion) are one.
 *
 * @param fragments The list that the device gives (`undecided`, or a report's).
 * @throws {FsError} EINVAL if an option cannot be.
 */
export function* cutStates(
  fragments: readonly CutFragment[],
  options: CutStatesOptions = {},
): Generator<Uint8Array> {
  const { limit = 1000, seed = 1 } = options;
  if (!(Number.isSafeInteger(limit) && limit >= 1)) {
    throw new FsError(EINVAL, `limit ${show(limit)} is not a count from 1 on`);
  }
  if (!Number.isSafeInteger(seed)) {
    throw new FsError(EINVAL, `seed ${show(seed)} is not a safe integer`);
  }
  const seen = new Set<string>();
  const overlap = overlaps(fragments);
  let misses = 0;
  for (const kept of candidates(fragments, seed)) {
    const key = stateKey(kept, fragments, overlap);
    if (seen.has(key)) {
      // Chance finds nothing new any more.
      if (++misses > 10 * limit + 4096) return;
      continue;
    }
    seen.add(key);
    yield kept;
    if (seen.size === limit) return;
  }
}

function* candidates(
  fragments: readonly CutFragment[],
  seed: number,
): Generator<Uint8Array> {
  const count = fragments.length;
  if (count <= EXHAUSTIVE) {
    for (let bits = 0; bits < 2 ** count; bits++) {
      yield subset(count, (i) => (bits & (1 << i)) !== 0);
    }
    return;
  }
  yield subset(count, () => false);
  yield subset(count, () => true);
  yield* prefixes(count, fragments.map((_, i) => i));
  yield* prefixes(count, bySubmission(fragments));
  yield* tornLast(fragments);
  for (let one = 0; one < count; one++) {
    yield subset(count, (i) => i !== one);
    yield subset(count, (i) => i === one);
  }
  if (count <= PAIRS) yield* pairs(count);
  yield* randomSubsets(count, seed);
}

function subset(count: number, has: (i: number) => boolean): Uint8Array {
  const kept = new Uint8Array(Math.ceil(count / 8));
  for (let i = 0; i < count; i++) if (has(i)) keepBit(kept, i);
  return kept;
}

function* prefixes(count: number, order: number[]): Generator<Uint8Array> {
  const kept = new Uint8Array(Math.ceil(count / 8));
  for (const i of order) {
    keepBit(kept, i);
    yield kept.slice();
  }
}

function bySubmission(fragments: readonly CutFragment[]): number[] {
  const order = fragments.map((_, i) => i);
  return order.sort((a, b) =>
    fragments[a]!.write - fragments[b]!.write || a - b
  );
}

/** All there but the last write, of which there is more and more. */
function* tornLast(fragments: readonly CutFragment[]): Generator<Uint8Array> {
  const last = Math.max(...new Set(fragments.map((f) => f.write)));
  const own = fragments.flatMap((f, i) => f.write === last ? [i] : []);
  for (let n = 0; n <= own.length; n++) {
    const gone = new Set(own.slice(n));
    yield subset(fragments.length, (i) => !gone.has(i));
  }
}

function* pairs(count: number): Generator<Uint8Array> {
  for (let a = 0; a < count; a++) {
    for (let b = a + 1; b < count; b++) {
      yield subset(count, (i) => i !== a && i !== b);
      yield subset(count, (i) => i === a || i === b);
    }
  }
}

/** Without end: whoever asks has a limit. */
function* randomSubsets(count: number, seed: number): Generator<Uint8Array> {
  const random = new Prng(seed, "power cut states");
  for (let n = 0;; n++) {
    const p = CHANCES[n % CHANCES.length]!;
    yield subset(count, () => random.float() < p);
  }
}

function overlaps(fragments: readonly CutFragment[]): boolean {
  const seen = new RangeMap<boolean>();
  for (const { sector, sectors } of fragments) {
    if (sectors === 0) continue;
    if (seen.touches(sector, sector + sectors)) return true;
    seen.set(sector, sector + sectors, true);
  }
  return false;
}

/** Names a state: the fragments of which something is to be seen. */
function stateKey(
  kept: Uint8Array,
  fragments: readonly CutFragment[],
  overlap: boolean,
): string {
  const seen = overlap ? visible(kept, fragments) : kept;
  let key = "";
  for (const byte of seen) key += String.fromCharCode(byte);
  return key;
}

function visible(
  kept: Uint8Array,
  fragments: readonly CutFragment[],
): Uint8Array {
  const covered = new RangeMap<boolean>();
  const seen = kept.slice();
  for (let i = fragments.length - 1; i >= 0; i--) {
    const { sector, sectors, zone } = fragments[i]!;
    // What a zone shows depends on its pointer, too.
    if (!isKept(kept, i) || zone >= 0) continue;
    const end = sector + sectors;
    let pos = sector;
    while (pos < end && covered.seek(pos) && covered.start <= pos) {
      pos = covered.end;
    }
    if (pos >= end) seen[i >>> 3]! &= ~(1 << (i & 7));
    covered.set(sector, end, true);
  }
  return seen;
}
