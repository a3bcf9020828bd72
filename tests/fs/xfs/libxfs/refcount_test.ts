import { assert, assertEquals } from "@std/assert";
import { xfsAllocReadAgf } from "../../../../fs/xfs/libxfs/ag.ts";
import {
  xfsBtreeDelCursor,
  xfsBtreeInsert,
  xfsBtreeLookup,
} from "../../../../fs/xfs/libxfs/btree.ts";
import { finishRoll } from "./share_fixture.ts";
import * as F from "../../../../fs/xfs/libxfs/format.ts";
import { BmbtIrec } from "../../../../fs/xfs/libxfs/iext.ts";
import {
  xfsRefcountAllocCowExtent,
  xfsRefcountDecreaseExtent,
  xfsRefcountFindShared,
  xfsRefcountIncreaseExtent,
  xfsRefcountRecoverCowLeftovers,
  type XfsSharedRange,
} from "../../../../fs/xfs/libxfs/refcount.ts";
import {
  XFS_REFC_DOMAIN_SHARED,
  xfsRefcountbtInitCursor,
} from "../../../../fs/xfs/libxfs/refcount-btree.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import { EFSCORRUPTED } from "../../../../lib/errno.ts";
import { setLogHandler } from "../../../../lib/printk.ts";
import { Prng } from "../../../../lib/prng.ts";
import { checkCounters } from "./alloc_check.ts";
import { begin } from "./fixture.ts";
import { readCounts } from "./share_check.ts";
import { newShareMount, takeBlocks } from "./share_fixture.ts";

const MiB = 2 ** 20;

/** Allocates one run of blocks in the first group; its first block. */
function allocate(mp: XfsMount, len: number): number {
  const tp = begin(mp, len);
  const got = takeBlocks(tp, mp.sb.agbToFsb(0, 1000), len);
  assert(got !== null && got[1] === len);
  assertEquals(tp.commit(), 0);
  return got[0];
}

/** Changes counts in a transaction of its own. */
function change(mp: XfsMount, up: boolean, start: number, len: number): number {
  const tp = begin(mp);
  const rec = new BmbtIrec().set(0, start, len, false);
  if (up) xfsRefcountIncreaseExtent(tp, rec);
  else xfsRefcountDecreaseExtent(tp, rec);
  return tp.commit();
}

Deno.test("counts are those of every block, however ranges overlap", async () => {
  const mp = await newShareMount(32 * MiB, { blockSize: 1024, agCount: 2 });
  const prng = new Prng(3, "refcount");
  const len = 2000;
  const first = allocate(mp, len);
  const counts = new Array(len).fill(1);
  const free = mp.sb.fdblocks;
  for (let i = 0; i < 400; i++) {
    const at = prng.below(len);
    const n = 1 + prng.below(Math.min(len - at, i % 10 === 0 ? 2000 : 60));
    let up = prng.below(2) === 0;
    // What has come to 0 is not there any more.
    if (counts.slice(at, at + n).some((c) => c === 0)) continue;
    if (!up && prng.below(4) > 0) {
      up = counts.slice(at, at + n).some((c) => c === 1);
    }
    assertEquals(change(mp, up, first + at, n), 0);
    for (let j = at; j < at + n; j++) counts[j] += up ? 1 : -1;
    const rows: number[][] = [];
    let before = 0;
    counts.forEach((count, j) => {
      if (count > 1 && count === before) rows.at(-1)![1]!++;
      else if (count > 1) rows.push([first + j, 1, count]);
      before = count;
    });
    assertEquals(readCounts(mp.perags[0]!), rows);
  }
  const gone = counts.filter((count) => count === 0).length;
  assert(gone > 0);
  // Blocks of the tree are in use, too.
  const agf = xfsAllocReadAgf(mp.perags[0]!, null);
  assert(typeof agf !== "number");
  const tree = agf.view.getUint32(F.AGF_REFCNTBLOCKS);
  assert(tree > 1);
  assertEquals(mp.sb.fdblocks, free + gone - (tree - 1));
  checkCounters(mp);
});

Deno.test("xfsRefcountFindShared() answers the first shared blocks of a range", async () => {
  const mp = await newShareMount(32 * MiB, { agCount: 2 });
  const prng = new Prng(5, "shared");
  const first = allocate(mp, 300);
  const counts = new Array(300).fill(1);
  for (let i = 0; i < 60; i++) {
    const at = prng.below(290);
    const n = 1 + prng.below(8);
    assertEquals(change(mp, true, first + at, n), 0);
    for (let j = at; j < at + n; j++) counts[j]++;
  }
  const out: XfsSharedRange = { fbno: 0, flen: 0 };
  const pag = mp.perags[0]!;
  const agbno = mp.sb.fsbToAgbno(first);
  for (let i = 0; i < 1000; i++) {
    const at = prng.below(300);
    const n = 1 + prng.below(300 - at);
    const toEnd = prng.below(2) === 0;
    const error = xfsRefcountFindShared(null, pag, agbno + at, n, toEnd, out);
    assertEquals(error, 0);
    let from = at;
    while (from < at + n && counts[from] < 2) from++;
    let to = from;
    while (
      to < at + n && counts[to] > 1 && (toEnd || counts[to] === counts[from])
    ) to++;
    if (from === at + n) assertEquals(out, { fbno: F.NULLAGBLOCK, flen: 0 });
    else assertEquals(out, { fbno: agbno + from, flen: to - from });
  }
});

