/**
 * The log as a ring of blocks and records.
 *
 * Every basic block begins with the number of the turn, the cycle, in which it was
 * written. What belongs there is kept in the headers of the record, and is put back
 * when the record is read. A record may go around the end of the ring, headers too.
 *
 * Kernel counterpart: fs/xfs/xfs_log.c, xfs_log_recover.c.
 *
 * @module
 */

import { Bio, submitBioWait } from "../../block/bio.ts";
import {
  REQ_FUA,
  REQ_META,
  REQ_OP_WRITE,
  REQ_PREFLUSH,
  REQ_SYNC,
} from "../../block/blk-types.ts";
import { crc32c } from "../../lib/crc32c.ts";
import { andThen, type MaybePromise } from "../../lib/maybe-promise.ts";
import type { XfsBufOps } from "./libxfs/buf.ts";
import { bytesEqual } from "./libxfs/bytes.ts";
import { BBSIZE } from "./libxfs/format.ts";
import * as L from "./libxfs/log-format.ts";
import type { XfsMount } from "./mount.ts";

/** Basic blocks that are read at a time. */
const READ_BBS = 1024;
/** Basic blocks that are written at a time. */
const WRITE_BBS = 1024;
const NO_CRC = new Uint8Array(4);

const rawOps: XfsBufOps = {
  name: "xfs_log",
  crcOffset: -1,
  verify: () => null,
};

/** Header of a record (kernel: `struct xlog_rec_header`). */
export interface XlogRecHeader {
  /** Basic block that it is in. */
  readonly block: number;
  readonly cycle: number;
  readonly lsn: L.XfsLsn;
  /** Oldest record that is still needed. */
  readonly tail: L.XfsLsn;
  /** Bytes of data; a multiple of a basic block. */
  readonly len: number;
  /** Bytes of the buffers of the mount that wrote it. */
  readonly size: number;
  /** Basic blocks of headers. */
  readonly hblks: number;
  readonly crc: number;
  readonly numLogops: number;
}

/** Header blocks of a record (kernel: `xlog_logrec_hblks`). */
export function xlogLogrecHblks(size: number): number {
  return Math.max(1, Math.ceil(size / L.XLOG_HEADER_CYCLE_SIZE));
}

/** The log of a mount (kernel: `struct xlog`). */
export class Xlog {
  readonly mp: XfsMount;
  /** Basic blocks. */
  readonly bbs: number;
  /** First basic block on the device. */
  readonly #start: number;
  /** Basic blocks of a sector. */
  readonly sectorBbs: number;
  /** Basic blocks of which records are multiples. */
  readonly roundoff: number;
  #cache: Uint8Array = new Uint8Array(0);
  #cacheAt = -1;

  constructor(mp: XfsMount) {
    const { sb } = mp;
    this.mp = mp;
    this.bbs = sb.logblocks * sb.bbPerBlock;
    this.#start = sb.fsbToDaddr(sb.logstart);
    this.sectorBbs = Math.max(sb.sectsize, sb.logsectsize) / BBSIZE;
    const unit = sb.logsunit > 1 ? sb.logsunit / BBSIZE : 1;
    this.roundoff = Math.max(unit, this.sectorBbs);
  }

