/**
 * Directories: a name is entered, looked up, removed or given to another inode,
 * whatever form the directory has.
 *
 * The form is not written down: it follows from the fork's format and from the end of
 * its last extent. Names are bytes; see `../name.ts` for how they become strings.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_dir2.c.
 *
 * @module
 */

import { EEXIST } from "../../../lib/errno.ts";
import type { XfsInode } from "../inode.ts";
import type { XfsMount } from "../mount.ts";
import { xfsBmapLastOffset } from "./bmap.ts";
import {
  daCorrupt,
  XFS_DA_OP_ADDNAME,
  XFS_DA_OP_JUSTCHECK,
  xfsDaHashname,
} from "./da-btree.ts";
import {
  xfsDir2BlockAddname,
  xfsDir2BlockLookup,
  xfsDir2BlockRemovename,
  xfsDir2BlockReplace,
} from "./dir2-block.ts";
import {
  xfsDir2LeafAddname,
  xfsDir2LeafLookup,
  xfsDir2LeafRemovename,
  xfsDir2LeafReplace,
} from "./dir2-leaf.ts";
import {
  xfsDir2NodeAddname,
  xfsDir2NodeLookup,
  xfsDir2NodeRemovename,
  xfsDir2NodeReplace,
} from "./dir2-node.ts";
import { XfsDirArgs } from "./dir2-priv.ts";
import {
  xfsDataForkSize,
  xfsDir2SfAddname,
  xfsDir2SfCreate,
  xfsDir2SfLookup,
  xfsDir2SfRemovename,
  xfsDir2SfReplace,
} from "./dir2-sf.ts";
import { XFS_DATA_FORK, XFS_DINODE_FMT_LOCAL } from "./format.ts";
import type { XfsTrans } from "./trans.ts";

/** A name and what it stands for (kernel: `struct xfs_name`). */
export interface XfsName {
  /** 1 to 255 bytes, without 0 and "/". */
  name: Uint8Array;
  /** `XFS_DIR3_FT_*`; a look-up sets it. */
  type: number;
}

// Forms of a directory (kernel: enum xfs_dir2_fmt).
/** In the inode. */
export const XFS_DIR2_FMT_SF = 0;
/** One block. */
export const XFS_DIR2_FMT_BLOCK = 1;
/** Data blocks and one leaf. */
const XFS_DIR2_FMT_LEAF = 2;
/** Data blocks, a tree of leaves, and a free index. */
const XFS_DIR2_FMT_NODE = 3;

/** What each form does in its own way. */
interface DirForm {
  addname(args: XfsDirArgs): number;
  /** -EEXIST if it has found the name. */
  lookup(args: XfsDirArgs): number;
  removename(args: XfsDirArgs): number;
  replace(args: XfsDirArgs): number;
}

/** By `XFS_DIR2_FMT_*`. */
const FORMS: readonly DirForm[] = [
  {
    addname: xfsDir2SfAddname,
    lookup: xfsDir2SfLookup,
    removename: xfsDir2SfRemovename,
    replace: xfsDir2SfReplace,
  },
  {
    addname: xfsDir2BlockAddname,
    lookup: xfsDir2BlockLookup,
    removename: xfsDir2BlockRemovename,
    replace: xfsDir2BlockReplace,
  },
  {
    addname: xfsDir2LeafAddname,
    lookup: xfsDir2LeafLookup,
    removename: xfsDir2LeafRemovename,
    replace: xfsDir2LeafReplace,
  },
  {
    addname: xfsDir2NodeAddname,
    lookup: xfsDir2NodeLookup,
    removename: xfsDir2NodeRemovename,
    replace: xfsDir2NodeReplace,
  },
];

/**
 * Form of a directory (kernel: `xfs_dir2_format`).
 *
 * @returns `XFS_DIR2_FMT_*`; -EFSCORRUPTED if one block has another size; the errno of
 *   reading the map.
 */
export function xfsDir2Format(dp: XfsInode): number {
  if (dp.df.format === XFS_DINODE_FMT_LOCAL) return XFS_DIR2_FMT_SF;
  const geo = dp.mount.dirGeo;
  const last = xfsBmapLastOffset(dp, XFS_DATA_FORK);
  if (last < 0) return last;
  if (last === geo.fsbcount) {
    if (dp.diskSize === geo.blksize) return XFS_DIR2_FMT_BLOCK;
    return daCorrupt(dp, 0, `size ${dp.diskSize} of a single block`);
  }
  return last === geo.leafblk + geo.fsbcount
    ? XFS_DIR2_FMT_LEAF
    : XFS_DIR2_FMT_NODE;
}

/** Checks the number of an inode that a directory is to point to (kernel:
 * `xfs_dir_ino_validate`); 0 or -EFSCORRUPTED. */
function xfsDirInoValidate(mp: XfsMount, ino: number): number {
  const { rbmino, rsumino } = mp.sb;
  if (mp.sb.verifyIno(ino) && ino !== rbmino && ino !== rsumino) return 0;
  return mp.corrupt("directory entry", `inode number ${ino}`);
}

