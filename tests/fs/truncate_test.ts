/**
 * What a truncation of an open file has to wait for, and to leave behind: the same on
 * every file system.
 */
import { assertEquals } from "@std/assert";
import {
  createNvme,
  type FileSystemType,
  mkfsXfs,
  mount,
  VirtualClock,
  xfs,
} from "../../mod.ts";
import { exampleFs } from "../example_fs.ts";
import { assertCleanImage } from "./xfs/clean.ts";

const KiB = 1024;
const ALL = { read: true, write: true, create: true };

async function setUp(type: FileSystemType) {
  const clock = new VirtualClock();
  const device = createNvme(clock, {
    size: 64 * 2 ** 20,
    preset: "mlc-970pro",
  });
  if (type === xfs) await mkfsXfs(device, { blockSize: KiB });
  const fs = await mount(device, type);
  const file = await fs.open("/a", ALL);
  const direct = await fs.open("/a", { ...ALL, direct: true });
  const inode = fs.superBlock.inodes.get(file.statSync().ino)!;
  await file.write(bytes(8 * KiB, 7), { at: 0 });
  await file.sync();
  await file.advise("dontneed");
  const tearDown = async () => {
    file.close();
    direct.close();
    await fs.unmount();
    if (type === xfs) assertCleanImage(device);
    device.close();
  };
  return { clock, file, direct, inode, tearDown };
}

function bytes(len: number, value: number): Uint8Array {
  return new Uint8Array(len).fill(value);
}

for (const type of [xfs, exampleFs]) {
  Deno.test(`truncate() waits for direct I/O in flight (${type.name})`, async () => {
    const s = await setUp(type);

    const write = s.direct.write(bytes(4 * KiB, 1), { at: 0 });
    const truncate = s.file.truncate(0);
    await s.clock.sleep(1);
    assertEquals([s.inode.dioCount, s.inode.size], [1, 8 * KiB]);

    assertEquals(await write, 4 * KiB);
    await truncate;
    assertEquals([s.inode.dioCount, s.inode.size], [0, 0]);
    await s.tearDown();
  });

  Deno.test(`truncate() leaves nothing behind the end for a mapping to show (${type.name})`, async () => {
    const s = await setUp(type);

    await s.file.truncate(1500);
    await s.file.sync();
    await s.file.advise("dontneed");

    using map = s.file.mmapSync();
    const p = new Uint8Array(4 * KiB);
    await map.load(0, p);
    const want = new Uint8Array(4 * KiB);
    want.fill(7, 0, 1500);
    assertEquals(p, want);
    map.unmap();
    await s.tearDown();
  });
}
