/** Corner case 150, and FIBMAP. */
import { assertEquals } from "@std/assert";
import { BLK_STS_IOERR } from "../../block/blk-types.ts";
import { File, Inode, S_IFDIR } from "../../fs/fs.ts";
import { ioctlFibmap } from "../../fs/ioctl.ts";
import { iomapBmap } from "../../iomap/fiemap.ts";
import {
  IOMAP_DELALLOC,
  IOMAP_INLINE,
  IOMAP_MAPPED,
  IOMAP_UNWRITTEN,
} from "../../iomap/iomap.ts";
import { EINVAL, EIO, ENOTTY, ERANGE } from "../../lib/errno.ts";
import type { MaybePromise } from "../../lib/maybe-promise.ts";
import { setLogHandler } from "../../lib/printk.ts";
import { bytes, KiB, test, TestFs } from "./testfs.ts";

const MiB = 1024 * KiB;

async function blocks(t: TestFs, count: number): Promise<number[]> {
  const found: number[] = [];
  for (let block = 0; block < count; block++) {
    found.push(await iomapBmap(t.inode.mapping, block, t.ops));
  }
  return found;
}

test("iomap corner case 150: bmap flushes first, and of all but written blocks is 0", async () => {
  const t = new TestFs({
    size: 24576,
    rows: [
      [4096, 8192, IOMAP_MAPPED, 5 * MiB],
      [12288, 4096, IOMAP_UNWRITTEN, 6 * MiB],
    ],
  });
  // The last block is promised now, and written once it is asked for.
  await t.write(20480, bytes(4096, 1));
  assertEquals(t.lookup(20480).type, IOMAP_DELALLOC);
  const first = 5 * MiB / 4096;
  const last = t.nextAddr / 4096;
  assertEquals(await blocks(t, 7), [0, first, first + 1, 0, 0, last, 0]);
  assertEquals(t.dev.take(), ["W 1048576+4096"]);
  assertEquals(t.takeCalls().filter((c) => c === "begin 4096+4096").length, 1);

  t.extents = [{ offset: 0, length: 100, type: IOMAP_INLINE, addr: MiB }];
  assertEquals(await blocks(t, 1), [0]);
});

test("iomapBmap() counts in blocks of the file system", async () => {
  const t = new TestFs({
    blkbits: 10,
    size: 8192,
    rows: [[0, 8192, IOMAP_MAPPED, 3 * MiB + 512]],
  });
  assertEquals(await blocks(t, 2), [3 * KiB, 3 * KiB + 1]);
});

test("iomapBmap() is 0 for every error", async () => {
  const t = new TestFs({ size: 4096, rows: [[0, 4096, IOMAP_MAPPED]] });
  t.beginError = () => -EIO;
  assertEquals(await blocks(t, 1), [0]);
  t.beginError = () => 0;
  const { iomapBegin } = t.ops;
  const ops = { iomapBegin, iomapEnd: () => -EIO };
  assertEquals(await iomapBmap(t.inode.mapping, 0, ops), 0);
  await t.write(0, bytes(4096, 1));
  t.dev.fault = () => BLK_STS_IOERR;
  assertEquals(await blocks(t, 1), [0]);
});

/** A file whose file system answers so. */
function answering(
  bmap?: (mapping: unknown, block: number) => MaybePromise<number>,
  mode?: number,
): File {
  const { inode } = new TestFs();
  const { sb, iop, fop, mapping } = inode;
  const aops = { ...mapping.ops, ...(bmap === undefined ? {} : { bmap }) };
  const other = new Inode(sb, 6, mode ?? inode.mode, iop, fop, aops);
  return new File(other, "/other", 3, 0);
}

test("ioctlFibmap() refuses what is no block, and an answer that is no int", async () => {
  const lines: string[] = [];
  const old = setLogHandler((line) => lines.push(line));
  const file = answering((_mapping, block) => Promise.resolve(block + 1));
  assertEquals(await ioctlFibmap(file, 41), 42);
  assertEquals(await ioctlFibmap(file, -1), -EINVAL);
  assertEquals(await ioctlFibmap(file, 2 ** 31), -EINVAL);
  assertEquals(lines, []);
  assertEquals(await ioctlFibmap(file, 2 ** 31 - 1), -ERANGE);
  setLogHandler(old);
  assertEquals(lines, [
    "[iomap/1] FS: test0 File: /other would truncate fibmap result",
  ]);
  assertEquals(await ioctlFibmap(answering(), 0), -EINVAL);
  assertEquals(await ioctlFibmap(answering(() => 1, S_IFDIR), 0), -ENOTTY);
});
