import { assert, assertEquals } from "@std/assert";
import { EFSCORRUPTED } from "../../../../lib/errno.ts";
import { setLogHandler } from "../../../../lib/printk.ts";
import { Prng } from "../../../../lib/prng.ts";
import {
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFREG,
} from "../../../../fs/fs.ts";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import { bufSeal } from "../../../../fs/xfs/libxfs/buf.ts";
import * as F from "../../../../fs/xfs/libxfs/format.ts";
import {
  XfsImap,
  xfsInodeReadBuf,
} from "../../../../fs/xfs/libxfs/inode-buf.ts";
import {
  xfsBumplink,
  xfsDroplink,
  xfsInodeInit,
  xfsIunlink,
  xfsIunlinkRemove,
} from "../../../../fs/xfs/libxfs/inode-util.ts";
import type { MkfsXfsOptions } from "../../../../fs/xfs/mkfs.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import {
  begin,
  mountImage,
  newInode,
  newMount,
  readInode,
  transact,
} from "./fixture.ts";
import {
  freeInode,
  makeInode,
  nextUnlinked,
  readUnlinked,
  unlinkInode,
} from "./ialloc_check.ts";
import type { MemoryDevice } from "./memory_device.ts";

const MiB = 2 ** 20;

function newFs(options: MkfsXfsOptions = {}): Promise<XfsMount> {
  return newMount(64 * MiB, { agCount: 4, ...options });
}

/** An inode as after allocation; it is in no trees. */
function freshInode(
  mp: XfsMount,
  parent: XfsInode | null,
  mode: number,
): XfsInode {
  const ip = newInode(mp, mp.sb.rootino + 10, 0);
  const tp = begin(mp);
  xfsInodeInit(tp, ip, parent, mode);
  assertEquals(tp.commit(), 0);
  return ip;
}

Deno.test("xfsInodeInit() sets a new inode up as Linux does", async () => {
  // What xfs_db shows of files, directories, links and special files of Linux 6.18.
  const mp = await newFs();
  const root = readInode(mp, mp.sb.rootino);
  const shown = [S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFIFO].map((type) => {
    const ip = freshInode(mp, root, type | 0o755);
    assertEquals(ip.mode, type | 0o755);
    assertEquals([ip.size, ip.diskSize, ip.nblocks, ip.diflags], [0, 0, 0, 0]);
    assertEquals(ip.diflags2, F.XFS_DIFLAG2_BIGTIME);
    assertEquals(ip.changecount, 2);
    assertEquals([ip.mtime, ip.ctime, ip.crtime], [
      ip.atime,
      ip.atime,
      ip.atime,
    ]);
    return [ip.df.format, ip.nlink, ip.forkoff, ip.af?.format ?? null];
  });
  assertEquals(shown, [
    [2, 1, 24, 2],
    [2, 2, 24, 2],
    [2, 1, 0, null],
    [0, 1, 1, 2],
    [0, 1, 1, 2],
  ]);
  assert((mp.sb.versionnum & F.XFS_SB_VERSION_ATTRBIT) !== 0);
});

Deno.test("xfsInodeInit() sets the flags that go with features", async () => {
  const mp = await newFs({ bigtime: false, nrext64: true });
  assertEquals(
    freshInode(mp, null, S_IFREG).diflags2,
    F.XFS_DIFLAG2_NREXT64,
  );
});

Deno.test("xfsInodeInit() passes group, project and hints of the directory on", async () => {
  const mp = await newFs();
  const root = readInode(mp, mp.sb.rootino);
  root.mode |= 0o2000;
  root.uid = 7;
  root.gid = 8;
  root.projid = 9;
  root.diflags = F.XFS_DIFLAG_PROJINHERIT | F.XFS_DIFLAG_EXTSZINHERIT |
    F.XFS_DIFLAG_NODUMP | F.XFS_DIFLAG_NOSYMLINKS | F.XFS_DIFLAG_IMMUTABLE;
  root.extsize = 16;
  root.diflags2 |= F.XFS_DIFLAG2_COWEXTSIZE;
  root.cowextsize = 32;

  const file = freshInode(mp, root, S_IFREG | 0o644);
  const dir = freshInode(mp, root, S_IFDIR | 0o755);
  const link = freshInode(mp, root, S_IFLNK | 0o777);
  for (const ip of [file, dir, link]) {
    assertEquals([ip.uid, ip.gid, ip.projid], [0, 8, 9]);
  }
  assertEquals([file.mode, dir.mode], [S_IFREG | 0o644, S_IFDIR | 0o2755]);
  assertEquals(file.diflags, F.XFS_DIFLAG_EXTSIZE | F.XFS_DIFLAG_NODUMP);
  assertEquals(
    dir.diflags,
    F.XFS_DIFLAG_PROJINHERIT | F.XFS_DIFLAG_EXTSZINHERIT |
      F.XFS_DIFLAG_NODUMP,
  );
  assertEquals([file.extsize, dir.extsize, link.extsize], [16, 16, 0]);
  assertEquals([file.cowextsize, dir.cowextsize], [32, 32]);
  assertEquals([link.diflags, link.cowextsize], [0, 0]);
});

