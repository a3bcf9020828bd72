/**
 * Devices by name: what distinguishes one model from another, as data.
 *
 * `docs/device-models.md` shows what each of them does beside what it should do.
 *
 * @module
 */

import { EINVAL, FsError, show } from "../../lib/errno.ts";
import { MSEC, USEC } from "../../lib/clock.ts";
import type { FlashParams } from "./flash.ts";
import type { JitterTable } from "./jitter.ts";
import type { TimingParams } from "./timing.ts";
import type { ZoneFlavor } from "./zns.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;
/** Bytes of a page of flash translation. */
const PAGE = 4 * KiB;

/** Zones of a model of device. */
export interface PresetZones {
  /** Bytes from one zone's start to the next. */
  zoneSize: number;
  /** Bytes of a sequential zone that can be written. */
  zoneCapacity: number;
  /** Share of the zones, at the beginning, that can be written anywhere. */
  conventional: number;
  /** Zones that may be open. */
  maxOpen: number;
  /** Zones that may be open or closed; 0 if any number. */
  maxActive: number;
  /** Whose rules decide where devices differ. */
  flavor: ZoneFlavor;
  /** Whether it has Zone Append. */
  append: boolean;
}

/** One model of device. */
export interface NvmePreset {
  /** Model number that Identify tells. */
  model: string;
  /** Its timing; null if nothing takes time. */
  timing: TimingParams | null;
  /** Whether completed writes can be lost with the power (VWC). */
  volatileCache: boolean;
  /** Bytes of the volatile cache. */
  cacheSize: number;
  /** Largest write that other commands see whole or not at all, bytes (AWUN). */
  atomicWrite: number;
  /** Largest write that survives a loss of power whole or not at all, bytes
   * (AWUPF); 0 for one logical block. */
  atomicWritePowerFail: number;
  /** Bytes that are best written together, and at multiples of (NPWG). */
  writeUnit: number;
  /** Largest transfer, a power of two of 4 KiB (MDTS); 0 if there is no limit. */
  mdts: number;
  /** Whether it can deallocate. */
  deallocates: boolean;
  /** Whether it has moving parts. */
  rotational: boolean;
  /** Its zones, or null. */
  zones: PresetZones | null;
}

/** Name of a device model. */
export type NvmePresetName =
  | "null"
  | "optane"
  | "optane2"
  | "tlc-dc"
  | "mlc-970pro"
  | "qlc"
  | "zns"
  | "hdd"
  | "smr"
  | "pmem";

/** What most of them are. */
const SSD = {
  volatileCache: false,
  cacheSize: 0,
  atomicWrite: 4 * KiB,
  atomicWritePowerFail: 4 * KiB,
  writeUnit: 4 * KiB,
  mdts: 7,
  deallocates: true,
  rotational: false,
  zones: null,
};

const DISK: TimingParams = {
  kind: "disk",
  revolution: 8_333_333,
  seekRead: { base: 230 * USEC, root: 9_570 * USEC, linear: 6_200 * USEC },
  seekWrite: { base: 320 * USEC, root: 11_600 * USEC, linear: 5_080 * USEC },
  outerMBps: 250,
  innerMBps: 125,
  headSwitch: 500 * USEC,
  overhead: 100 * USEC,
  interfaceMBps: 550,
  queue: 32,
  aging: 500 * MSEC,
  lookAhead: 1 * MSEC,
  cache: 256 * MiB,
};

const HDD: Omit<NvmePreset, "model"> = {
  ...SSD,
  timing: DISK,
  volatileCache: true,
  cacheSize: 256 * MiB,
  atomicWrite: 0,
  atomicWritePowerFail: 0,
  deallocates: false,
  rotational: true,
};

/**
 * Device models by name. `optane` and `optane2` follow the published figures for
 * P4800X and P5800X, `mlc-970pro` the parameters of NVMeVirt, `zns` measurements
 * of a WD ZN540, `hdd` and `smr` the data sheet of a 7200 rpm drive, `pmem`
 * published studies; `tlc-dc` and `qlc` are fitted so that the model shows what is
 * published for drives of their class.
 */
