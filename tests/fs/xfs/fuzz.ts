/**
 * Images with something wrong in them, used all the same.
 *
 * Goal: whatever an image says, mounting it, reading everything and writing to it ends,
 * and fails with nothing but `FsError`. Method: valid metadata of a full image gets bits
 * flipped or fields set to telling values; every other time checksums are mended, so that
 * it is the logic that has to notice. Oracle: none but that. An image is given by its
 * seed.
 *
 * @module
 */

import { FsError } from "../../../lib/errno.ts";
import { Prng } from "../../../lib/prng.ts";
import {
  createNvme,
  FALLOC_FL_COLLAPSE_RANGE,
  FALLOC_FL_INSERT_RANGE,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_UNSHARE_RANGE,
  FALLOC_FL_ZERO_RANGE,
  type FsFile,
  type MemoryMedia,
  type Mount,
  mount,
  SEEK_DATA,
  SEEK_HOLE,
  VirtualClock,
} from "../../../mod.ts";
import { bufCrcOk, bufSeal } from "../../../fs/xfs/libxfs/buf.ts";
import * as F from "../../../fs/xfs/libxfs/format.ts";
import { xfs } from "./fixture.ts";
import { Image, metadataCrcAt } from "./image.ts";
import { OPTION_SETS } from "./option_sets.ts";
import { runTreeStress } from "./tree_stress.ts";

const KiB = 1024;
const MiB = 1024 * KiB;

/** A block, sector or inode that has a checksum. */
interface Target {
  at: number;
  bytes: number;
  crcAt: number;
}

/** An image to be spoilt. */
interface FuzzBase {
  media: MemoryMedia;
  /** By kind, so that rare ones are met as often as others. */
  targets: Target[][];
}

/** Images with something of every kind in them.
 * @param count How many of those that we make; there is one of the kernel's, too. */
export async function fuzzBases(count: number): Promise<FuzzBase[]> {
  const bases = [baseOf(await Image.kernel())];
  for (let i = 0; i < count; i++) {
    const mkfs = OPTION_SETS[i % OPTION_SETS.length]![1];
    const ops = { seed: 100 + i, ops: 300, checkEvery: 300, mkfs };
    const { device } = await runTreeStress(ops);
    bases.push(baseOf(Image.of(device)));
  }
  return bases;
}

function baseOf(image: Image): FuzzBase {
  const targets = [...findTargets(image).values()];
  return { media: image.media(), targets };
}

function findTargets(image: Image): Map<string, Target[]> {
  const { sb, data } = image;
  const kinds = new Map<string, Target[]>();
  const add = (kind: string, at: number, bytes: number, crcAt: number) => {
    if (at + bytes > data.length) return;
    if (!bufCrcOk(data.subarray(at, at + bytes), crcAt)) return;
    const list = kinds.get(kind) ?? [];
    kinds.set(kind, list);
    list.push({ at, bytes, crcAt });
  };
  for (let agno = 0; agno < sb.agcount; agno++) {
    const crcs = [F.SB_CRC, F.AGF_CRC, F.AGI_CRC, F.AGFL_CRC];
    crcs.forEach((crcAt, i) => {
      const at = sb.agHeaderDaddr(agno, i) * F.BBSIZE;
      // Of all copies only the first super block is looked at.
      if (i > 0 || agno === 0) add(`header ${i}`, at, sb.sectsize, crcAt);
    });
  }
  const view = new DataView(data.buffer);
  for (let at = 0; at < data.length; at += sb.blocksize) {
    const crcAt = metadataCrcAt(view, at);
    if (crcAt < 0) continue;
    const kind = view.getUint32(at).toString(16).slice(-8);
    const bytes = bufCrcOk(data.subarray(at, at + sb.blocksize), crcAt)
      ? sb.blocksize
      : sb.dirblksize;
    add(kind, at, bytes, crcAt);
  }
  for (let at = 0; at < data.length; at += sb.inodesize) {
    if (view.getUint16(at + F.DI_MAGIC) !== F.XFS_DINODE_MAGIC) continue;
    const type = view.getUint16(at + F.DI_MODE) >> 12;
    const forks = `${view.getUint8(at + F.DI_FORMAT)} ${
      view.getUint8(at + F.DI_AFORMAT)
    }`;
    add(`inode ${type} ${forks}`, at, sb.inodesize, F.DI_CRC);
  }
  return kinds;
}

