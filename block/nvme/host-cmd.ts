/**
 * From a request to a command, and from a command's status to what becomes of the
 * request: it ends, or is sent again.
 *
 * Kernel counterpart: drivers/nvme/host/core.c.
 *
 * @module
 */

import type { Bio } from "../bio.ts";
import type { Request } from "../blk-mq.ts";
import {
  BLK_STS_INVAL,
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_NOSPC,
  BLK_STS_NOTSUPP,
  BLK_STS_OK,
  BLK_STS_PROTECTION,
  BLK_STS_RESV_CONFLICT,
  BLK_STS_TARGET,
  BLK_STS_TRANSPORT,
  BLK_STS_ZONE_ACTIVE_RESOURCE,
  BLK_STS_ZONE_OPEN_RESOURCE,
  REQ_ATOMIC,
  REQ_FAILFAST_DEV,
  REQ_FAILFAST_MASK,
  REQ_FUA,
  REQ_NOUNMAP,
  REQ_OP_DISCARD,
  REQ_OP_DRV_IN,
  REQ_OP_DRV_OUT,
  REQ_OP_FLUSH,
  REQ_OP_MASK,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_OP_ZONE_APPEND,
  REQ_OP_ZONE_CLOSE,
  REQ_OP_ZONE_FINISH,
  REQ_OP_ZONE_OPEN,
  REQ_OP_ZONE_RESET,
  REQ_OP_ZONE_RESET_ALL,
  REQ_RAHEAD,
  SECTOR_SIZE,
} from "../blk-types.ts";
import type { QueueLimits } from "../blkdev.ts";
import { warnOnOnce } from "../../lib/bug.ts";
import { EINVAL, FsError, show } from "../../lib/errno.ts";
import {
  NVME_CMD_DSM,
  NVME_CMD_FLUSH,
  NVME_CMD_READ,
  NVME_CMD_WRITE,
  NVME_CMD_WRITE_ZEROES,
  NVME_CMD_ZONE_APPEND,
  NVME_CMD_ZONE_MGMT_SEND,
  NVME_DSM_RANGE_SIZE,
  NVME_DSMGMT_AD,
  NVME_NSID,
  NVME_RW_DSM_FREQ_PREFETCH,
  NVME_RW_FUA,
  NVME_RW_LR,
  NVME_SC_ACCESS_DENIED,
  NVME_SC_APPTAG_CHECK,
  NVME_SC_BAD_ATTRIBUTES,
  NVME_SC_CAP_EXCEEDED,
  NVME_SC_CMD_INTERRUPTED,
  NVME_SC_COMPARE_FAILED,
  NVME_SC_GUARD_CHECK,
  NVME_SC_HOST_PATH_ERROR,
  NVME_SC_INVALID_FIELD,
  NVME_SC_INVALID_NS,
  NVME_SC_INVALID_OPCODE,
  NVME_SC_INVALID_PI,
  NVME_SC_LBA_RANGE,
  NVME_SC_NS_NOT_READY,
  NVME_SC_READ_ERROR,
  NVME_SC_READ_ONLY,
  NVME_SC_REFTAG_CHECK,
  NVME_SC_RESERVATION_CONFLICT,
  NVME_SC_SUCCESS,
  NVME_SC_UNWRITTEN_BLOCK,
  NVME_SC_WRITE_FAULT,
  NVME_SC_ZONE_TOO_MANY_ACTIVE,
  NVME_SC_ZONE_TOO_MANY_OPEN,
  NVME_STATUS_DNR,
  NVME_WZ_DEAC,
  NVME_ZONE_CLOSE,
  NVME_ZONE_FINISH,
  NVME_ZONE_OPEN,
  NVME_ZONE_RESET,
  NVME_ZONE_SELECT_ALL,
  SQE_WORDS,
} from "./nvme.ts";
import { bufferMemory, type HostMemory } from "./queue.ts";

/** How often a command is sent again (kernel: `nvme_max_retries`). */
export const NVME_MAX_RETRIES = 5;
/** Status code and its type, without what a completion says beside them. */
const STATUS_MASK = 0x7ff;

/** What commands to a namespace depend on (kernel: `struct nvme_ns_head`). */
export interface NvmeNamespace {
  /** Bytes of a logical block. */
  readonly blockSize: number;
  /** Write Zeroes may deallocate, as what is deallocated reads as zeroes (kernel:
   * `NVME_NS_DEAC`). */
  readonly deac: boolean;
}

