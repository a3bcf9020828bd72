/**
 * The second half of recovery, by the file system itself: the work that the log
 * promised is done, and inodes without names are freed.
 *
 * All promises are taken up first, each in a transaction of its own; what these leave
 * is done only then. So nothing that a promise still needs is given away before.
 *
 * Kernel counterpart: fs/xfs/xfs_log_recover.c (`xlog_recover_finish`).
 *
 * @module
 */

import { andThen, type MaybePromise, repeat } from "../../lib/maybe-promise.ts";
import { iput } from "../inode.ts";
import { xfsIget } from "./icache.ts";
import { ilockExcl, type XfsInode } from "./inode.ts";
import { xfsIallocReadAgi } from "./libxfs/ag.ts";
import type { DeferOp, DeferPending } from "./libxfs/defer.ts";
import { xfsIreadExtents } from "./libxfs/bmap.ts";
import * as F from "./libxfs/format.ts";
import { xfsIforkPtr } from "./libxfs/inode-fork.ts";
import { XFS_TRANS_RESERVE, xfsTransAlloc } from "./libxfs/trans.ts";
import type { RecoveredIntent } from "./log-item.ts";
import type { XfsMount } from "./mount.ts";

/** What a promise leaves when it has been taken up (kernel: `struct
 * xfs_defer_capture`). */
interface Captured {
  readonly blocks: number;
  readonly pending: DeferPending[];
  readonly ip: XfsInode | null;
}

/** Does the items of a promise once.
 * @returns What is left of them, or a negative errno. */
function finishItems(
  tp: Parameters<DeferOp["type"]["finish"]>[0],
  ops: DeferOp[],
): DeferOp[] | number {
  const type = ops[0]!.type;
  const left: DeferOp[] = [];
  let error = 0;
  for (const op of ops) {
    // One that cannot be done whole takes the rest along.
    const result: number = left.length > 0 ? 1 : type.finish(tp, op);
    if (result < 0) error = result;
    if (error < 0) break;
    if (result > 0) left.push(op);
  }
  type.cleanup?.();
  return error < 0 ? error : left;
}

/** Takes a promise up (kernel: `xfs_efi_recover_work` and so on).
 * @returns What it leaves, or a negative errno. */
function recoverWork(
  mp: XfsMount,
  intent: RecoveredIntent,
  ip: XfsInode | null,
): Captured | number {
  const blocks = intent.blocks(mp);
  const tp = xfsTransAlloc(mp, blocks, XFS_TRANS_RESERVE);
  if (typeof tp === "number") return tp;
  const ops = intent.work(mp, ip);
  if (ip !== null) ilockExcl(ip);
  const left = finishItems(tp, ops);
  let error = typeof left === "number" ? left : 0;
  const pending = tp.deferred.splice(0);
  if (typeof left !== "number" && left.length > 0) {
    pending.push({ type: ops[0]!.type, items: left });
  }
  if (error < 0) tp.cancel();
  else error = tp.commit();
  ip?.ilock.upWrite();
  return error < 0 ? error : { blocks, pending, ip };
}

/** Does what a promise has left (kernel: `xlog_finish_defer_ops`). */
function finishCaptured(mp: XfsMount, captured: Captured): number {
  const { blocks, pending, ip } = captured;
  if (pending.length === 0) return 0;
  const tp = xfsTransAlloc(mp, blocks, XFS_TRANS_RESERVE);
  if (typeof tp === "number") return tp;
  tp.deferred.push(...pending);
  if (ip !== null) ilockExcl(ip);
  const error = tp.commit();
  ip?.ilock.upWrite();
  return error;
}

/** Inode of a promise, with all extents (kernel: `xlog_recover_iget`). */
function intentInode(
  mp: XfsMount,
  intent: RecoveredIntent,
): MaybePromise<XfsInode | null | number> {
  if (intent.ino === null) return null;
  return andThen(xfsIget(mp, intent.ino), (ip) => {
    if (typeof ip === "number") return ip;
    for (const whichfork of [F.XFS_DATA_FORK, F.XFS_ATTR_FORK]) {
      const fork = xfsIforkPtr(ip, whichfork);
      if (fork === null || fork.loaded) continue;
      const error = xfsIreadExtents(null, ip, whichfork);
      if (error < 0) return error;
    }
    return ip;
  });
}

