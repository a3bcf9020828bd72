/**
 * The blocks of a new file system, as bytes: headers and roots of each group, the
 * first inodes, and the record of the log that says it is clean.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_ag.c (`xfs_ag_init_headers`), and what
 * mkfs.xfs leaves on an empty file system.
 *
 * @module
 */

import { S_IFDIR, S_IFREG } from "../fs.ts";
import { bufSeal } from "./libxfs/buf.ts";
import { putU64 } from "./libxfs/bytes.ts";
import * as F from "./libxfs/format.ts";
import * as L from "./libxfs/log-format.ts";
import type { XfsSb } from "./libxfs/sb.ts";
import { type NewGroup, preallocBlocks, type Run } from "./mkfs-geometry.ts";

/** Inodes in use: the root, and the two of a real-time section that there is not. */
const FIRST_INODES = 3;
/** How often the first inodes have been changed: what mkfs.xfs leaves. */
const CHANGECOUNT = 2;

/** Bytes that stand for `NULL` in any field. */
const NULL32 = 0xffff_ffff;

/** Puts the records of a root in place: from the byte `at` on. */
type PutRecords = (view: DataView, at: number) => void;

/** Bytes of a group's first blocks: its headers and the roots of its trees. */
export class GroupImage {
  /** From the group's first block to the last root. */
  readonly data: Uint8Array;
  readonly #view: DataView;
  readonly #sb: XfsSb;
  readonly #agno: number;
  readonly #group: NewGroup;
  /** Block of the next root. */
  #next: number;

  /** Makes them. The super block is left out. */
  constructor(sb: XfsSb, agno: number, group: NewGroup) {
    this.#sb = sb;
    this.#agno = agno;
    this.#group = group;
    this.data = new Uint8Array(preallocBlocks(sb) * sb.blocksize);
    this.#view = new DataView(this.data.buffer);
    this.#next = sb.headerBlocks;
    const agf = this.#agf();
    const agi = this.#agi();
    this.#agfl();
    this.#freeSpaceRoots(agf);
    this.#inodeRoots(agi);
    this.#ownerRoots(agf);
    this.#seal(1, F.AGF_CRC);
    this.#seal(2, F.AGI_CRC);
    this.#seal(3, F.AGFL_CRC);
  }

