/**
 * A device in memory that answers at once.
 *
 * @module
 */

import {
  BadLimit,
  type Bio,
  bioEndWith,
  BLK_FEAT_SYNCHRONOUS,
  BLK_STS_OK,
  blkValidateLimits,
  BlockDevice,
  type QueueLimits,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  reqOp,
} from "../../../../block/mod.ts";
import { VirtualClock } from "../../../../lib/clock.ts";

const CHUNK = 65536;

/** Bytes in pieces that exist once they are written. */
export class MemoryDevice extends BlockDevice {
  override readonly name = "mem0";
  override readonly clock: VirtualClock = new VirtualClock();
  override limits: QueueLimits;
  override readonly nrSectors: number;
  override readonly dev = { major: 1, minor: 0 };
  readonly #chunks = new Map<number, Uint8Array>();
  readonly #below: MemoryDevice | null;

  /** @param bytes Size.
   * @param contents First bytes of it, or a device whose contents it begins with; that
   *   one must not change any more. */
  constructor(
    bytes: number,
    contents: Uint8Array | MemoryDevice = new Uint8Array(0),
  ) {
    super();
    this.nrSectors = bytes / 512;
    const limits = blkValidateLimits({
      features: BLK_FEAT_SYNCHRONOUS,
      maxHwSectors: 0xffff_ffff,
      maxSegmentSize: 0xffff_ffff,
    });
    if (limits instanceof BadLimit) throw new Error(limits.field);
    this.limits = limits;
    this.#below = contents instanceof MemoryDevice ? contents : null;
    if (contents instanceof Uint8Array) this.poke(0, contents);
  }

  #chunk(index: number): Uint8Array | undefined {
    const own = this.#chunks.get(index);
    if (own !== undefined || this.#below === null) return own;
    return this.#below.#chunk(index);
  }

  override submit(bio: Bio): void {
    let at = bio.sector * 512;
    const op = reqOp(bio.opf);
    if (op === REQ_OP_WRITE_ZEROES) this.poke(at, new Uint8Array(bio.size));
    for (const { data, offset, len } of bio.vecs) {
      const piece = data.subarray(offset, offset + len);
      if (op === REQ_OP_WRITE) this.poke(at, piece);
      else if (op === REQ_OP_READ) this.peek(at, piece);
      at += len;
    }
    bioEndWith(bio, BLK_STS_OK);
  }

  /** Writes bytes. */
  poke(at: number, data: Uint8Array): void {
    for (let done = 0; done < data.length;) {
      const index = Math.floor((at + done) / CHUNK);
      const offset = (at + done) % CHUNK;
      const n = Math.min(CHUNK - offset, data.length - done);
      let chunk = this.#chunks.get(index);
      if (chunk === undefined) {
        chunk = this.#chunk(index)?.slice() ?? new Uint8Array(CHUNK);
        this.#chunks.set(index, chunk);
      }
      chunk.set(data.subarray(done, done + n), offset);
      done += n;
    }
  }

  /** Reads bytes. */
  peek(at: number, to: Uint8Array): void {
    for (let done = 0; done < to.length;) {
      const index = Math.floor((at + done) / CHUNK);
      const offset = (at + done) % CHUNK;
      const n = Math.min(CHUNK - offset, to.length - done);
      const chunk = this.#chunk(index);
      const part = to.subarray(done, done + n);
      if (chunk === undefined) part.fill(0);
      else part.set(chunk.subarray(offset, offset + n));
      done += n;
    }
  }
}
