import { assert, assertEquals } from "@std/assert";
import { VirtualClock } from "../../lib/clock.ts";
import { EAGAIN, ENOMEM } from "../../lib/errno.ts";
import {
  FGP_NOWAIT,
  FGP_WRITEBEGIN,
  filemapCachestat,
  filemapGetFolio,
  filemapLookup,
  filemapWriteAndWaitRange,
} from "../../mm/filemap.ts";
import { folioGet, folioPut } from "../../mm/folio.ts";
import { LRU_ACTIVE_FILE } from "../../mm/lru.ts";
import { Mm } from "../../mm/mm.ts";
import { VM_RAND_READ, VM_SEQ_READ } from "../../mm/rmap.ts";
import {
  invalidateInodePages2Range,
  invalidateMappingPages,
  truncatePagecacheRange,
} from "../../mm/truncate.ts";
import { allocFolio, shrinkFolios } from "../../mm/vmscan.ts";
import { checkMm } from "./check_mm.ts";
import { FakeFile, pattern } from "./fake_file.ts";
import { FakeMapping } from "./mapping.ts";

const PAGE = 4096;

function small(memory = 2 ** 21): Mm {
  return new Mm(new VirtualClock(), { memory });
}

Deno.test("shrinkFolios() gives up clean folios that nobody uses, and nothing else", async () => {
  const mm = small();
  const file = new FakeFile({ mm, size: 6 * PAGE });
  await file.open().read(0, 6 * PAGE);
  const [dirty, locked, held, kept] = [0, 1, 2, 3].map((i) =>
    filemapLookup(file.mapping, i)!
  );
  file.dirtyFolio(file.mapping, dirty!);
  locked!.flags |= 1;
  folioGet(held!);
  kept!.private = {};
  file.releases = false;
  assertEquals(shrinkFolios(mm, 100), 2);
  assertEquals(file.folios().map(([index]) => index), [0, 1, 2, 3]);
  assertEquals(shrinkFolios(mm, 100), 0);
  folioPut(held!);
  assertEquals(shrinkFolios(mm, 100), 1);
});

Deno.test("shrinkFolios() gives up what was used once, the oldest first", async () => {
  const mm = small();
  const file = new FakeFile({ mm, size: 6 * PAGE });
  await file.open().read(0, 6 * PAGE);
  assertEquals(shrinkFolios(mm, 2), 2);
  assertEquals(file.folios().map(([index]) => index), [2, 3, 4, 5]);
});

Deno.test("shrinkFolios() makes active what was used twice, by two readers or apart", async () => {
  const mm = small();
  const file = new FakeFile({ mm, size: 6 * PAGE });
  const [first, second] = [file.open(), file.open()];
  await first.read(0, 6 * PAGE);
  await second.read(0, PAGE);
  await first.read(2 * PAGE, 10);
  assertEquals(shrinkFolios(mm, 4), 4);
  assertEquals(file.folios().map(([index]) => index), [0, 2]);
  // Both evictions and activations make those before look older.
  assertEquals([activePages(mm), mm.lru.nonresidentAge], [2, 6]);
  // It is forgotten once the active list has more than its share.
  assertEquals(shrinkFolios(mm, 2), 2);
});

Deno.test("shrinkFolios() gives up what is active where all that is inactive is in use", async () => {
  const mm = small();
  const file = new FakeFile({ mm, size: 6 * PAGE });
  await file.open().read(0, 6 * PAGE);
  for (const index of [0, 1]) await file.open().read(index * PAGE, PAGE);
  const inUse = [2, 3, 4, 5].map((i) => filemapLookup(file.mapping, i)!);
  for (const folio of inUse) folioGet(folio);
  shrinkFolios(mm, 1);

  shrinkFolios(mm, 2);
  assertEquals(file.folios().map(([index]) => index), [2, 3, 4, 5]);
  for (const folio of inUse) folioPut(folio);
});

