import { assert, assertEquals } from "@std/assert";
import {
  bmapConvertUnwritten,
  bmapiConvertDelalloc,
  bmapiRead,
  bmapiReserveDelalloc,
  bmapiWrite,
  bmapPunchDelalloc,
  bunmapi,
  MAX_BMBT_EXTLEN,
} from "../../../fs/xfs/bmap.ts";
import {
  BmbtIrec,
  DELAYSTARTBLOCK,
  HOLESTARTBLOCK,
  IextCursor,
} from "../../../fs/xfs/iext.ts";
import type { XfsInode } from "../../../fs/xfs/inode.ts";
import { EAGAIN, ENOSPC } from "../../../lib/errno.ts";
import { Prng } from "../../../lib/prng.ts";
import { fakeInode, fakeMount } from "./fake.ts";

type Extent = [off: number, block: number, count: number, unwritten: boolean];

function extents(ip: XfsInode): Extent[] {
  const cur = new IextCursor();
  const rec = new BmbtIrec();
  const out: Extent[] = [];
  for (let more = ip.df.first(cur, rec); more; more = ip.df.next(cur, rec)) {
    out.push([rec.startoff, rec.startblock, rec.count, rec.unwritten]);
  }
  return out;
}

/** Promises space for a hole, as a buffered write does. */
function reserve(ip: XfsInode, off: number, len: number): BmbtIrec | number {
  const got = new BmbtIrec();
  const eof = !ip.df.lookup(off, new IextCursor(), got);
  const error = bmapiReserveDelalloc(ip, off, len, 0, got, eof);
  return error < 0 ? error : got;
}

const SPAN = 300;

/** What each block of a file is, and where. */
class Model {
  readonly kind = new Uint8Array(SPAN);
  static readonly HOLE = 0;
  static readonly DELALLOC = 1;
  static readonly UNWRITTEN = 2;
  static readonly WRITTEN = 3;

  set(from: number, to: number, was: number[], kind: number): void {
    for (let b = from; b < Math.min(to, SPAN); b++) {
      if (was.includes(this.kind[b]!)) this.kind[b] = kind;
    }
  }

  /** The promised extent around a block. */
  delallocAround(off: number): [number, number] {
    let from = off;
    let to = off;
    while (this.kind[from - 1] === Model.DELALLOC) from--;
    while (this.kind[to] === Model.DELALLOC) to++;
    return [from, to];
  }
}

function kindOf(block: number, unwritten: boolean): number {
  if (block === DELAYSTARTBLOCK) return Model.DELALLOC;
  return unwritten ? Model.UNWRITTEN : Model.WRITTEN;
}

function check(ip: XfsInode, model: Model, total: number): void {
  const kind = new Uint8Array(SPAN);
  const used = new Set<number>();
  let last: Extent | null = null;
  let delayed = 0;
  for (const e of extents(ip)) {
    const [off, block, count, unwritten] = e;
    kind.fill(kindOf(block, unwritten), off, off + count);
    if (block === DELAYSTARTBLOCK) delayed += count;
    else {
      for (let i = 0; i < count; i++) used.add(block + i);
    }
    if (last !== null) {
      assert(last[0] + last[2] <= off, "extents overlap");
      const joins = last[0] + last[2] === off && last[3] === unwritten &&
        (block < 0 ? last[1] === block : last[1] + last[2] === block);
      assert(!joins, `extents at ${last[0]} and ${off} are not joined`);
    }
    last = e;
  }
  assertEquals(kind, model.kind);
  assertEquals([ip.nblocks, ip.delayedBlocks], [used.size, delayed]);
  const free = ip.mount.fdblocks + ip.mount.poolBlocks;
  assertEquals(free + ip.nblocks + ip.delayedBlocks, total);
}

