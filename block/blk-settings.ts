/**
 * Queue limits: what a driver says its device can do, checked and completed.
 *
 * Kernel counterpart: block/blk-settings.c.
 *
 * @module
 */

import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import { BIO_MAX_VECS } from "./bio.ts";
import { blkMqFreezeQueue, blkMqUnfreezeQueue } from "./blk-mq.ts";
import { SECTOR_SIZE } from "./blk-types.ts";
import {
  BLK_FEAT_ATOMIC_WRITES,
  BLK_FEAT_FUA,
  BLK_FEAT_NOWAIT,
  BLK_FEAT_PCI_P2PDMA,
  BLK_FEAT_POLL,
  BLK_FEAT_RAID_PARTIAL_STRIPES_EXPENSIVE,
  BLK_FEAT_ROTATIONAL,
  BLK_FEAT_STABLE_WRITES,
  BLK_FEAT_WRITE_CACHE,
  BLK_FEAT_ZONED,
  BLK_FLAG_MISALIGNED,
  BLK_FLAG_WRITE_CACHE_DISABLED,
  blkAtomicWriteStartSectAligned,
  type BlockDevice,
  type QueueLimits,
} from "./blkdev.ts";

const PAGE_SIZE = 4096;
/** Sectors of one page, the least that a device must take at a time. */
const PAGE_SECTORS = PAGE_SIZE / SECTOR_SIZE;
/** Largest I/O unless the device or the user asks for more, sectors. */
const BLK_DEF_MAX_SECTORS_CAP = 4 * 2 ** 20 / SECTOR_SIZE;
const BLK_SAFE_MAX_SECTORS = 255;
const BLK_MAX_SEGMENTS = 128;
const BLK_MAX_SEGMENT_SIZE = 65536;
const BLK_SEG_BOUNDARY_MASK = 0xffff_ffff;
const UINT_MAX = 0xffff_ffff;
const USHRT_MAX = 0xffff;
/** Pages that are read ahead at least. */
const VM_READAHEAD_PAGES = 32;

/** A limit that cannot be. */
export class BadLimit {
  /** Its name. */
  readonly field: keyof QueueLimits;
  /** The value given. */
  readonly value: number;

  /**
   * Names a field.
   *
   * @param field Its name.
   * @param value The value given.
   */
  constructor(field: keyof QueueLimits, value: number) {
    this.field = field;
    this.value = value;
  }
}

/**
 * Checks what a driver gives and derives the rest (kernel:
 * `blk_validate_limits`).
 *
 * @param given Fields as in {@linkcode QueueLimits}; what is absent or 0 gets the
 *   kernel's default. Fields that are derived are so always. Not changed.
 * @returns Limits to be put in force, or the first field that cannot be: the
 *   kernel's -EINVAL.
 */
export function blkValidateLimits(
  given: Partial<QueueLimits>,
): QueueLimits | BadLimit {
  const lim: QueueLimits = { ...NONE, ...given };
  const bad = validateNumbers(lim) ?? validateBlockSizes(lim) ??
    validateSectors(lim) ?? validateWithoutData(lim) ?? validateSegments(lim);
  if (bad !== null) return bad;
  if (lim.alignmentOffset !== 0) {
    lim.alignmentOffset &= lim.physicalBlockSize - 1;
    // Blocks that begin at a known offset can be aligned to.
    lim.flags &= ~BLK_FLAG_MISALIGNED;
  }
  if ((lim.features & BLK_FEAT_WRITE_CACHE) === 0) {
    lim.features &= ~BLK_FEAT_FUA;
  }
  deriveAtomicWrites(lim);
  return validateZoned(lim) ?? lim;
}

/**
 * Changes some of a device's limits (kernel: `queue_limits_commit_update`). For a
 * driver that knows its device to be idle: bios that have been split, and requests
 * that wait, would go on by the old ones.
 *
 * @param bdev The device, or a partition of it.
 * @param changes Fields with their new values; derived ones follow.
 * @returns Null, or the field that cannot be: nothing has changed then.
 */
