/** A model by itself: commands go to it without controller or data. */

import { VirtualClock } from "../../../lib/clock.ts";
import {
  NVME_CMD_READ,
  NVME_CMD_WRITE,
  NVME_CMD_ZONE_APPEND,
} from "../../../block/nvme/nvme.ts";
import {
  makeTiming,
  type TimedCommand,
  type Timing,
  type TimingParams,
  type ZoneInfo,
} from "../../../block/nvme/timing.ts";

/** A command that goes to a model. */
export class TestCommand implements TimedCommand {
  qid = 1;
  opcode: number = NVME_CMD_READ;
  at = 0;
  len = 4096;
  fua = false;
  stamp = 0;
  zone = -1;
  opened = false;
  action = 0;
  ranges: Float64Array | null = null;
  event = 0;
  /** When it was started. */
  since = 0;
  /** When it completed; -1 while it has not. */
  done = -1;
}

/** Zones of which a test says what they are. */
export class TestZones implements ZoneInfo {
  readonly zoneSize: number;
  readonly zoneCapacity: number;
  readonly wp = new Map<number, number>();
  readonly full = new Set<number>();

  constructor(zoneSize = 2 ** 31, zoneCapacity = 275_712 * 4096) {
    this.zoneSize = zoneSize;
    this.zoneCapacity = zoneCapacity;
  }

  written(zone: number): number {
    return this.wp.get(zone) ?? 0;
  }

  finished(zone: number): boolean {
    return this.full.has(zone);
  }
}

/** A model and its clock. */
export class Bench {
  readonly clock = new VirtualClock();
  readonly timing: Timing;
  readonly zones: TestZones;
  #onDone: (command: TestCommand) => void = () => {};

  constructor(params: TimingParams, size: number, seed = 1) {
    this.zones = new TestZones();
    this.timing = makeTiming(params, {
      clock: this.clock,
      size,
      seed,
      zones: this.zones,
      complete: (command) => {
        const done = command as TestCommand;
        done.done = this.clock.now();
        this.#onDone(done);
      },
      room: () => {},
    });
  }

  /** Starts a command now. */
  start(fields: Partial<TestCommand> = {}): TestCommand {
    const command = Object.assign(new TestCommand(), fields);
    command.since = this.clock.now();
    this.timing.start(command, command.since);
    return command;
  }

  /** Starts a command and waits for it; how long it took. */
  run(fields: Partial<TestCommand> = {}): number {
    const command = this.start(fields);
    this.clock.runUntil(() => command.done >= 0);
    return command.done - command.since;
  }

  /** Lets time pass until all have completed, or to `time`. */
  until(time = Infinity): void {
    if (time === Infinity) this.clock.runUntil(() => false);
    else {
      let there = false;
      this.clock.at(time, () => there = true, undefined);
      this.clock.runUntil(() => there);
    }
  }

  /** Keeps `depth` commands under way until `count` have completed. */
  load(
    depth: number,
    count: number,
    next: (command: TestCommand, i: number) => void,
    each: (time: number, command: TestCommand) => void = () => {},
  ): { mean: number; iops: number; ns: number } {
    let started = 0;
    let done = 0;
    let sum = 0;
    const from = this.clock.now();
    const go = (command: TestCommand) => {
      command.done = -1;
      command.since = this.clock.now();
      next(command, started++);
      this.timing.start(command, command.since);
    };
    this.#onDone = (command) => {
      done++;
      const time = command.done - command.since;
      sum += time;
      each(time, command);
      if (started < count) go(command);
    };
    for (let i = 0; i < depth; i++) go(new TestCommand());
    this.clock.runUntil(() => done >= count);
    this.#onDone = () => {};
    const ns = this.clock.now() - from;
    return { mean: sum / count, iops: count / ns * 1e9, ns };
  }
}

export { NVME_CMD_READ, NVME_CMD_WRITE, NVME_CMD_ZONE_APPEND };
