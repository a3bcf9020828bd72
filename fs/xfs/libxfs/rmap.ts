/**
 * The reverse map: who owns each run of blocks.
 *
 * Every change is the same in kind: some records go, and the ones that take their place
 * are made of what is left of them and of what is new. Neighbours that belong together
 * are one record at all times.
 *
 * Blocks of a file that has never shared any belong to one owner only. There the
 * neighbours of a record in the tree are its neighbours on disk, so one lookup finds them
 * all. Otherwise mappings of others lie in between, and they have to be searched for:
 * these are the "shared" variants.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_rmap.c, xfs_rmap_item.c.
 *
 * @module
 */

import { EFSCORRUPTED } from "../../../lib/errno.ts";
import type { XfsInode } from "../inode.ts";
import type { XfsMount } from "../mount.ts";
import type { XfsPerag } from "./ag.ts";
import { xfsFreeExtentFixFreelist } from "./alloc.ts";
import {
  XFS_LOOKUP_EQ,
  XFS_LOOKUP_LE,
  xfsBtreeDelCursor,
  xfsBtreeDelete,
  xfsBtreeGetRec,
  xfsBtreeIncrement,
  xfsBtreeInsert,
  xfsBtreeLookup,
  xfsBtreeQueryRange,
  xfsBtreeUpdate,
} from "./btree.ts";
import type { XfsBuf } from "./buf.ts";
import { type DeferOp, type DeferOpType, xfsDeferAdd } from "./defer.ts";
import * as F from "./format.ts";
import type { BmbtIrec } from "./iext.ts";
import {
  xfsRmapbtInitCursor,
  type XfsRmapCur,
  xfsRmapIgnoresOffset,
  XfsRmapIrec,
  xfsRmapNonInodeOwner,
} from "./rmap-btree.ts";
import type { XfsTrans } from "./trans.ts";

// ---- owners ----

/** The blocks are those of attributes (kernel: `XFS_OWNER_INFO_ATTR_FORK`). */
const XFS_OWNER_INFO_ATTR_FORK = 1 << 0;
/** The blocks are those of the tree of a fork (kernel:
 * `XFS_OWNER_INFO_BMBT_BLOCK`). */
const XFS_OWNER_INFO_BMBT_BLOCK = 1 << 1;

/** Who owns blocks, and for what (kernel: `struct xfs_owner_info`). */
export class XfsOwnerInfo {
  /** Inode number, or `XFS_RMAP_OWN_*`. */
  owner: number;
  /** File block; 0 where blocks have no place in a file. */
  offset = 0;
  /** `XFS_OWNER_INFO_*`. */
  flags = 0;

  /** @param owner `XFS_RMAP_OWN_*`, or an inode number. */
  constructor(owner: number = F.XFS_RMAP_OWN_NULL) {
    this.owner = owner;
  }
}

/** The reverse map is seen to elsewhere (kernel: `XFS_RMAP_OINFO_SKIP_UPDATE`). */
export const XFS_RMAP_OINFO_SKIP_UPDATE: XfsOwnerInfo = new XfsOwnerInfo(
  F.XFS_RMAP_OWN_NULL,
);
/** Whoever it is (kernel: `XFS_RMAP_OINFO_ANY_OWNER`). */
export const XFS_RMAP_OINFO_ANY_OWNER: XfsOwnerInfo = new XfsOwnerInfo(
  F.XFS_RMAP_OWN_UNKNOWN,
);
/** Free-space trees, the reverse map and the AGFL (kernel: `XFS_RMAP_OINFO_AG`). */
export const XFS_RMAP_OINFO_AG: XfsOwnerInfo = new XfsOwnerInfo(
  F.XFS_RMAP_OWN_AG,
);
/** Trees of inodes (kernel: `XFS_RMAP_OINFO_INOBT`). */
export const XFS_RMAP_OINFO_INOBT: XfsOwnerInfo = new XfsOwnerInfo(
  F.XFS_RMAP_OWN_INOBT,
);
/** Chunks of inodes (kernel: `XFS_RMAP_OINFO_INODES`). */
export const XFS_RMAP_OINFO_INODES: XfsOwnerInfo = new XfsOwnerInfo(
  F.XFS_RMAP_OWN_INODES,
);
/** The tree of reference counts (kernel: `XFS_RMAP_OINFO_REFC`). */
export const XFS_RMAP_OINFO_REFC: XfsOwnerInfo = new XfsOwnerInfo(
  F.XFS_RMAP_OWN_REFC,
);

/** Whether nothing is to be done for an owner (kernel:
 * `xfs_rmap_should_skip_owner_update`). */
