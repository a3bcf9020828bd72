/**
 * What all mapped devices share: limits stacked from the devices below, and
 * clones of bios that go there.
 *
 * A mapped device works on bios, not requests. A bio that arrives is left as it
 * is; a clone over the same memory goes below, and the bio ends when it has.
 * What is submitted from within `submit` only joins a list (see `blk-core.ts`),
 * so devices may be stacked to any height.
 *
 * Kernel counterpart: drivers/md/dm.c, drivers/md/dm-table.c.
 *
 * @module
 */

import type { Clock } from "../../lib/clock.ts";
import { EINVAL, FsError, show } from "../../lib/errno.ts";
import { Bio, bioChain, bioEndIo, bioEndWith, submitBio } from "../bio.ts";
import {
  BadLimit,
  blkSetStackingLimits,
  blkStackLimits,
  blkValidateLimits,
  type StackedLimits,
} from "../blk-settings.ts";
import {
  BLK_STS_IOERR,
  BLK_STS_NOTSUPP,
  REQ_POLLED,
  SECTOR_SIZE,
} from "../blk-types.ts";
import {
  BLK_FEAT_FUA,
  BLK_FEAT_NOWAIT,
  BLK_FEAT_WRITE_CACHE,
  BlockDevice,
} from "../blkdev.ts";

/** The first major number that Linux has free for the device mapper. */
const DM_MAJOR = 253;
/** Pages that are read ahead at least (kernel: `VM_READAHEAD_PAGES`). */
const RA_PAGES = 32;
const PAGE_SIZE = 4096;

/** What every mapped device takes. */
export interface DmOptions {
  /**
   * Minor number, and the N of its name `dm-N`. One above the highest of the
   * mapped devices below it if absent, which two on the same device would share.
   */
  minor?: number;
}

/** A device below, and where in it the mapped device begins. */
export interface DmLeg {
  /** The device. */
  bdev: BlockDevice;
  /** Sector. */
  start: number;
}

/** What a kind of mapped device says of itself (kernel: `struct dm_target`). */
export interface DmTable {
  /** Devices below, at least 1. */
  legs: readonly DmLeg[];
  /** Size in sectors. */
  nrSectors: number;
  /** Changes the limits that the devices below give (kernel: `io_hints`). */
  hints?: (limits: StackedLimits) => void;
}

/** A block device that is made of others (kernel: `struct mapped_device`). */
export abstract class DmDevice extends BlockDevice {
  /** Its name, `dm-0`. */
  override readonly name: string;
  /** The clock of the devices below. */
  override readonly clock: Clock;
  /** Limits stacked from those of the devices below. */
  override readonly limits: StackedLimits;
  /** Size in 512-byte sectors. */
  override readonly nrSectors: number;
  /** Its number; the major is that of all mapped devices. */
  override readonly dev: { major: number; minor: number };
  /** Whether a device below has a volatile cache. */
  override readonly writeCache: boolean;
  /** Whether a device below takes FUA itself; for others a FLUSH stands in. */
  override readonly fua: boolean;

  /**
   * Stacks a device (kernel: `dm_table_complete`, `dm_calculate_queue_limits`).
   *
   * @param table What it is made of.
   * @param options Its number.
   * @throws {FsError} EINVAL if a device below is none, or has another clock than
   *   the first, if the minor number or a start cannot be, or if no limits fit all.
   */
  constructor(table: DmTable, options: DmOptions) {
    super();
    const { legs, nrSectors } = table;
    for (const { bdev } of legs) checkDevice(bdev, legs[0]!.bdev);
    this.clock = legs[0]!.bdev.clock;
    this.nrSectors = nrSectors;
    this.limits = tableLimits(table);
    const { minor = defaultMinor(legs) } = options;
    checkCount("minor", minor, 0, 2 ** 20 - 1);
    this.name = `dm-${minor}`;
    this.dev = { major: DM_MAJOR, minor };
    const { features, maxSectors, ioOpt } = this.limits;
    this.writeCache = (features & BLK_FEAT_WRITE_CACHE) !== 0;
    this.fua = (features & BLK_FEAT_FUA) !== 0;
    this.bdi.raPages = Math.max(RA_PAGES, Math.floor(2 * ioOpt / PAGE_SIZE));
    this.bdi.ioPages = Math.floor(maxSectors * SECTOR_SIZE / PAGE_SIZE);
  }

