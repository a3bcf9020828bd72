/**
 * Timing of a disk: arm, rotation, tracks that are longer outside, a cache.
 *
 * The arm serves one access at a time. Which of the commands that it knows is next
 * is decided when it is free: the one that it reaches first, unless one has waited
 * too long. Where the surface is follows from the time alone. Writes go to the
 * cache while it has room; it is drained in the order of positions whenever the
 * arm has nothing else to do, and between other accesses while somebody waits.
 *
 * @module
 */

import type { EventId } from "../../lib/clock.ts";
import { transferTime } from "./lane.ts";
import {
  NVME_CMD_COMPARE,
  NVME_CMD_COPY,
  NVME_CMD_FLUSH,
  NVME_CMD_READ,
  NVME_CMD_VERIFY,
  NVME_CMD_WRITE,
  NVME_CMD_WRITE_ZEROES,
  NVME_CMD_ZONE_APPEND,
  NVME_CMD_ZONE_MGMT_SEND,
  NVME_ZONE_FINISH,
  NVME_ZONE_RESET,
} from "./nvme.ts";
import { Due, Intake, Waiter } from "./pending.ts";
import type { TimedCommand, Timing, TimingContext } from "./timing.ts";

/** Most bytes that the cache writes in one access. */
const DRAIN = 1 << 20;
/** Bytes of one place in the table of what is in the cache. */
const PAGE = 4096;
/** Places in one piece of that table. */
const CHUNK = 4096;

/** Seek time over a distance `d`, a share of the stroke: base + root·√d + linear·d. */
export interface SeekCurve {
  /** Nanoseconds, of any seek. */
  base: number;
  /** Nanoseconds. */
  root: number;
  /** Nanoseconds. */
  linear: number;
}

/** A disk. */
export interface DiskParams {
  /** Which model: `disk-timing.ts`. */
  kind: "disk";
  /** One revolution, nanoseconds. */
  revolution: number;
  /** Seeks for a read. */
  seekRead: SeekCurve;
  /** Seeks for a write, which have to settle better. */
  seekWrite: SeekCurve;
  /** Megabytes a second under the head on the outermost track ... */
  outerMBps: number;
  /** ... and on the innermost. */
  innerMBps: number;
  /** Change to the next track, nanoseconds; tracks are skewed by it. */
  headSwitch: number;
  /** What a command costs by itself, nanoseconds. */
  overhead: number;
  /** Megabytes a second to and from the host. */
  interfaceMBps: number;
  /** Commands among which the arm chooses. */
  queue: number;
  /** A command that has waited longer is next, nanoseconds. */
  aging: number;
  /** After a read the disk goes on reading for so long, nanoseconds. */
  lookAhead: number;
  /** Bytes of the write cache. */
  cache: number;
}

/** Where the surface is, and how long the arm needs. */
export class Geometry {
  readonly #p: DiskParams;
  readonly #size: number;
  /** Nanoseconds that the heads need to pass over all tracks. */
  readonly #span: number;

  /** A disk whose tracks hold `size` bytes. */
  constructor(p: DiskParams, size: number) {
    this.#p = p;
    this.#size = size;
    this.#span = size * 1000 / ((p.outerMBps + p.innerMBps) / 2);
  }

  /** Share of the stroke at which a byte lies, 0 outside. */
  stroke(pos: number): number {
    const { outerMBps: outer, innerMBps: inner } = this.#p;
    const slope = outer - inner;
    const share = pos / this.#size;
    if (slope === 0) return share;
    // The integral of the rate over the radius is the share of the bytes.
    return (outer -
      Math.sqrt(outer * outer - slope * share * (outer + inner))) /
      slope;
  }

  /**
   * Time at which a byte is under the head, in a pass over all tracks that never
   * waits: modulo a revolution, that is the byte's angle.
   */
  pass(pos: number): number {
    const time = this.stroke(pos) * this.#span;
    const { revolution, headSwitch } = this.#p;
    return time + Math.floor(time / revolution) * headSwitch;
  }

