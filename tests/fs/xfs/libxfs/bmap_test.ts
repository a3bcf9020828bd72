import { assert, assertEquals } from "@std/assert";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import {
  type BmapShift,
  XFS_BMAPI_CONTIG,
  XFS_BMAPI_CONVERT,
  XFS_BMAPI_EXTSZALIGN,
  XFS_BMAPI_PREALLOC,
  xfsBmapAddExtentUnwrittenReal,
  xfsBmapCanInsertExtents,
  xfsBmapCollapseExtents,
  xfsBmapDelExtentCow,
  xfsBmapDelExtentDelay,
  xfsBmapiConvertDelalloc,
  xfsBmapInsertExtents,
  xfsBmapiRead,
  xfsBmapiReserveDelalloc,
  xfsBmapiWrite,
  xfsBmapMapExtent,
  xfsBmapSplitExtent,
  xfsBmapUnmapExtent,
  xfsBunmapi,
  xfsBunmapiRange,
  xfsTrimExtent,
} from "../../../../fs/xfs/libxfs/bmap.ts";
import { xfsExtentBusyClearAll } from "../../../../fs/xfs/libxfs/extent-busy.ts";
import {
  BB_LEVEL,
  XFS_COW_FORK,
  XFS_DATA_FORK,
  XFS_DIFLAG_EXTSIZE,
} from "../../../../fs/xfs/libxfs/format.ts";
import {
  BmbtIrec,
  DELAYSTARTBLOCK,
  HOLESTARTBLOCK,
  IextCursor,
  isnullstartblock,
} from "../../../../fs/xfs/libxfs/iext.ts";
import { xfsIflush } from "../../../../fs/xfs/libxfs/inode-buf.ts";
import { xfsIforkInitCow } from "../../../../fs/xfs/libxfs/inode-fork.ts";
import { xfsRefcountFreeCowExtent } from "../../../../fs/xfs/libxfs/refcount.ts";
import {
  type XfsTrans,
  xfsTransAlloc,
} from "../../../../fs/xfs/libxfs/trans.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import { EAGAIN, ENOSPC } from "../../../../lib/errno.ts";
import { Prng } from "../../../../lib/prng.ts";
import { checkFile, checkReload, type Row, rows } from "./bmap_check.ts";
import { checkCounters } from "./alloc_check.ts";
import {
  mountImage,
  newFile,
  newImage,
  newMount,
  transact,
} from "./fixture.ts";

const MiB = 2 ** 20;
/** More than any of the changes here needs for the tree. */
const RES = 100;

/** Promises space for a hole, as a buffered write does. */
function reserve(ip: XfsInode, off: number, len: number): BmbtIrec | number {
  const got = new BmbtIrec();
  const cur = new IextCursor();
  const eof = !ip.df.lookup(off, cur, got);
  const fork = XFS_DATA_FORK;
  const error = xfsBmapiReserveDelalloc(ip, fork, off, len, 0, got, cur, eof);
  return error < 0 ? error : got;
}

/** Allocates or converts. */
function write(
  ip: XfsInode,
  off: number,
  len: number,
  flags: number,
  out: BmbtIrec,
): number {
  return transact(
    ip.mount,
    RES + len,
    (tp) => xfsBmapiWrite(tp, ip, off, len, flags, 0, [out], 1),
  );
}

function unmap(ip: XfsInode, off: number, len: number): number {
  return transact(ip.mount, RES, (tp) => xfsBunmapi(tp, ip, off, len, 0, 0));
}

function truncate(ip: XfsInode, off: number): number {
  return transact(
    ip.mount,
    RES,
    (tp) => xfsBunmapiRange(tp, ip, 0, off, Infinity),
  );
}

