import { assertEquals } from "@std/assert";
import {
  NVME_ADMIN_SET_FEATURES,
  NVME_CMD_FLUSH,
  NVME_FEAT_IRQ_COALESCE,
  NVME_FEAT_IRQ_CONFIG,
  NVME_REG_INTMC,
  NVME_REG_INTMS,
} from "../../../block/nvme/nvme.ts";
import { USEC } from "../../../lib/clock.ts";
import { RawHost, type Ring } from "./raw_host.ts";

function setFeature(host: RawHost, fid: number, value: number): number {
  return host.adminCommand({
    opcode: NVME_ADMIN_SET_FEATURES,
    cdw10: fid,
    cdw11: value,
  }).status;
}

/** A host with a queue, and the times at which vector 1 interrupts, in us. */
function coalescing(feature: number, reaps = false) {
  const host = new RawHost();
  const queue = host.createQueue(1, 64);
  const times: number[] = [];
  host.controller.setInterrupt(1, () => {
    times.push(host.clock.now() / USEC);
    if (!reaps) return;
    queue.take();
    host.controller.ringCq(1, queue.head);
  });
  assertEquals(setFeature(host, NVME_FEAT_IRQ_COALESCE, feature), 0);
  return { host, queue, times };
}

/** Has commands end at these times, us: the null model ends them at once. */
function endAt(host: RawHost, queue: Ring, ...times: number[]): void {
  times.forEach((time, cid) => {
    host.clock.at(time * USEC, () => {
      queue.add({ opcode: NVME_CMD_FLUSH, cid });
      host.ring(queue);
    }, undefined);
  });
  host.clock.runUntil(() => false);
}

const THR3_TIME1 = 3 | 1 << 8;

Deno.test("corner case 100: four completions or 100 us make an interrupt, the admin queue's are at once", () => {
  const three = coalescing(THR3_TIME1);
  endAt(three.host, three.queue, 0, 10, 20);
  assertEquals(three.times, [100]);

  const four = coalescing(THR3_TIME1);
  endAt(four.host, four.queue, 0, 10, 20, 30);
  assertEquals(four.times, [30]);

  const { host } = coalescing(THR3_TIME1);
  let admin = 0;
  host.controller.setInterrupt(0, () => admin++);
  assertEquals(setFeature(host, NVME_FEAT_IRQ_COALESCE, THR3_TIME1), 0);
  assertEquals(admin, 1);
});

Deno.test("Interrupts begin to count anew after each interrupt", () => {
  const { host, queue, times } = coalescing(1 | 2 << 8, true);
  endAt(host, queue, 0, 10, 20, 500, 900, 905);
  // Pairs at 10 and 905; single ones 200 us after they came.
  assertEquals(times, [10, 220, 700, 905]);
});

Deno.test("Interrupts do not coalesce without a threshold or without a time", () => {
  for (const feature of [0, 3, 5 << 8]) {
    const { host, queue, times } = coalescing(feature);
    endAt(host, queue, 0, 10, 20);
    assertEquals(times, [0, 10, 20]);
  }
});

Deno.test("Interrupts of a vector with CD do not coalesce", () => {
  const { host, queue, times } = coalescing(THR3_TIME1);
  const config = (value: number) =>
    setFeature(host, NVME_FEAT_IRQ_CONFIG, value);
  assertEquals(config(1 | 1 << 16), 0);
  endAt(host, queue, 0, 10);
  assertEquals(times, [0, 10]);
  // No such vector.
  assertEquals(config(0xffff) & 0x7ff, 0x002);
});

Deno.test("Interrupts tell nothing that the host has found by itself", () => {
  const { host, queue, times } = coalescing(THR3_TIME1);
  host.clock.at(50 * USEC, () => {
    queue.take();
    host.controller.ringCq(1, queue.head);
  }, undefined);
  endAt(host, queue, 0, 10, 300);
  assertEquals(times, [400]);
});

Deno.test("Interrupts of a masked vector wait for it to be unmasked", () => {
  const { host, queue, times } = coalescing(THR3_TIME1);
  host.controller.writeRegister(NVME_REG_INTMS, 2);
  endAt(host, queue, 0, 10, 20, 30, 40);
  assertEquals(times, []);
  host.controller.writeRegister(NVME_REG_INTMC, 2);
  assertEquals(times, [40]);
});
