/**
 * Merging: a bio that continues a request which has not gone to the driver yet
 * joins it.
 *
 * Kernel counterpart: block/blk-merge.c (its second half), block/blk-mq-sched.c.
 *
 * @module
 */

import type { Bio, BioVec } from "./bio.ts";
import { BIO_MAX_SECTORS, BIO_ZONE_WRITE_PLUGGING } from "./bio.ts";
import type { HwQueue } from "./blk-mq.ts";
import { plug } from "./blk-plug.ts";
import type { Request, RequestList } from "./blk-request.ts";
import { blockTracer, traceBlockBio } from "./blktrace.ts";
import {
  REQ_ATOMIC,
  REQ_FAILFAST_MASK,
  REQ_FUA,
  REQ_NOMERGE,
  REQ_OP_DISCARD,
  REQ_OP_MASK,
  REQ_OP_READ,
  REQ_OP_SECURE_ERASE,
  REQ_OP_WRITE,
  REQ_POLLED,
  REQ_PREFLUSH,
  SECTOR_SIZE,
} from "./blk-types.ts";
import { blkZoneWritePlugBioMerged } from "./blk-zoned.ts";
import type { QueueLimits } from "./blkdev.ts";

/** Neither a bio nor a request with one of these merges (kernel: `REQ_NOMERGE_FLAGS`). */
const REQ_NOMERGE_FLAGS = REQ_NOMERGE | REQ_PREFLUSH | REQ_FUA;
/** Flags of which request and bio must have the same. */
const SAME_FLAGS = REQ_OP_MASK | REQ_ATOMIC | REQ_POLLED;
/** How many of the newest requests that wait are looked at. */
const CANDIDATES = 8;

// How an attempt ends (kernel: `enum bio_merge_status`).
const BIO_MERGE_OK = 0;
/** They do not fit; try another. */
const BIO_MERGE_NONE = 1;
/** They would, but for a limit. */
const BIO_MERGE_FAILED = 2;

/**
 * Tries to add a bio to a request that is held back under the plug, or that waits
 * in the software queue (kernel: `blk_mq_attempt_bio_merge`).
 *
 * @returns Whether it has joined one.
 */
export function blkMqAttemptBioMerge(hctx: HwQueue, bio: Bio): boolean {
  const { software } = hctx;
  if (plug.count === 0 && software.first === null) return false;
  if ((bio.opf & REQ_NOMERGE_FLAGS) !== 0 || bio.size === 0) return false;
  return attemptPlugMerge(hctx, bio) || attemptListMerge(software, bio);
}

/** The newest request, or in a plug of several devices the oldest of this one
 * (kernel: `blk_attempt_plug_merge`). */
function attemptPlugMerge({ queue }: HwQueue, bio: Bio): boolean {
  const { first, last } = plug.list;
  if (last === null) return false;
  if (last.hctx.queue === queue) return attempt(last, bio) === BIO_MERGE_OK;
  if (!plug.multipleQueues) return false;
  for (let rq = first; rq !== null; rq = rq.next) {
    if (rq.hctx.queue === queue) return attempt(rq, bio) === BIO_MERGE_OK;
  }
  return false;
}

/** The newest requests that wait (kernel: `blk_bio_list_merge`). */
function attemptListMerge({ last }: RequestList, bio: Bio): boolean {
  let rq = last;
  for (let i = 0; i < CANDIDATES && rq !== null; i++, rq = rq.prev) {
    const result = attempt(rq, bio);
    if (result !== BIO_MERGE_NONE) return result === BIO_MERGE_OK;
  }
  return false;
}

/** Kernel: `blk_attempt_bio_merge`. */
function attempt(rq: Request, bio: Bio): number {
  if (!blkRqMergeOk(rq, bio)) return BIO_MERGE_NONE;
  const lim = rq.hctx.queue.device.limits;
  if (isDiscard(rq.opf) && lim.maxDiscardSegments > 1) {
    return discardMerge(rq, bio, lim);
  }
  if (rq.sector + rq.size / SECTOR_SIZE === bio.sector) {
    return backMerge(rq, bio, lim);
  }
  if (bio.endSector === rq.sector) return frontMerge(rq, bio, lim);
  return BIO_MERGE_NONE;
}

/** Whether they are of one kind (kernel: `blk_rq_merge_ok`). */
export function blkRqMergeOk(rq: Request, bio: Bio): boolean {
  const first = rq.bio;
  // Of a flush sequence there is at most the data here, and that stays alone.
  if (first === null || rq.flushSeq !== 0) return false;
  return ((rq.opf | bio.opf) & REQ_NOMERGE_FLAGS) === 0 &&
    ((rq.opf ^ bio.opf) & SAME_FLAGS) === 0 &&
    opMerges(bio.opf & REQ_OP_MASK) &&
    first.writeHint === bio.writeHint &&
    first.writeStream === bio.writeStream &&
    first.ioprio === bio.ioprio;
}

/** Whether a command can be made longer: not WRITE_ZEROES, ZONE_APPEND, what
 * manages zones, and a driver's own (kernel: `rq_mergeable`). */
function opMerges(op: number): boolean {
  return op === REQ_OP_READ || op === REQ_OP_WRITE || op === REQ_OP_DISCARD ||
    op === REQ_OP_SECURE_ERASE;
}

function isDiscard(opf: number): boolean {
  return (opf & REQ_OP_MASK) === REQ_OP_DISCARD;
}

/** Kernel: `bio_attempt_discard_merge`. */
function discardMerge(rq: Request, bio: Bio, lim: QueueLimits): number {
  if (rq.nrRanges >= lim.maxDiscardSegments || tooLong(rq, bio, lim)) {
    return noMerge(rq);
  }
  rq.nrRanges++;
  append(rq, bio);
  return BIO_MERGE_OK;
}

