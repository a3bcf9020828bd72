/**
 * What the stress tests share: a clock that tells a hang from a wait, a model of a
 * file, and the checks of what must hold when nothing is going on.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import {
  createNvme,
  FsError,
  type FsFile,
  mkfsXfs,
  type Mount,
  mount,
  type NvmeDevice,
  type SuperBlock,
  VirtualClock,
  xfs,
} from "../../../mod.ts";
import type { XfsInode } from "../../../fs/xfs/inode.ts";
import {
  BmbtIrec,
  IextCursor,
  type Ifork,
  isnullstartblock,
  startblockval,
} from "../../../fs/xfs/libxfs/iext.ts";
import type { XfsMount } from "../../../fs/xfs/mount.ts";
import { setWarningHandler } from "../../../lib/bug.ts";
import { Prng } from "../../../lib/prng.ts";
import { filemapRangeNeedsWriteback } from "../../../mm/filemap.ts";
import { assertCleanImage } from "../xfs/clean.ts";

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const ALL = { read: true, write: true, create: true };

/** Turns without an event after which what is pending will stay so. */
const IDLE_TURNS = 16;

/** A clock that says whether it has run dry. */
export class WatchedClock extends VirtualClock {
  /** Whether no event is left. */
  get dry(): boolean {
    return !this.busy;
  }
}

/** One device, its clock, and chance. */
export interface Stack {
  clock: WatchedClock;
  nvme: NvmeDevice;
  prng: Prng;
  seed: number;
}

/** What a round is made with. */
export interface Round {
  seed: number;
  preset: string;
  blockSize: number;
  /** Bytes of page cache. */
  memory: number;
  /** Bytes of the device; 64 MiB if absent. */
  size?: number;
}

/** Names a round in messages. */
export function nameOf(round: Round): string {
  const { seed, preset, blockSize, memory } = round;
  return `seed ${seed} (${preset}, blocks of ${blockSize}, ${
    memory / MiB
  } MiB of memory)`;
}

/**
 * Runs a round on a device of its own. Fails, naming the seed, where the work fails,
 * where the clock runs dry before it ends, and where a layer warns.
 */
export async function runRound(
  round: Round,
  work: (stack: Stack) => Promise<void>,
): Promise<void> {
  const { seed, preset, blockSize, size = 64 * MiB } = round;
  const warnings: string[] = [];
  const old = setWarningHandler((message) => warnings.push(message));
  const clock = new WatchedClock();
  const nvme = createNvme(clock, { size, preset, seed });
  try {
    await unlessHung(
      clock,
      mkfsXfs(nvme, { blockSize }).then(() =>
        work({ clock, nvme, seed, prng: new Prng(seed, "stress") })
      ),
    );
    assertEquals(warnings, []);
  } catch (cause) {
    const text = warnings.map((w) => `; WARNING: ${w}`).join("");
    throw new Error(`${nameOf(round)}: ${cause}${text}`, { cause });
  } finally {
    setWarningHandler(old);
    nvme.close();
  }
}

/** Waits for `work` as long as the clock has events. */
export async function unlessHung<T>(
  clock: WatchedClock,
  work: Promise<T>,
): Promise<T> {
  let settled = false;
  const settle = () => settled = true;
  work.then(settle, settle);
  for (let idle = 0; !settled;) {
    await new Promise<void>((resolve) => setImmediate(resolve));
    idle = clock.dry ? idle + 1 : 0;
    if (idle > IDLE_TURNS) throw new Error(`hung at ${clock.now()} ns`);
  }
  return await work;
}

/** The device's file system. */
export function mounted(
  { nvme }: { nvme: NvmeDevice },
  memory: number,
): Promise<Mount> {
  return mount(nvme, xfs, { memory });
}

/** Calls the synchronous twin; the asynchronous one where that says EAGAIN. */
export async function either<T>(
  sync: boolean,
  now: () => T,
  later: () => Promise<T>,
): Promise<T> {
  if (sync) {
    try {
      return now();
    } catch (error) {
      if (!(error instanceof FsError) || error.code !== "EAGAIN") throw error;
    }
  }
  return await later();
}

/** The code of the `FsError` that a call ends with, "" if it succeeds. */
export async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work();
    return "";
  } catch (error) {
    if (error instanceof FsError) return error.code;
    throw error;
  }
}

/** Random bytes, none of them 0. */
export function randomBytes(prng: Prng, len: number): Uint8Array {
  const data = new Uint8Array(len);
  // Words are enough to tell one write from another, and cheap.
  let word = prng.u32();
  for (let i = 0; i < len; i++) {
    if ((i & 63) === 0) word = prng.u32();
    data[i] = ((word >>> (i & 24)) + i) & 255 || 1;
  }
  return data;
}

/** What a file has to contain. */
export class FileModel {
  readonly data: Uint8Array;
  size = 0;

  constructor(capacity: number) {
    this.data = new Uint8Array(capacity);
  }

  write(at: number, bytes: Uint8Array): void {
    this.data.set(bytes, at);
    this.size = Math.max(this.size, at + bytes.length);
  }

  zero(at: number, len: number): void {
    this.data.fill(0, at, Math.min(at + len, this.size));
  }

  grow(size: number): void {
    this.size = Math.max(this.size, size);
  }

