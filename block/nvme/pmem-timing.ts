/**
 * Timing of persistent memory behind a block driver: modules that pages are spread
 * over, a time to the first byte, a rate for what follows.
 *
 * @module
 */

import { Lane, transferTime } from "./lane.ts";
import {
  NVME_CMD_COMPARE,
  NVME_CMD_COPY,
  NVME_CMD_READ,
  NVME_CMD_VERIFY,
  NVME_CMD_WRITE,
  NVME_CMD_WRITE_ZEROES,
  NVME_CMD_ZONE_APPEND,
} from "./nvme.ts";
import { Due } from "./pending.ts";
import type { TimedCommand, Timing, TimingContext } from "./timing.ts";

/** Bytes that lie together in one module. */
const INTERLEAVE = 4096;

/** Memory modules. */
export interface PmemParams {
  /** Which model: `pmem-timing.ts`. */
  kind: "pmem";
  /** Modules; neighbouring pages lie in different ones. */
  modules: number;
  /** Load of the first line of a read, nanoseconds. */
  readRandom: number;
  /** Load of the first line of a read that follows the last one, nanoseconds. */
  readSequential: number;
  /** Store of the first line of a write, nanoseconds. */
  write: number;
  /** Store fence: what has been stored is in the power-fail domain, nanoseconds. */
  flush: number;
  /** Bytes that a module reads or writes inside. */
  granule: number;
  /** Bytes of a line, which the first access brings. */
  line: number;
  /** Megabytes a second of each module, reads. */
  readMBps: number;
  /** Megabytes a second of each module, writes. */
  writeMBps: number;
}

/** Persistent memory at work. */
export class PmemTiming implements Timing {
  readonly #p: PmemParams;
  readonly #due: Due;
  readonly #modules: Lane[];
  #lastEnd: number = -1;
  #now = 0;

  /** Idle modules. */
  constructor(params: PmemParams, ctx: TimingContext) {
    this.#p = params;
    this.#due = new Due(ctx);
    this.#modules = Array.from({ length: params.modules }, () => new Lane());
  }

  /** See {@linkcode Timing.start}. */
  start(command: TimedCommand, now: number): void {
    this.#now = now;
    this.#due.at(command, this.#end(command));
  }

  /** See {@linkcode Timing.abort}. */
  abort(command: TimedCommand): boolean {
    return this.#due.abort(command);
  }

  /** See {@linkcode Timing.reset}. */
  reset(): void {
    this.#due.clear();
  }

  #end(command: TimedCommand): number {
    const { at, len, ranges } = command;
    switch (command.opcode) {
      case NVME_CMD_READ:
      case NVME_CMD_COMPARE:
      case NVME_CMD_VERIFY:
        return this.#read(this.#now, at, len);
      case NVME_CMD_WRITE:
      case NVME_CMD_WRITE_ZEROES:
      case NVME_CMD_ZONE_APPEND:
        return this.#write(this.#now, at, len);
      case NVME_CMD_COPY: {
        let t = this.#now;
        for (let i = 0; ranges !== null && i < ranges.length; i += 2) {
          t = this.#read(t, ranges[i]!, ranges[i + 1]!);
        }
        return this.#write(t, at, len);
      }
      default:
        return this.#now + this.#p.flush;
    }
  }

  #read(start: number, at: number, len: number): number {
    const { readRandom, readSequential, readMBps } = this.#p;
    const first = at === this.#lastEnd ? readSequential : readRandom;
    this.#lastEnd = at + len;
    return this.#transfer(start, at, len, first, readMBps);
  }

  #write(start: number, at: number, len: number): number {
    return this.#transfer(start, at, len, this.#p.write, this.#p.writeMBps);
  }

  /** Has the modules serve a range, in whole granules; the end of the last. */
  #transfer(
    start: number,
    at: number,
    len: number,
    first: number,
    mbps: number,
  ): number {
    const { granule, line } = this.#p;
    const from = Math.floor(at / granule) * granule;
    const end = Math.ceil((at + len) / granule) * granule;
    let done = start;
    for (let pos = from; pos < end;) {
      const part = Math.floor(pos / INTERLEAVE);
      const n = Math.min(end, (part + 1) * INTERLEAVE) - pos;
      const lane = this.#modules[part % this.#modules.length]!;
      const busy = lane.book(this.#now, start, transferTime(n, mbps));
      // The first line comes with the access itself.
      done = Math.max(done, busy + first - transferTime(line, mbps));
      pos += n;
    }
    return done;
  }
}
