import { assert, assertEquals } from "@std/assert";
import { EFSCORRUPTED, EINVAL, ENOSPC } from "../../../../lib/errno.ts";
import { setLogHandler } from "../../../../lib/printk.ts";
import { Prng } from "../../../../lib/prng.ts";
import { S_IFDIR, S_IFLNK, S_IFREG } from "../../../../fs/fs.ts";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import { xfsIallocReadAgi } from "../../../../fs/xfs/libxfs/ag.ts";
import {
  XfsAllocArg,
  xfsAllocVextentExactBno,
  xfsAllocVextentNearBno,
  xfsFreeExtentLater,
} from "../../../../fs/xfs/libxfs/alloc.ts";
import { XFS_AG_RESV_NONE } from "../../../../fs/xfs/libxfs/ag-resv.ts";
import { bufSeal } from "../../../../fs/xfs/libxfs/buf.ts";
import { xfsExtentBusyClearAll } from "../../../../fs/xfs/libxfs/extent-busy.ts";
import * as F from "../../../../fs/xfs/libxfs/format.ts";
import {
  xfsDialloc,
  xfsDifree,
  XfsIcluster,
} from "../../../../fs/xfs/libxfs/ialloc.ts";
import {
  xfsFinobtOps,
  xfsInobtOps,
} from "../../../../fs/xfs/libxfs/ialloc-btree.ts";
import {
  xfsIfree,
  xfsIunlink,
  xfsIunlinkRemove,
} from "../../../../fs/xfs/libxfs/inode-util.ts";
import {
  xfsIallocSpaceRes,
  xfsIfreeSpaceRes,
} from "../../../../fs/xfs/libxfs/trans-space.ts";
import { xfsTransAlloc } from "../../../../fs/xfs/libxfs/trans.ts";
import type { MkfsXfsOptions } from "../../../../fs/xfs/mkfs.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import { checkCounters, checkFreeSpace, usedBlocks } from "./alloc_check.ts";
import { begin, newInode, newMount, openMount, transact } from "./fixture.ts";
import { MemoryDevice } from "./memory_device.ts";
import {
  checkInodes,
  freeInode,
  makeInode,
  readInodeSpace,
  readUnlinked,
  unlinkInode,
  usedInodes,
} from "./ialloc_check.ts";

const MiB = 2 ** 20;

/** A file system, what should be in it, and what is held of its space. */
class Model {
  readonly mp: XfsMount;
  readonly used: Map<number, XfsInode>;
  /** Files and directories that have names. */
  readonly named: XfsInode[] = [];
  readonly dirs: XfsInode[] = [];
  readonly unlinked: XfsInode[] = [];
  /** Blocks of each group that have nothing to do with inodes. */
  readonly base: Uint8Array[];
  readonly held: { fsbno: number; len: number }[] = [];

  constructor(mp: XfsMount) {
    this.mp = mp;
    this.used = usedInodes(mp);
    this.dirs.push(this.used.get(mp.sb.rootino)!);
    this.base = mp.perags.map((pag) => {
      const blocks = usedBlocks(pag);
      for (const agbno of readInodeSpace(pag).blocks) blocks[agbno] = 0;
      return blocks;
    });
  }

  make(prng: Prng): boolean {
    const parent = this.dirs[prng.below(this.dirs.length)]!;
    const mode = [S_IFREG, S_IFREG, S_IFREG, S_IFLNK, S_IFDIR][prng.below(5)]!;
    const ip = makeInode(this.mp, parent, mode | 0o644);
    if (typeof ip === "number") {
      assertEquals(ip, -ENOSPC);
      return false;
    }
    assert(!this.used.has(ip.ino), `inode ${ip.ino} is in use`);
    this.used.set(ip.ino, ip);
    this.named.push(ip);
    if (mode === S_IFDIR) this.dirs.push(ip);
    return true;
  }

  unlink(i: number): void {
    const ip = this.named[i]!;
    this.named[i] = this.named.at(-1)!;
    this.named.pop();
    const dir = this.dirs.indexOf(ip);
    if (dir >= 0) this.dirs.splice(dir, 1);
    assertEquals(unlinkInode(ip), 0);
    this.unlinked.push(ip);
  }

