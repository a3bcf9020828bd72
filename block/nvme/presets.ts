/**
 * Devices by name: what distinguishes one model from another, as data.
 *
 * @module
 */

import { USEC } from "../../lib/clock.ts";

const KiB = 1024;
const MiB = 1024 * KiB;

/** How flash is read and programmed in one of its modes. */
export interface FlashMode {
  /** Array read of up to 4 KiB, by page type in turn (LSB, MSB, ...), nanoseconds. */
  read4k: readonly number[];
  /** Array read of a whole flash page, by page type, nanoseconds. */
  read: readonly number[];
  /** Program of one shot, nanoseconds. */
  program: number;
  /** Bytes that one program of one die stores. */
  oneShot: number;
}

/** Where a device's time goes; see `latency.ts` for how the parts work together. */
export interface LatencyParams {
  /** What host and driver take for a command, nanoseconds. */
  host: number;
  /** Firmware's part of a read of up to 4 KiB, nanoseconds. */
  firmwareRead4k: number;
  /** Firmware's part of a larger read, nanoseconds. */
  firmwareRead: number;
  /** Firmware's part of a write, nanoseconds. */
  firmwareWrite: number;
  /** And for every 4 KiB of it. */
  firmwareWritePer4k: number;
  /** Most commands a second, thousands; 0 if the firmware is no bottleneck. */
  firmwareKiops: number;
  /** Channels. */
  channels: number;
  /** Dies on each. */
  diesPerChannel: number;
  /** Unit in which dies are read, bytes; neighbours lie on different dies. */
  flashPage: number;
  /** Megabytes a second of each channel; 0 if it takes no time. */
  channelMBps: number;
  /** Megabytes a second to the host. */
  pcieReadMBps: number;
  /** Megabytes a second from the host. */
  pcieWriteMBps: number;
  /** The dies. */
  flash: FlashMode;
  /** Bytes of writes that wait for a program; 0: a write waits for its media. */
  writeBuffer: number;
  /** The fast mode in which data is written while there is room for it. */
  slc?: FlashMode & {
    /** Its room as a share of the device. */
    share: number;
  };
  /** Chance in reads: quantiles as multiples of `median`, ascending. */
  readJitter?: {
    /** Nanoseconds. */
    median: number;
    /** Pairs of a quantile and a multiple. */
    quantiles: readonly (readonly [number, number])[];
  };
}

/** One model of device. */
export interface NvmePreset {
  /** Model number that Identify tells. */
  model: string;
  /** Whether completed writes can be lost with the power (VWC). */
  volatileCache: boolean;
  /** Its timing; null if nothing takes time. */
  latency: LatencyParams | null;
}

/** Name of a device model. */
export type NvmePresetName =
  | "null"
  | "optane"
  | "optane2"
  | "tlc-dc"
  | "mlc-970pro"
  | "qlc";

/**
 * Device models by name. `optane` and `optane2` follow the published figures for
 * P4800X and P5800X, `mlc-970pro` the parameters of NVMeVirt; `tlc-dc` and `qlc`
 * are fitted so that the model shows what is published for drives of their class.
 */
export const NVME_PRESETS: Readonly<Record<NvmePresetName, NvmePreset>> = {
  "null": { model: "null", volatileCache: false, latency: null },
  "optane": {
    model: "optane (P4800X)",
    volatileCache: false,
    latency: {
      host: 1_500,
      firmwareRead4k: 1_710,
      firmwareRead: 1_710,
      firmwareWrite: 1_710,
      firmwareWritePer4k: 0,
      firmwareKiops: 585,
      channels: 7,
      diesPerChannel: 1,
      flashPage: 4 * KiB,
      channelMBps: 0,
      pcieReadMBps: 2_400,
      pcieWriteMBps: 2_200,
      flash: {
        read4k: [4_000],
        read: [4_000],
        program: 4_000,
        oneShot: 4 * KiB,
      },
      writeBuffer: 0,
      readJitter: {
        median: 8_900,
        quantiles: [[0.5, 1], [0.99, 1.1], [0.99999, 4.1]],
      },
    },
  },
  "optane2": {
    model: "optane2 (P5800X)",
    volatileCache: false,
    latency: {
      host: 2_000,
      firmwareRead4k: 660,
      firmwareRead: 660,
      firmwareWrite: 660,
      firmwareWritePer4k: 0,
      firmwareKiops: 1_515,
      channels: 16,
      diesPerChannel: 1,
      flashPage: 4 * KiB,
      channelMBps: 0,
      pcieReadMBps: 7_200,
      pcieWriteMBps: 6_200,
      flash: {
        read4k: [2_600],
        read: [2_600],
        program: 2_600,
        oneShot: 4 * KiB,
      },
      writeBuffer: 0,
    },
  },
  "tlc-dc": {
    model: "tlc-dc (PM9A3-like)",
    volatileCache: false,
    latency: {
      host: 3_000,
      firmwareRead4k: 8_000,
      firmwareRead: 8_000,
      firmwareWrite: 5_000,
      firmwareWritePer4k: 600,
      firmwareKiops: 900,
      channels: 8,
      diesPerChannel: 8,
      flashPage: 16 * KiB,
      channelMBps: 1_200,
      pcieReadMBps: 6_500,
      pcieWriteMBps: 6_500,
      flash: {
        read4k: [52 * USEC],
        read: [60 * USEC],
        program: 1_914 * USEC,
        oneShot: 96 * KiB,
      },
      writeBuffer: 64 * MiB,
    },
  },
  "mlc-970pro": {
    model: "mlc-970pro",
    volatileCache: true,
    latency: {
      host: 3_000,
      firmwareRead4k: 21_500,
      firmwareRead: 30_490,
      firmwareWrite: 4_000,
      firmwareWritePer4k: 460,
      firmwareKiops: 0,
      channels: 8,
      diesPerChannel: 2,
      flashPage: 32 * KiB,
      channelMBps: 800,
      pcieReadMBps: 3_360,
      pcieWriteMBps: 3_360,
      flash: {
        read4k: [29_760, 41_760],
        read: [30_000, 42_000],
        program: 185 * USEC,
        oneShot: 32 * KiB,
      },
      writeBuffer: 1 * MiB,
    },
  },
  "qlc": {
    model: "qlc (660p-like)",
    volatileCache: true,
    latency: {
      host: 5_000,
      firmwareRead4k: 12_000,
      firmwareRead: 12_000,
      firmwareWrite: 8_000,
      firmwareWritePer4k: 1_000,
      firmwareKiops: 220,
      channels: 4,
      diesPerChannel: 2,
      flashPage: 16 * KiB,
      channelMBps: 800,
      pcieReadMBps: 2_000,
      pcieWriteMBps: 2_000,
      flash: {
        read4k: [110 * USEC],
        read: [120 * USEC],
        program: 12_196 * USEC,
        oneShot: 256 * KiB,
      },
      writeBuffer: 32 * MiB,
      slc: {
        share: 0.14,
        read4k: [40 * USEC],
        read: [45 * USEC],
        program: 280 * USEC,
        oneShot: 64 * KiB,
      },
    },
  },
};
