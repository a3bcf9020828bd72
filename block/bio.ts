/**
 * The unit of block I/O: a run of sectors and the memory that it fills or drains.
 *
 * A bio that is too large for its device is split: its front parts become bios
 * of their own, and the bio itself is advanced to what is left. So after
 * submission `sector` and `size` are the block layer's; only `vecs` still says
 * what was asked for.
 *
 * Kernel counterpart: block/bio.c, include/linux/bio.h.
 *
 * @module
 */

import { throwLater } from "../lib/clock.ts";
import { EFAULT, FsError, show } from "../lib/errno.ts";
import { andThenWith, type MaybePromise } from "../lib/maybe-promise.ts";
import { Completion } from "../lib/wait.ts";
import { submitBio } from "./blk-core.ts";
import {
  BLK_STS_DEV_RESOURCE,
  BLK_STS_DM_REQUEUE,
  BLK_STS_IOERR,
  BLK_STS_OK,
  BLK_STS_RESOURCE,
  blkStatusToErrno,
  opIsFlush,
  opIsZoneMgmt,
  REQ_SYNC,
  reqOp,
  SECTOR_SIZE,
} from "./blk-types.ts";
import { blkZoneBioEndIo } from "./blk-zoned.ts";
import { blockTracer, traceBlockBioComplete } from "./blktrace.ts";
import type { BlockDevice } from "./blkdev.ts";

export { submitBio } from "./blk-core.ts";

/** Most segments of one bio. */
export const BIO_MAX_VECS = 256;
/** Sectors that a bio can hold: the kernel's counts bytes in 32 bits. */
export const BIO_MAX_SECTORS: number = 2 ** 23 - 1;

/** The start of a partition has been added (kernel: `BIO_REMAPPED`). */
export const BIO_REMAPPED: number = 1 << 0;
/** It goes through a zone's write plug (kernel: `BIO_ZONE_WRITE_PLUGGING`). */
export const BIO_ZONE_WRITE_PLUGGING: number = 1 << 1;
/** A write that stands for an append (kernel: `BIO_EMULATES_ZONE_APPEND`). */
export const BIO_EMULATES_ZONE_APPEND: number = 1 << 2;
/** Its submission has been traced, and its end is to be, unless that of a request
 * says as much (kernel: `BIO_TRACE_COMPLETION`). */
export const BIO_TRACE_COMPLETION: number = 1 << 3;
/** It has been submitted and has not ended. */
export const BIO_UNDER_WAY: number = 1 << 4;

/** One contiguous piece of memory (kernel: `struct bio_vec`). */
export interface BioVec {
  /** The buffer; only `[offset, offset + len)` belongs to the I/O. */
  data: Uint8Array;
  /** First byte in `data`. */
  offset: number;
  /** Bytes. */
  len: number;
}

/** One I/O (kernel: `struct bio`). */
export class Bio {
  /** Where it goes. */
  bdev: BlockDevice;
  /** `REQ_OP_*` and `REQ_*` flags. */
  opf: number;
  /** First 512-byte sector; advances when a front part is split off. */
  sector = 0;
  /**
   * Bytes of the I/O; grows with {@linkcode addData}; set directly where there is
   * no payload. Shrinks when a front part is split off.
   */
  size = 0;
  /** Memory, in order. */
  vecs: BioVec[];
  /** Entry of `vecs` in which what is left begins (kernel: `bi_idx`). */
  vecIndex = 0;
  /** Bytes of that entry that are not part of what is left (kernel: `bi_bvec_done`). */
  vecDone = 0;
  /** OR of `BIO_*`: the block layer's own notes (kernel: `bi_flags`). */
  flags = 0;
  /** Class and level of who submits; bios of different ones do not merge. */
  ioprio = 0;
  /** How long the data is expected to live; bios of different ones do not merge. */
  writeHint = 0;
  /** Write stream, 0 if none; bios of different ones do not merge. */
  writeStream = 0;
  /** Hardware queue to be polled, or -1 (kernel: `bi_cookie`, `BLK_QC_T_NONE`). */
  cookie: number = -1;
  /** `BLK_STS_*`, valid in `endIo`. */
  status = 0;
  /**
   * Called exactly once, possibly before `submitBio` returns; may submit the bio
   * again. What it throws is thrown by an event of the device's clock.
   */
  endIo: ((bio: Bio) => void) | null = null;
  /** The submitter's own. */
  private: unknown = null;
  /** The next bio of the same request (kernel: `bi_next`). */
  next: Bio | null = null;
  /** Memory segments as the device counts them, once it has been split to limits. */
  nrSegs = 0;
  /** Completions still to come before `endIo` (kernel: `__bi_remaining`). */
  remaining = 1;

