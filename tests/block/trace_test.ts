import { assertEquals } from "@std/assert";
import {
  BLK_STS_DEV_RESOURCE,
  BLK_STS_MEDIUM,
  BLK_STS_OK,
  blkdevIssueFlush,
  blkFillRwbs,
  blkFinishPlug,
  blkMqRequeueRequest,
  blkStartPlug,
  type BlockTraceEvent,
  formatBlockTrace,
  LinearDevice,
  Partition,
  printBlockTrace,
  REQ_ATOMIC,
  REQ_FUA,
  REQ_META,
  REQ_OP_DISCARD,
  REQ_OP_DRV_IN,
  REQ_OP_FLUSH,
  REQ_OP_READ,
  REQ_OP_SECURE_ERASE,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_OP_ZONE_APPEND,
  REQ_OP_ZONE_RESET,
  REQ_OP_ZONE_RESET_ALL,
  REQ_PREFLUSH,
  REQ_RAHEAD,
  REQ_SYNC,
  setBlockTracer,
} from "../../block/mod.ts";
import { USEC } from "../../lib/clock.ts";
import { Prng } from "../../lib/prng.ts";
import {
  FakeDevice,
  type FakeOptions,
  makeBio,
  settle,
  submit,
} from "./fake_device.ts";

const W = REQ_OP_WRITE;
const R = REQ_OP_READ;

/** Events of what `run` does, as the trace file's lines from the name on. */
function traced(run: () => void): string[] {
  const lines: string[] = [];
  setBlockTracer((event) => {
    lines.push(formatBlockTrace(event).slice(36).trimStart());
  });
  try {
    run();
  } finally {
    setBlockTracer(null);
  }
  return lines;
}

Deno.test("blkFillRwbs() gives the kernel's letters", () => {
  const cases: [number, string][] = [
    [R, "R"],
    [W, "W"],
    [R | REQ_RAHEAD, "RA"],
    [R | REQ_SYNC | REQ_META, "RSM"],
    [W | REQ_SYNC, "WS"],
    [W | REQ_FUA | REQ_SYNC, "WFS"],
    [W | REQ_PREFLUSH | REQ_FUA | REQ_SYNC | REQ_META, "FWFSM"],
    [W | REQ_ATOMIC | REQ_SYNC, "WSU"],
    [REQ_OP_FLUSH | REQ_PREFLUSH, "FF"],
    [REQ_OP_DISCARD, "D"],
    [REQ_OP_SECURE_ERASE, "DE"],
    [REQ_OP_WRITE_ZEROES, "WZ"],
    [REQ_OP_ZONE_APPEND, "ZA"],
    [REQ_OP_ZONE_RESET, "ZR"],
    [REQ_OP_ZONE_RESET_ALL, "ZRA"],
    [REQ_OP_DRV_IN, "N"],
  ];
  for (const [opf, rwbs] of cases) assertEquals(blkFillRwbs(opf), rwbs);
});

Deno.test("setBlockTracer() is told of a bio from its submission to its end", () => {
  const device = new FakeDevice();
  const lines = traced(() => {
    const bio = makeBio(device, W | REQ_SYNC, 64, 8);
    bio.ioprio = (1 << 13) | 4;
    submit(bio);
    settle(device.clock);
  });
  assertEquals(lines, [
    "0.000000: block_bio_queue: 259,0 WS 64 + 8 [iomap]",
    "0.000000: block_getrq: 259,0 WS 64 + 8 [iomap]",
    "0.000000: block_rq_issue: 259,0 WS 4096 () 64 + 8 rt,0,4 [iomap]",
    "0.000010: block_rq_complete: 259,0 WS () 64 + 8 rt,0,4 [0]",
  ]);
});