Deno.test("xfsDroplink() lists the inode with its last name, and pins a count below 0", async () => {
  const mp = await newFs();
  const root = readInode(mp, mp.sb.rootino);
  const ip = makeInode(mp, root, S_IFREG);
  assert(typeof ip !== "number");
  transact(mp, 0, (tp) => {
    xfsBumplink(tp, ip);
    return 0;
  });
  assertEquals(ip.nlink, 2);
  transact(mp, 0, (tp) => xfsDroplink(tp, ip));
  assertEquals([ip.nlink, readUnlinked(mp).size], [1, 0]);
  transact(mp, 0, (tp) => xfsDroplink(tp, ip));
  assertEquals([ip.nlink, [...readUnlinked(mp)]], [0, [ip.ino]]);
  transact(mp, 0, (tp) => xfsDroplink(tp, ip));
  assertEquals(ip.nlink, 2 ** 32 - 1);
  transact(mp, 0, (tp) => {
    xfsBumplink(tp, ip);
    return xfsDroplink(tp, ip);
  });
  assertEquals(ip.nlink, 2 ** 32 - 1);
});

/** Files whose numbers are 64 apart, so that they share a list, without names; the first
 * is listed first. */
function listed(mp: XfsMount, n: number): XfsInode[] {
  const root = readInode(mp, mp.sb.rootino);
  const all: XfsInode[] = [];
  while (all.length < n) {
    const ip = makeInode(mp, root, S_IFREG);
    assert(typeof ip !== "number");
    if (ip.ino % 64 === 9) all.push(ip);
  }
  for (const ip of all) assertEquals(unlinkInode(ip), 0);
  return all;
}

Deno.test("xfsIunlinkRemove() takes any inode off its list, known or not (seed 2)", async () => {
  for (const remount of [false, true]) {
    const prng = new Prng(2);
    let mp = await newFs();
    let all = listed(mp, 12);
    const inos = all.map((ip) => ip.ino);
    assertEquals([...readUnlinked(mp)], inos.toReversed());
    if (remount) {
      assertEquals(await mp.targ.flush(), 0);
      mp = mountImage(mp.bdev as MemoryDevice);
      all = inos.map((ino) => readInode(mp, ino));
    }
    while (inos.length > 0) {
      const i = prng.below(inos.length);
      assert(freeInode(all[i]!) >= 0, mp.complaint);
      inos.splice(i, 1);
      all.splice(i, 1);
      assertEquals([...readUnlinked(mp)], inos.toReversed());
    }
  }
});

/** Changes the pointer of an inode, with its checksum. */
function pointTo(mp: XfsMount, ino: number, agino: number): void {
  const imap = new XfsImap();
  const bp = xfsInodeReadBuf(mp, ino, imap);
  assert(typeof bp !== "number");
  const at = imap.boffset;
  bp.view.setUint32(at + F.DI_NEXT_UNLINKED, agino);
  bufSeal(bp.data.subarray(at, at + mp.sb.inodesize), F.DI_CRC);
}

// Of four inodes on a list: which one points to which, and which one is removed after a
// mount that knows nothing of them.
const WRONG: [string, number, number, number][] = [
  ["a ring to the head", 1, 3, 0],
  ["a ring behind the head", 1, 2, 0],
  ["an inode that points to itself", 1, 1, 0],
  ["a list that ends too early", 1, -1, 0],
  ["an inode of another list", 1, -2, 0],
];
for (const [name, from, to, removed] of WRONG) {
  Deno.test(`xfsIunlinkRemove() answers -EFSCORRUPTED: ${name}`, async () => {
    const mp = await newFs();
    const all = listed(mp, 4);
    const other = mp.sb.inoToAgino(mp.sb.rootino) + 1;
    const target = to === -1
      ? F.NULLAGINO
      : to === -2
      ? other
      : mp.sb.inoToAgino(all[to]!.ino);
    pointTo(mp, all[from]!.ino, target);
    mp.perags[0]!.prevUnlinked.clear();
    const silent = setLogHandler(() => {});
    const ip = all[removed]!;
    assertEquals(
      transact(mp, 0, (tp) => xfsIunlinkRemove(tp, ip)),
      -EFSCORRUPTED,
    );
    setLogHandler(silent);
    assert(mp.dead);
  });
}

Deno.test("xfsIunlink() answers -EFSCORRUPTED for an inode that is on a list", async () => {
  for (const i of [0, 1]) {
    const mp = await newFs();
    const all = listed(mp, 2);
    const ip = all[i]!;
    assertEquals(transact(mp, 0, (tp) => xfsIunlink(tp, ip)), -EFSCORRUPTED);
  }
});

Deno.test("xfsIfree() leaves a free inode of the next generation", async () => {
  const mp = await newFs();
  const root = readInode(mp, mp.sb.rootino);
  const ip = makeInode(mp, root, S_IFDIR | 0o755);
  assert(typeof ip !== "number");
  const { gen } = ip;
  assertEquals(unlinkInode(ip), 0);
  assertEquals(freeInode(ip), 0);
  const free = readInode(mp, ip.ino);
  assertEquals([free.mode, free.gen], [0, (gen + 1) % 2 ** 32]);
  assertEquals(nextUnlinked(mp, ip.ino), F.NULLAGINO);
  assertEquals([ip.mode, ip.forkoff, ip.af, ip.df.local], [0, 0, null, null]);
});

Deno.test("xfsIfree() answers 1 and drops the buffers when the chunk is gone", async () => {
  const mp = await newFs();
  const root = readInode(mp, mp.sb.rootino);
  makeInode(mp, root, S_IFDIR);
  const dir = makeInode(mp, root, S_IFDIR);
  assert(typeof dir !== "number");
  const { sb } = mp;
  const daddr = sb.fsbToDaddr(sb.inoToFsb(dir.ino));
  assert(mp.targ.incore(daddr) !== null);
  const before = [sb.icount, sb.ifree];
  assertEquals(unlinkInode(dir), 0);
  assertEquals(freeInode(dir), 1);
  assertEquals(mp.targ.incore(daddr), null);
  assertEquals([sb.icount, sb.ifree], [before[0]! - 64, before[1]! - 63]);
  assertEquals(await mp.targ.flush(), 0);
});
