/**
 * Memory mappings: loads and stores through page tables, and the faults that fill
 * them.
 *
 * An access whose page is in the page table is a copy and no more. Where it is not,
 * or may not be stored to, `handleMmFault` sees to it, which may wait; then the
 * access looks again, as a processor does. Nothing that was found before a wait is
 * used after it; but what a fault has found stays in memory until the access has
 * looked, or two accesses could take each other's pages away for ever.
 *
 * Kernel counterpart: mm/memory.c, mm/filemap.c (`filemap_fault`).
 *
 * @module
 */

/*
 * Lock order, outermost first:
 *
 *   mapping.invalidateLock      shared: a page that is not cached or not valid, and
 *                               around page_mkwrite
 *     folio lock                while an entry of the page table is made
 *       fs mapping lock         inside page_mkwrite
 */

import { EAGAIN, EFAULT, EHWPOISON, ENOMEM } from "../lib/errno.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import type { AddressSpace } from "./address-space.ts";
import {
  FGP_CREAT,
  FGP_LOCK,
  filemapGetFolio,
  filemapLookup,
  filemapReadFolio,
} from "./filemap.ts";
import {
  type Folio,
  folioGet,
  folioLock,
  folioNextIndex,
  folioNrPages,
  folioPut,
  folioUnlock,
  PAGE_MASK,
  PAGE_SIZE,
  PG_ANON,
  PG_DROPBEHIND,
  PG_LOCKED,
  PG_READAHEAD,
  PG_REFERENCED,
  PG_UPTODATE,
} from "./folio.ts";
import {
  balanceDirtyPagesRatelimited,
  folioMarkDirty,
} from "./page-writeback.ts";
import { filemapNextFolio } from "./page-cache.ts";
import { INDEX_PRESENT } from "./page-index.ts";
import {
  pageCacheAsyncRa,
  pageCacheRaOrder,
  pageCacheSyncRa,
  Readahead,
} from "./readahead.ts";
import {
  PTE_POISONED,
  pteFolio,
  setPte,
  VM_RAND_READ,
  VM_SEQ_READ,
  VM_SHARED,
  type VmArea,
} from "./rmap.ts";
import { allocFolioWait } from "./vmscan.ts";

/** No memory. */
export const VM_FAULT_OOM = 0x1;
/** There is nothing to show: beyond the end of the file, or it cannot be read. */
export const VM_FAULT_SIGBUS = 0x2;
/** It had to be read from the device. */
export const VM_FAULT_MAJOR = 0x4;
/** The memory is lost. */
export const VM_FAULT_HWPOISON = 0x10;
/** As {@linkcode VM_FAULT_HWPOISON}, a large page. */
export const VM_FAULT_HWPOISON_LARGE = 0x20;
/** The access is not allowed. */
export const VM_FAULT_SIGSEGV = 0x40;
/** The page table has been seen to, or the access is to be tried again. */
export const VM_FAULT_NOPAGE = 0x100;
/** `vmf.folio` is locked. */
export const VM_FAULT_LOCKED = 0x200;
/** Do it all again. */
export const VM_FAULT_RETRY = 0x400;
/** Not with a large page. */
export const VM_FAULT_FALLBACK = 0x800;
/** The copy has been made. */
export const VM_FAULT_DONE_COW = 0x1000;
/** Metadata is to be made durable first. */
export const VM_FAULT_NEEDDSYNC = 0x2000;
/** Any of the codes that end an access. */
export const VM_FAULT_ERROR: number = VM_FAULT_OOM | VM_FAULT_SIGBUS |
  VM_FAULT_SIGSEGV | VM_FAULT_HWPOISON | VM_FAULT_HWPOISON_LARGE |
  VM_FAULT_FALLBACK;

/** The access is a store. */
export const FAULT_FLAG_WRITE = 0x1;
/** A page that is shown already is to be stored to. */
export const FAULT_FLAG_MKWRITE = 0x2;
/** The access has faulted before, and has not got on. */
export const FAULT_FLAG_TRIED = 0x20;

/** Fault code for what a file system answers in page_mkwrite (kernel:
 * `vmf_fs_error`). */
