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
import { EBUSY, EOPNOTSUPP } from "../../lib/errno.ts";
import type { MaybePromise } from "../../lib/maybe-promise.ts";
import { claimDevice, releaseDevice } from "../super.ts";
import { deviceCall, failure } from "../syscall.ts";
import * as F from "./libxfs/format.ts";
import { encodeSb, XfsSb } from "./libxfs/sb.ts";
import { firstInodes, GroupImage, logUnmountRecord } from "./mkfs-blocks.ts";
import {
  mkfsGeometry,
  newAgflLen,
  NewGroup,
  preallocBlocks,
} from "./mkfs-geometry.ts";
import { MkfsOptions, type MkfsXfsOptions } from "./mkfs-options.ts";

export type { MkfsXfsOptions } from "./mkfs-options.ts";

/** Bytes at either end of a device that are cleared: signatures of what was there
 * (program: `WHACK_SIZE`). */
const WHACK_SIZE = 128 * 1024;

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
  const checked = new MkfsOptions(call, device, options);
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
function xfsGeometry(sb: XfsSb): XfsGeometry {
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
    const copy = Object.assign(new XfsSb(), sb);
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
