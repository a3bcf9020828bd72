/**
 * Zoned devices as the block layer sees them: reports and management of zones, what
 * is cached of them, and the plugging of writes.
 *
 * A device refuses a write that is not at its zone's write pointer, and nothing keeps
 * requests in order on their way. So at most one write of each zone is under way: the
 * zone's plug keeps those that follow, and sends the next when one is done. The plug
 * knows the write pointer beforehand, which lets an append be a write where the
 * device has no append of its own. A zone that is neither empty nor full has a plug
 * whenever the write pointer has to be known.
 *
 * Kernel counterpart: block/blk-zoned.c, include/uapi/linux/blkzoned.h.
 *
 * @module
 */

import {
  Bio,
  BIO_EMULATES_ZONE_APPEND,
  BIO_ZONE_WRITE_PLUGGING,
  bioChain,
  bioEndWith,
  submitBio,
  submitBioWait,
} from "./bio.ts";
import type { Request } from "./blk-request.ts";
import { bioAttemptBackMerge, blkRqMergeOk } from "./blk-mq-merge.ts";
import { isPowerOfTwo, queueLimitsCommitUpdate } from "./blk-settings.ts";
import {
  BLK_STS_IOERR,
  BLK_STS_OK,
  opIsZoneMgmt,
  REQ_NOMERGE,
  REQ_NOWAIT,
  REQ_OP_MASK,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_OP_ZONE_APPEND,
  REQ_OP_ZONE_FINISH,
  REQ_OP_ZONE_RESET,
  REQ_OP_ZONE_RESET_ALL,
  REQ_POLLED,
  REQ_SYNC,
  reqOp,
  SECTOR_SIZE,
} from "./blk-types.ts";
import {
  bdevIsZoned,
  bdevIsZoneStart,
  BLK_FEAT_ROTATIONAL,
  type BlockDevice,
} from "./blkdev.ts";
import { warnOnOnce } from "../lib/bug.ts";
import { EINVAL, EIO, ENODEV, EOPNOTSUPP, EPERM } from "../lib/errno.ts";
import { andThen, type MaybePromise, repeat } from "../lib/maybe-promise.ts";

/** Can be written anywhere. */
export const BLK_ZONE_TYPE_CONVENTIONAL = 1;
/** Must be written in order. */
export const BLK_ZONE_TYPE_SEQWRITE_REQ = 2;
/** Should be written in order; such devices are refused. */
export const BLK_ZONE_TYPE_SEQWRITE_PREF = 3;

/** Has no write pointer: a conventional zone. */
export const BLK_ZONE_COND_NOT_WP = 0x0;
/** Nothing written. */
export const BLK_ZONE_COND_EMPTY = 0x1;
/** Opened by a write. */
export const BLK_ZONE_COND_IMP_OPEN = 0x2;
/** Opened by a command. */
export const BLK_ZONE_COND_EXP_OPEN = 0x3;
/** Partly written and closed. */
export const BLK_ZONE_COND_CLOSED = 0x4;
/** Can no longer be written. */
export const BLK_ZONE_COND_READONLY = 0xd;
/** Written to its capacity, or finished. */
export const BLK_ZONE_COND_FULL = 0xe;
/** Can neither be read nor written any more. */
export const BLK_ZONE_COND_OFFLINE = 0xf;
/** In cached information only: open or closed. */
export const BLK_ZONE_COND_ACTIVE = 0xff;

/** Write pointer of a zone in whose condition it says nothing (cached information). */
export const BLK_ZONE_NO_WP: number = Infinity;

/** What a report tells of a zone (kernel: `struct blk_zone`). Sectors. */
export interface BlkZone {
  /** First sector. */
  start: number;
  /** Sectors to the next zone. */
  len: number;
  /** Where the next write goes; of a full zone its end, or {@linkcode BLK_ZONE_NO_WP}. */
  wp: number;
  /** `BLK_ZONE_TYPE_*`. */
  type: number;
  /** `BLK_ZONE_COND_*`. */
  cond: number;
  /** Sectors from the start that can be written. */
  capacity: number;
}

/**
 * Takes one zone of a report (kernel: `report_zones_cb`). The zone is the callee's only
 * for the duration of the call.
 *
 * @param index Number of the zone in the report, from 0.
 * @returns 0, or what ends the report and becomes its result: a negative errno.
 */
export type ReportZonesCb = (zone: BlkZone, index: number) => number;

/** A write is under way, or will be. */
const BLK_ZONE_WPLUG_PLUGGED = 1 << 0;
/** A write has failed: where the write pointer is, only the device can tell. */
const BLK_ZONE_WPLUG_NEED_WP_UPDATE = 1 << 1;
/** Goes away as soon as nobody uses it: its zone is empty or full. */
const BLK_ZONE_WPLUG_DEAD = 1 << 2;

