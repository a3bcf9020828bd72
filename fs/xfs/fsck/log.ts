/**
 * Checking the log: it ends in the record that an unmount leaves, and nothing waits
 * to be replayed.
 *
 * Every sector of the ring begins with the number of the turn in which it was written;
 * where that drops by one is the head.
 *
 * @module
 */

import { crc32c } from "../../../lib/crc32c.ts";
import { bytesEqual } from "../libxfs/bytes.ts";
import { BBSIZE } from "../libxfs/format.ts";
import * as L from "../libxfs/log-format.ts";
import { type FsckContext, viewOf } from "./context.ts";

/** Sectors that are looked at before the head for the last record: more than the
 * largest one has. */
const LOOK_BACK = 2 * 512 + 16;

/** Looks at the log, and tells the context where its head is. */
export class LogCheck {
  readonly #ctx: FsckContext;
  readonly #start: number;
  /** Sectors. */
  readonly #size: number;
  /** The block that was read last: sectors are read a block at a time. */
  #cache: Uint8Array | null = null;
  #cacheAt = -1;

  constructor(ctx: FsckContext) {
    this.#ctx = ctx;
    const { sb } = ctx;
    this.#start = sb.fsbToDaddr(sb.logstart);
    this.#size = sb.logblocks * sb.bbPerBlock;
  }

  /** Does it. */
  check(): void {
    const first = this.#cycle(0);
    const last = this.#cycle(this.#size - 1);
    if (first === null || last === null) return;
    if (first === 0) return this.#ctx.found("totally zeroed log");
    const head = this.#findHead(first, last);
    if (head === null) return;
    const cycle = head === this.#size ? first + 1 : first;
    this.#ctx.headCycle = cycle;
    this.#ctx.headBlock = head % this.#size;
    this.#checkRecord(head);
  }

  /** One sector of the log. */
  #sector(bb: number): DataView | null {
    const { bbPerBlock, blocksize } = this.#ctx.sb;
    const block = Math.floor(bb / bbPerBlock);
    if (block !== this.#cacheAt) {
      const at = (this.#start + block * bbPerBlock) * BBSIZE;
      this.#cache = this.#ctx.readBytes(at, blocksize, "log");
      this.#cacheAt = block;
    }
    if (this.#cache === null) return null;
    const from = bb % bbPerBlock * BBSIZE;
    return viewOf(this.#cache.subarray(from, from + BBSIZE));
  }

  /** The turn in which a sector was written (kernel: `xlog_get_cycle`). */
  #cycle(bb: number): number | null {
    const view = this.#sector(bb);
    if (view === null) return null;
    const word = view.getUint32(0);
    return word === L.XLOG_HEADER_MAGIC_NUM ? view.getUint32(L.H_CYCLE) : word;
  }

  /** First sector that was not written in the newest turn (kernel: `xlog_find_head`). */
  #findHead(first: number, last: number): number | null {
    if (last === first) return this.#size;
    if (last !== first - 1) {
      this.#ctx.found(
        `log inconsistent: its first cycle is ${first}, its last ${last}`,
      );
      return null;
    }
    let low = 0;
    let high = this.#size - 1;
    while (high - low > 1) {
      const mid = Math.floor((low + high) / 2);
      const cycle = this.#cycle(mid);
      if (cycle === null) return null;
      if (cycle === first) low = mid;
      else high = mid;
    }
    return high;
  }

  /** The record before the head says that the file system was unmounted. */
  #checkRecord(head: number): void {
    const at = this.#findRecord(head);
    if (at === null) {
      return this.#ctx.found(
        `cannot find the last record of the log, head ${head}`,
      );
    }
    const header = this.#sector(at % this.#size)!;
    const found = (why: string) =>
      this.#ctx.found(`log record at ${at % this.#size}: ${why}`);
    const version = header.getUint32(L.H_VERSION);
    const len = header.getUint32(L.H_LEN);
    const size = header.getUint32(L.H_SIZE);
    if (version !== L.XLOG_VERSION_2) return found(`version ${version}`);
    if (
      len > L.XLOG_MAX_RECORD_BSIZE || size > L.XLOG_MAX_RECORD_BSIZE ||
      len % BBSIZE !== 0
    ) {
      return found(`len ${len}, size ${size}`);
    }
    const bytes = new Uint8Array(
      header.buffer.slice(header.byteOffset, header.byteOffset + BBSIZE),
    );
    if (!bytesEqual(bytes, L.H_FS_UUID, this.#ctx.sb.uuid, 0, 16)) {
      return found("mismatched uuid in log");
    }
    const headers = Math.max(1, Math.ceil(size / L.XLOG_HEADER_CYCLE_SIZE));
    const end = at + headers + len / BBSIZE;
    const op = this.#sector((at + headers) % this.#size);
    if (op === null) return;
    const isUnmount = header.getUint32(L.H_NUM_LOGOPS) === 1 &&
      (op.getUint8(L.OH_FLAGS) & L.XLOG_UNMOUNT_TRANS) !== 0;
    if (!isUnmount || end !== head) {
      return this.#ctx.found(
        `log is dirty: head ${head % this.#size}, last record at ` +
          `${at % this.#size}, tail (${
            L.lsnText(L.getLsn(header, L.H_TAIL_LSN))
          })`,
      );
    }
    if (!this.#crcOk(bytes, at, headers, len)) found("bad CRC");
  }

  /** Sector of the last record's header; beyond the size if it lies at the end of the
   * turn before. */
  #findRecord(head: number): number | null {
    for (let back = 1; back <= Math.min(LOOK_BACK, this.#size); back++) {
      const at = head - back;
      if (at < 0) return null;
      const view = this.#sector(at);
      if (view === null) return null;
      if (view.getUint32(0) === L.XLOG_HEADER_MAGIC_NUM) return at;
    }
    return null;
  }

  /** mkfs leaves none. */
  #crcOk(
    header: Uint8Array,
    at: number,
    headers: number,
    len: number,
  ): boolean {
    const view = viewOf(header);
    const has = view.getUint32(L.H_CRC, true);
    if (has === 0) return true;
    view.setUint32(L.H_CRC, 0);
    let crc = crc32c(header, 0, L.XLOG_REC_HEADER_LEN);
    const extended = Math.ceil(len / L.XLOG_HEADER_CYCLE_SIZE) - 1;
    for (let i = 0; i < extended; i++) {
      const sector = this.#sector(at + 1 + i);
      if (sector === null) return false;
      const bytes = new Uint8Array(sector.buffer, sector.byteOffset, BBSIZE);
      crc = crc32c(bytes, 0, L.XLOG_REC_EXT_HEADER_LEN, crc);
    }
    for (let bb = 0; bb < len / BBSIZE; bb++) {
      const sector = this.#sector(at + headers + bb);
      if (sector === null) return false;
      const bytes = new Uint8Array(sector.buffer, sector.byteOffset, BBSIZE);
      crc = crc32c(bytes, 0, BBSIZE, crc);
    }
    return crc === has;
  }
}
