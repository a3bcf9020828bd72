/**
 * Splitting: a bio becomes parts that its device can take.
 *
 * Kernel counterpart: block/blk-merge.c.
 *
 * @module
 */

import { warnOnOnce } from "../lib/bug.ts";
import { EINVAL } from "../lib/errno.ts";
import {
  type Bio,
  BIO_MAX_SECTORS,
  bioChain,
  bioCovered,
  bioEndWith,
  bioSplit,
} from "./bio.ts";
import { submitBioNoacctNocheck } from "./blk-core.ts";
import {
  BLK_STS_AGAIN,
  BLK_STS_INVAL,
  BLK_STS_IOERR,
  opIsWrite,
  REQ_ATOMIC,
  REQ_NOMERGE,
  REQ_NOWAIT,
  REQ_OP_DISCARD,
  REQ_OP_MASK,
  REQ_OP_READ,
  REQ_OP_SECURE_ERASE,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_OP_ZONE_APPEND,
  REQ_POLLED,
  SECTOR_SIZE,
} from "./blk-types.ts";
import { blockTracer, traceBlockSplit } from "./blktrace.ts";
import type { QueueLimits } from "./blkdev.ts";

/**
 * Cuts a bio to its device's limits (kernel: `__bio_split_to_limits`). What does
 * not fit is submitted again, to go behind the front and before anything else.
 * Counts the memory segments of the part that is returned in its `nrSegs`.
 *
 * @returns The bio itself if it fits, else its front; null if the bio has ended:
 *   IOERR if it has not the memory for its size, INVAL if its memory is not aligned
 *   or no part can be small enough, INVAL if it is atomic or an append and needs a
 *   split, AGAIN if it carries NOWAIT and needs one.
 */
export function bioSplitToLimits(bio: Bio, lim: QueueLimits): Bio | null {
  if (fitsAtOnce(bio, lim)) {
    bio.nrSegs = 1;
    return bio;
  }
  bio.nrSegs = 0;
  if (bio.size === 0) return bio;
  const sectors = frontSectors(bio, lim);
  if (sectors * SECTOR_SIZE === bio.size) return bio;
  const status = splitStatus(bio, sectors);
  if (status === 0) return splitFront(bio, sectors);
  bioEndWith(bio, status);
  return null;
}

/** The common case: one piece of memory, and nothing to be crossed. */
function fitsAtOnce(bio: Bio, lim: QueueLimits): boolean {
  if (bio.vecs.length !== 1 || lim.chunkSectors !== 0) return false;
  const vec = bio.vecs[0]!;
  const address = vec.data.byteOffset + vec.offset;
  return ((address | vec.len) & lim.dmaAlignment) === 0 &&
    vec.len === bio.size && bio.size !== 0 &&
    bio.size <= lim.maxSectors * SECTOR_SIZE &&
    bio.size <= lim.maxSegmentSize &&
    address + bio.size <= lim.segBoundaryMask &&
    (bio.opf & REQ_OP_MASK) <= REQ_OP_WRITE && (bio.opf & REQ_ATOMIC) === 0;
}

/** The bio's memory ends before the bio does. */
const NO_MEMORY = -1;

/**
 * Sectors of the bio's front that the device takes at once.
 *
 * @returns 0 if the memory is not aligned or nothing fits, or `NO_MEMORY`.
 */
function frontSectors(bio: Bio, lim: QueueLimits): number {
  switch (bio.opf & REQ_OP_MASK) {
    case REQ_OP_READ:
    case REQ_OP_WRITE:
      return dataSectors(bio, lim, maxIoSectors(bio, lim));
    case REQ_OP_ZONE_APPEND:
      return dataSectors(bio, lim, lim.maxZoneAppendSectors);
    case REQ_OP_DISCARD:
      bio.nrSegs = 1;
      return discardSectors(bio, lim, lim.maxDiscardSectors);
    case REQ_OP_SECURE_ERASE:
      bio.nrSegs = 1;
      return discardSectors(bio, lim, lim.maxSecureEraseSectors);
    case REQ_OP_WRITE_ZEROES:
      return Math.min(maxIoSectors(bio, lim), bio.size / SECTOR_SIZE);
    default:
      return bio.size / SECTOR_SIZE;
  }
}

/** What ends a bio that would have to be split; 0 if it may be. */
function splitStatus(bio: Bio, sectors: number): number {
  if (sectors === NO_MEMORY) {
    warnOnOnce(true, "a bio has no memory for all of its size");
    return BLK_STS_IOERR;
  }
  if ((bio.opf & REQ_ATOMIC) !== 0 || sectors === 0) return BLK_STS_INVAL;
  if ((bio.opf & REQ_OP_MASK) === REQ_OP_ZONE_APPEND) return BLK_STS_INVAL;
  return (bio.opf & REQ_NOWAIT) !== 0 ? BLK_STS_AGAIN : 0;
}

function splitFront(bio: Bio, sectors: number): Bio {
  // Parts that go separate ways are reaped by interrupt.
  bio.opf &= ~REQ_POLLED;
  const front = bioSplit(bio, sectors);
  front.opf |= REQ_NOMERGE;
  front.nrSegs = bio.nrSegs;
  bioChain(front, bio);
  if (blockTracer !== null) traceBlockSplit(front, bio.sector);
  // The first that is submitted since the front was: nothing comes between.
  submitBioNoacctNocheck(bio);
  return front;
}

/**
 * Where a read or a write has to be split for a device (kernel: `bio_split_rw_at`).
 *
 * @param maxBytes Most bytes of the front.
 * @returns Sectors of the front; 0 if all of the bio fits; -EINVAL if its memory is
 *   not aligned or nothing fits.
 */
