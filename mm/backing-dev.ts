/**
 * What is dirty of one device, and the task that writes it back.
 *
 * The flusher runs when there is more dirty than the background limit, when reclaim
 * finds nothing clean, and every five seconds for what has been dirty for thirty. A
 * file gets a slice at a time, then it is the next one's turn.
 *
 * A synchronous caller cannot let the flusher run: it writes by itself, see
 * `balanceDirtyPagesRatelimited` and `allocFolioWait`.
 *
 * Kernel counterpart: fs/fs-writeback.c, mm/backing-dev.c,
 * include/linux/backing-dev-defs.h.
 *
 * @module
 */

import { type EventId, SEC } from "../lib/clock.ts";
import type { AddressSpace, WritebackControl } from "./address-space.ts";
import type { Errseq } from "./errseq.ts";
import type { Mm } from "./mm.ts";

/** How often the flusher looks for what is old (kernel: `dirty_writeback_interval`). */
const DIRTY_WRITEBACK_INTERVAL = 5 * SEC;
/** Age from which it is old (kernel: `dirty_expire_interval`). */
const DIRTY_EXPIRE_INTERVAL = 30 * SEC;
/** Pages of a slice (kernel: `MIN_WRITEBACK_PAGES`). */
const WRITEBACK_SLICE = 1024;

/** Writeback of one device (kernel: `struct bdi_writeback`). */
export class BdiWriteback {
  /** The memory that its files are cached in. */
  readonly mm: Mm;
  /** Mappings with dirty pages, the oldest first (kernel: `b_dirty`). */
  readonly dirty: Set<AddressSpace> = new Set();
  /** Those that the flusher has chosen (kernel: `b_io`, `b_more_io`). */
  readonly io: Set<AddressSpace> = new Set();
  /** Pages with the dirty flag. */
  nrDirty = 0;
  /** Pages being written back. */
  nrWriteback = 0;
  /** Last writeback error of its files, and who knows of it (kernel: `s_wb_err`). */
  wbErr: Errseq = 0;
  /** Whether the flusher is at work. */
  running = false;
  /** Everything is to be written (kernel: `WB_start_all`). */
  startAll = false;
  /** It is time to look for what is old. */
  checkOld = false;
  /** When that will be; 0 if nothing is dirty. */
  timer: EventId = 0;

  /** Nothing is dirty yet. */
  constructor(mm: Mm) {
    this.mm = mm;
  }

  /** Whether a mapping has dirty pages (kernel: `wb_has_dirty_io`). */
  get hasDirtyIo(): boolean {
    return this.dirty.size > 0 || this.io.size > 0;
  }
}

/** A mapping has its first dirty page (kernel: `__mark_inode_dirty`). */
export function wbMarkDirty(mapping: AddressSpace): void {
  const { wb } = mapping;
  const now = wb.mm.clock.now();
  mapping.dirtiedWhen = now;
  wb.dirty.add(mapping);
  wb.mm.bdis.add(wb);
  if (wb.timer === 0 && !wb.running) armTimer(wb, now);
}

/** A mapping has no dirty page left (kernel: `inode_io_list_del`). */
export function wbMarkClean(mapping: AddressSpace): void {
  const { wb } = mapping;
  if (!wb.dirty.delete(mapping)) wb.io.delete(mapping);
}

/** The mapping that has been dirty longest, or null. */
export function wbFirstDirty(wb: BdiWriteback): AddressSpace | null {
  for (const mapping of wb.io) return mapping;
  for (const mapping of wb.dirty) return mapping;
  return null;
}

/** Nothing is dirty any more, and nothing will be (kernel: `wb_shutdown`). */
export function wbShutdown(wb: BdiWriteback): void {
  const { mm } = wb;
  mm.bdis.delete(wb);
  if (wb.timer !== 0) mm.clock.cancel(wb.timer);
  wb.timer = 0;
}

function armTimer(wb: BdiWriteback, now: number): void {
  const due = now + DIRTY_WRITEBACK_INTERVAL;
  wb.timer = wb.mm.clock.atBackground(due, periodic, wb);
}

function periodic(wb: BdiWriteback): void {
  wb.timer = 0;
  if (!wb.hasDirtyIo) return;
  wb.checkOld = true;
  wbStartBackgroundWriteback(wb);
}

