/**
 * Random schedules of many calls on one file: what `deno task stress:iomap` runs in
 * any number.
 */
import { assert, assertEquals } from "@std/assert";
import { planOf, runPlan, runSeed } from "./schedules.ts";
import { ContentModel, type Effect, SizeModel } from "./schedules_model.ts";

const SEEDS = 1000;

Deno.test("1,000 random schedules of calls on one file agree with the model", async () => {
  for (let seed = 1; seed <= SEEDS; seed++) await runSeed(seed);
});

Deno.test("runPlan() goes the same way each time", async () => {
  for (let seed = 1; seed <= 30; seed++) {
    const plan = planOf(seed);
    assertEquals(await runPlan(plan), await runPlan(plan), `seed ${seed}`);
  }
});

function effect(start: number, end: number, byte: number, sure = true): Effect {
  const data = new Uint8Array(4).fill(byte);
  return { start, end, from: 0, to: 4, data, sure };
}

function look(start: number, end: number, byte: number) {
  return {
    what: "read",
    start,
    end,
    at: 0,
    data: new Uint8Array(4).fill(byte),
  };
}

Deno.test("ContentModel takes the old and the new while a write goes on", () => {
  const model = new ContentModel(4);
  model.effects.push(effect(1, 2, 7), effect(5, 9, 8));

  assertEquals(model.check(look(6, 7, 7)), null);
  assertEquals(model.check(look(6, 7, 8)), null);
  assert(model.check(look(6, 7, 0)) !== null);
});

Deno.test("ContentModel takes nothing old once a write has ended", () => {
  const model = new ContentModel(4);
  model.effects.push(effect(1, 2, 7), effect(5, 9, 8));

  assertEquals(model.check(look(10, 11, 8)), null);
  assert(model.check(look(10, 11, 7)) !== null);
});

Deno.test("ContentModel takes the old after a write that may not have happened", () => {
  const model = new ContentModel(4);
  model.effects.push(effect(1, 2, 7), effect(5, 9, 8, false));

  assertEquals(model.check(look(10, 11, 8)), null);
  assertEquals(model.check(look(10, 11, 7)), null);
});

Deno.test("SizeModel has all orders of two calls at once, and forgets the others", () => {
  const model = new SizeModel();
  const cut = model.begin(() => [100]);
  const append = model.begin((size) => [size + 10]);
  assertEquals(model.sizes.toSorted((a, b) => a - b), [0, 10, 100, 110]);

  model.end(cut, true);
  model.end(append, true);
  assertEquals(model.sizes.toSorted((a, b) => a - b), [100, 110]);
});
