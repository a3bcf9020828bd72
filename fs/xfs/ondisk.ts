/**
 * How metadata is encoded on the device: the one file that knows which byte a field
 * lies in.
 *
 * Block 0 holds the super block. It points to a blob with the free space and the
 * inode chunks of all groups. An inode is a record of 512 bytes in a chunk of 64;
 * its content, an extent list or directory entries, lies in the record or in a
 * blob of its own. A blob is a few runs of blocks. Everything has a CRC-32C.
 * Numbers are big-endian, as in XFS, whose v5 layout this is not yet: it tells the
 * two apart by the magic.
 *
 * @module
 */

import { crc32c } from "../../lib/crc32c.ts";
import { AG_MIN_BYTES, INODE_SIZE } from "./format.ts";
import type { XfsPerag } from "./ag.ts";
import { BmbtIrec, IextCursor, type Ifork } from "./iext.ts";
import type { XfsDir } from "./dir.ts";

/** "XFSd". */
const SB_MAGIC = 0x58465364;
/** "XFSB": the super block of XFS proper. */
const REAL_XFS_MAGIC = 0x58465342;
const VERSION = 1;
const SB_SIZE = 512;
/** Blocks at the start of a group that are never anything but headers. */
const AG_HEADER_BLOCKS = 10;
/** "IN". */
const INODE_MAGIC = 0x494e;
/** First byte in an inode record of what depends on where the content is. */
const LITERAL = 112;
const RUN_BYTES = 12;
const EXTENT_BYTES = 20;
/** Content that fits in the inode record, bytes. */
export const INLINE_BYTES: number = INODE_SIZE - LITERAL;
/** Bytes that a blob may have beyond its content: a block, and what the groups'
 * blob may need when its own blocks are taken. */
const MAX_SPARE = 8192;
/** Each run that the groups' blob takes may have been a free extent, so many bytes. */
const FREE_EXTENT_BYTES = 8;
/** Maps of maps; the lowest alone lists thousands of runs. */
const MAX_DEPTH = 4;
/** Most runs that a record lists itself. */
export const MAX_RUNS: number = Math.floor(INLINE_BYTES / RUN_BYTES);

/** A run of blocks on the device. */
export interface Run {
  /** First block. */
  start: number;
  /** Blocks. */
  count: number;
}

/** Bytes kept in blocks of their own. */
export interface BlobRef {
  /** Bytes. */
  length: number;
  /** CRC-32C of them. */
  crc: number;
  /** Where they lie, in order. */
  runs: Run[];
  /** The blob that lists the runs where they are more than a record holds, else null. */
  map: BlobRef | null;
  /** Maps that have to be read before the runs are those of the content: then what is
   * said above is said of a map. */
  depth: number;
}

/** What the super block says (kernel: `struct xfs_dsb`). */
export interface DiskSuper {
  /** Bytes of a block. */
  blockSize: number;
  /** Blocks in all. */
  dblocks: number;
  /** Allocation groups. */
  agCount: number;
  /** Blocks of each group but the last. */
  agBlocks: number;
  /** Number of the root directory. */
  rootIno: number;
  /** Up to 12 bytes of text. */
  label: string;
  /** Unmounted since the last mount: free space and inode chunks are as the blob says. */
  clean: boolean;
  /** Free space and inode chunks of all groups. */
  groups: BlobRef;
}

/** What an inode record says (kernel: `struct xfs_dinode`). */
export interface DiskInode {
  /** The number that it bears. */
  ino: number;
  /** Type and permissions. */
  mode: number;
  /** Names. */
  nlink: number;
  /** Owner. */
  uid: number;
  /** Group. */
  gid: number;
  /** Bytes. */
  size: number;
  /** Blocks of data. */
  nblocks: number;
  /** Nanoseconds since 1970. */
  atime: number;
  /** Nanoseconds since 1970. */
  mtime: number;
  /** Nanoseconds since 1970. */
  ctime: number;
  /** `XFS_DIFLAG_*`. */
  diflags: number;
  /** The content if it fits in the record, else null. */
  inline: Uint8Array | null;
  /** Where the content is if it does not. */
  blob: BlobRef;
}

const utf8 = new TextEncoder();
const text = new TextDecoder();

