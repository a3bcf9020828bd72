/**
 * What a namespace can do, from what it and its controller say of themselves.
 *
 * Kernel counterpart: drivers/nvme/host/core.c (`nvme_update_ns_info`), and
 * drivers/nvme/host/zns.c for zones.
 *
 * @module
 */

import { BadLimit, blkValidateLimits } from "../blk-settings.ts";
import { SECTOR_SIZE } from "../blk-types.ts";
import {
  BLK_FEAT_ATOMIC_WRITES,
  BLK_FEAT_FUA,
  BLK_FEAT_IO_STAT,
  BLK_FEAT_NOWAIT,
  BLK_FEAT_WRITE_CACHE,
  BLK_FEAT_ZONED,
  type QueueLimits,
} from "../blkdev.ts";
import {
  type ControllerIdentity,
  type NamespaceIdentity,
  type NvmControllerIdentity,
  NVME_CTRL_ONCS_DSM,
  NVME_CTRL_ONCS_WRITE_ZEROES,
  NVME_CTRL_VWC_PRESENT,
  NVME_NS_DLFEAT_DEAC,
  NVME_NS_DLFEAT_READ_ZEROES,
  NVME_NS_FEAT_ATOMICS,
  NVME_NS_FEAT_IO_OPT,
  type ZonedIdentity,
} from "./identify.ts";

/** Blocks of a command's 16-bit count. */
const MAX_BLOCKS = 65536;
/** Most that the driver sends in one command, 8 MiB (kernel: `NVME_MAX_BYTES`). */
const MAX_SECTORS = 8 * 2 ** 20 / SECTOR_SIZE;
/** Most segments of one command (kernel: `NVME_MAX_SEGS`). */
const MAX_SEGMENTS = 128;
/** Ranges of one Dataset Management command (kernel: `NVME_DSM_MAX_RANGES`). */
const DSM_MAX_RANGES = 256;
/** Sectors of the smallest memory page, of which limits are powers of two. */
const PAGE_SECTORS = 4096 / SECTOR_SIZE;
const UINT_MAX = 0xffff_ffff;

/** What a device has said. */
export interface NvmeIdentity {
  /** Of the controller. */
  ctrl: ControllerIdentity;
  /** Of its NVM command set. */
  nvm: NvmControllerIdentity;
  /** Of the namespace. */
  ns: NamespaceIdentity;
  /** Of its zones; null if it has none. */
  zones: ZonedIdentity | null;
  /** Largest append as a power of two of pages, 0 if it is that of a write; -1 if
   * there is no Zone Append. */
  zasl: number;
}

/**
 * Limits of a namespace (kernel: `nvme_update_ns_info_block`).
 *
 * @param features `BLK_FEAT_*` that Identify does not tell: whether heads move,
 *   whether there are queues to be polled.
 */
export function nvmeQueueLimits(
  identity: NvmeIdentity,
  features: number,
): QueueLimits {
  const limits = blkValidateLimits(givenLimits(identity, features));
  if (limits instanceof BadLimit) {
    throw new Error(`BUG: limit ${limits.field} of ${limits.value}`);
  }
  return limits;
}

function givenLimits(
  identity: NvmeIdentity,
  features: number,
): Partial<QueueLimits> {
  const { ctrl, ns, zones } = identity;
  const given: Partial<QueueLimits> = {
    features: features | BLK_FEAT_NOWAIT | BLK_FEAT_IO_STAT |
      (hasCache(ctrl) ? BLK_FEAT_WRITE_CACHE | BLK_FEAT_FUA : 0),
    logicalBlockSize: ns.blockSize,
    maxHwSectors: maxHwSectors(ctrl, ns.blockSize),
    maxSegments: MAX_SEGMENTS,
    maxSegmentSize: UINT_MAX,
    virtBoundaryMask: 4095,
    dmaAlignment: 3,
  };
  setBlockSizes(given, identity);
  setDiscard(given, identity);
  setWriteZeroes(given, identity);
  if (zones === null) setChunkSectors(given, ns);
  else setZones(given, identity, zones);
  return given;
}

function hasCache(ctrl: ControllerIdentity): boolean {
  return (ctrl.vwc & NVME_CTRL_VWC_PRESENT) !== 0;
}

/** Kernel: `nvme_init_identify`, of MDTS. */
function maxHwSectors(ctrl: ControllerIdentity, blockSize: number): number {
  const mdts = ctrl.mdts === 0 ? Infinity : 2 ** ctrl.mdts * PAGE_SECTORS;
  return Math.min(mdts, MAX_SECTORS, MAX_BLOCKS * blockSize / SECTOR_SIZE);
}

