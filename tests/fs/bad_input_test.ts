/**
 * What a user can get wrong, at every function of the public face: the error has
 * Linux's code and names the value, nothing has been written, and what was called
 * still works.
 */
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import {
  createNvme,
  FileMedia,
  FsError,
  type FsFile,
  MemoryMedia,
  mkfsXfs,
  type Mount,
  mount,
  type NvmeDevice,
  RealClock,
  SEEK_CUR,
  SEEK_DATA,
  SEEK_END,
  SEEK_SET,
  VirtualClock,
  xfs,
} from "../../mod.ts";
import {
  BadLimit,
  Bio,
  BLK_STS_IOERR,
  BLK_STS_NOTSUPP,
  BLK_STS_OFFLINE,
  BLK_STS_OK,
  blkdevIssueFlush,
  blkdevIssueZeroout,
  blkStatusToErrno,
  blkValidateLimits,
  REQ_OP_READ,
  REQ_OP_SECURE_ERASE,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  submitBioWait,
} from "../../block/mod.ts";
import { EINVAL, EIO } from "../../lib/errno.ts";
import { type RamHooks, ramMount } from "./ramfs.ts";
import { assertCleanImage } from "./xfs/clean.ts";

const MiB = 2 ** 20;

/** A value, the code that it is refused with, and what the message says of it. */
type Bad = [value: unknown, code: string, text: string];

/** No number at all, or none that counts anything. */
const NO_NUMBER: Bad[] = [
  ["1", "EINVAL", '"1"'],
  ["", "EINVAL", '""'],
  [NaN, "EINVAL", "NaN"],
  [Infinity, "EINVAL", "Infinity"],
  [-Infinity, "EINVAL", "-Infinity"],
  [null, "EINVAL", "null"],
  [1.5, "EINVAL", "1.5"],
  [5n, "EINVAL", "5n"],
  [true, "EINVAL", "true"],
  [{}, "EINVAL", "{}"],
  [[4096], "EINVAL", "[ 4096 ]"],
  [Symbol("s"), "EINVAL", "Symbol(s)"],
  [Object.create(null), "EINVAL", "null prototype"],
];

const NO_OFFSET: Bad[] = [
  ...NO_NUMBER,
  [-1, "EINVAL", "-1"],
  [-(2 ** 53), "EINVAL", "-9007199254740992"],
  [2 ** 53, "EFBIG", "9007199254740992"],
];

/** A number from 1 on is asked for. */
const NO_COUNT: Bad[] = [
  ...NO_NUMBER,
  [0, "EINVAL", "0"],
  [-1, "EINVAL", "-1"],
  [2 ** 53, "EINVAL", "9007199254740992"],
];

const NO_FLAG: Bad[] = [
  ["yes", "EINVAL", '"yes"'],
  [1, "EINVAL", "1"],
  [0, "EINVAL", "0"],
  [null, "EINVAL", "null"],
  [{}, "EINVAL", "{}"],
];

const NO_OPTIONS: Bad[] = [
  [null, "EINVAL", "options are null"],
  ["r", "EINVAL", 'options are "r"'],
  [5, "EINVAL", "options are 5"],
  [true, "EINVAL", "options are true"],
  [() => 1, "EINVAL", "options are [Function"],
  [{ bogus: 1 }, "EINVAL", '"bogus"'],
];

const NO_STRING: Bad[] = [
  [undefined, "EINVAL", "undefined"],
  [null, "EINVAL", "null"],
  [5, "EINVAL", "5"],
  [{}, "EINVAL", "{}"],
  [["/a"], "EINVAL", '[ "/a" ]'],
  [Symbol("s"), "EINVAL", "Symbol(s)"],
  [new URL("file:///a"), "EINVAL", "file:///a"],
];

const NO_BUFFER: Bad[] = [
  [undefined, "EFAULT", "undefined"],
  [null, "EFAULT", "null"],
  ["text", "EFAULT", '"text"'],
  [512, "EFAULT", "512"],
  [[1, 2], "EFAULT", "[ 1, 2 ]"],
  [new ArrayBuffer(4), "EFAULT", "ArrayBuffer"],
  [new DataView(new ArrayBuffer(4)), "EFAULT", "DataView"],
  [new Uint16Array(4), "EFAULT", "Uint16Array"],
];

async function refused(
  call: () => unknown,
  code: string,
  ...texts: string[]
): Promise<void> {
  let error: unknown = null;
  try {
    await call();
  } catch (e) {
    error = e;
  }
  const what = `${code} ${texts.join(" ")}`;
  assert(error instanceof FsError, `${what}: ${String(error)}`);
  assertEquals(error.code, code, `${what}: ${error.message}`);
  for (const text of texts) assertStringIncludes(error.message, text);
}

/** Calls a method that is refused, and its synchronous twin if it has one. */
async function bothRefused(
  target: object,
  method: string,
  args: unknown[],
  code: string,
  ...texts: string[]
): Promise<void> {
  const loose = target as Record<string, (...args: unknown[]) => unknown>;
  await refused(() => loose[method]!(...args), code, ...texts);
  const twin = `${method}Sync`;
  if (twin in loose) await refused(() => loose[twin]!(...args), code, ...texts);
}

const ALL = { read: true, write: true, create: true };

interface Stack {
  device: NvmeDevice;
  fs: Mount;
  file: FsFile;
}

/** A file of 10000 bytes, `/a`, and a directory, `/d`. Afterwards they are as they
 * were, nothing has been written, and all of it works. */