export function queueLimitsCommitUpdate(
  bdev: BlockDevice,
  changes: Partial<QueueLimits>,
): BadLimit | null {
  const disk = bdev.whole;
  const lim = blkValidateLimits({ ...disk.limits, ...changes });
  if (lim instanceof BadLimit) return lim;
  disk.limits = lim;
  diskUpdateReadahead(disk);
  return null;
}

/**
 * The same for a device in use: bios that come wait until those that are under way
 * have ended, and the limits have changed (kernel:
 * `queue_limits_commit_update_frozen`). A device that works on bios is not waited for.
 *
 * @returns As {@linkcode queueLimitsCommitUpdate}.
 */
export function queueLimitsCommitUpdateFrozen(
  bdev: BlockDevice,
  changes: Partial<QueueLimits>,
): MaybePromise<BadLimit | null> {
  const queue = bdev.whole.requestQueue;
  if (queue === null) return queueLimitsCommitUpdate(bdev, changes);
  return andThen(blkMqFreezeQueue(queue), () => {
    const bad = queueLimitsCommitUpdate(bdev, changes);
    blkMqUnfreezeQueue(queue);
    return bad;
  });
}

/**
 * Turns a device's write cache "write back" or "write through" in the block layer's
 * eyes (kernel: attribute `write_cache`), once what is under way has ended. Written
 * through, no FLUSH and no FUA is sent any more; the device's cache is as volatile as
 * before.
 */
export function setWriteCache(
  bdev: BlockDevice,
  mode: "write back" | "write through",
): MaybePromise<void> {
  const { limits } = bdev.whole;
  const flags = mode === "write back"
    ? limits.flags & ~BLK_FLAG_WRITE_CACHE_DISABLED
    : limits.flags | BLK_FLAG_WRITE_CACHE_DISABLED;
  return andThen(queueLimitsCommitUpdateFrozen(bdev, { flags }), () => {});
}

/**
 * Lets files be read ahead as far as a device's limits make sensible (kernel:
 * `disk_update_readahead`). A driver calls it when its limits are in force. Never
 * takes back what a user has set.
 */
export function diskUpdateReadahead(bdev: BlockDevice): void {
  const { bdi, limits } = bdev;
  const rotational = (limits.features & BLK_FEAT_ROTATIONAL) !== 0;
  // A disk of old says nothing; the default would be small for it.
  const optimal = limits.ioOpt === 0 && rotational
    ? limits.maxSectors * SECTOR_SIZE
    : limits.ioOpt;
  bdi.raPages = Math.max(
    bdi.raPages,
    Math.floor(2 * optimal / PAGE_SIZE),
    VM_READAHEAD_PAGES,
  );
  bdi.ioPages = Math.floor(limits.maxSectors / PAGE_SECTORS);
}

const NONE: QueueLimits = {
  features: 0,
  flags: 0,
  logicalBlockSize: 0,
  physicalBlockSize: 0,
  alignmentOffset: 0,
  ioMin: 0,
  ioOpt: 0,
  maxHwSectors: 0,
  maxDevSectors: 0,
  maxUserSectors: 0,
  maxSectors: 0,
  chunkSectors: 0,
  maxSegments: 0,
  maxSegmentSize: 0,
  segBoundaryMask: 0,
  virtBoundaryMask: 0,
  dmaAlignment: 0,
  maxWriteZeroesSectors: 0,
  maxHwWzeroesUnmapSectors: 0,
  maxHwDiscardSectors: 0,
  maxUserDiscardSectors: UINT_MAX,
  maxDiscardSectors: 0,
  discardGranularity: 0,
  discardAlignment: 0,
  maxDiscardSegments: 0,
  maxSecureEraseSectors: 0,
  maxWriteStreams: 0,
  writeStreamGranularity: 0,
  maxHwZoneAppendSectors: 0,
  maxZoneAppendSectors: 0,
  maxOpenZones: 0,
  maxActiveZones: 0,
  zoneWriteGranularity: 0,
  atomicWriteHwMax: 0,
  atomicWriteHwUnitMin: 0,
  atomicWriteHwUnitMax: 0,
  atomicWriteHwBoundary: 0,
  atomicWriteMaxSectors: 0,
  atomicWriteUnitMin: 0,
  atomicWriteUnitMax: 0,
  atomicWriteBoundary: 0,
};

