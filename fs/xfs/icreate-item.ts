/**
 * Replaying the making of inodes: their blocks are not logged, but where they are.
 *
 * Kernel counterpart: fs/xfs/xfs_icreate_item.c.
 *
 * @module
 */

import { initInodeCluster } from "./libxfs/ialloc.ts";
import { xfsInodeBufOps } from "./libxfs/inode-buf.ts";
import * as L from "./libxfs/log-format.ts";
import {
  XLOG_REORDER_BUFFER_LIST,
  type XlogRecoverItem,
  type XlogRecoverItemOps,
  type XlogRecovery,
} from "./log-item.ts";

/** Blocks of a new chunk, or part of one. */
interface NewInodes {
  readonly agno: number;
  readonly agbno: number;
  readonly length: number;
  readonly gen: number;
}

function decode(item: XlogRecoverItem): NewInodes {
  const { format } = item;
  return {
    agno: format.getUint32(L.ICL_AG),
    agbno: format.getUint32(L.ICL_AGBNO),
    length: format.getUint32(L.ICL_LENGTH),
    gen: format.getUint32(L.ICL_GEN),
  };
}

/** Whether there can be such inodes. */
function verify(recovery: XlogRecovery, item: XlogRecoverItem): string | null {
  const { sb } = recovery.mp;
  const { agno, agbno, length } = decode(item);
  const count = item.format.getUint32(L.ICL_COUNT);
  const isize = item.format.getUint32(L.ICL_ISIZE);
  if (isize !== sb.inodesize) return `inodes of ${isize} bytes`;
  if (length === 0 || length > sb.ialloBlks) return `${length} blocks`;
  if (count !== length * sb.inopblock) return `${count} inodes`;
  const good = sb.verifyAgbno(agno, agbno) &&
    sb.verifyAgbno(agno, agbno + length - 1) &&
    length % sb.blocksPerCluster === 0 && agbno % sb.blocksPerCluster === 0;
  return good ? null : `${length} blocks at ${agbno} of AG ${agno}`;
}

/** New inodes (kernel: `xlog_icreate_item_ops`). */
export const icreateItem: XlogRecoverItemOps = {
  type: L.XFS_LI_ICREATE,

  reorder: () => XLOG_REORDER_BUFFER_LIST,

  check: (item) =>
    item.format.byteLength === L.XFS_ICREATE_LOG_LEN ? null : "length",

  commitPass2(recovery, item): number {
    const why = verify(recovery, item);
    if (why !== null) return recovery.damaged(`new inodes: ${why}`);
    const { sb, targ } = recovery.mp;
    const { agno, agbno, length, gen } = decode(item);
    const bbs = sb.blocksPerCluster * sb.bbPerBlock;
    const daddr = sb.agbToDaddr(agno, agbno);
    const end = daddr + length * sb.bbPerBlock;
    // What was freed later may be anything by now.
    for (let at = daddr; at < end; at += bbs) {
      if (recovery.cancels.has(at, bbs)) return 0;
    }
    let ino = sb.aginoToIno(agno, agbno * sb.inopblock);
    for (let at = daddr; at < end; at += bbs) {
      const bp = recovery.get(at, bbs);
      if (typeof bp === "number") return bp;
      initInodeCluster(sb, targ.uuid, bp, ino, gen);
      recovery.changed(bp, xfsInodeBufOps);
      ino += bp.data.length / sb.inodesize;
    }
    return 0;
  },
};
