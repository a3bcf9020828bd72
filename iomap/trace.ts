/**
 * Tracepoints: what the kernel's `iomap` event group shows, as plain objects, and
 * the text that /sys/kernel/tracing/trace would show for them.
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
  IOCB_AIO_RW,
  IOCB_ALLOC_CACHE,
  IOCB_APPEND,
  IOCB_ATOMIC,
  IOCB_DIO_CALLER_COMP,
  IOCB_DIRECT,
  IOCB_DONTCACHE,
  IOCB_DSYNC,
  IOCB_EVENTFD,
  IOCB_HAS_METADATA,
  IOCB_HIPRI,
  IOCB_NOIO,
  IOCB_NOWAIT,
  IOCB_SYNC,
  IOCB_SYNC_CALL,
  IOCB_WAITQ,
  IOCB_WRITE,
  isSyncKiocb,
  type Kiocb,
} from "../fs/kiocb.ts";
import {
  type FlagNames,
  printFlags,
  printHex,
  traceFile,
  traceLine,
} from "../lib/trace-file.ts";
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
  IOMAP_F_BUFFER_HEAD,
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

const TYPES = ["HOLE", "DELALLOC", "MAPPED", "UNWRITTEN", "INLINE"];
const MAP_FLAGS: FlagNames = [
  [IOMAP_F_NEW, "NEW"],
  [IOMAP_F_DIRTY, "DIRTY"],
  [IOMAP_F_SHARED, "SHARED"],
  [IOMAP_F_MERGED, "MERGED"],
  [IOMAP_F_BUFFER_HEAD, "BH"],
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
  [IOCB_EVENTFD, "EVENTFD"],
  [IOCB_DIRECT, "DIRECT"],
  [IOCB_WRITE, "WRITE"],
  [IOCB_WAITQ, "WAITQ"],
  [IOCB_NOIO, "NOIO"],
  [IOCB_ALLOC_CACHE, "ALLOC_CACHE"],
  [IOCB_DIO_CALLER_COMP, "CALLER_COMP"],
  [IOCB_AIO_RW, "AIO_RW"],
  [IOCB_HAS_METADATA, "AIO_HAS_METADATA"],
];

/** What every event says: the device as "major:minor", and the inode. */
export interface IomapTraceInode {
  /** When, nanoseconds of the device's clock. */
  time: number;
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

/** A mapping. */
export interface IomapTraceMapping extends IomapTraceInode {
  /** Device address, bytes; `IOMAP_NULL_ADDR` where there is none. */
  addr: number;
  /** Bytes. */
  offset: number;
  /** Bytes. */
  length: number;
  /** `IOMAP_HOLE` and so on. */
  type: number;
  /** `IOMAP_F_*`. */
  flags: number;
  /** Device of `addr` as "major:minor"; "0:0" where there is none. */
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
  /** `IOMAP_WRITE` and so on. */
  flags: number;
  /** The file system's callbacks. */
  ops: IomapOps;
  /** Library function that walks, by its kernel name. */
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
  /** `IOCB_*`. WRITE is there only if the call is asynchronous, as in the kernel. */
  kiFlags: number;
  /** `IOMAP_DIO_FORCE_WAIT` and so on. */
  dioFlags: number;
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
  /** As in {@linkcode IomapTraceDioBegin}. */
  kiFlags: number;
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

function devName(bdev: BlockDevice | null): string {
  return bdev === null ? "0:0" : `${bdev.dev.major}:${bdev.dev.minor}`;
}

function inodeFields(inode: Inode): IomapTraceInode {
  const { bdev } = inode.sb;
  return { time: bdev.clock.now(), dev: devName(bdev), ino: inode.ino };
}

function mapFields(inode: Inode, iomap: Iomap): IomapTraceMapping {
  return {
    ...inodeFields(inode),
    addr: iomap.addr,
    offset: iomap.offset,
    length: iomap.length,
    type: iomap.type,
    flags: iomap.flags,
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
  const { inode, pos, status, flags, caller, iomap } = iter;
  // Before the first mapping the kernel takes 0 - pos, unsigned, for its end.
  const first = iomap.length === 0;
  const length = first ? (pos === 0 ? 0 : iter.len) : iomapLength(iter);
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

function kiFlags(iocb: Kiocb): number {
  const ours = isSyncKiocb(iocb) ? IOCB_WRITE | IOCB_SYNC_CALL : IOCB_SYNC_CALL;
  return iocb.flags & ~ours;
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
    kiFlags: kiFlags(iocb),
    dioFlags,
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
    kiFlags: kiFlags(iocb),
    aio: !isSyncKiocb(iocb),
    error,
    ret,
  });
}

/** Name of a mapping's type, `"HOLE"` and so on; a number that is none in hex. */
export function iomapTypeName(type: number): string {
  return TYPES[type] ?? printHex(type);
}

/** Names of a mapping's `IOMAP_F_*` flags, `"NEW|DIRTY"`. */
export function iomapFlagNames(flags: number): string {
  return printFlags(MAP_FLAGS, flags);
}

/** Names of the flags that a file system is called with, `"WRITE|DIRECT"`. */
export function iomapOpFlagNames(flags: number): string {
  return printFlags(OP_FLAGS, flags);
}

function formatMapping(event: IomapTraceMapping): string {
  const { addr, offset, length, type, flags } = event;
  return `addr ${printHex(addr)} offset ${printHex(offset)} ` +
    `length ${printHex(length)} type ${iomapTypeName(type)} ` +
    `(${printHex(type)}) flags ${iomapFlagNames(flags)} (${printHex(flags)})`;
}

function formatIter(event: IomapTraceIter): string {
  const { pos, length, status, flags, ops, caller } = event;
  return `pos ${printHex(pos)} length ${printHex(length)} status ${status} ` +
    `flags ${iomapOpFlagNames(flags)} (${printHex(flags)}) ` +
    `ops ${ops.name ?? "iomap_ops"} caller ${caller}`;
}

function formatDioBegin(event: IomapTraceDioBegin): string {
  const { isize, pos, count, doneBefore, kiFlags, dioFlags, aio } = event;
  return `size ${printHex(isize)} offset ${printHex(pos)} ` +
    `length ${printHex(count)} done_before ${printHex(doneBefore)} ` +
    `flags ${printFlags(KI_FLAGS, kiFlags)} ` +
    `dio_flags ${printFlags(DIO_FLAGS, dioFlags)} aio ${Number(aio)}`;
}

function formatDioComplete(event: IomapTraceDioComplete): string {
  const { isize, pos, kiFlags, aio, error, ret } = event;
  return `size ${printHex(isize)} offset ${printHex(pos)} ` +
    `flags ${printFlags(KI_FLAGS, kiFlags)} aio ${Number(aio)} ` +
    `error ${error} ret ${ret}`;
}

function formatFields(event: IomapTraceEvent): string {
  switch (event.name) {
    case "iomap_readpage":
    case "iomap_readahead":
      return `nr_pages ${event.nrPages}`;
    case "iomap_iter":
      return formatIter(event);
    case "iomap_iter_dstmap":
    case "iomap_iter_srcmap":
      return `bdev ${event.bdev} ${formatMapping(event)}`;
    case "iomap_add_to_ioend":
      return `bdev ${event.bdev} pos ${printHex(event.pos)} ` +
        `dirty len ${printHex(event.dirtyLen)} ${formatMapping(event)}`;
    case "iomap_dio_rw_begin":
      return formatDioBegin(event);
    case "iomap_dio_complete":
      return formatDioComplete(event);
    default:
      return `size ${printHex(event.size)} offset ${printHex(event.offset)} ` +
        `length ${printHex(event.length)}`;
  }
}

/** An event as a line of the kernel's trace file, without the line's end. Where that
 * shows an address of code, this shows a name. */
export function formatIomapTrace(event: IomapTraceEvent): string {
  const fields = `dev ${event.dev} ino ${printHex(event.ino)} ` +
    formatFields(event);
  return traceLine(event.time, event.name, fields);
}

/** Events as the kernel's trace file shows them (/sys/kernel/tracing/trace). */
export function printIomapTrace(events: readonly IomapTraceEvent[]): string {
  return traceFile(events.map(formatIomapTrace));
}
