/**
 * Leaves of attributes: entries sorted by hash grow up from the header, names with their
 * values grow down from the end of the block.
 *
 * The header knows where there is space: the lowest name (`firstused`), the bytes of all
 * names (`usedbytes`), up to three free regions (`freemap`), and whether there may be
 * more (`holes`), which compacting the block would bring together.
 *
 * Of a value that is too long the leaf has only the place ("remote", see
 * `attr-remote.ts`). An entry that is INCOMPLETE is not there for anybody: its value is
 * still to be written, or being freed.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_attr_leaf.c.
 *
 * @module
 */

import { EEXIST, ENODATA, ENOSPC } from "../../../lib/errno.ts";
import type { XfsInode } from "../inode.ts";
import {
  ATTR_SF_HDR_SIZE,
  sfFlags,
  sfName,
  sfNext,
  sfValue,
  XFS_ATTR_NSP_ONDISK_MASK,
  XFS_ATTR_SF_ENTSIZE_MAX,
  xfsAttrCheckNamespace,
  xfsAttrForkRemove,
  xfsAttrSfEntsizeByname,
  xfsAttrShortformAdd,
  xfsAttrShortformBytesfit,
  xfsAttrShortformCreate,
} from "./attr-sf.ts";
import { xfsBmapLocalToExtentsEmpty } from "./bmap.ts";
import type { BufTarg, XfsBuf, XfsBufOps } from "./buf.ts";
import {
  daChooseNeighbour,
  daCorrupt,
  daCount,
  daForw,
  daInitHeader,
  type DaLeafOps,
  daNodeAppend,
  daNodeBufOps,
  daOrder,
  type DaStateBlk,
  xfsDa3BlkinfoVerify,
  xfsDa3BlkLink,
  xfsDa3NodeCreate,
  xfsDa3NodeRead,
  xfsDa3PathShift,
  XfsDaArgs,
  xfsDaCompname,
  xfsDaGetBuf,
  xfsDaGrowInode,
  xfsDaHashname,
  xfsDaShrinkInode,
  type XfsDaState,
} from "./da-btree.ts";
import { putU64 } from "./bytes.ts";
import * as F from "./format.ts";
import type { XfsTrans } from "./trans.ts";

/** Longest value, bytes (kernel: `XATTR_SIZE_MAX`). */
export const XFS_XATTR_SIZE_MAX = 65536;

const ENTRY_SIZE = 8;
/** Free regions that the header has room for (kernel: `XFS_ATTR_LEAF_MAPSIZE`). */
const MAPSIZE = 3;
// A name with its value.
const LOCAL_VALUELEN = 0;
const LOCAL_NAMELEN = 2;
const LOCAL_NAME = 3;
// A name whose value lies elsewhere.
const REMOTE_VALUEBLK = 0;
const REMOTE_VALUELEN = 4;
const REMOTE_NAMELEN = 8;
const REMOTE_NAME = 9;
/** Bytes of such a name without its bytes: two more than it has, by the alignment of the
 * structure in C. */
const REMOTE_SIZE = 11;

/** One operation on attributes (kernel: `struct xfs_da_args`). */
export class XfsAttrArgs extends XfsDaArgs {
  /** Namespace of the name (kernel: `attr_filter`). */
  readonly attrFilter: number;
  /** Value to be set; null if there is none to set. */
  readonly value: Uint8Array | null;
  /** The name is there with another value, which goes when the new one is complete
   * (kernel: `XFS_DA_OP_REPLACE`). */
  replace = false;
  /** First block of a remote value in the attribute fork. */
  rmtblkno = 0;
  /** Bytes of a remote value; 0 if the value is in the leaf. */
  rmtvaluelen = 0;

  /** An operation on one name.
   * @param name Without prefix.
   * @param attrFilter Its namespace, `XFS_ATTR_ROOT` or such. */
  constructor(
    dp: XfsInode,
    trans: XfsTrans | null,
    name: Uint8Array,
    attrFilter: number,
    value: Uint8Array | null,
  ) {
    const hashval = xfsDaHashname(name);
    super(dp.mount.attrGeo, dp, F.XFS_ATTR_FORK, trans, name, hashval);
    this.attrFilter = attrFilter;
    this.value = value;
  }
}

type AttrState = XfsDaState<XfsAttrArgs>;

// ---- fields ----

/** Byte of an entry; of the end of the table for the number of entries. */
function entryAt(i: number): number {
  return F.ATTR3_HDR_SIZE + i * ENTRY_SIZE;
}

/** Hash of an entry. */
function leafHash(view: DataView, i: number): number {
  return view.getUint32(entryAt(i));
}

/** Byte of an entry's name. */
function leafNameidx(view: DataView, i: number): number {
  return view.getUint16(entryAt(i) + 4);
}

/** Flags of an entry. */
export function attrLeafFlags(view: DataView, i: number): number {
  return view.getUint8(entryAt(i) + 6);
}

function isLocal(view: DataView, i: number): boolean {
  return (attrLeafFlags(view, i) & F.XFS_ATTR_LOCAL) !== 0;
}

