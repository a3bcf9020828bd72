import { assertEquals } from "@std/assert";
import {
  FALLOC_FL_COLLAPSE_RANGE as COLLAPSE,
  FALLOC_FL_INSERT_RANGE as INSERT,
  FALLOC_FL_KEEP_SIZE as KEEP,
  FALLOC_FL_PUNCH_HOLE as PUNCH,
  FALLOC_FL_UNSHARE_RANGE as UNSHARE,
  FALLOC_FL_WRITE_ZEROES as WRITE_ZEROES,
  FALLOC_FL_ZERO_RANGE as ZERO,
  File,
  FMODE_BUF_WASYNC,
  FMODE_CAN_ATOMIC_WRITE,
  FMODE_DONTCACHE,
  FMODE_NOWAIT,
  FMODE_READ,
  FMODE_WRITE,
  type Inode,
  S_SWAPFILE,
} from "../../fs/fs.ts";
import { inodeDioBegin, inodeDioEnd, inodeDioWait } from "../../fs/inode.ts";
import {
  IOCB_APPEND,
  IOCB_ATOMIC,
  IOCB_DIRECT,
  IOCB_DONTCACHE,
  IOCB_DSYNC,
  IOCB_HIPRI,
  IOCB_NOWAIT,
  IOCB_SYNC,
  IOCB_WRITE,
  Kiocb,
} from "../../fs/kiocb.ts";
import { vfsFallocate } from "../../fs/open.ts";
import {
  genericWriteChecks,
  MAX_RW_COUNT,
  vfsRead,
  vfsWrite,
} from "../../fs/read-write.ts";
import { genericWriteSync, syncFileRange } from "../../fs/sync.ts";
import {
  EBADF,
  EFBIG,
  EINVAL,
  EIO,
  EISDIR,
  EOPNOTSUPP,
  ETXTBSY,
} from "../../lib/errno.ts";
import { IovIter } from "../../lib/iov-iter.ts";
import { type RamHooks, ramMount } from "./ramfs.ts";

const RW = FMODE_READ | FMODE_WRITE;

/** An inode of 1000 bytes, and its directory's. */
async function inodes(hooks: RamHooks = {}) {
  const { fs, clock } = await ramMount(hooks);
  fs.openSync("a", { write: true, create: true }).close();
  fs.truncateSync("a", 1000);
  const { root, inodes } = fs.superBlock;
  const inode: Inode = inodes.get(fs.statSync("a").ino)!;
  return { fs, clock, root, inode };
}

Deno.test("genericWriteChecks() answers as the kernel, in its order", async () => {
  const { fs, inode } = await inodes();
  const max = inode.sb.maxBytes;
  // [pos, count, flags, inode flags, mode, result, pos after]
  const rows: [number, number, number, number, number, number, number][] = [
    [5, 10, 0, 0, RW, 10, 5],
    [5, 0, 0, 0, RW, 0, 5],
    [5, 0, 0, S_SWAPFILE, RW, -ETXTBSY, 5],
    [5, 10, 0, S_SWAPFILE, RW, -ETXTBSY, 5],
    [5, 0, IOCB_APPEND, 0, RW, 0, 5],
    [5, 10, IOCB_APPEND, 0, RW, 10, 1000],
    [5, 10, IOCB_NOWAIT, 0, RW, -EINVAL, 5],
    [5, 10, IOCB_NOWAIT | IOCB_APPEND, 0, RW, -EINVAL, 1000],
    [5, 10, IOCB_NOWAIT | IOCB_DIRECT, 0, RW, 10, 5],
    [5, 10, IOCB_NOWAIT, 0, RW | FMODE_BUF_WASYNC, 10, 5],
    [max, 1, 0, 0, RW, -EFBIG, max],
    [max, 0, 0, 0, RW, 0, max],
    [max - 4, 10, 0, 0, RW, 4, max - 4],
    [max + 1, 1, 0, 0, RW, -EFBIG, max + 1],
  ];
  for (const [pos, count, flags, inodeFlags, mode, result, after] of rows) {
    inode.flags = inodeFlags;
    const iocb = new Kiocb(new File(inode, "a", mode, 0), pos, flags);
    const iter = new IovIter(new Uint8Array(count));
    const got = genericWriteChecks(iocb, iter);
    assertEquals([got, iocb.pos], [result, after], `${pos} ${count} ${flags}`);
    if (got > 0) assertEquals(iter.count, got);
  }
  inode.flags = 0;
  await fs.unmount();
});

