/**
 * A file system for tests: one inode, a sorted list of extents, an allocator that
 * only goes up; over a device that is an array.
 */
import { assertEquals } from "@std/assert";
import { type Bio, bioEndIo } from "../../block/bio.ts";
import { blkValidateLimits } from "../../block/blk-settings.ts";
import { blkStatusToErrno, reqOp, SECTOR_SIZE } from "../../block/blk-types.ts";
import {
  BLK_FEAT_FUA,
  BLK_FEAT_WRITE_CACHE,
  BlockDevice,
  type QueueLimits,
} from "../../block/blkdev.ts";
import { File, Inode, S_IFREG, SuperBlock } from "../../fs/fs.ts";
import { IOCB_WRITE, Kiocb } from "../../fs/kiocb.ts";
import {
  iomapDirtyFolio,
  iomapFileBufferedWrite,
  iomapInvalidateFolio,
  iomapIsPartiallyUptodate,
  iomapReadahead,
  iomapReadFolio,
  iomapReleaseFolio,
  iomapWritepages,
  iomapZeroRange,
} from "../../iomap/buffered-io.ts";
import {
  iomapAddToIoend,
  iomapFinishIoends,
  type IomapIoend,
  iomapIoendWritebackSubmit,
} from "../../iomap/ioend.ts";
import {
  type Iomap,
  IOMAP_DELALLOC,
  IOMAP_F_NEW,
  IOMAP_HOLE,
  IOMAP_MAPPED,
  IOMAP_NULL_ADDR,
  IOMAP_UNWRITTEN,
  IOMAP_WRITE,
  type IomapOps,
  type IomapWritebackOps,
  type IomapWriteOps,
  IomapWritepageCtx,
} from "../../iomap/iomap.ts";
import { setWarningHandler } from "../../lib/bug.ts";
import { type Clock, VirtualClock } from "../../lib/clock.ts";
import { IovIter } from "../../lib/iov-iter.ts";
import { setLogHandler } from "../../lib/printk.ts";
import {
  filemapLookup,
  filemapRead,
  filemapWriteAndWaitRange,
} from "../../mm/filemap.ts";
import type { Folio } from "../../mm/folio.ts";
import { Mm } from "../../mm/mm.ts";
import { invalidateInodePages2Range } from "../../mm/truncate.ts";

export const KiB = 1024;
export const MAX: number = Number.MAX_SAFE_INTEGER;

/** One bio as the device saw it. */
export interface Seen {
  op: number;
  opf: number;
  /** Device address, bytes. */
  addr: number;
  len: number;
}

/** A device over an array, that answers after `latency` ns or at once. */
export class TestDevice extends BlockDevice {
  readonly name = "test0";
  readonly dev = { major: 7, minor: 0 };
  limits: QueueLimits;
  readonly nrSectors: number;
  readonly data: Uint8Array;
  readonly seen: Seen[] = [];
  latency = 1000;
  /** Status for a bio, 0 for success. */
  fault: (bio: Bio) => number = () => 0;

  constructor(readonly clock: Clock, size: number) {
    super();
    this.data = new Uint8Array(size);
    this.nrSectors = size / SECTOR_SIZE;
    this.limits = blkValidateLimits({
      logicalBlockSize: 512,
      physicalBlockSize: 4096,
    }) as QueueLimits;
  }

  /** Gives it a volatile cache, and FUA. */
  setCache(cache: boolean, fua: boolean): void {
    const features = (cache ? BLK_FEAT_WRITE_CACHE : 0) |
      (fua ? BLK_FEAT_FUA : 0);
    this.limits = { ...this.limits, features };
  }

  submit(bio: Bio): void {
    const { opf, sector, size } = bio;
    const addr = sector * SECTOR_SIZE;
    this.seen.push({ op: reqOp(opf), opf, addr, len: size });
    if (this.latency === 0) this.#complete(bio);
    else {
      const due = this.clock.now() + this.latency;
      this.clock.at(due, (b: Bio) => this.#complete(b), bio);
    }
  }

  /** What was seen since the last call, as "R 4096+1024". */
  take(): string[] {
    const seen = this.seen.splice(0);
    return seen.map(({ op, addr, len }) => `${"RWF"[op]} ${addr}+${len}`);
  }

  #complete(bio: Bio): void {
    bio.status = this.fault(bio);
    if (bio.status === 0) this.#move(bio);
    bioEndIo(bio);
  }

