import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  FMODE_CAN_ODIRECT,
  SEEK_CUR,
  SEEK_DATA,
  SEEK_END,
  SEEK_HOLE,
  SEEK_SET,
} from "../../fs/fs.ts";
import type { FsFile } from "../../fs/fs-file.ts";
import type { Kiocb } from "../../fs/kiocb.ts";
import { IOCB_NOWAIT, IOCB_SYNC_CALL } from "../../fs/kiocb.ts";
import { EAGAIN, EIO, EIOCBQUEUED, FsError } from "../../lib/errno.ts";
import { codeOf, codeOfAsync, type RamHooks, ramMount } from "./ramfs.ts";

const all = { read: true, write: true, create: true };
const bytes = (text: string) => new TextEncoder().encode(text);

async function open(hooks: RamHooks = {}, text = "") {
  const mounted = await ramMount(hooks);
  const file = await mounted.fs.open("a", all);
  if (text !== "") file.writeSync(bytes(text), { at: 0 });
  return { ...mounted, file };
}

Deno.test("readSync() answers null at the end and 0 for an empty buffer", async () => {
  const { fs, file } = await open({}, "hello");
  const p = new Uint8Array(3);
  assertEquals(file.readSync(p), 3);
  assertEquals(file.readSync(p), 2);
  assertEquals(file.readSync(p), null);
  assertEquals(file.readSync(new Uint8Array(0)), 0);
  assertEquals(file.readSync(p, { at: 100 }), null);
  assertEquals(await file.read(p), null);
  assertEquals(await file.read(new Uint8Array(0)), 0);
  assertEquals(await file.read(p, { at: 1 }), 3);
  assertEquals(p, bytes("ell"));
  file.close();
  await fs.unmount();
});

Deno.test("read() and write() without `at` use and move the position", async () => {
  const { fs, file } = await open();
  assertEquals(await file.write(bytes("abc")), 3);
  assertEquals(file.writeSync(bytes("def")), 3);
  assertEquals(file.seekSync(0, SEEK_CUR), 6);
  assertEquals(file.writeSync(bytes("X"), { at: 1 }), 1);
  assertEquals(file.seekSync(0, SEEK_CUR), 6);
  assertEquals(await file.seek(0, SEEK_SET), 0);
  const p = new Uint8Array(10);
  assertEquals(await file.read(p), 6);
  assertEquals(p.subarray(0, 6), bytes("aXcdef"));
  file.close();
  await fs.unmount();
});

Deno.test("write() with append goes to the end and moves the position there", async () => {
  const { fs, file } = await open({}, "abc");
  file.writeSync(bytes("d"), { append: true });
  assertEquals(file.seekSync(0, SEEK_CUR), 4);
  const log = fs.openSync("a", { append: true });
  log.writeSync(bytes("e"), { at: 0 });
  log.writeSync(bytes("f"));
  assertEquals(log.seekSync(0, SEEK_CUR), 6);
  const p = new Uint8Array(6);
  file.readSync(p, { at: 0 });
  assertEquals(p, bytes("abcdef"));
  log.close();
  file.close();
  await fs.unmount();
});

Deno.test("calls that use the position take turns", async () => {
  const { fs, file } = await open({}, "abcdef");
  const p = [1, 2, 3].map(() => new Uint8Array(2));
  await Promise.all(p.map((buffer) => file.read(buffer)));
  assertEquals(p, [bytes("ab"), bytes("cd"), bytes("ef")]);
  file.close();
  await fs.unmount();
});

Deno.test("seek() answers as lseek(2)", async () => {
  const { fs, file } = await open({}, "hello");
  const max = fs.superBlock.maxBytes;
  const rows: [number, number, number | string][] = [
    [3, SEEK_SET, 3],
    [2, SEEK_CUR, 5],
    [-2, SEEK_END, 3],
    [-4, SEEK_CUR, "EINVAL"],
    [0, SEEK_CUR, 3],
    [-1, SEEK_SET, "EINVAL"],
    [max, SEEK_SET, max],
    [1, SEEK_CUR, "EINVAL"],
    [max + 1, SEEK_SET, "EINVAL"],
    [0, 5, "EINVAL"],
    [0.5, SEEK_SET, "EINVAL"],
    [2, SEEK_DATA, 2],
    [2, SEEK_HOLE, 5],
    [5, SEEK_DATA, "ENXIO"],
    [5, SEEK_HOLE, "ENXIO"],
    [-1, SEEK_DATA, "ENXIO"],
  ];
  for (const [offset, whence, expected] of rows) {
    let got: number | string = 0;
    const code = codeOf(() => got = file.seekSync(offset, whence));
    assertEquals(code === "none" ? got : code, expected, `${offset} ${whence}`);
  }
  file.close();
  await fs.unmount();
});

