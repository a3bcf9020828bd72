/**
 * Where space comes from when it is short, and where a file system ends.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  createNvme,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FsError,
  mkfsXfs,
  mount,
  VirtualClock,
  xfs,
} from "../../../mod.ts";
import type { Bio } from "../../../block/bio.ts";
import { opIsWrite } from "../../../block/blk-types.ts";
import { assertCleanImage } from "../xfs/clean.ts";
import { PassDevice } from "./pass_device.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const ALL = { read: true, write: true, create: true };

Deno.test("mkfsXfs() makes no groups beyond the device, however many are asked for", async () => {
  // 4999 groups of 4097 blocks are more than 5000 of 4096 and one.
  const agCount = 5000;
  const nvme = createNvme(new VirtualClock(), {
    size: agCount * 16 * MiB + 4096,
  });
  await mkfsXfs(nvme, { agCount });
  const fs = await mount(nvme, xfs);
  assert(fs.statfs().blocks * 4096 < agCount * 16 * MiB);
  await fs.unmount();
  nvme.close();
});

/** A file system whose free space is promised to a file, beyond its end. */
async function promised() {
  const nvme = createNvme(new VirtualClock(), { size: 64 * MiB });
  await mkfsXfs(nvme, { agCount: 1 });
  const fs = await mount(nvme, xfs, { options: "allocsize=32m" });
  const hog = await fs.open("/hog", ALL);
  await hog.write(new Uint8Array(4 * KiB), { at: 0 });
  const free = fs.statfs().blocksFree * 4096;
  assert(free < 32 * MiB, `${free}`);
  return { nvme, fs, hog };
}

/** Calls with rising offsets until there is no space; the last offset. */
async function untilFull(
  at: number,
  work: (at: number) => Promise<unknown>,
): Promise<number> {
  const full = await assertRejects(async () => {
    for (;; at += MiB) await work(at);
  }, FsError);
  assertEquals(full.code, "ENOSPC");
  return at;
}

// As Linux 6.18 answers: a file that is dirty is left alone unless somebody writes it
// back, which a buffered write without space does, and so does whoever makes a name.
Deno.test.each([
  ["a direct write", true],
  ["fallocate()", false],
] as [string, boolean][])(
  "$0 gets the space that others were promised beyond their end once they are clean",
  async (_name, direct) => {
    const { nvme, fs, hog } = await promised();
    const file = await fs.open("/direct", { ...ALL, direct });
    const data = new Uint8Array(MiB);
    const work = (at: number) =>
      direct ? file.write(data, { at }) : file.fallocate(0, at, MiB);
    const done = await untilFull(0, work);
    assert(done < 24 * MiB, `${done}`);
    await hog.sync();
    assert(await untilFull(done, work) > 40 * MiB);
    hog.close();
    file.close();
    await fs.unmount();
    assertCleanImage(nvme);
    nvme.close();
  },
);

Deno.test("a buffered write gets the space that others were promised beyond their end", async () => {
  const { nvme, fs, hog } = await promised();
  const file = await fs.open("/buffered", ALL);
  const data = new Uint8Array(MiB);
  const done = await untilFull(0, (at) => file.write(data, { at }));
  assert(done > 40 * MiB);
  hog.close();
  file.close();
  await fs.unmount();
  assertCleanImage(nvme);
  nvme.close();
});

Deno.test("open() makes a file in space that others were promised beyond their end", async () => {
  const { nvme, fs, hog } = await promised();
  const rest = await fs.open("/rest", ALL);
  await untilFull(0, (at) => rest.fallocate(0, at / 256, 4096));
  // More than fit in the chunk of 64 inodes that is there.
  for (let i = 0; i < 100; i++) (await fs.open(`/f${i}`, ALL)).close();
  assert((await hog.stat()).blocks! < 100);
  hog.close();
  rest.close();
  await fs.unmount();
  assertCleanImage(nvme);
  nvme.close();
});

