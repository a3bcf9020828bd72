/**
 * Submission: the checks that every bio passes, and the loop that keeps a bio
 * submitted from within a driver or a completion from growing the stack.
 *
 * A bio may complete before `submitBio` returns. What its `endIo` submits then
 * only joins a list, and the loop further up takes it from there.
 *
 * Kernel counterpart: block/blk-core.c.
 *
 * @module
 */

import { type Bio, bioEndIo, bioEndWith } from "./bio.ts";
import {
  BLK_STS_INVAL,
  BLK_STS_IOERR,
  BLK_STS_NOTSUPP,
  BLK_STS_OK,
  REQ_ATOMIC,
  REQ_FUA,
  REQ_NOWAIT,
  REQ_OP_MASK,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_PREFLUSH,
  SECTOR_SIZE,
} from "./blk-types.ts";
import { BLK_FEAT_NOWAIT, type BlockDevice } from "./blkdev.ts";

/** Flags that make a check necessary beside the one for the end of the device. */
const CHECKED_FLAGS = REQ_NOWAIT | REQ_FUA | REQ_PREFLUSH | REQ_ATOMIC;

/**
 * Sends a bio on its way (kernel: `submit_bio`). Every outcome comes through
 * `bio.endIo`, exactly once, possibly before this returns: NOTSUPP for an
 * operation or NOWAIT that the device has not, IOERR beyond its end, for flush
 * flags on anything but a write, and for what is not aligned to logical blocks,
 * INVAL for memory that is not aligned or an atomic write that is not possible.
 */
export function submitBio(bio: Bio): void {
  const { bdev, size } = bio;
  const op = bio.opf & REQ_OP_MASK;
  let status = BLK_STS_OK;
  if (op > REQ_OP_WRITE || (bio.opf & CHECKED_FLAGS) !== 0) {
    status = checkFlagsAndOp(bio, op);
    // A flush of a device that has nothing to flush is done.
    if (status === DONE) return bioEndIo(bio);
  } else if (size !== 0 && !onDevice(bdev, bio)) status = BLK_STS_IOERR;
  if (status !== BLK_STS_OK) bioEndWith(bio, status);
  else submitBioNoacctNocheck(bio);
}

/** Beside the statuses: nothing is left to do. */
const DONE = -1;

/** Whether a range is one, and ends where the device does or before (kernel:
 * `bio_check_eod`, whose sectors cannot but be whole numbers from 0 on). */
function onDevice(bdev: BlockDevice, bio: Bio): boolean {
  const { sector, size } = bio;
  // By subtraction: a sum could leave the exact integers.
  return sector >= 0 && sector <= bdev.nrSectors - size / SECTOR_SIZE &&
    Math.floor(sector) === sector && Math.floor(size) === size && size > 0;
}

/** The checks in the kernel's order, which decides between two errors. */
function checkFlagsAndOp(bio: Bio, op: number): number {
  const { bdev } = bio;
  if (
    (bio.opf & REQ_NOWAIT) !== 0 &&
    (bdev.limits.features & BLK_FEAT_NOWAIT) === 0
  ) {
    return BLK_STS_NOTSUPP;
  }
  if (bio.size !== 0 && !onDevice(bdev, bio)) return BLK_STS_IOERR;
  if ((bio.opf & (REQ_FUA | REQ_PREFLUSH)) !== 0) {
    if (op !== REQ_OP_WRITE) return BLK_STS_IOERR;
    if (!bdev.writeCache) {
      bio.opf &= ~(REQ_FUA | REQ_PREFLUSH);
      if (bio.size === 0) return DONE;
    }
  }
  return checkOp(bio, op);
}

function checkOp(bio: Bio, op: number): number {
  switch (op) {
    case REQ_OP_READ:
      return BLK_STS_OK;
    case REQ_OP_WRITE:
      // No device here promises a unit that is written whole or not at all.
      return (bio.opf & REQ_ATOMIC) !== 0 ? BLK_STS_INVAL : BLK_STS_OK;
    case REQ_OP_WRITE_ZEROES:
      return bio.bdev.limits.maxWriteZeroesSectors > 0
        ? BLK_STS_OK
        : BLK_STS_NOTSUPP;
    default:
      return BLK_STS_NOTSUPP;
  }
}

/** What the driver's call that is running has submitted; null if none is. */
let added: Bio[] | null = null;
/** What was submitted by those before it, the next one last. */
const waiting: Bio[] = [];

/** Submits a bio that has passed the checks (kernel: `submit_bio_noacct_nocheck`). */
export function submitBioNoacctNocheck(bio: Bio): void {
  if (added === null) runLoop(bio);
  else added.push(bio);
}

/**
 * Submits a bio whose submitter will run the clock until it is done. It cannot
 * be left to the loop further up, which goes on only after the submitter has.
 */
export function submitBioDetached(bio: Bio): void {
  const above = added;
  if (bio.bdev.clock.inSync) added = null;
  try {
    submitBio(bio);
  } finally {
    added = above;
  }
}

/** Depth first: what a driver submits runs before what was waiting already. */
function runLoop(first: Bio): void {
  const base = waiting.length;
  const mine: Bio[] = [];
  added = mine;
  try {
    let bio = first;
    for (;;) {
      bio.bdev.submit(bio);
      if (mine.length > 0) takeAdded(mine, bio.bdev);
      if (waiting.length === base) return;
      bio = waiting.pop()!;
    }
  } finally {
    added = null;
    waiting.length = base;
  }
}

/** Lower devices go before `bdev`'s own, each in the order of submission. */
function takeAdded(mine: Bio[], bdev: BlockDevice): void {
  for (let i = mine.length - 1; i >= 0; i--) {
    if (mine[i]!.bdev === bdev) waiting.push(mine[i]!);
  }
  for (let i = mine.length - 1; i >= 0; i--) {
    if (mine[i]!.bdev !== bdev) waiting.push(mine[i]!);
  }
  mine.length = 0;
}
