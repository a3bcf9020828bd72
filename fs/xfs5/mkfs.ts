/**
 * Making a file system.
 *
 * It is written straight, block by block, the first super block last: whoever looks
 * at a half-made one finds none.
 *
 * Program counterpart: xfsprogs mkfs/xfs_mkfs.c.
 *
 * @module
 */

import { Bio, submitBioWait } from "../../block/bio.ts";
import { blkdevIssueFlush, blkdevIssueZeroout } from "../../block/blk-lib.ts";
import { REQ_OP_READ, REQ_OP_WRITE } from "../../block/blk-types.ts";
import { BLK_FEAT_ZONED, type BlockDevice } from "../../block/blkdev.ts";
import { EBUSY, EINVAL, EOPNOTSUPP, show } from "../../lib/errno.ts";
import type { MaybePromise } from "../../lib/maybe-promise.ts";
import { Prng } from "../../lib/prng.ts";
import { claimDevice, releaseDevice } from "../super.ts";
import {
  checkFlag,
  checkOptions,
  deviceCall,
  failure,
  type Syscall,
} from "../syscall.ts";
import * as F from "./libxfs/format.ts";
import { encodeSb, type XfsSb } from "./libxfs/sb.ts";
import { firstInodes, GroupImage, logUnmountRecord } from "./mkfs-blocks.ts";
import {
  mkfsGeometry,
  newAgflLen,
  NewGroup,
  preallocBlocks,
  type XfsParams,
} from "./mkfs-geometry.ts";

/** Bytes at either end of a device that are cleared: signatures of what was there
 * (program: `WHACK_SIZE`). */
const WHACK_SIZE = 128 * 1024;
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

/** A new file system's geometry, as `xfs_info` shows it (kernel: `struct
 * xfs_fsop_geom`). */
export interface XfsGeometry {
  /** Bytes of a block. */
  blockSize: number;
  /** Bytes of a sector. */
  sectorSize: number;
  /** Bytes of an inode. */
  inodeSize: number;
  /** Bytes of a directory block. */
  dirBlockSize: number;
  /** Allocation groups. */
  agCount: number;
  /** Blocks of a group. */
  agBlocks: number;
  /** Blocks of the data section. */
  dataBlocks: number;
  /** Blocks of the log. */
  logBlocks: number;
  /** Log stripe unit, bytes; 1 if there is none. */
  logStripeUnit: number;
  /** Stripe unit, blocks. */
  stripeUnit: number;
  /** Stripe width, blocks. */
  stripeWidth: number;
  /** Blocks of a real-time extent. */
  rtExtentBlocks: number;
  /** Share of the space that inodes may take, percent. */
  imaxPct: number;
  /** There is a tree of inodes that are free. */
  finobt: boolean;
  /** Inodes may be allocated in part of a chunk. */
  sparseInodes: boolean;
  /** Files may share blocks. */
  reflink: boolean;
  /** There is a tree of who owns each block. */
  rmapbt: boolean;
  /** Timestamps reach the year 2486. */
  bigtime: boolean;
  /** Blocks of the inode trees are counted. */
  inobtcount: boolean;
  /** Counters of extents have 48 bits. */
  nrext64: boolean;
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
class Options {
  readonly #call: Syscall;
  readonly #device: BlockDevice;
  readonly #o: MkfsXfsOptions;

  constructor(call: Syscall, device: BlockDevice, options: MkfsXfsOptions) {
    checkOptions(call, options, OPTIONS);
    this.#call = call;
    this.#device = device;
    this.#o = options;
  }

