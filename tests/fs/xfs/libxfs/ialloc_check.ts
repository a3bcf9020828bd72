/**
 * Inodes for tests of libxfs, made and freed without directories; and what must hold of
 * the inodes of a group, read from its blocks.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { S_IFDIR, S_IFLNK, S_IFMT } from "../../../../fs/fs.ts";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import {
  xfsIallocReadAgi,
  type XfsPerag,
} from "../../../../fs/xfs/libxfs/ag.ts";
import {
  xfsBtreeDelCursor,
  xfsBtreeQueryAll,
  xfsBtreeVisitBlocks,
} from "../../../../fs/xfs/libxfs/btree.ts";
import * as F from "../../../../fs/xfs/libxfs/format.ts";
import {
  xfsDialloc,
  xfsInobtCheckIrec,
} from "../../../../fs/xfs/libxfs/ialloc.ts";
import {
  xfsFinobtInitCursor,
  xfsInobtInitCursor,
  type XfsInobtRec,
} from "../../../../fs/xfs/libxfs/ialloc-btree.ts";
import {
  xfsIflush,
  XfsImap,
  xfsInodeReadBuf,
} from "../../../../fs/xfs/libxfs/inode-buf.ts";
import {
  xfsDroplink,
  xfsIfree,
  xfsInodeInit,
} from "../../../../fs/xfs/libxfs/inode-util.ts";
import {
  xfsIallocSpaceRes,
  xfsIfreeSpaceRes,
} from "../../../../fs/xfs/libxfs/trans-space.ts";
import {
  XFS_ILOG_CORE,
  XFS_ILOG_DDATA,
  XFS_TRANS_RESERVE,
  xfsTransAlloc,
} from "../../../../fs/xfs/libxfs/trans.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import { collectBlocks, collectRecords } from "./alloc_check.ts";
import { readInode } from "./fixture.ts";

const imap = new XfsImap();

/** Makes an inode and writes it to its block; a negative errno if there is no room. */
export function makeInode(
  mp: XfsMount,
  parent: XfsInode,
  mode: number,
): XfsInode | number {
  const tp = xfsTransAlloc(mp, xfsIallocSpaceRes(mp));
  if (typeof tp === "number") return tp;
  const ino = xfsDialloc(tp, parent.ino, mode);
  if (ino < 0) {
    tp.cancel();
    return ino;
  }
  const ip = readInode(mp, ino);
  assertEquals(ip.mode, 0);
  xfsInodeInit(tp, ip, parent, mode);
  const type = mode & S_IFMT;
  if (type === S_IFDIR || type === S_IFLNK) {
    ip.df.format = F.XFS_DINODE_FMT_LOCAL;
    ip.df.local = new Uint8Array(6).fill(0x61);
    if (type === S_IFDIR) {
      // No entries, but a parent.
      const view = new DataView(ip.df.local.buffer);
      view.setUint16(0, 0);
      view.setUint32(2, parent.ino);
    }
    ip.size = ip.diskSize = 6;
    tp.logInode(ip, XFS_ILOG_CORE | XFS_ILOG_DDATA);
  }
  assertEquals(tp.commit(), 0);
  write(ip);
  return ip;
}

function write(ip: XfsInode): void {
  const { mount } = ip;
  assertEquals(xfsIflush(ip), 0);
  mount.dirtyXfsInodes.delete(ip);
  mount.dirtyInodes.delete(ip);
}

/** Drops all of an inode's names. */
export function unlinkInode(ip: XfsInode): number {
  const tp = xfsTransAlloc(ip.mount, 0, XFS_TRANS_RESERVE);
  if (typeof tp === "number") return tp;
  let error = 0;
  while (error === 0 && ip.nlink > 0) error = xfsDroplink(tp, ip);
  if (error < 0) {
    tp.cancel();
    return error;
  }
  assertEquals(tp.commit(), 0);
  write(ip);
  return 0;
}

/** Frees an inode without names.
 * @returns As `xfsIfree`. */
export function freeInode(ip: XfsInode): number {
  const { mount } = ip;
  const blocks = xfsIfreeSpaceRes(mount);
  const tp = xfsTransAlloc(mount, blocks, XFS_TRANS_RESERVE);
  if (typeof tp === "number") return tp;
  const freed = xfsIfree(tp, ip);
  if (freed < 0) {
    tp.cancel();
    return freed;
  }
  const error = tp.commit();
  if (error < 0) return error;
  if (freed === 0) write(ip);
  mount.dirtyXfsInodes.delete(ip);
  mount.dirtyInodes.delete(ip);
  return freed;
}

/** What a group's inodes are made of. */
interface InodeSpace {
  /** Chunks. */
  chunks: XfsInobtRec[];
  /** Blocks of the trees and of the chunks. */
  blocks: number[];
}

