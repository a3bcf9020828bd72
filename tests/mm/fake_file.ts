/**
 * A file over a plain array, with reads and writes that take the time a test gives
 * them and fail where it says.
 */
import { type Clock, VirtualClock } from "../../lib/clock.ts";
import { IovIter } from "../../lib/iov-iter.ts";
import { andThen, type MaybePromise, repeat } from "../../lib/maybe-promise.ts";
import {
  AddressSpace,
  type AddressSpaceOperations,
  type MappingHost,
  mappingSetError,
  type ReadaheadControl,
  type WritebackControl,
} from "../../mm/address-space.ts";
import { BdiWriteback } from "../../mm/backing-dev.ts";
import {
  FGP_WRITEBEGIN,
  filemapDirtyFolio,
  filemapGetFolio,
  type FilemapIocb,
  filemapRead,
  folioEndWriteback,
  folioMarkDirty,
  folioStartWriteback,
  writebackIter,
} from "../../mm/filemap.ts";
import {
  type Folio,
  folioEndRead,
  folioMarkUptodate,
  folioNrPages,
  folioPut,
  folioUnlock,
  PAGE_SIZE,
} from "../../mm/folio.ts";
import { Mm, type MmOptions } from "../../mm/mm.ts";
import { FileRaState } from "../../mm/readahead.ts";

/** A byte of the file that tells where it is. */
export function patternAt(pos: number): number {
  return (pos + Math.floor(pos / 251) + Math.floor(pos / PAGE_SIZE) * 7) & 255;
}

/** Bytes [pos, pos + len) of a file that nobody has written to. */
export function pattern(pos: number, len: number): Uint8Array {
  const bytes = new Uint8Array(len);
  for (let i = 0; i < len; i++) bytes[i] = patternAt(pos + i);
  return bytes;
}

export interface FakeOptions extends MmOptions {
  size?: number;
  maxOrder?: number;
  blkbits?: number;
  mm?: Mm;
  /** The device; one for all files of a memory if absent. */
  wb?: BdiWriteback;
}

const wbs = new WeakMap<Mm, BdiWriteback>();

function wbOf(mm: Mm): BdiWriteback {
  let wb = wbs.get(mm);
  if (wb === undefined) wbs.set(mm, wb = new BdiWriteback(mm));
  return wb;
}

export class FakeFile implements MappingHost, AddressSpaceOperations {
  size: number;
  readonly ino = 1;
  readonly isSwapfile = false;
  readonly blkbits: number;
  readonly mapping: AddressSpace;
  readonly clock: Clock;
  readonly disk: Uint8Array;
  /** Time that a read or a write takes; 0 is done in the call. */
  latency = 0;
  /** What was asked for, in order: "r 3" a folio, "a 0+32" a window, "w 8". */
  readonly log: string[] = [];
  /** Negative errno of reads, of the pages it is asked for. */
  readError: (index: number) => boolean = () => false;
  /** Negative errno of writes. */
  writeError = 0;
  /** Folios that a readahead takes at most. */
  takeAtMost = Infinity;
  /** Whether releaseFolio lets go. */
  releases = true;
  /** Parts that are valid in folios that are not uptodate. */
  partlyUptodate: (folio: Folio, from: number, count: number) => boolean = () =>
    false;
  /** [offset, length] of invalidateFolio calls. */
  readonly invalidated: [number, number][] = [];
  /** Calls of markDirtyPages. */
  dirtied = 0;
  /** Folios under writeback whose end a test brings about, if not null. */
  held: Folio[] | null = null;

  constructor(options: FakeOptions = {}) {
    this.size = options.size ?? 0;
    this.blkbits = options.blkbits ?? 12;
    const mm = options.mm ?? new Mm(new VirtualClock(), options);
    this.clock = mm.clock;
    this.mapping = new AddressSpace(this, options.wb ?? wbOf(mm), this);
    this.mapping.maxOrder = options.maxOrder ?? 0;
    this.disk = pattern(0, Math.ceil(this.size / PAGE_SIZE) * PAGE_SIZE);
  }

  get mm(): Mm {
    return this.mapping.mm;
  }

  markDirtyPages(): void {
    this.dirtied++;
  }

  readFolio(folio: Folio): number {
    this.log.push(`r ${folio.index}`);
    this.#read(folio);
    return 0;
  }

