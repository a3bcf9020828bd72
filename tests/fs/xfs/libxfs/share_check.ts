/**
 * What must hold of the trees of reference counts and reverse mappings, read from their
 * blocks byte by byte; and a model of who has which block.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import {
  xfsAllocReadAgf,
  type XfsPerag,
} from "../../../../fs/xfs/libxfs/ag.ts";
import type { XfsBuf, XfsBufOps } from "../../../../fs/xfs/libxfs/buf.ts";
import * as F from "../../../../fs/xfs/libxfs/format.ts";
import { xfsRefcountbtOps } from "../../../../fs/xfs/libxfs/refcount-btree.ts";
import { xfsRmapbtOps } from "../../../../fs/xfs/libxfs/rmap-btree.ts";
import { readFreeSpace } from "./alloc_check.ts";

/** A key as one number: no two that differ are the same. */
type Key = bigint;

interface TreeKind {
  bufOps: XfsBufOps;
  rootAt: number;
  levelAt: number;
  blocksAt: number;
  recLen: number;
  keyLen: number;
  /** Nodes have high keys. */
  overlapping: boolean;
  key(view: DataView, at: number): Key;
  lowKey(view: DataView, at: number): Key;
  highKey(view: DataView, at: number): Key;
}

const OFF_MASK = 0xdfff_ffff_ffff_ffffn;

function rmapKey(start: number, owner: bigint, offset: bigint): Key {
  return (BigInt(start) << 128n) | (owner << 64n) | (offset & OFF_MASK);
}

const RMAPBT: TreeKind = {
  bufOps: xfsRmapbtOps.bufOps,
  rootAt: F.AGF_RMAPROOT,
  levelAt: F.AGF_RMAPLEVEL,
  blocksAt: F.AGF_RMAPBLOCKS,
  recLen: 24,
  keyLen: 20,
  overlapping: true,
  key: (view, at) =>
    rmapKey(
      view.getUint32(at),
      view.getBigUint64(at + 4),
      view.getBigUint64(at + 12),
    ),
  lowKey: (view, at) =>
    rmapKey(
      view.getUint32(at),
      view.getBigUint64(at + 8),
      view.getBigUint64(at + 16),
    ),
  highKey(view, at) {
    const more = view.getUint32(at + 4) - 1;
    const owner = view.getBigUint64(at + 8);
    const offset = view.getBigUint64(at + 16);
    const place = owner >> 63n === 0n && (offset >> 62n & 1n) === 0n;
    const start = view.getUint32(at) + more;
    return rmapKey(start, owner, place ? offset + BigInt(more) : offset);
  },
};

const REFCOUNTBT: TreeKind = {
  bufOps: xfsRefcountbtOps.bufOps,
  rootAt: F.AGF_REFCNTROOT,
  levelAt: F.AGF_REFCNTLEVEL,
  blocksAt: F.AGF_REFCNTBLOCKS,
  recLen: 12,
  keyLen: 4,
  overlapping: false,
  key: (view, at) => BigInt(view.getUint32(at)),
  lowKey: (view, at) => BigInt(view.getUint32(at)),
  highKey: () => 0n,
};

/** Records of a tree, each as its bytes, and the tree's blocks within the group. */
interface Tree {
  recs: DataView[];
  blocks: number[];
}

class TreeWalk {
  readonly tree: Tree = { recs: [], blocks: [] };
  /** Block that each level has come to last, and what its right sibling is to be. */
  readonly #last: number[] = [];
  readonly #next: number[] = [];
  readonly #pag: XfsPerag;
  readonly #kind: TreeKind;

  constructor(pag: XfsPerag, kind: TreeKind) {
    this.#pag = pag;
    this.#kind = kind;
  }

