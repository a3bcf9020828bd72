/**
 * An image in memory that tests spoil: fields are changed, and checksums mended, so
 * that it is the change that is found.
 *
 * @module
 */

import type { FsckReader } from "../../../fs/xfs/fsck/fsck.ts";
import { bufCrcOk, bufSeal } from "../../../fs/xfs/libxfs/buf.ts";
import * as F from "../../../fs/xfs/libxfs/format.ts";
import { decodeSb, XfsSb } from "../../../fs/xfs/libxfs/sb.ts";
import { DeviceReader } from "../../../fs/xfs/fsck/reader.ts";
import {
  createNvme,
  MemoryMedia,
  type NvmeDevice,
  VirtualClock,
} from "../../../mod.ts";

const MADE_BY_KERNEL = new URL(
  "../../data/xfs/kernel-6.18.img.gz",
  import.meta.url,
);
const MiB = 2 ** 20;
/** Byte of the checksum of blocks that begin with a magic number. */
const CRC_AT = new Map<number, number>([
  [F.XFS_ABTB_CRC_MAGIC, F.SBB_CRC],
  [F.XFS_ABTC_CRC_MAGIC, F.SBB_CRC],
  [F.XFS_IBT_CRC_MAGIC, F.SBB_CRC],
  [F.XFS_FIBT_CRC_MAGIC, F.SBB_CRC],
  [F.XFS_RMAP_CRC_MAGIC, F.SBB_CRC],
  [F.XFS_REFC_CRC_MAGIC, F.SBB_CRC],
  [F.XFS_BMAP_CRC_MAGIC, F.LBB_CRC],
  [F.XFS_DIR3_BLOCK_MAGIC, F.DIR3_CRC],
  [F.XFS_DIR3_DATA_MAGIC, F.DIR3_CRC],
  [F.XFS_DIR3_FREE_MAGIC, F.DIR3_CRC],
  [F.XFS_ATTR3_RMT_MAGIC, F.RMT_CRC],
  [F.XFS_SYMLINK_MAGIC, F.RMT_CRC],
]);
const DA_MAGICS = [
  F.XFS_DIR3_LEAF1_MAGIC,
  F.XFS_DIR3_LEAFN_MAGIC,
  F.XFS_DA3_NODE_MAGIC,
  F.XFS_ATTR3_LEAF_MAGIC,
];

/** Byte, in a block of metadata, of its checksum; -1 for other blocks. */
export function metadataCrcAt(view: DataView, at: number): number {
  const isDa = DA_MAGICS.includes(view.getUint16(at + F.DA3_MAGIC));
  return isDa ? F.DA3_CRC : CRC_AT.get(view.getUint32(at)) ?? -1;
}

