/**
 * When a command is done: a model of firmware, channels, dies, PCIe and write buffer.
 *
 * A timeline: at submission every stage is booked where it is free, and the end
 * of the last is the answer. So commands that need the same part queue for it,
 * and depth pays until some part is busy all the time. What is booked is not
 * moved again: a read does not overtake a program that was booked before it.
 *
 * All times are whole nanoseconds.
 *
 * @module
 */

import { SEC } from "../../lib/clock.ts";
import {
  bitmapClear,
  bitmapSet,
  bitmapWords,
  testBit,
} from "../../lib/bitmap.ts";
import type { Prng } from "../../lib/prng.ts";
import type { FlashMode, LatencyParams } from "./presets.ts";

const KiB4 = 4096;
/** Piece of a transfer, so that die, channel and PCIe overlap. */
const TRANSFER = 16384;

/** Serves one customer at a time; who needs it briefly may go in a gap. */
export class Lane {
  // Busy intervals, ascending, none touching the next.
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];

  /**
   * Books the first stretch of `service` that is free from `arrival` on.
   *
   * @param now Current time: what lies before it is forgotten.
   * @returns Its end.
   */
  book(now: number, arrival: number, service: number): number {
    if (service === 0) return arrival;
    const starts = this.#starts;
    const ends = this.#ends;
    let past = 0;
    while (past < ends.length && ends[past]! < now) past++;
    if (past > 0) {
      starts.splice(0, past);
      ends.splice(0, past);
    }
    let start = arrival;
    let i = 0;
    for (; i < ends.length; i++) {
      if (starts[i]! - start >= service) break;
      start = Math.max(start, ends[i]!);
    }
    this.#insert(i, start, start + service);
    return start + service;
  }

  /** Puts an interval before the `i`-th, joining what it touches. */
  #insert(i: number, start: number, end: number): void {
    const joinsLeft = i > 0 && this.#ends[i - 1] === start;
    const joinsRight = this.#starts[i] === end;
    if (joinsLeft && joinsRight) {
      this.#ends[i - 1] = this.#ends[i]!;
      this.#starts.splice(i, 1);
      this.#ends.splice(i, 1);
    } else if (joinsLeft) this.#ends[i - 1] = end;
    else if (joinsRight) this.#starts[i] = start;
    else {
      this.#starts.splice(i, 0, start);
      this.#ends.splice(i, 0, end);
    }
  }
}

/** What one program stores: data in the write buffer, full or still collecting. */
interface Unit {
  mode: FlashMode;
  bytes: number;
  /** 4 KiB pages of the device in it. */
  pages: number[];
  /** When the program is done and the buffer's room comes back; Infinity before it is booked. */
  end: number;
}

/** Times of one device. */
export class LatencyModel {
  readonly #p: LatencyParams;
  readonly #random: Prng;
  readonly #firmwarePerCommand: number;
  readonly #firmware = new Lane();
  readonly #pcieRead = new Lane();
  readonly #pcieWrite = new Lane();
  readonly #channels: Lane[];
  readonly #dieFree: Float64Array;
  /** Until when a queue's next command is not looked at: a write waits for room. */
  readonly #stalled: number[] = [];
  readonly #buffer: WriteBuffer | null;

