/**
 * The B+tree that all trees of the format share: lookup, walking, insertion and
 * deletion with shifting, splitting and joining of blocks, and range queries.
 *
 * A tree lives in blocks; its root is either a block that a header of an allocation
 * group points to (short form), or sits in an inode's fork (long form). Records, keys
 * and pointers are moved between blocks as bytes; only a tree's own
 * {@linkcode XfsBtreeOps} knows what they mean.
 *
 * How to write a new tree type:
 *
 * 1. A class of its record in memory, `R`, with plain number fields.
 * 2. A class that extends {@linkcode XfsAgBtreeOps}`<R>` (or {@linkcode XfsBtreeOps}, for
 *    a root in an inode), and one instance of it: the sizes go to `super(…)`, then the
 *    codec (`getRec`, `putRec`, `initKeyFromRec` …), the comparisons, and where new
 *    blocks come from.
 * 3. A function `xfs…InitCursor(mp, tp, agbp, pag)` that takes a cursor by
 *    {@linkcode xfsBtreeAgCursor}. `alloc-btree.ts` is the shortest example.
 * 4. To look something up: fill `cur.rec`, call {@linkcode xfsBtreeLookup}, then
 *    {@linkcode xfsBtreeGetRec}. To insert or update: fill `cur.rec` with the whole
 *    record, then {@linkcode xfsBtreeInsert} or {@linkcode xfsBtreeUpdate}. Every cursor
 *    goes back by {@linkcode xfsBtreeDelCursor}, whatever came of it.
 *
 * Functions answer 1 for "done, found", 0 for "not there", a negative errno otherwise.
 * A pointer of -1 is none, in both forms.
 *
 * Blocks are hostile. The verifier sees to what one block can show: magic number, own
 * address, counts, order of what it holds. What takes two blocks is checked when a
 * cursor goes from one to the other: the level, the owner, that the child begins with
 * the key that its parent has for it, that siblings and parents agree. As keys rise
 * strictly, no block can be met twice and every walk ends.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_btree.c.
 *
 * @module
 */

import { bugOn } from "../../../lib/bug.ts";
import { EFSCORRUPTED } from "../../../lib/errno.ts";
import type { XfsInode } from "../inode.ts";
import type { XfsMount } from "../mount.ts";
import type { XfsPerag } from "./ag.ts";
import type { BufTarg, XfsBuf, XfsBufOps } from "./buf.ts";
import { bytesEqual, getU64, putU64 } from "./bytes.ts";
import * as F from "./format.ts";
import type { XfsSb } from "./sb.ts";
import type { XfsTrans } from "./trans.ts";

/** Look for the record itself (kernel: `XFS_LOOKUP_EQ`). */
export const XFS_LOOKUP_EQ = 0;
/** Look for the last one at or below (kernel: `XFS_LOOKUP_LE`). */
export const XFS_LOOKUP_LE = 1;
/** Look for the first one at or above (kernel: `XFS_LOOKUP_GE`). */
export const XFS_LOOKUP_GE = 2;

/** One of {@linkcode XFS_LOOKUP_EQ} and so on. */
export type XfsLookup = 0 | 1 | 2;

/** A pointer to nothing, whatever its width (kernel: `xfs_btree_ptr_is_null`). */
export const XFS_BTREE_NULL_PTR: number = -1;

/** Bytes of the largest key, low and high together. */
const MAX_KEY_LEN = 40;

/** The bytes of a block, in a buffer or in an inode's fork. */
export interface XfsBtreeBlock {
  readonly data: Uint8Array;
  readonly view: DataView;
}

/**
 * What makes a tree this tree (kernel: `struct xfs_btree_ops`). `R` is its record in
 * memory; its key fields serve as a key, too.
 */
export abstract class XfsBtreeOps<R> {
  /** As the kernel names its blocks: "xfs_bnobt". */
  readonly name: string;
  /** Magic number of its blocks. */
  readonly magic: number;
  /** Bytes of a pointer: 4 in the short form, 8 in the long one. */
  readonly ptrLen: 4 | 8;
  /** Bytes of a record. */
  readonly recLen: number;
  /** Bytes of a low key. */
  readonly lowKeyLen: number;
  /** Bytes of what a node has for each child: the low key, and the high key after it
   * where records may overlap. */
  readonly keyLen: number;
  /** Records may overlap, so nodes have high keys (kernel:
   * `XFS_BTGEO_OVERLAPPING`). */
  readonly overlapping: boolean;
  /** The root is in an inode's fork (kernel: `XFS_BTREE_TYPE_INODE`). */
  readonly rootInInode: boolean;
  /** Bytes before records and keys. */
  readonly headerLen: number;
  /** How its blocks are checked. */
  readonly bufOps: XfsBufOps;
  /** Cursors that wait for use. */
  readonly pool: XfsBtreeCur<R>[] = [];

  /** @param keyLen Bytes of a low key. */
  constructor(
    name: string,
    magic: number,
    ptrLen: 4 | 8,
    recLen: number,
    keyLen: number,
    overlapping = false,
  ) {
    this.name = name;
    this.magic = magic;
    this.ptrLen = ptrLen;
    this.recLen = recLen;
    this.lowKeyLen = keyLen;
    this.keyLen = overlapping ? keyLen * 2 : keyLen;
    this.overlapping = overlapping;
    this.rootInInode = ptrLen === 8;
    this.headerLen = ptrLen === 8
      ? F.XFS_BTREE_LBLOCK_CRC_LEN
      : F.XFS_BTREE_SBLOCK_CRC_LEN;
    this.bufOps = new BtreeBufOps(this);
  }

  /** A record in memory; its contents do not matter. */
  abstract newRec(): R;
  /** Copies all fields. */
  abstract copyRec(from: R, to: R): void;
  /** Decodes a record; any bytes must do (kernel: `xfs_*_btrec_to_irec`). Whether it
   * can be is for the caller to check. */
  abstract getRec(view: DataView, at: number, rec: R): void;
  /** Encodes a record (kernel: `init_rec_from_cur`). */
  abstract putRec(view: DataView, at: number, rec: R): void;
  /** Writes a record's low key (kernel: `init_key_from_rec`). */
  abstract initKeyFromRec(
    key: DataView,
    keyAt: number,
    rec: DataView,
    recAt: number,
  ): void;
  /** Writes a record's high key, in the form of a low key (kernel:
   * `init_high_key_from_rec`). Only for range queries and overlapping trees. */
  abstract initHighKeyFromRec(
    key: DataView,
    keyAt: number,
    rec: DataView,
    recAt: number,
  ): void;
  /** Below 0 if the key of the block is below that of `rec`, 0 if it is the same,
   * above 0 if above (kernel: `cmp_key_with_cur`). */
  abstract cmpKeyWithRec(view: DataView, keyAt: number, rec: R): number;
  /** The same for the key of a record in a leaf. */
  abstract cmpRecWithRec(view: DataView, recAt: number, rec: R): number;
  /** The same for two keys (kernel: `cmp_two_keys`). */
  abstract cmpTwoKeys(
    a: DataView,
    aAt: number,
    b: DataView,
    bAt: number,
  ): number;
  /** Whether two records of a leaf may follow one another (kernel: `recs_inorder`). */
  abstract recsInorder(view: DataView, aAt: number, bAt: number): boolean;

  /** Most levels of a tree of this kind (kernel: `m_*_maxlevels`). */
  abstract maxlevels(mp: XfsMount): number;
  /**
   * A new block for the tree (kernel: `alloc_block`).
   *
   * @param near Pointer to a block near which it should be.
   * @returns Pointer, 0 if there is no space, or a negative errno.
   */
  abstract allocBlock(cur: XfsBtreeCur<R>, near: number): number;
  /** Gives a block back; the buffer is made stale after it (kernel: `free_block`).
   * @returns 0 or a negative errno. */
  abstract freeBlock(cur: XfsBtreeCur<R>, bp: XfsBuf): number;

  /** Pointer to the root, where it is a block (kernel: `init_ptr_from_cur`). */
  rootPtr(_cur: XfsBtreeCur<R>): number {
    throw new Error(`BUG: ${this.name} has its root in an inode`);
  }
  /** Moves the root; `levels` is +1 or -1 for the height (kernel: `set_root`). */
  setRoot(_cur: XfsBtreeCur<R>, _ptr: number, _levels: number): void {
    throw new Error(`BUG: ${this.name} has its root in an inode`);
  }
  /** The root in the inode: laid out as a block in the long form, of which magic
   * number, level and count matter, with room for {@linkcode irootMaxrecs} keys, then
   * as many pointers (kernel: `xfs_btree_get_iroot`). */
  iroot(_cur: XfsBtreeCur<R>): XfsBtreeBlock {
    throw new Error(`BUG: ${this.name} has its root in a block`);
  }
  /** Most children of the root in the inode (kernel: `get_dmaxrecs`). */
  irootMaxrecs(_cur: XfsBtreeCur<R>): number {
    throw new Error(`BUG: ${this.name} has its root in a block`);
  }
  /** The root in the inode has changed (kernel: `xfs_trans_log_inode` with
   * `xfs_ilog_fbroot`). */
  logIroot(_cur: XfsBtreeCur<R>): void {
    throw new Error(`BUG: ${this.name} has its root in a block`);
  }
}