  /** Walks a subtree; its lowest and its highest key. */
  walk(agbno: number, level: number, isRoot: boolean): [Key, Key] {
    const { recLen, keyLen, overlapping } = this.#kind;
    const { view } = this.#block(agbno, level);
    const n = view.getUint16(F.BB_NUMRECS);
    const nodeLen = overlapping ? 2 * keyLen : keyLen;
    const space = view.byteLength - F.XFS_BTREE_SBLOCK_CRC_LEN;
    const max = Math.floor(space / (level === 0 ? recLen : nodeLen + 4));
    const least = isRoot ? (level === 0 ? 0 : 2) : Math.floor(max / 2);
    assert(n >= least && n <= max, `block ${agbno} of level ${level} has ${n}`);
    let low = -1n;
    let high = -1n;
    for (let i = 0; i < n; i++) {
      const at = F.XFS_BTREE_SBLOCK_CRC_LEN;
      let [first, last] = [0n, 0n];
      if (level === 0) {
        const rec = new DataView(view.buffer, at + i * recLen, recLen);
        this.tree.recs.push(
          new DataView(rec.buffer.slice(
            rec.byteOffset,
            rec.byteOffset + recLen,
          )),
        );
        first = this.#kind.lowKey(rec, 0);
        last = this.#kind.highKey(rec, 0);
      } else {
        const keyAt = at + i * nodeLen;
        const ptr = view.getUint32(at + max * nodeLen + 4 * i);
        [first, last] = this.walk(ptr, level - 1, false);
        const where = `entry ${i} of block ${agbno}`;
        assertEquals(this.#kind.key(view, keyAt), first, `low key, ${where}`);
        if (overlapping) {
          const has = this.#kind.key(view, keyAt + keyLen);
          assertEquals(has, last, `high key, ${where}`);
        }
      }
      if (i === 0) low = first;
      if (last > high) high = last;
    }
    return [low, high];
  }

  #block(agbno: number, level: number): XfsBuf {
    const { mp, agno } = this.#pag;
    const { sb, targ } = mp;
    const { bufOps } = this.#kind;
    const daddr = sb.agbToDaddr(agno, agbno);
    const bp = targ.read(daddr, sb.bbPerBlock, bufOps);
    if (typeof bp === "number") throw new Error(`${mp.complaint}: ${bp}`);
    assertEquals(bufOps.verify(bp, targ), null);
    assertEquals(bp.view.getUint16(F.BB_LEVEL), level);
    const left = this.#last[level] ?? F.NULLAGBLOCK;
    assertEquals(bp.view.getUint32(F.SBB_LEFTSIB), left);
    if (left !== F.NULLAGBLOCK) assertEquals(this.#next[level], agbno);
    this.#last[level] = agbno;
    this.#next[level] = bp.view.getUint32(F.SBB_RIGHTSIB);
    this.tree.blocks.push(agbno);
    return bp;
  }

  finish(): Tree {
    for (const next of this.#next) assertEquals(next, F.NULLAGBLOCK);
    return this.tree;
  }
}

function readTree(pag: XfsPerag, kind: TreeKind): Tree {
  const agbp = xfsAllocReadAgf(pag, null);
  if (typeof agbp === "number") throw new Error(`AGF: ${agbp}`);
  const { view } = agbp;
  const walk = new TreeWalk(pag, kind);
  walk.walk(
    view.getUint32(kind.rootAt),
    view.getUint32(kind.levelAt) - 1,
    true,
  );
  const tree = walk.finish();
  assertEquals(view.getUint32(kind.blocksAt), tree.blocks.length);
  return tree;
}

/** A range with one count: [first block with the flag of its domain, blocks, count]. */
type CountRow = [start: number, len: number, count: number];

/** A mapping: [first block, blocks, owner, offset as on disk]. */
type MapRow = [start: number, len: number, owner: bigint, off: bigint];

/** Who has a block: an owner and an offset as on disk; equal ones in following blocks
 * with the offsets following, too, are one record. */
export interface Holder {
  owner: bigint;
  off: bigint;
}

const NO_PLACE = 1n << 63n;

/** What the trees of a group have to hold. */
export class GroupModel {
  readonly pag: XfsPerag;
  /** Holders of each block that are no tree's and not the AGFL's. */
  readonly holders: Holder[][];
  /** Blocks that are set aside. */
  readonly cow: Uint8Array;

  /** What a new file system holds is taken from the reverse map as it is. */
  constructor(pag: XfsPerag) {
    this.pag = pag;
    this.holders = Array.from({ length: pag.blocks }, () => []);
    this.cow = new Uint8Array(pag.blocks);
    if (!pag.mp.sb.hasRmapbt) return;
    const moving = [F.XFS_RMAP_OWN_AG, F.XFS_RMAP_OWN_REFC].map((owner) =>
      BigInt.asUintN(64, BigInt(owner))
    );
    for (const [start, len, owner, off] of readMaps(pag)) {
      if (moving.includes(owner)) continue;
      for (let i = 0; i < len; i++) {
        this.holders[start + i]!.push({ owner, off });
      }
    }
  }

  /** Checks the trees, and free space, against the model. */
  check(): void {
    const { pag } = this;
    const refc = pag.mp.sb.hasReflink ? readTree(pag, REFCOUNTBT) : null;
    if (refc !== null) assertRows(countRows(refc), this.#counts());
    if (!pag.mp.sb.hasRmapbt) return;
    const rmap = readTree(pag, RMAPBT);
    const { free, agfl, tree } = readFreeSpace(pag);
    const holders = this.holders.map((list) => list.slice());
    const ag = BigInt.asUintN(64, BigInt(F.XFS_RMAP_OWN_AG));
    for (const agbno of [...tree, ...agfl, ...rmap.blocks]) {
      holders[agbno]!.push({ owner: ag, off: 0n });
    }
    const own = BigInt.asUintN(64, BigInt(F.XFS_RMAP_OWN_REFC));
    for (const agbno of refc?.blocks ?? []) {
      holders[agbno]!.push({ owner: own, off: 0n });
    }
    assertRows(mapRows(rmap), rowsOf(holders));
    for (const { startblock, blockcount } of free) {
      for (let i = 0; i < blockcount; i++) {
        const list = holders[startblock + i]!;
        assert(
          list.length === 0,
          `block ${startblock + i} is free, and is not`,
        );
        list.push({ owner: 0n, off: 0n });
      }
    }
    assertEquals(holders.findIndex((list) => list.length === 0), -1, "lost");
  }

  #counts(): CountRow[] {
    const rows: CountRow[] = [];
    const counts = this.holders.map((list) => list.length);
    this.#runs(rows, (agbno) => counts[agbno]! > 1 ? counts[agbno]! : 0, 0);
    this.#runs(rows, (agbno) => this.cow[agbno]!, F.XFS_REFC_COWFLAG);
    return rows;
  }

  #runs(rows: CountRow[], of: (agbno: number) => number, flag: number): void {
    let before = 0;
    for (let agbno = 0; agbno < this.pag.blocks; agbno++) {
      const count = of(agbno);
      if (count !== 0 && count === before) rows.at(-1)![1]++;
      else if (count !== 0) rows.push([agbno + flag, 1, count]);
      before = count;
    }
  }
}

/** Blocks of both trees of a group. */
export function readBlocks(pag: XfsPerag): number[] {
  return [RMAPBT, REFCOUNTBT].flatMap((kind) => readTree(pag, kind).blocks);
}

/** Long lists are only shown where they differ. */
function assertRows(actual: Row[], expected: Row[]): void {
  const n = Math.max(actual.length, expected.length);
  for (let i = 0; i < n; i++) {
    const [a, b] = [actual[i]?.join(" "), expected[i]?.join(" ")];
    if (a !== b) assertEquals(a, b, `record ${i}`);
  }
}

type Row = (number | bigint)[];

/** The records of the tree of reference counts. */
export function readCounts(pag: XfsPerag): CountRow[] {
  return countRows(readTree(pag, REFCOUNTBT));
}

/** The records of the reverse map. */
export function readMaps(pag: XfsPerag): MapRow[] {
  return mapRows(readTree(pag, RMAPBT));
}

function countRows({ recs }: Tree): CountRow[] {
  return recs.map((
    rec,
  ) => [rec.getUint32(0), rec.getUint32(4), rec.getUint32(8)]);
}

function mapRows({ recs }: Tree): MapRow[] {
  return recs.map((rec) => [
    rec.getUint32(0),
    rec.getUint32(4),
    rec.getBigUint64(8),
    rec.getBigUint64(16),
  ]);
}

/** The fewest records that say who has each block, in the order of the tree. */
function rowsOf(holders: Holder[][]): MapRow[] {
  const rows: MapRow[] = [];
  let open = new Map<string, MapRow>();
  holders.forEach((list, agbno) => {
    const still = new Map<string, MapRow>();
    for (const { owner, off } of list) {
      const placed = owner < NO_PLACE && (off >> 62n & 1n) === 0n;
      let row = open.get(`${owner} ${off}`);
      if (row === undefined) rows.push(row = [agbno, 0, owner, off]);
      row[1]++;
      still.set(`${owner} ${placed ? off + 1n : off}`, row);
    }
    open = still;
  });
  const key = (row: MapRow) => rmapKey(row[0], row[2], row[3]);
  return rows.sort((a, b) => key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0);
}
