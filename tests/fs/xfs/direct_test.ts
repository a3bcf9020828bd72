/**
 * How XFS uses iomap for direct I/O and for what must agree with it: which lock is held,
 * when sizes move, what may be atomic, where blocks are.
 */
import { assert, assertEquals } from "@std/assert";
import {
  createNvme,
  mkfsXfs,
  mount,
  type NvmeDevice,
  type NvmeOptions,
  VirtualClock,
  xfs,
} from "../../../mod.ts";
import {
  type BlockTraceEvent,
  setBlockTracer,
} from "../../../block/blktrace.ts";
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  type File,
  FMODE_READ,
  FMODE_WRITE,
  SuperBlock,
} from "../../../fs/fs.ts";
import { ioctlFibmap } from "../../../fs/ioctl.ts";
import {
  IOCB_ATOMIC,
  IOCB_DIRECT,
  IOCB_DSYNC,
  IOCB_NOWAIT,
  IOCB_WRITE,
  Kiocb,
} from "../../../fs/kiocb.ts";
import { vfsOpen } from "../../../fs/namei.ts";
import { fileClose, vfsFallocate } from "../../../fs/open.ts";
import { vfsRead, vfsWrite } from "../../../fs/read-write.ts";
import { vfsCloneFileRange } from "../../../fs/remap-range.ts";
import { vfsGetattr } from "../../../fs/stat.ts";
import { vfsMount, vfsUnmount } from "../../../fs/super.ts";
import { vfsFsync } from "../../../fs/sync.ts";
import type { XfsInode } from "../../../fs/xfs/inode.ts";
import { xfsDirectWriteIomapOps } from "../../../fs/xfs/iomap.ts";
import {
  Iomap,
  IOMAP_ATOMIC,
  IOMAP_DIO_FORCE_WAIT,
  IOMAP_DIRECT,
  IOMAP_F_ATOMIC_BIO,
  IOMAP_F_NEW,
  IOMAP_HOLE,
  IOMAP_WRITE,
} from "../../../iomap/iomap.ts";
import { type IomapTraceEvent, setIomapTracer } from "../../../iomap/trace.ts";
import {
  EAGAIN,
  EINVAL,
  EIO,
  EIOCBQUEUED,
  ENOPROTOOPT,
  ENOSPC,
  EOPNOTSUPP,
} from "../../../lib/errno.ts";
import { IovIter } from "../../../lib/iov-iter.ts";
import { Mm } from "../../../mm/mm.ts";
import { assertCleanImage } from "../xfs/clean.ts";

const KiB = 2 ** 10;
const MiB = 2 ** 20;

interface Setup {
  device?: Partial<NvmeOptions>;
  blockSize?: number;
  reflink?: boolean;
  options?: string;
}

/** A mounted file system with one file, open for both kinds of I/O. */
interface Stack {
  nvme: NvmeDevice;
  sb: SuperBlock;
  ip: XfsInode;
  file: File;
  direct: File;
}

async function openFile(
  sb: SuperBlock,
  iocbFlags: number,
  path = "/f",
): Promise<File> {
  const file = await vfsOpen(sb, path, {
    mode: FMODE_READ | FMODE_WRITE,
    iocbFlags,
    create: true,
    exclusive: false,
    truncate: false,
    permissions: 0o644,
  });
  assert(typeof file !== "number");
  return file;
}

async function onXfs(
  work: (stack: Stack) => Promise<void>,
  { device = {}, blockSize = 4096, reflink = true, options = "" }: Setup = {},
): Promise<void> {
  const nvme = createNvme(new VirtualClock(), {
    size: 64 * MiB,
    preset: "optane",
    ...device,
  });
  await mkfsXfs(nvme, { blockSize, reflink });
  const sb = await vfsMount(xfs, nvme, new Mm(nvme.clock), options);
  assert(sb instanceof SuperBlock);
  const file = await openFile(sb, 0);
  const direct = await openFile(sb, IOCB_DIRECT);
  const ip = file.inode as XfsInode;
  try {
    await work({ nvme, sb, ip, file, direct });
  } finally {
    setIomapTracer(null);
    setBlockTracer(null);
  }
  fileClose(file);
  fileClose(direct);
  assertEquals(await vfsUnmount(sb), 0);
  assertCleanImage(nvme);
  nvme.close();
}

