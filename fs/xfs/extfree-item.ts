/**
 * Promises to free extents, in the log.
 *
 * Kernel counterpart: fs/xfs/xfs_extfree_item.c.
 *
 * @module
 */

import { XFS_AG_RESV_NONE } from "./libxfs/ag-resv.ts";
import { XfsExtentFreeOp } from "./libxfs/alloc.ts";
import { XFS_RMAP_OWN_UNKNOWN } from "./libxfs/format.ts";
import * as L from "./libxfs/log-format.ts";
import { XfsOwnerInfo } from "./libxfs/rmap.ts";
import {
  doneItem,
  intentItem,
  type RecoveredIntent,
  type XlogRecoverItemOps,
} from "./log-item.ts";
import type { XfsMount } from "./mount.ts";

/** Whoever owns them: that has been forgotten already, or all of it is there. */
const ANY_OWNER = new XfsOwnerInfo(XFS_RMAP_OWN_UNKNOWN);

/** Kernel: `xlog_recover_efi_commit_pass2`, `xfs_efi_validate_ext`. */
function decode(
  mp: XfsMount,
  format: DataView,
  count: number,
): RecoveredIntent | string {
  const extents: [number, number][] = [];
  for (let i = 0; i < count; i++) {
    const at = L.INTENT_HDR_LEN + i * L.XFS_EXTENT_LEN;
    const start = L.getU64Le(format, at + L.EXTENT_START);
    const len = format.getUint32(at + L.EXTENT_COUNT, true);
    if (!mp.sb.verifyFsbext(start, len)) {
      return `${len} blocks at ${start} to be freed`;
    }
    extents.push([start, len]);
  }
  return {
    ino: null,
    blocks: () => 0,
    work: (mp) =>
      extents.map(([start, len]) => {
        const pag = mp.perags[mp.sb.fsbToAgno(start)]!;
        return new XfsExtentFreeOp(
          pag,
          start,
          len,
          ANY_OWNER,
          XFS_AG_RESV_NONE,
        );
      }),
  };
}

/** Kernel: `xlog_efi_item_ops`, `xlog_efd_item_ops`. */
export const extentFreeItems: XlogRecoverItemOps[] = [
  intentItem(L.XFS_LI_EFI, L.XFS_EXTENT_LEN, decode),
  doneItem(L.XFS_LI_EFD, L.XFS_LI_EFI),
];
