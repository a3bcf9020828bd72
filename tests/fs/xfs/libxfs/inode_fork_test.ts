import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import {
  XFS_BMAPI_PREALLOC,
  xfsBmapiWrite,
  xfsBunmapi,
  xfsIreadExtents,
} from "../../../../fs/xfs/libxfs/bmap.ts";
import {
  xfsBmbtDiskGetAll,
  xfsBmbtDiskSetAll,
} from "../../../../fs/xfs/libxfs/bmap-btree.ts";
import { bufSeal, type XfsBuf } from "../../../../fs/xfs/libxfs/buf.ts";
import { getU64, putU64 } from "../../../../fs/xfs/libxfs/bytes.ts";
import * as F from "../../../../fs/xfs/libxfs/format.ts";
import { BmbtIrec } from "../../../../fs/xfs/libxfs/iext.ts";
import {
  xfsDinodeVerify,
  xfsIflush,
  XfsImap,
  xfsInodeFromDisk,
  xfsInodeReadBuf,
} from "../../../../fs/xfs/libxfs/inode-buf.ts";
import {
  XFS_IEXT_ADD_NOSPLIT_CNT,
  xfsIdataRealloc,
  xfsIextCountExtend,
  xfsIforkMaxext,
  xfsInitLocalFork,
} from "../../../../fs/xfs/libxfs/inode-fork.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import { EFBIG, EFSCORRUPTED } from "../../../../lib/errno.ts";
import { Prng } from "../../../../lib/prng.ts";
import { setLogHandler } from "../../../../lib/printk.ts";
import { checkReload, rows } from "./bmap_check.ts";
import {
  mountImage,
  newFile,
  newImage,
  newInode,
  newMount,
  transact,
} from "./fixture.ts";
import type { MemoryDevice } from "./memory_device.ts";

const MiB = 2 ** 20;

/** A file of `n` blocks with holes between them. */
function holey(mp: XfsMount, n: number): XfsInode {
  const ip = newFile(mp);
  const out = new BmbtIrec();
  const write = transact(
    mp,
    2 * n + 100,
    (tp) => xfsBmapiWrite(tp, ip, 0, 2 * n, XFS_BMAPI_PREALLOC, 0, [out], 1),
  );
  assertEquals([write, out.count], [1, 2 * n]);
  for (let i = 0; i < n; i++) {
    const done = transact(mp, 100, (tp) => xfsBunmapi(tp, ip, 2 * i, 1, 0, 0));
    assertEquals(done, 1);
  }
  assertEquals(xfsIflush(ip), 0);
  return ip;
}

/** An image with such a file, written out. */
async function imageWith(n: number): Promise<[MemoryDevice, number]> {
  const device = await newImage(64 * MiB, { blockSize: 1024 });
  const mp = mountImage(device);
  const ip = holey(mp, n);
  assertEquals(await mp.targ.flush(), 0);
  return [device, ip.ino];
}

const imap = new XfsImap();

/** Reads an inode and its map as a mount does; what came of it. */
function readAll(mp: XfsMount, ino: number): XfsInode | number {
  const bp = xfsInodeReadBuf(mp, ino, imap);
  if (typeof bp === "number") return bp;
  const why = xfsDinodeVerify(mp, ino, bp.data, imap.boffset);
  if (why !== null) return mp.corrupt(`inode ${ino}`, why);
  const ip = newInode(mp, ino);
  const error = xfsInodeFromDisk(ip, bp.data, imap.boffset);
  if (error < 0) return error;
  const read = xfsIreadExtents(null, ip, F.XFS_DATA_FORK);
  return read < 0 ? read : ip;
}

/** Changes an inode in its buffer, and mends the checksum. */
function change(
  mp: XfsMount,
  ino: number,
  fn: (view: DataView, fork: DataView) => void,
): void {
  const bp = xfsInodeReadBuf(mp, ino, imap) as XfsBuf;
  const { inodesize } = mp.sb;
  const at = imap.boffset;
  const fork = inodesize - F.DI_SIZE_V3;
  fn(
    new DataView(bp.data.buffer, at, inodesize),
    new DataView(bp.data.buffer, at + F.DI_SIZE_V3, fork),
  );
  bufSeal(bp.data.subarray(at, at + inodesize), F.DI_CRC);
}

