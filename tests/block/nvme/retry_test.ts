/**
 * What the driver does about commands that fail, or do not end.
 */
import { assert, assertEquals } from "@std/assert";
import { NvmeController } from "../../../block/nvme/controller.ts";
import { NvmeQueue } from "../../../block/nvme/host-queue.ts";
import {
  createNvme,
  MemoryMedia,
  NVME_PRESETS,
  NvmeDevice,
  type NvmeOptions,
} from "../../../block/nvme/mod.ts";
import { NVME_REG_INTMC, NVME_REG_INTMS } from "../../../block/nvme/nvme.ts";
import {
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_OFFLINE,
  BLK_STS_OK,
  REQ_FAILFAST_DEV,
  REQ_FAILFAST_DRIVER,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_PREFLUSH,
  REQ_RAHEAD,
  type Request,
  submitBio,
} from "../../../block/mod.ts";
import { setWarningHandler } from "../../../lib/bug.ts";
import { MSEC, SEC, USEC, VirtualClock } from "../../../lib/clock.ts";
import { type Ended, limits, makeBio, settle, submit } from "../fake_device.ts";

const MiB = 2 ** 20;
const SIZE = 16 * MiB;

function make(options: NvmeOptions = {}): NvmeDevice {
  const clock = new VirtualClock();
  return createNvme(clock, { size: SIZE, preset: "optane", ...options });
}

/** Ends the next commands with statuses, of which 0 carries one out; counts those
 * that came to be carried out. */
function answer(device: NvmeDevice, statuses: number[]): { tries: number } {
  const { faults } = device.controller.namespace;
  const count = { tries: 0 };
  faults.strikes = true;
  faults.strike = () => {
    count.tries++;
    return statuses.shift() ?? 0;
  };
  return count;
}

const many = (status: number) => new Array<number>(20).fill(status);

function read(device: NvmeDevice, flags = 0): Ended {
  const ended = submit(makeBio(device, REQ_OP_READ | flags, 0, 8));
  settle(device.clock);
  assertEquals(ended.times, 1);
  return ended;
}

Deno.test("corner case 97: an error is retried five times, with DNR not at all", () => {
  const MEDIUM = 0x281;
  const DNR = 0x4000;
  for (const preset of ["null", "optane"]) {
    const tries = (statuses: number[], flags = 0) => {
      const device = make({ preset });
      const count = answer(device, statuses);
      const { status } = read(device, flags);
      device.close();
      return [status, count.tries];
    };
    assertEquals(tries(many(MEDIUM)), [BLK_STS_MEDIUM, 6]);
    assertEquals(tries(many(MEDIUM | DNR)), [BLK_STS_MEDIUM, 1]);
    assertEquals(tries([MEDIUM, MEDIUM, MEDIUM]), [BLK_STS_OK, 4]);
    assertEquals(tries([MEDIUM, MEDIUM | DNR]), [BLK_STS_MEDIUM, 2]);
    for (const flag of [REQ_FAILFAST_DEV, REQ_FAILFAST_DRIVER, REQ_RAHEAD]) {
      assertEquals(tries(many(MEDIUM), flag), [BLK_STS_MEDIUM, 1]);
    }
  }
});

Deno.test("NvmeDevice retries each command five times, however often its tag was", () => {
  const device = make({ depth: 1 });
  for (let round = 0; round < 3; round++) {
    const count = answer(device, many(0x006));
    assertEquals([read(device).status, count.tries], [BLK_STS_IOERR, 6]);
    answer(device, [0x006]);
    assertEquals(read(device).status, BLK_STS_OK);
  }
  device.close();
});

Deno.test("NvmeDevice retries a flush, too", () => {
  const device = make({ preset: "mlc-970pro" });
  answer(device, [0, 0x006, 0x006]);
  const write = submit(makeBio(device, REQ_OP_WRITE, 0, 8));
  settle(device.clock);
  const flush = submit(makeBio(device, REQ_OP_WRITE | REQ_PREFLUSH, 0, 0));
  settle(device.clock);
  assertEquals([write.status, flush.status], [BLK_STS_OK, BLK_STS_OK]);
  device.close();
});