// Goal: no sequence of operations loses or doubles a block, leaves neighbours
// unjoined, or miscounts. Oracle: one state a block.
Deno.test("bmap operations agree with a map of blocks (seed 11)", () => {
  const prng = new Prng(11, "bmap");
  const mp = fakeMount(2, 400);
  const ip = fakeInode(mp, 128);
  const model = new Model();
  const total = mp.fdblocks + mp.poolBlocks;
  const { HOLE, DELALLOC, UNWRITTEN, WRITTEN } = Model;
  const out = new BmbtIrec();
  for (let round = 0; round < 5000; round++) {
    const off = prng.below(SPAN - 20);
    const len = 1 + prng.below(20);
    const end = off + len;
    switch (prng.below(6)) {
      case 0:
        if (model.kind[off] !== HOLE) break;
        assert(typeof reserve(ip, off, len) !== "number");
        for (let b = off; b < end && model.kind[b] === HOLE; b++) {
          model.kind[b] = DELALLOC;
        }
        break;
      case 1: {
        const was = model.kind[off]!;
        const [from, to] = model.delallocAround(off);
        const error = bmapiConvertDelalloc(ip, off, out);
        assertEquals(error, was === HOLE ? -EAGAIN : 0);
        if (was === DELALLOC) model.set(from, to, [DELALLOC], UNWRITTEN);
        break;
      }
      case 2: {
        const was = model.kind[off]!;
        assertEquals(bmapiWrite(ip, off, len, out), 0);
        assertEquals(out.startoff, off);
        assert(out.count >= 1 && out.endoff <= end && out.startblock > 0);
        if (was === DELALLOC || was === HOLE) {
          model.set(off, out.endoff, [was], UNWRITTEN);
        }
        break;
      }
      case 3:
        bmapConvertUnwritten(ip, off, len);
        model.set(off, end, [UNWRITTEN], WRITTEN);
        break;
      case 4:
        bunmapi(ip, off, end);
        model.kind.fill(HOLE, off, end);
        break;
      case 5:
        bmapPunchDelalloc(ip, off, end);
        model.set(off, end, [DELALLOC], HOLE);
    }
    check(ip, model, total);
  }
  bunmapi(ip, 0, Infinity);
  model.kind.fill(HOLE);
  check(ip, model, total);
});

Deno.test("bmapiRead() cuts extents and holes to the request", () => {
  const ip = fakeInode(fakeMount(1, 1000), 128);
  const out = new BmbtIrec();
  bmapiWrite(ip, 10, 10, out);
  const block = out.startblock;
  const read = (off: number, len: number) => {
    bmapiRead(ip.df, off, len, out);
    return [out.startoff, out.startblock, out.count];
  };
  assertEquals(read(12, 3), [12, block + 2, 3]);
  assertEquals(read(12, 100), [12, block + 2, 8]);
  assertEquals(read(0, 100), [0, HOLESTARTBLOCK, 10]);
  assertEquals(read(0, 4), [0, HOLESTARTBLOCK, 4]);
  assertEquals(read(20, 2 ** 43), [20, HOLESTARTBLOCK, 2 ** 43]);
});

Deno.test("bmapiConvertDelalloc() makes one extent of appends that follow each other", () => {
  const ip = fakeInode(fakeMount(1, 1000), 128);
  const out = new BmbtIrec();
  for (let off = 0; off < 40; off += 4) {
    reserve(ip, off, 4);
    bmapiConvertDelalloc(ip, off, out);
  }
  assertEquals(extents(ip), [[0, out.startblock, 40, true]]);
});

Deno.test("bmapiReserveDelalloc() stops at the next extent, joins neighbours, and answers what is new", () => {
  const ip = fakeInode(fakeMount(1, 1000), 128);
  reserve(ip, 0, 4);
  reserve(ip, 10, 4);
  const got = reserve(ip, 4, 100) as BmbtIrec;
  assertEquals([got.startoff, got.count], [4, 6]);
  assertEquals(extents(ip), [[0, DELAYSTARTBLOCK, 14, false]]);
  assertEquals(ip.delayedBlocks, 14);
});

Deno.test("bmapiReserveDelalloc() answers -ENOSPC and promises nothing when space is short", () => {
  const mp = fakeMount(1, 1000);
  const ip = fakeInode(mp, 128);
  assertEquals(reserve(ip, 0, mp.fdblocks + 1), -ENOSPC);
  assertEquals([ip.delayedBlocks, ip.df.nextents], [0, 0]);
});

Deno.test("a longer run than an extent can be makes two extents", () => {
  const ip = fakeInode(fakeMount(1, 3_000_000), 128);
  const out = new BmbtIrec();
  bmapiWrite(ip, 0, 2_500_000, out);
  assertEquals(out.count, MAX_BMBT_EXTLEN);
  bmapiWrite(ip, out.endoff, 2_500_000 - out.endoff, out);
  const [first, second] = extents(ip);
  assertEquals(second![1], first![1] + MAX_BMBT_EXTLEN);
});

Deno.test("blocks are allocated behind the extent before, in pieces where free space is", () => {
  const mp = fakeMount(1, 200);
  const ip = fakeInode(mp, 128);
  const out = new BmbtIrec();
  // Every second run of ten blocks is free.
  for (let b = 20; b < 200; b += 20) mp.ags[0]!.take(b, 10);
  mp.countFree();
  reserve(ip, 0, 25);
  assertEquals(bmapiConvertDelalloc(ip, 24, out), 0);
  assertEquals(out.endoff >= 25, true);
  const made = extents(ip);
  assertEquals(made.length, 3);
  assertEquals(made.every((e) => e[2] <= 10 && e[3]), true);
});
