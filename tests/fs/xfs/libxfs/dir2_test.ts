import { assert, assertEquals } from "@std/assert";
import { XfsDirReader } from "../../../../fs/xfs/dir2-readdir.ts";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import {
  xfsDirCanenter,
  xfsDirCreatename,
  xfsDirInit,
  xfsDirIsempty,
  xfsDirLookup,
  xfsDirRemovename,
  xfsDirReplace,
} from "../../../../fs/xfs/libxfs/dir2.ts";
import { XFS_DINODE_FMT_EXTENTS } from "../../../../fs/xfs/libxfs/format.ts";
import { ENOENT, ENOSPC } from "../../../../lib/errno.ts";
import { Prng } from "../../../../lib/prng.ts";
import { checkDir } from "./dir2_check.ts";
import { dirOn, fragmentSpace, newDir } from "./dir2_fixture.ts";

type Dir = Awaited<ReturnType<typeof newDir>>;

function bytes(name: string): Uint8Array {
  return Uint8Array.from(name, (c) => c.charCodeAt(0));
}

function latin1(name: Uint8Array): string {
  return String.fromCharCode(...name);
}

/** Starts a directory that is its own parent. */
async function emptyDir(options: Parameters<typeof newDir>[0]): Promise<Dir> {
  const dir = await newDir(options);
  const tp = dir.begin();
  assertEquals(xfsDirInit(tp, dir.dp, dir.dp), 0);
  assertEquals(tp.commit(), 0);
  return dir;
}

/** A directory beside a map that says what must be in it. */
class Pair {
  readonly dir: Dir;
  readonly model = new Map<string, [number, number]>();

  constructor(dir: Dir) {
    this.dir = dir;
  }

  get dp(): XfsInode {
    return this.dir.dp;
  }

  create(name: string, ino: number, type = 1, total = 100): number {
    const tp = this.dir.begin(2 * total);
    const error = xfsDirCreatename(
      tp,
      this.dp,
      { name: bytes(name), type },
      ino,
      total,
    );
    if (error < 0) tp.cancel();
    else assertEquals(tp.commit(), 0);
    if (error === 0) this.model.set(name, [ino, type]);
    return error;
  }

  remove(name: string, total = 100): number {
    const tp = this.dir.begin(2 * total);
    const [ino, type] = this.model.get(name) ?? [0, 0];
    const error = xfsDirRemovename(
      tp,
      this.dp,
      { name: bytes(name), type },
      ino,
      total,
    );
    if (error < 0) tp.cancel();
    else assertEquals(tp.commit(), 0);
    if (error === 0) this.model.delete(name);
    return error;
  }

  replace(name: string, ino: number, type: number): number {
    const tp = this.dir.begin();
    const xname = { name: bytes(name), type };
    const error = xfsDirReplace(tp, this.dp, xname, ino, 100);
    if (error < 0) tp.cancel();
    else assertEquals(tp.commit(), 0);
    if (error === 0 && name !== "..") this.model.set(name, [ino, type]);
    return error;
  }

  lookup(name: string): [number, number] | number {
    const xname = { name: bytes(name), type: 0 };
    const ino = xfsDirLookup(null, this.dp, xname);
    return ino < 0 ? ino : [ino, xname.type];
  }

  /** Everything agrees: structure, names, look-ups and readdir. */
  check(): ReturnType<typeof checkDir> {
    const found = checkDir(this.dp);
    if (found.form > 0) {
      assertEquals(found.names.get("."), 16 * this.dp.ino + 2);
      assert(found.names.has(".."));
      found.names.delete(".");
      found.names.delete("..");
    }
    assertEquals(found.names.size, this.model.size);
    for (const [name, [ino, type]] of this.model) {
      assert(found.names.get(name) === 16 * ino + type, name);
    }
    return found;
  }

  list(): Map<string, [number, number]> {
    const reader = new XfsDirReader(this.dp, false);
    const names = new Map<string, [number, number]>();
    for (;;) {
      const dirent = reader.next();
      if (dirent === 0) return names;
      assert(typeof dirent !== "number", `${dirent}`);
      const name = latin1(dirent.name);
      assert(!names.has(name), `${name} twice`);
      names.set(name, [dirent.ino, dirent.ftype]);
    }
  }
}

function randomName(prng: Prng, space: number): string {
  const n = prng.below(space);
  // Of a number always the same name, of all lengths.
  const length = 1 + n * 7919 % 40 + (n % 23 === 0 ? 200 : 0);
  return `${n}-`.padEnd(length, "xyz");
}

/** Goal: no sequence of operations makes a directory that is not exactly the model, in
 * any form. Method: phases of mostly creating and mostly removing, over name spaces of
 * different sizes; everything checked every few steps. */
