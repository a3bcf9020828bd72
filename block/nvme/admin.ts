/**
 * The admin command set: identify, queues, features, logs, abort, events, format.
 *
 * Every command but Asynchronous Event Request ends at once, in the order of
 * submission: a host need not wait for them.
 *
 * @module
 */

import type { Clock } from "../../lib/clock.ts";
import type { Command } from "./command.ts";
import {
  encodeActiveList,
  encodeController,
  encodeDescriptors,
  encodeNamespace,
  encodeNvmController,
  encodeZonedController,
  encodeZonedNamespace,
  NVME_FORMATS,
  NVME_IDENTIFY_DATA_SIZE,
  NVME_NS_FEAT_DULBE,
} from "./identify.ts";
import type { Namespace } from "./namespace.ts";
import {
  NVME_ADMIN_ABORT_CMD,
  NVME_ADMIN_ASYNC_EVENT,
  NVME_ADMIN_CREATE_CQ,
  NVME_ADMIN_CREATE_SQ,
  NVME_ADMIN_DELETE_CQ,
  NVME_ADMIN_DELETE_SQ,
  NVME_ADMIN_FORMAT_NVM,
  NVME_ADMIN_GET_FEATURES,
  NVME_ADMIN_GET_LOG_PAGE,
  NVME_ADMIN_IDENTIFY,
  NVME_ADMIN_SET_FEATURES,
  NVME_CMD_COMPARE,
  NVME_CMD_COPY,
  NVME_CMD_DSM,
  NVME_CMD_FLUSH,
  NVME_CMD_READ,
  NVME_CMD_VERIFY,
  NVME_CMD_WRITE,
  NVME_CMD_WRITE_UNCOR,
  NVME_CMD_WRITE_ZEROES,
  NVME_CMD_ZONE_APPEND,
  NVME_CMD_ZONE_MGMT_RECV,
  NVME_CMD_ZONE_MGMT_SEND,
  NVME_CQ_IRQ_ENABLED,
  NVME_CSI_NVM,
  NVME_CSI_ZNS,
  NVME_FEAT_ARBITRATION,
  NVME_FEAT_ASYNC_EVENT,
  NVME_FEAT_ERR_RECOVERY,
  NVME_FEAT_IRQ_COALESCE,
  NVME_FEAT_IRQ_CONFIG,
  NVME_FEAT_NUM_QUEUES,
  NVME_FEAT_VOLATILE_WC,
  NVME_FEAT_WRITE_ATOMIC,
  NVME_FEAT_WRITE_PROTECT,
  NVME_ID_CNS_CS_CTRL,
  NVME_ID_CNS_CS_NS,
  NVME_ID_CNS_CTRL,
  NVME_ID_CNS_NS,
  NVME_ID_CNS_NS_ACTIVE_LIST,
  NVME_ID_CNS_NS_DESC_LIST,
  NVME_LOG_CHANGED_NS,
  NVME_LOG_CMD_EFFECTS,
  NVME_LOG_ERROR,
  NVME_LOG_FW_SLOT,
  NVME_LOG_SMART,
  NVME_NSID,
  NVME_NSID_ALL,
  NVME_QUEUE_PHYS_CONTIG,
  NVME_SC_ABORT_QUEUE,
  NVME_SC_ABORT_REQ,
  NVME_SC_ASYNC_LIMIT,
  NVME_SC_CMD_SEQ_ERROR,
  NVME_SC_CQ_INVALID,
  NVME_SC_DATA_XFER_ERROR,
  NVME_SC_FEATURE_NOT_SAVEABLE,
  NVME_SC_INVALID_FIELD,
  NVME_SC_INVALID_FORMAT,
  NVME_SC_INVALID_LOG_PAGE,
  NVME_SC_INVALID_NS,
  NVME_SC_INVALID_OPCODE,
  NVME_SC_INVALID_QUEUE,
  NVME_SC_INVALID_VECTOR,
  NVME_SC_QID_INVALID,
  NVME_SC_QUEUE_SIZE,
  NVME_SC_SUCCESS,
  NVME_STATUS_DNR,
  SQE_WORDS,
} from "./nvme.ts";
import {
  CompletionQueue,
  type HostMemory,
  SubmissionQueue,
  writeMemory,
} from "./queue.ts";
import { type CommandSet, type Queues, UNDER_WAY } from "./queues.ts";

