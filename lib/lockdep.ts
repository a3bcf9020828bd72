/**
 * Lock-order checking: what a task holds when it asks for one more lock.
 *
 * Two tasks that take two locks in opposite orders deadlock only when they meet.
 * The checker does not wait for that: it remembers which class of lock was asked
 * for while which was held, and the first order that contradicts an earlier one
 * is reported with the stacks of both. It costs a comparison per lock where no
 * checker is set, as outside of tests.
 *
 * Kernel counterpart: kernel/locking/lockdep.c.
 *
 * @module
 */

/** How a lock is held. */
export type LockMode = "shared" | "exclusive";

/** A lock that says what kind it is. */
export interface ClassedLock {
  /** Locks of one class are taken at the same place in the order. */
  readonly lockClass: string;
}

/** Is told of every lock that is asked for and given back. */
export interface LockTracker {
  /**
   * A task asks for a lock.
   *
   * @param waits Whether it waits if it has to; only then can it deadlock.
   */
  acquire(lock: ClassedLock, mode: LockMode, waits: boolean): void;
  /** A lock is given back, perhaps by another task than took it: the end of a read
   * unlocks the folio. */
  release(lock: ClassedLock): void;
  /** An exclusive hold becomes a shared one. */
  downgrade(lock: ClassedLock): void;
}

/** Who is told; null if nobody is. */
export let lockTracker: LockTracker | null = null;

/** Sets who is told of locks from now on; null for nobody.
 * @returns Who was told before. */
export function setLockTracker(
  tracker: LockTracker | null,
): LockTracker | null {
  const before = lockTracker;
  lockTracker = tracker;
  return before;
}

/** One lock in a task's hands. */
export interface HeldLock {
  /** The lock. */
  readonly lock: ClassedLock;
  /** How. */
  mode: LockMode;
}

interface Hold extends HeldLock {
  readonly task: object;
}

/** Where a class was asked for while another was held. */
interface Edge {
  readonly from: string;
  readonly to: string;
  /** Made where it was asked for; most are never shown, so it stays unformatted. */
  readonly error: Error;
}

/** Whether a second lock of the same class may be asked for while a first is held. */
export type NestingRule = (held: ClassedLock, wanted: ClassedLock) => boolean;

/** Options of a {@linkcode Lockdep}. */
export interface LockdepOptions {
  /** Who runs now: an object that stands for the task. */
  currentTask: () => object;
  /** Classes of which a task may hold two, and in which order; of others it may not. */
  nesting?: Readonly<Record<string, NestingRule>>;
}

/** Checks the order in which tasks take locks. */
export class Lockdep implements LockTracker {
  readonly #options: LockdepOptions;
  readonly #holds = new Map<ClassedLock, Hold[]>();
  readonly #held = new Map<object, Hold[]>();
  /** Orders seen, by the class held and the class asked for. */
  readonly #edges = new Map<string, Map<string, Edge>>();
  /** What was wrong, with stacks; empty if nothing was. */
  readonly reports: string[] = [];

  /**
   * Nothing is held yet.
   *
   * @param options Who the tasks are, and what may be nested.
   */
  constructor(options: LockdepOptions) {
    this.#options = options;
  }

  /** Locks that the current task holds, in the order in which it asked for them. */
  get held(): readonly HeldLock[] {
    return this.#held.get(this.#options.currentTask()) ?? [];
  }

  /** Orders seen, as `held -> asked for`, sorted. */
  get orders(): string[] {
    const all = [...this.#edges.values()].flatMap((to) => [...to.values()]);
    return all.map((e) => `${e.from} -> ${e.to}`).sort();
  }

  /** See {@linkcode LockTracker.acquire}. */
  acquire(lock: ClassedLock, mode: LockMode, waits: boolean): void {
    const task = this.#options.currentTask();
    const held = this.#held.get(task) ?? [];
    if (waits) { for (const hold of held) this.#checkOrder(hold.lock, lock); }
    const hold: Hold = { lock, mode, task };
    held.push(hold);
    this.#held.set(task, held);
    const holds = this.#holds.get(lock);
    if (holds === undefined) this.#holds.set(lock, [hold]);
    else holds.push(hold);
  }

  /** See {@linkcode LockTracker.release}. */
  release(lock: ClassedLock): void {
    const hold = this.#holdOf(lock);
    // It was taken before anybody was told.
    if (hold === undefined) return;
    const holds = this.#holds.get(lock)!;
    holds.splice(holds.indexOf(hold), 1);
    if (holds.length === 0) this.#holds.delete(lock);
    const held = this.#held.get(hold.task)!;
    held.splice(held.indexOf(hold), 1);
    if (held.length === 0) this.#held.delete(hold.task);
  }

  /** See {@linkcode LockTracker.downgrade}. */
  downgrade(lock: ClassedLock): void {
    const hold = this.#holdOf(lock);
    if (hold !== undefined) hold.mode = "shared";
  }

  /** The current task's hold of a lock, or anybody's. */
  #holdOf(lock: ClassedLock): Hold | undefined {
    const task = this.#options.currentTask();
    const holds = this.#holds.get(lock);
    return holds?.find((h) => h.task === task) ?? holds?.[0];
  }

  #checkOrder(held: ClassedLock, wanted: ClassedLock): void {
    const from = held.lockClass;
    const to = wanted.lockClass;
    if (from === to) return this.#checkNesting(held, wanted);
    if (this.#edges.get(from)?.has(to)) return;
    const edge = { from, to, error: new Error() };
    const back = this.#path(to, from);
    if (back !== null) this.reports.push(inversion(edge, back));
    let known = this.#edges.get(from);
    if (known === undefined) this.#edges.set(from, known = new Map());
    known.set(to, edge);
  }

  #checkNesting(held: ClassedLock, wanted: ClassedLock): void {
    const rule = this.#options.nesting?.[wanted.lockClass];
    if (held !== wanted && rule?.(held, wanted)) return;
    const again = held === wanted ? "the same" : "another";
    this.reports.push(
      `${wanted.lockClass} is asked for while ${again} is held\n` +
        stackOf(new Error()),
    );
  }

  /** A chain of orders seen that leads from one class to another, or null. */
  #path(from: string, to: string): Edge[] | null {
    const seen = new Set([from]);
    const paths: Edge[][] = [...this.#edges.get(from)?.values() ?? []].map((
      e,
    ) => [e]);
    for (const path of paths) {
      const last = path.at(-1)!;
      if (last.to === to) return path;
      if (seen.has(last.to)) continue;
      seen.add(last.to);
      for (const next of this.#edges.get(last.to)?.values() ?? []) {
        paths.push([...path, next]);
      }
    }
    return null;
  }
}

function stackOf(error: Error): string {
  // Without the checker's own functions.
  return (error.stack ?? "").split("\n").slice(3).join("\n");
}

function inversion(edge: Edge, back: readonly Edge[]): string {
  const seen = back.map((e) =>
    `${e.to} was asked for with ${e.from} held\n${stackOf(e.error)}`
  );
  return `${edge.to} is asked for with ${edge.from} held\n${
    stackOf(edge.error)
  }\n` +
    `but before that\n${seen.join("\nand\n")}`;
}