function putEntry(
  view: DataView,
  i: number,
  hash: number,
  nameidx: number,
  flags: number,
): void {
  const at = entryAt(i);
  view.setUint32(at, hash);
  view.setUint16(at + 4, nameidx);
  view.setUint8(at + 6, flags);
  view.setUint8(at + 7, 0);
}

function leafCount(view: DataView): number {
  return view.getUint16(F.DA3_COUNT);
}

function tableEnd(view: DataView): number {
  return entryAt(leafCount(view));
}

function leafUsedbytes(view: DataView): number {
  return view.getUint16(F.ATTR3_USEDBYTES);
}

/** Lowest byte of a name; the end of the block, which 64 KiB cannot write down, is 0. */
function leafFirstused(view: DataView): number {
  return view.getUint16(F.ATTR3_FIRSTUSED) || view.byteLength;
}

function leafHoles(view: DataView): boolean {
  return view.getUint8(F.ATTR3_HOLES) !== 0;
}

function mapAt(i: number): number {
  return F.ATTR3_FREEMAP + 4 * i;
}

function mapBase(view: DataView, i: number): number {
  return view.getUint16(mapAt(i));
}

function mapSize(view: DataView, i: number): number {
  return view.getUint16(mapAt(i) + 2);
}

function putMap(view: DataView, i: number, base: number, size: number): void {
  view.setUint16(mapAt(i), base);
  view.setUint16(mapAt(i) + 2, size);
}

/** Name of an entry, in place. */
export function attrLeafName(bp: XfsBuf, i: number): Uint8Array {
  const { view, data } = bp;
  const at = leafNameidx(view, i);
  const local = isLocal(view, i);
  const from = at + (local ? LOCAL_NAME : REMOTE_NAME);
  const namelen = view.getUint8(at + (local ? LOCAL_NAMELEN : REMOTE_NAMELEN));
  return data.subarray(from, from + namelen);
}

/** Value of a local entry, in place. */
function localValue(bp: XfsBuf, i: number): Uint8Array {
  const { view, data } = bp;
  const at = leafNameidx(view, i);
  const from = at + LOCAL_NAME + view.getUint8(at + LOCAL_NAMELEN);
  return data.subarray(from, from + view.getUint16(at + LOCAL_VALUELEN));
}

/** Last hash of a leaf; 0 if it is empty (kernel: `xfs_attr_leaf_lasthash`). */
function leafLasthash(bp: XfsBuf): number {
  const count = daCount(bp);
  return count === 0 ? 0 : leafHash(bp.view, count - 1);
}

function roundup4(n: number): number {
  return Math.ceil(n / 4) * 4;
}

/** Bytes of a name with its value (kernel: `xfs_attr_leaf_entsize_local`). */
function entsizeLocal(namelen: number, valuelen: number): number {
  return roundup4(LOCAL_NAME + namelen + valuelen);
}

/** Bytes of a name without its value (kernel: `xfs_attr_leaf_entsize_remote`). */
function entsizeRemote(namelen: number): number {
  return roundup4(REMOTE_SIZE + namelen);
}

/** Bytes of an entry's name (kernel: `xfs_attr_leaf_entsize`). */
function leafEntsize(view: DataView, i: number): number {
  const at = leafNameidx(view, i);
  if (!isLocal(view, i)) {
    return entsizeRemote(view.getUint8(at + REMOTE_NAMELEN));
  }
  const namelen = view.getUint8(at + LOCAL_NAMELEN);
  return entsizeLocal(namelen, view.getUint16(at + LOCAL_VALUELEN));
}

/** Whether the operation's value goes into the leaf: with its name it takes less than
 * three quarters of a block (kernel: the result `local` of
 * `xfs_attr_leaf_newentsize`). */
export function xfsAttrLeafIsLocal(args: XfsAttrArgs): boolean {
  const { blksize } = args.geo;
  const size = entsizeLocal(args.name.length, args.value!.length);
  return size < (blksize >>> 1) + (blksize >>> 2);
}

/** Bytes that the operation's name takes in a leaf (kernel:
 * `xfs_attr_leaf_newentsize`). */
export function xfsAttrLeafNewentsize(args: XfsAttrArgs): number {
  const namelen = args.name.length;
  return xfsAttrLeafIsLocal(args)
    ? entsizeLocal(namelen, args.value!.length)
    : entsizeRemote(namelen);
}

function logHeader(args: XfsAttrArgs, bp: XfsBuf): void {
  args.tp.logBuf(bp, 0, F.ATTR3_HDR_SIZE - 1);
}

/** Logs entries `first` up to, not including, `end`. */
function logEntries(
  args: XfsAttrArgs,
  bp: XfsBuf,
  first: number,
  end: number,
): void {
  if (first < end) args.tp.logBuf(bp, entryAt(first), entryAt(end) - 1);
}

function logName(args: XfsAttrArgs, bp: XfsBuf, i: number): void {
  const at = leafNameidx(bp.view, i);
  args.tp.logBuf(bp, at, at + leafEntsize(bp.view, i) - 1);
}

// ---- checks ----

/** Words of 4 bytes of the block that is being checked: those of names are 1. */
const taken = new Uint8Array(65536 / 4);