/** Holds the writes of one zone in order (kernel: `struct blk_zone_wplug`). */
export class ZoneWritePlug {
  /** Number of the zone. */
  readonly zone: number;
  /** Sectors from the zone's start to where the next write goes. */
  wpOffset: number;
  /** Condition of the zone: EMPTY, ACTIVE, FULL, READONLY or OFFLINE. */
  cond: number;
  /** OR of `BLK_ZONE_WPLUG_*`. */
  flags = 0;
  /** Bios and requests that are in it or under way. */
  users = 0;
  /** Waiting bios, linked through `next`. */
  head: Bio | null = null;
  /** The last of them. */
  tail: Bio | null = null;
  /** Whether {@linkcode unplug} is at work further up the stack. */
  draining = false;
  /** Whether it was called for again meanwhile. */
  again = false;
  /** Whether it stands in line for the disk's only write. */
  inLine = false;

  /**
   * A plug of a zone without writes.
   *
   * @param zone Number of the zone.
   * @param wpOffset Where its next write goes.
   * @param cond Its condition.
   */
  constructor(zone: number, wpOffset: number, cond: number) {
    this.zone = zone;
    this.wpOffset = wpOffset;
    this.cond = cond;
  }
}

/** What the block layer knows of a disk's zones (kernel: fields of `struct gendisk`). */
export class DiskZones {
  /** The disk. */
  readonly device: BlockDevice;
  /** Zones. */
  readonly nrZones: number;
  /** Sectors from one zone's start to the next. */
  readonly zoneSectors: number;
  /** Sectors of a sequential zone that can be written. */
  zoneCapacity = 0;
  /** Those of the last zone. */
  lastZoneCapacity = 0;
  /** Conditions of zones without a plug, as last seen; conventional ones are NOT_WP. */
  readonly conds: Uint8Array;
  /** Plugs by number of the zone. */
  readonly plugs: Map<number, ZoneWritePlug> = new Map();
  /** Whether the device itself appends: what is cached may be out of date since. */
  appendUsed = false;
  /** Whether one write at a time is under way on all of the disk, as heads would have
   * to move between zones (kernel: `QUEUE_FLAG_ZONED_QD1_WRITES`). */
  readonly qd1Writes: boolean;
  /** Plugs that stand in line for that, each once. */
  readonly line: ZoneWritePlug[] = [];
  /** The plug whose turn it is. */
  turn: ZoneWritePlug | null = null;
  /** Whether its write is under way. */
  writing = false;
  /** Whether writes are being issued further up the stack. */
  working = false;

  /**
   * Zones of which nothing is known yet.
   *
   * @param device The disk.
   */
  constructor(device: BlockDevice) {
    const { chunkSectors, features } = device.limits;
    this.device = device;
    this.zoneSectors = chunkSectors;
    this.nrZones = Math.ceil(device.nrSectors / chunkSectors);
    this.conds = new Uint8Array(this.nrZones);
    this.qd1Writes = (features & BLK_FEAT_ROTATIONAL) !== 0;
  }

  /** Number of the zone that a sector lies in (kernel: `disk_zone_no`). */
  zoneNo(sector: number): number {
    return Math.floor(sector / this.zoneSectors);
  }

  /** Condition of a zone, as far as is known here. */
  condOf(zone: number): number {
    return this.plugs.get(zone)?.cond ?? this.conds[zone]!;
  }

  /** Whether a plug's zone has no room left (kernel: `disk_zone_wplug_is_full`). */
  isFull(plug: ZoneWritePlug): boolean {
    return plug.wpOffset >= this.capacityOf(plug.zone);
  }

  /** Sectors of a sequential zone that can be written. */
  capacityOf(zone: number): number {
    return zone === this.nrZones - 1
      ? this.lastZoneCapacity
      : this.zoneCapacity;
  }
}

/** Whether a sector lies in a zone that must be written in order (kernel:
 * `bdev_zone_is_seq`). */
export function bdevZoneIsSeq(bdev: BlockDevice, sector: number): boolean {
  const { zones } = bdev;
  return zones !== null &&
    zones.conds[zones.zoneNo(sector)] !== BLK_ZONE_COND_NOT_WP;
}

/** Whether the block layer makes writes of appends (kernel: `bdev_emulates_zone_append`). */
export function bdevEmulatesZoneAppend(bdev: BlockDevice): boolean {
  return bdevIsZoned(bdev) && bdev.limits.maxHwZoneAppendSectors === 0;
}

/**
 * Asks the device about zones (kernel: `blkdev_report_zones`). A zone whose writes
 * failed can be written again afterwards.
 *
 * @param sector Sector in the first zone.
 * @param nrZones Most zones; `Infinity` for all.
 * @param cb Called for each.
 * @returns Zones reported, 0 from the end of the device on; -EOPNOTSUPP if it is not
 *   zoned; -EINVAL if `sector` or `nrZones` is no number of any; else what `cb` or the
 *   driver answered.
 */
export function blkdevReportZones(
  bdev: BlockDevice,
  sector: number,
  nrZones: number,
  cb: ReportZonesCb,
): MaybePromise<number> {
  if (!bdevIsZoned(bdev)) return -EOPNOTSUPP;
  if (!(sector >= 0 && nrZones >= 0)) return -EINVAL;
  if (nrZones === 0 || sector >= bdev.nrSectors) return 0;
  return bdev.reportZones(sector, nrZones, (zone, index) => {
    if (bdev.zones !== null) syncPlug(bdev.zones, zone);
    return cb(zone, index);
  });
}

