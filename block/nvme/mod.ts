/**
 * An emulated NVMe device.
 *
 * @module
 */

import type { Clock } from "../../lib/clock.ts";
import { EINVAL, FsError } from "../../lib/errno.ts";
import { NvmeController } from "./controller.ts";
import { NvmeDevice } from "./host.ts";
import { type Media, MemoryMedia } from "./media.ts";
import { NVME_PRESETS, type NvmePreset } from "./presets.ts";

export { type ControllerOptions, NvmeController } from "./controller.ts";
export { NvmeDevice } from "./host.ts";
export {
  FileMedia,
  type FileMediaOptions,
  type Media,
  MemoryMedia,
} from "./media.ts";
export { type HostMemory, QueuePair } from "./queue.ts";
export {
  type FlashMode,
  type LatencyParams,
  NVME_PRESETS,
  type NvmePreset,
  type NvmePresetName,
} from "./presets.ts";

/** What {@linkcode createNvme} makes. */
export interface NvmeOptions {
  /** Bytes, a multiple of the logical block size and at least 4096; the media's if absent. */
  size?: number;
  /** Model of device, a name in {@linkcode NVME_PRESETS}; `"null"` if absent. */
  preset?: string;
  /** Bytes of a logical block, 512 or 4096; 512 if absent. */
  logicalBlockSize?: number;
  /** Where the blocks are kept; memory of `size` bytes if absent. The device closes it. */
  media?: Media;
  /** Seed of the device's chance, a safe integer; 1 if absent. */
  seed?: number;
  /** I/O queues, 1 to 128; 1 if absent. */
  queues?: number;
  /** Commands under way in each queue, 1 to 4095; 1023 if absent. */
  depth?: number;
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
  for (const name of Object.keys(options)) {
    if (!KNOWN.has(name)) refuse(`unknown option "${name}"`);
  }
  const preset = findPreset(options.preset ?? "null");
  const logicalBlockSize = options.logicalBlockSize ?? 512;
  if (logicalBlockSize !== 512 && logicalBlockSize !== 4096) {
    refuse(`logicalBlockSize ${logicalBlockSize} is neither 512 nor 4096`);
  }
  const seed = options.seed ?? 1;
  if (!Number.isSafeInteger(seed)) refuse(`seed ${seed} is not a safe integer`);
  const queues = count("queues", options.queues ?? 1, 128);
  const depth = count("depth", options.depth ?? 1023, 4095);
  const media = mediaOf(options, logicalBlockSize);
  const controller = new NvmeController(clock, {
    preset,
    media,
    logicalBlockSize,
    seed,
  });
  return new NvmeDevice(clock, controller, queues, depth);
}

const KNOWN: ReadonlySet<string> = new Set<keyof NvmeOptions>([
  "size",
  "preset",
  "logicalBlockSize",
  "media",
  "seed",
  "queues",
  "depth",
]);

function refuse(what: string): never {
  throw new FsError(EINVAL, `Cannot make an NVMe device, ${what}`);
}

function findPreset(name: string): NvmePreset {
  if (Object.hasOwn(NVME_PRESETS, name)) {
    return NVME_PRESETS[name as keyof typeof NVME_PRESETS];
  }
  const names = Object.keys(NVME_PRESETS).join(", ");
  refuse(`there is no preset "${name}" (there are ${names})`);
}

function count(name: string, value: number, max: number): number {
  if (Number.isInteger(value) && value >= 1 && value <= max) return value;
  refuse(`${name} ${value} is not a whole number from 1 to ${max}`);
}

function mediaOf(options: NvmeOptions, logicalBlockSize: number): Media {
  const size = options.size ?? options.media?.size;
  if (size === undefined) refuse("neither size nor media is given");
  if (
    !Number.isSafeInteger(size) || size < MIN_SIZE ||
    size % logicalBlockSize !== 0
  ) {
    refuse(
      `size ${size} is not a multiple of ${logicalBlockSize} from ${MIN_SIZE} on`,
    );
  }
  const media = options.media ?? new MemoryMedia(size);
  if (media.size !== size) {
    refuse(`size ${size} is not the media's, ${media.size}`);
  }
  return media;
}
