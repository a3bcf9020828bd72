import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertThrows,
} from "@std/assert";
import { SEC, VirtualClock } from "../../lib/clock.ts";
import { EAGAIN, EIO } from "../../lib/errno.ts";
import { IovIter } from "../../lib/iov-iter.ts";
import { Prng } from "../../lib/prng.ts";
import type { WritebackControl } from "../../mm/address-space.ts";
import {
  BdiWriteback,
  wbShutdown,
  wbStartBackgroundWriteback,
} from "../../mm/backing-dev.ts";
import { errseqError } from "../../mm/errseq.ts";
import {
  FGP_DONTCACHE,
  FGP_WRITEBEGIN,
  filemapFdatawriteRange,
  filemapGetFolio,
  filemapLookup,
  filemapRead,
  filemapWriteAndWaitRange,
  folioCancelDirty,
  folioClearDirtyForIo,
  folioEndWriteback,
  folioMarkDirty,
  folioStartWriteback,
  writebackIter,
} from "../../mm/filemap.ts";
import {
  Folio,
  folioMarkUptodate,
  folioPut,
  folioTrylock,
  folioUnlock,
} from "../../mm/folio.ts";
import { Mm } from "../../mm/mm.ts";
import { balanceDirtyPagesRatelimited } from "../../mm/page-writeback.ts";
import { truncatePagecacheRange } from "../../mm/truncate.ts";
import { checkMm } from "./check_mm.ts";
import { FakeFile } from "./fake_file.ts";

const PAGE = 4096;

function control(syncAll: boolean, nrToWrite = Infinity): WritebackControl {
  return {
    syncAll,
    rangeStart: 0,
    rangeEnd: Infinity,
    nrToWrite,
    taggedWritepages: false,
  };
}

/** First pages of the folios that a walk gives out, each answered with `error`. */
async function walk(
  file: FakeFile,
  wbc: WritebackControl,
  error = 0,
): Promise<number[]> {
  const iter = writebackIter(file.mapping, wbc);
  const seen: number[] = [];
  let last = 0;
  for (;;) {
    const folio = await iter.next(last);
    if (folio === null) break;
    assert(folio.locked && !folio.dirty && !folio.writeback);
    seen.push(folio.index);
    folioUnlock(folio);
    folioPut(folio);
    last = error;
  }
  assertEquals(iter.error, seen.length > 0 ? error : 0);
  return seen;
}

function tags(file: FakeFile, index: number): string {
  const { pages } = file.mapping;
  return ["D", "W", "T"].filter((_, tag) => pages.hasTag(index, tag)).join("");
}

Deno.test("filemapDirtyFolio() counts pages, tags and tells the inode once", async () => {
  const file = new FakeFile({ maxOrder: 3 });
  await file.fill(0, 8, 1);
  await file.fill(16, 1, 1);
  assertEquals([file.mm.nrDirty, file.mapping.nrDirty], [9, 9]);
  assertEquals([tags(file, 0), tags(file, 16)], ["D", "D"]);
  assertEquals(file.dirtied, 1);
  const folio = filemapLookup(file.mapping, 0)!;
  assertEquals(folioMarkDirty(folio), false);
  folioCancelDirty(folio);
  assertEquals([file.mm.nrDirty, tags(file, 0)], [1, ""]);
  folioCancelDirty(filemapLookup(file.mapping, 16)!);
  assertEquals(file.mapping.wb.hasDirtyIo, false);
  assertEquals(folioMarkDirty(folio), true);
  assertEquals(file.dirtied, 2);
});

Deno.test("folioClearDirtyForIo() leaves the tag, folioStartWriteback() takes it", async () => {
  const file = new FakeFile();
  await file.fill(0, 1, 1);
  const folio = filemapLookup(file.mapping, 0)!;
  folioTrylock(folio);
  assertEquals(folioClearDirtyForIo(folio), true);
  assertEquals(folioClearDirtyForIo(folio), false);
  assertEquals([file.mm.nrDirty, tags(file, 0)], [0, "D"]);
  folioStartWriteback(folio);
  assertEquals([file.mm.nrWriteback, tags(file, 0)], [1, "W"]);
  // Dirty again while it is written.
  folioMarkDirty(folio);
  assertEquals(tags(file, 0), "DW");
  folioUnlock(folio);
  folioEndWriteback(folio);
  assertEquals([file.mm.nrWriteback, tags(file, 0)], [0, "D"]);
});

