import { assert, assertEquals } from "@std/assert";
import { VirtualClock } from "../../lib/clock.ts";
import { EAGAIN, ENOMEM } from "../../lib/errno.ts";
import {
  FGP_NOWAIT,
  FGP_WRITEBEGIN,
  filemapGetFolio,
  filemapLookup,
} from "../../mm/filemap.ts";
import { folioGet, folioPut, PG_REFERENCED } from "../../mm/folio.ts";
import { Mm } from "../../mm/mm.ts";
import { shrinkFolios } from "../../mm/vmscan.ts";
import { FakeFile, pattern } from "./fake_file.ts";

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

Deno.test("shrinkFolios() gives a folio that was used a second chance", async () => {
  const mm = small();
  const file = new FakeFile({ mm, size: 4 * PAGE });
  await file.open().read(0, 4 * PAGE);
  for (const index of [0, 2, 3]) {
    filemapLookup(file.mapping, index)!.flags &= ~PG_REFERENCED;
  }
  assertEquals(shrinkFolios(mm, 3), 3);
  assertEquals(file.folios(), [[1, 1]]);
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

Deno.test("memory does not grow while files come and go", async () => {
  const mm = small(2 ** 22);
  for (let round = 0; round < 20; round++) {
    const file = new FakeFile({ mm, size: 2 ** 20, maxOrder: round % 10 });
    await file.open().read(0, 2 ** 20);
    assert(mm.nrPages <= mm.limit);
  }
});
