/** Corner cases 97 to 126a: direct I/O. */
import { assert, assertEquals } from "@std/assert";
import { Bio, submitBio } from "../../block/bio.ts";
import {
  BLK_STS_IOERR,
  blkStatusToErrno,
  REQ_ATOMIC,
  REQ_FUA,
  REQ_IDLE,
  REQ_NOWAIT,
  REQ_OP_READ,
  REQ_POLLED,
  REQ_SYNC,
} from "../../block/blk-types.ts";
import { BLK_FEAT_NOWAIT } from "../../block/blkdev.ts";
import { inodeDioWait } from "../../fs/inode.ts";
import {
  IOCB_ATOMIC,
  IOCB_DIO_CALLER_COMP,
  IOCB_DIRECT,
  IOCB_DSYNC,
  IOCB_HIPRI,
  IOCB_NOWAIT,
  IOCB_SYNC,
  IOCB_WRITE,
  type Kiocb,
} from "../../fs/kiocb.ts";
import {
  __iomapDioRw,
  iocbBioIopoll,
  iomapDioComplete,
  iomapDioRw,
} from "../../iomap/direct-io.ts";
import {
  iomapFinishIoends,
  iomapInitIoend,
  type IomapIoend,
} from "../../iomap/ioend.ts";
import {
  IOMAP_ATOMIC,
  IOMAP_DELALLOC,
  IOMAP_DIO_COW,
  IOMAP_DIO_FORCE_WAIT,
  IOMAP_DIO_OVERWRITE_ONLY,
  IOMAP_DIO_PARTIAL,
  IOMAP_DIO_UNWRITTEN,
  IOMAP_DIRECT,
  IOMAP_F_ATOMIC_BIO,
  IOMAP_F_DIRTY,
  IOMAP_F_NEW,
  IOMAP_F_SHARED,
  IOMAP_HOLE,
  IOMAP_INLINE,
  IOMAP_IOEND_DIRECT,
  IOMAP_MAPPED,
  IOMAP_NOWAIT,
  IOMAP_OVERWRITE_ONLY,
  IOMAP_UNWRITTEN,
  IOMAP_WRITE,
  type IomapDioOps,
  type IomapOps,
} from "../../iomap/iomap.ts";
import { setIomapTracer } from "../../iomap/trace.ts";
import {
  EAGAIN,
  EFAULT,
  EINVAL,
  EIO,
  EIOCBQUEUED,
  ENOSPC,
  ENOTBLK,
} from "../../lib/errno.ts";
import { IovIter } from "../../lib/iov-iter.ts";
import { setLogHandler } from "../../lib/printk.ts";
import { filemapCachestat, fileWriteAndWaitRange } from "../../mm/filemap.ts";
import { shrinkFolios } from "../../mm/vmscan.ts";
import {
  bytes,
  FaultyIter,
  KiB,
  MAX,
  type Options,
  pattern,
  test,
  TestFs,
} from "./testfs.ts";

const MiB = 1024 * KiB;

interface Dio {
  flags?: number;
  dioFlags?: number;
  dops?: IomapDioOps | null;
  doneBefore?: number;
  iocb?: Kiocb;
}

/** A synchronous direct call over `from`. */
async function dio(
  t: TestFs,
  isWrite: boolean,
  pos: number,
  from: IovIter,
  { flags = 0, dioFlags = 0, dops = null, doneBefore = 0, iocb }: Dio = {},
): Promise<number> {
  const write = isWrite ? IOCB_WRITE : 0;
  const call = iocb ?? t.iocb(pos, flags | write | IOCB_DIRECT);
  return await iomapDioRw(call, from, t.ops, dops, dioFlags, null, doneBefore);
}

function dread(t: TestFs, pos: number, buffer: Uint8Array, options?: Dio) {
  return dio(t, false, pos, new IovIter(buffer), options);
}

function dwrite(t: TestFs, pos: number, data: Uint8Array, options?: Dio) {
  return dio(t, true, pos, new IovIter(data), options);
}

/** One MAPPED extent of the file's size rounded up, with `pattern` on the device. */
function mapped(size: number, options: Options = {}): TestFs {
  const length = Math.ceil(size / 4096) * 4096;
  const t = new TestFs({ size, rows: [[0, length, IOMAP_MAPPED]], ...options });
  t.fillDisk();
  return t;
}

/** Holes get MAPPED | NEW blocks. */
const asNew: Options = { allocate: IOMAP_MAPPED };

test("iomap corner case 97: a direct call of no length is 0 without a mapping", async () => {
  const t = mapped(4096);
  assertEquals(await dread(t, 0, bytes(0)), 0);
  assertEquals(t.takeCalls(), []);
});

test("iomap corner case 98: a direct read at or beyond the end is 0 even if misaligned", async () => {
  const t = mapped(4096 + 1000);
  assertEquals(await dread(t, 4096 + 1000, bytes(700)), 0);
  assertEquals(await dread(t, 10_001, bytes(3)), 0);
  assertEquals(t.takeCalls(), []);
});

test("iomap corner case 99: direct I/O is aligned to the device's blocks, not the file system's, as the walk finds out", async () => {
  const t = mapped(8192);
  assertEquals(await dread(t, 0, bytes(700)), -EINVAL);
  assertEquals(await dread(t, 100, bytes(512)), -EINVAL);
  assertEquals(await dwrite(t, 512, bytes(100)), -EINVAL);
  assertEquals(t.takeCalls()[0], "begin 0+700");
  assertEquals(await dread(t, 512, bytes(512)), 512);
  t.dev.limits = { ...t.dev.limits, logicalBlockSize: 4096 };
  assertEquals(await dread(t, 512, bytes(512)), -EINVAL);
  assertEquals(await dread(t, 4096, bytes(4096)), 4096);
  // What begins well is sent before the last mapping turns out not to.
  const two = new TestFs({
    size: 16384,
    rows: [[0, 4096, IOMAP_MAPPED], [4096, 4096, IOMAP_MAPPED]],
  });
  assertEquals(await dread(two, 0, bytes(4096 + 100)), -EINVAL);
  assertEquals(two.dev.take(), ["R 1048576+4096"]);
});

test("iomap corner case 100: a direct read that crosses the end is cut there, and gives back the rest", async () => {
  const t = mapped(5096);
  const buffer = bytes(8192);
  const from = new IovIter(buffer);
  assertEquals(await dio(t, false, 0, from), 5096);
  assertEquals(buffer.subarray(0, 5096), pattern(0, 5096));
  assertEquals(from.count, 8192 - 5096);
  // The device's whole block was read.
  assertEquals(t.dev.take(), ["R 1048576+8192"]);
});