Deno.test("filemapRead() of a page in pieces is one use", async () => {
  const mm = small();
  const file = new FakeFile({ mm, size: 8 * PAGE, maxOrder: 3 });
  await file.fill(0, 8, 1);
  await filemapWriteAndWaitRange(file.mapping, 0, Infinity);
  const reader = file.open();
  for (let pos = 0; pos < 8 * PAGE; pos += 512) await reader.read(pos, 512);
  assertEquals(shrinkFolios(mm, 8), 8);
});

Deno.test("a file that is read once does not push out one that is used again", async () => {
  const mm = small(2 ** 22);
  const hot = new FakeFile({ mm, size: 2 ** 20 });
  const reader = hot.open();
  for (let round = 0; round < 2; round++) {
    for (let pos = 0; pos < hot.size; pos += PAGE) await reader.read(pos, PAGE);
  }
  const once = new FakeFile({ mm, size: 2 ** 24, maxOrder: 9 });
  const stream = once.open();
  for (let pos = 0; pos < once.size; pos += 2 ** 16) {
    await stream.read(pos, 2 ** 16);
  }
  assertEquals(hot.mapping.nrPages, 256);
});

Deno.test("a page that is read again soon after its eviction is active at once", async () => {
  const mm = small();
  const file = new FakeFile({ mm, size: 2 ** 20 });
  const reader = file.open();
  reader.ra.raPages = 0;
  for (let round = 0; round < 2; round++) {
    for (let i = 100; i < 150; i++) await reader.read(i * PAGE, PAGE);
  }
  for (let i = 0; i < 70; i++) await reader.read(i * PAGE, PAGE);
  shrinkFolios(mm, 10);
  assertEquals([activePages(mm), file.mapping.pages.nrShadows], [50, 10]);
  assertEquals(evicted(file), [10, 10]);
  await reader.read(0, PAGE);
  assertEquals([activePages(mm), file.mapping.pages.nrShadows], [51, 9]);
  // A write tells nothing.
  await file.fill(1, 1, 1);
  assertEquals([activePages(mm), evicted(file)], [51, [8, 8]]);
  // More has been evicted since than the active list holds.
  mm.lru.nonresidentAge += 50;
  assertEquals(evicted(file), [8, 0]);
  await reader.read(2 * PAGE, PAGE);
  assertEquals(activePages(mm), 51);
});

function activePages(mm: Mm): number {
  return mm.lru.pages(LRU_ACTIVE_FILE);
}

function evicted(file: FakeFile): number[] {
  const stat = filemapCachestat(file.mapping, 0, Infinity);
  return [stat.nrEvicted, stat.nrRecentlyEvicted];
}

Deno.test("shadows go with the range that is truncated or invalidated", async () => {
  const mm = small();
  const file = new FakeFile({ mm, size: 40 * PAGE });
  await file.open().read(0, 40 * PAGE);
  shrinkFolios(mm, 40);
  assertEquals([file.mapping.nrPages, evicted(file)[0]], [0, 40]);
  await truncatePagecacheRange(file.mapping, 39 * PAGE, Infinity);
  await truncatePagecacheRange(file.mapping, PAGE, 4 * PAGE - 1);
  assertEquals(evicted(file)[0], 36);
  await invalidateInodePages2Range(file.mapping, 10 * PAGE, 11 * PAGE);
  invalidateMappingPages(file.mapping, 20, 22);
  assertEquals(evicted(file)[0], 31);
  await truncatePagecacheRange(file.mapping, 0, Infinity);
  assertEquals(mm.shadowNodes.size, 0);
});

Deno.test("shadows take no more than their share of memory", async () => {
  const mm = small(2 ** 20);
  const file = new FakeFile({ mm, size: 2 ** 25 });
  const reader = file.open();
  for (let pos = 0; pos < file.size; pos += 2 ** 16) {
    await reader.read(pos, 2 ** 16);
  }
  assertEquals(mm.shadowNodes.size, 4);
  assert(evicted(file)[0]! >= 4 * 512 && evicted(file)[0]! < 6 * 512);
});

