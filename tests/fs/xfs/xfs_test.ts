/**
 * The file system as its users meet it: made, mounted, filled, left, and found again.
 */
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import {
  createNvme,
  FALLOC_FL_COLLAPSE_RANGE,
  FALLOC_FL_INSERT_RANGE,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FsError,
  type FsFile,
  mkfsXfs,
  type MkfsXfsOptions,
  type Mount,
  mount,
  type NvmeDevice,
  SEEK_HOLE,
  VirtualClock,
  xfs,
} from "../../../mod.ts";
import { Bio, submitBioWait } from "../../../block/bio.ts";
import { REQ_OP_READ, REQ_OP_WRITE } from "../../../block/blk-types.ts";
import { decodeSb, encodeSb } from "../../../fs/xfs/libxfs/sb.ts";
import { Prng } from "../../../lib/prng.ts";
import { assertCleanImage } from "../xfs/clean.ts";
import { FailingDevice } from "./failing_device.ts";

const KiB = 1024;
const MiB = 1024 * KiB;

function device(size = 64 * MiB, preset = "null"): NvmeDevice {
  return createNvme(new VirtualClock(), { size, preset, seed: 1 });
}

/** Makes, mounts, works, unmounts. */
async function withFs(
  work: (fs: Mount, nvme: NvmeDevice) => Promise<void>,
  { size, options = "", ...mkfs }: MkfsXfsOptions & {
    size?: number;
    options?: string;
  } = {},
): Promise<void> {
  const nvme = device(size);
  await mkfsXfs(nvme, mkfs);
  {
    await using fs = await mount(nvme, xfs, { options });
    await work(fs, nvme);
  }
  assertCleanImage(nvme);
  nvme.close();
}

const ALL = { read: true, write: true, create: true };

function bytes(len: number, seed: number): Uint8Array {
  const prng = new Prng(seed, "data");
  return Uint8Array.from({ length: len }, () => prng.below(256));
}

async function readAll(file: FsFile): Promise<Uint8Array> {
  const { size } = await file.stat();
  const data = new Uint8Array(size);
  const n = size === 0 ? 0 : await file.read(data, { at: 0 });
  assertEquals(n ?? 0, size);
  return data;
}

async function failure(work: () => unknown): Promise<FsError> {
  const e = await assertRejects(async () => await work(), FsError);
  return e as FsError;
}

Deno.test.each([
  [{ blockSize: 3000 }, "blockSize 3000"],
  [{ blockSize: 512 }, "blockSize 512"],
  [{ blockSize: 131072 }, "blockSize 131072"],
  [{ agCount: 0 }, "agCount 0"],
  [{ agCount: 5 }, "agCount 5"],
  [{ agCount: 1.5 }, "agCount 1.5"],
  [{ label: "thirteen-byte" }, 'label "thirteen-byte"'],
  [{ blocksize: 4096 }, 'no option "blocksize"'],
] as [Record<string, unknown>, string][])(
  "mkfsXfs() refuses $1 and writes nothing",
  async (options, named) => {
    const nvme = device();
    const e = await failure(() => mkfsXfs(nvme, options));
    assertEquals(e.code, "EINVAL");
    assertStringIncludes(e.message, named);
    assertEquals(nvme.stats.write.ios, 0);
    nvme.close();
  },
);

Deno.test("mkfsXfs() refuses a device that is too small, and says how small", async () => {
  const nvme = device(8 * MiB);
  const e = await failure(() => mkfsXfs(nvme));
  assertEquals(e.code, "EINVAL");
  assertStringIncludes(e.message, `${8 * MiB} bytes is too small`);
  nvme.close();
});