/** Takes promised space back. */
function punchDelalloc(ip: XfsInode, off: number, end: number): void {
  const cur = new IextCursor();
  const got = new BmbtIrec();
  const del = new BmbtIrec();
  let more = ip.df.lookupBefore(end, cur, got);
  while (more && got.endoff > off) {
    del.copy(got);
    xfsTrimExtent(del, off, end - off);
    if (del.count === 0 || !isnullstartblock(del.startblock)) {
      more = ip.df.prev(cur, got);
      continue;
    }
    xfsBmapDelExtentDelay(ip, XFS_DATA_FORK, cur, got, del, 0);
    more = ip.df.get(cur, got);
  }
}

function collapse(ip: XfsInode, off: number, len: number): void {
  const shift: BmapShift = { nextFsb: off + len, done: false };
  while (!shift.done) {
    const error = transact(
      ip.mount,
      RES,
      (tp) => xfsBmapCollapseExtents(tp, ip, shift, len),
    );
    assertEquals(error, 0);
  }
}

function insert(ip: XfsInode, off: number, len: number): void {
  assertEquals(xfsBmapCanInsertExtents(ip, off, len), 0);
  const { mount } = ip;
  const split = transact(mount, RES, (tp) => xfsBmapSplitExtent(tp, ip, off));
  assertEquals(split, 0);
  const shift: BmapShift = { nextFsb: -1, done: false };
  while (!shift.done) {
    const error = transact(
      mount,
      RES,
      (tp) => xfsBmapInsertExtents(tp, ip, shift, len, off),
    );
    assertEquals(error, 0);
  }
}

const HOLE = 0;
const DELALLOC = 1;
const UNWRITTEN = 2;
const WRITTEN = 3;

/** What each block of a file is, and where. */
class Model {
  readonly kind: number[];
  readonly block: number[];

  constructor(span: number) {
    this.kind = new Array(span).fill(HOLE);
    this.block = new Array(span).fill(-1);
  }

  /** Blocks of one kind become another. */
  set(from: number, to: number, was: number, kind: number): void {
    for (let b = from; b < Math.min(to, this.kind.length); b++) {
      if (this.kind[b] !== was) continue;
      this.kind[b] = kind;
      if (kind <= DELALLOC) this.block[b] = -1;
    }
  }

  clear(from: number, to: number): void {
    this.kind.fill(HOLE, from, to);
    this.block.fill(-1, from, to);
  }

  /** The promised extent around a block. */
  delallocAround(off: number): [number, number] {
    let from = off;
    let to = off;
    while (this.kind[from - 1] === DELALLOC) from--;
    while (this.kind[to] === DELALLOC) to++;
    return [from, to];
  }

  /** Blocks vanish, and those behind move up; or holes come in. */
  shift(off: number, len: number, out: boolean): void {
    for (const [list, none] of [[this.kind, HOLE], [this.block, -1]] as const) {
      const span = list.length;
      const fill = new Array(len).fill(none);
      if (out) list.splice(off, len, ...[]), list.push(...fill);
      else list.splice(off, 0, ...fill), list.length = span;
    }
  }

  /** The file is like this, and blocks that were allocated are where they were. */
  check(ip: XfsInode): void {
    const span = this.kind.length;
    const kind = new Array(span).fill(HOLE);
    const block = new Array(span).fill(-1);
    const used = new Set<number>();
    for (const [off, start, count, unwritten] of rows(ip)) {
      const delayed = isnullstartblock(start);
      for (let i = 0; i < count; i++) {
        kind[off + i] = delayed ? DELALLOC : unwritten ? UNWRITTEN : WRITTEN;
        if (delayed) continue;
        block[off + i] = start + i;
        assert(!used.has(start + i), `block ${start + i} is in use twice`);
        used.add(start + i);
      }
    }
    assertEquals(kind, this.kind);
    for (let b = 0; b < span; b++) {
      if (this.block[b]! >= 0) assertEquals(block[b], this.block[b]);
      this.block[b] = block[b];
    }
  }
}

