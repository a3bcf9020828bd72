/**
 * Images that are damaged, cut short, or foreign.
 *
 * Damage is found: a mount is refused with nothing written; or what is read is what was
 * there before; or the call that meets it says EUCLEAN, and the file system shuts down.
 * Every block of metadata has a checksum, so there is no damage to what is in use that
 * could go unnoticed. What comes of images whose checksums are right all the same, see
 * fuzz.ts.
 */
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import {
  createNvme,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FileMedia,
  FsError,
  type Media,
  mkfsXfs,
  type Mount,
  mount,
  VirtualClock,
  xfs,
} from "../../mod.ts";
import { crc32c } from "../../lib/crc32c.ts";
import { setLogHandler } from "../../lib/printk.ts";
import { Prng } from "../../lib/prng.ts";
import { Image, metadataCrcAt } from "./xfs/image.ts";

const MiB = 2 ** 20;
const PAGE = 4096;
/** Every byte of every file. */
const DATA = 0xa5;

/** An image that is never changed, and pages written over it. */
class Overlay implements Media {
  readonly size: number;
  readonly pages = new Map<number, Uint8Array>();
  /** Pages that have been read. */
  readonly seen = new Set<number>();
  writes = 0;

  constructor(readonly base: Uint8Array, size = base.length) {
    this.size = size;
  }

  /** A page that may be changed. */
  page(at: number): Uint8Array {
    const index = Math.floor(at / PAGE);
    let page = this.pages.get(index);
    if (page === undefined) {
      page = new Uint8Array(PAGE);
      page.set(this.base.subarray(index * PAGE, (index + 1) * PAGE));
      this.pages.set(index, page);
    }
    return page;
  }

  read(at: number, data: Uint8Array, offset: number, len: number): number {
    for (let done = 0; done < len; done += 512) {
      const pos = at + done;
      this.seen.add(pos - pos % PAGE);
      const page = this.pages.get(Math.floor(pos / PAGE));
      const from = page === undefined ? pos : pos % PAGE;
      data.set((page ?? this.base).subarray(from, from + 512), offset + done);
    }
    return 0;
  }

  write(at: number, data: Uint8Array, offset: number, len: number): number {
    this.writes++;
    for (let done = 0; done < len; done += 512) {
      const sector = data.subarray(offset + done, offset + done + 512);
      this.page(at + done).set(sector, (at + done) % PAGE);
    }
    return 0;
  }

  zero(at: number, len: number): number {
    return this.write(at, new Uint8Array(len), 0, len);
  }

  close(): void {}

  /** All of it, as it is now. */
  image(): Uint8Array {
    const image = this.base.slice();
    for (const [index, page] of this.pages) image.set(page, index * PAGE);
    return image;
  }
}

const ALL = { read: true, write: true, create: true };

/** A file system with extents, entries and attributes inside and outside of inodes, and
 * with blocks that two files have. */
async function makeImage(size: number): Promise<Uint8Array<ArrayBuffer>> {
  const media = new Overlay(new Uint8Array(size));
  const device = createNvme(new VirtualClock(), { media });
  await mkfsXfs(device, { label: "victim", sectorSize: 512, rmapbt: true });
  {
    await using fs = await mount(device, xfs);
    const block = new Uint8Array(PAGE).fill(DATA);
    for (const dir of ["/few", "/few/empty", "/many", "/more"]) {
      fs.mkdirSync(dir);
    }
    for (let i = 0; i < 40; i++) {
      fs.openSync(`/many/a name that takes some room ${i}`, ALL).close();
    }
    for (let i = 0; i < 250; i++) {
      fs.linkSync("/many/a name that takes some room 0", `/more/name ${i}`);
    }
    using whole = fs.openSync("/whole", ALL);
    for (let i = 0; i < 4; i++) whole.writeSync(block);
    using holes = fs.openSync("/few/holes", ALL);
    for (let i = 0; i < 50; i++) holes.writeSync(block, { at: 2 * i * PAGE });
    fs.symlinkSync("/whole", "/few/short");
    fs.symlinkSync(`/${"long/".repeat(150)}`, "/few/long");
    fs.setXattrSync("/whole", "user.small", block.subarray(0, 10));
    fs.setXattrSync("/few", "user.leaf", block.subarray(0, 1000));
    fs.setXattrSync("/few/holes", "user.remote", block.subarray(0, 3500));
    fs.syncSync();
    using shared = fs.openSync("/few/shared", ALL);
    shared.cloneRangeSync(whole);
  }
  device.close();
  return media.image() as Uint8Array<ArrayBuffer>;
}

const IMAGE = await makeImage(32 * MiB);
const { sb: SB } = new Image(IMAGE);
const VIEW = new DataView(IMAGE.buffer);

