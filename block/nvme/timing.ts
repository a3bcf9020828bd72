/**
 * When a command is done: what the controller asks of a model of its media.
 *
 * A model never touches data. It is told of a command when that is fetched, and
 * calls `complete` when the command's time has come; what is under way in it by
 * itself (programs, folding, a disk's cache) is worked out when somebody needs it.
 *
 * All times are whole nanoseconds.
 *
 * @module
 */

import type { Clock, EventId } from "../../lib/clock.ts";
import { EINVAL, FsError } from "../../lib/errno.ts";
import { type DiskParams, DiskTiming } from "./disk-timing.ts";
import { type FlashParams, FlashTiming } from "./flash.ts";
import { type PmemParams, PmemTiming } from "./pmem-timing.ts";
import { type XpointParams, XpointTiming } from "./xpoint-timing.ts";
import { type ZnsParams, ZnsTiming } from "./zns-timing.ts";

/** What a model sees of a command that has been fetched. */
export interface TimedCommand {
  /** Number of its submission queue. */
  qid: number;
  /** NVMe opcode. */
  opcode: number;
  /** First byte; 0 where there is no range. */
  at: number;
  /** Bytes; 0 where there is no range. */
  len: number;
  /** Must be on the media before it completes; set too while the cache is off. */
  fua: boolean;
  /** Write-like: its number in the order of submission; flush: its horizon. */
  stamp: number;
  /** Zone that it concerns, or -1. */
  zone: number;
  /** Whether its fetch opened the zone implicitly. */
  opened: boolean;
  /** Zone management: what is to be done, `NVME_ZONE_*`. */
  action: number;
  /** Ranges that it lists (deallocate, copy): first byte and bytes of each, or null. */
  ranges: Float64Array | null;
  /** The model's pending event, 0 if none. */
  event: EventId;
}

/** What a model asks about zones; the answers are those before the command. */
export interface ZoneInfo {
  /** Bytes from one zone's start to the next's. */
  readonly zoneSize: number;
  /** Bytes of a zone that can be written. */
  readonly zoneCapacity: number;
  /** Bytes of the zone that have been written, not counting what a finish filled. */
  written(zone: number): number;
  /** Whether the zone is full because it was finished. */
  finished(zone: number): boolean;
}

/** A model at work. */
export interface Timing {
  /**
   * When the firmware can begin with another command; absent if it is no bottleneck.
   * Where commands wait for it, they wait in their queues.
   */
  readonly firmwareFree?: number;
  /**
   * Whether it can take a command that is not fetched yet; absent if always. A write
   * without room stays in its queue, in front of what comes after it, until
   * {@linkcode TimingContext.room} is called.
   */
  admits?(command: TimedCommand, now: number): boolean;
  /** Takes a command that was fetched at `now`; `complete` will be called with it. */
  start(command: TimedCommand, now: number): void;
  /**
   * Takes a command back.
   *
   * @returns Whether the model had it: then it will not complete.
   */
  abort(command: TimedCommand): boolean;
  /** Power is lost or the controller is reset: forgets what is queued. */
  reset(): void;
}

/** Where a model lives. */
export interface TimingContext {
  /** Time. */
  clock: Clock;
  /** Bytes of the namespace. */
  size: number;
  /** Seed of its chance. */
  seed: number;
  /** The namespace's zones, or null. */
  zones: ZoneInfo | null;
  /** Called when a command's time has come. */
  complete(command: TimedCommand): void;
  /** Called when there may be room for commands that were not admitted. */
  room(): void;
}

/** Parameters of a model, by `kind`. */
export type TimingParams =
  | DiskParams
  | FlashParams
  | PmemParams
  | XpointParams
  | ZnsParams;

/**
 * Makes the model that `params` describe.
 *
 * @throws {FsError} EINVAL if such a device cannot be as large, or must have zones.
 */
export function makeTiming(params: TimingParams, ctx: TimingContext): Timing {
  switch (params.kind) {
    case "disk":
      return new DiskTiming(params, ctx);
    case "flash":
      return new FlashTiming(params, ctx);
    case "pmem":
      return new PmemTiming(params, ctx);
    case "xpoint":
      return new XpointTiming(params, ctx);
    case "zns":
      if (ctx.zones === null) {
        throw new FsError(EINVAL, "Cannot time zones, the device has none");
      }
      return new ZnsTiming(params, ctx, ctx.zones);
  }
}
