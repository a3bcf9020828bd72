/**
 * The whole stack under random loads.
 *
 * Goal: lost or stale data, wrong sizes, hangs, and leaks of space, locks and folios.
 * Method: seeded random calls, alone and many at once, on slow and instant devices,
 * with little memory and much, on full devices and failing ones. Oracle: an array of
 * bytes for each file or range; counters that have to come back to where they were.
 */
import { assert, assertEquals } from "@std/assert";
import {
  createNvme,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  FIEMAP_EXTENT_DELALLOC,
  FIEMAP_EXTENT_UNWRITTEN,
  FileMedia,
  FsError,
  type FsFile,
  mkfsXfs,
  type Mount,
  mount,
  type NvmeDevice,
  type OpenOptions,
  SEEK_DATA,
  SEEK_HOLE,
  SYNC_FILE_RANGE_WRITE,
  VirtualClock,
  xfs,
} from "../../../mod.ts";
import { MSEC } from "../../../lib/clock.ts";
import { crc32c } from "../../../lib/crc32c.ts";
import { Prng } from "../../../lib/prng.ts";
import { FailingDevice } from "./failing_device.ts";
import {
  ALL,
  assertSameBytes,
  checkIdle,
  checkNoFolios,
  checkRange,
  checkWhole,
  checkWritten,
  codeOf,
  either,
  FileModel,
  KiB,
  MiB,
  mounted,
  nameOf,
  randomBytes,
  type Round,
  runRound,
  type Stack,
  unlessHung,
  unmounted,
} from "./stress.ts";

/** How many seeds each combination of device, block and memory gets, and how many calls
 * a task makes: larger numbers search longer. */
const ROUNDS = {
  sequential: { seeds: 1, ops: 60 },
  concurrent: { seeds: 1, ops: 30 },
  noSpace: { seeds: 1 },
  storm: { seeds: 1, ops: 40 },
};

/** Every device with every size of block and of memory, each with seeds of its own. */
function rounds(seeds: number): Round[] {
  const list: Round[] = [];
  for (const preset of ["null", "optane", "tlc-dc", "mlc-970pro"]) {
    for (const blockSize of [1024, 4096]) {
      for (const memory of [8 * MiB, 256 * MiB]) {
        for (let i = 0; i < seeds; i++) {
          list.push({ seed: list.length + 1, preset, blockSize, memory });
        }
      }
    }
  }
  return list;
}

const PAGE = 4 * KiB;
/** Largest file of the sequential rounds: more than the small memory holds. */
const CAPACITY = 12 * MiB;

/** One file that is open twice, and what it has to contain. */
interface Subject {
  fs: Mount;
  file: FsFile;
  direct: FsFile;
  model: FileModel;
  prng: Prng;
  /** Unit of direct I/O. */
  unit: number;
}

/** A range in the file: mostly small, sometimes large, often beyond the end. */
function pick({ prng, model }: Subject): { at: number; len: number } {
  const len = 1 + prng.below(prng.below(8) === 0 ? MiB : 40 * KiB);
  const span = prng.below(4) === 0 ? CAPACITY : model.size + 64 * KiB;
  const at = Math.min(prng.below(span), CAPACITY - len);
  return { at, len };
}

function coin({ prng }: Subject): boolean {
  return prng.below(2) === 0;
}

type Op = (s: Subject) => Promise<string>;

const pwrite: Op = async (s) => {
  const { at, len } = pick(s);
  const data = randomBytes(s.prng, len);
  const options = {
    at,
    dsync: s.prng.below(8) === 0,
    dontcache: s.prng.below(8) === 0,
  };
  const { file } = s;
  const n = await either(
    coin(s),
    () => file.writeSync(data, options),
    () => file.write(data, options),
  );
  assertEquals(n, len, "bytes written");
  s.model.write(at, data);
  if (options.dsync) {
    checkWritten(s.fs.superBlock, (await file.stat()).ino!, at, at + len);
  }
  return `write ${at}+${len}`;
};

const pread: Op = async (s) => {
  const { at, len } = pick(s);
  await checkRange(s.file, s.model, at, len, coin(s), "read");
  return `read ${at}+${len}`;
};

const directWrite: Op = async (s) => {
  const { unit, direct } = s;
  const range = pick(s);
  const at = range.at - range.at % unit;
  const len = Math.min(Math.ceil(range.len / unit) * unit, CAPACITY - at);
  const data = randomBytes(s.prng, len);
  const n = await either(
    coin(s),
    () => direct.writeSync(data, { at }),
    () => direct.write(data, { at }),
  );
  assertEquals(n, len, "bytes written directly");
  s.model.write(at, data);
  return `direct write ${at}+${len}`;
};

const directRead: Op = async (s) => {
  const { unit } = s;
  const range = pick(s);
  const at = range.at - range.at % unit;
  const len = Math.ceil(range.len / unit) * unit;
  await checkRange(s.direct, s.model, at, len, coin(s), "direct read");
  return `direct read ${at}+${len}`;
};

const truncate: Op = async (s) => {
  const { file } = s;
  const size = s.prng.below(5) === 0 ? s.prng.below(CAPACITY) : pick(s).at;
  await either(
    coin(s),
    () => file.truncateSync(size),
    () => file.truncate(size),
  );
  s.model.truncate(size);
  return `truncate ${size}`;
};

const MODES = [
  0,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_ZERO_RANGE,
  FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
];

