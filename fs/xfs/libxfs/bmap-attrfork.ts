/**
 * Giving an inode an attribute fork: the data fork gets less room, and moves out of the
 * inode if it does not fit any more.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_bmap.c (`xfs_bmap_add_attrfork`).
 *
 * @module
 */

import { EFSCORRUPTED, ENOSPC } from "../../../lib/errno.ts";
import { S_IFDIR, S_IFLNK, S_IFMT } from "../../fs.ts";
import type { XfsInode } from "../inode.ts";
import { xfsAttrShortformBytesfit } from "./attr-sf.ts";
import {
  xfsBmapExtentsToFit,
  xfsBmapLocalToExtents,
  xfsDefaultAttroffset,
} from "./bmap.ts";
import { xfsBmapBmdrSpace, xfsBmbtInitCursor } from "./bmap-btree.ts";
import {
  xfsBtreeDelCursor,
  xfsBtreeGotoFirst,
  xfsBtreeNewIroot,
} from "./btree.ts";
import { xfsDir2SfToBlock } from "./dir2-block.ts";
import { XfsDirArgs } from "./dir2-priv.ts";
import {
  XFS_DATA_FORK,
  XFS_DINODE_FMT_BTREE,
  XFS_DINODE_FMT_DEV,
  XFS_DINODE_FMT_EXTENTS,
  XFS_DINODE_FMT_LOCAL,
  XFS_SB_VERSION_ATTRBIT,
} from "./format.ts";
import { xfsIforkInitAttr, xfsInodeForkSize } from "./inode-fork.ts";
import { xfsSymlinkLocalToRemote } from "./symlink-remote.ts";
import { XFS_ILOG_CORE, type XfsTrans } from "./trans.ts";

const NO_NAME = new Uint8Array(0);

/**
 * Where the attribute fork is to begin (kernel: `xfs_bmap_set_attrforkoff`).
 *
 * @param size Bytes that the first attribute needs.
 * @returns In units of 8 bytes.
 */
function attrForkoff(ip: XfsInode, size: number): number {
  const usual = Math.floor(xfsDefaultAttroffset(ip) / 8);
  if (ip.df.format === XFS_DINODE_FMT_DEV) return usual;
  return xfsAttrShortformBytesfit(ip, size) || usual;
}

/**
 * Gives an inode an attribute fork, which it has not (kernel:
 * `xfs_bmap_add_attrfork`). The caller holds the ILOCK exclusively.
 *
 * @param tp Has blocks reserved for what may have to leave the inode.
 * @param size Bytes that the first attribute needs.
 * @returns 0; -ENOSPC; -EFSCORRUPTED or an errno of the device.
 */
export function xfsBmapAddAttrfork(
  tp: XfsTrans,
  ip: XfsInode,
  size: number,
): number {
  const forkoff = attrForkoff(ip, size);
  const error = ip.df.format === XFS_DINODE_FMT_BTREE
    ? shrinkRoot(tp, ip, forkoff)
    : 0;
  if (error < 0) return error;
  ip.forkoff = forkoff;
  xfsIforkInitAttr(ip, XFS_DINODE_FMT_EXTENTS, 0);
  tp.logInode(ip, XFS_ILOG_CORE);
  const moved = makeRoom(tp, ip);
  if (moved < 0) return moved;
  // The first attribute ever. It is in the super block when that is written next.
  ip.mount.sb.versionnum |= XFS_SB_VERSION_ATTRBIT;
  return 0;
}

/** A root with too many children for the smaller fork gets one child, which takes them
 * over (kernel: `xfs_bmap_add_attrfork_btree`). */
function shrinkRoot(tp: XfsTrans, ip: XfsInode, forkoff: number): number {
  if (xfsBmapBmdrSpace(ip.df.broot!) <= forkoff * 8) return 0;
  const cur = xfsBmbtInitCursor(ip.mount, tp, ip, XFS_DATA_FORK);
  let done = xfsBtreeGotoFirst(cur);
  if (done === 1) {
    done = xfsBtreeNewIroot(cur);
    if (done === 0) done = -ENOSPC;
  } else if (done === 0) {
    ip.mount.corrupt(`data fork of inode ${ip.ino}`, "empty tree");
    done = -EFSCORRUPTED;
  }
  xfsBtreeDelCursor(cur);
  return done < 0 ? done : 0;
}

/** What does not fit into the data fork any more leaves the inode. */
function makeRoom(tp: XfsTrans, ip: XfsInode): number {
  const { format, local } = ip.df;
  const whichfork = XFS_DATA_FORK;
  if (format === XFS_DINODE_FMT_EXTENTS) {
    return xfsBmapExtentsToFit(tp, ip, whichfork);
  }
  if (format !== XFS_DINODE_FMT_LOCAL) return 0;
  const bytes = local?.length ?? 0;
  if (bytes <= xfsInodeForkSize(ip, whichfork)) return 0;
  switch (ip.mode & S_IFMT) {
    case S_IFDIR: {
      const args = new XfsDirArgs(ip, tp, NO_NAME, 0);
      args.total = args.geo.fsbcount;
      return xfsDir2SfToBlock(args);
    }
    case S_IFLNK: {
      const init = xfsSymlinkLocalToRemote;
      return xfsBmapLocalToExtents(tp, ip, 1, whichfork, init);
    }
  }
  ip.mount.corrupt(`data fork of inode ${ip.ino}`, "local, in a file");
  return -EFSCORRUPTED;
}