function bad(lim: QueueLimits, field: keyof QueueLimits): BadLimit {
  return new BadLimit(field, lim[field]);
}

/** The kernel's are unsigned integers. */
function validateNumbers(lim: QueueLimits): BadLimit | null {
  for (const field of Object.keys(NONE) as (keyof QueueLimits)[]) {
    if (!Number.isSafeInteger(lim[field]) || lim[field] < 0) {
      return bad(lim, field);
    }
  }
  return null;
}

/** Whether it is one, also beyond what `&` takes; what is no integer is none. */
export function isPowerOfTwo(n: number): boolean {
  return Number.isSafeInteger(n) && n > 0 &&
    2 ** Math.floor(Math.log2(n)) === n;
}

function validateBlockSizes(lim: QueueLimits): BadLimit | null {
  lim.logicalBlockSize ||= SECTOR_SIZE;
  const lbs = lim.logicalBlockSize;
  if (!isPowerOfTwo(lbs) || lbs < SECTOR_SIZE || lbs > 65536) {
    return bad(lim, "logicalBlockSize");
  }
  lim.physicalBlockSize = Math.max(lim.physicalBlockSize, lbs);
  if (!isPowerOfTwo(lim.physicalBlockSize)) {
    return bad(lim, "physicalBlockSize");
  }
  lim.ioMin = Math.max(lim.ioMin, lim.physicalBlockSize);
  lim.ioOpt -= lim.ioOpt % lim.physicalBlockSize;
  return null;
}

function validateSectors(lim: QueueLimits): BadLimit | null {
  const lbSectors = lim.logicalBlockSize / SECTOR_SIZE;
  lim.maxHwSectors ||= BLK_SAFE_MAX_SECTORS;
  if (lim.maxHwSectors < PAGE_SECTORS) return bad(lim, "maxHwSectors");
  // A logical block may be larger than a page.
  if (lim.maxHwSectors < lbSectors) return bad(lim, "maxHwSectors");
  lim.maxHwSectors -= lim.maxHwSectors % lbSectors;
  if (lim.maxUserSectors !== 0 && lim.maxUserSectors < PAGE_SECTORS) {
    return bad(lim, "maxUserSectors");
  }
  const cap = lim.maxUserSectors || defaultCap(lim);
  const most = minNotZero(lim.maxHwSectors, lim.maxDevSectors);
  lim.maxSectors = Math.min(most, cap);
  lim.maxSectors -= lim.maxSectors % lbSectors;
  return null;
}

/** A device that prefers more than the usual cap may have it. */
function defaultCap(lim: QueueLimits): number {
  for (const preferred of [lim.ioOpt, lim.ioMin]) {
    const sectors = preferred / SECTOR_SIZE;
    if (sectors > BLK_DEF_MAX_SECTORS_CAP) return sectors;
  }
  return BLK_DEF_MAX_SECTORS_CAP;
}

/** Limits of operations that have a range and no data. */
function validateWithoutData(lim: QueueLimits): BadLimit | null {
  const unmap = lim.maxHwWzeroesUnmapSectors;
  if (unmap !== 0 && unmap !== lim.maxWriteZeroesSectors) {
    return bad(lim, "maxHwWzeroesUnmapSectors");
  }
  lim.maxDiscardSectors = Math.min(
    lim.maxHwDiscardSectors,
    lim.maxUserDiscardSectors,
  );
  // Who cannot discard tells no granularity either.
  lim.discardGranularity = lim.maxDiscardSectors === 0
    ? 0
    : Math.max(lim.discardGranularity, lim.physicalBlockSize);
  lim.maxDiscardSegments ||= 1;
  return null;
}