export function vmfFsError(error: number): number {
  if (error === 0) return VM_FAULT_LOCKED;
  if (error === -EFAULT || error === -EAGAIN) return VM_FAULT_NOPAGE;
  return error === -ENOMEM ? VM_FAULT_OOM : VM_FAULT_SIGBUS;
}

/** Fault code for an errno (kernel: `vmf_error`). */
export function vmfError(error: number): number {
  if (error === -ENOMEM) return VM_FAULT_OOM;
  return error === -EHWPOISON ? VM_FAULT_HWPOISON : VM_FAULT_SIGBUS;
}

/** One fault (kernel: `struct vm_fault`). */
export class VmFault {
  /** The mapping. */
  readonly vma: VmArea;
  /** Page of the file (kernel: `pgoff`). */
  readonly index: number;
  /** `FAULT_FLAG_*`. */
  flags: number;
  /** What `fault` has found and `pageMkwrite` is about, and in the end what is shown:
   * with a reference, until {@linkcode VmFault.release}. */
  folio: Folio | null = null;
  /** The entry of the page table when the fault began. */
  readonly origPte: number;

  /** A fault that has just happened. */
  constructor(vma: VmArea, index: number, write: boolean) {
    this.vma = vma;
    this.index = index;
    this.flags = write ? FAULT_FLAG_WRITE : 0;
    this.origPte = vma.table.get(index);
  }

  /** Whether the page table has not changed under the fault (kernel: `pte_same`). */
  get same(): boolean {
    const { vma, index, origPte } = this;
    return vma.mapped && vma.table.get(index) === origPte;
  }

  /** The access has looked: what was found may leave memory again. */
  release(): void {
    if (this.folio !== null) folioPut(this.folio);
    this.folio = null;
  }
}

/** What a file system does about faults (kernel: `struct vm_operations_struct`).
 * All return `VM_FAULT_*`. */
export interface VmOperations {
  /** Finds the page: `vmf.folio` valid, locked, with a reference, and
   * `VM_FAULT_LOCKED`; or a code that says why not. */
  fault(vmf: VmFault): MaybePromise<number>;
  /** Shows what is in memory of the pages [first, last] around the fault; does not
   * wait. `VM_FAULT_NOPAGE` if that was the page of the fault. */
  mapPages?(vmf: VmFault, first: number, last: number): number;
  /** A page that is clean is about to be stored to. `vmf.folio` is not locked.
   * `VM_FAULT_LOCKED` with it locked: it has been marked dirty, and what a store
   * needs is promised. */
  pageMkwrite(vmf: VmFault): MaybePromise<number>;
}

/** Bytes from which a copy is left to `set`; fewer are quicker one by one. */
const COPY_SET = 16;

/** Bytes at `pos` that one folio of the page table has, no more than `len`. The pages
 * behind the first count only if they are shown as it is. */
function runLength(vma: VmArea, pos: number, len: number, pte: number): number {
  let n = PAGE_SIZE - (pos & PAGE_MASK);
  let index = Math.floor(pos / PAGE_SIZE) + 1;
  while (n < len && vma.table.get(index) === pte) {
    n += PAGE_SIZE;
    index++;
  }
  return Math.min(n, len);
}

/**
 * Loads from a mapping as far as the page table goes. Does not wait.
 *
 * @param pos Byte in the file.
 * @param p Where the bytes go.
 * @param done Bytes of `p` that are there already.
 * @returns Bytes of `p` that are there now: `p.length`, or less at a page that is to
 *   be faulted in.
 */
export function vmaLoad(
  vma: VmArea,
  pos: number,
  p: Uint8Array,
  done: number,
): number {
  const { folios, views } = vma.mapping.mm;
  while (done < p.length) {
    const pte = vma.table.get(Math.floor(pos / PAGE_SIZE));
    if (pte <= 0) break;
    const folio = folios[pte >> 1]!;
    folio.flags |= PG_REFERENCED;
    const n = runLength(vma, pos, p.length - done, pte);
    const at = folio.offset + pos - folio.index * PAGE_SIZE;
    if (n < COPY_SET) {
      for (let i = 0; i < n; i++) p[done + i] = folio.data[at + i]!;
    } else p.set(views.get(folio, at, n), done);
    done += n;
    pos += n;
  }
  return done;
}

