/**
 * How high trees can become: what bounds every walk, and how much a change may need.
 *
 * Kernel counterpart: fs/xfs/xfs_mount.c (`xfs_mountfs`).
 *
 * @module
 */

import { xfsAllocComputeMaxlevels } from "./alloc-btree.ts";
import { xfsBmapComputeMaxlevels } from "./bmap.ts";
import { XFS_ATTR_FORK, XFS_DATA_FORK } from "./format.ts";
import { xfsIallocComputeMaxlevels } from "./ialloc.ts";
import { xfsRefcountbtComputeMaxlevels } from "./refcount-btree.ts";
import { xfsRmapbtComputeMaxlevels } from "./rmap-btree.ts";
import type { XfsSb } from "./sb.ts";

/** Most levels of each kind of tree; 0 where there are none (kernel:
 * `m_*_maxlevels`). */
export interface XfsMaxlevels {
  /** Free space. */
  readonly alloc: number;
  /** Extents of a data fork. */
  readonly bmapData: number;
  /** Extents of an attribute fork. */
  readonly bmapAttr: number;
  /** Inodes. */
  readonly inobt: number;
  /** Reverse mappings. */
  readonly rmap: number;
  /** Reference counts. */
  readonly refcount: number;
}

/** Works them out. */
export function xfsComputeMaxlevels(sb: XfsSb): XfsMaxlevels {
  return {
    alloc: xfsAllocComputeMaxlevels(sb),
    bmapData: xfsBmapComputeMaxlevels(sb, XFS_DATA_FORK),
    bmapAttr: xfsBmapComputeMaxlevels(sb, XFS_ATTR_FORK),
    inobt: xfsIallocComputeMaxlevels(sb),
    rmap: xfsRmapbtComputeMaxlevels(sb),
    refcount: xfsRefcountbtComputeMaxlevels(sb),
  };
}
