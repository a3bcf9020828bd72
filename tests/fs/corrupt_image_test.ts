/**
 * Images that are damaged, cut short, foreign, or forged.
 *
 * Damage is found: a mount is refused with nothing written, or what it reads is what
 * was there before, or the file concerned says EUCLEAN. A forged image has its
 * checksums made right again, so that what it says cannot be told from the truth; it
 * may mislead, but nothing may be thrown but `FsError`, and nothing may hang.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  createNvme,
  FileMedia,
  FsError,
  type Media,
  mkfsXfs,
  type Mount,
  mount,
  VirtualClock,
  xfs,
} from "../../mod.ts";
import { setWarningHandler } from "../../lib/bug.ts";
import { crc32c } from "../../lib/crc32c.ts";
import { Prng } from "../../lib/prng.ts";

const MiB = 2 ** 20;
const PAGE = 4096;
/** Every byte of every file. */
const DATA = 0xa5;

/** An image that is never changed, and pages written over it. */
class Overlay implements Media {
  readonly size: number;
  readonly pages = new Map<number, Uint8Array>();
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

/** A file system with extents and entries inside and outside of inodes. */
async function makeImage(size: number): Promise<Uint8Array> {
  const media = new Overlay(new Uint8Array(size));
  const device = createNvme(new VirtualClock(), { media });
  await mkfsXfs(device, { label: "victim" });
  {
    await using fs = await mount(device, xfs);
    const block = new Uint8Array(PAGE).fill(DATA);
    for (const dir of ["/few", "/few/empty", "/many"]) fs.mkdirSync(dir);
    for (let i = 0; i < 40; i++) {
      fs.openSync(`/many/a name that takes some room ${i}`, ALL).close();
    }
    using whole = fs.openSync("/whole", ALL);
    for (let i = 0; i < 4; i++) whole.writeSync(block);
    using holes = fs.openSync("/few/holes", ALL);
    for (let i = 0; i < 50; i++) holes.writeSync(block, { at: 2 * i * PAGE });
    fs.syncSync();
  }
  device.close();
  return media.image();
}

const IMAGE = await makeImage(32 * MiB);

/** Pages that hold anything but data. */
const METADATA = Array.from({ length: IMAGE.length / PAGE }, (_, i) => i * PAGE)
  .filter((at) => IMAGE[at + 100] !== DATA || IMAGE[at] !== DATA)
  .filter((at) => IMAGE.subarray(at, at + PAGE).some((byte) => byte !== 0));

/** What a call answers: an `FsError` by its code. Anything else is a failure. */
async function answer<T>(call: () => T | Promise<T>): Promise<T | string> {
  try {
    return await call();
  } catch (error) {
    if (error instanceof FsError) return error.code;
    throw error;
  }
}

/** Everything below a directory, each with its size and a checksum of its start. */
async function walk(fs: Mount): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const todo = ["/"];
  for (let path = todo.pop(); path !== undefined; path = todo.pop()) {
    // A forged directory may hold itself.
    if (found.size > 300) break;
    const here = path;
    found.set(here, await describe(fs, here));
    const list = await answer(() => [...fs.readDirSync(here)]);
    if (typeof list === "string") continue;
    for (const { name } of list) todo.push(`${here}/${name}`);
  }
  return found;
}

async function describe(fs: Mount, path: string): Promise<string> {
  const info = await answer(() => fs.stat(path));
  if (typeof info === "string") return info;
  if (info.isDirectory) return "directory";
  const content = await answer(async () => {
    using file = await fs.open(path);
    const data = new Uint8Array(100 * PAGE);
    const n = await file.read(data, { at: 0 }) ?? 0;
    await file.read(new Uint8Array(100), { at: Math.max(0, info.size - 100) });
    const extents = await file.fiemap();
    return `${crc32c(data.subarray(0, n))} ${extents.length}`;
  });
  return `${info.size} ${content}`;
}

/** Mounts an image and looks at it, twice; the refusal if it is refused. */
async function look(media: Overlay): Promise<Map<string, string> | FsError> {
  using device = createNvme(new VirtualClock(), { media });
  const before = media.writes;
  let fs: Mount;
  try {
    fs = await mount(device, xfs);
  } catch (error) {
    assert(error instanceof FsError, String(error));
    assertEquals(media.writes, before, "a refused mount has written");
    return error;
  }
  const found = await walk(fs);
  await fs.unmount();
  await using again = await mount(device, xfs);
  assertEquals(await walk(again), found);
  return found;
}

