/**
 * What recovery of the log and the kinds of items that it replays share.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_log_recover.h.
 *
 * @module
 */

import { EFSCORRUPTED } from "../../lib/errno.ts";
import { andThen, type MaybePromise } from "../../lib/maybe-promise.ts";
import type { XfsInode } from "./inode.ts";
import { xfsBufLsnAt } from "./libxfs/buf-lsn.ts";
import type { XfsBuf, XfsBufOps } from "./libxfs/buf.ts";
import type { DeferOp } from "./libxfs/defer.ts";
import { BBSIZE } from "./libxfs/format.ts";
import * as L from "./libxfs/log-format.ts";
import type { Xlog, XlogRecHeader } from "./log.ts";
import type { XfsMount } from "./mount.ts";

/** When an item is replayed, of a transaction (kernel: `enum xlog_recover_reorder`). */
export const XLOG_REORDER_BUFFER_LIST = 0;
export const XLOG_REORDER_ITEM_LIST = 1;
export const XLOG_REORDER_INODE_BUFFER_LIST = 2;
export const XLOG_REORDER_CANCEL_LIST = 3;

/** One logged thing: a head that says what it is, and what was changed of it (kernel:
 * `struct xlog_recover_item`). */
export class XlogRecoverItem {
  /** Regions that it has. */
  readonly total: number;
  readonly regions: Uint8Array[] = [];

  constructor(total: number) {
    this.total = total;
  }

  /** `XFS_LI_*`. */
  get type(): number {
    return this.format.getUint16(L.ITEM_TYPE, true);
  }

  /** The first region. */
  get format(): DataView {
    const { buffer, byteOffset, byteLength } = this.regions[0]!;
    return new DataView(buffer, byteOffset, byteLength);
  }
}

/** What recovery does with a kind of item (kernel: `struct xlog_recover_item_ops`). */
export interface XlogRecoverItemOps {
  readonly type: number;
  /** `XLOG_REORDER_*`; absent is `XLOG_REORDER_ITEM_LIST`. */
  reorder?(item: XlogRecoverItem): number;
  /** Checks the head.
   * @returns null, or the check that failed. */
  check(item: XlogRecoverItem): string | null;
  /** In the first pass. */
  commitPass1?(recovery: XlogRecovery, item: XlogRecoverItem): void;
  /** In the second pass.
   * @returns 0 or a negative errno, after {@linkcode XlogRecovery.damaged}. */
  commitPass2(recovery: XlogRecovery, item: XlogRecoverItem): number;
}

/** Buffers that were freed in the log: where, and how often (kernel: `struct
 * xfs_buf_cancel`). */
export class CancelTable {
  readonly #counts = new Map<string, number>();

  /** A buffer is freed (kernel: `xlog_add_buffer_cancelled`). */
  add(blkno: number, len: number): void {
    const key = `${blkno}+${len}`;
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
  }

  /** Whether a buffer will be freed, from here on in the log (kernel:
   * `xlog_is_buffer_cancelled`). */
  has(blkno: number, len: number): boolean {
    return this.#counts.has(`${blkno}+${len}`);
  }

  /** The place has been passed where a buffer is freed (kernel:
   * `xlog_put_buffer_cancelled`). */
  put(blkno: number, len: number): void {
    const key = `${blkno}+${len}`;
    const count = this.#counts.get(key) ?? 0;
    if (count > 1) this.#counts.set(key, count - 1);
    else this.#counts.delete(key);
  }
}

const rawOps: XfsBufOps = {
  name: "xfs_recovered",
  crcOffset: -1,
  verify: () => null,
};

/** What a recovery knows and changes. */
export class XlogRecovery {
  readonly mp: XfsMount;
  readonly log: Xlog;
  readonly cancels: CancelTable = new CancelTable();
  /** Promised work that nobody says was done, in the order of the log; by kind and
   * number. */
  readonly intents: Map<string, RecoveredIntent> = new Map();
  /** Where the transaction begins that is being replayed. */
  lsn: L.XfsLsn = { cycle: 0, block: 0 };
  #rec: XlogRecHeader | null = null;
  /** Buffers that have been changed and not written. */
  readonly #bufs = new Set<XfsBuf>();

  constructor(mp: XfsMount, log: Xlog) {
    this.mp = mp;
    this.log = log;
  }

  /** The record is damaged: says so, and which.
   * @returns -EFSCORRUPTED. */
  damaged(why: string): number {
    const rec = this.#rec;
    const where = rec === null
      ? "log"
      : `log record at block 0x${rec.block.toString(16)}, ` +
        `LSN ${L.lsnText(rec.lsn)}`;
    return this.mp.corrupt(where, why);
  }

  /** Says which record is being looked at. */
  at(rec: XlogRecHeader): void {
    this.#rec = rec;
  }

  /** Whether a range is on the device. */
  inDevice(blkno: number, bbs: number): boolean {
    return Number.isSafeInteger(blkno) && blkno >= 0 && bbs > 0 &&
      blkno + bbs <= this.mp.bdev.nrSectors &&
      blkno % (this.mp.sb.sectsize / BBSIZE) === 0;
  }

  /** A buffer to be changed, with what is on the device or was replayed just now; what
   * that is nobody has checked.
   * @returns It or a negative errno. */
  read(blkno: number, bbs: number): XfsBuf | number {
    const { targ } = this.mp;
    const found = targ.incore(blkno);
    if (found !== null && this.#bufs.has(found)) {
      if (found.bbs === bbs) return found;
      return this.damaged(`buffer at daddr ${blkno}: not ${bbs} sectors`);
    }
    if (found !== null) targ.markStale(found);
    return targ.read(blkno, bbs, rawOps);
  }

