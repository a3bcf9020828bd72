/**
 * A command that the controller has taken from its queue.
 *
 * @module
 */

import type { EventId } from "../../lib/clock.ts";
import type { CompletionQueue, HostMemory, SubmissionQueue } from "./queue.ts";
import type { SqState } from "./queues.ts";
import type { TimedCommand } from "./timing.ts";
import type { ZonedCommand } from "./zns.ts";

/** A command between its fetch and its completion; recycled. */
export class Command implements TimedCommand, ZonedCommand {
  /** Where it came from. */
  sq: SqState;
  /** Number of that queue. */
  qid = 0;
  /** Its identifier. */
  cid = 0;
  /** NVMe opcode. */
  opcode = 0;
  /** Namespace that it names. */
  nsid = 0;
  /** `NVME_CMD_FUSE_*` of a half of a fused pair. */
  fuse = 0;
  /** First byte, 0 where there is no range. */
  at = 0;
  /** Bytes, 0 where there is no range. */
  len = 0;
  /** Must be on the media before it completes. */
  fua = false;
  /** Write-like: its number in the order of submission; flush: its horizon. */
  stamp = 0;
  /** Zone that it concerns, or -1. */
  zone: number = -1;
  /** Whether its fetch opened the zone implicitly. */
  opened = false;
  /** Changes of the zone that take its place away, as of its fetch. */
  epoch = 0;
  /**
   * Zone Management Send: what is to be done, `NVME_ZONE_*`; Receive: word 13; Write
   * Zeroes: `NVME_WZ_DEAC` or 0.
   */
  action = 0;
  /** Pending event of the timing model, 0 if none. */
  event: EventId = 0;
  /** What its data pointer names. */
  memory: HostMemory | SubmissionQueue | CompletionQueue | null = null;
  /** Ranges that it lists (deallocate, copy): first byte and bytes of each. */
  ranges: Float64Array | null = null;
  /** The other half of a fused pair: of the compare its write, and back. */
  partner: Command | null = null;
  /** Bytes that have landed, of a write that lands piece by piece. */
  landed = 0;
  /** Whether the controller knows it as outstanding. */
  active = false;
  /** Whether its identifier is that of another command under way. */
  conflict = false;
  /** What it ends with. */
  status = 0;
  /** First two words of its completion. */
  result = 0;

  /** A command of a queue; the rest is set when it is fetched. */
  constructor(sq: SqState) {
    this.sq = sq;
  }
}
