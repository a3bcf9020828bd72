/**
 * The edge between users and the kernel layers: arguments are checked here, once,
 * and negative errnos become errors.
 *
 * @module
 */

import { BlockDevice } from "../block/blkdev.ts";
import type { Clock } from "../lib/clock.ts";
import { EAGAIN, EFBIG, EINVAL, FsError, show } from "../lib/errno.ts";
import type { MaybePromise } from "../lib/maybe-promise.ts";

/** One call, for its error messages. */
export interface Syscall {
  /** As Linux calls it. */
  name: string;
  /** What it was to do: `Cannot ${task} "/a"`. */
  task: string;
  /** What it was to do it to. */
  path: string;
}

/** The error of a call that failed.
 * @param detail Says which value was wrong; may be empty. */
export function failure(call: Syscall, errno: number, detail = ""): FsError {
  const message = `Cannot ${call.task} "${call.path}"`;
  return new FsError(errno, detail === "" ? message : `${message}: ${detail}`, {
    syscall: call.name,
    path: call.path,
  });
}

/** A call on a device. Refuses what is not one (EINVAL). */
export function deviceCall(
  name: string,
  task: string,
  device: BlockDevice,
): Syscall {
  if (device instanceof BlockDevice) return { name, task, path: device.name };
  const path = show(device);
  const call = { name, task, path };
  throw failure(call, EINVAL, `device ${path} is not a block device`);
}

/** Throws if `result` is a negative errno, else hands it on. */
export function orThrow<T>(call: Syscall, result: T | number): T {
  if (typeof result === "number" && result < 0) throw failure(call, result);
  return result as T;
}

/**
 * Runs a call whose caller cannot wait: what it waits for is run in place.
 *
 * @param abandon Given the late result of a call that had to wait for another task.
 * @throws FsError EAGAIN in that case. What was begun ends by itself.
 */
export function runSync<T>(
  clock: Clock,
  call: Syscall,
  run: () => MaybePromise<T>,
  abandon: (late: T) => void = () => {},
): T {
  clock.enterSync();
  let result: MaybePromise<T>;
  try {
    result = run();
  } finally {
    clock.leaveSync();
  }
  if (!(result instanceof Promise)) return result;
  // Its failure has been reported already, as EAGAIN.
  result.then(abandon, () => {});
  throw failure(call, EAGAIN, "another task has to finish first");
}

/** Refuses an offset that is not a whole number of bytes from 0 on (EINVAL), or is
 * beyond the largest file (EFBIG). */
export function checkOffset(
  call: Syscall,
  what: string,
  value: number,
): number {
  checkInteger(call, what, value);
  if (value < 0) {
    throw failure(call, EINVAL, `${what} ${value} is negative`);
  }
  return value;
}

/** Refuses what is not a whole number (EINVAL), or is none that a number holds
 * exactly (EFBIG). */
export function checkInteger(
  call: Syscall,
  what: string,
  value: number,
): number {
  if (Number.isSafeInteger(value)) return value;
  if (!Number.isInteger(value)) {
    throw failure(call, EINVAL, `${what} ${show(value)} is not a whole number`);
  }
  const errno = value > 0 ? EFBIG : EINVAL;
  throw failure(call, errno, `${what} ${value} is out of range`);
}

/** Refuses what is not a whole number from 1 on (EINVAL). */
export function checkCount(call: Syscall, what: string, value: number): number {
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw failure(call, EINVAL, `${what} ${show(value)} is no number from 1 on`);
}

/** Refuses what is neither a boolean nor absent (EINVAL). */
export function checkFlag(
  call: Syscall,
  what: string,
  value: boolean | undefined,
): boolean {
  if (value === undefined || typeof value === "boolean") return value === true;
  throw failure(
    call,
    EINVAL,
    `option ${what} is ${show(value)}, not a boolean`,
  );
}

/** Refuses permission bits that do not exist (EINVAL). */
export function checkMode(
  call: Syscall,
  mode: number | undefined,
  otherwise: number,
): number {
  if (mode === undefined) return otherwise;
  if (Number.isInteger(mode) && mode >= 0 && mode <= 0o7777) return mode;
  throw failure(call, EINVAL, `mode ${show(mode)} is not between 0 and 0o7777`);
}

/** Refuses options that do not exist (EINVAL). */
export function checkOptions(
  call: Syscall,
  options: object,
  known: readonly string[],
): void {
  if (typeof options !== "object" || options === null) {
    throw failure(call, EINVAL, `options are ${show(options)}, not an object`);
  }
  for (const key in options) {
    if (!known.includes(key)) throw unknownOption(call, key);
  }
}

/** EINVAL for an option that does not exist. */
export function unknownOption(call: Syscall, key: string): FsError {
  return failure(call, EINVAL, `there is no option "${key}"`);
}
