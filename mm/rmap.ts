/**
 * Page tables of memory mappings, and the way back from a folio to them.
 *
 * A page table says for each page of a mapping which folio it shows, and whether
 * it may be stored to. It holds no reference to a page of the file: what leaves the
 * page cache leaves the page tables first. A copy of one's own (anonymous memory) is
 * held by the page table alone.
 *
 * A page of a file may be stored to only while its folio is dirty, so that the
 * first store after a writeback is noticed: writeback takes the permission away.
 *
 * Kernel counterpart: mm/rmap.c, mm/memory.c (`zap_page_range_single`,
 * `unmap_mapping_range`), include/linux/mm_types.h (`struct vm_area_struct`).
 *
 * @module
 */

import { bugOn } from "../lib/bug.ts";
import type { AddressSpace } from "./address-space.ts";
import {
  type Folio,
  folioNextIndex,
  folioPut,
  PG_ANON,
  PG_REFERENCED,
} from "./folio.ts";
import type { VmOperations } from "./mmap.ts";
import { INDEX_PRESENT, PageIndex } from "./page-index.ts";
import type { FileRaState } from "./readahead.ts";

/** Stores are allowed. */
export const VM_WRITE = 0x2;
/** Stores go to the file. */
export const VM_SHARED = 0x8;
/** Pages are used one after the other. */
export const VM_SEQ_READ = 0x8000;
/** Pages are used in no order: nothing is read ahead. */
export const VM_RAND_READ = 0x10000;

/*
 * An entry of a page table is a number: 0 for none; above 0 twice the first frame
 * of a folio, plus 1 if it may be stored to; below 0 what `PTE_POISONED` and
 * `swapPte` say.
 */

/** The copy that was here could not be read back from swap space. */
export const PTE_POISONED: number = -(2 ** 31);

/** The entry of a page that is in swap space. @param slot From 1 on. */
export function swapPte(slot: number): number {
  return -slot;
}

/** A mapping of a file into memory (kernel: `struct vm_area_struct`). */
export class VmArea {
  /** The file's page cache. */
  readonly mapping: AddressSpace;
  /** The open file's readahead state. */
  readonly ra: FileRaState;
  /** First page of the file (kernel: `vm_pgoff`). */
  readonly first: number;
  /** Last page of the file. */
  readonly last: number;
  /** `VM_*`. */
  flags: number;
  /** What the file system does about faults. */
  readonly ops: VmOperations;
  /** The page table, by page of the file. */
  readonly table: PageIndex = new PageIndex();
  /** False once it has been unmapped: then it gets no more entries. */
  mapped = true;

  /** {@linkcode vmaLink} lets the page cache know of it. */
  constructor(
    mapping: AddressSpace,
    ra: FileRaState,
    first: number,
    last: number,
    flags: number,
    ops: VmOperations,
  ) {
    this.mapping = mapping;
    this.ra = ra;
    this.first = first;
    this.last = last;
    this.flags = flags;
    this.ops = ops;
  }
}

/** Lets page cache and swap space know of a mapping (kernel: `vma_link`). */
export function vmaLink(vma: VmArea): void {
  const { mapping } = vma;
  mapping.mmaps ??= new Set();
  mapping.mmaps.add(vma);
  if ((vma.flags & VM_SHARED) === 0) mapping.mm.swap.areas.add(vma);
}

/** Takes a mapping away with all that it has of its own (kernel: `unmap_region`). */
export function vmaUnlink(vma: VmArea): void {
  const { mapping } = vma;
  vma.mapped = false;
  zapRange(vma, vma.first, vma.last, true);
  mapping.mmaps!.delete(vma);
  if (mapping.mmaps!.size === 0) mapping.mmaps = null;
  mapping.mm.swap.areas.delete(vma);
}

/** Lets a page of a mapping show a folio (kernel: `set_pte_at`, `folio_add_*_rmap`).
 * The page shows nothing yet, or the same folio. */
export function setPte(
  vma: VmArea,
  index: number,
  folio: Folio,
  writable: boolean,
): void {
  const { table } = vma;
  if (table.get(index) <= 0) folio.mapcount++;
  table.set(index, 1, 2 * folio.frame + (writable ? 1 : 0));
  folio.flags |= PG_REFERENCED;
}

/** The folio that an entry above 0 shows. */
export function pteFolio(vma: VmArea, pte: number): Folio {
  return vma.mapping.mm.folios[pte >> 1]!;
}

/** Empties the entry of one page.
 * @param own Also if it is a copy of the mapping's own, which is lost then. */
function zapPte(vma: VmArea, index: number, own: boolean): void {
  const { table, mapping } = vma;
  const pte = table.get(index);
  if (pte < 0) {
    if (!own) return;
    if (pte !== PTE_POISONED) mapping.mm.swap.free(-pte);
  } else {
    const folio = pteFolio(vma, pte);
    const anon = (folio.flags & PG_ANON) !== 0;
    if (anon && !own) return;
    folio.mapcount--;
    if (anon) {
      mapping.mm.swap.anon.delete(folio);
      folioPut(folio);
    }
  }
  table.clear(index, 1);
}

/**
 * Empties the entries of a range: the next access faults (kernel:
 * `zap_page_range_single`).
 *
 * @param first Page of the file.
 * @param last Last page of the file; may be Infinity.
 * @param own Whether copies of the mapping's own go, too; they are lost.
 */
export function zapRange(
  vma: VmArea,
  first: number,
  last: number,
  own: boolean,
): void {
  const { table } = vma;
  for (let at = first;;) {
    const index = table.next(at, last, INDEX_PRESENT);
    if (index < 0) return;
    zapPte(vma, index, own);
    at = index + 1;
  }
}

/**
 * Empties the entries of a range of a file's pages in all mappings (kernel:
 * `unmap_mapping_pages`).
 *
 * @param first First page.
 * @param last Last page; may be Infinity.
 * @param evenCows Whether copies of private mappings go, too: the range is beyond
 *   the end of the file.
 */
export function unmapMappingPages(
  mapping: AddressSpace,
  first: number,
  last: number,
  evenCows: boolean,
): void {
  if (mapping.mmaps === null || last < first) return;
  for (const vma of mapping.mmaps) zapRange(vma, first, last, evenCows);
}

/** Takes a folio of a file out of all page tables (kernel: `try_to_unmap`). */
export function folioUnmap(folio: Folio): void {
  if (folio.mapcount === 0) return;
  const last = folioNextIndex(folio) - 1;
  unmapMappingPages(folio.mapping!, folio.index, last, false);
  bugOn(folio.mapcount !== 0, "a folio is mapped where nobody knows of it");
}

/**
 * Takes away the permission to store to a folio: the next store is a fault, which
 * marks it dirty (kernel: `folio_mkclean`).
 *
 * @returns Entries that had the permission. As they have it only while the folio is
 *   dirty, what was stored has been noticed.
 */
export function folioMkclean(folio: Folio): number {
  if (folio.mapcount === 0) return 0;
  const last = folioNextIndex(folio) - 1;
  let cleaned = 0;
  for (const { table } of folio.mapping!.mmaps!) {
    let index = table.next(folio.index, last, INDEX_PRESENT);
    for (; index >= 0; index = table.next(index + 1, last, INDEX_PRESENT)) {
      const pte = table.get(index);
      // An odd entry may be a copy of a private mapping's own.
      if (pte !== 2 * folio.frame + 1) continue;
      table.set(index, 1, pte - 1);
      cleaned++;
    }
  }
  return cleaned;
}
