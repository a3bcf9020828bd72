/**
 * Goal: attributes and links on anybody's image never make a program hang, throw
 * anything but the typed error, or allocate without bound.
 * Method: one block of the attributes or of a link's target, or the forks of an inode,
 * is damaged, its checksum mended most of the time; then one of everything is done.
 * Oracle: `FsError`, or none.
 */
import { assert } from "@std/assert";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import { xfsBmbtDiskSetAll } from "../../../../fs/xfs/libxfs/bmap-btree.ts";
import { bufSeal } from "../../../../fs/xfs/libxfs/buf.ts";
import {
  DA3_CRC,
  DI_CRC,
  DI_FORKOFF,
  DI_SIZE_V3,
  RMT_CRC,
  XFS_ATTR3_LEAF_MAGIC,
  XFS_DA3_NODE_MAGIC,
} from "../../../../fs/xfs/libxfs/format.ts";
import {
  BmbtIrec,
  IextCursor,
  type Ifork,
} from "../../../../fs/xfs/libxfs/iext.ts";
import type { MkfsXfsOptions } from "../../../../fs/xfs/mkfs.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import { xfs } from "../../../../fs/xfs/super.ts";
import { setLogHandler } from "../../../../lib/printk.ts";
import { Prng } from "../../../../lib/prng.ts";
import { FsError, type Mount, mount } from "../../../../mod.ts";
import { newImage } from "./fixture.ts";
import { MemoryDevice } from "./memory_device.ts";

const NEW = { write: true, createNew: true };
const SIZE = 48 * 2 ** 20;
/** What is damaged. */
const PATHS = ["/short", "/leaf", "/remote", "/node", "/near", "/far"];

/** A piece of metadata with a checksum of its own. */
interface Target {
  path: string;
  /** Byte on the device, and block. */
  at: number;
  fsbno: number;
  bytes: number;
  crcAt: number;
}

function value(n: number, seed: number): Uint8Array {
  return new Uint8Array(n).fill(seed);
}

async function build(device: MemoryDevice): Promise<Target[]> {
  const fs = await mount(device, xfs);
  for (const path of PATHS.slice(0, 4)) (await fs.open(path, NEW)).close();
  fs.setXattrSync("/short", "user.a", value(20, 1));
  fs.setXattrSync("/short", "trusted.b", value(0, 1));
  for (let i = 0; i < 10; i++) {
    fs.setXattrSync("/leaf", `user.${i}`, value(30, i));
    fs.setXattrSync("/remote", `user.${i}`, value(i < 3 ? 5000 : 9, i));
  }
  for (let i = 0; i < 300; i++) {
    fs.setXattrSync(
      "/node",
      `user.${i}-name`,
      value(i % 50 === 0 ? 3000 : 30, i),
    );
  }
  for (let i = 0; i < 300; i += 5) {
    fs.removeXattrSync("/node", `user.${i}-name`);
  }
  fs.symlinkSync("x".repeat(60), "/near");
  fs.symlinkSync("y".repeat(1000), "/far");
  await fs.sync();
  const targets: Target[] = [];
  for (const path of PATHS) await addTargets(fs, path, targets);
  await fs.unmount();
  return targets;
}

async function addTargets(
  fs: Mount,
  path: string,
  targets: Target[],
): Promise<void> {
  const mp = fs.superBlock as XfsMount;
  const { sb } = mp;
  const { ino } = await fs.lstat(path);
  const ip = mp.inodes.get(ino) as XfsInode | undefined;
  const at = sb.fsbToByte(sb.inoToFsb(ino)) +
    sb.inoToAgino(ino) % sb.inopblock * sb.inodesize;
  const fsbno = sb.inoToFsb(ino);
  const inode = { path, at, fsbno, bytes: sb.inodesize, crcAt: DI_CRC };
  targets.push(inode, inode, inode);
  if (ip?.af) addBlocks(mp, ip.af, path, false, targets);
  if (ip && path === "/far") addBlocks(mp, ip.df, path, true, targets);
}

function addBlocks(
  mp: XfsMount,
  fork: Ifork,
  path: string,
  whole: boolean,
  targets: Target[],
): void {
  const { sb, targ } = mp;
  const cur = new IextCursor();
  const rec = new BmbtIrec();
  for (let more = fork.first(cur, rec); more; more = fork.next(cur, rec)) {
    const step = whole ? rec.count : 1;
    for (let i = 0; i < rec.count; i += step) {
      const fsbno = rec.startblock + i;
      const bp = targ.incore(sb.fsbToDaddr(fsbno));
      assert(bp !== null);
      const magic = bp.view.getUint16(8);
      const da = magic === XFS_ATTR3_LEAF_MAGIC || magic === XFS_DA3_NODE_MAGIC;
      const crcAt = da ? DA3_CRC : RMT_CRC;
      const bytes = step * sb.blocksize;
      targets.push({ path, at: sb.fsbToByte(fsbno), fsbno, bytes, crcAt });
    }
  }
}

