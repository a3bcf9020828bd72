/**
 * Metadata buffers: read, checked, changed in memory, sealed and written back.
 *
 * A read that misses waits in place: nothing of the file system's logic ever waits
 * half-way, so a transaction is one step for everybody else. Where a miss is likely
 * and can be had beforehand, {@linkcode BufTarg.readAhead} waits as all else does.
 *
 * Buffers need no reference counts: clean ones leave memory between transactions only
 * ({@linkcode BufTarg.shrink}).
 *
 * Kernel counterpart: fs/xfs/xfs_buf.c, xfs_buf_item.c.
 *
 * @module
 */

import { Bio, submitBio, submitBioWait } from "../../../block/bio.ts";
import {
  blkStatusToErrno,
  REQ_META,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_SYNC,
} from "../../../block/blk-types.ts";
import type { BlockDevice } from "../../../block/blkdev.ts";
import { crc32c } from "../../../lib/crc32c.ts";
import { EAGAIN, EFSCORRUPTED, EIO } from "../../../lib/errno.ts";
import { andThen, type MaybePromise } from "../../../lib/maybe-promise.ts";
import { Completion } from "../../../lib/wait.ts";
import { BBSIZE } from "./format.ts";

/** Bytes of a piece of a buffer that is logged (kernel: `XFS_BLF_CHUNK`). */
export const XFS_BLF_CHUNK = 128;
/** Clean metadata that stays in memory, bytes. */
const CACHE_BYTES = 64 * 2 ** 20;
/** Metadata that has changed and may stay so until somebody syncs, bytes. */
const DIRTY_BYTES = 64 * 2 ** 20;
/** Bytes of writes that are on their way at a time. */
const WRITE_WINDOW = 4 * 2 ** 20;

/** What kind of block a buffer holds, and how to check it (kernel: `struct
 * xfs_buf_ops`). */
export interface XfsBufOps {
  /** As in the kernel's messages: `xfs_agf`. */
  readonly name: string;
  /** Byte of the checksum, little-endian; -1 for blocks of inodes, each of which has
   * its own. */
  readonly crcOffset: number;
  /**
   * Looks at magic number, own address, UUID, owner where it is known, and bounds.
   * What it accepts can be walked without stepping outside the buffer.
   *
   * @returns null, or the check that failed with the value: "numrecs 400".
   */
  verify(bp: XfsBuf, targ: BufTarg): string | null;
}

/** One metadata buffer (kernel: `struct xfs_buf`). */
export class XfsBuf {
  /** First basic block on the device. */
  readonly daddr: number;
  /** Contents. */
  readonly data: Uint8Array;
  /** The same, for fields. */
  readonly view: DataView;
  /** Further pieces on the device, where a directory block is not in one: (daddr,
   * basic blocks) of each piece; null if it is in one. */
  readonly maps: number[] | null;
  /** Kind; null as long as nobody said. */
  ops: XfsBufOps | null = null;
  /** Its contents were read or set by somebody: it counts. */
  uptodate = false;
  /** It has to be written. */
  dirty = false;
  /** It is no longer metadata: its blocks were freed (kernel: `XBF_STALE`). */
  stale = false;
  /** The transaction that it is part of, or null. */
  trans: object | null = null;
  /** Pieces of `XFS_BLF_CHUNK` bytes that the transaction has changed, a bit each. */
  chunks: Uint32Array | null = null;

  /** The cache makes them. */
  constructor(daddr: number, bytes: number, maps: number[] | null) {
    this.daddr = daddr;
    this.data = new Uint8Array(bytes);
    this.view = new DataView(this.data.buffer);
    this.maps = maps;
  }

  /** Basic blocks. */
  get bbs(): number {
    return this.data.length / BBSIZE;
  }
}

/** Sets the checksum (kernel: `xfs_buf_update_cksum`). */
export function bufSeal(data: Uint8Array, at: number): void {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  view.setUint32(at, 0);
  view.setUint32(at, crc32c(data), true);
}

const NO_CRC = new Uint8Array(4);

