/**
 * The iomap corner cases of sharing blocks, and of taking them out of a file and putting
 * them in.
 */
import { assertEquals, assertRejects } from "@std/assert";
import {
  FALLOC_FL_COLLAPSE_RANGE,
  FALLOC_FL_INSERT_RANGE,
  FIEMAP_EXTENT_SHARED,
  FsError,
  type FsFile,
  type Mount,
  mount,
} from "../../../mod.ts";
import { FMODE_READ, FMODE_WRITE } from "../../../fs/fs.ts";
import { vfsOpen } from "../../../fs/namei.ts";
import { fileClose } from "../../../fs/open.ts";
import {
  IOMAP_DELALLOC,
  IOMAP_F_DIRTY,
  IOMAP_F_NEW,
  IOMAP_F_SHARED,
} from "../../../iomap/iomap.ts";
import { setIomapTracer } from "../../../iomap/trace.ts";
import { EFBIG, EINVAL } from "../../../lib/errno.ts";
import { assertCleanImage } from "./clean.ts";
import { newXfs, xfs } from "./fixture.ts";

const BLOCK = 4096;
const ALL = { read: true, write: true, create: true };

/** Works on a new file system, whose image is right afterwards. */
async function onXfs(work: (fs: Mount) => Promise<void>): Promise<void> {
  using device = await newXfs();
  {
    await using fs = await mount(device, xfs, { options: "allocsize=4k" });
    await work(fs);
  }
  assertCleanImage(device);
}

/** A file of some blocks, synced; the block of each byte is its value. */
async function make(fs: Mount, path: string, blocks: number): Promise<FsFile> {
  const file = await fs.open(path, ALL);
  await file.write(content(Array.from({ length: blocks }, (_, i) => i + 1)));
  await file.sync();
  return file;
}

/** Blocks filled with a value each. */
function content(values: number[]): Uint8Array {
  const data = new Uint8Array(values.length * BLOCK);
  values.forEach((n, i) => data.fill(n, i * BLOCK, (i + 1) * BLOCK));
  return data;
}

async function readAll(file: FsFile): Promise<Uint8Array> {
  const data = new Uint8Array((await file.stat()).size);
  if (data.length > 0) await file.read(data, { at: 0 });
  return data;
}

async function assertFails(
  code: string,
  work: () => Promise<unknown>,
): Promise<void> {
  const error = await assertRejects(work, FsError);
  assertEquals(error.code, code);
}

Deno.test("iomap corner case 162: collapsing up to the end and inserting at the end are -EINVAL", async () => {
  await onXfs(async (fs) => {
    using file = await make(fs, "/a", 4);
    const collapse = (at: number, len: number) =>
      file.fallocate(FALLOC_FL_COLLAPSE_RANGE, at * BLOCK, len * BLOCK);
    const insert = (at: number, len: number) =>
      file.fallocate(FALLOC_FL_INSERT_RANGE, at * BLOCK, len * BLOCK);
    await assertFails("EINVAL", () => collapse(2, 2));
    await assertFails("EINVAL", () => collapse(2, 3));
    await assertFails("EINVAL", () => insert(4, 1));
    await assertFails("EINVAL", () => insert(5, 1));
    assertEquals(await readAll(file), content([1, 2, 3, 4]));
    // A byte behind it is enough.
    await file.truncate(4 * BLOCK + 1);
    await collapse(2, 2);
    await insert(2, 1);
    const want = new Uint8Array(3 * BLOCK + 1);
    want.set(content([1, 2, 0]));
    assertEquals(await readAll(file), want);
  });
});

Deno.test("iomap corner case 163: inserting too much is -EFBIG before it is -EINVAL to insert at the end", async () => {
  await onXfs(async (fs) => {
    (await make(fs, "/a", 2)).close();
    const file = await vfsOpen(fs.superBlock, "/a", {
      mode: FMODE_READ | FMODE_WRITE,
      iocbFlags: 0,
      create: false,
      exclusive: false,
      truncate: false,
      permissions: 0,
    });
    if (typeof file === "number") throw new Error(`open: ${file}`);
    // The VFS would answer for it: below that, the file system is asked.
    const insert = (at: number, len: number) =>
      file.inode.fop.fallocate!(file, FALLOC_FL_INSERT_RANGE, at, len);
    const most = 2 ** 53 - BLOCK;
    assertEquals(await insert(2 * BLOCK, most), -EFBIG);
    assertEquals(await insert(BLOCK, most), -EFBIG);
    assertEquals(await insert(2 * BLOCK, BLOCK), -EINVAL);
    assertEquals(await insert(2 * BLOCK, most - 1), -EINVAL);
    assertEquals(file.inode.size, 2 * BLOCK);
    await fileClose(file);
  });
});

