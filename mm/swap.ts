/**
 * Swap space: where pages go that have no file of their own.
 *
 * A swap area is a run of slots of a page each; the first holds the header. Where
 * a slot lies on the device is a list of extents, made once, when the area is
 * switched on: a page goes there without the file system's help. A page is read back
 * when it is next used, and its slot is free again.
 *
 * While a page is on its way out or in, the swap cache has it: an access waits there
 * rather than start a second I/O.
 *
 * Kernel counterpart: mm/swapfile.c, mm/swap_state.c, mm/page_io.c.
 *
 * @module
 */

import {
  bitmapClear,
  bitmapSet,
  bitmapWords,
  findNextZeroBit,
} from "../lib/bitmap.ts";
import { ENOMEM } from "../lib/errno.ts";
import { andThen, type MaybePromise, repeat } from "../lib/maybe-promise.ts";
import {
  type Folio,
  folioGet,
  folioLock,
  folioPut,
  folioUnlock,
  folioWaitLocked,
  folioWaitWriteback,
  PG_ANON,
  PG_BUSY,
  PG_REFERENCED,
  PG_UPTODATE,
  PG_WRITEBACK,
} from "./folio.ts";
import type { Mm } from "./mm.ts";
import { INDEX_PRESENT } from "./page-index.ts";
import { folioEndWriteback } from "./page-writeback.ts";
import { PTE_POISONED, setPte, swapPte, type VmArea } from "./rmap.ts";
import { allocFolioWait } from "./vmscan.ts";

/** Most areas at a time (kernel: `MAX_SWAPFILES`, about). */
const MAX_SWAPFILES = 29;
/** Most slots of an area, 256 GiB: a page table entry has room for no more. */
export const MAX_SWAP_PAGES: number = 2 ** 26;
/** Pages swapped out at a time where memory is short (kernel: `SWAP_CLUSTER_MAX`). */
const SWAP_CLUSTER = 32;

/** A run of slots that is one run on the device (kernel: `struct swap_extent`). */
export interface SwapExtent {
  /** First slot. */
  startPage: number;
  /** Slots. */
  nrPages: number;
  /** Where they lie on the device, pages. */
  startBlock: number;
}

/** How pages get to a device and back; answers 0 or a negative errno. */
export interface SwapIo {
  /** Fills a page of memory. @param block Page of the device. */
  read(folio: Folio, block: number): MaybePromise<number>;
  /** Writes a page of memory. @param block Page of the device. */
  write(folio: Folio, block: number): MaybePromise<number>;
}

/** One swap area (kernel: `struct swap_info_struct`). */
export class SwapInfo {
  /** The device: every extent has to be on it. */
  readonly bdev: object;
  /** How to get there. */
  readonly io: SwapIo;
  /** Slots, the header's among them. */
  max: number;
  /** Slots that can be used. */
  pages = 0;
  /** Where they are, in order. */
  readonly extents: SwapExtent[] = [];
  /** Slots in use, the header's not counted. */
  inuse = 0;
  /** Whether slots are given out. */
  writeOk = false;
  #map = new Uint32Array(0);
  /** Where the search for a free slot goes on (kernel: `cluster_next`). */
  #next = 1;

  /** An area that is not in use yet. @param max See {@linkcode SwapInfo.max}. */
  constructor(bdev: object, io: SwapIo, max: number) {
    this.bdev = bdev;
    this.io = io;
    this.max = max;
  }

