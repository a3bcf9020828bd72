/**
 * New file systems: what mkfs.xfs would have made, byte for byte, where it is there to
 * be asked; and on any machine, images that our own check finds in order.
 */
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import {
  createNvme,
  FsError,
  MemoryMedia,
  type NvmeDevice,
  VirtualClock,
} from "../../../mod.ts";
import { mkfsXfs, type MkfsXfsOptions } from "../../../fs/xfs/mkfs.ts";
import * as F from "../../../fs/xfs/libxfs/format.ts";
import { assertCleanImage } from "./clean.ts";

const KiB = 2 ** 10;
const MiB = 2 ** 20;
const GiB = 2 ** 30;
const UUID = "01234567-89ab-4cde-8f01-23456789abcd";
/** Bytes that are compared at a time. */
const CHUNK = 65536;

/** Sizes and options, and how mkfs.xfs is told them. */
const SETS: [size: number, args: string, options: MkfsXfsOptions][] = [
  [16 * MiB, "", {}],
  [24 * MiB, "", {}],
  [32 * MiB, "", {}],
  [64 * MiB, "", {}],
  [100 * MiB, "", {}],
  [30 * MiB + 57 * 512, "-b size=1024 -m reflink=0", {
    blockSize: 1024,
    reflink: false,
  }],
  [64 * MiB, "-m rmapbt=1", { rmapbt: true }],
  [64 * MiB, "-m rmapbt=1,reflink=0", { rmapbt: true, reflink: false }],
  [64 * MiB, "-m reflink=0", { reflink: false }],
  [64 * MiB, "-i sparse=0", { sparseInodes: false }],
  [64 * MiB, "-m finobt=0,inobtcount=0", { finobt: false }],
  [64 * MiB, "-m inobtcount=0", { inobtcount: false }],
  [64 * MiB, "-m bigtime=0", { bigtime: false }],
  [96 * MiB, "-i nrext64=1", { nrext64: true }],
  [64 * MiB, "-b size=1024", { blockSize: 1024 }],
  [64 * MiB, "-b size=2048", { blockSize: 2048 }],
  [64 * MiB, "-b size=8192", { blockSize: 8192 }],
  [80 * MiB, "-b size=16384", { blockSize: 16384 }],
  [300 * MiB, "-b size=65536", { blockSize: 65536 }],
  [64 * MiB, "-s size=4096", { sectorSize: 4096 }],
  [64 * MiB, "-b size=1024 -s size=1024", {
    blockSize: 1024,
    sectorSize: 1024,
  }],
  [64 * MiB, "-i size=1024", { inodeSize: 1024 }],
  [64 * MiB, "-i size=2048", { inodeSize: 2048 }],
  [96 * MiB, "-n size=65536 -L hello-world1", {
    dirBlockSize: 65536,
    label: "hello-world1",
  }],
  [96 * MiB, "-l size=12m -i maxpct=50", { logSize: 12 * MiB, imaxPct: 50 }],
  [96 * MiB, "-d su=64k,sw=2", {
    stripeUnit: 64 * KiB,
    stripeWidth: 128 * KiB,
  }],
  [96 * MiB, "-d su=32k,sw=3 -m rmapbt=1 -d agcount=2", {
    stripeUnit: 32 * KiB,
    stripeWidth: 96 * KiB,
    rmapbt: true,
    agCount: 2,
  }],
  [96 * MiB, "-d agsize=24m", { agSize: 24 * MiB }],
  [16 * MiB, "-l su=16k -m reflink=0", {
    logStripeUnit: 16 * KiB,
    reflink: false,
  }],
  // The log takes all of its group: nothing is left for a free list.
  [320 * MiB, "-d agcount=8 -m rmapbt=1", { agCount: 8, rmapbt: true }],
];

function hasMkfs(): boolean {
  try {
    return new Deno.Command("mkfs.xfs", { args: ["-V"], stdout: "null" })
      .outputSync().code === 0;
  } catch {
    return false;
  }
}

/** A device with a plain sector of 512 bytes, whatever the model says. */
function deviceOf(size: number, media = new MemoryMedia(size)): NvmeDevice {
  return createNvme(new VirtualClock(), { preset: "null", media });
}

