/** A small file system written against the interface of before 6.18, run through the
 * adapters of `iomap/compat.ts`. */
import { assert, assertEquals } from "@std/assert";
import { type Bio, submitBio } from "../../block/bio.ts";
import { blkStatusToErrno } from "../../block/blk-types.ts";
import type { Inode } from "../../fs/fs.ts";
import { IOCB_WRITE } from "../../fs/kiocb.ts";
import {
  iomapFileBufferedWrite,
  iomapGetFolio,
  iomapWritepages,
  iomapZeroRange,
} from "../../iomap/buffered-io.ts";
import {
  iomapFileBufferedWritePunchDelalloc,
  type IomapFolioOps,
  iomapIoendMapFlags,
  iomapIoendType,
  iomapIterProcessed,
  iomapOpsFromOld,
  type IomapOpsPair,
  type OldIomapOps,
  type OldIomapWritebackOps,
  OldIomapWritepageCtx,
} from "../../iomap/compat.ts";
import { iomapFinishIoends, type IomapIoend } from "../../iomap/ioend.ts";
import {
  Iomap,
  IOMAP_DELALLOC,
  IOMAP_F_ANON_WRITE,
  IOMAP_F_NEW,
  IOMAP_F_SHARED,
  IOMAP_F_SIZE_CHANGED,
  IOMAP_HOLE,
  IOMAP_IOEND_SHARED,
  IOMAP_IOEND_UNWRITTEN,
  IOMAP_MAPPED,
  IOMAP_NULL_ADDR,
  IOMAP_UNWRITTEN,
  IOMAP_WRITE,
  IomapIter,
  iomapIterInit,
} from "../../iomap/iomap.ts";
import { EIO, ENOSPC } from "../../lib/errno.ts";
import { IovIter } from "../../lib/iov-iter.ts";
import { folioPut, folioUnlock } from "../../mm/folio.ts";
import { bytes, FaultyIter, pattern, test, TestFs } from "./testfs.ts";

/** A file system as it would have been written for Linux 6.11, over the extents of a
 * TestFs: delayed allocation, a cookie, an errno for the block that fails. */
class OldFs {
  readonly t: TestFs;
  readonly pair: IomapOpsPair;
  readonly log: string[] = [];
  /** Moves with each change of an extent. */
  seq = 1;
  /** File offset whose block cannot be allocated. */
  noSpaceAt = -1;

  constructor(t: TestFs) {
    this.t = t;
    this.pair = iomapOpsFromOld(this.ops);
    t.inode.mapping.ops.writepages = (_, wbc) => {
      const wpc = new OldIomapWritepageCtx(t.inode, wbc, this.writebackOps);
      return iomapWritepages(wpc);
    };
  }

  readonly folioOps: IomapFolioOps = {
    getFolio: (iter, pos, len) => {
      this.log.push(`get ${pos}+${len}`);
      return iomapGetFolio(iter, pos, len);
    },
    putFolio: (_inode, pos, copied, folio) => {
      this.log.push(`put ${pos} ${copied}`);
      folioUnlock(folio);
      folioPut(folio);
    },
    iomapValid: (_inode, iomap) => iomap.validityCookie === this.seq,
  };

  readonly ops: OldIomapOps = {
    iomapBegin: (_inode, pos, length, flags, iomap) => {
      const { t } = this;
      let extent = t.lookup(pos);
      if (extent.type === IOMAP_HOLE && (flags & IOMAP_WRITE) !== 0) {
        const offset = pos - (pos & 4095);
        const end = Math.ceil((pos + length) / 4096) * 4096;
        extent = {
          offset,
          length: end - offset,
          type: IOMAP_DELALLOC,
          addr: IOMAP_NULL_ADDR,
        };
        t.insert(extent);
        iomap.flags |= IOMAP_F_NEW;
      }
      t.fill(iomap, extent);
      iomap.validityCookie = this.seq;
      iomap.folioOps = this.folioOps;
      return 0;
    },
    iomapEnd: (inode, pos, length, written, _flags, iomap) => {
      assert(iomap.folioOps === this.folioOps);
      const grown = (iomap.flags & IOMAP_F_SIZE_CHANGED) !== 0;
      this.log.push(`end ${pos}+${length} ${written}${grown ? " grown" : ""}`);
      return iomapFileBufferedWritePunchDelalloc(
        inode,
        iomap,
        pos,
        length,
        written,
        this.punch,
      );
    },
  };

