/**
 * The super block: decoding, checking and encoding it, and the geometry that follows
 * from it.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_sb.c, xfs_types.c.
 *
 * @module
 */

import { EFSCORRUPTED, EINVAL } from "../../../lib/errno.ts";
import { bufCrcOk, bufSeal } from "./buf.ts";
import { getU64, putU64 } from "./bytes.ts";
import * as F from "./format.ts";

/** A super block in memory, and what is worked out from it (kernel: `struct xfs_sb`,
 * `struct xfs_ino_geometry`). Sizes are in blocks unless said otherwise. */
export class XfsSb {
  /** Bytes of a block. */
  blocksize = 4096;
  dblocks = 0;
  uuid: Uint8Array = new Uint8Array(16);
  /** First block of the log; 0 if it is on another device. */
  logstart = 0;
  rootino: number = F.NULLFSINO;
  rbmino: number = F.NULLFSINO;
  rsumino: number = F.NULLFSINO;
  rextsize = 1;
  agblocks = 0;
  agcount = 0;
  logblocks = 0;
  versionnum = 0;
  /** Bytes of a sector. */
  sectsize = 512;
  /** Bytes of an inode. */
  inodesize = 512;
  /** Up to 12 bytes of text. */
  fname: Uint8Array = new Uint8Array(12);
  inprogress = 0;
  imaxPct = 25;
  icount = 0;
  ifree = 0;
  fdblocks = 0;
  qflags = 0;
  flags = 0;
  inoalignmt = 0;
  /** Stripe unit. */
  unit = 0;
  /** Stripe width. */
  width = 0;
  /** log2 of the blocks of a directory block. */
  dirblklog = 0;
  logsectlog = 0;
  logsectsize = 0;
  /** Log stripe unit, bytes; 1 means none. */
  logsunit = 1;
  features2 = 0;
  featuresCompat = 0;
  featuresRoCompat = 0;
  featuresIncompat = 0;
  featuresLogIncompat = 0;
  spinoAlign = 0;
  lsnCycle = 0;
  lsnBlock = 0;
  metaUuid: Uint8Array = new Uint8Array(16);
  uquotino = 0;
  gquotino = 0;
  pquotino = 0;

  // Worked out.
  /** log2 of `blocksize`. */
  blocklog = 12;
  sectlog = 9;
  inodelog = 9;
  /** log2 of the inodes in a block. */
  inopblog = 3;
  /** Inodes in a block. */
  inopblock = 8;
  agblklog = 0;
  /** Basic blocks of a block. */
  bbPerBlock = 8;
  /** Blocks of a directory block. */
  dirblkFsbs = 1;
  /** Bytes of a directory block. */
  dirblksize = 4096;
  /** File block at which a directory's leaves begin. */
  leafblk = 0;
  /** File block at which its free index begins. */
  freeblk = 0;
  /** Blocks of an inode cluster buffer. */
  blocksPerCluster = 1;
  /** Inodes of an inode cluster buffer. */
  inodesPerCluster = 1;
  /** Inodes of one allocation: 64, or a block full. */
  ialloInos = 64;
  /** Blocks of one allocation of inodes. */
  ialloBlks = 8;
  /** Fewest blocks of one allocation, where chunks may have holes. */
  ialloMinBlks = 8;
  /** Blocks that a chunk begins at a multiple of. */
  clusterAlign = 1;
  /** The same where it should be a stripe unit; 0 if that is of no use. */
  ialloAlign = 0;
  /** Most inodes; 0 if there is no limit. */
  maxicount = 0;

  /** Numbers of blocks, and of inodes, that belong to a group. */
  #agFsbs = 1;
  #agInos = 1;