Deno.test("folioMarkDirty() of a folio that was truncated counts nothing", async () => {
  const file = new FakeFile();
  await file.fill(0, 1, 1);
  const folio = filemapLookup(file.mapping, 0)!;
  folio.refcount++;
  truncatePagecacheRange(file.mapping, 0, Infinity);
  assertEquals(file.mm.nrDirty, 0);
  assertEquals(folioMarkDirty(folio), true);
  assertEquals(file.mm.nrDirty, 0);
});

Deno.test("folioEndWriteback() drops a clean dropbehind folio, and keeps one that is dirty again", async () => {
  const file = new FakeFile();
  file.held = [];
  for (const index of [0, 1]) {
    const fgp = FGP_WRITEBEGIN | FGP_DONTCACHE;
    const folio = filemapGetFolio(file.mapping, index, fgp, PAGE);
    assertInstanceOf(folio, Folio);
    folioMarkUptodate(folio);
    folioMarkDirty(folio);
    folioUnlock(folio);
    folioPut(folio);
  }
  await filemapFdatawriteRange(file.mapping, 0, Infinity, true);
  folioMarkDirty(filemapLookup(file.mapping, 1)!);
  file.held.forEach((folio) => file.writeDone(folio));
  assertEquals(file.folios(), [[1, 1]]);
  assertEquals(file.mm.nrPages, 1);
});

Deno.test("writebackIter() gives every dirty folio of the range, in order", async () => {
  const file = new FakeFile({ maxOrder: 2 });
  await file.fill(0, 4, 1);
  await file.fill(6, 2, 1);
  await file.fill(20, 1, 1);
  const inside = {
    ...control(true),
    rangeStart: 3 * PAGE,
    rangeEnd: 20 * PAGE - 1,
  };
  // The first folio holds the first byte though it begins before.
  assertEquals(await walk(file, inside), [0, 6]);
  assertEquals(await walk(file, control(true)), [20]);
});

Deno.test("writebackIter() goes on after an error when sync and answers the first", async () => {
  const file = new FakeFile();
  await file.fill(0, 3, 1);
  assertEquals(await walk(file, control(true), -EIO), [0, 1, 2]);
});

Deno.test("writebackIter() stops at an error when not sync", async () => {
  const file = new FakeFile();
  await file.fill(0, 3, 1);
  assertEquals(await walk(file, control(false), -EIO), [0]);
});

Deno.test("writebackIter() stops once the pages asked for are written when not sync", async () => {
  const file = new FakeFile({ maxOrder: 2 });
  await file.fill(0, 12, 1);
  const wbc = control(false, 5);
  assertEquals(await walk(file, wbc), [0, 4]);
  assertEquals(wbc.nrToWrite, -3);
  assertEquals(await walk(file, control(true, 1)), [8]);
});

Deno.test("writebackIter() does not write what gets dirty behind its back when sync", async () => {
  const file = new FakeFile();
  await file.fill(0, 2, 1);
  const iter = writebackIter(file.mapping, control(true));
  await file.fill(5, 1, 1);
  for (const index of [0, 1]) {
    const folio = await iter.next(0);
    assertEquals(folio!.index, index);
    folioStartWriteback(folio!);
    folioUnlock(folio!);
    folioPut(folio!);
  }
  assertEquals(await iter.next(0), null);
  assertEquals([tags(file, 1), tags(file, 5)], ["W", "D"]);
  folioEndWriteback(filemapLookup(file.mapping, 0)!);
  folioEndWriteback(filemapLookup(file.mapping, 1)!);
});

