/**
 * Trees of hashed names, which directories and attributes share: nodes of (hash, file
 * block) above leaves of which this file knows no more than {@linkcode DaLeafOps}
 * says. The blocks are blocks of the inode's own fork, found through its extents.
 *
 * The root never moves: when it splits, its contents go to a new block and it becomes a
 * node of two. Equal hashes may go on into the next leaf, so a look-up that ends at the
 * end of a leaf shifts its whole path along.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_da_btree.c.
 *
 * @module
 */

import { bugOn } from "../../../lib/bug.ts";
import { ENODATA, ENOENT, ENOSPC } from "../../../lib/errno.ts";
import type { XfsInode } from "../inode.ts";
import type { XfsMount } from "../mount.ts";
import {
  XFS_BMAPI_ATTRFORK,
  XFS_BMAPI_CONTIG,
  XFS_BMAPI_METADATA,
  xfsBmapFirstUnused,
  xfsBmapiWrite,
  xfsBmapLastBefore,
  xfsBunmapi,
  xfsIreadExtents,
} from "./bmap.ts";
import type { BufTarg, XfsBuf, XfsBufOps } from "./buf.ts";
import { bytesEqual, getU64, putU64 } from "./bytes.ts";
import * as F from "./format.ts";
import { BmbtIrec, IextCursor, type Ifork } from "./iext.ts";
import { xfsIforkPtr } from "./inode-fork.ts";
import type { XfsSb } from "./sb.ts";
import type { XfsTrans } from "./trans.ts";

/** Only check whether the name would fit without new blocks (kernel:
 * `XFS_DA_OP_JUSTCHECK`). */
export const XFS_DA_OP_JUSTCHECK = 1 << 0;
/** A name is to be added: a look-up finds its place and space for it. */
export const XFS_DA_OP_ADDNAME = 1 << 2;

/** Sizes and places of one kind of tree (kernel: `struct xfs_da_geometry`). */
export class XfsDaGeometry {
  /** Bytes of a block of the tree. */
  readonly blksize: number;
  /** log2 of it. */
  readonly blklog: number;
  /** File-system blocks of it. */
  readonly fsbcount: number;
  /** File block of the root. */
  readonly leafblk: number;
  /** File block at which a directory's free index begins. */
  readonly freeblk: number;
  /** Most entries of a node. */
  readonly nodeEnts: number;
  /** Most entries of a directory leaf without tail. */
  readonly leafMaxEnts: number;
  /** Most entries of a free-index block. */
  readonly freeMaxBests: number;
  /** Bytes in use below which a leaf looks for a neighbour to join. */
  readonly magicpct: number;

  /** @param dir Of directories, else of attributes. */
  constructor(sb: XfsSb, dir: boolean) {
    this.blksize = dir ? sb.dirblksize : sb.blocksize;
    this.blklog = Math.log2(this.blksize);
    this.fsbcount = dir ? sb.dirblkFsbs : 1;
    this.leafblk = dir ? sb.leafblk : 0;
    this.freeblk = dir ? sb.freeblk : 0;
    this.nodeEnts = (this.blksize - F.DA3_HDR_SIZE) / ENTRY_SIZE;
    this.leafMaxEnts = this.nodeEnts;
    this.freeMaxBests = (this.blksize - F.DIR3_FREE_HDR_SIZE) / 2;
    this.magicpct = Math.floor(this.blksize * 37 / 100);
  }
}

/** One operation on a tree (kernel: `struct xfs_da_args`); what directories and
 * attributes need beyond it they add in classes of their own. */
export class XfsDaArgs {
  readonly geo: XfsDaGeometry;
  /** The directory, or the inode that has the attributes. */
  readonly dp: XfsInode;
  /** `XFS_DATA_FORK` or `XFS_ATTR_FORK`. */
  readonly whichfork: number;
  /** Transaction; null if nothing is to be changed. */
  trans: XfsTrans | null;
  /** Name, bytes. */
  name: Uint8Array;
  /** Its hash. */
  hashval: number;
  /** Blocks of the reservation that this operation may use; 0 if it must not allocate. */
  total = 0;
  /** `XFS_DA_OP_*`. */
  opFlags = 0;
  /** Block that a look-up ended at or an insert went to: the leaf, or the data block of a
   * directory. */
  blkno = 0;
  /** Place in it: index of an entry, or byte of a directory entry. */
  index = 0;

  constructor(
    geo: XfsDaGeometry,
    dp: XfsInode,
    whichfork: number,
    trans: XfsTrans | null,
    name: Uint8Array,
    hashval: number,
  ) {
    this.geo = geo;
    this.dp = dp;
    this.whichfork = whichfork;
    this.trans = trans;
    this.name = name;
    this.hashval = hashval;
  }

  /** The transaction of an operation that changes something. */
  get tp(): XfsTrans {
    bugOn(this.trans === null, "a change without a transaction");
    return this.trans!;
  }
}

/** One block on a path (kernel: `struct xfs_da_state_blk`). */
export class DaStateBlk {
  bp: XfsBuf | null = null;
  /** File block. */
  blkno = 0;
  /** Entry that the path takes, or the place of the name in a leaf. */
  index = 0;
  /** Last hash in the block. */
  hashval = 0;
  /** A leaf, else a node. */
  leaf = false;

  /** Takes over another's fields. */
  copy(from: DaStateBlk): void {
    this.bp = from.bp;
    this.blkno = from.blkno;
    this.index = from.index;
    this.hashval = from.hashval;
    this.leaf = from.leaf;
  }
}

/** From the root to a leaf (kernel: `struct xfs_da_state_path`). */
export class DaStatePath {
  /** Blocks of it that count. */
  active = 0;
  readonly blk: DaStateBlk[];

  constructor() {
    this.blk = [];
    for (let i = 0; i < F.XFS_DA_NODE_MAXDEPTH; i++) {
      this.blk.push(new DaStateBlk());
    }
  }

  /** The leaf. */
  get last(): DaStateBlk {
    return this.blk[this.active - 1]!;
  }

  /** Takes over another path. */
  copy(from: DaStatePath): void {
    this.active = from.active;
    for (let i = 0; i < from.active; i++) this.blk[i]!.copy(from.blk[i]!);
  }
}

