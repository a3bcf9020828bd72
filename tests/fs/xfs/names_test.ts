/**
 * Names beyond plain ones: symbolic links, renaming with flags, extended attributes.
 * Goal: paths and errors as on Linux. Oracle: path_resolution(7), rename(2), xattr(7).
 */
import { assertEquals, assertRejects } from "@std/assert";
import { FsError, type Mount, mount } from "../../../mod.ts";
import { newXfs, xfs } from "./fixture.ts";

const NEW = { write: true, createNew: true };
const utf8 = new TextEncoder();

async function withFs(work: (fs: Mount) => Promise<void>): Promise<void> {
  const device = await newXfs({ size: 32 * 2 ** 20 });
  await using fs = await mount(device, xfs);
  await work(fs);
}

async function put(fs: Mount, path: string, text = path): Promise<void> {
  using file = await fs.open(path, NEW);
  await file.write(utf8.encode(text));
}

async function get(fs: Mount, path: string): Promise<string> {
  using file = await fs.open(path);
  const data = new Uint8Array(1024);
  const n = await file.read(data) ?? 0;
  return new TextDecoder().decode(data.subarray(0, n));
}

async function refused(code: string, call: Promise<unknown>): Promise<void> {
  const error = await assertRejects(() => call, FsError);
  assertEquals(error.code, code);
}

Deno.test("symlink() leads to its target, from where it stands", () =>
  withFs(async (fs) => {
    await fs.mkdir("/a");
    await fs.mkdir("/a/b");
    await put(fs, "/a/file", "1");
    await fs.symlink("../file", "/a/b/up");
    await fs.symlink("/a/file", "/a/b/absolute");
    await fs.symlink("a/b", "/dir");
    await fs.symlink("dir/up", "/twice");

    for (const path of ["/a/b/up", "/a/b/absolute", "/dir/up", "/twice"]) {
      assertEquals(await get(fs, path), "1", path);
      assertEquals((await fs.stat(path)).isFile, true);
    }
    assertEquals((await fs.lstat("/twice")).isSymlink, true);
    assertEquals((await fs.lstat("/twice")).size, 6);
    assertEquals((await fs.lstat("/dir/")).isDirectory, true);
    assertEquals(await fs.readLink("/a/b/up"), "../file");
    await refused("EINVAL", fs.readLink("/a"));
    await refused("ENOTDIR", fs.stat("/a/b/up/"));
    const names = [];
    for await (const entry of fs.readDir("/dir")) {
      names.push([entry.name, entry.isSymlink]);
    }
    assertEquals(names.sort(), [["absolute", true], ["up", true]]);
  }));

Deno.test("symlink() keeps any target, short and long, over an unmount", async () => {
  const device = await newXfs({ size: 32 * 2 ** 20 });
  const targets = [1, 59, 192, 193, 336, 337, 1000, 1023].map((n) =>
    "x".repeat(n)
  );
  {
    await using fs = await mount(device, xfs);
    for (const t of targets) await fs.symlink(t, `/${t.length}`);
    await refused("ENAMETOOLONG", fs.symlink("x".repeat(1024), "/long"));
    await refused("ENOENT", fs.symlink("", "/empty"));
    await refused("EEXIST", fs.symlink("y", "/59"));
  }
  await using fs = await mount(device, xfs);
  for (const t of targets) assertEquals(await fs.readLink(`/${t.length}`), t);
  for (const t of targets) await fs.unlink(`/${t.length}`);
});

Deno.test("a walk ends with ELOOP after 40 symbolic links", () =>
  withFs(async (fs) => {
    await fs.symlink("me", "/me");
    await refused("ELOOP", fs.stat("/me"));
    await put(fs, "/l0", "end");
    for (let i = 1; i <= 41; i++) await fs.symlink(`l${i - 1}`, `/l${i}`);
    assertEquals(await get(fs, "/l40"), "end");
    await refused("ELOOP", fs.stat("/l41"));
  }));