Deno.test("vfsRead() and vfsWrite() refuse flags that the file does not support", async () => {
  const seen: number[] = [];
  const { fs, inode } = await inodes({
    rw: (iocb) => {
      seen.push(iocb.flags);
      return 1;
    },
  });
  // [flag, FMODE that it needs, for reads, flags that arrive]
  const rows: [number, number, boolean, number][] = [
    [IOCB_NOWAIT, FMODE_NOWAIT, true, IOCB_NOWAIT],
    [IOCB_DONTCACHE, FMODE_DONTCACHE, true, IOCB_DONTCACHE],
    [IOCB_ATOMIC, FMODE_CAN_ATOMIC_WRITE, false, IOCB_ATOMIC],
    [IOCB_HIPRI, 0, true, IOCB_HIPRI],
    [IOCB_SYNC, 0, true, IOCB_SYNC | IOCB_DSYNC],
    [IOCB_DSYNC, 0, true, IOCB_DSYNC],
  ];
  const ask = (flag: number, mode: number, write: boolean, len = 1) => {
    seen.length = 0;
    const iocb = new Kiocb(new File(inode, "a", mode, 0));
    const iter = new IovIter(new Uint8Array(len));
    return write ? vfsWrite(iocb, iter, flag) : vfsRead(iocb, iter, flag);
  };
  for (const [flag, needs, reads, arrives] of rows) {
    for (const write of [false, true]) {
      const ok = write || reads;
      const flags = write ? arrives | IOCB_WRITE : arrives;
      assertEquals(ask(flag, RW | needs, write), ok ? 1 : -EOPNOTSUPP);
      assertEquals(seen, ok ? [flags] : []);
      if (needs === 0) continue;
      assertEquals(ask(flag, RW, write), -EOPNOTSUPP, `${flag} ${write}`);
      assertEquals(seen, []);
      // Nothing to do comes before the flags are looked at.
      assertEquals(ask(flag, RW, write, 0), 0);
    }
  }
  await fs.unmount();
});

Deno.test("vfsRead() and vfsWrite() check mode, kind and range in this order", async () => {
  const { fs, inode, root } = await inodes();
  const buf = new Uint8Array(8);
  const ask = (target: Inode, mode: number, pos: number, write: boolean) => {
    const iocb = new Kiocb(new File(target, "a", mode, 0), pos);
    const iter = new IovIter(buf);
    return write ? vfsWrite(iocb, iter, 0) : vfsRead(iocb, iter, 0);
  };
  assertEquals(ask(inode, FMODE_WRITE, -1, false), -EBADF);
  assertEquals(ask(inode, FMODE_READ, -1, true), -EBADF);
  assertEquals(ask(inode, RW, -1, false), -EINVAL);
  assertEquals(ask(inode, RW, -1, true), -EINVAL);
  assertEquals(ask(inode, RW, Number.MAX_SAFE_INTEGER, false), -EINVAL);
  const noRead = Object.create(root, { fop: { value: {} } });
  assertEquals(ask(noRead, RW, 0, false), -EISDIR);
  assertEquals(ask(noRead, RW, 0, true), -EINVAL);
  await fs.unmount();
});

Deno.test("vfsRead() cuts a call at MAX_RW_COUNT", async () => {
  const { fs, inode } = await inodes({ rw: (_iocb, iter) => iter.count });
  const iter = new IovIter();
  iter.count = 2 ** 32;
  const iocb = new Kiocb(new File(inode, "a", RW, 0));
  assertEquals(vfsRead(iocb, iter, 0), MAX_RW_COUNT);
  await fs.unmount();
});

