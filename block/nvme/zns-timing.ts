/**
 * Timing of a flash device with zones and no page map.
 *
 * A zone's data fill units of flash in order, and the units lie on the dies in
 * turn. Each zone has a buffer of its own. A program runs in slices, between which
 * reads are let through. What zone management takes depends on how much of the
 * zone has been written.
 *
 * @module
 */

import { Prng } from "../../lib/prng.ts";
import { DieArray, type DieOp, type DieOwner, type DieParams } from "./dies.ts";
import type { FlashMode } from "./flash.ts";
import { Jitter, type JitterTable } from "./jitter.ts";
import { Lane, transferTime } from "./lane.ts";
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
  NVME_ZONE_CLOSE,
  NVME_ZONE_FINISH,
  NVME_ZONE_OPEN,
  NVME_ZONE_RESET,
} from "./nvme.ts";
import { Due, Intake, type Progress, Waiter } from "./pending.ts";
import type {
  TimedCommand,
  Timing,
  TimingContext,
  ZoneInfo,
} from "./timing.ts";

const KiB4 = 4096;

/** A zoned flash device. */
export interface ZnsParams extends DieParams {
  /** Which model: `zns-timing.ts`. */
  kind: "zns";
  /** What host and driver take for a read, nanoseconds. */
  hostRead: number;
  /** What host and driver take for a write or an append, nanoseconds. */
  hostWrite: number;
  /** Firmware's part of a read of up to 4 KiB, nanoseconds. */
  firmwareRead4k: number;
  /** Firmware's part of a larger read, nanoseconds. */
  firmwareRead: number;
  /** Firmware's part of a write, nanoseconds. */
  firmwareWrite: number;
  /** And for every 4 KiB of it. */
  firmwareWritePer4k: number;
  /** Firmware's part of an append, nanoseconds. */
  firmwareAppend: number;
  /** Of which it does so much one after the other. */
  appendService: number;
  /** Most commands a second, thousands. */
  firmwareKiops: number;
  /** More for a write that opens its zone, nanoseconds. */
  openedByWrite: number;
  /** More for an append that opens its zone, nanoseconds. */
  openedByAppend: number;
  /** Bytes that one read of the array yields. */
  page: number;
  /** Megabytes a second to the host. */
  pcieReadMBps: number;
  /** Megabytes a second from the host. */
  pcieWriteMBps: number;
  /** The dies. */
  flash: FlashMode;
  /** Bytes of a zone's writes that wait for a program. */
  zoneBuffer: number;
  /** What is in the buffers survives a loss of power: flush and FUA need not wait. */
  powerLossProtected: boolean;
  /** Chance in the array's reads. */
  readJitter?: JitterTable;
  /** Chance in writes. */
  writeJitter?: JitterTable;
  /** Chance in appends. */
  appendJitter?: JitterTable;
  /** Zone management. */
  zone: ZoneTimes;
}

/** What zone management takes, nanoseconds, host and all. */
export interface ZoneTimes {
  /** Explicit open. */
  open: number;
  /** Close of a zone with nothing in its buffer. */
  close: number;
  /** Close of a zone that has been written to. */
  closeWritten: number;
  /** Finish of a zone in which nothing has been written. */
  finishEmpty: number;
  /** Finish of any other. */
  finish: number;
  /** And for each 4 KiB of it that have not been written. */
  finishPer4k: number;
  /** Reset by share of the zone that has been written: linear between these. */
  reset: readonly (readonly [number, number])[];
  /** Reset of a zone that was finished. */
  resetFinished: number;
  /** And that times the share that had been written before. */
  resetFinishedWritten: number;
}

/** What has been written to a zone and is not in flash. */
class ZoneBuffer {
  /** Unit that is being filled, counted from the zone's start. */
  unit: number;
  /** Bytes in it. */
  fill: number;
  /** Bytes that have room. */
  room: number;
  /** The first unit that is not in flash. */
  first: number;
  /** The program of the unit that is being filled. */
  open: DieOp | null = null;

  constructor(written: number, unitBytes: number, room: number) {
    this.unit = Math.floor(written / unitBytes);
    this.fill = written % unitBytes;
    this.first = this.unit;
    this.room = room;
  }
}

/** A zoned flash device at work. */
export class ZnsTiming implements Timing, DieOwner {
  readonly #p: ZnsParams;
  readonly #zones: ZoneInfo;
  readonly #due: Due;
  readonly #dies: DieArray;
  readonly #intake: Intake;
  readonly #buffers = new Map<number, ZoneBuffer>();
  readonly #zoneUnits: number;
  /** Programs, and those to come, with the buffer that they empty. */
  readonly #ops = new Map<DieOp, ZoneBuffer>();
  readonly #pcieRead = new Lane();
  readonly #pcieWrite = new Lane();
  readonly #perCommand: number;
  readonly #readJitter: Jitter | null;
  readonly #writeJitter: Jitter | null;
  readonly #appendJitter: Jitter | null;
  /** See {@linkcode Timing.firmwareFree}. */
  firmwareFree = 0;
  #appendFree = 0;
  #now = 0;