/** Marks a run of bytes, multiples of 4; false if part of it was marked. */
function take(from: number, end: number): boolean {
  for (let word = from / 4; word < end / 4; word++) {
    if (taken[word] !== 0) return false;
    taken[word] = 1;
  }
  return true;
}

/** Checks an entry and its name (kernel: `xfs_attr3_leaf_verify_entry`). */
function verifyEntry(
  view: DataView,
  i: number,
  firstused: number,
): string | null {
  const size = view.byteLength;
  if (i > 0 && leafHash(view, i - 1) > leafHash(view, i)) {
    return `hash order at ${i}`;
  }
  const at = leafNameidx(view, i);
  const local = isLocal(view, i);
  const end = at + (local ? LOCAL_NAME : REMOTE_NAME);
  if (at < firstused || at % 4 !== 0 || end > size) {
    return `nameidx ${at} of ${i}`;
  }
  const flags = attrLeafFlags(view, i);
  const known = XFS_ATTR_NSP_ONDISK_MASK | F.XFS_ATTR_LOCAL |
    F.XFS_ATTR_INCOMPLETE;
  if ((flags & ~known) !== 0 || !xfsAttrCheckNamespace(flags)) {
    return `flags ${flags} of ${i}`;
  }
  if (view.getUint8(end - 1) === 0) return `namelen 0 of ${i}`;
  const incomplete = (flags & F.XFS_ATTR_INCOMPLETE) !== 0;
  if (!local && !incomplete && view.getUint32(at + REMOTE_VALUEBLK) === 0) {
    return `valueblk 0 of ${i}`;
  }
  const nameEnd = at + leafEntsize(view, i);
  if (nameEnd > size) return `end ${nameEnd} of ${i}`;
  return take(at, nameEnd) ? null : `name of ${i} overlaps another`;
}

/** Checks a free region: it must not hold names. That it overlaps the table, as older
 * kernels left some, is dealt with when it is used. */
function verifyMap(view: DataView, i: number): string | null {
  const base = mapBase(view, i);
  const size = mapSize(view, i);
  if (size === 0) return null;
  const end = base + size;
  if (base % 4 !== 0 || size % 4 !== 0 || end > view.byteLength) {
    return `freemap ${base}+${size}`;
  }
  for (let word = base / 4; word < end / 4; word++) {
    if (taken[word] !== 0) return `freemap ${base}+${size} holds a name`;
  }
  return null;
}

/** Kernel: `xfs_attr3_leaf_verify`. */
function leafVerify(bp: XfsBuf, targ: BufTarg): string | null {
  const why = xfsDa3BlkinfoVerify(bp, targ, F.XFS_ATTR3_LEAF_MAGIC);
  if (why !== null) return why;
  const { view } = bp;
  const firstused = leafFirstused(view);
  if (firstused % 4 !== 0 || firstused > view.byteLength) {
    return `firstused ${firstused}`;
  }
  const count = leafCount(view);
  if (entryAt(count) > firstused) return `count ${count}`;
  taken.fill(0, 0, view.byteLength / 4);
  let used = 0;
  for (let i = 0; i < count; i++) {
    const bad = verifyEntry(view, i, firstused);
    if (bad !== null) return bad;
    used += leafEntsize(view, i);
  }
  if (leafUsedbytes(view) !== used) return `usedbytes ${leafUsedbytes(view)}`;
  for (let i = 0; i < MAPSIZE; i++) {
    const bad = verifyMap(view, i);
    if (bad !== null) return bad;
  }
  return null;
}

/** Of nodes and leaves of attributes (kernel: `xfs_attr3_leaf_buf_ops`,
 * `xfs_da3_node_buf_ops`). */
export const xfsAttr3LeafBufOps: XfsBufOps = daNodeBufOps(leafVerify);

/** Reads a leaf and checks that it is this inode's (kernel: `xfs_attr3_leaf_read`); it or
 * a negative errno. */
export function xfsAttr3LeafRead(
  tp: XfsTrans | null,
  dp: XfsInode,
  bno: number,
): XfsBuf | number {
  const bp = xfsDa3NodeRead(tp, dp, bno, F.XFS_ATTR_FORK, xfsAttr3LeafBufOps);
  if (typeof bp === "number") return bp;
  const magic = bp.view.getUint16(F.DA3_MAGIC);
  if (magic === F.XFS_ATTR3_LEAF_MAGIC) return bp;
  return daCorrupt(dp, bno, `is no leaf: magic ${magic}`);
}

// ---- looking up ----

/** First entry whose hash is not below; the number of entries if there is none. */
function searchHash(view: DataView, hashval: number): number {
  let low = 0;
  let high = leafCount(view);
  while (low < high) {
    const mid = (low + high) >>> 1;
    if (leafHash(view, mid) < hashval) low = mid + 1;
    else high = mid;
  }
  return low;
}

