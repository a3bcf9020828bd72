/**
 * Whether a file's maps are right in themselves, and right with the counters of inode
 * and file system.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import {
  xfsBmapWorstIndlen,
  xfsIreadExtents,
} from "../../../../fs/xfs/libxfs/bmap.ts";
import { xfsBmbtInitCursor } from "../../../../fs/xfs/libxfs/bmap-btree.ts";
import {
  xfsBtreeCountBlocks,
  xfsBtreeDelCursor,
  xfsBtreeGetRec,
  xfsBtreeGotoFirst,
  xfsBtreeIncrement,
} from "../../../../fs/xfs/libxfs/btree.ts";
import {
  XFS_DATA_FORK,
  XFS_DINODE_FMT_BTREE,
  XFS_DINODE_FMT_EXTENTS,
} from "../../../../fs/xfs/libxfs/format.ts";
import {
  BmbtIrec,
  IextCursor,
  isnullstartblock,
  startblockval,
} from "../../../../fs/xfs/libxfs/iext.ts";
import {
  xfsIforkMaxext,
  xfsIforkPtr,
} from "../../../../fs/xfs/libxfs/inode-fork.ts";
import { checkCounters } from "./alloc_check.ts";
import { readInode } from "./fixture.ts";

/** One extent as a row; `block` is below 0 for promised space. */
export type Row = [off: number, block: number, count: number, unw: boolean];

function row(rec: BmbtIrec): Row {
  return [rec.startoff, rec.startblock, rec.count, rec.unwritten];
}

/** The list of a fork. */
export function rows(ip: XfsInode, whichfork = XFS_DATA_FORK): Row[] {
  const fork = xfsIforkPtr(ip, whichfork)!;
  const cur = new IextCursor();
  const rec = new BmbtIrec();
  const out: Row[] = [];
  for (let more = fork.first(cur, rec); more; more = fork.next(cur, rec)) {
    out.push(row(rec));
  }
  assertEquals(out.length, fork.count);
  return out;
}

/** The records of a fork's tree, and its blocks. */
function treeRows(ip: XfsInode, whichfork: number): [Row[], number] {
  const cur = xfsBmbtInitCursor(ip.mount, null, ip, whichfork);
  const rec = new BmbtIrec();
  const out: Row[] = [];
  let more = xfsBtreeGotoFirst(cur);
  while (more === 1) {
    xfsBtreeGetRec(cur, rec);
    out.push(row(rec));
    more = xfsBtreeIncrement(cur, 0);
  }
  assertEquals(more, 0);
  const blocks = xfsBtreeCountBlocks(cur);
  assert(blocks > 0, "the tree cannot be walked");
  xfsBtreeDelCursor(cur);
  return [out, blocks];
}

/** Blocks of a fork by what they are. */
interface ForkBlocks {
  data: number;
  tree: number;
  delayed: number;
  indlen: number;
}

/** Checks one fork: order, neighbours, format, tree, number of extents. */
function checkFork(ip: XfsInode, whichfork: number): ForkBlocks {
  const fork = xfsIforkPtr(ip, whichfork)!;
  const list = rows(ip, whichfork);
  const sum = { data: 0, tree: 0, delayed: 0, indlen: 0 };
  let end = 0;
  list.forEach(([off, block, count], i) => {
    assert(off >= end && count > 0, `extent ${i} at ${off} overlaps`);
    end = off + count;
    if (isnullstartblock(block)) {
      sum.delayed += count;
      sum.indlen += startblockval(block);
      assert(startblockval(block) <= xfsBmapWorstIndlen(ip, count));
    } else {
      sum.data += count;
      assert(ip.mount.sb.verifyFsbext(block, count), `extent ${i}`);
    }
    if (i > 0) checkApart(list[i - 1]!, list[i]!);
  });
  const real = list.filter((r) => !isnullstartblock(r[1]));
  assertEquals(fork.nextents, real.length);
  const fits = real.length <= xfsIforkMaxext(ip, whichfork);
  const format = fits ? XFS_DINODE_FMT_EXTENTS : XFS_DINODE_FMT_BTREE;
  assertEquals(fork.format, format);
  if (!fits) {
    const [tree, blocks] = treeRows(ip, whichfork);
    assertEquals(tree, real);
    sum.tree = blocks;
  } else assertEquals(fork.broot, null);
  return sum;
}

/** Neighbours that continue each other are one extent. */
function checkApart(a: Row, b: Row): void {
  if (a[0] + a[2] !== b[0]) return;
  const delayed = isnullstartblock(a[1]) && isnullstartblock(b[1]);
  const joins = a[1] >= 0 && b[1] === a[1] + a[2] && a[3] === b[3];
  assert(!delayed && !joins, `extents at ${a[0]} and ${b[0]} are not joined`);
}

/** Checks a file, and the counters if it is the only one that promises are made to. */
export function checkFile(ip: XfsInode, alone = true): void {
  const sum = checkFork(ip, XFS_DATA_FORK);
  assertEquals(ip.nblocks, sum.data + sum.tree);
  assertEquals(ip.delayedBlks, sum.delayed);
  if (alone) checkCounters(ip.mount, sum.delayed + sum.indlen);
}

/** What is read from the inode's block is what is in memory. It has been written there. */
export function checkReload(ip: XfsInode): void {
  const again = readInode(ip.mount, ip.ino);
  assertEquals(xfsIreadExtents(null, again, XFS_DATA_FORK), 0);
  const real = rows(ip).filter((r) => !isnullstartblock(r[1]));
  assertEquals(rows(again), real);
  assertEquals(again.nblocks, ip.nblocks);
  assertEquals(again.df.nextents, ip.df.nextents);
  assertEquals(again.df.format, ip.df.format);
}
