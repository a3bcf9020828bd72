import { assert, assertEquals, assertFalse } from "@std/assert";
import { filemapLookup } from "../../mm/filemap.ts";
import { type Folio, PG_READAHEAD } from "../../mm/folio.ts";
import { Mm } from "../../mm/mm.ts";
import { forcePageCacheRa, Readahead } from "../../mm/readahead.ts";
import { invalidateMappingPages } from "../../mm/truncate.ts";
import { VirtualClock } from "../../lib/clock.ts";
import { EAGAIN } from "../../lib/errno.ts";
import { IOCB_NOIO } from "../../mm/iocb-flags.ts";
import { FakeFile, pattern, type Reader } from "./fake_file.ts";

const PAGE = 4096;

/** The windows that one read asks for. */
async function windows(
  reader: Reader,
  page: number,
  pages: number,
): Promise<string[]> {
  const { log } = reader.file;
  log.length = 0;
  assertEquals(await reader.read(page * PAGE, pages * PAGE), pages * PAGE);
  return [...log];
}

/** First page, pages, and the windows that Linux 6.18 reads on a device with 2560
 * KiB of readahead, 1280 KiB a request, large folios. */
type Row = [number, number, string[]];

async function check(reader: Reader, rows: Row[]): Promise<void> {
  for (const [page, pages, expected] of rows) {
    assertEquals(
      await windows(reader, page, pages),
      expected,
      `read of ${pages} at ${page}`,
    );
  }
}

function openWide(file: FakeFile): Reader {
  const reader = file.open();
  reader.ra.raPages = 640;
  reader.ra.ioPages = 320;
  return reader;
}

Deno.test("pageCacheSyncRa() and pageCacheAsyncRa() ramp up as the kernel does when reads are sequential", async () => {
  const file = new FakeFile({ size: 2 ** 24, maxOrder: 9 });
  await check(openWide(file), [
    [0, 32, ["a 0+64"]],
    [32, 32, ["a 64+128"]],
    [64, 32, ["a 192+256"]],
    [96, 32, []],
    [192, 32, ["a 448+512"]],
    [448, 32, ["a 960+576"]],
    [960, 32, ["a 1536+640"]],
    [1536, 32, ["a 2176+640"]],
  ]);
});

Deno.test("pageCacheSyncRa() reads what is asked for when reads are random, more when they follow each other", async () => {
  const file = new FakeFile({ size: 2 ** 24, maxOrder: 9 });
  await check(openWide(file), [
    [1280, 1, ["a 1280+1"]],
    [2304, 1, ["a 2304+1"]],
    [2305, 1, ["a 2305+4"]],
    [2306, 1, ["a 2309+15"]],
    [2309, 1, ["a 2324+60"]],
    [3072, 1, ["a 3072+1"]],
    [512, 16, ["a 512+16"]],
    [528, 16, ["a 528+64"]],
    [544, 16, ["a 592+128"]],
  ]);
});

Deno.test("pageCacheSyncRa() goes by what is cached when another has read the file so far", async () => {
  const file = new FakeFile({ size: 200 * PAGE });
  const first = file.open();
  first.ra.raPages = 0;
  await first.read(0, 10 * PAGE);
  await first.read(100 * PAGE, 10 * PAGE);
  // From the very beginning counts twice.
  assertEquals(await windows(file.open(), 10, 1), ["a 10+21"]);
  assertEquals(await windows(file.open(), 110, 1), ["a 110+11"]);
});

Deno.test("pageCacheSyncRa() takes the largest window when a read is larger than it", async () => {
  const file = new FakeFile({ size: 2 ** 24, maxOrder: 9 });
  const reader = openWide(file);
  const { log } = file;
  // Not aligned: 768 pages in part, to the end of the file.
  assertEquals(await reader.read(3331 * PAGE + 5, 3 * 2 ** 20), 3133435);
  assertEquals(log, ["a 3331+640", "a 3971+125"]);
});