  /**
   * @param params The device's parts.
   * @param size Bytes of the device.
   * @param random Chance in reads.
   */
  constructor(params: LatencyParams, size: number, random: Prng) {
    this.#p = params;
    this.#random = random;
    this.#firmwarePerCommand = params.firmwareKiops > 0
      ? Math.round(1e6 / params.firmwareKiops)
      : 0;
    this.#channels = Array.from({ length: params.channels }, () => new Lane());
    this.#dieFree = new Float64Array(params.channels * params.diesPerChannel);
    this.#buffer = params.writeBuffer > 0
      ? new WriteBuffer(params, size, this.#channels, this.#dieFree)
      : null;
  }

  /** When a read of `len` bytes at `at`, fetched from queue `qid` at `now`, is done. */
  read(qid: number, now: number, at: number, len: number): number {
    const p = this.#p;
    const ready = this.#fetch(qid, now) +
      (len <= KiB4 ? p.firmwareRead4k : p.firmwareRead);
    const end = at + len;
    let late = this.#readJitter();
    let done = ready;
    for (let pos = at; pos < end;) {
      const page = Math.floor(pos / p.flashPage);
      const n = Math.min(end, (page + 1) * p.flashPage) - pos;
      const t = this.#buffer !== null && this.#buffer.holds(ready, pos, n)
        ? this.#pcieRead.book(now, ready, cost(n, p.pcieReadMBps))
        : this.#readPage(now, ready, late, pos, n);
      done = Math.max(done, t);
      late = 0;
      pos += n;
    }
    return done + p.host;
  }

  /** When a write is done; `fua`: when it is on the media. */
  write(
    qid: number,
    now: number,
    at: number,
    len: number,
    fua: boolean,
  ): number {
    const p = this.#p;
    const ready = this.#fetch(qid, now) + p.firmwareWrite +
      p.firmwareWritePer4k * Math.ceil(len / KiB4);
    const done = this.#buffer === null
      ? this.#writeThrough(now, ready, at, len)
      : this.#writeBuffered(this.#buffer, qid, now, ready, at, len, fua);
    return done + p.host;
  }

  /** When a command without data is done. */
  command(qid: number, now: number): number {
    return this.#fetch(qid, now) + this.#p.firmwareWrite + this.#p.host;
  }

  /** When a flush is done. */
  flush(qid: number, now: number): number {
    const ready = this.#fetch(qid, now) + this.#p.firmwareWrite;
    const stable = this.#buffer?.programAll(now, ready) ?? ready;
    return Math.max(ready, stable) + this.#p.host;
  }

  /** Has the firmware take a command; the time at which it begins with it. */
  #fetch(qid: number, now: number): number {
    const arrival = Math.max(now, this.#stalled[qid] ?? 0);
    const service = this.#firmwarePerCommand;
    return this.#firmware.book(now, arrival, service) - service;
  }

  #readPage(
    now: number,
    ready: number,
    late: number,
    pos: number,
    n: number,
  ): number {
    const p = this.#p;
    const page = Math.floor(pos / p.flashPage);
    const die = page % this.#dieFree.length;
    const mode = this.#buffer?.isSlc(ready, pos) ? p.slc! : p.flash;
    const times = n <= KiB4 ? mode.read4k : mode.read;
    const row = Math.floor(page / this.#dieFree.length);
    let t = Math.max(this.#dieFree[die]!, ready) + late +
      times[row % times.length]!;
    let done = t;
    const channel = this.#channels[die % p.channels]!;
    for (let sent = 0; sent < n; sent += TRANSFER) {
      const piece = Math.min(TRANSFER, n - sent);
      t = channel.book(now, t, cost(piece, p.channelMBps));
      done = this.#pcieRead.book(now, t, cost(piece, p.pcieReadMBps));
    }
    // The die keeps the page until the channel has taken it.
    this.#dieFree[die] = t;
    return done;
  }

  #writeThrough(now: number, ready: number, at: number, len: number): number {
    const p = this.#p;
    const end = at + len;
    let done = ready;
    for (let pos = at; pos < end;) {
      const page = Math.floor(pos / p.flashPage);
      const n = Math.min(end, (page + 1) * p.flashPage) - pos;
      const die = page % this.#dieFree.length;
      const t = this.#pcieWrite.book(now, ready, cost(n, p.pcieWriteMBps));
      const stored = Math.max(this.#dieFree[die]!, t) + p.flash.program;
      this.#dieFree[die] = stored;
      done = Math.max(done, stored);
      pos += n;
    }
    return done;
  }

  #writeBuffered(
    buffer: WriteBuffer,
    qid: number,
    now: number,
    ready: number,
    at: number,
    len: number,
    fua: boolean,
  ): number {
    const end = at + len;
    let done = ready;
    let stable = ready;
    for (let pos = at; pos < end;) {
      const room = buffer.reserve(ready, end - pos);
      // The command stays in its queue meanwhile, and those behind it with it.
      if (room.at > ready) this.#stalled[qid] = room.at;
      const service = cost(room.bytes, this.#p.pcieWriteMBps);
      done = this.#pcieWrite.book(now, room.at, service);
      const unit = buffer.put(now, done, pos, room.bytes);
      if (fua && unit.end === Infinity) buffer.program(now, done);
      if (fua) stable = Math.max(stable, unit.end);
      pos += room.bytes;
    }
    return Math.max(done, stable);
  }

  /** How much longer than usual the media takes this time. */
  #readJitter(): number {
    const jitter = this.#p.readJitter;
    if (jitter === undefined) return 0;
    const multiple = quantile(jitter.quantiles, this.#random.float());
    return Math.round((multiple - 1) * jitter.median);
  }
}

/** Nanoseconds that `bytes` take at a rate in MB/s; 0 MB/s takes none. */
function cost(bytes: number, mbps: number): number {
  return mbps === 0 ? 0 : Math.round(bytes * 1000 / mbps);
}

/**
 * Value at fraction `u` of a distribution that is known at some quantiles: between
 * two its logarithm is linear in that of the tail's share.
 */
function quantile(
  table: readonly (readonly [number, number])[],
  u: number,
): number {
  const above = table.findIndex(([q]) => q > u);
  if (above === 0) return table[0]![1];
  if (above < 0) return table.at(-1)![1];
  const [q0, v0] = table[above - 1]!;
  const [q1, v1] = table[above]!;
  const part = Math.log((1 - q0) / (1 - u)) / Math.log((1 - q0) / (1 - q1));
  return v0 * (v1 / v0) ** part;
}

/** Room for data, and when there is. */
interface Room {
  at: number;
  bytes: number;
}

/** Data on its way to the dies, which are programmed in turn. */
class WriteBuffer {
  readonly #p: LatencyParams;
  readonly #channels: Lane[];
  readonly #dieFree: Float64Array;
  #free: number;
  /** Units whose program is booked, by its end. */
  readonly #booked: Unit[] = [];
  /** Which unit holds a page's newest data. */
  readonly #pages = new Map<number, Unit>();
  #open: Unit | null = null;
  #nextDie = 0;
  #lastEnd = 0;
  readonly #slc: SlcRegion | null;

  constructor(
    params: LatencyParams,
    size: number,
    channels: Lane[],
    dieFree: Float64Array,
  ) {
    this.#p = params;
    this.#channels = channels;
    this.#dieFree = dieFree;
    this.#free = params.writeBuffer;
    this.#slc = params.slc === undefined ? null : new SlcRegion(params, size);
  }

  /** Whether all of `[pos, pos + len)` is still in the buffer at `time`. */
  holds(time: number, pos: number, len: number): boolean {
    if (this.#pages.size === 0) return false;
    const end = pos + len;
    for (let page = Math.floor(pos / KiB4); page * KiB4 < end; page++) {
      const unit = this.#pages.get(page);
      if (unit === undefined || unit.end <= time) return false;
    }
    return true;
  }

  /** Whether a page that is not in the buffer is in the fast region. */
  isSlc(time: number, pos: number): boolean {
    return this.#slc !== null && this.#slc.holds(time, Math.floor(pos / KiB4));
  }

  /** Finds room for up to `len` bytes of one unit, from `ready` on. */
  reserve(ready: number, len: number): Room {
    const unit = this.#open ??= this.#newUnit(ready);
    const bytes = Math.min(len, unit.mode.oneShot - unit.bytes);
    let at = ready;
    while (
      this.#booked.length > 0 &&
      (this.#booked[0]!.end <= at || this.#free < bytes)
    ) {
      const done = this.#booked.shift()!;
      at = Math.max(at, done.end);
      this.#free += done.bytes;
      for (const page of done.pages) {
        if (this.#pages.get(page) === done) this.#pages.delete(page);
      }
    }
    this.#free -= bytes;
    return { at, bytes };
  }

  /** Takes the data that arrived at `time`; a full unit is programmed. */
  put(now: number, time: number, pos: number, bytes: number): Unit {
    const unit = this.#open!;
    unit.bytes += bytes;
    const end = pos + bytes;
    for (let page = Math.floor(pos / KiB4); page * KiB4 < end; page++) {
      unit.pages.push(page);
      this.#pages.set(page, unit);
    }
    if (unit.bytes >= unit.mode.oneShot) this.program(now, time);
    return unit;
  }

  /** Books the program of the open unit, full or not. */
  program(now: number, time: number): void {
    const unit = this.#open!;
    this.#open = null;
    const die = this.#nextDie;
    this.#nextDie = (die + 1) % this.#dieFree.length;
    const { oneShot, program } = unit.mode;
    const start = Math.max(time, this.#dieFree[die]!);
    const channel = this.#channels[die % this.#p.channels]!;
    const sent = channel.book(now, start, cost(oneShot, this.#p.channelMBps));
    unit.end = sent + program;
    this.#dieFree[die] = unit.end;
    this.#lastEnd = Math.max(this.#lastEnd, unit.end);
    this.#slc?.programmed(unit.end, unit.mode === this.#p.slc, unit.pages);
    let i = this.#booked.length;
    while (i > 0 && this.#booked[i - 1]!.end > unit.end) i--;
    this.#booked.splice(i, 0, unit);
  }

  /** Programs what waits; the time at which all of it is on the media. */
  programAll(now: number, time: number): number {
    if (this.#open !== null && this.#open.bytes > 0) this.program(now, time);
    return this.#lastEnd;
  }

  #newUnit(time: number): Unit {
    const fast = this.#slc !== null && this.#slc.takes(time);
    const mode = fast ? this.#p.slc! : this.#p.flash;
    return { mode, bytes: 0, pages: [], end: Infinity };
  }
}

/** How long the device must be idle before it folds the region. */
const FOLD_AFTER = 1 * SEC;

/**
 * Dies used in a fast mode: it fills with what the host writes, and is emptied
 * into the slow mode while the device is idle.
 */
class SlcRegion {
  readonly #bytes: number;
  readonly #oneShot: number;
  /** Nanoseconds that one byte takes to fold. */
  readonly #foldPerByte: number;
  #used = 0;
  #lastWrite = 0;
  /** 4 KiB pages last written in the fast mode, until all of it has been folded. */
  readonly #pages: Uint32Array;

  constructor(params: LatencyParams, size: number) {
    const slc = params.slc!;
    this.#bytes = Math.floor(size * slc.share);
    this.#oneShot = slc.oneShot;
    const dies = params.channels * params.diesPerChannel;
    this.#foldPerByte = params.flash.program / (params.flash.oneShot * dies);
    this.#pages = new Uint32Array(bitmapWords(Math.ceil(size / KiB4)));
  }

  /** Whether a unit that is begun at `time` goes to the region. */
  takes(time: number): boolean {
    this.#fold(time);
    return this.#used + this.#oneShot <= this.#bytes;
  }

  holds(time: number, page: number): boolean {
    this.#fold(time);
    return testBit(this.#pages, page);
  }

  programmed(time: number, fast: boolean, pages: number[]): void {
    if (fast) this.#used += this.#oneShot;
    const mark = fast ? bitmapSet : bitmapClear;
    for (const page of pages) mark(this.#pages, page, 1);
    this.#lastWrite = Math.max(this.#lastWrite, time);
  }

  /** Works off what idle time there was until `time`. */
  #fold(time: number): void {
    const idle = time - this.#lastWrite - FOLD_AFTER;
    if (idle <= 0 || this.#used === 0) return;
    this.#used = Math.max(0, this.#used - Math.floor(idle / this.#foldPerByte));
    this.#lastWrite = time - FOLD_AFTER;
    if (this.#used === 0) this.#pages.fill(0);
  }
}
