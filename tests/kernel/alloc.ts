/**
 * Where blocks land, here and in the kernel.
 *
 * Goal: allocation, the AGFL and busy extents do as the kernel's do, to the block.
 * Method: the kernel makes an image with empty files in directories of several groups.
 * Then it allocates for files, truncates them and syncs, at random, and each answer of
 * FIEMAP is kept; a few calls of libxfs do the same on a copy of the image, as what a
 * file of one extent asks for is simple enough to be worked out here. Oracle: FIEMAP, and at
 * the end the free extents that xfs_db prints.
 *
 * ```sh
 * deno test -A tests/kernel/alloc.ts
 * ```
 *
 * Takes root, loop devices and xfsprogs; without them the tests are ignored.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import {
  XFS_AG_RESV_NONE,
  xfsAgResvInit,
} from "../../fs/xfs/libxfs/ag-resv.ts";
import {
  XFS_ALLOC_INITIAL_USER_DATA,
  XFS_ALLOC_NOBUSY,
  XFS_ALLOC_USERDATA,
  XfsAllocArg,
  xfsAllocVextentStartAg,
  xfsFreeExtentLater,
} from "../../fs/xfs/libxfs/alloc.ts";
import { xfsExtentBusyClearAll } from "../../fs/xfs/libxfs/extent-busy.ts";
import type { XfsInode } from "../../fs/xfs/inode.ts";
import { NULLFSBLOCK, XFS_DATA_FORK } from "../../fs/xfs/libxfs/format.ts";
import { BmbtIrec } from "../../fs/xfs/libxfs/iext.ts";
import {
  xfsRmapMapExtent,
  xfsRmapUnmapExtent,
} from "../../fs/xfs/libxfs/rmap.ts";
import type { XfsMount } from "../../fs/xfs/mount.ts";
import { Prng } from "../../lib/prng.ts";
import { readFreeSpace } from "../fs/xfs/libxfs/alloc_check.ts";
import { begin, mountImage } from "../fs/xfs/libxfs/fixture.ts";
import { MemoryDevice } from "../fs/xfs/libxfs/memory_device.ts";
import { mkfs, repair, run, whyNot, withMount } from "./loop.ts";

/** Files of an image. */
const FILES = 60;

/** Runs a program that has to succeed. */
function must(program: string, args: string[]): string {
  const { code, text } = run(program, args);
  assertEquals(code, 0, `${program} ${args.join(" ")}: ${text}`);
  return text;
}

/** Blocks of a file, as (first 512-byte block, length) from FIEMAP. */
function fiemap(path: string): [number, number][] {
  const text = must("xfs_io", ["-c", "fiemap", path]);
  const runs: [number, number][] = [];
  for (const [, from, to] of text.matchAll(/\]: (\d+)\.\.(\d+)/g)) {
    runs.push([Number(from), Number(to) - Number(from) + 1]);
  }
  return runs;
}

interface Case {
  name: string;
  bytes: number;
  mkfs: string[];
  /** Longest file, blocks. */
  most: number;
  /** Freed blocks stay busy until a sync that the test makes now and then; otherwise
   * there is one after each truncation. */
  busy: boolean;
  rounds: number;
  /** Single free blocks in the first group to begin with: enough make trees of more
   * levels. */
  fragments?: number;
}