async function unharmed(work: (stack: Stack) => Promise<void>): Promise<void> {
  using device = createNvme(new VirtualClock(), { size: 32 * MiB });
  await mkfsXfs(device);
  const fs = await mount(device, xfs);
  const data = Uint8Array.from({ length: 10_000 }, (_, i) => i * 7);
  fs.mkdirSync("/d");
  const file = fs.openSync("/a", ALL);
  file.writeSync(data);
  fs.syncSync();
  const { ios } = device.stats.write;
  const free = fs.statfs().blocksFree;

  await work({ device, fs, file });

  assertEquals(device.clock.inSync, false);
  fs.syncSync();
  // Access times may have moved: that is one inode, and one block of them.
  assert(device.stats.write.ios - ios <= 1, "something has been written");
  assertEquals(fs.statfs().blocksFree, free);
  const read = new Uint8Array(20_000);
  assertEquals(file.readSync(read, { at: 0 }), 10_000);
  assertEquals(read.subarray(0, 10_000), data);
  assertEquals([...fs.readDirSync("/")].map((e) => e.name), ["d", "a"]);
  assertEquals(file.writeSync(data, { at: 10_000 }), 10_000);
  assertEquals(await file.read(read, { at: 0 }), 20_000);
  file.close();
  await fs.unmount();
  assertCleanImage(device);
}

Deno.test("createNvme() refuses options that cannot be, naming them", async () => {
  const clock = new VirtualClock();
  const size = 16 * MiB;
  const make = (options: unknown) => createNvme(clock, options as never);
  const extra: Record<string, Bad[]> = {
    size: [...NO_COUNT, [512, "EINVAL", "512"], [4097, "EINVAL", "4097"]],
    queues: [...NO_COUNT, [129, "EINVAL", "129"]],
    depth: [...NO_COUNT, [4096, "EINVAL", "4096"]],
    seed: [...NO_NUMBER, [2 ** 53, "EINVAL", "9007199254740992"]],
    logicalBlockSize: [...NO_COUNT, [1024, "EINVAL", "1024"]],
    preset: [
      ...NO_NUMBER,
      ["Optane", "EINVAL", '"Optane" (there are null, optane,'],
      ["toString", "EINVAL", '"toString"'],
    ],
    media: [
      ...NO_NUMBER,
      [{ size }, "EINVAL", "size: 16777216"],
      [new MemoryMedia(4096), "EINVAL", "16777216 is not the media's, 4096"],
    ],
  };
  for (const [name, rows] of Object.entries(extra)) {
    for (const [value, code, text] of rows) {
      await refused(() => make({ size, [name]: value }), code, name, text);
    }
  }
  for (const [value, code, text] of NO_OPTIONS) {
    await refused(() => make(value), code, text);
  }
  await refused(() => make({}), "EINVAL", "neither size nor media");
  await refused(
    () => make({ size: 4608, logicalBlockSize: 4096 }),
    "EINVAL",
    "size 4608 is not a multiple of 4096",
  );
  for (const value of [undefined, null, 5, {}, Date]) {
    await refused(
      () => createNvme(value as never, { size }),
      "EINVAL",
      "is not a clock",
    );
  }
});

Deno.test("MemoryMedia refuses sizes that are none", async () => {
  for (const [value, code, text] of NO_COUNT) {
    await refused(() => new MemoryMedia(value as never), code, text);
  }
});

Deno.test("FileMedia.open() refuses what it cannot use, and leaves the host as it was", async () => {
  const dir = Deno.makeTempDirSync();
  const path = `${dir}/image`;
  const open = (path: unknown, options?: unknown) =>
    FileMedia.open(path as never, options as never);
  try {
    Deno.writeFileSync(`${dir}/there`, new Uint8Array(5000).fill(1));
    Deno.mkdirSync(`${dir}/dir`);
    for (const [value, code, text] of NO_COUNT) {
      await refused(() => open(path, { size: value }), code, text);
    }
    for (const [value, code, text] of NO_FLAG) {
      const options = { size: 4096, create: value };
      await refused(() => open(path, options), code, "create", text);
    }
    for (const [value, code, text] of NO_OPTIONS) {
      await refused(() => open(path, value), code, text);
    }
    for (const [value, code, text] of NO_STRING) {
      await refused(() => open(value, { size: 4096 }), code, text);
    }
    const rows: [string, unknown, string, string][] = [
      ["image", {}, "ENOENT", path],
      ["image", { size: 4096, create: false }, "ENOENT", path],
      ["image", { size: 2 ** 53 - 1 }, "EFBIG", "9007199254740991"],
      ["there", { size: 4096 }, "EINVAL", "5000 bytes, not 4096"],
      ["dir", { size: 4096 }, "EISDIR", "dir"],
      ["none/image", { size: 4096 }, "ENOENT", "none/image"],
      ["there/image", { size: 4096 }, "ENOTDIR", "there/image"],
      ["a\0b", { size: 4096 }, "EINVAL", "a\0b"],
      ["x".repeat(300), { size: 4096 }, "ENAMETOOLONG", "xxx"],
    ];
    for (const [name, options, code, text] of rows) {
      await refused(() => open(`${dir}/${name}`, options), code, text);
    }
    await refused(() => open("", { size: 4096 }), "ENOENT", '""');
    await refused(() => open("/dev/null", { size: 4096 }), "EINVAL", "4096");
    const names = [...Deno.readDirSync(dir)].map((entry) => entry.name);
    assertEquals(names.sort(), ["dir", "there"]);
    assertEquals(
      Deno.readFileSync(`${dir}/there`),
      new Uint8Array(5000).fill(1),
    );
    // An image of odd size can be opened, but no device has that size.
    const odd = open(`${dir}/there`);
    const make = () => createNvme(new VirtualClock(), { media: odd });
    await refused(make, "EINVAL", "size 5000 is not a multiple of 512");
    odd.close();
  } finally {
    Deno.removeSync(dir, { recursive: true });
  }
});

Deno.test("mkfsXfs() refuses a device with zones", async () => {
  const device = createNvme(new VirtualClock(), {
    size: 4 * 2 ** 30,
    preset: "zns",
  });
  const error = await assertRejects(() => mkfsXfs(device), FsError, "zones");
  assertEquals(error.code, "EOPNOTSUPP");
  device.close();
});