/** Promised space cannot be moved. */
function convertAll(ip: XfsInode, model: Model): void {
  const out = new BmbtIrec();
  for (let b = 0; b < model.kind.length; b++) {
    if (model.kind[b] !== DELALLOC) continue;
    assertEquals(xfsBmapiConvertDelalloc(ip, XFS_DATA_FORK, b, out), 0);
    model.set(b, out.endoff, DELALLOC, UNWRITTEN);
  }
}

/** One random operation on file and model. */
function step(prng: Prng, ip: XfsInode, model: Model, most: number): void {
  const span = model.kind.length;
  const off = prng.below(span - 2 * most);
  const len = 1 + prng.below(most);
  const end = off + len;
  const out = new BmbtIrec();
  const was = model.kind[off]!;
  switch (prng.below(10)) {
    case 0:
    case 1: {
      if (was !== HOLE) break;
      const got = reserve(ip, off, len);
      assert(typeof got !== "number");
      model.set(off, got.endoff, HOLE, DELALLOC);
      break;
    }
    case 2: {
      const [from, to] = model.delallocAround(off);
      const error = xfsBmapiConvertDelalloc(ip, XFS_DATA_FORK, off, out);
      assertEquals(error, was === HOLE ? -EAGAIN : 0);
      if (was === DELALLOC) {
        // In pieces, if free space is: those from the beginning on.
        assert(out.startoff <= off && out.endoff > off);
        model.set(from, Math.min(to, out.endoff), DELALLOC, UNWRITTEN);
      }
      break;
    }
    case 3: {
      const flags = prng.below(2) === 0 ? XFS_BMAPI_PREALLOC : 0;
      assertEquals(write(ip, off, len, flags, out), 1);
      assertEquals(out.startoff, off);
      assert(out.count >= 1 && out.endoff <= end && out.startblock > 0);
      const kind = flags === 0 ? WRITTEN : UNWRITTEN;
      model.set(off, out.endoff, HOLE, kind);
      model.set(off, out.endoff, DELALLOC, kind);
      if (flags === 0) model.set(off, out.endoff, UNWRITTEN, WRITTEN);
      break;
    }
    case 4:
    case 5: {
      // Of an extent what is there, one way or the other.
      if (was < UNWRITTEN) break;
      const back = prng.below(4) === 0;
      const flags = XFS_BMAPI_CONVERT | (back ? XFS_BMAPI_PREALLOC : 0);
      let to = off;
      while (to < end && model.kind[to]! >= UNWRITTEN) to++;
      for (let at = off; at < to; at = out.endoff) {
        assertEquals(write(ip, at, to - at, flags, out), 1);
      }
      if (back) model.set(off, to, WRITTEN, UNWRITTEN);
      else model.set(off, to, UNWRITTEN, WRITTEN);
      break;
    }
    case 6:
      assertEquals(unmap(ip, off, len), 1);
      model.clear(off, end);
      break;
    case 7: {
      const { fdblocks } = ip.mount;
      punchDelalloc(ip, off, end);
      // Two extents may need more than one, but there is no more.
      assert(ip.mount.fdblocks >= fdblocks);
      model.set(off, end, DELALLOC, HOLE);
      break;
    }
    case 8:
      if (prng.below(4) > 0) break;
      convertAll(ip, model);
      assertEquals(unmap(ip, off, len), 1);
      collapse(ip, off, len);
      model.shift(off, len, true);
      break;
    case 9:
      if (prng.below(4) > 0) break;
      if (model.kind.slice(-len).some((kind) => kind !== HOLE)) break;
      convertAll(ip, model);
      insert(ip, off, len);
      model.shift(off, len, false);
  }
}

/** Breaks free space up: every second run of a few blocks belongs to another file. */
function fragment(mp: XfsMount, runs: number, len: number): void {
  const other = newFile(mp, 1);
  const out = new BmbtIrec();
  for (let at = 0; at < runs * 2 * len;) {
    const want = runs * 2 * len - at;
    assertEquals(write(other, at, want, XFS_BMAPI_PREALLOC, out), 1);
    at = out.endoff;
  }
  for (let i = 0; i < runs; i++) {
    assertEquals(unmap(other, i * 2 * len, len), 1);
  }
  checkFile(other);
}