  /** How long the arm needs from one byte's track to another's. */
  seek(from: number, to: number, curve: SeekCurve): number {
    const a = this.stroke(from);
    const b = this.stroke(to);
    const { revolution } = this.#p;
    const track = (x: number) => Math.floor(x * this.#span / revolution);
    if (track(a) === track(b)) return 0;
    const d = Math.abs(a - b);
    return curve.base + curve.root * Math.sqrt(d) + curve.linear * d;
  }

  /** How long until a byte comes under a head that is on its track at `time`. */
  rotation(time: number, pos: number): number {
    const { revolution } = this.#p;
    const wait = (this.pass(pos) - time) % revolution;
    return wait < 0 ? wait + revolution : wait;
  }
}

/** One thing that the arm has to do for a command. */
class Access {
  readonly command: TimedCommand;
  /** When it came. */
  readonly since: number;

  constructor(command: TimedCommand, since: number) {
    this.command = command;
    this.since = since;
  }
}

/** A range in the cache. */
class Dirty {
  readonly pos: number;
  readonly len: number;
  readonly stamp: number;

  constructor(pos: number, len: number, stamp: number) {
    this.pos = pos;
    this.len = len;
    this.stamp = stamp;
  }
}

/** Ranges in ascending order of their positions. */
class DirtyHeap {
  readonly #items: Dirty[] = [];

  get size(): number {
    return this.#items.length;
  }

  get first(): Dirty | undefined {
    return this.#items[0];
  }

  push(item: Dirty): void {
    const items = this.#items;
    let i = items.length;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(item, items[parent]!)) break;
      items[i] = items[parent]!;
      i = parent;
    }
    items[i] = item;
  }

  pop(): Dirty {
    const items = this.#items;
    const first = items[0]!;
    const item = items.pop()!;
    const { length } = items;
    let i = 0;
    while (length > 0) {
      let child = 2 * i + 1;
      if (child >= length) break;
      if (child + 1 < length && before(items[child + 1]!, items[child]!)) {
        child++;
      }
      if (!before(items[child]!, item)) break;
      items[i] = items[child]!;
      i = child;
    }
    if (length > 0) items[i] = item;
    return first;
  }
}

function before(a: Dirty, b: Dirty): boolean {
  return a.pos < b.pos || (a.pos === b.pos && a.stamp < b.stamp);
}

/** What the cache holds, to be written in one direction, then from the start again. */
class DiskCache {
  /** Bytes that are free. */
  room: number;
  #ahead = new DirtyHeap();
  #behind = new DirtyHeap();
  #at = 0;
  /** How many ranges hold each page, by piece of the table. */
  readonly #pages = new Map<number, Uint16Array>();

  constructor(bytes: number) {
    this.room = bytes;
  }

  get count(): number {
    return this.#ahead.size + this.#behind.size;
  }

  add(pos: number, len: number, stamp: number): void {
    this.room -= len;
    this.#mark(pos, len, 1);
    const heap = pos >= this.#at ? this.#ahead : this.#behind;
    heap.push(new Dirty(pos, len, stamp));
  }