  free(i: number): void {
    const ip = this.unlinked[i]!;
    this.unlinked[i] = this.unlinked.at(-1)!;
    this.unlinked.pop();
    const freed = freeInode(ip);
    assert(freed >= 0, `ifree: ${freed} ${this.mp.complaint}`);
    assert(this.used.delete(ip.ino));
  }

  /** Takes space until there is none in pieces of `len` blocks. */
  fill(len: number): void {
    const { sb, perags } = this.mp;
    for (const { agno } of perags) {
      const target = sb.agbToFsb(agno, 8);
      let more = true;
      while (more) {
        more = this.hold(len, (args) => xfsAllocVextentNearBno(args, target));
      }
    }
  }

  /** Takes `len` blocks; false if there are none. */
  hold(len: number, ask: (args: XfsAllocArg) => number): boolean {
    const tp = xfsTransAlloc(this.mp, len);
    if (typeof tp === "number") return false;
    const args = new XfsAllocArg().init(tp);
    args.minlen = args.maxlen = args.alignment = len;
    assertEquals(ask(args), 0);
    assertEquals(tp.commit(), 0);
    if (args.fsbno === F.NULLFSBLOCK) return false;
    this.held.push({ fsbno: args.fsbno, len });
    this.base[args.agno]!.fill(1, args.agbno, args.agbno + len);
    return true;
  }

  release(i: number): void {
    const { fsbno, len } = this.held[i]!;
    this.held[i] = this.held.at(-1)!;
    this.held.pop();
    const { sb } = this.mp;
    const tp = xfsTransAlloc(this.mp, 0);
    assert(typeof tp !== "number");
    assertEquals(
      xfsFreeExtentLater(tp, fsbno, len, null, XFS_AG_RESV_NONE),
      0,
    );
    assertEquals(tp.commit(), 0);
    const agbno = sb.fsbToAgbno(fsbno);
    this.base[sb.fsbToAgno(fsbno)]!.fill(0, agbno, agbno + len);
  }

  check(): void {
    const { mp } = this;
    checkInodes(mp, this.used);
    assertEquals(
      readUnlinked(mp),
      new Set(this.unlinked.map((ip) => ip.ino)),
    );
    for (const pag of mp.perags) {
      const used = this.base[pag.agno]!.slice();
      for (const agbno of readInodeSpace(pag).blocks) {
        assertEquals(used[agbno], 0, `block ${agbno}`);
        used[agbno] = 1;
      }
      checkFreeSpace(pag, used);
    }
    checkCounters(mp);
  }
}

async function newModel(
  bytes: number,
  options: MkfsXfsOptions,
): Promise<Model> {
  return new Model(await newMount(bytes, { ...options, imaxPct: 0 }));
}

const SETS: [string, number, MkfsXfsOptions][] = [
  ["1 KiB", 32 * MiB, { blockSize: 1024, agCount: 2 }],
  ["1 KiB, no sparse inodes", 32 * MiB, {
    blockSize: 1024,
    agCount: 2,
    sparseInodes: false,
  }],
  ["4 KiB", 64 * MiB, { agCount: 4 }],
  ["4 KiB, no finobt", 64 * MiB, { agCount: 4, finobt: false }],
  ["4 KiB, inodes of 2 KiB", 64 * MiB, { agCount: 2, inodeSize: 2048 }],
  ["4 KiB, inodes of 1 KiB, neither", 64 * MiB, {
    agCount: 2,
    inodeSize: 1024,
    finobt: false,
    sparseInodes: false,
  }],
  ["64 KiB", 128 * MiB, { blockSize: 65536, agCount: 2 }],
  ["64 KiB, inodes of 2 KiB", 128 * MiB, {
    blockSize: 65536,
    agCount: 2,
    inodeSize: 2048,
  }],
];