async function randomOps(
  options: Parameters<typeof newDir>[0],
  seed: number,
  phases: [steps: number, space: number, creates: number][],
  every: number,
): Promise<Set<number>> {
  const prng = new Prng(seed, "dir2");
  const pair = new Pair(await emptyDir(options));
  const forms = new Set<number>();
  for (const [steps, space, creates] of phases) {
    for (let step = 0; step < steps; step++) {
      const name = randomName(prng, space);
      const has = pair.model.has(name);
      const big = prng.below(50) === 0;
      const ino = big
        ? 2 ** 33 + 1024 + prng.below(1000)
        : 1024 + prng.below(10000);
      const type = 1 + prng.below(8);
      const what = prng.below(100);
      if (what < 5) {
        assertEquals(pair.lookup(name), pair.model.get(name) ?? -ENOENT);
      } else if (what < 10) {
        assertEquals(pair.replace(name, ino, type), has ? 0 : -ENOENT);
      } else if (prng.below(100) < creates) {
        if (!has) assertEquals(pair.create(name, ino, type), 0);
      } else if (has) {
        assertEquals(pair.remove(name), 0);
      }
      if (step % every === 0) forms.add(pair.check().form);
    }
    forms.add(pair.check().form);
    assertEquals(pair.list().size, pair.model.size);
  }
  for (const [name, what] of [...pair.model]) {
    assertEquals(pair.lookup(name), what);
    assertEquals(pair.remove(name), 0);
    if (prng.below(every) === 0) forms.add(pair.check().form);
  }
  assertEquals(pair.check().form, 0);
  assert(xfsDirIsempty(pair.dp));
  return forms;
}

const PHASES: [number, number, number][] = [
  [60, 30, 60],
  [300, 60, 60],
  [60, 60, 10],
  [600, 400, 70],
  [300, 400, 20],
  [2000, 2000, 80],
  [2000, 2000, 15],
  [500, 800, 90],
];

for (
  const [options, seed] of [
    [{}, 1],
    [{ blockSize: 1024 }, 2],
    [{ blockSize: 1024, dirBlockSize: 1024 }, 3],
    [{ forkoff: 24 }, 4],
  ] as const
) {
  Deno.test(
    `directories agree with a map in all forms, ${JSON.stringify(options)}`,
    async () => {
      const forms = await randomOps(options, seed, PHASES, 31);
      assertEquals([...forms].sort(), [0, 1, 2, 3]);
    },
  );
}

Deno.test("directories agree with a map, blocks of 64 KiB", async () => {
  const phases: typeof PHASES = [[4000, 3000, 90], [3000, 3000, 10]];
  const options = { dirBlockSize: 65536 };
  const forms = await randomOps(options, 5, phases, 200);
  assert(forms.has(1) && forms.has(2));
});

/** A name of one of many that have the same hash: bit 0 of a byte turned comes to lie on
 * bit 7 of the next. */
function collidingName(group: number, k: number): string {
  let name = `g${group}-`;
  for (let i = 0; i < 11; i++) {
    name += (k >> i & 1) === 1 ? "a1" : "`\xb1";
  }
  return name;
}

Deno.test("directories with thousands of names of equal hash (seed 6)", async () => {
  const prng = new Prng(6, "dir2");
  const options = { blockSize: 1024, dirBlockSize: 1024 };
  const pair = new Pair(await emptyDir(options));
  let leaves = 0;
  for (const creates of [90, 30, 80, 5]) {
    for (let step = 0; step < 800; step++) {
      const name = collidingName(prng.below(3), prng.below(600));
      const has = pair.model.get(name);
      assertEquals(pair.lookup(name), has ?? -ENOENT);
      if (prng.below(100) < creates) {
        if (has === undefined) pair.create(name, 1024 + step);
      } else if (has !== undefined) {
        assertEquals(pair.remove(name), 0);
      }
      if (step % 50 === 0) leaves = Math.max(leaves, pair.check().leaves);
    }
    pair.check();
  }
  assert(leaves > 5, `${leaves} leaves`);
});

Deno.test("xfsDirCanenter() says whether a name goes in without reservation", async () => {
  for (const blockSize of [4096, 1024]) {
    const pair = new Pair(await emptyDir({ blockSize, forkoff: 24 }));
    const refused = new Set<number>();
    for (let i = 0; i < 3000; i++) {
      const name = `${i}-`.padEnd(1 + i * 7919 % 60, "x");
      const xname = { name: bytes(name), type: 1 };
      const tp = pair.dir.begin(0);
      const can = xfsDirCanenter(tp, pair.dp, xname);
      tp.commit();
      if (can === 0) {
        // As callers do: those that cannot reserve ask first.
        assertEquals(pair.create(name, 1024 + i, 1, 0), 0);
        continue;
      }
      assertEquals(can, -ENOSPC);
      refused.add(pair.check().form);
      assertEquals(pair.create(name, 1024 + i), 0);
    }
    assertEquals([...refused].sort(), [0, 1, 2, 3]);
  }
});

