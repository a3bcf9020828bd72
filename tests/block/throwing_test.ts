/**
 * Callbacks that throw: everything else goes on, and the error comes out of the clock.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  type Bio,
  BLK_STS_IOERR,
  BLK_STS_OK,
  blkFinishPlug,
  blkFreezeQueueStart,
  blkMarkDiskDead,
  blkMqEndRequest,
  blkMqUnfreezeQueue,
  blkStartPlug,
  type BlockDevice,
  REQ_OP_WRITE,
  REQ_PREFLUSH,
  type Request,
  setBlockTracer,
  StripeDevice,
  submitBio,
} from "../../block/mod.ts";
import { USEC } from "../../lib/clock.ts";
import { FakeDevice, makeBio, settle } from "./fake_device.ts";
import { ZONE, ZonedDevice } from "./zoned_device.ts";

const W = REQ_OP_WRITE;

/** What came out of a clock until nothing was left to do. */
function errorsOf({ clock }: BlockDevice): string[] {
  const errors: string[] = [];
  for (;;) {
    try {
      settle(clock);
      return errors;
    } catch (error) {
      errors.push((error as Error).message);
    }
  }
}

/** Makes the `endIo` of bios throw, and notes how they end. */
function throwing(bios: Bio[]): number[] {
  const ends: number[] = [];
  for (const bio of bios) {
    bio.endIo = ({ status }) => {
      ends.push(status);
      throw new Error("endIo");
    };
  }
  return ends;
}

/** Bios over 8 sectors each, one behind the other. */
function writes(bdev: BlockDevice, n: number, opf = 0): Bio[] {
  return Array.from({ length: n }, (_, i) => makeBio(bdev, W | opf, 8 * i, 8));
}

function submitAll(bios: Bio[]): void {
  for (const bio of bios) submitBio(bio);
}

interface Case {
  what: string;
  device: () => BlockDevice;
  bios: (device: BlockDevice) => Bio[];
  send: (bios: Bio[], device: BlockDevice) => void;
  status?: number;
}

const slow = () => new FakeDevice();
const atOnce = () => new FakeDevice({ time: () => 0 });
const three = (bdev: BlockDevice) => writes(bdev, 3);
const queueOf = (bdev: BlockDevice) => bdev.requestQueue!;

const cases: Case[] = [
  { what: "one by one", device: slow, bios: three, send: submitAll },
  { what: "within submitBio()", device: atOnce, bios: three, send: submitAll },
  {
    what: "of one request",
    device: slow,
    bios: three,
    send: (bios) => {
      blkStartPlug();
      submitAll(bios);
      blkFinishPlug();
    },
  },
  {
    what: "that one FLUSH is for",
    device: slow,
    bios: (bdev) => writes(bdev, 3, REQ_PREFLUSH),
    send: submitAll,
  },
  {
    what: "in line for a tag",
    device: () =>
      new FakeDevice({ depth: 1, time: (rq) => rq.sector > 0 ? 0 : USEC }),
    bios: (bdev) => writes(bdev, 10),
    send: submitAll,
  },
  {
    what: "that a frozen queue lets in",
    device: atOnce,
    bios: three,
    send: (bios, bdev) => {
      blkFreezeQueueStart(queueOf(bdev));
      submitAll(bios);
      blkMqUnfreezeQueue(queueOf(bdev));
    },
  },
  {
    what: "that wait when the disk dies",
    device: slow,
    bios: three,
    send: (bios, bdev) => {
      blkFreezeQueueStart(queueOf(bdev));
      submitAll(bios);
      blkMarkDiskDead(queueOf(bdev));
    },
    status: BLK_STS_IOERR,
  },
  {
    what: "that wait in the plug of a zone",
    device: () => ZonedDevice.registered(),
    bios: (bdev) => writes(bdev, 3).concat(makeBio(bdev, W, ZONE, 8)),
    send: submitAll,
  },
  {
    what: "of the parts of a stripe",
    device: () => {
      const first = atOnce();
      const second = new FakeDevice({ time: () => 0 }, first.clock);
      return new StripeDevice([first, second], { chunkSectors: 8 });
    },
    bios: (bdev) => [makeBio(bdev, W, 0, 64), makeBio(bdev, W, 64, 64)],
    send: submitAll,
  },
];

for (const { what, device: make, bios: of, send, status } of cases) {
  Deno.test(`an endIo that throws keeps none from ending: bios ${what}`, () => {
    const device = make();
    const bios = of(device);
    const ends = throwing(bios);
    send(bios, device);
    assertEquals(errorsOf(device), bios.map(() => "endIo"));
    assertEquals(ends, bios.map(() => status ?? BLK_STS_OK));
    const queue = device.requestQueue;
    assert(queue === null || queue.hctxs.every((hctx) => hctx.idle));
  });
}

Deno.test("a tracer that throws, or turns itself off, changes nothing", () => {
  const device = new FakeDevice({ status: () => BLK_STS_IOERR });
  const [first, second] = writes(device, 2);
  const ends: number[] = [];
  first!.endIo = second!.endIo = ({ status }) => ends.push(status);
  setBlockTracer(({ name }) => {
    if (name === "block_rq_complete") setBlockTracer(null);
    throw new Error(name);
  });
  submitBio(first!);
  assertEquals(errorsOf(device), [
    "block_bio_queue",
    "block_getrq",
    "block_rq_issue",
    "block_rq_complete",
  ]);
  submitBio(second!);
  assertEquals(errorsOf(device), []);
  assertEquals(ends, [BLK_STS_IOERR, BLK_STS_IOERR]);
});

Deno.test("a driver that throws does not leave its queue as if it were at work", () => {
  let refused = 2;
  const device: FakeDevice = new FakeDevice({
    depth: 3,
    take: () => {
      if (refused-- > 0) throw new Error("queueRq");
      return BLK_STS_OK;
    },
  });
  const { queue } = device;
  queue.nomerges = 2;
  queue.quiesceDepth = 1;
  const bios = writes(device, 4);
  let ended = 0;
  for (const bio of bios) bio.endIo = () => ended++;
  submitAll(bios);
  queue.quiesceDepth = 0;
  assertThrows(() => queue.hctxs[0]!.run(), Error, "queueRq");
  assertThrows(() => queue.hctxs[0]!.run(), Error, "queueRq");
  // Two are lost with their tags, the others go on.
  queue.hctxs[0]!.run();
  assertEquals(errorsOf(device), []);
  assertEquals(ended, 2);
});

Deno.test("TimeoutTimer goes on when a driver throws", () => {
  const told: number[] = [];
  const device = new FakeDevice({
    time: () => Infinity,
    timeout: (rq: Request) => {
      told.push(rq.sector);
      if (told.length === 1) throw new Error("timeout");
      blkMqEndRequest(rq, BLK_STS_IOERR);
      return "done";
    },
  });
  const bios = writes(device, 3);
  let ended = 0;
  for (const bio of bios) bio.endIo = () => ended++;
  submitAll(bios);
  assertEquals(errorsOf(device), ["timeout"]);
  assertEquals([told, ended], [[0, 8, 16], 2]);
});
