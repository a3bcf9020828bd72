import { assert, assertEquals } from "@std/assert";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import {
  type XfsAttrEntry,
  xfsAttrGet,
  xfsAttrList,
  xfsAttrSet,
} from "../../../../fs/xfs/libxfs/attr.ts";
import {
  XFS_ATTR_ROOT,
  XFS_ATTR_SECURE,
} from "../../../../fs/xfs/libxfs/format.ts";
import { BmbtIrec, IextCursor } from "../../../../fs/xfs/libxfs/iext.ts";
import type { MkfsXfsOptions } from "../../../../fs/xfs/mkfs.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import { E2BIG, EEXIST, ENODATA, ENOSPC } from "../../../../lib/errno.ts";
import { Prng } from "../../../../lib/prng.ts";
import {
  type FsFile,
  type Mount,
  mount,
  type NvmeDevice,
} from "../../../../mod.ts";
import { assertCleanImage } from "../clean.ts";
import { newXfs, xfs } from "../fixture.ts";
import { checkAttrs, keyOf, LEAF, NODE, NONE, SHORT } from "./attr_check.ts";

const NEW = { write: true, createNew: true };
const utf8 = new TextEncoder();
const SPACES = [0, 0, 0, XFS_ATTR_ROOT, XFS_ATTR_SECURE];

/** A file on a new file system. */
interface TestFile {
  device: NvmeDevice;
  fs: Mount;
  mp: XfsMount;
  ip: XfsInode;
  /** Lets go of the file, so that the file system can be unmounted. */
  close: () => void;
}

async function inodeOf(fs: Mount, path: string): Promise<XfsInode> {
  const { ino } = await fs.stat(path);
  return fs.superBlock.inodes.get(ino) as XfsInode;
}

async function newFile(
  options: MkfsXfsOptions & { size?: number },
): Promise<TestFile> {
  const device = await newXfs({ size: 64 * 2 ** 20, ...options });
  const fs = await mount(device, xfs);
  const file = await fs.open("/file", NEW);
  const mp = fs.superBlock as XfsMount;
  const ip = await inodeOf(fs, "/file");
  return { device, fs, mp, ip, close: () => file.close() };
}

/** Attributes beside a map that says what must be in them. */
class Pair {
  readonly ip: XfsInode;
  readonly model = new Map<string, Uint8Array>();

  constructor(ip: XfsInode) {
    this.ip = ip;
  }

  set(
    name: Uint8Array,
    flags: number,
    value: Uint8Array,
    create = false,
    replace = false,
  ): number {
    const error = xfsAttrSet(this.ip, name, flags, value, create, replace);
    if (error === 0) this.model.set(keyOf(name, flags), value);
    return error;
  }

  remove(name: Uint8Array, flags: number): number {
    const error = xfsAttrSet(this.ip, name, flags, null, false, false);
    if (error === 0) this.model.delete(keyOf(name, flags));
    return error;
  }

  check(): ReturnType<typeof checkAttrs> {
    const found = checkAttrs(this.ip);
    assertEquals(
      [...found.values.keys()].sort(),
      [...this.model.keys()].sort(),
    );
    for (const [key, value] of this.model) {
      assert(sameBytes(found.values.get(key)!, value), key);
    }
    return found;
  }

