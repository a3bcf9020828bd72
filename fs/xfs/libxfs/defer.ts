/**
 * Work that one transaction leaves to those that follow it: what a change of a map does
 * to reference counts and reverse mappings, and the freeing of extents last.
 *
 * A transaction cannot hold everything: freeing an extent, say, may change the trees of
 * another group. So it notes what is left, item by item. Items of one type that follow
 * each other make a group, and a group is what one intent in a log speaks of: as long as
 * its intent is not matched by a done item, recovery does the work again.
 *
 * Every group is finished in a transaction of its own, the oldest first. What finishing
 * it adds comes before all that was left: so as little as possible is pending at a time,
 * and blocks are freed only after nothing maps, counts or owns them any more.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_defer.c.
 *
 * @module
 */

import type { XfsTrans } from "./trans.ts";

/** A kind of work (kernel: `struct xfs_defer_op_type`). */
export interface DeferOpType {
  /** As in the kernel: "bmap", "refcount", "rmap", "agfl_free", "extent_free". */
  readonly name: string;
  /** Most items of a group, as that is what an intent has room for; 0 is any number
   * (kernel: `max_items`). */
  readonly maxItems: number;
  /** Order of the items of a group: all of one allocation group together. A number below
   * 0 if `a` comes first (kernel: the `diff_items` of `create_intent`). */
  diffItems(a: DeferOp, b: DeferOp): number;
  /**
   * Does one item within a transaction (kernel: `finish_item`).
   *
   * @returns 0; 1 if there is more of the same to do, in another transaction: the item
   *   says what is left (kernel: -EAGAIN); a negative errno.
   */
  finish(tp: XfsTrans, op: DeferOp): number;
  /** The group is through, or has to wait for another transaction: whatever its items
   * used in common goes (kernel: `finish_cleanup`). */
  cleanup?(): void;
}

/** One piece of work; a type's own items have what it needs. */
export interface DeferOp {
  readonly type: DeferOpType;
}

/** Items that are finished together (kernel: `struct xfs_defer_pending`). */
export interface DeferPending {
  readonly type: DeferOpType;
  /** What is still to be done. */
  readonly items: DeferOp[];
}

/**
 * Leaves work for a following transaction (kernel: `xfs_defer_add`): it joins the last
 * group of the transaction if that is of its type and has room.
 */
export function xfsDeferAdd(tp: XfsTrans, op: DeferOp): void {
  const last = tp.deferred.at(-1);
  const { type } = op;
  const room = type.maxItems === 0 ? Infinity : type.maxItems;
  if (last !== undefined && last.type === type && last.items.length < room) {
    last.items.push(op);
  } else tp.deferred.push({ type, items: [op] });
}

/** Takes in what the transaction has left: it comes before what is pending (kernel:
 * `xfs_defer_create_intents`). */
function takeIn(tp: XfsTrans, pending: DeferPending[]): void {
  const added = tp.deferred.splice(0);
  for (const { type, items } of added) {
    if (items.length > 1) items.sort((a, b) => type.diffItems(a, b));
  }
  // The next one is at the end, where it is cheap to take it off.
  pending.push(...added.reverse());
}

/** Does the items of a group (kernel: `xfs_defer_finish_one`).
 * @returns As {@linkcode DeferOpType.finish}. */
function finishOne(tp: XfsTrans, group: DeferPending): number {
  const { type, items } = group;
  let result = 0;
  let done = 0;
  while (result === 0 && done < items.length) {
    result = type.finish(tp, items[done]!);
    if (result === 0) done++;
  }
  items.splice(0, done);
  type.cleanup?.();
  return result;
}

/**
 * Does what a transaction has left, and what that leaves (kernel:
 * `xfs_defer_finish_noroll`). What was done last is not committed yet.
 *
 * @returns 0, or a negative errno: then the file system is shut down, and the caller
 *   cancels.
 */
export function xfsDeferFinishNoroll(tp: XfsTrans): number {
  const pending: DeferPending[] = [];
  let error = 0;
  takeIn(tp, pending);
  while (error >= 0 && pending.length > 0) {
    error = tp.roll();
    if (error < 0) break;
    const group = pending.at(-1)!;
    error = finishOne(tp, group);
    if (error === 0) pending.pop();
    takeIn(tp, pending);
  }
  if (error >= 0) return 0;
  tp.mp.forceShutdown("deferred work could not be finished");
  return error;
}

/**
 * Does what a transaction has left and commits it; the transaction goes on clean
 * (kernel: `xfs_defer_finish`).
 *
 * @returns 0, or a negative errno: then the file system is shut down, and the caller
 *   cancels.
 */
export function xfsDeferFinish(tp: XfsTrans): number {
  const error = xfsDeferFinishNoroll(tp);
  if (error < 0) return error;
  return tp.dirty ? tp.roll() : 0;
}