export function xfsRmapShouldSkipOwnerUpdate(info: XfsOwnerInfo): boolean {
  return info.owner === F.XFS_RMAP_OWN_NULL;
}

/** Makes `info` stand for contents of a fork (kernel: `xfs_rmap_ino_owner`).
 * @param offset File block. */
export function xfsRmapInoOwner(
  info: XfsOwnerInfo,
  ino: number,
  whichfork: number,
  offset: number,
): void {
  info.owner = ino;
  info.offset = offset;
  info.flags = whichfork === F.XFS_ATTR_FORK ? XFS_OWNER_INFO_ATTR_FORK : 0;
}

/** The owner of a block of a fork's tree (kernel: `xfs_rmap_ino_bmbt_owner`). */
export function xfsRmapInoBmbtOwner(
  ino: number,
  whichfork: number,
): XfsOwnerInfo {
  const info = new XfsOwnerInfo();
  xfsRmapInoOwner(info, ino, whichfork, 0);
  info.flags |= XFS_OWNER_INFO_BMBT_BLOCK;
  return info;
}

function unpackOwner(
  { owner, offset, flags }: XfsOwnerInfo,
  bno: number,
  len: number,
  unwritten: boolean,
  out: XfsRmapIrec,
): void {
  let recFlags = unwritten ? F.XFS_RMAP_UNWRITTEN : 0;
  if ((flags & XFS_OWNER_INFO_ATTR_FORK) !== 0) {
    recFlags |= F.XFS_RMAP_ATTR_FORK;
  }
  if ((flags & XFS_OWNER_INFO_BMBT_BLOCK) !== 0) {
    recFlags |= F.XFS_RMAP_BMBT_BLOCK;
  }
  const place = xfsRmapIgnoresOffset(owner, recFlags) ? 0 : offset;
  out.set(bno, len, owner, place, recFlags);
}

// ---- records ----

/** What is wrong with a record, or null (kernel: `xfs_rmap_check_irec`). */
export function xfsRmapCheckIrec(
  pag: XfsPerag,
  rec: XfsRmapIrec,
): string | null {
  const { sb } = pag.mp;
  const { startblock, blockcount, owner, offset, flags } = rec;
  const special = xfsRmapNonInodeOwner(owner);
  if (startblock < sb.headerBlocks) {
    const headers = owner === F.XFS_RMAP_OWN_FS && startblock === 0 &&
      blockcount === sb.headerBlocks;
    if (!headers) return `blocks ${startblock} + ${blockcount} of headers`;
  } else if (!pag.verifyAgbext(startblock, blockcount)) {
    return `blocks ${startblock} + ${blockcount}`;
  }
  const known = special
    ? owner <= F.XFS_RMAP_OWN_FS && owner >= F.XFS_RMAP_OWN_COW
    : sb.verifyIno(owner);
  if (!known) return `owner ${owner}`;
  if (xfsRmapIgnoresOffset(owner, flags)) {
    if (offset !== 0) return `offset ${offset}`;
    const unwritten = (flags & F.XFS_RMAP_UNWRITTEN) !== 0;
    if (unwritten || (special && flags !== 0)) return `flags ${flags}`;
    return null;
  }
  const both = F.XFS_RMAP_UNWRITTEN | F.XFS_RMAP_ATTR_FORK;
  if ((flags & both) === both) return `flags ${flags}`;
  return offset + blockcount <= 2 ** 54 ? null : `offset ${offset}`;
}

/** Decodes the record at the cursor and checks it (kernel: `xfs_rmap_get_rec`).
 * @returns 1; 0 if there is none; -EFSCORRUPTED. */
export function xfsRmapGetRec(cur: XfsRmapCur, rec: XfsRmapIrec): number {
  const there = xfsBtreeGetRec(cur, rec);
  if (there !== 1) return there;
  const why = xfsRmapCheckIrec(cur.pag!, rec);
  return why === null ? 1 : complain(cur, why);
}

function complain(cur: XfsRmapCur, why: string): number {
  const where = `reverse map of group ${cur.pag!.agno}`;
  cur.mp.corrupt(where, why);
  return -EFSCORRUPTED;
}

/** Something is not in the map as it has to be. */
function mismatch(cur: XfsRmapCur, rec: XfsRmapIrec, why: string): number {
  const { startblock, blockcount, owner, offset } = rec;
  const what = `${startblock} + ${blockcount} of owner ${owner} at ${offset}`;
  return complain(cur, `${what}: ${why}`);
}

/** Finds the last record at or before a key (kernel: `xfs_rmap_lookup_le`).
 * @returns 1, 0 or a negative errno. */