/** I/O queues of each kind that a host may ask for. */
export const MAX_IO_QUEUES = 1024;
/** Most slots of a ring. */
export const MAX_QUEUE_ENTRIES = 65536;

/** Asynchronous Event Requests under way at once, less one (AERL). */
export const ASYNC_LIMIT = 3;
/** Type of an event: an error. */
const EVENT_ERROR = 0;

/** Feature 0x01 after a reset: up to eight commands at a visit, equal weights. */
export const ARBITRATION_DEFAULT = 3;
/** Of feature 0x05: deallocated blocks are errors. */
const DULBE: number = 1 << 16;
/** Of feature 0x09: the vector does not coalesce. */
const COALESCING_DISABLED: number = 1 << 16;
/** Set Features: keep the value over a reset. */
const FEATURE_SAVE = 0x8000_0000;
/** Get Features: the current value, the default, the saved value, capabilities. */
const SELECT_CURRENT = 0;
const SELECT_CAPABILITIES = 3;
/** Capabilities: the value can be changed; it is the namespace's own. */
const CHANGEABLE = 1 << 2;
const NAMESPACE_SPECIFIC = 1 << 1;

/** Get Log Page: reading it does not acknowledge the event. */
const RETAIN_EVENT: number = 1 << 15;
/** Of the effects log: the command is there; it changes blocks. */
const CSUPP = 1 << 0;
const LBCC = 1 << 1;
/** Of the effects log: it changes the namespace's capabilities. */
const NCC = 1 << 2;

/** Admin commands and their effects. */
const ADMIN_EFFECTS: readonly (readonly [number, number])[] = [
  [NVME_ADMIN_DELETE_SQ, CSUPP],
  [NVME_ADMIN_CREATE_SQ, CSUPP],
  [NVME_ADMIN_GET_LOG_PAGE, CSUPP],
  [NVME_ADMIN_DELETE_CQ, CSUPP],
  [NVME_ADMIN_CREATE_CQ, CSUPP],
  [NVME_ADMIN_IDENTIFY, CSUPP],
  [NVME_ADMIN_ABORT_CMD, CSUPP],
  [NVME_ADMIN_SET_FEATURES, CSUPP],
  [NVME_ADMIN_GET_FEATURES, CSUPP],
  [NVME_ADMIN_ASYNC_EVENT, CSUPP],
  [NVME_ADMIN_FORMAT_NVM, CSUPP | LBCC | NCC],
];
/** I/O commands and their effects. */
const IO_EFFECTS: readonly (readonly [number, number])[] = [
  [NVME_CMD_FLUSH, CSUPP],
  [NVME_CMD_WRITE, CSUPP | LBCC],
  [NVME_CMD_READ, CSUPP],
  [NVME_CMD_WRITE_UNCOR, CSUPP | LBCC],
  [NVME_CMD_COMPARE, CSUPP],
  [NVME_CMD_WRITE_ZEROES, CSUPP | LBCC],
  [NVME_CMD_DSM, CSUPP | LBCC],
  [NVME_CMD_VERIFY, CSUPP],
  [NVME_CMD_COPY, CSUPP | LBCC],
];
/** Those of the zoned command set, beside them. */
const ZONED_EFFECTS: readonly (readonly [number, number])[] = [
  [NVME_CMD_ZONE_MGMT_SEND, CSUPP | LBCC],
  [NVME_CMD_ZONE_MGMT_RECV, CSUPP],
  [NVME_CMD_ZONE_APPEND, CSUPP | LBCC],
];

