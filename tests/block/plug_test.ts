import { assertEquals, assertThrows } from "@std/assert";
import {
  BLK_STS_DEV_RESOURCE,
  BLK_STS_OK,
  blkFinishPlug,
  blkFlushPlug,
  blkStartPlug,
  REQ_OP_READ,
  REQ_OP_WRITE,
  submitBio,
  submitBioWait,
} from "../../block/mod.ts";
import { VirtualClock } from "../../lib/clock.ts";
import { WaitQueue } from "../../lib/wait.ts";
import { FakeDevice, makeBio, settle, submit } from "./fake_device.ts";

const W = REQ_OP_WRITE;

/** Writes 8 sectors at block `i`; no two `i` of a test are neighbours. */
function write(device: FakeDevice, i: number) {
  return submit(makeBio(device, W, 16 * i, 8));
}

Deno.test("corner case 50: the 33rd request of a plug sends 32, of two devices the 65th 64, and 128 KiB go early", () => {
  const device = new FakeDevice();
  blkStartPlug();
  for (let i = 0; i < 32; i++) write(device, i);
  assertEquals(device.log.length, 0);
  write(device, 32);
  assertEquals([device.log.length, device.doorbells], [32, 1]);
  blkFinishPlug();
  assertEquals([device.log.length, device.doorbells], [33, 2]);

  const two = [new FakeDevice(), new FakeDevice()] as const;
  blkStartPlug();
  for (let i = 0; i < 64; i++) write(two[i & 1]!, i);
  assertEquals(two.map((d) => d.log.length), [0, 0]);
  write(two[0], 64);
  assertEquals(two.map((d) => [d.log.length, d.doorbells]), [[32, 1], [32, 1]]);
  blkFinishPlug();

  const early = new FakeDevice();
  blkStartPlug();
  submit(makeBio(early, W, 0, 255));
  write(early, 100);
  assertEquals(early.log.length, 0);
  submit(makeBio(early, W, 4096, 256));
  assertEquals(early.log.length, 0);
  write(early, 600);
  assertEquals(early.log.length, 3);
  blkFinishPlug();
  assertEquals(early.log.length, 4);
  for (const d of [device, ...two, early]) settle(d.clock);
});

Deno.test("blkFinishPlug() sends what is held back in order, with one doorbell for each queue", () => {
  const device = new FakeDevice({ readQueues: 1 });
  blkStartPlug();
  for (let i = 0; i < 6; i++) {
    submit(makeBio(device, i % 2 === 0 ? REQ_OP_READ : W, 16 * i, 8));
  }
  blkFinishPlug();
  assertEquals(device.log.map((line) => line.split("+")[0]), [
    "READ 0",
    "READ 32",
    "READ 64",
    "WRITE 16",
    "WRITE 48",
    "WRITE 80",
  ]);
  assertEquals(device.doorbells, 2);
  settle(device.clock);
});

Deno.test("blkStartPlug() nests, and only the outermost counts", () => {
  const device = new FakeDevice();
  blkStartPlug();
  blkStartPlug();
  write(device, 0);
  blkFinishPlug();
  assertEquals(device.log.length, 0);
  write(device, 1);
  blkFinishPlug();
  assertEquals([device.log.length, device.doorbells], [2, 1]);
  write(device, 2);
  assertEquals(device.log.length, 3);
  settle(device.clock);
});

Deno.test("blkFlushPlug() leaves the plug in place", () => {
  const device = new FakeDevice();
  blkStartPlug();
  write(device, 0);
  blkFlushPlug();
  assertEquals(device.log.length, 1);
  write(device, 1);
  assertEquals(device.log.length, 1);
  blkFinishPlug();
  settle(device.clock);
});

Deno.test("WaitQueue.wait() sends what the task holds back before it waits", () => {
  const device = new FakeDevice();
  const never = new WaitQueue();
  blkStartPlug();
  const ended = write(device, 0);
  never.wait(device.clock, () => true);
  assertEquals(device.log.length, 0);
  // In place: nothing else could bring it about.
  device.clock.enterSync();
  assertEquals(never.wait(device.clock, () => ended.times === 1), undefined);
  device.clock.leaveSync();
  blkFinishPlug();
  assertEquals(ended.at, 10);
});

Deno.test("WaitQueue.wait() in place lets what runs meanwhile send at once", () => {
  const device = new FakeDevice();
  const more: ReturnType<typeof write>[] = [];
  blkStartPlug();
  const bio = makeBio(device, W, 0, 8);
  bio.endIo = () => more.push(write(device, 5));
  submitBio(bio);
  device.clock.enterSync();
  const waited = new WaitQueue().wait(
    device.clock,
    () => more[0]?.times === 1,
  );
  device.clock.leaveSync();
  assertEquals([waited, more[0]!.at], [undefined, 20]);
  // The task's own plug is in force again.
  write(device, 9);
  assertEquals(device.log.length, 2);
  blkFinishPlug();
  assertEquals(device.log.length, 3);
  settle(device.clock);
});