test("iomap corner case 101: dirty cache is flushed before a direct read and stays", async () => {
  const t = mapped(8192);
  await t.write(0, bytes(4096, 7));
  const buffer = bytes(4096);
  assertEquals(await dread(t, 0, buffer), 4096);
  assertEquals(buffer, bytes(4096, 7));
  assertEquals(t.dev.take(), ["W 1048576+4096", "R 1048576+4096"]);
  assert(t.folio(0)!.uptodate);
  // What is dirty beside the range may stay so.
  await t.write(4096, bytes(4096, 7));
  assertEquals(await dread(t, 0, buffer), 4096);
  assert(t.folio(1)!.dirty);
});

test("iomap corner case 102: the cache is dropped before and after a direct write", async () => {
  const t = mapped(8192);
  await t.write(0, bytes(4096, 7));
  const seen: boolean[] = [];
  t.beginError = (_pos, flags) => {
    if ((flags & 1) !== 0) seen.push(t.folio(0) !== null);
    return 0;
  };
  let cached = Promise.resolve();
  const dops: IomapDioOps = {
    submitIo(_iter, bio) {
      // Somebody reads what the device still has.
      cached = t.read(0, 4096).then(() => {
        seen.push(t.folio(0) !== null);
        bio.bdev.submit(bio);
      });
    },
  };
  assertEquals(await dwrite(t, 0, bytes(4096, 8), { dops }), 4096);
  await cached;
  assertEquals(seen, [false, true]);
  assert(t.folio(0) === null);
  assertEquals(await t.read(0, 4096), bytes(4096, 8));
});

test("iomapDioRw() drops no more of the cache than the pages of its range, before and after", async () => {
  const t = mapped(16384);
  await t.read(0, 16384);
  const cached = () => [0, 1, 2, 3].map((index) => t.folio(index) !== null);
  let reads = Promise.resolve();
  const dops: IomapDioOps = {
    submitIo(_iter, bio) {
      assertEquals(cached(), [true, false, true, true]);
      reads = t.read(4096, 4096).then(() => bio.bdev.submit(bio));
    },
  };
  assertEquals(await dwrite(t, 4096, bytes(4096, 8), { dops }), 4096);
  await reads;
  assertEquals(cached(), [true, false, true, true]);
});

test("iomapDioRw() forgets for a write what reclaim has evicted", async () => {
  const t = mapped(8192, { memory: 64 * KiB });
  await t.read(0, 8192);
  shrinkFolios(t.mm, 2);
  const { nrCache, nrEvicted } = filemapCachestat(t.inode.mapping, 0, 1);
  assertEquals([nrCache, nrEvicted], [0, 2]);

  assertEquals(await dwrite(t, 4096, bytes(4096, 8)), 4096);

  assertEquals(filemapCachestat(t.inode.mapping, 0, 1).nrEvicted, 1);
});

test("iomapDioRw() leaves what was cached meanwhile where the write has failed", async () => {
  const t = mapped(8192);
  let reads = Promise.resolve();
  const dops: IomapDioOps = {
    submitIo(_iter, bio) {
      reads = t.read(0, 4096).then(() => {
        t.dev.fault = () => BLK_STS_IOERR;
        bio.bdev.submit(bio);
      });
    },
  };
  assertEquals(await dwrite(t, 0, bytes(4096, 8), { dops }), -EIO);
  await reads;
  assert(t.folio(0) !== null);
});

/** A file with dirty cache that cannot be written back. */
async function unflushable(): Promise<TestFs> {
  const t = mapped(8192);
  t.dev.fault = (bio) => (bio.opf & 1) !== 0 ? BLK_STS_IOERR : 0;
  await t.write(0, bytes(4096, 7));
  return t;
}

test("iomap corner case 103: a cache that cannot be flushed before a direct write is -ENOTBLK", async () => {
  const t = await unflushable();
  assertEquals(await dwrite(t, 0, bytes(4096, 8)), -ENOTBLK);
  // A read is told what the device said.
  await t.write(0, bytes(4096, 7));
  assertEquals(await dread(t, 0, bytes(4096)), -EIO);
});

test("iomap corner case 119: for an atomic write that is -EAGAIN", async () => {
  const t = await unflushable();
  const flags = IOCB_ATOMIC;
  assertEquals(await dwrite(t, 0, bytes(4096, 8), { flags }), -EAGAIN);
});

test("iomap corner case 104: NOWAIT minds any cached page for a direct write, dirty ones alone for a read", async () => {
  const t = mapped(8192);
  const flags = IOCB_NOWAIT;
  await t.read(0, 4096);
  assertEquals(await dwrite(t, 0, bytes(4096), { flags }), -EAGAIN);
  assertEquals(await dread(t, 0, bytes(4096), { flags }), 4096);
  await t.write(0, bytes(4096, 7));
  assertEquals(await dread(t, 0, bytes(4096), { flags }), -EAGAIN);
});

/** Lines that `fn` writes to the log. */
async function logged(fn: () => unknown): Promise<string[]> {
  const lines: string[] = [];
  const old = setLogHandler((line) => lines.push(line));
  try {
    await fn();
  } finally {
    setLogHandler(old);
  }
  return lines;
}

test("iomap corner case 105: DELALLOC under direct I/O is -EIO and a line in the log", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_DELALLOC]] });
  const lines = await logged(async () => {
    assertEquals(await dread(t, 0, bytes(4096)), -EIO);
    assertEquals(await dwrite(t, 0, bytes(4096)), -EIO);
    // Not without end.
    for (let i = 0; i < 20; i++) await dread(t, 0, bytes(4096));
  });
  assert(lines.length <= 10, `${lines.length} lines`);
  assertEquals(
    lines[0],
    "Direct I/O collision with buffered writes! File: /test Comm: iomap",
  );
});

test(
  "iomap corner case 106: a hole for a direct write is -EIO",
  async () => {
    const t = new TestFs({ size: 4096 });
    t.tweak = (iomap) => {
      iomap.type = IOMAP_HOLE;
    };
    assertEquals(await dwrite(t, 0, bytes(4096)), -EIO);
  },
  "a hole for a direct write",
);

