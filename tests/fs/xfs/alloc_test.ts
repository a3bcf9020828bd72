import { assert, assertEquals, assertFalse } from "@std/assert";
import type { XfsPerag } from "../../../fs/xfs/ag.ts";
import {
  type Allocation,
  allocVextent,
  clearBusy,
  freeExtent,
  reserveBlocks,
  unreserveBlocks,
} from "../../../fs/xfs/alloc.ts";
import { PairTree } from "../../../fs/xfs/btree.ts";
import { setWarningHandler } from "../../../lib/bug.ts";
import { ENOSPC, EUCLEAN } from "../../../lib/errno.ts";
import { Prng } from "../../../lib/prng.ts";
import { fakeMount } from "./fake.ts";

/** Header blocks of a group with 4 KiB blocks. */
const HEADERS = 10;

Deno.test("PairTree agrees with a sorted array under random changes (seed 3)", () => {
  const prng = new Prng(3, "btree");
  const tree = new PairTree();
  let model: number[] = [];
  const key = (a: number, b: number) => a * 1000 + b;
  for (let round = 0; round < 10_000; round++) {
    const a = prng.below(200);
    const b = prng.below(20);
    const has = model.includes(key(a, b));
    if (!has && prng.below(3) > 0) {
      tree.insert(a, b);
      model = [...model, key(a, b)].sort((x, y) => x - y);
    } else {
      assertEquals(tree.remove(a, b), has);
      model = model.filter((k) => k !== key(a, b));
    }
    const ge = model.find((k) => k >= key(a, b));
    assertEquals(tree.lookupGe(a, b), ge !== undefined);
    if (ge !== undefined) assertEquals(key(tree.a, tree.b), ge);
    const lt = model.findLast((k) => k < key(a, b));
    assertEquals(tree.lookupLt(a, b), lt !== undefined);
    if (lt !== undefined) assertEquals(key(tree.a, tree.b), lt);
  }
  assertEquals(tree.size, model.length);
});

/** Free blocks of a group as its trees have them, both orders checked. */
function freeMap(ag: XfsPerag): Uint8Array {
  const map = new Uint8Array(ag.blocks);
  const pairs = new Set<string>();
  const { bnobt, cntbt } = ag;
  let last = -1;
  for (let more = bnobt.lookupGe(0, 0); more; more = bnobt.next()) {
    assert(bnobt.a > last, "free extents touch or overlap");
    last = bnobt.a + bnobt.b;
    map.fill(1, bnobt.a, last);
    pairs.add(`${bnobt.a}+${bnobt.b}`);
  }
  for (let more = cntbt.lookupGe(0, 0); more; more = cntbt.next()) {
    assert(pairs.delete(`${cntbt.b}+${cntbt.a}`), "only by size");
  }
  assertEquals(pairs.size, 0, "only by block");
  return map;
}

// Goal: the allocator never hands out a block twice nor loses one. Oracle: a bitmap.
Deno.test("allocVextent() and freeExtent() agree with a bitmap (seed 5)", () => {
  const prng = new Prng(5, "alloc");
  const mp = fakeMount(3, 500);
  const used = new Uint8Array(1500);
  for (let ag = 0; ag < 3; ag++) {
    used.fill(1, ag * 500, ag * 500 + HEADERS);
  }
  const held: Allocation[] = [];
  const out: Allocation = { fsbno: 0, count: 0 };
  for (let round = 0; round < 4000; round++) {
    if (prng.below(2) === 0 && held.length > 0) {
      const [a] = held.splice(prng.below(held.length), 1);
      assertEquals(freeExtent(mp, a!.fsbno, a!.count), 0);
      used.fill(0, a!.fsbno, a!.fsbno + a!.count);
    } else {
      const want = 1 + prng.below(40);
      if (reserveBlocks(mp, want) < 0) continue;
      allocVextent(mp, prng.below(1500), want, out);
      unreserveBlocks(mp, want - out.count);
      assert(out.count > 0, "space was promised but not found");
      for (let b = out.fsbno; b < out.fsbno + out.count; b++) {
        assertEquals(used[b], 0, `block ${b} is handed out twice`);
        used[b] = 1;
      }
      held.push({ ...out });
    }
  }
  clearBusy(mp);
  for (const ag of mp.ags) {
    const expected = used.slice(ag.agno * 500, ag.agno * 500 + 500)
      .map((u) => 1 - u);
    assertEquals(freeMap(ag), expected);
  }
  const free = used.reduce((n, u) => n + 1 - u, 0);
  assertEquals(mp.fdblocks + mp.poolBlocks, free);
});