function write(
  file: File,
  pos: number,
  data: Uint8Array | Uint8Array[],
  rwf = 0,
) {
  const iocb = new Kiocb(file, pos, file.iocbFlags);
  const from = Array.isArray(data) ? new IovIter(...data) : new IovIter(data);
  return vfsWrite(iocb, from, rwf);
}

async function read(file: File, pos: number, len: number): Promise<Uint8Array> {
  const data = new Uint8Array(len);
  const iocb = new Kiocb(file, pos, file.iocbFlags);
  const n = await vfsRead(iocb, new IovIter(data), 0);
  assert(n >= 0);
  return data.subarray(0, n);
}

/** A write that goes on. */
function later(file: File, pos: number, data: Uint8Array) {
  const told = Promise.withResolvers<number>();
  const iocb = new Kiocb(file, pos, file.iocbFlags);
  iocb.kiComplete = (_iocb, ret) => told.resolve(ret);
  return { ret: vfsWrite(iocb, new IovIter(data), 0), told: told.promise };
}

function bytes(len: number, value: number): Uint8Array {
  return new Uint8Array(len).fill(value);
}

/** Events from now on. */
function trace(): IomapTraceEvent[] {
  const events: IomapTraceEvent[] = [];
  setIomapTracer((event) => events.push(event));
  return events;
}

/** Another file gets the same blocks. */
async function clone(sb: SuperBlock, fileIn: File): Promise<void> {
  const fileOut = await openFile(sb, 0, "/clone");
  const range = { fileIn, posIn: 0, fileOut, posOut: 0, len: 0 };
  assertEquals(await vfsCloneFileRange(range), 0);
  fileClose(fileOut);
}

Deno.test("iomap corner case 151: bmap of a file that may share blocks is 0", async () => {
  await onXfs(async ({ sb, ip, file }) => {
    await write(file, 0, bytes(8192, 1));
    const first = await ioctlFibmap(file, 0);
    assert(first > 0);
    assertEquals(await ioctlFibmap(file, 1), first + 1);
    await clone(sb, file);
    assertEquals(await ioctlFibmap(file, 0), 0);
    assertEquals(vfsGetattr(ip).dioOffsetAlign, 4096);
  });
});

Deno.test("iomap corner case 157: a direct write of part of a block that may be shared goes through the cache", async () => {
  await onXfs(async ({ nvme, sb, ip, file, direct }) => {
    await write(file, 0, bytes(16384, 1));
    await vfsFsync(file, false);
    assertEquals(await write(direct, 512, bytes(512, 2)), 512);
    assertEquals(ip.mapping.nrDirty, 0);
    await clone(sb, file);
    const { ios } = nvme.stats.write;
    assertEquals(await write(direct, 4096, bytes(512, 3)), 512);
    // Nothing flushes it afterwards.
    assertEquals([ip.mapping.nrDirty, nvme.stats.write.ios], [1, ios]);
    const found = await read(file, 0, 8192);
    assertEquals([found[512], found[4096], found[4608]], [2, 3, 1]);
    // At the end of the file NOWAIT has the first say.
    assertEquals(
      await write(direct, 16384, bytes(512, 3), IOCB_NOWAIT),
      -EAGAIN,
    );
  });
});

/** How the IOLOCK was held at each call of `caller`, "X" or "S". */
function watchLock(ip: XfsInode, caller: string): string[] {
  const held: string[] = [];
  setIomapTracer((event) => {
    if (event.name !== "iomap_iter" || event.caller !== caller) return;
    held.push(ip.rwsem.isLockedExclusive ? "X" : "S");
  });
  return held;
}