  /** Starts to give slots out (kernel: `enable_swap_info`). */
  enable(): void {
    this.#map = new Uint32Array(bitmapWords(this.max));
    bitmapSet(this.#map, 0, 1);
    this.writeOk = true;
  }

  /** A free slot from 1 on, or 0. */
  alloc(): number {
    if (!this.writeOk || this.inuse === this.pages) return 0;
    let slot = findNextZeroBit(this.#map, this.max, this.#next);
    if (slot === this.max) slot = findNextZeroBit(this.#map, this.max, 1);
    bitmapSet(this.#map, slot, 1);
    this.inuse++;
    this.#next = slot + 1 < this.max ? slot + 1 : 1;
    return slot;
  }

  /** Gives a slot back. */
  free(slot: number): void {
    bitmapClear(this.#map, slot, 1);
    this.inuse--;
  }

  /** Where a slot lies on the device, pages (kernel: `map_swap_entry`). */
  blockOf(slot: number): number {
    let low = 0;
    let high = this.extents.length - 1;
    while (low < high) {
      const mid = (low + high + 1) >> 1;
      if (this.extents[mid]!.startPage <= slot) low = mid;
      else high = mid - 1;
    }
    const { startPage, startBlock } = this.extents[low]!;
    return startBlock + slot - startPage;
  }
}

/**
 * Appends slots to an area (kernel: `add_swap_extent`).
 *
 * @param startPage First slot; those before have been added.
 * @param nrPages Slots.
 * @param startBlock Where they lie on the device, pages.
 * @returns 1 for a new extent, 0 if they follow the last one.
 */
export function addSwapExtent(
  sis: SwapInfo,
  startPage: number,
  nrPages: number,
  startBlock: number,
): number {
  const last = sis.extents.at(-1);
  if (last !== undefined && last.startBlock + last.nrPages === startBlock) {
    last.nrPages += nrPages;
    return 0;
  }
  sis.extents.push({ startPage, nrPages, startBlock });
  return 1;
}

/** A page between memory and swap space. */
class Transit {
  readonly folio: Folio;
  readonly vma: VmArea;
  readonly index: number;
  /** Somebody waits for it: it stays in memory. */
  wanted = false;
  /** Nobody will ever ask for it: its slot is free once the I/O has ended. */
  freed = false;

  constructor(folio: Folio, vma: VmArea, index: number) {
    this.folio = folio;
    this.vma = vma;
    this.index = index;
  }
}

/** The swap areas of one machine's memory, and the pages that may go there. A slot is
 * a number from 1 on that tells its area, too (kernel: `swp_entry_t`). */
export class SwapSpace {
  /** Private mappings: page tables with entries of swap space (kernel: `mmlist`). */
  readonly areas: Set<VmArea> = new Set();
  /** Anonymous pages in memory, the oldest first. */
  readonly anon: Set<Folio> = new Set();
  readonly #mm: Mm;
  readonly #info: (SwapInfo | null)[] = [];
  /** By slot (kernel: the swap cache). */
  readonly #transit = new Map<number, Transit>();

  /** Without any areas. */
  constructor(mm: Mm) {
    this.#mm = mm;
  }

  /** Takes an area into use. False if there are too many. */
  add(sis: SwapInfo): boolean {
    let type = this.#info.indexOf(null);
    if (type < 0) type = this.#info.length;
    if (type === MAX_SWAPFILES) return false;
    this.#info[type] = sis;
    sis.enable();
    return true;
  }

  /** Whether a page could be swapped out. */
  get hasRoom(): boolean {
    for (const sis of this.#info) {
      if (sis?.writeOk && sis.inuse < sis.pages) return true;
    }
    return false;
  }

  /**
   * Takes an area out of use: what is there is read back (kernel: `try_to_unuse`). A
   * page that cannot be read is lost, and an access to it fails.
   *
   * @returns 0, or -ENOMEM if there is no room for it: the area stays in use.
   */
  remove(sis: SwapInfo): MaybePromise<number> {
    const type = this.#info.indexOf(sis);
    sis.writeOk = false;
    let error = 0;
    const emptied = repeat(() => {
      const found = error === 0 ? this.#findUsed(type) : null;
      if (found === null) return false;
      const { vma, index, slot } = found;
      return andThen(this.swapIn(vma, index, slot), (got) => {
        if (typeof got !== "number") folioPut(got);
        else if (got === -ENOMEM) error = got;
        else if (got < 0) this.#poison(vma, index, slot);
        return true;
      });
    });
    return andThen(emptied, () => {
      if (error === 0) this.#info[type] = null;
      else sis.writeOk = true;
      return error;
    });
  }

  #findUsed(
    type: number,
  ): { vma: VmArea; index: number; slot: number } | null {
    const sis = this.#info[type]!;
    if (sis.inuse === 0) return null;
    for (const vma of this.areas) {
      const { table, last } = vma;
      let index = table.next(vma.first, last, INDEX_PRESENT);
      for (; index >= 0; index = table.next(index + 1, last, INDEX_PRESENT)) {
        const pte = table.get(index);
        if (pte >= 0 || pte === PTE_POISONED) continue;
        if (typeOf(-pte) === type) return { vma, index, slot: -pte };
      }
    }
    return this.#findTransit(type);
  }

  /** Slots whose pages have been unmapped are free once their I/O has ended. */
  #findTransit(
    type: number,
  ): { vma: VmArea; index: number; slot: number } | null {
    for (const [slot, { vma, index }] of this.#transit) {
      if (typeOf(slot) === type) return { vma, index, slot };
    }
    return null;
  }

  #poison(vma: VmArea, index: number, slot: number): void {
    if (vma.table.get(index) !== swapPte(slot)) return;
    vma.table.set(index, 1, PTE_POISONED);
    this.#release(slot);
  }

  /** Nobody will ask for what is in a slot any more (kernel: `swap_free`). */
  free(slot: number): void {
    const transit = this.#transit.get(slot);
    if (transit === undefined) this.#release(slot);
    else transit.freed = true;
  }

  #release(slot: number): void {
    this.#info[typeOf(slot)]!.free(offsetOf(slot));
  }

  #alloc(): number {
    for (const [type, sis] of this.#info.entries()) {
      const offset = sis === null ? 0 : sis.alloc();
      if (offset > 0) return type * MAX_SWAP_PAGES + offset;
    }
    return 0;
  }

