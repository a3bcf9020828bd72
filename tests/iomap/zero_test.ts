/** Corner cases 53 to 67: giving reservations back, unsharing, zeroing. */
import { assert, assertEquals } from "@std/assert";
import { BLK_STS_IOERR } from "../../block/blk-types.ts";
import {
  iomapFileUnshare,
  iomapTruncatePage,
  iomapWriteDelallocRelease,
} from "../../iomap/buffered-io.ts";
import {
  Iomap,
  IOMAP_DELALLOC,
  IOMAP_F_NEW,
  IOMAP_F_SHARED,
  IOMAP_MAPPED,
  IOMAP_UNSHARE,
  IOMAP_UNWRITTEN,
  IOMAP_WRITE,
  IOMAP_ZERO,
  iomapLastWrittenBlock,
} from "../../iomap/iomap.ts";
import { EIO } from "../../lib/errno.ts";
import { bytes, KiB, pattern, type Row, test, TestFs } from "./testfs.ts";

/** Ranges that a release of [start, end) punches, as [offset, length]. */
async function released(
  t: TestFs,
  start: number,
  end: number,
): Promise<[number, number][]> {
  const punched: [number, number][] = [];
  await iomapWriteDelallocRelease(
    t.inode,
    start,
    end,
    IOMAP_WRITE,
    new Iomap(),
    (_inode, offset, length) => punched.push([offset, length]),
  );
  return punched;
}

test("iomap corner case 53: dirty cache keeps its reservation, clean does not", async () => {
  const t = new TestFs({ size: 40960 });
  await t.write(16384, bytes(4096, 1));
  await t.flush();
  await t.write(8192, bytes(4096, 1));
  await t.read(24576, 4096);
  t.inode.size = 40960;
  assertEquals(await released(t, 0, 40960), [[0, 8192], [12288, 28672]]);
});

test("iomap corner case 54: beyond the end even dirty cache loses it", async () => {
  const t = new TestFs();
  await t.write(0, bytes(16384, 1));
  t.inode.size = 8192;
  assertEquals(await released(t, 0, 16384), [[8192, 8192]]);
  t.inode.size = 16384;
});

test("iomap corner case 55: each clean block of a dirty folio goes", async () => {
  const t = new TestFs({ blkbits: 10 });
  await t.write(0, bytes(8192, 1));
  await t.flush();
  await t.write(1024, bytes(1024, 2));
  assertEquals(await released(t, 0, 8192), [
    [0, 1024],
    [2048, 1024],
    [3072, 1024],
    [4096, 4096],
  ]);
});

test("iomapWriteDelallocRelease() keeps the dirty block that the file ends in, whole", async () => {
  for (const blkbits of [10, 12]) {
    const t = new TestFs({ blkbits });
    await t.write(0, bytes(5000, 1));
    const eof = 2 ** blkbits * Math.ceil(5000 / 2 ** blkbits);
    const rest: [number, number][] = [[eof, 16384 - eof]];
    assertEquals(await released(t, 4096, 16384), rest);
  }
});

/** What a file system does in its `iomapEnd`: gives back what a write of `written` of
 * [pos, pos + length) left. */
async function afterWrite(
  pos: number,
  length: number,
  written: number,
): Promise<[number, number][]> {
  const t = new TestFs();
  const bs = 4096;
  const start = iomapLastWrittenBlock(t.inode, pos, written);
  const end = Math.ceil((pos + length) / bs) * bs;
  return start < end ? await released(t, start, end) : [];
}

test("iomap corner case 56: whole blocks are given back, behind a block written in part", async () => {
  assertEquals(await afterWrite(0, 12288, 5000), [[8192, 4096]]);
  assertEquals(await afterWrite(100, 5000, 0), [[0, 8192]]);
  assertEquals(await afterWrite(100, 9000, 3996), [[4096, 8192]]);
});