  /**
   * Makes a bio without memory (kernel: `bio_alloc`).
   *
   * @param bdev Where it goes.
   * @param opf `REQ_OP_*` and `REQ_*` flags.
   * @param vecs Memory, if it is that of another bio.
   */
  constructor(bdev: BlockDevice, opf: number, vecs: BioVec[] = []) {
    this.bdev = bdev;
    this.opf = opf;
    this.vecs = vecs;
  }

  /** First sector after the I/O (kernel: `bio_end_sector`). */
  get endSector(): number {
    return this.sector + this.size / 512;
  }

  /**
   * Appends memory; a piece that follows the last one in memory joins it.
   * (kernel: `bio_add_page`).
   *
   * @returns False if the bio is full: 256 segments, or 2^32 - 1 bytes.
   * @throws {FsError} EFAULT if it does not lie within `data`.
   */
  addData(data: Uint8Array, offset: number, len: number): boolean {
    if (!(offset >= 0 && len >= 0 && offset + len <= data.length)) {
      throw outside(data, offset, len);
    }
    if (this.size + len > BIO_MAX_SECTORS * SECTOR_SIZE) return false;
    const n = this.vecs.length;
    if (n > 0) {
      const last = this.vecs[n - 1]!;
      if (last.data === data && last.offset + last.len === offset) {
        last.len += len;
        this.size += len;
        return true;
      }
      if (n === BIO_MAX_VECS) return false;
    }
    this.vecs.push({ data, offset, len });
    this.size += len;
    return true;
  }
}

/**
 * Makes a bio that has ended as good as new, without memory (kernel: `bio_reset`).
 * One that goes to a partition must not be submitted again without.
 */
export function bioReset(bio: Bio, bdev: BlockDevice, opf: number): void {
  bio.bdev = bdev;
  bio.opf = opf;
  bio.sector = 0;
  bio.size = 0;
  // Another bio may be over the same memory.
  bio.vecs = [];
  bio.vecIndex = 0;
  bio.vecDone = 0;
  bio.flags = 0;
  bio.ioprio = 0;
  bio.writeHint = 0;
  bio.writeStream = 0;
  bio.cookie = -1;
  bio.status = BLK_STS_OK;
  bio.endIo = null;
  bio.private = null;
  bio.next = null;
  bio.nrSegs = 0;
  bio.remaining = 1;
}

/** Whether there is memory for every byte that is left of a bio. */
export function bioCovered(bio: Bio): boolean {
  let left = bio.size + bio.vecDone;
  for (let i = bio.vecIndex; left > 0 && i < bio.vecs.length; i++) {
    left -= bio.vecs[i]!.len;
  }
  return left <= 0;
}

function outside(data: Uint8Array, offset: number, len: number): FsError {
  return new FsError(
    EFAULT,
    `${show(len)} bytes from ${
      show(offset)
    } on do not lie within a buffer of ` +
      `${data.length} bytes`,
  );
}

/** Whether a bio asks for nothing, which no command can: its count of blocks begins
 * at 1. */
export function bioIsEmpty({ size, opf }: Bio): boolean {
  return size === 0 && !opIsFlush(opf) && !opIsZoneMgmt(reqOp(opf));
}

/** Takes `bytes` off the front (kernel: `bio_advance`). */
export function bioAdvance(bio: Bio, bytes: number): void {
  bio.sector += bytes / SECTOR_SIZE;
  bio.size -= bytes;
  // A bio without payload has no memory to walk.
  if (bio.vecs.length === 0) return;
  let done = bio.vecDone + bytes;
  let index = bio.vecIndex;
  while (index < bio.vecs.length && done >= bio.vecs[index]!.len) {
    done -= bio.vecs[index++]!.len;
  }
  bio.vecIndex = index;
  bio.vecDone = done;
}

