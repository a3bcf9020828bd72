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

import { bugOn, warnOn } from "../lib/bug.ts";
import { MSEC } from "../lib/clock.ts";
import { runInPlace } from "../lib/wait.ts";
import {
  type Bio,
  BIO_REMAPPED,
  BIO_UNDER_WAY,
  bioEndIo,
  bioEndWith,
} from "./bio.ts";
import { blkFlushPlug } from "./blk-plug.ts";
import { blockTracer, traceBlockQueue, traceBlockRemap } from "./blktrace.ts";
import {
  BLK_STS_INVAL,
  BLK_STS_IOERR,
  BLK_STS_NOTSUPP,
  BLK_STS_OK,
  opIsWrite,
  REQ_ATOMIC,
  REQ_FUA,
  REQ_INTEGRITY,
  REQ_NOMERGE,
  REQ_NOWAIT,
  REQ_OP_DISCARD,
  REQ_OP_MASK,
  REQ_OP_READ,
  REQ_OP_SECURE_ERASE,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_OP_ZONE_APPEND,
  REQ_OP_ZONE_CLOSE,
  REQ_OP_ZONE_FINISH,
  REQ_OP_ZONE_OPEN,
  REQ_OP_ZONE_RESET,
  REQ_OP_ZONE_RESET_ALL,
  REQ_POLLED,
  REQ_PREFLUSH,
  SECTOR_SIZE,
} from "./blk-types.ts";
import { bdevZoneIsSeq } from "./blk-zoned.ts";
import {
  BD_MAKE_IT_FAIL,
  BD_RO_WARNED,
  bdevIsZoned,
  bdevIsZoneStart,
  BLK_FEAT_NOWAIT,
  type BlockDevice,
} from "./blkdev.ts";

/** Flags that make a check necessary beside the one for the end of the device. */
const CHECKED_FLAGS = REQ_INTEGRITY | REQ_FUA | REQ_PREFLUSH | REQ_NOWAIT |
  REQ_POLLED | REQ_ATOMIC;

/**
 * Sends a bio on its way (kernel: `submit_bio`). Every outcome comes through
 * `bio.endIo`, exactly once, possibly before this returns.
 *
 * @throws {Error} BUG if the bio is under way already.
 */
export function submitBio(bio: Bio): void {
  bugOn((bio.flags & BIO_UNDER_WAY) !== 0, "a bio is submitted twice");
  bio.flags |= BIO_UNDER_WAY;
  submitBioNoacct(bio);
}

/**
 * The same for a driver that hands a bio on, with another device or sector (kernel:
 * `submit_bio_noacct`). Before a driver sees it,
 * a bio may end with
 *
 * - NOTSUPP: NOWAIT on a device without, an operation that the device does not have
 *   or that is none for a bio, protection information;
 * - IOERR: beyond the end of the device, flush flags on anything but a write or an
 *   append, an append that is not to the start of a zone or too large, a zone
 *   operation where there is no sequential zone;
 * - INVAL: an atomic write of a size that the device cannot keep whole, or anything
 *   else that is to be atomic;
 * - what the disk's error injection says.
 */
