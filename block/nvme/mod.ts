/**
 * An emulated NVMe device.
 *
 * @module
 */

import type { Clock } from "../../lib/clock.ts";
import { EINVAL, FsError, show } from "../../lib/errno.ts";
import {
  BLK_FEAT_DAX,
  BLK_FEAT_ROTATIONAL,
  BLK_FEAT_SYNCHRONOUS,
} from "../blkdev.ts";
import { type ControllerOptions, NvmeController } from "./controller.ts";
import { NvmeDevice } from "./host.ts";
import { NVME_MAX_DEPTH } from "./host-queue.ts";
import { NVME_NS_FEAT_IO_OPT } from "./identify.ts";
import { type Media, MemoryMedia } from "./media.ts";
import { checkPreset, NVME_PRESETS, type NvmePreset } from "./presets.ts";
import { badZoneOption, type ZoneOptions } from "./zns.ts";

export { type ControllerOptions, NvmeController } from "./controller.ts";
export type { DieParams } from "./dies.ts";
export type { DiskParams, SeekCurve } from "./disk-timing.ts";
export {
  type Fault,
  type FaultOp,
  FaultPlan,
  type FaultSectors,
  type FaultWhen,
  type TransientStatus,
} from "./faults.ts";
export type { FastRegion, FlashMode, FlashParams } from "./flash.ts";
export { NvmeDevice } from "./host.ts";
export type { NvmePassthru, NvmeResult } from "./host-cmd.ts";
export type { JitterTable } from "./jitter.ts";
export {
  FileMedia,
  type FileMediaOptions,
  type Media,
  MemoryMedia,
} from "./media.ts";
export type { PmemParams } from "./pmem-timing.ts";
export {
  type CutFragment,
  type CutKeep,
  type CutOptions,
  type CutReport,
  cutStates,
  type CutStatesOptions,
  type TearMode,
} from "./power-cut.ts";
export {
  NVME_PRESETS,
  type NvmePreset,
  type NvmePresetName,
  type PresetZones,
} from "./presets.ts";
export type { CompletionQueue, HostMemory, SubmissionQueue } from "./queue.ts";
export type { TimingParams } from "./timing.ts";
export type { XpointParams } from "./xpoint-timing.ts";
export type { ZnsParams, ZoneTimes } from "./zns-timing.ts";
export type { ZoneFlavor } from "./zns.ts";

/** Zones of a device; what is absent is as the preset's, or as said here. */
export interface NvmeZonedOptions {
  /** Bytes from one zone's start to the next, a power of two; 256 MiB. */
  zoneSize?: number;
  /** Bytes of a sequential zone that can be written; all. */
  zoneCapacity?: number;
  /** Zones at the beginning that can be written anywhere; 0. */
  conventional?: number;
  /** Zones that may be open, 0 for any number; 0. */
  maxOpen?: number;
  /** Zones that may be open or closed, 0 for any number; 0. */
  maxActive?: number;
  /** Whose rules decide where devices differ; `"zns"`. */
  flavor?: "zbc" | "zns";
  /** Whether reads may cross from one zone into the next; false. */
  crossRead?: boolean;
  /** Whether the device has Zone Append, or the block layer makes writes of appends;
   * whether the flavor is `"zns"`. */
  append?: boolean;
  /** Largest append, bytes, 0 if only the transfer size limits it; 0. */
  maxAppend?: number;
}

/**
 * Units that are written whole or not at all, in logical blocks less one as Identify
 * tells them: 0 to 65535 each. If none of the namespace's own is given, the device goes
 * by the controller's, and the driver, which believes only the namespace, takes a
 * single block to be atomic.
 */
export interface NvmeAtomics {
  /** The controller's, as other commands see it; `awupf` if absent. */
  awun?: number;
  /** The controller's, as the loss of power leaves it, not above `awun`; 0 if absent. */
  awupf?: number;
  /** The controller's, of a compare and write; 0 if absent. */
  acwu?: number;
  /** The namespace's, as other commands see it, 0 for the controller's; `nawupf` if
   * absent. */
  nawun?: number;
  /** The namespace's, as the loss of power leaves it, not above `nawun`, 0 for the
   * controller's; 0 if absent. */
  nawupf?: number;
  /** The namespace's, of a compare and write; 0 is the controller's. */
  nacwu?: number;
  /** Boundary within which other commands see it; 0 is none. */
  nabsn?: number;
  /** Block at which the first such boundary lies. */
  nabo?: number;
  /** Boundary within which the loss of power leaves it; 0 is none. */
  nabspf?: number;
}