Deno.test("open() makes the file that a dangling link points to, unless it must be new", () =>
  withFs(async (fs) => {
    await fs.symlink("made", "/link");
    await refused("ENOENT", fs.open("/link"));
    await refused("EEXIST", fs.open("/link", NEW));
    (await fs.open("/link", { write: true, create: true })).close();
    assertEquals((await fs.lstat("/made")).isFile, true);
    await fs.symlink("nowhere/file", "/lost");
    await refused("ENOENT", fs.open("/lost", { write: true, create: true }));
  }));

Deno.test("unlink(), rename() and link() take a symbolic link for itself", () =>
  withFs(async (fs) => {
    await put(fs, "/file", "1");
    await fs.symlink("file", "/link");
    await fs.link("/link", "/hard");
    assertEquals((await fs.lstat("/hard")).isSymlink, true);
    await fs.rename("/link", "/moved");
    assertEquals(await fs.readLink("/moved"), "file");
    await fs.remove("/moved");
    assertEquals(await get(fs, "/hard"), "1");
    await fs.unlink("/hard");
    assertEquals(await get(fs, "/file"), "1");
  }));

Deno.test("rename() with noReplace and exchange", () =>
  withFs(async (fs) => {
    await fs.mkdir("/d");
    await fs.mkdir("/e");
    await fs.mkdir("/d/sub");
    await put(fs, "/d/sub/x", "x");
    await put(fs, "/e/file", "file");
    await refused(
      "EEXIST",
      fs.rename("/e/file", "/d/sub", { noReplace: true }),
    );
    await refused("ENOENT", fs.rename("/e/file", "/no", { exchange: true }));
    await refused("EINVAL", fs.rename("/d", "/d/sub", { exchange: true }));
    await refused("EINVAL", fs.rename("/d/sub", "/d", { exchange: true }));
    await fs.rename("/d/sub", "/e/file", { exchange: true });
    assertEquals(await get(fs, "/d/sub"), "file");
    assertEquals(await get(fs, "/e/file/x"), "x");
    assertEquals(await get(fs, "/e/file/../file/x"), "x");
    assertEquals((await fs.stat("/d")).nlink, 2);
    assertEquals((await fs.stat("/e")).nlink, 3);
    await fs.rename("/e/file/x", "/new", { noReplace: true });
    assertEquals(await get(fs, "/new"), "x");
  }));

Deno.test("extended attributes are set, listed, replaced and removed, over an unmount", async () => {
  const device = await newXfs({ size: 32 * 2 ** 20 });
  const big = new Uint8Array(65536).fill(7);
  const want = new Map<string, Uint8Array>([
    ["user.a", utf8.encode("1")],
    ["trusted.t", utf8.encode("")],
    ["security.s", utf8.encode("x".repeat(300))],
    ["user.big", big],
  ]);
  {
    await using fs = await mount(device, xfs);
    await put(fs, "/f");
    for (const [name, value] of want) await fs.setXattr("/f", name, value);
    await refused("EEXIST", fs.setXattr("/f", "user.a", big, { create: true }));
    await refused(
      "ENODATA",
      fs.setXattr("/f", "user.b", big, { replace: true }),
    );
    await refused("E2BIG", fs.setXattr("/f", "user.b", new Uint8Array(65537)));
    await refused("EOPNOTSUPP", fs.setXattr("/f", "other.b", big));
    await refused("EINVAL", fs.setXattr("/f", "user.", big));
    await refused("ERANGE", fs.setXattr("/f", `user.${"n".repeat(251)}`, big));
    await refused("ENODATA", fs.getXattr("/f", "user.b"));
    await refused("ENODATA", fs.removeXattr("/f", "user.b"));
    await fs.symlink("f", "/l");
    assertEquals(await fs.getXattr("/l", "user.a"), utf8.encode("1"));
  }
  await using fs = await mount(device, xfs);
  assertEquals((await fs.listXattrs("/f")).sort(), [...want.keys()].sort());
  for (const [name, value] of want) {
    assertEquals(await fs.getXattr("/f", name), value, name);
  }
  for (const name of want.keys()) await fs.removeXattr("/f", name);
  assertEquals(await fs.listXattrs("/f"), []);
});
