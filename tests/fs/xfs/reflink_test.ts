/*
 * Files that share blocks. Goal: what one file writes, the other does not see; what both
 * hold is stored once, and the image is right. Oracle: a copy of every file's bytes;
 * our own check, and xfs_repair where it is installed.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  createNvme,
  FALLOC_FL_COLLAPSE_RANGE,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_UNSHARE_RANGE,
  FALLOC_FL_ZERO_RANGE,
  FIEMAP_EXTENT_SHARED,
  FsError,
  type FsFile,
  type Mount,
  mount,
  VirtualClock,
} from "../../../mod.ts";
import { mkfsXfs, type MkfsXfsOptions } from "../../../fs/xfs/mkfs.ts";
import { Prng } from "../../../lib/prng.ts";
import { watchLocks } from "../../lockdep.ts";
import { assertCleanImage } from "./clean.ts";
import { xfs } from "./fixture.ts";
import { xfsRefcountAllocCowExtent } from "../../../fs/xfs/libxfs/refcount.ts";
import { begin, mountImage, newImage } from "./libxfs/fixture.ts";
import type { MemoryDevice } from "./libxfs/memory_device.ts";
import { prepare, takeBlocks } from "./libxfs/share_fixture.ts";

const MiB = 2 ** 20;
const KiB = 1024;
const RW = { read: true, write: true };

/** Nothing is wrong with an image. */
function judge(device: MemoryDevice): void {
  assertCleanImage(device);
  const image = new Uint8Array(device.nrSectors * 512);
  device.peek(0, image);
  const path = Deno.makeTempFileSync();
  try {
    Deno.writeFileSync(path, image);
    const args = ["-n", "-f", path];
    const judged = new Deno.Command("xfs_repair", { args }).outputSync();
    const said = new TextDecoder().decode(judged.stderr);
    assertEquals(judged.code, 0, said);
  } catch (error) {
    // It is not installed.
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  } finally {
    Deno.removeSync(path);
  }
}

async function writeAt(
  file: FsFile,
  at: number,
  data: Uint8Array,
): Promise<void> {
  await file.seek(at, 0);
  for (let done = 0; done < data.length;) {
    done += await file.write(data.subarray(done));
  }
}

async function readAll(file: FsFile): Promise<Uint8Array> {
  const { size } = await file.stat();
  const data = new Uint8Array(size);
  await file.seek(0, 0);
  for (let done = 0; done < size;) {
    const n = await file.read(data.subarray(done));
    assert(n !== null);
    done += n;
  }
  return data;
}

function filled(len: number, byte: number): Uint8Array {
  return new Uint8Array(len).fill(byte);
}

/** Blocks of 4 KiB that a file has, and how many are shared. */
async function blocksOf(file: FsFile): Promise<[number, number]> {
  let [all, shared] = [0, 0];
  for (const { length, flags } of await file.fiemap()) {
    all += length / 4096;
    if ((flags & FIEMAP_EXTENT_SHARED) !== 0) shared += length / 4096;
  }
  return [all, shared];
}

async function withFs(
  work: (fs: Mount) => Promise<void>,
  options: MkfsXfsOptions = {},
): Promise<void> {
  const device = await newImage(64 * MiB, {
    agCount: 2,
    rmapbt: true,
    ...options,
  });
  const fs = await mount(device, xfs);
  await work(fs);
  await fs.unmount();
  judge(device);
}

/** A file of so many blocks of 4 KiB, synced. */
async function make(fs: Mount, path: string, blocks: number): Promise<FsFile> {
  const file = await fs.open(path, { ...RW, createNew: true });
  await writeAt(file, 0, filled(blocks * 4096, 1));
  await file.sync();
  return file;
}

Deno.test("cloneRange() shares blocks until one of the files is written", () =>
  withFs(async (fs) => {
    using a = await make(fs, "/a", 16);
    using b = await fs.open("/b", { ...RW, createNew: true });
    await b.cloneRange(a);
    assertEquals(await blocksOf(a), [16, 16]);
    assertEquals(await blocksOf(b), [16, 16]);

    await writeAt(b, 5 * 4096 + 10, filled(4096, 2));
    await b.sync();
    assertEquals(await blocksOf(a), [16, 14]);
    assertEquals(await blocksOf(b), [16, 14]);
    assertEquals(await readAll(a), filled(16 * 4096, 1));
    const want = filled(16 * 4096, 1);
    want.fill(2, 5 * 4096 + 10, 6 * 4096 + 10);
    assertEquals(await readAll(b), want);

    await a.truncate(0);
    assertEquals(await blocksOf(b), [16, 0]);
  }));

