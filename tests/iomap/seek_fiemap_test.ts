/** Corner cases 137 to 149: SEEK_DATA, SEEK_HOLE and FIEMAP. */
import { assertEquals } from "@std/assert";
import { BLK_STS_IOERR } from "../../block/blk-types.ts";
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
import { fiemapPrep, iomapFiemap } from "../../iomap/fiemap.ts";
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
    name:
      "iomap corner case 137: SEEK_DATA and SEEK_HOLE before the file or from its end on are -ENXIO",
    options: { size: 1024 * KiB },
    answers: [
      [-1, -ENXIO, -ENXIO],
      [0, -ENXIO, 0],
      [1048575, -ENXIO, 1048575],
      [1048576, -ENXIO, -ENXIO],
    ],
  },
  {
    name: "iomapSeekData() and iomapSeekHole() of an empty file",
    options: {},
    answers: [[0, -ENXIO, -ENXIO]],
  },
  {
    name: "iomap corner case 138: the end of the file is a hole",
    options: { size: 10000, rows: [[0, 12288, IOMAP_MAPPED]] },
    answers: [[0, 0, 10000], [9999, 9999, 10000]],
  },
  {
    name: "iomap corner case 139: SEEK_DATA where none follows is -ENXIO",
    options: { size: 65536, rows: [[0, 4096, IOMAP_MAPPED]] },
    answers: [[0, 0, 4096], [4096, -ENXIO, 4096], [60000, -ENXIO, 60000]],
  },
  {
    name:
      "iomap corner case 140: DELALLOC is data, UNWRITTEN where the cache is up to date alone",
    options: {
      size: 24576,
      rows: [
        [4096, 4096, IOMAP_DELALLOC],
        [8192, 4096, IOMAP_MAPPED],
        [12288, 4096, IOMAP_UNWRITTEN],
        [20480, 4096, IOMAP_UNWRITTEN],
      ],
    },
    prepare: (t) => t.write(20480, bytes(4096, 1)),
    answers: [
      [0, 4096, 0],
      [5000, 5000, 12288],
      [12288, 20480, 12288],
      [13000, 20480, 13000],
      [20480, 20480, 24576],
    ],
  },
  {
    name:
      "iomap corner case 142: over UNWRITTEN answers go by blocks, and stay within one, 4 KiB",
    options: { size: 200_000, rows: [[0, 200_704, IOMAP_UNWRITTEN]] },
    prepare: (t) => t.write(100_000, bytes(10, 1)),
    answers: [
      [0, 98304, 0],
      [100_000, 100_000, 102400],
      [102_400, -ENXIO, 102_400],
    ],
  },
  {
    name: "iomapSeekData() and iomapSeekHole() over UNWRITTEN, 1 KiB blocks",
    options: {
      blkbits: 10,
      size: 200_000,
      rows: [[0, 200_704, IOMAP_UNWRITTEN]],
    },
    prepare: (t) => t.write(100_000, bytes(10, 1)),
    answers: [[0, 99328, 0], [100_000, 100_000, 100_352]],
  },
  {
    name: "iomap corner case 141: clean cache over UNWRITTEN is data",
    options: { size: 65536, rows: [[0, 65536, IOMAP_UNWRITTEN]] },
    prepare: async (t) => {
      t.file.ra.raPages = 0;
      await t.read(8192, 4096);
    },
    answers: [[0, 8192, 0], [9000, 9000, 12288]],
  },
  {
    name:
      "iomapSeekHole() looks behind an UNWRITTEN extent that is cached whole",
    options: {
      size: 12288,
      rows: [[0, 4096, IOMAP_UNWRITTEN], [4096, 4096, IOMAP_MAPPED]],
    },
    prepare: (t) => t.write(0, bytes(4096, 1)),
    answers: [[0, 0, 8192]],
  },
];

