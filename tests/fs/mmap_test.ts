/**
 * Mappings of files as users have them, on a mounted file system.
 */
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { Bio, REQ_OP_READ, submitBioWait } from "../../block/mod.ts";
import {
  createNvme,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FsError,
  type FsFile,
  MemoryFault,
  type MemoryMapping,
  mkfsXfs,
  type MmapAdvice,
  type MmapOptions,
  mount,
  type MountOptions,
  type NvmePresetName,
  VirtualClock,
  xfs,
} from "../../mod.ts";
import { codeOf, codeOfAsync } from "./ramfs.ts";
import { assertCleanImage } from "./xfs/clean.ts";

const P = 4096;
const MiB = 2 ** 20;
const all = { read: true, write: true, create: true };

interface Options extends MountOptions {
  preset?: NvmePresetName;
  blockSize?: number;
  size?: number;
}

async function setUp(options: Options = {}) {
  const { preset = "null", blockSize = 4096, size = 64 * MiB, ...rest } =
    options;
  const clock = new VirtualClock();
  const device = createNvme(clock, { size, preset });
  await mkfsXfs(device, { blockSize });
  const fs = await mount(device, xfs, rest);
  const file = await fs.open("/a", all);
  return { clock, device, fs, file };
}

type Stack = Awaited<ReturnType<typeof setUp>>;

async function tearDown({ fs, file, device }: Stack): Promise<void> {
  file[Symbol.dispose]();
  await fs.unmount();
  assertCleanImage(device);
  device.close();
}

function bytes(len: number, value: number): Uint8Array {
  return new Uint8Array(len).fill(value);
}

function load(map: MemoryMapping, offset: number, len: number): Uint8Array {
  const p = new Uint8Array(len);
  map.loadSync(offset, p);
  return p;
}

function read(file: FsFile, at: number, len: number): Uint8Array {
  const p = new Uint8Array(len);
  return p.subarray(0, file.readSync(p, { at }) ?? 0);
}

/** The fault that an access meets. */
function faultOf(access: () => unknown): [string, number] {
  const fault = assertThrows(access);
  assertInstanceOf(fault, MemoryFault);
  assertInstanceOf(fault, FsError);
  assertEquals(fault.code, "EFAULT");
  return [fault.signal, fault.offset];
}

Deno.test("store() and load() go to the file and come from it", async () => {
  const s = await setUp();
  await s.file.truncate(3 * P);
  const map = await s.file.mmap({ write: true });
  assertEquals(map.length, 3 * P);

  await map.store(P - 2, bytes(P, 7));
  const p = new Uint8Array(P + 4);
  await map.load(P - 4, p);

  const want = bytes(P + 4, 7);
  want.fill(0, 0, 2);
  want.fill(0, P + 2);
  assertEquals(p, want);
  assertEquals(read(s.file, P - 4, P + 4), want);
  s.file.writeSync(bytes(4, 8), { at: P });
  assertEquals(load(map, P, 5), Uint8Array.of(8, 8, 8, 8, 7));
  map.unmap();
  await tearDown(s);
});

Deno.test("mmap() refuses what mmap(2) refuses", async () => {
  const s = await setUp();
  await s.file.truncate(P);
  const reader = await s.fs.open("/a");
  const writer = await s.fs.open("/a", { write: true });
  const codes: [FsFile, MmapOptions, string | null][] = [
    [s.file, { length: 0 }, "EINVAL"],
    [s.file, { offset: P }, "EINVAL"],
    [s.file, { offset: 100, length: P }, "EINVAL"],
    [s.file, { offset: -P, length: P }, "EINVAL"],
    [s.file, { offset: 2 ** 53 - P, length: P }, "EOVERFLOW"],
    [s.file, { length: 1.5 }, "EINVAL"],
    [s.file, { size: P } as MmapOptions, "EINVAL"],
    [s.file, { write: 1 } as unknown as MmapOptions, "EINVAL"],
    [reader, { write: true }, "EACCES"],
    [reader, { write: true, private: true }, null],
    [reader, {}, null],
    [writer, {}, "EACCES"],
    [s.file, { offset: 16 * P, length: P }, null],
  ];
  for (const [file, options, code] of codes) {
    let got: string | null = null;
    try {
      (await file.mmap(options)).unmap();
    } catch (e) {
      got = (e as FsError).code;
    }
    assertEquals(got, code, Deno.inspect(options));
  }
  reader.close();
  writer.close();
  await tearDown(s);
  assertEquals(codeOf(() => s.file.mmapSync()), "EBADF");
});