Deno.test("WaitQueue.wait() in place within an endIo sends what the loop above has yet to", () => {
  const device = new FakeDevice({
    depth: 4,
    time: (rq) => 1000 * (rq.sector & 1),
  });
  device.clock.enterSync();
  const results: unknown[] = [];
  const bio = makeBio(device, W, 0, 8);
  bio.endIo = () => {
    blkStartPlug();
    const ended = submit(makeBio(device, W, 101, 8));
    const never = new WaitQueue();
    results.push(never.wait(device.clock, () => ended.times === 1));
    blkFinishPlug();
  };
  blkStartPlug();
  submitBio(bio);
  blkFinishPlug();
  device.clock.leaveSync();
  assertEquals(results, [undefined]);
});

Deno.test("WaitQueue.wait() looks again when what it sends is done at once", () => {
  const device = new FakeDevice({ time: () => 0 });
  blkStartPlug();
  const ended = write(device, 0);
  const waited = new WaitQueue().wait(device.clock, () => ended.times === 1);
  blkFinishPlug();
  assertEquals(waited, undefined);
});

Deno.test("submitBioWait() under a plug does not wait for itself", async () => {
  const device = new FakeDevice();
  blkStartPlug();
  const waited = submitBioWait(makeBio(device, W, 0, 8));
  blkFinishPlug();
  assertEquals(await waited, 0);
  assertEquals(device.log, ["WRITE 0+8 @0"]);
});

Deno.test("HwQueue.submit() sends what the task holds back before it waits for a tag", () => {
  const device = new FakeDevice({ depth: 4, time: () => 0 });
  blkStartPlug();
  const all = [0, 1, 2, 3, 4, 5].map((i) => write(device, i));
  assertEquals(all.map((e) => e.times), [1, 1, 1, 1, 0, 0]);
  blkFinishPlug();
  assertEquals(all.map((e) => e.times), [1, 1, 1, 1, 1, 1]);
  assertEquals(device.queue.stats.inFlight, 0);
});

Deno.test("blkFlushPlug() keeps what the driver cannot take, in order", () => {
  let room = 2;
  const device = new FakeDevice({
    take: () => room-- > 0 ? BLK_STS_OK : BLK_STS_DEV_RESOURCE,
    status: () => (room = 2, BLK_STS_OK),
  });
  blkStartPlug();
  const all = [0, 1, 2, 3, 4].map((i) => write(device, i));
  blkFinishPlug();
  assertEquals(device.log.length, 2);
  assertEquals(device.doorbells, 1);
  settle(device.clock);
  assertEquals(all.map((e) => e.times), [1, 1, 1, 1, 1]);
  assertEquals(device.log.map((line) => line.split("+")[0]), [
    "WRITE 0",
    "WRITE 16",
    "WRITE 32",
    "WRITE 48",
    "WRITE 64",
  ]);
});

Deno.test("blkFlushPlug() is no deeper when what it sends leads to more", () => {
  const device = new FakeDevice({ time: () => 0 });
  let left = 10_000;
  const again = () => {
    if (left-- === 0) return;
    const bio = makeBio(device, W, 0, 1);
    bio.endIo = again;
    blkStartPlug();
    submitBio(bio);
    blkFinishPlug();
  };
  again();
  assertEquals(device.log.length, 10_000);
});

Deno.test("a plug begun in a try is over when its block throws", () => {
  const device = new FakeDevice({}, new VirtualClock());
  assertThrows(() => {
    blkStartPlug();
    try {
      write(device, 0);
      throw new Error("thrown");
    } finally {
      blkFinishPlug();
    }
  });
  write(device, 1);
  assertEquals(device.log.length, 2);
  settle(device.clock);
});

Deno.test("blkFinishPlug() of a plug that nobody began is a bug, and spoils none", () => {
  assertThrows(blkFinishPlug, Error, "BUG: a plug is finished");
  const device = new FakeDevice();
  blkStartPlug();
  submit(makeBio(device, REQ_OP_READ, 0, 8));
  assertEquals(device.log, []);
  blkFinishPlug();
  assertEquals(device.log.length, 1);
  settle(device.clock);
});

Deno.test("blkAddRqToPlug() keeps small requests behind a large one if the newcomer's device merges nothing", () => {
  const clock = new VirtualClock();
  const [merging, other] = [
    new FakeDevice({}, clock),
    new FakeDevice({}, clock),
  ];
  other!.queue.nomerges = 2;
  const held = (last: FakeDevice, next: FakeDevice) => {
    blkStartPlug();
    submit(makeBio(last, W, 0, 256));
    submit(makeBio(next, W, 1024, 8));
    const { length } = last.log;
    blkFinishPlug();
    settle(clock);
    last.log.length = 0;
    return length === 0;
  };
  assertEquals(held(merging!, other!), true);
  assertEquals(held(other!, merging!), false);
});