/** Kernel: `nvme_update_disk_info`. */
function setBlockSizes(
  given: Partial<QueueLimits>,
  { ns }: NvmeIdentity,
): void {
  const { blockSize } = ns;
  const unit = configureAtomicWrite(given, ns);
  let physical = blockSize;
  if ((ns.nsfeat & NVME_NS_FEAT_IO_OPT) !== 0) {
    physical = blockSize * (1 + ns.npwg);
    if (ns.nows !== 0) given.ioOpt = blockSize * (1 + ns.nows);
  }
  // File systems assume that the write of a physical block is not torn. The kernel
  // refuses what is no power of two; here it is the next one below.
  given.physicalBlockSize = floorPowerOfTwo(Math.min(physical, unit));
  given.ioMin = physical;
}

/**
 * What of a write is whole or not at all across a power failure (kernel:
 * `nvme_configure_atomic_write`). AWUPF says it in blocks of whatever format, so
 * only the namespace's own field is believed.
 *
 * @returns Bytes; one block if the namespace promises no more.
 */
function configureAtomicWrite(
  given: Partial<QueueLimits>,
  ns: NamespaceIdentity,
): number {
  const { blockSize } = ns;
  let unit = blockSize;
  if (
    ns.nabo === 0 && (ns.nsfeat & NVME_NS_FEAT_ATOMICS) !== 0 && ns.nawupf !== 0
  ) {
    unit = (1 + ns.nawupf) * blockSize;
    if (ns.nabspf !== 0) {
      given.atomicWriteHwBoundary = (1 + ns.nabspf) * blockSize;
    }
  }
  given.features! |= BLK_FEAT_ATOMIC_WRITES;
  given.atomicWriteHwMax = unit;
  given.atomicWriteHwUnitMin = blockSize;
  given.atomicWriteHwUnitMax = floorPowerOfTwo(unit);
  return unit;
}

function floorPowerOfTwo(n: number): number {
  return 2 ** Math.floor(Math.log2(n));
}

/** Kernel: `nvme_config_discard`. */
function setDiscard(
  given: Partial<QueueLimits>,
  { ctrl, nvm, ns }: NvmeIdentity,
): void {
  if (nvm.dmrsl !== 0) {
    given.maxHwDiscardSectors = nvm.dmrsl * (ns.blockSize / SECTOR_SIZE);
  } else if ((ctrl.oncs & NVME_CTRL_ONCS_DSM) !== 0) {
    given.maxHwDiscardSectors = UINT_MAX;
  } else return;
  given.discardGranularity = ns.blockSize * (1 + Math.max(ns.npdg, ns.npda));
  given.maxDiscardSegments = nvm.dmrl || DSM_MAX_RANGES;
}

/** Kernel: `nvme_init_non_mdts_limits`; the size of what has no payload is limited,
 * too, unless the device says how much it takes. */
function setWriteZeroes(
  given: Partial<QueueLimits>,
  { ctrl, nvm, ns }: NvmeIdentity,
): void {
  if ((ctrl.oncs & NVME_CTRL_ONCS_WRITE_ZEROES) === 0) return;
  const most = nvm.wzsl === 0
    ? given.maxHwSectors!
    : 2 ** nvm.wzsl * PAGE_SECTORS;
  const perBlock = ns.blockSize / SECTOR_SIZE;
  given.maxWriteZeroesSectors = Math.min(most, MAX_BLOCKS * perBlock);
  if (nvmeHasDeac(ns)) {
    given.maxHwWzeroesUnmapSectors = given.maxWriteZeroesSectors;
  }
}

/** Whether Write Zeroes may deallocate: if what is deallocated reads as zeroes. */
export function nvmeHasDeac(ns: NamespaceIdentity): boolean {
  return (ns.dlfeat & 7) === NVME_NS_DLFEAT_READ_ZEROES &&
    (ns.dlfeat & NVME_NS_DLFEAT_DEAC) !== 0;
}

/** Kernel: `nvme_set_chunk_sectors`. */
function setChunkSectors(
  given: Partial<QueueLimits>,
  ns: NamespaceIdentity,
): void {
  const sectors = ns.noiob * (ns.blockSize / SECTOR_SIZE);
  if (Number.isInteger(Math.log2(sectors))) given.chunkSectors = sectors;
}

/** Kernel: `nvme_update_zone_info`. */
function setZones(
  given: Partial<QueueLimits>,
  { ns, zasl }: NvmeIdentity,
  zones: ZonedIdentity,
): void {
  given.features! |= BLK_FEAT_ZONED;
  // A field of 32 bits: none is the largest number, and one more is 0.
  given.maxOpenZones = (zones.mor + 1) % 2 ** 32;
  given.maxActiveZones = (zones.mar + 1) % 2 ** 32;
  given.chunkSectors = zones.zsze * (ns.blockSize / SECTOR_SIZE);
  if (zasl >= 0) {
    given.maxHwZoneAppendSectors = zasl === 0
      ? given.maxHwSectors!
      : 2 ** zasl * PAGE_SECTORS;
  }
}