Deno.test("writebackIter() waits for a folio that is being written when sync, and skips it when not", async () => {
  const file = new FakeFile();
  file.held = [];
  await file.fill(0, 1, 1);
  await file.fill(3, 1, 1);
  await filemapFdatawriteRange(file.mapping, 0, 0, true);
  folioMarkDirty(filemapLookup(file.mapping, 0)!);
  assertEquals(await walk(file, control(false)), [3]);
  const [folio] = file.held;
  file.clock.at(700, () => file.writeDone(folio!), null);
  assertEquals(await walk(file, control(true)), [0]);
  assertEquals(file.clock.now(), 700);
});

Deno.test("writebackIter() passes over a folio that was truncated while its lock was awaited", async () => {
  const file = new FakeFile();
  await file.fill(0, 2, 1);
  const folio = filemapLookup(file.mapping, 0)!;
  folioTrylock(folio);
  const gone = truncatePagecacheRange(file.mapping, 0, PAGE - 1);
  const walked = walk(file, control(true));
  folioUnlock(folio);
  await gone;
  assertEquals(await walked, [1]);
});

Deno.test("fsync waits for a folio that another walk has taken and not yet started", async () => {
  const file = new FakeFile();
  await file.fill(0, 1, 1);
  const other = await writebackIter(file.mapping, control(false)).next(0);
  const synced = filemapWriteAndWaitRange(file.mapping, 0, Infinity);
  assertInstanceOf(synced, Promise);
  file.clock.at(100, () => {
    folioStartWriteback(other!);
    folioUnlock(other!);
  }, null);
  file.clock.at(900, () => folioEndWriteback(other!), null);
  assertEquals(await synced, 0);
  assertEquals(file.clock.now(), 900);
  folioPut(other!);
});

/** Writes pages one after another as a buffered write does. */
async function stream(file: FakeFile, first: number, pages: number) {
  let most = 0;
  for (let index = first; index < first + pages; index++) {
    const error = balanceDirtyPagesRatelimited(file.mapping, false);
    assertEquals(error instanceof Promise ? await error : error, 0);
    const filled = file.fill(index, 1, index & 255);
    if (filled instanceof Promise) await filled;
    most = Math.max(most, file.mm.nrDirty + file.mm.nrWriteback);
  }
  return most;
}

Deno.test("balanceDirtyPagesRatelimited() is free of cost below the background limit", async () => {
  const mm = new Mm(new VirtualClock(), { memory: 2 ** 24 });
  const file = new FakeFile({ mm });
  await file.fill(0, mm.backgroundThresh, 1);
  assertEquals(balanceDirtyPagesRatelimited(file.mapping, false), 0);
  assertEquals(file.mapping.wb.running, false);
});

Deno.test("balanceDirtyPagesRatelimited() starts the flusher above the background limit", async () => {
  const mm = new Mm(new VirtualClock(), { memory: 2 ** 24 });
  const file = new FakeFile({ mm });
  file.latency = 1000;
  await file.fill(0, mm.backgroundThresh + 1, 1);
  assertEquals(balanceDirtyPagesRatelimited(file.mapping, false), 0);
  assertEquals([file.mapping.wb.running, mm.nrWriteback], [true, 0]);
  await mm.clock.sleep(5000);
  assertEquals([file.mapping.wb.running, mm.nrWriteback], [false, 0]);
  assert(mm.nrDirty <= mm.backgroundThresh);
});

Deno.test("the flusher gives every file its turn", async () => {
  const mm = new Mm(new VirtualClock(), { memory: 2 ** 26 });
  const files = [1, 2].map(() => new FakeFile({ mm }));
  for (const file of files) {
    file.latency = 100;
    await file.fill(0, 1600, 1);
  }
  // 1562 too many: the first file alone has as many.
  assertEquals(balanceDirtyPagesRatelimited(files[1]!.mapping, false), 0);
  await mm.clock.sleep(10000);
  assert(mm.nrDirty <= mm.backgroundThresh);
  assertEquals(files.map((file) => file.log.length), [1024, 1024]);
});