test("iomap corner case 57: nothing is given back of what was written up to its end", async () => {
  assertEquals(await afterWrite(0, 12288, 12288), []);
  assertEquals(await afterWrite(0, 12000, 8193), []);
});

test("iomap corner case 58: unsharing ends with the file", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 8192, IOMAP_MAPPED]] });
  const unshare = (pos: number, len: number) =>
    iomapFileUnshare(t.inode, pos, len, t.ops, null);
  assertEquals(await unshare(4096, 10), 0);
  assertEquals(await unshare(-1, 10), 0);
  assertEquals(t.takeCalls(), []);
  assertEquals(await unshare(0, 100000), 0);
  assertEquals(t.takeCalls(), ["begin 0+4096", "end 0+4096 written 4096"]);
});

test("iomap corner case 59: unsharing skips what is SHARED without a source", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_MAPPED]] });
  t.tweak = (iomap) => {
    iomap.flags |= IOMAP_F_SHARED;
  };
  assertEquals(await iomapFileUnshare(t.inode, 0, 4096, t.ops, null), 0);
  assertEquals(t.takeCalls(), ["begin 0+4096", "end 0+4096 written 4096"]);
  assert(t.folio(0) === null);
});

test("iomap corner case 60: unsharing reads shared blocks and leaves them dirty", async () => {
  const t = new TestFs({ size: 8192, rows: [[0, 8192, IOMAP_MAPPED]] });
  t.dev.data.set(pattern(0, 8192), 65536);
  t.tweak = (iomap, srcmap) => {
    iomap.flags |= IOMAP_F_SHARED;
    t.fill(srcmap, {
      offset: 0,
      length: 8192,
      type: IOMAP_MAPPED,
      addr: 65536,
    });
  };
  assertEquals(await iomapFileUnshare(t.inode, 0, 8192, t.ops, null), 0);
  assertEquals(t.dev.take(), ["R 65536+4096", "R 69632+4096"]);
  assert(t.folio(0)!.dirty && t.folio(1)!.dirty);
  t.tweak = () => {};
  assertEquals(await t.flush(), 0);
  assertEquals(t.dev.take(), ["W 1048576+8192"]);
  const written = t.dev.data.slice(1048576, 1048576 + 8192);
  assertEquals(written, pattern(0, 8192));
});

test("iomapFileUnshare() reads every block of the range, however it begins and ends", async () => {
  const t = new TestFs({
    blkbits: 10,
    size: 8192,
    rows: [[0, 8192, IOMAP_MAPPED]],
  });
  t.dev.data.set(pattern(0, 8192), 65536);
  const flags: number[] = [];
  t.beginError = (_pos, f) => {
    flags.push(f);
    return 0;
  };
  t.tweak = (iomap, srcmap) => {
    iomap.flags |= IOMAP_F_SHARED;
    t.fill(srcmap, {
      offset: 0,
      length: 8192,
      type: IOMAP_MAPPED,
      addr: 65536,
    });
  };
  assertEquals(await iomapFileUnshare(t.inode, 1500, 1000, t.ops, null), 0);
  assertEquals(flags, [IOMAP_WRITE | IOMAP_UNSHARE]);
  assertEquals(t.dev.take(), ["R 66560+2048"]);
  t.tweak = () => {};
  assertEquals(await t.flush(), 0);
  assertEquals(t.dev.take(), ["W 1049600+2048"]);
});

test(
  "iomapFileUnshare() of a block beyond the end is -EIO",
  async () => {
    const t = new TestFs({ size: 8192, rows: [[0, 8192, IOMAP_MAPPED]] });
    t.tweak = (iomap, srcmap) => {
      iomap.flags |= IOMAP_F_SHARED;
      t.fill(srcmap, {
        offset: 0,
        length: 8192,
        type: IOMAP_MAPPED,
        addr: 65536,
        flags: IOMAP_F_NEW,
      });
    };
    assertEquals(await iomapFileUnshare(t.inode, 0, 10, t.ops, null), -EIO);
    assertEquals(t.folio(0)!.locked, false);
  },
  "unsharing what holds no data",
);