function validateSegments(lim: QueueLimits): BadLimit | null {
  lim.maxSegments ||= BLK_MAX_SEGMENTS;
  lim.segBoundaryMask ||= BLK_SEG_BOUNDARY_MASK;
  if (lim.segBoundaryMask < PAGE_SIZE - 1) return bad(lim, "segBoundaryMask");
  // With a boundary the device addresses page by page: no segment is too large.
  lim.maxSegmentSize ||= lim.virtBoundaryMask !== 0
    ? UINT_MAX
    : BLK_MAX_SEGMENT_SIZE;
  if (lim.virtBoundaryMask === 0 && lim.maxSegmentSize < PAGE_SIZE) {
    return bad(lim, "maxSegmentSize");
  }
  lim.dmaAlignment ||= SECTOR_SIZE - 1;
  if (lim.dmaAlignment > PAGE_SIZE) return bad(lim, "dmaAlignment");
  return null;
}

/**
 * Works out which writes the block layer can keep whole (kernel:
 * `blk_validate_atomic_write_limits`): none if the device's own limits make no
 * sense together.
 */
function deriveAtomicWrites(lim: QueueLimits): void {
  const possible = atomicWritesPossible(lim);
  const unit = rounddownPowOfTwo(
    Math.min(lim.maxHwSectors * SECTOR_SIZE, maxGuaranteedBio(lim)),
  );
  const most = Math.floor(lim.atomicWriteHwMax / SECTOR_SIZE);
  lim.atomicWriteMaxSectors = possible ? Math.min(most, lim.maxHwSectors) : 0;
  lim.atomicWriteUnitMin = possible
    ? Math.min(lim.atomicWriteHwUnitMin, unit)
    : 0;
  lim.atomicWriteUnitMax = possible
    ? Math.min(lim.atomicWriteHwUnitMax, unit)
    : 0;
  lim.atomicWriteBoundary = possible ? lim.atomicWriteHwBoundary : 0;
}

function atomicWritesPossible(lim: QueueLimits): boolean {
  if ((lim.features & BLK_FEAT_ATOMIC_WRITES) === 0) return false;
  const max = lim.atomicWriteHwMax;
  if (max === 0) return false;
  const min = lim.atomicWriteHwUnitMin;
  const unitMax = lim.atomicWriteHwUnitMax;
  if (!isPowerOfTwo(min) || !isPowerOfTwo(unitMax)) return false;
  if (min > unitMax || unitMax > max) return false;
  const chunk = lim.chunkSectors;
  if (chunk !== 0 && Math.floor(max / SECTOR_SIZE) > chunk) return false;
  const boundary = lim.atomicWriteHwBoundary;
  return boundary < SECTOR_SIZE ||
    (max <= boundary && chunkFitsBoundary(chunk, boundary) &&
      isPowerOfTwo(boundary));
}

/** Whether a chunk and an atomic boundary never cut each other (kernel:
 * `blk_valid_atomic_writes_boundary`). */
function chunkFitsBoundary(chunkSectors: number, boundary: number): boolean {
  const cell = Math.floor(boundary / SECTOR_SIZE);
  if (chunkSectors === 0 || cell === 0) return true;
  return Math.max(cell, chunkSectors) % Math.min(cell, chunkSectors) === 0;
}

/** Bytes that a bio can have whatever its memory looks like (kernel:
 * `blk_queue_max_guaranteed_bio`): the first and the last piece may be small. */
function maxGuaranteedBio(lim: QueueLimits): number {
  const segments = Math.min(BIO_MAX_VECS, lim.maxSegments);
  return Math.min(segments, 2) * lim.logicalBlockSize +
    Math.max(segments - 2, 0) * PAGE_SIZE;
}

function rounddownPowOfTwo(n: number): number {
  return 2 ** Math.floor(Math.log2(n));
}

