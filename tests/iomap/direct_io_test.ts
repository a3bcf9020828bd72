/** Corner cases 97 to 126a: direct I/O. */
import { assert, assertEquals } from "@std/assert";
import { BLK_STS_IOERR, REQ_FUA, REQ_OP_READ } from "../../block/blk-types.ts";
import { inodeDioWait } from "../../fs/inode.ts";
import {
  IOCB_ATOMIC,
  IOCB_DIRECT,
  IOCB_DSYNC,
  IOCB_NOWAIT,
  IOCB_SYNC,
  IOCB_WRITE,
  type Kiocb,
} from "../../fs/kiocb.ts";
import { iomapDioRw } from "../../iomap/direct-io.ts";
import {
  IOMAP_DELALLOC,
  IOMAP_DIO_COW,
  IOMAP_DIO_FORCE_WAIT,
  IOMAP_DIO_OVERWRITE_ONLY,
  IOMAP_DIO_PARTIAL,
  IOMAP_DIO_UNWRITTEN,
  IOMAP_F_ATOMIC_BIO,
  IOMAP_F_DIRTY,
  IOMAP_F_NEW,
  IOMAP_F_SHARED,
  IOMAP_HOLE,
  IOMAP_INLINE,
  IOMAP_MAPPED,
  IOMAP_UNWRITTEN,
  type IomapDioOps,
} from "../../iomap/iomap.ts";
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
import { fileWriteAndWaitRange } from "../../mm/filemap.ts";
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

test("iomapDioRw() 97: nothing to do is 0 without a mapping", async () => {
  const t = mapped(4096);
  assertEquals(await dread(t, 0, bytes(0)), 0);
  assertEquals(t.takeCalls(), []);
});

test("iomapDioRw() 98 to 100, worked examples 8 and 9: ends and alignment of reads", async () => {
  const t = mapped(4096 + 1000);
  assertEquals(await dread(t, 4096 + 1000, bytes(700)), 0);
  assertEquals(await dread(t, 10_001, bytes(3)), 0);
  assertEquals(t.takeCalls(), []);
  assertEquals(await dread(t, 0, bytes(700)), -EINVAL);
  assertEquals(await dread(t, 100, bytes(512)), -EINVAL);
  assertEquals(await dread(t, 512, bytes(512)), 512);
  const buffer = bytes(8192);
  const from = new IovIter(buffer);
  assertEquals(await dio(t, false, 0, from), 5096);
  assertEquals(buffer.subarray(0, 5096), pattern(0, 5096));
  assertEquals(from.count, 8192 - 5096);
});

test("iomapDioRw() 101: dirty cache is flushed before a read and stays", async () => {
  const t = mapped(8192);
  await t.write(0, bytes(4096, 7));
  const buffer = bytes(4096);
  assertEquals(await dread(t, 0, buffer), 4096);
  assertEquals(buffer, bytes(4096, 7));
  assertEquals(t.dev.take(), ["W 1048576+4096", "R 1048576+4096"]);
  assert(t.folio(0)!.uptodate);
});

