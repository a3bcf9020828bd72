/**
 * Geometry: how many blocks and groups there are, and where inodes lie.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_format.h, xfs_types.c.
 *
 * @module
 */

/** Bytes of an inode on disk. */
export const INODE_SIZE = 512;
/** Bytes of the headers of a group: four sectors (kernel: `XFS_AGFL_DADDR`). */
const AG_HEADER_BYTES = 2048;
/** Blocks after the headers for the roots of trees and their free list. */
const AG_ROOT_BLOCKS = 9;
/** Smallest allocation group, bytes (kernel: `XFS_AG_MIN_BYTES`). */
export const AG_MIN_BYTES: number = 16 * 2 ** 20;
/** Smallest block, bytes. */
export const MIN_BLOCKSIZE = 512;
/** Largest block, bytes. */
export const MAX_BLOCKSIZE = 4096;

/** Sizes that never change while mounted (kernel: `struct xfs_sb`, `xfs_ino_geometry`). */
export class XfsGeometry {
  /** log2 of `blockSize`. */
  readonly blockLog: number;
  /** Bytes of a block. */
  readonly blockSize: number;
  /** Blocks of an allocation group; the last one may be shorter. */
  readonly agBlocks: number;
  /** Allocation groups. */
  readonly agCount: number;
  /** Blocks of the file system. */
  readonly dblocks: number;
  /** Blocks at the start of each group that hold headers and roots. */
  readonly headerBlocks: number;
  /** Inodes in a block. */
  readonly inodesPerBlock: number;
  /** Blocks of 64 inodes. */
  readonly chunkBlocks: number;
  /** Inode numbers that belong to a group. */
  readonly #agInodes: number;

  /**
   * Works out the rest from the four sizes that the super block has.
   *
   * @param blockSize Bytes, a power of two.
   * @param dblocks Blocks in all.
   * @param agCount Groups.
   * @param agBlocks Blocks of each but the last.
   */
  constructor(
    blockSize: number,
    dblocks: number,
    agCount: number,
    agBlocks: number,
  ) {
    this.blockSize = blockSize;
    this.blockLog = Math.log2(blockSize);
    this.dblocks = dblocks;
    this.agCount = agCount;
    this.agBlocks = agBlocks;
    this.headerBlocks = Math.ceil(AG_HEADER_BYTES / blockSize) +
      AG_ROOT_BLOCKS;
    this.inodesPerBlock = blockSize / INODE_SIZE;
    this.chunkBlocks = 64 / this.inodesPerBlock;
    const agBlockLog = Math.ceil(Math.log2(agBlocks));
    this.#agInodes = 2 ** agBlockLog * this.inodesPerBlock;
  }

  /** Blocks of group `agno`. */
  agSize(agno: number): number {
    return agno < this.agCount - 1
      ? this.agBlocks
      : this.dblocks - agno * this.agBlocks;
  }

  /** Number of the inode at a place in a group (kernel: `XFS_AGINO_TO_INO`). */
  makeIno(agno: number, agbno: number, index: number): number {
    return agno * this.#agInodes + agbno * this.inodesPerBlock + index;
  }

  /** Group of an inode (kernel: `XFS_INO_TO_AGNO`). */
  inoToAgno(ino: number): number {
    return Math.floor(ino / this.#agInodes);
  }

  /** Block in its group of an inode (kernel: `XFS_INO_TO_AGBNO`). */
  inoToAgbno(ino: number): number {
    return Math.floor(ino % this.#agInodes / this.inodesPerBlock);
  }

  /** Block on the device of an inode (kernel: `XFS_INO_TO_FSB`). */
  inoToFsb(ino: number): number {
    return this.inoToAgno(ino) * this.agBlocks + this.inoToAgbno(ino);
  }

  /** Byte in its block of an inode (kernel: `XFS_INO_TO_OFFSET`). */
  inoToOffset(ino: number): number {
    return ino % this.inodesPerBlock * INODE_SIZE;
  }
}