const fallocate: Op = async (s) => {
  const { file, model } = s;
  const { at, len } = pick(s);
  const mode = MODES[s.prng.below(MODES.length)]!;
  await either(
    coin(s),
    () => file.fallocateSync(mode, at, len),
    () => file.fallocate(mode, at, len),
  );
  if ((mode & ~FALLOC_FL_KEEP_SIZE) !== 0) model.zero(at, len);
  if ((mode & FALLOC_FL_KEEP_SIZE) === 0) model.grow(at + len);
  return `fallocate ${mode} ${at}+${len}`;
};

const fsync: Op = async (s) => {
  const { file } = s;
  if (coin(s)) await either(coin(s), () => file.syncSync(), () => file.sync());
  else {
    await either(coin(s), () => file.syncDataSync(), () => file.syncData());
  }
  checkWritten(s.fs.superBlock, (await file.stat()).ino!, 0, s.model.size);
  return "fsync";
};

const syncRange: Op = async (s) => {
  const { file } = s;
  const { at, len } = pick(s);
  const flags = s.prng.below(8);
  await either(
    coin(s),
    () => file.syncRangeSync(at, len, flags),
    () => file.syncRange(at, len, flags),
  );
  return `sync_file_range ${flags} ${at}+${len}`;
};

const advise: Op = async (s) => {
  const { file } = s;
  const { at, len } = pick(s);
  const advice = coin(s) ? "dontneed" : "willneed";
  await either(
    coin(s),
    () => file.adviseSync(advice, at, len),
    () => file.advise(advice, at, len),
  );
  return `advise ${advice} ${at}+${len}`;
};

/** What lies before the answer holds no data; a hole reads as zero. */
const seek: Op = async (s) => {
  const { file, model } = s;
  const at = pick(s).at;
  const whence = coin(s) ? SEEK_DATA : SEEK_HOLE;
  let found = model.size;
  try {
    found = await either(
      coin(s),
      () => file.seekSync(at, whence),
      () => file.seek(at, whence),
    );
    assert(found >= at && found <= model.size, `seek ${at}: ${found}`);
  } catch (error) {
    if (!(error instanceof FsError)) throw error;
    assertEquals(error.code, "ENXIO");
    assert(at >= model.size || whence === SEEK_DATA, `seek ${at} fails`);
  }
  if (at < model.size) {
    if (whence === SEEK_HOLE) assertEquals(model.data[found], 0, "a hole");
    else assert(model.nextData(at) >= found, `data before ${found}`);
  }
  return `seek ${whence} ${at}`;
};

/** Extents are in order; what is not 0 lies in one that has been written. */
const fiemap: Op = async (s) => {
  const { file, model } = s;
  const sync = coin(s);
  const extents = await either(
    coin(s),
    () => file.fiemapSync({ sync }),
    () => file.fiemap({ sync }),
  );
  let pos = 0;
  for (const { logical, length, flags } of extents) {
    assert(logical >= pos, `extent at ${logical} begins before ${pos}`);
    const start = Math.min(logical, model.size);
    assert(model.nextData(pos) >= start, `data before ${logical}`);
    pos = logical + length;
    if (!sync) continue;
    assertEquals(flags & FIEMAP_EXTENT_DELALLOC, 0, "delayed after sync");
    if ((flags & FIEMAP_EXTENT_UNWRITTEN) !== 0) {
      const end = Math.min(pos, model.size);
      assert(
        start === end || model.nextData(start) >= end,
        `unwritten data at ${logical}`,
      );
    }
  }
  assert(pos >= model.size || model.nextData(pos) === model.size, "data after");
  return `fiemap ${sync}`;
};

/** What is written while an earlier version is on its way gets there, too. */
const rewrite: Op = async (s) => {
  const { file, fs, model } = s;
  const { at, len } = pick(s);
  for (let i = 0; i < 2; i++) {
    const data = randomBytes(s.prng, len);
    assertEquals(await file.write(data, { at }), len);
    model.write(at, data);
    if (i === 0) await file.syncRange(at, len, SYNC_FILE_RANGE_WRITE);
  }
  await file.sync();
  checkWritten(fs.superBlock, (await file.stat()).ino!, at, at + len);
  return `rewrite ${at}+${len}`;
};

/** A range of whole pages. */
function pickPages(s: Subject): { at: number; len: number } {
  const { at, len } = pick(s);
  const start = at - at % PAGE;
  const length = Math.ceil(len / PAGE) * PAGE;
  return { at: start, len: Math.min(length, CAPACITY - start) };
}

/** A page that is read while a direct write goes on does not stay. */
const readDuringDirect: Op = async (s) => {
  const { file, direct, model, prng } = s;
  const { at, len } = pickPages(s);
  const data = randomBytes(prng, len);
  const page = at + PAGE * prng.below(len / PAGE);
  const written = direct.write(data, { at });
  await file.read(new Uint8Array(PAGE), { at: page });
  assertEquals(await written, len);
  model.write(at, data);
  await checkRange(file, model, at, len, false, "read after direct write");
  return `read ${page} during direct write ${at}+${len}`;
};

/** A hole that is punched while a direct write goes on comes after it. */
const punchDuringDirect: Op = async (s) => {
  const { file, direct, model, prng } = s;
  const { at, len } = pickPages(s);
  const data = randomBytes(prng, len);
  const written = direct.write(data, { at });
  const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  await file.fallocate(mode, at, len);
  assertEquals(await written, len);
  model.write(at, data);
  model.zero(at, len);
  await checkRange(file, model, at, len, false, "read after punch");
  return `punch during direct write ${at}+${len}`;
};

const OPS: Op[] = [
  pwrite,
  pwrite,
  pwrite,
  pwrite,
  pread,
  pread,
  pread,
  directWrite,
  directRead,
  truncate,
  fallocate,
  fallocate,
  fsync,
  syncRange,
  advise,
  seek,
  fiemap,
  rewrite,
  readDuringDirect,
  punchDuringDirect,
];