/**
 * Splits the first `sectors` off (kernel: `bio_split`).
 *
 * @returns The front as a bio of its own, over the same memory; `bio` is left
 *   with the rest.
 */
export function bioSplit(bio: Bio, sectors: number): Bio {
  const front = new Bio(bio.bdev, bio.opf, bio.vecs);
  front.sector = bio.sector;
  front.size = sectors * SECTOR_SIZE;
  front.vecIndex = bio.vecIndex;
  front.vecDone = bio.vecDone;
  front.flags = bio.flags & BIO_REMAPPED;
  front.ioprio = bio.ioprio;
  front.writeHint = bio.writeHint;
  front.writeStream = bio.writeStream;
  bioAdvance(bio, front.size);
  return front;
}

function bioChainEndIo(_bio: Bio): void {
  throw new Error("BUG: bioEndIo() unwinds chains itself");
}

/**
 * Lets `parent` end only after `bio` has; the first error of all becomes the
 * parent's (kernel: `bio_chain`).
 */
export function bioChain(bio: Bio, parent: Bio): void {
  bio.private = parent;
  bio.endIo = bioChainEndIo;
  parent.remaining++;
}

/**
 * Completes a bio with the status that it carries (kernel: `bio_endio`).
 * Runs `endIo` of the bio, or of the last parent of its chain, once all that it
 * waits for has ended.
 */
export function bioEndIo(bio: Bio): void {
  // A loop: a chain of thousands must not unwind on the stack.
  let done = bio;
  while (--done.remaining === 0) {
    // Whoever gets it may submit it again.
    done.remaining = 1;
    if (concernsZones(done)) blkZoneBioEndIo(done);
    if ((done.flags & BIO_TRACE_COMPLETION) !== 0 && blockTracer !== null) {
      traceBlockBioComplete(done);
    }
    done.flags = 0;
    if (done.endIo !== bioChainEndIo) return callEndIo(done);
    const parent = done.private as Bio;
    if (parent.status === BLK_STS_OK) parent.status = done.status;
    done = parent;
  }
}

/** Others wait for what whoever ends bios has left to do, so nothing is thrown. */
function callEndIo(bio: Bio): void {
  try {
    bio.endIo?.(bio);
  } catch (error) {
    throwLater(bio.bdev.clock, error);
  }
}

/** Whether it went through the write plug of a zone, or manages zones. */
function concernsZones({ flags, opf }: Bio): boolean {
  return (flags & BIO_ZONE_WRITE_PLUGGING) !== 0 || opIsZoneMgmt(reqOp(opf));
}

/** Completes a bio with a status (kernel: `bio_io_error` and its like). */
export function bioEndWith(bio: Bio, status: number): void {
  // A part that failed earlier has the say.
  if (status !== BLK_STS_OK && bio.status === BLK_STS_OK) {
    bio.status = INTERNAL.includes(status) ? BLK_STS_IOERR : status;
  }
  bioEndIo(bio);
}

/** What drivers and the block layer tell each other, and nobody above. */
const INTERNAL: readonly number[] = [
  BLK_STS_RESOURCE,
  BLK_STS_DEV_RESOURCE,
  BLK_STS_DM_REQUEUE,
];

/**
 * Submits a bio and waits for it (kernel: `submit_bio_wait`). `endIo` and
 * `private` are used for the waiting.
 *
 * @returns 0 or a negative errno: `blkStatusToErrno` of the bio's status.
 */
export function submitBioWait(bio: Bio): MaybePromise<number> {
  const done = new Completion();
  bio.private = done;
  bio.endIo = submitBioWaitEndIo;
  bio.opf |= REQ_SYNC;
  submitToWait(bio);
  return andThenWith(done.wait(bio.bdev.clock), waitedFor, bio);
}

/** A driver that waits within its `submit` cannot leave the bio to the loop above. */
function submitToWait(bio: Bio): void {
  const { clock } = bio.bdev;
  if (!clock.inSync) return submitBio(bio);
  clock.enterSync();
  try {
    submitBio(bio);
  } finally {
    clock.leaveSync();
  }
}

function submitBioWaitEndIo(bio: Bio): void {
  (bio.private as Completion).complete();
}

function waitedFor(_done: void, bio: Bio): number {
  return blkStatusToErrno(bio.status);
}