test("iomapDioRw() 102: the cache is dropped before and after a write", async () => {
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

test("iomapDioRw() 103 and 119: a cache that cannot be flushed is -ENOTBLK, -EAGAIN if atomic", async () => {
  const t = mapped(8192);
  t.dev.fault = (bio) => (bio.opf & 1) !== 0 ? BLK_STS_IOERR : 0;
  await t.write(0, bytes(4096, 7));
  assertEquals(await dwrite(t, 0, bytes(4096, 8)), -ENOTBLK);
  await t.write(0, bytes(4096, 7));
  const flags = IOCB_ATOMIC;
  assertEquals(await dwrite(t, 0, bytes(4096, 8), { flags }), -EAGAIN);
});

test("iomapDioRw() 104: NOWAIT and the cache", async () => {
  const t = mapped(8192);
  const flags = IOCB_NOWAIT;
  await t.read(0, 4096);
  assertEquals(await dwrite(t, 0, bytes(4096), { flags }), -EAGAIN);
  assertEquals(await dread(t, 0, bytes(4096), { flags }), 4096);
  await t.write(0, bytes(4096, 7));
  assertEquals(await dread(t, 0, bytes(4096), { flags }), -EAGAIN);
});

test(
  "iomapDioRw() 105 and 106: DELALLOC, and a hole to write, are -EIO",
  async () => {
    const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_DELALLOC]] });
    assertEquals(await dread(t, 0, bytes(4096)), -EIO);
    assertEquals(await dwrite(t, 0, bytes(4096)), -EIO);
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
    name: "107, worked example 4: UNWRITTEN is zeroed on both sides",
    size: 65536,
    type: IOMAP_UNWRITTEN,
    flags: IOMAP_F_NEW,
    pos: 1536,
    len: 512,
    writes: ["W 1048576+1536", "W 1050112+512", "W 1050624+2048"],
  },
  {
    name: "worked example 5: F_NEW beyond the end is zeroed behind",
    size: 4096,
    type: IOMAP_MAPPED,
    flags: IOMAP_F_NEW,
    pos: 4096,
    len: 512,
    writes: ["W 1052672+512", "W 1053184+3584"],
  },
  {
    name:
      "108, worked example 6: an overwrite that ends with the file is zeroed behind",
    size: 6144,
    type: IOMAP_MAPPED,
    pos: 5632,
    len: 512,
    writes: ["W 1054208+512", "W 1054720+2048"],
  },
  {
    name: "worked example 7: an overwrite inside is one bio",
    size: 8192,
    type: IOMAP_MAPPED,
    pos: 5632,
    len: 512,
    writes: ["W 1054208+512"],
  },
];