Deno.test("setBlockTracer() is told of plugs, merges and errors", () => {
  const device = new FakeDevice({ status: () => BLK_STS_MEDIUM });
  const lines = traced(() => {
    blkStartPlug();
    for (const i of [4, 5, 3]) submit(makeBio(device, R, 8 * i, 8));
    blkFinishPlug();
    settle(device.clock);
  });
  assertEquals(lines, [
    "0.000000: block_bio_queue: 259,0 R 32 + 8 [iomap]",
    "0.000000: block_getrq: 259,0 R 32 + 8 [iomap]",
    "0.000000: block_plug: [iomap]",
    "0.000000: block_bio_queue: 259,0 R 40 + 8 [iomap]",
    "0.000000: block_bio_backmerge: 259,0 R 40 + 8 [iomap]",
    "0.000000: block_bio_queue: 259,0 R 24 + 8 [iomap]",
    "0.000000: block_bio_frontmerge: 259,0 R 24 + 8 [iomap]",
    "0.000000: block_unplug: [iomap] 1",
    "0.000000: block_rq_issue: 259,0 R 12288 () 24 + 24 none,0,0 [iomap]",
    "0.000010: block_rq_complete: 259,0 R () 24 + 24 none,0,0 [-61]",
    "0.000010: block_rq_error: 259,0 R () 24 + 24 none,0,0 [-61]",
  ]);
});

Deno.test("setBlockTracer() is told of parts, once of the bio that is split", () => {
  const device = new FakeDevice({ limits: { maxHwSectors: 16 } });
  const lines = traced(() => submit(makeBio(device, R, 0, 40)));
  settle(device.clock);
  assertEquals(lines.filter((line) => !/getrq|issue/.test(line)), [
    "0.000000: block_bio_queue: 259,0 R 0 + 40 [iomap]",
    "0.000000: block_split: 259,0 R 0 / 16 [iomap]",
    "0.000000: block_split: 259,0 R 16 / 32 [iomap]",
  ]);
});

Deno.test("setBlockTracer() is told of the steps of a flush", () => {
  const device = new FakeDevice({ cache: "no-fua" });
  const lines = traced(() => {
    submit(makeBio(device, W | REQ_PREFLUSH | REQ_FUA | REQ_SYNC, 8, 8));
    settle(device.clock);
  });
  assertEquals(lines.slice(2), [
    "0.000000: block_rq_issue: 259,0 FF 0 () 0 + 0 none,0,0 [iomap]",
    "0.000100: block_rq_complete: 259,0 FF () 0 + 0 none,0,0 [0]",
    "0.000100: block_rq_issue: 259,0 WS 4096 () 8 + 8 none,0,0 [iomap]",
    "0.000110: block_rq_complete: 259,0 WS () 8 + 8 none,0,0 [0]",
    "0.000110: block_rq_issue: 259,0 FF 0 () 0 + 0 none,0,0 [iomap]",
    "0.000210: block_rq_complete: 259,0 FF () 0 + 0 none,0,0 [0]",
  ]);
});

Deno.test("setBlockTracer() is told of requests that wait, and of those that go back", () => {
  let room = 1;
  let failed = false;
  const device = new FakeDevice({
    take: () => room-- > 0 ? BLK_STS_OK : BLK_STS_DEV_RESOURCE,
  });
  const end = device.end.bind(device);
  device.end = (rq) => {
    room = 1;
    if (failed) return end(rq);
    failed = true;
    blkMqRequeueRequest(rq);
  };
  const lines = traced(() => {
    for (const i of [0, 4, 8]) submit(makeBio(device, W, 8 * i, 8));
    settle(device.clock);
  });
  const names = lines.map((line) => {
    const [, name, fields] = /(block_\w+): .*?(\d+) \+/.exec(line)!;
    return `${name} ${fields}`;
  });
  assertEquals(names.filter((name) => /insert|requeue/.test(name)), [
    "block_rq_insert 64",
    "block_rq_requeue 0",
  ]);
});

