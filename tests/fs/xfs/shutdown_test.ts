/** What is left to do for a file system that has shut down, or may not be written to. */

import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { FsError, mount, SEEK_DATA, xfs } from "../../../mod.ts";
import type { XfsMount } from "../../../fs/xfs/mount.ts";
import { newXfs } from "./fixture.ts";

async function codeOf(call: () => Promise<unknown>): Promise<string> {
  return (await assertRejects(call, FsError)).code;
}

Deno.test("after a shutdown everything is EIO, and unmount() says so", async () => {
  const device = await newXfs();
  const fs = await mount(device, xfs);
  await fs.mkdir("/d");
  const file = await fs.open("/d/f", { read: true, write: true, create: true });
  await file.write(new Uint8Array(100_000));
  await fs.unlink("/d/f");
  await fs.open("/g", { write: true, create: true }).then((g) => g.close());
  (fs.superBlock as XfsMount).forceShutdown("a test");

  const calls = [
    () => file.write(new Uint8Array(1)),
    () => file.truncate(5),
    () => file.fallocate(0, 0, 4096),
    () => file.seek(0, SEEK_DATA),
    () => file.sync(),
    () => fs.stat("/absent"),
    () => fs.mkdir("/e"),
    () => fs.rename("/g", "/h"),
    () => fs.link("/g", "/h"),
    () => fs.unlink("/g"),
    () => fs.rmdir("/d"),
    () => fs.setXattr("/g", "user.a", new Uint8Array(1)),
    () => fs.sync(),
  ];
  for (const call of calls) {
    assertEquals(await codeOf(call), "EIO", call.toString());
  }
  file.close();
  assertEquals(await codeOf(() => fs.unmount()), "EIO");
  assertThrows(() => fs.statSync("/g"), FsError, "unmounted");
});

Deno.test("nothing is written to a file system that is mounted to be read", async () => {
  const device = await newXfs();
  const made = await mount(device, xfs);
  const file = await made.open("/f", { write: true, create: true });
  await file.write(new Uint8Array(10_000));
  file.close();
  await made.unmount();
  const before = device.stats.write.bytes;

  const fs = await mount(device, xfs, { options: "ro" });
  const read = await fs.open("/f");
  const other = await fs.open("/f");
  await device.clock.sleep(3 * 86_400e9);
  assertEquals(await read.read(new Uint8Array(20_000)), 10_000);
  assertEquals(
    await codeOf(() => other.dedupeRange(read, { length: 4096, offset: 4096 })),
    "EROFS",
  );
  assertEquals(await codeOf(() => fs.mkdir("/d")), "EROFS");
  assertEquals(await codeOf(() => fs.unlink("/f")), "EROFS");
  assertEquals(await codeOf(() => fs.truncate("/f", 0)), "EROFS");
  const set = () => fs.setXattr("/f", "user.a", new Uint8Array(1));
  assertEquals(await codeOf(set), "EROFS");
  read.close();
  other.close();
  await fs.sync();
  await fs.unmount();
  assertEquals(device.stats.write.bytes, before);
});