test("iomapDioRw() reads holes and unwritten extents as zeroes", async () => {
  const t = new TestFs({
    size: 16384,
    rows: [[4096, 4096, IOMAP_MAPPED], [8192, 4096, IOMAP_UNWRITTEN]],
  });
  t.fillDisk();
  const buffer = bytes(16384, 9);
  assertEquals(await dread(t, 0, buffer), 16384);
  const expected = bytes(16384);
  expected.set(pattern(4096, 4096), 4096);
  assertEquals(buffer, expected);
  assertEquals(t.dev.take(), ["R 1048576+4096"]);
});

interface ZeroCase {
  name: string;
  size: number;
  type: number;
  flags?: number;
  pos: number;
  len: number;
  writes: string[];
}

// Device addresses are 1048576 + file offset.
const ZERO_CASES: ZeroCase[] = [
  {
    name:
      "iomap corner case 107: what a direct write leaves of an unwritten block is zeroed on both sides",
    size: 65536,
    type: IOMAP_UNWRITTEN,
    flags: IOMAP_F_NEW,
    pos: 1536,
    len: 512,
    writes: ["W 1048576+1536", "W 1050112+512", "W 1050624+2048"],
  },
  {
    name:
      "iomapDioRw() worked example 5: F_NEW beyond the end is zeroed behind",
    size: 4096,
    type: IOMAP_MAPPED,
    flags: IOMAP_F_NEW,
    pos: 4096,
    len: 512,
    writes: ["W 1052672+512", "W 1053184+3584"],
  },
  {
    name:
      "iomap corner case 108: the block in which a direct overwrite ends with the file is zeroed behind",
    size: 6144,
    type: IOMAP_MAPPED,
    pos: 5632,
    len: 512,
    writes: ["W 1054208+512", "W 1054720+2048"],
  },
  {
    name: "iomapDioRw() worked example 7: an overwrite inside is one bio",
    size: 8192,
    type: IOMAP_MAPPED,
    pos: 5632,
    len: 512,
    writes: ["W 1054208+512"],
  },
];

for (const { name, size, type, flags, pos, len, writes } of ZERO_CASES) {
  test(name, async () => {
    const t = new TestFs({ size, rows: [[0, 65536, type]] });
    t.tweak = (iomap) => {
      iomap.flags |= flags ?? 0;
    };
    t.dev.data.fill(9);
    assertEquals(await dwrite(t, pos, bytes(len, 7)), len);
    assertEquals(t.dev.take(), writes);
    const block = t.dev.data.slice(1048576 + pos, 1048576 + pos + len);
    assertEquals(block, bytes(len, 7));
  });
}

/** A file whose second half cannot be mapped. */
function halfBroken(): TestFs {
  const t = mapped(16384);
  t.tweak = (iomap) => {
    iomap.length = 8192 - iomap.offset;
  };
  t.beginError = (pos) => pos >= 8192 ? -ENOSPC : 0;
  return t;
}

test("iomap corner case 109: any error of direct I/O loses what was done", async () => {
  const t = halfBroken();
  const iocb = t.iocb(0, IOCB_WRITE | IOCB_DIRECT);
  assertEquals(await dwrite(t, 0, bytes(16384), { iocb }), -ENOSPC);
  assertEquals(iocb.pos, 0);
  assertEquals(t.inode.dioCount, 0);
  assertEquals(t.dev.take(), ["W 1048576+8192"]);
});

test("iomap corner case 112: endIo is told the bytes submitted even of an error", async () => {
  const t = halfBroken();
  const ends: number[][] = [];
  const dops: IomapDioOps = {
    endIo(_iocb, size, error, flags) {
      ends.push([size, error, flags & 3]);
      return error;
    },
  };
  assertEquals(await dwrite(t, 0, bytes(16384), { dops }), -ENOSPC);
  assertEquals(ends, [[8192, -ENOSPC, 0]]);
});

test("iomapDioRw() answers the error of the device", async () => {
  const t = mapped(16384);
  t.dev.fault = () => BLK_STS_IOERR;
  assertEquals(await dread(t, 0, bytes(4096)), -EIO);
  assertEquals(await dwrite(t, 0, bytes(4096)), -EIO);
});

test("iomapDioRw() submits no more once a bio has failed", async () => {
  const t = mapped(8 * KiB * KiB / 2, { deviceSize: 8 * KiB * KiB });
  t.dev.latency = 0;
  t.dev.fault = () => BLK_STS_IOERR;
  const parts = Array.from({ length: 600 }, () => bytes(512));
  assertEquals(await dio(t, false, 0, new IovIter(...parts)), -EIO);
  assertEquals(t.dev.take(), ["R 1048576+131072"]);
});

test("iomap corner case 110: PARTIAL keeps what was done before memory that cannot be used", async () => {
  const t = mapped(16384);
  const faulty = () => new FaultyIter(4096, bytes(8192, 7));
  assertEquals(await dio(t, true, 0, faulty()), -EFAULT);
  const dioFlags = IOMAP_DIO_PARTIAL;
  assertEquals(await dio(t, true, 0, faulty(), { dioFlags }), 4096);
  // Nothing is no part.
  const gone = new FaultyIter(0, bytes(8192, 7));
  assertEquals(await dio(t, true, 0, gone, { dioFlags }), -EFAULT);
});

test("iomapDioRw() waits for what an asynchronous call has done before -ENOTBLK", async () => {
  const t = mapped(16384);
  t.tweak = (iomap) => {
    iomap.length = 4096 - iomap.offset;
  };
  t.beginError = (pos) => pos > 0 ? -ENOTBLK : 0;
  const call = async_(t, IOCB_WRITE, 0, bytes(8192));
  assertEquals([await call.ret, call.done], [4096, false]);
});

test("iomapDioRw() calls the file system with the flags of the call, and what is its own", async () => {
  const t = mapped(8192);
  const seen: number[] = [];
  const own = {};
  const ops: IomapOps = {
    iomapBegin(inode, pos, length, flags, iomap, srcmap) {
      seen.push(flags);
      iomap.flags |= IOMAP_F_ATOMIC_BIO;
      return t.ops.iomapBegin(inode, pos, length, flags, iomap, srcmap);
    },
  };
  const dops: IomapDioOps = {
    submitIo(iter, bio) {
      assert(iter.private === own);
      bio.opf &= ~REQ_ATOMIC;
      submitBio(bio);
    },
  };
  const overwrite = IOMAP_DIO_OVERWRITE_ONLY;
  const rows: [flags: number, dioFlags: number][] = [
    [0, overwrite],
    [IOCB_NOWAIT, 0],
    [IOCB_WRITE, 0],
    [IOCB_WRITE | IOCB_NOWAIT, overwrite],
    [IOCB_WRITE | IOCB_ATOMIC, 0],
  ];
  for (const [flags, dioFlags] of rows) {
    const iocb = t.iocb(0, flags | IOCB_DIRECT);
    const from = new IovIter(bytes(4096));
    const done = iomapDioRw(iocb, from, ops, dops, dioFlags, own, 0);
    assertEquals(await done, 4096);
  }
  assertEquals(seen, [
    IOMAP_DIRECT,
    IOMAP_DIRECT | IOMAP_NOWAIT,
    IOMAP_DIRECT | IOMAP_WRITE,
    IOMAP_DIRECT | IOMAP_WRITE | IOMAP_NOWAIT | IOMAP_OVERWRITE_ONLY,
    IOMAP_DIRECT | IOMAP_WRITE | IOMAP_ATOMIC,
  ]);
});