/**
 * Adds a bio that has passed {@linkcode blkRqMergeOk} to the back of the request that
 * it follows (kernel: `bio_attempt_back_merge`).
 *
 * @returns Whether the limits allow it.
 */
export function bioAttemptBackMerge(rq: Request, bio: Bio): boolean {
  return backMerge(rq, bio, rq.hctx.queue.device.limits) === BIO_MERGE_OK;
}

/** Kernel: `bio_attempt_back_merge`, `ll_back_merge_fn`. */
function backMerge(rq: Request, bio: Bio, lim: QueueLimits): number {
  if (gapBetween(rq, rq.biotail!, bio, lim)) return BIO_MERGE_FAILED;
  if (tooLong(rq, bio, lim) || !addSegments(rq, bio, lim)) return noMerge(rq);
  append(rq, bio);
  if (rq.zonePlug !== null) blkZoneWritePlugBioMerged(bio);
  if (blockTracer !== null) traceBlockBio("block_bio_backmerge", bio);
  return BIO_MERGE_OK;
}

/** Kernel: `bio_attempt_front_merge`, `ll_front_merge_fn`. */
function frontMerge(rq: Request, bio: Bio, lim: QueueLimits): number {
  const first = rq.bio!;
  // The writes of a zone come in order: let one that does not fail.
  if ((first.flags & BIO_ZONE_WRITE_PLUGGING) !== 0) return BIO_MERGE_FAILED;
  if (gapBetween(rq, bio, first, lim)) return BIO_MERGE_FAILED;
  if (tooLong(rq, bio, lim) || !addSegments(rq, bio, lim)) return noMerge(rq);
  bio.next = first;
  rq.bio = bio;
  // Whether it is tried again is up to its first bio (kernel: `blk_update_mixed_merge`).
  rq.opf = (rq.opf & ~REQ_FAILFAST_MASK) | (bio.opf & REQ_FAILFAST_MASK);
  rq.sector = bio.sector;
  rq.size += bio.size;
  rq.hctx.queue.stats.accountMerge(bio.opf);
  if (blockTracer !== null) traceBlockBio("block_bio_frontmerge", bio);
  return BIO_MERGE_OK;
}

function append(rq: Request, bio: Bio): void {
  rq.biotail!.next = bio;
  rq.biotail = bio;
  rq.size += bio.size;
  rq.hctx.queue.stats.accountMerge(bio.opf);
}

/** What has met a limit once is not tried again (kernel: `req_set_nomerge`). */
function noMerge(rq: Request): number {
  rq.opf |= REQ_NOMERGE;
  return BIO_MERGE_FAILED;
}

/** Whether both together are more than one command may be, from where the first
 * of them begins (kernel: `blk_rq_get_max_sectors`). */
function tooLong(rq: Request, bio: Bio, lim: QueueLimits): boolean {
  const sectors = (rq.size + bio.size) / SECTOR_SIZE;
  if (sectors > BIO_MAX_SECTORS) return true;
  const start = Math.min(rq.sector, bio.sector);
  switch (rq.opf & REQ_OP_MASK) {
    case REQ_OP_DISCARD:
      return sectors > lim.maxDiscardSectors;
    case REQ_OP_SECURE_ERASE:
      return sectors > lim.maxSecureEraseSectors;
  }
  const atomic = (rq.opf & REQ_ATOMIC) !== 0;
  const boundary = atomic && lim.atomicWriteBoundary !== 0
    ? lim.atomicWriteBoundary / SECTOR_SIZE
    : lim.chunkSectors;
  const max = atomic ? lim.atomicWriteMaxSectors : lim.maxSectors;
  return sectors > max ||
    (boundary !== 0 && sectors > boundary - start % boundary);
}

/** Counts the segments of a bio to those of a request; false if they are too many
 * (kernel: `ll_new_hw_segment`). */
function addSegments(rq: Request, bio: Bio, lim: QueueLimits): boolean {
  if (isDiscard(rq.opf)) return true;
  const segments = rq.nrSegs + bio.nrSegs;
  if (segments > lim.maxSegments) return false;
  rq.nrSegs = segments;
  return true;
}

function addressOf(vec: BioVec): number {
  return vec.data.byteOffset + vec.offset;
}

/** Whether the device could not go from the end of one bio to the begin of the
 * next (kernel: `bio_will_gap`). */
function gapBetween(
  rq: Request,
  before: Bio,
  after: Bio,
  lim: QueueLimits,
): boolean {
  const mask = lim.virtBoundaryMask;
  if (mask === 0 || before.vecs.length === 0) return false;
  // A request that does not begin at a boundary is not made longer, whatever the seam.
  const first = before === rq.biotail ? rq.bio! : before;
  const firstVec = first.vecs[first.vecIndex]!;
  if (((addressOf(firstVec) + first.vecDone) & mask) !== 0) return true;
  const end = lastByte(before);
  const next = after.vecs[after.vecIndex]!;
  const start = addressOf(next) + after.vecDone;
  if (end.buffer === next.data.buffer && end.address === start) return false;
  return ((end.address | start) & mask) !== 0;
}

/** Where a bio's memory ends (kernel: `bio_get_last_bvec`). */
function lastByte(bio: Bio): { buffer: ArrayBufferLike; address: number } {
  let left = bio.vecDone + bio.size;
  let i = bio.vecIndex;
  while (left > bio.vecs[i]!.len) left -= bio.vecs[i++]!.len;
  const vec = bio.vecs[i]!;
  return { buffer: vec.data.buffer, address: addressOf(vec) + left };
}
