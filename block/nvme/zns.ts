/**
 * The zones of a namespace: their conditions, write pointers and limits, and the
 * rules by which commands change them. It knows neither time nor data.
 *
 * A zone has two write pointers. The one that commands are checked against moves
 * when a write is fetched, so that several in order may be under way; the one that
 * a report tells moves when a write is done, and a zone is full when that one is at
 * its capacity. What a power cut leaves is kept as a third: see
 * {@linkcode ZonedNamespace.persisted}.
 *
 * The namespace has no descriptor extensions and no random write areas (ZRWA).
 *
 * Device counterpart: hw/nvme of QEMU for `zns`, null_blk for `zbc`.
 *
 * @module
 */

import { isPowerOfTwo } from "../blk-settings.ts";
import {
  BLK_ZONE_COND_CLOSED,
  BLK_ZONE_COND_EMPTY,
  BLK_ZONE_COND_EXP_OPEN,
  BLK_ZONE_COND_FULL,
  BLK_ZONE_COND_IMP_OPEN,
  BLK_ZONE_COND_NOT_WP,
  BLK_ZONE_COND_OFFLINE,
  BLK_ZONE_COND_READONLY,
  BLK_ZONE_TYPE_CONVENTIONAL,
  BLK_ZONE_TYPE_SEQWRITE_REQ,
} from "../blk-zoned.ts";
import { EINVAL } from "../../lib/errno.ts";
import { putU64 } from "./identify.ts";
import {
  NVME_SC_INVALID_FIELD,
  NVME_SC_INVALID_OPCODE,
  NVME_SC_LBA_RANGE,
  NVME_SC_SUCCESS,
  NVME_SC_ZONE_BOUNDARY_ERROR,
  NVME_SC_ZONE_FULL,
  NVME_SC_ZONE_INVALID_TRANSITION,
  NVME_SC_ZONE_INVALID_WRITE,
  NVME_SC_ZONE_OFFLINE,
  NVME_SC_ZONE_READ_ONLY,
  NVME_SC_ZONE_TOO_MANY_ACTIVE,
  NVME_SC_ZONE_TOO_MANY_OPEN,
  NVME_ZONE_CLOSE,
  NVME_ZONE_FINISH,
  NVME_ZONE_OFFLINE,
  NVME_ZONE_OPEN,
  NVME_ZONE_RESET,
} from "./nvme.ts";
import type { ZoneInfo } from "./timing.ts";

/** Bytes of a report's header, and of each of its descriptors. */
export const NVME_ZONE_DESCRIPTOR_SIZE = 64;
/** The controller itself has finished the zone, in a descriptor's attributes. */
export const NVME_ZONE_ATTR_FINISHED_BY_CONTROLLER: number = 1 << 0;
/** Most zones of a namespace; the table costs 30 bytes for each. */
export const MAX_ZONES: number = 2 ** 20;

/**
 * Whose rules decide where zoned devices differ. A disk (`"zbc"`) empties a zone that
 * is closed before it was written, needs a free open zone to finish one that is not
 * open, and closes implicitly open zones in turn by number; an SSD (`"zns"`) leaves
 * such a zone closed, finishes without, and closes the one that was opened first.
 */
export type ZoneFlavor = "zbc" | "zns";

/** What makes a zoned namespace. */
export interface ZoneOptions {
  /** Bytes of the namespace. The last zone is smaller if it is no multiple. */
  size: number;
  /** Bytes of a logical block. */
  blockSize: number;
  /** Bytes from one zone's start to the next, a power of two. */
  zoneSize: number;
  /** Bytes of a sequential zone that can be written. */
  zoneCapacity: number;
  /** Zones at the beginning that can be written anywhere. */
  conventional: number;
  /** Zones that may be open; 0 if any number. */
  maxOpen: number;
  /** Zones that may be open or closed; 0 if any number. */
  maxActive: number;
  /** Whose rules decide where devices differ. */
  flavor: ZoneFlavor;
  /** Reads may cross from one zone into the next (OZCS bit 0). */
  crossRead: boolean;
  /** The device has Zone Append. */
  append: boolean;
  /** Largest append, bytes (ZASL), a power of two from 8192 on; 0 if only the transfer
   * size limits it. */
  maxAppend: number;
}

