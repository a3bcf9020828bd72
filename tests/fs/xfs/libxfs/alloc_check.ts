/**
 * What must hold of the free space of a group, read from its blocks.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import {
  xfsAgflSize,
  xfsAllocReadAgf,
  xfsAllocReadAgfl,
  type XfsPerag,
} from "../../../../fs/xfs/libxfs/ag.ts";
import {
  type XfsAllocRec,
  xfsBnobtInitCursor,
  xfsCntbtInitCursor,
} from "../../../../fs/xfs/libxfs/alloc-btree.ts";
import {
  xfsBtreeDelCursor,
  xfsBtreeQueryAll,
  xfsBtreeVisitBlocks,
} from "../../../../fs/xfs/libxfs/btree.ts";
import type { XfsBuf } from "../../../../fs/xfs/libxfs/buf.ts";
import * as F from "../../../../fs/xfs/libxfs/format.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";

/** For `xfsBtreeQueryAll`: adds a copy of a record to a list. */
export function collectRecords<R>(_cur: unknown, rec: R, out: R[]): number {
  out.push({ ...rec });
  return 0;
}

/** For `xfsBtreeVisitBlocks`: adds where a block lies to a list. */
export function collectBlocks(
  _cur: unknown,
  _level: number,
  bp: XfsBuf | null,
  out: number[],
): number {
  out.push(bp!.daddr);
  return 0;
}

/** A group's blocks that are not somebody's. */
interface FreeSpace {
  /** Free extents, by block. */
  free: XfsAllocRec[];
  /** Blocks on the AGFL. */
  agfl: number[];
  /** Blocks of the two trees. */
  tree: number[];
}

function header(pag: XfsPerag): XfsBuf {
  const agbp = xfsAllocReadAgf(pag, null);
  if (typeof agbp === "number") throw new Error(`AGF: ${agbp}`);
  return agbp;
}

/** Reads the free space of a group, and checks it against itself. */
export function readFreeSpace(pag: XfsPerag): FreeSpace {
  const { mp } = pag;
  const { sb } = mp;
  const agbp = header(pag);
  const u32 = (at: number) => agbp.view.getUint32(at);
  const blocks: number[] = [];
  const lists: XfsAllocRec[][] = [];
  for (const init of [xfsBnobtInitCursor, xfsCntbtInitCursor]) {
    const cur = init(mp, null, agbp, pag);
    const list: XfsAllocRec[] = [];
    assertEquals(xfsBtreeQueryAll(cur, collectRecords, list), 0);
    assertEquals(xfsBtreeVisitBlocks(cur, collectBlocks, blocks), 0);
    xfsBtreeDelCursor(cur);
    lists.push(list);
  }
  const [free, bySize] = lists as [XfsAllocRec[], XfsAllocRec[]];
  const sorted = [...free].sort((a, b) =>
    a.blockcount - b.blockcount || a.startblock - b.startblock
  );
  assertEquals(bySize, sorted);
  for (let i = 1; i < free.length; i++) {
    const { startblock, blockcount } = free[i - 1]!;
    assert(startblock + blockcount < free[i]!.startblock, "extents touch");
  }
  const total = free.reduce((sum, rec) => sum + rec.blockcount, 0);
  assertEquals(u32(F.AGF_FREEBLKS), total);
  assertEquals(u32(F.AGF_LONGEST), sorted.at(-1)?.blockcount ?? 0);
  const agfl = readAgfl(pag, agbp);
  assertEquals([
    pag.pagfFreeblks,
    pag.pagfLongest,
    pag.pagfFlcount,
    pag.pagfBtreeblks,
    pag.pagfBnoLevel,
    pag.pagfCntLevel,
  ], [
    total,
    u32(F.AGF_LONGEST),
    agfl.length,
    u32(F.AGF_BTREEBLKS),
    u32(F.AGF_BNOLEVEL),
    u32(F.AGF_CNTLEVEL),
  ]);
  if (!sb.hasRmapbt) assertEquals(pag.pagfBtreeblks, blocks.length - 2);
  const base = pag.agno * sb.agblocks;
  const tree = blocks.map((daddr) => daddr / sb.bbPerBlock - base);
  return { free, agfl, tree };
}

function readAgfl(pag: XfsPerag, agbp: XfsBuf): number[] {
  const agflbp = xfsAllocReadAgfl(pag, null);
  if (typeof agflbp === "number") throw new Error(`AGFL: ${agflbp}`);
  const size = xfsAgflSize(pag.mp);
  const first = agbp.view.getUint32(F.AGF_FLFIRST);
  const count = agbp.view.getUint32(F.AGF_FLCOUNT);
  const list: number[] = [];
  for (let i = 0; i < count; i++) {
    const at = F.AGFL_BNO + (first + i) % size * 4;
    list.push(agflbp.view.getUint32(at));
  }
  const last = agbp.view.getUint32(F.AGF_FLLAST);
  assertEquals((first + count - 1 + size) % size, last);
  return list;
}

/** Checks that every block of a group is free, on the AGFL, in a tree, or used: not two
 * of them. @param used 1 for each block that is somebody's. */
export function checkFreeSpace(pag: XfsPerag, used: Uint8Array): void {
  const space = readFreeSpace(pag);
  const seen = used.slice();
  const take = (agbno: number, what: string) => {
    assertEquals(
      seen[agbno],
      0,
      `block ${agbno} is ${what} and something else`,
    );
    seen[agbno] = 1;
  };
  for (const { startblock, blockcount } of space.free) {
    for (let i = 0; i < blockcount; i++) take(startblock + i, "free");
  }
  for (const agbno of space.agfl) take(agbno, "on the AGFL");
  for (const agbno of space.tree) take(agbno, "in a tree");
  assertEquals(seen.indexOf(0), -1, "a block was lost");
}

/** The blocks of a group that are neither free nor its free space's own. */
export function usedBlocks(pag: XfsPerag): Uint8Array {
  const { free, agfl, tree } = readFreeSpace(pag);
  const used = new Uint8Array(pag.blocks).fill(1);
  for (const { startblock, blockcount } of free) {
    used.fill(0, startblock, startblock + blockcount);
  }
  for (const agbno of [...agfl, ...tree]) used[agbno] = 0;
  return used;
}

/** Free blocks of the file system, however they are counted, add up: those of the
 * groups, those of the super block, and those that nobody has been promised.
 * @param promised Blocks promised to files and their trees. */
export function checkCounters(mp: XfsMount, promised = 0): void {
  let free = 0;
  for (const pag of mp.perags) {
    free += pag.pagfFreeblks + pag.pagfFlcount + pag.pagfBtreeblks;
  }
  assertEquals(mp.sb.fdblocks, free, "super block and groups");
  let kept = mp.resblksAvail;
  for (const { metaResv, rmapbtResv } of mp.perags) {
    kept += metaResv.reserved + rmapbtResv.origReserved;
  }
  assertEquals(mp.fdblocks + kept + promised, free, "promised");
}
