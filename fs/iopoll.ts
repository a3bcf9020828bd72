/**
 * Polling for direct I/O: what a task does that waits for completions without
 * interrupts.
 *
 * Kernel counterpart: io_uring/rw.c (`io_do_iopoll`).
 *
 * @module
 */

import { BLK_POLL_ONESHOT } from "../block/blk-core.ts";
import { BLK_FEAT_POLL } from "../block/blkdev.ts";
import { type Clock, QUIET } from "../lib/clock.ts";
import type { File } from "./fs.ts";
import { IOCB_DIRECT, type Kiocb } from "./kiocb.ts";

/** From one look to the next, nanoseconds. */
const POLL_INTERVAL = 250;
/** Who has found nothing for some time looks again after this part of it. */
const POLL_PATIENCE = 64;

/** Whether polling for a file's direct I/O can find anything. */
export function canIopoll({ inode, iocbFlags }: File): boolean {
  return (iocbFlags & IOCB_DIRECT) !== 0 && inode.fop.iopoll !== undefined &&
    (inode.sb.bdev.limits.features & BLK_FEAT_POLL) !== 0;
}

/** Polls for the calls that it has been given, until each has completed. */
export class Iopoll {
  readonly #clock: Clock;
  readonly #calls: Kiocb[] = [];
  #running = false;
  /** When something was last found or begun. */
  #since = 0;
  readonly #step = (): typeof QUIET | void => this.#look();

  /** @param clock The device's. */
  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Looks for a call's completion from now on. */
  add(call: Kiocb): void {
    this.#calls.push(call);
    this.#since = this.#clock.now();
    if (!this.#running) this.#arm();
  }

  /** A call has completed. */
  remove(call: Kiocb): void {
    const place = this.#calls.indexOf(call);
    if (place >= 0) this.#calls.splice(place, 1);
  }

  #arm(): void {
    this.#running = true;
    const now = this.#clock.now();
    const patience = Math.floor((now - this.#since) / POLL_PATIENCE);
    const wait = Math.max(POLL_INTERVAL, patience);
    this.#clock.at(now + wait, this.#step, null);
  }

  #look(): typeof QUIET | void {
    let found = 0;
    // What is found leaves the list meanwhile, and takes others of its queue along.
    for (let i = this.#calls.length - 1; i >= 0 && found === 0; i--) {
      const call = this.#calls[i];
      if (call === undefined) continue;
      found = call.file.inode.fop.iopoll!(call, BLK_POLL_ONESHOT);
    }
    if (found > 0) this.#since = this.#clock.now();
    this.#running = false;
    if (this.#calls.length > 0) this.#arm();
    if (found === 0) return QUIET;
  }
}