// Goal: numbers are given out once, and trees, counters, inodes, lists and blocks agree.
// Method: random files, directories and links made, unlinked and freed, growing and
// shrinking by turns. Oracle: a map of the inodes in use, and all the structures.
for (const [name, bytes, options] of SETS) {
  Deno.test(`xfsDialloc() and xfsIfree() agree with a map: ${name} (seed 3)`, async () => {
    const model = await newModel(bytes, options);
    const prng = new Prng(3, name);
    for (let step = 0; step < 1600; step++) {
      const grow = Math.floor(step / 400) % 2 === 0;
      const what = prng.below(10);
      if (what < (grow ? 7 : 2)) model.make(prng);
      else if (what < (grow ? 9 : 6)) {
        if (model.named.length > 0) {
          model.unlink(prng.below(model.named.length));
        }
      } else if (model.unlinked.length > 0) {
        model.free(prng.below(model.unlinked.length));
      }
      if (step % 200 === 199) model.check();
    }
    while (model.named.length > 0) model.unlink(0);
    while (model.unlinked.length > 0) {
      model.free(prng.below(model.unlinked.length));
    }
    model.check();
  });
}

for (
  const [name, bytes, options, len] of [
    ["1 KiB", 32 * MiB, { blockSize: 1024, agCount: 2 }, 16],
    ["4 KiB", 64 * MiB, { agCount: 2 }, 4],
    ["4 KiB, no finobt", 64 * MiB, { agCount: 2, finobt: false }, 4],
    ["4 KiB, rmapbt", 64 * MiB, { agCount: 2, rmapbt: true }, 4],
  ] as [string, number, MkfsXfsOptions, number][]
) {
  Deno.test(`xfsDialloc() lays out parts of chunks when space is in pieces: ${name} (seed 4)`, async () => {
    const model = await newModel(bytes, options);
    const prng = new Prng(4, name);
    model.fill(len);
    assert(!model.make(prng) || model.mp.sb.ifree > 0);
    let sparse = 0;
    for (let step = 0; step < 3000; step++) {
      const what = prng.below(12);
      if (what < 1 && step < 2000) {
        model.release(prng.below(model.held.length));
      } else if (what < 8) model.make(prng);
      else if (what < 10) {
        if (model.named.length > 0) {
          model.unlink(prng.below(model.named.length));
        }
      } else if (model.unlinked.length > 0) {
        model.free(prng.below(model.unlinked.length));
      }
      if (step % 300 !== 299) continue;
      model.check();
      for (const pag of model.mp.perags) {
        const { chunks } = readInodeSpace(pag);
        sparse += chunks.filter((rec) => rec.holemask !== 0).length;
      }
    }
    assert(sparse > 5, `${sparse} chunks with holes were seen`);
    while (model.named.length > 0) model.unlink(0);
    while (model.unlinked.length > 0) model.free(0);
    model.check();
  });
}

Deno.test("xfsDialloc() and xfsIfree() keep trees of several levels (seed 6)", async () => {
  const options = { blockSize: 1024, agCount: 2 };
  const model = await newModel(32 * MiB, options);
  const prng = new Prng(6);
  for (let i = 0; i < 9000; i++) assert(model.make(prng));
  const [pag] = model.mp.perags;
  const agibp = xfsIallocReadAgi(pag!, null);
  assert(typeof agibp !== "number");
  assertEquals(agibp.view.getUint32(F.AGI_LEVEL), 2);
  model.check();
  for (const left of [4000, 0]) {
    while (model.named.length > left) {
      model.unlink(prng.below(model.named.length));
      if (model.unlinked.length > 100) model.free(prng.below(100));
    }
    for (let i = 0; i < left / 4; i++) assert(model.make(prng));
    model.check();
  }
});

// The kernel's inode numbers: files and directories made and removed on images of 64 MiB
// by Linux 6.18, after mkfs.xfs with the same options. An operation is [parent, inode]
// for a new file, [-parent, inode] for a new directory, [0, inode] for one that goes, and
// [0, 0] where everything was written.
const KERNEL = new URL(
  "../../../data/xfs/kernel-6.18-inodes.jsonl",
  import.meta.url,
);

interface KernelTrace {
  name: string;
  options: MkfsXfsOptions;
  ops: [number, number][];
}

for (const line of Deno.readTextFileSync(KERNEL).trimEnd().split("\n")) {
  const { name, options, ops } = JSON.parse(line) as KernelTrace;
  Deno.test(`xfsDialloc() gives the numbers that Linux gives: ${name}`, async () => {
    const mp = await newMount(64 * MiB, options);
    const got = ops.map(([parent, ino]): [number, number] => {
      if (parent === 0 && ino === 0) xfsExtentBusyClearAll(mp);
      else if (parent === 0) assertEquals(difree(mp, ino), 0);
      else {
        const mode = parent < 0 ? S_IFDIR : S_IFREG;
        return [parent, dialloc(mp, Math.abs(parent), mode)];
      }
      return [parent, ino];
    });
    assertEquals(got, ops);
  });
}

