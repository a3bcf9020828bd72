import { assert, assertEquals, assertFalse } from "@std/assert";
import { Prng } from "../../lib/prng.ts";
import {
  INDEX_PRESENT,
  INDEX_SHADOW,
  PageIndex,
  ShadowNodes,
} from "../../mm/page-index.ts";

Deno.test("PageIndex.get() answers 0 when nothing is there", () => {
  const index = new PageIndex();
  assertEquals(index.get(0), 0);
  index.set(700, 1, 9);
  assertEquals([index.get(0), index.get(699), index.get(701)], [0, 0, 0]);
  assertEquals([index.get(2 ** 40), index.get(2 ** 41 - 1)], [0, 0]);
  assertEquals(index.get(700), 9);
});

Deno.test("PageIndex holds pages up to 2^41 - 1", () => {
  const index = new PageIndex();
  const places = [3, 2 ** 9, 2 ** 18 + 1, 2 ** 27 + 5, 2 ** 31, 2 ** 32 + 7]
    .concat([2 ** 36, 2 ** 40, 2 ** 41 - 1]);
  places.forEach((at, n) => index.set(at, 1, n + 1));
  assertEquals(places.map((at) => index.get(at)), places.map((_, n) => n + 1));
  const found: number[] = [];
  for (
    let at = index.next(0, Infinity, INDEX_PRESENT);
    at >= 0;
    at = index.next(at + 1, Infinity, INDEX_PRESENT)
  ) found.push(at);
  assertEquals(found, places);
  for (const at of places) index.clear(at, 1);
  assertFalse(index.tagged(INDEX_PRESENT));
  assertEquals(places.map((at) => index.get(at)), places.map(() => 0));
});

Deno.test("PageIndex.set() of a large folio answers for all its pages", () => {
  const index = new PageIndex();
  index.set(512, 512, 77);
  assertEquals([511, 512, 800, 1023, 1024].map((at) => index.get(at)), [
    0,
    77,
    77,
    77,
    0,
  ]);
  // It begins once, so a walk comes to it once.
  assertEquals(index.next(0, Infinity, INDEX_PRESENT), 512);
  assertEquals(index.next(513, Infinity, INDEX_PRESENT), -1);
  index.clear(512, 512);
  assertEquals(index.get(800), 0);
});

Deno.test("PageIndex.clear() takes the tags along", () => {
  const index = new PageIndex();
  index.set(5, 1, 1);
  index.setTag(5, 0);
  index.clear(5, 1);
  assertFalse(index.tagged(0));
  index.set(5, 1, 2);
  assertFalse(index.hasTag(5, 0));
});

Deno.test("PageIndex.next() stops at the last page asked for", () => {
  const index = new PageIndex();
  index.set(1000, 1, 1);
  assertEquals(index.next(0, 999, INDEX_PRESENT), -1);
  assertEquals(index.next(0, 1000, INDEX_PRESENT), 1000);
  assertEquals(index.next(1001, 5000, INDEX_PRESENT), -1);
});

Deno.test("PageIndex.evict() leaves shadows, which are no pages", () => {
  const nodes = new ShadowNodes(8);
  const index = new PageIndex(nodes);
  index.set(1024, 4, 9);
  index.setTag(1024, 0);
  index.evict(1024, 4, -7);
  assertEquals([index.get(1024), index.get(1027), index.get(1028)], [
    -7,
    -7,
    0,
  ]);
  assertEquals([index.tagged(0), index.tagged(INDEX_PRESENT)], [false, false]);
  assertEquals(index.next(0, Infinity, INDEX_SHADOW), 1024);
  assertEquals([index.nrShadows, nodes.size], [4, 1]);
  index.set(1026, 1, 5);
  assertEquals([index.nrShadows, nodes.size], [3, 0]);
  index.clear(1026, 1);
  assertEquals([index.get(1026), nodes.size], [0, 1]);
  index.clearShadows(1025, 1026);
  assertEquals([index.get(1024), index.get(1025), index.get(1027)], [
    -7,
    0,
    -7,
  ]);
  index.clearShadows(0, Infinity);
  assertEquals([index.nrShadows, nodes.size], [0, 0]);
  assertFalse(index.tagged(INDEX_SHADOW));
});

