/**
 * Reads a directory from its raw blocks and checks everything in it against everything
 * else, without any of the code that makes it.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import type { XfsBuf, XfsBufOps } from "../../../../fs/xfs/libxfs/buf.ts";
import { xfsDaTryReadBuf } from "../../../../fs/xfs/libxfs/da-btree.ts";
import { xfsDir3BlockBufOps } from "../../../../fs/xfs/libxfs/dir2-block.ts";
import { xfsDir3DataBufOps } from "../../../../fs/xfs/libxfs/dir2-data.ts";
import { xfsDir3Leaf1BufOps } from "../../../../fs/xfs/libxfs/dir2-leaf.ts";
import {
  dirLeafOps,
  xfsDir3FreeBufOps,
} from "../../../../fs/xfs/libxfs/dir2-node.ts";
import { xfsDir2SfVerify } from "../../../../fs/xfs/libxfs/dir2-sf.ts";
import { BmbtIrec, IextCursor } from "../../../../fs/xfs/libxfs/iext.ts";

/** What a directory holds, and how. */
interface DirContents {
  /** 0 short form, 1 block, 2 leaf, 3 node. */
  form: number;
  /** Of each name, as latin1: 16 times the inode number, plus its type. */
  names: Map<string, number>;
  /** Data blocks without a name. */
  emptyBlocks: number;
  /** Levels of the tree: 1 if a leaf is its root. */
  depth: number;
  /** Leaves of the tree. */
  leaves: number;
  /** Blocks of its space that do not exist, below the last one that does. */
  treeHoles: number;
}

