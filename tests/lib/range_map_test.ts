import { assertEquals } from "@std/assert";
import { Prng } from "../../lib/prng.ts";
import { RangeMap } from "../../lib/range-map.ts";

/** Values of an array as the ranges of a map have to be. */
function check(map: RangeMap<number>, model: Int32Array): void {
  const got = new Int32Array(model.length);
  let last = 0;
  let count = 0;
  for (const [start, end, value] of map) {
    assertEquals(start >= last && end > start, true, `${last} ${start} ${end}`);
    got.fill(value, start, end);
    last = end;
    count++;
  }
  assertEquals(got, model);
  assertEquals(map.size, count);
}

Deno.test("RangeMap keeps what was set last, whatever overlaps", () => {
  // Random sets and clears of short and long ranges, enough of them for many
  // leaves; the oracle is an array with a value for each number.
  const random = new Prng(1, "ranges");
  const size = 6000;
  const map = new RangeMap<number>();
  const model = new Int32Array(size);
  for (let round = 1; round <= 20_000; round++) {
    const at = random.below(size);
    const len = 1 +
      random.below(
        random.below(300) === 0 ? size - at : Math.min(size - at, 6),
      );
    if (random.below(4) > 0) {
      map.set(at, at + len, round);
      model.fill(round, at, at + len);
    } else {
      map.clear(at, at + len);
      model.fill(0, at, at + len);
    }
    if (round % 500 === 0) check(map, model);
    const probe = random.below(size);
    let next = probe;
    while (next < size && model[next] === 0) next++;
    const found = map.seek(probe);
    assertEquals(found, next < size, `${round}: ${probe} ${next}`);
    if (found) {
      assertEquals(map.value, model[next]);
      assertEquals(Math.max(map.start, probe), next);
    }
  }
});

Deno.test("RangeMap.clone() goes its own way, and clearAll() empties", () => {
  const map = new RangeMap<string>();
  map.set(0, 2 ** 50, "a");
  const copy = map.clone();
  copy.set(10, 20, "b");
  assertEquals([...map], [[0, 2 ** 50, "a"]]);
  assertEquals([...copy], [[0, 10, "a"], [10, 20, "b"], [20, 2 ** 50, "a"]]);
  copy.clearAll();
  assertEquals([copy.size, copy.seek(0), [...copy]], [0, false, []]);
  assertEquals(map.touches(2 ** 50 - 1, 2 ** 51), true);
  assertEquals(map.touches(2 ** 50, 2 ** 51), false);
});
