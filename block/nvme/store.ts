/**
 * What the blocks hold: the media, and in front of it the writes that are not
 * durable yet.
 *
 * With a volatile cache every completed write is kept as a version of its range, in
 * the order of completion, older ones beside newer ones: any of them may be what is
 * found after the power has failed. A flush makes those durable that had completed
 * when it was fetched; the oldest become so by themselves when the cache is full.
 * What is written through (FUA, or without a cache) goes to the media at once, and
 * what is older of its range must not come after it.
 *
 * Submissions and completions are numbered in one count, so that two numbers tell
 * whether two writes were under way at the same time.
 *
 * @module
 */

import { Prng } from "../../lib/prng.ts";
import { RangeMap } from "../../lib/range-map.ts";
import {
  BLK_ZONE_COND_NOT_WP,
  BLK_ZONE_COND_OFFLINE,
  BLK_ZONE_COND_READONLY,
} from "../blk-zoned.ts";
import { DamagedMedia, type FaultPlan, type WriteFate } from "./faults.ts";
import type { Media } from "./media.ts";
import {
  NVME_CMD_COPY,
  NVME_CMD_DSM,
  NVME_CMD_WRITE,
  NVME_CMD_WRITE_UNCOR,
  NVME_CMD_WRITE_ZEROES,
  NVME_CMD_ZONE_APPEND,
  NVME_CMD_ZONE_MGMT_SEND,
  NVME_SC_COMPARE_FAILED,
  NVME_SC_DATA_XFER_ERROR,
  NVME_SC_READ_ERROR,
  NVME_SC_SUCCESS,
  NVME_ZONE_FINISH,
  NVME_ZONE_RESET,
} from "./nvme.ts";
import {
  addFragments,
  type AtomicUnits,
  byZone,
  chooseKept,
  type CutFragment,
  type CutOptions,
  type CutReport,
  type Fragment,
  isKept,
  keepPrefixes,
  orderOf,
  type TearMode,
} from "./power-cut.ts";
import { type HostMemory, MemoryPieces } from "./queue.ts";
import {
  Slab,
  Slabs,
  Version,
  VERSION_DATA,
  VERSION_UNREADABLE,
  VERSION_ZEROES,
  VERSION_ZONE_FINISH,
  VERSION_ZONE_RESET,
} from "./version.ts";
import type { ZonedCommand } from "./zns.ts";

/** What the store sees of a command; the controller's commands are such. */
export interface StoreCommand extends ZonedCommand {
  /** NVMe opcode. */
  opcode: number;
  /** Must be on the media before it completes. */
  fua: boolean;
  /** What {@linkcode Store.begin} gave it. */
  stamp: number;
  /** Zone management: what is to be done, `NVME_ZONE_*`. */
  action: number;
  /** Ranges to be deallocated: first byte and bytes of each. */
  ranges: Float64Array | null;
  /** The host's memory, of a command that has some. */
  memory: object | null;
  /** Of the write of a fused pair: the compare that it depends on; or null. */
  partner: StoreCommand | null;
}

/** What the store asks and tells of zones; `ZonedNamespace` is one. */
export interface StoreZones {
  /** Bytes from one zone's start to the next. */
  readonly zoneSize: number;
  /** Condition of a zone, `BLK_ZONE_COND_*`. */
  cond(zone: number): number;
  /** Zones that a command for all of them would change now. */
  selected(action: number): Iterable<number>;
  /** Bytes of a zone that have been written. */
  written(zone: number): number;
  /** Bytes of a zone that are durable. */
  durable(zone: number): number;
  /** Tells how much of a zone is durable, and whether it was finished after that. */
  persisted(zone: number, wp: number, full: boolean): void;
  /** Whether a write may still be carried out: a status. */
  checkWrite(c: ZonedCommand): number;
}