Deno.test("ShadowNodes gives up the oldest leaf when there are too many", () => {
  const nodes = new ShadowNodes(2);
  const [a, b] = [new PageIndex(nodes), new PageIndex(nodes)];
  const put = (index: PageIndex, at: number) => {
    index.set(at, 1, 3);
    index.evict(at, 1, -3);
  };
  put(a, 5);
  put(b, 2 ** 30);
  put(a, 700);
  assertEquals([a.get(5), a.get(700), b.get(2 ** 30)], [0, -3, -3]);
  assertEquals([a.nrShadows, b.nrShadows, nodes.size], [1, 1, 2]);
});

interface Entry {
  count: number;
  frame: number;
  tags: Set<number>;
}

/** First model folio with a tag from `start` on. */
function modelNext(model: Map<number, Entry>, start: number, tag: number) {
  let best = -1;
  for (const [at, entry] of model) {
    const fits = tag === INDEX_PRESENT || entry.tags.has(tag);
    if (fits && at >= start && (best < 0 || at < best)) best = at;
  }
  return best;
}

// Goal: lookups, tags and walks are right whatever came before. Method: random
// folios near and far. Oracle: a Map.
Deno.test("PageIndex agrees with a Map under random use", () => {
  for (const seed of [1, 2, 3]) {
    const random = new Prng(seed, "page-index");
    const index = new PageIndex(new ShadowNodes(Infinity));
    const model = new Map<number, Entry>();
    const shadows = new Map<number, number>();
    const forget = (from: number, end: number) => {
      for (let i = from; i < end; i++) shadows.delete(i);
    };
    const place = () => {
      const high = [0, 0, 0, 2 ** 12, 2 ** 20, 2 ** 33, 2 ** 40];
      return high[random.below(high.length)]! + random.below(1500);
    };
    const covering = (at: number) =>
      [...model].find(([head, e]) => at >= head && at < head + e.count);
    for (let round = 0; round < 1500; round++) {
      const order = random.below(4) === 0 ? random.below(10) : 0;
      const count = 2 ** order;
      const at = Math.floor(place() / count) * count;
      const tag = random.below(3);
      const held = covering(at);
      assertEquals(index.get(at), held?.[1].frame ?? shadows.get(at) ?? 0);
      const choice = random.below(10);
      const free = !held && modelNext(model, at, INDEX_PRESENT) === -1 ||
        !held && modelNext(model, at, INDEX_PRESENT) >= at + count;
      if (choice < 4 && free) {
        index.set(at, count, round + 1);
        forget(at, at + count);
        model.set(at, { count, frame: round + 1, tags: new Set() });
      } else if (choice < 7 && held) {
        index.setTag(held[0], tag);
        held[1].tags.add(tag);
      } else if (choice < 8 && held) {
        index.clearTag(held[0], tag);
        held[1].tags.delete(tag);
      } else if (held && choice < 9) {
        index.clear(held[0], held[1].count);
        model.delete(held[0]);
      } else if (held) {
        const [head, { count }] = held;
        index.evict(head, count, -round - 1);
        for (let i = 0; i < count; i++) shadows.set(head + i, -round - 1);
        model.delete(head);
      } else if (choice === 9 && round % 8 === 0) {
        index.clearShadows(at, at + 300);
        forget(at, at + 301);
      }
      assertEquals(index.nrShadows, shadows.size);
      const from = place();
      const column = random.below(4);
      assertEquals(
        index.next(from, Infinity, column),
        modelNext(model, from, column),
      );
      assertEquals(index.tagged(column), modelNext(model, 0, column) >= 0);
      const now = covering(at);
      if (now) {
        assertEquals(index.hasTag(now[0], tag), now[1].tags.has(tag));
      }
    }
    assert(model.size > 0);
  }
});