  readonly refuse = (why: string): never => {
    throw failure(this.#call, EINVAL, why);
  };

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

/**
 * Makes an XFS file system on a device, whatever it held before, laid out as
 * `mkfs.xfs` 6.1 does; a device of 16 MiB is large enough (program: `mkfs.xfs`).
 *
 * @param device Holds no mounted file system.
 * @param options Sizes, features and names.
 * @returns What was made.
 * @throws FsError EINVAL for an option that is not as described, or a device that is
 *   too small: the message says which value was wrong, and nothing is written. EBUSY
 *   if it is mounted. EOPNOTSUPP for a zoned device. The device's errno if writing
 *   fails.
 */
export async function mkfsXfs(
  device: BlockDevice,
  options: MkfsXfsOptions = {},
): Promise<XfsGeometry> {
  const call = deviceCall("mkfs", "make a file system on", device);
  const checked = new Options(call, device, options);
  const params = checked.params();
  if ((device.limits.features & BLK_FEAT_ZONED) !== 0) {
    throw failure(call, EOPNOTSUPP, "it has zones to be written in order");
  }
  const sb = mkfsGeometry(params, device.nrSectors * 512, checked.refuse);
  const groups = layOut(sb, checked.refuse);
  // What is being made needs not be told: its I/O fails.
  const claim = { markDead() {} };
  if (!claimDevice(device, claim)) throw failure(call, EBUSY, "it is in use");
  try {
    const error = await new Maker(device, sb).make(groups);
    if (error < 0) throw failure(call, error, "it cannot be written");
  } finally {
    releaseDevice(device, claim);
  }
  return xfsGeometry(sb);
}

/** The groups that differ from all others: the first, that of the log, the last. */
function layOut(
  sb: XfsSb,
  refuse: (why: string) => never,
): Map<number, NewGroup> {
  const agflLen = newAgflLen(sb);
  const groups = new Map<number, NewGroup>();
  for (const agno of [0, sb.fsbToAgno(sb.logstart), sb.agcount - 1]) {
    groups.set(agno, new NewGroup(sb, agno, agflLen, refuse));
  }
  const first = groups.get(0)!.inodes!;
  sb.rootino = sb.aginoToIno(0, first.agbno * sb.inopblock);
  sb.rbmino = sb.rootino + 1;
  sb.rsumino = sb.rootino + 2;
  sb.icount = sb.ialloInos;
  sb.ifree = sb.icount - 3;
  sb.fdblocks = sb.dblocks - sb.agcount * preallocBlocks(sb) - sb.logblocks -
    sb.ialloBlks;
  return groups;
}

/** Geometry of a super block (kernel: `xfs_fs_geometry`). */
export function xfsGeometry(sb: XfsSb): XfsGeometry {
  return {
    blockSize: sb.blocksize,
    sectorSize: sb.sectsize,
    inodeSize: sb.inodesize,
    dirBlockSize: sb.dirblksize,
    agCount: sb.agcount,
    agBlocks: sb.agblocks,
    dataBlocks: sb.dblocks,
    logBlocks: sb.logblocks,
    logStripeUnit: sb.logsunit,
    stripeUnit: sb.unit,
    stripeWidth: sb.width,
    rtExtentBlocks: sb.rextsize,
    imaxPct: sb.imaxPct,
    finobt: sb.hasFinobt,
    sparseInodes: sb.hasSparseInodes,
    reflink: sb.hasReflink,
    rmapbt: sb.hasRmapbt,
    bigtime: sb.hasBigtime,
    inobtcount: sb.hasInobtcounts,
    nrext64: sb.hasNrext64,
  };
}

/** Writes a file system. Each method answers 0 or a negative errno. */
class Maker {
  readonly #device: BlockDevice;
  readonly #sb: XfsSb;

  constructor(device: BlockDevice, sb: XfsSb) {
    this.#device = device;
    this.#sb = sb;
  }

  async make(groups: Map<number, NewGroup>): Promise<number> {
    const steps = [
      () => this.#clearOld(),
      () => this.#clearEnds(),
      () => this.#writeLog(),
      () => this.#writeGroups(groups),
      () => this.#writeInodes(groups.get(0)!),
      () => blkdevIssueFlush(this.#device),
      () => this.#write(0, encodeSb(this.#sb)),
      () => blkdevIssueFlush(this.#device),
    ];
    for (const step of steps) {
      const error = await step();
      if (error < 0) return error;
    }
    return 0;
  }

  /** @param at Byte on the device. */
  #write(at: number, data: Uint8Array): MaybePromise<number> {
    const bio = new Bio(this.#device, REQ_OP_WRITE);
    bio.sector = at / F.BBSIZE;
    bio.addData(data, 0, data.length);
    return submitBioWait(bio);
  }

  #zero(at: number, bytes: number): MaybePromise<number> {
    return blkdevIssueZeroout(
      this.#device,
      at / F.BBSIZE,
      bytes / F.BBSIZE,
    );
  }

  /** Super blocks of a file system that was there before would mislead a repair
   * (program: `zero_old_xfs_structures`). */
  async #clearOld(): Promise<number> {
    const old = await this.#readSb(0);
    if (old === null) return 0;
    const agBytes = old.getUint32(F.SB_AGBLOCKS) *
      old.getUint32(F.SB_BLOCKSIZE);
    const sector = this.#device.limits.logicalBlockSize;
    if (agBytes < 65536 || agBytes % sector !== 0) return 0;
    const end = this.#device.nrSectors * F.BBSIZE;
    for (let at = agBytes; at + sector <= end; at += agBytes) {
      // Further ones were never written, or something else has been since.
      if (await this.#readSb(at) === null) return 0;
      const error = await this.#zero(at, sector);
      if (error < 0) return error;
    }
    return 0;
  }

  /** @returns A super block, or null if there is none. */
  async #readSb(at: number): Promise<DataView | null> {
    const data = new Uint8Array(this.#device.limits.logicalBlockSize);
    const bio = new Bio(this.#device, REQ_OP_READ);
    bio.sector = at / F.BBSIZE;
    bio.addData(data, 0, data.length);
    if (await submitBioWait(bio) < 0) return null;
    const view = new DataView(data.buffer);
    return view.getUint32(F.SB_MAGICNUM) === F.XFS_SB_MAGIC ? view : null;
  }

  async #clearEnds(): Promise<number> {
    const { logicalBlockSize } = this.#device.limits;
    const size = Math.floor(
      this.#device.nrSectors * F.BBSIZE / logicalBlockSize,
    ) * logicalBlockSize;
    const error = await this.#zero(size - WHACK_SIZE, WHACK_SIZE);
    return error < 0 ? error : this.#zero(0, WHACK_SIZE);
  }

  async #writeLog(): Promise<number> {
    const sb = this.#sb;
    const at = sb.fsbToByte(sb.logstart);
    const error = await this.#zero(at, sb.logblocks * sb.blocksize);
    if (error < 0) return error;
    const record = logUnmountRecord(sb);
    // Whole sectors.
    const size = Math.ceil(record.length / sb.sectsize) * sb.sectsize;
    const data = new Uint8Array(size);
    data.set(record);
    return this.#write(at, data);
  }

  async #writeGroups(groups: Map<number, NewGroup>): Promise<number> {
    const sb = this.#sb;
    const agflLen = newAgflLen(sb);
    for (let agno = 0; agno < sb.agcount; agno++) {
      const group = groups.get(agno) ??
        new NewGroup(sb, agno, agflLen, () => {
          throw new Error("BUG: a group like others has no room");
        });
      const { data } = new GroupImage(sb, agno, group);
      if (agno > 0) data.set(this.#secondary(agno));
      const error = await this.#write(sb.fsbToByte(sb.agbToFsb(agno, 0)), data);
      if (error < 0) return error;
    }
    return 0;
  }

  /** A copy of the super block: as it was before there were inodes. Two of them know
   * the root all the same, in case the first is lost (program:
   * `rewrite_secondary_superblocks`). */
  #secondary(agno: number): Uint8Array {
    const sb = this.#sb;
    const copy: XfsSb = Object.assign(Object.create(sb), sb);
    const knowsRoot = agno === sb.agcount - 1 ||
      (sb.agcount > 2 && agno === Math.floor((sb.agcount - 1) / 2));
    if (!knowsRoot) copy.rootino = F.NULLFSINO;
    copy.rbmino = F.NULLFSINO;
    copy.rsumino = F.NULLFSINO;
    copy.inprogress = 1;
    copy.icount = 0;
    copy.ifree = 0;
    copy.fdblocks += sb.ialloBlks;
    return encodeSb(copy);
  }

  #writeInodes({ inodes }: NewGroup): MaybePromise<number> {
    const sb = this.#sb;
    const at = sb.fsbToByte(sb.agbToFsb(0, inodes!.agbno));
    return this.#write(at, firstInodes(sb, this.#device.clock.realtime()));
  }
}
