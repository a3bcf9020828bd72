/**
 * A device that hands every request on to another: what test devices begin with.
 *
 * @module
 */

import type { Bio } from "../../../block/bio.ts";
import { BlockDevice, type QueueLimits } from "../../../block/blkdev.ts";
import type { Clock } from "../../../lib/clock.ts";

/** Hands requests on to another device. */
export class PassDevice extends BlockDevice {
  readonly name: string;
  readonly clock: Clock;
  limits: QueueLimits;
  readonly nrSectors: number;
  readonly dev: { major: number; minor: number };
  readonly #inner: BlockDevice;

  constructor(inner: BlockDevice) {
    super();
    this.#inner = inner;
    this.name = inner.name;
    this.clock = inner.clock;
    this.limits = inner.limits;
    this.nrSectors = inner.nrSectors;
    this.dev = inner.dev;
  }

  submit(bio: Bio): void {
    this.#inner.submit(bio);
  }
}
