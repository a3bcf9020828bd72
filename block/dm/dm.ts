/**
 * What all mapped devices share: limits stacked from the devices below, and
 * clones of bios that go there.
 *
 * A mapped device works on bios, not requests. A bio that arrives is left as it
 * is; a clone over the same memory goes below, and the bio ends when it has.
 * What is submitted from within `submit` only joins a list (see `blk-core.ts`),
 * so devices may be stacked to any height. A flush that comes with data is two
 * bios below: first every device is flushed, then the data goes.
 *
 * Kernel counterpart: drivers/md/dm.c, drivers/md/dm-table.c.
 *
 * @module
 */

import type { Clock } from "../../lib/clock.ts";
import { checkCount, EINVAL, FsError, show } from "../../lib/errno.ts";
import type { MaybePromise } from "../../lib/maybe-promise.ts";
import {
  Bio,
  bioChain,
  bioEndIo,
  bioEndWith,
  bioIsEmpty,
  submitBio,
} from "../bio.ts";
import { blockTracer, traceBlockRemap } from "../blktrace.ts";
import {
  bioPoll,
  BLK_POLL_ONESHOT,
  submitBioNoacctNocheck,
} from "../blk-core.ts";
import {
  BadLimit,
  blkSetStackingLimits,
  blkStackLimits,
  blkValidateLimits,
  diskUpdateReadahead,
} from "../blk-settings.ts";
import {
  BLK_STS_IOERR,
  BLK_STS_NOTSUPP,
  BLK_STS_OK,
  opIsZoneMgmt,
  REQ_OP_WRITE,
  REQ_OP_ZONE_APPEND,
  REQ_POLLED,
  REQ_PREFLUSH,
  REQ_SYNC,
  reqOp,
  SECTOR_SIZE,
} from "../blk-types.ts";
import { blkdevReportZones, type ReportZonesCb } from "../blk-zoned.ts";
import {
  bdevIsZoned,
  BLK_FEAT_ATOMIC_WRITES,
  BLK_FEAT_FUA,
  BLK_FEAT_NOWAIT,
  BLK_FEAT_POLL,
  BLK_FEAT_WRITE_CACHE,
  BLK_FEAT_ZONED,
  BlockDevice,
  type QueueLimits,
} from "../blkdev.ts";

/** The first major number that Linux has free for the device mapper. */
const DM_MAJOR = 253;

// What a kind of mapped device passes on beside reads, writes and flushes.
/** NOWAIT: it never waits itself (kernel: `DM_TARGET_NOWAIT`). */
export const DM_TARGET_NOWAIT: number = 1 << 0;
/** What concerns zones (kernel: `DM_TARGET_ZONED_HM`). */
export const DM_TARGET_ZONED_HM: number = 1 << 1;
/** Atomic writes, whole (kernel: `DM_TARGET_ATOMIC_WRITES`). */
export const DM_TARGET_ATOMIC_WRITES: number = 1 << 2;
/** DISCARD (kernel: `num_discard_bios`). */
export const DM_DISCARD: number = 1 << 3;
/** SECURE_ERASE (kernel: `num_secure_erase_bios`). */
export const DM_SECURE_ERASE: number = 1 << 4;
/** WRITE_ZEROES (kernel: `num_write_zeroes_bios`). */
export const DM_WRITE_ZEROES: number = 1 << 5;
/** Everything. */
export const DM_ALL: number = (1 << 6) - 1;

/** What every mapped device takes. */
export interface DmOptions {
  /**
   * Minor number, and the N of its name `dm-N`. One above the highest of the
   * mapped devices below it if absent, which two on the same device would share.
   */
  minor?: number;
}

/** A device below, and where in it the mapped device begins. */
export interface DmLeg {
  /** The device. */
  bdev: BlockDevice;
  /** Sector. */
  start: number;
}

/** What a kind of mapped device says of itself (kernel: `struct dm_target`). */
export interface DmTable {
  /** Devices below, at least 1. */
  legs: readonly DmLeg[];
  /** Size in sectors. */
  nrSectors: number;
  /** OR of `DM_*`: what it passes on (kernel: `target_type.features`, `num_*_bios`). */
  passes: number;
  /** Changes the limits that the devices below give (kernel: `io_hints`). */
  hints?: (limits: QueueLimits) => void;
}