/** Removes without reservation while the fork has no room for one more extent: nothing
 * can be cut out of the middle of one. */
function removeTight(pair: Pair, name: string): void {
  const { dp } = pair;
  const { df } = dp;
  dp.forkoff = df.format === XFS_DINODE_FMT_EXTENTS ? 2 * df.count : 0;
  assertEquals(pair.remove(name, 0), 0);
  dp.forkoff = 0;
}

Deno.test("xfsDirRemovename() without reservation leaves blocks that cannot go (seed 7)", async () => {
  const prng = new Prng(7, "dir2");
  // Long names, so that many data blocks lie side by side.
  const name = (i: number) => `${i}`.padEnd(200, "long");
  for (const count of [50, 400]) {
    const dir = await newDir({ blockSize: 1024, dirBlockSize: 1024 });
    dir.dp = dirOn(dir.mp, dir.mp.sb.aginoToIno(1, 2048));
    const tp = dir.begin();
    assertEquals(xfsDirInit(tp, dir.dp, dir.dp), 0);
    assertEquals(tp.commit(), 0);
    const pair = new Pair(dir);
    let empty = 0;
    for (let i = 0; i < count; i++) pair.create(name(i), 1024 + i);
    for (let i = 0; i < 8 * count; i++) {
      // Block by block, back and forth.
      const k = (i * 4 + prng.below(4)) % count;
      if (pair.model.has(name(k))) removeTight(pair, name(k));
      if (i % 20 === 0) empty += pair.check().emptyBlocks;
    }
    assert(empty > 0);
    for (const left of [...pair.model.keys()]) {
      assertEquals(pair.remove(left), 0);
    }
    pair.check();
    assertEquals(pair.list().size, 0);
  }
});

Deno.test("xfsDirRemovename() without reservation moves the last block of the tree into a gap (seed 11)", async () => {
  const gaps: number[] = [];
  for (const tight of [false, true]) {
    const prng = new Prng(11, "dir2");
    const dir = await newDir({ blockSize: 1024, dirBlockSize: 1024 });
    dir.dp = dirOn(dir.mp, dir.mp.sb.aginoToIno(1, 2048));
    const tp = dir.begin();
    assertEquals(xfsDirInit(tp, dir.dp, dir.dp), 0);
    assertEquals(tp.commit(), 0);
    const pair = new Pair(dir);
    // Data blocks with room first, then names: so the tree's blocks lie side by side.
    const long = (i: number) => `${i}`.padEnd(200, "long");
    for (let i = 0; i < 400; i++) pair.create(long(i), 1024 + i);
    for (let i = 0; i < 400; i++) if (i % 4 > 0) pair.remove(long(i));
    for (let i = 0; i < 2000; i++) pair.create(`${i}`, 1024 + i);
    const { leaves, treeHoles } = pair.check();
    assertEquals(treeHoles, 0);
    let holes = 0;
    for (let i = 0; i < 6000; i++) {
      const name = `${prng.below(2000)}`;
      if (!pair.model.has(name)) continue;
      if (tight) removeTight(pair, name);
      else pair.remove(name);
      if (i % 50 === 0) holes += pair.check().treeHoles;
    }
    assert(pair.check().leaves < leaves / 2);
    gaps.push(holes);
  }
  // Those at the edge of an extent remain.
  assert(gaps[1]! < gaps[0]! / 2, `${gaps}`);
});

Deno.test("directories agree with a map with nodes of two levels (seed 9)", async () => {
  const prng = new Prng(9, "dir2");
  const options = { blockSize: 1024, dirBlockSize: 1024 };
  const pair = new Pair(await emptyDir(options));
  for (let i = 0; i < 12_000; i++) {
    assertEquals(pair.create(`${i}`, 1024 + i), 0);
    if (i % 3000 === 0) pair.check();
  }
  assertEquals(pair.check().depth, 3);
  const names = [...pair.model.keys()];
  for (let i = names.length; i > 0; i--) {
    const at = prng.below(i);
    const name = names[at]!;
    names[at] = names[i - 1]!;
    assertEquals(pair.remove(name), 0);
    if (i % 1500 === 0) pair.check();
  }
  assertEquals(pair.check().form, 0);
});

