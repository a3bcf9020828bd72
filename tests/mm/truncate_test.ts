import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { EBUSY } from "../../lib/errno.ts";
import {
  filemapFdatawriteRange,
  filemapLookup,
  filemapWriteAndWaitRange,
} from "../../mm/filemap.ts";
import {
  folioGet,
  folioPut,
  folioTrylock,
  folioUnlock,
} from "../../mm/folio.ts";
import {
  invalidateInodePages2Range,
  invalidateMappingPages,
  pagecacheIsizeExtended,
  truncatePagecacheRange,
  truncateSetsize,
} from "../../mm/truncate.ts";
import { FakeFile } from "./fake_file.ts";

const PAGE = 4096;

/** A file with one dirty folio of 16 pages of ones. */
async function oneLarge(): Promise<FakeFile> {
  const file = new FakeFile({ maxOrder: 4 });
  await file.fill(0, 16, 1);
  assertEquals(file.folios(), [[0, 16]]);
  return file;
}

/** Bytes [start, end) as they are cached; -1 where nothing is. */
function cached(file: FakeFile, start: number, end: number): number[] {
  const bytes: number[] = [];
  for (let pos = start; pos < end; pos++) {
    const folio = filemapLookup(file.mapping, Math.floor(pos / PAGE));
    bytes.push(folio ? folio.data[folio.offset + pos - folio.pos]! : -1);
  }
  return bytes;
}

Deno.test("truncatePagecacheRange() drops whole folios and zeroes the covered part of the others", async () => {
  const file = new FakeFile();
  await file.fill(0, 6, 1);
  truncatePagecacheRange(file.mapping, PAGE + 100, 4 * PAGE + 9);
  assertEquals(file.folios(), [[0, 1], [1, 1], [4, 1], [5, 1]]);
  assertEquals(cached(file, PAGE + 98, PAGE + 102), [1, 1, 0, 0]);
  assertEquals(cached(file, 2 * PAGE - 1, 2 * PAGE + 1), [0, -1]);
  assertEquals(cached(file, 4 * PAGE + 8, 4 * PAGE + 12), [0, 0, 1, 1]);
  assertEquals([file.mm.nrDirty, file.mm.nrPages], [4, 4]);
});

Deno.test("truncatePagecacheRange() zeroes inside of one folio", async () => {
  const file = new FakeFile();
  await file.fill(0, 3, 1);
  const folio = filemapLookup(file.mapping, 1)!;
  folio.private = {};
  truncatePagecacheRange(file.mapping, PAGE + 10, PAGE + 19);
  assertEquals(cached(file, PAGE + 9, PAGE + 21).join(""), "100000000001");
  assertEquals(file.invalidated, [[10, 10]]);
  assert(folio.dirty);
});

Deno.test("truncatePagecacheRange() does not dirty what it zeroes", async () => {
  const file = new FakeFile({ size: 3 * PAGE });
  await file.open().read(0, PAGE);
  truncatePagecacheRange(file.mapping, 10, Infinity);
  assertEquals(file.mm.nrDirty, 0);
  assertEquals(file.folios(), [[0, 1]]);
});

Deno.test("truncatePagecacheRange() tells the file system of folios with state that go", async () => {
  const file = new FakeFile();
  await file.fill(0, 3, 1);
  filemapLookup(file.mapping, 1)!.private = {};
  truncatePagecacheRange(file.mapping, 0, Infinity);
  assertEquals(file.invalidated, [[0, PAGE]]);
  assertEquals([file.mm.nrPages, file.mm.nrDirty], [0, 0]);
  assertEquals(file.mapping.wb.hasDirtyIo, false);
});