/** What makes a {@linkcode Store}. */
export interface StoreOptions {
  /** Bytes of a logical block. */
  blockSize: number;
  /** Whether completed writes are volatile. */
  volatile: boolean;
  /** Bytes of data that the volatile cache holds. */
  capacity: number;
  /** What is whole or not at all after a loss of power. */
  units: AtomicUnits;
  /** Seed of what is left to chance. */
  seed: number;
  /** Faults to suffer from. */
  faults: FaultPlan;
  /** The namespace's zones; null if it has none. */
  zones: StoreZones | null;
}

/** What a version without data counts for in the cache, bytes. */
const EMPTY_COST = 512;
/** What a device holds back that lies about durability and has no cache, bytes. */
const LIAR_CAPACITY = 2 ** 25;
/** Ranges written through that are remembered before those of no use are looked for. */
const MANY_RANGES = 1024;

/** A state that the power could leave now, for a device of its own. */
export interface StoreFork {
  /** Its media: changes stay in it. */
  media: Media;
  /** The faults that are on the media. */
  faults: FaultPlan;
  /** What has been kept. */
  report: CutReport;
}

/** The blocks of a namespace. */
export class Store {
  readonly #o: StoreOptions;
  readonly #media: DamagedMedia;
  readonly #units: AtomicUnits;
  readonly #zones: StoreZones | null;
  readonly #slabs = new Slabs();
  readonly #pieces = new MemoryPieces();
  #volatile: boolean;
  /** Versions in the order of completion; those before `#first` are durable. */
  #versions: Version[] = [];
  #first = 0;
  #bytes = 0;
  /** The newest version of each range; what is missing is on the media. */
  readonly #newest = new RangeMap<Version>();
  /** Ranges written through since, by when: older versions do not come after them. */
  readonly #through = new RangeMap<number>();
  /** Latest submission or completion. */
  #count = 0;

  /**
   * Blocks in front of which there is an empty cache.
   *
   * @param media Where they are in the end.
   * @param options What makes it.
   */
  constructor(media: Media, options: StoreOptions) {
    this.#o = options;
    this.#media = new DamagedMedia(media, options.faults);
    this.#units = options.units;
    this.#zones = options.zones;
    this.#volatile = options.volatile;
  }

  /** Where the blocks are; what is volatile is not there yet. */
  get media(): Media {
    return this.#media.media;
  }

  /** The faults that it suffers from. */
  get faults(): FaultPlan {
    return this.#o.faults;
  }

  /** Whether completed writes are volatile. */
  get volatile(): boolean {
    return this.#volatile;
  }

  /**
   * A command has been fetched.
   *
   * @returns Of a write its number, of a flush its horizon.
   */
  begin(): number {
    return ++this.#count;
  }