/** What a command has to do with zones; the controller's commands are such. */
export interface ZonedCommand {
  /** First byte; of an append, where it goes once it has been submitted. */
  at: number;
  /** Bytes. */
  len: number;
  /** Sequential zone that it writes, or -1. */
  zone: number;
  /** Whether its submission has opened the zone. */
  opened: boolean;
  /** How often the zone had been emptied, finished or lost when it was submitted. */
  epoch: number;
}

/** Told when a zone has been emptied (`NVME_ZONE_RESET`) or finished
 * (`NVME_ZONE_FINISH`): what it held is deallocated, or nothing follows it. */
export type ZoneChanged = (zone: number, action: number) => void;

/**
 * Says what is wrong with options.
 *
 * @returns Name and value of the first that cannot be, or null.
 */
export function badZoneOption(o: ZoneOptions): string | null {
  const { size, blockSize, zoneSize, zoneCapacity, conventional } = o;
  const bad = (name: keyof ZoneOptions, why: string) =>
    `${name} ${o[name]} ${why}`;
  if (!(zoneSize >= blockSize && isPowerOfTwo(zoneSize))) {
    return bad("zoneSize", `is not a power of two from ${blockSize} on`);
  }
  const zones = Math.ceil(size / zoneSize);
  if (zones > MAX_ZONES) return bad("zoneSize", `makes ${zones} zones`);
  if (
    !isCount(zoneCapacity) ||
    !(zoneCapacity >= blockSize && zoneCapacity <= zoneSize) ||
    zoneCapacity % blockSize !== 0
  ) {
    return bad("zoneCapacity", `is not some blocks of a zone of ${zoneSize}`);
  }
  if (!isCount(conventional) || conventional >= zones) {
    return bad("conventional", `is not less than the ${zones} zones`);
  }
  for (const name of ["maxOpen", "maxActive"] as const) {
    if (!isCount(o[name])) return bad(name, "is not a number of zones");
  }
  if (o.maxActive !== 0 && o.maxOpen > o.maxActive) {
    return bad("maxOpen", `is above maxActive ${o.maxActive}`);
  }
  if (
    o.maxAppend !== 0 && !(o.maxAppend >= 8192 && isPowerOfTwo(o.maxAppend))
  ) {
    return bad("maxAppend", "is neither 0 nor a power of two from 8192 on");
  }
  if (o.flavor !== "zbc" && o.flavor !== "zns") {
    return bad("flavor", "is neither zbc nor zns");
  }
  return null;
}

function isCount(n: number): boolean {
  return Number.isSafeInteger(n) && n >= 0;
}

// What is noted of a zone beside its condition.
/** Full without having been written to its capacity. */
const FINISHED = 1 << 0;
/** That was the controller's doing. */
const BY_CONTROLLER = 1 << 1;

/** Zones of a namespace. Offsets in a zone are kept in blocks, commands tell bytes. */
export class ZonedNamespace implements ZoneInfo {
  /** What it was made of. */
  readonly options: Readonly<ZoneOptions>;
  /** Zones of both types. */
  readonly nrZones: number;
  readonly #changed: ZoneChanged;
  readonly #lastCapacity: number;
  // Columns by zone.
  readonly #cond: Uint8Array;
  readonly #notes: Uint8Array;
  /** Blocks whose writes are done. */
  readonly #wp: Uint32Array;
  /** Blocks whose writes have been fetched. */
  readonly #next: Uint32Array;
  readonly #epoch: Uint32Array;
  /** Blocks that outlive the power, and whether the zone is full beyond them. */
  readonly #durable: Uint32Array;
  readonly #durableFull: Uint8Array;
  /** Neighbours among the implicitly open zones, in order of opening; -1 for none. */
  readonly #older: Int32Array;
  readonly #newer: Int32Array;
  #oldest = -1;
  #newest = -1;
  /** Zones by condition. */
  readonly #count: Uint32Array = new Uint32Array(16);
  /** Where the search for a zone to be closed begins (`zbc`). */
  #closeFrom = 0;

