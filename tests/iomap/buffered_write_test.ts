/** Corner cases 30 to 52: writing to the page cache; 51 is with INLINE. */
import { assert, assertEquals } from "@std/assert";
import {
  IOCB_DONTCACHE,
  IOCB_DSYNC,
  IOCB_NOWAIT,
  IOCB_SYNC,
  IOCB_WRITE,
} from "../../fs/kiocb.ts";
import {
  iomapFileBufferedWrite,
  iomapGetFolio,
} from "../../iomap/buffered-io.ts";
import {
  IOMAP_DELALLOC,
  IOMAP_DONTCACHE,
  IOMAP_F_NEW,
  IOMAP_F_SIZE_CHANGED,
  IOMAP_HOLE,
  IOMAP_IOEND_DONTCACHE,
  IOMAP_MAPPED,
  IOMAP_NOWAIT,
  IOMAP_UNWRITTEN,
  IOMAP_WRITE,
  type IomapWriteOps,
} from "../../iomap/iomap.ts";
import { EAGAIN, EFAULT, EINTR, EIO, ENOMEM, ENOSPC } from "../../lib/errno.ts";
import { IovIter } from "../../lib/iov-iter.ts";
import {
  type Folio,
  folioPut,
  folioTrylock,
  folioUnlock,
} from "../../mm/folio.ts";
import { bytes, FaultyIter, KiB, pattern, test, TestFs } from "./testfs.ts";

/** Bytes of a folio as they are in memory. */
function memory(t: TestFs, index: number): Uint8Array {
  const { data, offset, size } = t.folio(index)!;
  return data.slice(offset, offset + size);
}

/** Sizes of the cached folios in pages, as [index, pages]. */
function folios(t: TestFs, pages: number): [number, number][] {
  const found: [number, number][] = [];
  for (let i = 0; i < pages;) {
    const folio = t.folio(i);
    if (folio !== null) found.push([folio.index, folio.size / 4096]);
    i += folio === null ? 1 : folio.size / 4096;
  }
  return found;
}

/** A file that can be written up to `room`. */
function fullAt(room: number, error = -ENOSPC): TestFs {
  const t = new TestFs();
  t.beginError = (pos) => pos >= room ? error : 0;
  t.tweak = (iomap) => {
    iomap.length = Math.min(iomap.length, room - iomap.offset);
  };
  return t;
}

test("iomap corner case 30: progress hides the error, which comes without it", async () => {
  const t = fullAt(8192);
  const from = new IovIter(bytes(20000, 1));
  assertEquals(await t.writeIter(t.iocb(100, IOCB_WRITE), from), 8092);
  assertEquals(from.count, 20000 - 8092);
  const again = t.iocb(8192, IOCB_WRITE);
  assertEquals(await t.writeIter(again, from), -ENOSPC);
});

test("iomap corner case 31: the position moves by what was written, only", async () => {
  const t = fullAt(8192);
  const iocb = t.iocb(100, IOCB_WRITE);
  await t.writeIter(iocb, new IovIter(bytes(20000, 1)));
  assertEquals(iocb.pos, 8192);
  assertEquals(await t.writeIter(iocb, new IovIter(bytes(1, 1))), -ENOSPC);
  assertEquals(iocb.pos, 8192);
});

test("iomap corner case 41: i_size grows chunk by chunk, an error later leaves it", async () => {
  const t = fullAt(8192);
  const sizes: number[] = [];
  t.writeOps = {
    getFolio(iter, pos, len) {
      sizes.push(t.inode.size);
      return iomapGetFolio(iter, pos, len);
    },
  };
  await t.write(100, bytes(20000, 1));
  assertEquals(sizes, [0, 4096]);
  assertEquals(t.inode.size, 8192);
});

test("iomap corner case 32: a whole folio reads nothing and has no block state", async () => {
  const t = new TestFs({
    blkbits: 10,
    size: 8192,
    rows: [[0, 8192, IOMAP_MAPPED]],
  });
  assertEquals(await t.write(4096, pattern(4096, 4096)), 4096);
  assertEquals(t.dev.take(), []);
  assert(t.folio(1)!.private === null);
  assert(t.folio(1)!.dirty && t.folio(1)!.uptodate);
});