  /**
   * Swaps a page of a private mapping out (kernel: `add_to_swap`, `try_to_unmap`,
   * `swap_writeout`).
   *
   * @param folio One of `anon`.
   * @returns Whether its memory is free now. It is not if there is no free slot,
   *   somebody has asked for the page meanwhile, or it could not be written.
   */
  swapOut(folio: Folio): MaybePromise<boolean> {
    if ((folio.flags & PG_BUSY) !== 0 || folio.refcount !== 1) return false;
    const slot = this.#alloc();
    if (slot === 0) return false;
    const vma = folio.private as VmArea;
    const transit = new Transit(folio, vma, folio.index);
    this.#transit.set(slot, transit);
    this.anon.delete(folio);
    folio.mapcount--;
    vma.table.set(folio.index, 1, swapPte(slot));
    folio.flags |= PG_WRITEBACK;
    this.#mm.nrWriteback++;
    const sis = this.#info[typeOf(slot)]!;
    const written = sis.io.write(folio, sis.blockOf(offsetOf(slot)));
    return andThen(written, (error) => this.#written(slot, transit, error));
  }

  #written(slot: number, transit: Transit, error: number): boolean {
    const { folio, vma, index } = transit;
    this.#transit.delete(slot);
    const back = !transit.freed && (transit.wanted || error < 0);
    if (back) {
      setPte(vma, index, folio, true);
      this.anon.add(folio);
    }
    if (back || transit.freed) this.#release(slot);
    folioEndWriteback(folio);
    if (!back) folioPut(folio);
    return !back;
  }

  /**
   * Brings a page of a private mapping back (kernel: `do_swap_page`). The caller looks
   * at the page table again: it may be gone, or have been brought back by another.
   *
   * @returns The page, with a reference that keeps it in memory until then; 0 if there
   *   is nothing to do; -ENOMEM; -EIO and other errnos of the device.
   */
  swapIn(
    vma: VmArea,
    index: number,
    slot: number,
  ): MaybePromise<Folio | number> {
    const transit = this.#transit.get(slot);
    if (transit !== undefined) return waitForTransit(transit);
    return andThen(allocFolioWait(this.#mm, 0), (folio) => {
      if (folio === null) return -ENOMEM;
      // Memory may have been waited for.
      const stale = vma.table.get(index) !== swapPte(slot);
      if (stale || this.#transit.has(slot)) {
        folioPut(folio);
        return 0;
      }
      return this.#read(vma, index, slot, folio);
    });
  }

  #read(
    vma: VmArea,
    index: number,
    slot: number,
    folio: Folio,
  ): MaybePromise<Folio | number> {
    const transit = new Transit(folio, vma, index);
    this.#transit.set(slot, transit);
    folio.flags |= PG_ANON;
    folio.index = index;
    folio.private = vma;
    const locked = folioLock(folio);
    const sis = this.#info[typeOf(slot)]!;
    const read = andThen(
      locked,
      () => sis.io.read(folio, sis.blockOf(offsetOf(slot))),
    );
    return andThen(read, (error) => {
      this.#transit.delete(slot);
      if (transit.freed) this.#release(slot);
      else if (error === 0) {
        folio.flags |= PG_UPTODATE;
        setPte(vma, index, folio, true);
        this.anon.add(folio);
        folioGet(folio);
        this.#release(slot);
      }
      folioUnlock(folio);
      if (error === 0) return folio;
      folioPut(folio);
      return error;
    });
  }

  /**
   * Swaps out pages that have not been used for a while (kernel: `shrink_folio_list`
   * over the anonymous list).
   *
   * @param wanted Pages; a cluster if absent.
   * @returns Pages of memory that are free now.
   */
  shrink(wanted: number = SWAP_CLUSTER): MaybePromise<number> {
    let freed = 0;
    const under: Promise<boolean>[] = [];
    for (const folio of this.#oldest(wanted)) {
      const out = this.swapOut(folio);
      if (out instanceof Promise) under.push(out);
      else if (out) freed++;
    }
    if (under.length === 0) return freed;
    return Promise.all(under).then((outs) =>
      freed + outs.filter((out) => out).length
    );
  }

  /** The pages that are next to go. Each used one gets a second chance, once. */
  #oldest(wanted: number): Folio[] {
    const victims: Folio[] = [];
    for (let left = 2 * this.anon.size; left > 0; left--) {
      const folio: Folio = this.anon.values().next().value!;
      this.anon.delete(folio);
      this.anon.add(folio);
      if ((folio.flags & PG_REFERENCED) !== 0) folio.flags &= ~PG_REFERENCED;
      else if (victims.push(folio) === wanted) break;
    }
    return victims;
  }
}

function waitForTransit(transit: Transit): MaybePromise<Folio> {
  const { folio } = transit;
  transit.wanted = true;
  folioGet(folio);
  const waited = folio.writeback
    ? folioWaitWriteback(folio)
    : folioWaitLocked(folio);
  return andThen(waited, () => folio);
}

function typeOf(slot: number): number {
  return Math.floor(slot / MAX_SWAP_PAGES);
}

function offsetOf(slot: number): number {
  return slot & (MAX_SWAP_PAGES - 1);
}
