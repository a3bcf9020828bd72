/**
 * An NVMe namespace as a block device, with what its users can do beside I/O: send
 * commands of their own, and do to it what happens to drives.
 *
 * A device that has lost its power, or is gone, is dead: what was under way and all
 * that comes ends with IOERR, until it is there again.
 *
 * Kernel counterpart: drivers/nvme/host/core.c, drivers/nvme/host/ioctl.c.
 *
 * @module
 */

import { Bio, bioEndWith } from "../bio.ts";
import {
  blkExecuteRqNowait,
  blkMqDestroyQueue,
  blkMqPoll,
  blkMqSubmitBio,
  type RequestQueue,
} from "../blk-mq.ts";
import { diskUpdateReadahead } from "../blk-settings.ts";
import {
  BLK_STS_OFFLINE,
  BLK_STS_OK,
  REQ_OP_DRV_IN,
  REQ_OP_DRV_OUT,
  SECTOR_SIZE,
} from "../blk-types.ts";
import { blkRevalidateDiskZones, type ReportZonesCb } from "../blk-zoned.ts";
import { BLK_FEAT_POLL, BlockDevice, type QueueLimits } from "../blkdev.ts";
import type { DiskStats } from "../part-stat.ts";
import { bugOn } from "../../lib/bug.ts";
import type { Clock, EventId } from "../../lib/clock.ts";
import {
  EAGAIN,
  EINVAL,
  ENODEV,
  EOPNOTSUPP,
  FsError,
  show,
} from "../../lib/errno.ts";
import {
  andThen,
  andThenWith,
  type MaybePromise,
} from "../../lib/maybe-promise.ts";
import { Completion } from "../../lib/wait.ts";
import type { NvmeController } from "./controller.ts";
import type { FaultPlan } from "./faults.ts";
import {
  checkPassthru,
  type NvmePassthru,
  type NvmeResult,
  PassthruCommand,
} from "./host-cmd.ts";
import { NvmeDriver, type NvmeQueueCounts } from "./host-driver.ts";
import { type NvmeIdentity, nvmeQueueLimits } from "./host-limits.ts";
import { nvmeReportZones } from "./host-zns.ts";
import { NVME_NS_ATTR_RO } from "./identify.ts";
import {
  NVME_ADMIN_FORMAT_NVM,
  NVME_CC_SHN_NORMAL,
  NVME_REG_CC,
  NVME_SC_HOST_PATH_ERROR,
  NVME_SC_SUCCESS,
} from "./nvme.ts";
import {
  checkCutOptions,
  type CutFragment,
  type CutOptions,
  type CutReport,
  type TearMode,
} from "./power-cut.ts";
import { bufferMemory } from "./queue.ts";

/** An NVMe namespace as a block device, with the controller that it belongs to. */
export class NvmeDevice extends BlockDevice {
  /** Its name. */
  override readonly name = "nvme0n1";
  /** Tells the time that its commands take. */
  override readonly clock: Clock;
  /** What it can do in one request. */
  override limits!: QueueLimits;
  /** Its number, as Linux gives it to the first such device. */
  override readonly dev: { major: number; minor: number } = {
    major: 259,
    minor: 0,
  };
  /** The device behind it. */
  readonly controller: NvmeController;
  readonly #features: number;
  readonly #counts: NvmeQueueCounts;
  readonly #driver: NvmeDriver;
  #nrSectors = 0;
  #powered = true;
  /** When the power goes, 0 if nobody has said. */
  #cutEvent: EventId = 0;
  /** Zones are read in place, as nothing takes time before there is a device. */
  #probing = true;

  /**
   * Starts the controller, asks it what it is, and makes the I/O queues (kernel:
   * `nvme_probe`).
   *
   * @param clock Time.
   * @param controller The device behind it.
   * @param counts Its queues.
   * @param features `BLK_FEAT_*` of the model that Identify does not tell.
   */
  constructor(
    clock: Clock,
    controller: NvmeController,
    counts: NvmeQueueCounts,
    features: number,
  ) {
    super();
    this.clock = clock;
    this.controller = controller;
    this.#counts = counts;
    this.#features = features | (counts.pollQueues > 0 ? BLK_FEAT_POLL : 0);
    this.#driver = new NvmeDriver(this, controller, counts);
    bugOn(!this.#probe(), "the controller does not start");
  }

  /** Starts the controller and takes over what it says of itself; whether it does. */
  #probe(): boolean {
    const identity = this.#driver.start();
    if (identity === null) return false;
    this.#probing = true;
    this.#updateInfo(identity);
    this.#probing = false;
    return true;
  }

