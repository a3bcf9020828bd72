/**
 * Promises to change the reverse map, in the log.
 *
 * Kernel counterpart: fs/xfs/xfs_rmap_item.c.
 *
 * @module
 */

import { XFS_ATTR_FORK, XFS_DATA_FORK } from "./libxfs/format.ts";
import * as L from "./libxfs/log-format.ts";
import { XFS_RMAP_FREE, XFS_RMAP_MAP, XfsRmapIntent } from "./libxfs/rmap.ts";
import {
  doneItem,
  getMapExtent,
  intentItem,
  type MapExtent,
  type RecoveredIntent,
  type XlogRecoverItemOps,
} from "./log-item.ts";
import type { XfsMount } from "./mount.ts";

/** Kernel: `xfs_rui_validate_map`. */
function verify(mp: XfsMount, map: MapExtent): string | null {
  const { sb } = mp;
  const what = `change ${map.op} of the owner of ${map.len} blocks ` +
    `at ${map.startblock}`;
  if (map.op < XFS_RMAP_MAP || map.op > XFS_RMAP_FREE) return what;
  // Blocks of a fork's tree are never promised.
  if (map.bmbt || !sb.verifyFsbext(map.startblock, map.len)) return what;
  if (map.owner >= 0 && !sb.verifyIno(map.owner)) return what;
  return null;
}

/** Kernel: `xlog_recover_rui_commit_pass2`. */
function decode(
  mp: XfsMount,
  format: DataView,
  count: number,
): RecoveredIntent | string {
  if (!mp.sb.hasRmapbt) return "owners of blocks without the feature";
  const maps: MapExtent[] = [];
  for (let i = 0; i < count; i++) {
    const at = L.INTENT_HDR_LEN + i * L.XFS_MAP_EXTENT_LEN;
    const map = getMapExtent(format, at);
    const why = typeof map === "string" ? map : verify(mp, map);
    if (why !== null) return why;
    maps.push(map as MapExtent);
  }
  return {
    ino: null,
    blocks: (mp) => mp.maxlevels.rmap,
    work: (mp) => maps.map((map) => intentOf(mp, map)),
  };
}

function intentOf(mp: XfsMount, map: MapExtent): XfsRmapIntent {
  return new XfsRmapIntent(
    mp,
    map.op,
    map.owner,
    map.attr ? XFS_ATTR_FORK : XFS_DATA_FORK,
    map.startoff,
    map.startblock,
    map.len,
    map.unwritten,
  );
}

/** Kernel: `xlog_rui_item_ops`, `xlog_rud_item_ops`. */
export const rmapItems: XlogRecoverItemOps[] = [
  intentItem(L.XFS_LI_RUI, L.XFS_MAP_EXTENT_LEN, decode),
  doneItem(L.XFS_LI_RUD, L.XFS_LI_RUI),
];
