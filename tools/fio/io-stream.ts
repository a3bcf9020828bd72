/**
 * Which I/O a job does next: the file, the direction, the offset and the size.
 *
 * The order of the draws is part of fio's behaviour. A file is chosen first,
 * then the direction, then the offset, then the size; a file that has nothing
 * left is put aside and the next one asked, with a new draw of the direction.
 *
 * @module
 */

import {
  BlockSizes,
  type Distribution,
  hashName,
  Normal,
  Pareto,
  RandomMap,
  RwMix,
  SEED_BLOCK_SIZE,
  SEED_FILE,
  SEED_OFFSET,
  SEED_RWMIX,
  SEED_SEQ_RAND,
  Taus88,
  threadSeeds,
  Zipf,
} from "./generators.ts";
import {
  DDIR_DATASYNC,
  DDIR_SYNC,
  DDIR_SYNC_FILE_RANGE,
  type JobOptions,
  type Triple,
} from "./options.ts";
import { DDIR_READ, DDIR_TRIM, DDIR_WRITE } from "./stat.ts";

/** A job's view of one of its files. */
export class StreamFile {
  /** As named by the job file, with its directory; seeds skewed offsets. */
  readonly name: string;
  /** First byte that the job uses. */
  readonly start: number;
  /** Bytes that the job uses. */
  readonly size: number;
  /** Bytes of the file; `start + size` or more. */
  readonly realSize: number;
  /** Where the next sequential I/O of each direction goes. */
  readonly nextPos: Triple;
  /** Where the last I/O of each direction went; -1 at first. */
  readonly lastStart: Triple = [-1, -1, -1];
  /** Nothing is left to do in it. */
  done = false;
  /** Blocks used in this pass; null where they may be used again. */
  map: RandomMap | null = null;
  /** Where offsets are not uniform. */
  skew: Distribution | null = null;

  constructor(name: string, start: number, size: number, realSize: number) {
    this.name = name;
    this.start = start;
    this.size = size;
    this.realSize = realSize;
    this.nextPos = [start, start, start];
  }

  /** Begins anew: all blocks are free, and the position is at the start. */
  rewind(): void {
    this.nextPos.fill(this.start);
    this.lastStart.fill(-1);
    this.map?.reset();
  }
}

/** One I/O; filled in by {@linkcode IoStream}. */
export interface Io<F extends StreamFile = StreamFile> {
  file: F | null;
  /** `DDIR_*`. */
  ddir: number;
  /** Offset in the file, bytes. */
  offset: number;
  /** Bytes; 0 for a sync. */
  length: number;
}

/** The I/Os of one job, one after the other. */
export class IoStream<F extends StreamFile = StreamFile> {
  readonly files: readonly F[];
  /** I/Os handed out per direction since the job began or the ramp ended. */
  readonly issued: Triple = [0, 0, 0];
  /** Bytes handed out per direction, likewise. */
  readonly issuedBytes: Triple = [0, 0, 0];
  readonly #o: JobOptions;
  readonly #seeds: Uint32Array;
  readonly #thread: number;
  readonly #align: Triple;
  #offsets!: Taus88;
  #sizes!: BlockSizes[];
  #mix!: RwMix;
  #fileRandom!: Taus88;
  #seqRandom!: Taus88[];
  #filesDone = 0;
  #nextFile = 0;
  #serviced: F | null = null;
  #serviceLeft = 0;
  #seqLeft = 1;
  #lastWasSync = false;

