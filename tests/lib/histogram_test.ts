import { assert, assertEquals } from "@std/assert";
import { Histogram } from "../../lib/histogram.ts";
import { Prng } from "../../lib/prng.ts";

Deno.test("Histogram.percentile() is true to 1 part in 32, for values of any size", () => {
  const random = new Prng(5);
  const histogram = new Histogram();
  const values: number[] = [];
  for (let i = 0; i < 5000; i++) {
    values.push(Math.floor(2 ** (random.float() * 53)));
    histogram.record(values.at(-1)!);
  }
  values.sort((a, b) => a - b);
  for (const share of [0, 0.01, 0.5, 0.9, 0.99, 0.999, 1]) {
    const exact = values[Math.max(0, Math.ceil(share * 5000) - 1)]!;
    const got = histogram.percentile(share);
    assert(got >= exact && got <= exact * (1 + 1 / 32), `${exact} ${got}`);
  }
  assertEquals(histogram.percentile(1), histogram.max);
  assertEquals(histogram.max, values.at(-1));
});

Deno.test("Histogram counts small values exactly, and the largest there can be", () => {
  const histogram = new Histogram();
  assertEquals([histogram.count, histogram.mean, histogram.max], [0, 0, 0]);
  assertEquals(histogram.percentile(0.5), 0);
  for (const value of [0, 1, 1, 31, 32, 33, -5, 2.9]) histogram.record(value);
  histogram.record(Number.MAX_SAFE_INTEGER);
  assertEquals([...histogram.buckets()], [
    { from: 0, count: 2 },
    { from: 1, count: 2 },
    { from: 2, count: 1 },
    { from: 31, count: 1 },
    { from: 32, count: 1 },
    { from: 33, count: 1 },
    { from: 63 * 2 ** 47, count: 1 },
  ]);
  histogram.clear();
  assertEquals([...histogram.buckets()], []);
});