/** Blocks read for a write to a cold file of 1 KiB blocks, bio by bio. */
async function blocksRead(pos: number, len: number): Promise<number[]> {
  const size = 8192;
  const t = new TestFs({ blkbits: 10, size, rows: [[0, size, IOMAP_MAPPED]] });
  t.fillDisk();
  assertEquals(await t.write(pos, bytes(len, 7)), len);
  const seen = t.dev.seen.map((s) => s.len / 1024);
  const expected = pattern(0, size);
  expected.fill(7, pos, pos + len);
  assertEquals(await t.read(0, size), expected);
  return seen;
}

test("iomap corner case 33: blocks that are overwritten whole are not read", async () => {
  assertEquals(await blocksRead(0, 1024), []);
  assertEquals(await blocksRead(1024, 2048), []);
});

test("iomap corner case 34: a run that the write begins or ends within is read whole", async () => {
  assertEquals(await blocksRead(100, 10), [1]);
  assertEquals(await blocksRead(512, 1024), [2]);
  assertEquals(await blocksRead(0, 1500), [2]);
  assertEquals(await blocksRead(0, 3000), [3]);
  assertEquals(await blocksRead(100, 3996), [4]);
  assertEquals(await blocksRead(1000, 2100), [4]);
  assertEquals(await blocksRead(4095, 2), [1, 1]);
});

test("iomap corner case 35: edges over what holds no data are zeroed, not read", async () => {
  for (
    const [type, flags] of [
      [IOMAP_HOLE, 0],
      [IOMAP_UNWRITTEN, 0],
      [IOMAP_DELALLOC, 0],
      [IOMAP_MAPPED, IOMAP_F_NEW],
    ] as const
  ) {
    const t = new TestFs({
      blkbits: 10,
      size: 4096,
      rows: type === IOMAP_HOLE ? [] : [[0, 4096, type]],
    });
    t.fillDisk();
    t.tweak = (iomap) => {
      iomap.flags |= flags;
    };
    assertEquals(await t.write(1100, bytes(1500, 7)), 1500);
    assertEquals(t.dev.take(), []);
    const expected = bytes(4096);
    expected.fill(7, 1100, 2600);
    assertEquals(await t.read(0, 4096), expected);
  }
});

test("iomap corner case 36: a block beyond the end is zeroed even if MAPPED", async () => {
  const t = new TestFs({
    blkbits: 10,
    size: 2000,
    rows: [[0, 4096, IOMAP_MAPPED]],
  });
  t.fillDisk();
  assertEquals(await t.write(2148, bytes(100, 7)), 100);
  assertEquals(t.dev.take(), []);
  const got = memory(t, 0).subarray(2048, 3072);
  const expected = bytes(1024);
  expected.fill(7, 100, 200);
  assertEquals(got, expected);
});

test("iomap corner case 37: blocks written in part are read from the source mapping", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_MAPPED]] });
  t.dev.data.set(pattern(0, 4096), 65536);
  t.tweak = (_iomap, srcmap) => {
    t.fill(srcmap, {
      offset: 0,
      length: 4096,
      type: IOMAP_MAPPED,
      addr: 65536,
    });
  };
  assertEquals(await t.write(10, bytes(10, 7)), 10);
  assertEquals(t.dev.take(), ["R 65536+4096"]);
});

test("iomap corner case 38: a short copy counts only into an uptodate folio", async () => {
  const t = new TestFs({ size: 8192, rows: [[0, 8192, IOMAP_MAPPED]] });
  t.fillDisk();
  // Not uptodate: a whole folio of which 1000 bytes can be read is tried again
  // with those.
  const cold = new FaultyIter(1000, bytes(4096, 7));
  const iocb = t.iocb(0, IOCB_WRITE);
  assertEquals(await t.writeIter(iocb, cold), 1000);
  assertEquals(t.dev.take(), ["R 1048576+4096"]);
  const expected = pattern(0, 8192);
  expected.fill(7, 0, 1000);
  assertEquals(await t.read(0, 8192), expected);
  // Uptodate now.
  t.dev.take();
  const warm = new FaultyIter(2000, bytes(4096, 8));
  assertEquals(await t.writeIter(t.iocb(4096, IOCB_WRITE), warm), 2000);
  expected.fill(8, 4096, 6096);
  assertEquals(await t.read(0, 8192), expected);
  assertEquals(t.dev.take(), []);
});