/** Whether the checksum is right (kernel: `xfs_buf_verify_cksum`). */
export function bufCrcOk(data: Uint8Array, at: number): boolean {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  let crc = crc32c(data, 0, at);
  crc = crc32c(NO_CRC, 0, 4, crc);
  return view.getUint32(at, true) === crc32c(data, at + 4, data.length, crc);
}

/** Metadata of one device (kernel: `struct xfs_buftarg`). */
export class BufTarg {
  readonly bdev: BlockDevice;
  /** UUID that blocks bear. */
  uuid: Uint8Array = new Uint8Array(16);
  /** What a verifier needs to know; the mount itself. Set by mount. */
  mount: unknown = null;
  /** The file system is shut down: every read and write is -EIO. */
  dead = false;
  /** Called with every corruption found: logs it and shuts down. */
  onCorruption: (bp: XfsBuf, ops: XfsBufOps, why: string) => void = () => {};
  readonly #bufs = new Map<number, XfsBuf>();
  readonly #dirty = new Set<XfsBuf>();
  #bytes = 0;
  #dirtyBytes = 0;
  #reads = 0;
  /** In-place waits that are going on, one within the other. */
  #waiting = 0;
  #deferred: (() => void)[] = [];
  #writing: Promise<number> | null = null;

  constructor(bdev: BlockDevice) {
    this.bdev = bdev;
  }

  /** A buffer in memory, or null (kernel: `xfs_buf_incore`). */
  incore(daddr: number): XfsBuf | null {
    return this.#bufs.get(daddr) ?? null;
  }

  /**
   * A buffer whose contents do not matter yet (kernel: `xfs_buf_get`).
   *
   * @param daddr First basic block.
   * @param bbs Basic blocks of it.
   * @param maps (daddr, basic blocks) of its pieces, if it is in several.
   */
  get(daddr: number, bbs: number, maps: number[] | null = null): XfsBuf {
    const found = this.#bufs.get(daddr);
    if (found !== undefined) {
      if (found.bbs === bbs) return found;
      // Blocks of another kind lay there before, and were freed; or the image gives
      // them to two owners.
      const used = found.dirty || found.trans !== null;
      if (used) this.onCorruption(found, found.ops!, `not ${bbs} sectors`);
      this.#forget(found);
    }
    const bp = new XfsBuf(daddr, bbs * BBSIZE, maps);
    this.#bufs.set(daddr, bp);
    this.#bytes += bp.data.length;
    return bp;
  }

  /**
   * A buffer with its contents, checked (kernel: `xfs_buf_read`). A miss waits in
   * place.
   *
   * @returns It; -EFSCORRUPTED (after `onCorruption`), -EIO or the
   *   device's errno; -EAGAIN if the device answers only when another task has gone on.
   */
  read(
    daddr: number,
    bbs: number,
    ops: XfsBufOps,
    maps: number[] | null = null,
  ): XfsBuf | number {
    const found = this.#bufs.get(daddr);
    if (found !== undefined && found.uptodate && found.bbs === bbs) {
      if (found.ops === ops) return found;
      return this.#check(found, ops, false);
    }
    if (this.dead) return -EIO;
    const bp = this.get(daddr, bbs, maps);
    const error = this.#readInPlace(bp);
    if (error instanceof Promise) return -EAGAIN;
    if (error < 0) return this.#refuse(bp, error);
    return this.#check(bp, ops, true);
  }

