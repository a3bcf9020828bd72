/**
 * Filling a device to the last block, again and again.
 *
 * Goal: a write that was taken never fails later, and deleting gives everything back.
 * Method: files are written through the cache, in turn, until none takes any more, and
 * synced; then some of them are changed, and all are deleted. Oracle: what the writes
 * said they have taken, the free blocks of the new file system, and our own check of
 * images.
 *
 * @module
 */

import { FsError } from "../../../lib/errno.ts";
import { Prng } from "../../../lib/prng.ts";
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  type FsFile,
  type Mount,
  mount,
} from "../../../mod.ts";
import type { MkfsXfsOptions } from "../../../fs/xfs/mkfs.ts";
import { assertCleanImage } from "./clean.ts";
import { newXfs, xfs } from "./fixture.ts";
import { readFull } from "./tree_listing.ts";
import { Content } from "./tree_model.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const FILES = 40;
/** Bytes of which all that is written is a part. */
const PATTERN = new Uint8Array(256 * KiB).map((_, i) => i ^ (i >> 7));

/** How it is done. */
interface FullDeviceOptions {
  seed: number;
  /** How often the device is filled. */
  rounds: number;
  mkfs?: MkfsXfsOptions;
  /** Size of the device, bytes; 64 MiB if absent. */
  size?: number;
}

/** Fills and empties it.
 * @throws Error saying in which round what was wrong. */
export async function runFullDevice(options: FullDeviceOptions) {
  const { mkfs = {}, size = 64 * MiB, rounds, seed } = options;
  const preset = seed % 2 === 0 ? "null" : "optane";
  const device = await newXfs({ size, preset, ...mkfs });
  const random = new Prng(seed, "full");
  // With little memory most is written back long before it is synced.
  const remount = () =>
    mount(device, xfs, { memory: [8, 512][random.below(2)]! * MiB });
  let fs = await remount();
  const free = fs.statfs().blocksFree;
  for (let round = 0; round < rounds; round++) {
    try {
      await fillAndEmpty(fs, random, round);
      await fs.sync();
      expectFree(fs, free, "deleted");
      // Not each time: what is in memory has to stay right, too.
      if (round % 5 !== 4 && round < rounds - 1) continue;
      await fs.unmount();
      assertCleanImage(device);
      fs = await remount();
      expectFree(fs, free, "mounted");
    } catch (error) {
      const where = `seed ${seed}, ${JSON.stringify(mkfs)}, round ${round}`;
      throw new Error(where, { cause: error });
    }
  }
  await fs.unmount();
  device.close();
}

function expectFree(fs: Mount, want: number, when: string): void {
  const { blocksFree } = fs.statfs();
  if (blocksFree === want) return;
  throw new Error(`${when}: ${blocksFree} blocks free, not ${want}`);
}

/** A file that is being filled. */
interface Filled {
  file: FsFile;
  path: string;
  content: Content;
}

/** Whether it worked; false if there was no space. */
async function fits(run: () => Promise<unknown>): Promise<boolean> {
  try {
    await run();
    return true;
  } catch (error) {
    if (error instanceof FsError && error.code === "ENOSPC") return false;
    throw error;
  }
}

async function fillAndEmpty(
  fs: Mount,
  random: Prng,
  round: number,
): Promise<void> {
  const files: Filled[] = [];
  for (let i = 0; i < FILES; i++) {
    const path = `/full-${i}`;
    const file = await fs.open(path, { read: true, write: true, create: true });
    files.push({ file, path, content: new Content() });
  }
  const shared = round % 4 === 1;
  if (shared) await shareSome(files);
  if (round % 4 === 3) await comb(fs);
  await fill(files, random);
  for (const { file } of files) await file.sync();
  for (const one of files) await compare(one, random);
  if (round % 4 === 2) await fillWithNames(fs, random);
  if (round % 2 === 1) await changeWhatIsFull(fs, files, shared, random);
  for (const { file } of files) file.close();
  await removeAll(fs);
}

/** Files that share blocks: overwriting them takes new ones. */
async function shareSome(files: Filled[]): Promise<void> {
  const [first, ...others] = files as [Filled, ...Filled[]];
  const data = PATTERN.subarray(0, 128 * KiB);
  await first.file.write(data, { at: 0 });
  first.content.write(0, data);
  for (const { file, content } of others) {
    try {
      await file.cloneRange(first.file);
      content.write(0, data);
    } catch (error) {
      if (!(error instanceof FsError)) throw error;
      if (error.code === "EOPNOTSUPP") return;
      throw error;
    }
  }
}