  /** Takes the next ranges that follow one another. */
  take(into: Dirty[]): void {
    if (this.#ahead.size === 0) {
      [this.#ahead, this.#behind] = [this.#behind, this.#ahead];
    }
    let end = this.#ahead.first!.pos;
    const stop = end + DRAIN;
    do {
      const item = this.#ahead.pop();
      into.push(item);
      end = Math.max(end, item.pos + item.len);
    } while (end < stop && (this.#ahead.first?.pos ?? Infinity) <= end);
    this.#at = end;
  }

  /** Ranges are on the surface. */
  written(items: Dirty[]): void {
    for (const { pos, len } of items) {
      this.room += len;
      this.#mark(pos, len, -1);
    }
  }

  /** Whether all of a range is here. */
  holds(pos: number, len: number): boolean {
    for (let page = Math.floor(pos / PAGE); page * PAGE < pos + len; page++) {
      const chunk = this.#pages.get(Math.floor(page / CHUNK));
      if (chunk === undefined || chunk[page % CHUNK] === 0) return false;
    }
    return true;
  }

  #mark(pos: number, len: number, by: number): void {
    for (let page = Math.floor(pos / PAGE); page * PAGE < pos + len; page++) {
      const index = Math.floor(page / CHUNK);
      let chunk = this.#pages.get(index);
      if (chunk === undefined) {
        chunk = new Uint16Array(CHUNK);
        this.#pages.set(index, chunk);
      }
      chunk[page % CHUNK]! += by;
    }
  }
}

/** A disk at work. */
export class DiskTiming implements Timing {
  readonly #p: DiskParams;
  readonly #ctx: TimingContext;
  readonly #geometry: Geometry;
  readonly #due: Due;
  readonly #cache: DiskCache;
  readonly #intake: Intake;
  /** For the arm, in the order in which they came. */
  #queue: Access[] = [];
  #current: Access | null = null;
  /** Ranges that the arm is writing from the cache. */
  #draining: Dirty[] = [];
  readonly #flushes: Waiter[] = [];
  #event: EventId = 0;
  /** When the arm is free. */
  #free = 0;
  /** The last access was of the cache. */
  #drained = false;
  /** Since when there is something in the cache. */
  #dirtySince = 0;
  // Where the head is: after the last access, and when it was there; when the
  // host had it.
  #headAt = 0;
  #headTime: number = -Infinity;
  #lastDone: number = -Infinity;
  #stamp = 0;
  #now = 0;

  /** A disk whose arm rests outside. */
  constructor(params: DiskParams, ctx: TimingContext) {
    this.#p = params;
    this.#ctx = ctx;
    this.#geometry = new Geometry(params, ctx.size);
    this.#due = new Due(ctx);
    this.#cache = new DiskCache(params.cache);
    this.#intake = new Intake(
      ctx,
      (command) => this.#begin(command),
      () => this.#kick(),
    );
  }

  /** See {@linkcode Timing.admits}. */
  admits(command: TimedCommand, now: number): boolean {
    if (!this.#caches(command)) return true;
    this.#advance(now);
    return this.#intake.admits(command.qid, this.#cache.room < command.len);
  }

  /** See {@linkcode Timing.start}. */
  start(command: TimedCommand, now: number): void {
    this.#advance(now);
    this.#intake.start(command);
    this.#kick();
  }

  /** See {@linkcode Timing.abort}. */
  abort(command: TimedCommand): boolean {
    if (this.#due.abort(command) || this.#intake.abort(command)) return true;
    const at = this.#queue.findIndex((a) => a.command === command);
    if (at >= 0) {
      this.#queue.splice(at, 1);
      return true;
    }
    const flush = this.#flushes.findIndex((w) => w.command === command);
    if (flush >= 0) this.#flushes.splice(flush, 1);
    if (this.#current?.command !== command) return flush >= 0;
    // The arm is on its way, and nobody is told when it is there.
    this.#current = null;
    return true;
  }

  /** See {@linkcode Timing.reset}. */
  reset(): void {
    this.#due.clear();
    this.#intake.clear();
    this.#queue = [];
    this.#current = null;
    this.#flushes.length = 0;
    this.#ctx.clock.cancel(this.#event);
    this.#event = 0;
  }

  /** Takes a command; false if it has to wait for room in the cache. */
  #begin(command: TimedCommand): boolean {
    const { opcode, at, len } = command;
    const ready = this.#now + this.#p.overhead;
    switch (opcode) {
      case NVME_CMD_READ:
      case NVME_CMD_COMPARE:
      case NVME_CMD_VERIFY:
        if (this.#cache.holds(at, len)) this.#pass(command, ready);
        else this.#queue.push(new Access(command, this.#now));
        return true;
      case NVME_CMD_WRITE:
      case NVME_CMD_ZONE_APPEND:
        return this.#write(command, ready);
      case NVME_CMD_WRITE_ZEROES:
      case NVME_CMD_COPY:
        this.#queue.push(new Access(command, this.#now));
        return true;
      case NVME_CMD_FLUSH:
        this.#flush(command, ready);
        return true;
      case NVME_CMD_ZONE_MGMT_SEND:
        if (
          command.action === NVME_ZONE_RESET ||
          command.action === NVME_ZONE_FINISH
        ) {
          this.#queue.push(new Access(command, this.#now));
          return true;
        }
    }
    this.#due.at(command, ready);
    return true;
  }

  /** Bytes go between host and cache. */
  #pass(command: TimedCommand, ready: number): void {
    const service = transferTime(command.len, this.#p.interfaceMBps);
    this.#due.at(command, ready + service);
  }

  #write(command: TimedCommand, ready: number): boolean {
    const { at, len } = command;
    if (!this.#caches(command)) {
      this.#queue.push(new Access(command, this.#now));
      return true;
    }
    if (this.#cache.room < len) return false;
    if (this.#cache.count === 0) this.#dirtySince = this.#now;
    this.#cache.add(at, len, ++this.#stamp);
    this.#pass(command, ready);
    return true;
  }

  /** Whether a command goes to the cache. */
  #caches({ opcode, fua, len }: TimedCommand): boolean {
    const writes = opcode === NVME_CMD_WRITE || opcode === NVME_CMD_ZONE_APPEND;
    return writes && !fua && len <= this.#p.cache;
  }

  #flush(command: TimedCommand, ready: number): void {
    const waiter = new Waiter(command);
    waiter.left = this.#cache.count + this.#draining.length;
    waiter.horizon = this.#stamp;
    if (waiter.left === 0) this.#due.at(command, ready);
    else this.#flushes.push(waiter);
  }

  /** Lets the arm do what it would have done by itself until `now`. */
  #advance(now: number): void {
    this.#now = now;
    if (this.#event !== 0) return;
    while (this.#free <= now) {
      this.#drainDone();
      const start = Math.max(this.#free, this.#dirtySince);
      if (this.#cache.count === 0 || start >= now) return;
      this.#drain(start);
    }
  }

  /** Sees to it that the arm goes on when it is free, if somebody waits for it. */
  #kick(): void {
    if (this.#event !== 0 || !this.#awaited()) return;
    if (this.#free > this.#now) this.#arm();
    else this.#next();
  }

  #awaited(): boolean {
    return this.#queue.length > 0 || this.#mustDrain() ||
      this.#current !== null;
  }

  #mustDrain(): boolean {
    return this.#intake.waiting || this.#flushes.length > 0;
  }

  #arm(): void {
    this.#event = this.#ctx.clock.at(this.#free, DiskTiming.#freed, this);
  }

  static #freed(disk: DiskTiming): void {
    disk.#event = 0;
    disk.#now = Math.max(disk.#free, disk.#ctx.clock.now());
    const access = disk.#current;
    disk.#current = null;
    if (access !== null) disk.#accessed(access);
    disk.#drainDone();
    disk.#kick();
  }

  #accessed({ command }: Access): void {
    const last = Math.min(command.len, PAGE);
    const done = this.#free + transferTime(last, this.#p.interfaceMBps);
    this.#lastDone = done;
    this.#due.at(command, done);
  }

  /** Begins the arm's next access. */
  #next(): void {
    const drains = this.#mustDrain() && this.#cache.count > 0 &&
      (this.#queue.length === 0 || !this.#drained);
    if (drains) this.#drain(this.#now);
    else if (this.#queue.length > 0) this.#serve(this.#choose());
    else return;
    this.#arm();
  }

  /** The command that the arm reaches first, unless one has waited too long. */
  #choose(): Access {
    const queue = this.#queue;
    const oldest = queue[0]!;
    let best = 0;
    if (this.#now - oldest.since <= this.#p.aging) {
      let least = Infinity;
      const n = Math.min(queue.length, this.#p.queue);
      for (let i = 0; i < n; i++) {
        const time = this.#positioning(queue[i]!);
        if (time >= least) continue;
        least = time;
        best = i;
      }
    }
    return queue.splice(best, 1)[0]!;
  }

  /** When the arm could begin with a command's bytes. */
  #positioning({ command, since }: Access): number {
    const start = Math.max(this.#now, since + this.#p.overhead);
    if (this.#continues(command.at, start)) return this.#headTime;
    return this.#reach(start, command.at, isWrite(command));
  }

  #reach(start: number, pos: number, writes: boolean): number {
    const { seekRead, seekWrite } = this.#p;
    const curve = writes ? seekWrite : seekRead;
    const t = start + this.#geometry.seek(this.#headAt, pos, curve);
    return t + this.#geometry.rotation(t, pos);
  }

  /** Whether the head is about to pass over `pos`, or has just done so. */
  #continues(pos: number, start: number): boolean {
    return pos === this.#headAt &&
      start - this.#lastDone <= this.#p.lookAhead;
  }

  #serve(access: Access): void {
    const { command, since } = access;
    this.#current = access;
    this.#drained = false;
    let start = Math.max(this.#now, since + this.#p.overhead);
    const { ranges } = command;
    if (command.opcode === NVME_CMD_COPY && ranges !== null) {
      for (let i = 0; i < ranges.length; i += 2) {
        start = this.#access(start, ranges[i]!, ranges[i + 1]!, false);
      }
    }
    if (command.opcode === NVME_CMD_ZONE_MGMT_SEND) {
      this.#free = this.#manage(start, command.at);
    } else {
      this.#free = this.#access(
        start,
        command.at,
        command.len,
        isWrite(command),
      );
    }
  }

