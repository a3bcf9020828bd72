import { assertEquals, assertRejects } from "@std/assert";
import * as F from "../../../fs/xfs/libxfs/format.ts";
import { setWarningHandler } from "../../../lib/bug.ts";
import { FsError } from "../../../lib/errno.ts";
import { setLogHandler } from "../../../lib/printk.ts";
import { mount } from "../../../mod.ts";
import { newXfs, xfs } from "./fixture.ts";
import { Image } from "./image.ts";

Deno.test("nobody holds an inode that could not be made to the end", async () => {
  const device = await newXfs({ size: 16 * 2 ** 20 });
  const image = Image.of(device);
  const root = image.find(F.XFS_ABTB_CRC_MAGIC);
  image.block(0, root, (view) => view.setUint16(F.BB_NUMRECS, 60_000));
  const warnings: string[] = [];
  const oldWarning = setWarningHandler((message) => warnings.push(message));
  const oldLog = setLogHandler(() => {});
  try {
    const fs = await mount(image.device(), xfs);
    // There are free inodes, but no block for the target can be found.
    const symlink = () => fs.symlink("t".repeat(1000), "/link");
    assertEquals((await assertRejects(symlink, FsError)).code, "EUCLEAN");
    await fs.unmount().catch(() => {});
  } finally {
    setWarningHandler(oldWarning);
    setLogHandler(oldLog);
  }
  assertEquals(warnings, []);
});