/** Corrects a plug by what the device says of its zone, where it has to be (kernel:
 * `disk_zone_wplug_sync_state`). */
function syncPlug(zones: DiskZones, zone: BlkZone): void {
  const plug = zones.plugs.get(zones.zoneNo(zone.start));
  if (plug === undefined) return;
  if (isLost(zone.cond)) {
    plug.flags &= ~BLK_ZONE_WPLUG_NEED_WP_UPDATE;
    plug.cond = zone.cond;
    plug.wpOffset = Infinity;
    markDead(zones, plug);
  } else if ((plug.flags & BLK_ZONE_WPLUG_NEED_WP_UPDATE) !== 0) {
    setWpOffset(zones, plug, wpOffsetOf(zone));
  }
}

/** Zones of one round of {@linkcode blkdevZoneMgmt}: bios under way at once. */
const MGMT_BATCH = 64;

/**
 * Opens, closes, finishes or resets zones (kernel: `blkdev_zone_mgmt`). A reset of the
 * whole device is one RESET_ALL.
 *
 * @param op `REQ_OP_ZONE_OPEN`, `_CLOSE`, `_FINISH`, `_RESET` or `_RESET_ALL`.
 * @param sector Start of the first zone.
 * @param nrSectors Whole zones.
 * @returns 0; -EOPNOTSUPP if the device is not zoned or `op` manages no zones; -EPERM if
 *   it is read-only; -EINVAL if the range is none, passes the end or does not consist
 *   of zones; else the negative errno of the first zone that failed: -EIO where its
 *   condition does not allow it, -ETOOMANYREFS or -EOVERFLOW if more zones would be open
 *   or active than may be. The others have been done.
 */
export function blkdevZoneMgmt(
  bdev: BlockDevice,
  op: number,
  sector: number,
  nrSectors: number,
): MaybePromise<number> {
  if (!bdevIsZoned(bdev)) return -EOPNOTSUPP;
  if (bdev.readOnly) return -EPERM;
  if (!opIsZoneMgmt(op)) return -EOPNOTSUPP;
  const isRange = sector >= 0 && nrSectors > 0 &&
    nrSectors <= bdev.nrSectors - sector;
  if (!isRange || !bdevIsZoneStart(bdev, sector)) return -EINVAL;
  const end = sector + nrSectors;
  if (!bdevIsZoneStart(bdev, nrSectors) && end !== bdev.nrSectors) {
    return -EINVAL;
  }
  if (op === REQ_OP_ZONE_RESET && nrSectors === bdev.nrSectors) {
    return submitBioWait(new Bio(bdev, REQ_OP_ZONE_RESET_ALL | REQ_SYNC));
  }
  return manageRange(bdev, op, sector, end);
}

/** One bio for each zone; the first error counts. */
function manageRange(
  bdev: BlockDevice,
  op: number,
  sector: number,
  end: number,
): MaybePromise<number> {
  let error = 0;
  let at = sector;
  const step = () => {
    const batch = Math.min(end, at + MGMT_BATCH * bdev.limits.chunkSectors);
    const done = manageBatch(bdev, op, at, batch);
    at = batch;
    return andThen(done, (status) => {
      if (error === 0) error = status;
      return at < end;
    });
  };
  return andThen(repeat(step), () => error);
}

/** Chains a bio for each zone to the last, and waits for that. */
function manageBatch(
  bdev: BlockDevice,
  op: number,
  sector: number,
  end: number,
): MaybePromise<number> {
  let bio = new Bio(bdev, op | REQ_SYNC);
  bio.sector = sector;
  for (;;) {
    const following = bio.sector + bdev.limits.chunkSectors;
    if (following >= end) return submitBioWait(bio);
    const next = new Bio(bdev, op | REQ_SYNC);
    next.sector = following;
    bioChain(bio, next);
    submitBio(bio);
    bio = next;
  }
}

/**
 * What is known of a zone without asking the device (kernel: `blkdev_get_zone_info`).
 * An open or closed zone is ACTIVE. The device is asked after all if it appends by
 * itself, or a write to the zone has failed.
 *
 * @param sector Sector in the zone.
 * @param zone Filled.
 * @returns 0; -EOPNOTSUPP if the device is not zoned; -EINVAL beyond its end; else what
 *   the driver answered, -EIO if it knows no such zone.
 */
export function blkdevGetZoneInfo(
  bdev: BlockDevice,
  sector: number,
  zone: BlkZone,
): MaybePromise<number> {
  if (!bdevIsZoned(bdev)) return -EOPNOTSUPP;
  if (!(sector >= 0 && sector < bdev.nrSectors)) return -EINVAL;
  const { zones } = bdev;
  if (zones === null || !isCacheValid(zones)) {
    return askZone(bdev, sector, zone);
  }
  const no = zones.zoneNo(sector);
  const plug = zones.plugs.get(no);
  if (plug !== undefined && plug.flags & BLK_ZONE_WPLUG_NEED_WP_UPDATE) {
    return askZone(bdev, sector, zone);
  }
  fillFromCache(zones, no, plug, zone);
  return 0;
}

/**
 * As {@linkcode blkdevReportZones}, from what is cached (kernel:
 * `blkdev_report_zones_cached`).
 *
 * @returns As there.
 */