Deno.test("mount() refuses options by name, and what is no XFS", async () => {
  const nvme = device();
  const blank = await failure(() => mount(nvme, xfs));
  assertEquals(blank.code, "EINVAL");
  assertStringIncludes(blank.message, "magic 0x00000000 is not that of an XFS");
  await mkfsXfs(nvme);
  for (
    const [options, named] of [
      ["nolog", '"nolog"'],
      ["allocsize=4k,dax", '"dax"'],
      ["allocsize=3k", "allocsize=3k"],
      ["allocsize=2g", "allocsize=2g"],
      ["allocsize", "allocsize="],
    ]
  ) {
    const e = await failure(() => mount(nvme, xfs, { options: options! }));
    assertEquals(e.code, "EINVAL", options);
    assertStringIncludes(e.message, named!);
  }
  await (await mount(nvme, xfs, { options: "allocsize=64k" })).unmount();
  nvme.close();
});

Deno.test("mount() refuses a log that the largest transaction may not fit", async () => {
  const nvme = device();
  await mkfsXfs(nvme, { sectorSize: 512 });
  const data = new Uint8Array(512);
  const transfer = async (op: number) => {
    const bio = new Bio(nvme, op);
    bio.addData(data, 0, 512);
    assertEquals(await submitBioWait(bio), 0);
  };
  await transfer(REQ_OP_READ);
  const sb = decodeSb(data);
  assert(!("reason" in sb));
  sb.logblocks = 1200;
  data.set(encodeSb(sb));
  await transfer(REQ_OP_WRITE);
  const e = await failure(() => mount(nvme, xfs));
  assertEquals(e.code, "EINVAL");
  // As Linux 6.18 has it for these features.
  assertStringIncludes(e.message, "log of 1200 blocks is too small");
  assertStringIncludes(e.message, "the least is 1338");
  nvme.close();
});

/** Flips a bit of a byte of the device. */
async function corrupt(nvme: NvmeDevice, at: number): Promise<void> {
  const sector = Math.floor(at / 512);
  const data = new Uint8Array(512);
  for (const op of [REQ_OP_READ, REQ_OP_WRITE]) {
    const bio = new Bio(nvme, op);
    bio.sector = sector;
    bio.addData(data, 0, 512);
    assertEquals(await submitBioWait(bio), 0);
    data[at % 512]! ^= 1;
  }
}

// Of four groups of 16 MiB, with sectors of 512 bytes.
Deno.test.each([
  ["the super block", 24, "checksum of the super block"],
  ["the free space of a group", 512 + 60, "xfs_agf at daddr 1: checksum"],
  ["that of the last", 48 * MiB + 512, "xfs_agf at daddr 98305: checksum"],
  ["the inodes of a group", 1024 + 300, "xfs_agi at daddr 2: checksum"],
  ["the root", 16 * 4096 + 40, "inode 128: checksum"],
] as [string, number, string][])(
  "mount() refuses a flipped bit in $0 and names the check",
  async (_name, at, said) => {
    const nvme = device();
    await mkfsXfs(nvme, { sectorSize: 512 });
    await corrupt(nvme, at);
    const e = await failure(() => mount(nvme, xfs));
    assertEquals(e.code, "EUCLEAN");
    assertStringIncludes(e.message, said);
    // It was the bit: flipped back, the image mounts.
    await corrupt(nvme, at);
    await (await mount(nvme, xfs)).unmount();
    nvme.close();
  },
);

Deno.test("mount() tells a device that cannot be read from an image that is damaged", async () => {
  const nvme = device();
  await mkfsXfs(nvme);
  const failing = new FailingDevice(nvme);
  const said: string[] = [];
  for (let n = 1;; n++) {
    failing.requests = 0;
    failing.fails = (nth) => nth >= n;
    const mounted = mount(failing, xfs);
    try {
      const fs = await mounted;
      failing.fails = () => false;
      await fs.unmount();
      break;
    } catch (e) {
      assert(e instanceof FsError, String(e));
      assertEquals(e.code, "EIO");
      said.push(e.message.split(": ")[1]!);
    }
  }
  assertEquals([...new Set(said)], [
    "the super block cannot be read",
    "its log cannot be read",
    "the header of a group cannot be read",
    "the root cannot be read",
    "what the log has left cannot be done",
  ]);
  nvme.close();
});