export function submitBioNoacct(bio: Bio): void {
  const { bdev, size } = bio;
  const op = bio.opf & REQ_OP_MASK;
  let status = BLK_STS_OK;
  if (
    op > REQ_OP_WRITE || (bio.opf & CHECKED_FLAGS) !== 0 ||
    bdev.bdFlags !== 0 || bdev.errorInjection !== null
  ) {
    status = checkAll(bio, op);
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
function checkAll(bio: Bio, op: number): number {
  const { bdev } = bio;
  const { limits } = bdev;
  if (
    (bio.opf & REQ_NOWAIT) !== 0 && (limits.features & BLK_FEAT_NOWAIT) === 0
  ) {
    return BLK_STS_NOTSUPP;
  }
  if (((bdev.bdFlags | bdev.whole.bdFlags) & BD_MAKE_IT_FAIL) !== 0) {
    return BLK_STS_IOERR;
  }
  if (opIsWrite(op) && bdev.readOnly) warnReadOnly(bio);
  if ((bio.flags & BIO_REMAPPED) === 0) {
    if (bio.size !== 0 && !onDevice(bdev, bio)) return BLK_STS_IOERR;
    if (bdev.whole !== bdev) partitionRemap(bio);
  }
  if ((bio.opf & (REQ_FUA | REQ_PREFLUSH)) !== 0) {
    if (op !== REQ_OP_WRITE && op !== REQ_OP_ZONE_APPEND) return BLK_STS_IOERR;
    if (!bdev.writeCache) {
      bio.opf &= ~(REQ_FUA | REQ_PREFLUSH);
      if (bio.size === 0) return DONE;
    }
  }
  // Whoever submits it again must not poll where it was.
  bio.cookie = -1;
  const status = checkOp(bio, op);
  if (status !== BLK_STS_OK) return status;
  return bdev.whole.errorInjection?.inject(bio) ?? BLK_STS_OK;
}

/** Rejection is the file's business: a submitter in here is warned once (kernel:
 * `bio_check_ro`). */
function warnReadOnly(bio: Bio): void {
  const { bdev } = bio;
  if (bio.size === 0 || (bdev.bdFlags & BD_RO_WARNED) !== 0) return;
  bdev.bdFlags |= BD_RO_WARNED;
  warnOn(true, `Trying to write to read-only block device ${bdev.name}`);
}

/** Kernel: `blk_partition_remap`. */
function partitionRemap(bio: Bio): void {
  // What has no sectors, as a flush, is the whole disk's.
  const { bdev, sector } = bio;
  if (bio.size !== 0) bio.sector += bdev.startSector;
  bio.flags |= BIO_REMAPPED;
  if (blockTracer !== null) traceBlockRemap(bio, bdev, sector);
}

function checkOp(bio: Bio, op: number): number {
  const { bdev } = bio;
  const { limits } = bdev;
  if ((bio.opf & REQ_INTEGRITY) !== 0) return BLK_STS_NOTSUPP;
  if ((bio.opf & REQ_ATOMIC) !== 0 && op !== REQ_OP_WRITE) return BLK_STS_INVAL;
  switch (op) {
    case REQ_OP_READ:
      return BLK_STS_OK;
    case REQ_OP_WRITE:
      return (bio.opf & REQ_ATOMIC) !== 0 ? checkAtomic(bio) : BLK_STS_OK;
    case REQ_OP_DISCARD:
      return supported(limits.maxDiscardSectors > 0);
    case REQ_OP_SECURE_ERASE:
      return supported(limits.maxSecureEraseSectors > 0);
    case REQ_OP_WRITE_ZEROES:
      return supported(limits.maxWriteZeroesSectors > 0);
    case REQ_OP_ZONE_APPEND:
      return checkZoneAppend(bio);
    case REQ_OP_ZONE_OPEN:
    case REQ_OP_ZONE_CLOSE:
    case REQ_OP_ZONE_FINISH:
    case REQ_OP_ZONE_RESET:
      return isManaged(bdev, bio.sector) ? BLK_STS_OK : BLK_STS_IOERR;
    case REQ_OP_ZONE_RESET_ALL:
      return supported(bdevIsZoned(bdev));
    default:
      return BLK_STS_NOTSUPP;
  }
}

function supported(yes: boolean): number {
  return yes ? BLK_STS_OK : BLK_STS_NOTSUPP;
}

/** Whether the zone there is one that can be opened, closed, finished and reset. */
function isManaged(bdev: BlockDevice, sector: number): boolean {
  if (!bdevIsZoned(bdev) || !(Number.isSafeInteger(sector) && sector >= 0)) {
    return false;
  }
  // Nobody has told the block layer which zones are conventional.
  return bdev.zones === null || bdevZoneIsSeq(bdev, sector);
}

/** Kernel: `blk_validate_atomic_write_op_size`. */
function checkAtomic(bio: Bio): number {
  const { atomicWriteUnitMin: min, atomicWriteUnitMax: max } = bio.bdev.limits;
  return bio.size <= max && bio.size % min === 0 ? BLK_STS_OK : BLK_STS_INVAL;
}

/** Kernel: `blk_check_zone_append`. */
function checkZoneAppend(bio: Bio): number {
  const { bdev } = bio;
  if (!bdevIsZoned(bdev)) return BLK_STS_NOTSUPP;
  if (!bdevIsZoneStart(bdev, bio.sector)) return BLK_STS_IOERR;
  // The limit is no larger than a zone.
  if (bio.size > bdev.limits.maxZoneAppendSectors * SECTOR_SIZE) {
    return BLK_STS_IOERR;
  }
  bio.opf |= REQ_NOMERGE;
  return BLK_STS_OK;
}

/** What the driver's call that is running has submitted; null if none is. */
let added: Bio[] | null = null;
/** What was submitted by those before it, the next one last. */
const waiting: Bio[] = [];
/** The clock's `nesting` when the loop that runs began. */
let addedNesting = 0;

/** Submits a bio that has passed the checks (kernel: `submit_bio_noacct_nocheck`). */
export function submitBioNoacctNocheck(bio: Bio): void {
  if (blockTracer !== null) traceBlockQueue(bio);
  // A synchronous call, or an event run in place, that began within the loop is
  // another task: the loop goes on only after it is done.
  if (added === null || bio.bdev.clock.nesting > addedNesting) runLoop(bio);
  else added.push(bio);
}

/** Depth first: what a driver submits runs before what was waiting already. */
function runLoop(first: Bio): void {
  const above = added;
  const aboveNesting = addedNesting;
  const base = waiting.length;
  const mine: Bio[] = [];
  added = mine;
  addedNesting = first.bdev.clock.nesting;
  try {
    let bio = first;
    for (;;) {
      const { whole } = bio.bdev;
      whole.submit(bio);
      if (mine.length > 0) takeAdded(mine, whole);
      if (waiting.length === base) return;
      bio = waiting.pop()!;
    }
  } finally {
    added = above;
    addedNesting = aboveNesting;
    waiting.length = base;
  }
}

/** Lower devices go before `disk`'s own, each in the order of submission. */
function takeAdded(mine: Bio[], disk: BlockDevice): void {
  for (let i = mine.length - 1; i >= 0; i--) {
    if (mine[i]!.bdev.whole === disk) waiting.push(mine[i]!);
  }
  for (let i = mine.length - 1; i >= 0; i--) {
    if (mine[i]!.bdev.whole !== disk) waiting.push(mine[i]!);
  }
  mine.length = 0;
}

/** Of {@linkcode bioPoll}: look once (kernel: `BLK_POLL_ONESHOT`). */
export const BLK_POLL_ONESHOT: number = 1 << 0;

/** How long one poll goes on without finding anything, nanoseconds. */
const POLL_TIME = 8 * MSEC;

/**
 * Looks for completions on the queue that a polled bio went to (kernel: `bio_poll`).
 * Unless `BLK_POLL_ONESHOT` is given it goes on until it has found one, for 8 ms of
 * the device's clock at most (two ticks), and runs what is due in place meanwhile.
 *
 * @param bio A bio that was submitted with REQ_POLLED and has not ended.
 * @param flags `BLK_POLL_*`.
 * @returns Completions found, not necessarily of this bio; 0 also if it is not polled,
 *   or has been split.
 */
export function bioPoll(bio: Bio, flags = 0): number {
  // Until it has gone to the driver it has no queue.
  blkFlushPlug();
  const { bdev, cookie } = bio;
  if (cookie === -1) return 0;
  const disk = bdev.whole;
  const found = disk.poll(cookie);
  if (found > 0 || (flags & BLK_POLL_ONESHOT) !== 0) return found;
  return pollFor(disk, cookie);
}

function pollFor(disk: BlockDevice, cookie: number): number {
  const { clock } = disk;
  let found = 0;
  let expired = false;
  const timeout = clock.at(clock.now() + POLL_TIME, () => {
    expired = true;
  }, null);
  runInPlace(clock, () => (found = disk.poll(cookie)) > 0 || expired);
  if (!expired) clock.cancel(timeout);
  return found;
}
