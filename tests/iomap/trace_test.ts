import { assertEquals } from "@std/assert";
import { IOCB_DIRECT, IOCB_WRITE } from "../../fs/kiocb.ts";
import { iomapDioRw } from "../../iomap/direct-io.ts";
import { iomapFiemap } from "../../iomap/fiemap.ts";
import {
  IOMAP_DELALLOC,
  IOMAP_DIO_FORCE_WAIT,
  IOMAP_F_NEW,
  IOMAP_MAPPED,
  IOMAP_UNWRITTEN,
  IOMAP_WRITE,
} from "../../iomap/iomap.ts";
import {
  formatIomapTrace,
  iomapFlagNames,
  iomapOpFlagNames,
  type IomapTraceEvent,
  iomapTypeName,
  printIomapTrace,
  setIomapTracer,
} from "../../iomap/trace.ts";
import { IovIter } from "../../lib/iov-iter.ts";
import { truncatePagecacheRange } from "../../mm/truncate.ts";
import {
  createNvme,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  type FsFile,
  mkfsXfs,
  type Mount,
  mount,
  SEEK_HOLE,
  VirtualClock,
  xfs,
} from "../../mod.ts";
import { bytes, test, TestFs } from "./testfs.ts";
import { assertCleanImage } from "../fs/xfs/clean.ts";

/** Events of what `fn` does. */
async function traced(fn: () => unknown): Promise<IomapTraceEvent[]> {
  const events: IomapTraceEvent[] = [];
  setIomapTracer((event) => events.push(event));
  try {
    await fn();
  } finally {
    setIomapTracer(null);
  }
  return events;
}

const names = (events: IomapTraceEvent[]) => events.map((e) => e.name);

test("setIomapTracer() shows the walk of a buffered write", async () => {
  const t = new TestFs();
  const events = await traced(() => t.write(100, bytes(5000, 1)));
  assertEquals(events, [
    {
      name: "iomap_iter",
      time: 0,
      dev: "7:0",
      ino: 5,
      pos: 100,
      // Computed from a mapping that is not there yet, as the kernel does.
      length: 5000,
      status: 0,
      flags: IOMAP_WRITE,
      ops: t.ops,
      caller: "iomap_file_buffered_write",
    },
    {
      name: "iomap_iter_dstmap",
      time: 0,
      dev: "7:0",
      ino: 5,
      addr: -1,
      offset: 0,
      length: 8192,
      type: IOMAP_DELALLOC,
      flags: IOMAP_F_NEW,
      bdev: "7:0",
    },
    {
      name: "iomap_iter",
      time: 0,
      dev: "7:0",
      ino: 5,
      pos: 5100,
      length: 0,
      status: 0,
      flags: IOMAP_WRITE,
      ops: t.ops,
      caller: "iomap_file_buffered_write",
    },
  ]);
});

test("setIomapTracer() shows source mappings, zeroing, writeback and reading", async () => {
  const t = new TestFs({ size: 8192, rows: [[0, 8192, IOMAP_MAPPED]] });
  t.tweak = (_iomap, srcmap) => {
    t.fill(srcmap, {
      offset: 0,
      length: 8192,
      type: IOMAP_MAPPED,
      addr: 65536,
    });
  };
  assertEquals(names(await traced(() => t.zero(100, 50))), [
    "iomap_iter",
    "iomap_iter_dstmap",
    "iomap_iter_srcmap",
    "iomap_zero_iter",
    "iomap_iter",
  ]);
  t.tweak = () => {};
  const flushed = await traced(() => t.flush());
  assertEquals(names(flushed), ["iomap_writeback_folio", "iomap_add_to_ioend"]);
  const read = await traced(() => t.read(4096, 4096));
  assertEquals(names(read)[0], "iomap_readahead");
});

test("setIomapTracer() shows block state going away", async () => {
  const t = new TestFs({ blkbits: 10 });
  await t.write(0, bytes(100, 1));
  await t.flush();
  const { mapping } = t.inode;
  const cut = await traced(() => truncatePagecacheRange(mapping, 50, 99));
  assertEquals(cut, [{
    name: "iomap_invalidate_folio",
    time: 1000,
    dev: "7:0",
    ino: 5,
    size: 100,
    offset: 50,
    length: 50,
  }]);
  assertEquals(names(await traced(() => t.drop())), ["iomap_release_folio"]);
});

