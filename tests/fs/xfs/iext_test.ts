import { assert, assertEquals } from "@std/assert";
import { BmbtIrec, IextCursor, Ifork } from "../../../fs/xfs/iext.ts";
import { Prng } from "../../../lib/prng.ts";

type Row = [off: number, block: number, count: number, unwritten: boolean];

function rows(fork: Ifork): Row[] {
  const cur = new IextCursor();
  const rec = new BmbtIrec();
  const out: Row[] = [];
  for (let more = fork.first(cur, rec); more; more = fork.next(cur, rec)) {
    out.push([rec.startoff, rec.startblock, rec.count, rec.unwritten]);
  }
  return out;
}

function put(fork: Ifork, [off, block, count, unwritten]: Row): void {
  const cur = new IextCursor();
  fork.lookup(off, cur, new BmbtIrec());
  fork.insert(cur, new BmbtIrec().set(off, block, count, unwritten));
}

// Goal: the leaves of the tree never show. Method: random inserts, removals,
// updates and look-ups against a sorted array; enough extents for many leaves.
Deno.test("Ifork agrees with a sorted array under random changes (seed 7)", () => {
  const prng = new Prng(7, "iext");
  const fork = new Ifork();
  const model: Row[] = [];
  const cur = new IextCursor();
  const got = new BmbtIrec();
  // Extent k lives at 10k, up to 9 blocks long; some are beyond 2^32.
  const at = (k: number) => k * 10 + (k > 1500 ? 2 ** 40 : 0);
  for (let round = 0; round < 20_000; round++) {
    const off = at(prng.below(2000));
    const i = model.findIndex((r) => r[0] >= off);
    const place = i < 0 ? model.length : i;
    const here = model[place]?.[0] === off;
    const grow = prng.below(10) < (round < 10_000 ? 7 : 3);
    if (!here && grow) {
      const row: Row = [off, off * 3, 1 + prng.below(9), prng.below(2) === 0];
      put(fork, row);
      model.splice(place, 0, row);
    } else if (here && !grow) {
      assert(fork.lookup(off, cur, got));
      fork.remove(cur);
      model.splice(place, 1);
      const next = model[place];
      assertEquals(fork.get(cur, got), next !== undefined);
      if (next) assertEquals(got.startoff, next[0]);
    } else if (here) {
      assert(fork.lookup(off, cur, got));
      got.startblock = round;
      fork.update(cur, got);
      model[place]![1] = round;
    }
    const probe = off + prng.below(12);
    const first = model.findIndex((r) => r[0] + r[2] > probe);
    assertEquals(fork.lookup(probe, cur, got), first >= 0, `at ${probe}`);
    if (first >= 0) assertEquals(got.startoff, model[first]![0]);
    // One before the place of the look-up, which may be the end.
    const before = first < 0 ? model.length - 1 : first - 1;
    assertEquals(fork.prev(cur, got), before >= 0);
    if (before >= 0) assertEquals(got.startoff, model[before]![0]);
  }
  assertEquals(fork.nextents, model.length);
  assertEquals(rows(fork), model);
});

Deno.test("Ifork.prev() goes back from the end to the first extent", () => {
  const fork = new Ifork();
  for (let k = 0; k < 1000; k++) put(fork, [k * 2, k, 1, false]);
  const cur = new IextCursor();
  const got = new BmbtIrec();
  const back: number[] = [];
  for (let more = fork.last(cur, got); more; more = fork.prev(cur, got)) {
    back.push(got.startoff);
  }
  assertEquals(back, Array.from({ length: 1000 }, (_, k) => 1998 - k * 2));
});

Deno.test("Ifork.seq moves with every change and no look-up", () => {
  const fork = new Ifork();
  const cur = new IextCursor();
  const got = new BmbtIrec();
  put(fork, [0, 1, 1, false]);
  const inserted = fork.seq;
  fork.lookup(0, cur, got);
  assertEquals(fork.seq, inserted);
  fork.update(cur, got);
  const updated = fork.seq;
  fork.remove(cur);
  assertEquals(new Set([0, inserted, updated, fork.seq]).size, 4);
});
