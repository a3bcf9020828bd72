/**
 * I/O commands: what each one checks, and what it does.
 *
 * Checks that need nothing but the command come first, when it is decoded; then
 * those against the state of zones, when it is consumed; data moves when its time
 * has come, all at once: commands that overlap in time see each other whole or not
 * at all. What a flush makes durable is settled when it is consumed: writes that
 * complete while it runs are not covered.
 *
 * Validation errors carry DNR, errors of the media do not.
 *
 * @module
 */

import { type Clock, USEC } from "../../lib/clock.ts";
import type { Command } from "./command.ts";
import { getU64 } from "./identify.ts";
import type { Namespace } from "./namespace.ts";
import {
  NVME_CMD_COMPARE,
  NVME_CMD_COPY,
  NVME_CMD_DSM,
  NVME_CMD_FLUSH,
  NVME_CMD_READ,
  NVME_CMD_VERIFY,
  NVME_CMD_WRITE,
  NVME_CMD_WRITE_UNCOR,
  NVME_CMD_WRITE_ZEROES,
  NVME_CMD_ZONE_APPEND,
  NVME_CMD_ZONE_MGMT_RECV,
  NVME_CMD_ZONE_MGMT_SEND,
  NVME_COPY_RANGE_SIZE,
  NVME_DSM_RANGE_SIZE,
  NVME_DSMGMT_AD,
  NVME_NSID,
  NVME_NSID_ALL,
  NVME_RW_FUA,
  NVME_SC_ATOMIC_UNIT_EXCEEDED,
  NVME_SC_CMD_SIZE_LIM_EXCEEDED,
  NVME_SC_DATA_XFER_ERROR,
  NVME_SC_FUSED_FAIL,
  NVME_SC_INVALID_FIELD,
  NVME_SC_INVALID_NS,
  NVME_SC_INVALID_OPCODE,
  NVME_SC_LBA_RANGE,
  NVME_SC_NS_WRITE_PROTECTED,
  NVME_SC_SUCCESS,
  NVME_SC_UNWRITTEN_BLOCK,
  NVME_SC_ZONE_INVALID_TRANSITION,
  NVME_STATUS_DNR,
  NVME_WZ_DEAC,
  NVME_ZONE_SELECT_ALL,
} from "./nvme.ts";
import {
  bufferMemory,
  type HostMemory,
  readMemory,
  writeMemory,
} from "./queue.ts";
import { type CommandSet, type Queues, UNDER_WAY } from "./queues.ts";
import type { Timing } from "./timing.ts";

/** Zone Management Receive: the report, and the extended one. */
const ZRA_REPORT = 0;
/** Its flag: the number of zones is that of those returned. */
const ZRA_PARTIAL = 1 << 16;
/** Largest report that is put together, where transfers have no limit, bytes. */
const MAX_REPORT = 2 ** 24;

/** The command set of I/O queues. */
export class IoCommands implements CommandSet {
  readonly #clock: Clock;
  readonly #queues: Queues;
  readonly #ns: Namespace;
  #timing: Timing | null = null;
  /** Write commands to come before `#stop` is called; 0 for never. */
  #writesLeft = 0;
  #stop: () => boolean = () => false;

  /**
   * Commands to a namespace.
   *
   * @param clock Time.
   * @param queues Where they end.
   * @param ns The namespace.
   */
  constructor(clock: Clock, queues: Queues, ns: Namespace) {
    this.#clock = clock;
    this.#queues = queues;
    this.#ns = ns;
  }

  /** Says how long they take; at once if null. */
  set timing(timing: Timing | null) {
    this.#timing = timing;
  }

  decode(command: Command, ring: Uint32Array, at: number): number {
    command.at = 0;
    command.len = 0;
    command.fua = false;
    command.stamp = 0;
    command.zone = -1;
    command.opened = false;
    command.action = 0;
    const status = this.#decode(command, ring, at);
    return status === NVME_SC_SUCCESS ? status : status | NVME_STATUS_DNR;
  }