Deno.test("shrinkFolios() leaves what is dirty or being written until its writeback ends, then takes it first", async () => {
  const mm = small();
  const file = new FakeFile({ mm, size: 46 * PAGE });
  file.held = [];
  await file.fill(0, 40, 1);
  await file.open().read(40 * PAGE, 6 * PAGE);
  assertEquals(shrinkFolios(mm, 1), 1);
  assertEquals(file.folios()[0], [0, 1]);
  // The flushers have been told.
  assertEquals(file.mapping.wb.startAll, true);
  await mm.clock.sleep(10);
  assertEquals(file.held.length, 40);
  file.held.forEach((folio) => file.writeDone(folio));
  shrinkFolios(mm, 40);
  assertEquals(file.folios().length, 5);
  assertEquals(filemapLookup(file.mapping, 39), null);
});

Deno.test("shrinkFolios() lets the flushers sleep where clean folios are among the dirty ones", async () => {
  const mm = small();
  const file = new FakeFile({ mm, size: 40 * PAGE });
  await file.fill(0, 20, 1);
  await file.open().read(20 * PAGE, 20 * PAGE);
  assertEquals(shrinkFolios(mm, 20), 20);
  assertEquals([file.mapping.wb.startAll, file.mapping.nrDirty], [false, 20]);
  assertEquals(shrinkFolios(mm, 1), 0);
  assertEquals(file.mapping.wb.startAll, true);
  await mm.clock.sleep(10);
  assertEquals(file.mapping.nrDirty, 0);
});

/** Four pages that a mapping has shown, and ten behind them that were read once. */
async function mapped(flags: number, noreuse: boolean) {
  const mm = small();
  const file = new FakeFile({ mm, size: 4 * PAGE });
  const map = new FakeMapping(file, 4);
  map.vma.flags |= flags;
  map.ra.noreuse = noreuse;
  await map.load(0, 4 * PAGE);
  const other = new FakeFile({ mm, size: 10 * PAGE });
  await other.open().read(0, 10 * PAGE);
  return { mm, file, map, other };
}

Deno.test("shrinkFolios() keeps what page tables show once, and makes it active if they are used again", async () => {
  const { mm, file, map, other } = await mapped(0, false);
  assertEquals(shrinkFolios(mm, 10), 10);
  assertEquals([file.mapping.nrPages, other.mapping.nrPages], [4, 0]);
  await map.load(2 * PAGE, 1);
  assertEquals(shrinkFolios(mm, 3), 3);
  assertEquals(file.folios(), [[2, 1]]);
  assertEquals([activePages(mm), map.shown()], [1, [2]]);
});

Deno.test("shrinkFolios() takes what page tables show where their use tells nothing", async () => {
  const rows: [number, boolean][] = [
    [VM_SEQ_READ, false],
    [VM_RAND_READ, false],
    [0, true],
  ];
  for (const [flags, noreuse] of rows) {
    const { mm, file, other } = await mapped(flags, noreuse);
    assertEquals(shrinkFolios(mm, 4), 4);
    assertEquals([file.mapping.nrPages, other.mapping.nrPages], [0, 10]);
  }
});

Deno.test("allocFolio() does not empty the cache for one large folio", async () => {
  const mm = small();
  const file = new FakeFile({ mm, size: mm.limit * PAGE });
  for (let i = 0; i < mm.limit; i++) await file.open().read(i * PAGE, PAGE);
  const before = mm.nrPages;
  assertEquals(allocFolio(mm, 8), null);
  assertEquals(mm.nrPages, before);
});

Deno.test("shrinkFolios() does not begin again from within", () => {
  const mm = small();
  const file = new FakeFile({ mm, size: 4 * PAGE });
  const freed: number[] = [];
  file.releaseFolio = (folio) => {
    freed.push(shrinkFolios(mm, 4));
    folio.private = null;
    return true;
  };
  file.open().read(0, 4 * PAGE);
  for (let i = 0; i < 4; i++) filemapLookup(file.mapping, i)!.private = {};
  assertEquals([shrinkFolios(mm, 4), freed], [4, [0, 0, 0, 0]]);
  assertEquals(mm.reclaiming, false);
});