Deno.test("cloneRange() takes the place of what was there, holes too", () =>
  withFs(async (fs) => {
    using a = await make(fs, "/a", 8);
    using b = await make(fs, "/b", 8);
    await a.fallocate(
      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
      2 * 4096,
      2 * 4096,
    );
    await writeAt(b, 0, filled(8 * 4096, 3));
    await b.cloneRange(a, { offset: 4096, length: 6 * 4096 });
    const want = filled(8 * 4096, 1);
    want.fill(3, 0, 4096);
    want.fill(0, 3 * 4096, 5 * 4096);
    want.fill(3, 7 * 4096);
    assertEquals(await readAll(b), want);
    assertEquals(await blocksOf(b), [6, 4]);
  }));

Deno.test("cloneRange() beyond the end of a file zeroes what lies between", () =>
  withFs(async (fs) => {
    using a = await make(fs, "/a", 2);
    using b = await fs.open("/b", { ...RW, createNew: true });
    await writeAt(b, 0, filled(100, 9));
    await b.cloneRange(a, { offset: 5 * 4096 });
    const want = new Uint8Array(7 * 4096);
    want.fill(9, 0, 100);
    want.fill(1, 5 * 4096);
    assertEquals(await readAll(b), want);
  }));

Deno.test("cloneRange() within a file shares it with itself", () =>
  withFs(async (fs) => {
    using a = await make(fs, "/a", 4);
    await a.cloneRange(a, { offset: 8 * 4096, length: 4 * 4096 });
    assertEquals(await blocksOf(a), [8, 8]);
    const error = await assertRejects(
      () => a.cloneRange(a, { offset: 4096, length: 2 * 4096 }),
      FsError,
    );
    assertEquals(error.code, "EINVAL");
  }));

Deno.test("UNSHARE gives a file blocks of its own, and both are as before", () =>
  withFs(async (fs) => {
    using a = await make(fs, "/a", 20);
    using b = await fs.open("/b", { ...RW, createNew: true });
    await b.cloneRange(a);
    await b.fallocate(FALLOC_FL_UNSHARE_RANGE, 0, 10 * 4096);
    assertEquals(await blocksOf(b), [20, 10]);
    assertEquals(await blocksOf(a), [20, 10]);
    await b.fallocate(FALLOC_FL_UNSHARE_RANGE, 0, 20 * 4096);
    assertEquals(await blocksOf(a), [20, 0]);
    assertEquals(await readAll(b), filled(20 * 4096, 1));
  }));

Deno.test("dedupeRange() shares what is equal, and only that", () =>
  withFs(async (fs) => {
    using a = await make(fs, "/a", 10);
    using b = await make(fs, "/b", 10);
    assertEquals(await b.dedupeRange(a, { length: 10 * 4096 }), 10 * 4096);
    assertEquals(await blocksOf(b), [10, 10]);
    await writeAt(b, 9 * 4096, filled(1, 2));
    const error = await assertRejects(() => b.dedupeRange(a), FsError);
    assertEquals(error.code, "EBADE");
    await b.sync();
    assertEquals(await blocksOf(b), [10, 9]);
  }));

Deno.test("cloneRange() locks both files, once each", () =>
  withFs(async (fs) => {
    using a = await make(fs, "/a", 1);
    using b = await make(fs, "/b", 1);
    const io = "i_rwsem exclusive";
    const mmap = "invalidate_lock exclusive";
    const two = await watchLocks(() => b.cloneRange(a, { offset: 4096 }));
    assert(two.taken.has(`${io} > ${io} > ${mmap} > ${mmap}`));
    const one = await watchLocks(() => a.cloneRange(a, { offset: 8192 }));
    assert(one.taken.has(`${io} > ${mmap} > ILOCK exclusive`));
    assert(!one.orders.includes("i_rwsem -> i_rwsem"));
  }));

