/**
 * Making a file system.
 *
 * Program counterpart: xfsprogs mkfs/xfs_mkfs.c.
 *
 * @module
 */

import { BlockDevice } from "../../block/blkdev.ts";
import { EINVAL, FsError } from "../../lib/errno.ts";
import { Mm } from "../../mm/mm.ts";
import { S_IFDIR } from "../fs.ts";
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

function refuse(device: BlockDevice, message: string): FsError {
  return new FsError(EINVAL, `Cannot make a file system: ${message}`, {
    syscall: "mkfs",
    path: device?.name ?? "",
  });
}

/** Checks what was asked for and works out the rest. */
function geometry(device: BlockDevice, options: MkfsXfsOptions): XfsGeometry {
  const fail = (message: string) => refuse(device, message);
  if (!(device instanceof BlockDevice)) {
    throw fail(`device ${device} is not a block device`);
  }
  for (const key of Object.keys(options)) {
    if (!OPTIONS.includes(key)) throw fail(`unknown option "${key}"`);
  }
  const { blockSize = 4096, label = "" } = options;
  const isSize = Number.isInteger(Math.log2(blockSize)) &&
    blockSize >= MIN_BLOCKSIZE && blockSize <= MAX_BLOCKSIZE;
  if (!isSize) {
    throw fail(`blockSize ${blockSize} is not 512, 1024, 2048 or 4096`);
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
  if (new TextEncoder().encode(label).length > LABEL_MAX) {
    throw fail(`label "${label}" is longer than ${LABEL_MAX} bytes`);
  }
  const agCount = options.agCount ?? defaultAgCount(bytes);
  return divide(fail, blockSize, Math.floor(bytes / blockSize), agCount);
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
    throw fail(`agCount ${agCount} is not a number from 1 to ${most}`);
  }
  const agBlocks = Math.ceil(dblocks / agCount);
  if (agBlocks * blockSize > AG_MAX_BYTES) {
    throw fail(`agCount ${agCount} makes groups above ${AG_MAX_BYTES} bytes`);
  }
  const last = dblocks - (agCount - 1) * agBlocks;
  return last * blockSize >= AG_MIN_BYTES / 2
    ? new XfsGeometry(blockSize, dblocks, agCount, agBlocks)
    : new XfsGeometry(
      blockSize,
      (agCount - 1) * agBlocks,
      agCount - 1,
      agBlocks,
    );
}

/**
 * Makes an XFS-like file system on a device, whatever it held before (program:
 * `mkfs.xfs`).
 *
 * @param device Holds no mounted file system.
 * @param options Sizes and label.
 * @throws FsError EINVAL for an option that is not as described, or a device below
 *   16 MiB: the message says which value was wrong, and nothing is written. The
 *   device's errno if writing fails.
 */
export async function mkfsXfs(
  device: BlockDevice,
  options: MkfsXfsOptions = {},
): Promise<void> {
  const geo = geometry(device, options);
  const mp = new XfsMount(
    device,
    new Mm(device.clock),
    xfsSuperOperations,
    geo,
    options.label ?? "",
    { allocsizeLog: null },
  );
  for (const ag of mp.ags) {
    ag.give(geo.headerBlocks, ag.blocks - geo.headerBlocks);
  }
  mp.countFree();
  const error = await makeRoot(mp);
  if (error < 0) {
    throw new FsError(error, "Cannot write the new file system", {
      syscall: "mkfs",
      path: device.name,
    });
  }
}

/** The root directory is the first inode of the first group. */
async function makeRoot(mp: XfsMount): Promise<number> {
  const root = xfsIcreate(mp, 0, S_IFDIR | 0o755);
  if (typeof root === "number") return root;
  mp.rootIno = root.dir!.parent = root.ino;
  const error = await writeInode(root);
  return error < 0 ? error : await unmountFs(mp);
}
