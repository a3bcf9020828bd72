import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  checkPassthru,
  nvmeErrorStatus,
  nvmeMapData,
  type NvmeNamespace,
  nvmeSetupCmd,
  nvmeShallRetry,
  PassthruCommand,
} from "../../../block/nvme/host-cmd.ts";
import {
  Bio,
  BLK_STS_INVAL,
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_NOSPC,
  BLK_STS_NOTSUPP,
  BLK_STS_OK,
  BLK_STS_PROTECTION,
  BLK_STS_RESV_CONFLICT,
  BLK_STS_TARGET,
  BLK_STS_TRANSPORT,
  BLK_STS_ZONE_ACTIVE_RESOURCE,
  BLK_STS_ZONE_OPEN_RESOURCE,
  type QueueLimits,
  REQ_ATOMIC,
  REQ_FAILFAST_DEV,
  REQ_FAILFAST_DRIVER,
  REQ_FAILFAST_TRANSPORT,
  REQ_FUA,
  REQ_NOUNMAP,
  REQ_OP_DISCARD,
  REQ_OP_DRV_IN,
  REQ_OP_FLUSH,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_OP_ZONE_APPEND,
  REQ_OP_ZONE_CLOSE,
  REQ_OP_ZONE_FINISH,
  REQ_OP_ZONE_OPEN,
  REQ_OP_ZONE_RESET,
  REQ_OP_ZONE_RESET_ALL,
  REQ_RAHEAD,
  REQ_SYNC,
  type Request,
} from "../../../block/mod.ts";
import { FsError } from "../../../lib/errno.ts";
import { FakeDevice, limits } from "../fake_device.ts";

const KiB = 1024;
const fake = new FakeDevice();
const plain = limits({ maxHwSectors: 1024 });

/** A request of bios with these ranges, in sectors. */
function request(opf: number, ...ranges: [number, number][]): Request {
  let head: Bio | null = null;
  let tail: Bio | null = null;
  let size = 0;
  for (const [sector, sectors] of ranges) {
    const bio = new Bio(fake, opf);
    bio.sector = sector;
    bio.size = sectors * 512;
    size += bio.size;
    if (tail === null) head = bio;
    else tail.next = bio;
    tail = bio;
  }
  const sector = ranges[0]?.[0] ?? 0;
  return { opf, sector, size, bio: head, biotail: tail } as unknown as Request;
}

const BLOCKS_512: NvmeNamespace = { blockSize: 512, deac: false };
const BLOCKS_4096: NvmeNamespace = { blockSize: 4096, deac: true };

/** Words of the command that a request becomes, by index, but for those that are 0. */
function words(
  rq: Request,
  ns = BLOCKS_512,
  lim: QueueLimits = plain,
): Record<number, number> {
  // What is there from the command before must go.
  const sq = new Uint32Array(32).fill(0xdead_beef);
  sq.fill(0, 16 + 4, 16 + 10);
  assertEquals(nvmeSetupCmd(sq, 16, rq, ns, lim), BLK_STS_OK);
  assert(sq.subarray(0, 16).every((word) => word === 0xdead_beef));
  const set: Record<number, number> = {};
  sq.subarray(16).forEach((word, i) => {
    if (word !== 0) set[i] = word;
  });
  return set;
}

