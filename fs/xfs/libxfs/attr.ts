/**
 * Extended attributes of an inode: a value by its name, setting and removing it, all
 * names.
 *
 * Attributes are in the inode as long as they fit, then in a leaf, then in leaves under
 * nodes. A change takes several transactions, which follow each other as deferred work:
 * adding the entry, writing a remote value, letting the new entry count instead of the
 * old one, freeing the old value, removing the old entry. Between any two of them a
 * look-up finds the old value or the new one.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_attr.c, fs/xfs/xfs_attr_list.c,
 * xfs_attr_inactive.c.
 *
 * @module
 */

import { E2BIG, EEXIST, EIO, ENODATA, ENOSPC } from "../../../lib/errno.ts";
import { currentTime } from "../../inode.ts";
import { ilockExcl, ilockShared, type XfsInode } from "../inode.ts";
import type { XfsMount } from "../mount.ts";
import {
  attrLeafFlags,
  attrLeafName,
  attrLeafOps,
  XFS_XATTR_SIZE_MAX,
  xfsAttr3LeafAdd,
  xfsAttr3LeafClearflag,
  xfsAttr3LeafGetvalue,
  xfsAttr3LeafRead,
  xfsAttr3LeafRemove,
  xfsAttr3LeafSetflag,
  xfsAttr3LeafToNode,
  xfsAttr3LeafToShortform,
  XfsAttrArgs,
  xfsAttrLeafIsLocal,
  xfsAttrLeafNewentsize,
  xfsAttrShortformAllfit,
  xfsAttrShortformToLeaf,
} from "./attr-leaf.ts";
import {
  xfsAttr3RmtBlocks,
  xfsAttrRmtvalAlloc,
  xfsAttrRmtvalGet,
  xfsAttrRmtvalInvalidate,
  xfsAttrRmtvalRemove,
  xfsAttrRmtvalSetValue,
} from "./attr-remote.ts";
import {
  ATTR_SF_HDR_SIZE,
  sfFlags,
  sfName,
  sfNext,
  sfValue,
  XFS_ATTR_NSP_ONDISK_MASK,
  xfsAttrForkRemove,
  xfsAttrSfEntsizeByname,
  xfsAttrSfFindname,
  xfsAttrSfRemovename,
  xfsAttrShortformAddname,
  xfsAttrShortformCreate,
} from "./attr-sf.ts";
import {
  XFS_BMAPI_ATTRFORK,
  xfsBunmapiRange,
  xfsIreadExtents,
} from "./bmap.ts";
import { xfsBmapAddAttrfork } from "./bmap-attrfork.ts";
import type { XfsBuf } from "./buf.ts";
import {
  daBack,
  daCorrupt,
  daCount,
  daDescend,
  daForw,
  xfsDa3Fixhashpath,
  xfsDa3Join,
  xfsDa3NodeLookupInt,
  xfsDa3Split,
  XfsDaState,
} from "./da-btree.ts";
import { type DeferOp, type DeferOpType, xfsDeferAdd } from "./defer.ts";
import * as F from "./format.ts";
import { BmbtIrec, IextCursor } from "./iext.ts";
import { xfsIextCountExtend } from "./inode-fork.ts";
import {
  XFS_ILOG_CORE,
  XFS_TRANS_RESERVE,
  type XfsTrans,
  xfsTransAlloc,
} from "./trans.ts";
import {
  xfsAddaforkSpaceRes,
  xfsAttrrmSpaceRes,
  xfsDaenterSpaceRes,
  xfsNextentaddSpaceRes,
} from "./trans-space.ts";

/** One attribute of a list (kernel: the arguments of `put_listent`). */
export interface XfsAttrEntry {
  /** 1 to 255 bytes, without prefix. */
  name: Uint8Array;
  /** Namespace: `XFS_ATTR_ROOT`, `XFS_ATTR_SECURE`, `XFS_ATTR_PARENT` or 0 for user. */
  flags: number;
}

// ---- forms ----