test("iomapDioRw() traces what is queued, and cache that stays", async () => {
  const t = await unflushable();
  const seen: [string, number, number][] = [];
  setIomapTracer((event) => {
    if (!("offset" in event && "length" in event)) return;
    if (!event.name.startsWith("iomap_dio")) return;
    seen.push([event.name, event.offset, event.length]);
  });
  try {
    assertEquals(await dwrite(t, 0, bytes(4096)), -ENOTBLK);
    await async_(t, 0, 4096, bytes(512)).told;
  } finally {
    setIomapTracer(null);
  }
  assertEquals(seen, [
    ["iomap_dio_invalidate_fail", 0, 4096],
    // What has been mapped is behind it.
    ["iomap_dio_rw_queued", 4608, 0],
  ]);
});

test("iomap corner case 111: -ENOTBLK of begin gives what was done", async () => {
  const t = mapped(16384);
  t.beginError = () => -ENOTBLK;
  assertEquals(await dwrite(t, 0, bytes(4096)), 0);
  t.tweak = (iomap) => {
    iomap.length = 4096 - iomap.offset;
  };
  t.beginError = (pos) => pos > 0 ? -ENOTBLK : 0;
  assertEquals(await dwrite(t, 0, bytes(8192)), 4096);
});

test("iomap corner case 113: endIo's answer replaces the result both ways", async () => {
  const t = mapped(16384);
  const answer = (n: number): IomapDioOps => ({
    endIo: () => Promise.resolve(n),
  });
  assertEquals(await dread(t, 0, bytes(512), { dops: answer(-EIO) }), -EIO);
  assertEquals(await dread(t, 0, bytes(512), { dops: answer(0) }), 512);
  t.dev.fault = () => BLK_STS_IOERR;
  assertEquals(await dread(t, 0, bytes(512), { dops: answer(0) }), 512);
});

interface FuaCase {
  name: string;
  flags: number;
  cache: boolean;
  fua: boolean;
  map?: number;
  type?: number;
  /** Whether the data carries FUA to a device with a cache. */
  dataFua: boolean;
  synced: boolean;
}

const DSYNC = IOCB_DSYNC;
const SYNC = IOCB_DSYNC | IOCB_SYNC;
const FUA_CASES: FuaCase[] = [
  {
    name: "none",
    flags: 0,
    cache: true,
    fua: true,
    dataFua: false,
    synced: false,
  },
  {
    name: "DSYNC without cache",
    flags: DSYNC,
    cache: false,
    fua: false,
    dataFua: false,
    synced: false,
  },
  {
    name: "DSYNC with FUA",
    flags: DSYNC,
    cache: true,
    fua: true,
    dataFua: true,
    synced: false,
  },
  {
    name: "DSYNC without FUA",
    flags: DSYNC,
    cache: true,
    fua: false,
    dataFua: false,
    synced: true,
  },
  {
    name: "SYNC",
    flags: SYNC,
    cache: true,
    fua: true,
    dataFua: false,
    synced: true,
  },
  {
    name: "DSYNC on NEW",
    flags: DSYNC,
    cache: true,
    fua: true,
    map: IOMAP_F_NEW,
    dataFua: false,
    synced: true,
  },
  {
    name: "DSYNC on SHARED",
    flags: DSYNC,
    cache: true,
    fua: true,
    map: IOMAP_F_SHARED,
    dataFua: false,
    synced: true,
  },
  {
    name: "DSYNC on DIRTY",
    flags: DSYNC,
    cache: true,
    fua: true,
    map: IOMAP_F_DIRTY,
    dataFua: false,
    synced: true,
  },
  {
    name: "DSYNC on UNWRITTEN",
    flags: DSYNC,
    cache: true,
    fua: true,
    type: IOMAP_UNWRITTEN,
    dataFua: false,
    synced: true,
  },
];

test("iomap corner case 114: FUA is for a datasync over written blocks alone, on a device that has it or no cache", async () => {
  for (const c of FUA_CASES) {
    const t = new TestFs({
      size: 8192,
      rows: [[0, 8192, c.type ?? IOMAP_MAPPED]],
    });
    t.dev.setCache(c.cache, c.fua);
    t.tweak = (iomap) => {
      iomap.flags |= c.map ?? 0;
    };
    const synced: boolean[] = [];
    t.inode.fop.fsync = (_file, start, end, datasync) => {
      assertEquals([start, end], [0, 4095], c.name);
      synced.push(datasync);
      return 0;
    };
    assertEquals(await dwrite(t, 0, bytes(4096, 7), { flags: c.flags }), 4096);
    assertEquals((t.dev.seen[0]!.opf & REQ_FUA) !== 0, c.dataFua, c.name);
    const expected = c.synced ? [(c.flags & IOCB_SYNC) === 0] : [];
    assertEquals(synced, expected, c.name);
  }
});

test("iomap corner case 115: one piece without FUA makes the whole flush", async () => {
  const t = new TestFs({
    size: 12288,
    rows: [
      [0, 4096, IOMAP_MAPPED],
      [4096, 4096, IOMAP_UNWRITTEN],
      [8192, 4096, IOMAP_MAPPED],
    ],
  });
  t.dev.setCache(true, true);
  let synced = 0;
  t.inode.fop.fsync = () => {
    synced++;
    return 0;
  };
  assertEquals(await dwrite(t, 0, bytes(12288), { flags: DSYNC }), 12288);
  const fua = t.dev.seen.map(({ opf }) => (opf & REQ_FUA) !== 0);
  assertEquals(fua, [true, false, false]);
  assertEquals(synced, 1);
});

