/**
 * The host's side of the admin queue, and what the driver does with it: the
 * controller is enabled, asked what it is, and told of the I/O queues.
 *
 * Admin commands of the driver's own end within the doorbell. Of the user's, an
 * Asynchronous Event Request may take for ever.
 *
 * Kernel counterpart: drivers/nvme/host/core.c, drivers/nvme/host/pci.c.
 *
 * @module
 */

import type { NvmeController } from "./controller.ts";
import {
  type NvmePassthru,
  type NvmeResult,
  setupPassthru,
} from "./host-cmd.ts";
import type { NvmeIdentity } from "./host-limits.ts";
import { HostRings, type NvmeQueue } from "./host-queue.ts";
import {
  decodeCommandSet,
  decodeController,
  decodeNamespace,
  decodeNvmController,
  decodeZonedController,
  decodeZonedNamespace,
  NVME_IDENTIFY_DATA_SIZE,
} from "./identify.ts";
import {
  NVME_ADMIN_CREATE_CQ,
  NVME_ADMIN_CREATE_SQ,
  NVME_ADMIN_GET_LOG_PAGE,
  NVME_ADMIN_IDENTIFY,
  NVME_ADMIN_SET_FEATURES,
  NVME_CC_CSS_CSI,
  NVME_CC_ENABLE,
  NVME_CC_IOCQES,
  NVME_CC_IOSQES,
  NVME_CMD_ZONE_APPEND,
  NVME_CQ_IRQ_ENABLED,
  NVME_CSI_NVM,
  NVME_CSI_ZNS,
  NVME_CSTS_RDY,
  NVME_FEAT_NUM_QUEUES,
  NVME_ID_CNS_CS_CTRL,
  NVME_ID_CNS_CS_NS,
  NVME_ID_CNS_CTRL,
  NVME_ID_CNS_NS,
  NVME_ID_CNS_NS_DESC_LIST,
  NVME_LOG_CMD_EFFECTS,
  NVME_NSID,
  NVME_NSID_ALL,
  NVME_QUEUE_PHYS_CONTIG,
  NVME_REG_CC,
  NVME_REG_CSTS,
  NVME_SC_HOST_ABORTED_CMD,
  NVME_SC_SUCCESS,
  SQE_WORDS,
} from "./nvme.ts";
import {
  bufferMemory,
  type CompletionQueue,
  type HostMemory,
  type SubmissionQueue,
} from "./queue.ts";

/** Entries of the admin queue (kernel: `NVME_AQ_DEPTH`). */
const ENTRIES = 32;

/** Called with a command's end. */
type AdminEnd = (result: NvmeResult) => void;

/** The admin queue. */
export class NvmeAdmin {
  readonly #controller: NvmeController;
  #rings = new HostRings(0, ENTRIES);
  /** Who waits, by command identifier. */
  readonly #waiting: (AdminEnd | null)[] = new Array(ENTRIES - 1).fill(null);

  /**
   * The admin queue of a controller that is disabled.
   *
   * @param controller The controller.
   */
  constructor(controller: NvmeController) {
    this.#controller = controller;
  }

