/**
 * What ties an inode to its cached folios.
 *
 * Kernel counterpart: include/linux/fs.h (`struct address_space`).
 *
 * @module
 */

import { ENOSPC } from "../lib/errno.ts";
import { Rwsem } from "../lib/locks.ts";
import type { MaybePromise } from "../lib/maybe-promise.ts";
import type { BdiWriteback } from "./backing-dev.ts";
import { type Errseq, errseqSet } from "./errseq.ts";
import type { Folio } from "./folio.ts";
import type { Mm } from "./mm.ts";
import { PageIndex } from "./page-index.ts";
import type { VmArea } from "./rmap.ts";

/** What the page cache has to know of an inode. */
export interface MappingHost {
  /** File size in bytes (kernel: `i_size`). */
  size: number;
  /** log2 of the block size. */
  readonly blkbits: number;
  /** Inode number, for messages. */
  readonly ino: number;
  /** Whether it is swap space, which nobody may store to (kernel: `IS_SWAPFILE`). */
  readonly isSwapfile: boolean;
  /** Called when a first folio becomes dirty (kernel: `__mark_inode_dirty(I_DIRTY_PAGES)`). */
  markDirtyPages(): void;
}

/** A window of folios to read, which the mapping's `readahead` takes from
 * (kernel: `struct readahead_control`). All are locked and in the cache. */
export interface ReadaheadControl {
  /** Where they are cached. */
  readonly mapping: AddressSpace;
  /** First byte not yet taken. */
  readonly pos: number;
  /** Bytes not yet taken. */
  readonly length: number;
  /** The next folio, or null at the end (kernel: `readahead_folio`); its
   * reference stays the page cache's. */
  nextFolio(): Folio | null;
}

/** How much to write back, and whether to wait (kernel: `struct writeback_control`). */
export interface WritebackControl {
  /** True: every dirty folio of the range, waiting where one is in flight
   * (`WB_SYNC_ALL`). False: what is easy, until `nrToWrite` is used up. */
  syncAll: boolean;
  /** First byte. */
  rangeStart: number;
  /** Last byte, inclusive. */
  rangeEnd: number;
  /** Instead of the range: from where the last such walk has stopped to the end of the
   * file, so that a part which is dirtied again and again does not keep the rest from
   * being written. */
  rangeCyclic?: boolean;
  /** Pages still to write when not `syncAll`; counted down. */
  nrToWrite: number;
  /** Tag first, so that pages dirtied meanwhile do not make it endless. */
  taggedWritepages: boolean;
}

/** A file system's page cache methods (kernel: `struct address_space_operations`).
 * All return 0 or a negative errno unless they say otherwise. */
export interface AddressSpaceOperations {
  /** Fills a locked folio; it is unlocked when that is done (maybe later). */
  readFolio(folio: Folio): MaybePromise<number>;
  /** Starts to read a window; errors show up when the folio is used. */
  readahead(rac: ReadaheadControl): MaybePromise<void>;
  /** Writes dirty folios of a range. */
  writepages(
    mapping: AddressSpace,
    wbc: WritebackControl,
  ): MaybePromise<number>;
  /** Marks a folio dirty. True if it was clean. */
  dirtyFolio(mapping: AddressSpace, folio: Folio): boolean;
  /** Drops `folio.private`. False if it must stay. */
  releaseFolio(folio: Folio): boolean;
  /** Part or all of a folio goes away. */
  invalidateFolio(folio: Folio, offset: number, len: number): void;
  /** Whether bytes of a folio that is not uptodate are valid all the same. */
  isPartiallyUptodate(folio: Folio, from: number, count: number): boolean;
  /** Block of the device that holds a block of the file, in blocks of the file
   * system; 0 if none does. */
  bmap?(mapping: AddressSpace, block: number): MaybePromise<number>;
}

/** Tags of the index. */
export const PAGECACHE_TAG_DIRTY = 0;
/** Being written back. */
export const PAGECACHE_TAG_WRITEBACK = 1;
/** Chosen by the writeback that goes on now. */
export const PAGECACHE_TAG_TOWRITE = 2;

/** A writeback failed, of which nobody has been told (kernel: `AS_EIO`). */
export const AS_EIO = 1;
/** As {@linkcode AS_EIO}, for want of space (kernel: `AS_ENOSPC`). */
export const AS_ENOSPC = 2;

/** The cached folios of one inode (kernel: `struct address_space`). */
export class AddressSpace {
  /** The inode. */
  readonly host: MappingHost;
  /** Memory that the folios are taken from. */
  readonly mm: Mm;
  /** Where its dirty pages go. */
  readonly wb: BdiWriteback;
  /** The file system's methods. */
  readonly ops: AddressSpaceOperations;
  /** Shared to insert folios, exclusive to remove ranges. */
  readonly invalidateLock: Rwsem = new Rwsem("invalidate_lock");
  /** Smallest folio, log2 pages: a block larger than a page needs it. */
  minOrder = 0;
  /** Largest folio, log2 pages. */
  maxOrder = 0;
  /** Cached folios by page, with their tags (kernel: `i_pages`). */
  readonly pages: PageIndex;
  /** Memory mappings of it; null if there are none (kernel: `i_mmap`). */
  mmaps: Set<VmArea> | null = null;
  /** Pages cached. */
  nrPages = 0;
  /** Pages with the dirty flag. */
  nrDirty = 0;
  /** When the first of them became so, time of the clock (kernel: `dirtied_when`). */
  dirtiedWhen = 0;
  /** Page at which the next cyclic writeback begins (kernel: `writeback_index`). */
  writebackIndex = 0;
  /** `AS_*`. */
  flags = 0;
  /** Last writeback error, and who knows of it. */
  wbErr: Errseq = 0;

  /** Without any folios. */
  constructor(
    host: MappingHost,
    wb: BdiWriteback,
    ops: AddressSpaceOperations,
  ) {
    this.host = host;
    this.mm = wb.mm;
    this.wb = wb;
    this.ops = ops;
    this.pages = new PageIndex(wb.mm.shadowNodes);
  }
}

/** Records a writeback error for fsync and syncfs to report (kernel:
 * `mapping_set_error`).
 * @param error 0 is ignored; else a negative errno. */
export function mappingSetError(mapping: AddressSpace, error: number): void {
  if (error === 0) return;
  const { wb } = mapping;
  mapping.wbErr = errseqSet(mapping.wbErr, error);
  wb.wbErr = errseqSet(wb.wbErr, error);
  mapping.flags |= error === -ENOSPC ? AS_ENOSPC : AS_EIO;
}
