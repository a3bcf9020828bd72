/**
 * Tracepoints: what the kernel's `block` event group shows, as plain objects, and
 * the text that /sys/kernel/tracing/trace would show for them.
 *
 * While nobody listens a tracepoint costs one comparison with null: its caller
 * looks at {@linkcode blockTracer} before it calls anything here.
 *
 * Kernel counterpart: include/trace/events/block.h, kernel/trace/blktrace.c.
 *
 * @module
 */

import { type Bio, BIO_TRACE_COMPLETION } from "./bio.ts";
import { plug } from "./blk-plug.ts";
import type { Request } from "./blk-request.ts";
import {
  blkStatusToErrno,
  REQ_ATOMIC,
  REQ_FUA,
  REQ_META,
  REQ_OP_DISCARD,
  REQ_OP_DRV_IN,
  REQ_OP_FLUSH,
  REQ_OP_MASK,
  REQ_OP_READ,
  REQ_OP_SECURE_ERASE,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_OP_ZONE_APPEND,
  REQ_OP_ZONE_CLOSE,
  REQ_OP_ZONE_FINISH,
  REQ_OP_ZONE_OPEN,
  REQ_OP_ZONE_RESET,
  REQ_OP_ZONE_RESET_ALL,
  REQ_PREFLUSH,
  REQ_RAHEAD,
  REQ_SYNC,
  SECTOR_SIZE,
} from "./blk-types.ts";
import type { BlockDevice } from "./blkdev.ts";
import { throwLater } from "../lib/clock.ts";
import { traceFile, traceLine } from "../lib/trace-file.ts";

/** What every event says. */
export interface BlockTraceTime {
  /** When, nanoseconds of the device's clock. */
  time: number;
}

/** What an event about a device says. */
export interface BlockTraceDevice extends BlockTraceTime {
  /** The device as "major,minor". */
  dev: string;
  /** Operation and flags; see {@linkcode blkFillRwbs}. */
  rwbs: string;
  /** First 512-byte sector. */
  sector: number;
}

/** Something that happens to a bio. */
export interface BlockTraceBio extends BlockTraceDevice {
  /** Kernel name of the event. */
  name:
    | "block_bio_queue"
    | "block_bio_backmerge"
    | "block_bio_frontmerge"
    | "block_getrq";
  /** Sectors. */
  nrSector: number;
}

/** A bio ends that no request was made of, or that a stacked device has sent on. */
export interface BlockTraceBioEnd extends BlockTraceDevice {
  /** Kernel name of the event. */
  name: "block_bio_complete";
  /** Sectors. */
  nrSector: number;
  /** 0 or a negative errno. */
  error: number;
}

/** A bio goes in parts. */
export interface BlockTraceSplit extends BlockTraceDevice {
  /** Kernel name of the event. */
  name: "block_split";
  /** Where the rest begins. */
  newSector: number;
}

/** A bio goes to another device. */
export interface BlockTraceRemap extends BlockTraceDevice {
  /** Kernel name of the event. */
  name: "block_bio_remap";
  /** Sectors. */
  nrSector: number;
  /** The device that it was for as "major,minor". */
  oldDev: string;
  /** Its first sector there. */
  oldSector: number;
}

/** A request waits, or goes to the driver. */
export interface BlockTraceRq extends BlockTraceDevice {
  /** Kernel name of the event. */
  name: "block_rq_insert" | "block_rq_issue";
  /** Sectors. */
  nrSector: number;
  /** Bytes. */
  bytes: number;
  /** Priority class and level of its first bio. */
  ioprio: number;
}

/** A request, or its first bytes, come back from the driver. */
export interface BlockTraceRqEnd extends BlockTraceDevice {
  /** Kernel name of the event. */
  name: "block_rq_requeue" | "block_rq_complete" | "block_rq_error";
  /** Sectors. */
  nrSector: number;
  /** 0 or a negative errno. */
  error: number;
  /** Priority class and level of its first bio. */
  ioprio: number;
}

/** A task begins to hold requests back. */
export interface BlockTracePlug extends BlockTraceTime {
  /** Kernel name of the event. */
  name: "block_plug";
}

/** A task sends what it has held back. */
export interface BlockTraceUnplug extends BlockTraceTime {
  /** Kernel name of the event. */
  name: "block_unplug";
  /** Requests. */
  nrRq: number;
}

