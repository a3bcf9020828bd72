/**
 * Targets of symbolic links: in the inode where they fit, else in blocks of their own.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_symlink_remote.c.
 *
 * @module
 */

import { ENOSPC } from "../../../lib/errno.ts";
import type { XfsInode } from "../inode.ts";
import type { XfsMount } from "../mount.ts";
import {
  XFS_BMAPI_METADATA,
  xfsBmapiRead,
  xfsBmapiWrite,
  xfsBunmapi,
} from "./bmap.ts";
import type { BufTarg, XfsBuf, XfsBufOps } from "./buf.ts";
import { bytesEqual, getU64, putU64 } from "./bytes.ts";
import * as F from "./format.ts";
import { BmbtIrec, type Ifork } from "./iext.ts";
import { xfsInitLocalFork, xfsInodeForkSize } from "./inode-fork.ts";
import { XFS_ILOG_CORE, XFS_ILOG_DDATA, type XfsTrans } from "./trans.ts";

/** Most extents of a target (kernel: `XFS_SYMLINK_MAPS`). */
const SYMLINK_MAPS = 3;

const maps = Array.from({ length: SYMLINK_MAPS }, () => new BmbtIrec());

/** Blocks of a target (kernel: `xfs_symlink_blocks`); 0 if it fits in an inode without
 * attributes.
 * @param len Bytes. */
export function xfsSymlinkBlocks(mp: XfsMount, len: number): number {
  if (len <= mp.sb.inodesize - F.DI_SIZE_V3) return 0;
  return Math.ceil(len / (mp.sb.blocksize - F.RMT_HDR_SIZE));
}

/** Blocks with part of a target (kernel: `xfs_symlink_buf_ops`). */
export const xfsSymlinkBufOps: XfsBufOps = {
  name: "xfs_symlink",
  crcOffset: F.RMT_CRC,
  verify(bp: XfsBuf, targ: BufTarg): string | null {
    const { view } = bp;
    const magic = view.getUint32(F.RMT_MAGIC);
    if (magic !== F.XFS_SYMLINK_MAGIC) return `magic ${magic}`;
    if (!bytesEqual(bp.data, F.RMT_UUID, targ.uuid, 0, 16)) return "uuid";
    const blkno = getU64(view, F.RMT_BLKNO);
    if (blkno !== bp.daddr) return `blkno ${blkno}`;
    const offset = view.getUint32(F.RMT_OFFSET);
    const bytes = view.getUint32(F.RMT_BYTES);
    if (offset + bytes >= F.XFS_SYMLINK_MAXLEN) {
      return `bytes ${offset}+${bytes}`;
    }
    if (bytes > bp.data.length - F.RMT_HDR_SIZE) return `bytes ${bytes}`;
    if (getU64(view, F.RMT_OWNER) === 0) return "owner 0";
    return null;
  },
};

/** Fills a block with part of a target, and logs it. */
function fillBlock(
  tp: XfsTrans,
  bp: XfsBuf,
  ip: XfsInode,
  offset: number,
  part: Uint8Array,
): void {
  const { view } = bp;
  bp.ops = xfsSymlinkBufOps;
  bp.data.fill(0);
  view.setUint32(F.RMT_MAGIC, F.XFS_SYMLINK_MAGIC);
  view.setUint32(F.RMT_OFFSET, offset);
  view.setUint32(F.RMT_BYTES, part.length);
  bp.data.set(ip.mount.targ.uuid, F.RMT_UUID);
  putU64(view, F.RMT_OWNER, ip.ino);
  putU64(view, F.RMT_BLKNO, bp.daddr);
  bp.data.set(part, F.RMT_HDR_SIZE);
  tp.logBuf(bp, 0, F.RMT_HDR_SIZE + part.length - 1);
}

/** A target that no longer fits in the inode moves to a block (kernel:
 * `xfs_symlink_local_to_remote`). */
export function xfsSymlinkLocalToRemote(
  tp: XfsTrans,
  bp: XfsBuf,
  ip: XfsInode,
  fork: Ifork,
): void {
  fillBlock(tp, bp, ip, 0, fork.local!);
}

/**
 * Gives a new link its target (kernel: `xfs_symlink_write_target`). The caller holds the
 * ILOCK exclusively.
 *
 * @param target At most 1023 bytes.
 * @param fsBlocks {@linkcode xfsSymlinkBlocks}.
 * @param resblks Blocks that the transaction has left.
 * @returns 0 or a negative errno.
 */
