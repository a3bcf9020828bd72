/**
 * Timing of a flash device: firmware, translation, dies, channels, PCIe, write
 * buffer, garbage collection, fast region.
 *
 * A read's parts are booked when it comes, and the end of the last is its time. A
 * write is done when it is in the buffer; units of the buffer are programmed as
 * the dies get to them, and a unit's room comes back when its program ends. A write
 * that finds no room is left in its queue, and what comes after it too.
 *
 * @module
 */

import { SEC } from "../../lib/clock.ts";
import { EINVAL, FsError } from "../../lib/errno.ts";
import { DieArray, type DieOp, type DieOwner, type DieParams } from "./dies.ts";
import { Ftl, type FtlOwner, HOST_STREAM } from "./ftl.ts";
import { Lane, transferTime } from "./lane.ts";
import {
  NVME_CMD_COMPARE,
  NVME_CMD_COPY,
  NVME_CMD_DSM,
  NVME_CMD_FLUSH,
  NVME_CMD_READ,
  NVME_CMD_VERIFY,
  NVME_CMD_WRITE,
  NVME_CMD_WRITE_ZEROES,
  NVME_CMD_ZONE_APPEND,
  NVME_CMD_ZONE_MGMT_SEND,
  NVME_ZONE_RESET,
} from "./nvme.ts";
import { Due, Intake, type Progress, Waiter } from "./pending.ts";
import type { TimedCommand, Timing, TimingContext } from "./timing.ts";

const KiB4 = 4096;
/** Largest device: what the map can hold. */
const MAX_SIZE = 2 ** 46;
/** The fast region is folded when it has not been written to for so long. */
const FOLD_AFTER = 1 * SEC;

/** Moves that an idle device has under way, so that no die waits for another. */
const FOLDS_PER_DIE = 8;

/** How flash is read and programmed in one of its modes. */
export interface FlashMode {
  /** Array read of up to 4 KiB, by page type in turn (LSB, MSB, ...), nanoseconds. */
  read4k: readonly number[];
  /** Array read of a whole flash page, by page type, nanoseconds. */
  read: readonly number[];
  /** Program of one shot, nanoseconds. */
  program: number;
  /** Bytes that one program of one die stores, over its planes and bits. */
  oneShot: number;
}

/** A flash device with a page map. */
export interface FlashParams extends DieParams {
  /** Which model: `flash.ts`. */
  kind: "flash";
  /** What host and driver take for a command, nanoseconds. */
  host: number;
  /** Firmware's part of a read of up to 4 KiB, nanoseconds. */
  firmwareRead4k: number;
  /** Firmware's part of a larger read, nanoseconds. */
  firmwareRead: number;
  /** Firmware's part of a write, nanoseconds. */
  firmwareWrite: number;
  /** And for every 4 KiB of it. */
  firmwareWritePer4k: number;
  /** Most commands a second, thousands; 0 if the firmware is no bottleneck. */
  firmwareKiops: number;
  /** Bytes that one read of the array yields: a page of each of the die's planes. */
  page: number;
  /** Megabytes a second to the host. */
  pcieReadMBps: number;
  /** Megabytes a second from the host. */
  pcieWriteMBps: number;
  /** The dies. */
  flash: FlashMode;
  /** Erase of a block of one die, nanoseconds. */
  erase: number;
  /** Bytes of that block. */
  eraseBlock: number;
  /** Flash beyond the device's size, as a share of it. */
  overProvisioning: number;
  /** Bytes of writes that wait for a program. */
  writeBuffer: number;
  /** What is in the buffer survives a loss of power: flush and FUA need not wait. */
  powerLossProtected: boolean;
  /** The fast mode in which data is written while there is room for it. */
  slc?: FastRegion;
}

/** A region in a fast mode, which is folded into the slow one later. */
export interface FastRegion extends FlashMode {
  /** Its room is at least this share of the device ... */
  share: number;
  /** ... and at least this share of what is free. */
  ofFree: number;
  /** Bytes folded for each that the host writes while the region is full. */
  foldPerWrite: number;
}

