/**
 * Operations, request flags and statuses.
 *
 * Kernel counterpart: include/linux/blk_types.h.
 *
 * @module
 */

import {
  EAGAIN,
  EBADE,
  EBUSY,
  EILSEQ,
  EINVAL,
  EIO,
  ENODATA,
  ENODEV,
  ENOLINK,
  ENOMEM,
  ENOSPC,
  EOPNOTSUPP,
  EOVERFLOW,
  EREMCHG,
  EREMOTEIO,
  ETIME,
  ETIMEDOUT,
  ETOOMANYREFS,
} from "../lib/errno.ts";

/** Bytes of a sector, whatever the logical block size. */
export const SECTOR_SIZE = 512;

/** Mask of the operation in a bio's `opf`. */
export const REQ_OP_MASK = 0xff;
/** Read. */
export const REQ_OP_READ = 0;
/** Write. */
export const REQ_OP_WRITE = 1;
/** Made only inside the flush machinery; refused in a bio. */
export const REQ_OP_FLUSH = 2;
/** Deallocate a range. */
export const REQ_OP_DISCARD = 3;
/** Deallocate a range so that nothing of it can be found again. */
export const REQ_OP_SECURE_ERASE = 5;
/** Write at a zone's write pointer; the sector written is told at completion. */
export const REQ_OP_ZONE_APPEND = 7;
/** Write zeroes without a payload. */
export const REQ_OP_WRITE_ZEROES = 9;
/** Open a zone explicitly. */
export const REQ_OP_ZONE_OPEN = 11;
/** Close an open zone. */
export const REQ_OP_ZONE_CLOSE = 13;
/** Move a zone's write pointer to its end. */
export const REQ_OP_ZONE_FINISH = 15;
/** Empty a zone. */
export const REQ_OP_ZONE_RESET = 17;
/** Empty all zones. */
export const REQ_OP_ZONE_RESET_ALL = 19;
/** A driver's own command that reads; refused in a bio. */
export const REQ_OP_DRV_IN = 34;
/** A driver's own command that writes; refused in a bio. */
export const REQ_OP_DRV_OUT = 35;

/** The driver does not retry after an error of the device. */
export const REQ_FAILFAST_DEV: number = 1 << 8;
/** The driver does not retry after an error on the way to the device. */
export const REQ_FAILFAST_TRANSPORT: number = 1 << 9;
/** The driver does not retry after an error of its own. */
export const REQ_FAILFAST_DRIVER: number = 1 << 10;
/** Somebody waits for it. */
export const REQ_SYNC: number = 1 << 11;
/** Metadata; a hint. */
export const REQ_META: number = 1 << 12;
/** Urgent; a hint. */
export const REQ_PRIO: number = 1 << 13;
/** Never merge. */
export const REQ_NOMERGE: number = 1 << 14;
/** The submitter will send more soon. */
export const REQ_IDLE: number = 1 << 15;
/** A protection payload is attached. */
export const REQ_INTEGRITY: number = 1 << 16;
/** On stable media before completion. */
export const REQ_FUA: number = 1 << 17;
/** Flush the volatile cache before this I/O. */
export const REQ_PREFLUSH: number = 1 << 18;
/** Readahead: may fail at will. */
export const REQ_RAHEAD: number = 1 << 19;
/** Background writeback. */
export const REQ_BACKGROUND: number = 1 << 20;
/** BLK_STS_AGAIN rather than sleep. */
export const REQ_NOWAIT: number = 1 << 21;
/** Completion is reaped by polling. */
export const REQ_POLLED: number = 1 << 22;
/** The bio comes from a cache of bios; says nothing to a device. */
export const REQ_ALLOC_CACHE: number = 1 << 23;
/** Swap. */
export const REQ_SWAP: number = 1 << 24;
/** The driver's own. */
export const REQ_DRV: number = 1 << 25;
/** The file system's own. */
export const REQ_FS_PRIVATE: number = 1 << 26;
/** The write is all or nothing. */
export const REQ_ATOMIC: number = 1 << 27;
/** Of WRITE_ZEROES: keep the blocks allocated. */
export const REQ_NOUNMAP: number = 1 << 28;
/** Any of the `REQ_FAILFAST_*`. */
export const REQ_FAILFAST_MASK: number = REQ_FAILFAST_DEV |
  REQ_FAILFAST_TRANSPORT | REQ_FAILFAST_DRIVER;