export function xfsRmapLookupLe(
  cur: XfsRmapCur,
  key: XfsRmapIrec,
  out: XfsRmapIrec,
): number {
  cur.rec.copy(key);
  const found = xfsBtreeLookup(cur, XFS_LOOKUP_LE);
  return found === 1 ? xfsRmapGetRec(cur, out) : found;
}

/** Finds the record of a key (kernel: `xfs_rmap_lookup_eq`).
 * @returns 1, 0 or a negative errno. */
export function xfsRmapLookupEq(
  cur: XfsRmapCur,
  key: XfsRmapIrec,
  out: XfsRmapIrec,
): number {
  cur.rec.copy(key);
  const found = xfsBtreeLookup(cur, XFS_LOOKUP_EQ);
  return found === 1 ? xfsRmapGetRec(cur, out) : found;
}

/** Whether a record can become one with blocks of an owner (kernel:
 * `xfs_rmap_is_mergeable`). */
function isMergeable(rec: XfsRmapIrec, like: XfsRmapIrec): boolean {
  return rec.owner === like.owner && rec.flags === like.flags;
}

function ignoresOffset(rec: XfsRmapIrec): boolean {
  return xfsRmapIgnoresOffset(rec.owner, rec.flags);
}

/** Whether `right` goes on where `left` ends, and belongs to it. */
function continues(left: XfsRmapIrec, right: XfsRmapIrec): boolean {
  return left.end === right.startblock && isMergeable(left, right) &&
    (ignoresOffset(left) || left.offset + left.blockcount === right.offset);
}

/** Whether two records have the same key: the tree tells them apart by that. */
function sameKey(a: XfsRmapIrec, b: XfsRmapIrec): boolean {
  const forks = F.XFS_RMAP_ATTR_FORK | F.XFS_RMAP_BMBT_BLOCK;
  return a.startblock === b.startblock && a.owner === b.owner &&
    a.offset === b.offset && ((a.flags ^ b.flags) & forks) === 0;
}

// ---- searching where records overlap ----

/** What {@linkcode findMapping} looks for, and what it has found. */
class MappingSearch {
  readonly key = new XfsRmapIrec();
  readonly out = new XfsRmapIrec();
}

const search = new MappingSearch();
/** Ends a query. */
const FOUND = 1;

/** Whether a record holds the block that is searched for, at its place in the file. */
function holdsKey(rec: XfsRmapIrec, key: XfsRmapIrec): boolean {
  if (rec.owner !== key.owner) return false;
  if (rec.startblock > key.startblock || rec.end <= key.startblock) {
    return false;
  }
  if (ignoresOffset(rec)) return true;
  return rec.offset <= key.offset && rec.offset + rec.blockcount > key.offset;
}

function findMappingHelper(
  cur: XfsRmapCur,
  rec: XfsRmapIrec,
  priv: MappingSearch,
): number {
  const why = xfsRmapCheckIrec(cur.pag!, rec);
  if (why !== null) return complain(cur, why);
  if (!holdsKey(rec, priv.key)) return 0;
  priv.out.copy(rec);
  return FOUND;
}

/** Finds the record of an owner that holds one block. It mostly is the last one at or
 * before its key; else mappings of others are in between, and all that may hold the
 * block are gone through.
 * @returns 1, 0 or a negative errno. */
function findMapping(
  cur: XfsRmapCur,
  key: XfsRmapIrec,
  out: XfsRmapIrec,
  shared: boolean,
): number {
  search.key.copy(key);
  let found = xfsRmapLookupLe(cur, key, out);
  if (found < 0 || (found === 1 && holdsKey(out, search.key))) return found;
  if (!shared) return 0;
  const low = search.key;
  found = xfsBtreeQueryRange(cur, low, low, findMappingHelper, search);
  if (found === FOUND) out.copy(search.out);
  // A query that goes through to its end leaves the cursor in no one place.
  else cur.ptrs[0] = 0;
  return found;
}

const neighbour = new XfsRmapIrec();

/**
 * Finds the record that blocks would continue: of the same owner, it ends before them
 * on disk and in the file (kernel: `xfs_rmap_find_left_neighbor`).
 *
 * @param rec The blocks.
 * @param shared Mappings of others may overlap.
 * @returns 1, 0 or a negative errno.
 */
export function xfsRmapFindLeftNeighbor(
  cur: XfsRmapCur,
  rec: XfsRmapIrec,
  out: XfsRmapIrec,
  shared: boolean,
): number {
  if (rec.startblock === 0) return 0;
  neighbour.copy(rec);
  neighbour.startblock--;
  if (!ignoresOffset(rec)) {
    if (rec.offset === 0) return 0;
    neighbour.offset--;
  }
  return findMapping(cur, neighbour, out, shared);
}

