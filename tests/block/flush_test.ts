import { assertEquals } from "@std/assert";
import {
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_OK,
  blkdevIssueFlush,
  REQ_FUA,
  REQ_OP_WRITE,
  REQ_PREFLUSH,
} from "../../block/mod.ts";
import { EIO } from "../../lib/errno.ts";
import { MSEC, SEC, USEC, type VirtualClock } from "../../lib/clock.ts";
import {
  FakeDevice,
  type FakeOptions,
  makeBio,
  settle,
  submit,
} from "./fake_device.ts";

const W = REQ_OP_WRITE;
const P = REQ_PREFLUSH;
const F = REQ_FUA;

/** Runs the clock up to a time, microseconds. */
function until(device: FakeDevice, us: number): void {
  const { clock } = device;
  let reached = false;
  clock.at(us * USEC, () => reached = true, undefined);
  (clock as VirtualClock).runUntil(() => reached);
}

/** Sectors, flags, the device, and what it sees: every row of the policy. */
const policy: [number, number, FakeOptions["cache"], string[]][] = [
  [0, P, "none", []],
  [0, P | F, "none", []],
  [0, P, undefined, ["FLUSH @0"]],
  [0, P | F, undefined, ["FLUSH @0"]],
  [0, P, "no-fua", ["FLUSH @0"]],
  // One FLUSH would do; the policy does not look whether there are data.
  [0, P | F, "no-fua", ["FLUSH @0", "FLUSH @100"]],
  [8, 0, undefined, ["WRITE 0+8 @0"]],
  [8, P, undefined, ["FLUSH @0", "WRITE 0+8 @100"]],
  [8, P, "no-fua", ["FLUSH @0", "WRITE 0+8 @100"]],
  [8, P | F, undefined, ["FLUSH @0", "WRITE+FUA 0+8 @100"]],
  [8, P | F, "no-fua", ["FLUSH @0", "WRITE 0+8 @100", "FLUSH @110"]],
  [8, P, "none", ["WRITE 0+8 @0"]],
  [8, F, "none", ["WRITE 0+8 @0"]],
  [8, P | F, "none", ["WRITE 0+8 @0"]],
];

/** What a device sees of one write, which must end well. */
function seen(
  sectors: number,
  flags: number,
  cache: FakeOptions["cache"],
): { log: string[]; at: number } {
  const device = new FakeDevice({ cache: cache! });
  const ended = submit(makeBio(device, W | flags, 0, sectors));
  settle(device.clock);
  assertEquals([ended.status, ended.times], [BLK_STS_OK, 1]);
  return { log: device.log, at: ended.at };
}

for (const [sectors, flags, cache, log] of policy) {
  const what = `${sectors} sectors with flags ${flags / P}`;
  Deno.test(`insertFlush() makes of ${what} on cache ${cache ?? "with FUA"}: ${log.join(", ")}`, () => {
    assertEquals(seen(sectors, flags, cache).log, log);
  });
}

Deno.test("insertFlush() has nothing to do for a flush that a cacheless device gets all the same", () => {
  // As one that was on its way when the cache went.
  const device = new FakeDevice({ cache: "none" });
  const bios = [0, 8].map((n) => makeBio(device, W | P | F, 0, n));
  const ended: number[] = [];
  for (const bio of bios) {
    bio.endIo = ({ status }) => ended.push(status);
    device.submit(bio);
  }
  settle(device.clock);
  assertEquals(ended, [BLK_STS_OK, BLK_STS_OK]);
  assertEquals(device.log, ["WRITE 0+8 @0"]);
});

Deno.test("corner case 66: without FUA a FUA write is a write and a FLUSH, and ends with that", () => {
  assertEquals(seen(8, F, "no-fua"), {
    log: ["WRITE 0+8 @0", "FLUSH @10"],
    at: 110,
  });
});

Deno.test("corner case 67: with FUA a FUA write is one command, and no FLUSH", () => {
  assertEquals(seen(8, F, undefined), { log: ["WRITE+FUA 0+8 @0"], at: 10 });
});

Deno.test("corner case 68: when the flush before it fails the data is not written", () => {
  const device = new FakeDevice({ status: () => BLK_STS_IOERR });
  const ended = submit(makeBio(device, W | P, 0, 8));
  settle(device.clock);
  assertEquals(ended, { status: BLK_STS_IOERR, at: 100, times: 1 });
  assertEquals(device.log, ["FLUSH @0"]);
});