  readahead(rac: ReadaheadControl): void {
    this.log.push(`a ${rac.pos / PAGE_SIZE}+${rac.length / PAGE_SIZE}`);
    for (let taken = 0; taken < this.takeAtMost; taken++) {
      const folio = rac.nextFolio();
      if (folio === null) return;
      this.#read(folio);
    }
  }

  #read(folio: Folio): void {
    if (this.latency === 0) return this.#readDone(folio);
    const due = this.clock.now() + this.latency;
    this.clock.at(due, (f: Folio) => this.#readDone(f), folio);
  }

  #readDone(folio: Folio): void {
    const failed = this.readError(folio.index);
    const from = this.disk.subarray(folio.pos, folio.pos + folio.size);
    if (!failed) {
      folio.data.fill(0, folio.offset, folio.offset + folio.size);
      folio.data.set(from, folio.offset);
    }
    folioEndRead(folio, !failed);
  }

  writepages(
    mapping: AddressSpace,
    wbc: WritebackControl,
  ): MaybePromise<number> {
    const iter = writebackIter(mapping, wbc);
    const walked = repeat(() =>
      andThen(iter.next(0), (folio) => {
        if (folio === null) return false;
        this.#write(folio);
        return true;
      })
    );
    return andThen(walked, () => iter.error);
  }

  #write(folio: Folio): void {
    this.log.push(`w ${folio.index}`);
    folioStartWriteback(folio);
    const start = folio.offset;
    const end = start + Math.min(folio.size, this.disk.length - folio.pos);
    if (end > start) this.disk.set(folio.data.subarray(start, end), folio.pos);
    folioUnlock(folio);
    folioPut(folio);
    if (this.held !== null) this.held.push(folio);
    else if (this.latency === 0) this.writeDone(folio);
    else {
      const due = this.clock.now() + this.latency;
      this.clock.at(due, (f: Folio) => this.writeDone(f), folio);
    }
  }

  writeDone(folio: Folio): void {
    mappingSetError(this.mapping, this.writeError);
    folioEndWriteback(folio);
  }

  dirtyFolio(mapping: AddressSpace, folio: Folio): boolean {
    return filemapDirtyFolio(mapping, folio);
  }

  releaseFolio(folio: Folio): boolean {
    if (!this.releases || folio.dirty) return false;
    folio.private = null;
    return true;
  }

  invalidateFolio(folio: Folio, offset: number, len: number): void {
    this.invalidated.push([offset, len]);
    if (len === folio.size) folio.private = null;
  }

  isPartiallyUptodate(folio: Folio, from: number, count: number): boolean {
    return this.partlyUptodate(folio, from, count);
  }

  /** The pages that are cached: first page and number of each folio. */
  folios(): [number, number][] {
    const all: [number, number][] = [];
    for (let at = 0;;) {
      const index = this.mapping.pages.next(at, Infinity, 3);
      if (index < 0) return all;
      const folio = this.mm.folios[this.mapping.pages.get(index)]!;
      all.push([index, folioNrPages(folio)]);
      at = index + folioNrPages(folio);
    }
  }

  /** Writes whole folios into the cache: locked, filled, dirty, unlocked. */
  fill(first: number, pages: number, byte: number): MaybePromise<void> {
    let index = first;
    return repeat(() => {
      if (index >= first + pages) return false;
      const size = (first + pages - index) * PAGE_SIZE;
      const got = filemapGetFolio(this.mapping, index, FGP_WRITEBEGIN, size);
      return andThen(got, (folio) => {
        if (typeof folio === "number") throw new Error(`no folio: ${folio}`);
        folio.data.fill(byte, folio.offset, folio.offset + folio.size);
        folioMarkUptodate(folio);
        folioMarkDirty(folio);
        this.size = Math.max(this.size, folio.pos + folio.size);
        index = folio.index + folioNrPages(folio);
        folioUnlock(folio);
        folioPut(folio);
        return true;
      });
    });
  }

  /** A read of an open file. */
  open(flags = 0): Reader {
    return new Reader(this, flags);
  }
}

export class Reader implements FilemapIocb {
  pos = 0;
  flags: number;
  readonly file: FakeFile;
  readonly ra: FileRaState = new FileRaState();
  readonly buffer: Uint8Array = new Uint8Array(3 * 2 ** 20);

  constructor(file: FakeFile, flags: number) {
    this.file = file;
    this.flags = flags;
  }

  get mapping(): AddressSpace {
    return this.file.mapping;
  }

  read(pos: number, len: number): MaybePromise<number> {
    this.pos = pos;
    return filemapRead(this, new IovIter(this.buffer.subarray(0, len)));
  }
}
