/**
 * Checking inodes: what each says of itself, and its forks.
 *
 * The first look at all of them gathers types, link counts and blocks; directories
 * are read afterwards, when it is known what their entries can name.
 *
 * @module
 */

import { bufCrcOk } from "../libxfs/buf.ts";
import { getU64 } from "../libxfs/bytes.ts";
import * as F from "../libxfs/format.ts";
import { type Chunk, chunkIsFree, chunkIsHole, type FsckGroup } from "./ag.ts";
import { checkAttrFork, checkShortformAttr } from "./attr.ts";
import {
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
} from "../../fs.ts";
import { type FsckContext, viewOf } from "./context.ts";
import { Extents, type ForkPlace, readFork } from "./fork.ts";
import { checkSymlink } from "./symlink.ts";
import {
  USE_ATTR,
  USE_BMBT,
  USE_REFLINK,
  USE_SHAREABLE,
  USE_UNWRITTEN,
} from "./usage.ts";

/** Type of an inode that is not in use. */
export const FT_FREE: number = F.XFS_DIR3_FT_UNKNOWN;
/** Type of an inode in use of which nothing more is known. */
export const FT_BAD = 255;

/** Types as directories tell them. */
const TYPES = new Map<number, number>([
  [S_IFREG, F.XFS_DIR3_FT_REG_FILE],
  [S_IFDIR, F.XFS_DIR3_FT_DIR],
  [S_IFCHR, F.XFS_DIR3_FT_CHRDEV],
  [S_IFBLK, F.XFS_DIR3_FT_BLKDEV],
  [S_IFIFO, F.XFS_DIR3_FT_FIFO],
  [S_IFSOCK, F.XFS_DIR3_FT_SOCK],
  [S_IFLNK, F.XFS_DIR3_FT_SYMLINK],
]);

const DIFLAGS_KNOWN = 0x7fff;
/** What only directories have. */
const DIFLAGS_DIR = F.XFS_DIFLAG_RTINHERIT | F.XFS_DIFLAG_PROJINHERIT |
  F.XFS_DIFLAG_NOSYMLINKS;
const DIFLAGS2_KNOWN = 0x1f;
const PER_CHUNK = F.XFS_INODES_PER_CHUNK;

/** All inodes that there are, by a running number. */
export class InodeTable {
  readonly #ctx: FsckContext;
  readonly groups: FsckGroup[];
  /** First number of each group. */
  readonly #first: number[] = [];
  /** `XFS_DIR3_FT_*` of each, `FT_FREE` or `FT_BAD`. */
  readonly type: Uint8Array;
  /** Links that the inode says it has. */
  readonly nlink: Uint32Array;
  /** Links that were found. */
  readonly links: Uint32Array;
  /** Of directories: number of the parent, +1; 0 while unknown. */
  readonly parent: Float64Array;
  /** Of directories: what ".." says; 0 while unknown. */
  readonly dotdot: Float64Array;
  readonly count: number;

  constructor(ctx: FsckContext, groups: FsckGroup[]) {
    this.#ctx = ctx;
    this.groups = groups;
    let count = 0;
    for (const group of groups) {
      this.#first.push(count);
      count += group.chunks.length * PER_CHUNK;
    }
    this.count = count;
    this.type = new Uint8Array(count);
    this.nlink = new Uint32Array(count);
    this.links = new Uint32Array(count);
    this.parent = new Float64Array(count);
    this.dotdot = new Float64Array(count);
  }

  /** Running number of an inode, or -1 if there is none in any chunk. */
  indexOf(ino: number): number {
    const { sb } = this.#ctx;
    if (!sb.verifyIno(ino)) return -1;
    const agno = sb.inoToAgno(ino);
    const agino = sb.inoToAgino(ino);
    const { chunks } = this.groups[agno]!;
    let low = 0;
    let high = chunks.length - 1;
    while (low <= high) {
      const mid = (low + high) >> 1;
      const chunk = chunks[mid]!;
      if (agino < chunk.agino) high = mid - 1;
      else if (agino >= chunk.agino + PER_CHUNK) low = mid + 1;
      else {
        const i = agino - chunk.agino;
        if (chunkIsHole(chunk, i)) return -1;
        return this.#first[agno]! + mid * PER_CHUNK + i;
      }
    }
    return -1;
  }

