import { assertEquals, assertThrows } from "@std/assert";
import {
  Bio,
  BLK_STS_AGAIN,
  BLK_STS_DEV_RESOURCE,
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_OK,
  BLK_STS_RESOURCE,
  BLK_STS_TARGET,
  blkExecuteRqNowait,
  blkFinishPlug,
  blkFreezeQueueStart,
  blkMarkDiskDead,
  blkMqFreezeQueue,
  blkMqQuiesceQueue,
  blkMqRequeueRequest,
  blkMqTagsetBusyIter,
  blkMqUnfreezeQueue,
  blkMqUnquiesceQueue,
  blkMqUpdateNrRequests,
  blkStartPlug,
  blkUpdateRequest,
  HCTX_TYPE_DEFAULT,
  HCTX_TYPE_POLL,
  HCTX_TYPE_READ,
  REQ_FUA,
  REQ_NOWAIT,
  REQ_OP_DISCARD,
  REQ_OP_DRV_IN,
  REQ_OP_DRV_OUT,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_POLLED,
  REQ_PREFLUSH,
  REQ_SYNC,
  type Request,
  submitBio,
} from "../../block/mod.ts";
import { EINVAL, FsError } from "../../lib/errno.ts";
import { MSEC, USEC, VirtualClock } from "../../lib/clock.ts";
import { Prng } from "../../lib/prng.ts";
import { FakeDevice, makeBio, settle, submit } from "./fake_device.ts";

const W = REQ_OP_WRITE;
const R = REQ_OP_READ;

/** A write of 8 sectors at block `i`. */
function write(device: FakeDevice, i: number, opf = 0) {
  return submit(makeBio(device, W | opf, 8 * i, 8));
}

// Which queue.

Deno.test("RequestQueue.mapQueue() takes reads and polled I/O to queues of their own", () => {
  const device = new FakeDevice({ queues: 2, readQueues: 2, pollQueues: 1 });
  const { queue } = device;
  assertEquals(queue.hctxs.map((h) => h.type), [
    HCTX_TYPE_DEFAULT,
    HCTX_TYPE_DEFAULT,
    HCTX_TYPE_READ,
    HCTX_TYPE_READ,
    HCTX_TYPE_POLL,
  ]);
  const indices = (opf: number) =>
    Array.from({ length: 4 }, () => queue.mapQueue(opf).index).sort();
  assertEquals(indices(W), [0, 0, 1, 1]);
  assertEquals(indices(R), [2, 2, 3, 3]);
  assertEquals(indices(R | REQ_POLLED), [4, 4, 4, 4]);
  assertEquals(indices(W | REQ_POLLED), [4, 4, 4, 4]);
});

Deno.test("RequestQueue.mapQueue() lets reads share the default queues where there are none for them", () => {
  const { queue } = new FakeDevice({ queues: 2 });
  // Taken in turn by both, as by one CPU after the other.
  const indices = [R, W, R, W].map((op) => queue.mapQueue(op).index);
  assertEquals(new Set(indices.slice(0, 2)).size, 2);
  assertEquals(indices.slice(2), indices.slice(0, 2));
});

Deno.test("RequestQueue.mapQueue() takes what is under one plug to one queue", () => {
  const { queue } = new FakeDevice({ queues: 3 });
  const plugged = () => {
    blkStartPlug();
    const all = [W, W, W].map((op) => queue.mapQueue(op).index);
    blkFinishPlug();
    assertEquals(new Set(all).size, 1);
    return all[0];
  };
  assertEquals(new Set([plugged(), plugged(), plugged()]).size, 3);
});

// Tags.

Deno.test("HwQueue.wakeUp() lets bios go on in batches of an eighth of the tags", () => {
  const times = [1, 2, 3, 4];
  const device = new FakeDevice({
    depth: 32,
    // One command ends after another, a microsecond apart.
    time: (rq) => (rq.sector / 8 + 1) * USEC,
  });
  for (let i = 0; i < 32; i++) write(device, i);
  const late = times.map(() => write(device, 0));
  settle(device.clock);
  // The batch begins once four tags are free, at 4 us, and takes 1 us.
  assertEquals(late.map((e) => e.at), [5, 5, 5, 5]);
});

