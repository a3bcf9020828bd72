/**
 * What a new file system looks like: sizes, features, groups, and where the log and
 * the root lie, worked out from options as mkfs.xfs 6.1 does it.
 *
 * A stripe moves almost everything: groups become a multiple of its unit but not of
 * its width, the log begins at a unit, and so do the inodes.
 *
 * Program counterpart: xfsprogs mkfs/xfs_mkfs.c.
 *
 * @module
 */

import * as F from "./libxfs/format.ts";
import { XLOG_MAX_RECORD_BSIZE } from "./libxfs/log-format.ts";
import { xfsLogCalcMinimumSize } from "./libxfs/log-rlimit.ts";
import { XfsSb } from "./libxfs/sb.ts";

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const TiB = 2 ** 40;

/** Bytes of the smallest group (program: `XFS_AG_MIN_BYTES`). */
const XFS_AG_MIN_BYTES: number = 16 * MiB;
/** Bytes that a group stays below (kernel: `XFS_AG_MAX_BYTES`). */
const XFS_AG_MAX_BYTES = TiB;
/** Limits of a log (kernel: `XFS_MIN_LOG_BLOCKS` and so on). */
const MIN_LOG_BLOCKS = 512;
const MIN_LOG_BYTES = 10 * MiB;
const MAX_LOG_BLOCKS = 2 ** 20;
const MAX_LOG_BYTES = 2 ** 31 - MIN_LOG_BYTES;
/** Bytes of the log of a file system that is not tiny. */
const USUAL_LOG_BYTES = 64 * MiB;
/** Below this a file system is tiny, and gets the smallest log. */
const TINY_BYTES = 300 * MiB;
/** Bytes of data for each byte of log. */
const DATA_PER_LOG = 2048;
/** Largest log stripe unit, bytes, and what is taken instead of a larger one. */
const MAX_LOG_UNIT = 256 * 1024;
const OTHER_LOG_UNIT = 32 * 1024;
/** Blocks that each group keeps on its free list, for the log's sake (kernel:
 * `XFS_ALLOCBT_AGFL_RESERVE`). */
const AGFL_RESERVE = 4;

/** What a file system is made with, checked, with the meaning that it has in
 * `MkfsXfsOptions`; sizes are in bytes, and null is what mkfs.xfs chooses. */
export interface XfsParams {
  blockSize: number;
  sectorSize: number;
  inodeSize: number;
  dirBlockSize: number;
  agCount: number | null;
  agSize: number | null;
  logSize: number | null;
  /** Percent; null for what suits the size. */
  imaxPct: number | null;
  stripeUnit: number;
  stripeWidth: number;
  logStripeUnit: number;
  finobt: boolean;
  sparseInodes: boolean;
  reflink: boolean;
  rmapbt: boolean;
  bigtime: boolean;
  inobtcount: boolean;
  nrext64: boolean;
  /** Up to 12 bytes. */
  label: Uint8Array;
  uuid: Uint8Array;
}

/** Throws what says that an option cannot be. */
export type Refuse = (why: string) => never;

/** Groups: how many, and how large. */
interface Groups {
  agblocks: number;
  agcount: number;
  dblocks: number;
}

/** A run of blocks of a group. */
export interface Run {
  agbno: number;
  len: number;
}

/**
 * Works out the super block of a new file system: all but its counters, and the root
 * (program: `calculate_initial_ag_geometry` to `finish_superblock_setup`).
 *
 * @param bytes Of the device.
 * @param refuse Called with what cannot be: which value, and why.
 */
export function mkfsGeometry(
  p: XfsParams,
  bytes: number,
  refuse: Refuse,
): XfsSb {
  const sb = new XfsSb();
  sb.blocksize = p.blockSize;
  sb.sectsize = p.sectorSize;
  sb.inodesize = p.inodeSize;
  sb.dirblklog = Math.log2(p.dirBlockSize / p.blockSize);
  sb.unit = p.stripeUnit / p.blockSize;
  sb.width = p.stripeWidth / p.blockSize;
  const groups = alignGroups(p, initialGroups(p, bytes, refuse));
  checkGroups(p, groups, refuse);
  sb.dblocks = groups.dblocks;
  sb.agblocks = groups.agblocks;
  sb.agcount = groups.agcount;
  sb.imaxPct = p.imaxPct ?? defaultImaxPct(groups.dblocks * p.blockSize);
  sb.rextsize = Math.max(1, 4096 / p.blockSize);
  sb.uuid = p.uuid;
  sb.fname.set(p.label);
  setFeatures(sb, p);
  setLogUnit(sb, p);
  sb.derive();
  placeLog(sb, p, refuse);
  return sb;
}

