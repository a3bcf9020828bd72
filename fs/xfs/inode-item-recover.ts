/**
 * Replaying what was logged of inodes: the core, and the forks that changed.
 *
 * Kernel counterpart: fs/xfs/xfs_inode_item_recover.c.
 *
 * @module
 */

import type { XfsBuf } from "./libxfs/buf.ts";
import { bufSeal } from "./libxfs/buf.ts";
import * as F from "./libxfs/format.ts";
import {
  xfsDinodeVerify,
  XfsImap,
  xfsImap,
  xfsInodeBufOps,
} from "./libxfs/inode-buf.ts";
import * as L from "./libxfs/log-format.ts";
import {
  XFS_ILOG_ABROOT,
  XFS_ILOG_ADATA,
  XFS_ILOG_AEXT,
  XFS_ILOG_DBROOT,
  XFS_ILOG_DDATA,
  XFS_ILOG_DEV,
  XFS_ILOG_DEXT,
} from "./libxfs/trans.ts";
import type {
  XlogRecoverItem,
  XlogRecoverItemOps,
  XlogRecovery,
} from "./log-item.ts";

const DFORK = XFS_ILOG_DDATA | XFS_ILOG_DEXT | XFS_ILOG_DBROOT;
const AFORK = XFS_ILOG_ADATA | XFS_ILOG_AEXT | XFS_ILOG_ABROOT;
/** The owner of all blocks of a fork changes (kernel: `XFS_ILOG_DOWNER`,
 * `XFS_ILOG_AOWNER`). */
const OWNER = 0x600;

// Fields of the core, by width; the log has the bytes of each the other way round.
const FIELDS_16 = [
  F.DI_MAGIC,
  F.DI_MODE,
  F.DI_METATYPE,
  F.DI_PROJID_LO,
  F.DI_PROJID_HI,
  F.DI_ANEXTENTS,
  88,
  F.DI_FLAGS,
];
const FIELDS_32 = [
  F.DI_UID,
  F.DI_GID,
  F.DI_NLINK,
  F.DI_EXTSIZE,
  F.DI_NEXTENTS,
  84,
  F.DI_GEN,
  F.DI_COWEXTSIZE,
];
const FIELDS_64 = [
  F.DI_BIG_NEXTENTS,
  F.DI_SIZE,
  F.DI_NBLOCKS,
  F.DI_CHANGECOUNT,
  F.DI_FLAGS2,
  F.DI_INO,
];
const FIELDS_8 = [F.DI_VERSION, F.DI_FORMAT, F.DI_FORKOFF, F.DI_AFORMAT];
const TIMES = [F.DI_ATIME, F.DI_MTIME, F.DI_CTIME, F.DI_CRTIME];

function viewOf(data: Uint8Array, at = 0): DataView {
  return new DataView(data.buffer, data.byteOffset + at);
}

/** The core in the byte order of the disk (kernel: `xfs_log_dinode_to_disk`). The
 * pointer to the next unlinked inode stays. */
function coreToDisk(from: DataView, to: DataView): void {
  for (const at of FIELDS_8) to.setUint8(at, from.getUint8(at));
  for (const at of FIELDS_16) to.setUint16(at, from.getUint16(at, true));
  for (const at of FIELDS_32) to.setUint32(at, from.getUint32(at, true));
  for (const at of FIELDS_64) {
    to.setUint32(at, from.getUint32(at + 4, true));
    to.setUint32(at + 4, from.getUint32(at, true));
  }
  const flags2 = from.getUint32(F.DI_FLAGS2, true);
  const bigtime = (flags2 & F.XFS_DIFLAG2_BIGTIME) !== 0;
  for (const at of TIMES) {
    // One number, or seconds and nanoseconds.
    const [first, second] = bigtime ? [4, 0] : [0, 4];
    to.setUint32(at, from.getUint32(at + first!, true));
    to.setUint32(at + 4, from.getUint32(at + second!, true));
  }
}

/** The root of a fork's tree in the form that it has on disk (kernel:
 * `xfs_bmbt_to_bmdr`).
 * @param to The fork.
 * @returns null, or the check that failed. */
function brootToDisk(from: Uint8Array, to: Uint8Array): string | null {
  const header = F.XFS_BTREE_LBLOCK_CRC_LEN;
  if (from.length < header) return `root of ${from.length} bytes`;
  const view = viewOf(from);
  const disk = viewOf(to);
  const level = view.getUint16(F.BB_LEVEL);
  const numrecs = view.getUint16(F.BB_NUMRECS);
  const room = Math.floor((from.length - header) / 16);
  const diskRoom = Math.floor((to.length - 4) / 16);
  if (view.getUint32(F.BB_MAGIC) !== F.XFS_BMAP_CRC_MAGIC) return "root magic";
  if (level === 0) return "root of level 0";
  if (numrecs === 0 || numrecs > room || numrecs > diskRoom) {
    return `root of ${numrecs} children`;
  }
  disk.setUint16(0, level);
  disk.setUint16(2, numrecs);
  to.set(from.subarray(header, header + numrecs * 8), 4);
  const ptrs = header + room * 8;
  to.set(from.subarray(ptrs, ptrs + numrecs * 8), 4 + diskRoom * 8);
  return null;
}

/** Brings a fork to the inode.
 * @param root It is the root of a tree. */
function forkToDisk(
  from: Uint8Array,
  to: Uint8Array,
  root: boolean,
): string | null {
  if (root) return brootToDisk(from, to);
  if (from.length > to.length) return `fork of ${from.length} bytes`;
  to.set(from);
  return null;
}