  /** Brings a buffer into memory, waiting as all else does; the next
   * {@linkcode read} of it does not wait (kernel: `xfs_buf_readahead`). */
  readAhead(
    daddr: number,
    bbs: number,
    maps: number[] | null = null,
  ): MaybePromise<void> {
    const found = this.#bufs.get(daddr);
    if (this.dead || (found !== undefined && found.uptodate)) return;
    const bp = this.get(daddr, bbs, maps);
    return andThen(this.#readIn(bp), () => undefined);
  }

  /** Events run meanwhile, and what they call may be about to enter the file system:
   * see {@linkcode whenIdle}. */
  #readInPlace(bp: XfsBuf): MaybePromise<number> {
    const { clock } = this.bdev;
    clock.enterSync();
    this.#waiting++;
    try {
      return this.#readIn(bp);
    } finally {
      this.#waiting--;
      clock.leaveSync();
      if (this.#waiting === 0 && this.#deferred.length > 0) {
        clock.at(clock.now(), this.#runDeferred, undefined);
      }
    }
  }

  readonly #runDeferred = (): void => {
    for (const fn of this.#deferred.splice(0)) this.whenIdle(fn);
  };

  /**
   * Calls `fn` now, or soon if some operation is half-way, waiting in place for a
   * block. Whatever an event may call (completion of I/O, timers) enters the file
   * system through here: it must not see or change what is half done.
   */
  whenIdle(fn: () => void): void {
    if (this.#waiting > 0) this.#deferred.push(fn);
    else fn();
  }

  /** Whether some operation waits in place; see {@linkcode whenIdle}. */
  get busy(): boolean {
    return this.#waiting > 0;
  }

  /** Reads what is on the device; what was set meanwhile is newer. */
  #readIn(bp: XfsBuf): MaybePromise<number> {
    const data = new Uint8Array(bp.data.length);
    this.#reads++;
    return andThen(this.#readPieces(bp, data), (error) => {
      this.#reads--;
      if (error === 0 && !bp.uptodate && !bp.stale) {
        bp.data.set(data);
        bp.ops = null;
        bp.uptodate = true;
      }
      return error;
    });
  }