function dialloc(mp: XfsMount, parent: number, mode: number): number {
  const blocks = xfsIallocSpaceRes(mp);
  return transact(mp, blocks, (tp) => xfsDialloc(tp, parent, mode));
}

function difree(mp: XfsMount, ino: number): number {
  const blocks = xfsIfreeSpaceRes(mp);
  return transact(mp, blocks, (tp) => xfsDifree(tp, ino, new XfsIcluster()));
}

function smallMount(options: MkfsXfsOptions = {}): Promise<XfsMount> {
  return newMount(64 * MiB, { agCount: 4, ...options });
}

Deno.test("xfsDialloc() puts directories into the groups by turns, and files near theirs", async () => {
  const mp = await smallMount();
  const { sb } = mp;
  const dirs = [0, 1, 2, 3, 4].map(() => dialloc(mp, sb.rootino, S_IFDIR));
  assertEquals(dirs.map((ino) => sb.inoToAgno(ino)), [0, 1, 2, 3, 0]);
  for (const dir of dirs) {
    const agno = sb.inoToAgno(dir);
    assertEquals(sb.inoToAgno(dialloc(mp, dir, S_IFREG)), agno);
  }
});

Deno.test("xfsDialloc() answers -ENOSPC when no more inodes are allowed", async () => {
  const mp = await smallMount();
  mp.sb.maxicount = 128;
  for (let i = 0; i < 125; i++) {
    assert(dialloc(mp, mp.sb.rootino, S_IFREG) > 0);
  }
  assertEquals([mp.sb.icount, mp.sb.ifree], [128, 0]);
  assertEquals(dialloc(mp, mp.sb.rootino, S_IFREG), -ENOSPC);
  assert(!mp.dead);
});

Deno.test("xfsDialloc() uses up free inodes of other groups when space is low", async () => {
  const mp = await smallMount();
  const { sb } = mp;
  const dirs = [0, 1, 2, 3].map(() => dialloc(mp, sb.rootino, S_IFDIR));
  while (mp.perags[1]!.pagiFreecount > 0) dialloc(mp, dirs[1]!, S_IFREG);
  const other = Math.floor(sb.dblocks / 100) - 1;
  const rest = mp.fdblocks - other;
  mp.fdblocks = other;
  assertEquals(sb.inoToAgno(dialloc(mp, dirs[1]!, S_IFREG)), 2);
  while (sb.ifree > 0) dialloc(mp, dirs[1]!, S_IFREG);
  // Only then new ones are laid out.
  assertEquals(sb.inoToAgno(dialloc(mp, dirs[1]!, S_IFREG)), 1);
  mp.fdblocks += rest;
});

/** A file system whose group 0 has `n` chunks full of files, one behind the other. */
async function fullChunks(
  n: number,
  options: MkfsXfsOptions = {},
): Promise<XfsMount> {
  const mp = await smallMount(options);
  while (mp.sb.icount < n * 64) dialloc(mp, mp.sb.rootino, S_IFREG);
  while (mp.sb.ifree > 0) dialloc(mp, mp.sb.rootino, S_IFREG);
  const chunks = readInodeSpace(mp.perags[0]!).chunks;
  const first = chunks.map((rec) => rec.startino);
  assertEquals(first, first.map((_, i) => 128 + i * 64));
  return mp;
}

/** Inode `i` of the group's chunk `n`. */
function inodeOf(n: number, i: number): number {
  return 128 + n * 64 + i;
}

Deno.test("xfsDialloc() takes the chunk closer to the directory, counted from their starts", async () => {
  const mp = await fullChunks(6);
  const dir = inodeOf(2, 10);
  for (const [left, right, closer] of [[1, 4, 4], [1, 5, 1], [0, 3, 3]]) {
    assertEquals(difree(mp, inodeOf(left!, 7)), 0);
    assertEquals(difree(mp, inodeOf(right!, 7)), 0);
    assertEquals(dialloc(mp, dir, S_IFREG), inodeOf(closer!, 7));
    assertEquals(
      dialloc(mp, dir, S_IFREG),
      inodeOf(closer === left ? right! : left!, 7),
    );
  }
});