const good = await look(new Overlay(IMAGE));
assert(good instanceof Map, "the image cannot be mounted");
const GOOD: Map<string, string> = good;

Deno.test("the image is as planned", () => {
  assertEquals(GOOD.size, 46);
  // More extents than an inode holds.
  assert(Number(GOOD.get("//few/holes")?.split(" ").at(-1)) >= 50);
});

/** Damage is found, or does no harm. */
async function checkDamaged(media: Overlay, what: string): Promise<string> {
  const got = await look(media);
  if (got instanceof FsError) {
    assert(["EUCLEAN", "EINVAL"].includes(got.code), `${what}: ${got.message}`);
    assert(/super block|XFS|group|free space|inode|root/.test(got.message));
    return got.code;
  }
  let whole = got.size === GOOD.size;
  for (const [path, text] of got) {
    if (text === "EUCLEAN") whole = false;
    else assertEquals(text, GOOD.get(path), what + path);
  }
  return whole ? "mounted" : "in part";
}

Deno.test("mount() notices a flipped bit in any byte of the super block", async () => {
  for (let at = 0; at < 512; at += 3) {
    const media = new Overlay(IMAGE);
    media.page(0)[at]! ^= 1 << (at & 7);
    const code = await checkDamaged(media, `byte ${at}`);
    assertEquals(code, at < 4 ? "EINVAL" : "EUCLEAN", `byte ${at}`);
  }
});

Deno.test("mount() does not mind what lies behind the super block in its block", async () => {
  for (const at of [512, 1000, 4095]) {
    const media = new Overlay(IMAGE);
    media.page(0)[at] = 0xff;
    assertEquals(await checkDamaged(media, `byte ${at}`), "mounted");
  }
});

/** What inodes, or the super block, keep in blocks of their own. */
function blobs(): [at: number, length: number][] {
  const v = new DataView(IMAGE.buffer);
  const found: [number, number][] = [];
  const add = (record: number, length: number) =>
    found.push([v.getUint32(record + 116) * PAGE, v.getUint32(length)]);
  add(0, 56);
  for (const at of inodes()) if (v.getUint32(at + 80) > 0) add(at, at + 72);
  return found;
}

/** Records of inodes that have been written. */
function inodes(): number[] {
  const found: number[] = [];
  for (const at of METADATA) {
    for (let i = at; i < at + PAGE; i += 512) {
      if (IMAGE[i] === 0x49 && IMAGE[i + 1] === 0x4e) found.push(i);
    }
  }
  return found;
}

