import { assertEquals } from "@std/assert";
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_UNSHARE_RANGE,
  type FsFile,
  mount,
} from "../../../mod.ts";
import { assertCleanImage } from "./clean.ts";
import { newXfs, xfs } from "./fixture.ts";

const KiB = 1024;
const READ_WRITE = { read: true, write: true, create: true };

/** Runs with a file whose block at 0 is also that at 64 KiB; then the image is clean. */
async function withSharedBlock(
  use: (open: (direct?: boolean) => Promise<FsFile>) => Promise<void>,
): Promise<void> {
  const device = await newXfs({ size: 32 * 2 ** 20 });
  const fs = await mount(device, xfs);
  const open = (direct = false) => fs.open("/f", { ...READ_WRITE, direct });
  {
    using file = await open();
    await file.write(bytes(1), { at: 0 });
    await file.cloneRange(file, { offset: 64 * KiB, length: 4 * KiB });
    await file.truncate(256 * KiB);
  }
  await use(open);
  await fs.unmount();
  assertCleanImage(device);
}

/** A block of a byte. */
function bytes(byte: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(4 * KiB).fill(byte);
}

async function read(file: FsFile, at: number): Promise<Uint8Array> {
  const data = new Uint8Array(4 * KiB);
  await file.read(data, { at });
  return data;
}

Deno.test("unsharing leaves the blocks for copies to dirty pages beside what was shared", async () => {
  await withSharedBlock(async (open) => {
    using file = await open();
    // Space for copies is promised by 32 blocks: that of the hole at 8 KiB, too.
    await file.write(bytes(2), { at: 64 * KiB });
    await file.write(bytes(3), { at: 8 * KiB });
    const mode = FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE;
    await file.fallocate(mode, 64 * KiB, 4 * KiB);
    await file.sync();
    await file.advise("dontneed");
    assertEquals(await read(file, 8 * KiB), bytes(3));
    assertEquals(await read(file, 64 * KiB), bytes(2));
  });
});

Deno.test("an atomic write goes where space for a copy of another block is still promised", async () => {
  await withSharedBlock(async (open) => {
    using cached = await open();
    // Space for copies is promised by 128 KiB.
    await cached.write(bytes(2), { at: 64 * KiB });
    using direct = await open(true);
    // More than the device keeps whole: it goes to other blocks.
    const data = new Uint8Array(16 * KiB).fill(3);
    await direct.write(data, { at: 96 * KiB, atomic: true });
    assertEquals(await read(cached, 64 * KiB), bytes(2));
    assertEquals(await read(direct, 96 * KiB), bytes(3));
  });
});