/** Whether an entry, complete, is that of the operation (kernel: `xfs_attr_match`). */
function entryMatches(args: XfsAttrArgs, bp: XfsBuf, i: number): boolean {
  const mask = XFS_ATTR_NSP_ONDISK_MASK | F.XFS_ATTR_INCOMPLETE;
  if ((attrLeafFlags(bp.view, i) & mask) !== args.attrFilter) return false;
  const { view, data } = bp;
  const at = leafNameidx(view, i);
  const from = at + (isLocal(view, i) ? LOCAL_NAME : REMOTE_NAME);
  return xfsDaCompname(args.name, data, from, view.getUint8(from - 1));
}

/**
 * Looks for the operation's name in a leaf (kernel: `xfs_attr3_leaf_lookup_int`).
 *
 * @returns -EEXIST with `index` of it, and of a remote value where that is; -ENODATA with
 *   `index` of where it belongs; -EFSCORRUPTED if a remote value cannot be so long.
 */
function xfsAttr3LeafLookupInt(bp: XfsBuf, args: XfsAttrArgs): number {
  const { view } = bp;
  const count = leafCount(view);
  let i = searchHash(view, args.hashval);
  args.rmtblkno = args.rmtvaluelen = 0;
  for (; i < count && leafHash(view, i) === args.hashval; i++) {
    if (!entryMatches(args, bp, i)) continue;
    args.index = i;
    return isLocal(view, i) ? -EEXIST : remoteFound(bp, args);
  }
  args.index = i;
  return -ENODATA;
}

function remoteFound(bp: XfsBuf, args: XfsAttrArgs): number {
  const at = leafNameidx(bp.view, args.index);
  args.rmtblkno = bp.view.getUint32(at + REMOTE_VALUEBLK);
  args.rmtvaluelen = bp.view.getUint32(at + REMOTE_VALUELEN);
  const { rmtvaluelen } = args;
  if (rmtvaluelen > 0 && rmtvaluelen <= XFS_XATTR_SIZE_MAX) return -EEXIST;
  const where = `attribute leaf at daddr ${bp.daddr}`;
  return args.dp.mount.corrupt(where, `valuelen ${rmtvaluelen}`);
}

/** Value of the entry at `args.index`, which is local: a copy (kernel:
 * `xfs_attr3_leaf_getvalue`). */
export function xfsAttr3LeafGetvalue(
  bp: XfsBuf,
  args: XfsAttrArgs,
): Uint8Array {
  return localValue(bp, args.index).slice();
}

/** Kernel: the part of `xfs_da3_node_lookup_int` for leaves of attributes. */
function lookupInt(blk: DaStateBlk, { args }: AttrState): number {
  const ret = xfsAttr3LeafLookupInt(blk.bp!, args);
  blk.index = args.index;
  return ret;
}

// ---- moving entries ----

/**
 * Puts entries of one leaf into another without holes, their names one below the other
 * (kernel: `xfs_attr3_leaf_moveents`). There is room for them.
 *
 * @param src The one.
 * @param start First entry of it.
 * @param bp The other.
 * @param at Where they begin in it.
 */
function copyEntries(
  src: DataView,
  start: number,
  bp: XfsBuf,
  at: number,
  n: number,
): void {
  const { view, data } = bp;
  const from = new Uint8Array(src.buffer, src.byteOffset, src.byteLength);
  const count = leafCount(view);
  data.copyWithin(entryAt(at + n), entryAt(at), entryAt(count));
  let firstused = leafFirstused(view);
  let usedbytes = leafUsedbytes(view);
  for (let i = 0; i < n; i++) {
    const size = leafEntsize(src, start + i);
    const name = leafNameidx(src, start + i);
    firstused -= size;
    usedbytes += size;
    data.set(from.subarray(name, name + size), firstused);
    const flags = attrLeafFlags(src, start + i);
    putEntry(view, at + i, leafHash(src, start + i), firstused, flags);
  }
  view.setUint16(F.DA3_COUNT, count + n);
  view.setUint16(F.ATTR3_USEDBYTES, usedbytes);
  view.setUint16(F.ATTR3_FIRSTUSED, firstused);
  const base = entryAt(count + n);
  putMap(view, 0, base, firstused - base);
  putMap(view, 1, 0, 0);
  putMap(view, 2, 0, 0);
}

/** A leaf whose header says that it holds nothing. */
function setEmpty(bp: XfsBuf): void {
  const { view, data } = bp;
  data.fill(0, F.ATTR3_HDR_SIZE);
  view.setUint16(F.DA3_COUNT, 0);
  view.setUint16(F.ATTR3_USEDBYTES, 0);
  view.setUint16(F.ATTR3_FIRSTUSED, data.length);
  view.setUint8(F.ATTR3_HOLES, 0);
  putMap(view, 0, F.ATTR3_HDR_SIZE, data.length - F.ATTR3_HDR_SIZE);
  putMap(view, 1, 0, 0);
  putMap(view, 2, 0, 0);
}

/** Brings all free space of a leaf together (kernel: `xfs_attr3_leaf_compact`). */
function compact(args: XfsAttrArgs, bp: XfsBuf): void {
  const src = new DataView(bp.data.slice().buffer);
  setEmpty(bp);
  copyEntries(src, 0, bp, 0, leafCount(src));
  args.tp.logWholeBuf(bp);
}

/** Takes the entries from `kept` on out of a leaf. Their space is for
 * {@linkcode compact} to find. */
