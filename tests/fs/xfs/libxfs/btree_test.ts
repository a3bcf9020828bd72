import { assert, assertEquals } from "@std/assert";
import {
  XFS_LOOKUP_EQ,
  XFS_LOOKUP_GE,
  XFS_LOOKUP_LE,
  xfsBtreeAllocCursor,
  type XfsBtreeBlock,
  xfsBtreeCalcSize,
  xfsBtreeComputeMaxlevels,
  xfsBtreeCountBlocks,
  type XfsBtreeCur,
  xfsBtreeDecrement,
  xfsBtreeDelCursor,
  xfsBtreeDelete,
  xfsBtreeGetRec,
  xfsBtreeGotoFirst,
  xfsBtreeGotoLast,
  xfsBtreeIncrement,
  xfsBtreeInitBlock,
  xfsBtreeInsert,
  xfsBtreeLookup,
  XfsBtreeOps,
  xfsBtreeQueryAll,
  xfsBtreeQueryRange,
  xfsBtreeSpaceToHeight,
  xfsBtreeUpdate,
} from "../../../../fs/xfs/libxfs/btree.ts";
import type { XfsBuf } from "../../../../fs/xfs/libxfs/buf.ts";
import { bufSeal } from "../../../../fs/xfs/libxfs/buf.ts";
import * as F from "../../../../fs/xfs/libxfs/format.ts";
import { xfsBnobtOps } from "../../../../fs/xfs/libxfs/alloc-btree.ts";
import { xfsRmapbtOps } from "../../../../fs/xfs/libxfs/rmap-btree.ts";
import { XfsSb } from "../../../../fs/xfs/libxfs/sb.ts";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import { EFSCORRUPTED } from "../../../../lib/errno.ts";
import { setLogHandler } from "../../../../lib/printk.ts";
import { Prng } from "../../../../lib/prng.ts";
import { begin, newMount } from "./fixture.ts";

const MiB = 2 ** 20;
const MAGIC = 0x54455354;
const INO = 131;
const IROOT_MAX = 5;

/** `start` and `owner` are the key; the record goes to `start + len - 1`. */
interface Rec {
  start: number;
  len: number;
  owner: number;
}

/** A tree with large records, so that few of them make many levels. */
class TestOps extends XfsBtreeOps<Rec> {
  root = 0;
  levels = 1;
  readonly broot: XfsBtreeBlock;
  readonly free: number[] = [];
  taken = 0;

  constructor(ptrLen: 4 | 8, overlapping: boolean) {
    super("test", MAGIC, ptrLen, 96, overlapping ? 20 : 40, overlapping);
    const data = new Uint8Array(1024);
    this.broot = { data, view: new DataView(data.buffer) };
    for (let i = 0; i < 4000; i++) this.free.push(5000 + i * 3 % 4000);
  }

