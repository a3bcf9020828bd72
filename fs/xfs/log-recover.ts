/**
 * Recovery: bringing to the device what the log holds and the device may lack.
 *
 * A record holds pieces of transactions. They are put together by their numbers, and
 * only those are replayed whose last piece is there. There are two passes: the first
 * only learns which buffers were freed later on, as what was logged of them before
 * must not come back. What a transaction changed is brought to buffers, which are
 * written before the next transaction of another place in the log: the place that a
 * buffer bears then tells what it holds already.
 *
 * Work that a transaction promised, and that nobody says was done, is done when the
 * file system is mounted ({@linkcode xlogRecoverFinish}), and inodes without names are
 * freed then.
 *
 * Kernel counterpart: fs/xfs/xfs_log_recover.c.
 *
 * @module
 */

import { andThen, type MaybePromise, repeat } from "../../lib/maybe-promise.ts";
import { printk } from "../../lib/printk.ts";
import { bmapItems } from "./bmap-item.ts";
import { bufItem } from "./buf-item-recover.ts";
import { extentFreeItems } from "./extfree-item.ts";
import { icreateItem } from "./icreate-item.ts";
import { inodeItem } from "./inode-item-recover.ts";
import { BBSIZE } from "./libxfs/format.ts";
import * as L from "./libxfs/log-format.ts";
import { Xlog, xlogCksum, type XlogRecHeader, xlogUnpackData } from "./log.ts";
import { xlogCheckGeometry, XlogDamage, xlogFindTail } from "./log-head.ts";
import type { XlogRange } from "./log-head.ts";
import {
  type RecoveredIntent,
  XLOG_REORDER_ITEM_LIST,
  XlogRecoverItem,
  type XlogRecoverItemOps,
  XlogRecovery,
} from "./log-item.ts";
import type { XfsMount } from "./mount.ts";
import { refcountItems } from "./refcount-item.ts";
import { rmapItems } from "./rmap-item.ts";

/** Transactions that may be under way; the kernel has a handful. */
const MAX_TRANSACTIONS = 4096;
/** Bytes of the longest region: a value of an attribute is one. */
const MAX_REGION: number = 1024 * 1024;

const ITEMS = new Map<number, XlogRecoverItemOps>(
  [
    bufItem,
    inodeItem,
    icreateItem,
    ...extentFreeItems,
    ...rmapItems,
    ...refcountItems,
    ...bmapItems,
  ].map((ops) => [ops.type, ops]),
);
/** What there is besides. */
const OTHERS = new Map<number, string>([
  [L.XFS_LI_DQUOT, "quota"],
  [L.XFS_LI_QUOTAOFF, "quotaoff"],
  [L.XFS_LI_ATTRI, "attribute intents"],
  [L.XFS_LI_ATTRD, "attribute intents"],
  [L.XFS_LI_XMI, "exchanges of mappings"],
  [L.XFS_LI_XMD, "exchanges of mappings"],
]);

function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

/** A transaction of the log (kernel: `struct xlog_recover`). */
class XlogRecover {
  readonly tid: number;
  /** Record in which it begins. */
  readonly lsn: L.XfsLsn;
  readonly items: XlogRecoverItem[] = [];
  /** Bytes of its header so far. */
  headerLen = 0;
  readonly #header = new Uint8Array(L.XFS_TRANS_HEADER_LEN);

  constructor(tid: number, lsn: L.XfsLsn) {
    this.tid = tid;
    this.lsn = lsn;
  }

  /** Takes in a piece (kernel: `xlog_recover_add_to_trans`,
   * `xlog_recover_add_to_cont_trans`).
   * @param cont It continues the last one.
   * @returns null, or the check that failed. */
  add(data: Uint8Array, cont: boolean): string | null {
    if (data.length === 0) return null;
    if (this.headerLen < L.XFS_TRANS_HEADER_LEN) return this.#addHeader(data);
    const item = this.items.at(-1);
    if (cont) return this.#continue(item, data);
    if (item !== undefined && item.regions.length < item.total) {
      item.regions.push(data.slice());
      return null;
    }
    if (data.length < 4) return `item of ${data.length} bytes`;
    const total = viewOf(data).getUint16(L.ITEM_SIZE, true);
    if (total === 0 || total > L.XLOG_MAX_REGIONS_IN_ITEM) {
      return `item of ${total} regions`;
    }
    const next = new XlogRecoverItem(total);
    next.regions.push(data.slice());
    this.items.push(next);
    return null;
  }

  /** The header may be cut anywhere. */
  #addHeader(data: Uint8Array): string | null {
    if (this.headerLen + data.length > L.XFS_TRANS_HEADER_LEN) {
      return `transaction header of ${this.headerLen + data.length} bytes`;
    }
    this.#header.set(data, this.headerLen);
    this.headerLen += data.length;
    if (this.headerLen < L.XFS_TRANS_HEADER_LEN) return null;
    const magic = viewOf(this.#header).getUint32(0, true);
    if (magic === L.XFS_TRANS_HEADER_MAGIC) return null;
    return `transaction header with magic 0x${magic.toString(16)}`;
  }

