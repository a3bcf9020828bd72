/**
 * Assertions after the kernel's: they stay on in production.
 *
 * A warning names a broken contract and lets the caller recover; a bug is a
 * state that must not go on.
 *
 * Kernel counterpart: include/asm-generic/bug.h.
 *
 * @module
 */

const seen = new Set<string>();
let sink: (message: string) => void = (message) =>
  console.warn(`WARNING: ${message}`);

/**
 * Sends warnings somewhere else; tests make them fatal this way.
 *
 * @param handler Called with each warning's text.
 * @returns The handler that was in force.
 */
export function setWarningHandler(
  handler: (message: string) => void,
): (message: string) => void {
  const old = sink;
  sink = handler;
  return old;
}

/**
 * Warns when `condition` holds (kernel: `WARN_ON`).
 *
 * @param condition What must not be.
 * @param message The rule that was broken.
 * @returns `condition`, so that a caller can recover.
 */
export function warnOn(condition: boolean, message: string): boolean {
  if (condition) sink(message);
  return condition;
}

/** Like {@linkcode warnOn}, but each message once (kernel: `WARN_ON_ONCE`). */
export function warnOnOnce(condition: boolean, message: string): boolean {
  if (condition && !seen.has(message)) {
    seen.add(message);
    sink(message);
  }
  return condition;
}

/** Lets {@linkcode warnOnOnce} give every warning once more (kernel:
 * `clear_warn_once`). */
export function clearWarnOnce(): void {
  seen.clear();
}

/** Throws when `condition` holds: the state must not go on (kernel: `BUG_ON`). */
export function bugOn(condition: boolean, message: string): void {
  if (condition) throw new Error(`BUG: ${message}`);
}