  newRec(): Rec {
    return { start: 0, len: 0, owner: 0 };
  }
  copyRec(from: Rec, to: Rec): void {
    Object.assign(to, from);
  }
  getRec(view: DataView, at: number, rec: Rec): void {
    rec.start = view.getUint32(at);
    rec.owner = view.getUint32(at + 4);
    rec.len = view.getUint32(at + 40);
  }
  putRec(view: DataView, at: number, rec: Rec): void {
    view.setUint32(at, rec.start);
    view.setUint32(at + 4, rec.owner);
    view.setUint32(at + 40, rec.len);
  }
  initKeyFromRec(key: DataView, ka: number, rec: DataView, ra: number): void {
    key.setUint32(ka, rec.getUint32(ra));
    key.setUint32(ka + 4, rec.getUint32(ra + 4));
  }
  initHighKeyFromRec(
    key: DataView,
    ka: number,
    rec: DataView,
    ra: number,
  ): void {
    key.setUint32(ka, rec.getUint32(ra) + rec.getUint32(ra + 40) - 1);
    key.setUint32(ka + 4, rec.getUint32(ra + 4));
  }
  cmpKeyWithRec(view: DataView, at: number, rec: Rec): number {
    return view.getUint32(at) - rec.start ||
      view.getUint32(at + 4) - rec.owner;
  }
  cmpRecWithRec(view: DataView, at: number, rec: Rec): number {
    return this.cmpKeyWithRec(view, at, rec);
  }
  cmpTwoKeys(a: DataView, aAt: number, b: DataView, bAt: number): number {
    return a.getUint32(aAt) - b.getUint32(bAt) ||
      a.getUint32(aAt + 4) - b.getUint32(bAt + 4);
  }
  recsInorder(view: DataView, a: number, b: number): boolean {
    return this.cmpTwoKeys(view, a, view, b) < 0;
  }
  maxlevels(): number {
    return 6;
  }
  allocBlock(cur: XfsBtreeCur<Rec>, near: number): number {
    assert(near > 0);
    const agbno = this.free.pop();
    if (agbno === undefined) return 0;
    this.taken++;
    return this.ptrLen === 8 ? cur.mp.sb.agbToFsb(1, agbno) : agbno;
  }
  freeBlock(cur: XfsBtreeCur<Rec>, bp: XfsBuf): number {
    const { sb } = cur.mp;
    const agno = this.ptrLen === 8 ? 1 : 0;
    this.free.push(bp.daddr / sb.bbPerBlock - agno * sb.agblocks);
    this.taken--;
    return 0;
  }
  override rootPtr(): number {
    return this.root;
  }
  override setRoot(_cur: unknown, ptr: number, levels: number): void {
    this.root = ptr;
    this.levels += levels;
  }
  override iroot(): XfsBtreeBlock {
    return this.broot;
  }
  override irootMaxrecs(): number {
    return IROOT_MAX;
  }
  override logIroot(cur: XfsBtreeCur<Rec>): void {
    assert(cur.tp !== null);
  }
}

class TestTree {
  readonly mp: XfsMount;
  readonly ops: TestOps;

  constructor(mp: XfsMount, ops: TestOps) {
    this.mp = mp;
    this.ops = ops;
    const tp = begin(mp);
    const cur = xfsBtreeAllocCursor(mp, tp, ops);
    this.place(cur);
    const ptr = ops.allocBlock(cur, 1);
    const daddr = ops.ptrLen === 8
      ? mp.sb.fsbToDaddr(ptr)
      : mp.sb.agbToDaddr(0, ptr);
    const bp = tp.getBuf(daddr, mp.sb.bbPerBlock, ops.bufOps);
    xfsBtreeInitBlock(cur, bp, 0);
    tp.logWholeBuf(bp);
    ops.root = ptr;
    if (ops.ptrLen === 8) {
      // A root with one child. Its key is that of the first record.
      ops.broot.view.setUint16(F.BB_LEVEL, 1);
      ops.broot.view.setUint16(F.BB_NUMRECS, 1);
      const at = ops.headerLen + IROOT_MAX * ops.keyLen;
      ops.broot.view.setUint32(at, Math.floor(ptr / 2 ** 32));
      ops.broot.view.setUint32(at + 4, ptr % 2 ** 32);
      bp.view.setUint16(F.BB_NUMRECS, 1);
    }
    xfsBtreeDelCursor(cur);
    assertEquals(tp.commit(), 0);
  }

  place(cur: XfsBtreeCur<Rec>): void {
    const { mp, ops } = this;
    cur.pag = mp.perags[ops.ptrLen === 8 ? 1 : 0]!;
    if (ops.ptrLen === 8) {
      cur.ip = { ino: INO } as XfsInode;
      cur.nlevels = ops.broot.view.getUint16(F.BB_LEVEL) + 1;
    } else cur.nlevels = ops.levels;
  }

  /** Runs `fn` with a cursor in a transaction. */
  with<T>(fn: (cur: XfsBtreeCur<Rec>) => T): T {
    const tp = begin(this.mp);
    const cur = xfsBtreeAllocCursor(this.mp, tp, this.ops);
    this.place(cur);
    const result = fn(cur);
    xfsBtreeDelCursor(cur);
    if (this.mp.dead) tp.cancel();
    else assertEquals(tp.commit(), 0);
    return result;
  }

  find(start: number, owner: number, dir: 0 | 1 | 2): Rec | null {
    return this.with((cur) => {
      Object.assign(cur.rec, { start, owner, len: 0 });
      const there = xfsBtreeLookup(cur, dir);
      const rec = this.ops.newRec();
      if (there === 0) return null;
      assertEquals(xfsBtreeGetRec(cur, rec), 1);
      return rec;
    });
  }

