/**
 * A block device as a file: read, write and the ioctls, all past any cache.
 *
 * A disk that refuses what a file asks for is asked late, through a bio; what can be
 * known from its limits is refused here, before a bio exists, and often by another
 * errno.
 *
 * Kernel counterpart: block/fops.c, block/ioctl.c.
 *
 * @module
 */

import {
  EAGAIN,
  EBADF,
  EFAULT,
  EINVAL,
  ENOSPC,
  ENOTTY,
  EOPNOTSUPP,
  EPERM,
} from "../lib/errno.ts";
import { IovIter } from "../lib/iov-iter.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import { Bio, bioChain, submitBio, submitBioWait } from "./bio.ts";
import {
  BLKDEV_ZERO_NOUNMAP,
  blkdevIssueDiscard,
  blkdevIssueFlush,
  blkdevIssueSecureErase,
  blkdevIssueZeroout,
} from "./blk-lib.ts";
import { blkFinishPlug, blkStartPlug } from "./blk-plug.ts";
import {
  REQ_ATOMIC,
  REQ_FUA,
  REQ_IDLE,
  REQ_NOWAIT,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_ZONE_CLOSE,
  REQ_OP_ZONE_FINISH,
  REQ_OP_ZONE_OPEN,
  REQ_OP_ZONE_RESET,
  REQ_SYNC,
  SECTOR_SIZE,
} from "./blk-types.ts";
import {
  blkdevReportZones,
  blkdevZoneMgmt,
  type BlkZone,
} from "./blk-zoned.ts";
import {
  bdevCanAtomicWrite,
  bdevIsZoned,
  BLK_FEAT_NOWAIT,
  type BlockDevice,
} from "./blkdev.ts";

/** Poll for the completion; says nothing to a caller that waits. */
export const RWF_HIPRI = 0x1;
/** Durable data before the call returns. */
export const RWF_DSYNC = 0x2;
/** Durable data and metadata before the call returns. */
export const RWF_SYNC = 0x4;
/** -EAGAIN rather than wait for a tag. */
export const RWF_NOWAIT = 0x8;
/** The write is all or nothing. */
export const RWF_ATOMIC = 0x40;

const RWF_SUPPORTED = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT |
  RWF_ATOMIC;

/** What {@linkcode blkdevOpen} takes. */
export interface BlkdevOpenOptions {
  /** O_RDONLY instead of O_RDWR. */
  readOnly?: boolean;
}

/**
 * Opens a block device with O_DIRECT (kernel: `blkdev_open`). A read-only device may
 * be opened for writing; it is the write that fails.
 */
export function blkdevOpen(
  bdev: BlockDevice,
  options: BlkdevOpenOptions = {},
): BlkdevFile {
  return new BlkdevFile(bdev, options.readOnly ?? false);
}

/** An open block device (kernel: `def_blk_fops`). Every call answers a negative errno
 * when it fails, -EBADF once the file is closed, -EFAULT if a buffer is none. */
export class BlkdevFile {
  /** The device. */
  readonly bdev: BlockDevice;
  readonly #canWrite: boolean;
  #closed = false;

  /**
   * Made by {@linkcode blkdevOpen}.
   *
   * @param bdev The device.
   * @param readOnly O_RDONLY.
   */
  constructor(bdev: BlockDevice, readOnly: boolean) {
    this.bdev = bdev;
    this.#canWrite = !readOnly;
  }

