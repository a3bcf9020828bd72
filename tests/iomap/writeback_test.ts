/** Corner cases 72 to 96: callbacks, writeback and ioends. */
import { assert, assertEquals } from "@std/assert";
import { Bio, submitBio } from "../../block/bio.ts";
import {
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_NOSPC,
  blkStatusToErrno,
} from "../../block/blk-types.ts";
import { File } from "../../fs/fs.ts";
import { IOCB_DIRECT, IOCB_WRITE } from "../../fs/kiocb.ts";
import {
  iomapInvalidateFolio,
  iomapReleaseFolio,
} from "../../iomap/buffered-io.ts";
import { iomapDioRw } from "../../iomap/direct-io.ts";
import {
  iomapFinishIoends,
  iomapInitIoend,
  type IomapIoend,
  iomapIoendBioset,
  iomapIoendFromBio,
  iomapIoendTryMerge,
  iomapIoendWritebackSubmit,
  iomapSortIoends,
  iomapSplitIoend,
} from "../../iomap/ioend.ts";
import {
  IOMAP_DELALLOC,
  IOMAP_F_ANON_WRITE,
  IOMAP_F_BOUNDARY,
  IOMAP_F_SHARED,
  IOMAP_INLINE,
  IOMAP_IOEND_BOUNDARY,
  IOMAP_IOEND_SHARED,
  IOMAP_IOEND_UNWRITTEN,
  IOMAP_MAPPED,
  IOMAP_UNWRITTEN,
  IomapWritepageCtx,
} from "../../iomap/iomap.ts";
import { EINVAL, EIO, ENODATA, ENOSPC } from "../../lib/errno.ts";
import { IovIter } from "../../lib/iov-iter.ts";
import { AS_EIO, AS_ENOSPC } from "../../mm/address-space.ts";
import { errseqError } from "../../mm/errseq.ts";
import {
  filemapFdatawriteRange,
  filemapSampleWbErr,
  fileWriteAndWaitRange,
  folioClearDirtyForIo,
  folioStartWriteback,
} from "../../mm/filemap.ts";
import type { Folio } from "../../mm/folio.ts";
import { allocFolio } from "../../mm/vmscan.ts";
import {
  bytes,
  KiB,
  MAX,
  pattern,
  type Row,
  takeLog,
  test,
  TestFs,
} from "./testfs.ts";

function stored(t: TestFs, addr: number, len: number): Uint8Array {
  return t.dev.data.slice(addr, addr + len);
}

test("iomap corner case 72: a dirty folio keeps its block state", async () => {
  const t = new TestFs({ blkbits: 10 });
  await t.write(0, bytes(1000, 1));
  const folio = t.folio(0)!;
  assertEquals(iomapReleaseFolio(folio), false);
  assert(folio.private !== null);
  await t.flush();
  assertEquals(iomapReleaseFolio(folio), true);
  assert(folio.private === null);
}, "block state disagrees");

test(
  "iomap corner case 73: invalidating part of a folio changes nothing",
  async () => {
    const t = new TestFs({ blkbits: 10 });
    await t.write(0, bytes(1000, 1));
    const folio = t.folio(0)!;
    const state = folio.private;
    assert(state !== null);
    iomapInvalidateFolio(folio, 0, 2048);
    assert(folio.private === state && folio.dirty);
    iomapInvalidateFolio(folio, 0, 4096);
    assert(folio.private === null && !folio.dirty);
  },
  "block state disagrees",
);

test("writeback writes what was written", async () => {
  const t = new TestFs();
  await t.write(0, pattern(0, 10000));
  assertEquals(await t.flush(), 0);
  assertEquals(t.dev.take(), ["W 1048576+12288"]);
  assertEquals(stored(t, 1048576, 10000), pattern(0, 10000));
  assertEquals(t.ioends, ["0+10000 0"]);
  assertEquals(t.folio(0)!.dirty || t.folio(0)!.writeback, false);
});