const CASES: Case[] = [
  {
    name: "2 groups of 4 KiB blocks",
    bytes: 64 * 2 ** 20,
    mkfs: ["-d", "agcount=2"],
    most: 120,
    busy: false,
    rounds: 400,
  },
  {
    name: "4 groups of 1 KiB blocks",
    bytes: 128 * 2 ** 20,
    mkfs: ["-b", "size=1024", "-d", "agcount=4"],
    most: 500,
    busy: false,
    rounds: 400,
  },
  {
    name: "nearly full",
    bytes: 48 * 2 ** 20,
    mkfs: ["-d", "agcount=2"],
    most: 900,
    busy: false,
    rounds: 700,
  },
  {
    name: "rmapbt",
    bytes: 64 * 2 ** 20,
    mkfs: ["-m", "rmapbt=1", "-d", "agcount=2"],
    most: 120,
    busy: false,
    rounds: 300,
  },
  {
    name: "busy blocks",
    bytes: 64 * 2 ** 20,
    mkfs: ["-d", "agcount=2"],
    most: 200,
    busy: true,
    rounds: 200,
  },
  {
    name: "stripes",
    bytes: 64 * 2 ** 20,
    mkfs: ["-d", "agcount=2,su=64k,sw=2"],
    most: 120,
    busy: false,
    rounds: 300,
  },
  {
    name: "trees of two levels",
    bytes: 64 * 2 ** 20,
    mkfs: ["-b", "size=1024", "-d", "agcount=2"],
    most: 30,
    busy: false,
    rounds: 500,
    fragments: 600,
  },
  {
    name: "trees of two levels, rmapbt",
    bytes: 64 * 2 ** 20,
    mkfs: ["-b", "size=1024", "-d", "agcount=2", "-m", "rmapbt=1"],
    most: 30,
    busy: false,
    rounds: 300,
    fragments: 300,
  },
];

for (const test of CASES) {
  Deno.test({
    name: `blocks land where the kernel puts them: ${test.name}`,
    ignore: whyNot() !== null,
    fn: () => {
      const dir = Deno.makeTempDirSync({ prefix: "alloc-kernel-" });
      try {
        attempts(test, dir);
      } finally {
        Deno.removeSync(dir, { recursive: true });
      }
    },
  });
}

/** When anybody calls sync(2), nothing of ours is busy in the kernel any more: then the
 * comparison begins anew. */
function attempts(test: Case, dir: string): void {
  for (let left = test.busy ? 10 : 1;; left--) {
    try {
      return compare(test, dir);
    } catch (error) {
      if (left === 1) throw error;
    }
  }
}

function compare(test: Case, dir: string): void {
  const image = `${dir}/image`;
  const mnt = `${dir}/mnt`;
  const files: string[] = [];
  mkfs(image, test.bytes, test.mkfs);
  withMount(image, mnt, () => {
    for (let i = 0; i < FILES; i++) {
      const sub = `${mnt}/d${i % 4}`;
      if (i < 4) Deno.mkdirSync(sub);
      files.push(`${sub}/f${i}`);
      Deno.writeFileSync(files[i]!, new Uint8Array(0));
    }
    if (test.fragments !== undefined) fragment(mnt, test.fragments);
  });
  const device = new MemoryDevice(test.bytes, Deno.readFileSync(image));
  const mp = mountImage(device);
  mp.reserveBlocks();
  for (const pag of mp.perags) assertEquals(xfsAgResvInit(pag, null), 0);
  withMount(image, mnt, () => drive(test, mp, files));
  compareFree(mp, image);
  assertEquals(repair(image, mp.sb.agcount), "");
}

/** Makes single free blocks of 1 KiB, by punching every other one of a file. */
function fragment(mnt: string, count: number): void {
  const args = ["-f", "-c", `falloc 0 ${count * 2048}`];
  for (let i = 0; i < count; i++) args.push("-c", `fpunch ${i * 2048} 1024`);
  must("xfs_io", [...args, `${mnt}/fragments`]);
}

