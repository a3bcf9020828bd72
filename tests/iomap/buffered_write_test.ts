/** Corner cases 30 to 52: writing to the page cache. */
import { assert, assertEquals } from "@std/assert";
import { IOCB_NOWAIT, IOCB_WRITE } from "../../fs/kiocb.ts";
import { iomapGetFolio } from "../../iomap/buffered-io.ts";
import {
  IOMAP_DELALLOC,
  IOMAP_F_SIZE_CHANGED,
  IOMAP_HOLE,
  IOMAP_INLINE,
  IOMAP_MAPPED,
  IOMAP_UNWRITTEN,
} from "../../iomap/iomap.ts";
import { EAGAIN, EFAULT, EIO, ENOMEM, ENOSPC } from "../../lib/errno.ts";
import { IovIter } from "../../lib/iov-iter.ts";
import { type Folio, folioPut, folioUnlock } from "../../mm/folio.ts";
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

test("buffered write 30, 31 and 41: progress hides the error", async () => {
  const t = new TestFs();
  t.beginError = (pos) => pos >= 8192 ? -ENOSPC : 0;
  t.tweak = (iomap) => {
    iomap.length = Math.min(iomap.length, 8192 - iomap.offset);
  };
  const iocb = t.iocb(100, IOCB_WRITE);
  assertEquals(await t.writeIter(iocb, new IovIter(bytes(20000, 1))), 8092);
  assertEquals(iocb.pos, 8192);
  assertEquals(t.inode.size, 8192);
  assertEquals(await t.writeIter(iocb, new IovIter(bytes(1, 1))), -ENOSPC);
  assertEquals(iocb.pos, 8192);
});

test("buffered write 32: a whole folio reads nothing and has no block state", async () => {
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

for (
  const [pos, len, reads] of [
    [100, 10, [1]],
    [0, 1024, []],
    [512, 1024, [2]],
    [0, 1500, [2]],
    [0, 3000, [3]],
    [100, 3996, [4]],
    [1024, 2048, []],
    [1000, 2100, [4]],
    [4095, 2, [1, 1]],
  ] as [number, number, number[]][]
) {
  test(`buffered write 33 and 34: ${len} at ${pos} reads ${reads} blocks`, async () => {
    const size = 8192;
    const t = new TestFs({
      blkbits: 10,
      size,
      rows: [[0, size, IOMAP_MAPPED]],
    });
    t.fillDisk();
    assertEquals(await t.write(pos, bytes(len, 7)), len);
    const seen = t.dev.seen.map((s) => s.len / 1024);
    assertEquals(seen, reads);
    const expected = pattern(0, size);
    expected.fill(7, pos, pos + len);
    assertEquals(await t.read(0, size), expected);
  });
}

for (const type of [IOMAP_HOLE, IOMAP_UNWRITTEN, IOMAP_DELALLOC]) {
  test(`buffered write 35: edges over type ${type} are zeroed, not read`, async () => {
    const t = new TestFs({
      blkbits: 10,
      size: 4096,
      rows: type === IOMAP_HOLE ? [] : [[0, 4096, type]],
    });
    assertEquals(await t.write(1100, bytes(1500, 7)), 1500);
    assertEquals(t.dev.take(), []);
    const expected = bytes(4096);
    expected.fill(7, 1100, 2600);
    assertEquals(await t.read(0, 4096), expected);
  });
}

test("buffered write 36: a block beyond the end is zeroed even if MAPPED", async () => {
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

test("buffered write 37: blocks written in part are read from the source mapping", async () => {
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

test("buffered write 38: a short copy counts only into an uptodate folio", async () => {
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

test("buffered write 39: memory that cannot be read at all is -EFAULT", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_MAPPED]] });
  const iocb = t.iocb(0, IOCB_WRITE);
  const ret = await t.writeIter(iocb, new FaultyIter(0, bytes(10)));
  assertEquals(ret, -EFAULT);
  assertEquals(iocb.pos, 0);
  assertEquals(t.folio(0)!.locked, false);
});

test("buffered write 39: memory that goes while a block is read is -EFAULT", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_MAPPED]] });
  const data = new Uint8Array(100);
  const written = t.write(100, data);
  data.buffer.transfer();
  assertEquals(await written, -EFAULT);
  assertEquals(t.folio(0)!.refcount, 1);
  assertEquals(t.folio(0)!.dirty, false);
});