export const NVME_PRESETS: Readonly<Record<NvmePresetName, NvmePreset>> = {
  "null": { ...SSD, model: "null", timing: null, mdts: 0 },
  "optane": {
    ...SSD,
    model: "optane (P4800X)",
    timing: {
      kind: "xpoint",
      host: 1_500,
      firmware: 1_710,
      units: 7,
      media: 4_000,
      pcieReadMBps: 2_400,
      pcieWriteMBps: 2_200,
      readJitter: {
        median: 8_900,
        quantiles: [[0.5, 1], [0.99, 1.1], [0.99999, 4.1]],
      },
    },
  },
  "optane2": {
    ...SSD,
    model: "optane2 (P5800X)",
    timing: {
      kind: "xpoint",
      host: 2_000,
      firmware: 660,
      units: 16,
      media: 2_600,
      pcieReadMBps: 7_200,
      pcieWriteMBps: 6_200,
    },
  },
  "tlc-dc": {
    ...SSD,
    model: "tlc-dc (PM9A3-like)",
    atomicWrite: 128 * KiB,
    atomicWritePowerFail: 16 * KiB,
    timing: {
      kind: "flash",
      host: 3_000,
      firmwareRead4k: 8_000,
      firmwareRead: 8_000,
      firmwareWrite: 5_000,
      firmwareWritePer4k: 600,
      firmwareKiops: 900,
      channels: 8,
      diesPerChannel: 8,
      page: 2 * 16 * KiB,
      channelMBps: 1_200,
      pcieReadMBps: 6_500,
      pcieWriteMBps: 6_500,
      flash: {
        read4k: [52 * USEC],
        read: [60 * USEC],
        program: 1_914 * USEC,
        oneShot: 96 * KiB,
      },
      erase: 3 * MSEC,
      eraseBlock: 24 * MiB,
      overProvisioning: 0.07,
      writeBuffer: 64 * MiB,
      powerLossProtected: true,
    },
  },
  "mlc-970pro": {
    ...SSD,
    model: "mlc-970pro",
    volatileCache: true,
    cacheSize: 1 * MiB,
    atomicWrite: 512 * KiB,
    atomicWritePowerFail: 0,
    timing: {
      kind: "flash",
      host: 3_000,
      firmwareRead4k: 21_500,
      firmwareRead: 30_490,
      firmwareWrite: 4_000,
      firmwareWritePer4k: 460,
      firmwareKiops: 0,
      channels: 8,
      diesPerChannel: 2,
      page: 32 * KiB,
      channelMBps: 800,
      pcieReadMBps: 3_360,
      pcieWriteMBps: 3_360,
      flash: {
        read4k: [29_760, 41_760],
        read: [30_000, 42_000],
        program: 185 * USEC,
        oneShot: 32 * KiB,
      },
      erase: 0,
      eraseBlock: 16 * MiB,
      overProvisioning: 0.07,
      writeBuffer: 1 * MiB,
      powerLossProtected: false,
    },
  },
  "qlc": {
    ...SSD,
    model: "qlc (660p-like)",
    volatileCache: true,
    cacheSize: 32 * MiB,
    atomicWrite: 128 * KiB,
    atomicWritePowerFail: 0,
    timing: {
      kind: "flash",
      host: 5_000,
      firmwareRead4k: 12_000,
      firmwareRead: 12_000,
      firmwareWrite: 8_000,
      firmwareWritePer4k: 1_000,
      firmwareKiops: 220,
      channels: 4,
      diesPerChannel: 2,
      page: 4 * 16 * KiB,
      channelMBps: 800,
      pcieReadMBps: 1_800,
      pcieWriteMBps: 2_000,
      flash: {
        read4k: [110 * USEC],
        read: [120 * USEC],
        program: 12_196 * USEC,
        oneShot: 256 * KiB,
      },
      erase: 3 * MSEC,
      eraseBlock: 64 * MiB,
      overProvisioning: 0.07,
      writeBuffer: 32 * MiB,
      powerLossProtected: false,
      slc: {
        share: 0.012,
        ofFree: 0.163,
        foldPerWrite: 0.65,
        read4k: [40 * USEC],
        read: [45 * USEC],
        program: 280 * USEC,
        oneShot: 64 * KiB,
      },
    },
  },
  "zns": {
    ...SSD,
    model: "zns (ZN540)",
    zones: {
      zoneSize: 2 * GiB,
      zoneCapacity: 275_712 * 4 * KiB,
      conventional: 0,
      maxOpen: 14,
      maxActive: 14,
      flavor: "zns",
      append: true,
    },
    timing: {
      kind: "zns",
      hostRead: 3_000,
      hostWrite: 3_000,
      firmwareRead4k: 4_800,
      firmwareRead: 4_800,
      firmwareWrite: 6_050,
      firmwareWritePer4k: 600,
      firmwareAppend: 9_450,
      appendService: 7_500,
      firmwareKiops: 438,
      openedByWrite: 2_300,
      openedByAppend: 2_700,
      channels: 8,
      diesPerChannel: 4,
      page: 32 * KiB,
      channelMBps: 450,
      pcieReadMBps: 3_050,
      pcieWriteMBps: 3_050,
      flash: {
        read4k: [51_300],
        read: [58 * USEC],
        program: 2_800 * USEC,
        oneShot: 96 * KiB,
      },
      programSlice: 165 * USEC,
      resumedSlices: 2,
      zoneBuffer: 40 * 96 * KiB,
      powerLossProtected: true,
      readJitter: {
        median: 69_100,
        quantiles: [
          [0.5, 1],
          [0.9, 1.15],
          [0.99, 1.18],
          [0.999, 1.19],
          [0.9999, 1.87],
        ],
      },
      writeJitter: {
        median: 10_700,
        quantiles: [
          [0.5, 1],
          [0.9, 1.1],
          [0.99, 1.26],
          [0.999, 1.49],
          [0.9999, 3.8],
        ],
      },
      appendJitter: {
        median: 14_100,
        quantiles: [
          [0.5, 1],
          [0.9, 1.1],
          [0.99, 1.2],
          [0.999, 1.35],
          [0.9999, 10.4],
        ],
      },
      zone: {
        open: 9_600,
        close: 10_960,
        closeWritten: 15_200,
        finishEmpty: 13_500,
        finish: 2_580 * USEC,
        finishPer4k: 3_282,
        reset: [
          [0, 1_610 * USEC],
          [1 / 275_712, 1_700 * USEC],
          [0.0625, 5_160 * USEC],
          [0.125, 6_050 * USEC],
          [0.25, 7_880 * USEC],
          [0.5, 11_300 * USEC],
          [1, 15_800 * USEC],
        ],
        resetFinished: 1_580 * USEC,
        resetFinishedWritten: 13_800 * USEC,
      },
    },
  },
  "hdd": { ...HDD, model: "hdd (7200 rpm)" },
  "smr": {
    ...HDD,
    model: "smr (7200 rpm)",
    zones: {
      zoneSize: 256 * MiB,
      zoneCapacity: 256 * MiB,
      conventional: 0.01,
      maxOpen: 128,
      maxActive: 0,
      flavor: "zbc",
      append: false,
    },
  },
  "pmem": {
    ...SSD,
    model: "pmem (6 DIMMs)",
    atomicWrite: 0,
    atomicWritePowerFail: 0,
    writeUnit: 512,
    mdts: 0,
    timing: {
      kind: "pmem",
      modules: 6,
      readRandom: 305,
      readSequential: 169,
      write: 90,
      flush: 62,
      granule: 256,
      line: 64,
      readMBps: 39_400 / 6,
      writeMBps: 13_900 / 6,
    },
  },
};

