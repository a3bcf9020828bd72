import { assertEquals, assertRejects } from "@std/assert";
import { vfsFadvise, vfsReadahead } from "../../fs/fadvise.ts";
import { File, FMODE_READ, FMODE_WRITE, type Inode } from "../../fs/fs.ts";
import { fileOpen } from "../../fs/open.ts";
import { syncFileRange, syncFilesystem, vfsSyncfs } from "../../fs/sync.ts";
import { EBADF, EINVAL, EIO, ENOSPC, FsError } from "../../lib/errno.ts";
import type { MaybePromise } from "../../lib/maybe-promise.ts";
import {
  mappingSetError,
  PAGECACHE_TAG_WRITEBACK,
} from "../../mm/address-space.ts";
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

// What Linux 6.18 answers and does.
Deno.test("vfsFadvise() takes offsets below 0", async () => {
  for (
    const advice of ["normal", "random", "sequential", "noreuse"] as const
  ) {
    const { fs, file } = await cached(4096, []);
    assertEquals(vfsFadvise(file, -4096, 4096, advice), 0);
    assertEquals(vfsFadvise(file, 0, -1, advice), -EINVAL);
    await fs.unmount();
  }
  const rows: [number, number, number[]][] = [
    [-4096, 4096, [0, 1]],
    [-4096, 8192, [0, 1]],
    [-8192, 0, [0, 1]],
    [-4095, 1, []],
    [-1, 0, []],
    [-1, 1, []],
  ];
  for (const [offset, len, left] of rows) {
    const { fs, inode, file } = await cached(8192, [0, 1]);
    assertEquals(await vfsFadvise(file, offset, len, "dontneed"), 0);
    assertEquals(present(inode), left, `${offset}+${len}`);
    await fs.unmount();
  }
  const { fs, inode, file } = await cached(8192, []);
  for (const len of [0, 1, 16384]) {
    assertEquals(await vfsFadvise(file, -8192, len, "willneed"), 0);
  }
  assertEquals(present(inode), []);
  await fs.unmount();
});

Deno.test("vfsFadvise() with dontneed starts to write, which it does not wait for", async () => {
  const { fs, inode, file } = await cached(8192, [0, 1], [0, 1]);
  const ranges: number[][] = [];
  inode.mapping.ops.writepages = (_mapping, wbc) => {
    ranges.push([wbc.rangeStart, wbc.rangeEnd, wbc.syncAll ? 1 : 0]);
    return 0;
  };
  assertEquals(await vfsFadvise(file, 10, 20, "dontneed"), 0);
  assertEquals(await vfsFadvise(file, -1, 0, "dontneed"), 0);
  assertEquals(ranges, [[10, 29, 0]]);
  assertEquals(present(inode), [0, 1]);
  inode.mapping.ops.writepages = () => 0;
  await fs.unmount();
});

Deno.test("vfsReadahead() reads a range of a regular file that is open for reading", async () => {
  const { fs, inode, file } = await cached(40000, []);
  assertEquals(await vfsReadahead(file, 4096, 8192), 0);
  assertEquals(present(inode), [1, 2]);
  assertEquals(await vfsReadahead(file, 200_000, 10), 0);
  assertEquals(await vfsReadahead(file, -1, 8192), 0);
  assertEquals(await vfsReadahead(file, 0, -1), -EINVAL);
  assertEquals(present(inode), [1, 2]);
  assertEquals(await vfsReadahead(file, 0, 0), 0);
  assertEquals(present(inode, 11).length, 10);
  const writer = new File(inode, "a", FMODE_WRITE, 0);
  assertEquals(vfsReadahead(writer, 0, 10), -EBADF);
  const dir = new File(fs.superBlock.root, "/", RW, 0);
  assertEquals(vfsReadahead(dir, 0, 10), -EINVAL);
  await fs.unmount();
});

// The figures of Linux 6.18 for the same file.
Deno.test("cachestat() counts the pages of a range by their state", async () => {
  const { fs } = await cached(100_000, [0, 1, 2, 3, 8], [1, 8]);
  const file = fs.openSync("a");
  const stat = (offset?: number, length?: number) => {
    const s = file.cachestatSync(offset, length);
    return [s.nrCache, s.nrDirty, s.nrWriteback, s.nrEvicted];
  };
  assertEquals(stat(), [5, 2, 0, 0]);
  assertEquals(stat(4096, 4096), [1, 1, 0, 0]);
  assertEquals(stat(4095, 2), [2, 1, 0, 0]);
  assertEquals(stat(0, 1), [1, 0, 0, 0]);
  assertEquals(stat(16384, 0), [1, 1, 0, 0]);
  assertEquals(stat(2 ** 52, 10), [0, 0, 0, 0]);
  assertEquals(await file.cachestat(), file.cachestatSync());
  file.close();
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

Deno.test("vfsSyncfs() tells each caller once of an error of any file", async () => {
  const { fs, inode, file } = await cached(4096, []);
  const sb = fs.superBlock;
  const [first, second] = [{ wbErr: 0 }, { wbErr: 0 }];
  assertEquals(await vfsSyncfs(sb, first), 0);
  mappingSetError(inode.mapping, -ENOSPC);
  // That fsync has reported it makes no difference.
  assertEquals(
    await fileWriteAndWaitRange(inode.mapping, file, 0, 4095),
    -ENOSPC,
  );
  assertEquals(await vfsSyncfs(sb, first), -ENOSPC);
  assertEquals(await vfsSyncfs(sb, first), 0);
  assertEquals(await vfsSyncfs(sb, second), -ENOSPC);
  await assertRejects(() => fs.sync(), FsError, "ENOSPC");
  await fs.sync();
  mappingSetError(inode.mapping, -EIO);
  assertEquals(await vfsSyncfs(sb, second), -EIO);
  inode.mapping.flags = 0;
  await fs.unmount();
});

Deno.test("vfsSyncfs() answers with the file system's own error first, and has told of the other", async () => {
  const { fs, inode } = await cached(4096, []);
  const sb = fs.superBlock;
  const cursor = { wbErr: 0 };
  mappingSetError(inode.mapping, -EIO);
  const { syncFs } = sb.ops;
  sb.ops.syncFs = () => -ENOSPC;
  assertEquals(await vfsSyncfs(sb, cursor), -ENOSPC);
  sb.ops.syncFs = syncFs;
  assertEquals(await vfsSyncfs(sb, cursor), 0);
  inode.mapping.flags = 0;
  await fs.unmount();
});

Deno.test("syncFileRange() writes and waits as its flags say", async () => {
  const rows: [number, string][] = [
    [0, ""],
    [1, "wait"],
    [2, "start"],
    [4, "wait"],
    [3, "wait start"],
    [6, "start wait"],
    [5, "wait wait"],
    // What is in flight already is written again.
    [7, "wait start all wait"],
  ];
  for (const [flags, expected] of rows) {
    const { fs, inode, file } = await cached(8192, [0, 1], [0]);
    const { mapping } = inode;
    const log: string[] = [];
    mapping.ops.writepages = (_mapping, wbc) => {
      log.push(wbc.syncAll ? "start all" : "start");
      return 0;
    };
    const { pages } = mapping;
    const tagged = pages.tagged.bind(pages);
    pages.tagged = (tag) => {
      if (tag === PAGECACHE_TAG_WRITEBACK) log.push("wait");
      return tagged(tag);
    };
    assertEquals(await syncFileRange(file, 0, 8192, flags), 0);
    assertEquals(log.join(" "), expected, `flags ${flags}`);
    mapping.ops.writepages = () => 0;
    await fs.unmount();
  }
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