export function blkdevReportZonesCached(
  bdev: BlockDevice,
  sector: number,
  nrZones: number,
  cb: ReportZonesCb,
): MaybePromise<number> {
  const { zones } = bdev;
  if (!bdevIsZoned(bdev) || zones === null || !isCacheValid(zones)) {
    return blkdevReportZones(bdev, sector, nrZones, (zone, index) => {
      collapse(zone);
      return cb(zone, index);
    });
  }
  if (!(sector >= 0 && nrZones >= 0)) return -EINVAL;
  if (nrZones === 0 || sector >= bdev.nrSectors) return 0;
  return reportCached(bdev, zones, sector, nrZones, cb);
}

function reportCached(
  bdev: BlockDevice,
  zones: DiskZones,
  sector: number,
  nrZones: number,
  cb: ReportZonesCb,
): MaybePromise<number> {
  const first = zones.zoneNo(sector);
  const count = Math.min(nrZones, zones.nrZones - first);
  const zone = emptyZone();
  let index = 0;
  let error = 0;
  const take = (status: number) => {
    error = status || cb(zone, index);
    return error === 0 && ++index < count;
  };
  const step = () =>
    andThen(
      blkdevGetZoneInfo(bdev, (first + index) * zones.zoneSectors, zone),
      take,
    );
  return andThen(repeat(step), () => error || index);
}

/** Whether what is cached is right (kernel: `blkdev_has_cached_report_zones`). */
function isCacheValid(zones: DiskZones): boolean {
  return bdevEmulatesZoneAppend(zones.device) || !zones.appendUsed;
}

function fillFromCache(
  zones: DiskZones,
  no: number,
  plug: ZoneWritePlug | undefined,
  zone: BlkZone,
): void {
  const cond = zones.condOf(no);
  const isConventional = cond === BLK_ZONE_COND_NOT_WP;
  zone.start = no * zones.zoneSectors;
  zone.len = Math.min(
    zones.zoneSectors,
    zones.device.nrSectors - zone.start,
  );
  zone.type = isConventional
    ? BLK_ZONE_TYPE_CONVENTIONAL
    : BLK_ZONE_TYPE_SEQWRITE_REQ;
  zone.cond = cond;
  zone.capacity = isConventional ? zone.len : zones.capacityOf(no);
  collapse(zone);
  const hasWp = cond !== BLK_ZONE_COND_NOT_WP && cond !== BLK_ZONE_COND_FULL &&
    !isLost(cond);
  zone.wp = hasWp ? zone.start + (plug?.wpOffset ?? 0) : BLK_ZONE_NO_WP;
}

/** Asks the device about one zone (kernel: `blkdev_report_zone_fallback`). */
function askZone(
  bdev: BlockDevice,
  sector: number,
  zone: BlkZone,
): MaybePromise<number> {
  const done = blkdevReportZones(bdev, sector, 1, (reported) => {
    Object.assign(zone, reported);
    collapse(zone);
    return 0;
  });
  return andThen(done, (n) => n === 0 ? -EIO : Math.min(n, 0));
}

function collapse(zone: BlkZone): void {
  if (isActive(zone.cond)) zone.cond = BLK_ZONE_COND_ACTIVE;
}

function emptyZone(): BlkZone {
  return { start: 0, len: 0, wp: 0, type: 0, cond: 0, capacity: 0 };
}

function isActive(cond: number): boolean {
  return cond >= BLK_ZONE_COND_IMP_OPEN && cond <= BLK_ZONE_COND_CLOSED;
}

function isLost(cond: number): boolean {
  return cond === BLK_ZONE_COND_READONLY || cond === BLK_ZONE_COND_OFFLINE;
}

/** Where a zone's next write goes; Infinity if nowhere (kernel: `blk_zone_wp_offset`). */
function wpOffsetOf(zone: BlkZone): number {
  if (isActive(zone.cond)) return zone.wp - zone.start;
  return zone.cond === BLK_ZONE_COND_EMPTY ? 0 : Infinity;
}

// Write plugging.

/**
 * Lets a bio pass the plug of its zone (kernel: `blk_zone_plug_bio`); called by the
 * multi-queue layer for bios of devices that have zones, once they fit the limits. A
 * bio that the plug lets go later carries `BIO_ZONE_WRITE_PLUGGING`, and does not come
 * here again.
 *
 * @returns Whether the plug has kept or ended it; false: it goes on as it is now.
 */
export function blkZonePlugBio(zones: DiskZones, bio: Bio): boolean {
  switch (reqOp(bio.opf)) {
    case REQ_OP_ZONE_APPEND:
      if (bdevEmulatesZoneAppend(zones.device)) return plugWrite(zones, bio);
      passNativeAppend(zones, bio);
      return false;
    case REQ_OP_WRITE:
    case REQ_OP_WRITE_ZEROES:
      // A flush writes to no zone.
      return bio.size !== 0 && plugWrite(zones, bio);
    default:
      return false;
  }
}

