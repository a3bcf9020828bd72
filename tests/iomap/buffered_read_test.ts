/** Corner cases 19 to 29: reading through the page cache. */
import { assert, assertEquals } from "@std/assert";
import { BLK_STS_IOERR } from "../../block/blk-types.ts";
import { Kiocb } from "../../fs/kiocb.ts";
import { iomapIsPartiallyUptodate } from "../../iomap/buffered-io.ts";
import {
  IOMAP_DELALLOC,
  IOMAP_F_NEW,
  IOMAP_INLINE,
  IOMAP_MAPPED,
  IOMAP_UNWRITTEN,
} from "../../iomap/iomap.ts";
import { EIO } from "../../lib/errno.ts";
import { IovIter } from "../../lib/iov-iter.ts";
import { filemapRead } from "../../mm/filemap.ts";
import { bytes, KiB, pattern, test, TestFs } from "./testfs.ts";

for (
  const [name, type, flags] of [
    ["a hole", -1, 0],
    ["UNWRITTEN", IOMAP_UNWRITTEN, 0],
    ["DELALLOC", IOMAP_DELALLOC, 0],
    ["F_NEW", IOMAP_MAPPED, IOMAP_F_NEW],
  ] as const
) {
  test(`buffered read 19: ${name} reads as zero without I/O`, async () => {
    const t = new TestFs({
      size: 8192,
      rows: type < 0 ? [] : [[0, 8192, type]],
    });
    t.fillDisk();
    t.tweak = (iomap) => {
      iomap.flags |= flags;
    };
    assertEquals(await t.read(0, 8192), bytes(8192));
    assertEquals(t.dev.take(), []);
    assert(!t.folio(0)!.locked && !t.folio(1)!.locked);
  });
}

test("buffered read 20 and 21: the block of the end is read whole, those beyond are zeroed", async () => {
  const t = new TestFs({
    blkbits: 10,
    size: 1500,
    rows: [[0, 4096, IOMAP_MAPPED]],
  });
  t.fillDisk();
  assertEquals(await t.read(0, 4096), pattern(0, 1500));
  assertEquals(t.dev.take(), ["R 1048576+2048"]);
  const { data, offset } = t.folio(0)!;
  const memory = data.slice(offset, offset + 4096);
  assertEquals(memory.subarray(0, 2048), pattern(0, 2048));
  assertEquals(memory.subarray(2048), bytes(2048));
});

test("buffered read of a file whose size is a block's border reads up to it", async () => {
  const t = new TestFs({
    blkbits: 10,
    size: 2048,
    rows: [[0, 4096, IOMAP_MAPPED]],
  });
  t.fillDisk();
  assertEquals(await t.read(0, 4096), pattern(0, 2048));
  assertEquals(t.dev.take(), ["R 1048576+2048"]);
});

test("buffered read 22: an error of begin is -EIO for the reader", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_MAPPED]] });
  t.beginError = () => -5 * 7;
  assertEquals(await t.read(0, 4096), -EIO);
  const folio = t.folio(0);
  assert(folio === null || (!folio.locked && !folio.uptodate));
});

test("buffered read 23: after readahead failed the read tries again", async () => {
  const t = new TestFs({ size: 16384, rows: [[0, 16384, IOMAP_MAPPED]] });
  t.fillDisk();
  let failures = 1;
  t.beginError = () => failures-- > 0 ? -EIO : 0;
  assertEquals(await t.read(0, 4096), pattern(0, 4096));
});

test("buffered read 24: blocks that are uptodate are not read again", async () => {
  const t = new TestFs({
    blkbits: 10,
    size: 4096,
    rows: [[0, 4096, IOMAP_MAPPED]],
  });
  t.fillDisk();
  assertEquals(await t.write(1024, bytes(1024, 9)), 1024);
  assertEquals(t.dev.take(), []);
  const expected = pattern(0, 4096);
  expected.fill(9, 1024, 2048);
  assertEquals(await t.read(0, 4096), expected);
  assertEquals(t.dev.take(), ["R 1048576+1024", "R 1050624+2048"]);
});