/** Leaves free space in single blocks: what is written needs large trees. */
async function comb(fs: Mount): Promise<void> {
  const { blockSize, blocksFree } = fs.statfs();
  using file = await fs.open("/comb", { write: true, create: true });
  const blocks = Math.floor(0.9 * blocksFree);
  await file.fallocate(0, 0, blocks * blockSize);
  const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  for (let i = 0; i < blocks; i += 2) {
    await file.fallocate(mode, i * blockSize, blockSize);
  }
}

/** Writes to all in turn until none takes any more. */
async function fill(files: Filled[], random: Prng): Promise<void> {
  // Where each is written next; some leave holes, so that there are many extents.
  const at = files.map(() => 0);
  const open = new Set(files.keys());
  const grain = [4 * KiB, 50 * KiB, 64 * KiB, 256 * KiB][random.below(4)]!;
  const gap = random.below(3) === 0 ? grain : 0;
  while (open.size > 0) {
    for (const i of [...open]) {
      const length = 1 + random.below(grain);
      const data = PATTERN.subarray(0, length);
      if (!await writeSome(files[i]!, at[i]!, data)) open.delete(i);
      at[i]! += length + (random.below(4) === 0 ? gap : 0);
    }
  }
}

/** Whether all was written. */
async function writeSome(
  { file, content }: Filled,
  at: number,
  data: Uint8Array,
): Promise<boolean> {
  let done = 0;
  const took = await fits(async () => {
    while (done < data.length) {
      const rest = data.subarray(done);
      done += await file.write(rest, { at: at + done });
      content.write(at, data.subarray(0, done));
    }
  });
  return took;
}

async function compare(
  { file, path, content }: Filled,
  random: Prng,
): Promise<void> {
  const { size } = file.statSync();
  if (size !== content.size) {
    throw new Error(`${path} has ${size} bytes, not ${content.size}`);
  }
  const at = random.below(size + 1);
  const got = new Uint8Array(Math.min(64 * KiB, size - at));
  await readFull(file, at, got);
  const want = content.read(at, got.length);
  const i = want.findIndex((byte, i) => byte !== got[i]);
  if (i >= 0) throw new Error(`${path}: byte ${at + i} is wrong`);
}

/** Names, until there is no space for one more. */
async function fillWithNames(fs: Mount, random: Prng): Promise<void> {
  let fit = true;
  for (let i = 0; fit; i++) {
    fit = await fits(async () => {
      const path = `/name-${i}-${"n".repeat(random.below(200))}`;
      if (i % 3 === 0) await fs.mkdir(path);
      else if (i % 3 === 1) await fs.symlink("s".repeat(900), path);
      else {
        await fs.setXattr("/full-1", `user.${i}`, PATTERN.subarray(0, 900));
      }
    });
    if (i > 100_000) throw new Error("names never fill it");
  }
}

/** Cutting, punching and unlinking have to work, and what they free can be used. */
async function changeWhatIsFull(
  fs: Mount,
  files: Filled[],
  shared: boolean,
  random: Prng,
): Promise<void> {
  for (const { path } of files.slice(0, 5)) await fs.unlink(path);
  for (const one of files.slice(5, 20)) {
    // Cutting a shared block takes another one.
    const grain = shared ? 64 * KiB : 1;
    const any = random.below(one.content.size + 1);
    const size = any - any % grain;
    await one.file.truncate(size);
    one.content.truncate(size);
  }
  for (const { file, content } of files.slice(20, 30)) {
    const at = random.below(content.size + 1);
    const length = 1 + random.below(100 * KiB);
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    // Cutting an extent in two may take a block for the tree.
    const punched = await fits(() => file.fallocate(mode, at, length));
    if (punched) content.zero(at, at + length);
  }
  await fill(files.slice(0, 10), random);
  for (const { file } of files) await file.sync();
  for (const one of files.slice(0, 20)) await compare(one, random);
}

async function removeAll(fs: Mount): Promise<void> {
  for (const { name } of fs.readDirSync("/")) await fs.remove(`/${name}`);
}