/**
 * Stores to a mapping as far as the page table allows it. Does not wait.
 *
 * @param pos Byte in the file.
 * @param p The bytes.
 * @param done Bytes of `p` that are stored already.
 * @returns Bytes of `p` that are stored now: `p.length`, or less at a page that is to
 *   be faulted in or made writable.
 */
export function vmaStore(
  vma: VmArea,
  pos: number,
  p: Uint8Array,
  done: number,
): number {
  const { folios } = vma.mapping.mm;
  while (done < p.length) {
    const pte = vma.table.get(Math.floor(pos / PAGE_SIZE));
    if (pte <= 0 || (pte & 1) === 0) break;
    const folio = folios[pte >> 1]!;
    folio.flags |= PG_REFERENCED;
    const n = runLength(vma, pos, p.length - done, pte);
    const at = folio.offset + pos - folio.index * PAGE_SIZE;
    if (n < COPY_SET) {
      for (let i = 0; i < n; i++) folio.data[at + i] = p[done + i]!;
    } else if (n === p.length) folio.data.set(p, at);
    else folio.data.set(p.subarray(done, done + n), at);
    done += n;
    pos += n;
  }
  return done;
}

/** Whether a page can be loaded from, or stored to, without a fault. */
export function vmaPresent(
  vma: VmArea,
  index: number,
  write: boolean,
): boolean {
  const pte = vma.table.get(index);
  return pte > 0 && (!write || (pte & 1) !== 0);
}

/**
 * Sees to a page that the page table does not show, or not to be stored to (kernel:
 * `handle_mm_fault`). The access looks again afterwards, and then releases the fault.
 *
 * @param vmf A fault that has just happened, inside of the mapping; of a store only if
 *   the mapping allows it.
 * @returns `VM_FAULT_*`: one of `VM_FAULT_ERROR` ends the access.
 */
export function handleMmFault(vmf: VmFault): MaybePromise<number> {
  const { vma, origPte } = vmf;
  const write = (vmf.flags & FAULT_FLAG_WRITE) !== 0;
  if (origPte === PTE_POISONED) return VM_FAULT_HWPOISON;
  if (origPte < 0) return doSwapPage(vmf);
  if (origPte > 0) return write ? doWpPage(vmf) : 0;
  if (!write) return doReadFault(vmf);
  return (vma.flags & VM_SHARED) !== 0 ? doSharedFault(vmf) : doCowFault(vmf);
}

/** What a fault is about is another folio from now on, whose reference it gets. */
function setFolio(vmf: VmFault, folio: Folio): void {
  vmf.release();
  vmf.folio = folio;
}

/** The copy of a private page is in swap space (kernel: `do_swap_page`). */
function doSwapPage(vmf: VmFault): MaybePromise<number> {
  const { vma, index, origPte } = vmf;
  const back = vma.mapping.mm.swap.swapIn(vma, index, -origPte);
  return andThen(back, (got) => {
    if (typeof got === "number") return got < 0 ? vmfError(got) : 0;
    setFolio(vmf, got);
    return VM_FAULT_MAJOR;
  });
}

/** Pages around a fault that are shown with it (kernel: `fault_around_pages`). */
const FAULT_AROUND = 16;

/** Nothing is shown yet, and it is to be loaded from (kernel: `do_read_fault`). */
function doReadFault(vmf: VmFault): MaybePromise<number> {
  const { vma, index } = vmf;
  if (vma.ops.mapPages !== undefined) {
    const off = index - vma.first;
    const first = index - (off & (FAULT_AROUND - 1));
    const last = Math.min(first + FAULT_AROUND - 1, vma.last);
    const mapped = vma.ops.mapPages(vmf, first, last);
    // The access looks at once: nothing need be held for it.
    if (mapped !== 0) return mapped;
  }
  return andThen(vma.ops.fault(vmf), (code) => {
    if ((code & (VM_FAULT_ERROR | VM_FAULT_NOPAGE)) !== 0) return code;
    finishFault(vmf, false);
    folioUnlock(vmf.folio!);
    return code & ~VM_FAULT_LOCKED;
  });
}

/** Pages that one page table has. */
const PTRS_PER_PTE = 512;

