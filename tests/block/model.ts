/**
 * Random bios against a plain model of a disk.
 *
 * Goal: whatever the block layer and the device do with a bio (split, merge,
 * queue, cache, tear), a reader and a survivor of a power cut see only what the
 * rules allow. Method: a small device, many bios under way at once, seeded. The
 * oracle keeps for every block the list of versions that may still be there:
 *
 * - a read may give any version that no other write has replaced for certain
 *   (it was submitted after the version had completed, and has itself completed),
 *   or one under way;
 * - after a power cut the same holds, but only of writes that are durable: those
 *   with FUA, and those that had completed when a flush was submitted that has
 *   completed;
 * - an atomic write is there whole or not at all.
 *
 * @module
 */

import {
  Bio,
  BLK_STS_OK,
  type BlockDevice,
  REQ_ATOMIC,
  REQ_FUA,
  REQ_OP_DISCARD,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_PREFLUSH,
  reqOp,
  submitBio,
} from "../../block/mod.ts";
import { Prng } from "../../lib/prng.ts";

/** One write to a range of blocks, or what the device held before. */
interface Version {
  /** Written in every word of its blocks; 0 reads as zeroes. */
  tag: number;
  first: number;
  blocks: number;
  /** Order of events; Infinity while it is under way. */
  submitted: number;
  completed: number;
  durable: boolean;
  atomic: boolean;
}

/** Chooses among the model's operations; out of 100. */
export interface Mix {
  read: number;
  fua: number;
  flush: number;
  zeroes: number;
  discard: number;
  atomic: number;
}

/** What a run is made of. */
export interface ModelOptions {
  seed: number;
  /** Bios under way at most. */
  depth: number;
  /** Largest bio, blocks. */
  maxBlocks: number;
  mix: Mix;
}

/** The oracle beside a device. */
export class DiskModel {
  readonly #bdev: BlockDevice;
  readonly #blockSize: number;
  readonly #blocks: number;
  readonly #random: Prng;
  readonly #options: ModelOptions;
  /** Versions that a reader or a survivor may find, by block. */
  readonly #versions: Version[][];
  /** Completed, but not durable. */
  readonly #volatile = new Set<Version>();
  #time = 0;
  #tag = 0;
  #inFlight = 0;
  #dead = false;
  /** When the reads under way began; the oldest of them. */
  readonly #reads = new Set<number>();
  #oldestRead = Infinity;
  /** Bios that have ended. */
  done = 0;
  /** What a bio showed that is not allowed; null if nothing. */
  failure: unknown = null;

  constructor(bdev: BlockDevice, options: ModelOptions) {
    this.#bdev = bdev;
    this.#options = options;
    this.#blockSize = bdev.limits.logicalBlockSize;
    this.#blocks = bdev.nrSectors * 512 / this.#blockSize;
    this.#random = new Prng(options.seed, "disk model");
    const zero = this.#newVersion(0, this.#blocks, 0);
    zero.completed = 0;
    zero.durable = true;
    this.#versions = Array.from({ length: this.#blocks }, () => [zero]);
  }

  /** Bios that have not ended. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Submits up to `count` bios, but no more than may be under way. */
  submit(count: number): void {
    for (let i = 0; i < count && this.#inFlight < this.#options.depth; i++) {
      this.#submitOne();
    }
  }

  /** The power goes: what ends from now on says nothing. */
  cut(powerCut: () => void): void {
    this.#dead = true;
    powerCut();
    this.#dead = false;
  }

