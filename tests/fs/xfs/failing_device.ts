/**
 * A device some of whose requests fail.
 *
 * @module
 */

import { type Bio, bioEndWith } from "../../../block/bio.ts";
import { BLK_STS_IOERR } from "../../../block/blk-types.ts";
import { BlockDevice, type QueueLimits } from "../../../block/blkdev.ts";
import type { Clock } from "../../../lib/clock.ts";
import type { NvmeDevice } from "../../../mod.ts";

/** When the failure of a request becomes known, ns after its submission. */
const FAILS_AFTER = 5_000;

/** Hands requests on to another device, but for those that fail. */
export class FailingDevice extends BlockDevice {
  readonly name: string;
  readonly clock: Clock;
  readonly limits: QueueLimits;
  readonly nrSectors: number;
  readonly dev: { major: number; minor: number };
  readonly writeCache: boolean;
  readonly fua: boolean;
  /** Requests so far. */
  requests = 0;
  /** Whether the nth request fails, counted from 1. */
  fails: (nth: number) => boolean = () => false;
  /** Whether they fail in submission, and not some time later. */
  atOnce = false;
  readonly #inner: NvmeDevice;

  constructor(inner: NvmeDevice) {
    super();
    this.#inner = inner;
    this.name = inner.name;
    this.clock = inner.clock;
    this.limits = inner.limits;
    this.nrSectors = inner.nrSectors;
    this.dev = inner.dev;
    this.writeCache = inner.writeCache;
    this.fua = inner.fua;
  }

  submit(bio: Bio): void {
    const { clock } = this;
    if (!this.fails(++this.requests)) this.#inner.submit(bio);
    else if (this.atOnce) fail(bio);
    else clock.at(clock.now() + FAILS_AFTER, fail, bio);
  }
}

function fail(bio: Bio): void {
  bioEndWith(bio, BLK_STS_IOERR);
}
