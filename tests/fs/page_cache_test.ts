import { assertEquals } from "@std/assert";
import { vfsFadvise } from "../../fs/fadvise.ts";
import { File, FMODE_READ, FMODE_WRITE, type Inode } from "../../fs/fs.ts";
import { fileOpen } from "../../fs/open.ts";
import { syncFileRange, syncFilesystem } from "../../fs/sync.ts";
import { EIO, ENOSPC } from "../../lib/errno.ts";
import type { MaybePromise } from "../../lib/maybe-promise.ts";
import { mappingSetError } from "../../mm/address-space.ts";
import {
  FGP_CREAT,
  FGP_LOCK,
  filemapGetFolio,
  filemapLookup,
  fileWriteAndWaitRange,
} from "../../mm/filemap.ts";
import {
  type Folio,
  folioMarkUptodate,
  folioPut,
  folioUnlock,
} from "../../mm/folio.ts";
import { folioMarkDirty } from "../../mm/filemap.ts";
import { type RamHooks, ramMount } from "./ramfs.ts";

const RW = FMODE_READ | FMODE_WRITE;

/** A file of `size` bytes, and its pages that are cached, clean unless in `dirty`. */
async function cached(
  size: number,
  pages: number[],
  dirty: number[] = [],
  hooks: RamHooks = {},
) {
  const { fs } = await ramMount(hooks);
  fs.openSync("a", { write: true, create: true }).close();
  fs.truncateSync("a", size);
  const inode: Inode = fs.superBlock.inodes.get(fs.statSync("a").ino)!;
  for (const index of pages) {
    const found = filemapGetFolio(
      inode.mapping,
      index,
      FGP_LOCK | FGP_CREAT,
      4096,
    );
    const folio = found as Folio;
    folioMarkUptodate(folio);
    if (dirty.includes(index)) folioMarkDirty(folio);
    folioUnlock(folio);
    folioPut(folio);
  }
  return { fs, inode, file: new File(inode, "a", RW, 0) };
}

function present(inode: Inode, upTo = 10): number[] {
  return Array.from({ length: upTo }, (_, i) => i)
    .filter((i) => filemapLookup(inode.mapping, i) !== null);
}

Deno.test("vfsFadvise() with dontneed keeps pages that it covers in part", async () => {
  // [offset, len, file size, pages left of 0 to 4]
  const rows: [number, number, number, number[]][] = [
    [0, 0, 20480, []],
    [4096, 8192, 20480, [0, 3, 4]],
    [1, 8191, 20480, [0, 2, 3, 4]],
    [0, 8191, 20480, [1, 2, 3, 4]],
    [0, 100, 20480, [0, 1, 2, 3, 4]],
    // The last page counts as whole where the range ends with the file.
    [0, 20000, 20000, []],
    [0, 19999, 20000, [4]],
    [0, 20001, 20000, [4]],
    [8192, 0, 20480, [0, 1]],
  ];
  for (const [offset, len, size, left] of rows) {
    const { fs, inode, file } = await cached(size, [0, 1, 2, 3, 4]);
    assertEquals(await vfsFadvise(file, offset, len, "dontneed"), 0);
    assertEquals(present(inode), left, `${offset}+${len} of ${size}`);
    await fs.unmount();
  }
});

Deno.test("vfsFadvise() with dontneed keeps dirty pages", async () => {
  const { fs, inode, file } = await cached(16384, [0, 1, 2], [1]);
  assertEquals(await vfsFadvise(file, 0, 0, "dontneed"), 0);
  assertEquals(present(inode), [1]);
  await fs.unmount();
});

Deno.test("vfsFadvise() with random, sequential and normal sets the readahead", async () => {
  const { fs, file } = await cached(4096, []);
  const start = file.ra.raPages;
  await vfsFadvise(file, 0, 0, "sequential");
  assertEquals([file.ra.raPages, file.ra.random], [2 * start, false]);
  // FMODE_RANDOM is a flag beside the window, which stays.
  await vfsFadvise(file, 0, 0, "random");
  assertEquals([file.ra.raPages, file.ra.random], [2 * start, true]);
  await vfsFadvise(file, 0, 0, "normal");
  assertEquals([file.ra.raPages, file.ra.random], [start, false]);
  await fs.unmount();
});

Deno.test("vfsFadvise() with willneed reads the range", async () => {
  const { fs, inode, file } = await cached(40000, []);
  assertEquals(await vfsFadvise(file, 8192, 8192, "willneed"), 0);
  assertEquals(present(inode), [2, 3]);
  assertEquals(inode.mapping.invalidateLock.isLocked, false);
  await fs.unmount();
});

Deno.test("fileOpen() lets a file see an error that nobody has been told", async () => {
  const { fs, inode } = await cached(4096, []);
  const open = () => fileOpen(inode, "a", RW, 0) as File;
  const sync = (file: File): MaybePromise<number> =>
    fileWriteAndWaitRange(inode.mapping, file, 0, 4095);
  const early = open();
  mappingSetError(inode.mapping, -EIO);
  const late = open();
  assertEquals(await sync(late), -EIO);
  assertEquals(await sync(late), 0);
  assertEquals(await sync(early), -EIO);
  // It has been told now.
  assertEquals(await sync(open()), 0);
  fs.superBlock.openFiles = 0;
  inode.refcount -= 3;
  await fs.unmount();
});

Deno.test("syncFileRange() tells each file of an error once, if it waits", async () => {
  const { fs, inode, file } = await cached(4096, []);
  mappingSetError(inode.mapping, -ENOSPC);
  assertEquals(await syncFileRange(file, 0, 0, 2), 0);
  assertEquals(await syncFileRange(file, 0, 0, 4), -ENOSPC);
  assertEquals(await syncFileRange(file, 0, 0, 7), 0);
  await fs.unmount();
});

Deno.test("syncFilesystem() leaves errors for fsync to report", async () => {
  const { fs, inode, file } = await cached(4096, [0], [0]);
  mappingSetError(inode.mapping, -EIO);
  assertEquals(await syncFilesystem(fs.superBlock), -EIO);
  assertEquals(
    await fileWriteAndWaitRange(inode.mapping, file, 0, 4095),
    -EIO,
  );
  await fs.unmount();
});

Deno.test("unmount() and the last close of an unlinked file empty the page cache", async () => {
  const { fs, inode } = await cached(16384, [0, 1, 2], [1]);
  const file = fs.openSync("a");
  fs.unlinkSync("a");
  assertEquals(present(inode), [0, 1, 2]);
  file.close();
  assertEquals(present(inode), []);
  await fs.unmount();
  const other = await cached(16384, [0, 1, 2]);
  await other.fs.unmount();
  assertEquals(present(other.inode), []);
});