Deno.test("an access beyond the end of the file is SIGBUS, what lies before is done", async () => {
  const s = await setUp();
  s.file.writeSync(bytes(P + 10, 5), { at: 0 });
  const map = s.file.mmapSync({ length: 4 * P, write: true });

  const p = bytes(3 * P, 9);
  const fault = await assertRejects(() => map.load(0, p), MemoryFault);
  assertEquals([fault.signal, fault.offset], ["SIGBUS", 2 * P]);
  assertEquals(
    fault.message,
    'Cannot load from "/a": SIGBUS at offset 8192, beyond the end of the file, which is 4106 bytes: EFAULT (Bad address)',
  );
  assertEquals(p.subarray(P + 9, P + 12), Uint8Array.of(5, 0, 0));
  assertEquals(p.subarray(2 * P), bytes(P, 9));
  assertEquals(faultOf(() => map.storeSync(P + 5, bytes(P, 6))), [
    "SIGBUS",
    2 * P,
  ]);
  assertEquals(load(map, P + 4, 3), Uint8Array.of(5, 6, 6));
  // The file has not grown, and what was stored beyond its end goes.
  assertEquals(s.file.statSync().size, P + 10);
  await map.sync();
  assertEquals(load(map, P + 9, 3), Uint8Array.of(6, 0, 0));
  map.unmap();
  await tearDown(s);
});

Deno.test("an access that the mapping does not allow is SIGSEGV", async () => {
  const s = await setUp();
  await s.file.truncate(2 * P);
  const map = s.file.mmapSync({ length: P });
  assertEquals(faultOf(() => map.storeSync(5, bytes(1, 1))), ["SIGSEGV", 5]);
  assertEquals(faultOf(() => load(map, P - 1, 2)), ["SIGSEGV", P]);
  assertEquals(faultOf(() => load(map, 2 * P, 1)), ["SIGSEGV", 2 * P]);
  assertEquals(faultOf(() => map.pageSync(0, true)), ["SIGSEGV", 0]);
  map.unmap();
  assertEquals(faultOf(() => load(map, 0, 1)), ["SIGSEGV", 0]);
  assertEquals(codeOf(() => map.unmap()), "EINVAL");
  assertEquals(codeOf(() => map.loadSync(-1, bytes(1, 0))), "EINVAL");
  assertEquals(codeOf(() => map.loadSync(0.5, bytes(1, 0))), "EINVAL");
  const none = null as unknown as Uint8Array;
  assertEquals(await codeOfAsync(() => map.load(0, none)), "EFAULT");
  await tearDown(s);
});

Deno.test("a store without space is SIGBUS, and the file is as before", async () => {
  const s = await setUp({ size: 16 * MiB });
  await s.file.truncate(16 * MiB);
  const map = s.file.mmapSync({ write: true });
  const page = bytes(P, 3);
  let stored = 0;
  const fault = assertThrows(() => {
    for (; stored < 4096; stored++) map.storeSync(stored * P, page);
  }, MemoryFault);
  assertEquals([fault.signal, fault.offset], ["SIGBUS", stored * P]);
  assert(stored > 1000);
  assertEquals(load(map, stored * P, 4), bytes(4, 0));
  await map.sync();
  map.unmap();
  await tearDown(s);
});

Deno.test("pageSync() is the memory itself", async () => {
  const s = await setUp();
  s.file.writeSync(bytes(2 * P, 5), { at: 0 });
  const map = s.file.mmapSync({ write: true });

  const page = map.pageSync(P + 100);
  assertEquals([page.length, page[0]], [P - 100, 5]);
  map.pageSync(P, true)[100] = 6;
  assertEquals(page[0], 6);
  assertEquals(read(s.file, P + 100, 2), Uint8Array.of(6, 5));
  await map.sync();
  map.pageSync(P, true)[100] = 7;
  await map.sync();
  map.unmap();
  s.file.close();
  await s.fs.unmount();
  const fs = await mount(s.device, xfs);
  const again = await fs.open("/a");
  assertEquals(read(again, P + 100, 2), Uint8Array.of(7, 5));
  again.close();
  await fs.unmount();
  assertCleanImage(s.device);
});