test("buffered read 25: mappings that touch on the device share a bio", async () => {
  const t = new TestFs({
    size: 16384,
    rows: [
      [0, 4096, IOMAP_MAPPED, 40960],
      [4096, 4096, IOMAP_MAPPED, 45056],
      [8192, 4096, IOMAP_MAPPED, 81920],
      [12288, 4096, IOMAP_UNWRITTEN, 86016],
    ],
  });
  t.fillDisk();
  const expected = pattern(0, 16384);
  expected.fill(0, 12288);
  assertEquals(await t.read(0, 16384), expected);
  assertEquals(t.dev.take(), ["R 40960+8192", "R 81920+4096"]);
});

test("buffered read 26: blocks that another bio read stay usable after one failed", async () => {
  const t = new TestFs({
    blkbits: 10,
    size: 4096,
    rows: [[0, 2048, IOMAP_MAPPED, 40960], [2048, 2048, IOMAP_MAPPED, 81920]],
  });
  t.fillDisk();
  t.dev.fault = (bio) => bio.sector * 512 === 81920 ? BLK_STS_IOERR : 0;
  assertEquals(await t.read(0, 4096), -EIO);
  const folio = t.folio(0)!;
  assertEquals(folio.uptodate, false);
  assertEquals(folio.locked, false);
  assert(iomapIsPartiallyUptodate(folio, 0, 2048));
  assertEquals(iomapIsPartiallyUptodate(folio, 2047, 2), false);
  t.dev.take();
  assertEquals(await t.read(100, 1000), pattern(100, 1000));
  assertEquals(t.dev.take(), []);
});

test("iomapIsPartiallyUptodate() 27: is false without block state", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_MAPPED]] });
  await t.read(0, 4096);
  const folio = t.folio(0)!;
  assert(folio.uptodate);
  assertEquals(iomapIsPartiallyUptodate(folio, 0, 4096), false);
});

function inlineFs(size: number, data: Uint8Array): TestFs {
  const t = new TestFs({ size, rows: [[0, data.length, IOMAP_INLINE]] });
  t.tweak = (iomap) => {
    if (iomap.type === IOMAP_INLINE) iomap.inlineData = data;
  };
  return t;
}

test("buffered read 28: INLINE shorter than the file is -EIO", async () => {
  const t = inlineFs(200, pattern(0, 100));
  assertEquals(await t.read(0, 200), -EIO);
}, "INLINE ends before the file");

test("buffered read 29: INLINE is followed by zeroes", async () => {
  const t = inlineFs(60, pattern(0, 100));
  assertEquals(await t.read(0, 4096), pattern(0, 60));
  const { data, offset, uptodate } = t.folio(0)!;
  assert(uptodate);
  const tail = data.slice(offset + 60, offset + 4096);
  assertEquals(tail, bytes(4036));
  assertEquals(t.dev.take(), []);
});

test("buffered read through a synchronous call runs the clock in place", () => {
  const t = new TestFs({ size: 8192, rows: [[0, 8192, IOMAP_MAPPED]] });
  t.fillDisk();
  const buffer = bytes(8192);
  t.clock.enterSync();
  const n = filemapRead(new Kiocb(t.file), new IovIter(buffer));
  t.clock.leaveSync();
  assertEquals(n, 8192);
  assertEquals(buffer, pattern(0, 8192));
});

test("buffered read of a large file finds every byte", async () => {
  const size = 600 * KiB + 123;
  const t = new TestFs({
    size,
    maxOrder: 9,
    rows: [
      [0, 100 * KiB, IOMAP_MAPPED],
      [104 * KiB, 300 * KiB, IOMAP_MAPPED],
      [404 * KiB, 200 * KiB, IOMAP_MAPPED, 16 * KiB],
    ],
  });
  t.fillDisk();
  const expected = pattern(0, size);
  expected.fill(0, 100 * KiB, 104 * KiB);
  for (let pos = 0; pos < size; pos += 10_000) {
    const got = await t.read(pos, 10_000) as Uint8Array;
    assertEquals(got.length, Math.min(10_000, size - pos));
    assertEquals(got, expected.subarray(pos, pos + 10_000));
  }
});
