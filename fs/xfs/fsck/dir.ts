/**
 * Checking directories in all their forms, and what follows from their entries: link
 * counts, parents, and that everything can be reached from the root.
 *
 * @module
 */

import { getU64 } from "../libxfs/bytes.ts";
import * as F from "../libxfs/format.ts";
import { type BlockKind, type FsckContext, viewOf } from "./context.ts";
import { daKind, DaWalk, FileReader, hashName } from "./da.ts";
import { Extents } from "./fork.ts";
import {
  FT_BAD,
  FT_FREE,
  type InodeCheck,
  type InodeImage,
  type InodeTable,
} from "./inode.ts";

function dirKind(name: string, magic: number): BlockKind {
  return {
    name,
    magic,
    magicAt: F.DIR3_MAGIC,
    magicBytes: 4,
    crcAt: F.DIR3_CRC,
    blknoAt: F.DIR3_BLKNO,
    lsnAt: F.DIR3_LSN,
    uuidAt: F.DIR3_UUID,
    ownerAt: F.DIR3_OWNER,
    ownerBytes: 8,
  };
}

const DATA: BlockKind = dirKind("directory data block", F.XFS_DIR3_DATA_MAGIC);
const BLOCK: BlockKind = dirKind("directory block", F.XFS_DIR3_BLOCK_MAGIC);
const FREE: BlockKind = dirKind("free block", F.XFS_DIR3_FREE_MAGIC);
const LEAF1: BlockKind = daKind("leaf block", F.XFS_DIR3_LEAF1_MAGIC);
const LEAFN: BlockKind = daKind("leaf block", F.XFS_DIR3_LEAFN_MAGIC);

/** Marks room that is not used. */
const FREE_TAG = 0xffff;
/** No data block. */
const NULL_BEST = 0xffff;
const DOT = 0x2e;
const SLASH = 0x2f;

/** Bytes of an entry of a data block. */
function entrySize(namelen: number): number {
  return Math.ceil((12 + namelen) / 8) * 8;
}

/** Pairs of hash value and address, in columns. */
class Hashes {
  count = 0;
  #hash = new Uint32Array(64);
  #address = new Uint32Array(64);

