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
  const bad = validateBlockSizes(lim) ?? validateSectors(lim) ??
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