  insert(rec: Rec): number {
    return this.with((cur) => {
      Object.assign(cur.rec, rec);
      assertEquals(xfsBtreeLookup(cur, XFS_LOOKUP_EQ), 0);
      return xfsBtreeInsert(cur);
    });
  }

  delete(rec: Rec): void {
    this.with((cur) => {
      Object.assign(cur.rec, rec);
      assertEquals(xfsBtreeLookup(cur, XFS_LOOKUP_EQ), 1);
      assertEquals(xfsBtreeDelete(cur), 1);
    });
  }

  all(): Rec[] {
    return this.with((cur) => {
      const out: Rec[] = [];
      assertEquals(xfsBtreeQueryAll(cur, collect, out), 0);
      return out;
    });
  }

  /** Every record in the tree's blocks, after the whole structure was checked. */
  check(): Rec[] {
    const { ops, mp } = this;
    const out: Rec[] = [];
    const last = new Map<number, number>();
    const long = ops.ptrLen === 8;
    const count = { blocks: 0 };
    const visit = (
      block: XfsBtreeBlock,
      level: number,
      max: number,
      root: boolean,
    ): [low: number[], high: number[]] => {
      const { view } = block;
      const n = view.getUint16(F.BB_NUMRECS);
      assert(root || n >= Math.floor(max / 2), `level ${level}: ${n}`);
      assert(n <= max);
      if (view !== ops.broot.view) this.#checkBlock(view, level);
      let high = [0, 0];
      const key = (at: number) => [view.getUint32(at), view.getUint32(at + 4)];
      if (level === 0) {
        for (let i = 0; i < n; i++) {
          const rec = ops.newRec();
          ops.getRec(view, ops.headerLen + i * ops.recLen, rec);
          out.push(rec);
          high = higher(high, [rec.start + rec.len - 1, rec.owner]);
        }
        return [key(ops.headerLen), high];
      }
      for (let i = 0; i < n; i++) {
        const at = ops.headerLen + max * ops.keyLen + i * ops.ptrLen;
        const ptr = long
          ? view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4)
          : view.getUint32(at);
        const bp = this.#block(ptr);
        count.blocks++;
        // Siblings, also across parents.
        const left = last.get(level - 1) ?? null;
        assert(this.#sibling(bp.view, 0) === left);
        if (left !== null) {
          assert(this.#sibling(this.#block(left).view, 1) === ptr);
        }
        last.set(level - 1, ptr);
        const cmax = level - 1 === 0
          ? Math.floor((1024 - ops.headerLen) / ops.recLen)
          : Math.floor((1024 - ops.headerLen) / (ops.keyLen + ops.ptrLen));
        // The only child of a root in an inode may have few records.
        const [low, top] = visit(bp, level - 1, cmax, root && n === 1);
        const ka = ops.headerLen + i * ops.keyLen;
        const [start, owner] = key(ka);
        assert(
          start === low[0] && owner === low[1],
          `level ${level}: key ${i}`,
        );
        if (ops.overlapping) {
          const [end, last] = key(ka + ops.lowKeyLen);
          assert(
            end === top[0] && last === top[1],
            `level ${level}: high ${i}`,
          );
        }
        high = higher(high, top);
      }
      return [key(ops.headerLen), high];
    };
    if (long) this.#checkIroot();
    if (long) visit(ops.broot, ops.broot.view.getUint16(4), IROOT_MAX, true);
    else {
      const level = ops.levels - 1;
      const max = level === 0 ? 10 : 22;
      count.blocks++;
      visit(this.#block(ops.root), level, max, true);
    }
    for (const ptr of last.values()) {
      assertEquals(this.#sibling(this.#block(ptr).view, 1), null);
    }
    assertEquals(count.blocks, ops.taken, "a block was lost");
    assertEquals(this.with((cur) => xfsBtreeCountBlocks(cur)), ops.taken);
    assert(!mp.dead);
    return out;
  }

  /** The only child of the root is a leaf, or has too much in it for the root. */
  #checkIroot(): void {
    const { view } = this.ops.broot;
    if (view.getUint16(F.BB_NUMRECS) > 1) return;
    if (view.getUint16(F.BB_LEVEL) === 1) return;
    const at = 72 + IROOT_MAX * 40;
    const ptr = view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
    assert(this.#block(ptr).view.getUint16(F.BB_NUMRECS) > IROOT_MAX);
  }

  #checkBlock(view: DataView, level: number): void {
    assertEquals(view.getUint32(0), MAGIC);
    assertEquals(view.getUint16(F.BB_LEVEL), level);
  }

  #sibling(view: DataView, side: number): number | null {
    const long = this.ops.ptrLen === 8;
    const at = 8 + side * this.ops.ptrLen;
    if (!long) {
      const ptr = view.getUint32(at);
      return ptr === 0xffff_ffff ? null : ptr;
    }
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    return high === 0xffff_ffff ? null : high * 2 ** 32 + low;
  }

  #block(ptr: number): XfsBuf {
    const { sb, targ } = this.mp;
    const daddr = this.ops.ptrLen === 8
      ? sb.fsbToDaddr(ptr)
      : sb.agbToDaddr(0, ptr);
    const bp = targ.read(daddr, sb.bbPerBlock, this.ops.bufOps);
    if (typeof bp === "number") throw new Error(`read ${bp}`);
    assertEquals(this.ops.bufOps.verify(bp, targ), null);
    return bp;
  }
}