for (
  const [blockSize, rmapbt, most, rounds] of [
    [1024, false, 12, 500],
    [4096, false, 12, 500],
    [1024, true, 4, 500],
    [1024, false, 2, 900],
  ] as const
) {
  const name = `${blockSize} bytes a block, ${rmapbt ? "" : "no "}rmapbt, ` +
    `up to ${most} blocks`;
  // Goal: no sequence of operations loses, doubles or moves a block, leaves neighbours
  // unjoined, list and tree apart, or miscounts. Oracle: kind and place of each block.
  Deno.test(`bmap operations agree with a map of blocks: ${name}`, async () => {
    const options = { blockSize, rmapbt };
    const device = await newImage(64 * MiB, options);
    const mp = mountImage(device);
    fragment(mp, 300, 5);
    const ip = newFile(mp);
    const prng = new Prng(11, `bmap ${name}`);
    const model = new Model(400);
    for (let round = 0; round < rounds; round++) {
      step(prng, ip, model, most);
      model.check(ip);
      checkFile(ip);
      if (round % 50 === 0) {
        assertEquals(xfsIflush(ip), 0);
        checkReload(ip);
      }
    }
    assertEquals(xfsIflush(ip), 0);
    assertEquals(await mp.targ.flush(), 0);
    const again = mountImage(device);
    assertEquals(again.sb.fdblocks, mp.sb.fdblocks);
    assertEquals(truncate(ip, 0), 0);
    assertEquals(rows(ip), []);
    checkFile(ip);
  });
}

Deno.test("xfsBmapiRead() cuts extents and holes to the request", async () => {
  const mp = await newMount(64 * MiB);
  const ip = newFile(mp);
  const out = new BmbtIrec();
  assertEquals(write(ip, 10, 10, XFS_BMAPI_PREALLOC, out), 1);
  const block = out.startblock;
  const read = (off: number, len: number) => {
    const maps = [new BmbtIrec(), new BmbtIrec(), new BmbtIrec()];
    const n = xfsBmapiRead(ip, off, len, maps, 3, 0);
    const some = maps.slice(0, n);
    return some.map((m) => [m.startoff, m.startblock, m.count]);
  };
  assertEquals(read(12, 3), [[12, block + 2, 3]]);
  assertEquals(read(12, 100), [[12, block + 2, 8], [20, HOLESTARTBLOCK, 92]]);
  assertEquals(read(0, 12), [[0, HOLESTARTBLOCK, 10], [10, block, 2]]);
  assertEquals(read(20, 2 ** 43), [[20, HOLESTARTBLOCK, 2 ** 43]]);
  reserve(ip, 20, 5);
  assertEquals(read(15, 7), [[15, block + 5, 5], [20, DELAYSTARTBLOCK, 2]]);
});

Deno.test("xfsBmapiConvertDelalloc() makes one extent of appends that follow each other", async () => {
  const mp = await newMount(64 * MiB);
  // The few blocks before the inodes.
  const out = new BmbtIrec();
  write(newFile(mp, 1), 0, 6, XFS_BMAPI_PREALLOC, out);
  const ip = newFile(mp);
  for (let off = 0; off < 40; off += 4) {
    reserve(ip, off, 4);
    xfsBmapiConvertDelalloc(ip, XFS_DATA_FORK, off, out);
  }
  assertEquals(rows(ip), [[0, out.startblock, 40, true]]);
});