test("iomap corner case 116: cache that stays after a direct write is an error for fsync alone, and a line in the log", async () => {
  const t = mapped(8192);
  let cached = Promise.resolve();
  const dops: IomapDioOps = {
    submitIo(_iter, bio) {
      // A store into the cache that the write does not know of.
      cached = t.write(0, bytes(4096, 9)).then(() => bio.bdev.submit(bio));
    },
  };
  const lines = await logged(async () => {
    assertEquals(await dwrite(t, 0, bytes(4096, 8), { dops }), 4096);
  });
  await cached;
  const { mapping } = t.inode;
  // No writeback has failed: who only flushes is not told.
  assertEquals(await t.flush(), 0);
  assertEquals(await fileWriteAndWaitRange(mapping, t.file, 0, MAX), -EIO);
  assertEquals(lines, [
    "Page cache invalidation failure on direct I/O.  Possible data corruption " +
    "due to collision with buffered I/O!",
    "File: /test PID: 1 Comm: iomap",
  ]);
});

test("iomap corner case 117: OVERWRITE_ONLY beyond the end is -EAGAIN", async () => {
  const t = mapped(8192);
  const dioFlags = IOMAP_DIO_OVERWRITE_ONLY;
  for (const [pos, len] of [[8192, 512], [4096, 8192]] as const) {
    assertEquals(await dwrite(t, pos, bytes(len), { dioFlags }), -EAGAIN);
  }
  assertEquals(t.takeCalls(), []);
  assertEquals(await dwrite(t, 4096, bytes(4096), { dioFlags }), 4096);
});

test("iomap corner case 118: ATOMIC over a mapping that is too short is -EINVAL", async () => {
  const t = mapped(16384);
  t.tweak = (iomap) => {
    iomap.flags |= IOMAP_F_ATOMIC_BIO;
    iomap.length = 8192;
  };
  const flags = IOCB_ATOMIC;
  assertEquals(await dwrite(t, 0, bytes(16384), { flags }), -EINVAL);
  assertEquals(t.dev.take(), []);
});

/** An asynchronous call: what it returned, and what it was told. */
function async_(
  t: TestFs,
  flags: number,
  pos: number,
  memory: Uint8Array | IovIter,
  { dioFlags = 0, dops = null, doneBefore = 0 }: Dio = {},
) {
  const iocb = t.iocb(pos, flags | IOCB_DIRECT);
  const told = Promise.withResolvers<number>();
  const call = { told: told.promise, iocb, done: false, ret: 0 as unknown };
  iocb.kiComplete = (_iocb, ret) => {
    call.done = true;
    told.resolve(ret);
  };
  const from = memory instanceof IovIter ? memory : new IovIter(memory);
  call.ret = iomapDioRw(iocb, from, t.ops, dops, dioFlags, null, doneBefore);
  return call;
}

test("iomapDioRw() asynchronous: many in flight, each told its result", async () => {
  const t = mapped(64 * KiB);
  const calls = [];
  for (let i = 0; i < 16; i++) {
    const buffer = bytes(4096);
    calls.push({ buffer, ...async_(t, 0, i * 4096, buffer) });
  }
  assertEquals(calls.map((c) => c.ret), calls.map(() => -EIOCBQUEUED));
  assertEquals(t.inode.dioCount, 16);
  for (const [i, { told, iocb, buffer }] of calls.entries()) {
    assertEquals(await told, 4096);
    assertEquals(iocb.pos, (i + 1) * 4096);
    assertEquals(buffer, pattern(i * 4096, 4096));
  }
  assertEquals(t.inode.dioCount, 0);
});

test("iomapDioRw() asynchronous: what is done at once is answered at once", () => {
  const t = mapped(8192);
  t.dev.latency = 0;
  const call = async_(t, 0, 0, bytes(4096));
  assertEquals([call.ret, call.done], [4096, false]);
});

test("iomap corner case 121: FORCE_WAIT never queues", async () => {
  const t = mapped(8192);
  const call = async_(t, 0, 0, bytes(4096), { dioFlags: IOMAP_DIO_FORCE_WAIT });
  assertEquals(await call.ret, 4096);
  assertEquals(call.done, false);
});

test("iomap corner case 122: doneBefore is added only to progress", async () => {
  const t = mapped(8192);
  assertEquals(await dread(t, 0, bytes(4096), { doneBefore: 100 }), 4196);
  t.beginError = () => -ENOTBLK;
  assertEquals(await dwrite(t, 0, bytes(4096), { doneBefore: 100 }), 0);
  t.beginError = () => 0;
  t.dev.fault = () => BLK_STS_IOERR;
  assertEquals(await dread(t, 0, bytes(4096), { doneBefore: 100 }), -EIO);
});

test("iomapDioRw() syncs nothing where nothing was written", async () => {
  const t = mapped(8192);
  let syncs = 0;
  t.inode.fop.fsync = () => {
    syncs++;
    return 0;
  };
  t.beginError = () => -ENOTBLK;
  assertEquals(await dwrite(t, 0, bytes(4096), { flags: DSYNC }), 0);
  t.beginError = () => 0;
  t.dev.fault = () => BLK_STS_IOERR;
  assertEquals(await dwrite(t, 0, bytes(4096), { flags: SYNC }), -EIO);
  assertEquals(syncs, 0);
});

test("iomap corner case 123: of direct I/O i_size is the file system's to move, save for INLINE", async () => {
  const t = new TestFs({ size: 0, ...asNew });
  assertEquals(await dwrite(t, 0, bytes(4096, 7)), 4096);
  assertEquals(t.inode.size, 0);
  const data = bytes(200, 9);
  t.tweak = (iomap) => {
    iomap.type = IOMAP_INLINE;
    iomap.offset = 0;
    iomap.length = 200;
    iomap.inlineData = data;
  };
  t.inode.size = 10;
  assertEquals(await dwrite(t, 50, bytes(20, 7)), 20);
  assertEquals(t.inode.size, 70);
  assert(t.inode.sb.dirtyInodes.has(t.inode));
  assertEquals(data.subarray(10, 50), bytes(40));
  assertEquals(data.subarray(50, 70), bytes(20, 7));
});

test("iomap corner case 124: inodeDioWait() returns only after endIo", async () => {
  const t = mapped(8192);
  const order: string[] = [];
  const dops: IomapDioOps = {
    endIo: async () => {
      await t.clock.sleep(5000);
      order.push("endIo");
      return 0;
    },
  };
  const call = async_(t, IOCB_WRITE, 0, bytes(4096), { dops });
  assertEquals(call.ret, -EIOCBQUEUED);
  await inodeDioWait(t.inode);
  order.push("waited");
  assertEquals(await call.told, 4096);
  assertEquals(order, ["endIo", "waited"]);
});