function dropTail(args: XfsAttrArgs, bp: XfsBuf, kept: number): void {
  const { view, data } = bp;
  const count = leafCount(view);
  let usedbytes = leafUsedbytes(view);
  for (let i = kept; i < count; i++) {
    const size = leafEntsize(view, i);
    const name = leafNameidx(view, i);
    data.fill(0, name, name + size);
    usedbytes -= size;
  }
  data.fill(0, entryAt(kept), entryAt(count));
  view.setUint16(F.DA3_COUNT, kept);
  view.setUint16(F.ATTR3_USEDBYTES, usedbytes);
  view.setUint8(F.ATTR3_HOLES, 1);
  args.tp.logWholeBuf(bp);
}

// ---- adding ----

/** Makes a new leaf, empty (kernel: `xfs_attr3_leaf_create`); it or a negative errno. */
function leafCreate(args: XfsAttrArgs, blkno: number): XfsBuf | number {
  const { tp, dp, whichfork } = args;
  const bp = xfsDaGetBuf(tp, dp, blkno, whichfork, xfsAttr3LeafBufOps);
  if (typeof bp === "number") return bp;
  daInitHeader(bp, dp.mount, dp.ino, F.XFS_ATTR3_LEAF_MAGIC);
  setEmpty(bp);
  tp.logWholeBuf(bp);
  return bp;
}

/** Free regions lose what the table covers, and what another has as well. One that is
 * used up stays if the table borders on it, and may grow again. */
function tidyMaps(view: DataView): void {
  const table = tableEnd(view);
  for (let i = 0; i < MAPSIZE; i++) {
    const base = mapBase(view, i);
    const end = base + mapSize(view, i);
    if (base < table && end > table) putMap(view, i, table, end - table);
    else if (end <= table && base + ENTRY_SIZE >= table && base > 0) {
      putMap(view, i, table, 0);
    } else if (end <= table || end === base) putMap(view, i, 0, 0);
  }
  for (let i = 1; i < MAPSIZE; i++) {
    for (let j = 0; j < i; j++) {
      if (mapsOverlap(view, i, j)) putMap(view, i, 0, 0);
    }
  }
}

function mapsOverlap(view: DataView, i: number, j: number): boolean {
  return mapBase(view, i) < mapBase(view, j) + mapSize(view, j) &&
    mapBase(view, j) < mapBase(view, i) + mapSize(view, i);
}

/** The free region that a name of `size` bytes and its entry fit into; -1 if there is
 * none (kernel: the first half of `xfs_attr3_leaf_add`). */
function findMap(view: DataView, size: number): number {
  const firstused = leafFirstused(view);
  if (tableEnd(view) + ENTRY_SIZE > firstused) return -1;
  for (let i = MAPSIZE - 1; i >= 0; i--) {
    if (mapSize(view, i) === 0) continue;
    // The table may be what grows into it.
    const shared = mapBase(view, i) < firstused ? ENTRY_SIZE : 0;
    if (mapSize(view, i) >= size + shared) return i;
  }
  return -1;
}

function freeBytes(view: DataView): number {
  let sum = 0;
  for (let i = 0; i < MAPSIZE; i++) sum += mapSize(view, i);
  return sum;
}

/**
 * Adds the operation's name at `args.index` (kernel: `xfs_attr3_leaf_add`). It is
 * INCOMPLETE if its value is remote, or the old one still there.
 *
 * @returns 0; -ENOSPC if it does not fit.
 */
export function xfsAttr3LeafAdd(bp: XfsBuf, args: XfsAttrArgs): number {
  const { view } = bp;
  const size = xfsAttrLeafNewentsize(args);
  tidyMaps(view);
  logHeader(args, bp);
  let map = findMap(view, size);
  if (map < 0) {
    // Without holes it would bring nothing.
    if (!leafHoles(view) && freeBytes(view) < size) return -ENOSPC;
    compact(args, bp);
    if (mapSize(view, 0) < size + ENTRY_SIZE) return -ENOSPC;
    map = 0;
  }
  addWork(bp, args, map, size);
  return 0;
}

/** Kernel: `xfs_attr3_leaf_add_work`. */
function addWork(
  bp: XfsBuf,
  args: XfsAttrArgs,
  map: number,
  size: number,
): void {
  const { view, data } = bp;
  const { index } = args;
  const count = leafCount(view);
  const local = xfsAttrLeafIsLocal(args);
  data.copyWithin(entryAt(index + 1), entryAt(index), entryAt(count));
  const nameidx = mapBase(view, map) + mapSize(view, map) - size;
  putMap(view, map, mapBase(view, map), mapSize(view, map) - size);
  const flags = args.attrFilter | (local ? F.XFS_ATTR_LOCAL : 0) |
    (!local || args.replace ? F.XFS_ATTR_INCOMPLETE : 0);
  putEntry(view, index, args.hashval, nameidx, flags);
  putName(bp, nameidx, size, args, local);
  view.setUint16(F.DA3_COUNT, count + 1);
  const usedbytes = leafUsedbytes(view) + size;
  view.setUint16(F.ATTR3_USEDBYTES, usedbytes);
  if (nameidx < leafFirstused(view)) view.setUint16(F.ATTR3_FIRSTUSED, nameidx);
  tidyMaps(view);
  logEntries(args, bp, index, count + 1);
  logName(args, bp, index);
  logHeader(args, bp);
}