  /** Inode of a running number. */
  inoOf(index: number): number {
    let agno = this.groups.length - 1;
    while (this.#first[agno]! > index) agno--;
    const within = index - this.#first[agno]!;
    const chunk = this.groups[agno]!.chunks[Math.floor(within / PER_CHUNK)]!;
    return this.#ctx.sb.aginoToIno(agno, chunk.agino + within % PER_CHUNK);
  }
}

/** An inode as read, for those who look at its forks. */
export interface InodeImage {
  ino: number;
  view: DataView;
  data: Uint8Array;
  /** `FT_*`. */
  type: number;
  size: number;
  dataFork: ForkPlace;
  /** null if it has none. */
  attrFork: ForkPlace | null;
}

/** Looks at inodes. */
export class InodeCheck {
  readonly #ctx: FsckContext;
  readonly #table: InodeTable;
  readonly #extents = new Extents();
  readonly #attrExtents = new Extents();

  constructor(ctx: FsckContext, table: InodeTable) {
    this.#ctx = ctx;
    this.#table = table;
  }

  /** Looks at all inodes.
   * @param progress Called after each chunk with the inodes done. */
  all(progress: (inodes: number) => void): void {
    let index = 0;
    for (const group of this.#table.groups) {
      for (const chunk of group.chunks) {
        this.#chunk(group.agno, chunk, index);
        index += PER_CHUNK;
        progress(index);
      }
    }
  }

  #chunk(agno: number, chunk: Chunk, index: number): void {
    const { sb } = this.#ctx;
    // Runs of inodes that exist: a hole is somebody else's.
    for (let i = 0; i < PER_CHUNK;) {
      if (chunkIsHole(chunk, i)) {
        i++;
        continue;
      }
      let n = 1;
      while (i + n < PER_CHUNK && !chunkIsHole(chunk, i + n)) n++;
      const data = this.#readInodes(agno, chunk.agino + i, n);
      for (let k = 0; data !== null && k < n; k++) {
        const ino = sb.aginoToIno(agno, chunk.agino + i + k);
        const from = k * sb.inodesize;
        const inode = data.subarray(from, from + sb.inodesize);
        this.#inode(ino, inode, chunkIsFree(chunk, i + k), index + i + k);
      }
      i += n;
    }
  }

