/**
 * Mapping files into memory, and the mapping that users hold.
 *
 * A newcomer gets this wrong: a store is not a write. It does not make the file
 * longer, is not seen by direct I/O of others before it has been synced, and fails
 * with SIGBUS where a write would have failed with ENOSPC.
 *
 * Kernel counterpart: mm/mmap.c, mm/msync.c, mm/madvise.c, mm/filemap.c
 * (`generic_file_vm_ops`).
 *
 * @module
 */

import type { Clock } from "../lib/clock.ts";
import {
  EACCES,
  EAGAIN,
  EFAULT,
  EINVAL,
  ENODEV,
  ENOMEM,
  EOVERFLOW,
  ETXTBSY,
  FsError,
  show,
} from "../lib/errno.ts";
import { andThen, type MaybePromise, repeat } from "../lib/maybe-promise.ts";
import {
  type Folio,
  folioLock,
  folioUnlock,
  PAGE_MASK,
  PAGE_SIZE,
  PG_ANON,
} from "../mm/folio.ts";
import { folioMarkDirty } from "../mm/filemap.ts";
import { INDEX_PRESENT } from "../mm/page-index.ts";
import {
  FAULT_FLAG_TRIED,
  filemapFault,
  filemapMapPages,
  handleMmFault,
  VM_FAULT_ERROR,
  VM_FAULT_LOCKED,
  VM_FAULT_NOPAGE,
  VM_FAULT_OOM,
  vmaLoad,
  vmaPresent,
  vmaStore,
  VmFault,
  type VmOperations,
} from "../mm/mmap.ts";
import {
  pteFolio,
  VM_RAND_READ,
  VM_SEQ_READ,
  VM_SHARED,
  VM_WRITE,
  vmaLink,
  VmArea,
  vmaUnlink,
  zapRange,
} from "../mm/rmap.ts";
import { vfsFadvise } from "./fadvise.ts";
import {
  type File,
  FMODE_READ,
  FMODE_WRITE,
  type Inode,
  S_SWAPFILE,
} from "./fs.ts";
import { fileAccessed, fileUpdateTime } from "./inode.ts";
import { vfsFsyncRange } from "./sync.ts";
import {
  checkFlag,
  checkOffset,
  checkOptions,
  failure,
  runSync,
  type Syscall,
} from "./syscall.ts";

/**
 * Maps a range of a file (kernel: `do_mmap`).
 *
 * @param offset First byte, a multiple of the page size.
 * @param length Bytes; rounded up to pages. The range may go beyond the end of the
 *   file.
 * @param flags `VM_WRITE`, `VM_SHARED`.
 * @returns The mapping; -EINVAL for no bytes or an offset within a page; -EOVERFLOW
 *   beyond the largest file; -EACCES if the file is not open for what is asked;
 *   -ETXTBSY for a swap file that is to be stored to; -ENODEV if it cannot be mapped.
 */
export function vfsMmap(
  file: File,
  offset: number,
  length: number,
  flags: number,
): VmArea | number {
  const { inode } = file;
  if ((offset & PAGE_MASK) !== 0 || length === 0) return -EINVAL;
  const pages = Math.ceil(length / PAGE_SIZE);
  if (offset + pages * PAGE_SIZE > inode.sb.maxBytes) return -EOVERFLOW;
  const writer = (file.mode & FMODE_WRITE) !== 0;
  if ((flags & VM_SHARED) !== 0 && (flags & VM_WRITE) !== 0) {
    if (!writer) return -EACCES;
    if ((inode.flags & S_SWAPFILE) !== 0) return -ETXTBSY;
  }
  if ((file.mode & FMODE_READ) === 0) return -EACCES;
  if (inode.fop.mmap === undefined) return -ENODEV;
  const ops = inode.fop.mmap(file);
  if (typeof ops === "number") return ops;
  const first = offset / PAGE_SIZE;
  const last = first + pages - 1;
  // What can never be stored to needs nothing of what stores do.
  const kept = writer ? flags : flags & ~VM_SHARED;
  const vma = new VmArea(inode.mapping, file.ra, first, last, kept, ops);
  vmaLink(vma);
  return vma;
}