/**
 * Finds the record that holds the first of some blocks (kernel:
 * `xfs_rmap_lookup_le_range`).
 *
 * @param rec The blocks.
 * @returns 1, 0 or a negative errno.
 */
export function xfsRmapLookupLeRange(
  cur: XfsRmapCur,
  rec: XfsRmapIrec,
  out: XfsRmapIrec,
): number {
  return findMapping(cur, rec, out, true);
}

// ---- changing records ----
//
// Where in the tree a record goes in, and in which order records change, decides which
// blocks split and join: all that is as in the kernel, so that trees come out the same.

const atCursor = new XfsRmapIrec();

/** Sets the cursor to a record that has to be there; it may stand there already.
 * @returns 1 or a negative errno. */
function seek(cur: XfsRmapCur, rec: XfsRmapIrec): number {
  if (xfsBtreeGetRec(cur, atCursor) === 1 && sameKey(atCursor, rec)) return 1;
  cur.rec.copy(rec);
  const found = xfsBtreeLookup(cur, XFS_LOOKUP_EQ);
  return found === 0 ? mismatch(cur, rec, "not there") : found;
}

/** Inserts a record before the one at the cursor.
 * @returns 0 or a negative errno. */
function insertHere(cur: XfsRmapCur, rec: XfsRmapIrec): number {
  cur.rec.copy(rec);
  const done = xfsBtreeInsert(cur);
  if (done === 0) return mismatch(cur, rec, "no block for the tree");
  // It is in no one place now.
  cur.ptrs[0] = 0;
  return Math.min(done, 0);
}

/** Inserts a record where its key is looked up (kernel: `xfs_rmap_insert`). */
function insertRec(cur: XfsRmapCur, rec: XfsRmapIrec): number {
  cur.rec.copy(rec);
  const found = xfsBtreeLookup(cur, XFS_LOOKUP_EQ);
  if (found < 0) return found;
  if (found === 1) return mismatch(cur, rec, "there already");
  return insertHere(cur, rec);
}

/** Inserts a record after the one at the cursor. */
function insertAfter(cur: XfsRmapCur, rec: XfsRmapIrec): number {
  const there = xfsBtreeIncrement(cur);
  if (there < 0) return there;
  if (there === 1) {
    xfsBtreeGetRec(cur, atCursor);
    const { startblock, owner } = atCursor;
    if (startblock < rec.end) {
      return mismatch(cur, rec, `owner ${owner} has some of them`);
    }
  }
  return insertHere(cur, rec);
}

/** Kernel: `xfs_rmap_delete`. */
function deleteRec(cur: XfsRmapCur, rec: XfsRmapIrec): number {
  const found = seek(cur, rec);
  if (found < 0) return found;
  const done = xfsBtreeDelete(cur);
  if (done === 0) return mismatch(cur, rec, "not to be deleted");
  cur.ptrs[0] = 0;
  return Math.min(done, 0);
}

/** Writes `rec` over `old`, or over the record of its own key (kernel:
 * `xfs_rmap_update`). */
function updateRec(
  cur: XfsRmapCur,
  rec: XfsRmapIrec,
  old: XfsRmapIrec = rec,
): number {
  const found = seek(cur, old);
  if (found < 0) return found;
  cur.rec.copy(rec);
  return xfsBtreeUpdate(cur);
}

/** Puts `rec` in the place of `old`, which begins elsewhere. Where mappings of others
 * may lie in between, it has to move. */
function moveRec(
  cur: XfsRmapCur,
  rec: XfsRmapIrec,
  old: XfsRmapIrec,
  shared: boolean,
): number {
  if (!shared) return updateRec(cur, rec, old);
  const error = deleteRec(cur, old);
  return error < 0 ? error : insertRec(cur, rec);
}

/** Shortens a record to what is before a block. */
function cutEnd(rec: XfsRmapIrec, bno: number): void {
  rec.blockcount = bno - rec.startblock;
}

/** Shortens a record to what is from a block on. */
function cutStart(rec: XfsRmapIrec, bno: number): void {
  const gone = bno - rec.startblock;
  rec.startblock = bno;
  rec.blockcount -= gone;
  if (!ignoresOffset(rec)) rec.offset += gone;
}

// Scratch: operations on the map do not nest.
const range = new XfsRmapIrec();
const prev = new XfsRmapIrec();
const rest = new XfsRmapIrec();
const probe = new XfsRmapIrec();
const left = new XfsRmapIrec();
const right = new XfsRmapIrec();