  #move(bio: Bio): void {
    let at = bio.sector * SECTOR_SIZE;
    for (const { data, offset, len } of bio.vecs) {
      const memory = data.subarray(offset, offset + len);
      if (reqOp(bio.opf) === 0) memory.set(this.data.subarray(at, at + len));
      else this.data.set(memory, at);
      at += len;
    }
  }
}

/** One extent; between extents there are holes. */
export interface Extent {
  offset: number;
  length: number;
  type: number;
  addr: number;
  flags?: number;
}

/** [offset, length, type]; addresses are given out in order from 1 MiB on. */
export type Row = [number, number, number, number?];

export interface Options {
  /** log2 of the block size; 12. */
  blkbits?: number;
  /** i_size. */
  size?: number;
  rows?: Row[];
  /** Largest folio, log2 pages; 0. */
  maxOrder?: number;
  deviceSize?: number;
  /** Most bytes of folios. */
  memory?: number;
  /** What a write into a hole gets; DELALLOC. */
  allocate?: number;
}

/** A stack for one test. */
export class TestFs {
  readonly clock: Clock = new VirtualClock();
  readonly dev: TestDevice;
  readonly mm: Mm;
  readonly inode: Inode;
  readonly file: File;
  extents: Extent[] = [];
  nextAddr = 1024 * KiB;
  allocate: number;
  /** Calls of begin and end, as "begin 0+4096" and "end 0+4096 written 100". */
  calls: string[] = [];
  /** Wraps `ops.iomapBegin`; answers a negative errno instead of a mapping. */
  beginError: (pos: number, flags: number) => number = () => 0;
  /** Changes a mapping before it is returned. */
  tweak: (iomap: Iomap, srcmap: Iomap) => void = () => {};
  writeOps: IomapWriteOps | null = null;
  /** Completed ioends, "offset+size flags". */
  ioends: string[] = [];

  constructor(options: Options = {}) {
    this.dev = new TestDevice(this.clock, options.deviceSize ?? 8 * KiB * KiB);
    const { memory } = options;
    this.mm = new Mm(this.clock, memory === undefined ? {} : { memory });
    this.allocate = options.allocate ?? IOMAP_DELALLOC;
    const sb = new SuperBlock(this.dev, this.mm, {
      evictInode: () => {},
      syncFs: () => 0,
      putSuper: () => 0,
      statfs: () => ({
        blockSize: 4096,
        blocks: 0,
        blocksFree: 0,
        files: 0,
        filesFree: 0,
      }),
    });
    sb.blkbits = options.blkbits ?? 12;
    this.inode = new Inode(
      sb,
      5,
      S_IFREG,
      { setattr: () => 0 },
      {},
      {
        readFolio: (folio) => iomapReadFolio(folio, this.ops),
        readahead: (rac) => iomapReadahead(rac, this.ops),
        writepages: (_, wbc) =>
          iomapWritepages(
            new IomapWritepageCtx(this.inode, wbc, this.writebackOps),
          ),
        dirtyFolio: iomapDirtyFolio,
        releaseFolio: iomapReleaseFolio,
        invalidateFolio: iomapInvalidateFolio,
        isPartiallyUptodate: iomapIsPartiallyUptodate,
      },
    );
    this.inode.size = options.size ?? 0;
    this.inode.mapping.maxOrder = options.maxOrder ?? 0;
    this.file = new File(this.inode, "/test", 3, 0);
    for (const [offset, length, type, addr] of options.rows ?? []) {
      const at = addr ?? (hasAddr(type) ? this.alloc(length) : IOMAP_NULL_ADDR);
      this.extents.push({ offset, length, type, addr: at });
    }
  }

  alloc(length: number): number {
    const addr = this.nextAddr;
    this.nextAddr += length;
    return addr;
  }