test(
  "iomap corner case 125: more than 64 KiB to zero around direct I/O is -EINVAL",
  async () => {
    const t = new TestFs({
      blkbits: 17,
      size: 2 ** 20,
      rows: [[0, 2 ** 20, IOMAP_UNWRITTEN]],
    });
    // In front it is just as much as there may be.
    assertEquals(await dwrite(t, 65536, bytes(512)), 512);
    assertEquals(t.dev.take(), [
      "W 1048576+65536",
      "W 1114112+512",
      "W 1114624+65024",
    ]);
    assertEquals(await dwrite(t, 65536 + 512, bytes(512)), -EINVAL);
    assertEquals(t.dev.take(), []);
  },
  "more than 64 KiB to zero",
);

test("iomap corner case 126: a direct read dirties the memory that it fills, where somebody keeps book", async () => {
  const t = mapped(16384);
  const buffer = bytes(12288);
  const iter = new IovIter(buffer);
  const dirty: number[][] = [];
  iter.pagesDirty = (data, offset, len) => {
    assert(data === buffer);
    // By now it is filled.
    assertEquals(buffer[offset], pattern(offset, 1)[0]);
    dirty.push([offset, len]);
  };
  assertEquals(await dio(t, false, 0, iter), 12288);
  assertEquals(dirty, [[0, 12288]]);
  // A write leaves memory as it is.
  const out = new IovIter(buffer);
  out.pagesDirty = iter.pagesDirty;
  assertEquals(await dio(t, true, 0, out), 12288);
  assertEquals(dirty.length, 1);
});

test("iomap corner case 126a: memory that cannot be read, within a block to be zeroed, ends a direct write early; at a block's border it is -EFAULT", async () => {
  for (
    const [name, good, pos, size, expected] of [
      ["unaligned, into a hole", 0, 8704, 65536, 0],
      ["after an unaligned piece", 4096, 131584, 262144, 4096],
      ["at a block's border", 4096, 65536, 262144, -EFAULT],
      ["beyond the end", 4096, 512, 0, 4096],
    ] as const
  ) {
    const t = new TestFs({ size, allocate: IOMAP_UNWRITTEN });
    const from = new FaultyIter(good, bytes(good + 4096, 7));
    assertEquals(await dio(t, true, pos, from), expected, name);
  }
});

test("iomapDioRw() fills up in front once more where memory ends within a block, as the kernel does", async () => {
  const t = new TestFs({
    size: 64 * KiB,
    rows: [[0, 64 * KiB, IOMAP_UNWRITTEN]],
  });
  const from = new FaultyIter(4096 + 512, bytes(8192, 7));

  assertEquals(await dio(t, true, 8192, from), 4096 + 512);

  // The second round meets the memory that is gone only after its zeroes have been
  // sent: what was written of the last block is lost.
  const at = 1048576 + 8192;
  assertEquals(t.dev.data.slice(at, at + 4096), bytes(4096, 7));
  assertEquals(t.dev.data.slice(at + 4096, at + 8192), bytes(4096));
});

test("iomapDioRw() tells endIo of unwritten and shared blocks", async () => {
  const seen: number[] = [];
  const dops: IomapDioOps = {
    endIo(_iocb, _size, error, flags) {
      seen.push(flags & (IOMAP_DIO_UNWRITTEN | IOMAP_DIO_COW));
      return error;
    },
  };
  const t = new TestFs({
    size: 8192,
    rows: [[0, 4096, IOMAP_UNWRITTEN], [4096, 4096, IOMAP_MAPPED]],
  });
  await dwrite(t, 0, bytes(4096), { dops });
  t.tweak = (iomap) => {
    iomap.flags |= IOMAP_F_SHARED;
  };
  await dwrite(t, 4096, bytes(4096), { dops });
  assertEquals(seen, [IOMAP_DIO_UNWRITTEN, IOMAP_DIO_COW]);
});

test("iomapDioRw() gathers from and scatters to several buffers", async () => {
  const t = mapped(16384);
  const parts = [bytes(1024, 1), bytes(0), bytes(2560, 2), bytes(512, 3)];
  assertEquals(await dio(t, true, 4096, new IovIter(...parts)), 4096);
  assertEquals(t.dev.take(), ["W 1052672+4096"]);
  const into = [bytes(512), bytes(3584)];
  assertEquals(await dio(t, false, 4096, new IovIter(...into)), 4096);
  assertEquals(into[0], bytes(512, 1));
  assertEquals(into[1]!.at(-1), 3);
});

test("iomapDioRw() trims a bio of 256 pieces to whole logical blocks", async () => {
  const t = mapped(131072);
  // 256 of these are 65 sectors and a half.
  const parts = Array.from({ length: 512 }, (_, i) => bytes(131, i % 250 + 1));
  const len = 512 * 131;
  const dops: IomapDioOps = {
    submitIo(_iter, bio) {
      assertEquals(bio.vecs.reduce((sum, vec) => sum + vec.len, 0), bio.size);
      submitBio(bio);
    },
  };
  assertEquals(await dio(t, true, 0, new IovIter(...parts), { dops }), len);
  assertEquals(t.dev.seen.map((s) => s.len), [33280, 33280, 512]);
  const stored = t.dev.data.subarray(1048576, 1048576 + len);
  for (const [i, part] of parts.entries()) {
    assertEquals(stored.slice(i * 131, (i + 1) * 131), part);
  }
});

test("iomapDioRw() in a synchronous call runs the clock in place", () => {
  const t = mapped(8192);
  const buffer = bytes(8192);
  t.clock.enterSync();
  const iocb = t.iocb(0, IOCB_DIRECT);
  const n = iomapDioRw(iocb, new IovIter(buffer), t.ops, null, 0, null, 0);
  t.clock.leaveSync();
  assertEquals(n, 8192);
  assertEquals(buffer, pattern(0, 8192));
  assertEquals(t.dev.seen[0]!.op, REQ_OP_READ);
});

