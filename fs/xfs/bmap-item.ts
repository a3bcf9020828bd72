/**
 * Promises to change the map of a file, in the log.
 *
 * Kernel counterpart: fs/xfs/xfs_bmap_item.c.
 *
 * @module
 */

import { XFS_BMAP_MAP, XFS_BMAP_UNMAP, XfsBmapIntent } from "./libxfs/bmap.ts";
import { XFS_ATTR_FORK, XFS_DATA_FORK } from "./libxfs/format.ts";
import { BmbtIrec } from "./libxfs/iext.ts";
import * as L from "./libxfs/log-format.ts";
import {
  doneItem,
  getMapExtent,
  intentItem,
  type RecoveredIntent,
  type XlogRecoverItemOps,
} from "./log-item.ts";
import type { XfsMount } from "./mount.ts";

/** Kernel: `xlog_recover_bui_commit_pass2`, `xfs_bui_validate`. */
function decode(
  mp: XfsMount,
  format: DataView,
  count: number,
): RecoveredIntent | string {
  if (count !== 1) return `${count} changes of a map`;
  const map = getMapExtent(format, L.INTENT_HDR_LEN);
  if (typeof map === "string") return map;
  const { owner, op, startblock, startoff, len } = map;
  const known = op === XFS_BMAP_MAP || op === XFS_BMAP_UNMAP;
  const good = known && mp.sb.verifyIno(owner) && !map.bmbt &&
    mp.sb.verifyFsbext(startblock, len);
  if (!good) {
    return `change ${op} of the map of inode ${owner}: ${len} blocks ` +
      `at ${startblock}`;
  }
  const fork = map.attr ? XFS_ATTR_FORK : XFS_DATA_FORK;
  return {
    ino: owner,
    // Kernel: XFS_EXTENTADD_SPACE_RES.
    blocks: (mp) => mp.maxlevels.bmapData - 1,
    work(_mp, ip) {
      const rec = new BmbtIrec().set(startoff, startblock, len, map.unwritten);
      // As if it had been promised just now.
      if (op === XFS_BMAP_MAP) ip!.delayedBlks += len;
      return [new XfsBmapIntent(op, ip!, fork, rec)];
    },
  };
}

/** Kernel: `xlog_bui_item_ops`, `xlog_bud_item_ops`. */
export const bmapItems: XlogRecoverItemOps[] = [
  intentItem(L.XFS_LI_BUI, L.XFS_MAP_EXTENT_LEN, decode),
  doneItem(L.XFS_LI_BUD, L.XFS_LI_BUI),
];