for (const { name, options, answers, prepare } of SEEK_CASES) {
  test(name, async () => {
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

const FIRST = [0, 40960, 4096, 0];
const SECOND = [8192, 81920, 4096, FIEMAP_EXTENT_UNWRITTEN];
const SECOND_LAST = [8192, 81920, 4096, FIEMAP_EXTENT_UNWRITTEN | LAST];

/** Two extents with a hole between. */
function twoExtents(): TestFs {
  return new TestFs({
    size: 12288,
    rows: [
      [0, 4096, IOMAP_MAPPED, 40960],
      [8192, 4096, IOMAP_UNWRITTEN, 81920],
    ],
  });
}

test("iomap corner case 143: LAST is the last extent found in the request, not in the file", async () => {
  const t = twoExtents();
  const rows = [FIRST, SECOND_LAST];
  assertEquals(await fiemap(t, 10), { ret: 0, mapped: 2, rows });
  assertEquals((await fiemap(t, 10, 0, 4096)).rows, [[0, 40960, 4096, LAST]]);
  // Extents come whole: nothing is cut to the request.
  assertEquals((await fiemap(t, 10, 9000, 10)).rows, [SECOND_LAST]);
});

test("iomap corner case 144: an array that is full before the walk ends has no LAST", async () => {
  const t = twoExtents();
  assertEquals(await fiemap(t, 1), { ret: 0, mapped: 1, rows: [FIRST] });
  // The row is there once the second mapping is found; then the walk stops.
  assertEquals(
    t.takeCalls().at(-1)!.replace(/.*written/, "written"),
    "written 0",
  );
  // Room for exactly all: the last is found out to be that only at the end.
  assertEquals((await fiemap(t, 2)).rows, [FIRST, SECOND_LAST]);
  t.insert({ offset: 16384, length: 4096, type: IOMAP_MAPPED, addr: 122880 });
  assertEquals((await fiemap(t, 2)).rows, [FIRST, SECOND]);
});

test("iomap corner case 145: without an array all extents are counted", async () => {
  const t = twoExtents();
  assertEquals(await fiemap(t, 0), { ret: 0, mapped: 2, rows: [] });
});

test("iomap corner case 146: fiemap of no bytes is -EINVAL, beyond the largest file -EFBIG, with a strange flag -EBADR", async () => {
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
  assertEquals(await ask(request(1, 0x10), 0, 1), [-EBADR, 0x10]);
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

test("fiemapPrep() lets a file system serve XATTR, but never CACHE", async () => {
  const t = new TestFs({ size: 4096 });
  const all = FIEMAP_FLAG_XATTR | FIEMAP_FLAG_CACHE;
  const info = request(1, FIEMAP_FLAG_XATTR);
  assertEquals(await fiemapPrep(t.inode, info, 0, 4096, all), 4096);
  info.flags = all;
  assertEquals(await fiemapPrep(t.inode, info, 0, 4096, all), -EBADR);
  assertEquals(info.flags, FIEMAP_FLAG_CACHE);
});

test("iomapFiemap() SYNC answers the error of writing back", async () => {
  const t = new TestFs();
  await t.write(0, bytes(4096, 1));
  t.dev.fault = () => BLK_STS_IOERR;
  const info = request(10, FIEMAP_FLAG_SYNC);
  assertEquals(await iomapFiemap(t.inode, info, 0, 8192, t.ops), -EIO);
  assertEquals(info.extents, []);
});

test("iomap corner case 147: a DELALLOC row has no address and says so", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_DELALLOC]] });
  const flags = FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNKNOWN | LAST;
  assertEquals((await fiemap(t, 10)).rows, [[0, 0, 4096, flags]]);
});

test("iomap corner case 148: an INLINE row says that it is not aligned", async () => {
  const t = new TestFs({ size: 100 });
  t.extents = [{ offset: 0, length: 100, type: IOMAP_INLINE, addr: 7 }];
  const inline = FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED;
  assertEquals((await fiemap(t, 10)).rows, [[0, 7, 100, inline | LAST]]);
});

test("iomapFiemap() tells of merged and shared extents", async () => {
  const t = new TestFs({
    size: 20480,
    rows: [
      [4096, 4096, IOMAP_MAPPED, 40960],
      [8192, 4096, IOMAP_MAPPED, 81920],
    ],
  });
  t.extents[0]!.flags = IOMAP_F_MERGED;
  t.extents[1]!.flags = IOMAP_F_SHARED;
  assertEquals((await fiemap(t, 10)).rows, [
    [4096, 40960, 4096, FIEMAP_EXTENT_MERGED],
    [8192, 81920, 4096, FIEMAP_EXTENT_SHARED | LAST],
  ]);
});

test("iomap corner case 149: of fiemap an error after the first extent is lost", async () => {
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