function putName(
  bp: XfsBuf,
  at: number,
  size: number,
  args: XfsAttrArgs,
  local: boolean,
): void {
  const { view, data } = bp;
  const value = args.value!;
  const { name } = args;
  data.fill(0, at, at + size);
  args.rmtblkno = 0;
  args.rmtvaluelen = local ? 0 : value.length;
  if (!local) {
    view.setUint8(at + REMOTE_NAMELEN, name.length);
    data.set(name, at + REMOTE_NAME);
    return;
  }
  view.setUint16(at + LOCAL_VALUELEN, value.length);
  view.setUint8(at + LOCAL_NAMELEN, name.length);
  data.set(name, at + LOCAL_NAME);
  data.set(value, at + LOCAL_NAME + name.length);
}

// ---- splitting ----

/** What {@linkcode figureBalance} found. */
const balance = { kept: 0, inleaf: false };

/**
 * Decides which entries stay in the first of two leaves, so that both are as full as
 * each other when the new name is in (kernel: `xfs_attr3_leaf_figure_balance`).
 *
 * @param index Where the new name belongs.
 */
function figureBalance(args: XfsAttrArgs, view: DataView, index: number): void {
  const count = leafCount(view);
  const newsize = xfsAttrLeafNewentsize(args);
  const all = (count + 1) * ENTRY_SIZE + leafUsedbytes(view) + newsize;
  const half = Math.floor(all / 2);
  let lastdelta = args.geo.blksize;
  let total = 0;
  let kept = 0;
  balance.inleaf = false;
  for (; kept < count; kept++) {
    if (kept === index) {
      const delta = Math.abs(half - (total + ENTRY_SIZE + newsize));
      if (delta > lastdelta) break;
      lastdelta = delta;
      total += ENTRY_SIZE + newsize;
      balance.inleaf = true;
    }
    const next = total + ENTRY_SIZE + leafEntsize(view, kept);
    const delta = Math.abs(half - next);
    if (delta > lastdelta) break;
    lastdelta = delta;
    total = next;
  }
  balance.kept = kept;
}

/** Moves entries to a new leaf so that the operation's name can be added (kernel:
 * `xfs_attr3_leaf_rebalance`). Says in which it belongs. */
function rebalance(
  state: AttrState,
  oldblk: DaStateBlk,
  newblk: DaStateBlk,
): void {
  const { args } = state;
  const from = oldblk.bp!;
  const { index } = oldblk;
  figureBalance(args, from.view, index);
  const { kept, inleaf } = balance;
  const moved = leafCount(from.view) - kept;
  copyEntries(from.view, kept, newblk.bp!, 0, moved);
  args.tp.logWholeBuf(newblk.bp!);
  if (moved > 0) dropTail(args, from, kept);
  state.inleaf = inleaf;
  newblk.index = Math.max(0, index - kept);
  const into = inleaf ? oldblk : newblk;
  args.index = into.index;
  args.blkno = into.blkno;
}

/** Splits a leaf and adds the operation's name (kernel: `xfs_attr3_leaf_split`). */
function leafSplit(
  state: AttrState,
  oldblk: DaStateBlk,
  newblk: DaStateBlk,
): number {
  const { args } = state;
  const blkno = xfsDaGrowInode(args);
  if (blkno < 0) return blkno;
  const bp = leafCreate(args, blkno);
  if (typeof bp === "number") return bp;
  newblk.blkno = blkno;
  newblk.bp = bp;
  newblk.leaf = true;
  rebalance(state, oldblk, newblk);
  const error = xfsDa3BlkLink(state, oldblk, newblk);
  if (error < 0) return error;
  const added = xfsAttr3LeafAdd(state.inleaf ? oldblk.bp! : bp, args);
  oldblk.hashval = leafLasthash(oldblk.bp!);
  newblk.hashval = leafLasthash(bp);
  return added;
}

// ---- removing ----

/** Removes the entry at `args.index` (kernel: `xfs_attr3_leaf_remove`). */
export function xfsAttr3LeafRemove(bp: XfsBuf, args: XfsAttrArgs): void {
  const { view, data } = bp;
  const { index } = args;
  const nameidx = leafNameidx(view, index);
  const size = leafEntsize(view, index);
  freeName(view, nameidx, size);
  data.fill(0, nameidx, nameidx + size);
  args.tp.logBuf(bp, nameidx, nameidx + size - 1);
  const count = leafCount(view) - 1;
  data.copyWithin(entryAt(index), entryAt(index + 1), entryAt(count + 1));
  data.fill(0, entryAt(count), entryAt(count + 1));
  logEntries(args, bp, index, count + 1);
  view.setUint16(F.DA3_COUNT, count);
  view.setUint16(F.ATTR3_USEDBYTES, leafUsedbytes(view) - size);
  if (nameidx === leafFirstused(view)) {
    let first = data.length;
    for (let i = 0; i < count; i++) {
      first = Math.min(first, leafNameidx(view, i));
    }
    view.setUint16(F.ATTR3_FIRSTUSED, first);
  } else view.setUint8(F.ATTR3_HOLES, 1);
  logHeader(args, bp);
}

