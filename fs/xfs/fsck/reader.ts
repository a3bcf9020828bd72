/**
 * Where a check reads from: a device, or anything else that has bytes.
 *
 * A read waits in place, so that the check is plain code.
 *
 * @module
 */

import { Bio, submitBioWait } from "../../../block/bio.ts";
import { REQ_META, REQ_OP_READ } from "../../../block/blk-types.ts";
import type { BlockDevice } from "../../../block/blkdev.ts";
import { EAGAIN } from "../../../lib/errno.ts";
import { BBSIZE } from "../libxfs/format.ts";

/** What can be checked. */
export interface FsckReader {
  /** Bytes that there are. */
  readonly size: number;
  /**
   * Fills `data` from the byte `at` on. Both are whole sectors, and within the size.
   *
   * @returns 0, or a negative errno.
   */
  read(at: number, data: Uint8Array): number;
}

/** Reads a device with bios. */
export class DeviceReader implements FsckReader {
  readonly size: number;
  readonly #device: BlockDevice;

  /** Reads all of a device. */
  constructor(device: BlockDevice) {
    this.#device = device;
    this.size = device.nrSectors * BBSIZE;
  }

  /** See {@linkcode FsckReader.read}. */
  read(at: number, data: Uint8Array): number {
    const bio = new Bio(this.#device, REQ_OP_READ | REQ_META);
    bio.sector = at / BBSIZE;
    bio.addData(data, 0, data.length);
    const { clock } = this.#device;
    clock.enterSync();
    try {
      const error = submitBioWait(bio);
      // The device answers only when another task has gone on: not in place.
      return error instanceof Promise ? -EAGAIN : error;
    } finally {
      clock.leaveSync();
    }
  }
}
