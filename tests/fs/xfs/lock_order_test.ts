/**
 * Which locks an operation takes, and with which others held.
 *
 * Goal: the table of locks per operation, and no order that contradicts another.
 * Method: every lock is watched while one call runs alone, and while many run at
 * once. Oracle: the kernel's table for XFS.
 */
import { assertEquals } from "@std/assert";
import {
  createNvme,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_UNSHARE_RANGE,
  FALLOC_FL_ZERO_RANGE,
  type FsFile,
  type MemoryMapping,
  mkfsXfs,
  type Mount,
  mount,
  SEEK_HOLE,
  swapHeader,
  xfs,
} from "../../../mod.ts";
import { MSEC } from "../../../lib/clock.ts";
import { Prng } from "../../../lib/prng.ts";
import { TaskClock, taskwise, watchLocks } from "../../lockdep.ts";
import { assertCleanImage } from "../xfs/clean.ts";

interface Stack {
  clock: TaskClock;
  fs: Mount;
  buffered: FsFile;
  direct: FsFile;
  map: MemoryMapping;
  /** Another file, of a larger inode number. */
  other: FsFile;
}

/** A file opened twice and mapped, on a device that takes its time. */
async function stack(): Promise<Stack> {
  const clock = new TaskClock();
  const device = createNvme(clock, {
    size: 64 * 2 ** 20,
    preset: "mlc-970pro",
  });
  await mkfsXfs(device);
  const fs = taskwise(await mount(device, xfs));
  const options = { read: true, write: true, create: true };
  const buffered = taskwise(await fs.open("/a", options));
  const direct = taskwise(await fs.open("/a", { ...options, direct: true }));
  const other = taskwise(await fs.open("/b", options));
  const all = { length: 65536, write: true };
  const map = taskwise(await buffered.mmap(all));
  return { clock, fs, buffered, direct, map, other };
}

async function close(
  { fs, buffered, direct, map, other }: Stack,
): Promise<void> {
  map.unmap();
  buffered.close();
  direct.close();
  other.close();
  await fs.unmount();
  assertCleanImage(fs.superBlock.bdev);
}

const data = new Uint8Array(8192).fill(1);

interface Case {
  name: string;
  before?: (s: Stack) => Promise<unknown>;
  run: (s: Stack) => Promise<unknown>;
  taken: string[];
}

const written = (s: Stack) => s.buffered.write(data, { at: 0 });
const stored = async (s: Stack) => {
  await written(s);
  await s.buffered.sync();
};
const shared = async (s: Stack) => {
  await stored(s);
  await s.other.cloneRange(s.buffered);
};
const onePage = (s: Stack) =>
  s.buffered.write(data.subarray(0, 4096), { at: 0 });
const IOLOCK = "i_rwsem exclusive";
const IOLOCK_SHARED = "i_rwsem shared";
const MMAPLOCK = `${IOLOCK} > invalidate_lock exclusive`;
/** The IOLOCKs of two files, and then their MMAPLOCKs. */
const TWO_FILES = [1, 2, 3, 4].map((n) =>
  [IOLOCK, IOLOCK, "invalidate_lock exclusive", "invalidate_lock exclusive"]
    .slice(0, n).join(" > ")
);
const FAULT = "invalidate_lock shared";
const FOLIO = "folio lock exclusive";