const FUA = 2 ** 30;
const LR = 2 ** 31;
const commands: [string, Request, NvmeNamespace, Record<number, number>][] = [
  ["a read", request(REQ_OP_READ, [8, 16]), BLOCKS_512, {
    0: 0x02,
    1: 1,
    10: 8,
    12: 15,
  }],
  [
    "a read beyond 2 TiB",
    request(REQ_OP_READ, [2 ** 32 + 5, 1]),
    BLOCKS_512,
    { 0: 0x02, 1: 1, 10: 5, 11: 1 },
  ],
  [
    "a readahead",
    request(REQ_OP_READ | REQ_RAHEAD, [8, 1]),
    BLOCKS_512,
    { 0: 0x02, 1: 1, 10: 8, 12: LR, 13: 7 },
  ],
  [
    "a write of 4 KiB blocks with FUA",
    request(REQ_OP_WRITE | REQ_FUA | REQ_SYNC, [16, 24]),
    BLOCKS_4096,
    { 0: 0x01, 1: 1, 10: 2, 12: 2 + FUA },
  ],
  [
    "a write that fails fast",
    request(REQ_OP_WRITE | REQ_FAILFAST_DEV, [0, 1]),
    BLOCKS_512,
    { 0: 0x01, 1: 1, 12: LR },
  ],
  ["a flush", request(REQ_OP_FLUSH), BLOCKS_512, { 1: 1 }],
  [
    "a discard of three ranges",
    request(REQ_OP_DISCARD, [8, 8], [32, 8], [16, 8]),
    BLOCKS_512,
    { 0: 0x09, 1: 1, 10: 2, 11: 4 },
  ],
  [
    "write zeroes where nothing is unmapped",
    request(REQ_OP_WRITE_ZEROES, [8, 8]),
    BLOCKS_512,
    { 0: 0x08, 1: 1, 10: 8, 12: 7 },
  ],
  [
    "write zeroes",
    request(REQ_OP_WRITE_ZEROES, [8, 8]),
    BLOCKS_4096,
    { 0: 0x08, 1: 1, 10: 1, 12: 2 ** 25 },
  ],
  [
    "write zeroes with NOUNMAP",
    request(REQ_OP_WRITE_ZEROES | REQ_NOUNMAP, [8, 8]),
    BLOCKS_4096,
    { 0: 0x08, 1: 1, 10: 1 },
  ],
  [
    "a zone append",
    request(REQ_OP_ZONE_APPEND | REQ_FUA, [64, 8]),
    BLOCKS_512,
    { 0: 0x7d, 1: 1, 10: 64, 12: 7 + FUA },
  ],
  [
    "a zone open",
    request(REQ_OP_ZONE_OPEN, [64, 0]),
    BLOCKS_512,
    { 0: 0x79, 1: 1, 10: 64, 13: 3 },
  ],
  [
    "a zone close",
    request(REQ_OP_ZONE_CLOSE, [64, 0]),
    BLOCKS_512,
    { 0: 0x79, 1: 1, 10: 64, 13: 1 },
  ],
  [
    "a zone finish",
    request(REQ_OP_ZONE_FINISH, [64, 0]),
    BLOCKS_512,
    { 0: 0x79, 1: 1, 10: 64, 13: 2 },
  ],
  [
    "a zone reset",
    request(REQ_OP_ZONE_RESET, [64, 0]),
    BLOCKS_4096,
    { 0: 0x79, 1: 1, 10: 8, 13: 4 },
  ],
  [
    "a reset of all zones",
    request(REQ_OP_ZONE_RESET_ALL, [0, 0]),
    BLOCKS_512,
    { 0: 0x79, 1: 1, 13: 0x104 },
  ],
];
for (const [name, rq, ns, expected] of commands) {
  Deno.test(`nvmeSetupCmd() makes the command of ${name}`, () => {
    assertEquals(words(rq, ns), expected);
  });
}

Deno.test("nvmeSetupCmd() takes a user's command as it is", () => {
  const rq = request(REQ_OP_DRV_IN, [0, 0]);
  rq.bio!.private = new PassthruCommand({
    opcode: 0x7a,
    flags: 1,
    nsid: 0xffff_ffff,
    cdw2: 2,
    cdw3: 3,
    cdw10: 10,
    cdw11: 11,
    cdw12: 12,
    cdw13: 13,
    cdw14: 14,
    cdw15: 15,
  });
  assertEquals(words(rq), {
    0: 0x17a,
    1: 0xffff_ffff,
    2: 2,
    3: 3,
    10: 10,
    11: 11,
    12: 12,
    13: 13,
    14: 14,
    15: 15,
  });
});

Deno.test("nvmeSetupCmd() refuses an atomic write that the device may tear", () => {
  const lim = {
    ...plain,
    atomicWriteUnitMin: 512,
    atomicWriteUnitMax: 8 * KiB,
    atomicWriteBoundary: 16 * KiB,
  };
  const sq = new Uint32Array(16);
  const write = (sector: number, sectors: number) =>
    nvmeSetupCmd(
      sq,
      0,
      request(REQ_OP_WRITE | REQ_ATOMIC, [sector, sectors]),
      BLOCKS_512,
      lim,
    );
  assertEquals(write(0, 16), BLK_STS_OK);
  assertEquals(write(0, 17), BLK_STS_INVAL);
  assertEquals(write(16, 16), BLK_STS_OK);
  assertEquals(write(24, 16), BLK_STS_INVAL);
  lim.atomicWriteBoundary = 0;
  assertEquals(write(24, 16), BLK_STS_OK);
});