async function sequential(
  stack: Stack,
  { blockSize, memory }: Round,
  ops: number,
): Promise<void> {
  const { prng, clock } = stack;
  const log: string[] = [];
  const model = new FileModel(CAPACITY + MiB);
  const fs = await mounted(stack, memory);
  const fresh = fs.statfs().blocksFree;
  const { mm } = fs.superBlock;
  const file = await fs.open("/f", ALL);
  const direct = await fs.open("/f", { ...ALL, direct: true });
  const unit = prng.below(2) === 0 ? 512 : blockSize;
  const s: Subject = { fs, file, direct, model, prng, unit };
  try {
    for (let i = 0; i < ops; i++) {
      log.push(await OPS[prng.below(OPS.length)]!(s));
      assertEquals((await file.stat()).size, model.size, "size");
      if (prng.below(4) === 0) await clock.sleep(prng.below(2_000_000));
      if (i % 50 === 49) await checkWhole(file, model, "file");
    }
    await checkWhole(file, model, "file");
  } catch (cause) {
    const last = log.slice(-12).join(", ");
    throw new Error(`op ${log.length} after ${last}: ${cause}`, { cause });
  }
  file.close();
  direct.close();
  await unmounted(fs);
  assertEquals(mm.nrPages, 0);

  const again = await mounted(stack, memory);
  {
    using reopened = await again.open("/f");
    await checkWhole(reopened, model, "file after remount");
  }
  await again.unlink("/f");
  await again.sync();
  checkIdle(again.superBlock);
  assertEquals(again.statfs().blocksFree, fresh, "free blocks at the end");
  await unmounted(again);
}

Deno.test.each(rounds(ROUNDS.sequential.seeds).map((r) => [nameOf(r), r]))(
  "one task's calls give what a byte array gives, $0",
  async (_name, round) => {
    await runRound(
      round as Round,
      (stack) => sequential(stack, round as Round, ROUNDS.sequential.ops),
    );
  },
);

// Ranges of the concurrent rounds. No folio crosses a multiple of 2 MiB, so direct
// writes never meet a folio that buffered ones have made dirty.
const SHARED_END = 192 * KiB;
const STRIPED = 512 * KiB;
const STRIPE = 16 * KiB;
const DIRECT = 2 * MiB;
const DIRECT_END = 3 * MiB;
const TAIL = 4 * MiB;

/** One of the tasks of a concurrent round. */
interface Task {
  stack: Stack;
  fs: Mount;
  prng: Prng;
  file: FsFile;
  direct: FsFile;
  ops: number;
  unit: number;
}

/** Lets the others go on for a while, mostly. */
async function pause({ prng, stack }: Task): Promise<void> {
  if (prng.below(3) > 0) await stack.clock.sleep(prng.below(300_000));
}

/** Reads a range that nobody else writes. */
async function checkOwn(
  task: Task,
  file: FsFile,
  model: FileModel,
  at: number,
  len: number,
): Promise<void> {
  const data = new Uint8Array(len);
  const n = await either(
    task.prng.below(3) === 0,
    () => file.readSync(data, { at }),
    () => file.read(data, { at }),
  );
  assertEquals(n, len, `bytes read at ${at}+${len}`);
  assertSameBytes(data, model.data.subarray(at, at + len), at, "own range");
}