Deno.test("balanceDirtyPagesRatelimited() answers -EAGAIN above the limit when it must not wait", async () => {
  const mm = new Mm(new VirtualClock(), { memory: 2 ** 24 });
  const file = new FakeFile({ mm });
  await file.fill(0, mm.dirtyThresh + 1, 1);
  assertEquals(balanceDirtyPagesRatelimited(file.mapping, true), -EAGAIN);
  await mm.clock.sleep(10);
});

Deno.test("balanceDirtyPagesRatelimited() holds a writer to the speed of the device", async () => {
  const mm = new Mm(new VirtualClock(), { memory: 2 ** 24 });
  const file = new FakeFile({ mm });
  file.latency = 100_000;
  const most = await stream(file, 0, 4 * mm.limit);
  assert(most <= mm.dirtyThresh + 1, `${most} pages`);
  assert(mm.nrPages <= mm.limit);
  assert(mm.clock.now() > 0);
  assertEquals(await filemapWriteAndWaitRange(file.mapping, 0, Infinity), 0);
});

Deno.test("balanceDirtyPagesRatelimited() of a synchronous caller needs no other task", () => {
  const clock = new VirtualClock();
  const mm = new Mm(clock, { memory: 2 ** 24 });
  const file = new FakeFile({ mm });
  file.latency = 100_000;
  clock.enterSync();
  let most = 0;
  for (let index = 0; index < 4 * mm.limit; index++) {
    assertEquals(balanceDirtyPagesRatelimited(file.mapping, false), 0);
    assertEquals(file.fill(index, 1, 1), undefined);
    most = Math.max(most, mm.nrDirty + mm.nrWriteback);
  }
  assertEquals(filemapWriteAndWaitRange(file.mapping, 0, Infinity), 0);
  clock.leaveSync();
  assert(most <= mm.dirtyThresh + 1, `${most} pages`);
  assert(mm.nrPages <= mm.limit);
});

Deno.test("balanceDirtyPagesRatelimited() of a synchronous caller writes its own file first", () => {
  const mm = new Mm(new VirtualClock(), { memory: 2 ** 24 });
  const [old, writer] = [1, 2].map(() => new FakeFile({ mm }));
  mm.clock.enterSync();
  old!.fill(0, 9, 1);
  writer!.fill(0, mm.dirtyThresh, 1);
  assertEquals(balanceDirtyPagesRatelimited(writer!.mapping, false), 0);
  mm.clock.leaveSync();
  assertEquals(old!.log, []);
});

Deno.test("balanceDirtyPagesRatelimited() writes other files where the writer's own is clean", async () => {
  const mm = new Mm(new VirtualClock(), { memory: 2 ** 24 });
  const [old, young, writer] = [1, 2, 3].map(() => new FakeFile({ mm }));
  await old!.fill(0, mm.backgroundThresh - 9, 1);
  await young!.fill(0, mm.dirtyThresh, 1);
  assertEquals(
    await balanceDirtyPagesRatelimited(writer!.mapping, false),
    0,
  );
  assertEquals(old!.mapping.nrDirty, 0);
  assert(young!.log.length > 0);
  assert(mm.nrDirty <= mm.backgroundThresh);
  await mm.clock.sleep(10);
});

Deno.test("balanceDirtyPagesRatelimited() lets go of the writer when nothing can be written", async () => {
  const mm = new Mm(new VirtualClock(), { memory: 2 ** 24 });
  const file = new FakeFile({ mm });
  await file.fill(0, mm.dirtyThresh + 1, 1);
  file.writepages = () => -EIO;
  assertEquals(await balanceDirtyPagesRatelimited(file.mapping, false), 0);
  await mm.clock.sleep(10);
  assertEquals(file.mapping.wb.running, false);
});

/** Lets time pass: the flusher's timer does not move it by itself. */
async function pass(mm: Mm, seconds: number): Promise<void> {
  await mm.clock.sleep(seconds * SEC);
  await mm.clock.sleep(10);
}