  /** The extent that covers `pos`, or the hole around it. */
  lookup(pos: number): Extent {
    let start = 0;
    for (const e of this.extents) {
      if (pos < e.offset) {
        const length = e.offset - start;
        return { offset: start, length, type: IOMAP_HOLE, addr: -1 };
      }
      if (pos < e.offset + e.length) return e;
      start = e.offset + e.length;
    }
    const length = MAX - start;
    return { offset: start, length, type: IOMAP_HOLE, addr: -1 };
  }

  /** Puts an extent over whatever is there. */
  insert(extent: Extent): void {
    const end = extent.offset + extent.length;
    const rest: Extent[] = [];
    for (const e of this.extents) {
      const eEnd = e.offset + e.length;
      if (e.offset < extent.offset) {
        const length = Math.min(eEnd, extent.offset) - e.offset;
        rest.push({ ...e, length });
      }
      if (eEnd > end) {
        const skip = Math.max(0, end - e.offset);
        const addr = hasAddr(e.type) ? e.addr + skip : e.addr;
        rest.push({
          ...e,
          offset: e.offset + skip,
          length: eEnd - e.offset - skip,
          addr,
        });
      }
    }
    rest.push(extent);
    this.extents = rest.sort((a, b) => a.offset - b.offset);
  }

  readonly ops: IomapOps = {
    iomapBegin: (_inode, pos, length, flags, iomap, srcmap) => {
      this.calls.push(`begin ${pos}+${length}`);
      const error = this.beginError(pos, flags);
      if (error !== 0) return error;
      let extent = this.lookup(pos);
      if (extent.type === IOMAP_HOLE && (flags & IOMAP_WRITE) !== 0) {
        extent = this.#allocate(pos, length, extent);
        iomap.flags |= IOMAP_F_NEW;
      }
      this.fill(iomap, extent);
      this.tweak(iomap, srcmap);
      return 0;
    },
    iomapEnd: (_inode, pos, length, written) => {
      this.calls.push(`end ${pos}+${length} written ${written}`);
      return 0;
    },
  };

  #allocate(pos: number, length: number, hole: Extent): Extent {
    const bs = 1 << this.inode.blkbits;
    const offset = Math.floor(pos / bs) * bs;
    const end = Math.min(
      Math.ceil((pos + length) / bs) * bs,
      hole.offset + hole.length,
    );
    const type = this.allocate;
    const addr = hasAddr(type) ? this.alloc(end - offset) : IOMAP_NULL_ADDR;
    const extent = { offset, length: end - offset, type, addr };
    this.insert(extent);
    return extent;
  }

  fill(iomap: Iomap, extent: Extent): void {
    iomap.offset = extent.offset;
    iomap.length = extent.length;
    iomap.type = extent.type;
    iomap.addr = extent.addr;
    iomap.flags |= extent.flags ?? 0;
    iomap.bdev = this.dev;
  }

  readonly writebackOps: IomapWritebackOps = {
    writebackRange: (wpc, folio, pos, len, endPos) => {
      let extent = this.lookup(pos);
      if (extent.type === IOMAP_DELALLOC) {
        extent = {
          ...extent,
          type: IOMAP_MAPPED,
          addr: this.alloc(extent.length),
        };
        this.insert(extent);
      }
      wpc.iomap.flags = 0;
      this.fill(wpc.iomap, extent);
      return iomapAddToIoend(wpc, folio, pos, endPos, len);
    },
    writebackSubmit: (wpc, error) => {
      (wpc.wbCtx as IomapIoend).bio.endIo = this.#ioendDone;
      return iomapIoendWritebackSubmit(wpc, error);
    },
  };

  readonly #ioendDone = (bio: Bio): void => {
    const ioend = bio.private as IomapIoend;
    const { offset, size, flags } = ioend;
    this.ioends.push(`${offset}+${size} ${flags}`);
    if (bio.status === 0) {
      for (const e of this.extents.slice()) {
        if (e.type !== IOMAP_UNWRITTEN) continue;
        const start = Math.max(offset, e.offset);
        const bs = 1 << this.inode.blkbits;
        const blocksEnd = Math.ceil((offset + size) / bs) * bs;
        const end = Math.min(blocksEnd, e.offset + e.length);
        if (start >= end) continue;
        const addr = e.addr + start - e.offset;
        this.insert({
          offset: start,
          length: end - start,
          type: IOMAP_MAPPED,
          addr,
        });
      }
    }
    iomapFinishIoends(ioend, blkStatusToErrno(bio.status));
  };

  /** Fills the device's part of a MAPPED or UNWRITTEN extent: byte n of the file is `pattern(n)`. */
  fillDisk(): void {
    for (const { type, offset, length, addr } of this.extents) {
      if (!hasAddr(type)) continue;
      this.dev.data.set(pattern(offset, length), addr);
    }
  }

  iocb(pos: number, flags = 0): Kiocb {
    return new Kiocb(this.file, pos, flags);
  }

  async write(pos: number, data: Uint8Array, flags = 0): Promise<number> {
    const iocb = this.iocb(pos, flags | IOCB_WRITE);
    const from = new IovIter(data);
    return await this.writeIter(iocb, from);
  }

  async writeIter(iocb: Kiocb, from: IovIter): Promise<number> {
    return await iomapFileBufferedWrite(
      iocb,
      from,
      this.ops,
      this.writeOps,
      null,
    );
  }

  async read(pos: number, len: number): Promise<Uint8Array | number> {
    const buffer = new Uint8Array(len);
    const n = await filemapRead(this.iocb(pos), new IovIter(buffer));
    return n < 0 ? n : buffer.subarray(0, n);
  }

  async zero(
    pos: number,
    len: number,
  ): Promise<{ ret: number; didZero: boolean }> {
    const did = { value: false };
    const ret = await iomapZeroRange(
      this.inode,
      pos,
      len,
      did,
      this.ops,
      this.writeOps,
      null,
    );
    return { ret, didZero: did.value };
  }

  async flush(): Promise<number> {
    return await filemapWriteAndWaitRange(this.inode.mapping, 0, MAX);
  }

  /** Empties the cache, which must be clean. */
  async drop(): Promise<void> {
    assertEquals(
      await invalidateInodePages2Range(this.inode.mapping, 0, MAX),
      0,
    );
  }

  folio(index: number): Folio | null {
    return filemapLookup(this.inode.mapping, index);
  }

  /** What was called since the last time. */
  takeCalls(): string[] {
    return this.calls.splice(0);
  }
}

