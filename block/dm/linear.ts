/**
 * A stretch of another device as a device of its own: a partition, or a linear
 * mapping.
 *
 * Kernel counterpart: drivers/md/dm-linear.c, block/partitions/core.c.
 *
 * @module
 */

import { EINVAL, FsError } from "../../lib/errno.ts";
import type { Bio } from "../bio.ts";
import type { BlockDevice } from "../blkdev.ts";
import { checkCount, DmDevice, type DmOptions, submitClone } from "./dm.ts";

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
   *   size is not aligned to logical blocks.
   */
  constructor(bottom: BlockDevice, options: LinearOptions) {
    const { startSector: start } = options;
    checkCount("startSector", start, 0, bottom.nrSectors - 1);
    const { nrSectors = bottom.nrSectors - start } = options;
    checkCount("nrSectors", nrSectors, 1, bottom.nrSectors - start);
    super({ legs: [{ bdev: bottom, start }], nrSectors }, options);
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
    submitClone(bio, this.#bottom, bio.sector + this.#start);
  }
}
