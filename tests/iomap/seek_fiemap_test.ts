/** Corner cases 137 to 149: SEEK_DATA, SEEK_HOLE and FIEMAP. */
import { assertEquals } from "@std/assert";
import type { FiemapExtentInfo } from "../../fs/fs.ts";
import {
  FIEMAP_EXTENT_DATA_INLINE,
  FIEMAP_EXTENT_DELALLOC,
  FIEMAP_EXTENT_LAST,
  FIEMAP_EXTENT_MERGED,
  FIEMAP_EXTENT_NOT_ALIGNED,
  FIEMAP_EXTENT_SHARED,
  FIEMAP_EXTENT_UNKNOWN,
  FIEMAP_EXTENT_UNWRITTEN,
  FIEMAP_FLAG_CACHE,
  FIEMAP_FLAG_SYNC,
  FIEMAP_FLAG_XATTR,
} from "../../fs/ioctl.ts";
import { iomapFiemap } from "../../iomap/fiemap.ts";
import {
  IOMAP_DELALLOC,
  IOMAP_F_MERGED,
  IOMAP_F_SHARED,
  IOMAP_INLINE,
  IOMAP_MAPPED,
  IOMAP_UNWRITTEN,
} from "../../iomap/iomap.ts";
import { iomapSeekData, iomapSeekHole } from "../../iomap/seek.ts";
import { EBADR, EFBIG, EINVAL, EIO, ENOENT, ENXIO } from "../../lib/errno.ts";
import { bytes, KiB, type Options, test, TestFs } from "./testfs.ts";

interface SeekCase {
  name: string;
  options: Options;
  /** [pos, SEEK_DATA, SEEK_HOLE] */
  answers: [number, number, number][];
  prepare?: (t: TestFs) => Promise<unknown>;
}

const SEEK_CASES: SeekCase[] = [
  {
    name: "137, worked example 15: all hole",
    options: { size: 1024 * KiB },
    answers: [
      [-1, -ENXIO, -ENXIO],
      [0, -ENXIO, 0],
      [1048575, -ENXIO, 1048575],
      [1048576, -ENXIO, -ENXIO],
    ],
  },
  { name: "empty file", options: {}, answers: [[0, -ENXIO, -ENXIO]] },
  {
    name: "138: all data",
    options: { size: 10000, rows: [[0, 12288, IOMAP_MAPPED]] },
    answers: [[0, 0, 10000], [9999, 9999, 10000]],
  },
  {
    name: "139 and 140: DELALLOC is data, clean UNWRITTEN is a hole",
    options: {
      size: 20480,
      rows: [
        [4096, 4096, IOMAP_DELALLOC],
        [8192, 4096, IOMAP_MAPPED],
        [12288, 4096, IOMAP_UNWRITTEN],
      ],
    },
    answers: [
      [0, 4096, 0],
      [5000, 5000, 12288],
      [12288, -ENXIO, 12288],
      [13000, -ENXIO, 13000],
    ],
  },
  {
    name: "140 and 142: dirty cache over UNWRITTEN, 4 KiB blocks",
    options: { size: 200_000, rows: [[0, 200_704, IOMAP_UNWRITTEN]] },
    prepare: (t) => t.write(100_000, bytes(10, 1)),
    answers: [
      [0, 98304, 0],
      [100_000, 100_000, 102400],
      [102_400, -ENXIO, 102_400],
    ],
  },
  {
    name: "142: dirty cache over UNWRITTEN, 1 KiB blocks",
    options: {
      blkbits: 10,
      size: 200_000,
      rows: [[0, 200_704, IOMAP_UNWRITTEN]],
    },
    prepare: (t) => t.write(100_000, bytes(10, 1)),
    answers: [[0, 99328, 0], [100_000, 100_000, 100_352]],
  },
  {
    name: "141: clean cache over UNWRITTEN is data",
    options: { size: 65536, rows: [[0, 65536, IOMAP_UNWRITTEN]] },
    prepare: async (t) => {
      t.file.ra.raPages = 0;
      await t.read(8192, 4096);
    },
    answers: [[0, 8192, 0], [9000, 9000, 12288]],
  },
  {
    name: "140: cache over all of an UNWRITTEN extent before another",
    options: {
      size: 12288,
      rows: [[0, 4096, IOMAP_UNWRITTEN], [4096, 4096, IOMAP_MAPPED]],
    },
    prepare: (t) => t.write(0, bytes(4096, 1)),
    answers: [[0, 0, 8192]],
  },
];

for (const { name, options, answers, prepare } of SEEK_CASES) {
  test(`iomapSeekData() and iomapSeekHole() ${name}`, async () => {
    const t = new TestFs(options);
    await prepare?.(t);
    for (const [pos, data, hole] of answers) {
      assertEquals(await iomapSeekData(t.inode, pos, t.ops), data);
      assertEquals(await iomapSeekHole(t.inode, pos, t.ops), hole);
    }
  });
}

test("iomapSeekData() and iomapSeekHole() answer begin's error", async () => {
  const t = new TestFs({ size: 4096 });
  t.beginError = () => -EIO;
  assertEquals(await iomapSeekData(t.inode, 0, t.ops), -EIO);
  assertEquals(await iomapSeekHole(t.inode, 0, t.ops), -EIO);
});