  add(hash: number, address: number): void {
    if (this.count === this.#hash.length) {
      const hash = new Uint32Array(2 * this.count);
      hash.set(this.#hash);
      this.#hash = hash;
      const address = new Uint32Array(2 * this.count);
      address.set(this.#address);
      this.#address = address;
    }
    this.#hash[this.count] = hash;
    this.#address[this.count++] = address;
  }

  /** Calls `one` with each, by hash value, then address. */
  sorted(): { hash: Uint32Array; address: Uint32Array } {
    const hash = this.#hash;
    const address = this.#address;
    const order = new Uint32Array(this.count).map((_, i) => i);
    order.sort((a, b) => hash[a]! - hash[b]! || address[a]! - address[b]!);
    return {
      hash: order.map((i) => hash[i]!),
      address: order.map((i) => address[i]!),
    };
  }
}

/** Looks at directories. */
export class DirCheck {
  readonly #ctx: FsckContext;
  readonly #table: InodeTable;
  readonly #inodes: InodeCheck;
  readonly #extents = new Extents();
  /** A directory could not be read as a whole: what is linked is not known. */
  complete = true;

  constructor(ctx: FsckContext, table: InodeTable, inodes: InodeCheck) {
    this.#ctx = ctx;
    this.#table = table;
    this.#inodes = inodes;
  }

  /** Looks at all directories.
   * @param progress Called now and then with the inodes done. */
  all(progress: (inodes: number) => void): void {
    const { type, count } = this.#table;
    for (let i = 0; i < count; i++) {
      if (type[i] === F.XFS_DIR3_FT_DIR) this.#directory(i);
      if (i % 1024 === 0) progress(i);
    }
  }

  #directory(index: number): void {
    const ino = this.#table.inoOf(index);
    const image = this.#inodes.reread(ino, this.#extents);
    const one = image === null
      ? null
      : new Directory(this.#ctx, this.#table, index, image, this.#extents);
    if (one === null || !one.check()) this.complete = false;
  }
}

/** One directory. */
class Directory {
  readonly #ctx: FsckContext;
  readonly #table: InodeTable;
  readonly #index: number;
  readonly #image: InodeImage;
  readonly #file: FileReader;
  /** Data blocks' largest free room, by number of the block. */
  readonly #bests = new Map<number, number>();
  readonly #blocks = new Map<number, Uint8Array>();
  /** What the data blocks hold, and what the leaves say. */
  readonly #entries = new Hashes();
  readonly #leaves = new Hashes();
  #lastHash = 0;
  #dot = false;
  #dotdot = false;
  /** All its entries could be read. */
  #complete = true;

  constructor(
    ctx: FsckContext,
    table: InodeTable,
    index: number,
    image: InodeImage,
    extents: Extents,
  ) {
    this.#ctx = ctx;
    this.#table = table;
    this.#index = index;
    this.#image = image;
    this.#file = new FileReader(ctx, image.ino, extents, "directory inode");
  }

  #found(why: string): void {
    this.#file.found(why);
  }

  /** @returns Whether all its entries could be read. */
  check(): boolean {
    if (this.#image.dataFork.format === F.XFS_DINODE_FMT_LOCAL) {
      this.#shortform();
    } else this.#inBlocks();
    if (!this.#dotdot && this.#complete) this.#found("no .. entry");
    return this.#complete;
  }

  // ---- entries of any form ----

  /** An entry but "." and "..".
   * @param where "entry 3". */
  #entry(
    ino: number,
    ftype: number,
    data: Uint8Array,
    at: number,
    len: number,
    where: string,
  ): void {
    const name = () => JSON.stringify(text(data, at, len));
    if (len === 0) return this.#found(`${where}: no name`);
    for (let i = at; i < at + len; i++) {
      if (data[i] !== 0 && data[i] !== SLASH) continue;
      return this.#found(`${where}: name ${name()} has NUL or a slash`);
    }
    const to = this.#table.indexOf(ino);
    if (to < 0) {
      return this.#found(
        `${where} ${name()} references non-existent inode ${ino}`,
      );
    }
    const type = this.#table.type[to]!;
    if (type === FT_FREE) {
      return this.#found(`${where} ${name()} references free inode ${ino}`);
    }
    if (type !== FT_BAD && type !== ftype) {
      this.#found(
        `${where} ${name()}: ftype mismatch (${ftype}/${type}) in ` +
          `directory/child inode ${this.#image.ino}/${ino}`,
      );
    }
    this.#link(to, type, where);
  }

  #link(to: number, type: number, where: string): void {
    const { links, parent } = this.#table;
    links[to]!++;
    if (type !== F.XFS_DIR3_FT_DIR) return;
    // Its ".." is a link to this one.
    links[this.#index]!++;
    if (parent[to] === 0 && to !== this.#index) {
      parent[to] = this.#index + 1;
      return;
    }
    this.#found(
      `${where}: directory inode ${this.#table.inoOf(to)} has several links`,
    );
  }

  /** What ".." says is looked at when all parents are known. */
  #setDotdot(ino: number): void {
    this.#dotdot = true;
    this.#table.dotdot[this.#index] = ino;
  }

  // ---- in the inode ----

  #shortform(): void {
    const { dataFork, data, size } = this.#image;
    const fork = data.subarray(dataFork.at, dataFork.at + dataFork.size);
    const view = viewOf(fork);
    const count = view.getUint8(0);
    const i8count = view.getUint8(1);
    const inoBytes = i8count === 0 ? 4 : 8;
    const header = 2 + inoBytes;
    this.#links(1);
    if (size < header || size > fork.length) {
      this.#complete = false;
      return this.#found(`bad size ${size} of shortform directory`);
    }
    const parent = this.#sfIno(view, 2, inoBytes);
    this.#setDotdot(parent);
    let large = parent > 0xffff_ffff ? 1 : 0;
    let at = header;
    let offset = F.DIR3_DATA_HDR_SIZE + entrySize(1) + entrySize(2);
    const names = new Set<string>();
    for (let i = 0; i < count; i++) {
      const namelen = at < size ? view.getUint8(at) : 0;
      const end = at + 4 + namelen + inoBytes;
      if (namelen === 0 || end > size) {
        this.#complete = false;
        return this.#found(`entry ${i} of ${count} does not fit size ${size}`);
      }
      const has = view.getUint16(at + 1);
      if (has < offset) {
        this.#found(
          `entry ${i} contains offset ${has} out of order in shortform dir`,
        );
      }
      offset = has + entrySize(namelen);
      const ino = this.#sfIno(view, at + 4 + namelen, inoBytes);
      if (ino > 0xffff_ffff) large++;
      const ftype = view.getUint8(at + 3 + namelen);
      this.#entry(ino, ftype, fork, at + 3, namelen, `entry ${i}`);
      const name = text(fork, at + 3, namelen);
      if (names.has(name)) this.#found(`entry ${i}: the name is there twice`);
      names.add(name);
      at = end;
    }
    if (at !== size) this.#found(`size ${size}, counted ${at}`);
    if (large !== i8count) this.#found(`i8count ${i8count}, counted ${large}`);
    const room = this.#ctx.sb.dirblksize - 8 - 8 * (count + 2);
    if (offset > room) {
      this.#found(`entries end at ${offset}, a block has room for ${room}`);
    }
  }

  #sfIno(view: DataView, at: number, bytes: number): number {
    return bytes === 4 ? view.getUint32(at) : getU64(view, at);
  }

  /** Links that a directory has to itself: "." */
  #links(n: number): void {
    this.#table.links[this.#index]! += n;
  }

  // ---- in blocks ----

  #inBlocks(): void {
    const { sb } = this.#ctx;
    const { extents } = this.#file;
    if (!extents.ok) {
      this.#complete = false;
      return;
    }
    this.#links(1);
    const dataEnd = this.#endBelow(sb.leafblk);
    const isBlock = extents.end === sb.dirblkFsbs;
    const isLeaf = extents.end === sb.leafblk + sb.dirblkFsbs;
    this.#checkSize(dataEnd);
    this.#checkWhole();
    this.#dataBlocks(dataEnd, isBlock);
    if (!this.#complete) return;
    if (isLeaf) this.#leaf1();
    else if (!isBlock) this.#node();
    if (this.#complete) this.#compareHashes();
    if (!this.#dot) this.#found("no . entry");
  }

  /** File block after the last mapped one below a limit. */
  #endBelow(limit: number): number {
    const { extents } = this.#file;
    let end = 0;
    for (let i = 0; i < extents.count; i++) {
      if (extents.offset[i]! >= limit) break;
      end = Math.min(limit, extents.offset[i]! + extents.len[i]!);
    }
    return end;
  }

  #checkSize(dataEnd: number): void {
    const { size } = this.#image;
    const counted = dataEnd * this.#ctx.sb.blocksize;
    if (size !== counted) {
      this.#found(`size ${size}, its data ends at ${counted}`);
    }
  }

  /** Directory blocks are mapped as a whole. */
  #checkWhole(): void {
    const { dirblkFsbs } = this.#ctx.sb;
    const { extents } = this.#file;
    let end = 0;
    for (let i = 0; i < extents.count; i++) {
      const from = extents.offset[i]!;
      const torn = from !== end && (from % dirblkFsbs !== 0 ||
        end % dirblkFsbs !== 0);
      if (torn) {
        this.#found(`a directory block is mapped in part before ${from}`);
      }
      end = from + extents.len[i]!;
    }
    if (end % dirblkFsbs !== 0) {
      this.#found(`a directory block is mapped in part before ${end}`);
    }
  }

  #dataBlocks(dataEnd: number, isBlock: boolean): void {
    const { dirblkFsbs } = this.#ctx.sb;
    const { extents } = this.#file;
    for (let i = 0; i < extents.count; i++) {
      const from = Math.ceil(extents.offset[i]! / dirblkFsbs) * dirblkFsbs;
      const to = Math.min(dataEnd, extents.offset[i]! + extents.len[i]!);
      for (let fb = from; fb < to; fb += dirblkFsbs) {
        const kind = isBlock ? BLOCK : DATA;
        const data = this.#file.readKind(kind, fb, dirblkFsbs);
        if (data === null) {
          this.#complete = false;
          if (!this.#ctx.spend(0)) return;
        } else this.#dataBlock(data, fb / dirblkFsbs, isBlock);
      }
    }
  }

  #dataBlock(data: Uint8Array, db: number, isBlock: boolean): void {
    const view = viewOf(data);
    let end = data.length;
    if (isBlock) {
      const count = view.getUint32(data.length - 8);
      end = data.length - 8 - 8 * count;
      if (end < F.DIR3_DATA_HDR_SIZE) {
        this.#complete = false;
        return this.#found(`block ${db} bad tail, count ${count}`);
      }
    }
    this.#blocks.set(db, data);
    const room = new FreeRoom();
    let at = F.DIR3_DATA_HDR_SIZE;
    let wasFree = false;
    while (at < end) {
      const isFree = view.getUint16(at) === FREE_TAG;
      const len = isFree ? view.getUint16(at + 2) : this.#size(view, at, end);
      const bad = len === 0 || len % 8 !== 0 || at + len > end;
      if (bad || view.getUint16(at + len - 2) !== at) {
        this.#complete = false;
        return this.#found(`bad entry at block ${db} offset ${at}`);
      }
      if (isFree) {
        if (wasFree) {
          this.#found(`free room at block ${db} offset ${at} not merged`);
        }
        room.add(at, len);
      } else this.#dataEntry(data, view, db, at);
      wasFree = isFree;
      at += len;
    }
    this.#checkBestfree(view, db, room);
    if (isBlock) this.#blockLeaves(view, end, data.length - 8);
  }

  #size(view: DataView, at: number, end: number): number {
    return at + 16 > end ? 0 : entrySize(view.getUint8(at + 8));
  }

  #dataEntry(data: Uint8Array, view: DataView, db: number, at: number): void {
    const ino = getU64(view, at);
    const len = view.getUint8(at + 8);
    const ftype = view.getUint8(at + 9 + len);
    const where = `entry at block ${db} offset ${at}`;
    const byte = db * this.#ctx.sb.dirblksize + at;
    this.#entries.add(hashName(data, at + 9, len), byte / 8);
    if (ftype >= F.XFS_DIR3_FT_MAX) this.#found(`${where}: bad ftype ${ftype}`);
    const isDot = len === 1 && data[at + 9] === DOT;
    const isDotdot = len === 2 && data[at + 9] === DOT && data[at + 10] === DOT;
    if (isDot) {
      this.#dot = true;
      if (ino !== this.#image.ino) this.#found(`. entry points to ${ino}`);
    } else if (isDotdot) this.#setDotdot(ino);
    else return this.#entry(ino, ftype, data, at + 9, len, where);
    const place = F.DIR3_DATA_HDR_SIZE + (isDot ? 0 : entrySize(1));
    if (db !== 0 || at !== place) {
      this.#found(`${isDot ? "." : ".."} ${where}, out of place`);
    }
    if (ftype !== F.XFS_DIR3_FT_DIR) {
      this.#found(`${where}: ftype ${ftype} of . or ..`);
    }
  }

  #checkBestfree(view: DataView, db: number, room: FreeRoom): void {
    this.#bests.set(db, room.best[0] ?? 0);
    for (let i = 0; i < 3; i++) {
      const at = view.getUint16(F.DIR3_BESTFREE + 4 * i);
      const len = view.getUint16(F.DIR3_BESTFREE + 4 * i + 2);
      const want = room.best[i] ?? 0;
      if (len === want && (len === 0 ? at === 0 : room.has(at, len))) continue;
      this.#found(
        `bad bestfree table in block ${db}: slot ${i} [${at}, ${len}], ` +
          `should have ${want} bytes`,
      );
      return;
    }
  }

  /** Leaf entries at the end of the one block. */
  #blockLeaves(view: DataView, from: number, tail: number): void {
    const count = view.getUint32(tail);
    const stale = this.#leafEntries(view, from, count, "block 0");
    const has = view.getUint32(tail + 4);
    if (has !== stale) this.#found(`stale ${has} in block 0, counted ${stale}`);
  }

  /** @returns Stale ones. */
  #leafEntries(
    view: DataView,
    from: number,
    count: number,
    where: string,
  ): number {
    let stale = 0;
    for (let i = 0; i < count; i++) {
      const hash = view.getUint32(from + 8 * i);
      const address = view.getUint32(from + 8 * i + 4);
      if (hash < this.#lastHash) {
        this.#found(`hash values out of order in ${where}, entry ${i}`);
      }
      this.#lastHash = hash;
      if (address === 0) stale++;
      else this.#leaves.add(hash, address);
    }
    return stale;
  }

  #leafHeader(view: DataView, block: number, room: number): number {
    const count = view.getUint16(F.DA3_COUNT);
    const max = Math.floor(room / 8);
    if (count > max) {
      this.#complete = false;
      this.#found(`bad count ${count} in leaf block ${block}, max ${max}`);
      return -1;
    }
    const where = `leaf block ${block}`;
    const stale = this.#leafEntries(view, F.DA3_HDR_SIZE, count, where);
    const has = view.getUint16(F.DIR3_LEAF_STALE);
    if (has !== stale) {
      this.#found(`stale ${has} in ${where}, counted ${stale}`);
    }
    return count === 0 ? -1 : view.getUint32(F.DA3_HDR_SIZE + 8 * (count - 1));
  }

  /** The leaf of a directory that has only one. */
  #leaf1(): void {
    const { leafblk, dirblkFsbs } = this.#ctx.sb;
    const data = this.#file.readKind(LEAF1, leafblk, dirblkFsbs);
    if (data === null) {
      this.#complete = false;
      return;
    }
    const view = viewOf(data);
    if (view.getUint32(F.DA3_FORW) !== 0 || view.getUint32(F.DA3_BACK) !== 0) {
      this.#found(`leaf block ${leafblk} has siblings`);
    }
    const bestcount = view.getUint32(data.length - 4);
    const bests = data.length - 4 - 2 * bestcount;
    const blocks = this.#image.size / this.#ctx.sb.dirblksize;
    if (bestcount !== blocks || bests < F.DA3_HDR_SIZE) {
      return this.#found(
        `leaf block ${leafblk} bad tail, bestcount ${bestcount} should be ${blocks}`,
      );
    }
    this.#leafHeader(view, leafblk, bests - F.DA3_HDR_SIZE);
    for (let db = 0; db < bestcount; db++) {
      this.#checkBest(
        view.getUint16(bests + 2 * db),
        db,
        `leaf block ${leafblk}`,
      );
    }
  }

  #checkBest(has: number, db: number, where: string): void {
    const want = this.#bests.get(db) ?? NULL_BEST;
    if (has === want) return;
    this.#found(`${where} bad best ${has} of block ${db}, should be ${want}`);
  }

  /** A directory with a tree of leaves and an index of free room. */
  #node(): void {
    const { leafblk, dirblkFsbs } = this.#ctx.sb;
    const walk = new DaWalk(
      this.#file,
      LEAFN,
      dirblkFsbs,
      (view, block) =>
        this.#leafHeader(view, block, view.byteLength - F.DA3_HDR_SIZE),
    );
    walk.from(leafblk);
    if (!walk.ok) {
      this.#complete = false;
      return;
    }
    const { freeblk } = this.#ctx.sb;
    const mapped = this.#mapped(leafblk, freeblk) / dirblkFsbs;
    if (mapped !== walk.seen.size) {
      this.#found(`maps ${mapped} leaf blocks, uses ${walk.seen.size}`);
    }
    this.#freeIndex();
  }

  /** Mapped blocks of a stretch of the file. */
  #mapped(from: number, to: number): number {
    const { extents } = this.#file;
    let blocks = 0;
    for (let i = extents.findFrom(from); i < extents.count; i++) {
      const start = Math.max(from, extents.offset[i]!);
      const end = Math.min(to, extents.offset[i]! + extents.len[i]!);
      if (end <= start) break;
      blocks += end - start;
    }
    return blocks;
  }

  #freeIndex(): void {
    const { freeblk, dirblkFsbs, dirblksize } = this.#ctx.sb;
    const { extents } = this.#file;
    const perBlock = Math.floor((dirblksize - F.DIR3_FREE_HDR_SIZE) / 2);
    const covered = new Set<number>();
    for (let i = extents.findFrom(freeblk); i < extents.count; i++) {
      const end = extents.offset[i]! + extents.len[i]!;
      const first = Math.max(freeblk, extents.offset[i]!);
      for (let fb = first; fb < end; fb += dirblkFsbs) {
        const k = (fb - freeblk) / dirblkFsbs;
        if (!Number.isInteger(k)) continue;
        covered.add(k);
        this.#freeBlock(fb, k * perBlock, perBlock);
      }
    }
    for (const db of this.#bests.keys()) {
      const k = Math.floor(db / perBlock);
      if (covered.has(k)) continue;
      covered.add(k);
      this.#found(`no free block for data blocks ${k * perBlock} on`);
    }
  }

  #freeBlock(fb: number, firstdb: number, perBlock: number): void {
    const data = this.#file.readKind(FREE, fb, this.#ctx.sb.dirblkFsbs);
    if (data === null) return;
    const view = viewOf(data);
    const where = `free block ${fb}`;
    const has = view.getUint32(F.DIR3_FREE_FIRSTDB);
    const nvalid = view.getUint32(F.DIR3_FREE_NVALID);
    const nused = view.getUint32(F.DIR3_FREE_NUSED);
    if (has !== firstdb) return this.#found(`${where} bad firstdb ${has}`);
    const blocks = this.#image.size / this.#ctx.sb.dirblksize;
    const most = Math.min(perBlock, Math.max(0, blocks - firstdb));
    if (nvalid > perBlock || nvalid < most) {
      return this.#found(`${where} bad nvalid ${nvalid}, should be ${most}`);
    }
    let used = 0;
    for (let i = 0; i < nvalid; i++) {
      const best = view.getUint16(F.DIR3_FREE_HDR_SIZE + 2 * i);
      if (best !== NULL_BEST) used++;
      this.#checkBest(best, firstdb + i, where);
    }
    if (used !== nused) {
      this.#found(`${where} bad nused ${nused}, counted ${used}`);
    }
  }

  /** Leaves have exactly the entries that there are, and no name is there twice. */
  #compareHashes(): void {
    const has = this.#leaves.sorted();
    const want = this.#entries.sorted();
    let i = 0;
    let j = 0;
    const words = (hash: number, address: number) =>
      `hash 0x${hash.toString(16)} address 0x${address.toString(16)}`;
    while (i < has.hash.length || j < want.hash.length) {
      let order = 0;
      if (j === want.hash.length) order = -1;
      else if (i === has.hash.length) order = 1;
      else {
        order = has.hash[i]! - want.hash[j]! ||
          has.address[i]! - want.address[j]!;
      }
      if (order < 0) {
        const bad = words(has.hash[i]!, has.address[i]!);
        this.#found(`bad hash table (no data entry): ${bad}`);
      } else if (order > 0) {
        const bad = words(want.hash[j]!, want.address[j]!);
        this.#found(`bad hash table (no leaf entry): ${bad}`);
      }
      if (order <= 0) i++;
      if (order >= 0) j++;
    }
    this.#checkTwice(want.hash, want.address);
  }

  #checkTwice(hash: Uint32Array, address: Uint32Array): void {
    for (let i = 0; i < hash.length;) {
      let n = i + 1;
      while (n < hash.length && hash[n] === hash[i]) n++;
      if (n > i + 1) {
        const names = new Set<string>();
        for (let k = i; k < n; k++) {
          const name = this.#nameAt(address[k]!);
          if (names.has(name)) {
            this.#found(`name ${JSON.stringify(name)} is there twice`);
          }
          names.add(name);
        }
      }
      i = n;
    }
  }

  #nameAt(address: number): string {
    const { dirblksize } = this.#ctx.sb;
    const data = this.#blocks.get(Math.floor(address * 8 / dirblksize))!;
    const at = address * 8 % dirblksize;
    return text(data, at + 9, data[at + 8]!);
  }
}