/** Both forks, as far as they were logged.
 * @param inode The inode with its new core. */
function forksToDisk(
  item: XlogRecoverItem,
  fields: number,
  inode: Uint8Array,
): string | null {
  const forkoff = inode[F.DI_FORKOFF]! * 8;
  const literal = inode.subarray(F.DI_SIZE_V3);
  if (forkoff >= literal.length) return `forkoff ${forkoff / 8}`;
  let region = 2;
  if ((fields & DFORK) !== 0) {
    const to = forkoff === 0 ? literal : literal.subarray(0, forkoff);
    const root = (fields & XFS_ILOG_DBROOT) !== 0;
    const why = forkToDisk(item.regions[region++]!, to, root);
    if (why !== null) return `data ${why}`;
  }
  if ((fields & AFORK) === 0) return null;
  if (forkoff === 0) return "no attribute fork";
  const root = (fields & XFS_ILOG_ABROOT) !== 0;
  const why = forkToDisk(
    item.regions[region]!,
    literal.subarray(forkoff),
    root,
  );
  return why === null ? null : `attribute ${why}`;
}

/** Changes an inode in its block.
 * @param inode Its bytes.
 * @returns null, or the check that failed. */
function replayInode(
  recovery: XlogRecovery,
  item: XlogRecoverItem,
  ino: number,
  inode: Uint8Array,
): string | null {
  const fields = item.format.getUint32(L.ILF_FIELDS, true);
  const core = item.regions[1]!;
  const view = viewOf(inode);
  coreToDisk(viewOf(core), view);
  inode.set(recovery.mp.targ.uuid, F.DI_UUID);
  L.putLsn(view, F.DI_LSN, recovery.lsn);
  if ((fields & XFS_ILOG_DEV) !== 0) {
    view.setUint32(F.DI_SIZE_V3, item.format.getUint32(L.ILF_RDEV, true));
  }
  const why = forksToDisk(item, fields, inode);
  if (why !== null) return why;
  bufSeal(inode, F.DI_CRC);
  return xfsDinodeVerify(recovery.mp, ino, inode, 0);
}

function checkFormat(item: XlogRecoverItem): string | null {
  const { format, regions } = item;
  if (format.byteLength !== L.XFS_INODE_LOG_FORMAT_LEN) return "length";
  const fields = format.getUint32(L.ILF_FIELDS, true);
  if ((fields & OWNER) !== 0) return "swapped extents are not known";
  const data = (fields & DFORK) === 0 ? 0 : 1;
  const attr = (fields & AFORK) === 0 ? 0 : 1;
  if (regions.length < 2 + data + attr) {
    return `${regions.length} regions for fields 0x${fields.toString(16)}`;
  }
  const core = regions[1]!;
  if (core.length !== F.DI_SIZE_V3) return `core of ${core.length} bytes`;
  const magic = viewOf(core).getUint16(F.DI_MAGIC, true);
  return magic === F.XFS_DINODE_MAGIC ? null : `core with magic ${magic}`;
}

/** Block of an inode, and that it is there where the log says. */
function readCluster(
  recovery: XlogRecovery,
  imap: XfsImap,
  item: XlogRecoverItem,
): XfsBuf | number {
  const { format } = item;
  const ino = L.getU64Le(format, L.ILF_INO);
  const blkno = L.getU64Le(format, L.ILF_BLKNO);
  const len = format.getInt32(L.ILF_LEN, true);
  const boffset = format.getInt32(L.ILF_BOFFSET, true);
  const known = xfsImap(recovery.mp, ino, imap) === 0;
  if (
    !known || imap.blkno !== blkno || imap.len !== len ||
    imap.boffset !== boffset || !recovery.inDevice(blkno, len)
  ) return recovery.damaged(`inode ${ino} at daddr ${blkno}`);
  const bp = recovery.read(blkno, len);
  if (typeof bp === "number") return bp;
  const why = xfsInodeBufOps.verify(bp, recovery.mp.targ);
  return why === null
    ? bp
    : recovery.damaged(`inode ${ino} at daddr ${blkno}: ${why}`);
}

/** Inodes (kernel: `xlog_inode_item_ops`). */
export const inodeItem: XlogRecoverItemOps = {
  type: L.XFS_LI_INODE,

  check: checkFormat,

  commitPass2(recovery, item): number {
    const { format } = item;
    const blkno = L.getU64Le(format, L.ILF_BLKNO);
    const len = format.getInt32(L.ILF_LEN, true);
    if (recovery.cancels.has(blkno, len)) return 0;
    const imap = new XfsImap();
    const bp = readCluster(recovery, imap, item);
    if (typeof bp === "number") return bp;
    const ino = L.getU64Le(format, L.ILF_INO);
    const { inodesize } = recovery.mp.sb;
    const inode = bp.data.subarray(imap.boffset, imap.boffset + inodesize);
    const lsn = L.getLsn(viewOf(inode), F.DI_LSN);
    // Equal ones may still lack something: places are those of the first record.
    if (lsn.cycle !== 0xffff_ffff && L.lsnCmp(lsn, recovery.lsn) > 0) return 0;
    const why = replayInode(recovery, item, ino, inode);
    if (why !== null) return recovery.damaged(`inode ${ino}: ${why}`);
    recovery.changed(bp, xfsInodeBufOps);
    return 0;
  },
};
