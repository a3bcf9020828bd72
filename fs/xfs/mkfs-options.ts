/**
 * What a new file system is asked to be like.
 *
 * Program counterpart: xfsprogs mkfs/xfs_mkfs.c (`validate_*`).
 *
 * @module
 */

import type { BlockDevice } from "../../block/blkdev.ts";
import { EINVAL, show } from "../../lib/errno.ts";
import { Prng } from "../../lib/prng.ts";
import { checkFlag, checkOptions, failure, type Syscall } from "../syscall.ts";
import type { XfsParams } from "./mkfs-geometry.ts";

/** Bytes of the longest label. */
const LABEL_MAX = 12;

/** What a file system is made with. Sizes are in bytes; what is absent is chosen as
 * mkfs.xfs 6.1 does. */
export interface MkfsXfsOptions {
  /** Size of a block: a power of two from 1024 to 65536; 4096 if absent. */
  blockSize?: number;
  /** Size of a sector: a power of two from the device's logical block size to the
   * block size; the device's physical block size if absent. */
  sectorSize?: number;
  /** Size of an inode: 512, 1024 or 2048, at most half a block; 512 if absent. */
  inodeSize?: number;
  /** Size of a directory's blocks: a power of two from the block size to 65536; 4096
   * or the block size if absent. */
  dirBlockSize?: number;
  /** Allocation groups, of at least 16 MiB each. */
  agCount?: number;
  /** Size of an allocation group, instead of their count. */
  agSize?: number;
  /** Size of the log. */
  logSize?: number;
  /** Share of the space that inodes may take, percent; 0 for all of it. */
  imaxPct?: number;
  /** Stripe unit of the volume, a multiple of the block size; goes with
   * `stripeWidth`. */
  stripeUnit?: number;
  /** Stripe width, a multiple of the stripe unit. */
  stripeWidth?: number;
  /** Stripe unit of the log, a multiple of the block size. */
  logStripeUnit?: number;
  /** A tree of inodes that are free; true if absent. */
  finobt?: boolean;
  /** Inodes may be allocated in part of a chunk; true if absent. */
  sparseInodes?: boolean;
  /** Files may share blocks; true if absent. */
  reflink?: boolean;
  /** A tree of who owns each block; false if absent. */
  rmapbt?: boolean;
  /** Timestamps up to the year 2486; true if absent. */
  bigtime?: boolean;
  /** Blocks of the inode trees are counted; as `finobt`, which it needs, if absent. */
  inobtcount?: boolean;
  /** Counters of extents have 48 bits; false if absent. */
  nrext64?: boolean;
  /** Up to 12 bytes of text. */
  label?: string;
  /** 16 bytes, or 32 hexadecimal digits with or without hyphens; made from `seed` if
   * absent. */
  uuid?: Uint8Array | string;
  /** A safe integer that a UUID is made from; the clock's time if absent. */
  seed?: number;
}

const OPTIONS = [
  "blockSize",
  "sectorSize",
  "inodeSize",
  "dirBlockSize",
  "agCount",
  "agSize",
  "logSize",
  "imaxPct",
  "stripeUnit",
  "stripeWidth",
  "logStripeUnit",
  "finobt",
  "sparseInodes",
  "reflink",
  "rmapbt",
  "bigtime",
  "inobtcount",
  "nrext64",
  "label",
  "uuid",
  "seed",
];

/** Checks what was asked for, one value after the other. */
export class MkfsOptions {
  readonly #call: Syscall;
  readonly #device: BlockDevice;
  readonly #o: MkfsXfsOptions;

  /** Names that are none of an option are refused at once. */
  constructor(call: Syscall, device: BlockDevice, options: MkfsXfsOptions) {
    checkOptions(call, options, OPTIONS);
    this.#call = call;
    this.#device = device;
    this.#o = options;
  }

  /** Throws EINVAL. */
  readonly refuse = (why: string): never => {
    throw failure(this.#call, EINVAL, why);
  };

  /** The values, and those that stand for what is absent. */
  params(): XfsParams {
    const blockSize = this.#power("blockSize", 4096, 1024, 65536);
    const finobt = this.#flag("finobt", true);
    const inobtcount = this.#flag("inobtcount", finobt);
    if (inobtcount && !finobt) this.refuse("inobtcount takes finobt");
    const p: XfsParams = {
      blockSize,
      sectorSize: this.#sectorSize(blockSize),
      inodeSize: this.#power("inodeSize", 512, 512, 2048),
      dirBlockSize: this.#power(
        "dirBlockSize",
        Math.max(4096, blockSize),
        blockSize,
        65536,
      ),
      agCount: this.#count("agCount"),
      agSize: this.#multiple("agSize", blockSize),
      logSize: this.#multiple("logSize", blockSize),
      imaxPct: this.#imaxPct(),
      stripeUnit: this.#multiple("stripeUnit", blockSize) ?? 0,
      stripeWidth: this.#multiple("stripeWidth", blockSize) ?? 0,
      logStripeUnit: this.#multiple("logStripeUnit", blockSize) ?? 0,
      finobt,
      inobtcount,
      sparseInodes: this.#flag("sparseInodes", true),
      reflink: this.#flag("reflink", true),
      rmapbt: this.#flag("rmapbt", false),
      bigtime: this.#flag("bigtime", true),
      nrext64: this.#flag("nrext64", false),
      label: this.#label(),
      uuid: this.#uuid(),
    };
    this.#checkTogether(p);
    return p;
  }

