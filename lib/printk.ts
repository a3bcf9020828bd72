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
