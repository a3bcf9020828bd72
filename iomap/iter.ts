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

import { warnOn, warnOnOnce } from "../lib/bug.ts";
import { EIO } from "../lib/errno.ts";
import type { MaybePromise } from "../lib/maybe-promise.ts";
import {
  type Iomap,
  IOMAP_DAX,
  IOMAP_DELALLOC,
  IOMAP_DIRECT,
  IOMAP_F_BUFFER_HEAD,
  IOMAP_F_STALE,
  IOMAP_HOLE,
  IOMAP_INLINE,
  IOMAP_MAPPED,
  IOMAP_NULL_ADDR,
  IOMAP_REPORT,
  IOMAP_UNSHARE,
  IOMAP_UNWRITTEN,
  IOMAP_WRITE,
  IOMAP_ZERO,
  iomapHasAddr,
  iomapInlineDataValid,
  type IomapIter,
  iomapLength,
  iomapLengthTrim,
  type IomapOps,
  iomapReset,
} from "./iomap.ts";
import { traceIomapIter, traceIomapIterMaps, tracer } from "./trace.ts";

/**
 * Times in a row that a mapping may be stale before anything is done with it. The
 * kernel goes on for ever, until a signal: here nobody else would ever run again.
 */
const MAX_STALE_ROUNDS = 100_000;

/**
 * Moves on by `count` bytes of the mapping (kernel: `iomap_iter_advance`).
 *
 * @returns 0, or -EIO if that is beyond the mapping, or not on; then nothing moves.
 *   What is left of the mapping, `iomapLength` tells.
 */