function higher(a: number[], b: number[]): number[] {
  return (a[0]! - b[0]! || a[1]! - b[1]!) > 0 ? a : b;
}

function collect(_cur: unknown, rec: Rec, out: Rec[]): number {
  out.push({ ...rec });
  return 0;
}

/** As assertEquals, which takes its time. */
function assertSame(got: Rec[], wanted: Rec[]): void {
  assertEquals(got.length, wanted.length);
  for (let i = 0; i < got.length; i++) {
    const [a, b] = [got[i]!, wanted[i]!];
    const same = a.start === b.start && a.len === b.len && a.owner === b.owner;
    if (!same) assertEquals(a, b, `record ${i}`);
  }
}

function order(a: Rec, b: Rec): number {
  return a.start - b.start || a.owner - b.owner;
}

async function testTree(
  ptrLen: 4 | 8,
  overlapping: boolean,
): Promise<TestTree> {
  const mp = await newMount(64 * MiB, { blockSize: 1024, agCount: 2 });
  return new TestTree(mp, new TestOps(ptrLen, overlapping));
}

// Goal: the tree is what a sorted array is, and sound after every step. Method: random
// inserts, deletes, updates and look-ups; it grows to 350 records, which is 3 levels,
// and shrinks to none, twice. Oracle: the array, and a walk through all blocks.
for (
  const [ptrLen, overlapping] of [[4, false], [4, true], [8, false]] as const
) {
  const kind = `${ptrLen === 4 ? "short" : "long"}${
    overlapping ? ", overlapping" : ""
  }`;
  Deno.test(`a tree (${kind}) agrees with a sorted array (seed 1)`, async () => {
    const tree = await testTree(ptrLen, overlapping);
    const prng = new Prng(1, kind);
    const model: Rec[] = [];
    if (ptrLen === 8) model.push(...tree.all());
    let highest = 0;
    for (let step = 0; step < 4000; step++) {
      const phase = Math.floor(step / 1000) % 2;
      const grow = prng.below(10) < (phase === 0 ? 8 : 1);
      const start = prng.below(4000);
      const owner = prng.below(overlapping ? 3 : 1);
      const at = model.findIndex((r) =>
        order(r, { start, owner, len: 0 }) >= 0
      );
      const i = at < 0 ? model.length : at;
      const exact = model[i]?.start === start && model[i]?.owner === owner;
      const ge = tree.find(start, owner, XFS_LOOKUP_GE);
      assertEquals(ge, model[i] ?? null);
      const le = tree.find(start, owner, XFS_LOOKUP_LE);
      assertEquals(le, (exact ? model[i] : model[i - 1]) ?? null);
      assertEquals(
        tree.find(start, owner, XFS_LOOKUP_EQ),
        exact ? model[i]! : null,
      );
      if (grow && !exact && model.length < 350) {
        const rec = {
          start,
          owner,
          len: 1 + prng.below(overlapping ? 300 : 1),
        };
        assertEquals(tree.insert(rec), 1);
        model.splice(i, 0, rec);
      } else if (grow && exact) {
        const rec = {
          ...model[i]!,
          len: 1 + prng.below(overlapping ? 300 : 1),
        };
        tree.with((cur) => {
          Object.assign(cur.rec, rec);
          assertEquals(xfsBtreeLookup(cur, XFS_LOOKUP_EQ), 1);
          Object.assign(cur.rec, rec);
          assertEquals(xfsBtreeUpdate(cur), 0);
        });
        model[i] = rec;
      } else if (!grow && model.length > (ptrLen === 8 ? 1 : 0)) {
        const [rec] = model.splice(Math.min(i, model.length - 1), 1);
        tree.delete(rec!);
      }
      assertSame(tree.check(), model);
      highest = Math.max(
        highest,
        ptrLen === 8 ? tree.ops.broot.view.getUint16(4) + 1 : tree.ops.levels,
      );
    }
    assert(highest >= 3, `${highest} levels`);
    assertEquals(tree.all(), model);
  });
}

