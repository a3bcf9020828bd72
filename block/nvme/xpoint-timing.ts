/**
 * Timing of a device whose media are written in place: units that each serve one
 * page at a time, a serial firmware, a link.
 *
 * @module
 */

import { Prng } from "../../lib/prng.ts";
import { Jitter, type JitterTable } from "./jitter.ts";
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

/** Bytes that a unit serves at a time. */
const PAGE = 4096;

/** A device like those with 3D XPoint: no buffer, no translation. */
export interface XpointParams {
  /** Which model: `xpoint-timing.ts`. */
  kind: "xpoint";
  /** What host and driver take for a command, nanoseconds. */
  host: number;
  /** Firmware's part of a command, which it does one after the other, nanoseconds. */
  firmware: number;
  /** Units of media; neighbouring pages lie in different ones. */
  units: number;
  /** What a unit takes for a page, nanoseconds. */
  media: number;
  /** Megabytes a second to the host. */
  pcieReadMBps: number;
  /** Megabytes a second from the host. */
  pcieWriteMBps: number;
  /** Chance in reads. */
  readJitter?: JitterTable;
}

/** Such a device at work. */
export class XpointTiming implements Timing {
  readonly #p: XpointParams;
  readonly #due: Due;
  readonly #jitter: Jitter | null;
  readonly #unitFree: Float64Array;
  readonly #pcieRead = new Lane();
  readonly #pcieWrite = new Lane();
  /** See {@linkcode Timing.firmwareFree}. */
  firmwareFree = 0;
  #now = 0;

  /** An idle device. */
  constructor(params: XpointParams, ctx: TimingContext) {
    this.#p = params;
    this.#due = new Due(ctx);
    this.#unitFree = new Float64Array(params.units);
    this.#jitter = params.readJitter === undefined
      ? null
      : new Jitter(params.readJitter, new Prng(ctx.seed, "nvme read"));
  }

  /** See {@linkcode Timing.start}. */
  start(command: TimedCommand, now: number): void {
    this.#now = now;
    const ready = Math.max(now, this.firmwareFree) + this.#p.firmware;
    this.firmwareFree = ready;
    this.#due.at(command, this.#end(command, ready) + this.#p.host);
  }

  /** See {@linkcode Timing.abort}. */
  abort(command: TimedCommand): boolean {
    return this.#due.abort(command);
  }

  /** See {@linkcode Timing.reset}. */
  reset(): void {
    this.#due.clear();
  }

  #end(command: TimedCommand, ready: number): number {
    const { at, len } = command;
    switch (command.opcode) {
      case NVME_CMD_READ:
      case NVME_CMD_COMPARE:
      case NVME_CMD_VERIFY:
        return this.#read(ready, at, len);
      case NVME_CMD_WRITE:
      case NVME_CMD_WRITE_ZEROES:
      case NVME_CMD_ZONE_APPEND:
        return this.#write(ready, at, len);
      case NVME_CMD_COPY:
        return this.#write(this.#readAll(ready, command.ranges), at, len);
      default:
        return ready;
    }
  }

  #readAll(ready: number, ranges: Float64Array | null): number {
    let done = ready;
    for (let i = 0; ranges !== null && i < ranges.length; i += 2) {
      done = Math.max(done, this.#read(ready, ranges[i]!, ranges[i + 1]!));
    }
    return done;
  }

  #read(ready: number, at: number, len: number): number {
    const late = this.#jitter?.sample() ?? 0;
    const end = at + len;
    let done = ready;
    for (let pos = at; pos < end;) {
      const page = Math.floor(pos / PAGE);
      const n = Math.min(end, (page + 1) * PAGE) - pos;
      const t = this.#media(page, ready) + (pos === at ? late : 0);
      const service = transferTime(n, this.#p.pcieReadMBps);
      done = Math.max(done, this.#pcieRead.book(this.#now, t, service));
      pos += n;
    }
    return done;
  }

  #write(ready: number, at: number, len: number): number {
    const end = at + len;
    let done = ready;
    for (let pos = at; pos < end;) {
      const page = Math.floor(pos / PAGE);
      const n = Math.min(end, (page + 1) * PAGE) - pos;
      const service = transferTime(n, this.#p.pcieWriteMBps);
      const t = this.#pcieWrite.book(this.#now, ready, service);
      done = Math.max(done, this.#media(page, t));
      pos += n;
    }
    return done;
  }

  /** Has a page's unit serve it; the end. */
  #media(page: number, ready: number): number {
    const unit = page % this.#p.units;
    const end = Math.max(this.#unitFree[unit]!, ready) + this.#p.media;
    this.#unitFree[unit] = end;
    return end;
  }
}