Deno.test("the flusher writes what has been dirty for 30 seconds, and nothing younger", async () => {
  const mm = new Mm(new VirtualClock());
  const [old, young] = [1, 2].map(() => new FakeFile({ mm }));
  await old!.fill(0, 3, 1);
  await pass(mm, 4);
  await young!.fill(0, 2, 1);
  // Dirty already: it does not become younger.
  await old!.fill(1, 1, 2);
  await pass(mm, 25);
  assertEquals([old!.log, young!.log], [[], []]);
  await pass(mm, 1);
  assertEquals([old!.log, young!.log], [["w 0", "w 1", "w 2"], []]);
  await pass(mm, 4);
  assertEquals(young!.log, []);
  await pass(mm, 1);
  assertEquals(young!.log, ["w 0", "w 1"]);
  assertEquals(mm.clock.pending, 0);
});

Deno.test("the flusher's timer neither moves time nor keeps the process alive", async () => {
  const mm = new Mm(new VirtualClock());
  const file = new FakeFile({ mm });
  await file.fill(0, 3, 1);
  assertEquals([mm.clock.pending, mm.clock.now()], [0, 0]);
  await pass(mm, 60);
  assertEquals(file.log.length, 3);
  // Clean: nobody looks any more until something is dirty.
  await file.fill(0, 1, 2);
  const { timer } = file.mapping.wb;
  assert(timer !== 0);
  wbShutdown(file.mapping.wb);
  await pass(mm, 60);
  assertEquals([file.log.length, file.mapping.wb.timer], [3, 0]);
});

Deno.test("the flusher writes all of an old file, slice by slice", async () => {
  const mm = new Mm(new VirtualClock());
  const file = new FakeFile({ mm });
  await file.fill(0, 2500, 1);
  await pass(mm, 30);
  assertEquals(file.log.length, 2500);
});

Deno.test("the flusher goes on where it has stopped when the beginning is dirtied again and again", async () => {
  const mm = new Mm(new VirtualClock(), { memory: 2 ** 25 });
  const file = new FakeFile({ mm, size: 3000 * PAGE });
  file.latency = 100;
  await file.fill(0, 3000, 1);
  const { mapping, log } = file;
  const writepages = file.writepages.bind(file);
  let slices = 0;
  file.writepages = async (_, wbc) => {
    const error = await writepages(mapping, wbc);
    await mm.clock.sleep(1000);
    if (++slices < 10) { for (let i = 0; i < 1500; i++) redirty(file, i); }
    return error;
  };
  wbStartBackgroundWriteback(mapping.wb);
  await mm.clock.sleep(SEC);
  const last = log.indexOf("w 2999");
  assert(last > 0 && last < 3100, `written after ${last} others`);
  // Then it begins again.
  assertEquals(log[last + 1], "w 0");
  checkMm(mm, [mapping]);
});

Deno.test("the flusher writes what is old before the place where it has stopped", async () => {
  const mm = new Mm(new VirtualClock());
  const file = new FakeFile({ mm });
  await file.fill(0, 3, 1);
  file.mapping.writebackIndex = 100;
  await pass(mm, 30);
  assertEquals(file.log, ["w 0", "w 1", "w 2"]);
});

function redirty(file: FakeFile, index: number): void {
  const folio = filemapLookup(file.mapping, index)!;
  if (!folio.writeback) folioMarkDirty(folio);
}

Deno.test("folioStartWriteback() and folioEndWriteback() throw when it is not their turn", async () => {
  const file = new FakeFile();
  file.held = [];
  await file.fill(0, 1, 1);
  const folio = filemapLookup(file.mapping, 0)!;
  assertThrows(() => folioEndWriteback(folio), Error, "BUG");
  await filemapFdatawriteRange(file.mapping, 0, Infinity, false);
  assertThrows(() => folioStartWriteback(folio), Error, "BUG");
  file.writeDone(folio);
  assertEquals(file.mm.nrWriteback, 0);
});

Deno.test("an old file that cannot be written now is young again", async () => {
  const mm = new Mm(new VirtualClock());
  const file = new FakeFile({ mm });
  file.held = [];
  await file.fill(0, 1, 1);
  await pass(mm, 30);
  // Dirty again while it is under writeback, which does not end.
  await file.fill(0, 1, 2);
  await pass(mm, 31);
  file.writeDone(file.held.pop()!);
  await pass(mm, 25);
  assertEquals(file.log.length, 1);
  await pass(mm, 5);
  assertEquals(file.log.length, 2);
  file.writeDone(file.held.pop()!);
});