function hasAddr(type: number): boolean {
  return type === IOMAP_MAPPED || type === IOMAP_UNWRITTEN;
}

/** Bytes that differ from their neighbours and are never 0. */
export function pattern(offset: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (offset + i) % 251 + 1);
}

/** `length` times one byte. */
export function bytes(length: number, value = 0): Uint8Array {
  return new Uint8Array(length).fill(value);
}

/** Caller's memory of which only the first bytes can be read. */
export class FaultyIter extends IovIter {
  #left: number;

  constructor(readable: number, buffer: Uint8Array) {
    super(buffer);
    this.#left = readable;
  }

  override get readable(): boolean {
    return this.#left > 0 && super.readable;
  }

  override copyFrom(dst: Uint8Array, at: number, len: number): number {
    return super.copyFrom(dst, at, Math.min(len, this.#left));
  }

  override segment(
    max: number,
  ): { data: Uint8Array; offset: number; len: number } {
    return super.segment(Math.min(max, this.#left));
  }

  override advance(bytes: number): void {
    this.#left -= bytes;
    super.advance(bytes);
  }

  override revert(bytes: number): void {
    this.#left += bytes;
    super.revert(bytes);
  }
}

const warnings: string[] = [];
const lines: string[] = [];

/** Log lines of the test since the last call. */
export function takeLog(): string[] {
  return lines.splice(0);
}

/**
 * A test that fails if a warning is raised that it does not expect. What is logged,
 * {@linkcode takeLog} has.
 *
 * @param expected Part of a warning that may be raised: some warn only once.
 */
export function test(
  name: string,
  fn: () => void | Promise<void>,
  expected?: string,
): void {
  Deno.test(name, async () => {
    const oldWarning = setWarningHandler((message) => warnings.push(message));
    const oldLog = setLogHandler((line) => lines.push(line));
    try {
      await fn();
    } finally {
      setWarningHandler(oldWarning);
      setLogHandler(oldLog);
      lines.length = 0;
    }
    const raised = warnings.splice(0);
    const wrong = raised.filter((w) => !expected || !w.includes(expected));
    assertEquals(wrong, []);
  });
}