/** Another device with the same contents. */
async function copyOf(nvme: NvmeDevice): Promise<NvmeDevice> {
  const copy = device();
  const data = new Uint8Array(MiB);
  for (let at = 0; at < 64 * MiB; at += MiB) {
    for (
      const [bdev, op] of [[nvme, REQ_OP_READ], [copy, REQ_OP_WRITE]] as const
    ) {
      const bio = new Bio(bdev, op);
      bio.sector = at / 512;
      bio.addData(data, 0, MiB);
      await submitBioWait(bio);
    }
  }
  return copy;
}

Deno.test("mount() refuses an image that has been written to and not unmounted", async () => {
  const nvme = device();
  await mkfsXfs(nvme);
  const fs = await mount(nvme, xfs);
  fs.mkdirSync("/d");
  {
    // Nothing of it is on the device.
    using copy = await copyOf(nvme);
    const other = await mount(copy, xfs);
    assertEquals([...other.readDirSync("/")], []);
    await other.unmount();
  }
  await fs.sync();
  {
    using copy = await copyOf(nvme);
    const e = await failure(() => mount(copy, xfs));
    assertEquals(e.code, "EUCLEAN");
    assertStringIncludes(e.message, "needs repair");
  }
  await fs.unmount();
  {
    using copy = await copyOf(nvme);
    const other = await mount(copy, xfs);
    assert(other.statSync("/d").isDirectory);
    await other.unmount();
  }
  nvme.close();
});

Deno.test.each([[1024], [4096], [16384], [65536]])(
  "what was written is there after unmount and mount (blocks of $0)",
  async (blockSize) => {
    const nvme = device();
    // The log takes half of 64 MiB where blocks are large.
    await mkfsXfs(nvme, { blockSize, agCount: 1, label: "disk" });
    const data = bytes(300_000, 1);
    let before: { size: number; mtime: Date | null; blocks: number | null };
    let free: number;
    {
      await using fs = await mount(nvme, xfs);
      await fs.mkdir("/d");
      await fs.mkdir("/d/e");
      {
        using file = await fs.open("/d/e/f", ALL);
        assertEquals(await file.write(data, { at: 10_000 }), data.length);
        await file.fallocate(FALLOC_FL_KEEP_SIZE, 500_000, 100_000);
        await file.truncate(400_000);
      }
      for (let i = 0; i < 500; i++) (await fs.open(`/d/n${i}`, ALL)).close();
      await fs.link("/d/e/f", "/g");
      before = await fs.stat("/g");
    }
    {
      await using fs = await mount(nvme, xfs);
      assertEquals((await fs.stat("/d")).nlink, 3);
      const after = await fs.stat("/d/e/f");
      assertEquals([after.size, after.nlink], [400_000, 2]);
      assertEquals(after.mtime, before.mtime);
      using file = await fs.open("/g", { read: true });
      const got = await readAll(file);
      assertEquals(got.subarray(10_000, 310_000), data);
      assert(got.subarray(0, 10_000).every((b) => b === 0));
      assert(got.subarray(310_000).every((b) => b === 0));
      const names: string[] = [];
      for await (const entry of fs.readDir("/d")) names.push(entry.name);
      assertEquals(names.length, 501);
      free = fs.statfs().blocksFree;
    }
    assertCleanImage(nvme);
    {
      // Everything goes: all space comes back.
      await using fs = await mount(nvme, xfs);
      assertEquals(fs.statfs().blocksFree, free);
      for (let i = 0; i < 500; i++) await fs.unlink(`/d/n${i}`);
      await fs.unlink("/g");
      await fs.unlink("/d/e/f");
      await fs.rmdir("/d/e");
      await fs.rmdir("/d");
      assert(fs.statfs().blocksFree > free);
    }
    assertCleanImage(nvme);
    nvme.close();
  },
);