/** Whether an inode can have attributes (kernel: `xfs_inode_hasattr`). */
function hasAttr(ip: XfsInode): boolean {
  const { af } = ip;
  if (af === null) return false;
  return af.format !== F.XFS_DINODE_FMT_EXTENTS || af.nextents > 0;
}

/** Whether they are in the inode (kernel: `xfs_attr_is_shortform`). */
function isShortform(ip: XfsInode): boolean {
  return ip.af!.format === F.XFS_DINODE_FMT_LOCAL || !hasAttr(ip);
}

const cur = new IextCursor();
const rec = new BmbtIrec();

/** Whether they are in one leaf, without any remote value (kernel:
 * `xfs_attr_is_leaf`). */
function isLeaf(ip: XfsInode): boolean {
  const fork = ip.af!;
  if (fork.format !== F.XFS_DINODE_FMT_EXTENTS || fork.nextents !== 1) {
    return false;
  }
  return fork.first(cur, rec) && rec.startoff === 0 && rec.count === 1;
}

// ---- getting ----

/**
 * Value of an attribute (kernel: `xfs_attr_get`). Takes the ILOCK.
 *
 * @param name Without prefix.
 * @param flags Namespace: `XFS_ATTR_ROOT`, `XFS_ATTR_SECURE` or 0 for user.
 * @returns A copy; -ENODATA if there is none; -EFSCORRUPTED; -EIO if the file
 *   system is shut down, or an errno of the device.
 */
export function xfsAttrGet(
  ip: XfsInode,
  name: Uint8Array,
  flags: number,
): Uint8Array | number {
  if (ip.mount.dead) return -EIO;
  lockMap(ip);
  const value = getIlocked(new XfsAttrArgs(ip, null, name, flags, null));
  unlockMap(ip);
  return value;
}

/** Takes the ILOCK for reading attributes: exclusively if their map is still to be read
 * (kernel: `xfs_ilock_attr_map_shared`). */
function lockMap(ip: XfsInode): void {
  if (ip.af === null || ip.af.loaded) ilockShared(ip);
  else {
    ilockExcl(ip);
    xfsIreadExtents(null, ip, F.XFS_ATTR_FORK);
    ip.ilock.downgradeWrite();
  }
}

function unlockMap(ip: XfsInode): void {
  ip.ilock.upRead();
}

/** Kernel: `xfs_attr_get_ilocked`. */
function getIlocked(args: XfsAttrArgs): Uint8Array | number {
  const { dp } = args;
  if (!hasAttr(dp)) return -ENODATA;
  if (isShortform(dp)) {
    const at = xfsAttrSfFindname(args);
    return at < 0 ? -ENODATA : sfValue(dp.af!.local!, at).slice();
  }
  const state = new XfsDaState(args, attrLeafOps);
  const ret = xfsDa3NodeLookupInt(state);
  if (ret !== -EEXIST) return ret;
  if (args.rmtvaluelen > 0) return xfsAttrRmtvalGet(args);
  return xfsAttr3LeafGetvalue(state.path.last.bp!, args);
}

// ---- listing ----

/**
 * Names of all attributes (kernel: `xfs_attr_list`). Takes the ILOCK.
 *
 * @returns They, in no order; -EFSCORRUPTED; -EIO if the file system is shut
 *   down, or an errno of the device.
 */
export function xfsAttrList(ip: XfsInode): XfsAttrEntry[] | number {
  if (ip.mount.dead) return -EIO;
  lockMap(ip);
  const list: XfsAttrEntry[] = [];
  const error = listIlocked(ip, list);
  unlockMap(ip);
  return error < 0 ? error : list;
}

/** Kernel: `xfs_attr_list_ilocked`. */
function listIlocked(ip: XfsInode, list: XfsAttrEntry[]): number {
  if (!hasAttr(ip)) return 0;
  if (!isShortform(ip)) return listLeaves(ip, list);
  const data = ip.af!.local!;
  for (let at = ATTR_SF_HDR_SIZE; at < data.length; at = sfNext(data, at)) {
    list.push({ name: sfName(data, at).slice(), flags: sfFlags(data, at) });
  }
  return 0;
}