  /** Kernel: `nvme_update_ns_info_block`. */
  #updateInfo(identity: NvmeIdentity): void {
    const { ns, zones } = identity;
    this.limits = nvmeQueueLimits(identity, this.#features);
    this.#nrSectors = ns.blocks * (ns.blockSize / SECTOR_SIZE);
    this.readOnly = (ns.nsattr & NVME_NS_ATTR_RO) !== 0;
    diskUpdateReadahead(this);
    if (zones !== null) blkRevalidateDiskZones(this);
  }

  /** Size in 512-byte sectors. */
  override get nrSectors(): number {
    return this.#nrSectors;
  }

  /** What it has done, for "Disk stats". */
  get stats(): DiskStats {
    return this.queue.stats;
  }

  /** The block layer's queues: their depth, whether bios merge, freezing. */
  get queue(): RequestQueue {
    return this.#driver.queue;
  }

  /** Whether it has lost its power, or is gone. */
  get dead(): boolean {
    return this.#driver.state === "dead";
  }

  /** Takes a bio; used by `submitBio` (kernel: `blk_mq_submit_bio`). */
  override submit(bio: Bio): void {
    if (this.#driver.state === "closed") bioEndWith(bio, BLK_STS_OFFLINE);
    else blkMqSubmitBio(this.queue, bio);
  }

  /** Looks for completions of polled bios; used by `bioPoll` (kernel: `blk_mq_poll`). */
  override poll(cookie: number): number {
    return blkMqPoll(this.queue, cookie);
  }

  /** Asks for zones; used by `blkdevReportZones` (kernel: `nvme_ns_report_zones`). */
  override reportZones(
    sector: number,
    nrZones: number,
    cb: ReportZonesCb,
  ): MaybePromise<number> {
    return nvmeReportZones(this, sector, nrZones, cb, (command) => {
      if (!this.#probing) {
        return andThen(this.#io(command), ({ status }) => status === 0);
      }
      const { zones } = this.controller.namespace;
      const at = (command.cdw11! * 2 ** 32 + command.cdw10!) *
        this.limits.logicalBlockSize;
      return zones!.report(at, 0, true, command.data) === NVME_SC_SUCCESS;
    });
  }

  /**
   * Sends a command of the user's own (kernel: `NVME_IOCTL_IO64_CMD`,
   * `NVME_IOCTL_ADMIN64_CMD`). It is never sent again.
   *
   * @returns How it ended: `NVME_SC_HOST_PATH_ERROR` if it could not be sent,
   *   `NVME_SC_HOST_ABORTED_CMD` if the device was reset, or gone, before its end.
   * @throws {FsError} EINVAL for a field that cannot be; EAGAIN if there are too many
   *   admin commands under way.
   */
  passthru(command: NvmePassthru): MaybePromise<NvmeResult> {
    checkPassthru(command);
    return command.admin ? this.#adminCommand(command) : this.#io(command);
  }

  #io(command: NvmePassthru): MaybePromise<NvmeResult> {
    const op = (command.opcode & 1) !== 0 ? REQ_OP_DRV_OUT : REQ_OP_DRV_IN;
    const bio = new Bio(this, op);
    const { data } = command;
    if (data !== undefined) bio.addData(data, 0, data.length);
    const result = new PassthruCommand(command);
    const done = new Completion();
    bio.private = result;
    bio.endIo = () => {
      const unsent = bio.status !== BLK_STS_OK && result.status === 0;
      if (unsent) result.status = NVME_SC_HOST_PATH_ERROR;
      done.complete();
    };
    if (this.#driver.state === "closed") bioEndWith(bio, BLK_STS_OFFLINE);
    else blkExecuteRqNowait(this.queue, bio);
    return andThenWith(done.wait(this.clock), resultOf, result);
  }

  #adminCommand(command: NvmePassthru): MaybePromise<NvmeResult> {
    if (this.#driver.state !== "live") {
      return { status: NVME_SC_HOST_PATH_ERROR, result: 0 };
    }
    const { opcode, data } = command;
    const result = new PassthruCommand(command);
    const done = new Completion();
    const memory = data === undefined ? null : bufferMemory(data);
    const sent = this.#driver.admin.submit(command, memory, (ended) => {
      result.status = ended.status;
      result.result = ended.result;
      done.complete();
    });
    if (!sent) throw new FsError(EAGAIN, "Cannot send an admin command");
    const succeeded = done.done && result.status === NVME_SC_SUCCESS;
    if (succeeded && opcode === NVME_ADMIN_FORMAT_NVM) this.#revalidate();
    return andThenWith(done.wait(this.clock), resultOf, result);
  }

  /** The format may be another (kernel: `nvme_passthru_end`). */
  #revalidate(): void {
    const identity = this.#driver.identify();
    if (identity !== null) this.#updateInfo(identity);
  }

  /**
   * Resets the controller (kernel: `nvme_reset_ctrl`). Its cache is kept. What is
   * under way is sent again, or ends with IOERR if it must not be.
   */
  reset(): void {
    this.#driver.reset();
  }

  /**
   * The device disappears, as if it were pulled out (kernel: `nvme_remove` of a
   * device that does not answer). What has completed is as durable as it was.
   * {@linkcode NvmeDevice.powerOn} brings it back.
   */
  disconnect(): void {
    if (this.#driver.state !== "live") return;
    this.#cancelCut();
    this.controller.writeRegister(NVME_REG_CC, 0);
    this.#gone();
  }

  /**
   * The power goes, now: bios under way end with IOERR, and so do all that come, until
   * {@linkcode NvmeDevice.powerOn}. Whoever had claimed the device has lost it.
   *
   * @returns What persisted of what might have: seed, event and bitmap name the state.
   * @throws {FsError} EINVAL, naming the option that cannot be; ENODEV if the device
   *   has no power, or is closed.
   */
  powerCut(options: CutOptions = {}): CutReport {
    checkCutOptions(options);
    this.#checkLive("cut the power");
    return this.#cut(options);
  }

  #cut(options: CutOptions): CutReport {
    this.#cancelCut();
    const report = this.controller.powerCut(options);
    this.#powered = false;
    this.#gone();
    return report;
  }

  /**
   * Lets the power go when the n-th write command from now on is fetched, before it
   * is carried out: Write, Write Zeroes, Zone Append or Copy. A later call, and any
   * other loss of the device, takes its place.
   *
   * @param n 1 or more.
   * @returns What persisted, once that has happened; it may never.
   * @throws {FsError} As {@linkcode NvmeDevice.powerCut}.
   */
  powerCutAfterWrites(n: number, options: CutOptions = {}): Promise<CutReport> {
    if (!(Number.isSafeInteger(n) && n >= 1)) {
      throw new FsError(EINVAL, `Cannot cut the power after ${show(n)} writes`);
    }
    checkCutOptions(options);
    this.#checkLive("cut the power");
    this.#cancelCut();
    return new Promise((resolve) => {
      this.controller.afterWrites(n, () => {
        resolve(this.#cut(options));
        return true;
      });
    });
  }

  /**
   * Lets the power go at an event that is to come: with seed, event and bitmap of a
   * report, a run that is the same until then leaves the same blocks. A later call,
   * and any other loss of the device, takes its place.
   *
   * @param event Number, above {@linkcode NvmeDevice.events}.
   * @returns What persisted, once that has happened; it may never.
   * @throws {FsError} As {@linkcode NvmeDevice.powerCut}.
   */
  powerCutAtEvent(
    event: number,
    options: CutOptions = {},
  ): Promise<CutReport> {
    checkCutOptions(options);
    this.#checkLive("cut the power");
    if (!(Number.isSafeInteger(event) && event > this.events)) {
      throw new FsError(
        EINVAL,
        `Cannot cut the power at event ${show(event)}, there have been ` +
          `${this.events}`,
      );
    }
    this.#cancelCut();
    return new Promise((resolve) => {
      this.controller.atEvent(event, () => {
        resolve(this.#cut(options));
        return true;
      });
    });
  }

  /** Events so far: commands fetched and ended, admin commands' ends among them. */
  get events(): number {
    return this.controller.events;
  }

  /**
   * Lets the power go at a time. A later call, and any other loss of the device, takes
   * its place.
   *
   * @param time By the device's clock, nanoseconds; one that has passed means now.
   * @returns What persisted, once that has happened; it may never.
   * @throws {FsError} As {@linkcode NvmeDevice.powerCut}.
   */
  powerCutAt(time: number, options: CutOptions = {}): Promise<CutReport> {
    checkCutOptions(options);
    this.#checkLive("cut the power");
    const { promise, resolve } = Promise.withResolvers<CutReport>();
    const event = this.clock.at(time, () => {
      this.#cutEvent = 0;
      resolve(this.#cut(options));
    }, undefined);
    this.#cancelCut();
    this.#cutEvent = event;
    return promise;
  }

  /** Takes back a loss of power that is to come. */
  #cancelCut(): void {
    this.controller.afterWrites(0, () => false);
    this.controller.atEvent(0, () => false);
    this.clock.cancel(this.#cutEvent);
    this.#cutEvent = 0;
  }

  /**
   * What a loss of power now would have to decide upon: writes that are not durable,
   * in the fragments that persist or not. `cutStates` makes bitmaps of them.
   *
   * @param tear How large writes tear; `"lba"` if absent.
   * @throws {FsError} ENODEV if the device has no power, or is closed.
   */
  undecided(tear: TearMode = "lba"): readonly CutFragment[] {
    this.#checkLive("look at what is not durable");
    const { store } = this.controller.namespace;
    return store.undecided(this.controller.inFlight(), tear);
  }

  /**
   * The device as a loss of power now would leave it, on the same clock and on media
   * of its own; this one goes on. Faults of the media go along, rules do not.
   *
   * @returns The device, with the power on again, and what persisted.
   * @throws {FsError} EINVAL, naming the option that cannot be; ENODEV if the device
   *   has no power, or is closed; EOPNOTSUPP if the media cannot be forked.
   */
  fork(options: CutOptions = {}): { device: NvmeDevice; report: CutReport } {
    checkCutOptions(options);
    this.#checkLive("fork the device");
    const forked = this.controller.fork(options);
    if (forked === null) {
      throw new FsError(
        EOPNOTSUPP,
        "Cannot fork the device, its media has no fork",
      );
    }
    const { controller, report } = forked;
    const features = this.#features;
    const device = new NvmeDevice(
      this.clock,
      controller,
      this.#counts,
      features,
    );
    return { device, report };
  }

  /** What is wrong with the device; add to it what is to go wrong. */
  get faults(): FaultPlan {
    return this.controller.namespace.faults;
  }

  #checkLive(what: string): void {
    const { state } = this.#driver;
    if (state === "live") return;
    const why = state === "dead" ? "it is gone" : "it is closed";
    throw new FsError(ENODEV, `Cannot ${what}, ${why}`);
  }

  /** The device is not there any more: who has it, and all bios, are told. */
  #gone(): void {
    const { holder } = this;
    this.holder = null;
    holder?.markDead();
    this.#driver.stop("dead");
  }

  /**
   * The power is there again: the controller starts, and the block device is as
   * after a probe (kernel: `nvme_probe`). Does nothing unless the device is dead.
   */
  powerOn(): void {
    if (!this.dead) return;
    if (!this.#powered) this.controller.powerOn();
    this.#powered = true;
    bugOn(!this.#probe(), "the controller does not start");
  }

  /**
   * Shuts the device down and closes its media. What has completed is durable
   * then; bios under way, and all that come later, end with `BLK_STS_OFFLINE`.
   * Closing again does nothing.
   */
  close(): void {
    const { state } = this.#driver;
    if (state === "closed") return;
    this.#cancelCut();
    if (state === "live") {
      const cc = this.controller.readRegister(NVME_REG_CC);
      this.controller.writeRegister(NVME_REG_CC, cc | NVME_CC_SHN_NORMAL);
    }
    this.controller.media.close();
    this.#driver.stop("closed");
    blkMqDestroyQueue(this.queue);
  }

  /** Closes it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }
}

function resultOf(
  _done: void,
  { status, result }: PassthruCommand,
): NvmeResult {
  return { status, result };
}
