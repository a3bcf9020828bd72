import { assertEquals } from "@std/assert";
import { IOCB_DIRECT, IOCB_WRITE } from "../../fs/kiocb.ts";
import { iomapDioRw } from "../../iomap/direct-io.ts";
import { iomapFiemap } from "../../iomap/fiemap.ts";
import { IOMAP_MAPPED, IOMAP_UNWRITTEN } from "../../iomap/iomap.ts";
import { type IomapTraceEvent, setIomapTracer } from "../../iomap/trace.ts";
import { IovIter } from "../../lib/iov-iter.ts";
import { truncatePagecacheRange } from "../../mm/truncate.ts";
import { bytes, test, TestFs } from "./testfs.ts";

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
      dev: "7:0",
      ino: 5,
      pos: 100,
      // Computed from a mapping that is not there yet, as the kernel does.
      length: 5000,
      status: 0,
      flags: ["WRITE"],
      ops: t.ops,
      caller: "iomap_file_buffered_write",
    },
    {
      name: "iomap_iter_dstmap",
      dev: "7:0",
      ino: 5,
      addr: -1,
      offset: 0,
      length: 8192,
      type: "DELALLOC",
      flags: ["NEW"],
      bdev: "7:0",
    },
    {
      name: "iomap_iter",
      dev: "7:0",
      ino: 5,
      pos: 5100,
      length: 0,
      status: 0,
      flags: ["WRITE"],
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
    dev: "7:0",
    ino: 5,
    isize: 8192,
    pos: 0,
    count: 4096,
    doneBefore: 0,
    kiFlags: ["DIRECT", "WRITE"],
    dioFlags: ["DIO_FORCE_WAIT"],
    aio: false,
  });
  assertEquals(events.at(-1), {
    name: "iomap_dio_complete",
    dev: "7:0",
    ino: 5,
    isize: 8192,
    pos: 4096,
    kiFlags: ["DIRECT", "WRITE"],
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
