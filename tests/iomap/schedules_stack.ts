/**
 * A stack whose schedule is chance: tasks that have waited go on in any order, and
 * what the device is asked for is done in any order, some time later.
 *
 * @module
 */

import { type Bio, bioEndIo } from "../../block/bio.ts";
import { blkValidateLimits } from "../../block/blk-settings.ts";
import {
  BLK_STS_IOERR,
  REQ_META,
  REQ_OP_READ,
  REQ_OP_WRITE,
  reqOp,
  SECTOR_SIZE,
} from "../../block/blk-types.ts";
import {
  BLK_FEAT_FUA,
  BLK_FEAT_WRITE_CACHE,
  BlockDevice,
  type QueueLimits,
} from "../../block/blkdev.ts";
import { VirtualClock } from "../../lib/clock.ts";
import type { Prng } from "../../lib/prng.ts";
import { mkfsXfs } from "../../mod.ts";
import { TaskClock } from "../lockdep.ts";
import type { FsckReader } from "../../fs/xfs/fsck/fsck.ts";

/** Whether something is so once in `n` times. */
export function oneIn(prng: Prng, n: number): boolean {
  return prng.below(n) === 0;
}

/** A clock on which what is due at the same time comes in any order, and some of it
 * late. */
export class SchedulingClock extends TaskClock {
  readonly #prng: Prng;

  constructor(prng: Prng) {
    super();
    this.#prng = prng;
  }

  /** Whether no event is left. */
  get dry(): boolean {
    return !this.busy;
  }

  override at<T>(time: number, fn: (arg: T) => void, arg: T): number {
    const late = oneIn(this.#prng, 4) ? 5_000 : 8;
    const due = Math.max(time, this.now()) + this.#prng.below(late);
    return super.at(due, fn, arg);
  }

  /** Lets a task go on that has waited. */
  readonly wake = (resume: () => void): void => {
    const late = oneIn(this.#prng, 8) ? 50_000 : 2_000;
    // Chance enough: the event itself need not be moved once more.
    super.at(this.now() + this.#prng.below(late), resume, undefined);
  };
}

/** Bytes of every disk: the least that XFS takes. */
const DISK_SIZE = 16 * 2 ** 20;
const CHUNK = 65536;

/** An array, with a note of what was written. */
class DiskMemory implements FsckReader {
  readonly size = DISK_SIZE;
  readonly data: Uint8Array = new Uint8Array(DISK_SIZE);
  readonly #touched = new Uint8Array(DISK_SIZE / CHUNK);

  write(at: number, bytes: Uint8Array): void {
    this.data.set(bytes, at);
    const last = Math.floor((at + bytes.length - 1) / CHUNK);
    for (let i = Math.floor(at / CHUNK); i <= last; i++) this.#touched[i] = 1;
  }

  read(at: number, data: Uint8Array): number {
    data.set(this.data.subarray(at, at + data.length));
    return 0;
  }

  /** Makes it equal to another, from which only what was noted differs. */
  restore(from: DiskMemory): void {
    for (let i = 0; i < this.#touched.length; i++) {
      if (this.#touched[i] === 0) continue;
      const at = i * CHUNK;
      this.data.set(from.data.subarray(at, at + CHUNK), at);
      this.#touched[i] = 0;
    }
  }
}

/** A disk over an array. */
export class ChanceDisk extends BlockDevice {
  readonly name = "disk0";
  readonly dev = { major: 7, minor: 0 };
  limits: QueueLimits;
  readonly nrSectors: number = DISK_SIZE / SECTOR_SIZE;
  readonly clock: VirtualClock;
  readonly memory: DiskMemory;
  readonly #prng: Prng | null;
  /** One write in so many fails; 0 for none. */
  failWrites = 0;
  /** One read in so many fails; 0 for none. */
  failReads = 0;
  /** Called when a write fails. */
  lost: () => void = () => {};

  /** @param prng When and in what order things are done; null: at once. */
  constructor(clock: VirtualClock, memory: DiskMemory, prng: Prng | null) {
    super();
    this.clock = clock;
    this.memory = memory;
    this.#prng = prng;
    const features = prng === null || oneIn(prng, 2)
      ? 0
      : BLK_FEAT_WRITE_CACHE | BLK_FEAT_FUA;
    this.limits = blkValidateLimits({
      features,
      logicalBlockSize: 512,
      physicalBlockSize: 4096,
    }) as QueueLimits;
  }

  submit(bio: Bio): void {
    if (this.#prng === null) return this.#finish(bio);
    const late = oneIn(this.#prng, 16) ? 300_000 : 20_000;
    const due = this.clock.now() + this.#prng.below(late);
    if (oneIn(this.#prng, 2)) {
      // Bytes may have moved long before anybody is told.
      this.#move(bio);
      this.clock.at(due, (b: Bio) => this.#end(b, this.#fails(b)), bio);
    } else this.clock.at(due, (b: Bio) => this.#finish(b), bio);
  }

  #finish(bio: Bio): void {
    const fails = this.#fails(bio);
    if (!fails) this.#move(bio);
    this.#end(bio, fails);
  }

  #end(bio: Bio, fails: boolean): void {
    bio.status = fails ? BLK_STS_IOERR : 0;
    bioEndIo(bio);
  }

  #fails(bio: Bio): boolean {
    // Metadata that cannot be read shuts a file system down: another story.
    if ((bio.opf & REQ_META) !== 0) return false;
    const op = reqOp(bio.opf);
    const one = op === REQ_OP_WRITE
      ? this.failWrites
      : op === REQ_OP_READ
      ? this.failReads
      : 0;
    if (one === 0 || !oneIn(this.#prng!, one)) return false;
    if (op === REQ_OP_WRITE) this.lost();
    return true;
  }

  #move(bio: Bio): void {
    const isRead = reqOp(bio.opf) === REQ_OP_READ;
    let at = bio.sector * SECTOR_SIZE;
    for (const { data, offset, len } of bio.vecs) {
      const memory = data.subarray(offset, offset + len);
      if (isRead) memory.set(this.memory.data.subarray(at, at + len));
      else this.memory.write(at, memory);
      at += len;
    }
  }
}

/** What free space holds: nobody may ever read it. */
const STALE = 0xdb;

interface Disks {
  made: DiskMemory;
  used: DiskMemory;
}

const disks = new Map<number, Disks>();

/** An array with a fresh file system; the one before is not used any more. */
export async function freshDisk(blockSize: number): Promise<DiskMemory> {
  let pair = disks.get(blockSize);
  if (pair === undefined) {
    pair = { made: new DiskMemory(), used: new DiskMemory() };
    pair.made.data.fill(STALE);
    const disk = new ChanceDisk(new VirtualClock(), pair.made, null);
    await mkfsXfs(disk, { blockSize });
    pair.used.data.set(pair.made.data);
    disks.set(blockSize, pair);
  }
  pair.used.restore(pair.made);
  return pair.used;
}
