import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import {
  EAGAIN,
  EFAULT,
  EINVAL,
  EIO,
  ENOENT,
  ENOSPC,
  ENXIO,
} from "../../lib/errno.ts";
import { IovIter } from "../../lib/iov-iter.ts";
import { mappingSetError } from "../../mm/address-space.ts";
import {
  FGP_ACCESSED,
  FGP_CREAT,
  FGP_DONTCACHE,
  FGP_LOCK,
  FGP_NOWAIT,
  FGP_WRITEBEGIN,
  filemapFdatawaitRange,
  filemapFdatawriteRange,
  filemapGetFolio,
  filemapLookup,
  filemapRangeHasPage,
  filemapRangeNeedsWriteback,
  filemapRead,
  filemapSampleWbErr,
  filemapWriteAndWaitRange,
  fileWriteAndWaitRange,
  mappingSeekHoleData,
} from "../../mm/filemap.ts";
import {
  Folio,
  folioNextIndex,
  folioPut,
  folioTrylock,
  folioUnlock,
  PG_DROPBEHIND,
  PG_REFERENCED,
  PG_UPTODATE,
} from "../../mm/folio.ts";
import {
  IOCB_DONTCACHE,
  IOCB_NOIO,
  IOCB_NOWAIT,
  IOCB_SYNC_CALL,
  IOCB_WAITQ,
} from "../../mm/iocb-flags.ts";
import { truncatePagecacheRange } from "../../mm/truncate.ts";
import { shrinkFolios } from "../../mm/vmscan.ts";
import { FakeFile, pattern } from "./fake_file.ts";

const PAGE = 4096;
const MAX_CHUNK = 2 ** 21;

function get(file: FakeFile, index: number, fgp: number, size = PAGE): Folio {
  const folio = filemapGetFolio(file.mapping, index, fgp, size);
  assertInstanceOf(folio, Folio);
  return folio;
}

/** Folios that a write makes: it goes by the bytes left in the largest folio. */
function written(pos: number, len: number, maxOrder = 9): [number, number][] {
  const file = new FakeFile({ maxOrder });
  for (let at = pos; at < pos + len;) {
    const bytes = Math.min(pos + len - at, MAX_CHUNK - at % MAX_CHUNK);
    const folio = get(file, Math.floor(at / PAGE), FGP_WRITEBEGIN, bytes);
    at = Math.min(pos + len, folioNextIndex(folio) * PAGE);
    folioUnlock(folio);
    folioPut(folio);
  }
  return file.folios();
}

Deno.test("filemapGetFolio() chooses folio sizes as the kernel does", () => {
  const rows: [number, number, [number, number][]][] = [
    [0, 5000, [[0, 1], [1, 1]]],
    [0, 8192, [[0, 2]]],
    [0, 12288, [[0, 2], [2, 1]]],
    [4096, 16384, [[1, 1], [2, 2], [4, 1]]],
    [8192, 65536, [[2, 2], [4, 4], [8, 8], [16, 2]]],
    [0, 100000, [[0, 16], [16, 8], [24, 1]]],
    [0, 2 ** 20, [[0, 256]]],
    [0, 3 * 2 ** 20, [[0, 512], [512, 256]]],
    [4096, 2 ** 20, [
      [1, 1],
      [2, 2],
      [4, 4],
      [8, 8],
      [16, 16],
      [32, 32],
      [64, 64],
      [128, 128],
      [256, 1],
    ]],
  ];
  for (const [pos, len, folios] of rows) {
    assertEquals(written(pos, len), folios, `write (${pos}, ${len})`);
  }
  assertEquals(written(0, 65536, 2), [[0, 4], [4, 4], [8, 4], [12, 4]]);
  assertEquals(written(0, 8192, 0), [[0, 1], [1, 1]]);
});

Deno.test("filemapGetFolio() makes a folio that fits between what is cached", async () => {
  const file = new FakeFile({ maxOrder: 9 });
  await file.fill(5, 1, 0);
  const folio = get(file, 0, FGP_WRITEBEGIN, 2 ** 20);
  assertEquals([folio.index, folio.order], [0, 2]);
});