/** The extents of an inode that has a few, as they are changed. */
type Change = (recs: BmbtIrec[], mp: XfsMount) => void;

const badExtents: [what: string, complaint: string, fn: Change][] = [
  ["out of order", "not from", (r) => {
    const off = r[0]!.startoff;
    r[0]!.startoff = r[1]!.startoff;
    r[1]!.startoff = off;
  }],
  ["that overlap", "not from", (r) => r[0]!.count = 3],
  ["of no blocks", "extent of 0 blocks", (r) => r[1]!.count = 0],
  ["beyond the device", "extent of", (r, mp) => {
    r[1]!.startblock = mp.sb.agbToFsb(mp.sb.agcount, 5);
  }],
  ["in a group's header", "extent of", (r) => r[1]!.startblock = 1],
  ["across groups", "extent of", (r, mp) => {
    r[4]!.startblock = mp.sb.agSize(0) - 1;
    r[4]!.count = 2;
  }],
  ["behind the largest offset", "extent at file block", (r) => {
    r[4]!.startoff = 2 ** 53 - 1;
    r[4]!.count = 2;
  }],
];

for (const [what, complaint, fn] of badExtents) {
  Deno.test(`xfsInodeFromDisk() refuses extents ${what}`, async () => {
    const silent = setLogHandler(() => {});
    const [device, ino] = await imageWith(5);
    const mp = mountImage(device);
    change(mp, ino, (_, fork) => {
      const recs = [0, 1, 2, 3, 4].map((i) => {
        const rec = new BmbtIrec();
        xfsBmbtDiskGetAll(fork, i * 16, rec);
        return rec;
      });
      fn(recs, mp);
      recs.forEach((rec, i) => xfsBmbtDiskSetAll(fork, i * 16, rec));
    });
    assertEquals(readAll(mp, ino), -EFSCORRUPTED);
    assertStringIncludes(mp.complaint, complaint);
    assert(mp.dead);
    setLogHandler(silent);
  });
}

type Edit = (view: DataView, fork: DataView) => void;

const badInodes: [what: string, n: number, complaint: string, fn: Edit][] = [
  ["too many extents for the fork", 5, "data extents", (view) => {
    view.setUint32(F.DI_NEXTENTS, 22);
    putU64(view, F.DI_NBLOCKS, 100);
  }],
  ["more extents than blocks", 5, "6 extents of 5 blocks", (view) => {
    view.setUint32(F.DI_NEXTENTS, 6);
  }],
  ["a tree of few extents", 60, "nextents 20 in a tree", (view) => {
    view.setUint32(F.DI_NEXTENTS, 20);
  }],
  ["fewer extents than the tree", 60, "not 59 extents", (view) => {
    view.setUint32(F.DI_NEXTENTS, 59);
  }],
  ["more extents than the tree", 60, "not 61 extents", (view) => {
    view.setUint32(F.DI_NEXTENTS, 61);
  }],
  ["a root without children", 60, "root of 0 blocks", (_, fork) => {
    fork.setUint16(2, 0);
  }],
  ["a root longer than the fork", 60, "root of 21 blocks", (_, fork) => {
    fork.setUint16(2, 21);
  }],
  ["a root of level 0", 60, "root of level 0", (_, fork) => {
    fork.setUint16(0, 0);
  }],
  ["a root higher than a tree can be", 60, "root of level 20", (_, fork) => {
    fork.setUint16(0, 20);
  }],
  ["a root of the wrong level", 60, "level", (_, fork) => {
    fork.setUint16(0, 2);
  }],
  ["a root that points nowhere", 60, "pointer", (_, fork) => {
    putU64(fork, 4 + 20 * 8, 2 ** 40);
  }],
  ["a root that points twice to a block", 200, "", (_, fork) => {
    putU64(fork, 4 + 21 * 8, getU64(fork, 4 + 20 * 8));
  }],
  ["keys out of order in the root", 200, "", (_, fork) => {
    putU64(fork, 4 + 8, 0);
  }],
  ["a local format", 5, "format 1", (view) => {
    view.setUint8(F.DI_FORMAT, 1);
  }],
  ["an unknown format", 5, "format 7", (view) => {
    view.setUint8(F.DI_FORMAT, 7);
  }],
  ["an attribute fork beyond its end", 5, "forkoff", (view) => {
    view.setUint8(F.DI_FORKOFF, 42);
  }],
  ["attribute extents without a fork", 5, "anextents", (view) => {
    view.setUint16(F.DI_ANEXTENTS, 1);
    putU64(view, F.DI_NBLOCKS, 50);
  }],
  ["wide counters without the feature", 5, "NREXT64", (view) => {
    view.setUint32(F.DI_FLAGS2 + 4, F.XFS_DIFLAG2_NREXT64);
  }],
  ["another's number", 5, "ino", (view) => putU64(view, F.DI_INO, 5)],
  ["a hint without a size", 5, "extsize", (view) => {
    view.setUint16(F.DI_FLAGS, F.XFS_DIFLAG_EXTSIZE);
  }],
  ["no type", 5, "mode", (view) => view.setUint16(F.DI_MODE, 0o170644)],
];