/** A write to a zone (kernel: `blk_zone_wplug_handle_write`). */
function plugWrite(zones: DiskZones, bio: Bio): boolean {
  const no = zones.zoneNo(bio.sector);
  const straddles = zones.zoneNo(bio.endSector - 1) !== no;
  if (warnOnOnce(straddles, "a write crosses from zone to zone")) {
    bioEndWith(bio, BLK_STS_IOERR);
    return true;
  }
  if (zones.conds[no] === BLK_ZONE_COND_NOT_WP) {
    if (reqOp(bio.opf) !== REQ_OP_ZONE_APPEND) return false;
    bioEndWith(bio, BLK_STS_IOERR);
    return true;
  }
  const plug = getPlug(zones, no, bio.sector - no * zones.zoneSectors);
  if (isDead(zones, plug)) {
    bioEndWith(bio, BLK_STS_IOERR);
    return true;
  }
  bio.flags |= BIO_ZONE_WRITE_PLUGGING;
  plug.users++;
  return enterPlug(zones, plug, bio);
}

/** Issues a write if it may go at once, else lets it wait. */
function enterPlug(
  zones: DiskZones,
  plug: ZoneWritePlug,
  bio: Bio,
): boolean {
  const isPlugged = (plug.flags & BLK_ZONE_WPLUG_PLUGGED) !== 0;
  // A bio that waits for nothing goes through the list too: whoever takes it from
  // there can wait for a tag, which its submitter would not.
  const nowait = (bio.opf & REQ_NOWAIT) !== 0;
  if (isPlugged || nowait || zones.qd1Writes) {
    addBio(plug, bio);
    plug.flags |= BLK_ZONE_WPLUG_PLUGGED;
    if (zones.qd1Writes) standInLine(zones, plug);
    else if (!isPlugged) drain(zones, plug);
    return true;
  }
  if (prepareBio(zones, plug, bio)) {
    plug.flags |= BLK_ZONE_WPLUG_PLUGGED;
    return false;
  }
  bioEndWith(bio, BLK_STS_IOERR);
  return true;
}

/** The plug of a zone; a new one believes the write that it is made for (kernel:
 * `disk_get_or_alloc_zone_wplug`). */
function getPlug(
  zones: DiskZones,
  no: number,
  wpOffset: number,
): ZoneWritePlug {
  let plug = zones.plugs.get(no);
  if (plug === undefined) {
    plug = new ZoneWritePlug(no, wpOffset, zones.conds[no]!);
    zones.plugs.set(no, plug);
  }
  return plug;
}

/** Whether a write comes too late, or too early (kernel: `disk_check_zone_wplug_dead`). */
function isDead(zones: DiskZones, plug: ZoneWritePlug): boolean {
  if (isLost(plug.cond)) {
    abort(zones, plug);
    markDead(zones, plug);
    return true;
  }
  if ((plug.flags & BLK_ZONE_WPLUG_DEAD) === 0) return false;
  // A zone that was reset may be written before the last write to it is forgotten.
  if (plug.wpOffset !== 0 || plug.head !== null) return true;
  plug.flags &= ~BLK_ZONE_WPLUG_DEAD;
  return false;
}

function addBio(plug: ZoneWritePlug, bio: Bio): void {
  // It will wait: whoever polls would poll in vain.
  bio.opf &= ~(REQ_NOWAIT | REQ_POLLED);
  bio.next = null;
  if (plug.tail === null) plug.head = bio;
  else plug.tail.next = bio;
  plug.tail = bio;
}

function popBio(plug: ZoneWritePlug): Bio | null {
  const bio = plug.head;
  if (bio === null) return null;
  plug.head = bio.next;
  if (plug.head === null) plug.tail = null;
  bio.next = null;
  return bio;
}

/** Last checks before a write is issued, and the move of the write pointer (kernel:
 * `blk_zone_wplug_prepare_bio`). */
function prepareBio(
  zones: DiskZones,
  plug: ZoneWritePlug,
  bio: Bio,
): boolean {
  if ((plug.flags & BLK_ZONE_WPLUG_NEED_WP_UPDATE) !== 0) return false;
  if (zones.isFull(plug) || isLost(plug.cond)) return false;
  const start = plug.zone * zones.zoneSectors;
  if (reqOp(bio.opf) === REQ_OP_ZONE_APPEND) {
    bio.opf = (bio.opf & ~REQ_OP_MASK) | REQ_OP_WRITE | REQ_NOMERGE;
    bio.sector = start + plug.wpOffset;
    bio.flags |= BIO_EMULATES_ZONE_APPEND;
  } else if (bio.sector !== start + plug.wpOffset) return false;
  advance(zones, plug, bio);
  return true;
}

function advance(zones: DiskZones, plug: ZoneWritePlug, bio: Bio): void {
  plug.wpOffset += bio.size / SECTOR_SIZE;
  updateCond(zones, plug);
}

function updateCond(zones: DiskZones, plug: ZoneWritePlug): void {
  if (zones.isFull(plug)) plug.cond = BLK_ZONE_COND_FULL;
  else if (plug.wpOffset === 0) plug.cond = BLK_ZONE_COND_EMPTY;
  else plug.cond = BLK_ZONE_COND_ACTIVE;
}

