/**
 * A block device as its users see it.
 *
 * Kernel counterpart: include/linux/blkdev.h, block/blk-core.c.
 *
 * @module
 */

import type { Clock } from "../lib/clock.ts";
import { EOPNOTSUPP } from "../lib/errno.ts";
import type { MaybePromise } from "../lib/maybe-promise.ts";
import type { Bio } from "./bio.ts";
import { SECTOR_SIZE } from "./blk-types.ts";
import type { RequestQueue } from "./blk-mq.ts";
import type { DiskZones, ReportZonesCb } from "./blk-zoned.ts";

/** The device has a volatile write cache (kernel: `BLK_FEAT_WRITE_CACHE`). */
export const BLK_FEAT_WRITE_CACHE: number = 1 << 0;
/** The device takes FUA itself (kernel: `BLK_FEAT_FUA`). */
export const BLK_FEAT_FUA: number = 1 << 1;
/** Heads have to move (kernel: `BLK_FEAT_ROTATIONAL`). */
export const BLK_FEAT_ROTATIONAL: number = 1 << 2;
/** Its timing is a source of randomness; says nothing here (kernel: `BLK_FEAT_ADD_RANDOM`). */
export const BLK_FEAT_ADD_RANDOM: number = 1 << 3;
/** Requests are counted; here they always are (kernel: `BLK_FEAT_IO_STAT`). */
export const BLK_FEAT_IO_STAT: number = 1 << 4;
/** Memory must not change while it is written; no device here asks for that (kernel:
 * `BLK_FEAT_STABLE_WRITES`). */
export const BLK_FEAT_STABLE_WRITES: number = 1 << 5;
/** I/O is done when `submitBio` returns (kernel: `BLK_FEAT_SYNCHRONOUS`). */
export const BLK_FEAT_SYNCHRONOUS: number = 1 << 6;
/** REQ_NOWAIT may be used (kernel: `BLK_FEAT_NOWAIT`). */
export const BLK_FEAT_NOWAIT: number = 1 << 7;
/** Its memory can be mapped (kernel: `BLK_FEAT_DAX`). */
export const BLK_FEAT_DAX: number = 1 << 8;
/** REQ_POLLED may be used (kernel: `BLK_FEAT_POLL`). */
export const BLK_FEAT_POLL: number = 1 << 9;
/** It has zones (kernel: `BLK_FEAT_ZONED`). */
export const BLK_FEAT_ZONED: number = 1 << 10;
/** Peers on the bus may reach its memory (kernel: `BLK_FEAT_PCI_P2PDMA`). */
export const BLK_FEAT_PCI_P2PDMA: number = 1 << 12;
/** It has units that are written whole or not at all (kernel: `BLK_FEAT_ATOMIC_WRITES`). */
export const BLK_FEAT_ATOMIC_WRITES: number = 1 << 14;
/** A stripe written in part costs extra (kernel:
 * `BLK_FEAT_RAID_PARTIAL_STRIPES_EXPENSIVE`). */
export const BLK_FEAT_RAID_PARTIAL_STRIPES_EXPENSIVE: number = 1 << 15;

/** The user turned "write back" off: no FLUSH is sent any more, and the device's
 * cache is as volatile as before (kernel: `BLK_FLAG_WRITE_CACHE_DISABLED`). */
export const BLK_FLAG_WRITE_CACHE_DISABLED: number = 1 << 0;
/** Blocks of the devices below do not line up (kernel: `BLK_FLAG_MISALIGNED`). */
export const BLK_FLAG_MISALIGNED: number = 1 << 1;

/**
 * What a device can do in one request (kernel: `struct queue_limits`).
 * Made by `blkValidateLimits`, which derives what a driver leaves out.
 */