  /**
   * Disables the controller, which deletes all queues, and enables it again with
   * an empty admin queue (kernel: `nvme_pci_configure_admin_queue`). Commands under
   * way end as aborted by the host.
   *
   * @returns Whether the controller has become ready.
   */
  enable(): boolean {
    const controller = this.#controller;
    controller.writeRegister(NVME_REG_CC, 0);
    this.cancel();
    this.#rings = new HostRings(0, ENTRIES);
    const { sq, cq } = this.#rings;
    controller.setAdminQueues(sq, cq);
    controller.setInterrupt(0, () => this.#interrupt());
    const cc = NVME_CC_ENABLE | NVME_CC_CSS_CSI | NVME_CC_IOSQES |
      NVME_CC_IOCQES;
    controller.writeRegister(NVME_REG_CC, cc);
    return (controller.readRegister(NVME_REG_CSTS) & NVME_CSTS_RDY) !== 0;
  }

  /** Ends what is under way, as it will get no completion. */
  cancel(): void {
    for (let cid = 0; cid < this.#waiting.length; cid++) {
      const end = this.#waiting[cid];
      this.#waiting[cid] = null;
      end?.({ status: NVME_SC_HOST_ABORTED_CMD, result: 0 });
    }
  }

  /**
   * Sends a command.
   *
   * @param end Called with its end, possibly before this returns.
   * @returns False if all slots are taken: nothing has been sent.
   */
  submit(
    command: NvmePassthru,
    memory: HostMemory | SubmissionQueue | CompletionQueue | null,
    end: AdminEnd,
  ): boolean {
    const cid = this.#waiting.indexOf(null);
    if (cid < 0) return false;
    const { sq, sqTail } = this.#rings;
    setupPassthru(sq.ring, sqTail * SQE_WORDS, command);
    sq.ring[sqTail * SQE_WORDS]! |= cid << 16;
    sq.memory[sqTail] = memory;
    this.#waiting[cid] = end;
    this.#rings.push();
    this.#rings.ringSq(this.#controller);
    return true;
  }

  /** Sends a command of the driver's own, which ends at once (kernel:
   * `nvme_submit_sync_cmd`). */
  submitSync(
    command: NvmePassthru,
    memory: HostMemory | SubmissionQueue | CompletionQueue | null = null,
  ): NvmeResult {
    let ended: NvmeResult = { status: NVME_SC_HOST_ABORTED_CMD, result: 0 };
    this.submit(command, memory, (result) => ended = result);
    return ended;
  }

  #interrupt(): void {
    const rings = this.#rings;
    const { ring } = rings.cq;
    for (let at = rings.take(); at >= 0; at = rings.take()) {
      const word = ring[at + 3]!;
      const result = ring[at + 1]! * 2 ** 32 + ring[at]!;
      const cid = word & 0xffff;
      const end = this.#waiting[cid];
      this.#waiting[cid] = null;
      rings.ringCq(this.#controller);
      end?.({ status: word >>> 17, result });
    }
  }
}

/**
 * Asks a device what it is (kernel: `nvme_init_ctrl_finish`, `nvme_scan_ns`).
 *
 * @returns What it said; null if it did not answer.
 */
export function nvmeIdentify(admin: NvmeAdmin): NvmeIdentity | null {
  const ctrl = identify(admin, NVME_ID_CNS_CTRL);
  const ns = identify(admin, NVME_ID_CNS_NS);
  const nvm = identify(admin, NVME_ID_CNS_CS_CTRL, NVME_CSI_NVM);
  const names = identify(admin, NVME_ID_CNS_NS_DESC_LIST);
  if (ctrl === null || ns === null || nvm === null || names === null) {
    return null;
  }
  const identity: NvmeIdentity = {
    ctrl: decodeController(ctrl),
    nvm: decodeNvmController(nvm),
    ns: decodeNamespace(ns),
    zones: null,
    zasl: -1,
  };
  const isZoned = decodeCommandSet(names) === NVME_CSI_ZNS;
  return !isZoned || addZones(admin, identity) ? identity : null;
}

/** Kernel: `nvme_query_zone_info`. */
function addZones(admin: NvmeAdmin, identity: NvmeIdentity): boolean {
  const ns = identify(admin, NVME_ID_CNS_CS_NS, NVME_CSI_ZNS);
  const ctrl = identify(admin, NVME_ID_CNS_CS_CTRL, NVME_CSI_ZNS);
  if (ns === null || ctrl === null) return false;
  identity.zones = decodeZonedNamespace(ns, identity.ns.blockSize);
  if (hasAppend(admin)) identity.zasl = decodeZonedController(ctrl);
  return true;
}

/** Whether the effects log lists Zone Append. */
function hasAppend(admin: NvmeAdmin): boolean {
  const log = new Uint8Array(4096);
  const { status } = admin.submitSync({
    opcode: NVME_ADMIN_GET_LOG_PAGE,
    nsid: NVME_NSID_ALL,
    cdw10: NVME_LOG_CMD_EFFECTS | (log.length / 4 - 1) << 16,
    cdw14: NVME_CSI_ZNS << 24,
  }, bufferMemory(log));
  // I/O commands follow 256 admin ones; four bytes of effects each.
  const at = 4 * (256 + NVME_CMD_ZONE_APPEND);
  return status === NVME_SC_SUCCESS && (log[at]! & 1) !== 0;
}

function identify(
  admin: NvmeAdmin,
  cns: number,
  csi = NVME_CSI_NVM,
): Uint8Array | null {
  const data = new Uint8Array(NVME_IDENTIFY_DATA_SIZE);
  const { status } = admin.submitSync({
    opcode: NVME_ADMIN_IDENTIFY,
    nsid: cns === NVME_ID_CNS_CTRL || cns === NVME_ID_CNS_CS_CTRL
      ? 0
      : NVME_NSID,
    cdw10: cns,
    cdw11: csi << 24,
  }, bufferMemory(data));
  return status === NVME_SC_SUCCESS ? data : null;
}

/**
 * Tells a controller of the I/O queues (kernel: `nvme_setup_io_queues`). Each has a
 * completion queue of its own, and an interrupt vector of the same number unless it
 * is polled.
 *
 * @returns Whether it has taken them all.
 */
export function nvmeSetupIoQueues(
  controller: NvmeController,
  admin: NvmeAdmin,
  queues: readonly NvmeQueue[],
): boolean {
  const count = queues.length - 1;
  const { status, result } = admin.submitSync({
    opcode: NVME_ADMIN_SET_FEATURES,
    nsid: 0,
    cdw10: NVME_FEAT_NUM_QUEUES,
    cdw11: count | count << 16,
  });
  if (status !== NVME_SC_SUCCESS) return false;
  if ((result & 0xffff) < count || result / 65536 < count) return false;
  return queues.every((queue) => createQueue(controller, admin, queue));
}

/** Kernel: `nvme_create_queue`. */
function createQueue(
  controller: NvmeController,
  admin: NvmeAdmin,
  queue: NvmeQueue,
): boolean {
  const { sq, cq } = queue.rings;
  const { qid } = sq;
  const cdw10 = qid | (sq.entries - 1) << 16;
  const irq = queue.polled ? 0 : NVME_CQ_IRQ_ENABLED | qid << 16;
  if (!queue.polled) controller.setInterrupt(qid, () => queue.interrupt());
  const createdCq = admin.submitSync({
    opcode: NVME_ADMIN_CREATE_CQ,
    nsid: 0,
    cdw10,
    cdw11: NVME_QUEUE_PHYS_CONTIG | irq,
  }, cq);
  if (createdCq.status !== NVME_SC_SUCCESS) return false;
  const createdSq = admin.submitSync({
    opcode: NVME_ADMIN_CREATE_SQ,
    nsid: 0,
    cdw10,
    cdw11: NVME_QUEUE_PHYS_CONTIG | qid << 16,
  }, sq);
  return createdSq.status === NVME_SC_SUCCESS;
}