/** The cursor of one operation (kernel: `struct xfs_da_state`). */
export class XfsDaState<A extends XfsDaArgs = XfsDaArgs> {
  readonly args: A;
  readonly leafOps: DaLeafOps<A>;
  /** To where the name is or belongs; in a join, to the block that goes. */
  readonly path: DaStatePath = new DaStatePath();
  /** New blocks of a split; in a join, to the block that stays. */
  readonly altpath: DaStatePath = new DaStatePath();
  /** After the split of a leaf: the name belongs into the old one. */
  inleaf = false;
  /** `extrablk` counts. */
  extravalid = false;
  /** An extra leaf of a double split belongs after the new one, else before. */
  extraafter = false;
  /** Of a directory the data or free-index block of the name; of attributes a second new
   * leaf. */
  readonly extrablk: DaStateBlk = new DaStateBlk();

  constructor(args: A, leafOps: DaLeafOps<A>) {
    this.args = args;
    this.leafOps = leafOps;
  }
}

/** Where the hashes of a block lie. */
export interface DaHashes {
  /** First hash in a block that is not empty. */
  firsthash(bp: XfsBuf): number;
  /** Last hash in a block; 0 if it is empty. */
  lasthash(bp: XfsBuf): number;
}

/** What the tree asks of its leaves. */
export interface DaLeafOps<A extends XfsDaArgs> extends DaHashes {
  /** Checks a node or a leaf of this tree; see {@linkcode daNodeBufOps}. */
  readonly bufOps: XfsBufOps;
  /**
   * Looks for the name in a leaf and sets `blk.index`.
   *
   * @returns -EEXIST; -ENOENT or -ENODATA; another negative errno.
   */
  lookupInt(blk: DaStateBlk, state: XfsDaState<A>): number;
  /**
   * Splits a leaf and puts the name in. Fills in `newblk`.
   *
   * @returns 0, or a negative errno; of attributes -ENOSPC if the name fits into neither
   *   half: then the half that `inleaf` names is split again.
   */
  split(state: XfsDaState<A>, oldblk: DaStateBlk, newblk: DaStateBlk): number;
  /**
   * Whether the leaf at the end of the path should be joined with a neighbour; if so,
   * lets `path` end at the one that goes and `altpath` at the one that stays
   * ({@linkcode daChooseNeighbour}).
   *
   * @returns 0 if not, above 0 if so, or a negative errno.
   */
  toosmall(state: XfsDaState<A>): number;
  /** Whether two leaves fit into one, with room to spare. */
  fits(args: A, leaf: XfsBuf, neighbour: XfsBuf): boolean;
  /** Moves everything from one leaf into the other. */
  unbalance(state: XfsDaState<A>, drop: DaStateBlk, save: DaStateBlk): void;
}

// ---- names ----

/** Hash of a name, bytes `from` up to, not including, `end` of `data` (kernel:
 * `xfs_da_hashname`). */
export function xfsDaHashname(
  data: Uint8Array,
  from = 0,
  end: number = data.length,
): number {
  let hash = 0;
  for (let i = from; i < end; i++) {
    hash = data[i]! ^ ((hash << 7) | (hash >>> 25));
  }
  return hash >>> 0;
}

/** Whether a name in a block is the name of the operation (kernel: `xfs_da_compname`). */
export function xfsDaCompname(
  name: Uint8Array,
  data: Uint8Array,
  at: number,
  namelen: number,
): boolean {
  return namelen === name.length && bytesEqual(name, 0, data, at, namelen);
}

// ---- fields of a node ----

/** Bytes of an entry of a node. */
const ENTRY_SIZE = 8;

function entry(i: number): number {
  return F.DA3_HDR_SIZE + i * ENTRY_SIZE;
}

/** Entries of a node or leaf. */
export function daCount(bp: XfsBuf): number {
  return bp.view.getUint16(F.DA3_COUNT);
}

/** Magic number of a node or leaf. */
function daMagic(bp: XfsBuf): number {
  return bp.view.getUint16(F.DA3_MAGIC);
}

/** File block of the neighbour with higher hashes; 0 if there is none. */
export function daForw(bp: XfsBuf): number {
  return bp.view.getUint32(F.DA3_FORW);
}

/** File block of the neighbour with lower hashes; 0 if there is none. */
export function daBack(bp: XfsBuf): number {
  return bp.view.getUint32(F.DA3_BACK);
}

function isNode(bp: XfsBuf): boolean {
  return daMagic(bp) === F.XFS_DA3_NODE_MAGIC;
}

function nodeLevel(bp: XfsBuf): number {
  return bp.view.getUint16(F.DA3_LEVEL);
}

function nodeHash(bp: XfsBuf, i: number): number {
  return bp.view.getUint32(entry(i));
}

function nodeBefore(bp: XfsBuf, i: number): number {
  return bp.view.getUint32(entry(i) + 4);
}

function putEntry(bp: XfsBuf, i: number, hash: number, before: number): void {
  bp.view.setUint32(entry(i), hash);
  bp.view.setUint32(entry(i) + 4, before);
}

/** Last hash of a node; 0 if it is empty (kernel: `xfs_da3_node_lasthash`). */
function nodeLasthash(bp: XfsBuf): number {
  const count = daCount(bp);
  return count === 0 ? 0 : nodeHash(bp, count - 1);
}

function setCount(args: XfsDaArgs, bp: XfsBuf, count: number): void {
  bp.view.setUint16(F.DA3_COUNT, count);
  args.tp.logBuf(bp, F.DA3_COUNT, F.DA3_COUNT + 1);
}

/** Logs entries `first` up to, not including, `end`. */
function logEntries(
  args: XfsDaArgs,
  bp: XfsBuf,
  first: number,
  end: number,
): void {
  if (first < end) args.tp.logBuf(bp, entry(first), entry(end) - 1);
}

function putLink(args: XfsDaArgs, bp: XfsBuf, at: number, blkno: number): void {
  bp.view.setUint32(at, blkno);
  args.tp.logBuf(bp, at, at + 3);
}

/** Sets a new block's header but for its count, level and neighbours, which are zero.
 * @param at Byte of the magic number. */