const cases: Case[] = [
  {
    name: "buffered write",
    run: written,
    taken: [IOLOCK, `${IOLOCK} > ILOCK exclusive`, `${IOLOCK} > ${FOLIO}`],
  },
  {
    name: "buffered read of what is cached",
    before: written,
    run: (s) => s.buffered.read(data, { at: 0 }),
    taken: [IOLOCK_SHARED],
  },
  {
    name: "buffered read that instantiates a folio",
    before: async (s) => {
      await s.buffered.write(data.subarray(0, 4096), { at: 0 });
      await s.buffered.sync();
      await s.buffered.advise("dontneed");
    },
    run: (s) => s.buffered.read(data, { at: 0 }),
    taken: [
      IOLOCK_SHARED,
      `${IOLOCK_SHARED} > invalidate_lock shared`,
      `${IOLOCK_SHARED} > invalidate_lock shared > ${FOLIO}`,
      `${IOLOCK_SHARED} > invalidate_lock shared > ${FOLIO} > ILOCK shared`,
    ],
  },
  {
    name: "writeback, and the end of its I/O",
    before: written,
    run: (s) => s.buffered.sync(),
    taken: [
      FOLIO,
      `${FOLIO} > ILOCK shared`,
      `${FOLIO} > ILOCK exclusive`,
      "ILOCK exclusive",
    ],
  },
  {
    name: "direct read",
    before: stored,
    run: (s) => s.direct.read(data, { at: 0 }),
    taken: [IOLOCK_SHARED, `${IOLOCK_SHARED} > ILOCK shared`],
  },
  {
    name: "direct write, aligned",
    before: stored,
    run: (s) => s.direct.write(data, { at: 0 }),
    taken: [
      IOLOCK_SHARED,
      `${IOLOCK_SHARED} > ${FOLIO}`,
      `${IOLOCK_SHARED} > ILOCK shared`,
    ],
  },
  {
    name: "direct write, aligned, that extends the file",
    run: (s) => s.direct.write(data, { at: 0 }),
    taken: [
      IOLOCK_SHARED,
      `${IOLOCK_SHARED} > ILOCK shared`,
      `${IOLOCK_SHARED} > ILOCK exclusive`,
      "ILOCK exclusive",
    ],
  },
  {
    name: "direct write, unaligned, over what is written",
    before: stored,
    run: (s) => s.direct.write(data.subarray(0, 512), { at: 512 }),
    taken: [
      IOLOCK_SHARED,
      `${IOLOCK_SHARED} > ${FOLIO}`,
      `${IOLOCK_SHARED} > ILOCK shared`,
    ],
  },
  {
    name: "direct write, unaligned, at the end of the file",
    run: (s) => s.direct.write(data.subarray(0, 512), { at: 0 }),
    taken: [
      IOLOCK,
      // It waits for the end of its I/O, and so ends it itself.
      `${IOLOCK} > ILOCK shared`,
      `${IOLOCK} > ILOCK exclusive`,
    ],
  },
  {
    name: "read fault of what is cached",
    before: onePage,
    run: (s) => s.map.load(0, data.subarray(0, 100)),
    taken: [],
  },
  {
    name: "read fault that instantiates a folio",
    before: async (s) => {
      await onePage(s);
      await s.buffered.sync();
      await s.buffered.advise("dontneed");
    },
    run: (s) => s.map.load(0, data.subarray(0, 100)),
    taken: [FAULT, `${FAULT} > ${FOLIO}`, `${FAULT} > ${FOLIO} > ILOCK shared`],
  },
  {
    name: "page_mkwrite",
    before: async (s) => {
      await onePage(s);
      await s.buffered.sync();
    },
    run: (s) => s.map.store(0, data.subarray(0, 100)),
    taken: [
      // The fault finds the folio first.
      FOLIO,
      FAULT,
      `${FAULT} > ${FOLIO}`,
      `${FAULT} > ${FOLIO} > ILOCK exclusive`,
    ],
  },
  {
    name: "page_mkwrite over a hole",
    before: (s) => s.buffered.truncate(4096),
    run: (s) => s.map.store(0, data.subarray(0, 100)),
    taken: [
      FAULT,
      `${FAULT} > ${FOLIO}`,
      `${FAULT} > ${FOLIO} > ILOCK shared`,
      `${FAULT} > ${FOLIO} > ILOCK exclusive`,
    ],
  },
  {
    name: "fallocate",
    run: (s) => s.buffered.fallocate(0, 0, 8192),
    taken: [IOLOCK, MMAPLOCK, `${MMAPLOCK} > ILOCK exclusive`],
  },
  {
    name: "zeroing a range",
    before: stored,
    run: (s) => s.buffered.fallocate(FALLOC_FL_ZERO_RANGE, 100, 5000),
    taken: [
      IOLOCK,
      MMAPLOCK,
      `${MMAPLOCK} > ${FOLIO}`,
      `${MMAPLOCK} > ILOCK exclusive`,
    ],
  },
  {
    name: "bmap",
    before: stored,
    run: (s) => s.buffered.bmap(0),
    taken: ["ILOCK shared"],
  },
  {
    name: "punch",
    before: stored,
    run: (s) =>
      s.buffered.fallocate(
        FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
        100,
        5000,
      ),
    taken: [
      IOLOCK,
      MMAPLOCK,
      `${MMAPLOCK} > ILOCK exclusive`,
      `${MMAPLOCK} > ${FOLIO}`,
    ],
  },
  {
    name: "truncate down",
    before: stored,
    run: (s) => s.buffered.truncate(5000),
    taken: [
      IOLOCK,
      MMAPLOCK,
      `${MMAPLOCK} > ILOCK exclusive`,
      `${MMAPLOCK} > ${FOLIO}`,
    ],
  },
  {
    name: "unsharing a range",
    before: (s) => shared(s),
    run: (s) => s.buffered.fallocate(FALLOC_FL_UNSHARE_RANGE, 0, 8192),
    taken: [
      IOLOCK,
      MMAPLOCK,
      `${MMAPLOCK} > ${FOLIO}`,
      `${MMAPLOCK} > ${FOLIO} > ILOCK shared`,
      `${MMAPLOCK} > ${FOLIO} > ILOCK exclusive`,
      `${MMAPLOCK} > ILOCK exclusive`,
      // It is written back.
      "ILOCK exclusive",
    ],
  },
  {
    name: "sharing blocks with another file",
    before: stored,
    run: (s) => s.other.cloneRange(s.buffered),
    taken: [
      ...TWO_FILES,
      // Both become files that may share blocks.
      `${TWO_FILES.at(-1)} > ILOCK exclusive`,
      `${TWO_FILES.at(-1)} > ILOCK exclusive > ILOCK exclusive`,
    ],
  },
  {
    name: "sharing blocks with another file once more",
    before: (s) => shared(s),
    run: (s) => s.buffered.cloneRange(s.other),
    taken: [
      ...TWO_FILES,
      `${TWO_FILES.at(-1)} > ${FOLIO}`,
      `${TWO_FILES.at(-1)} > ILOCK exclusive`,
    ],
  },
  {
    name: "swapon, and swapoff",
    before: async (s) => {
      await s.buffered.write(new Uint8Array(65536), { at: 0 });
      await s.buffered.write(swapHeader(16), { at: 0 });
      await s.buffered.sync();
    },
    run: async (s) => {
      await s.fs.swapon("/a");
      await s.fs.swapoff("/a");
    },
    taken: [IOLOCK, `${IOLOCK} > ILOCK shared`],
  },
  {
    name: "fiemap",
    before: stored,
    run: (s) => s.buffered.fiemap(),
    taken: [IOLOCK_SHARED, `${IOLOCK_SHARED} > ILOCK shared`],
  },
  {
    name: "lseek SEEK_HOLE",
    before: stored,
    run: (s) => s.buffered.seek(0, SEEK_HOLE),
    taken: ["f_pos exclusive", "f_pos exclusive > ILOCK shared"],
  },
];

