/** Corner cases 72 to 96: callbacks, writeback and ioends. */
import { assert, assertEquals } from "@std/assert";
import { Bio } from "../../block/bio.ts";
import { BLK_STS_IOERR, BLK_STS_NOSPC } from "../../block/blk-types.ts";
import {
  iomapInvalidateFolio,
  iomapReleaseFolio,
} from "../../iomap/buffered-io.ts";
import {
  iomapFinishIoends,
  iomapInitIoend,
  type IomapIoend,
  iomapIoendTryMerge,
  iomapSortIoends,
} from "../../iomap/ioend.ts";
import {
  IOMAP_F_ANON_WRITE,
  IOMAP_F_BOUNDARY,
  IOMAP_INLINE,
  IOMAP_IOEND_BOUNDARY,
  IOMAP_IOEND_SHARED,
  IOMAP_IOEND_UNWRITTEN,
  IOMAP_MAPPED,
  IOMAP_UNWRITTEN,
  IomapWritepageCtx,
} from "../../iomap/iomap.ts";
import { iomapIoendWritebackSubmit } from "../../iomap/ioend.ts";
import { EIO, ENOSPC } from "../../lib/errno.ts";
import { fileWriteAndWaitRange } from "../../mm/filemap.ts";
import { bytes, MAX, pattern, type Row, test, TestFs } from "./testfs.ts";

function stored(t: TestFs, addr: number, len: number): Uint8Array {
  return t.dev.data.slice(addr, addr + len);
}

test("iomapReleaseFolio() 72 and iomapInvalidateFolio() 73 keep what is still needed", async () => {
  const t = new TestFs({ blkbits: 10 });
  await t.write(0, bytes(1000, 1));
  const folio = t.folio(0)!;
  assertEquals(iomapReleaseFolio(folio), false);
  const state = folio.private;
  assert(state !== null);
  iomapInvalidateFolio(folio, 0, 2048);
  assert(folio.private === state && folio.dirty);
});

test("writeback writes what was written", async () => {
  const t = new TestFs();
  await t.write(0, pattern(0, 10000));
  assertEquals(await t.flush(), 0);
  assertEquals(t.dev.take(), ["W 1048576+12288"]);
  assertEquals(stored(t, 1048576, 10000), pattern(0, 10000));
  assertEquals(t.ioends, ["0+10000 0"]);
  assertEquals(t.folio(0)!.dirty || t.folio(0)!.writeback, false);
});

test("writeback 74: memory beyond the end is zeroed", async () => {
  const t = new TestFs();
  await t.write(0, pattern(0, 1000));
  const { data, offset } = t.folio(0)!;
  data.fill(9, offset + 1000, offset + 4096);
  await t.flush();
  assertEquals(stored(t, 1048576 + 1000, 3096), bytes(3096));
});

test("writeback 75, worked example 11: a folio beyond the end is skipped", async () => {
  const t = new TestFs();
  await t.write(0, bytes(8192, 1));
  t.inode.size = 4096;
  assertEquals(await t.flush(), 0);
  assertEquals(t.dev.take(), ["W 1048576+4096"]);
  assertEquals(t.folio(1)!.dirty, false);
});

test("writeback 76, 78 and 87, worked example 10: only dirty blocks, ioends end with the file", async () => {
  const t = new TestFs({
    blkbits: 10,
    size: 3000,
    rows: [[0, 4096, IOMAP_MAPPED]],
  });
  t.fillDisk();
  await t.write(0, bytes(1024, 7));
  await t.write(2048, bytes(952, 7));
  t.dev.take();
  assertEquals(await t.flush(), 0);
  assertEquals(t.dev.take(), ["W 1048576+1024", "W 1050624+1024"]);
  assertEquals(t.ioends, ["0+1024 0", "2048+952 0"]);
  assertEquals(stored(t, 1048576 + 1024, 1024), pattern(1024, 1024));
  // All dirty bits are clear: another dirty block goes alone.
  await t.write(1024, bytes(1024, 8));
  t.dev.take();
  await t.flush();
  assertEquals(t.dev.take(), ["W 1049600+1024"]);
});