function request(extentsMax: number, flags = 0): FiemapExtentInfo {
  return { flags, extentsMax, extentsMapped: 0, extents: [] };
}

async function fiemap(
  t: TestFs,
  extentsMax: number,
  start = 0,
  len = 2 ** 40,
): Promise<{ ret: number; mapped: number; rows: number[][] }> {
  const info = request(extentsMax);
  const ret = await iomapFiemap(t.inode, info, start, len, t.ops);
  const rows = info.extents.map((
    e,
  ) => [e.logical, e.physical, e.length, e.flags]);
  return { ret, mapped: info.extentsMapped, rows };
}

const LAST = FIEMAP_EXTENT_LAST;

test("iomapFiemap() 143 to 145, worked example 14: LAST, a full array, counting", async () => {
  const t = new TestFs({
    size: 12288,
    rows: [[0, 4096, IOMAP_MAPPED, 40960], [
      8192,
      4096,
      IOMAP_UNWRITTEN,
      81920,
    ]],
  });
  const first = [0, 40960, 4096, 0];
  const second = [8192, 81920, 4096, FIEMAP_EXTENT_UNWRITTEN];
  assertEquals(await fiemap(t, 10), {
    ret: 0,
    mapped: 2,
    rows: [first, [...second.slice(0, 3), second[3]! | LAST]],
  });
  assertEquals((await fiemap(t, 2)).rows.at(-1)![3]! & LAST, LAST);
  t.takeCalls();
  assertEquals(await fiemap(t, 1), { ret: 0, mapped: 1, rows: [first] });
  // The row is there once the second mapping is found; then the walk stops.
  assertEquals(
    t.takeCalls().at(-1)!.replace(/.*written/, "written"),
    "written 0",
  );
  assertEquals((await fiemap(t, 10, 0, 4096)).rows, [[0, 40960, 4096, LAST]]);
  assertEquals(await fiemap(t, 0), { ret: 0, mapped: 2, rows: [] });
});

test("iomapFiemap() 146: requests that are refused", async () => {
  const t = new TestFs({ size: 4096 });
  t.inode.sb.maxBytes = 2 ** 40;
  const ask = async (
    info: FiemapExtentInfo,
    start: number,
    len: number,
  ) => [await iomapFiemap(t.inode, info, start, len, t.ops), info.flags];
  assertEquals(await ask(request(1), 0, 0), [-EINVAL, 0]);
  assertEquals(await ask(request(1), 2 ** 40, 1), [-EFBIG, 0]);
  const flags = FIEMAP_FLAG_SYNC | FIEMAP_FLAG_XATTR | FIEMAP_FLAG_CACHE;
  assertEquals(
    await ask(request(1, flags), 0, 1),
    [-EBADR, FIEMAP_FLAG_XATTR | FIEMAP_FLAG_CACHE],
  );
  t.takeCalls();
  await ask(request(1), 2 ** 40 - 10, 100);
  assertEquals(t.takeCalls()[0], `begin ${2 ** 40 - 10}+10`);
});

test("iomapFiemap() SYNC writes the file back first", async () => {
  const t = new TestFs();
  await t.write(0, bytes(4096, 1));
  const info = request(10, FIEMAP_FLAG_SYNC);
  assertEquals(await iomapFiemap(t.inode, info, 0, 8192, t.ops), 0);
  assertEquals(info.extents.map((e) => e.flags), [LAST]);
  assertEquals(t.dev.take(), ["W 1048576+4096"]);
});

test("iomapFiemap() 147 and 148: flags of each kind of mapping", async () => {
  const t = new TestFs({
    size: 20480,
    rows: [
      [0, 4096, IOMAP_DELALLOC],
      [4096, 4096, IOMAP_MAPPED, 40960],
      [8192, 4096, IOMAP_MAPPED, 81920],
    ],
  });
  t.extents[1]!.flags = IOMAP_F_MERGED;
  t.extents[2]!.flags = IOMAP_F_SHARED;
  assertEquals((await fiemap(t, 10)).rows, [
    [0, 0, 4096, FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNKNOWN],
    [4096, 40960, 4096, FIEMAP_EXTENT_MERGED],
    [8192, 81920, 4096, FIEMAP_EXTENT_SHARED | LAST],
  ]);
  t.extents = [{ offset: 0, length: 100, type: IOMAP_INLINE, addr: 7 }];
  const inline = FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED;
  assertEquals((await fiemap(t, 10)).rows, [[0, 7, 100, inline | LAST]]);
});

test("iomapFiemap() 149: an error after the first extent is lost", async () => {
  const t = new TestFs({
    size: 12288,
    rows: [[0, 4096, IOMAP_MAPPED, 40960], [4096, 4096, IOMAP_MAPPED, 0]],
  });
  t.beginError = (pos) => pos > 0 ? -EIO : 0;
  assertEquals(await fiemap(t, 10), {
    ret: 0,
    mapped: 1,
    rows: [[0, 40960, 4096, LAST]],
  });
  t.beginError = () => -EIO;
  assertEquals((await fiemap(t, 10)).ret, -EIO);
  t.beginError = () => -ENOENT;
  assertEquals((await fiemap(t, 10)).ret, 0);
});