Deno.test("what was synced survives a power cut, on blocks of 4096 and 1024 bytes", async () => {
  for (const blockSize of [4096, 1024]) {
    const s = await setUp({ preset: "mlc-970pro", blockSize });
    await s.file.truncate(4 * P);
    const map = s.file.mmapSync({ write: true });
    await map.store(100, bytes(2 * P, 7));
    await map.sync();
    await map.store(P, bytes(P, 8));
    const [extent] = await s.file.fiemap();

    s.device.powerCut({ keep: "none" });
    map.unmap();
    s.file.close();
    await s.fs.unmount();
    s.device.powerOn();
    const { logical, physical, length } = extent!;
    assertEquals([logical, length], [0, 3 * P], `${blockSize}`);
    const onDevice = new Uint8Array(length);
    const bio = new Bio(s.device, REQ_OP_READ);
    bio.sector = physical / 512;
    bio.addData(onDevice, 0, length);
    assertEquals(await submitBioWait(bio), 0);
    const want = bytes(length, 0);
    want.fill(7, 100, 100 + 2 * P);
    assertEquals(onDevice, want, `${blockSize}`);
    s.device.close();
  }
});

Deno.test("sync() takes the arguments of msync(2)", async () => {
  const s = await setUp();
  await s.file.truncate(4 * P);
  const map = s.file.mmapSync({ write: true });
  const dirty = () => s.fs.superBlock.mm.nrDirty;
  map.storeSync(0, bytes(4 * P, 1));

  await map.sync({ async: true });
  assertEquals(dirty(), 4);
  await map.sync({ offset: P, length: 10, invalidate: true });
  assertEquals(dirty(), 3);
  map.syncSync({ offset: 2 * P });
  assertEquals(dirty(), 1);
  assertEquals(await codeOfAsync(() => map.sync({ offset: 5 })), "EINVAL");
  assertEquals(
    await codeOfAsync(() => map.sync({ offset: P, length: 4 * P })),
    "ENOMEM",
  );
  const own = s.file.mmapSync({ write: true, private: true });
  own.storeSync(0, bytes(P, 2));
  await own.sync();
  assertEquals(dirty(), 1);
  own.unmap();
  map.unmap();
  await tearDown(s);
});

Deno.test("truncate() and a punched hole show in a mapping", async () => {
  const s = await setUp();
  s.file.writeSync(bytes(8 * P, 5), { at: 0 });
  const map = s.file.mmapSync({ write: true });
  const own = s.file.mmapSync({ write: true, private: true });
  own.storeSync(2 * P, bytes(4 * P, 6));
  load(map, 0, 8 * P);

  const punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  s.file.fallocateSync(punch, P + 100, 2 * P);
  assertEquals(load(map, P + 98, 4), Uint8Array.of(5, 5, 0, 0));
  assertEquals(load(map, 3 * P + 98, 4), Uint8Array.of(0, 0, 5, 5));
  assertEquals(load(own, 2 * P, 4), bytes(4, 6));

  await s.file.truncate(4 * P + 2);
  assertEquals(load(map, 4 * P, 4), Uint8Array.of(5, 5, 0, 0));
  assertEquals(faultOf(() => load(map, 5 * P, 1)), ["SIGBUS", 5 * P]);
  assertEquals(faultOf(() => load(own, 5 * P, 1)), ["SIGBUS", 5 * P]);
  assertEquals(load(own, 4 * P, 4), bytes(4, 6));
  await s.file.truncate(8 * P);
  assertEquals(load(map, 5 * P, 4), bytes(4, 0));
  own.unmap();
  map.unmap();
  await tearDown(s);
});

Deno.test("direct I/O and a mapping of the same file agree", async () => {
  const s = await setUp({ preset: "mlc-970pro" });
  const direct = await s.fs.open("/a", { ...all, direct: true });
  await direct.write(bytes(4 * P, 1), { at: 0 });
  const map = await direct.mmap({ write: true });
  await map.store(P, bytes(P, 2));

  const p = new Uint8Array(P);
  await direct.read(p, { at: P });
  assertEquals(p, bytes(P, 2));
  await direct.write(bytes(P, 3), { at: P });
  await map.load(P, p);
  assertEquals(p, bytes(P, 3));
  await direct.write(bytes(P, 4), { at: 2 * P });
  await map.store(2 * P, bytes(1, 5));
  await direct.read(p, { at: 2 * P });
  assertEquals(p.subarray(0, 2), Uint8Array.of(5, 4));
  map.unmap();
  direct.close();
  await tearDown(s);
});