  readonly punch = (_inode: Inode, pos: number, length: number): number => {
    this.log.push(`punch ${pos}+${length}`);
    assert(this.t.inode.mapping.invalidateLock.isLockedExclusive);
    const hole = { offset: pos, length, type: IOMAP_HOLE, addr: -1 };
    this.t.insert(hole);
    this.t.extents = this.t.extents.filter((e) => e.type !== IOMAP_HOLE);
    return 0;
  };

  readonly writebackOps: OldIomapWritebackOps = {
    mapBlocks: (wpc, inode, offset, len) => {
      this.log.push(`map ${offset}+${len}`);
      assert(inode === this.t.inode);
      if (offset === this.noSpaceAt) return -ENOSPC;
      const { t } = this;
      let extent = t.lookup(offset);
      if (extent.type === IOMAP_DELALLOC) {
        const addr = t.alloc(extent.length);
        extent = { ...extent, type: IOMAP_UNWRITTEN, addr };
        t.insert(extent);
        this.seq++;
      }
      wpc.iomap.flags = 0;
      t.fill(wpc.iomap, extent);
      return 0;
    },
    prepareIoend: (ioend, status) => {
      this.log.push(`prepare ${ioend.offset}+${ioend.size} ${status}`);
      ioend.bio.endIo = this.endIo;
      return status;
    },
    discardFolio: (folio, pos) => {
      this.log.push(`discard folio ${folio.index} from ${pos}`);
    },
  };

  readonly endIo = (bio: Bio): void => {
    const ioend = bio.private as IomapIoend;
    this.log.push(`done ${ioend.offset}+${ioend.size}`);
    if (bio.status === 0 && iomapIoendType(ioend) === IOMAP_UNWRITTEN) {
      for (const e of this.t.extents) e.type = IOMAP_MAPPED;
      this.seq++;
    }
    iomapFinishIoends(ioend, blkStatusToErrno(bio.status));
  };

  async write(pos: number, from: IovIter): Promise<number> {
    const iocb = this.t.iocb(pos, IOCB_WRITE);
    const { ops, writeOps } = this.pair;
    return await iomapFileBufferedWrite(iocb, from, ops, writeOps, null);
  }

  take(): string[] {
    return this.log.splice(0);
  }
}

test("iomapOpsFromOld() calls the hooks that the mapping brings along", async () => {
  const fs = new OldFs(new TestFs());
  assertEquals(await fs.write(0, new IovIter(pattern(0, 6000))), 6000);
  assertEquals(fs.take(), [
    "get 0+4096",
    "put 0 4096",
    "get 4096+1904",
    "put 4096 1904",
    "end 0+6000 6000 grown",
  ]);
  assertEquals(await fs.t.read(0, 8192), pattern(0, 6000));
  assertEquals(await fs.write(6000, new IovIter(bytes(10, 1))), 10);
  assertEquals(fs.take().at(-1), "end 6000+10 10 grown");
});

test("iomapOpsFromOld() asks the mapping's iomapValid, and gets another where it is stale", async () => {
  const fs = new OldFs(new TestFs());
  await fs.write(0, new IovIter(pattern(0, 4096)));
  fs.take();
  const { getFolio } = fs.folioOps;
  let once = true;
  fs.folioOps.getFolio = (iter, pos, len) => {
    if (once) fs.seq++;
    once = false;
    return getFolio!(iter, pos, len);
  };
  assertEquals(await fs.write(0, new IovIter(bytes(100, 7))), 100);
  assertEquals(fs.take(), [
    "get 0+100",
    "put 0 0",
    "end 0+100 0",
    "get 0+100",
    "put 0 100",
    "end 0+100 100",
  ]);
});