  /**
   * Reads (kernel: `blkdev_read_iter`), up to the end of the device.
   *
   * @param buffers Where the bytes go.
   * @param pos Byte on the device.
   * @param rwf `RWF_*`.
   * @returns Bytes read, 0 from the end of the device on; -EINVAL if position,
   *   length or memory is not aligned; -EOPNOTSUPP for a flag that the device does not
   *   have, and for RWF_ATOMIC; -EAGAIN with RWF_NOWAIT; else the errno of the first
   *   bio that failed.
   */
  read(
    buffers: Uint8Array | Uint8Array[],
    pos: number,
    rwf = 0,
  ): MaybePromise<number> {
    if (this.#closed) return -EBADF;
    const list = [buffers].flat();
    if (!list.every((b) => b instanceof Uint8Array)) return -EFAULT;
    const iter = new IovIter(...list);
    const error = this.#checkCall(iter, pos, rwf & ~RWF_ATOMIC);
    if (error !== 0 || iter.count === 0) return error;
    if ((rwf & RWF_ATOMIC) !== 0) return -EOPNOTSUPP;
    iter.count = Math.min(iter.count, Math.max(0, this.#size - pos));
    return directIo(this.bdev, iter, pos, readOpf(rwf));
  }

  /**
   * Writes (kernel: `blkdev_write_iter`), up to the end of the device.
   *
   * @param buffers Where the bytes come from.
   * @param pos Byte on the device.
   * @param rwf `RWF_*`.
   * @returns Bytes written; -EBADF if the file was opened to read; -EPERM if the device
   *   is read-only; -ENOSPC at its end; -EINVAL if position, length or memory is not
   *   aligned; -EOPNOTSUPP for a flag that the device does not have; -EAGAIN with
   *   RWF_NOWAIT; else the errno of the first bio that failed, or of the flush that
   *   RWF_DSYNC and RWF_SYNC end with. With RWF_ATOMIC, -EINVAL also if the length is
   *   no power of two, the position no multiple of it, if there are several buffers,
   *   or if it passes the end or what the device can keep whole.
   */
  write(
    buffers: Uint8Array | Uint8Array[],
    pos: number,
    rwf = 0,
  ): MaybePromise<number> {
    if (this.#closed || !this.#canWrite) return -EBADF;
    const list = [buffers].flat();
    if (!list.every((b) => b instanceof Uint8Array)) return -EFAULT;
    const iter = new IovIter(...list);
    const error = this.#checkCall(iter, pos, rwf);
    if (error !== 0 || iter.count === 0) return error;
    if (this.bdev.readOnly) return -EPERM;
    const left = this.#size - pos;
    if (left <= 0) return -ENOSPC;
    if ((rwf & RWF_ATOMIC) !== 0 && !atomicWriteValid(list, pos, left)) {
      return -EINVAL;
    }
    iter.count = Math.min(iter.count, left);
    const done = directIo(this.bdev, iter, pos, writeOpf(rwf));
    if ((rwf & (RWF_DSYNC | RWF_SYNC)) === 0) return done;
    // The kernel flushes though the data has gone by FUA.
    return andThen(
      done,
      (n) => n <= 0 ? n : andThen(this.fsync(), (ret) => ret < 0 ? ret : n),
    );
  }

  /**
   * Makes all completed writes durable (kernel: `blkdev_fsync`).
   *
   * @returns 0, or the errno of the flush.
   */
  fsync(): MaybePromise<number> {
    if (this.#closed) return -EBADF;
    return andThen(
      blkdevIssueFlush(this.bdev),
      (ret) => ret === -EOPNOTSUPP ? 0 : ret,
    );
  }

  /**
   * Tells the device that bytes are not needed any more (BLKDISCARD, kernel:
   * `blk_ioctl_discard`).
   *
   * @returns 0; -EBADF if the file was opened to read; -EOPNOTSUPP if the device has no
   *   such command; -EPERM if it is read-only; -EINVAL if the range is empty, not
   *   aligned to logical blocks or passes the end; else the errno of a bio.
   */
  discard(start: number, len: number): MaybePromise<number> {
    const error = this.#checkIoctl(this.bdev.limits.maxDiscardSectors);
    if (error !== 0) return error;
    if (this.bdev.readOnly) return -EPERM;
    const unit = this.bdev.limits.logicalBlockSize;
    if (len === 0 || !this.#isRange(start, len, unit)) return -EINVAL;
    return blkdevIssueDiscard(
      this.bdev,
      start / SECTOR_SIZE,
      len / SECTOR_SIZE,
    );
  }

  /**
   * Discards bytes so that nothing of them can be found again (BLKSECDISCARD, kernel:
   * `blk_ioctl_secure_erase`).
   *
   * @returns As {@linkcode discard}.
   */
  secureErase(start: number, len: number): MaybePromise<number> {
    const error = this.#checkIoctl(this.bdev.limits.maxSecureEraseSectors);
    if (error !== 0) return error;
    if (!this.#isRange(start, len, SECTOR_SIZE)) return -EINVAL;
    return blkdevIssueSecureErase(
      this.bdev,
      start / SECTOR_SIZE,
      len / SECTOR_SIZE,
    );
  }

  /**
   * Zeroes bytes, which stay allocated (BLKZEROOUT, kernel: `blk_ioctl_zeroout`).
   *
   * @returns 0; -EBADF if the file was opened to read; -EINVAL if the range is empty,
   *   not aligned to logical blocks or passes the end; -EPERM if the device is
   *   read-only; else the errno of a bio.
   */
  zeroout(start: number, len: number): MaybePromise<number> {
    const error = this.#checkIoctl(1);
    if (error !== 0) return error;
    if (len === 0 || !this.#isRange(start, len, SECTOR_SIZE)) return -EINVAL;
    return blkdevIssueZeroout(
      this.bdev,
      start / SECTOR_SIZE,
      len / SECTOR_SIZE,
      BLKDEV_ZERO_NOUNMAP,
    );
  }

  /**
   * Tells of zones (BLKREPORTZONE, kernel: `blkdev_report_zones_ioctl`).
   *
   * @param sector Sector in the first zone.
   * @param nrZones Most zones.
   * @returns The zones, none from the end of the device on; -ENOTTY if the device has
   *   no zones; -EINVAL if `nrZones` is 0; else the errno of the device.
   */
  reportZones(
    sector: number,
    nrZones: number,
  ): MaybePromise<BlkZone[] | number> {
    if (this.#closed) return -EBADF;
    if (!bdevIsZoned(this.bdev)) return -ENOTTY;
    if (nrZones === 0) return -EINVAL;
    const zones: BlkZone[] = [];
    const done = blkdevReportZones(this.bdev, sector, nrZones, (zone) => {
      zones.push({ ...zone });
      return 0;
    });
    return andThen(done, (n) => n < 0 ? n : zones);
  }

  /**
   * Opens, closes, finishes or resets zones (BLKOPENZONE, BLKCLOSEZONE, BLKFINISHZONE,
   * BLKRESETZONE, kernel: `blkdev_zone_mgmt_ioctl`).
   *
   * @param op `REQ_OP_ZONE_OPEN`, `_CLOSE`, `_FINISH` or `_RESET`.
   * @param sector First sector of the first zone.
   * @param nrSectors Sectors of whole zones.
   * @returns 0; -ENOTTY if the device has no zones, or the operation is none of these;
   *   -EBADF if the file was opened to read; -EPERM if the device is read-only; -EINVAL
   *   if the range is none of whole zones; else the errno of a bio.
   */
  zoneMgmt(
    op: number,
    sector: number,
    nrSectors: number,
  ): MaybePromise<number> {
    if (this.#closed) return -EBADF;
    if (!bdevIsZoned(this.bdev) || !ZONE_IOCTLS.includes(op)) return -ENOTTY;
    if (!this.#canWrite) return -EBADF;
    return blkdevZoneMgmt(this.bdev, op, sector, nrSectors);
  }

  /** Closes the file; closing again does nothing. */
  close(): void {
    this.#closed = true;
  }

  /** Closes it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }

  get #size(): number {
    return this.bdev.nrSectors * SECTOR_SIZE;
  }

  /** What every read and write has to be (kernel: `kiocb_set_rw_flags` and before). */
  #checkCall(iter: IovIter, pos: number, rwf: number): number {
    if (!(Number.isSafeInteger(pos) && pos >= 0)) return -EINVAL;
    if (iter.count === 0) return 0;
    if ((rwf & ~RWF_SUPPORTED) !== 0) return -EOPNOTSUPP;
    const { bdev } = this;
    const nowait = (bdev.limits.features & BLK_FEAT_NOWAIT) !== 0;
    if ((rwf & RWF_NOWAIT) !== 0 && !nowait) return -EOPNOTSUPP;
    if ((rwf & RWF_ATOMIC) !== 0 && !bdevCanAtomicWrite(bdev)) {
      return -EOPNOTSUPP;
    }
    return 0;
  }

  #checkIoctl(limit: number): number {
    if (this.#closed || !this.#canWrite) return -EBADF;
    return limit === 0 ? -EOPNOTSUPP : 0;
  }

  #isRange(start: number, len: number, unit: number): boolean {
    return Number.isSafeInteger(start) && Number.isSafeInteger(len) &&
      start >= 0 && len >= 0 && len <= this.#size - start &&
      start % unit === 0 && len % unit === 0;
  }
}

/** Operations that have an ioctl. */
const ZONE_IOCTLS = [
  REQ_OP_ZONE_OPEN,
  REQ_OP_ZONE_CLOSE,
  REQ_OP_ZONE_FINISH,
  REQ_OP_ZONE_RESET,
];

/** Kernel: `generic_atomic_write_valid`, and what `blkdev_write_iter` and
 * `blkdev_direct_IO` add. */
function atomicWriteValid(
  buffers: Uint8Array[],
  pos: number,
  left: number,
): boolean {
  if (buffers.length !== 1) return false;
  const { length } = buffers[0]!;
  // That a bio has the segments for it follows from the largest unit.
  return Math.log2(length) % 1 === 0 && pos % length === 0 && length <= left;
}

function readOpf(rwf: number): number {
  return REQ_OP_READ | ((rwf & RWF_NOWAIT) !== 0 ? REQ_NOWAIT : 0);
}

/** Kernel: `dio_bio_write_op`. */
function writeOpf(rwf: number): number {
  let opf = REQ_OP_WRITE | REQ_SYNC | REQ_IDLE;
  if ((rwf & (RWF_DSYNC | RWF_SYNC)) !== 0) opf |= REQ_FUA;
  if ((rwf & RWF_NOWAIT) !== 0) opf |= REQ_NOWAIT;
  if ((rwf & RWF_ATOMIC) !== 0) opf |= REQ_ATOMIC;
  return opf;
}

/**
 * Moves bytes between a device and the caller's memory (kernel: `blkdev_direct_IO`).
 *
 * @returns Bytes moved, or a negative errno: part of it may have been done then.
 */
function directIo(
  bdev: BlockDevice,
  iter: IovIter,
  pos: number,
  opf: number,
): MaybePromise<number> {
  const { count } = iter;
  const unit = bdev.limits.logicalBlockSize;
  if (count === 0) return 0;
  if (pos % unit !== 0 || count % unit !== 0) return -EINVAL;
  const bios = makeBios(bdev, iter, pos, opf);
  if (bios === null) return -EINVAL;
  // Several bios cannot all be told to wait for nothing.
  if (bios.length > 1 && (opf & REQ_NOWAIT) !== 0) return -EAGAIN;
  return andThen(submitAll(bios), (ret) => ret < 0 ? ret : count);
}

/** Submits bios under one plug and waits for all; the first error counts. */
function submitAll(bios: Bio[]): MaybePromise<number> {
  const last = bios.pop()!;
  for (const bio of bios) bioChain(bio, last);
  blkStartPlug();
  try {
    for (const bio of bios) submitBio(bio);
    return submitBioWait(last);
  } finally {
    blkFinishPlug();
  }
}

/** Bios over all of the caller's memory; null if there is a piece that no block fits. */
function makeBios(
  bdev: BlockDevice,
  iter: IovIter,
  pos: number,
  opf: number,
): Bio[] | null {
  const bios: Bio[] = [];
  const end = pos + iter.count;
  while (iter.count > 0) {
    const bio = new Bio(bdev, opf);
    bio.sector = (end - iter.count) / SECTOR_SIZE;
    fillBio(bio, iter);
    if (bio.size === 0) return null;
    bios.push(bio);
  }
  return bios;
}

/** Takes as many whole blocks of memory as a bio holds (kernel:
 * `bio_iov_iter_get_pages`). */
function fillBio(bio: Bio, iter: IovIter): void {
  while (iter.count > 0) {
    const { data, offset, len } = iter.segment(MAX_BIO_SIZE - bio.size);
    if (len === 0 || !bio.addData(data, offset, len)) break;
    iter.advance(len);
  }
  let excess = bio.size % bio.bdev.limits.logicalBlockSize;
  bio.size -= excess;
  iter.revert(excess);
  while (excess > 0) {
    const last = bio.vecs.at(-1)!;
    const n = Math.min(excess, last.len);
    last.len -= n;
    excess -= n;
    if (last.len === 0) bio.vecs.pop();
  }
}

const MAX_BIO_SIZE = 0xffff_fe00;