  start(command: Command): number {
    const status = this.#begin(command);
    if (status !== NVME_SC_SUCCESS) return status | NVME_STATUS_DNR;
    if (this.#fetched(command)) return UNDER_WAY;
    const timing = this.#timing;
    if (timing === null) return this.#carryOut(command);
    timing.start(command, this.#clock.now());
    return UNDER_WAY;
  }

  /**
   * Calls `stop` when the `count`-th write command from now on is under way; 0 for
   * never. See {@linkcode Queues.stopAt}.
   */
  afterWrites(count: number, stop: () => boolean): void {
    this.#writesLeft = count;
    this.#stop = stop;
  }

  /** A command is under way. @returns Whether the power has gone: its record may be
   * another command's. */
  #fetched({ opcode }: Command): boolean {
    const counts = this.#writesLeft > 0 && isWrite(opcode);
    if (this.#queues.note()) return true;
    return counts && --this.#writesLeft === 0 && this.#stop();
  }

  startFused(first: Command): number {
    const write = first.partner!;
    const invalid = this.#checkFused(first, write);
    if (invalid !== NVME_SC_SUCCESS) return invalid | NVME_STATUS_DNR;
    let status = this.#begin(first);
    if (status !== NVME_SC_SUCCESS) return status | NVME_STATUS_DNR;
    status = this.#begin(write);
    if (status !== NVME_SC_SUCCESS) {
      const failed = status | NVME_STATUS_DNR;
      this.#queues.endPair(first, NVME_SC_FUSED_FAIL, write, failed);
    } else if (this.#fetched(write)) return UNDER_WAY;
    else if (this.#timing === null) this.#carryOutFused(write);
    else this.#timing.start(first, this.#clock.now());
    return UNDER_WAY;
  }

  abort(command: Command): void {
    const known = this.#timing !== null && this.#timing.abort(command);
    if (!known) this.#clock.cancel(command.event);
    const { zones } = this.#ns;
    if (isZoneWrite(command)) zones!.completeWrite(command, false);
  }

  /** A command's time has come. */
  complete(command: Command): void {
    if (command.partner !== null) return this.#completeFused(command);
    const status = this.#carryOut(command);
    if (status !== UNDER_WAY) this.#queues.end(command, status);
  }

  #decode(command: Command, ring: Uint32Array, at: number): number {
    const ns = this.#ns;
    const { opcode, nsid } = command;
    if (nsid !== NVME_NSID) {
      return nsid === NVME_NSID_ALL && opcode === NVME_CMD_FLUSH
        ? NVME_SC_SUCCESS
        : NVME_SC_INVALID_NS;
    }
    switch (opcode) {
      case NVME_CMD_READ:
      case NVME_CMD_COMPARE:
        return this.#range(command, ring, at, ns.maxTransfer);
      case NVME_CMD_WRITE:
        return this.#writeRange(command, ring, at, ns.maxTransfer);
      case NVME_CMD_FLUSH:
        return NVME_SC_SUCCESS;
      case NVME_CMD_WRITE_ZEROES:
        return this.#writeRange(command, ring, at, ns.maxZeroes);
      case NVME_CMD_WRITE_UNCOR:
        return this.#writeRange(command, ring, at, ns.maxUncorrectable);
      case NVME_CMD_VERIFY:
        return this.#range(command, ring, at, ns.maxVerify);
      case NVME_CMD_DSM:
        return this.#decodeDsm(command, ring, at);
      case NVME_CMD_COPY:
        return this.#decodeCopy(command, ring, at);
    }
    return ns.zones === null
      ? NVME_SC_INVALID_OPCODE
      : this.#decodeZoned(command, ring, at);
  }

  /** First block, number of blocks, FUA. */
  #range(
    command: Command,
    ring: Uint32Array,
    at: number,
    max: number,
  ): number {
    const ns = this.#ns;
    const slba = ring[at + 11]! * 2 ** 32 + ring[at + 10]!;
    const flags = ring[at + 12]!;
    const blocks = (flags & 0xffff) + 1;
    const len = blocks * ns.blockSize;
    if (len > max) return NVME_SC_INVALID_FIELD;
    if (slba > ns.blocks - blocks) return NVME_SC_LBA_RANGE;
    command.at = slba * ns.blockSize;
    command.len = len;
    command.fua = (flags & NVME_RW_FUA) !== 0;
    return NVME_SC_SUCCESS;
  }

  #writeRange(
    command: Command,
    ring: Uint32Array,
    at: number,
    max: number,
  ): number {
    const ns = this.#ns;
    const status = this.#range(command, ring, at, max);
    if (status !== NVME_SC_SUCCESS) return status;
    if (ns.writeProtected) return NVME_SC_NS_WRITE_PROTECTED;
    // Without the cache in use, every write is done when it is on the media.
    if (ns.writesThrough) command.fua = true;
    if (command.opcode === NVME_CMD_WRITE_ZEROES) {
      command.action = ring[at + 12]! & NVME_WZ_DEAC;
    }
    return NVME_SC_SUCCESS;
  }

  #decodeDsm(command: Command, ring: Uint32Array, at: number): number {
    const ns = this.#ns;
    const count = (ring[at + 10]! & 0xff) + 1;
    const view = readRanges(command, count, NVME_DSM_RANGE_SIZE);
    if (view === null) return NVME_SC_DATA_XFER_ERROR;
    const deallocates = (ring[at + 11]! & NVME_DSMGMT_AD) !== 0;
    if (deallocates && ns.writeProtected) return NVME_SC_NS_WRITE_PROTECTED;
    const ranges = new Float64Array(2 * count);
    for (let i = 0; i < count; i++) {
      const blocks = view.getUint32(i * NVME_DSM_RANGE_SIZE + 4, true);
      const slba = getU64(view, i * NVME_DSM_RANGE_SIZE + 8);
      if (slba > ns.blocks - blocks) return NVME_SC_LBA_RANGE;
      ranges[2 * i] = slba * ns.blockSize;
      ranges[2 * i + 1] = blocks * ns.blockSize;
    }
    // What is only a hint on how data is used changes nothing here.
    command.ranges = deallocates ? ranges : null;
    return NVME_SC_SUCCESS;
  }