Deno.test("allocVextent() takes the target itself when it is free", () => {
  const mp = fakeMount(2, 500);
  const out: Allocation = { fsbno: 0, count: 0 };
  allocVextent(mp, 700, 10, out);
  assertEquals(out, { fsbno: 700, count: 10 });
  // Taken: the next place behind it is as near as any.
  allocVextent(mp, 705, 10, out);
  assertEquals(out, { fsbno: 710, count: 10 });
  // Too short from there to a used run: behind that.
  allocVextent(mp, 698, 10, out);
  assertEquals(out, { fsbno: 720, count: 10 });
});

Deno.test("allocVextent() gives what there is when nothing is long enough", () => {
  const mp = fakeMount(1, 64);
  const out: Allocation = { fsbno: 0, count: 0 };
  mp.ags[0]!.take(30, 4);
  allocVextent(mp, 0, 60, out);
  assertEquals(out, { fsbno: 34, count: 30 });
});

Deno.test("allocVextent() goes to another group for a run in one piece", () => {
  const mp = fakeMount(2, 100);
  const out: Allocation = { fsbno: 0, count: 0 };
  mp.ags[0]!.take(50, 10);
  allocVextent(mp, 20, 60, out);
  assertEquals(out, { fsbno: 110, count: 60 });
});

Deno.test("reserveBlocks() answers -ENOSPC before the reserve is touched", () => {
  const mp = fakeMount(1, 1000);
  const all = mp.fdblocks;
  assertEquals(reserveBlocks(mp, all), 0);
  assertEquals(reserveBlocks(mp, 1), -ENOSPC);
  assertEquals(reserveBlocks(mp, 1, true), 0);
  assertEquals(mp.poolBlocks, mp.poolSize - 1);
  unreserveBlocks(mp, all + 1);
  assertEquals([mp.fdblocks, mp.poolBlocks], [all, mp.poolSize]);
});

Deno.test("freed blocks are not used again before the log is written, unless nothing else is left", () => {
  const mp = fakeMount(1, 100);
  const out: Allocation = { fsbno: 0, count: 0 };
  allocVextent(mp, 20, 10, out);
  freeExtent(mp, 20, 10);
  allocVextent(mp, 20, 4, out);
  assertEquals(out.fsbno, HEADERS);
  clearBusy(mp);
  allocVextent(mp, 20, 4, out);
  assertEquals(out.fsbno, 20);
  freeExtent(mp, 20, 4);
  allocVextent(mp, 20, 80, out);
  assertEquals(out, { fsbno: 20, count: 80 });
});

Deno.test("freeExtent() refuses blocks that are free, and says so", () => {
  const mp = fakeMount(1, 100);
  const said: string[] = [];
  const old = setWarningHandler((m) => said.push(m));
  try {
    const before = mp.fdblocks;
    assertEquals(freeExtent(mp, 50, 1), -EUCLEAN);
    assertEquals(freeExtent(mp, 99, 2), -EUCLEAN);
    assertEquals(freeExtent(mp, 5000, 1), -EUCLEAN);
    assertEquals([mp.fdblocks, said.length], [before, 3]);
  } finally {
    setWarningHandler(old);
  }
});

Deno.test("XfsPerag.give() joins both neighbours", () => {
  const ag = fakeMount(1, 100).ags[0]!;
  ag.take(20, 30);
  assert(ag.give(20, 10));
  assert(ag.give(40, 10));
  assert(ag.give(30, 10));
  assertEquals([ag.bnobt.size, ag.longest], [1, 100 - HEADERS]);
  assertFalse(ag.give(30, 1));
});
