/**
 * A store with commands of its own, for tests: neither queues nor time, the test
 * says when a command is fetched and when it is done.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type { BioVec } from "../../../block/mod.ts";
import { FaultPlan } from "../../../block/nvme/faults.ts";
import { type Media, MemoryMedia } from "../../../block/nvme/media.ts";
import {
  NVME_CMD_DSM,
  NVME_CMD_FLUSH,
  NVME_CMD_READ,
  NVME_CMD_WRITE,
  NVME_CMD_WRITE_UNCOR,
  NVME_CMD_WRITE_ZEROES,
  NVME_CMD_ZONE_APPEND,
  NVME_CMD_ZONE_MGMT_SEND,
  NVME_ZONE_FINISH,
  NVME_ZONE_RESET,
} from "../../../block/nvme/nvme.ts";
import type {
  CutFragment,
  CutOptions,
  CutReport,
} from "../../../block/nvme/power-cut.ts";
import type { HostMemory } from "../../../block/nvme/queue.ts";
import { Store, type StoreCommand } from "../../../block/nvme/store.ts";
import { EINVAL } from "../../../lib/errno.ts";
import { ZonedNamespace, type ZoneOptions } from "../../../block/nvme/zns.ts";

export interface DiskOptions {
  blocks?: number;
  blockSize?: number;
  volatile?: boolean;
  capacity?: number;
  awupf?: number;
  nabspf?: number;
  nabo?: number;
  seed?: number;
  media?: Media;
  zones?: Partial<ZoneOptions>;
}

/** A command of a test. */
export interface TestCommand extends StoreCommand {
  memory: HostMemory | null;
}

/** Blocks filled with one number each: what a test writes. */
export function fill(
  blocks: number,
  blockSize: number,
  tag: number,
): Uint8Array {
  return new Uint8Array(
    new Uint32Array(blocks * blockSize / 4).fill(tag).buffer,
  );
}

/** Memory of the host in pieces of at most `most` bytes. */
export function memoryOf(data: Uint8Array, most = Infinity): HostMemory {
  const vecs: BioVec[] = [];
  for (let offset = 0; offset < data.length; offset += most) {
    const len = Math.min(most, data.length - offset);
    vecs.push({ data, offset, len });
  }
  return { vecs, vecIndex: 0, vecDone: 0, size: data.length, next: null };
}

export class Disk {
  readonly blocks: number;
  readonly blockSize: number;
  readonly media: Media;
  readonly faults: FaultPlan;
  readonly store: Store;
  readonly zones: ZonedNamespace | null;
  /** Commands that have been fetched and are not done. */
  readonly inFlight = new Set<TestCommand>();
  /** How many have been fetched, or have ended. */
  event = 0;

  constructor(options: DiskOptions = {}) {
    const { blocks = 64, blockSize = 512, volatile = true, seed = 1 } = options;
    const { awupf = 0, nabspf = 0, nabo = 0, capacity = 2 ** 20 } = options;
    const size = blocks * blockSize;
    this.blocks = blocks;
    this.blockSize = blockSize;
    this.media = options.media ?? new MemoryMedia(size);
    this.faults = new FaultPlan(size, seed);
    this.zones = options.zones === undefined ? null : new ZonedNamespace(
      zoneOptions(size, blockSize, options.zones),
      (zone, action) => this.#zoneChanged(zone, action),
    );
    this.store = new Store(this.media, {
      blockSize,
      volatile,
      capacity,
      units: { awupf, nabspf, nabo },
      seed,
      faults: this.faults,
      zones: this.zones,
    });
    this.faults.attach({
      readInto: (at, data) => this.store.readInto(at, data),
      failZone: (zone, cond) => this.zones?.fail(zone, cond) ?? -EINVAL,
    });
  }

  /** A command is fetched. */
  start(
    opcode: number,
    block: number,
    blocks: number,
    tag = 0,
    fua = false,
  ): TestCommand {
    const hasData = opcode === NVME_CMD_WRITE ||
      opcode === NVME_CMD_ZONE_APPEND;
    const command: TestCommand = {
      opcode,
      at: block * this.blockSize,
      len: blocks * this.blockSize,
      fua,
      stamp: 0,
      zone: -1,
      opened: false,
      epoch: 0,
      action: 0,
      ranges: opcode === NVME_CMD_DSM
        ? Float64Array.of(block * this.blockSize, blocks * this.blockSize)
        : null,
      memory: hasData
        ? memoryOf(fill(blocks, this.blockSize, tag), 1024)
        : null,
      partner: null,
    };
    const { zones } = this;
    if (opcode === NVME_CMD_ZONE_APPEND) {
      assertEquals(zones!.submitAppend(command), 0);
    } else if (zones !== null && opcode !== NVME_CMD_FLUSH) {
      if (opcode !== NVME_CMD_DSM) {
        assertEquals(zones.submitWrite(command), 0);
      }
    }
    this.event++;
    command.stamp = this.store.begin();
    this.inFlight.add(command);
    return command;
  }