test("writeback 77: dirty blocks over a hole are not written", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_MAPPED]] });
  await t.write(0, bytes(4096, 1));
  t.extents = [];
  assertEquals(await t.flush(), 0);
  assertEquals(t.dev.take(), []);
  const folio = t.folio(0)!;
  assertEquals(folio.dirty || folio.writeback, false);
});

for (const handled of [0, 4097]) {
  test(
    `writeback 79: writebackRange that answers ${handled} is -EIO`,
    async () => {
      const t = new TestFs();
      await t.write(0, bytes(4096, 1));
      t.writebackOps.writebackRange = () => handled;
      assertEquals(await t.flush(), -EIO);
      assertEquals(t.folio(0)!.writeback, false);
    },
    "took nothing, or too much",
  );
}

test("writeback 80 and 81: a sync one goes on after an error; the pending ioend fails, too", async () => {
  const t = new TestFs();
  await t.write(0, bytes(16384, 1));
  const { writebackRange } = t.writebackOps;
  const seen: number[] = [];
  t.writebackOps.writebackRange = (wpc, folio, pos, len, end) => {
    seen.push(pos);
    if (pos === 4096) return Promise.resolve(-ENOSPC);
    return writebackRange(wpc, folio, pos, len, end);
  };
  assertEquals(await t.flush(), -ENOSPC);
  assertEquals(seen, [0, 4096, 8192, 12288]);
  // The gap ended the first ioend; the second was pending and failed.
  assertEquals(t.dev.take(), ["W 1048576+4096"]);
  assertEquals(t.ioends, ["8192+8192 0", "0+4096 0"]);
  const { mapping } = t.inode;
  assertEquals(await fileWriteAndWaitRange(mapping, t.file, 0, MAX), -ENOSPC);
});

test("writeback whose submission fails completes each ioend once", async () => {
  const t = new TestFs({
    size: 8192,
    rows: [[0, 4096, IOMAP_MAPPED, 40960], [4096, 4096, IOMAP_MAPPED, 81920]],
  });
  await t.write(0, bytes(8192, 1));
  const { writebackSubmit } = t.writebackOps;
  let failures = 1;
  t.writebackOps.writebackSubmit = (wpc, error) =>
    writebackSubmit(wpc, failures-- > 0 ? -ENOSPC : error);
  assertEquals(await t.flush(), -ENOSPC);
  assertEquals(t.ioends, ["0+4096 0"]);
  assertEquals(t.folio(0)!.writeback || t.folio(1)!.writeback, false);
});

for (
  const [status, errno] of [
    [BLK_STS_IOERR, -EIO],
    [BLK_STS_NOSPC, -ENOSPC],
  ] as const
) {
  test(`writeback 82 and 83: a failed write is reported once as ${errno}`, async () => {
    const t = new TestFs();
    await t.write(0, pattern(0, 4096));
    t.dev.fault = (bio) => (bio.opf & 1) !== 0 ? status : 0;
    const sync = () => fileWriteAndWaitRange(t.inode.mapping, t.file, 0, MAX);
    assertEquals(await sync(), errno);
    assertEquals(await sync(), 0);
    const folio = t.folio(0)!;
    assert(folio.uptodate && !folio.dirty && !folio.writeback);
    assertEquals(await t.read(0, 4096), pattern(0, 4096));
  });
}

test("writeback 84: an ioend ends at a gap in the file and on the device", async () => {
  const t = new TestFs({
    size: 20480,
    rows: [
      [0, 8192, IOMAP_MAPPED, 40960],
      [8192, 4096, IOMAP_MAPPED, 81920],
      [12288, 8192, IOMAP_MAPPED, 86016],
    ],
  });
  await t.write(0, bytes(12288, 1));
  await t.write(16384, bytes(4096, 1));
  await t.flush();
  assertEquals(t.dev.take(), ["W 40960+8192", "W 81920+4096", "W 90112+4096"]);
});

