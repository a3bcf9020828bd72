/**
 * Promises to change reference counts, in the log.
 *
 * Kernel counterpart: fs/xfs/xfs_refcount_item.c.
 *
 * @module
 */

import type { DeferOp } from "./libxfs/defer.ts";
import * as L from "./libxfs/log-format.ts";
import {
  XFS_REFCOUNT_FREE_COW,
  XFS_REFCOUNT_INCREASE,
  XfsRefcountIntent,
} from "./libxfs/refcount.ts";
import {
  doneItem,
  intentItem,
  type RecoveredIntent,
  type XlogRecoverItemOps,
} from "./log-item.ts";
import type { XfsMount } from "./mount.ts";

/** Kernel: `xlog_recover_cui_commit_pass2`, `xfs_cui_validate_phys`. */
function decode(
  mp: XfsMount,
  format: DataView,
  count: number,
): RecoveredIntent | string {
  if (!mp.sb.hasReflink) return "reference counts without the feature";
  const changes: [number, number, number][] = [];
  for (let i = 0; i < count; i++) {
    const at = L.INTENT_HDR_LEN + i * L.XFS_EXTENT_LEN;
    const start = L.getU64Le(format, at + L.EXTENT_START);
    const len = format.getUint32(at + L.EXTENT_COUNT, true);
    const op = format.getUint32(at + L.PHYS_EXTENT_FLAGS, true);
    const known = op >= XFS_REFCOUNT_INCREASE && op <= XFS_REFCOUNT_FREE_COW;
    if (!known || !mp.sb.verifyFsbext(start, len)) {
      return `change ${op} of the counts of ${len} blocks at ${start}`;
    }
    changes.push([op, start, len]);
  }
  return {
    ino: null,
    blocks: (mp) => mp.maxlevels.refcount * 2,
    work: (mp): DeferOp[] =>
      changes.map(([op, start, len]) =>
        new XfsRefcountIntent(mp, op, start, len)
      ),
  };
}

/** Kernel: `xlog_cui_item_ops`, `xlog_cud_item_ops`. */
export const refcountItems: XlogRecoverItemOps[] = [
  intentItem(L.XFS_LI_CUI, L.XFS_EXTENT_LEN, decode),
  doneItem(L.XFS_LI_CUD, L.XFS_LI_CUI),
];