Deno.test("xfsBmapiReserveDelalloc() stops at the next extent, joins neighbours, and answers what is new", async () => {
  const mp = await newMount(64 * MiB);
  const ip = newFile(mp);
  reserve(ip, 0, 4);
  reserve(ip, 10, 4);
  const got = reserve(ip, 4, 100) as BmbtIrec;
  assertEquals([got.startoff, got.count], [4, 6]);
  assertEquals(rows(ip).map(([off, , count]) => [off, count]), [[0, 14]]);
  checkFile(ip);
});

Deno.test("xfsBmapiReserveDelalloc() answers -ENOSPC and promises nothing when space is short", async () => {
  const mp = await newMount(64 * MiB);
  const ip = newFile(mp);
  assertEquals(reserve(ip, 0, mp.fdblocks + 1), -ENOSPC);
  assertEquals([ip.delayedBlks, ip.df.count], [0, 0]);
});

Deno.test("xfsBmapDelExtentDelay() shares out what was promised for the tree, and takes no more", async () => {
  const mp = await newMount(64 * MiB);
  const ip = newFile(mp);
  reserve(ip, 0, 400);
  // From the middle outwards, so that extents are cut in two again and again.
  for (let step = 256; step >= 4; step /= 2) {
    for (let off = step / 2; off < 400; off += step) {
      const { fdblocks } = mp;
      punchDelalloc(ip, off, off + 1);
      assert(mp.fdblocks >= fdblocks);
      checkFile(ip);
    }
  }
  const out = new BmbtIrec();
  for (const [off] of rows(ip)) {
    assertEquals(xfsBmapiConvertDelalloc(ip, XFS_DATA_FORK, off, out), 0);
  }
  checkFile(ip);
});

Deno.test("xfsBmapCollapseExtents() joins what continues the extent before", async () => {
  const mp = await newMount(64 * MiB);
  const ip = newFile(mp);
  const out = new BmbtIrec();
  assertEquals(write(ip, 0, 30, 0, out), 1);
  insert(ip, 10, 7);
  assertEquals(rows(ip).map((r) => [r[0], r[2]]), [[0, 10], [17, 20]]);
  collapse(ip, 10, 7);
  assertEquals(rows(ip), [[0, out.startblock, 30, false]]);
  checkFile(ip);
});

Deno.test("blocks are allocated where the nearer neighbour's gap is kept", async () => {
  const mp = await newMount(64 * MiB);
  const ip = newFile(mp);
  const out = new BmbtIrec();
  const at = (off: number, len: number) => {
    assertEquals(write(ip, off, len, 0, out), 1);
    return out.startblock;
  };
  const block = at(0, 100);
  assertEquals(unmap(ip, 10, 80), 1);
  xfsExtentBusyClearAll(mp);
  // Behind what comes before, with the gap; before what comes after, the same.
  assertEquals(at(13, 2), block + 13);
  assertEquals(at(80, 3), block + 80);
  // A gap of more than four times the length is not kept.
  assertEquals(at(30, 1), block + 15);
  assertEquals(at(70, 1), block + 79);
});

// Goal: what has been promised can always be allocated. Every block that can be promised
// is, block by block in a file full of holes, so that the tree takes all it may take.
Deno.test("promised space of a full file system can be allocated to the last block", async () => {
  const mp = await newMount(32 * MiB, { blockSize: 1024, agCount: 2 });
  const ip = newFile(mp);
  let off = 0;
  while (typeof reserve(ip, off, 1) !== "number") off += 2;
  while (typeof reserve(ip, off, 3) !== "number") off += 4;
  const out = new BmbtIrec();
  for (const [at] of rows(ip)) {
    assertEquals(xfsBmapiConvertDelalloc(ip, XFS_DATA_FORK, at, out), 0);
  }
  assertEquals(ip.delayedBlks, 0);
  checkFile(ip);
  assertEquals(truncate(ip, 0), 0);
  checkCounters(mp);
});

