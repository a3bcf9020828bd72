/**
 * What the forms of a directory share: the arguments of an operation, how a place in
 * the data space is written down, and adding and removing blocks.
 *
 * A directory has three spaces in its data fork: data blocks from 0, the tree of hashes
 * from 32 GiB, the free index from 64 GiB. A data block has a number `db`; a name's
 * place is a `dataptr`: its byte in the data space, in units of 8.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_dir2_priv.h, xfs_dir2.c.
 *
 * @module
 */

import type { XfsInode } from "../inode.ts";
import { xfsBmapLastBefore } from "./bmap.ts";
import type { XfsBuf } from "./buf.ts";
import {
  daUnmap,
  XfsDaArgs,
  type XfsDaGeometry,
  xfsDaGrowInodeInt,
} from "./da-btree.ts";
import { XFS_DATA_FORK } from "./format.ts";
import { XFS_ILOG_CORE, type XfsTrans } from "./trans.ts";

/** Best free space of a data block that does not exist (kernel: `NULLDATAOFF`). */
export const NULLDATAOFF = 0xffff;
/** Address of a removed name (kernel: `XFS_DIR2_NULL_DATAPTR`). */
export const XFS_DIR2_NULL_DATAPTR = 0;
/** Bytes of a (hash, address) pair. */
export const LEAF_ENTRY_SIZE = 8;
/** Largest inode number that short form holds in 4 bytes (kernel:
 * `XFS_DIR2_MAX_SHORT_INUM`). */
export const XFS_DIR2_MAX_SHORT_INUM = 0xffff_ffff;

/** One operation on a directory (kernel: `struct xfs_da_args`). */
export class XfsDirArgs extends XfsDaArgs {
  /** Inode number that is entered, or that a look-up found. */
  inumber = 0;
  /** `XFS_DIR3_FT_*` of it. */
  filetype = 0;

  constructor(
    dp: XfsInode,
    trans: XfsTrans | null,
    name: Uint8Array,
    hashval: number,
  ) {
    super(dp.mount.dirGeo, dp, XFS_DATA_FORK, trans, name, hashval);
  }
}

/** Data block of a place (kernel: `xfs_dir2_dataptr_to_db`). */
export function dataptrToDb(geo: XfsDaGeometry, dataptr: number): number {
  return dataptr >>> (geo.blklog - 3);
}

/** Byte in its data block (kernel: `xfs_dir2_dataptr_to_off`). */
export function dataptrToOff(geo: XfsDaGeometry, dataptr: number): number {
  // What the shift loses at the top does not count.
  return (dataptr << 3) & (geo.blksize - 1);
}

/** Kernel: `xfs_dir2_db_off_to_dataptr`. */
export function dbOffToDataptr(
  geo: XfsDaGeometry,
  db: number,
  off: number,
): number {
  return (db * geo.blksize + off) / 8;
}

/** First file block of a directory block (kernel: `xfs_dir2_db_to_da`). */
export function dbToDa(geo: XfsDaGeometry, db: number): number {
  return db * geo.fsbcount;
}

/** Sets the size that stat(2) tells: the end of the last data block, or the bytes of a
 * short form. */
export function setDirSize(args: XfsDirArgs, size: number): void {
  const { dp } = args;
  dp.diskSize = size;
  dp.size = size;
  args.tp.logInode(dp, XFS_ILOG_CORE);
}

/**
 * Adds a data block or a free-index block (kernel: `xfs_dir2_grow_inode`).
 *
 * @param from First file block of its space.
 * @returns Its number, counted in directory blocks; a negative errno.
 */
export function xfsDir2GrowInode(args: XfsDirArgs, from: number): number {
  const { dp, geo } = args;
  const bno = xfsDaGrowInodeInt(args, from);
  if (bno < 0) return bno;
  if (from === 0) {
    const size = (bno + geo.fsbcount) * dp.mount.sb.blocksize;
    if (size > dp.diskSize) setDirSize(args, size);
  }
  return bno / geo.fsbcount;
}

/**
 * Takes away a data block or a free-index block (kernel: `xfs_dir2_shrink_inode`).
 *
 * @returns 0; -ENOSPC if the map would need a block and none is reserved: then the block
 *   stays, and is to be left as an empty one; another negative errno.
 */
export function xfsDir2ShrinkInode(
  args: XfsDirArgs,
  db: number,
  bp: XfsBuf,
): number {
  const { tp, dp, geo } = args;
  const bno = dbToDa(geo, db);
  const error = daUnmap(args, bno);
  if (error < 0) return error;
  tp.binval(bp);
  const { blocksize } = dp.mount.sb;
  const isData = bno < geo.leafblk;
  if (!isData || dp.diskSize > (bno + geo.fsbcount) * blocksize) return 0;
  const last = xfsBmapLastBefore(tp, dp, bno, XFS_DATA_FORK);
  if (last < 0) return last;
  setDirSize(args, last * blocksize);
  return 0;
}
