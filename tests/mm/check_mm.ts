/**
 * Counts a machine's memory again: every list, tag and counter has to say the same.
 */
import { assert, assertEquals } from "@std/assert";
import {
  type AddressSpace,
  PAGECACHE_TAG_DIRTY,
  PAGECACHE_TAG_WRITEBACK,
} from "../../mm/address-space.ts";
import type { BdiWriteback } from "../../mm/backing-dev.ts";
import { type Folio, folioNrPages, PG_ACTIVE } from "../../mm/folio.ts";
import { LRU_ACTIVE_FILE, LRU_INACTIVE_FILE } from "../../mm/lru.ts";
import type { Mm } from "../../mm/mm.ts";
import { INDEX_PRESENT, INDEX_SHADOW } from "../../mm/page-index.ts";

/** The cached folios of a file, in order. */
export function foliosOf(mapping: AddressSpace): Folio[] {
  const { pages, mm } = mapping;
  const folios: Folio[] = [];
  let index = pages.next(0, Infinity, INDEX_PRESENT);
  while (index >= 0) {
    const folio = mm.folios[pages.get(index)]!;
    folios.push(folio);
    index = pages.next(
      index + folioNrPages(folio),
      Infinity,
      INDEX_PRESENT,
    );
  }
  return folios;
}

/** The folios of a list, from its tail on. To rotate all of them changes nothing. */
function listed(mm: Mm, list: number): Set<Folio> {
  const folios = new Set<Folio>();
  for (;;) {
    const frame = mm.lru.tail(list);
    const folio = frame === 0 ? undefined : mm.folios[frame];
    if (folio === undefined || folios.has(folio)) return folios;
    folios.add(folio);
    mm.lru.rotate(folio);
  }
}

/** Pages of folios. */
function pagesOf(folios: Iterable<Folio>): number {
  let pages = 0;
  for (const folio of folios) pages += folioNrPages(folio);
  return pages;
}

function checkFolio(mapping: AddressSpace, folio: Folio): void {
  const { pages } = mapping;
  const { index, frame, order } = folio;
  assert(folio.mapping === mapping && folio.refcount > 0);
  assertEquals(index % 2 ** order, 0);
  for (let i = 0; i < 2 ** order; i++) {
    assertEquals(pages.get(index + i), frame);
  }
  const tagged = pages.hasTag(index, PAGECACHE_TAG_DIRTY);
  // Between its writer's lock and the start of the I/O it has the tag alone.
  assert(folio.dirty ? tagged : !tagged || folio.locked);
  assertEquals(
    pages.hasTag(index, PAGECACHE_TAG_WRITEBACK),
    folio.writeback,
  );
}

/** Counts one file. */
function checkMapping(mapping: AddressSpace): Folio[] {
  const { pages, wb } = mapping;
  const folios = foliosOf(mapping);
  for (const folio of folios) checkFolio(mapping, folio);
  assertEquals(mapping.nrPages, pagesOf(folios));
  assertEquals(mapping.nrDirty, pagesOf(folios.filter((f) => f.dirty)));
  assertEquals(
    wb.dirty.has(mapping) || wb.io.has(mapping),
    mapping.nrDirty > 0,
  );
  assert(!wb.dirty.has(mapping) || !wb.io.has(mapping));
  let shadows = 0;
  for (let at = pages.next(0, Infinity, INDEX_SHADOW); at >= 0;) {
    shadows++;
    assert(pages.get(at) < 0);
    at = pages.next(at + 1, Infinity, INDEX_SHADOW);
  }
  assertEquals(pages.nrShadows, shadows);
  return folios;
}

/**
 * Counts all of a memory again.
 *
 * @param mappings Everything that is cached in it.
 * @param slack Pages beyond the limit that are allowed.
 */
export function checkMm(
  mm: Mm,
  mappings: AddressSpace[],
  slack: number = Math.floor(mm.limit / 10),
): void {
  const all: Folio[] = [];
  for (const mapping of mappings) all.push(...checkMapping(mapping));
  const sum = (choose: (folio: Folio) => boolean) =>
    pagesOf(all.filter(choose));
  assertEquals(mm.nrDirty, sum((f) => f.dirty));
  assertEquals(mm.nrWriteback, sum((f) => f.writeback));
  const wbs = new Set<BdiWriteback>(mappings.map(({ wb }) => wb));
  for (const wb of wbs) {
    const ages = [...wb.dirty].map(({ dirtiedWhen }) => dirtiedWhen);
    assertEquals(ages, ages.toSorted((a, b) => a - b));
    const own = (f: Folio) => f.mapping!.wb === wb;
    assertEquals(wb.nrDirty, sum((f) => own(f) && f.dirty));
    assertEquals(wb.nrWriteback, sum((f) => own(f) && f.writeback));
  }
  for (const list of [LRU_INACTIVE_FILE, LRU_ACTIVE_FILE]) {
    const active = list === LRU_ACTIVE_FILE;
    const expected = all.filter((f) =>
      ((f.flags & PG_ACTIVE) !== 0) === active
    );
    const found = listed(mm, list);
    assertEquals([found.size, mm.lru.pages(list)], [
      expected.length,
      pagesOf(expected),
    ]);
    assert(expected.every((folio) => found.has(folio)));
  }
  // What has been taken out of a file lives on while somebody holds it.
  assert(mm.nrPages >= pagesOf(all));
  assert(mm.nrPages <= mm.limit + slack, `${mm.nrPages} of ${mm.limit}`);
}