export function daInitHeader(
  bp: XfsBuf,
  mp: XfsMount,
  ino: number,
  magic: number,
): void {
  bp.data.fill(0);
  bp.view.setUint16(F.DA3_MAGIC, magic);
  putU64(bp.view, F.DA3_BLKNO, bp.daddr);
  bp.data.set(mp.targ.uuid, F.DA3_UUID);
  putU64(bp.view, F.DA3_OWNER, ino);
}

// ---- checks ----

/** Logs what is wrong with an inode's names and shuts down.
 * @returns -EFSCORRUPTED */
export function daCorrupt(dp: XfsInode, blkno: number, why: string): number {
  return dp.mount.corrupt(`inode ${dp.ino}, file block ${blkno}`, why);
}

/** Checks the header that nodes and leaves share (kernel: `xfs_da3_blkinfo_verify`). */
export function xfsDa3BlkinfoVerify(
  bp: XfsBuf,
  targ: BufTarg,
  magic: number,
): string | null {
  if (daMagic(bp) !== magic) return `magic ${daMagic(bp)}`;
  if (!bytesEqual(bp.data, F.DA3_UUID, targ.uuid, 0, 16)) return "uuid";
  const blkno = getU64(bp.view, F.DA3_BLKNO);
  return blkno === bp.daddr ? null : `blkno ${blkno}`;
}

function nodeVerify(bp: XfsBuf, targ: BufTarg): string | null {
  const why = xfsDa3BlkinfoVerify(bp, targ, F.XFS_DA3_NODE_MAGIC);
  if (why !== null) return why;
  const level = nodeLevel(bp);
  if (level === 0 || level > F.XFS_DA_NODE_MAXDEPTH) return `level ${level}`;
  const count = daCount(bp);
  if (count === 0 || count > (bp.data.length - F.DA3_HDR_SIZE) / ENTRY_SIZE) {
    return `count ${count}`;
  }
  for (let i = 1; i < count; i++) {
    if (nodeHash(bp, i - 1) > nodeHash(bp, i)) return `hash order at ${i}`;
  }
  return null;
}

/**
 * What checks the blocks of a tree: a look-up does not know whether the next block is a
 * node or a leaf (kernel: `xfs_da3_node_buf_ops`).
 *
 * @param leafVerify Called for whatever is no node.
 */
export function daNodeBufOps(leafVerify: XfsBufOps["verify"]): XfsBufOps {
  return {
    name: "xfs_da3_node",
    crcOffset: F.DA3_CRC,
    verify: (bp, targ) =>
      isNode(bp) ? nodeVerify(bp, targ) : leafVerify(bp, targ),
  };
}

// ---- blocks of the fork ----

/** A mapping that {@linkcode dabufMap} found: nothing waits while it is in use. */
const mapped = { daddr: 0, maps: null as number[] | null };
const cur = new IextCursor();
const got = new BmbtIrec();

/**
 * Finds where a block of the tree lies (kernel: `xfs_dabuf_map`).
 *
 * @returns 1 with `mapped` filled in; 0 if it is a hole, in part or whole; the errno of
 *   reading the map.
 */
function dabufMap(
  tp: XfsTrans | null,
  dp: XfsInode,
  bno: number,
  whichfork: number,
): number {
  const fork = xfsIforkPtr(dp, whichfork);
  if (fork === null) return 0;
  if (!fork.loaded) {
    const error = xfsIreadExtents(tp, dp, whichfork);
    if (error < 0) return error;
  }
  const { sb } = dp.mount;
  const count = whichfork === F.XFS_DATA_FORK ? sb.dirblkFsbs : 1;
  if (!fork.lookup(bno, cur, got)) return 0;
  if (got.startoff > bno || got.startblock < 0) return 0;
  mapped.daddr = sb.fsbToDaddr(got.startblock + (bno - got.startoff));
  mapped.maps = null;
  if (got.endoff >= bno + count) return 1;
  return dabufMapPieces(dp, fork, bno, count);
}

/** A directory block in several extents. */
function dabufMapPieces(
  dp: XfsInode,
  fork: Ifork,
  bno: number,
  count: number,
): number {
  const { sb } = dp.mount;
  const maps = [mapped.daddr, (got.endoff - bno) * sb.bbPerBlock];
  const end = bno + count;
  for (let off = got.endoff; off < end; off = got.endoff) {
    if (!fork.next(cur, got) || got.startoff !== off) return 0;
    if (got.startblock < 0) return 0;
    const blocks = Math.min(got.endoff, end) - off;
    maps.push(sb.fsbToDaddr(got.startblock), blocks * sb.bbPerBlock);
  }
  mapped.maps = maps;
  return 1;
}

/** Basic blocks of a block of the tree. */
function dabufBbs(dp: XfsInode, whichfork: number): number {
  const { sb, dirGeo, attrGeo } = dp.mount;
  const { fsbcount } = whichfork === F.XFS_DATA_FORK ? dirGeo : attrGeo;
  return fsbcount * sb.bbPerBlock;
}

/**
 * A block that is about to be filled (kernel: `xfs_da_get_buf`).
 *
 * @returns It; -EFSCORRUPTED if it is not mapped; the errno of reading the map.
 */
export function xfsDaGetBuf(
  tp: XfsTrans,
  dp: XfsInode,
  bno: number,
  whichfork: number,
  ops: XfsBufOps,
): XfsBuf | number {
  const error = dabufMap(tp, dp, bno, whichfork);
  if (error < 0) return error;
  if (error === 0) return daCorrupt(dp, bno, "is not mapped");
  return tp.getBuf(mapped.daddr, dabufBbs(dp, whichfork), ops, mapped.maps);
}

/**
 * A block with its contents, checked by `ops` (kernel: `xfs_da_read_buf` with
 * `XFS_DABUF_MAP_HOLE_OK`). Whose it is is left to the caller.
 *
 * @returns It; 0 if it is not mapped; a negative errno of reading it or the map.
 */
