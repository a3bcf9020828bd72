/**
 * Inode numbers: 64 at a time are laid out in a group, near what they are for.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_ialloc.c.
 *
 * @module
 */

import { ENOSPC } from "../../lib/errno.ts";
import { type InodeChunk, INODES_PER_CHUNK, type XfsPerag } from "./ag.ts";
import { reserveBlocks } from "./alloc.ts";
import { freeMetadata } from "./buf.ts";
import type { XfsMount } from "./mount.ts";

/**
 * Allocates an inode number: a file's in its directory's group, a directory's in the
 * next group in turn (kernel: `xfs_dialloc`).
 *
 * @param parent Inode number of the directory.
 * @returns The number, or -ENOSPC.
 */
export function allocInode(
  mp: XfsMount,
  parent: number,
  isDirectory: boolean,
): number {
  const first = isDirectory ? mp.nextDirAg() : mp.geo.inoToAgno(parent);
  for (let i = 0; i < mp.ags.length; i++) {
    const ag = mp.ags[(first + i) % mp.ags.length]!;
    const chunk = freeChunk(ag) ?? allocChunk(mp, ag);
    if (chunk !== null) return takeInode(mp, ag, chunk);
  }
  return -ENOSPC;
}

function freeChunk(ag: XfsPerag): InodeChunk | null {
  for (const chunk of ag.freeChunks) return chunk;
  return null;
}

/** Lays out 64 inodes in a group, or null if they do not fit in one piece (kernel:
 * `xfs_ialloc_ag_alloc`). */
function allocChunk(mp: XfsMount, ag: XfsPerag): InodeChunk | null {
  const { chunkBlocks } = mp.geo;
  let agbno = findChunkPlace(ag, chunkBlocks);
  if (agbno < 0) {
    ag.clearBusy();
    agbno = findChunkPlace(ag, chunkBlocks);
  }
  if (agbno < 0 || reserveBlocks(mp, chunkBlocks) < 0) return null;
  ag.take(agbno, chunkBlocks);
  mp.inodeCount += INODES_PER_CHUNK;
  mp.inodesFree += INODES_PER_CHUNK;
  return ag.addChunk(agbno, 0, 0);
}

/** First free place for a chunk, which begins at a multiple of its size; -1 if there is
 * none. */
function findChunkPlace(ag: XfsPerag, chunkBlocks: number): number {
  const { bnobt } = ag;
  for (let more = bnobt.lookupGe(0, 0); more; more = bnobt.next()) {
    const start = Math.ceil(bnobt.a / chunkBlocks) * chunkBlocks;
    if (start + chunkBlocks <= bnobt.a + bnobt.b) return start;
  }
  return -1;
}

function takeInode(mp: XfsMount, ag: XfsPerag, chunk: InodeChunk): number {
  let index: number;
  if (chunk.usedLow !== -1) {
    index = lowestClear(chunk.usedLow);
    chunk.usedLow |= 1 << index;
  } else {
    index = 32 + lowestClear(chunk.usedHigh);
    chunk.usedHigh |= 1 << index;
  }
  if (chunk.usedLow === -1 && chunk.usedHigh === -1) {
    ag.freeChunks.delete(chunk);
  }
  mp.inodesFree--;
  return mp.geo.makeIno(ag.agno, chunk.agbno, index);
}

function lowestClear(word: number): number {
  return 31 - Math.clz32(~word & -~word);
}

/** The chunk that holds an inode and its place there, or null if the number lies in
 * none. */
function findChunk(
  mp: XfsMount,
  ino: number,
): { ag: XfsPerag; chunk: InodeChunk; index: number } | null {
  const { geo } = mp;
  const ag = mp.ags[geo.inoToAgno(ino)];
  const agbno = geo.inoToAgbno(ino);
  const within = agbno % geo.chunkBlocks;
  const chunk = ag?.chunks.get(agbno - within);
  if (ag === undefined || chunk === undefined) return null;
  const inBlock = ino % geo.inodesPerBlock;
  return { ag, chunk, index: within * geo.inodesPerBlock + inBlock };
}

/** Whether an inode number is in use (kernel: `xfs_imap`'s checks). */
export function inodeInUse(mp: XfsMount, ino: number): boolean {
  const found = findChunk(mp, ino);
  if (found === null) return false;
  const { chunk, index } = found;
  const word = index < 32 ? chunk.usedLow : chunk.usedHigh;
  return (word & 1 << index) !== 0;
}

/** Frees an inode number, and its chunk with the last one (kernel: `xfs_difree`). */
export function freeInode(mp: XfsMount, ino: number): void {
  const found = findChunk(mp, ino);
  if (found === null) return;
  const { ag, chunk, index } = found;
  if (index < 32) chunk.usedLow &= ~(1 << index);
  else chunk.usedHigh &= ~(1 << index);
  ag.freeChunks.add(chunk);
  mp.inodesFree++;
  if (chunk.usedLow === 0 && chunk.usedHigh === 0) {
    freeChunkBlocks(mp, ag, chunk);
  }
}

function freeChunkBlocks(mp: XfsMount, ag: XfsPerag, chunk: InodeChunk): void {
  const { chunkBlocks, agBlocks } = mp.geo;
  const fsbno = ag.agno * agBlocks + chunk.agbno;
  ag.chunks.delete(chunk.agbno);
  ag.freeChunks.delete(chunk);
  freeMetadata(mp, fsbno, chunkBlocks);
  mp.inodeCount -= INODES_PER_CHUNK;
  mp.inodesFree -= INODES_PER_CHUNK;
}