  /**
   * Reads the newest version of each block. With FUA, what is volatile becomes
   * durable first.
   *
   * @param memory Where to.
   * @returns A status: READ_ERROR, DATA_XFER_ERROR if the memory has gone,
   *   WRITE_FAULT if what was volatile cannot be made durable.
   */
  read(command: StoreCommand, memory: HostMemory | null): number {
    const { at, len } = command;
    if (!this.#pieces.cover(memory, len)) return NVME_SC_DATA_XFER_ERROR;
    if (command.fua) {
      const status = this.flush(this.#count);
      if (status !== NVME_SC_SUCCESS) return status;
    }
    const { faults } = this.#o;
    const fate = faults.strikesReads ? faults.onRead(command) : null;
    const from = fate === null ? at : fate.from;
    const pieces = this.#pieces;
    pieces.begin(memory, len);
    for (let pos = from; pieces.next(); pos += pieces.len) {
      const { data, offset, len } = pieces;
      const status = this.#read(pos, data, offset, len);
      if (status !== NVME_SC_SUCCESS) return status;
      fate?.stale?.overlay(pos, data, offset, len);
    }
    return NVME_SC_SUCCESS;
  }

  /**
   * Carries out a write: it is there for readers from now on.
   *
   * @param memory Where from.
   * @returns A status: WRITE_FAULT, DATA_XFER_ERROR if the memory has gone.
   */
  write(command: StoreCommand, memory: HostMemory | null): number {
    const { len } = command;
    if (!this.#pieces.cover(memory, len)) return NVME_SC_DATA_XFER_ERROR;
    const { faults } = this.#o;
    const fate = faults.strikesWrites ? faults.onWrite(command) : null;
    if (fate !== null && fate.status !== NVME_SC_SUCCESS) {
      this.#writePart(command, memory, fate);
      return fate.status;
    }
    const target = fate === null ? command.at : fate.target;
    return this.#isThrough(command.fua) || len > this.#capacity
      ? this.#writeThrough(command, memory, target)
      : this.#keepData(command, memory, target);
  }

  /**
   * Makes a range read as zeroes: Write Zeroes, or deallocation.
   *
   * @param at First byte.
   * @param len Bytes.
   * @returns A status: WRITE_FAULT.
   */
  zero(command: StoreCommand, at: number, len: number): number {
    return this.#put(VERSION_ZEROES, command, at, len);
  }

  /** Lets reads of a range fail until it is written (Write Uncorrectable); a status. */
  uncorrectable(command: StoreCommand): number {
    return this.#put(
      VERSION_UNREADABLE,
      command,
      command.at,
      command.len,
    );
  }

  /** Compares a range with the host's memory: a status, COMPARE_FAILED if they differ. */
  compare(at: number, len: number, memory: HostMemory | null): number {
    const pieces = this.#pieces;
    if (!pieces.cover(memory, len)) return NVME_SC_DATA_XFER_ERROR;
    const own = new Uint8Array(len);
    const status = this.#read(at, own, 0, len);
    if (status !== NVME_SC_SUCCESS) return status;
    pieces.begin(memory, len);
    for (let pos = 0; pieces.next(); pos += pieces.len) {
      const { data, offset, len } = pieces;
      for (let i = 0; i < len; i++) {
        if (own[pos + i] !== data[offset + i]) return NVME_SC_COMPARE_FAILED;
      }
    }
    return NVME_SC_SUCCESS;
  }

  /** Whether a range can be read: a status. */
  verify(at: number, len: number): number {
    const newest = this.#newest;
    const end = at + len;
    for (let pos = at; pos < end;) {
      const found = newest.seek(pos) && newest.start < end;
      const stop = found ? newest.start : end;
      if (stop > pos && this.#media.isUnreadable(pos, stop)) {
        return NVME_SC_READ_ERROR;
      }
      if (found && newest.value!.kind === VERSION_UNREADABLE) {
        return NVME_SC_READ_ERROR;
      }
      pos = found ? newest.end : end;
    }
    return NVME_SC_SUCCESS;
  }

  /** Copies a range to memory of the device, for a copy within it; a status. */
  readInto(at: number, data: Uint8Array): number {
    return this.#read(at, data, 0, data.length);
  }

  /** A zone has been emptied: what it held is gone. A status. */
  resetZone(zone: number): number {
    const at = zone * this.#zones!.zoneSize;
    const len = Math.min(this.#zones!.zoneSize, this.media.size - at);
    return this.#putVersion(this.#version(VERSION_ZONE_RESET, at, len, zone));
  }

  /** A zone has been finished: nothing more is written to it. A status. */
  finishZone(zone: number): number {
    const { zoneSize } = this.#zones!;
    const at = zone * zoneSize + this.#zones!.written(zone);
    return this.#putVersion(this.#version(VERSION_ZONE_FINISH, at, 0, zone));
  }

  /**
   * Makes durable what had completed when a flush was fetched.
   *
   * @param horizon What {@linkcode begin} gave the flush.
   * @returns A status: WRITE_FAULT; what could not be written stays volatile.
   */
  flush(horizon: number): number {
    return this.#o.faults.liar ? NVME_SC_SUCCESS : this.#flush(horizon);
  }

  /** Turns the cache on or off; off, it is made durable first. A status: WRITE_FAULT,
   * and the cache stays on. */
  setVolatile(on: boolean): number {
    const lies = on || this.#o.faults.liar;
    const status = lies ? NVME_SC_SUCCESS : this.drain();
    if (status === NVME_SC_SUCCESS) this.#volatile = on;
    return status;
  }

  /** Makes everything durable, as before a power-off that was announced. A status. */
  drain(): number {
    return this.#flush(this.#count + 1);
  }

  /**
   * What might persist or not if the power went now.
   *
   * @param inFlight Commands that have been fetched and are not done.
   * @param tear How large writes tear.
   */
  undecided(
    inFlight: Iterable<StoreCommand>,
    tear: TearMode = "lba",
  ): readonly CutFragment[] {
    return this.#fragments(inFlight, tear);
  }

  /**
   * The power goes: the media holds what persists, and nothing is volatile any more.
   * The zones have been told of their durable write pointers. The cache is as it was
   * in the beginning.
   *
   * @param inFlight Commands that have been fetched and are not done.
   * @param event Number of the moment; chance depends on it.
   * @param options What persists; `checkCutOptions` has nothing against it.
   */
  cut(
    inFlight: Iterable<StoreCommand>,
    event: number,
    options: CutOptions = {},
  ): CutReport {
    const report = this.#leave(
      inFlight,
      event,
      options,
      this.#media,
      this.#zones,
    );
    this.#forget();
    return report;
  }

  /**
   * What {@linkcode cut} would leave, on media of its own. This store goes on.
   *
   * @param zones A copy of the zones, which is told instead of them.
   * @returns Null if the media cannot be forked.
   */
  fork(
    inFlight: Iterable<StoreCommand>,
    event: number,
    options: CutOptions,
    zones: StoreZones | null,
  ): StoreFork | null {
    const media = this.media.fork?.();
    if (media === undefined) return null;
    const faults = this.#o.faults.clone();
    const left = new DamagedMedia(media, faults);
    return {
      media,
      faults,
      report: this.#leave(inFlight, event, options, left, zones),
    };
  }

  /** Gives up the media. */
  close(): void {
    this.media.close();
  }

  get #capacity(): number {
    const { capacity, faults } = this.#o;
    return faults.liar ? Math.max(capacity, LIAR_CAPACITY) : capacity;
  }

  /** Whether a write has to be on the media when it is done. */
  #isThrough(fua: boolean): boolean {
    if (this.#o.faults.liar) return false;
    return fua || !this.#volatile;
  }

  // Reading.

  #read(at: number, data: Uint8Array, offset: number, len: number): number {
    const newest = this.#newest;
    if (newest.size === 0) return this.#media.read(at, data, offset, len);
    const end = at + len;
    for (let pos = at; pos < end;) {
      const found = newest.seek(pos) && newest.start < end;
      const start = found ? Math.max(newest.start, pos) : end;
      if (start > pos) {
        const to = offset + pos - at;
        const status = this.#media.read(pos, data, to, start - pos);
        if (status !== NVME_SC_SUCCESS) return status;
      }
      if (!found) break;
      const stop = Math.min(newest.end, end);
      const version = newest.value!;
      if (version.kind === VERSION_UNREADABLE) return NVME_SC_READ_ERROR;
      copyVersion(version, start, stop, data, offset + start - at);
      pos = stop;
    }
    return NVME_SC_SUCCESS;
  }