/** A block device that is made of others (kernel: `struct mapped_device`). */
export abstract class DmDevice extends BlockDevice {
  /** Its name, `dm-0`. */
  override readonly name: string;
  /** The clock of the devices below. */
  override readonly clock: Clock;
  /** Limits stacked from those of the devices below. */
  override limits: QueueLimits;
  /** Size in 512-byte sectors. */
  override readonly nrSectors: number;
  /** Its number; the major is that of all mapped devices. */
  override readonly dev: { major: number; minor: number };
  readonly #legs: readonly DmLeg[];
  /** Clones that are to be polled and have not ended. */
  readonly #polled = new Set<Bio>();

  /**
   * Stacks a device (kernel: `dm_table_complete`, `dm_calculate_queue_limits`).
   *
   * @param table What it is made of.
   * @param options Its number.
   * @throws {FsError} EINVAL if a device below is none, or has another clock than
   *   the first, if the minor number or a start cannot be, if no limits fit all, or
   *   if a device below has zones that cannot be passed on, or not whole ones.
   */
  constructor(table: DmTable, options: DmOptions) {
    super();
    const { legs, nrSectors } = table;
    for (const { bdev } of legs) checkDevice(bdev, legs[0]!.bdev);
    for (const leg of legs) checkZones(leg, table);
    this.#legs = legs;
    this.clock = legs[0]!.bdev.clock;
    this.nrSectors = nrSectors;
    this.limits = tableLimits(table);
    const { minor = defaultMinor(legs) } = options;
    checkCount("minor", minor, 0, 2 ** 20 - 1);
    this.name = `dm-${minor}`;
    this.dev = { major: DM_MAJOR, minor };
    diskUpdateReadahead(this);
  }

  /**
   * Takes a bio; used by `submitBio` (kernel: `dm_submit_bio`). Beside what the
   * devices below say it may end with NOTSUPP (polled, and not all below can be) or
   * IOERR (not aligned to logical blocks, or a zone operation beyond its end).
   */
  override submit(bio: Bio): void {
    const size = this.limits.logicalBlockSize;
    const sectorMask = size / SECTOR_SIZE - 1;
    const unaligned =
      ((bio.size & (size - 1)) | (bio.sector & sectorMask)) !== 0;
    const beyond = opIsZoneMgmt(reqOp(bio.opf)) && bio.sector >= this.nrSectors;
    if (unaligned || beyond) return bioEndWith(bio, BLK_STS_IOERR);
    if ((bio.opf & REQ_POLLED) !== 0) {
      if ((this.limits.features & BLK_FEAT_POLL) === 0) {
        return bioEndWith(bio, BLK_STS_NOTSUPP);
      }
      // Which queues it goes to is known below.
      bio.cookie = 0;
    }
    if (bioIsEmpty(bio)) return bioEndIo(bio);
    if ((bio.opf & REQ_PREFLUSH) === 0) this.map(bio);
    else if (bio.size === 0) this.mapFlush(bio);
    else this.#flushFirst(bio);
  }

  /** Sends a bio on its way below, or ends it (kernel: `dm_map_fn`). */
  protected abstract map(bio: Bio): void;

  /** Sends an empty flush below; to be overridden where there are several devices. */
  protected mapFlush(bio: Bio): void {
    this.map(bio);
  }

  /**
   * Submits a clone; the bio ends when that has (kernel: `dm_submit_bio_remap`).
   *
   * @param bdev Where it goes.
   * @param sector First sector there.
   */
  protected pass(bio: Bio, bdev: BlockDevice, sector: number): void {
    this.passClone(bio, bioClone(bio, bdev, sector));
  }

  /** The same with a clone that the caller has made. */
  protected passClone(bio: Bio, clone: Bio): void {
    if (blockTracer !== null) traceBlockRemap(clone, this, bio.sector);
    if (reqOp(bio.opf) === REQ_OP_ZONE_APPEND) {
      clone.opf &= ~REQ_POLLED;
      clone.private = bio;
      clone.endIo = appended;
      return submitBio(clone);
    }
    if ((clone.opf & REQ_POLLED) !== 0) return this.#passPolled(bio, clone);
    bioChain(clone, bio);
    submitBio(clone);
    // Only the clone is left to be waited for.
    bioEndIo(bio);
  }

