/**
 * Mounts for tests of libxfs: an image in memory, and as much of a mount as libxfs
 * uses, without inodes and VFS.
 *
 * @module
 */

import type { SuperOperations } from "../../../../fs/fs.ts";
import {
  xfsAllocReadAgf,
  xfsIallocReadAgi,
} from "../../../../fs/xfs5/libxfs/ag.ts";
import {
  xfsAllocAgMaxUsable,
  xfsAllocSetAside,
} from "../../../../fs/xfs5/libxfs/alloc.ts";
import { xfsAllocComputeMaxlevels } from "../../../../fs/xfs5/libxfs/alloc-btree.ts";
import { XFS_BTREE_MAXLEVELS } from "../../../../fs/xfs5/libxfs/format.ts";
import { xfsRefcountbtComputeMaxlevels } from "../../../../fs/xfs5/libxfs/refcount-btree.ts";
import { xfsRmapbtComputeMaxlevels } from "../../../../fs/xfs5/libxfs/rmap-btree.ts";
import { decodeSb } from "../../../../fs/xfs5/libxfs/sb.ts";
import {
  type XfsTrans,
  xfsTransAlloc,
} from "../../../../fs/xfs5/libxfs/trans.ts";
import { mkfsXfs, type MkfsXfsOptions } from "../../../../fs/xfs5/mkfs.ts";
import { XfsMount } from "../../../../fs/xfs5/mount.ts";
import type { Mm } from "../../../../mm/mm.ts";
import { MemoryDevice } from "./memory_device.ts";

/** A mount of an image whose super block is right; its groups are not looked at. */
export function rawMount(device: MemoryDevice): XfsMount {
  const sector = new Uint8Array(512);
  device.peek(0, sector);
  const sb = decodeSb(sector);
  if ("reason" in sb) throw new Error(sb.reason);
  const ops = {} as SuperOperations;
  const mp = new XfsMount(device, {} as Mm, ops, sb, {
    allocsizeLog: null,
    readOnly: false,
  });
  mp.maxlevels.inobt = XFS_BTREE_MAXLEVELS;
  xfsAllocComputeMaxlevels(mp);
  xfsRmapbtComputeMaxlevels(mp);
  xfsRefcountbtComputeMaxlevels(mp);
  mp.allocSetAside = xfsAllocSetAside(mp);
  mp.agMaxUsable = xfsAllocAgMaxUsable(mp);
  return mp;
}

/** The same, with counters of all groups; -errno if a header cannot be. */
export function openMount(device: MemoryDevice): XfsMount | number {
  const mp = rawMount(device);
  for (const pag of mp.perags) {
    const agf = xfsAllocReadAgf(pag, null);
    if (typeof agf === "number") return agf;
    const agi = xfsIallocReadAgi(pag, null);
    if (typeof agi === "number") return agi;
    mp.fdblocks += pag.pagfFreeblks + pag.pagfFlcount + pag.pagfBtreeblks;
  }
  mp.sb.fdblocks = mp.fdblocks;
  return mp;
}

/** A mount of a new file system. */
export async function newMount(
  bytes: number,
  options: MkfsXfsOptions = {},
): Promise<XfsMount> {
  const device = new MemoryDevice(bytes);
  await mkfsXfs(device, { seed: 1, ...options });
  const mp = openMount(device);
  if (typeof mp === "number") throw new Error(`mount: ${mp}`);
  return mp;
}

/** A transaction, or a failed test. */
export function begin(mp: XfsMount, blocks = 0): XfsTrans {
  const tp = xfsTransAlloc(mp, blocks);
  if (typeof tp === "number") throw new Error(`transaction: ${tp}`);
  return tp;
}
