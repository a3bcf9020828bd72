/**
 * The namespace of a controller: its format, its blocks and zones, and the limits
 * of commands that go to it.
 *
 * @module
 */

import { EINVAL } from "../../lib/errno.ts";
import { Allocation } from "./allocation.ts";
import type { Command } from "./command.ts";
import { FaultPlan } from "./faults.ts";
import { Health } from "./health.ts";
import {
  type ControllerIdentity,
  type NamespaceIdentity,
  type NvmControllerIdentity,
  NVME_CTRL_VWC_PRESENT,
  NVME_NS_ATTR_RO,
  NVME_NS_FEAT_ATOMICS,
  NVME_NS_FEAT_DULBE,
  type ZonedIdentity,
} from "./identify.ts";
import type { Media } from "./media.ts";
import {
  NVME_SC_INVALID_FORMAT,
  NVME_SC_NS_WRITE_PROTECTED,
  NVME_SC_SUCCESS,
  NVME_SC_WRITE_FAULT,
  NVME_ZONE_RESET,
} from "./nvme.ts";
import { Store } from "./store.ts";
import { ZonedNamespace, type ZoneOptions } from "./zns.ts";

/** Limit that stands for "none" in MAR and MOR. */
const NO_LIMIT = 0xffff_ffff;
/** Bytes of the pages in which the limits of transfers are told. */
const PAGE = 4096;

/** What makes a {@linkcode Namespace}. */
export interface NamespaceOptions {
  /** Where its blocks are. */
  media: Media;
  /** Seed of its chance. */
  seed: number;
  /** Bytes that its volatile cache holds. */
  cacheSize: number;
  /** What its controller says of itself. */
  controllerIdentity: ControllerIdentity;
  /** What its controller says of the NVM command set. */
  nvmIdentity: NvmControllerIdentity;
  /** What it says of itself. */
  identity: NamespaceIdentity;
  /** Its zones; null if it has none. */
  zones: ZoneOptions | null;
  /** Whether writes larger than the atomic unit land piece by piece. */
  tearing: boolean;
  /** What it has of the namespace that it is a fork of; absent if it is none. */
  fork?: NamespaceFork;
}

/** What a fork has of the namespace that it was. */
export interface NamespaceFork {
  /** What is wrong with its media. */
  faults: FaultPlan;
  /** The state of its zones. */
  zones: ZonedNamespace | null;
}

/** The one namespace of a controller. */
export class Namespace {
  /** Where its blocks are in the end. */
  readonly media: Media;
  /** What its controller says of itself. */
  readonly controllerIdentity: ControllerIdentity;
  /** What its controller says of the NVM command set. */
  readonly nvmIdentity: NvmControllerIdentity;
  /** What has been counted. */
  readonly health: Health = new Health();
  /** Faults that it suffers from. */
  readonly faults: FaultPlan;
  /** Its blocks. */
  store!: Store;
  /** Its zones; null if it has none. */
  zones: ZonedNamespace | null = null;
  /** Bytes of a logical block. */
  blockSize = 0;
  /** Logical blocks. */
  blocks = 0;
  /** Largest transfer, bytes. */
  readonly maxTransfer: number;
  /** Largest Write Zeroes, bytes. */
  readonly maxZeroes: number;
  /** Largest Write Uncorrectable, bytes. */
  readonly maxUncorrectable: number;
  /** Largest Verify, bytes. */
  readonly maxVerify: number;
  /** Largest append as a power of two of 4 KiB pages; 0 if it is MDTS. */
  readonly zasl: number;
  /** Whether writes are refused (feature 0x84). */
  writeProtected: boolean;
  /** Whether reads of deallocated blocks fail (feature 0x05). */
  dulbe = false;
  /** Whether the host needs no more than the power-fail unit (feature 0x0a, DN). */
  disableNormal = false;
  readonly #o: NamespaceOptions;
  /** Blocks that are not deallocated; null if nobody can ask. */
  readonly #allocation: Allocation | null;
  /** Status of what a zone command has done to blocks. */
  #zoneStatus = NVME_SC_SUCCESS;