  #continue(
    item: XlogRecoverItem | undefined,
    data: Uint8Array,
  ): string | null {
    if (item === undefined) return "continues nothing";
    const old = item.regions.pop()!;
    const len = old.length + data.length;
    if (len > MAX_REGION) return `region of ${len} bytes`;
    const whole = new Uint8Array(len);
    whole.set(old);
    whole.set(data, old.length);
    item.regions.push(whole);
    return null;
  }
}

// ---- a pass over the records ----

/** One pass (kernel: `xlog_do_recovery_pass`). */
class Pass {
  readonly #recovery: XlogRecovery;
  readonly #log: Xlog;
  /** 1 or 2. */
  readonly #pass: number;
  /** Block that comes next, and blocks that are left. */
  #block: number;
  #left: number;
  readonly #transactions = new Map<number, XlogRecover>();
  /** Complete ones, to be replayed. */
  readonly #complete: XlogRecover[] = [];
  /** What went wrong. */
  error = 0;

  constructor(recovery: XlogRecovery, range: XlogRange, pass: number) {
    this.#recovery = recovery;
    this.#log = recovery.log;
    this.#pass = pass;
    this.#block = range.tail;
    const { bbs } = recovery.log;
    this.#left = (range.head.block - range.tail + bbs) % bbs;
  }

  /** Does it.
   * @returns 0 or a negative errno. */
  run(): MaybePromise<number> {
    return andThen(repeat(() => this.#step()), () => {
      if (this.error < 0 || this.#pass === 1) return this.error;
      return this.#recovery.flush();
    });
  }

  /** Replays a transaction, or reads the next record. */
  #step(): MaybePromise<boolean> {
    const trans = this.#complete.shift();
    if (trans === undefined) {
      if (this.#left === 0) return false;
      this.error = this.#processRecord();
      return this.error === 0;
    }
    // Buffers bear the place of the transaction once they are written; until then,
    // others of the same place may change them, too.
    const isSame = L.lsnCmp(this.#recovery.lsn, trans.lsn) === 0;
    return andThen(isSame ? 0 : this.#recovery.flush(), (error) => {
      this.#recovery.lsn = trans.lsn;
      this.error = error < 0 ? error : this.#commit(trans);
      return this.error === 0;
    });
  }

  /** Kernel: `xlog_recover_process`. */
  #processRecord(): number {
    const recovery = this.#recovery;
    const rec = this.#log.header(this.#block);
    if (typeof rec === "number") return rec;
    if (typeof rec === "string") {
      const where = `log record at block 0x${this.#block.toString(16)}`;
      return recovery.mp.corrupt(where, rec);
    }
    recovery.at(rec);
    const bbs = rec.hblks + rec.len / BBSIZE;
    if (bbs > this.#left) return recovery.damaged(`len ${rec.len}`);
    const raw = this.#log.record(rec);
    if (typeof raw === "number") return raw;
    const crc = xlogCksum(raw, rec.hblks);
    // The record of mkfs has none, and nothing to be replayed.
    if (crc !== rec.crc && (rec.crc !== 0 || rec.numLogops !== 1)) {
      return recovery.damaged(
        `checksum 0x${rec.crc.toString(16)}, not 0x${crc.toString(16)}`,
      );
    }
    this.#block = this.#log.after(rec);
    this.#left -= bbs;
    const why = this.#processData(rec, xlogUnpackData(raw, rec));
    return why === null ? 0 : recovery.damaged(why);
  }

  /** Kernel: `xlog_recover_process_data`. */
  #processData(rec: XlogRecHeader, data: Uint8Array): string | null {
    const view = viewOf(data);
    let at = 0;
    for (let i = 0; i < rec.numLogops; i++) {
      if (at + L.XLOG_OP_HEADER_LEN > data.length) return `operation ${i}`;
      const len = view.getUint32(at + L.OH_LEN);
      const client = view.getUint8(at + L.OH_CLIENTID);
      if (client !== L.XFS_TRANSACTION && client !== L.XFS_LOG) {
        return `operation ${i}: client 0x${client.toString(16)}`;
      }
      const from = at + L.XLOG_OP_HEADER_LEN;
      if (from + len > data.length) return `operation ${i}: len ${len}`;
      const why = this.#processOp(
        view.getUint32(at + L.OH_TID),
        view.getUint8(at + L.OH_FLAGS),
        data.subarray(from, from + len),
        rec.lsn,
      );
      if (why !== null) return `operation ${i}: ${why}`;
      at = from + len;
    }
    return null;
  }

  /** Kernel: `xlog_recover_process_ophdr`, `xlog_recovery_process_trans`. */
  #processOp(
    tid: number,
    opFlags: number,
    data: Uint8Array,
    lsn: L.XfsLsn,
  ): string | null {
    const trans = this.#transactions.get(tid);
    if (trans === undefined) {
      // What is left of one that began before the tail is not needed.
      if ((opFlags & L.XLOG_START_TRANS) === 0) return null;
      if (data.length !== 0) return `start with ${data.length} bytes`;
      if (this.#transactions.size === MAX_TRANSACTIONS) {
        return "too many transactions";
      }
      this.#transactions.set(tid, new XlogRecover(tid, lsn));
      return null;
    }
    switch (this.#kindOf(opFlags)) {
      case L.XLOG_COMMIT_TRANS:
        this.#transactions.delete(tid);
        this.#complete.push(trans);
        return null;
      case 0:
        return trans.add(data, false);
      case L.XLOG_WAS_CONT_TRANS:
        return trans.add(data, true);
      case L.XLOG_UNMOUNT_TRANS:
        this.#transactions.delete(tid);
        return null;
    }
    return `flags 0x${opFlags.toString(16)}`;
  }

  #kindOf(flags: number): number {
    return flags & ~(L.XLOG_END_TRANS | L.XLOG_CONTINUE_TRANS);
  }

  /** Kernel: `xlog_recover_commit_trans`, `xlog_recover_reorder_trans`. */
  #commit(trans: XlogRecover): number {
    const recovery = this.#recovery;
    const lists: XlogRecoverItem[][] = [[], [], [], []];
    for (const item of trans.items) {
      const ops = opsOf(item);
      const why = typeof ops === "string" ? ops : checkItem(ops, item);
      if (why !== null) return recovery.damaged(why);
      const { reorder } = ops as XlogRecoverItemOps;
      lists[reorder?.(item) ?? XLOG_REORDER_ITEM_LIST]!.push(item);
    }
    for (const item of lists.flat()) {
      const ops = opsOf(item) as XlogRecoverItemOps;
      if (this.#pass === 1) ops.commitPass1?.(recovery, item);
      else {
        const error = ops.commitPass2(recovery, item);
        if (error < 0) return error;
      }
    }
    return 0;
  }
}