test("iomap corner case 61: zeroing clean holes and unwritten extents does nothing", async () => {
  for (const rows of [[], [[0, 65536, IOMAP_UNWRITTEN]]] as Row[][]) {
    const t = new TestFs({ size: 65536, rows });
    assertEquals(await t.zero(100, 50000), { ret: 0, didZero: false });
    assertEquals(t.takeCalls(), [
      "begin 100+50000",
      "end 100+50000 written 50000",
    ]);
    assertEquals(t.dev.take(), []);
    assertEquals(t.inode.mapping.nrPages, 0);
  }
});

test("iomap corner case 62: zeroing, dirty cache over UNWRITTEN is flushed once", async () => {
  const t = new TestFs({ size: 65536, rows: [[4096, 61440, IOMAP_UNWRITTEN]] });
  await t.write(8192, bytes(4096, 7));
  t.takeCalls();
  assertEquals(await t.zero(4096, 61440), { ret: 0, didZero: true });
  assertEquals(t.takeCalls(), [
    "begin 4096+61440",
    "end 4096+61440 written 0",
    "begin 4096+61440",
    "end 4096+4096 written 4096",
    "begin 8192+57344",
    "end 8192+4096 written 4096",
    "begin 12288+53248",
    "end 12288+53248 written 53248",
  ]);
  assertEquals(t.dev.take(), ["W 1052672+4096"]);
  assert(t.folio(2)!.dirty);
  assertEquals(await t.read(8192, 4096), bytes(4096));
});

test("iomap corner case 63: zeroing from within a dirty block does not flush it", async () => {
  const t = new TestFs({ size: 65536, rows: [[0, 65536, IOMAP_UNWRITTEN]] });
  await t.write(4096, bytes(4096, 7));
  t.takeCalls();
  assertEquals(await t.zero(5000, 50000), { ret: 0, didZero: true });
  assertEquals(t.takeCalls(), [
    "begin 5000+3192",
    "end 5000+3192 written 3192",
    "begin 8192+46808",
    "end 8192+46808 written 46808",
  ]);
  assertEquals(t.dev.take(), []);
  const got = await t.read(4096, 4096) as Uint8Array;
  assertEquals(got.subarray(0, 904), bytes(904, 7));
  assertEquals(got.subarray(904), bytes(3192));
});

test("iomap corner case 64: zeroing passes ZERO alone and leaves i_size", async () => {
  const t = new TestFs({ size: 10000, rows: [[0, 12288, IOMAP_MAPPED]] });
  const flags: number[] = [];
  t.beginError = (_pos, f) => {
    flags.push(f);
    return 0;
  };
  assertEquals(await t.zero(9000, 3288), { ret: 0, didZero: true });
  assertEquals(flags, [IOMAP_ZERO]);
  assertEquals(t.inode.size, 10000);
});

test("iomap corner case 67: zeroing leaves dirty cache, nothing on the device", async () => {
  const t = new TestFs({ size: 10000, rows: [[0, 12288, IOMAP_MAPPED]] });
  t.fillDisk();
  assertEquals(await t.zero(1000, 8000), { ret: 0, didZero: true });
  assertEquals(t.dev.take(), ["R 1048576+4096", "R 1056768+4096"]);
  for (let i = 0; i < 3; i++) assert(t.folio(i)!.dirty);
  const expected = pattern(0, 10000);
  expected.fill(0, 1000, 9000);
  assertEquals(await t.read(0, 10000), expected);
});

test("iomap corner case 65: truncating a page at a block's border calls nothing", async () => {
  const t = new TestFs({ blkbits: 10, size: 4096 });
  const { inode, ops } = t;
  const did = { value: false };
  assertEquals(await iomapTruncatePage(inode, 1024, did, ops, null, null), 0);
  assertEquals(t.takeCalls(), []);
  assertEquals(did.value, false);
});