/** Writes, punches and reads a range of its own that shares blocks with the next. */
async function writer(task: Task, from: number, end: number): Promise<void> {
  const { prng, file, ops } = task;
  const model = new FileModel(end);
  model.size = end;
  for (let i = 0; i < ops; i++) {
    const at = from + prng.below(end - from);
    const len = 1 + prng.below(end - at);
    const kind = prng.below(8);
    if (kind < 4) {
      const data = randomBytes(prng, len);
      const dsync = prng.below(10) === 0;
      const n = await either(
        prng.below(3) === 0,
        () => file.writeSync(data, { at, dsync }),
        () => file.write(data, { at, dsync }),
      );
      assertEquals(n, len, "bytes written");
      model.write(at, data);
    } else if (kind < 6) {
      const mode = FALLOC_FL_KEEP_SIZE |
        (kind === 4 ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
      await file.fallocate(mode, at, len);
      model.zero(at, len);
    } else if (kind < 7) await file.advise("dontneed", at, len);
    await checkOwn(task, file, model, at, len);
    await pause(task);
  }
  await checkOwn(task, file, model, from, end - from);
}

/** Fills whole stripes with one value each. */
async function stripeWriter(task: Task): Promise<void> {
  const { prng, file, ops } = task;
  for (let i = 0; i < ops; i++) {
    const at = STRIPED + prng.below(4) * STRIPE;
    const data = new Uint8Array(STRIPE).fill(prng.below(256));
    assertEquals(await file.write(data, { at }), STRIPE);
    await pause(task);
  }
}

/** Never sees half of a write: it holds the lock shared, the writer has it alone. */
async function stripeReader(task: Task): Promise<void> {
  const { prng, file, ops } = task;
  const data = new Uint8Array(STRIPE);
  for (let i = 0; i < ops; i++) {
    const at = STRIPED + prng.below(4) * STRIPE;
    const n = await either(
      prng.below(3) === 0,
      () => file.readSync(data, { at }),
      () => file.read(data, { at }),
    );
    assertEquals(n, STRIPE);
    assertEquals(data.findIndex((b) => b !== data[0]), -1, `torn at ${at}`);
    if (prng.below(4) === 0) await file.advise("dontneed", at, STRIPE);
    await pause(task);
  }
}

/** Direct reads and writes, many at once, in a range of its own. */
async function directWriter(task: Task): Promise<void> {
  const { prng, direct, file, ops, unit } = task;
  const model = new FileModel(DIRECT_END);
  model.size = DIRECT_END;
  const chunk = 64 * KiB;
  for (let i = 0; i < ops; i++) {
    const inFlight: Promise<number>[] = [];
    for (let at = DIRECT; at < DIRECT_END; at += chunk) {
      if (prng.below(4) > 0) continue;
      const from = at + unit * prng.below(chunk / unit);
      const units = 1 + prng.below((at + chunk - from) / unit);
      const data = randomBytes(prng, unit * units);
      inFlight.push(direct.write(data, { at: from }));
      model.write(from, data);
    }
    await Promise.all(inFlight);
    const at = DIRECT + prng.below(8) * chunk;
    await checkOwn(task, prng.below(4) === 0 ? file : direct, model, at, chunk);
    if (prng.below(6) === 0) {
      const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
      await direct.fallocate(mode, at, chunk);
      model.zero(at, chunk);
    }
    await pause(task);
  }
  const len = DIRECT_END - DIRECT;
  await checkOwn(task, direct, model, DIRECT, len);
}

/** Moves the end of the file, and writes there. */
async function truncater(task: Task): Promise<void> {
  const { prng, file, ops } = task;
  const model = new FileModel(2 * TAIL);
  model.size = TAIL;
  for (let i = 0; i < ops; i++) {
    if (prng.below(2) === 0) {
      const size = TAIL + prng.below(300 * KiB);
      await either(
        prng.below(3) === 0,
        () => file.truncateSync(size),
        () => file.truncate(size),
      );
      model.truncate(size);
    } else {
      const at = TAIL + prng.below(300 * KiB);
      const data = randomBytes(prng, 1 + prng.below(50 * KiB));
      const n = await file.write(data, { at });
      assertEquals(n, data.length);
      model.write(at, data);
    }
    assertEquals((await file.stat()).size, model.size);
    await pause(task);
    await checkRange(file, model, TAIL, MiB, prng.below(3) === 0, "tail");
  }
}

/** Syncs in every way; nothing fails. */
async function syncer(task: Task): Promise<void> {
  const { prng, file, fs, ops } = task;
  for (let i = 0; i < ops; i++) {
    const kind = prng.below(6);
    if (kind === 0) await file.sync();
    else if (kind === 1) await file.syncData();
    else if (kind === 2) await fs.sync();
    else if (kind === 3) await file.syncRange(0, 0, prng.below(8));
    else if (kind === 4) await file.fiemap({ sync: true });
    else await either(true, () => file.syncSync(), () => file.sync());
    await pause(task);
  }
}

/** Makes, writes, links and removes files beside. */
async function namer(task: Task): Promise<void> {
  const { prng, fs, ops } = task;
  for (let i = 0; i < ops; i++) {
    const path = `/n${prng.below(3)}`;
    {
      using file = await fs.open(path, { ...ALL, truncate: true });
      const data = randomBytes(prng, 1 + prng.below(80 * KiB));
      await file.write(data);
      await pause(task);
      const model = new FileModel(data.length);
      model.write(0, data);
      await checkWhole(file, model, path);
    }
    if (prng.below(2) === 0) await fs.unlink(path);
    else await fs.rename(path, `/n${prng.below(3)}`);
    await pause(task);
  }
}

async function concurrent(
  stack: Stack,
  { blockSize, memory }: Round,
  ops: number,
): Promise<void> {
  const { seed } = stack;
  const fs = await mounted(stack, memory);
  const fresh = fs.statfs().blocksFree;
  const file = await fs.open("/f", ALL);
  const direct = await fs.open("/f", { ...ALL, direct: true });
  await file.truncate(TAIL);
  let stream = 0;
  const task = (): Task => ({
    stack,
    fs,
    file,
    direct,
    ops,
    prng: new Prng(seed, `task ${stream++}`),
    unit: stack.prng.below(2) === 0 ? 512 : blockSize,
  });
  const middle = 1 + stack.prng.below(SHARED_END - 1);
  await allOf([
    writer(task(), 0, middle),
    writer(task(), middle, SHARED_END),
    stripeWriter(task()),
    stripeReader(task()),
    directWriter(task()),
    truncater(task()),
    syncer(task()),
    namer(task()),
  ]);
  await file.sync();
  checkIdle(fs.superBlock);
  const expected = await contents(file);
  file.close();
  direct.close();
  await unmounted(fs);

  const again = await mounted(stack, memory);
  {
    using reopened = await again.open("/f");
    assertSameBytes(await contents(reopened), expected, 0, "after remount");
  }
  await removeAll(again);
  assertEquals(again.statfs().blocksFree, fresh, "free blocks at the end");
  await unmounted(again);
}

/** Waits for all, whichever fails: none may go on in the next test. */
async function allOf(tasks: Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(tasks)) {
    if (result.status === "rejected") throw result.reason;
  }
}

async function contents(file: FsFile): Promise<Uint8Array> {
  const { size } = await file.stat();
  const data = new Uint8Array(size);
  assertEquals(await file.read(data, { at: 0 }), size);
  return data;
}

Deno.test.each(rounds(ROUNDS.concurrent.seeds).map((r) => [nameOf(r), r]))(
  "eight tasks on one file each find what they wrote, $0",
  async (_name, round) => {
    await runRound(
      round as Round,
      (stack) => concurrent(stack, round as Round, ROUNDS.concurrent.ops),
    );
  },
);

