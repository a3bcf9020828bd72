/**
 * Reports of zones, from the device's descriptors to the block layer's.
 *
 * Kernel counterpart: drivers/nvme/host/zns.c.
 *
 * @module
 */

import {
  BLK_ZONE_COND_FULL,
  type BlkZone,
  type ReportZonesCb,
} from "../blk-zoned.ts";
import { SECTOR_SIZE } from "../blk-types.ts";
import type { BlockDevice } from "../blkdev.ts";
import { EIO } from "../../lib/errno.ts";
import { andThen, type MaybePromise, repeat } from "../../lib/maybe-promise.ts";
import type { NvmePassthru } from "./host-cmd.ts";
import { getU64 } from "./identify.ts";
import { NVME_CMD_ZONE_MGMT_RECV } from "./nvme.ts";
import { NVME_ZONE_DESCRIPTOR_SIZE } from "./zns.ts";

/** Zones of one report: with the header its data is 64 KiB. */
const ZONES_PER_REPORT = 1023;
/** Count only the zones that are returned (kernel: `NVME_REPORT_ZONE_PARTIAL`). */
const REPORT_PARTIAL: number = 1 << 16;

/**
 * Sends one report command.
 *
 * @returns Whether its data has been filled.
 */
export type ZoneReport = (
  command: NvmePassthru & { data: Uint8Array },
) => MaybePromise<boolean>;

/**
 * Reports zones (kernel: `nvme_ns_report_zones`).
 *
 * @param sector Sector in the first zone.
 * @param nrZones Most zones.
 * @param send Gets each part of the report.
 * @returns Zones reported; -EIO if the device did not tell; else what `cb` answered.
 */
export function nvmeReportZones(
  bdev: BlockDevice,
  sector: number,
  nrZones: number,
  cb: ReportZonesCb,
  send: ZoneReport,
): MaybePromise<number> {
  const { chunkSectors, logicalBlockSize } = bdev.limits;
  let at = sector - sector % chunkSectors;
  let done = 0;
  let error = 0;
  const step = () => {
    const left = Math.ceil((bdev.nrSectors - at) / chunkSectors);
    const count = Math.min(left, nrZones - done, ZONES_PER_REPORT);
    if (count <= 0) return false;
    const command = reportCommand(at * SECTOR_SIZE / logicalBlockSize, count);
    return andThen(send(command), (ok) => {
      const taken = ok ? takeZones(bdev, command.data, done, cb) : -EIO;
      if (taken <= 0) {
        error = taken;
        return false;
      }
      done += taken;
      at += taken * chunkSectors;
      return true;
    });
  };
  return andThen(repeat(step), () => error < 0 ? error : done);
}

function reportCommand(
  slba: number,
  zones: number,
): NvmePassthru & { data: Uint8Array } {
  const data = new Uint8Array((1 + zones) * NVME_ZONE_DESCRIPTOR_SIZE);
  return {
    opcode: NVME_CMD_ZONE_MGMT_RECV,
    cdw10: slba % 2 ** 32,
    cdw11: Math.floor(slba / 2 ** 32),
    cdw12: data.length / 4 - 1,
    cdw13: REPORT_PARTIAL,
    data,
  };
}

/** Hands the zones of one report on; how many, or what `cb` answered. */
function takeZones(
  bdev: BlockDevice,
  data: Uint8Array,
  first: number,
  cb: ReportZonesCb,
): number {
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  const perBlock = bdev.limits.logicalBlockSize / SECTOR_SIZE;
  const count = getU64(view, 0);
  for (let i = 0; i < count; i++) {
    const at = (1 + i) * NVME_ZONE_DESCRIPTOR_SIZE;
    const result = cb(parseEntry(bdev, view, at, perBlock), first + i);
    if (result !== 0) return result;
  }
  return count;
}

/** Kernel: `nvme_zone_parse_entry`. */
function parseEntry(
  bdev: BlockDevice,
  view: DataView,
  at: number,
  perBlock: number,
): BlkZone {
  const start = getU64(view, at + 16) * perBlock;
  const len = Math.min(bdev.limits.chunkSectors, bdev.nrSectors - start);
  const cond = view.getUint8(at + 1) >>> 4;
  return {
    start,
    len,
    wp: cond === BLK_ZONE_COND_FULL
      ? start + len
      : getU64(view, at + 24) * perBlock,
    type: view.getUint8(at) & 15,
    cond,
    capacity: getU64(view, at + 8) * perBlock,
  };
}
