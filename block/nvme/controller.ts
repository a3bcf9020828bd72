/**
 * The controller: fetches commands from submission queues, works out when each is
 * done, carries it out at that time, and posts its completion.
 *
 * Bytes move when a command is carried out, all at once: reads and writes that
 * overlap in time see each other whole or not at all. What a flush makes durable
 * is settled when it is fetched: writes that complete while it runs are not
 * covered.
 *
 * @module
 */

import { clearBit, setBit, testBit } from "../../lib/bitmap.ts";
import type { Clock, EventId } from "../../lib/clock.ts";
import { Prng } from "../../lib/prng.ts";
import { WriteCache } from "./cache.ts";
import {
  encodeController,
  encodeNamespace,
  NVME_IDENTIFY_DATA_SIZE,
} from "./identify.ts";
import { LatencyModel } from "./latency.ts";
import type { Media } from "./media.ts";
import {
  CQE_WORDS,
  NVME_ADMIN_IDENTIFY,
  NVME_CMD_FLUSH,
  NVME_CMD_READ,
  NVME_CMD_WRITE,
  NVME_CMD_WRITE_ZEROES,
  NVME_ID_CNS_CTRL,
  NVME_ID_CNS_NS,
  NVME_NSID,
  NVME_RW_FUA,
  NVME_SC_CMDID_CONFLICT,
  NVME_SC_DATA_XFER_ERROR,
  NVME_SC_INVALID_FIELD,
  NVME_SC_INVALID_NS,
  NVME_SC_INVALID_OPCODE,
  NVME_SC_LBA_RANGE,
  NVME_SC_READ_ERROR,
  NVME_SC_SUCCESS,
  NVME_SC_WRITE_FAULT,
  NVME_STATUS_DNR,
  SQE_WORDS,
} from "./nvme.ts";
import type { NvmePreset } from "./presets.ts";
import { type HostMemory, QueuePair } from "./queue.ts";

/** Every namespace, where a command allows it. */
const NSID_ALL = 0xffff_ffff;
/** Entries of the admin queue. */
const ADMIN_ENTRIES = 32;
/** Largest transfer of a device that has a latency: 2^7 pages, 512 KiB. */
const MDTS = 7;
/** What is best written together, bytes. */
const WRITE_UNIT = 4096;

/** What makes a controller. */
export interface ControllerOptions {
  /** Its model. */
  preset: NvmePreset;
  /** Where its blocks are. */
  media: Media;
  /** Bytes of a logical block. */
  logicalBlockSize: number;
  /** Seed of its chance. */
  seed: number;
}

/** A command that has been fetched; recycled. */
class Command {
  readonly controller: NvmeController;
  queue: ControllerQueue;
  cid = 0;
  opcode = 0;
  /** First byte. */
  at = 0;
  /** Bytes. */
  len = 0;
  fua = false;
  /** Of a flush: the last write that it makes durable. */
  horizon = 0;
  /** When its time comes; 0 while it is not under way. */
  event: EventId = 0;

  constructor(controller: NvmeController, queue: ControllerQueue) {
    this.controller = controller;
    this.queue = queue;
  }
}

/** The controller's side of a queue. */
class ControllerQueue {
  readonly pair: QueuePair;
  sqHead = 0;
  sqTail = 0;
  cqHead = 0;
  cqTail = 0;
  /** Phase of the lap that is being written. */
  phase = 1;
  fetching = false;
  /** Command identifiers under way, a bit each. */
  readonly busy: Uint32Array = new Uint32Array(65536 / 32);
  /** Last words of completions for which the ring has no room. */
  readonly held: number[] = [];

  constructor(pair: QueuePair) {
    this.pair = pair;
  }

  get full(): boolean {
    return this.pair.next(this.cqTail) === this.cqHead;
  }

  /** Writes a completion: command identifier and status, without the phase. */
  push(word: number): void {
    const { pair } = this;
    const at = this.cqTail * CQE_WORDS;
    pair.cq[at + 2] = this.sqHead | (pair.qid << 16);
    pair.cq[at + 3] = word | (this.phase << 16);
    this.cqTail = pair.next(this.cqTail);
    if (this.cqTail === 0) this.phase ^= 1;
  }
}

/** Instead of a status: the command is under way. */
const UNDER_WAY = -1;

/** An NVMe controller with one namespace. */
export class NvmeController {
  /** Where the blocks are; what is in the cache is not there yet. */
  readonly media: Media;
  readonly #clock: Clock;
  readonly #options: ControllerOptions;
  readonly #cache: WriteCache | null;
  readonly #latency: LatencyModel | null;
  readonly #queues: ControllerQueue[] = [];
  /** All commands ever made, and those of them that are idle. */
  readonly #commands: Command[] = [];
  readonly #idle: Command[] = [];
  readonly #blockSize: number;
  readonly #blocks: number;
  /** Largest transfer, bytes. */
  readonly #maxTransfer: number;

