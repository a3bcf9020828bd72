import { assert, assertEquals } from "@std/assert";
import { Prng } from "../../lib/prng.ts";
import { filemapLookup, filemapWriteAndWaitRange } from "../../mm/filemap.ts";
import {
  folioLock,
  folioUnlock,
  PAGE_SIZE,
  PG_DROPBEHIND,
  PG_REFERENCED,
} from "../../mm/folio.ts";
import {
  handleMmFault,
  VM_FAULT_MAJOR,
  VM_FAULT_NOPAGE,
  VM_FAULT_SIGBUS,
  vmaLoad,
  vmaStore,
  VmFault,
  vmfError,
  vmfFsError,
} from "../../mm/mmap.ts";
import { filemapRemoveFolio } from "../../mm/page-cache.ts";
import { VM_RAND_READ, VM_SEQ_READ, vmaUnlink } from "../../mm/rmap.ts";
import {
  invalidateInodePages2Range,
  invalidateMappingPages,
  pagecacheIsizeExtended,
  truncatePagecacheRange,
  truncateSetsize,
} from "../../mm/truncate.ts";
import { shrinkFolios } from "../../mm/vmscan.ts";
import { FakeFile, pattern, patternAt } from "./fake_file.ts";
import { FakeMapping } from "./mapping.ts";

const P = PAGE_SIZE;

function bytes(len: number, value: number): Uint8Array {
  return new Uint8Array(len).fill(value);
}

async function sync(file: FakeFile): Promise<void> {
  await filemapWriteAndWaitRange(file.mapping, 0, Infinity);
}

Deno.test("a load faults pages in and reads around them", async () => {
  const file = new FakeFile({ size: 64 * P });
  const map = new FakeMapping(file, 64);

  assertEquals(await map.load(40 * P + 5, 2 * P), pattern(40 * P + 5, 2 * P));
  assertEquals(file.log, ["a 24+32"]);
  assertEquals(map.codes, [VM_FAULT_MAJOR, VM_FAULT_NOPAGE]);
});

Deno.test("a load of what is shown is no fault", async () => {
  const file = new FakeFile({ size: 4 * P });
  const map = new FakeMapping(file, 4);
  await map.load(0, 4 * P);
  map.codes.length = 0;

  assertEquals(await map.load(0, 4 * P), pattern(0, 4 * P));
  assertEquals(map.codes, []);
});

