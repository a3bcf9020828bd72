/**
 * The controller's side of the queues: doorbells, fetch, completions.
 *
 * A command is fetched when its queue's turn comes, and goes to the command set
 * that the queue is for, which answers a status at once or ends the command later
 * with {@linkcode Queues.end}. Everything runs in place: a completion that is posted
 * may interrupt the host, which rings again from within.
 *
 * @module
 */

import { clearBit, setBit, testBit } from "../../lib/bitmap.ts";
import { type Clock, type EventId, USEC } from "../../lib/clock.ts";
import { Arbiter } from "./arbiter.ts";
import { Command } from "./command.ts";
import { Interrupts, type Vector } from "./interrupts.ts";
import {
  CQE_WORDS,
  NVME_CMD_FUSE_FIRST,
  NVME_CMD_FUSE_SECOND,
  NVME_SC_CMDID_CONFLICT,
  NVME_SC_FUSED_FAIL,
  NVME_SC_FUSED_MISSING,
  NVME_SC_INVALID_FIELD,
  NVME_SC_SUCCESS,
  NVME_STATUS_DNR,
  SQE_WORDS,
} from "./nvme.ts";
import type { CompletionQueue, SubmissionQueue } from "./queue.ts";

/** How far ahead commands are fetched for a firmware that is busy, nanoseconds. */
const LOOKAHEAD = 10 * USEC;

/** Instead of a status: the command is under way. */
export const UNDER_WAY: number = -1;

/** Both bits of a fused pair in word 0. */
const FUSE_MASK: number = NVME_CMD_FUSE_FIRST | NVME_CMD_FUSE_SECOND;

/** What carries out the commands of a kind of queue. */
export interface CommandSet {
  /**
   * Checks what can be checked without consuming the command, and notes in it what
   * its entry says.
   *
   * @param ring Submission entries.
   * @param at First word of its entry.
   * @returns A status.
   */
  decode(command: Command, ring: Uint32Array, at: number): number;
  /**
   * Takes a command that has been consumed.
   *
   * @returns A status, or {@linkcode UNDER_WAY}.
   */
  start(command: Command): number;
  /** Takes a fused pair: a compare, whose partner is the write. */
  startFused(command: Command): number;
  /** A command is not to be carried out any more. */
  abort(command: Command): void;
}

/** The controller's side of a completion queue. */
export class CqState {
  /** The host's. */
  readonly memory: CompletionQueue;
  /** What tells of completions; null if the host looks for them. */
  readonly vector: Vector | null;
  /** Submission queues that complete to it. */
  users = 0;
  /** First entry that the host has not consumed. */
  head = 0;
  /** Where the next completion goes. */
  tail = 0;
  /** Phase of the lap that is being written. */
  phase = 1;
  /** Commands that have ended, and for whose completion there is no room. */
  readonly held: Command[] = [];

  /** An empty queue. */
  constructor(memory: CompletionQueue, vector: Vector | null) {
    this.memory = memory;
    this.vector = vector;
  }

  /** Whether another entry would overwrite one that the host has not read. */
  get full(): boolean {
    const next = this.tail + 1 === this.memory.entries ? 0 : this.tail + 1;
    return next === this.head;
  }

  /** Writes a completion. */
  push(command: Command): void {
    const { ring, entries } = this.memory;
    const at = this.tail * CQE_WORDS;
    const { sq, result, status } = command;
    ring[at] = result;
    ring[at + 1] = result < 2 ** 32 ? 0 : result / 2 ** 32;
    ring[at + 2] = sq.head | (sq.qid << 16);
    ring[at + 3] = command.cid | (this.phase << 16) | (status << 17);
    this.tail++;
    if (this.tail < entries) return;
    this.tail = 0;
    this.phase ^= 1;
  }
}

/** The controller's side of a submission queue. */
export class SqState {
  /** Whose it is. */
  readonly queues: Queues;
  /** The host's. */
  readonly memory: SubmissionQueue;
  /** Number. */
  readonly qid: number;
  /** Where its commands complete. */
  readonly cq: CqState;
  /** Class: 0 urgent, 1 high, 2 medium, 3 low. */
  readonly priority: number;
  /** What carries out its commands. */
  readonly set: CommandSet;
  /** Next entry to fetch. */
  head = 0;
  /** First entry that the host has not filled. */
  tail = 0;
  /** Whether the arbiter knows it. */
  listed = false;
  /** Command identifiers under way, a bit each. */
  readonly busy: Uint32Array = new Uint32Array(65536 / 32);