Deno.test("xfsBunmapi() of the middle of an extent needs a block for the tree, or changes nothing", async () => {
  const mp = await newMount(64 * MiB, { blockSize: 1024 });
  const out = new BmbtIrec();
  for (const n of [21, 118]) {
    const ip = newFile(mp, n);
    assertEquals(write(ip, 0, 4 * n, XFS_BMAPI_PREALLOC, out), 1);
    for (let i = 0; i < n; i++) assertEquals(unmap(ip, 4 * i, 1), 1);
    let refused = 0;
    for (let i = 0; i < n && refused === 0; i++) {
      const before = rows(ip);
      const off = 4 * i + 2;
      const tp = xfsTransAlloc(mp, 0) as XfsTrans;
      const done = xfsBunmapi(tp, ip, off, 1, 0, 0);
      assertEquals(tp.commit(), 0);
      if (done === -ENOSPC) {
        refused++;
        assertEquals(rows(ip), before);
      } else assertEquals(done, 1);
      checkFile(ip);
    }
    assertEquals(refused, 1);
  }
});

Deno.test("xfsBmapiWrite() with CONTIG allocates all in one piece, or answers -ENOSPC", async () => {
  const mp = await newMount(64 * MiB, { blockSize: 1024, agCount: 2 });
  const ip = newFile(mp);
  const out = new BmbtIrec();
  const { sb } = mp;
  assertEquals(write(ip, 0, 1000, XFS_BMAPI_CONTIG, out), 1);
  assertEquals(out.count, 1000);
  const most = sb.agblocks;
  assertEquals(write(ip, 1000, most, XFS_BMAPI_CONTIG, out), -ENOSPC);
  assertEquals(mp.dead, false);
  checkFile(ip);
  // Without it, as much as there is in one piece.
  assertEquals(write(ip, 1000, most, 0, out), 1);
  assert(out.count < most && out.count > most / 4);
  checkFile(ip);
});

Deno.test("xfsBmapiWrite() widens and aligns what it allocates to the extent size hint", async () => {
  const mp = await newMount(64 * MiB);
  const ip = newFile(mp);
  ip.diflags |= XFS_DIFLAG_EXTSIZE;
  ip.extsize = 16;
  const out = new BmbtIrec();
  const flags = XFS_BMAPI_PREALLOC | XFS_BMAPI_EXTSZALIGN;
  assertEquals(write(ip, 21, 2, flags, out), 1);
  assertEquals([out.startoff, out.count], [21, 2]);
  const [[off, block, count]] = rows(ip) as [Row];
  assertEquals([off, block % 16, count], [16, 0, 16]);
  // Between two extents there is room for what there is room for.
  assertEquals(write(ip, 50, 1, flags, out), 1);
  assertEquals(unmap(ip, 30, 2), 1);
  assertEquals(write(ip, 31, 4, flags, out), 1);
  assertEquals(rows(ip).map((r) => [r[0], r[2]]), [[16, 14], [30, 18], [
    48,
    16,
  ]]);
  checkFile(ip);
});