/** Shows a folio, all of it if none of it is shown yet and all of it is inside of
 * mapping and file (kernel: `finish_fault`). */
function finishFault(vmf: VmFault, writable: boolean): void {
  const { vma, index } = vmf;
  const folio = vmf.folio!;
  if (!vmf.same) return;
  if (!showsWhole(vmf, folio)) return setPte(vma, index, folio, writable);
  const end = folioNextIndex(folio);
  for (let at = folio.index; at < end; at++) setPte(vma, at, folio, writable);
}

function showsWhole({ vma }: VmFault, folio: Folio): boolean {
  const last = folioNextIndex(folio) - 1;
  if (folio.order === 0 || folio.index < vma.first || last > vma.last) {
    return false;
  }
  // Beyond the end of the file there is nothing to be seen.
  if (last >= endIndex(vma.mapping)) return false;
  const off = folio.index - vma.first;
  const inTable = off & (PTRS_PER_PTE - 1);
  if (inTable + folioNrPages(folio) > PTRS_PER_PTE) return false;
  return vma.table.next(folio.index, last, INDEX_PRESENT) < 0;
}

/** Nothing is shown yet, and a copy is to be stored to (kernel: `do_cow_fault`). */
function doCowFault(vmf: VmFault): MaybePromise<number> {
  return andThen(newAnon(vmf), (copy) => {
    if (copy === null) return VM_FAULT_OOM;
    return andThen(vmf.vma.ops.fault(vmf), (code) => {
      if ((code & (VM_FAULT_ERROR | VM_FAULT_NOPAGE)) !== 0) {
        folioPut(copy);
        return code;
      }
      copyPage(vmf.folio!, copy);
      folioUnlock(vmf.folio!);
      enterAnon(vmf, copy);
      return code & ~VM_FAULT_LOCKED;
    });
  });
}

/** Memory for a page of a private mapping's own. */
function newAnon(vmf: VmFault): MaybePromise<Folio | null> {
  const { vma, index } = vmf;
  return andThen(allocFolioWait(vma.mapping.mm, 0), (folio) => {
    if (folio === null) return null;
    folio.index = index;
    folio.flags |= PG_ANON | PG_UPTODATE;
    folio.private = vma;
    return folio;
  });
}

function copyPage(from: Folio, to: Folio): void {
  const at = from.offset + (to.index - from.index) * PAGE_SIZE;
  to.data.set(from.data.subarray(at, at + PAGE_SIZE), to.offset);
}

/** Shows a copy, unless another access has been quicker. */
function enterAnon(vmf: VmFault, copy: Folio): void {
  const { vma, index, origPte } = vmf;
  setFolio(vmf, copy);
  if (!vmf.same) return;
  // The page table's own.
  folioGet(copy);
  if (origPte > 0) {
    pteFolio(vma, origPte).mapcount--;
    vma.table.clear(index, 1);
  }
  setPte(vma, index, copy, true);
  vma.mapping.mm.swap.anon.add(copy);
}

/** Nothing is shown yet, and the file is to be stored to (kernel: `do_shared_fault`). */
function doSharedFault(vmf: VmFault): MaybePromise<number> {
  return andThen(vmf.vma.ops.fault(vmf), (code) => {
    if ((code & (VM_FAULT_ERROR | VM_FAULT_NOPAGE)) !== 0) return code;
    folioUnlock(vmf.folio!);
    return doPageMkwrite(vmf, code & ~VM_FAULT_LOCKED);
  });
}

/** Something is shown that may not be stored to (kernel: `do_wp_page`). */
function doWpPage(vmf: VmFault): MaybePromise<number> {
  const { vma, origPte } = vmf;
  if ((origPte & 1) !== 0) return 0;
  const folio = pteFolio(vma, origPte);
  folioGet(folio);
  setFolio(vmf, folio);
  return (vma.flags & VM_SHARED) === 0
    ? wpPageCopy(vmf)
    : doPageMkwrite(vmf, 0);
}

/** (kernel: `wp_page_copy`) */
function wpPageCopy(vmf: VmFault): MaybePromise<number> {
  return andThen(newAnon(vmf), (copy) => {
    if (copy === null) return VM_FAULT_OOM;
    copyPage(vmf.folio!, copy);
    enterAnon(vmf, copy);
    return 0;
  });
}

