/**
 * Metadata blocks in memory, and the blobs that span several of them.
 *
 * A block stays here from its first use until it has been written; a sync forgets
 * the clean ones, as what they say lives on in inodes and groups.
 *
 * Kernel counterpart: fs/xfs/xfs_buf.c.
 *
 * @module
 */

import { Bio, submitBio, submitBioWait } from "../../block/bio.ts";
import {
  blkStatusToErrno,
  REQ_META,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_SYNC,
} from "../../block/blk-types.ts";
import type { BlockDevice } from "../../block/blkdev.ts";
import { crc32c } from "../../lib/crc32c.ts";
import { EFSCORRUPTED, EIO, ENOSPC } from "../../lib/errno.ts";
import { Mutex } from "../../lib/locks.ts";
import { andThen, type MaybePromise, repeat } from "../../lib/maybe-promise.ts";
import { Completion } from "../../lib/wait.ts";
import {
  type Allocation,
  allocVextent,
  freeExtent,
  reserveBlocks,
  unreserveBlocks,
} from "./alloc.ts";
import type { XfsMount } from "./mount.ts";
import {
  type BlobRef,
  decodeMap,
  emptyBlob,
  encodeMap,
  mapBytes,
  MAX_RUNS,
  type Run,
} from "./ondisk.ts";

/** Blocks of one write. */
const MAX_WRITE = 64;

/** Metadata blocks of one file system (kernel: `struct xfs_buftarg`). */
export class BufCache {
  readonly #bdev: BlockDevice;
  readonly #blockSize: number;
  readonly #blocks = new Map<number, Uint8Array>();
  readonly #dirty = new Set<number>();
  /** One flush at a time: the next must not forget what is still being written. */
  readonly #flushing = new Mutex("buffer flush");
  readonly #afterFlush: (() => void)[] = [];
  /** The device has gone: every read and write is -EIO. */
  dead = false;
  /** Reads that go on: what they bring must not be older than what was forgotten. */
  #reads = 0;

  /**
   * A cache with nothing in it.
   *
   * @param bdev Device.
   * @param blockSize Bytes of a block.
   */
  constructor(bdev: BlockDevice, blockSize: number) {
    this.#bdev = bdev;
    this.#blockSize = blockSize;
  }

