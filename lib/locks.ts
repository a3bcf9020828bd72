/**
 * Fair locks for tasks: first come, first served, free of cost when nobody waits.
 *
 * Kernel counterpart: kernel/locking/rwsem.c, kernel/locking/mutex.c.
 *
 * @module
 */

import { type ClassedLock, lockTracker } from "./lockdep.ts";
import type { MaybePromise } from "./maybe-promise.ts";
import { wakeUpProcess } from "./wait.ts";

interface Waiter {
  exclusive: boolean;
  wake: () => void;
}

/** A lock held by many readers or one writer (kernel: `struct rw_semaphore`). */
export class Rwsem implements ClassedLock {
  /** Where it stands in the lock order; see `lib/lockdep.ts`. */
  readonly lockClass: string;
  /** -1 held exclusively, 0 free, n > 0 held by n readers. */
  #held = 0;
  #queue: Waiter[] = [];

  /**
   * A lock that nobody holds.
   *
   * @param lockClass Where it stands in the lock order.
   */
  constructor(lockClass: string) {
    this.lockClass = lockClass;
  }

  /** Whether a writer holds it. */
  get isLockedExclusive(): boolean {
    return this.#held < 0;
  }

  /** Whether anybody holds it. */
  get isLocked(): boolean {
    return this.#held !== 0;
  }

  /** Takes it shared; waits behind whoever came first (kernel: `down_read`). */
  downRead(): MaybePromise<void> {
    if (lockTracker !== null) lockTracker.acquire(this, "shared", true);
    if (!this.#tryShared()) return this.#wait(false);
  }

  /** Takes it shared if that needs no waiting (kernel: `down_read_trylock`). */
  tryDownRead(): boolean {
    if (!this.#tryShared()) return false;
    if (lockTracker !== null) lockTracker.acquire(this, "shared", false);
    return true;
  }

  /** Takes it exclusively (kernel: `down_write`). */
  downWrite(): MaybePromise<void> {
    if (lockTracker !== null) lockTracker.acquire(this, "exclusive", true);
    if (!this.#tryExclusive()) return this.#wait(true);
  }

  /** Takes it exclusively if that needs no waiting (kernel: `down_write_trylock`). */
  tryDownWrite(): boolean {
    if (!this.#tryExclusive()) return false;
    if (lockTracker !== null) lockTracker.acquire(this, "exclusive", false);
    return true;
  }

  /** Gives back a shared hold (kernel: `up_read`). */
  upRead(): void {
    if (this.#held <= 0) throw new Error("BUG: upRead() of a lock not held");
    if (lockTracker !== null) lockTracker.release(this);
    this.#held--;
    if (this.#held === 0 && this.#queue.length > 0) this.#grant();
  }

  /** Gives back an exclusive hold (kernel: `up_write`). */
  upWrite(): void {
    if (this.#held >= 0) throw new Error("BUG: upWrite() of a lock not held");
    if (lockTracker !== null) lockTracker.release(this);
    this.#held = 0;
    if (this.#queue.length > 0) this.#grant();
  }

  /** Turns an exclusive hold into a shared one (kernel: `downgrade_write`). */
  downgradeWrite(): void {
    if (this.#held >= 0) throw new Error("BUG: downgrade of a lock not held");
    if (lockTracker !== null) lockTracker.downgrade(this);
    this.#held = 1;
    if (this.#queue.length > 0) this.#grant();
  }

  #tryShared(): boolean {
    if (this.#held < 0 || this.#queue.length > 0) return false;
    this.#held++;
    return true;
  }

  #tryExclusive(): boolean {
    if (this.#held !== 0) return false;
    this.#held = -1;
    return true;
  }

  #wait(exclusive: boolean): Promise<void> {
    return new Promise((wake) => this.#queue.push({ exclusive, wake }));
  }

  // The hold passes to the waiter before it runs, so nobody can barge in.
  #grant(): void {
    while (this.#queue.length > 0) {
      const first = this.#queue[0]!;
      if (first.exclusive ? this.#held !== 0 : this.#held < 0) return;
      this.#queue.shift();
      this.#held = first.exclusive ? -1 : this.#held + 1;
      wakeUpProcess(first.wake);
      if (first.exclusive) return;
    }
  }
}

/** A lock with one holder (kernel: `struct mutex`). */
export class Mutex implements ClassedLock {
  /** Where it stands in the lock order; see `lib/lockdep.ts`. */
  readonly lockClass: string;
  #held = false;
  #queue: (() => void)[] = [];

  /**
   * A lock that nobody holds.
   *
   * @param lockClass Where it stands in the lock order.
   */
  constructor(lockClass: string) {
    this.lockClass = lockClass;
  }

  /** Whether somebody holds it. */
  get isLocked(): boolean {
    return this.#held;
  }

  /** Takes it, first come, first served (kernel: `mutex_lock`). */
  lock(): MaybePromise<void> {
    if (lockTracker !== null) lockTracker.acquire(this, "exclusive", true);
    if (this.#held) return new Promise((wake) => this.#queue.push(wake));
    this.#held = true;
  }

  /** Takes it if that needs no waiting (kernel: `mutex_trylock`). */
  tryLock(): boolean {
    if (this.#held) return false;
    if (lockTracker !== null) lockTracker.acquire(this, "exclusive", false);
    this.#held = true;
    return true;
  }

  /** Gives it back; the first waiter holds it next (kernel: `mutex_unlock`). */
  unlock(): void {
    if (!this.#held) throw new Error("BUG: unlock() of a mutex not held");
    if (lockTracker !== null) lockTracker.release(this);
    const next = this.#queue.shift();
    if (next) wakeUpProcess(next);
    else this.#held = false;
  }
}