/** Adds a name's bytes, and those of its entry, to the free regions; what they have no
 * room for is a hole. */
function freeName(view: DataView, nameidx: number, size: number): void {
  const table = tableEnd(view);
  tidyMaps(view);
  let before = -1;
  let after = -1;
  let smallest = 0;
  let bordered = false;
  for (let i = 0; i < MAPSIZE; i++) {
    if (mapBase(view, i) === table && !bordered) {
      bordered = true;
      putMap(view, i, table - ENTRY_SIZE, mapSize(view, i) + ENTRY_SIZE);
    }
    const base = mapBase(view, i);
    const bytes = mapSize(view, i);
    if (bytes > 0 && base + bytes === nameidx) before = i;
    else if (bytes > 0 && base === nameidx + size) after = i;
    if (bytes < mapSize(view, smallest)) smallest = i;
  }
  if (before >= 0) {
    const more = after < 0 ? 0 : mapSize(view, after);
    putMap(
      view,
      before,
      mapBase(view, before),
      mapSize(view, before) + size + more,
    );
    if (after >= 0) putMap(view, after, 0, 0);
  } else if (after >= 0) {
    putMap(view, after, nameidx, mapSize(view, after) + size);
  } else if (mapSize(view, smallest) < size) {
    putMap(view, smallest, nameidx, size);
  }
}

// ---- joining ----

/** Kernel: `xfs_attr3_leaf_toosmall`. */
function leafToosmall(state: AttrState): number {
  const { args, path, altpath } = state;
  const { bp } = path.last;
  const bytes = tableEnd(bp!.view) + leafUsedbytes(bp!.view);
  if (bytes > args.geo.blksize >>> 1) return 0;
  if (daCount(bp!) > 0) return daChooseNeighbour(state);
  altpath.copy(path);
  return xfsDa3PathShift(state, altpath, daForw(bp!) !== 0);
}

/** Whether two leaves fit into one with a quarter to spare. */
function leafFits(args: XfsAttrArgs, leaf: XfsBuf, other: XfsBuf): boolean {
  const { blksize } = args.geo;
  const bytes = entryAt(daCount(leaf) + daCount(other)) +
    leafUsedbytes(leaf.view) + leafUsedbytes(other.view);
  return bytes <= blksize - (blksize >>> 2);
}

/** Kernel: `xfs_attr3_leaf_unbalance`. */
function leafUnbalance(
  state: AttrState,
  drop: DaStateBlk,
  save: DaStateBlk,
): void {
  const { args } = state;
  const from = drop.bp!;
  const to = save.bp!;
  drop.hashval = leafLasthash(from);
  const at = daOrder(attrLeafOps, to, from) ? 0 : daCount(to);
  compact(args, to);
  copyEntries(from.view, 0, to, at, daCount(from));
  save.hashval = leafLasthash(to);
}

/** Leaves of a tree of attributes. */
export const attrLeafOps: DaLeafOps<XfsAttrArgs> = {
  bufOps: xfsAttr3LeafBufOps,
  lookupInt,
  firsthash: (bp) => leafHash(bp.view, 0),
  lasthash: leafLasthash,
  split: leafSplit,
  toosmall: leafToosmall,
  fits: leafFits,
  unbalance: leafUnbalance,
};

// ---- from form to form ----

/**
 * Moves all attributes from the inode to a leaf (kernel: `xfs_attr_shortform_to_leaf`).
 *
 * @returns 0; -ENOSPC; -EFSCORRUPTED or an errno of the device.
 */
export function xfsAttrShortformToLeaf(args: XfsAttrArgs): number {
  const { tp, dp } = args;
  const list = dp.af!.local!;
  xfsBmapLocalToExtentsEmpty(tp, dp, F.XFS_ATTR_FORK);
  const blkno = xfsDaGrowInode(args);
  if (blkno < 0) return blkno;
  const bp = leafCreate(args, blkno);
  if (typeof bp === "number") return bp;
  for (let at = ATTR_SF_HDR_SIZE; at < list.length; at = sfNext(list, at)) {
    const one = new XfsAttrArgs(
      dp,
      tp,
      sfName(list, at),
      sfFlags(list, at),
      sfValue(list, at),
    );
    // A name that is there twice must not be added twice.
    const found = xfsAttr3LeafLookupInt(bp, one);
    if (found !== -ENODATA) return daCorrupt(dp, blkno, "a name twice");
    const error = xfsAttr3LeafAdd(bp, one);
    if (error < 0) return error;
  }
  return 0;
}

/**
 * Whether all that a leaf holds would fit into the inode (kernel:
 * `xfs_attr_shortform_allfit`).
 *
 * @returns Where the attribute fork would have to begin, in units of 8 bytes; 0 if it
 *   does not fit; -1 if there is nothing to hold, and no fork needed.
 */