/** Success. */
export const BLK_STS_OK = 0;
/** Operation not supported. */
export const BLK_STS_NOTSUPP = 1;
/** Timeout. */
export const BLK_STS_TIMEOUT = 2;
/** Critical space allocation. */
export const BLK_STS_NOSPC = 3;
/** Recoverable transport. */
export const BLK_STS_TRANSPORT = 4;
/** Critical target. */
export const BLK_STS_TARGET = 5;
/** Reservation conflict. */
export const BLK_STS_RESV_CONFLICT = 6;
/** Critical medium. */
export const BLK_STS_MEDIUM = 7;
/** Protection. */
export const BLK_STS_PROTECTION = 8;
/** Kernel resource; the block layer keeps the request. */
export const BLK_STS_RESOURCE = 9;
/** I/O. */
export const BLK_STS_IOERR = 10;
/** Internal, must not leak. */
export const BLK_STS_DM_REQUEUE = 11;
/** Nonblocking retry. */
export const BLK_STS_AGAIN = 12;
/** Device resource; the queue runs again on the next completion. */
export const BLK_STS_DEV_RESOURCE = 13;
/** Open zones exceeded. */
export const BLK_STS_ZONE_OPEN_RESOURCE = 14;
/** Active zones exceeded. */
export const BLK_STS_ZONE_ACTIVE_RESOURCE = 15;
/** Device offline. */
export const BLK_STS_OFFLINE = 16;
/** Duration limit exceeded. */
export const BLK_STS_DURATION_LIMIT = 17;
/** Invalid. */
export const BLK_STS_INVAL = 19;

const STATUS_ERRNO: readonly (readonly [number, number])[] = [
  [BLK_STS_OK, 0],
  [BLK_STS_NOTSUPP, EOPNOTSUPP],
  [BLK_STS_TIMEOUT, ETIMEDOUT],
  [BLK_STS_NOSPC, ENOSPC],
  [BLK_STS_TRANSPORT, ENOLINK],
  [BLK_STS_TARGET, EREMOTEIO],
  [BLK_STS_RESV_CONFLICT, EBADE],
  [BLK_STS_MEDIUM, ENODATA],
  [BLK_STS_PROTECTION, EILSEQ],
  [BLK_STS_RESOURCE, ENOMEM],
  [BLK_STS_IOERR, EIO],
  [BLK_STS_DM_REQUEUE, EREMCHG],
  [BLK_STS_AGAIN, EAGAIN],
  [BLK_STS_DEV_RESOURCE, EBUSY],
  [BLK_STS_ZONE_OPEN_RESOURCE, ETOOMANYREFS],
  [BLK_STS_ZONE_ACTIVE_RESOURCE, EOVERFLOW],
  [BLK_STS_OFFLINE, ENODEV],
  [BLK_STS_DURATION_LIMIT, ETIME],
  [BLK_STS_INVAL, EINVAL],
];
const TO_ERRNO = new Map(STATUS_ERRNO);
const TO_STATUS = new Map(STATUS_ERRNO.map(([status, e]) => [e, status]));

/**
 * Errno of a block status (kernel: `blk_status_to_errno`).
 *
 * @returns 0 or a negative errno; an unknown status is -EIO.
 */
export function blkStatusToErrno(status: number): number {
  // By subtraction: success is 0, not -0.
  return 0 - (TO_ERRNO.get(status) ?? EIO);
}

/**
 * Block status of an errno of either sign (kernel: `errno_to_blk_status`).
 *
 * @returns A `BLK_STS_*`; an unknown errno is `BLK_STS_IOERR`.
 */
export function errnoToBlkStatus(errno: number): number {
  return TO_STATUS.get(Math.abs(errno)) ?? BLK_STS_IOERR;
}

/** Operation of an `opf` word (kernel: `bio_op`). */
export function reqOp(opf: number): number {
  return opf & REQ_OP_MASK;
}

/** Whether data goes to the device (kernel: `op_is_write`). */
export function opIsWrite(opf: number): boolean {
  return (opf & 1) !== 0;
}

/** Whether the flush machinery is concerned (kernel: `op_is_flush`). */
export function opIsFlush(opf: number): boolean {
  return (opf & (REQ_FUA | REQ_PREFLUSH)) !== 0;
}

/** Whether somebody waits for it: a read, or a write that says so (kernel: `op_is_sync`). */
export function opIsSync(opf: number): boolean {
  return reqOp(opf) === REQ_OP_READ ||
    (opf & (REQ_SYNC | REQ_FUA | REQ_PREFLUSH)) !== 0;
}

/** Whether it manages zones: open, close, finish or reset (kernel: `op_is_zone_mgmt`). */
export function opIsZoneMgmt(op: number): boolean {
  return op >= REQ_OP_ZONE_OPEN && op <= REQ_OP_ZONE_RESET_ALL &&
    (op & 1) !== 0;
}
