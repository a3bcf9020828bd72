/**
 * One machine's memory: its page frames, the folios over them, and what is dirty.
 *
 * @module
 */

import type { Clock } from "../lib/clock.ts";
import { WaitQueue } from "../lib/wait.ts";
import type { BdiWriteback } from "./backing-dev.ts";
import { Folio, PAGE_SIZE } from "./folio.ts";
import { Lruvec } from "./lru.ts";
import { CHUNK_FRAMES, PageAllocator } from "./page-alloc.ts";
import { ShadowNodes } from "./page-index.ts";
import { PageViews } from "./page-views.ts";
import { SwapSpace } from "./swap.ts";

/** Bounds of a page cache. */
export interface MmOptions {
  /** Most bytes of folios; 1 GiB if absent. */
  memory?: number;
}

/** Share of memory from which dirty pages are written back in the background
 * (kernel: `vm.dirty_background_ratio`). */
const DIRTY_BACKGROUND_RATIO = 0.1;
/** Share at which writers have to wait (kernel: `vm.dirty_ratio`). */
const DIRTY_RATIO = 0.2;
/** What may be taken beyond the limit where nothing can be given up. */
const RESERVE_RATIO = 0.1;
/** Pages of memory for each leaf of the page indexes that is kept for its shadows
 * alone: they take 1 % of memory at most, and cover eight times as many pages as there
 * are. */
const PAGES_PER_SHADOW_NODE = 64;

/** Memory shared by the mounts of one stack. */
export class Mm {
  /** Told by every wait for a folio. */
  readonly clock: Clock;
  /** Most pages of folios; what cannot wait may go a tenth beyond. */
  readonly limit: number;
  /** Dirty pages above which the flusher writes back. */
  readonly backgroundThresh: number;
  /** Dirty pages, with those being written back, above which writers wait. */
  readonly dirtyThresh: number;
  /** Where writers that wait go on (kernel: `dirty_freerun_ceiling`). */
  readonly freerun: number;
  /** Folios by their first frame. An object is made once and recycled with its
   * memory: what is not in use has no references. */
  readonly folios: (Folio | undefined)[] = [];
  /** For copies out of them. */
  readonly views: PageViews = new PageViews();
  /** Pages with the dirty flag. */
  nrDirty = 0;
  /** Pages being written back. */
  nrWriteback = 0;
  /** Folios whose writeback has ended, ever (kernel: `NR_WRITTEN`). */
  nrWritten = 0;
  /** Devices with files that have been dirty (kernel: `bdi_list`). */
  readonly bdis: Set<BdiWriteback> = new Set();
  /** Woken whenever a folio's writeback ends, or a flusher's work. */
  readonly writebackEnded: WaitQueue = new WaitQueue();
  /** Writers that have made too much dirty: woken when it is less, or no flusher
   * sees to it any more. */
  readonly throttled: WaitQueue = new WaitQueue();
  /** Writers that wait there. */
  nrThrottled = 0;
  /** Cached folios by age of use. */
  readonly lru: Lruvec;
  /** Leaves of page indexes that hold shadows alone. */
  readonly shadowNodes: ShadowNodes;
  /** Whether reclaim is at work, which never waits: whatever is called meanwhile must
   * neither ask for memory nor write (kernel: `PF_MEMALLOC` of the task). */
  reclaiming = false;
  /** Where pages go that have no file. */
  readonly swap: SwapSpace = new SwapSpace(this);
  readonly #allocator: PageAllocator;
  readonly #reserve: number;

  /** Memory of which nothing is used yet. */
  constructor(clock: Clock, options: MmOptions = {}) {
    const pages = Math.floor((options.memory ?? 2 ** 30) / PAGE_SIZE);
    const chunks = Math.max(
      Math.ceil(pages / CHUNK_FRAMES),
      Math.floor(pages * (1 + RESERVE_RATIO) / CHUNK_FRAMES),
    );
    this.clock = clock;
    this.limit = pages;
    this.backgroundThresh = Math.floor(pages * DIRTY_BACKGROUND_RATIO);
    this.dirtyThresh = Math.floor(pages * DIRTY_RATIO);
    this.freerun = (this.backgroundThresh + this.dirtyThresh) >> 1;
    this.#reserve = Math.floor(pages * RESERVE_RATIO);
    this.#allocator = new PageAllocator(chunks);
    this.lru = new Lruvec(this.#allocator.next, this.#allocator.prev);
    this.shadowNodes = new ShadowNodes(
      Math.ceil(pages / PAGES_PER_SHADOW_NODE),
    );
  }

  /** Pages of folios in use. */
  get nrPages(): number {
    return this.#allocator.used;
  }

  /**
   * Takes free memory for a folio: not locked, one reference, contents unknown.
   * `allocFolio` of vmscan.ts makes room first.
   *
   * @param reserve Whether to go beyond the limit.
   * @returns Null if there is none.
   */
  newFolio(order: number, reserve: boolean): Folio | null {
    const bound = reserve ? this.limit + this.#reserve : this.limit;
    if (this.#allocator.used + (1 << order) > bound) return null;
    const frame = this.#allocator.alloc(order);
    if (frame === 0) return null;
    return this.folioAt(frame, order);
  }

  /** The folio object of memory that has just been taken, as new, with one reference. */
  folioAt(frame: number, order: number): Folio {
    while (this.folios.length <= frame) this.folios.push(undefined);
    const folio = this.folios[frame] ?? this.#makeFolio(frame);
    folio.order = order;
    folio.flags = 0;
    folio.private = null;
    folio.refcount = 1;
    folio.mapcount = 0;
    return folio;
  }

  /** Takes back the memory of a folio that nobody refers to. */
  freeFolio(folio: Folio): void {
    this.#allocator.free(folio.frame, folio.order);
  }

  #makeFolio(frame: number): Folio {
    const data = this.#allocator.slabOf(frame);
    const folio = new Folio(
      this,
      frame,
      data,
      this.#allocator.offsetOf(frame),
    );
    this.folios[frame] = folio;
    return folio;
  }
}