Deno.test("xfsDialloc() without finobt looks at nine chunks, and goes on from there", async () => {
  const mp = await fullChunks(30, { finobt: false });
  const dir = inodeOf(15, 0);
  for (const ino of [inodeOf(11, 5), inodeOf(0, 50), inodeOf(0, 60)]) {
    assertEquals(difree(mp, ino), 0);
  }
  assertEquals(dialloc(mp, dir, S_IFREG), inodeOf(11, 5));
  const other = inodeOf(14, 0);
  assertEquals(difree(mp, inodeOf(8, 5)), 0);
  assertEquals(dialloc(mp, other, S_IFREG), inodeOf(0, 50));
  assertEquals(dialloc(mp, other, S_IFREG), inodeOf(8, 5));
});

Deno.test("xfsDialloc() without finobt begins anew when both ends were met", async () => {
  const mp = await fullChunks(5, { finobt: false });
  const dir = inodeOf(3, 0);
  assertEquals(difree(mp, inodeOf(0, 5)), 0);
  assertEquals(dialloc(mp, dir, S_IFREG), inodeOf(0, 5));
  assertEquals(difree(mp, inodeOf(1, 5)), 0);
  assertEquals(difree(mp, inodeOf(2, 5)), 0);
  assertEquals(dialloc(mp, dir, S_IFREG), inodeOf(2, 5));
});

/** A file system without free inodes and without free space, but for pieces of `len`
 * blocks that can be released. */
async function fullModel(
  bytes: number,
  len: number,
  options: MkfsXfsOptions,
  pieces: [agno: number, agbno: number][],
): Promise<Model> {
  const model = await newModel(bytes, options);
  const { mp } = model;
  while (mp.sb.ifree > 0) dialloc(mp, mp.sb.rootino, S_IFREG);
  for (const [agno, agbno] of pieces) {
    const fsbno = mp.sb.agbToFsb(agno, agbno);
    const ask = (args: XfsAllocArg) => {
      args.alignment = 1;
      return xfsAllocVextentExactBno(args, fsbno);
    };
    assert(model.hold(len, ask));
  }
  model.fill(len);
  // It is the groups that say no, not the counter.
  mp.fdblocks += 1000;
  return model;
}

/** Frees the held piece that begins at a block. */
function releaseAt(model: Model, agno: number, agbno: number): void {
  const fsbno = model.mp.sb.agbToFsb(agno, agbno);
  const i = model.held.findIndex((piece) => piece.fsbno === fsbno);
  assert(i >= 0, `block ${agbno} is not held`);
  model.release(i);
}

Deno.test("xfsDialloc() lays no part of a chunk out that would reach beyond the group", async () => {
  // Parts of 8 blocks, chunks of 16, a group of 15 more than a multiple. Pieces of 4 are
  // of no use but to the trees.
  const odd = Array.from({ length: 32 }, (_, i) => 1000 + i * 16);
  const tail = [8192, 8196, 8200];
  const options = { agCount: 2, inodeSize: 1024 };
  const pieces = [...odd, 8184, 8188, ...tail];
  const model = await fullModel(
    2 * 8207 * 4096,
    4,
    options,
    pieces.map((agbno) => [0, agbno]),
  );
  const { mp } = model;
  assertEquals(mp.sb.agblocks, 8207);
  const lastChunk = () => {
    while (dialloc(mp, mp.sb.rootino, S_IFREG) > 0);
    assert(!mp.dead);
    return readInodeSpace(mp.perags[0]!).chunks.at(-1)!;
  };
  for (const agbno of [...odd, ...tail]) releaseAt(model, 0, agbno);
  assert(lastChunk().startino < 8176 * 4);
  for (const agbno of [8184, 8188]) releaseAt(model, 0, agbno);
  const { startino, holemask, count } = lastChunk();
  assertEquals([startino, holemask, count], [8176 * 4, 0x00ff, 32]);
});