  /** An idle device; `zones` are those of the context. */
  constructor(params: ZnsParams, ctx: TimingContext, zones: ZoneInfo) {
    this.#p = params;
    this.#zones = zones;
    this.#due = new Due(ctx);
    this.#dies = new DieArray(params, this, ctx.clock);
    this.#intake = new Intake(
      ctx,
      (command, progress) => this.#begin(command, progress),
      (on) => on ? this.#dies.hold() : this.#dies.unhold(),
    );
    this.#zoneUnits = Math.ceil(zones.zoneSize / params.flash.oneShot);
    this.#perCommand = Math.round(1e6 / params.firmwareKiops);
    const writes = new Prng(ctx.seed, "nvme write");
    const jitter = (table: JitterTable | undefined, random: Prng) =>
      table === undefined ? null : new Jitter(table, random);
    this.#readJitter = jitter(
      params.readJitter,
      new Prng(ctx.seed, "nvme read"),
    );
    this.#writeJitter = jitter(params.writeJitter, writes);
    this.#appendJitter = jitter(params.appendJitter, writes);
  }

  /** See {@linkcode Timing.admits}. */
  admits(command: TimedCommand, now: number): boolean {
    const { opcode, at, qid } = command;
    const fills = opcode === NVME_CMD_WRITE || opcode === NVME_CMD_COPY ||
      opcode === NVME_CMD_WRITE_ZEROES || opcode === NVME_CMD_ZONE_APPEND;
    if (!fills && !this.#intake.waiting) return true;
    this.#dies.advance(now);
    const zone = Math.floor(at / this.#zones.zoneSize);
    const isFull = fills && this.#buffers.get(zone)?.room === 0;
    return this.#intake.admits(qid, isFull);
  }

  /** See {@linkcode Timing.start}. */
  start(command: TimedCommand, now: number): void {
    this.#dies.advance(now);
    this.#now = now;
    this.#intake.start(command);
  }

  /** See {@linkcode Timing.abort}. */
  abort(command: TimedCommand): boolean {
    if (this.#due.abort(command) || this.#intake.abort(command)) return true;
    for (const op of this.#ops.keys()) {
      const waiter = op.waiters.find((w) => w.command === command);
      if (waiter === undefined) continue;
      waiter.command = null;
      this.#dies.unhold();
      return true;
    }
    return false;
  }

  /** See {@linkcode Timing.reset}. */
  reset(): void {
    this.#due.clear();
    this.#intake.clear();
    for (const op of this.#ops.keys()) op.waiters.length = 0;
    this.#dies.unholdAll();
  }

  #begin(command: TimedCommand, progress: Progress): boolean {
    const { opcode, at, len } = command;
    switch (opcode) {
      case NVME_CMD_READ:
      case NVME_CMD_COMPARE:
      case NVME_CMD_VERIFY: {
        const ready = this.#fetch() + this.#firmwareRead(len);
        const done = this.#read(ready, at, len);
        this.#due.at(command, done + this.#p.hostRead);
        return true;
      }
      case NVME_CMD_WRITE:
      case NVME_CMD_WRITE_ZEROES:
      case NVME_CMD_ZONE_APPEND:
      case NVME_CMD_COPY:
        return this.#write(command, progress);
      case NVME_CMD_FLUSH:
        this.#flush(command);
        return true;
      case NVME_CMD_ZONE_MGMT_SEND:
        this.#due.at(command, this.#fetch() + this.#manage(command));
        return true;
      default:
        this.#due.at(
          command,
          this.#fetch() + this.#p.firmwareWrite + this.#p.hostWrite,
        );
        return true;
    }
  }

  /** Has the firmware take a command; the time at which it begins with it. */
  #fetch(): number {
    const start = Math.max(this.#now, this.firmwareFree);
    this.firmwareFree = start + this.#perCommand;
    return start;
  }

  #firmwareRead(len: number): number {
    return len <= KiB4 ? this.#p.firmwareRead4k : this.#p.firmwareRead;
  }

  #read(ready: number, at: number, len: number): number {
    const { page } = this.#p;
    const end = at + len;
    let done = ready;
    for (let pos = at; pos < end;) {
      const n = Math.min(end, (Math.floor(pos / page) + 1) * page) - pos;
      done = Math.max(done, this.#readPage(ready, pos, n));
      pos += n;
    }
    return done;
  }

  /** A read within a page of flash. */
  #readPage(ready: number, at: number, bytes: number): number {
    const p = this.#p;
    const zone = Math.floor(at / this.#zones.zoneSize);
    const unit = Math.floor(
      (at - zone * this.#zones.zoneSize) / p.flash.oneShot,
    );
    const buffer = this.#buffers.get(zone);
    if (buffer !== undefined && unit >= buffer.first && unit <= buffer.unit) {
      const service = transferTime(bytes, p.pcieReadMBps);
      return this.#pcieRead.book(this.#now, ready, service);
    }
    const times = bytes <= KiB4 ? p.flash.read4k : p.flash.read;
    const array = times[unit % times.length]! +
      (this.#readJitter?.sample() ?? 0);
    return this.#dies.read(
      this.#now,
      ready,
      this.#dieOf(zone, unit),
      array,
      bytes,
      this.#pcieRead,
      p.pcieReadMBps,
    );
  }

  #dieOf(zone: number, unit: number): number {
    return (zone * this.#zoneUnits + unit) % this.#dies.count;
  }

  /** Puts a write into its zone's buffer, as far as there is room; whether all of it. */
  #write(command: TimedCommand, progress: Progress): boolean {
    const { len } = command;
    const begun = progress.bytes;
    const zone = this.#zoneOf(command);
    const buffer = this.#bufferOf(zone);
    if (begun === 0 && command.fua && !this.#p.powerLossProtected) {
      progress.waiter = new Waiter(command);
    }
    const { waiter } = progress;
    const bytes = Math.min(len - begun, buffer.room);
    if (bytes === 0) return false;
    this.#fill(zone, buffer, bytes, waiter);
    const ready = begun === 0 ? this.#firmwareWrite(command) : this.#now;
    const service = transferTime(bytes, this.#p.pcieWriteMBps);
    const done = this.#pcieWrite.book(this.#now, ready, service);
    progress.bytes = begun + bytes;
    if (progress.bytes < len) return false;
    progress.bytes = 0;
    progress.waiter = null;
    if (waiter === null) this.#due.at(command, done + this.#p.hostWrite);
    else this.#awaitUnits(waiter, done);
    return true;
  }

  /** When the firmware is done with its part. */
  #firmwareWrite(command: TimedCommand): number {
    const p = this.#p;
    const per4k = p.firmwareWritePer4k * Math.ceil(command.len / KiB4);
    if (command.opcode === NVME_CMD_ZONE_APPEND) {
      // Where the data go is decided for one append after the other.
      const start = Math.max(this.#fetch(), this.#appendFree);
      this.#appendFree = start + p.appendService;
      return start + p.firmwareAppend + per4k +
        (command.opened ? p.openedByAppend : 0) +
        (this.#appendJitter?.sample() ?? 0);
    }
    const start = command.opcode === NVME_CMD_COPY
      ? this.#readAll(command.ranges)
      : this.#fetch();
    return start + p.firmwareWrite + per4k +
      (command.opened ? p.openedByWrite : 0) +
      (this.#writeJitter?.sample() ?? 0);
  }

  #readAll(ranges: Float64Array | null): number {
    const ready = this.#fetch() + this.#p.firmwareRead;
    let done = ready;
    for (let i = 0; ranges !== null && i < ranges.length; i += 2) {
      done = Math.max(done, this.#read(ready, ranges[i]!, ranges[i + 1]!));
    }
    return done;
  }

  /** Conventional zones are written in any order, and cost the same. */
  #zoneOf({ zone, at }: TimedCommand): number {
    return zone >= 0 ? zone : Math.floor(at / this.#zones.zoneSize);
  }

  #bufferOf(zone: number): ZoneBuffer {
    let buffer = this.#buffers.get(zone);
    if (buffer === undefined) {
      const { flash, zoneBuffer } = this.#p;
      buffer = new ZoneBuffer(
        this.#zones.written(zone),
        flash.oneShot,
        zoneBuffer,
      );
      this.#buffers.set(zone, buffer);
    }
    return buffer;
  }

  /** Fills units; each that is full is programmed. */
  #fill(
    zone: number,
    buffer: ZoneBuffer,
    bytes: number,
    waiter: Waiter | null,
  ): void {
    const { oneShot } = this.#p.flash;
    buffer.room -= bytes;
    for (let left = bytes; left > 0;) {
      const op = buffer.open ??= this.#newUnit(zone, buffer);
      if (waiter !== null && op.waiters.at(-1) !== waiter) {
        op.waiters.push(waiter);
        waiter.left++;
      }
      const n = Math.min(left, oneShot - buffer.fill);
      op.held += n;
      buffer.fill += n;
      left -= n;
      if (buffer.fill === oneShot) this.#program(buffer);
    }
  }

  #newUnit(zone: number, buffer: ZoneBuffer): DieOp {
    const { flash } = this.#p;
    const die = this.#dieOf(zone, buffer.unit);
    const op = this.#dies.newOp(die, flash.program);
    op.bytes = flash.oneShot;
    op.unit = buffer.unit;
    this.#ops.set(op, buffer);
    return op;
  }

  #program(buffer: ZoneBuffer): void {
    const op = buffer.open!;
    buffer.open = null;
    buffer.unit++;
    buffer.fill = 0;
    this.#dies.enqueue(op, this.#now);
  }

  /** Completes a command when the units that it waits for are programmed. */
  #awaitUnits(waiter: Waiter, otherwise: number): void {
    if (waiter.left === 0) {
      this.#due.at(waiter.command!, otherwise + this.#p.hostWrite);
      return;
    }
    this.#dies.hold();
    for (const buffer of this.#buffers.values()) {
      if (buffer.open?.waiters.includes(waiter)) this.#programPart(buffer);
    }
  }

  /** Programs a unit that is not full: what is added to it later is programmed again. */
  #programPart(buffer: ZoneBuffer): void {
    const op = buffer.open!;
    buffer.open = null;
    op.unit = -1;
    this.#dies.enqueue(op, this.#now);
  }

  #flush(command: TimedCommand): void {
    const done = this.#fetch() + this.#p.firmwareWrite;
    const waiter = new Waiter(command);
    if (!this.#p.powerLossProtected) {
      for (const op of this.#ops.keys()) {
        op.waiters.push(waiter);
        waiter.left++;
      }
    }
    this.#awaitUnits(waiter, done);
  }

  /** What zone management takes, host and all. */
  #manage(command: TimedCommand): number {
    const { zone, action } = command;
    const times = this.#p.zone;
    switch (action) {
      case NVME_ZONE_OPEN:
        return times.open;
      case NVME_ZONE_CLOSE:
        return this.#buffers.get(zone)?.open ? times.closeWritten : times.close;
      case NVME_ZONE_FINISH:
        return this.#finish(zone);
      case NVME_ZONE_RESET:
        return this.#reset(zone);
      default:
        return times.close;
    }
  }

  #finish(zone: number): number {
    const { finish, finishEmpty, finishPer4k } = this.#p.zone;
    if (zone < 0) return finish;
    this.#dropOpen(zone);
    const written = this.#zones.written(zone);
    if (written === 0) return finishEmpty;
    const left = Math.max(0, this.#zones.zoneCapacity - written);
    return finish + Math.round(finishPer4k * left / KiB4);
  }

  #reset(zone: number): number {
    const { reset, resetFinished, resetFinishedWritten } = this.#p.zone;
    if (zone < 0) {
      for (const other of [...this.#buffers.keys()]) this.#dropOpen(other);
      return reset.at(-1)![1];
    }
    this.#dropOpen(zone);
    const share = this.#zones.written(zone) / this.#zones.zoneCapacity;
    return Math.round(
      this.#zones.finished(zone)
        ? resetFinished + resetFinishedWritten * share
        : interpolate(reset, share),
    );
  }

  /** The zone's buffer is not filled any more. */
  #dropOpen(zone: number): void {
    const buffer = this.#buffers.get(zone);
    if (buffer === undefined) return;
    this.#buffers.delete(zone);
    if (buffer.open !== null) this.#programPart(buffer);
  }

  /** See {@linkcode DieOwner.opDone}. */
  opDone(op: DieOp, time: number): void {
    this.#now = time;
    const buffer = this.#ops.get(op)!;
    this.#ops.delete(op);
    buffer.room += op.held;
    buffer.first = Math.max(buffer.first, op.unit + 1);
    for (const waiter of op.waiters) this.#unitDone(waiter);
    this.#intake.room();
  }

  #unitDone(waiter: Waiter): void {
    if (--waiter.left > 0 || waiter.command === null) return;
    this.#dies.unhold();
    this.#due.at(waiter.command, this.#now + this.#p.hostWrite);
  }

  /** There is nothing to be done while idle. */
  wake(_time: number): void {}
}

/** Value at `x` of a function that is linear between the points of a table. */
function interpolate(
  table: readonly (readonly [number, number])[],
  x: number,
): number {
  const above = table.findIndex(([at]) => at > x);
  if (above === 0) return table[0]![1];
  if (above < 0) return table.at(-1)![1];
  const [x0, y0] = table[above - 1]!;
  const [x1, y1] = table[above]!;
  return y0 + (y1 - y0) * (x - x0) / (x1 - x0);
}