Deno.test("pageCacheSyncRa() has windows of 32 pages at most when nothing else is said", async () => {
  const file = new FakeFile({ size: 2 ** 20 });
  await check(file.open(), [
    [0, 1, ["a 0+4"]],
    [1, 1, ["a 4+8"]],
    [2, 2, []],
    [4, 1, ["a 12+16"]],
    [12, 1, ["a 28+32"]],
    [28, 1, ["a 60+32"]],
    [60, 1, ["a 92+32"]],
  ]);
});

Deno.test("pageCacheSyncRa() lets a read beyond the window have as much as the device takes", async () => {
  const file = new FakeFile({ size: 2 ** 21 });
  const reader = file.open();
  reader.ra.ioPages = 320;
  assertEquals(await windows(reader, 0, 256), [
    "a 0+256",
    // It comes to the mark in the middle itself.
    "a 256+256",
  ]);
});

Deno.test("pageCacheSyncRa() never reads beyond the page with the last byte", async () => {
  const file = new FakeFile({ size: 9 * PAGE + 1 });
  const reader = file.open();
  assertEquals(await reader.read(0, 2 ** 20), 9 * PAGE + 1);
  assertEquals(reader.buffer.subarray(0, file.size), pattern(0, file.size));
  assertEquals(file.log, ["a 0+10"]);
});

Deno.test("forcePageCacheRa() reads as much as the device takes, in steps of 2 MiB", async () => {
  const file = new FakeFile({ size: 1000 * PAGE });
  const ra = file.open().ra;
  ra.ioPages = 700;
  await forcePageCacheRa(new Readahead(file.mapping, ra, 10, false), 900);
  assertEquals(file.log, ["a 10+512", "a 522+188"]);
  file.log.length = 0;
  await forcePageCacheRa(new Readahead(file.mapping, ra, 990, false), 900);
  assertEquals(file.log, ["a 990+10"]);
});

Deno.test("filemapRead() at the end of the file leaves the readahead state alone", async () => {
  const file = new FakeFile({ size: 64 * PAGE });
  const reader = file.open();
  await reader.read(0, PAGE);
  const { prevPos } = reader.ra;
  assertEquals(await reader.read(64 * PAGE, PAGE), 0);
  assertEquals(reader.ra.prevPos, prevPos);
});

Deno.test("filemapRead() that reads nothing leaves the readahead state alone", async () => {
  const file = new FakeFile({ size: 2 ** 20 });
  const reader = file.open(IOCB_NOIO);
  assertEquals(await reader.read(100 * PAGE, PAGE), -EAGAIN);
  reader.flags = 0;
  // To try again is no sequential read.
  assertEquals(await windows(reader, 100, 1), ["a 100+1"]);
});

Deno.test("pageCacheSyncRa() takes a request for as long as its smallest folios", async () => {
  const file = new FakeFile({ size: 2 ** 20, blkbits: 14, maxOrder: 4 });
  file.mapping.minOrder = 2;
  // Four pages of the middle of the file, not one.
  assertEquals(await windows(file.open(), 100, 1), ["a 100+4"]);
  // Eight are the size of the first window of four; one would be four.
  assertEquals(await windows(file.open(), 0, 1), ["a 0+8"]);
});

Deno.test("pageCacheSyncRa() reads page by page when readahead is off", async () => {
  const file = new FakeFile({ size: 2 ** 20 });
  const reader = file.open();
  reader.ra.raPages = 0;
  assertEquals(await windows(reader, 0, 3), ["a 0+1", "a 1+1", "a 2+1"]);
});

Deno.test("pageCacheAsyncRa() grows the folios by two orders a window", async () => {
  const file = new FakeFile({ size: 2 ** 20, maxOrder: 9 });
  const reader = file.open();
  await reader.read(0, PAGE);
  await reader.read(PAGE, PAGE);
  assertEquals(file.folios(), [
    [0, 1],
    [1, 1],
    [2, 1],
    [3, 1],
    [4, 4],
    [8, 4],
  ]);
  assert((filemapLookup(file.mapping, 4)!.flags & PG_READAHEAD) !== 0);
  assert((filemapLookup(file.mapping, 8)!.flags & PG_READAHEAD) === 0);
});

