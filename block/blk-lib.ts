/**
 * Whole ranges of a device: flushing, discarding, erasing and zeroing them.
 *
 * A range may be far larger than a bio, and a terabyte of zeroes is many bios: a
 * bounded number is under way at a time.
 *
 * Kernel counterpart: block/blk-lib.c, block/blk-flush.c.
 *
 * @module
 */

import { EINVAL, EIO, EOPNOTSUPP, EPERM } from "../lib/errno.ts";
import { andThen, type MaybePromise, repeat } from "../lib/maybe-promise.ts";
import {
  Bio,
  BIO_MAX_SECTORS,
  BIO_MAX_VECS,
  bioChain,
  submitBio,
  submitBioWait,
} from "./bio.ts";
import { blkFinishPlug, blkStartPlug } from "./blk-plug.ts";
import {
  REQ_NOUNMAP,
  REQ_OP_DISCARD,
  REQ_OP_SECURE_ERASE,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_PREFLUSH,
  SECTOR_SIZE,
} from "./blk-types.ts";
import type { BlockDevice } from "./blkdev.ts";

/** Of {@linkcode blkdevIssueZeroout}: the blocks stay allocated. */
export const BLKDEV_ZERO_NOUNMAP: number = 1 << 0;
/** Of {@linkcode blkdevIssueZeroout}: only if the device has a command for it. */
export const BLKDEV_ZERO_NOFALLBACK: number = 1 << 1;

/** Bios under way at a time. */
const WINDOW = 64;
/** Memory that stays zero. */
const ZEROES = new Uint8Array(65536);

/**
 * Makes everything completed so far durable (kernel: `blkdev_issue_flush`).
 *
 * @returns 0 or the negative errno of the flush.
 */
export function blkdevIssueFlush(bdev: BlockDevice): MaybePromise<number> {
  return submitBioWait(new Bio(bdev, REQ_OP_WRITE | REQ_PREFLUSH));
}

/**
 * Tells a device that a range is not needed any more (kernel:
 * `blkdev_issue_discard`). What is there afterwards is the device's to say.
 *
 * @param sector First sector.
 * @param nrSectors Sectors; 0 does nothing.
 * @returns 0, also if the device finds out only now that it cannot; -EPERM if it is
 *   read-only; -EOPNOTSUPP if it has no such command; -EINVAL if the range is none,
 *   or not aligned to logical blocks; -EIO if it passes the device's end; else the
 *   negative errno of the first bio that failed.
 */
export function blkdevIssueDiscard(
  bdev: BlockDevice,
  sector: number,
  nrSectors: number,
): MaybePromise<number> {
  if (bdev.readOnly) return -EPERM;
  if (bdev.limits.maxDiscardSectors === 0) return -EOPNOTSUPP;
  const error = checkRange(bdev, sector, nrSectors);
  if (error !== 0) return error;
  const done = coverRange(bdev, sector, nrSectors, nextDiscard, 0);
  return andThen(done, (ret) => ret === -EOPNOTSUPP ? 0 : ret);
}

/**
 * Discards a range so that nothing of it can be found again (kernel:
 * `blkdev_issue_secure_erase`).
 *
 * @param sector First sector.
 * @param nrSectors Sectors; 0 does nothing.
 * @returns 0; -EOPNOTSUPP if the device has no such command; -EINVAL if the range is
 *   none, or not aligned to logical blocks; -EPERM if the device is read-only; -EIO
 *   if the range passes its end; else the negative errno of the first bio that failed.
 */
export function blkdevIssueSecureErase(
  bdev: BlockDevice,
  sector: number,
  nrSectors: number,
): MaybePromise<number> {
  const most = wholeBlocks(bdev, bdev.limits.maxSecureEraseSectors);
  if (most === 0) return -EOPNOTSUPP;
  const error = checkRange(bdev, sector, nrSectors);
  if (error !== 0) return error;
  if (bdev.readOnly) return -EPERM;
  return coverRange(bdev, sector, nrSectors, nextSecureErase, 0);
}

/**
 * Zeroes a range, by command where the device has one, else by writing zeroes
 * (kernel: `blkdev_issue_zeroout`).
 *
 * @param sector First sector.
 * @param nrSectors Sectors; 0 does nothing.
 * @param flags `BLKDEV_ZERO_*`.
 * @returns 0; -EINVAL if the range is none, or not aligned to logical blocks; -EPERM
 *   if the device is read-only; -EIO if the range passes its end; -EOPNOTSUPP with
 *   `BLKDEV_ZERO_NOFALLBACK` if it has no such command; else the negative errno of
 *   the first bio that failed.
 */
export function blkdevIssueZeroout(
  bdev: BlockDevice,
  sector: number,
  nrSectors: number,
  flags = 0,
): MaybePromise<number> {
  const error = checkRange(bdev, sector, nrSectors);
  if (error !== 0) return error;
  if (bdev.readOnly) return -EPERM;
  if (wholeBlocks(bdev, bdev.limits.maxWriteZeroesSectors) === 0) {
    return writeZeroPages(bdev, sector, nrSectors, flags);
  }
  const done = coverRange(bdev, sector, nrSectors, nextWriteZeroes, flags);
  // A device may find out only now that it cannot.
  return andThen(
    done,
    (ret) =>
      ret === -EOPNOTSUPP
        ? writeZeroPages(bdev, sector, nrSectors, flags)
        : ret,
  );
}