export interface QueueLimits {
  /** OR of `BLK_FEAT_*`. */
  features: number;
  /** OR of `BLK_FLAG_*`. */
  flags: number;
  /** Smallest addressable unit, bytes: a power of two, 512 to 65536. */
  logicalBlockSize: number;
  /** Unit written without read-modify-write, bytes. */
  physicalBlockSize: number;
  /** Where the first physical block begins, bytes. */
  alignmentOffset: number;
  /** Smallest I/O that is not penalised, bytes. */
  ioMin: number;
  /** I/O size for best throughput, bytes; 0 if unknown. */
  ioOpt: number;
  /** What the hardware takes in one command, sectors. */
  maxHwSectors: number;
  /** What the device behind the hardware takes, sectors; 0 if there is no such cap. */
  maxDevSectors: number;
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
  /** Largest WRITE_ZEROES that deallocates, sectors: 0 or `maxWriteZeroesSectors`. */
  maxHwWzeroesUnmapSectors: number;
  /** What the hardware discards in one command, sectors; 0 if it cannot. */
  maxHwDiscardSectors: number;
  /** The user's cap on discards, sectors; `0xffff_ffff` if there is none. */
  maxUserDiscardSectors: number;
  /** Largest DISCARD in force, sectors; derived, 0 if there is none. */
  maxDiscardSectors: number;
  /** Unit in which the device deallocates, bytes. */
  discardGranularity: number;
  /** Where the first such unit begins, bytes. */
  discardAlignment: number;
  /** Ranges of one DISCARD. */
  maxDiscardSegments: number;
  /** Largest SECURE_ERASE, sectors; 0 if the device has none. */
  maxSecureEraseSectors: number;
  /** Write streams; 0 if there are none. */
  maxWriteStreams: number;
  /** Unit that a stream is reclaimed in, bytes. */
  writeStreamGranularity: number;
  /** What the hardware appends in one command, sectors; 0: append is emulated. */
  maxHwZoneAppendSectors: number;
  /** Largest ZONE_APPEND in force, sectors; derived. */
  maxZoneAppendSectors: number;
  /** Zones that may be open; 0 if any number. */
  maxOpenZones: number;
  /** Zones that may be open or closed; 0 if any number. */
  maxActiveZones: number;
  /** Unit in which a sequential zone is written, bytes. */
  zoneWriteGranularity: number;
  /** Largest write that is whole or not at all, as the device says, bytes. */
  atomicWriteHwMax: number;
  /** Smallest such write, as the device says, bytes. */
  atomicWriteHwUnitMin: number;
  /** Largest single such write, as the device says, bytes. */
  atomicWriteHwUnitMax: number;
  /** No such write crosses a multiple of this, as the device says, bytes; 0: any may. */
  atomicWriteHwBoundary: number;
  /** Largest atomic request, merged ones included, sectors; derived. */
  atomicWriteMaxSectors: number;
  /** Smallest atomic write, bytes; derived, 0 if there are none. */
  atomicWriteUnitMin: number;
  /** Largest atomic write, bytes; derived. */
  atomicWriteUnitMax: number;
  /** Boundary that an atomic write does not cross, bytes; derived. */
  atomicWriteBoundary: number;
}

/** How far files on a device are read ahead; those opened from then on follow a
 * change (kernel: `struct backing_dev_info`). Pages of 4 KiB. */
export class BackingDevInfo {
  /** Largest window; what `blockdev --setra` sets. */
  raPages = 32;
  /** Largest I/O of the device, which the window of a larger read may have. */
  ioPages = 1024;
}

/** It is a part of another device. */
export const BD_PARTITION: number = 1 << 0;
/** Files on it cannot be written (kernel: `BD_READ_ONLY`). */
export const BD_READ_ONLY: number = 1 << 8;
/** A write to a read-only device has been warned of (kernel: `BD_RO_WARNED`). */
export const BD_RO_WARNED: number = 1 << 11;
/** Every bio fails (kernel: `BD_MAKE_IT_FAIL`, attribute `make-it-fail`). */
export const BD_MAKE_IT_FAIL: number = 1 << 12;

/** Chooses bios that fail before a driver sees them. */
export interface ErrorInjector {
  /**
   * Looks at a bio on its way to the driver (kernel: `blk_error_inject`).
   *
   * @returns The `BLK_STS_*` that it ends with, or `BLK_STS_OK` to let it go.
   */
  inject(bio: Bio): number;
}

/** Somebody who has a device to himself (kernel: `struct blk_holder_ops`). */
export interface BlockHolder {
  /** The device is gone, and the holder's claim with it (kernel: `mark_dead`). */
  markDead(): void;
}

/** Something that takes bios (kernel: `struct block_device`). */
export abstract class BlockDevice {
  /** Device's name, `nvme0n1`. */
  abstract readonly name: string;
  /** Time that its I/O takes is told by this clock. */
  abstract readonly clock: Clock;
  /** Limits in force: replaced as a whole by `queueLimitsCommitUpdate`, never changed. */
  abstract limits: QueueLimits;
  /** Size in 512-byte sectors. */
  abstract readonly nrSectors: number;
  /** Major and minor number, for tracepoints. */
  abstract readonly dev: { major: number; minor: number };
  /** The disk that it is a part of; itself if it is none (kernel: `bdev_whole`). */
  readonly whole: BlockDevice;
  /** Where in the disk it begins, sectors (kernel: `bd_start_sect`). */
  readonly startSector: number;
  /** How files on it are read ahead; shared by a disk and its partitions. */
  readonly bdi: BackingDevInfo;
  /** OR of `BD_*`: what makes `submitBio` look closer (kernel: `__bd_flags`). */
  bdFlags = 0;
  /** Makes bios of this disk and its partitions fail; null lets all go. */
  errorInjection: ErrorInjector | null = null;
  /** Where its requests are; null if its driver works on bios, and for a partition
   * (kernel: `bd_queue`). */
  requestQueue: RequestQueue | null = null;
  /** What is known of its zones; null if it has none, or they are not as they must be. */
  zones: DiskZones | null = null;
  /** Who has it to himself, as a mounted file system has; null if nobody has
   * (kernel: `bd_holder`). */
  holder: BlockHolder | null = null;