Deno.test("xfsDialloc() goes to another group rather than into the last place for a chunk", async () => {
  const apart = [904, 1000, 1096, 1192];
  const pieces = [1, 3].flatMap((agno) =>
    [800, 808, 816, ...apart].map((agbno): [number, number] => [agno, agbno])
  );
  const model = await fullModel(64 * MiB, 8, { agCount: 4 }, pieces);
  const { mp } = model;
  const dir = mp.sb.aginoToIno(1, 64);
  for (const agno of [1, 3]) {
    for (const agbno of apart) releaseAt(model, agno, agbno);
  }
  for (const agbno of [800, 808, 816]) releaseAt(model, 3, agbno);
  assertEquals(mp.sb.inoToAgno(dialloc(mp, dir, S_IFREG)), 3);
  while (mp.sb.ifree > 0) dialloc(mp, dir, S_IFREG);
  for (const agbno of [800, 808, 816]) releaseAt(model, 1, agbno);
  assertEquals(mp.sb.inoToAgno(dialloc(mp, dir, S_IFREG)), 1);
});

Deno.test("xfsDifree() answers -EINVAL for a number that cannot be", async () => {
  const mp = await smallMount();
  assertEquals(difree(mp, 1), -EINVAL);
  assertEquals(difree(mp, 2 ** 40), -EINVAL);
});

Deno.test("xfsDifree() answers -EFSCORRUPTED for an inode that is free or not there", async () => {
  for (const offset of [10, 64]) {
    const mp = await smallMount();
    assertEquals(difree(mp, mp.sb.rootino + offset), -EFSCORRUPTED);
    assert(mp.dead);
  }
});

/** Changes the first record of a tree of group 0, and reseals the block. */
function changeRec(
  mp: XfsMount,
  rootAt: number,
  at: number,
  bytes: number[],
): void {
  const agibp = xfsIallocReadAgi(mp.perags[0]!, null);
  assert(typeof agibp !== "number");
  const daddr = mp.sb.agbToDaddr(0, agibp.view.getUint32(rootAt));
  const ops = rootAt === F.AGI_ROOT ? xfsInobtOps : xfsFinobtOps;
  const bp = mp.targ.read(daddr, mp.sb.bbPerBlock, ops.bufOps);
  assert(typeof bp !== "number");
  bp.data.set(bytes, F.XFS_BTREE_SBLOCK_CRC_LEN + at);
}

// Of the chunk at 128 of which 3 inodes are used.
const WRONG: [string, number, number, number[]][] = [
  ["a chunk that begins between two", F.AGI_FREE_ROOT, 0, [0, 0, 0, 130]],
  ["a chunk in the headers", F.AGI_FREE_ROOT, 0, [0, 0, 0, 0]],
  ["a chunk beyond the group", F.AGI_FREE_ROOT, 0, [0xff, 0xff, 0xff, 0xc0]],
  ["a hole without a cluster", F.AGI_FREE_ROOT, 4, [0, 1, 60, 60]],
  ["a count that is not that of the holes", F.AGI_FREE_ROOT, 4, [
    0xff,
    0,
    64,
    61,
  ]],
  ["a count of free inodes that is not", F.AGI_FREE_ROOT, 7, [60]],
  ["trees that differ", F.AGI_FREE_ROOT, 7, [60, 0x7f]],
  ["trees that differ the other way", F.AGI_ROOT, 7, [60, 0x7f]],
];
for (const [name, tree, at, bytes] of WRONG) {
  Deno.test(`xfsDialloc() answers -EFSCORRUPTED: ${name}`, async () => {
    const mp = await smallMount();
    changeRec(mp, tree, at, bytes);
    const silent = setLogHandler(() => {});
    assertEquals(dialloc(mp, mp.sb.rootino, S_IFREG), -EFSCORRUPTED);
    setLogHandler(silent);
    assert(mp.dead);
  });
}

Deno.test("xfsDifree() answers -EFSCORRUPTED when the trees differ", async () => {
  for (const tree of [F.AGI_ROOT, F.AGI_FREE_ROOT]) {
    const mp = await smallMount();
    changeRec(mp, tree, 7, [60, 0x7f]);
    assertEquals(difree(mp, mp.sb.rootino + 2), -EFSCORRUPTED);
  }
});