Deno.test("a flipped bit in free space, extents or entries is noticed", async () => {
  assertEquals(blobs().length, 3);
  for (const [at, length] of blobs()) {
    const step = Math.ceil(length / 25);
    for (let i = 0; i < Math.min(length, PAGE); i += step) {
      const media = new Overlay(IMAGE);
      media.page(at)[i]! ^= 1 << (i & 7);
      const outcome = await checkDamaged(media, `byte ${at}+${i}`);
      assert(outcome !== "mounted", `byte ${at}+${i}`);
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

/** Numbers at the edges of what a field can hold. */
const EDGES = [0, 1, 2, 10, 511, 8191, 8192, 2 ** 31, 2 ** 32 - 1];

/** Makes the checksum of 512 bytes right, whose field is at byte 4. */
function reseal(record: Uint8Array): void {
  const v = new DataView(record.buffer, record.byteOffset, 512);
  v.setUint32(4, 0);
  v.setUint32(4, crc32c(record));
}

/** Changes a few words of a record, and makes its checksum right. */
function forge(record: Uint8Array, bytes: number, random: Prng): void {
  const v = new DataView(record.buffer, record.byteOffset, 512);
  for (let n = 1 + random.below(2); n > 0; n--) {
    // Not the magic nor the checksum.
    const at = 8 + 4 * random.below((bytes - 8) / 4);
    const by = random.below(3) - 1;
    const edge = EDGES[random.below(EDGES.length)]!;
    v.setUint32(at, by === 0 ? edge : v.getUint32(at) + by);
  }
  reseal(record);
}

/** Uses whatever a forged image lets one use. */
async function abuse(media: Overlay): Promise<string> {
  using device = createNvme(new VirtualClock(), { media });
  const fs = await answer(() => mount(device, xfs, { memory: 16 * MiB }));
  if (typeof fs === "string") return fs;
  for (const path of (await walk(fs)).keys()) {
    await answer(async () => {
      using file = await fs.open(path, { read: true, write: true });
      await file.write(new Uint8Array(5000), { at: 3000 });
      await file.sync();
      await file.truncate(1);
    });
  }
  for (const path of ["/few/holes", "/whole", "/many", "/few/empty"]) {
    await answer(() => fs.remove(path));
  }
  for (let i = 0; i < 5; i++) {
    await answer(() => fs.mkdir(`/new${i}`));
    await answer(async () => {
      using file = await fs.open(`/new${i}/file`, ALL);
      await file.write(new Uint8Array(100_000));
    });
  }
  await answer(() => fs.sync());
  await answer(() => fs.unmount());
  return "mounted";
}

/** Runs forged images; warnings are what they deserve. */
async function abuseAll(
  rounds: number,
  make: (media: Overlay, random: Prng) => void,
): Promise<void> {
  const random = new Prng(2, "forge");
  const handler = setWarningHandler(() => {});
  const outcomes = new Set<string>();
  try {
    for (let round = 0; round < rounds; round++) {
      const media = new Overlay(IMAGE);
      make(media, random);
      try {
        outcomes.add(await abuse(media));
      } catch (cause) {
        throw new Error(`round ${round}`, { cause });
      }
    }
  } finally {
    setWarningHandler(handler);
  }
  assert(outcomes.size > 1, `all of them: ${[...outcomes]}`);
}

Deno.test("a forged super block throws nothing but FsError", async () => {
  await abuseAll(80, (media, random) => {
    forge(media.page(0).subarray(0, 512), 124, random);
  });
});

Deno.test("forged inodes throw nothing but FsError", async () => {
  const records = inodes();
  assert(records.length >= 46);
  await abuseAll(80, (media, random) => {
    // More often the first ones, which have content.
    const pick = random.below(1 + random.below(records.length));
    const at = records[pick]!;
    const record = media.page(at).subarray(at % PAGE, at % PAGE + 512);
    forge(record, 200, random);
  });
});

Deno.test("forged free space throws nothing but FsError", async () => {
  const v = new DataView(IMAGE.buffer);
  const length = v.getUint32(56);
  const at = v.getUint32(116) * PAGE;
  await abuseAll(80, (media, random) => {
    const page = media.page(at);
    const words = new DataView(page.buffer);
    const edge = EDGES[random.below(EDGES.length)]!;
    words.setUint32(4 * random.below(length / 4), edge);
    const sb = media.page(0).subarray(0, 512);
    new DataView(sb.buffer).setUint32(60, crc32c(page.subarray(0, length)));
    reseal(sb);
  });
});

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
    ["v5 format of XFS", text(0, [0x58, 0x46, 0x53, 0x42])],
    ["magic 0x58465362", text(0, [0x58, 0x46, 0x53, 0x62])],
  ];
  for (const [expected, media] of rows) {
    const error = await look(media);
    assert(error instanceof FsError && error.code === "EINVAL");
    assert(error.message.includes(expected), error.message);
  }
});

Deno.test("mount() refuses an image that has been cut short, whatever is left", async () => {
  for (const size of [PAGE, 5 * PAGE, 16 * MiB, 32 * MiB - PAGE]) {
    const error = await look(new Overlay(IMAGE, size));
    assert(error instanceof FsError && error.code === "EUCLEAN");
    const expected = `do not fit in the ${size} bytes of the device`;
    assert(error.message.includes(expected), error.message);
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
    assertEquals(await answer(() => fs.unmount()), "ENODATA");
  } finally {
    Deno.removeSync(path);
  }
});

Deno.test("mount() accepts an image that is larger than what mkfs was given", async () => {
  const larger = new Uint8Array(33 * MiB);
  larger.set(IMAGE);
  assertEquals(await look(new Overlay(larger)), GOOD);
});