Deno.test("mkfsXfs() refuses what it cannot make, and writes nothing", async () => {
  const clock = new VirtualClock();
  using device = createNvme(clock, { size: 32 * MiB });
  const make = (options: unknown) => mkfsXfs(device, options as never);
  const rows: Record<string, Bad[]> = {
    blockSize: [
      ...NO_COUNT,
      [512, "EINVAL", "512"],
      [5000, "EINVAL", "5000"],
      [131072, "EINVAL", "131072"],
    ],
    sectorSize: [
      ...NO_COUNT,
      [256, "EINVAL", "256"],
      [8192, "EINVAL", "8192 is not a power of two from 512 to 4096"],
    ],
    inodeSize: [
      ...NO_COUNT,
      [256, "EINVAL", "256"],
      [4096, "EINVAL", "4096 is not a power of two from 512 to 2048"],
    ],
    dirBlockSize: [
      ...NO_COUNT,
      [2048, "EINVAL", "2048 is not a power of two from 4096 to 65536"],
    ],
    agCount: [...NO_COUNT, [3, "EINVAL", "3 is not a number from 1 to 2"]],
    agSize: [
      ...NO_COUNT,
      [4097, "EINVAL", "4097 is no multiple of 4096"],
      [8 * MiB, "EINVAL", `${8 * MiB}, below ${16 * MiB}`],
    ],
    logSize: [
      ...NO_COUNT,
      [4097, "EINVAL", "4097 is no multiple of 4096"],
      [MiB, "EINVAL", `${MiB} is below`],
      [32 * MiB, "EINVAL", `${32 * MiB} is above`],
    ],
    imaxPct: [
      ...NO_NUMBER,
      [-1, "EINVAL", "-1"],
      [101, "EINVAL", "101 is not a number from 0 to 100"],
    ],
    stripeUnit: [...NO_COUNT, [4096, "EINVAL", "stripeWidth go together"]],
    stripeWidth: [...NO_COUNT, [4096, "EINVAL", "stripeWidth go together"]],
    logStripeUnit: [...NO_COUNT, [512, "EINVAL", "512 is no multiple of 4096"]],
    finobt: NO_FLAG,
    sparseInodes: NO_FLAG,
    reflink: NO_FLAG,
    rmapbt: NO_FLAG,
    bigtime: NO_FLAG,
    inobtcount: NO_FLAG,
    nrext64: NO_FLAG,
    uuid: [
      ...NO_STRING.slice(1),
      ["", "EINVAL", '""'],
      ["0123456789abcdef", "EINVAL", "neither 16 bytes nor 32 digits"],
      [new Uint8Array(15), "EINVAL", "neither 16 bytes nor 32 digits"],
    ],
    seed: NO_NUMBER,
    label: [
      ...NO_STRING.slice(1),
      [NaN, "EINVAL", "NaN"],
      ["thirteen-byte", "EINVAL", '"thirteen-byte" is longer than 12'],
      ["ééééééé", "EINVAL", "ééééééé"],
      ["a\0b", "EINVAL", '"a\\x00b"'],
      ["\ud800", "EINVAL", "label"],
    ],
  };
  for (const [name, bad] of Object.entries(rows)) {
    for (const [value, code, text] of bad) {
      await refused(() => make({ [name]: value }), code, name, text);
    }
  }
  for (const [value, code, text] of NO_OPTIONS) {
    await refused(() => make(value), code, text);
  }
  for (const value of [undefined, null, 5, {}, device.controller.media]) {
    await refused(
      () => mkfsXfs(value as never),
      "EINVAL",
      "is not a block device",
    );
  }
  for (const size of [4096, 16 * MiB - 512]) {
    using small = createNvme(clock, { size });
    await refused(() => mkfsXfs(small), "EINVAL", `device of ${size} bytes`);
    assertEquals(small.stats.write.ios, 0);
  }
  using coarse = createNvme(clock, { size: 32 * MiB, logicalBlockSize: 4096 });
  await refused(
    () => mkfsXfs(coarse, { blockSize: 1024 }),
    "EINVAL",
    "blockSize 1024 is below the device's logical block size 4096",
  );
  await refused(
    () => mkfsXfs(coarse, { sectorSize: 512 }),
    "EINVAL",
    "sectorSize 512 is not a power of two from 4096",
  );
  const together = [
    [{ blockSize: 1024, inodeSize: 1024 }, "1024 is above half a block"],
    [{ agCount: 1, agSize: 16 * MiB }, "exclude each other"],
    [{ finobt: false, inobtcount: true }, "inobtcount takes finobt"],
    [{ stripeUnit: 8192, stripeWidth: 4096 }, "no multiple of stripeUnit 8192"],
  ] as const;
  for (const [options, text] of together) {
    await refused(() => make(options), "EINVAL", text);
  }
  assertEquals([device.stats.write.ios, coarse.stats.write.ios], [0, 0]);
  await make({});
});

Deno.test("mkfsXfs() takes a device of odd size, and leaves the rest alone", async () => {
  using device = createNvme(new VirtualClock(), { size: 16 * MiB + 3 * 512 });
  await mkfsXfs(device);
  await using fs = await mount(device, xfs);
  assertEquals(fs.statfs().blocks < 4096, true);
});

Deno.test("mkfsXfs() and mount() are EBUSY while the device is in use", async () => {
  await unharmed(async ({ device }) => {
    await refused(() => mkfsXfs(device), "EBUSY", "nvme0n1", "in use");
    await refused(() => mount(device, xfs), "EBUSY", "nvme0n1", "in use");
  });
  using device = createNvme(new VirtualClock(), {
    size: 32 * MiB,
    preset: "optane",
  });
  const made = mkfsXfs(device);
  await refused(() => mkfsXfs(device), "EBUSY", "in use");
  await refused(() => mount(device, xfs), "EBUSY", "in use");
  await made;
  const mounting = mount(device, xfs);
  await refused(() => mkfsXfs(device), "EBUSY", "in use");
  await (await mounting).unmount();
});

