/**
 * Making a file system.
 *
 * Program counterpart: xfsprogs mkfs/xfs_mkfs.c.
 *
 * @module
 */

import { BLK_FEAT_ZONED, type BlockDevice } from "../../block/blkdev.ts";
import {
  EBUSY,
  EINVAL,
  EOPNOTSUPP,
  type FsError,
  show,
} from "../../lib/errno.ts";
import { Mm } from "../../mm/mm.ts";
import { S_IFDIR } from "../fs.ts";
import { claimDevice, releaseDevice } from "../super.ts";
import { checkOptions, deviceCall, failure, type Syscall } from "../syscall.ts";
import {
  AG_MIN_BYTES,
  MAX_BLOCKSIZE,
  MIN_BLOCKSIZE,
  XfsGeometry,
} from "./format.ts";
import { writeInode, xfsIcreate } from "./inode.ts";
import { XfsMount } from "./mount.ts";
import { unmountFs, xfsSuperOperations } from "./super.ts";

/** Groups of a device on which they all have the least size, or more. */
const DEFAULT_AG_COUNT = 4;
/** Largest group, bytes (kernel: `XFS_AG_MAX_BYTES`). */
const AG_MAX_BYTES = 2 ** 40;
const LABEL_MAX = 12;

/** What a file system is made with. */
export interface MkfsXfsOptions {
  /** Bytes of a block: 512, 1024, 2048 or 4096, which is the default; not below the
   * device's logical block size. */
  blockSize?: number;
  /** Allocation groups, of at least 16 MiB each; 4 if absent and they have room. */
  agCount?: number;
  /** Up to 12 bytes of text. */
  label?: string;
}

const OPTIONS = ["blockSize", "agCount", "label"];

/** Checks what was asked for and works out the rest. */
function geometry(
  call: Syscall,
  device: BlockDevice,
  options: MkfsXfsOptions,
): XfsGeometry {
  const fail = (message: string) => failure(call, EINVAL, message);
  const { blockSize = 4096, agCount, label = "" } = options;
  const isSize = Number.isInteger(blockSize) &&
    Number.isInteger(Math.log2(blockSize)) &&
    blockSize >= MIN_BLOCKSIZE && blockSize <= MAX_BLOCKSIZE;
  if (!isSize) {
    throw fail(`blockSize ${show(blockSize)} is not 512, 1024, 2048 or 4096`);
  }
  const { logicalBlockSize } = device.limits;
  if (blockSize < logicalBlockSize) {
    throw fail(
      `blockSize ${blockSize} is below the device's logical block size ` +
        `${logicalBlockSize}`,
    );
  }
  const bytes = device.nrSectors * 512;
  if (bytes < AG_MIN_BYTES) {
    throw fail(
      `device of ${bytes} bytes is too small; it takes ${AG_MIN_BYTES}`,
    );
  }
  const isText = typeof label === "string" && label.isWellFormed() &&
    !label.includes("\0");
  if (!isText) throw fail(`label ${show(label)} is not text without NUL`);
  if (new TextEncoder().encode(label).length > LABEL_MAX) {
    throw fail(`label ${show(label)} is longer than ${LABEL_MAX} bytes`);
  }
  const groups = agCount === undefined ? defaultAgCount(bytes) : agCount;
  return divide(fail, blockSize, Math.floor(bytes / blockSize), groups);
}

function defaultAgCount(bytes: number): number {
  const most = Math.floor(bytes / AG_MIN_BYTES);
  const least = Math.ceil(bytes / AG_MAX_BYTES);
  return Math.max(least, Math.min(DEFAULT_AG_COUNT, most));
}

/** Divides the blocks into groups; a last one that would be too small is left out. */
function divide(
  fail: (message: string) => FsError,
  blockSize: number,
  dblocks: number,
  agCount: number,
): XfsGeometry {
  const most = Math.floor(dblocks * blockSize / AG_MIN_BYTES);
  if (!Number.isInteger(agCount) || agCount < 1 || agCount > most) {
    throw fail(`agCount ${show(agCount)} is not a number from 1 to ${most}`);
  }
  const agBlocks = Math.ceil(dblocks / agCount);
  if (agBlocks * blockSize > AG_MAX_BYTES) {
    throw fail(`agCount ${agCount} makes groups above ${AG_MAX_BYTES} bytes`);
  }
  // Rounded up, groups may hold all blocks before the last ones come.
  const groups = Math.ceil(dblocks / agBlocks);
  const whole = (groups - 1) * agBlocks;
  return (dblocks - whole) * blockSize >= AG_MIN_BYTES / 2
    ? new XfsGeometry(blockSize, dblocks, groups, agBlocks)
    : new XfsGeometry(blockSize, whole, groups - 1, agBlocks);
}

/**
 * Makes an XFS-like file system on a device, whatever it held before (program:
 * `mkfs.xfs`).
 *
 * @param device Holds no mounted file system.
 * @param options Sizes and label.
 * @throws FsError EINVAL for an option that is not as described, or a device below
 *   16 MiB: the message says which value was wrong, and nothing is written. EBUSY if
 *   it is mounted. EOPNOTSUPP for a zoned device. The device's errno if writing fails.
 */
export async function mkfsXfs(
  device: BlockDevice,
  options: MkfsXfsOptions = {},
): Promise<void> {
  const call = deviceCall("mkfs", "make a file system on", device);
  checkOptions(call, options, OPTIONS);
  if ((device.limits.features & BLK_FEAT_ZONED) !== 0) {
    throw failure(call, EOPNOTSUPP, "it has zones to be written in order");
  }
  const geo = geometry(call, device, options);
  // What is being made needs not be told: its I/O fails.
  const claim = { markDead() {} };
  if (!claimDevice(device, claim)) throw failure(call, EBUSY, "it is in use");
  try {
    const error = await make(device, geo, options.label ?? "");
    if (error < 0) throw failure(call, error, "it cannot be written");
  } finally {
    releaseDevice(device, claim);
  }
}

/** Writes a file system that has nothing but a root. */
function make(
  device: BlockDevice,
  geo: XfsGeometry,
  label: string,
): Promise<number> {
  const mp = new XfsMount(
    device,
    new Mm(device.clock),
    xfsSuperOperations,
    geo,
    label,
    { allocsizeLog: null },
  );
  for (const ag of mp.ags) {
    ag.give(geo.headerBlocks, ag.blocks - geo.headerBlocks);
  }
  mp.countFree();
  return makeRoot(mp);
}

/** The root directory is the first inode of the first group. */
async function makeRoot(mp: XfsMount): Promise<number> {
  const root = xfsIcreate(mp, 0, S_IFDIR | 0o755);
  if (typeof root === "number") return root;
  mp.rootIno = root.dir!.parent = root.ino;
  const error = await writeInode(root);
  return error < 0 ? error : await unmountFs(mp);
}