Deno.test("a store moves mtime and ctime when the page becomes dirty, mmap() atime", async () => {
  const s = await setUp();
  await s.file.truncate(2 * P);
  const stat = () => {
    const { atime, mtime, ctime } = s.file.statSync();
    return [atime, mtime, ctime].map((t) => t!.getTime());
  };
  const wait = () => s.clock.sleep(1e9);
  await wait();
  const before = stat();
  const map = s.file.mmapSync({ write: true });
  const mapped = stat();
  assert(mapped[0]! > before[0]!);
  assertEquals(mapped.slice(1), before.slice(1));

  await wait();
  await map.store(0, bytes(1, 1));
  const stored = stat();
  assert(stored[1]! > mapped[1]!);
  assertEquals(stored[1], stored[2]);
  await wait();
  await map.store(1, bytes(1, 1));
  assertEquals(stat(), stored);
  await map.sync();
  await map.store(1, bytes(1, 2));
  assert(stat()[1]! > stored[1]!);
  map.unmap();
  await tearDown(s);
});

Deno.test("a mapping keeps its file open, and the file system mounted", async () => {
  const s = await setUp();
  await s.file.write(bytes(P, 1), { at: 0 });
  const map = s.file.mmapSync({ write: true });
  await s.fs.unlink("/a");
  s.file.close();

  assertEquals(await codeOfAsync(() => s.fs.unmount()), "EBUSY");
  map.storeSync(0, bytes(1, 2));
  await map.sync();
  assertEquals(load(map, 0, 2), Uint8Array.of(2, 1));
  const { blocksFree } = s.fs.statfs();
  map[Symbol.dispose]();
  await s.fs.sync();
  assertEquals(s.fs.statfs().blocksFree, blocksFree + 1);
  await tearDown(s);
});

for (const kind of ["store", "advise", "sync"] as const) {
  Deno.test(`MemoryMapping.${kind}() keeps the file open until it ends, unmapped or not`, async () => {
    const s = await setUp({ preset: "mlc-970pro" });
    await s.file.write(bytes(4 * P, 4), { at: 0 });
    await s.file.sync();
    await s.file.advise("dontneed");
    const map = s.file.mmapSync({ write: true });
    if (kind === "sync") map.storeSync(0, bytes(P, 5));
    const going = {
      store: () => map.store(3 * P, bytes(P, 5)),
      advise: () => map.advise("populate-write"),
      sync: () => map.sync(),
    }[kind]();

    map.unmap();
    s.file.close();
    assertEquals(await codeOfAsync(() => s.fs.unmount()), "EBUSY");

    const code = await codeOfAsync(() => going);
    assertEquals(code, kind === "sync" ? "none" : "EFAULT");
    await tearDown(s);
  });
}

/*
 * Goal: accesses that fault at the same time get on, however little memory there is.
 * Method: loads and stores of several tasks over a file that is larger than memory,
 *   whose pages are holes, written, or copies of a private mapping's own.
 * Oracle: an array. EAGAIN would mean that one has not got on.
 */
for (const shared of [true, false]) {
  const kind = shared ? "a shared" : "a private";
  Deno.test(`load() and store() to ${kind} mapping get on in 64 KiB of memory`, async () => {
    const s = await setUp({ memory: 16 * P, blockSize: 1024 });
    await s.file.truncate(64 * P);
    await s.file.write(bytes(20 * P, 4), { at: 10 * P });
    await s.file.sync();
    const map = s.file.mmapSync({ write: true, private: !shared });
    const want = bytes(64 * P, 0);
    want.fill(4, 10 * P, 30 * P);

    const task = async (first: number) => {
      const p = new Uint8Array(P);
      for (let n = 0; n < 60; n++) {
        const page = first + 8 * (n * 5 % 8);
        const store = shared ? n % 3 === 0 : n % 20 === 0;
        if (store) {
          want.fill(n + 5, page * P, page * P + 100);
          await map.store(page * P, bytes(100, n + 5));
        }
        await map.load(page * P, p);
        assertEquals(p, want.subarray(page * P, page * P + P));
      }
    };
    await Promise.all([0, 1, 2, 3, 4, 5].map(task));

    map.unmap();
    await tearDown(s);
  });
}

Deno.test("loadSync() throws EAGAIN where another task has to go on first", async () => {
  const s = await setUp();
  await s.file.truncate(P);
  const map = s.file.mmapSync();
  const { invalidateLock } = s.fs.superBlock.inodes.get(
    s.file.statSync().ino!,
  )!.mapping;
  await invalidateLock.downWrite();

  assertEquals(codeOf(() => load(map, 0, 1)), "EAGAIN");
  const late = map.load(0, new Uint8Array(1));
  invalidateLock.upWrite();
  await late;
  assertEquals(load(map, 0, 1), bytes(1, 0));
  map.unmap();
  await tearDown(s);
});

