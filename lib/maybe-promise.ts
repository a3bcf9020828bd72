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

/**
 * {@linkcode andThen} for hot paths: `next` is a function that stands alone and
 * is handed `arg`, so nothing is allocated where nothing waits.
 */
export function andThenWith<T, A, R>(
  value: MaybePromise<T>,
  next: (value: T, arg: A) => MaybePromise<R>,
  arg: A,
): MaybePromise<R> {
  // The closure lives apart: merely containing one costs a function its context.
  return value instanceof Promise
    ? thenWith(value, next, arg)
    : next(value, arg);
}

function thenWith<T, A, R>(
  value: Promise<T>,
  next: (value: T, arg: A) => MaybePromise<R>,
  arg: A,
): Promise<R> {
  return value.then((v) => next(v, arg));
}

/** {@linkcode repeat} for hot paths: the step is handed its state. */
export function repeatWith<A>(
  step: (arg: A) => MaybePromise<boolean>,
  arg: A,
): MaybePromise<void> {
  for (;;) {
    const more = step(arg);
    if (more instanceof Promise) return repeatWithAsync(more, step, arg);
    if (!more) return;
  }
}

async function repeatWithAsync<A>(
  first: Promise<boolean>,
  step: (arg: A) => MaybePromise<boolean>,
  arg: A,
): Promise<void> {
  for (let more = await first; more;) {
    const next = step(arg);
    more = next instanceof Promise ? await next : next;
  }
}