Deno.test("xfsBtreeQueryRange() finds what overlaps a range (seed 2)", async () => {
  for (const overlapping of [false, true]) {
    const tree = await testTree(4, overlapping);
    const prng = new Prng(2, "query");
    const model: Rec[] = [];
    for (let start = 3, i = 0; i < 400; i++) {
      const len = 1 + prng.below(overlapping ? 60 : 5);
      const rec = { start, len, owner: 0 };
      model.push(rec);
      assertEquals(tree.insert(rec), 1);
      start += overlapping ? 1 + prng.below(9) : len + prng.below(4);
    }
    for (let round = 0; round < 300; round++) {
      const low = prng.below(model.at(-1)!.start + 50);
      const high = low + prng.below(40);
      const got = tree.with((cur) => {
        const out: Rec[] = [];
        const a = { start: low, owner: 0, len: 1 };
        const b = { start: high, owner: 0, len: 1 };
        assertEquals(xfsBtreeQueryRange(cur, a, b, collect, out), 0);
        return out;
      });
      const wanted = model.filter((r) =>
        r.start <= high && r.start + r.len - 1 >= low
      );
      assertEquals(got, wanted, `${low} … ${high}`);
    }
    const stopped = tree.with((cur) =>
      xfsBtreeQueryAll(cur, (_cur, rec) => rec.start > 100 ? 7 : 0, null)
    );
    assertEquals(stopped, 7);
  }
});

Deno.test("xfsBtreeIncrement() and decrement() walk the whole tree", async () => {
  const tree = await testTree(4, false);
  for (let i = 0; i < 300; i++) tree.insert({ start: i * 2, len: 1, owner: 0 });
  tree.with((cur) => {
    const rec = tree.ops.newRec();
    assertEquals(xfsBtreeGotoFirst(cur), 1);
    for (let i = 0; i < 300; i++) {
      xfsBtreeGetRec(cur, rec);
      assertEquals(rec.start, i * 2);
      assertEquals(xfsBtreeIncrement(cur), i < 299 ? 1 : 0);
    }
    assertEquals(xfsBtreeGotoLast(cur), 1);
    for (let i = 299; i >= 0; i--) {
      xfsBtreeGetRec(cur, rec);
      assertEquals(rec.start, i * 2);
      assertEquals(xfsBtreeDecrement(cur), i > 0 ? 1 : 0);
    }
  });
});

Deno.test("xfsBtreeInsert() answers 0 when there is no block to be had", async () => {
  const tree = await testTree(4, false);
  tree.ops.free.length = 0;
  for (let i = 0; i < 10; i++) {
    assertEquals(tree.insert({ start: i, len: 1, owner: 0 }), 1);
  }
  const done = tree.with((cur) => {
    cur.rec.start = 20;
    assertEquals(xfsBtreeLookup(cur, XFS_LOOKUP_EQ), 0);
    return xfsBtreeInsert(cur);
  });
  assertEquals(done, 0);
});

Deno.test("sizes of trees are those of the kernel", () => {
  const sb = new XfsSb();
  // bnobt of 32768 blocks of 4 KiB: 16384 records, 252 and 168 at least.
  assertEquals(xfsBtreeComputeMaxlevels(sb, xfsBnobtOps, 16384), 2);
  assertEquals(xfsBtreeCalcSize(sb, xfsBnobtOps, 16384), 67);
  // rmapbt: 45 children at least.
  assertEquals(xfsBtreeSpaceToHeight(sb, xfsRmapbtOps, 1), 1);
  assertEquals(xfsBtreeSpaceToHeight(sb, xfsRmapbtOps, 32768), 4);
  // Blocks of 1 KiB: 60 and 40.
  sb.blocksize = 1024;
  assertEquals(xfsBtreeComputeMaxlevels(sb, xfsBnobtOps, 1_000_000), 4);
});

