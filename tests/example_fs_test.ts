/**
 * The example of a file system runs everything that the library gives it, and the
 * README shows it as it is.
 */
import { assertEquals, assertRejects } from "@std/assert";
import {
  createNvme,
  FIEMAP_EXTENT_LAST,
  FIEMAP_EXTENT_UNWRITTEN,
  type FsFile,
  mount,
  SEEK_DATA,
  SEEK_HOLE,
  VirtualClock,
} from "../mod.ts";
import { exampleFs } from "./example_fs.ts";
import { test } from "./iomap/testfs.ts";

const KiB = 1024;
const ALL = { read: true, write: true, create: true };

async function withFile(
  work: (file: FsFile, direct: FsFile) => Promise<void>,
): Promise<void> {
  const device = createNvme(new VirtualClock(), { size: 64 * 2 ** 20 });
  const fs = await mount(device, exampleFs, { memory: 2 ** 20 });
  const file = await fs.open("/a", ALL);
  const direct = await fs.open("/a", { ...ALL, direct: true });
  await work(file, direct);
  file.close();
  direct.close();
  await fs.unmount();
  device.close();
}

function bytes(len: number, first: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: len }, (_, i) => 1 + (first + i) % 251);
}

async function contents(file: FsFile): Promise<Uint8Array> {
  const p = new Uint8Array((await file.stat()).size);
  assertEquals(await file.read(p, { at: 0 }), p.length);
  return p;
}

test("the example file system reads and writes through the cache", async () => {
  await withFile(async (file) => {
    await file.write(bytes(10_000, 0), { at: 5000 });
    await file.write(bytes(100, 7), { at: 6000 });

    const want = new Uint8Array(15_000);
    want.set(bytes(10_000, 0), 5000);
    want.set(bytes(100, 7), 6000);
    assertEquals(await contents(file), want);
  });
});

test("the example file system finds on the device what writeback put there", async () => {
  await withFile(async (file, direct) => {
    await file.write(bytes(9 * KiB, 3), { at: 0 });
    await file.sync();
    await file.advise("dontneed");

    assertEquals(await contents(file), bytes(9 * KiB, 3));
    const p = new Uint8Array(8 * KiB);
    assertEquals(await direct.read(p, { at: 1024 }), 8 * KiB);
    assertEquals(p, bytes(8 * KiB, 3 + 1024));
  });
});

test("the example file system writes past the cache, and the file grows", async () => {
  await withFile(async (file, direct) => {
    await file.write(bytes(6000, 0), { at: 0 });
    await direct.write(bytes(4096, 9), { at: 4096, dsync: true });
    await direct.write(bytes(512, 1), { at: 20 * KiB });

    const want = new Uint8Array(20 * KiB + 512);
    want.set(bytes(4096, 0));
    want.set(bytes(4096, 9), 4096);
    want.set(bytes(512, 1), 20 * KiB);
    assertEquals(await contents(file), want);
  });
});

test("the example file system reads as zero what lay beyond the end", async () => {
  await withFile(async (file) => {
    await file.write(bytes(40 * KiB, 0), { at: 0 });
    await file.sync();
    await file.truncate(1000);
    await file.truncate(30 * KiB);
    await file.sync();
    await file.advise("dontneed");

    const want = new Uint8Array(30 * KiB);
    want.set(bytes(1000, 0));
    assertEquals(await contents(file), want);
  });
});

test("the example file system can be mapped", async () => {
  await withFile(async (file) => {
    await file.write(bytes(8 * KiB, 0), { at: 0 });
    await file.sync();
    using map = await file.mmap({ write: true });
    const p = new Uint8Array(5000);
    await map.load(3000, p);
    assertEquals(p, bytes(5000, 3000));

    await map.store(4000, bytes(200, 80));
    await map.sync();
    await file.advise("dontneed");
    const want = bytes(8 * KiB, 0);
    want.set(bytes(200, 80), 4000);
    assertEquals(await contents(file), want);
  });
});

test("the example file system says where data and extents are", async () => {
  await withFile(async (file) => {
    await file.write(bytes(5000, 0), { at: 8192 });

    assertEquals(await file.seek(0, SEEK_DATA), 8192);
    assertEquals(await file.seek(8192, SEEK_HOLE), 8192 + 5000);
    const extents = await file.fiemap({ sync: true, length: 16384 });
    assertEquals(extents, [
      {
        logical: 0,
        physical: 0,
        length: 8192,
        flags: FIEMAP_EXTENT_UNWRITTEN,
      },
      {
        logical: 8192,
        physical: 8192,
        length: 8192,
        flags: FIEMAP_EXTENT_LAST,
      },
    ]);
  });
});

test("the example file system is full after its last extent", async () => {
  const device = createNvme(new VirtualClock(), { size: 20 * 2 ** 20 });
  const fs = await mount(device, exampleFs);
  using a = await fs.open("/a", ALL);
  using b = await fs.open("/b", ALL);
  await a.write(bytes(1, 0));

  await assertRejects(() => b.write(bytes(1, 0)), Error, "ENOSPC");
  const names = await Array.fromAsync(fs.readDir("/"), (entry) => entry.name);
  assertEquals(names, ["a", "b"]);
  await fs.unlink("/b");
});

test("the README shows the example file system as it is", async () => {
  const root = new URL("../", import.meta.url);
  const readme = await Deno.readTextFile(new URL("README.md", root));
  const source = await Deno.readTextFile(
    new URL("tests/example_fs.ts", root),
  );
  const section = readme.split("\n## Write your own file system\n")[1]!
    .split("\n## ")[0]!;
  const blocks = [...section.matchAll(/```ts ignore\n([^]*?)```/g)];
  const shown = blocks.map((block) => block[1]).join("\n");
  // The file begins with a comment for those who come from elsewhere.
  assertEquals(shown, source.slice(source.indexOf("import {")));
});