Deno.test("mount() refuses what it cannot use, and writes nothing", async () => {
  using device = createNvme(new VirtualClock(), { size: 32 * MiB });
  await mkfsXfs(device);
  const { ios } = device.stats.write;
  const options: Bad[] = [
    ...NO_STRING.slice(1),
    ["nope", "EINVAL", 'unknown mount option "nope"'],
    ["toString", "EINVAL", '"toString"'],
    ["ALLOCSIZE=4k", "EINVAL", '"ALLOCSIZE"'],
    ["allocsize", "EINVAL", "allocsize= "],
    ["allocsize=", "EINVAL", "allocsize= "],
    ["allocsize=2k", "EINVAL", "allocsize=2k"],
    ["allocsize=5k", "EINVAL", "allocsize=5k"],
    ["allocsize=2g", "EINVAL", "allocsize=2g"],
    ["allocsize=-4k", "EINVAL", "allocsize=-4k"],
    ["allocsize= 4k", "EINVAL", "allocsize= 4k"],
    ["allocsize=4kk", "EINVAL", "allocsize=4kk"],
    ["allocsize=0x1000", "EINVAL", "allocsize=0x1000"],
    ["allocsize=4k=3", "EINVAL", "allocsize=4k=3"],
    ["allocsize=4k,allocsize=0", "EINVAL", "allocsize=0"],
  ];
  const memory: Bad[] = [
    ...NO_COUNT,
    [4095, "EINVAL", "4095 is not between 4096 and"],
    [2 ** 40 + 1, "EINVAL", "1099511627777"],
  ];
  for (const [value, code, text] of options) {
    const bad = { options: value as string };
    await refused(() => mount(device, xfs, bad), code, text);
  }
  for (const [value, code, text] of memory) {
    const bad = { memory: value as number };
    await refused(() => mount(device, xfs, bad), code, "memory", text);
  }
  for (const [value, code, text] of NO_OPTIONS) {
    await refused(() => mount(device, xfs, value as never), code, text);
  }
  for (const value of [undefined, null, 5, {}, "xfs"]) {
    const type = value as never;
    await refused(() => mount(device, type), "EINVAL", "file system type");
    await refused(() => mount(type, xfs), "EINVAL", "is not a block device");
  }
  assertEquals(device.stats.write.ios, ios);
  for (const bytes of [4096, 65536, 2 ** 40]) {
    await using fs = await mount(device, xfs, { memory: bytes });
    using file = fs.openSync("/a", ALL);
    assertEquals(await file.write(new Uint8Array(100_000), { at: 1 }), 100_000);
    assertEquals(await file.read(new Uint8Array(100_000), { at: 1 }), 100_000);
  }
});

Deno.test("mount() refuses a device that is too small for a super block, or sectors that are", async () => {
  const clock = new VirtualClock();
  using tiny = createNvme(clock, { size: 4096 });
  await refused(() => mount(tiny, xfs), "EINVAL", "magic 0x00000000");
  // Written in sectors of 512, found on a device of 4096.
  const media = new MemoryMedia(32 * MiB);
  using fine = createNvme(clock, { media });
  await mkfsXfs(fine, { sectorSize: 512 });
  using coarse = createNvme(clock, { media, logicalBlockSize: 4096 });
  await refused(() => mount(coarse, xfs), "ENOSYS", "sectors of 512", "4096");
  assertEquals(coarse.stats.write.ios, 0);
});

Deno.test("a device that is closed answers ENODEV", async () => {
  const clock = new VirtualClock();
  const device = createNvme(clock, { size: 32 * MiB });
  await mkfsXfs(device);
  const fs = await mount(device, xfs);
  using file = fs.openSync("/a", ALL);
  device.close();
  device.close();
  await refused(() => mkfsXfs(createClosed(clock)), "ENODEV", "nvme0n1");
  await refused(() => mount(createClosed(clock), xfs), "ENODEV", "super block");
  file.writeSync(new Uint8Array(100));
  // An error is told once.
  await refused(() => file.sync(), "ENODEV", '"/a"');
  await file.sync();
  const direct = { read: true, write: true, direct: true };
  using raw = fs.openSync("/a", direct);
  const p = new Uint8Array(4096);
  await bothRefused(raw, "write", [p, { at: 0 }], "ENODEV", "4096 bytes at");
  assertEquals(clock.inSync, false);
});

function createClosed(clock: VirtualClock): NvmeDevice {
  const device = createNvme(clock, { size: 32 * MiB });
  device.close();
  return device;
}

Deno.test("every method of a mount refuses paths that are none", async () => {
  const methods = ["open", "mkdir", "rmdir", "unlink", "remove", "stat"];
  methods.push("lstat", "truncate");
  await unharmed(async ({ fs }) => {
    for (const method of methods) {
      for (const [value, code, text] of NO_STRING) {
        await bothRefused(fs, method, [value], code, text);
      }
      const rows: [string, string][] = [
        ["", "ENOENT"],
        ["/a\0", "EINVAL"],
        ["/a/b", "ENOTDIR"],
        ["/x/b", "ENOENT"],
        [`/${"x".repeat(256)}`, "ENAMETOOLONG"],
        [`/${"é".repeat(128)}`, "ENAMETOOLONG"],
        ["/d".repeat(2048), "ENAMETOOLONG"],
        ["\ud800", "EILSEQ"],
      ];
      for (const [path, code] of rows) {
        await bothRefused(fs, method, [path], code);
      }
    }
    for (const [value, code, text] of NO_STRING) {
      for (const method of ["rename", "link"]) {
        await bothRefused(fs, method, [value, "/q"], code, text);
        await bothRefused(fs, method, ["/a", value], code, text);
      }
      await refused(() => Array.fromAsync(fs.readDir(value as never)), code);
      await refused(() => fs.readDirSync(value as never), code, text);
    }
  });
});

