/**
 * The block layer: bios, block devices, queue limits, request queues.
 *
 * @module
 */

export type { Clock, EventId, Lateness } from "../lib/clock.ts";
export type { Histogram } from "../lib/histogram.ts";
export type { MaybePromise } from "../lib/maybe-promise.ts";
export * from "./bio.ts";
export * from "./blk-lib.ts";
export {
  bioPoll,
  BLK_POLL_ONESHOT,
  submitBioNoacct,
  submitBioNoacctNocheck,
} from "./blk-core.ts";
export type { FlushQueue } from "./blk-flush.ts";
export {
  blkExecuteRqNowait,
  blkFreezeQueueStart,
  blkMarkDiskDead,
  blkMqDestroyQueue,
  blkMqEndRequest,
  blkMqFreezeQueue,
  blkMqFreezeQueueWait,
  type BlkMqOps,
  blkMqPoll,
  blkMqQuiesceQueue,
  blkMqRequeueRequest,
  blkMqRunHwQueues,
  blkMqSubmitBio,
  blkMqTagsetBusyIter,
  blkMqUnfreezeQueue,
  blkMqUnquiesceQueue,
  blkMqUpdateNrRequests,
  blkUpdateRequest,
  HCTX_TYPE_DEFAULT,
  HCTX_TYPE_POLL,
  HCTX_TYPE_READ,
  type HwQueue,
  RequestQueue,
  type RequestQueueOptions,
} from "./blk-mq.ts";
export { blkFinishPlug, blkFlushPlug, blkStartPlug } from "./blk-plug.ts";
export type { Request, RequestList } from "./blk-request.ts";
export type { TimeoutTimer } from "./blk-timeout.ts";
export {
  BadLimit,
  blkSetStackingLimits,
  blkStackLimits,
  blkValidateLimits,
  diskUpdateReadahead,
  queueLimitsCommitUpdate,
  queueLimitsCommitUpdateFrozen,
  setWriteCache,
} from "./blk-settings.ts";
export * from "./blk-types.ts";
export {
  bdevEmulatesZoneAppend,
  bdevZoneIsSeq,
  BLK_ZONE_COND_ACTIVE,
  BLK_ZONE_COND_CLOSED,
  BLK_ZONE_COND_EMPTY,
  BLK_ZONE_COND_EXP_OPEN,
  BLK_ZONE_COND_FULL,
  BLK_ZONE_COND_IMP_OPEN,
  BLK_ZONE_COND_NOT_WP,
  BLK_ZONE_COND_OFFLINE,
  BLK_ZONE_COND_READONLY,
  BLK_ZONE_NO_WP,
  BLK_ZONE_TYPE_CONVENTIONAL,
  BLK_ZONE_TYPE_SEQWRITE_PREF,
  BLK_ZONE_TYPE_SEQWRITE_REQ,
  blkdevGetZoneInfo,
  blkdevReportZones,
  blkdevReportZonesCached,
  blkdevZoneMgmt,
  blkReleaseDiskZones,
  blkRevalidateDiskZones,
  type BlkZone,
  type DiskZones,
  type ReportZonesCb,
  type ZoneWritePlug,
} from "./blk-zoned.ts";
export * from "./blkdev.ts";
export { ErrorInjection } from "./error-inject.ts";
export * from "./dm/mod.ts";
export * from "./fops.ts";
export { Partition } from "./partition.ts";
export {
  blkFillRwbs,
  type BlockTraceBio,
  type BlockTraceBioEnd,
  type BlockTraceDevice,
  type BlockTraceEvent,
  type BlockTracePlug,
  type BlockTraceRemap,
  type BlockTraceRq,
  type BlockTraceRqEnd,
  type BlockTraceSplit,
  type BlockTraceTime,
  type BlockTraceUnplug,
  formatBlockTrace,
  printBlockTrace,
  setBlockTracer,
} from "./blktrace.ts";
export { DiskStats, type StatGroup } from "./part-stat.ts";
