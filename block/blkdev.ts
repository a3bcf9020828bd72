/**
 * A block device as its users see it.
 *
 * Kernel counterpart: include/linux/blkdev.h, block/blk-core.c.
 *
 * @module
 */

import type { Clock } from "../lib/clock.ts";
import { EINVAL, EIO, EOPNOTSUPP } from "../lib/errno.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import {
  Bio,
  BIO_MAX_VECS,
  bioChain,
  submitBio,
  submitBioWait,
} from "./bio.ts";
import {
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_PREFLUSH,
  SECTOR_SIZE,
} from "./blk-types.ts";

/** The device has a volatile write cache (kernel: `BLK_FEAT_WRITE_CACHE`). */
export const BLK_FEAT_WRITE_CACHE: number = 1 << 0;
/** The device takes FUA itself (kernel: `BLK_FEAT_FUA`). */
export const BLK_FEAT_FUA: number = 1 << 1;
/** REQ_NOWAIT may be used (kernel: `BLK_FEAT_NOWAIT`). */
export const BLK_FEAT_NOWAIT: number = 1 << 7;

/**
 * What a device can do in one request (kernel: `struct queue_limits`).
 * Made by `blkValidateLimits`, which derives what a driver leaves out.
 */
export interface QueueLimits {
  /** OR of `BLK_FEAT_*`. */
  features: number;
  /** Smallest addressable unit, bytes: a power of two, 512 to 65536. */
  logicalBlockSize: number;
  /** Unit written without read-modify-write, bytes. */
  physicalBlockSize: number;
  /** Smallest I/O that is not penalised, bytes. */
  ioMin: number;
  /** I/O size for best throughput, bytes; 0 if unknown. */
  ioOpt: number;
  /** What the hardware takes in one command, sectors. */
  maxHwSectors: number;
  /** The user's own cap, sectors; 0 if there is none. */
  maxUserSectors: number;
  /** Largest read or write in force, sectors; derived. */
  maxSectors: number;
  /** No I/O crosses a multiple of this, sectors; 0 if any may. */
  chunkSectors: number;
  /** Most memory segments of a request. */
  maxSegments: number;
  /** Largest memory segment, bytes. */
  maxSegmentSize: number;
  /** A segment does not cross a multiple of this plus one, bytes. */
  segBoundaryMask: number;
  /** Between two segments lies no gap but at multiples of this plus one; 0 if any may. */
  virtBoundaryMask: number;
  /** Mask that memory addresses and lengths must not have bits in. */
  dmaAlignment: number;
  /** Largest WRITE_ZEROES, sectors; 0 if the device has none. */
  maxWriteZeroesSectors: number;
}

/** How far files on a device are read ahead; those opened from then on follow a
 * change (kernel: `struct backing_dev_info`). Pages of 4 KiB. */
export class BackingDevInfo {
  /** Largest window; what `blockdev --setra` sets. */
  raPages = 32;
  /** Largest I/O of the device, which the window of a larger read may have. */
  ioPages = 1024;
}

/** Something that takes bios (kernel: `struct block_device`). */
export abstract class BlockDevice {
  /** Device's name, `nvme0n1`. */
  abstract readonly name: string;
  /** Time that its I/O takes is told by this clock. */
  abstract readonly clock: Clock;
  /** Limits in force. */
  abstract readonly limits: QueueLimits;
  /** Size in 512-byte sectors. */
  abstract readonly nrSectors: number;
  /** Major and minor number, for tracepoints. */
  abstract readonly dev: { major: number; minor: number };
  /** Whether completed writes may be lost with the power (kernel: `bdev_write_cache`). */
  abstract readonly writeCache: boolean;
  /** Whether the device takes FUA itself (kernel: `bdev_fua`). */
  abstract readonly fua: boolean;
  /** How files on it are read ahead. */
  readonly bdi: BackingDevInfo = new BackingDevInfo();

  /** The driver's entry, called by `submitBio` after its checks. */
  abstract submit(bio: Bio): void;
}

/**
 * Makes everything completed so far durable (kernel: `blkdev_issue_flush`).
 *
 * @returns 0 or the negative errno of the flush.
 */
export function blkdevIssueFlush(bdev: BlockDevice): MaybePromise<number> {
  return submitBioWait(new Bio(bdev, REQ_OP_WRITE | REQ_PREFLUSH));
}

/**
 * Zeroes a range of sectors, by command where the device has one
 * (kernel: `blkdev_issue_zeroout`).
 *
 * @returns 0; -EINVAL if the range is none, or not aligned to logical blocks; -EIO
 *   if it passes the device's end; else the negative errno of the first bio that
 *   failed.
 */
export function blkdevIssueZeroout(
  bdev: BlockDevice,
  sector: number,
  nrSectors: number,
): MaybePromise<number> {
  if (!(Number.isSafeInteger(sector) && sector >= 0)) return -EINVAL;
  if (!(Number.isSafeInteger(nrSectors) && nrSectors >= 0)) return -EINVAL;
  const mask = bdev.limits.logicalBlockSize / SECTOR_SIZE - 1;
  if (((sector & mask) | (nrSectors & mask)) !== 0) return -EINVAL;
  if (nrSectors === 0) return 0;
  if (nrSectors > bdev.nrSectors - sector) return -EIO;
  if (bdev.limits.maxWriteZeroesSectors === 0) {
    return zeroRange(bdev, sector, nrSectors, writeZeroPages);
  }
  const done = zeroRange(bdev, sector, nrSectors, writeZeroes);
  // A device may find out only now that it cannot.
  return andThen(
    done,
    (error) =>
      error === -EOPNOTSUPP
        ? zeroRange(bdev, sector, nrSectors, writeZeroPages)
        : error,
  );
}

/** Sectors that a bio can hold: its bytes are 32 bits (kernel:
 * `bio_write_zeroes_limit`). */
const BIO_MAX_SECTORS = 2 ** 23 - 1;
/** Memory that stays zero. */
const ZEROES = new Uint8Array(65536);

/** The next bio of at most `nrSectors`. */
type NextBio = (bdev: BlockDevice, nrSectors: number) => Bio;

function writeZeroes(bdev: BlockDevice, nrSectors: number): Bio {
  const bio = new Bio(bdev, REQ_OP_WRITE_ZEROES);
  const { logicalBlockSize, maxWriteZeroesSectors } = bdev.limits;
  const most = BIO_MAX_SECTORS & -(logicalBlockSize / SECTOR_SIZE);
  bio.size = Math.min(nrSectors, maxWriteZeroesSectors, most) * SECTOR_SIZE;
  return bio;
}

function writeZeroPages(bdev: BlockDevice, nrSectors: number): Bio {
  const bio = new Bio(bdev, REQ_OP_WRITE);
  let left = nrSectors * SECTOR_SIZE;
  while (left > 0 && bio.vecs.length < BIO_MAX_VECS) {
    const len = Math.min(left, ZEROES.length);
    bio.addData(ZEROES, 0, len);
    left -= len;
  }
  return bio;
}

/** Covers a range with bios, each chained to the next; waits for the last. */
function zeroRange(
  bdev: BlockDevice,
  sector: number,
  nrSectors: number,
  next: NextBio,
): MaybePromise<number> {
  const end = sector + nrSectors;
  let bio = next(bdev, nrSectors);
  bio.sector = sector;
  while (bio.endSector < end) {
    const following = next(bdev, end - bio.endSector);
    following.sector = bio.endSector;
    bioChain(bio, following);
    submitBio(bio);
    bio = following;
  }
  return submitBioWait(bio);
}
