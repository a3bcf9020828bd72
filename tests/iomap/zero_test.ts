/** Corner cases 53 to 67: giving reservations back, unsharing, zeroing. */
import { assert, assertEquals } from "@std/assert";
import {
  iomapFileUnshare,
  iomapTruncatePage,
  iomapWriteDelallocRelease,
} from "../../iomap/buffered-io.ts";
import {
  Iomap,
  IOMAP_DELALLOC,
  IOMAP_F_SHARED,
  IOMAP_MAPPED,
  IOMAP_UNWRITTEN,
  IOMAP_WRITE,
  iomapLastWrittenBlock,
} from "../../iomap/iomap.ts";
import { bytes, KiB, type Options, pattern, test, TestFs } from "./testfs.ts";

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

test("iomapWriteDelallocRelease() 53: dirty cache keeps its reservation, clean does not", async () => {
  const t = new TestFs({ size: 40960 });
  await t.write(16384, bytes(4096, 1));
  await t.flush();
  await t.write(8192, bytes(4096, 1));
  await t.read(24576, 4096);
  t.inode.size = 40960;
  assertEquals(await released(t, 0, 40960), [[0, 8192], [12288, 28672]]);
});

test("iomapWriteDelallocRelease() 54: beyond the end even dirty cache loses it", async () => {
  const t = new TestFs();
  await t.write(0, bytes(16384, 1));
  t.inode.size = 8192;
  assertEquals(await released(t, 0, 16384), [[8192, 8192]]);
  t.inode.size = 16384;
});

test("iomapWriteDelallocRelease() 55: each clean block of a dirty folio goes", async () => {
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

test("iomapLastWrittenBlock() 56 and 57: whole blocks, none if all was written", () => {
  const { inode } = new TestFs();
  assertEquals(iomapLastWrittenBlock(inode, 0, 5000), 8192);
  assertEquals(iomapLastWrittenBlock(inode, 0, 12288), 12288);
});

test("iomapFileUnshare() 58 and 59: nothing beyond the end, nor without a source", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 8192, IOMAP_MAPPED]] });
  t.tweak = (iomap) => {
    iomap.flags |= IOMAP_F_SHARED;
  };
  assertEquals(await iomapFileUnshare(t.inode, 4096, 10, t.ops, null), 0);
  assertEquals(t.takeCalls(), []);
  assertEquals(await iomapFileUnshare(t.inode, 0, 100000, t.ops, null), 0);
  assertEquals(t.takeCalls(), ["begin 0+4096", "end 0+4096 written 4096"]);
  assert(t.folio(0) === null);
});

test("iomapFileUnshare() 60: reads shared blocks and leaves them dirty", async () => {
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

for (const rows of [[], [[0, 65536, IOMAP_UNWRITTEN]]] as Options["rows"][]) {
  test(`iomapZeroRange() 61: a clean ${rows!.length ? "unwritten extent" : "hole"} stays as it is`, async () => {
    const t = new TestFs({ size: 65536, rows: rows! });
    assertEquals(await t.zero(100, 50000), { ret: 0, didZero: false });
    assertEquals(t.takeCalls(), [
      "begin 100+50000",
      "end 100+50000 written 50000",
    ]);
    assertEquals(t.dev.take(), []);
    assertEquals(t.inode.mapping.nrPages, 0);
  });
}

test("iomapZeroRange() 62, worked example 17: dirty cache over UNWRITTEN is flushed once", async () => {
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

test("iomapZeroRange() 63, worked example 18: an unaligned start over a dirty block", async () => {
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

test("iomapZeroRange() 64 and 67: MAPPED is zeroed in the cache only, i_size stays", async () => {
  const t = new TestFs({ size: 10000, rows: [[0, 12288, IOMAP_MAPPED]] });
  t.fillDisk();
  const flags: number[] = [];
  t.beginError = (_pos, f) => {
    flags.push(f);
    return 0;
  };
  assertEquals(await t.zero(1000, 8000), { ret: 0, didZero: true });
  assertEquals(flags, [2]);
  assertEquals(t.inode.size, 10000);
  assertEquals(t.dev.take(), ["R 1048576+4096", "R 1056768+4096"]);
  const expected = pattern(0, 10000);
  expected.fill(0, 1000, 9000);
  assertEquals(await t.read(0, 10000), expected);
});

test("iomapTruncatePage() 65 and 66: to the end of the block, nothing at a border", async () => {
  const t = new TestFs({
    blkbits: 10,
    size: 4096,
    rows: [[0, 4096, IOMAP_MAPPED]],
  });
  t.fillDisk();
  const { inode, ops } = t;
  assertEquals(await iomapTruncatePage(inode, 1024, null, ops, null, null), 0);
  assertEquals(t.takeCalls(), []);
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