/** Kernel: `blk_validate_zoned_limits`. */
function validateZoned(lim: QueueLimits): BadLimit | null {
  if ((lim.features & BLK_FEAT_ZONED) === 0) {
    for (const field of ZONED_ONLY) {
      if (lim[field] !== 0) return bad(lim, field);
    }
    return null;
  }
  // An open zone is an active one.
  if (lim.maxActiveZones !== 0 && lim.maxOpenZones > lim.maxActiveZones) {
    return bad(lim, "maxOpenZones");
  }
  lim.zoneWriteGranularity = Math.max(
    lim.zoneWriteGranularity,
    lim.logicalBlockSize,
  );
  lim.maxZoneAppendSectors = minNotZero(
    lim.maxHwZoneAppendSectors,
    Math.min(lim.chunkSectors, lim.maxHwSectors),
  );
  return null;
}

/** What only a device with zones may have. */
const ZONED_ONLY = [
  "maxOpenZones",
  "maxActiveZones",
  "zoneWriteGranularity",
  "maxZoneAppendSectors",
] as const;

/**
 * Limits that a stacked device begins with: none but those of the devices that
 * {@linkcode blkStackLimits} adds (kernel: `blk_set_stacking_limits`).
 *
 * @param features What the device can do if all below it can: any of
 *   `BLK_FEAT_NOWAIT`, `BLK_FEAT_POLL`, `BLK_FEAT_ATOMIC_WRITES`.
 */
export function blkSetStackingLimits(features: number): QueueLimits {
  return {
    ...NONE,
    features,
    logicalBlockSize: SECTOR_SIZE,
    physicalBlockSize: SECTOR_SIZE,
    ioMin: SECTOR_SIZE,
    discardGranularity: SECTOR_SIZE,
    dmaAlignment: SECTOR_SIZE - 1,
    segBoundaryMask: BLK_SEG_BOUNDARY_MASK,
    maxSegments: USHRT_MAX,
    maxDiscardSegments: USHRT_MAX,
    maxHwSectors: UINT_MAX,
    maxSegmentSize: UINT_MAX,
    maxSectors: UINT_MAX,
    maxDevSectors: UINT_MAX,
    maxWriteZeroesSectors: UINT_MAX,
    maxHwWzeroesUnmapSectors: UINT_MAX,
    maxHwZoneAppendSectors: UINT_MAX,
    maxUserDiscardSectors: UINT_MAX,
    atomicWriteHwMax: UINT_MAX,
  };
}

/**
 * Narrows a stacked device's limits to what one more device below it can do
 * (kernel: `blk_stack_limits`). What does not line up is repaired, as the kernel
 * does it. The result still has to go through {@linkcode blkValidateLimits}.
 *
 * @param t The stacked device's, changed.
 * @param b The lower device's.
 * @param start Where in the lower device it begins, sectors.
 * @returns Whether the two line up (kernel: 0 or -1); if not, `t` is `BLK_FLAG_MISALIGNED`.
 */
export function blkStackLimits(
  t: QueueLimits,
  b: QueueLimits,
  start: number,
): boolean {
  t.features |= b.features & FEATURES_OF_ANY;
  t.features &= b.features | ~FEATURES_OF_ALL;
  t.flags |= b.flags & BLK_FLAG_MISALIGNED;
  for (const field of MIN_NOT_ZERO) t[field] = minNotZero(t[field], b[field]);
  for (const field of MIN) t[field] = Math.min(t[field], b[field]);
  const alignment = alignmentOffsetAt(b, start);
  let aligned = linesUp(t, b, alignment);
  for (const field of MAX) t[field] = Math.max(t[field], b[field]);
  t.ioOpt = lcmNotZero(t.ioOpt, b.ioOpt);
  t.chunkSectors = gcd(t.chunkSectors, b.chunkSectors);
  if (!repairMultiples(t)) aligned = false;
  t.alignmentOffset = lcmNotZero(t.alignmentOffset, alignment) %
    Math.max(t.physicalBlockSize, t.ioMin);
  if ((t.alignmentOffset & (t.logicalBlockSize - 1)) !== 0) aligned = false;
  if (!aligned) t.flags |= BLK_FLAG_MISALIGNED;
  for (const field of ROUNDED) t[field] = roundDownSectors(t, t[field]);
  if (b.discardGranularity !== 0) stackDiscard(t, b, start);
  if ((t.features & BLK_FEAT_ZONED) === 0) {
    t.zoneWriteGranularity = 0;
    t.maxZoneAppendSectors = 0;
  }
  if (!stackAtomicWrites(t, b, start)) {
    for (const field of ATOMIC_HW) t[field] = 0;
  }
  return aligned;
}