/** Reads the inode trees of a group, and checks them against each other. */
export function readInodeSpace(pag: XfsPerag): InodeSpace {
  const { mp, agno } = pag;
  const { sb } = mp;
  const agibp = xfsIallocReadAgi(pag, null);
  if (typeof agibp === "number") throw new Error(`AGI: ${agibp}`);
  const u32 = (at: number) => agibp.view.getUint32(at);
  const inits = sb.hasFinobt
    ? [xfsInobtInitCursor, xfsFinobtInitCursor]
    : [xfsInobtInitCursor];
  const lists: XfsInobtRec[][] = [];
  const daddrs: number[] = [];
  const trees = inits.map((init) => {
    const cur = init(mp, null, agibp, pag);
    const list: XfsInobtRec[] = [];
    const before = daddrs.length;
    assertEquals(xfsBtreeQueryAll(cur, collectRecords, list), 0);
    assertEquals(xfsBtreeVisitBlocks(cur, collectBlocks, daddrs), 0);
    xfsBtreeDelCursor(cur);
    lists.push(list);
    return daddrs.length - before;
  });
  const blocks = daddrs.map((daddr) =>
    daddr / sb.bbPerBlock - agno * sb.agblocks
  );
  const chunks = lists[0]!;
  if (sb.hasFinobt) {
    assertEquals(lists[1]!, chunks.filter((rec) => rec.freecount > 0));
  }
  if (sb.hasInobtcounts) {
    assertEquals(trees, [u32(F.AGI_IBLOCKS), u32(F.AGI_FBLOCKS)]);
  }
  let count = 0;
  let freecount = 0;
  for (const rec of chunks) {
    if (!sb.hasSparseInodes) {
      assertEquals([rec.holemask, rec.count], [0, 0]);
      rec.count = 64;
    }
    assertEquals(xfsInobtCheckIrec(pag, rec), null);
    count += rec.count;
    freecount += rec.freecount;
    chunkBlocks(pag, rec, blocks);
  }
  assertEquals([u32(F.AGI_COUNT), u32(F.AGI_FREECOUNT)], [count, freecount]);
  assertEquals([pag.pagiCount, pag.pagiFreecount], [count, freecount]);
  return { chunks, blocks };
}

function chunkBlocks(pag: XfsPerag, rec: XfsInobtRec, out: number[]): void {
  const { inopblock } = pag.mp.sb;
  const step = Math.max(4, inopblock);
  for (let i = 0; i < 64; i += step) {
    if ((rec.holemask >>> i / 4 & 1) !== 0) continue;
    const agbno = (rec.startino + i) / inopblock;
    // A block may hold several chunks.
    if (Number.isInteger(agbno)) out.push(agbno);
    if (inopblock < 4) out.push(agbno + 1);
  }
}

/** Checks all inodes of a file system against those that should be in use: trees,
 * counters, and the inodes in their blocks. */
export function checkInodes(mp: XfsMount, used: Map<number, XfsInode>): void {
  const { sb } = mp;
  let count = 0;
  let freecount = 0;
  let seen = 0;
  for (const pag of mp.perags) {
    for (const rec of readInodeSpace(pag).chunks) {
      count += rec.count;
      freecount += rec.freecount;
      for (let i = 0; i < 64; i++) {
        const word = i < 32 ? rec.freeLo : rec.freeHi;
        const free = (word & 1 << (i & 31)) !== 0;
        const hole = (rec.holemask & 1 << (i >>> 2)) !== 0;
        const ino = sb.aginoToIno(pag.agno, rec.startino + i);
        const ip = used.get(ino);
        assertEquals(free, ip === undefined, `inode ${ino}`);
        if (!free) seen++;
        if (!hole) checkInode(mp, ino, ip);
      }
    }
  }
  assertEquals(seen, used.size);
  assertEquals([sb.icount, sb.ifree], [count, freecount]);
  assert(!mp.dead, mp.complaint);
}

function checkInode(
  mp: XfsMount,
  ino: number,
  ip: XfsInode | undefined,
): void {
  const disk = readInode(mp, ino);
  assertEquals(disk.mode, ip === undefined ? 0 : ip.mode);
  if (ip !== undefined) {
    assertEquals([disk.nlink, disk.gen], [ip.nlink, ip.gen]);
  }
}

/** Reads the lists of unlinked inodes of a file system. */
export function readUnlinked(mp: XfsMount): Set<number> {
  const found = new Set<number>();
  for (const pag of mp.perags) {
    const agibp = xfsIallocReadAgi(pag, null);
    if (typeof agibp === "number") throw new Error(`AGI: ${agibp}`);
    for (let i = 0; i < F.XFS_AGI_UNLINKED_BUCKETS; i++) {
      let agino = agibp.view.getUint32(F.AGI_UNLINKED + i * 4);
      while (agino !== F.NULLAGINO) {
        assertEquals(agino % F.XFS_AGI_UNLINKED_BUCKETS, i);
        const ino = mp.sb.aginoToIno(pag.agno, agino);
        assert(!found.has(ino), "a ring");
        found.add(ino);
        agino = nextUnlinked(mp, ino);
      }
    }
  }
  return found;
}

/** The inode after one on its list. */
export function nextUnlinked(mp: XfsMount, ino: number): number {
  const bp = xfsInodeReadBuf(mp, ino, imap);
  if (typeof bp === "number") throw new Error(`inode ${ino}: ${bp}`);
  return bp.view.getUint32(imap.boffset + F.DI_NEXT_UNLINKED);
}

/** The inodes in use of a file system that has just been mounted. */
export function usedInodes(mp: XfsMount): Map<number, XfsInode> {
  const used = new Map<number, XfsInode>();
  for (const pag of mp.perags) {
    for (const rec of readInodeSpace(pag).chunks) {
      for (let i = 0; i < 64; i++) {
        const word = i < 32 ? rec.freeLo : rec.freeHi;
        if ((word & 1 << (i & 31)) !== 0) continue;
        const ino = mp.sb.aginoToIno(pag.agno, rec.startino + i);
        used.set(ino, readInode(mp, ino));
      }
    }
  }
  return used;
}