  /**
   * The power has gone and come back: reads everything, and takes what it finds
   * as the only version that there is.
   *
   * @param read Reads `[at, at + data.length)` of the device.
   */
  afterCut(read: (at: number, data: Uint8Array) => void): void {
    if (this.#inFlight > 0) throw new Error(`${this.#inFlight} bios never end`);
    this.#volatile.clear();
    const data = new Uint8Array(this.#blocks * this.#blockSize);
    read(0, data);
    const found: Version[] = [];
    for (let block = 0; block < this.#blocks; block++) {
      const oldest = latest(this.#versions[block]!, (w) => w.durable);
      found.push(this.#check(block, data, block * this.#blockSize, oldest));
    }
    this.#checkAtomic(found);
    for (let block = 0; block < this.#blocks; block++) {
      this.#settle(block, found[block]!);
    }
  }

  #settle(block: number, found: Version): void {
    this.#versions[block] = [{
      ...found,
      first: block,
      blocks: 1,
      completed: this.#time,
      submitted: Math.min(found.submitted, this.#time),
      durable: true,
      atomic: false,
    }];
  }

  #checkAtomic(found: readonly Version[]): void {
    for (const v of new Set(found)) {
      if (!v.atomic) continue;
      for (let b = v.first; b < v.first + v.blocks; b++) {
        const other = found[b]!;
        if (other === v || v.submitted <= other.completed) continue;
        throw new Error(
          `block ${b} has tag ${other.tag}, older than atomic write ${v.tag}`,
        );
      }
    }
  }

  #newVersion(first: number, blocks: number, tag: number): Version {
    return {
      tag,
      first,
      blocks,
      submitted: this.#time++,
      completed: Infinity,
      durable: false,
      atomic: false,
    };
  }