  get hasFinobt(): boolean {
    return (this.featuresRoCompat & F.XFS_SB_FEAT_RO_COMPAT_FINOBT) !== 0;
  }
  get hasRmapbt(): boolean {
    return (this.featuresRoCompat & F.XFS_SB_FEAT_RO_COMPAT_RMAPBT) !== 0;
  }
  get hasReflink(): boolean {
    return (this.featuresRoCompat & F.XFS_SB_FEAT_RO_COMPAT_REFLINK) !== 0;
  }
  get hasInobtcounts(): boolean {
    return (this.featuresRoCompat & F.XFS_SB_FEAT_RO_COMPAT_INOBTCNT) !== 0;
  }
  get hasSparseInodes(): boolean {
    return (this.featuresIncompat & F.XFS_SB_FEAT_INCOMPAT_SPINODES) !== 0;
  }
  get hasBigtime(): boolean {
    return (this.featuresIncompat & F.XFS_SB_FEAT_INCOMPAT_BIGTIME) !== 0;
  }
  get hasNrext64(): boolean {
    return (this.featuresIncompat & F.XFS_SB_FEAT_INCOMPAT_NREXT64) !== 0;
  }
  /** UUID that metadata blocks bear. */
  get blockUuid(): Uint8Array {
    return (this.featuresIncompat & F.XFS_SB_FEAT_INCOMPAT_META_UUID) !== 0
      ? this.metaUuid
      : this.uuid;
  }

  /** Works the derived values out. The fields have been checked. */
  derive(): void {
    this.blocklog = Math.log2(this.blocksize);
    this.sectlog = Math.log2(this.sectsize);
    this.inodelog = Math.log2(this.inodesize);
    this.inopblog = this.blocklog - this.inodelog;
    this.inopblock = 2 ** this.inopblog;
    this.agblklog = ceilLog2(this.agblocks);
    this.#agFsbs = 2 ** this.agblklog;
    this.#agInos = 2 ** (this.agblklog + this.inopblog);
    this.bbPerBlock = this.blocksize / F.BBSIZE;
    this.dirblkFsbs = 2 ** this.dirblklog;
    this.dirblksize = this.blocksize * this.dirblkFsbs;
    this.leafblk = F.XFS_DIR2_LEAF_OFFSET / this.blocksize;
    this.freeblk = F.XFS_DIR2_FREE_OFFSET / this.blocksize;
    this.ialloInos = Math.max(F.XFS_INODES_PER_CHUNK, this.inopblock);
    this.ialloBlks = this.ialloInos / this.inopblock;
    this.ialloMinBlks = this.hasSparseInodes && this.spinoAlign > 0
      ? this.spinoAlign
      : this.ialloBlks;
    this.#deriveClusters();
    const most = Math.floor(this.dblocks * this.imaxPct / 100);
    this.maxicount = Math.floor(most / this.ialloBlks) * this.ialloInos;
  }