Deno.test("truncatePagecacheRange() splits a large folio around the range", async () => {
  const file = await oneLarge();
  truncatePagecacheRange(file.mapping, 5 * PAGE + 1, 7 * PAGE - 1);
  // Page 6 goes; page 5 keeps its first byte.
  assertEquals(file.folios(), [[0, 4], [4, 1], [5, 1], [7, 1], [8, 8]]);
  assertEquals(cached(file, 5 * PAGE, 5 * PAGE + 2), [1, 0]);
  assertEquals(cached(file, 6 * PAGE, 6 * PAGE + 1), [-1]);
  assertEquals([file.mm.nrPages, file.mm.nrDirty], [15, 15]);
  for (const [index] of file.folios()) {
    const folio = filemapLookup(file.mapping, index)!;
    assert(folio.dirty && folio.uptodate && !folio.locked);
    assertEquals([folio.refcount, folio.index], [1, index]);
  }
  assertEquals(await filemapWriteAndWaitRange(file.mapping, 0, Infinity), 0);
  assertEquals(file.log, ["w 0", "w 4", "w 5", "w 7", "w 8"]);
  truncatePagecacheRange(file.mapping, 0, Infinity);
  assertEquals(file.mm.nrPages, 0);
});

Deno.test("truncatePagecacheRange() splits a folio that a sync has yet to write", async () => {
  const file = new FakeFile({ maxOrder: 4 });
  file.latency = 1000;
  await file.fill(0, 1, 1);
  await filemapFdatawriteRange(file.mapping, 0, PAGE - 1, true);
  await file.fill(0, 1, 2);
  await file.fill(16, 16, 1);
  // It waits for the first folio's writeback; what follows is only marked so far.
  const synced = filemapWriteAndWaitRange(file.mapping, 0, Infinity);
  assertInstanceOf(synced, Promise);
  truncatePagecacheRange(file.mapping, 27 * PAGE, Infinity);
  assertEquals(await synced, 0);
  assertEquals(file.log, ["w 0", "w 0", "w 16", "w 24", "w 26"]);
});

Deno.test("truncatePagecacheRange() gives the memory behind the end back", async () => {
  const file = await oneLarge();
  truncatePagecacheRange(file.mapping, 3 * PAGE, Infinity);
  assertEquals(file.folios(), [[0, 2], [2, 1]]);
  assertEquals(file.mm.nrPages, 3);
});

Deno.test("truncatePagecacheRange() keeps a dirty large folio with state whole, zeroed", async () => {
  const file = await oneLarge();
  filemapLookup(file.mapping, 0)!.private = {};
  truncatePagecacheRange(file.mapping, 3 * PAGE, 5 * PAGE - 1);
  assertEquals(file.folios(), [[0, 16]]);
  assertEquals(cached(file, 3 * PAGE - 1, 3 * PAGE + 1), [1, 0]);
  assertEquals(cached(file, 5 * PAGE - 1, 5 * PAGE + 1), [0, 1]);
  assertEquals(file.invalidated, [[3 * PAGE, 2 * PAGE]]);
});

Deno.test("truncatePagecacheRange() drops a clean large folio that cannot be split", async () => {
  const file = await oneLarge();
  await filemapWriteAndWaitRange(file.mapping, 0, Infinity);
  filemapLookup(file.mapping, 0)!.private = {};
  file.releases = false;
  truncatePagecacheRange(file.mapping, 3 * PAGE, 5 * PAGE - 1);
  assertEquals(file.folios(), []);
});

Deno.test("truncatePagecacheRange() splits no folio that somebody else holds", async () => {
  const file = await oneLarge();
  const folio = filemapLookup(file.mapping, 0)!;
  folioGet(folio);
  truncatePagecacheRange(file.mapping, 8 * PAGE, Infinity);
  assertEquals(file.folios(), [[0, 16]]);
  assertEquals(cached(file, 8 * PAGE - 1, 8 * PAGE + 1), [1, 0]);
  folioPut(folio);
});

Deno.test("truncatePagecacheRange() waits for writeback and for locks", async () => {
  const file = new FakeFile();
  file.latency = 1000;
  await file.fill(0, 4, 1);
  await filemapFdatawriteRange(file.mapping, PAGE, 2 * PAGE - 1, true);
  const held = filemapLookup(file.mapping, 2)!;
  folioTrylock(held);
  const gone = truncatePagecacheRange(file.mapping, 0, Infinity);
  assertInstanceOf(gone, Promise);
  file.clock.at(3000, folioUnlock, held);
  await gone;
  assertEquals(file.clock.now(), 3000);
  assertEquals(file.mm.nrPages, 0);
});

