/**
 * Values of attributes that are too long for a leaf: blocks of the attribute fork, each
 * with a header of its own.
 *
 * No transaction logs these blocks. The entry in the leaf is INCOMPLETE until they are
 * written, and is made so before they are freed.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_attr_remote.c.
 *
 * @module
 */

import { ENOSPC } from "../../../lib/errno.ts";
import type { XfsInode } from "../inode.ts";
import type { XfsMount } from "../mount.ts";
import { XFS_XATTR_SIZE_MAX, type XfsAttrArgs } from "./attr-leaf.ts";
import {
  XFS_BMAPI_ATTRFORK,
  xfsBmapFirstUnused,
  xfsBmapiRead,
  xfsBmapiWrite,
  xfsBunmapi,
} from "./bmap.ts";
import type { BufTarg, XfsBuf, XfsBufOps } from "./buf.ts";
import { bytesEqual, getU64, putU64 } from "./bytes.ts";
import * as F from "./format.ts";
import { BmbtIrec } from "./iext.ts";
import type { XfsTrans } from "./trans.ts";

/** LSN of what is not logged (kernel: `NULLCOMMITLSN`). */
const NULLCOMMITLSN = -1;

/** Bytes of a value in one block (kernel: `XFS_ATTR3_RMT_BUF_SPACE`). */
function rmtBufSpace(mp: XfsMount): number {
  return mp.sb.blocksize - F.RMT_HDR_SIZE;
}

/** Blocks of a value (kernel: `xfs_attr3_rmt_blocks`).
 * @param valuelen Bytes. */
export function xfsAttr3RmtBlocks(mp: XfsMount, valuelen: number): number {
  return Math.ceil(valuelen / rmtBufSpace(mp));
}

function rmtVerify(bp: XfsBuf, targ: BufTarg): string | null {
  const { view } = bp;
  const magic = view.getUint32(F.RMT_MAGIC);
  if (magic !== F.XFS_ATTR3_RMT_MAGIC) return `magic ${magic}`;
  if (!bytesEqual(bp.data, F.RMT_UUID, targ.uuid, 0, 16)) return "uuid";
  const blkno = getU64(view, F.RMT_BLKNO);
  if (blkno !== bp.daddr) return `blkno ${blkno}`;
  const offset = view.getUint32(F.RMT_OFFSET);
  const bytes = view.getUint32(F.RMT_BYTES);
  if (
    bytes > bp.data.length - F.RMT_HDR_SIZE ||
    offset + bytes > XFS_XATTR_SIZE_MAX
  ) return `bytes ${offset}+${bytes}`;
  return getU64(view, F.RMT_OWNER) === 0 ? "owner 0" : null;
}

/** One block of a value (kernel: `xfs_attr3_rmt_buf_ops`). */
export const xfsAttr3RmtBufOps: XfsBufOps = {
  name: "xfs_attr3_rmt",
  crcOffset: F.RMT_CRC,
  verify: rmtVerify,
};

// ---- the blocks of a value ----

const maps = [new BmbtIrec()];

/**
 * Where a block of a value lies.
 *
 * @returns Its first basic block; -EFSCORRUPTED if it is not mapped; the errno of reading
 *   the map.
 */
function rmtDaddr(dp: XfsInode, bno: number): number {
  const n = xfsBmapiRead(dp, bno, 1, maps, 1, XFS_BMAPI_ATTRFORK);
  if (n < 0) return n;
  const { startblock } = maps[0]!;
  if (startblock >= 0) return dp.mount.sb.fsbToDaddr(startblock);
  return corrupt(dp, bno, "is not mapped");
}

function corrupt(dp: XfsInode, bno: number, why: string): number {
  const where = `inode ${dp.ino}, value in block ${bno} of its attributes`;
  return dp.mount.corrupt(where, why);
}

/** Checks whose block it is, and of what (kernel: `xfs_attr3_rmt_hdr_ok`); null, or what
 * is wrong. */
function rmtHdrBad(
  bp: XfsBuf,
  dp: XfsInode,
  offset: number,
  bytes: number,
): string | null {
  const owner = getU64(bp.view, F.RMT_OWNER);
  if (owner !== dp.ino) return `owner ${owner}`;
  const at = bp.view.getUint32(F.RMT_OFFSET);
  const n = bp.view.getUint32(F.RMT_BYTES);
  return at === offset && n === bytes ? null : `bytes ${at}+${n}`;
}

/**
 * Reads the value that a look-up found (kernel: `xfs_attr_rmtval_get`).
 *
 * @returns It; -EFSCORRUPTED if its blocks are not what they must be; an
 *   errno of the device.
 */