Deno.test("mount() frees what was set aside for copies", async () => {
  const device = await newImage(64 * MiB, { agCount: 2, rmapbt: true });
  const mp = mountImage(device);
  prepare(mp);
  for (let i = 0; i < 10; i++) {
    const tp = begin(mp, 10);
    const got = takeBlocks(tp, mp.sb.agbToFsb(i % 2, 4000 + 20 * i), 5)!;
    xfsRefcountAllocCowExtent(tp, ...got);
    assertEquals(tp.commit(), 0);
  }
  assertEquals(await mp.targ.flush(), 0);
  await (await mount(device, xfs)).unmount();
  judge(device);
});

/*
 * Goal: tasks that share, write and free the same files at once all end, and leave a right
 * image. Method: random calls of six tasks on a device that takes its time.
 */
Deno.test("files are shared and written by many tasks at once", async () => {
  const device = createNvme(new VirtualClock(), {
    size: 64 * MiB,
    preset: "mlc-970pro",
  });
  await mkfsXfs(device, { seed: 1, agCount: 2, rmapbt: true });
  const fs = await mount(device, xfs);
  const names = ["/a", "/b", "/c"];
  for (const name of names) (await make(fs, name, 80)).close();
  let done = 0;
  const task = async (id: number) => {
    const prng = new Prng(id, "tasks");
    const open = (direct: boolean) =>
      fs.open(names[prng.below(names.length)]!, { ...RW, direct });
    for (let i = 0; i < 40; i++) {
      using file = await open(prng.below(3) === 0);
      using src = await open(false);
      const at = prng.below(120) * 4096;
      const length = (1 + prng.below(20)) * 4096;
      try {
        switch (prng.below(5)) {
          case 0:
            await file.write(filled(length, id), { at });
            break;
          case 1:
            await file.sync();
            break;
          case 2:
            await file.fallocate(FALLOC_FL_UNSHARE_RANGE, at, length);
            break;
          case 3:
            await file.truncate(prng.below(500_000));
            break;
          default: {
            const srcOffset = prng.below(40) * 4096;
            await file.cloneRange(src, { srcOffset, offset: at, length });
          }
        }
        done++;
      } catch (error) {
        // Over itself, or beyond the end.
        if (!(error instanceof FsError) || error.code !== "EINVAL") throw error;
      }
    }
  };
  await Promise.all([1, 2, 3, 4, 5, 6].map(task));
  await fs.unmount();
  assert(done > 150);
  assertCleanImage(device);
});

Deno.test("without reflink nothing can be shared", () =>
  withFs(async (fs) => {
    using a = await make(fs, "/a", 1);
    using b = await fs.open("/b", { ...RW, createNew: true });
    const error = await assertRejects(() => b.cloneRange(a), FsError);
    assertEquals(error.code, "EOPNOTSUPP");
  }, { reflink: false }));

/** Random changes of some files, and a copy of their bytes. */
class Stress {
  readonly #fs: Mount;
  readonly #prng: Prng;
  readonly #bs: number;
  readonly #names = ["/a", "/b", "/c", "/d"];
  readonly #bytes = new Map<string, Uint8Array>();
  static readonly #MAX = 512 * KiB;

  constructor(fs: Mount, prng: Prng, bs: number) {
    this.#fs = fs;
    this.#prng = prng;
    this.#bs = bs;
    for (const name of this.#names) this.#bytes.set(name, new Uint8Array(0));
  }

  async start(): Promise<void> {
    for (const name of this.#names) {
      (await this.#fs.open(name, { ...RW, createNew: true })).close();
    }
  }

  #name(): string {
    return this.#names[this.#prng.below(this.#names.length)]!;
  }

  /** The first `len` bytes of a file; what is beyond its end is zero. */
  #resized(name: string, len: number): Uint8Array {
    const bytes = new Uint8Array(len);
    bytes.set(this.#bytes.get(name)!.subarray(0, len));
    this.#bytes.set(name, bytes);
    return bytes;
  }

  #put(name: string, at: number, data: Uint8Array): void {
    const { length } = this.#bytes.get(name)!;
    this.#resized(name, Math.max(length, at + data.length)).set(data, at);
  }

