import { assert, assertEquals } from "@std/assert";
import {
  XFS_AG_RESV_METADATA,
  XFS_AG_RESV_NONE,
  XFS_AG_RESV_RMAPBT,
  xfsAgResvAllocExtent,
  xfsAgResvFree,
  xfsAgResvFreeExtent,
  xfsAgResvInit,
  xfsAgResvNeeded,
} from "../../../../fs/xfs/libxfs/ag-resv.ts";
import type { MkfsXfsOptions } from "../../../../fs/xfs/mkfs.ts";
import { ENOSPC } from "../../../../lib/errno.ts";
import { setLogHandler } from "../../../../lib/printk.ts";
import { begin, newMount } from "./fixture.ts";

const MiB = 2 ** 20;

// 512 MiB in 4 groups, as `xfs_db -c agresv` says: blocks kept and of them used, in a
// group and in that of the log.
const AGRESV: [MkfsXfsOptions, [number, number], [number, number]][] = [
  [{ rmapbt: true }, [632, 3], [319, 3]],
  [{}, [231, 2], [117, 2]],
  [{ rmapbt: true, blockSize: 1024 }, [10685, 3], [5347, 3]],
  [{ reflink: false }, [34, 1], [18, 1]],
  [{ inodeSize: 1024, blockSize: 2048 }, [833, 2], [418, 2]],
  [{ reflink: false, inobtcount: false }, [34, 1], [18, 1]],
];

for (const [options, [kept, used], [keptByLog, usedByLog]] of AGRESV) {
  const name = JSON.stringify(options);
  Deno.test(`xfsAgResvInit() keeps what xfs_db says: ${name}`, async () => {
    const mp = await newMount(512 * MiB, options);
    const before = mp.fdblocks;
    let hidden = 0;
    for (const pag of mp.perags) {
      assertEquals(xfsAgResvInit(pag, null), 0);
      const { metaResv, rmapbtResv } = pag;
      const asked = metaResv.asked + rmapbtResv.asked;
      const reserved = metaResv.reserved + rmapbtResv.reserved;
      const log = pag.agno === 2;
      assertEquals(asked, log ? keptByLog : kept);
      assertEquals(asked - reserved, log ? usedByLog : used);
      hidden += metaResv.reserved + rmapbtResv.asked;
    }
    // The reverse map's blocks count as free, so they are kept, too.
    assertEquals(mp.fdblocks, before - hidden);
    for (const pag of mp.perags) xfsAgResvFree(pag);
    assertEquals(mp.fdblocks, before);
  });
}

Deno.test("xfsAgResvInit() warns and answers ENOSPC when so much is not free", async () => {
  const lines: string[] = [];
  const old = setLogHandler((line) => void lines.push(line));
  try {
    const mp = await newMount(512 * MiB, { reflink: false });
    const before = mp.fdblocks = mp.allocSetAside + 10;
    const pag = mp.perags[0]!;
    assertEquals(xfsAgResvInit(pag, null), 0);
    assert(mp.finobtNores);
    assertEquals(mp.fdblocks, before);
    assertEquals(pag.metaResv.asked, 0);
    const other = await newMount(512 * MiB, {});
    other.fdblocks = other.allocSetAside + 10;
    assertEquals(xfsAgResvInit(other.perags[0]!, null), -ENOSPC);
    assert(lines.every((line) => line.includes("Per-AG reservation for AG 0")));
  } finally {
    setLogHandler(old);
  }
});

Deno.test("blocks for trees are counted against what is kept for them", async () => {
  const mp = await newMount(512 * MiB, { rmapbt: true });
  const pag = mp.perags[0]!;
  assertEquals(xfsAgResvInit(pag, null), 0);
  const { metaResv, rmapbtResv } = pag;
  const [meta, rmap] = [metaResv.reserved, rmapbtResv.reserved];
  assertEquals(xfsAgResvNeeded(pag, XFS_AG_RESV_NONE), meta + rmap);
  assertEquals(xfsAgResvNeeded(pag, XFS_AG_RESV_METADATA), rmap);
  assertEquals(xfsAgResvNeeded(pag, XFS_AG_RESV_RMAPBT), meta);
  const free = mp.fdblocks;
  const count = mp.sb.fdblocks;
  let tp = begin(mp, 5);
  xfsAgResvAllocExtent(pag, XFS_AG_RESV_METADATA, tp, meta + 5, false);
  xfsAgResvAllocExtent(pag, XFS_AG_RESV_RMAPBT, tp, 2, false);
  assertEquals(tp.commit(), 0);
  assertEquals([metaResv.reserved, rmapbtResv.reserved], [0, rmap - 2]);
  assertEquals(mp.sb.fdblocks, count - meta - 5);
  assertEquals(mp.fdblocks, free - 5);
  tp = begin(mp);
  xfsAgResvFreeExtent(pag, XFS_AG_RESV_METADATA, tp, meta + 5);
  xfsAgResvFreeExtent(pag, XFS_AG_RESV_RMAPBT, tp, 2);
  assertEquals(tp.commit(), 0);
  assertEquals(rmapbtResv.reserved, rmap);
  assertEquals(mp.sb.fdblocks, count);
  // What the tree had before it was kept is kept now.
  const used = metaResv.asked - meta;
  assertEquals(metaResv.reserved, meta + Math.min(5, used));
  assertEquals(mp.fdblocks, free - Math.min(5, used));
});
