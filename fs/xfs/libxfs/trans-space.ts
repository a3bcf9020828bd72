/**
 * How many blocks each kind of change may need at most: what a transaction has promised
 * to it before it begins.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_trans_space.h.
 *
 * @module
 */

import type { XfsMount } from "../mount.ts";
import { xfsBnobtOps } from "./alloc-btree.ts";
import { xfsBtreeMaxrecs, xfsBtreeMinrecs } from "./btree.ts";
import {
  XFS_ATTR_FORK,
  XFS_DA_NODE_MAXDEPTH,
  XFS_DATA_FORK,
} from "./format.ts";

/** What the numbers follow from: a mount, or a file system to be. */
export type XfsTreeSizes = Pick<XfsMount, "sb" | "maxlevels">;

/** Blocks that adding `blocks` extents to a map may need (kernel:
 * `XFS_NEXTENTADD_SPACE_RES`). */
export function xfsNextentaddSpaceRes(
  mp: XfsTreeSizes,
  blocks: number,
  whichfork: number,
): number {
  const { sb, maxlevels } = mp;
  const contig = xfsBtreeMaxrecs(sb, xfsBnobtOps, true) -
    xfsBtreeMinrecs(sb, xfsBnobtOps, true);
  const data = whichfork === XFS_DATA_FORK;
  const levels = data ? maxlevels.bmapData : maxlevels.bmapAttr;
  return Math.ceil(blocks / contig) * (levels - 1);
}

/** Blocks of a tree of names that a change may add (kernel: `XFS_DAENTER_DBS`). */
function daenterDbs(whichfork: number): number {
  return XFS_DA_NODE_MAXDEPTH + (whichfork === XFS_DATA_FORK ? 2 : 0);
}

/** File-system blocks of each (kernel: `XFS_DAENTER_1B`). */
function daenter1b(mp: XfsTreeSizes, whichfork: number): number {
  return whichfork === XFS_DATA_FORK ? mp.sb.dirblkFsbs : 1;
}

/** A name enters a tree (kernel: `XFS_DAENTER_SPACE_RES`). */
export function xfsDaenterSpaceRes(
  mp: XfsTreeSizes,
  whichfork: number,
): number {
  return daenterDbs(whichfork) * daenter1b(mp, whichfork) +
    xfsDaremoveSpaceRes(mp, whichfork);
}

/** A name leaves a tree: what the map may need (kernel: `XFS_DAREMOVE_SPACE_RES`). */
function xfsDaremoveSpaceRes(
  mp: XfsTreeSizes,
  whichfork: number,
): number {
  return daenterDbs(whichfork) *
    xfsNextentaddSpaceRes(mp, daenter1b(mp, whichfork), whichfork);
}

/** A new name in a directory (kernel: `XFS_DIRENTER_SPACE_RES`). */
export function xfsDirenterSpaceRes(mp: XfsMount): number {
  return xfsDaenterSpaceRes(mp, XFS_DATA_FORK);
}

/** A name is removed (kernel: `XFS_DIRREMOVE_SPACE_RES`). */
export function xfsDirremoveSpaceRes(mp: XfsMount): number {
  return xfsDaremoveSpaceRes(mp, XFS_DATA_FORK);
}

/** Inodes are allocated (kernel: `XFS_IALLOC_SPACE_RES`). */
export function xfsIallocSpaceRes(mp: XfsMount): number {
  const trees = mp.sb.hasFinobt ? 2 : 1;
  return mp.sb.ialloBlks + trees * mp.maxlevels.inobt;
}

/** An inode is freed (kernel: `XFS_IFREE_SPACE_RES`). */
export function xfsIfreeSpaceRes(mp: XfsMount): number {
  return mp.sb.hasFinobt ? mp.maxlevels.inobt : 0;
}

/** A file or directory is made (kernel: `XFS_CREATE_SPACE_RES`). */
export function xfsCreateSpaceRes(mp: XfsMount): number {
  return xfsIallocSpaceRes(mp) + xfsDirenterSpaceRes(mp);
}

/** A symbolic link is made.
 * @param b Blocks of its target (kernel: `XFS_SYMLINK_SPACE_RES`). */
export function xfsSymlinkSpaceRes(mp: XfsMount, b: number): number {
  return xfsCreateSpaceRes(mp) + b;
}

/** A file is renamed (kernel: `XFS_RENAME_SPACE_RES`). */
export function xfsRenameSpaceRes(mp: XfsMount): number {
  return xfsDirremoveSpaceRes(mp) + xfsDirenterSpaceRes(mp);
}

/** An inode gets an attribute fork (kernel: `XFS_ADDAFORK_SPACE_RES`). */
export function xfsAddaforkSpaceRes(mp: XfsMount): number {
  return xfsDaenterSpaceRes(mp, XFS_ATTR_FORK);
}

/** An attribute is removed (kernel: `XFS_ATTRRM_SPACE_RES`). */
export function xfsAttrrmSpaceRes(mp: XfsMount): number {
  return xfsDaremoveSpaceRes(mp, XFS_ATTR_FORK);
}

/** Blocks of a file are allocated (kernel: `XFS_DIOSTRAT_SPACE_RES`).
 * @param v How many. */
export function xfsDiostratSpaceRes(mp: XfsMount, v: number): number {
  return mp.maxlevels.bmapData - 1 + v;
}
