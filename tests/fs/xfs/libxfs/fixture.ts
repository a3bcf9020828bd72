/**
 * Mounts for tests of libxfs: an image in memory, and as much of a mount as libxfs
 * uses, without VFS; and inodes without operations.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import {
  type FileOperations,
  type InodeOperations,
  S_IFREG,
  type SuperOperations,
} from "../../../../fs/fs.ts";
import { XfsInode } from "../../../../fs/xfs/inode.ts";
import {
  xfsAllocReadAgf,
  xfsIallocReadAgi,
} from "../../../../fs/xfs/libxfs/ag.ts";
import {
  xfsAllocAgMaxUsable,
  xfsAllocSetAside,
} from "../../../../fs/xfs/libxfs/alloc.ts";
import {
  xfsDinodeVerify,
  XfsImap,
  xfsInodeFromDisk,
  xfsInodeReadBuf,
} from "../../../../fs/xfs/libxfs/inode-buf.ts";
import { decodeSb } from "../../../../fs/xfs/libxfs/sb.ts";
import {
  type XfsTrans,
  xfsTransAlloc,
} from "../../../../fs/xfs/libxfs/trans.ts";
import { mkfsXfs, type MkfsXfsOptions } from "../../../../fs/xfs/mkfs.ts";
import { XfsMount } from "../../../../fs/xfs/mount.ts";
import type { AddressSpaceOperations } from "../../../../mm/address-space.ts";
import type { Mm } from "../../../../mm/mm.ts";
import { MemoryDevice } from "./memory_device.ts";

/** A device with a new, empty file system. */
export async function newImage(
  bytes: number,
  options: MkfsXfsOptions = {},
): Promise<MemoryDevice> {
  const device = new MemoryDevice(bytes);
  await mkfsXfs(device, { seed: 1, ...options });
  return device;
}

/** A mount of an image whose super block is right; its groups are not looked at. */
function rawMount(device: MemoryDevice): XfsMount {
  const sector = new Uint8Array(32768);
  device.peek(0, sector);
  const sb = decodeSb(sector);
  if ("reason" in sb) throw new Error(sb.reason);
  const ops = {} as SuperOperations;
  const mp = new XfsMount(device, {} as Mm, ops, sb, {
    allocsizeLog: null,
    readOnly: false,
  });
  mp.allocSetAside = xfsAllocSetAside(mp);
  mp.agMaxUsable = xfsAllocAgMaxUsable(mp);
  return mp;
}

/** A mount of an image, with the counters of its groups; -errno if a header cannot be.
 * No blocks are reserved. */
export function openMount(device: MemoryDevice): XfsMount | number {
  const mp = rawMount(device);
  const { sb } = mp;
  sb.icount = sb.ifree = 0;
  for (const pag of mp.perags) {
    const agf = xfsAllocReadAgf(pag, null);
    if (typeof agf === "number") return agf;
    const agi = xfsIallocReadAgi(pag, null);
    if (typeof agi === "number") return agi;
    mp.fdblocks += pag.pagfFreeblks + pag.pagfFlcount + pag.pagfBtreeblks;
    sb.icount += pag.pagiCount;
    sb.ifree += pag.pagiFreecount;
  }
  sb.fdblocks = mp.fdblocks;
  return mp;
}

/** A mount of an image whose headers are right. */
export function mountImage(device: MemoryDevice): XfsMount {
  const mp = openMount(device);
  if (typeof mp === "number") throw new Error(`mount: ${mp}`);
  return mp;
}

/** A mount of a new file system. */
export async function newMount(
  bytes: number,
  options: MkfsXfsOptions = {},
): Promise<XfsMount> {
  return mountImage(await newImage(bytes, options));
}

/** A transaction, or a failed test. */
export function begin(mp: XfsMount, blocks = 0): XfsTrans {
  const tp = xfsTransAlloc(mp, blocks);
  if (typeof tp === "number") throw new Error(`transaction: ${tp}`);
  return tp;
}

/** Does something in a transaction; what it answers, or the errno of the commit. */
export function transact(
  mp: XfsMount,
  blocks: number,
  work: (tp: XfsTrans) => number,
): number {
  const tp = xfsTransAlloc(mp, blocks);
  if (typeof tp === "number") return tp;
  const result = work(tp);
  if (result < 0) {
    tp.cancel();
    return result;
  }
  const error = tp.commit();
  return error < 0 ? error : result;
}

/** An inode that nothing is known of. */
export function newInode(
  mp: XfsMount,
  ino: number,
  mode = S_IFREG | 0o644,
): XfsInode {
  return new XfsInode(
    mp,
    ino,
    mode,
    {} as InodeOperations,
    {} as FileOperations,
    {} as AddressSpaceOperations,
  );
}

/** One of the inodes that mkfs has left free, as an empty file.
 * @param nr From 0. */
export function newFile(mp: XfsMount, nr = 0): XfsInode {
  return newInode(mp, mp.sb.rootino + 3 + nr);
}

/** Reads an inode from its block, in use or not. */
export function readInode(mp: XfsMount, ino: number): XfsInode {
  const imap = new XfsImap();
  const bp = xfsInodeReadBuf(mp, ino, imap);
  if (typeof bp === "number") throw new Error(`inode ${ino}: ${bp}`);
  assertEquals(xfsDinodeVerify(mp, ino, bp.data, imap.boffset), null);
  const ip = newInode(mp, ino);
  assertEquals(xfsInodeFromDisk(ip, bp.data, imap.boffset), 0);
  return ip;
}