  /** An empty queue. */
  constructor(
    queues: Queues,
    memory: SubmissionQueue,
    cq: CqState,
    priority: number,
    set: CommandSet,
  ) {
    this.queues = queues;
    this.memory = memory;
    this.qid = memory.qid;
    this.cq = cq;
    this.priority = priority;
    this.set = set;
  }
}

/** All queues of a controller. */
export class Queues {
  /** Its interrupts. */
  readonly interrupts: Interrupts;
  /** Chooses among submission queues. */
  readonly arbiter: Arbiter = new Arbiter();
  /** Submission queues by number. */
  readonly sqs: (SqState | null)[] = [];
  /** Completion queues by number. */
  readonly cqs: (CqState | null)[] = [];
  /** Told of each command that ends with an error. */
  onError: (command: Command) => void = () => {};
  /**
   * Told of a doorbell that cannot be: 0 for a queue that does not exist, 1 for a
   * value.
   */
  onDoorbellError: (info: number) => void = () => {};
  /**
   * When the firmware can begin with another I/O command; null if it is no
   * bottleneck. Commands that it is too busy for stay in their queues, so that one
   * that comes later, in another queue, need not wait for all of them.
   */
  firmwareFree: (() => number) | null = null;
  /**
   * Whether there is room for a command; null if always. One for which there is none
   * stays in its queue, and so does what comes after it, until {@linkcode retry}.
   */
  admits: ((command: Command) => boolean) | null = null;
  readonly #clock: Clock;
  /** All commands ever made, and those of them that are idle. */
  readonly #commands: Command[] = [];
  readonly #idle: Command[] = [];
  #running = false;
  /** How often all queues have been removed. */
  #resets = 0;
  #events = 0;
  #stopAt = 0;
  #stop: () => boolean = () => false;
  /** The queue that is being fetched from without arbitration. */
  #alone: SqState | null = null;
  /** When fetching goes on, if it waits. */
  #wait: EventId = 0;
  /** Queues whose first command finds no room. */
  readonly #stalled = new Set<SqState>();

  /**
   * No queues.
   *
   * @param clock Time.
   * @param vectors Interrupt vectors.
   */
  constructor(clock: Clock, vectors: number) {
    this.#clock = clock;
    this.interrupts = new Interrupts(clock, vectors);
  }

  /**
   * What has happened so far that the result of a loss of power depends on: commands
   * fetched, pieces landed, commands ended. It names a moment, the same in every run.
   */
  get events(): number {
    return this.#events;
  }

  /**
   * Calls `stop` at an event that is to come; 0 for none.
   *
   * @param stop Answers whether the power has gone: all queues are, and the host is not
   *   to be told of anything.
   */
  stopAt(event: number, stop: () => boolean): void {
    this.#stopAt = event;
    this.#stop = stop;
  }

  /** Counts an event. @returns What {@linkcode stopAt} asks for. */
  note(): boolean {
    return ++this.#events === this.#stopAt && this.#stop();
  }

  /** Adds a completion queue. */
  addCq(memory: CompletionQueue, vector: Vector | null): CqState {
    const cq = new CqState(memory, vector);
    this.cqs[memory.qid] = cq;
    return cq;
  }

  /** Adds a submission queue. */
  addSq(
    memory: SubmissionQueue,
    cq: CqState,
    priority: number,
    set: CommandSet,
  ): SqState {
    const sq = new SqState(this, memory, cq, priority, set);
    this.sqs[memory.qid] = sq;
    cq.users++;
    return sq;
  }

  /** Removes a submission queue none of whose commands is under way. */
  removeSq(sq: SqState): void {
    this.#idleQueue(sq);
    this.sqs[sq.qid] = null;
    sq.cq.users--;
  }

  /** Removes a completion queue that no submission queue uses. */
  removeCq(cq: CqState): void {
    this.cqs[cq.memory.qid] = null;
  }