/** A tree whose root the header of a group points to (kernel: `XFS_BTREE_TYPE_AG`). */
export abstract class XfsAgBtreeOps<R> extends XfsBtreeOps<R> {
  /** Byte of the header with the pointer to the root. */
  readonly rootAt: number;
  /** Byte of the header with the number of levels; it comes after the root. */
  readonly levelAt: number;

  /** @param keyLen Bytes of a low key. */
  constructor(
    name: string,
    magic: number,
    recLen: number,
    keyLen: number,
    rootAt: number,
    levelAt: number,
    overlapping = false,
  ) {
    super(name, magic, 4, recLen, keyLen, overlapping);
    this.rootAt = rootAt;
    this.levelAt = levelAt;
  }

  /** Corrects the number of levels that the group has in memory, if it has one. */
  protected setLevel(_pag: XfsPerag, _level: number): void {}

  override rootPtr(cur: XfsBtreeCur<R>): number {
    return cur.agbp!.view.getUint32(this.rootAt);
  }

  override setRoot(cur: XfsBtreeCur<R>, ptr: number, levels: number): void {
    const { view } = cur.agbp!;
    const level = view.getUint32(this.levelAt) + levels;
    view.setUint32(this.rootAt, ptr);
    view.setUint32(this.levelAt, level);
    this.setLevel(cur.pag!, level);
    cur.tp!.logBuf(cur.agbp!, this.rootAt, this.levelAt + 3);
  }
}

/** A place in a tree (kernel: `struct xfs_btree_cur`). */
export class XfsBtreeCur<R> {
  readonly ops: XfsBtreeOps<R>;
  mp!: XfsMount;
  /** Null if nothing is going to be changed. */
  tp: XfsTrans | null = null;
  /** Buffer of the AGF or AGI that points to the root. */
  agbp: XfsBuf | null = null;
  /** Group, of a tree of a group. */
  pag: XfsPerag | null = null;
  /** Inode, of a tree in an inode. */
  ip: XfsInode | null = null;
  /** Which of its forks. */
  whichfork = 0;
  /** Levels of the tree. */
  nlevels = 0;
  /** What to look for, to insert or to update with. */
  readonly rec: R;
  /** The tree's own: blocks allocated with this cursor (kernel:
   * `bc_bmap.allocated`). */
  allocated = 0;
  /** The tree's own, as it likes (kernel: `bc_flags`, `bc_bmap.flags`). */
  flags = 0;
  /** Changes made with this cursor (kernel: `bc_refc.nr_ops`). */
  nrOps = 0;
  /** Changes that may have split or joined blocks (kernel:
   * `bc_refc.shape_changes`). */
  shapeChanges = 0;
  /** Records that a leaf and children that a node can have. */
  leafMaxrecs = 0;
  nodeMaxrecs = 0;
  /** Block of each level that the cursor is in. */
  readonly bufs: (XfsBuf | null)[] = new Array(F.XFS_BTREE_MAXLEVELS).fill(
    null,
  );
  /** Place in each block, from 1; 0 is before the first. */
  readonly ptrs: Int32Array = new Int32Array(F.XFS_BTREE_MAXLEVELS);
  /** Result of a query, decoded. */
  readonly found: R;
  /** Keys on their way up. */
  readonly key: DataView = new DataView(new ArrayBuffer(MAX_KEY_LEN));
  readonly key2: DataView = new DataView(new ArrayBuffer(MAX_KEY_LEN));
  /** Key of the right half of a split, to be inserted above. */
  readonly upKey: DataView = new DataView(new ArrayBuffer(MAX_KEY_LEN));
  /** Key that is being inserted into a node. */
  readonly ownKey: DataView = new DataView(new ArrayBuffer(MAX_KEY_LEN));
  /** Out: block that a split has made, and a cursor that stands in it. */
  splitPtr: number = XFS_BTREE_NULL_PTR;
  splitCur: XfsBtreeCur<R> | null = null;
  /** It is in the pool. */
  idle = false;

  /** {@linkcode xfsBtreeAllocCursor} makes them. */
  constructor(ops: XfsBtreeOps<R>) {
    this.ops = ops;
    this.rec = ops.newRec();
    this.found = ops.newRec();
  }
}

// ---- cursors ----

/** A cursor that stands nowhere (kernel: `xfs_btree_alloc_cursor`). The caller sets
 * where the root is, and `nlevels`.
 * @param tp Null if nothing is going to be changed. */
export function xfsBtreeAllocCursor<R>(
  mp: XfsMount,
  tp: XfsTrans | null,
  ops: XfsBtreeOps<R>,
): XfsBtreeCur<R> {
  const cur = ops.pool.pop() ?? new XfsBtreeCur(ops);
  cur.idle = false;
  cur.mp = mp;
  cur.tp = tp;
  cur.leafMaxrecs = xfsBtreeMaxrecs(mp.sb, ops, true);
  cur.nodeMaxrecs = xfsBtreeMaxrecs(mp.sb, ops, false);
  cur.allocated =
    cur.flags =
    cur.nrOps =
    cur.shapeChanges =
      0;
  return cur;
}

/** The same for a tree of a group, ready for use.
 * @param agbp Buffer of the header that points to the root. */
export function xfsBtreeAgCursor<R>(
  mp: XfsMount,
  tp: XfsTrans | null,
  ops: XfsAgBtreeOps<R>,
  agbp: XfsBuf,
  pag: XfsPerag,
): XfsBtreeCur<R> {
  const cur = xfsBtreeAllocCursor(mp, tp, ops);
  cur.agbp = agbp;
  cur.pag = pag;
  cur.nlevels = agbp.view.getUint32(ops.levelAt);
  return cur;
}

/** Gives a cursor back; it must not be used any more (kernel:
 * `xfs_btree_del_cursor`). */
export function xfsBtreeDelCursor<R>(cur: XfsBtreeCur<R>): void {
  bugOn(cur.idle, `a cursor of ${cur.ops.name} was given back twice`);
  cur.idle = true;
  cur.bufs.fill(null);
  cur.tp =
    cur.agbp =
    cur.pag =
    cur.ip =
      null;
  cur.ops.pool.push(cur);
}

/** A second cursor at the same place (kernel: `xfs_btree_dup_cursor`). */
function xfsBtreeDupCursor<R>(cur: XfsBtreeCur<R>): XfsBtreeCur<R> {
  const dup = xfsBtreeAllocCursor(cur.mp, cur.tp, cur.ops);
  dup.agbp = cur.agbp;
  dup.pag = cur.pag;
  dup.ip = cur.ip;
  dup.whichfork = cur.whichfork;
  dup.nlevels = cur.nlevels;
  dup.flags = cur.flags;
  cur.ops.copyRec(cur.rec, dup.rec);
  for (let level = 0; level < cur.nlevels; level++) {
    dup.bufs[level] = cur.bufs[level]!;
    dup.ptrs[level] = cur.ptrs[level]!;
  }
  return dup;
}

// ---- where things are in a block ----

function atIroot<R>(cur: XfsBtreeCur<R>, level: number): boolean {
  return cur.ops.rootInInode && level === cur.nlevels - 1;
}

/** The block that the cursor is in (kernel: `xfs_btree_get_block`). */
function getBlock<R>(cur: XfsBtreeCur<R>, level: number): XfsBtreeBlock {
  return atIroot(cur, level) ? cur.ops.iroot(cur) : cur.bufs[level]!;
}

/** Most records or children of a block of the level (kernel: `get_maxrecs`). */
function maxrecs<R>(cur: XfsBtreeCur<R>, level: number): number {
  if (level === 0) return cur.leafMaxrecs;
  return atIroot(cur, level) ? cur.ops.irootMaxrecs(cur) : cur.nodeMaxrecs;
}

/** Fewest records or children before a block is joined (kernel: `get_minrecs`). */
function minrecs<R>(cur: XfsBtreeCur<R>, level: number): number {
  return Math.floor(maxrecs(cur, level) / 2);
}

function numrecs(block: XfsBtreeBlock): number {
  return block.view.getUint16(F.BB_NUMRECS);
}

function setNumrecs(block: XfsBtreeBlock, n: number): void {
  block.view.setUint16(F.BB_NUMRECS, n);
}

function recAt<R>(cur: XfsBtreeCur<R>, n: number): number {
  return cur.ops.headerLen + (n - 1) * cur.ops.recLen;
}

function keyAt<R>(cur: XfsBtreeCur<R>, n: number): number {
  return cur.ops.headerLen + (n - 1) * cur.ops.keyLen;
}

function ptrAt<R>(cur: XfsBtreeCur<R>, n: number, level: number): number {
  const { headerLen, keyLen, ptrLen } = cur.ops;
  return headerLen + maxrecs(cur, level) * keyLen + (n - 1) * ptrLen;
}

function readPtr(view: DataView, at: number, ptrLen: number): number {
  if (ptrLen === 8) return getU64(view, at);
  const ptr = view.getUint32(at);
  return ptr === F.NULLAGBLOCK ? XFS_BTREE_NULL_PTR : ptr;
}

function writePtr(
  view: DataView,
  at: number,
  ptrLen: number,
  ptr: number,
): void {
  if (ptrLen === 8) putU64(view, at, ptr);
  else view.setUint32(at, ptr);
}

function getPtr<R>(
  cur: XfsBtreeCur<R>,
  block: XfsBtreeBlock,
  n: number,
  level: number,
): number {
  return readPtr(block.view, ptrAt(cur, n, level), cur.ops.ptrLen);
}

const LEFT = 0;
const RIGHT = 1;

