/** Corner cases 19 to 29: reading through the page cache; and reading in other ways
 * than by bios. */
import { assert, assertEquals } from "@std/assert";
import { BLK_STS_IOERR } from "../../block/blk-types.ts";
import { Kiocb } from "../../fs/kiocb.ts";
import {
  iomapFinishFolioRead,
  iomapIsPartiallyUptodate,
  iomapReadaheadWith,
  iomapReadFolio,
  iomapReadFolioWith,
} from "../../iomap/buffered-io.ts";
import {
  IOMAP_DELALLOC,
  IOMAP_F_NEW,
  IOMAP_HOLE,
  IOMAP_MAPPED,
  IOMAP_UNWRITTEN,
  type IomapIter,
  IomapReadFolioCtx,
  type IomapReadOps,
} from "../../iomap/iomap.ts";
import { EIO, ENOSPC } from "../../lib/errno.ts";
import { IovIter } from "../../lib/iov-iter.ts";
import {
  FGP_CREAT,
  FGP_LOCK,
  filemapGetFolio,
  filemapRead,
} from "../../mm/filemap.ts";
import { type Folio, folioPut } from "../../mm/folio.ts";
import { bytes, KiB, pattern, type Row, test, TestFs } from "./testfs.ts";

test("iomap corner case 19: what holds no data reads as zero without I/O", async () => {
  for (
    const [type, flags] of [
      [IOMAP_HOLE, 0],
      [IOMAP_UNWRITTEN, 0],
      [IOMAP_DELALLOC, 0],
      [IOMAP_MAPPED, IOMAP_F_NEW],
    ] as const
  ) {
    const t = new TestFs({
      size: 8192,
      rows: type === IOMAP_HOLE ? [] : [[0, 8192, type]],
    });
    t.fillDisk();
    t.tweak = (iomap) => {
      iomap.flags |= flags;
    };
    assertEquals(await t.read(0, 8192), bytes(8192));
    assertEquals(t.dev.take(), []);
    assert(!t.folio(0)!.locked && !t.folio(1)!.locked);
  }
});

/** A file of 1500 bytes in one page of four MAPPED blocks, read whole. */
async function readOddFile(): Promise<{ t: TestFs; memory: Uint8Array }> {
  const t = new TestFs({
    blkbits: 10,
    size: 1500,
    rows: [[0, 4096, IOMAP_MAPPED]],
  });
  t.fillDisk();
  assertEquals(await t.read(0, 4096), pattern(0, 1500));
  const { data, offset } = t.folio(0)!;
  return { t, memory: data.slice(offset, offset + 4096) };
}

test("iomap corner case 20: MAPPED blocks beyond the end are zeroed without I/O", async () => {
  const { t, memory } = await readOddFile();
  assertEquals(t.dev.take(), ["R 1048576+2048"]);
  assertEquals(memory.subarray(2048), bytes(2048));
});

test("iomap corner case 21: the tail of the block of the end comes from the device", async () => {
  const { memory } = await readOddFile();
  assertEquals(memory.subarray(1500, 2048), pattern(1500, 548));
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

test("iomap corner case 22: iomapReadFolio() answers 0 whatever begin did, the reader sees -EIO", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_MAPPED]] });
  t.beginError = () => -ENOSPC;
  const folio = await iomapGetFolioLocked(t);
  assertEquals(await iomapReadFolio(folio, t.ops), 0);
  assert(!folio.locked && !folio.uptodate);
  folioPut(folio);
  assertEquals(await t.read(0, 4096), -EIO);
});

async function iomapGetFolioLocked(t: TestFs): Promise<Folio> {
  const fgp = FGP_LOCK | FGP_CREAT;
  return await filemapGetFolio(t.inode.mapping, 0, fgp, 4096) as Folio;
}

test("iomap corner case 23: after a readahead that failed the read tries again", async () => {
  const t = new TestFs({ size: 16384, rows: [[0, 16384, IOMAP_MAPPED]] });
  t.fillDisk();
  let failures = 1;
  t.beginError = () => failures-- > 0 ? -EIO : 0;
  assertEquals(await t.read(0, 4096), pattern(0, 4096));
});

