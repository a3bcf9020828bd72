/**
 * Random schedules of many calls on one file: what `deno task stress:iomap` runs in
 * any number.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { VirtualClock } from "../../lib/clock.ts";
import { Prng } from "../../lib/prng.ts";
import { FsError, mount, xfs } from "../../mod.ts";
import { planOf, runPlan, runSeed } from "./schedules.ts";
import { ContentModel, type Effect, SizeModel } from "./schedules_model.ts";
import { ChanceDisk, freshDisk } from "./schedules_stack.ts";

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

/** A file that ends within a page, a store behind its end while a direct write makes it
 * longer, and a store to the same page afterwards: 2,000 bytes from 13,000 on.
 * @returns Those bytes, once the page has left the cache. */
async function storesAroundDirectWrite(blockSize: number): Promise<Uint8Array> {
  const memory = await freshDisk(blockSize);
  const disk = new ChanceDisk(new VirtualClock(), memory, new Prng(1, "disk"));
  await using fs = await mount(disk, xfs);
  const options = { read: true, write: true, create: true };
  await using file = await fs.open("/f", options);
  await using direct = await fs.open("/f", { ...options, direct: true });
  await file.write(new Uint8Array(16_384).fill(1), { at: 0 });
  await file.truncate(12_807);
  await file.sync();
  const map = file.mmapSync({ length: 20_480, write: true });
  await map.load(12_288, new Uint8Array(1));

  const written = direct.write(new Uint8Array(4096).fill(3), { at: 16_384 });
  map.storeSync(15_066, new Uint8Array(10).fill(5));
  assertEquals(file.statSync().size, 12_807);
  assertEquals(await written, 4096);
  assertEquals(file.statSync().size, 20_480);
  map.storeSync(13_000, new Uint8Array(2000).fill(7));
  map.unmap();
  await file.sync();
  await file.advise("dontneed", 0, 0);
  const data = new Uint8Array(2000);
  await file.read(data, { at: 13_000 });
  return data;
}

// As Linux 6.18 answers: the page is stored to without a fault, so it gets no blocks
// behind the one of the old end.
Deno.test("a direct write that makes a file longer loses stores behind the block of its old end", async () => {
  const data = await storesAroundDirectWrite(1024);

  assertEquals(data.lastIndexOf(7) + 1, 13_312 - 13_000);
  assertEquals(data.indexOf(0), 13_312 - 13_000);
});

Deno.test("a direct write that makes a file longer loses no stores where a block is a page", async () => {
  const data = await storesAroundDirectWrite(4096);

  assert(data.every((byte) => byte === 7));
});

// As Linux 6.18 answers, too.
Deno.test("a direct read that goes on beyond the end of the file meets what a cached write was promised", async () => {
  const memory = await freshDisk(4096);
  const disk = new ChanceDisk(new VirtualClock(), memory, new Prng(1, "disk"));
  await using fs = await mount(disk, xfs, { options: "allocsize=64k" });
  const options = { read: true, write: true, create: true };
  await using file = await fs.open("/f", options);
  await using direct = await fs.open("/f", { ...options, direct: true });
  await file.truncate(101_614);
  await file.write(new Uint8Array(552).fill(7), { at: 101_614 });
  await direct.write(new Uint8Array(4096).fill(9), { at: 102_400 });

  assertEquals(await direct.read(new Uint8Array(8192), { at: 98_304 }), 8192);
  await assertRejects(
    () => direct.read(new Uint8Array(12_288), { at: 98_304 }),
    FsError,
    "EIO",
  );
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