Deno.test("setBlockTracer() is told where a bio goes from a device over another", () => {
  const disk = new FakeDevice();
  const part = new Partition(disk, 1, 1024, 4096);
  const linear = new LinearDevice(disk, {
    startSector: 2048,
    nrSectors: 1024,
  });
  const lines = traced(() => {
    submit(makeBio(part, R, 8, 8));
    submit(makeBio(linear, R, 16, 8));
  });
  settle(disk.clock);
  const { major, minor } = part.dev;
  const dm = `${linear.dev.major},${linear.dev.minor}`;
  assertEquals(lines.filter((line) => line.includes("remap")), [
    `0.000000: block_bio_remap: ${major},${minor} R 1032 + 8 <- (${major},${minor}) 8`,
    `0.000000: block_bio_remap: 259,0 R 2064 + 8 <- (${dm}) 16`,
  ]);
});

Deno.test("printBlockTrace() shows events as the kernel's trace file does", () => {
  const text = printBlockTrace([{
    name: "block_rq_issue",
    time: 411_212_317_999,
    dev: "8,48",
    rwbs: "WS",
    sector: 1024,
    nrSector: 32,
    bytes: 16384,
    ioprio: 0,
  }]);
  const lines = text.split("\n");
  assertEquals(
    lines[2],
    "# entries-in-buffer/entries-written: 1/1   #P:1",
  );
  assertEquals(
    lines.at(-2),
    "           iomap-1       [000] .....   411.212317: block_rq_issue: " +
      "8,48 WS 16384 () 1024 + 32 none,0,0 [iomap]",
  );
  assertEquals(lines.filter((line) => line.startsWith("#")).length, 12);
});

/** What a random workload on two queues does, as the trace file. */
function workload(seed: number): string {
  const events: BlockTraceEvent[] = [];
  const random = new Prng(seed, "trace");
  const options: FakeOptions = {
    queues: 2,
    readQueues: 1,
    depth: 16,
    cache: "no-fua",
    time: () => (1 + random.below(50)) * USEC,
  };
  const device = new FakeDevice(options);
  setBlockTracer((event) => events.push(event));
  for (let round = 0; round < 200; round++) {
    blkStartPlug();
    for (let i = random.below(20); i >= 0; i--) {
      const flags = [0, 0, 0, REQ_FUA, REQ_PREFLUSH][random.below(5)]!;
      const opf = random.below(2) === 0 ? R : W | flags;
      submit(makeBio(device, opf, 8 * random.below(64), 8));
    }
    blkFinishPlug();
    const until = device.clock.now() + random.below(100) * USEC;
    device.clock.at(until, () => {}, null);
    device.clock.runUntil(() => device.clock.now() >= until);
  }
  blkdevIssueFlush(device);
  settle(device.clock);
  setBlockTracer(null);
  return printBlockTrace(events);
}

async function hash(text: string): Promise<string> {
  const bytes = new TextEncoder().encode(text);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return digest.toHex();
}

Deno.test("two runs of one seed give the same trace, and of two seeds different ones", async () => {
  const [first, second, other] = await Promise.all(
    [1, 1, 2].map((seed) => hash(workload(seed))),
  );
  assertEquals(first, second);
  assertEquals(first === other, false);
  // Merges, batches and FLUSHes are part of it.
  const text = workload(1);
  for (const name of ["merge", "unplug", "FF", "block_getrq"]) {
    assertEquals(text.includes(name), true, name);
  }
});

Deno.test("setBlockTracer() is told of the end of a bio that is no request's", () => {
  const disk = new FakeDevice({ limits: { logicalBlockSize: 4096 } });
  const linear = new LinearDevice(disk, { startSector: 2048 });
  const dm = `${linear.dev.major},${linear.dev.minor}`;
  const lines = traced(() => {
    submit(makeBio(linear, R | REQ_SYNC, 16, 8));
    submit(makeBio(disk, W, 1, 8));
    settle(disk.clock);
  });
  assertEquals(lines.filter((line) => line.includes("complete")), [
    "0.000000: block_bio_complete: 259,0 W 1 + 8 [-5]",
    "0.000010: block_rq_complete: 259,0 RS () 2064 + 8 none,0,0 [0]",
    `0.000010: block_bio_complete: ${dm} RS 16 + 8 [0]`,
  ]);
});