/** Program: `calculate_imaxpct`. */
function defaultImaxPct(bytes: number): number {
  if (bytes < TiB) return 25;
  return bytes < 50 * TiB ? 5 : 1;
}

function initialGroups(p: XfsParams, bytes: number, refuse: Refuse): Groups {
  const dblocks = Math.floor(bytes / p.blockSize);
  if (dblocks * p.blockSize < XFS_AG_MIN_BYTES) {
    refuse(`device of ${bytes} bytes is too small; it takes 16 MiB`);
  }
  if (p.agCount !== null) {
    const most = Math.floor(dblocks * p.blockSize / XFS_AG_MIN_BYTES);
    if (p.agCount > most) {
      refuse(`agCount ${p.agCount} is not a number from 1 to ${most}`);
    }
  }
  let agblocks = defaultAgBlocks(p, dblocks);
  if (p.agSize !== null) agblocks = p.agSize / p.blockSize;
  else if (p.agCount !== null) agblocks = Math.ceil(dblocks / p.agCount);
  // Rounded up, groups may hold all blocks before the last ones come.
  return { agblocks, agcount: Math.ceil(dblocks / agblocks), dblocks };
}

/** Program: `calc_default_ag_geometry`. */
function defaultAgBlocks(p: XfsParams, dblocks: number): number {
  const bytes = dblocks * p.blockSize;
  const most = maxAgBlocks(p);
  if (bytes >= 4 * TiB && p.stripeUnit === 0) return most;
  if (bytes >= 32 * TiB) return most;
  const count = 2 ** agCountLog(bytes, p.stripeUnit > 0);
  return Math.min(most, Math.ceil(dblocks / count));
}

/** log2 of how many groups suit a device: more on a stripe, which has several disks. */
function agCountLog(bytes: number, striped: boolean): number {
  if (!striped && bytes >= 128 * MiB) return 2;
  if (bytes > 512 * GiB) return 5;
  if (bytes > 8 * GiB) return 4;
  if (bytes >= 128 * MiB) return 3;
  if (bytes >= 64 * MiB) return 2;
  return bytes >= 32 * MiB ? 1 : 0;
}

function maxAgBlocks(p: XfsParams): number {
  return Math.floor((XFS_AG_MAX_BYTES - 1) / p.blockSize);
}

/** Fits groups to a stripe, and leaves a last one out that would be too small
 * (program: `align_ag_geometry`). */
function alignGroups(p: XfsParams, groups: Groups): Groups {
  const { dblocks } = groups;
  let { agblocks } = groups;
  const unit = p.stripeUnit / p.blockSize;
  const width = p.stripeWidth / p.blockSize;
  const least = XFS_AG_MIN_BYTES / p.blockSize;
  if (unit > 0 && agblocks % unit !== 0) {
    agblocks = Math.ceil(agblocks / unit) * unit;
    if (agblocks > maxAgBlocks(p)) agblocks -= unit;
  }
  // All groups would begin on the same disk.
  const sameDisk = unit > 0 && agblocks % width === 0 && width !== unit;
  const given = p.agCount !== null || p.agSize !== null;
  if (sameDisk && !given && Math.ceil(dblocks / agblocks) > 1) {
    agblocks += agblocks - unit < least ? unit : -unit;
  }
  const agcount = Math.ceil(dblocks / agblocks);
  const last = dblocks - (agcount - 1) * agblocks;
  if (agcount === 1 || last >= least) return { agblocks, agcount, dblocks };
  return {
    agblocks,
    agcount: agcount - 1,
    dblocks: (agcount - 1) * agblocks,
  };
}