/** Kernel: `xfs_attr_node_list`. */
function listLeaves(ip: XfsInode, list: XfsAttrEntry[]): number {
  const empty = new Uint8Array(0);
  const args = new XfsAttrArgs(ip, null, empty, 0, null);
  const state = new XfsDaState(args, attrLeafOps);
  const error = daDescend(state);
  if (error < 0) return error;
  let { bp, blkno } = state.path.last;
  for (let last = 0;;) {
    // So no leaf comes twice.
    const back = daBack(bp!);
    if (back !== last) return daCorrupt(ip, blkno, `back ${back}, not ${last}`);
    listLeaf(bp!, list);
    last = blkno;
    blkno = daForw(bp!);
    if (blkno === 0) return 0;
    const next = xfsAttr3LeafRead(null, ip, blkno);
    if (typeof next === "number") return next;
    bp = next;
  }
}

/** Kernel: `xfs_attr3_leaf_list_int`. */
function listLeaf(bp: XfsBuf, list: XfsAttrEntry[]): void {
  for (let i = 0; i < daCount(bp); i++) {
    const flags = attrLeafFlags(bp.view, i);
    if ((flags & F.XFS_ATTR_INCOMPLETE) !== 0) continue;
    const space = flags & XFS_ATTR_NSP_ONDISK_MASK;
    list.push({ name: attrLeafName(bp, i).slice(), flags: space });
  }
}

// ---- a change, step by step ----

// What is to be done next (kernel: enum xfs_delattr_state).
const SF_ADD = 0;
const SF_REMOVE = 1;
const LEAF_REMOVE = 2;
const ADD = 3;
const SET_RMT = 4;
const REPLACE = 5;
const REMOVE = 6;
const REMOVE_OLD_RMT = 7;
const REMOVE_RMT = 8;
const REMOVE_ATTR = 9;

/** A change that is going on (kernel: `struct xfs_attr_intent`). */
class AttrIntent implements DeferOp {
  readonly type = xfsAttrDeferType;
  readonly args: XfsAttrArgs;
  /** What is to be done next. */
  next: number;
  /** Path to the entry that is being removed. */
  #old: XfsDaState<XfsAttrArgs> | null = null;
  /** Its remote value. */
  #rmtblkno = 0;
  #rmtvaluelen = 0;

  constructor(args: XfsAttrArgs, next: number) {
    this.args = args;
    this.next = next;
  }

  /** Does the next step (kernel: `xfs_attr_set_iter`).
   * @returns 0 if that was all; 1 if there is more to do, in another transaction; a
   *   negative errno. */
  step(): number {
    switch (this.next) {
      case SF_ADD:
        return this.#sfAdd();
      case SF_REMOVE:
        return xfsAttrSfRemovename(this.args);
      case LEAF_REMOVE:
        return this.#findOld() || this.#removeAttr();
      case ADD:
        return this.#add();
      case SET_RMT:
        return this.#setRmt();
      case REPLACE:
        return this.#flipFlags();
      case REMOVE:
        return this.#beginRemove();
      case REMOVE_OLD_RMT:
        return this.#invalidateRmt() || this.#removeRmt();
      case REMOVE_RMT:
        return this.#removeRmt();
    }
    return this.#removeAttr();
  }