Deno.test("every method of a mount answers what Linux does where it cannot be done", async () => {
  await unharmed(async ({ fs }) => {
    const rows: [string, unknown[], string][] = [
      ["open", ["/x"], "ENOENT"],
      ["open", ["/a/"], "ENOTDIR"],
      ["open", ["/a", { write: true, createNew: true }], "EEXIST"],
      ["open", ["/d", { write: true }], "EISDIR"],
      ["open", ["/d", { read: true, truncate: true }], "EISDIR"],
      ["open", ["/d", { read: true, create: true }], "EISDIR"],
      ["open", ["/d", { read: true, direct: true }], "EINVAL"],
      ["open", ["/x/", { write: true, create: true }], "EISDIR"],
      ["mkdir", ["/a"], "EEXIST"],
      ["mkdir", ["/"], "EEXIST"],
      ["mkdir", ["/d/.."], "EEXIST"],
      ["rmdir", ["/"], "EBUSY"],
      ["rmdir", ["/d/."], "EINVAL"],
      ["rmdir", ["/d/.."], "ENOTEMPTY"],
      ["rmdir", ["/a"], "ENOTDIR"],
      ["unlink", ["/d"], "EISDIR"],
      ["unlink", ["/"], "EISDIR"],
      ["unlink", ["/a/"], "ENOTDIR"],
      ["remove", ["/"], "EBUSY"],
      ["rename", ["/x", "/y"], "ENOENT"],
      ["rename", ["/d", "/d/x"], "EINVAL"],
      ["rename", ["/d", "/a"], "ENOTDIR"],
      ["rename", ["/a", "/d"], "EISDIR"],
      ["rename", ["/", "/x"], "EBUSY"],
      ["rename", ["/a", "/d/.."], "EBUSY"],
      ["rename", ["/a", "/a/x"], "ENOTDIR"],
      ["link", ["/a", "/d"], "EEXIST"],
      ["link", ["/d", "/x"], "EPERM"],
      ["link", ["/x", "/y"], "ENOENT"],
      ["truncate", ["/d"], "EISDIR"],
      ["truncate", ["/d", 5], "EISDIR"],
    ];
    for (const [method, args, code] of rows) {
      await bothRefused(fs, method, args, code, `"${args[0]}"`);
    }
    await refused(() => Array.fromAsync(fs.readDir("/a")), "ENOTDIR", '"/a"');
    await refused(() => fs.readDirSync("/a"), "ENOTDIR", '"/a"');
    await refused(() => fs.unmount(), "EBUSY", "1 files are open");
  });
});

Deno.test("open(), mkdir() and truncate() refuse options and lengths that cannot be", async () => {
  const flags = ["read", "write", "append", "truncate", "create", "createNew"];
  flags.push("direct", "sync", "dsync");
  const modes: Bad[] = [
    ...NO_NUMBER,
    [-1, "EINVAL", "-1"],
    [0o10000, "EINVAL", "4096"],
  ];
  await unharmed(async ({ fs }) => {
    for (const flag of flags) {
      for (const [value, code, text] of NO_FLAG) {
        const options = { read: true, [flag]: value };
        await bothRefused(fs, "open", ["/x", options], code, flag, text);
      }
    }
    for (const [mode, code, text] of modes) {
      const options = { ...ALL, mode };
      await bothRefused(fs, "open", ["/x", options], code, "mode", text);
      await bothRefused(fs, "mkdir", ["/x", { mode }], code, "mode", text);
    }
    for (const [value, code, text] of NO_OPTIONS) {
      await bothRefused(fs, "open", ["/x", value], code, text);
      await bothRefused(fs, "mkdir", ["/x", value], code, text);
    }
    await bothRefused(fs, "open", ["/a", {}], "EINVAL", "none of read, write");
    for (const [value, code, text] of NO_OFFSET) {
      await bothRefused(fs, "truncate", ["/a", value], code, "length", text);
    }
  });
});

Deno.test("a mount that is unmounted answers ENODEV", async () => {
  using device = createNvme(new VirtualClock(), { size: 32 * MiB });
  await mkfsXfs(device);
  const fs = await mount(device, xfs);
  await fs.unmount();
  const { ios } = device.stats.write;
  const paths = ["open", "mkdir", "rmdir", "unlink", "remove", "stat", "lstat"];
  for (const method of [...paths, "truncate", "sync"]) {
    await bothRefused(fs, method, ["/a"], "ENODEV", "unmounted");
  }
  for (const method of ["rename", "link"]) {
    await bothRefused(fs, method, ["/a", "/b"], "ENODEV", "unmounted");
  }
  await refused(() => fs.statfs(), "ENODEV", "unmounted");
  await refused(() => fs.unmount(), "ENODEV", "unmounted");
  await refused(() => fs.readDirSync("/"), "ENODEV", "unmounted");
  await refused(() => Array.fromAsync(fs.readDir("/")), "ENODEV", "unmounted");
  await fs[Symbol.asyncDispose]();
  assertEquals(device.stats.write.ios, ios);
});

Deno.test("read() and write() refuse buffers, offsets and options that cannot be", async () => {
  const p = new Uint8Array(512);
  await unharmed(async ({ file }) => {
    for (const method of ["read", "write"]) {
      for (const [value, code, text] of NO_BUFFER) {
        await bothRefused(file, method, [value], code, text);
        await bothRefused(file, method, [value, { at: 0 }], code, text);
      }
      for (const [at, code, text] of NO_OFFSET) {
        await bothRefused(file, method, [p, { at }], code, "offset", text);
      }
      for (const [value, code, text] of NO_OPTIONS) {
        await bothRefused(file, method, [p, value], code, text);
      }
      const flags = ["nowait", "dontcache", "hipri"];
      if (method === "write") flags.push("append", "dsync", "sync", "atomic");
      for (const flag of flags) {
        for (const [value, code, text] of NO_FLAG) {
          const options = { at: 0, [flag]: value };
          await bothRefused(file, method, [p, options], code, flag, text);
        }
      }
      // Linux: a range that ends beyond the largest offset.
      for (const at of [2 ** 53 - 1, 2 ** 53 - 512]) {
        await bothRefused(file, method, [p, { at }], "EINVAL", `${at}`);
      }
    }
    for (const flag of ["append", "dsync", "sync", "atomic"]) {
      const options = { [flag]: true };
      await bothRefused(file, "read", [p, options], "EINVAL", `"${flag}"`);
    }
    const atomic = { at: 0, atomic: true };
    // A block is the unit, and it must not go through the cache.
    await bothRefused(file, "write", [p, atomic], "EINVAL", "512 bytes");
    const block = new Uint8Array(4096);
    await bothRefused(file, "write", [block, atomic], "EOPNOTSUPP", "4096");
    assertEquals(file.seekSync(0, SEEK_CUR), 10_000);
  });
});