/**
 * The page of a fault is about to be stored to: times and dirt of a file whose
 * blocks need no preparation (kernel: `filemap_page_mkwrite`).
 *
 * @returns `VM_FAULT_LOCKED`; `VM_FAULT_NOPAGE` if the page has left the file.
 */
export function filemapPageMkwrite(vmf: VmFault): MaybePromise<number> {
  const folio = vmf.folio!;
  const { mapping } = vmf.vma;
  fileUpdateTime(mapping.host as Inode);
  return andThen(folioLock(folio), () => {
    if (folio.mapping === mapping) {
      folioMarkDirty(folio);
      return VM_FAULT_LOCKED;
    }
    folioUnlock(folio);
    return VM_FAULT_NOPAGE;
  });
}

/** Faults of a file that lives in the page cache (kernel: `generic_file_vm_ops`). */
export const genericFileVmOps: VmOperations = {
  fault: filemapFault,
  mapPages: filemapMapPages,
  pageMkwrite: filemapPageMkwrite,
};

/** `FileOperations.mmap` of such a file (kernel: `generic_file_mmap`). */
export function genericFileMmap(file: File): VmOperations {
  fileAccessed(file.inode);
  return genericFileVmOps;
}

/** Options of {@linkcode FsFile.mmap}, after mmap(2). */
export interface MmapOptions {
  /** First byte, a multiple of 4096; 0 if absent. */
  offset?: number;
  /** Bytes, which are rounded up to pages; to the end of the file if absent. */
  length?: number;
  /** Stores are allowed (PROT_WRITE). */
  write?: boolean;
  /** Stores go to a copy of the page that nobody else sees (MAP_PRIVATE). */
  private?: boolean;
}

/** What part of a mapping to sync, and how, after msync(2). */
export interface MsyncOptions {
  /** First byte of the mapping, a multiple of 4096; 0 if absent. */
  offset?: number;
  /** Bytes; to the end of the mapping if absent. */
  length?: number;
  /** Do not wait, which is to do nothing: writeback comes by itself (MS_ASYNC). */
  async?: boolean;
  /** Other mappings see what was stored, which they do anyway (MS_INVALIDATE). */
  invalidate?: boolean;
}

/**
 * Advice on a mapping, after madvise(2). `normal`, `random` and `sequential` are for
 * the whole of it and say how to read ahead. Of a range, `willneed` starts to read
 * it; `dontneed` forgets it, and with it what was stored to private pages; `pageout`
 * swaps private pages out; the last two fault it in, for loads or stores.
 */
export type MmapAdvice =
  | "normal"
  | "random"
  | "sequential"
  | "willneed"
  | "dontneed"
  | "pageout"
  | "populate-read"
  | "populate-write";

/**
 * An access to a mapping that a process would have got a signal for. `code` is
 * `"EFAULT"`, as of a system call that meets such memory; what lies before `offset`
 * has been loaded or stored.
 */
export class MemoryFault extends FsError {
  /** SIGBUS: there is nothing behind the page, as beyond the end of the file, or where
   * the device fails or is full. SIGSEGV: the mapping does not allow it. */
  readonly signal: "SIGBUS" | "SIGSEGV";
  /** Byte of the mapping. */
  readonly offset: number;

  /** An access of `call` at a byte of the mapping. */
  constructor(
    call: Syscall,
    signal: "SIGBUS" | "SIGSEGV",
    offset: number,
    why: string,
  ) {
    super(
      EFAULT,
      `Cannot ${call.task} "${call.path}": ${signal} at offset ${offset}, ${why}`,
      { syscall: call.name, path: call.path },
    );
    this.name = "MemoryFault";
    this.signal = signal;
    this.offset = offset;
  }
}