Deno.test("bad arguments are refused before anything is written", async () => {
  const { fs, file } = await open({}, "hello");
  const p = bytes("x");
  const rows: [string, string, () => unknown][] = [
    ["offset -1 is negative", "EINVAL", () => file.writeSync(p, { at: -1 })],
    ["offset 1.5 is", "EINVAL", () => file.writeSync(p, { at: 1.5 })],
    ["offset NaN is", "EINVAL", () => file.readSync(p, { at: NaN })],
    [
      'offset "1" is not',
      "EINVAL",
      () => file.readSync(p, { at: "1" as never }),
    ],
    ["out of range", "EFBIG", () => file.writeSync(p, { at: 2 ** 53 })],
    ['option "offset"', "EINVAL", () => {
      file.writeSync(p, { offset: 1 } as never);
    }],
    ['option "append"', "EINVAL", () => {
      file.readSync(p, { append: true } as never);
    }],
    ["nowait is 1", "EINVAL", () => file.readSync(p, { nowait: 1 as never })],
    ['buffer "abc"', "EFAULT", () => file.writeSync("abc" as never)],
    ["length -1 is negative", "EINVAL", () => file.truncateSync(-1)],
    ["", "EFBIG", () => file.truncateSync(2 ** 40 + 1)],
    ["offset -1", "EINVAL", () => file.fallocateSync(0, -1, 1)],
    ["length is 0", "EINVAL", () => file.fallocateSync(0, 0, 0)],
    ["punch a hole", "EOPNOTSUPP", () => file.fallocateSync(2, 0, 1)],
    ["flags 8", "EINVAL", () => file.syncRangeSync(0, 0, 8)],
    ["length -5", "EINVAL", () => file.syncRangeSync(0, -5, 7)],
    ['option "from"', "EINVAL", () => file.fiemapSync({ from: 0 } as never)],
    ["max 0 is", "EINVAL", () => file.fiemapSync({ max: 0 })],
    ["map the extents", "EOPNOTSUPP", () => file.fiemapSync()],
    ['advice "soon"', "EINVAL", () => file.adviseSync("soon" as never)],
  ];
  for (const [text, code, call] of rows) {
    const error = assertThrows(call, FsError, text);
    assertEquals(error.code, code, text);
    assert(error.message.includes('"a"'), error.message);
  }
  await assertRejects(() => file.write(p, { at: -1 }), FsError, "offset -1");
  const read = new Uint8Array(10);
  assertEquals(file.readSync(read, { at: 0 }), 5);
  assertEquals(read.subarray(0, 5), bytes("hello"));
  file.close();
  await fs.unmount();
});

Deno.test("a file opened one way answers EBADF the other way", async () => {
  const { fs, file } = await open({}, "hello");
  const reader = fs.openSync("a");
  const writer = fs.openSync("a", { write: true });
  const p = new Uint8Array(1);
  assertEquals(codeOf(() => reader.writeSync(p)), "EBADF");
  assertEquals(codeOf(() => writer.readSync(p)), "EBADF");
  assertEquals(codeOf(() => reader.truncateSync(0)), "EINVAL");
  assertEquals(codeOf(() => reader.fallocateSync(0, 0, 1)), "EBADF");
  for (const f of [reader, writer, file]) f.close();
  await fs.unmount();
});