  #submitOne(): void {
    const { mix } = this.#options;
    let roll = this.#random.below(100);
    const takes = (share: number) => (roll -= share) < 0;
    if (takes(mix.read)) this.#read();
    else if (takes(mix.flush)) this.#flush();
    else if (takes(mix.zeroes)) this.#write(REQ_OP_WRITE_ZEROES);
    else if (takes(mix.discard)) this.#write(REQ_OP_DISCARD);
    else if (takes(mix.atomic)) this.#write(REQ_OP_WRITE | REQ_ATOMIC);
    else this.#write(REQ_OP_WRITE);
  }

  #bio(opf: number, first: number, blocks: number): Bio {
    const bio = new Bio(this.#bdev, opf);
    bio.sector = first * this.#blockSize / 512;
    const op = reqOp(opf);
    if (op === REQ_OP_READ || op === REQ_OP_WRITE) {
      this.#addMemory(bio, blocks * this.#blockSize);
    } else bio.size = blocks * this.#blockSize;
    return bio;
  }

  /** In one piece or several. */
  #addMemory(bio: Bio, bytes: number): void {
    const pieces = this.#random.below(4) === 0 ? 4096 : bytes;
    for (let at = 0; at < bytes; at += pieces) {
      const n = Math.min(pieces, bytes - at);
      bio.addData(new Uint8Array(n), 0, n);
    }
  }

  #range(): [number, number] {
    const most = Math.min(this.#options.maxBlocks, this.#blocks);
    const blocks = 1 + this.#random.below(most);
    return [this.#random.below(this.#blocks - blocks + 1), blocks];
  }

  #atomicRange(): [number, number] {
    const unit = this.#bdev.limits.atomicWriteUnitMax / this.#blockSize;
    const blocks = 2 ** this.#random.below(Math.log2(unit) + 1);
    const at = this.#random.below(Math.floor(this.#blocks / blocks));
    return [at * blocks, blocks];
  }

  #read(): void {
    const [first, blocks] = this.#range();
    const bio = this.#bio(REQ_OP_READ, first, blocks);
    const began = this.#time++;
    this.#submit(bio, () => this.#checkRead(bio, first, blocks, began));
  }

  #checkRead(bio: Bio, first: number, blocks: number, began: number): void {
    const data = flatten(bio, blocks * this.#blockSize);
    for (let i = 0; i < blocks; i++) {
      // What had been replaced for certain when the read began is not to be seen.
      const all = this.#versions[first + i]!;
      const oldest = latest(all, (w) => w.completed < began);
      this.#check(first + i, data, i * this.#blockSize, oldest);
    }
  }

  /** The version that a block holds; one that completed before `oldest` is wrong. */
  #check(block: number, data: Uint8Array, at: number, oldest: number): Version {
    const words = this.#blockSize / 4;
    const from = (data.byteOffset + at) / 4;
    const all = new Uint32Array(data.buffer);
    const tag = all[from]!;
    for (let i = from + 1; i < from + words; i++) {
      if (all[i] !== tag) {
        throw new Error(`block ${block} is a mixture of ${tag} and ${all[i]}`);
      }
    }
    const versions = this.#versions[block]!;
    for (let i = versions.length - 1; i >= 0; i--) {
      const v = versions[i]!;
      if (v.tag === tag && v.completed >= oldest) return v;
    }
    const known = versions.map((v) =>
      `${v.tag} (${v.submitted}-${v.completed}${v.durable ? " durable" : ""})`
    );
    throw new Error(
      `block ${block} has tag ${tag}, versions ${known}, oldest ${oldest}`,
    );
  }

  #flush(): void {
    const horizon = this.#time++;
    const bio = new Bio(this.#bdev, REQ_OP_WRITE | REQ_PREFLUSH);
    this.#submit(bio, () => this.#durable(horizon));
  }

  /** All that had completed at `horizon` is durable. */
  #durable(horizon: number): void {
    for (const v of this.#volatile) {
      if (v.completed >= horizon) continue;
      v.durable = true;
      this.#volatile.delete(v);
      this.#pruneRange(v);
    }
  }

  #write(opf: number): void {
    const { mix } = this.#options;
    const atomic = (opf & REQ_ATOMIC) !== 0;
    const [first, blocks] = atomic ? this.#atomicRange() : this.#range();
    const isData = reqOp(opf) === REQ_OP_WRITE;
    const flags = isData && this.#random.below(100) < mix.fua ? REQ_FUA : 0;
    const bio = this.#bio(opf | flags, first, blocks);
    // Never 0: that is what zeroes read as.
    const tag = isData ? this.#tag = this.#tag % 0xffff_fffe + 1 : 0;
    if (isData) {
      for (const v of bio.vecs) new Uint32Array(v.data.buffer).fill(tag);
    }
    const version = this.#newVersion(first, blocks, tag);
    version.atomic = atomic;
    for (let b = first; b < first + blocks; b++) {
      this.#versions[b]!.push(version);
    }
    this.#submit(bio, () => this.#written(version, flags !== 0));
  }

  #written(version: Version, durable: boolean): void {
    version.completed = this.#time++;
    // A device without a cache has it on the media now.
    version.durable = durable || !this.#bdev.writeCache;
    if (!version.durable) this.#volatile.add(version);
    this.#pruneRange(version);
  }

  /** Forgets what neither a survivor nor a reader, also one that has begun, can find. */
  #pruneRange({ first, blocks }: Version): void {
    for (let b = first; b < first + blocks; b++) {
      const all = this.#versions[b]!;
      if (all.length < 2) continue;
      const oldest = latest(
        all,
        (w) => w.durable && w.completed < this.#oldestRead,
      );
      this.#versions[b] = all.filter((v) => v.completed >= oldest);
    }
  }

  #submit(bio: Bio, ended: () => void): void {
    this.#inFlight++;
    const began = this.#time;
    const isRead = reqOp(bio.opf) === REQ_OP_READ;
    if (isRead) this.#track(began, true);
    bio.endIo = () => {
      this.#inFlight--;
      this.done++;
      if (isRead) this.#track(began, false);
      if (!this.#dead) this.#ended(bio, ended);
    };
    submitBio(bio);
  }

  #ended(bio: Bio, ended: () => void): void {
    try {
      if (bio.status !== BLK_STS_OK) throw new Error(`status ${bio.status}`);
      ended();
    } catch (error) {
      // The device that called is in the middle of its work: told later.
      this.failure ??= error;
    }
  }

  #track(began: number, on: boolean): void {
    if (on) this.#reads.add(began);
    else this.#reads.delete(began);
    const first = this.#reads.values().next();
    // A set keeps the order of insertion, which is that of time.
    this.#oldestRead = first.done ? Infinity : first.value;
  }
}

function flatten(bio: Bio, bytes: number): Uint8Array {
  if (bio.vecs.length === 1) return bio.vecs[0]!.data;
  const data = new Uint8Array(bytes);
  let at = 0;
  for (const vec of bio.vecs) {
    data.set(vec.data.subarray(vec.offset, vec.offset + vec.len), at);
    at += vec.len;
  }
  return data;
}

/** When the last of some versions was submitted: what had completed before has been
 * replaced for certain. */
function latest(
  all: readonly Version[],
  which: (v: Version) => boolean,
): number {
  let last = -1;
  for (const v of all) if (v.submitted > last && which(v)) last = v.submitted;
  return last;
}
