/**
 * The block layer: bios, block devices, queue limits, request queues.
 *
 * @module
 */

export type { Clock, EventId } from "../lib/clock.ts";
export type { MaybePromise } from "../lib/maybe-promise.ts";
export * from "./bio.ts";
export { submitBioDetached, submitBioNoacctNocheck } from "./blk-core.ts";
export type { FlushQueue } from "./blk-flush.ts";
export {
  blkMqEndRequest,
  type BlkMqOps,
  blkMqSubmitBio,
  type HwQueue,
  type Request,
  RequestQueue,
} from "./blk-mq.ts";
export {
  BadLimit,
  blkSetStackingLimits,
  blkStackLimits,
  blkValidateLimits,
  type StackedLimits,
} from "./blk-settings.ts";
export * from "./blk-types.ts";
export * from "./blkdev.ts";
export * from "./dm/mod.ts";
export { DiskStats, type StatGroup } from "./part-stat.ts";