  /**
   * Zones that are all empty.
   *
   * @param options What {@linkcode badZoneOption} finds nothing wrong with.
   * @param changed Called when a zone has been emptied or finished.
   */
  constructor(options: ZoneOptions, changed: ZoneChanged) {
    const { size, blockSize, zoneSize, zoneCapacity, conventional } = options;
    const n = Math.ceil(size / zoneSize);
    this.options = options;
    this.nrZones = n;
    this.#changed = changed;
    const last = size - (n - 1) * zoneSize;
    this.#lastCapacity = Math.min(zoneCapacity, last) / blockSize;
    this.#cond = new Uint8Array(n).fill(BLK_ZONE_COND_EMPTY);
    this.#cond.fill(BLK_ZONE_COND_NOT_WP, 0, conventional);
    this.#count[BLK_ZONE_COND_EMPTY] = n - conventional;
    this.#count[BLK_ZONE_COND_NOT_WP] = conventional;
    this.#notes = new Uint8Array(n);
    this.#wp = new Uint32Array(n);
    this.#next = new Uint32Array(n);
    this.#epoch = new Uint32Array(n);
    this.#durable = new Uint32Array(n);
    this.#durableFull = new Uint8Array(n);
    this.#older = new Int32Array(n).fill(-1);
    this.#newer = new Int32Array(n).fill(-1);
  }

  /** A copy that goes its own way, for a device that is forked. */
  clone(changed: ZoneChanged): ZonedNamespace {
    const copy = new ZonedNamespace(this.options, changed);
    copy.#cond.set(this.#cond);
    copy.#notes.set(this.#notes);
    copy.#wp.set(this.#wp);
    copy.#next.set(this.#next);
    copy.#epoch.set(this.#epoch);
    copy.#durable.set(this.#durable);
    copy.#durableFull.set(this.#durableFull);
    copy.#older.set(this.#older);
    copy.#newer.set(this.#newer);
    copy.#count.set(this.#count);
    copy.#oldest = this.#oldest;
    copy.#newest = this.#newest;
    copy.#closeFrom = this.#closeFrom;
    return copy;
  }

  /** Bytes from one zone's start to the next. */
  get zoneSize(): number {
    return this.options.zoneSize;
  }

  /** Bytes of a sequential zone that can be written. */
  get zoneCapacity(): number {
    return this.options.zoneCapacity;
  }

  /** Zones that are open, implicitly or explicitly. */
  get open(): number {
    return this.#count[BLK_ZONE_COND_IMP_OPEN]! +
      this.#count[BLK_ZONE_COND_EXP_OPEN]!;
  }

  /** Zones that are open or closed. */
  get active(): number {
    return this.open + this.#count[BLK_ZONE_COND_CLOSED]!;
  }

  /** See {@linkcode ZoneInfo.written}. */
  written(zone: number): number {
    return this.#wp[zone]! * this.options.blockSize;
  }

  /** Bytes of a zone that outlive the power; see {@linkcode persisted}. */
  durable(zone: number): number {
    return this.#durable[zone]! * this.options.blockSize;
  }