test("iomap corner case 39: unreadable memory is -EFAULT, a readable part counts", async () => {
  const t = new TestFs({ size: 8192, rows: [[0, 8192, IOMAP_MAPPED]] });
  const iocb = t.iocb(0, IOCB_WRITE);
  const none = new FaultyIter(0, bytes(10));
  assertEquals(await t.writeIter(iocb, none), -EFAULT);
  assertEquals(iocb.pos, 0);
  // Nothing was made or read for it.
  assert(t.folio(0) === null);
  assertEquals(t.dev.take(), []);
  const some = new FaultyIter(5000, bytes(8000, 1));
  assertEquals(await t.writeIter(iocb, some), 5000);
  assertEquals(iocb.pos, 5000);
  assertEquals(some.count, 3000);
});

test("buffered write whose memory goes while a block is read is -EFAULT", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_MAPPED]] });
  const data = new Uint8Array(100);
  const written = t.write(100, data);
  data.buffer.transfer();
  assertEquals(await written, -EFAULT);
  assertEquals(t.folio(0)!.refcount, 1);
  assertEquals(t.folio(0)!.dirty, false);
});

/** Caller's memory that goes when it is to be copied. */
class VanishingIter extends FaultyIter {
  override get readable(): boolean {
    return true;
  }
}

for (const blkbits of [9, 10, 12]) {
  for (const readable of [0, 700, 1024]) {
    test(`a copy cut short at ${readable} leaves zeroes in blocks of ${2 ** blkbits} that held no data`, async () => {
      const t = new TestFs({ blkbits, size: 16384, maxOrder: 2 });
      t.writeOps = {
        // New memory is what it was last used for.
        getFolio: async (iter, pos, len) => {
          const folio = await iomapGetFolio(iter, pos, len);
          if (typeof folio === "number" || folio.private !== null) return folio;
          if (folio.uptodate) return folio;
          folio.data.fill(0xaa, folio.offset, folio.offset + folio.size);
          return folio;
        },
      };
      // A valid block between two that are not.
      await t.write(2048, bytes(512, 5));
      const expected = bytes(16384);
      expected.fill(5, 2048, 2560);
      for (const pos of [1000, 8192 + 100]) {
        const from = new VanishingIter(readable, bytes(5000, 0x11));
        const ret = await t.writeIter(t.iocb(pos, IOCB_WRITE), from);
        assertEquals(ret, readable || -EFAULT);
        expected.fill(0x11, pos, pos + readable);
        assertEquals(await t.read(0, 16384), expected);
      }
      await t.flush();
      await t.drop();
      assertEquals(await t.read(0, 16384), expected);
    });
  }
}

test("iomap corner case 40: i_size moves before the folio is unlocked, and end is told", async () => {
  const t = new TestFs();
  const sizes: [number, boolean][] = [];
  t.writeOps = {
    putFolio(inode, _pos, _copied, folio) {
      sizes.push([inode.size, folio.locked]);
      folioUnlock(folio);
      folioPut(folio);
    },
  };
  const flags: number[] = [];
  t.ops.iomapEnd = (_inode, _pos, _len, _written, _flags, iomap) => {
    flags.push(iomap.flags & IOMAP_F_SIZE_CHANGED);
    return 0;
  };
  assertEquals(await t.write(0, bytes(6000, 1)), 6000);
  assertEquals(sizes, [[4096, true], [6000, true]]);
  assertEquals(flags, [IOMAP_F_SIZE_CHANGED]);
  assertEquals(await t.write(0, bytes(10, 1)), 10);
  assertEquals(flags[1], 0);
});