  // Writing.

  #writeThrough(
    command: StoreCommand,
    memory: HostMemory | null,
    target: number,
  ): number {
    const { at, len, zone } = command;
    let status = this.#beforeThrough(zone);
    if (status !== NVME_SC_SUCCESS) return status;
    // A write that is lost changes nothing.
    if (target >= 0) {
      status = this.#copyToMedia(target, memory, len);
      if (status !== NVME_SC_SUCCESS) return status;
    }
    this.#afterThrough(at, len);
    if (this.#zones !== null) wroteZone(this.#zones, zone, at + len);
    return NVME_SC_SUCCESS;
  }

  #copyToMedia(at: number, memory: HostMemory | null, len: number): number {
    const pieces = this.#pieces;
    pieces.begin(memory, len);
    for (let pos = at; pieces.next(); pos += pieces.len) {
      const { data, offset, len } = pieces;
      const status = this.#media.write(pos, data, offset, len);
      if (status !== NVME_SC_SUCCESS) return status;
    }
    return NVME_SC_SUCCESS;
  }

  /** A write that fails has moved so many bytes. */
  #writePart(
    command: StoreCommand,
    memory: HostMemory | null,
    { torn }: WriteFate,
  ): void {
    if (torn === 0) return;
    const { at } = command;
    const status = this.#copyToMedia(at, memory, torn);
    if (status === NVME_SC_SUCCESS) this.#afterThrough(at, torn);
  }

  #keepData(
    command: StoreCommand,
    memory: HostMemory | null,
    target: number,
  ): number {
    const { at, len, stamp, zone } = command;
    const status = this.#makeRoom(len);
    if (status !== NVME_SC_SUCCESS) return status;
    const version = new Version(VERSION_DATA, at, len, stamp, zone);
    version.target = target;
    this.#slabs.allocate(version);
    const pieces = this.#pieces;
    pieces.begin(memory, len);
    for (let to = version.offset; pieces.next(); to += pieces.len) {
      const { data, offset, len } = pieces;
      version.slab!.data.set(
        offset === 0 && len === data.length
          ? data
          : data.subarray(offset, offset + len),
        to,
      );
    }
    this.#add(version);
    return NVME_SC_SUCCESS;
  }

  #put(kind: number, command: StoreCommand, at: number, len: number): number {
    const { stamp, zone, fua } = command;
    // Deallocation does not write a zone.
    const own = command.opcode === NVME_CMD_DSM ? -1 : zone;
    return this.#putVersion(new Version(kind, at, len, stamp, own), fua);
  }

  #putVersion(version: Version, fua = false): number {
    const { at, len, zone } = version;
    if (!this.#isThrough(fua)) {
      const status = this.#makeRoom(EMPTY_COST);
      if (status === NVME_SC_SUCCESS) this.#add(version);
      return status;
    }
    let status = this.#beforeThrough(zone);
    if (status !== NVME_SC_SUCCESS) return status;
    status = persist(this.#media, version, at, at + len);
    if (status !== NVME_SC_SUCCESS) return status;
    this.#afterThrough(at, len);
    persistZone(this.#zones, version, at + len);
    return NVME_SC_SUCCESS;
  }

  /** Something that is done now. */
  #version(kind: number, at: number, len: number, zone: number): Version {
    return new Version(kind, at, len, ++this.#count, zone);
  }

  #add(version: Version): void {
    const { at, len } = version;
    version.completed = ++this.#count;
    this.#versions.push(version);
    this.#bytes += costOf(version);
    if (len > 0) this.#newest.set(at, at + len, version);
  }

  /** What is durable of a zone has no holes: all of it goes before what goes through. */
  #beforeThrough(zone: number): number {
    if (this.#first === this.#versions.length) return NVME_SC_SUCCESS;
    // Left over from when the cache was on.
    if (!this.#volatile) return this.#flush(this.#count + 1);
    if (zone < 0) return NVME_SC_SUCCESS;
    for (let i = this.#first; i < this.#versions.length; i++) {
      const version = this.#versions[i]!;
      if (version.zone !== zone || version.isDurable) continue;
      const status = this.#persist(version);
      if (status !== NVME_SC_SUCCESS) return status;
    }
    return NVME_SC_SUCCESS;
  }

  #afterThrough(at: number, len: number): void {
    if (this.#first === this.#versions.length || len === 0) return;
    this.#newest.clear(at, at + len);
    this.#through.set(at, at + len, ++this.#count);
    if (this.#through.size % MANY_RANGES === 0) this.#forgetThrough();
  }

  /** Forgets ranges that no version is older than. */
  #forgetThrough(): void {
    const oldest = this.#versions[this.#first]!.completed;
    for (const [start, end, when] of [...this.#through]) {
      if (when < oldest) this.#through.clear(start, end);
    }
  }

  // Becoming durable.

  #flush(horizon: number): number {
    while (this.#first < this.#versions.length) {
      if (this.#versions[this.#first]!.completed > horizon) break;
      const status = this.#persistOldest();
      if (status !== NVME_SC_SUCCESS) return status;
    }
    return NVME_SC_SUCCESS;
  }

  #makeRoom(cost: number): number {
    const room = this.#capacity - cost;
    while (this.#bytes > room && this.#first < this.#versions.length) {
      const status = this.#persistOldest();
      if (status !== NVME_SC_SUCCESS) return status;
    }
    return NVME_SC_SUCCESS;
  }

  #persistOldest(): number {
    const version = this.#versions[this.#first]!;
    const status = version.isDurable ? NVME_SC_SUCCESS : this.#persist(version);
    if (status !== NVME_SC_SUCCESS) return status;
    this.#first++;
    if (this.#first === this.#versions.length) {
      this.#versions.length = 0;
      this.#first = 0;
      this.#through.clearAll();
    } else if (this.#first > 1024 && this.#first > this.#versions.length / 2) {
      this.#versions = this.#versions.slice(this.#first);
      this.#first = 0;
    }
    return NVME_SC_SUCCESS;
  }

  /** Writes a version to the media; the newest of a range is there then. */
  #persist(version: Version): number {
    const status = this.#persistLive(version, this.#media);
    if (status !== NVME_SC_SUCCESS) return status;
    persistZone(this.#zones, version, version.at + version.len);
    version.isDurable = true;
    this.#bytes -= costOf(version);
    this.#slabs.release(version);
    const newest = this.#newest;
    const end = version.at + version.len;
    for (let pos = version.at; newest.touches(pos, end); pos = newest.end) {
      if (newest.value === version) newest.clear(newest.start, newest.end);
    }
    return NVME_SC_SUCCESS;
  }

  /** Writes those parts of a range of a version that nothing newer went through. */
  #persistLive(
    version: Version,
    media: DamagedMedia,
    at: number = version.at,
    end: number = at + version.len,
  ): number {
    const through = this.#through;
    for (let pos = at; pos < end;) {
      if (!through.touches(pos, end)) {
        return persist(media, version, pos, end);
      }
      const { start, end: stop } = through;
      const from = pos;
      const hides = through.value! > version.completed;
      pos = Math.min(stop, end);
      const to = hides ? Math.max(start, from) : pos;
      const status = persist(media, version, from, to);
      if (status !== NVME_SC_SUCCESS) return status;
    }
    return NVME_SC_SUCCESS;
  }

  // Loss of power.

  #fragments(inFlight: Iterable<StoreCommand>, tear: TearMode): Fragment[] {
    const { blockSize } = this.#o;
    const fragments: Fragment[] = [];
    const add = (version: Version) =>
      addFragments(fragments, version, blockSize, this.#units, tear);
    for (let i = this.#first; i < this.#versions.length; i++) {
      const version = this.#versions[i]!;
      if (!version.isDurable) add(version);
    }
    const commands = [...inFlight].sort((a, b) => a.stamp - b.stamp);
    for (const command of commands) this.#underWay(command).forEach(add);
    return fragments;
  }

  /** What a command that is not done may have done. */
  #underWay(c: StoreCommand): Version[] {
    const make = (kind: number, at = c.at, len = c.len, zone = c.zone) =>
      new Version(kind, at, len, c.stamp, zone);
    switch (c.opcode) {
      case NVME_CMD_WRITE:
      case NVME_CMD_ZONE_APPEND:
        return this.#willFail(c)
          ? []
          : this.#gather(make(VERSION_DATA), c.memory);
      case NVME_CMD_COPY:
        return this.#willFail(c) ? [] : this.#copied(make(VERSION_DATA), c);
      case NVME_CMD_WRITE_ZEROES:
        return this.#willFail(c) ? [] : [make(VERSION_ZEROES)];
      case NVME_CMD_WRITE_UNCOR:
        return this.#willFail(c) ? [] : [make(VERSION_UNREADABLE)];
      case NVME_CMD_DSM:
        // With zones it is mostly without effect, and none has to be there.
        return this.#zones !== null
          ? []
          : rangesOf(c).map(([at, len]) => make(VERSION_ZEROES, at, len, -1));
      case NVME_CMD_ZONE_MGMT_SEND:
        return this.#managing(c);
      default:
        return [];
    }
  }

  /** Whether the zone of a write has changed since that was fetched, or the compare
   * that it depends on fails. */
  #willFail(c: StoreCommand): boolean {
    const isLost = this.#zones !== null &&
      this.#zones.checkWrite(c) !== NVME_SC_SUCCESS;
    if (isLost || c.partner === null) return isLost;
    const { at, len, memory } = c.partner;
    return !isHostMemory(memory) ||
      this.compare(at, len, memory) !== NVME_SC_SUCCESS;
  }

  #managing({ zone, action, stamp }: StoreCommand): Version[] {
    const zones = this.#zones;
    const known = action === NVME_ZONE_RESET || action === NVME_ZONE_FINISH;
    if (zones === null || !known) return [];
    if (zone < 0) {
      return Array.from(
        zones.selected(action),
        (each) => this.#managed(zones, each, action, stamp),
      );
    }
    return isManaged(zones.cond(zone))
      ? [this.#managed(zones, zone, action, stamp)]
      : [];
  }

  #managed(
    zones: StoreZones,
    zone: number,
    action: number,
    stamp: number,
  ): Version {
    const start = zone * zones.zoneSize;
    if (action === NVME_ZONE_RESET) {
      const len = Math.min(zones.zoneSize, this.media.size - start);
      return new Version(VERSION_ZONE_RESET, start, len, stamp, zone);
    }
    const at = start + zones.written(zone);
    return new Version(VERSION_ZONE_FINISH, at, 0, stamp, zone);
  }

  /** Gives a copy under way what its sources hold, if they can be read. */
  #copied(version: Version, c: StoreCommand): Version[] {
    const slab = new Slab(version.len);
    let to = 0;
    for (const [at, len] of rangesOf(c)) {
      if (this.#read(at, slab.data, to, len) !== NVME_SC_SUCCESS) return [];
      to += len;
    }
    version.slab = slab;
    return [version];
  }

  /** Gives a write under way its data, if the host's memory is still there. */
  #gather(version: Version, memory: object | null): Version[] {
    const { len } = version;
    const pieces = this.#pieces;
    if (!isHostMemory(memory) || !pieces.cover(memory, len)) return [];
    const slab = new Slab(len);
    pieces.begin(memory, len);
    for (let to = 0; pieces.next(); to += pieces.len) {
      const { data, offset, len } = pieces;
      slab.data.set(data.subarray(offset, offset + len), to);
    }
    version.slab = slab;
    return [version];
  }

  /** Leaves on media, and with zones, what a loss of power leaves. */
  #leave(
    inFlight: Iterable<StoreCommand>,
    event: number,
    options: CutOptions,
    media: DamagedMedia,
    zones: StoreZones | null,
  ): CutReport {
    const { tear = "lba" } = options;
    const fragments = this.#fragments(inFlight, tear);
    const seed = options.seed ?? this.#cutSeed(event, options);
    const kept = chooseKept(fragments.length, seed, options);
    const zoneLists = byZone(fragments);
    if (zones !== null) {
      keepPrefixes(
        kept,
        fragments,
        zoneLists,
        zones.zoneSize,
        (zone) => zones.durable(zone),
      );
    }
    const chance = new Prng(seed, "power cut damage");
    for (const i of orderOf(fragments, zoneLists, seed, this.#count)) {
      const fragment = fragments[i]!;
      if (isKept(kept, i)) this.#keepFragment(fragment, media, zones, chance);
      else if (tear === "undefined") ruin(fragment, media, chance);
    }
    return { seed, event, kept, fragments };
  }

  /** A seed of its own for each moment, the same in every run. */
  #cutSeed(event: number, { keep = "random" }: CutOptions): number {
    if (keep !== "random") return 0;
    return 1 + new Prng(this.#o.seed, `power cut ${event}`).below(2 ** 31);
  }

  #keepFragment(
    fragment: Fragment,
    media: DamagedMedia,
    zones: StoreZones | null,
    chance: Prng,
  ): void {
    const { version, at } = fragment;
    const len = this.#o.faults.shear(fragment.len, version.kind, chance);
    // An error of the media is found by whoever reads.
    this.#persistLive(version, media, at, at + len);
    persistZone(zones, version, at + fragment.len);
  }

  #forget(): void {
    for (const version of this.#versions) this.#slabs.release(version);
    this.#versions.length = 0;
    this.#first = 0;
    this.#bytes = 0;
    this.#newest.clearAll();
    this.#through.clearAll();
    this.#volatile = this.#o.volatile;
  }
}

