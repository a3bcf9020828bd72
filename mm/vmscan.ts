/**
 * Making room: which folios leave memory when it is full.
 *
 * A hand goes round the page frames. A folio used since it last came by gets a
 * second chance; a clean one that nobody holds is given up. Going by frames and not
 * by age frees neighbours together, so that large folios can be made again.
 *
 * Kernel counterpart: mm/vmscan.c.
 *
 * @module
 */

import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import { type Folio, folioNrPages, PG_BUSY, PG_REFERENCED } from "./folio.ts";
import type { Mm } from "./mm.ts";
import { FIRST_FRAME } from "./page-alloc.ts";
import { filemapReleaseFolio, filemapRemoveFolio } from "./page-cache.ts";
import { firstDirty, waitForWriteback, writeSome } from "./page-writeback.ts";

/** Fewest pages freed in one go (kernel: `SWAP_CLUSTER_MAX`). */
const RECLAIM_BATCH = 32;
/** How often room is made for one large folio before a smaller one will do. */
const LARGE_TRIES = 2;
/** Pages written back at once where only dirty ones are left. */
const RECLAIM_WRITE = 1024;

/**
 * Takes memory for a folio, giving up clean folios for it (kernel: `folio_alloc`
 * with direct reclaim). Does not wait.
 *
 * @returns A folio, not locked, with one reference; null if there was no room.
 */
export function allocFolio(mm: Mm, order: number): Folio | null {
  for (let tries = 0; tries <= LARGE_TRIES; tries++) {
    const folio = mm.newFolio(order, false);
    if (folio !== null) return folio;
    if (shrinkFolios(mm, Math.max(RECLAIM_BATCH, 1 << order)) === 0) break;
  }
  return null;
}

/**
 * {@linkcode allocFolio} for what cannot do without: writes back and waits where
 * that makes room, and goes beyond the limit by a tenth where nothing does.
 *
 * @returns Null if all of it is in use.
 */
export function allocFolioWait(
  mm: Mm,
  order: number,
): MaybePromise<Folio | null> {
  const folio = allocFolio(mm, order);
  if (folio !== null) return folio;
  return andThen(
    writeForRoom(mm),
    (progress) =>
      progress ? allocFolioWait(mm, order) : mm.newFolio(order, true),
  );
}

/** Gets dirty folios cleaned, some at least. False if there are none. */
function writeForRoom(mm: Mm): MaybePromise<boolean> {
  const victim = firstDirty(mm);
  if (victim === null) return waitForWriteback(mm);
  const before = mm.nrDirty;
  return andThen(
    writeSome(victim, RECLAIM_WRITE),
    () =>
      andThen(waitForWriteback(mm), (ended) => ended || mm.nrDirty < before),
  );
}

/**
 * Gives up clean folios until `wanted` pages are free (kernel: `shrink_folio_list`).
 *
 * @returns Pages freed.
 */
export function shrinkFolios(mm: Mm, wanted: number): number {
  const { folios } = mm;
  let freed = 0;
  let hand = mm.reclaimHand;
  // Twice round: the first time may do no more than take second chances away.
  for (let left = 2 * folios.length; left > 0 && freed < wanted;) {
    if (hand >= folios.length) hand = FIRST_FRAME;
    const folio = folios[hand];
    const count = folio === undefined || folio.refcount === 0
      ? 1
      : folioNrPages(folio);
    if (folio !== undefined && tryReclaim(folio)) freed += count;
    hand += count;
    left -= count;
  }
  mm.reclaimHand = hand;
  return freed;
}

function tryReclaim(folio: Folio): boolean {
  // The cache's reference alone.
  if (folio.refcount !== 1 || folio.mapping === null) return false;
  if ((folio.flags & PG_BUSY) !== 0) return false;
  if ((folio.flags & PG_REFERENCED) !== 0) {
    folio.flags &= ~PG_REFERENCED;
    return false;
  }
  if (!filemapReleaseFolio(folio)) return false;
  filemapRemoveFolio(folio);
  return true;
}