/** What is done with an item; or why it cannot be replayed. */
function opsOf(item: XlogRecoverItem): XlogRecoverItemOps | string {
  const ops = ITEMS.get(item.type);
  if (ops !== undefined) return ops;
  const name = OTHERS.get(item.type);
  if (name !== undefined) return `${name} are not known`;
  return `item of type 0x${item.type.toString(16)}`;
}

function checkItem(
  ops: XlogRecoverItemOps,
  item: XlogRecoverItem,
): string | null {
  const { total, regions } = item;
  if (regions.length !== total) {
    return `item of ${regions.length} regions, not ${total}`;
  }
  const why = ops.check(item);
  return why === null
    ? null
    : `item of type 0x${item.type.toString(16)}: ${why}`;
}

// ---- mounting ----

/** What recovery has left to be done by the mounted file system. */
export interface XlogRecovered {
  /** In the order of the log. */
  readonly intents: RecoveredIntent[];
  /** What the log holds: all of it has been replayed. */
  readonly range: XlogRange;
}

/** Replays what has to be replayed (kernel: `xlog_do_log_recovery`). */
function replay(
  recovery: XlogRecovery,
  range: XlogRange,
): MaybePromise<number> {
  return andThen(new Pass(recovery, range, 1).run(), (error) => {
    if (error < 0) return error;
    return new Pass(recovery, range, 2).run();
  });
}

/**
 * Looks at the log, and replays it (kernel: `xlog_recover`). What is in memory of the
 * file system is old then; so is the super block.
 *
 * @returns What is left to be done, null if the log was clean; -EFSCORRUPTED, with the
 *   mount's complaint, if the log is damaged or holds something that is not known; an
 *   errno of the device.
 */
export function xlogRecover(
  mp: XfsMount,
): MaybePromise<XlogRecovered | null | number> {
  const log = new Xlog(mp);
  const wrong = xlogCheckGeometry(log);
  if (wrong !== null) return mp.corrupt("log", wrong);
  const range = xlogFindTail(log);
  if (typeof range === "number") return range;
  if (range instanceof XlogDamage) return mp.corrupt("log", range.why);
  if (range.clean) return null;
  const unknown = (mp.sb.featuresLogIncompat & ~1) >>> 0;
  if (unknown !== 0) {
    return mp.corrupt("log", `features 0x${unknown.toString(16)} not known`);
  }
  if (mp.bdev.readOnly) {
    return mp.corrupt("log", "cannot be replayed on a read-only device");
  }
  printk(`XFS (${mp.id}): Starting recovery (logdev: internal)`);
  const recovery = new XlogRecovery(mp, log);
  return andThen(replay(recovery, range), (error) => {
    if (error < 0) return error;
    return { intents: [...recovery.intents.values()], range };
  });
}

/**
 * Makes the log a clean one: all that it held is on the device (kernel:
 * `xfs_log_unmount_write`).
 *
 * @returns 0 or a negative errno.
 */
export function xlogClean(
  mp: XfsMount,
  recovered: XlogRecovered,
): MaybePromise<number> {
  const { head, tail, last } = recovered.range;
  printk(`XFS (${mp.id}): Ending recovery (logdev: internal)`);
  return new Xlog(mp).unmountWrite(head, tail, last);
}
