import { assert, assertEquals } from "@std/assert";
import { XFS_AG_RESV_NONE } from "../../../../fs/xfs/libxfs/ag-resv.ts";
import {
  XFS_ALLOC_USERDATA,
  XfsAllocArg,
  xfsAllocMinFreelist,
  xfsAllocVextentExactBno,
  xfsAllocVextentNearBno,
  xfsAllocVextentStartAg,
  xfsAllocVextentThisAg,
  xfsFreeExtentLater,
} from "../../../../fs/xfs/libxfs/alloc.ts";
import { bufSeal } from "../../../../fs/xfs/libxfs/buf.ts";
import { xfsExtentBusyClearAll } from "../../../../fs/xfs/libxfs/extent-busy.ts";
import * as F from "../../../../fs/xfs/libxfs/format.ts";
import { xfsTransAlloc } from "../../../../fs/xfs/libxfs/trans.ts";
import type { MkfsXfsOptions } from "../../../../fs/xfs/mkfs.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import { setLogHandler } from "../../../../lib/printk.ts";
import { Prng } from "../../../../lib/prng.ts";
import { checkCounters, checkFreeSpace, usedBlocks } from "./alloc_check.ts";
import { begin, newImage, newMount, openMount } from "./fixture.ts";
import { MemoryDevice } from "./memory_device.ts";

const MiB = 2 ** 20;

interface Extent {
  fsbno: number;
  len: number;
}

type Ask = (args: XfsAllocArg) => number;

/** Allocates in a transaction of its own; null if there is nothing. */
function allocate(
  mp: XfsMount,
  len: number,
  ask: Ask,
  set: Partial<XfsAllocArg> = {},
): Extent | null {
  const tp = xfsTransAlloc(mp, len);
  if (typeof tp === "number") return null;
  const args = new XfsAllocArg().init(tp);
  args.minlen = args.maxlen = len;
  args.datatype = XFS_ALLOC_USERDATA;
  Object.assign(args, set);
  const error = ask(args);
  if (error < 0) {
    assert(mp.dead, `allocation: ${error}`);
    tp.cancel();
    return null;
  }
  assert(args.fsbno === F.NULLFSBLOCK || args.len <= len);
  const error2 = tp.commit();
  assert(error2 === 0 || mp.dead);
  return args.fsbno === F.NULLFSBLOCK
    ? null
    : { fsbno: args.fsbno, len: args.len };
}

function free(mp: XfsMount, { fsbno, len }: Extent): number {
  const tp = begin(mp);
  const error = xfsFreeExtentLater(tp, fsbno, len, null, XFS_AG_RESV_NONE);
  if (error === 0) return tp.commit();
  tp.cancel();
  return error;
}

class Model {
  readonly mp: XfsMount;
  readonly used: Uint8Array[];
  readonly extents: Extent[] = [];

  constructor(mp: XfsMount) {
    this.mp = mp;
    this.used = mp.perags.map(usedBlocks);
  }

  take(extent: Extent): void {
    this.extents.push(extent);
    this.#mark(extent, 0, 1);
  }

  drop(i: number): Extent {
    const extent = this.extents[i]!;
    this.extents[i] = this.extents.at(-1)!;
    this.extents.pop();
    this.#mark(extent, 1, 0);
    return extent;
  }

  #mark({ fsbno, len }: Extent, from: number, to: number): void {
    const { sb } = this.mp;
    const used = this.used[sb.fsbToAgno(fsbno)]!;
    const agbno = sb.fsbToAgbno(fsbno);
    for (let i = agbno; i < agbno + len; i++) {
      assertEquals(used[i], from, `block ${i}`);
      used[i] = to;
    }
  }

  check(): void {
    for (const pag of this.mp.perags) checkFreeSpace(pag, this.used[pag.agno]!);
    checkCounters(this.mp);
    assert(!this.mp.dead);
  }
}

