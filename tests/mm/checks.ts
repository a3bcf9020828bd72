/**
 * What must hold of page cache and page tables when nothing is going on.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { SuperBlock } from "../../mod.ts";
import type { AddressSpace } from "../../mm/address-space.ts";
import {
  folioNextIndex,
  folioNrPages,
  PAGE_SIZE,
  PG_ANON,
} from "../../mm/folio.ts";
import { filemapLookup, filemapNextFolio } from "../../mm/page-cache.ts";
import { INDEX_PRESENT } from "../../mm/page-index.ts";
import { pteFolio, type VmArea } from "../../mm/rmap.ts";

/** Page tables show what is cached, nothing beyond the end of the file, and let nobody
 * store to what is clean. */
export function checkPageTables(sb: SuperBlock): void {
  for (const { mapping } of sb.inodes.values()) checkMapping(mapping);
}

function checkMapping(mapping: AddressSpace): void {
  let shown = 0;
  for (const vma of mapping.mmaps ?? []) shown += checkTable(vma);
  let counted = 0;
  let dirty = 0;
  for (let index = 0;;) {
    const folio = filemapNextFolio(mapping, index, Infinity);
    if (folio === null) break;
    counted += folio.mapcount;
    if (folio.dirty) dirty += folioNrPages(folio);
    index = folioNextIndex(folio);
  }
  assertEquals(counted, shown, "pages that page tables show");
  assertEquals(mapping.nrDirty, dirty, "dirty pages");
}

/** Checks one page table.
 * @returns Pages of the file that it shows. */
function checkTable(vma: VmArea): number {
  const { mapping, table, first, last } = vma;
  const end = Math.ceil(mapping.host.size / PAGE_SIZE);
  let shown = 0;
  let index = table.next(first, last, INDEX_PRESENT);
  for (; index >= 0; index = table.next(index + 1, last, INDEX_PRESENT)) {
    const pte = table.get(index);
    if (pte <= 0) continue;
    const folio = pteFolio(vma, pte);
    if ((folio.flags & PG_ANON) !== 0) continue;
    shown++;
    assert(index < end, `page ${index} is shown, the file ends at ${end}`);
    const cached = filemapLookup(mapping, index) === folio;
    assert(cached, `page ${index} is shown, and not cached`);
    assert(folio.uptodate, `page ${index} is shown, and not valid`);
    const may = (pte & 1) === 0 || folio.dirty;
    assert(may, `page ${index} may be stored to, and is clean`);
  }
  return shown;
}
