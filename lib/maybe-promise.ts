/**
 * Values that may have to be waited for.
 *
 * A function that can usually finish at once returns `T | Promise<T>`; its
 * caller waits only if it was handed a promise. A loop whose steps may wait is
 * written once, as a step that keeps its state outside itself.
 *
 * @module
 */

/** A value, or the promise of one where the callee had to wait. */
export type MaybePromise<T> = T | Promise<T>;

/**
 * Goes on with a value that may have to be waited for.
 *
 * @param value What the callee returned.
 * @param next Called with the value: at once if it is there, later if not.
 */
export function andThen<T, R>(
  value: MaybePromise<T>,
  next: (value: T) => MaybePromise<R>,
): MaybePromise<R> {
  return value instanceof Promise ? value.then(next) : next(value);
}

/**
 * Repeats `step` until it answers false; asynchronous from the first that waits.
 *
 * @param step One round of a loop. Its state must live outside it, as it may be
 *   taken up again after a wait.
 */
export function repeat(step: () => MaybePromise<boolean>): MaybePromise<void> {
  for (;;) {
    const more = step();
    if (more instanceof Promise) return repeatAsync(more, step);
    if (!more) return;
  }
}

async function repeatAsync(
  first: Promise<boolean>,
  step: () => MaybePromise<boolean>,
): Promise<void> {
  for (let more = await first; more;) {
    const next = step();
    more = next instanceof Promise ? await next : next;
  }
}