for (
  const [name, rows, writes] of [
    [
      "85: a boundary keeps what is before it apart",
      [[0, 4096, IOMAP_MAPPED, 40960], [4096, 8192, IOMAP_MAPPED, 45056]],
      ["W 40960+4096", "W 45056+8192"],
    ],
    [
      "86: a boundary counts only at the mapping's start",
      [[0, 12288, IOMAP_MAPPED, 40960]],
      ["W 40960+12288"],
    ],
  ] as [string, Row[], string[]][]
) {
  test(`writeback ${name}`, async () => {
    const t = new TestFs({ size: 12288, rows });
    await t.write(0, bytes(12288, 1));
    t.extents.at(-1)!.flags = IOMAP_F_BOUNDARY;
    await t.flush();
    assertEquals(t.dev.take(), writes);
  });
}

test("writeback 88, worked example 12: an ioend that ends with the file takes no more", async () => {
  const t = new TestFs({ size: 0, rows: [[0, 16384, IOMAP_MAPPED]] });
  await t.write(0, bytes(5000, 1));
  const wpc = new IomapWritepageCtx(t.inode, {
    syncAll: true,
    rangeStart: 0,
    rangeEnd: MAX,
    nrToWrite: MAX,
    taggedWritepages: false,
  }, t.writebackOps);
  t.fill(wpc.iomap, t.lookup(0));
  const folio = t.folio(1)!;
  const { writebackRange } = t.writebackOps;
  assertEquals(await writebackRange(wpc, folio, 4096, 4096, 5000), 4096);
  const first = wpc.wbCtx as IomapIoend;
  assertEquals([first.offset, first.size], [4096, 904]);
  assertEquals(await writebackRange(wpc, folio, 8192, 4096, 12288), 4096);
  assert(wpc.wbCtx !== first);
  assertEquals(t.dev.take(), ["W 1052672+4096"]);
  await t.clock.sleep(10_000);
});

test("writeback 89: UNWRITTEN and MAPPED are kept apart", async () => {
  const t = new TestFs({
    size: 16384,
    rows: [
      [0, 4096, IOMAP_UNWRITTEN, 40960],
      [4096, 4096, IOMAP_UNWRITTEN, 45056],
      [8192, 8192, IOMAP_MAPPED, 49152],
    ],
  });
  await t.write(0, bytes(16384, 1));
  await t.flush();
  assertEquals(t.dev.take(), ["W 40960+8192", "W 49152+8192"]);
  assertEquals(t.ioends, [`0+8192 ${IOMAP_IOEND_UNWRITTEN}`, "8192+8192 0"]);
});

/** [offset, size, sector, flags, status] */
type Spec = [number, number, number, number?, number?];

function ioends(t: TestFs, specs: Spec[]): IomapIoend[] {
  return specs.map(([offset, size, sector, flags = 0, status = 0]) => {
    const bio = new Bio(t.dev, 1);
    bio.sector = sector;
    bio.size = size;
    bio.status = status;
    return iomapInitIoend(t.inode, bio, offset, flags);
  });
}

