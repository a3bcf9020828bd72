import { assert, assertEquals } from "@std/assert";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import {
  xfsAllocReadAgf,
  type XfsPerag,
} from "../../../../fs/xfs/libxfs/ag.ts";
import { xfsFreeExtentFixFreelist } from "../../../../fs/xfs/libxfs/alloc.ts";
import { xfsBtreeDelCursor } from "../../../../fs/xfs/libxfs/btree.ts";
import * as F from "../../../../fs/xfs/libxfs/format.ts";
import { BmbtIrec } from "../../../../fs/xfs/libxfs/iext.ts";
import {
  XFS_RMAP_OINFO_ANY_OWNER,
  XFS_RMAP_OINFO_INOBT,
  XFS_RMAP_OINFO_REFC,
  xfsRmapAlloc,
  xfsRmapConvertExtent,
  xfsRmapFindLeftNeighbor,
  xfsRmapFree,
  xfsRmapLookupLeRange,
  xfsRmapMapExtent,
  xfsRmapUnmapExtent,
} from "../../../../fs/xfs/libxfs/rmap.ts";
import {
  xfsRmapbtInitCursor,
  XfsRmapIrec,
} from "../../../../fs/xfs/libxfs/rmap-btree.ts";
import type { XfsTrans } from "../../../../fs/xfs/libxfs/trans.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import { EFSCORRUPTED } from "../../../../lib/errno.ts";
import { setLogHandler } from "../../../../lib/printk.ts";
import { Prng } from "../../../../lib/prng.ts";
import { begin } from "./fixture.ts";
import { readMaps } from "./share_check.ts";
import { newShareMount } from "./share_fixture.ts";

const MiB = 2 ** 20;
const UNWRITTEN = 1n << 61n;

/** An inode as far as the reverse map looks at it. */
function inode(ino: number, isReflink: boolean): XfsInode {
  return { ino, isReflink } as unknown as XfsInode;
}

function transact(mp: XfsMount, work: (tp: XfsTrans) => void): number {
  const tp = begin(mp);
  work(tp);
  return tp.commit();
}

/** Records of inodes in the first group: "start+len owner@offset", "u" if unwritten. */
function maps(pag: XfsPerag): string[] {
  return readMaps(pag).filter(([, , owner]) => owner < 1n << 63n).map(
    ([start, len, owner, off]) => {
      const state = (off & UNWRITTEN) !== 0n ? "u" : "";
      return `${start}+${len} ${owner}@${off & ~UNWRITTEN}${state}`;
    },
  );
}

/*
 * Goal: whichever part of an extent changes its state, whatever its neighbours are like,
 * the map holds the fewest records.
 * Method: every part of an extent of 3 pieces, with each kind of neighbour, for files that
 * share blocks and for others.
 * Oracle: a row of letters, one for each block.
 */
Deno.test("xfsRmapConvertExtent() merges and splits in all cases", async () => {
  const mp = await newShareMount(32 * MiB, { agCount: 2, rmapbt: true });
  const pag = mp.perags[0]!;
  const base = 1000;
  let ino = 200;
  for (const reflink of [false, true]) {
    for (
      const around of ["--", "w-", "u-", "-w", "-u", "ww", "wu", "uw", "uu"]
    ) {
      for (const from of [0, 1, 2]) {
        for (const to of [1, 2, 3]) {
          for (const state of ["w", "u"]) {
            if (to <= from) continue;
            const row = [around[0]!, state, state, state, around[1]!];
            const ip = inode(ino++, reflink);
            const map = (tp: XfsTrans, at: number, len: number, st: string) =>
              xfsRmapMapExtent(
                tp,
                ip,
                F.XFS_DATA_FORK,
                new BmbtIrec().set(at, base + at, len, st === "u"),
              );
            const put = transact(mp, (tp) => {
              if (row[0] !== "-") map(tp, 0, 1, row[0]!);
              if (row[4] !== "-") map(tp, 4, 1, row[4]!);
              map(tp, 1, 3, state);
            });
            assertEquals(put, 0);
            assertEquals(maps(pag), runs(row, base, ip.ino), around);
            const other = state === "w" ? "u" : "w";
            const rec = new BmbtIrec();
            rec.set(1 + from, base + 1 + from, to - from, other === "u");
            const turned = transact(
              mp,
              (tp) => xfsRmapConvertExtent(tp, ip, F.XFS_DATA_FORK, rec),
            );
            assertEquals(turned, 0);
            row.fill(other, 1 + from, 1 + to);
            assertEquals(maps(pag), runs(row, base, ip.ino));
            const gone = transact(mp, (tp) => {
              row.forEach((st, at) => {
                if (st === "-") return;
                const one = new BmbtIrec().set(at, base + at, 1, st === "u");
                xfsRmapUnmapExtent(tp, ip, F.XFS_DATA_FORK, one);
              });
            });
            assertEquals(gone, 0);
            assertEquals(maps(pag), []);
          }
        }
      }
    }
  }
});

function runs(row: string[], base: number, ino: number): string[] {
  const out: string[] = [];
  for (let at = 0; at < row.length;) {
    let end = at + 1;
    while (end < row.length && row[end] === row[at]) end++;
    const state = row[at] === "u" ? "u" : "";
    if (row[at] !== "-") {
      out.push(`${base + at}+${end - at} ${ino}@${at}${state}`);
    }
    at = end;
  }
  return out;
}