  /**
   * Takes a bio; used by `submitBio` (kernel: `dm_submit_bio`). Beside what the
   * devices below say it may end with NOTSUPP (polled) or IOERR (not aligned to
   * logical blocks).
   */
  override submit(bio: Bio): void {
    const size = this.limits.logicalBlockSize;
    const sectorMask = size / SECTOR_SIZE - 1;
    if ((bio.opf & REQ_POLLED) !== 0) bioEndWith(bio, BLK_STS_NOTSUPP);
    else if (((bio.size & (size - 1)) | (bio.sector & sectorMask)) !== 0) {
      bioEndWith(bio, BLK_STS_IOERR);
    } else this.map(bio);
  }

  /** Sends a bio on its way below, or ends it (kernel: `dm_map_fn`). */
  protected abstract map(bio: Bio): void;
}

function checkDevice(bdev: BlockDevice, first: BlockDevice): void {
  if (!(bdev instanceof BlockDevice)) {
    throw new FsError(EINVAL, `${show(bdev)} is not a block device`);
  }
  if (bdev.clock !== first.clock) {
    throw new FsError(
      EINVAL,
      `Devices ${first.name} and ${bdev.name} go by different clocks`,
    );
  }
}

function tableLimits({ legs, hints }: DmTable): StackedLimits {
  const stacked = blkSetStackingLimits(BLK_FEAT_NOWAIT);
  for (const { bdev, start } of legs) {
    blkStackLimits(stacked, bdev.limits, start);
  }
  for (const { bdev, start } of legs) {
    if (start % (stacked.logicalBlockSize / SECTOR_SIZE) !== 0) {
      throw new FsError(
        EINVAL,
        `Start sector ${start} in ${bdev.name} is not aligned to logical blocks`,
      );
    }
  }
  hints?.(stacked);
  const valid = blkValidateLimits(stacked);
  if (valid instanceof BadLimit) {
    throw new FsError(EINVAL, `No device has ${valid.field} ${valid.value}`);
  }
  const offset = stacked.alignmentOffset & (valid.physicalBlockSize - 1);
  // Blocks that begin at a known offset can be aligned to.
  const misaligned = stacked.misaligned && stacked.alignmentOffset === 0;
  return { ...valid, alignmentOffset: offset, misaligned };
}

function defaultMinor(legs: readonly DmLeg[]): number {
  const below = legs.map(({ bdev }) =>
    bdev instanceof DmDevice ? bdev.dev.minor : -1
  );
  return Math.max(...below) + 1;
}

/**
 * Checks a number that a user gives.
 *
 * @throws {FsError} EINVAL with its name, if it is no whole number from `min` to
 *   `max`.
 */
export function checkCount(
  name: string,
  value: number,
  min: number,
  max: number = Number.MAX_SAFE_INTEGER,
): void {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return;
  throw new FsError(
    EINVAL,
    `${name} ${show(value)} is not a whole number from ${min} to ${max}`,
  );
}

/** The table of a device that lies over the whole of another. */
export function wholeOf(
  bdev: BlockDevice,
  hints: (limits: StackedLimits) => void = () => {},
): DmTable {
  return { legs: [{ bdev, start: 0 }], nrSectors: bdev.nrSectors, hints };
}

/** Hints of a layer that neither answers NOWAIT nor has WRITE_ZEROES. */
export function withoutExtras(limits: StackedLimits): void {
  limits.features &= ~BLK_FEAT_NOWAIT;
  limits.maxWriteZeroesSectors = 0;
}

/** A bio over the same memory for another device (kernel: `bio_alloc_clone`). */
export function bioClone(bio: Bio, bdev: BlockDevice, sector: number): Bio {
  const clone = new Bio(bdev, bio.opf, bio.vecs);
  clone.sector = sector;
  clone.size = bio.size;
  clone.vecIndex = bio.vecIndex;
  clone.vecDone = bio.vecDone;
  return clone;
}

/**
 * Submits a clone; the bio ends when that has (kernel: `dm_submit_bio_remap`).
 *
 * @param bdev Where it goes.
 * @param sector First sector there.
 */
export function submitClone(bio: Bio, bdev: BlockDevice, sector: number): void {
  const clone = bioClone(bio, bdev, sector);
  bioChain(clone, bio);
  submitBio(clone);
  // Only the clone is left to be waited for.
  bioEndIo(bio);
}

/** What is left of a bio's memory, copied into one piece. */
export function copyPayload(bio: Bio): Uint8Array {
  const copy = new Uint8Array(bio.size);
  let at = 0;
  let skip = bio.vecDone;
  for (let i = bio.vecIndex; at < copy.length; i++) {
    const { data, offset, len } = bio.vecs[i]!;
    const n = Math.min(len - skip, copy.length - at);
    copy.set(data.subarray(offset + skip, offset + skip + n), at);
    at += n;
    skip = 0;
  }
  return copy;
}