export function xfsDaTryReadBuf(
  tp: XfsTrans | null,
  dp: XfsInode,
  bno: number,
  whichfork: number,
  ops: XfsBufOps,
): XfsBuf | number {
  const error = dabufMap(tp, dp, bno, whichfork);
  if (error <= 0) return error;
  const bbs = dabufBbs(dp, whichfork);
  const { daddr, maps } = mapped;
  return tp === null
    ? dp.mount.targ.read(daddr, bbs, ops, maps)
    : tp.readBuf(daddr, bbs, ops, maps);
}

/** The same, but a hole is -EFSCORRUPTED (kernel: `xfs_da_read_buf`). */
export function xfsDaReadBuf(
  tp: XfsTrans | null,
  dp: XfsInode,
  bno: number,
  whichfork: number,
  ops: XfsBufOps,
): XfsBuf | number {
  const bp = xfsDaTryReadBuf(tp, dp, bno, whichfork, ops);
  return bp === 0 ? daCorrupt(dp, bno, "is not mapped") : bp;
}

/** Reads a node or leaf and checks that it is this inode's (kernel:
 * `xfs_da3_node_read`, `xfs_da3_header_check`); it or a negative errno. */
export function xfsDa3NodeRead(
  tp: XfsTrans | null,
  dp: XfsInode,
  bno: number,
  whichfork: number,
  ops: XfsBufOps,
): XfsBuf | number {
  const bp = xfsDaReadBuf(tp, dp, bno, whichfork, ops);
  if (typeof bp === "number") return bp;
  const owner = getU64(bp.view, F.DA3_OWNER);
  return owner === dp.ino ? bp : daCorrupt(dp, bno, `owner ${owner}`);
}

function readNode(state: XfsDaState, bno: number): XfsBuf | number {
  const { args, leafOps } = state;
  const { trans, dp, whichfork } = args;
  return xfsDa3NodeRead(trans, dp, bno, whichfork, leafOps.bufOps);
}

const mvals = [new BmbtIrec()];

/**
 * Adds a block to the fork, at the first place free at or after `bno` (kernel:
 * `xfs_da_grow_inode_int`).
 *
 * @returns Its first file block; -ENOSPC; the errno of allocating it.
 */
export function xfsDaGrowInodeInt(args: XfsDaArgs, bno: number): number {
  const { tp, dp, whichfork, geo } = args;
  const count = geo.fsbcount;
  const at = xfsBmapFirstUnused(tp, dp, count, bno, whichfork);
  if (at < 0) return at;
  const nblocks = dp.nblocks;
  const flags = XFS_BMAPI_METADATA |
    (whichfork === F.XFS_ATTR_FORK ? XFS_BMAPI_ATTRFORK : 0);
  // In one piece if possible, else however it comes.
  const whole = flags | XFS_BMAPI_CONTIG;
  let n = xfsBmapiWrite(tp, dp, at, count, whole, args.total, mvals, 1);
  if (n === -ENOSPC && count > 1) n = growInPieces(args, at, flags);
  if (n < 0) return n;
  args.total -= dp.nblocks - nblocks;
  return at;
}

function growInPieces(args: XfsDaArgs, at: number, flags: number): number {
  const { tp, dp, geo } = args;
  const end = at + geo.fsbcount;
  for (let b = at; b < end;) {
    const n = xfsBmapiWrite(tp, dp, b, end - b, flags, args.total, mvals, 1);
    if (n < 0) return n;
    b = mvals[0]!.endoff;
  }
  return 1;
}

/** Adds a block to the tree (kernel: `xfs_da_grow_inode`); its first file block, or a
 * negative errno. */
export function xfsDaGrowInode(args: XfsDaArgs): number {
  return xfsDaGrowInodeInt(args, args.geo.leafblk);
}

/** Takes a block out of the fork (kernel: the call of `xfs_bunmapi`).
 * @returns 0 or more; -ENOSPC if the map would need a block that is not reserved. */
export function daUnmap(args: XfsDaArgs, bno: number): number {
  const { tp, dp, whichfork, geo } = args;
  const flags = whichfork === F.XFS_ATTR_FORK ? XFS_BMAPI_ATTRFORK : 0;
  return xfsBunmapi(tp, dp, bno, geo.fsbcount, flags, 0);
}

/**
 * Takes a block out of the tree (kernel: `xfs_da_shrink_inode`). Nobody points to it
 * any more. Where the map cannot be cut in the middle, the last block of a directory's
 * tree moves into its place, for the last can always go.
 *
 * @returns 0, or a negative errno.
 */
export function xfsDaShrinkInode(
  args: XfsDaArgs,
  bno: number,
  bp: XfsBuf,
  ops: XfsBufOps,
): number {
  const error = daUnmap(args, bno);
  if (error >= 0) {
    args.tp.binval(bp);
    return 0;
  }
  if (error !== -ENOSPC || args.whichfork !== F.XFS_DATA_FORK) return error;
  return swapLastblock(args, bno, bp, ops);
}

// ---- look-up ----

/** First entry whose hash is not below the one wanted, or the last entry. */
function nodeSearch(bp: XfsBuf, hashval: number): number {
  const count = daCount(bp);
  let low = 0;
  let high = count;
  while (low < high) {
    const mid = (low + high) >>> 1;
    if (nodeHash(bp, mid) < hashval) low = mid + 1;
    else high = mid;
  }
  return Math.min(low, count - 1);
}

/** Follows the hash from the root to a leaf, the first that may have it; 0 or a negative
 * errno. */
export function daDescend<A extends XfsDaArgs>(state: XfsDaState<A>): number {
  const { args, path, leafOps } = state;
  const root = args.geo.leafblk;
  let blkno = root;
  let level = -1;
  for (let i = 0; i < F.XFS_DA_NODE_MAXDEPTH; i++) {
    const bp = readNode(state, blkno);
    if (typeof bp === "number") return bp;
    const blk = path.blk[i]!;
    path.active = i + 1;
    blk.bp = bp;
    blk.blkno = blkno;
    blk.leaf = !isNode(bp);
    const here = blk.leaf ? 0 : nodeLevel(bp);
    if (i > 0 && here !== level) {
      return daCorrupt(args.dp, blkno, `level ${here}, not ${level}`);
    }
    if (blk.leaf) {
      blk.hashval = leafOps.lasthash(bp);
      return 0;
    }
    level = here - 1;
    blk.hashval = nodeLasthash(bp);
    blk.index = nodeSearch(bp, args.hashval);
    blkno = nodeBefore(bp, blk.index);
    if (blkno === root) return daCorrupt(args.dp, blkno, "is its own child");
  }
  return daCorrupt(args.dp, blkno, "tree is too deep");
}