/** Finds in `left` and `right` what `range` would become one record with. */
function findNeighbours(cur: XfsRmapCur, shared: boolean): number {
  if (!shared) return findOwnNeighbours(cur);
  const error = findRight(cur);
  return error < 0 ? error : findLeft(cur, shared);
}

/** Finds in `right` the record that continues `range`, by its key. */
function findRight(cur: XfsRmapCur): number {
  probe.copy(range);
  probe.startblock = range.end;
  if (!ignoresOffset(range)) probe.offset += range.blockcount;
  const found = xfsRmapLookupEq(cur, probe, right);
  if (found === 0 || !continues(range, right)) right.blockcount = 0;
  return Math.min(found, 0);
}

/** Finds in `left` the record that `range` continues. */
function findLeft(cur: XfsRmapCur, shared: boolean): number {
  const found = xfsRmapFindLeftNeighbor(cur, range, left, shared);
  if (found === 0 || !continues(left, range)) left.blockcount = 0;
  return Math.min(found, 0);
}

/** The same where nobody else has anything to do with the blocks. */
function findOwnNeighbours(cur: XfsRmapCur): number {
  let found = xfsRmapLookupLe(cur, range, left);
  if (found < 0) return found;
  if (found === 1 && left.end > range.startblock) {
    return mismatch(cur, range, `owner ${left.owner} has them`);
  }
  if (found === 0 || !continues(left, range)) left.blockcount = 0;
  found = xfsBtreeIncrement(cur);
  if (found === 1) found = xfsRmapGetRec(cur, right);
  if (found < 0) return found;
  if (found === 1 && right.startblock < range.end) {
    return mismatch(cur, range, `owner ${right.owner} has some of them`);
  }
  if (found === 0 || !continues(range, right)) right.blockcount = 0;
  return 0;
}

/** Adds the mapping in `range` (kernel: `xfs_rmap_map`, `xfs_rmap_map_shared`). */
function map(cur: XfsRmapCur, shared: boolean): number {
  const error = findNeighbours(cur, shared);
  if (error < 0) return error;
  if (left.blockcount > 0) return mergeLeft(cur);
  if (right.blockcount > 0) {
    range.blockcount += right.blockcount;
    return moveRec(cur, range, right, shared);
  }
  return shared ? insertRec(cur, range) : insertHere(cur, range);
}

/** `left` becomes one with `range`, and with `right` if there is one. */
function mergeLeft(cur: XfsRmapCur): number {
  const error = right.blockcount > 0 ? deleteRec(cur, right) : 0;
  if (error < 0) return error;
  left.blockcount += range.blockcount + right.blockcount;
  return updateRec(cur, left);
}

/** Finds in `prev` the record that `range` is part of; it must be all of it, with the
 * flags of `range`. */
function findPrev(cur: XfsRmapCur, shared: boolean): number {
  const found = shared
    ? xfsRmapLookupLeRange(cur, range, prev)
    : xfsRmapLookupLe(cur, range, prev);
  if (found < 0) return found;
  if (found === 0) return mismatch(cur, range, "no record");
  if (prev.end < range.end || prev.startblock > range.startblock) {
    return mismatch(
      cur,
      range,
      `record ${prev.startblock} + ${prev.blockcount}`,
    );
  }
  if (!isMergeable(prev, range)) {
    const { owner, flags } = prev;
    return mismatch(cur, range, `owner ${owner} with flags ${flags} has them`);
  }
  if (ignoresOffset(prev)) return 1;
  const offset = prev.offset + range.startblock - prev.startblock;
  return offset === range.offset
    ? 1
    : mismatch(cur, range, `they are at ${offset}`);
}

/** Takes the mapping in `range` out (kernel: `xfs_rmap_unmap`,
 * `xfs_rmap_unmap_shared`). */
function unmap(cur: XfsRmapCur, shared: boolean): number {
  if (range.owner === F.XFS_RMAP_OWN_UNKNOWN) {
    const known = adoptOwner(cur);
    if (known !== 1) return known;
  }
  const found = findPrev(cur, shared);
  if (found < 0) return found;
  rest.copy(prev);
  cutStart(rest, range.end);
  if (prev.startblock === range.startblock) {
    return rest.blockcount === 0
      ? deleteRec(cur, prev)
      : moveRec(cur, rest, prev, shared);
  }
  cutEnd(prev, range.startblock);
  const error = updateRec(cur, prev);
  if (error < 0 || rest.blockcount === 0) return error;
  return shared ? insertRec(cur, rest) : insertAfter(cur, rest);
}