Deno.test("HwQueue.submit() gives NOWAIT a free tag though others wait for a batch", () => {
  const device = new FakeDevice({
    depth: 32,
    time: (rq) => (rq.sector / 8 + 1) * USEC,
  });
  for (let i = 0; i < 32; i++) write(device, i);
  const waiting = write(device, 0);
  device.clock.runUntil(() => device.clock.now() >= USEC);
  assertEquals(write(device, 5, REQ_NOWAIT).status, -1);
  assertEquals(write(device, 5, REQ_NOWAIT).status, BLK_STS_AGAIN);
  settle(device.clock);
  assertEquals([waiting.status, waiting.times], [BLK_STS_OK, 1]);
});

Deno.test("blkMqUpdateNrRequests() bounds requests, up to the tags that there are", () => {
  const device = new FakeDevice({ depth: 8 });
  for (const bad of [0, 9, -1, 1.5, NaN]) {
    assertEquals(blkMqUpdateNrRequests(device.queue, bad), -EINVAL);
  }
  assertEquals(blkMqUpdateNrRequests(device.queue, 2), 0);
  const all = [0, 1, 2, 3, 4].map((i) => write(device, i));
  assertEquals(device.queue.stats.inFlight, 2);
  assertEquals(write(device, 5, REQ_NOWAIT).status, BLK_STS_AGAIN);
  assertEquals(blkMqUpdateNrRequests(device.queue, 4), 0);
  assertEquals(device.queue.stats.inFlight, 4);
  settle(device.clock);
  assertEquals(all.map((e) => e.at), [10, 10, 10, 10, 20]);
});

// A driver that cannot take a request now.

Deno.test("HwQueue.run() hands RESOURCE over again after 3 ms, before what came later", () => {
  let busy = true;
  const device = new FakeDevice({
    take: () => busy ? BLK_STS_RESOURCE : BLK_STS_OK,
  });
  const first = write(device, 0);
  const second = write(device, 1);
  busy = false;
  assertEquals(device.log, []);
  settle(device.clock);
  assertEquals(device.log, ["WRITE 0+8 @3000", "WRITE 8+8 @3000"]);
  assertEquals([first.times, second.times], [1, 1]);
});

Deno.test("HwQueue.run() hands DEV_RESOURCE over again when a request has ended", () => {
  // Two at a time.
  let taken = 0;
  const device = new FakeDevice({
    take: () => taken === 2 ? BLK_STS_DEV_RESOURCE : (taken++, BLK_STS_OK),
    status: () => (taken--, BLK_STS_OK),
  });
  const all = [0, 1, 2, 3, 4].map((i) => write(device, 2 * i));
  settle(device.clock);
  assertEquals(all.map((e) => e.at), [10, 10, 20, 20, 30]);
  // Completions ran the queue, and no timer.
  assertEquals(device.clock.now(), 30 * USEC);
  assertEquals(device.log.map((line) => line.split("+")[0]), [
    "WRITE 0",
    "WRITE 16",
    "WRITE 32",
    "WRITE 48",
    "WRITE 64",
  ]);
});

Deno.test("HwQueue.run() does not wait for a completion when nothing is under way", () => {
  let times = 0;
  const device = new FakeDevice({
    take: () => times++ < 3 ? BLK_STS_DEV_RESOURCE : BLK_STS_OK,
  });
  const ended = write(device, 0);
  settle(device.clock);
  assertEquals([ended.at, ended.times], [9010, 1]);
});

Deno.test("HwQueue sends a synchronous request past those that wait if there are several queues", () => {
  let refuse = true;
  const device = new FakeDevice({
    queues: 2,
    take: () => refuse ? BLK_STS_RESOURCE : BLK_STS_OK,
  });
  write(device, 0);
  write(device, 2);
  refuse = false;
  write(device, 4, REQ_SYNC);
  assertEquals(device.log, ["WRITE 32+8 @0"]);
  settle(device.clock);
  assertEquals(device.log.length, 3);
});