for (
  const [name, specs, size] of [
    ["what follows", [[0, 8192, 80], [8192, 4096, 96]], 12288],
    ["out of order", [[8192, 4096, 96], [0, 8192, 80]], 12288],
    ["not another sector", [[0, 8192, 80], [8192, 4096, 104]], 8192],
    ["not another offset", [[0, 8192, 80], [12288, 4096, 96]], 8192],
    ["not another status", [[0, 8192, 80], [8192, 4096, 96, 0, 10]], 8192],
    [
      "not other flags",
      [[0, 8192, 80], [8192, 4096, 96, IOMAP_IOEND_SHARED]],
      8192,
    ],
    [
      "not a boundary",
      [[0, 8192, 80], [8192, 4096, 96, IOMAP_IOEND_BOUNDARY]],
      8192,
    ],
    [
      "up to the first that does not fit",
      [[0, 512, 0], [512, 512, 1], [1536, 512, 3], [1024, 512, 9]],
      1024,
    ],
  ] as [string, Spec[], number][]
) {
  test(`iomapIoendTryMerge() 90: takes ${name}`, () => {
    const list = ioends(new TestFs(), specs);
    iomapSortIoends(list);
    const head = list.shift()!;
    const before = list.length;
    iomapIoendTryMerge(head, list);
    assertEquals(head.size, size);
    assertEquals(list.length + (head.merged?.length ?? 0), before);
  });
}

for (const type of [IOMAP_INLINE, 1]) {
  test(`iomapAddToIoend() 91: a mapping of type ${type} is -EIO`, async () => {
    const t = new TestFs();
    await t.write(0, bytes(4096, 1));
    t.extents = [{ offset: 0, length: 4096, type: IOMAP_MAPPED, addr: 40960 }];
    const { fill } = t;
    t.fill = (iomap, extent) => fill.call(t, iomap, { ...extent, type });
    assertEquals(await t.flush(), -EIO);
    assertEquals(t.folio(0)!.writeback, false);
  }, "a mapping without address");
}

test(
  "iomapIoendWritebackSubmit() 92: a write without address is -EIO",
  async () => {
    const t = new TestFs();
    await t.write(0, bytes(8192, 1));
    const { fill } = t;
    t.fill = (iomap, extent) =>
      fill.call(t, iomap, { ...extent, flags: IOMAP_F_ANON_WRITE });
    t.writebackOps.writebackSubmit = iomapIoendWritebackSubmit;
    assertEquals(await t.flush(), -EIO);
    assertEquals(t.dev.take(), []);
    assertEquals(t.folio(1)!.writeback, false);
  },
  "needs its own submit",
);

test("iomapFinishIoends() 94 and 95: a whole ends after its parts, with the first error", () => {
  const t = new TestFs();
  const [whole, part] = ioends(t, [[0, 4096, 0], [0, 4096, 0]]);
  part!.parent = whole!;
  whole!.remaining++;
  iomapFinishIoends(part!, -ENOSPC);
  assertEquals([whole!.remaining, whole!.error], [1, -ENOSPC]);
  iomapFinishIoends(whole!, -EIO);
  assertEquals([whole!.remaining, whole!.error], [0, -ENOSPC]);
});

test("writeback 96: a folio stays under writeback until its last block is written", async () => {
  const t = new TestFs({
    blkbits: 10,
    size: 4096,
    rows: [[0, 1024, IOMAP_MAPPED, 40960], [1024, 3072, IOMAP_MAPPED, 81920]],
  });
  await t.write(0, bytes(4096, 1));
  // The first bio is done before the second is made.
  t.dev.latency = 0;
  const states: boolean[] = [];
  const { writebackRange } = t.writebackOps;
  t.writebackOps.writebackRange = (wpc, folio, pos, len, end) => {
    const ret = writebackRange(wpc, folio, pos, len, end);
    states.push(folio.writeback);
    return ret;
  };
  assertEquals(await t.flush(), 0);
  assertEquals(states, [true, true]);
  assertEquals(t.folio(0)!.writeback, false);
});

test("writeback through the default completion ends every folio", async () => {
  const t = new TestFs({ maxOrder: 4 });
  t.writebackOps.writebackSubmit = iomapIoendWritebackSubmit;
  await t.write(0, pattern(0, 300_000));
  assertEquals(await t.flush(), 0);
  assertEquals(stored(t, 1048576, 300_000), pattern(0, 300_000));
  await t.drop();
  assertEquals(await t.read(0, 300_000), pattern(0, 300_000));
});