  /** Goes on with the next step in another transaction. */
  #goOn(next: number): number {
    this.next = next;
    return 1;
  }

  /** Kernel: `xfs_attr_sf_addname`. */
  #sfAdd(): number {
    const { args } = this;
    const { af } = args.dp;
    if (af!.format === F.XFS_DINODE_FMT_EXTENTS) xfsAttrShortformCreate(args);
    const added = xfsAttrShortformAddname(args);
    if (added !== -ENOSPC) return added;
    return xfsAttrShortformToLeaf(args) || this.#goOn(ADD);
  }

  /** Enters the new name (kernel: `xfs_attr_leaf_addname`, `xfs_attr_node_addname`). */
  #add(): number {
    const { args } = this;
    const state = new XfsDaState(args, attrLeafOps);
    const found = xfsDa3NodeLookupInt(state);
    if (found !== (args.replace ? -EEXIST : -ENODATA)) {
      return found === -EEXIST || found === -ENODATA
        ? daCorrupt(args.dp, args.blkno, "a name came or went")
        : found;
    }
    const { path } = state;
    let error = xfsAttr3LeafAdd(path.last.bp!, args);
    if (error === -ENOSPC) {
      if (path.active === 1) return xfsAttr3LeafToNode(args) || this.#goOn(ADD);
      error = xfsDa3Split(state);
    } else xfsDa3Fixhashpath(state, path);
    if (error < 0) return error;
    if (args.rmtvaluelen > 0) return this.#goOn(SET_RMT);
    return args.replace ? this.#goOn(REPLACE) : 0;
  }

  /** Kernel: `xfs_attr_rmtval_find_space`, `xfs_attr_rmtval_alloc`. */
  #setRmt(): number {
    const { args } = this;
    const error = xfsAttrRmtvalAlloc(args) || xfsAttrRmtvalSetValue(args);
    if (error < 0) return error;
    return args.replace ? this.#flipFlags() : xfsAttr3LeafClearflag(args);
  }

  /** From now on the new entry counts, and not the old one (kernel:
   * `xfs_attr3_leaf_flipflags`). */
  #flipFlags(): number {
    const error = this.#findOld() || xfsAttr3LeafClearflag(this.args);
    return error < 0 ? error : this.#markOld();
  }

  /** Kernel: `xfs_attr_node_removename_setup`. */
  #beginRemove(): number {
    const error = this.#findOld();
    return error < 0 ? error : this.#markOld();
  }

  /** Finds the entry that is to go; 0 or a negative errno. */
  #findOld(): number {
    const { dp, trans, name, attrFilter } = this.args;
    const args = new XfsAttrArgs(dp, trans, name, attrFilter, null);
    const state = new XfsDaState(args, attrLeafOps);
    const found = xfsDa3NodeLookupInt(state);
    if (found === -ENODATA) return daCorrupt(dp, args.blkno, "a name went");
    if (found !== -EEXIST) return found;
    this.#old = state;
    this.#rmtblkno = args.rmtblkno;
    this.#rmtvaluelen = args.rmtvaluelen;
    return 0;
  }

  /** The old entry does not count any more, and goes next. */
  #markOld(): number {
    const { bp, index } = this.#old!.path.last;
    xfsAttr3LeafSetflag(this.args, bp!, index);
    return this.#goOn(this.#rmtvaluelen > 0 ? REMOVE_OLD_RMT : REMOVE_ATTR);
  }

  #invalidateRmt(): number {
    const { dp } = this.args;
    return xfsAttrRmtvalInvalidate(dp, this.#rmtblkno, this.#rmtvaluelen);
  }

  /** Kernel: `xfs_attr_rmtval_remove`. */
  #removeRmt(): number {
    const { tp, dp } = this.args;
    const bno = this.#rmtblkno;
    const more = xfsAttrRmtvalRemove(tp, dp, bno, this.#rmtvaluelen);
    if (more < 0) return more;
    return this.#goOn(more === 1 ? REMOVE_RMT : REMOVE_ATTR);
  }

  /** Removes the old entry; everything goes into the inode if it fits then (kernel:
   * `xfs_attr_leaf_removename`, `xfs_attr_node_remove_attr`, `xfs_attr_leaf_shrink`). */
  #removeAttr(): number {
    const state = this.#old!;
    const { args, path } = state;
    xfsAttr3LeafRemove(path.last.bp!, args);
    xfsDa3Fixhashpath(state, path);
    // However full the leaf is: as with the kernel, half is what counts, not 37 %.
    if (path.active > 1) {
      const error = xfsDa3Join(state);
      if (error < 0) return error;
    }
    if (!isLeaf(args.dp)) return 0;
    const bp = xfsAttr3LeafRead(args.tp, args.dp, 0);
    if (typeof bp === "number") return bp;
    const forkoff = xfsAttrShortformAllfit(bp, args.dp);
    return forkoff === 0 ? 0 : xfsAttr3LeafToShortform(bp, args, forkoff);
  }
}