/** Whether a directory has no names but "." and ".." (kernel: `xfs_dir_isempty`). */
export function xfsDirIsempty(dp: XfsInode): boolean {
  if (dp.diskSize === 0) return true;
  if (dp.df.format !== XFS_DINODE_FMT_LOCAL) return false;
  return dp.diskSize <= xfsDataForkSize(dp) && dp.df.local![0] === 0;
}

/**
 * Makes a new inode an empty directory (kernel: `xfs_dir_init`).
 *
 * @param dp The new inode: it has no blocks and size 0.
 * @param pdp Its parent; itself if it is the root.
 * @returns 0 or -EFSCORRUPTED.
 */
export function xfsDirInit(
  tp: XfsTrans,
  dp: XfsInode,
  pdp: XfsInode,
): number {
  const error = xfsDirInoValidate(dp.mount, pdp.ino);
  if (error < 0) return error;
  xfsDir2SfCreate(new XfsDirArgs(dp, tp, NO_NAME, 0), pdp.ino);
  return 0;
}

const NO_NAME = new Uint8Array(0);

function newArgs(
  tp: XfsTrans | null,
  dp: XfsInode,
  name: XfsName,
): XfsDirArgs {
  const hashval = xfsDaHashname(name.name);
  const args = new XfsDirArgs(dp, tp, name.name, hashval);
  args.filetype = name.type;
  return args;
}

/**
 * Enters a name, which is not there yet (kernel: `xfs_dir_createname`).
 *
 * @param name With the type of `inum`.
 * @param inum What it stands for; 0 only looks whether there is room without new blocks.
 * @param total Blocks of the reservation that may be used; 0 if none must be.
 * @returns 0; -ENOSPC if it takes blocks and `total` is 0 (then nothing was changed) or
 *   there are none; -EFSCORRUPTED; the errno of reading a block.
 */
export function xfsDirCreatename(
  tp: XfsTrans,
  dp: XfsInode,
  name: XfsName,
  inum: number,
  total: number,
): number {
  if (inum !== 0) {
    const error = xfsDirInoValidate(dp.mount, inum);
    if (error < 0) return error;
  }
  const args = newArgs(tp, dp, name);
  args.inumber = inum;
  args.total = total;
  args.opFlags = XFS_DA_OP_ADDNAME | (inum === 0 ? XFS_DA_OP_JUSTCHECK : 0);
  const form = xfsDir2Format(dp);
  return form < 0 ? form : FORMS[form]!.addname(args);
}

/** Whether a name can be entered without new blocks (kernel: `xfs_dir_canenter`); 0,
 * -ENOSPC or another negative errno. */
export function xfsDirCanenter(
  tp: XfsTrans,
  dp: XfsInode,
  name: XfsName,
): number {
  return xfsDirCreatename(tp, dp, name, 0, 0);
}

/**
 * Looks a name up (kernel: `xfs_dir_lookup`).
 *
 * @param tp Transaction, or null.
 * @param name Its type is set if it is there.
 * @returns The inode number; -ENOENT; -EFSCORRUPTED; the errno of reading a block.
 */
export function xfsDirLookup(
  tp: XfsTrans | null,
  dp: XfsInode,
  name: XfsName,
): number {
  const args = newArgs(tp, dp, name);
  const form = xfsDir2Format(dp);
  const ret = form < 0 ? form : FORMS[form]!.lookup(args);
  if (ret !== -EEXIST) return ret;
  name.type = args.filetype;
  return args.inumber;
}

/**
 * Removes a name (kernel: `xfs_dir_removename`).
 *
 * @param ino What it stands for.
 * @param total Blocks of the reservation that may be used; with 0 a block that cannot be
 *   freed without one stays, empty.
 * @returns 0; -ENOENT; -EFSCORRUPTED; the errno of reading a block.
 */
export function xfsDirRemovename(
  tp: XfsTrans,
  dp: XfsInode,
  name: XfsName,
  ino: number,
  total: number,
): number {
  const args = newArgs(tp, dp, name);
  args.inumber = ino;
  args.total = total;
  const form = xfsDir2Format(dp);
  return form < 0 ? form : FORMS[form]!.removename(args);
}

/**
 * Lets a name, which may be "..", stand for another inode (kernel: `xfs_dir_replace`).
 *
 * @param name With the type of `inum`.
 * @param inum Another inode.
 * @param total Blocks of the reservation that may be used.
 * @returns 0; -ENOENT; -EFSCORRUPTED; -ENOSPC if a larger number makes the directory
 *   grow and no block is free; the errno of reading a block.
 */
export function xfsDirReplace(
  tp: XfsTrans,
  dp: XfsInode,
  name: XfsName,
  inum: number,
  total: number,
): number {
  const error = xfsDirInoValidate(dp.mount, inum);
  if (error < 0) return error;
  const args = newArgs(tp, dp, name);
  args.inumber = inum;
  args.total = total;
  const form = xfsDir2Format(dp);
  return form < 0 ? form : FORMS[form]!.replace(args);
}