Deno.test("iomap corner case 158: an aligned direct write shares the lock even where the file grows; zeroing before it does not", async () => {
  await onXfs(async ({ ip, direct }) => {
    const written = watchLock(ip, "__iomap_dio_rw");
    assertEquals(await write(direct, 0, bytes(4096, 1)), 4096);
    assertEquals(await write(direct, 4096, bytes(8192, 1)), 8192);
    assertEquals(await write(direct, 65536, bytes(4096, 1)), 4096);
    assertEquals([...new Set(written)], ["S"]);
    const zeroed = watchLock(ip, "iomap_zero_range");
    assertEquals(await write(direct, 131072, bytes(4096, 1)), 4096);
    assertEquals([...new Set(zeroed)], ["X"]);
    // Two at once, both over the end.
    const [a, b] = [4096, 8192].map((len) =>
      later(direct, 135168, bytes(len, 2))
    );
    assertEquals([a!.ret, b!.ret], [-EIOCBQUEUED, -EIOCBQUEUED]);
    assertEquals(await Promise.all([a!.told, b!.told]), [4096, 8192]);
    assertEquals(ip.size, 135168 + 8192);
  });
});

Deno.test("iomap corner case 159: a direct write of part of a block that reaches the end has the file for itself, and waits", async () => {
  await onXfs(async ({ ip, direct }) => {
    await write(direct, 0, bytes(8192, 1));
    const inFlight = later(direct, 0, bytes(4096, 2));
    assertEquals(inFlight.ret, -EIOCBQUEUED);
    const seen: [string, number, number][] = [];
    setIomapTracer((event) => {
      if (event.name !== "iomap_dio_rw_begin") return;
      const held = ip.rwsem.isLockedExclusive ? "X" : "S";
      seen.push([held, event.dioFlags, ip.dioCount]);
    });
    for (const pos of [8192 - 512, 8192, 16384 + 512]) {
      assertEquals(await write(direct, pos, bytes(512, 3)), 512);
    }
    assertEquals(seen, [0, 1, 2].map(() => ["X", IOMAP_DIO_FORCE_WAIT, 0]));
    // Within the file it shares.
    seen.length = 0;
    assertEquals(await write(direct, 512, bytes(512, 3)), 512);
    assertEquals(seen.map(([held]) => held), ["S"]);
    assertEquals(await inFlight.told, 4096);
  });
});

Deno.test("iomap corner case 161: PUNCH_HOLE without KEEP_SIZE is -EOPNOTSUPP, and with it frees blocks", async () => {
  await onXfs(async ({ ip, file }) => {
    await write(file, 0, bytes(16384, 1));
    await vfsFsync(file, false);
    const punch = (mode: number) => vfsFallocate(file, mode, 4096, 4096);
    assertEquals(await punch(FALLOC_FL_PUNCH_HOLE), -EOPNOTSUPP);
    assertEquals(ip.blocks, 32);
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    assertEquals(await punch(mode), 0);
    assertEquals([ip.blocks, ip.size], [24, 16384]);
  }, { options: "allocsize=4k" });
});

Deno.test("iomap corner case 168: a buffered write of more than 1024 pages maps more than once", async () => {
  await onXfs(async ({ file }) => {
    const events = trace();
    assertEquals(await write(file, 0, bytes(6 * MiB, 1)), 6 * MiB);
    const walks = events.flatMap((event) =>
      event.name === "iomap_iter" ? [event.pos] : []
    );
    const maps = events.flatMap((event) =>
      event.name === "iomap_iter_dstmap" ? [event.offset + event.length] : []
    );
    assertEquals(maps, [4 * MiB, 6 * MiB]);
    assertEquals(walks, [0, 4 * MiB, 6 * MiB]);
  }, { options: "allocsize=4k" });
});

Deno.test("iomap corner case 169: the size on disk moves at completion, and of a direct write the file's own, too", async () => {
  await onXfs(async ({ nvme, ip, file, direct }) => {
    await write(file, 0, bytes(5000, 1));
    assertEquals([ip.size, ip.diskSize], [5000, 0]);
    const synced = vfsFsync(file, false);
    assertEquals(ip.diskSize, 0);
    // A write meanwhile is not what was sent.
    await write(file, 5000, bytes(2000, 1));
    assertEquals(await synced, 0);
    assertEquals([ip.size, ip.diskSize], [7000, 5000]);
    await vfsFsync(file, false);
    assertEquals(ip.diskSize, 7000);

    const call = later(direct, 8192, bytes(8192, 2));
    await nvme.clock.sleep(1000);
    assertEquals([ip.size, ip.diskSize], [7000, 7000]);
    assertEquals(await call.told, 8192);
    assertEquals([ip.size, ip.diskSize], [16384, 16384]);
  });
});