function siblingAt(ptrLen: number, side: number): number {
  if (ptrLen === 8) return side === LEFT ? F.LBB_LEFTSIB : F.LBB_RIGHTSIB;
  return side === LEFT ? F.SBB_LEFTSIB : F.SBB_RIGHTSIB;
}

function getSibling<R>(
  cur: XfsBtreeCur<R>,
  block: XfsBtreeBlock,
  side: number,
): number {
  const { ptrLen } = cur.ops;
  return readPtr(block.view, siblingAt(ptrLen, side), ptrLen);
}

function setSibling<R>(
  cur: XfsBtreeCur<R>,
  bp: XfsBuf,
  side: number,
  ptr: number,
): void {
  const { ptrLen } = cur.ops;
  const at = siblingAt(ptrLen, side);
  writePtr(bp.view, at, ptrLen, ptr);
  cur.tp!.logBuf(bp, at, at + ptrLen - 1);
}

/** Pointer to a block that is in a buffer (kernel: `xfs_btree_buf_to_ptr`). */
function bufToPtr<R>(cur: XfsBtreeCur<R>, bp: XfsBuf): number {
  const { sb } = cur.mp;
  return cur.ops.ptrLen === 8
    ? sb.daddrToFsb(bp.daddr)
    : sb.daddrToAgbno(bp.daddr);
}

// ---- logging ----

function logRange<R>(
  cur: XfsBtreeCur<R>,
  level: number,
  first: number,
  end: number,
): void {
  if (atIroot(cur, level)) cur.ops.logIroot(cur);
  else cur.tp!.logBuf(cur.bufs[level]!, first, end - 1);
}

/** Everything from entry `first` to `last` of a block, and its header. */
function logEntries<R>(
  cur: XfsBtreeCur<R>,
  bp: XfsBuf,
  level: number,
  first: number,
  last: number,
): void {
  const tp = cur.tp!;
  tp.logBuf(bp, 0, cur.ops.headerLen - 1);
  if (last < first) return;
  if (level === 0) {
    tp.logBuf(bp, recAt(cur, first), recAt(cur, last + 1) - 1);
    return;
  }
  tp.logBuf(bp, keyAt(cur, first), keyAt(cur, last + 1) - 1);
  tp.logBuf(bp, ptrAt(cur, first, level), ptrAt(cur, last + 1, level) - 1);
}

/** The same of the block that the cursor is in. */
function logCurrent<R>(
  cur: XfsBtreeCur<R>,
  level: number,
  first: number,
  last: number,
): void {
  if (atIroot(cur, level)) cur.ops.logIroot(cur);
  else logEntries(cur, cur.bufs[level]!, level, first, last);
}

// ---- reading blocks ----

function corrupt<R>(
  cur: XfsBtreeCur<R>,
  bp: XfsBuf | null,
  why: string,
): number {
  const where = bp === null
    ? cur.ops.name
    : `${cur.ops.name} at daddr ${bp.daddr}`;
  cur.mp.corrupt(where, why);
  return -EFSCORRUPTED;
}

/** Whether a pointer leads to where a block can be (kernel: `xfs_btree_check_ptr`). */
function ptrOk<R>(cur: XfsBtreeCur<R>, ptr: number): boolean {
  const { sb } = cur.mp;
  return cur.ops.ptrLen === 8
    ? sb.verifyFsbno(ptr)
    : sb.verifyAgbno(cur.pag!.agno, ptr);
}

function ptrToDaddr<R>(cur: XfsBtreeCur<R>, ptr: number): number {
  const { sb } = cur.mp;
  return cur.ops.ptrLen === 8
    ? sb.fsbToDaddr(ptr)
    : sb.agbToDaddr(cur.pag!.agno, ptr);
}

/** Reads the block that a pointer leads to (kernel: `xfs_btree_read_buf_block`); it
 * must be of the level. */
function readBufBlock<R>(
  cur: XfsBtreeCur<R>,
  level: number,
  ptr: number,
): XfsBuf | number {
  if (!ptrOk(cur, ptr)) {
    return corrupt(cur, null, `pointer ${ptr} to a block of level ${level}`);
  }
  const { targ, sb } = cur.mp;
  const daddr = ptrToDaddr(cur, ptr);
  const bp = targ.read(daddr, sb.bbPerBlock, cur.ops.bufOps);
  if (typeof bp === "number") return bp;
  const found = bp.view.getUint16(F.BB_LEVEL);
  if (found !== level) return corrupt(cur, bp, `level ${found}, not ${level}`);
  if (level < cur.nlevels - 1 && numrecs(bp) === 0) {
    return corrupt(cur, bp, "empty");
  }
  if (cur.ip !== null) {
    const owner = getU64(bp.view, F.LBB_OWNER);
    if (owner !== cur.ip.ino) return corrupt(cur, bp, `owner ${owner}`);
  }
  return bp;
}

/** A neighbour of a block; it must point back. */
function readSibling<R>(
  cur: XfsBtreeCur<R>,
  bp: XfsBuf,
  level: number,
  side: number,
): XfsBuf | number {
  const ptr = getSibling(cur, bp, side);
  const sib = readBufBlock(cur, level, ptr);
  if (typeof sib === "number") return sib;
  const back = getSibling(cur, sib, side === LEFT ? RIGHT : LEFT);
  if (back !== bufToPtr(cur, bp)) {
    return corrupt(cur, sib, `sibling ${back}, not ${bufToPtr(cur, bp)}`);
  }
  return sib;
}

/** Sets the cursor into the root, before its first entry's place is known. */
function readRoot<R>(cur: XfsBtreeCur<R>): number {
  const level = cur.nlevels - 1;
  if (cur.ops.rootInInode) return 0;
  const bp = readBufBlock(cur, level, cur.ops.rootPtr(cur));
  if (typeof bp === "number") return bp;
  cur.bufs[level] = bp;
  return 0;
}

/** Sets the cursor into the child that it stands at (kernel:
 * `xfs_btree_lookup_get_block`). It must begin with the key that the parent has. */
function readChild<R>(cur: XfsBtreeCur<R>, level: number): number {
  const { ops } = cur;
  const parent = getBlock(cur, level + 1);
  const n = cur.ptrs[level + 1]!;
  const bp = readBufBlock(cur, level, getPtr(cur, parent, n, level + 1));
  if (typeof bp === "number") return bp;
  let view = bp.view;
  let at = ops.headerLen;
  if (level === 0) {
    ops.initKeyFromRec(cur.key2, 0, view, at);
    view = cur.key2;
    at = 0;
  }
  if (ops.cmpTwoKeys(parent.view, keyAt(cur, n), view, at) !== 0) {
    return corrupt(cur, bp, `first key is not that of entry ${n} above`);
  }
  cur.bufs[level] = bp;
  return 0;
}

// ---- walking ----

/**
 * Goes to the next entry of a level (kernel: `xfs_btree_increment`).
 *
 * @returns 1; 0 after the last one; -EFSCORRUPTED or an errno of the device.
 */
export function xfsBtreeIncrement<R>(
  cur: XfsBtreeCur<R>,
  level = 0,
): number {
  const block = getBlock(cur, level);
  if (++cur.ptrs[level]! <= numrecs(block)) return 1;
  if (atIroot(cur, level)) return 0;
  const sibling = getSibling(cur, block, RIGHT);
  if (sibling === XFS_BTREE_NULL_PTR) return 0;
  let up = level + 1;
  while (up < cur.nlevels) {
    if (++cur.ptrs[up]! <= numrecs(getBlock(cur, up))) break;
    up++;
  }
  if (up === cur.nlevels) {
    return corrupt(
      cur,
      cur.bufs[level]!,
      `right sibling ${sibling} of the last`,
    );
  }
  while (up > level) {
    const error = readChild(cur, --up);
    if (error < 0) return error;
    cur.ptrs[up] = 1;
  }
  return checkArrival(cur, level, sibling);
}

/**
 * Goes to the entry before (kernel: `xfs_btree_decrement`).
 *
 * @returns 1; 0 before the first one; -EFSCORRUPTED or an errno of the device.
 */
export function xfsBtreeDecrement<R>(
  cur: XfsBtreeCur<R>,
  level = 0,
): number {
  if (--cur.ptrs[level]! > 0) return 1;
  if (atIroot(cur, level)) return 0;
  const sibling = getSibling(cur, getBlock(cur, level), LEFT);
  if (sibling === XFS_BTREE_NULL_PTR) return 0;
  let up = level + 1;
  while (up < cur.nlevels) {
    if (--cur.ptrs[up]! > 0) break;
    up++;
  }
  if (up === cur.nlevels) {
    return corrupt(
      cur,
      cur.bufs[level]!,
      `left sibling ${sibling} of the first`,
    );
  }
  while (up > level) {
    const error = readChild(cur, --up);
    if (error < 0) return error;
    cur.ptrs[up] = numrecs(cur.bufs[up]!);
  }
  return checkArrival(cur, level, sibling);
}

/** Parents have led where the sibling pointer leads, or one of them is wrong. */
function checkArrival<R>(
  cur: XfsBtreeCur<R>,
  level: number,
  sibling: number,
): number {
  const bp = cur.bufs[level]!;
  if (bufToPtr(cur, bp) === sibling) return 1;
  return corrupt(cur, bp, `the sibling is ${sibling}`);
}

// ---- lookup ----

/**
 * Looks for `cur.rec`'s key (kernel: `xfs_btree_lookup`). When nothing is found with
 * {@linkcode XFS_LOOKUP_EQ}, the cursor stands where the record would be inserted.
 *
 * @returns 1 if there is such a record, 0 if not; -EFSCORRUPTED or an errno of the
 *   device.
 */