Deno.test("filemapRead() of a file larger than memory stays within the limit", async () => {
  const mm = small(2 ** 22);
  const file = new FakeFile({ mm, size: 2 ** 24, maxOrder: 9 });
  const reader = file.open();
  for (let pos = 0; pos < file.size; pos += 2 ** 17) {
    assertEquals(await reader.read(pos, 2 ** 17), 2 ** 17);
    assertEquals(reader.buffer.subarray(0, 64), pattern(pos, 64));
    assert(mm.nrPages <= mm.limit);
  }
  assert(mm.nrPages > mm.limit * 0.7);
});

Deno.test("filemapGetFolio() makes large folios again in memory that was full of small ones", async () => {
  const mm = small(2 ** 23);
  const clean = new FakeFile({ mm, size: 2 ** 23 });
  for (let pos = 0; pos < clean.size; pos += 2 ** 20) {
    await clean.open().read(pos, 2 ** 20);
  }
  assert(mm.nrPages > mm.limit * 0.9);
  const file = new FakeFile({ mm, maxOrder: 9 });
  await file.fill(0, 512, 1);
  assertEquals(file.folios(), [[0, 512]]);
});

Deno.test("filemapGetFolio() writes dirty folios back when there are no others", async () => {
  const mm = small();
  const file = new FakeFile({ mm });
  file.latency = 1000;
  await file.fill(0, 4 * mm.limit, 1);
  assert(mm.nrPages <= mm.limit);
  assert(file.log.length >= 3 * mm.limit);
});

Deno.test("filemapGetFolio() of a synchronous caller writes back in place", () => {
  const mm = small();
  const file = new FakeFile({ mm });
  file.latency = 1000;
  mm.clock.enterSync();
  assertEquals(file.fill(0, 2 * mm.limit, 1), undefined);
  mm.clock.leaveSync();
  assert(mm.nrPages <= mm.limit);
});

Deno.test("filemapGetFolio() answers -EAGAIN when memory is dirty and it must not wait", async () => {
  const mm = small();
  const file = new FakeFile({ mm });
  await file.fill(0, mm.limit, 1);
  const fgp = FGP_WRITEBEGIN | FGP_NOWAIT;
  assertEquals(filemapGetFolio(file.mapping, mm.limit, fgp, PAGE), -EAGAIN);
  assertEquals(file.log, []);
});

Deno.test("filemapGetFolio() goes a tenth beyond the limit, then answers -ENOMEM, when all is in use", async () => {
  const mm = small(20 * 2 ** 20);
  const file = new FakeFile({ mm });
  await file.fill(0, mm.limit, 1);
  file.writepages = () => 0;
  let made = 0;
  for (;; made++) {
    const index = mm.limit + made;
    const got = filemapGetFolio(file.mapping, index, FGP_WRITEBEGIN, PAGE);
    const folio = await got;
    if (typeof folio === "number") {
      assertEquals(folio, -ENOMEM);
      break;
    }
  }
  assertEquals(made, Math.floor(mm.limit / 10));
});

Deno.test("filemapRead() of more readers than there is memory waits for the reads of others", async () => {
  const mm = small(2 ** 20);
  const file = new FakeFile({ mm, size: 2 ** 23 });
  file.latency = 100_000;
  let most = 0;
  const reads = Array.from({ length: 3 * mm.limit }, async (_, i) => {
    const reader = file.open();
    reader.ra.random = true;
    const pos = (7 * i % 2000) * PAGE;
    assertEquals(await reader.read(pos, 10), 10);
    assertEquals(reader.buffer.subarray(0, 10), pattern(pos, 10));
    most = Math.max(most, mm.nrPages);
  });
  await Promise.all(reads);
  assert(most <= 1.1 * mm.limit);
  checkMm(mm, [file.mapping]);
});

Deno.test("memory does not grow while files come and go", async () => {
  const mm = small(2 ** 22);
  for (let round = 0; round < 20; round++) {
    const file = new FakeFile({ mm, size: 2 ** 20, maxOrder: round % 10 });
    await file.open().read(0, 2 ** 20);
    assert(mm.nrPages <= mm.limit);
  }
});
