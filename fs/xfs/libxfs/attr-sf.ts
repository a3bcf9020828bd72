/**
 * Attributes in the inode: a header of 4 bytes, and entries one behind the other in no
 * order, with nothing between them.
 *
 * The attribute fork begins where the data fork ends, and takes from its room as long
 * as that is not needed.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_attr_sf.h, and the first part of
 * xfs_attr_leaf.c.
 *
 * @module
 */

import { ENODATA, ENOSPC } from "../../../lib/errno.ts";
import type { XfsInode } from "../inode.ts";
import type { XfsAttrArgs } from "./attr-leaf.ts";
import { xfsDefaultAttroffset } from "./bmap.ts";
import { xfsBmapBmdrSpace, xfsBmdrSpaceCalc } from "./bmap-btree.ts";
import { bytesEqual } from "./bytes.ts";
import * as F from "./format.ts";
import {
  xfsIdataRealloc,
  xfsIforkZapAttr,
  xfsInodeForkSize,
} from "./inode-fork.ts";
import { XFS_ILOG_ADATA, XFS_ILOG_CORE, type XfsTrans } from "./trans.ts";

/** Bytes of the header. */
export const ATTR_SF_HDR_SIZE = 4;
/** Bytes of an entry before its name. */
const ATTR_SF_ENTRY_SIZE = 3;
/** Names and values must be shorter (kernel: `XFS_ATTR_SF_ENTSIZE_MAX`). */
export const XFS_ATTR_SF_ENTSIZE_MAX = 256;
/** Flags that say in which namespace a name is (kernel: `XFS_ATTR_NSP_ONDISK_MASK`). */
export const XFS_ATTR_NSP_ONDISK_MASK: number = F.XFS_ATTR_ROOT |
  F.XFS_ATTR_SECURE | F.XFS_ATTR_PARENT;

const SF_TOTSIZE = 0;
const SF_COUNT = 2;
const ENTRY_NAMELEN = 0;
const ENTRY_VALUELEN = 1;
const ENTRY_FLAGS = 2;
/** Units of 8 bytes of the data fork that holds a device number. */
const FORKOFF_DEV = 1;
/** Children of the smallest root of a data fork's tree (kernel: `MINDBTPTRS`). */
const MINDBTPTRS = 3;
/** The same of an attribute fork's (kernel: `MINABTPTRS`). */
const MINABTPTRS = 2;

/** Whether a name is in at most one namespace (kernel: `xfs_attr_check_namespace`). */
export function xfsAttrCheckNamespace(flags: number): boolean {
  const spaces = flags & XFS_ATTR_NSP_ONDISK_MASK;
  return (spaces & (spaces - 1)) === 0;
}

/** Bytes of an entry (kernel: `xfs_attr_sf_entsize_byname`). */
export function xfsAttrSfEntsizeByname(
  namelen: number,
  valuelen: number,
): number {
  return ATTR_SF_ENTRY_SIZE + namelen + valuelen;
}

// ---- fields ----

/** Bytes of an entry (kernel: `xfs_attr_sf_entsize`). */
function sfEntsize(data: Uint8Array, at: number): number {
  return xfsAttrSfEntsizeByname(sfNamelen(data, at), sfValuelen(data, at));
}

/** Bytes of an entry's name. */
function sfNamelen(data: Uint8Array, at: number): number {
  return data[at + ENTRY_NAMELEN]!;
}

function sfValuelen(data: Uint8Array, at: number): number {
  return data[at + ENTRY_VALUELEN]!;
}

/** Namespace of an entry. */
export function sfFlags(data: Uint8Array, at: number): number {
  return data[at + ENTRY_FLAGS]!;
}

/** Name of an entry, in place. */
export function sfName(data: Uint8Array, at: number): Uint8Array {
  const from = at + ATTR_SF_ENTRY_SIZE;
  return data.subarray(from, from + sfNamelen(data, at));
}

/** Value of an entry, in place. */
export function sfValue(data: Uint8Array, at: number): Uint8Array {
  const from = at + ATTR_SF_ENTRY_SIZE + sfNamelen(data, at);
  return data.subarray(from, from + sfValuelen(data, at));
}