/** What a stacked device has if any below it has (kernel: `BLK_FEAT_INHERIT_MASK`). */
const FEATURES_OF_ANY = BLK_FEAT_WRITE_CACHE | BLK_FEAT_FUA |
  BLK_FEAT_ROTATIONAL | BLK_FEAT_STABLE_WRITES | BLK_FEAT_ZONED |
  BLK_FEAT_RAID_PARTIAL_STRIPES_EXPENSIVE;

/** What it has only if all below it have. */
const FEATURES_OF_ALL = BLK_FEAT_NOWAIT | BLK_FEAT_POLL | BLK_FEAT_PCI_P2PDMA;

/** Fields of which the smallest counts, 0 being none. */
const MIN_NOT_ZERO = [
  "maxSectors",
  "maxUserSectors",
  "maxHwSectors",
  "maxDevSectors",
  "segBoundaryMask",
  "virtBoundaryMask",
  "maxSegments",
  "maxDiscardSegments",
  "maxSegmentSize",
  "maxSecureEraseSectors",
] as const;

/** Fields of which the smallest counts, 0 being one. */
const MIN = [
  "maxWriteZeroesSectors",
  "maxHwWzeroesUnmapSectors",
  "maxHwZoneAppendSectors",
] as const;

/** Fields of which the largest counts. */
const MAX = [
  "logicalBlockSize",
  "physicalBlockSize",
  "ioMin",
  "dmaAlignment",
  "zoneWriteGranularity",
] as const;

/** Fields that are made whole logical blocks. */
const ROUNDED = ["maxSectors", "maxHwSectors", "maxDevSectors"] as const;

/** What a device says of its atomic writes. */
const ATOMIC_HW = [
  "atomicWriteHwMax",
  "atomicWriteHwUnitMin",
  "atomicWriteHwUnitMax",
  "atomicWriteHwBoundary",
] as const;

/** Kernel: `blk_round_down_sectors`. */
function roundDownSectors(lim: QueueLimits, sectors: number): number {
  const lbSectors = lim.logicalBlockSize / SECTOR_SIZE;
  return Math.max(sectors - sectors % lbSectors, PAGE_SECTORS);
}

function stackDiscard(t: QueueLimits, b: QueueLimits, start: number): void {
  t.maxDiscardSectors = minNotZero(t.maxDiscardSectors, b.maxDiscardSectors);
  t.maxHwDiscardSectors = minNotZero(
    t.maxHwDiscardSectors,
    b.maxHwDiscardSectors,
  );
  t.discardGranularity = Math.max(t.discardGranularity, b.discardGranularity);
  t.discardAlignment = lcmNotZero(
    t.discardAlignment,
    discardAlignmentAt(b, start),
  ) % t.discardGranularity;
}

/** Where the first unit of discards begins behind a sector, bytes (kernel:
 * `queue_limit_discard_alignment`). */
function discardAlignmentAt(lim: QueueLimits, sector: number): number {
  if (lim.maxDiscardSectors === 0) return 0;
  const granularity = lim.discardGranularity / SECTOR_SIZE;
  const alignment = Math.floor(lim.discardAlignment / SECTOR_SIZE);
  const past = sector % granularity;
  return (granularity + alignment - past) % granularity * SECTOR_SIZE;
}

/** Kernel: `blk_stack_atomic_writes_limits`.
 * @returns False if the stacked device can have no atomic writes. */
function stackAtomicWrites(
  t: QueueLimits,
  b: QueueLimits,
  start: number,
): boolean {
  if ((b.features & BLK_FEAT_ATOMIC_WRITES) === 0) return false;
  if (b.atomicWriteHwUnitMin === 0) return false;
  if (!blkAtomicWriteStartSectAligned(start, b)) return false;
  const first = t.atomicWriteHwMax === UINT_MAX;
  if (!(first ? stackFirstAtomic(t, b) : stackNextAtomic(t, b))) return false;
  if (t.chunkSectors !== 0) narrowAtomicToChunk(t);
  return true;
}