Deno.test("filemapGetFolio() answers the folio that is there, of whatever size", async () => {
  const file = new FakeFile({ maxOrder: 9 });
  await file.fill(0, 8, 0);
  const folio = get(file, 5, FGP_WRITEBEGIN, PAGE);
  assertEquals([folio.index, folio.order], [0, 3]);
  assertEquals([folio.refcount, folio.locked], [2, true]);
});

Deno.test("filemapGetFolio() aligns to the smallest order of the mapping", () => {
  const file = new FakeFile({ maxOrder: 9, blkbits: 14 });
  file.mapping.minOrder = 2;
  const folio = get(file, 7, FGP_WRITEBEGIN, 100);
  assertEquals([folio.index, folio.order], [4, 2]);
});

Deno.test("filemapGetFolio() answers -ENOENT when absent and not to be made", () => {
  const file = new FakeFile();
  assertEquals(filemapGetFolio(file.mapping, 0, FGP_LOCK, 0), -ENOENT);
});

Deno.test("filemapGetFolio() answers -EAGAIN when locked and not to wait", () => {
  const file = new FakeFile();
  get(file, 0, FGP_WRITEBEGIN);
  assertEquals(
    filemapGetFolio(file.mapping, 0, FGP_LOCK | FGP_NOWAIT, 0),
    -EAGAIN,
  );
});

Deno.test("filemapGetFolio() makes another one when the folio it waited for was truncated", async () => {
  const file = new FakeFile({ size: PAGE });
  await file.fill(0, 1, 1);
  const old = get(file, 0, FGP_LOCK);
  const gone = truncatePagecacheRange(file.mapping, 0, Infinity);
  const waiting = filemapGetFolio(file.mapping, 0, FGP_WRITEBEGIN, PAGE);
  assertInstanceOf(waiting, Promise);
  folioUnlock(old);
  const folio = await waiting;
  assertInstanceOf(folio, Folio);
  // Compared by identity: a folio refers to all of memory.
  assert(folio !== old);
  assert(filemapLookup(file.mapping, 0) === folio);
  assert(!folio.uptodate);
  assert(old.mapping === null);
  folioUnlock(folio);
  await gone;
});

Deno.test("filemapGetFolio() marks only what it makes for dropping, and ordinary use takes the mark away", () => {
  const file = new FakeFile();
  const marked = () =>
    (filemapLookup(file.mapping, 0)!.flags & PG_DROPBEHIND) !== 0;
  const use = (fgp: number) => {
    const folio = get(file, 0, fgp);
    folioUnlock(folio);
    folioPut(folio);
    return marked();
  };
  assertEquals(use(FGP_WRITEBEGIN | FGP_DONTCACHE), true);
  assertEquals(use(FGP_WRITEBEGIN | FGP_DONTCACHE), true);
  assertEquals(use(FGP_WRITEBEGIN), false);
  assertEquals(use(FGP_WRITEBEGIN | FGP_DONTCACHE), false);
});

Deno.test("filemapGetFolio() notes an access when it is told to", () => {
  const file = new FakeFile();
  const folio = get(file, 0, FGP_LOCK | FGP_CREAT | FGP_ACCESSED);
  assert((folio.flags & PG_REFERENCED) !== 0);
});

Deno.test("filemapRead() answers 0 at and beyond the end, -EINVAL for a negative position", () => {
  const file = new FakeFile({ size: 5000 });
  const reader = file.open();
  assertEquals(reader.read(5000, 10), 0);
  assertEquals(reader.read(10000, 10), 0);
  assertEquals(reader.read(100, 0), 0);
  assertEquals(reader.read(-1, 10), -EINVAL);
  assertEquals(file.log, []);
});

Deno.test("filemapRead() reads every offset and length right, and no promise when cached", async () => {
  const file = new FakeFile({ size: 40 * PAGE + 123, maxOrder: 3 });
  file.latency = 1000;
  const reader = file.open();
  for (const warm of [false, true]) {
    for (const pos of [0, 1, 4095, 4096, 8191, 20000, 163960, 163962]) {
      for (const len of [1, 2, 4096, 4097, 70000]) {
        const n = reader.read(pos, len);
        if (warm) assert(!(n instanceof Promise));
        const expected = Math.max(0, Math.min(len, file.size - pos));
        assertEquals(await n, expected, `read ${len} at ${pos}`);
        assertEquals(reader.pos, pos + expected);
        assertEquals(
          reader.buffer.subarray(0, expected),
          pattern(pos, expected),
        );
      }
    }
  }
});