// Goal: no block is lost or leaked over many mounts. Method: random file operations,
// a mount in between; each file's contents are held against a copy. The seed is 9.
Deno.test("files survive random changes and mounts (seed 9)", async () => {
  const prng = new Prng(9, "files");
  const nvme = device(32 * MiB);
  await mkfsXfs(nvme, { blockSize: 1024 });
  const model = new Map<string, Uint8Array>();
  let empty = -1;
  for (let round = 0; round < 6; round++) {
    assertCleanImage(nvme);
    await using fs = await mount(nvme, xfs);
    if (round === 0) empty = fs.statfs().blocksFree;
    for (const [name, data] of model) {
      using file = await fs.open(name, { read: true });
      assertEquals(await readAll(file), data, name);
    }
    for (let i = 0; i < 60; i++) {
      const name = `/f${prng.below(8)}`;
      const old = model.get(name) ?? new Uint8Array(0);
      if (prng.below(8) === 0 && model.has(name)) {
        await fs.unlink(name);
        model.delete(name);
        continue;
      }
      using file = await fs.open(name, ALL);
      const at = prng.below(200_000);
      const len = 1 + prng.below(50_000);
      let now = old;
      switch (prng.below(4)) {
        case 0: {
          now = new Uint8Array(prng.below(200_000));
          now.set(old.subarray(0, now.length));
          await file.truncate(now.length);
          break;
        }
        case 1:
          await file.fallocate(
            FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
            at,
            len,
          );
          now = old.slice();
          now.fill(0, at, at + len);
          break;
        default: {
          const data = bytes(len, round * 100 + i);
          now = new Uint8Array(Math.max(old.length, at + len));
          now.set(old);
          now.set(data, at);
          assertEquals(await file.write(data, { at }), len);
        }
      }
      model.set(name, now);
    }
  }
  {
    await using fs = await mount(nvme, xfs);
    for (const name of model.keys()) await fs.unlink(name);
  }
  await using fs = await mount(nvme, xfs);
  assertEquals(fs.statfs().blocksFree, empty);
  await fs.unmount();
  assertCleanImage(nvme);
  nvme.close();
});

Deno.test("a full file system answers ENOSPC when it is written to, and keeps what it has", async () => {
  await withFs(async (fs) => {
    using file = await fs.open("/a", ALL);
    const data = bytes(MiB, 1);
    let written = 0;
    const e = await failure(async () => {
      for (;;) written += await file.write(data, { at: written });
    });
    assertEquals(e.code, "ENOSPC");
    assert(written > 10 * MiB);
    const got = new Uint8Array(MiB);
    await file.read(got, { at: 5 * MiB });
    assertEquals(got, data);
    await file.sync();
    await file.truncate(0);
    assertEquals(await file.write(data, { at: 0 }), MiB);
  }, { size: 32 * MiB });
});

Deno.test("an unlinked file lives while it is open, and its space returns after", async () => {
  await withFs(async (fs) => {
    const free = fs.statfs().blocksFree;
    const file = await fs.open("/a", ALL);
    const data = bytes(100_000, 2);
    await file.write(data, { at: 0 });
    await fs.unlink("/a");
    assertEquals(await readAll(file), data);
    await file.sync();
    assert(fs.statfs().blocksFree < free);
    file.close();
    await fs.sync();
    assertEquals(fs.statfs().blocksFree, free);
  });
});