function drive(test: Case, mp: XfsMount, files: string[]): void {
  const prng = new Prng(11, test.name);
  const { sb } = mp;
  const inos = files.map((path) => Deno.statSync(path).ino!);
  const held: { fsbno: number; len: number }[][] = files.map(() => []);
  for (let round = 0; round < test.rounds; round++) {
    const i = prng.below(files.length);
    const path = files[i]!;
    const what = `round ${round}, file ${i}`;
    if (prng.below(25) === 0) {
      must("xfs_io", ["-c", "syncfs", path]);
      xfsExtentBusyClearAll(mp);
    } else if (held[i]!.length > 0) {
      const sync = test.busy ? [] : ["-c", "syncfs"];
      must("xfs_io", ["-c", "truncate 0", ...sync, path]);
      const tp = begin(mp);
      for (const { fsbno, len } of held[i]!) {
        const rec = new BmbtIrec().set(0, fsbno, len, true);
        xfsRmapUnmapExtent(tp, fakeInode(mp, inos[i]!), XFS_DATA_FORK, rec);
        xfsFreeExtentLater(tp, fsbno, len, null, XFS_AG_RESV_NONE);
      }
      assertEquals(tp.commit(), 0);
      if (!test.busy) xfsExtentBusyClearAll(mp);
      held[i] = [];
    } else {
      const len = 1 + prng.below(prng.below(3) === 0 ? test.most : 12);
      // More than one extent would be needed.
      const longest = Math.max(...mp.perags.map((pag) => pag.pagfLongest));
      if (len > longest - 20) continue;
      const got = allocateForFile(mp, inos[i]!, len);
      const bytes = len * sb.blocksize;
      const { code } = run("xfs_io", ["-c", `falloc 0 ${bytes}`, path]);
      assertEquals(code === 0, got !== null, `${what}: falloc of ${len}`);
      if (got === null) continue;
      const runs = fiemap(path);
      const unit = sb.bbPerBlock;
      assertEquals(
        [[sb.fsbToDaddr(got.fsbno), got.len * unit]],
        runs,
        `${what}: ${len} blocks`,
      );
      held[i]!.push(got);
    }
  }
}

/** As much of an inode as the reverse map asks for. */
function fakeInode(mount: XfsMount, ino: number): XfsInode {
  return { mount, ino, isReflink: false } as XfsInode;
}

/** What falloc(2) of an empty file asks for, as long as it is one extent (kernel:
 * `xfs_bmap_btalloc_best_length`). */
function allocateForFile(
  mp: XfsMount,
  ino: number,
  len: number,
): { fsbno: number; len: number } | null {
  const tp = begin(mp, len);
  const args = new XfsAllocArg().init(tp);
  args.minlen = args.maxlen = len;
  args.minleft = 1;
  args.datatype = XFS_ALLOC_USERDATA | XFS_ALLOC_INITIAL_USER_DATA |
    XFS_ALLOC_NOBUSY;
  const target = mp.sb.inoToFsb(ino);
  // What is as long as a stripe unit is aligned, if it can be.
  if (mp.sb.unit > 0 && len >= mp.sb.unit) {
    args.alignment = mp.sb.unit;
    assertEquals(xfsAllocVextentStartAg(args, target), 0);
    args.alignment = 1;
  }
  if (args.fsbno === NULLFSBLOCK) {
    assertEquals(xfsAllocVextentStartAg(args, target), 0);
  }
  if (args.fsbno !== NULLFSBLOCK) {
    const rec = new BmbtIrec().set(0, args.fsbno, args.len, true);
    xfsRmapMapExtent(tp, fakeInode(mp, ino), XFS_DATA_FORK, rec);
  }
  assertEquals(tp.commit(), 0);
  return args.fsbno === NULLFSBLOCK
    ? null
    : { fsbno: args.fsbno, len: args.len };
}

/** The free extents of every group, and the length of the AGFL. */
function compareFree(mp: XfsMount, image: string): void {
  for (const pag of mp.perags) {
    const text = must("xfs_db", [
      "-r",
      "-c",
      `freesp -d -a ${pag.agno}`,
      "-c",
      `agf ${pag.agno}`,
      "-c",
      "print flcount btreeblks freeblks longest",
      image,
    ]);
    const { free } = readFreeSpace(pag);
    const wanted = free.map((r) => [pag.agno, r.startblock, r.blockcount]);
    const got = [...text.matchAll(/^\s*(\d+)\s+(\d+)\s+(\d+)\s*$/gm)].map(
      (m) => [Number(m[1]), Number(m[2]), Number(m[3])],
    );
    // The blocks of the AGFL are among them, one by one.
    const agfl = new Set(readFreeSpace(pag).agfl);
    assertEquals(
      got.filter(([, agbno, len]) => len !== 1 || !agfl.has(agbno!)),
      wanted,
    );
    const field = (name: string) =>
      Number(new RegExp(`${name} = (\\d+)`).exec(text)![1]);
    assertEquals(
      [field("flcount"), field("btreeblks"), field("freeblks")],
      [pag.pagfFlcount, pag.pagfBtreeblks, pag.pagfFreeblks],
    );
  }
}