/** Blocks of metadata, by the magic number that they begin with. */
const BLOCKS = Array.from({ length: IMAGE.length / PAGE }, (_, i) => i * PAGE)
  .filter((at) => at > 0 && metadataCrcAt(VIEW, at) >= 0);

/** Pages that hold inodes. */
const INODE_PAGES = pagesWhere((at) => VIEW.getUint16(at) === 0x494e);

/** Pages with headers of groups: all four in the first. */
const HEADER_PAGES = Array.from(
  { length: SB.agcount },
  (_, agno) => SB.agHeaderDaddr(agno, 0) * 512,
);

const METADATA = [...HEADER_PAGES, ...BLOCKS, ...INODE_PAGES];

function pagesWhere(test: (at: number) => boolean): number[] {
  const found: number[] = [];
  for (let at = 0; at < IMAGE.length; at += PAGE) if (test(at)) found.push(at);
  return found;
}

/** What a call answers: an `FsError` by its code. Anything else is a failure. */
async function answer<T>(call: () => T | Promise<T>): Promise<T | string> {
  try {
    return await call();
  } catch (error) {
    if (error instanceof FsError) return error.code;
    throw error;
  }
}

/** Everything below a directory, with what a program can find out about it. */
async function walk(fs: Mount): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const todo = ["/"];
  for (let path = todo.pop(); path !== undefined; path = todo.pop()) {
    const here = path;
    found.set(here, await describe(fs, here));
    const list = await answer(() => [...fs.readDirSync(here)]);
    if (typeof list === "string") continue;
    for (const { name } of list) todo.push(`${here}/${name}`);
  }
  return found;
}

/** One line, or the code of the first call that fails. */
async function describe(fs: Mount, path: string): Promise<string> {
  return await answer(async () => {
    const info = await fs.lstat(path);
    if (info.isSymlink) return await fs.readLink(path);
    const attrs: string[] = [];
    for (const name of await fs.listXattrs(path)) {
      attrs.push(`${name} ${crc32c(await fs.getXattr(path, name))}`);
    }
    if (info.isDirectory) {
      const names = [...fs.readDirSync(path)].map(({ name }) => name);
      return `${names.length} names ${attrs}`;
    }
    using file = await fs.open(path);
    const data = new Uint8Array(100 * PAGE);
    const n = await file.read(data, { at: 0 }) ?? 0;
    const extents = await file.fiemap();
    return `${info.size} ${
      crc32c(data.subarray(0, n))
    } ${attrs} ${extents.length}`;
  });
}

/** What came of an image. */
interface Look {
  /** Why it was not mounted. */
  refused: FsError | null;
  /** What was found in it. */
  found: Map<string, string>;
  /** The checks that failed. */
  log: string[];
}

/** Mounts an image and looks at it; `change` is done afterwards. */
async function look(
  media: Overlay,
  change: (fs: Mount) => Promise<void> = () => Promise.resolve(),
): Promise<Look> {
  using device = createNvme(new VirtualClock(), { media });
  const before = media.writes;
  const log: string[] = [];
  const old = setLogHandler((line) => log.push(line));
  const result: Look = { refused: null, found: new Map(), log };
  try {
    const fs = await mount(device, xfs);
    result.found = await walk(fs);
    await change(fs);
    await answer(() => fs.unmount());
  } catch (error) {
    assert(error instanceof FsError, String(error));
    assertEquals(media.writes, before, "a refused mount has written");
    result.refused = error;
  } finally {
    setLogHandler(old);
  }
  return result;
}

const { refused: REFUSED, found: GOOD } = await look(new Overlay(IMAGE));

Deno.test("the image is as planned", () => {
  assertEquals(REFUSED, null);
  assertEquals(GOOD.size, 300);
  // More extents than an inode holds, the attribute beside.
  assert(Number(GOOD.get("//few/holes")?.split(" ").at(-1)) >= 50);
  const kinds = new Set(BLOCKS.map((at) => VIEW.getUint32(at)));
  // Trees of free space by block and by size, of inodes and free ones, of owners and of
  // shared blocks, of extents; directories of one block and of several; a link.
  for (const text of ["AB3B", "AB3C", "IAB3", "FIB3", "RMB3", "R3FC", "BMA3"]) {
    assert(kinds.has(magic(text)), text);
  }
  for (const text of ["XDB3", "XDD3", "XSLM", "XARM"]) {
    assert(kinds.has(magic(text)), text);
  }
});

function magic(text: string): number {
  return [...text].reduce((n, c) => n * 256 + c.charCodeAt(0), 0);
}

/** A program that meets damage is told, and all that comes later; the log says where it
 * is, and what is wrong. */
