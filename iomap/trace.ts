/**
 * Tracepoints: what the kernel's `iomap` event group shows, as plain objects.
 *
 * While nobody listens a tracepoint costs one comparison with null: its caller
 * looks at {@linkcode tracer} before it calls anything here.
 *
 * Kernel counterpart: fs/iomap/trace.h.
 *
 * @module
 */

import type { BlockDevice } from "../block/blkdev.ts";
import type { Inode } from "../fs/fs.ts";
import {
  IOCB_APPEND,
  IOCB_ATOMIC,
  IOCB_DIO_CALLER_COMP,
  IOCB_DIRECT,
  IOCB_DONTCACHE,
  IOCB_DSYNC,
  IOCB_HIPRI,
  IOCB_NOIO,
  IOCB_NOWAIT,
  IOCB_SYNC,
  IOCB_WRITE,
  isSyncKiocb,
  type Kiocb,
} from "../fs/kiocb.ts";
import {
  type Iomap,
  IOMAP_ATOMIC,
  IOMAP_DAX,
  IOMAP_DIO_FORCE_WAIT,
  IOMAP_DIO_OVERWRITE_ONLY,
  IOMAP_DIO_PARTIAL,
  IOMAP_DIRECT,
  IOMAP_DONTCACHE,
  IOMAP_F_ANON_WRITE,
  IOMAP_F_ATOMIC_BIO,
  IOMAP_F_BOUNDARY,
  IOMAP_F_DIRTY,
  IOMAP_F_MERGED,
  IOMAP_F_NEW,
  IOMAP_F_PRIVATE,
  IOMAP_F_SHARED,
  IOMAP_F_SIZE_CHANGED,
  IOMAP_F_STALE,
  IOMAP_F_XATTR,
  IOMAP_FAULT,
  IOMAP_HOLE,
  IOMAP_NOWAIT,
  IOMAP_OVERWRITE_ONLY,
  IOMAP_REPORT,
  IOMAP_UNSHARE,
  IOMAP_WRITE,
  IOMAP_ZERO,
  type IomapIter,
  iomapLength,
  type IomapOps,
} from "./iomap.ts";

type FlagNames = readonly (readonly [number, string])[];

const TYPES = ["HOLE", "DELALLOC", "MAPPED", "UNWRITTEN", "INLINE"];
const MAP_FLAGS: FlagNames = [
  [IOMAP_F_NEW, "NEW"],
  [IOMAP_F_DIRTY, "DIRTY"],
  [IOMAP_F_SHARED, "SHARED"],
  [IOMAP_F_MERGED, "MERGED"],
  [IOMAP_F_XATTR, "XATTR"],
  [IOMAP_F_BOUNDARY, "BOUNDARY"],
  [IOMAP_F_ANON_WRITE, "ANON_WRITE"],
  [IOMAP_F_ATOMIC_BIO, "ATOMIC_BIO"],
  [IOMAP_F_PRIVATE, "PRIVATE"],
  [IOMAP_F_SIZE_CHANGED, "SIZE_CHANGED"],
  [IOMAP_F_STALE, "STALE"],
];
const OP_FLAGS: FlagNames = [
  [IOMAP_WRITE, "WRITE"],
  [IOMAP_ZERO, "ZERO"],
  [IOMAP_REPORT, "REPORT"],
  [IOMAP_FAULT, "FAULT"],
  [IOMAP_DIRECT, "DIRECT"],
  [IOMAP_NOWAIT, "NOWAIT"],
  [IOMAP_OVERWRITE_ONLY, "OVERWRITE_ONLY"],
  [IOMAP_UNSHARE, "UNSHARE"],
  [IOMAP_DAX, "DAX"],
  [IOMAP_ATOMIC, "ATOMIC"],
  [IOMAP_DONTCACHE, "DONTCACHE"],
];
const DIO_FLAGS: FlagNames = [
  [IOMAP_DIO_FORCE_WAIT, "DIO_FORCE_WAIT"],
  [IOMAP_DIO_OVERWRITE_ONLY, "DIO_OVERWRITE_ONLY"],
  [IOMAP_DIO_PARTIAL, "DIO_PARTIAL"],
];
const KI_FLAGS: FlagNames = [
  [IOCB_HIPRI, "HIPRI"],
  [IOCB_DSYNC, "DSYNC"],
  [IOCB_SYNC, "SYNC"],
  [IOCB_NOWAIT, "NOWAIT"],
  [IOCB_APPEND, "APPEND"],
  [IOCB_ATOMIC, "ATOMIC"],
  [IOCB_DONTCACHE, "DONTCACHE"],
  [IOCB_DIRECT, "DIRECT"],
  [IOCB_WRITE, "WRITE"],
  [IOCB_NOIO, "NOIO"],
  [IOCB_DIO_CALLER_COMP, "CALLER_COMP"],
];