  /**
   * Brings blocks into memory and has them used (kernel: `xfs_buf_read`).
   *
   * @param use Finds them with {@linkcode BufCache.get}. They may be gone when it has
   *   returned.
   * @returns What `use` answers, or a negative errno.
   */
  read<T>(
    fsbno: number,
    count: number,
    use: () => MaybePromise<T>,
  ): MaybePromise<T | number> {
    let first = 0;
    while (first < count && this.#blocks.has(fsbno + first)) first++;
    if (first === count) return use();
    if (this.dead) return -EIO;
    const bio = new Bio(this.#bdev, REQ_OP_READ | REQ_META | REQ_SYNC);
    const bytes = this.#blockSize;
    const data = new Uint8Array(count * bytes);
    bio.sector = fsbno * (bytes / 512);
    bio.addData(data, 0, data.length);
    this.#reads++;
    return andThen(submitBioWait(bio), (error) => {
      this.#reads--;
      if (error < 0) return error;
      for (let i = 0; i < count; i++) {
        // A block that is in memory may be newer than the device's.
        if (this.#blocks.has(fsbno + i)) continue;
        this.#blocks.set(fsbno + i, data.slice(i * bytes, (i + 1) * bytes));
      }
      return use();
    });
  }

  /** A block that has been read, or a new one of zeroes (kernel: `xfs_buf_get`). */
  get(fsbno: number): Uint8Array {
    let block = this.#blocks.get(fsbno);
    if (block === undefined) {
      block = new Uint8Array(this.#blockSize);
      this.#blocks.set(fsbno, block);
    }
    return block;
  }

  /** The block has to be written. */
  markDirty(fsbno: number): void {
    this.#dirty.add(fsbno);
  }

  /** Blocks are no longer metadata: what is in memory of them is dropped (kernel:
   * `xfs_trans_binval`). */
  forget(fsbno: number, count: number): void {
    for (let i = 0; i < count; i++) {
      this.#blocks.delete(fsbno + i);
      this.#dirty.delete(fsbno + i);
    }
  }

  /** Calls `fn` when nothing is being written: at once, or when the flush that goes on
   * has ended. */
  afterFlush(fn: () => void): void {
    if (this.#flushing.isLocked) this.#afterFlush.push(fn);
    else fn();
  }

  /**
   * Writes what is dirty and waits (kernel: `xfs_ail_push_all_sync`).
   *
   * @returns 0, or the first negative errno: then all of it stays dirty.
   */
  flush(): MaybePromise<number> {
    const flushed = andThen(this.#flushing.lock(), () => this.#flushLocked());
    return andThen(flushed, (error) => {
      for (const fn of this.#afterFlush.splice(0)) fn();
      this.#flushing.unlock();
      return error;
    });
  }

  #flushLocked(): MaybePromise<number> {
    if (this.dead) return -EIO;
    const blocks = [...this.#dirty].sort((a, b) => a - b);
    this.#dirty.clear();
    const writes = this.#writes(blocks);
    return andThen(submitAll(this.#bdev, writes), (error) => {
      if (error < 0) this.#redirty(blocks);
      if (this.#reads === 0) this.#forgetClean();
      return error;
    });
  }

  /** What was freed meanwhile is somebody else's by now. */
  #redirty(blocks: number[]): void {
    for (const b of blocks) if (this.#blocks.has(b)) this.#dirty.add(b);
  }

  #forgetClean(): void {
    for (const b of [...this.#blocks.keys()]) {
      if (!this.#dirty.has(b)) this.#blocks.delete(b);
    }
  }

  /** Neighbours share a bio. */
  #writes(blocks: number[]): Bio[] {
    const bios: Bio[] = [];
    let next = -1;
    for (const b of blocks) {
      let bio = bios.at(-1);
      if (bio === undefined || b !== next || bio.vecs.length === MAX_WRITE) {
        bio = new Bio(this.#bdev, REQ_OP_WRITE | REQ_META | REQ_SYNC);
        bio.sector = b * (this.#blockSize / 512);
        bios.push(bio);
      }
      // A copy: the block may change while it is being written.
      bio.addData(this.get(b).slice(), 0, this.#blockSize);
      next = b + 1;
    }
    return bios;
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

/** Gives a blob's blocks back. */
export function freeBlob(mp: XfsMount, blob: BlobRef): void {
  for (const { start, count } of blob.runs) freeMetadata(mp, start, count);
  if (blob.map !== null) freeBlob(mp, blob.map);
}

/** Frees metadata blocks. A flush may still be writing them: were they used again at
 * once, what is written to them now could come before that. */
export function freeMetadata(
  mp: XfsMount,
  fsbno: number,
  count: number,
): void {
  mp.bufs.forget(fsbno, count);
  mp.bufs.afterFlush(() => freeExtent(mp, fsbno, count));
}

/**
 * Allocates a blob's blocks; the contents come with {@linkcode fillBlob}.
 *
 * @param bytes Room.
 * @param near Block to be near.
 * @returns The blob, or -ENOSPC if free space is used up.
 */
export function allocBlob(
  mp: XfsMount,
  bytes: number,
  near: number,
): BlobRef | number {
  const blob = emptyBlob();
  const found: Allocation = { fsbno: near, count: 0 };
  let left = Math.ceil(bytes / mp.geo.blockSize);
  if (reserveBlocks(mp, left, true) < 0) return -ENOSPC;
  while (left > 0) {
    allocVextent(mp, found.fsbno + found.count, left, found);
    if (found.count === 0) {
      freeBlob(mp, blob);
      unreserveBlocks(mp, left);
      return -ENOSPC;
    }
    blob.runs.push({ start: found.fsbno, count: found.count });
    left -= found.count;
  }
  if (blob.runs.length > MAX_RUNS) {
    const map = allocBlob(mp, mapBytes(blob.runs.length), near);
    if (typeof map === "number") {
      freeBlob(mp, blob);
      return map;
    }
    blob.map = map;
  }
  return blob;
}

/** Puts the contents into a blob's blocks, which are written with the next flush. */
export function fillBlob(
  mp: XfsMount,
  blob: BlobRef,
  data: Uint8Array,
): void {
  const bytes = mp.geo.blockSize;
  let at = 0;
  for (const { start, count } of blob.runs) {
    for (let i = 0; i < count; i++, at += bytes) {
      const block = mp.bufs.get(start + i);
      block.fill(0);
      block.set(data.subarray(at, at + bytes));
      mp.bufs.markDirty(start + i);
    }
  }
  blob.length = data.length;
  blob.crc = crc32c(data);
  if (blob.map !== null) fillBlob(mp, blob.map, encodeMap(blob));
}

/**
 * Reads a blob and checks it, its maps first: from then on it knows its own runs.
 *
 * @returns Its bytes; -EFSCORRUPTED if the checksum does not match, or the device's
 *   errno.
 */
export function readBlob(
  mp: XfsMount,
  blob: BlobRef,
): MaybePromise<Uint8Array | number> {
  let blocks = 0;
  for (const { count } of blob.runs) blocks += count;
  const data = new Uint8Array(blocks * mp.geo.blockSize);
  return andThen(readRuns(mp, blob.runs, data), (error) => {
    if (error < 0) return error;
    const content = data.subarray(0, blob.length);
    if (crc32c(content) !== blob.crc) return -EFSCORRUPTED;
    if (blob.depth === 0) return content;
    if (decodeMap(content, blob, mp.geo) !== null) return -EFSCORRUPTED;
    return readBlob(mp, blob);
  });
}

/** Reads runs, one after the other, into `data`; 0 or a negative errno. */
function readRuns(
  mp: XfsMount,
  runs: Run[],
  data: Uint8Array,
): MaybePromise<number> {
  let next = 0;
  let at = 0;
  let error = 0;
  const copy = ({ start, count }: Run): number => {
    for (let i = 0; i < count; i++, at += mp.geo.blockSize) {
      data.set(mp.bufs.get(start + i), at);
    }
    return 0;
  };
  const read = repeat(() => {
    const run = runs[next++];
    if (run === undefined) return false;
    const done = mp.bufs.read(run.start, run.count, () => copy(run));
    return andThen(done, (ret) => {
      error = ret;
      return ret === 0;
    });
  });
  return andThen(read, () => error);
}
