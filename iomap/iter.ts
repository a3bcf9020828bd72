/**
 * The engine that all of the library runs on: ask for a mapping, let the body
 * use it, give it back, ask for the next.
 *
 * The body tells what it did by advancing the iterator, and leaves early either
 * with a negative status or by not advancing at all. A mapping that went stale is
 * the exception: it is asked for again, even if nothing was done with it.
 *
 * Kernel counterpart: fs/iomap/iter.c.
 *
 * @module
 */

import { warnOnOnce } from "../lib/bug.ts";
import { EIO } from "../lib/errno.ts";
import { andThenWith, type MaybePromise } from "../lib/maybe-promise.ts";
import {
  IOMAP_F_STALE,
  type IomapIter,
  iomapLength,
  iomapLengthTrim,
  type IomapOps,
  iomapReset,
} from "./iomap.ts";
import { traceIomapIter, traceIomapIterMaps, tracer } from "./trace.ts";

/**
 * Moves on by `count` bytes of the mapping (kernel: `iomap_iter_advance`).
 *
 * @returns 0, or -EIO if that is beyond the mapping; then nothing moves.
 */
export function iomapIterAdvance(iter: IomapIter, count: number): number {
  if (
    warnOnOnce(count > iomapLength(iter), "iomap: advance past the mapping")
  ) {
    return -EIO;
  }
  iter.pos += count;
  iter.len -= count;
  return 0;
}

/** Moves on to the end of the mapping (kernel: `iomap_iter_advance_full`). */
export function iomapIterAdvanceFull(iter: IomapIter): number {
  return iomapIterAdvance(iter, iomapLength(iter));
}

/**
 * Ends the mapping that was worked on, if any, and obtains the next (kernel:
 * `iomap_iter`).
 *
 * @param iter Starts with an `iomap` of length 0; `status` holds what the body met.
 * @returns 1: work on `iter.iomap` and call again. 0: done. Else the error of the
 *   body, of `iomapBegin`, of an `iomapEnd` after no progress; -EIO for a mapping
 *   that does not cover `iter.pos` or is stale from the start.
 */
export function iomapIter(
  iter: IomapIter,
  ops: IomapOps,
): MaybePromise<number> {
  if (tracer !== null) traceIomapIter(iter, ops);
  if (iter.iomap.length === 0) return iterBegin(iter, ops);
  if (ops.iomapEnd === undefined) return iterEnded(0, iter, ops);
  const advanced = iter.pos - iter.iterStartPos;
  const ended = ops.iomapEnd(
    iter.inode,
    iter.iterStartPos,
    iomapLengthTrim(iter, iter.iterStartPos, iter.len + advanced),
    advanced,
    iter.flags,
    iter.iomap,
  );
  return ended instanceof Promise
    ? iterEndedLater(ended, iter, ops)
    : iterEnded(ended, iter, ops);
}

function iterEndedLater(
  ended: Promise<number>,
  iter: IomapIter,
  ops: IomapOps,
): Promise<number> {
  return ended.then((error) => iterEnded(error, iter, ops));
}

function iterEnded(
  error: number,
  iter: IomapIter,
  ops: IomapOps,
): MaybePromise<number> {
  const advanced = iter.pos !== iter.iterStartPos;
  // What was done counts for more than trouble in giving back the rest.
  if (error < 0 && !advanced) return error;
  let ret = iter.status;
  if (warnOnOnce(ret > 0, "iomap: a body's status is not a byte count")) {
    ret = -EIO;
  }
  const stale = (iter.iomap.flags & IOMAP_F_STALE) !== 0;
  const more = ret === 0 && iter.len > 0 && (advanced || stale);
  iter.status = 0;
  iomapReset(iter.iomap);
  iomapReset(iter.srcmap);
  return more ? iterBegin(iter, ops) : ret;
}

function iterBegin(iter: IomapIter, ops: IomapOps): MaybePromise<number> {
  const begun = ops.iomapBegin(
    iter.inode,
    iter.pos,
    iter.len,
    iter.flags,
    iter.iomap,
    iter.srcmap,
  );
  return andThenWith(begun, iterBegun, iter);
}

function iterBegun(error: number, iter: IomapIter): number {
  if (error < 0) return error;
  const { iomap, pos } = iter;
  if (
    warnOnOnce(iomap.offset > pos, "iomap: the mapping begins after pos") ||
    warnOnOnce(iomap.length === 0, "iomap: the mapping is empty") ||
    // It would be asked for again for ever.
    warnOnOnce(
      iomap.offset + iomap.length <= pos,
      "iomap: the mapping ends at or before pos",
    ) ||
    warnOnOnce(
      (iomap.flags & IOMAP_F_STALE) !== 0,
      "iomap: the mapping is stale from the start",
    )
  ) return -EIO;
  iter.iterStartPos = pos;
  if (tracer !== null) traceIomapIterMaps(iter);
  return 1;
}

/** What is done with one mapping: 0 or a negative errno, as `iter.status`. */
export type IomapBody<A> = (iter: IomapIter, arg: A) => MaybePromise<number>;

/**
 * Walks a whole range: `body` for each mapping, until {@linkcode iomapIter} says
 * that it is done (the kernel's callers each spell this loop out).
 *
 * @param iter Set up by `iomapIterInit`.
 * @param arg Handed to `body`, so that it needs no closure.
 * @returns 0 or a negative errno.
 */
export function iomapWalk<A>(
  iter: IomapIter,
  ops: IomapOps,
  body: IomapBody<A>,
  arg: A,
): MaybePromise<number> {
  for (;;) {
    const ret = iomapIter(iter, ops);
    if (ret instanceof Promise) return walkOn(ret, iter, ops, body, arg);
    if (ret <= 0) return ret;
    const status = body(iter, arg);
    if (status instanceof Promise) {
      return walkOn(nextAfter(status, iter, ops), iter, ops, body, arg);
    }
    iter.status = status;
  }
}

async function nextAfter(
  status: Promise<number>,
  iter: IomapIter,
  ops: IomapOps,
): Promise<number> {
  iter.status = await status;
  return iomapIter(iter, ops);
}

async function walkOn<A>(
  first: Promise<number>,
  iter: IomapIter,
  ops: IomapOps,
  body: IomapBody<A>,
  arg: A,
): Promise<number> {
  let ret = await first;
  while (ret > 0) {
    const status = body(iter, arg);
    iter.status = status instanceof Promise ? await status : status;
    const next = iomapIter(iter, ops);
    ret = next instanceof Promise ? await next : next;
  }
  return ret;
}