Deno.test("iomap corner case 165: sharing what differs is -EBADE, what is not aligned -EINVAL, between file systems -EXDEV", async () => {
  await onXfs(async (fs) => {
    using a = await make(fs, "/a", 4);
    using b = await make(fs, "/b", 4);
    await b.write(content([9]), { at: BLOCK });
    await b.sync();
    await assertFails("EBADE", () => b.dedupeRange(a));
    const same = { srcOffset: 2 * BLOCK, offset: 2 * BLOCK };
    assertEquals(await b.dedupeRange(a, same), 2 * BLOCK);
    const shared = (await b.fiemap()).filter((row) =>
      (row.flags & FIEMAP_EXTENT_SHARED) !== 0
    );
    assertEquals(shared.map((row) => [row.logical, row.length]), [
      [2 * BLOCK, 2 * BLOCK],
    ]);
    for (
      const range of [
        { srcOffset: 512, length: BLOCK },
        { offset: 512, length: BLOCK },
        { length: 512 },
        { length: BLOCK + 512 },
      ]
    ) {
      await assertFails("EINVAL", () => b.cloneRange(a, range));
      await assertFails("EINVAL", () => a.cloneRange(a, range));
    }
    // Over itself.
    const over = { offset: BLOCK, length: 2 * BLOCK };
    await assertFails("EINVAL", () => a.cloneRange(a, over));
    assertEquals(await readAll(b), content([1, 9, 3, 4]));
    await onXfs(async (other) => {
      using c = await make(other, "/c", 4);
      await assertFails("EXDEV", () => c.cloneRange(a));
      await assertFails("EXDEV", () => c.dedupeRange(a));
    });
  });
});

Deno.test("iomap corner case 166: cloning length 0 goes to the end of the source; there it is 0, beyond it -EINVAL", async () => {
  await onXfs(async (fs) => {
    using a = await make(fs, "/a", 2);
    await a.write(new Uint8Array(100).fill(7), { at: 2 * BLOCK });
    using b = await fs.open("/b", ALL);
    const clone = (srcOffset: number) =>
      b.cloneRange(a, { srcOffset, length: 0 });
    await clone(BLOCK);
    const want = new Uint8Array(BLOCK + 100).fill(7);
    want.fill(2, 0, BLOCK);
    assertEquals(await readAll(b), want);
    await a.truncate(2 * BLOCK);
    await clone(2 * BLOCK);
    assertEquals(await readAll(b), want);
    await assertFails("EINVAL", () => clone(3 * BLOCK));
  });
});

Deno.test("iomap corner case 167: a write over a shared extent reserves 32 aligned blocks", async () => {
  await onXfs(async (fs) => {
    using a = await make(fs, "/a", 100);
    using b = await fs.open("/b", ALL);
    await b.cloneRange(a);
    const sectors = (await b.stat()).blocks!;
    const maps: number[][] = [];
    setIomapTracer((event) => {
      if (event.name !== "iomap_iter_dstmap") return;
      maps.push([event.type, event.flags, event.offset, event.length]);
    });
    await b.write(new Uint8Array(10).fill(9), { at: 40 * BLOCK + 5 });
    setIomapTracer(null);
    const flags = IOMAP_F_SHARED | IOMAP_F_NEW | IOMAP_F_DIRTY;
    assertEquals(maps, [
      [IOMAP_DELALLOC, flags, 32 * BLOCK, 32 * BLOCK],
    ]);
    assertEquals((await b.stat()).blocks! - sectors, 32 * 8);
    // What comes next is there already.
    await b.write(content([9]), { at: 63 * BLOCK });
    assertEquals((await b.stat()).blocks! - sectors, 32 * 8);
    await b.sync();
    const found = await readAll(b);
    assertEquals([found[40 * BLOCK], found[40 * BLOCK + 5]], [41, 9]);
    assertEquals((await readAll(a))[40 * BLOCK + 5], 41);
  });
});