  truncate(size: number): void {
    this.data.fill(0, size, Math.max(size, this.size));
    this.size = size;
  }

  /** First byte from `at` on that is not 0; the end of the file if there is none. */
  nextData(at: number): number {
    let pos = at;
    while (pos < this.size && this.data[pos] === 0) pos++;
    return pos;
  }
}

/** Says where two arrays first differ, if they do. */
export function assertSameBytes(
  actual: Uint8Array,
  expected: Uint8Array,
  at: number,
  what: string,
): void {
  assertEquals(actual.length, expected.length, `${what}: length`);
  for (let i = 0; i < actual.length; i++) {
    if (actual[i] === expected[i]) continue;
    let last = actual.length - 1;
    while (actual[last] === expected[last]) last--;
    throw new Error(
      `${what}: bytes ${at + i} to ${at + last} are wrong: ` +
        `${actual[i]} for ${expected[i]} at first`,
    );
  }
}

/** Reads all of [at, at + len) and compares it. */
export async function checkRange(
  file: FsFile,
  model: FileModel,
  at: number,
  len: number,
  sync: boolean,
  what: string,
): Promise<void> {
  const want = Math.max(0, Math.min(len, model.size - at));
  const data = new Uint8Array(len);
  const n = await either(
    sync,
    () => file.readSync(data, { at }),
    () => file.read(data, { at }),
  );
  assertEquals(n ?? 0, want, `${what}: bytes read at ${at}+${len}`);
  const expected = model.data.subarray(at, at + want);
  assertSameBytes(data.subarray(0, want), expected, at, what);
}

/** Size and contents of the file, read in pieces. */
export async function checkWhole(
  file: FsFile,
  model: FileModel,
  what: string,
): Promise<void> {
  assertEquals((await file.stat()).size, model.size, `${what}: size`);
  for (let at = 0; at < model.size; at += MiB) {
    await checkRange(file, model, at, MiB, false, what);
  }
}

/** Blocks that a fork has been promised: for its extents, and for the tree that they
 * may need. */
function promisedTo(fork: Ifork | null): { blocks: number; indlen: number } {
  const sum = { blocks: 0, indlen: 0 };
  if (fork === null) return sum;
  const cur = new IextCursor();
  const got = new BmbtIrec();
  for (let more = fork.first(cur, got); more; more = fork.next(cur, got)) {
    if (!isnullstartblock(got.startblock)) continue;
    sum.blocks += got.count;
    sum.indlen += startblockval(got.startblock);
  }
  return sum;
}

/** Nothing is going on: no lock is held, no space is lost, nothing is counted twice. */
export function checkIdle(sb: SuperBlock): void {
  const mp = sb as XfsMount;
  let promised = 0;
  for (const inode of sb.inodes.values()) {
    const { ino, rwsem, mapping, dioCount, ilock, delayedBlks, df, cow } =
      inode as XfsInode;
    assert(!rwsem.isLocked, `inode ${ino}: rwsem is held`);
    assert(!ilock.isLocked, `inode ${ino}: ILOCK is held`);
    assert(!mapping.invalidateLock.isLocked, `inode ${ino}: invalidateLock`);
    assertEquals(dioCount, 0, `inode ${ino}: dioCount`);
    const data = promisedTo(df);
    const copies = promisedTo(cow);
    assertEquals(delayedBlks, data.blocks + copies.blocks, `inode ${ino}`);
    promised += delayedBlks + data.indlen + copies.indlen;
  }
  let free = 0;
  let kept = 0;
  let icount = 0;
  let ifree = 0;
  for (const pag of mp.perags) {
    free += pag.pagfFreeblks + pag.pagfFlcount + pag.pagfBtreeblks;
    kept += pag.metaResv.reserved + pag.rmapbtResv.origReserved;
    icount += pag.pagiCount;
    ifree += pag.pagiFreecount;
  }
  const { fdblocks, resblksAvail } = mp;
  assertEquals(fdblocks + resblksAvail + kept + promised, free, "free blocks");
  assertEquals(mp.sb.fdblocks, free);
  assertEquals([mp.sb.icount, mp.sb.ifree], [icount, ifree]);
}

/** A sync has ended: the range of the file is on the device, and its size says so. */
export function checkWritten(
  sb: SuperBlock,
  ino: number,
  start: number,
  end: number,
): void {
  const { mapping, diskSize } = sb.inodes.get(ino) as XfsInode;
  const left = end > start &&
    filemapRangeNeedsWriteback(mapping, start, end - 1);
  assert(!left, `${start} to ${end} is not written`);
  assert(diskSize >= end, `size on the device is ${diskSize}, not ${end}`);
}

/** No folio is left once a file system is unmounted. */
export function checkNoFolios({ mm }: SuperBlock): void {
  assertEquals(mm.nrPages, 0, "pages in use after unmount");
  assertEquals(mm.nrDirty, 0, "dirty pages after unmount");
  assertEquals(mm.nrWriteback, 0, "pages under writeback after unmount");
  assertEquals(mm.bdis.size, 0, "devices after unmount");
}

/** Unmounts, and checks that nothing stays behind, and that the image is in order. */
export async function unmounted(fs: Mount): Promise<void> {
  await fs.unmount();
  checkIdle(fs.superBlock);
  checkNoFolios(fs.superBlock);
  assertCleanImage(fs.superBlock.bdev);
}
