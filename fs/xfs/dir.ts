/**
 * A directory in memory: names in the order in which they came.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_dir2.c, xfs_dir2_sf.c.
 *
 * @module
 */

/** What a name stands for. */
export interface XfsDirEntry {
  /** Inode number. */
  ino: number;
  /** `S_IF*`. */
  type: number;
}

/** Bytes of an inode record that entries may take before the directory gets blocks of
 * its own. */
const SHORTFORM_MAX = 336;
/** Bytes of a directory block. */
const DIR_BLOCK = 4096;
const DATA_HEADER = 64;
/** "." and ".." in a directory block. */
const DOTS = 32;

function utf8Length(name: string): number {
  let bytes = 0;
  for (let i = 0; i < name.length; i++) {
    const c = name.charCodeAt(i);
    if (c < 0x80) bytes += 1;
    else if (c < 0x800) bytes += 2;
    else if (c >= 0xd800 && c < 0xdc00) {
      bytes += 4;
      i++;
    } else bytes += 3;
  }
  return bytes;
}

/** Entries of one directory. */
export class XfsDir {
  /** Names, without "." and "..". */
  readonly entries: Map<string, XfsDirEntry> = new Map();
  /** Inode number of the parent. */
  parent: number;
  #nameBytes = 0;
  /** Bytes of the entries in blocks: number, length, name, type, tag, to 8. */
  #blockBytes = DOTS;

  /**
   * A directory without entries.
   *
   * @param parent Inode number of the parent; the root's is its own.
   */
  constructor(parent: number) {
    this.parent = parent;
  }

  /** Adds a name that is not there. */
  add(name: string, ino: number, type: number): void {
    this.entries.set(name, { ino, type });
    this.#count(name, 1);
  }

  /** Takes a name out that is there. */
  remove(name: string): void {
    this.entries.delete(name);
    this.#count(name, -1);
  }

  #count(name: string, sign: number): void {
    const bytes = utf8Length(name);
    this.#nameBytes += sign * bytes;
    this.#blockBytes += sign * (12 + bytes + 7 & ~7);
  }

  /** What stat(2) says: bytes of the record while the entries fit in the inode, else of
   * the directory's blocks. */
  get size(): number {
    const n = this.entries.size;
    const shortform = 6 + n * 8 + this.#nameBytes;
    if (shortform <= SHORTFORM_MAX) return shortform;
    const room = DIR_BLOCK - DATA_HEADER;
    if (this.#blockBytes + (n + 2) * 8 + 8 <= room) return DIR_BLOCK;
    return Math.ceil(this.#blockBytes / room) * DIR_BLOCK;
  }
}