/** The copies of its own that a mapping shows. */
function anonFolios(vma: VmArea, first: number, last: number): Folio[] {
  const { table } = vma;
  const own: Folio[] = [];
  let index = table.next(first, last, INDEX_PRESENT);
  for (; index >= 0; index = table.next(index + 1, last, INDEX_PRESENT)) {
    const pte = table.get(index);
    const folio = pte > 0 ? pteFolio(vma, pte) : null;
    if (folio !== null && (folio.flags & PG_ANON) !== 0) own.push(folio);
  }
  return own;
}

/** Times that an access is tried whose faults change nothing, as where a file system
 * answers page_mkwrite with -EAGAIN. */
const MAX_TRIES = 1000;

/**
 * A mapping of a file. Offsets are bytes of the mapping; what is in memory is a copy
 * away, and what is not is faulted in.
 *
 * Every method has a synchronous twin, which throws EAGAIN where it would have to
 * wait for another task. The file stays open until the mapping is unmapped and its
 * calls have ended.
 */
export class MemoryMapping implements Disposable {
  readonly #file: File;
  readonly #vma: VmArea;
  readonly #clock: Clock;
  readonly #release: () => void;
  /** First byte of the file. */
  readonly #base: number;
  /** Calls that wait for something. */
  #inFlight = 0;
  /** Bytes: whole pages. */
  readonly length: number;

  /** Only a file makes them. @param release Called once it is unmapped and no call
   * goes on. */
  constructor(file: File, vma: VmArea, release: () => void) {
    this.#file = file;
    this.#vma = vma;
    this.#clock = file.inode.sb.bdev.clock;
    this.#release = release;
    this.#base = vma.first * PAGE_SIZE;
    this.length = (vma.last - vma.first + 1) * PAGE_SIZE;
  }

  /** The file's, as given to open. */
  get path(): string {
    return this.#file.path;
  }