/** The command set of the admin queue. */
export class AdminCommands implements CommandSet {
  readonly #clock: Clock;
  readonly #queues: Queues;
  readonly #ns: Namespace;
  readonly #io: CommandSet;
  /** The entry of the command that is being carried out. */
  readonly #words = new Uint32Array(SQE_WORDS);
  /** Values of features that are just kept. */
  readonly #features = new Map<number, number>();
  /** Asynchronous Event Requests that wait for an event. */
  #requests: Command[] = [];
  /** First completion word of an event that waits for a request, by type. */
  readonly #events = new Map<number, number>();
  /** Types whose last event has not been acknowledged, a bit each. */
  #unacknowledged = 0;

  /**
   * Commands to a controller.
   *
   * @param clock Time.
   * @param queues Its queues.
   * @param ns Its namespace.
   * @param io What carries out the commands of I/O queues.
   */
  constructor(clock: Clock, queues: Queues, ns: Namespace, io: CommandSet) {
    this.#clock = clock;
    this.#queues = queues;
    this.#ns = ns;
    this.#io = io;
    queues.onDoorbellError = (info) => this.#postEvent(EVENT_ERROR, info);
  }

  /** As after a reset: features have their defaults, no event is pending. */
  reset(): void {
    this.#requests = [];
    this.#events.clear();
    this.#unacknowledged = 0;
    this.#features.clear();
    this.#queues.arbiter.configure(ARBITRATION_DEFAULT);
    this.#ns.resetFeatures();
  }

  decode(command: Command, ring: Uint32Array, at: number): number {
    this.#words.set(ring.subarray(at, at + SQE_WORDS));
    command.at = 0;
    command.len = 0;
    command.zone = -1;
    return command.fuse === 0
      ? NVME_SC_SUCCESS
      : NVME_SC_INVALID_FIELD | NVME_STATUS_DNR;
  }

  start(command: Command): number {
    const status = this.#start(command);
    return status === NVME_SC_SUCCESS || status === UNDER_WAY
      ? status
      : status | NVME_STATUS_DNR;
  }

  /** Fused pairs are for I/O queues; {@linkcode decode} has refused. */
  startFused(): number {
    return NVME_SC_INVALID_FIELD | NVME_STATUS_DNR;
  }

  abort(command: Command): void {
    this.#requests = this.#requests.filter((request) => request !== command);
  }