/** A flash device at work. */
export class FlashTiming implements Timing, DieOwner, FtlOwner {
  readonly #p: FlashParams;
  readonly #ctx: TimingContext;
  readonly #dies: DieArray;
  readonly #ftl: Ftl;
  readonly #due: Due;
  readonly #intake: Intake;
  readonly #pcieRead = new Lane();
  readonly #pcieWrite = new Lane();
  readonly #perCommand: number;
  /** See {@linkcode Timing.firmwareFree}. */
  firmwareFree = 0;
  /** Bytes of the buffer that are free. */
  #room: number;
  /** The host's unit that is being filled. */
  #open: DieOp | null = null;
  /** Units in the buffer, by number; the latest where one is filled again. */
  readonly #buffered = new Map<number, DieOp>();
  /** All of them. */
  readonly #programs = new Set<DieOp>();
  /** Model time: of what happens now. */
  #now = 0;
  #eraseDebt = 0;
  #eraseDie = 0;
  #lastFast = 0;
  #lastCommand = 0;
  #foldDebt = 0;
  /** Operations under way that no command has asked for. */
  #moves = 0;

  /** @throws {FsError} EINVAL if the device is larger than its map can be. */
  constructor(params: FlashParams, ctx: TimingContext) {
    if (ctx.size > MAX_SIZE) {
      throw new FsError(EINVAL, `Cannot map ${ctx.size} bytes of flash`);
    }
    const { slc } = params;
    this.#p = params;
    this.#ctx = ctx;
    this.#dies = new DieArray(params, this, ctx.clock);
    this.#ftl = new Ftl({
      size: ctx.size,
      unit: params.flash.oneShot,
      fastUnit: slc?.oneShot ?? 0,
      overProvisioning: params.overProvisioning,
      fastShare: slc?.share ?? 0,
      fastOfFree: slc?.ofFree ?? 0,
    }, this);
    this.#due = new Due(ctx);
    if (!Number.isInteger(params.flash.oneShot / this.#ftl.pageBytes)) {
      throw new FsError(EINVAL, `Cannot map ${ctx.size} bytes in small units`);
    }
    this.#intake = new Intake(
      ctx,
      (command, progress) => this.#begin(command, progress),
      (on) => on ? this.#dies.hold() : this.#dies.unhold(),
    );
    this.#perCommand = params.firmwareKiops > 0
      ? Math.round(1e6 / params.firmwareKiops)
      : 0;
    this.#room = params.writeBuffer;
  }

  /** Pages that the host has written, and pages that collection has moved. */
  writes(): Float64Array {
    return this.#ftl.written;
  }

  /** See {@linkcode Timing.admits}. */
  admits({ opcode, qid }: TimedCommand, now: number): boolean {
    const fills = opcode === NVME_CMD_WRITE || opcode === NVME_CMD_COPY ||
      opcode === NVME_CMD_ZONE_APPEND;
    if (!fills && !this.#intake.waiting) return true;
    this.#dies.advance(now);
    const isFull = fills && this.#room < this.#ftl.pageBytes;
    return this.#intake.admits(qid, isFull);
  }

  /** See {@linkcode Timing.start}. */
  start(command: TimedCommand, now: number): void {
    this.#dies.advance(now);
    this.#now = now;
    this.#lastCommand = now;
    if (this.#ftl.canFold) this.#dies.wakeAt = now + FOLD_AFTER;
    this.#intake.start(command);
  }

  /** See {@linkcode Timing.abort}. */
  abort(command: TimedCommand): boolean {
    if (this.#due.abort(command) || this.#intake.abort(command)) return true;
    for (const op of this.#programs) {
      for (const waiter of op.waiters) {
        if (waiter.command !== command) continue;
        waiter.command = null;
        this.#dies.unhold();
        return true;
      }
    }
    return false;
  }

  /** See {@linkcode Timing.reset}. */
  reset(): void {
    this.#due.clear();
    this.#intake.clear();
    for (const op of this.#programs) op.waiters.length = 0;
    this.#dies.unholdAll();
  }

  /** Begins a command; false if it has to wait for room. */
  #begin(command: TimedCommand, progress: Progress): boolean {
    switch (command.opcode) {
      case NVME_CMD_READ:
      case NVME_CMD_COMPARE:
      case NVME_CMD_VERIFY:
        this.#end(command, this.#read(command.at, command.len));
        return true;
      case NVME_CMD_WRITE:
      case NVME_CMD_ZONE_APPEND:
        return this.#write(command, progress, 0);
      case NVME_CMD_COPY:
        return this.#copy(command, progress);
      case NVME_CMD_FLUSH:
        this.#flush(command);
        return true;
      case NVME_CMD_DSM:
      case NVME_CMD_WRITE_ZEROES:
        this.#deallocate(command);
        break;
      case NVME_CMD_ZONE_MGMT_SEND:
        if (command.action === NVME_ZONE_RESET) this.#emptyZone(command.zone);
    }
    this.#end(command, this.#fetch() + this.#p.firmwareWrite);
    return true;
  }

  #end(command: TimedCommand, time: number): void {
    this.#due.at(command, time + this.#p.host);
  }

  /** Has the firmware take a command; the time at which it begins with it. */
  #fetch(): number {
    const start = Math.max(this.#now, this.firmwareFree);
    this.firmwareFree = start + this.#perCommand;
    return start;
  }

  /** When all of a range is with the host. */
  #read(at: number, len: number): number {
    const p = this.#p;
    const ready = this.#fetch() +
      (len <= KiB4 ? p.firmwareRead4k : p.firmwareRead);
    const { pageBytes } = this.#ftl;
    const end = at + len;
    let done = ready;
    // Pages that one read of the array yields are read at once.
    let row = NaN;
    let bytes = 0;
    for (let pos = at; pos < end;) {
      const page = Math.floor(pos / pageBytes);
      const n = Math.min(end, (page + 1) * pageBytes) - pos;
      const next = this.#rowOf(page);
      if (next !== row && bytes > 0) {
        done = Math.max(done, this.#readRow(ready, row, bytes));
        bytes = 0;
      }
      row = next;
      bytes += n;
      pos += n;
    }
    return Math.max(done, this.#readRow(ready, row, bytes));
  }

  /**
   * Where a page is: a number for each read of the array that finds it, Infinity
   * if it is in the buffer. A page that was never written is read all the same,
   * from where a device would put it that has been written in order.
   */
  #rowOf(page: number): number {
    const ftl = this.#ftl;
    const { page: rowBytes } = this.#p;
    const slot = ftl.slotOf(page);
    if (slot < 0) {
      return -1 - Math.floor(page * ftl.pageBytes / rowBytes);
    }
    const unit = ftl.unitOf(slot);
    if (this.#buffered.size > 0 && this.#buffered.has(unit)) return Infinity;
    const rows = Math.max(1, this.#p.flash.oneShot / rowBytes);
    const inUnit = ftl.placeInUnit(slot) * ftl.pageBytes;
    return unit * rows + Math.floor(inUnit / rowBytes);
  }

  #readRow(ready: number, row: number, bytes: number): number {
    const p = this.#p;
    if (row === Infinity) {
      const service = transferTime(bytes, p.pcieReadMBps);
      return this.#pcieRead.book(this.#now, ready, service);
    }
    const rows = row < 0 ? 1 : Math.max(1, p.flash.oneShot / p.page);
    const unit = row < 0 ? -1 - row : Math.floor(row / rows);
    const mode = row >= 0 && p.slc !== undefined && this.#ftl.isFast(unit)
      ? p.slc
      : p.flash;
    const times = bytes <= KiB4 ? mode.read4k : mode.read;
    const type = times.length === 1
      ? 0
      : Math.floor(unit / this.#dies.count) % times.length;
    return this.#dies.read(
      this.#now,
      ready,
      unit % this.#dies.count,
      times[type]!,
      bytes,
      this.#pcieRead,
      p.pcieReadMBps,
    );
  }

  /**
   * Puts a write into the buffer, as far as there is room; whether all of it.
   *
   * @param from When its data are there, if that is not before it is sent.
   */
  #write(command: TimedCommand, progress: Progress, from: number): boolean {
    const p = this.#p;
    const { at, len } = command;
    const begun = progress.bytes;
    if (begun === 0 && command.fua && !p.powerLossProtected) {
      progress.waiter = new Waiter(command);
    }
    const { waiter } = progress;
    const pos = this.#fill(at + begun, at + len, waiter);
    progress.bytes = pos - at;
    if (progress.bytes === begun) return false;
    const ready = begun === 0 ? this.#fetchWrite(len) : this.#now;
    const service = transferTime(pos - at - begun, p.pcieWriteMBps);
    const start = Math.max(from, ready);
    const done = this.#pcieWrite.book(this.#now, start, service);
    if (pos < at + len) return false;
    progress.bytes = 0;
    progress.waiter = null;
    if (waiter === null) this.#end(command, done);
    else this.#awaitUnits(waiter, done);
    return true;
  }

  #fetchWrite(len: number): number {
    const { firmwareWrite, firmwareWritePer4k } = this.#p;
    return this.#fetch() + firmwareWrite +
      firmwareWritePer4k * Math.ceil(len / KiB4);
  }

  /** Puts pages into the buffer while there is room; up to where. */
  #fill(from: number, end: number, waiter: Waiter | null): number {
    const { pageBytes } = this.#ftl;
    let pos = from;
    while (pos < end) {
      const page = Math.floor(pos / pageBytes);
      if (!this.#put(page, waiter)) break;
      pos = Math.min(end, (page + 1) * pageBytes);
    }
    return pos;
  }

  /** Puts a page into the buffer; false if there is no room. */
  #put(page: number, waiter: Waiter | null): boolean {
    const { pageBytes } = this.#ftl;
    if (this.#room < pageBytes) return false;
    const unit = this.#ftl.hostUnit();
    const op = this.#open ??= this.#newUnit(unit);
    const slot = this.#ftl.slotOf(page);
    if (waiter !== null && op.waiters.at(-1) !== waiter) {
      op.waiters.push(waiter);
      waiter.left++;
    }
    // Written again before it was programmed: in its place.
    if (slot >= 0 && this.#ftl.unitOf(slot) === unit) return true;
    this.#room -= pageBytes;
    op.held += pageBytes;
    this.#ftl.write(page);
    return true;
  }

  #newUnit(unit: number): DieOp {
    const p = this.#p;
    const mode = p.slc !== undefined && this.#ftl.isFast(unit)
      ? p.slc
      : p.flash;
    const op = this.#dies.newOp(unit % this.#dies.count, mode.program);
    op.bytes = mode.oneShot;
    op.unit = unit;
    this.#buffered.set(unit, op);
    this.#programs.add(op);
    return op;
  }

  /** Completes a command when the units that it waits for are programmed. */
  #awaitUnits(waiter: Waiter, otherwise: number): void {
    if (this.#open !== null && this.#open.waiters.includes(waiter)) {
      this.#ftl.closeHostUnit();
    }
    if (waiter.left === 0) this.#end(waiter.command!, otherwise);
    else this.#dies.hold();
  }

  #copy(command: TimedCommand, progress: Progress): boolean {
    const { ranges } = command;
    // What is held up has been read by the time that there is room.
    if (progress.bytes > 0 || this.#room < this.#ftl.pageBytes) {
      return this.#write(command, progress, 0);
    }
    let read = 0;
    for (let i = 0; ranges !== null && i < ranges.length; i += 2) {
      read = Math.max(read, this.#read(ranges[i]!, ranges[i + 1]!));
    }
    return this.#write(command, progress, read);
  }

  #flush(command: TimedCommand): void {
    const done = this.#fetch() + this.#p.firmwareWrite;
    const waiter = new Waiter(command);
    if (!this.#p.powerLossProtected) {
      for (const op of this.#programs) {
        op.waiters.push(waiter);
        waiter.left++;
      }
    }
    this.#awaitUnits(waiter, done);
  }

  #deallocate(command: TimedCommand): void {
    const { at, len, ranges } = command;
    if (ranges === null) return this.#unmap(at, len);
    for (let i = 0; i < ranges.length; i += 2) {
      this.#unmap(ranges[i]!, ranges[i + 1]!);
    }
  }

  /** A zone has been emptied, or all of them: -1. */
  #emptyZone(zone: number): void {
    const { size, zones } = this.#ctx;
    if (zones === null || zone < 0) return this.#unmap(0, size);
    const at = zone * zones.zoneSize;
    this.#unmap(at, Math.min(zones.zoneSize, size - at));
  }

  /** Only whole pages can be forgotten. */
  #unmap(at: number, len: number): void {
    const { pageBytes } = this.#ftl;
    const first = Math.ceil(at / pageBytes);
    const end = at + len === this.#ctx.size
      ? Math.ceil((at + len) / pageBytes)
      : Math.floor((at + len) / pageBytes);
    if (end > first) this.#ftl.unmap(first, end - first);
  }

  /** A unit is full: the host's waits for its die, and what is moved does too. */
  unitFull(stream: number, unit: number): void {
    if (stream === HOST_STREAM) {
      const op = this.#open!;
      this.#open = null;
      this.#dies.enqueue(op, this.#now);
      if (this.#p.slc !== undefined) this.#wrote(unit);
      return;
    }
    const { flash } = this.#p;
    this.#move(unit % this.#dies.count, flash.program, flash.oneShot);
  }

  /** Has a die do something that no command has asked for. */
  #move(die: number, array: number, bytes: number): void {
    const op = this.#dies.newOp(die, array);
    op.bytes = bytes;
    this.#moves++;
    this.#dies.enqueue(op, this.#now);
  }

  /** Pages of a unit are moved: read, over the channel. */
  unitMoved(unit: number, slots: number): void {
    const p = this.#p;
    const mode = p.slc !== undefined && this.#ftl.isFast(unit)
      ? p.slc
      : p.flash;
    const bytes = slots * this.#ftl.pageBytes;
    const rows = Math.max(1, Math.min(slots, mode.oneShot / p.page));
    const array = mode.read[0]! * rows + transferTime(bytes, p.channelMBps);
    this.#move(unit % this.#dies.count, array, 0);
  }

  /** A block is free: its dies have been erased, as many of their blocks as it has. */
  erased(): void {
    const p = this.#p;
    if (p.erase === 0) return;
    this.#eraseDebt += this.#ftl.blockUnits * p.flash.oneShot;
    while (this.#eraseDebt >= p.eraseBlock) {
      this.#eraseDebt -= p.eraseBlock;
      this.#move(this.#eraseDie, p.erase, 0);
      this.#eraseDie = (this.#eraseDie + 1) % this.#dies.count;
    }
  }

  /** See {@linkcode DieOwner.opDone}. */
  opDone(op: DieOp, time: number): void {
    this.#now = time;
    if (op.unit >= 0) {
      this.#programs.delete(op);
      if (this.#buffered.get(op.unit) === op) this.#buffered.delete(op.unit);
      this.#room += op.held;
    } else this.#moves--;
    if (time - this.#lastCommand >= FOLD_AFTER) this.wake(time);
    for (const waiter of op.waiters) this.#unitDone(waiter);
    this.#intake.room();
  }

  #unitDone(waiter: Waiter): void {
    if (--waiter.left > 0 || waiter.command === null) return;
    this.#dies.unhold();
    this.#end(waiter.command, this.#now);
  }

  /** A unit of the host's was filled: the region folds while it is full. */
  #wrote(unit: number): void {
    const ftl = this.#ftl;
    if (ftl.isFast(unit)) this.#lastFast = this.#now;
    else if (this.#now - this.#lastFast >= FOLD_AFTER && ftl.canFold) {
      this.#foldDebt += ftl.slotsOf(unit) * this.#p.slc!.foldPerWrite;
      while (this.#foldDebt > 0 && ftl.canFold) this.#foldDebt -= ftl.fold();
    }
  }

  /** Nobody has sent a command for a while: folds with all dies. */
  wake(time: number): void {
    this.#now = time;
    const enough = FOLDS_PER_DIE * this.#dies.count;
    while (this.#moves < enough && this.#ftl.canFold) this.#ftl.fold();
  }
}