/** Program: `validate_ag_geometry`. */
function checkGroups(p: XfsParams, groups: Groups, refuse: Refuse): void {
  const size = groups.agblocks * p.blockSize;
  const what = p.agCount !== null
    ? `agCount ${p.agCount} makes groups of ${size} bytes`
    : `agSize ${size}`;
  if (size < XFS_AG_MIN_BYTES) refuse(`${what}, below ${XFS_AG_MIN_BYTES}`);
  if (groups.agblocks > maxAgBlocks(p)) {
    refuse(`${what}, which is not below ${XFS_AG_MAX_BYTES}`);
  }
  if (groups.agblocks > groups.dblocks) {
    refuse(`${what}, more than the device has`);
  }
}

/** Program: `sb_set_features`. */
function setFeatures(sb: XfsSb, p: XfsParams): void {
  sb.versionnum = F.XFS_SB_VERSION_5 | F.XFS_SB_VERSION_NLINKBIT |
    F.XFS_SB_VERSION_ALIGNBIT | F.XFS_SB_VERSION_LOGV2BIT |
    F.XFS_SB_VERSION_EXTFLGBIT | F.XFS_SB_VERSION_DIRV2BIT |
    F.XFS_SB_VERSION_MOREBITSBIT;
  if (p.stripeUnit > 0) sb.versionnum |= F.XFS_SB_VERSION_DALIGNBIT;
  if (p.sectorSize > F.BBSIZE) {
    sb.versionnum |= F.XFS_SB_VERSION_SECTORBIT;
    sb.logsectlog = Math.log2(p.sectorSize);
    sb.logsectsize = p.sectorSize;
  }
  sb.features2 = F.XFS_SB_VERSION2_LAZYSBCOUNTBIT |
    F.XFS_SB_VERSION2_ATTR2BIT | F.XFS_SB_VERSION2_PROJID32BIT |
    F.XFS_SB_VERSION2_CRCBIT;
  sb.featuresRoCompat = (p.finobt ? F.XFS_SB_FEAT_RO_COMPAT_FINOBT : 0) |
    (p.rmapbt ? F.XFS_SB_FEAT_RO_COMPAT_RMAPBT : 0) |
    (p.reflink ? F.XFS_SB_FEAT_RO_COMPAT_REFLINK : 0) |
    (p.inobtcount ? F.XFS_SB_FEAT_RO_COMPAT_INOBTCNT : 0);
  sb.featuresIncompat = F.XFS_SB_FEAT_INCOMPAT_FTYPE |
    (p.sparseInodes ? F.XFS_SB_FEAT_INCOMPAT_SPINODES : 0) |
    (p.bigtime ? F.XFS_SB_FEAT_INCOMPAT_BIGTIME : 0) |
    (p.nrext64 ? F.XFS_SB_FEAT_INCOMPAT_NREXT64 : 0);
  const cluster = F.XFS_INODE_BIG_CLUSTER_SIZE * (p.inodeSize / 256);
  sb.inoalignmt = Math.floor(cluster / p.blockSize);
  if (p.sparseInodes) {
    sb.spinoAlign = sb.inoalignmt;
    const chunk = F.XFS_INODES_PER_CHUNK * p.inodeSize;
    sb.inoalignmt = Math.floor(chunk / p.blockSize);
  }
}

/** Program: the end of `calc_stripe_factors`. */
function setLogUnit(sb: XfsSb, p: XfsParams): void {
  let unit = p.logStripeUnit;
  if (unit === 0 && p.sectorSize > F.BBSIZE) unit = p.blockSize;
  if (unit === 0) unit = p.stripeUnit;
  if (unit > MAX_LOG_UNIT) {
    unit = Math.floor(OTHER_LOG_UNIT / p.blockSize) * p.blockSize;
  }
  sb.logsunit = Math.max(1, unit);
}

/** First block of a group that is neither a header nor the root of a tree (kernel:
 * `xfs_prealloc_blocks`). */
export function preallocBlocks(sb: XfsSb): number {
  return sb.headerBlocks + 3 + Number(sb.hasFinobt) + Number(sb.hasRmapbt) +
    Number(sb.hasReflink);
}

