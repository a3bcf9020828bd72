/**
 * Waiting for a condition that somebody else brings about.
 *
 * A synchronous caller runs the clock's events in place instead of waiting for
 * a promise. Where that does not bring the condition about, because another task
 * would have to go on first, it gets the promise after all: what was begun ends
 * properly in the background, and the public face answers EAGAIN.
 *
 * Kernel counterpart: include/linux/wait.h, include/linux/completion.h.
 *
 * @module
 */

import type { Clock } from "./clock.ts";
import type { MaybePromise } from "./maybe-promise.ts";

/** What is done when the running task waits. */
export interface WaitHooks {
  /**
   * It is about to (kernel: `sched_submit_work`).
   *
   * @param inPlace Events will run in place meanwhile.
   */
  sleep(inPlace: boolean): void;
  /** Others run in its place now; what this returns is for `resume`. */
  suspend(): number;
  /** It goes on. */
  resume(state: number): void;
}

let hooks: WaitHooks = { sleep: () => {}, suspend: () => 0, resume: () => {} };

/**
 * Sets what is done when a task waits. The block layer sends then what it holds
 * back for the task; lib itself knows nothing of that.
 */
export function setWaitHooks(given: WaitHooks): void {
  hooks = given;
}

/** Runs events in place for a task that waits; see {@linkcode Clock.runUntil}. */
export function runInPlace(clock: Clock, done: () => boolean): boolean {
  hooks.sleep(true);
  const state = hooks.suspend();
  try {
    return clock.runUntil(done);
  } finally {
    hooks.resume(state);
  }
}

/** Lets a task go on that has waited: calls `resume`, now or later. */
export type Scheduler = (resume: () => void) => void;

let scheduler: Scheduler | null = null;

/**
 * Sets who decides when tasks go on whose waiting is over; null lets each go on at
 * once, in the order in which they came. A test tries other schedules with it.
 *
 * @returns Who decided before.
 */
export function setScheduler(given: Scheduler | null): Scheduler | null {
  const before = scheduler;
  scheduler = given;
  return before;
}

/** Lets a task go on (kernel: `wake_up_process`). */
export function wakeUpProcess(resume: () => void): void {
  if (scheduler === null) resume();
  else scheduler(resume);
}

/** Tasks that wait for something to change (kernel: `wait_queue_head_t`). */
export class WaitQueue {
  #waiters: (() => void)[] = [];

  /**
   * Waits until `condition` holds (kernel: `wait_event`).
   *
   * @param clock Run in place by a synchronous caller.
   * @param condition Looked at again after each {@linkcode wakeAll}.
   */
  wait(clock: Clock, condition: () => boolean): MaybePromise<void> {
    if (condition()) return;
    if (clock.inSync) {
      if (runInPlace(clock, condition)) return;
    } else {
      hooks.sleep(false);
      // What has been sent may be done already.
      if (condition()) return;
    }
    return this.#waitAsync(condition);
  }

  /** Lets every waiter look again (kernel: `wake_up_all`). */
  wakeAll(): void {
    if (this.#waiters.length === 0) return;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wakeUpProcess(wake);
  }

  async #waitAsync(condition: () => boolean): Promise<void> {
    do {
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    } while (!condition());
  }
}

/** Something that happens once (kernel: `struct completion`). */
export class Completion {
  #done = false;
  readonly #queue = new WaitQueue();

  /** Whether it has happened. */
  get done(): boolean {
    return this.#done;
  }

  /** It has happened: every waiter goes on (kernel: `complete_all`). */
  complete(): void {
    this.#done = true;
    this.#queue.wakeAll();
  }

  /** Waits until it has happened (kernel: `wait_for_completion`). */
  wait(clock: Clock): MaybePromise<void> {
    return this.#queue.wait(clock, () => this.#done);
  }
}