function checkTold({ found, log }: Look, what: string): boolean {
  let told = false;
  for (const [path, text] of found) {
    // The page cache makes EIO of it, and so does a file system that is shut down.
    if (text === "EUCLEAN" || text === "EIO") told = true;
    else assertEquals(text, GOOD.get(path), `${what}: ${path}`);
  }
  if (told) {
    const line = log.find((line) => line.includes("corruption detected"));
    assert(line !== undefined, `${what}: nothing in the log`);
    assert(/(xfs_\w+ at daddr|inode) \d+: /.test(line), `${what}: ${line}`);
  }
  return told;
}

/** Damage is found, or does no harm: says which. */
async function checkDamaged(media: Overlay, what: string): Promise<string> {
  const got = await look(media);
  if (got.refused !== null) {
    const { code, message } = got.refused;
    assert(["EUCLEAN", "EINVAL"].includes(code), `${what}: ${message}`);
    return code;
  }
  if (checkTold(got, what)) return "in part";
  assertEquals(got.found.size, GOOD.size, what);
  return "mounted";
}

Deno.test("mount() notices a flipped bit in any byte of the super block", async () => {
  for (let at = 0; at < 512; at += 3) {
    const media = new Overlay(IMAGE);
    media.page(0)[at]! ^= 1 << (at & 7);
    const code = await checkDamaged(media, `byte ${at}`);
    assertEquals(code, at < 4 ? "EINVAL" : "EUCLEAN", `byte ${at}`);
  }
});

// As Linux 6.18 does.
Deno.test("mount() does not mind what lies behind the super block in its sector", async () => {
  for (const at of [304, 400, 511]) {
    const image = new Image(IMAGE.slice());
    image.header(0, 0, (view) => view.setUint8(at, 1));
    const media = new Overlay(image.data);
    assertEquals(await checkDamaged(media, `byte ${at}`), "mounted");
  }
});

Deno.test("mount() notices a flipped bit in the headers of a group, and says where", async () => {
  for (const page of HEADER_PAGES) {
    for (const [sector, kind] of [[1, "xfs_agf"], [2, "xfs_agi"]] as const) {
      for (let at = 0; at < 512; at += 7) {
        const media = new Overlay(IMAGE);
        media.page(page)[sector * 512 + at]! ^= 1 << (at & 7);
        const { refused } = await look(media);
        assertEquals(refused?.code, "EUCLEAN", `${kind} byte ${at}`);
        const where = `${kind} at daddr ${page / 512 + sector}: checksum`;
        assertStringIncludes(refused!.message, where);
      }
    }
  }
});

/** Changes that need every tree. */
async function change(fs: Mount): Promise<void> {
  const punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  const steps: (() => unknown)[] = [
    () => fs.mkdirSync("/new"),
    () => fs.openSync("/new/file", ALL).close(),
    () => fs.truncateSync("/whole", PAGE),
    () => fs.removeSync("/few/holes"),
    () => fs.setXattrSync("/few", "user.other", new Uint8Array(500)),
    () => fs.removeXattrSync("/few", "user.leaf"),
    () => fs.renameSync("/more/name 7", "/many/name"),
    () => fs.unlinkSync("/more/name 8"),
    async () => {
      using file = await fs.open("/few/shared", ALL);
      await file.write(new Uint8Array(100), { at: PAGE });
      await file.sync();
      await file.fallocate(punch, 2 * PAGE, PAGE);
    },
    () => fs.sync(),
  ];
  for (const step of steps) await answer(step);
}

// What is looked at when all is well is what has to be noticed when it is not.
Deno.test("a flipped bit in any block that is used is noticed by name, and shuts the file system down", async () => {
  const whole = new Overlay(IMAGE);
  const well = await look(whole, change);
  assertEquals(well.log, []);
  const used = BLOCKS.filter((at) => whole.seen.has(at));
  const random = new Prng(1, "flip");
  const kinds = new Set<string>();
  for (const at of used) {
    for (let n = 0; n < 3; n++) {
      const media = new Overlay(IMAGE);
      const byte = random.below(PAGE);
      media.page(at)[byte]! ^= 1 << random.below(8);
      const got = await look(media, change);
      const what = `byte ${at}+${byte}`;
      if (got.refused === null) checkTold(got, what);
      const log = got.log.join("\n");
      const said = new RegExp(`(xfs_\\w+) at daddr ${at / 512}: `).exec(log);
      assert(said !== null, `${what} is not in the log: ${log}`);
      assertStringIncludes(log, "Shutting down");
      kinds.add(said[1]!);
    }
  }
  assert(kinds.size >= 13, `only ${[...kinds]}`);
});

