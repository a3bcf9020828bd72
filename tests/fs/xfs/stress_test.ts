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
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  FIEMAP_EXTENT_DELALLOC,
  FIEMAP_EXTENT_UNWRITTEN,
  FsError,
  type FsFile,
  type Mount,
  SEEK_DATA,
  SEEK_HOLE,
} from "../../../mod.ts";
import { Prng } from "../../../lib/prng.ts";
import {
  ALL,
  assertSameBytes,
  checkIdle,
  checkRange,
  checkWhole,
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
  unmounted,
} from "./stress.ts";

/** Rounds of each kind, and what one does: more of them take longer. */
const ROUNDS = {
  sequential: { seeds: Number(Deno.env.get("SEEDS") ?? 1), ops: 150 },
  concurrent: { seeds: Number(Deno.env.get("SEEDS") ?? 1), ops: 30 },
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
      assert(start === end || model.nextData(start) >= end, `unwritten data at ${logical}`);
    }
  }
  assert(pos >= model.size || model.nextData(pos) === model.size, "data after");
  return `fiemap ${sync}`;
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
  const names = await Array.fromAsync(again.readDir("/"));
  for (const { name } of names) await again.unlink(`/${name}`);
  await again.sync();
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