Deno.test("pageCacheAsyncRa() keeps folios inside the mapping's order", async () => {
  const file = new FakeFile({ size: 2 ** 22, maxOrder: 1 });
  const reader = file.open();
  for (let page = 0; page < 200; page += 8) {
    await reader.read(page * PAGE, 8 * PAGE);
  }
  assertEquals(Math.max(...file.folios().map(([, pages]) => pages)), 2);
});

Deno.test("doPageCacheRa() steps over what is cached", async () => {
  const file = new FakeFile({ size: 64 * PAGE });
  await file.fill(3, 2, 0);
  await file.fill(9, 1, 0);
  await file.open().read(0, 12 * PAGE);
  assertEquals(file.log, ["a 0+3", "a 5+4", "a 10+22"]);
});

Deno.test("pageCacheRaOrder() fills up in single pages when something is cached", async () => {
  const file = new FakeFile({ size: 64 * PAGE, maxOrder: 9 });
  await file.fill(14, 1, 0);
  const reader = file.open();
  await reader.read(0, 4 * PAGE);
  file.log.length = 0;
  await reader.read(4 * PAGE, PAGE);
  // 8 pages from 8 in folios of 4; the second of them does not fit.
  assertEquals(file.log, ["a 8+4", "a 12+2", "a 15+9"]);
});

Deno.test("readPages() removes folios that the file system has not taken", async () => {
  const file = new FakeFile({ size: 64 * PAGE });
  file.takeAtMost = 3;
  const reader = file.open();
  assertEquals(await reader.read(0, 4 * PAGE), 4 * PAGE);
  assertEquals(file.log[0], "a 0+8");
  assertEquals(reader.buffer.subarray(0, 4 * PAGE), pattern(0, 4 * PAGE));
  assertEquals(file.mm.nrPages, file.mapping.nrPages);
  for (const [index] of file.folios()) {
    assertFalse(filemapLookup(file.mapping, index)!.locked);
  }
});

Deno.test("filemapRead() goes on without readahead when the device has errors", async () => {
  const file = new FakeFile({ size: 64 * PAGE });
  const reader = file.open();
  file.readError = () => true;
  assertEquals(await reader.read(0, PAGE), -5);
  assertEquals(file.log, ["a 0+4", "r 0"]);
  assertEquals(reader.ra.raPages, 8);
  file.readError = () => false;
  assertEquals(await reader.read(0, PAGE), PAGE);
});

Deno.test("readahead marks no folio that is cached already", async () => {
  const file = new FakeFile({ size: 64 * PAGE });
  await file.fill(0, 64, 0);
  await file.open().read(0, 2 ** 20);
  assertEquals(file.log, []);
  const marked = (folio: Folio) => (folio.flags & PG_READAHEAD) !== 0;
  const any = file.folios().some(([i]) =>
    marked(filemapLookup(file.mapping, i)!)
  );
  assertFalse(any);
});

Deno.test("readahead takes memory from clean folios, not beyond the limit", async () => {
  const mm = new Mm(new VirtualClock(), { memory: 2 ** 21 });
  const file = new FakeFile({ mm, size: 2 ** 23, maxOrder: 4 });
  const reader = file.open();
  let most = 0;
  for (let pos = 0; pos < file.size; pos += 2 ** 16) {
    assertEquals(await reader.read(pos, 2 ** 16), 2 ** 16);
    most = Math.max(most, mm.nrPages);
  }
  assert(most <= mm.limit, `${most} pages`);
  assert(most > mm.limit / 2);
  invalidateMappingPages(file.mapping, 0, Infinity);
  assertEquals(mm.nrPages, 0);
});