Deno.test("filemapRead() fills several buffers over several folios", async () => {
  const file = new FakeFile({ size: 10 * PAGE });
  const parts = [3000, 0, 5000, 9000].map((n) => new Uint8Array(n));
  const reader = file.open();
  reader.pos = 777;
  assertEquals(await filemapRead(reader, new IovIter(...parts)), 17000);
  let pos = 777;
  for (const part of parts) {
    assertEquals(part, pattern(pos, part.length));
    pos += part.length;
  }
});

Deno.test("filemapRead() of a synchronous caller runs the clock in place", () => {
  const file = new FakeFile({ size: 64 * PAGE, maxOrder: 9 });
  file.latency = 5000;
  const reader = file.open(IOCB_SYNC_CALL);
  file.clock.enterSync();
  for (let page = 0; page < 64; page += 4) {
    assertEquals(reader.read(page * PAGE, 4 * PAGE), 4 * PAGE);
  }
  file.clock.leaveSync();
  assert(file.clock.now() > 0);
  // The windows ahead of the reader were on their way while it went on.
  assert(file.clock.now() < 16 * 5000);
});

Deno.test("filemapRead() answers -EAGAIN when a synchronous caller meets a truncation", () => {
  const file = new FakeFile({ size: PAGE });
  file.mapping.invalidateLock.tryDownWrite();
  file.clock.enterSync();
  assertEquals(file.open(IOCB_SYNC_CALL).read(0, PAGE), -EAGAIN);
  file.clock.leaveSync();
  assertEquals(file.log, []);
});

Deno.test("filemapRead() starts the I/O and answers -EAGAIN when it must not wait", async () => {
  const file = new FakeFile({ size: 8 * PAGE });
  file.latency = 1000;
  const reader = file.open(IOCB_NOWAIT);
  assertEquals(reader.read(0, PAGE), -EAGAIN);
  assertEquals(file.log, ["a 0+4"]);
  await file.clock.sleep(2000);
  assertEquals(reader.read(0, PAGE), PAGE);
});

Deno.test("filemapRead() answers what is cached when it must not wait", async () => {
  const file = new FakeFile({ size: 8 * PAGE });
  await file.fill(0, 2, 7);
  file.latency = 1000;
  assertEquals(file.open(IOCB_NOWAIT).read(100, 4 * PAGE), 2 * PAGE - 100);
  await file.clock.sleep(2000);
});

Deno.test("filemapRead() starts no I/O with IOCB_NOIO", async () => {
  const file = new FakeFile({ size: 64 * PAGE });
  assertEquals(file.open(IOCB_NOIO).read(0, PAGE), -EAGAIN);
  assertEquals(file.log, []);
  // Page 1 has the mark: who gets there would have to read ahead.
  await file.open().read(0, PAGE);
  file.log.length = 0;
  assertEquals(file.open(IOCB_NOIO).read(PAGE, PAGE), -EAGAIN);
  assertEquals(file.open(IOCB_NOIO).read(0, 2 * PAGE), PAGE);
  assertEquals(file.log, []);
});

Deno.test("filemapRead() with IOCB_WAITQ answers -EAGAIN where it would read a folio", async () => {
  const file = new FakeFile({ size: PAGE });
  const reader = file.open(IOCB_WAITQ);
  file.takeAtMost = 0;
  assertEquals(await reader.read(0, PAGE), -EAGAIN);
  file.takeAtMost = Infinity;
  file.readError = () => true;
  // Readahead fails where nobody sees it.
  assertEquals(await reader.read(0, PAGE), -EAGAIN);
  reader.flags = 0;
  assertEquals(await reader.read(0, PAGE), -EIO);
});

Deno.test("filemapRead() answers -EIO whatever happened, and the count when there was progress", async () => {
  const file = new FakeFile({ size: 8 * PAGE });
  file.readError = (index) => index === 2;
  const reader = file.open();
  assertEquals(await reader.read(0, 4 * PAGE), 2 * PAGE);
  assertEquals(await reader.read(2 * PAGE, PAGE), -EIO);
  assertEquals(reader.pos, 2 * PAGE);
  assertEquals(await reader.read(3 * PAGE, PAGE), PAGE);
});