/** Changes of attributes; nothing of them is noted in a log (kernel:
 * `xfs_attr_defer_type`). */
export const xfsAttrDeferType: DeferOpType = {
  name: "attr",
  maxItems: 1,
  diffItems: () => 0,
  finish: (_tp, op) => (op as AttrIntent).step(),
};

// ---- setting ----

/** Blocks that setting the operation's value may need (kernel: `xfs_attr_calc_size`). */
function calcSize(args: XfsAttrArgs): number {
  const mp = args.dp.mount;
  const blocks = xfsDaenterSpaceRes(mp, F.XFS_ATTR_FORK);
  if (!xfsAttrLeafIsLocal(args)) {
    const more = xfsAttr3RmtBlocks(mp, args.value!.length);
    return blocks + more + xfsNextentaddSpaceRes(mp, more, F.XFS_ATTR_FORK);
  }
  // It may need a leaf of its own: two splits.
  const double = xfsAttrLeafNewentsize(args) > args.geo.blksize >>> 1;
  return double ? 2 * blocks : blocks;
}

/** Extents that a change may add to the fork (kernel: `XFS_IEXT_ATTR_MANIP_CNT`). */
function manipCnt(mp: XfsMount, args: XfsAttrArgs): number {
  let blocks = 0;
  if (args.value === null) blocks = xfsAttr3RmtBlocks(mp, XFS_XATTR_SIZE_MAX);
  else if (!xfsAttrLeafIsLocal(args)) {
    blocks = xfsAttr3RmtBlocks(mp, args.value.length);
  }
  return F.XFS_DA_NODE_MAXDEPTH + Math.max(1, blocks);
}

/** Gives an inode an attribute fork (kernel: `xfs_attr_add_fork`).
 * @param size Bytes that the first attribute needs in the inode. */
function addFork(ip: XfsInode, size: number, flags: number): number {
  const tp = xfsTransAlloc(ip.mount, xfsAddaforkSpaceRes(ip.mount), flags);
  if (typeof tp === "number") return tp;
  ilockExcl(ip);
  let error = xfsBmapAddAttrfork(tp, ip, size);
  if (error < 0) tp.cancel();
  else error = tp.commit();
  ip.ilock.upWrite();
  return error;
}

/**
 * Sets an attribute, or removes it (kernel: `xfs_attr_set`). Takes the ILOCK.
 *
 * @param name 1 to 255 bytes, without prefix.
 * @param flags Namespace: `XFS_ATTR_ROOT`, `XFS_ATTR_SECURE` or 0 for user.
 * @param value null removes it.
 * @param create It must not be there.
 * @param replace It must be there.
 * @returns 0; -EEXIST as `create` asks; -ENODATA as `replace` asks, or if there is
 *   nothing to remove; -E2BIG for more than 64 KiB; -EFBIG if the fork has too many
 *   extents; -ENOSPC; -EFSCORRUPTED; -EIO if the file system is shut down,
 *   or an errno of the device.
 */
export function xfsAttrSet(
  ip: XfsInode,
  name: Uint8Array,
  flags: number,
  value: Uint8Array | null,
  create: boolean,
  replace: boolean,
): number {
  const { mount } = ip;
  if (mount.dead) return -EIO;
  if (value !== null && value.length > XFS_XATTR_SIZE_MAX) return -E2BIG;
  const rsvd = (flags & F.XFS_ATTR_ROOT) !== 0 ? XFS_TRANS_RESERVE : 0;
  const args = new XfsAttrArgs(ip, null, name, flags, value);
  if (value !== null) {
    args.total = calcSize(args);
    if (ip.af === null) {
      const size = xfsAttrSfEntsizeByname(name.length, value.length);
      const error = addFork(ip, ATTR_SF_HDR_SIZE + size, rsvd);
      if (error < 0) return error;
    }
  }
  const blocks = value === null ? xfsAttrrmSpaceRes(mount) : args.total;
  const tp = xfsTransAlloc(mount, blocks, rsvd);
  if (typeof tp === "number") return tp;
  args.trans = tp;
  ilockExcl(ip);
  let error = beginSet(args, create, replace);
  if (error < 0) tp.cancel();
  else error = tp.commit();
  ip.ilock.upWrite();
  return error;
}