Deno.test("HwQueue ends a request with the driver's error, and goes on", () => {
  const device = new FakeDevice({
    take: (rq) => rq.sector === 8 ? BLK_STS_TARGET : BLK_STS_OK,
  });
  const all = [0, 1, 2].map((i) => write(device, i));
  settle(device.clock);
  assertEquals(all.map((e) => [e.status, e.times]), [
    [BLK_STS_OK, 1],
    [BLK_STS_TARGET, 1],
    [BLK_STS_OK, 1],
  ]);
  assertEquals(device.queue.issued, 0);
});

Deno.test("blkMqQuiesceQueue() keeps everything from the driver until it is undone", () => {
  const device = new FakeDevice();
  blkMqQuiesceQueue(device.queue);
  blkMqQuiesceQueue(device.queue);
  const all = [write(device, 0), write(device, 9), write(device, 4)];
  const flush = submit(makeBio(device, W | REQ_PREFLUSH, 0, 0));
  settle(device.clock);
  blkMqUnquiesceQueue(device.queue);
  assertEquals(device.log, []);
  blkMqUnquiesceQueue(device.queue);
  assertEquals(device.log, [
    "WRITE 0+8 @0",
    "WRITE 72+8 @0",
    "WRITE 32+8 @0",
    "FLUSH @0",
  ]);
  // One batch.
  assertEquals(device.doorbells, 1);
  settle(device.clock);
  assertEquals([...all, flush].every((e) => e.times === 1), true);
});

Deno.test("HwQueue tells the driver to begin when the last of a batch could not be taken", () => {
  const device = new FakeDevice({
    take: (rq) => rq.sector === 80 ? BLK_STS_TARGET : BLK_STS_OK,
  });
  blkStartPlug();
  for (const i of [0, 5, 10]) write(device, i);
  assertEquals(device.doorbells, 0);
  blkFinishPlug();
  assertEquals(device.doorbells, 1);
  settle(device.clock);
});

Deno.test("blkMqRequeueRequest() hands a request over again after its delay", () => {
  let failed = 0;
  const device = new FakeDevice();
  const end = device.end.bind(device);
  device.end = (rq) => {
    if (failed++ < 2) blkMqRequeueRequest(rq, 5 * USEC);
    else end(rq);
  };
  const ended = write(device, 0);
  settle(device.clock);
  assertEquals([ended.at, ended.times], [40, 1]);
  assertEquals(device.log, [
    "WRITE 0+8 @0",
    "WRITE 0+8 @15",
    "WRITE 0+8 @30",
  ]);
});

Deno.test("HwQueue.run() keeps the order of requests that the driver refuses again", () => {
  let requeue = true;
  let refusals = 2;
  const device: FakeDevice = new FakeDevice({
    take: () => requeue || refusals-- <= 0 ? BLK_STS_OK : BLK_STS_DEV_RESOURCE,
  });
  const end = device.end.bind(device);
  device.end = (rq) => requeue ? blkMqRequeueRequest(rq) : end(rq);
  for (const i of [0, 2, 4]) write(device, i);
  device.clock.runUntil(() => device.queue.issued === 0);
  requeue = false;
  settle(device.clock);
  assertEquals(device.log.slice(3).map((line) => line.split("+")[0]), [
    "WRITE 0",
    "WRITE 16",
    "WRITE 32",
  ]);
});

Deno.test("blkMqTagsetBusyIter() finds what the driver has, and nothing else", () => {
  const device = new FakeDevice({ depth: 2 });
  const found = () => {
    const all: string[] = [];
    blkMqTagsetBusyIter(
      device.queue,
      (rq) => all.push(rq.bio === null ? "FLUSH" : `${rq.sector}`),
    );
    return all;
  };
  write(device, 0);
  submit(makeBio(device, W | REQ_PREFLUSH, 0, 0));
  write(device, 2);
  assertEquals(found(), ["0", "FLUSH"]);
  settle(device.clock);
  assertEquals(found(), []);
});

// Freezing.

