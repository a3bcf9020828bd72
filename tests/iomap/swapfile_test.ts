import { assertEquals } from "@std/assert";
import {
  type Iomap,
  IOMAP_DELALLOC,
  IOMAP_F_DIRTY,
  IOMAP_F_SHARED,
  IOMAP_HOLE,
  IOMAP_INLINE,
  IOMAP_MAPPED,
  IOMAP_NULL_ADDR,
  IOMAP_REPORT,
  IOMAP_UNWRITTEN,
} from "../../iomap/iomap.ts";
import { iomapSwapfileActivate } from "../../iomap/swapfile.ts";
import { EINVAL, EIO } from "../../lib/errno.ts";
import { setLogHandler } from "../../lib/printk.ts";
import { SwapInfo, type SwapIo } from "../../mm/swap.ts";
import {
  KiB,
  type Options,
  type Row,
  test,
  TestDevice,
  TestFs,
} from "./testfs.ts";

const P = 4 * KiB;
const NO_IO: SwapIo = { read: () => -EIO, write: () => -EIO };

interface Activated {
  ret: number;
  log: string[];
  max: number;
  pages: number;
  span: number;
  /** [first slot, slots, page of the device]. */
  extents: [number, number, number][];
}

async function activate(fs: TestFs, max = 1000): Promise<Activated> {
  const sis = new SwapInfo(fs.dev, NO_IO, max);
  const span = { value: 0 };
  const log: string[] = [];
  const old = setLogHandler((line) => log.push(line));
  let ret: number;
  try {
    ret = await iomapSwapfileActivate(sis, fs.file, span, fs.ops);
  } finally {
    setLogHandler(old);
  }
  return {
    ret,
    log,
    max: sis.max,
    pages: sis.pages,
    span: span.value,
    extents: sis.extents.map((e) => [e.startPage, e.nrPages, e.startBlock]),
  };
}

/** A file of these extents, which can be synced. */
function swapFile(rows: Row[], options: Options = {}): TestFs {
  const end = rows.map(([offset, length]) => offset + length);
  const fs = new TestFs({ size: Math.max(...end), rows, ...options });
  fs.inode.fop.fsync = () => fs.flush();
  return fs;
}

function unallocated(iomap: Iomap, type: number): void {
  iomap.type = type;
  iomap.addr = IOMAP_NULL_ADDR;
}

const REFUSED: [string, (fs: TestFs) => void][] = [
  ["is inline", (fs) => {
    fs.tweak = (iomap) => {
      iomap.type = IOMAP_INLINE;
      iomap.inlineData = new Uint8Array(100);
    };
  }],
  ["has unallocated extents", (fs) => {
    fs.tweak = (iomap) => unallocated(iomap, IOMAP_HOLE);
  }],
  ["has unallocated extents", (fs) => {
    fs.tweak = (iomap) => unallocated(iomap, IOMAP_DELALLOC);
  }],
  ["is not committed", (fs) => {
    fs.tweak = (iomap) => iomap.flags |= IOMAP_F_DIRTY;
  }],
  ["has shared extents", (fs) => {
    fs.tweak = (iomap) => iomap.flags |= IOMAP_F_SHARED;
  }],
  ["outside the main device", (fs) => {
    fs.tweak = (iomap) => iomap.bdev = new TestDevice(fs.clock, 4096);
  }],
];

test("iomap corner case 152: what cannot be swapped to is -EINVAL with the reason", async () => {
  for (const [text, spoil] of REFUSED) {
    const fs = swapFile([[0, 16 * P, IOMAP_MAPPED]]);
    spoil(fs);

    const { ret, log } = await activate(fs);

    assertEquals([ret, log], [-EINVAL, [`swapon: file /test ${text}`]]);
  }
});

test("iomapSwapfileActivate() names the first reason only, in the kernel's order", async () => {
  const fs = swapFile([[0, 16 * P, IOMAP_MAPPED]]);
  fs.tweak = (iomap) => {
    iomap.flags |= IOMAP_F_DIRTY | IOMAP_F_SHARED;
    iomap.bdev = new TestDevice(fs.clock, 4096);
  };
  assertEquals((await activate(fs)).log, [
    "swapon: file /test is not committed",
  ]);
});