Deno.test("the copy-on-write fork is promised by the hint, and counts as promised when allocated", async () => {
  const mp = await newMount(64 * MiB);
  const ip = newFile(mp);
  xfsIforkInitCow(ip);
  const fork = ip.cow!;
  const got = new BmbtIrec();
  const out = new BmbtIrec();
  const cur = new IextCursor();
  const free = mp.sb.fdblocks;
  const eof = !fork.lookup(40, cur, got);
  const whichfork = XFS_COW_FORK;
  assertEquals(
    xfsBmapiReserveDelalloc(ip, whichfork, 40, 2, 0, got, cur, eof),
    0,
  );
  assertEquals([got.startoff, got.count, ip.delayedBlks], [32, 32, 32]);
  assert(mp.blockgc.has(ip));
  assertEquals(xfsBmapiConvertDelalloc(ip, whichfork, 40, out), 0);
  assertEquals([out.startoff, out.count, out.unwritten], [32, 32, true]);
  assertEquals([ip.delayedBlks, ip.nblocks, fork.nextents], [32, 0, 1]);
  assertEquals(mp.sb.fdblocks, free - 32);
  // Two blocks are written, and leave the fork for the file.
  assert(fork.lookup(40, cur, got));
  const part = new BmbtIrec().copy(got);
  xfsTrimExtent(part, 40, 2);
  part.unwritten = false;
  assertEquals(
    xfsBmapAddExtentUnwrittenReal(null, ip, whichfork, cur, part),
    0,
  );
  assertEquals(rows(ip, whichfork).map((r) => [r[0], r[2], r[3]]), [
    [32, 8, true],
    [40, 2, false],
    [42, 22, true],
  ]);
  const moved = transact(mp, RES, (tp) => {
    assert(fork.lookup(40, cur, got));
    xfsRefcountFreeCowExtent(tp, part.startblock, part.count);
    xfsBmapMapExtent(tp, ip, XFS_DATA_FORK, part);
    xfsBmapDelExtentCow(ip, cur, got, part);
    return 0;
  });
  assertEquals(moved, 0);
  assertEquals(rows(ip), [[40, part.startblock, 2, false]]);
  assertEquals([ip.delayedBlks, ip.nblocks, fork.nextents], [30, 2, 2]);
  // The first extent goes, and the place is before all.
  assert(fork.lookup(32, cur, got));
  xfsBmapDelExtentCow(ip, cur, got, new BmbtIrec().copy(got));
  assertEquals(fork.get(cur, got), false);
  assertEquals([fork.next(cur, got), got.startoff], [true, 42]);
});

Deno.test("xfsBmapUnmapExtent() and xfsBmapMapExtent() move blocks from file to file", async () => {
  const mp = await newMount(64 * MiB, { rmapbt: true });
  const [a, b] = [newFile(mp), newFile(mp, 1)];
  const out = new BmbtIrec();
  assertEquals(write(a, 0, 10, 0, out), 1);
  const free = mp.sb.fdblocks;
  const rec = new BmbtIrec().set(3, out.startblock + 3, 4, false);
  const moved = transact(mp, RES, (tp) => {
    xfsBmapUnmapExtent(tp, a, XFS_DATA_FORK, rec);
    xfsBmapMapExtent(tp, b, XFS_DATA_FORK, rec);
    assertEquals(b.delayedBlks, 4);
    return 0;
  });
  assertEquals(moved, 0);
  const block = out.startblock;
  assertEquals(rows(a), [[0, block, 3, false], [7, block + 7, 3, false]]);
  assertEquals(rows(b), [[3, block + 3, 4, false]]);
  assertEquals([a.nblocks, b.nblocks, b.delayedBlks], [6, 4, 0]);
  assertEquals(mp.sb.fdblocks, free);
  checkFile(a);
  checkFile(b);
});

Deno.test("a tree of two levels and more grows and shrinks as its extents do", async () => {
  const mp = await newMount(64 * MiB, { blockSize: 1024 });
  const ip = newFile(mp);
  const out = new BmbtIrec();
  const n = 2500;
  const prng = new Prng(5, "levels");
  for (let at = 0; at < 2 * n; at = out.endoff) {
    assertEquals(write(ip, at, 2 * n - at, XFS_BMAPI_PREALLOC, out), 1);
  }
  const order = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = prng.below(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  for (const [done, i] of order.entries()) {
    assertEquals(unmap(ip, 2 * i, 1), 1);
    if (done % 500 === 0) checkFile(ip);
  }
  assertEquals(ip.df.broot!.view.getUint16(BB_LEVEL), 2);
  assertEquals(xfsIflush(ip), 0);
  checkReload(ip);
  for (const [done, i] of order.reverse().entries()) {
    assertEquals(unmap(ip, 2 * i + 1, 1), 1);
    if (done % 500 === 0) checkFile(ip);
  }
  checkFile(ip);
  assertEquals([ip.df.count, ip.nblocks], [0, 0]);
});