Deno.test("corner case 14: NOWAIT is AGAIN while the queue is frozen, and IOERR on a dead disk", () => {
  const device = new FakeDevice();
  const inside = write(device, 0);
  let drained = false;
  (blkMqFreezeQueue(device.queue) as Promise<void>).then(() => drained = true);
  const nowait = write(device, 1, REQ_NOWAIT);
  const waiting = write(device, 2);
  assertEquals([nowait.status, nowait.times], [BLK_STS_AGAIN, 1]);
  settle(device.clock);
  assertEquals([inside.times, waiting.times, drained], [1, 0, false]);

  blkMarkDiskDead(device.queue);
  assertEquals([waiting.status, waiting.times], [BLK_STS_IOERR, 1]);
  assertEquals(write(device, 3, REQ_NOWAIT).status, BLK_STS_IOERR);
  assertEquals(write(device, 4).status, BLK_STS_IOERR);
  // Nothing of it has reached the driver.
  assertEquals(device.log, ["WRITE 0+8 @0"]);
});

Deno.test("blkMqFreezeQueue() waits for what is in, tags waited for included", async () => {
  const device = new FakeDevice({ depth: 1 });
  const all = [0, 2, 4].map((i) => write(device, i));
  await blkMqFreezeQueue(device.queue);
  assertEquals(device.clock.now(), 30 * USEC);
  assertEquals(all.every((e) => e.times === 1), true);
  // Nothing is in: no wait.
  assertEquals(blkMqFreezeQueue(device.queue), undefined);

  const late = [write(device, 6), write(device, 8)];
  blkMqUnfreezeQueue(device.queue);
  assertEquals(device.log.length, 3);
  blkMqUnfreezeQueue(device.queue);
  settle(device.clock);
  assertEquals(late.map((e) => e.at), [40, 50]);
});

Deno.test("blkMqFreezeQueue() sends what the task holds back before it waits", () => {
  const device = new FakeDevice();
  blkStartPlug();
  const held = write(device, 0);
  device.clock.enterSync();
  blkMqFreezeQueue(device.queue);
  device.clock.leaveSync();
  blkFinishPlug();
  assertEquals([held.at, held.times], [10, 1]);
});

// How requests end.

/** A driver that is told what to do with each request. */
function manual(): { device: FakeDevice; taken: Request[] } {
  const taken: Request[] = [];
  const device = new FakeDevice({
    time: (rq) => (taken.push(rq), Infinity),
  });
  return { device, taken };
}

/** Three adjacent writes of 8 sectors, merged into one request. */
function merged() {
  const { device, taken } = manual();
  const order: number[] = [];
  blkStartPlug();
  const all = [0, 1, 2].map((i) => {
    const bio = makeBio(device, W, 8 * i, 8);
    const ended = submit(bio);
    const { endIo } = bio;
    bio.endIo = (b) => {
      order.push(i);
      endIo!(b);
    };
    return ended;
  });
  blkFinishPlug();
  return { device, rq: taken[0]!, all, order, taken };
}

Deno.test("blkUpdateRequest() ends bios as far as their bytes are done, in order", () => {
  const { device, rq, all, order, taken } = merged();
  assertEquals([taken.length, rq.size], [1, 24 * 512]);
  assertEquals(blkUpdateRequest(rq, BLK_STS_OK, 10 * 512), true);
  assertEquals(order, [0]);
  assertEquals([rq.sector, rq.size], [10, 14 * 512]);
  assertEquals([rq.bio!.sector, rq.bio!.size], [10, 6 * 512]);
  // All that is left is for the request's end.
  assertEquals(blkUpdateRequest(rq, BLK_STS_OK, 14 * 512), false);
  assertEquals(order, [0]);
  device.end(rq);
  assertEquals(order, [0, 1, 2]);
  assertEquals(all.map((e) => e.status), [0, 0, 0]);
  const { write } = device.queue.stats;
  assertEquals([write.ios, write.merges, write.bytes], [1, 2, 24 * 512]);
});

Deno.test("blkUpdateRequest() gives an error to every bio that the bytes touch", () => {
  const { device, rq, all } = merged();
  assertEquals(blkUpdateRequest(rq, BLK_STS_MEDIUM, 10 * 512), true);
  assertEquals(all.map((e) => e.status), [BLK_STS_MEDIUM, -1, -1]);
  device.end(rq);
  assertEquals(all.map((e) => [e.status, e.times]), [
    [BLK_STS_MEDIUM, 1],
    [BLK_STS_MEDIUM, 1],
    [BLK_STS_OK, 1],
  ]);
});