/**
 * Finds a name, or the place where it belongs (kernel: `xfs_da3_node_lookup_int`).
 *
 * @returns -EEXIST with the path to it; -ENOENT or -ENODATA with the path to its place;
 *   -EFSCORRUPTED if the tree is no tree; the errno of reading a block.
 */
export function xfsDa3NodeLookupInt<A extends XfsDaArgs>(
  state: XfsDaState<A>,
): number {
  const { args, path, leafOps } = state;
  const error = daDescend(state);
  if (error < 0) return error;
  for (;;) {
    const blk = path.last;
    const { blkno } = blk;
    const ret = leafOps.lookupInt(blk, state);
    args.blkno = blkno;
    if (ret !== -ENOENT && ret !== -ENODATA) return ret;
    if (blk.hashval !== args.hashval) return ret;
    // It is the last hash of this leaf: more of it may follow in the next one.
    const shifted = xfsDa3PathShift(state, path, true);
    if (shifted < 0) return shifted;
    if (shifted === 0) return ret;
    // So no leaf comes twice.
    const back = daBack(path.last.bp!);
    if (back !== blkno) {
      return daCorrupt(args.dp, path.last.blkno, `back ${back}, not ${blkno}`);
    }
  }
}

/**
 * Moves a path to the next leaf or node of its level (kernel: `xfs_da3_path_shift`).
 *
 * @param forward To higher hashes.
 * @returns 1; 0 if there is none: then the path is what it was; a negative errno.
 */
export function xfsDa3PathShift(
  state: XfsDaState,
  path: DaStatePath,
  forward: boolean,
): number {
  let level = path.active - 2;
  for (; level >= 0; level--) {
    const { bp, index } = path.blk[level]!;
    if (forward ? index < daCount(bp!) - 1 : index > 0) break;
  }
  if (level < 0) return 0;
  const turn = path.blk[level]!;
  turn.index += forward ? 1 : -1;
  let blkno = nodeBefore(turn.bp!, turn.index);
  let above = nodeLevel(turn.bp!);
  for (level++; level < path.active; level++) {
    const bp = readNode(state, blkno);
    if (typeof bp === "number") return bp;
    const here = isNode(bp) ? nodeLevel(bp) : 0;
    if (here !== --above) {
      return daCorrupt(state.args.dp, blkno, `level ${here}, not ${above}`);
    }
    const blk = path.blk[level]!;
    blk.bp = bp;
    blk.blkno = blkno;
    blk.leaf = here === 0;
    if (blk.leaf) {
      blk.index = 0;
      blk.hashval = state.leafOps.lasthash(bp);
    } else {
      blk.index = forward ? 0 : daCount(bp) - 1;
      blk.hashval = nodeLasthash(bp);
      blkno = nodeBefore(bp, blk.index);
    }
  }
  return 1;
}

/** The last hash of the lowest block of a path may have changed: tells those above it
 * (kernel: `xfs_da3_fixhashpath`). */
export function xfsDa3Fixhashpath(state: XfsDaState, path: DaStatePath): void {
  let level = path.active - 1;
  const low = path.blk[level]!;
  if (daCount(low.bp!) === 0) return;
  let last = low.leaf ? state.leafOps.lasthash(low.bp!) : nodeLasthash(low.bp!);
  for (level--; level >= 0; level--) {
    const blk = path.blk[level]!;
    const bp = blk.bp!;
    if (nodeHash(bp, blk.index) === last) return;
    bp.view.setUint32(entry(blk.index), last);
    logEntries(state.args, bp, blk.index, blk.index + 1);
    last = nodeLasthash(bp);
    blk.hashval = last;
  }
}

// ---- splitting ----

/**
 * Makes a new node, empty (kernel: `xfs_da3_node_create`).
 *
 * @param level Above the leaves, 1 or more.
 */
export function xfsDa3NodeCreate(
  args: XfsDaArgs,
  blkno: number,
  level: number,
  ops: XfsBufOps,
): XfsBuf | number {
  const { tp, dp, whichfork } = args;
  const bp = xfsDaGetBuf(tp, dp, blkno, whichfork, ops);
  if (typeof bp === "number") return bp;
  daInitHeader(bp, dp.mount, dp.ino, F.XFS_DA3_NODE_MAGIC);
  bp.view.setUint16(F.DA3_LEVEL, level);
  tp.logBuf(bp, 0, F.DA3_HDR_SIZE - 1);
  return bp;
}

/** Puts the first entries into a node that is empty. */
export function daNodeAppend(
  args: XfsDaArgs,
  bp: XfsBuf,
  hash: number,
  before: number,
): void {
  const count = daCount(bp);
  putEntry(bp, count, hash, before);
  logEntries(args, bp, count, count + 1);
  setCount(args, bp, count + 1);
}

/**
 * Splits the leaf at the end of the path and puts the name in, and splits nodes above
 * it as far up as needed (kernel: `xfs_da3_split`).
 *
 * @returns 0, or a negative errno: then the tree is in between.
 */
export function xfsDa3Split<A extends XfsDaArgs>(
  state: XfsDaState<A>,
): number {
  const { path, altpath } = state;
  const max = path.active - 1;
  let add: DaStateBlk | null = path.blk[max]!;
  for (let i = max; i >= 0 && add !== null; i--) {
    const oldblk = path.blk[i]!;
    const newblk = altpath.blk[i]!;
    if (oldblk.leaf) {
      const error = leafSplit(state, oldblk, newblk);
      if (error < 0) return error;
      add = newblk;
    } else {
      const split = nodeSplit(state, oldblk, newblk, add, max - i);
      if (split < 0) return split;
      add = split === 1 ? newblk : null;
    }
    xfsDa3Fixhashpath(state, path);
    path.active--;
  }
  return add === null ? 0 : rootSplit(state, path.blk[0]!, add);
}