Deno.test("directory blocks lie in pieces where free space does (seed 10)", async () => {
  const prng = new Prng(10, "dir2");
  const dir = await newDir({ blockSize: 1024 });
  fragmentSpace(dir.mp);
  const tp = dir.begin();
  assertEquals(xfsDirInit(tp, dir.dp, dir.dp), 0);
  assertEquals(tp.commit(), 0);
  const pair = new Pair(dir);
  for (const creates of [80, 20, 70, 0]) {
    for (let step = 0; step < 1000; step++) {
      const name = randomName(prng, 900);
      const has = pair.model.has(name);
      if (prng.below(100) < creates) {
        if (!has) assertEquals(pair.create(name, 1024 + step), 0);
      } else if (has) assertEquals(pair.remove(name), 0);
      if (step % 50 === 0) pair.check();
    }
    const { form } = pair.check();
    const { count } = pair.dp.df;
    if (form > 1) assert(count > pair.dp.nblocks / 2, `${count} extents`);
  }
});

Deno.test("xfsDirInit() writes the parent in 4 or 8 bytes", async () => {
  for (const [parent, size] of [[200, 6], [2 ** 33 + 64, 10]] as const) {
    const { dp, begin } = await newDir({});
    const tp = begin();
    assertEquals(xfsDirInit(tp, dp, { ino: parent } as XfsInode), 0);
    assertEquals(tp.commit(), 0);
    assertEquals(dp.size, size);
    assert(xfsDirIsempty(dp));
    const dotdot = { name: bytes(".."), type: 0 };
    assertEquals(xfsDirLookup(null, dp, dotdot), parent);
    assertEquals(xfsDirLookup(null, dp, { name: bytes("."), type: 0 }), dp.ino);
  }
});

Deno.test("xfsDirReplace() of .. keeps i8count, and grows into a block where it must", async () => {
  for (const names of [0, 3, 12, 40]) {
    const pair = new Pair(await emptyDir({}));
    for (let i = 0; i < names; i++) pair.create(`name${i}`, 1024 + i);
    for (const parent of [300, 2 ** 33 + 64, 2 ** 34 + 64, 400]) {
      assertEquals(pair.replace("..", parent, 2), 0);
      assertEquals(pair.lookup(".."), [parent, 2]);
      pair.check();
    }
  }
});

Deno.test("XfsDirReader goes on from any position while names come and go (seed 8)", async () => {
  const prng = new Prng(8, "dir2");
  const pair = new Pair(await emptyDir({}));
  for (let i = 0; i < 5; i++) pair.create(`keep${i}`, 1024 + i);
  const kept = [...pair.model.keys()];
  const seen: string[] = [];
  let pos = 0;
  for (let i = 0; i < 2000; i++) {
    // Grows through all forms meanwhile; what was there all the time comes once.
    const name = `new${prng.below(1500)}`;
    if (!pair.model.has(name)) pair.create(name, 5000 + i);
    else pair.remove(name);
    const reader = new XfsDirReader(pair.dp, false, pos);
    const dirent = reader.next();
    if (typeof dirent === "number") break;
    seen.push(latin1(dirent.name));
    pos = reader.pos;
  }
  assertEquals(seen.filter((name) => kept.includes(name)), kept);
  const dots = new XfsDirReader(pair.dp, true);
  assertEquals(latin1((dots.next() as { name: Uint8Array }).name), ".");
  assertEquals(latin1((dots.next() as { name: Uint8Array }).name), "..");
});

/** What Linux 6.18 answered: the names that were entered (n) and removed (-1 - n), and
 * after which step stat(2) had another size and number of sectors. */
interface KernelTrace {
  blockSize: number;
  dirBlockSize: number;
  steps: number[];
  stats: [step: number, size: number, sectors: number][];
}

/** Names of all lengths, every fifth with the hash of many others. */
function traceName(n: number): string {
  if (n % 5 === 0) return collidingName(n % 3, n);
  const length = 1 + n * 7919 % 40 + (n % 23 === 0 ? 200 : 0);
  return `${n}-`.padEnd(length, "xyz");
}

Deno.test("directories have the sizes that the kernel's have", async () => {
  const file = new URL("./dir2_kernel.json", import.meta.url);
  const traces = JSON.parse(await Deno.readTextFile(file)) as KernelTrace[];
  for (const { blockSize, dirBlockSize, steps, stats } of traces) {
    const options = { blockSize, dirBlockSize, forkoff: 24 };
    const pair = new Pair(await emptyDir(options));
    let next = 0;
    steps.forEach((n, step) => {
      const name = traceName(n < 0 ? -1 - n : n);
      assertEquals(n < 0 ? pair.remove(name) : pair.create(name, 1024), 0);
      if (stats[next + 1]?.[0] === step) next++;
      const [, size, sectors] = stats[next]!;
      const ours = [pair.dp.size, pair.dp.nblocks * blockSize / 512];
      assertEquals(ours, [size, sectors], `step ${step} of ${blockSize}`);
    });
  }
});