Deno.test("blkExecuteRqNowait() takes a driver's own command past the checks, uncounted", () => {
  const { device, taken } = manual();
  const bio = new Bio(device, REQ_OP_DRV_IN);
  bio.private = "command";
  let status = -1;
  bio.endIo = (done) => status = done.status;
  blkExecuteRqNowait(device.queue, bio);
  assertEquals(taken[0]!.bio!.private, "command");
  device.end(taken[0]!);
  assertEquals(status, BLK_STS_OK);
  const { stats } = device.queue;
  assertEquals([stats.read.ios, stats.write.ios, stats.inFlight], [0, 0, 0]);
});

Deno.test("DiskStats counts reads, writes, discards and FLUSHes apart", () => {
  const device = new FakeDevice({
    limits: { maxHwDiscardSectors: 1024 },
    time: () => MSEC,
  });
  const discard = new Bio(device, REQ_OP_DISCARD);
  discard.size = 64 * 512;
  submit(discard);
  submit(makeBio(device, R, 0, 8));
  write(device, 0);
  submit(makeBio(device, W | REQ_PREFLUSH, 0, 0));
  settle(device.clock);
  const { read, write: written, discard: discarded, flush } =
    device.queue.stats;
  assertEquals(
    [read, written, discarded, flush].map((g) => [g.ios, g.bytes, g.ticks]),
    [
      [1, 8 * 512, MSEC],
      // The empty write, too.
      [2, 8 * 512, 2 * MSEC],
      [1, 64 * 512, MSEC],
      [1, 0, MSEC],
    ],
  );
  assertEquals(device.queue.stats.timeInQueue, 5 * MSEC);
  assertEquals(device.queue.stats.ioTicks, MSEC);
});

// Everything at once.

/*
 * Goal: whatever the driver answers and whatever holds bios up, each bio ends once
 * and nothing is left behind.
 * Method: seeded random bios on two devices, with and without plugs, NOWAIT, flush
 * flags and resubmission from endIo; drivers that end at once or later, refuse or
 * fail; freezing and quiescing in between.
 * Oracle: the count of ends of each bio, and the queues' own counters.
 */
for (const seed of [1, 2, 3, 4]) {
  Deno.test(`blkMqSubmitBio() ends every bio once, whatever happens: seed ${seed}`, () => {
    const random = new Prng(seed, "mq");
    const clock = new VirtualClock();
    const devices = ["no-fua", undefined].map((cache, i) =>
      new FakeDevice({
        cache: cache as "no-fua",
        queues: 1 + i,
        readQueues: i,
        depth: 3 + 20 * i,
        time: () => Math.max(0, random.below(40) - 10) * USEC,
        take: () =>
          [BLK_STS_RESOURCE, BLK_STS_DEV_RESOURCE, BLK_STS_TARGET][
            random.below(30)
          ] ?? BLK_STS_OK,
        status: () => random.below(20) === 0 ? BLK_STS_MEDIUM : BLK_STS_OK,
      }, clock)
    );
    const ends: number[] = [];
    const send = (again: boolean) => {
      const device = devices[random.below(2)]!;
      const flags = [0, 0, REQ_FUA, REQ_PREFLUSH, REQ_NOWAIT][random.below(5)]!;
      const opf = random.below(2) === 0 ? R : W | flags;
      const bio = makeBio(device, opf, 8 * random.below(32), 8);
      const number = ends.push(0) - 1;
      bio.endIo = () => {
        ends[number]!++;
        if (again) send(random.below(2) === 0);
      };
      submitBio(bio);
    };
    for (let round = 0; round < 300; round++) {
      const { queue } = devices[random.below(2)]!;
      const held = random.below(8);
      if (held === 0) blkMqQuiesceQueue(queue);
      if (held === 1) blkFreezeQueueStart(queue);
      const isPlugged = random.below(2) === 0;
      if (isPlugged) blkStartPlug();
      for (let i = random.below(40); i >= 0; i--) send(random.below(4) === 0);
      if (isPlugged) blkFinishPlug();
      const until = clock.now() + random.below(100) * USEC;
      clock.at(until, () => {}, null);
      clock.runUntil(() => clock.now() >= until);
      if (held === 0) blkMqUnquiesceQueue(queue);
      if (held === 1) blkMqUnfreezeQueue(queue);
    }
    settle(clock);
    assertEquals(ends.length > 5000, true, `${ends.length}`);
    assertEquals(ends.filter((n) => n !== 1), []);
    for (const { queue } of devices) {
      assertEquals([queue.issued, queue.stats.inFlight], [0, 0]);
      assertEquals(queue.hctxs.every((hctx) => hctx.idle), true);
    }
  });
}