/**
 * Does all promised work (kernel: `xlog_recover_process_intents`).
 *
 * @returns 0 or a negative errno.
 */
export function xlogRecoverProcessIntents(
  mp: XfsMount,
  intents: RecoveredIntent[],
): MaybePromise<number> {
  const captured: Captured[] = [];
  let next = 0;
  let error = 0;
  const all = repeat(() => {
    const intent = intents[next++];
    if (intent === undefined || error < 0) return false;
    return andThen(intentInode(mp, intent), (ip) => {
      if (typeof ip === "number") {
        error = ip;
        return false;
      }
      const left = recoverWork(mp, intent, ip);
      if (typeof left === "number") error = left;
      else captured.push(left);
      return error === 0;
    });
  });
  return andThen(all, () => {
    for (const left of captured) error ||= finishCaptured(mp, left);
    // Until now inodes without names had to stay.
    const puts = captured.map(({ ip }) => ip).filter((ip) => ip !== null);
    return andThen(putAll(puts), () => error);
  });
}

function putAll(inodes: XfsInode[]): MaybePromise<void> {
  let next = 0;
  return repeat(() => {
    const ip = inodes[next++];
    if (ip === undefined) return false;
    return andThen(iput(ip), () => true);
  });
}

/** First inode of a list of those without names; `NULLAGINO`, or a negative errno. */
function unlinkedHead(mp: XfsMount, agno: number, bucket: number): number {
  const agibp = xfsIallocReadAgi(mp.perags[agno]!, null);
  if (typeof agibp === "number") return agibp;
  return agibp.view.getUint32(F.AGI_UNLINKED + bucket * 4);
}

/**
 * Frees the inodes that nobody had a name for, but somebody had open (kernel:
 * `xlog_recover_process_iunlinks`).
 *
 * @returns 0; -EFSCORRUPTED if a list cannot be; an errno of the device.
 */
export function xlogRecoverProcessIunlinks(mp: XfsMount): MaybePromise<number> {
  const buckets = mp.sb.agcount * F.XFS_AGI_UNLINKED_BUCKETS;
  let next = 0;
  let before = F.NULLAGINO;
  let error = 0;
  const all = repeat(() => {
    if (next === buckets) return false;
    const agno = Math.floor(next / F.XFS_AGI_UNLINKED_BUCKETS);
    const bucket = next % F.XFS_AGI_UNLINKED_BUCKETS;
    const head = unlinkedHead(mp, agno, bucket);
    if (head < 0) {
      error = head;
      return false;
    }
    if (head === F.NULLAGINO) {
      next++;
      before = head;
      return true;
    }
    // Every inode that is freed leaves its list.
    if (head === before) {
      error = mp.corrupt(
        `unlinked list ${bucket} of AG ${agno}`,
        `${head} stays`,
      );
      return false;
    }
    before = head;
    return andThen(freeUnlinked(mp, agno, head), (result) => {
      error = result;
      return error === 0;
    });
  });
  return andThen(all, () => error);
}

/** Kernel: `xlog_recover_iunlink_bucket`. */
function freeUnlinked(
  mp: XfsMount,
  agno: number,
  agino: number,
): MaybePromise<number> {
  const ino = mp.sb.aginoToIno(agno, agino);
  const where = `unlinked inode ${ino}`;
  return andThen(xfsIget(mp, ino), (ip) => {
    if (typeof ip === "number") {
      return mp.dead ? ip : mp.corrupt(where, `cannot be read: ${ip}`);
    }
    if (ip.nlink !== 0) return mp.corrupt(where, `nlink ${ip.nlink}`);
    return andThen(iput(ip), () => mp.evictError);
  });
}
