/**
 * A device that goes bad: from some moment on it loses writes, fails them, or
 * changes a byte of what passes.
 *
 * Kernel counterpart: drivers/md/dm-flakey.c.
 *
 * @module
 */

import { checkCount, EINVAL, FsError, show } from "../../lib/errno.ts";
import { Bio, bioCovered, bioEndIo, bioEndWith, submitBio } from "../bio.ts";
import {
  BLK_STS_IOERR,
  BLK_STS_OK,
  opIsWrite,
  opIsZoneMgmt,
  REQ_POLLED,
  reqOp,
} from "../blk-types.ts";
import type { BlockDevice } from "../blkdev.ts";
import {
  bioClone,
  copyPayload,
  DM_DISCARD,
  DM_TARGET_ZONED_HM,
  DmDevice,
  type DmOptions,
  wholeOf,
} from "./dm.ts";

/** Which byte changes, and of which bios (kernel: `corrupt_bio_byte`). */
export interface CorruptByte {
  /** Offset in the bio, bytes from 0; shorter bios pass unchanged. */
  offset: number;
  /** Whether what is read or what is written changes. */
  direction: "read" | "write";
  /** What the byte becomes, 0 to 255. */
  value: number;
  /** `REQ_*` flags that a bio has to carry, all of them; 0 if absent. */
  flags?: number;
}

/** What {@linkcode FlakeyDevice} takes. */
export interface FlakeyOptions extends DmOptions {
  /** Clock's time from which on it is bad, nanoseconds. */
  fromTime?: number;
  /** Number of the first write with data, counted from 1, from which on it is bad. With neither it
   * is bad from the start, with both from what comes first. */
  fromWrite?: number;
  /** Writes and flushes end well, and do not happen. */
  dropWrites?: boolean;
  /** Writes and flushes end with IOERR. */
  errorWrites?: boolean;
  /** A byte changes. */
  corrupt?: CorruptByte;
}

/**
 * A device that goes bad (kernel: target `flakey`). If no way is named in which
 * it does, everything ends with IOERR.
 */
export class FlakeyDevice extends DmDevice {
  readonly #bottom: BlockDevice;
  readonly #fromTime: number;
  readonly #fromWrite: number;
  readonly #drop: boolean;
  readonly #errorWrites: boolean;
  readonly #errorReads: boolean;
  readonly #corrupt: CorruptByte | null;
  #writes = 0;

  /**
   * Lays faults over a device.
   *
   * @param bottom The device.
   * @param options What goes wrong, and from when on.
   * @throws {FsError} EINVAL, naming the option that cannot be, or the two that
   *   exclude each other.
   */
  constructor(bottom: BlockDevice, options: FlakeyOptions) {
    checkOptions(options);
    super(wholeOf(bottom, DM_DISCARD | DM_TARGET_ZONED_HM), options);
    const { fromTime, fromWrite, corrupt = null } = options;
    const { dropWrites = false, errorWrites = false } = options;
    const always = fromTime === undefined && fromWrite === undefined;
    const all = !dropWrites && !errorWrites && corrupt === null;
    this.#bottom = bottom;
    this.#fromTime = always ? 0 : fromTime ?? Infinity;
    this.#fromWrite = fromWrite ?? Infinity;
    this.#drop = dropWrites;
    this.#errorWrites = errorWrites || all;
    this.#errorReads = all;
    this.#corrupt = corrupt && { ...corrupt };
  }

  /** Passes a bio, or does to it what is to be done (kernel: `flakey_map`). */
  protected override map(bio: Bio): void {
    const isWrite = opIsWrite(bio.opf);
    if (isWrite && bio.size > 0) this.#writes++;
    // Zones stay in order also on a bad device.
    if (!this.#isBad || opIsZoneMgmt(reqOp(bio.opf))) {
      this.pass(bio, this.#bottom, bio.sector);
    } else if (isWrite && this.#drop) bioEndIo(bio);
    else if (isWrite ? this.#errorWrites : this.#errorReads) {
      bioEndWith(bio, BLK_STS_IOERR);
    } else if (this.#corrupt !== null && corrupts(this.#corrupt, bio)) {
      this.#passCorrupted(bio, this.#corrupt);
    } else this.pass(bio, this.#bottom, bio.sector);
  }

  get #isBad(): boolean {
    return this.#writes >= this.#fromWrite ||
      this.clock.now() >= this.#fromTime;
  }

  #passCorrupted(bio: Bio, { offset, value }: CorruptByte): void {
    if (!opIsWrite(bio.opf)) {
      const clone = bioClone(bio, this.#bottom, bio.sector);
      clone.opf &= ~REQ_POLLED;
      const [data, at] = locate(bio, offset);
      clone.endIo = ({ status }) => {
        if (status === BLK_STS_OK) data[at] = value;
        bioEndWith(bio, status);
      };
      return submitBio(clone);
    }
    // The writer's memory stays as it is.
    const data = copyPayload(bio);
    data[offset] = value;
    const clone = new Bio(this.#bottom, bio.opf);
    clone.sector = bio.sector;
    clone.addData(data, 0, data.length);
    this.passClone(bio, clone);
  }
}

function checkOptions(options: FlakeyOptions): void {
  const { fromTime = 0, fromWrite = 1, corrupt } = options;
  checkCount("fromTime", fromTime, 0);
  checkCount("fromWrite", fromWrite, 1);
  const { dropWrites = false, errorWrites = false } = options;
  if (dropWrites && errorWrites) exclusive("errorWrites");
  if (corrupt === undefined) return;
  const { offset, direction, value, flags = 0 } = corrupt;
  checkCount("corrupt.offset", offset, 0);
  checkCount("corrupt.value", value, 0, 255);
  checkCount("corrupt.flags", flags, 0);
  if (direction !== "read" && direction !== "write") {
    throw new FsError(
      EINVAL,
      `corrupt.direction ${show(direction)} is neither "read" nor "write"`,
    );
  }
  if (dropWrites && direction === "write") exclusive("corrupt.direction write");
}

function exclusive(what: string): never {
  throw new FsError(EINVAL, `dropWrites and ${what} exclude each other`);
}

function corrupts(rule: CorruptByte, bio: Bio): boolean {
  const { offset, direction, flags = 0 } = rule;
  return opIsWrite(bio.opf) === (direction === "write") &&
    (bio.opf & flags) === flags && bio.vecs.length > 0 && offset < bio.size &&
    bioCovered(bio);
}

/** Memory of a byte of a bio, and where in it the byte lies. */
function locate(bio: Bio, offset: number): [Uint8Array, number] {
  let left = bio.vecDone + offset;
  let i = bio.vecIndex;
  while (left >= bio.vecs[i]!.len) left -= bio.vecs[i++]!.len;
  const vec = bio.vecs[i]!;
  return [vec.data, vec.offset + left];
}