export function xfsAttrShortformAllfit(bp: XfsBuf, dp: XfsInode): number {
  const { view } = bp;
  let bytes = ATTR_SF_HDR_SIZE;
  for (let i = 0; i < leafCount(view); i++) {
    if ((attrLeafFlags(view, i) & F.XFS_ATTR_INCOMPLETE) !== 0) continue;
    if (!isLocal(view, i)) return 0;
    const namelen = view.getUint8(leafNameidx(view, i) + LOCAL_NAMELEN);
    const valuelen = view.getUint16(leafNameidx(view, i) + LOCAL_VALUELEN);
    const max = XFS_ATTR_SF_ENTSIZE_MAX;
    if (namelen >= max || valuelen >= max) return 0;
    bytes += xfsAttrSfEntsizeByname(namelen, valuelen);
  }
  const empty = bytes === ATTR_SF_HDR_SIZE;
  if (empty && dp.df.format !== F.XFS_DINODE_FMT_BTREE) return -1;
  return xfsAttrShortformBytesfit(dp, bytes);
}

/**
 * Moves all attributes from the only leaf into the inode (kernel:
 * `xfs_attr3_leaf_to_shortform`).
 *
 * @param forkoff As {@linkcode xfsAttrShortformAllfit} answers, not 0.
 * @returns 0 or a negative errno.
 */
export function xfsAttr3LeafToShortform(
  bp: XfsBuf,
  args: XfsAttrArgs,
  forkoff: number,
): number {
  const { tp, dp } = args;
  const error = xfsDaShrinkInode(args, 0, bp, xfsAttr3LeafBufOps);
  if (error < 0) return error;
  if (forkoff < 0) {
    xfsAttrForkRemove(dp, tp);
    return 0;
  }
  xfsAttrShortformCreate(args);
  for (let i = 0; i < daCount(bp); i++) {
    const flags = attrLeafFlags(bp.view, i);
    if ((flags & F.XFS_ATTR_INCOMPLETE) !== 0) continue;
    const space = flags & XFS_ATTR_NSP_ONDISK_MASK;
    const name = attrLeafName(bp, i);
    const one = new XfsAttrArgs(dp, tp, name, space, localValue(bp, i));
    xfsAttrShortformAdd(one, forkoff);
  }
  return 0;
}

/**
 * Moves the only leaf to a block of its own, below a node (kernel:
 * `xfs_attr3_leaf_to_node`).
 *
 * @returns 0; -ENOSPC; -EFSCORRUPTED or an errno of the device.
 */
export function xfsAttr3LeafToNode(args: XfsAttrArgs): number {
  const { tp, dp, whichfork } = args;
  const blkno = xfsDaGrowInode(args);
  if (blkno < 0) return blkno;
  const leaf = xfsAttr3LeafRead(tp, dp, 0);
  if (typeof leaf === "number") return leaf;
  const ops = xfsAttr3LeafBufOps;
  const bp = xfsDaGetBuf(tp, dp, blkno, whichfork, ops);
  if (typeof bp === "number") return bp;
  bp.data.set(leaf.data);
  putU64(bp.view, F.DA3_BLKNO, bp.daddr);
  tp.logWholeBuf(bp);
  const node = xfsDa3NodeCreate(args, 0, 1, ops);
  if (typeof node === "number") return node;
  daNodeAppend(args, node, leafLasthash(bp), blkno);
  // The leaf's contents have gone from all of it.
  tp.logWholeBuf(node);
  return 0;
}

// ---- the flag INCOMPLETE ----

/** Writes an entry's flags, and where its remote value is. */
function putFlags(
  args: XfsAttrArgs,
  bp: XfsBuf,
  i: number,
  incomplete: boolean,
  rmtblkno: number,
  rmtvaluelen: number,
): void {
  const { view } = bp;
  const flags = attrLeafFlags(view, i) & ~F.XFS_ATTR_INCOMPLETE;
  const flag = incomplete ? F.XFS_ATTR_INCOMPLETE : 0;
  view.setUint8(entryAt(i) + 6, flags | flag);
  logEntries(args, bp, i, i + 1);
  if (isLocal(view, i)) return;
  const at = leafNameidx(view, i);
  view.setUint32(at + REMOTE_VALUEBLK, rmtblkno);
  view.setUint32(at + REMOTE_VALUELEN, rmtvaluelen);
  args.tp.logBuf(bp, at, at + REMOTE_NAMELEN - 1);
}

/** The entry at (`args.blkno`, `args.index`), whose value is all there, counts from now on
 * (kernel: `xfs_attr3_leaf_clearflag`); 0 or a negative errno. */
export function xfsAttr3LeafClearflag(args: XfsAttrArgs): number {
  const { tp, dp, blkno, index } = args;
  const bp = xfsAttr3LeafRead(tp, dp, blkno);
  if (typeof bp === "number") return bp;
  putFlags(args, bp, index, false, args.rmtblkno, args.rmtvaluelen);
  return 0;
}

/** An entry of a leaf does not count any more (kernel: `xfs_attr3_leaf_setflag`). */
export function xfsAttr3LeafSetflag(
  args: XfsAttrArgs,
  bp: XfsBuf,
  index: number,
): void {
  putFlags(args, bp, index, true, 0, 0);
}