function view(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

/** A whole number; a negative one is for {@linkcode getI64}. */
function putU64(v: DataView, at: number, value: number): void {
  const high = Math.floor(value / 2 ** 32);
  v.setUint32(at, high);
  v.setUint32(at + 4, value - high * 2 ** 32);
}

function getU64(v: DataView, at: number): number {
  return v.getUint32(at) * 2 ** 32 + v.getUint32(at + 4);
}

function getI64(v: DataView, at: number): number {
  return v.getInt32(at) * 2 ** 32 + v.getUint32(at + 4);
}

/** Puts the checksum of `data`, whose field at `at` counts as zero, into that field. */
function seal(data: Uint8Array, at: number): void {
  const v = view(data);
  v.setUint32(at, 0);
  v.setUint32(at, crc32c(data));
}

/** Whether the checksum at `at` is that of `data`. */
function sealed(data: Uint8Array, at: number): boolean {
  const copy = data.slice();
  seal(copy, at);
  return view(copy).getUint32(at) === view(data).getUint32(at);
}

function putRuns(v: DataView, at: number, runs: Run[]): void {
  for (const { start, count } of runs) {
    putU64(v, at, start);
    v.setUint32(at + 8, count);
    at += RUN_BYTES;
  }
}

function getRuns(v: DataView, at: number, n: number): Run[] {
  return Array.from({ length: n }, (_, i) => ({
    start: getU64(v, at + i * RUN_BYTES),
    count: v.getUint32(at + i * RUN_BYTES + 8),
  }));
}

/** A blob of nothing. */
export function emptyBlob(): BlobRef {
  return { length: 0, crc: 0, runs: [], map: null, depth: 0 };
}

/** Puts what a record says of a blob: of its outermost map, if it has any. */
function putBlob(v: DataView, at: number, blob: BlobRef): void {
  let depth = 0;
  let top = blob;
  for (; top.map !== null; top = top.map) depth++;
  v.setUint32(at, top.length);
  v.setUint32(at + 4, top.crc);
  v.setUint16(at + 8, depth);
  v.setUint16(at + 10, top.runs.length);
  putRuns(v, LITERAL, top.runs);
}

/** Reads what {@linkcode putBlob} has put. */
function getBlob(v: DataView, at: number): BlobRef {
  return {
    length: v.getUint32(at),
    crc: v.getUint32(at + 4),
    runs: getRuns(v, LITERAL, Math.min(v.getUint16(at + 10), MAX_RUNS)),
    map: null,
    depth: v.getUint16(at + 8),
  };
}

/** Bytes of a map of `runs` runs. */
export function mapBytes(runs: number): number {
  return 12 + runs * RUN_BYTES;
}

/** Bytes of the map of a blob. */
export function encodeMap(blob: BlobRef): Uint8Array {
  const data = new Uint8Array(mapBytes(blob.runs.length));
  const v = view(data);
  v.setUint32(0, blob.length);
  v.setUint32(4, blob.crc);
  v.setUint32(8, blob.runs.length);
  putRuns(v, 12, blob.runs);
  return data;
}

/**
 * Takes in a map that has been read: `blob` is what it says from then on.
 *
 * @returns Null, or which check failed.
 */
export function decodeMap(
  data: Uint8Array,
  blob: BlobRef,
  sb: { dblocks: number; blockSize: number },
): string | null {
  const v = view(data);
  if (data.length < 12 || data.length !== mapBytes(v.getUint32(8))) {
    return `a map of runs has ${data.length} bytes`;
  }
  blob.map = { ...blob, depth: 0 };
  blob.depth--;
  blob.length = v.getUint32(0);
  blob.crc = v.getUint32(4);
  blob.runs = getRuns(v, 12, v.getUint32(8));
  return checkBlob(blob, sb);
}

/** Bytes of the super block for {@linkcode decodeSuper}. */
export function encodeSuper(sb: DiskSuper): Uint8Array {
  const data = new Uint8Array(SB_SIZE);
  const v = view(data);
  v.setUint32(0, SB_MAGIC);
  v.setUint32(8, VERSION);
  v.setUint32(12, sb.blockSize);
  putU64(v, 16, sb.dblocks);
  v.setUint32(24, sb.agCount);
  v.setUint32(28, sb.agBlocks);
  putU64(v, 32, sb.rootIno);
  data.set(utf8.encode(sb.label), 40);
  v.setUint8(52, sb.clean ? 1 : 0);
  putBlob(v, 56, sb.groups);
  seal(data, 4);
  return data;
}

/** Why metadata is not accepted. */
export interface Refusal {
  /** True: this is something else altogether. False: it is damaged. */
  foreign: boolean;
  /** The check that failed. */
  reason: string;
}

function corrupt(reason: string): Refusal {
  return { foreign: false, reason };
}

/**
 * Reads the super block.
 *
 * @param data The first 512 bytes of the device.
 * @param deviceBytes Size of the device.
 * @returns What it says, or which check failed.
 */
export function decodeSuper(
  data: Uint8Array,
  deviceBytes: number,
): DiskSuper | Refusal {
  const v = view(data.subarray(0, SB_SIZE));
  const magic = v.getUint32(0);
  if (magic === REAL_XFS_MAGIC) {
    return {
      foreign: true,
      reason: "holds the v5 format of XFS, which cannot be read here",
    };
  }
  if (magic !== SB_MAGIC) {
    const hex = magic.toString(16).padStart(8, "0");
    return { foreign: true, reason: `not an XFS: magic 0x${hex}` };
  }
  if (!sealed(data.subarray(0, SB_SIZE), 4)) {
    return corrupt("super block: checksum does not match");
  }
  const label = data.subarray(40, 52);
  const sb: DiskSuper = {
    blockSize: v.getUint32(12),
    dblocks: getU64(v, 16),
    agCount: v.getUint32(24),
    agBlocks: v.getUint32(28),
    rootIno: getU64(v, 32),
    label: text.decode(label).replace(/\0+$/, ""),
    clean: v.getUint8(52) === 1,
    groups: getBlob(v, 56),
  };
  const wrong = checkSuper(sb, v.getUint32(8), deviceBytes);
  return wrong === null ? sb : corrupt(`super block: ${wrong}`);
}

function checkSuper(
  sb: DiskSuper,
  version: number,
  deviceBytes: number,
): string | null {
  const { blockSize, dblocks, agCount, agBlocks } = sb;
  if (version !== VERSION) return `version ${version} is unknown`;
  if (blockSize < 512 || blockSize > 4096 || (blockSize & blockSize - 1)) {
    return `block size ${blockSize} is not 512, 1024, 2048 or 4096`;
  }
  if (dblocks * blockSize > deviceBytes) {
    return `${dblocks} blocks of ${blockSize} bytes do not fit in the ` +
      `${deviceBytes} bytes of the device`;
  }
  if (agBlocks * blockSize < AG_MIN_BYTES) {
    return `groups of ${agBlocks} blocks are below ${AG_MIN_BYTES} bytes`;
  }
  const last = dblocks - (agCount - 1) * agBlocks;
  if (agCount < 1 || last <= AG_HEADER_BLOCKS || last > agBlocks) {
    return `${agCount} groups of ${agBlocks} blocks do not make ${dblocks}`;
  }
  return checkBlob(sb.groups, sb);
}

/** Whether a blob's runs lie on the device and hold as much as it claims. */
function checkBlob(
  blob: BlobRef,
  sb: { dblocks: number; blockSize: number },
): string | null {
  let blocks = 0;
  if (blob.depth > MAX_DEPTH) return `${blob.depth} maps of runs`;
  for (const { start, count } of blob.runs) {
    blocks += count;
    if (count < 1 || start < AG_HEADER_BLOCKS || start + count > sb.dblocks) {
      return `run ${start}+${count} lies outside the ${sb.dblocks} blocks`;
    }
  }
  const spare = blocks * sb.blockSize - blob.length;
  if (spare < 0) return `${blocks} blocks do not hold ${blob.length} bytes`;
  // Room is made for what is read: there must be no more of it than is used.
  const most = MAX_SPARE + blob.runs.length * FREE_EXTENT_BYTES;
  return spare > most || blocks > sb.dblocks
    ? `${blocks} blocks are too many for ${blob.length} bytes`
    : null;
}

/**
 * Encodes an inode record.
 *
 * @param data Its 512 bytes, which are overwritten.
 */
export function encodeInode(data: Uint8Array, inode: DiskInode): void {
  data.fill(0);
  const v = view(data);
  v.setUint16(0, INODE_MAGIC);
  v.setUint16(2, inode.mode);
  putU64(v, 8, inode.ino);
  v.setUint32(16, inode.nlink);
  v.setUint32(20, inode.uid);
  v.setUint32(24, inode.gid);
  v.setUint32(28, inode.diflags);
  putU64(v, 32, inode.size);
  putU64(v, 40, inode.nblocks);
  putU64(v, 48, inode.atime);
  putU64(v, 56, inode.mtime);
  putU64(v, 64, inode.ctime);
  const { inline, blob } = inode;
  if (inline === null) putBlob(v, 72, blob);
  else {
    v.setUint32(72, inline.length);
    data.set(inline, LITERAL);
  }
  seal(data, 4);
}

/**
 * Reads an inode record.
 *
 * @param data Its 512 bytes.
 * @param ino The number that it must bear.
 * @returns What it says, or which check failed.
 */
export function decodeInode(
  data: Uint8Array,
  ino: number,
  sb: { dblocks: number; blockSize: number },
): DiskInode | Refusal {
  const v = view(data);
  const name = `inode ${ino}`;
  if (v.getUint16(0) !== INODE_MAGIC) return corrupt(`${name}: magic`);
  if (!sealed(data, 4)) return corrupt(`${name}: checksum does not match`);
  if (getU64(v, 8) !== ino) return corrupt(`${name}: bears another number`);
  const length = v.getUint32(72);
  const nruns = v.getUint16(82);
  if (nruns > MAX_RUNS) return corrupt(`${name}: ${nruns} runs`);
  const isInline = nruns === 0;
  if (isInline && length > INLINE_BYTES) {
    return corrupt(`${name}: ${length} bytes of content in the record`);
  }
  const blob = isInline ? emptyBlob() : getBlob(v, 72);
  const wrong = checkBlob(blob, sb);
  if (wrong !== null) return corrupt(`${name}: ${wrong}`);
  const nlink = v.getUint32(16);
  if (nlink === 0) return corrupt(`${name}: no links`);
  const size = getU64(v, 32);
  const nblocks = getU64(v, 40);
  if (!Number.isSafeInteger(size) || nblocks > sb.dblocks) {
    return corrupt(`${name}: size ${size}, blocks ${nblocks}`);
  }
  return {
    ino,
    mode: v.getUint16(2),
    nlink,
    uid: v.getUint32(20),
    gid: v.getUint32(24),
    diflags: v.getUint32(28),
    size,
    nblocks,
    atime: getI64(v, 48),
    mtime: getI64(v, 56),
    ctime: getI64(v, 64),
    inline: isInline ? data.slice(LITERAL, LITERAL + length) : null,
    blob,
  };
}

/** Bytes of an extent list; promised space is left out. */
export function encodeExtents(fork: Ifork): Uint8Array {
  const data = new Uint8Array(fork.nextents * EXTENT_BYTES);
  const v = view(data);
  const cur = new IextCursor();
  const rec = new BmbtIrec();
  let at = 0;
  for (let more = fork.first(cur, rec); more; more = fork.next(cur, rec)) {
    if (rec.startblock < 0) continue;
    putU64(v, at, rec.startoff);
    putU64(v, at + 8, rec.startblock);
    v.setUint32(at + 16, rec.count * 2 + (rec.unwritten ? 1 : 0));
    at += EXTENT_BYTES;
  }
  return data.subarray(0, at);
}

/**
 * Fills an empty fork.
 *
 * @returns Null, or which check failed.
 */
export function decodeExtents(
  data: Uint8Array,
  fork: Ifork,
  dblocks: number,
): string | null {
  if (data.length % EXTENT_BYTES !== 0) return "length of the extent list";
  const v = view(data);
  const cur = new IextCursor();
  const rec = new BmbtIrec();
  const last = new BmbtIrec();
  for (let at = 0; at < data.length; at += EXTENT_BYTES) {
    const word = v.getUint32(at + 16);
    const count = Math.floor(word / 2);
    rec.set(getU64(v, at), getU64(v, at + 8), count, (word & 1) !== 0);
    const outside = rec.startblock < AG_HEADER_BLOCKS ||
      rec.startblock + count > dblocks;
    if (count === 0 || outside || rec.startoff < last.endoff) {
      return `extent ${at / EXTENT_BYTES}: ` +
        `${rec.startoff} at ${rec.startblock}+${count}`;
    }
    fork.insert(cur, rec);
    cur.at++;
    last.copy(rec);
  }
  fork.seq = 0;
  return null;
}

/** Bytes of a directory: the parent's number, then the entries. */
export function encodeDir(dir: XfsDir): Uint8Array {
  const names: Uint8Array[] = [];
  let size = 8;
  for (const name of dir.entries.keys()) {
    const bytes = utf8.encode(name);
    names.push(bytes);
    size += 10 + bytes.length;
  }
  const data = new Uint8Array(size);
  const v = view(data);
  putU64(v, 0, dir.parent);
  let at = 8;
  let i = 0;
  for (const { ino, type } of dir.entries.values()) {
    const name = names[i++]!;
    putU64(v, at, ino);
    v.setUint8(at + 8, type >> 12);
    v.setUint8(at + 9, name.length);
    data.set(name, at + 10);
    at += 10 + name.length;
  }
  return data;
}

/**
 * Fills an empty directory.
 *
 * @returns Null, or which check failed.
 */
export function decodeDir(data: Uint8Array, dir: XfsDir): string | null {
  if (data.length < 8) return "directory without a parent";
  const v = view(data);
  dir.parent = getU64(v, 0);
  for (let at = 8; at < data.length;) {
    const length = at + 10 <= data.length ? v.getUint8(at + 9) : 0;
    const end = at + 10 + length;
    if (length === 0 || end > data.length) return `directory entry at ${at}`;
    const name = text.decode(data.subarray(at + 10, end));
    dir.add(name, getU64(v, at), v.getUint8(at + 8) << 12);
    at = end;
  }
  return null;
}

/** Most bytes that {@linkcode encodeGroups} makes if `extra` free extents more come. */
export function groupsBytes(ags: XfsPerag[], extra: number): number {
  let size = 0;
  for (const ag of ags) size += 8 + ag.bnobt.size * 8 + ag.chunks.size * 12;
  return size + extra * 8;
}

/** Bytes of the free space and the inode chunks of all groups. */
export function encodeGroups(ags: XfsPerag[]): Uint8Array {
  const data = new Uint8Array(groupsBytes(ags, 0));
  const v = view(data);
  let at = 0;
  for (const { bnobt, chunks } of ags) {
    v.setUint32(at, bnobt.size);
    v.setUint32(at + 4, chunks.size);
    at += 8;
    for (let more = bnobt.lookupGe(0, 0); more; more = bnobt.next()) {
      v.setUint32(at, bnobt.a);
      v.setUint32(at + 4, bnobt.b);
      at += 8;
    }
    for (const { agbno, usedLow, usedHigh } of chunks.values()) {
      v.setUint32(at, agbno);
      v.setUint32(at + 4, usedLow);
      v.setUint32(at + 8, usedHigh);
      at += 12;
    }
  }
  return data;
}

/**
 * Fills the groups of a mount.
 *
 * @param chunkBlocks Blocks of 64 inodes.
 * @returns Null, or which check failed.
 */
export function decodeGroups(
  data: Uint8Array,
  ags: XfsPerag[],
  chunkBlocks: number,
): string | null {
  const v = view(data);
  let at = 0;
  for (const ag of ags) {
    const name = `group ${ag.agno}`;
    if (at + 8 > data.length) return `${name}: missing`;
    const extents = v.getUint32(at);
    const chunks = v.getUint32(at + 4);
    at += 8;
    if (at + extents * 8 + chunks * 12 > data.length) return `${name}: cut off`;
    for (let i = 0; i < extents; i++, at += 8) {
      const start = v.getUint32(at);
      const length = v.getUint32(at + 4);
      if (start < AG_HEADER_BLOCKS || !ag.give(start, length)) {
        return `${name}: free extent ${start}+${length}`;
      }
    }
    for (let i = 0; i < chunks; i++, at += 12) {
      const agbno = v.getUint32(at);
      const inside = agbno >= AG_HEADER_BLOCKS &&
        agbno + chunkBlocks <= ag.blocks;
      if (!inside) return `${name}: inode chunk at ${agbno}`;
      ag.addChunk(agbno, v.getInt32(at + 4), v.getInt32(at + 8));
    }
  }
  return at === data.length ? null : "bytes after the last group";
}
