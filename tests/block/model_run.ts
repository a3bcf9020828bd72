/**
 * Rounds of the disk model: devices of every kind, seeded.
 *
 * @module
 */

import {
  Bio,
  blkFinishPlug,
  blkStartPlug,
  REQ_OP_READ,
  submitBioWait,
} from "../../block/mod.ts";
import { VirtualClock } from "../../lib/clock.ts";
import { Prng } from "../../lib/prng.ts";
import {
  createNvme,
  type Fault,
  type NvmeDevice,
  type NvmeOptions,
} from "../../mod.ts";
import { DiskModel, type ModelOptions } from "./model.ts";

/** Bios of a round, usually. */
export const ROUND = 2000;

const PRESETS = ["null", "optane", "tlc-dc", "mlc-970pro", "qlc"] as const;
const TEARS = ["lba", "page"] as const;
const KiB = 1024;

/** What one round runs on, all of it from the seed. */
interface Round {
  device: NvmeOptions;
  model: ModelOptions;
  /** Power cuts in 10,000 bios. */
  cuts: number;
}

function drawRound(seed: number): Round {
  const random = new Prng(seed, "round");
  const pick = <T>(list: readonly T[]) => list[random.below(list.length)]!;
  const logicalBlockSize = pick([512, 4096]);
  const atomicBlocks = pick([1, 4, 8]);
  const preset = pick(PRESETS);
  return {
    device: {
      size: pick([64, 256, 1024]) * KiB,
      preset,
      logicalBlockSize,
      seed,
      queues: pick([1, 1, 3]),
      depth: pick([1, 4, 32, 1023]),
      atomics: {
        awun: atomicBlocks - 1,
        awupf: atomicBlocks - 1,
        nawun: atomicBlocks - 1,
        nawupf: atomicBlocks - 1,
      },
    },
    model: {
      seed,
      depth: pick([1, 4, 32, 128]),
      maxBlocks: pick([4, 16, 64]),
      mix: {
        read: pick([10, 40]),
        flush: pick([1, 5]),
        zeroes: pick([0, 5]),
        discard: pick([0, 5]),
        atomic: pick([0, 10]),
        fua: pick([0, 5, 30]),
      },
    },
    cuts: pick([0, 5, 50]),
  };
}

/**
 * Runs one round.
 *
 * @param bios How many bios it has.
 * @param faults What is wrong with the device.
 * @throws Error with what was found where, and the seed.
 */
export function runRound(
  seed: number,
  bios: number,
  faults: readonly Fault[] = [],
): void {
  const round = drawRound(seed);
  const clock = new VirtualClock();
  const device = createNvme(clock, round.device);
  for (const fault of faults) device.faults.add(fault);
  clock.enterSync();
  try {
    load(device, clock, round, bios);
  } catch (error) {
    throw new Error(`seed ${seed}: ${JSON.stringify(round)}`, { cause: error });
  } finally {
    clock.leaveSync();
    device.close();
  }
}

function load(
  device: NvmeDevice,
  clock: VirtualClock,
  round: Round,
  bios: number,
): void {
  const random = new Prng(round.model.seed, "load");
  const model = new DiskModel(device, round.model);
  while (model.done < bios) {
    submitSome(model, random, round.model.depth);
    const goal = model.done + random.below(16);
    clock.runUntil(() => model.done >= goal || model.inFlight === 0);
    if (model.failure !== null) throw model.failure;
    if (random.below(10_000) < round.cuts * 8) cut(device, model, random);
  }
  clock.runUntil(() => model.inFlight === 0);
  if (model.failure !== null) throw model.failure;
  cut(device, model, random);
}

function submitSome(model: DiskModel, random: Prng, most: number): void {
  const count = 1 + random.below(most);
  if (random.below(2) === 0) return model.submit(count);
  blkStartPlug();
  model.submit(count);
  blkFinishPlug();
}

function cut(device: NvmeDevice, model: DiskModel, random: Prng): void {
  const keep = (["none", "all", "random"] as const)[random.below(3)]!;
  const tear = TEARS[random.below(TEARS.length)]!;
  model.cut(() => device.powerCut({ seed: random.u32(), keep, tear }));
  device.powerOn();
  model.afterCut((at, data) => readAll(device, at, data));
}

function readAll(device: NvmeDevice, at: number, data: Uint8Array): void {
  const bio = new Bio(device, REQ_OP_READ);
  bio.sector = at / 512;
  bio.addData(data, 0, data.length);
  const error = submitBioWait(bio);
  if (error !== 0) throw new Error(`reading everything gives ${error}`);
}