function latin1(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

function hashOf(bytes: Uint8Array): number {
  let hash = 0;
  for (const byte of bytes) {
    const turned = hash % 2 ** 25 * 128 + Math.floor(hash / 2 ** 25);
    hash = (turned ^ byte) >>> 0;
  }
  return hash;
}

/** Checks a directory; answers what is in it. */
export function checkDir(dp: XfsInode): DirContents {
  return new Checker(dp).check();
}

class Checker {
  readonly dp: XfsInode;
  readonly contents: DirContents = {
    form: 0,
    names: new Map(),
    emptyBlocks: 0,
    depth: 0,
    leaves: 0,
    treeHoles: 0,
  };
  /** Hash of the name at each place. */
  readonly places = new Map<number, number>();
  /** Best free space of each data block. */
  readonly bests = new Map<number, number>();
  readonly mapped = new Set<number>();

  constructor(dp: XfsInode) {
    this.dp = dp;
  }

  check(): DirContents {
    assertEquals(this.dp.size, this.dp.diskSize, "both sizes");
    if (this.dp.df.format === 1) {
      this.shortForm();
      return this.contents;
    }
    this.map();
    const { dirGeo } = this.dp.mount;
    const { fsbcount, leafblk, freeblk } = dirGeo;
    const last = Math.max(...this.mapped);
    const { contents } = this;
    if (last === 0) {
      contents.form = 1;
      this.data(0, xfsDir3BlockBufOps);
    } else {
      contents.form = last === leafblk / fsbcount ? 2 : 3;
      for (const db of this.mapped) {
        if (db < leafblk / fsbcount) this.data(db, xfsDir3DataBufOps);
      }
    }
    const dataEnd = Math.max(...this.bests.keys()) + 1;
    assertEquals(this.dp.diskSize, dataEnd * dirGeo.blksize, "size");
    if (contents.form === 1) this.blockTail();
    if (contents.form === 2) this.leaf1(leafblk, dataEnd);
    if (contents.form === 3) this.tree(leafblk, freeblk);
    assertEquals(this.places.size, 0, "names without hash");
    for (const best of this.bests.values()) {
      if (best === dirGeo.blksize - 64) contents.emptyBlocks++;
    }
    return contents;
  }

  shortForm(): void {
    const data = this.dp.df.local!;
    assertEquals(this.dp.diskSize, data.length, "size");
    assertEquals(this.dp.df.nextents, 0);
    assertEquals(this.dp.nblocks, 0);
    assertEquals(xfsDir2SfVerify(this.dp.mount, data), null);
    const view = new DataView(data.buffer, data.byteOffset);
    const wide = data[1]! > 0;
    let at = wide ? 10 : 6;
    for (let i = 0; i < data[0]!; i++) {
      const n = data[at]!;
      const name = latin1(data.subarray(at + 3, at + 3 + n));
      const ino = wide
        ? Number(view.getBigUint64(at + 4 + n))
        : view.getUint32(at + 4 + n);
      assert(!this.contents.names.has(name), `${name} twice`);
      this.contents.names.set(name, 16 * ino + data[at + 3 + n]!);
      at += 4 + n + (wide ? 8 : 4);
    }
  }

  /** All directory blocks, whole ones, and their number of blocks. */
  map(): void {
    const cur = new IextCursor();
    const rec = new BmbtIrec();
    const { df } = this.dp;
    const { fsbcount } = this.dp.mount.dirGeo;
    const blocks = new Map<number, number>();
    let total = 0;
    for (let more = df.first(cur, rec); more; more = df.next(cur, rec)) {
      total += rec.count;
      for (let b = rec.startoff; b < rec.endoff; b++) {
        const db = Math.floor(b / fsbcount);
        blocks.set(db, (blocks.get(db) ?? 0) + 1);
      }
    }
    for (const [db, n] of blocks) {
      assertEquals(n, fsbcount, `block ${db} in part`);
      this.mapped.add(db);
    }
    assert(this.dp.nblocks >= total, "nblocks");
  }

  read(db: number, ops: XfsBufOps): XfsBuf {
    const { mount } = this.dp;
    const bno = db * mount.dirGeo.fsbcount;
    const bp = xfsDaTryReadBuf(null, this.dp, bno, 0, ops);
    assert(typeof bp !== "number", `block ${db}: ${bp} ${mount.complaint}`);
    assertEquals(ops.verify(bp, mount.targ), null, `block ${db}`);
    const at = ops.crcOffset === 12 ? 48 : 40;
    assertEquals(Number(bp.view.getBigUint64(at)), this.dp.ino, "owner");
    return bp;
  }

  data(db: number, ops: XfsBufOps): void {
    const bp = this.read(db, ops);
    const { view, data } = bp;
    const size = data.length;
    let end = size;
    if (ops === xfsDir3BlockBufOps) {
      end = size - 8 - 8 * view.getUint32(size - 8);
    }
    const free: number[] = [];
    let at = 64;
    while (at < end) {
      let len: number;
      if (view.getUint16(at) === 0xffff) {
        len = view.getUint16(at + 2);
        free.push(len);
      } else {
        const n = data[at + 8]!;
        len = Math.ceil((12 + n) / 8) * 8;
        const raw = data.subarray(at + 9, at + 9 + n);
        const name = latin1(raw);
        const ino = Number(view.getBigUint64(at));
        assert(!this.contents.names.has(name), `${name} twice`);
        this.contents.names.set(name, 16 * ino + data[at + 9 + n]!);
        this.places.set((db * size + at) / 8, hashOf(raw));
      }
      assert(view.getUint16(at + len - 2) === at, `tag at ${at}`);
      at += len;
    }
    assertEquals(at, end);
    free.sort((a, b) => b - a);
    for (let i = 0; i < 3; i++) {
      assertEquals(view.getUint16(50 + 4 * i), free[i] ?? 0, "bestfree");
    }
    this.bests.set(db, free[0] ?? 0);
  }

  /** Takes (hash, address) pairs off the places; answers the stale ones. */
  pairs(view: DataView, at: number, count: number): number {
    let stale = 0;
    let last = 0;
    for (let i = 0; i < count; i++, at += 8) {
      const hash = view.getUint32(at);
      const address = view.getUint32(at + 4);
      assert(hash >= last, "hash order");
      last = hash;
      if (address === 0) {
        stale++;
        continue;
      }
      assert(this.places.get(address) === hash, `hash at ${address}`);
      this.places.delete(address);
    }
    return stale;
  }

  blockTail(): void {
    const { view } = this.read(0, xfsDir3BlockBufOps);
    const tail = view.byteLength - 8;
    const count = view.getUint32(tail);
    const stale = this.pairs(view, tail - 8 * count, count);
    assertEquals(view.getUint32(tail + 4), stale);
  }

  leaf1(leafblk: number, dataEnd: number): void {
    const fsbs = this.dp.mount.dirGeo.fsbcount;
    const { view } = this.read(leafblk / fsbs, xfsDir3Leaf1BufOps);
    const count = view.getUint16(56);
    assertEquals(this.pairs(view, 64, count), view.getUint16(58), "stale");
    const n = view.getUint32(view.byteLength - 4);
    assertEquals(n, dataEnd, "bestcount");
    const at = view.byteLength - 4 - 2 * n;
    assert(64 + 8 * count <= at, "entries and bests overlap");
    for (let db = 0; db < n; db++) {
      const best = view.getUint16(at + 2 * db);
      assertEquals(best, this.bests.get(db) ?? 0xffff, `best of ${db}`);
    }
  }

  tree(leafblk: number, freeblk: number): void {
    const { fsbcount } = this.dp.mount.dirGeo;
    const chains = new Map<number, number[]>();
    const used = new Set<number>();
    this.node(leafblk, -1, chains, used);
    this.contents.depth = chains.size;
    this.contents.leaves = chains.get(0)!.length;
    for (const chain of chains.values()) this.chain(chain);
    for (const db of this.mapped) {
      const bno = db * fsbcount;
      if (bno < leafblk || bno >= freeblk) continue;
      assert(used.has(bno), `block ${bno} in no tree`);
    }
    const span = (Math.max(...used) - leafblk) / fsbcount + 1;
    this.contents.treeHoles = span - used.size;
    this.freeIndex(leafblk / fsbcount, freeblk / fsbcount);
  }

  /** Answers the last hash. */
  node(
    bno: number,
    level: number,
    chains: Map<number, number[]>,
    used: Set<number>,
  ): number {
    assert(!used.has(bno), `block ${bno} twice in the tree`);
    used.add(bno);
    const { fsbcount } = this.dp.mount.dirGeo;
    const { view } = this.read(bno / fsbcount, dirLeafOps.bufOps);
    const isLeaf = view.getUint16(8) === 0x3dff;
    const here = isLeaf ? 0 : view.getUint16(58);
    if (level >= 0) assertEquals(here, level, "level");
    if (!chains.has(here)) chains.set(here, []);
    chains.get(here)!.push(bno);
    const count = view.getUint16(56);
    if (isLeaf) {
      assertEquals(this.pairs(view, 64, count), view.getUint16(58), "stale");
    } else {
      for (let i = 0; i < count; i++) {
        const child = view.getUint32(64 + 8 * i + 4);
        const last = this.node(child, here - 1, chains, used);
        assertEquals(view.getUint32(64 + 8 * i), last, `hash of ${child}`);
      }
    }
    return view.getUint32(64 + 8 * (count - 1));
  }

  chain(blocks: number[]): void {
    const { fsbcount } = this.dp.mount.dirGeo;
    let lastHash = 0;
    blocks.forEach((bno, i) => {
      const { view } = this.read(bno / fsbcount, dirLeafOps.bufOps);
      assertEquals(view.getUint32(0), blocks[i + 1] ?? 0, `forw of ${bno}`);
      assertEquals(view.getUint32(4), blocks[i - 1] ?? 0, `back of ${bno}`);
      assert(view.getUint32(64) >= lastHash, `order of ${bno}`);
      lastHash = view.getUint32(64 + 8 * (view.getUint16(56) - 1));
    });
  }

  freeIndex(leafDb: number, freeDb: number): void {
    const most = (this.dp.mount.dirGeo.blksize - 64) / 2;
    const seen = new Set<number>();
    for (const fdb of this.mapped) {
      if (fdb < freeDb) continue;
      const { view } = this.read(fdb, xfsDir3FreeBufOps);
      const firstdb = view.getUint32(48);
      assertEquals(firstdb, (fdb - freeDb) * most, "firstdb");
      let used = 0;
      for (let i = 0; i < view.getUint32(52); i++) {
        const best = view.getUint16(64 + 2 * i);
        const db = firstdb + i;
        assert(best === (this.bests.get(db) ?? 0xffff), `best of ${db}`);
        if (best !== 0xffff) used++;
        seen.add(db);
      }
      assertEquals(view.getUint32(56), used, "nused");
    }
    for (const db of this.bests.keys()) {
      assert(db < leafDb && seen.has(db), `no slot for ${db}`);
    }
  }
}
