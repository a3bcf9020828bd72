/**
 * Swap files on a mounted file system.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { setLogHandler } from "../../lib/printk.ts";
import {
  createNvme,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FsError,
  mkfsXfs,
  type Mount,
  mount,
  swapHeader,
  VirtualClock,
  xfs,
} from "../../mod.ts";
import { BLK_STS_IOERR, REQ_SWAP } from "../../block/blk-types.ts";
import { SwapInfo } from "../../mm/swap.ts";
import { exampleFs } from "../example_fs.ts";
import { TestDevice } from "../iomap/testfs.ts";
import { TaskClock, watchLocks } from "../lockdep.ts";
import { codeOfAsync } from "./ramfs.ts";
import { assertCleanImage } from "./xfs/clean.ts";

const P = 4096;
const MiB = 2 ** 20;
const all = { read: true, write: true, create: true };

async function setUp(memory = 64 * MiB, clock = new VirtualClock()) {
  const device = createNvme(clock, {
    size: 64 * MiB,
    preset: "mlc-970pro",
  });
  await mkfsXfs(device);
  const fs = await mount(device, xfs, { memory });
  return { device, fs };
}

/** Makes a swap file, written through. */
async function mkswap(fs: Mount, path: string, pages: number): Promise<void> {
  const file = await fs.open(path, all);
  await file.fallocate(0, 0, pages * P);
  await file.write(swapHeader(pages), { at: 0 });
  await file.sync();
  file.close();
}

function bytes(len: number, value: number): Uint8Array {
  return new Uint8Array(len).fill(value);
}

Deno.test("swapon() takes a file into use until swapoff()", async () => {
  const { device, fs } = await setUp();
  await mkswap(fs, "/s", 100);

  const swap = await fs.swapon("/s");
  assertEquals([swap.path, swap.pages, swap.extents, swap.used], [
    "/s",
    99,
    1,
    0,
  ]);
  assertEquals(fs.swaps(), [swap]);
  assertEquals(await codeOfAsync(() => fs.swapon("/s")), "EBUSY");
  assertEquals(await codeOfAsync(() => fs.unmount()), "EBUSY");
  await fs.swapoff("/s");
  assertEquals(fs.swaps(), []);
  assertEquals(await codeOfAsync(() => fs.swapoff("/s")), "EINVAL");
  await fs.unmount();
  assertCleanImage(device);
  device.close();
});

Deno.test("iomap corner case 156: an active swap file is not written, preallocated or cut", async () => {
  const { device, fs } = await setUp();
  await mkswap(fs, "/s", 100);
  const file = await fs.open("/s", all);
  const direct = await fs.open("/s", { ...all, direct: true });
  const before = file.mmapSync({ write: true });
  await fs.swapon("/s");

  const page = bytes(P, 1);
  const punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  const refused = [
    () => file.write(page, { at: P }),
    () => direct.write(page, { at: P }),
    () => file.fallocate(0, 0, 200 * P),
    () => file.fallocate(punch, 0, P),
    () => file.truncate(P),
    () => fs.truncate("/s", P),
    () => file.mmap({ write: true }),
    () => fs.open("/s", { write: true, truncate: true }),
  ];
  for (const call of refused) {
    assertEquals(await codeOfAsync(call), "ETXTBSY", call.toString());
  }
  assertEquals(await codeOfAsync(() => fs.unlink("/s")), "EPERM");
  assertEquals(await codeOfAsync(() => before.store(0, page)), "EFAULT");
  // Reading and mapping it work.
  assertEquals(await file.read(page, { at: 0 }), P);
  assertEquals((await file.fiemap()).length, 2);
  file.mmapSync().unmap();
  file.mmapSync({ write: true, private: true }).unmap();

  await fs.swapoff("/s");
  assertEquals(await file.write(page, { at: P }), P);
  await file.truncate(P);
  before.unmap();
  file.close();
  direct.close();
  await fs.unmount();
  assertCleanImage(device);
  device.close();
});

