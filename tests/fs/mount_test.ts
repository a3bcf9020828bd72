import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { markInodeDirty } from "../../fs/inode.ts";
import { mount } from "../../fs/mount.ts";
import { EIO, FsError } from "../../lib/errno.ts";
import { codeOf, codeOfAsync, type RamHooks, ramMount } from "./ramfs.ts";

Deno.test("mount() refuses what it cannot use, naming it", async () => {
  const { fs, ram, bdev } = await ramMount();
  const { type } = ram;
  const rows: [string, string, () => Promise<unknown>][] = [
    ["null0 is in use", "EBUSY", () => mount(bdev, type)],
    ["device 5", "EINVAL", () => mount(5 as never, type)],
    ['type "xfs"', "EINVAL", () => mount(bdev, "xfs" as never)],
    ['option "mem"', "EINVAL", () => mount(bdev, type, { mem: 1 } as never)],
    ["memory -1", "EINVAL", () => mount(bdev, type, { memory: -1 })],
  ];
  for (const [text, code, call] of rows) {
    const error = await assertRejects(call, FsError, text);
    assertEquals(error.code, code);
  }
  await fs.unmount();
  const error = await assertRejects(
    () => mount(bdev, type, { options: "nope" }),
    FsError,
    'there is no option "nope"',
  );
  assertEquals([error.code, error.syscall], ["EINVAL", "mount"]);
  // The refused mount has not kept the device.
  await (await mount(bdev, type)).unmount();
});

Deno.test("unmount() is EBUSY while a file is open, and ENODEV answers after it", async () => {
  const { fs } = await ramMount();
  const file = fs.openSync("a", { write: true, create: true });
  const error = await assertRejects(() => fs.unmount(), FsError, "1 files");
  assertEquals(error.code, "EBUSY");
  file.close();
  await fs.unmount();
  const calls: (() => unknown)[] = [
    () => fs.openSync("a"),
    () => fs.mkdirSync("d"),
    () => fs.statSync("a"),
    () => fs.readDirSync("/"),
    () => fs.syncSync(),
    () => fs.statfs(),
  ];
  for (const call of calls) assertEquals(codeOf(call), "ENODEV", `${call}`);
  assertEquals(await codeOfAsync(() => fs.unmount()), "ENODEV");
});

Deno.test("await using unmounts, unless it has been done", async () => {
  const mounted = await ramMount();
  {
    await using fs = mounted.fs;
    fs.mkdirSync("d");
  }
  assertEquals(codeOf(() => mounted.fs.statfs()), "ENODEV");
  {
    await using fs = (await ramMount()).fs;
    await fs.unmount();
  }
});

Deno.test("unmount() evicts every inode", async () => {
  const { fs, ram } = await ramMount();
  fs.mkdirSync("d");
  fs.openSync("d/a", { write: true, create: true }).close();
  await fs.unmount();
  assertEquals(ram.evicted.sort(), [128, 129, 130]);
  assertEquals(fs.superBlock.inodes.size, 0);
});

Deno.test("unmount() tells of an error and is done all the same", async () => {
  const hooks: RamHooks = {};
  const { fs, ram, bdev } = await ramMount(hooks);
  hooks.syncFs = () => -EIO;
  assertEquals(await codeOfAsync(() => fs.sync()), "EIO");
  assertEquals(await codeOfAsync(() => fs.unmount()), "EIO");
  hooks.syncFs = () => 0;
  await (await mount(bdev, ram.type)).unmount();
});

Deno.test("sync() keeps an inode dirty that changes while it is written", async () => {
  const gate = Promise.withResolvers<number>();
  const hooks: RamHooks = {};
  const { fs } = await ramMount(hooks);
  const file = fs.openSync("a", { write: true, create: true });
  const other = fs.openSync("b", { write: true, create: true });
  const { dirtyInodes, inodes } = fs.superBlock;
  file.writeSync(new Uint8Array(1));
  other.writeSync(new Uint8Array(1));
  assertEquals(dirtyInodes.size, 2);
  hooks.syncFs = () => gate.promise;
  const synced = fs.sync();
  markInodeDirty(inodes.get(other.statSync().ino)!);
  gate.resolve(0);
  await synced;
  assertEquals([...dirtyInodes].map((inode) => inode.ino), [
    other.statSync().ino,
  ]);
  hooks.syncFs = () => 0;
  file.close();
  other.close();
  await fs.unmount();
});