test("iomap corner case 74: memory beyond the end is zeroed at every writeback", async () => {
  const t = new TestFs();
  for (const value of [9, 8]) {
    await t.write(0, pattern(0, 1000));
    const { data, offset } = t.folio(0)!;
    data.fill(value, offset + 1000, offset + 4096);
    await t.flush();
    assertEquals(stored(t, 1048576 + 1000, 3096), bytes(3096));
    assertEquals(data.slice(offset + 1000, offset + 4096), bytes(3096));
  }
});

test("iomap corner case 75: a folio wholly beyond the end is skipped, and clean", async () => {
  for (const size of [4096, 4000]) {
    const t = new TestFs();
    await t.write(0, bytes(8192, 1));
    t.inode.size = size;
    assertEquals(await t.flush(), 0);
    assertEquals(t.dev.take(), ["W 1048576+4096"]);
    assertEquals(t.folio(1)!.dirty || t.folio(1)!.writeback, false);
  }
});

/** Four MAPPED blocks in a page of 3000 bytes, of which the first and the third are
 * dirty. */
async function dirtyBlocks(): Promise<TestFs> {
  const t = new TestFs({
    blkbits: 10,
    size: 3000,
    rows: [[0, 4096, IOMAP_MAPPED]],
  });
  t.fillDisk();
  await t.write(0, bytes(1024, 7));
  await t.write(2048, bytes(952, 7));
  t.dev.take();
  return t;
}

test("iomap corner case 76: only the dirty blocks of a folio are written", async () => {
  const t = await dirtyBlocks();
  assertEquals(await t.flush(), 0);
  assertEquals(t.dev.take(), ["W 1048576+1024", "W 1050624+1024"]);
  assertEquals(stored(t, 1048576 + 1024, 1024), pattern(1024, 1024));
});

test("iomap corner case 77: dirty blocks over a hole are not written, without error", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_MAPPED]] });
  await t.write(0, bytes(4096, 1));
  t.extents = [];
  assertEquals(await t.flush(), 0);
  assertEquals(t.dev.take(), []);
  const folio = t.folio(0)!;
  assertEquals(folio.dirty || folio.writeback, false);
});

test("iomap corner case 78: after success and failure alike no block is dirty", async () => {
  for (const fails of [false, true]) {
    const t = await dirtyBlocks();
    const { writebackRange } = t.writebackOps;
    if (fails) t.writebackOps.writebackRange = () => -ENOSPC;
    assertEquals(await t.flush(), fails ? -ENOSPC : 0);
    t.writebackOps.writebackRange = writebackRange;
    // Another dirty block goes alone.
    await t.write(1024, bytes(1024, 8));
    t.dev.take();
    assertEquals(await t.flush(), 0);
    assertEquals(t.dev.take(), ["W 1049600+1024"]);
  }
});

test("iomap corner case 87: an ioend ends with the file as it was at submission", async () => {
  const t = await dirtyBlocks();
  assertEquals(await t.flush(), 0);
  assertEquals(t.ioends, ["0+1024 0", "2048+952 0"]);
});

test(
  "iomap corner case 79: writebackRange that answers 0 or too much is -EIO",
  async () => {
    for (const handled of [0, 4097, NaN]) {
      const t = new TestFs();
      await t.write(0, bytes(4096, 1));
      t.writebackOps.writebackRange = () => handled;
      assertEquals(await t.flush(), -EIO);
      assertEquals(t.folio(0)!.writeback, false);
    }
  },
  "took nothing, or too much",
);

/** Writes four pages of which the second cannot be mapped; the positions tried. */
async function failSecond(t: TestFs): Promise<number[]> {
  await t.write(0, bytes(16384, 1));
  const { writebackRange } = t.writebackOps;
  const seen: number[] = [];
  t.writebackOps.writebackRange = (wpc, folio, pos, len, end) => {
    seen.push(pos);
    if (pos === 4096) return Promise.resolve(-ENOSPC);
    return writebackRange(wpc, folio, pos, len, end);
  };
  return seen;
}

