/**
 * A zoned multi-queue device for tests of the block layer: zones as the emulated
 * namespace keeps them, and memory. A command takes 10 us.
 *
 * @module
 */

import {
  type Bio,
  BLK_FEAT_NOWAIT,
  BLK_FEAT_WRITE_CACHE,
  BLK_FEAT_ZONED,
  BLK_STS_IOERR,
  BLK_STS_OK,
  BLK_STS_ZONE_ACTIVE_RESOURCE,
  BLK_STS_ZONE_OPEN_RESOURCE,
  blkMqEndRequest,
  type BlkMqOps,
  blkMqSubmitBio,
  blkRevalidateDiskZones,
  type BlkZone,
  BlockDevice,
  type QueueLimits,
  type ReportZonesCb,
  REQ_OP_FLUSH,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_OP_ZONE_APPEND,
  REQ_OP_ZONE_CLOSE,
  REQ_OP_ZONE_FINISH,
  REQ_OP_ZONE_OPEN,
  REQ_OP_ZONE_RESET,
  REQ_OP_ZONE_RESET_ALL,
  reqOp,
  type Request,
  RequestQueue,
  SECTOR_SIZE,
} from "../../block/mod.ts";
import {
  NVME_SC_ZONE_TOO_MANY_ACTIVE,
  NVME_SC_ZONE_TOO_MANY_OPEN,
  NVME_ZONE_CLOSE,
  NVME_ZONE_FINISH,
  NVME_ZONE_OPEN,
  NVME_ZONE_RESET,
} from "../../block/nvme/nvme.ts";
import {
  type ZonedCommand,
  ZonedNamespace,
  type ZoneOptions,
} from "../../block/nvme/zns.ts";
import { type Clock, USEC, VirtualClock } from "../../lib/clock.ts";
import type { MaybePromise } from "../../lib/maybe-promise.ts";
import { limits } from "./fake_device.ts";

/** Sectors of a zone, and of what can be written of it. */
export const ZONE = 64;
export const CAPACITY = 48;

export interface ZonedDeviceOptions {
  /** Beside the defaults: native append of up to a zone. */
  limits?: Partial<QueueLimits>;
  /** Beside the defaults: 8 zones, at most 2 open and 3 active, `zns`. */
  zones?: Partial<ZoneOptions>;
  /** How long a command takes, ns; 0 ends it within the submission. */
  time?: (rq: Request) => number;
  /** What a command ends with, OK to let it be carried out. */
  status?: (rq: Request) => number;
  /** What the device says of its zones. */
  report?: (zone: BlkZone) => BlkZone | null;
}

export class ZonedDevice extends BlockDevice {
  override readonly name = "zoned0";
  override readonly clock: Clock;
  override limits: QueueLimits;
  override readonly nrSectors: number;
  override readonly dev = { major: 259, minor: 0 };
  readonly namespace: ZonedNamespace;
  readonly queue: RequestQueue;
  readonly memory: Uint8Array;
  /** What reached the driver: operation, sector + sectors, time in us. */
  readonly log: string[] = [];
  /** Writes under way: now and at most, of all zones and by zone. */
  readonly writing = { now: 0, most: 0 };
  readonly writingZone = new Map<number, { now: number; most: number }>();
  readonly #options: ZonedDeviceOptions;
  readonly #size: number;

