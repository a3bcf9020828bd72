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

/** The request policy: flags, the device, what it sees of a write of 8 sectors. */
const policy: [number, FakeOptions["cache"], string[]][] = [
  [0, undefined, ["WRITE 0+8 @0"]],
  [P, undefined, ["FLUSH @0", "WRITE 0+8 @100"]],
  [F, undefined, ["WRITE+FUA 0+8 @0"]],
  [P | F, undefined, ["FLUSH @0", "WRITE+FUA 0+8 @100"]],
  [P, "no-fua", ["FLUSH @0", "WRITE 0+8 @100"]],
  [F, "no-fua", ["WRITE 0+8 @0", "FLUSH @10"]],
  [P | F, "no-fua", ["FLUSH @0", "WRITE 0+8 @100", "FLUSH @110"]],
  [P | F, "none", ["WRITE 0+8 @0"]],
];
for (const [flags, cache, log] of policy) {
  Deno.test(`insertFlush() 66, 67. flags ${flags >> 17} on cache ${cache ?? "with FUA"}: ${log.join(", ")}`, () => {
    const device = new FakeDevice({ cache: cache! });
    const ended = submit(makeBio(device, W | flags, 0, 8));
    settle(device.clock);
    assertEquals([ended.status, ended.times], [BLK_STS_OK, 1]);
    assertEquals(device.log, log);
  });
}

Deno.test("flushCompleteSeq() 68. does not write the data when the flush before it failed", () => {
  const device = new FakeDevice({ status: () => BLK_STS_IOERR });
  const ended = submit(makeBio(device, W | P, 0, 8));
  settle(device.clock);
  assertEquals(ended, { status: BLK_STS_IOERR, at: 100, times: 1 });
  assertEquals(device.log, ["FLUSH @0"]);
});

Deno.test("flushCompleteSeq() 69. does not flush after data that failed", () => {
  const device = new FakeDevice({
    cache: "no-fua",
    status: (rq) => rq.bio === null ? BLK_STS_OK : BLK_STS_MEDIUM,
  });
  const ended = submit(makeBio(device, W | F, 0, 8));
  settle(device.clock);
  assertEquals(ended, { status: BLK_STS_MEDIUM, at: 10, times: 1 });
  assertEquals(device.log, ["WRITE 0+8 @0"]);
});

Deno.test("FlushQueue.kick() 70, 71. shares one FLUSH, and lets a late fsync wait for the next", () => {
  const device = new FakeDevice({ cache: "no-fua" });
  const writes = [0, 8].map((s) => submit(makeBio(device, W | F, s, 8)));
  until(device, 50);
  const fsync = submit(makeBio(device, W | P, 0, 0));
  settle(device.clock);

  assertEquals(writes.map((e) => e.at), [110, 110]);
  assertEquals(fsync.at, 210);
  assertEquals(device.log, [
    "WRITE 0+8 @0",
    "WRITE 8+8 @0",
    "FLUSH @10",
    "FLUSH @110",
  ]);
});

Deno.test("FlushQueue.kick() 72. needs two FLUSHes at most for 100 empty flushes", () => {
  const device = new FakeDevice();
  const all = Array.from(
    { length: 100 },
    () => submit(makeBio(device, W | P, 0, 0)),
  );
  settle(device.clock);
  assertEquals(device.log, ["FLUSH @0", "FLUSH @100"]);
  assertEquals(all.every((e) => e.times === 1 && e.status === 0), true);
});

Deno.test("FlushQueue.kick() 73. is not held up by a stream of FUA writes for more than 5 s", () => {
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

Deno.test("FlushQueue.flushEnd() 77. fails every waiter of its round, and not the next round's", async () => {
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
