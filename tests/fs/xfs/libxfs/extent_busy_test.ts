import { assert, assertEquals } from "@std/assert";
import type { XfsPerag } from "../../../../fs/xfs/libxfs/ag.ts";
import {
  xfsExtentBusyInsert,
  xfsExtentBusyReuse,
  XfsExtentBusyTree,
  xfsExtentBusyTrim,
} from "../../../../fs/xfs/libxfs/extent-busy.ts";
import { Prng } from "../../../../lib/prng.ts";

/** Extents in order, after the tree's balance was checked. */
function contents(busy: XfsExtentBusyTree): [number, number][] {
  const out: [number, number][] = [];
  let lowest = Infinity;
  let highest = 0;
  const walk = (node: number, depth: number): void => {
    if (node === 0) {
      lowest = Math.min(lowest, depth);
      highest = Math.max(highest, depth);
      return;
    }
    walk(busy.left[node]!, depth + 1);
    out.push([busy.bno[node]!, busy.len[node]!]);
    walk(busy.right[node]!, depth + 1);
  };
  walk(busy.root, 0);
  assertEquals(out.length, busy.count);
  // Of a red-black tree no path is more than twice as long as another.
  if (busy.root !== 0) assert(highest <= 2 * lowest, `${lowest} … ${highest}`);
  return out;
}

function group(): XfsPerag {
  return { busy: new XfsExtentBusyTree() } as XfsPerag;
}

// Goal: the tree holds what was freed and not taken since, and stays balanced. Method:
// random extents are freed and taken again. Oracle: a number for each block: which
// freeing it was part of.
Deno.test("busy extents agree with a map of blocks (seed 4)", () => {
  const pag = group();
  const prng = new Prng(4, "busy");
  const blocks = new Int32Array(4000);
  for (let step = 1; step < 6000; step++) {
    const bno = prng.below(3980);
    const len = 1 + prng.below(20);
    const range = blocks.subarray(bno, bno + len);
    const phase = Math.floor(step / 1500) % 2;
    if (prng.below(10) < (phase === 0 ? 7 : 2)) {
      if (range.some((n) => n !== 0)) continue;
      xfsExtentBusyInsert(pag, bno, len);
      range.fill(step);
    } else {
      // A piece out of the middle of one clears them all.
      const inner = bno > 0 && blocks[bno] !== 0 &&
        blocks[bno - 1] === blocks[bno] &&
        blocks[bno + len] === blocks[bno] && range.every((n) => n === range[0]);
      xfsExtentBusyReuse(pag, bno, len);
      if (inner) blocks.fill(0);
      else range.fill(0);
    }
    if (step % 16 === 0) {
      const wanted: [number, number][] = [];
      for (let i = 0; i < blocks.length;) {
        let end = i + 1;
        while (blocks[end] === blocks[i]) end++;
        if (blocks[i] !== 0) wanted.push([i, end - i]);
        i = end;
      }
      assertEquals(contents(pag.busy), wanted);
    }
  }
});

Deno.test("a great many frees are bounded in memory", () => {
  const pag = group();
  for (let i = 0; i < 100_000; i++) xfsExtentBusyInsert(pag, i * 2, 1);
  assert(pag.busy.count <= 32768);
  contents(pag.busy);
});

// Free extent, busy ones, minlen, maxlen; what is left.
const TRIMS: [
  [number, number],
  [number, number][],
  number,
  number,
  [number, number],
][] = [
  [[100, 50], [], 1, 10, [100, 50]],
  [[100, 50], [[0, 100], [150, 9]], 1, 10, [100, 50]],
  [[100, 50], [[90, 200]], 1, 10, [100, 0]],
  [[100, 50], [[100, 20]], 1, 10, [120, 30]],
  [[100, 50], [[140, 20]], 1, 10, [100, 40]],
  // In the middle: before it if that is enough, else after it if that is plenty.
  [[100, 50], [[110, 5]], 1, 10, [100, 10]],
  [[100, 80], [[105, 5]], 1, 10, [110, 70]],
  [[100, 50], [[105, 15]], 1, 10, [100, 5]],
  [[100, 50], [[105, 15]], 6, 10, [100, 0]],
  // Nothing is joined: the first of them decides.
  [[1587, 97], [[1601, 64], [1589, 12]], 3, 3, [1587, 2]],
];

for (const [[bno, len], busy, minlen, maxlen, wanted] of TRIMS) {
  const text = busy.map(([b, n]) => `${b}+${n}`).join(" ");
  Deno.test(`xfsExtentBusyTrim() of ${bno}+${len}, busy ${text || "none"}, ${minlen} to ${maxlen}`, () => {
    const pag = group();
    for (const [b, n] of busy) xfsExtentBusyInsert(pag, b, n);
    const out = { bno, len };
    const cut = xfsExtentBusyTrim(pag, minlen, maxlen, out);
    if (out.len === 0) assertEquals(wanted[1], 0);
    else assertEquals([out.bno, out.len], wanted);
    assertEquals(cut, out.len !== len);
  });
}