Deno.test("corner case 69: after data that failed there is no flush", () => {
  const device = new FakeDevice({
    cache: "no-fua",
    status: (rq) => rq.bio === null ? BLK_STS_OK : BLK_STS_MEDIUM,
  });
  const ended = submit(makeBio(device, W | F, 0, 8));
  settle(device.clock);
  assertEquals(ended, { status: BLK_STS_MEDIUM, at: 10, times: 1 });
  assertEquals(device.log, ["WRITE 0+8 @0"]);
});

Deno.test("corner case 70: two FUA writes that end together share one FLUSH", () => {
  const device = new FakeDevice({ cache: "no-fua" });
  const writes = [0, 8].map((s) => submit(makeBio(device, W | F, s, 8)));
  settle(device.clock);
  assertEquals(writes.map((e) => e.at), [110, 110]);
  assertEquals(device.log, ["WRITE 0+8 @0", "WRITE 8+8 @0", "FLUSH @10"]);
});

Deno.test("corner case 71: an fsync that comes while a FLUSH runs waits for the next", () => {
  const device = new FakeDevice({ cache: "no-fua" });
  submit(makeBio(device, W | F, 0, 8));
  until(device, 50);
  const fsync = submit(makeBio(device, W | P, 0, 0));
  settle(device.clock);
  assertEquals(fsync.at, 210);
  assertEquals(device.log, ["WRITE 0+8 @0", "FLUSH @10", "FLUSH @110"]);
});

Deno.test("corner case 72: 100 empty flushes at once are two FLUSHes at most", () => {
  const device = new FakeDevice();
  const all = Array.from(
    { length: 100 },
    () => submit(makeBio(device, W | P, 0, 0)),
  );
  settle(device.clock);
  assertEquals(device.log, ["FLUSH @0", "FLUSH @100"]);
  assertEquals(all.every((e) => e.times === 1 && e.status === 0), true);
});

Deno.test("corner case 73: a stream of FUA writes does not hold up a flush for more than 5 s", () => {
  // Each write takes 30 ms and the next begins 10 ms later: there is always one
  // in its data step.
  const device = new FakeDevice({
    cache: "no-fua",
    time: (rq) => rq.bio === null ? MSEC : 30 * MSEC,
  });
  for (let i = 0; i < 700; i++) {
    device.clock.at(i * 10 * MSEC, () => {
      submit(makeBio(device, W | F, 8, 8));
    }, undefined);
  }
  until(device, 1000);
  const fsync = submit(makeBio(device, W | P, 0, 0));
  until(device, 6 * SEC / USEC);
  assertEquals(fsync.times, 1);
  // Not before, either: the FLUSH would otherwise have been shared for nothing.
  assertEquals(fsync.at > 4.9 * SEC / USEC, true, `${fsync.at}`);
  settle(device.clock);
});

Deno.test("corner case 77: a failing FLUSH fails every waiter of its round, and not the next round's", async () => {
  let fail = true;
  const device = new FakeDevice({
    status: () => fail ? BLK_STS_IOERR : BLK_STS_OK,
  });
  const first = submit(makeBio(device, W | P, 0, 0));
  until(device, 50);
  const second = [0, 8].map((s) => submit(makeBio(device, W | P, s, 8)));
  until(device, 250);
  assertEquals(first.status, BLK_STS_IOERR);
  assertEquals(second.map((e) => [e.status, e.at]), [[BLK_STS_IOERR, 200], [
    BLK_STS_IOERR,
    200,
  ]]);
  fail = false;
  assertEquals(await blkdevIssueFlush(device), 0);
  fail = true;
  assertEquals(await blkdevIssueFlush(device), -EIO);
  assertEquals(device.log, [
    "FLUSH @0",
    "FLUSH @100",
    "FLUSH @250",
    "FLUSH @350",
  ]);
});

Deno.test("FlushQueue works through the sequence on a device that answers at once", () => {
  const device = new FakeDevice({ cache: "no-fua", time: () => 0, depth: 2 });
  const all = Array.from(
    { length: 50 },
    (_, i) => submit(makeBio(device, W | P | F, i * 8, 8)),
  );
  assertEquals(all.every((e) => e.times === 1 && e.status === 0), true);
  assertEquals(device.log.length, 150);
  assertEquals(device.queue.stats.inFlight, 0);
});
