/**
 * Checking the super block and its copies.
 *
 * @module
 */

import { bufCrcOk } from "../libxfs/buf.ts";
import { getU64 } from "../libxfs/bytes.ts";
import * as F from "../libxfs/format.ts";
import type { FsckGroup } from "./ag.ts";
import { type FsckContext, viewOf } from "./context.ts";

/** Stretches that copies have in common: first byte, bytes. */
const GEOMETRY: [string, number, number][] = [
  ["magic and sizes", F.SB_MAGICNUM, 32],
  ["uuid", F.SB_UUID, 16],
  ["logstart", F.SB_LOGSTART, 8],
  ["rextsize, agblocks, agcount, rbmblocks, logblocks", F.SB_REXTSIZE, 20],
  ["version", F.SB_VERSIONNUM + 1, 1],
  ["sectsize, inodesize, inopblock", F.SB_SECTSIZE, 6],
  ["logarithms", F.SB_BLOCKLOG, 6],
  ["frextents", F.SB_FREXTENTS, 8],
  ["inoalignmt", F.SB_INOALIGNMT, 4],
  ["dirblklog, log sectors, logsunit", F.SB_DIRBLKLOG, 8],
  ["features_compat", F.SB_FEATURES_COMPAT, 4],
  ["features_ro_compat", F.SB_FEATURES_RO_COMPAT, 4],
  ["features_incompat", F.SB_FEATURES_INCOMPAT, 4],
  ["spino_align", F.SB_SPINO_ALIGN, 4],
  ["meta_uuid", F.SB_META_UUID, 16],
];
/** What every version 5 super block says. */
const VERSION_BITS = F.XFS_SB_VERSION_NLINKBIT | F.XFS_SB_VERSION_LOGV2BIT |
  F.XFS_SB_VERSION_EXTFLGBIT | F.XFS_SB_VERSION_DIRV2BIT |
  F.XFS_SB_VERSION_MOREBITSBIT;
const FEATURES2 = F.XFS_SB_VERSION2_LAZYSBCOUNTBIT |
  F.XFS_SB_VERSION2_ATTR2BIT | F.XFS_SB_VERSION2_PROJID32BIT |
  F.XFS_SB_VERSION2_CRCBIT;

/** Looks at the super block: what the decoder does not. */
export function checkPrimary(ctx: FsckContext, data: Uint8Array): void {
  const { sb } = ctx;
  const view = viewOf(data);
  const found = (why: string) => ctx.found(`bad primary superblock - ${why}`);
  if ((sb.versionnum & VERSION_BITS) !== VERSION_BITS) {
    found(`versionnum 0x${sb.versionnum.toString(16)}`);
  }
  if ((sb.features2 & FEATURES2) !== FEATURES2) {
    found(`features2 0x${sb.features2.toString(16)}`);
  }
  const bad2 = view.getUint32(F.SB_BAD_FEATURES2);
  if (bad2 !== sb.features2) found(`bad_features2 0x${bad2.toString(16)}`);
  if (sb.featuresLogIncompat !== 0) {
    found(
      `log_incompat 0x${sb.featuresLogIncompat.toString(16)} after unmount`,
    );
  }
  for (let at = F.SB_END; at < sb.sectsize; at++) {
    if (data[at] === 0) continue;
    found(`byte ${at} of its unused portion is not zero`);
    break;
  }
  const frextents = getU64(view, F.SB_FREXTENTS);
  if (frextents !== 0) {
    found(`frextents ${frextents}, there is no realtime section`);
  }
  const shared = view.getUint8(F.SB_SHARED_VN);
  if (shared !== 0) found(`shared_vn ${shared}`);
  checkInodeGeometry(ctx, found);
  if (sb.logstart !== 0 && !sb.verifyFsbext(sb.logstart, sb.logblocks)) {
    found(`log at ${sb.logstart}, ${sb.logblocks} blocks, is in no group`);
  }
  const bytes = sb.dblocks * sb.blocksize;
  if (bytes > ctx.reader.size) {
    found(`dblocks ${sb.dblocks}, the device has ${ctx.reader.size} bytes`);
  }
  ctx.checkLsn(view, F.SB_LSN, "superblock");
}