// As Linux 6.18 answers: truncate(2) to the size that a file has leaves its times alone,
// ftruncate(2) and O_TRUNC do not.
Deno.test("truncate() makes mtime and ctime now, by name only if the size changes", async () => {
  await withFs(async (fs, nvme) => {
    using file = await fs.open("/a", ALL);
    await file.write(bytes(5000, 1), { at: 0 });
    const steps: [boolean, () => unknown][] = [
      [false, () => fs.truncate("/a", 5000)],
      [true, () => file.truncate(5000)],
      [true, () => fs.truncate("/a", 100)],
      [true, () => fs.truncate("/a", 9000)],
      [true, () => fs.truncate("/a", 0)],
      [false, () => fs.truncate("/a", 0)],
      [true, () => file.truncate(0)],
      [true, async () => {
        const options = { write: true, truncate: true };
        (await fs.open("/a", options)).close();
      }],
      [true, () => file.fallocate(0, 0, 4096)],
    ];
    for (const [i, [moves, step]] of steps.entries()) {
      const { mtime, ctime } = await fs.stat("/a");
      await nvme.clock.sleep(1e9);
      await step();
      const after = await fs.stat("/a");
      const moved = [after.mtime! > mtime!, after.ctime! > ctime!];
      assertEquals(moved, [moves, moves], `step ${i}`);
    }
  });
});

Deno.test("readSync() and writeSync() do all of it without a promise", async () => {
  await withFs((fs) => {
    using file = fs.openSync("/a", ALL);
    const data = bytes(50_000, 3);
    assertEquals(file.writeSync(data, { at: 3 }), data.length);
    file.syncSync();
    file.adviseSync("dontneed", 0, 0);
    const got = new Uint8Array(50_000);
    assertEquals(file.readSync(got, { at: 3 }), data.length);
    assertEquals(got, data);
    file.fallocateSync(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 10_000);
    file.truncateSync(20_000);
    const tail = new Uint8Array(20_000);
    assertEquals(file.readSync(tail, { at: 0 }), 20_000);
    assert(tail.subarray(0, 10_000).every((b) => b === 0));
    assertEquals(tail.subarray(10_000), data.subarray(9_997, 19_997));
    return Promise.resolve();
  });
});

Deno.test("many direct writes in flight land where they belong", async () => {
  await withFs(async (fs) => {
    using file = await fs.open("/a", { ...ALL, direct: true });
    const data = bytes(256 * KiB, 4);
    const order = new Prng(4, "order");
    const blocks = Array.from({ length: 64 }, (_, i) => i)
      .sort(() => order.below(3) - 1);
    const done = await Promise.all(
      blocks.map((b) =>
        file.write(data.subarray(b * 4096, (b + 1) * 4096), { at: b * 4096 })
      ),
    );
    assertEquals(new Set(done), new Set([4096]));
    assertEquals(await readAll(file), data);
    const e = await failure(() => file.write(data.subarray(0, 100), { at: 0 }));
    assertEquals(e.code, "EINVAL");
  });
});

Deno.test("fallocate() takes blocks out of a file, and puts a hole into it", async () => {
  await withFs(async (fs) => {
    using file = await fs.open("/a", ALL);
    const data = bytes(20_000, 1);
    await file.write(data, { at: 0 });
    await file.fallocate(FALLOC_FL_COLLAPSE_RANGE, 4096, 8192);
    const less = new Uint8Array(20_000 - 8192);
    less.set(data.subarray(0, 4096));
    less.set(data.subarray(4096 + 8192), 4096);
    assertEquals(await readAll(file), less);
    await file.fallocate(FALLOC_FL_INSERT_RANGE, 8192, 4096);
    const more = new Uint8Array(less.length + 4096);
    more.set(less.subarray(0, 8192));
    more.set(less.subarray(8192), 8192 + 4096);
    assertEquals(await readAll(file), more);
    assertEquals(await file.seek(0, SEEK_HOLE), 8192);
  });
});

Deno.test("appending grows the promised space unless allocsize= fixes it", async () => {
  const promised = async (options: string): Promise<number> => {
    let blocks = 0;
    await withFs(async (fs) => {
      using file = await fs.open("/a", ALL);
      const data = new Uint8Array(64 * KiB);
      for (let i = 0; i < 16; i++) await file.write(data, { at: i * 64 * KiB });
      blocks = (await file.stat()).blocks! * 512;
    }, { options, size: 256 * MiB });
    return blocks;
  };
  assertEquals(await promised("allocsize=4k"), MiB);
  assert(await promised("") > MiB);
});