/** Changes something in valid metadata. */
function spoil(
  media: MemoryMedia,
  { targets }: FuzzBase,
  random: Prng,
): void {
  const mended = random.below(2) === 0;
  const most = random.below(8) === 0 ? 30 : 3;
  for (let n = random.below(most); n >= 0; n--) {
    const kind = targets[random.below(targets.length)]!;
    const { at, bytes, crcAt } = kind[random.below(kind.length)]!;
    const data = new Uint8Array(bytes);
    media.read(at, data, 0, bytes);
    if (random.below(5) === 0) {
      transplant(media, data, kind[random.below(kind.length)]!);
    } else spoilFields(data, random);
    if (mended) bufSeal(data, crcAt);
    media.write(at, data, 0, bytes);
  }
}

function spoilFields(data: Uint8Array, random: Prng): void {
  for (let i = random.below(3); i >= 0; i--) {
    if (random.below(3) === 0) flipBit(data, random);
    else editField(data, random);
  }
}

/** What another one holds, under the own name: blocks have two owners, and directories
 * lead in circles. */
function transplant(
  media: MemoryMedia,
  data: Uint8Array,
  { at, bytes }: Target,
): void {
  const own = data.slice();
  media.read(at, data, 0, Math.min(bytes, data.length));
  const isInode = own[0] === F.XFS_DINODE_MAGIC >> 8 &&
    own[1] === (F.XFS_DINODE_MAGIC & 0xff);
  const [from, to] = isInode ? [F.DI_INO, F.DI_INO + 8] : [8, 56];
  data.set(own.subarray(from, to), from);
}

/** Where something is: headers are short and say much, and what is zero is mostly not in
 * use. */
function somewhere(data: Uint8Array, random: Prng): number {
  const most = [64, 192, data.length][random.below(3)]!;
  let at = 0;
  for (let tries = 0; tries < 4 && data[at] === 0 || tries === 0; tries++) {
    at = random.below(Math.min(data.length, most));
  }
  return at;
}

function flipBit(data: Uint8Array, random: Prng): void {
  data[somewhere(data, random)]! ^= 1 << random.below(8);
}

/** Sets a field of 1, 2, 4 or 8 bytes. */
function editField(data: Uint8Array, random: Prng): void {
  const bytes = 2 ** random.below(4);
  const place = () => {
    const at = somewhere(data, random);
    return at - at % bytes;
  };
  const at = place();
  const field = data.subarray(at, at + bytes);
  const last = bytes - 1;
  switch (random.below(8)) {
    case 0:
      field.fill(0);
      break;
    case 1:
      field.fill(0xff);
      break;
    case 2:
      field.fill(0);
      field[last] = random.below(70);
      break;
    case 3:
      field[last]!++;
      break;
    case 4:
      field[last]!--;
      break;
    case 5:
      for (let i = 0; i < bytes; i++) field[i] = random.below(256);
      break;
    case 6:
      field.fill(0xff);
      field[0] = 0x7f;
      break;
    default: {
      const from = place();
      field.set(data.slice(from, from + bytes));
    }
  }
}

/** What came of one image. */
interface FuzzReport {
  mounted: boolean;
  /** Calls that failed, by error. */
  errors: Map<string, number>;
}

/** Uses one. Anything but `FsError` is thrown. */
export async function runFuzz(
  base: FuzzBase,
  seed: number,
): Promise<FuzzReport> {
  const random = new Prng(seed, "fuzz");
  const media = base.media.fork();
  spoil(media, base, random);
  const device = createNvme(new VirtualClock(), { media, preset: "null" });
  const use = new Use(random);
  const fs = await use.attempt(() =>
    mount(device, xfs, { memory: 16 * MiB, options: "" })
  );
  if (fs !== null) {
    await use.all(fs);
    await use.attempt(() => fs.unmount());
  }
  device.close();
  return { mounted: fs !== null, errors: use.errors };
}

/** Uses a file system in every way. */
class Use {
  readonly errors: Map<string, number> = new Map();
  readonly #random: Prng;
  readonly #dirs: string[] = ["/"];
  readonly #files: string[] = [];
  /** Names that are still looked at: directories may be a maze. */
  #left = 400;

  constructor(random: Prng) {
    this.#random = random;
  }

  /** What it answers; null if it fails as it may. */
  async attempt<T>(run: () => Promise<T>): Promise<T | null> {
    try {
      return await run();
    } catch (error) {
      if (!(error instanceof FsError)) throw error;
      this.errors.set(error.code, (this.errors.get(error.code) ?? 0) + 1);
      return null;
    }
  }

  async all(fs: Mount): Promise<void> {
    // Sometimes the damage is met by a change first.
    const changesFirst = this.#random.below(4) === 0;
    if (!changesFirst) await this.#walk(fs, "", 0);
    await this.#change(fs);
    if (changesFirst) await this.#walk(fs, "", 0);
    await this.attempt(() => fs.sync());
    fs.statfs();
  }

