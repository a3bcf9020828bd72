/**
 * Commands that a timing model has taken and not given back.
 *
 * @module
 */

import type { TimedCommand, TimingContext } from "./timing.ts";

/** Commands whose time is known: an event each. */
export class Due {
  readonly #ctx: TimingContext;
  readonly #commands = new Set<TimedCommand>();

  /** Completes commands by `ctx`. */
  constructor(ctx: TimingContext) {
    this.#ctx = ctx;
  }

  /** Completes a command at `time`. */
  at(command: TimedCommand, time: number): void {
    this.#commands.add(command);
    command.event = this.#ctx.clock.at(time, this.#done, command);
  }

  /** Takes a command back; whether it was here. */
  abort(command: TimedCommand): boolean {
    if (!this.#commands.delete(command)) return false;
    this.#ctx.clock.cancel(command.event);
    command.event = 0;
    return true;
  }

  /** Takes all of them back. */
  clear(): void {
    for (const command of this.#commands) this.abort(command);
  }

  readonly #done = (command: TimedCommand): void => {
    command.event = 0;
    this.#commands.delete(command);
    this.#ctx.complete(command);
  };
}

/** How far a command is that is held up. */
export class Progress {
  /** Bytes of it that are in the buffer. */
  bytes = 0;
  /** If it waits for their programs. */
  waiter: Waiter | null = null;
}

/** A queue whose first command waits for room. */
class HeldQueue {
  readonly qid: number;
  readonly commands: TimedCommand[] = [];
  /** Of the first. */
  progress: Progress;

  constructor(command: TimedCommand, progress: Progress) {
    this.qid = command.qid;
    this.commands.push(command);
    this.progress = progress;
  }
}

/** Begins a command; false if it waits for room. */
export type Begin = (command: TimedCommand, progress: Progress) => boolean;

/**
 * How commands come into a model with a buffer. One that finds no room stays in its
 * queue; one that finds room for a part of itself only waits here for the rest, and
 * what comes after it in its queue waits too.
 */
export class Intake {
  readonly #ctx: TimingContext;
  readonly #begin: Begin;
  readonly #waits: (on: boolean) => void;
  /** Queues whose first command is begun in part, in the order in which they were. */
  #queues: HeldQueue[] = [];
  /** Whether a command was left in its queue. */
  #refused = false;
  #waiting = false;
  /** For the next command that may be held up. */
  #progress = new Progress();

  /**
   * Nobody waits.
   *
   * @param begin Tried again when there is room.
   * @param waits Told when somebody begins to wait for room, and when nobody does.
   */
  constructor(
    ctx: TimingContext,
    begin: Begin,
    waits: (on: boolean) => void,
  ) {
    this.#ctx = ctx;
    this.#begin = begin;
    this.#waits = waits;
  }

  /** Whether somebody waits for room. */
  get waiting(): boolean {
    return this.#waiting;
  }

  /** Whether a queue's next command can be taken. @param isFull If it needs room, and
   * there is none. */
  admits(qid: number, isFull: boolean): boolean {
    if (!isFull && this.#find(qid) === undefined) return true;
    this.#refused = true;
    this.#look();
    return false;
  }

  /** Begins a command, as far as there is room, or puts it behind those of its queue. */
  start(command: TimedCommand): void {
    const queue = this.#find(command.qid);
    if (queue !== undefined) queue.commands.push(command);
    else if (!this.#begin(command, this.#progress)) {
      this.#queues.push(new HeldQueue(command, this.#progress));
      this.#progress = new Progress();
      this.#look();
    }
  }

  /** There may be room: begins what can begin, a queue after the other. */
  room(): void {
    if (!this.#waiting) return;
    for (const queue of this.#queues) {
      const { commands } = queue;
      while (commands.length > 0 && this.#begin(commands[0]!, queue.progress)) {
        commands.shift();
        queue.progress = new Progress();
      }
    }
    this.#offer();
  }

  /** Takes a command back; whether it was here. */
  abort(command: TimedCommand): boolean {
    const queue = this.#queues.find((q) => q.commands.includes(command));
    if (queue === undefined) return false;
    if (queue.commands[0] === command) queue.progress = new Progress();
    queue.commands.splice(queue.commands.indexOf(command), 1);
    this.#offer();
    return true;
  }

  /** Takes all of them back; nobody is told. */
  clear(): void {
    this.#queues = [];
    this.#refused = false;
    this.#waiting = false;
  }

  #find(qid: number): HeldQueue | undefined {
    return this.#queues.length === 0
      ? undefined
      : this.#queues.find((queue) => queue.qid === qid);
  }

  /** Lets those that were left in their queues be offered again. */
  #offer(): void {
    this.#queues = this.#queues.filter((q) => q.commands.length > 0);
    const refused = this.#refused;
    this.#refused = false;
    this.#look();
    if (refused) this.#ctx.room();
  }

  #look(): void {
    const waiting = this.#refused || this.#queues.length > 0;
    if (waiting === this.#waiting) return;
    this.#waiting = waiting;
    this.#waits(waiting);
  }
}

/** A command that waits for programs. */
export class Waiter {
  /** Null once it has been taken back. */
  command: TimedCommand | null;
  /** Programs, or ranges of a cache, that have not been written. */
  left = 0;
  /** The last range of a cache that counts. */
  horizon = 0;

  /** Waits for none yet. */
  constructor(command: TimedCommand) {
    this.command = command;
  }
}