Deno.test("every method of a closed file answers EBADF", async () => {
  const { fs, file } = await open();
  file.close();
  const p = new Uint8Array(1);
  const calls: (() => unknown)[] = [
    () => file.readSync(p),
    () => file.writeSync(p, { at: 0 }),
    () => file.seekSync(0, SEEK_SET),
    () => file.statSync(),
    () => file.truncateSync(),
    () => file.syncSync(),
    () => file.syncDataSync(),
    () => file.syncRangeSync(0, 0),
    () => file.fallocateSync(0, 0, 1),
    () => file.fiemapSync(),
    () => file.adviseSync("normal"),
    () => file.close(),
  ];
  for (const call of calls) assertEquals(codeOf(call), "EBADF", `${call}`);
  const promises: (() => Promise<unknown>)[] = [
    () => file.read(p),
    () => file.write(p, { at: 0 }),
    () => file.stat(),
    () => file.sync(),
  ];
  for (const call of promises) {
    assertEquals(await codeOfAsync(call), "EBADF", `${call}`);
  }
  await fs.unmount();
});

Deno.test("using closes a file, and await using waits for what that frees", async () => {
  let released = false;
  const hooks: RamHooks = {};
  const { fs, clock } = await ramMount(hooks);
  {
    using file = fs.openSync("a", all);
    file.writeSync(bytes("x"));
  }
  assertEquals(fs.superBlock.openFiles, 0);
  {
    using file = fs.openSync("a");
    file.close();
  }
  hooks.release = () => clock.sleep(1000).then(() => void (released = true));
  {
    await using _file = await fs.open("a");
  }
  assert(released);
  await fs.unmount();
});

Deno.test("unmount() waits for what a close left behind", async () => {
  let released = false;
  const { fs, clock, file } = await open({
    release: () => clock.sleep(1000).then(() => void (released = true)),
  });
  file.close();
  assert(!released);
  await fs.unmount();
  assert(released);
});

/** Files whose reads and writes are completed by the test. */
async function queued() {
  const iocbs: Kiocb[] = [];
  const mounted = await open({
    rw: (iocb) => {
      iocbs.push(iocb);
      return -EIOCBQUEUED;
    },
  });
  // Only a direct call may end elsewhere than where it was begun.
  mounted.file.close();
  const options = { read: true, write: true, direct: true };
  const file = mounted.fs.openSync("a", options);
  return { ...mounted, file, iocbs };
}

Deno.test("asynchronous calls may be many in flight and end in any order", async () => {
  const { fs, file, iocbs } = await queued();
  const p = new Uint8Array(8);
  const ended: unknown[] = [];
  const calls = [0, 8, 16, 24].map((at) =>
    file.read(p, { at }).then(
      (n) => ended.push([at, n]),
      (e) => ended.push([at, e.code]),
    )
  );
  assertEquals(iocbs.map((iocb) => iocb.pos), [0, 8, 16, 24]);
  iocbs[2]!.kiComplete!(iocbs[2]!, 8);
  iocbs[0]!.kiComplete!(iocbs[0]!, -EIO);
  iocbs[3]!.kiComplete!(iocbs[3]!, 0);
  iocbs[1]!.kiComplete!(iocbs[1]!, 3);
  await Promise.all(calls);
  assertEquals(ended, [[16, 8], [0, "EIO"], [24, null], [8, 3]]);
  file.close();
  await fs.unmount();
});

Deno.test("a call through the cache may be queued, and end before that is answered", async () => {
  const results = [8, -EIO, null];
  const waiting: Kiocb[] = [];
  const { fs, file } = await open({
    rw: (iocb) => {
      const ret = results.shift()!;
      if (ret === null) waiting.push(iocb);
      else iocb.kiComplete!(iocb, ret);
      return -EIOCBQUEUED;
    },
  });
  const p = new Uint8Array(8);
  assertEquals(await file.read(p, { at: 0 }), 8);
  assertEquals(await codeOfAsync(() => file.read(p, { at: 0 })), "EIO");
  const call = file.read(p);
  file.close();
  assertEquals(await codeOfAsync(() => fs.unmount()), "EBUSY");
  waiting[0]!.kiComplete!(waiting[0]!, 4);
  assertEquals(await call, 4);
  await fs.unmount();
});

Deno.test("close() lets calls in flight finish, and unmount() is EBUSY until then", async () => {
  const { fs, file, iocbs } = await queued();
  const call = file.write(new Uint8Array(4), { at: 0 });
  file.close();
  assertEquals(await codeOfAsync(() => fs.unmount()), "EBUSY");
  assertEquals(codeOf(() => file.statSync()), "EBADF");
  iocbs[0]!.kiComplete!(iocbs[0]!, 4);
  assertEquals(await call, 4);
  await fs.unmount();
});