test("iomapOpsFromOld() does what the library does where a mapping has no hooks", async () => {
  const fs = new OldFs(new TestFs());
  const { iomapBegin } = fs.ops;
  fs.ops.iomapBegin = async (inode, pos, length, flags, iomap, srcmap) => {
    const ret = await iomapBegin(inode, pos, length, flags, iomap, srcmap);
    iomap.folioOps = null;
    return ret;
  };
  delete fs.ops.iomapEnd;
  const { ops, writeOps } = iomapOpsFromOld(fs.ops);
  const iocb = fs.t.iocb(0, IOCB_WRITE);
  const from = new IovIter(pattern(0, 5000));
  const n = await iomapFileBufferedWrite(iocb, from, ops, writeOps, null);
  assertEquals(n, 5000);
  assertEquals(fs.take(), []);
  assertEquals(fs.t.folio(1)!.refcount, 1);
  const did = { value: false };
  const { inode } = fs.t;
  await iomapZeroRange(inode, 0, 100, did, ops, writeOps, null);
  assert(did.value);
});

test("iomapOpsFromOld() takes a mapping that it has not made for valid", () => {
  const { pair, t } = new OldFs(new TestFs());
  assert(pair.writeOps.iomapValid!(t.inode, new Iomap()));
});

test("iomapOpsFromOld() hands errors of begin on", async () => {
  const fs = new OldFs(new TestFs());
  fs.ops.iomapBegin = () => -ENOSPC;
  assertEquals(await fs.write(0, new IovIter(bytes(10, 1))), -ENOSPC);
  assertEquals(fs.take(), []);
});

test("iomapFileBufferedWritePunchDelalloc() gives back what a short write left", async () => {
  const fs = new OldFs(new TestFs());
  const from = new FaultyIter(5000, bytes(16384, 1));
  assertEquals(await fs.write(0, from), 5000);
  const log = fs.take().filter((line) => !/^(get|put)/.test(line));
  assertEquals(log, [
    "end 0+16384 5000 grown",
    "punch 8192+8192",
    // What had been reserved by an earlier call stays.
    "end 5000+3192 0",
  ]);
  assertEquals(fs.t.extents.map((e) => [e.offset, e.length]), [[0, 8192]]);
  assertEquals(fs.t.inode.mapping.invalidateLock.isLocked, false);
});

test("iomapFileBufferedWritePunchDelalloc() leaves alone what it did not reserve, or was used", async () => {
  const { inode } = new TestFs();
  const iomap = new Iomap();
  let punched = 0;
  const release = (written: number) =>
    iomapFileBufferedWritePunchDelalloc(
      inode,
      iomap,
      0,
      8192,
      written,
      () => punched++,
    );
  iomap.type = IOMAP_MAPPED;
  iomap.flags = IOMAP_F_NEW;
  assertEquals(await release(0), 0);
  iomap.type = IOMAP_DELALLOC;
  iomap.flags = 0;
  assertEquals(await release(0), 0);
  iomap.flags = IOMAP_F_NEW;
  assertEquals(await release(4097), 0);
  assertEquals(punched, 0);
});

test("iomapFileBufferedWritePunchDelalloc() stops at the first error of punch", async () => {
  const t = new TestFs({ blkbits: 10 });
  // Two dirty blocks with clean ones between: three ranges to punch.
  await t.write(0, bytes(8192, 1));
  await t.flush();
  await t.write(1024, bytes(1024, 1));
  await t.write(3072, bytes(1024, 1));
  const iomap = new Iomap();
  iomap.type = IOMAP_DELALLOC;
  iomap.flags = IOMAP_F_NEW;
  let calls = 0;
  const ret = await iomapFileBufferedWritePunchDelalloc(
    t.inode,
    iomap,
    0,
    8192,
    0,
    () => ++calls === 2 ? -EIO : 0,
  );
  assertEquals([ret, calls], [-EIO, 2]);
  assertEquals(t.inode.mapping.invalidateLock.isLocked, false);
});

test("mapBlocks() and prepareIoend() carry writeback, and its completion", async () => {
  const fs = new OldFs(new TestFs());
  await fs.write(0, new IovIter(pattern(0, 10000)));
  fs.take();
  assertEquals(await fs.t.flush(), 0);
  assertEquals(fs.take(), [
    "map 0+4096",
    "map 4096+4096",
    "map 8192+4096",
    "prepare 0+10000 0",
    "done 0+10000",
  ]);
  assertEquals(fs.t.extents.map((e) => e.type), [IOMAP_MAPPED]);
  await fs.t.drop();
  assertEquals(await fs.t.read(0, 10000), pattern(0, 10000));
});