  /** See {@linkcode ZoneInfo.finished}. */
  finished(zone: number): boolean {
    return (this.#notes[zone]! & FINISHED) !== 0;
  }

  /** Condition of a zone, `BLK_ZONE_COND_*`. */
  cond(zone: number): number {
    return this.#cond[zone]!;
  }

  /** The zone that a byte of the namespace lies in. */
  zoneOf(at: number): number {
    return Math.floor(at / this.options.zoneSize);
  }

  /**
   * Checks a read, or whatever else only looks at blocks.
   *
   * @returns A status: OFFLINE if a zone is; BOUNDARY if the range crosses from one
   *   zone into the next and reads may not.
   */
  checkRead(at: number, len: number): number {
    const last = this.zoneOf(at + len - 1);
    let zone = this.zoneOf(at);
    if (this.#cond[zone] === BLK_ZONE_COND_OFFLINE) return NVME_SC_ZONE_OFFLINE;
    if (zone === last) return NVME_SC_SUCCESS;
    if (!this.options.crossRead) return NVME_SC_ZONE_BOUNDARY_ERROR;
    while (++zone <= last) {
      if (this.#cond[zone] === BLK_ZONE_COND_OFFLINE) {
        return NVME_SC_ZONE_OFFLINE;
      }
    }
    return NVME_SC_SUCCESS;
  }

  /**
   * Takes a write, or whatever else counts as one (Write Zeroes, Write
   * Uncorrectable, the destination of a Copy), and moves the write pointer that the
   * next one is checked against. After success {@linkcode completeWrite} must be
   * called for it once.
   *
   * @param c Lies within the namespace. Its `zone`, `opened` and `epoch` are set.
   * @returns A status; nothing has changed if it is not success. In this order:
   *   FULL, READ_ONLY, OFFLINE as the zone is; INVALID_WRITE if it does not begin at
   *   the write pointer; BOUNDARY past the capacity; TOO_MANY_ACTIVE or
   *   TOO_MANY_OPEN if the zone cannot be opened for it.
   */
  submitWrite(c: ZonedCommand): number {
    const zone = this.zoneOf(c.at);
    if (zone < this.options.conventional) return this.#conventionalWrite(c);
    const unwritable = this.#writable(zone);
    if (unwritable !== NVME_SC_SUCCESS) return unwritable;
    const { blockSize, zoneSize } = this.options;
    if ((c.at - zone * zoneSize) / blockSize !== this.#next[zone]) {
      return NVME_SC_ZONE_INVALID_WRITE;
    }
    return this.#advance(c, zone);
  }

  /**
   * Takes an append as {@linkcode submitWrite} takes a write.
   *
   * @param c `at` must be a zone's start; it becomes the place in the zone.
   * @returns A status as there, and INVALID_FIELD if it begins elsewhere, in a
   *   conventional zone, or is larger than an append may be, INVALID_OPCODE if the
   *   device has none.
   */
  submitAppend(c: ZonedCommand): number {
    const zone = this.zoneOf(c.at);
    const { blockSize, zoneSize, conventional, append, maxAppend } =
      this.options;
    if (!append) return NVME_SC_INVALID_OPCODE;
    if (c.at !== zone * zoneSize || zone < conventional) {
      return NVME_SC_INVALID_FIELD;
    }
    if (maxAppend !== 0 && c.len > maxAppend) return NVME_SC_INVALID_FIELD;
    const unwritable = this.#writable(zone);
    if (unwritable !== NVME_SC_SUCCESS) return unwritable;
    const at = c.at + this.#next[zone]! * blockSize;
    const status = this.#advance(c, zone);
    if (status === NVME_SC_SUCCESS) c.at = at;
    return status;
  }

  /**
   * Whether a write that was taken may still be carried out: not if its zone has
   * been emptied, finished or lost meanwhile.
   */
  checkWrite(c: ZonedCommand): number {
    const { zone } = c;
    if (zone < 0 || c.epoch === this.#epoch[zone]) return NVME_SC_SUCCESS;
    const unwritable = this.#writable(zone);
    return unwritable === NVME_SC_SUCCESS
      ? NVME_SC_ZONE_INVALID_WRITE
      : unwritable;
  }

  /**
   * A write that was taken has been carried out, has failed, or never will be.
   *
   * A failed one that nothing was taken after gives its place back, and may be
   * repeated. Otherwise it leaves a hole, as what follows it has its place already.
   *
   * @param ok Whether its data is there.
   */
  completeWrite(c: ZonedCommand, ok: boolean): void {
    const { zone } = c;
    if (zone < 0 || c.epoch !== this.#epoch[zone]) return;
    const { blockSize, zoneSize } = this.options;
    const blocks = c.len / blockSize;
    const end = (c.at - zone * zoneSize) / blockSize + blocks;
    if (!ok && end === this.#next[zone]) {
      this.#next[zone]! -= blocks;
      return;
    }
    this.#wp[zone]! += blocks;
    if (this.#wp[zone] === this.#capacity(zone)) {
      this.#set(zone, BLK_ZONE_COND_FULL);
    }
  }

  /**
   * Checks a Zone Management Send when it is fetched; what it does to the zones it
   * does when it is carried out, by {@linkcode manage}.
   *
   * @param at Byte that names the zone.
   * @param action `NVME_ZONE_*`.
   * @param all Whether it is for all zones; `at` says nothing then.
   * @returns A status: INVALID_FIELD if the action is not known, or no zone begins
   *   there; LBA_RANGE beyond the namespace.
   */
  checkManage(at: number, action: number, all: boolean): number {
    if (!(action >= NVME_ZONE_CLOSE && action <= NVME_ZONE_OFFLINE)) {
      return NVME_SC_INVALID_FIELD;
    }
    if (all) return NVME_SC_SUCCESS;
    if (at >= this.options.size) return NVME_SC_LBA_RANGE;
    return at === this.zoneOf(at) * this.options.zoneSize
      ? NVME_SC_SUCCESS
      : NVME_SC_INVALID_FIELD;
  }

  /**
   * Carries out a Zone Management Send.
   *
   * @param zone Its zone, if it is for one.
   * @param action `NVME_ZONE_*`.
   * @param all Whether it is for all zones: closed ones are opened, open ones closed,
   *   both finished, those neither empty nor read-only nor offline emptied,
   *   read-only ones taken offline.
   * @returns A status; nothing has changed if it is not success: INVALID_TRANSITION
   *   where the zone's condition or type does not allow it, TOO_MANY_ACTIVE,
   *   TOO_MANY_OPEN.
   */
  manage(zone: number, action: number, all: boolean): number {
    if (all) return this.#manageAll(action);
    switch (action) {
      case NVME_ZONE_OPEN:
        return this.#openZone(zone);
      case NVME_ZONE_CLOSE:
        return this.#closeZone(zone);
      case NVME_ZONE_FINISH:
        return this.#finishZone(zone);
      case NVME_ZONE_RESET:
        return this.#resetZone(zone);
      default:
        return this.#offlineZone(zone);
    }
  }

  /**
   * Lets a zone fail: from now on it is read-only or offline, for good. What it held
   * of the limits is free again, and its write pointer says nothing any more.
   *
   * @param cond `BLK_ZONE_COND_READONLY` or `BLK_ZONE_COND_OFFLINE`.
   * @returns 0, or -EINVAL if it is another condition, or no sequential zone.
   */
  fail(zone: number, cond: number): number {
    const isZone = Number.isInteger(zone) && zone < this.nrZones &&
      zone >= this.options.conventional;
    if (!isZone) return -EINVAL;
    if (cond !== BLK_ZONE_COND_READONLY && cond !== BLK_ZONE_COND_OFFLINE) {
      return -EINVAL;
    }
    this.#epoch[zone]!++;
    this.#set(zone, cond);
    return 0;
  }

  /** The namespace has been formatted: all zones that have not failed are empty. */
  format(): void {
    this.#durable.fill(0);
    this.#durableFull.fill(0);
    this.powerUp();
  }

  /**
   * A change of a zone has reached stable media, together with all before it: after
   * a loss of power it is there.
   *
   * @param zone Sequential zone.
   * @param wp Bytes of the zone that are durable.
   * @param full Whether the zone has been finished after them.
   */
  persisted(zone: number, wp: number, full: boolean): void {
    this.#durable[zone] = wp / this.options.blockSize;
    this.#durableFull[zone] = full ? 1 : 0;
  }

  /**
   * Power is back. A zone is empty, full or closed, as its durable write pointer
   * says. If more are closed than may be active, because an emptied zone has come back,
   * the controller finishes those with the highest numbers.
   */
  powerUp(): void {
    const { conventional } = this.options;
    for (let zone = conventional; zone < this.nrZones; zone++) {
      this.#epoch[zone]!++;
      this.#wp[zone] = this.#durable[zone]!;
      this.#next[zone] = this.#durable[zone]!;
      const isLost = this.#cond[zone]! === BLK_ZONE_COND_READONLY ||
        this.#cond[zone] === BLK_ZONE_COND_OFFLINE;
      if (!isLost) this.#set(zone, BLK_ZONE_COND_EMPTY);
    }
    for (let zone = conventional; zone < this.nrZones; zone++) {
      if (this.#cond[zone] === BLK_ZONE_COND_EMPTY) this.#powerUpZone(zone);
    }
  }

  #powerUpZone(zone: number): void {
    const { maxActive } = this.options;
    const wp = this.#wp[zone]!;
    this.#notes[zone] = 0;
    if (wp === this.#capacity(zone)) this.#set(zone, BLK_ZONE_COND_FULL);
    else if (this.#durableFull[zone] !== 0) this.#fill(zone, FINISHED);
    else if (wp === 0) return;
    else if (maxActive === 0 || this.active < maxActive) {
      this.#set(zone, BLK_ZONE_COND_CLOSED);
    } else {
      this.#fill(zone, FINISHED | BY_CONTROLLER);
      this.#durableFull[zone] = 1;
    }
  }

  /**
   * Fills a report (Zone Management Receive): a header with the number of zones, and
   * as many descriptors as there is room for.
   *
   * @param at Byte; the report begins with the zone that it lies in.
   * @param filter Zones of which state (ZRASF): 0 all, 1 empty, 2 implicitly open, 3
   *   explicitly open, 4 closed, 5 full, 6 read-only, 7 offline.
   * @param partial Whether the number is that of the descriptors that are returned;
   *   else of all that match from there to the end.
   * @param out Filled whole; at least 64 bytes.
   * @returns A status: LBA_RANGE beyond the namespace; INVALID_FIELD for a filter that
   *   does not exist or a buffer without room for the header.
   */
  report(
    at: number,
    filter: number,
    partial: boolean,
    out: Uint8Array,
  ): number {
    const wanted = FILTERS[filter];
    if (wanted === undefined || out.length < NVME_ZONE_DESCRIPTOR_SIZE) {
      return NVME_SC_INVALID_FIELD;
    }
    if (at >= this.options.size) return NVME_SC_LBA_RANGE;
    out.fill(0);
    const view = new DataView(out.buffer, out.byteOffset, out.length);
    const room = Math.floor(out.length / NVME_ZONE_DESCRIPTOR_SIZE) - 1;
    let count = 0;
    for (let zone = this.zoneOf(at); zone < this.nrZones; zone++) {
      if (wanted !== ANY && this.#cond[zone] !== wanted) continue;
      if (count < room) {
        this.#describe(view, (count + 1) * NVME_ZONE_DESCRIPTOR_SIZE, zone);
      } else if (partial) break;
      count++;
    }
    view.setUint32(0, count, true);
    return NVME_SC_SUCCESS;
  }

  #describe(view: DataView, at: number, zone: number): void {
    const { blockSize, zoneSize, size, conventional } = this.options;
    const cond = this.#cond[zone]!;
    const isConventional = zone < conventional;
    const start = zone * zoneSize / blockSize;
    const len = Math.min(zoneSize, size - zone * zoneSize) / blockSize;
    view.setUint8(
      at,
      isConventional ? BLK_ZONE_TYPE_CONVENTIONAL : BLK_ZONE_TYPE_SEQWRITE_REQ,
    );
    view.setUint8(at + 1, cond << 4);
    if ((this.#notes[zone]! & BY_CONTROLLER) !== 0) {
      view.setUint8(at + 2, NVME_ZONE_ATTR_FINISHED_BY_CONTROLLER);
    }
    putU64(view, at + 8, isConventional ? len : this.#capacity(zone));
    putU64(view, at + 16, start);
    if (hasWritePointer(cond)) putU64(view, at + 24, start + this.#wp[zone]!);
    else view.setBigUint64(at + 24, NO_WRITE_POINTER, true);
  }

  /** Blocks of a sequential zone that can be written. */
  #capacity(zone: number): number {
    if (zone === this.nrZones - 1) return this.#lastCapacity;
    return this.options.zoneCapacity / this.options.blockSize;
  }

  /** Anywhere, as long as it stays among conventional zones. */
  #conventionalWrite(c: ZonedCommand): number {
    const { conventional, zoneSize } = this.options;
    c.zone = -1;
    c.opened = false;
    return c.at + c.len > conventional * zoneSize
      ? NVME_SC_ZONE_BOUNDARY_ERROR
      : NVME_SC_SUCCESS;
  }

  #writable(zone: number): number {
    switch (this.#cond[zone]) {
      case BLK_ZONE_COND_FULL:
        return NVME_SC_ZONE_FULL;
      case BLK_ZONE_COND_READONLY:
        return NVME_SC_ZONE_READ_ONLY;
      case BLK_ZONE_COND_OFFLINE:
        return NVME_SC_ZONE_OFFLINE;
      default:
        return NVME_SC_SUCCESS;
    }
  }

  /** The last two checks of a write; then it has its place. */
  #advance(c: ZonedCommand, zone: number): number {
    const blocks = c.len / this.options.blockSize;
    const next = this.#next[zone]!;
    if (blocks > this.#capacity(zone) - next) {
      return NVME_SC_ZONE_BOUNDARY_ERROR;
    }
    const cond = this.#cond[zone];
    c.opened = cond === BLK_ZONE_COND_EMPTY || cond === BLK_ZONE_COND_CLOSED;
    if (c.opened) {
      const status = this.#reserve(cond === BLK_ZONE_COND_EMPTY);
      if (status !== NVME_SC_SUCCESS) return status;
      this.#set(zone, BLK_ZONE_COND_IMP_OPEN);
    }
    this.#next[zone] = next + blocks;
    c.zone = zone;
    c.epoch = this.#epoch[zone]!;
    return NVME_SC_SUCCESS;
  }

  /** Sees to it that one more zone may be open.
   * @param activate Whether it is not active yet. */
  #reserve(activate: boolean): number {
    const { maxOpen, maxActive } = this.options;
    if (activate && maxActive !== 0 && this.active >= maxActive) {
      return NVME_SC_ZONE_TOO_MANY_ACTIVE;
    }
    if (maxOpen === 0 || this.open < maxOpen) return NVME_SC_SUCCESS;
    if (this.#oldest < 0) return NVME_SC_ZONE_TOO_MANY_OPEN;
    this.#shut(
      this.options.flavor === "zns" ? this.#oldest : this.#inTurn(),
    );
    return NVME_SC_SUCCESS;
  }

  /** The implicitly open zone that comes first, by number, from `#closeFrom` on. */
  #inTurn(): number {
    let first = this.nrZones;
    let next = this.nrZones;
    for (let zone = this.#oldest; zone >= 0; zone = this.#newer[zone]!) {
      first = Math.min(first, zone);
      if (zone >= this.#closeFrom) next = Math.min(next, zone);
    }
    const zone = next < this.nrZones ? next : first;
    this.#closeFrom = zone + 1;
    return zone;
  }

  #openZone(zone: number): number {
    switch (this.#cond[zone]) {
      case BLK_ZONE_COND_EXP_OPEN:
        return NVME_SC_SUCCESS;
      case BLK_ZONE_COND_EMPTY:
      case BLK_ZONE_COND_CLOSED: {
        const activate = this.#cond[zone] === BLK_ZONE_COND_EMPTY;
        const status = this.#reserve(activate);
        if (status !== NVME_SC_SUCCESS) return status;
        break;
      }
      case BLK_ZONE_COND_IMP_OPEN:
        break;
      default:
        return NVME_SC_ZONE_INVALID_TRANSITION;
    }
    this.#set(zone, BLK_ZONE_COND_EXP_OPEN);
    return NVME_SC_SUCCESS;
  }

  #closeZone(zone: number): number {
    switch (this.#cond[zone]) {
      case BLK_ZONE_COND_IMP_OPEN:
      case BLK_ZONE_COND_EXP_OPEN:
        this.#shut(zone);
        return NVME_SC_SUCCESS;
      case BLK_ZONE_COND_CLOSED:
        return NVME_SC_SUCCESS;
      default:
        return NVME_SC_ZONE_INVALID_TRANSITION;
    }
  }

  /** Closes an open zone. */
  #shut(zone: number): void {
    const unused = this.#next[zone] === 0;
    this.#set(
      zone,
      unused && this.options.flavor === "zbc"
        ? BLK_ZONE_COND_EMPTY
        : BLK_ZONE_COND_CLOSED,
    );
  }