export function bioSplitRwAt(
  bio: Bio,
  lim: QueueLimits,
  maxBytes: number,
): number {
  const sectors = dataSectors(bio, lim, Math.floor(maxBytes / SECTOR_SIZE));
  if (sectors <= 0) return -EINVAL;
  return sectors * SECTOR_SIZE === bio.size ? 0 : sectors;
}

/**
 * Most sectors of one request from where the bio begins (kernel:
 * `get_max_io_size`). The end is aligned to physical blocks if that leaves
 * anything, else to logical ones.
 */
function maxIoSectors(bio: Bio, lim: QueueLimits): number {
  const pbs = lim.physicalBlockSize / SECTOR_SIZE;
  const lbs = lim.logicalBlockSize / SECTOR_SIZE;
  const boundary = boundarySectors(bio, lim);
  let max = maxOpSectors(bio, lim);
  if (boundary !== 0) max = Math.min(max, boundary - bio.sector % boundary);
  const start = bio.sector & (pbs - 1);
  const end = start + max;
  const aligned = end - end % pbs;
  return aligned > start ? aligned - start : max - max % lbs;
}

function maxOpSectors(bio: Bio, lim: QueueLimits): number {
  if ((bio.opf & REQ_OP_MASK) === REQ_OP_WRITE_ZEROES) {
    return lim.maxWriteZeroesSectors;
  }
  // To cut an atomic write would be to lose it: the usual cap is not for it.
  return (bio.opf & REQ_ATOMIC) !== 0
    ? lim.atomicWriteMaxSectors
    : lim.maxSectors;
}

/** What the bio must not cross (kernel: `blk_boundary_sectors`). */
function boundarySectors(bio: Bio, lim: QueueLimits): number {
  return (bio.opf & REQ_ATOMIC) !== 0 && lim.atomicWriteBoundary !== 0
    ? lim.atomicWriteBoundary / SECTOR_SIZE
    : lim.chunkSectors;
}

/** Kernel: `bio_split_discard`. The next part begins where a unit does. */
function discardSectors(bio: Bio, lim: QueueLimits, most: number): number {
  const sectors = bio.size / SECTOR_SIZE;
  const granularity = Math.max(1, lim.discardGranularity / SECTOR_SIZE);
  const lbs = lim.logicalBlockSize / SECTOR_SIZE;
  const max = Math.min(most, BIO_MAX_SECTORS - BIO_MAX_SECTORS % lbs);
  const whole = max - max % granularity;
  if (whole === 0 || sectors <= whole) return sectors;
  const offset = Math.floor(lim.discardAlignment / SECTOR_SIZE) % granularity;
  const past = (bio.sector + whole - offset) % granularity;
  return whole - past;
}

/** What a walk over a bio's memory has counted. */
interface Walk {
  bytes: number;
  segments: number;
}

/**
 * Sectors of the bio's front that are one request (kernel: `bio_split_io_at`):
 * all of it, or as much as the limits on size and memory segments allow.
 *
 * @returns 0 if the memory is not aligned or nothing fits, or `NO_MEMORY`.
 */
function dataSectors(bio: Bio, lim: QueueLimits, maxSectors: number): number {
  const walk: Walk = { bytes: 0, segments: 0 };
  const whole = walkMemory(bio, lim, maxSectors * SECTOR_SIZE, walk);
  bio.nrSegs = walk.segments;
  if (!bioCovered(bio)) return NO_MEMORY;
  if (walk.bytes < 0) return 0;
  if (whole) return bio.size / SECTOR_SIZE;
  const unit = splitAlignment(bio, lim);
  return (walk.bytes - walk.bytes % unit) / SECTOR_SIZE;
}

/** What the front's size is a multiple of (kernel: `bio_split_alignment`). */
function splitAlignment(bio: Bio, lim: QueueLimits): number {
  return opIsWrite(bio.opf) && lim.zoneWriteGranularity !== 0
    ? lim.zoneWriteGranularity
    : lim.logicalBlockSize;
}

/** Counts in `walk` what fits, with negative bytes if the memory is not aligned.
 * @returns Whether all does. */
function walkMemory(
  bio: Bio,
  lim: QueueLimits,
  maxBytes: number,
  walk: Walk,
): boolean {
  let previousEnd = -1;
  let done = bio.vecDone;
  for (let i = bio.vecIndex; walk.bytes < bio.size; i++) {
    if (i >= bio.vecs.length) return false;
    const vec = bio.vecs[i]!;
    const address = vec.data.byteOffset + vec.offset + done;
    const len = Math.min(vec.len - done, bio.size - walk.bytes);
    if (((address | len) & lim.dmaAlignment) !== 0) {
      walk.bytes = -1;
      return false;
    }
    const gap = previousEnd >= 0 &&
      ((previousEnd | address) & lim.virtBoundaryMask) !== 0;
    if (gap || addSegments(walk, lim, address, len, maxBytes) < len) {
      return false;
    }
    previousEnd = address + len;
    done = 0;
  }
  return true;
}

/**
 * Counts one piece of memory as the segments that the device sees (kernel:
 * `bvec_split_segs`).
 *
 * @returns Bytes of the piece that still fit.
 */
function addSegments(
  walk: Walk,
  lim: QueueLimits,
  address: number,
  len: number,
  maxBytes: number,
): number {
  const room = Math.min(len, maxBytes - walk.bytes);
  let total = 0;
  while (total < room && walk.segments < lim.maxSegments) {
    const boundary = lim.segBoundaryMask + 1;
    const toBoundary = boundary - (address + total) % boundary;
    total += Math.min(room - total, lim.maxSegmentSize, toBoundary);
    walk.segments++;
  }
  walk.bytes += total;
  return total;
}