export function xfsBtreeLookup<R>(
  cur: XfsBtreeCur<R>,
  dir: XfsLookup,
): number {
  const error = readRoot(cur);
  if (error < 0) return error;
  let diff = 1;
  for (let level = cur.nlevels - 1; level > 0; level--) {
    const block = getBlock(cur, level);
    if (numrecs(block) === 0) return corrupt(cur, cur.bufs[level]!, "empty");
    diff = diff === 0 ? firstEntry(cur, level) : searchNode(cur, block, level);
    const failed = readChild(cur, level - 1);
    if (failed < 0) return failed;
  }
  return lookupLeaf(cur, dir, diff);
}

/** An exact match above is the first entry of everything below. */
function firstEntry<R>(cur: XfsBtreeCur<R>, level: number): number {
  cur.ptrs[level] = 1;
  return 0;
}

/** Finds the last entry whose key is not above the one looked for, else the first. */
function searchNode<R>(
  cur: XfsBtreeCur<R>,
  block: XfsBtreeBlock,
  level: number,
): number {
  const { ops, rec } = cur;
  const { view } = block;
  let low = 1;
  let high = numrecs(block);
  while (low <= high) {
    const mid = (low + high) >>> 1;
    const diff = ops.cmpKeyWithRec(view, keyAt(cur, mid), rec);
    if (diff === 0) {
      cur.ptrs[level] = mid;
      return 0;
    }
    if (diff < 0) low = mid + 1;
    else high = mid - 1;
  }
  cur.ptrs[level] = Math.max(1, high);
  return 1;
}

function lookupLeaf<R>(
  cur: XfsBtreeCur<R>,
  dir: XfsLookup,
  above: number,
): number {
  const { ops, rec } = cur;
  const block = cur.bufs[0]!;
  const n = numrecs(block);
  let low = 1;
  let high = n;
  let equal = 0;
  if (above === 0) equal = 1;
  while (equal === 0 && low <= high) {
    const mid = (low + high) >>> 1;
    const diff = ops.cmpRecWithRec(block.view, recAt(cur, mid), rec);
    if (diff === 0) equal = mid;
    else if (diff < 0) low = mid + 1;
    else high = mid - 1;
  }
  if (equal !== 0) {
    cur.ptrs[0] = equal;
    return 1;
  }
  // `high` is the last record below, `low` the first above.
  cur.ptrs[0] = dir === XFS_LOOKUP_LE ? high : low;
  if (dir === XFS_LOOKUP_EQ) return 0;
  if (dir === XFS_LOOKUP_LE) return high > 0 ? 1 : 0;
  if (low <= n) return 1;
  // The first record above is the first of the next block.
  cur.ptrs[0] = n;
  return xfsBtreeIncrement(cur, 0);
}

/** Goes to the first record of a level's leftmost block.
 * @returns 1; 0 if the tree is empty; a negative errno. */
export function xfsBtreeGotoFirst<R>(cur: XfsBtreeCur<R>): number {
  let error = readRoot(cur);
  for (let level = cur.nlevels - 1; level >= 0; level--) {
    if (error < 0) return error;
    cur.ptrs[level] = 1;
    if (numrecs(getBlock(cur, level)) === 0) {
      return level === 0 ? 0 : corrupt(cur, cur.bufs[level]!, "empty");
    }
    if (level > 0) error = readChild(cur, level - 1);
  }
  return 1;
}

/** Goes to the last record of all.
 * @returns 1; 0 if the tree is empty; a negative errno. */
export function xfsBtreeGotoLast<R>(cur: XfsBtreeCur<R>): number {
  let error = readRoot(cur);
  for (let level = cur.nlevels - 1; level >= 0; level--) {
    if (error < 0) return error;
    const n = numrecs(getBlock(cur, level));
    cur.ptrs[level] = n;
    if (n === 0) {
      return level === 0 ? 0 : corrupt(cur, cur.bufs[level]!, "empty");
    }
    if (level > 0) error = readChild(cur, level - 1);
  }
  return 1;
}

/** Whether the cursor is in the rightmost block of a level (kernel:
 * `xfs_btree_islastblock`). */
export function xfsBtreeIsLastBlock<R>(
  cur: XfsBtreeCur<R>,
  level: number,
): boolean {
  return getSibling(cur, getBlock(cur, level), RIGHT) === XFS_BTREE_NULL_PTR;
}

/**
 * Decodes the record that the cursor stands at (kernel: `xfs_btree_get_rec`).
 *
 * @param rec Where to; untouched if there is none.
 * @returns 1, or 0 if the cursor is before the first or after the last record.
 */
export function xfsBtreeGetRec<R>(cur: XfsBtreeCur<R>, rec: R): number {
  const block = cur.bufs[0]!;
  const n = cur.ptrs[0]!;
  if (n <= 0 || n > numrecs(block)) return 0;
  cur.ops.getRec(block.view, recAt(cur, n), rec);
  return 1;
}

/** Goes to the last entry of the block (kernel: `xfs_btree_lastrec`). */
function lastrec<R>(cur: XfsBtreeCur<R>, level: number): void {
  cur.ptrs[level] = numrecs(getBlock(cur, level));
}

/** Goes to the first entry of the block (kernel: `xfs_btree_firstrec`). */
function firstrec<R>(cur: XfsBtreeCur<R>, level: number): void {
  cur.ptrs[level] = 1;
}

// ---- keys of nodes ----

/** Writes what a parent has to have for a block: its lowest key, and the highest
 * (kernel: `xfs_btree_get_keys`). */
function getKeys<R>(
  cur: XfsBtreeCur<R>,
  block: XfsBtreeBlock,
  level: number,
  key: DataView,
): void {
  const { ops } = cur;
  if (level === 0) ops.initKeyFromRec(key, 0, block.view, ops.headerLen);
  else copyKey(key, 0, block.view, ops.headerLen, ops.lowKeyLen);
  if (ops.overlapping) getHighKey(cur, block, level, key);
}

function copyKey(
  to: DataView,
  toAt: number,
  from: DataView,
  fromAt: number,
  len: number,
): void {
  for (let i = 0; i < len; i += 4) {
    to.setUint32(toAt + i, from.getUint32(fromAt + i));
  }
}

/** The highest of the high keys of a block's entries, which need not be the last's. */
function getHighKey<R>(
  cur: XfsBtreeCur<R>,
  block: XfsBtreeBlock,
  level: number,
  key: DataView,
): void {
  const { ops } = cur;
  const at = ops.lowKeyLen;
  const n = numrecs(block);
  if (level > 0) {
    copyKey(key, at, block.view, keyAt(cur, 1) + at, at);
    for (let i = 2; i <= n; i++) {
      const high = keyAt(cur, i) + at;
      if (ops.cmpTwoKeys(block.view, high, key, at) > 0) {
        copyKey(key, at, block.view, high, at);
      }
    }
    return;
  }
  const { key2 } = cur;
  ops.initHighKeyFromRec(key, at, block.view, recAt(cur, 1));
  for (let i = 2; i <= n; i++) {
    ops.initHighKeyFromRec(key2, 0, block.view, recAt(cur, i));
    if (ops.cmpTwoKeys(key2, 0, key, at) > 0) copyKey(key, at, key2, 0, at);
  }
}

/** After a change at `ptr` the parents may need another key. */
function needsKeyUpdate<R>(cur: XfsBtreeCur<R>, ptr: number): boolean {
  return cur.ops.overlapping || ptr === 1;
}

/** Corrects the parents' keys for the block that the cursor is in (kernel:
 * `xfs_btree_update_keys`).
 * @param force Goes up to the root even where nothing changes. */
function updateKeys<R>(
  cur: XfsBtreeCur<R>,
  level: number,
  force = false,
): void {
  const { ops, key } = cur;
  if (numrecs(getBlock(cur, level)) === 0) return;
  for (let up = level + 1; up < cur.nlevels; up++) {
    getKeys(cur, getBlock(cur, up - 1), up - 1, key);
    const block = getBlock(cur, up);
    const n = cur.ptrs[up]!;
    // Of a tree with blocks that were too empty from the start.
    if (n === 0) return;
    const at = keyAt(cur, n);
    if (!force && sameKey(key, block.view, at, ops.keyLen)) return;
    copyKey(block.view, at, key, 0, ops.keyLen);
    logRange(cur, up, at, at + ops.keyLen);
    if (!ops.overlapping && n !== 1) return;
  }
}

function sameKey(
  key: DataView,
  view: DataView,
  at: number,
  len: number,
): boolean {
  for (let i = 0; i < len; i += 4) {
    if (key.getUint32(i) !== view.getUint32(at + i)) return false;
  }
  return true;
}

/**
 * Writes `cur.rec` over the record that the cursor stands at (kernel:
 * `xfs_btree_update`).
 *
 * @returns 0.
 */
export function xfsBtreeUpdate<R>(cur: XfsBtreeCur<R>): number {
  const bp = cur.bufs[0]!;
  const n = cur.ptrs[0]!;
  bugOn(n < 1 || n > numrecs(bp), `${cur.ops.name}: update of no record`);
  const at = recAt(cur, n);
  cur.ops.putRec(bp.view, at, cur.rec);
  cur.tp!.logBuf(bp, at, at + cur.ops.recLen - 1);
  if (needsKeyUpdate(cur, n)) updateKeys(cur, 0);
  return 0;
}