test("iomap corner case 80: sync writeback goes on after an error, background writeback stops", async () => {
  const t = new TestFs();
  const seen = await failSecond(t);
  assertEquals(await t.flush(), -ENOSPC);
  assertEquals(seen, [0, 4096, 8192, 12288]);
  const u = new TestFs();
  const tried = await failSecond(u);
  const ret = await filemapFdatawriteRange(u.inode.mapping, 0, MAX, false);
  assertEquals(ret, -ENOSPC);
  assertEquals(tried, [0, 4096]);
  assert(u.folio(2)!.dirty && u.folio(3)!.dirty);
});

test("iomap corner case 81: an ioend that is pending at an error fails with it", async () => {
  const t = new TestFs();
  await failSecond(t);
  assertEquals(await t.flush(), -ENOSPC);
  // The gap ended the first ioend; the second was pending.
  assertEquals(t.dev.take(), ["W 1048576+4096"]);
  assertEquals(t.ioends, ["8192+8192 0", "0+4096 0"]);
  assertEquals(t.folio(3)!.writeback, false);
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

test("iomap corner case 82: a failed write leaves clean data, and tells each open file once", async () => {
  const t = new TestFs();
  const other = new File(t.inode, "/test", 3, 0);
  await t.write(0, pattern(0, 4096));
  t.dev.fault = (bio) => (bio.opf & 1) !== 0 ? BLK_STS_MEDIUM : 0;
  const sync = (file: File) =>
    fileWriteAndWaitRange(t.inode.mapping, file, 0, MAX);
  assertEquals(await sync(t.file), -ENODATA);
  assertEquals(await sync(t.file), 0);
  assertEquals(await sync(other), -ENODATA);
  assertEquals(await sync(other), 0);
  // Whoever opens it now was not there.
  const late = new File(t.inode, "/test", 3, 0);
  late.wbErr = filemapSampleWbErr(t.inode.mapping);
  assertEquals(await sync(late), 0);
  const folio = t.folio(0)!;
  assert(folio.uptodate && !folio.dirty && !folio.writeback);
  assertEquals(await t.read(0, 4096), pattern(0, 4096));
});

test("iomap corner case 83: the mapping notes want of space, or else EIO", async () => {
  for (
    const [status, flag] of [
      [BLK_STS_NOSPC, AS_ENOSPC],
      [BLK_STS_IOERR, AS_EIO],
      [BLK_STS_MEDIUM, AS_EIO],
    ] as const
  ) {
    const t = new TestFs();
    await t.write(0, pattern(0, 4096));
    t.dev.fault = () => status;
    const { mapping } = t.inode;
    await filemapFdatawriteRange(mapping, 0, MAX, true);
    await t.clock.sleep(10_000);
    assertEquals(mapping.flags & (AS_EIO | AS_ENOSPC), flag);
  }
});

test("a failed write is a line in the log, ten in five seconds", async () => {
  const t = new TestFs();
  t.dev.fault = () => BLK_STS_IOERR;
  // Other tests may just have used it up.
  await t.clock.sleep(10e9);
  for (let i = 0; i < 12; i++) {
    await t.write(8192 * i, bytes(4096, 1));
    assertEquals(await t.flush(), -EIO);
  }
  const log = takeLog();
  assertEquals(log.length, 10);
  assertEquals(
    log[1],
    `${t.inode.sb.id}: writeback error on inode 5, offset 8192, sector 2056`,
  );
  await t.clock.sleep(5e9);
  await t.write(0, bytes(4096, 1));
  assertEquals(await t.flush(), -EIO);
  assertEquals(takeLog().length, 1);
});

/** Writes `rows` whole; what the device saw. */
async function writesOf(
  rows: Row[],
  flags: Record<number, number> = {},
): Promise<string[]> {
  const last = rows.at(-1)!;
  const size = last[0] + last[1];
  const t = new TestFs({ size, rows });
  for (const [i, f] of Object.entries(flags)) t.extents[Number(i)]!.flags = f;
  t.tweak = (iomap) => {
    iomap.flags &= ~IOMAP_F_SHARED;
  };
  await t.write(0, bytes(size, 1));
  assertEquals(await t.flush(), 0);
  return t.dev.take();
}

test("iomap corner case 84: an ioend ends at gaps, other flags, boundaries, 4096 folios, a full bio", async () => {
  const M = IOMAP_MAPPED;
  const pair = (addr: number): Row[] => [[0, 4096, M, 65536], [
    4096,
    4096,
    M,
    addr,
  ]];
  assertEquals(await writesOf(pair(69632)), ["W 65536+8192"]);
  // On the device.
  assertEquals(await writesOf(pair(81920)), ["W 65536+4096", "W 81920+4096"]);
  // A flag that keeps apart.
  const apart = ["W 65536+4096", "W 69632+4096"];
  assertEquals(await writesOf(pair(69632), { 1: IOMAP_F_SHARED }), apart);
  assertEquals(await writesOf(pair(69632), { 1: IOMAP_F_BOUNDARY }), apart);
  // In the file.
  const gap = new TestFs({ size: 12288, rows: [[0, 12288, M, 65536]] });
  await gap.write(0, bytes(4096, 1));
  await gap.write(8192, bytes(4096, 1));
  await gap.flush();
  assertEquals(gap.dev.take(), ["W 65536+4096", "W 73728+4096"]);
  // Folios, which lie side by side in memory, so that the bio is not full.
  const size = 4100 * 4096;
  const many = new TestFs({
    size,
    rows: [[0, size, M]],
    deviceSize: 32 * KiB * KiB,
  });
  for (let pos = 0; pos < size; pos += 4096) {
    await many.write(pos, bytes(4096, 1));
  }
  await many.flush();
  assertEquals(many.ioends, [`0+${4096 * 4096} 0`, `${4096 * 4096}+16384 0`]);
  // Segments: every second page of the memory.
  const full = new TestFs({ size: 300 * 4096, rows: [[0, 300 * 4096, M]] });
  for (let i = 0; i < 300; i++) {
    await full.write(i * 4096, bytes(4096, 1));
    const page = allocFolio(full.mm, 0)!;
    assert(page.refcount > 0);
  }
  await full.flush();
  assertEquals(full.ioends, [`0+${256 * 4096} 0`, `${256 * 4096}+180224 0`]);
});

test("iomap corner case 85: a boundary keeps what is before it apart, not what is behind", async () => {
  const rows: Row[] = [
    [0, 4096, IOMAP_MAPPED, 40960],
    [4096, 4096, IOMAP_MAPPED, 45056],
    [8192, 4096, IOMAP_MAPPED, 49152],
  ];
  const writes = await writesOf(rows, { 1: IOMAP_F_BOUNDARY });
  assertEquals(writes, ["W 40960+4096", "W 45056+8192"]);
});

test("iomap corner case 86: a boundary counts only where the mapping begins", async () => {
  const rows: Row[] = [[0, 12288, IOMAP_MAPPED, 40960]];
  const writes = await writesOf(rows, { 0: IOMAP_F_BOUNDARY });
  assertEquals(writes, ["W 40960+12288"]);
});

test("iomap corner case 88: an ioend that ends with the file takes no more", async () => {
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
  folioClearDirtyForIo(folio);
  folioStartWriteback(folio);
  const { writebackRange } = t.writebackOps;
  assertEquals(await writebackRange(wpc, folio, 4096, 4096, 5000), 4096);
  const first = wpc.wbCtx as IomapIoend;
  assertEquals([first.offset, first.size], [4096, 904]);
  assertEquals(await writebackRange(wpc, folio, 8192, 4096, 12288), 4096);
  assert(wpc.wbCtx !== first);
  assertEquals(t.dev.take(), ["W 1052672+4096"]);
  await t.clock.sleep(10_000);
});

test("iomap corner case 89: UNWRITTEN and MAPPED are kept apart", async () => {
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

test("iomap corner case 90: ioends merge that follow each other in file and on the device", () => {
  const A: Spec = [0, 8192, 80];
  for (
    const [specs, size] of [
      [[A, [8192, 4096, 96]], 12288],
      // Sorted first.
      [[[8192, 4096, 96], A], 12288],
      // Another sector, offset, status; other flags; a boundary.
      [[A, [8192, 4096, 104]], 8192],
      [[A, [12288, 4096, 96]], 8192],
      [[A, [8192, 4096, 96, 0, BLK_STS_IOERR]], 8192],
      [[A, [8192, 4096, 96, IOMAP_IOEND_SHARED]], 8192],
      [[A, [8192, 4096, 96, IOMAP_IOEND_BOUNDARY]], 8192],
      // Up to the first that does not fit.
      [
        [[0, 512, 0], [512, 512, 1], [1536, 512, 3], [1024, 512, 9]],
        1024,
      ],
    ] as [Spec[], number][]
  ) {
    const list = ioends(new TestFs(), specs);
    iomapSortIoends(list);
    const head = list.shift()!;
    const before = list.length;
    iomapIoendTryMerge(head, list);
    assertEquals(head.size, size);
    assertEquals(list.length + (head.merged?.length ?? 0), before);
  }
});

test("iomapSortIoends() keeps the order of equal offsets", () => {
  const list = ioends(new TestFs(), [[8192, 1, 0], [0, 1, 1], [8192, 1, 2]]);
  iomapSortIoends(list);
  assertEquals(list.map((i) => i.sector), [1, 0, 2]);
});

test(
  "iomap corner case 91: writeback to INLINE or DELALLOC is -EIO",
  async () => {
    for (const type of [IOMAP_INLINE, IOMAP_DELALLOC]) {
      const t = new TestFs();
      await t.write(0, bytes(4096, 1));
      const { fill } = t;
      t.fill = (iomap, extent) => fill.call(t, iomap, { ...extent, type });
      assertEquals(await t.flush(), -EIO);
      assertEquals(t.folio(0)!.writeback, false);
    }
  },
  "a mapping without storage",
);

/** Dirty pages at 0 and 8192, whose blocks get their address when they are submitted;
 * the places on the device do not matter for what goes into one ioend. */
async function anonFs(): Promise<TestFs> {
  const t = new TestFs({ size: 12288 });
  await t.write(0, bytes(12288, 1));
  t.inode.size = 12288;
  const { fill } = t;
  let addr = 0;
  t.fill = (iomap, extent) => {
    fill.call(t, iomap, { ...extent, flags: IOMAP_F_ANON_WRITE });
    iomap.addr = addr += 1_000_000;
  };
  return t;
}

test(
  "iomap corner case 92: a write without address joins any sector, and needs its own submit",
  async () => {
    const t = await anonFs();
    const { writebackRange } = t.writebackOps;
    // A mapping of each page.
    t.writebackOps.writebackRange = (wpc, folio, pos, len, end) =>
      writebackRange(wpc, folio, pos, len, end);
    t.writebackOps.writebackSubmit = (wpc, error) => {
      const ioend = wpc.wbCtx as IomapIoend;
      assertEquals([ioend.offset, ioend.size, error], [0, 12288, 0]);
      assertEquals(ioend.sector, -1);
      ioend.sector = ioend.bio.sector = 128;
      ioend.bio.endIo = (bio) =>
        iomapFinishIoends(iomapIoendFromBio(bio), blkStatusToErrno(bio.status));
      submitBio(ioend.bio);
      return 0;
    };
    assertEquals(await t.flush(), 0);
    assertEquals(t.dev.take(), ["W 65536+12288"]);
    const u = await anonFs();
    u.writebackOps.writebackSubmit = iomapIoendWritebackSubmit;
    assertEquals(await u.flush(), -EIO);
    assertEquals(u.dev.take(), []);
    assertEquals(u.folio(1)!.writeback, false);
  },
  "needs its own submit",
);

/** Nobody waits for the end of its writeback. */
const FINISHED = { private: { writeBytesPending: Infinity } } as Folio;

/** A submit that splits each ioend into parts of at most `max` bytes. */
function splitSubmit(
  max: number,
  isAppend: boolean,
  log: string[],
): (wpc: IomapWritepageCtx, error: number) => number {
  const done = (bio: Bio) => {
    const ioend = iomapIoendFromBio(bio);
    log.push(`done ${ioend.offset}+${ioend.size}`);
    iomapFinishIoends(ioend, blkStatusToErrno(bio.status));
  };
  return (wpc, error) => {
    assertEquals(error, 0);
    const ioend = wpc.wbCtx as IomapIoend;
    ioend.bio.endIo = done;
    for (;;) {
      const part = iomapSplitIoend(ioend, max, isAppend);
      if (typeof part === "number") return part;
      const next = part ?? ioend;
      log.push(`${next.offset}+${next.size} at ${next.sector}`);
      submitBio(next.bio);
      if (part === null) return 0;
    }
  };
}

test("iomap corner case 94: a split returns the front, of whole blocks; the whole ends after all parts", async () => {
  const t = new TestFs({ size: 16000, rows: [[0, 16384, IOMAP_MAPPED]] });
  await t.write(0, pattern(0, 16000));
  t.dev.take();
  const log: string[] = [];
  t.writebackOps.writebackSubmit = splitSubmit(9000, false, log);
  // The last part is done first.
  let n = 0;
  t.dev.fault = () => {
    assert(t.folio(0)!.writeback && t.folio(3)!.writeback);
    return n++ === 0 ? BLK_STS_NOSPC : 0;
  };
  assertEquals(await t.flush(), -ENOSPC);
  assertEquals(log, [
    "0+8192 at 2048",
    "8192+7808 at 2064",
    "done 0+8192",
    "done 8192+7808",
  ]);
  assertEquals(t.dev.take(), ["W 1048576+8192", "W 1056768+8192"]);
  for (let i = 0; i < 4; i++) assertEquals(t.folio(i)!.writeback, false);
});

test("iomapSplitIoend() for an append keeps to the device's limits and the zone's start", async () => {
  const t = new TestFs({ size: 16384, rows: [[0, 16384, IOMAP_MAPPED]] });
  t.dev.limits = { ...t.dev.limits, maxZoneAppendSectors: 21 };
  await t.write(0, pattern(0, 16384));
  const log: string[] = [];
  t.writebackOps.writebackSubmit = splitSubmit(MAX, true, log);
  assertEquals(await t.flush(), 0);
  assertEquals(log.slice(0, 2), ["0+8192 at 2048", "8192+8192 at 2048"]);
});

test("a part of an ioend can be split, too: the whole ends after all of them", () => {
  const t = new TestFs();
  const bio = new Bio(t.dev, 1);
  bio.addData(bytes(12288), 0, 12288);
  const whole = iomapInitIoend(t.inode, bio, 0, 0);
  const front = iomapSplitIoend(whole, 8192, false) as IomapIoend;
  const first = iomapSplitIoend(front, 4096, false) as IomapIoend;
  assertEquals(
    [first, front, whole].map((i) => [i.offset, i.size, i.sector]),
    [[0, 4096, 0], [4096, 4096, 8], [8192, 4096, 16]],
  );
  for (const [i, left] of [[whole, 2], [first, 1], [front, 0]] as const) {
    iomapFinishIoends(i, 0);
    assertEquals(whole.remaining, left);
  }
});

test("bios carry the inode's write hint", async () => {
  const t = new TestFs({ size: 8192, rows: [[0, 8192, IOMAP_MAPPED]] });
  t.inode.writeHint = 3;
  const hints: number[] = [];
  t.dev.fault = (bio) => {
    if ((bio.opf & 1) !== 0) hints.push(bio.writeHint);
    return 0;
  };
  await t.write(0, bytes(4096, 1));
  await t.flush();
  const iocb = t.iocb(4096, IOCB_DIRECT | IOCB_WRITE);
  const from = new IovIter(bytes(4096, 2));
  const dops = { bioSet: iomapIoendBioset };
  assertEquals(
    await iomapDioRw(iocb, from, t.ops, dops, 0, null, 0),
    4096,
  );
  assertEquals(hints, [3, 3]);
});

test("a block larger than a page is written as one folio", async () => {
  const t = new TestFs({ blkbits: 14, size: 32768 });
  await t.write(20000, bytes(10, 1));
  assertEquals(t.folio(5), t.folio(4));
  assertEquals(await t.flush(), 0);
  assertEquals(t.dev.take(), ["W 1048576+16384"]);
});

test("iomapSplitIoend() is null where nothing is to be split, -EINVAL where nothing fits", () => {
  const t = new TestFs();
  const make = () => {
    const bio = new Bio(t.dev, 1);
    bio.addData(bytes(8192), 0, 8192);
    return iomapInitIoend(t.inode, bio, 0, 0);
  };
  assertEquals(iomapSplitIoend(make(), 8192, false), null);
  assertEquals(iomapSplitIoend(make(), 4095, false), -EINVAL);
  t.dev.limits = { ...t.dev.limits, maxZoneAppendSectors: 16 };
  assertEquals(iomapSplitIoend(make(), MAX, true), null);
  assertEquals(iomapSplitIoend(make(), 100, true), -EINVAL);
});

test("iomap corner case 95: of several errors the first is kept", () => {
  const t = new TestFs();
  const [whole, part] = ioends(t, [[0, 4096, 0], [0, 4096, 0]]);
  part!.parent = whole!;
  whole!.remaining++;
  iomapFinishIoends(part!, -ENOSPC);
  assertEquals([whole!.remaining, whole!.error], [1, -ENOSPC]);
  iomapFinishIoends(whole!, -EIO);
  assertEquals([whole!.remaining, whole!.error], [0, -ENOSPC]);
  assertEquals(errseqError(t.inode.mapping.wbErr), -ENOSPC);
});

test("iomapFinishIoends() lets others have their turn after 32,768 folios", async () => {
  const t = new TestFs();
  const done: number[] = [];
  // No folio stands behind them: only their number counts.
  const list = ioends(
    t,
    Array.from({ length: 20 }, (_, i): Spec => [i * 4096, 4096, i * 8]),
  );
  for (const ioend of list) {
    for (let i = 0; i < 4096; i++) {
      ioend.folios.push(FINISHED);
      ioend.lens.push(0);
    }
  }
  const head = list.shift()!;
  iomapIoendTryMerge(head, list);
  t.clock.at(t.clock.now(), () => done.push(left()), undefined);
  const all = [head, ...head.merged!];
  const left = () => all.filter((i) => i.remaining > 0).length;
  iomapFinishIoends(head, 0);
  done.push(left());
  await t.clock.sleep(1);
  done.push(left());
  assertEquals(done, [11, 11, 0]);
});

test("iomap corner case 96: a folio stays under writeback until its last block is written", async () => {
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

test("a worker that gathers ioends completes them sorted and merged", async () => {
  const M = IOMAP_UNWRITTEN;
  const t = new TestFs({
    size: 20480,
    rows: [
      [0, 4096, M, 65536],
      [4096, 4096, M, 69632],
      [8192, 4096, M, 73728],
      [12288, 8192, M, 131072],
    ],
  });
  // Apart while they are written, though they follow each other.
  for (const e of t.extents) e.flags = IOMAP_F_BOUNDARY;
  await t.write(0, pattern(0, 20480));
  const gathered: IomapIoend[] = [];
  const batches: string[][] = [];
  const work = () => {
    const list = gathered.splice(0);
    iomapSortIoends(list);
    const batch: string[] = [];
    while (list.length > 0) {
      const ioend = list.shift()!;
      // The boundary kept apart what is written, not what is committed.
      for (const next of list) next.flags &= ~IOMAP_IOEND_BOUNDARY;
      iomapIoendTryMerge(ioend, list);
      batch.push(`${ioend.offset}+${ioend.size}`);
      iomapFinishIoends(ioend, blkStatusToErrno(ioend.bio.status));
    }
    batches.push(batch);
  };
  t.writebackOps.writebackSubmit = (wpc, error) => {
    (wpc.wbCtx as IomapIoend).bio.endIo = (bio) => {
      if (gathered.length === 0) t.clock.at(t.clock.now(), work, undefined);
      gathered.unshift(iomapIoendFromBio(bio));
      assert(t.folio(0)!.writeback);
    };
    return iomapIoendWritebackSubmit(wpc, error);
  };
  assertEquals(await t.flush(), 0);
  assertEquals(t.dev.take().length, 4);
  assertEquals(batches, [["0+12288", "12288+8192"]]);
  for (let i = 0; i < 5; i++) assertEquals(t.folio(i)!.writeback, false);
});