/** Fills the file system with another file.
 * @returns Bytes that did not fit. */
async function fill(sb: SuperBlock): Promise<File> {
  const file = await vfsOpen(sb, "/full", {
    mode: FMODE_READ | FMODE_WRITE,
    iocbFlags: 0,
    create: true,
    exclusive: true,
    truncate: false,
    permissions: 0o644,
  });
  assert(typeof file !== "number");
  for (let pos = 0, size = MiB; size >= 4096;) {
    const n = await write(file, pos, bytes(size, 0x55));
    if (n > 0) pos += n;
    else size /= 2;
  }
  assertEquals(await vfsFsync(file, false), 0);
  return file;
}

Deno.test("iomap corner case 172: a buffered write without space frees what it can and tries once more, then it is the error", async () => {
  await onXfs(async ({ sb, ip, file }) => {
    // Promised more than it needs, as it grows.
    for (let pos = 0; pos < 4 * MiB; pos += 64 * KiB) {
      await write(file, pos, bytes(64 * KiB, 1));
    }
    assert(ip.delayedBlks * 4096 > 4 * MiB);
    const full = await fill(sb);
    const events = trace();
    // All that was promised in vain has been given to the other file by now.
    assertEquals(await write(file, 8 * MiB, bytes(4096, 1)), -ENOSPC);
    const begun = events.filter((event) =>
      event.name === "iomap_iter" && event.pos === 8 * MiB &&
      event.caller === "iomap_file_buffered_write"
    );
    assertEquals(begun.length, 2);
    setIomapTracer(null);
    fileClose(full);
  });
});

Deno.test("iomap corner case 173: after an append that failed size and cache are what they were", async () => {
  await onXfs(async ({ sb, ip, file }) => {
    await write(file, 0, bytes(5000, 1));
    await vfsFsync(file, false);
    const full = await fill(sb);
    const { nrPages } = ip.mapping;
    // The rest of the block is there, and no more.
    assertEquals(await write(file, 5000, bytes(8192, 2)), 3192);
    assertEquals([ip.size, ip.mapping.nrPages], [8192, nrPages]);
    assertEquals(await write(file, 8192, bytes(8192, 3)), -ENOSPC);
    assertEquals([ip.size, ip.mapping.nrPages], [8192, nrPages]);
    const found = await read(file, 0, 20000);
    assertEquals(found.length, 8192);
    assertEquals(found.subarray(5000), bytes(3192, 2));
    fileClose(full);
  });
});

Deno.test("iomap corner case 174: a write beyond the end zeroes up to it first, and skips what is not written", async () => {
  await onXfs(async ({ file, direct }) => {
    await write(file, 0, bytes(4096, 1));
    await vfsFsync(file, false);
    await write(file, 0, bytes(100, 1));
    for (
      const [open, pos, size] of [[file, 70000, 4096], [
        direct,
        262144,
        70010,
      ]] as const
    ) {
      const events = trace();
      assert(await write(open, pos, bytes(open === file ? 10 : 4096, 2)) > 0);
      const first = events[0]!;
      assert(first.name === "iomap_iter");
      assertEquals([first.caller, first.pos], ["iomap_zero_range", size]);
      const zeroed = events.flatMap((event) =>
        event.name === "iomap_zero_iter" ? [event.offset, event.length] : []
      );
      // The direct one finds a block written in part, whose rest is zeroed.
      assertEquals(zeroed, open === file ? [] : [70010, 73728 - 70010]);
      const holes = events.filter((event) =>
        event.name === "iomap_iter_dstmap" && event.type === IOMAP_HOLE
      );
      assertEquals(holes.length, 1);
      setIomapTracer(null);
    }
    assertEquals(await read(file, 70010, 10), bytes(10, 0));
  });
});

