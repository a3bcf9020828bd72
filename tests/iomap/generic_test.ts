import { assertEquals, assertRejects } from "@std/assert";
import { FsFile } from "../../fs/fs-file.ts";
import { FMODE_READ, FMODE_WRITE, Inode, S_IFREG } from "../../fs/fs.ts";
import { IOCB_DIRECT } from "../../fs/kiocb.ts";
import { fileOpen } from "../../fs/open.ts";
import {
  type GenericIomapFs,
  genericIomapMethods,
} from "../../iomap/generic.ts";
import { IOMAP_MAPPED } from "../../iomap/iomap.ts";
import { EIO, FsError } from "../../lib/errno.ts";
import { bytes, KiB, type Options, pattern, test, TestFs } from "./testfs.ts";

/** A file whose methods are the generic ones, opened twice. */
async function open(options: Options, hooks: Partial<GenericIomapFs> = {}) {
  const fs = new TestFs({
    blkbits: 10,
    allocate: IOMAP_MAPPED,
    ...options,
  });
  const { ops } = fs;
  const methods = genericIomapMethods({ ops, ...hooks });
  const { inode: iop, file: fop, mapping } = methods;
  const inode = new Inode(fs.inode.sb, 6, S_IFREG, iop, fop, mapping);
  inode.size = options.size ?? 0;
  const opened = async (flags: number) => {
    const file = await fileOpen(inode, "/g", FMODE_READ | FMODE_WRITE, flags);
    if (typeof file === "number") throw new Error(`open: ${file}`);
    return new FsFile(file);
  };
  return {
    fs,
    inode,
    file: await opened(0),
    direct: await opened(IOCB_DIRECT),
  };
}

function close({ file, direct }: Awaited<ReturnType<typeof open>>): void {
  file.close();
  direct.close();
}

const OVER_ONE_EXTENT: Options = {
  size: 8 * KiB,
  rows: [[0, 8 * KiB, IOMAP_MAPPED]],
};

test("genericIomapMethods() has truncate zero on the device the rest of the block", async () => {
  const t = await open(OVER_ONE_EXTENT);
  t.fs.fillDisk();

  await t.file.truncate(1500);
  await t.file.sync();

  const { addr } = t.fs.extents[0]!;
  const want = pattern(0, 4 * KiB);
  want.fill(0, 1500, 2 * KiB);
  assertEquals(t.fs.dev.data.slice(addr, addr + 4 * KiB), want);
  close(t);
});

test("genericIomapMethods() has truncate wait for direct I/O in flight", async () => {
  const seen: number[] = [];
  const t = await open(OVER_ONE_EXTENT, {
    truncated({ dioCount }) {
      seen.push(dioCount);
      return 0;
    },
  });

  const order: string[] = [];
  const done = (what: string) => () => order.push(what);
  const write = t.direct.write(bytes(KiB, 1), { at: 0 }).then(done("write"));
  assertEquals(t.inode.dioCount, 1);
  const truncate = t.file.truncate(KiB).then(done("truncate"));
  await Promise.all([write, truncate]);

  assertEquals(seen, [0]);
  assertEquals(order, ["write", "truncate"]);
  close(t);
});

test("genericIomapMethods() has a write beyond the end wait for direct I/O in flight", async () => {
  const t = await open({ ...OVER_ONE_EXTENT, size: 2 * KiB });
  const write = t.direct.write(bytes(KiB, 1), { at: 0 });
  assertEquals(t.inode.dioCount, 1);
  const counts: number[] = [];
  t.fs.tweak = () => counts.push(t.inode.dioCount);

  await Promise.all([write, t.file.write(bytes(10, 2), { at: 3000 })]);

  assertEquals(Math.max(...counts), 0);
  close(t);
});

test("genericIomapMethods() has writeback map anew where the file system could not", async () => {
  const t = await open({ size: 8 * KiB, blkbits: 12 }, {
    writeOps: { iomapValid: () => true },
  });
  await t.file.write(bytes(8 * KiB, 1));
  const { iomapBegin } = t.fs.ops;
  let asked = 0;
  t.fs.ops.iomapBegin = (inode, pos, length, flags, iomap, srcmap) => {
    assertEquals([iomap.length, srcmap.length], [0, 0]);
    const ret = iomapBegin(inode, pos, length, flags, iomap, srcmap);
    srcmap.length = 1;
    return asked++ === 0 ? -EIO : ret;
  };

  await assertRejects(() => t.file.sync(), FsError, "EIO");

  // Not: took what the first time had left, for both pages.
  assertEquals(asked, 2);
  t.fs.ops.iomapBegin = iomapBegin;
  close(t);
});