test("iomap corner case 120: only the one bio of an asynchronous call is polled for", async () => {
  const polled = (t: TestFs) =>
    t.dev.seen.splice(0).map(({ opf }) => (opf & REQ_POLLED) !== 0);
  const flags = IOCB_HIPRI;
  const t = mapped(256 * KiB);

  // A synchronous call sleeps.
  const iocb = t.iocb(0, flags | IOCB_DIRECT);
  assertEquals(await dread(t, 0, bytes(4096), { iocb }), 4096);
  assertEquals([polled(t), iocb.flags], [[false], IOCB_DIRECT]);

  const one = async_(t, flags, 0, bytes(4096));
  assertEquals([one.ret, polled(t)], [-EIOCBQUEUED, [true]]);
  assert(one.iocb.private instanceof Bio);
  assertEquals(one.iocb.flags & IOCB_HIPRI, 0);
  assertEquals(await one.told, 4096);
  // There is nothing to poll for any more.
  assertEquals(one.iocb.private, null);
  assertEquals(iocbBioIopoll(one.iocb, 0), 0);

  // Whoever polls does not wait for a request.
  t.dev.limits = { ...t.dev.limits, features: BLK_FEAT_NOWAIT };
  const nowait = async_(t, flags | IOCB_NOWAIT, 0, bytes(4096));
  assert((t.dev.seen[0]!.opf & REQ_NOWAIT) !== 0);
  await nowait.told;
  polled(t);

  // Two bios: neither.
  const parts = Array.from({ length: 257 }, () => bytes(512));
  const two = async_(t, flags, 0, new IovIter(...parts));
  await two.told;
  assertEquals(polled(t), [false, false]);

  // Two mappings: the first.
  t.tweak = (iomap) => {
    if (iomap.offset === 0) iomap.length = 4096;
  };
  t.extents = [
    { offset: 0, length: 4096, type: IOMAP_MAPPED, addr: MiB },
    { offset: 4096, length: 4096, type: IOMAP_MAPPED, addr: 2 * MiB },
  ];
  const split = async_(t, flags, 0, bytes(8192));
  await split.told;
  assertEquals(polled(t), [true, false]);

  // A write that a worker ends; one that its issuer ends.
  const worker = async_(t, flags | IOCB_WRITE, 0, bytes(4096));
  await worker.told;
  assertEquals(polled(t), [false]);
  const issuer = flags | IOCB_WRITE | IOCB_DIO_CALLER_COMP;
  const mine = async_(t, issuer, 0, bytes(4096));
  await mine.told;
  assertEquals(polled(t), [true]);
  assertEquals(await mine.iocb.dioComplete!(mine.iocb.private), 4096);
});

test("iomapDioRw() asynchronous: a read ends with its bio, a write or an error in a worker", async () => {
  const t = mapped(64 * KiB);
  /** Whether the call is told before the next event of the same time runs. */
  const inline = async (call: ReturnType<typeof async_>): Promise<boolean> => {
    const order: string[] = [];
    call.told.then(() => order.push("told"));
    await t.clock.sleep(t.dev.latency - 1);
    // Added after the device's event, and before a worker's.
    t.clock.at(t.clock.now() + 1, () => order.push("event"), null);
    await t.clock.sleep(10);
    assertEquals(order.length, 2);
    return order[0] === "told";
  };
  assert(await inline(async_(t, 0, 0, bytes(4096))));
  assert(!await inline(async_(t, IOCB_WRITE, 0, bytes(4096))));
  t.dev.fault = () => BLK_STS_IOERR;
  const failed = async_(t, 0, 0, bytes(4096));
  assert(!await inline(failed));
  assertEquals(await failed.told, -EIO);
});

interface CallerCase {
  name: string;
  flags: number;
  pos: number;
  /** Whether the issuer ends it. */
  deferred: boolean;
  type?: number;
  map?: number;
}

const CALLER_CASES: CallerCase[] = [
  { name: "an overwrite", flags: 0, pos: 0, deferred: true },
  {
    name: "into SHARED",
    flags: 0,
    pos: 0,
    deferred: true,
    map: IOMAP_F_SHARED,
  },
  { name: "into NEW", flags: 0, pos: 0, deferred: false, map: IOMAP_F_NEW },
  {
    name: "into UNWRITTEN",
    flags: 0,
    pos: 0,
    deferred: false,
    type: IOMAP_UNWRITTEN,
  },
  { name: "at the end of the file", flags: 0, pos: 8192, deferred: false },
  { name: "across the end", flags: 0, pos: 4096, deferred: true },
  { name: "with FUA", flags: DSYNC, pos: 0, deferred: true },
  { name: "with a sync to do", flags: SYNC, pos: 0, deferred: false },
];

test("iomapDioRw() leaves a write that needs no more to an issuer that asked for it", async () => {
  for (const c of CALLER_CASES) {
    const t = new TestFs({
      size: 8192,
      rows: [[0, 64 * KiB, c.type ?? IOMAP_MAPPED]],
    });
    t.dev.setCache(true, true);
    t.inode.fop.fsync = () => 0;
    t.tweak = (iomap) => {
      iomap.flags |= c.map ?? 0;
    };
    const flags = c.flags | IOCB_WRITE | IOCB_DIO_CALLER_COMP;
    const call = async_(t, flags, c.pos, bytes(8192));
    const ret = await call.told;
    const { iocb } = call;
    assertEquals(iocb.dioComplete !== null, c.deferred, c.name);
    if (c.deferred) {
      // Nothing is ended before the issuer does it.
      assertEquals([ret, iocb.pos, t.inode.dioCount], [0, c.pos, 1], c.name);
      assertEquals(await iocb.dioComplete!(iocb.private), 8192, c.name);
    } else assertEquals(ret, 8192, c.name);
    assertEquals([iocb.pos, t.inode.dioCount], [c.pos + 8192, 0], c.name);
  }
});

test("__iomapDioRw() answers what iomapDioComplete() ends", async () => {
  const t = mapped(8192);
  const begin = (pos: number, length: number) => {
    const iocb = t.iocb(pos, IOCB_DIRECT);
    const from = new IovIter(bytes(length));
    return { iocb, dio: __iomapDioRw(iocb, from, t.ops, null, 0, null, 0) };
  };
  const { iocb, dio: begun } = begin(0, 4096);
  const request = await begun;
  assert(typeof request === "object");
  assertEquals([iocb.pos, t.inode.dioCount], [0, 1]);
  assertEquals(await iomapDioComplete(request), 4096);
  assertEquals([iocb.pos, t.inode.dioCount], [4096, 0]);
  // Nothing to do; and an error, which is the request's.
  assertEquals(await begin(8192, 512).dio, 0);
  const bad = await begin(100, 512).dio;
  assert(typeof bad === "object");
  assertEquals(await iomapDioComplete(bad), -EINVAL);
});