Deno.test("close() lets every kind of call in flight finish first", async () => {
  const { fs, file, ram } = await open({}, "hello");
  const inode = fs.superBlock.inodes.get(file.statSync().ino)!;
  fs.unlinkSync("a");
  assert(inode.rwsem.tryDownWrite());
  const call = file.truncate(2);
  file.close();
  assertEquals(ram.evicted, []);
  assertEquals(await codeOfAsync(() => fs.unmount()), "EBUSY");
  inode.rwsem.upWrite();
  await call;
  assertEquals([inode.size, ram.evicted], [2, [inode.ino]]);
  await fs.unmount();
});

Deno.test("a synchronous call that has to wait for a task answers EAGAIN", async () => {
  const { fs, file } = await open({}, "hello");
  const inode = fs.superBlock.inodes.get(file.statSync().ino)!;
  assert(inode.rwsem.tryDownWrite());
  const p = new Uint8Array(5);
  assertEquals(codeOf(() => file.readSync(p, { at: 0 })), "EAGAIN");
  assertEquals(codeOf(() => file.writeSync(p, { at: 0 })), "EAGAIN");
  assertEquals(codeOf(() => file.truncateSync(0)), "EAGAIN");
  assertEquals(codeOf(() => file.readSync(p)), "EAGAIN");
  const waiting = file.read(p);
  // The position is that call's until it ends.
  assertEquals(codeOf(() => file.readSync(p)), "EAGAIN");
  assertEquals(codeOf(() => file.seekSync(0, SEEK_SET)), "EAGAIN");
  inode.rwsem.upWrite();
  assertEquals(await waiting, 5);
  assertEquals(file.readSync(p), null);
  assertEquals(fs.superBlock.bdev.clock.inSync, false);
  file.close();
  await fs.unmount();
});

Deno.test("a synchronous call that was left behind ends by itself", async () => {
  const gate = Promise.withResolvers<number>();
  const flags: number[] = [];
  const { fs, file } = await open({
    rw: (iocb) => {
      flags.push(iocb.flags);
      return flags.length === 1 ? gate.promise : undefined;
    },
  });
  const p = new Uint8Array(5);
  assertEquals(codeOf(() => file.writeSync(p)), "EAGAIN");
  assert((flags[0]! & IOCB_SYNC_CALL) !== 0);
  // It still holds the position, and the file.
  assertEquals(codeOf(() => file.writeSync(p)), "EAGAIN");
  assertEquals(file.writeSync(p, { at: 0 }), 5);
  gate.resolve(0);
  await gate.promise;
  await Promise.resolve();
  assertEquals(file.writeSync(p), 5);
  file.close();
  await fs.unmount();
});

Deno.test("an asynchronous call is not marked as synchronous", async () => {
  const flags: number[] = [];
  const { fs, file } = await open({
    rw: (iocb) => {
      flags.push(iocb.flags);
      return iocb.kiComplete === null ? 1 : -EAGAIN;
    },
  });
  const p = new Uint8Array(1);
  const code = await codeOfAsync(() => file.read(p, { at: 0, nowait: true }));
  assertEquals(code, "EAGAIN");
  assertEquals(flags, [IOCB_NOWAIT]);
  assertEquals(file.readSync(p, { at: 0 }), 1);
  assertEquals(flags[1], IOCB_SYNC_CALL);
  file.close();
  await fs.unmount();
});

Deno.test("a read may start another on the same file while it runs the clock", async () => {
  let inner: number | null = null;
  const { fs, clock, file } = await open({
    rw: (iocb) => {
      if (iocb.pos !== 0) return undefined;
      clock.runUntil(() => inner !== null);
      return 1;
    },
  });
  file.writeSync(bytes("hello"), { at: 1 });
  const q = new Uint8Array(5);
  clock.at(100, () => inner = file.readSync(q, { at: 1 }), undefined);
  assertEquals(file.readSync(new Uint8Array(9), { at: 0 }), 1);
  assertEquals([inner, q], [5, bytes("hello")]);
  file.close();
  await fs.unmount();
});