// ---- moving entries ----

/** Copies `n` entries of one block to another, from entry `from` to entry `to`. */
function copyEntries<R>(
  cur: XfsBtreeCur<R>,
  level: number,
  src: XfsBtreeBlock,
  from: number,
  dst: XfsBtreeBlock,
  to: number,
  n: number,
): void {
  if (level === 0) {
    move(src, recAt(cur, from), dst, recAt(cur, to), n * cur.ops.recLen);
    return;
  }
  const { keyLen, ptrLen } = cur.ops;
  const srcPtr = ptrAt(cur, from, level);
  const dstPtr = ptrAt(cur, to, level);
  move(src, keyAt(cur, from), dst, keyAt(cur, to), n * keyLen);
  move(src, srcPtr, dst, dstPtr, n * ptrLen);
}

function move(
  src: XfsBtreeBlock,
  from: number,
  dst: XfsBtreeBlock,
  to: number,
  len: number,
): void {
  if (src === dst) src.data.copyWithin(to, from, from + len);
  else dst.data.set(src.data.subarray(from, from + len), to);
}

/** Makes or closes a gap: entries from `at` on move by `by` places. */
function shiftEntries<R>(
  cur: XfsBtreeCur<R>,
  level: number,
  block: XfsBtreeBlock,
  at: number,
  by: number,
): void {
  const n = numrecs(block) - at + 1;
  if (n > 0) copyEntries(cur, level, block, at, block, at + by, n);
}

/** Moves the first entry of this block to its left neighbour (kernel:
 * `xfs_btree_lshift`).
 * @returns 1; 0 if that is not possible; a negative errno. */
function lshift<R>(cur: XfsBtreeCur<R>, level: number): number {
  if (atIroot(cur, level)) return 0;
  const right = cur.bufs[level]!;
  if (getSibling(cur, right, LEFT) === XFS_BTREE_NULL_PTR) return 0;
  // The entry under the cursor stays where it is.
  if (cur.ptrs[level]! <= 1) return 0;
  const left = readSibling(cur, right, level, LEFT);
  if (typeof left === "number") return left;
  const n = numrecs(left) + 1;
  if (n > maxrecs(cur, level)) return 0;
  copyEntries(cur, level, right, 1, left, n, 1);
  setNumrecs(left, n);
  logEntries(cur, left, level, n, n);
  shiftEntries(cur, level, right, 2, -1);
  setNumrecs(right, numrecs(right) - 1);
  logEntries(cur, right, level, 1, numrecs(right));
  updateKeys(cur, level);
  if (cur.ops.overlapping) {
    const error = updateKeysOfLeft(cur, level);
    if (error < 0) return error;
  }
  cur.ptrs[level]!--;
  return 1;
}

/** High keys above the left neighbour. */
function updateKeysOfLeft<R>(cur: XfsBtreeCur<R>, level: number): number {
  const tcur = xfsBtreeDupCursor(cur);
  firstrec(tcur, level);
  const there = xfsBtreeDecrement(tcur, level);
  if (there === 1) updateKeys(tcur, level);
  xfsBtreeDelCursor(tcur);
  return there === 0
    ? corrupt(cur, cur.bufs[level]!, "no left neighbour")
    : there;
}

/** Moves the last entry of this block to its right neighbour (kernel:
 * `xfs_btree_rshift`).
 * @returns 1; 0 if that is not possible; a negative errno. */
function rshift<R>(cur: XfsBtreeCur<R>, level: number): number {
  if (atIroot(cur, level)) return 0;
  const left = cur.bufs[level]!;
  if (getSibling(cur, left, RIGHT) === XFS_BTREE_NULL_PTR) return 0;
  const lrecs = numrecs(left);
  // The entry under the cursor stays where it is.
  if (cur.ptrs[level]! >= lrecs) return 0;
  const right = readSibling(cur, left, level, RIGHT);
  if (typeof right === "number") return right;
  if (numrecs(right) === maxrecs(cur, level)) return 0;
  // Gone there first: afterwards its first key is not what the parent has.
  const tcur = xfsBtreeDupCursor(cur);
  lastrec(tcur, level);
  const there = xfsBtreeIncrement(tcur, level);
  if (there === 1) {
    moveToRight(cur, level, left, right);
    if (cur.ops.overlapping) updateKeys(cur, level);
    updateKeys(tcur, level);
  }
  xfsBtreeDelCursor(tcur);
  return there === 0 ? corrupt(cur, left, "no right neighbour") : there;
}

function moveToRight<R>(
  cur: XfsBtreeCur<R>,
  level: number,
  left: XfsBuf,
  right: XfsBuf,
): void {
  const lrecs = numrecs(left);
  shiftEntries(cur, level, right, 1, 1);
  copyEntries(cur, level, left, lrecs, right, 1, 1);
  setNumrecs(right, numrecs(right) + 1);
  logEntries(cur, right, level, 1, numrecs(right));
  setNumrecs(left, lrecs - 1);
  logEntries(cur, left, level, 1, 0);
}

// ---- new blocks ----

/** Empties a block and fills in its header, for the group or the inode of the cursor
 * (kernel: `xfs_btree_init_buf`). */
export function xfsBtreeInitBlock<R>(
  cur: XfsBtreeCur<R>,
  bp: XfsBuf,
  level: number,
): void {
  const { view } = bp;
  const { ops, mp } = cur;
  bp.data.fill(0);
  view.setUint32(F.BB_MAGIC, ops.magic);
  view.setUint16(F.BB_LEVEL, level);
  for (const side of [LEFT, RIGHT]) {
    const at = siblingAt(ops.ptrLen, side);
    writePtr(view, at, ops.ptrLen, XFS_BTREE_NULL_PTR);
  }
  if (ops.ptrLen === 8) {
    putU64(view, F.LBB_BLKNO, bp.daddr);
    bp.data.set(mp.targ.uuid, F.LBB_UUID);
    putU64(view, F.LBB_OWNER, cur.ip!.ino);
  } else {
    putU64(view, F.SBB_BLKNO, bp.daddr);
    bp.data.set(mp.targ.uuid, F.SBB_UUID);
    view.setUint32(F.SBB_OWNER, cur.pag!.agno);
  }
}

/** A new block of the tree, empty, with its header.
 * @returns It; 0 if there is no space; a negative errno. */
function allocBlock<R>(
  cur: XfsBtreeCur<R>,
  level: number,
  near: number,
): XfsBuf | number {
  const ptr = cur.ops.allocBlock(cur, near);
  if (ptr <= 0) return ptr;
  const daddr = ptrToDaddr(cur, ptr);
  const old = cur.mp.targ.incore(daddr);
  if (old !== null && (old.dirty || old.trans !== null)) {
    return corrupt(cur, old, "in use, and allocated again");
  }
  const bp = cur.tp!.getBuf(daddr, cur.mp.sb.bbPerBlock, cur.ops.bufOps);
  xfsBtreeInitBlock(cur, bp, level);
  return bp;
}

/** Gives a block back (kernel: `xfs_btree_free_block`). */
function freeBlock<R>(cur: XfsBtreeCur<R>, bp: XfsBuf): number {
  const error = cur.ops.freeBlock(cur, bp);
  if (error < 0) return error;
  cur.tp!.binval(bp);
  return 0;
}

/** Splits the block in two (kernel: `xfs_btree_split`). The cursor goes where its
 * entry is; `splitPtr`, `key` and `splitCur` describe the right half.
 * @returns 1; 0 if there is no space; a negative errno. */
function split<R>(
  cur: XfsBtreeCur<R>,
  level: number,
  key: DataView,
): number {
  const left = cur.bufs[level]!;
  const lptr = bufToPtr(cur, left);
  const right = allocBlock(cur, level, lptr);
  if (typeof right === "number") return right;
  const error = linkRight(cur, level, left, right);
  if (error < 0) return error;
  const total = numrecs(left);
  let rrecs = total >>> 1;
  // The half that the entry goes to is the smaller one.
  if ((total & 1) !== 0 && cur.ptrs[level]! <= rrecs + 1) rrecs++;
  const lrecs = total - rrecs;
  copyEntries(cur, level, left, lrecs + 1, right, 1, rrecs);
  setNumrecs(right, rrecs);
  setNumrecs(left, lrecs);
  logEntries(cur, right, level, 1, rrecs);
  logEntries(cur, left, level, 1, 0);
  getKeys(cur, right, level, key);
  if (cur.ops.overlapping) updateKeys(cur, level);
  if (cur.ptrs[level]! > lrecs + 1) {
    cur.bufs[level] = right;
    cur.ptrs[level]! -= lrecs;
  }
  cur.splitPtr = bufToPtr(cur, right);
  if (level + 1 < cur.nlevels) {
    cur.splitCur = xfsBtreeDupCursor(cur);
    cur.splitCur.ptrs[level + 1]!++;
  }
  return 1;
}

/** Puts a new block to the right of another into the list of the level. */
function linkRight<R>(
  cur: XfsBtreeCur<R>,
  level: number,
  left: XfsBuf,
  right: XfsBuf,
): number {
  const next = getSibling(cur, left, RIGHT);
  const ptr = bufToPtr(cur, right);
  if (next !== XFS_BTREE_NULL_PTR) {
    const bp = readSibling(cur, left, level, RIGHT);
    if (typeof bp === "number") return bp;
    setSibling(cur, bp, LEFT, ptr);
  }
  setSibling(cur, right, LEFT, bufToPtr(cur, left));
  setSibling(cur, right, RIGHT, next);
  setSibling(cur, left, RIGHT, ptr);
  return 0;
}