test("setIomapTracer() shows direct I/O from begin to completion", async () => {
  const t = new TestFs({ size: 8192, rows: [[0, 8192, IOMAP_UNWRITTEN]] });
  const events = await traced(() => {
    const iocb = t.iocb(0, IOCB_DIRECT | IOCB_WRITE);
    return iomapDioRw(iocb, new IovIter(bytes(4096)), t.ops, null, 1, null, 0);
  });
  assertEquals(names(events), [
    "iomap_dio_rw_begin",
    "iomap_iter",
    "iomap_iter_dstmap",
    "iomap_iter",
    "iomap_dio_complete",
  ]);
  assertEquals(events[0], {
    name: "iomap_dio_rw_begin",
    time: 0,
    dev: "7:0",
    ino: 5,
    isize: 8192,
    pos: 0,
    count: 4096,
    doneBefore: 0,
    // A synchronous write does not say that it is one.
    kiFlags: IOCB_DIRECT,
    dioFlags: IOMAP_DIO_FORCE_WAIT,
    aio: false,
  });
  assertEquals(events.at(-1), {
    name: "iomap_dio_complete",
    time: 1000,
    dev: "7:0",
    ino: 5,
    isize: 8192,
    pos: 4096,
    kiFlags: IOCB_DIRECT,
    aio: false,
    error: 0,
    ret: 4096,
  });
});

test("setIomapTracer() with null stops the events", async () => {
  const t = new TestFs({ size: 4096 });
  let seen = 0;
  setIomapTracer(() => seen++);
  setIomapTracer(null);
  const info = { flags: 0, extentsMax: 1, extentsMapped: 0, extents: [] };
  await iomapFiemap(t.inode, info, 0, 4096, t.ops);
  assertEquals(seen, 0);
});

test("formatIomapTrace() names every flag and type, and prints what has no name in hex", () => {
  assertEquals(
    iomapFlagNames(0x1ff | 1 << 12 | 1 << 14 | 1 << 15),
    "NEW|DIRTY|SHARED|MERGED|BH|XATTR|BOUNDARY|ANON_WRITE|ATOMIC_BIO|" +
      "PRIVATE|SIZE_CHANGED|STALE",
  );
  assertEquals(iomapFlagNames(1 << 13), "0x2000");
  assertEquals(iomapFlagNames(0), "");
  assertEquals(
    iomapOpFlagNames(0xfff),
    "WRITE|ZERO|REPORT|FAULT|DIRECT|NOWAIT|OVERWRITE_ONLY|UNSHARE|DAX|ATOMIC|" +
      "DONTCACHE|0x800",
  );
  const types = [0, 1, 2, 3, 4, 5].map(iomapTypeName);
  assertEquals(types.join(), "HOLE,DELALLOC,MAPPED,UNWRITTEN,INLINE,0x5");
});

test("formatIomapTrace() prints the direct I/O that has no kernel at hand", () => {
  const inode = { time: 12_345_678_901_234, dev: "259:0", ino: 131 };
  const line = formatIomapTrace({
    name: "iomap_dio_rw_begin",
    ...inode,
    isize: 2 ** 33,
    pos: 4096,
    count: 512,
    doneBefore: 16,
    kiFlags: 0xdf | 0x1ff << 16,
    dioFlags: 7,
    aio: true,
  });
  assertEquals(
    line,
    "           iomap-1       [000] ..... 12345.678901: iomap_dio_rw_begin: " +
      "dev 259:0 ino 0x83 size 0x200000000 offset 0x1000 length 0x200 " +
      "done_before 0x10 flags HIPRI|DSYNC|SYNC|NOWAIT|APPEND|ATOMIC|DONTCACHE|" +
      "EVENTFD|DIRECT|WRITE|WAITQ|NOIO|ALLOC_CACHE|CALLER_COMP|AIO_RW|" +
      "AIO_HAS_METADATA dio_flags DIO_FORCE_WAIT|DIO_OVERWRITE_ONLY|DIO_PARTIAL " +
      "aio 1",
  );
});