/** Issues what waits in a plug, one after the other as far as they end at once. */
function drain(zones: DiskZones, plug: ZoneWritePlug): void {
  // A write that ends at once asks for the next from within: one loop is enough.
  plug.again = true;
  if (plug.draining) return;
  plug.draining = true;
  while (plug.again) {
    plug.again = false;
    issueNext(zones, plug);
  }
  plug.draining = false;
  removeIfUnused(zones, plug);
}

/** Issues the next write of a plug (kernel: `disk_zone_wplug_submit_bio`).
 * @returns Whether there was one. */
function issueNext(zones: DiskZones, plug: ZoneWritePlug): boolean {
  for (;;) {
    const bio = popBio(plug);
    if (bio === null) {
      plug.flags &= ~BLK_ZONE_WPLUG_PLUGGED;
      return false;
    }
    if (prepareBio(zones, plug, bio)) {
      bio.bdev.submit(bio);
      return true;
    }
    failBio(plug, bio);
  }
}

/** Ends a waiting bio; that says nothing about the zone (kernel:
 * `blk_zone_wplug_bio_io_error`). */
function failBio(plug: ZoneWritePlug, bio: Bio): void {
  bio.flags &= ~BIO_ZONE_WRITE_PLUGGING;
  plug.users--;
  bioEndWith(bio, BLK_STS_IOERR);
}

/** Ends all that wait (kernel: `disk_zone_wplug_abort`). */
function abort(zones: DiskZones, plug: ZoneWritePlug): void {
  if (plug.head === null) return;
  plug.flags &= ~BLK_ZONE_WPLUG_PLUGGED;
  // Whoever is told may write to the zone again: that finds an empty list.
  let bio = plug.head;
  plug.head = null;
  plug.tail = null;
  if (plug.inLine) zones.line.splice(zones.line.indexOf(plug), 1);
  plug.inLine = false;
  for (;;) {
    const next = bio.next;
    bio.next = null;
    failBio(plug, bio);
    if (next === null) return;
    bio = next;
  }
}

/** The write pointer is known anew (kernel: `disk_zone_wplug_set_wp_offset`). */
function setWpOffset(
  zones: DiskZones,
  plug: ZoneWritePlug,
  wpOffset: number,
): void {
  plug.flags &= ~BLK_ZONE_WPLUG_NEED_WP_UPDATE;
  if (!isLost(plug.cond)) {
    plug.wpOffset = wpOffset;
    updateCond(zones, plug);
  }
  abort(zones, plug);
  markDeadIfIdle(zones, plug);
}

/** A plug that only says "empty" or "full" is not needed; one that has lost track may
 * say so by mistake. */
function markDeadIfIdle(zones: DiskZones, plug: ZoneWritePlug): void {
  if ((plug.flags & BLK_ZONE_WPLUG_NEED_WP_UPDATE) !== 0) return;
  if (plug.wpOffset === 0 || zones.isFull(plug)) markDead(zones, plug);
}

function markDead(zones: DiskZones, plug: ZoneWritePlug): void {
  plug.flags |= BLK_ZONE_WPLUG_DEAD;
  removeIfUnused(zones, plug);
}

function removeIfUnused(zones: DiskZones, plug: ZoneWritePlug): void {
  if ((plug.flags & BLK_ZONE_WPLUG_DEAD) === 0) return;
  if (plug.users > 0 || plug.draining || zones.turn === plug) return;
  // Removed already, and there may be another one since.
  if (zones.plugs.get(plug.zone) !== plug) return;
  zones.plugs.delete(plug.zone);
  zones.conds[plug.zone] = plug.cond;
}

/** An append that the device does itself: the plug knows nothing any more (kernel:
 * `blk_zone_wplug_handle_native_zone_append`). */
function passNativeAppend(zones: DiskZones, bio: Bio): void {
  zones.appendUsed = true;
  const plug = zones.plugs.get(zones.zoneNo(bio.sector));
  if (plug === undefined) return;
  // Writes and appends have no order: those that wait would fail at the device.
  abort(zones, plug);
  markDead(zones, plug);
}

// One write at a time on the whole disk.

/** Lets a plug stand in line, and begins with the first. */
function standInLine(zones: DiskZones, plug: ZoneWritePlug): void {
  if (!plug.inLine) {
    plug.inLine = true;
    zones.line.push(plug);
  }
  workOnLine(zones);
}

/** Issues the disk's next write (kernel: `disk_zone_wplugs_worker`): all of one plug,
 * then all of the next. */
function workOnLine(zones: DiskZones): void {
  // A write that ends at once comes here again: one loop is enough.
  if (zones.working) return;
  zones.working = true;
  while (!zones.writing) {
    const plug = zones.turn ?? nextInLine(zones);
    if (plug === null) break;
    zones.turn = plug;
    zones.writing = true;
    if (issueNext(zones, plug)) continue;
    zones.writing = false;
    zones.turn = null;
    removeIfUnused(zones, plug);
  }
  zones.working = false;
}

function nextInLine({ line }: DiskZones): ZoneWritePlug | null {
  const plug = line.shift() ?? null;
  if (plug !== null) plug.inLine = false;
  return plug;
}

// What the multi-queue layer tells of requests, and bio.ts of bios.

