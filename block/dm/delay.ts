/**
 * A device that is slower: every bio waits before it goes below.
 *
 * Kernel counterpart: drivers/md/dm-delay.c.
 *
 * @module
 */

import { checkCount } from "../../lib/errno.ts";
import type { Bio } from "../bio.ts";
import { opIsWrite, REQ_PREFLUSH } from "../blk-types.ts";
import type { BlockDevice } from "../blkdev.ts";
import {
  DM_DISCARD,
  DM_TARGET_ZONED_HM,
  DmDevice,
  type DmOptions,
  wholeOf,
} from "./dm.ts";

/** What {@linkcode DelayDevice} takes. */
export interface DelayOptions extends DmOptions {
  /** How long reads wait, nanoseconds. */
  readNs: number;
  /** How long writes wait, nanoseconds; as long as reads if absent. */
  writeNs?: number;
  /** How long flushes wait, nanoseconds; as long as writes if absent. Data that comes
   * with one waits its own time afterwards. */
  flushNs?: number;
}

/** A device that hands bios on after a time (kernel: target `delay`). */
export class DelayDevice extends DmDevice {
  readonly #bottom: BlockDevice;
  readonly #readNs: number;
  readonly #writeNs: number;
  readonly #flushNs: number;

  /**
   * Slows a device down.
   *
   * @param bottom The device.
   * @param options By how much.
   * @throws {FsError} EINVAL, naming the delay that is no whole number from 0 on.
   */
  constructor(bottom: BlockDevice, options: DelayOptions) {
    const { readNs } = options;
    const { writeNs = readNs } = options;
    const { flushNs = writeNs } = options;
    for (const [name, ns] of Object.entries({ readNs, writeNs, flushNs })) {
      checkCount(name, ns, 0);
    }
    super(wholeOf(bottom, DM_DISCARD | DM_TARGET_ZONED_HM), options);
    this.#bottom = bottom;
    this.#readNs = readNs;
    this.#writeNs = writeNs;
    this.#flushNs = flushNs;
  }

  /** Lets a bio wait (kernel: `delay_map`). */
  protected override map(bio: Bio): void {
    const ns = this.#delayOf(bio.opf);
    if (ns === 0) this.#release(bio);
    else this.clock.at(this.clock.now() + ns, this.#release, bio);
  }

  #delayOf(opf: number): number {
    if (!opIsWrite(opf)) return this.#readNs;
    return (opf & REQ_PREFLUSH) !== 0 ? this.#flushNs : this.#writeNs;
  }

  readonly #release = (bio: Bio): void => {
    this.pass(bio, this.#bottom, bio.sector);
  };
}
