/** Files, and tails of files, whose contents are in the inode; corner cases 28, 29 and
 * 51. */
import { assert, assertEquals } from "@std/assert";
import { IOCB_WRITE } from "../../fs/kiocb.ts";
import {
  IOMAP_INLINE,
  IOMAP_MAPPED,
  IOMAP_NULL_ADDR,
} from "../../iomap/iomap.ts";
import { EFAULT, EIO } from "../../lib/errno.ts";
import { bytes, FaultyIter, pattern, test, TestFs } from "./testfs.ts";

/** A file whose first bytes are `data`. */
function inlineFs(size: number, data: Uint8Array): TestFs {
  const t = new TestFs({ size, rows: [[0, data.length, IOMAP_INLINE]] });
  t.tweak = (iomap) => {
    if (iomap.type === IOMAP_INLINE) iomap.inlineData = data;
  };
  return t;
}

function memory(t: TestFs, index: number): Uint8Array {
  const { data, offset, size } = t.folio(index)!;
  return data.slice(offset, offset + size);
}

test(
  "iomap corner case 28: INLINE that ends before the file is -EIO",
  async () => {
    const t = inlineFs(200, pattern(0, 100));
    assertEquals(await t.read(0, 200), -EIO);
  },
  "INLINE ends before the file",
);

test("iomap corner case 29: INLINE is followed by zeroes, uptodate to the end of the folio", async () => {
  const t = inlineFs(60, pattern(0, 100));
  assertEquals(await t.read(0, 4096), pattern(0, 60));
  assert(t.folio(0)!.uptodate);
  assertEquals(memory(t, 0).subarray(60), bytes(4036));
  assertEquals(t.dev.take(), []);
});

test("iomap corner case 51: INLINE is written to the inode, not to a dirty folio", async () => {
  const inline = pattern(0, 200);
  const t = inlineFs(50, inline);
  assertEquals(await t.write(40, bytes(20, 7)), 20);
  const folio = t.folio(0)!;
  assert(folio.uptodate && !folio.dirty && folio.private === null);
  assert(t.inode.sb.dirtyInodes.has(t.inode));
  assertEquals(inline.subarray(0, 40), pattern(0, 40));
  assertEquals(inline.subarray(40, 60), bytes(20, 7));
  assertEquals(t.inode.size, 60);
  assertEquals(await t.flush(), 0);
  assertEquals(t.dev.take(), []);
});

for (const blkbits of [10, 12]) {
  test(`an INLINE tail behind MAPPED blocks of ${2 ** blkbits} bytes is read into its folio`, async () => {
    const tail = pattern(8192, 300);
    const t = new TestFs({
      blkbits,
      size: 8192 + 300,
      rows: [[0, 8192, IOMAP_MAPPED], [8192, 300, IOMAP_INLINE]],
    });
    t.tweak = (iomap) => {
      if (iomap.type === IOMAP_INLINE) iomap.inlineData = tail;
    };
    t.fillDisk();
    assertEquals(await t.read(0, 20000), pattern(0, 8492));
    assertEquals(t.dev.take(), ["R 1048576+8192"]);
    assertEquals(memory(t, 2).subarray(300), bytes(4096 - 300));
    assert(t.folio(2)!.uptodate);
  });
}

test("an INLINE tail within a folio leaves the blocks before it to their own mapping", async () => {
  const tail = pattern(2048, 100);
  const t = new TestFs({
    blkbits: 10,
    size: 2148,
    rows: [[0, 2048, IOMAP_MAPPED], [2048, 100, IOMAP_INLINE]],
  });
  t.tweak = (iomap) => {
    if (iomap.type === IOMAP_INLINE) iomap.inlineData = tail;
  };
  t.fillDisk();
  assertEquals(await t.read(0, 4096), pattern(0, 2148));
  assertEquals(t.dev.take(), ["R 1048576+2048"]);
  assert(t.folio(0)!.uptodate);
});

test(
  "INLINE that goes on behind its folio is -EIO, and touches no memory there",
  async () => {
    const t = new TestFs({
      blkbits: 10,
      size: 8192,
      rows: [[2048, 4096, IOMAP_INLINE]],
    });
    t.tweak = (iomap) => {
      if (iomap.type === IOMAP_INLINE) iomap.inlineData = bytes(4096, 7);
    };
    t.inode.size = 6144;
    assertEquals(await t.read(0, 4096), -EIO);
    // Nor is there anything to be had from the middle of it.
    assertEquals(await t.read(4096, 2048), -EIO);
  },
  "INLINE in two folios",
);

test(
  "a write to an INLINE mapping that does not begin the file is -EIO",
  async () => {
    const t = new TestFs({ size: 4196, rows: [[4096, 100, IOMAP_INLINE]] });
    t.tweak = (iomap) => {
      iomap.inlineData = bytes(100);
    };
    assertEquals(await t.write(4100, bytes(10, 1)), -EIO);
    assertEquals(t.folio(1)!.locked, false);
  },
  "INLINE that does not begin the file",
);

test("a write beyond the room of INLINE goes on where the file system says", async () => {
  const inline = bytes(100);
  const t = inlineFs(0, inline);
  // The file system moves the data out once it does not fit.
  t.beginError = (pos) => {
    if (pos >= 100) {
      t.extents = [{
        offset: 0,
        length: 4096,
        type: IOMAP_MAPPED,
        addr: 65536,
      }];
    }
    return 0;
  };
  assertEquals(await t.write(0, bytes(150, 7)), 150);
  assertEquals(inline, bytes(100, 7));
  assertEquals(t.inode.size, 150);
  assertEquals(await t.read(0, 4096), bytes(150, 7));
  assert(t.folio(0)!.dirty);
});

test("a short copy into INLINE counts, one of nothing is -EFAULT", async () => {
  const inline = pattern(0, 200);
  const t = inlineFs(200, inline);
  const some = new FaultyIter(5, bytes(20, 7));
  assertEquals(await t.writeIter(t.iocb(10, IOCB_WRITE), some), 5);
  const none = new FaultyIter(0, bytes(20, 7));
  assertEquals(await t.writeIter(t.iocb(10, IOCB_WRITE), none), -EFAULT);
  const expected = pattern(0, 200);
  expected.fill(7, 10, 15);
  assertEquals(inline, expected);
});

test("zeroing INLINE clears it in the inode", async () => {
  const inline = pattern(0, 200);
  const t = inlineFs(200, inline);
  assertEquals(await t.zero(50, 100), { ret: 0, didZero: true });
  const expected = pattern(0, 200);
  expected.fill(0, 50, 150);
  assertEquals(inline, expected);
  assertEquals(t.folio(0)!.dirty, false);
});

test(
  "a write of which only the source is INLINE is -EIO",
  async () => {
    const t = new TestFs({ size: 50, rows: [[0, 4096, IOMAP_MAPPED]] });
    t.tweak = (iomap, srcmap) => {
      assertEquals(iomap.type, IOMAP_MAPPED);
      t.fill(srcmap, {
        offset: 0,
        length: 100,
        type: IOMAP_INLINE,
        addr: IOMAP_NULL_ADDR,
      });
      srcmap.inlineData = bytes(100, 3);
    };
    assertEquals(await t.write(0, bytes(10, 1)), -EIO);
    assertEquals(t.folio(0)!.locked, false);
  },
  "INLINE is the source of a write",
);