  /** A namespace whose media holds what it holds. */
  constructor(options: NamespaceOptions) {
    const { media, seed, identity, nvmIdentity } = options;
    this.#o = options;
    this.media = media;
    this.controllerIdentity = options.controllerIdentity;
    this.nvmIdentity = nvmIdentity;
    this.faults = options.fork?.faults ?? new FaultPlan(media.size, seed);
    this.maxTransfer = limitOf(options.controllerIdentity.mdts);
    this.maxZeroes = limitOf(nvmIdentity.wzsl);
    this.maxUncorrectable = limitOf(nvmIdentity.wusl);
    this.maxVerify = limitOf(nvmIdentity.vsl);
    const append = options.zones?.maxAppend ?? 0;
    this.zasl = append === 0 ? 0 : Math.floor(Math.log2(append / PAGE));
    this.writeProtected = (identity.nsattr & NVME_NS_ATTR_RO) !== 0;
    const tracks = (identity.nsfeat & NVME_NS_FEAT_DULBE) !== 0;
    this.#allocation = tracks ? new Allocation() : null;
    this.#setFormat(identity.blockSize);
    this.faults.attach({
      readInto: (at, data) => this.store.readInto(at, data),
      failZone: (zone, cond) => this.zones?.fail(zone, cond) ?? -EINVAL,
    });
  }

  /** What it says of itself. */
  get identity(): NamespaceIdentity {
    const { identity } = this.#o;
    const { blocks, blockSize, writeProtected } = this;
    const nsattr = writeProtected ? NVME_NS_ATTR_RO : 0;
    return { ...identity, blocks, blockSize, nsattr };
  }

  /** What it says of its zones; null if it has none. */
  get zonedIdentity(): ZonedIdentity | null {
    if (this.zones === null) return null;
    const { maxActive, maxOpen, crossRead, zoneSize } = this.zones.options;
    return {
      zoc: 0,
      ozcs: crossRead ? 1 : 0,
      mar: maxActive === 0 ? NO_LIMIT : maxActive - 1,
      mor: maxOpen === 0 ? NO_LIMIT : maxOpen - 1,
      zsze: zoneSize / this.blockSize,
    };
  }

  /** Whether there is a volatile cache. */
  get hasCache(): boolean {
    return (this.controllerIdentity.vwc & NVME_CTRL_VWC_PRESENT) !== 0;
  }

  /** Whether there is a volatile cache that is not in use. */
  get writesThrough(): boolean {
    return this.hasCache && !this.store.volatile;
  }

  /** Takes the cache into use, or out of it. A status. */
  setCache(on: boolean): number {
    return this.store.setVolatile(on);
  }

  /** Largest compare-and-write, bytes. */
  get compareAndWriteUnit(): number {
    const { nsfeat, nacwu } = this.#o.identity;
    const own = (nsfeat & NVME_NS_FEAT_ATOMICS) !== 0 && nacwu !== 0;
    return ((own ? nacwu : this.controllerIdentity.acwu) + 1) * this.blockSize;
  }

  /** Whether a write lands piece by piece: it is larger than is atomic. */
  tears(command: Command): boolean {
    return this.#o.tearing && command.len > this.#pieceAt(command.at);
  }