  /** Submits one of several parts of a bio, which its submitter has yet to end. */
  protected passPart(bio: Bio, part: Bio): void {
    if (blockTracer !== null) traceBlockRemap(part, this, bio.sector);
    part.private = bio;
    part.endIo = partEnded;
    bio.remaining++;
    submitBio(part);
  }

  #passPolled(bio: Bio, clone: Bio): void {
    this.#polled.add(clone);
    clone.private = bio;
    clone.endIo = this.#polledEnded;
    submitBio(clone);
  }

  readonly #polledEnded = (clone: Bio): void => {
    this.#polled.delete(clone);
    bioEndWith(clone.private as Bio, clone.status);
  };

  /** Polls where what is under way has gone (kernel: `dm_poll_bio`). */
  override poll(_cookie: number): number {
    let found = 0;
    // Those that come while these end are for the next look.
    for (const clone of [...this.#polled]) {
      found += bioPoll(clone, BLK_POLL_ONESHOT);
    }
    return found;
  }

  /** Reports the zones of the device below as its own (kernel: `dm_blk_report_zones`). */
  override reportZones(
    sector: number,
    nrZones: number,
    cb: ReportZonesCb,
  ): MaybePromise<number> {
    const { bdev, start } = this.#legs[0]!;
    // The device below may go on behind the end.
    const left = Math.ceil(this.nrSectors / this.limits.chunkSectors) -
      Math.floor(sector / this.limits.chunkSectors);
    const most = Math.min(nrZones, left);
    return blkdevReportZones(bdev, start + sector, most, (zone, index) => {
      zone.start -= start;
      zone.wp -= start;
      return cb(zone, index);
    });
  }

  #flushFirst(bio: Bio): void {
    const flush = new Bio(this, REQ_OP_WRITE | REQ_PREFLUSH | REQ_SYNC);
    flush.private = bio;
    flush.endIo = flushed;
    this.mapFlush(flush);
  }
}

/** All devices are flushed: the data may go. */
function flushed(flush: Bio): void {
  const bio = flush.private as Bio;
  if (flush.status !== BLK_STS_OK) return bioEndWith(bio, flush.status);
  bio.opf &= ~REQ_PREFLUSH;
  submitBioNoacctNocheck(bio);
}

/** Unlike in a chain the last of several errors counts (kernel: `dm_io_dec_pending`). */
function partEnded(part: Bio): void {
  const bio = part.private as Bio;
  if (part.status !== BLK_STS_OK) bio.status = part.status;
  bioEndIo(bio);
}

/** Tells where data was appended, in sectors of the mapped device (kernel:
 * `dm_zone_endio`). */
function appended(clone: Bio): void {
  const bio = clone.private as Bio;
  if (clone.status === BLK_STS_OK) {
    bio.sector += clone.sector % clone.bdev.limits.chunkSectors;
  }
  bioEndWith(bio, clone.status);
}

function checkDevice(bdev: BlockDevice, first: BlockDevice): void {
  if (!(bdev instanceof BlockDevice)) {
    throw new FsError(EINVAL, `${show(bdev)} is not a block device`);
  }
  if (bdev.clock !== first.clock) {
    throw new FsError(
      EINVAL,
      `Devices ${first.name} and ${bdev.name} go by different clocks`,
    );
  }
}

/** Kernel: `device_area_is_invalid`, `dm_table_supports_zoned`. */
function checkZones({ bdev, start }: DmLeg, table: DmTable): void {
  if (!bdevIsZoned(bdev)) return;
  if ((table.passes & DM_TARGET_ZONED_HM) === 0) {
    throw new FsError(
      EINVAL,
      `${bdev.name} has zones, which this kind of device does not pass on`,
    );
  }
  const { chunkSectors } = bdev.limits;
  const end = start + table.nrSectors;
  if (start % chunkSectors !== 0) {
    throw new FsError(
      EINVAL,
      `Start sector ${start} in ${bdev.name} is no zone's`,
    );
  }
  if (end % chunkSectors !== 0 && end !== bdev.nrSectors) {
    throw new FsError(EINVAL, `A zone of ${bdev.name} goes on behind ${end}`);
  }
}