export function iomapIterAdvance(iter: IomapIter, count: number): number {
  // Unsigned in the kernel, where less than nothing is far beyond.
  const within = count >= 0 && count <= iomapLength(iter);
  if (warnOnOnce(!within, "iomap: advance past the mapping")) return -EIO;
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
 *   that does not cover `iter.pos`, is stale from the start, or 100,000 times in a
 *   row before anything is done with it.
 */
export function iomapIter(
  iter: IomapIter,
  ops: IomapOps,
): MaybePromise<number> {
  if (tracer !== null) traceIomapIter(iter, ops);
  if (iter.iomap.length === 0) return iterBegin(iter, ops);
  return iterEnd(iter, ops);
}

function iterEnd(iter: IomapIter, ops: IomapOps): MaybePromise<number> {
  if (ops.iomapEnd === undefined) return iterEnded(0, iter, ops);
  const { iterStartPos } = iter;
  const advanced = iter.pos - iterStartPos;
  const length = iomapLengthTrim(iter, iterStartPos, iter.len + advanced);
  const ended = ops.iomapEnd(
    iter.inode,
    iterStartPos,
    // A mapping that breaks the rules may end before it begins, or nowhere.
    length > 0 ? length : 0,
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
  iter.staleRounds = stale && !advanced ? iter.staleRounds + 1 : 0;
  const endless = iter.staleRounds > MAX_STALE_ROUNDS;
  if (warnOnOnce(endless, "iomap: the mapping is stale whenever it is used")) {
    ret = -EIO;
  }
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
  return begun instanceof Promise
    ? iterBegunLater(begun, iter, ops)
    : iterBegun(begun, iter, ops);
}

function iterBegunLater(
  begun: Promise<number>,
  iter: IomapIter,
  ops: IomapOps,
): Promise<number> {
  return begun.then((error) => iterBegun(error, iter, ops));
}

function iterBegun(
  error: number,
  iter: IomapIter,
  ops: IomapOps,
): MaybePromise<number> {
  if (error < 0) return error;
  iter.iterStartPos = iter.pos;
  if (tracer !== null) traceIomapIterMaps(iter);
  const rule = uselessRule(iter);
  if (rule === null) return 1;
  iter.status = ruleBroken(iter, rule);
  // The file system may have reserved something for it.
  return iterEnd(iter, ops);
}

/** Names the rule that a mapping breaks. Always -EIO. */
function ruleBroken(iter: IomapIter, rule: string): number {
  const { inode, pos, iomap } = iter;
  const { offset, length, type, addr } = iomap;
  warnOn(
    true,
    `iomap: the mapping ${rule} (inode ${inode.ino}, pos ${pos}, ` +
      `${offset}+${length} of type ${type} at ${addr})`,
  );
  return -EIO;
}

/** The rule broken by a mapping that nobody can work with, or null. */
function uselessRule({ iomap, pos }: IomapIter): string | null {
  const range = brokenRange(iomap, pos);
  if (range !== null) return range;
  const stale = (iomap.flags & IOMAP_F_STALE) !== 0;
  return stale ? "is stale from the start" : null;
}

/** A number that is NaN breaks the first rule that it meets. */
function brokenRange(map: Iomap, pos: number): string | null {
  const { offset, length } = map;
  if (!(offset <= pos)) return "begins after pos";
  if (!(length > 0)) return "is empty";
  // It would be asked for again for ever.
  if (!(offset + length > pos)) return "ends at or before pos";
  const whole = Number.isInteger(offset) && Number.isInteger(length);
  return whole ? null : "is not of whole bytes";
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
    const status = bodyOnRules(iter, body, arg);
    if (status instanceof Promise) {
      return walkOn(nextAfter(status, iter, ops), iter, ops, body, arg);
    }
    iter.status = status;
  }
}

/** Runs the body with a mapping that keeps the rules. */
function bodyOnRules<A>(
  iter: IomapIter,
  body: IomapBody<A>,
  arg: A,
): MaybePromise<number> {
  const rule = brokenRule(iter);
  return rule === null ? body(iter, arg) : ruleBroken(iter, rule);
}

/** The rule of {@linkcode IomapOps} that a mapping breaks, or null. */
function brokenRule(iter: IomapIter): string | null {
  const { iomap, srcmap, pos, flags } = iter;
  const own = brokenMap(iter, iomap);
  if (own !== null) return own;
  if (srcmap.type !== IOMAP_HOLE) {
    const source = brokenRange(srcmap, pos) ?? brokenMap(iter, srcmap);
    if (source !== null) return `has a source that ${source}`;
  }
  // Direct I/O sees to it itself, and knows other ways.
  if ((flags & (IOMAP_DIRECT | IOMAP_DAX)) !== 0) return null;
  const writes = (flags & (IOMAP_WRITE | IOMAP_UNSHARE)) === IOMAP_WRITE;
  if (writes && iomap.type === IOMAP_HOLE) return "is a HOLE, for a write";
  const legacy = (iomap.flags | srcmap.flags) & IOMAP_F_BUFFER_HEAD;
  const touches = (flags & (IOMAP_WRITE | IOMAP_ZERO)) !== 0;
  return touches && legacy !== 0 ? "is BUFFER_HEAD, for a write" : null;
}

function brokenMap(iter: IomapIter, map: Iomap): string | null {
  switch (map.type) {
    case IOMAP_HOLE:
    case IOMAP_DELALLOC:
      if (map.addr !== IOMAP_NULL_ADDR) {
        return "is a HOLE or DELALLOC at an addr";
      }
      // Behind INLINE a hole begins wherever that ends.
      return map.type === IOMAP_HOLE ? null : brokenBlocks(iter, map);
    case IOMAP_MAPPED:
    case IOMAP_UNWRITTEN:
      return brokenStorage(iter, map) ?? brokenBlocks(iter, map);
    case IOMAP_INLINE:
      // Who only reports where it is need not have it in memory.
      if ((iter.flags & IOMAP_REPORT) !== 0) return null;
      return iomapInlineDataValid(map)
        ? null
        : "is INLINE without its memory, within a page";
    default:
      return "has an unknown type";
  }
}

function brokenStorage(iter: IomapIter, map: Iomap): string | null {
  if (map.bdev === null && (iter.flags & IOMAP_DAX) === 0) {
    return "is MAPPED or UNWRITTEN without a device";
  }
  // XFS reports promised space as UNWRITTEN where only the cache knows what is data.
  if ((iter.flags & IOMAP_REPORT) !== 0 || iomapHasAddr(map)) return null;
  return "is MAPPED or UNWRITTEN without an address";
}

function brokenBlocks(iter: IomapIter, map: Iomap): string | null {
  const mask = (1 << iter.inode.blkbits) - 1;
  const odd = ((map.offset | map.length) & mask) !== 0;
  return odd ? "is not of whole blocks" : null;
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
    const status = bodyOnRules(iter, body, arg);
    iter.status = status instanceof Promise ? await status : status;
    const next = iomapIter(iter, ops);
    ret = next instanceof Promise ? await next : next;
  }
  return ret;
}
