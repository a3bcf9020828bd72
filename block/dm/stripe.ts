/**
 * Devices side by side: chunk after chunk goes to one after the other (RAID 0).
 *
 * A flush goes to all of them, and data that comes with it waits for the last:
 * what was written before may lie on any.
 *
 * Kernel counterpart: drivers/md/dm-stripe.c.
 *
 * @module
 */

import { EINVAL, FsError } from "../../lib/errno.ts";
import { Bio, bioChain, bioEndIo, bioEndWith, submitBio } from "../bio.ts";
import { submitBioDetached } from "../blk-core.ts";
import { bioSplitToLimits } from "../blk-merge.ts";
import {
  BLK_STS_OK,
  REQ_OP_WRITE,
  REQ_PREFLUSH,
  REQ_SYNC,
  SECTOR_SIZE,
} from "../blk-types.ts";
import type { BlockDevice } from "../blkdev.ts";
import {
  bioClone,
  checkCount,
  DmDevice,
  type DmOptions,
  submitClone,
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
   *   logical blocks, or a device is smaller than one chunk.
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
    if (bio.size === 0) return this.#toAll(bio);
    if ((bio.opf & REQ_PREFLUSH) !== 0) return this.#flushFirst(bio);
    const front = bioSplitToLimits(bio, this.limits);
    if (front !== null) this.#toLeg(front);
  }

  #toLeg(bio: Bio): void {
    const chunk = Math.floor(bio.sector / this.#chunk);
    const inChunk = bio.sector - chunk * this.#chunk;
    const row = Math.floor(chunk / this.#legs.length);
    const leg = this.#legs[chunk - row * this.#legs.length]!;
    submitClone(bio, leg, row * this.#chunk + inChunk);
  }

  /** Sends what has no sectors to every device (kernel: `__send_empty_flush`). */
  #toAll(bio: Bio): void {
    for (const leg of this.#legs) {
      const clone = bioClone(bio, leg, 0);
      bioChain(clone, bio);
      submitBio(clone);
    }
    bioEndIo(bio);
  }

  #flushFirst(bio: Bio): void {
    const flush = new Bio(this, REQ_OP_WRITE | REQ_PREFLUSH | REQ_SYNC);
    flush.private = bio;
    flush.endIo = flushed;
    this.#toAll(flush);
  }
}

/** All devices are flushed: the data may go. */
function flushed(flush: Bio): void {
  const bio = flush.private as Bio;
  if (flush.status !== BLK_STS_OK) return bioEndWith(bio, flush.status);
  bio.opf &= ~REQ_PREFLUSH;
  submitBioDetached(bio);
}
