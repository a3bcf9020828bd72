/**
 * What the kernel tells its log: a line for whoever runs the machine, about
 * something that is not an error of the caller's program alone.
 *
 * Kernel counterpart: kernel/printk/printk.c.
 *
 * @module
 */

let sink: (message: string) => void = (message) => console.warn(message);

/**
 * Sends the log somewhere else.
 *
 * @param handler Called with each line, without a newline.
 * @returns The handler that was in force.
 */
export function setLogHandler(
  handler: (message: string) => void,
): (message: string) => void {
  const old = sink;
  sink = handler;
  return old;
}

/** Writes a line to the log (kernel: `printk`). */
export function printk(message: string): void {
  sink(message);
}

/** Lines that one place may write in `RATELIMIT_INTERVAL`. */
const RATELIMIT_BURST = 10;
/** Nanoseconds. */
const RATELIMIT_INTERVAL = 5e9;

/** Keeps one place from flooding the log (kernel: `struct ratelimit_state`). */
export class Ratelimit {
  #begin = 0;
  #printed = 0;

  /**
   * Whether a line may be written (kernel: `__ratelimit`): ten in five seconds may.
   *
   * @param now Time of any clock, nanoseconds.
   */
  allow(now: number): boolean {
    // A clock that began anew is another machine's.
    const passed = now - this.#begin;
    if (passed < 0 || passed >= RATELIMIT_INTERVAL) this.#printed = 0;
    if (this.#printed === 0) this.#begin = now;
    return ++this.#printed <= RATELIMIT_BURST;
  }
}