/** Whoever has the blocks of `range` is meant. It may be nobody: then they have been
 * taken out before.
 * @returns 1, 0 if nobody has them, or a negative errno. */
function adoptOwner(cur: XfsRmapCur): number {
  let found = xfsRmapLookupLe(cur, range, prev);
  if (found === 1 && prev.end > range.startblock) {
    range.owner = prev.owner;
    range.flags = prev.flags;
    if (!ignoresOffset(prev)) {
      range.offset = prev.offset + range.startblock - prev.startblock;
    }
    return 1;
  }
  if (found >= 0) found = xfsBtreeIncrement(cur);
  if (found === 1) found = xfsRmapGetRec(cur, prev);
  if (found === 1 && prev.startblock < range.end) {
    return mismatch(cur, range, `owner ${prev.owner} has some of them`);
  }
  return Math.min(found, 0);
}

/** Blocks of the mapping in `range`, which has the old state, become written, or
 * unwritten (kernel: `xfs_rmap_convert`, `xfs_rmap_convert_shared`). */
function convert(cur: XfsRmapCur, shared: boolean): number {
  let found = findPrev(cur, shared);
  if (found < 0) return found;
  // What neighbours have to be like.
  range.flags ^= F.XFS_RMAP_UNWRITTEN;
  left.blockcount = right.blockcount = 0;
  const atStart = prev.startblock === range.startblock;
  const atEnd = prev.end === range.end;
  if (atEnd) found = findRight(cur);
  if (found < 0) return found;
  if (atStart) found = findLeft(cur, shared);
  if (found < 0) return found;
  rest.copy(prev);
  cutStart(rest, range.end);
  if (atStart) {
    return atEnd ? convertAll(cur) : convertStart(cur, shared);
  }
  cutEnd(prev, range.startblock);
  return atEnd ? convertEnd(cur, shared) : convertMiddle(cur, shared);
}

/** All of `prev` becomes as `range` is. */
function convertAll(cur: XfsRmapCur): number {
  const error = right.blockcount > 0 ? deleteRec(cur, right) : 0;
  if (error < 0) return error;
  range.blockcount += right.blockcount;
  if (left.blockcount === 0) return updateRec(cur, range);
  const failed = deleteRec(cur, prev);
  if (failed < 0) return failed;
  left.blockcount += range.blockcount;
  return updateRec(cur, left);
}

/** Only `rest` of `prev` stays as it is. */
function convertStart(cur: XfsRmapCur, shared: boolean): number {
  const error = moveRec(cur, rest, prev, shared);
  if (error < 0) return error;
  if (left.blockcount > 0) {
    left.blockcount += range.blockcount;
    return updateRec(cur, left);
  }
  return shared ? insertRec(cur, range) : insertHere(cur, range);
}

/** What stays is in `prev`. */
function convertEnd(cur: XfsRmapCur, shared: boolean): number {
  const error = updateRec(cur, prev);
  if (error < 0) return error;
  if (right.blockcount === 0) return insertRec(cur, range);
  range.blockcount += right.blockcount;
  return moveRec(cur, range, right, shared);
}

/** What stays is in `prev` and `rest`. */
function convertMiddle(cur: XfsRmapCur, shared: boolean): number {
  let error = shared ? insertRec(cur, rest) : updateRec(cur, rest, prev);
  if (error < 0) return error;
  error = shared ? updateRec(cur, prev) : insertHere(cur, prev);
  return error < 0 ? error : insertRec(cur, range);
}

// ---- at once ----

/**
 * Blocks have been allocated (kernel: `xfs_rmap_alloc`). For owners that the allocator
 * knows; contents of forks follow as deferred work.
 *
 * @param agbp Buffer of the AGF; the AGFL has been filled.
 * @param bno First block, within the group.
 * @returns 0; -EFSCORRUPTED if somebody has them; another negative errno.
 */
export function xfsRmapAlloc(
  tp: XfsTrans,
  agbp: XfsBuf,
  pag: XfsPerag,
  bno: number,
  len: number,
  oinfo: XfsOwnerInfo,
): number {
  if (!pag.mp.sb.hasRmapbt) return 0;
  const cur = xfsRmapbtInitCursor(pag.mp, tp, agbp, pag);
  unpackOwner(oinfo, bno, len, false, range);
  const error = map(cur, false);
  xfsBtreeDelCursor(cur);
  return error;
}