  #checkTogether(p: XfsParams): void {
    if (p.inodeSize * 2 > p.blockSize) {
      this.refuse(`inodeSize ${p.inodeSize} is above half a block`);
    }
    if (p.agCount !== null && p.agSize !== null) {
      this.refuse(
        `agCount ${p.agCount} and agSize ${p.agSize} exclude each other`,
      );
    }
    const { stripeUnit, stripeWidth } = p;
    if ((stripeUnit === 0) !== (stripeWidth === 0)) {
      this.refuse("stripeUnit and stripeWidth go together");
    }
    if (stripeUnit > 0 && stripeWidth % stripeUnit !== 0) {
      this.refuse(
        `stripeWidth ${stripeWidth} is no multiple of stripeUnit ${stripeUnit}`,
      );
    }
  }

  #power(
    name: "blockSize" | "sectorSize" | "inodeSize" | "dirBlockSize",
    otherwise: number,
    least: number,
    most: number,
  ): number {
    const { [name]: value = otherwise } = this.#o;
    const isPower = Number.isInteger(value) && value >= least &&
      value <= most && Number.isInteger(Math.log2(value));
    if (!isPower) {
      this.refuse(
        `${name} ${show(value)} is not a power of two from ${least} to ${most}`,
      );
    }
    return value;
  }

  #sectorSize(blockSize: number): number {
    const { logicalBlockSize, physicalBlockSize } = this.#device.limits;
    if (blockSize < logicalBlockSize) {
      this.refuse(
        `blockSize ${blockSize} is below the device's logical block size ` +
          `${logicalBlockSize}`,
      );
    }
    const most = Math.min(blockSize, 32768);
    const suits = physicalBlockSize <= most ? physicalBlockSize : 0;
    return this.#power(
      "sectorSize",
      Math.max(suits, logicalBlockSize, 512),
      Math.max(logicalBlockSize, 512),
      most,
    );
  }

  #count(name: "agCount"): number | null {
    const value = this.#o[name];
    if (value === undefined) return null;
    if (!(Number.isSafeInteger(value) && value >= 1)) {
      this.refuse(`${name} ${show(value)} is not a number from 1 on`);
    }
    return value;
  }

  #multiple(
    name: "agSize" | "logSize" | "stripeUnit" | "stripeWidth" | "logStripeUnit",
    unit: number,
  ): number | null {
    const value = this.#o[name];
    if (value === undefined) return null;
    const isMultiple = Number.isSafeInteger(value) && value > 0 &&
      value % unit === 0;
    if (!isMultiple) {
      this.refuse(`${name} ${show(value)} is no multiple of ${unit} bytes`);
    }
    return value;
  }

  #imaxPct(): number | null {
    const value = this.#o.imaxPct;
    if (value === undefined) return null;
    if (!(Number.isInteger(value) && value >= 0 && value <= 100)) {
      this.refuse(`imaxPct ${show(value)} is not a number from 0 to 100`);
    }
    return value;
  }

  #flag(
    name:
      | "finobt"
      | "sparseInodes"
      | "reflink"
      | "rmapbt"
      | "bigtime"
      | "inobtcount"
      | "nrext64",
    otherwise: boolean,
  ): boolean {
    const { [name]: value = otherwise } = this.#o;
    return checkFlag(this.#call, name, value);
  }

  #label(): Uint8Array {
    const { label = "" } = this.#o;
    const isText = typeof label === "string" && label.isWellFormed() &&
      !label.includes("\0");
    if (!isText) this.refuse(`label ${show(label)} is not text without NUL`);
    const bytes = new TextEncoder().encode(label);
    if (bytes.length > LABEL_MAX) {
      this.refuse(`label ${show(label)} is longer than ${LABEL_MAX} bytes`);
    }
    return bytes;
  }

  #uuid(): Uint8Array {
    const { uuid } = this.#o;
    if (uuid === undefined) return this.#randomUuid();
    if (uuid instanceof Uint8Array && uuid.length === 16) return uuid.slice();
    const digits = typeof uuid === "string" ? uuid.replaceAll("-", "") : "";
    if (!/^[0-9a-f]{32}$/i.test(digits)) {
      this.refuse(`uuid ${show(uuid)} is neither 16 bytes nor 32 digits`);
    }
    return Uint8Array.from(
      { length: 16 },
      (_, i) => parseInt(digits.slice(2 * i, 2 * i + 2), 16),
    );
  }

  #randomUuid(): Uint8Array {
    const { clock, name } = this.#device;
    // Nanoseconds are too many for a safe integer.
    const { seed = Math.floor(clock.realtime() / 1000) } = this.#o;
    if (!Number.isSafeInteger(seed)) {
      this.refuse(`seed ${show(seed)} is not a safe integer`);
    }
    const random = new Prng(seed, `mkfs.xfs ${name}`);
    const uuid = Uint8Array.from({ length: 16 }, () => random.below(256));
    // Version 4, variant 1: made of random numbers.
    uuid[6] = uuid[6]! & 0x0f | 0x40;
    uuid[8] = uuid[8]! & 0x3f | 0x80;
    return uuid;
  }
}