/** Byte of the entry behind another (kernel: `xfs_attr_sf_nextentry`). */
export function sfNext(data: Uint8Array, at: number): number {
  return at + sfEntsize(data, at);
}

function setHeader(data: Uint8Array, count: number): void {
  data[SF_TOTSIZE] = data.length >>> 8;
  data[SF_TOTSIZE + 1] = data.length;
  data[SF_COUNT] = count;
}

/**
 * Checks a fork read from disk (kernel: `xfs_attr_shortform_verify`).
 *
 * @param data As long as its own length says.
 * @returns null, or the check that failed with the value.
 */
export function xfsAttrShortformVerify(data: Uint8Array): string | null {
  if (data.length < ATTR_SF_HDR_SIZE) return `totsize ${data.length}`;
  let at = ATTR_SF_HDR_SIZE;
  for (let i = 0; i < data[SF_COUNT]!; i++) {
    if (at + ATTR_SF_ENTRY_SIZE >= data.length) return `entry ${i} of ${at}`;
    if (sfNamelen(data, at) === 0) return `namelen 0 of entry ${i}`;
    const flags = sfFlags(data, at);
    const known = (flags & ~XFS_ATTR_NSP_ONDISK_MASK) === 0;
    if (!known || !xfsAttrCheckNamespace(flags)) return `flags ${flags}`;
    at = sfNext(data, at);
    if (at > data.length) return `end ${at} of entry ${i}`;
  }
  return at === data.length ? null : `totsize ${data.length}, not ${at}`;
}

// ---- where the fork begins ----

/** Bytes that the data fork needs at least to stay as it is, or with an attribute fork
 * of the usual size (kernel: the middle of `xfs_attr_shortform_bytesfit`). */
function dataForkBytes(ip: XfsInode): number {
  const { df } = ip;
  switch (df.format) {
    case F.XFS_DINODE_FMT_BTREE:
      return xfsBmapBmdrSpace(df.broot!);
    case F.XFS_DINODE_FMT_EXTENTS: {
      const bytes = df.count * 16;
      // They would move to a tree anyhow: its root is all that has to fit.
      const moves = ip.forkoff === 0 && bytes > xfsDefaultAttroffset(ip);
      return moves ? xfsBmdrSpaceCalc(MINDBTPTRS) : bytes;
    }
  }
  return df.local?.length ?? 0;
}

/**
 * Whether an attribute fork of so many bytes fits into the inode (kernel:
 * `xfs_attr_shortform_bytesfit`).
 *
 * @param bytes All of the short form, header included.
 * @returns Where the fork has to begin, in units of 8 bytes; 0 if it does not fit.
 */
export function xfsAttrShortformBytesfit(ip: XfsInode, bytes: number): number {
  const litino = ip.mount.sb.inodesize - F.DI_SIZE_V3;
  if (bytes > litino) return 0;
  const offset = Math.floor((litino - bytes) / 8);
  const { format } = ip.df;
  if (format === F.XFS_DINODE_FMT_DEV) {
    return offset >= FORKOFF_DEV ? FORKOFF_DEV : 0;
  }
  if (bytes <= xfsInodeForkSize(ip, F.XFS_ATTR_FORK)) return ip.forkoff;
  if (format === F.XFS_DINODE_FMT_BTREE && ip.forkoff !== 0) {
    return offset < ip.forkoff ? 0 : ip.forkoff;
  }
  const least = xfsBmdrSpaceCalc(MINDBTPTRS);
  const min = Math.ceil(Math.max(dataForkBytes(ip), least) / 8);
  const max = Math.floor((litino - xfsBmdrSpaceCalc(MINABTPTRS)) / 8);
  if (offset >= max) return max;
  return offset >= min ? offset : 0;
}

// ---- the list ----

/** Begins a list without entries (kernel: `xfs_attr_shortform_create`). */
export function xfsAttrShortformCreate(args: XfsAttrArgs): void {
  const { dp, tp } = args;
  const fork = dp.af!;
  fork.format = F.XFS_DINODE_FMT_LOCAL;
  fork.local = null;
  setHeader(xfsIdataRealloc(dp, ATTR_SF_HDR_SIZE, F.XFS_ATTR_FORK), 0);
  tp.logInode(dp, XFS_ILOG_CORE | XFS_ILOG_ADATA);
}