function leafSplit<A extends XfsDaArgs>(
  state: XfsDaState<A>,
  oldblk: DaStateBlk,
  newblk: DaStateBlk,
): number {
  const error = state.leafOps.split(state, oldblk, newblk);
  if (error !== -ENOSPC || state.args.whichfork !== F.XFS_ATTR_FORK) {
    return error;
  }
  // An attribute so long that it needs a leaf of its own, between the halves.
  state.extravalid = true;
  state.extraafter = !state.inleaf;
  const half = state.inleaf ? oldblk : newblk;
  return state.leafOps.split(state, half, state.extrablk);
}

/** Puts a new child into a node, splitting it if it is full; 1 if it was, 0 if not, or
 * a negative errno (kernel: `xfs_da3_node_split`). */
function nodeSplit(
  state: XfsDaState,
  oldblk: DaStateBlk,
  newblk: DaStateBlk,
  add: DaStateBlk,
  level: number,
): number {
  const { args } = state;
  const extra = state.extravalid && args.whichfork === F.XFS_ATTR_FORK;
  let split = 0;
  if (daCount(oldblk.bp!) + (extra ? 2 : 1) > args.geo.nodeEnts) {
    const blkno = xfsDaGrowInode(args);
    if (blkno < 0) return blkno;
    const bp = xfsDa3NodeCreate(args, blkno, level, state.leafOps.bufOps);
    if (typeof bp === "number") return bp;
    newblk.blkno = blkno;
    newblk.bp = bp;
    newblk.leaf = false;
    nodeHalve(args, oldblk, newblk);
    const error = xfsDa3BlkLink(state, oldblk, newblk);
    if (error < 0) return error;
    split = 1;
  }
  const into = oldblk.index <= daCount(oldblk.bp!) ? oldblk : newblk;
  into.index++;
  nodeAdd(args, into, add);
  if (extra) {
    if (state.extraafter) into.index++;
    nodeAdd(args, into, state.extrablk);
    state.extravalid = false;
  }
  return split;
}

/** Moves the upper half into a new, empty node (kernel: `xfs_da3_node_rebalance`). */
function nodeHalve(
  args: XfsDaArgs,
  oldblk: DaStateBlk,
  newblk: DaStateBlk,
): void {
  const from = oldblk.bp!;
  const to = newblk.bp!;
  const count = daCount(from);
  const moved = count >>> 1;
  const kept = count - moved;
  to.data.set(from.data.subarray(entry(kept), entry(count)), entry(0));
  logEntries(args, to, 0, moved);
  setCount(args, to, moved);
  setCount(args, from, kept);
  oldblk.hashval = nodeLasthash(from);
  newblk.hashval = nodeLasthash(to);
  if (oldblk.index >= kept) {
    newblk.index = oldblk.index - kept;
    // Beyond its end: the new child goes into the new node.
    oldblk.index = kept + 1;
  }
}

/** Puts a child in at `blk.index` (kernel: `xfs_da3_node_add`). */
function nodeAdd(args: XfsDaArgs, blk: DaStateBlk, child: DaStateBlk): void {
  const bp = blk.bp!;
  const count = daCount(bp);
  const at = entry(blk.index);
  bp.data.copyWithin(at + ENTRY_SIZE, at, entry(count));
  putEntry(bp, blk.index, child.hashval, child.blkno);
  logEntries(args, bp, blk.index, count + 1);
  setCount(args, bp, count + 1);
  blk.hashval = nodeLasthash(bp);
}

/** Moves the root's contents to a new block and makes it a node of two (kernel:
 * `xfs_da3_root_split`, and the end of `xfs_da3_split`). */
function rootSplit(
  state: XfsDaState,
  root: DaStateBlk,
  sibling: DaStateBlk,
): number {
  const { args, leafOps } = state;
  const { tp, dp, whichfork, geo } = args;
  const blkno = xfsDaGrowInode(args);
  if (blkno < 0) return blkno;
  const bp = xfsDaGetBuf(tp, dp, blkno, whichfork, leafOps.bufOps);
  if (typeof bp === "number") return bp;
  bp.data.set(root.bp!.data);
  putU64(bp.view, F.DA3_BLKNO, bp.daddr);
  tp.logBuf(bp, 0, entry(daCount(bp)) - 1);
  const level = isNode(bp) ? nodeLevel(bp) + 1 : 1;
  const node = xfsDa3NodeCreate(args, geo.leafblk, level, leafOps.bufOps);
  if (typeof node === "number") return node;
  root.bp = bp;
  root.blkno = blkno;
  daNodeAppend(args, node, root.hashval, blkno);
  daNodeAppend(args, node, sibling.hashval, sibling.blkno);
  // The old root had no neighbour but the one that the split has just made.
  const forw = daForw(bp);
  const back = daBack(bp);
  if (forw !== 0 && forw !== sibling.blkno) {
    return daCorrupt(dp, geo.leafblk, `forw ${forw} of the root`);
  }
  if (back !== 0 && back !== sibling.blkno) {
    return daCorrupt(dp, geo.leafblk, `back ${back} of the root`);
  }
  if (forw !== 0) putLink(args, sibling.bp!, F.DA3_BACK, blkno);
  if (back !== 0) putLink(args, sibling.bp!, F.DA3_FORW, blkno);
  return 0;
}

// ---- neighbours ----

const nodeHashes: DaHashes = {
  firsthash: (bp) => nodeHash(bp, 0),
  lasthash: nodeLasthash,
};

/** Whether the second of two blocks of a level belongs before the first (kernel:
 * `xfs_da3_node_order`, `xfs_attr_leaf_order`, `xfs_dir2_leafn_order`). */
export function daOrder(kind: DaHashes, one: XfsBuf, two: XfsBuf): boolean {
  return daCount(one) > 0 && daCount(two) > 0 &&
    (kind.firsthash(two) < kind.firsthash(one) ||
      kind.lasthash(two) < kind.lasthash(one));
}

/** Reads a neighbour and lets its pointer, so far `was`, be `blkno`; 0 or a negative
 * errno. */