/** What a tracer gets. */
export type BlockTraceEvent =
  | BlockTraceBio
  | BlockTraceBioEnd
  | BlockTraceSplit
  | BlockTraceRemap
  | BlockTraceRq
  | BlockTraceRqEnd
  | BlockTracePlug
  | BlockTraceUnplug;

/** Who listens, or null. */
export let blockTracer: ((event: BlockTraceEvent) => void) | null = null;

/**
 * Sets who is told of every event (kernel: /sys/kernel/tracing/events/block/enable).
 *
 * @param tracer Called synchronously; must not do I/O. What it throws is thrown by an
 *   event of the device's clock. Null: nobody.
 */
export function setBlockTracer(
  tracer: ((event: BlockTraceEvent) => void) | null,
): void {
  blockTracer = tracer;
}

const OP_LETTERS: ReadonlyMap<number, string> = new Map([
  [REQ_OP_READ, "R"],
  [REQ_OP_WRITE, "W"],
  [REQ_OP_FLUSH, "F"],
  [REQ_OP_DISCARD, "D"],
  [REQ_OP_SECURE_ERASE, "DE"],
  [REQ_OP_WRITE_ZEROES, "WZ"],
  [REQ_OP_ZONE_APPEND, "ZA"],
  [REQ_OP_ZONE_OPEN, "ZO"],
  [REQ_OP_ZONE_CLOSE, "ZC"],
  [REQ_OP_ZONE_FINISH, "ZF"],
  [REQ_OP_ZONE_RESET, "ZR"],
  [REQ_OP_ZONE_RESET_ALL, "ZRA"],
]);

/**
 * Operation and flags as letters (kernel: `blk_fill_rwbs`): F before the operation
 * for PREFLUSH; R, W, D …, N for what has none; then F for FUA, A for RAHEAD, S
 * for SYNC, M for META, U for ATOMIC.
 */
export function blkFillRwbs(opf: number): string {
  let rwbs = (opf & REQ_PREFLUSH) !== 0 ? "F" : "";
  rwbs += OP_LETTERS.get(opf & REQ_OP_MASK) ?? "N";
  if ((opf & REQ_FUA) !== 0) rwbs += "F";
  if ((opf & REQ_RAHEAD) !== 0) rwbs += "A";
  if ((opf & REQ_SYNC) !== 0) rwbs += "S";
  if ((opf & REQ_META) !== 0) rwbs += "M";
  if ((opf & REQ_ATOMIC) !== 0) rwbs += "U";
  return rwbs;
}

function devOf(bdev: BlockDevice): string {
  return `${bdev.dev.major},${bdev.dev.minor}`;
}

/** Tells of an event. What is going on has to go on, whatever a tracer throws. */
function tell({ clock }: BlockDevice, event: BlockTraceEvent): void {
  try {
    blockTracer?.(event);
  } catch (error) {
    throwLater(clock, error);
  }
}

/** Something has happened to a bio. */
export function traceBlockBio(name: BlockTraceBio["name"], bio: Bio): void {
  const { bdev } = bio;
  tell(bdev, {
    name,
    time: bdev.clock.now(),
    dev: devOf(bdev),
    rwbs: blkFillRwbs(bio.opf),
    sector: bio.sector,
    nrSector: bio.size / SECTOR_SIZE,
  });
}

/** A bio has been submitted; what is left of it after a split is no other. */
export function traceBlockQueue(bio: Bio): void {
  if ((bio.flags & BIO_TRACE_COMPLETION) !== 0) return;
  bio.flags |= BIO_TRACE_COMPLETION;
  traceBlockBio("block_bio_queue", bio);
}

/** A bio has ended whose end no request tells. */
export function traceBlockBioComplete(bio: Bio): void {
  const { bdev } = bio;
  tell(bdev, {
    name: "block_bio_complete",
    time: bdev.clock.now(),
    dev: devOf(bdev),
    rwbs: blkFillRwbs(bio.opf),
    sector: bio.sector,
    nrSector: bio.size / SECTOR_SIZE,
    error: blkStatusToErrno(bio.status),
  });
}

/** The front of a bio goes first, and the rest begins at `newSector`. */
export function traceBlockSplit(front: Bio, newSector: number): void {
  const { bdev } = front;
  tell(bdev, {
    name: "block_split",
    time: bdev.clock.now(),
    dev: devOf(bdev),
    rwbs: blkFillRwbs(front.opf),
    sector: front.sector,
    newSector,
  });
}

