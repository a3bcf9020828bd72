/**
 * Errors by rule, over any device: bios that match end with a status and never go
 * below. The rules are those of `error-inject.ts`.
 *
 * @module
 */

import { type Bio, bioEndWith } from "../bio.ts";
import { BLK_STS_OK } from "../blk-types.ts";
import type { BlockDevice } from "../blkdev.ts";
import { ErrorInjection } from "../error-inject.ts";
import { DM_ALL, DmDevice, type DmOptions, wholeOf } from "./dm.ts";

/** What {@linkcode ErrorDevice} takes. */
export interface ErrorOptions extends DmOptions {
  /** Rules to begin with; see {@linkcode ErrorDevice.control}. */
  rules?: readonly string[];
  /** Seed of its chance, a safe integer; 1 if absent. */
  seed?: number;
}

/** A device of which some bios fail. */
export class ErrorDevice extends DmDevice {
  readonly #bottom: BlockDevice;
  readonly #injection: ErrorInjection;

  /**
   * Lays rules over a device.
   *
   * @param bottom The device.
   * @param options The rules.
   * @throws {FsError} EINVAL, naming what is wrong with a rule or the seed.
   */
  constructor(bottom: BlockDevice, options: ErrorOptions = {}) {
    super(wholeOf(bottom, DM_ALL), options);
    this.#bottom = bottom;
    this.#injection = new ErrorInjection(options.seed, options.rules);
  }

  /**
   * Adds a rule, or removes all; see {@linkcode ErrorInjection.control}.
   *
   * @throws {FsError} EINVAL, naming the part that is wrong.
   */
  control(command: string): void {
    this.#injection.control(command);
  }

  /** Ends a bio that a rule hits, passes others. */
  protected override map(bio: Bio): void {
    const status = this.#injection.inject(bio);
    if (status === BLK_STS_OK) this.pass(bio, this.#bottom, bio.sector);
    else bioEndWith(bio, status);
  }
}