/** Free room of a data block. */
class FreeRoom {
  /** The three longest, longest first. */
  readonly best: number[] = [];
  readonly #all = new Map<number, number>();

  add(at: number, len: number): void {
    this.#all.set(at, len);
    this.best.push(len);
    this.best.sort((a, b) => b - a);
    if (this.best.length > 3) this.best.pop();
  }

  has(at: number, len: number): boolean {
    return this.#all.get(at) === len;
  }
}

function text(data: Uint8Array, at: number, len: number): string {
  return String.fromCharCode(...data.subarray(at, at + len));
}

/** All directories have been read: link counts, parents, and what is lost. */
export class LinkCheck {
  readonly #ctx: FsckContext;
  readonly #table: InodeTable;

  constructor(ctx: FsckContext, table: InodeTable) {
    this.#ctx = ctx;
    this.#table = table;
  }

  /** @param complete All directories could be read. */
  check(complete: boolean): void {
    const { sb } = this.#ctx;
    const root = this.#table.indexOf(sb.rootino);
    if (root < 0 || this.#table.type[root] !== F.XFS_DIR3_FT_DIR) {
      return this.#ctx.found(`root inode ${sb.rootino} is no directory`);
    }
    // Whoever looks for the root's parent finds itself.
    this.#table.links[root]!++;
    this.#table.parent[root] = root + 1;
    this.#special(sb.rbmino, "realtime bitmap");
    this.#special(sb.rsumino, "realtime summary");
    this.#quota(sb.uquotino, "user quota");
    this.#quota(sb.gquotino, "group quota");
    this.#quota(sb.pquotino, "project quota");
    this.#checkDotdots();
    if (!complete) {
      return this.#ctx.found(
        "a directory could not be read: links were not counted",
      );
    }
    this.#checkLinks(root);
    this.#checkReach(root);
  }

  /** An inode that the super block names. */
  #special(ino: number, name: string): void {
    const index = this.#table.indexOf(ino);
    if (index < 0 || this.#table.type[index] !== F.XFS_DIR3_FT_REG_FILE) {
      return this.#ctx.found(`${name} inode ${ino} is no file in use`);
    }
    this.#table.links[index]!++;
  }

  /** There need be none. */
  #quota(ino: number, name: string): void {
    if (ino !== 0 && ino !== F.NULLFSINO) this.#special(ino, name);
  }

  #checkDotdots(): void {
    const { type, parent, dotdot, count } = this.#table;
    for (let index = 0; index < count; index++) {
      const ino = dotdot[index]!;
      if (type[index] !== F.XFS_DIR3_FT_DIR || ino === 0) continue;
      const self = this.#table.inoOf(index);
      const isRoot = self === this.#ctx.sb.rootino;
      if (ino === self && !isRoot) {
        this.#ctx.found(
          `bad .. entry in directory inode ${self}, points to self`,
        );
        continue;
      }
      if (parent[index] === 0) continue;
      const want = this.#table.inoOf(parent[index]! - 1);
      if (ino !== want) {
        this.#ctx.found(
          `bad .. entry in directory inode ${self}, points to ${ino}, ` +
            `should be ${want}`,
        );
      }
    }
  }

  #checkLinks(root: number): void {
    const { type, nlink, links, count } = this.#table;
    for (let i = 0; i < count; i++) {
      if (type[i] === FT_FREE || type[i] === FT_BAD) continue;
      const own = type[i] === F.XFS_DIR3_FT_DIR ? 1 : 0;
      const linked = i === root || links[i]! > own && this.#isNamed(i);
      const ino = this.#table.inoOf(i);
      if (!linked) this.#ctx.found(`disconnected inode ${ino}`);
      else if (nlink[i] !== links[i]) {
        this.#ctx.found(
          `inode ${ino} has nlinks ${nlink[i]}, counted ${links[i]}`,
        );
      }
    }
  }

  /** Whether some directory names it: a directory's links come from below, too. */
  #isNamed(i: number): boolean {
    return this.#table.type[i] !== F.XFS_DIR3_FT_DIR ||
      this.#table.parent[i] !== 0;
  }

  /** Parents lead to the root, not round in circles. */
  #checkReach(root: number): void {
    const { type, parent, count } = this.#table;
    /** 1: being looked at, 2: leads to the root, 3: does not. */
    const state = new Uint8Array(count);
    state[root] = 2;
    for (let i = 0; i < count; i++) {
      if (type[i] !== F.XFS_DIR3_FT_DIR || state[i] !== 0) continue;
      let at = i;
      while (state[at] === 0 && parent[at] !== 0) {
        state[at] = 1;
        at = parent[at]! - 1;
      }
      const ends = state[at] === 2 ? 2 : 3;
      if (state[at] === 1) {
        this.#ctx.found(
          `directory inode ${this.#table.inoOf(at)} is its own ancestor`,
        );
      }
      for (let k = i; state[k] === 1; k = parent[k]! - 1) state[k] = ends;
    }
  }
}