  async step(): Promise<void> {
    const name = this.#name();
    const direct = this.#prng.below(5) === 0;
    using file = await this.#fs.open(name, { ...RW, direct });
    const kinds = direct
      ? [this.#write]
      : [this.#write, this.#clone, this.#clone, this.#space, this.#size];
    const kind = kinds[this.#prng.below(kinds.length)]!;
    await kind.call(this, file, name, direct);
    await this.check(name);
  }

  async #write(file: FsFile, name: string, direct: boolean): Promise<void> {
    const unit = direct ? this.#bs : 1;
    const at = this.#prng.below(Stress.#MAX / unit) * unit;
    const len = (1 + this.#prng.below(40000 / unit)) * unit;
    const data = filled(len, 1 + this.#prng.below(255));
    await writeAt(file, at, data);
    this.#put(name, at, data);
  }

  async #clone(file: FsFile, name: string): Promise<void> {
    const from = this.#name();
    using src = await this.#fs.open(from, RW);
    const bytes = this.#bytes.get(from)!;
    const bs = this.#bs;
    if (bytes.length === 0) return;
    const srcOffset = this.#prng.below(Math.ceil(bytes.length / bs)) * bs;
    const want = (1 + this.#prng.below(60)) * bs;
    const length = Math.min(want, bytes.length - srcOffset);
    const offset = this.#prng.below(Stress.#MAX / bs) * bs;
    const part = bytes.slice(srcOffset, srcOffset + length);
    try {
      await file.cloneRange(src, { srcOffset, offset, length });
    } catch (error) {
      // Over itself, or part of a block into the middle.
      if (!(error instanceof FsError) || error.code !== "EINVAL") throw error;
      return;
    }
    this.#put(name, offset, part);
  }

  async #space(file: FsFile, name: string): Promise<void> {
    const at = this.#prng.below(Stress.#MAX);
    const len = 1 + this.#prng.below(60000);
    const { length } = this.#bytes.get(name)!;
    switch (this.#prng.below(4)) {
      case 0: {
        const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        await file.fallocate(mode, at, len);
        this.#bytes.get(name)!.fill(0, at, at + len);
        return;
      }
      case 1:
        await file.fallocate(FALLOC_FL_ZERO_RANGE, at, len);
        this.#resized(name, Math.max(length, at + len)).fill(0, at, at + len);
        return;
      case 2:
        if (length > 0) {
          await file.fallocate(FALLOC_FL_UNSHARE_RANGE, 0, length);
        }
        return;
      default: {
        const blocks = Math.floor(length / this.#bs);
        if (blocks < 3) return;
        const from = this.#prng.below(blocks - 2) * this.#bs;
        await file.fallocate(FALLOC_FL_COLLAPSE_RANGE, from, this.#bs);
        const old = this.#bytes.get(name)!.slice();
        const bytes = this.#resized(name, length - this.#bs);
        bytes.set(old.subarray(from + this.#bs), from);
      }
    }
  }

  async #size(file: FsFile, name: string): Promise<void> {
    if (this.#prng.below(2) === 0) return await file.sync();
    const len = this.#prng.below(Stress.#MAX);
    await file.truncate(len);
    this.#resized(name, len);
  }

  async check(name: string): Promise<void> {
    using file = await this.#fs.open(name);
    const got = await readAll(file);
    const want = this.#bytes.get(name)!;
    assertEquals(got.length, want.length);
    const at = got.findIndex((byte, i) => byte !== want[i]);
    assertEquals(at, -1, `${name} differs`);
  }

  async checkAll(): Promise<void> {
    for (const name of this.#names) await this.check(name);
  }
}

for (
  const [name, bs, options] of [
    ["4 KiB blocks", 4096, {}],
    ["1 KiB blocks", 1024, {}],
    ["no reverse map", 1024, { rmapbt: false }],
  ] as [string, number, MkfsXfsOptions][]
) {
  Deno.test(`random changes of files that share blocks, ${name}`, () =>
    withFs(async (fs) => {
      const stress = new Stress(fs, new Prng(1, `reflink ${name}`), bs);
      await stress.start();
      for (let i = 0; i < 150; i++) await stress.step();
      await stress.checkAll();
    }, { blockSize: bs, ...options }));
}
