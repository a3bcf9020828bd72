/**
 * A device some of whose requests fail.
 *
 * @module
 */

import { type Bio, bioEndWith } from "../../../block/bio.ts";
import { BLK_STS_IOERR, opIsWrite } from "../../../block/blk-types.ts";
import { PassDevice } from "./pass_device.ts";

/** When the failure of a request becomes known, ns after its submission. */
const FAILS_AFTER = 5_000;

/** Hands requests on to another device, but for those that fail. */
export class FailingDevice extends PassDevice {
  /** Requests so far. */
  requests = 0;
  /** Whether the nth request fails, counted from 1. */
  fails: (nth: number) => boolean = () => false;
  /** Whether they fail in submission, and not some time later. */
  atOnce = false;
  /** Whether the last one that failed was a read. */
  failedRead = false;

  override submit(bio: Bio): void {
    const { clock } = this;
    if (!this.fails(++this.requests)) return super.submit(bio);
    this.failedRead = !opIsWrite(bio.opf);
    if (this.atOnce) fail(bio);
    else clock.at(clock.now() + FAILS_AFTER, fail, bio);
  }
}

function fail(bio: Bio): void {
  bioEndWith(bio, BLK_STS_IOERR);
}