/** A command of the user's own (kernel: `struct nvme_passthru_cmd`). */
export interface NvmePassthru {
  /** Opcode. */
  opcode: number;
  /** For the admin queue; for an I/O queue if absent. */
  admin?: boolean;
  /** FUSE in bits 0 and 1; 0 if absent. */
  flags?: number;
  /** Namespace; 1 if absent. */
  nsid?: number;
  /** Word 2; 0 if absent. */
  cdw2?: number;
  /** Word 3; 0 if absent. */
  cdw3?: number;
  /** Word 10; 0 if absent. */
  cdw10?: number;
  /** Word 11; 0 if absent. */
  cdw11?: number;
  /** Word 12; 0 if absent. */
  cdw12?: number;
  /** Word 13; 0 if absent. */
  cdw13?: number;
  /** Word 14; 0 if absent. */
  cdw14?: number;
  /** Word 15; 0 if absent. */
  cdw15?: number;
  /** What the command reads or fills; none if absent. */
  data?: Uint8Array;
}

/** How a command ended. */
export interface NvmeResult {
  /** Status code, its type from bit 8 on, DNR in bit 14; 0 is success. */
  status: number;
  /** First two words of the completion as one number. */
  result: number;
}

const WORDS = [
  "nsid",
  "cdw2",
  "cdw3",
  "cdw10",
  "cdw11",
  "cdw12",
  "cdw13",
  "cdw14",
  "cdw15",
] as const;

/** Checks what a user gives.
 * @throws {FsError} EINVAL, naming the field that cannot be. */
export function checkPassthru(command: NvmePassthru): void {
  if (typeof command !== "object" || command === null) {
    refuse(`it is ${show(command)}, not an object`);
  }
  const { opcode, flags = 0, data } = command;
  if (!isUint(opcode, 8)) refuse(`opcode ${show(opcode)} is no byte`);
  if (!isUint(flags, 8)) refuse(`flags ${show(flags)} is no byte`);
  for (const name of WORDS) {
    const word = command[name] ?? 0;
    if (!isUint(word, 32)) refuse(`${name} ${show(word)} is no 32-bit word`);
  }
  if (data !== undefined && !(data instanceof Uint8Array)) {
    refuse(`data ${show(data)} is no Uint8Array`);
  }
}

function refuse(what: string): never {
  throw new FsError(EINVAL, `Cannot send a command, ${what}`);
}

function isUint(value: unknown, bits: number): boolean {
  return Number.isInteger(value) && (value as number) >= 0 &&
    (value as number) < 2 ** bits;
}

/** What a passthrough bio carries as its `private`. */
export class PassthruCommand implements NvmeResult {
  readonly command: NvmePassthru;
  status = 0;
  result = 0;

  constructor(command: NvmePassthru) {
    this.command = command;
  }
}

/**
 * Writes a request's command into a submission entry (kernel: `nvme_setup_cmd`).
 * The command identifier is left 0.
 *
 * @param sq Submission entries.
 * @param at First word of the entry.
 * @returns `BLK_STS_OK`; INVAL for an atomic write that is larger than the unit or
 *   crosses a boundary; IOERR, with a warning, for an operation that has no command.
 */
export function nvmeSetupCmd(
  sq: Uint32Array,
  at: number,
  rq: Request,
  ns: NvmeNamespace,
  limits: QueueLimits,
): number {
  const op = rq.opf & REQ_OP_MASK;
  switch (op) {
    case REQ_OP_READ:
      return setupRw(sq, at, rq, NVME_CMD_READ, ns.blockSize);
    case REQ_OP_WRITE:
      if ((rq.opf & REQ_ATOMIC) !== 0 && !nvmeValidAtomicWrite(rq, limits)) {
        return BLK_STS_INVAL;
      }
      return setupRw(sq, at, rq, NVME_CMD_WRITE, ns.blockSize);
    case REQ_OP_FLUSH:
      begin(sq, at, NVME_CMD_FLUSH);
      return BLK_STS_OK;
    case REQ_OP_DISCARD:
      return setupDiscard(sq, at, rq);
    case REQ_OP_WRITE_ZEROES:
      return setupWriteZeroes(sq, at, rq, ns);
    case REQ_OP_ZONE_APPEND:
      return setupRw(sq, at, rq, NVME_CMD_ZONE_APPEND, ns.blockSize);
    case REQ_OP_DRV_IN:
    case REQ_OP_DRV_OUT:
      setupPassthru(sq, at, (rq.bio!.private as PassthruCommand).command);
      return BLK_STS_OK;
    default:
      return setupZoneMgmtSend(sq, at, rq, op, ns.blockSize);
  }
}