  /** Removes all queues. Commands under way end without a completion. */
  reset(weighted: boolean): void {
    this.#resets++;
    for (const sq of this.sqs) if (sq) this.#idleQueue(sq);
    for (const cq of this.cqs) {
      for (const command of cq?.held.splice(0) ?? []) this.#free(command);
    }
    const dropped = this.#takeBack(() => true);
    for (const command of dropped) {
      command.active = false;
      command.event = 0;
      this.#free(command);
    }
    this.#clock.cancel(this.#wait);
    this.#wait = 0;
    this.sqs.length = 0;
    this.cqs.length = 0;
    this.arbiter.reset(weighted);
    this.interrupts.reset();
  }

  /** Commands under way on I/O queues, in the order of submission. */
  inFlight(): Command[] {
    return this.#commands.filter((c) => c.active && c.qid !== 0)
      .sort((a, b) => a.stamp - b.stamp);
  }

  /** The command under way with an identifier, or undefined. */
  find(qid: number, cid: number): Command | undefined {
    return this.#commands.find((c) =>
      c.active && c.qid === qid && c.cid === cid
    );
  }

  /** Whether a command is under way on an I/O queue. */
  busy(): boolean {
    return this.#commands.some((c) => c.active && c.qid !== 0);
  }

  /** Takes a command back, and the other half of its pair with it. */
  abort(command: Command, status: number): void {
    const { partner, sq } = command;
    sq.set.abort(command);
    if (partner === null || !partner.active) return this.end(command, status);
    sq.set.abort(partner);
    this.endPair(command, status, partner, NVME_SC_FUSED_FAIL);
  }

  /** Ends every command of a queue that is under way, and all it still holds. */
  endAll(sq: SqState, status: number): void {
    const { vector } = sq.cq;
    const aborted = this.#takeBack((command) => command.sq === sq);
    let posted = 0;
    for (const command of aborted) posted += this.#settle(command, status);
    this.#tell(vector, posted);
  }

  /**
   * Takes commands back that are under way, the last one first: a write to a zone can
   * give its place back if none comes after it.
   *
   * @returns The commands, as they were submitted.
   */
  #takeBack(isMeant: (command: Command) => boolean): Command[] {
    const commands = this.#commands.filter((c) => c.active && isMeant(c))
      .sort((a, b) => a.stamp - b.stamp);
    for (const command of commands.toReversed()) command.sq.set.abort(command);
    return commands;
  }

  /** The host has filled submission entries up to `tail` (doorbell). */
  ringSq(qid: number, tail: number): void {
    const sq = this.sqs[qid];
    if (!sq) return this.onDoorbellError(0);
    if (tail !== sq.tail) {
      const { entries } = sq.memory;
      const old = ringDistance(sq.head, sq.tail, entries);
      // Behind the old tail: it has gone round and past the head.
      const passed = ringDistance(sq.head, tail, entries) < old;
      if (tail >>> 0 !== tail || tail >= entries || passed) {
        return this.onDoorbellError(1);
      }
      sq.tail = tail;
    }
    if (sq.head === tail || sq === this.#alone || this.#stalled.has(sq)) return;
    if (qid === 0) this.#runAdmin(sq);
    else if (this.#running || this.arbiter.busy || this.#wait !== 0) {
      this.arbiter.list(sq);
      this.#run();
    } else this.#runAlone(sq);
  }

  /** There may be room for what found none. */
  retry(): void {
    for (const sq of this.#stalled) this.arbiter.list(sq);
    this.#stalled.clear();
    // Whoever says so is in the middle of something.
    if (this.#wait !== 0 || !this.arbiter.busy) return;
    this.#wait = this.#clock.at(this.#clock.now(), Queues.#resume, this);
  }

  /** The host has consumed completion entries up to `head` (doorbell). */
  ringCq(qid: number, head: number): void {
    const cq = this.cqs[qid];
    if (!cq) return this.onDoorbellError(0);
    if (head !== cq.head) {
      const { entries } = cq.memory;
      const there = ringDistance(cq.head, cq.tail, entries);
      const taken = ringDistance(cq.head, head, entries);
      if (head >>> 0 !== head || head >= entries || taken > there) {
        return this.onDoorbellError(1);
      }
      cq.head = head;
    }
    if (cq.held.length > 0) this.#release(cq);
    else if (cq.head === cq.tail) cq.vector?.clear();
  }

  /** Fetches as long as there is something to fetch, and it can be taken. */
  #run(): void {
    // A completion that is posted below may make the host ring again.
    if (this.#running) return;
    this.#running = true;
    try {
      this.#fetchInTurn();
    } finally {
      this.#running = false;
    }
  }

  #fetchInTurn(): void {
    const { arbiter } = this;
    while (this.#wait === 0) {
      const sq = arbiter.next();
      if (sq === null) break;
      const { quota } = arbiter;
      let count = 0;
      while (count < quota && sq.listed && this.#canTake()) {
        count += this.#fetch(sq);
      }
      arbiter.charge(sq, count);
    }
  }

  /** Fetches from the only queue that has something: there is nothing to arbitrate. */
  #runAlone(sq: SqState): void {
    this.#running = true;
    this.#alone = sq;
    try {
      while (sq.head !== sq.tail && !this.arbiter.busy && this.#canTake()) {
        if (this.#fetch(sq) === 0) break;
      }
    } finally {
      this.#alone = null;
      this.#running = false;
    }
    if (this.#wait === 0 && !this.arbiter.busy) return;
    // Another has come along, or it must wait.
    if (sq.head !== sq.tail) this.arbiter.list(sq);
    this.#run();
  }

  /** Takes admin commands, whatever else is going on: a driver sends some from within
   * completions, and needs their answer there. */
  #runAdmin(sq: SqState): void {
    while (sq.head !== sq.tail && this.#fetch(sq) > 0);
  }

  /** Whether another I/O command can be taken; if not, fetching waits. */
  #canTake(): boolean {
    if (this.firmwareFree === null) return true;
    const free = this.firmwareFree();
    if (free <= this.#clock.now() + LOOKAHEAD) return true;
    // Some commands at a time: an event for each would cost more than they do.
    const time = free - LOOKAHEAD / 2;
    this.#wait = this.#clock.at(time, Queues.#resume, this);
    return false;
  }

  static #resume(queues: Queues): void {
    queues.#wait = 0;
    queues.#run();
  }

  /** A command has ended: it is no longer under way, and its completion is posted. */
  end(command: Command, status: number): void {
    const { vector } = command.sq.cq;
    this.#tell(vector, this.#settle(command, status));
  }

  /**
   * Both halves of a fused pair have ended. The host is told when both completions are
   * there: what it does then (a reset) may give the records to other commands.
   */
  endPair(
    first: Command,
    firstStatus: number,
    second: Command,
    secondStatus: number,
  ): void {
    const { vector } = first.sq.cq;
    const posted = this.#settle(first, firstStatus) +
      this.#settle(second, secondStatus);
    this.#tell(vector, posted);
  }

  /** Commands have ended, with so many completions posted. */
  #tell(vector: Vector | null, posted: number): void {
    if (!this.note() && posted > 0) vector?.raise();
  }

  /** Posts a completion without an interrupt. @returns How many: none without room. */
  #settle(command: Command, status: number): number {
    const { cq } = command.sq;
    command.active = false;
    command.status = status;
    command.event = 0;
    if (status !== NVME_SC_SUCCESS) this.onError(command);
    // An entry that the host has not read must not be overwritten.
    if (cq.held.length > 0 || cq.full) {
      cq.held.push(command);
      return 0;
    }
    cq.push(command);
    this.#free(command);
    return 1;
  }

  /** A command is of no use to the host any more. */
  #free(command: Command): void {
    command.memory = null;
    command.partner = null;
    command.ranges = null;
    command.result = 0;
    if (command.conflict) command.conflict = false;
    else clearBit(command.sq.busy, command.cid);
    this.#idle.push(command);
  }

  #release(cq: CqState): void {
    let count = 0;
    while (count < cq.held.length && !cq.full) {
      const command = cq.held[count++]!;
      cq.push(command);
      this.#free(command);
    }
    if (count === 0) return;
    cq.held.splice(0, count);
    cq.vector?.raise();
    // Queues whose commands had nowhere to complete go on.
    if (cq.held.length > 0) return;
    for (const sq of this.sqs) {
      if (sq?.cq === cq && sq.head !== sq.tail && sq.qid !== 0) {
        this.arbiter.list(sq);
      }
    }
    this.#run();
  }

  /** Takes a queue from whatever it waits for. */
  #idleQueue(sq: SqState): void {
    this.arbiter.unlist(sq);
    this.#stalled.delete(sq);
    sq.head = sq.tail;
  }

  /** Fetches a queue's next command. @returns How many it was: none if it must wait. */
  #fetch(sq: SqState): number {
    if (sq.cq.held.length > 0) return this.#pause(sq);
    const command = this.#load(sq, sq.head);
    if (this.admits !== null && !this.#isAdmitted(sq, command)) return 0;
    if (command.fuse !== 0 && sq.qid !== 0) {
      return this.#fetchFused(sq, command);
    }
    this.#consume(sq, command);
    const resets = this.#resets;
    const status = command.status === NVME_SC_SUCCESS
      ? sq.set.start(command)
      : command.status;
    // An Abort or a deletion tells the host of other commands' ends: it may have reset.
    const ends = status !== UNDER_WAY && resets === this.#resets;
    if (ends) this.end(command, status);
    return 1;
  }

  #isAdmitted(sq: SqState, command: Command): boolean {
    const { qid, status, memory } = command;
    const isOurs = qid !== 0 && status === NVME_SC_SUCCESS;
    if (!isOurs || this.admits!(command)) return true;
    sq.memory.memory[sq.head] = memory;
    this.#free(command);
    this.arbiter.unlist(sq);
    this.#stalled.add(sq);
    return false;
  }

  #fetchFused(sq: SqState, first: Command): number {
    this.#consume(sq, first);
    const at = sq.head * SQE_WORDS;
    const isPair = first.fuse === NVME_CMD_FUSE_FIRST &&
      sq.head !== sq.tail &&
      (sq.memory.ring[at]! & FUSE_MASK) === NVME_CMD_FUSE_SECOND;
    if (!isPair) {
      this.end(
        first,
        first.fuse === FUSE_MASK
          ? NVME_SC_INVALID_FIELD | NVME_STATUS_DNR
          : NVME_SC_FUSED_MISSING | NVME_STATUS_DNR,
      );
      return 1;
    }
    const second = this.#load(sq, sq.head);
    this.#consume(sq, second);
    first.partner = second;
    second.partner = first;
    const status = this.#startFused(sq, first, second);
    if (status !== UNDER_WAY) {
      this.endPair(first, status, second, NVME_SC_FUSED_FAIL);
    }
    return 2;
  }

  #startFused(sq: SqState, first: Command, second: Command): number {
    if (first.status !== NVME_SC_SUCCESS) return first.status;
    if (second.status === NVME_SC_SUCCESS) return sq.set.startFused(first);
    // The second one fails by itself, and the first with it.
    this.endPair(first, NVME_SC_FUSED_FAIL, second, second.status);
    return UNDER_WAY;
  }

  /** Reads the command in a slot. */
  #load(sq: SqState, slot: number): Command {
    const { ring, memory } = sq.memory;
    const at = slot * SQE_WORDS;
    const word = ring[at]!;
    const command = this.#idle.pop() ?? this.#newCommand(sq);
    command.sq = sq;
    command.qid = sq.qid;
    command.cid = word >>> 16;
    command.opcode = word & 0xff;
    command.fuse = word & FUSE_MASK;
    command.nsid = ring[at + 1]!;
    command.memory = memory[slot]!;
    // The slot would keep it for as long as nobody takes it for another.
    memory[slot] = null;
    command.status = testBit(sq.busy, command.cid)
      ? this.#conflict(command)
      : sq.set.decode(command, ring, at);
    return command;
  }

  #conflict(command: Command): number {
    command.conflict = true;
    return NVME_SC_CMDID_CONFLICT | NVME_STATUS_DNR;
  }

  #newCommand(sq: SqState): Command {
    const command = new Command(sq);
    this.#commands.push(command);
    return command;
  }

  /** Takes a command off its queue. */
  #consume(sq: SqState, command: Command): void {
    sq.head = sq.head + 1 === sq.memory.entries ? 0 : sq.head + 1;
    if (sq.head === sq.tail) this.arbiter.unlist(sq);
    if (command.conflict) return;
    setBit(sq.busy, command.cid);
    command.active = true;
  }

  #pause(sq: SqState): number {
    this.arbiter.unlist(sq);
    return 0;
  }
}

/** Slots from one to another. */
function ringDistance(from: number, to: number, entries: number): number {
  return to >= from ? to - from : to - from + entries;
}