  #finishZone(zone: number): number {
    const cond = this.#cond[zone];
    switch (cond) {
      case BLK_ZONE_COND_FULL:
        return NVME_SC_SUCCESS;
      case BLK_ZONE_COND_EMPTY:
      case BLK_ZONE_COND_CLOSED: {
        if (this.options.flavor === "zns") break;
        const status = this.#reserve(cond === BLK_ZONE_COND_EMPTY);
        if (status !== NVME_SC_SUCCESS) return status;
        break;
      }
      case BLK_ZONE_COND_IMP_OPEN:
      case BLK_ZONE_COND_EXP_OPEN:
        break;
      default:
        return NVME_SC_ZONE_INVALID_TRANSITION;
    }
    this.#finish(zone);
    return NVME_SC_SUCCESS;
  }

  #finish(zone: number): void {
    this.#fill(zone, FINISHED);
    this.#changed(zone, NVME_ZONE_FINISH);
  }

  /** Makes a zone full before its time. */
  #fill(zone: number, notes: number): void {
    this.#epoch[zone]!++;
    this.#notes[zone] = notes;
    this.#next[zone] = this.#wp[zone]!;
    this.#set(zone, BLK_ZONE_COND_FULL);
  }

  #resetZone(zone: number): number {
    switch (this.#cond[zone]) {
      case BLK_ZONE_COND_EMPTY:
        return NVME_SC_SUCCESS;
      case BLK_ZONE_COND_IMP_OPEN:
      case BLK_ZONE_COND_EXP_OPEN:
      case BLK_ZONE_COND_CLOSED:
      case BLK_ZONE_COND_FULL:
        break;
      default:
        return NVME_SC_ZONE_INVALID_TRANSITION;
    }
    this.#epoch[zone]!++;
    this.#notes[zone] = 0;
    this.#wp[zone] = 0;
    this.#next[zone] = 0;
    this.#set(zone, BLK_ZONE_COND_EMPTY);
    this.#changed(zone, NVME_ZONE_RESET);
    return NVME_SC_SUCCESS;
  }

  #offlineZone(zone: number): number {
    switch (this.#cond[zone]) {
      case BLK_ZONE_COND_READONLY:
        this.fail(zone, BLK_ZONE_COND_OFFLINE);
        return NVME_SC_SUCCESS;
      case BLK_ZONE_COND_OFFLINE:
        return NVME_SC_SUCCESS;
      default:
        return NVME_SC_ZONE_INVALID_TRANSITION;
    }
  }

  #manageAll(action: number): number {
    const { maxOpen } = this.options;
    const closed = this.#count[BLK_ZONE_COND_CLOSED]!;
    // All or none: no zone is closed to make room for another of the same command.
    if (
      action === NVME_ZONE_OPEN && maxOpen !== 0 && this.open + closed > maxOpen
    ) {
      return NVME_SC_ZONE_TOO_MANY_OPEN;
    }
    for (const zone of this.selected(action)) {
      // None stays open that another could need.
      if (action === NVME_ZONE_FINISH) this.#finish(zone);
      else this.manage(zone, action, false);
    }
    return NVME_SC_SUCCESS;
  }

  /** Zones that a command for all of them would change now. */
  *selected(action: number): Generator<number> {
    const { conventional } = this.options;
    for (let zone = conventional; zone < this.nrZones; zone++) {
      if (isSelected(action, this.#cond[zone]!)) yield zone;
    }
  }

  /** Every change of a condition goes through here. */
  #set(zone: number, cond: number): void {
    const old = this.#cond[zone]!;
    if (old === cond) return;
    if (old === BLK_ZONE_COND_IMP_OPEN) this.#unlink(zone);
    if (cond === BLK_ZONE_COND_IMP_OPEN) this.#link(zone);
    this.#count[old]!--;
    this.#count[cond]!++;
    this.#cond[zone] = cond;
  }

  #link(zone: number): void {
    this.#older[zone] = this.#newest;
    this.#newer[zone] = -1;
    if (this.#newest < 0) this.#oldest = zone;
    else this.#newer[this.#newest] = zone;
    this.#newest = zone;
  }

  #unlink(zone: number): void {
    const older = this.#older[zone]!;
    const newer = this.#newer[zone]!;
    if (older < 0) this.#oldest = newer;
    else this.#newer[older] = newer;
    if (newer < 0) this.#newest = older;
    else this.#older[newer] = older;
  }
}