test("discardFolio() is called for what mapBlocks() cannot map; the pending ioend fails", async () => {
  const fs = new OldFs(new TestFs());
  await fs.write(0, new IovIter(bytes(8192, 1)));
  fs.take();
  fs.noSpaceAt = 4096;
  assertEquals(await fs.t.flush(), -ENOSPC);
  assertEquals(fs.take(), [
    "map 0+4096",
    "map 4096+4096",
    "discard folio 1 from 4096",
    `prepare 0+4096 ${-ENOSPC}`,
    "done 0+4096",
  ]);
  assertEquals(fs.t.dev.take(), []);
  assertEquals(fs.t.folio(0)!.writeback, false);
});

test("prepareIoend() may refuse: the ioend completes with its errno", async () => {
  const fs = new OldFs(new TestFs());
  const { prepareIoend } = fs.writebackOps;
  fs.writebackOps.prepareIoend = (ioend, status) =>
    prepareIoend!(ioend, status) || -EIO;
  await fs.write(0, new IovIter(bytes(4096, 1)));
  assertEquals(await fs.t.flush(), -EIO);
  assertEquals(fs.t.dev.take(), []);
  assertEquals(fs.t.folio(0)!.writeback, false);
});

test("without prepareIoend() an ioend ends by itself", async () => {
  const fs = new OldFs(new TestFs());
  delete fs.writebackOps.prepareIoend;
  await fs.write(0, new IovIter(bytes(4096, 1)));
  assertEquals(await fs.t.flush(), 0);
  assertEquals(fs.t.dev.take(), ["W 1048576+4096"]);
});

test("submitIoend() submits by itself, writes without address too", async () => {
  const fs = new OldFs(new TestFs());
  const { mapBlocks } = fs.writebackOps;
  fs.writebackOps.mapBlocks = (wpc, inode, offset, len) => {
    const ret = mapBlocks(wpc, inode, offset, len);
    wpc.iomap.flags |= IOMAP_F_ANON_WRITE;
    return ret;
  };
  let refuse = false;
  fs.writebackOps.submitIoend = (wpc, status) => {
    if (status !== 0 || refuse) return status || -ENOSPC;
    const { bio } = wpc.ioend!;
    bio.sector = 256;
    submitBio(bio);
    return 0;
  };
  await fs.write(0, new IovIter(bytes(4096, 1)));
  assertEquals(await fs.t.flush(), 0);
  assertEquals(fs.t.dev.take(), ["W 131072+4096"]);
  await fs.write(0, new IovIter(bytes(4096, 2)));
  refuse = true;
  assertEquals(await fs.t.flush(), -ENOSPC);
  assertEquals(fs.t.dev.take(), []);
  assertEquals(fs.t.folio(0)!.writeback, false);
});

test("an ioend's type and flags are told by their older names", () => {
  const ioend = { flags: 0 } as IomapIoend;
  assertEquals(iomapIoendType(ioend), IOMAP_MAPPED);
  assertEquals(iomapIoendMapFlags(ioend), 0);
  ioend.flags = IOMAP_IOEND_UNWRITTEN | IOMAP_IOEND_SHARED;
  assertEquals(iomapIoendType(ioend), IOMAP_UNWRITTEN);
  assertEquals(iomapIoendMapFlags(ioend), IOMAP_F_SHARED);
});

test("iomapIterProcessed() advances by what a body says it did", () => {
  const iter = new IomapIter();
  iomapIterInit(iter, { blkbits: 12 } as Inode, 0, 100, 0, "test");
  iter.iomap.length = 60;
  assertEquals(iomapIterProcessed(iter, 50), 0);
  assertEquals([iter.pos, iter.len], [50, 50]);
  assertEquals(iomapIterProcessed(iter, -EIO), -EIO);
  assertEquals(iter.pos, 50);
});