/** Program: `calculate_log_size`. */
function placeLog(sb: XfsSb, p: XfsParams, refuse: Refuse): void {
  const least = leastLogBlocks(sb, p);
  const agno = Math.floor(sb.agcount / 2);
  let most = sb.agblocks - preallocBlocks(sb) - AGFL_RESERVE - 1;
  if (most < least) {
    refuse(
      `device is too small: the log takes ${least} blocks, ` +
        `a group has room for ${most}`,
    );
  }
  if (agno === 0) most -= Math.max(4 * sb.ialloBlks, 2 * sb.unit);
  const given = p.logSize === null ? null : p.logSize / p.blockSize;
  if (given !== null && given > most) {
    refuse(`logSize ${p.logSize} is above ${most * p.blockSize}`);
  }
  sb.logblocks = given ?? Math.min(most, usualLogBlocks(sb, least));
  alignLog(sb, agno, most, refuse);
  checkLog(sb, p, least, refuse);
}

function leastLogBlocks(sb: XfsSb, p: XfsParams): number {
  const least = xfsLogCalcMinimumSize(sb, XLOG_MAX_RECORD_BSIZE);
  const large = p.logSize === null && sb.dblocks >= GiB / sb.blocksize;
  return Math.max(
    MIN_LOG_BLOCKS,
    least,
    large ? MIN_LOG_BYTES / sb.blocksize : 0,
  );
}

function usualLogBlocks(sb: XfsSb, least: number): number {
  if (sb.dblocks < TINY_BYTES / sb.blocksize) return least;
  const share = Math.floor(sb.dblocks / DATA_PER_LOG);
  const wanted = Math.max(share, USUAL_LOG_BYTES / sb.blocksize, least);
  return Math.min(
    wanted,
    MAX_LOG_BLOCKS,
    Math.floor(MAX_LOG_BYTES / sb.blocksize),
  );
}

/** Program: `align_internal_log`, `align_log_size`. */
function alignLog(
  sb: XfsSb,
  agno: number,
  most: number,
  refuse: Refuse,
): void {
  sb.logstart = sb.agbToFsb(agno, preallocBlocks(sb));
  const unit = sb.logsunit > 1 ? sb.logsunit / sb.blocksize : sb.unit;
  if (unit === 0) return;
  sb.logstart = Math.ceil(sb.logstart / unit) * unit;
  const up = Math.ceil(sb.logblocks / unit) * unit;
  sb.logblocks =
    up > MAX_LOG_BLOCKS || up * sb.blocksize > MAX_LOG_BYTES || up > most
      ? Math.floor(sb.logblocks / unit) * unit
      : up;
  const fits = () => sb.verifyFsbext(sb.logstart, sb.logblocks);
  if (!fits() && sb.logblocks > unit) sb.logblocks -= unit;
  if (!fits()) {
    refuse(`no group has room for a log of ${sb.logblocks} aligned blocks`);
  }
}

/** Program: `validate_log_size`. */
function checkLog(
  sb: XfsSb,
  p: XfsParams,
  least: number,
  refuse: Refuse,
): void {
  const { logblocks, blocksize } = sb;
  const what = p.logSize === null
    ? `log of ${logblocks * blocksize} bytes`
    : `logSize ${p.logSize}`;
  if (logblocks < least) refuse(`${what} is below ${least * blocksize}`);
  if (logblocks > MAX_LOG_BLOCKS || logblocks * blocksize > MAX_LOG_BYTES) {
    const most = Math.min(MAX_LOG_BLOCKS * blocksize, MAX_LOG_BYTES);
    refuse(`${what} is above ${most}`);
  }
}

/** What a group has beside headers and roots when it has just been made. */
export class NewGroup {
  /** Free runs, ascending. */
  readonly free: Run[] = [];
  /** Blocks of the free list. */
  readonly agfl: number[] = [];
  /** The log; null if it is elsewhere. */
  readonly log: Run | null = null;
  /** The first inodes; null if they are elsewhere. */
  readonly inodes: Run | null = null;

