import { assertEquals } from "@std/assert";
import {
  BLK_STS_TIMEOUT,
  blkMqDestroyQueue,
  blkMqEndRequest,
  REQ_OP_WRITE,
  REQ_PREFLUSH,
  type Request,
} from "../../block/mod.ts";
import { SEC, USEC, VirtualClock } from "../../lib/clock.ts";
import { FakeDevice, makeBio, settle, submit } from "./fake_device.ts";

const W = REQ_OP_WRITE;

/** A device on which commands to odd blocks never end. */
function hanging(answer: (rq: Request) => "done" | "reset-timer") {
  const told: string[] = [];
  const device: FakeDevice = new FakeDevice({
    time: (rq) => rq.sector % 16 === 0 ? 10 * USEC : Infinity,
    timeout: (rq) => {
      told.push(`${rq.sector} @${device.clock.now() / SEC}`);
      return answer(rq);
    },
  });
  return { device, told };
}

function end(rq: Request): "done" {
  blkMqEndRequest(rq, BLK_STS_TIMEOUT);
  return "done";
}

Deno.test("TimeoutTimer tells of a command that hangs 30 s after its issue, with nothing else left to happen", async () => {
  const { device, told } = hanging(end);
  const ended = submit(makeBio(device, W, 8, 8));
  await new Promise<void>((resolve) => {
    const bio = makeBio(device, W, 24, 8);
    bio.endIo = () => resolve();
    device.submit(bio);
  });
  assertEquals(told, ["8 @30", "24 @30"]);
  assertEquals([ended.status, ended.times], [BLK_STS_TIMEOUT, 1]);
  assertEquals(device.queue.issued, 0);
  blkMqDestroyQueue(device.queue);
});

Deno.test("TimeoutTimer moves no time where all commands end", async () => {
  const { device, told } = hanging(end);
  for (let i = 0; i < 100; i++) {
    submit(makeBio(device, W, 32 * i, 8));
    settle(device.clock);
  }
  assertEquals(device.clock.now(), 100 * 10 * USEC);
  // Nor is there a process to keep alive.
  assertEquals(device.clock.pending, 0);
  await device.clock.sleep(100 * SEC);
  assertEquals(told, []);
  assertEquals(device.clock.now(), 100 * SEC + 100 * 10 * USEC);
});

Deno.test("TimeoutTimer is there for a command that hangs after others have ended", () => {
  const { device, told } = hanging(end);
  for (const sector of [0, 16, 8]) {
    submit(makeBio(device, W, sector, 8));
    settle(device.clock);
  }
  assertEquals(told, ["8 @30.00002"]);
});

Deno.test("TimeoutTimer counts from each command's own issue", () => {
  const { device, told } = hanging(end);
  const at = (s: number, sector: number) =>
    device.clock.at(s * SEC, () => {
      submit(makeBio(device, W, sector, 8));
    }, null);
  submit(makeBio(device, W, 0, 8));
  at(10, 8);
  at(25, 24);
  at(33, 0);
  settle(device.clock);
  assertEquals(told, ["8 @40", "24 @55"]);
});

Deno.test("TimeoutTimer gives a command as much time again if the driver wants it", () => {
  let times = 0;
  const { device, told } = hanging((rq) =>
    ++times < 3 ? "reset-timer" : end(rq)
  );
  const ended = submit(makeBio(device, W, 8, 8));
  settle(device.clock);
  assertEquals(told, ["8 @30", "8 @60", "8 @90"]);
  assertEquals(ended.at, 90 * SEC / USEC);
});

Deno.test("TimeoutTimer tells once of a command that the driver will see to", () => {
  const { device, told } = hanging(() => "done");
  submit(makeBio(device, W, 8, 8));
  settle(device.clock);
  assertEquals(told, ["8 @30"]);
  assertEquals(device.clock.now(), 30 * SEC);
  assertEquals(device.clock.pending, 0);
});

Deno.test("TimeoutTimer tells of no command that ended while another was seen to", () => {
  const { device, told } = hanging(() => {
    device.queue.hctxs[0]!.forEachIssued((rq) => end(rq));
    return "done";
  });
  const all = [8, 24, 40].map((s) => submit(makeBio(device, W, s, 8)));
  settle(device.clock);
  assertEquals(told, ["8 @30"]);
  assertEquals(all.map((e) => e.times), [1, 1, 1]);
});

Deno.test("TimeoutTimer tells of a FLUSH, too", () => {
  const late: Request[] = [];
  const device: FakeDevice = new FakeDevice({
    time: () => Infinity,
    timeout: (rq) => (late.push(rq), end(rq)),
  });
  const ended = submit(makeBio(device, W | REQ_PREFLUSH, 0, 0));
  settle(device.clock);
  assertEquals(late.map((rq) => rq.bio), [null]);
  assertEquals(ended.status, BLK_STS_TIMEOUT);
});

Deno.test("TimeoutTimer adds one event in 30 s, however many commands", () => {
  class CountingClock extends VirtualClock {
    added = 0;
    override at<T>(time: number, fn: (arg: T) => void, arg: T): number {
      this.added++;
      return super.at(time, fn, arg);
    }
  }
  const clock = new CountingClock();
  const device = new FakeDevice({ timeout: end }, clock);
  for (let i = 0; i < 1000; i++) {
    submit(makeBio(device, W, 16 * i, 8));
    if (i % 3 === 0) settle(clock);
  }
  settle(clock);
  // The device's own, and one.
  assertEquals(clock.added, 1001);
});