Deno.test("the other methods of a file refuse numbers that cannot be", async () => {
  await unharmed(async ({ file }) => {
    for (const [value, code, text] of NO_OFFSET) {
      await bothRefused(file, "truncate", [value], code, "length", text);
      await bothRefused(file, "syncRange", [value, 1], code, "offset", text);
      await bothRefused(file, "syncRange", [0, value], code, "length", text);
      await bothRefused(file, "fallocate", [0, value, 1], code, "offset", text);
      await bothRefused(file, "fallocate", [0, 0, value], code, "length", text);
      const start = [{ start: value }];
      await bothRefused(file, "fiemap", start, code, "start", text);
      const length = [{ length: value }];
      await bothRefused(file, "fiemap", length, code, "length", text);
      for (const advice of ["willneed", "dontneed", "normal"]) {
        await bothRefused(file, "advise", [advice, 0, value], code, text);
      }
      await bothRefused(file, "readahead", [0, value], code, "length", text);
      await bothRefused(file, "cachestat", [value], code, "offset", text);
      await bothRefused(file, "cachestat", [0, value], code, "length", text);
    }
    for (const [value, code, text] of NO_NUMBER) {
      await bothRefused(file, "seek", [value, SEEK_SET], code, "offset", text);
      await bothRefused(file, "seek", [0, value], code, "whence", text);
      await bothRefused(file, "fallocate", [value, 0, 1], code, "mode", text);
      await bothRefused(file, "syncRange", [0, 1, value], code, "flags", text);
    }
    for (const [max, code, text] of NO_COUNT) {
      await bothRefused(file, "fiemap", [{ max }], code, "max", text);
    }
    for (const [sync, code, text] of NO_FLAG) {
      await bothRefused(file, "fiemap", [{ sync }], code, "sync", text);
    }
    for (const [value, code, text] of NO_OPTIONS) {
      await bothRefused(file, "fiemap", [value], code, text);
    }
    for (const [value, code, text] of NO_NUMBER) {
      await bothRefused(file, "advise", [value], code, "advice", text);
      await bothRefused(file, "advise", ["normal", value], code, text);
      await bothRefused(file, "readahead", [value, 0], code, "offset", text);
    }
  });
});

Deno.test("the other methods of a file answer what Linux does out of range", async () => {
  const max = 2 ** 53 - 1;
  await unharmed(async ({ file }) => {
    const rows: [string, unknown[], string, string][] = [
      ["seek", [-1, SEEK_SET], "EINVAL", "offset -1"],
      ["seek", [-10_001, SEEK_CUR], "EINVAL", "offset -10001"],
      ["seek", [-10_001, SEEK_END], "EINVAL", "offset -10001"],
      ["seek", [max, SEEK_END], "EINVAL", `offset ${max}`],
      ["seek", [0, 5], "EINVAL", "whence 5"],
      ["seek", [0, -1], "EINVAL", "whence -1"],
      ["seek", [-1, SEEK_DATA], "ENXIO", "offset -1"],
      ["seek", [10_000, SEEK_DATA], "ENXIO", "offset 10000"],
      ["seek", [max, SEEK_DATA], "ENXIO", `offset ${max}`],
      ["syncRange", [0, 1, 8], "EINVAL", "flags 8"],
      ["syncRange", [0, 1, -1], "EINVAL", "flags -1"],
      ["syncRange", [0, 1, 2 ** 32], "EINVAL", "flags 4294967296"],
      ["syncRange", [max, 1], "EINVAL", `${max}+1`],
      ["fallocate", [0, 0, 0], "EINVAL", "length is 0"],
      ["fallocate", [2, 0, 4096], "EOPNOTSUPP", "mode 2"],
      ["fallocate", [4, 0, 4096], "EOPNOTSUPP", "mode 4"],
      ["fallocate", [-1, 0, 4096], "EOPNOTSUPP", "mode -1"],
      ["fallocate", [0x80, 0, 4096], "EOPNOTSUPP", "mode 128"],
      ["fallocate", [2 ** 32, 0, 4096], "EOPNOTSUPP", "mode 4294967296"],
      // Cut to 32 bits it would punch a hole.
      ["fallocate", [2 ** 32 + 3, 0, 4096], "EOPNOTSUPP", "mode 4294967299"],
      ["fallocate", [0, max, 1], "EFBIG", `${max}+1`],
      ["fallocate", [1, 0, 2 ** 52], "ENOSPC", `0+${2 ** 52}`],
      ["fiemap", [{ length: 0 }], "EINVAL", "0+0"],
      ["fiemap", [{ start: max }], "EFBIG", `${max}`],
      ["advise", ["soon"], "EINVAL", '"soon"'],
      ["advise", ["toString"], "EINVAL", '"toString"'],
    ];
    for (const [method, args, code, text] of rows) {
      await bothRefused(file, method, args, code, '"/a"', text);
    }
    // Advice on what is not there is taken.
    for (const advice of ["willneed", "dontneed"] as const) {
      file.adviseSync(advice, max, max);
      file.adviseSync(advice, 0, max);
    }
  });
});