  /**
   * A disk, or a part of one.
   *
   * @param whole The disk that it is a part of; absent if it is one.
   * @param startSector Where it begins there.
   */
  constructor(whole?: BlockDevice, startSector = 0) {
    this.whole = whole ?? this;
    this.startSector = startSector;
    this.bdi = whole?.bdi ?? new BackingDevInfo();
    if (whole !== undefined) this.bdFlags = BD_PARTITION;
  }

  /** Whether completed writes may be lost with the power, as far as the user lets
   * the block layer know (kernel: `bdev_write_cache`). */
  get writeCache(): boolean {
    const { features, flags } = this.limits;
    return (features & BLK_FEAT_WRITE_CACHE) !== 0 &&
      (flags & BLK_FLAG_WRITE_CACHE_DISABLED) === 0;
  }

  /** Whether the device takes FUA itself (kernel: `bdev_fua`). */
  get fua(): boolean {
    return (this.limits.features & BLK_FEAT_FUA) !== 0;
  }

  /** Files on it cannot be written; the block layer lets a bio pass, with a warning
   * (kernel: `bdev_read_only`). */
  get readOnly(): boolean {
    return ((this.bdFlags | this.whole.bdFlags) & BD_READ_ONLY) !== 0;
  }

  set readOnly(on: boolean) {
    // A warning for each time that it becomes so.
    this.bdFlags &= ~(BD_READ_ONLY | BD_RO_WARNED);
    if (on) this.bdFlags |= BD_READ_ONLY;
  }

  /** The driver's entry, called by `submitBio` after its checks. */
  abstract submit(bio: Bio): void;

  /**
   * Asks the device about its zones (kernel: `report_zones` of the disk's operations);
   * used by `blkdevReportZones`.
   *
   * @param _sector Sector in the first zone.
   * @param _nrZones Most zones.
   * @param _cb Called for each; what it answers, if not 0, ends the report.
   * @returns Zones reported, or a negative errno: -EOPNOTSUPP if it cannot.
   */
  reportZones(
    _sector: number,
    _nrZones: number,
    _cb: ReportZonesCb,
  ): MaybePromise<number> {
    return -EOPNOTSUPP;
  }

  /**
   * Looks for completions of polled bios (kernel: `blk_mq_poll`); used by `bioPoll`.
   *
   * @param _cookie Hardware queue: the bio's `cookie`.
   * @returns Completions found.
   */
  poll(_cookie: number): number {
    return 0;
  }
}

/**
 * Whether a start sector lets the device's atomic units lie where they should
 * (kernel: `blk_atomic_write_start_sect_aligned`).
 */
export function blkAtomicWriteStartSectAligned(
  sector: number,
  lim: QueueLimits,
): boolean {
  const alignment = Math.max(
    lim.atomicWriteHwUnitMin,
    lim.atomicWriteHwBoundary,
  );
  return alignment === 0 || sector % (alignment / SECTOR_SIZE) === 0;
}

/** Whether writes may be atomic: the device has such, and a partition begins where
 * they can (kernel: `bdev_can_atomic_write`). */
export function bdevCanAtomicWrite(bdev: BlockDevice): boolean {
  return bdev.limits.atomicWriteUnitMin > 0 &&
    blkAtomicWriteStartSectAligned(bdev.startSector, bdev.limits);
}

/** Smallest atomic write, bytes; 0 if there are none (kernel:
 * `bdev_atomic_write_unit_min_bytes`). */
export function bdevAtomicWriteUnitMinBytes(bdev: BlockDevice): number {
  return bdevCanAtomicWrite(bdev) ? bdev.limits.atomicWriteUnitMin : 0;
}

/** Largest atomic write, bytes; 0 if there are none (kernel:
 * `bdev_atomic_write_unit_max_bytes`). */
export function bdevAtomicWriteUnitMaxBytes(bdev: BlockDevice): number {
  return bdevCanAtomicWrite(bdev) ? bdev.limits.atomicWriteUnitMax : 0;
}

/** Whether it has zones (kernel: `bdev_is_zoned`). */
export function bdevIsZoned(bdev: BlockDevice): boolean {
  return (bdev.limits.features & BLK_FEAT_ZONED) !== 0;
}

/** Whether a zone begins at a sector (kernel: `bdev_is_zone_start`). */
export function bdevIsZoneStart(bdev: BlockDevice, sector: number): boolean {
  return sector % bdev.limits.chunkSectors === 0;
}