Deno.test("a mapping is found below long ones of others", async () => {
  const mp = await newShareMount(64 * MiB, {
    blockSize: 1024,
    agCount: 2,
    rmapbt: true,
  });
  const pag = mp.perags[0]!;
  const len = 8000;
  const start = 1000;
  // One file has all of it, others have parts: the first is far from most keys.
  const rows: [number, number, number, number][] = [[start, len, 200, 7]];
  const prng = new Prng(11, "rmap");
  for (let ino = 201; ino < 1400; ino++) {
    const n = ino % 100 === 0 ? 3000 : 1 + prng.below(20);
    rows.push([start + prng.below(len - n), n, ino, prng.below(1000)]);
  }
  for (let i = 0; i < rows.length; i += 8) {
    const put = transact(mp, (tp) => {
      for (const [bno, n, ino, off] of rows.slice(i, i + 8)) {
        const rec = new BmbtIrec().set(off, bno, n, false);
        xfsRmapMapExtent(tp, inode(ino, true), F.XFS_DATA_FORK, rec);
      }
    });
    assertEquals(put, 0);
  }
  assertEquals(maps(pag).length, rows.length);
  const agbp = xfsAllocReadAgf(pag, null);
  assert(typeof agbp !== "number");
  assert(agbp.view.getUint32(F.AGF_RMAPLEVEL) >= 3);
  const cur = xfsRmapbtInitCursor(mp, null, agbp, pag);
  const key = new XfsRmapIrec();
  const out = new XfsRmapIrec();
  for (let i = 0; i < 500; i++) {
    const [bno, n, ino, off] = rows[prng.below(rows.length)]!;
    const at = prng.below(n);
    key.set(bno + at, 1, ino, off + at, 0);
    assertEquals(xfsRmapLookupLeRange(cur, key, out), 1);
    assertEquals([out.startblock, out.blockcount, out.owner], [bno, n, ino]);
    // At another place of the file it is not.
    key.offset += 10000;
    assertEquals(xfsRmapLookupLeRange(cur, key, out), 0);
    key.set(bno + n, 1, ino, off + n, 0);
    assertEquals(xfsRmapFindLeftNeighbor(cur, key, out, true), 1);
    assertEquals([out.startblock, out.end], [bno, bno + n]);
  }
  xfsBtreeDelCursor(cur);
  // Out of the middle of the longest, from its end and its start on.
  const ip = inode(200, true);
  for (const [from, n] of [[4000, 10], [7900, 100], [0, 50]] as const) {
    const rec = new BmbtIrec().set(7 + from, start + from, n, false);
    const gone = transact(
      mp,
      (tp) => xfsRmapUnmapExtent(tp, ip, F.XFS_DATA_FORK, rec),
    );
    assertEquals(gone, 0);
  }
  const left = maps(pag).filter((row) => row.includes(" 200@"));
  assertEquals(left, [
    `${start + 50}+3950 200@57`,
    `${start + 4010}+3890 200@4017`,
  ]);
});

/** Runs a change of the map at once. */
function atOnce(
  mp: XfsMount,
  change: (tp: XfsTrans, pag: XfsPerag, agbp: never) => number,
): number {
  const tp = begin(mp);
  const pag = mp.perags[0]!;
  const agbp = xfsFreeExtentFixFreelist(tp, pag);
  assert(typeof agbp !== "number");
  const error = change(tp, pag, agbp as never);
  if (error < 0) tp.cancel();
  else assertEquals(tp.commit(), 0);
  return error;
}

Deno.test("xfsRmapFree() takes away what its owner has, and nothing else", async () => {
  const quiet = setLogHandler(() => {});
  const cases: [
    string,
    number,
    (typeof XFS_RMAP_OINFO_REFC)[],
    number,
    number,
  ][] = [
    ["the middle", 0, [XFS_RMAP_OINFO_REFC], 2002, 3],
    ["whoever has it", 0, [XFS_RMAP_OINFO_ANY_OWNER], 2002, 3],
    ["nobody, whoever", 0, [XFS_RMAP_OINFO_ANY_OWNER], 2100, 3],
    ["part of it, whoever", -EFSCORRUPTED, [XFS_RMAP_OINFO_ANY_OWNER], 1998, 4],
    ["another owner", -EFSCORRUPTED, [XFS_RMAP_OINFO_INOBT], 2002, 3],
    ["beyond its end", -EFSCORRUPTED, [XFS_RMAP_OINFO_REFC], 2008, 3],
    ["what nobody has", -EFSCORRUPTED, [XFS_RMAP_OINFO_REFC], 2100, 3],
  ];
  for (const [name, wanted, [oinfo], bno, len] of cases) {
    const mp = await newShareMount(32 * MiB, { agCount: 2, rmapbt: true });
    const put = atOnce(
      mp,
      (tp, pag, agbp) =>
        xfsRmapAlloc(tp, agbp, pag, 2000, 10, XFS_RMAP_OINFO_REFC),
    );
    assertEquals(put, 0);
    const error = atOnce(
      mp,
      (tp, pag, agbp) => xfsRmapFree(tp, agbp, pag, bno, len, oinfo!),
    );
    assertEquals(error, wanted, name);
    assertEquals(mp.dead, wanted < 0);
  }
  setLogHandler(quiet);
});

Deno.test("xfsRmapAlloc() refuses blocks that somebody has", async () => {
  const quiet = setLogHandler(() => {});
  for (const [bno, len] of [[1995, 6], [2005, 1], [2009, 5], [1990, 40]]) {
    const mp = await newShareMount(32 * MiB, { agCount: 2, rmapbt: true });
    const put = (at: number, n: number, oinfo: typeof XFS_RMAP_OINFO_REFC) =>
      atOnce(
        mp,
        (tp, pag, agbp) => xfsRmapAlloc(tp, agbp, pag, at, n, oinfo),
      );
    assertEquals(put(2000, 10, XFS_RMAP_OINFO_REFC), 0);
    assertEquals(put(bno!, len!, XFS_RMAP_OINFO_INOBT), -EFSCORRUPTED);
    assertEquals(mp.dead, true);
  }
  setLogHandler(quiet);
});
