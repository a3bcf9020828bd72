/** Atomic writes: by the device, and by a file system that writes elsewhere. */
import { assert, assertEquals } from "@std/assert";
import type { Bio } from "../../block/bio.ts";
import { BLK_STS_IOERR, REQ_ATOMIC } from "../../block/blk-types.ts";
import { IOCB_ATOMIC, IOCB_DIRECT, IOCB_WRITE } from "../../fs/kiocb.ts";
import { iomapDioRw } from "../../iomap/direct-io.ts";
import {
  IOMAP_ATOMIC,
  IOMAP_DIO_COW,
  IOMAP_DIRECT,
  IOMAP_F_ATOMIC_BIO,
  IOMAP_F_SHARED,
  IOMAP_MAPPED,
  IOMAP_UNWRITTEN,
  IOMAP_WRITE,
  type IomapDioOps,
  type IomapOps,
} from "../../iomap/iomap.ts";
import { EINVAL, EIO } from "../../lib/errno.ts";
import { IovIter } from "../../lib/iov-iter.ts";
import { bytes, type Extent, KiB, pattern, test, TestFs } from "./testfs.ts";

const SIZE = 64 * KiB;

/**
 * Writes go to new blocks, in pieces of 8 KiB wherever there is room; once all of
 * them are there they become the file's, in one step.
 */
class CowFs extends TestFs {
  #pending: Extent[] = [];

  constructor() {
    super({ size: SIZE, rows: [[0, SIZE, IOMAP_MAPPED]] });
    this.fillDisk();
  }

  readonly cowOps: IomapOps = {
    iomapBegin: (_inode, pos, length, flags, iomap) => {
      assertEquals(flags, IOMAP_WRITE | IOMAP_DIRECT | IOMAP_ATOMIC);
      const count = Math.min(length, 8 * KiB);
      this.alloc(4 * KiB);
      const addr = this.alloc(count);
      const extent = { offset: pos, length: count, type: IOMAP_MAPPED, addr };
      this.#pending.push(extent);
      this.fill(iomap, extent);
      iomap.flags = IOMAP_F_SHARED;
      return 0;
    },
  };

  readonly cowDioOps: IomapDioOps = {
    endIo: (_iocb, _size, error, flags) => {
      assertEquals(flags & IOMAP_DIO_COW, IOMAP_DIO_COW);
      const pending = this.#pending.splice(0);
      if (error === 0) { for (const extent of pending) this.insert(extent); }
      return error;
    },
  };

  async writeAtomic(pos: number, data: Uint8Array): Promise<number> {
    const iocb = this.iocb(pos, IOCB_WRITE | IOCB_DIRECT | IOCB_ATOMIC);
    const from = new IovIter(data);
    const { cowOps, cowDioOps } = this;
    return await iomapDioRw(iocb, from, cowOps, cowDioOps, 0, null, 0);
  }

  /** What a reader finds. */
  async contents(): Promise<Uint8Array> {
    const buffer = bytes(SIZE);
    const iocb = this.iocb(0, IOCB_DIRECT);
    const from = new IovIter(buffer);
    assertEquals(
      await iomapDioRw(iocb, from, this.ops, null, 0, null, 0),
      SIZE,
    );
    return buffer;
  }
}

test("iomapDioRw() lets a file system make a write atomic that goes elsewhere", async () => {
  const t = new CowFs();
  const before = pattern(0, SIZE);
  assertEquals(await t.contents(), before);
  t.dev.take();

  const data = bytes(32 * KiB, 255);
  const written = t.writeAtomic(32 * KiB, data);
  // Half way through it is as it was.
  await t.clock.sleep(t.dev.latency - 1);
  assertEquals(t.lookup(32 * KiB).offset, 0);
  assertEquals(await written, 32 * KiB);
  const bios = t.dev.seen.splice(0);
  assertEquals(bios.map((b) => b.len), [8, 8, 8, 8].map((n) => n * KiB));
  assert(bios.every((b) => (b.opf & REQ_ATOMIC) === 0));
  const after = before.slice();
  after.set(data, 32 * KiB);
  assertEquals(await t.contents(), after);
});

test("iomapDioRw() leaves the file as it was if one piece of such a write fails", async () => {
  for (const broken of [0, 1, 3]) {
    const t = new CowFs();
    let seen = 0;
    t.dev.fault = () => seen++ === broken ? BLK_STS_IOERR : 0;
    assertEquals(await t.writeAtomic(32 * KiB, bytes(32 * KiB, 255)), -EIO);
    assertEquals(await t.contents(), pattern(0, SIZE));
  }
});

/** A file on a device that keeps writes whole. */
function hardware(type = IOMAP_MAPPED): TestFs {
  const t = new TestFs({ size: SIZE, rows: [[0, SIZE, type]] });
  t.dev.limits = { ...t.dev.limits, atomicWriteUnitMin: 512 };
  t.dev.limits.atomicWriteUnitMax = SIZE;
  t.tweak = (iomap) => {
    iomap.flags |= IOMAP_F_ATOMIC_BIO;
  };
  return t;
}

async function write(t: TestFs, pos: number, from: IovIter): Promise<number> {
  const iocb = t.iocb(pos, IOCB_WRITE | IOCB_DIRECT | IOCB_ATOMIC);
  return await iomapDioRw(iocb, from, t.ops, null, 0, null, 0);
}

test("iomapDioRw() sends a write that the device keeps whole as one bio", async () => {
  for (const type of [IOMAP_MAPPED, IOMAP_UNWRITTEN]) {
    const t = hardware(type);
    const flags: number[] = [];
    t.beginError = (_pos, f) => {
      flags.push(f);
      return 0;
    };
    assertEquals(await write(t, 16384, new IovIter(bytes(16384, 7))), 16384);
    assertEquals(flags, [IOMAP_WRITE | IOMAP_DIRECT | IOMAP_ATOMIC]);
    const seen = t.dev.seen.splice(0);
    assertEquals(seen.map((s) => s.len), [16384]);
    assert((seen[0]!.opf & REQ_ATOMIC) !== 0);
  }
});

test("iomapDioRw() zeroes beside an atomic write without making that atomic", async () => {
  const t = hardware(IOMAP_UNWRITTEN);
  assertEquals(await write(t, 1024, new IovIter(bytes(1024, 7))), 1024);
  const seen = t.dev.seen.map((s) => [s.len, (s.opf & REQ_ATOMIC) !== 0]);
  assertEquals(seen, [[1024, false], [1024, true], [2048, false]]);
});

test(
  "iomapDioRw() refuses an atomic write whose memory needs two bios",
  async () => {
    const t = hardware();
    const parts = Array.from({ length: 512 }, () => bytes(64));
    const from = new IovIter(...parts);
    assertEquals(await write(t, 0, from), -EINVAL);
    assertEquals(from.count, 512 * 64);
    assertEquals(t.dev.take(), []);
  },
  "an atomic write that needs two bios",
);

test("submitBio() refuses what the device does not keep whole, which is -EINVAL", async () => {
  const t = hardware();
  t.dev.limits = { ...t.dev.limits, atomicWriteUnitMax: 8192 };
  const bios: Bio[] = [];
  t.dev.fault = (bio) => {
    bios.push(bio);
    return 0;
  };
  assertEquals(await write(t, 0, new IovIter(bytes(16384))), -EINVAL);
  assertEquals(bios, []);
});