  #decodeCopy(command: Command, ring: Uint32Array, at: number): number {
    const ns = this.#ns;
    const flags = ring[at + 12]!;
    const count = (flags & 0xff) + 1;
    if ((flags >>> 8 & 0xf) !== 0) return NVME_SC_INVALID_FIELD;
    if (count - 1 > ns.identity.msrc) return NVME_SC_CMD_SIZE_LIM_EXCEEDED;
    const view = readRanges(command, count, NVME_COPY_RANGE_SIZE);
    if (view === null) return NVME_SC_DATA_XFER_ERROR;
    const ranges = new Float64Array(2 * count);
    let total = 0;
    for (let i = 0; i < count; i++) {
      const slba = getU64(view, i * NVME_COPY_RANGE_SIZE + 8);
      const blocks = view.getUint16(i * NVME_COPY_RANGE_SIZE + 16, true) + 1;
      if (blocks > ns.identity.mssrl) return NVME_SC_CMD_SIZE_LIM_EXCEEDED;
      if (slba > ns.blocks - blocks) return NVME_SC_LBA_RANGE;
      ranges[2 * i] = slba * ns.blockSize;
      ranges[2 * i + 1] = blocks * ns.blockSize;
      total += blocks;
    }
    if (total > ns.identity.mcl) return NVME_SC_CMD_SIZE_LIM_EXCEEDED;
    const sdlba = ring[at + 11]! * 2 ** 32 + ring[at + 10]!;
    if (sdlba > ns.blocks - total) return NVME_SC_LBA_RANGE;
    if (ns.writeProtected) return NVME_SC_NS_WRITE_PROTECTED;
    command.ranges = ranges;
    command.at = sdlba * ns.blockSize;
    command.len = total * ns.blockSize;
    command.fua = (flags & NVME_RW_FUA) !== 0 || ns.writesThrough;
    return NVME_SC_SUCCESS;
  }

  #decodeZoned(command: Command, ring: Uint32Array, at: number): number {
    const ns = this.#ns;
    switch (command.opcode) {
      case NVME_CMD_ZONE_APPEND:
        if (ns.zones!.options.append === false) break;
        return this.#writeRange(command, ring, at, ns.maxTransfer);
      case NVME_CMD_ZONE_MGMT_SEND:
        return this.#decodeZoneSend(command, ring, at);
      case NVME_CMD_ZONE_MGMT_RECV:
        return this.#decodeZoneReceive(command, ring, at);
    }
    return NVME_SC_INVALID_OPCODE;
  }

  #decodeZoneReceive(command: Command, ring: Uint32Array, at: number): number {
    const ns = this.#ns;
    const slba = ring[at + 11]! * 2 ** 32 + ring[at + 10]!;
    command.action = ring[at + 13]!;
    command.len = (ring[at + 12]! + 1) * 4;
    const isReport = (command.action & 0xff) === ZRA_REPORT;
    const max = Math.min(ns.maxTransfer, MAX_REPORT);
    if (!isReport || command.len > max) return NVME_SC_INVALID_FIELD;
    if (slba >= ns.blocks) return NVME_SC_LBA_RANGE;
    command.at = slba * ns.blockSize;
    return NVME_SC_SUCCESS;
  }

  #decodeZoneSend(command: Command, ring: Uint32Array, at: number): number {
    const ns = this.#ns;
    const zones = ns.zones!;
    const slba = ring[at + 11]! * 2 ** 32 + ring[at + 10]!;
    const all = (ring[at + 13]! & NVME_ZONE_SELECT_ALL) !== 0;
    command.action = ring[at + 13]! & 0xff;
    command.at = all ? 0 : slba * ns.blockSize;
    const status = zones.checkManage(command.at, command.action, all);
    if (status !== NVME_SC_SUCCESS) return status;
    if (ns.writeProtected) return NVME_SC_NS_WRITE_PROTECTED;
    command.zone = all ? -1 : zones.zoneOf(command.at);
    return NVME_SC_SUCCESS;
  }

  #checkFused(first: Command, write: Command): number {
    const isPair = first.opcode === NVME_CMD_COMPARE &&
      write.opcode === NVME_CMD_WRITE && first.at === write.at &&
      first.len === write.len;
    if (!isPair) return NVME_SC_INVALID_FIELD;
    return first.len > this.#ns.compareAndWriteUnit
      ? NVME_SC_ATOMIC_UNIT_EXCEEDED
      : NVME_SC_SUCCESS;
  }

  /** Checks a command against the zones; it takes its place in their order and in
   * that of writes. */
  #begin(command: Command): number {
    const { zones, store } = this.#ns;
    let status = NVME_SC_SUCCESS;
    switch (command.opcode) {
      case NVME_CMD_READ:
      case NVME_CMD_COMPARE:
      case NVME_CMD_VERIFY:
        return zones === null
          ? NVME_SC_SUCCESS
          : zones.checkRead(command.at, command.len);
      case NVME_CMD_ZONE_MGMT_RECV:
        return NVME_SC_SUCCESS;
      case NVME_CMD_WRITE:
      case NVME_CMD_WRITE_ZEROES:
      case NVME_CMD_WRITE_UNCOR:
        if (zones !== null) status = zones.submitWrite(command);
        break;
      case NVME_CMD_ZONE_APPEND:
        status = zones!.submitAppend(command);
        break;
      case NVME_CMD_COPY:
        status = this.#beginCopy(command);
        break;
    }
    if (status === NVME_SC_SUCCESS) command.stamp = store.begin();
    return status;
  }

  #beginCopy(command: Command): number {
    const { zones } = this.#ns;
    if (zones === null) return NVME_SC_SUCCESS;
    const ranges = command.ranges!;
    for (let i = 0; i < ranges.length; i += 2) {
      const status = zones.checkRead(ranges[i]!, ranges[i + 1]!);
      if (status !== NVME_SC_SUCCESS) return status;
    }
    return zones.submitWrite(command);
  }

  /**
   * Does what a command is for.
   *
   * @returns A status, or {@linkcode UNDER_WAY} if it takes longer, or for ever.
   */
  #carryOut(command: Command): number {
    const { faults, zones } = this.#ns;
    let status = faults.strikes ? faults.strike(command) : NVME_SC_SUCCESS;
    if (zones === null || !isZoneWrite(command)) {
      return status === NVME_SC_SUCCESS ? this.#move(command) : status;
    }
    if (status === NVME_SC_SUCCESS) {
      const lost = zones.checkWrite(command);
      status = lost === NVME_SC_SUCCESS
        ? this.#move(command)
        : lost | NVME_STATUS_DNR;
    }
    if (status !== UNDER_WAY) {
      zones.completeWrite(command, status === NVME_SC_SUCCESS);
    }
    return status;
  }

  /** Moves data, or does whatever else it is about. */
  #move(command: Command): number {
    const ns = this.#ns;
    const { store, health } = ns;
    const { at, len } = command;
    switch (command.opcode) {
      case NVME_CMD_READ:
        health.countRead(len);
        return this.#read(command);
      case NVME_CMD_WRITE:
        health.countWrite(len);
        return ns.tears(command) ? this.#tear(command) : this.#write(command);
      case NVME_CMD_FLUSH:
        return store.flush(command.stamp);
      case NVME_CMD_ZONE_APPEND:
        health.countWrite(len);
        command.result = at / ns.blockSize;
        return this.#write(command);
      case NVME_CMD_WRITE_ZEROES:
        return this.#writeZeroes(command);
      case NVME_CMD_WRITE_UNCOR:
        return ns.wrote(at, len, store.uncorrectable(command));
      case NVME_CMD_COMPARE:
        health.countRead(len);
        return ns.isUnwritten(at, len)
          ? NVME_SC_UNWRITTEN_BLOCK
          : store.compare(at, len, memoryOf(command));
      case NVME_CMD_VERIFY:
        return ns.isUnwritten(at, len)
          ? NVME_SC_UNWRITTEN_BLOCK
          : store.verify(at, len);
      case NVME_CMD_DSM:
        return this.#deallocate(command);
      case NVME_CMD_COPY:
        return this.#copy(command);
      case NVME_CMD_ZONE_MGMT_SEND:
        return this.#manageZones(command);
      default:
        return this.#reportZones(command);
    }
  }

  #read(command: Command): number {
    const ns = this.#ns;
    if (ns.isUnwritten(command.at, command.len)) {
      return NVME_SC_UNWRITTEN_BLOCK;
    }
    return ns.store.read(command, memoryOf(command));
  }

  #write(command: Command): number {
    const ns = this.#ns;
    const status = ns.store.write(command, memoryOf(command));
    return ns.wrote(command.at, command.len, status);
  }

  #writeZeroes(command: Command): number {
    const ns = this.#ns;
    const { at, len, action } = command;
    const status = ns.store.zero(command, at, len);
    return action === NVME_WZ_DEAC && ns.zones === null
      ? ns.deallocated(at, len, status)
      : ns.wrote(at, len, status);
  }

  #deallocate(command: Command): number {
    const ns = this.#ns;
    const { ranges } = command;
    if (ranges === null) return NVME_SC_SUCCESS;
    for (let i = 0; i < ranges.length; i += 2) {
      const at = ranges[i]!;
      const len = ranges[i + 1]!;
      // Advisory: a sequential zone keeps its blocks until it is reset.
      if (len === 0 || this.#isSequential(at + len - 1)) continue;
      const status = ns.store.zero(command, at, len);
      ns.deallocated(at, len, status);
      if (status !== NVME_SC_SUCCESS) return status;
    }
    return NVME_SC_SUCCESS;
  }

  /** Whether a byte lies in a sequential zone; conventional ones come first. */
  #isSequential(at: number): boolean {
    const { zones } = this.#ns;
    return zones !== null && zones.zoneOf(at) >= zones.options.conventional;
  }

  /** Reads all sources before it writes: they may overlap the destination. */
  #copy(command: Command): number {
    const ns = this.#ns;
    const ranges = command.ranges!;
    const data = new Uint8Array(command.len);
    let done = 0;
    for (let i = 0; i < ranges.length; i += 2) {
      const len = ranges[i + 1]!;
      const piece = data.subarray(done, done + len);
      const status = ns.isUnwritten(ranges[i]!, len)
        ? NVME_SC_UNWRITTEN_BLOCK
        : ns.store.readInto(ranges[i]!, piece);
      // The range that could not be copied.
      command.result = i / 2;
      if (status !== NVME_SC_SUCCESS) return status;
      done += len;
    }
    command.result = ranges.length / 2;
    ns.health.countRead(done);
    ns.health.countWrite(done);
    const status = ns.store.write(command, bufferMemory(data));
    return ns.wrote(command.at, command.len, status);
  }

  #manageZones({ zone, action }: Command): number {
    const status = this.#ns.manageZone(zone, action, zone < 0);
    // Limits may allow it later.
    return status === NVME_SC_ZONE_INVALID_TRANSITION
      ? status | NVME_STATUS_DNR
      : status;
  }

  #reportZones(command: Command): number {
    const { at, len, action } = command;
    const data = new Uint8Array(len);
    const partial = (action & ZRA_PARTIAL) !== 0;
    const filter = action >>> 8 & 0xff;
    const status = this.#ns.zones!.report(at, filter, partial, data);
    if (status !== NVME_SC_SUCCESS) return status | NVME_STATUS_DNR;
    return writeMemory(memoryOf(command), data)
      ? NVME_SC_SUCCESS
      : NVME_SC_DATA_XFER_ERROR;
  }

  /** The halves of a fused pair: first the time of the compare, then that of the
   * write; then both are carried out at once. */
  #completeFused(command: Command): void {
    if (command.opcode === NVME_CMD_WRITE) return this.#carryOutFused(command);
    command.event = 0;
    this.#timing!.start(command.partner!, this.#clock.now());
  }

  #carryOutFused(write: Command): void {
    const queues = this.#queues;
    const first = write.partner!;
    const compared = this.#carryOut(first);
    if (compared === UNDER_WAY) return;
    if (compared !== NVME_SC_SUCCESS) {
      if (isZoneWrite(write)) this.#ns.zones!.completeWrite(write, false);
      return queues.endPair(first, compared, write, NVME_SC_FUSED_FAIL);
    }
    const written = this.#carryOut(write);
    if (written === UNDER_WAY) queues.end(first, NVME_SC_SUCCESS);
    else queues.endPair(first, NVME_SC_SUCCESS, write, written);
  }

  /** Lets a write land piece by piece, so that others can see it torn. */
  #tear(command: Command): number {
    command.landed = 0;
    const status = this.#land(command);
    if (status === UNDER_WAY) this.#queues.note();
    return status;
  }

  #land(command: Command): number {
    const ns = this.#ns;
    const { at, landed, len } = command;
    const n = ns.nextPiece(command);
    const piece = new Uint8Array(landed + n);
    if (!readMemory(memoryOf(command), piece)) return NVME_SC_DATA_XFER_ERROR;
    const data = bufferMemory(piece.subarray(landed));
    const { opcode, fua, stamp, zone, opened, epoch, action } = command;
    const status = ns.store.write({
      opcode,
      at: at + landed,
      len: n,
      fua,
      stamp,
      zone,
      opened,
      epoch,
      action,
      ranges: null,
      memory: data,
      partner: null,
    }, data);
    if (status !== NVME_SC_SUCCESS) return status;
    ns.wrote(at + landed, n, status);
    command.landed += n;
    if (command.landed === len) return NVME_SC_SUCCESS;
    const next = this.#clock.now() + TEAR_STEP;
    command.event = this.#clock.at(next, this.#landMore, command);
    return UNDER_WAY;
  }

  readonly #landMore = (command: Command): void => {
    command.event = 0;
    const { zones } = this.#ns;
    // Nothing lands in a zone that has been emptied meanwhile.
    let status = zones === null ? NVME_SC_SUCCESS : zones.checkWrite(command);
    if (status === NVME_SC_SUCCESS) status = this.#land(command);
    if (status === UNDER_WAY) {
      this.#queues.note();
      return;
    }
    if (zones !== null && isZoneWrite(command)) {
      zones.completeWrite(command, status === NVME_SC_SUCCESS);
    }
    this.#queues.end(command, status);
  };
}

/** Nanoseconds between two pieces of a write that lands piece by piece. */
const TEAR_STEP = 1 * USEC;

/** The host's memory of a command; null if there is none. */
function memoryOf(command: Command): HostMemory | null {
  const { memory } = command;
  return memory === null || !("vecs" in memory) ? null : memory;
}

/** Whether a command writes blocks. */
function isWrite(opcode: number): boolean {
  return opcode === NVME_CMD_WRITE || opcode === NVME_CMD_WRITE_ZEROES ||
    opcode === NVME_CMD_ZONE_APPEND || opcode === NVME_CMD_COPY;
}

/** Whether a command has a place in a zone, which it must give up in the end. */
function isZoneWrite(command: Command): boolean {
  return command.zone >= 0 && command.opcode !== NVME_CMD_ZONE_MGMT_SEND;
}

/** Reads the list of ranges that a command points to; null if it is not there. */
function readRanges(
  command: Command,
  count: number,
  size: number,
): DataView | null {
  const data = new Uint8Array(count * size);
  return readMemory(memoryOf(command), data) ? new DataView(data.buffer) : null;
}
