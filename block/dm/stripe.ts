/**
 * Devices side by side: chunk after chunk goes to one after the other (RAID 0).
 *
 * A flush goes to all of them, and data that comes with it waits for the last:
 * what was written before may lie on any. A discard is one of each device, as what
 * it covers there lies in one piece.
 *
 * Kernel counterpart: drivers/md/dm-stripe.c.
 *
 * @module
 */

import { checkCount, EINVAL, FsError } from "../../lib/errno.ts";
import { type Bio, bioEndIo } from "../bio.ts";
import { bioSplitToLimits } from "../blk-merge.ts";
import {
  REQ_OP_DISCARD,
  REQ_OP_SECURE_ERASE,
  reqOp,
  SECTOR_SIZE,
} from "../blk-types.ts";
import type { BlockDevice } from "../blkdev.ts";
import {
  bioClone,
  DM_DISCARD,
  DM_SECURE_ERASE,
  DM_TARGET_ATOMIC_WRITES,
  DM_TARGET_NOWAIT,
  DM_WRITE_ZEROES,
  DmDevice,
  type DmOptions,
} from "./dm.ts";

/** What {@linkcode StripeDevice} takes. */
export interface StripeOptions extends DmOptions {
  /** Sectors that lie together on one device. */
  chunkSectors: number;
}

/** Devices striped into one (kernel: target `striped`). */
export class StripeDevice extends DmDevice {
  readonly #legs: readonly BlockDevice[];
  readonly #chunk: number;

  /**
   * Stripes devices. Of each it uses as many whole chunks as the smallest has.
   *
   * @param legs The devices, at least 1, in order.
   * @param options How they are striped.
   * @throws {FsError} EINVAL if there is no device, the chunk is not a multiple of
   *   logical blocks, or a device is smaller than one chunk or has zones.
   */
  constructor(legs: readonly BlockDevice[], options: StripeOptions) {
    const { chunkSectors: chunk } = options;
    checkCount("number of devices", legs.length, 1);
    checkCount("chunkSectors", chunk, 1, 2 ** 31 / SECTOR_SIZE);
    const chunks = Math.floor(
      Math.min(...legs.map((l) => l.nrSectors)) / chunk,
    );
    checkCount("chunks of the smallest device", chunks, 1);
    super({
      legs: legs.map((bdev) => ({ bdev, start: 0 })),
      nrSectors: chunks * chunk * legs.length,
      passes: DM_TARGET_NOWAIT | DM_TARGET_ATOMIC_WRITES | DM_DISCARD |
        DM_SECURE_ERASE | DM_WRITE_ZEROES,
      hints: (limits) => {
        limits.chunkSectors = chunk;
        limits.ioMin = chunk * SECTOR_SIZE;
        limits.ioOpt = limits.ioMin * legs.length;
      },
    }, options);
    if (chunk % (this.limits.logicalBlockSize / SECTOR_SIZE) !== 0) {
      throw new FsError(
        EINVAL,
        `chunkSectors ${chunk} is not a multiple of logical blocks`,
      );
    }
    this.#legs = [...legs];
    this.#chunk = chunk;
  }

  /** Sends a bio's first chunk to its device, and the rest after it (kernel:
   * `stripe_map`). */
  protected override map(bio: Bio): void {
    const front = bioSplitToLimits(bio, this.limits);
    if (front === null) return;
    const op = reqOp(front.opf);
    if (op === REQ_OP_DISCARD || op === REQ_OP_SECURE_ERASE) {
      return this.#mapRange(front);
    }
    const chunk = Math.floor(front.sector / this.#chunk);
    const i = chunk % this.#legs.length;
    this.pass(front, this.#legs[i]!, this.#sectorOn(i, front.sector));
  }

  /** Sends what has no sectors to every device (kernel: `__send_empty_flush`). */
  protected override mapFlush(bio: Bio): void {
    for (const leg of this.#legs) this.passPart(bio, bioClone(bio, leg, 0));
    bioEndIo(bio);
  }

  /** Sends each device what it has of a range (kernel: `stripe_map_range`). */
  #mapRange(bio: Bio): void {
    for (const [i, leg] of this.#legs.entries()) {
      const start = this.#sectorOn(i, bio.sector);
      const end = this.#sectorOn(i, bio.endSector);
      if (start === end) continue;
      const part = bioClone(bio, leg, start);
      part.size = (end - start) * SECTOR_SIZE;
      this.passPart(bio, part);
    }
    bioEndIo(bio);
  }

  /** How many sectors of a device come before a sector of the stripe. */
  #sectorOn(leg: number, sector: number): number {
    const chunk = Math.floor(sector / this.#chunk);
    const row = Math.floor(chunk / this.#legs.length);
    const current = chunk - row * this.#legs.length;
    const before = row * this.#chunk;
    if (leg < current) return before + this.#chunk;
    return leg > current ? before : before + sector - chunk * this.#chunk;
  }
}