/** Tells zones that a version, or a part of it up to byte `end`, is durable. */
function persistZone(
  zones: StoreZones | null,
  { kind, zone }: Version,
  end: number,
): void {
  if (zone < 0 || zones === null) return;
  if (kind === VERSION_ZONE_RESET) zones.persisted(zone, 0, false);
  else if (kind === VERSION_ZONE_FINISH) {
    zones.persisted(zone, zones.durable(zone), true);
  } else wroteZone(zones, zone, end);
}

function wroteZone(zones: StoreZones, zone: number, end: number): void {
  if (zone < 0) return;
  const wp = end - zone * zones.zoneSize;
  if (wp > zones.durable(zone)) zones.persisted(zone, wp, false);
}

/** Whether a zone of such a condition can be emptied or finished. */
function isManaged(cond: number): boolean {
  return cond !== BLK_ZONE_COND_NOT_WP && cond !== BLK_ZONE_COND_READONLY &&
    cond !== BLK_ZONE_COND_OFFLINE;
}

function costOf({ kind, len }: Version): number {
  return kind === VERSION_DATA ? len : EMPTY_COST;
}

/** Copies `[start, stop)` of a version to memory. */
function copyVersion(
  version: Version,
  start: number,
  stop: number,
  data: Uint8Array,
  offset: number,
): void {
  if (version.kind !== VERSION_DATA) {
    data.fill(0, offset, offset + stop - start);
    return;
  }
  const from = version.offset + start - version.at;
  const bytes = version.slab!.data.subarray(from, from + stop - start);
  data.set(bytes, offset);
}