Deno.test("readable gives the bytes from the position on and closes the file", async () => {
  const { fs, file } = await open();
  const data = new Uint8Array(200_000).map((_, i) => i * 7);
  file.writeSync(data, { at: 0 });
  file.seekSync(10, SEEK_SET);
  const got = new Uint8Array(await new Response(file.readable).arrayBuffer());
  assertEquals(got, data.subarray(10));
  assertEquals(codeOf(() => file.statSync()), "EBADF");
  const again = fs.openSync("a");
  await again.readable.cancel();
  assertEquals(codeOf(() => again.statSync()), "EBADF");
  await fs.unmount();
});

Deno.test("writable writes all of each chunk and closes the file", async () => {
  let short = 0;
  const { fs, file } = await open({
    // Every write is cut to 1000 bytes.
    rw: (_iocb, iter) => {
      if (iter.count > 1000) short++;
      iter.count = Math.min(iter.count, 1000);
      return undefined;
    },
  });
  const data = new Uint8Array(4500).map((_, i) => i);
  await ReadableStream.from([data, bytes("end")]).pipeTo(file.writable);
  assertEquals(short, 4);
  assertEquals(fs.statSync("a").size, 4503);
  assertEquals(codeOf(() => file.statSync()), "EBADF");
  await fs.unmount();
});

Deno.test("a stream that fails closes the file", async () => {
  const { fs, file } = await open({ rw: () => -EIO });
  assertEquals(
    await codeOfAsync(() => new Response(file.readable).bytes()),
    "EIO",
  );
  assertEquals(codeOf(() => file.statSync()), "EBADF");
  const writer = fs.openSync("a", { write: true });
  const piped = ReadableStream.from([bytes("x")]).pipeTo(writer.writable);
  assertEquals(await codeOfAsync(() => piped), "EIO");
  assertEquals(codeOf(() => writer.statSync()), "EBADF");
  await fs.unmount();
});

Deno.test("fallocate(), sync() and syncData() hand their arguments down", async () => {
  const seen: unknown[] = [];
  const hooks: RamHooks = {
    fallocate: (...args) => seen.push(args) * 0,
    fsync: (...args) => seen.push(args) * 0,
  };
  const { fs, file } = await open(hooks);
  await file.fallocate(3, 4096, 8192);
  await file.sync();
  await file.syncData();
  assertEquals(seen, [
    [3, 4096, 8192],
    [0, Number.MAX_SAFE_INTEGER, false],
    [0, Number.MAX_SAFE_INTEGER, true],
  ]);
  hooks.fsync = () => -EIO;
  const error = await assertRejects(() => file.sync(), FsError);
  assertEquals([error.code, error.syscall, error.path], ["EIO", "fsync", "a"]);
  file.close();
  await fs.unmount();
});

Deno.test("truncate() sets the size; what is added reads as zero", async () => {
  const { fs, file } = await open({}, "hello");
  await file.truncate(2);
  file.truncateSync(4);
  const p = new Uint8Array(9).fill(1);
  assertEquals(file.readSync(p, { at: 0 }), 4);
  assertEquals([...p.subarray(0, 4)], [104, 101, 0, 0]);
  file.truncateSync();
  assertEquals(file.statSync().size, 0);
  file.close();
  await fs.unmount();
});

Deno.test("open() of a direct file needs a file system that supports it", async () => {
  const { fs } = await ramMount({ mode: 0 });
  fs.openSync("a", all).close();
  const direct = { read: true, direct: true };
  assertEquals(codeOf(() => fs.openSync("a", direct)), "EINVAL");
  assertEquals(fs.superBlock.openFiles, 0);
  await fs.unmount();
  const able = await ramMount({ mode: FMODE_CAN_ODIRECT });
  const file: FsFile = able.fs.openSync("a", { ...all, direct: true });
  file.close();
  await able.fs.unmount();
});

Deno.test("timestamps move in steps of a tick, and NOWAIT does not move them", async () => {
  const { fs, clock, file } = await open({}, "x");
  const mtime = () => file.statSync().mtime.getTime();
  const start = mtime();
  await clock.sleep(3_000_000);
  file.writeSync(bytes("y"), { at: 0 });
  assertEquals(mtime(), start);
  await clock.sleep(2_000_000);
  assertEquals(
    codeOf(() => file.writeSync(bytes("z"), { at: 0, nowait: true })),
    "EAGAIN",
  );
  file.writeSync(bytes("z"), { at: 0 });
  assertEquals(mtime(), start + 4);
  file.close();
  await fs.unmount();
});