test("iomap corner case 153: a swap file of unwritten extents is accepted", async () => {
  const fs = swapFile([
    [0, P, IOMAP_MAPPED],
    [P, 15 * P, IOMAP_UNWRITTEN],
  ]);
  const { ret, log, pages, extents } = await activate(fs);
  assertEquals([ret, log, pages], [1, [], 15]);
  assertEquals(extents, [[0, 16, 256]]);
});

test("iomap corner case 154: extents are trimmed inward to pages, and sub-page pieces vanish", async () => {
  const fs = swapFile([
    [0, 10 * KiB, IOMAP_MAPPED, 1024 * KiB + 2 * KiB],
    [10 * KiB, 3 * KiB, IOMAP_MAPPED, 2048 * KiB + 1 * KiB],
    [13 * KiB, 19 * KiB, IOMAP_MAPPED, 3072 * KiB],
  ], { blkbits: 10 });

  const { ret, max, extents } = await activate(fs);

  // 258 to 260 of the first, nothing of the second, four pages of the third.
  assertEquals([ret, max], [2, 6]);
  assertEquals(extents, [[0, 2, 257], [2, 4, 768]]);
});

test("iomap corner case 155: sis.pages is the usable pages less the header", async () => {
  const fs = swapFile([[0, 16 * P, IOMAP_MAPPED]]);
  const { ret, max, pages, span } = await activate(fs);
  assertEquals([ret, max, pages, span], [1, 16, 15, 15]);
});

test("iomapSwapfileActivate() joins what adjoins on the device", async () => {
  const fs = swapFile([
    [0, 4 * P, IOMAP_MAPPED, 100 * P],
    [4 * P, 4 * P, IOMAP_UNWRITTEN, 104 * P],
    [8 * P, 4 * P, IOMAP_MAPPED, 50 * P],
    [12 * P, 4 * P, IOMAP_MAPPED, 120 * P],
  ]);
  const { ret, span, extents } = await activate(fs);
  assertEquals(ret, 3);
  assertEquals(extents, [[0, 8, 100], [8, 4, 50], [12, 4, 120]]);
  // From page 50 to page 123; the header is at 100.
  assertEquals(span, 74);
});

test("iomapSwapfileActivate() stops at the pages that the header promises", async () => {
  const fs = swapFile([
    [0, 4 * P, IOMAP_MAPPED, 100 * P],
    [4 * P, 4 * P, IOMAP_MAPPED, 200 * P],
    [8 * P, 4 * P, IOMAP_MAPPED, 300 * P],
  ]);
  const { ret, max, pages, span, extents } = await activate(fs, 6);
  assertEquals([ret, max, pages], [2, 6, 5]);
  // As the kernel counts: to the end of the last extent, from behind the header.
  assertEquals(span, 204 - 101);
  assertEquals(extents, [[0, 4, 100], [4, 2, 200]]);
});

test("iomapSwapfileActivate() refuses a file without a whole page", async () => {
  const fs = swapFile([
    [0, 3 * KiB, IOMAP_MAPPED, 1024 * KiB + KiB],
    [3 * KiB, 3 * KiB, IOMAP_MAPPED, 2048 * KiB + KiB],
  ], { blkbits: 10 });
  const { ret, log } = await activate(fs);
  assertEquals(ret, -EINVAL);
  assertEquals(log, ["swapon: Cannot find a single usable page in file."]);
});

test("iomapSwapfileActivate() asks with REPORT, and leaves out the last part of a page", async () => {
  const fs = swapFile([[0, 4 * P, IOMAP_MAPPED]], { size: 3 * P + 100 });
  const flags: number[] = [];
  fs.beginError = (_pos, f) => {
    flags.push(f);
    return 0;
  };
  await activate(fs);
  assertEquals(flags, [IOMAP_REPORT]);
  assertEquals(fs.takeCalls()[0], `begin 0+${3 * P}`);
});

test("iomapSwapfileActivate() syncs first, and hands its error on", async () => {
  const fs = swapFile([[0, 4 * P, IOMAP_MAPPED]]);
  let datasync = false;
  fs.inode.fop.fsync = (_file, _start, _end, data) => {
    datasync = data;
    return -EIO;
  };
  assertEquals((await activate(fs)).ret, -EIO);
  assertEquals(datasync, true);
  assertEquals(fs.takeCalls(), []);
});

test("iomapSwapfileActivate() hands the error of iomapBegin on", async () => {
  const fs = swapFile([[0, 4 * P, IOMAP_MAPPED]]);
  fs.beginError = () => -EIO;
  assertEquals((await activate(fs)).ret, -EIO);
});
