/**
 * Checking a group's headers and trees, and gathering what they say.
 *
 * @module
 */

import { getU64 } from "../libxfs/bytes.ts";
import * as F from "../libxfs/format.ts";
import {
  BNOBT,
  CNTBT,
  FINOBT,
  INOBT,
  REFCBT,
  RMAPBT,
  type TreeKind,
  TreeWalk,
} from "./btree.ts";
import { type BlockKind, type FsckContext, viewOf } from "./context.ts";
import {
  ownerName,
  Runs,
  USE_ATTR,
  USE_BMBT,
  USE_REFLINK,
  USE_SHAREABLE,
  USE_UNWRITTEN,
  Uses,
} from "./usage.ts";

const AGF: BlockKind = {
  name: "agf",
  magic: F.XFS_AGF_MAGIC,
  magicAt: F.AGF_MAGICNUM,
  magicBytes: 4,
  crcAt: F.AGF_CRC,
  blknoAt: -1,
  lsnAt: F.AGF_LSN,
  uuidAt: F.AGF_UUID,
  ownerAt: F.AGF_SEQNO,
  ownerBytes: 4,
};
const AGI: BlockKind = {
  name: "agi",
  magic: F.XFS_AGI_MAGIC,
  magicAt: F.AGI_MAGICNUM,
  magicBytes: 4,
  crcAt: F.AGI_CRC,
  blknoAt: -1,
  lsnAt: F.AGI_LSN,
  uuidAt: F.AGI_UUID,
  ownerAt: F.AGI_SEQNO,
  ownerBytes: 4,
};
const AGFL: BlockKind = {
  name: "agfl",
  magic: F.XFS_AGFL_MAGIC,
  magicAt: F.AGFL_MAGICNUM,
  magicBytes: 4,
  crcAt: F.AGFL_CRC,
  blknoAt: -1,
  lsnAt: F.AGFL_LSN,
  uuidAt: F.AGFL_UUID,
  ownerAt: F.AGFL_SEQNO,
  ownerBytes: 4,
};

/** An inode chunk as its record describes it. */
export interface Chunk {
  /** First inode of the group. */
  agino: number;
  /** Bit k: inodes 4k to 4k+3 do not exist. */
  holemask: number;
  count: number;
  freecount: number;
  /** Free inodes, a bit each: 0 to 31, and 32 to 63. */
  freeLow: number;
  freeHigh: number;
}

/** Whether an inode of a chunk is free. */
export function chunkIsFree(chunk: Chunk, i: number): boolean {
  const word = i < 32 ? chunk.freeLow : chunk.freeHigh;
  return (word >>> (i % 32) & 1) !== 0;
}

/** Whether an inode of a chunk does not exist at all. */
export function chunkIsHole(chunk: Chunk, i: number): boolean {
  return (chunk.holemask >>> Math.floor(i / 4) & 1) !== 0;
}

/** Where the fields of a tree are in AGF or AGI. */
interface RootFields {
  root: number;
  level: number;
}

/** One group: what its headers and trees say, and what was found to be used. */
export class FsckGroup {
  readonly agno: number;
  /** Blocks. */
  readonly length: number;
  /** Found by walking. */
  readonly uses = new Uses();
  /** What each of the trees says. */
  readonly free = new Runs();
  readonly shared = new Runs();
  readonly rmaps = new Uses();
  readonly chunks: Chunk[] = [];
  /** Counters for the super block. */
  freeblks = 0;
  flcount = 0;
  btreeblks = 0;
  icount = 0;
  ifree = 0;
  /** Inodes at the heads of the unlinked lists. */
  readonly unlinked: number[] = [];
  /** A tree could not be read as a whole: what it lacks is not known. */
  freeKnown = true;
  chunksKnown = true;
  sharedKnown = true;
  rmapsKnown = true;
  readonly #ctx: FsckContext;

  constructor(ctx: FsckContext, agno: number) {
    this.#ctx = ctx;
    this.agno = agno;
    this.length = ctx.sb.agSize(agno);
  }