  constructor(options: ZonedDeviceOptions = {}, clock = new VirtualClock()) {
    super();
    this.#options = options;
    this.clock = clock;
    const o: ZoneOptions = {
      size: 8 * ZONE * SECTOR_SIZE,
      blockSize: SECTOR_SIZE,
      zoneSize: ZONE * SECTOR_SIZE,
      zoneCapacity: CAPACITY * SECTOR_SIZE,
      conventional: 0,
      maxOpen: 2,
      maxActive: 3,
      flavor: "zns",
      crossRead: false,
      append: true,
      maxAppend: 0,
      ...options.zones,
    };
    this.#size = o.zoneSize;
    this.memory = new Uint8Array(o.size);
    this.namespace = new ZonedNamespace(o, (zone, action) => {
      const at = zone * this.#size;
      if (action === NVME_ZONE_RESET) this.memory.fill(0, at, at + this.#size);
    });
    this.nrSectors = o.size / SECTOR_SIZE;
    this.limits = limits({
      features: BLK_FEAT_NOWAIT | BLK_FEAT_ZONED | BLK_FEAT_WRITE_CACHE,
      chunkSectors: o.zoneSize / SECTOR_SIZE,
      maxOpenZones: o.maxOpen,
      maxActiveZones: o.maxActive,
      maxHwSectors: 1024,
      maxSegmentSize: 0xffff_ffff,
      maxHwZoneAppendSectors: 1024,
      maxWriteZeroesSectors: 1024,
      dmaAlignment: 3,
      ...options.limits,
    });
    const ops: BlkMqOps = { queueRq: (rq) => this.#queueRq(rq) };
    this.queue = new RequestQueue(this, ops, { queues: 1, depth: 64 });
  }

  /** A device whose zones the block layer knows. */
  static registered(options: ZonedDeviceOptions = {}): ZonedDevice {
    const device = new ZonedDevice(options);
    const error = blkRevalidateDiskZones(device);
    if (error !== 0) throw new Error(`registration ended with ${error}`);
    device.log.length = 0;
    return device;
  }

  override submit(bio: Bio): void {
    blkMqSubmitBio(this.queue, bio);
  }

  override reportZones(
    sector: number,
    nrZones: number,
    cb: ReportZonesCb,
  ): MaybePromise<number> {
    const first = Math.floor(sector / this.limits.chunkSectors);
    let count = 0;
    for (let n = first; n < this.namespace.nrZones && count < nrZones; n++) {
      const zone = this.#describe(n);
      if (zone === null) break;
      const error = cb(zone, count++);
      if (error !== 0) return error;
    }
    this.log.push(`REPORT ${sector}`);
    return count;
  }

  #describe(n: number): BlkZone | null {
    const out = new Uint8Array(128);
    this.namespace.report(n * this.#size, 0, true, out);
    const view = new DataView(out.buffer, 64);
    const start = n * this.#size / SECTOR_SIZE;
    const zone: BlkZone = {
      start,
      len: this.#size / SECTOR_SIZE,
      wp: Number(view.getBigUint64(24, true)),
      type: view.getUint8(0),
      cond: view.getUint8(1) >> 4,
      capacity: Number(view.getBigUint64(8, true)),
    };
    return this.#options.report === undefined
      ? zone
      : this.#options.report(zone);
  }

  #queueRq(rq: Request): number {
    const name = OPS.get(reqOp(rq.opf)) ?? `op${reqOp(rq.opf)}`;
    this.log.push(
      `${name} ${rq.sector}+${rq.size / 512} @${this.clock.now() / USEC}`,
    );
    const c = { at: 0, len: 0, zone: -1, opened: false, epoch: 0 };
    const status = this.#begin(rq, c);
    if (isZoneWrite(rq)) this.#countWrite(rq.sector, 1);
    const time = this.#options.time?.(rq) ?? 10 * USEC;
    const end = () => {
      if (isZoneWrite(rq)) this.#countWrite(c.at / SECTOR_SIZE, -1);
      blkMqEndRequest(rq, status === 0 ? this.#execute(rq, c) : of(status));
    };
    if (time === 0) end();
    else this.clock.at(this.clock.now() + time, end, null);
    return BLK_STS_OK;
  }

  #countWrite(sector: number, by: number): void {
    const zone = this.namespace.zoneOf(sector * SECTOR_SIZE);
    const entry = this.writingZone.get(zone) ?? { now: 0, most: 0 };
    this.writingZone.set(zone, entry);
    for (const count of [this.writing, entry]) {
      count.now += by;
      count.most = Math.max(count.most, count.now);
    }
  }

  #begin(rq: Request, c: ZonedCommand): number {
    c.at = rq.sector * SECTOR_SIZE;
    c.len = rq.size;
    switch (reqOp(rq.opf)) {
      case REQ_OP_READ:
        return this.namespace.checkRead(c.at, c.len);
      case REQ_OP_WRITE:
      case REQ_OP_WRITE_ZEROES:
        return this.namespace.submitWrite(c);
      case REQ_OP_ZONE_APPEND:
        return this.namespace.submitAppend(c);
      default:
        return 0;
    }
  }

