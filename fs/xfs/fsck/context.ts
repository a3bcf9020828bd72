/**
 * What the parts of a check share: where it reads, what it has found, and how it
 * looks at a metadata block.
 *
 * @module
 */

import { EAGAIN } from "../../../lib/errno.ts";
import { bufCrcOk } from "../libxfs/buf.ts";
import { bytesEqual, getU64 } from "../libxfs/bytes.ts";
import { BBSIZE } from "../libxfs/format.ts";
import type { XfsSb } from "../libxfs/sb.ts";
import type { FsckReader } from "./reader.ts";

/** Findings that are kept; of further ones only the number. */
const MAX_FINDINGS = 200;

/** Where a kind of metadata block has what they all have; -1 for what it lacks. */
export interface BlockKind {
  /** As in messages: "bnobt block". */
  readonly name: string;
  /** Byte of the magic number, and its size. */
  readonly magicAt: number;
  /** See `magicAt`. */
  readonly magicBytes: 2 | 4;
  /** The number itself. */
  readonly magic: number;
  /** Byte of the checksum. */
  readonly crcAt: number;
  /** Byte of its own address, in basic blocks. */
  readonly blknoAt: number;
  /** Byte of when it was last logged. */
  readonly lsnAt: number;
  /** Byte of the file system's UUID. */
  readonly uuidAt: number;
  /** Byte of the group or inode that it belongs to, and its size. */
  readonly ownerAt: number;
  /** See `ownerAt`. */
  readonly ownerBytes: 4 | 8;
}

/** A check that is going on. */
export class FsckContext {
  /** Where it reads. */
  readonly reader: FsckReader;
  /** Geometry. */
  readonly sb: XfsSb;
  /** What is wrong, a line each. */
  readonly findings: string[];
  /** How many further ones there are. */
  more = 0;
  /** Log's head: no metadata can have been logged after it. 0 while unknown. */
  headCycle = 0;
  /** See `headCycle`; a sector of the log. */
  headBlock = 0;
  /** Blocks that forks may still be read from: no image has more to read than its
   * size, whatever its mappings say. */
  #budget: number;
  #complainedOfBudget = false;

  /** A check that begins. */
  constructor(reader: FsckReader, sb: XfsSb, findings: string[]) {
    this.reader = reader;
    this.sb = sb;
    this.findings = findings;
    this.#budget = sb.dblocks;
  }

  /** Notes what is wrong. */
  found(line: string): void {
    if (this.findings.length < MAX_FINDINGS) this.findings.push(line);
    else this.more++;
  }

  /** Reads bytes; null, with a finding, if that cannot be done. */
  readBytes(at: number, bytes: number, what: string): Uint8Array | null {
    const data = new Uint8Array(bytes);
    if (at + bytes > this.reader.size) {
      this.found(`${what}: lies beyond the device`);
      return null;
    }
    const error = this.reader.read(at, data);
    if (error === 0) return data;
    const why = error === -EAGAIN ? "the device is busy" : `error ${-error}`;
    this.found(`${what}: cannot be read, ${why}`);
    return null;
  }

  /** Reads blocks of a group. */
  readAg(
    agno: number,
    agbno: number,
    count: number,
    what: string,
  ): Uint8Array | null {
    const at = this.sb.agbToDaddr(agno, agbno) * BBSIZE;
    return this.readBytes(at, count * this.sb.blocksize, what);
  }

  /** Counts blocks of forks that are about to be read; false if there cannot be so
   * many. */
  spend(blocks: number): boolean {
    this.#budget -= blocks;
    if (this.#budget >= 0) return true;
    if (!this.#complainedOfBudget) {
      this.found("directories and attributes map more blocks than there are");
      this.#complainedOfBudget = true;
    }
    return false;
  }

  /**
   * Whether a block is what it should be: magic number, checksum, own address, UUID,
   * owner, and that it is not newer than the log. What is wrong is noted.
   *
   * @param owner Group or inode; null if it must not be looked at.
   */
  checkBlock(
    kind: BlockKind,
    data: Uint8Array,
    daddr: number,
    owner: number | null,
    what: string,
  ): boolean {
    const view = viewOf(data);
    const magic = kind.magicBytes === 4
      ? view.getUint32(kind.magicAt)
      : view.getUint16(kind.magicAt);
    if (magic !== kind.magic) {
      this.found(`${what}: bad magic 0x${magic.toString(16)}`);
      return false;
    }
    if (!bufCrcOk(data, kind.crcAt)) {
      this.found(`${what}: bad CRC`);
      return false;
    }
    if (kind.blknoAt >= 0 && getU64(view, kind.blknoAt) !== daddr) {
      this.found(
        `${what}: blkno ${getU64(view, kind.blknoAt)}, lies at ${daddr}`,
      );
      return false;
    }
    if (!this.checkUuid(data, kind.uuidAt, what)) return false;
    if (!this.#checkOwner(kind, view, owner, what)) return false;
    this.checkLsn(view, kind.lsnAt, what);
    return true;
  }

  #checkOwner(
    kind: BlockKind,
    view: DataView,
    owner: number | null,
    what: string,
  ): boolean {
    if (owner === null || kind.ownerAt < 0) return true;
    const has = kind.ownerBytes === 4
      ? view.getUint32(kind.ownerAt)
      : getU64(view, kind.ownerAt);
    if (has === owner) return true;
    this.found(`${what}: expected owner ${owner}, got ${has}`);
    return false;
  }

  /** Whether a block has the file system's UUID. */
  checkUuid(data: Uint8Array, at: number, what: string): boolean {
    if (bytesEqual(data, at, this.sb.blockUuid, 0, 16)) return true;
    this.found(`${what}: bad uuid`);
    return false;
  }

  /** Notes a block that was changed after the last that the log knows of. */
  checkLsn(view: DataView, at: number, what: string): void {
    if (at < 0 || this.headCycle === 0) return;
    const cycle = view.getUint32(at);
    const block = view.getUint32(at + 4);
    // "Never logged", of remote values.
    if (cycle === 0xffff_ffff && block === 0xffff_ffff) return;
    if (cycle < this.headCycle) return;
    if (cycle === this.headCycle && block <= this.headBlock) return;
    this.found(
      `${what}: LSN (${cycle}:${block}) is ahead of log ` +
        `(${this.headCycle}:${this.headBlock})`,
    );
  }
}

/** A view of exactly these bytes. */
export function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}