  #found(line: string): void {
    this.#ctx.found(line);
  }

  /** Reads headers and trees. */
  check(): void {
    const { sb } = this.#ctx;
    const special = F.XFS_RMAP_OWN_FS;
    this.uses.add(0, sb.headerBlocks, special, 0, 0);
    if (sb.logstart > 0 && sb.fsbToAgno(sb.logstart) === this.agno) {
      const at = sb.fsbToAgbno(sb.logstart);
      this.uses.add(at, sb.logblocks, F.XFS_RMAP_OWN_LOG, 0, 0);
    }
    const agf = this.#header(1, AGF);
    const agi = this.#header(2, AGI);
    this.freeKnown = this.rmapsKnown = this.sharedKnown = agf !== null;
    this.chunksKnown = agi !== null;
    if (agf !== null) {
      this.#checkAgf(agf);
      this.#checkAgfl(agf);
      this.#checkFreeSpace(agf);
      if (sb.hasRmapbt) this.#checkRmapbt(agf);
      if (sb.hasReflink) this.#checkRefcountbt(agf);
    }
    if (agi !== null) {
      this.#checkAgi(agi);
      this.#checkInodeTrees(agi);
    }
  }

  #header(sector: number, kind: BlockKind): DataView | null {
    const { sb } = this.#ctx;
    const at = sb.agHeaderDaddr(this.agno, sector) * F.BBSIZE;
    const what = `${kind.name} ${this.agno}`;
    const data = this.#ctx.readBytes(at, sb.sectsize, what);
    if (data === null) return null;
    const ok = this.#ctx.checkBlock(kind, data, 0, this.agno, what);
    return ok ? viewOf(data) : null;
  }

  /** Compares a counter with what was counted. */
  #compare(name: string, has: number, counted: number): void {
    if (has === counted) return;
    this.#found(`${name} ${has}, counted ${counted} in ag ${this.agno}`);
  }

  #checkZero(view: DataView, from: number, to: number, what: string): void {
    for (let at = from; at < to; at++) {
      if (view.getUint8(at) === 0) continue;
      return this.#found(`${what} ${this.agno}: byte ${at} is not zero`);
    }
  }

  #checkAgf(agf: DataView): void {
    const version = agf.getUint32(F.AGF_VERSIONNUM);
    if (version !== F.XFS_AGF_VERSION) {
      this.#found(`bad version # ${version} for agf ${this.agno}`);
    }
    const length = agf.getUint32(F.AGF_LENGTH);
    if (length !== this.length) {
      this.#found(
        `bad length ${length} for agf ${this.agno}, should be ${this.length}`,
      );
    }
    this.freeblks = agf.getUint32(F.AGF_FREEBLKS);
    this.btreeblks = agf.getUint32(F.AGF_BTREEBLKS);
    this.#checkZero(agf, F.AGF_REFCNTLEVEL + 4, F.AGF_LSN, "agf");
    this.#checkZero(agf, F.AGF_CRC + 4, this.#ctx.sb.sectsize, "agf");
    if (!this.#ctx.sb.hasRmapbt) {
      this.#compare("agf_rmaproot", agf.getUint32(F.AGF_RMAPROOT), 0);
      this.#compare("agf_rmapblocks", agf.getUint32(F.AGF_RMAPBLOCKS), 0);
    }
    if (!this.#ctx.sb.hasReflink) {
      this.#compare("agf_refcntroot", agf.getUint32(F.AGF_REFCNTROOT), 0);
      this.#compare("agf_refcntblocks", agf.getUint32(F.AGF_REFCNTBLOCKS), 0);
    }
  }

  #checkAgfl(agf: DataView): void {
    const agfl = this.#header(3, AGFL);
    const slots = Math.floor((this.#ctx.sb.sectsize - F.AGFL_BNO) / 4);
    const first = agf.getUint32(F.AGF_FLFIRST);
    const last = agf.getUint32(F.AGF_FLLAST);
    const count = agf.getUint32(F.AGF_FLCOUNT);
    this.flcount = count;
    if (first >= slots || last >= slots || count > slots) {
      return this.#found(
        `flfirst ${first}, fllast ${last} or flcount ${count} in agf ` +
          `${this.agno} too large (max = ${slots})`,
      );
    }
    const span = (last - first + 1 + slots) % slots;
    if (span !== count % slots) {
      this.#found(
        `freeblk count ${span} != flcount ${count} in ag ${this.agno}`,
      );
    }
    if (agfl === null) return;
    for (let i = 0; i < count; i++) {
      const slot = (first + i) % slots;
      const agbno = agfl.getUint32(F.AGFL_BNO + 4 * slot);
      if (this.#ctx.sb.verifyAgbno(this.agno, agbno)) {
        this.uses.add(agbno, 1, F.XFS_RMAP_OWN_AG, 0, 0);
      } else {
        this.#found(`bad agbno ${agbno} in agfl, agno ${this.agno}`);
      }
    }
  }

  /** Walks a tree, and counts its blocks as used.
   * @returns The walk, or null if there is no root. */
  #walk(
    kind: TreeKind,
    header: DataView,
    fields: RootFields,
    owner: number,
    leaf: (view: DataView, at: number, count: number) => void,
  ): TreeWalk | null {
    const root = header.getUint32(fields.root);
    const levels = header.getUint32(fields.level);
    const { name } = kind.block;
    if (levels < 1 || levels > F.XFS_BTREE_MAXLEVELS) {
      this.#found(`bad levels ${levels} for ${name} root, agno ${this.agno}`);
      return null;
    }
    if (!this.#ctx.sb.verifyAgbno(this.agno, root)) {
      this.#found(`bad agbno ${root} for ${name} root, agno ${this.agno}`);
      return null;
    }
    const where = `ag ${this.agno}`;
    const walk = new TreeWalk(this.#ctx, kind, this.agno, this.agno, where);
    walk.fromBlock(root, levels, leaf);
    for (const agbno of walk.blocks) this.uses.add(agbno, 1, owner, 0, 0);
    return walk;
  }

  #checkFreeSpace(agf: DataView): void {
    let longest = 0;
    let total = 0;
    const owner = F.XFS_RMAP_OWN_AG;
    const byBlock = { root: F.AGF_BNOROOT, level: F.AGF_BNOLEVEL };
    const bno = this.#walk(BNOBT, agf, byBlock, owner, (view, at, count) => {
      for (let i = 0; i < count; i++) {
        const len = this.#freeRecord(view, at + 8 * i);
        total += len;
        longest = Math.max(longest, len);
      }
    });
    const bySize = { root: F.AGF_CNTROOT, level: F.AGF_CNTLEVEL };
    const sizes = new SizeCheck(this.free, this.agno, (l) => this.#found(l));
    const cnt = this.#walk(CNTBT, agf, bySize, owner, (view, at, count) => {
      for (let i = 0; i < count; i++) {
        sizes.add(view.getUint32(at + 8 * i), view.getUint32(at + 8 * i + 4));
      }
    });
    this.freeKnown = bno !== null && bno.ok && this.#freeOrdered;
    if (!this.freeKnown) return;
    if (cnt !== null && cnt.ok) sizes.end();
    this.#compare("agf_freeblks", this.freeblks, total);
    this.#compare("agf_longest", agf.getUint32(F.AGF_LONGEST), longest);
    if (cnt !== null && cnt.ok && !this.#ctx.sb.hasRmapbt) {
      const blocks = bno!.blocks.length + cnt.blocks.length - 2;
      this.#compare("agf_btreeblks", this.btreeblks, blocks);
    }
    this.#spaceBlocks = bno!.blocks.length + (cnt?.blocks.length ?? 0) - 2;
  }

  #freeOrdered = true;
  /** Blocks of both trees of free space without their roots. */
  #spaceBlocks = 0;

  /** @returns Blocks of the record. */
  #freeRecord(view: DataView, at: number): number {
    const start = view.getUint32(at);
    const len = view.getUint32(at + 4);
    const { free } = this;
    const what = `free extent (${this.agno}/${start}) len ${len}`;
    if (!this.#inGroup(start, len)) this.#found(`${what} is outside the group`);
    const last = free.count - 1;
    if (last >= 0 && start < free.end(last)) {
      this.#found(`${what} is out of order in bnobt`);
      this.#freeOrdered = false;
    } else if (last >= 0 && start === free.end(last)) {
      this.#found(`${what} should be merged with the one before`);
    }
    free.add(start, len, 0);
    return len;
  }

  #inGroup(start: number, len: number): boolean {
    return len > 0 && start >= this.#ctx.sb.headerBlocks &&
      start + len <= this.length;
  }

  #checkRmapbt(agf: DataView): void {
    const fields = { root: F.AGF_RMAPROOT, level: F.AGF_RMAPLEVEL };
    const owner = F.XFS_RMAP_OWN_AG;
    const walk = this.#walk(RMAPBT, agf, fields, owner, (view, at, count) => {
      for (let i = 0; i < count; i++) this.#rmapRecord(view, at + 24 * i);
    });
    this.rmapsKnown = walk !== null && walk.ok;
    if (walk === null || !walk.ok) return;
    const blocks = walk.blocks.length;
    const has = agf.getUint32(F.AGF_RMAPBLOCKS);
    if (has !== blocks) {
      this.#found(
        `bad rmapbt block count ${has}, saw ${blocks} in ag ${this.agno}`,
      );
    }
    if (!this.freeKnown) return;
    this.#compare(
      "agf_btreeblks",
      this.btreeblks,
      this.#spaceBlocks + blocks - 1,
    );
  }

  #rmapRecord(view: DataView, at: number): void {
    const start = view.getUint32(at);
    const len = view.getUint32(at + 4);
    const high = view.getUint32(at + 16);
    const flags = ((high & 0x8000_0000) !== 0 ? USE_ATTR : 0) |
      ((high & 0x4000_0000) !== 0 ? USE_BMBT : 0) |
      ((high & 0x2000_0000) !== 0 ? USE_UNWRITTEN : 0);
    const offset = (high & 0x003f_ffff) * 2 ** 32 + view.getUint32(at + 20);
    const owner = getU64(view, at + 8);
    const { rmaps } = this;
    const before = rmaps.count;
    rmaps.add(start, len, owner, offset, flags);
    const words = `rmap ${start}+${len} owner ${owner} in ag ${this.agno}`;
    if (rmaps.count === before) {
      this.#found(`${words} should be merged with previous record`);
      return;
    }
    if (len === 0 || start + len > this.length) {
      this.#found(`${words} is outside the group`);
    }
    if ((high & 0x1fc0_0000) !== 0) {
      this.#found(`${words} has unknown flags 0x${(high >>> 22).toString(16)}`);
    }
    if (before > 0 && rmaps.compare(before - 1, rmaps, before) > 0) {
      this.#found(`out-of-order ${words}`);
    }
  }

  #checkRefcountbt(agf: DataView): void {
    const fields = { root: F.AGF_REFCNTROOT, level: F.AGF_REFCNTLEVEL };
    const owner = F.XFS_RMAP_OWN_REFC;
    const last = { end: 0, refs: 0 };
    const walk = this.#walk(REFCBT, agf, fields, owner, (view, at, count) => {
      for (let i = 0; i < count; i++) {
        this.#refcountRecord(view, at + 12 * i, last);
      }
    });
    this.sharedKnown = walk !== null && walk.ok;
    if (walk === null || !walk.ok) return;
    const has = agf.getUint32(F.AGF_REFCNTBLOCKS);
    if (has !== walk.blocks.length) {
      this.#found(
        `bad refcountbt block count ${has}, saw ${walk.blocks.length} ` +
          `in ag ${this.agno}`,
      );
    }
  }

  #refcountRecord(
    view: DataView,
    at: number,
    last: { end: number; refs: number },
  ): void {
    const word = view.getUint32(at);
    const len = view.getUint32(at + 4);
    const refs = view.getUint32(at + 8);
    const isCow = word >= F.XFS_REFC_COWFLAG;
    const start = isCow ? word - F.XFS_REFC_COWFLAG : word;
    const words = `refcount (${this.agno}/${start}) len ${len} nlinks ${refs}`;
    if (!this.#inGroup(start, len)) {
      this.#found(`${words} is outside the group`);
    }
    if (word < last.end) this.#found(`${words} is out of order`);
    else if (word === last.end && refs === last.refs) {
      this.#found(`${words} should be merged with previous record`);
    }
    last.end = word + len;
    last.refs = refs;
    if (isCow) {
      this.#found(`leftover CoW extent (${this.agno}/${start}) len ${len}`);
      this.uses.add(start, len, F.XFS_RMAP_OWN_COW, 0, 0);
      if (refs !== 1) this.#found(`${words}: CoW staging has one reference`);
      return;
    }
    if (refs < 2) this.#found(`${words}: not shared`);
    this.shared.add(start, len, refs);
  }

  #checkAgi(agi: DataView): void {
    const version = agi.getUint32(F.AGI_VERSIONNUM);
    if (version !== F.XFS_AGI_VERSION) {
      this.#found(`bad version # ${version} for agi ${this.agno}`);
    }
    const length = agi.getUint32(F.AGI_LENGTH);
    if (length !== this.length) {
      this.#found(
        `bad length ${length} for agi ${this.agno}, should be ${this.length}`,
      );
    }
    for (let i = 0; i < F.XFS_AGI_UNLINKED_BUCKETS; i++) {
      const agino = agi.getUint32(F.AGI_UNLINKED + 4 * i);
      if (agino === F.NULLAGINO) continue;
      this.unlinked.push(agino);
      this.#found(`agi unlinked bucket ${i} is ${agino} in ag ${this.agno}`);
    }
    this.icount = agi.getUint32(F.AGI_COUNT);
    this.ifree = agi.getUint32(F.AGI_FREECOUNT);
    this.#checkZero(agi, F.AGI_END, this.#ctx.sb.sectsize, "agi");
  }

  #checkInodeTrees(agi: DataView): void {
    const { sb } = this.#ctx;
    const owner = F.XFS_RMAP_OWN_INOBT;
    const all = { root: F.AGI_ROOT, level: F.AGI_LEVEL };
    const inobt = this.#walk(INOBT, agi, all, owner, (view, at, count) => {
      for (let i = 0; i < count; i++) this.#chunkRecord(view, at + 16 * i);
    });
    this.chunksKnown = inobt !== null && inobt.ok;
    if (this.chunksKnown) {
      const sum = (of: (c: Chunk) => number) =>
        this.chunks.reduce((n, c) => n + of(c), 0);
      this.#compare("agi_count", this.icount, sum((c) => c.count));
      this.#compare("agi_freecount", this.ifree, sum((c) => c.freecount));
    }
    const counted = sb.hasInobtcounts;
    this.#compareBlocks("inobt", agi, F.AGI_IBLOCKS, counted ? inobt : null);
    if (!sb.hasFinobt) return;
    const some = { root: F.AGI_FREE_ROOT, level: F.AGI_FREE_LEVEL };
    const free: Chunk[] = [];
    const finobt = this.#walk(FINOBT, agi, some, owner, (view, at, count) => {
      for (let i = 0; i < count; i++) {
        free.push(this.#readChunk(view, at + 16 * i));
      }
    });
    this.#compareBlocks("finobt", agi, F.AGI_FBLOCKS, counted ? finobt : null);
    if (this.chunksKnown && finobt !== null && finobt.ok) {
      this.#compareFinobt(free);
    }
  }

  #compareBlocks(
    name: string,
    agi: DataView,
    at: number,
    walk: TreeWalk | null,
  ): void {
    if (walk === null || !walk.ok) return;
    const has = agi.getUint32(at);
    if (has === walk.blocks.length) return;
    this.#found(
      `bad ${name} block count ${has}, saw ${walk.blocks.length} ` +
        `in ag ${this.agno}`,
    );
  }

  #readChunk(view: DataView, at: number): Chunk {
    const sparse = this.#ctx.sb.hasSparseInodes;
    return {
      agino: view.getUint32(at),
      holemask: sparse ? view.getUint16(at + 4) : 0,
      count: sparse ? view.getUint8(at + 6) : F.XFS_INODES_PER_CHUNK,
      freecount: sparse ? view.getUint8(at + 7) : view.getUint32(at + 4),
      freeHigh: view.getUint32(at + 8),
      freeLow: view.getUint32(at + 12),
    };
  }

  #chunkRecord(view: DataView, at: number): void {
    const chunk = this.#readChunk(view, at);
    const where = `inode chunk ${this.agno}/${chunk.agino}`;
    if (!this.#chunkPlaceOk(chunk, where)) {
      this.chunksKnown = false;
      return;
    }
    let free = 0;
    let count = 0;
    for (let i = 0; i < F.XFS_INODES_PER_CHUNK; i++) {
      if (chunkIsHole(chunk, i)) {
        if (!chunkIsFree(chunk, i)) {
          this.#found(`${where}: inode ${chunk.agino + i} of a hole is in use`);
        }
        continue;
      }
      count++;
      if (chunkIsFree(chunk, i)) free++;
    }
    if (chunk.count !== count) {
      this.#found(
        `ir_count/holemask mismatch, ${where}, ${chunk.count} ${count}`,
      );
    }
    if (chunk.freecount !== free) {
      this.#found(
        `ir_freecount/free mismatch, ${where}, freecount ${chunk.freecount} ` +
          `nfree ${free}`,
      );
    }
    this.chunks.push(chunk);
    this.#useChunk(chunk);
  }

  #chunkPlaceOk(chunk: Chunk, where: string): boolean {
    const { sb } = this.#ctx;
    const { agino } = chunk;
    const before = this.chunks.at(-1);
    if (before !== undefined && agino < before.agino + F.XFS_INODES_PER_CHUNK) {
      this.#found(`${where}: out of order, or overlaps ${before.agino}`);
      return false;
    }
    const first = Math.floor(agino / sb.inopblock);
    const last = Math.floor((agino + 63) / sb.inopblock);
    const inGroup = sb.verifyAgbno(this.agno, first) &&
      // The end of a sparse chunk may be cut off by that of the group.
      (sb.verifyAgbno(this.agno, last) || chunk.holemask !== 0);
    if (!inGroup) {
      this.#found(`${where}: lies outside the group`);
      return false;
    }
    const align = Math.max(1, sb.inoalignmt) * sb.inopblock;
    const step = sb.inopblock > 64 ? 64 : align;
    if (agino % step !== 0) {
      this.#found(`${where}: start is not aligned to ${step} inodes`);
    }
    return true;
  }

  /** Last block that a chunk was found in: several can share one. */
  #chunkBlock = -1;

  #useChunk(chunk: Chunk): void {
    const { inopblock } = this.#ctx.sb;
    for (let i = 0; i < F.XFS_INODES_PER_CHUNK; i++) {
      if (chunkIsHole(chunk, i)) continue;
      const agbno = Math.floor((chunk.agino + i) / inopblock);
      if (agbno === this.#chunkBlock) continue;
      this.#chunkBlock = agbno;
      this.uses.add(agbno, 1, F.XFS_RMAP_OWN_INODES, 0, 0);
    }
  }

  #compareFinobt(free: Chunk[]): void {
    let i = 0;
    const where = (c: Chunk) => `${this.agno}/${c.agino}`;
    for (const chunk of this.chunks) {
      for (; i < free.length && free[i]!.agino < chunk.agino; i++) {
        this.#found(`undiscovered finobt record, ino ${where(free[i]!)}`);
      }
      const has = free[i]?.agino === chunk.agino ? free[i++]! : null;
      if (has === null) {
        if (chunk.freecount === 0) continue;
        this.#found(`finobt lacks the record of chunk ${where(chunk)}`);
      } else if (chunk.freecount === 0) {
        this.#found(`finobt record with no free inodes, chunk ${where(chunk)}`);
      } else if (!sameChunk(has, chunk)) {
        this.#found(
          `finobt ir_freecount/free mismatch, inode chunk ${where(chunk)}, ` +
            `freecount ${has.freecount} nfree ${chunk.freecount}`,
        );
      }
    }
    for (; i < free.length; i++) {
      this.#found(`undiscovered finobt record, ino ${where(free[i]!)}`);
    }
  }

  /** Everything has been walked: compares what is used with what the trees say. */
  compareUses(): void {
    const uses = this.uses.sorted();
    const counted = new SharedCount(uses);
    this.#checkOverlaps(uses);
    if (this.freeKnown) this.#checkCoverage(uses);
    if (this.#ctx.sb.hasReflink && this.sharedKnown) {
      this.#compareShared(counted.runs());
    }
    if (this.#ctx.sb.hasRmapbt && this.rmapsKnown) this.#compareRmaps(uses);
  }

  /** Blocks may have several users only if all of them are files that say so. */
  #checkOverlaps(uses: Uses): void {
    /** Runs that reach furthest: of all, and of those that share nothing. */
    let all = -1;
    let alone = -1;
    const endOf = (i: number) => i < 0 ? 0 : uses.end(i);
    for (let i = 0; i < uses.count; i++) {
      const start = uses.start[i]!;
      const shareable = this.#isShareable(uses, i);
      if (start < endOf(alone)) this.#claimed(uses, i, alone);
      else if (start < endOf(all)) {
        if (!shareable) this.#claimed(uses, i, all);
        else {
          this.#checkReflinkFlag(uses, i);
          this.#checkReflinkFlag(uses, all);
        }
      }
      if (uses.end(i) > endOf(all)) all = i;
      if (!shareable && uses.end(i) > endOf(alone)) alone = i;
    }
  }

  #isShareable(uses: Uses, i: number): boolean {
    return (uses.flags[i]! & USE_SHAREABLE) !== 0 && this.#ctx.sb.hasReflink;
  }

  #claimed(uses: Uses, i: number, j: number): void {
    const name = (k: number) => ownerName(uses.owner[k]!, uses.flags[k]!);
    this.#found(
      `${name(i)} claims used block ${this.agno}/${uses.start[i]}, ` +
        `which belongs to ${name(j)}`,
    );
  }

  readonly #unflagged = new Set<number>();

  #checkReflinkFlag(uses: Uses, i: number): void {
    const ino = uses.owner[i]!;
    if ((uses.flags[i]! & USE_REFLINK) !== 0 || this.#unflagged.has(ino)) {
      return;
    }
    this.#unflagged.add(ino);
    this.#found(
      `inode ${ino} shares block ${this.agno}/${uses.start[i]} ` +
        `without the reflink flag`,
    );
  }

  /** Each block is used or free, and not both. */
  #checkCoverage(uses: Uses): void {
    const { free } = this;
    let f = 0;
    let end = 0;
    const gap = (from: number, to: number) => {
      let at = from;
      for (; f < free.count && free.start[f]! < to; f++) {
        const start = free.start[f]!;
        if (start > at) this.#unknown(at, start);
        at = Math.max(at, Math.min(free.end(f), to));
        if (free.end(f) > to) return;
      }
      if (at < to) this.#unknown(at, to);
    };
    for (let i = 0; i < uses.count; i++) {
      const start = uses.start[i]!;
      if (start > end) gap(end, start);
      end = Math.max(end, uses.end(i));
    }
    gap(end, this.length);
    this.#checkFreeUnused(uses);
  }

  #unknown(from: number, to: number): void {
    this.#found(
      `unknown block state, ag ${this.agno}, blocks ${from}-${to - 1}`,
    );
  }

  #checkFreeUnused(uses: Uses): void {
    const { free } = this;
    let f = 0;
    for (let i = 0; i < uses.count; i++) {
      while (f < free.count && free.end(f) <= uses.start[i]!) f++;
      if (f === free.count) return;
      if (free.start[f]! >= uses.end(i)) continue;
      const block = Math.max(free.start[f]!, uses.start[i]!);
      const who = ownerName(uses.owner[i]!, uses.flags[i]!);
      this.#found(`${who} claims free block ${this.agno}/${block}`);
    }
  }

  #compareShared(counted: Runs): void {
    const { shared } = this;
    const words = (runs: Runs, i: number) =>
      i < runs.count
        ? `(${this.agno}/${runs.start[i]}) len ${runs.len[i]} nlinks ` +
          `${runs.refs[i]}`
        : "none";
    let i = 0;
    let j = 0;
    while (i < shared.count || j < counted.count) {
      const a = i < shared.count ? shared.start[i]! : Infinity;
      const b = j < counted.count ? counted.start[j]! : Infinity;
      const same = a === b && shared.len[i] === counted.len[j] &&
        shared.refs[i] === counted.refs[j];
      if (!same) {
        this.#found(
          `Incorrect reference count: saw ${
            a <= b ? words(shared, i) : "none"
          }` +
            `; should be ${b <= a ? words(counted, j) : "none"}`,
        );
      }
      if (a <= b) i++;
      if (b <= a) j++;
    }
  }

  #compareRmaps(uses: Uses): void {
    const { rmaps } = this;
    let i = 0;
    let j = 0;
    while (i < rmaps.count || j < uses.count) {
      let order = j === uses.count ? -1 : 1;
      if (i < rmaps.count && j < uses.count) order = rmaps.compare(i, uses, j);
      if (order < 0) {
        const has = rmaps.describe(this.agno, i++);
        this.#found(`reverse-mapping of what is not so: ${has}`);
      } else if (order > 0) {
        const lacks = uses.describe(this.agno, j++);
        this.#found(`Missing reverse-mapping record for ${lacks}`);
      } else {
        if (!rmaps.sameRmap(i, uses, j)) {
          this.#found(
            `Incorrect reverse-mapping: saw ${rmaps.describe(this.agno, i)}; ` +
              `should be ${uses.describe(this.agno, j)}`,
          );
        }
        i++;
        j++;
      }
    }
  }
}