/**
 * Blocks are being freed (kernel: `xfs_rmap_free`).
 *
 * @param agbp Buffer of the AGF; the AGFL has been filled.
 * @param bno First block, within the group.
 * @param oinfo Whose they are; `XFS_RMAP_OINFO_ANY_OWNER` if that is not known.
 * @returns 0; -EFSCORRUPTED if they are not the owner's; another negative errno.
 */
export function xfsRmapFree(
  tp: XfsTrans,
  agbp: XfsBuf,
  pag: XfsPerag,
  bno: number,
  len: number,
  oinfo: XfsOwnerInfo,
): number {
  if (!pag.mp.sb.hasRmapbt) return 0;
  const cur = xfsRmapbtInitCursor(pag.mp, tp, agbp, pag);
  unpackOwner(oinfo, bno, len, false, range);
  const error = unmap(cur, false);
  xfsBtreeDelCursor(cur);
  return error;
}

// ---- as deferred work ----

// Changes of the map (kernel: `enum xfs_rmap_intent_type`), numbered as in a log.
/** Blocks become part of a fork. */
export const XFS_RMAP_MAP = 1;
/** The same where others may have them, too. */
export const XFS_RMAP_MAP_SHARED = 2;
/** Blocks leave a fork. */
export const XFS_RMAP_UNMAP = 3;
/** The same where others may have them, too. */
export const XFS_RMAP_UNMAP_SHARED = 4;
/** Blocks of a fork become written, or unwritten. */
export const XFS_RMAP_CONVERT = 5;
/** The same where others may have them, too. */
export const XFS_RMAP_CONVERT_SHARED = 6;
/** Blocks come to an owner that is no inode. */
export const XFS_RMAP_ALLOC = 7;
/** Blocks leave an owner that is no inode. */
export const XFS_RMAP_FREE = 8;

/** Most changes that an intent has room for (kernel: `XFS_RUI_MAX_FAST_EXTENTS`). */
const RUI_MAX_FAST_EXTENTS = 16;

/** A change that is to be made (kernel: `struct xfs_rmap_intent`). */
export class XfsRmapIntent implements DeferOp {
  readonly type: DeferOpType = xfsRmapUpdateDeferType;
  /** `XFS_RMAP_MAP` and so on. */
  readonly op: number;
  /** Inode number, or `XFS_RMAP_OWN_*`. */
  readonly owner: number;
  /** Of the inode. */
  readonly whichfork: number;
  /** Group of the blocks (kernel: `ri_group`). */
  readonly pag: XfsPerag;
  /** First block, of the file system. */
  readonly startblock: number;
  /** Blocks. */
  readonly blockcount: number;
  /** File block. */
  readonly startoff: number;
  /** State of the extent; after a conversion the new one. */
  readonly unwritten: boolean;

  constructor(
    mp: XfsMount,
    op: number,
    owner: number,
    whichfork: number,
    startoff: number,
    startblock: number,
    blockcount: number,
    unwritten: boolean,
  ) {
    this.pag = mp.perags[mp.sb.fsbToAgno(startblock)]!;
    this.op = op;
    this.owner = owner;
    this.whichfork = whichfork;
    this.startoff = startoff;
    this.startblock = startblock;
    this.blockcount = blockcount;
    this.unwritten = unwritten;
  }
}

/** Kernel: `xfs_rmap_update_defer_type`. */
class RmapDeferType implements DeferOpType {
  readonly name = "rmap";
  readonly maxItems: number = RUI_MAX_FAST_EXTENTS;
  /** In the group that the last item was of; null between groups of items. */
  #cur: XfsRmapCur | null = null;
  readonly #oinfo = new XfsOwnerInfo();

  diffItems(a: XfsRmapIntent, b: XfsRmapIntent): number {
    return a.pag.agno - b.pag.agno;
  }