for (const { name, size, type, flags, pos, len, writes } of ZERO_CASES) {
  test(`iomapDioRw() ${name}`, async () => {
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

test("iomapDioRw() 109 and 112: an error loses what was done, endIo is told", async () => {
  const t = mapped(16384);
  t.tweak = (iomap) => {
    iomap.length = 8192 - iomap.offset;
  };
  t.beginError = (pos) => pos >= 8192 ? -ENOSPC : 0;
  const ends: number[][] = [];
  const dops: IomapDioOps = {
    endIo(_iocb, size, error, flags) {
      ends.push([size, error, flags & 3]);
      return error;
    },
  };
  const iocb = t.iocb(0, IOCB_WRITE | IOCB_DIRECT);
  assertEquals(await dwrite(t, 0, bytes(16384), { dops, iocb }), -ENOSPC);
  assertEquals(ends, [[8192, -ENOSPC, 0]]);
  assertEquals(iocb.pos, 0);
  assertEquals(t.inode.dioCount, 0);
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

test("iomapDioRw() 110: PARTIAL keeps what was done before memory that cannot be used", async () => {
  const t = mapped(16384);
  const faulty = () => new FaultyIter(4096, bytes(8192, 7));
  assertEquals(await dio(t, true, 0, faulty()), -EFAULT);
  const dioFlags = IOMAP_DIO_PARTIAL;
  assertEquals(await dio(t, true, 0, faulty(), { dioFlags }), 4096);
});

test("iomapDioRw() 111: -ENOTBLK of begin gives what was done", async () => {
  const t = mapped(16384);
  t.beginError = () => -ENOTBLK;
  assertEquals(await dwrite(t, 0, bytes(4096)), 0);
  t.tweak = (iomap) => {
    iomap.length = 4096 - iomap.offset;
  };
  t.beginError = (pos) => pos > 0 ? -ENOTBLK : 0;
  assertEquals(await dwrite(t, 0, bytes(8192)), 4096);
});

test("iomapDioRw() 113: endIo's answer replaces the result both ways", async () => {
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

for (const c of FUA_CASES) {
  test(`iomapDioRw() 114, FUA table: ${c.name}`, async () => {
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
      assertEquals([start, end], [0, 4095]);
      synced.push(datasync);
      return 0;
    };
    assertEquals(await dwrite(t, 0, bytes(4096, 7), { flags: c.flags }), 4096);
    assertEquals((t.dev.seen[0]!.opf & REQ_FUA) !== 0, c.dataFua);
    assertEquals(synced, c.synced ? [(c.flags & IOCB_SYNC) === 0] : []);
  });
}

test("iomapDioRw() 115: one piece without FUA makes the whole flush", async () => {
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

test("iomapDioRw() 116: cache that stays after the write is an error for fsync only", async () => {
  const t = mapped(8192);
  let cached = Promise.resolve();
  const dops: IomapDioOps = {
    submitIo(_iter, bio) {
      // A store into the cache that the write does not know of.
      cached = t.write(0, bytes(4096, 9)).then(() => bio.bdev.submit(bio));
    },
  };
  assertEquals(await dwrite(t, 0, bytes(4096, 8), { dops }), 4096);
  await cached;
  const { mapping } = t.inode;
  // No writeback has failed: who only flushes is not told.
  assertEquals(await t.flush(), 0);
  assertEquals(await fileWriteAndWaitRange(mapping, t.file, 0, MAX), -EIO);
});

test("iomapDioRw() 117: OVERWRITE_ONLY beyond the end is -EAGAIN", async () => {
  const t = mapped(8192);
  const dioFlags = IOMAP_DIO_OVERWRITE_ONLY;
  for (const [pos, len] of [[8192, 512], [4096, 8192]] as const) {
    assertEquals(await dwrite(t, pos, bytes(len), { dioFlags }), -EAGAIN);
  }
  assertEquals(t.takeCalls(), []);
  assertEquals(await dwrite(t, 4096, bytes(4096), { dioFlags }), 4096);
});

test("iomapDioRw() 118: ATOMIC over a mapping that is too short is -EINVAL", async () => {
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
  buffer: Uint8Array,
  { dioFlags = 0, dops = null, doneBefore = 0 }: Dio = {},
) {
  const iocb = t.iocb(pos, flags | IOCB_DIRECT);
  const told = Promise.withResolvers<number>();
  const call = { told: told.promise, iocb, done: false, ret: 0 as unknown };
  iocb.kiComplete = (_iocb, ret) => {
    call.done = true;
    told.resolve(ret);
  };
  const from = new IovIter(buffer);
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

test("iomapDioRw() 121: FORCE_WAIT never queues", async () => {
  const t = mapped(8192);
  const call = async_(t, 0, 0, bytes(4096), { dioFlags: IOMAP_DIO_FORCE_WAIT });
  assertEquals(await call.ret, 4096);
  assertEquals(call.done, false);
});

test("iomapDioRw() 122: doneBefore is added only to progress", async () => {
  const t = mapped(8192);
  assertEquals(await dread(t, 0, bytes(4096), { doneBefore: 100 }), 4196);
  t.dev.fault = () => BLK_STS_IOERR;
  assertEquals(await dread(t, 0, bytes(4096), { doneBefore: 100 }), -EIO);
});

test("iomapDioRw() 123: i_size is the file system's to move, save for INLINE", async () => {
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
  assertEquals(data.subarray(10, 50), bytes(40));
  assertEquals(data.subarray(50, 70), bytes(20, 7));
});

test("inodeDioWait() 124: returns only after endIo", async () => {
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

test("iomapDioRw() 125: more than 64 KiB to zero is -EINVAL", async () => {
  const t = new TestFs({
    blkbits: 17,
    size: 2 ** 20,
    rows: [[0, 2 ** 20, IOMAP_UNWRITTEN]],
  });
  assertEquals(await dwrite(t, 65536 + 512, bytes(512)), -EINVAL);
}, "more than 64 KiB to zero");

for (
  const [name, good, pos, size, expected] of [
    ["unaligned, into a hole", 0, 8704, 65536, 0],
    ["after an unaligned piece", 4096, 131584, 262144, 4096],
    ["at a block's border", 4096, 65536, 262144, -EFAULT],
    ["beyond the end", 4096, 512, 0, 4096],
  ] as const
) {
  test(`iomapDioRw() 126a: memory that cannot be used, ${name}`, async () => {
    const t = new TestFs({ size, allocate: IOMAP_UNWRITTEN });
    const from = new FaultyIter(good, bytes(good + 4096, 7));
    assertEquals(await dio(t, true, pos, from), expected);
  });
}

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
  assertEquals(await dio(t, true, 0, new IovIter(...parts)), len);
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
