import { assertEquals, assertRejects } from "@std/assert";
import * as F from "../../../fs/xfs/libxfs/format.ts";
import { FsError } from "../../../lib/errno.ts";
import { type Mount, mount } from "../../../mod.ts";
import { newXfs, xfs } from "./fixture.ts";
import { Image } from "./image.ts";

/** An image with "/a", "/a/b" and "/a/c", in which one entry of "/a" means another
 * directory. */
async function maze(name: "b", meant: "/" | "/a" | "/a/c"): Promise<Mount> {
  const device = await newXfs({ size: 16 * 2 ** 20 });
  const fs = await mount(device, xfs);
  for (const path of ["/a", "/a/b", "/a/c"]) await fs.mkdir(path);
  const ino = (await fs.stat(meant)).ino;
  const parent = (await fs.stat("/a")).ino;
  await fs.unmount();
  const image = Image.of(device);
  image.inode(parent, (inode) => {
    const entry = F.DI_SIZE_V3 + 6;
    // Length, offset, name, type, inode number.
    assertEquals(inode.getUint8(entry + 3), name.charCodeAt(0));
    inode.setUint32(entry + 5, ino);
  });
  return await mount(image.device(), xfs);
}

async function assertCode(code: string, run: () => Promise<unknown>) {
  assertEquals((await assertRejects(run, FsError)).code, code);
}

for (const meant of ["/", "/a"] as const) {
  Deno.test(`a name of a directory above its own is ELOOP, not a lock taken twice: "${meant}"`, async () => {
    const fs = await maze("b", meant);
    await assertCode("ELOOP", () => fs.stat("/a/b"));
    await assertCode("ELOOP", () => fs.rmdir("/a/b"));
    await assertCode("ELOOP", () => fs.rename("/a/c", "/a/b/d"));
    await assertCode("ELOOP", () => fs.rename("/a/b", "/a/d"));
    await fs.unmount();
  });
}

Deno.test("a directory with two names is at one place at a time", async () => {
  const fs = await maze("b", "/a/c");
  await fs.mkdir("/a/b/d");
  assertEquals((await fs.stat("/a/c/d")).isDirectory, true);
  // The same directory: nothing is done.
  await fs.rename("/a/b", "/a/c");
  // It cannot move while a rename goes on.
  await assertCode("ESTALE", () => fs.rename("/a/c", "/a/b/d/e"));
  await fs.unmount();
});