// ---- hostile trees ----

/** A sound tree of 3 levels on the device, and nothing of it in memory. */
async function brokenTree(
  ptrLen: 4 | 8,
  harm: (tree: TestTree, block: (ptr: number) => DataView) => void,
): Promise<TestTree> {
  const tree = await testTree(ptrLen, false);
  for (let i = 0; i < 300; i++) {
    const rec = { start: 10 + i * 2, len: 1, owner: 0 };
    assertEquals(tree.insert(rec), 1);
  }
  assertEquals(await tree.mp.targ.flush(), 0);
  const { sb, targ, bdev } = tree.mp;
  const device = bdev as unknown as {
    peek(at: number, to: Uint8Array): void;
    poke(at: number, data: Uint8Array): void;
  };
  const touched = new Map<number, Uint8Array>();
  harm(tree, (ptr) => {
    const at = (ptrLen === 8 ? sb.fsbToDaddr(ptr) : sb.agbToDaddr(0, ptr)) *
      512;
    const data = touched.get(at) ?? new Uint8Array(1024);
    if (!touched.has(at)) device.peek(at, data);
    touched.set(at, data);
    return new DataView(data.buffer);
  });
  for (const [at, data] of touched) {
    bufSeal(data, ptrLen === 8 ? F.LBB_CRC : F.SBB_CRC);
    device.poke(at, data);
    targ.invalidate(at / 512, sb.bbPerBlock);
  }
  for (let agbno = 5000; agbno < 9000; agbno++) {
    const agno = ptrLen === 8 ? 1 : 0;
    targ.invalidate(sb.agbToDaddr(agno, agbno), sb.bbPerBlock);
  }
  return tree;
}

/** Child `n` of a short block with 22 keys of 40 bytes. */
function child(view: DataView, n: number): number {
  return view.getUint32(56 + 22 * 40 + n * 4);
}

function setChild(view: DataView, n: number, ptr: number): void {
  view.setUint32(56 + 22 * 40 + n * 4, ptr);
}

const HARM: [
  string,
  (tree: TestTree, block: (ptr: number) => DataView) => void,
][] = [
  ["a child that is the root again", (tree, block) => {
    setChild(block(tree.ops.root), 1, tree.ops.root);
  }],
  ["a child in no block of the group", (tree, block) => {
    setChild(block(tree.ops.root), 1, 0xffff_fff0);
  }],
  ["a child among the headers", (tree, block) => {
    setChild(block(tree.ops.root), 1, 0);
  }],
  ["the same child twice", (tree, block) => {
    const root = block(tree.ops.root);
    setChild(root, 1, child(root, 0));
  }],
  ["a leaf twice below one node", (tree, block) => {
    const node = block(child(block(tree.ops.root), 0));
    setChild(node, 2, child(node, 1));
  }],
  ["a leaf that says it is a node", (tree, block) => {
    const node = block(child(block(tree.ops.root), 0));
    block(child(node, 1)).setUint16(F.BB_LEVEL, 1);
  }],
  ["records out of order", (tree, block) => {
    const node = block(child(block(tree.ops.root), 0));
    block(child(node, 1)).setUint32(56 + 3 * 96, 5);
  }],
  ["keys out of order", (tree, block) => {
    block(tree.ops.root).setUint32(56 + 40, 3);
  }],
  ["a key that is not its child's first", (tree, block) => {
    const root = block(tree.ops.root);
    root.setUint32(56 + 40, root.getUint32(56 + 40) + 1);
  }],
  ["a right sibling that leads in a ring", (tree, block) => {
    const node = block(child(block(tree.ops.root), 0));
    block(child(node, 2)).setUint32(F.SBB_RIGHTSIB, child(node, 0));
  }],
  ["a right sibling that is itself", (tree, block) => {
    const node = block(child(block(tree.ops.root), 0));
    block(child(node, 2)).setUint32(F.SBB_RIGHTSIB, child(node, 2));
  }],
  ["more records than a leaf has room for", (tree, block) => {
    const node = block(child(block(tree.ops.root), 0));
    block(child(node, 1)).setUint16(F.BB_NUMRECS, 11);
  }],
  ["a leaf without records", (tree, block) => {
    const node = block(child(block(tree.ops.root), 0));
    block(child(node, 1)).setUint16(F.BB_NUMRECS, 0);
  }],
  ["a leaf of another group", (tree, block) => {
    const node = block(child(block(tree.ops.root), 0));
    block(child(node, 1)).setUint32(F.SBB_OWNER, 1);
  }],
  ["a leaf that lies elsewhere", (tree, block) => {
    const node = block(child(block(tree.ops.root), 0));
    block(child(node, 1)).setUint32(F.SBB_BLKNO + 4, 77);
  }],
  ["a level above all that there can be", (tree, block) => {
    block(tree.ops.root).setUint16(F.BB_LEVEL, 9);
  }],
];