  /** Lays a group out.
   * @param agflLen Blocks of the free list. */
  constructor(sb: XfsSb, agno: number, agflLen: number, refuse: Refuse) {
    const first = preallocBlocks(sb);
    const end = sb.agSize(agno);
    if (sb.fsbToAgno(sb.logstart) === agno) {
      const at = sb.fsbToAgbno(sb.logstart);
      this.log = { agbno: at, len: sb.logblocks };
      this.#give(first, at);
      this.#give(at + sb.logblocks, end);
    } else this.#give(first, end);
    this.#fillAgfl(agflLen);
    if (agno === 0) {
      const align = inodeAlignment(sb);
      this.inodes = this.#takeAligned(align, sb.ialloBlks);
      if (this.inodes === null) {
        refuse("the first group has no room for inodes");
      }
    }
  }

  /** Blocks of all free runs. */
  get freeblks(): number {
    return this.free.reduce((sum, run) => sum + run.len, 0);
  }
  /** Blocks of the longest free run. */
  get longest(): number {
    return this.free.reduce((most, run) => Math.max(most, run.len), 0);
  }

  #give(from: number, end: number): void {
    if (end > from) this.free.push({ agbno: from, len: end - from });
  }

  /** A group that the log all but fills gets no free list (kernel:
   * `xfs_alloc_fix_freelist`). */
  #fillAgfl(len: number): void {
    if (this.freeblks < len) return;
    while (this.agfl.length < len) {
      const run = this.#findBySize(len - this.agfl.length);
      const n = Math.min(run.len, len - this.agfl.length);
      for (let i = 0; i < n; i++) this.agfl.push(run.agbno + i);
      this.#cut(run, { agbno: run.agbno, len: n });
    }
  }

  /** The smallest run that is long enough, or else the longest (kernel:
   * `xfs_alloc_ag_vextent_size`). */
  #findBySize(len: number): Run {
    let best = this.free[0]!;
    for (const run of this.free) {
      const suits = best.len < len ? run.len > best.len : run.len < best.len;
      if (suits && run.len >= Math.min(len, best.len)) best = run;
    }
    return best;
  }

  /** The first place that begins at a multiple of `align`. */
  #takeAligned(align: number, len: number): Run | null {
    for (const run of this.free) {
      const agbno = Math.ceil(run.agbno / align) * align;
      if (agbno + len > run.agbno + run.len) continue;
      const taken = { agbno, len };
      this.#cut(run, taken);
      return taken;
    }
    return null;
  }

  #cut(run: Run, taken: Run): void {
    const end = taken.agbno + taken.len;
    const rest: Run[] = [
      { agbno: run.agbno, len: taken.agbno - run.agbno },
      { agbno: end, len: run.agbno + run.len - end },
    ];
    const at = this.free.indexOf(run);
    this.free.splice(at, 1, ...rest.filter((r) => r.len > 0));
  }
}

/** Blocks that a run of inodes begins at a multiple of (kernel: the end of
 * `xfs_ialloc_setup_geometry`). */
function inodeAlignment(sb: XfsSb): number {
  const cluster = F.XFS_INODE_BIG_CLUSTER_SIZE * (sb.inodesize / 256);
  const aligned = sb.inoalignmt >= Math.ceil(cluster / sb.blocksize);
  const mask = aligned && sb.inoalignmt > 0 ? sb.inoalignmt - 1 : 0;
  if (sb.unit > 0 && mask > 0 && (sb.unit & mask) === 0) return sb.unit;
  return aligned ? Math.max(1, sb.inoalignmt) : 1;
}

/** Blocks of a new group's free list: one for each tree that lives off it, and one
 * more if that can ever have a second level (kernel: `xfs_alloc_min_freelist`). */
export function newAgflLen(sb: XfsSb): number {
  const alloc = Math.ceil(sb.agblocks / 2) > leastRecords(sb, 8) ? 2 : 1;
  if (!sb.hasRmapbt) return 2 * alloc;
  // With reflink there may be more mappings than blocks: what counts is whether nodes
  // that fill the group take more than one.
  const rmapGrows = sb.hasReflink
    ? sb.agblocks - 1 > leastRecords(sb, 44)
    : sb.agblocks > leastRecords(sb, 24);
  return 2 * alloc + (rmapGrows ? 2 : 1);
}

/** Records of `size` bytes that a block of a tree holds at least. */
function leastRecords(sb: XfsSb, size: number): number {
  const room = sb.blocksize - F.XFS_BTREE_SBLOCK_CRC_LEN;
  return Math.floor(Math.floor(room / size) / 2);
}