Deno.test("NvmeDevice waits as long before a retry as the device says", () => {
  const clock = new VirtualClock();
  const controller = new NvmeController(clock, {
    preset: NVME_PRESETS["null"],
    media: new MemoryMedia(SIZE),
    logicalBlockSize: 512,
    seed: 1,
    controller: { crdt: [1, 5, 20] },
  });
  const counts = { queues: 1, readQueues: 0, pollQueues: 0, depth: 8 };
  const device = new NvmeDevice(clock, controller, counts, 0);
  // CRD in bits 11 and 12 selects one of three delays.
  const crd = (n: number) => 0x006 | n << 11;
  answer(device, [crd(1), crd(2), crd(3), crd(0)]);
  const { status, at } = read(device);
  assertEquals([status, at * USEC], [BLK_STS_OK, 26 * 100 * MSEC]);
  device.close();
});

/** A device of which the next writes hang until they are aborted. */
function hanging(count: number, options: NvmeOptions = {}): NvmeDevice {
  const device = make(options);
  device.faults.add({ kind: "hang", op: "write", count });
  return device;
}

Deno.test("corner case 98: what does not end is looked for and aborted at 30 s, at 60 s the controller is reset", () => {
  // The completion was there, and only the interrupt was lost.
  const deaf = make();
  deaf.controller.writeRegister(NVME_REG_INTMS, 0xffff_ffff);
  const lost = submit(makeBio(deaf, REQ_OP_READ, 0, 8));
  settle(deaf.clock);
  assertEquals([lost.status, lost.at], [BLK_STS_OK, 30e6]);
  deaf.controller.writeRegister(NVME_REG_INTMC, 0xffff_ffff);
  deaf.close();

  // An Abort helps: the command is sent again, once.
  const slow = hanging(2);
  const writes = [0, 1].map((i) => submit(makeBio(slow, REQ_OP_WRITE, i, 1)));
  const other = submit(makeBio(slow, REQ_OP_READ, 0, 8));
  settle(slow.clock);
  assert(other.at < 1000, `${other.at}`);
  for (const { status, at, times } of writes) {
    assertEquals([status, times], [BLK_STS_OK, 1]);
    assert(at > 30e6 && at < 30e6 + 1000, `${at}`);
  }
  slow.close();

  // It does not: all that is under way is sent again.
  const stuck = hanging(3);
  const { controller } = stuck;
  const ring = controller.ringSq.bind(controller);
  let aborts = 0;
  controller.ringSq = (qid, tail) => {
    if (qid === 0 && aborts++ < 3) return;
    ring(qid, tail);
  };
  const all = [0, 1, 2].map((i) => submit(makeBio(stuck, REQ_OP_WRITE, i, 1)));
  settle(stuck.clock);
  for (const { status, at, times } of all) {
    assertEquals([status, times], [BLK_STS_OK, 1]);
    assert(at > 60e6 && at < 60e6 + 1000, `${at}`);
  }
  assertEquals(read(stuck).status, BLK_STS_OK);
  stuck.close();
});

Deno.test("NvmeDevice gives up a command that hangs each time, after five retries", () => {
  const device = hanging(20);
  const ended = submit(makeBio(device, REQ_OP_WRITE, 0, 8));
  settle(device.clock);
  assertEquals([ended.status, ended.times], [BLK_STS_IOERR, 1]);
  assertEquals(Math.round(ended.at / 1e6), 180);
  device.close();
});

Deno.test("NvmeDevice ends a command at once that hangs and must not be retried", () => {
  const device = hanging(1);
  const bio = makeBio(device, REQ_OP_WRITE | REQ_FAILFAST_DEV, 0, 8);
  const ended = submit(bio);
  settle(device.clock);
  assertEquals([ended.status, ended.at], [BLK_STS_IOERR, 30e6]);
  device.close();
});