/**
 * A request has been made of a bio that went through a plug (kernel:
 * `blk_zone_write_plug_init_request`): what waits there and follows it joins it.
 */
export function blkZoneWritePlugInitRequest(rq: Request): void {
  const { zones } = rq.bio!.bdev;
  const plug = zones?.plugs.get(zones.zoneNo(rq.sector));
  if (zones === null || plug === undefined) return;
  rq.zonePlug = plug;
  plug.users++;
  if (rq.hctx.queue.nomerges === 2) return;
  while (plug.head !== null && !zones.isFull(plug)) {
    const bio = plug.head;
    const follows = bio.sector === rq.sector + rq.size / SECTOR_SIZE;
    if (!follows || !blkRqMergeOk(rq, bio)) return;
    popBio(plug);
    if (!bioAttemptBackMerge(rq, bio)) return pushBio(plug, bio);
    advance(zones, plug, bio);
  }
}

function pushBio(plug: ZoneWritePlug, bio: Bio): void {
  bio.next = plug.head;
  plug.head = bio;
  plug.tail ??= bio;
}

/**
 * A bio has joined the back of a request that holds a plug (kernel:
 * `blk_zone_write_plug_bio_merged`): the write pointer moves on.
 */
export function blkZoneWritePlugBioMerged(bio: Bio): void {
  // One that waited in the plug is counted where it is taken from there.
  if ((bio.flags & BIO_ZONE_WRITE_PLUGGING) !== 0) return;
  const { zones } = bio.bdev;
  const plug = zones?.plugs.get(zones.zoneNo(bio.sector));
  if (zones === null || plug === undefined) return;
  bio.flags |= BIO_ZONE_WRITE_PLUGGING;
  plug.users++;
  advance(zones, plug, bio);
}

/**
 * A request that holds a plug has ended (kernel: `blk_zone_write_plug_finish_request`):
 * the next write of its zone is issued. Called after its bios have ended, and once its
 * tag is free.
 */
export function blkZoneWritePlugFinish(
  { zones }: BlockDevice,
  plug: ZoneWritePlug,
): void {
  plug.users--;
  if (zones === null) return;
  if (plug.head === null) plug.flags &= ~BLK_ZONE_WPLUG_PLUGGED;
  markDeadIfIdle(zones, plug);
  if (zones.qd1Writes) {
    zones.writing = false;
    workOnLine(zones);
  } else if (plug.head !== null) drain(zones, plug);
  removeIfUnused(zones, plug);
}

/**
 * A bio of a device with zones has ended (kernel: `blk_zone_bio_endio`); called before
 * its `endIo` for those that manage zones or went through a plug. `bio.sector` must lie
 * in its zone still.
 */
export function blkZoneBioEndIo(bio: Bio): void {
  const { zones } = bio.bdev;
  if ((bio.flags & BIO_ZONE_WRITE_PLUGGING) !== 0) {
    bio.flags &= ~BIO_ZONE_WRITE_PLUGGING;
    if ((bio.flags & BIO_EMULATES_ZONE_APPEND) !== 0) {
      bio.opf = (bio.opf & ~REQ_OP_MASK) | REQ_OP_ZONE_APPEND;
      bio.flags &= ~BIO_EMULATES_ZONE_APPEND;
    }
    if (zones !== null) pluggedBioEnd(zones, bio);
  } else if (zones !== null && bio.status === BLK_STS_OK) mgmtEnd(zones, bio);
}

function pluggedBioEnd(zones: DiskZones, bio: Bio): void {
  const plug = zones.plugs.get(zones.zoneNo(bio.sector));
  if (plug === undefined) return;
  plug.users--;
  if (bio.status !== BLK_STS_OK) {
    plug.flags |= BLK_ZONE_WPLUG_NEED_WP_UPDATE;
    abort(zones, plug);
  }
  removeIfUnused(zones, plug);
}

/** Zones have been reset or finished (kernel: `blk_zone_mgmt_bio_endio`). */
function mgmtEnd(zones: DiskZones, bio: Bio): void {
  const no = zones.zoneNo(bio.sector);
  switch (reqOp(bio.opf)) {
    case REQ_OP_ZONE_RESET:
      return setZone(zones, no, 0, BLK_ZONE_COND_EMPTY);
    case REQ_OP_ZONE_FINISH:
      return setZone(zones, no, zones.zoneSectors, BLK_ZONE_COND_FULL);
    case REQ_OP_ZONE_RESET_ALL:
      for (let i = 0; i < zones.nrZones; i++) {
        setZone(zones, i, 0, BLK_ZONE_COND_EMPTY);
      }
      zones.appendUsed = false;
  }
}

/** A zone's write pointer is known, from its plug or its condition. */
function setZone(
  zones: DiskZones,
  no: number,
  wpOffset: number,
  cond: number,
): void {
  const plug = zones.plugs.get(no);
  if (plug !== undefined) return setWpOffset(zones, plug, wpOffset);
  const old = zones.conds[no]!;
  if (old !== BLK_ZONE_COND_NOT_WP && !isLost(old)) zones.conds[no] = cond;
}

// Registration.

/** Plugs that the kernel keeps ready where the device has no limits. */
const BLK_ZONE_WPLUG_DEFAULT_POOL_SIZE = 128;