/** What the device is asked for, "WSU 8" for 8 sectors. */
function watchWrites(): string[] {
  const seen: string[] = [];
  setBlockTracer((event: BlockTraceEvent) => {
    if (event.name !== "block_bio_queue") return;
    if (event.rwbs.startsWith("W") && !event.rwbs.includes("M")) {
      seen.push(`${event.rwbs} ${event.nrSector}`);
    }
  });
  return seen;
}

// More than a block can be written out of place only.
Deno.test.each([
  [{ reflink: false }, 4096],
  [{ reflink: true }, MiB],
] as [Setup, number][])(
  "RWF_ATOMIC on XFS writes one block by one command of the device, with $0",
  async (setup, max) => {
    await onXfs(async ({ ip, direct }) => {
      const { atomicWriteUnitMin, atomicWriteUnitMax, atomicWriteSegmentsMax } =
        vfsGetattr(ip);
      assertEquals([atomicWriteUnitMin, atomicWriteUnitMax], [4096, max]);
      assertEquals(atomicWriteSegmentsMax, 1);
      const seen = watchWrites();
      const events = trace();
      // Into a hole, over it, and durable.
      for (const rwf of [0, 0, IOCB_DSYNC]) {
        const n = await write(direct, 8192, bytes(4096, 7), rwf | IOCB_ATOMIC);
        assertEquals(n, 4096);
      }
      assertEquals(seen.slice(0, 2), ["WSU 8", "WSU 8"]);
      const maps = events.flatMap((event) =>
        event.name === "iomap_iter_dstmap" ? [event] : []
      );
      const atomic = maps.filter((m) => (m.flags & IOMAP_F_ATOMIC_BIO) !== 0);
      assertEquals(atomic.map((m) => m.flags & IOMAP_F_NEW), [
        IOMAP_F_NEW,
        0,
        0,
      ]);
      assertEquals(await read(direct, 8192, 4096), bytes(4096, 7));
      assertEquals(ip.size, 12288);
    }, setup);
  },
);

Deno.test("RWF_ATOMIC on XFS is refused in the kernel's order", async () => {
  await onXfs(async ({ file, direct }) => {
    await write(direct, 0, bytes(65536, 1));
    const ask = (f: File, pos: number, data: Uint8Array | Uint8Array[]) =>
      write(f, pos, data, IOCB_ATOMIC);
    // Too short and too long, wherever it goes.
    for (const f of [file, direct]) {
      for (const len of [512, 2048, 8192, 65536]) {
        assertEquals(await ask(f, 0, bytes(len, 1)), -EINVAL);
      }
      assertEquals(await ask(f, 0, [bytes(2048, 1), bytes(2048, 1)]), -EINVAL);
      assertEquals(await ask(f, 512, bytes(4096, 1)), -EINVAL);
    }
    assertEquals(await ask(file, 0, bytes(4096, 1)), -EOPNOTSUPP);
    assertEquals(await ask(direct, 0, bytes(4096, 1)), 4096);
    const iocb = new Kiocb(direct, 0, IOCB_DIRECT);
    const to = new IovIter(bytes(4096, 0));
    assertEquals(await vfsRead(iocb, to, IOCB_ATOMIC), -EOPNOTSUPP);
  }, { reflink: false });
});

Deno.test("RWF_ATOMIC on XFS with reflink takes up to 1 MiB, of its own alignment", async () => {
  await onXfs(async ({ file, direct }) => {
    await write(direct, 0, bytes(65536, 1));
    const ask = (f: File, pos: number, len: number) =>
      write(f, pos, bytes(len, 2), IOCB_ATOMIC);
    for (const f of [file, direct]) {
      for (const len of [2048, 12288, 2 * MiB]) {
        assertEquals(await ask(f, 0, len), -EINVAL);
      }
      assertEquals(await ask(f, 4096, 8192), -EINVAL);
    }
    assertEquals(await ask(file, 0, 8192), -EOPNOTSUPP);
    assertEquals(await ask(direct, 8192, 8192), 8192);
    const found = await read(direct, 0, 65536);
    assertEquals([found[8191], found[8192], found[16384]], [1, 2, 1]);
    assertEquals(await ask(direct, 0, MiB), MiB);
    assertEquals(await read(direct, 0, MiB), bytes(MiB, 2));
  });
});