Deno.test("truncateSetsize() moves the size and zeroes the tail of the last page", async () => {
  const file = new FakeFile();
  await file.fill(0, 3, 1);
  truncateSetsize(file.mapping, 5000);
  assertEquals(file.size, 5000);
  assertEquals(file.folios(), [[0, 1], [1, 1]]);
  assertEquals(cached(file, 4999, 5001), [1, 0]);
  truncateSetsize(file.mapping, 20000);
  assertEquals(file.size, 20000);
});

Deno.test("pagecacheIsizeExtended() zeroes the dirty old tail when blocks are smaller than pages", async () => {
  const rows: [blkbits: number, from: number, to: number, zeroed: number][] = [
    [10, 1000, 3000, 2000],
    [10, 1000, 9000, 3096],
    [10, 1000, 1024, 0],
    [10, 4000, 9000, 0],
    [12, 1000, 3000, 0],
    [10, 3000, 3000, 0],
  ];
  for (const [blkbits, from, to, zeroed] of rows) {
    const file = new FakeFile({ blkbits });
    await file.fill(0, 1, 1);
    pagecacheIsizeExtended(file.mapping, from, to);
    const zeros = cached(file, 0, PAGE).filter((byte) => byte === 0).length;
    assertEquals(zeros, zeroed, `${from} to ${to}`);
    if (zeroed > 0) assertEquals(cached(file, from - 1, from + 1), [1, 0]);
  }
});

Deno.test("truncateSetsize() has the old tail read as zero where the file grows", async () => {
  const file = new FakeFile({ blkbits: 10 });
  // A store through a mapping may have gone beyond the end.
  await file.fill(0, 1, 1);
  file.size = 1000;

  await truncateSetsize(file.mapping, 3000);

  assertEquals(cached(file, 999, 1001), [1, 0]);
  assertEquals(cached(file, 2999, 3001), [0, 0]);
});

Deno.test("pagecacheIsizeExtended() leaves a clean folio as it is", async () => {
  const file = new FakeFile({ blkbits: 10, size: PAGE });
  await file.open().read(0, PAGE);
  const before = cached(file, 1000, 1010);
  pagecacheIsizeExtended(file.mapping, 1000, 3000);
  assertEquals(cached(file, 1000, 1010), before);
});

Deno.test("invalidateInodePages2Range() drops whole clean folios and answers -EBUSY for others", async () => {
  const file = new FakeFile({ maxOrder: 2 });
  await file.fill(0, 12, 1);
  await filemapWriteAndWaitRange(file.mapping, 0, 8 * PAGE - 1);
  assertEquals(await invalidateInodePages2Range(file.mapping, 5 * PAGE, 5), 0);
  const ret = invalidateInodePages2Range(file.mapping, 5 * PAGE, 9 * PAGE);
  assertEquals(await ret, -EBUSY);
  assertEquals(file.folios(), [[0, 4], [8, 4]]);
});

Deno.test("invalidateInodePages2Range() goes on after a folio that stays", async () => {
  const file = new FakeFile({ size: 4 * PAGE });
  await file.open().read(0, 4 * PAGE);
  filemapLookup(file.mapping, 1)!.private = {};
  file.releases = false;
  const ret = invalidateInodePages2Range(file.mapping, 0, Infinity);
  assertEquals(await ret, -EBUSY);
  assertEquals(file.folios(), [[1, 1]]);
});

Deno.test("invalidateInodePages2Range() waits for writeback", async () => {
  const file = new FakeFile();
  file.latency = 1000;
  await file.fill(0, 1, 1);
  await filemapFdatawriteRange(file.mapping, 0, Infinity, true);
  assertEquals(await invalidateInodePages2Range(file.mapping, 0, 1), 0);
  assertEquals([file.clock.now(), file.mm.nrPages], [1000, 0]);
});

Deno.test("invalidateMappingPages() drops what is idle and wholly inside", async () => {
  const file = new FakeFile({ maxOrder: 2 });
  await file.fill(0, 16, 1);
  await filemapWriteAndWaitRange(file.mapping, 0, 12 * PAGE - 1);
  const used = filemapLookup(file.mapping, 8)!;
  folioGet(used);
  assertEquals(invalidateMappingPages(file.mapping, 1, 14), 4);
  assertEquals(file.folios(), [[0, 4], [8, 4], [12, 4]]);
  folioPut(used);
  assertEquals(invalidateMappingPages(file.mapping, 0, Infinity), 8);
});