Deno.test("nvmeMapData() lists the ranges of a discard, 16 bytes each", () => {
  const rq = request(REQ_OP_DISCARD, [8, 16], [2 ** 35 + 64, 8]);
  const { vecs, size } = nvmeMapData(rq, 4096)!;
  assertEquals(size, 32);
  const data = new Uint32Array(vecs[0]!.data.buffer);
  assertEquals([...data], [0, 2, 1, 0, 0, 1, 8, 1]);
  const read = request(REQ_OP_READ, [0, 8]);
  assertEquals(nvmeMapData(read, 512), read.bio);
});

const statuses: [number, number][] = [
  [0x000, BLK_STS_OK],
  [0x081, BLK_STS_NOSPC],
  [0x080, BLK_STS_TARGET],
  [0x021, BLK_STS_TARGET],
  [0x082, BLK_STS_TARGET],
  [0x180, BLK_STS_NOTSUPP],
  [0x001, BLK_STS_NOTSUPP],
  [0x002, BLK_STS_NOTSUPP],
  [0x00b, BLK_STS_NOTSUPP],
  [0x280, BLK_STS_MEDIUM],
  [0x281, BLK_STS_MEDIUM],
  [0x287, BLK_STS_MEDIUM],
  [0x286, BLK_STS_MEDIUM],
  [0x182, BLK_STS_MEDIUM],
  [0x285, BLK_STS_MEDIUM],
  [0x282, BLK_STS_PROTECTION],
  [0x283, BLK_STS_PROTECTION],
  [0x284, BLK_STS_PROTECTION],
  [0x181, BLK_STS_PROTECTION],
  [0x083, BLK_STS_RESV_CONFLICT],
  [0x370, BLK_STS_TRANSPORT],
  [0x1bd, BLK_STS_ZONE_ACTIVE_RESOURCE],
  [0x1be, BLK_STS_ZONE_OPEN_RESOURCE],
  [0x003, BLK_STS_IOERR],
  [0x004, BLK_STS_IOERR],
  [0x006, BLK_STS_IOERR],
  [0x007, BLK_STS_IOERR],
  [0x020, BLK_STS_IOERR],
  [0x1b8, BLK_STS_IOERR],
  [0x1bc, BLK_STS_IOERR],
  [0x1bf, BLK_STS_IOERR],
  [0x371, BLK_STS_IOERR],
];
Deno.test("nvmeErrorStatus() gives the kernel's block status, whatever DNR, MORE and CRD say", () => {
  for (const [status, expected] of statuses) {
    for (const more of [0, 0x4000, 0x7800]) {
      const name = (status | more).toString(16);
      assertEquals(nvmeErrorStatus(status | more), expected, name);
    }
  }
});

Deno.test("nvmeShallRetry() sends again what may succeed, five times", () => {
  const again = (status: number, opf: number, retries = 0) =>
    nvmeShallRetry(status, opf, retries);
  assertEquals(again(0x281, REQ_OP_READ), true);
  assertEquals(again(0x281, REQ_OP_READ, 4), true);
  assertEquals(again(0x281, REQ_OP_READ, 5), false);
  assertEquals(again(0x4281, REQ_OP_READ), false);
  assertEquals(again(0, REQ_OP_READ), false);
  assertEquals(again(0x371, REQ_OP_FLUSH), true);
  const never = [REQ_FAILFAST_DEV, REQ_FAILFAST_TRANSPORT];
  never.push(REQ_FAILFAST_DRIVER, REQ_RAHEAD);
  for (const flag of never) {
    assertEquals(again(0x281, REQ_OP_READ | flag), false);
  }
  assertEquals(again(0x281, REQ_OP_DRV_IN), false);
});

const badCommands: [unknown, string][] = [
  [null, "null"],
  [{}, "opcode undefined"],
  [{ opcode: 256 }, "opcode 256"],
  [{ opcode: 0.5 }, "opcode 0.5"],
  [{ opcode: 2, flags: -1 }, "flags -1"],
  [{ opcode: 2, cdw10: 2 ** 32 }, "cdw10 4294967296"],
  [{ opcode: 2, nsid: "1" }, 'nsid "1"'],
  [{ opcode: 2, data: new ArrayBuffer(8) }, "data ArrayBuffer"],
];
for (const [command, says] of badCommands) {
  Deno.test(`checkPassthru() refuses ${says}`, () => {
    const error = assertThrows(() => checkPassthru(command as never), FsError);
    assertEquals(error.code, "EINVAL");
    assert(error.message.includes(says), error.message);
  });
}