  /**
   * Makes a controller that has no I/O queue yet.
   *
   * @param clock Time.
   * @param options What makes it; `createNvme` checks it.
   */
  constructor(clock: Clock, options: ControllerOptions) {
    const { preset, media, logicalBlockSize, seed } = options;
    const { latency } = preset;
    this.#clock = clock;
    this.#options = options;
    this.media = media;
    this.#blockSize = logicalBlockSize;
    this.#blocks = media.size / logicalBlockSize;
    this.#maxTransfer = latency === null ? Infinity : 4096 << MDTS;
    this.#latency = latency &&
      new LatencyModel(latency, media.size, new Prng(seed, "nvme read"));
    this.#cache = preset.volatileCache && latency !== null
      ? new WriteCache(media, latency.writeBuffer)
      : null;
    this.createQueue(ADMIN_ENTRIES);
  }

  /** The admin queue. */
  get adminQueue(): QueuePair {
    return this.#queues[0]!.pair;
  }

  /**
   * Makes the next queue; the admin queue, number 0, is there from the start.
   *
   * @param entries Slots of each ring, 2 to 65536.
   */
  createQueue(entries: number): QueuePair {
    const pair = new QueuePair(this.#queues.length, entries);
    this.#queues.push(new ControllerQueue(pair));
    return pair;
  }

  /** The host has filled submission entries up to `tail` (doorbell). */
  ringSq(qid: number, tail: number): void {
    const queue = this.#queues[qid]!;
    queue.sqTail = tail;
    // A completion that is posted below may make the host ring again.
    if (queue.fetching) return;
    queue.fetching = true;
    while (queue.sqHead !== queue.sqTail) this.#fetch(queue);
    queue.fetching = false;
  }

  /** The host has consumed completion entries up to `head` (doorbell). */
  ringCq(qid: number, head: number): void {
    const queue = this.#queues[qid]!;
    queue.cqHead = head;
    if (queue.held.length === 0) return;
    while (queue.held.length > 0 && !queue.full) {
      queue.push(queue.held.shift()!);
    }
    queue.pair.onInterrupt();
  }

  /**
   * Shuts down as before a power-off that was announced: what has completed
   * becomes durable, what is under way is dropped and gets no completion.
   */
  shutdown(): void {
    for (const command of this.#commands) this.#clock.cancel(command.event);
    this.#cache?.drain(this.#cache.seq);
    this.media.close();
  }

  /** Carries out a command whose time has come. */
  static #complete(command: Command): void {
    const { controller, queue, cid } = command;
    command.event = 0;
    const status = controller.#execute(command);
    controller.#idle.push(command);
    controller.#end(queue, cid, status);
  }

  #fetch(queue: ControllerQueue): void {
    const { pair } = queue;
    const at = queue.sqHead * SQE_WORDS;
    queue.sqHead = pair.next(queue.sqHead);
    const cid = pair.sq[at]! >>> 16;
    if (testBit(queue.busy, cid)) {
      this.#post(queue, cid, NVME_SC_CMDID_CONFLICT | NVME_STATUS_DNR);
      return;
    }
    setBit(queue.busy, cid);
    const status = pair.qid === 0
      ? this.#admin(queue, at, cid)
      : this.#start(queue, at, cid);
    if (status !== UNDER_WAY) this.#end(queue, cid, status);
  }