/** Hands requests on, and notes writes to where another write is still under way. */
class OverlapDevice extends PassDevice {
  readonly writing = new Set<{ start: number; end: number }>();
  readonly overlaps: string[] = [];

  override submit(bio: Bio): void {
    if (!opIsWrite(bio.opf) || bio.size === 0) return super.submit(bio);
    const range = { start: bio.sector, end: bio.endSector };
    for (const { start, end } of this.writing) {
      if (range.start < end && start < range.end) {
        this.overlaps.push(`${range.start}-${range.end} over ${start}-${end}`);
      }
    }
    this.writing.add(range);
    const { endIo } = bio;
    bio.endIo = (done) => {
      this.writing.delete(range);
      done.endIo = endIo;
      endIo?.(done);
    };
    super.submit(bio);
  }
}

Deno.test("blocks of freed inodes are not written by others while a sync still writes them", async () => {
  const nvme = createNvme(new VirtualClock(), {
    size: 16 * MiB,
    preset: "optane",
  });
  const device = new OverlapDevice(nvme);
  await mkfsXfs(nvme);
  const fs = await mount(device, xfs);
  // The root and 63 files share the first inodes; the rest are freed with their blocks.
  const names = Array.from({ length: 255 }, (_, i) => `/f${i}`);
  for (const name of names) (await fs.open(name, ALL)).close();
  const direct = await fs.open("/f0", { ...ALL, direct: true });

  const synced = fs.sync();
  while (device.writing.size === 0) await nvme.clock.sleep(100);
  for (const name of names.slice(63)) await fs.unlink(name);
  // What was freed may be used again, as far as the log goes.
  await direct.sync();
  await direct.write(new Uint8Array(32 * KiB), { at: 0 });
  await synced;
  assertEquals(device.overlaps, []);

  direct.close();
  await fs.unmount();
  assertCleanImage(nvme);
  nvme.close();
});

for (const blockSize of [1024, 2048]) {
  Deno.test(`unmount() keeps everything when no two free blocks of ${blockSize} are neighbours`, async () => {
    const nvme = createNvme(new VirtualClock(), { size: 64 * MiB });
    await mkfsXfs(nvme, { blockSize });
    let fs = await mount(nvme, xfs);
    const file = await fs.open("/comb", ALL);
    const size = (fs.statfs().blocksFree - 64) * blockSize;
    await file.fallocate(0, 0, size);
    const punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    for (let at = 0; at < size; at += 2 * blockSize) {
      await file.fallocate(punch, at, blockSize);
    }
    // What is left in one piece goes to another file.
    const rest = await fs.open("/rest", ALL);
    for (let at = 0, pieces = 1; pieces < 8; at += 64 * KiB) {
      await rest.fallocate(0, at, 64 * KiB);
      pieces = (await rest.fiemap({ start: at, length: 64 * KiB })).length;
    }
    const data = new Uint8Array(blockSize).fill(7);
    await file.write(data, { at: blockSize });
    file.close();
    rest.close();
    const free = fs.statfs().blocksFree;
    await fs.unmount();

    fs = await mount(nvme, xfs);
    const again = await fs.open("/comb", { read: true });
    const back = new Uint8Array(blockSize);
    assertEquals(await again.read(back, { at: blockSize }), blockSize);
    assertEquals(back, data);
    assertEquals((await again.stat()).size, size);
    const extents = await again.fiemap();
    assertEquals(extents.length, Math.floor(size / blockSize / 2));
    // Records of the extents and of free space are all that was taken.
    assert(free - fs.statfs().blocksFree < 5000);
    again.close();
    await fs.unlink("/comb");
    await fs.unlink("/rest");
    await fs.unmount();
    // Nothing is lost for good: an empty file system mounts and fills again.
    fs = await mount(nvme, xfs);
    const whole = await fs.open("/whole", ALL);
    await whole.fallocate(0, 0, size);
    whole.close();
    await fs.unmount();
    assertCleanImage(nvme);
    nvme.close();
  });
}