for (const [what, n, complaint, fn] of badInodes) {
  Deno.test(`an inode with ${what} is refused`, async () => {
    const silent = setLogHandler(() => {});
    const [device, ino] = await imageWith(n);
    const mp = mountImage(device);
    change(mp, ino, fn);
    assertEquals(readAll(mp, ino), -EFSCORRUPTED);
    assertStringIncludes(mp.complaint, complaint);
    setLogHandler(silent);
  });
}

// Goal: whatever the bytes of an inode and its tree are, reading it ends, with the file
// or an errno. Method: bytes are changed, checksums mended, in a tree of two levels.
Deno.test("reading an inode with any bytes ends with a file or an errno (seed 3)", async () => {
  const silent = setLogHandler(() => {});
  const device = await newImage(64 * MiB, { blockSize: 1024 });
  const first = mountImage(device);
  const { ino, df } = holey(first, 1500);
  assertEquals(df.broot!.view.getUint16(F.BB_LEVEL), 2);
  assertEquals(await first.targ.flush(), 0);
  const prng = new Prng(3, "hostile forks");
  let refused = 0;
  for (let round = 0; round < 200; round++) {
    const mp = mountImage(device);
    const whole = readAll(mp, ino) as XfsInode;
    const some = 1 + prng.below(3);
    for (let i = 0; i < some; i++) spoil(prng, mp, whole);
    const result = readAll(mp, ino);
    if (typeof result === "number") {
      assert(result < 0);
      refused++;
    } else assertEquals(rows(result).length, result.df.nextents);
  }
  assert(refused > 25 && refused < 200, `${refused} refused`);
  setLogHandler(silent);
});

/** Changes a byte or two of the inode, or of a block of its tree. */
function spoil(prng: Prng, mp: XfsMount, ip: XfsInode): void {
  if (prng.below(2) === 0) {
    change(mp, ip.ino, (view, fork) => {
      if (prng.below(2) === 0) {
        view.setUint8(prng.below(F.DI_SIZE_V3), prng.below(256));
      } else fork.setUint8(prng.below(60), prng.below(256));
    });
    return;
  }
  const blocks: XfsBuf[] = [];
  for (let daddr = 0; daddr < mp.bdev.nrSectors; daddr += 2) {
    const bp = mp.targ.incore(daddr);
    if (bp?.ops?.name === "xfs_bmbt") blocks.push(bp);
  }
  const bp = blocks[prng.below(blocks.length)]!;
  bp.data[prng.below(100)] = prng.below(256);
  bufSeal(bp.data, F.LBB_CRC);
  // As if it had just come from the device.
  bp.ops = null;
}