/** Makes an image with mkfs.xfs. */
function real(path: string, size: number, args: string): Deno.FsFile {
  Deno.truncateSync(path, 0);
  Deno.truncateSync(path, size);
  const words = args.split(" ").filter((word) => word !== "");
  const { code, stderr } = new Deno.Command("mkfs.xfs", {
    args: ["-q", "-f", "-m", `uuid=${UUID}`, ...words, path],
    // All three set, it makes small ones, too.
    env: { TEST_DIR: "x", TEST_DEV: "x", QA_CHECK_FS: "x" },
  }).outputSync();
  if (code !== 0) throw new Error(new TextDecoder().decode(stderr));
  return Deno.openSync(path, { read: true });
}

/** Bytes of an inode in use that say when it was made, and its checksum. */
function isTime(at: number): boolean {
  return (at >= F.DI_MTIME && at < F.DI_SIZE) ||
    (at >= F.DI_CRTIME && at < F.DI_INO) ||
    (at >= F.DI_CRC && at < F.DI_CHANGECOUNT);
}

/** Bytes that differ, but for times. */
function differences(
  file: Deno.FsFile,
  media: MemoryMedia,
  inodeSize: number,
): string[] {
  const theirs = new Uint8Array(CHUNK);
  const ours = new Uint8Array(CHUNK);
  const words = [new Uint32Array(theirs.buffer), new Uint32Array(ours.buffer)];
  const found: string[] = [];
  for (let at = 0; at < media.size; at += CHUNK) {
    const len = Math.min(CHUNK, media.size - at);
    for (let done = 0; done < len;) {
      done += file.readSync(theirs.subarray(done, len))!;
    }
    media.read(at, ours, 0, len);
    for (let w = 0; w < len / 4; w++) {
      if (words[0]![w] === words[1]![w]) continue;
      const inode = 4 * w - 4 * w % inodeSize;
      const isInode = ours[inode] === 0x49 && ours[inode + 1] === 0x4e;
      if (isInode && isTime(4 * w - inode)) continue;
      found.push(`at ${at + 4 * w}: ${words[0]![w]}, not ${words[1]![w]}`);
    }
  }
  return found.slice(0, 10);
}

Deno.test({
  name: "mkfsXfs() makes what mkfs.xfs makes, byte for byte",
  ignore: !hasMkfs(),
  async fn(t) {
    const path = await Deno.makeTempFile({ suffix: ".img" });
    for (const [size, args, options] of SETS) {
      await t.step(`${size / MiB} MiB ${args}`, async () => {
        using file = real(path, size, args);
        const media = new MemoryMedia(size);
        const device = deviceOf(size, media);
        const made = await mkfsXfs(device, {
          sectorSize: 512,
          uuid: UUID,
          ...options,
        });

        assertEquals(differences(file, media, made.inodeSize), []);
        device.close();
      });
    }
    await Deno.remove(path);
  },
});

Deno.test("mkfsXfs() makes images in order, of any size", async (t) => {
  const more: [number, string, MkfsXfsOptions][] = [
    [GiB, "", { rmapbt: true, nrext64: true, blockSize: 65536 }],
    [2 ** 42, "", { rmapbt: true }],
    [100 * GiB, "", { stripeUnit: MiB, stripeWidth: 5 * MiB }],
    [10 * GiB, "", { agCount: 500 }],
  ];
  for (const [size, args, options] of [...SETS, ...more]) {
    await t.step(`${size / MiB} MiB ${args}`, async () => {
      const device = deviceOf(size);
      await mkfsXfs(device, options);

      assertCleanImage(device);
      device.close();
    });
  }
});

Deno.test("mkfsXfs() clears what was on the device", async () => {
  const device = deviceOf(256 * MiB);
  await mkfsXfs(device, { agCount: 16 });
  const made = await mkfsXfs(device, { agCount: 1, reflink: false });

  assertEquals(made.agCount, 1);
  assertCleanImage(device);
  device.close();
});

Deno.test("mkfsXfs() lays 512 MiB out as the worked example says", async () => {
  const media = new MemoryMedia(512 * MiB);
  const device = deviceOf(media.size, media);
  const made = await mkfsXfs(device, { sectorSize: 512, uuid: UUID });
  const data = new Uint8Array(512);
  const view = new DataView(data.buffer);
  media.read(0, data, 0, 512);

  assertEquals(made.agBlocks, 32768);
  assertEquals(view.getUint32(F.SB_LOGSTART + 4), 65542);
  assertEquals(view.getUint32(F.SB_ROOTINO + 4), 128);
  assertEquals(view.getUint32(F.SB_LOGBLOCKS), 16384);
  assertEquals(view.getUint16(F.SB_VERSIONNUM), 0xb4a5);
  assertEquals(view.getUint32(F.SB_FDBLOCKS + 4), 114656);
  assertEquals(view.getUint32(F.SB_IFREE + 4), 61);
  device.close();
});

