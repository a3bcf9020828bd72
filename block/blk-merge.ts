/**
 * Splitting: a bio becomes parts that its device can take.
 *
 * Kernel counterpart: block/blk-merge.c.
 *
 * @module
 */

import { type Bio, bioChain, bioEndWith, bioSplit } from "./bio.ts";
import { submitBioNoacctNocheck } from "./blk-core.ts";
import {
  BLK_STS_AGAIN,
  BLK_STS_INVAL,
  REQ_NOMERGE,
  REQ_NOWAIT,
  REQ_OP_MASK,
  REQ_OP_WRITE_ZEROES,
  REQ_POLLED,
  SECTOR_SIZE,
} from "./blk-types.ts";
import type { QueueLimits } from "./blkdev.ts";

/**
 * Cuts a bio to its device's limits (kernel: `__bio_split_to_limits`). What does
 * not fit is submitted again, to go behind the front and before anything else.
 *
 * @returns The bio itself if it fits, else its front; null if the bio has ended:
 *   INVAL if its memory is not aligned or no part can be small enough, AGAIN if
 *   it carries NOWAIT and needs a split.
 */
export function bioSplitToLimits(bio: Bio, lim: QueueLimits): Bio | null {
  if (bio.size === 0 || fitsAtOnce(bio, lim)) return bio;
  const maxSectors = maxIoSectors(bio, lim);
  const sectors = (bio.opf & REQ_OP_MASK) === REQ_OP_WRITE_ZEROES
    ? Math.min(maxSectors, bio.size / SECTOR_SIZE)
    : sectorsThatFit(bio, lim, maxSectors * SECTOR_SIZE);
  if (sectors * SECTOR_SIZE === bio.size) return bio;
  if (sectors <= 0) bioEndWith(bio, BLK_STS_INVAL);
  else if ((bio.opf & REQ_NOWAIT) !== 0) bioEndWith(bio, BLK_STS_AGAIN);
  else return splitFront(bio, sectors);
  return null;
}

/** The common case: one piece of memory, and nothing to be crossed. */
function fitsAtOnce(bio: Bio, lim: QueueLimits): boolean {
  if (bio.vecs.length !== 1 || lim.chunkSectors !== 0) return false;
  const vec = bio.vecs[0]!;
  const address = vec.data.byteOffset + vec.offset;
  return ((address | vec.len) & lim.dmaAlignment) === 0 &&
    vec.len === bio.size &&
    bio.size <= lim.maxSectors * SECTOR_SIZE &&
    bio.size <= lim.maxSegmentSize &&
    address + bio.size <= lim.segBoundaryMask;
}

function splitFront(bio: Bio, sectors: number): Bio {
  // Parts that go separate ways are reaped by interrupt.
  bio.opf &= ~REQ_POLLED;
  const front = bioSplit(bio, sectors);
  front.opf |= REQ_NOMERGE;
  bioChain(front, bio);
  // The first that is submitted since the front was: nothing comes between.
  submitBioNoacctNocheck(bio);
  return front;
}

/**
 * Most sectors of one request from where the bio begins (kernel:
 * `get_max_io_size`). The end is aligned to physical blocks if that leaves
 * anything, else to logical ones.
 */
function maxIoSectors(bio: Bio, lim: QueueLimits): number {
  const pbs = lim.physicalBlockSize / SECTOR_SIZE;
  const lbs = lim.logicalBlockSize / SECTOR_SIZE;
  const isZeroes = (bio.opf & REQ_OP_MASK) === REQ_OP_WRITE_ZEROES;
  let max = isZeroes ? lim.maxWriteZeroesSectors : lim.maxSectors;
  if (lim.chunkSectors !== 0) {
    max = Math.min(max, lim.chunkSectors - bio.sector % lim.chunkSectors);
  }
  const start = bio.sector & (pbs - 1);
  const end = start + max;
  const aligned = end - end % pbs;
  return aligned > start ? aligned - start : max - max % lbs;
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
 * @returns 0 or less if the memory is not aligned or nothing fits.
 */
function sectorsThatFit(bio: Bio, lim: QueueLimits, maxBytes: number): number {
  const walk: Walk = { bytes: 0, segments: 0 };
  let previousEnd = -1;
  let done = bio.vecDone;
  for (let i = bio.vecIndex; walk.bytes < bio.size; i++) {
    const vec = bio.vecs[i]!;
    const address = vec.data.byteOffset + vec.offset + done;
    const len = Math.min(vec.len - done, bio.size - walk.bytes);
    if (((address | len) & lim.dmaAlignment) !== 0) return 0;
    const gap = previousEnd >= 0 &&
      ((previousEnd | address) & lim.virtBoundaryMask) !== 0;
    if (gap || addSegments(walk, lim, address, len, maxBytes) < len) {
      const unit = lim.logicalBlockSize;
      return (walk.bytes - walk.bytes % unit) / SECTOR_SIZE;
    }
    previousEnd = address + len;
    done = 0;
  }
  return bio.size / SECTOR_SIZE;
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