function sameChunk(a: Chunk, b: Chunk): boolean {
  return a.holemask === b.holemask && a.count === b.count &&
    a.freecount === b.freecount && a.freeLow === b.freeLow &&
    a.freeHigh === b.freeHigh;
}

/** Compares free space by size with free space by block. */
class SizeCheck {
  readonly #free: Runs;
  readonly #agno: number;
  readonly #found: (line: string) => void;
  #count = 0;
  #len = 0;
  #start = 0;

  constructor(free: Runs, agno: number, found: (line: string) => void) {
    this.#free = free;
    this.#agno = agno;
    this.#found = found;
  }

  /** The next record. */
  add(start: number, len: number): void {
    const what = `(${this.#agno},${start}-${start + len - 1})`;
    const ordered = len > this.#len ||
      (len === this.#len && start > this.#start) || this.#count === 0;
    if (!ordered) this.#found(`free extent ${what} is out of order in cntbt`);
    this.#count++;
    this.#len = len;
    this.#start = start;
    const i = this.#free.find(start);
    if (i >= 0 && this.#free.len[i] === len) return;
    this.#found(`free space ${what} only seen by one free space btree`);
  }

  end(): void {
    if (this.#count === this.#free.count) return;
    this.#found(
      `bnobt has ${this.#free.count} records, cntbt ${this.#count} ` +
        `in ag ${this.#agno}`,
    );
  }
}

/** Counts how many files have each block. */
class SharedCount {
  readonly #uses: Uses;

  /** @param uses Ascending by first block. */
  constructor(uses: Uses) {
    this.#uses = uses;
  }

  /** Runs that two or more have. */
  runs(): Runs {
    const uses = this.#uses;
    const ends: number[] = [];
    for (let i = 0; i < uses.count; i++) {
      if ((uses.flags[i]! & USE_SHAREABLE) !== 0) ends.push(uses.end(i));
    }
    const sorted = Float64Array.from(ends).sort();
    const out = new Runs();
    let depth = 0;
    let at = 0;
    let e = 0;
    const upTo = (to: number) => {
      while (e < sorted.length && sorted[e]! <= to) {
        const end = sorted[e]!;
        if (depth > 1 && end > at) out.append(at, end - at, depth);
        at = Math.max(at, end);
        depth--;
        e++;
      }
      if (depth > 1 && to > at) out.append(at, to - at, depth);
      at = to;
    };
    for (let i = 0; i < uses.count; i++) {
      if ((uses.flags[i]! & USE_SHAREABLE) === 0) continue;
      upTo(uses.start[i]!);
      depth++;
    }
    upTo(Infinity);
    return out;
  }
}