function writeZeroPages(
  bdev: BlockDevice,
  sector: number,
  nrSectors: number,
  flags: number,
): MaybePromise<number> {
  if ((flags & BLKDEV_ZERO_NOFALLBACK) !== 0) return -EOPNOTSUPP;
  return coverRange(bdev, sector, nrSectors, nextZeroPages, 0);
}

function checkRange(
  bdev: BlockDevice,
  sector: number,
  nrSectors: number,
): number {
  if (!(Number.isSafeInteger(sector) && sector >= 0)) return -EINVAL;
  if (!(Number.isSafeInteger(nrSectors) && nrSectors >= 0)) return -EINVAL;
  const mask = bdev.limits.logicalBlockSize / SECTOR_SIZE - 1;
  if (((sector & mask) | (nrSectors & mask)) !== 0) return -EINVAL;
  return nrSectors > 0 && nrSectors > bdev.nrSectors - sector ? -EIO : 0;
}

/** As many sectors as are whole blocks and one bio can hold. */
function wholeBlocks(bdev: BlockDevice, sectors: number): number {
  const mask = bdev.limits.logicalBlockSize / SECTOR_SIZE - 1;
  return Math.min(sectors, BIO_MAX_SECTORS) & ~mask;
}

/** Makes a bio over some of the first `nrSectors` from a sector on. */
type NextBio = (
  bdev: BlockDevice,
  sector: number,
  nrSectors: number,
  flags: number,
) => Bio;

/** Kernel: `blk_alloc_discard_bio`, `bio_discard_limit`. */
function nextDiscard(
  bdev: BlockDevice,
  sector: number,
  nrSectors: number,
): Bio {
  const { discardGranularity } = bdev.limits;
  const granularity = Math.max(1, discardGranularity / SECTOR_SIZE);
  const past = (bdev.startSector + sector) % granularity;
  // A first bio up to where a unit begins, then whole units: no unit is cut.
  const most = past === 0
    ? BIO_MAX_SECTORS - BIO_MAX_SECTORS % granularity
    : granularity - past;
  return rangeBio(bdev, REQ_OP_DISCARD, Math.min(nrSectors, most));
}

function nextSecureErase(
  bdev: BlockDevice,
  _sector: number,
  nrSectors: number,
): Bio {
  const most = wholeBlocks(bdev, bdev.limits.maxSecureEraseSectors);
  return rangeBio(bdev, REQ_OP_SECURE_ERASE, Math.min(nrSectors, most));
}

/** Kernel: `__blkdev_issue_write_zeroes`. */
function nextWriteZeroes(
  bdev: BlockDevice,
  _sector: number,
  nrSectors: number,
  flags: number,
): Bio {
  const keep = (flags & BLKDEV_ZERO_NOUNMAP) !== 0 ? REQ_NOUNMAP : 0;
  const most = wholeBlocks(bdev, bdev.limits.maxWriteZeroesSectors);
  return rangeBio(bdev, REQ_OP_WRITE_ZEROES | keep, Math.min(nrSectors, most));
}

function rangeBio(bdev: BlockDevice, opf: number, nrSectors: number): Bio {
  const bio = new Bio(bdev, opf);
  bio.size = nrSectors * SECTOR_SIZE;
  return bio;
}

/** Kernel: `__blkdev_issue_zero_pages`. */
function nextZeroPages(
  bdev: BlockDevice,
  _sector: number,
  nrSectors: number,
): Bio {
  const bio = new Bio(bdev, REQ_OP_WRITE);
  let left = nrSectors * SECTOR_SIZE;
  while (left > 0 && bio.vecs.length < BIO_MAX_VECS) {
    const len = Math.min(left, ZEROES.length);
    bio.addData(ZEROES, 0, len);
    left -= len;
  }
  return bio;
}

/** Covers all of a range with bios, a window of them at a time; the first error
 * counts. */
function coverRange(
  bdev: BlockDevice,
  sector: number,
  nrSectors: number,
  next: NextBio,
  flags: number,
): MaybePromise<number> {
  const end = sector + nrSectors;
  let at = sector;
  let error = 0;
  const done = repeat(() => {
    if (at >= end) return false;
    const [waited, following] = submitWindow(bdev, at, end, next, flags);
    at = following;
    return andThen(waited, (ret) => {
      if (error === 0) error = ret;
      return true;
    });
  });
  return andThen(done, () => error);
}

/** Submits up to {@linkcode WINDOW} bios under one plug, each chained to the next.
 * @returns What waits for all of them, and where the next window begins. */
function submitWindow(
  bdev: BlockDevice,
  sector: number,
  end: number,
  next: NextBio,
  flags: number,
): [MaybePromise<number>, number] {
  blkStartPlug();
  try {
    let bio = next(bdev, sector, end - sector, flags);
    bio.sector = sector;
    let at = bio.endSector;
    for (let n = 1; n < WINDOW && at < end; n++) {
      const following = next(bdev, at, end - at, flags);
      following.sector = at;
      at = following.endSector;
      bioChain(bio, following);
      submitBio(bio);
      bio = following;
    }
    return [submitBioWait(bio), at];
  } finally {
    blkFinishPlug();
  }
}
