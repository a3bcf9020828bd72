/**
 * Partitions: stretches of a disk, with the disk's own queue and limits.
 *
 * Unlike a mapped device (`dm/linear.ts`) a partition is no layer: `submitBio` adds
 * its start to a bio once, and the disk's driver takes it from there.
 *
 * Kernel counterpart: block/partitions/core.c, block/bdev.c.
 *
 * @module
 */

import type { Clock } from "../lib/clock.ts";
import { EINVAL, ENXIO, FsError, show } from "../lib/errno.ts";
import type { Bio } from "./bio.ts";
import { SECTOR_SIZE } from "./blk-types.ts";
import { bdevIsZoned, BlockDevice, type QueueLimits } from "./blkdev.ts";

/** A stretch of a disk (kernel: `struct block_device` with a `bd_partno`). */
export class Partition extends BlockDevice {
  /** The disk's name and the partition's number, `nvme0n1p1`. */
  override readonly name: string;
  /** Size in 512-byte sectors. */
  override readonly nrSectors: number;
  /** The disk's, with its minor number moved by the partition's number. */
  override readonly dev: { major: number; minor: number };

  /**
   * Makes a partition (kernel: `add_partition`).
   *
   * @param disk The disk.
   * @param number Its number, 1 to 255.
   * @param startSector First sector.
   * @param nrSectors Sectors; the rest of the disk if absent.
   * @throws {FsError} ENXIO if the disk has zones; EINVAL if it is a partition, if
   *   the stretch does not lie on it or is not aligned to its logical blocks, or if
   *   the number cannot be.
   */
  constructor(
    disk: BlockDevice,
    number: number,
    startSector: number,
    nrSectors: number = disk.nrSectors - startSector,
  ) {
    super(disk, startSector);
    if (bdevIsZoned(disk)) {
      throw new FsError(ENXIO, `Cannot cut ${disk.name}, it has zones`);
    }
    checkPartition(disk, number, startSector, nrSectors);
    this.name = disk.name + (/\d$/.test(disk.name) ? "p" : "") + number;
    this.nrSectors = nrSectors;
    this.dev = { major: disk.dev.major, minor: disk.dev.minor + number };
  }

  /** The disk's clock. */
  override get clock(): Clock {
    return this.whole.clock;
  }

  /** The disk's limits. */
  override get limits(): QueueLimits {
    return this.whole.limits;
  }

  /** Hands a bio that `submitBio` has moved to the disk. */
  override submit(bio: Bio): void {
    this.whole.submit(bio);
  }

  /** Polls the disk. */
  override poll(cookie: number): number {
    return this.whole.poll(cookie);
  }
}

function checkPartition(
  disk: BlockDevice,
  number: number,
  startSector: number,
  nrSectors: number,
): void {
  const refuse = (what: string): never => {
    throw new FsError(EINVAL, `Cannot cut ${disk.name}, ${what}`);
  };
  if (disk.whole !== disk) refuse("it is a partition");
  if (!(Number.isInteger(number) && number >= 1 && number <= 255)) {
    refuse(`partition number ${show(number)} is none from 1 to 255`);
  }
  const perBlock = disk.limits.logicalBlockSize / SECTOR_SIZE;
  const aligned = (n: number, least: number) =>
    Number.isSafeInteger(n) && n >= least && n % perBlock === 0;
  if (!aligned(startSector, 0) || startSector >= disk.nrSectors) {
    refuse(`startSector ${show(startSector)} is no block's on it`);
  }
  if (!aligned(nrSectors, 1) || nrSectors > disk.nrSectors - startSector) {
    refuse(`nrSectors ${show(nrSectors)} are not on it, or no whole blocks`);
  }
}