Deno.test("filemapRead() uses the valid part of a folio that is not uptodate", async () => {
  const file = new FakeFile({ size: 4 * PAGE, blkbits: 10 });
  await file.fill(0, 1, 9);
  const folio = filemapLookup(file.mapping, 0)!;
  folio.flags &= ~PG_UPTODATE;
  file.partlyUptodate = (_folio, from, count) =>
    from >= 1024 && from + count <= 3072;
  const reader = file.open();
  assertEquals(reader.read(1024, 2000), 2000);
  assertEquals(reader.buffer[1999], 9);
  assertEquals(file.log, []);
  await reader.read(1024, 2049);
  assertEquals(file.log, ["r 0"]);
});

Deno.test("filemapRead() of a whole folio wants all of it uptodate", async () => {
  const file = new FakeFile({ size: 4 * PAGE, blkbits: 10 });
  await file.fill(0, 1, 9);
  filemapLookup(file.mapping, 0)!.flags &= ~PG_UPTODATE;
  file.partlyUptodate = () => true;
  await file.open().read(0, PAGE);
  assertEquals(file.log, ["r 0"]);
});

Deno.test("filemapRead() never uses a part when blocks are as large as folios", async () => {
  const file = new FakeFile({ size: 4 * PAGE });
  await file.fill(0, 1, 9);
  filemapLookup(file.mapping, 0)!.flags &= ~PG_UPTODATE;
  file.partlyUptodate = () => true;
  await file.open().read(100, 100);
  assertEquals(file.log, ["r 0"]);
});

Deno.test("filemapRead() stops at the new end when the file shrinks while it waits", async () => {
  const file = new FakeFile({ size: 4 * PAGE });
  file.latency = 1000;
  const reading = file.open().read(0, 4 * PAGE);
  file.size = 5000;
  assertEquals(await reading, 5000);
});

Deno.test("filemapRead() answers -EFAULT when its memory goes while it waits", async () => {
  const file = new FakeFile({ size: 8 * PAGE });
  file.latency = 1000;
  const buffer = new Uint8Array(2 * PAGE);
  const reader = file.open();
  const read = filemapRead(reader, new IovIter(buffer));
  buffer.buffer.transfer();
  assertEquals(await read, -EFAULT);
  // All of it is cached now: the same without a wait.
  assertEquals(filemapRead(reader, new IovIter(buffer)), 0);
  const gone = new IovIter(new Uint8Array(0));
  gone.count = PAGE;
  assertEquals(filemapRead(reader, gone), -EFAULT);
  const half = new IovIter(new Uint8Array(100));
  half.count = PAGE;
  assertEquals(filemapRead(reader, half), 100);
  assertEquals(filemapLookup(file.mapping, 0)!.refcount, 1);
});

Deno.test("filemapRead() looks again when the folio it waited for is truncated", async () => {
  const file = new FakeFile({ size: 4 * PAGE });
  file.latency = 1000;
  const reader = file.open();
  const reading = reader.read(0, PAGE);
  const gone = truncatePagecacheRange(file.mapping, 0, Infinity);
  await gone;
  assertEquals(await reading, PAGE);
  assertEquals(reader.buffer.subarray(0, PAGE), pattern(0, PAGE));
});

Deno.test("filemapRead() waits for a truncation that is going on", async () => {
  const file = new FakeFile({ size: 4 * PAGE });
  file.mapping.invalidateLock.tryDownWrite();
  const reading = file.open().read(0, PAGE);
  assertInstanceOf(reading, Promise);
  assertEquals(file.log, []);
  file.mapping.invalidateLock.upWrite();
  assertEquals(await reading, PAGE);
  assert(!file.mapping.invalidateLock.isLocked);
});

Deno.test("filemapRead() with IOCB_DONTCACHE leaves nothing it has read, and what was there", async () => {
  const file = new FakeFile({ size: 8 * PAGE });
  await file.fill(0, 2, 5);
  file.size = 8 * PAGE;
  const reader = file.open(IOCB_DONTCACHE);
  file.latency = 100;
  assertEquals(await reader.read(0, 8 * PAGE), 8 * PAGE);
  assertEquals(
    reader.buffer.subarray(2 * PAGE, 8 * PAGE),
    pattern(8192, 24576),
  );
  assertEquals(file.folios(), [[0, 1], [1, 1]]);
  assertEquals(file.mm.nrPages, 2);
});

