/**
 * The controller: its registers, and how it comes and goes.
 *
 * A host enables it, and it takes commands from the admin queues until it is reset:
 * then all queues are gone, and what was under way has no completion; what is in
 * the volatile cache stays. Only a loss of power takes that.
 *
 * Three parts do the work: `queues.ts` has the queues, `admin.ts` and `io-cmd.ts`
 * the commands; `namespace.ts` has the blocks.
 *
 * @module
 */

import type { Clock } from "../../lib/clock.ts";
import {
  AdminCommands,
  ASYNC_LIMIT,
  MAX_IO_QUEUES,
  MAX_QUEUE_ENTRIES,
} from "./admin.ts";
import type { Command } from "./command.ts";
import {
  type ControllerIdentity,
  type NamespaceIdentity,
  type NvmControllerIdentity,
  NVME_CTRL_ONCS_COMPARE,
  NVME_CTRL_ONCS_COPY,
  NVME_CTRL_ONCS_DSM,
  NVME_CTRL_ONCS_VERIFY,
  NVME_CTRL_ONCS_WRITE_UNCORRECTABLE,
  NVME_CTRL_ONCS_WRITE_ZEROES,
  NVME_CTRL_VWC_PRESENT,
  NVME_NS_DLFEAT_DEAC,
  NVME_NS_DLFEAT_READ_ZEROES,
  NVME_NS_FEAT_ATOMICS,
  NVME_NS_FEAT_IO_OPT,
} from "./identify.ts";
import { IoCommands } from "./io-cmd.ts";
import type { Media } from "./media.ts";
import { Namespace, type NamespaceFork } from "./namespace.ts";
import {
  NVME_CC_AMS_RR,
  NVME_CC_AMS_SHIFT,
  NVME_CC_AMS_WRRU,
  NVME_CC_ENABLE,
  NVME_CC_SHN_MASK,
  NVME_CC_SHN_NORMAL,
  NVME_CSTS_CFS,
  NVME_CSTS_RDY,
  NVME_CSTS_SHST_CMPLT,
  NVME_CSTS_SHST_MASK,
  NVME_REG_AQA,
  NVME_REG_CAP,
  NVME_REG_CAP_HI,
  NVME_REG_CC,
  NVME_REG_CSTS,
  NVME_REG_DBS,
  NVME_REG_INTMC,
  NVME_REG_INTMS,
  NVME_REG_VS,
} from "./nvme.ts";
import type { CutOptions, CutReport } from "./power-cut.ts";
import type { NvmePreset } from "./presets.ts";
import type { CompletionQueue, SubmissionQueue } from "./queue.ts";
import { Queues } from "./queues.ts";
import { makeTiming, type Timing } from "./timing.ts";
import type { ZoneOptions } from "./zns.ts";

/** CAP: queues are contiguous; weighted round robin is there; ready within 0.5 s. */
const CAP_LOW: number = (MAX_QUEUE_ENTRIES - 1) | 1 << 16 | 1 << 17 | 1 << 24;
/** CAP, upper half: the NVM command set, and others by their number. */
const CAP_HIGH: number = 1 << 5 | 1 << 11;
/** Version 2.0. */
const VERSION = 0x0002_0000;
/** Arbitration mechanism (in CC). */
const AMS_MASK: number = 7 << NVME_CC_AMS_SHIFT;
/** Size of memory pages beyond 4 KiB (in CC). */
const MPS_MASK: number = 15 << 7;
/** What a register reads as when the device does not answer. */
const NO_ANSWER = 0xffff_ffff;

/** Most of a copy: ranges, and blocks of each and of all. */
const COPY_LIMIT = 128;

/** What makes a controller; `createNvme` checks it. */
export interface ControllerOptions {
  /** Its model. */
  preset: NvmePreset;
  /** Where its blocks are. */
  media: Media;
  /** Bytes of a logical block. */
  logicalBlockSize: number;
  /** Seed of its chance. */
  seed: number;
  /** Whether completed writes can be lost with the power; the model's if absent. */
  writeCache?: boolean;
  /** Zones; none if absent. */
  zones?: ZoneOptions | null;
  /** What it says of itself, where that is not the usual. */
  controller?: Partial<ControllerIdentity>;
  /** What it says of the NVM command set, where that is not the usual. */
  nvm?: Partial<NvmControllerIdentity>;
  /** What its namespace says of itself, where that is not the usual. */
  namespace?: Partial<NamespaceIdentity>;
  /** Whether writes larger than the atomic unit land piece by piece; false if absent. */
  tearing?: boolean;
  /** What it has of the controller that it is a fork of; absent if it is none. */
  fork?: NamespaceFork;
}

