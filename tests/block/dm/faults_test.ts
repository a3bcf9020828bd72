import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  Bio,
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_NOTSUPP,
  BLK_STS_OK,
  BLK_STS_TRANSPORT,
  type BlockDevice,
  DelayDevice,
  ErrorDevice,
  FlakeyDevice,
  type FlakeyOptions,
  REQ_FUA,
  REQ_META,
  REQ_NOWAIT,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_PREFLUSH,
  submitBio,
  submitBioWait,
} from "../../../block/mod.ts";
import { USEC, VirtualClock } from "../../../lib/clock.ts";
import { FsError } from "../../../lib/errno.ts";
import { createNvme } from "../../../mod.ts";
import { FakeDevice, makeBio, settle, submit } from "../fake_device.ts";

const FLUSH = REQ_OP_WRITE | REQ_PREFLUSH;

function status(device: BlockDevice, opf: number, at: number, sectors: number) {
  const ended = submit(makeBio(device, opf, at, sectors));
  settle(device.clock);
  assertEquals(ended.times, 1);
  return ended.status;
}

Deno.test("ErrorDevice fails what a rule names, and only that", () => {
  const disk = new FakeDevice();
  const bad = new ErrorDevice(disk, {
    rules: ["add,op=READ,status=MEDIUM,start=8,nr_sectors=0x8"],
  });
  assertEquals(status(bad, REQ_OP_READ, 0, 8), BLK_STS_OK);
  assertEquals(status(bad, REQ_OP_READ, 16, 8), BLK_STS_OK);
  assertEquals(status(bad, REQ_OP_WRITE, 8, 8), BLK_STS_OK);
  assertEquals(disk.log.length, 3);
  assertEquals(status(bad, REQ_OP_READ, 7, 2), BLK_STS_MEDIUM);
  assertEquals(status(bad, REQ_OP_READ, 15, 8), BLK_STS_MEDIUM);
  assertEquals(disk.log.length, 3);
  bad.control("removeall");
  assertEquals(status(bad, REQ_OP_READ, 8, 8), BLK_STS_OK);
});

Deno.test("ErrorDevice counts, and lets the first of several rules have the say", () => {
  const bad = new ErrorDevice(new FakeDevice());
  bad.control("add,op=WRITE,status=TRANSPORT,count=2");
  bad.control("add,op=WRITE,status=MEDIUM,count=1");
  const write = () => status(bad, REQ_OP_WRITE, 0, 8);
  assertEquals([write(), write(), write(), write()], [
    BLK_STS_TRANSPORT,
    BLK_STS_TRANSPORT,
    BLK_STS_MEDIUM,
    BLK_STS_OK,
  ]);
});

Deno.test("ErrorDevice fails flushes, empty or with data", () => {
  const disk = new FakeDevice();
  const bad = new ErrorDevice(disk, { rules: ["add,op=FLUSH,status=IOERR"] });
  assertEquals(status(bad, FLUSH, 0, 0), BLK_STS_IOERR);
  assertEquals(status(bad, FLUSH, 0, 8), BLK_STS_IOERR);
  assertEquals(status(bad, REQ_OP_WRITE | REQ_FUA, 0, 8), BLK_STS_OK);
  // A flush writes no sectors.
  bad.control("removeall");
  bad.control("add,op=WRITE,status=IOERR");
  assertEquals(status(bad, FLUSH, 0, 0), BLK_STS_OK);
});

Deno.test("ErrorDevice 142. with chance=10 fails about one in 10, the same ones for one seed", () => {
  const hits = (seed: number) => {
    const disk = new FakeDevice({ time: () => 0 });
    const rules = ["add,op=READ,status=IOERR,chance=10"];
    const bad = new ErrorDevice(disk, { seed, rules });
    return Array.from(
      { length: 2000 },
      () => status(bad, REQ_OP_READ, 0, 8) === BLK_STS_IOERR,
    );
  };
  const first = hits(5);
  const count = first.filter((hit) => hit).length;
  assert(count > 150 && count < 250, `${count}`);
  assertEquals(hits(5), first);
  assert(hits(6).some((hit, i) => hit !== first[i]));
});