Deno.test("xfsDialloc() answers -EFSCORRUPTED when the AGI counts a free inode that is not there", async () => {
  for (const finobt of [true, false]) {
    const mp = await smallMount({ finobt });
    while (mp.sb.ifree > 0) dialloc(mp, mp.sb.rootino, S_IFREG);
    const agibp = xfsIallocReadAgi(mp.perags[0]!, null);
    assert(typeof agibp !== "number");
    agibp.view.setUint32(F.AGI_FREECOUNT, 1);
    mp.perags[0]!.pagiFreecount = 1;
    assertEquals(dialloc(mp, mp.sb.rootino, S_IFREG), -EFSCORRUPTED);
  }
});

// Goal: nobody's image makes the functions throw or go on for ever. Method: fields of
// AGI, tree blocks and inodes changed in a used image, checksums mended; then inodes are
// allocated, freed and listed at random. Oracle: a number or an errno, in bounded time.
Deno.test("xfsDialloc(), xfsDifree() and xfsIunlink() stand any image (seed 8)", async () => {
  const silent = setLogHandler(() => {});
  const prng = new Prng(8);
  for (const options of [{}, { finobt: false }, { blockSize: 1024 }]) {
    const model = await newModel(32 * MiB, { agCount: 2, ...options });
    for (let i = 0; i < 700; i++) model.make(prng);
    for (let i = 0; i < 200; i++) model.unlink(prng.below(model.named.length));
    for (let i = 0; i < 150; i++) model.free(prng.below(model.unlinked.length));
    assertEquals(await model.mp.targ.flush(), 0);
    const image = model.mp.bdev as MemoryDevice;
    const inos = [...model.used.keys()];
    for (let round = 0; round < 60; round++) {
      const device = new MemoryDevice(32 * MiB, image);
      for (let n = 1 + prng.below(3); n > 0; n--) damage(device, model, prng);
      const mp = openMount(device);
      if (typeof mp === "number") continue;
      useInodes(mp, inos, prng);
    }
  }
  setLogHandler(silent);
});

/** Changes a field of a structure that has to do with inodes. */
function damage(device: MemoryDevice, model: Model, prng: Prng): void {
  const { sb, perags } = model.mp;
  const pag = perags[prng.below(2)]!;
  const { chunks, blocks } = readInodeSpace(pag);
  const what = prng.below(3);
  let at = sb.agHeaderDaddr(pag.agno, 2) * 512;
  let len = F.AGI_END;
  let crc = F.AGI_CRC;
  let size = sb.sectsize;
  if (what === 1) {
    // The blocks of the trees come first.
    at = sb.agbToDaddr(pag.agno, blocks[prng.below(2)]!) * 512;
    len = 56 + 16 * Math.min(chunks.length, 20);
    crc = F.SBB_CRC;
    size = sb.blocksize;
  } else if (what === 2) {
    const ips = [...model.used.values()];
    const { ino } = ips[prng.below(ips.length)]!;
    const block = sb.inoToFsb(ino);
    at = sb.fsbToByte(block) + ino % sb.inopblock * sb.inodesize;
    len = 176;
    crc = F.DI_CRC;
    size = sb.inodesize;
  }
  const data = new Uint8Array(size);
  device.peek(at, data);
  const view = new DataView(data.buffer);
  const field = prng.below(len / 4) * 4;
  const values = [0, 1, 0xffff_ffff, prng.u32(), prng.below(5000), 64];
  if (prng.below(2) === 0) view.setUint32(field, values[prng.below(6)]!);
  else data[field]! ^= 1 << prng.below(8);
  bufSeal(data, crc);
  device.poke(at, data);
}

function useInodes(mp: XfsMount, inos: number[], prng: Prng): void {
  for (let i = 0; i < 40 && !mp.dead; i++) {
    const ino = inos[prng.below(inos.length)]!;
    const ip = newInode(mp, ino);
    const tp = begin(mp, xfsIallocSpaceRes(mp));
    let done: number;
    switch (prng.below(4)) {
      case 0:
        done = xfsDialloc(tp, ino, prng.below(2) === 0 ? S_IFDIR : S_IFREG);
        break;
      case 1:
        done = xfsIfree(tp, ip);
        break;
      case 2:
        done = xfsIunlink(tp, ip);
        break;
      default:
        done = xfsIunlinkRemove(tp, ip);
    }
    assert(Number.isSafeInteger(done), `${done}`);
    if (done < 0) tp.cancel();
    else tp.commit();
  }
}