/** An NVMe controller with one namespace. */
export class NvmeController {
  /** Its namespace.
   * @internal */
  readonly namespace: Namespace;
  readonly #clock: Clock;
  readonly #options: ControllerOptions;
  readonly #queues: Queues;
  readonly #io: IoCommands;
  readonly #admin: AdminCommands;
  readonly #timing: Timing | null;
  #adminSq: SubmissionQueue | null = null;
  #adminCq: CompletionQueue | null = null;
  #cc = 0;
  #csts = 0;
  #powered = true;

  /**
   * Makes a controller that is not enabled.
   *
   * @param clock Time.
   * @param options What makes it.
   */
  constructor(clock: Clock, options: ControllerOptions) {
    const { preset, media, seed, zones = null } = options;
    const { timing } = preset;
    this.#clock = clock;
    this.#options = options;
    const namespace = new Namespace({
      media,
      seed,
      cacheSize: preset.cacheSize || CACHE_SIZE,
      controllerIdentity: controllerIdentity(options),
      nvmIdentity: { ...NVM_IDENTITY, ...options.nvm },
      identity: namespaceIdentity(options),
      zones,
      tearing: options.tearing ?? false,
      ...(options.fork && { fork: options.fork }),
    });
    const queues = new Queues(clock, MAX_IO_QUEUES + 1);
    const io = new IoCommands(clock, queues, namespace);
    this.namespace = namespace;
    this.#queues = queues;
    this.#io = io;
    this.#admin = new AdminCommands(clock, queues, namespace, io);
    this.#timing = timing && makeTiming(timing, {
      clock,
      size: media.size,
      seed,
      zones: namespace.zones,
      complete: (command) => io.complete(command as Command),
      room: () => queues.retry(),
    });
    io.timing = this.#timing;
    if (this.#timing?.firmwareFree !== undefined) {
      queues.firmwareFree = () => this.#timing!.firmwareFree!;
    }
    if (this.#timing?.admits !== undefined) {
      queues.admits = (command) => this.#timing!.admits!(command, clock.now());
    }
    queues.onError = (command) =>
      namespace.health.noteError(command, namespace.blockSize);
  }

  /** Where the blocks are in the end; what is in the cache is not there yet. */
  get media(): Media {
    return this.namespace.media;
  }

  /**
   * What has happened so far that the result of a loss of power depends on: commands
   * fetched, pieces landed, commands ended.
   */
  get events(): number {
    return this.#queues.events;
  }

  /**
   * Calls `stop` when there have been `event` events; 0 takes it back.
   *
   * @param stop Answers whether it has taken the power away.
   */
  atEvent(event: number, stop: () => boolean): void {
    this.#queues.stopAt(event, stop);
  }

  /**
   * Calls `stop` when the `count`-th write command from now on has been fetched and is
   * under way; 0 takes it back. Writes are Write, Write Zeroes, Zone Append and Copy.
   *
   * @param stop Answers whether it has taken the power away.
   */
  afterWrites(count: number, stop: () => boolean): void {
    this.#io.afterWrites(count, stop);
  }

  /** Commands on I/O queues that have been fetched and are not done.
   * @internal */
  inFlight(): Command[] {
    return this.#queues.inFlight();
  }

  /**
   * Reads a register.
   *
   * @param offset `NVME_REG_*`.
   * @returns 32 bits; all ones while there is no power.
   */
  readRegister(offset: number): number {
    if (!this.#powered) return NO_ANSWER;
    switch (offset) {
      case NVME_REG_CAP:
        return CAP_LOW;
      case NVME_REG_CAP_HI:
        return CAP_HIGH;
      case NVME_REG_VS:
        return VERSION;
      case NVME_REG_INTMS:
      case NVME_REG_INTMC:
        return this.#queues.interrupts.maskBits;
      case NVME_REG_CC:
        return this.#cc;
      case NVME_REG_CSTS:
        return this.#csts;
      case NVME_REG_AQA:
        return queueAttributes(this.#adminSq, this.#adminCq);
    }
    return 0;
  }

  /**
   * Writes a register; from `NVME_REG_DBS` on they are doorbells.
   *
   * @param offset `NVME_REG_*`.
   * @param value 32 bits.
   */
  writeRegister(offset: number, value: number): void {
    if (!this.#powered) return;
    if (offset >= NVME_REG_DBS) {
      const index = (offset - NVME_REG_DBS) / 4;
      const qid = index >>> 1;
      if ((index & 1) === 0) this.ringSq(qid, value);
      else this.ringCq(qid, value);
      return;
    }
    switch (offset) {
      case NVME_REG_INTMS:
        return this.#queues.interrupts.mask(value, true);
      case NVME_REG_INTMC:
        return this.#queues.interrupts.mask(value, false);
      case NVME_REG_CC:
        return this.#configure(value);
    }
  }

  /**
   * Names the admin queues, as AQA, ASQ and ACQ would. They are used from the next
   * time on that the controller is enabled.
   */
  setAdminQueues(sq: SubmissionQueue, cq: CompletionQueue): void {
    this.#adminSq = sq;
    this.#adminCq = cq;
  }

  /**
   * Has `handler` run when there are completions (kernel: `request_irq`).
   *
   * @param vector Number; that of the admin queue is 0.
   */
  setInterrupt(vector: number, handler: () => void): void {
    const found = this.#queues.interrupts.vector(vector);
    if (found !== undefined) found.handler = handler;
  }

  /** The host has filled submission entries up to `tail` (doorbell). */
  ringSq(qid: number, tail: number): void {
    if ((this.#csts & NVME_CSTS_RDY) !== 0) this.#queues.ringSq(qid, tail);
  }

  /** The host has consumed completion entries up to `head` (doorbell). */
  ringCq(qid: number, head: number): void {
    if ((this.#csts & NVME_CSTS_RDY) !== 0) this.#queues.ringCq(qid, head);
  }

  /**
   * Power is gone: commands under way get no completion, registers do not answer.
   * What becomes of the blocks is for `namespace.store` to say, before this.
   */
  powerOff(): void {
    this.#stop();
    this.#powered = false;
  }

  /**
   * The power goes, now: of what is not durable, `options` say what persists. Commands
   * under way get no completion.
   *
   * @param options `checkCutOptions` has nothing against them.
   */
  powerCut(options: CutOptions): CutReport {
    const { store } = this.namespace;
    const report = store.cut(this.inFlight(), this.events, options);
    this.powerOff();
    return report;
  }

  /**
   * A controller of its own, as a loss of power now would leave this one, which goes
   * on.
   *
   * @param options `checkCutOptions` has nothing against them.
   * @returns Null if the media cannot be forked.
   */
  fork(
    options: CutOptions,
  ): { controller: NvmeController; report: CutReport } | null {
    const { namespace } = this;
    const zones = namespace.zones?.clone(() => {}) ?? null;
    const left = namespace.store.fork(
      this.inFlight(),
      this.events,
      options,
      zones,
    );
    if (left === null) return null;
    zones?.powerUp();
    const { media, faults, report } = left;
    const { nsattr } = namespace.identity;
    const made: ControllerOptions = {
      ...this.#options,
      media,
      logicalBlockSize: namespace.blockSize,
      namespace: { ...this.#options.namespace, nsattr },
      fork: { faults, zones },
    };
    return { controller: new NvmeController(this.#clock, made), report };
  }

  /** Power is back: everything is as after a reset. */
  powerOn(): void {
    const unsafe = (this.#csts & NVME_CSTS_SHST_MASK) !== NVME_CSTS_SHST_CMPLT;
    this.namespace.health.countPowerOn(unsafe);
    this.namespace.zones?.powerUp();
    this.#powered = true;
    this.#cc = 0;
    this.#csts = 0;
  }

  #configure(value: number): void {
    const old = this.#cc;
    this.#cc = value;
    const enabled = (value & NVME_CC_ENABLE) !== 0;
    if (enabled !== ((old & NVME_CC_ENABLE) !== 0)) {
      if (enabled) this.#start();
      else this.#reset();
    }
    if ((value & ~old & NVME_CC_SHN_MASK) !== 0) this.#shutDown();
  }

  #start(): void {
    const ams = this.#cc & AMS_MASK;
    const isKnown = ams === NVME_CC_AMS_RR || ams === NVME_CC_AMS_WRRU;
    const sq = this.#adminSq;
    const cq = this.#adminCq;
    if (!isKnown || (this.#cc & MPS_MASK) !== 0 || sq === null || cq === null) {
      this.#csts = NVME_CSTS_CFS;
      return;
    }
    const queues = this.#queues;
    queues.reset(ams === NVME_CC_AMS_WRRU);
    const vector = queues.interrupts.vector(0)!;
    queues.addSq(sq, queues.addCq(cq, vector), 0, this.#admin);
    this.#admin.reset();
    this.#csts = NVME_CSTS_RDY;
  }

  #reset(): void {
    this.#stop();
    this.#csts = 0;
  }

  #stop(): void {
    this.#csts &= ~NVME_CSTS_RDY;
    this.#queues.reset(false);
    this.#timing?.reset();
  }

  /** Nothing more is done. After a normal shutdown nothing stays volatile. */
  #shutDown(): void {
    this.#stop();
    const isNormal = (this.#cc & NVME_CC_SHN_MASK) === NVME_CC_SHN_NORMAL;
    if (isNormal) this.namespace.store.drain();
    this.#csts |= NVME_CSTS_RDY | NVME_CSTS_SHST_CMPLT;
  }
}

/** Bytes that a volatile cache holds where the model has none. */
const CACHE_SIZE = 2 ** 25;

/** What the usual controller says of the NVM command set. */
const NVM_IDENTITY: NvmControllerIdentity = {
  vsl: 0,
  wzsl: 0,
  wusl: 0,
  dmrl: 0,
  dmrsl: 0,
};

/** A size as blocks less one. */
function lessOne(bytes: number, blockSize: number): number {
  return Math.max(0, Math.floor(bytes / blockSize) - 1);
}

function controllerIdentity(o: ControllerOptions): ControllerIdentity {
  const { preset, logicalBlockSize } = o;
  const { writeCache = preset.volatileCache } = o;
  return {
    model: preset.model,
    rab: 3,
    mdts: preset.mdts,
    crdt: [0, 0, 0],
    acl: 3,
    aerl: ASYNC_LIMIT,
    oncs: (preset.deallocates ? NVME_CTRL_ONCS_DSM : 0) |
      NVME_CTRL_ONCS_COMPARE | NVME_CTRL_ONCS_WRITE_UNCORRECTABLE |
      NVME_CTRL_ONCS_WRITE_ZEROES |
      NVME_CTRL_ONCS_VERIFY | NVME_CTRL_ONCS_COPY,
    fuses: 1,
    vwc: writeCache ? NVME_CTRL_VWC_PRESENT : 0,
    awun: lessOne(preset.atomicWrite, logicalBlockSize),
    awupf: lessOne(preset.atomicWritePowerFail, logicalBlockSize),
    acwu: 0,
    ...o.controller,
  };
}

function namespaceIdentity(o: ControllerOptions): NamespaceIdentity {
  const { media, preset, logicalBlockSize: blockSize } = o;
  const unit = lessOne(preset.writeUnit, blockSize);
  return {
    blocks: media.size / blockSize,
    blockSize,
    nsfeat: NVME_NS_FEAT_ATOMICS | NVME_NS_FEAT_IO_OPT,
    dlfeat: NVME_NS_DLFEAT_READ_ZEROES | NVME_NS_DLFEAT_DEAC,
    nsattr: 0,
    nawun: lessOne(preset.atomicWrite, blockSize),
    nawupf: lessOne(preset.atomicWritePowerFail, blockSize),
    nacwu: 0,
    nabsn: 0,
    nabo: 0,
    nabspf: 0,
    noiob: 0,
    npwg: unit,
    npwa: unit,
    npdg: unit,
    npda: unit,
    nows: 0,
    mssrl: COPY_LIMIT,
    mcl: COPY_LIMIT,
    msrc: COPY_LIMIT - 1,
    ...o.namespace,
  };
}

/** AQA: sizes less one. */
function queueAttributes(
  sq: SubmissionQueue | null,
  cq: CompletionQueue | null,
): number {
  return ((sq?.entries ?? 1) - 1) | ((cq?.entries ?? 1) - 1) << 16;
}