Deno.test("mkfsXfs() makes the same UUID of the same seed only", async () => {
  const uuidOf = async (options: MkfsXfsOptions) => {
    const media = new MemoryMedia(16 * MiB);
    const device = deviceOf(media.size, media);
    await mkfsXfs(device, options);
    const uuid = new Uint8Array(16);
    media.read(F.SB_UUID, uuid, 0, 16);
    device.close();
    return uuid.toHex();
  };
  const one = await uuidOf({ seed: 1 });

  assertEquals(await uuidOf({ seed: 1 }), one);
  assertEquals(await uuidOf({ seed: 2 }) === one, false);
  assertMatch(one, /^.{12}4.{3}[89ab]/);
});

Deno.test("mkfsXfs() refuses what cannot be, and writes nothing", async (t) => {
  const bad: [MkfsXfsOptions, RegExp][] = [
    [{ blockSize: 3000 }, /blockSize 3000 is not a power of two/],
    [{ blockSize: 512 }, /blockSize 512 /],
    [{ blockSize: 131072 }, /blockSize 131072 /],
    [{ sectorSize: 8192 }, /sectorSize 8192 /],
    [{ sectorSize: 256 }, /sectorSize 256 /],
    [{ inodeSize: 256 }, /inodeSize 256 /],
    [{ inodeSize: 1024, blockSize: 1024 }, /inodeSize 1024 is above half/],
    [{ dirBlockSize: 2048 }, /dirBlockSize 2048 /],
    [{ agCount: 0 }, /agCount 0 /],
    [{ agCount: 5 }, /agCount 5 is not a number from 1 to 4/],
    [{ agSize: 4 * MiB }, /agSize 4194304, below/],
    [{ agSize: 128 * MiB }, /agSize 134217728, more than the device has/],
    [{ agSize: 16 * MiB, agCount: 4 }, /exclude each other/],
    [{ logSize: MiB }, /logSize 1048576 is below/],
    [{ logSize: 60 * MiB }, /logSize 62914560 is above/],
    [{ logSize: 5_000_000 }, /logSize 5000000 is no multiple of 4096/],
    [{ imaxPct: 101 }, /imaxPct 101 /],
    [{ stripeUnit: 65536 }, /stripeUnit and stripeWidth go together/],
    [{ stripeUnit: 65536, stripeWidth: 98304 }, /stripeWidth 98304 /],
    [{ finobt: false, inobtcount: true }, /inobtcount takes finobt/],
    [{ reflink: 1 as unknown as boolean }, /reflink is 1, not a boolean/],
    [{ label: "thirteen char" }, /longer than 12 bytes/],
    [{ label: "a\0b" }, /NUL/],
    [{ uuid: "abc" }, /uuid "abc" is neither/],
    [{ seed: 0.5 }, /seed 0.5 /],
    [{ blocksize: 4096 } as MkfsXfsOptions, /there is no option "blocksize"/],
  ];
  for (const [options, expect] of bad) {
    await t.step(JSON.stringify(options), async () => {
      const media = new MemoryMedia(64 * MiB);
      const device = deviceOf(media.size, media);
      const error = await assertRejects(
        () => mkfsXfs(device, options),
        FsError,
      );

      assertEquals(error.code, "EINVAL");
      assertMatch(error.message, expect);
      assertEquals(media.blank, true);
      device.close();
    });
  }
});

Deno.test("mkfsXfs() refuses a device below 16 MiB, and one in use", async () => {
  const small = deviceOf(16 * MiB - 4096);
  const error = await assertRejects(() => mkfsXfs(small), FsError);
  const used = deviceOf(16 * MiB);
  used.holder = { markDead() {} };
  const busy = await assertRejects(() => mkfsXfs(used), FsError);

  assertMatch(error.message, /device of 16773120 bytes is too small/);
  assertEquals(busy.code, "EBUSY");
  small.close();
  used.close();
});

Deno.test("mkfsXfs() takes no sector below the device's", async () => {
  const device = createNvme(new VirtualClock(), {
    preset: "null",
    size: 64 * MiB,
    logicalBlockSize: 4096,
  });
  const error = await assertRejects(
    () => mkfsXfs(device, { sectorSize: 512 }),
    FsError,
  );
  const made = await mkfsXfs(device);

  assertMatch(error.message, /sectorSize 512 is not a power of two from 4096/);
  assertEquals(made.sectorSize, 4096);
  assertCleanImage(device);
  device.close();
});
