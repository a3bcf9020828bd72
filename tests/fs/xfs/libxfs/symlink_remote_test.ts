import { assert, assertEquals, assertRejects } from "@std/assert";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import { bufSeal } from "../../../../fs/xfs/libxfs/buf.ts";
import { RMT_CRC } from "../../../../fs/xfs/libxfs/format.ts";
import { BmbtIrec, IextCursor } from "../../../../fs/xfs/libxfs/iext.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import type { MkfsXfsOptions } from "../../../../fs/xfs/mkfs.ts";
import { setLogHandler } from "../../../../lib/printk.ts";
import { FsError, type Mount, mount } from "../../../../mod.ts";
import { assertCleanImage } from "../clean.ts";
import { newXfs, xfs } from "../fixture.ts";
import { newImage } from "./fixture.ts";
import { MemoryDevice } from "./memory_device.ts";

const KEEP_SIZE_PUNCH = 1 | 2;

function target(n: number): string {
  return `${n}-`.padEnd(n, "abcdefg").slice(0, n);
}

async function inodeOf(fs: Mount, path: string): Promise<XfsInode> {
  const { ino } = await fs.lstat(path);
  return fs.superBlock.inodes.get(ino) as XfsInode;
}

/** Lengths at which something changes, for any size of inodes and blocks. */
const LENGTHS = [336, 848, 968, 1872].flatMap((n) => [n - 1, n, n + 1])
  .filter((n) => n < 1024).concat(1, 2, 4, 500, 1022, 1023);

for (
  const options of [
    {},
    { blockSize: 1024 },
    { blockSize: 2048, inodeSize: 1024 },
    { inodeSize: 2048, rmapbt: true },
    { blockSize: 65536, size: 192 * 2 ** 20 },
  ]
) {
  Deno.test(
    `symbolic links keep targets of any length, ${JSON.stringify(options)}`,
    async () => {
      const device = await newXfs(options);
      let fs = await mount(device, xfs);
      const mp = fs.superBlock as XfsMount;
      const { blocksize, inodesize } = mp.sb;
      const free = mp.fdblocks;
      for (const n of LENGTHS) {
        await fs.symlink(target(n), `/${n}`);
        const { blocks } = await inodeOf(fs, `/${n}`);
        const remote = n > inodesize - 176;
        const fsbs = remote ? Math.ceil(n / (blocksize - 56)) : 0;
        assertEquals(blocks, fsbs * blocksize / 512, `${n} bytes`);
      }
      await fs.unmount();
      assertCleanImage(device);
      fs = await mount(device, xfs);
      for (const n of LENGTHS) {
        assertEquals(await fs.readLink(`/${n}`), target(n));
        await fs.unlink(`/${n}`);
      }
      // The directory has grown by some blocks, and no chunk of inodes was added.
      const kept = (await inodeOf(fs, "/")).nblocks;
      assertEquals((fs.superBlock as XfsMount).fdblocks, free - kept);
      await fs.unmount();
      assertCleanImage(device);
    },
  );
}

Deno.test("a target lies in two pieces where no two free blocks are together", async () => {
  const device = await newXfs({ size: 18 * 2 ** 20, blockSize: 1024 });
  let fs = await mount(device, xfs);
  const mp = fs.superBlock as XfsMount;
  // Without a reserve all space can be used up.
  mp.resblks = 0;
  mp.addFdblocks(mp.resblksAvail);
  mp.resblksAvail = 0;
  const blocks = mp.fdblocks - mp.allocSetAside - 64;
  const hog = await fs.open("/hog", { write: true, createNew: true });
  hog.fallocateSync(0, 0, blocks * 1024);
  for (let i = 1; i < 3000; i += 2) {
    hog.fallocateSync(KEEP_SIZE_PUNCH, i * 1024, 1024);
  }
  hog.close();
  let links = 0;
  for (let pieces = 0; pieces < 2 && links < 200; links++) {
    await fs.symlink(target(1023), `/${links}`);
    pieces = (await inodeOf(fs, `/${links}`)).df.nextents;
  }
  assert(links < 200);
  await fs.unmount();
  assertCleanImage(device);
  fs = await mount(device, xfs);
  for (let i = 0; i < links; i++) {
    assertEquals(await fs.readLink(`/${i}`), target(1023));
    await fs.unlink(`/${i}`);
  }
  await fs.unmount();
  assertCleanImage(device);
});

/** A device with one long link, and the byte at which its block begins. */
async function longLink(
  options: MkfsXfsOptions,
): Promise<[MemoryDevice, number, number]> {
  const device = await newImage(48 * 2 ** 20, options);
  const fs = await mount(device, xfs);
  await fs.symlink(target(1000), "/link");
  const { df } = await inodeOf(fs, "/link");
  const rec = new BmbtIrec();
  assert(df.first(new IextCursor(), rec));
  const { sb } = fs.superBlock as XfsMount;
  await fs.unmount();
  return [device, sb.fsbToByte(rec.startblock), rec.count * sb.blocksize];
}

Deno.test("readLink() refuses a block that is not what it must be", async () => {
  const quiet = setLogHandler(() => {});
  const [base, at, bytes] = await longLink({});
  const changes: [what: string, change: (view: DataView) => void][] = [
    ["magic", (v) => v.setUint32(0, 1)],
    ["offset", (v) => v.setUint32(4, 8)],
    ["bytes, one less", (v) => v.setUint32(8, 999)],
    ["bytes, one more", (v) => v.setUint32(8, 1001)],
    ["bytes, all", (v) => v.setUint32(8, 0xffff_ffff)],
    ["uuid", (v) => v.setUint8(16, 0)],
    ["owner", (v) => v.setUint8(39, 1)],
    ["blkno", (v) => v.setUint8(47, 1)],
  ];
  for (const [what, change] of changes) {
    for (const sealed of [true, false]) {
      const device = new MemoryDevice(48 * 2 ** 20, base);
      const data = new Uint8Array(bytes);
      device.peek(at, data);
      change(new DataView(data.buffer));
      if (sealed) bufSeal(data, RMT_CRC);
      device.poke(at, data);
      const fs = await mount(device, xfs);
      const error = await assertRejects(() => fs.readLink("/link"), FsError);
      assertEquals(error.code, "EUCLEAN", `${what}: ${error}`);
      await fs.unmount().catch((error) => assert(error instanceof FsError));
    }
  }
  setLogHandler(quiet);
});