export function xfsAttrRmtvalGet(args: XfsAttrArgs): Uint8Array | number {
  const { dp, rmtblkno, rmtvaluelen } = args;
  const { sb, targ } = dp.mount;
  const space = rmtBufSpace(dp.mount);
  const value = new Uint8Array(rmtvaluelen);
  let bno = rmtblkno;
  for (let at = 0; at < rmtvaluelen; at += space, bno++) {
    const daddr = rmtDaddr(dp, bno);
    if (daddr < 0) return daddr;
    const bp = targ.read(daddr, sb.bbPerBlock, xfsAttr3RmtBufOps);
    if (typeof bp === "number") return bp;
    const bytes = Math.min(space, rmtvaluelen - at);
    const why = rmtHdrBad(bp, dp, at, bytes);
    if (why !== null) return corrupt(dp, bno, why);
    value.set(bp.data.subarray(F.RMT_HDR_SIZE, F.RMT_HDR_SIZE + bytes), at);
  }
  return value;
}

/**
 * Allocates blocks for the operation's value (kernel: `xfs_attr_rmtval_find_space`,
 * `xfs_attr_rmtval_set_blk`). `rmtblkno` is where they begin.
 *
 * @returns 0; -ENOSPC; -EFSCORRUPTED or an errno of the device.
 */
export function xfsAttrRmtvalAlloc(args: XfsAttrArgs): number {
  const { tp, dp, total } = args;
  const blocks = xfsAttr3RmtBlocks(dp.mount, args.rmtvaluelen);
  const first = xfsBmapFirstUnused(tp, dp, blocks, 0, F.XFS_ATTR_FORK);
  if (first < 0) return first;
  args.rmtblkno = first;
  const end = first + blocks;
  const flags = XFS_BMAPI_ATTRFORK;
  for (let bno = first; bno < end; bno = maps[0]!.endoff) {
    const n = xfsBmapiWrite(tp, dp, bno, end - bno, flags, total, maps, 1);
    if (n < 0) return n;
    if (n === 0) return -ENOSPC;
  }
  return 0;
}

/** Writes the operation's value into its blocks (kernel: `xfs_attr_rmtval_set_value`); 0
 * or a negative errno. */
export function xfsAttrRmtvalSetValue(args: XfsAttrArgs): number {
  const { tp, dp } = args;
  const { sb, targ } = dp.mount;
  const value = args.value!;
  const space = rmtBufSpace(dp.mount);
  let bno = args.rmtblkno;
  for (let at = 0; at < value.length; at += space, bno++) {
    const daddr = rmtDaddr(dp, bno);
    if (daddr < 0) return daddr;
    const bp = tp.getBuf(daddr, sb.bbPerBlock, xfsAttr3RmtBufOps);
    fillBlock(bp, dp, at, value.subarray(at, at + space));
    targ.markDirty(bp);
  }
  return 0;
}

function fillBlock(
  bp: XfsBuf,
  dp: XfsInode,
  offset: number,
  part: Uint8Array,
): void {
  const { view, data } = bp;
  data.fill(0);
  view.setUint32(F.RMT_MAGIC, F.XFS_ATTR3_RMT_MAGIC);
  view.setUint32(F.RMT_OFFSET, offset);
  view.setUint32(F.RMT_BYTES, part.length);
  data.set(dp.mount.targ.uuid, F.RMT_UUID);
  putU64(view, F.RMT_OWNER, dp.ino);
  putU64(view, F.RMT_BLKNO, bp.daddr);
  putU64(view, F.RMT_LSN, NULLCOMMITLSN);
  data.set(part, F.RMT_HDR_SIZE);
}

/**
 * A value is about to be freed: what memory has of its blocks must not be written any
 * more (kernel: `xfs_attr_rmtval_invalidate`).
 *
 * @returns 0; -EFSCORRUPTED if they are not mapped; the errno of reading the map.
 */
export function xfsAttrRmtvalInvalidate(
  dp: XfsInode,
  rmtblkno: number,
  rmtvaluelen: number,
): number {
  const { targ } = dp.mount;
  const end = rmtblkno + xfsAttr3RmtBlocks(dp.mount, rmtvaluelen);
  for (let bno = rmtblkno; bno < end; bno++) {
    const daddr = rmtDaddr(dp, bno);
    if (daddr < 0) return daddr;
    const bp = targ.incore(daddr);
    if (bp !== null) targ.markStale(bp);
  }
  return 0;
}

/**
 * Frees one extent of a value's blocks (kernel: `xfs_attr_rmtval_remove`).
 *
 * @returns 0 if that was the last; 1 if there are more; a negative errno.
 */
export function xfsAttrRmtvalRemove(
  tp: XfsTrans,
  dp: XfsInode,
  rmtblkno: number,
  rmtvaluelen: number,
): number {
  const blocks = xfsAttr3RmtBlocks(dp.mount, rmtvaluelen);
  const flags = XFS_BMAPI_ATTRFORK;
  const done = xfsBunmapi(tp, dp, rmtblkno, blocks, flags, 1);
  if (done < 0) return done;
  return done === 1 ? 0 : 1;
}