  #admin(queue: ControllerQueue, at: number, cid: number): number {
    const { sq, memory } = queue.pair;
    if ((sq[at]! & 0xff) !== NVME_ADMIN_IDENTIFY) {
      return NVME_SC_INVALID_OPCODE | NVME_STATUS_DNR;
    }
    const { data, offset } = memory[cid]!.vecs[0]!;
    const page = data.subarray(offset, offset + NVME_IDENTIFY_DATA_SIZE);
    const { preset } = this.#options;
    switch (sq[at + 10]! & 0xff) {
      case NVME_ID_CNS_CTRL:
        encodeController(page, {
          model: preset.model,
          mdts: this.#maxTransfer === Infinity ? 0 : MDTS,
          vwc: this.#cache !== null,
          writeZeroes: true,
        });
        return NVME_SC_SUCCESS;
      case NVME_ID_CNS_NS:
        if (sq[at + 1] !== NVME_NSID) break;
        encodeNamespace(page, {
          blocks: this.#blocks,
          blockSize: this.#blockSize,
          writeUnit: WRITE_UNIT,
        });
        return NVME_SC_SUCCESS;
    }
    return NVME_SC_INVALID_FIELD | NVME_STATUS_DNR;
  }

  /** Decodes and checks a command; carries it out at once if nothing takes time. */
  #start(queue: ControllerQueue, at: number, cid: number): number {
    const { sq } = queue.pair;
    const command = this.#idle.pop() ?? this.#newCommand(queue);
    command.queue = queue;
    command.cid = cid;
    command.opcode = sq[at]! & 0xff;
    const invalid = this.#decode(command, sq, at);
    if (invalid === NVME_SC_SUCCESS && this.#latency !== null) {
      command.horizon = this.#cache === null ? 0 : this.#cache.seq;
      const due = doneAt(this.#latency, this.#clock.now(), command);
      command.event = this.#clock.at(due, NvmeController.#complete, command);
      return UNDER_WAY;
    }
    this.#idle.push(command);
    return invalid === NVME_SC_SUCCESS
      ? this.#execute(command)
      : invalid | NVME_STATUS_DNR;
  }

  #newCommand(queue: ControllerQueue): Command {
    const command = new Command(this, queue);
    this.#commands.push(command);
    return command;
  }

  #decode(command: Command, sq: Uint32Array, at: number): number {
    const { opcode } = command;
    const nsid = sq[at + 1]!;
    const isFlush = opcode === NVME_CMD_FLUSH;
    if (nsid !== NVME_NSID && !(nsid === NSID_ALL && isFlush)) {
      return NVME_SC_INVALID_NS;
    }
    if (isFlush) return NVME_SC_SUCCESS;
    const isZeroes = opcode === NVME_CMD_WRITE_ZEROES;
    if (opcode > NVME_CMD_READ && !isZeroes) return NVME_SC_INVALID_OPCODE;
    const slba = sq[at + 11]! * 2 ** 32 + sq[at + 10]!;
    const flags = sq[at + 12]!;
    const blocks = (flags & 0xffff) + 1;
    const len = blocks * this.#blockSize;
    if (len > this.#maxTransfer && !isZeroes) return NVME_SC_INVALID_FIELD;
    if (slba > this.#blocks - blocks) return NVME_SC_LBA_RANGE;
    command.at = slba * this.#blockSize;
    command.len = len;
    command.fua = (flags & NVME_RW_FUA) !== 0;
    return NVME_SC_SUCCESS;
  }

  /** Moves the bytes. */
  #execute(command: Command): number {
    const { opcode, at, len } = command;
    const cache = this.#cache;
    const memory = command.queue.pair.memory[command.cid];
    switch (opcode) {
      case NVME_CMD_READ:
        return transfer(cache ?? this.media, false, at, len, memory!);
      case NVME_CMD_FLUSH:
        return writeStatus(cache === null ? 0 : cache.drain(command.horizon));
    }
    const through = cache === null || command.fua;
    if (!through) cache.begin();
    const store = through ? this.media : cache;
    const status = opcode === NVME_CMD_WRITE
      ? transfer(store, true, at, len, memory!)
      : writeStatus(store.zero(at, len));
    // What is on the media now is newer than what the cache has of it.
    if (through && status === NVME_SC_SUCCESS) cache?.forget(at, len);
    return status;
  }

  /** A command is no longer under way. */
  #end(queue: ControllerQueue, cid: number, status: number): void {
    clearBit(queue.busy, cid);
    this.#post(queue, cid, status);
  }

  #post(queue: ControllerQueue, cid: number, status: number): void {
    const word = cid | (status << 17);
    // An entry that the host has not read must not be overwritten.
    if (queue.full || queue.held.length > 0) queue.held.push(word);
    else queue.push(word);
    queue.pair.onInterrupt();
  }
}

/** When a command that is fetched now is done. */
function doneAt(
  latency: LatencyModel,
  now: number,
  command: Command,
): number {
  const { opcode, at, len } = command;
  const { qid } = command.queue.pair;
  switch (opcode) {
    case NVME_CMD_READ:
      return latency.read(qid, now, at, len);
    case NVME_CMD_WRITE:
      return latency.write(qid, now, at, len, command.fua);
    case NVME_CMD_FLUSH:
      return latency.flush(qid, now);
    default:
      return latency.command(qid, now);
  }
}

/** Media, or the cache in front of it. */
type Store = Pick<Media, "read" | "write" | "zero">;

function writeStatus(error: number): number {
  return error === 0 ? NVME_SC_SUCCESS : NVME_SC_WRITE_FAULT;
}

/** Moves a command's bytes between the host's memory and the store; a status. */
function transfer(
  store: Store,
  isWrite: boolean,
  at: number,
  len: number,
  memory: HostMemory,
): number {
  const { vecs } = memory;
  let skip = memory.vecDone;
  let done = 0;
  for (let i = memory.vecIndex; done < len; i++) {
    const { data, offset, len: room } = vecs[i]!;
    // The buffer may have been transferred or shrunk since the command was sent.
    if (offset + room > data.length) return NVME_SC_DATA_XFER_ERROR;
    const n = Math.min(room - skip, len - done);
    const error = isWrite
      ? store.write(at + done, data, offset + skip, n)
      : store.read(at + done, data, offset + skip, n);
    if (error !== 0) return isWrite ? NVME_SC_WRITE_FAULT : NVME_SC_READ_ERROR;
    done += n;
    skip = 0;
  }
  return NVME_SC_SUCCESS;
}
