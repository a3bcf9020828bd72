/**
 * An emulated NVMe device.
 *
 * @module
 */

import type { Clock } from "../../lib/clock.ts";
import { EINVAL, FsError, show } from "../../lib/errno.ts";
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
  if (typeof clock?.atBackground !== "function") {
    refuse(`clock ${show(clock)} is not a clock`);
  }
  if (typeof options !== "object" || options === null) {
    refuse(`options are ${show(options)}, not an object`);
  }
  for (const name in options) {
    if (!KNOWN.has(name)) refuse(`unknown option "${name}"`);
  }
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
  const queues = count("queues", options.queues, 1, 128);
  const depth = count("depth", options.depth, 1023, 4095);
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

function findPreset(name = "null"): NvmePreset {
  if (typeof name === "string" && Object.hasOwn(NVME_PRESETS, name)) {
    return NVME_PRESETS[name as keyof typeof NVME_PRESETS];
  }
  const names = Object.keys(NVME_PRESETS).join(", ");
  refuse(`there is no preset ${show(name)} (there are ${names})`);
}

function count(
  name: string,
  value: number | undefined,
  otherwise: number,
  max: number,
): number {
  if (value === undefined) return otherwise;
  if (Number.isInteger(value) && value >= 1 && value <= max) return value;
  refuse(`${name} ${show(value)} is not a whole number from 1 to ${max}`);
}

const MEDIA_METHODS = ["read", "write", "zero", "close"] as const;

function checkMedia(media: Media): void {
  const isMedia = typeof media === "object" && media !== null &&
    MEDIA_METHODS.every((name) => typeof media[name] === "function");
  if (!isMedia) refuse(`media ${show(media)} is not a Media`);
}

function mediaOf(options: NvmeOptions, logicalBlockSize: number): Media {
  if (options.media !== undefined) checkMedia(options.media);
  const { size = options.media?.size } = options;
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
  const media = options.media ?? new MemoryMedia(size);
  if (media.size !== size) {
    refuse(`size ${size} is not the media's, ${media.size}`);
  }
  return media;
}