Deno.test("swapon() refuses what is no swap file, and the log says why", async () => {
  const { device, fs } = await setUp();
  const log: string[] = [];
  const old = setLogHandler((line) => log.push(line));
  const make = async (path: string, change: (page: Uint8Array) => void) => {
    const file = await fs.open(path, all);
    await file.fallocate(0, 0, 20 * P);
    const page = swapHeader(20);
    change(page);
    await file.write(page, { at: 0 });
    await file.sync();
    file.close();
  };
  const word = (page: Uint8Array, at: number, value: number) =>
    new DataView(page.buffer).setUint32(at, value, true);
  await make("/none", (page) => page.fill(0));
  await make("/version", (page) => word(page, 1024, 7));
  await make("/empty", (page) => word(page, 1028, 0));
  await make("/long", (page) => word(page, 1028, 20));
  await make("/bad", (page) => word(page, 1032, 1));
  await make("/good", () => {});
  await make("/hole", () => {});
  const hole = await fs.open("/hole", all);
  const punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  await hole.fallocate(punch, 5 * P, P);
  hole.close();
  await fs.mkdir("/dir");

  const codes: Record<string, string | null> = {};
  for (
    const path of [
      "/none",
      "/version",
      "/empty",
      "/long",
      "/bad",
      "/hole",
      "/dir",
      "/absent",
      "/good",
    ]
  ) {
    try {
      await fs.swapon(path);
      codes[path] = null;
    } catch (e) {
      codes[path] = (e as FsError).code;
    }
  }
  setLogHandler(old);

  assertEquals(codes, {
    "/none": "EINVAL",
    "/version": "EINVAL",
    "/empty": "EINVAL",
    "/long": "EINVAL",
    "/bad": "EINVAL",
    "/hole": "EINVAL",
    "/dir": "EISDIR",
    "/absent": "ENOENT",
    "/good": null,
  });
  assertEquals(log, [
    "Unable to find swap-space signature",
    "Unable to handle swap header version 7",
    "Empty swap-file",
    "Swap area shorter than signature indicates",
    "swapon: file /hole has unallocated extents",
  ]);
  await fs.swapoff("/good");
  // What was refused is a file as any other.
  await fs.truncate("/none", 0);
  await fs.unmount();
  assertCleanImage(device);
  device.close();
});

Deno.test("a private page that cannot be swapped out stays, and the log says where", async () => {
  const device = new TestDevice(new VirtualClock(), 64 * MiB);
  const fs = await mount(device, exampleFs, { memory: 256 * P });
  const area = await fs.open("/s", all);
  await area.write(bytes(100 * P, 0), { at: 0 });
  await area.write(swapHeader(100), { at: 0 });
  area.close();
  const swap = await fs.swapon("/s");
  const file = await fs.open("/a", all);
  await file.truncate(8 * P);
  const map = file.mmapSync({ write: true, private: true });
  await map.store(0, bytes(8 * P, 5));
  device.fault = ({ opf }) => (opf & REQ_SWAP) !== 0 ? BLK_STS_IOERR : 0;
  const log: string[] = [];
  const old = setLogHandler((line) => log.push(line));
  try {
    await map.advise("pageout");
  } finally {
    setLogHandler(old);
  }

  // Behind the header, which is where the file begins.
  assertEquals(log[0], "Write-error on swap-device (7:0:8)");
  assertEquals([log.length, swap.used], [8, 0]);
  device.fault = () => 0;
  const p = new Uint8Array(8 * P);
  await map.load(0, p);
  assertEquals(p, bytes(8 * P, 5));
  map.unmap();
  file.close();
  await fs.swapoff("/s");
  await fs.unmount();
});

Deno.test("swapon() of one area too many leaves the file as it was", async () => {
  const { device, fs } = await setUp();
  await mkswap(fs, "/s", 100);
  const { swap } = fs.superBlock.mm;
  const io = { read: () => 0, write: () => 0 };
  while (swap.add(new SwapInfo({}, io, 2)));

  assertEquals(await codeOfAsync(() => fs.swapon("/s")), "EPERM");
  assertEquals(fs.swaps(), []);
  const file = await fs.open("/s", all);
  assertEquals(await file.write(bytes(P, 1), { at: P }), P);
  file.close();
  await fs.unmount();
  assertCleanImage(device);
  device.close();
});