/** Puts a new root above the two halves of the old one (kernel:
 * `xfs_btree_new_root`).
 * @returns 1; 0 if there is no space; a negative errno. */
function newRoot<R>(cur: XfsBtreeCur<R>): number {
  const { ops } = cur;
  const level = cur.nlevels;
  bugOn(level >= F.XFS_BTREE_MAXLEVELS, `${ops.name}: too many levels`);
  const root = allocBlock(cur, level, ops.rootPtr(cur));
  if (typeof root === "number") return root;
  const bp = cur.bufs[level - 1]!;
  const inLeft = getSibling(cur, bp, RIGHT) !== XFS_BTREE_NULL_PTR;
  const other = readSibling(cur, bp, level - 1, inLeft ? RIGHT : LEFT);
  if (typeof other === "number") return other;
  ops.setRoot(cur, bufToPtr(cur, root), 1);
  cur.nlevels++;
  cur.bufs[level] = root;
  cur.ptrs[level] = inLeft ? 1 : 2;
  setNumrecs(root, 2);
  setRootEntry(cur, root, 1, inLeft ? bp : other);
  setRootEntry(cur, root, 2, inLeft ? other : bp);
  logEntries(cur, root, level, 1, 2);
  return 1;
}

function setRootEntry<R>(
  cur: XfsBtreeCur<R>,
  root: XfsBuf,
  n: number,
  child: XfsBuf,
): void {
  const { ops, key } = cur;
  const level = cur.nlevels - 1;
  getKeys(cur, child, level - 1, key);
  copyKey(root.view, keyAt(cur, n), key, 0, ops.keyLen);
  const at = ptrAt(cur, n, level);
  writePtr(root.view, at, ops.ptrLen, bufToPtr(cur, child));
}

/**
 * Moves what the root in the inode holds to a new block below it (kernel:
 * `xfs_btree_new_iroot`). The cursor stands in the root.
 *
 * @returns 1; 0 if there is no space; a negative errno.
 */
export function xfsBtreeNewIroot<R>(cur: XfsBtreeCur<R>): number {
  const { ops } = cur;
  const level = cur.nlevels - 1;
  bugOn(level + 1 >= F.XFS_BTREE_MAXLEVELS, `${ops.name}: too many levels`);
  const root = ops.iroot(cur);
  const near = getPtr(cur, root, 1, level);
  const child = allocBlock(cur, level, near);
  if (typeof child === "number") return child;
  const n = numrecs(root);
  const rootPtrs = ptrAt(cur, 1, level);
  cur.nlevels++;
  cur.bufs[level] = child;
  cur.ptrs[level + 1] = 1;
  move(root, keyAt(cur, 1), child, keyAt(cur, 1), n * ops.keyLen);
  move(root, rootPtrs, child, ptrAt(cur, 1, level), n * ops.ptrLen);
  setNumrecs(child, n);
  logEntries(cur, child, level, 1, n);
  root.view.setUint16(F.BB_LEVEL, level + 1);
  setNumrecs(root, 1);
  getKeys(cur, child, level, cur.key);
  copyKey(root.view, keyAt(cur, 1), cur.key, 0, ops.keyLen);
  writePtr(root.view, rootPtrs, ops.ptrLen, bufToPtr(cur, child));
  ops.logIroot(cur);
  return 1;
}

// ---- insertion ----

/** Makes room in a full block: by a neighbour, else by splitting (kernel:
 * `xfs_btree_make_block_unfull`).
 * @returns 1; 0 if there is no space; a negative errno. */
function makeBlockUnfull<R>(
  cur: XfsBtreeCur<R>,
  level: number,
  key: DataView,
): number {
  if (atIroot(cur, level)) return xfsBtreeNewIroot(cur);
  const right = rshift(cur, level);
  if (right !== 0) return right;
  const left = lshift(cur, level);
  if (left !== 0) return left;
  return split(cur, level, key);
}

/** Inserts an entry at the cursor (kernel: `xfs_btree_insrec`): in a leaf `rec`, in a
 * node `key` and `ptr`. A split leaves its right half in `splitPtr`, `splitCur` and
 * `key`, to be inserted above.
 * @returns 1; 0 if there is no space; a negative errno. */
function insrec<R>(
  cur: XfsBtreeCur<R>,
  level: number,
  ptr: number,
  key: DataView,
  rec: R,
): number {
  cur.splitPtr = XFS_BTREE_NULL_PTR;
  cur.splitCur = null;
  if (level >= cur.nlevels) return newRoot(cur);
  if (cur.ptrs[level]! === 0) return 0;
  const old = getBlock(cur, level);
  if (level > 0) copyKey(cur.ownKey, 0, key, 0, cur.ops.keyLen);
  if (numrecs(old) === maxrecs(cur, level)) {
    const done = makeBlockUnfull(cur, level, key);
    if (done !== 1) return done;
  }
  const block = getBlock(cur, level);
  const n = cur.ptrs[level]!;
  shiftEntries(cur, level, block, n, 1);
  if (level === 0) cur.ops.putRec(block.view, recAt(cur, n), rec);
  else putEntry(cur, block, level, n, ptr);
  setNumrecs(block, numrecs(block) + 1);
  logCurrent(cur, level, n, numrecs(block));
  if (block !== old && cur.splitPtr !== XFS_BTREE_NULL_PTR) {
    // It went to the right half, of which the parents do not know yet.
    getKeys(cur, block, level, key);
  } else if (needsKeyUpdate(cur, n)) updateKeys(cur, level);
  return 1;
}

function putEntry<R>(
  cur: XfsBtreeCur<R>,
  block: XfsBtreeBlock,
  level: number,
  n: number,
  ptr: number,
): void {
  const { keyLen, ptrLen } = cur.ops;
  copyKey(block.view, keyAt(cur, n), cur.ownKey, 0, keyLen);
  writePtr(block.view, ptrAt(cur, n, level), ptrLen, ptr);
}

/**
 * Inserts `cur.rec` where the cursor stands, which a lookup with
 * {@linkcode XFS_LOOKUP_EQ} has found (kernel: `xfs_btree_insert`). Afterwards the
 * cursor is good for another lookup only.
 *
 * @returns 1; 0 if the tree could not get a block; a negative errno. In both cases the
 *   tree may be half changed: the transaction is lost.
 */
export function xfsBtreeInsert<R>(cur: XfsBtreeCur<R>): number {
  let pcur = cur;
  let ptr = XFS_BTREE_NULL_PTR;
  for (let level = 0;; level++) {
    const done = insrec(pcur, level, ptr, cur.upKey, cur.rec);
    const next = pcur.splitCur;
    ptr = pcur.splitPtr;
    pcur.splitCur = null;
    const over = done !== 1 || ptr === XFS_BTREE_NULL_PTR;
    if (pcur !== cur && (over || next !== null)) {
      cur.nlevels = pcur.nlevels;
      cur.allocated += pcur.allocated;
      xfsBtreeDelCursor(pcur);
    }
    if (over) {
      if (next !== null) xfsBtreeDelCursor(next);
      return done;
    }
    if (next !== null) pcur = next;
  }
}

// ---- deletion ----

/**
 * Deletes the record that the cursor stands at (kernel: `xfs_btree_delete`). The
 * cursor then stands at the one after it, if it is in the same block; otherwise it is
 * good for another lookup only.
 *
 * @returns 1; 0 if the cursor stands at none; a negative errno.
 */
export function xfsBtreeDelete<R>(cur: XfsBtreeCur<R>): number {
  let done = 2;
  let joined = false;
  for (let level = 0; done === 2; level++) {
    done = delrec(cur, level);
    if (done < 0) return done;
    if (done === 2) joined = true;
  }
  // A join leaves high keys above alone, as the entry to be deleted is in between.
  if (joined && cur.ops.overlapping) updateKeys(cur, 0, true);
  return done;
}

/** Deletes an entry of a level (kernel: `xfs_btree_delrec`).
 * @returns 2 if the entry that the cursor stands at one level above has to go, too;
 *   else as {@linkcode xfsBtreeDelete}. */
function delrec<R>(cur: XfsBtreeCur<R>, level: number): number {
  const n = cur.ptrs[level]!;
  const block = getBlock(cur, level);
  const left = numrecs(block) - 1;
  if (n === 0 || n > left + 1) return 0;
  shiftEntries(cur, level, block, n + 1, -1);
  setNumrecs(block, left);
  logCurrent(cur, level, n, left);
  if (level === cur.nlevels - 1) return shrinkRoot(cur, level);
  if (needsKeyUpdate(cur, n)) updateKeys(cur, level);
  if (left >= minrecs(cur, level)) return stepBack(cur, level);
  return rebalance(cur, level);
}

/** In a node the cursor goes to the entry before (kernel: `xfs_btree_dec_cursor`). */
function stepBack<R>(cur: XfsBtreeCur<R>, level: number): number {
  if (level === 0 || level >= cur.nlevels) return 1;
  const there = xfsBtreeDecrement(cur, level);
  return there < 0 ? there : 1;
}

/** A root with one child is not needed. */
function shrinkRoot<R>(cur: XfsBtreeCur<R>, level: number): number {
  if (level === 0) return 1;
  const bp = cur.bufs[level]!;
  if (cur.ops.rootInInode) {
    const error = killIroot(cur);
    if (error < 0) return error;
  } else if (numrecs(bp) === 1) return killRoot(cur, bp, level);
  return stepBack(cur, level);
}