/** Looks whether the change can be made, and leaves it as deferred work; 0 or a negative
 * errno. */
function beginSet(
  args: XfsAttrArgs,
  create: boolean,
  replace: boolean,
): number {
  const { tp, dp } = args;
  const found = getIndex(args);
  if (found !== -EEXIST && found !== -ENODATA) return found;
  const there = found === -EEXIST;
  if (there && create) return -EEXIST;
  if (!there && (replace || args.value === null)) return -ENODATA;
  const more = manipCnt(dp.mount, args);
  const error = xfsIextCountExtend(tp, dp, F.XFS_ATTR_FORK, more);
  if (error < 0) return error;
  args.replace = there && args.value !== null;
  xfsDeferAdd(tp, new AttrIntent(args, firstStep(args)));
  dp.ctime = currentTime(dp.mount);
  tp.logInode(dp, XFS_ILOG_CORE);
  return 0;
}

/** Whether the name is there (kernel: `xfs_attr_lookup`): -EEXIST, -ENODATA or another
 * negative errno. */
function getIndex(args: XfsAttrArgs): number {
  const { dp } = args;
  if (!hasAttr(dp)) return -ENODATA;
  if (isShortform(dp)) return xfsAttrSfFindname(args) < 0 ? -ENODATA : -EEXIST;
  return xfsDa3NodeLookupInt(new XfsDaState(args, attrLeafOps));
}

/** Kernel: `xfs_attr_init_add_state`, `xfs_attr_init_remove_state`. */
function firstStep({ dp, value }: XfsAttrArgs): number {
  if (isShortform(dp)) return value === null ? SF_REMOVE : SF_ADD;
  if (value !== null) return ADD;
  return isLeaf(dp) ? LEAF_REMOVE : REMOVE;
}

// ---- an inode is being freed ----

/**
 * Frees all attributes of an inode that has no name any more, and their fork (kernel:
 * `xfs_attr_inactive`). Takes the ILOCK.
 *
 * @returns 0; -EFSCORRUPTED; -EIO if the file system is shut down, or an errno of the
 *   device.
 */
export function xfsAttrInactive(ip: XfsInode): number {
  if (ip.af === null) return 0;
  const tp = xfsTransAlloc(ip.mount, 0);
  if (typeof tp === "number") return tp;
  ilockExcl(ip);
  let error = ip.af.nextents > 0 ? freeBlocks(tp, ip) : 0;
  if (error < 0) tp.cancel();
  else {
    xfsAttrForkRemove(ip, tp);
    error = tp.commit();
  }
  ip.ilock.upWrite();
  return error;
}

/** Frees all blocks of the fork. Where they lie is all that has to be known: the tree in
 * them is not read any more. */
function freeBlocks(tp: XfsTrans, ip: XfsInode): number {
  const error = xfsIreadExtents(tp, ip, F.XFS_ATTR_FORK);
  if (error < 0) return error;
  const { sb, targ } = ip.mount;
  const fork = ip.af!;
  for (let more = fork.first(cur, rec); more; more = fork.next(cur, rec)) {
    for (let i = 0; i < rec.count; i++) {
      const bp = targ.incore(sb.fsbToDaddr(rec.startblock + i));
      if (bp !== null) tp.binval(bp);
    }
  }
  return xfsBunmapiRange(tp, ip, XFS_BMAPI_ATTRFORK, 0, Infinity);
}