const ASKS: ((mp: XfsMount, target: number) => Ask)[] = [
  (_mp, target) => (args) => xfsAllocVextentNearBno(args, target),
  (_mp, target) => (args) => xfsAllocVextentStartAg(args, target),
  (mp, target) => (args) => {
    const agno = mp.sb.fsbToAgno(target);
    return xfsAllocVextentThisAg(args, agno);
  },
  (_mp, target) => (args) => xfsAllocVextentExactBno(args, target),
];

// Goal: what is allocated was free and is as asked for, and nothing is lost. Method:
// random allocations of every kind and frees, syncs in between, from an empty to a full
// file system and back. Oracle: a byte for each block, and all the structures.
for (
  const [name, bytes, options] of [
    ["blocks of 1 KiB", 32 * MiB, { blockSize: 1024, agCount: 2 }],
    ["blocks of 4 KiB", 64 * MiB, { agCount: 4 }],
    ["rmapbt", 32 * MiB, { blockSize: 1024, agCount: 2, rmapbt: true }],
  ] as [string, number, MkfsXfsOptions][]
) {
  Deno.test(`allocation agrees with a bitmap: ${name} (seed 5)`, async () => {
    const mp = await newMount(bytes, options);
    const model = new Model(mp);
    const prng = new Prng(5, name);
    const { sb } = mp;
    for (let step = 0; step < 1200; step++) {
      const full = Math.floor(step / 400) % 2 === 0 ? 8 : 2;
      if (prng.below(10) < full) {
        const agno = prng.below(sb.agcount);
        const agbno = sb.headerBlocks + prng.below(sb.agSize(agno) - 8);
        const target = sb.agbToFsb(agno, agbno);
        const kind = prng.below(ASKS.length);
        const len = 1 + prng.below(prng.below(4) === 0 ? 400 : 40);
        const minlen = 1 + prng.below(len);
        const alignment = kind < 3 && prng.below(3) === 0 ? 8 : 1;
        const got = allocate(mp, len, ASKS[kind]!(mp, target), {
          minlen,
          alignment,
          ...(kind === 0 && prng.below(8) === 0 ? { mod: 1, prod: 4 } : {}),
        });
        if (got !== null) {
          assert(got.len >= minlen && got.len <= len);
          assertEquals(sb.fsbToAgbno(got.fsbno) % alignment, 0);
          if (kind === 3) assertEquals(got.fsbno, target);
          if (kind === 0 || kind === 2) {
            assertEquals(sb.fsbToAgno(got.fsbno), agno);
          }
          model.take(got);
        }
      } else if (model.extents.length > 0) {
        const extent = model.drop(prng.below(model.extents.length));
        assertEquals(free(mp, extent), 0);
      }
      if (prng.below(20) === 0) xfsExtentBusyClearAll(mp);
      if (step % 4 === 0) model.check();
    }
    model.check();
    while (model.extents.length > 0) assertEquals(free(mp, model.drop(0)), 0);
    model.check();
    assertEquals(await mp.targ.flush(), 0);
  });
}

Deno.test("a group cut into single blocks has trees of 3 levels, and heals", async () => {
  const mp = await newMount(64 * MiB, { blockSize: 1024, agCount: 2 });
  const model = new Model(mp);
  const target = mp.sb.agbToFsb(0, 100);
  const before = mp.fdblocks;
  for (;;) {
    const got = allocate(mp, 1, (args) => xfsAllocVextentNearBno(args, target));
    if (got === null) break;
    model.take(got);
  }
  const pag = mp.perags[0]!;
  // Another block would take what the AGFL has to have.
  assert(pag.pagfFreeblks <= xfsAllocMinFreelist(mp, pag));
  model.check();
  model.extents.sort((a, b) => b.fsbno - a.fsbno);
  for (let i = model.extents.length - 1; i >= 0; i -= 2) {
    assertEquals(free(mp, model.drop(i)), 0);
  }
  model.check();
  assertEquals([pag.pagfBnoLevel, pag.pagfCntLevel], [3, 3]);
  xfsExtentBusyClearAll(mp);
  while (model.extents.length > 0) {
    assertEquals(free(mp, model.drop(0)), 0);
    if (model.extents.length % 3000 === 0) model.check();
  }
  model.check();
  assertEquals([pag.pagfBnoLevel, pag.pagfCntLevel], [1, 1]);
  assertEquals(mp.fdblocks, before);
  assertEquals(mp.allocbtBlks, 0);
});