  /** A block as it is on the device; not to be changed.
   * @returns It or a negative errno. */
  bb(block: number): Uint8Array | number {
    const at = block - block % READ_BBS;
    if (at !== this.#cacheAt) {
      const { targ } = this.mp;
      const count = Math.min(READ_BBS, this.bbs - at);
      const bp = targ.read(this.#start + at, count, rawOps);
      if (typeof bp === "number") return bp;
      targ.markStale(bp);
      this.#cache = bp.data;
      this.#cacheAt = at;
    }
    const from = (block - at) * BBSIZE;
    return this.#cache.subarray(from, from + BBSIZE);
  }

  /** A copy of some blocks, around the end if need be; or a negative errno. */
  read(block: number, count: number): Uint8Array | number {
    const data = new Uint8Array(count * BBSIZE);
    for (let i = 0; i < count; i++) {
      const bb = this.bb((block + i) % this.bbs);
      if (typeof bb === "number") return bb;
      data.set(bb, i * BBSIZE);
    }
    return data;
  }

  /** Cycle in which a block was written (kernel: `xlog_get_cycle`); or a negative
   * errno. */
  cycleAt(block: number): number {
    const bb = this.bb(block);
    if (typeof bb === "number") return bb;
    const view = viewOf(bb);
    const word = view.getUint32(0);
    return word === L.XLOG_HEADER_MAGIC_NUM ? view.getUint32(L.H_CYCLE) : word;
  }

  /** Whether a header begins at a block; or a negative errno. */
  isHeader(block: number): boolean | number {
    const bb = this.bb(block);
    if (typeof bb === "number") return bb;
    return viewOf(bb).getUint32(0) === L.XLOG_HEADER_MAGIC_NUM;
  }

  /**
   * The header at a block (kernel: `xlog_valid_rec_header`,
   * `xlog_header_check_recover`).
   *
   * @returns It; a negative errno; or the check that failed, a text.
   */
  header(block: number): XlogRecHeader | number | string {
    const bb = this.bb(block);
    if (typeof bb === "number") return bb;
    const view = viewOf(bb);
    const magic = view.getUint32(L.H_MAGICNO);
    if (magic !== L.XLOG_HEADER_MAGIC_NUM) {
      return `magic 0x${magic.toString(16)}`;
    }
    const version = view.getUint32(L.H_VERSION);
    if (version !== L.XLOG_VERSION_2) return `version ${version}`;
    const len = view.getUint32(L.H_LEN);
    const size = view.getUint32(L.H_SIZE);
    const lsn = L.getLsn(view, L.H_LSN);
    const cycle = view.getUint32(L.H_CYCLE);
    const fmt = view.getUint32(L.H_FMT);
    // One without data is no record, but stands for what was never written.
    if (len === 0 || len % BBSIZE !== 0) return `len ${len}`;
    if (len > L.XLOG_MAX_RECORD_BSIZE) return `len ${len}`;
    // mkfs pads its record to the stripe unit, and says nothing of that.
    if (size > L.XLOG_MAX_RECORD_BSIZE) return `size ${size}`;
    if (lsn.block !== block || lsn.cycle !== cycle) {
      return `LSN ${L.lsnText(lsn)} in block ${block} of cycle ${cycle}`;
    }
    if (fmt !== L.XLOG_FMT_LINUX_LE) return `format ${fmt}`;
    if (!bytesEqual(bb, L.H_FS_UUID, this.mp.sb.uuid, 0, 16)) {
      return "UUID of another file system";
    }
    const hblks = xlogLogrecHblks(size);
    if (hblks + len / BBSIZE > this.bbs) return `len ${len} of the log`;
    if (len > hblks * L.XLOG_HEADER_CYCLE_SIZE) {
      return `len ${len} with size ${size}`;
    }
    const tail = L.getLsn(view, L.H_TAIL_LSN);
    if (tail.block >= this.bbs) return `tail ${L.lsnText(tail)}`;
    return {
      block,
      cycle,
      lsn,
      tail,
      len,
      size,
      hblks,
      crc: view.getUint32(L.H_CRC, true),
      numLogops: view.getUint32(L.H_NUM_LOGOPS),
    };
  }

  /** A record as it is on the device, or a negative errno. */
  record(rec: XlogRecHeader): Uint8Array | number {
    return this.read(rec.block, rec.hblks + rec.len / BBSIZE);
  }

  /** Block after a record, maybe around the end. */
  after(rec: XlogRecHeader): number {
    return (rec.block + rec.hblks + rec.len / BBSIZE) % this.bbs;
  }

  /**
   * Writes that a file system was unmounted, and that what comes after it is old
   * (kernel: `xfs_log_unmount_write`, `xlog_clear_stale_blocks`). All else has been
   * written.
   *
   * @param head Where the next record belongs.
   * @param tail Block of the oldest record up to now.
   * @param prev Block of the last record.
   * @returns 0 or a negative errno.
   */
  unmountWrite(
    head: L.XfsLsn,
    tail: number,
    prev: number,
  ): MaybePromise<number> {
    const record = this.#unmountRecord(head, prev);
    const bbs = record.length / BBSIZE;
    const room = tail > head.block
      ? tail - head.block
      : tail - head.block + this.bbs;
    const most = L.XLOG_MAX_ICLOGS * L.XLOG_MAX_RECORD_BSIZE / BBSIZE;
    const stale = Math.min(room, most) - bbs;
    const cleared = stale <= 0
      ? 0
      : this.#write(head.block + bbs, this.#staleBlocks(head, bbs, stale), 0);
    return andThen(cleared, (error) => {
      if (error < 0) return error;
      this.#cacheAt = -1;
      return this.#write(head.block, record, REQ_PREFLUSH | REQ_FUA);
    });
  }

  #header(data: Uint8Array, at: number, lsn: L.XfsLsn): DataView {
    const view = new DataView(data.buffer, at, BBSIZE);
    view.setUint32(L.H_MAGICNO, L.XLOG_HEADER_MAGIC_NUM);
    view.setUint32(L.H_CYCLE, lsn.cycle);
    view.setUint32(L.H_VERSION, L.XLOG_VERSION_2);
    L.putLsn(view, L.H_LSN, lsn);
    view.setUint32(L.H_FMT, L.XLOG_FMT_LINUX_LE);
    data.set(this.mp.sb.uuid, at + L.H_FS_UUID);
    return view;
  }