  #readPieces(bp: XfsBuf, data: Uint8Array): MaybePromise<number> {
    const bios = this.#bios(bp, data, REQ_OP_READ | REQ_META | REQ_SYNC);
    if (bios.length === 1) return submitBioWait(bios[0]!);
    return submitAll(this.bdev, bios);
  }

  #bios(bp: XfsBuf, data: Uint8Array, opf: number): Bio[] {
    const maps = bp.maps ?? [bp.daddr, bp.bbs];
    const bios: Bio[] = [];
    let at = 0;
    for (let i = 0; i < maps.length; i += 2) {
      const bio = new Bio(this.bdev, opf);
      const bytes = maps[i + 1]! * BBSIZE;
      bio.sector = maps[i]!;
      bio.addData(data, at, bytes);
      at += bytes;
      bios.push(bio);
    }
    return bios;
  }

  /** Checks contents against a kind; `fresh` from the device, so the checksum counts. */
  #check(bp: XfsBuf, ops: XfsBufOps, fresh: boolean): XfsBuf | number {
    const sealed = !fresh && bp.ops === null && !bp.dirty;
    if ((fresh || sealed) && ops.crcOffset >= 0) {
      if (!bufCrcOk(bp.data, ops.crcOffset)) {
        this.onCorruption(bp, ops, "checksum");
        return this.#refuse(bp, -EFSCORRUPTED);
      }
    }
    const why = ops.verify(bp, this);
    if (why !== null) {
      this.onCorruption(bp, ops, why);
      return this.#refuse(bp, -EFSCORRUPTED);
    }
    bp.ops = ops;
    return bp;
  }

  /** What was refused is read again by whoever asks next. */
  #refuse(bp: XfsBuf, error: number): number {
    if (!bp.dirty) this.#forget(bp);
    return error;
  }

  /** The buffer has to be written (kernel: `xfs_buf_delwri_queue`). */
  markDirty(bp: XfsBuf): void {
    if (!bp.dirty) this.#dirtyBytes += bp.data.length;
    bp.dirty = true;
    this.#dirty.add(bp);
  }

  /** Its blocks were freed: what it holds must not be written any more (kernel:
   * `xfs_buf_stale`). */
  markStale(bp: XfsBuf): void {
    bp.stale = true;
    this.#markClean(bp);
    this.#forget(bp);
  }

  #markClean(bp: XfsBuf): void {
    if (bp.dirty) this.#dirtyBytes -= bp.data.length;
    bp.dirty = false;
    this.#dirty.delete(bp);
  }

  /** Drops whatever is in memory of blocks that were freed. */
  invalidate(daddr: number, bbs: number): void {
    for (let at = daddr; at < daddr + bbs; at++) {
      const bp = this.#bufs.get(at);
      if (bp !== undefined && bp.trans === null) this.markStale(bp);
    }
  }

  #forget(bp: XfsBuf): void {
    if (this.#bufs.get(bp.daddr) !== bp) return;
    this.#bufs.delete(bp.daddr);
    this.#bytes -= bp.data.length;
  }

  /** Drops clean buffers, the least recently made first, if there are too many. Only
   * between transactions, when nobody holds one. */
  shrink(): void {
    const dirty = this.#dirtyBytes;
    if (this.#bytes - dirty <= CACHE_BYTES || this.#reads > 0) return;
    for (const bp of this.#bufs.values()) {
      if (this.#bytes - dirty <= CACHE_BYTES / 2) return;
      if (!bp.dirty && bp.trans === null) this.#forget(bp);
    }
  }

  /** Whether so much has to be written that it should not wait for a sync. */
  get crowded(): boolean {
    return this.#dirtyBytes > DIRTY_BYTES;
  }

  /** Whether anything has to be written. */
  get hasDirty(): boolean {
    return this.#dirty.size > 0;
  }

  /**
   * Seals and writes what is dirty now and waits (kernel: `xfs_buf_delwri_submit`).
   *
   * @returns 0, or the first negative errno: then what failed stays dirty. -EFSCORRUPTED
   *   if something about to be written fails its own checks: nothing of it is written.
   */
  flush(): MaybePromise<number> {
    // One at a time: the next must not overtake what is still being written.
    if (this.#writing !== null) {
      return this.#writing.then(() => this.flush());
    }
    const done = this.#flushNow();
    if (!(done instanceof Promise)) return done;
    this.#writing = done.finally(() => this.#writing = null);
    return this.#writing;
  }

  #flushNow(): MaybePromise<number> {
    if (this.dead) return -EIO;
    const list = [...this.#dirty].sort((a, b) => a.daddr - b.daddr);
    for (const bp of list) {
      const why = bp.ops === null ? "kind unknown" : bp.ops.verify(bp, this);
      if (why === null) continue;
      if (bp.ops !== null) this.onCorruption(bp, bp.ops, `on write: ${why}`);
      return -EFSCORRUPTED;
    }
    return this.#writeList(list, 0, 0);
  }

  #writeList(
    list: XfsBuf[],
    from: number,
    failed: number,
  ): MaybePromise<number> {
    if (from === list.length) return failed;
    const bios: Bio[] = [];
    const group: XfsBuf[] = [];
    let to = from;
    for (let bytes = 0; to < list.length && bytes < WRITE_WINDOW; to++) {
      const bp = list[to]!;
      if (!bp.dirty) continue;
      this.#markClean(bp);
      if (bp.ops!.crcOffset >= 0) bufSeal(bp.data, bp.ops!.crcOffset);
      // A copy: the buffer may change while it is being written.
      const opf = REQ_OP_WRITE | REQ_META | REQ_SYNC;
      bios.push(...this.#bios(bp, bp.data.slice(), opf));
      group.push(bp);
      bytes += bp.data.length;
    }
    return andThen(submitAll(this.bdev, bios), (error) => {
      if (error < 0) {
        for (const bp of group) if (!bp.stale) this.markDirty(bp);
      }
      return this.#writeList(list, to, failed || error);
    });
  }
}

/** Submits bios together and waits for all; 0 or the first negative errno. */
function submitAll(bdev: BlockDevice, bios: Bio[]): MaybePromise<number> {
  if (bios.length === 0) return 0;
  const all = new Completion();
  let left = bios.length;
  let error = 0;
  for (const bio of bios) {
    bio.endIo = () => {
      error ||= blkStatusToErrno(bio.status);
      if (--left === 0) all.complete();
    };
    submitBio(bio);
  }
  return andThen(all.wait(bdev.clock), () => error);
}