test("iomap corner case 42: what failed beyond the end does not stay cached", async () => {
  const t = new TestFs({ size: 4096 });
  t.writeOps = {
    async getFolio(iter, pos, len) {
      const folio = await iomapGetFolio(iter, pos, len) as Folio;
      folioUnlock(folio);
      folioPut(folio);
      assert(t.folio(1) !== null);
      return -ENOMEM;
    },
  };
  assertEquals(await t.write(4096, bytes(4096, 1)), -ENOMEM);
  assertEquals(t.inode.size, 4096);
  assert(t.folio(1) === null);
});

test("iomap corner case 43: growing zeroes the cached dirty tail of the old end", async () => {
  const t = new TestFs({ blkbits: 10, size: 0 });
  await t.write(0, bytes(100, 1));
  // A store through a memory mapping beyond the end of the file.
  const { data, offset } = t.folio(0)!;
  data.fill(9, offset + 100, offset + 4096);
  await t.write(2048, bytes(100, 2));
  const got = memory(t, 0);
  assertEquals(got.subarray(100, 2048), bytes(1948));
  assertEquals(got.subarray(2048, 2148), bytes(100, 2));
});

test("iomap corner case 44: NOWAIT that has to read is -EAGAIN, or short", async () => {
  const t = new TestFs({ size: 8192, rows: [[0, 8192, IOMAP_MAPPED]] });
  assertEquals(await t.write(10, bytes(10, 1), IOCB_NOWAIT), -EAGAIN);
  assertEquals(await t.write(0, bytes(5000, 1), IOCB_NOWAIT), 4096);
  assertEquals(t.dev.take(), []);
});

/** Write hooks that log what they are called with, and find a mapping stale `stale`
 * times. */
function loggedHooks(t: TestFs, stale: number, log: string[]): IomapWriteOps {
  return {
    getFolio(iter, pos, len) {
      log.push(`get ${pos}+${len}`);
      return iomapGetFolio(iter, pos, len);
    },
    putFolio(_inode, pos, copied, folio) {
      log.push(`put ${pos} ${copied}`);
      folioUnlock(folio);
      folioPut(folio);
    },
    iomapValid() {
      const { locked } = t.folio(0)!;
      log.push(`valid? locked ${locked}, ${t.dev.take().length} reads`);
      return stale-- <= 0;
    },
  };
}

function coldFs(): TestFs {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_MAPPED]] });
  t.fillDisk();
  return t;
}

test("iomap corner case 45: a mapping found stale is obtained again, nothing is copied", async () => {
  const t = coldFs();
  t.writeOps = loggedHooks(t, 2, []);
  const from = new IovIter(bytes(10, 1));
  assertEquals(await t.writeIter(t.iocb(10, IOCB_WRITE), from), 10);
  assertEquals(t.takeCalls(), [
    "begin 10+10",
    "end 10+10 written 0",
    "begin 10+10",
    "end 10+10 written 0",
    "begin 10+10",
    "end 10+10 written 10",
  ]);
});

test("iomap corner case 46: iomapValid() is asked with the folio locked, before any read", async () => {
  const t = coldFs();
  const log: string[] = [];
  t.writeOps = loggedHooks(t, 0, log);
  assertEquals(await t.write(10, bytes(10, 1)), 10);
  assertEquals(log, [
    "get 10+10",
    "valid? locked true, 0 reads",
    "put 10 10",
  ]);
  assertEquals(t.dev.take().length, 1);
});

test("iomap corner case 47: each folio that was got is put once, with 0 on failure", async () => {
  const t = coldFs();
  const log: string[] = [];
  const hooks = loggedHooks(t, 1, log);
  t.writeOps = { ...hooks, readFolioRange: () => Promise.resolve(-EIO) };
  assertEquals(await t.write(10, bytes(10, 1)), -EIO);
  assertEquals(log.filter((line) => !line.startsWith("valid")), [
    "get 10+10",
    "put 10 0",
    "get 10+10",
    "put 10 0",
  ]);
  assertEquals(t.folio(0)!.refcount, 1);
});