test("printIomapTrace() has the head of the kernel's trace file", async () => {
  const t = new TestFs({ size: 4096 });
  const events = await traced(() => t.drop());
  const head = printIomapTrace(events).split("\n");
  assertEquals(head[0], "# tracer: nop");
  assertEquals(head[2], "# entries-in-buffer/entries-written: 0/0   #P:1");
  assertEquals(head.filter((line) => line.startsWith("#")).length, 12);
});

/** One operation of the kernel's recording; it has the fields that it needs. */
interface Op {
  op: string;
  fd: string;
  path: string;
  off: number;
  len: number;
  fill: number;
  flags?: string[];
  sync: boolean;
}

/** An operation, and what it traced. */
interface Recorded {
  op: Op;
  lines: string[];
}

/** What depends on where things lie in memory and on the disk, and when it was. */
function comparable(line: string): string {
  return line
    .replace(/^.*?: (iomap_\w+:)/, "$1")
    .replace(/ ops \S+/, "")
    .replace(/(caller \w+)\S*/, "$1")
    .replace(/ ino 0x[0-9a-f]+/, "")
    .replace(/dev \d+:\d+/g, "dev")
    // Of the device; where there is none it says so.
    .replace(/ addr 0x(?!ffffffffffffffff)[0-9a-f]+/, " addr")
    // When a transaction reaches the log is the kernel's affair.
    .replace(/flags (NEW)?\|?DIRTY \(0x[23]\)/, "flags $1")
    .replace(/flags (NEW)? \(0x[01]\)/, "flags $1")
    .trimEnd();
}

test("formatIomapTrace() prints what the kernel printed for the same operations", async () => {
  const text = await Deno.readTextFile(
    new URL("../data/trace/xfs.txt", import.meta.url),
  );
  const recorded: Recorded[] = [];
  for (const line of text.trimEnd().split("\n")) {
    if (line.startsWith("## ")) {
      recorded.push({ op: JSON.parse(line.slice(3)), lines: [] });
    } else recorded.at(-1)!.lines.push(line);
  }
  const clock = new VirtualClock();
  using device = createNvme(clock, { size: 512 * 2 ** 20, preset: "null" });
  device.bdi.raPages = 640;
  await mkfsXfs(device);
  const fs = await mount(device, xfs, { options: "allocsize=4k" });
  const files = new Map<string, FsFile>();
  for (const { op, lines } of recorded) {
    await clock.sleep(10e6);
    const events = await traced(() => operate(fs, files, op));
    const got = events.map((event) => comparable(formatIomapTrace(event)));
    assertEquals(got, lines.map(comparable), JSON.stringify(op));
  }
  for (const file of files.values()) file.close();
  await fs.unmount();
  assertCleanImage(device);
});

function operate(fs: Mount, files: Map<string, FsFile>, op: Op): void {
  const file = files.get(op.fd)!;
  const flags = Object.fromEntries(
    (op.flags ?? []).map((f) => [f, true]),
  );
  switch (op.op) {
    case "open":
      files.set(
        op.fd,
        fs.openSync(op.path, {
          read: true,
          write: true,
          create: flags.creat ?? false,
          direct: flags.direct ?? false,
        }),
      );
      break;
    case "pwrite":
      file.writeSync(bytes(op.len, op.fill), { at: op.off, ...flags });
      break;
    case "pread":
      file.readSync(bytes(op.len), { at: op.off, ...flags });
      break;
    case "fsync":
      file.syncSync();
      break;
    case "drop_cache":
      file.adviseSync("dontneed", op.off, op.len);
      break;
    case "fallocate":
      file.fallocateSync(
        FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
        op.off,
        op.len,
      );
      break;
    case "ftruncate":
      file.truncateSync(op.len);
      break;
    case "seek":
      file.seekSync(op.off, SEEK_HOLE);
      break;
    case "fiemap":
      file.fiemapSync({ start: op.off, length: op.len, sync: op.sync });
      break;
    case "statx":
      file.statSync();
      break;
    case "unlink":
      fs.unlinkSync(op.path);
      break;
    default:
      throw new Error(`no such operation: ${op.op}`);
  }
}