export function xfsSymlinkWriteTarget(
  tp: XfsTrans,
  ip: XfsInode,
  target: Uint8Array,
  fsBlocks: number,
  resblks: number,
): number {
  ip.size = ip.diskSize = target.length;
  if (target.length <= xfsInodeForkSize(ip, F.XFS_DATA_FORK)) {
    xfsInitLocalFork(ip, F.XFS_DATA_FORK, target);
    ip.df.format = F.XFS_DINODE_FMT_LOCAL;
    tp.logInode(ip, XFS_ILOG_CORE | XFS_ILOG_DDATA);
    return 0;
  }
  tp.logInode(ip, XFS_ILOG_CORE);
  const blocks = Math.max(1, fsBlocks);
  const flags = XFS_BMAPI_METADATA;
  const n = xfsBmapiWrite(
    tp,
    ip,
    0,
    blocks,
    flags,
    resblks,
    maps,
    SYMLINK_MAPS,
  );
  if (n < 0) return n;
  const { sb } = ip.mount;
  let at = 0;
  for (let i = 0; i < n && at < target.length; i++) {
    const { startblock, count } = maps[i]!;
    const daddr = sb.fsbToDaddr(startblock);
    const bp = tp.getBuf(daddr, count * sb.bbPerBlock, xfsSymlinkBufOps);
    const room = bp.data.length - F.RMT_HDR_SIZE;
    fillBlock(tp, bp, ip, at, target.subarray(at, at + room));
    at += room;
  }
  return at < target.length ? -ENOSPC : 0;
}

/**
 * Target of a link (kernel: `xfs_readlink`, `xfs_symlink_remote_read`).
 *
 * @returns Its bytes; -EFSCORRUPTED if length, blocks or owner cannot be; the device's
 *   errno.
 */
export function xfsSymlinkRead(ip: XfsInode): Uint8Array | number {
  const { size, mount } = ip;
  const where = `symbolic link ${ip.ino}`;
  if (size <= 0 || size >= F.XFS_SYMLINK_MAXLEN) {
    return mount.corrupt(where, `size ${size}`);
  }
  if (ip.df.format === F.XFS_DINODE_FMT_LOCAL) {
    const { local } = ip.df;
    if (local === null || local.length < size) {
      return mount.corrupt(where, `size ${size}`);
    }
    return local.slice(0, size);
  }
  return readRemote(ip, where);
}

function readRemote(ip: XfsInode, where: string): Uint8Array | number {
  const { size, mount } = ip;
  const { sb } = mount;
  const blocks = Math.ceil(size / (sb.blocksize - F.RMT_HDR_SIZE));
  const n = xfsBmapiRead(ip, 0, blocks, maps, SYMLINK_MAPS, 0);
  if (n < 0) return n;
  const target = new Uint8Array(size);
  let at = 0;
  for (let i = 0; i < n && at < size; i++) {
    const { startblock, count } = maps[i]!;
    if (startblock < 0) return mount.corrupt(where, "a hole in its target");
    const daddr = sb.fsbToDaddr(startblock);
    const bbs = count * sb.bbPerBlock;
    const bp = mount.targ.read(daddr, bbs, xfsSymlinkBufOps);
    if (typeof bp === "number") return bp;
    const bytes = bp.view.getUint32(F.RMT_BYTES);
    const owner = getU64(bp.view, F.RMT_OWNER);
    if (owner !== ip.ino) return mount.corrupt(where, `owner ${owner}`);
    const offset = bp.view.getUint32(F.RMT_OFFSET);
    if (offset !== at || bytes === 0 || at + bytes > size) {
      return mount.corrupt(where, `bytes ${offset}+${bytes}`);
    }
    target.set(bp.data.subarray(F.RMT_HDR_SIZE, F.RMT_HDR_SIZE + bytes), at);
    at += bytes;
  }
  return at < size ? mount.corrupt(where, `only ${at} bytes`) : target;
}

/**
 * Frees the blocks of a target (kernel: `xfs_symlink_remote_truncate`). The caller holds
 * the ILOCK exclusively.
 *
 * @returns 0 or a negative errno.
 */
export function xfsSymlinkRemoteTruncate(tp: XfsTrans, ip: XfsInode): number {
  const { sb, targ } = ip.mount;
  const blocks = Math.ceil(
    F.XFS_SYMLINK_MAXLEN / (sb.blocksize - F.RMT_HDR_SIZE),
  );
  const n = xfsBmapiRead(ip, 0, blocks, maps, SYMLINK_MAPS, 0);
  if (n < 0) return n;
  for (let i = 0; i < n; i++) {
    const { startblock } = maps[i]!;
    if (startblock < 0) continue;
    const bp = targ.incore(sb.fsbToDaddr(startblock));
    if (bp !== null) tp.binval(bp);
  }
  const done = xfsBunmapi(tp, ip, 0, blocks, 0, n);
  if (done < 0) return done;
  return done === 0 ? ip.mount.corrupt(`symbolic link ${ip.ino}`, "blocks") : 0;
}