Deno.test("unmount() is EBUSY while a call goes on", async () => {
  const gate = Promise.withResolvers<void>();
  const { fs } = await ramMount({ lookup: () => gate.promise });
  const call = fs.mkdir("d");
  assertEquals(await codeOfAsync(() => fs.unmount()), "EBUSY");
  gate.resolve();
  await call;
  await fs.unmount();
});

Deno.test("open() refuses bad options, naming them", async () => {
  const { fs } = await ramMount();
  const rows: [string, unknown][] = [
    ["none of read, write and append", { create: true }],
    ["none of read, write and append", {}],
    ['option "creat"', { read: true, creat: true }],
    ['read is "yes"', { read: "yes" }],
    ["mode 4096", { write: true, create: true, mode: 0o10000 }],
    ["mode -1", { write: true, create: true, mode: -1 }],
    ["options are null", null],
  ];
  for (const [text, options] of rows) {
    const error = assertThrows(
      () => fs.openSync("a", options as never),
      FsError,
      text,
    );
    assertEquals([error.code, error.syscall], ["EINVAL", "open"]);
  }
  assertEquals([...fs.readDirSync("/")], []);
  await fs.unmount();
});

Deno.test("openSync() that was left behind closes its file", async () => {
  const gate = Promise.withResolvers<void>();
  const { fs } = await ramMount({ lookup: () => gate.promise });
  const create = { write: true, create: true };
  assertEquals(codeOf(() => fs.openSync("a", create)), "EAGAIN");
  gate.resolve();
  // It goes on until the file has been made and closed.
  for (let i = 0; i < 20; i++) await Promise.resolve();
  assertEquals(fs.superBlock.openFiles, 0);
  await fs.unmount();
});

Deno.test("open() with truncate empties the file, and keeps it if it fails", async () => {
  const { fs } = await ramMount();
  const all = { read: true, write: true, create: true };
  const file = fs.openSync("a", all);
  file.writeSync(new Uint8Array(100));
  const code = codeOf(() => {
    fs.openSync("a", { write: true, createNew: true, truncate: true });
  });
  assertEquals([code, file.statSync().size], ["EEXIST", 100]);
  fs.openSync("a", { write: true, truncate: true }).close();
  assertEquals(file.statSync().size, 0);
  file.close();
  await fs.unmount();
});

Deno.test("stat() answers what Deno.stat answers", async () => {
  const { fs } = await ramMount();
  fs.mkdirSync("d", { mode: 0o700 });
  fs.openSync("a", { write: true, create: true, mode: 0o600 }).close();
  fs.truncateSync("a", 5000);
  const a = await fs.stat("a");
  assertEquals(
    [a.isFile, a.isDirectory, a.isSymlink, a.size, a.mode, a.nlink, a.blocks],
    [true, false, false, 5000, 0o100600, 1, 16],
  );
  assertEquals([a.dev, a.blksize], [259 * 256, 4096]);
  const d = fs.lstatSync("d");
  assertEquals([d.isDirectory, d.mode, d.nlink], [true, 0o40700, 2]);
  assertEquals(fs.statSync("/").nlink, 3);
  await fs.unmount();
});

Deno.test("readDir() lists a directory when the first entry is asked for", async () => {
  const { fs } = await ramMount();
  fs.mkdirSync("d");
  const late = fs.readDir("/");
  fs.openSync("a", { write: true, create: true }).close();
  const got = [];
  for await (const entry of late) got.push([entry.name, entry.isDirectory]);
  assertEquals(got, [["d", true], ["a", false]]);
  assertEquals(
    [...fs.readDirSync("/")].map((entry) => entry.ino),
    [fs.statSync("d").ino, fs.statSync("a").ino],
  );
  assertEquals(
    await codeOfAsync(async () => await Array.fromAsync(fs.readDir("a"))),
    "ENOTDIR",
  );
  await fs.unmount();
});

Deno.test("remove(), rename() and link() work as promises too", async () => {
  const { fs } = await ramMount();
  await fs.mkdir("d");
  (await fs.open("a", { write: true, create: true })).close();
  await fs.link("a", "d/b");
  await fs.rename("a", "c");
  await fs.truncate("c", 7);
  assertEquals((await fs.lstat("d/b")).size, 7);
  assertEquals(await codeOfAsync(() => fs.remove("d")), "ENOTEMPTY");
  await fs.unlink("d/b");
  await fs.remove("c");
  await fs.rmdir("d");
  const error = await assertRejects(() => fs.rename("x", "y"), FsError);
  assertEquals(error.message.includes('rename "x": to "y"'), true);
  assertEquals(fs.readDirSync("/")[Symbol.iterator]().next().done, true);
  await fs.unmount();
});