/** How a file is filled to the end of the device. */
type Filler = (file: FsFile, at: number, data: Uint8Array) => Promise<number>;

const FILLERS: Record<string, Filler> = {
  "buffered writes": (file, at, data) => file.write(data, { at }),
  "buffered writes in turns": (file, at, data) =>
    either(
      at % 3 === 0,
      () => file.writeSync(data, { at }),
      () => file.write(data, { at }),
    ),
  "direct writes": (file, at, data) => file.write(data, { at }),
  "fallocate": async (file, at, data) => {
    await file.fallocate(0, at, data.length);
    return await file.write(data, { at });
  },
};

/** Adds to a file until there is no room; only the writes may say so. */
async function fill(
  task: Task,
  file: FsFile,
  model: FileModel,
  filler: Filler,
): Promise<void> {
  const { prng, unit } = task;
  for (let full = 0; full < 3;) {
    const units = 1 + prng.below(prng.below(4) === 0 ? 1 * MiB / unit : 64);
    // A gap now and then: the file gets extents of its own.
    const gap = prng.below(3) === 0 ? prng.below(64) : 0;
    const at = Math.ceil(model.size / unit) * unit + gap * unit;
    const data = randomBytes(prng, units * unit);
    let n = 0;
    try {
      n = await filler(file, at, data);
    } catch (error) {
      if (!(error instanceof FsError)) throw error;
      assertEquals(error.code, "ENOSPC");
    }
    if (n > 0) model.write(at, data.subarray(0, n));
    if (n < data.length) full++;
    // What failed half-way may have moved the end of the file.
    const { size } = await file.stat();
    assert(size >= model.size, `size ${size} is below ${model.size}`);
    model.grow(size);
    if (prng.below(20) === 0) await file.sync();
    await pause(task);
  }
}

async function noSpace(
  stack: Stack,
  { blockSize, memory, seed }: Round,
  filler: string,
): Promise<void> {
  const fs = await mounted(stack, memory);
  const fresh = fs.statfs().blocksFree;
  const direct = filler === "direct writes";
  const files: FsFile[] = [];
  const models: FileModel[] = [];
  const tasks: Promise<void>[] = [];
  for (let i = 0; i < 3; i++) {
    const file = await fs.open(`/f${i}`, { ...ALL, direct });
    const model = new FileModel(64 * MiB);
    files.push(file);
    models.push(model);
    const task: Task = {
      stack,
      fs,
      file,
      direct: file,
      ops: 0,
      prng: new Prng(seed, `fill ${i}`),
      unit: blockSize,
    };
    tasks.push(fill(task, file, model, FILLERS[filler]!));
  }
  await allOf(tasks);
  assert(fs.statfs().blocksFree < fresh / 20, "the device is not full");
  // What is written may be written again, and what is punched comes back.
  for (const [i, file] of files.entries()) {
    const model = models[i]!;
    const data = randomBytes(stack.prng, blockSize);
    const at = model.nextData(0);
    if (at % blockSize === 0 && at + blockSize <= model.size) {
      assertEquals(await file.write(data, { at }), blockSize);
      model.write(at, data);
    }
    await file.sync();
    await file.sync();
    await checkWhole(file, model, `f${i}`);
    const middle = Math.floor(model.size / 2);
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    await file.fallocate(mode, middle, 100 * KiB);
    model.zero(middle, 100 * KiB);
  }
  for (const file of files) file.close();
  await unmounted(fs);

  const again = await mounted(stack, memory);
  for (const [i, model] of models.entries()) {
    using file = await again.open(`/f${i}`);
    await checkWhole(file, model, `f${i} after remount`);
  }
  for (const i of models.keys()) await again.unlink(`/f${i}`);
  await again.sync();
  checkIdle(again.superBlock);
  assertEquals(again.statfs().blocksFree, fresh, "free blocks at the end");
  await unmounted(again);
}

function fullRounds(): [string, string, Round][] {
  const list: [string, string, Round][] = [];
  for (const filler of Object.keys(FILLERS)) {
    for (const preset of ["null", "tlc-dc"]) {
      for (const blockSize of [1024, 4096]) {
        for (let i = 0; i < ROUNDS.noSpace.seeds; i++) {
          const memory = (i & 1) === 0 ? 8 * MiB : 64 * MiB;
          const seed = list.length + 1;
          const round = { seed, preset, blockSize, memory, size: 16 * MiB };
          list.push([filler, nameOf(round), round]);
        }
      }
    }
  }
  return list;
}

Deno.test.each(fullRounds())(
  "a full device refuses $0 at once and loses nothing, $1",
  async (filler, _name, round) => {
    await runRound(round, (stack) => noSpace(stack, round, filler));
  },
);

/** What one run of the failing workload met. */
interface Failures {
  /** Calls that failed, and their codes. */
  codes: string[];
  /** Whether the last unmount succeeded. */
  clean: boolean;
}

/** Calls a method; EIO is noted, anything else is wrong. */
async function attempt(
  met: Failures,
  what: string,
  work: () => unknown,
): Promise<boolean> {
  const code = await codeOf(work);
  if (code === "") return true;
  met.codes.push(`${what}: ${code}`);
  assertEquals(code, "EIO", what);
  return false;
}