Deno.test("vfsFallocate() answers as the kernel's gate, in its order", async () => {
  const { fs, inode, root } = await inodes({ fallocate: () => 7 });
  const max = inode.sb.maxBytes;
  // [mode, offset, len, file mode, result]
  const rows: [number, number, number, number, number][] = [
    [0, 0, 1, RW, 7],
    [KEEP, 0, 1, RW, 7],
    [PUNCH | KEEP, 0, 1, RW, 7],
    [ZERO, 0, 1, RW, 7],
    [ZERO | KEEP, 0, 1, RW, 7],
    [UNSHARE | KEEP, 0, 1, RW, 7],
    [COLLAPSE, 0, 1, RW, 7],
    [INSERT, 0, 1, RW, 7],
    [WRITE_ZEROES, 0, 1, RW, 7],
    [0x1000, -1, 1, FMODE_READ, -EINVAL],
    [0, 0, 0, RW, -EINVAL],
    [0, 0, -1, RW, -EINVAL],
    [0x1000, 0, 1, FMODE_READ, -EOPNOTSUPP],
    [4, 0, 1, RW, -EOPNOTSUPP],
    [PUNCH, 0, 1, RW, -EOPNOTSUPP],
    [PUNCH | ZERO | KEEP, 0, 1, RW, -EOPNOTSUPP],
    [COLLAPSE | KEEP, 0, 1, RW, -EOPNOTSUPP],
    [INSERT | KEEP, 0, 1, RW, -EOPNOTSUPP],
    [WRITE_ZEROES | KEEP, 0, 1, RW, -EOPNOTSUPP],
    [0, max, 1, FMODE_READ, -EBADF],
    [0, max, 1, RW, -EFBIG],
    [0, max - 1, 1, RW, 7],
    [0, 1, Number.MAX_SAFE_INTEGER, RW, -EFBIG],
  ];
  for (const [mode, offset, len, fileMode, result] of rows) {
    const file = new File(inode, "a", fileMode, 0);
    const got = vfsFallocate(file, mode, offset, len);
    assertEquals(got, result, `${mode} ${offset} ${len}`);
  }
  assertEquals(vfsFallocate(new File(root, "/", RW, 0), 0, 0, 1), -EISDIR);
  inode.flags = S_SWAPFILE;
  assertEquals(vfsFallocate(new File(inode, "a", RW, 0), 0, 0, 1), -ETXTBSY);
  inode.flags = 0;
  await fs.unmount();
});

Deno.test("genericWriteSync() syncs what was written if the call asks for it", async () => {
  let result = 0;
  const calls: unknown[] = [];
  const { fs, inode } = await inodes({
    fsync: (...args) => {
      calls.push(args);
      return result;
    },
  });
  const sync = (flags: number) => {
    calls.length = 0;
    const iocb = new Kiocb(new File(inode, "a", RW, 0), 300, flags);
    return genericWriteSync(iocb, 100);
  };
  assertEquals([sync(0), calls], [100, []]);
  assertEquals([sync(IOCB_DSYNC), calls], [100, [[200, 299, true]]]);
  assertEquals([sync(IOCB_DSYNC | IOCB_SYNC), calls], [100, [
    [200, 299, false],
  ]]);
  assertEquals([sync(IOCB_DONTCACHE), calls], [100, []]);
  result = -EIO;
  assertEquals(sync(IOCB_DSYNC), -EIO);
  await fs.unmount();
});

Deno.test("syncFileRange() refuses what sync_file_range(2) refuses", async () => {
  const { fs, inode } = await inodes();
  const file = new File(inode, "a", RW, 0);
  assertEquals(syncFileRange(file, 0, 0, 7), 0);
  assertEquals(syncFileRange(file, 0, 0, 8), -EINVAL);
  assertEquals(syncFileRange(file, -1, 0, 7), -EINVAL);
  assertEquals(syncFileRange(file, 0, -1, 7), -EINVAL);
  assertEquals(syncFileRange(file, 1, Number.MAX_SAFE_INTEGER, 7), -EINVAL);
  await fs.unmount();
});

Deno.test("inodeDioWait() waits for the last direct I/O in flight", async () => {
  const { fs, inode } = await inodes();
  assertEquals(inodeDioWait(inode), undefined);
  inodeDioBegin(inode);
  inodeDioBegin(inode);
  let over = false;
  const waited = Promise.resolve(inodeDioWait(inode)).then(() => {
    over = true;
  });
  inodeDioEnd(inode);
  await Promise.resolve();
  assertEquals(over, false);
  inodeDioEnd(inode);
  await waited;
  await fs.unmount();
});

Deno.test("inodeDioWait() runs the clock for a synchronous caller", async () => {
  const { fs, clock, inode } = await inodes();
  inodeDioBegin(inode);
  clock.at(5000, inodeDioEnd, inode);
  clock.enterSync();
  const waited = inodeDioWait(inode);
  clock.leaveSync();
  assertEquals([waited, clock.now()], [undefined, 5000]);
  await fs.unmount();
});
