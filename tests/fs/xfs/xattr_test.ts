import { assertEquals, assertRejects } from "@std/assert";
import type { XfsInode } from "../../../fs/xfs/inode.ts";
import { xfsAttrSet } from "../../../fs/xfs/libxfs/attr.ts";
import { XFS_ATTR_PARENT } from "../../../fs/xfs/libxfs/format.ts";
import { FsError, mount } from "../../../mod.ts";
import { newXfs, xfs } from "./fixture.ts";

Deno.test("names of attributes that are no UTF-8 have a string each", async () => {
  await using fs = await mount(await newXfs(), xfs);
  const root = fs.superBlock.root as XfsInode;
  const value = new Uint8Array([1]);
  for (const bytes of [[0xff, 0xfe], [0xff, 0xfd], [0xc3, 0xbc]]) {
    const name = Uint8Array.from(bytes);
    assertEquals(xfsAttrSet(root, name, 0, value, true, false), 0);
  }
  const names = ["user.ü", "user.\udcff\udcfd", "user.\udcff\udcfe"];
  assertEquals((await fs.listXattrs("/")).sort(), names);
  for (const name of names) {
    assertEquals(await fs.getXattr("/", name), value);
    await fs.removeXattr("/", name);
  }
  assertEquals(await fs.listXattrs("/"), []);
  const half = fs.setXattr("/", "user.\ud800", value);
  assertEquals((await assertRejects(() => half, FsError)).code, "EILSEQ");
});

Deno.test("listXattrs() leaves out what is for the file system itself", async () => {
  await using fs = await mount(await newXfs(), xfs);
  const root = fs.superBlock.root as XfsInode;
  const name = new TextEncoder().encode("name");
  for (const flags of [0, XFS_ATTR_PARENT]) {
    assertEquals(xfsAttrSet(root, name, flags, name, true, false), 0);
  }
  assertEquals(await fs.listXattrs("/"), ["user.name"]);
});