  async #walk(fs: Mount, path: string, depth: number): Promise<void> {
    const names: string[] = [];
    await this.attempt(async () => {
      for await (const { name } of fs.readDir(path || "/")) names.push(name);
    });
    await this.#xattrs(fs, path || "/");
    for (const name of names) {
      if (this.#left-- <= 0) return;
      const child = `${path}/${name}`;
      const info = await this.attempt(() => fs.lstat(child));
      if (info === null) continue;
      if (info.isSymlink) await this.attempt(() => fs.readLink(child));
      else await this.#xattrs(fs, child);
      if (info.isFile) await this.#readFile(fs, child);
      if (!info.isDirectory) continue;
      this.#dirs.push(child);
      if (depth < 8) await this.#walk(fs, child, depth + 1);
    }
  }

  async #xattrs(fs: Mount, path: string): Promise<void> {
    const names = await this.attempt(() => fs.listXattrs(path)) ?? [];
    for (const name of names.slice(0, 100)) {
      await this.attempt(() => fs.getXattr(path, name));
    }
  }

  async #readFile(fs: Mount, path: string): Promise<void> {
    this.#files.push(path);
    const file = await this.attempt(() => fs.open(path));
    if (file === null) return;
    await this.attempt(() => file.fiemap({ max: 1000 }));
    await this.attempt(() => file.fiemap({ xattr: true, max: 1000 }));
    await this.#readData(file);
    file.close();
  }

  async #readData(file: FsFile): Promise<void> {
    const buffer = new Uint8Array(64 * KiB);
    let at = 0;
    for (let n = 0; n < 10; n++) {
      const from = await this.attempt(() => file.seek(at, SEEK_DATA));
      if (from === null) return;
      await this.attempt(() => file.read(buffer, { at: from }));
      const to = await this.attempt(() => file.seek(from, SEEK_HOLE));
      if (to === null) return;
      at = to;
    }
  }

  #any(list: string[]): string {
    return list[this.#random.below(list.length)]!;
  }

  async #change(fs: Mount): Promise<void> {
    const below = (n: number) => this.#random.below(n);
    for (let i = 0; i < 60; i++) {
      const dir = this.#any(this.#dirs);
      const fresh = `${dir}/fuzz-${i}-${"n".repeat(below(60))}`;
      if (this.#files.length === 0) {
        this.#files.push(fresh);
        await this.#withFile(fs, fresh, (file) => this.#changeFile(file));
        continue;
      }
      const path = this.#any(this.#files);
      const value = new Uint8Array(below(below(3) === 0 ? 30_000 : 300));
      const done: (() => Promise<unknown>)[] = [
        () => fs.mkdir(fresh).then(() => this.#dirs.push(fresh)),
        () => fs.symlink("t".repeat(1 + below(1000)), fresh),
        () => fs.link(path, fresh),
        () => fs.rename(path, fresh),
        () => fs.remove(path),
        () => fs.remove(dir),
        () => fs.setXattr(path, `user.${below(8)}`, value),
        () => fs.removeXattr(path, `user.${below(8)}`),
        () => fs.truncate(path, below(300 * KiB)),
        () => this.#withFile(fs, fresh, () => Promise.resolve()),
        () => this.#withFile(fs, path, (file) => this.#changeFile(file)),
        () => this.#withFile(fs, path, (file) => this.#changeFile(file)),
        () => this.#withFile(fs, path, (file) => this.#share(fs, file)),
      ];
      await this.attempt(done[below(done.length)]!);
    }
  }

  async #withFile(
    fs: Mount,
    path: string,
    use: (file: FsFile) => Promise<unknown>,
  ): Promise<void> {
    const open = { read: true, write: true, create: true };
    const file = await this.attempt(() => fs.open(path, open));
    if (file === null) return;
    await this.attempt(() => use(file));
    file.close();
  }

  async #changeFile(file: FsFile): Promise<void> {
    const below = (n: number) => this.#random.below(n);
    const at = 4 * KiB * below(100);
    const length = 4 * KiB * (1 + below(20));
    const modes = [
      0,
      FALLOC_FL_KEEP_SIZE,
      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
      FALLOC_FL_ZERO_RANGE,
      FALLOC_FL_COLLAPSE_RANGE,
      FALLOC_FL_INSERT_RANGE,
      FALLOC_FL_UNSHARE_RANGE,
    ];
    const data = new Uint8Array(1 + below(length));
    await this.attempt(() => file.write(data, { at: at + below(4096) }));
    const mode = modes[below(modes.length)]!;
    await this.attempt(() => file.fallocate(mode, at, length));
    if (below(2) === 0) await this.attempt(() => file.sync());
  }

  async #share(fs: Mount, file: FsFile): Promise<void> {
    const other = this.#any(this.#files);
    await this.#withFile(fs, other, (from) => file.cloneRange(from));
  }
}
