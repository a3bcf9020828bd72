import { assert, assertEquals } from "@std/assert";
import { EIO } from "../../lib/errno.ts";
import type { MaybePromise } from "../../lib/maybe-promise.ts";
import { Prng } from "../../lib/prng.ts";
import { type Folio, folioPut, PAGE_SIZE } from "../../mm/folio.ts";
import { VM_FAULT_HWPOISON, VM_FAULT_SIGBUS } from "../../mm/mmap.ts";
import { vmaUnlink, zapRange } from "../../mm/rmap.ts";
import { addSwapExtent, SwapInfo, type SwapIo } from "../../mm/swap.ts";
import { allocFolio } from "../../mm/vmscan.ts";
import { FakeFile, patternAt } from "./fake_file.ts";
import { FakeMapping } from "./mapping.ts";

const P = PAGE_SIZE;

function bytes(len: number, value: number): Uint8Array {
  return new Uint8Array(len).fill(value);
}

/** A device that swaps, which takes its time. */
class SwapDisk implements SwapIo {
  readonly file: FakeFile;
  readonly data = new Map<number, Uint8Array>();
  readonly log: string[] = [];
  latency = 1000;
  fails = false;
  /** Whether the n-th write fails. */
  writeFails: (n: number) => boolean = () => false;
  #writes = 0;
  /** Settled by a test, if not null. */
  held: (() => void)[] | null = null;

  constructor(file: FakeFile) {
    this.file = file;
  }

  read(folio: Folio, block: number): MaybePromise<number> {
    this.log.push(`r ${block}`);
    return this.#after(() =>
      folio.data.set(this.data.get(block)!, folio.offset)
    );
  }

  write(folio: Folio, block: number): MaybePromise<number> {
    this.log.push(`w ${block}`);
    if (this.writeFails(this.#writes++)) return -EIO;
    return this.#after(() =>
      this.data.set(
        block,
        folio.data.slice(folio.offset, folio.offset + P),
      )
    );
  }

  #after(move: () => void): MaybePromise<number> {
    const done = () => {
      if (this.fails) return -EIO;
      move();
      return 0;
    };
    if (this.held !== null) {
      return new Promise((r) => this.held!.push(() => r(done())));
    }
    if (this.latency === 0) return done();
    return this.file.clock.sleep(this.latency).then(done);
  }
}

function setUp(slots = 64, memory?: number) {
  const file = new FakeFile({
    size: 32 * P,
    ...(memory === undefined ? {} : { memory }),
  });
  const disk = new SwapDisk(file);
  const sis = new SwapInfo({}, disk, slots);
  sis.pages = slots - 1;
  addSwapExtent(sis, 0, slots, 1000);
  assert(file.mm.swap.add(sis));
  const map = new FakeMapping(file, 32, { shared: false, around: false });
  return { file, disk, sis, map, swap: file.mm.swap };
}

type Setup = ReturnType<typeof setUp>;

/** Swaps all out that can be. */
async function swapAllOut({ swap }: Setup): Promise<void> {
  await Promise.all([...swap.anon].map((folio) => swap.swapOut(folio)));
}

Deno.test("SwapInfo.blockOf() finds a slot in extents in any order", () => {
  const sis = new SwapInfo({}, { read: () => 0, write: () => 0 }, 30);
  assertEquals([
    addSwapExtent(sis, 0, 10, 100),
    addSwapExtent(sis, 10, 3, 110),
    addSwapExtent(sis, 13, 2, 113),
    addSwapExtent(sis, 15, 5, 50),
    addSwapExtent(sis, 20, 10, 200),
  ], [1, 0, 0, 1, 1]);
  assertEquals(sis.extents.map((e) => e.nrPages), [15, 5, 10]);
  assertEquals(
    [0, 1, 14, 15, 19, 20, 29].map((slot) => sis.blockOf(slot)),
    [100, 101, 114, 50, 54, 200, 209],
  );
});

Deno.test("SwapInfo gives out each slot but the header's, and then none", () => {
  const sis = new SwapInfo({}, { read: () => 0, write: () => 0 }, 5);
  sis.pages = 4;
  assertEquals(sis.alloc(), 0);
  sis.enable();
  assertEquals([1, 2, 3, 4, 5].map(() => sis.alloc()), [1, 2, 3, 4, 0]);
  sis.free(3);
  assertEquals([sis.inuse, sis.alloc(), sis.alloc()], [3, 3, 0]);
  // The search goes on behind the slot that was given out last, and around.
  sis.free(2);
  assertEquals(sis.alloc(), 2);
  sis.free(1);
  sis.free(4);
  assertEquals([4, 1, 0].map(() => sis.alloc()), [4, 1, 0]);
});