  /** Kernel: the end of `xfs_ialloc_setup_geometry`. */
  #deriveClusters(): void {
    let cluster = F.XFS_INODE_BIG_CLUSTER_SIZE;
    const scaled = cluster * (this.inodesize / 256);
    if (this.inoalignmt >= Math.floor(scaled / this.blocksize)) {
      cluster = scaled;
    }
    this.blocksPerCluster = Math.max(1, Math.floor(cluster / this.blocksize));
    this.inodesPerCluster = this.blocksPerCluster * this.inopblock;
    const aligned = this.inoalignmt >= this.blocksPerCluster;
    this.clusterAlign = aligned ? this.inoalignmt : 1;
    const mask = this.clusterAlign - 1;
    const striped = mask > 0 && (this.unit & mask) === 0;
    this.ialloAlign = striped ? this.unit : 0;
  }

  /** Blocks of a group. */
  agSize(agno: number): number {
    return agno < this.agcount - 1
      ? this.agblocks
      : this.dblocks - agno * this.agblocks;
  }
  /** Kernel: `XFS_AGB_TO_FSB`. */
  agbToFsb(agno: number, agbno: number): number {
    return agno * this.#agFsbs + agbno;
  }
  /** Kernel: `XFS_FSB_TO_AGNO`. */
  fsbToAgno(fsbno: number): number {
    return Math.floor(fsbno / this.#agFsbs);
  }
  /** Kernel: `XFS_FSB_TO_AGBNO`. */
  fsbToAgbno(fsbno: number): number {
    return fsbno % this.#agFsbs;
  }
  /** Basic block on the device (kernel: `XFS_AGB_TO_DADDR`). */
  agbToDaddr(agno: number, agbno: number): number {
    return (agno * this.agblocks + agbno) * this.bbPerBlock;
  }
  /** Kernel: `XFS_FSB_TO_DADDR`. */
  fsbToDaddr(fsbno: number): number {
    return this.agbToDaddr(this.fsbToAgno(fsbno), this.fsbToAgbno(fsbno));
  }
  /** Kernel: `xfs_daddr_to_agno`. */
  daddrToAgno(daddr: number): number {
    return Math.floor(daddr / (this.agblocks * this.bbPerBlock));
  }
  /** Kernel: `xfs_daddr_to_agbno`. */
  daddrToAgbno(daddr: number): number {
    const block = Math.floor(daddr / this.bbPerBlock);
    return block - this.daddrToAgno(daddr) * this.agblocks;
  }
  /** Kernel: `XFS_DADDR_TO_FSB`. */
  daddrToFsb(daddr: number): number {
    return this.agbToFsb(this.daddrToAgno(daddr), this.daddrToAgbno(daddr));
  }
  /** Byte on the device. */
  fsbToByte(fsbno: number): number {
    const agno = Math.floor(fsbno / this.#agFsbs);
    const agbno = fsbno - agno * this.#agFsbs;
    return (agno * this.agblocks + agbno) * this.blocksize;
  }
  /** Basic block of a group's header: sector 0 super block, 1 AGF, 2 AGI, 3 AGFL
   * (kernel: `XFS_AG_DADDR`). */
  agHeaderDaddr(agno: number, sector: number): number {
    return this.agbToDaddr(agno, 0) + sector * (this.sectsize / F.BBSIZE);
  }
  /** Kernel: `XFS_AGINO_TO_INO`. */
  aginoToIno(agno: number, agino: number): number {
    return agno * this.#agInos + agino;
  }
  /** Kernel: `XFS_INO_TO_AGNO`. */
  inoToAgno(ino: number): number {
    return Math.floor(ino / this.#agInos);
  }
  /** Kernel: `XFS_INO_TO_AGINO`. */
  inoToAgino(ino: number): number {
    return ino % this.#agInos;
  }
  /** Kernel: `XFS_AGINO_TO_AGBNO`. */
  aginoToAgbno(agino: number): number {
    return Math.floor(agino / this.inopblock);
  }
  /** Kernel: `XFS_INO_TO_FSB`. */
  inoToFsb(ino: number): number {
    const agbno = this.aginoToAgbno(this.inoToAgino(ino));
    return this.agbToFsb(this.inoToAgno(ino), agbno);
  }
  /** Whether a block of a group can hold anything but headers (kernel:
   * `xfs_verify_agbno`). */
  verifyAgbno(agno: number, agbno: number): boolean {
    return Number.isInteger(agbno) && agno >= 0 && agno < this.agcount &&
      agbno >= this.headerBlocks && agbno < this.agSize(agno);
  }
  /** Kernel: `xfs_verify_fsbno`. */
  verifyFsbno(fsbno: number): boolean {
    if (!Number.isSafeInteger(fsbno) || fsbno < 0) return false;
    return this.verifyAgbno(this.fsbToAgno(fsbno), this.fsbToAgbno(fsbno));
  }
  /** Whether a run of blocks lies in one group (kernel: `xfs_verify_fsbext`). */
  verifyFsbext(fsbno: number, len: number): boolean {
    return len > 0 && this.verifyFsbno(fsbno) &&
      this.verifyFsbno(fsbno + len - 1) &&
      this.fsbToAgno(fsbno) === this.fsbToAgno(fsbno + len - 1);
  }
  /** Whether an inode number can exist (kernel: `xfs_verify_ino`). */
  verifyIno(ino: number): boolean {
    if (!Number.isSafeInteger(ino) || ino < 0) return false;
    const agno = this.inoToAgno(ino);
    return this.verifyAgbno(agno, this.aginoToAgbno(this.inoToAgino(ino)));
  }
  /** Blocks that the four header sectors of a group take. */
  get headerBlocks(): number {
    return Math.max(1, Math.ceil(4 * this.sectsize / this.blocksize));
  }
}

/** log2, rounded up (kernel: `xfs_highbit32` and so on). */
function ceilLog2(n: number): number {
  let log = 0;
  while (2 ** log < n) log++;
  return log;
}

/** Why a super block was refused. */
export interface SbRefusal {
  /** Negative errno. */
  errno: number;
  /** The check that failed, with the value. */
  reason: string;
}

/**
 * Reads a super block (kernel: `xfs_sb_from_disk`, `xfs_validate_sb_common`,
 * `xfs_validate_sb_read`).
 *
 * @param data At least 512 bytes; the sector where the caller knows its size.
 * @returns It, with everything derived; or why not: -EINVAL if it is none, -EFSCORRUPTED
 *   if its checksum is wrong or a field cannot be, -EINVAL with the name of a feature that
 *   is not known.
 */
export function decodeSb(data: Uint8Array): XfsSb | SbRefusal {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const magic = view.getUint32(F.SB_MAGICNUM);
  if (magic !== F.XFS_SB_MAGIC) {
    const hex = magic.toString(16).padStart(8, "0");
    return refuse(EINVAL, `magic 0x${hex} is not that of an XFS super block`);
  }
  const versionnum = view.getUint16(F.SB_VERSIONNUM);
  if ((versionnum & 0xf) !== F.XFS_SB_VERSION_5) {
    return refuse(EINVAL, `version ${versionnum & 0xf} is not 5`);
  }
  const sectsize = view.getUint16(F.SB_SECTSIZE);
  if (!isPower(sectsize, 512, 32768)) {
    return refuse(EFSCORRUPTED, `sectsize ${sectsize}`);
  }
  if (data.length < sectsize) {
    return refuse(EFSCORRUPTED, `sectsize ${sectsize} beyond what was read`);
  }
  if (!bufCrcOk(data.subarray(0, sectsize), F.SB_CRC)) {
    return refuse(EFSCORRUPTED, "checksum of the super block");
  }
  const sb = new XfsSb();
  const wrong = fillSb(sb, view, data);
  return wrong ?? sb;
}

function refuse(errno: number, reason: string): SbRefusal {
  return { errno: -errno, reason };
}

function isPower(n: number, least: number, most: number): boolean {
  return n >= least && n <= most && (n & (n - 1)) === 0;
}

function fillSb(
  sb: XfsSb,
  view: DataView,
  data: Uint8Array,
): SbRefusal | null {
  sb.blocksize = view.getUint32(F.SB_BLOCKSIZE);
  sb.dblocks = getU64(view, F.SB_DBLOCKS);
  sb.uuid = data.slice(F.SB_UUID, F.SB_UUID + 16);
  sb.logstart = getU64(view, F.SB_LOGSTART);
  sb.rootino = getU64(view, F.SB_ROOTINO);
  sb.rbmino = getU64(view, F.SB_RBMINO);
  sb.rsumino = getU64(view, F.SB_RSUMINO);
  sb.rextsize = view.getUint32(F.SB_REXTSIZE);
  sb.agblocks = view.getUint32(F.SB_AGBLOCKS);
  sb.agcount = view.getUint32(F.SB_AGCOUNT);
  sb.logblocks = view.getUint32(F.SB_LOGBLOCKS);
  sb.versionnum = view.getUint16(F.SB_VERSIONNUM);
  sb.sectsize = view.getUint16(F.SB_SECTSIZE);
  sb.inodesize = view.getUint16(F.SB_INODESIZE);
  sb.fname = data.slice(F.SB_FNAME, F.SB_FNAME + 12);
  sb.inprogress = data[F.SB_INPROGRESS]!;
  sb.imaxPct = data[F.SB_IMAX_PCT]!;
  sb.icount = getU64(view, F.SB_ICOUNT);
  sb.ifree = getU64(view, F.SB_IFREE);
  sb.fdblocks = getU64(view, F.SB_FDBLOCKS);
  sb.uquotino = getU64(view, F.SB_UQUOTINO);
  sb.gquotino = getU64(view, F.SB_GQUOTINO);
  sb.pquotino = getU64(view, F.SB_PQUOTINO);
  sb.qflags = view.getUint16(F.SB_QFLAGS);
  sb.flags = data[F.SB_FLAGS]!;
  sb.inoalignmt = view.getUint32(F.SB_INOALIGNMT);
  sb.unit = view.getUint32(F.SB_UNIT);
  sb.width = view.getUint32(F.SB_WIDTH);
  sb.dirblklog = data[F.SB_DIRBLKLOG]!;
  sb.logsectlog = data[F.SB_LOGSECTLOG]!;
  sb.logsectsize = view.getUint16(F.SB_LOGSECTSIZE);
  sb.logsunit = view.getUint32(F.SB_LOGSUNIT);
  sb.features2 = view.getUint32(F.SB_FEATURES2);
  sb.featuresCompat = view.getUint32(F.SB_FEATURES_COMPAT);
  sb.featuresRoCompat = view.getUint32(F.SB_FEATURES_RO_COMPAT);
  sb.featuresIncompat = view.getUint32(F.SB_FEATURES_INCOMPAT);
  sb.featuresLogIncompat = view.getUint32(F.SB_FEATURES_LOG_INCOMPAT);
  sb.spinoAlign = view.getUint32(F.SB_SPINO_ALIGN);
  sb.lsnCycle = view.getUint32(F.SB_LSN);
  sb.lsnBlock = view.getUint32(F.SB_LSN + 4);
  sb.metaUuid = data.slice(F.SB_META_UUID, F.SB_META_UUID + 16);
  const feature = checkFeatures(sb);
  if (feature !== null) return feature;
  const wrong = checkFields(sb, view, data);
  if (wrong !== null) return refuse(EFSCORRUPTED, wrong);
  sb.derive();
  if (view.getUint8(F.SB_AGBLKLOG) !== sb.agblklog) {
    return refuse(EFSCORRUPTED, `agblklog ${view.getUint8(F.SB_AGBLKLOG)}`);
  }
  const align = checkInodeAlignment(sb);
  return align === null ? null : refuse(EFSCORRUPTED, align);
}

/** Buffers of inodes begin at multiples of their size, and a chunk with holes where a
 * whole one would (kernel: `xfs_validate_sb_common`, `xfs_mountfs`). */
function checkInodeAlignment(sb: XfsSb): string | null {
  const { inoalignmt, spinoAlign, blocksPerCluster } = sb;
  if (sb.clusterAlign % blocksPerCluster !== 0) {
    return `inoalignmt ${inoalignmt}`;
  }
  if (!sb.hasSparseInodes) return null;
  const chunk = F.XFS_INODES_PER_CHUNK * sb.inodesize;
  if (inoalignmt !== Math.floor(chunk / sb.blocksize)) {
    return `inoalignmt ${inoalignmt} with sparse inodes`;
  }
  const unit = Math.max(1, spinoAlign);
  return unit === blocksPerCluster ? null : `spino_align ${spinoAlign}`;
}

const INCOMPAT_NAMES: Record<number, string> = {
  0x40: "EXCHRANGE",
  0x80: "PARENT",
  0x100: "METADIR",
  0x200: "ZONED",
  0x400: "ZONE_GAPS",
};

/** Kernel: the feature checks of `xfs_validate_sb_read`. */
function checkFeatures(sb: XfsSb): SbRefusal | null {
  const unknown = (sb.featuresIncompat & ~F.XFS_SB_FEAT_INCOMPAT_ALL) >>> 0;
  if (unknown !== 0) {
    const names: string[] = [];
    for (let bit = 0; bit < 32; bit++) {
      const mask = 2 ** bit;
      if ((unknown & mask) === 0) continue;
      names.push(INCOMPAT_NAMES[mask] ?? `0x${mask.toString(16)}`);
    }
    const list = names.join(", ");
    return refuse(EINVAL, `incompatible features are not known: ${list}`);
  }
  if ((sb.featuresIncompat & F.XFS_SB_FEAT_INCOMPAT_FTYPE) === 0) {
    return refuse(EFSCORRUPTED, "version 5 without ftype");
  }
  if ((sb.featuresIncompat & F.XFS_SB_FEAT_INCOMPAT_NEEDSREPAIR) !== 0) {
    return refuse(EFSCORRUPTED, "it needs repair; run xfs_repair");
  }
  return null;
}

/** Kernel: `xfs_validate_sb_common`. */
function checkFields(
  sb: XfsSb,
  view: DataView,
  data: Uint8Array,
): string | null {
  const { blocksize, sectsize, inodesize, agblocks, agcount, dblocks } = sb;
  const log = (n: number) => Math.log2(n);
  const checks: [string, number, boolean][] = [
    ["blocksize", blocksize, isPower(blocksize, 1024, 65536)],
    ["sectsize", sectsize, sectsize <= blocksize],
    ["inodesize", inodesize, isPower(inodesize, 512, 2048)],
    ["inodesize", inodesize, inodesize * 2 <= blocksize],
    ["blocklog", data[F.SB_BLOCKLOG]!, data[F.SB_BLOCKLOG] === log(blocksize)],
    ["sectlog", data[F.SB_SECTLOG]!, data[F.SB_SECTLOG] === log(sectsize)],
    ["inodelog", data[F.SB_INODELOG]!, data[F.SB_INODELOG] === log(inodesize)],
    [
      "inopblog",
      data[F.SB_INOPBLOG]!,
      data[F.SB_INOPBLOG] === log(blocksize / inodesize),
    ],
    [
      "inopblock",
      view.getUint16(F.SB_INOPBLOCK),
      view.getUint16(F.SB_INOPBLOCK) === blocksize / inodesize,
    ],
    ["inprogress", sb.inprogress, sb.inprogress === 0],
    ["imax_pct", sb.imaxPct, sb.imaxPct <= 100],
    ["agcount", agcount, agcount >= 1],
    ["agblocks", agblocks, agblocks >= 64 && agblocks * blocksize <= 2 ** 40],
    ["dblocks", dblocks, Number.isSafeInteger(dblocks * blocksize)],
    ["dblocks", dblocks, dblocks <= agcount * agblocks],
    ["dblocks", dblocks, dblocks >= (agcount - 1) * agblocks + 64],
    ["rblocks", getU64(view, F.SB_RBLOCKS), getU64(view, F.SB_RBLOCKS) === 0],
    ["dirblklog", sb.dirblklog, blocksize * 2 ** sb.dirblklog <= 65536],
    ["unit", sb.unit, sb.unit <= agblocks],
    [
      "width",
      sb.width,
      sb.unit === 0 ? sb.width === 0 : sb.width % sb.unit === 0,
    ],
    ["qflags", sb.qflags, sb.qflags === 0],
    ["logblocks", sb.logblocks, sb.logblocks >= 512],
    ["logblocks", sb.logblocks, sb.logblocks * blocksize < 2 ** 31],
    ["inoalignmt", sb.inoalignmt, sb.inoalignmt <= agblocks],
    ["spino_align", sb.spinoAlign, sb.spinoAlign <= agblocks],
  ];
  for (const [name, value, ok] of checks) {
    if (!ok) return `${name} ${value}`;
  }
  return null;
}

/**
 * Encodes a super block with its checksum (kernel: `xfs_sb_to_disk`).
 *
 * @returns A sector.
 */
export function encodeSb(sb: XfsSb): Uint8Array {
  const data = new Uint8Array(sb.sectsize);
  const view = new DataView(data.buffer);
  view.setUint32(F.SB_MAGICNUM, F.XFS_SB_MAGIC);
  view.setUint32(F.SB_BLOCKSIZE, sb.blocksize);
  putU64(view, F.SB_DBLOCKS, sb.dblocks);
  data.set(sb.uuid, F.SB_UUID);
  putU64(view, F.SB_LOGSTART, sb.logstart);
  putU64(view, F.SB_ROOTINO, sb.rootino);
  putU64(view, F.SB_RBMINO, sb.rbmino);
  putU64(view, F.SB_RSUMINO, sb.rsumino);
  view.setUint32(F.SB_REXTSIZE, sb.rextsize);
  view.setUint32(F.SB_AGBLOCKS, sb.agblocks);
  view.setUint32(F.SB_AGCOUNT, sb.agcount);
  view.setUint32(F.SB_LOGBLOCKS, sb.logblocks);
  view.setUint16(F.SB_VERSIONNUM, sb.versionnum);
  view.setUint16(F.SB_SECTSIZE, sb.sectsize);
  view.setUint16(F.SB_INODESIZE, sb.inodesize);
  view.setUint16(F.SB_INOPBLOCK, sb.inopblock);
  data.set(sb.fname, F.SB_FNAME);
  data[F.SB_BLOCKLOG] = sb.blocklog;
  data[F.SB_SECTLOG] = sb.sectlog;
  data[F.SB_INODELOG] = sb.inodelog;
  data[F.SB_INOPBLOG] = sb.inopblog;
  data[F.SB_AGBLKLOG] = sb.agblklog;
  data[F.SB_INPROGRESS] = sb.inprogress;
  data[F.SB_IMAX_PCT] = sb.imaxPct;
  putU64(view, F.SB_ICOUNT, sb.icount);
  putU64(view, F.SB_IFREE, sb.ifree);
  putU64(view, F.SB_FDBLOCKS, sb.fdblocks);
  putU64(view, F.SB_UQUOTINO, sb.uquotino);
  putU64(view, F.SB_GQUOTINO, sb.gquotino);
  putU64(view, F.SB_PQUOTINO, sb.pquotino);
  view.setUint16(F.SB_QFLAGS, sb.qflags);
  data[F.SB_FLAGS] = sb.flags;
  view.setUint32(F.SB_INOALIGNMT, sb.inoalignmt);
  view.setUint32(F.SB_UNIT, sb.unit);
  view.setUint32(F.SB_WIDTH, sb.width);
  data[F.SB_DIRBLKLOG] = sb.dirblklog;
  data[F.SB_LOGSECTLOG] = sb.logsectlog;
  view.setUint16(F.SB_LOGSECTSIZE, sb.logsectsize);
  view.setUint32(F.SB_LOGSUNIT, sb.logsunit);
  view.setUint32(F.SB_FEATURES2, sb.features2);
  view.setUint32(F.SB_BAD_FEATURES2, sb.features2);
  view.setUint32(F.SB_FEATURES_COMPAT, sb.featuresCompat);
  view.setUint32(F.SB_FEATURES_RO_COMPAT, sb.featuresRoCompat);
  view.setUint32(F.SB_FEATURES_INCOMPAT, sb.featuresIncompat);
  view.setUint32(F.SB_FEATURES_LOG_INCOMPAT, sb.featuresLogIncompat);
  view.setUint32(F.SB_SPINO_ALIGN, sb.spinoAlign);
  view.setUint32(F.SB_LSN, sb.lsnCycle);
  view.setUint32(F.SB_LSN + 4, sb.lsnBlock);
  data.set(sb.metaUuid, F.SB_META_UUID);
  bufSeal(data, F.SB_CRC);
  return data;
}