function checkInodeGeometry(
  ctx: FsckContext,
  found: (why: string) => void,
): void {
  const { sb } = ctx;
  const chunk = Math.floor(
    F.XFS_INODES_PER_CHUNK * sb.inodesize / sb.blocksize,
  );
  if (sb.hasSparseInodes && sb.spinoAlign > 0 && sb.inoalignmt !== chunk) {
    found(`inoalignmt ${sb.inoalignmt}, a chunk has ${chunk} blocks`);
  }
  if (sb.rbmino !== sb.rootino + 1 || sb.rsumino !== sb.rootino + 2) {
    ctx.found(
      `sb rbmino ${sb.rbmino} or rsumino ${sb.rsumino} inconsistent with ` +
        `rootino ${sb.rootino}`,
    );
  }
  const root = expectedRoot(ctx);
  if (sb.rootino !== root) {
    ctx.found(
      `sb root inode value ${sb.rootino} inconsistent with calculated ` +
        `value ${root}`,
    );
  }
}

/** Where mkfs puts the root: behind what every group begins with and the first blocks
 * of the free list (program: `libxfs_ialloc_calc_rootino`). */
function expectedRoot(ctx: FsckContext): number {
  const { sb } = ctx;
  const grows = (records: number, size: number) => {
    const room = sb.blocksize - F.XFS_BTREE_SBLOCK_CRC_LEN;
    return records > Math.floor(Math.floor(room / size) / 2) ? 2 : 1;
  };
  let first = sb.headerBlocks + 3 + Number(sb.hasFinobt) +
    Number(sb.hasRmapbt) + Number(sb.hasReflink);
  first += 2 * grows(Math.ceil(sb.agblocks / 2), 8);
  if (sb.hasRmapbt) {
    first += sb.hasReflink
      ? grows(sb.agblocks - 1, 44)
      : grows(sb.agblocks, 24);
  }
  if (sb.logstart > 0 && sb.fsbToAgno(sb.logstart) === 0) {
    first += sb.logblocks;
  }
  const cluster = Math.ceil(
    F.XFS_INODE_BIG_CLUSTER_SIZE * (sb.inodesize / 256) / sb.blocksize,
  );
  const mask = sb.inoalignmt >= cluster && sb.inoalignmt > 0
    ? sb.inoalignmt - 1
    : 0;
  let align = Math.max(1, sb.inoalignmt);
  if (sb.unit > 0 && mask > 0 && (sb.unit & mask) === 0) align = sb.unit;
  return Math.ceil(first / align) * align * sb.inopblock;
}

/** Compares the copies with the first. */
export function checkSecondaries(ctx: FsckContext, primary: Uint8Array): void {
  const { sb } = ctx;
  for (let agno = 1; agno < sb.agcount; agno++) {
    const at = sb.agHeaderDaddr(agno, 0) * F.BBSIZE;
    const data = ctx.readBytes(at, sb.sectsize, `superblock ${agno}`);
    if (data !== null) checkSecondary(ctx, agno, data, primary);
  }
}

function checkSecondary(
  ctx: FsckContext,
  agno: number,
  data: Uint8Array,
  primary: Uint8Array,
): void {
  const found = (why: string) =>
    ctx.found(`primary/secondary superblock ${agno} conflict - ${why}`);
  if (viewOf(data).getUint32(F.SB_MAGICNUM) !== F.XFS_SB_MAGIC) {
    return found("bad magic number");
  }
  if (!bufCrcOk(data, F.SB_CRC)) return found("bad CRC in superblock");
  for (const [name, at, bytes] of GEOMETRY) {
    for (let i = at; i < at + bytes; i++) {
      // The first attribute sets its bit in the first super block only.
      const ignore = i === F.SB_VERSIONNUM + 1 ? F.XFS_SB_VERSION_ATTRBIT : 0;
      if ((data[i]! | ignore) === (primary[i]! | ignore)) continue;
      found(`${name} conflicts with filesystem geometry`);
      break;
    }
  }
  for (let i = F.SB_END; i < data.length; i++) {
    if (data[i] === 0) continue;
    return found(`byte ${i} of its unused portion is not zero`);
  }
}

/** Compares the counters with those of the groups. */
export function checkCounters(
  ctx: FsckContext,
  groups: FsckGroup[],
  primary: Uint8Array,
): void {
  const view = viewOf(primary);
  const sum = (of: (group: FsckGroup) => number) =>
    groups.reduce((n, group) => n + of(group), 0);
  const compare = (name: string, at: number, counted: number) => {
    const has = getU64(view, at);
    if (has !== counted) ctx.found(`${name} ${has}, counted ${counted}`);
  };
  compare("sb_icount", F.SB_ICOUNT, sum((g) => g.icount));
  compare("sb_ifree", F.SB_IFREE, sum((g) => g.ifree));
  const free = sum((g) => g.freeblks + g.flcount + g.btreeblks);
  compare("sb_fdblocks", F.SB_FDBLOCKS, free);
}