Deno.test("a change of many records goes on in further transactions", async () => {
  const mp = await newShareMount(64 * MiB, { blockSize: 1024, agCount: 2 });
  const len = 12000;
  const first = allocate(mp, len);
  // Every other block is shared.
  for (let i = 0; i < len; i += 2) {
    assertEquals(change(mp, true, first + i, 1), 0);
  }
  const rolls = finishRoll(mp);
  assertEquals(change(mp, true, first, len), 0);
  const up = rolls();
  assert(up > 2, `${up} transactions`);
  const rows = Array.from(
    { length: len },
    (_, i) => [first + i, 1, i % 2 === 0 ? 3 : 2],
  );
  assertEquals(readCounts(mp.perags[0]!), rows);
  assertEquals(change(mp, false, first, len), 0);
  assertEquals(change(mp, false, first, len), 0);
  assertEquals(
    readCounts(mp.perags[0]!).length,
    0,
    "all have one reference, or none",
  );
  checkCounters(mp);
});

Deno.test("a count that has reached the most there can be stays", async () => {
  const mp = await newShareMount(32 * MiB, { agCount: 2 });
  const first = allocate(mp, 30);
  const most = F.XFS_REFC_REFCOUNT_MAX;
  const tp = begin(mp);
  const pag = mp.perags[0]!;
  const agbp = xfsAllocReadAgf(pag, tp);
  assert(typeof agbp !== "number");
  const cur = xfsRefcountbtInitCursor(mp, tp, agbp, pag);
  for (const [at, count] of [[0, most], [10, most - 1]]) {
    cur.rec.set(first + at!, 10, count!, XFS_REFC_DOMAIN_SHARED);
    assertEquals(xfsBtreeLookup(cur, 0), 0);
    assertEquals(xfsBtreeInsert(cur), 1);
  }
  xfsBtreeDelCursor(cur);
  assertEquals(tp.commit(), 0);

  assertEquals(change(mp, true, first, 10), 0);
  assertEquals(change(mp, false, first, 10), 0);
  assertEquals(readCounts(pag), [
    [first, 10, most],
    [first + 10, 10, most - 1],
  ]);
  assertEquals(change(mp, true, first + 10, 10), 0);
  assertEquals(readCounts(pag), [[first, 20, most]]);
  assertEquals(change(mp, false, first, 20), 0);
  assertEquals(readCounts(pag), [[first, 20, most]]);
  assertEquals(change(mp, true, first + 20, 10), 0);
  assertEquals(readCounts(pag), [
    [first, 20, most],
    [first + 20, 10, 2],
  ]);
});

Deno.test("xfsRefcountRecoverCowLeftovers() frees what was set aside", async () => {
  const mp = await newShareMount(64 * MiB, { agCount: 3, rmapbt: true });
  const free = mp.sb.fdblocks;
  const shared = allocate(mp, 5);
  assertEquals(change(mp, true, shared, 5), 0);
  for (let i = 0; i < 20; i++) {
    const tp = begin(mp, 3);
    const target = mp.sb.agbToFsb(i % 3, 1500 + 10 * i);
    const got = takeBlocks(tp, target, 3)!;
    xfsRefcountAllocCowExtent(tp, ...got);
    assertEquals(tp.commit(), 0);
  }
  assert(readCounts(mp.perags[2]!).length > 3);
  for (const pag of mp.perags) {
    assertEquals(xfsRefcountRecoverCowLeftovers(pag), 0);
  }
  assertEquals(readCounts(mp.perags[0]!), [[shared, 5, 2]]);
  assertEquals(readCounts(mp.perags[2]!), []);
  assertEquals(mp.sb.fdblocks, free - 5);
  checkCounters(mp);
});

Deno.test("what cannot be is refused: blocks that are free, or set aside twice", async () => {
  const quiet = setLogHandler(() => {});
  for (
    const what of [
      (mp: XfsMount) => change(mp, false, mp.sb.agbToFsb(1, 3000), 5),
      (mp: XfsMount) => {
        const tp = begin(mp);
        xfsRefcountAllocCowExtent(tp, mp.sb.agbToFsb(1, 3000), 5);
        xfsRefcountAllocCowExtent(tp, mp.sb.agbToFsb(1, 3004), 5);
        return tp.commit();
      },
    ]
  ) {
    const mp = await newShareMount(32 * MiB, { agCount: 2 });
    assertEquals(what(mp), -EFSCORRUPTED);
    assertEquals(mp.dead, true);
  }
  setLogHandler(quiet);
});

Deno.test("without reflink nothing is counted", async () => {
  const mp = await newShareMount(32 * MiB, { reflink: false });
  const tp = begin(mp);
  const rec = new BmbtIrec().set(0, 1000, 5, false);
  xfsRefcountIncreaseExtent(tp, rec);
  xfsRefcountAllocCowExtent(tp, 1000, 5);
  assertEquals(tp.deferred, []);
  assertEquals(tp.commit(), 0);
});