/** What the table of locks per operation has for swapon and swapoff. */
Deno.test("swapon() asks for the extents with the inode's lock held, swapoff() for no lock", async () => {
  const { device, fs } = await setUp(64 * MiB, new TaskClock());
  await mkswap(fs, "/s", 100);

  const on = await watchLocks(async () => {
    await fs.swapon("/s");
  });
  const taken = [...on.taken].filter((locks) => !locks.includes("directory"));
  assertEquals(
    taken.filter((locks) => !locks.startsWith("i_rwsem exclusive")),
    [],
  );
  assertEquals(taken.includes("i_rwsem exclusive > ILOCK shared"), true);
  assertEquals(taken.some((locks) => locks.includes("ILOCK exclusive")), false);
  const off = await watchLocks(() => fs.swapoff("/s"));
  assertEquals([...off.taken], []);
  await fs.unmount();
  assertCleanImage(device);
  device.close();
});

Deno.test("swapHeader() refuses what is no number of pages", () => {
  for (const pages of [0, 1, 1.5, NaN, -5, 2 ** 33]) {
    assertThrows(() => swapHeader(pages), FsError, "EINVAL");
  }
  for (const pages of [2, 2 ** 32]) {
    const info = new DataView(swapHeader(pages).buffer, 1024);
    assertEquals(info.getUint32(4, true), pages - 1);
  }
});

Deno.test("private pages are swapped out and come back, and swapoff() brings all back", async () => {
  const { device, fs } = await setUp();
  await mkswap(fs, "/s", 100);
  const swap = await fs.swapon("/s");
  const file = await fs.open("/a", all);
  await file.truncate(8 * P);
  const map = file.mmapSync({ write: true, private: true });
  for (let i = 0; i < 8; i++) await map.store(i * P, bytes(P, i + 1));

  await map.advise("pageout", P, 4 * P);
  assertEquals(swap.used, 4);
  const p = new Uint8Array(P);
  await map.load(2 * P, p);
  assertEquals(p, bytes(P, 3));
  assertEquals(swap.used, 3);
  await fs.swapoff("/s");
  for (let i = 0; i < 8; i++) {
    map.loadSync(i * P, p);
    assertEquals(p, bytes(P, i + 1));
  }
  map.unmap();
  file.close();
  await fs.unmount();
  assertCleanImage(device);
  device.close();
});

Deno.test("more private pages than memory go to a swap file", async () => {
  const { device, fs } = await setUp(MiB);
  await mkswap(fs, "/s", 1024);
  const swap = await fs.swapon("/s");
  const file = await fs.open("/a", all);
  await file.truncate(3 * MiB);
  const map = file.mmapSync({ write: true, private: true });

  for (let i = 0; i < 768; i++) await map.store(i * P, bytes(P, i & 255));
  assert(swap.used > 400, `${swap.used}`);
  assert(fs.superBlock.mm.nrPages <= 1.1 * 256);
  const p = new Uint8Array(P);
  for (let i = 0; i < 768; i++) {
    await map.load(i * P, p);
    assertEquals(p, bytes(P, i & 255), `page ${i}`);
  }
  map.unmap();
  assertEquals(swap.used, 0);
  await fs.swapoff("/s");
  file.close();
  await fs.unmount();
  assertCleanImage(device);
  device.close();
});

Deno.test("without swap space a private page that has no room is ENOMEM", async () => {
  const { device, fs } = await setUp(MiB);
  const file = await fs.open("/a", all);
  await file.truncate(3 * MiB);
  const map = file.mmapSync({ write: true, private: true });
  let n = 0;
  const store = async () => {
    for (; n < 768; n++) await map.store(n * P, bytes(P, 1));
  };
  assertEquals(await codeOfAsync(store), "ENOMEM");
  assert(n > 200);
  map.unmap();
  file.close();
  await fs.unmount();
  assertCleanImage(device);
  device.close();
});