/**
 * Has the file system know of a store, and allows it (kernel: `do_page_mkwrite`,
 * `finish_fault` or `wp_page_reuse`, `fault_dirty_shared_page`).
 *
 * @param found What the fault has been so far.
 */
function doPageMkwrite(vmf: VmFault, found: number): MaybePromise<number> {
  const { vma, index } = vmf;
  if (vma.mapping.host.isSwapfile) return VM_FAULT_SIGBUS;
  vmf.flags |= FAULT_FLAG_MKWRITE;
  return andThen(vma.ops.pageMkwrite(vmf), (code) => {
    if ((code & VM_FAULT_LOCKED) === 0) return code;
    const folio = vmf.folio!;
    const { mapping } = folio;
    if (vmf.origPte === 0) finishFault(vmf, true);
    else if (vmf.same) setPte(vma, index, folio, true);
    folioMarkDirty(folio);
    folioUnlock(folio);
    // Held up once, the store goes on: its own page may have been written back
    // meanwhile, and would be each time where it is above the limits alone.
    const tried = (vmf.flags & FAULT_FLAG_TRIED) !== 0;
    if (mapping === null || tried) return found;
    const paced = balanceDirtyPagesRatelimited(mapping, false);
    return andThen(paced, () => found);
  });
}

/** First page beyond the end of the file. */
function endIndex(mapping: AddressSpace): number {
  return Math.ceil(mapping.host.size / PAGE_SIZE);
}

/**
 * Finds the page of a fault in the page cache, or reads it (kernel: `filemap_fault`).
 * For `VmOperations.fault`.
 *
 * @returns `VM_FAULT_LOCKED`, with `VM_FAULT_MAJOR` if it was not cached;
 *   `VM_FAULT_SIGBUS` beyond the end of the file and where it cannot be read;
 *   `VM_FAULT_OOM`.
 */
export function filemapFault(vmf: VmFault): MaybePromise<number> {
  const { mapping } = vmf.vma;
  if (vmf.index >= endIndex(mapping)) return VM_FAULT_SIGBUS;
  const folio = filemapLookup(mapping, vmf.index);
  if (folio === null) {
    return andThen(
      doSyncMmapReadahead(vmf),
      () => faultFind(vmf, VM_FAULT_MAJOR),
    );
  }
  folioGet(folio);
  folio.flags &= ~PG_DROPBEHIND;
  return andThen(
    doAsyncMmapReadahead(vmf, folio),
    () => faultCached(vmf, folio),
  );
}

/** The folio is cached; the invalidate lock is needed only if it is not valid. */
function faultCached(vmf: VmFault, folio: Folio): MaybePromise<number> {
  if (!folio.uptodate) {
    folioPut(folio);
    return faultFind(vmf, 0);
  }
  return andThen(folioLock(folio), () => {
    const { mapping } = vmf.vma;
    if (folio.mapping === mapping && folio.uptodate) {
      return faultFound(vmf, folio, 0);
    }
    folioUnlock(folio);
    folioPut(folio);
    return faultFind(vmf, 0);
  });
}

/** Finds or makes the folio under the invalidate lock (`retry_find`). */
function faultFind(vmf: VmFault, major: number): MaybePromise<number> {
  const { invalidateLock } = vmf.vma.mapping;
  return andThen(
    invalidateLock.downRead(),
    () =>
      andThen(faultFindLocked(vmf, major), (code) => {
        invalidateLock.upRead();
        return code;
      }),
  );
}

function faultFindLocked(vmf: VmFault, major: number): MaybePromise<number> {
  const { mapping, ra } = vmf.vma;
  const got = filemapGetFolio(mapping, vmf.index, FGP_LOCK | FGP_CREAT, 0);
  return andThen(got, (folio) => {
    if (typeof folio === "number") return VM_FAULT_OOM;
    if (folio.uptodate) return faultFound(vmf, folio, major);
    // Nobody has read it yet, or an error has come between: read it alone.
    return andThen(filemapReadFolio(mapping, ra, folio), (error) => {
      folioPut(folio);
      return error < 0 ? VM_FAULT_SIGBUS : faultFindLocked(vmf, major);
    });
  });
}