/** Of a report's filter: zones in any condition. */
const ANY = -1;
/** Conditions by a report's filter. */
const FILTERS: readonly number[] = [
  ANY,
  BLK_ZONE_COND_EMPTY,
  BLK_ZONE_COND_IMP_OPEN,
  BLK_ZONE_COND_EXP_OPEN,
  BLK_ZONE_COND_CLOSED,
  BLK_ZONE_COND_FULL,
  BLK_ZONE_COND_READONLY,
  BLK_ZONE_COND_OFFLINE,
];
const NO_WRITE_POINTER = 2n ** 64n - 1n;

function hasWritePointer(cond: number): boolean {
  return cond >= BLK_ZONE_COND_EMPTY && cond <= BLK_ZONE_COND_CLOSED;
}

/** Whether a command for all zones is for one in such a condition. */
function isSelected(action: number, cond: number): boolean {
  const isOpen = cond === BLK_ZONE_COND_IMP_OPEN ||
    cond === BLK_ZONE_COND_EXP_OPEN;
  const isClosed = cond === BLK_ZONE_COND_CLOSED;
  switch (action) {
    case NVME_ZONE_OPEN:
      return isClosed;
    case NVME_ZONE_CLOSE:
      return isOpen;
    case NVME_ZONE_FINISH:
      return isOpen || isClosed;
    case NVME_ZONE_RESET:
      return isOpen || isClosed || cond === BLK_ZONE_COND_FULL;
    default:
      return cond === BLK_ZONE_COND_READONLY;
  }
}
