import { assertEquals } from "@std/assert";
import {
  bioPoll,
  BLK_FEAT_NOWAIT,
  BLK_FEAT_POLL,
  BLK_POLL_ONESHOT,
  BLK_STS_OK,
  blkFinishPlug,
  blkFreezeQueueStart,
  blkMqFreezeQueue,
  blkMqUnfreezeQueue,
  blkStartPlug,
  REQ_OP_READ,
  REQ_POLLED,
  type Request,
} from "../../block/mod.ts";
import { MSEC, SEC, USEC } from "../../lib/clock.ts";
import {
  FakeDevice,
  type FakeOptions,
  makeBio,
  settle,
  submit,
} from "./fake_device.ts";

const POLLED = REQ_OP_READ | REQ_POLLED;

/** One queue that interrupts, and one for polled I/O. */
function device(options: FakeOptions = {}): FakeDevice {
  const { limits } = options;
  const features = BLK_FEAT_POLL | BLK_FEAT_NOWAIT;
  return new FakeDevice({
    pollQueues: 1,
    ...options,
    limits: { features, ...limits },
  });
}

Deno.test("corner case 17: a polled bio that is split completes by interrupt, and polling finds nothing", () => {
  const disk = device({ limits: { maxHwSectors: 8 } });
  const bio = makeBio(disk, POLLED, 0, 32);
  const ended = submit(bio);
  assertEquals(bioPoll(bio), 0);
  assertEquals(disk.log.length, 4);
  assertEquals(disk.clock.now(), 0);
  settle(disk.clock);
  assertEquals([ended.status, ended.at, bio.cookie], [BLK_STS_OK, 10, -1]);
});

Deno.test("corner case 101: polling may complete another bio first, and without it a polled bio waits for its timeout", () => {
  const times = [30, 10, 20];
  const late: Request[] = [];
  const disk: FakeDevice = device({
    time: (rq) => times[rq.sector / 8]! * USEC,
    // As a driver does that suspects a lost interrupt.
    timeout: (rq) => {
      late.push(rq);
      disk.poll(rq.hctx.index);
      return "done";
    },
  });
  const bios = [0, 1, 2].map((i) => makeBio(disk, POLLED, 8 * i, 8));
  const all = bios.map(submit);
  assertEquals(bioPoll(bios[0]!, BLK_POLL_ONESHOT), 0);
  // The second bio's, though the first was asked for.
  assertEquals(bioPoll(bios[0]!), 1);
  assertEquals(all.map((e) => e.at), [-1, 10, -1]);
  settle(disk.clock);
  assertEquals(late.length, 1);
  assertEquals(all.map((e) => e.at), [30 * SEC / USEC, 10, 30 * SEC / USEC]);
});

Deno.test("bioPoll() says how many it has found", () => {
  const disk = device();
  const bios = [0, 1, 2].map((i) => makeBio(disk, POLLED, 16 * i, 8));
  const all = bios.map(submit);
  settle(disk.clock);
  assertEquals(all.map((e) => e.times), [0, 0, 0]);
  assertEquals(bioPoll(bios[1]!, BLK_POLL_ONESHOT), 3);
  assertEquals(all.map((e) => e.times), [1, 1, 1]);
});

Deno.test("bioPoll() gives up after 8 ms", () => {
  const disk = device({ time: () => SEC });
  const bio = makeBio(disk, POLLED, 0, 8);
  const ended = submit(bio);
  assertEquals(bioPoll(bio), 0);
  assertEquals(disk.clock.now(), 8 * MSEC);
  disk.clock.runUntil(() => disk.clock.now() >= SEC);
  assertEquals([bioPoll(bio), ended.times], [1, 1]);
});

Deno.test("bioPoll() sends what the task holds back, the bio itself included", () => {
  const disk = device();
  blkStartPlug();
  const bio = makeBio(disk, POLLED, 0, 8);
  const ended = submit(bio);
  assertEquals(bio.cookie, -1);
  assertEquals(bioPoll(bio), 1);
  blkFinishPlug();
  assertEquals([ended.at, bio.cookie], [10, 1]);
});

Deno.test("bioPoll() works on a frozen queue, which drains by it", () => {
  const disk = device();
  const bio = makeBio(disk, POLLED, 0, 8);
  submit(bio);
  blkFreezeQueueStart(disk.queue);
  assertEquals(bioPoll(bio), 1);
  assertEquals(blkMqFreezeQueue(disk.queue), undefined);
  blkMqUnfreezeQueue(disk.queue);
  blkMqUnfreezeQueue(disk.queue);
});

Deno.test("blkMqPoll() finds nothing on a queue that interrupts, or none", () => {
  const disk = device();
  submit(makeBio(disk, REQ_OP_READ, 0, 8));
  for (const cookie of [0, -1, 2, 0.5, NaN]) {
    assertEquals(disk.poll(cookie), 0);
  }
  assertEquals(disk.polls, 0);
  settle(disk.clock);
});