test("iomap corner case 48: a cached folio keeps its size", async () => {
  const t = new TestFs({ maxOrder: 9 });
  await t.write(4096, bytes(1, 1));
  await t.write(0, bytes(16384, 1));
  assertEquals(folios(t, 4), [[0, 1], [1, 1], [2, 2]]);
});

test("iomap corner case 49: folios are as large as length and alignment allow", async () => {
  for (
    const [pos, len, expected] of [
      [0, 5000, [[0, 1], [1, 1]]],
      [0, 8192, [[0, 2]]],
      [0, 12288, [[0, 2], [2, 1]]],
      [4096, 16384, [[1, 1], [2, 2], [4, 1]]],
      [8192, 65536, [[2, 2], [4, 4], [8, 8], [16, 2]]],
      [0, 100000, [[0, 16], [16, 8], [24, 1]]],
      [0, 1024 * KiB, [[0, 256]]],
      [0, 3072 * KiB, [[0, 512], [512, 256]]],
      [4096, 1024 * KiB, [
        [1, 1],
        [2, 2],
        [4, 4],
        [8, 8],
        [16, 16],
        [32, 32],
        [64, 64],
        [128, 128],
        [256, 1],
      ]],
    ] as [number, number, [number, number][]][]
  ) {
    const t = new TestFs({ maxOrder: 9 });
    assertEquals(await t.write(pos, bytes(len, 1)), len);
    assertEquals(folios(t, Math.ceil((pos + len) / 4096)), expected);
  }
});

test("iomap corner case 50: what interrupts a write is its result only if nothing was written", async () => {
  // Nothing is killed here; a file system that can be says so from its hook, where
  // the kernel looks for a fatal signal.
  const t = new TestFs();
  t.writeOps = {
    getFolio: (iter, pos, len) =>
      pos >= 8192 ? -EINTR : iomapGetFolio(iter, pos, len),
  };
  assertEquals(await t.write(4096, bytes(12288, 1)), 4096);
  assertEquals(t.inode.size, 8192);
  assertEquals(await t.write(8192, bytes(4096, 1)), -EINTR);
});

test("iomap corner case 52: a write with O_SYNC leaves dirty cache to the file system's sync", async () => {
  const t = new TestFs();
  let synced = 0;
  t.inode.fop.fsync = () => synced++;
  const flags = IOCB_SYNC | IOCB_DSYNC;
  assertEquals(await t.write(0, bytes(4096, 1), flags), 4096);
  assertEquals(t.dev.take(), []);
  assertEquals(synced, 0);
  assert(t.folio(0)!.dirty);
});

test("buffered write with DONTCACHE drops what it made, not what was there", async () => {
  const t = new TestFs();
  await t.write(0, bytes(4096, 1));
  const flags: number[] = [];
  t.beginError = (_pos, f) => {
    flags.push(f);
    return 0;
  };
  assertEquals(await t.write(0, bytes(8192, 2), IOCB_DONTCACHE), 8192);
  assertEquals([...new Set(flags)], [IOMAP_WRITE | IOMAP_DONTCACHE]);
  assertEquals(await t.flush(), 0);
  assert(t.folio(0) !== null && t.folio(1) === null);
  assertEquals(t.ioends.map((i) => i.split(" ")[1]), [
    "0",
    String(IOMAP_IOEND_DONTCACHE),
  ]);
  assertEquals(await t.read(0, 8192), bytes(8192, 2));
});

test("buffered write with DONTCACHE keeps a folio that somebody else wants meanwhile", async () => {
  const t = new TestFs();
  await t.write(0, bytes(4096, 1), IOCB_DONTCACHE);
  await t.write(100, bytes(10, 2));
  assertEquals(await t.flush(), 0);
  assert(t.folio(0) !== null);
});