/** Changes a few bytes or a field, often to something that is found elsewhere. */
function damage(prng: Prng, data: Uint8Array): void {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const width = 2 ** prng.below(3);
  const near = prng.below(2) === 0 ? 256 : data.length;
  const at = Math.floor(prng.below(near) / width) * width;
  const from = Math.floor(prng.below(data.length) / width) * width;
  switch (prng.below(5)) {
    case 0:
      data[at]! ^= 1 << prng.below(8);
      break;
    case 1:
      data.copyWithin(at, from, from + width);
      break;
    case 2:
      data.fill(prng.below(2) === 0 ? 0xff : 0, at, at + width);
      break;
    case 3:
      for (let i = 0; i < width; i++) data[at + i] = prng.below(256);
      break;
    default: {
      const step = [-8, -4, -1, 1, 4, 8][prng.below(6)]!;
      if (width === 4) view.setUint32(at, view.getUint32(at) + step);
      else if (width === 2) view.setUint16(at, view.getUint16(at) + step);
      else data[at]! += step;
    }
  }
}

/** Lets the first extent of a fork lie where something else is. */
function crossLink(prng: Prng, data: Uint8Array, targets: Target[]): void {
  const view = new DataView(data.buffer);
  const fork = prng.below(2) * view.getUint8(DI_FORKOFF) * 8;
  const other = prng.below(3) === 0
    ? prng.below(64)
    : targets[prng.below(targets.length)]!.fsbno;
  const rec = new BmbtIrec().set(0, other, 1 + prng.below(3), false);
  xfsBmbtDiskSetAll(view, DI_SIZE_V3 + fork, rec);
}

async function spoil(
  base: MemoryDevice,
  targets: Target[],
  target: Target,
  prng: Prng,
): Promise<void> {
  const device = new MemoryDevice(SIZE, base);
  const data = new Uint8Array(target.bytes);
  device.peek(target.at, data);
  // Of an inode the forks and what describes them.
  const inode = target.crcAt === DI_CRC;
  const part = inode && prng.below(3) > 0 ? data.subarray(DI_SIZE_V3) : data;
  if (inode && prng.below(3) === 0) crossLink(prng, data, targets);
  else for (let n = 1 + prng.below(3); n > 0; n--) damage(prng, part);
  if (prng.below(10) > 0) bufSeal(data, target.crcAt);
  device.poke(target.at, data);
  let fs: Mount;
  try {
    fs = await mount(device, xfs);
  } catch (error) {
    typed(error);
    return;
  }
  await useAll(fs, target.path, prng);
}

function typed(error: unknown): void {
  if (!(error instanceof FsError)) throw error;
}

async function attempt(work: () => unknown): Promise<void> {
  try {
    await work();
  } catch (error) {
    typed(error);
  }
}

async function useAll(fs: Mount, path: string, prng: Prng): Promise<void> {
  const name = () =>
    `user.${prng.below(300)}${path === "/node" ? "-name" : ""}`;
  await attempt(() => fs.readLink(path));
  if (prng.below(2) === 0) await attempt(() => fs.listXattrs(path));
  for (let i = 0; i < 12; i++) {
    await attempt(() => fs.getXattr(path, name()));
    const bytes = prng.below(4) === 0 ? prng.below(4000) : prng.below(60);
    await attempt(() => fs.setXattr(path, name(), value(bytes, i)));
    await attempt(() => fs.removeXattr(path, name()));
  }
  await attempt(() => fs.listXattrs(path));
  await attempt(() => fs.unlink(path));
  await attempt(() => fs.sync());
  await attempt(() => fs.unmount());
}

/** Damages an image so many times. */
async function fuzz(
  options: MkfsXfsOptions,
  seed: number,
  rounds: number,
): Promise<void> {
  const quiet = setLogHandler(() => {});
  try {
    const base = await newImage(SIZE, options);
    const targets = await build(base);
    const prng = new Prng(seed, "attr fuzz");
    for (let round = 0; round < rounds; round++) {
      const target = targets[prng.below(targets.length)]!;
      try {
        await spoil(base, targets, target, prng);
      } catch (error) {
        throw new Error(`round ${round}, ${target.path}`, { cause: error });
      }
    }
  } finally {
    setLogHandler(quiet);
  }
}

const ROUNDS = Number(Deno.env.get("FUZZ_ROUNDS") ?? 150);

Deno.test("damaged attributes and links are errors, blocks of 4 KiB", () =>
  fuzz({}, 1, ROUNDS));

Deno.test("damaged attributes and links are errors, blocks of 1 KiB", () =>
  fuzz({ blockSize: 1024, inodeSize: 512 }, 2, ROUNDS));