test("iomap corner case 66: truncating a page zeroes to the end of the block only", async () => {
  const t = new TestFs({
    blkbits: 10,
    size: 4096,
    rows: [[0, 4096, IOMAP_MAPPED]],
  });
  t.fillDisk();
  const { inode, ops } = t;
  assertEquals(await iomapTruncatePage(inode, 1500, null, ops, null, null), 0);
  assertEquals(t.takeCalls(), ["begin 1500+548", "end 1500+548 written 548"]);
  const expected = pattern(0, 4096);
  expected.fill(0, 1500, 2048);
  assertEquals(await t.read(0, 4096), expected);
});

test("iomapZeroRange() over DELALLOC zeroes in the cache", async () => {
  const t = new TestFs({
    size: 64 * KiB,
    rows: [[0, 65536, IOMAP_DELALLOC]],
  });
  assertEquals(await t.zero(0, 8192), { ret: 0, didZero: true });
  assert(t.folio(0)!.dirty && t.folio(1)!.dirty);
  assertEquals(t.dev.take(), []);
});

test("iomapZeroRange() over a hole with dirty cache writes it back first", async () => {
  // A store through a memory mapping: the folio is dirty before it has a block.
  const t = new TestFs({ size: 16384, rows: [[0, 16384, IOMAP_MAPPED]] });
  await t.write(4096, bytes(4096, 7));
  t.extents = [];
  const { writebackRange } = t.writebackOps;
  t.writebackOps.writebackRange = (wpc, folio, pos, len, end) => {
    t.insert({ offset: pos, length: len, type: IOMAP_MAPPED, addr: 65536 });
    return writebackRange(wpc, folio, pos, len, end);
  };
  t.takeCalls();
  assertEquals(await t.zero(0, 16384), { ret: 0, didZero: true });
  assertEquals(t.takeCalls(), [
    "begin 0+16384",
    "end 0+16384 written 0",
    "begin 0+16384",
    "end 0+4096 written 4096",
    "begin 4096+12288",
    "end 4096+4096 written 4096",
    "begin 8192+8192",
    "end 8192+8192 written 8192",
  ]);
  assertEquals(t.dev.take(), ["W 65536+4096"]);
  assertEquals(await t.read(4096, 4096), bytes(4096));
});

test("iomapZeroRange() returns the error of writing back", async () => {
  const t = new TestFs({ size: 16384, rows: [[0, 16384, IOMAP_UNWRITTEN]] });
  await t.write(4096, bytes(4096, 7));
  t.dev.fault = () => BLK_STS_IOERR;
  assertEquals(await t.zero(0, 16384), { ret: -EIO, didZero: false });
});

test("iomapZeroRange() of a mapping found stale asks again, and says that it zeroed all the same", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_MAPPED]] });
  t.writeOps = {
    iomapValid() {
      t.extents = [];
      return false;
    },
  };
  assertEquals(await t.zero(0, 4096), { ret: 0, didZero: true });
  assertEquals(t.takeCalls(), [
    "begin 0+4096",
    "end 0+4096 written 0",
    "begin 0+4096",
    "end 0+4096 written 4096",
  ]);
  assertEquals(t.inode.mapping.nrDirty, 0);
});

test("iomapZeroRange() of nothing asks for a mapping and leaves the cache alone", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_MAPPED]] });
  assertEquals((await t.zero(100, 0)).ret, 0);
  assertEquals(t.takeCalls(), ["begin 100+0", "end 100+0 written 0"]);
  assert(t.folio(0) === null);
});

test(
  "iomapZeroRange() beyond the folio of the end warns",
  async () => {
    const t = new TestFs({ size: 100, rows: [[0, 8192, IOMAP_MAPPED]] });
    assertEquals(await t.zero(4096, 100), { ret: 0, didZero: true });
    assertEquals(t.inode.size, 100);
  },
  "zeroing a folio beyond the end",
);