  /** A buffer to be filled. */
  get(blkno: number, bbs: number): XfsBuf | number {
    const { targ } = this.mp;
    const found = targ.incore(blkno);
    if (found !== null && this.#bufs.has(found) && found.bbs !== bbs) {
      return this.damaged(`buffer at daddr ${blkno}: not ${bbs} sectors`);
    }
    const bp = targ.get(blkno, bbs);
    bp.uptodate = true;
    bp.stale = false;
    return bp;
  }

  /** A buffer is to be written. */
  changed(bp: XfsBuf, ops: XfsBufOps): void {
    bp.ops = ops;
    this.#bufs.add(bp);
    this.mp.targ.markDirty(bp);
  }

  /** Writes what has been replayed, with the place in the log up to which it is
   * complete, and forgets it.
   * @returns 0 or a negative errno. */
  flush(): MaybePromise<number> {
    const { targ } = this.mp;
    const bufs = [...this.#bufs];
    for (const bp of bufs) {
      const at = xfsBufLsnAt(bp);
      if (at >= 0) L.putLsn(bp.view, at, this.lsn);
    }
    return andThen(bufs.length === 0 ? 0 : targ.flush(), (error) => {
      if (error === -EFSCORRUPTED) return this.damaged(this.mp.complaint);
      if (error < 0) return error;
      for (const bp of bufs) targ.markStale(bp);
      this.#bufs.clear();
      return 0;
    });
  }
}

// ---- promised work ----

/** Work that a transaction promised (kernel: `struct xfs_defer_pending`, made by
 * `xlog_recover_intent_item`). */
export interface RecoveredIntent {
  /** Inode whose map is to be changed, or null. */
  readonly ino: number | null;
  /** Blocks that the work may use. */
  blocks(mp: XfsMount): number;
  /**
   * The work as it is done at any time.
   *
   * @param ip The inode of `ino`.
   */
  work(mp: XfsMount, ip: XfsInode | null): DeferOp[];
}

/** What an item that says that work was done looks like. */
export function doneItem(type: number, intent: number): XlogRecoverItemOps {
  return {
    type,
    check: (item) =>
      item.format.byteLength < L.INTENT_HDR_LEN ? "length" : null,
    commitPass2(recovery, item): number {
      recovery.intents.delete(intentKey(intent, item));
      return 0;
    },
  };
}

/** Names an intent, here and where it is done. */
function intentKey(intent: number, item: XlogRecoverItem): string {
  const high = item.format.getUint32(L.INTENT_ID + 4, true);
  const low = item.format.getUint32(L.INTENT_ID, true);
  return `${intent}:${high}:${low}`;
}

/**
 * What an item that promises work looks like.
 *
 * @param extentLen Bytes of each of its extents.
 * @param decode Reads it, when all of its extents are there; or the check that failed.
 */
export function intentItem(
  type: number,
  extentLen: number,
  decode: (
    mp: XfsMount,
    format: DataView,
    count: number,
  ) => RecoveredIntent | string,
): XlogRecoverItemOps {
  return {
    type,
    check(item) {
      const { format } = item;
      if (format.byteLength < L.INTENT_HDR_LEN) return "length";
      const count = format.getUint32(L.INTENT_NEXTENTS, true);
      if (count === 0) return "no extents";
      const want = L.INTENT_HDR_LEN + count * extentLen;
      return format.byteLength === want ? null : `${count} extents`;
    },
    commitPass2(recovery, item): number {
      const { format } = item;
      const count = format.getUint32(L.INTENT_NEXTENTS, true);
      const intent = decode(recovery.mp, format, count);
      if (typeof intent === "string") return recovery.damaged(intent);
      recovery.intents.set(intentKey(type, item), intent);
      return 0;
    },
  };
}

/** An extent of an intent that is about maps (kernel: `struct xfs_map_extent`). */
export interface MapExtent {
  /** Inode number, or `XFS_RMAP_OWN_*`. */
  readonly owner: number;
  readonly startblock: number;
  readonly startoff: number;
  readonly len: number;
  /** What is to be done. */
  readonly op: number;
  readonly attr: boolean;
  /** Of the blocks of the tree itself. */
  readonly bmbt: boolean;
  readonly unwritten: boolean;
}

/** Reads an extent; or the check that failed. */
export function getMapExtent(view: DataView, at: number): MapExtent | string {
  const flags = view.getUint32(at + L.ME_FLAGS, true);
  const known = L.EXTENT_TYPE_MASK | L.EXTENT_ATTR_FORK | L.EXTENT_BMBT_BLOCK |
    L.EXTENT_UNWRITTEN;
  if ((flags & ~known) !== 0) return `flags 0x${flags.toString(16)}`;
  const startoff = L.getU64Le(view, at + L.ME_STARTOFF);
  const len = view.getUint32(at + L.ME_LEN, true);
  // As far as a file can be long.
  if (!(startoff >= 0 && startoff + len <= 2 ** 53)) {
    return `file block ${startoff}`;
  }
  return {
    owner: L.getU64Le(view, at + L.ME_OWNER),
    startblock: L.getU64Le(view, at + L.ME_STARTBLOCK),
    startoff,
    len,
    op: flags & L.EXTENT_TYPE_MASK,
    attr: (flags & L.EXTENT_ATTR_FORK) !== 0,
    bmbt: (flags & L.EXTENT_BMBT_BLOCK) !== 0,
    unwritten: (flags & L.EXTENT_UNWRITTEN) !== 0,
  };
}