const badRules: [string, string][] = [
  ["", '"" is neither add nor removeall'],
  ["remove,op=READ", '"remove" is neither'],
  ["add", "op is missing"],
  ["add,op=READ", "status is missing"],
  ["add,op=FOO,status=IOERR", "op=FOO is none of READ, WRITE"],
  ["add,op=toString,status=IOERR", "op=toString is none of"],
  ["add,op=READ,status=EIO", "status=EIO is none of NOTSUPP"],
  ["add,op=READ,status=RESOURCE", "status=RESOURCE is none of"],
  ["add,op=READ,status=IOERR,start=-1", "start=-1 is not"],
  ["add,op=READ,status=IOERR,nr_sectors=0", "nr_sectors=0 is not"],
  ["add,op=READ,status=IOERR,chance=", "chance= is not"],
  ["add,op=READ,status=IOERR,count=1e3", "count=1e3 is not"],
  ["add,op=READ,status=IOERR,often=1", '"often=1" is none of op'],
  ["add,op=READ,op=WRITE,status=IOERR", "op is given twice"],
  ["add,op=FLUSH,status=IOERR,start=0", "a FLUSH has no sectors"],
];
for (const [rule, text] of badRules) {
  Deno.test(`ErrorDevice refuses the rule "${rule}", naming what is wrong`, () => {
    const bad = new ErrorDevice(new FakeDevice());
    const error = assertThrows(() => bad.control(rule), FsError, text);
    assertEquals(error.code, "EINVAL");
    // Nothing of it has been taken.
    assertEquals(status(bad, REQ_OP_READ, 0, 8), BLK_STS_OK);
  });
}

Deno.test("DelayDevice lets each kind wait its time", () => {
  const disk = new FakeDevice();
  const slow = new DelayDevice(disk, {
    readNs: 0,
    writeNs: 20 * USEC,
    flushNs: 30 * USEC,
  });
  submit(makeBio(slow, FLUSH, 8, 8));
  submit(makeBio(slow, REQ_OP_WRITE, 0, 8));
  submit(makeBio(slow, REQ_OP_WRITE, 8, 8));
  const read = submit(makeBio(slow, REQ_OP_READ, 0, 8));
  settle(disk.clock);
  assertEquals([read.status, read.at, read.times], [BLK_STS_OK, 10, 1]);
  assertEquals(disk.log, [
    "READ 0+8 @0",
    "WRITE 0+8 @20",
    "WRITE 8+8 @20",
    "FLUSH @30",
    // Its data waits as other data does, once the flush has ended.
    "WRITE 8+8 @150",
  ]);
});

Deno.test("DelayDevice gives a time that is absent the value of the one before", () => {
  const disk = new FakeDevice();
  const slow = new DelayDevice(disk, { readNs: 7 * USEC });
  for (const opf of [REQ_OP_READ, REQ_OP_WRITE, FLUSH]) {
    submit(makeBio(slow, opf, 0, opf === FLUSH ? 0 : 8));
  }
  settle(disk.clock);
  assertEquals(disk.log.map((l) => l.split("@")[1]), ["7", "7", "7"]);
  assertThrows(() => new DelayDevice(disk, { readNs: -1 }), FsError, "readNs");
});

Deno.test("DelayDevice a synchronous caller runs the clock, also from within a submission", () => {
  const clock = new VirtualClock();
  const instant = new FakeDevice({ time: () => 0 }, clock);
  const slow = new DelayDevice(instant, { readNs: USEC });
  const outer = makeBio(instant, REQ_OP_READ, 0, 8);
  let answer: unknown;
  outer.endIo = () => {
    clock.enterSync();
    answer = submitBioWait(makeBio(slow, REQ_OP_READ, 0, 8));
    clock.leaveSync();
  };
  submitBio(outer);
  settle(clock);
  assertEquals(answer, 0);
});

Deno.test("DelayDevice and FlakeyDevice have no NOWAIT, ErrorDevice has what is below", () => {
  const disk = new FakeDevice();
  const opf = REQ_OP_READ | REQ_NOWAIT;
  const slow = new DelayDevice(disk, { readNs: 0 });
  const flakey = new FlakeyDevice(disk, { dropWrites: true });
  assertEquals(status(slow, opf, 0, 8), BLK_STS_NOTSUPP);
  assertEquals(status(flakey, opf, 0, 8), BLK_STS_NOTSUPP);
  assertEquals(status(new ErrorDevice(disk), opf, 0, 8), BLK_STS_OK);
});

/** A device with bytes, under a flakey one. */
function flakey(options: FlakeyOptions) {
  const clock = new VirtualClock();
  const disk = createNvme(clock, { size: 65536 });
  return { clock, disk, top: new FlakeyDevice(disk, options) };
}

/** Writes sectors of one value.
 * @returns The errno. */
async function write(bdev: BlockDevice, sector: number, value: number) {
  const bio = new Bio(bdev, REQ_OP_WRITE);
  bio.sector = sector;
  bio.addData(new Uint8Array(1024).fill(value), 0, 1024);
  return await submitBioWait(bio);
}

/** First byte of a sector. */
async function byteAt(bdev: BlockDevice, sector: number) {
  const bio = makeBio(bdev, REQ_OP_READ, sector, 1);
  assertEquals(await submitBioWait(bio), 0);
  return bio.vecs[0]!.data[0];
}