/** Starts an entry over. */
function begin(sq: Uint32Array, at: number, opcode: number): void {
  sq[at] = opcode;
  sq[at + 1] = NVME_NSID;
  // Plain stores: a fill of so few words costs more than they do.
  sq[at + 2] = 0;
  sq[at + 3] = 0;
  sq[at + 10] = 0;
  sq[at + 11] = 0;
  sq[at + 12] = 0;
  sq[at + 13] = 0;
  sq[at + 14] = 0;
  sq[at + 15] = 0;
}

/** First block of a request, in two words. */
function putSlba(
  sq: Uint32Array,
  at: number,
  rq: Request,
  blockSize: number,
): void {
  const slba = rq.sector / (blockSize / SECTOR_SIZE);
  sq[at + 10] = slba;
  sq[at + 11] = slba / 2 ** 32;
}

/** Read, write and append (kernel: `nvme_setup_rw`). */
function setupRw(
  sq: Uint32Array,
  at: number,
  rq: Request,
  opcode: number,
  blockSize: number,
): number {
  const { opf } = rq;
  begin(sq, at, opcode);
  putSlba(sq, at, rq, blockSize);
  let control = 0;
  if ((opf & REQ_FUA) !== 0) control |= NVME_RW_FUA;
  if ((opf & (REQ_FAILFAST_DEV | REQ_RAHEAD)) !== 0) control |= NVME_RW_LR;
  // LR is bit 31: the sum is a negative number, and the same word.
  sq[at + 12] = (rq.size / blockSize - 1) | control;
  if ((opf & REQ_RAHEAD) !== 0) sq[at + 13] = NVME_RW_DSM_FREQ_PREFETCH;
  return BLK_STS_OK;
}

/** Whether an atomic write is one that the device keeps whole (kernel:
 * `nvme_valid_atomic_write`). */
function nvmeValidAtomicWrite(rq: Request, limits: QueueLimits): boolean {
  if (rq.size > limits.atomicWriteUnitMax) return false;
  const boundary = limits.atomicWriteBoundary;
  if (boundary === 0) return true;
  const start = rq.sector * SECTOR_SIZE;
  const last = start + rq.size - 1;
  return Math.floor(start / boundary) === Math.floor(last / boundary);
}

/** Kernel: `nvme_setup_write_zeroes`. */
function setupWriteZeroes(
  sq: Uint32Array,
  at: number,
  rq: Request,
  ns: NvmeNamespace,
): number {
  begin(sq, at, NVME_CMD_WRITE_ZEROES);
  putSlba(sq, at, rq, ns.blockSize);
  const unmap = ns.deac && (rq.opf & REQ_NOUNMAP) === 0;
  sq[at + 12] = (rq.size / ns.blockSize - 1) | (unmap ? NVME_WZ_DEAC : 0);
  return BLK_STS_OK;
}

/** Kernel: `nvme_setup_discard`; the ranges are made by {@linkcode nvmeMapData}. */
function setupDiscard(sq: Uint32Array, at: number, rq: Request): number {
  begin(sq, at, NVME_CMD_DSM);
  sq[at + 10] = countBios(rq) - 1;
  sq[at + 11] = NVME_DSMGMT_AD;
  return BLK_STS_OK;
}

function countBios(rq: Request): number {
  let count = 0;
  for (let bio = rq.bio; bio !== null; bio = bio.next) count++;
  return count;
}

/** Kernel: `nvme_setup_zone_mgmt_send`. */
function setupZoneMgmtSend(
  sq: Uint32Array,
  at: number,
  rq: Request,
  op: number,
  blockSize: number,
): number {
  const action = zoneAction(op);
  if (warnOnOnce(action === 0, `no NVMe command for operation ${op}`)) {
    return BLK_STS_IOERR;
  }
  begin(sq, at, NVME_CMD_ZONE_MGMT_SEND);
  putSlba(sq, at, rq, blockSize);
  const all = op === REQ_OP_ZONE_RESET_ALL ? NVME_ZONE_SELECT_ALL : 0;
  sq[at + 13] = action | all;
  return BLK_STS_OK;
}

function zoneAction(op: number): number {
  switch (op) {
    case REQ_OP_ZONE_RESET:
    case REQ_OP_ZONE_RESET_ALL:
      return NVME_ZONE_RESET;
    case REQ_OP_ZONE_OPEN:
      return NVME_ZONE_OPEN;
    case REQ_OP_ZONE_CLOSE:
      return NVME_ZONE_CLOSE;
    case REQ_OP_ZONE_FINISH:
      return NVME_ZONE_FINISH;
    default:
      return 0;
  }
}