function relink(
  state: XfsDaState,
  neighbour: number,
  at: number,
  was: number,
  blkno: number,
): number {
  if (neighbour === 0) return 0;
  const bp = readNode(state, neighbour);
  if (typeof bp === "number") return bp;
  if (bp.view.getUint32(at) !== was) {
    const why = `neighbour ${bp.view.getUint32(at)}, not ${was}`;
    return daCorrupt(state.args.dp, neighbour, why);
  }
  putLink(state.args, bp, at, blkno);
  return 0;
}

/** Puts a new block into the chain of its level (kernel: `xfs_da3_blk_link`). */
export function xfsDa3BlkLink(
  state: XfsDaState,
  oldblk: DaStateBlk,
  newblk: DaStateBlk,
): number {
  const { args, leafOps } = state;
  const oldbp = oldblk.bp!;
  const newbp = newblk.bp!;
  const before = daOrder(oldblk.leaf ? leafOps : nodeHashes, oldbp, newbp);
  const toNew = before ? F.DA3_BACK : F.DA3_FORW;
  const toOld = before ? F.DA3_FORW : F.DA3_BACK;
  const far = oldbp.view.getUint32(toNew);
  const error = relink(state, far, toOld, oldblk.blkno, newblk.blkno);
  if (error < 0) return error;
  putLink(args, newbp, toOld, oldblk.blkno);
  putLink(args, newbp, toNew, far);
  putLink(args, oldbp, toNew, newblk.blkno);
  return 0;
}

/** Takes a block out of the chain of its level (kernel: `xfs_da3_blk_unlink`). */
function xfsDa3BlkUnlink(
  state: XfsDaState,
  drop: DaStateBlk,
  save: DaStateBlk,
): number {
  const after = daBack(save.bp!) === drop.blkno;
  const toDrop = after ? F.DA3_BACK : F.DA3_FORW;
  const toSave = after ? F.DA3_FORW : F.DA3_BACK;
  if (save.bp!.view.getUint32(toDrop) !== drop.blkno) {
    return daCorrupt(state.args.dp, save.blkno, "is no neighbour");
  }
  const far = drop.bp!.view.getUint32(toDrop);
  const error = relink(state, far, toSave, drop.blkno, save.blkno);
  if (error < 0) return error;
  putLink(state.args, save.bp!, toDrop, far);
  return 0;
}

// ---- joining ----

/**
 * Joins the leaf at the end of the path with a neighbour if they fit into one, and the
 * same with the nodes above (kernel: `xfs_da3_join`).
 *
 * @returns 0, or a negative errno: then the tree is in between.
 */
export function xfsDa3Join<A extends XfsDaArgs>(state: XfsDaState<A>): number {
  const { args, path, altpath, leafOps } = state;
  for (; path.active >= 2; path.active--) {
    const level = path.active - 1;
    const action = path.last.leaf ? leafOps.toosmall(state) : nodeShrunk(state);
    if (action <= 0) return action;
    const drop = path.blk[level]!;
    const save = altpath.blk[level]!;
    if (drop.leaf) leafOps.unbalance(state, drop, save);
    else nodeUnbalance(args, drop, save);
    xfsDa3Fixhashpath(state, altpath);
    let error = xfsDa3BlkUnlink(state, drop, save);
    if (error < 0) return error;
    error = xfsDaShrinkInode(args, drop.blkno, drop.bp!, leafOps.bufOps);
    if (error >= 0) error = followMoved(state, level, drop.blkno);
    if (error < 0) return error;
  }
  // The tree above lost a child, up to the root: it goes if it has one left.
  nodeRemove(args, path.blk[0]!);
  return rootJoin(state, path.blk[0]!);
}

/** A block of the path above `level` may have been the last one of the tree, and have
 * moved to where the dropped block was (`blkno`); 0 or a negative errno. */
function followMoved(state: XfsDaState, level: number, blkno: number): number {
  for (let i = 0; i < level; i++) {
    const blk = state.path.blk[i]!;
    if (!blk.bp!.stale) continue;
    const bp = readNode(state, blkno);
    if (typeof bp === "number") return bp;
    blk.bp = bp;
    blk.blkno = blkno;
  }
  return 0;
}

/** A child has gone: removes its entry, and looks whether the node is too small now. */
function nodeShrunk(state: XfsDaState): number {
  nodeRemove(state.args, state.path.last);
  xfsDa3Fixhashpath(state, state.path);
  return nodeToosmall(state);
}

/** Takes out the entry at `blk.index` (kernel: `xfs_da3_node_remove`). */
function nodeRemove(args: XfsDaArgs, blk: DaStateBlk): void {
  const bp = blk.bp!;
  const count = daCount(bp);
  const at = entry(blk.index);
  bp.data.copyWithin(at, at + ENTRY_SIZE, entry(count));
  bp.data.fill(0, entry(count - 1), entry(count));
  logEntries(args, bp, blk.index, count);
  setCount(args, bp, count - 1);
  blk.hashval = nodeLasthash(bp);
}

/** Whether a node can be joined with a neighbour; see {@linkcode DaLeafOps} (kernel:
 * `xfs_da3_node_toosmall`). */
function nodeToosmall(state: XfsDaState): number {
  const { args, path, altpath } = state;
  const { nodeEnts } = args.geo;
  const bp = path.last.bp!;
  const count = daCount(bp);
  if (count > nodeEnts >>> 1) return 0;
  if (count === 0) {
    altpath.copy(path);
    return xfsDa3PathShift(state, altpath, daForw(bp) !== 0);
  }
  return daChooseNeighbour(state);
}

function nodeFits(args: XfsDaArgs, node: XfsBuf, neighbour: XfsBuf): boolean {
  const { nodeEnts } = args.geo;
  return daCount(node) + daCount(neighbour) <= nodeEnts - (nodeEnts >>> 2);
}

/**
 * Looks for a neighbour that a block can be joined with, the one with the lower block
 * number first; the block with the lower number stays (kernel: the ends of
 * `xfs_da3_node_toosmall`, `xfs_dir2_leafn_toosmall`, `xfs_attr3_leaf_toosmall`).
 *
 * @returns 1 with `path` at the block that goes and `altpath` at the one that stays; 0
 *   if there is none; a negative errno.
 */