test("iomapDioRw() takes its bios from the file system's set", async () => {
  class OwnBio extends Bio {
    tag = 7;
  }
  const t = mapped(16384);
  const seen: Bio[] = [];
  const dops: IomapDioOps = {
    bioSet: { bioAlloc: (bdev, opf) => new OwnBio(bdev, opf) },
    submitIo(_iter, bio, fileOffset) {
      assertEquals(fileOffset, seen.length * 131072);
      seen.push(bio);
      submitBio(bio);
    },
  };
  const parts = Array.from({ length: 300 }, () => bytes(512));
  t.inode.size = 2 ** 20;
  t.extents[0]!.length = 2 ** 20;
  const ret = await dio(t, true, 0, new IovIter(...parts), { dops });
  assertEquals(ret, 300 * 512);
  assert(seen.length === 2 && seen.every((bio) => bio instanceof OwnBio));
});

/** Hooks that make an ioend of each bio, once `before` lets them. */
function ioendOps(
  ioends: IomapIoend[],
  before: () => Promise<unknown> | null,
): IomapDioOps {
  const done = (bio: Bio) => {
    const ioend = bio.private as IomapIoend;
    iomapFinishIoends(ioend, blkStatusToErrno(bio.status));
  };
  return {
    submitIo(iter, bio, fileOffset) {
      const flags = IOMAP_IOEND_DIRECT;
      ioends.push(iomapInitIoend(iter.inode, bio, fileOffset, flags));
      bio.endIo = done;
      const wait = before();
      if (wait === null) submitBio(bio);
      else wait.then(() => submitBio(bio));
    },
  };
}

test("iomapFinishIoends() of DIRECT ioends ends direct I/O", async () => {
  const t = mapped(64 * KiB);
  const ioends: IomapIoend[] = [];
  const dops = ioendOps(ioends, () => null);
  const data = bytes(4096, 9);
  // There is no issuer's turn: a worker runs already.
  const flags = IOCB_WRITE | IOCB_DIO_CALLER_COMP;
  const call = async_(t, flags, 4096, data, { dops });
  assertEquals(await call.told, 4096);
  assertEquals(call.iocb.dioComplete, null);
  assertEquals(ioends.map((i) => [i.offset, i.size]), [[4096, 4096]]);
  t.dev.fault = () => BLK_STS_IOERR;
  const failed = async_(t, flags, 4096, data, { dops });
  assertEquals(await failed.told, -EIO);
  assertEquals(t.inode.dioCount, 0);
});

test("iomapFinishIoends() of the last DIRECT ioend ends a request, at once where nothing is cached", async () => {
  const t = mapped(64 * KiB);
  t.extents[0]!.length = 32 * KiB;
  t.insert({
    offset: 32 * KiB,
    length: 32 * KiB,
    type: IOMAP_UNWRITTEN,
    addr: t.alloc(32 * KiB),
  });
  const ioends: IomapIoend[] = [];
  const flagsSeen: number[] = [];
  const dops: IomapDioOps = {
    submitIo(iter, bio, pos) {
      const flags = IOMAP_IOEND_DIRECT;
      ioends.push(iomapInitIoend(iter.inode, bio, pos, flags));
    },
    endIo(_iocb, size, error, flags) {
      flagsSeen.push(flags & (IOMAP_DIO_UNWRITTEN | IOMAP_DIO_COW));
      return error < 0 ? error : size === 64 * KiB ? 0 : -EINVAL;
    },
  };
  const call = async_(t, IOCB_WRITE, 0, bytes(64 * KiB), { dops });
  assertEquals([call.ret, ioends.length], [-EIOCBQUEUED, 2]);

  iomapFinishIoends(ioends[1]!, 0);
  assertEquals([call.done, flagsSeen.length], [false, 0]);
  iomapFinishIoends(ioends[0]!, 0);

  assertEquals([call.done, flagsSeen], [true, [IOMAP_DIO_UNWRITTEN]]);
  assertEquals(await call.told, 64 * KiB);
});

test("iomapFinishIoends() of DIRECT ioends does not drop the cache itself", async () => {
  const t = mapped(64 * KiB);
  // What was cached before the data was there goes, in a worker of its own.
  let dops = ioendOps([], () => t.read(4096, 4096));
  const cached = async_(t, IOCB_WRITE, 4096, bytes(4096, 8), { dops });
  assertEquals(await cached.told, 4096);
  assertEquals(t.folio(1), null);
  assertEquals(await t.read(4096, 4096), bytes(4096, 8));
  await t.drop();
  // What comes while it ends stays.
  dops = {
    ...ioendOps([], () => null),
    endIo: async () => {
      await t.read(4096, 4096);
      return 0;
    },
  };
  const ended = async_(t, IOCB_WRITE, 4096, bytes(4096, 9), { dops });
  assertEquals(await ended.told, 4096);
  assert(t.folio(1) !== null);
});

test("iomapDioRw() with PARTIAL and NOWAIT does not wait for what was sent", async () => {
  const t = mapped(16384);
  const from = new FaultyIter(4096, bytes(8192));
  const dioFlags = IOMAP_DIO_PARTIAL;
  const call = async_(t, IOCB_NOWAIT, 0, from, { dioFlags });
  assertEquals(call.ret, -EIOCBQUEUED);
  assertEquals(await call.told, 4096);
  const waits = async_(t, 0, 0, new FaultyIter(4096, bytes(8192)), {
    dioFlags,
  });
  assertEquals(await waits.ret, 4096);
  assertEquals(waits.done, false);
});

test("iomapDioRw() zeroes no tail after it has stopped for an error", async () => {
  const t = new TestFs({
    size: 2 ** 20,
    rows: [[0, 2 ** 20, IOMAP_UNWRITTEN]],
  });
  t.dev.latency = 0;
  t.dev.fault = () => BLK_STS_IOERR;
  // The first bio ends within a block.
  const parts = Array.from({ length: 512 }, () => bytes(131));
  assertEquals(await dio(t, true, 0, new IovIter(...parts)), -EIO);
  // The walk goes on, and is told after it has filled up in front, as in the kernel.
  assertEquals(t.dev.take(), ["W 1048576+33280", "W 1081344+512"]);
});

test("iomapDioRw() reads as one who waits", async () => {
  const t = mapped(4096);
  await dread(t, 0, bytes(4096));
  const { opf } = t.dev.seen[0]!;
  assertEquals(opf, REQ_OP_READ | REQ_SYNC | REQ_IDLE);
});