/** Byte of the entry that the operation names, or -1 (kernel:
 * `xfs_attr_sf_findname`). */
export function xfsAttrSfFindname(args: XfsAttrArgs): number {
  const { name, attrFilter } = args;
  const data = args.dp.af!.local!;
  for (let at = ATTR_SF_HDR_SIZE; at < data.length; at = sfNext(data, at)) {
    const from = at + ATTR_SF_ENTRY_SIZE;
    if (
      sfNamelen(data, at) === name.length && sfFlags(data, at) === attrFilter &&
      bytesEqual(data, from, name, 0, name.length)
    ) return at;
  }
  return -1;
}

/** Adds the operation's name and value, for which there is room (kernel:
 * `xfs_attr_shortform_add`).
 * @param forkoff Where the fork begins then. */
export function xfsAttrShortformAdd(args: XfsAttrArgs, forkoff: number): void {
  const { dp, tp, name } = args;
  const value = args.value!;
  dp.forkoff = forkoff;
  const at = dp.af!.local!.length;
  const size = xfsAttrSfEntsizeByname(name.length, value.length);
  const data = xfsIdataRealloc(dp, size, F.XFS_ATTR_FORK);
  data[at + ENTRY_NAMELEN] = name.length;
  data[at + ENTRY_VALUELEN] = value.length;
  data[at + ENTRY_FLAGS] = args.attrFilter;
  data.set(name, at + ATTR_SF_ENTRY_SIZE);
  data.set(value, at + ATTR_SF_ENTRY_SIZE + name.length);
  setHeader(data, data[SF_COUNT]! + 1);
  tp.logInode(dp, XFS_ILOG_CORE | XFS_ILOG_ADATA);
}

/**
 * Adds the operation's name and value, in place of the old one if there is one (kernel:
 * `xfs_attr_shortform_addname`).
 *
 * @returns 0; -ENOSPC if it does not fit: then the old one has gone all the same.
 */
export function xfsAttrShortformAddname(args: XfsAttrArgs): number {
  const { dp, name } = args;
  const value = args.value!;
  if (args.replace) {
    const error = xfsAttrSfRemovename(args);
    if (error < 0) return error;
    args.replace = false;
  }
  const max = XFS_ATTR_SF_ENTSIZE_MAX;
  if (name.length >= max || value.length >= max) return -ENOSPC;
  const size = dp.af!.local!.length +
    xfsAttrSfEntsizeByname(name.length, value.length);
  const forkoff = xfsAttrShortformBytesfit(dp, size);
  if (forkoff === 0) return -ENOSPC;
  xfsAttrShortformAdd(args, forkoff);
  return 0;
}

/** The inode has no attribute fork any more: its room is the data fork's (kernel:
 * `xfs_attr_fork_remove`). */
export function xfsAttrForkRemove(ip: XfsInode, tp: XfsTrans): void {
  xfsIforkZapAttr(ip);
  ip.forkoff = 0;
  tp.logInode(ip, XFS_ILOG_CORE);
}

/**
 * Removes the operation's name; the fork with the last one, unless a new value follows
 * (kernel: `xfs_attr_sf_removename`).
 *
 * @returns 0 or -ENODATA.
 */
export function xfsAttrSfRemovename(args: XfsAttrArgs): number {
  const { dp, tp } = args;
  const at = xfsAttrSfFindname(args);
  if (at < 0) return -ENODATA;
  const old = dp.af!.local!;
  const size = sfEntsize(old, at);
  const last = old.length - size === ATTR_SF_HDR_SIZE;
  if (last && dp.df.format !== F.XFS_DINODE_FMT_BTREE && !args.replace) {
    xfsAttrForkRemove(dp, tp);
    return 0;
  }
  old.copyWithin(at, at + size);
  const data = xfsIdataRealloc(dp, -size, F.XFS_ATTR_FORK);
  setHeader(data, data[SF_COUNT]! - 1);
  dp.forkoff = xfsAttrShortformBytesfit(dp, data.length);
  tp.logInode(dp, XFS_ILOG_CORE | XFS_ILOG_ADATA);
  return 0;
}