export function daChooseNeighbour<A extends XfsDaArgs>(
  state: XfsDaState<A>,
): number {
  const { args, path, altpath, leafOps } = state;
  const { bp, blkno, leaf } = path.last;
  let forward = daForw(bp!) < daBack(bp!);
  for (let i = 0; i < 2; i++, forward = !forward) {
    const other = forward ? daForw(bp!) : daBack(bp!);
    if (other === 0) continue;
    const neighbour = readNode(state, other);
    if (typeof neighbour === "number") return neighbour;
    if (isNode(neighbour) === leaf) {
      return daCorrupt(args.dp, other, "is of another level");
    }
    const fits = leaf
      ? leafOps.fits(args, bp!, neighbour)
      : nodeFits(args, bp!, neighbour);
    if (!fits) continue;
    altpath.copy(path);
    const moved = other < blkno ? altpath : path;
    const shifted = xfsDa3PathShift(state, moved, forward);
    if (shifted > 0 && moved.last.blkno !== other) {
      return daCorrupt(args.dp, other, "is not where it belongs");
    }
    return shifted;
  }
  return 0;
}

/** Moves all entries of one node into the other (kernel: `xfs_da3_node_unbalance`). */
function nodeUnbalance(
  args: XfsDaArgs,
  drop: DaStateBlk,
  save: DaStateBlk,
): void {
  const from = drop.bp!;
  const to = save.bp!;
  const moved = daCount(from);
  const count = daCount(to);
  let at = count;
  if (daOrder(nodeHashes, to, from)) {
    to.data.copyWithin(entry(moved), entry(0), entry(count));
    at = 0;
  }
  to.data.set(from.data.subarray(entry(0), entry(moved)), entry(at));
  logEntries(args, to, at, count + moved);
  setCount(args, to, count + moved);
  save.hashval = nodeLasthash(to);
}

/** If the root has one child left, that becomes the root (kernel:
 * `xfs_da3_root_join`). */
function rootJoin(state: XfsDaState, root: DaStateBlk): number {
  const { args, leafOps } = state;
  const { tp, dp } = args;
  const bp = root.bp!;
  if (daCount(bp) > 1) return 0;
  const blkno = nodeBefore(bp, 0);
  const child = readNode(state, blkno);
  if (typeof child === "number") return child;
  const level = isNode(child) ? nodeLevel(child) : 0;
  if (level !== nodeLevel(bp) - 1) {
    return daCorrupt(dp, blkno, `level ${level}`);
  }
  if (daForw(child) !== 0 || daBack(child) !== 0) {
    return daCorrupt(dp, blkno, "an only child has neighbours");
  }
  bp.data.set(child.data);
  putU64(bp.view, F.DA3_BLKNO, bp.daddr);
  tp.logWholeBuf(bp);
  root.leaf = level === 0;
  return xfsDaShrinkInode(args, blkno, child, leafOps.bufOps);
}

// ---- the last block takes the place of a dead one ----

/** Moves the last block of a directory's tree to where a dead block lies, and frees the
 * last (kernel: `xfs_da3_swap_lastblock`). */
function swapLastblock(
  args: XfsDaArgs,
  dead: number,
  bp: XfsBuf,
  ops: XfsBufOps,
): number {
  const { tp, dp, geo, whichfork } = args;
  const end = xfsBmapLastBefore(tp, dp, geo.freeblk, whichfork);
  if (end < 0) return end;
  const last = end - geo.fsbcount;
  if (last <= geo.leafblk) return daCorrupt(dp, last, "no block to move");
  if (last === dead) return -ENOSPC;
  const moved = xfsDa3NodeRead(tp, dp, last, whichfork, ops);
  if (typeof moved === "number") return moved;
  let error = swapNeighbours(args, moved, last, dead, ops);
  if (error < 0) return error;
  error = swapParent(args, moved, last, dead, ops);
  if (error < 0) return error;
  bp.data.set(moved.data);
  putU64(bp.view, F.DA3_BLKNO, bp.daddr);
  tp.logWholeBuf(bp);
  return xfsDaShrinkInode(args, last, moved, ops);
}

function swapNeighbours(
  args: XfsDaArgs,
  moved: XfsBuf,
  last: number,
  dead: number,
  ops: XfsBufOps,
): number {
  const { trans, dp, whichfork } = args;
  for (const at of [F.DA3_FORW, F.DA3_BACK]) {
    const blkno = moved.view.getUint32(at);
    if (blkno === 0) continue;
    const bp = xfsDa3NodeRead(trans, dp, blkno, whichfork, ops);
    if (typeof bp === "number") return bp;
    const back = at === F.DA3_FORW ? F.DA3_BACK : F.DA3_FORW;
    if (bp.view.getUint32(back) !== last || daMagic(bp) !== daMagic(moved)) {
      return daCorrupt(dp, blkno, `is no neighbour of ${last}`);
    }
    putLink(args, bp, back, dead);
  }
  return 0;
}

/** Lets the parent of the moved block point to its new place. */
function swapParent(
  args: XfsDaArgs,
  moved: XfsBuf,
  last: number,
  dead: number,
  ops: XfsBufOps,
): number {
  const { trans, dp, geo, whichfork } = args;
  const level = isNode(moved) ? nodeLevel(moved) + 1 : 1;
  const hash = nodeLasthash(moved);
  let blkno = geo.leafblk;
  for (let blocks = dp.nblocks; blocks > 0; blocks--) {
    const bp = xfsDa3NodeRead(trans, dp, blkno, whichfork, ops);
    if (typeof bp === "number") return bp;
    if (!isNode(bp) || nodeLevel(bp) < level) {
      return daCorrupt(dp, blkno, `level above ${last}`);
    }
    if (nodeLevel(bp) > level) {
      blkno = nodeBefore(bp, nodeSearch(bp, hash));
      continue;
    }
    for (let i = 0; i < daCount(bp); i++) {
      if (nodeBefore(bp, i) !== last) continue;
      bp.view.setUint32(entry(i) + 4, dead);
      logEntries(args, bp, i, i + 1);
      return 0;
    }
    // Equal hashes may go on in the next node.
    blkno = daForw(bp);
    if (blkno === 0) break;
  }
  return daCorrupt(dp, last, "has no parent");
}