Deno.test("the last blocks can be allocated and freed", async () => {
  const mp = await newMount(32 * MiB, { agCount: 2 });
  const model = new Model(mp);
  const any: Ask = (args) => xfsAllocVextentStartAg(args, mp.sb.agbToFsb(0, 1));
  for (const len of [1000, 100, 10, 1]) {
    for (;;) {
      const got = allocate(mp, len, any);
      if (got === null) break;
      model.take(got);
    }
  }
  model.check();
  assert(mp.fdblocks - mp.allocSetAside - mp.allocbtBlks <= 0);
  for (let round = 0; round < 30; round++) {
    const i = round * 7 % model.extents.length;
    const extent = model.drop(i);
    assertEquals(free(mp, extent), 0);
    model.check();
    // Busy as it is, it is taken again: there is nothing else.
    const got = allocate(mp, extent.len, any, { minlen: 1 });
    assert(got !== null);
    model.take(got);
    model.check();
  }
  while (model.extents.length > 0) assertEquals(free(mp, model.drop(0)), 0);
  model.check();
});

Deno.test("by size, a shorter extent is taken if more of it is aligned", async () => {
  const mp = await newMount(32 * MiB, { agCount: 2 });
  const here: Ask = (args) => xfsAllocVextentThisAg(args, 0);
  for (const len of [1000, 100, 10, 1]) {
    while (allocate(mp, len, here) !== null);
  }
  const at = (agbno: number, len: number): Extent => ({
    fsbno: mp.sb.agbToFsb(0, agbno),
    len,
  });
  // Of 15 blocks 8 are aligned, of 14 twelve.
  assertEquals(free(mp, at(1001, 15)), 0);
  assertEquals(free(mp, at(2006, 14)), 0);
  xfsExtentBusyClearAll(mp);
  const got = allocate(mp, 16, here, { minlen: 8, alignment: 8 });
  assertEquals(got, at(2008, 12));
});

Deno.test("an extent that is not the same in both trees is EFSCORRUPTED", async () => {
  const lines: string[] = [];
  const old = setLogHandler((line) => void lines.push(line));
  try {
    const device = await newImage(32 * MiB, { agCount: 2 });
    const block = new Uint8Array(4096);
    device.peek(4096, block);
    const view = new DataView(block.buffer);
    const last = 56 + 8 * (view.getUint16(F.BB_NUMRECS) - 1);
    view.setUint32(last + 4, view.getUint32(last + 4) - 1);
    bufSeal(block, F.SBB_CRC);
    device.poke(4096, block);
    const mp = openMount(device) as XfsMount;
    const got = allocate(mp, 9, (args) => xfsAllocVextentThisAg(args, 0));
    assertEquals(got, null);
    assert(mp.dead);
    assert(lines.some((line) => line.includes("xfs_bnobt")));
  } finally {
    setLogHandler(old);
  }
});

Deno.test("data avoids blocks that are busy, until a sync", async () => {
  const mp = await newMount(32 * MiB, { agCount: 2 });
  const target = mp.sb.agbToFsb(0, 500);
  const near: Ask = (args) => xfsAllocVextentNearBno(args, target);
  const exact: Ask = (args) => xfsAllocVextentExactBno(args, target);
  const first = allocate(mp, 10, near)!;
  assertEquals(first.fsbno, target);
  assertEquals(free(mp, first), 0);
  assertEquals(allocate(mp, 10, exact), null);
  assert(allocate(mp, 10, near)!.fsbno !== target);
  xfsExtentBusyClearAll(mp);
  assertEquals(allocate(mp, 10, exact), first);
});