Deno.test("SwapSpace.add() takes as many areas as there are numbers for", () => {
  const { swap } = new FakeFile({}).mm;
  const area = () => new SwapInfo({}, { read: () => 0, write: () => 0 }, 2);
  const first = area();
  assertEquals(swap.add(first), true);
  for (let n = 1; n < 29; n++) assertEquals(swap.add(area()), true);
  assertEquals(swap.add(area()), false);
  assertEquals(swap.remove(first), 0);
  assertEquals(swap.add(area()), true);
});

Deno.test("a page goes to its slot and comes back when it is used", async () => {
  const s = setUp();
  await s.map.store(3 * P + 1, bytes(10, 7));
  const before = s.file.mm.nrPages;

  await swapAllOut(s);
  assertEquals(s.disk.log, ["w 1001"]);
  assertEquals(s.file.mm.nrPages, before - 1);
  assertEquals([s.sis.inuse, s.map.shown()], [1, []]);

  const seen = await s.map.load(3 * P, 12);
  assertEquals(
    seen,
    Uint8Array.of(patternAt(3 * P), ...bytes(10, 7), patternAt(3 * P + 11)),
  );
  assertEquals(s.disk.log, ["w 1001", "r 1001"]);
  assertEquals(s.sis.inuse, 0);
  vmaUnlink(s.map.vma);
});

Deno.test("an access to a page on its way out waits, and it stays in memory", async () => {
  const s = setUp();
  await s.map.store(0, bytes(P, 7));

  const out = swapAllOut(s);
  assertEquals(s.map.shown(), []);
  await s.map.store(0, bytes(1, 8));
  await out;

  assertEquals(s.disk.log, ["w 1001"]);
  assertEquals([s.sis.inuse, s.map.shown(), s.swap.anon.size], [0, [0], 1]);
  assertEquals(await s.map.load(0, 2), Uint8Array.of(8, 7));
  vmaUnlink(s.map.vma);
  assertEquals(s.file.mm.nrPages, s.file.mapping.nrPages);
});

Deno.test("two accesses bring a page back once", async () => {
  const s = setUp();
  await s.map.store(0, bytes(P, 7));
  await swapAllOut(s);

  const [a, b] = await Promise.all([s.map.load(0, 1), s.map.load(5, 1)]);

  assertEquals([a, b], [bytes(1, 7), bytes(1, 7)]);
  assertEquals(s.disk.log, ["w 1001", "r 1001"]);
  assertEquals(s.file.mm.nrPages, s.file.mapping.nrPages + 1);
  vmaUnlink(s.map.vma);
});

for (const quick of [false, true]) {
  const when = quick ? "has been brought" : "is being brought";
  Deno.test(`an access that waited for memory leaves alone what ${when} back`, async () => {
    const s = setUp(64, 20 * P);
    for (let i = 0; i < 24; i++) await s.map.store(i * P, bytes(P, i + 1));
    const out = [...Array(24).keys()].find((i) => s.map.vma.table.get(i) < 0)!;
    const others: Folio[] = [];
    for (let f = allocFolio(s.file.mm, 0); f !== null;) {
      others.push(f);
      f = allocFolio(s.file.mm, 0);
    }
    s.disk.held = [];

    // One has all pages written to make room, the other gets the first of them.
    const loads = [s.map.load(out * P, 1), s.map.load(out * P, 1)];
    const [first, ...writes] = s.disk.held.splice(0);
    first!();
    await s.file.clock.sleep(1);
    const [read] = s.disk.held.splice(0);
    s.disk.held = null;
    if (quick) {
      read!();
      await s.file.clock.sleep(1);
    }
    for (const write of writes) write();
    await s.file.clock.sleep(1);
    if (!quick) read!();

    for (const seen of await Promise.all(loads)) {
      assertEquals(seen, bytes(1, out + 1));
    }
    assertEquals(s.disk.log.filter((l) => l[0] === "r").length, 1);
    vmaUnlink(s.map.vma);
    others.forEach(folioPut);
    assertEquals([s.sis.inuse, s.swap.anon.size], [0, 0]);
    assertEquals(s.file.mm.nrPages, s.file.mapping.nrPages);
  });
}