/** Writes a user's own command into an entry. */
export function setupPassthru(
  sq: Uint32Array,
  at: number,
  command: NvmePassthru,
): void {
  sq.fill(0, at, at + SQE_WORDS);
  sq[at] = command.opcode | ((command.flags ?? 0) << 8);
  sq[at + 1] = command.nsid ?? NVME_NSID;
  sq[at + 2] = command.cdw2 ?? 0;
  sq[at + 3] = command.cdw3 ?? 0;
  sq[at + 10] = command.cdw10 ?? 0;
  sq[at + 11] = command.cdw11 ?? 0;
  sq[at + 12] = command.cdw12 ?? 0;
  sq[at + 13] = command.cdw13 ?? 0;
  sq[at + 14] = command.cdw14 ?? 0;
  sq[at + 15] = command.cdw15 ?? 0;
}

/**
 * Memory that a request's command reads or fills (kernel: `nvme_map_data`): that of
 * its bios, or the list of ranges of a discard.
 */
export function nvmeMapData(
  rq: Request,
  blockSize: number,
): HostMemory | null {
  const { bio } = rq;
  if (bio === null || (rq.opf & REQ_OP_MASK) !== REQ_OP_DISCARD) return bio;
  return bufferMemory(discardRanges(rq, blockSize));
}

function discardRanges(rq: Request, blockSize: number): Uint8Array {
  const data = new Uint8Array(countBios(rq) * NVME_DSM_RANGE_SIZE);
  const view = new DataView(data.buffer);
  let at = 0;
  for (let bio: Bio | null = rq.bio; bio !== null; bio = bio.next) {
    const slba = bio.sector / (blockSize / SECTOR_SIZE);
    view.setUint32(at + 4, bio.size / blockSize, true);
    view.setUint32(at + 8, slba, true);
    view.setUint32(at + 12, slba / 2 ** 32, true);
    at += NVME_DSM_RANGE_SIZE;
  }
  return data;
}

/** Block status of a command's status (kernel: `nvme_error_status`). */
export function nvmeErrorStatus(status: number): number {
  switch (status & STATUS_MASK) {
    case NVME_SC_SUCCESS:
      return BLK_STS_OK;
    case NVME_SC_CAP_EXCEEDED:
      return BLK_STS_NOSPC;
    case NVME_SC_LBA_RANGE:
    case NVME_SC_CMD_INTERRUPTED:
    case NVME_SC_NS_NOT_READY:
      return BLK_STS_TARGET;
    case NVME_SC_BAD_ATTRIBUTES:
    case NVME_SC_INVALID_OPCODE:
    case NVME_SC_INVALID_FIELD:
    case NVME_SC_INVALID_NS:
      return BLK_STS_NOTSUPP;
    case NVME_SC_WRITE_FAULT:
    case NVME_SC_READ_ERROR:
    case NVME_SC_UNWRITTEN_BLOCK:
    case NVME_SC_ACCESS_DENIED:
    case NVME_SC_READ_ONLY:
    case NVME_SC_COMPARE_FAILED:
      return BLK_STS_MEDIUM;
    case NVME_SC_GUARD_CHECK:
    case NVME_SC_APPTAG_CHECK:
    case NVME_SC_REFTAG_CHECK:
    case NVME_SC_INVALID_PI:
      return BLK_STS_PROTECTION;
    case NVME_SC_RESERVATION_CONFLICT:
      return BLK_STS_RESV_CONFLICT;
    case NVME_SC_HOST_PATH_ERROR:
      return BLK_STS_TRANSPORT;
    case NVME_SC_ZONE_TOO_MANY_ACTIVE:
      return BLK_STS_ZONE_ACTIVE_RESOURCE;
    case NVME_SC_ZONE_TOO_MANY_OPEN:
      return BLK_STS_ZONE_OPEN_RESOURCE;
    default:
      return BLK_STS_IOERR;
  }
}

/**
 * Whether a failed command is sent again (kernel: `nvme_decide_disposition`): not if
 * the device says that it would fail again, its submitter wants none of it, it is the
 * user's own, or it has been tried often enough.
 *
 * @param retries How often it has been sent again already.
 */
export function nvmeShallRetry(
  status: number,
  opf: number,
  retries: number,
): boolean {
  const op = opf & REQ_OP_MASK;
  return status !== NVME_SC_SUCCESS && (status & NVME_STATUS_DNR) === 0 &&
    (opf & (REQ_FAILFAST_MASK | REQ_RAHEAD)) === 0 &&
    op !== REQ_OP_DRV_IN && op !== REQ_OP_DRV_OUT &&
    retries < NVME_MAX_RETRIES;
}