function stackFirstAtomic(t: QueueLimits, b: QueueLimits): boolean {
  if (!chunkFitsBoundary(t.chunkSectors, b.atomicWriteHwBoundary)) return false;
  for (const field of ATOMIC_HW) t[field] = b[field];
  return true;
}

function stackNextAtomic(t: QueueLimits, b: QueueLimits): boolean {
  if (t.atomicWriteHwBoundary !== b.atomicWriteHwBoundary) return false;
  if (t.atomicWriteHwUnitMin > b.atomicWriteHwUnitMax) return false;
  if (t.atomicWriteHwUnitMax < b.atomicWriteHwUnitMin) return false;
  t.atomicWriteHwMax = Math.min(t.atomicWriteHwMax, b.atomicWriteHwMax);
  t.atomicWriteHwUnitMin = Math.max(
    t.atomicWriteHwUnitMin,
    b.atomicWriteHwUnitMin,
  );
  t.atomicWriteHwUnitMax = Math.min(
    t.atomicWriteHwUnitMax,
    b.atomicWriteHwUnitMax,
  );
  return true;
}

/** A write must not cross a chunk, which may be no power of two (kernel:
 * `blk_stack_atomic_writes_chunk_sectors`). */
function narrowAtomicToChunk(t: QueueLimits): void {
  const chunk = t.chunkSectors * SECTOR_SIZE;
  let factor = SECTOR_SIZE;
  while (factor < chunk && chunk % (2 * factor) === 0) factor *= 2;
  t.atomicWriteHwUnitMax = Math.min(t.atomicWriteHwUnitMax, factor);
  t.atomicWriteHwUnitMin = Math.min(
    t.atomicWriteHwUnitMin,
    t.atomicWriteHwUnitMax,
  );
  t.atomicWriteHwMax = Math.min(t.atomicWriteHwMax, chunk);
}

function minNotZero(a: number, b: number): number {
  return a === 0 || b === 0 ? a + b : Math.min(a, b);
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}

function lcmNotZero(a: number, b: number): number {
  return a === 0 || b === 0 ? a + b : a / gcd(a, b) * b;
}

/** Where the first aligned block begins behind a sector, bytes (kernel:
 * `queue_limit_alignment_offset`). */
function alignmentOffsetAt(
  lim: QueueLimits,
  sector: number,
): number {
  const granularity = Math.max(lim.physicalBlockSize, lim.ioMin);
  const past = sector % (granularity / SECTOR_SIZE) * SECTOR_SIZE;
  return (granularity + lim.alignmentOffset - past) % granularity;
}

/** Whether the larger blocks begin where smaller ones do. */
function linesUp(t: QueueLimits, b: QueueLimits, alignment: number): boolean {
  if (t.alignmentOffset === alignment) return true;
  const top = Math.max(t.physicalBlockSize, t.ioMin) + t.alignmentOffset;
  const bottom = Math.max(b.physicalBlockSize, b.ioMin) + alignment;
  return Math.max(top, bottom) % Math.min(top, bottom) === 0;
}

/** Gives up what is no multiple of the physical block.
 * @returns Whether all were. */
function repairMultiples(t: QueueLimits): boolean {
  let whole = true;
  if (t.physicalBlockSize % t.logicalBlockSize !== 0) {
    t.physicalBlockSize = t.logicalBlockSize;
    whole = false;
  }
  if (t.ioMin % t.physicalBlockSize !== 0) {
    t.ioMin = t.physicalBlockSize;
    whole = false;
  }
  if (t.ioOpt % t.physicalBlockSize !== 0) {
    t.ioOpt = 0;
    whole = false;
  }
  if (t.chunkSectors % (t.physicalBlockSize / SECTOR_SIZE) !== 0) {
    t.chunkSectors = 0;
    whole = false;
  }
  return whole;
}