/** The folio is locked and valid. The file may have been truncated before it was. */
function faultFound(vmf: VmFault, folio: Folio, major: number): number {
  if (vmf.index >= endIndex(vmf.vma.mapping)) {
    folioUnlock(folio);
    folioPut(folio);
    return VM_FAULT_SIGBUS;
  }
  setFolio(vmf, folio);
  return major | VM_FAULT_LOCKED;
}

/** Misses without hits after which a mapping is not read around any more (kernel:
 * `MMAP_LOTSAMISS`). */
const MMAP_LOTSAMISS = 100;

/** Reads around a page that is not cached (kernel: `do_sync_mmap_readahead`). */
function doSyncMmapReadahead(vmf: VmFault): MaybePromise<void> {
  const { vma, index } = vmf;
  const { mapping, ra } = vma;
  if ((vma.flags & VM_RAND_READ) !== 0 || ra.raPages === 0) return;
  const rac = new Readahead(mapping, ra, index, false);
  if ((vma.flags & VM_SEQ_READ) !== 0) {
    return withInvalidateLock(mapping, () => pageCacheSyncRa(rac, ra.raPages));
  }
  if (ra.mmapMiss < 10 * MMAP_LOTSAMISS) ra.mmapMiss++;
  if (ra.mmapMiss > MMAP_LOTSAMISS) return;
  ra.start = Math.max(0, index - Math.floor(ra.raPages / 2));
  ra.size = ra.raPages;
  ra.asyncSize = Math.floor(ra.raPages / 4);
  ra.order = 0;
  rac.index = ra.start;
  return withInvalidateLock(mapping, () => pageCacheRaOrder(rac));
}

/** Starts the next window at its mark (kernel: `do_async_mmap_readahead`). */
function doAsyncMmapReadahead(vmf: VmFault, folio: Folio): MaybePromise<void> {
  const { vma, index } = vmf;
  const { mapping, ra } = vma;
  if ((vma.flags & VM_RAND_READ) !== 0 || ra.raPages === 0) return;
  if (!folio.locked && ra.mmapMiss > 0) ra.mmapMiss--;
  if ((folio.flags & PG_READAHEAD) === 0) return;
  const rac = new Readahead(mapping, ra, index, false);
  return withInvalidateLock(
    mapping,
    () => pageCacheAsyncRa(rac, folio, ra.raPages),
  );
}

function withInvalidateLock(
  { invalidateLock }: AddressSpace,
  read: () => MaybePromise<void>,
): MaybePromise<void> {
  return andThen(
    invalidateLock.downRead(),
    () => andThen(read(), () => invalidateLock.upRead()),
  );
}

/** What a folio must be to be shown without a fault of its own, when masked. */
const AROUND = PG_UPTODATE | PG_LOCKED | PG_READAHEAD;

/**
 * Shows what is in memory around a fault (kernel: `filemap_map_pages`). For
 * `VmOperations.mapPages`.
 *
 * @param first Page of the file.
 * @param last Page of the file.
 * @returns `VM_FAULT_NOPAGE` if the page of the fault was among it, or 0.
 */
export function filemapMapPages(
  vmf: VmFault,
  first: number,
  last: number,
): number {
  const { vma } = vmf;
  const { mapping, table, ra } = vma;
  const end = Math.min(last + 1, endIndex(mapping));
  let mapped = 0;
  for (let index = first; index < end;) {
    const folio = filemapNextFolio(mapping, index, end - 1);
    if (folio === null) break;
    index = Math.max(index, folio.index);
    const folioEnd = Math.min(end, folio.index + (1 << folio.order));
    const showable = (folio.flags & AROUND) === PG_UPTODATE;
    for (; index < folioEnd; index++) {
      if (!showable || table.get(index) !== 0) continue;
      setPte(vma, index, folio, false);
      mapped++;
    }
  }
  // What is found in memory makes up for misses.
  ra.mmapMiss = Math.max(0, ra.mmapMiss - mapped);
  return table.get(vmf.index) > 0 ? VM_FAULT_NOPAGE : 0;
}