  #execute(rq: Request, c: ZonedCommand): number {
    const op = reqOp(rq.opf);
    const failed = this.#options.status?.(rq) ?? BLK_STS_OK;
    if (isZoneWrite(rq)) {
      const late = this.namespace.checkWrite(c);
      const ok = late === 0 && failed === BLK_STS_OK;
      if (ok && op !== REQ_OP_WRITE_ZEROES) this.#copy(rq, c.at);
      this.namespace.completeWrite(c, ok);
      if (op === REQ_OP_ZONE_APPEND) rq.sector = c.at / SECTOR_SIZE;
      return late === 0 ? failed : of(late);
    }
    if (failed !== BLK_STS_OK || op === REQ_OP_FLUSH) return failed;
    if (op === REQ_OP_READ) this.#copy(rq, c.at);
    if (op === REQ_OP_READ) return BLK_STS_OK;
    const all = op === REQ_OP_ZONE_RESET_ALL;
    const zone = this.namespace.zoneOf(c.at);
    return of(this.namespace.manage(zone, ACTIONS.get(op)!, all));
  }

  #copy(rq: Request, from: number): void {
    let at = from;
    for (let bio = rq.bio; bio !== null; bio = bio.next) {
      const end = at + bio.size;
      let [i, skip] = [bio.vecIndex, bio.vecDone];
      for (; at < end; i++, skip = 0) {
        const { data, offset, len } = bio.vecs[i]!;
        const n = Math.min(len - skip, end - at);
        const host = data.subarray(offset + skip, offset + skip + n);
        const here = this.memory.subarray(at, at + n);
        if (reqOp(rq.opf) === REQ_OP_READ) host.set(here);
        else here.set(host);
        at += n;
      }
    }
  }
}

function isZoneWrite(rq: Request): boolean {
  const op = reqOp(rq.opf);
  return op === REQ_OP_WRITE || op === REQ_OP_WRITE_ZEROES ||
    op === REQ_OP_ZONE_APPEND;
}

function of(status: number): number {
  switch (status) {
    case 0:
      return BLK_STS_OK;
    case NVME_SC_ZONE_TOO_MANY_OPEN:
      return BLK_STS_ZONE_OPEN_RESOURCE;
    case NVME_SC_ZONE_TOO_MANY_ACTIVE:
      return BLK_STS_ZONE_ACTIVE_RESOURCE;
    default:
      return BLK_STS_IOERR;
  }
}

const ACTIONS = new Map([
  [REQ_OP_ZONE_OPEN, NVME_ZONE_OPEN],
  [REQ_OP_ZONE_CLOSE, NVME_ZONE_CLOSE],
  [REQ_OP_ZONE_FINISH, NVME_ZONE_FINISH],
  [REQ_OP_ZONE_RESET, NVME_ZONE_RESET],
  [REQ_OP_ZONE_RESET_ALL, NVME_ZONE_RESET],
]);

const OPS = new Map([
  [REQ_OP_READ, "READ"],
  [REQ_OP_WRITE, "WRITE"],
  [REQ_OP_FLUSH, "FLUSH"],
  [REQ_OP_WRITE_ZEROES, "ZEROES"],
  [REQ_OP_ZONE_APPEND, "APPEND"],
  [REQ_OP_ZONE_OPEN, "OPEN"],
  [REQ_OP_ZONE_CLOSE, "CLOSE"],
  [REQ_OP_ZONE_FINISH, "FINISH"],
  [REQ_OP_ZONE_RESET, "RESET"],
  [REQ_OP_ZONE_RESET_ALL, "RESET_ALL"],
]);