/** What a parameter may not be above: a day, or a very large size. */
const MAX_PARAMETER: number = 2 ** 47;
/** Parameters that are numbers of things. */
const COUNTS = new Set([
  "channels",
  "diesPerChannel",
  "units",
  "modules",
  "queue",
  "resumedSlices",
]);
/** Parameters of which the model needs some. */
const POSITIVE = new Set([
  "page",
  "oneShot",
  "eraseBlock",
  "writeBuffer",
  "zoneBuffer",
  "revolution",
  "outerMBps",
  "innerMBps",
  "interfaceMBps",
  "granule",
]);
/** Parameters that a model need not have, as they are where there are some. */
function optionalParameters(): Record<string, unknown> {
  const { qlc, zns } = NVME_PRESETS;
  return { ...qlc, ...zns, ...qlc.timing, ...zns.timing };
}
const OPTIONAL = new Set([
  "slc",
  "zones",
  "timing",
  "readJitter",
  "writeJitter",
  "appendJitter",
  "programSlice",
  "resumedSlices",
]);

/**
 * Checks a model of the user's own: it has all that a preset of its kind has, and
 * its numbers are such as a device can have.
 *
 * @throws {FsError} EINVAL, naming the parameter.
 */
export function checkPreset(preset: NvmePreset): void {
  const rows = Object.values(NVME_PRESETS);
  checkLike("preset", preset, NVME_PRESETS.null);
  const { timing, ...row } = preset;
  checkNumbers("preset", row);
  if (timing === null) return;
  if (typeof timing !== "object") refuse("timing", timing);
  const { kind } = timing;
  const like = rows.find((row) => row.timing?.kind === kind)?.timing;
  if (like === undefined || like === null) refuse("kind", kind);
  checkLike("timing", timing, like);
  checkNumbers("timing", timing);
  for (const [key, value] of Object.entries(timing)) {
    if (key.endsWith("Jitter")) checkJitter(key, value as JitterTable);
  }
  if (timing.kind === "flash") checkUnits(timing);
}