Deno.test("RWF_ATOMIC is not supported where the device does not keep a block whole", async () => {
  const device = { atomics: { awupf: 0 } };
  const reflink = false;
  await onXfs(async ({ ip, direct }) => {
    assertEquals(vfsGetattr(ip).atomicWriteUnitMax, 0);
    assertEquals(vfsGetattr(ip).atomicWriteSegmentsMax, 0);
    const data = bytes(4096, 1);
    assertEquals(await write(direct, 0, data, IOCB_ATOMIC), -EOPNOTSUPP);
  }, { device, reflink });
  // Half a block is enough where that is the block.
  await onXfs(async ({ ip, direct }) => {
    assertEquals(vfsGetattr(ip).atomicWriteUnitMax, 1024);
    const data = bytes(1024, 1);
    assertEquals(await write(direct, 1024, data, IOCB_ATOMIC), 1024);
  }, { device: { atomics: { nawupf: 3 } }, reflink, blockSize: 1024 });
});

Deno.test("RWF_ATOMIC with NOWAIT, and over promised space", async () => {
  await onXfs(async ({ ip, file, direct }) => {
    const data = bytes(4096, 2);
    const nowait = IOCB_ATOMIC | IOCB_NOWAIT;
    assertEquals(await write(direct, 0, data, nowait), -EAGAIN);
    // What is cached and dirty is flushed first.
    await write(file, 0, bytes(8192, 1));
    assertEquals(await write(direct, 0, data, IOCB_ATOMIC), 4096);
    const found = await read(file, 0, 8192);
    assertEquals([found[0], found[4096]], [2, 1]);
    assertEquals(ip.delayedBlks, 0);
  });
});

Deno.test("xfsDirectWriteIomapOps maps an atomic write only where the device can keep it whole", async () => {
  await onXfs(async ({ ip, direct }) => {
    // Two extents, one of them unwritten.
    await write(direct, 0, bytes(MiB, 1));
    const allocated = direct.inode.fop.fallocate!(direct, 0, MiB, 65536);
    assertEquals(await allocated, 0);
    const ask = async (pos: number, length: number) => {
      const iomap = new Iomap();
      const ret = await xfsDirectWriteIomapOps.iomapBegin(
        ip,
        pos,
        length,
        IOMAP_WRITE | IOMAP_DIRECT | IOMAP_ATOMIC,
        iomap,
        new Iomap(),
      );
      const atomic = (iomap.flags & IOMAP_F_ATOMIC_BIO) !== 0;
      assertEquals(atomic, ret === 0);
      return ret;
    };
    // As the device's blocks lie, so must the file's.
    const first = await ioctlFibmap(direct, 0);
    const aligned = (16 - first % 16) * 4096;
    assertEquals(await ask(aligned, 32768), 0);
    assertEquals(await ask(aligned + 4096, 32768), -ENOPROTOOPT);
    assertEquals(await ask(aligned + 4096, 4096), 0);
    // Longer than the device takes, and over two extents.
    assertEquals(await ask(aligned, 65536), -ENOPROTOOPT);
    assertEquals(await ask(MiB - 4096, 4096), 0);
    assertEquals(await ask(MiB - 4096, 8192), -ENOPROTOOPT);
    // A hole of one block gets it; one of two might get them apart.
    assertEquals(await ask(4 * MiB, 4096), 0);
    assertEquals(await ask(8 * MiB, 8192), -ENOPROTOOPT);
  }, { device: { atomics: { awun: 63, awupf: 63, nawupf: 63 } } });
});

Deno.test("stat() tells of direct I/O what the device needs", async () => {
  await onXfs(({ nvme, ip }) => {
    const { dmaAlignment, logicalBlockSize } = nvme.limits;
    const info = vfsGetattr(ip);
    assertEquals(info.dioMemAlign, dmaAlignment + 1);
    assertEquals(info.dioOffsetAlign, logicalBlockSize);
    assertEquals(info.dioReadOffsetAlign, logicalBlockSize);
    return Promise.resolve();
  });
});