for (const { name, before, run, taken } of cases) {
  Deno.test(`XFS takes the locks of the table for ${name}`, async () => {
    const s = await stack();
    await before?.(s);
    const watched = await watchLocks(async () => {
      await run(s);
      await s.clock.sleep(MSEC);
    });
    assertEquals([...watched.taken].sort(), taken.toSorted());
    await close(s);
  });
}

/** One call of any kind, whatever comes of it. */
function anyCall(s: Stack, random: Prng): Promise<unknown> {
  const at = random.below(56) * 1024;
  const part = data.subarray(0, 512 << random.below(5));
  switch (random.below(13)) {
    case 0:
      return s.buffered.read(part.slice(), { at });
    case 1:
      return s.direct.read(part.slice(), { at });
    case 2:
      return s.direct.write(part, { at });
    case 3:
      return s.buffered.truncate(at);
    case 4:
      return s.buffered.fallocate(FALLOC_FL_ZERO_RANGE, at, 3000);
    case 5:
      return s.buffered.sync();
    case 6:
      return s.fs.rename("/x", "/y").catch(() => s.fs.rename("/y", "/x"));
    case 7:
      return s.buffered.fiemap();
    case 8:
      return s.map.load(at, part.slice());
    case 9:
      return s.map.store(at, part);
    // Each the other's source: one order of their locks would not do.
    case 10:
      return s.buffered.cloneRange(s.other);
    case 11:
      return s.other.cloneRange(s.buffered);
    default:
      return s.buffered.write(part, { at });
  }
}

Deno.test("no two tasks take XFS's locks in orders that contradict each other", async () => {
  const s = await stack();
  (await s.fs.open("/x", { write: true, create: true })).close();
  const { orders } = await watchLocks(async () => {
    const tasks = Array.from({ length: 8 }, async (_, i) => {
      const random = new Prng(i, "locks");
      for (let n = 0; n < 60; n++) {
        await anyCall(s, random).catch(() => {});
      }
    });
    await Promise.all(tasks);
  });
  await close(s);
  assertEquals(orders.includes("folio lock -> ILOCK"), true);
});