Deno.test("xfsIflush() keeps what xfsInodeFromDisk() has read, to the last byte", async () => {
  const device = await newImage(64 * MiB, { blockSize: 1024, nrext64: true });
  const mp = mountImage(device);
  const ip = holey(mp, 60);
  ip.diflags2 |= F.XFS_DIFLAG2_NREXT64;
  ip.atime = 1_700_000_000_123_456_768;
  ip.mtime = -5_000_000_001;
  ip.ctime = 16_299_260_424 * 1e9;
  ip.crtime = 0;
  ip.projid = 0x1234_5678;
  ip.size = ip.diskSize = 2 ** 53 - 1;
  ip.changecount = 77;
  assertEquals(xfsIflush(ip), 0);
  checkReload(ip);
  const bp = xfsInodeReadBuf(mp, ip.ino, imap) as XfsBuf;
  const at = imap.boffset;
  const before = bp.data.slice(at, at + mp.sb.inodesize);
  const again = readAll(mp, ip.ino) as XfsInode;
  for (
    const key of [
      "atime",
      "mtime",
      "ctime",
      "crtime",
      "projid",
      "size",
    ] as const
  ) assertEquals(again[key], ip[key], key);
  assertEquals(xfsIflush(again), 0);
  assertEquals(bp.data.slice(at, at + mp.sb.inodesize), before);
});

Deno.test("timestamps that a number cannot hold stay as they are on disk", async () => {
  const mp = await newMount(64 * MiB);
  const ip = holey(mp, 1);
  const exact = (view: DataView) => {
    view.setUint32(F.DI_MTIME, 0x3456_789a);
    view.setUint32(F.DI_MTIME + 4, 0xbcde_f123);
  };
  change(mp, ip.ino, exact);
  const again = readAll(mp, ip.ino) as XfsInode;
  again.atime += 1e9;
  assertEquals(xfsIflush(again), 0);
  const bp = xfsInodeReadBuf(mp, ip.ino, imap) as XfsBuf;
  const at = imap.boffset + F.DI_MTIME;
  const words = [bp.view.getUint32(at), bp.view.getUint32(at + 4)];
  assertEquals(words, [0x3456_789a, 0xbcde_f123]);
});

Deno.test("timestamps without bigtime are seconds and nanoseconds, and stop at 2038", async () => {
  const mp = await newMount(64 * MiB, { bigtime: false });
  const ip = holey(mp, 1);
  ip.mtime = -1;
  ip.ctime = 2 ** 33 * 1e9;
  assertEquals(xfsIflush(ip), 0);
  const again = readAll(mp, ip.ino) as XfsInode;
  assertEquals(again.mtime, -1);
  assertEquals(again.ctime, (2 ** 31 - 1) * 1e9);
});

Deno.test("xfsIextCountExtend() widens the counters, or answers -EFBIG", async () => {
  const one = XFS_IEXT_ADD_NOSPLIT_CNT;
  for (const nrext64 of [false, true]) {
    const mp = await newMount(64 * MiB, { nrext64 });
    const ip = newFile(mp);
    const extend = () =>
      transact(mp, 0, (tp) => xfsIextCountExtend(tp, ip, 0, one));
    ip.df.nextents = 2 ** 31 - 2;
    assertEquals(extend(), 0);
    assertEquals(ip.diflags2, 0);
    ip.df.nextents++;
    assertEquals(extend(), nrext64 ? 0 : -EFBIG);
    assertEquals(ip.diflags2, nrext64 ? F.XFS_DIFLAG2_NREXT64 : 0);
    if (!nrext64) continue;
    ip.df.nextents = 2 ** 48 - 1;
    assertEquals(extend(), -EFBIG);
  }
});

Deno.test("xfsIdataRealloc() keeps what is there, and adds zeroes", async () => {
  const mp = await newMount(64 * MiB);
  const ip = newFile(mp);
  ip.df.format = F.XFS_DINODE_FMT_LOCAL;
  xfsInitLocalFork(ip, F.XFS_DATA_FORK, new Uint8Array([1, 2, 3]));
  assertEquals([...xfsIdataRealloc(ip, 2, 0)], [1, 2, 3, 0, 0]);
  assertEquals([...xfsIdataRealloc(ip, -4, 0)], [1]);
  assertEquals(xfsIforkMaxext(ip, F.XFS_DATA_FORK), 21);
});
