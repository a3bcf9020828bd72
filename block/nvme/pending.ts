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
 * Submission queues that are held up: a write that finds no room is not taken
 * from its queue, and what comes after it in this queue waits too.
 */
export class Backlog {
  /** In the order in which they were held up. */
  #queues: HeldQueue[] = [];
  readonly #begin: Begin;

  /** `begin` is tried again when there is room. */
  constructor(begin: Begin) {
    this.#begin = begin;
  }

  /** Whether no queue is held up. */
  get empty(): boolean {
    return this.#queues.length === 0;
  }

  /** Puts a command behind those of its queue, if that is held up. */
  joins(command: TimedCommand): boolean {
    if (this.#queues.length === 0) return false;
    const queue = this.#queues.find((q) => q.qid === command.qid);
    queue?.commands.push(command);
    return queue !== undefined;
  }

  /** Holds up the command's queue, with it in front. */
  hold(command: TimedCommand, progress: Progress): void {
    this.#queues.push(new HeldQueue(command, progress));
  }

  /** There may be room: begins what can begin, a queue after the other. */
  release(): void {
    for (const queue of this.#queues) {
      const { commands } = queue;
      while (commands.length > 0 && this.#begin(commands[0]!, queue.progress)) {
        commands.shift();
        queue.progress = new Progress();
      }
    }
    this.#forgetEmpty();
  }

  /** Takes a command back; whether it was here. */
  abort(command: TimedCommand): boolean {
    const queue = this.#queues.find((q) => q.commands.includes(command));
    if (queue === undefined) return false;
    if (queue.commands[0] === command) queue.progress = new Progress();
    queue.commands.splice(queue.commands.indexOf(command), 1);
    this.#forgetEmpty();
    return true;
  }

  /** Takes all of them back. */
  clear(): void {
    this.#queues = [];
  }

  #forgetEmpty(): void {
    if (this.#queues.some((q) => q.commands.length === 0)) {
      this.#queues = this.#queues.filter((q) => q.commands.length > 0);
    }
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