  #unmountRecord(head: L.XfsLsn, prev: number): Uint8Array {
    const size = Math.max(
      L.XLOG_BIG_RECORD_BSIZE,
      Math.min(this.roundoff * BBSIZE, L.XLOG_MAX_RECORD_BSIZE),
    );
    const hblks = xlogLogrecHblks(size);
    const bbs = Math.ceil((hblks + 1) / this.roundoff) * this.roundoff;
    const data = new Uint8Array(bbs * BBSIZE);
    const view = this.#header(data, 0, head);
    view.setUint32(L.H_LEN, (bbs - hblks) * BBSIZE);
    L.putLsn(view, L.H_TAIL_LSN, head);
    view.setUint32(L.H_PREV_BLOCK, prev);
    view.setUint32(L.H_NUM_LOGOPS, 1);
    view.setUint32(L.H_SIZE, size);
    const op = new DataView(data.buffer, hblks * BBSIZE, BBSIZE);
    op.setUint32(L.OH_LEN, 8);
    op.setUint8(L.OH_CLIENTID, L.XFS_LOG);
    op.setUint8(L.OH_FLAGS, L.XLOG_UNMOUNT_TRANS);
    op.setUint16(L.XLOG_OP_HEADER_LEN, L.XLOG_UNMOUNT_TYPE, true);
    packCycles(data, hblks, head, this.bbs);
    view.setUint32(L.H_CRC, xlogCksum(data, hblks), true);
    return data;
  }

  /** Headers without data, of the cycle before. */
  #staleBlocks(head: L.XfsLsn, from: number, count: number): Uint8Array {
    const data = new Uint8Array(count * BBSIZE);
    for (let i = 0; i < count; i++) {
      const at = head.block + from + i;
      const around = at >= this.bbs ? 1 : 0;
      const block = at - around * this.bbs;
      const lsn = { cycle: cycleAfter(head.cycle, around - 1), block };
      const view = this.#header(data, i * BBSIZE, lsn);
      L.putLsn(view, L.H_TAIL_LSN, head);
    }
    return data;
  }

  /** Writes blocks, around the end if need be. */
  #write(block: number, data: Uint8Array, flags: number): MaybePromise<number> {
    const at = block % this.bbs;
    const count = Math.min(data.length / BBSIZE, this.bbs - at, WRITE_BBS);
    const bio = new Bio(
      this.mp.bdev,
      REQ_OP_WRITE | REQ_META | REQ_SYNC | flags,
    );
    bio.sector = this.#start + at;
    bio.addData(data, 0, count * BBSIZE);
    return andThen(submitBioWait(bio), (error) => {
      const rest = data.subarray(count * BBSIZE);
      if (error < 0 || rest.length === 0) return error;
      return this.#write(at + count, rest, flags);
    });
  }
}

/** A cycle before or after another; the number that headers begin with is none. */
function cycleAfter(cycle: number, by: number): number {
  const next = cycle + by;
  return next === L.XLOG_HEADER_MAGIC_NUM ? next + by : next;
}

function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

/** Where a header block has the first word of a block of data.
 * @param bb Block of the data. */
function cycleDataAt(bb: number): number {
  const words = L.XLOG_HEADER_CYCLE_SIZE / BBSIZE;
  const header = Math.floor(bb / words);
  const at = header === 0 ? L.H_CYCLE_DATA : L.XH_CYCLE_DATA;
  return header * BBSIZE + at + bb % words * 4;
}

/** Puts cycles where the first words of the blocks were (kernel: `xlog_pack_data`). */
function packCycles(
  data: Uint8Array,
  hblks: number,
  head: L.XfsLsn,
  logBbs: number,
): void {
  const view = viewOf(data);
  const cycleOf = (bb: number) =>
    cycleAfter(head.cycle, head.block + bb >= logBbs ? 1 : 0);
  for (let bb = 1; bb < hblks; bb++) view.setUint32(bb * BBSIZE, cycleOf(bb));
  for (let bb = hblks; bb < data.length / BBSIZE; bb++) {
    view.setUint32(cycleDataAt(bb - hblks), view.getUint32(bb * BBSIZE));
    view.setUint32(bb * BBSIZE, cycleOf(bb));
  }
}

/** The data of a record, with the first words of its blocks put back (kernel:
 * `xlog_unpack_data`). */
export function xlogUnpackData(
  record: Uint8Array,
  rec: XlogRecHeader,
): Uint8Array {
  const data = record.subarray(rec.hblks * BBSIZE);
  for (let bb = 0; bb < rec.len / BBSIZE; bb++) {
    const at = cycleDataAt(bb);
    data.set(record.subarray(at, at + 4), bb * BBSIZE);
  }
  return data;
}

/** Checksum of a record as it is on the device (kernel: `xlog_cksum`). */
export function xlogCksum(record: Uint8Array, hblks: number): number {
  let crc = crc32c(record, 0, L.H_CRC);
  crc = crc32c(NO_CRC, 0, 4, crc);
  crc = crc32c(record, L.H_CRC + 4, L.XLOG_REC_HEADER_LEN, crc);
  const len = record.length - hblks * BBSIZE;
  const headers = Math.ceil(len / L.XLOG_HEADER_CYCLE_SIZE);
  for (let i = 1; i < headers; i++) {
    const at = i * BBSIZE;
    crc = crc32c(record, at, at + L.XLOG_REC_EXT_HEADER_LEN, crc);
  }
  return crc32c(record, hblks * BBSIZE, record.length, crc);
}
