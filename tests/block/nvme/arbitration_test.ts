import { assertEquals } from "@std/assert";
import { Arbiter } from "../../../block/nvme/arbiter.ts";
import {
  NVME_ADMIN_SET_FEATURES,
  NVME_CC_AMS_WRRU,
  NVME_CMD_FLUSH,
  NVME_CMD_READ,
  NVME_FEAT_ARBITRATION,
} from "../../../block/nvme/nvme.ts";
import { NVME_PRESETS } from "../../../block/nvme/presets.ts";
import { CompletionQueue, SubmissionQueue } from "../../../block/nvme/queue.ts";
import { CqState, Queues, SqState } from "../../../block/nvme/queues.ts";
import { VirtualClock } from "../../../lib/clock.ts";
import { RawHost, type Ring } from "./raw_host.ts";

const URGENT = 0;
const HIGH = 1;
const MEDIUM = 2;
const LOW = 3;

/** Value of feature 0x01. */
function feature(ab: number, low = 0, medium = 0, high = 0): number {
  return ab | low << 8 | medium << 16 | high * 2 ** 24;
}

/**
 * Lets an arbiter choose among queues that have so many commands each.
 *
 * @returns Numbers of the queues, in the order of their commands.
 */
function order(
  weighted: boolean,
  value: number,
  queues: [priority: number, commands: number][],
): string {
  const arbiter = new Arbiter();
  arbiter.reset(weighted);
  arbiter.configure(value);
  const owner = new Queues(new VirtualClock(), 1);
  const cq = new CqState(new CompletionQueue(1, 2), null);
  const left = new Map<SqState, number>();
  queues.forEach(([priority, commands], i) => {
    const memory = new SubmissionQueue(i + 1, 2);
    const sq = new SqState(owner, memory, cq, priority, null!);
    left.set(sq, commands);
    arbiter.list(sq);
  });
  let chosen = "";
  for (let sq = arbiter.next(); sq !== null; sq = arbiter.next()) {
    let count = 0;
    for (const { quota } = arbiter; count < quota && sq.listed; count++) {
      chosen += sq.qid;
      left.set(sq, left.get(sq)! - 1);
      if (left.get(sq) === 0) arbiter.unlist(sq);
    }
    arbiter.charge(sq, count);
  }
  return chosen;
}

Deno.test("Arbiter visits queues in turn, a burst of commands at each", () => {
  const three: [number, number][] = [[LOW, 5], [URGENT, 2], [HIGH, 4]];
  assertEquals(order(false, feature(0), three), "12312313131");
  assertEquals(order(false, feature(1), three), "11223311331");
  assertEquals(order(false, feature(2), three), "11112233331");
  assertEquals(order(false, feature(7), three), "11111223333");
});

Deno.test("Arbiter takes urgent queues first, and shares the rest by weight", () => {
  const classes: [number, number][] = [
    [LOW, 3],
    [MEDIUM, 4],
    [HIGH, 8],
    [URGENT, 2],
    [URGENT, 2],
  ];
  // Weights 1, 2 and 4, which are told less one.
  const value = feature(0, 0, 1, 3);
  assertEquals(
    order(true, value, classes),
    "4545" + "3333221" + "3333221" + "1",
  );
  // A burst ends with the credits of its class.
  const burst = feature(1, 0, 1, 2);
  assertEquals(
    order(true, burst, classes),
    "4455" + "333221" + "333221" + "331",
  );
});

Deno.test("Arbiter visits queues of one class in turn", () => {
  const value = feature(0, 0, 0, 3);
  const queues: [number, number][] = [[HIGH, 3], [HIGH, 3], [LOW, 2]];
  assertEquals(order(true, value, queues), "1212" + "3" + "12" + "3");
});

Deno.test("Arbiter forgets what it was told by a reset", () => {
  const arbiter = new Arbiter();
  const owner = new Queues(new VirtualClock(), 1);
  const cq = new CqState(new CompletionQueue(1, 2), null);
  const sq = new SqState(owner, new SubmissionQueue(1, 2), cq, LOW, null!);
  arbiter.list(sq);
  arbiter.reset(true);
  assertEquals([arbiter.next(), sq.listed, arbiter.busy], [null, false, false]);
});

/** Ends of commands that were all rung for before any could be fetched. */
function endsInOrder(host: RawHost, queues: Ring[], each: number): string {
  // The first completion interrupts while its queue is fetched from.
  for (const queue of queues) {
    for (let cid = 0; cid < each; cid++) {
      queue.add({ opcode: NVME_CMD_FLUSH, cid });
    }
  }
  host.controller.setInterrupt(1, () => {
    host.controller.setInterrupt(1, () => {});
    for (const queue of queues.slice(1)) host.ring(queue);
  });
  host.ring(queues[0]!);
  return queues[0]!.take().map((cqe) => cqe.qid).join("");
}

Deno.test("NvmeController arbitrates among queues that have commands at the same time", () => {
  const cases: [number, number, number[], string][] = [
    [0, feature(0), [HIGH, LOW, URGENT], "123123123"],
    [0, feature(1), [HIGH, LOW, URGENT], "122331123"],
    [NVME_CC_AMS_WRRU, feature(0, 0, 0, 1), [HIGH, LOW, URGENT], "133311222"],
  ];
  for (const [cc, value, priorities, expected] of cases) {
    const host = new RawHost({}, cc);
    const first = host.createQueue(1, 64, { priority: priorities[0]! });
    const rest = priorities.slice(1).map((priority, i) =>
      host.createQueue(i + 2, 64, { priority, shares: first })
    );
    const { status } = host.adminCommand({
      opcode: NVME_ADMIN_SET_FEATURES,
      cdw10: NVME_FEAT_ARBITRATION,
      cdw11: value,
    });
    assertEquals(status, 0);
    assertEquals(endsInOrder(host, [first, ...rest], 3), expected);
  }
});

Deno.test("NvmeController does not let a flood of one queue delay another for long", () => {
  const host = new RawHost({ preset: NVME_PRESETS["tlc-dc"] });
  const flood = host.createQueue(1, 2048);
  const other = host.createQueue(2, 8);
  const memory = new Uint8Array(512);
  for (let cid = 0; cid < 2000; cid++) {
    flood.add({ opcode: NVME_CMD_READ, cid, slba: cid % 2048, memory });
  }
  host.ring(flood);
  other.add({ opcode: NVME_CMD_FLUSH, cid: 1 });
  host.ring(other);
  let end = 0;
  host.controller.setInterrupt(2, () => end = host.clock.now());
  host.clock.runUntil(() => false);
  // 2000 commands at 900,000 a second are more than 2 ms.
  assertEquals(flood.take().length, 2000);
  assertEquals(end > 0 && end < 100_000, true, `after ${end} ns`);
});

Deno.test("NvmeController takes admin commands whatever waits", () => {
  const host = new RawHost({ preset: NVME_PRESETS["tlc-dc"] });
  const flood = host.createQueue(1, 2048);
  const memory = new Uint8Array(512);
  for (let cid = 0; cid < 2000; cid++) {
    flood.add({ opcode: NVME_CMD_READ, cid, memory });
  }
  host.ring(flood);
  assertEquals(host.adminCommand({ opcode: 0x0a, cdw10: 1 }).status, 0);
  assertEquals(host.controller.inFlight().length < 100, true);
});