  /** Bytes from `at` on that land together: an atomic unit, or up to a boundary. */
  #pieceAt(at: number): number {
    const { blockSize, disableNormal } = this;
    const { identity, controllerIdentity } = this.#o;
    const { nawun, nawupf, nabsn, nabo } = identity;
    const own = (identity.nsfeat & NVME_NS_FEAT_ATOMICS) !== 0;
    const { awun, awupf } = controllerIdentity;
    const normal = own && nawun !== 0 ? nawun : awun;
    const powerFail = own && nawupf !== 0 ? nawupf : awupf;
    // A unit in normal operation is at least that across a power failure.
    const blocks = 1 +
      (disableNormal ? powerFail : Math.max(normal, powerFail));
    const unit = blocks * blockSize;
    if (!own || nabsn === 0) return unit;
    const cell = (nabsn + 1) * blockSize;
    const into = (at - nabo * blockSize) % cell;
    return Math.min(unit, cell - (into < 0 ? into + cell : into));
  }

  /** Bytes of a torn write that land next. */
  nextPiece(command: Command): number {
    const { at, len, landed } = command;
    return Math.min(len - landed, this.#pieceAt(at + landed));
  }

  /** Blocks have been written, if `status` is success. @returns `status`. */
  wrote(at: number, len: number, status: number): number {
    if (this.#allocation !== null && status === NVME_SC_SUCCESS) {
      const first = at / this.blockSize;
      this.#allocation.add(first, first + len / this.blockSize);
    }
    return status;
  }

  /** Blocks have been deallocated, if `status` is success. @returns `status`. */
  deallocated(at: number, len: number, status: number): number {
    if (this.#allocation !== null && status === NVME_SC_SUCCESS) {
      const first = at / this.blockSize;
      this.#allocation.delete(first, first + len / this.blockSize);
    }
    return status;
  }

  /** Whether a read fails because it touches a block that has been deallocated. */
  isUnwritten(at: number, len: number): boolean {
    if (!this.dulbe || this.#allocation === null) return false;
    const first = at / this.blockSize;
    return !this.#allocation.has(first, first + len / this.blockSize);
  }

  /** Carries out a Zone Management Send; a status. */
  manageZone(zone: number, action: number, all: boolean): number {
    this.#zoneStatus = NVME_SC_SUCCESS;
    const status = this.zones!.manage(zone, action, all);
    return status === NVME_SC_SUCCESS ? this.#zoneStatus : status;
  }

  /** As after a reset of the controller. What is in the cache stays there. */
  resetFeatures(): void {
    this.dulbe = false;
    this.disableNormal = false;
    if (this.hasCache) this.setCache(true);
  }

  /**
   * Formats: all blocks are deallocated, and have `blockSize` bytes.
   *
   * @returns A status: NS_WRITE_PROTECTED; INVALID_FORMAT if zones would not fit;
   *   WRITE_FAULT.
   */
  format(blockSize: number): number {
    if (this.writeProtected) return NVME_SC_NS_WRITE_PROTECTED;
    if (this.zones !== null && blockSize !== this.blockSize) {
      return NVME_SC_INVALID_FORMAT;
    }
    if (this.media.zero(0, this.media.size) !== 0) return NVME_SC_WRITE_FAULT;
    this.faults.damage.clearAll();
    this.#allocation?.clear();
    const { writesThrough } = this;
    this.#setFormat(blockSize);
    if (writesThrough) this.setCache(false);
    return NVME_SC_SUCCESS;
  }

  #setFormat(blockSize: number): void {
    const { media, zones, cacheSize, seed, identity } = this.#o;
    this.blockSize = blockSize;
    this.blocks = Math.floor(media.size / blockSize);
    if (this.zones !== null) this.zones.format();
    else if (zones !== null) {
      const changed = (zone: number, action: number) =>
        this.#changed(zone, action);
      this.zones = this.#o.fork?.zones?.clone(changed) ??
        new ZonedNamespace(zones, changed);
    }
    const own = (identity.nsfeat & NVME_NS_FEAT_ATOMICS) !== 0;
    const { nabspf, nabo, nawupf } = identity;
    const { awupf } = this.controllerIdentity;
    this.store = new Store(media, {
      blockSize,
      volatile: this.hasCache,
      capacity: cacheSize,
      units: own
        ? { awupf: nawupf === 0 ? awupf : nawupf, nabspf, nabo }
        : { awupf, nabspf: 0, nabo: 0 },
      seed,
      faults: this.faults,
      zones: this.zones,
    });
  }

  /** A zone has been emptied or finished. */
  #changed(zone: number, action: number): void {
    const { store } = this;
    if (action === NVME_ZONE_RESET) {
      const { zoneSize } = this.zones!;
      const status = store.resetZone(zone);
      this.#noteZone(this.deallocated(zone * zoneSize, zoneSize, status));
    } else this.#noteZone(store.finishZone(zone));
  }

  #noteZone(status: number): void {
    if (status !== NVME_SC_SUCCESS) this.#zoneStatus = status;
  }
}

function limitOf(pages: number): number {
  return pages === 0 ? Infinity : 2 ** pages * PAGE;
}
