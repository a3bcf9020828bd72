/**
 * Reading a directory, in any form.
 *
 * A position is the place of a name in the data space, in units of 8 bytes; the short
 * form keeps the same for its names. So positions stay good while names come and go and
 * the form changes.
 *
 * Kernel counterpart: fs/xfs/xfs_dir2_readdir.c.
 *
 * @module
 */

import { EIO } from "../../lib/errno.ts";
import type { XfsInode } from "./inode.ts";
import { xfsIreadExtents } from "./libxfs/bmap.ts";
import type { XfsBuf } from "./libxfs/buf.ts";
import { daCorrupt } from "./libxfs/da-btree.ts";
import {
  XFS_DIR2_FMT_BLOCK,
  XFS_DIR2_FMT_SF,
  xfsDir2Format,
} from "./libxfs/dir2.ts";
import { xfsDir3BlockRead } from "./libxfs/dir2-block.ts";
import {
  DATA_ENTRY_OFFSET,
  dataEnd,
  entryFtype,
  entryIno,
  entryNameAt,
  entryNamelen,
  isUnused,
  pieceLength,
  xfsDir2DataEntsize,
  xfsDir3DataRead,
} from "./libxfs/dir2-data.ts";
import {
  dataptrToDb,
  dbOffToDataptr,
  dbToDa,
  XfsDirArgs,
} from "./libxfs/dir2-priv.ts";
import { SfReader } from "./libxfs/dir2-sf.ts";
import { XFS_DATA_FORK, XFS_DIR3_FT_DIR } from "./libxfs/format.ts";
import { BmbtIrec, IextCursor } from "./libxfs/iext.ts";

const NO_NAME = new Uint8Array(0);
const DOT = new Uint8Array([0x2e]);
const DOTDOT = new Uint8Array([0x2e, 0x2e]);
/** Positions of "." and "..". */
const DOT_POS: number = DATA_ENTRY_OFFSET / 8;
const DOTDOT_POS: number = DOT_POS + 2;
/** There is no further data block. */
const NO_BLOCK: number = -(2 ** 31);

const cur = new IextCursor();
const got = new BmbtIrec();

/** One name of a directory. */
export interface XfsDirent {
  /** Bytes. */
  readonly name: Uint8Array;
  readonly ino: number;
  /** `XFS_DIR3_FT_*`. */
  readonly ftype: number;
  /** Its position: reading from here answers it again. */
  readonly cookie: number;
}

/**
 * Reads a directory name by name (kernel: `xfs_readdir`). Names are fetched a directory
 * block at a time, so one that goes in between may still be answered, as getdents(2)
 * may.
 */
export class XfsDirReader {
  readonly #dp: XfsInode;
  readonly #args: XfsDirArgs;
  /** Names that were fetched. */
  #batch: XfsDirent[] = [];
  /** Of these, answered. */
  #done = 0;
  /** Where to fetch the next ones. */
  #from: number;
  /** Position after the name answered last; a new reader can go on from it. */
  pos: number;

  /**
   * @param dots Whether "." and ".." are answered.
   * @param pos Where to begin: 0, a `cookie`, or what `pos` was.
   */
  constructor(dp: XfsInode, dots: boolean, pos = 0) {
    this.#dp = dp;
    this.#args = new XfsDirArgs(dp, null, NO_NAME, 0);
    this.pos = dots ? pos : Math.max(pos, DOTDOT_POS + 1);
    this.#from = this.pos;
  }

  /**
   * The next name.
   *
   * @returns It; 0 at the end; -EIO if the file system is shut down; -EFSCORRUPTED; the
   *   errno of reading a block.
   */
  next(): XfsDirent | number {
    if (this.#done === this.#batch.length) {
      const error = this.#fetch();
      if (error < 0) return error;
      if (this.#batch.length === 0) return 0;
    }
    const dirent = this.#batch[this.#done++]!;
    this.pos = dirent.cookie + xfsDir2DataEntsize(dirent.name.length) / 8;
    return dirent;
  }

  #fetch(): number {
    this.#batch = [];
    this.#done = 0;
    if (this.#dp.mount.dead) return -EIO;
    const form = xfsDir2Format(this.#dp);
    if (form < 0) return form;
    if (form === XFS_DIR2_FMT_SF) return this.#fetchSf();
    if (form !== XFS_DIR2_FMT_BLOCK) return this.#fetchLeaf();
    if (dataptrToDb(this.#args.geo, this.#from) > 0) return 0;
    return this.#fetchBlock(xfsDir3BlockRead(this.#args), 0);
  }

  #fetchSf(): number {
    if (dataptrToDb(this.#args.geo, this.#from) > 0) return 0;
    const sf = new SfReader(this.#dp.df.local!);
    this.#add(DOT, this.#dp.ino, XFS_DIR3_FT_DIR, DOT_POS);
    this.#add(DOTDOT, sf.parent, XFS_DIR3_FT_DIR, DOTDOT_POS);
    while (sf.next()) {
      const name = sf.name().slice();
      const error = this.#add(name, sf.ino, sf.ftype, sf.offset / 8);
      if (error < 0) return error;
    }
    this.#from = dbOffToDataptr(this.#args.geo, 1, 0);
    return 0;
  }

  /** From the next data block that has a name. */
  #fetchLeaf(): number {
    const { geo } = this.#args;
    while (this.#batch.length === 0) {
      const db = this.#dataBlock(dataptrToDb(geo, this.#from));
      if (db < 0) return db === NO_BLOCK ? 0 : db;
      const error = this.#fetchBlock(xfsDir3DataRead(null, this.#dp, db), db);
      if (error < 0) return error;
    }
    return 0;
  }

  /** First data block that exists at or after `db`; `NO_BLOCK`, or a negative errno. */
  #dataBlock(db: number): number {
    const { geo } = this.#args;
    const error = xfsIreadExtents(null, this.#dp, XFS_DATA_FORK);
    if (error < 0) return error;
    const bno = dbToDa(geo, db);
    if (!this.#dp.df.lookup(bno, cur, got)) return NO_BLOCK;
    const first = Math.max(bno, got.startoff);
    return first < geo.leafblk ? Math.floor(first / geo.fsbcount) : NO_BLOCK;
  }

  #fetchBlock(bp: XfsBuf | number, db: number): number {
    if (typeof bp === "number") return bp;
    const { geo } = this.#args;
    const end = dataEnd(bp);
    for (let off = DATA_ENTRY_OFFSET; off < end;) {
      const len = pieceLength(bp, off);
      if (len < 8) return daCorrupt(this.#dp, dbToDa(geo, db), `at ${off}`);
      if (!isUnused(bp, off)) {
        const at = entryNameAt(off);
        const name = bp.data.slice(at, at + entryNamelen(bp, off));
        const cookie = dbOffToDataptr(geo, db, off);
        const ino = entryIno(bp, off);
        const error = this.#add(name, ino, entryFtype(bp, off), cookie);
        if (error < 0) return error;
      }
      off += len;
    }
    this.#from = dbOffToDataptr(geo, db + 1, 0);
    return 0;
  }

  /** Keeps a name unless it lies before the beginning; 0 or -EFSCORRUPTED. */
  #add(
    name: Uint8Array,
    ino: number,
    ftype: number,
    cookie: number,
  ): number {
    if (cookie < this.#from) return 0;
    if (name.indexOf(0) >= 0 || name.indexOf(0x2f) >= 0) {
      return daCorrupt(this.#dp, 0, `name with 0 or "/" at ${cookie}`);
    }
    this.#batch.push({ name, ino, ftype, cookie });
    return 0;
  }
}