/** What {@linkcode createNvme} makes. */
export interface NvmeOptions {
  /** Bytes, a multiple of the logical block size and at least 4096; the media's if absent. */
  size?: number;
  /** Model of device, a name in {@linkcode NVME_PRESETS} or one of your own; `"null"`
   * if absent. */
  preset?: string | NvmePreset;
  /** Bytes of a logical block, 512 or 4096; 512 if absent. */
  logicalBlockSize?: number;
  /** Where the blocks are kept; memory of `size` bytes if absent. The device closes it. */
  media?: Media;
  /** Seed of the device's chance, a safe integer; 1 if absent. */
  seed?: number;
  /** I/O queues, 1 to 128; 1 if absent (kernel: `write_queues`, once there are others). */
  queues?: number;
  /** I/O queues for reads alone, 0 to 128; 0 if absent. */
  readQueues?: number;
  /** I/O queues for polled bios, 0 to 128; 0 if absent (kernel: `poll_queues`). */
  pollQueues?: number;
  /** Commands under way in each queue, 1 to 4095; 1023 if absent (kernel:
   * `io_queue_depth` less one). */
  depth?: number;
  /** Whether completed writes are volatile until a flush; as the preset's if absent. */
  writeCache?: boolean;
  /**
   * Zones; true for the usual ones. As the preset's if absent. They begin empty: their
   * state is the device's and lasts as long as that, over any loss of power. Media that
   * has been written to, an old image for instance, is refused.
   */
  zoned?: boolean | NvmeZonedOptions;
  /** Atomic units; the preset's if absent. */
  atomics?: NvmeAtomics;
  /** Whether a write that is larger than the atomic unit lands piece by piece, so that
   * a read meanwhile may see a part of it; false if absent. */
  tearing?: boolean;
}

const MIN_SIZE = 4096;

/**
 * Makes a device.
 *
 * @param clock Tells the time that its commands take.
 * @throws {FsError} EINVAL, naming the option whose value cannot be.
 */
export function createNvme(
  clock: Clock,
  options: NvmeOptions = {},
): NvmeDevice {
  if (typeof clock?.atBackground !== "function") {
    refuse(`clock ${show(clock)} is not a clock`);
  }
  checkNames("option", options, KNOWN);
  const { logicalBlockSize = 512, seed = 1 } = options;
  const preset = findPreset(options.preset);
  if (logicalBlockSize !== 512 && logicalBlockSize !== 4096) {
    refuse(
      `logicalBlockSize ${show(logicalBlockSize)} is neither 512 nor 4096`,
    );
  }
  if (!Number.isSafeInteger(seed)) {
    refuse(`seed ${show(seed)} is not a safe integer`);
  }
  const counts = {
    queues: count("queues", options.queues, 1, 1, 128),
    readQueues: count("readQueues", options.readQueues, 0, 0, 128),
    pollQueues: count("pollQueues", options.pollQueues, 0, 0, 128),
    depth: count("depth", options.depth, 1023, 1, NVME_MAX_DEPTH),
  };
  const tearing = flag("tearing", options.tearing) ?? false;
  const writeCache = flag("writeCache", options.writeCache) ??
    preset.volatileCache;
  const atomics = atomicsOf(options.atomics);
  const size = sizeOf(options, logicalBlockSize);
  const zones = zonesOf(options.zoned, preset, size, logicalBlockSize);
  if (zones !== null && options.media?.blank === false) {
    refuse("zones begin empty, and the media has been written to");
  }
  const controller = new NvmeController(clock, {
    preset,
    media: options.media ?? new MemoryMedia(size),
    logicalBlockSize,
    seed,
    writeCache,
    zones,
    tearing,
    ...atomics,
  });
  return new NvmeDevice(clock, controller, counts, featuresOf(preset));
}

const KNOWN: ReadonlySet<string> = new Set<keyof NvmeOptions>([
  "size",
  "preset",
  "logicalBlockSize",
  "media",
  "seed",
  "queues",
  "readQueues",
  "pollQueues",
  "depth",
  "writeCache",
  "zoned",
  "atomics",
  "tearing",
]);
const ZONED: ReadonlySet<string> = new Set<keyof NvmeZonedOptions>([
  "zoneSize",
  "zoneCapacity",
  "conventional",
  "maxOpen",
  "maxActive",
  "flavor",
  "crossRead",
  "append",
  "maxAppend",
]);
const ATOMICS: ReadonlySet<string> = new Set<keyof NvmeAtomics>([
  "awun",
  "awupf",
  "acwu",
  "nawun",
  "nawupf",
  "nacwu",
  "nabsn",
  "nabo",
  "nabspf",
]);

function refuse(what: string): never {
  throw new FsError(EINVAL, `Cannot make an NVMe device, ${what}`);
}

function checkNames(
  what: string,
  options: object,
  known: ReadonlySet<string>,
): void {
  if (typeof options !== "object" || options === null) {
    refuse(`${what}s are ${show(options)}, not an object`);
  }
  for (const name in options) {
    if (!known.has(name)) refuse(`unknown ${what} "${name}"`);
  }
}