function tableLimits({ legs, nrSectors, passes, hints }: DmTable): QueueLimits {
  let features = BLK_FEAT_POLL;
  if ((passes & DM_TARGET_NOWAIT) !== 0) features |= BLK_FEAT_NOWAIT;
  if ((passes & DM_TARGET_ATOMIC_WRITES) !== 0) {
    features |= BLK_FEAT_ATOMIC_WRITES;
  }
  const stacked = blkSetStackingLimits(features);
  for (const { bdev, start } of legs) {
    blkStackLimits(stacked, bdev.limits, start);
  }
  for (const { bdev, start } of legs) {
    if (start % (stacked.logicalBlockSize / SECTOR_SIZE) !== 0) {
      throw new FsError(
        EINVAL,
        `Start sector ${start} in ${bdev.name} is not aligned to logical blocks`,
      );
    }
  }
  restrictOps(stacked, legs, passes);
  limitZones(stacked, legs[0]!.bdev.limits, nrSectors);
  hints?.(stacked);
  // Where a device below has no FUA, its own block layer flushes.
  if ((stacked.features & BLK_FEAT_WRITE_CACHE) !== 0) {
    stacked.features |= BLK_FEAT_FUA;
  }
  const valid = blkValidateLimits(stacked);
  if (valid instanceof BadLimit) {
    throw new FsError(EINVAL, `No device has ${valid.field} ${valid.value}`);
  }
  return valid;
}

/** Takes away the operations that are not passed on, or that not all below have
 * (kernel: `dm_table_supports_discards` and its like). */
function restrictOps(
  limits: QueueLimits,
  legs: readonly DmLeg[],
  passes: number,
): void {
  const all = (flag: number, field: keyof QueueLimits) =>
    (passes & flag) !== 0 && legs.every(({ bdev }) => bdev.limits[field] !== 0);
  if (!all(DM_DISCARD, "maxDiscardSectors")) limits.maxHwDiscardSectors = 0;
  if (!all(DM_SECURE_ERASE, "maxSecureEraseSectors")) {
    limits.maxSecureEraseSectors = 0;
  }
  if (!all(DM_WRITE_ZEROES, "maxWriteZeroesSectors")) {
    limits.maxWriteZeroesSectors = 0;
    limits.maxHwWzeroesUnmapSectors = 0;
  }
}

/** A limit that its zones cannot reach is none (kernel: `dm_set_zones_restrictions`). */
function limitZones(t: QueueLimits, b: QueueLimits, nrSectors: number): void {
  if ((t.features & BLK_FEAT_ZONED) === 0) return;
  const zones = Math.ceil(nrSectors / b.chunkSectors);
  t.maxOpenZones = b.maxOpenZones < zones ? b.maxOpenZones : 0;
  t.maxActiveZones = b.maxActiveZones < zones ? b.maxActiveZones : 0;
}

function defaultMinor(legs: readonly DmLeg[]): number {
  const below = legs.map(({ bdev }) =>
    bdev instanceof DmDevice ? bdev.dev.minor : -1
  );
  return Math.max(...below) + 1;
}

/**
 * The table of a device that lies over the whole of another.
 *
 * @param passes OR of `DM_*`.
 */
export function wholeOf(bdev: BlockDevice, passes: number): DmTable {
  return { legs: [{ bdev, start: 0 }], nrSectors: bdev.nrSectors, passes };
}

/** A bio over the same memory for another device (kernel: `bio_alloc_clone`). */
export function bioClone(bio: Bio, bdev: BlockDevice, sector: number): Bio {
  const clone = new Bio(bdev, bio.opf, bio.vecs);
  clone.sector = sector;
  clone.size = bio.size;
  clone.vecIndex = bio.vecIndex;
  clone.vecDone = bio.vecDone;
  clone.ioprio = bio.ioprio;
  clone.writeHint = bio.writeHint;
  clone.writeStream = bio.writeStream;
  return clone;
}

/** What is left of a bio's memory, copied into one piece; zeroes where there is none. */
export function copyPayload(bio: Bio): Uint8Array {
  const copy = new Uint8Array(bio.size);
  let at = 0;
  let skip = bio.vecDone;
  for (let i = bio.vecIndex; at < copy.length && i < bio.vecs.length; i++) {
    const { data, offset, len } = bio.vecs[i]!;
    const n = Math.min(len - skip, copy.length - at);
    copy.set(data.subarray(offset + skip, offset + skip + n), at);
    at += n;
    skip = 0;
  }
  return copy;
}