  /** Kernel: `xfs_rmap_finish_one`. */
  finish(tp: XfsTrans, ri: XfsRmapIntent): number {
    const error = this.#goTo(tp, ri.pag);
    if (error < 0) return error;
    xfsRmapInoOwner(this.#oinfo, ri.owner, ri.whichfork, ri.startoff);
    const agbno = tp.mp.sb.fsbToAgbno(ri.startblock);
    unpackOwner(this.#oinfo, agbno, ri.blockcount, ri.unwritten, range);
    return change(this.#cur!, ri.op);
  }

  /** Sees to it that the cursor is one of the group. */
  #goTo(tp: XfsTrans, pag: XfsPerag): number {
    if (this.#cur !== null) {
      if (this.#cur.pag === pag) return 0;
      this.cleanup();
    }
    // The tree may have to grow.
    const agbp = xfsFreeExtentFixFreelist(tp, pag);
    if (typeof agbp === "number") return agbp;
    this.#cur = xfsRmapbtInitCursor(tp.mp, tp, agbp, pag);
    return 0;
  }

  cleanup(): void {
    if (this.#cur !== null) xfsBtreeDelCursor(this.#cur);
    this.#cur = null;
  }
}

/** Kernel: `__xfs_rmap_finish_intent`. */
function change(cur: XfsRmapCur, op: number): number {
  switch (op) {
    case XFS_RMAP_MAP:
    case XFS_RMAP_ALLOC:
      return map(cur, false);
    case XFS_RMAP_MAP_SHARED:
      return map(cur, true);
    case XFS_RMAP_UNMAP:
    case XFS_RMAP_FREE:
      return unmap(cur, false);
    case XFS_RMAP_UNMAP_SHARED:
      return unmap(cur, true);
  }
  // The intent has the new state, the map the old one.
  range.flags ^= F.XFS_RMAP_UNWRITTEN;
  return convert(cur, op === XFS_RMAP_CONVERT_SHARED);
}

/** Changes of the reverse map as deferred work. */
export const xfsRmapUpdateDeferType: DeferOpType = new RmapDeferType();

/** Kernel: `xfs_rmap_update_is_needed`. What copies will go to is nobody's as yet. */
function updateIsNeeded(mp: XfsMount, whichfork: number): boolean {
  return mp.sb.hasRmapbt && whichfork !== F.XFS_COW_FORK;
}

/** Leaves a change of a fork's extent; `op` is the one for blocks that are not shared. */
function addForFork(
  tp: XfsTrans,
  op: number,
  ip: XfsInode,
  whichfork: number,
  rec: BmbtIrec,
): void {
  const shared = whichfork !== F.XFS_ATTR_FORK && ip.isReflink;
  const { startoff, startblock, count, unwritten } = rec;
  xfsDeferAdd(
    tp,
    new XfsRmapIntent(
      tp.mp,
      shared ? op + 1 : op,
      ip.ino,
      whichfork,
      startoff,
      startblock,
      count,
      unwritten,
    ),
  );
}

/** An extent becomes part of a fork (kernel: `xfs_rmap_map_extent`).
 * @param rec It; copied. */
export function xfsRmapMapExtent(
  tp: XfsTrans,
  ip: XfsInode,
  whichfork: number,
  rec: BmbtIrec,
): void {
  if (!updateIsNeeded(tp.mp, whichfork)) return;
  addForFork(tp, XFS_RMAP_MAP, ip, whichfork, rec);
}

/** An extent leaves a fork (kernel: `xfs_rmap_unmap_extent`).
 * @param rec It; copied. */
export function xfsRmapUnmapExtent(
  tp: XfsTrans,
  ip: XfsInode,
  whichfork: number,
  rec: BmbtIrec,
): void {
  if (!updateIsNeeded(tp.mp, whichfork)) return;
  addForFork(tp, XFS_RMAP_UNMAP, ip, whichfork, rec);
}

/** An extent becomes written or unwritten (kernel: `xfs_rmap_convert_extent`).
 * @param rec It, with the new state; copied. */
export function xfsRmapConvertExtent(
  tp: XfsTrans,
  ip: XfsInode,
  whichfork: number,
  rec: BmbtIrec,
): void {
  if (!updateIsNeeded(tp.mp, whichfork)) return;
  addForFork(tp, XFS_RMAP_CONVERT, ip, whichfork, rec);
}

function addForOwner(
  tp: XfsTrans,
  op: number,
  fsbno: number,
  len: number,
  owner: number,
): void {
  if (!updateIsNeeded(tp.mp, F.XFS_DATA_FORK)) return;
  xfsDeferAdd(
    tp,
    new XfsRmapIntent(
      tp.mp,
      op,
      owner,
      F.XFS_DATA_FORK,
      0,
      fsbno,
      len,
      false,
    ),
  );
}

/** Blocks come to an owner that is no inode (kernel: `xfs_rmap_alloc_extent`).
 * @param owner `XFS_RMAP_OWN_*`. */
export function xfsRmapAllocExtent(
  tp: XfsTrans,
  fsbno: number,
  len: number,
  owner: number,
): void {
  addForOwner(tp, XFS_RMAP_ALLOC, fsbno, len, owner);
}

/** Blocks leave an owner that is no inode (kernel: `xfs_rmap_free_extent`).
 * @param owner `XFS_RMAP_OWN_*`. */
export function xfsRmapFreeExtent(
  tp: XfsTrans,
  fsbno: number,
  len: number,
  owner: number,
): void {
  addForOwner(tp, XFS_RMAP_FREE, fsbno, len, owner);
}