  /** Moves the head over a range; when it has passed. */
  #access(start: number, pos: number, len: number, writes: boolean): number {
    const transfer = this.#geometry.pass(pos + len) - this.#geometry.pass(pos);
    const from = this.#continues(pos, start)
      ? this.#headTime
      : this.#reach(start, pos, writes);
    this.#headAt = pos + len;
    this.#headTime = from + transfer;
    this.#lastDone = Math.max(start, Math.round(this.#headTime));
    return this.#lastDone;
  }

  /** A zone's write pointer moves: one seek, one revolution. */
  #manage(start: number, pos: number): number {
    const seek = this.#geometry.seek(this.#headAt, pos, this.#p.seekWrite);
    this.#headAt = pos;
    this.#headTime = this.#lastDone = Math.round(
      start + seek + this.#p.revolution,
    );
    return this.#headTime;
  }

  /** Begins to write what is next in the cache. */
  #drain(start: number): void {
    this.#cache.take(this.#draining);
    const items = this.#draining;
    const { pos } = items[0]!;
    let end = pos;
    for (const item of items) end = Math.max(end, item.pos + item.len);
    this.#drained = true;
    this.#free = this.#access(start, pos, end - pos, true);
  }

  /** What the arm was writing from the cache is on the surface. */
  #drainDone(): void {
    const items = this.#draining;
    if (items.length === 0) return;
    this.#draining = [];
    this.#cache.written(items);
    this.#dirtySince = this.#free;
    for (const waiter of [...this.#flushes]) this.#flushed(waiter, items);
    this.#intake.room();
  }

  #flushed(waiter: Waiter, items: Dirty[]): void {
    for (const { stamp } of items) if (stamp <= waiter.horizon) waiter.left--;
    if (waiter.left > 0) return;
    this.#flushes.splice(this.#flushes.indexOf(waiter), 1);
    this.#due.at(waiter.command!, this.#free);
  }
}

function isWrite(command: TimedCommand): boolean {
  const { opcode } = command;
  return opcode === NVME_CMD_WRITE || opcode === NVME_CMD_WRITE_ZEROES ||
    opcode === NVME_CMD_ZONE_APPEND || opcode === NVME_CMD_COPY;
}