  /**
   * Loads bytes: fills `p` from `offset` on.
   *
   * @throws MemoryFault SIGBUS beyond the page that holds the end of the file, and
   *   where it cannot be read; SIGSEGV beyond the mapping.
   * @throws FsError ENOMEM.
   */
  async load(offset: number, p: Uint8Array): Promise<void> {
    const pos = this.#enter(offset, p, false);
    const done = vmaLoad(this.#vma, pos, p, 0);
    if (done < p.length) await this.#rest(pos, p, done, false);
  }

  /** {@linkcode MemoryMapping.load}, synchronously. Where everything is in memory this
   * is a copy: nothing waits, and nothing is allocated. */
  loadSync(offset: number, p: Uint8Array): void {
    const pos = this.#enter(offset, p, false);
    const done = vmaLoad(this.#vma, pos, p, 0);
    if (done < p.length) this.#restSync(pos, p, done, false);
  }

  /**
   * Stores bytes: `p` goes to `offset` and what follows. The file does not grow.
   *
   * @throws MemoryFault SIGBUS beyond the page that holds the end of the file, and
   *   where there is no space or the device fails; SIGSEGV beyond the mapping and if
   *   it is not for stores.
   * @throws FsError ENOMEM.
   */
  async store(offset: number, p: Uint8Array): Promise<void> {
    const pos = this.#enter(offset, p, true);
    const done = vmaStore(this.#vma, pos, p, 0);
    if (done < p.length) await this.#rest(pos, p, done, true);
  }

  /** {@linkcode MemoryMapping.store}, synchronously; as cheap as
   * {@linkcode MemoryMapping.loadSync}. */
  storeSync(offset: number, p: Uint8Array): void {
    const pos = this.#enter(offset, p, true);
    const done = vmaStore(this.#vma, pos, p, 0);
    if (done < p.length) this.#restSync(pos, p, done, true);
  }

  /**
   * The memory itself, from `offset` to the end of its page. It is valid until the
   * caller waits, or calls anything else of this library: then the page may show
   * something else, and a store to it is not noticed.
   *
   * @param write To be stored to.
   * @throws As {@linkcode MemoryMapping.store}, and EAGAIN.
   */
  pageSync(offset: number, write = false): Uint8Array {
    const call = this.#call(write);
    const vma = this.#vma;
    const pos = this.#check(call, offset, 1, write);
    const index = Math.floor(pos / PAGE_SIZE);
    for (let n = 0; !vmaPresent(vma, index, write); n++) {
      this.#faultSync(pos, write, n);
    }
    const folio = pteFolio(vma, vma.table.get(index));
    const at = folio.offset + pos - folio.index * PAGE_SIZE;
    return folio.data.subarray(at, at + PAGE_SIZE - (pos & PAGE_MASK));
  }

  /**
   * Makes what was stored to a shared mapping durable (msync).
   *
   * @throws FsError EINVAL (an offset within a page), ENOMEM (beyond the mapping), and
   *   as {@linkcode FsFile.syncData}.
   */
  async sync(options: MsyncOptions = {}): Promise<void> {
    await this.#sync(options);
  }

  /** {@linkcode MemoryMapping.sync}, synchronously. */
  syncSync(options: MsyncOptions = {}): void {
    const call = this.#named("msync", "sync");
    runSync(this.#clock, call, () => this.#sync(options));
  }

  #sync(options: MsyncOptions): MaybePromise<void> {
    const call = this.#named("msync", "sync");
    checkOptions(call, options, ["offset", "length", "async", "invalidate"]);
    const later = checkFlag(call, "async", options.async);
    checkFlag(call, "invalidate", options.invalidate);
    const { start, end } = this.#range(call, options.offset, options.length);
    const { flags } = this.#vma;
    if (later || (flags & VM_SHARED) === 0 || start === end) return;
    const from = this.#base + start;
    const last = this.#base + end - 1;
    const synced = this.#hold(vfsFsyncRange(this.#file, from, last, true));
    return andThen(synced, (error) => {
      if (error < 0) throw failure(call, error);
    });
  }

  /**
   * Takes advice (madvise).
   *
   * @param offset First byte, a multiple of 4096.
   * @param length Bytes; to the end of the mapping if absent.
   * @throws FsError EINVAL (no such advice; an offset within a page; part of a mapping
   *   for advice on all of it), ENOMEM (beyond the mapping).
   * @throws MemoryFault Where a page cannot be populated.
   */
  async advise(
    advice: MmapAdvice,
    offset?: number,
    length?: number,
  ): Promise<void> {
    await this.#advise(advice, offset, length);
  }

  /** {@linkcode MemoryMapping.advise}, synchronously. */
  adviseSync(advice: MmapAdvice, offset?: number, length?: number): void {
    const call = this.#named("madvise", "advise on");
    runSync(this.#clock, call, () => this.#advise(advice, offset, length));
  }

  #advise(
    advice: MmapAdvice,
    offset?: number,
    length?: number,
  ): MaybePromise<void> {
    const call = this.#named("madvise", "advise on");
    const { start, end } = this.#range(call, offset, length);
    const vma = this.#vma;
    const first = vma.first + Math.floor(start / PAGE_SIZE);
    const last = vma.first + Math.ceil(end / PAGE_SIZE) - 1;
    switch (advice) {
      case "normal":
        return this.#readHint(call, 0, start, end);
      case "random":
        return this.#readHint(call, VM_RAND_READ, start, end);
      case "sequential":
        return this.#readHint(call, VM_SEQ_READ, start, end);
      case "willneed": {
        if (start === end) return;
        const pos = this.#base + start;
        const read = vfsFadvise(this.#file, pos, end - start, advice);
        return andThen(this.#hold(read), () => {});
      }
      case "dontneed":
        return zapRange(vma, first, last, true);
      case "pageout":
        return this.#pageOut(first, last);
      case "populate-read":
        return this.#populate(first, last, false);
      case "populate-write":
        return this.#populate(first, last, true);
      default:
        throw failure(call, EINVAL, `there is no advice ${show(advice)}`);
    }
  }

  #readHint(call: Syscall, hint: number, start: number, end: number): void {
    if (start > 0 || end < this.length) {
      throw failure(call, EINVAL, "it can be given for a whole mapping only");
    }
    this.#vma.flags = this.#vma.flags & ~(VM_RAND_READ | VM_SEQ_READ) | hint;
  }

  #pageOut(first: number, last: number): MaybePromise<void> {
    const { swap } = this.#vma.mapping.mm;
    const own = anonFolios(this.#vma, first, last);
    const outs = own.map((folio) => swap.swapOut(folio));
    if (outs.some((out) => out instanceof Promise)) {
      return Promise.all(outs).then(() => {});
    }
  }

  #populate(first: number, last: number, write: boolean): MaybePromise<void> {
    this.#check(this.#call(write), 0, 0, write);
    let index = first;
    let tries = 0;
    const missing = () => {
      while (index <= last && vmaPresent(this.#vma, index, write)) {
        index++;
        tries = 0;
      }
      return index <= last;
    };
    if (!missing()) return;
    return repeat(() => {
      const pos = index * PAGE_SIZE;
      const vmf = this.#vmFault(pos, write, tries++);
      return andThen(this.#fault(pos, write, vmf), () => {
        const more = missing();
        vmf.release();
        return more;
      });
    });
  }

  /** Takes the mapping away. What was stored to the file stays stored; what was stored
   * to private pages is lost. */
  unmap(): void {
    if (!this.#vma.mapped) {
      throw failure(this.#named("munmap", "unmap"), EINVAL, "it is unmapped");
    }
    vmaUnlink(this.#vma);
    if (this.#inFlight === 0) this.#release();
  }

  /** Keeps the file open until what a call waits for has ended. */
  #hold<T>(work: MaybePromise<T>): MaybePromise<T> {
    if (!(work instanceof Promise)) return work;
    this.#inFlight++;
    return work.finally(() => {
      if (--this.#inFlight === 0 && !this.#vma.mapped) this.#release();
    });
  }

  /** Unmaps it if it is mapped. */
  [Symbol.dispose](): void {
    if (this.#vma.mapped) this.unmap();
  }

  #named(name: string, task: string): Syscall {
    return { name, task, path: this.#file.path };
  }

  #call(write: boolean): Syscall {
    return write
      ? this.#named("store", "store to")
      : this.#named("load", "load from");
  }

  /** Begins an access.
   * @returns Its first byte in the file. */
  #enter(offset: number, p: Uint8Array, write: boolean): number {
    const inside = Number.isSafeInteger(offset) && offset >= 0 &&
      p instanceof Uint8Array && offset + p.length <= this.length;
    const allowed = !write || (this.#vma.flags & VM_WRITE) !== 0;
    if (inside && allowed && this.#vma.mapped) return this.#base + offset;
    const call = this.#call(write);
    if (!(p instanceof Uint8Array)) {
      throw failure(call, EFAULT, `buffer ${show(p)} is not a Uint8Array`);
    }
    return this.#check(call, offset, p.length, write);
  }

  /** Refuses an access that the mapping does not allow. */
  #check(call: Syscall, offset: number, len: number, write: boolean): number {
    checkOffset(call, "offset", offset);
    const segv = (at: number, why: string) =>
      new MemoryFault(call, "SIGSEGV", at, why);
    if (!this.#vma.mapped) throw segv(offset, "it is unmapped");
    if (write && (this.#vma.flags & VM_WRITE) === 0) {
      throw segv(offset, "the mapping is not for stores");
    }
    if (offset + len > this.length) {
      const at = Math.max(offset, this.length);
      throw segv(at, `the mapping ends at ${this.length}`);
    }
    return this.#base + offset;
  }

  /** A whole number of pages of the mapping, as system calls take it. */
  #range(
    call: Syscall,
    start = 0,
    length?: number,
  ): { start: number; end: number } {
    checkOffset(call, "offset", start);
    if ((start & PAGE_MASK) !== 0) {
      throw failure(call, EINVAL, `offset ${start} is not that of a page`);
    }
    const bytes = length ?? Math.max(0, this.length - start);
    checkOffset(call, "length", bytes);
    const end = start + Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
    if (!this.#vma.mapped || end > this.length) {
      throw failure(call, ENOMEM, `${start}+${bytes} is not mapped`);
    }
    return { start, end };
  }

  /** Goes on with an access that has met a page that is to be faulted in.
   * @param done Bytes of `p` that are moved already. */
  async #rest(
    pos: number,
    p: Uint8Array,
    done: number,
    write: boolean,
  ): Promise<void> {
    const move = write ? vmaStore : vmaLoad;
    for (let at = done, tries = 0; at < p.length;) {
      const vmf = this.#vmFault(pos + at, write, tries++);
      const faulted = this.#fault(pos + at, write, vmf);
      // Where nothing waits, nobody comes between.
      if (faulted instanceof Promise) await faulted;
      const now = move(this.#vma, pos + at, p, at);
      vmf.release();
      if (now > at) tries = 0;
      at = now;
    }
  }

  #restSync(pos: number, p: Uint8Array, done: number, write: boolean): void {
    const move = write ? vmaStore : vmaLoad;
    for (let at = done, tries = 0; at < p.length;) {
      this.#faultSync(pos + at, write, tries++);
      const now = move(this.#vma, pos + at, p, at);
      if (now > at) tries = 0;
      at = now;
    }
  }

  /** The fault of an access to a byte of the file.
   * @param tries Faults of this access since it last got on. */
  #vmFault(pos: number, write: boolean, tries: number): VmFault {
    const vma = this.#vma;
    if (!vma.mapped) this.#signal(pos, write, 0);
    if (tries > MAX_TRIES) {
      const why = "its page is never ready";
      throw failure(this.#call(write), EAGAIN, why);
    }
    const vmf = new VmFault(vma, Math.floor(pos / PAGE_SIZE), write);
    if (tries > 0) vmf.flags |= FAULT_FLAG_TRIED;
    return vmf;
  }

  /** Sees to a fault; who made it releases it unless it fails. */
  #fault(pos: number, write: boolean, vmf: VmFault): MaybePromise<void> {
    return andThen(this.#hold(handleMmFault(vmf)), (code) => {
      if ((code & VM_FAULT_ERROR) === 0) return;
      vmf.release();
      this.#signal(pos, write, code);
    });
  }

  #faultSync(pos: number, write: boolean, tries: number): void {
    const vmf = this.#vmFault(pos, write, tries);
    const fault = () => this.#fault(pos, write, vmf);
    runSync(this.#clock, this.#call(write), fault, () => vmf.release());
    vmf.release();
  }

  #signal(pos: number, write: boolean, code: number): never {
    const call = this.#call(write);
    const offset = pos - this.#base;
    if ((code & VM_FAULT_OOM) !== 0) throw failure(call, ENOMEM);
    if (!this.#vma.mapped) {
      throw new MemoryFault(call, "SIGSEGV", offset, "it is unmapped");
    }
    const beyond = pos - (pos & PAGE_MASK) >= this.#file.inode.size;
    const why = beyond
      ? `beyond the end of the file, which is ${this.#file.inode.size} bytes`
      : write
      ? "the file system cannot take a store there"
      : "it cannot be read";
    throw new MemoryFault(call, "SIGBUS", offset, why);
  }
}