Deno.test("FsFile.read() and write() with hipri poll where the device can be, and find all", async () => {
  for (const pollQueues of [0, 1]) {
    const clock = new VirtualClock();
    using device = createNvme(clock, {
      size: 64 * MiB,
      preset: "optane",
      pollQueues,
    });
    await mkfsXfs(device);
    const fs = await mount(device, xfs);
    const access = { read: true, write: true, create: true };
    const file = await fs.open("/f", { ...access, direct: true });
    const data = bytes(MiB, 9);
    await file.write(data, { at: 0 });
    let found = 0;
    const poll = device.poll.bind(device);
    device.poll = (cookie) => {
      const n = poll(cookie);
      found += n;
      return n;
    };
    const hipri = true;
    const buffers = Array.from({ length: 32 }, () => bytes(4096, 0));
    const read = await Promise.all(
      buffers.map((b, i) => file.read(b, { at: i * 4096, hipri })),
    );
    assert(read.every((n) => n === 4096));
    assert(buffers.every((b) => b[0] === 9));
    assertEquals(found, pollQueues * 32);
    const written = await Promise.all(
      buffers.map((b, i) => file.write(b, { at: i * 4096, hipri })),
    );
    assert(written.every((n) => n === 4096));
    assertEquals(found, pollQueues * 64);
    // What needs a worker, two bios, or a caller that sleeps, interrupts.
    assertEquals(await file.write(buffers[0]!, { at: MiB, hipri }), 4096);
    assertEquals(file.readSync(buffers[0]!, { at: 0, hipri }), 4096);
    assertEquals(found, pollQueues * 64);
    // Buffered I/O has nothing to poll for.
    const other = await fs.open("/g", access);
    assertEquals(await other.write(buffers[0]!, { hipri }), 4096);
    other.close();
    file.close();
    await fs.unmount();
    assertEquals(clock.pending, 0);
  }
});

Deno.test("FsFile.bmap() and fiemap() tell where blocks are", async () => {
  using device = createNvme(new VirtualClock(), { size: 64 * MiB });
  await mkfsXfs(device);
  const fs = await mount(device, xfs);
  const file = await fs.open("/f", { read: true, write: true, create: true });
  await file.write(bytes(8192, 1));
  await file.write(bytes(4096, 1), { at: 16384 });
  await file.sync();
  const rows = await file.fiemap();
  assertEquals(rows.map((r) => [r.logical, r.length]), [
    [0, 8192],
    [16384, 4096],
  ]);
  const at = rows.map((r) => r.physical / 4096);
  assertEquals(await file.bmap(0), at[0]);
  assertEquals(file.bmapSync(1), at[0]! + 1);
  assertEquals(file.bmapSync(2), 0);
  assertEquals(await file.bmap(4), at[1]);
  assertEquals(file.fiemapSync({ xattr: true }), []);
  const codes: unknown[] = [];
  for (
    const call of [
      () => file.fiemap({ cache: true }),
      () => file.bmap(-1),
      () => file.bmap(2 ** 31),
    ]
  ) await call().catch((e) => codes.push(e.code));
  assertEquals(codes, ["EBADR", "EINVAL", "EINVAL"]);
  file.close();
  await fs.unmount();
});

Deno.test("direct I/O on a file system whose device has gone is EIO", async () => {
  await onXfs(async ({ nvme, sb, direct }) => {
    await write(direct, 0, bytes(4096, 1));
    sb.dead = true;
    assertEquals(await write(direct, 0, bytes(4096, 1)), -EIO);
    const iocb = new Kiocb(direct, 0, IOCB_DIRECT | IOCB_WRITE);
    iocb.flags &= ~IOCB_WRITE;
    assertEquals(await vfsRead(iocb, new IovIter(bytes(512, 0)), 0), -EIO);
    sb.dead = false;
    // A write in flight as it goes does not move the size.
    const call = later(direct, 4096, bytes(4096, 1));
    sb.dead = true;
    assertEquals(await call.told, -EIO);
    assertEquals(direct.inode.size, 4096);
    sb.dead = false;
    await nvme.clock.sleep(1);
  });
});
