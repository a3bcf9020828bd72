/** Everything at once over a device that fails: nothing may stay locked, held or counted. */
import { assertEquals } from "@std/assert";
import { BLK_STS_IOERR } from "../../block/blk-types.ts";
import {
  IOCB_DIRECT,
  IOCB_DONTCACHE,
  IOCB_DSYNC,
  IOCB_NOWAIT,
  IOCB_WRITE,
  type Kiocb,
} from "../../fs/kiocb.ts";
import { iomapDioRw } from "../../iomap/direct-io.ts";
import { IOMAP_UNWRITTEN } from "../../iomap/iomap.ts";
import { MSEC } from "../../lib/clock.ts";
import { EIO, EIOCBQUEUED } from "../../lib/errno.ts";
import { IovIter } from "../../lib/iov-iter.ts";
import { Prng } from "../../lib/prng.ts";
import { filemapRead } from "../../mm/filemap.ts";
import { PG_DIRTY, PG_LOCKED, PG_WRITEBACK } from "../../mm/folio.ts";
import { truncateSetsize } from "../../mm/truncate.ts";
import { bytes, KiB, test, TestFs } from "./testfs.ts";

const SPAN = 256 * KiB;

/** What must hold when nothing is going on. */
function checkIdle(t: TestFs, what: string): void {
  const { mm, inode } = t;
  let pages = 0;
  let dirty = 0;
  for (const folio of mm.folios) {
    if (folio === undefined || folio.refcount === 0) continue;
    assertEquals(folio.refcount, 1, `${what}: folio ${folio.index} is held`);
    const busy = folio.flags & (PG_LOCKED | PG_WRITEBACK);
    assertEquals(busy, 0, `${what}: folio ${folio.index} is busy`);
    pages += 1 << folio.order;
    if ((folio.flags & PG_DIRTY) !== 0) dirty += 1 << folio.order;
  }
  assertEquals(
    [mm.nrPages, mm.nrDirty, mm.nrWriteback, inode.mapping.nrPages],
    [pages, dirty, 0, pages],
    what,
  );
  assertEquals(
    [
      inode.dioCount,
      inode.rwsem.isLocked,
      inode.mapping.invalidateLock.isLocked,
    ],
    [0, false, false],
    what,
  );
}

/** One task's call, as a file system would make it. */
async function step(t: TestFs, random: Prng): Promise<void> {
  const { inode } = t;
  const { invalidateLock } = inode.mapping;
  const block = random.below(2) === 0 ? 1 : 512;
  const pos = random.below(SPAN / block) * block;
  const len = (1 + random.below(40 * KiB / block)) * block;
  const flags = [0, 0, 0, IOCB_NOWAIT, IOCB_DONTCACHE][random.below(5)]!;
  switch (random.below(8)) {
    case 0:
    case 1:
      await inode.rwsem.downWrite();
      await t.write(pos, bytes(len, 1 + random.below(255)), flags);
      inode.rwsem.upWrite();
      break;
    case 2:
      await filemapRead(t.iocb(pos, flags), new IovIter(bytes(len)));
      break;
    case 3: {
      await inode.rwsem.downRead();
      const iocb = t.iocb(pos, flags | IOCB_DIRECT);
      await dio(t, iocb, bytes(len), random.below(2) === 0);
      inode.rwsem.upRead();
      break;
    }
    case 4: {
      await inode.rwsem.downRead();
      const sync = random.below(2) === 0 ? IOCB_DSYNC : 0;
      const iocb = t.iocb(pos, flags | sync | IOCB_DIRECT | IOCB_WRITE);
      await dio(t, iocb, bytes(len, 1), random.below(2) === 0);
      inode.rwsem.upRead();
      break;
    }
    case 5:
      await inode.rwsem.downWrite();
      await invalidateLock.downWrite();
      if (random.below(2) === 0) await truncateSetsize(inode.mapping, pos);
      else if (pos < inode.size) {
        await t.zero(pos, Math.min(len, inode.size - pos));
      }
      invalidateLock.upWrite();
      inode.rwsem.upWrite();
      break;
    default:
      await t.flush();
  }
}

/** A direct call; asynchronous ones complete once, through `kiComplete`. */
async function dio(
  t: TestFs,
  iocb: Kiocb,
  data: Uint8Array,
  isAsync: boolean,
): Promise<void> {
  let told = 0;
  const completed = new Promise<void>((resolve) => {
    if (!isAsync) return;
    iocb.kiComplete = () => {
      told++;
      resolve();
    };
  });
  const from = new IovIter(data);
  const ret = await iomapDioRw(iocb, from, t.ops, null, 0, null, 0);
  if (ret === -EIOCBQUEUED) await completed;
  assertEquals(told, ret === -EIOCBQUEUED ? 1 : 0);
}

test("everything at once over a device that fails leaves nothing locked or held", async () => {
  for (let seed = 0; seed < 60; seed++) {
    const random = new Prng(seed);
    const t = new TestFs({
      blkbits: random.below(2) === 0 ? 10 : 12,
      maxOrder: random.below(5),
      size: SPAN / 2,
      memory: 512 * KiB,
      ...(random.below(2) === 0 ? {} : { allocate: IOMAP_UNWRITTEN }),
    });
    t.inode.fop.fsync = () => 0;
    t.dev.fault = () => random.below(10) === 0 ? BLK_STS_IOERR : 0;
    t.beginError = () => random.below(20) === 0 ? -EIO : 0;
    t.dev.latency = random.below(3) * 1000;
    const task = async () => {
      for (let i = 0; i < 30; i++) await step(t, random);
    };
    await Promise.all([task(), task(), task(), task()]);
    // For readahead nobody waits.
    await t.clock.sleep(MSEC);
    checkIdle(t, `seed ${seed}`);
    t.dev.fault = () => 0;
    t.beginError = () => 0;
    await t.flush();
    await t.flush();
    await t.drop();
    checkIdle(t, `seed ${seed}, dropped`);
  }
});