/** Has the flusher run, if it does not (kernel: `wb_start_background_writeback`). */
export function wbStartBackgroundWriteback(wb: BdiWriteback): void {
  if (wb.running) return;
  wb.running = true;
  const { clock } = wb.mm;
  // A task of its own, whoever has it run.
  clock.at(clock.now(), wbWorkfn, wb);
}

/** Reclaim finds nothing clean: all devices write all they have (kernel:
 * `wakeup_flusher_threads`). False if nothing is dirty. */
export function wakeupFlusherThreads(mm: Mm): boolean {
  let any = false;
  for (const wb of mm.bdis) {
    if (!wb.hasDirtyIo) continue;
    wb.startAll = true;
    wbStartBackgroundWriteback(wb);
    any = true;
  }
  return any;
}

/** Whether a flusher is at work. */
export function wbAnyRunning(mm: Mm): boolean {
  for (const wb of mm.bdis) if (wb.running) return true;
  return false;
}

/** The flusher (kernel: `wb_workfn`, `wb_do_writeback`). */
async function wbWorkfn(wb: BdiWriteback): Promise<void> {
  const { mm } = wb;
  // Never inside a synchronous call that runs the clock, where it could wait only
  // for itself.
  await mm.clock.sleep(0);
  do {
    if (wb.startAll) {
      wb.startAll = false;
      await wbWriteback(wb, 0, wb.nrDirty);
    }
    if (wb.checkOld) {
      wb.checkOld = false;
      await wbWriteback(wb, DIRTY_EXPIRE_INTERVAL, wb.nrDirty);
    }
    await wbWriteback(wb, 0, Infinity);
  } while (wb.startAll || wb.checkOld);
  wb.running = false;
  mm.throttled.wakeAll();
  mm.writebackEnded.wakeAll();
  if (wb.hasDirtyIo && wb.timer === 0) armTimer(wb, mm.clock.now());
}

/**
 * Writes back what has been dirty for a while (kernel: `wb_writeback`).
 *
 * @param age Nanoseconds.
 * @param pages How many; Infinity to stop at the background limit.
 */
async function wbWriteback(
  wb: BdiWriteback,
  age: number,
  pages: number,
): Promise<void> {
  const background = pages === Infinity;
  while (pages > 0 && (!background || wbOverBgThresh(wb))) {
    if (wb.io.size === 0) queueIo(wb, wb.mm.clock.now() - age);
    const wrote = await writebackSlice(wb);
    if (wrote === 0 && wb.io.size === 0) return;
    pages -= wrote;
  }
}

/** (kernel: `wb_over_bg_thresh`) */
function wbOverBgThresh({ mm }: BdiWriteback): boolean {
  return mm.nrDirty > mm.backgroundThresh;
}

/** Chooses what became dirty no later than `deadline` (kernel: `queue_io`). */
function queueIo(wb: BdiWriteback, deadline: number): void {
  for (const mapping of wb.dirty) {
    if (mapping.dirtiedWhen > deadline) return;
    wb.dirty.delete(mapping);
    wb.io.add(mapping);
  }
}

/** Writes a slice of the first file that is chosen (kernel: `writeback_sb_inodes`).
 * @returns Pages written; 0 if there is none. */
async function writebackSlice(wb: BdiWriteback): Promise<number> {
  // A turn of its own, for the same reason as above.
  await wb.mm.clock.sleep(0);
  for (const mapping of wb.io) {
    const wbc = writebackControl(WRITEBACK_SLICE);
    wbc.rangeCyclic = true;
    const fromStart = mapping.writebackIndex === 0;
    await mapping.ops.writepages(mapping, wbc);
    requeueInode(mapping, wbc.nrToWrite <= 0 || !fromStart);
    return WRITEBACK_SLICE - wbc.nrToWrite;
  }
  return 0;
}

/** Where a file goes of which a slice has been written (kernel: `requeue_inode`).
 * @param more Whether there is more to it that has not been looked at. */
function requeueInode(mapping: AddressSpace, more: boolean): void {
  const { wb } = mapping;
  if (!wb.io.delete(mapping)) return;
  if (more) wb.io.add(mapping);
  else {
    // What is left has become dirty since, or could not be written now.
    mapping.dirtiedWhen = wb.mm.clock.now();
    wb.dirty.add(mapping);
  }
}

/** A request to write back what is easy of a file, from its beginning. */
export function writebackControl(pages: number): WritebackControl {
  return {
    syncAll: false,
    rangeStart: 0,
    rangeEnd: Infinity,
    nrToWrite: pages,
    taggedWritepages: false,
  };
}
