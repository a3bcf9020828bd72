/**
 * Queue limits: what a driver says its device can do, checked and completed.
 *
 * Kernel counterpart: block/blk-settings.c.
 *
 * @module
 */

import { SECTOR_SIZE } from "./blk-types.ts";
import {
  BLK_FEAT_FUA,
  BLK_FEAT_NOWAIT,
  BLK_FEAT_WRITE_CACHE,
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
 *   kernel's default. `maxSectors` is always derived. Not changed.
 * @returns Limits to be put in force, or the first field that cannot be: the
 *   kernel's -EINVAL.
 */
export function blkValidateLimits(
  given: Partial<QueueLimits>,
): QueueLimits | BadLimit {
  const lim: QueueLimits = { ...NONE, ...given };
  const bad = validateNumbers(lim) ?? validateBlockSizes(lim) ??
    validateSectors(lim) ??
    validateSegments(lim);
  if (bad !== null) return bad;
  if ((lim.features & BLK_FEAT_WRITE_CACHE) === 0) {
    lim.features &= ~BLK_FEAT_FUA;
  }
  return lim;
}

const NONE: QueueLimits = {
  features: 0,
  logicalBlockSize: 0,
  physicalBlockSize: 0,
  ioMin: 0,
  ioOpt: 0,
  maxHwSectors: 0,
  maxUserSectors: 0,
  maxSectors: 0,
  chunkSectors: 0,
  maxSegments: 0,
  maxSegmentSize: 0,
  segBoundaryMask: 0,
  virtBoundaryMask: 0,
  dmaAlignment: 0,
  maxWriteZeroesSectors: 0,
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

function isPowerOfTwo(n: number): boolean {
  return Number.isInteger(n) && n > 0 && (n & (n - 1)) === 0;
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
  lim.maxHwSectors -= lim.maxHwSectors % lbSectors;
  if (lim.maxUserSectors !== 0 && lim.maxUserSectors < PAGE_SECTORS) {
    return bad(lim, "maxUserSectors");
  }
  const cap = lim.maxUserSectors || defaultCap(lim);
  lim.maxSectors = Math.min(lim.maxHwSectors, cap);
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

function validateSegments(lim: QueueLimits): BadLimit | null {
  lim.maxSegments ||= BLK_MAX_SEGMENTS;
  lim.segBoundaryMask ||= BLK_SEG_BOUNDARY_MASK;
  if (lim.segBoundaryMask < PAGE_SIZE - 1) return bad(lim, "segBoundaryMask");
  // With a boundary the device addresses page by page: no segment is too large.
  lim.maxSegmentSize ||= lim.virtBoundaryMask !== 0
    ? UINT_MAX
    : BLK_MAX_SEGMENT_SIZE;
  if (lim.maxSegmentSize < PAGE_SIZE) return bad(lim, "maxSegmentSize");
  lim.dmaAlignment ||= SECTOR_SIZE - 1;
  if (lim.dmaAlignment > PAGE_SIZE - 1) return bad(lim, "dmaAlignment");
  return null;
}

/** Limits of a device that lies over others. */
export interface StackedLimits extends QueueLimits {
  /** Bytes from its start to where physical blocks below begin (kernel:
   * `alignment_offset`). */
  alignmentOffset: number;
  /** Whether blocks of the devices below do not line up with it or with each
   * other (kernel: `BLK_FLAG_MISALIGNED`). */
  misaligned: boolean;
}

/**
 * Limits that a stacked device begins with: none but those of the devices that
 * {@linkcode blkStackLimits} adds (kernel: `blk_set_stacking_limits`).
 *
 * @param features What the device can do if all below it can.
 */
export function blkSetStackingLimits(features: number): StackedLimits {
  return {
    ...NONE,
    features,
    logicalBlockSize: SECTOR_SIZE,
    physicalBlockSize: SECTOR_SIZE,
    ioMin: SECTOR_SIZE,
    maxHwSectors: UINT_MAX,
    maxSectors: UINT_MAX,
    maxSegments: 0xffff,
    maxSegmentSize: UINT_MAX,
    segBoundaryMask: BLK_SEG_BOUNDARY_MASK,
    dmaAlignment: SECTOR_SIZE - 1,
    maxWriteZeroesSectors: UINT_MAX,
    alignmentOffset: 0,
    misaligned: false,
  };
}

/**
 * Narrows a stacked device's limits to what one more device below it can do
 * (kernel: `blk_stack_limits`). What does not line up is repaired, as the kernel
 * does it.
 *
 * @param t The stacked device's, changed.
 * @param b The lower device's.
 * @param start Where in the lower device it begins, sectors.
 * @returns Whether the two line up (kernel: 0 or -1); if not, `t.misaligned` is set.
 */
export function blkStackLimits(
  t: StackedLimits,
  b: QueueLimits | StackedLimits,
  start: number,
): boolean {
  t.features |= b.features & (BLK_FEAT_WRITE_CACHE | BLK_FEAT_FUA);
  if ((b.features & BLK_FEAT_NOWAIT) === 0) t.features &= ~BLK_FEAT_NOWAIT;
  for (const field of MIN_NOT_ZERO) t[field] = minNotZero(t[field], b[field]);
  t.maxWriteZeroesSectors = Math.min(
    t.maxWriteZeroesSectors,
    b.maxWriteZeroesSectors,
  );
  const alignment = alignmentOffsetAt(b, start);
  let aligned = linesUp(t, b, alignment);
  for (const field of MAX) t[field] = Math.max(t[field], b[field]);
  t.ioOpt = lcmNotZero(t.ioOpt, b.ioOpt);
  t.chunkSectors = gcd(t.chunkSectors, b.chunkSectors);
  if (!repairMultiples(t)) aligned = false;
  t.alignmentOffset = lcmNotZero(t.alignmentOffset, alignment) %
    Math.max(t.physicalBlockSize, t.ioMin);
  if ((t.alignmentOffset & (t.logicalBlockSize - 1)) !== 0) aligned = false;
  const lbSectors = t.logicalBlockSize / SECTOR_SIZE;
  t.maxSectors -= t.maxSectors % lbSectors;
  t.maxHwSectors -= t.maxHwSectors % lbSectors;
  if (!aligned || ("misaligned" in b && b.misaligned)) t.misaligned = true;
  return aligned;
}

/** Fields of which the smallest counts, 0 being none. */
const MIN_NOT_ZERO = [
  "maxSectors",
  "maxUserSectors",
  "maxHwSectors",
  "segBoundaryMask",
  "virtBoundaryMask",
  "maxSegments",
  "maxSegmentSize",
] as const;

/** Fields of which the largest counts. */
const MAX = [
  "logicalBlockSize",
  "physicalBlockSize",
  "ioMin",
  "dmaAlignment",
] as const;

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
  lim: QueueLimits | StackedLimits,
  sector: number,
): number {
  const granularity = Math.max(lim.physicalBlockSize, lim.ioMin);
  const offset = "alignmentOffset" in lim ? lim.alignmentOffset : 0;
  const past = sector % (granularity / SECTOR_SIZE) * SECTOR_SIZE;
  return (granularity + offset - past) % granularity;
}

/** Whether the larger blocks begin where smaller ones do. */
function linesUp(t: StackedLimits, b: QueueLimits, alignment: number): boolean {
  if (t.alignmentOffset === alignment) return true;
  const top = Math.max(t.physicalBlockSize, t.ioMin) + t.alignmentOffset;
  const bottom = Math.max(b.physicalBlockSize, b.ioMin) + alignment;
  return Math.max(top, bottom) % Math.min(top, bottom) === 0;
}

/** Gives up what is no multiple of the physical block.
 * @returns Whether all were. */
function repairMultiples(t: StackedLimits): boolean {
  let whole = true;
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