Deno.test("a slot is free at once when its page is unmapped, or once its I/O has ended", async () => {
  const s = setUp();
  await s.map.store(0, bytes(2 * P, 7));
  await swapAllOut(s);
  zapRange(s.map.vma, 0, 0, true);
  assertEquals(s.sis.inuse, 1);

  s.disk.held = [];
  const back = s.map.load(P, 1);
  assertEquals(s.disk.held.length, 1);
  vmaUnlink(s.map.vma);
  assertEquals(s.sis.inuse, 1);
  s.disk.held.shift()!();
  await back;
  assertEquals(s.sis.inuse, 0);
  assertEquals(s.file.mm.nrPages, s.file.mapping.nrPages);
});

Deno.test("a page that is unmapped on its way out leaves nothing", async () => {
  const s = setUp();
  await s.map.store(0, bytes(P, 7));
  s.disk.held = [];
  const out = swapAllOut(s);
  vmaUnlink(s.map.vma);
  assertEquals(s.sis.inuse, 1);

  s.disk.held.shift()!();
  await out;

  assertEquals(s.sis.inuse, 0);
  assertEquals(s.file.mm.nrPages, s.file.mapping.nrPages);
});

Deno.test("a page that cannot be written stays in memory", async () => {
  const s = setUp();
  await s.map.store(0, bytes(P, 7));
  s.disk.fails = true;

  await swapAllOut(s);

  assertEquals([s.sis.inuse, s.map.shown()], [0, [0]]);
  assertEquals(await s.map.load(0, P), bytes(P, 7));
  vmaUnlink(s.map.vma);
});

Deno.test("a page that cannot be read back is SIGBUS, and tried again", async () => {
  const s = setUp();
  await s.map.store(0, bytes(P, 7));
  await swapAllOut(s);
  s.disk.fails = true;

  assertEquals((await s.map.load(0, 1)).length, 0);
  assertEquals(s.map.codes.at(-1), VM_FAULT_SIGBUS);
  s.disk.fails = false;
  assertEquals(await s.map.load(0, P), bytes(P, 7));
  vmaUnlink(s.map.vma);
});

Deno.test("no page goes out where there is no slot", async () => {
  const s = setUp(3);
  await s.map.store(0, bytes(4 * P, 7));
  await swapAllOut(s);
  assertEquals([s.sis.inuse, s.map.shown()], [2, [2, 3]]);
  assertEquals(s.swap.hasRoom, false);
  assertEquals(await s.map.load(0, 4 * P), bytes(4 * P, 7));
  vmaUnlink(s.map.vma);
});

Deno.test("SwapSpace.remove() reads back what is there, on its way out or not", async () => {
  const s = setUp();
  await s.map.store(0, bytes(4 * P, 7));
  await swapAllOut(s);
  await s.map.store(0, bytes(P, 8));
  const [folio] = s.swap.anon;
  const out = s.swap.swapOut(folio!);

  assertEquals(await s.swap.remove(s.sis), 0);

  await out;
  assertEquals([s.sis.inuse, s.map.shown()], [0, [0, 1, 2, 3]]);
  assertEquals(s.swap.hasRoom, false);
  assertEquals(await s.map.load(P - 1, 2), Uint8Array.of(8, 7));
  assertEquals(await s.swap.swapOut(s.swap.anon.values().next().value!), false);
  vmaUnlink(s.map.vma);
});

Deno.test("SwapSpace.remove() gives out no slot of what is being emptied", async () => {
  const s = setUp();
  await s.map.store(0, bytes(2 * P, 7));
  const [first, second] = s.swap.anon;
  await s.swap.swapOut(first!);
  s.disk.held = [];

  const removed = s.swap.remove(s.sis);
  assertEquals([s.disk.held.length, await s.swap.swapOut(second!)], [1, false]);
  s.disk.held.shift()!();

  assertEquals(await removed, 0);
  assertEquals([s.sis.inuse, s.map.shown()], [0, [0, 1]]);
  vmaUnlink(s.map.vma);
});

