/**
 * Watches the locks of a stack in a test: a task is a call of the public face, or
 * one event of the clock, with all that it goes on to do.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { AsyncLocalStorage } from "node:async_hooks";
import { VirtualClock } from "../lib/clock.ts";
import {
  type ClassedLock,
  Lockdep,
  type LockdepOptions,
  type LockMode,
  setLockTracker,
} from "../lib/lockdep.ts";
import { Folio } from "../mm/folio.ts";

const tasks = new AsyncLocalStorage<object>();
const MAIN = {};

/** Runs `fn` as a task of its own. */
export function asTask<T>(fn: () => T): T {
  return tasks.run({}, fn);
}

/** A clock whose events are tasks of their own: what a device does is not done by
 * whoever waits for it. */
export class TaskClock extends VirtualClock {
  override at<T>(time: number, fn: (arg: T) => void, arg: T): number {
    return super.at(time, (a: T) => asTask(() => fn(a)), arg);
  }

  override atBackground<T>(time: number, fn: (arg: T) => void, arg: T): number {
    return super.atBackground(time, (a: T) => asTask(() => fn(a)), arg);
  }
}

/** What `taskwise` objects stand for. */
const targets = new WeakMap<object, object>();

/** The same object, each call of whose methods is a task. */
export function taskwise<T extends object>(target: T): T {
  const proxy = new Proxy(target, {
    get(object, name) {
      const value = Reflect.get(object, name, object);
      if (typeof value !== "function") return value;
      return (...args: unknown[]) => {
        const plain = args.map((arg) => targets.get(arg as object) ?? arg);
        return asTask(() => value.apply(object, plain));
      };
    },
  });
  targets.set(proxy, target);
  return proxy;
}

const OPTIONS: LockdepOptions = {
  currentTask: () => tasks.getStore() ?? MAIN,
  nesting: {
    // A parent before its child, or two parents with the rename mutex held.
    "i_rwsem (directory)": () => true,
    // Ascending within a file.
    "folio lock": (held, wanted) =>
      held instanceof Folio && wanted instanceof Folio &&
      (held.mapping !== wanted.mapping || held.index < wanted.index),
    // Of two files in ascending inode number, which the caller sees to.
    "i_rwsem": () => true,
    "invalidate_lock": () => true,
    "ILOCK": () => true,
  },
};

/** A checker that notes besides which locks were asked for with which held. */
class Recorder extends Lockdep {
  readonly taken = new Set<string>();

  override acquire(lock: ClassedLock, mode: LockMode, waits: boolean): void {
    const held = this.held.map((h) => `${h.lock.lockClass} ${h.mode}`);
    this.taken.add([...held, `${lock.lockClass} ${mode}`].join(" > "));
    super.acquire(lock, mode, waits);
  }
}

/** What a stretch of a test did with locks. */
export interface Watched {
  /** Each lock asked for, behind those that were held: `i_rwsem exclusive > ILOCK shared`. */
  readonly taken: Set<string>;
  /** Locks taken while others were held, by class. */
  readonly orders: string[];
}

/**
 * Runs `fn` with every lock watched, and fails if two orders contradict each other.
 *
 * @returns What locks were taken.
 */
export async function watchLocks(fn: () => Promise<void>): Promise<Watched> {
  const recorder = new Recorder(OPTIONS);
  await checking(recorder, fn);
  return { taken: recorder.taken, orders: recorder.orders };
}

/** {@linkcode watchLocks} that keeps no record, and so takes less time. */
export function checkLocks(fn: () => Promise<void>): Promise<void> {
  return checking(new Lockdep(OPTIONS), fn);
}

async function checking(
  lockdep: Lockdep,
  fn: () => Promise<void>,
): Promise<void> {
  const before = setLockTracker(lockdep);
  const { stackTraceLimit } = Error;
  // Enough to see who holds what.
  Error.stackTraceLimit = 40;
  try {
    await fn();
  } finally {
    setLockTracker(before);
    Error.stackTraceLimit = stackTraceLimit;
  }
  assertEquals(lockdep.reports, []);
}
