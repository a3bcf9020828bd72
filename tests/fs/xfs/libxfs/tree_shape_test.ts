/*
 * Goal: where a record can go into one of two blocks, it goes into the one that the
 * kernel chooses. Otherwise blocks split at other times, and a file has other numbers of
 * blocks than with the kernel. Method: trees of two leaves or more, and changes at the
 * end of the first one. Oracle: the numbers of records of the leaves.
 */

import { assert, assertEquals } from "@std/assert";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import { xfsAllocReadAgf } from "../../../../fs/xfs/libxfs/ag.ts";
import { xfsFreeExtentFixFreelist } from "../../../../fs/xfs/libxfs/alloc.ts";
import {
  XFS_BMAPI_PREALLOC,
  xfsBmapiWrite,
  xfsBunmapi,
} from "../../../../fs/xfs/libxfs/bmap.ts";
import { xfsBmbtInitCursor } from "../../../../fs/xfs/libxfs/bmap-btree.ts";
import {
  type XfsBtreeCur,
  xfsBtreeDelCursor,
  xfsBtreeGetRec,
  xfsBtreeGotoFirst,
  xfsBtreeIncrement,
} from "../../../../fs/xfs/libxfs/btree.ts";
import type { XfsBuf } from "../../../../fs/xfs/libxfs/buf.ts";
import {
  XFS_DATA_FORK,
  XFS_RMAP_OWN_REFC,
} from "../../../../fs/xfs/libxfs/format.ts";
import { BmbtIrec } from "../../../../fs/xfs/libxfs/iext.ts";
import {
  XFS_RMAP_OINFO_REFC,
  xfsRmapAlloc,
  xfsRmapConvertExtent,
  xfsRmapFree,
  xfsRmapMapExtent,
} from "../../../../fs/xfs/libxfs/rmap.ts";
import { xfsRmapbtInitCursor } from "../../../../fs/xfs/libxfs/rmap-btree.ts";
import { xfsRefcountIncreaseExtent } from "../../../../fs/xfs/libxfs/refcount.ts";
import { xfsRefcountbtInitCursor } from "../../../../fs/xfs/libxfs/refcount-btree.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import { begin, newFile, newMount, transact } from "./fixture.ts";
import { newShareMount } from "./share_fixture.ts";

const MiB = 2 ** 20;

/** How many records each leaf has, and the last one of the first leaf. */
interface Shape<R> {
  sizes: number[];
  last: R;
}

/** Goes through a tree; the cursor is given back. */
function shapeOf<R>(cur: XfsBtreeCur<R>): Shape<R> {
  const sizes: number[] = [];
  const last = cur.ops.newRec();
  let leaf: XfsBuf | null = null;
  for (let more = xfsBtreeGotoFirst(cur); more === 1;) {
    if (cur.bufs[0] !== leaf) sizes.push(0);
    leaf = cur.bufs[0]!;
    sizes[sizes.length - 1]!++;
    if (sizes.length === 1) xfsBtreeGetRec(cur, last);
    more = xfsBtreeIncrement(cur);
  }
  xfsBtreeDelCursor(cur);
  return { sizes, last };
}

function agfOf(mp: XfsMount): XfsBuf {
  const agbp = xfsAllocReadAgf(mp.perags[0]!, null);
  assert(typeof agbp !== "number");
  return agbp;
}

function rmapShape(mp: XfsMount) {
  return shapeOf(xfsRmapbtInitCursor(mp, null, agfOf(mp), mp.perags[0]!));
}

/** Changes the reverse map of the first group at once. */
function changeRmap(
  mp: XfsMount,
  change: typeof xfsRmapAlloc,
  bno: number,
  len: number,
): void {
  const pag = mp.perags[0]!;
  const result = transact(mp, 100, (tp) => {
    const agbp = xfsFreeExtentFixFreelist(tp, pag);
    assert(typeof agbp !== "number");
    return change(tp, agbp, pag, bno, len, XFS_RMAP_OINFO_REFC);
  });
  assertEquals(result, 0);
}

/** A reverse map of several leaves, of runs of 5 blocks with gaps of 5. */
async function rmapOfLeaves(): Promise<XfsMount> {
  const mp = await newShareMount(32 * MiB, {
    blockSize: 1024,
    agCount: 2,
    rmapbt: true,
  });
  for (let i = 0; i < 50; i++) {
    changeRmap(mp, xfsRmapAlloc, 4000 + i * 10, 5);
  }
  return mp;
}

Deno.test("xfsRmapAlloc() puts a record between two leaves into the right one", async () => {
  const mp = await rmapOfLeaves();
  const { sizes, last } = rmapShape(mp);
  assertEquals(last.owner, XFS_RMAP_OWN_REFC);
  changeRmap(mp, xfsRmapAlloc, last.end + 2, 1);
  sizes[1]!++;
  assertEquals(rmapShape(mp).sizes, sizes);
});