Deno.test("freeing what is free is EFSCORRUPTED and shuts down", async () => {
  const old = setLogHandler(() => {});
  try {
    const mp = await newMount(32 * MiB, { agCount: 2 });
    assert(free(mp, { fsbno: mp.sb.agbToFsb(0, 600), len: 4 }) < 0);
    assert(mp.dead);
    const other = await newMount(32 * MiB, { agCount: 2 });
    assert(free(other, { fsbno: other.sb.agbToFsb(1, 0), len: 1 }) < 0);
  } finally {
    setLogHandler(old);
  }
});

Deno.test("an AGFL that is not as long as it says is emptied", async () => {
  const lines: string[] = [];
  const old = setLogHandler((line) => void lines.push(line));
  try {
    const device = await newImage(32 * MiB, { agCount: 2 });
    const agf = new Uint8Array(512);
    const at = 16 * MiB + 512;
    device.peek(at, agf);
    new DataView(agf.buffer).setUint32(F.AGF_FLLAST, 7);
    bufSeal(agf, F.AGF_CRC);
    device.poke(at, agf);
    const mp = openMount(device) as XfsMount;
    const pag = mp.perags[1]!;
    assert(pag.pagfAgflreset);
    const ask: Ask = (args) => xfsAllocVextentThisAg(args, 1);
    assert(allocate(mp, 3, ask) !== null);
    assert(!pag.pagfAgflreset);
    assertEquals(pag.pagfFlcount, xfsAllocMinFreelist(mp, pag));
    assert(lines.some((line) => line.includes("Reset corrupted AGFL on AG 1")));
  } finally {
    setLogHandler(old);
  }
});

// Goal: no image makes the allocator throw or hang. Method: bytes of AGF, AGFL and the
// roots of both trees of a group in use are changed, and sealed again; then blocks are
// allocated and freed until something is noticed.
Deno.test("broken free space gives errors and nothing else (seed 6)", async () => {
  const old = setLogHandler(() => {});
  try {
    const good = await newMount(32 * MiB, { blockSize: 1024, agCount: 2 });
    const any: Ask = (args) => xfsAllocVextentThisAg(args, 1);
    const kept: Extent[] = [];
    for (let i = 0; i < 300; i++) kept.push(allocate(good, 1 + i % 7, any)!);
    for (let i = 0; i < 300; i += 2) assertEquals(free(good, kept[i]!), 0);
    assertEquals(await good.targ.flush(), 0);
    const image = good.bdev as MemoryDevice;
    const { sb } = good;
    const header = (sector: number) => sb.agHeaderDaddr(1, sector) * 512;
    const agf = new DataView(new ArrayBuffer(512));
    image.peek(header(1), new Uint8Array(agf.buffer));
    const root = (field: number) =>
      sb.agbToDaddr(1, agf.getUint32(field)) * 512;
    const places: [at: number, len: number, crc: number, hot: number][] = [
      [header(1), 512, F.AGF_CRC, 64],
      [header(3), 512, F.AGFL_CRC, 80],
      [root(F.AGF_BNOROOT), 1024, F.SBB_CRC, 200],
      [root(F.AGF_CNTROOT), 1024, F.SBB_CRC, 200],
    ];
    let noticed = 0;
    for (let round = 0; round < 200; round++) {
      const prng = new Prng(6, `${round}`);
      const [at, len, crc, hot] = places[round % 4]!;
      const block = new Uint8Array(len);
      image.peek(at, block);
      for (let i = 0; i <= prng.below(3); i++) {
        block[prng.below(prng.below(3) === 0 ? len : hot)] = prng.below(256);
      }
      bufSeal(block, crc);
      const device = new MemoryDevice(32 * MiB, image);
      device.poke(at, block);
      const mp = openMount(device);
      if (typeof mp === "number") {
        noticed++;
        continue;
      }
      for (let i = 0; i < 30 && !mp.dead; i++) {
        const target = mp.sb.agbToFsb(1, 20 + prng.below(2000));
        allocate(mp, 1 + prng.below(20), ASKS[prng.below(4)]!(mp, target));
        if (i * 2 + 1 < kept.length && !mp.dead) free(mp, kept[i * 2 + 1]!);
      }
      if (mp.dead) noticed++;
    }
    assert(noticed > 50, `${noticed}`);
  } finally {
    setLogHandler(old);
  }
});