Deno.test("loadSync() reads from a device that takes its time", async () => {
  const s = await setUp({ preset: "mlc-970pro" });
  await s.file.write(bytes(64 * P, 4), { at: 0 });
  await s.file.sync();
  await s.file.advise("dontneed");
  const map = s.file.mmapSync({ write: true });
  const before = s.clock.now();
  assertEquals(load(map, 40 * P, P), bytes(P, 4));
  assert(s.clock.now() > before);
  map.storeSync(P, bytes(1, 1));
  map.syncSync();
  map.unmap();
  await tearDown(s);
});

Deno.test("advise() does what madvise(2) does", async () => {
  const s = await setUp({ preset: "mlc-970pro" });
  await s.file.write(bytes(256 * P, 4), { at: 0 });
  await s.file.sync();
  const drop = () => s.file.advise("dontneed");
  const cached = () => s.fs.superBlock.mm.nrPages;
  await drop();
  assertEquals(cached(), 0);
  const map = s.file.mmapSync({ write: true });

  await map.advise("random");
  await map.load(100 * P, new Uint8Array(1));
  assertEquals(cached(), 1);
  await map.advise("willneed", 200 * P, 8 * P);
  assertEquals(cached(), 9);
  await map.advise("populate-read", 0, 4 * P);
  assertEquals(cached(), 13);
  await map.advise("populate-write", 2 * P, 2 * P);
  assertEquals(s.fs.superBlock.mm.nrDirty, 2);
  await map.advise("dontneed");
  await map.sync();
  await drop();
  assertEquals(cached(), 0);
  await map.advise("sequential");
  await map.load(8 * P, new Uint8Array(1));
  assert(cached() >= 32);
  await map.advise("normal");

  const own = s.file.mmapSync({ write: true, private: true });
  await own.store(0, bytes(P, 9));
  own.adviseSync("dontneed", 0, P);
  assertEquals(load(own, 0, 1), bytes(1, 4));

  const codes: [MmapAdvice, number?, number?][] = [
    ["never" as MmapAdvice],
    ["random", P],
    ["dontneed", 5],
    ["dontneed", 256 * P, P],
  ];
  const got = [];
  for (const args of codes) {
    got.push(await codeOfAsync(() => map.advise(...args)));
  }
  assertEquals(got, ["EINVAL", "EINVAL", "EINVAL", "ENOMEM"]);
  own.unmap();
  map.unmap();
  await tearDown(s);
});

Deno.test("an access is SIGBUS where the device has gone, and what is in memory stays", async () => {
  const s = await setUp({ preset: "mlc-970pro" });
  await s.file.write(bytes(64 * P, 4), { at: 0 });
  await s.file.sync();
  await s.file.advise("dontneed");
  const map = s.file.mmapSync();
  await map.advise("random");
  await map.load(0, new Uint8Array(1));
  s.device.disconnect();

  const fault = await assertRejects(
    () => map.load(3 * P, new Uint8Array(1)),
    MemoryFault,
    "it cannot be read",
  );
  assertEquals([fault.signal, fault.offset], ["SIGBUS", 3 * P]);
  assertEquals(load(map, 0, 1), bytes(1, 4));
  map.unmap();
  s.file.close();
  await s.fs.unmount();
  s.device.close();
});

for (const sync of [true, false]) {
  const name = sync ? "storeSync" : "store";
  Deno.test(`MemoryMapping.${name}() is held up where too much is dirty`, async () => {
    const s = await setUp({ memory: 100 * P, preset: "mlc-970pro" });
    await s.file.truncate(400 * P);
    const map = s.file.mmapSync({ write: true });
    const { mm } = s.fs.superBlock;
    let most = 0;
    for (let n = 0; n < 400; n++) {
      if (sync) map.storeSync(n * P, bytes(10, 1));
      else await map.store(n * P, bytes(10, 1));
      most = Math.max(most, mm.nrDirty);
    }
    assert(most > 1 && most <= mm.dirtyThresh + 1, `${most} pages are dirty`);
    map.unmap();
    await tearDown(s);
  });
  Deno.test(`MemoryMapping.${name}() gets on where its folio is above the dirty limit alone`, async () => {
    // Three pages may be dirty, and the file is one folio of four.
    const stack = await setUp({ memory: 16 * P });
    await stack.file.write(bytes(4 * P, 1), { at: 0 });
    await stack.file.sync();
    using map = stack.file.mmapSync({ write: true });

    if (sync) map.storeSync(100, bytes(3, 2));
    else await map.store(100, bytes(3, 2));

    assertEquals(load(map, 99, 5), new Uint8Array([1, 2, 2, 2, 1]));
    map.unmap();
    await tearDown(stack);
  });
}
