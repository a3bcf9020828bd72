import { assert, assertEquals } from "@std/assert";
import { BmbtIrec, IextCursor, Ifork } from "../../../../fs/xfs/libxfs/iext.ts";
import { Prng } from "../../../../lib/prng.ts";

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
  assertEquals(fork.count, model.length);
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

Deno.test("Ifork finds what was put in at the end of a leaf, before the next leaf's first", () => {
  const fork = new Ifork();
  for (let k = 0; k < 300; k++) put(fork, [k * 10, k, 1, false]);
  const cur = new IextCursor();
  const got = new BmbtIrec();
  for (let k = 1; k < 299; k++) {
    // One of these pairs is the last of a leaf and the first of the next.
    assert(fork.lookup((k + 1) * 10, cur, got));
    fork.remove(cur);
    assert(fork.lookup(k * 10, cur, got));
    fork.remove(cur);
    fork.insert(cur, got.set((k + 1) * 10 + 5, k, 1, false));
    assert(fork.lookup((k + 1) * 10 + 5, cur, got));
    assertEquals(got.startoff, (k + 1) * 10 + 5);
    fork.remove(cur);
    fork.insert(cur, got.set((k + 1) * 10, k + 1, 1, false));
    fork.insert(cur, got.set(k * 10, k, 1, false));
  }
  assertEquals(fork.count, 300);
});

Deno.test("Ifork.prev() from the first extent goes where there is none, and next() back", () => {
  const fork = new Ifork();
  for (const off of [10, 20]) put(fork, [off, off, 1, false]);
  const cur = new IextCursor();
  const got = new BmbtIrec();
  assert(fork.first(cur, got));
  assertEquals(fork.prev(cur, got), false);
  assertEquals(fork.get(cur, got), false);
  assertEquals(fork.prev(cur, got), false);
  assertEquals([fork.next(cur, got), got.startoff], [true, 10]);
});

Deno.test("Ifork.lookupBefore() finds the last extent that begins before a block", () => {
  const fork = new Ifork();
  put(fork, [10, 1, 5, false]);
  put(fork, [20, 1, 5, false]);
  const cur = new IextCursor();
  const got = new BmbtIrec();
  const before = (end: number) =>
    fork.lookupBefore(end, cur, got) ? got.startoff : null;
  const ends = [10, 11, 15, 20, 21, 30, Infinity];
  assertEquals(ends.map(before), [null, 10, 10, 10, 20, 20, 20]);
});

Deno.test("Ifork.remove() goes on in the next leaf when the last of one has gone", () => {
  for (let k = 0; k < 298; k++) {
    const fork = new Ifork();
    for (let i = 0; i < 300; i++) put(fork, [i * 10, i, 1, false]);
    const cur = new IextCursor();
    const got = new BmbtIrec();
    assert(fork.lookup(k * 10, cur, got));

    fork.remove(cur);
    fork.remove(cur);

    assertEquals([fork.get(cur, got), got.startoff], [true, (k + 2) * 10]);
    const offs: number[] = [];
    for (let more = fork.first(cur, got); more; more = fork.next(cur, got)) {
      offs.push(got.startoff / 10);
    }
    const all = Array.from({ length: 300 }, (_, i) => i);
    assertEquals(offs, all.filter((i) => i !== k && i !== k + 1));
  }
});
