/**
 * A stretch of another device as a device of its own, its zones included.
 *
 * For a partition, which is no layer of its own, see `../partition.ts`.
 *
 * Kernel counterpart: drivers/md/dm-linear.c.
 *
 * @module
 */

import { checkCount, EINVAL, FsError } from "../../lib/errno.ts";
import { Bio, bioEndIo, submitBio } from "../bio.ts";
import {
  BLK_STS_OK,
  REQ_OP_MASK,
  REQ_OP_ZONE_RESET,
  REQ_OP_ZONE_RESET_ALL,
  reqOp,
} from "../blk-types.ts";
import {
  BLK_ZONE_COND_EMPTY,
  BLK_ZONE_COND_NOT_WP,
  BLK_ZONE_COND_OFFLINE,
  BLK_ZONE_COND_READONLY,
} from "../blk-zoned.ts";
import type { BlockDevice } from "../blkdev.ts";
import { DM_ALL, DmDevice, type DmOptions } from "./dm.ts";

/** What {@linkcode LinearDevice} takes. */
export interface LinearOptions extends DmOptions {
  /** Where it begins below, sectors. */
  startSector: number;
  /** Its size, sectors; the rest of the device if absent. */
  nrSectors?: number;
}

/** Some sectors of another device (kernel: target `linear`). */
export class LinearDevice extends DmDevice {
  readonly #bottom: BlockDevice;
  readonly #start: number;

  /**
   * Maps a stretch of a device.
   *
   * @param bottom The device.
   * @param options Which stretch.
   * @throws {FsError} EINVAL if it does not lie within the device, or its start or
   *   size is not aligned to logical blocks, or to zones.
   */
  constructor(bottom: BlockDevice, options: LinearOptions) {
    const { startSector: start } = options;
    checkCount("startSector", start, 0, bottom.nrSectors - 1);
    const { nrSectors = bottom.nrSectors - start } = options;
    checkCount("nrSectors", nrSectors, 1, bottom.nrSectors - start);
    super(
      { legs: [{ bdev: bottom, start }], nrSectors, passes: DM_ALL },
      options,
    );
    if (nrSectors % (this.limits.logicalBlockSize / 512) !== 0) {
      throw new FsError(
        EINVAL,
        `nrSectors ${nrSectors} is not a multiple of logical blocks`,
      );
    }
    this.#bottom = bottom;
    this.#start = start;
  }

  /** Moves a bio by the start (kernel: `linear_map`). */
  protected override map(bio: Bio): void {
    const isAll = reqOp(bio.opf) === REQ_OP_ZONE_RESET_ALL;
    if (isAll && this.nrSectors !== this.#bottom.nrSectors) {
      this.#resetFrom(bio, 0);
    } else this.pass(bio, this.#bottom, bio.sector + this.#start);
  }

  /**
   * Resets its own zones one after the other: there are more on the device below
   * (kernel: `__send_zone_reset_all_emulated`). An error is the bio's, and ends
   * nothing.
   */
  #resetFrom(bio: Bio, sector: number): void {
    const { chunkSectors } = this.limits;
    let at = sector;
    while (at < this.nrSectors && !this.#needsReset(at)) at += chunkSectors;
    if (at >= this.nrSectors) return bioEndIo(bio);
    const reset = new Bio(
      this.#bottom,
      bio.opf & ~REQ_OP_MASK | REQ_OP_ZONE_RESET,
    );
    reset.sector = this.#start + at;
    reset.endIo = ({ status }) => {
      if (status !== BLK_STS_OK) bio.status = status;
      this.#resetFrom(bio, at + chunkSectors);
    };
    submitBio(reset);
  }

  #needsReset(sector: number): boolean {
    const { zones } = this.#bottom;
    if (zones === null) return true;
    const cond = zones.condOf(zones.zoneNo(this.#start + sector));
    // What the device has appended by itself nobody has seen.
    if (cond === BLK_ZONE_COND_EMPTY) return zones.appendUsed;
    return cond !== BLK_ZONE_COND_NOT_WP &&
      cond !== BLK_ZONE_COND_READONLY && cond !== BLK_ZONE_COND_OFFLINE;
  }
}