function refuse(name: string, value: unknown): never {
  const what = name === "preset" ? name : `${name} of the preset`;
  throw new FsError(EINVAL, `Cannot model a device, ${what} is ${show(value)}`);
}

/** Refuses what lacks a parameter of `like`, or has it of another type. */
function checkLike(name: string, value: unknown, like: object): void {
  if (typeof value !== "object" || value === null) refuse(name, value);
  const given = value as Record<string, unknown>;
  for (const [key, example] of Object.entries(like)) {
    if (!OPTIONAL.has(key)) checkPart(key, given[key], example);
  }
  const examples = optionalParameters();
  for (const key of OPTIONAL) {
    const part = given[key];
    if (key === "timing" || part === undefined || part === null) continue;
    checkPart(key, part, examples[key]);
  }
}

function checkPart(key: string, part: unknown, example: unknown): void {
  if (typeof part !== typeof example) refuse(key, part);
  if (Array.isArray(example) !== Array.isArray(part)) refuse(key, part);
  if (Array.isArray(example)) {
    return checkItems(key, part as unknown[], example);
  }
  if (typeof example === "object" && example !== null) {
    checkLike(key, part, example);
  }
}

/** What a list has are all of the type that they should be. */
function checkItems(key: string, part: unknown[], example: unknown[]): void {
  if (part.length === 0) refuse(key, part);
  for (const item of part) checkPart(key, item, example[0]);
}

function checkNumbers(name: string, value: unknown): void {
  if (typeof value === "object" && value !== null) {
    for (const [key, part] of Object.entries(value)) {
      checkNumbers(Array.isArray(value) ? name : key, part);
    }
  } else if (typeof value === "number" && !isFit(name, value)) {
    refuse(name, value);
  }
}

function isFit(name: string, value: number): boolean {
  if (!(value >= 0 && value <= MAX_PARAMETER)) return false;
  if (COUNTS.has(name)) {
    return Number.isInteger(value) && value >= 1 && value <= 4096;
  }
  return value > 0 || !POSITIVE.has(name);
}

/** Quantiles ascend below 1, and nothing takes no time. */
function checkJitter(name: string, { quantiles }: JitterTable): void {
  let last = -1;
  for (const [q, multiple] of quantiles) {
    if (!(q > last && q < 1 && multiple! > 0)) refuse(name, q);
    last = q;
  }
}

/** Units of flash are whole pages, and one mode's fit into the other's. */
function checkUnits({ flash, slc, writeBuffer }: FlashParams): void {
  const { oneShot } = flash;
  if (oneShot % PAGE !== 0) refuse("oneShot", oneShot);
  if (writeBuffer < 2 * oneShot) refuse("writeBuffer", writeBuffer);
  if (slc === undefined) return;
  if (slc.oneShot % PAGE !== 0 || oneShot % slc.oneShot !== 0) {
    refuse("oneShot", slc.oneShot);
  }
}