  #start(command: Command): number {
    const { opcode } = command;
    switch (opcode) {
      case NVME_ADMIN_IDENTIFY:
        return this.#identify(command);
      case NVME_ADMIN_CREATE_CQ:
        return this.#createCq(command);
      case NVME_ADMIN_CREATE_SQ:
        return this.#createSq(command);
      case NVME_ADMIN_DELETE_CQ:
        return this.#deleteCq();
      case NVME_ADMIN_DELETE_SQ:
        return this.#deleteSq();
      case NVME_ADMIN_SET_FEATURES:
        return this.#setFeature(command);
      case NVME_ADMIN_GET_FEATURES:
        return this.#getFeature(command);
      case NVME_ADMIN_GET_LOG_PAGE:
        return this.#getLogPage(command);
      case NVME_ADMIN_ABORT_CMD:
        return this.#abortCommand(command);
      case NVME_ADMIN_ASYNC_EVENT:
        return this.#asyncEvent(command);
      case NVME_ADMIN_FORMAT_NVM:
        return this.#format();
    }
    return NVME_SC_INVALID_OPCODE;
  }

  #identify(command: Command): number {
    const page = new Uint8Array(NVME_IDENTIFY_DATA_SIZE);
    const status = this.#describe(page, command.nsid);
    return status === NVME_SC_SUCCESS ? give(command, page) : status;
  }

  #describe(page: Uint8Array, nsid: number): number {
    const ns = this.#ns;
    const csi = this.#words[11]! >>> 24;
    switch (this.#words[10]! & 0xff) {
      case NVME_ID_CNS_NS:
        if (nsid !== NVME_NSID && nsid !== NVME_NSID_ALL) {
          return NVME_SC_INVALID_NS;
        }
        encodeNamespace(page, ns.identity);
        return NVME_SC_SUCCESS;
      case NVME_ID_CNS_CTRL:
        encodeController(page, ns.controllerIdentity);
        return NVME_SC_SUCCESS;
      case NVME_ID_CNS_NS_ACTIVE_LIST:
        if (nsid >= NVME_NSID_ALL - 1) return NVME_SC_INVALID_NS;
        encodeActiveList(page, nsid);
        return NVME_SC_SUCCESS;
      case NVME_ID_CNS_NS_DESC_LIST:
        if (nsid !== NVME_NSID) return NVME_SC_INVALID_NS;
        encodeDescriptors(
          page,
          ns.zones === null ? NVME_CSI_NVM : NVME_CSI_ZNS,
        );
        return NVME_SC_SUCCESS;
      case NVME_ID_CNS_CS_NS:
        if (nsid !== NVME_NSID) return NVME_SC_INVALID_NS;
        return this.#describeNamespaceOf(page, csi);
      case NVME_ID_CNS_CS_CTRL:
        return this.#describeControllerOf(page, csi);
    }
    return NVME_SC_INVALID_FIELD;
  }

  #describeNamespaceOf(page: Uint8Array, csi: number): number {
    const { zonedIdentity, blockSize } = this.#ns;
    // Of the NVM command set there is only protection information, which is not
    // there: all zeroes.
    if (csi === NVME_CSI_NVM) return NVME_SC_SUCCESS;
    if (csi !== NVME_CSI_ZNS || zonedIdentity === null) {
      return NVME_SC_INVALID_FIELD;
    }
    encodeZonedNamespace(page, zonedIdentity, blockSize);
    return NVME_SC_SUCCESS;
  }

  #describeControllerOf(page: Uint8Array, csi: number): number {
    const { zones, nvmIdentity, zasl } = this.#ns;
    if (csi === NVME_CSI_NVM) encodeNvmController(page, nvmIdentity);
    else if (csi === NVME_CSI_ZNS && zones !== null) {
      encodeZonedController(page, zasl);
    } else return NVME_SC_INVALID_FIELD;
    return NVME_SC_SUCCESS;
  }

  #createCq(command: Command): number {
    const { cqs, interrupts } = this.#queues;
    const { memory } = command;
    const status = this.#checkQueue(memory, cqs);
    if (status !== NVME_SC_SUCCESS) return status;
    if (!(memory instanceof CompletionQueue)) return NVME_SC_INVALID_FIELD;
    const flags = this.#words[11]!;
    if ((flags & NVME_QUEUE_PHYS_CONTIG) === 0) return NVME_SC_INVALID_FIELD;
    const wanted = (flags & NVME_CQ_IRQ_ENABLED) !== 0;
    const vector = wanted ? interrupts.vector(flags >>> 16) : null;
    if (vector === undefined) return NVME_SC_INVALID_VECTOR;
    this.#queues.addCq(memory, vector);
    return NVME_SC_SUCCESS;
  }

  #createSq(command: Command): number {
    const { cqs, sqs } = this.#queues;
    const { memory } = command;
    const flags = this.#words[11]!;
    const cqid = flags >>> 16;
    const cq = cqid === 0 ? null : cqs[cqid];
    if (!cq) return NVME_SC_CQ_INVALID;
    const status = this.#checkQueue(memory, sqs);
    if (status !== NVME_SC_SUCCESS) return status;
    if (!(memory instanceof SubmissionQueue)) return NVME_SC_INVALID_FIELD;
    if ((flags & NVME_QUEUE_PHYS_CONTIG) === 0) return NVME_SC_INVALID_FIELD;
    this.#queues.addSq(memory, cq, flags >>> 1 & 3, this.#io);
    return NVME_SC_SUCCESS;
  }

  /** Checks number and size of a queue that is to be created. */
  #checkQueue(
    memory: HostMemory | SubmissionQueue | CompletionQueue | null,
    queues: readonly (object | null)[],
  ): number {
    const qid = this.#words[10]! & 0xffff;
    const entries = (this.#words[10]! >>> 16) + 1;
    if (qid === 0 || qid > MAX_IO_QUEUES || queues[qid]) {
      return NVME_SC_QID_INVALID;
    }
    if (entries < 2) return NVME_SC_QUEUE_SIZE;
    const isQueue = memory instanceof SubmissionQueue ||
      memory instanceof CompletionQueue;
    if (!isQueue || memory.qid !== qid || memory.entries !== entries) {
      return NVME_SC_INVALID_FIELD;
    }
    return NVME_SC_SUCCESS;
  }

  #deleteCq(): number {
    const qid = this.#words[10]! & 0xffff;
    const cq = qid === 0 ? null : this.#queues.cqs[qid];
    if (!cq) return NVME_SC_QID_INVALID;
    if (cq.users > 0) return NVME_SC_INVALID_QUEUE;
    this.#queues.removeCq(cq);
    return NVME_SC_SUCCESS;
  }

  #deleteSq(): number {
    const qid = this.#words[10]! & 0xffff;
    const sq = qid === 0 ? null : this.#queues.sqs[qid];
    if (!sq) return NVME_SC_QID_INVALID;
    this.#queues.endAll(sq, NVME_SC_ABORT_QUEUE);
    this.#queues.removeSq(sq);
    return NVME_SC_SUCCESS;
  }

  #abortCommand(command: Command): number {
    const qid = this.#words[10]! & 0xffff;
    const cid = this.#words[10]! >>> 16;
    const target = this.#queues.find(qid, cid);
    const found = target !== undefined && target !== command;
    // Bit 0 says that it has not been aborted.
    command.result = found ? 0 : 1;
    if (found) this.#queues.abort(target, NVME_SC_ABORT_REQ);
    return NVME_SC_SUCCESS;
  }

  #asyncEvent(command: Command): number {
    if (this.#requests.length > ASYNC_LIMIT) return NVME_SC_ASYNC_LIMIT;
    this.#requests.push(command);
    this.#deliverEvents();
    return UNDER_WAY;
  }

  /** Something has happened that the host may want to know. */
  #postEvent(type: number, info: number): void {
    // Until the last one of the type has been acknowledged, more are not told.
    if ((this.#unacknowledged >>> type & 1) !== 0) return;
    this.#unacknowledged |= 1 << type;
    this.#events.set(type, type | info << 8 | NVME_LOG_ERROR << 16);
    this.#deliverEvents();
  }

  #deliverEvents(): void {
    for (const [type, word] of this.#events) {
      const request = this.#requests.shift();
      if (request === undefined) return;
      this.#events.delete(type);
      request.result = word;
      this.#queues.end(request, NVME_SC_SUCCESS);
    }
  }

  #setFeature(command: Command): number {
    const fid = this.#words[10]! & 0xff;
    const value = this.#words[11]!;
    if (this.#words[10]! >= FEATURE_SAVE) return NVME_SC_FEATURE_NOT_SAVEABLE;
    const ns = this.#ns;
    switch (fid) {
      case NVME_FEAT_ARBITRATION:
        this.#queues.arbiter.configure(value);
        break;
      case NVME_FEAT_ERR_RECOVERY:
        return this.#setErrorRecovery(command.nsid, value);
      case NVME_FEAT_VOLATILE_WC:
        return ns.hasCache
          ? ns.setCache((value & 1) !== 0)
          : NVME_SC_INVALID_FIELD;
      case NVME_FEAT_NUM_QUEUES:
        return this.#setQueueCount(command, value);
      case NVME_FEAT_IRQ_COALESCE:
        this.#queues.interrupts.configure(value);
        break;
      case NVME_FEAT_IRQ_CONFIG:
        return this.#setVector(value);
      case NVME_FEAT_WRITE_ATOMIC:
        ns.disableNormal = (value & 1) !== 0;
        break;
      case NVME_FEAT_ASYNC_EVENT:
        break;
      case NVME_FEAT_WRITE_PROTECT:
        return this.#setWriteProtect(command.nsid, value);
      default:
        return NVME_SC_INVALID_FIELD;
    }
    this.#features.set(fid, value);
    return NVME_SC_SUCCESS;
  }

  #setErrorRecovery(nsid: number, value: number): number {
    const ns = this.#ns;
    if (!isOurs(nsid)) return NVME_SC_INVALID_NS;
    const dulbe = (value & DULBE) !== 0;
    if (dulbe && (ns.identity.nsfeat & NVME_NS_FEAT_DULBE) === 0) {
      return NVME_SC_INVALID_FIELD;
    }
    ns.dulbe = dulbe;
    this.#features.set(NVME_FEAT_ERR_RECOVERY, value);
    return NVME_SC_SUCCESS;
  }

  #setWriteProtect(nsid: number, value: number): number {
    if (!isOurs(nsid)) return NVME_SC_INVALID_NS;
    if ((value & 7) > 1) return NVME_SC_INVALID_FIELD;
    this.#ns.writeProtected = (value & 7) === 1;
    return NVME_SC_SUCCESS;
  }

  #setQueueCount(command: Command, value: number): number {
    const sqs = value & 0xffff;
    const cqs = value >>> 16;
    if (sqs === 0xffff || cqs === 0xffff) return NVME_SC_INVALID_FIELD;
    const exists = this.#queues.cqs.some((cq, qid) => qid > 0 && cq !== null);
    if (exists) return NVME_SC_CMD_SEQ_ERROR;
    const most = MAX_IO_QUEUES - 1;
    command.result = Math.min(sqs, most) + Math.min(cqs, most) * 65536;
    this.#features.set(NVME_FEAT_NUM_QUEUES, command.result);
    return NVME_SC_SUCCESS;
  }

  #setVector(value: number): number {
    const vector = this.#queues.interrupts.vector(value & 0xffff);
    if (vector === undefined) return NVME_SC_INVALID_FIELD;
    vector.coalescingDisabled = (value & COALESCING_DISABLED) !== 0;
    return NVME_SC_SUCCESS;
  }

  #getFeature(command: Command): number {
    const fid = this.#words[10]! & 0xff;
    const select = this.#words[10]! >>> 8 & 7;
    const initial = this.#defaultFeature(fid);
    if (initial < 0 || select > SELECT_CAPABILITIES) {
      return NVME_SC_INVALID_FIELD;
    }
    const isOfNamespace = fid === NVME_FEAT_ERR_RECOVERY ||
      fid === NVME_FEAT_WRITE_PROTECT;
    if (isOfNamespace && !isOurs(command.nsid)) return NVME_SC_INVALID_NS;
    if (select === SELECT_CAPABILITIES) {
      command.result = CHANGEABLE | (isOfNamespace ? NAMESPACE_SPECIFIC : 0);
    } else if (select === SELECT_CURRENT) {
      return this.#currentFeature(command, fid, initial);
    } else command.result = initial;
    return NVME_SC_SUCCESS;
  }

  #currentFeature(command: Command, fid: number, initial: number): number {
    const ns = this.#ns;
    switch (fid) {
      case NVME_FEAT_VOLATILE_WC:
        command.result = ns.writesThrough ? 0 : 1;
        break;
      case NVME_FEAT_WRITE_PROTECT:
        command.result = ns.writeProtected ? 1 : 0;
        break;
      case NVME_FEAT_IRQ_CONFIG: {
        const index = this.#words[11]! & 0xffff;
        const vector = this.#queues.interrupts.vector(index);
        if (vector === undefined) return NVME_SC_INVALID_FIELD;
        const disabled = vector.coalescingDisabled || index === 0;
        command.result = index | (disabled ? COALESCING_DISABLED : 0);
        break;
      }
      default:
        command.result = this.#features.get(fid) ?? initial;
    }
    return NVME_SC_SUCCESS;
  }

  /** Value of a feature after a reset, or -1 if there is no such feature. */
  #defaultFeature(fid: number): number {
    switch (fid) {
      case NVME_FEAT_ARBITRATION:
        return ARBITRATION_DEFAULT;
      case NVME_FEAT_VOLATILE_WC:
        return this.#ns.hasCache ? 1 : -1;
      case NVME_FEAT_NUM_QUEUES:
        return (MAX_IO_QUEUES - 1) * 65537;
      case NVME_FEAT_ERR_RECOVERY:
      case NVME_FEAT_IRQ_COALESCE:
      case NVME_FEAT_IRQ_CONFIG:
      case NVME_FEAT_WRITE_ATOMIC:
      case NVME_FEAT_ASYNC_EVENT:
      case NVME_FEAT_WRITE_PROTECT:
        return 0;
    }
    return -1;
  }

  #getLogPage(command: Command): number {
    const words = this.#words;
    const page = this.#logPage(words[10]! & 0xff, words[14]! >>> 24);
    if (page === null) return NVME_SC_INVALID_LOG_PAGE;
    const len = ((words[11]! & 0xffff) * 65536 + (words[10]! >>> 16) + 1) * 4;
    const offset = words[13]! * 2 ** 32 + words[12]!;
    if (offset > page.length || offset % 4 !== 0) return NVME_SC_INVALID_FIELD;
    const status = give(command, page.subarray(offset, offset + len));
    if (status !== NVME_SC_SUCCESS) return status;
    const acknowledges = (words[10]! & RETAIN_EVENT) === 0;
    if (acknowledges && (words[10]! & 0xff) === NVME_LOG_ERROR) {
      this.#unacknowledged &= ~(1 << EVENT_ERROR);
    }
    return NVME_SC_SUCCESS;
  }

  #logPage(lid: number, csi: number): Uint8Array | null {
    const { health, zones } = this.#ns;
    switch (lid) {
      case NVME_LOG_ERROR:
        return health.errorLog();
      case NVME_LOG_SMART:
        return health.smartLog(this.#clock.now());
      case NVME_LOG_FW_SLOT:
        return firmwareLog();
      case NVME_LOG_CHANGED_NS:
        return new Uint8Array(4096);
      case NVME_LOG_CMD_EFFECTS:
        if (csi === NVME_CSI_NVM) return effectsLog(IO_EFFECTS);
        if (csi !== NVME_CSI_ZNS || zones === null) return null;
        return effectsLog([
          ...IO_EFFECTS,
          ...ZONED_EFFECTS.filter(([opcode]) =>
            opcode !== NVME_CMD_ZONE_APPEND || zones.options.append
          ),
        ]);
    }
    return null;
  }

  #format(): number {
    const word = this.#words[10]!;
    if (!isOurs(this.#words[1]!)) return NVME_SC_INVALID_NS;
    const blockSize = NVME_FORMATS[word & 0xf];
    // No metadata and no protection information.
    if (blockSize === undefined || (word >>> 4 & 0x1f) !== 0) {
      return NVME_SC_INVALID_FORMAT;
    }
    // Secure erase: none, user data, cryptographic. All leave nothing to be read.
    if ((word >>> 9 & 7) > 2) return NVME_SC_INVALID_FIELD;
    if (this.#queues.busy()) return NVME_SC_CMD_SEQ_ERROR;
    return this.#ns.format(blockSize);
  }
}

function isOurs(nsid: number): boolean {
  return nsid === NVME_NSID || nsid === NVME_NSID_ALL;
}

/** Stores what a command asked for. */
function give(command: Command, data: Uint8Array): number {
  return writeMemory(command.memory as HostMemory | null, data)
    ? NVME_SC_SUCCESS
    : NVME_SC_DATA_XFER_ERROR;
}

/** The firmware slot log: one slot, active. */
function firmwareLog(): Uint8Array {
  const data = new Uint8Array(512);
  data[0] = 1;
  new TextEncoder().encodeInto("1.0     ", data.subarray(8, 16));
  return data;
}

/** The effects log: a word for each of 256 admin and then 256 I/O commands. */
function effectsLog(io: readonly (readonly [number, number])[]): Uint8Array {
  const data = new Uint8Array(4096);
  const view = new DataView(data.buffer);
  for (const [opcode, effects] of ADMIN_EFFECTS) {
    view.setUint32(4 * opcode, effects, true);
  }
  for (const [opcode, effects] of io) {
    view.setUint32(4 * (256 + opcode), effects, true);
  }
  return data;
}