/** The only child of the root becomes the root (kernel: `xfs_btree_kill_root`). */
function killRoot<R>(
  cur: XfsBtreeCur<R>,
  bp: XfsBuf,
  level: number,
): number {
  cur.ops.setRoot(cur, getPtr(cur, bp, 1, level), -1);
  const error = freeBlock(cur, bp);
  if (error < 0) return error;
  cur.bufs[level] = null;
  cur.nlevels--;
  return 1;
}

/** The only child of the root in the inode moves into the root, if it fits and is no
 * leaf (kernel: `xfs_btree_kill_iroot`). */
function killIroot<R>(cur: XfsBtreeCur<R>): number {
  const { ops } = cur;
  const level = cur.nlevels - 1;
  const root = ops.iroot(cur);
  if (level === 1 || numrecs(root) !== 1) return 0;
  const child = cur.bufs[level - 1]!;
  const n = numrecs(child);
  if (n > ops.irootMaxrecs(cur)) return 0;
  const childPtrs = ptrAt(cur, 1, level - 1);
  const rootPtrs = ptrAt(cur, 1, level);
  move(child, keyAt(cur, 1), root, keyAt(cur, 1), n * ops.keyLen);
  move(child, childPtrs, root, rootPtrs, n * ops.ptrLen);
  setNumrecs(root, n);
  root.view.setUint16(F.BB_LEVEL, level - 1);
  const error = freeBlock(cur, child);
  if (error < 0) return error;
  cur.bufs[level - 1] = null;
  cur.nlevels--;
  ops.logIroot(cur);
  return 0;
}

/** A block has too few entries: gets one from a neighbour, or joins with one. */
function rebalance<R>(cur: XfsBtreeCur<R>, level: number): number {
  const bp = cur.bufs[level]!;
  const hasRight = getSibling(cur, bp, RIGHT) !== XFS_BTREE_NULL_PTR;
  const hasLeft = getSibling(cur, bp, LEFT) !== XFS_BTREE_NULL_PTR;
  if (atIroot(cur, level + 1) && !hasRight && !hasLeft) {
    const error = killIroot(cur);
    return error < 0 ? error : stepBack(cur, level);
  }
  if (hasRight) {
    const done = borrowFromRight(cur, level);
    if (done !== 0) return done < 0 ? done : stepBack(cur, level);
  }
  if (hasLeft) {
    const done = borrowFromLeft(cur, level);
    // What the cursor stood at has moved by one.
    if (done === 1 && level === 0) cur.ptrs[0]!++;
    if (done !== 0) return done;
    const left = readSibling(cur, bp, level, LEFT);
    if (typeof left === "number") return left;
    if (fits(cur, level, left, bp)) return join(cur, level, left, bp);
  }
  if (hasRight) {
    const right = readSibling(cur, bp, level, RIGHT);
    if (typeof right === "number") return right;
    if (fits(cur, level, bp, right)) return join(cur, level, bp, right);
  }
  return stepBack(cur, level);
}

function fits<R>(
  cur: XfsBtreeCur<R>,
  level: number,
  left: XfsBuf,
  right: XfsBuf,
): boolean {
  return numrecs(left) + numrecs(right) <= maxrecs(cur, level);
}

function borrowFromRight<R>(cur: XfsBtreeCur<R>, level: number): number {
  const tcur = xfsBtreeDupCursor(cur);
  lastrec(tcur, level);
  let done = xfsBtreeIncrement(tcur, level);
  if (done === 0) done = corrupt(cur, cur.bufs[level]!, "no right neighbour");
  if (done === 1) {
    const spare = numrecs(tcur.bufs[level]!) - 1 >= minrecs(cur, level);
    lastrec(tcur, level);
    done = spare ? lshift(tcur, level) : 0;
  }
  xfsBtreeDelCursor(tcur);
  return done;
}

function borrowFromLeft<R>(cur: XfsBtreeCur<R>, level: number): number {
  const tcur = xfsBtreeDupCursor(cur);
  firstrec(tcur, level);
  let done = xfsBtreeDecrement(tcur, level);
  if (done === 0) done = corrupt(cur, cur.bufs[level]!, "no left neighbour");
  if (done === 1) {
    const spare = numrecs(tcur.bufs[level]!) - 1 >= minrecs(cur, level);
    firstrec(tcur, level);
    done = spare ? rshift(tcur, level) : 0;
  }
  xfsBtreeDelCursor(tcur);
  return done;
}

/** Moves everything to the left one of two blocks and frees the other one. The cursor
 * above then stands at the entry of that.
 * @returns 2, or a negative errno. */
function join<R>(
  cur: XfsBtreeCur<R>,
  level: number,
  left: XfsBuf,
  right: XfsBuf,
): number {
  const lrecs = numrecs(left);
  const total = lrecs + numrecs(right);
  copyEntries(cur, level, right, 1, left, lrecs + 1, total - lrecs);
  setNumrecs(left, total);
  let error = unlinkRight(cur, level, left, right);
  if (error < 0) return error;
  logEntries(cur, left, level, lrecs + 1, total);
  error = freeBlock(cur, right);
  if (error < 0) return error;
  if (cur.bufs[level] === right) {
    cur.bufs[level] = left;
    cur.ptrs[level]! += lrecs;
  } else {
    const there = xfsBtreeIncrement(cur, level + 1);
    if (there < 0) return there;
  }
  // A node's place is still that of what was deleted from it.
  if (level > 0) cur.ptrs[level]!--;
  return 2;
}

/** Takes a block out of the list of its level. */
function unlinkRight<R>(
  cur: XfsBtreeCur<R>,
  level: number,
  left: XfsBuf,
  right: XfsBuf,
): number {
  const next = getSibling(cur, right, RIGHT);
  if (next !== XFS_BTREE_NULL_PTR) {
    const bp = readSibling(cur, right, level, RIGHT);
    if (typeof bp === "number") return bp;
    setSibling(cur, bp, LEFT, bufToPtr(cur, left));
  }
  setSibling(cur, left, RIGHT, next);
  return 0;
}

// ---- queries ----

/**
 * What a query calls with each record, decoded into a record of the cursor's own
 * (kernel: `xfs_btree_query_range_fn`). It must not change the tree.
 *
 * @param priv What the caller of the query gave.
 * @returns 0 to go on; anything else ends the query and is its result.
 */
export type XfsBtreeQueryFn<R, P> = (
  cur: XfsBtreeCur<R>,
  rec: R,
  priv: P,
) => number;

/**
 * Calls `fn` with every record that overlaps a range of keys, in order (kernel:
 * `xfs_btree_query_range`). `cur.rec` is used up.
 *
 * @param low Record whose low key is the lower bound.
 * @param high Record whose low key is the upper bound, included.
 * @returns 0; what `fn` returned if that was not 0; -EFSCORRUPTED or an errno of the
 *   device.
 */
export function xfsBtreeQueryRange<R, P>(
  cur: XfsBtreeCur<R>,
  low: R,
  high: R,
  fn: XfsBtreeQueryFn<R, P>,
  priv: P,
): number {
  return cur.ops.overlapping
    ? overlappedQuery(cur, low, high, fn, priv)
    : simpleQuery(cur, low, high, fn, priv);
}

/** Kernel: `xfs_btree_simple_query_range`. */
function simpleQuery<R, P>(
  cur: XfsBtreeCur<R>,
  low: R,
  high: R,
  fn: XfsBtreeQueryFn<R, P>,
  priv: P,
): number {
  const { ops } = cur;
  ops.copyRec(low, cur.rec);
  let there = xfsBtreeLookup(cur, XFS_LOOKUP_LE);
  if (there === 0) there = xfsBtreeIncrement(cur);
  // The last record below the bound may reach into the range.
  else if (there === 1 && endsBelow(cur, low)) there = xfsBtreeIncrement(cur);
  while (there === 1) {
    const { view } = cur.bufs[0]!;
    const at = recAt(cur, cur.ptrs[0]!);
    if (ops.cmpRecWithRec(view, at, high) > 0) return 0;
    ops.getRec(view, at, cur.found);
    const result = fn(cur, cur.found, priv);
    if (result !== 0) return result;
    there = xfsBtreeIncrement(cur);
  }
  return there;
}

function endsBelow<R>(cur: XfsBtreeCur<R>, low: R): boolean {
  const at = recAt(cur, cur.ptrs[0]!);
  cur.ops.initHighKeyFromRec(cur.key2, 0, cur.bufs[0]!.view, at);
  return cur.ops.cmpKeyWithRec(cur.key2, 0, low) < 0;
}

/** Goes down wherever the range overlaps what a child holds (kernel:
 * `xfs_btree_overlapped_query_range`). */