Deno.test("corner case 99: a completion of a tag that was given up is told by its generation", () => {
  const done: [number, number][] = [];
  const controller = { ringSq() {}, ringCq() {} } as unknown as NvmeController;
  const owner = {
    controller,
    namespace: { blockSize: 512, deac: false },
    limits: limits({ maxHwSectors: 1024 }),
    complete: (_queue: NvmeQueue, rq: Request, status: number) => {
      done.push([rq.tag, status]);
    },
  };
  const queue = new NvmeQueue(owner, 1, 4, false);
  const rq = { tag: 2, opf: REQ_OP_READ, sector: 0, size: 512, bio: null };
  const warnings: string[] = [];
  const handler = setWarningHandler((text) => warnings.push(text));
  try {
    queue.submit(rq as unknown as Request, true);
    const late = queue.cid(2);
    assertEquals(queue.reset().length, 1);
    queue.submit(rq as unknown as Request, true);
    const now = queue.cid(2);
    assertEquals([late & 0xfff, now & 0xfff], [2, 2]);
    assert(late !== now);
    const { ring } = queue.rings.cq;
    ring[3] = late | 1 << 16;
    ring[4 + 3] = now | 1 << 16 | 0x281 << 17;
    queue.interrupt();
    assertEquals(done, [[2, 0x281]]);
    assertEquals(warnings, [`nvme: invalid id ${late} on queue 1`]);
  } finally {
    setWarningHandler(handler);
  }
});

Deno.test("NvmeDevice.reset() sends what is under way again, and loses nothing", () => {
  const device = make({ preset: "mlc-970pro", depth: 4 });
  const writes = [0, 1, 2, 3, 4, 5].map((i) => {
    const bio = makeBio(device, REQ_OP_WRITE, i, 1);
    bio.vecs[0]!.data.fill(i + 1);
    return submit(bio);
  });
  const never = submit(makeBio(device, REQ_OP_WRITE | REQ_FAILFAST_DEV, 9, 1));
  device.reset();
  settle(device.clock);
  for (const ended of writes) {
    assertEquals([ended.status, ended.times], [BLK_STS_OK, 1]);
  }
  // It was not under way yet, for want of a tag.
  assertEquals(never.status, BLK_STS_OK);
  const bio = makeBio(device, REQ_OP_READ, 0, 6);
  submit(bio);
  settle(device.clock);
  const { data } = bio.vecs[0]!;
  assertEquals([0, 1, 2, 3, 4, 5].map((i) => data[512 * i]), [
    1,
    2,
    3,
    4,
    5,
    6,
  ]);
  device.close();
});

Deno.test("NvmeDevice.reset() may be called from endIo", () => {
  for (const preset of ["null", "optane"]) {
    const device = make({ preset });
    let left = 5;
    const bio = makeBio(device, REQ_OP_READ, 0, 8);
    const others = [8, 16, 24].map((at) =>
      submit(makeBio(device, REQ_OP_READ, at, 8))
    );
    bio.endIo = (done) => {
      device.reset();
      if (--left > 0) submitBio(done);
    };
    submitBio(bio);
    settle(device.clock);
    assertEquals(left, 0);
    assertEquals(others.map((e) => [e.status, e.times]), [
      [BLK_STS_OK, 1],
      [BLK_STS_OK, 1],
      [BLK_STS_OK, 1],
    ]);
    device.close();
  }
});

Deno.test("NvmeDevice.powerCut() ends what waits for a retry, though the power is back by then", () => {
  const device = make();
  answer(device, many(0x006));
  const bio = makeBio(device, REQ_OP_WRITE, 0, 8);
  const ended = submit(bio);
  // The first try has failed, and the next is about to be sent.
  device.clock.runUntil(() => device.queue.issued === 0);
  assertEquals(ended.times, 0);
  device.powerCut({ keep: "none" });
  device.powerOn();
  const count = answer(device, []);
  settle(device.clock);
  assertEquals([ended.status, ended.times], [BLK_STS_IOERR, 1]);
  assertEquals(count.tries, 0);
  assertEquals(read(device).status, BLK_STS_OK);
  device.close();
});

Deno.test("NvmeDevice.close() ends what hangs", () => {
  const device = hanging(1);
  const ended = submit(makeBio(device, REQ_OP_WRITE, 0, 8));
  device.clock.at(SEC, () => device.close(), undefined);
  settle(device.clock);
  assertEquals([ended.status, ended.at], [BLK_STS_OFFLINE, 1e6]);
});