Deno.test("filemapMapPages() shows what is valid in the 16 pages around", async () => {
  const file = new FakeFile({ size: 64 * P });
  await file.open().read(0, 20 * P);
  const map = new FakeMapping(file, 64);
  filemapLookup(file.mapping, 3)!.flags &= ~2;

  await map.load(5 * P, 1);

  assertEquals(
    map.shown(),
    [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
  );
});

Deno.test("a fault is SIGBUS from the first page beyond the end of the file", async () => {
  const file = new FakeFile({ size: P + 10 });
  const map = new FakeMapping(file, 4);

  assertEquals((await map.load(0, 3 * P)).length, 2 * P);
  assertEquals(map.codes.at(-1), VM_FAULT_SIGBUS);
  assertEquals(await map.store(P, bytes(2 * P, 1)), P);
  assertEquals(map.codes.at(-1), VM_FAULT_SIGBUS);
  // Nothing has been read for it.
  assertEquals(file.folios(), [[0, 1], [1, 1]]);
});

Deno.test("a fault is SIGBUS where the page cannot be read, and tried again", async () => {
  const file = new FakeFile({ size: 4 * P });
  const map = new FakeMapping(file, 4);
  let broken = true;
  file.readError = (index) => broken && index === 2;

  assertEquals((await map.load(0, 4 * P)).length, 2 * P);
  broken = false;
  assertEquals(await map.load(0, 4 * P), pattern(0, 4 * P));
});

Deno.test("a store is noticed once until the page has been written back", async () => {
  const file = new FakeFile({ size: 2 * P });
  const map = new FakeMapping(file, 2);

  await map.store(10, bytes(5, 7));
  await map.store(20, bytes(5, 8));
  assertEquals(map.mkwrites, [0]);
  await sync(file);
  assertEquals(map.writable(), []);
  assertEquals(
    file.disk.slice(8, 26),
    Uint8Array.of(
      ...[8, 9].map(patternAt),
      ...[7, 7, 7, 7, 7],
      ...[15, 16, 17, 18, 19].map(patternAt),
      ...[8, 8, 8, 8, 8],
      patternAt(25),
    ),
  );
  await map.store(20, bytes(5, 9));
  assertEquals(map.mkwrites, [0, 0]);
  assertEquals(filemapLookup(file.mapping, 0)!.dirty, true);
});

Deno.test("writeback takes the permission to store from all mappings", async () => {
  const file = new FakeFile({ size: 4 * P });
  const maps = [1, 2, 3].map(() => new FakeMapping(file, 4));
  for (const map of maps) await map.store(P, bytes(P, 1));

  await sync(file);

  assertEquals(maps.map((m) => m.writable()), [[], [], []]);
  assertEquals(maps.map((m) => m.shown().includes(1)), [true, true, true]);
});

Deno.test("shared mappings and reads see the same memory", async () => {
  const file = new FakeFile({ size: 4 * P });
  const a = new FakeMapping(file, 4);
  const b = new FakeMapping(file, 3, { first: 1 });
  const reader = file.open();

  await a.store(P + 1, bytes(P, 5));

  assertEquals(await b.load(P + 1, P), bytes(P, 5));
  await reader.read(P + 1, P);
  assertEquals(reader.buffer.slice(0, P), bytes(P, 5));
});

Deno.test("a private mapping shows the file until it is stored to", async () => {
  const file = new FakeFile({ size: 2 * P });
  const own = new FakeMapping(file, 2, { shared: false });
  const shared = new FakeMapping(file, 2);
  assertEquals(await own.load(0, 2 * P), pattern(0, 2 * P));

  await shared.store(0, bytes(2 * P, 1));
  assertEquals(await own.load(0, 2 * P), bytes(2 * P, 1));
  await own.store(5, bytes(5, 2));
  await shared.store(0, bytes(2 * P, 3));

  assertEquals(own.mkwrites, []);
  const seen = await own.load(0, 2 * P);
  assertEquals(
    seen.slice(0, 12),
    Uint8Array.of(1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 1, 1),
  );
  assertEquals(seen.slice(P), bytes(P, 3));
  assertEquals(await shared.load(0, P), bytes(P, 3));
  // The copy is shown once, the page of the file no more.
  assertEquals([...file.mm.swap.anon].map((f) => [f.mapcount, f.refcount]), [
    [1, 1],
  ]);
  assertEquals(filemapLookup(file.mapping, 0)!.mapcount, 1);
});

Deno.test("a fault keeps a page that was to be dropped after use", async () => {
  const file = new FakeFile({ size: P });
  await file.open().read(0, P);
  const folio = filemapLookup(file.mapping, 0)!;
  folio.flags |= PG_DROPBEHIND;
  const map = new FakeMapping(file, 1, { around: false });

  await map.load(0, 1);

  assertEquals(folio.flags & PG_DROPBEHIND, 0);
});

Deno.test("what a fault has found stays in memory until the access has looked", async () => {
  const file = new FakeFile({ size: 2 * P });
  const map = new FakeMapping(file, 2);
  const own = new FakeMapping(file, 2, { shared: false });
  for (const vma of [map.vma, own.vma]) {
    for (const write of [true, false]) {
      const vmf = new VmFault(vma, write ? 0 : 1, write);
      await handleMmFault(vmf);
      const pte = vma.table.get(vmf.index);
      assert(vmf.folio === file.mm.folios[pte >> 1]);
      assertEquals(vmf.folio!.refcount, 2);
      await sync(file);
      shrinkFolios(file.mm, 2);
      assertEquals(vma.table.get(vmf.index) >> 1, pte >> 1);
      vmf.release();
      vmf.release();
      assertEquals(file.mm.folios[pte >> 1]!.refcount, 1);
      if (vma === map.vma) {
        for (let n = 0; n < 3; n++) shrinkFolios(file.mm, 2);
        assertEquals(vma.table.get(vmf.index), 0);
      }
    }
  }
});

Deno.test("a private mapping's first access may be a store", async () => {
  const file = new FakeFile({ size: P });
  const own = new FakeMapping(file, 1, { shared: false });

  await own.store(1, bytes(1, 9));

  assertEquals((await own.load(0, 3)).slice(1), Uint8Array.of(9, patternAt(2)));
  assertEquals(filemapLookup(file.mapping, 0)!.dirty, false);
});

Deno.test("unmapping frees the copies of a private mapping", async () => {
  const file = new FakeFile({ size: 8 * P });
  const own = new FakeMapping(file, 8, { shared: false });
  await own.store(0, bytes(8 * P, 1));
  assertEquals(file.mm.nrPages, 16);

  vmaUnlink(own.vma);
  assertEquals([file.mm.swap.areas.size, file.mm.swap.anon.size], [0, 0]);

  assertEquals(file.mm.nrPages, 8);
  assertEquals(file.mapping.mmaps, null);
  assertEquals(filemapLookup(file.mapping, 0)!.mapcount, 0);
  assertEquals(own.shown(), []);
});

Deno.test("truncateSetsize() takes pages beyond from all mappings, copies too", async () => {
  const file = new FakeFile({ size: 4 * P });
  const shared = new FakeMapping(file, 4);
  const own = new FakeMapping(file, 4, { shared: false });
  await shared.store(0, bytes(4 * P, 1));
  await own.store(0, bytes(4 * P, 2));

  await truncateSetsize(file.mapping, P + 100);

  assertEquals([shared.shown(), own.shown()], [[0, 1], [0, 1]]);
  assertEquals((await shared.load(P, 2 * P)).length, P);
  assertEquals(await shared.load(P + 98, 4), Uint8Array.of(1, 1, 0, 0));
  assertEquals((await own.load(P, 2 * P)).length, P);
  assertEquals(await own.load(P, P), bytes(P, 2));
});

Deno.test("truncatePagecacheRange() leaves the copies of private mappings", async () => {
  const file = new FakeFile({ size: 4 * P });
  const shared = new FakeMapping(file, 4);
  const own = new FakeMapping(file, 4, { shared: false });
  await shared.load(0, 4 * P);
  await own.store(P, bytes(P, 2));

  await truncatePagecacheRange(file.mapping, P, 3 * P - 1);

  assertEquals(shared.shown(), [0, 3]);
  assertEquals(own.shown().includes(1), true);
  assertEquals(await own.load(P, P), bytes(P, 2));
});

Deno.test("invalidateInodePages2Range() unmaps what it drops", async () => {
  const file = new FakeFile({ size: 4 * P });
  const map = new FakeMapping(file, 4);
  await map.load(0, 4 * P);

  assertEquals(
    await invalidateInodePages2Range(file.mapping, P, 2 * P - 1),
    0,
  );

  assertEquals(map.shown(), [0, 2, 3]);
  file.disk.fill(9, P, 2 * P);
  assertEquals(await map.load(P, P), bytes(P, 9));
});

Deno.test("invalidateMappingPages() leaves what a mapping shows", async () => {
  const file = new FakeFile({ size: 4 * P });
  const map = new FakeMapping(file, 4, { around: false });
  await file.open().read(0, 4 * P);
  await map.load(P, 1);

  assertEquals(invalidateMappingPages(file.mapping, 0, 3), 3);
  assertEquals(file.folios(), [[1, 1]]);
});

Deno.test("reclaim takes clean pages out of page tables, dirty ones not", async () => {
  const file = new FakeFile({ size: 4 * P });
  const map = new FakeMapping(file, 4);
  await map.load(0, 4 * P);
  await map.store(2 * P, bytes(1, 1));

  for (let round = 0; round < 4; round++) shrinkFolios(file.mm, 64);

  assertEquals(map.shown(), [2]);
  assertEquals((await map.load(0, 4 * P)).length, 4 * P);
});

Deno.test("a large folio is shown as a whole, but not beyond file or mapping", async () => {
  const file = new FakeFile({ size: 16 * P, maxOrder: 4 });
  await file.fill(0, 16, 3);
  assertEquals(file.folios(), [[0, 16]]);
  const whole = new FakeMapping(file, 16, { around: false });
  const part = new FakeMapping(file, 8, { around: false });
  await whole.store(5 * P, bytes(1, 1));
  await part.load(5 * P, 1);
  assertEquals(whole.writable().length, 16);
  assertEquals(whole.mkwrites, [5]);
  assertEquals(part.shown(), [5]);

  const cut = new FakeMapping(file, 16, { around: false });
  file.size = 15 * P;
  await cut.load(5 * P, 1);
  assertEquals(cut.shown(), [5]);

  const around = new FakeMapping(file, 16);
  file.size = 7 * P + 1;
  await around.load(5 * P, 1);
  assertEquals(around.shown(), [0, 1, 2, 3, 4, 5, 6, 7]);
});

Deno.test("one access goes through large folios and on behind them", async () => {
  const file = new FakeFile({ size: 12 * P, maxOrder: 2 });
  // Folios that do not lie in memory in the order of the file.
  for (const first of [8, 0, 4]) await file.fill(first, 4, 1 + first);
  const map = new FakeMapping(file, 12);
  await map.load(0, 12 * P);
  const want = Uint8Array.from(
    { length: 12 * P },
    (_, at) => 1 + 4 * Math.floor(at / (4 * P)),
  );
  const p = new Uint8Array(10 * P);

  assertEquals(vmaLoad(map.vma, P + 5, p, 0), 10 * P);
  assertEquals(p, want.subarray(P + 5, 11 * P + 5));
  await map.store(0, bytes(12 * P, 1));
  assertEquals(vmaStore(map.vma, P + 5, p, 0), 10 * P);
  want.fill(1, 0, P + 5);
  want.fill(1, 11 * P + 5);
  assertEquals(await map.load(0, 12 * P), want);
});

Deno.test("vmaLoad() and vmaStore() are uses of the folio", async () => {
  const file = new FakeFile({ size: P });
  const map = new FakeMapping(file, 1);
  await map.store(0, bytes(1, 1));
  const folio = filemapLookup(file.mapping, 0)!;
  for (const access of [vmaLoad, vmaStore]) {
    folio.flags &= ~PG_REFERENCED;
    access(map.vma, 0, bytes(20, 1), 0);
    assertEquals(folio.flags & PG_REFERENCED, PG_REFERENCED);
  }
});

Deno.test("a folio that is split is shown again as its parts", async () => {
  const file = new FakeFile({ size: 8 * P, maxOrder: 3 });
  await file.fill(0, 8, 3);
  await sync(file);
  const map = new FakeMapping(file, 8);
  await map.load(0, 8 * P);

  await truncatePagecacheRange(file.mapping, 3 * P + 10, 3 * P + 19);

  assert(file.folios().length > 1);
  const seen = await map.load(0, 8 * P);
  const want = bytes(8 * P, 3);
  want.fill(0, 3 * P + 10, 3 * P + 20);
  assertEquals(seen, want);
  // Each part knows that it is shown.
  assertEquals(invalidateMappingPages(file.mapping, 0, 7), 0);
});

Deno.test("pagecacheIsizeExtended() has the next store noticed", async () => {
  const file = new FakeFile({ size: 1500, blkbits: 10 });
  const map = new FakeMapping(file, 1);
  await map.store(0, bytes(P, 5));

  pagecacheIsizeExtended(file.mapping, 1500, 3000);
  file.size = 3000;

  assertEquals(map.writable(), []);
  const seen = await map.load(0, P);
  assertEquals(seen.slice(1500, 3000), bytes(1500, 0));
  assertEquals(seen.slice(3000), bytes(P - 3000, 5));
  await map.store(0, bytes(1, 1));
  assertEquals(map.mkwrites, [0, 0]);
});

Deno.test("a mapping that misses too often is not read around", async () => {
  const file = new FakeFile({ size: 40_000 * P });
  const map = new FakeMapping(file, 40_000, { around: false });
  for (let n = 0; n < 101; n++) await map.load((n * 97 + 50) * P, 1);
  assertEquals(file.log.filter((line) => line[0] === "a").length, 100);
  assertEquals(file.log.at(-1), `r ${100 * 97 + 50}`);
});

Deno.test("VM_RAND_READ reads one page, VM_SEQ_READ ahead", async () => {
  const file = new FakeFile({ size: 256 * P });
  const map = new FakeMapping(file, 256);
  map.vma.flags |= VM_RAND_READ;
  await map.load(100 * P, 1);
  assertEquals(file.log, ["r 100"]);
  map.vma.flags = map.vma.flags & ~VM_RAND_READ | VM_SEQ_READ;
  await map.load(120 * P, 1);
  assertEquals(file.log[1], "a 120+32");
});

Deno.test("the mark of a window starts the next one", async () => {
  const file = new FakeFile({ size: 256 * P });
  const map = new FakeMapping(file, 256);
  for (let i = 0; i < 32; i++) await map.load(i * P, 1);
  assertEquals(file.log[0], "a 0+32");
  assertEquals(file.log.length, 2);
});

Deno.test("two tasks that fault on the same page show the same memory", async () => {
  const file = new FakeFile({ size: 4 * P });
  file.latency = 1000;
  const map = new FakeMapping(file, 4);
  const own = new FakeMapping(file, 4, { shared: false });

  const [a, b, c] = await Promise.all([
    map.store(P, bytes(10, 1)),
    map.store(P + 10, bytes(10, 2)),
    own.store(P + 20, bytes(10, 3)),
    own.store(P + 30, bytes(10, 4)),
  ]);

  assertEquals([a, b, c], [10, 10, 10]);
  assertEquals(
    await map.load(P, 20),
    Uint8Array.of(
      ...bytes(10, 1),
      ...bytes(10, 2),
    ),
  );
  assertEquals(
    await own.load(P + 20, 20),
    Uint8Array.of(
      ...bytes(10, 3),
      ...bytes(10, 4),
    ),
  );
});

Deno.test("a page that is truncated while it is awaited is SIGBUS", async () => {
  const file = new FakeFile({ size: 4 * P });
  await file.open().read(0, 4 * P);
  const map = new FakeMapping(file, 4, { around: false });
  const folio = filemapLookup(file.mapping, 3)!;
  await folioLock(folio);

  const loaded = map.load(3 * P, 10);
  const truncated = truncateSetsize(file.mapping, 3 * P);
  folioUnlock(folio);

  assertEquals((await loaded).length, 0);
  assertEquals(map.codes, [VM_FAULT_SIGBUS]);
  await truncated;
  assertEquals(file.folios(), [[0, 1], [1, 1], [2, 1]]);
  assertEquals(file.mm.nrPages, 3);
});

Deno.test("a page that leaves the cache while it is awaited is read anew", async () => {
  const file = new FakeFile({ size: P });
  await file.open().read(0, P);
  const map = new FakeMapping(file, 1, { around: false });
  const folio = filemapLookup(file.mapping, 0)!;
  await folioLock(folio);

  const loaded = map.load(0, 2);
  filemapRemoveFolio(folio);
  file.disk.fill(9);
  folioUnlock(folio);

  assertEquals(await loaded, bytes(2, 9));
  assertEquals([map.shown(), file.mm.nrPages], [[0], 1]);
});

Deno.test("a mapping that is unmapped while a fault waits gets no page", async () => {
  const file = new FakeFile({ size: 4 * P });
  file.latency = 1000;
  const map = new FakeMapping(file, 4);
  const own = new FakeMapping(file, 4, { shared: false });
  const faults = [
    new VmFault(map.vma, 1, false),
    new VmFault(own.vma, 1, true),
  ];
  const seenTo = faults.map(handleMmFault);

  vmaUnlink(map.vma);
  vmaUnlink(own.vma);
  await Promise.all(seenTo);
  faults.forEach((vmf) => vmf.release());

  assertEquals([map.shown(), own.shown()], [[], []]);
  assertEquals(file.mm.nrPages, file.mapping.nrPages);
});

Deno.test("a page_mkwrite that refuses ends the store", async () => {
  const file = new FakeFile({ size: P });
  const map = new FakeMapping(file, 1);
  map.refuse = VM_FAULT_SIGBUS;

  assertEquals(await map.store(0, bytes(1, 1)), 0);
  assertEquals(filemapLookup(file.mapping, 0)!.dirty, false);
  assertEquals(filemapLookup(file.mapping, 0)!.refcount, 1);
  map.refuse = 0;
  assertEquals(await map.store(0, bytes(1, 1)), 1);
});

Deno.test("vmaLoad() and vmaStore() stop at the first page that is not shown", async () => {
  const file = new FakeFile({ size: 4 * P });
  const map = new FakeMapping(file, 4, { around: false });
  await map.store(0, bytes(1, 1));
  await map.load(P, 1);
  const p = new Uint8Array(4 * P);

  assertEquals(vmaLoad(map.vma, 10, p, 0), 2 * P - 10);
  assertEquals(vmaStore(map.vma, 10, p, 0), P - 10);
  assertEquals(vmaLoad(map.vma, 2 * P, p, 0), 0);
});

Deno.test("vmfFsError() and vmfError() translate errnos", () => {
  assertEquals([0, -14, -11, -12, -28, -5].map(vmfFsError), [
    0x200,
    0x100,
    0x100,
    1,
    2,
    2,
  ]);
  assertEquals([-12, -133, -5].map(vmfError), [1, 0x10, 2]);
});

/*
 * Goal: mappings, reads and the file agree, whatever happens to the cache.
 * Method: random loads, stores, truncations, punches, writeback, invalidation and
 *   reclaim, one after the other, on two shared and a private mapping.
 * Oracle: an array for the file, and one with a mask for the private mapping.
 */
class Model {
  readonly file: FakeFile;
  readonly shared: FakeMapping[];
  readonly own: FakeMapping;
  data: Uint8Array;
  readonly copy: Uint8Array;
  readonly copied = new Set<number>();
  readonly rng: Prng;

  constructor(seed: number) {
    this.rng = new Prng(seed, "mmap");
    const maxOrder = this.rng.below(4);
    this.file = new FakeFile({ size: 32 * P, maxOrder });
    this.shared = [0, 8].map((first) =>
      new FakeMapping(this.file, 32 - first, { first })
    );
    this.own = new FakeMapping(this.file, 32, { shared: false });
    this.data = pattern(0, 32 * P);
    this.copy = new Uint8Array(32 * P);
  }

  /** What a mapping shows of [pos, pos + len), as far as there is something. */
  expected(map: FakeMapping, pos: number, len: number): Uint8Array {
    const end = Math.min(
      pos + len,
      Math.max(pos, Math.ceil(this.file.size / P) * P),
    );
    const want = this.data.slice(pos, end);
    if (map !== this.own) return want;
    for (let at = pos; at < end; at++) {
      if (this.copied.has(Math.floor(at / P))) want[at - pos] = this.copy[at]!;
    }
    return want;
  }

  async step(): Promise<void> {
    const { rng, file, own } = this;
    const map = [...this.shared, own][rng.below(3)]!;
    const pos = Math.max(map.vma.first * P, rng.below(32 * P));
    const len = Math.min(1 + rng.below(3 * P), 32 * P - pos);
    switch (rng.below(9)) {
      case 0:
      case 1:
      case 2:
        assertEquals(await map.load(pos, len), this.expected(map, pos, len));
        break;
      case 3:
      case 4:
      case 5:
        await this.#store(map, pos, len);
        break;
      case 6:
        await this.#resize(rng.below(32 * P));
        break;
      case 7:
        await sync(file);
        await invalidateInodePages2Range(file.mapping, pos, pos + len);
        break;
      case 8:
        for (let n = 0; n < 3; n++) shrinkFolios(file.mm, 1 + rng.below(8));
        break;
    }
  }

  async #store(map: FakeMapping, pos: number, len: number): Promise<void> {
    const p = bytes(len, 1 + this.rng.below(255));
    const done = await map.store(pos, p);
    assertEquals(done, this.expected(map, pos, len).length);
    if (map !== this.own) return this.data.set(p.subarray(0, done), pos);
    if (done === 0) return;
    for (let i = Math.floor(pos / P); i * P < pos + done; i++) {
      if (!this.copied.has(i)) {
        this.copy.set(this.data.subarray(i * P, i * P + P), i * P);
      }
      this.copied.add(i);
    }
    this.copy.set(p.subarray(0, done), pos);
  }

  async #resize(size: number): Promise<void> {
    const { file } = this;
    const old = file.size;
    // As a file system: what is beyond the end reads as zero on disk.
    await sync(file);
    await truncateSetsize(file.mapping, size);
    const from = Math.min(old, size);
    this.data.fill(0, from);
    file.disk.fill(0, from);
    // A tail that was stored to beyond the end may be cached.
    await invalidateInodePages2Range(file.mapping, from, Infinity);
    for (const i of this.copied) {
      if (i >= Math.ceil(size / P)) this.copied.delete(i);
    }
  }
}

Deno.test("mappings, cache and file agree with a model", async () => {
  for (let seed = 0; seed < 30; seed++) {
    const model = new Model(seed);
    for (let n = 0; n < 120; n++) await model.step();
    const { file, own, shared } = model;
    const mapped = file.folios().map(([i]) => filemapLookup(file.mapping, i)!)
      .reduce((sum, f) => sum + f.mapcount, 0);
    const entries = [...shared, own].reduce((n, m) => n + m.shown().length, 0);
    assertEquals(mapped, entries - model.copied.size, `seed ${seed}`);
    for (const map of [...shared, own]) vmaUnlink(map.vma);
    assertEquals(file.mm.nrPages, file.mapping.nrPages, `seed ${seed}`);
  }
});