/** What every event says: the device as "major:minor", and the inode. */
export interface IomapTraceInode {
  /** Device of the file system. */
  dev: string;
  /** Inode number. */
  ino: number;
}

/** Buffered reads: how many pages are wanted. */
export interface IomapTraceReadpage extends IomapTraceInode {
  /** Kernel name of the event. */
  name: "iomap_readpage" | "iomap_readahead";
  /** Pages. */
  nrPages: number;
}

/** Something that happens to a range of a file. */
export interface IomapTraceRange extends IomapTraceInode {
  /** Kernel name of the event. */
  name:
    | "iomap_writeback_folio"
    | "iomap_release_folio"
    | "iomap_invalidate_folio"
    | "iomap_dio_invalidate_fail"
    | "iomap_dio_rw_queued"
    | "iomap_zero_iter";
  /** i_size, bytes. */
  size: number;
  /** Bytes. */
  offset: number;
  /** Bytes. */
  length: number;
}

/** A mapping, as its fields print. */
export interface IomapTraceMapping extends IomapTraceInode {
  /** Device address, bytes; -1 where there is none. */
  addr: number;
  /** Bytes. */
  offset: number;
  /** Bytes. */
  length: number;
  /** `"HOLE"`, `"MAPPED"` … */
  type: string;
  /** `"NEW"`, `"SHARED"` … */
  flags: string[];
  /** Device of `addr` as "major:minor", or "". */
  bdev: string;
}

/** A mapping was obtained. */
export interface IomapTraceIterMap extends IomapTraceMapping {
  /** Kernel name of the event. */
  name: "iomap_iter_dstmap" | "iomap_iter_srcmap";
}

/** Dirty bytes go to an ioend under the mapping that the other fields show. */
export interface IomapTraceAddToIoend extends IomapTraceMapping {
  /** Kernel name of the event. */
  name: "iomap_add_to_ioend";
  /** Bytes. */
  pos: number;
  /** Bytes. */
  dirtyLen: number;
}

/** A walk goes on. */
export interface IomapTraceIter extends IomapTraceInode {
  /** Kernel name of the event. */
  name: "iomap_iter";
  /** Bytes. */
  pos: number;
  /** Bytes left in the mapping that ends. */
  length: number;
  /** What the body met: 0 or a negative errno. */
  status: number;
  /** `"WRITE"`, `"ZERO"` … */
  flags: string[];
  /** The file system's callbacks. */
  ops: IomapOps;
  /** Library function that walks. */
  caller: string;
}

/** Direct I/O begins. */
export interface IomapTraceDioBegin extends IomapTraceInode {
  /** Kernel name of the event. */
  name: "iomap_dio_rw_begin";
  /** Bytes. */
  isize: number;
  /** Bytes. */
  pos: number;
  /** Bytes. */
  count: number;
  /** Bytes. */
  doneBefore: number;
  /** `"DIRECT"`, `"WRITE"` … */
  kiFlags: string[];
  /** `"DIO_FORCE_WAIT"` … */
  dioFlags: string[];
  /** Whether the call may return before the I/O is done. */
  aio: boolean;
}

/** Direct I/O has ended. */
export interface IomapTraceDioComplete extends IomapTraceInode {
  /** Kernel name of the event. */
  name: "iomap_dio_complete";
  /** Bytes. */
  isize: number;
  /** Bytes; behind what was done. */
  pos: number;
  /** `"DIRECT"`, `"WRITE"` … */
  kiFlags: string[];
  /** Whether the call might have returned before the I/O was done. */
  aio: boolean;
  /** 0 or the negative errno that the I/O met. */
  error: number;
  /** What the call answers. */
  ret: number;
}

/** One tracepoint hit; `name` is the kernel's. */
export type IomapTraceEvent =
  | IomapTraceReadpage
  | IomapTraceRange
  | IomapTraceIterMap
  | IomapTraceAddToIoend
  | IomapTraceIter
  | IomapTraceDioBegin
  | IomapTraceDioComplete;