function findPreset(preset: string | NvmePreset = "null"): NvmePreset {
  const isObject = typeof preset === "object" && preset !== null;
  if (isObject && "timing" in preset) {
    checkPreset(preset);
    return preset;
  }
  if (typeof preset === "string" && Object.hasOwn(NVME_PRESETS, preset)) {
    return NVME_PRESETS[preset as keyof typeof NVME_PRESETS];
  }
  const names = Object.keys(NVME_PRESETS).join(", ");
  refuse(`there is no preset ${show(preset)} (there are ${names})`);
}

function count(
  name: string,
  value: number | undefined,
  otherwise: number,
  min: number,
  max: number,
): number {
  if (value === undefined) return otherwise;
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  refuse(`${name} ${show(value)} is not a whole number from ${min} to ${max}`);
}

function flag(name: string, value: boolean | undefined): boolean | undefined {
  if (value === undefined || typeof value === "boolean") return value;
  refuse(`${name} ${show(value)} is neither true nor false`);
}

/** What Identify does not tell, and the driver knows of the model (kernel: of hard
 * disks the independent Identify, of persistent memory `pmem_attach_disk`). */
function featuresOf(preset: NvmePreset): number {
  if (preset.rotational) return BLK_FEAT_ROTATIONAL;
  return preset.timing?.kind === "pmem"
    ? BLK_FEAT_SYNCHRONOUS | BLK_FEAT_DAX
    : 0;
}

/** Fields of Identify for atomic units. */
type AtomicFields = Pick<ControllerOptions, "controller" | "namespace">;

function atomicsOf(given: NvmeAtomics | undefined): AtomicFields {
  if (given === undefined) return {};
  checkNames("atomic unit", given, ATOMICS);
  for (const name of ATOMICS as ReadonlySet<keyof NvmeAtomics>) {
    count(name, given[name], 0, 0, 0xffff);
  }
  checkPair("awupf", given.awupf, "awun", given.awun);
  checkPair("nawupf", given.nawupf, "nawun", given.nawun);
  const { awupf = 0, awun = awupf, acwu = 0, ...own } = given;
  const { nawupf = 0, nawun = nawupf, ...others } = own;
  return {
    controller: { awun, awupf, acwu },
    namespace: Object.keys(own).length === 0
      ? { nsfeat: NVME_NS_FEAT_IO_OPT, nawun: 0, nawupf: 0 }
      : { nawun, nawupf, ...others },
  };
}

function checkPair(
  name: string,
  value: number | undefined,
  other: string,
  most: number | undefined,
): void {
  if (value === undefined || most === undefined || value <= most) return;
  refuse(`${name} ${value} is above ${other} ${most}`);
}

const MEDIA_METHODS = ["read", "write", "zero", "close"] as const;

function checkMedia(media: Media): void {
  const isMedia = typeof media === "object" && media !== null &&
    MEDIA_METHODS.every((name) => typeof media[name] === "function");
  if (!isMedia) refuse(`media ${show(media)} is not a Media`);
}

function sizeOf(options: NvmeOptions, logicalBlockSize: number): number {
  const { media } = options;
  if (media !== undefined) checkMedia(media);
  const { size = media?.size } = options;
  if (size === undefined) refuse("neither size nor media is given");
  if (
    !Number.isSafeInteger(size) || size < MIN_SIZE ||
    size % logicalBlockSize !== 0
  ) {
    refuse(
      `size ${show(size)} is not a multiple of ${logicalBlockSize} ` +
        `from ${MIN_SIZE} on`,
    );
  }
  if (media !== undefined && media.size !== size) {
    refuse(`size ${size} is not the media's, ${media.size}`);
  }
  return size;
}

/** Bytes of a zone if nobody says otherwise. */
const ZONE_SIZE = 256 * 2 ** 20;

function zonesOf(
  given: boolean | NvmeZonedOptions | undefined,
  preset: NvmePreset,
  size: number,
  blockSize: number,
): ZoneOptions | null {
  const usual = preset.zones;
  if (given === false || (given === undefined && usual === null)) return null;
  const own = given === true || given === undefined ? {} : given;
  checkNames("zone option", own, ZONED);
  const zoneSize = own.zoneSize ?? usual?.zoneSize ?? ZONE_SIZE;
  const zoneCapacity = own.zoneCapacity ??
    Math.min(usual?.zoneCapacity ?? zoneSize, zoneSize);
  const nrZones = Math.ceil(size / zoneSize);
  const flavor = own.flavor ?? usual?.flavor ?? "zns";
  const zones: ZoneOptions = {
    size,
    blockSize,
    zoneSize,
    zoneCapacity,
    conventional: own.conventional ??
      Math.floor((usual?.conventional ?? 0) * nrZones),
    maxOpen: own.maxOpen ?? usual?.maxOpen ?? 0,
    maxActive: own.maxActive ?? usual?.maxActive ?? 0,
    flavor,
    crossRead: flag("crossRead", own.crossRead) ?? false,
    append: flag("append", own.append) ?? usual?.append ?? flavor === "zns",
    maxAppend: own.maxAppend ?? 0,
  };
  const bad = badZoneOption(zones);
  if (bad !== null) refuse(bad);
  return zones;
}
