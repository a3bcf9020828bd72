import { assert, assertEquals, assertThrows } from "@std/assert";
import { VirtualClock } from "../../lib/clock.ts";
import type { MaybePromise } from "../../lib/maybe-promise.ts";
import {
  type Folio,
  folioEndRead,
  folioGet,
  folioLock,
  folioPut,
  folioTrylock,
  folioUnlock,
  folioWaitLocked,
  folioWaitWriteback,
} from "../../mm/folio.ts";
import { filemapLookup } from "../../mm/filemap.ts";
import { Mm } from "../../mm/mm.ts";
import { FakeFile } from "./fake_file.ts";

Deno.test("folioLock() costs no promise when nobody holds it", () => {
  const folio = new Mm(new VirtualClock()).newFolio(0, false)!;
  assertEquals(folioLock(folio), undefined);
  assert(!folioTrylock(folio));
  assert(folio.waiters === null);
  folioUnlock(folio);
});

Deno.test("folioLock() goes from holder to waiter in order", async () => {
  const folio = new Mm(new VirtualClock()).newFolio(0, false)!;
  const order: number[] = [];
  folioTrylock(folio);
  const waiters = [1, 2, 3].map(async (n) => {
    await folioLock(folio);
    order.push(n);
    await Promise.resolve();
    folioUnlock(folio);
  });
  folioUnlock(folio);
  await Promise.all(waiters);
  assertEquals(order, [1, 2, 3]);
  assert(!folio.locked);
});

Deno.test("folioLock() runs the clock when the caller is synchronous", () => {
  const clock = new VirtualClock();
  const folio = new Mm(clock).newFolio(0, false)!;
  folioTrylock(folio);
  clock.at(500, (f) => folioEndRead(f, true), folio);
  clock.enterSync();
  assertEquals(folioLock(folio), undefined);
  clock.leaveSync();
  assertEquals(clock.now(), 500);
  assert(folio.locked && folio.uptodate);
});

Deno.test("folioWaitLocked() leaves the lock to others", async () => {
  const folio = new Mm(new VirtualClock()).newFolio(0, false)!;
  folioTrylock(folio);
  const waited = folioWaitLocked(folio);
  folioEndRead(folio, false);
  await waited;
  assert(!folio.locked && !folio.uptodate);
});

/** A folio whose holder takes its lock again before anybody else can look. */
async function contended(
  wait: (folio: Folio) => MaybePromise<void>,
): Promise<[Folio, number]> {
  const mm = new Mm(new VirtualClock());
  const folio = mm.newFolio(0, false)!;
  folioTrylock(folio);
  let done = false;
  const waiter = (async () => {
    await wait(folio);
    done = true;
  })();
  let turns = 0;
  while (!done && turns < 100) {
    await mm.clock.sleep(1);
    if (done) break;
    folioUnlock(folio);
    // False where it has been handed on.
    folioTrylock(folio);
    turns++;
  }
  await waiter;
  return [folio, turns];
}

Deno.test("folioLock() is handed the lock once it has been overtaken too often", async () => {
  const [folio, turns] = await contended(folioLock);
  assertEquals([turns, folio.locked, folio.heir], [5, true, null]);
  folioUnlock(folio);
  assert(!folio.locked);
});

Deno.test("folioLock() hands on to all who wait, in turn", async () => {
  const mm = new Mm(new VirtualClock());
  const folio = mm.newFolio(0, false)!;
  folioTrylock(folio);
  const order: number[] = [];
  const waiters = [1, 2, 3].map(async (n) => {
    await folioLock(folio);
    order.push(n);
    await mm.clock.sleep(1);
    folioUnlock(folio);
  });
  for (let turn = 0; order.length < 3 && turn < 100; turn++) {
    folioUnlock(folio);
    await folioLock(folio);
    await mm.clock.sleep(1);
  }
  folioUnlock(folio);
  await Promise.all(waiters);
  assertEquals(order, [1, 2, 3]);
  assert(!folio.locked);
});

Deno.test("folioWaitLocked() goes on after one unlock, whoever has the lock then", async () => {
  const [folio, turns] = await contended(folioWaitLocked);
  assertEquals([turns, folio.locked], [1, true]);
});

Deno.test("folioWaitWriteback() waits until the device has it", async () => {
  const file = new FakeFile();
  file.latency = 1000;
  await file.fill(0, 1, 1);
  await file.writepages(file.mapping, {
    syncAll: true,
    rangeStart: 0,
    rangeEnd: Infinity,
    nrToWrite: Infinity,
    taggedWritepages: false,
  });
  const folio = filemapLookup(file.mapping, 0)!;
  assert(folio.writeback);
  await folioWaitWriteback(folio);
  assertEquals(file.clock.now(), 1000);
});

Deno.test("folioPut() recycles object and memory with the last reference", () => {
  const mm = new Mm(new VirtualClock());
  const folio = mm.newFolio(2, false)!;
  folio.private = {};
  folioGet(folio);
  folioPut(folio);
  assertEquals(mm.nrPages, 4);
  folioPut(folio);
  assertEquals(mm.nrPages, 0);
  const again = mm.newFolio(0, false)!;
  assert(again === folio);
  assertEquals([again.order, again.refcount, again.private], [0, 1, null]);
  folioPut(again);
  assertThrows(() => folioPut(again), Error, "BUG");
});

Deno.test("folioUnlock() throws when the folio is not locked", () => {
  const folio = new Mm(new VirtualClock()).newFolio(0, false)!;
  assertThrows(() => folioUnlock(folio), Error, "BUG");
});