Deno.test("blkMqUnfreezeQueue() sends the parts of a bio that waited in order, however many", () => {
  const device = new FakeDevice({
    limits: { maxHwSectors: 16, maxHwDiscardSectors: 8 },
    time: () => 0,
  });
  blkFreezeQueueStart(device.queue);
  const ended = [submit(makeBio(device, W, 0, 40)), write(device, 8)];
  const range = new Bio(device, REQ_OP_DISCARD);
  range.size = 10_000 * 4096;
  const discarded = submit(range);
  blkMqUnfreezeQueue(device.queue);
  assertEquals(device.log.slice(0, 4), [
    "WRITE 0+16 @0",
    "WRITE 16+16 @0",
    "WRITE 32+8 @0",
    "WRITE 64+8 @0",
  ]);
  assertEquals([ended.map((e) => e.times), discarded.times], [[1, 1], 1]);
  assertEquals(device.log.length, 10_004);
});

Deno.test("blkMqUnfreezeQueue() lets a driver's own command reach the driver", () => {
  const device = new FakeDevice();
  blkFreezeQueueStart(device.queue);
  const bio = new Bio(device, REQ_OP_DRV_OUT);
  let ended = 0;
  bio.endIo = () => ended++;
  blkExecuteRqNowait(device.queue, bio);
  blkMqUnfreezeQueue(device.queue);
  settle(device.clock);
  assertEquals([device.log.length, ended], [1, 1]);
});

Deno.test("blkMqFreezeQueue() may begin and end within endIo", () => {
  const device = new FakeDevice();
  const late: ReturnType<typeof write>[] = [];
  const bio = makeBio(device, W, 0, 8);
  bio.endIo = () => {
    blkFreezeQueueStart(device.queue);
    late.push(write(device, 2), write(device, 4));
    blkMqUnfreezeQueue(device.queue);
    late.push(write(device, 6));
  };
  submitBio(bio);
  settle(device.clock);
  assertEquals(late.map(({ at, times }) => [at, times]), [
    [20, 1],
    [20, 1],
    [20, 1],
  ]);
});

Deno.test("HwQueue.run() hands DEV_RESOURCE over again when a request of another queue has ended", () => {
  let room = 1;
  const device = new FakeDevice({
    queues: 2,
    take: () => room-- > 0 ? BLK_STS_OK : BLK_STS_DEV_RESOURCE,
  });
  const end = device.end.bind(device);
  device.end = (rq) => {
    room = 1;
    end(rq);
  };
  const ended = [0, 2, 4].map((i) => write(device, i));
  settle(device.clock);
  assertEquals(ended.map(({ at, times }) => [at, times]), [
    [10, 1],
    [20, 1],
    [30, 1],
  ]);
});

Deno.test("blkMqEndRequest() is a bug for what has ended", () => {
  const seen: Request[] = [];
  const device = new FakeDevice({
    take: (rq) => {
      seen.push(rq);
      return BLK_STS_OK;
    },
  });
  const again = (rq: Request) =>
    assertThrows(
      () => device.end(rq),
      Error,
      "BUG: a request has ended twice",
    );
  write(device, 0);
  write(device, 2);
  settle(device.clock);
  again(seen[1]!);
  const flush = submit(makeBio(device, W | REQ_PREFLUSH, 0, 0));
  // Not even while a FLUSH runs, which has no bio either.
  again(seen[0]!);
  settle(device.clock);
  again(seen[2]!);
  assertEquals([flush.at, flush.times], [110, 1]);
});

Deno.test("RequestQueue() refuses numbers that cannot be, by name", () => {
  const bad = { queues: 0, readQueues: -1, pollQueues: 1.5, depth: 10_241 };
  for (const [name, value] of Object.entries(bad)) {
    const make = () => new FakeDevice({ [name]: value });
    assertThrows(make, FsError, `${name} ${value} is not a whole number`);
  }
});