Deno.test("a flipped bit in an inode that is used is noticed by name", async () => {
  const random = new Prng(2, "flip");
  for (const page of INODE_PAGES) {
    for (let at = page; at < page + PAGE; at += SB.inodesize) {
      // Of those that are used, some.
      if (VIEW.getUint16(at + 2) === 0 || random.below(2) === 0) continue;
      const media = new Overlay(IMAGE);
      const byte = random.below(SB.inodesize);
      media.page(at)[at % PAGE + byte]! ^= 1 << random.below(8);
      const got = await look(media);
      const ino = VIEW.getUint32(at + 156);
      const what = `inode ${ino} byte ${byte}`;
      const log = got.log.join("\n");
      // The magic number is looked at when the block of inodes is read.
      const said = new RegExp(`inode ${ino}: |xfs_inode at daddr`).exec(log);
      // Those of the real-time device are not.
      const isUsed = ino !== SB.rbmino && ino !== SB.rsumino;
      if (isUsed) assert(said !== null, `${what}: ${log}`);
      if (got.refused === null) assertEquals(checkTold(got, what), isUsed);
    }
  }
});

Deno.test("damaged metadata is refused, or says EUCLEAN, or does no harm", async () => {
  // Goal: no damage goes unnoticed. Method: bytes, ranges, zeroes and pages from
  // elsewhere in a page of metadata. Oracle: what the image held before.
  const random = new Prng(1, "damage");
  const outcomes = new Map<string, number>();
  for (let round = 0; round < 100; round++) {
    const media = new Overlay(IMAGE);
    const at = METADATA[random.below(METADATA.length)]!;
    damage(media.page(at), random);
    const outcome = await checkDamaged(media, `round ${round}, page ${at}`);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  // All ways it can go have been seen.
  for (const outcome of ["EUCLEAN", "mounted", "in part"]) {
    assert(outcomes.has(outcome), `none was ${outcome}`);
  }
});

function damage(page: Uint8Array, random: Prng): void {
  const at = random.below(PAGE);
  const end = Math.min(PAGE, at + 1 + random.below(1000));
  switch (random.below(4)) {
    case 0:
      page[at]! ^= 1 + random.below(255);
      break;
    case 1:
      for (let i = at; i < end; i++) page[i] = random.below(256);
      break;
    case 2:
      page.fill(0, at, end);
      break;
    default: {
      const other = METADATA[random.below(METADATA.length)]!;
      page.set(IMAGE.subarray(other, other + PAGE));
    }
  }
}

Deno.test("mount() says what it has found instead of an XFS", async () => {
  const text = (at: number, bytes: number[]) => {
    const image = new Uint8Array(32 * MiB);
    image.set(bytes, at);
    return new Overlay(image);
  };
  const rows: [string, Overlay][] = [
    ["magic 0x00000000", text(0, [])],
    // ext4: its super block begins at 1024.
    ["magic 0x00000000", text(1024 + 56, [0x53, 0xef])],
    // btrfs, at 64 KiB.
    ["magic 0x00000000", text(65600, [0x5f, 0x42, 0x48, 0x52])],
    // A FAT boot sector.
    ["magic 0xeb589000", text(0, [0xeb, 0x58, 0x90])],
    ["version 0 is not 5", text(0, [0x58, 0x46, 0x53, 0x42])],
    ["magic 0x58465362", text(0, [0x58, 0x46, 0x53, 0x62])],
  ];
  for (const [expected, media] of rows) {
    const { refused } = await look(media);
    assertEquals(refused?.code, "EINVAL");
    assertStringIncludes(refused!.message, expected);
  }
});

Deno.test("mount() refuses an image that has been cut short, whatever is left", async () => {
  for (const size of [PAGE, 5 * PAGE, 16 * MiB, 32 * MiB - PAGE]) {
    const { refused } = await look(new Overlay(IMAGE, size));
    assertEquals(refused?.code, "EIO");
    const expected = `do not fit on a device of ${size / PAGE}`;
    assertStringIncludes(refused!.message, expected);
  }
});

Deno.test("an image file that is cut short while mounted answers ENODATA, as a bad sector does", async () => {
  const path = Deno.makeTempFileSync();
  try {
    Deno.writeFileSync(path, IMAGE);
    const media = FileMedia.open(path);
    using device = createNvme(new VirtualClock(), { media });
    const fs = await mount(device, xfs);
    Deno.truncateSync(path, PAGE);
    const error = await assertRejects(() => fs.stat("/few/empty"), FsError);
    assertEquals(error.code, "ENODATA");
    await fs.unmount();
  } finally {
    Deno.removeSync(path);
  }
});

Deno.test("mount() accepts an image that is larger than what mkfs was given", async () => {
  const larger = new Uint8Array(33 * MiB);
  larger.set(IMAGE);
  const { refused, found } = await look(new Overlay(larger));
  assertEquals(refused, null);
  assertEquals(found, GOOD);
});