Deno.test("xfsRmapFree() leaves the end of a leaf's last record to the next leaf", async () => {
  const mp = await rmapOfLeaves();
  const { sizes, last } = rmapShape(mp);
  changeRmap(mp, xfsRmapFree, last.startblock + 2, 1);
  sizes[1]!++;
  assertEquals(rmapShape(mp).sizes, sizes);
});

Deno.test("xfsRmapConvertExtent() puts the first part before what stays of the record", async () => {
  const mp = await newShareMount(32 * MiB, {
    blockSize: 1024,
    agCount: 2,
    rmapbt: true,
  });
  const ip = { ino: mp.sb.rootino, isReflink: false } as XfsInode;
  const change = (work: typeof xfsRmapMapExtent, rec: BmbtIrec) => {
    const tp = begin(mp, 100);
    work(tp, ip, XFS_DATA_FORK, rec);
    assertEquals(tp.commit(), 0);
  };
  const extent = (i: number, len: number, unwritten: boolean) => {
    const fsbno = mp.sb.agbToFsb(0, 4000 + i * 10);
    return new BmbtIrec().set(i * 10, fsbno, len, unwritten);
  };
  // The only leaf is full, with 40 records.
  const before = rmapShape(mp).sizes[0]!;
  for (let i = 0; before + i < 40; i++) {
    change(xfsRmapMapExtent, extent(i, 5, false));
  }
  assertEquals(rmapShape(mp).sizes, [40]);
  // In the place of the 21st it is still one for the left half.
  change(xfsRmapConvertExtent, extent(20 - before, 2, true));
  assertEquals(rmapShape(mp).sizes, [21, 20]);
});

Deno.test("xfsRefcountIncreaseExtent() puts new records where its search has led", async () => {
  const mp = await newShareMount(32 * MiB, { blockSize: 1024, agCount: 2 });
  const share = (bno: number, len: number) => {
    const tp = begin(mp, 100);
    const fsbno = mp.sb.agbToFsb(0, bno);
    xfsRefcountIncreaseExtent(tp, new BmbtIrec().set(0, fsbno, len, false));
    assertEquals(tp.commit(), 0);
  };
  const shape = () =>
    shapeOf(xfsRefcountbtInitCursor(mp, null, agfOf(mp), mp.perags[0]!));
  for (let i = 0; i < 200; i++) share(4000 + i * 10, 5);
  const { sizes, last } = shape();
  // In a gap it goes before the record that comes next.
  share(last.end + 2, 1);
  sizes[1]!++;
  assertEquals(shape().sizes, sizes);
  // The first record of the second leaf is now that one; the one after is cut in two.
  share(last.startblock + 12, 3);
  sizes[1]! += 1;
  assertEquals(shape().sizes, sizes);
});

/** A file of extents of 5 blocks with gaps of 5. */
async function fileOf(extents: number): Promise<XfsInode> {
  const mp = await newMount(32 * MiB, { blockSize: 1024, agCount: 2 });
  const ip = newFile(mp);
  for (let i = 0; i < extents; i++) {
    write(ip, i * 10, 5, XFS_BMAPI_PREALLOC);
  }
  return ip;
}

function write(ip: XfsInode, off: number, len: number, flags: number): void {
  const out = [new BmbtIrec()];
  const n = transact(
    ip.mount,
    100,
    (tp) => xfsBmapiWrite(tp, ip, off, len, flags, 0, out, 1),
  );
  assertEquals(n, 1);
}

function fileShape(ip: XfsInode) {
  return shapeOf(xfsBmbtInitCursor(ip.mount, null, ip, XFS_DATA_FORK));
}

Deno.test("xfsBunmapi() leaves the end of a leaf's last extent to the next leaf", async () => {
  const ip = await fileOf(120);
  const { sizes, last } = fileShape(ip);
  const from = last.startoff + 2;
  const done = transact(
    ip.mount,
    100,
    (tp) => xfsBunmapi(tp, ip, from, 1, 0, 0),
  );
  assertEquals(done, 1);
  sizes[1]!++;
  assertEquals(fileShape(ip).sizes, sizes);
});

Deno.test("xfsBmapiWrite() puts what becomes written before what stays unwritten", async () => {
  // The only leaf is full. In the place of the 30th extent the left half is smaller.
  const ip = await fileOf(59);
  assertEquals(fileShape(ip).sizes, [59]);
  write(ip, 290, 2, 0);
  assertEquals(fileShape(ip).sizes, [30, 30]);
});