  list(): string[] {
    const list = xfsAttrList(this.ip);
    assert(typeof list !== "number");
    return list.map(({ name, flags }) => keyOf(name, flags));
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** A name of a space of `n`; one in two of those that share a hash with others. */
function nameOf(n: number): Uint8Array {
  const text = n % 2 === 0
    ? `${n}-`.padEnd(1 + n * 7919 % 60 + (n % 46 === 0 ? 190 : 0), "xyz")
    : `a${String.fromCharCode(97 + n % 26)}${n % 7}xxaa${n % 3}`;
  const name = Uint8Array.from(text, (c) => c.charCodeAt(0));
  if (n % 2 === 1) {
    // Bits that meet bits of the first bytes in the hash.
    const bits = Math.floor(n / 2) % 8;
    name[0]! ^= bits;
    name[5]! ^= bits << 3;
  }
  return name;
}

function valueOf(prng: Prng, most: number): Uint8Array {
  const kind = prng.below(20);
  const length = kind === 0
    ? prng.below(65537)
    : kind < 4
    ? prng.below(most)
    : prng.below(100);
  const value = new Uint8Array(length);
  const seed = prng.below(256);
  for (let i = 0; i < length; i++) value[i] = seed + i * 7;
  return value;
}

/** One random operation. */
function step(pair: Pair, prng: Prng, space: number, sets: number): void {
  const n = prng.below(space);
  const name = nameOf(n);
  const flags = SPACES[n % SPACES.length]!;
  const old = pair.model.get(keyOf(name, flags));
  const what = prng.below(100);
  const most = pair.ip.mount.sb.blocksize;
  if (what < 10) {
    const got = xfsAttrGet(pair.ip, name, flags);
    if (old === undefined) assertEquals(got, -ENODATA);
    else assert(sameBytes(got as Uint8Array, old));
  } else if (what < 14) {
    const value = valueOf(prng, most);
    const want = old === undefined ? 0 : -EEXIST;
    assertEquals(pair.set(name, flags, value, true), want);
  } else if (what < 20) {
    const value = valueOf(prng, most);
    const want = old === undefined ? -ENODATA : 0;
    assertEquals(pair.set(name, flags, value, false, true), want);
  } else if (prng.below(100) < sets) {
    assertEquals(pair.set(name, flags, valueOf(prng, most)), 0);
  } else {
    assertEquals(pair.remove(name, flags), old === undefined ? -ENODATA : 0);
  }
}

/** Mounts once more, finds the same, and removes it one by one. */
async function emptyAgain(
  device: NvmeDevice,
  model: Map<string, Uint8Array>,
  forms: Set<number>,
  free: number,
): Promise<void> {
  const fs = await mount(device, xfs);
  const mp = fs.superBlock as XfsMount;
  const held = await fs.open("/file");
  const pair = new Pair(await inodeOf(fs, "/file"));
  for (const [key, value] of model) pair.model.set(key, value);
  pair.check();
  for (const key of [...model.keys()]) {
    const name = Uint8Array.from(key.slice(2), (c) => c.charCodeAt(0));
    assertEquals(pair.remove(name, Number(key[0])), 0);
    forms.add(pair.check().form);
  }
  assertEquals(pair.ip.nblocks, 0);
  assertEquals(mp.fdblocks, free);
  held.close();
  await fs.unmount();
  assertCleanImage(device);
}

const PHASES: [steps: number, space: number, sets: number][] = [
  [40, 6, 50],
  [60, 40, 80],
  [50, 40, 20],
  [100, 300, 95],
  [60, 300, 30],
];

/** Goal: no sequence of operations leaves attributes that are not exactly the model, in
 * any form, or blocks that are not used. Method: phases of mostly setting and mostly
 * removing, small and large values, colliding names; everything checked after every
 * step, and the image after the unmount. */
async function randomOps(
  options: MkfsXfsOptions & { size?: number },
  seed: number,
): Promise<Set<number>> {
  const prng = new Prng(seed, "attr");
  const { device, fs, mp, ip, close } = await newFile(options);
  const free = mp.fdblocks;
  const pair = new Pair(ip);
  const forms = new Set<number>();
  for (const [steps, space, sets] of PHASES) {
    for (let i = 0; i < steps; i++) {
      step(pair, prng, space, sets);
      forms.add(pair.check().form);
    }
    assertEquals(pair.list().sort(), [...pair.model.keys()].sort());
  }
  close();
  await fs.unmount();
  assertCleanImage(device);
  await emptyAgain(device, pair.model, forms, free);
  return forms;
}

for (
  const [options, seed] of [
    [{}, 1],
    [{ blockSize: 1024 }, 2],
    [{ inodeSize: 2048 }, 3],
    [{ blockSize: 65536, size: 192 * 2 ** 20 }, 4],
    [{ rmapbt: true, inodeSize: 1024 }, 5],
  ] as const
) {
  Deno.test(
    `attributes agree with a map in all forms, ${JSON.stringify(options)}`,
    async () => {
      const forms = await randomOps(options, seed);
      for (const form of [NONE, SHORT, LEAF]) assert(forms.has(form));
      assert(forms.has(NODE) || "size" in options);
    },
  );
}

/** A step of a trace: file, number of the name, bytes of the value or -1 to remove it, 1
 * to create and 2 to replace; then what the kernel answered, the sectors that the file
 * had more than before, and (first, number) of the blocks of its attribute fork, null
 * where FIEMAP does not tell. */
type KernelStep = [
  file: string,
  name: number,
  bytes: number,
  flags: number,
  errno: number,
  sectors: number,
  runs: number[] | null,
];

/** Files that had extents before: how many, and how many blocks apart. */
const EXTENTS: Record<string, [count: number, step: number]> = {
  a: [0, 0],
  b: [1, 1],
  c: [40, 2],
  e: [12, 2],
};

async function kernelFiles(fs: Mount, blockSize: number): Promise<void> {
  await fs.mkdir("/d");
  for (const [name, [count, step]] of Object.entries(EXTENTS)) {
    using file = await fs.open(`/${name}`, NEW);
    for (let i = 0; i < count; i++) {
      await file.write(new Uint8Array([1]), { at: i * step * blockSize });
    }
    await file.sync();
  }
}

/** Blocks of the attribute fork, (first, number) of each run. */
function runsOf(ip: XfsInode): number[] {
  const runs: number[] = [];
  const cur = new IextCursor();
  const rec = new BmbtIrec();
  const { af } = ip;
  if (af === null || af.format === 1) return runs;
  for (let more = af.first(cur, rec); more; more = af.next(cur, rec)) {
    const n = runs.length;
    const joins = n > 0 && runs[n - 2]! + runs[n - 1]! === rec.startoff;
    if (joins) runs[n - 1]! += rec.count;
    else runs.push(rec.startoff, rec.count);
  }
  return runs;
}

/** Goal: the same blocks as the kernel at every step. Oracle: what Linux 6.18 answered,
 * with a sync after every step. */
Deno.test("attributes take the same blocks as the kernel's", async () => {
  const file = new URL("./attr_kernel.json", import.meta.url);
  const traces = JSON.parse(await Deno.readTextFile(file)) as {
    blockSize: number;
    inodeSize: number;
    steps: KernelStep[];
  }[];
  for (const { blockSize, inodeSize, steps } of traces) {
    const device = await newXfs({ blockSize, inodeSize });
    const fs = await mount(device, xfs);
    await kernelFiles(fs, blockSize);
    const open = new Map<string, FsFile>();
    const before = new Map<string, number>();
    for (const name of Object.keys(EXTENTS)) {
      open.set(name, await fs.open(`/${name}`));
    }
    for (const name of [...open.keys(), "d"]) {
      before.set(name, (await inodeOf(fs, `/${name}`)).blocks);
    }
    for (const [i, step] of steps.entries()) {
      const [name, n, bytes, flags, errno, sectors, runs] = step;
      const ip = await inodeOf(fs, `/${name}`);
      const value = bytes < 0 ? null : new Uint8Array(bytes).fill(n);
      const pad = "z".repeat(n % 9 === 0 ? 200 : n * 37 % 60);
      const key = utf8.encode(`n${n}${pad}`);
      const set = xfsAttrSet(ip, key, 0, value, flags === 1, flags === 2);
      const where = `${blockSize}, step ${i}: ${step}`;
      assertEquals(set, errno, where);
      assertEquals(ip.blocks - before.get(name)!, sectors, where);
      if (runs !== null) assertEquals(runsOf(ip), runs, where);
      await fs.sync();
    }
    for (const held of open.values()) held.close();
    await fs.unmount();
    assertCleanImage(device);
  }
});

Deno.test("an inode that is freed gives all blocks of its attributes back", async () => {
  const device = await newXfs({ blockSize: 1024 });
  const fs = await mount(device, xfs);
  const mp = fs.superBlock as XfsMount;
  const free = mp.fdblocks;
  for (const count of [1, 10, 300]) {
    (await fs.open("/file", NEW)).close();
    for (let i = 0; i < count; i++) {
      const value = new Uint8Array(i % 20 === 1 ? 30_000 : 50);
      fs.setXattrSync("/file", `user.${i}`, value);
    }
    await fs.sync();
    await fs.unlink("/file");
    assertEquals(mp.fdblocks, free, `${count} attributes`);
  }
  await fs.unmount();
  assertCleanImage(device);
});

Deno.test("xfsAttrSet() answers ENOSPC and leaves what there was", async () => {
  const { device, fs, mp, ip, close } = await newFile({ size: 32 * 2 ** 20 });
  const hog = await fs.open("/hog", NEW);
  await hog.fallocate(0, 0, (mp.fdblocks - mp.allocSetAside - 120) * 4096);
  const pair = new Pair(ip);
  const big = new Uint8Array(20_000);
  let error = 0;
  for (let i = 0; error === 0; i++) error = pair.set(nameOf(2 * i), 0, big);
  assertEquals(error, -ENOSPC);
  assertEquals(mp.dead, false);
  pair.check();
  // What the system itself notes may use the reserve.
  assertEquals(pair.set(nameOf(1), XFS_ATTR_ROOT, big), 0);
  assertEquals(pair.remove(nameOf(0), 0), 0);
  pair.check();
  hog.close();
  close();
  await fs.unmount();
  assertCleanImage(device);
});

Deno.test("xfsAttrSet() refuses a value above 64 KiB", async () => {
  const { fs, ip, close } = await newFile({});
  const pair = new Pair(ip);
  assertEquals(pair.set(nameOf(1), 0, new Uint8Array(65537)), -E2BIG);
  assertEquals(pair.set(nameOf(1), 0, new Uint8Array(65536)), 0);
  pair.check();
  close();
  await fs.unmount();
});

/** The only leaf of an inode's attributes. */
function leafOf({ ip, mp }: TestFile): DataView {
  const cur = new IextCursor();
  const rec = new BmbtIrec();
  assert(ip.af!.first(cur, rec));
  return mp.targ.incore(mp.sb.fsbToDaddr(rec.startblock))!.view;
}

Deno.test("an INCOMPLETE attribute is there for nobody", async () => {
  const file = await newFile({});
  const pair = new Pair(file.ip);
  for (let i = 0; i < 20; i++) {
    pair.set(utf8.encode(`${i}`), 0, new Uint8Array(20));
  }
  // One half of a change that a power cut ended.
  const leaf = leafOf(file);
  leaf.setUint8(80 + 8 * 3 + 6, leaf.getUint8(80 + 8 * 3 + 6) | 0x80);
  const name = xfsAttrList(file.ip) as XfsAttrEntry[];
  assertEquals(name.length, 19);
  const gone = [...pair.model.keys()]
    .find((key) => !name.some((e) => keyOf(e.name, e.flags) === key))!;
  const bytes = utf8.encode(gone.slice(2));
  assertEquals(xfsAttrGet(file.ip, bytes, 0), -ENODATA);
  assertEquals(pair.remove(bytes, 0), -ENODATA);
  const value = new Uint8Array([1, 2, 3]);
  assertEquals(pair.set(bytes, 0, value), 0);
  assertEquals(pair.set(bytes, 0, new Uint8Array(9), false, true), 0);
  assertEquals(xfsAttrGet(file.ip, bytes, 0), new Uint8Array(9));
  assertEquals(pair.remove(bytes, 0), 0);
  assertEquals((xfsAttrList(file.ip) as XfsAttrEntry[]).length, 19);
  file.close();
  await file.fs.unmount();
});

/** Older kernels left free regions that the table of entries had grown into. */
Deno.test("a free region that overlaps the table is put right when a name is added", async () => {
  const file = await newFile({});
  const pair = new Pair(file.ip);
  const add = (i: number) =>
    assertEquals(pair.set(utf8.encode(`${i}`), 0, new Uint8Array(20)), 0);
  for (let i = 0; i < 20; i++) add(i);
  const leaf = leafOf(file);
  const [base, bytes] = [leaf.getUint16(64), leaf.getUint16(66)];
  leaf.setUint16(64, base - 64);
  leaf.setUint16(66, bytes + 64);
  leaf.setUint16(68, base + 16);
  leaf.setUint16(70, 8);
  for (let i = 20; i < 90; i++) {
    add(i);
    pair.check();
  }
  file.close();
  await file.fs.unmount();
  assertCleanImage(file.device);
});