  #readInodes(agno: number, agino: number, count: number): Uint8Array | null {
    const { sb } = this.#ctx;
    const at = sb.agbToDaddr(agno, 0) * F.BBSIZE + agino * sb.inodesize;
    const what = `inodes ${sb.aginoToIno(agno, agino)} on`;
    return this.#readAligned(at, count * sb.inodesize, what);
  }

  /** Sectors may be larger than inodes. */
  #readAligned(at: number, bytes: number, what: string): Uint8Array | null {
    const { sectsize } = this.#ctx.sb;
    const from = Math.floor(at / sectsize) * sectsize;
    const to = Math.ceil((at + bytes) / sectsize) * sectsize;
    const data = this.#ctx.readBytes(from, to - from, what);
    return data === null ? null : data.subarray(at - from, at - from + bytes);
  }

  /** Reads an inode again, and its data fork, about which nothing is said any more;
   * null if it is not what it was. */
  reread(ino: number, extents: Extents): InodeImage | null {
    const { sb } = this.#ctx;
    const agno = sb.inoToAgno(ino);
    const data = this.#readInodes(agno, sb.inoToAgino(ino), 1);
    if (data === null || !bufCrcOk(data, F.DI_CRC)) return null;
    const image = this.#image(ino, data, viewOf(data));
    if (image === null) return null;
    if (image.dataFork.format !== F.XFS_DINODE_FMT_LOCAL) {
      const before = this.#ctx.findings.length;
      const { more } = this.#ctx;
      readFork(this.#ctx, image.view, image.dataFork, extents);
      this.#ctx.findings.length = before;
      this.#ctx.more = more;
    }
    return image;
  }

  #inode(ino: number, data: Uint8Array, isFree: boolean, index: number): void {
    const ctx = this.#ctx;
    const view = viewOf(data);
    // Unless it turns out to be worse.
    this.#table.type[index] = isFree ? FT_FREE : FT_BAD;
    const magic = view.getUint16(F.DI_MAGIC);
    if (magic !== F.XFS_DINODE_MAGIC) {
      return ctx.found(
        `bad magic number 0x${magic.toString(16)} on inode ${ino}`,
      );
    }
    if (!bufCrcOk(data, F.DI_CRC)) return ctx.found(`bad CRC for inode ${ino}`);
    const version = view.getUint8(F.DI_VERSION);
    if (version !== 3) {
      return ctx.found(`bad version number ${version} on inode ${ino}`);
    }
    const self = getU64(view, F.DI_INO);
    if (self !== ino) {
      return ctx.found(`inode identifier ${self} mismatch on inode ${ino}`);
    }
    if (!ctx.checkUuid(data, F.DI_UUID, `inode ${ino}`)) return;
    ctx.checkLsn(view, F.DI_LSN, `inode ${ino}`);
    const next = view.getUint32(F.DI_NEXT_UNLINKED);
    if (next !== F.NULLAGINO) {
      ctx.found(`inode ${ino} is on an unlinked list, next ${next}`);
    }
    const mode = view.getUint16(F.DI_MODE);
    if (isFree) return this.#freeInode(ino, view, mode);
    if (mode === 0) {
      return ctx.found(`imap claims a free inode ${ino} is in use`);
    }
    const image = this.#image(ino, data, view);
    if (image === null) return;
    this.#table.type[index] = image.type;
    this.#table.nlink[index] = view.getUint32(F.DI_NLINK);
    this.#inUse(image);
  }

  #freeInode(ino: number, view: DataView, mode: number): void {
    const { found } = bound(this.#ctx);
    if (mode !== 0) {
      return found(`imap claims in-use inode ${ino} is free`);
    }
    const nlink = view.getUint32(F.DI_NLINK);
    if (nlink !== 0) found(`free inode ${ino} has nlink ${nlink}`);
    const nblocks = getU64(view, F.DI_NBLOCKS);
    if (nblocks !== 0) found(`free inode ${ino} has nblocks ${nblocks}`);
  }

  /** Works out what an inode is and where its forks are; null if that makes no sense. */
  #image(ino: number, data: Uint8Array, view: DataView): InodeImage | null {
    const mode = view.getUint16(F.DI_MODE);
    const type = TYPES.get(mode & S_IFMT);
    if (type === undefined) {
      this.#ctx.found(`bad mode 0${mode.toString(8)} in inode ${ino}`);
      return null;
    }
    const literal = data.length - F.DI_SIZE_V3;
    const forkoff = view.getUint8(F.DI_FORKOFF) * 8;
    if (forkoff >= literal) {
      this.#ctx.found(`bad forkoff ${forkoff / 8} in inode ${ino}`);
      return null;
    }
    const large = (view.getUint32(F.DI_FLAGS2 + 4) &
      F.XFS_DIFLAG2_NREXT64) !== 0;
    const at = F.DI_SIZE_V3;
    return {
      ino,
      view,
      data,
      type,
      size: getU64(view, F.DI_SIZE),
      dataFork: {
        ino,
        isAttr: false,
        format: view.getUint8(F.DI_FORMAT),
        nextents: large
          ? getU64(view, F.DI_BIG_NEXTENTS)
          : view.getUint32(F.DI_NEXTENTS),
        at,
        size: forkoff === 0 ? literal : forkoff,
      },
      attrFork: forkoff === 0 ? null : {
        ino,
        isAttr: true,
        format: view.getUint8(F.DI_AFORMAT),
        nextents: large
          ? view.getUint32(F.DI_NEXTENTS)
          : view.getUint16(F.DI_ANEXTENTS),
        at: at + forkoff,
        size: literal - forkoff,
      },
    };
  }

  #inUse(image: InodeImage): void {
    const { found } = bound(this.#ctx);
    const { ino, view } = image;
    this.#checkFlags(image);
    this.#checkHints(image);
    const size = image.size;
    if (!(Number.isSafeInteger(size) && size >= 0 && size < 2 ** 63)) {
      found(`bad size ${size} in inode ${ino}`);
    }
    const { rbmino, rsumino } = this.#ctx.sb;
    if (size !== 0 && (ino === rbmino || ino === rsumino)) {
      found(`size ${size} of realtime inode ${ino}, there is no such section`);
    }
    const extents = this.#extents;
    const attr = this.#attrExtents;
    const blocks = this.#dataFork(image, extents) +
      this.#attrFork(image, attr);
    const nblocks = getU64(view, F.DI_NBLOCKS);
    if (extents.ok && attr.ok && nblocks !== blocks) {
      found(`bad nblocks ${nblocks} for inode ${ino}, counted ${blocks}`);
    }
    if (image.type === F.XFS_DIR3_FT_SYMLINK) {
      checkSymlink(this.#ctx, image, extents);
    }
    if (image.attrFork === null) return;
    if (image.attrFork.format === F.XFS_DINODE_FMT_LOCAL) {
      checkShortformAttr(this.#ctx, image.ino, image.data, image.attrFork);
    } else if (attr.ok) checkAttrFork(this.#ctx, image.ino, attr);
  }

  #checkFlags({ ino, view, type }: InodeImage): void {
    const { found } = bound(this.#ctx);
    const { sb } = this.#ctx;
    const flags = view.getUint16(F.DI_FLAGS);
    const flags2 = view.getUint32(F.DI_FLAGS2 + 4);
    const onlink = view.getUint16(F.DI_METATYPE);
    if (onlink !== 0) found(`bad onlink ${onlink} in inode ${ino}`);
    if ((flags & ~DIFLAGS_KNOWN) !== 0) {
      found(`bad flags 0x${flags.toString(16)} in inode ${ino}`);
    }
    const unknown = (flags2 & ~DIFLAGS2_KNOWN) !== 0 ||
      view.getUint32(F.DI_FLAGS2) !== 0;
    if (unknown) found(`bad flags2 0x${flags2.toString(16)} in inode ${ino}`);
    if ((flags & DIFLAGS_DIR) !== 0 && type !== F.XFS_DIR3_FT_DIR) {
      found(`inherit flags on inode ${ino}, which is no directory`);
    }
    const reflink = (flags2 & F.XFS_DIFLAG2_REFLINK) !== 0;
    if (reflink && (!sb.hasReflink || type !== F.XFS_DIR3_FT_REG_FILE)) {
      found(`reflink flag on inode ${ino}, which cannot share blocks`);
    }
    if ((flags & F.XFS_DIFLAG_REALTIME) !== 0) {
      found(`realtime flag on inode ${ino}, there is no realtime section`);
    }
    if ((flags2 & F.XFS_DIFLAG2_BIGTIME) !== 0 && !sb.hasBigtime) {
      found(`bigtime flag on inode ${ino} without the feature`);
    }
    if ((flags2 & F.XFS_DIFLAG2_NREXT64) !== 0) {
      this.#checkLargeCounts(ino, view);
    } else if (getU64(view, F.DI_BIG_NEXTENTS) !== 0) {
      found(`inode ${ino}: large extent counter without its flag`);
    }
  }

  /** Hints of how large extents should be. */
  #checkHints({ ino, view, type }: InodeImage): void {
    const { found } = bound(this.#ctx);
    const flags = view.getUint16(F.DI_FLAGS);
    const extsize = view.getUint32(F.DI_EXTSIZE);
    const cowextsize = view.getUint32(F.DI_COWEXTSIZE);
    const ofFile = (flags & F.XFS_DIFLAG_EXTSIZE) !== 0;
    const ofDir = (flags & F.XFS_DIFLAG_EXTSZINHERIT) !== 0;
    if ((ofFile || ofDir) !== (extsize !== 0)) {
      found(
        `extsize ${extsize} without its flag, or the flag alone, in inode ${ino}`,
      );
    }
    if (ofFile && type !== F.XFS_DIR3_FT_REG_FILE) {
      found(`extent size flag on inode ${ino}, which is no file`);
    }
    if (ofDir && type !== F.XFS_DIR3_FT_DIR) {
      found(`extent size inherit flag on inode ${ino}, which is no directory`);
    }
    const half = Math.floor(this.#ctx.sb.agblocks / 2);
    const most = Math.min(F.XFS_MAX_BMBT_EXTLEN, half);
    if (extsize > most || cowextsize > most) {
      found(
        `extsize ${extsize} or cowextsize ${cowextsize} too large in inode ${ino}`,
      );
    }
    const flags2 = view.getUint32(F.DI_FLAGS2 + 4);
    const hasCow = (flags2 & F.XFS_DIFLAG2_COWEXTSIZE) !== 0;
    if (hasCow !== (cowextsize !== 0)) {
      found(
        `cowextsize ${cowextsize} without its flag, or the flag alone, in inode ${ino}`,
      );
    }
  }

  #checkLargeCounts(ino: number, view: DataView): void {
    const { found } = bound(this.#ctx);
    if (!this.#ctx.sb.hasNrext64) {
      found(`nrext64 flag on inode ${ino} without the feature`);
    }
    if (view.getUint16(F.DI_ANEXTENTS) !== 0) {
      found(`inode ${ino}: bytes after its large extent counters are not zero`);
    }
  }

  /** @returns Blocks of the fork. */
  #dataFork(image: InodeImage, extents: Extents): number {
    extents.clear();
    const { ino, dataFork: fork, type, size } = image;
    const { found } = bound(this.#ctx);
    const { format } = fork;
    const isSpecial = type === F.XFS_DIR3_FT_CHRDEV ||
      type === F.XFS_DIR3_FT_BLKDEV ||
      type === F.XFS_DIR3_FT_FIFO || type === F.XFS_DIR3_FT_SOCK;
    const canBeLocal = type === F.XFS_DIR3_FT_DIR ||
      type === F.XFS_DIR3_FT_SYMLINK;
    const ok = isSpecial
      ? format === F.XFS_DINODE_FMT_DEV
      : format === F.XFS_DINODE_FMT_EXTENTS ||
        format === F.XFS_DINODE_FMT_BTREE ||
        (format === F.XFS_DINODE_FMT_LOCAL && canBeLocal);
    if (!ok) {
      extents.ok = false;
      found(`bad data fork format ${format} in inode ${ino}`);
      return 0;
    }
    if (isSpecial || format === F.XFS_DINODE_FMT_LOCAL) {
      if (isSpecial && size !== 0) {
        found(`size ${size} of special inode ${ino}`);
      }
      if (fork.nextents !== 0) {
        found(`nextents ${fork.nextents} of inode ${ino}, which has no blocks`);
      }
      if (!isSpecial && size > fork.size) {
        found(`size ${size} of inode ${ino} does not fit its data fork`);
      }
      return 0;
    }
    readFork(this.#ctx, image.view, fork, extents);
    return this.#useFork(image, extents, false);
  }

  /** @returns Blocks of the fork. */
  #attrFork(image: InodeImage, extents: Extents): number {
    extents.clear();
    const { ino, attrFork: fork, view } = image;
    const { found } = bound(this.#ctx);
    if (fork === null) {
      const format = view.getUint8(F.DI_AFORMAT);
      if (format !== F.XFS_DINODE_FMT_EXTENTS) {
        found(`bad attr fork format ${format} in inode ${ino} without one`);
      }
      return 0;
    }
    if (fork.format === F.XFS_DINODE_FMT_LOCAL) {
      if (fork.nextents !== 0) {
        found(`anextents ${fork.nextents} of inode ${ino}, local`);
      }
      return 0;
    }
    const ok = fork.format === F.XFS_DINODE_FMT_EXTENTS ||
      fork.format === F.XFS_DINODE_FMT_BTREE;
    if (!ok) {
      extents.ok = false;
      found(`bad attr fork format ${fork.format} in inode ${ino}`);
      return 0;
    }
    readFork(this.#ctx, view, fork, extents);
    return this.#useFork(image, extents, true);
  }

  /** Notes the blocks as used.
   * @returns How many. */
  #useFork(image: InodeImage, extents: Extents, isAttr: boolean): number {
    const { sb } = this.#ctx;
    const { groups } = this.#table;
    const { ino, type, view } = image;
    const flags2 = view.getUint32(F.DI_FLAGS2 + 4);
    const base = (isAttr ? USE_ATTR : 0) |
      (type === F.XFS_DIR3_FT_REG_FILE && !isAttr ? USE_SHAREABLE : 0) |
      ((flags2 & F.XFS_DIFLAG2_REFLINK) !== 0 ? USE_REFLINK : 0);
    let blocks = 0;
    let unwritten = 0;
    for (let i = 0; i < extents.count; i++) {
      const fsbno = extents.fsbno[i]!;
      const len = extents.len[i]!;
      const flag = extents.unwritten[i] !== 0 ? USE_UNWRITTEN : 0;
      unwritten |= flag;
      const { uses } = groups[sb.fsbToAgno(fsbno)]!;
      const agbno = sb.fsbToAgbno(fsbno);
      uses.add(agbno, len, ino, extents.offset[i]!, base | flag);
      blocks += len;
    }
    if (unwritten !== 0 && (isAttr || type !== F.XFS_DIR3_FT_REG_FILE)) {
      this.#ctx.found(
        `unwritten extent in the ${
          isAttr ? "attr" : "data"
        } fork of inode ${ino}`,
      );
    }
    const treeFlags = USE_BMBT | (isAttr ? USE_ATTR : 0);
    for (const fsbno of extents.treeBlocks) {
      const { uses } = groups[sb.fsbToAgno(fsbno)]!;
      uses.add(sb.fsbToAgbno(fsbno), 1, ino, 0, treeFlags);
    }
    return blocks + extents.treeBlocks.length;
  }
}

function bound(ctx: FsckContext): { found: (line: string) => void } {
  return { found: (line) => ctx.found(line) };
}