Deno.test("filemapWriteAndWaitRange() writes the dirty folios of the range alone", async () => {
  const file = new FakeFile();
  file.latency = 1000;
  await file.fill(0, 8, 3);
  assertEquals(file.dirtied, 1);
  const done = filemapWriteAndWaitRange(file.mapping, 2 * PAGE + 5, 4 * PAGE);
  assertEquals(await done, 0);
  assertEquals(file.log, ["w 2", "w 3", "w 4"]);
  assertEquals([file.mm.nrDirty, file.mm.nrWriteback], [5, 0]);
  assertEquals(await filemapWriteAndWaitRange(file.mapping, 1, 0), 0);
  assertEquals(await filemapWriteAndWaitRange(file.mapping, 0, Infinity), 0);
  assertEquals(file.log.length, 8);
  assertEquals(file.mapping.wb.hasDirtyIo, false);
});

Deno.test("filemapFdatawriteRange() starts without waiting, filemapFdatawaitRange() waits", async () => {
  const file = new FakeFile();
  file.latency = 1000;
  await file.fill(0, 2, 3);
  assertEquals(filemapFdatawriteRange(file.mapping, 0, Infinity, true), 0);
  assertEquals(file.mm.nrWriteback, 2);
  assertEquals(file.clock.now(), 0);
  assertEquals(await filemapFdatawaitRange(file.mapping, 0, Infinity), 0);
  assertEquals([file.mm.nrWriteback, file.clock.now()], [0, 1000]);
});

Deno.test("filemapWriteAndWaitRange() reports a failed writeback once, as EIO or ENOSPC", async () => {
  const file = new FakeFile();
  for (const [error, answer] of [[-ENOSPC, -ENOSPC], [-117, -EIO]] as const) {
    file.writeError = error;
    await file.fill(0, 1, 1);
    assertEquals(
      await filemapWriteAndWaitRange(file.mapping, 0, Infinity),
      answer,
    );
    assertEquals(await filemapWriteAndWaitRange(file.mapping, 0, Infinity), 0);
  }
});

Deno.test("fileWriteAndWaitRange() tells every open file the real errno once", async () => {
  const file = new FakeFile();
  const { mapping } = file;
  const open = () => ({ wbErr: filemapSampleWbErr(mapping) });
  const sync = (cursor: { wbErr: number }) =>
    fileWriteAndWaitRange(mapping, cursor, 0, Infinity);
  const [a, b] = [open(), open()];
  file.writeError = -ENOSPC;
  await file.fill(0, 1, 1);
  assertEquals(await sync(a), -ENOSPC);
  assertEquals(await sync(a), 0);
  // Reported by now: who opens the file today hears nothing.
  const late = open();
  assertEquals(await sync(late), 0);
  assertEquals(await sync(b), -ENOSPC);
  assertEquals(await sync(b), 0);
  // fsync has taken the mapping's flags too.
  assertEquals(await filemapWriteAndWaitRange(mapping, 0, Infinity), 0);
});

Deno.test("filemapSampleWbErr() leaves an error that nobody has heard of to the next who opens", async () => {
  const file = new FakeFile();
  const { mapping } = file;
  mappingSetError(mapping, -117);
  mappingSetError(mapping, 0);
  const cursor = { wbErr: filemapSampleWbErr(mapping) };
  assertEquals(await fileWriteAndWaitRange(mapping, cursor, 0, 1), -117);
  // The same error again is news again.
  mappingSetError(mapping, -117);
  assertEquals(await fileWriteAndWaitRange(mapping, cursor, 0, 1), -117);
  assertEquals(await fileWriteAndWaitRange(mapping, cursor, 0, 1), 0);
});

Deno.test("fileWriteAndWaitRange() tells everyone of the same error when it happens again", async () => {
  const { mapping } = new FakeFile();
  const cursors = [{ wbErr: 0 }, { wbErr: 0 }];
  for (let round = 0; round < 2; round++) {
    mappingSetError(mapping, -EIO);
    for (const cursor of cursors) {
      assertEquals(await fileWriteAndWaitRange(mapping, cursor, 0, 1), -EIO);
      assertEquals(await fileWriteAndWaitRange(mapping, cursor, 0, 1), 0);
    }
  }
});