  /**
   * @param threadNumber Counts from 1 over all jobs and their clones.
   * @param seed The run's seed; heeded only where fio would ask for chance.
   */
  constructor(
    options: JobOptions,
    files: readonly F[],
    threadNumber: number,
    seed = 0,
  ) {
    this.#o = options;
    this.files = files;
    this.#thread = threadNumber;
    this.#seeds = threadSeeds({
      randseed: options.randseed,
      randrepeat: options.randrepeat,
      allrandrepeat: options.allrandrepeat,
      seed,
    }, threadNumber);
    this.#align = options.minBs.map((bs, i) =>
      options.blockalign[i] || bs
    ) as Triple;
    this.#seed();
    if (options.random) { for (const file of files) this.#prepare(file); }
  }

  /** Seed of a stream that the caller draws from. */
  seedOf(stream: number): number {
    return this.#seeds[stream]!;
  }

  /** Starts another pass over the files: the next loop, or more `io_size`. */
  restart(): void {
    for (const file of this.files) {
      file.rewind();
      file.done = false;
    }
    this.#filesDone = 0;
    this.#nextFile = 0;
    this.#serviced = null;
    this.#serviceLeft = 0;
    // Seeds that repeat do so in every pass.
    if (this.#o.randrepeat) this.#seed();
  }

  /** The end of the ramp: what was issued before does not count. */
  resetCounters(): void {
    this.issued.fill(0);
    this.issuedBytes.fill(0);
  }

  /**
   * Fills in the next I/O.
   *
   * @returns False if nothing is left in any file.
   */
  next(io: Io<F>): boolean {
    for (;;) {
      const file = this.pickFile();
      if (file === null) return false;
      if (this.fill(io, file, this.pickDirection(file))) return true;
      this.finishFile(file);
    }
  }

  /** Chooses a file; null if all are done. First step of {@linkcode next}. */
  pickFile(): F | null {
    if (this.#filesDone >= this.files.length) return null;
    const o = this.#o;
    if (this.#serviced !== null && !this.#serviced.done) {
      if (o.fileService === "sequential") return this.#serviced;
      if (this.#serviceLeft > 0) {
        this.#serviceLeft--;
        return this.#serviced;
      }
    }
    const file = o.fileService === "random"
      ? this.#randomFile()
      : this.#followingFile();
    this.#serviced = file;
    this.#serviceLeft = o.fileServiceCount - 1;
    return file;
  }

  /** Chooses what to do, a `DDIR_*`. Second step of {@linkcode next}. */
  pickDirection(file: F): number {
    const o = this.#o;
    const writes = this.issued[DDIR_WRITE];
    if (o.write && writes > 0 && !this.#lastWasSync) {
      if (o.fsync > 0 && writes % o.fsync === 0) return DDIR_SYNC;
      if (o.fdatasync > 0 && writes % o.fdatasync === 0) return DDIR_DATASYNC;
      const every = o.syncFileRange.every;
      if (every > 0 && writes % every === 0) return DDIR_SYNC_FILE_RANGE;
    }
    if (o.read && o.write) {
      return this.#mix.nextIsWrite(this.issued[DDIR_READ], writes)
        ? DDIR_WRITE
        : DDIR_READ;
    }
    if (o.read) return DDIR_READ;
    if (!o.trim) return DDIR_WRITE;
    // A trim makes room for the write that follows it.
    return o.write && file.nextPos[DDIR_WRITE] !== file.nextPos[DDIR_TRIM]
      ? DDIR_WRITE
      : DDIR_TRIM;
  }

  /** A rate limit sent the job the other way after {@linkcode pickDirection}. */
  overrideDirection(ddir: number): void {
    this.#mix.force(ddir === DDIR_WRITE);
  }

  /**
   * Chooses offset and size. Third step of {@linkcode next}.
   *
   * @returns False if the file has nothing left for this direction.
   */
  fill(io: Io<F>, file: F, ddir: number): boolean {
    io.file = file;
    io.ddir = ddir;
    io.length = 0;
    if (ddir >= DDIR_SYNC) {
      this.#lastWasSync = true;
      io.offset = 0;
      return true;
    }
    let random = false;
    if (this.#isNewOffset()) {
      random = this.#o.random && this.#drawIsRandom(ddir);
      const at = random
        ? this.#randomOffset(file, ddir)
        : this.#nextSequential(file, ddir);
      io.offset = at;
      if (at < 0) return false;
    } else {
      io.offset = this.#o.rwSequencer === "identical"
        ? Math.max(0, file.lastStart[ddir]! - file.start)
        : this.#sequentialOffset(file, ddir);
      if (io.offset < 0) io.offset = this.#randomOffset(file, ddir);
      if (io.offset < 0) return false;
    }
    if (io.offset >= file.size) return false;
    io.offset += file.start;
    io.length = this.#sizes[ddir]!.next(file.start + file.size - io.offset);
    if (io.length === 0 || io.offset + io.length > file.realSize) return false;
    // Only what was drawn at random is kept out of later draws.
    if (random && file.map !== null) this.#mark(io, file, ddir);
    this.#account(io, file);
    return true;
  }

  /** Whether the last I/O was a sync, which makes another one needless. */
  get lastWasSync(): boolean {
    return this.#lastWasSync;
  }

  /** Whether all files have been worked through in this pass. */
  get exhausted(): boolean {
    return this.#filesDone >= this.files.length;
  }

  /** The file has nothing left: it is not chosen again in this pass. */
  finishFile(file: F): void {
    file.done = true;
    this.#filesDone++;
  }

  #account(io: Io, file: StreamFile): void {
    const ddir = io.ddir;
    this.#lastWasSync = false;
    file.lastStart[ddir] = io.offset;
    file.nextPos[ddir] = io.offset + io.length;
    this.issued[ddir]! += 1;
    this.issuedBytes[ddir]! += io.length;
  }

  #seed(): void {
    const o = this.#o;
    this.#offsets = new Taus88(this.#seeds[SEED_OFFSET]!);
    this.#mix = new RwMix(o.rwmixRead, this.#seeds[SEED_RWMIX]!);
    this.#fileRandom = new Taus88(this.#seeds[SEED_FILE]!);
    const directions = [DDIR_READ, DDIR_WRITE, DDIR_TRIM] as const;
    // All directions begin with the seed of the reads, each for itself.
    this.#seqRandom = directions.map(() =>
      new Taus88(this.#seeds[SEED_SEQ_RAND]!)
    );
    this.#sizes = directions.map((d) =>
      new BlockSizes(
        o.minBs[d],
        o.maxBs[d],
        o.bsUnaligned,
        o.bssplit[d],
        this.#seeds[SEED_BLOCK_SIZE + d]!,
      )
    );
  }

  #prepare(file: StreamFile): void {
    const { distribution, norandommap, blockalign } = this.#o;
    const ddir = this.#o.read ? DDIR_READ : DDIR_WRITE;
    const blocks = this.#blocks(file, ddir);
    if (blocks < 1) return;
    if (distribution.kind === "random") {
      if (!norandommap && blockalign.every((a) => a === 0)) {
        file.map = new RandomMap(blocks);
      }
      return;
    }
    const { randrepeat, randseed } = this.#o;
    const seed = randrepeat && randseed === null
      ? Math.imul(hashName(file.name), this.#thread)
      : this.#seeds[SEED_OFFSET]!;
    const kinds = { zipf: Zipf, pareto: Pareto, normal: Normal };
    const { parameter, center } = distribution;
    file.skew = new kinds[distribution.kind](
      Math.ceil(file.realSize / this.#o.minBs[ddir]),
      parameter,
      center,
      seed,
    );
  }

  #followingFile(): F | null {
    for (let i = 0; i < this.files.length; i++) {
      const file = this.files[this.#nextFile]!;
      this.#nextFile = (this.#nextFile + 1) % this.files.length;
      if (!file.done) return file;
    }
    return null;
  }

  #randomFile(): F {
    for (;;) {
      const n = this.files.length;
      const file = this
        .files[Math.floor(n * (this.#fileRandom.next() / 2 ** 32))]!;
      if (!file.done) return file;
    }
  }

  /** Whether this I/O goes to a new place, or on from the last (`rw=x:n`). */
  #isNewOffset(): boolean {
    if (--this.#seqLeft > 0) return false;
    this.#seqLeft = this.#o.seqCount;
    return true;
  }

  #drawIsRandom(ddir: number): boolean {
    const percent = this.#o.percentageRandom[ddir]!;
    if (percent === 100) return true;
    return this.#seqRandom[ddir]!.between(1, 100) <= percent;
  }

  /** Next sequential offset, with the start of the file where it has ended. */
  #nextSequential(file: StreamFile, ddir: number): number {
    const at = this.#sequentialOffset(file, ddir);
    if (at >= 0 || !this.#o.random) return at;
    return this.#randomOffset(file, ddir);
  }

  /** Offset from the file's start after the last I/O; -1 at the end. */
  #sequentialOffset(file: StreamFile, ddir: number): number {
    const o = this.#o;
    if (file.nextPos[ddir]! >= file.start + file.size && o.timeBased) {
      file.nextPos[ddir] = file.start;
    }
    if (file.nextPos[ddir]! >= file.realSize) return -1;
    let at = file.nextPos[ddir]! - file.start;
    if (at > 0 && o.seqAdd !== 0) {
      at += o.seqAdd;
      if (at >= file.realSize) at = file.start;
    }
    return at;
  }

  /** Random offset from the file's start; -1 if all blocks have been used. */
  #randomOffset(file: StreamFile, ddir: number): number {
    let block = this.#randomBlock(file, ddir);
    if (block < 0 && this.#o.timeBased) {
      file.rewind();
      block = this.#randomBlock(file, ddir);
    }
    return block < 0 ? -1 : block * this.#align[ddir]!;
  }

  #randomBlock(file: StreamFile, ddir: number): number {
    if (file.skew !== null) return file.skew.next();
    const blocks = this.#blocks(file, ddir);
    if (blocks < 1) return -1;
    const block = Math.floor(blocks * (this.#offsets.next() / 2 ** 32));
    if (file.map === null || file.map.isFree(block)) return block;
    return file.map.nextFree(block);
  }

  /** Places where a random I/O can begin. */
  #blocks(file: StreamFile, ddir: number): number {
    const align = this.#align[ddir]!;
    const tail = Math.max(0, this.#o.minBs[ddir]! - align);
    return Math.floor((Math.min(file.size, file.realSize) - tail) / align);
  }

  /** Marks what the I/O covers; a used block on the way cuts it short. */
  #mark(io: Io, file: StreamFile, ddir: number): void {
    const unit = this.#o.minBs[ddir]!;
    const block = Math.floor((io.offset - file.start) / unit);
    const wanted = Math.ceil(io.length / unit);
    const marked = file.map!.mark(block, wanted);
    if (marked > 0) io.length = Math.min(io.length, marked * unit);
  }
}