/** Bytes of a compressed image. */
async function inflate(url: URL): Promise<Uint8Array<ArrayBuffer>> {
  const file = await Deno.readFile(url);
  const stream = new Blob([file]).stream()
    .pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** An image that can be changed. */
export class Image implements FsckReader {
  readonly data: Uint8Array<ArrayBuffer>;
  readonly sb: XfsSb;

  constructor(data: Uint8Array<ArrayBuffer>) {
    this.data = data;
    const sb = decodeSb(data);
    if (!(sb instanceof XfsSb)) throw new Error(sb.reason);
    this.sb = sb;
  }

  /** The image that the kernel has filled; see tests/data/xfs/README.md. */
  static async kernel(): Promise<Image> {
    return new Image(await inflate(MADE_BY_KERNEL));
  }

  /** What is on a device on which nothing is mounted; the device is closed. */
  static of(device: NvmeDevice): Image {
    const reader = new DeviceReader(device);
    const data = new Uint8Array(reader.size);
    for (let at = 0; at < data.length; at += MiB) {
      reader.read(at, data.subarray(at, at + MiB));
    }
    device.close();
    return new Image(data);
  }

  /** Media that holds it. */
  media(): MemoryMedia {
    const { data } = this;
    const media = new MemoryMedia(data.length);
    for (let at = 0; at < data.length; at += MiB / 16) {
      const part = data.subarray(at, at + MiB / 16);
      if (part.some((byte) => byte !== 0)) {
        media.write(at, part, 0, part.length);
      }
    }
    return media;
  }

  /** A device that holds it. */
  device(): NvmeDevice {
    const media = this.media();
    return createNvme(new VirtualClock(), { media, preset: "null" });
  }

  get size(): number {
    return this.data.length;
  }

  read(at: number, data: Uint8Array): number {
    data.set(this.data.subarray(at, at + data.length));
    return 0;
  }

  /** A copy. */
  fork(): Image {
    return new Image(this.data.slice());
  }

  /** Becomes what another is. */
  restore(other: Image): void {
    this.data.set(other.data);
  }

  #part(at: number, bytes: number): DataView {
    return new DataView(this.data.buffer, this.data.byteOffset + at, bytes);
  }

  /** Changes a stretch that has a checksum. */
  #edit(
    at: number,
    bytes: number,
    crcAt: number,
    change: (view: DataView) => void,
  ): void {
    change(this.#part(at, bytes));
    bufSeal(this.data.subarray(at, at + bytes), crcAt);
  }

  /** Changes a header of a group: 0 super block, 1 AGF, 2 AGI, 3 AGFL. */
  header(agno: number, sector: number, change: (view: DataView) => void): void {
    const crc = [F.SB_CRC, F.AGF_CRC, F.AGI_CRC, F.AGFL_CRC][sector]!;
    const at = this.sb.agHeaderDaddr(agno, sector) * F.BBSIZE;
    this.#edit(at, this.sb.sectsize, crc, change);
  }

  /** Changes a block of metadata. */
  block(agno: number, agbno: number, change: (view: DataView) => void): void {
    const { blocksize, dirblksize } = this.sb;
    const at = this.sb.agbToDaddr(agno, agbno) * F.BBSIZE;
    const crc = CRC_AT.get(this.#part(at, 4).getUint32(0)) ?? F.DA3_CRC;
    const isLarge = bufCrcOk(this.data.subarray(at, at + dirblksize), crc);
    this.#edit(at, isLarge ? dirblksize : blocksize, crc, change);
  }

  /** Changes an inode. */
  inode(ino: number, change: (view: DataView) => void): void {
    this.#edit(this.inodeAt(ino), this.sb.inodesize, F.DI_CRC, change);
  }

  /** Byte at which an inode lies. */
  inodeAt(ino: number): number {
    const { sb } = this;
    const agino = sb.inoToAgino(ino);
    return sb.fsbToByte(sb.agbToFsb(sb.inoToAgno(ino), 0)) +
      agino * sb.inodesize;
  }

  /** An inode, to be looked at. */
  viewInode(ino: number): DataView {
    return this.#part(this.inodeAt(ino), this.sb.inodesize);
  }

  /** A block, to be looked at. */
  viewBlock(agno: number, agbno: number): DataView {
    const at = this.sb.agbToDaddr(agno, agbno) * F.BBSIZE;
    return this.#part(at, this.sb.blocksize);
  }

  /** A header of a group, to be looked at. */
  viewHeader(agno: number, sector: number): DataView {
    const at = this.sb.agHeaderDaddr(agno, sector) * F.BBSIZE;
    return this.#part(at, this.sb.sectsize);
  }

  /** First block in use of group 0 with a magic number that passes a test. */
  find(
    magic: number,
    test: (view: DataView) => boolean = () => true,
  ): number {
    const isDa = DA_MAGICS.includes(magic);
    for (let agbno = this.sb.headerBlocks; agbno < this.sb.agSize(0); agbno++) {
      const view = this.viewBlock(0, agbno);
      const has = isDa ? view.getUint16(F.DA3_MAGIC) : view.getUint32(0);
      const daddr = this.sb.agbToDaddr(0, agbno);
      const self = isDa ? view.getUint32(F.DA3_BLKNO + 4) : daddr;
      if (has === magic && self === daddr && test(view)) return agbno;
    }
    throw new Error(`no block has magic 0x${magic.toString(16)}`);
  }

  /** First inode in use that passes a test. */
  findInode(test: (view: DataView) => boolean): number {
    for (let ino = this.sb.rootino; ino < 100_000; ino++) {
      const view = this.viewInode(ino);
      const isInode = view.getUint16(F.DI_MAGIC) === F.XFS_DINODE_MAGIC &&
        view.getUint32(F.DI_INO + 4) === ino &&
        view.getUint16(F.DI_MODE) !== 0;
      if (isInode && test(view)) return ino;
    }
    throw new Error("no inode is such");
  }
}