test("iomap corner case 24: blocks that are uptodate are not read again", async () => {
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

test("iomap corner case 25: mappings that touch on the device share a bio, others do not", async () => {
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

test("iomap corner case 26: blocks that another bio read stay usable after one failed", async () => {
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

test("iomap corner case 27: iomapIsPartiallyUptodate() is false without block state", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_MAPPED]] });
  await t.read(0, 4096);
  const folio = t.folio(0)!;
  assert(folio.uptodate);
  assertEquals(iomapIsPartiallyUptodate(folio, 0, 4096), false);
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

/** A reader of its own: keeps what it is asked for, and fills it when told to. */
class OwnReader implements IomapReadOps {
  readonly asked: string[] = [];
  readonly pending: (() => void)[] = [];
  submitted = 0;
  /** Negative errno for the n-th range, from 0. */
  refuse: Record<number, number> = {};
  /** Negative errno with which the n-th range ends. */
  fail: Record<number, number> = {};
  /** Whether a range is filled as soon as it is asked for. */
  atOnce = false;

  readFolioRange(iter: IomapIter, ctx: IomapReadFolioCtx, len: number): number {
    const n = this.asked.length;
    const folio = ctx.curFolio!;
    const { pos } = iter;
    this.asked.push(`${pos}+${len}`);
    if (this.refuse[n]) return this.refuse[n]!;
    ctx.readCtx = this;
    const finish = () => {
      const off = pos - folio.pos;
      const error = this.fail[n] ?? 0;
      if (error === 0) folio.data.set(pattern(pos, len), folio.offset + off);
      iomapFinishFolioRead(folio, off, len, error);
    };
    if (this.atOnce) finish();
    else this.pending.push(finish);
    return 0;
  }

  submitRead(): void {
    this.submitted++;
    for (const finish of this.pending.splice(0).reverse()) finish();
  }
}

/** A file of which the second block of each page is a hole, read by `reader`. */
function ownFs(reader: OwnReader, blkbits = 10): TestFs {
  const bs = 1 << blkbits;
  const rows: Row[] = [[0, bs, IOMAP_MAPPED], [2 * bs, 6 * bs, IOMAP_MAPPED]];
  const t = new TestFs({ blkbits, size: 8 * bs, rows });
  t.inode.mapping.ops.readFolio = (folio) =>
    iomapReadFolioWith(t.ops, new IomapReadFolioCtx(reader, folio, null), null);
  t.inode.mapping.ops.readahead = (rac) =>
    iomapReadaheadWith(t.ops, new IomapReadFolioCtx(reader, null, rac), null);
  return t;
}

for (const atOnce of [true, false]) {
  test(`iomapReadaheadWith() reads through readFolioRange that ends ${atOnce ? "at once" : "later"}`, async () => {
    const reader = new OwnReader();
    reader.atOnce = atOnce;
    const t = ownFs(reader);
    const expected = pattern(0, 8192);
    expected.fill(0, 1024, 2048);
    assertEquals(await t.read(0, 8192), expected);
    assertEquals(reader.asked, ["0+1024", "2048+2048", "4096+4096"]);
    assertEquals(reader.submitted, 1);
    assertEquals(t.dev.take(), []);
    const folio = t.folio(0)!;
    assert(folio.uptodate && !folio.locked);
  });
}

test("iomapReadaheadWith() leaves what readFolioRange refuses to a later read", async () => {
  const reader = new OwnReader();
  reader.atOnce = true;
  reader.refuse = { 1: -ENOSPC };
  const t = ownFs(reader);
  const expected = pattern(0, 4096);
  expected.fill(0, 1024, 2048);
  assertEquals(await t.read(0, 4096), expected);
  // What was read of the page is not read again.
  assertEquals(reader.asked.slice(0, 3), ["0+1024", "2048+2048", "2048+2048"]);
});

test("iomapReadFolioWith() leaves a folio that failed in part without its bad blocks", async () => {
  const reader = new OwnReader();
  reader.fail = { 1: -EIO, 3: -EIO, 4: -EIO, 5: -EIO };
  const t = ownFs(reader);
  const folio = await iomapGetFolioLocked(t);
  assertEquals(await t.inode.mapping.ops.readFolio(folio), 0);
  assert(!folio.locked && !folio.uptodate);
  assert(iomapIsPartiallyUptodate(folio, 0, 2048));
  assertEquals(iomapIsPartiallyUptodate(folio, 2048, 1), false);
  folioPut(folio);
});

test("iomapReadFolioWith() unlocks a folio of one block that the reader refuses", async () => {
  const reader = new OwnReader();
  reader.refuse = { 0: -EIO };
  const t = ownFs(reader, 12);
  const folio = await iomapGetFolioLocked(t);
  assertEquals(await t.inode.mapping.ops.readFolio(folio), 0);
  assert(!folio.locked && !folio.uptodate);
  assertEquals(reader.submitted, 0);
  folioPut(folio);
});

test("iomapReadFolioWith() hands its last argument to begin", async () => {
  const reader = new OwnReader();
  const t = ownFs(reader);
  const token = {};
  const seen: unknown[] = [];
  const read = reader.readFolioRange.bind(reader);
  reader.readFolioRange = (iter, ctx, len) => {
    seen.push(iter.private);
    return read(iter, ctx, len);
  };
  const folio = await iomapGetFolioLocked(t);
  const ctx = new IomapReadFolioCtx(reader, folio, null);
  await iomapReadFolioWith(t.ops, ctx, token);
  assertEquals(seen.every((s) => s === token) && seen.length > 0, true);
  folioPut(folio);
});

test("iomapReadaheadWith() splits a folio at the block of the end only if it holds it", async () => {
  const reader = new OwnReader();
  reader.atOnce = true;
  const t = ownFs(reader);
  t.extents = [{ offset: 0, length: 8192, type: IOMAP_MAPPED, addr: 65536 }];
  t.inode.size = 4096 + 1000;
  assertEquals(await t.read(0, 8192), pattern(0, 5096));
  assertEquals(reader.asked, ["0+4096", "4096+1024"]);
});