/** Writes `[start, stop)` of a version to media. */
function persist(
  media: DamagedMedia,
  version: Version,
  start: number,
  stop: number,
): number {
  const len = stop - start;
  const { kind, at, target } = version;
  if (len <= 0 || target < 0) return NVME_SC_SUCCESS;
  if (kind === VERSION_UNREADABLE) return media.spoil(start, len);
  if (kind !== VERSION_DATA) return media.zero(start, len);
  const from = start - at;
  const { data } = version.slab!;
  return media.write(target + from, data, version.offset + from, len);
}

/** What does not persist of a torn write under way may be anything. */
function ruin(
  { version, torn, completed, at, len }: Fragment,
  media: DamagedMedia,
  chance: Prng,
): void {
  if (!torn || completed || version.kind !== VERSION_DATA) return;
  const fate = chance.below(4);
  if (fate === 0) media.spoil(at, len);
  if (fate !== 1) return;
  const garbage = new Uint8Array(len);
  for (let i = 0; i < len; i++) garbage[i] = chance.below(256);
  media.write(at, garbage, 0, len);
}

function rangesOf({ ranges }: StoreCommand): [number, number][] {
  const list: [number, number][] = [];
  for (let i = 0; ranges !== null && i + 1 < ranges.length; i += 2) {
    if (ranges[i + 1]! > 0) list.push([ranges[i]!, ranges[i + 1]!]);
  }
  return list;
}

function isHostMemory(memory: object | null): memory is HostMemory {
  return memory !== null && "vecs" in memory;
}