for (const [what, harm] of HARM) {
  Deno.test(`a walk ends with EFSCORRUPTED: ${what}`, async () => {
    const log: string[] = [];
    const old = setLogHandler((line) => void log.push(line));
    try {
      const tree = await brokenTree(4, harm);
      const walked = tree.with((cur) => xfsBtreeQueryAll(cur, () => 0, null));
      assertEquals(walked, -EFSCORRUPTED);
      assert(tree.mp.dead);
      assert(log.some((line) => line.includes("test")), log.join("\n"));
    } finally {
      setLogHandler(old);
    }
  });
}

Deno.test("xfsBtreeCountBlocks() does not go round in a ring of siblings", async () => {
  const old = setLogHandler(() => {});
  try {
    const tree = await brokenTree(4, (tree, block) => {
      const node = block(child(block(tree.ops.root), 0));
      block(child(node, 2)).setUint32(F.SBB_RIGHTSIB, child(node, 1));
    });
    const count = tree.with((cur) => xfsBtreeCountBlocks(cur));
    assertEquals(count, -EFSCORRUPTED);
  } finally {
    setLogHandler(old);
  }
});

Deno.test("a block of another inode's tree is EFSCORRUPTED", async () => {
  const old = setLogHandler(() => {});
  try {
    const tree = await brokenTree(8, (tree, block) => {
      const at = 72 + IROOT_MAX * 40;
      const view = tree.ops.broot.view;
      const ptr = view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
      block(ptr).setUint32(F.LBB_OWNER + 4, INO + 1);
    });
    const walked = tree.with((cur) => xfsBtreeQueryAll(cur, () => 0, null));
    assertEquals(walked, -EFSCORRUPTED);
  } finally {
    setLogHandler(old);
  }
});

// Goal: no bytes whatever make a walk or a change throw, hang or read outside. Method:
// fields and random bytes of the tree's blocks are changed and sealed again; then it is
// walked, looked into and changed.
Deno.test("broken trees give errors and nothing else (seed 3)", async () => {
  const old = setLogHandler(() => {});
  try {
    for (let round = 0; round < 150; round++) {
      const prng = new Prng(3, `${round}`);
      const tree = await brokenTree(4, (tree, block) => {
        const root = block(tree.ops.root);
        const node = block(child(root, prng.below(2)));
        const leaf = block(child(node, prng.below(8)));
        const view = [root, node, leaf][prng.below(3)]!;
        for (let i = 0; i <= prng.below(3); i++) {
          const at = prng.below(2) === 0
            ? 4 + prng.below(12)
            : prng.below(1024);
          view.setUint8(at, prng.below(256));
        }
      });
      const walked = tree.with((cur) => xfsBtreeQueryAll(cur, () => 0, null));
      assert(walked === 0 || tree.mp.dead, `walk ${walked}`);
      for (let i = 0; i < 40 && !tree.mp.dead; i++) {
        const start = prng.below(700);
        tree.with((cur) => {
          cur.rec.start = start;
          const there = xfsBtreeLookup(cur, XFS_LOOKUP_EQ);
          if (there === 1) xfsBtreeDelete(cur);
          else if (there === 0) {
            cur.rec.len = 1;
            xfsBtreeInsert(cur);
          }
        });
      }
    }
  } finally {
    setLogHandler(old);
  }
});