/** A sync that fails is told once: the next one succeeds, and both files hear of it. */
async function syncBoth(
  device: FailingDevice,
  met: Failures,
  files: FsFile[],
): Promise<void> {
  const before = met.codes.length;
  for (const file of files) await attempt(met, "fsync", () => file.sync());
  if (met.codes.length === before) return;
  if (device.fails(device.requests + 1)) return;
  if (device.failedRead) {
    // A folio that could not be mapped fails those that were mapped after it. They end
    // later, which is one more thing to be told of: nobody waits for them after an EIO.
    await device.clock.sleep(MSEC);
    for (const file of files) await attempt(met, "fsync", () => file.sync());
  }
  for (const file of files) await file.sync();
}

/** Uses every path to the device, one failure in between. */
async function failing(
  device: FailingDevice,
  memory: number,
  prng: Prng,
  met: Failures,
): Promise<void> {
  let fs: Mount | null = null;
  const tried = await attempt(met, "mount", async () => {
    fs = await mount(device, xfs, { memory });
  });
  if (!tried) return;
  const sb = fs!.superBlock;
  met.clean = false;
  try {
    await useFiles(fs!, device, prng, met);
  } catch (error) {
    // A read that fails when half of a change of metadata is done shuts it down.
    if (!sb.dead || !(error instanceof FsError)) throw error;
    assertEquals(error.code, "EIO");
    met.codes.push("shut down");
  }
  met.clean = await attempt(met, "unmount", () => fs!.unmount());
  checkNoFolios(sb);
}

/** Makes or opens a file; where that fails, what comes later works. */
async function openSome(
  fs: Mount,
  met: Failures,
  path: string,
  options: OpenOptions = ALL,
): Promise<FsFile> {
  for (let tries = 0; tries < 8 && !fs.superBlock.dead; tries++) {
    let file: FsFile | null = null;
    const work = async () => file = await fs.open(path, options);
    if (await attempt(met, `open ${path}`, work)) return file!;
  }
  return await fs.open(path, options);
}

async function useFiles(
  fs: Mount,
  device: FailingDevice,
  prng: Prng,
  met: Failures,
): Promise<void> {
  const step = (what: string, work: () => unknown) => attempt(met, what, work);
  let found: FsFile | null = null;
  await step("open /old", async () => found = await fs.open("/old"));
  if (found !== null) {
    const old: FsFile = found;
    const data = new Uint8Array(100 * KiB);
    await step("read", () => old.read(data, { at: 0 }));
    await step("read", () => old.readSync(data, { at: 200 * KiB }));
    old.close();
  }
  using a = await openSome(fs, met, "/new");
  using b = await openSome(fs, met, "/new");
  const past = { ...ALL, direct: true };
  using direct = await openSome(fs, met, "/new", past);
  const bytes = randomBytes(prng, 200 * KiB + 100);
  await a.write(bytes, { at: 0 });
  await syncBoth(device, met, [a, b]);
  await step("dontneed", () => a.advise("dontneed"));
  await step("read", () => a.read(bytes, { at: 0 }));
  await step("overwrite", () => a.write(bytes.subarray(0, 100), { at: 77 }));
  await step("dsync", () => a.write(bytes, { at: 10 * KiB, dsync: true }));
  await syncBoth(device, met, [a, b]);
  const chunk = bytes.subarray(0, 64 * KiB);
  await step("direct", () => direct.write(chunk, { at: 64 * KiB }));
  await step("direct", () => direct.write(chunk, { at: MiB, dsync: true }));
  await step("direct", () => direct.read(chunk, { at: 32 * KiB }));
  await step("direct", () => direct.readSync(chunk, { at: MiB }));
  await step("part", () => direct.write(chunk.subarray(512), { at: 512 }));
  await step("punch", () =>
    a.fallocate(
      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
      33_000,
      44_000,
    ));
  await step("zero", () => a.fallocate(FALLOC_FL_ZERO_RANGE, 5_000, 99_000));
  await step("truncate", () => a.truncate(120_001));
  await step("extend", () => a.truncate(800_000));
  await step("write", () => a.write(bytes, { at: 900_001 }));
  await step("syncRange", () => a.syncRange(0, 0));
  await step("sync", () => fs.sync());
  await syncBoth(device, met, [a, b]);
  direct.close();
  b.close();
  await step("mkdir", () => fs.mkdir("/d"));
  await step("rename", () => fs.rename("/new", "/d/new"));
  await step("unlink", () => fs.unlink("/old"));
  await step("sync", () => fs.sync());
  await step("write", () => a.writeSync(bytes, { at: 0 }));
  a.close();
  // Whatever has failed: what comes later works.
  using again = await openSome(fs, met, "/again");
  await again.write(chunk, { at: 3 });
  await step("fsync", () => again.sync());
  again.close();
  checkIdle(fs.superBlock);
}

/** Fails each request of the workload in turn. */
async function sweep(stack: Stack, round: Round, kind: Fault): Promise<void> {
  const { seed, memory } = round;
  const { nvme, clock } = stack;
  for (let n = 1;; n++) {
    await mkfsXfs(nvme, { blockSize: round.blockSize });
    await leaveOldFile(stack, memory);
    const device = new FailingDevice(nvme);
    device.fails = (nth) => nth >= n && nth < n + kind.failures;
    device.atOnce = kind.atOnce;
    const met: Failures = { codes: [], clean: true };
    try {
      const prng = new Prng(seed, "failing");
      await unlessHung(clock, failing(device, memory, prng, met));
      await remount(stack, memory, met);
    } catch (cause) {
      const codes = met.codes.join(", ");
      throw new Error(`request ${n} failed; ${codes}; ${cause}`, { cause });
    }
    if (device.requests < n) {
      assertEquals(met.codes, []);
      return;
    }
  }
}