Deno.test("truncate() frees what a direct write in flight puts beyond the new end", async () => {
  const nvme = device(64 * MiB, "tlc-dc");
  await mkfsXfs(nvme);
  {
    await using fs = await mount(nvme, xfs);
    using file = await fs.open("/a", { ...ALL, direct: true });
    const written = file.write(bytes(64 * KiB, 1), { at: MiB });
    const truncated = file.truncate(512 * KiB);
    await Promise.all([written, truncated]);
    assertEquals((await file.stat()).size, 512 * KiB);
    assertEquals(await file.fiemap(), []);
  }
  assertCleanImage(nvme);
  nvme.close();
});

/** Files whose inodes take more than one block; the first has data to read. */
async function makeMany(nvme: NvmeDevice): Promise<void> {
  await mkfsXfs(nvme);
  await using fs = await mount(nvme, xfs);
  for (let i = 0; i < 40; i++) {
    using file = await fs.open(`/f${i}`, ALL);
    await file.write(new Uint8Array(i === 0 ? MiB : i));
  }
}

// A synchronous call runs the clock past the ends of both, before either goes on.
Deno.test("an inode is read whole while a sync forgets what it has written", async () => {
  for (let delay = 0; delay < 10; delay++) {
    const nvme = device(64 * MiB, "optane2");
    await makeMany(nvme);
    {
      await using fs = await mount(nvme, xfs);
      using file = await fs.open("/f0", ALL);
      await file.truncate(MiB + 1);
      const truncated = fs.truncate("/f39", 77);
      const synced = fs.sync();
      await nvme.clock.sleep(delay * 1000);
      try {
        file.readSync(new Uint8Array(4096), { at: MiB / 2 });
      } catch (e) {
        assertEquals((e as FsError).code, "EAGAIN");
      }
      await Promise.all([truncated, synced]);
    }
    const fs = await mount(nvme, xfs);
    for (let i = 1; i < 39; i++) {
      assertEquals((await fs.stat(`/f${i}`)).size, i);
    }
    assertEquals((await fs.stat("/f39")).size, 77);
    await fs.unmount();
    assertCleanImage(nvme);
    nvme.close();
  }
});

Deno.test("an image in a file is found by the next who opens it", async () => {
  const dir = await Deno.makeTempDir();
  const path = `${dir}/image`;
  try {
    const script = `
      import { createNvme, FileMedia, mkfsXfs, mount, VirtualClock, xfs } from
        ${JSON.stringify(new URL("../../../mod.ts", import.meta.url).href)};
      const media = FileMedia.open(${JSON.stringify(path)}, { size: ${
      32 * MiB
    }, create: true });
      const nvme = createNvme(new VirtualClock(), { media });
      await mkfsXfs(nvme);
      const fs = await mount(nvme, xfs);
      const file = await fs.open("/hello", { write: true, create: true });
      await file.write(new TextEncoder().encode("from another process"));
      file.close();
      await fs.unmount();
      nvme.close();`;
    await Deno.writeTextFile(`${dir}/make.ts`, script);
    const child = await new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--no-check",
        "--allow-read",
        "--allow-write",
        `${dir}/make.ts`,
      ],
    }).output();
    assertEquals(new TextDecoder().decode(child.stderr), "");
    const { FileMedia } = await import("../../../mod.ts");
    const media = FileMedia.open(path);
    const nvme = createNvme(new VirtualClock(), { media });
    {
      await using fs = await mount(nvme, xfs);
      using file = await fs.open("/hello", { read: true });
      assertEquals(
        new TextDecoder().decode(await readAll(file)),
        "from another process",
      );
    }
    nvme.close();
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