  /** Byte at which a header sector begins. */
  #sector(index: number): number {
    return index * this.#sb.sectsize;
  }

  #seal(sector: number, crc: number): void {
    const at = this.#sector(sector);
    bufSeal(this.data.subarray(at, at + this.#sb.sectsize), crc);
  }

  /** @returns Byte at which it begins. */
  #agf(): number {
    const at = this.#sector(1);
    const view = this.#view;
    const { agfl, freeblks, longest } = this.#group;
    view.setUint32(at + F.AGF_MAGICNUM, F.XFS_AGF_MAGIC);
    view.setUint32(at + F.AGF_VERSIONNUM, F.XFS_AGF_VERSION);
    view.setUint32(at + F.AGF_SEQNO, this.#agno);
    view.setUint32(at + F.AGF_LENGTH, this.#sb.agSize(this.#agno));
    // The first slot of the ring stays empty.
    view.setUint32(at + F.AGF_FLFIRST, 1);
    view.setUint32(at + F.AGF_FLLAST, agfl.length);
    view.setUint32(at + F.AGF_FLCOUNT, agfl.length);
    view.setUint32(at + F.AGF_FREEBLKS, freeblks);
    view.setUint32(at + F.AGF_LONGEST, longest);
    this.data.set(this.#sb.blockUuid, at + F.AGF_UUID);
    return at;
  }

  /** @returns Byte at which it begins. */
  #agi(): number {
    const at = this.#sector(2);
    const view = this.#view;
    view.setUint32(at + F.AGI_MAGICNUM, F.XFS_AGI_MAGIC);
    view.setUint32(at + F.AGI_VERSIONNUM, F.XFS_AGI_VERSION);
    view.setUint32(at + F.AGI_SEQNO, this.#agno);
    view.setUint32(at + F.AGI_LENGTH, this.#sb.agSize(this.#agno));
    view.setUint32(at + F.AGI_NEWINO, NULL32);
    view.setUint32(at + F.AGI_DIRINO, NULL32);
    for (let i = 0; i < F.XFS_AGI_UNLINKED_BUCKETS; i++) {
      view.setUint32(at + F.AGI_UNLINKED + 4 * i, NULL32);
    }
    this.data.set(this.#sb.blockUuid, at + F.AGI_UUID);
    const { inodes } = this.#group;
    if (inodes !== null) {
      const count = this.#sb.ialloInos;
      view.setUint32(at + F.AGI_COUNT, count);
      view.setUint32(at + F.AGI_FREECOUNT, count - FIRST_INODES);
      const agino = inodes.agbno * this.#sb.inopblock;
      view.setUint32(at + F.AGI_NEWINO, agino);
    }
    return at;
  }

  #agfl(): void {
    const at = this.#sector(3);
    const view = this.#view;
    view.setUint32(at + F.AGFL_MAGICNUM, F.XFS_AGFL_MAGIC);
    view.setUint32(at + F.AGFL_SEQNO, this.#agno);
    this.data.set(this.#sb.blockUuid, at + F.AGFL_UUID);
    const { agfl } = this.#group;
    const slots = Math.floor((this.#sb.sectsize - F.AGFL_BNO) / 4);
    for (let i = 0; i < slots; i++) {
      view.setUint32(at + F.AGFL_BNO + 4 * i, agfl[i - 1] ?? NULL32);
    }
  }

  /** Writes the next root, a leaf.
   * @returns Its block. */
  #root(magic: number, numrecs: number, put: PutRecords): number {
    const { blocksize } = this.#sb;
    const agbno = this.#next++;
    const data = this.data.subarray(agbno * blocksize, (agbno + 1) * blocksize);
    const view = new DataView(data.buffer, data.byteOffset, blocksize);
    view.setUint32(F.BB_MAGIC, magic);
    view.setUint16(F.BB_NUMRECS, numrecs);
    view.setUint32(F.SBB_LEFTSIB, NULL32);
    view.setUint32(F.SBB_RIGHTSIB, NULL32);
    putU64(view, F.SBB_BLKNO, this.#sb.agbToDaddr(this.#agno, agbno));
    data.set(this.#sb.blockUuid, F.SBB_UUID);
    view.setUint32(F.SBB_OWNER, this.#agno);
    put(view, F.XFS_BTREE_SBLOCK_CRC_LEN);
    bufSeal(data, F.SBB_CRC);
    return agbno;
  }

  #freeSpaceRoots(agf: number): void {
    const { free } = this.#group;
    const bySize = free.toSorted((a, b) => a.len - b.len || a.agbno - b.agbno);
    const put = (runs: Run[]): PutRecords => (view, at) => {
      for (const [i, run] of runs.entries()) {
        view.setUint32(at + 8 * i, run.agbno);
        view.setUint32(at + 8 * i + 4, run.len);
      }
    };
    const view = this.#view;
    const bno = this.#root(F.XFS_ABTB_CRC_MAGIC, free.length, put(free));
    const cnt = this.#root(F.XFS_ABTC_CRC_MAGIC, free.length, put(bySize));
    view.setUint32(agf + F.AGF_BNOROOT, bno);
    view.setUint32(agf + F.AGF_CNTROOT, cnt);
    view.setUint32(agf + F.AGF_BNOLEVEL, 1);
    view.setUint32(agf + F.AGF_CNTLEVEL, 1);
  }

  #inodeRoots(agi: number): void {
    const view = this.#view;
    const { hasInobtcounts, hasFinobt } = this.#sb;
    const chunks = this.#group.inodes === null
      ? 0
      : this.#sb.ialloInos / F.XFS_INODES_PER_CHUNK;
    const put: PutRecords = (v, at) => this.#putChunks(v, at, chunks);
    view.setUint32(
      agi + F.AGI_ROOT,
      this.#root(F.XFS_IBT_CRC_MAGIC, chunks, put),
    );
    view.setUint32(agi + F.AGI_LEVEL, 1);
    if (hasInobtcounts) view.setUint32(agi + F.AGI_IBLOCKS, 1);
    if (!hasFinobt) return;
    view.setUint32(
      agi + F.AGI_FREE_ROOT,
      this.#root(F.XFS_FIBT_CRC_MAGIC, chunks, put),
    );
    view.setUint32(agi + F.AGI_FREE_LEVEL, 1);
    if (hasInobtcounts) view.setUint32(agi + F.AGI_FBLOCKS, 1);
  }

  #putChunks(view: DataView, at: number, chunks: number): void {
    const first = this.#group.inodes === null
      ? 0
      : this.#group.inodes.agbno * this.#sb.inopblock;
    for (let i = 0; i < chunks; i++) {
      const used = i === 0 ? FIRST_INODES : 0;
      const free = F.XFS_INODES_PER_CHUNK - used;
      const rec = at + 16 * i;
      view.setUint32(rec, first + i * F.XFS_INODES_PER_CHUNK);
      if (this.#sb.hasSparseInodes) {
        view.setUint8(rec + 6, F.XFS_INODES_PER_CHUNK);
        view.setUint8(rec + 7, free);
      } else view.setUint32(rec + 4, free);
      view.setUint32(rec + 8, NULL32);
      view.setUint32(rec + 12, (NULL32 << used) >>> 0);
    }
  }

  #ownerRoots(agf: number): void {
    const { hasRmapbt, hasReflink } = this.#sb;
    const view = this.#view;
    if (hasRmapbt) {
      const owned = this.#owned();
      const put: PutRecords = (v, at) => {
        for (const [i, [agbno, len, owner]] of owned.entries()) {
          v.setUint32(at + 24 * i, agbno);
          v.setUint32(at + 24 * i + 4, len);
          putU64(v, at + 24 * i + 8, owner);
        }
      };
      const root = this.#root(F.XFS_RMAP_CRC_MAGIC, owned.length, put);
      view.setUint32(agf + F.AGF_RMAPROOT, root);
      view.setUint32(agf + F.AGF_RMAPLEVEL, 1);
      view.setUint32(agf + F.AGF_RMAPBLOCKS, 1);
    }
    if (hasReflink) {
      const root = this.#root(F.XFS_REFC_CRC_MAGIC, 0, () => {});
      view.setUint32(agf + F.AGF_REFCNTROOT, root);
      view.setUint32(agf + F.AGF_REFCNTLEVEL, 1);
      view.setUint32(agf + F.AGF_REFCNTBLOCKS, 1);
    }
  }

  /** Blocks in use: first one, length and owner. What has the same owner and is
   * adjacent is one. */
  #owned(): [number, number, number][] {
    const { headerBlocks, hasFinobt, hasReflink } = this.#sb;
    const { agfl, log, inodes } = this.#group;
    const inobt = headerBlocks + 2;
    const rmap = inobt + 1 + Number(hasFinobt);
    const all: [number, number, number][] = [
      [0, headerBlocks, F.XFS_RMAP_OWN_FS],
      [headerBlocks, 2, F.XFS_RMAP_OWN_AG],
      [inobt, rmap - inobt, F.XFS_RMAP_OWN_INOBT],
      [rmap, 1, F.XFS_RMAP_OWN_AG],
    ];
    for (const agbno of agfl) all.push([agbno, 1, F.XFS_RMAP_OWN_AG]);
    if (hasReflink) all.push([rmap + 1, 1, F.XFS_RMAP_OWN_REFC]);
    if (log !== null) all.push([log.agbno, log.len, F.XFS_RMAP_OWN_LOG]);
    if (inodes !== null) {
      all.push([inodes.agbno, inodes.len, F.XFS_RMAP_OWN_INODES]);
    }
    all.sort((a, b) => a[0] - b[0]);
    const merged: [number, number, number][] = [];
    for (const rec of all) {
      const before = merged.at(-1);
      const joins = before !== undefined && before[2] === rec[2] &&
        before[0] + before[1] === rec[0];
      if (joins) before[1] += rec[1];
      else merged.push(rec);
    }
    return merged;
  }
}

/**
 * The first inodes: root, the two of the real-time section, and free ones (kernel:
 * `xfs_ialloc_inode_init`, `xfs_inode_init`).
 *
 * @param now Nanoseconds since 1970.
 */
export function firstInodes(sb: XfsSb, now: number): Uint8Array {
  const data = new Uint8Array(sb.ialloBlks * sb.blocksize);
  for (let i = 0; i < sb.ialloInos; i++) {
    const at = i * sb.inodesize;
    const inode = data.subarray(at, at + sb.inodesize);
    const view = new DataView(inode.buffer, inode.byteOffset, sb.inodesize);
    view.setUint16(F.DI_MAGIC, F.XFS_DINODE_MAGIC);
    view.setUint8(F.DI_VERSION, 3);
    view.setUint32(F.DI_NEXT_UNLINKED, NULL32);
    putU64(view, F.DI_INO, sb.rootino + i);
    inode.set(sb.blockUuid, F.DI_UUID);
    if (i < FIRST_INODES) putInUse(sb, view, i, now);
    bufSeal(inode, F.DI_CRC);
  }
  return data;
}

/** @param index 0 the root, 1 and 2 those of the real-time section. */
function putInUse(
  sb: XfsSb,
  view: DataView,
  index: number,
  now: number,
): void {
  const isRoot = index === 0;
  view.setUint16(F.DI_MODE, isRoot ? S_IFDIR | 0o755 : S_IFREG);
  view.setUint8(
    F.DI_FORMAT,
    isRoot ? F.XFS_DINODE_FMT_LOCAL : F.XFS_DINODE_FMT_EXTENTS,
  );
  view.setUint8(F.DI_AFORMAT, F.XFS_DINODE_FMT_EXTENTS);
  view.setUint32(F.DI_NLINK, isRoot ? 2 : 1);
  putTime(sb, view, F.DI_ATIME, 0);
  for (const at of [F.DI_MTIME, F.DI_CTIME, F.DI_CRTIME]) {
    putTime(sb, view, at, now);
  }
  putU64(view, F.DI_CHANGECOUNT, CHANGECOUNT);
  putU64(
    view,
    F.DI_FLAGS2,
    (sb.hasBigtime ? F.XFS_DIFLAG2_BIGTIME : 0) |
      (sb.hasNrext64 ? F.XFS_DIFLAG2_NREXT64 : 0),
  );
  if (index === 1) view.setUint16(F.DI_FLAGS, F.XFS_DIFLAG_NEWRTBM);
  if (isRoot) putEmptyDirectory(sb, view);
}

/** A directory in its inode: no entries, and it is its own parent. */
function putEmptyDirectory(sb: XfsSb, view: DataView): void {
  putU64(view, F.DI_SIZE, 6);
  view.setUint32(F.DI_SIZE_V3 + 2, sb.rootino);
}

/** @param ns Nanoseconds since 1970. */
function putTime(sb: XfsSb, view: DataView, at: number, ns: number): void {
  const sec = Math.floor(ns / 1e9);
  const nsec = Math.floor(ns - sec * 1e9);
  if (!sb.hasBigtime) {
    view.setInt32(at, Math.min(sec, 2 ** 31 - 1));
    view.setUint32(at + 4, nsec);
    return;
  }
  // (sec + 2^31) * 10^9 + nsec has more bits than a number: in two parts.
  const since = sec + F.XFS_BIGTIME_EPOCH_OFFSET;
  const low = (since % 2 ** 16) * 1e9 + nsec;
  const mid = Math.floor(since / 2 ** 16) * 1e9 + Math.floor(low / 2 ** 16);
  view.setUint32(at, Math.floor(mid / 2 ** 16));
  view.setUint32(at + 4, (mid % 2 ** 16) * 2 ** 16 + low % 2 ** 16);
}

/**
 * The record of an empty log: the file system was unmounted (program:
 * `libxfs_log_header`, `unmount_record`).
 *
 * @returns The log's first blocks; all others are zero.
 */
export function logUnmountRecord(sb: XfsSb): Uint8Array {
  const unit = sb.logsunit > 1 ? sb.logsunit : Math.max(sb.logsectsize, 512);
  const size = Math.max(unit, L.XLOG_HEADER_CYCLE_SIZE);
  const headers = Math.ceil(size / L.XLOG_HEADER_CYCLE_SIZE);
  const bbs = Math.max(unit / F.BBSIZE, headers + 1);
  const data = new Uint8Array(bbs * F.BBSIZE);
  const view = new DataView(data.buffer);
  for (let i = 1; i < bbs; i++) view.setUint32(i * F.BBSIZE, 1);
  view.setUint32(L.H_MAGICNO, L.XLOG_HEADER_MAGIC_NUM);
  view.setUint32(L.H_CYCLE, 1);
  view.setUint32(L.H_VERSION, L.XLOG_VERSION_2);
  view.setUint32(L.H_LEN, (bbs - headers) * F.BBSIZE);
  view.setUint32(L.H_LSN, 1);
  view.setUint32(L.H_TAIL_LSN, 1);
  view.setUint32(L.H_PREV_BLOCK, NULL32);
  view.setUint32(L.H_NUM_LOGOPS, 1);
  // The transaction of the one operation: its bytes lie where the cycle has to be.
  view.setUint32(L.H_CYCLE_DATA, 0xb0c0_d0d0);
  view.setUint32(L.H_FMT, L.XLOG_FMT_LINUX_LE);
  data.set(sb.uuid, L.H_FS_UUID);
  view.setUint32(L.H_SIZE, size);
  const op = headers * F.BBSIZE;
  view.setUint32(op + L.OH_LEN, 8);
  view.setUint8(op + L.OH_CLIENTID, L.XFS_LOG);
  view.setUint8(op + L.OH_FLAGS, L.XLOG_UNMOUNT_TRANS);
  view.setUint16(op + L.XLOG_OP_HEADER_LEN, L.XLOG_UNMOUNT_TYPE, true);
  return data;
}