function overlappedQuery<R, P>(
  cur: XfsBtreeCur<R>,
  low: R,
  high: R,
  fn: XfsBtreeQueryFn<R, P>,
  priv: P,
): number {
  const { ops } = cur;
  let level = cur.nlevels - 1;
  let error = readRoot(cur);
  if (error < 0) return error;
  cur.ptrs[level] = 1;
  while (level < cur.nlevels) {
    const block = getBlock(cur, level);
    const n = cur.ptrs[level]!;
    const at = level === 0 ? recAt(cur, n) : keyAt(cur, n);
    if (n > numrecs(block) || isAbove(cur, block, level, at, high)) {
      level++;
      if (level < cur.nlevels) cur.ptrs[level]!++;
    } else if (level > 0) {
      const high = at + ops.lowKeyLen;
      if (ops.cmpKeyWithRec(block.view, high, low) < 0) {
        cur.ptrs[level]!++;
        continue;
      }
      error = readChild(cur, --level);
      if (error < 0) return error;
      cur.ptrs[level] = 1;
    } else {
      if (!endsBelow(cur, low)) {
        ops.getRec(block.view, at, cur.found);
        const result = fn(cur, cur.found, priv);
        if (result !== 0) return result;
      }
      cur.ptrs[0]!++;
    }
  }
  return 0;
}

function isAbove<R>(
  cur: XfsBtreeCur<R>,
  block: XfsBtreeBlock,
  level: number,
  at: number,
  high: R,
): boolean {
  const { ops } = cur;
  const diff = level === 0
    ? ops.cmpRecWithRec(block.view, at, high)
    : ops.cmpKeyWithRec(block.view, at, high);
  return diff > 0;
}

/**
 * Calls `fn` with every record, in order (kernel: `xfs_btree_query_all`).
 *
 * @returns As {@linkcode xfsBtreeQueryRange}.
 */
export function xfsBtreeQueryAll<R, P>(
  cur: XfsBtreeCur<R>,
  fn: XfsBtreeQueryFn<R, P>,
  priv: P,
): number {
  let there = xfsBtreeGotoFirst(cur);
  while (there === 1) {
    xfsBtreeGetRec(cur, cur.found);
    const result = fn(cur, cur.found, priv);
    if (result !== 0) return result;
    there = xfsBtreeIncrement(cur);
  }
  return there;
}

/**
 * Calls `fn` with every block of the tree, from the root down and from left to right
 * (kernel: `xfs_btree_visit_blocks`); of a root in an inode with null.
 *
 * @returns As {@linkcode xfsBtreeQueryRange}.
 */
export function xfsBtreeVisitBlocks<R, P>(
  cur: XfsBtreeCur<R>,
  fn: (
    cur: XfsBtreeCur<R>,
    level: number,
    bp: XfsBuf | null,
    priv: P,
  ) => number,
  priv: P,
): number {
  let error = xfsBtreeGotoFirst(cur);
  if (error < 0) return error;
  for (let level = cur.nlevels - 1; level >= 0; level--) {
    if (atIroot(cur, level)) {
      error = fn(cur, level, null, priv);
      if (error !== 0) return error;
      continue;
    }
    let bp = cur.bufs[level]!;
    const left = getSibling(cur, bp, LEFT);
    // Each points back to the one before, and the first to none: no ring.
    if (left !== XFS_BTREE_NULL_PTR) {
      return corrupt(cur, bp, `left sibling ${left} of the first`);
    }
    for (;;) {
      error = fn(cur, level, bp, priv);
      if (error !== 0) return error;
      if (getSibling(cur, bp, RIGHT) === XFS_BTREE_NULL_PTR) break;
      const next = readSibling(cur, bp, level, RIGHT);
      if (typeof next === "number") return next;
      bp = next;
    }
  }
  return 0;
}

/** Blocks of the tree, a root in an inode not counted (kernel:
 * `xfs_btree_count_blocks`), or a negative errno. */
export function xfsBtreeCountBlocks<R>(cur: XfsBtreeCur<R>): number {
  const count = { blocks: 0 };
  const error = xfsBtreeVisitBlocks(cur, countBlock, count);
  return error < 0 ? error : count.blocks;
}

function countBlock(
  _cur: unknown,
  _level: number,
  bp: XfsBuf | null,
  count: { blocks: number },
): number {
  if (bp !== null) count.blocks++;
  return 0;
}

// ---- sizes ----

/** Most records of a leaf and most children of a node, of trees in blocks (kernel:
 * `m_*_mxr`). */
export function xfsBtreeMaxrecs<R>(
  sb: XfsSb,
  ops: XfsBtreeOps<R>,
  leaf: boolean,
): number {
  const space = sb.blocksize - ops.headerLen;
  return Math.floor(space / (leaf ? ops.recLen : ops.keyLen + ops.ptrLen));
}

/** Fewest records of a leaf and fewest children of a node, but for the root (kernel:
 * `m_*_mnr`). */
export function xfsBtreeMinrecs<R>(
  sb: XfsSb,
  ops: XfsBtreeOps<R>,
  leaf: boolean,
): number {
  return Math.floor(xfsBtreeMaxrecs(sb, ops, leaf) / 2);
}

/** Levels of the tree of `records` records whose blocks are as empty as can be
 * (kernel: `xfs_btree_compute_maxlevels`). */
export function xfsBtreeComputeMaxlevels<R>(
  sb: XfsSb,
  ops: XfsBtreeOps<R>,
  records: number,
): number {
  const nodeMin = xfsBtreeMinrecs(sb, ops, false);
  let blocks = Math.ceil(records / xfsBtreeMinrecs(sb, ops, true));
  let height = 1;
  while (blocks > 1) {
    blocks = Math.ceil(blocks / nodeMin);
    height++;
  }
  return height;
}

/** Blocks of the tree of `records` records whose blocks are as empty as can be
 * (kernel: `xfs_btree_calc_size`). */
export function xfsBtreeCalcSize<R>(
  sb: XfsSb,
  ops: XfsBtreeOps<R>,
  records: number,
): number {
  const nodeMin = xfsBtreeMinrecs(sb, ops, false);
  let blocks = Math.ceil(records / xfsBtreeMinrecs(sb, ops, true));
  let total = blocks;
  while (blocks > 1) {
    blocks = Math.ceil(blocks / nodeMin);
    total += blocks;
  }
  return total;
}

/** Most levels that a tree of `blocks` blocks can have (kernel:
 * `xfs_btree_space_to_height`). */
export function xfsBtreeSpaceToHeight<R>(
  sb: XfsSb,
  ops: XfsBtreeOps<R>,
  blocks: number,
): number {
  const nodeMin = xfsBtreeMinrecs(sb, ops, false);
  // The root has two children; below it, each level has as few as it can.
  let wide = 2;
  let height = 1;
  let left = blocks - 1;
  while (wide < left) {
    left -= wide;
    wide *= nodeMin;
    height++;
  }
  return height;
}

// ---- verifier ----

/** Checks a block of any tree, as far as that takes the block alone (kernel:
 * `xfs_btree_fsblock_v5hdr_verify`, `xfs_btree_agblock_verify` and so on). */
class BtreeBufOps<R> implements XfsBufOps {
  readonly name: string;
  readonly crcOffset: number;
  readonly #tree: XfsBtreeOps<R>;

  constructor(tree: XfsBtreeOps<R>) {
    this.#tree = tree;
    this.name = tree.name;
    this.crcOffset = tree.ptrLen === 8 ? F.LBB_CRC : F.SBB_CRC;
  }

  verify(bp: XfsBuf, targ: BufTarg): string | null {
    const { view } = bp;
    const tree = this.#tree;
    const mp = targ.mount as XfsMount;
    const magic = view.getUint32(F.BB_MAGIC);
    if (magic !== tree.magic) return `magic number 0x${magic.toString(16)}`;
    const header = this.#verifyHeader(bp, targ, mp);
    if (header !== null) return header;
    const level = view.getUint16(F.BB_LEVEL);
    if (level >= tree.maxlevels(mp)) return `level ${level}`;
    const n = view.getUint16(F.BB_NUMRECS);
    if (n > xfsBtreeMaxrecs(mp.sb, tree, level === 0)) return `numrecs ${n}`;
    return this.#verifyOrder(view, level, n);
  }

  #verifyHeader(bp: XfsBuf, targ: BufTarg, mp: XfsMount): string | null {
    const { view } = bp;
    const long = this.#tree.ptrLen === 8;
    const uuidAt = long ? F.LBB_UUID : F.SBB_UUID;
    if (!bytesEqual(bp.data, uuidAt, targ.uuid, 0, 16)) return "UUID";
    const blkno = getU64(view, long ? F.LBB_BLKNO : F.SBB_BLKNO);
    if (blkno !== bp.daddr) return `blkno ${blkno}`;
    const { sb } = mp;
    const agno = sb.daddrToAgno(bp.daddr);
    const self = long ? sb.daddrToFsb(bp.daddr) : sb.daddrToAgbno(bp.daddr);
    const { ptrLen } = this.#tree;
    for (const side of [LEFT, RIGHT]) {
      const ptr = readPtr(view, siblingAt(ptrLen, side), ptrLen);
      if (ptr === XFS_BTREE_NULL_PTR) continue;
      const ok = long ? sb.verifyFsbno(ptr) : sb.verifyAgbno(agno, ptr);
      if (!ok || ptr === self) return `sibling ${ptr}`;
    }
    const owner = long ? agno : view.getUint32(F.SBB_OWNER);
    return owner === agno ? null : `owner ${owner}`;
  }

  #verifyOrder(view: DataView, level: number, n: number): string | null {
    const tree = this.#tree;
    const len = level === 0 ? tree.recLen : tree.keyLen;
    let at = tree.headerLen;
    for (let i = 1; i < n; i++, at += len) {
      const ok = level === 0
        ? tree.recsInorder(view, at, at + len)
        : tree.cmpTwoKeys(view, at, view, at + len) < 0;
      if (!ok) return `order of entries ${i} and ${i + 1}`;
    }
    return null;
  }
}