  /** Its time has come; a status. */
  end(command: TestCommand): number {
    this.inFlight.delete(command);
    this.event++;
    const { at, len, zone } = command;
    const status = this.#execute(command, at, len);
    if (zone >= 0) this.zones!.completeWrite(command, status === 0);
    return status;
  }

  #execute(command: TestCommand, at: number, len: number): number {
    switch (command.opcode) {
      case NVME_CMD_FLUSH:
        return this.store.flush(command.stamp);
      case NVME_CMD_WRITE_ZEROES:
      case NVME_CMD_DSM:
        return this.store.zero(command, at, len);
      case NVME_CMD_WRITE_UNCOR:
        return this.store.uncorrectable(command);
      default:
        return this.store.write(command, command.memory);
    }
  }

  /** Fetched, and done at once. */
  write(block: number, blocks: number, tag: number, fua = false): number {
    return this.end(this.start(NVME_CMD_WRITE, block, blocks, tag, fua));
  }

  zero(block: number, blocks: number): number {
    return this.end(this.start(NVME_CMD_WRITE_ZEROES, block, blocks));
  }

  flush(): number {
    return this.end(this.start(NVME_CMD_FLUSH, 0, 0));
  }

  /** Resets (or finishes) a zone. */
  reset(zone: number, action: number = NVME_ZONE_RESET): void {
    assertEquals(this.zones!.manage(zone, action, false), 0);
  }

  finish(zone: number): void {
    this.reset(zone, NVME_ZONE_FINISH);
  }

  /** A reset that has been fetched and is not done. */
  startReset(zone: number): TestCommand {
    const block = zone * this.zones!.zoneSize / this.blockSize;
    const command = this.start(NVME_CMD_DSM, block, 0);
    command.opcode = NVME_CMD_ZONE_MGMT_SEND;
    command.action = NVME_ZONE_RESET;
    command.zone = zone;
    return command;
  }

  #zoneChanged(zone: number, action: number): void {
    const status = action === NVME_ZONE_RESET
      ? this.store.resetZone(zone)
      : this.store.finishZone(zone);
    assertEquals(status, 0);
  }

  /** Reads blocks; a status. */
  read(block: number, data: Uint8Array): number {
    const command: TestCommand = {
      opcode: NVME_CMD_READ,
      at: block * this.blockSize,
      len: data.length,
      fua: false,
      stamp: 0,
      zone: -1,
      opened: false,
      epoch: 0,
      action: 0,
      ranges: null,
      partner: null,
      memory: memoryOf(data),
    };
    return this.store.read(command, command.memory);
  }

  /** First word of each block, as a reader sees it; -1 where that is an error. */
  tags(block = 0, blocks = this.blocks - block): number[] {
    const data = new Uint8Array(this.blockSize);
    return Array.from({ length: blocks }, (_, i) => {
      if (this.read(block + i, data) !== 0) return -1;
      const words = new Uint32Array(data.buffer);
      assertEquals(words.every((w) => w === words[0]), true, "a mixed block");
      return words[0]!;
    });
  }

  undecided(): readonly CutFragment[] {
    return this.store.undecided(this.inFlight);
  }

  /** The power goes and comes back. */
  cut(options: CutOptions = {}): CutReport {
    const report = this.store.cut(this.inFlight, this.event, options);
    this.inFlight.clear();
    this.zones?.powerUp();
    return report;
  }

  /** What a cut would leave: the tags. */
  fork(options: CutOptions = {}): number[] {
    const zones = this.zones?.clone(() => {}) ?? null;
    const fork = this.store.fork(
      this.inFlight,
      this.event,
      options,
      zones,
    )!;
    const { media } = fork;
    const data = new Uint8Array(media.size);
    assertEquals(media.read(0, data, 0, data.length), 0);
    media.close();
    const words = new Uint32Array(data.buffer);
    return Array.from(
      { length: this.blocks },
      (_, i) => words[i * this.blockSize / 4]!,
    );
  }
}

function zoneOptions(
  size: number,
  blockSize: number,
  given: Partial<ZoneOptions>,
): ZoneOptions {
  return {
    size,
    blockSize,
    zoneSize: 16 * blockSize,
    zoneCapacity: 12 * blockSize,
    conventional: 0,
    maxOpen: 0,
    maxActive: 0,
    flavor: "zns",
    crossRead: false,
    append: true,
    maxAppend: 0,
    ...given,
  };
}
