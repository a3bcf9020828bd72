import { assertEquals } from "@std/assert";
import { S_IFLNK } from "../../../../fs/fs.ts";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import {
  XFS_BMAPI_PREALLOC,
  xfsBmapiWrite,
  xfsBunmapi,
} from "../../../../fs/xfs/libxfs/bmap.ts";
import { xfsBmapAddAttrfork } from "../../../../fs/xfs/libxfs/bmap-attrfork.ts";
import {
  BB_LEVEL,
  BB_NUMRECS,
  XFS_DATA_FORK,
  XFS_DINODE_FMT_BTREE,
  XFS_DINODE_FMT_DEV,
  XFS_DINODE_FMT_EXTENTS,
  XFS_DINODE_FMT_LOCAL,
  XFS_SB_VERSION_ATTRBIT,
} from "../../../../fs/xfs/libxfs/format.ts";
import { BmbtIrec } from "../../../../fs/xfs/libxfs/iext.ts";
import { xfsIflush } from "../../../../fs/xfs/libxfs/inode-buf.ts";
import {
  xfsInitLocalFork,
  xfsInodeForkSize,
} from "../../../../fs/xfs/libxfs/inode-fork.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import { checkFile, checkReload, rows } from "./bmap_check.ts";
import { newFile, newMount, transact } from "./fixture.ts";

const MiB = 2 ** 20;

/** A file of `n` blocks with holes between them. */
function holey(mp: XfsMount, n: number): XfsInode {
  const ip = newFile(mp);
  const out = new BmbtIrec();
  for (let at = 0; at < 2 * n; at = out.endoff) {
    const len = 2 * n - at;
    transact(
      mp,
      len + 100,
      (tp) => xfsBmapiWrite(tp, ip, at, len, XFS_BMAPI_PREALLOC, 0, [out], 1),
    );
  }
  for (let i = 0; i < n; i++) {
    transact(mp, 100, (tp) => xfsBunmapi(tp, ip, 2 * i, 1, 0, 0));
  }
  return ip;
}

function addFork(ip: XfsInode, size: number): number {
  return transact(ip.mount, 100, (tp) => xfsBmapAddAttrfork(tp, ip, size));
}

Deno.test("xfsBmapAddAttrfork() moves extents that do not fit any more to a tree", async () => {
  const mp = await newMount(64 * MiB, { blockSize: 1024 });
  for (
    const [n, format] of [[12, XFS_DINODE_FMT_EXTENTS], [
      13,
      XFS_DINODE_FMT_BTREE,
    ]] as const
  ) {
    const ip = holey(mp, n);
    const before = rows(ip);
    assertEquals(addFork(ip, 144), 0);
    assertEquals([ip.forkoff, ip.df.format], [24, format]);
    assertEquals([ip.af!.format, ip.af!.nextents], [XFS_DINODE_FMT_EXTENTS, 0]);
    assertEquals(rows(ip), before);
    assertEquals(mp.sb.versionnum & XFS_SB_VERSION_ATTRBIT, 0x10);
    checkFile(ip);
    assertEquals(xfsIflush(ip), 0);
    checkReload(ip);
    transact(mp, 0, (tp) => xfsBunmapi(tp, ip, 0, Infinity, 0, 0));
    checkFile(ip);
  }
});

Deno.test("xfsBmapAddAttrfork() puts a block between a root that is too long and its children", async () => {
  const mp = await newMount(64 * MiB, { blockSize: 1024 });
  const ip = holey(mp, 800);
  const root = ip.df.broot!;
  assertEquals(root.view.getUint16(BB_LEVEL), 1);
  assertEquals(root.view.getUint16(BB_NUMRECS) > 11, true);
  const before = rows(ip);
  assertEquals(addFork(ip, 300), 0);
  assertEquals([ip.forkoff, xfsInodeForkSize(ip, XFS_DATA_FORK)], [24, 192]);
  checkFile(ip);
  assertEquals(rows(ip), before);
  const { view } = ip.df.broot!;
  assertEquals([view.getUint16(BB_LEVEL), view.getUint16(BB_NUMRECS)], [2, 1]);
  assertEquals(xfsIflush(ip), 0);
  checkReload(ip);
});

Deno.test("xfsBmapAddAttrfork() moves a symbolic link's target to a block", async () => {
  const mp = await newMount(64 * MiB);
  for (
    const [length, format] of [[40, XFS_DINODE_FMT_LOCAL], [
      300,
      XFS_DINODE_FMT_EXTENTS,
    ]] as const
  ) {
    const ip = newFile(mp);
    ip.mode = S_IFLNK | 0o777;
    ip.df.format = XFS_DINODE_FMT_LOCAL;
    ip.diskSize = ip.size = length;
    const target = new Uint8Array(length).fill(97);
    xfsInitLocalFork(ip, XFS_DATA_FORK, target);
    assertEquals(addFork(ip, 100), 0);
    assertEquals(ip.df.format, format);
    if (format === XFS_DINODE_FMT_LOCAL) {
      assertEquals(ip.df.local, target);
    } else checkFile(ip);
  }
});

Deno.test("xfsBmapAddAttrfork() leaves a special file its number", async () => {
  const mp = await newMount(64 * MiB);
  const ip = newFile(mp);
  ip.mode = 0o020644;
  ip.df.format = XFS_DINODE_FMT_DEV;
  assertEquals(addFork(ip, 100), 0);
  assertEquals(ip.forkoff, 1);
});