Deno.test("a file that was written while it was dirtied again is young", async () => {
  const mm = new Mm(new VirtualClock());
  const file = new FakeFile({ mm });
  file.held = [];
  await file.fill(0, 1, 1);
  await pass(mm, 30);
  assertEquals(file.held.length, 1);
  // Under writeback, it is not written again but looked at.
  await file.fill(0, 1, 2);
  file.writeDone(file.held.pop()!);
  await pass(mm, 25);
  assertEquals(file.log.length, 1);
  await pass(mm, 5);
  assertEquals(file.log.length, 2);
  file.writeDone(file.held.pop()!);
});

Deno.test("each device has a flusher and an error of its own", async () => {
  const mm = new Mm(new VirtualClock(), { memory: 2 ** 26 });
  const files = [1, 2].map(() =>
    new FakeFile({ mm, wb: new BdiWriteback(mm) })
  );
  const [stuck, other] = files;
  stuck!.held = [];
  for (const file of files) await file.fill(0, 1600, 1);
  for (const file of files) {
    assertEquals(balanceDirtyPagesRatelimited(file.mapping, false), 0);
  }
  await mm.clock.sleep(1000);
  assert(stuck!.held.length > 0 && other!.log.length > 0);
  assertEquals(files.map((file) => file.mapping.wb.running), [false, false]);
  const { held } = stuck!;
  stuck!.held = null;
  stuck!.writeError = -EIO;
  held!.forEach((folio) => stuck!.writeDone(folio));
  assertEquals(
    files.map(({ mapping }) => errseqError(mapping.wb.wbErr)),
    [-EIO, 0],
  );
  assertEquals(stuck!.mapping.wb.nrWriteback, 0);
});

Deno.test("a writer over the limit goes on once enough has been written", async () => {
  const mm = new Mm(new VirtualClock(), { memory: 2 ** 24 });
  const file = new FakeFile({ mm });
  file.held = [];
  await file.fill(0, mm.dirtyThresh + 1, 1);
  let done = false;
  const paced = balanceDirtyPagesRatelimited(file.mapping, false);
  assertInstanceOf(paced, Promise);
  void paced.then(() => done = true);
  await mm.clock.sleep(10);
  assertEquals([done, file.mapping.wb.running], [false, false]);
  const over = mm.nrDirty + mm.nrWriteback - mm.freerun;
  for (let i = 1; i < over; i++) file.writeDone(file.held.pop()!);
  await mm.clock.sleep(10);
  assertEquals(done, false);
  file.writeDone(file.held.pop()!);
  await mm.clock.sleep(10);
  assertEquals(done, true);
  file.held.forEach((folio) => file.writeDone(folio));
});

Deno.test("balanceDirtyPagesRatelimited() lets nobody overtake a writer that waits", async () => {
  const mm = new Mm(new VirtualClock(), { memory: 2 ** 24 });
  const [file, other] = [1, 2].map(() => new FakeFile({ mm }));
  file!.held = [];
  await file!.fill(0, mm.dirtyThresh + 1, 1);
  const waited = balanceDirtyPagesRatelimited(file!.mapping, false);
  await mm.clock.sleep(10);
  await filemapFdatawriteRange(file!.mapping, 0, Infinity, false);
  const dirty = () => mm.nrDirty + mm.nrWriteback;
  while (dirty() > mm.freerun) {
    file!.writeDone(file!.held.pop()!);
    assertEquals(
      balanceDirtyPagesRatelimited(other!.mapping, true),
      dirty() > mm.freerun ? -EAGAIN : 0,
    );
  }
  assertEquals([await waited, mm.nrThrottled], [0, 0]);
  await other!.fill(0, 1, 1);
  assert(dirty() > mm.freerun);
  assertEquals(balanceDirtyPagesRatelimited(other!.mapping, true), 0);
  file!.held.forEach((folio) => file!.writeDone(folio));
});