test("buffered write with NOWAIT is -EAGAIN for a folio that is locked, or short", async () => {
  const t = new TestFs({ size: 8192, rows: [[0, 8192, IOMAP_MAPPED]] });
  await t.write(4096, bytes(4096, 1));
  const folio = t.folio(1)!;
  assert(folioTrylock(folio));
  assertEquals(await t.write(4096, bytes(10, 2), IOCB_NOWAIT), -EAGAIN);
  assertEquals(await t.write(0, bytes(8192, 2), IOCB_NOWAIT), 4096);
  folioUnlock(folio);
  assertEquals(await t.write(4096, bytes(10, 2), IOCB_NOWAIT), 10);
});

test("buffered write with NOWAIT tells begin", async () => {
  const t = new TestFs();
  t.beginError = (_pos, flags) => (flags & IOMAP_NOWAIT) !== 0 ? -EAGAIN : 0;
  assertEquals(await t.write(0, bytes(10, 1), IOCB_NOWAIT), -EAGAIN);
  assertEquals(await t.write(0, bytes(10, 1)), 10);
});

test("buffered write hands its last argument to begin and to the hooks", async () => {
  const t = new TestFs();
  const token = {};
  let seen: unknown = null;
  const writeOps: IomapWriteOps = {
    getFolio(iter, pos, len) {
      seen = iter.private;
      return iomapGetFolio(iter, pos, len);
    },
  };
  const iocb = t.iocb(0, IOCB_WRITE);
  const from = new IovIter(bytes(10, 1));
  const { ops } = t;
  await iomapFileBufferedWrite(iocb, from, ops, writeOps, token);
  assert(seen === token);
});

test("buffered write tries smaller pieces where memory gives less than a folio needs", async () => {
  const t = new TestFs({
    size: 64 * KiB,
    maxOrder: 4,
    rows: [[0, 64 * KiB, IOMAP_MAPPED]],
  });
  t.fillDisk();
  const log: string[] = [];
  const hooks = loggedHooks(t, 0, log);
  t.writeOps = { getFolio: hooks.getFolio! };
  const from = new FaultyIter(40 * KiB, bytes(64 * KiB, 7));
  assertEquals(await t.writeIter(t.iocb(0, IOCB_WRITE), from), 40 * KiB);
  assertEquals(log.slice(0, 2), ["get 0+65536", "get 0+32768"]);
  const expected = pattern(0, 64 * KiB);
  expected.fill(7, 0, 40 * KiB);
  assertEquals(await t.read(0, 64 * KiB), expected);
});

test("buffered write goes on after begin had to wait", async () => {
  const t = new TestFs();
  const { iomapBegin } = t.ops;
  t.ops.iomapBegin = (inode, pos, len, flags, iomap, srcmap) => {
    const ret = iomapBegin(
      inode,
      pos,
      Math.min(len, 5000),
      flags,
      iomap,
      srcmap,
    );
    return Promise.resolve(ret);
  };
  assertEquals(await t.write(0, pattern(0, 30000)), 30000);
  assertEquals(await t.read(0, 30000), pattern(0, 30000));
});

test("buffered writes agree with an array through flushes and drops", async () => {
  for (
    const [blkbits, maxOrder] of [[12, 0], [10, 0], [12, 5], [9, 4]] as const
  ) {
    const t = new TestFs({ blkbits, maxOrder, deviceSize: 64 * KiB * KiB });
    const model = bytes(200_000);
    let size = 0;
    let seed = 12345 + blkbits;
    const random = (n: number) => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return Math.floor(seed / 2 ** 32 * n);
    };
    for (let round = 0; round < 120; round++) {
      const pos = random(size + 1);
      const len = 1 + random(Math.min(30_000, 200_000 - pos - 1));
      const data = bytes(len, 1 + round % 255);
      assertEquals(await t.write(pos, data), len);
      model.set(data, pos);
      size = Math.max(size, pos + len);
      if (random(4) === 0) assertEquals(await t.flush(), 0);
      if (random(8) === 0) {
        await t.flush();
        await t.drop();
      }
      if (random(3) > 0) continue;
      const at = random(size);
      const got = await t.read(at, 40_000);
      assertEquals(got, model.slice(at, Math.min(size, at + 40_000)));
    }
    assertEquals(t.inode.size, size);
  }
});