Deno.test("FlakeyDevice drops writes from the nth on, and says they were done", async () => {
  const { disk, top } = flakey({ fromWrite: 3, dropWrites: true });
  for (let i = 0; i < 4; i++) {
    assertEquals(await write(top, 2 * i, i + 1), 0);
    // Neither reads nor flushes count.
    assertEquals(await submitBioWait(makeBio(top, FLUSH, 0, 0)), 0);
    await byteAt(top, 0);
  }
  const bytes = await Promise.all([0, 2, 4, 6].map((s) => byteAt(disk, s)));
  assertEquals(bytes, [1, 2, 0, 0]);
  disk.close();
});

Deno.test("FlakeyDevice is good until its time", () => {
  const disk = new FakeDevice();
  const top = new FlakeyDevice(disk, { fromTime: 50 * USEC });
  const at = (us: number, opf: number) => {
    disk.clock.runUntil(() => disk.clock.now() >= us * USEC);
    return status(top, opf, 0, 8);
  };
  disk.clock.at(49 * USEC, () => {}, undefined);
  disk.clock.at(60 * USEC, () => {}, undefined);
  assertEquals(at(0, REQ_OP_READ), BLK_STS_OK);
  assertEquals([at(60, REQ_OP_READ), at(60, REQ_OP_WRITE)], [
    BLK_STS_IOERR,
    BLK_STS_IOERR,
  ]);
  assertEquals(disk.log.length, 1);
});

Deno.test("FlakeyDevice fails writes, and reads on", async () => {
  const { disk, top } = flakey({ fromWrite: 2, errorWrites: true });
  assertEquals([await write(top, 0, 1), await write(top, 0, 2)], [0, -5]);
  assertEquals(await byteAt(top, 0), 1);
  disk.close();
});

Deno.test("FlakeyDevice changes a byte of what is written, not of the writer's memory", async () => {
  const { disk, top } = flakey({
    corrupt: { offset: 600, direction: "write", value: 9, flags: REQ_META },
  });
  const data = new Uint8Array(2048).fill(1);
  const send = async (sector: number, opf: number, parts: number[][]) => {
    const bio = new Bio(top, opf);
    bio.sector = sector;
    for (const [offset, len] of parts) bio.addData(data, offset!, len!);
    assertEquals(await submitBioWait(bio), 0);
  };
  await send(0, REQ_OP_WRITE | REQ_META, [[1024, 512], [0, 1024]]);
  await send(8, REQ_OP_WRITE, [[0, 1024]]);
  await send(16, REQ_OP_WRITE | REQ_META, [[0, 512]]);
  const bio = makeBio(disk, REQ_OP_READ, 0, 24);
  assertEquals(await submitBioWait(bio), 0);
  const seen = bio.vecs[0]!.data;
  const wrong = [...seen.keys()].filter((i) => seen[i]! > 1);
  assertEquals([wrong, seen[600]], [[600], 9]);
  assertEquals(data.every((b) => b === 1), true);
  disk.close();
});

Deno.test("FlakeyDevice changes a byte of what is read, wherever it lies in memory", async () => {
  const { disk, top } = flakey({
    corrupt: { offset: 600, direction: "read", value: 9 },
  });
  await write(top, 0, 1);
  assertEquals(await byteAt(disk, 1), 1);
  const memory = new Uint8Array(4096);
  const bio = new Bio(top, REQ_OP_READ);
  bio.addData(memory, 2048, 512);
  bio.addData(memory, 512, 512);
  assertEquals(await submitBioWait(bio), 0);
  const nines = [...memory.keys()].filter((i) => memory[i] === 9);
  assertEquals(nines, [512 + 88]);
  // Too short to have that byte.
  assertEquals(await byteAt(top, 0), 1);
  disk.close();
});

const badOptions: [string, FlakeyOptions][] = [
  ["fromWrite 0", { fromWrite: 0 }],
  ["fromTime -1", { fromTime: -1 }],
  ["errorWrites exclude", { dropWrites: true, errorWrites: true }],
  ["value 256", { corrupt: { offset: 0, direction: "read", value: 256 } }],
  ["offset -1", { corrupt: { offset: -1, direction: "read", value: 0 } }],
  ["direction", { corrupt: { offset: 0, direction: "x" as "read", value: 0 } }],
];
for (const [text, options] of badOptions) {
  Deno.test(`FlakeyDevice refuses what cannot be: ${text}`, () => {
    const make = () => new FlakeyDevice(new FakeDevice(), options);
    assertEquals(assertThrows(make, FsError, text).code, "EINVAL");
  });
}

Deno.test("the error injection of a mapped device looks once at data that come with a flush", () => {
  const top = new ErrorDevice(new FakeDevice());
  const looks: number[] = [];
  top.errorInjection = {
    inject: (bio) => {
      looks.push(bio.sector);
      return BLK_STS_OK;
    },
  };
  assertEquals(status(top, FLUSH, 8, 8), BLK_STS_OK);
  assertEquals(looks, [8]);
});