Deno.test("a file that is closed answers EBADF, whatever it is asked", async () => {
  await unharmed(async ({ fs }) => {
    const file = fs.openSync("/a", ALL);
    file.close();
    const p = new Uint8Array(4);
    const rows: [string, unknown[]][] = [
      ["read", [p]],
      ["read", [p, { at: 0 }]],
      ["read", [null]],
      ["write", [p]],
      ["write", [p, { at: 0 }]],
      ["seek", [0, SEEK_SET]],
      ["stat", []],
      ["truncate", []],
      ["sync", []],
      ["syncData", []],
      ["syncRange", [0, 0]],
      ["fallocate", [0, 0, 1]],
      ["fiemap", []],
      ["advise", ["normal"]],
      ["readahead", [0, 0]],
      ["cachestat", []],
    ];
    for (const [method, args] of rows) {
      await bothRefused(file, method, args, "EBADF", '"/a"');
    }
    await refused(() => file.close(), "EBADF", '"/a"');
    file[Symbol.dispose]();
    await file[Symbol.asyncDispose]();
    await refused(() => new Response(file.readable).bytes(), "EBADF", '"/a"');
    const writer = file.writable.getWriter();
    await refused(() => writer.write(p), "EBADF", '"/a"');
    await assertRejects(() => writer.closed, FsError);
  });
});

Deno.test("a file open one way only, and a directory, answer what Linux does", async () => {
  const p = new Uint8Array(4);
  await unharmed(async ({ fs }) => {
    using reader = fs.openSync("/a");
    using writer = fs.openSync("/a", { write: true });
    using dir = fs.openSync("/d");
    const rows: [FsFile, string, unknown[], string, string][] = [
      [reader, "write", [p, { at: 5 }], "EBADF", "4 bytes at offset 5"],
      [reader, "truncate", [1], "EINVAL", "length 1"],
      [reader, "fallocate", [0, 0, 1], "EBADF", "range 0+1"],
      [writer, "read", [p, { at: 5 }], "EBADF", "4 bytes at offset 5"],
      [writer, "readahead", [0, 4], "EBADF", "range 0+4"],
      [dir, "readahead", [0, 4], "EINVAL", "range 0+4"],
      [dir, "read", [p], "EISDIR", '"/d"'],
      [dir, "write", [p], "EBADF", '"/d"'],
      [dir, "truncate", [1], "EINVAL", "length 1"],
      [dir, "fallocate", [0, 0, 1], "EBADF", "range 0+1"],
    ];
    for (const [file, method, args, code, text] of rows) {
      await bothRefused(file, method, args, code, text);
    }
    // All of these Linux allows.
    reader.syncSync();
    dir.syncSync();
    dir.seekSync(1, SEEK_SET);
    dir.adviseSync("willneed");
    dir.syncRangeSync(0, 0);
  });
});

Deno.test("direct I/O that is not aligned is EINVAL, where it would reach the device", async () => {
  const rows: [at: number, length: number][] = [[1, 512], [0, 511], [512, 513]];
  await unharmed(async ({ fs, file }) => {
    using direct = fs.openSync("/a", { read: true, write: true, direct: true });
    for (const [at, length] of rows) {
      const p = new Uint8Array(length);
      const text = `${length} bytes at offset ${at}; direct I/O goes by blocks`;
      await bothRefused(direct, "read", [p, { at }], "EINVAL", text, "512");
      await bothRefused(direct, "write", [p, { at }], "EINVAL", text, "512");
    }
    const beyond = new Uint8Array(511);
    await bothRefused(direct, "write", [beyond, { at: 100_000 }], "EINVAL");
    // Beyond the end of the file Linux does not look at the alignment.
    assertEquals(direct.readSync(beyond, { at: 100_000 }), null);
    assertEquals(await direct.read(beyond, { at: 100_000 }), null);
    assertEquals(file.statSync().size, 10_000);
  });
});

Deno.test("direct I/O goes by the blocks of the device", async () => {
  using device = createNvme(new VirtualClock(), {
    size: 32 * MiB,
    logicalBlockSize: 4096,
  });
  await mkfsXfs(device);
  await using fs = await mount(device, xfs);
  using file = fs.openSync("/a", { ...ALL, direct: true });
  const p = new Uint8Array(512);
  await bothRefused(file, "write", [p, { at: 0 }], "EINVAL", "blocks of 4096");
  assertEquals(file.writeSync(new Uint8Array(4096), { at: 0 }), 4096);
});

Deno.test("a stream refuses chunks that are no bytes, and closes its file", async () => {
  await unharmed(async ({ fs }) => {
    for (const [chunk, code, text] of NO_BUFFER) {
      const file = fs.openSync("/a", { write: true });
      const writer = file.writable.getWriter();
      await refused(() => writer.write(chunk as never), code, text);
      await assertRejects(() => writer.closed, FsError);
      await refused(() => file.statSync(), "EBADF");
    }
  });
});

Deno.test("a bug below leaves neither the clock in sync mode nor a call in flight", async () => {
  const bug = new Error("BUG: as a layer throws it");
  const p = new Uint8Array(4);
  const ways: ((iocb: { pos: number }) => never | Promise<number>)[] = [
    () => {
      throw bug;
    },
    () => Promise.reject(bug),
  ];
  for (const way of ways) {
    const hooks: RamHooks = {};
    const { fs, clock } = await ramMount(hooks);
    const file = fs.openSync("a", ALL);
    const [throwsAtOnce] = ways;
    hooks.rw = way;
    for (const options of [{}, { at: 0 }]) {
      for (const method of ["read", "write"] as const) {
        const error = await assertRejects(() => file[method](p, options));
        assertEquals(error, bug);
        // One that waits has been left behind, and fails unseen.
        const sync = () => file[`${method}Sync`](p, options);
        const seen = await assertRejects(() => Promise.try(sync));
        if (way === throwsAtOnce) assertEquals(seen, bug);
        else assertEquals((seen as FsError).code, "EAGAIN");
        assertEquals(clock.inSync, false);
        await Promise.resolve();
      }
    }
    // Calls that wait for their turn get it.
    const calls = [1, 2, 3].map(() => assertRejects(() => file.read(p)));
    assertEquals(await Promise.all(calls), [bug, bug, bug]);
    hooks.rw = () => undefined as never;
    assertEquals(file.writeSync(p), 4);
    assertEquals(await file.read(p, { at: 0 }), 4);
    // Closed while one fails.
    hooks.rw = way;
    const last = assertRejects(() => file.read(p));
    file.close();
    assertEquals(await last, bug);
    assertEquals(fs.superBlock.openFiles, 0);
    await fs.unmount();
  }
});