test("buffered write 40: i_size moves before the folio is unlocked, and end is told", async () => {
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

test("buffered write 42: what failed beyond the end does not stay cached", async () => {
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

test("buffered write 43: growing zeroes the cached dirty tail of the old end", async () => {
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

test("buffered write 44: NOWAIT that has to read is -EAGAIN, or short", async () => {
  const t = new TestFs({ size: 8192, rows: [[0, 8192, IOMAP_MAPPED]] });
  assertEquals(await t.write(10, bytes(10, 1), IOCB_NOWAIT), -EAGAIN);
  assertEquals(await t.write(0, bytes(5000, 1), IOCB_NOWAIT), 4096);
  assertEquals(t.dev.take(), []);
});

test("buffered write 45, 46 and 47: a stale mapping is obtained again, folios are balanced", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_MAPPED]] });
  t.fillDisk();
  const log: string[] = [];
  let stale = 1;
  t.writeOps = {
    getFolio(iter, pos, len) {
      log.push(`get ${pos}+${len}`);
      return iomapGetFolio(iter, pos, len);
    },
    putFolio(_inode, pos, copied, folio) {
      log.push(`put ${pos} ${copied} ${folio.locked}`);
      folioUnlock(folio);
      folioPut(folio);
    },
    iomapValid() {
      log.push(`valid, ${t.dev.take().length} reads`);
      return stale-- <= 0;
    },
  };
  assertEquals(await t.write(10, bytes(10, 1)), 10);
  assertEquals(log, [
    "get 10+10",
    "valid, 0 reads",
    "put 10 0 true",
    "get 10+10",
    "valid, 0 reads",
    "put 10 10 true",
  ]);
  assertEquals(t.takeCalls(), [
    "begin 10+10",
    "end 10+10 written 0",
    "begin 10+10",
    "end 10+10 written 10",
  ]);
});

test("buffered write 47: a folio is put with 0 when its read failed", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_MAPPED]] });
  const puts: number[] = [];
  t.writeOps = {
    readFolioRange: () => Promise.resolve(-EIO),
    putFolio(_inode, _pos, copied, folio) {
      puts.push(copied);
      folioUnlock(folio);
      folioPut(folio);
    },
  };
  assertEquals(await t.write(10, bytes(10, 1)), -EIO);
  assertEquals(puts, [0]);
});

test("buffered write 48: a cached folio keeps its size", async () => {
  const t = new TestFs({ maxOrder: 9 });
  await t.write(4096, bytes(1, 1));
  await t.write(0, bytes(16384, 1));
  assertEquals(folios(t, 4), [[0, 1], [1, 1], [2, 2]]);
});

for (
  const [pos, len, expected] of [
    [0, 5000, [[0, 1], [1, 1]]],
    [0, 8192, [[0, 2]]],
    [0, 12288, [[0, 2], [2, 1]]],
    [4096, 16384, [[1, 1], [2, 2], [4, 1]]],
    [8192, 65536, [[2, 2], [4, 4], [8, 8], [16, 2]]],
    [0, 100000, [[0, 16], [16, 8], [24, 1]]],
    [0, 3072 * KiB, [[0, 512], [512, 256]]],
  ] as [number, number, [number, number][]][]
) {
  test(`buffered write 49: ${len} at ${pos} makes folios by alignment`, async () => {
    const t = new TestFs({ maxOrder: 9 });
    assertEquals(await t.write(pos, bytes(len, 1)), len);
    assertEquals(folios(t, Math.ceil((pos + len) / 4096)), expected);
  });
}

test("buffered write 51: INLINE goes to the inode, not to a dirty folio", async () => {
  const t = new TestFs({ size: 50 });
  const inline = pattern(0, 200);
  t.tweak = (iomap) => {
    iomap.type = IOMAP_INLINE;
    iomap.offset = 0;
    iomap.length = 200;
    iomap.inlineData = inline;
  };
  assertEquals(await t.write(40, bytes(20, 7)), 20);
  assertEquals(t.folio(0)!.dirty, false);
  assert(t.inode.sb.dirtyInodes.has(t.inode));
  assertEquals(inline.subarray(0, 40), pattern(0, 40));
  assertEquals(inline.subarray(40, 60), bytes(20, 7));
  assertEquals(t.inode.size, 60);
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