/** A clean image mounts; one whose unmount failed does, or says that it cannot. */
async function remount(
  stack: Stack,
  memory: number,
  { clean }: Failures,
): Promise<void> {
  let fs: Mount | null = null;
  const code = await codeOf(async () => fs = await mounted(stack, memory));
  if (clean) assertEquals(code, "", "mount after a clean unmount");
  if (code !== "") assertEquals(code, "EUCLEAN");
  if (fs !== null) await unmounted(fs);
}

async function leaveOldFile(stack: Stack, memory: number): Promise<void> {
  const fs = await mounted(stack, memory);
  const file = await fs.open("/old", ALL);
  await file.write(randomBytes(stack.prng, 400 * KiB));
  file.close();
  await fs.unmount();
}

/** How requests fail. */
interface Fault {
  /** How many in a row. */
  failures: number;
  /** In submission, and not later. */
  atOnce: boolean;
}

const FAULTS: [string, Fault][] = [
  ["one request, later", { failures: 1, atOnce: false }],
  ["one request, at once", { failures: 1, atOnce: true }],
  ["five requests, later", { failures: 5, atOnce: false }],
];

const FAULTY_ROUNDS = FAULTS.flatMap(([name, kind], i) =>
  ["null", "mlc-970pro"].map((preset): [string, string, Round, Fault] => {
    const blockSize = i === 0 ? 1024 : 4096;
    const size = 32 * MiB;
    const round = { seed: 1, preset, blockSize, memory: 8 * MiB, size };
    return [name, nameOf(round), round, kind];
  })
);

Deno.test.each(FAULTY_ROUNDS)(
  "a device that fails $0 is told of once, and hangs nothing, $1",
  async (_fault, _name, round, kind) => {
    await runRound(round, (stack) => sweep(stack, round, kind));
  },
);

/** Where tasks meet: in a few folios, in a file, in one that memory does not hold. */
const SPANS = [100 * KiB, 2 * MiB, 12 * MiB];

/** Files beside, enough for several blocks of inodes. */
const SMALL_FILES = 40;

async function makeSmall(stack: Stack, memory: number): Promise<void> {
  const fs = await mounted(stack, memory);
  for (let i = 0; i < SMALL_FILES; i++) {
    using file = await fs.open(`/s${i}`, ALL);
    await file.truncate(i);
  }
  await unmounted(fs);
}

/** Names and sizes of all files. */
async function listing(fs: Mount): Promise<string[]> {
  const list: string[] = [];
  for await (const { name } of fs.readDir("/")) {
    const { size, nlink, ino } = await fs.stat(`/${name}`);
    list.push(`${name}: inode ${ino}, ${size} bytes, ${nlink} links`);
  }
  return list.sort();
}

function nameOnly(entry: string): string {
  return entry.slice(0, entry.indexOf(","));
}

async function removeAll(fs: Mount): Promise<void> {
  const names = await Array.fromAsync(fs.readDir("/"));
  for (const { name } of names) await fs.unlink(`/${name}`);
  await fs.sync();
}

/** Calls whatever there is, in any order; nothing but EIO may come of it. */
async function careless(
  task: Task,
  met: Failures,
  span: number,
): Promise<void> {
  const { prng, file, direct, fs, ops, unit } = task;
  const data = randomBytes(prng, 128 * KiB);
  const near = () => prng.below(span);
  const small = () => `/s${prng.below(SMALL_FILES)}`;
  const calls: (() => unknown)[] = [
    () => file.write(data.subarray(prng.below(data.length)), { at: near() }),
    () => file.write(data.subarray(0, 99), { at: near(), dsync: true }),
    () => file.writeSync(data, { at: near() }),
    () => file.write(data, { at: near(), dontcache: true }),
    () => file.read(data, { at: near() }),
    () => file.read(data.subarray(0, PAGE), { at: near() & -PAGE }),
    () => file.readSync(data, { at: near() }),
    () => direct.write(data, { at: near() & -unit }),
    () => direct.read(data, { at: near() & -unit }),
    () => file.truncate(near()),
    () => file.fallocate(prng.below(2), near(), near() + 1),
    () => file.fallocate(3, near(), near() + 1),
    () => file.fallocate(FALLOC_FL_ZERO_RANGE, near(), near() + 1),
    () => file.sync(),
    () => file.syncSync(),
    () => file.syncRange(near(), near()),
    () => file.advise("dontneed"),
    () => file.seek(near(), SEEK_DATA),
    () => file.fiemap({ sync: true }),
    () => fs.sync(),
    () => fs.open("/f").then((f) => f.close()),
    () => fs.syncSync(),
    () => fs.truncate(small(), prng.below(100)),
    () => fs.truncateSync(small(), prng.below(100)),
    () => fs.stat(small()),
    () => fs.statSync(small()),
    () => fs.unlink(small()),
    () => fs.unlinkSync(small()),
    () => fs.rename(small(), small()),
    () => fs.open(small(), ALL).then((f) => f.close()),
    () => fs.openSync(small(), ALL).close(),
  ];
  for (let i = 0; i < ops; i++) {
    const call = prng.below(calls.length);
    const code = await codeOf(calls[call]!);
    const allowed = ["", "EIO", "EAGAIN", "ENXIO", "ENOENT"];
    assert(allowed.includes(code), `call ${call}: ${code}`);
    if (code !== "") met.codes.push(code);
    await pause(task);
  }
}

/** Six tasks that mind nobody: what is left must be the same in memory and, after
 * that, on the device. */
