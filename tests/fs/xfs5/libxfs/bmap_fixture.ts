/**
 * A file system on a device in memory that answers at once, and files in it, as far as
 * the logic below the operations needs them.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { type Bio, bioEndIo } from "../../../../block/bio.ts";
import { BlockDevice, type QueueLimits } from "../../../../block/blkdev.ts";
import { blkValidateLimits } from "../../../../block/blk-settings.ts";
import { REQ_OP_READ, reqOp } from "../../../../block/blk-types.ts";
import {
  type FileOperations,
  type InodeOperations,
  S_IFREG,
  type SuperOperations,
} from "../../../../fs/fs.ts";
import { XfsInode } from "../../../../fs/xfs5/inode.ts";
import { XfsMount } from "../../../../fs/xfs5/mount.ts";
import { xfsAllocReadAgf } from "../../../../fs/xfs5/libxfs/ag.ts";
import {
  xfsAllocAgMaxUsable,
  xfsAllocSetAside,
} from "../../../../fs/xfs5/libxfs/alloc.ts";
import { xfsAllocComputeMaxlevels } from "../../../../fs/xfs5/libxfs/alloc-btree.ts";
import { xfsBmapComputeMaxlevels } from "../../../../fs/xfs5/libxfs/bmap.ts";
import {
  XFS_ATTR_FORK,
  XFS_DATA_FORK,
} from "../../../../fs/xfs5/libxfs/format.ts";
import { xfsIallocComputeMaxlevels } from "../../../../fs/xfs5/libxfs/ialloc.ts";
import {
  xfsDinodeVerify,
  XfsImap,
  xfsInodeFromDisk,
  xfsInodeReadBuf,
} from "../../../../fs/xfs5/libxfs/inode-buf.ts";
import { xfsRefcountbtComputeMaxlevels } from "../../../../fs/xfs5/libxfs/refcount-btree.ts";
import { xfsRmapbtComputeMaxlevels } from "../../../../fs/xfs5/libxfs/rmap-btree.ts";
import { decodeSb } from "../../../../fs/xfs5/libxfs/sb.ts";
import {
  type XfsTrans,
  xfsTransAlloc,
} from "../../../../fs/xfs5/libxfs/trans.ts";
import { mkfsXfs, type MkfsXfsOptions } from "../../../../fs/xfs5/mkfs.ts";
import { VirtualClock } from "../../../../lib/clock.ts";
import type { AddressSpaceOperations } from "../../../../mm/address-space.ts";
import type { Mm } from "../../../../mm/mm.ts";

const SECTOR = 512;
const CHUNK = 65536;

/** Holds what was written, in pieces; all else is zero. */
export class MemoryDevice extends BlockDevice {
  override readonly name = "mem0";
  override readonly dev = { major: 7, minor: 0 };
  override readonly clock = new VirtualClock();
  override readonly limits: QueueLimits = blkValidateLimits({
    logicalBlockSize: 512,
    physicalBlockSize: 512,
  }) as QueueLimits;
  override readonly nrSectors: number;
  readonly #chunks = new Map<number, Uint8Array>();

  constructor(size: number) {
    super();
    this.nrSectors = size / SECTOR;
  }

  override submit(bio: Bio): void {
    let at = bio.sector * SECTOR;
    const read = reqOp(bio.opf) === REQ_OP_READ;
    for (const { data, offset, len } of bio.vecs) {
      this.#move(data.subarray(offset, offset + len), at, read);
      at += len;
    }
    bioEndIo(bio);
  }

  #move(memory: Uint8Array, at: number, read: boolean): void {
    for (let done = 0; done < memory.length;) {
      const index = Math.floor((at + done) / CHUNK);
      const from = at + done - index * CHUNK;
      const n = Math.min(CHUNK - from, memory.length - done);
      const part = memory.subarray(done, done + n);
      let chunk = this.#chunks.get(index);
      if (read) {
        if (chunk === undefined) part.fill(0);
        else part.set(chunk.subarray(from, from + n));
      } else {
        if (chunk === undefined) {
          this.#chunks.set(index, chunk = new Uint8Array(CHUNK));
        }
        chunk.set(part, from);
      }
      done += n;
    }
  }

  /** Contents of a run of bytes. */
  bytes(at: number, len: number): Uint8Array {
    const out = new Uint8Array(len);
    this.#move(out, at, true);
    return out;
  }
}

/** Makes a file system. */
export async function makeFs(
  size: number,
  options: MkfsXfsOptions,
): Promise<MemoryDevice> {
  const device = new MemoryDevice(size);
  await mkfsXfs(device, { seed: 1, ...options });
  return device;
}

/** Reads what a mount reads of super block and free space. */
export function mountFs(device: MemoryDevice): XfsMount {
  const sb = decodeSb(device.bytes(0, 32768));
  if ("reason" in sb) throw new Error(sb.reason);
  const ops = {} as SuperOperations;
  const options = { allocsizeLog: null, readOnly: false };
  const mp = new XfsMount(device, {} as Mm, ops, sb, options);
  xfsAllocComputeMaxlevels(mp);
  mp.maxlevels.bmapData = xfsBmapComputeMaxlevels(mp, XFS_DATA_FORK);
  mp.maxlevels.bmapAttr = xfsBmapComputeMaxlevels(mp, XFS_ATTR_FORK);
  xfsIallocComputeMaxlevels(mp);
  xfsRmapbtComputeMaxlevels(mp);
  xfsRefcountbtComputeMaxlevels(mp);
  let free = 0;
  for (const pag of mp.perags) {
    const agf = xfsAllocReadAgf(pag, null);
    if (typeof agf === "number") throw new Error(mp.complaint);
    free += pag.pagfFreeblks + pag.pagfFlcount + pag.pagfBtreeblks;
  }
  mp.sb.fdblocks = mp.fdblocks = free;
  mp.allocSetAside = xfsAllocSetAside(mp);
  mp.agMaxUsable = xfsAllocAgMaxUsable(mp);
  mp.reserveBlocks();
  return mp;
}

/** An inode that nothing is known of. */
export function newInode(mp: XfsMount, ino: number): XfsInode {
  const mode = S_IFREG | 0o644;
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

/** Reads an inode from its block. */
export function readInode(mp: XfsMount, ino: number): XfsInode {
  const imap = new XfsImap();
  const bp = xfsInodeReadBuf(mp, ino, imap);
  if (typeof bp === "number") throw new Error(mp.complaint);
  const why = xfsDinodeVerify(mp, ino, bp.data, imap.boffset);
  assertEquals(why, null);
  const ip = newInode(mp, ino);
  assertEquals(xfsInodeFromDisk(ip, bp.data, imap.boffset), 0);
  return ip;
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