Deno.test("clocks refuse times that never come", async () => {
  const virtual = new VirtualClock();
  for (const clock of [virtual, new RealClock()]) {
    for (const time of [NaN, Infinity, undefined, "5", 5n, Symbol("s")]) {
      const never = () => assert(false, "it has run");
      const bad = time as never;
      await refused(() => clock.at(bad, never, 0), "EINVAL", "wait until");
      await refused(() => clock.atBackground(bad, never, 0), "EINVAL");
    }
    for (const ns of [NaN, Infinity, undefined]) {
      await refused(() => clock.sleep(ns as never), "EINVAL", "wait until");
    }
    for (const id of [NaN, -1, 0, 2 ** 60, "x"]) clock.cancel(id as never);
  }
  for (const epoch of [NaN, Infinity, "5", null, 5n]) {
    const make = () => new VirtualClock({ epoch: epoch as never });
    await refused(make, "EINVAL", "epoch");
  }
  assertEquals(virtual.now(), 0);
  await virtual.sleep(-5);
  assertEquals(virtual.now(), 0);
});

/** Sector, bytes of a buffer, or of the bio where it has no memory. */
function bio(device: NvmeDevice, op: number, sector: number, size: number) {
  const bio = new Bio(device, op);
  bio.sector = sector;
  if (op === REQ_OP_WRITE_ZEROES) bio.size = size;
  else bio.addData(new Uint8Array(size), 0, size);
  return bio;
}

Deno.test("submitBio() answers IOERR for what is no range of the device", async () => {
  for (const preset of ["null", "optane", "mlc-970pro"]) {
    using device = createNvme(new VirtualClock(), { size: MiB, preset });
    for (const op of [REQ_OP_READ, REQ_OP_WRITE, REQ_OP_WRITE_ZEROES]) {
      const rows: [number, number][] = [
        [2048, 512],
        [2047, 1024],
        [-1, 512],
        [-2048, 4096],
        [NaN, 512],
        [Infinity, 512],
        [-Infinity, 512],
        [0.5, 512],
        [2 ** 53, 512],
        [0, 100],
        [0, 513],
      ];
      for (const [sector, size] of rows) {
        const bad = bio(device, op, sector, size);
        const what = `${preset} ${op} ${sector}+${size}`;
        assertEquals(await submitBioWait(bad), -EIO, what);
        assertEquals(bad.status, BLK_STS_IOERR, what);
      }
      for (const size of [NaN, -512, 512.5]) {
        const bad = bio(device, op, 0, 0);
        bad.size = size;
        assertEquals(await submitBioWait(bad), -EIO, `size ${size}`);
      }
      const { read, write } = device.stats;
      assertEquals([read.ios, write.ios, device.stats.inFlight], [0, 0, 0]);
    }
    const erase = bio(device, REQ_OP_SECURE_ERASE, 0, 0);
    await submitBioWait(erase);
    assertEquals(erase.status, BLK_STS_NOTSUPP);
    const good = bio(device, REQ_OP_WRITE, 2047, 512);
    assertEquals(await submitBioWait(good), blkStatusToErrno(BLK_STS_OK));
    device.close();
    const late = bio(device, REQ_OP_WRITE, 0, 512);
    await submitBioWait(late);
    assertEquals(late.status, BLK_STS_OFFLINE);
    assertEquals(await blkdevIssueZeroout(device, 0, 8), -19);
    if (device.writeCache) assertEquals(await blkdevIssueFlush(device), -19);
  }
});

Deno.test("Bio.addData() is EFAULT for memory outside of the buffer", async () => {
  using device = createNvme(new VirtualClock(), { size: MiB });
  const rows: [number, number][] = [
    [4000, 512],
    [-1, 512],
    [0, 4097],
    [0, -1],
    [NaN, 1],
    [0, NaN],
    [0, Infinity],
    [5000, 0],
  ];
  const bio = new Bio(device, REQ_OP_READ);
  for (const [offset, len] of rows) {
    const add = () => bio.addData(new Uint8Array(4096), offset, len);
    await refused(add, "EFAULT", `${len} bytes from ${offset} on`, "4096");
  }
  assertEquals([bio.size, bio.vecs.length], [0, 0]);
});

Deno.test("blkdevIssueZeroout() writes nothing if the range is none", async () => {
  using device = createNvme(new VirtualClock(), { size: MiB });
  const rows: [number, number, number][] = [
    [-8, 8, -EINVAL],
    [0, -8, -EINVAL],
    [NaN, 8, -EINVAL],
    [0, NaN, -EINVAL],
    [0.5, 8, -EINVAL],
    [0, 1.5, -EINVAL],
    [0, Infinity, -EINVAL],
    [2 ** 53, 8, -EINVAL],
    [2048, 1, -EIO],
    [2040, 16, -EIO],
    [0, 2 ** 52, -EIO],
    [2048, 0, 0],
  ];
  for (const [sector, count, expected] of rows) {
    const got = await blkdevIssueZeroout(device, sector, count);
    assertEquals(got, expected, `${sector}+${count}`);
  }
  assertEquals(device.stats.write.ios, 0);
});

Deno.test("blkValidateLimits() names a limit that is no whole number from 0 on", () => {
  const limits = blkValidateLimits({});
  assert(!(limits instanceof BadLimit));
  for (const field of Object.keys(limits)) {
    for (const value of [NaN, Infinity, -1, 1.5, "512", null, 2 ** 53]) {
      const bad = blkValidateLimits({ [field]: value });
      assert(bad instanceof BadLimit, `${field} ${value}`);
      assertEquals<unknown[]>([bad.field, bad.value], [field, value]);
    }
  }
});