/** Who listens, or null. */
export let tracer: ((event: IomapTraceEvent) => void) | null = null;

/**
 * Switches the tracepoints on and off for the whole program.
 *
 * @param listener Called in place with each event; null switches them off.
 */
export function setIomapTracer(
  listener: ((event: IomapTraceEvent) => void) | null,
): void {
  tracer = listener;
}

function names(table: FlagNames, flags: number): string[] {
  return table.filter(([bit]) => (flags & bit) !== 0).map(([, name]) => name);
}

function devName(bdev: BlockDevice | null): string {
  return bdev === null ? "" : `${bdev.dev.major}:${bdev.dev.minor}`;
}

function inodeFields(inode: Inode): IomapTraceInode {
  return { dev: devName(inode.sb.bdev), ino: inode.ino };
}

function mapFields(inode: Inode, iomap: Iomap): IomapTraceMapping {
  return {
    ...inodeFields(inode),
    addr: iomap.addr,
    offset: iomap.offset,
    length: iomap.length,
    type: TYPES[iomap.type] ?? String(iomap.type),
    flags: names(MAP_FLAGS, iomap.flags),
    bdev: devName(iomap.bdev),
  };
}

/** Event `iomap_readpage` or `iomap_readahead`. */
export function traceIomapReadpage(
  name: IomapTraceReadpage["name"],
  inode: Inode,
  nrPages: number,
): void {
  tracer?.({ name, ...inodeFields(inode), nrPages });
}

/** The events that show a range. */
export function traceIomapRange(
  name: IomapTraceRange["name"],
  inode: Inode,
  offset: number,
  length: number,
): void {
  const { size } = inode;
  tracer?.({ name, ...inodeFields(inode), size, offset, length });
}

/** Event `iomap_iter`. */
export function traceIomapIter(iter: IomapIter, ops: IomapOps): void {
  const { inode, pos, status, caller, iomap } = iter;
  // Before the first mapping the kernel takes 0 - pos, unsigned, for its end.
  const first = iomap.length === 0;
  const length = first ? (pos === 0 ? 0 : iter.len) : iomapLength(iter);
  const flags = names(OP_FLAGS, iter.flags);
  tracer?.({
    name: "iomap_iter",
    ...inodeFields(inode),
    pos,
    length,
    status,
    flags,
    ops,
    caller,
  });
}

/** Events `iomap_iter_dstmap` and, where there is a source, `iomap_iter_srcmap`. */
export function traceIomapIterMaps(iter: IomapIter): void {
  const { inode, iomap, srcmap } = iter;
  tracer?.({ name: "iomap_iter_dstmap", ...mapFields(inode, iomap) });
  if (srcmap.type !== IOMAP_HOLE) {
    tracer?.({ name: "iomap_iter_srcmap", ...mapFields(inode, srcmap) });
  }
}

/** Event `iomap_add_to_ioend`. */
export function traceIomapAddToIoend(
  inode: Inode,
  pos: number,
  dirtyLen: number,
  iomap: Iomap,
): void {
  tracer?.({
    name: "iomap_add_to_ioend",
    ...mapFields(inode, iomap),
    pos,
    dirtyLen,
  });
}

/** Event `iomap_dio_rw_begin`. */
export function traceIomapDioRwBegin(
  iocb: Kiocb,
  count: number,
  dioFlags: number,
  doneBefore: number,
): void {
  const { inode } = iocb.file;
  tracer?.({
    name: "iomap_dio_rw_begin",
    ...inodeFields(inode),
    isize: inode.size,
    pos: iocb.pos,
    count,
    doneBefore,
    kiFlags: names(KI_FLAGS, iocb.flags),
    dioFlags: names(DIO_FLAGS, dioFlags),
    aio: !isSyncKiocb(iocb),
  });
}

/** Event `iomap_dio_complete`. */
export function traceIomapDioComplete(
  iocb: Kiocb,
  error: number,
  ret: number,
): void {
  const { inode } = iocb.file;
  tracer?.({
    name: "iomap_dio_complete",
    ...inodeFields(inode),
    isize: inode.size,
    pos: iocb.pos,
    kiFlags: names(KI_FLAGS, iocb.flags),
    aio: !isSyncKiocb(iocb),
    error,
    ret,
  });
}