/** A bio that was for `old`, there at `oldSector`, has got a new device and sector. */
export function traceBlockRemap(
  bio: Bio,
  old: BlockDevice,
  oldSector: number,
): void {
  const { bdev } = bio;
  tell(bdev, {
    name: "block_bio_remap",
    time: bdev.clock.now(),
    dev: devOf(bdev),
    rwbs: blkFillRwbs(bio.opf),
    sector: bio.sector,
    nrSector: bio.size / SECTOR_SIZE,
    oldDev: devOf(old),
    oldSector,
  });
}

/** What a request says of itself; one of the driver's own has no range. */
function fieldsOf(rq: Request, bytes: number) {
  const { device } = rq.hctx.queue;
  const isRange = rq.bio !== null && (rq.opf & REQ_OP_MASK) < REQ_OP_DRV_IN;
  return {
    time: device.clock.now(),
    dev: devOf(device),
    rwbs: blkFillRwbs(rq.opf),
    sector: isRange ? rq.sector : 0,
    nrSector: isRange ? bytes / SECTOR_SIZE : 0,
    ioprio: rq.bio?.ioprio ?? 0,
  };
}

/** A request waits, or goes to the driver. */
export function traceBlockRq(name: BlockTraceRq["name"], rq: Request): void {
  const bytes = rq.bio === null ? 0 : rq.size;
  tell(rq.hctx.queue.device, { name, ...fieldsOf(rq, bytes), bytes });
}

/** A request goes back to be sent again. */
export function traceBlockRequeue(rq: Request): void {
  tell(rq.hctx.queue.device, {
    name: "block_rq_requeue",
    ...fieldsOf(rq, rq.size),
    error: 0,
  });
}

/** The first bytes of a request have ended. */
export function traceBlockRqEnd(
  rq: Request,
  status: number,
  bytes: number,
): void {
  const fields = fieldsOf(rq, bytes);
  const error = blkStatusToErrno(status);
  const { device } = rq.hctx.queue;
  tell(device, { name: "block_rq_complete", ...fields, error });
  if (error !== 0) tell(device, { name: "block_rq_error", ...fields, error });
}

/** The first request is held back. */
export function traceBlockPlug(rq: Request): void {
  const { device } = rq.hctx.queue;
  tell(device, { name: "block_plug", time: device.clock.now() });
}

/** What is held back goes. */
export function traceBlockUnplug(): void {
  const { device } = plug.list.first!.hctx.queue;
  const time = device.clock.now();
  tell(device, { name: "block_unplug", time, nrRq: plug.count });
}

/** Who does all I/O here. */
const COMM = "iomap";
const IOPRIO_CLASSES = ["none", "rt", "be", "idle"];

/** Kernel: `IOPRIO_PRIO_CLASS` and its like. */
function formatIoprio(ioprio: number): string {
  const name = IOPRIO_CLASSES[(ioprio >> 13) & 7] ?? "invalid";
  return `${name},${(ioprio >> 3) & 0x3ff},${ioprio & 7}`;
}

function formatFields(event: BlockTraceEvent): string {
  if (event.name === "block_plug") return `[${COMM}]`;
  if (event.name === "block_unplug") return `[${COMM}] ${event.nrRq}`;
  const begin = `${event.dev} ${event.rwbs}`;
  if (event.name === "block_split") {
    return `${begin} ${event.sector} / ${event.newSector} [${COMM}]`;
  }
  const range = `${event.sector} + ${event.nrSector}`;
  switch (event.name) {
    case "block_bio_remap":
      return `${begin} ${range} <- (${event.oldDev}) ${event.oldSector}`;
    case "block_rq_insert":
    case "block_rq_issue": {
      const prio = formatIoprio(event.ioprio);
      return `${begin} ${event.bytes} () ${range} ${prio} [${COMM}]`;
    }
    case "block_rq_requeue":
    case "block_rq_complete":
    case "block_rq_error":
      return `${begin} () ${range} ${
        formatIoprio(event.ioprio)
      } [${event.error}]`;
    case "block_bio_complete":
      return `${begin} ${range} [${event.error}]`;
    default:
      return `${begin} ${range} [${COMM}]`;
  }
}

/** An event as a line of the kernel's trace file, without the line's end. */
export function formatBlockTrace(event: BlockTraceEvent): string {
  return traceLine(event.time, event.name, formatFields(event));
}

/** Events as the kernel's trace file shows them (/sys/kernel/tracing/trace). */
export function printBlockTrace(events: readonly BlockTraceEvent[]): string {
  return traceFile(events.map(formatBlockTrace));
}