Deno.test("SwapSpace.remove() loses only the pages that cannot be read", async () => {
  const s = setUp();
  await s.map.store(0, bytes(2 * P, 7));
  await swapAllOut(s);
  await s.map.store(0, bytes(P, 8));
  s.disk.fails = true;

  assertEquals(await s.swap.remove(s.sis), 0);

  assertEquals(s.sis.inuse, 0);
  assertEquals(await s.map.load(0, P), bytes(P, 8));
  assertEquals((await s.map.load(P, 1)).length, 0);
  assertEquals(s.map.codes.at(-1), VM_FAULT_HWPOISON);
  vmaUnlink(s.map.vma);
});

Deno.test("two areas are used one after the other", async () => {
  const s = setUp(3);
  const disk = new SwapDisk(s.file);
  const second = new SwapInfo({}, disk, 10);
  second.pages = 9;
  addSwapExtent(second, 0, 10, 0);
  s.swap.add(second);
  await s.map.store(0, bytes(4 * P, 7));

  await swapAllOut(s);

  assertEquals([s.sis.inuse, second.inuse], [2, 2]);
  assertEquals(await s.swap.remove(s.sis), 0);
  assertEquals([s.sis.inuse, second.inuse], [0, 2]);
  assertEquals(await s.map.load(0, 4 * P), bytes(4 * P, 7));
  assertEquals(disk.log, ["w 1", "w 2", "r 1", "r 2"]);
  vmaUnlink(s.map.vma);
});

Deno.test("SwapSpace.shrink() takes the page that has not been used for longest", async () => {
  const s = setUp();
  await s.map.store(0, bytes(3 * P, 7));
  assertEquals(await s.swap.shrink(1), 1);
  assertEquals(s.map.shown(), [1, 2]);
  await s.map.load(P, 1);
  assertEquals(await s.swap.shrink(1), 1);
  assertEquals(s.map.shown(), [1]);
  vmaUnlink(s.map.vma);
});

Deno.test("private pages go to swap space where memory is short", async () => {
  const s = setUp(1000, 64 * P);
  const big = new FakeFile({ size: 256 * P, mm: s.file.mm });
  const map = new FakeMapping(big, 256, { shared: false });
  for (let i = 0; i < 256; i++) {
    assertEquals(await map.store(i * P, bytes(P, i + 1)), P, `page ${i}`);
  }
  assert(s.sis.inuse >= 150, `${s.sis.inuse} pages are swapped out`);
  assert(s.file.mm.nrPages <= 71);
  for (let i = 255; i >= 0; i--) {
    assertEquals(await map.load(i * P, P), bytes(P, i + 1));
  }
  vmaUnlink(map.vma);
  vmaUnlink(s.map.vma);
  assertEquals(s.sis.inuse, 0);
});

/*
 * Goal: what is stored to private pages is what is loaded, wherever they are.
 * Method: tasks that store, load, swap out and forget pages at the same time, over a
 *   device that takes its time, and on which some writes fail.
 * Oracle: an array; each task has pages of its own.
 */
Deno.test("swapping agrees with a model", async () => {
  for (let seed = 0; seed < 20; seed++) {
    const s = setUp(40, (16 + seed) * P);
    s.disk.latency = 100;
    s.disk.writeFails = (n) => n % 7 === seed % 7;
    const rng = new Prng(seed, "swap");
    const task = async (first: number) => {
      const want = new Map<number, number>();
      for (let n = 0; n < 40; n++) {
        const index = first + rng.below(8);
        switch (rng.below(4)) {
          case 0: {
            const value = rng.below(256);
            await s.map.store(index * P, bytes(P, value));
            want.set(index, value);
            break;
          }
          case 1:
          case 2: {
            const seen = await s.map.load(index * P + 5, 1);
            const value = want.get(index) ?? patternAt(index * P + 5);
            assertEquals(seen[0], value, `seed ${seed}`);
            break;
          }
          case 3:
            zapRange(s.map.vma, index, index, true);
            want.delete(index);
            break;
        }
      }
    };
    const swapper = async () => {
      for (let n = 0; n < 40; n++) {
        await s.swap.shrink(1 + rng.below(4));
        await s.file.clock.sleep(rng.below(200));
      }
    };
    await Promise.all([task(0), task(8), task(16), task(24), swapper()]);
    assertEquals(await s.swap.remove(s.sis), 0);
    vmaUnlink(s.map.vma);
    assertEquals([s.sis.inuse, s.swap.anon.size], [0, 0], `seed ${seed}`);
    assertEquals(s.file.mm.nrPages, s.file.mapping.nrPages, `seed ${seed}`);
  }
});