Deno.test("several writers share the limits and all their data arrives", async () => {
  const mm = new Mm(new VirtualClock(), { memory: 2 ** 23 });
  const files = [1, 2, 3].map(() => {
    const file = new FakeFile({ mm, size: 700 * PAGE });
    file.latency = 30_000;
    return file;
  });
  await Promise.all(files.map((file) => stream(file, 0, 700)));
  for (const file of files) {
    assertEquals(await filemapWriteAndWaitRange(file.mapping, 0, Infinity), 0);
    for (let index = 0; index < 700; index++) {
      assertEquals(file.disk[index * PAGE + 17], index & 255);
    }
  }
  assertEquals([mm.nrDirty, mm.nrWriteback], [0, 0]);
});

// Goal: tags, counters and data agree whatever overlaps. Method: random writes,
// reads, flushes and truncations on one file, delays of the device between. Oracle:
// a plain array; the counters are counted again at each step.
Deno.test("the page cache agrees with a plain array under random use", async () => {
  for (const seed of [1, 2, 3]) {
    const random = new Prng(seed, "cache");
    const clock = new VirtualClock();
    const mm = new Mm(clock, { memory: 2 ** 22 });
    const pages = 1600;
    const file = new FakeFile({ mm, maxOrder: 5, size: pages * PAGE });
    const model = file.disk.slice();
    const reader = file.open();
    for (let round = 0; round < 400; round++) {
      file.latency = random.below(3) * 1000;
      const index = random.below(pages);
      const count = Math.min(pages - index, 1 + random.below(40));
      const choice = random.below(10);
      if (choice < 4) {
        await balanceDirtyPagesRatelimited(file.mapping, false);
        await write(file, index, count, round & 255);
        model.fill(round & 255, index * PAGE, (index + count) * PAGE);
      } else if (choice < 8) {
        const from = index * PAGE + random.below(PAGE);
        const buffer = new Uint8Array(Math.min(count * PAGE, file.size - from));
        reader.pos = from;
        assertEquals(
          await filemapRead(reader, new IovIter(buffer)),
          buffer.length,
        );
        const expected = model.subarray(from, from + buffer.length);
        assert(buffer.every((byte, i) => byte === expected[i]));
      } else if (choice < 9) {
        const last = (index + count) * PAGE - 1;
        await filemapWriteAndWaitRange(file.mapping, index * PAGE, last);
      } else {
        // Dropped without being written: the disk's contents show again.
        const last = (index + count) * PAGE - 1;
        await filemapWriteAndWaitRange(file.mapping, 0, Infinity);
        await truncatePagecacheRange(file.mapping, index * PAGE, last);
      }
      checkMm(mm, [file.mapping], 0);
    }
    await filemapWriteAndWaitRange(file.mapping, 0, Infinity);
    assert(file.disk.every((byte, i) => byte === model[i]));
    await truncatePagecacheRange(file.mapping, 0, Infinity);
    assertEquals([mm.nrPages, file.mapping.nrPages], [0, 0]);
  }
});

/** Whole pages, as a write does it: existing folios are used as they are. */
async function write(
  file: FakeFile,
  first: number,
  count: number,
  byte: number,
) {
  for (let index = first; index < first + count;) {
    const size = (first + count - index) * PAGE;
    const got = filemapGetFolio(file.mapping, index, FGP_WRITEBEGIN, size);
    const folio = got instanceof Promise ? await got : got;
    assertInstanceOf(folio, Folio);
    const last = Math.min(folio.index + folio.size / PAGE, first + count);
    const start = folio.offset + index * PAGE - folio.pos;
    if (!folio.uptodate && (last - index) * PAGE < folio.size) {
      const old = file.disk.subarray(folio.pos, folio.pos + folio.size);
      folio.data.set(old, folio.offset);
    }
    folio.data.fill(byte, start, start + (last - index) * PAGE);
    folioMarkUptodate(folio);
    folioMarkDirty(folio);
    index = last;
    folioUnlock(folio);
    folioPut(folio);
  }
}