/**
 * Looks at all zones of a device and makes what the block layer needs for them (kernel:
 * `blk_revalidate_disk_zones`); called by a driver whose limits have the zone size as
 * `chunkSectors`, before the first write. Limits on open and active zones that no
 * writer can reach are dropped; where the device has none, `maxOpenZones` becomes the
 * number of plugs that the kernel keeps ready.
 *
 * @returns 0; -ENODEV if the zones are not as they must be, and the device has none as
 *   far as the block layer is concerned: `bdev.zones` is null; else the driver's error.
 */
export function blkRevalidateDiskZones(
  bdev: BlockDevice,
): MaybePromise<number> {
  blkReleaseDiskZones(bdev);
  const { chunkSectors } = bdev.limits;
  if (bdev.nrSectors === 0 || !isPowerOfTwo(chunkSectors)) return -ENODEV;
  const zones = new DiskZones(bdev);
  const walk = new Revalidation(zones);
  const done = bdev.reportZones(0, Infinity, (zone) => walk.take(zone));
  return andThen(done, (n) => n < 0 ? n : walk.finish());
}

/** Gives up what the block layer has for a device's zones: waiting writes end with IOERR
 * (kernel: `disk_release_zone_resources`). */
export function blkReleaseDiskZones(bdev: BlockDevice): void {
  const { zones } = bdev;
  if (zones === null) return;
  bdev.zones = null;
  for (const plug of zones.plugs.values()) abort(zones, plug);
}

/** The checks of a walk over all zones (kernel: `struct blk_revalidate_zone_args`). */
class Revalidation {
  readonly #zones: DiskZones;
  /** Where the next zone must begin. */
  #sector = 0;
  #conventional = 0;

  constructor(zones: DiskZones) {
    this.#zones = zones;
  }

  /** Takes the next zone (kernel: `blk_revalidate_zone_cb`). */
  take(zone: BlkZone): number {
    const zones = this.#zones;
    const { nrSectors } = zones.device;
    if (zone.start !== this.#sector || zone.start >= nrSectors) return -ENODEV;
    const isLast = zone.start + zone.len >= nrSectors;
    const isLen = isLast
      ? zone.len > 0 && zone.len <= zones.zoneSectors
      : zone.len === zones.zoneSectors;
    const isCapacity = zone.capacity > 0 && zone.capacity <= zone.len;
    if (!isLen || !isCapacity || !isConsistent(zone)) return -ENODEV;
    zones.conds[zones.zoneNo(zone.start)] = zone.cond;
    this.#sector += zone.len;
    return zone.type === BLK_ZONE_TYPE_CONVENTIONAL
      ? this.#takeConventional(zone, isLast)
      : this.#takeSequential(zone, isLast);
  }

  #takeConventional(zone: BlkZone, isLast: boolean): number {
    if (zone.capacity !== zone.len) return -ENODEV;
    if (isLast) this.#zones.lastZoneCapacity = zone.capacity;
    this.#conventional++;
    return 0;
  }

  #takeSequential(zone: BlkZone, isLast: boolean): number {
    const zones = this.#zones;
    zones.zoneCapacity ||= zone.capacity;
    if (isLast) zones.lastZoneCapacity = zone.capacity;
    else if (zone.capacity !== zones.zoneCapacity) return -ENODEV;
    const wpOffset = wpOffsetOf(zone);
    if (wpOffset > 0 && wpOffset < zone.capacity) {
      const plug = getPlug(zones, zones.zoneNo(zone.start), wpOffset);
      plug.cond = BLK_ZONE_COND_ACTIVE;
    }
    return 0;
  }

  /** All have been seen (kernel: `disk_revalidate_zone_resources`). */
  finish(): number {
    const zones = this.#zones;
    const { device, nrZones } = zones;
    const sequential = nrZones - this.#conventional;
    if (this.#sector !== device.nrSectors || sequential <= 0) return -ENODEV;
    let { maxOpenZones, maxActiveZones } = device.limits;
    if (maxOpenZones >= sequential) maxOpenZones = 0;
    if (maxActiveZones >= sequential) maxActiveZones = 0;
    const isLimited = maxOpenZones !== 0 || maxActiveZones !== 0;
    if (!isLimited && sequential > BLK_ZONE_WPLUG_DEFAULT_POOL_SIZE) {
      maxOpenZones = BLK_ZONE_WPLUG_DEFAULT_POOL_SIZE;
    }
    const bad = queueLimitsCommitUpdate(device, {
      maxOpenZones,
      maxActiveZones,
    });
    if (bad !== null) return -EINVAL;
    device.zones = zones;
    return 0;
  }
}

/** Whether type and condition are known and go together. */
function isConsistent(zone: BlkZone): boolean {
  switch (zone.type) {
    case BLK_ZONE_TYPE_CONVENTIONAL:
      return zone.cond === BLK_ZONE_COND_NOT_WP;
    case BLK_ZONE_TYPE_SEQWRITE_REQ:
      return isActive(zone.cond) || isLost(zone.cond) ||
        zone.cond === BLK_ZONE_COND_EMPTY || zone.cond === BLK_ZONE_COND_FULL;
    default:
      return false;
  }
}
