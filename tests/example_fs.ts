/**
 * A file system in a hundred lines: every file has one extent, given out from the
 * front of the device to its end. The README walks through it.
 *
 * @module
 */

import {
  blkdevIssueFlush,
  ENOENT,
  ENOSPC,
  type FileOperations,
  type FileSystemType,
  genericIomapMethods,
  ihold,
  Inode,
  type InodeOperations,
  insertInode,
  IOMAP_HOLE,
  IOMAP_MAPPED,
  IOMAP_NULL_ADDR,
  IOMAP_UNWRITTEN,
  IOMAP_WRITE,
  type IomapOps,
  S_IFDIR,
  S_IFREG,
  SuperBlock,
  type SuperOperations,
} from "@iomap/iomap/iomap";

/** Bytes of the one extent that a file has. */
const EXTENT = 16 * 2 ** 20;
const BLOCK = 4096;

class ExampleSuper extends SuperBlock {
  /** The root directory. */
  readonly names = new Map<string, Inode>();
  nextIno = 2;
  /** Space is given out from the front of the device to its end. */
  nextAddr = 0;
}

class ExampleInode extends Inode {
  declare readonly sb: ExampleSuper;
  /** Where the extent is. */
  addr: number = IOMAP_NULL_ADDR;
  /** Blocks that hold data. The others of the extent read as zero. */
  readonly written = new Set<number>();
  /** Counts changes of `written`. */
  seq = 0;
}

function allocate(file: ExampleInode): number {
  const { sb } = file;
  if (sb.nextAddr + EXTENT > sb.bdev.nrSectors * 512) return -ENOSPC;
  file.addr = sb.nextAddr;
  sb.nextAddr += EXTENT;
  return 0;
}

const ops: IomapOps = {
  iomapBegin(inode, pos, length, flags, iomap) {
    const file = inode as ExampleInode;
    if (file.addr === IOMAP_NULL_ADDR && (flags & IOMAP_WRITE) !== 0) {
      const error = allocate(file);
      if (error < 0) return error;
    }
    const first = Math.floor(pos / BLOCK);
    const written = file.written.has(first);
    let end = first + 1;
    while (end * BLOCK < pos + length && file.written.has(end) === written) {
      end++;
    }
    iomap.offset = first * BLOCK;
    iomap.length = (end - first) * BLOCK;
    iomap.bdev = file.sb.bdev;
    iomap.validityCookie = file.seq;
    if (file.addr === IOMAP_NULL_ADDR) {
      iomap.type = IOMAP_HOLE;
      iomap.addr = IOMAP_NULL_ADDR;
    } else {
      iomap.type = written ? IOMAP_MAPPED : IOMAP_UNWRITTEN;
      iomap.addr = file.addr + iomap.offset;
    }
    return 0;
  },
};

const methods = genericIomapMethods({
  ops,
  writeOps: {
    iomapValid: (inode, iomap) =>
      iomap.validityCookie === (inode as ExampleInode).seq,
  },
  convert(inode, pos, len) {
    const file = inode as ExampleInode;
    const end = Math.ceil((pos + len) / BLOCK);
    for (let n = Math.floor(pos / BLOCK); n < end; n++) file.written.add(n);
    file.seq++;
    return 0;
  },
  truncated(inode, size) {
    const file = inode as ExampleInode;
    const end = Math.ceil(size / BLOCK);
    for (const n of file.written) if (n >= end) file.written.delete(n);
    file.seq++;
    return 0;
  },
});

const rootOps: InodeOperations = {
  setattr: methods.inode.setattr,
  lookup(dir, name) {
    const inode = (dir as ExampleInode).sb.names.get(name);
    if (inode === undefined) return -ENOENT;
    ihold(inode);
    return inode;
  },
  create(dir, name, mode) {
    const { sb } = dir as ExampleInode;
    const inode = new ExampleInode(
      sb,
      sb.nextIno++,
      S_IFREG | mode,
      methods.inode,
      methods.file,
      methods.mapping,
    );
    insertInode(inode);
    sb.names.set(name, inode);
    return inode;
  },
  unlink(dir, name, victim) {
    (dir as ExampleInode).sb.names.delete(name);
    victim.nlink--;
    return 0;
  },
};

const rootFileOps: FileOperations = {
  iterate: (dir) =>
    Array.from(
      (dir as ExampleInode).sb.names,
      ([name, { ino }]) => ({ name, ino, type: S_IFREG }),
    ),
};

const superOps: SuperOperations = {
  evictInode() {},
  syncFs: (sb) => blkdevIssueFlush(sb.bdev),
  putSuper: () => 0,
  statfs(sb) {
    const blocks = Math.floor(sb.bdev.nrSectors / 8);
    const blocksFree = blocks - (sb as ExampleSuper).nextAddr / BLOCK;
    return { blockSize: BLOCK, blocks, blocksFree, files: 0, filesFree: 0 };
  },
};

/** What a file is and where it lies is in memory alone: an unmount forgets it. */
export const exampleFs: FileSystemType = {
  name: "example",
  mount(bdev, mm) {
    const sb = new ExampleSuper(bdev, mm, superOps);
    sb.maxBytes = EXTENT;
    const mode = S_IFDIR | 0o755;
    const { mapping } = methods;
    sb.root = new ExampleInode(sb, 1, mode, rootOps, rootFileOps, mapping);
    insertInode(sb.root);
    return sb;
  },
};