Deno.test("filemapRangeNeedsWriteback() and filemapRangeHasPage() look at the range", async () => {
  const file = new FakeFile({ size: 16 * PAGE, maxOrder: 2 });
  const needs = (from: number, last: number) =>
    filemapRangeNeedsWriteback(file.mapping, from, last);
  const has = (from: number, last: number) =>
    filemapRangeHasPage(file.mapping, from, last);
  await file.open().read(0, 2 * PAGE);
  assertEquals([needs(0, Infinity), has(0, 0)], [false, true]);
  await file.fill(8, 4, 1);
  assertEquals(needs(0, 8 * PAGE - 1), false);
  assertEquals(needs(0, 8 * PAGE), true);
  assertEquals([needs(11 * PAGE, Infinity), needs(12 * PAGE, Infinity)], [
    true,
    false,
  ]);
  assertEquals([has(11 * PAGE, 11 * PAGE), has(12 * PAGE, 14 * PAGE)], [
    true,
    false,
  ]);
  file.held = [];
  await filemapFdatawriteRange(file.mapping, 0, Infinity, true);
  assertEquals(needs(0, Infinity), true);
  // Something is written, so that a lock may mean more of it.
  const first = filemapLookup(file.mapping, 0)!;
  folioTrylock(first);
  assertEquals(needs(0, 0), true);
  folioUnlock(first);
  file.held.forEach((folio) => file.writeDone(folio));
  assertEquals(needs(0, Infinity), false);
});

Deno.test("mappingSeekHoleData() goes by folios that are uptodate", async () => {
  const file = new FakeFile({ size: 16 * PAGE, maxOrder: 2 });
  await file.fill(4, 4, 1);
  await file.fill(9, 1, 1);
  const seek = (start: number, end: number, data: boolean) =>
    mappingSeekHoleData(file.mapping, start * PAGE, end * PAGE, data) / PAGE;
  assertEquals(seek(0, 16, true), 4);
  assertEquals(seek(5, 16, true), 5);
  assertEquals(seek(8, 16, true), 9);
  assertEquals(seek(0, 16, false), 0);
  assertEquals(seek(5, 16, false), 8);
  assertEquals(seek(9, 16, false), 10);
  assertEquals(seek(5, 7, false), 7);
  assertEquals(seek(10, 16, true) * PAGE, -ENXIO);
  assertEquals(seek(0, 4, true) * PAGE, -ENXIO);
  assertEquals(seek(3, 3, false) * PAGE, -ENXIO);
});

Deno.test("mappingSeekHoleData() takes evicted pages for data, as the kernel does", async () => {
  const file = new FakeFile({ size: 16 * PAGE });
  await file.fill(2, 3, 1);
  await file.fill(8, 1, 1);
  await filemapWriteAndWaitRange(file.mapping, 0, Infinity);
  assertEquals(shrinkFolios(file.mm, 2), 2);
  assertEquals(file.folios(), [[4, 1], [8, 1]]);
  const seek = (start: number, data: boolean) =>
    mappingSeekHoleData(file.mapping, start, 16 * PAGE, data);
  assertEquals(
    [0, 2 * PAGE + 5, 4 * PAGE, 5 * PAGE].map((at) => seek(at, true)),
    [2 * PAGE, 2 * PAGE + 5, 4 * PAGE, 8 * PAGE],
  );
  assertEquals(
    [0, 2 * PAGE, 3 * PAGE + 1, 8 * PAGE].map((at) => seek(at, false)),
    [0, 5 * PAGE, 5 * PAGE, 9 * PAGE],
  );
});

Deno.test("mappingSeekHoleData() goes by blocks where a folio is valid in part", async () => {
  const file = new FakeFile({ size: 4 * PAGE, blkbits: 10 });
  await file.fill(1, 1, 1);
  filemapLookup(file.mapping, 1)!.flags &= ~PG_UPTODATE;
  // Its second and third block.
  file.partlyUptodate = (_folio, from) => from === 1024 || from === 2048;
  const seek = (start: number, data: boolean) =>
    mappingSeekHoleData(file.mapping, start, 4 * PAGE, data);
  assertEquals(seek(0, true), 5120);
  assertEquals(seek(5200, true), 5200);
  assertEquals(seek(5200, false), 7168);
  assertEquals(seek(4100, false), 4100);
  assertEquals(seek(7200, true), -ENXIO);
});