async function storm(
  stack: Stack,
  round: Round,
  failsOneIn: number,
): Promise<void> {
  const { seed, memory, blockSize } = round;
  await makeSmall(stack, memory);
  const device = new FailingDevice(stack.nvme);
  const fs = await mount(device, xfs, { memory });
  const file = await fs.open("/f", ALL);
  const direct = await fs.open("/f", { ...ALL, direct: true });
  const met: Failures = { codes: [], clean: false };
  const chance = new Prng(seed, "chance");
  device.atOnce = chance.below(2) === 0;
  device.fails = () => failsOneIn > 0 && chance.below(failsOneIn) === 0;
  const span = SPANS[chance.below(SPANS.length)]!;
  const tasks: Promise<void>[] = [];
  for (let i = 0; i < 6; i++) {
    const prng = new Prng(seed, `careless ${i}`);
    const ops = ROUNDS.storm.ops;
    const task = { stack, fs, file, direct, ops, prng, unit: blockSize };
    tasks.push(careless(task, met, span));
  }
  await allOf(tasks);
  device.fails = () => false;
  // A sync to tell, a sync to find that all is told.
  await attempt(met, "fsync", () => file.sync());
  await attempt(met, "fsync", () => direct.sync());
  await file.sync();
  await direct.sync();
  checkIdle(fs.superBlock);
  const cached = await contents(file);
  await file.advise("dontneed");
  const expected = await contents(file);
  if (failsOneIn === 0) assertSameBytes(expected, cached, 0, "read anew");
  file.close();
  direct.close();
  const files = await listing(fs);
  await fs.unmount();
  checkNoFolios(fs.superBlock);
  const again = await mounted(stack, memory);
  {
    using reopened = await again.open("/f");
    const found = await contents(reopened);
    // Where writing failed, the file ends where what was written does.
    const length = failsOneIn > 0 ? found.length : expected.length;
    const kept = expected.subarray(0, length);
    assertSameBytes(found, kept, 0, "after remount");
  }
  const left = await listing(again);
  if (failsOneIn === 0) assertEquals(left, files, "files after remount");
  assertEquals(left.map(nameOnly), files.map(nameOnly), "names after remount");
  await removeAll(again);
  checkIdle(again.superBlock);
  await unmounted(again);
}

Deno.test.each(
  rounds(ROUNDS.storm.seeds).flatMap((r): [number, string, Round][] =>
    [0, 10].map((failsOneIn) => [failsOneIn, nameOf(r), r])
  ),
)(
  "six tasks that mind nobody, where one request in $0 fails, $1",
  async (failsOneIn, _name, round) => {
    await runRound(round, (stack) => storm(stack, round, failsOneIn));
  },
);

/** Run by another process: tells what the files of an image contain, and doubles each. */
const REOPEN = `
  import { createNvme, FileMedia, mount, VirtualClock, xfs } from
    ${JSON.stringify(new URL("../../../mod.ts", import.meta.url).href)};
  import { crc32c } from
    ${JSON.stringify(new URL("../../../lib/crc32c.ts", import.meta.url).href)};
  const media = FileMedia.open(Deno.args[0]);
  const nvme = createNvme(new VirtualClock(), { media });
  const fs = await mount(nvme, xfs);
  const sums = {};
  for await (const { name } of fs.readDir("/")) {
    const file = await fs.open("/" + name, { read: true, write: true });
    const { size } = await file.stat();
    const data = new Uint8Array(size);
    await file.read(data, { at: 0 });
    sums[name] = [size, crc32c(data)];
    await file.write(data, { at: size });
    file.close();
  }
  await fs.unmount();
  nvme.close();
  console.log(JSON.stringify(sums));
`;

async function reopened(image: string): Promise<Record<string, number[]>> {
  const script = `${image}.ts`;
  await Deno.writeTextFile(script, REOPEN);
  const child = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", "--allow-read", "--allow-write", script, image],
  }).output();
  const stderr = new TextDecoder().decode(child.stderr);
  assertEquals(child.code, 0, stderr);
  return JSON.parse(new TextDecoder().decode(child.stdout));
}

function imageDevice(path: string): NvmeDevice {
  const media = FileMedia.open(path, { size: 32 * MiB });
  return createNvme(new VirtualClock(), { media, preset: "tlc-dc" });
}

async function handOver(image: string): Promise<void> {
  const prng = new Prng(1, "image");
  const models = new Map<string, FileModel>();
  {
    using nvme = imageDevice(image);
    await mkfsXfs(nvme, { blockSize: 1024 });
    await using fs = await mount(nvme, xfs);
    for (let i = 0; i < 5; i++) {
      using file = await fs.open(`/f${i}`, ALL);
      const model = new FileModel(4 * MiB);
      models.set(`f${i}`, model);
      for (let n = 0; n < 20; n++) {
        const at = prng.below(MiB);
        const data = randomBytes(prng, 1 + prng.below(50_000));
        await file.write(data, { at, dsync: n % 5 === 0 });
        model.write(at, data);
      }
    }
  }
  const sums = await reopened(image);
  assertEquals(Object.keys(sums).sort(), [...models.keys()]);
  using nvme = imageDevice(image);
  await using fs = await mount(nvme, xfs);
  for (const [name, model] of models) {
    const data = model.data.slice(0, model.size);
    assertEquals(sums[name], [model.size, crc32c(data)], name);
    model.write(model.size, data);
    using file = await fs.open(`/${name}`);
    await checkWhole(file, model, name);
  }
}

const mayRun = await Deno.permissions.query({ name: "run" });

Deno.test({
  name: "an image in a file goes to another process and back" +
    (mayRun.state === "granted" ? "" : " (needs --allow-run)"),
  ignore: mayRun.state !== "granted",
  fn: async () => {
    const dir = await Deno.makeTempDir();
    try {
      await handOver(`${dir}/image`);
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  },
});
