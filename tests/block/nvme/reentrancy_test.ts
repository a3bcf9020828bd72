/**
 * What is done to a device from within its own calls, and while it is busy with
 * something else.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  createNvme,
  type NvmeDevice,
  type NvmeOptions,
} from "../../../block/nvme/mod.ts";
import {
  NVME_ADMIN_DELETE_SQ,
  NVME_CMD_COMPARE,
  NVME_CMD_READ,
  NVME_CMD_WRITE,
  NVME_REG_CC,
} from "../../../block/nvme/nvme.ts";
import {
  Bio,
  BLK_STS_IOERR,
  BLK_STS_OFFLINE,
  BLK_STS_OK,
  REQ_FUA,
  REQ_OP_DISCARD,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_PREFLUSH,
  submitBio,
} from "../../../block/mod.ts";
import { SEC, USEC, VirtualClock } from "../../../lib/clock.ts";
import { Prng } from "../../../lib/prng.ts";
import { makeBio, settle, submit } from "../fake_device.ts";
import { RawHost } from "./raw_host.ts";

const SIZE = 2 ** 24;

function make(options: NvmeOptions = {}): NvmeDevice {
  return createNvme(new VirtualClock(), {
    size: SIZE,
    preset: "mlc-970pro",
    ...options,
  });
}

/** Submits writes one of which does something when it ends; how all ended. */
function during(
  device: NvmeDevice,
  count: number,
  which: number,
  act: () => void,
): number[] {
  const statuses = new Array<number>(count).fill(-1);
  for (let i = 0; i < count; i++) {
    const bio = makeBio(device, REQ_OP_WRITE, 8 * i, 8);
    bio.endIo = ({ status }) => {
      assertEquals(statuses[i], -1, "it ends once");
      statuses[i] = status;
      if (i === which) act();
    };
    submitBio(bio);
  }
  return statuses;
}

Deno.test("NvmeDevice.powerOn() from within a cut revives none of what was under way", () => {
  const device = make();
  const statuses = during(device, 6, 0, () => device.powerOn());
  device.powerCut({ keep: "none" });
  settle(device.clock);
  assertEquals(statuses, new Array(6).fill(BLK_STS_IOERR));
  assertEquals(device.undecided(), []);
  assertEquals(device.stats.inFlight, 0);
  device.close();
});

Deno.test("NvmeDevice.reset() sends nothing to a device whose power went meanwhile", () => {
  const device = make();
  const statuses = new Array<number>(6).fill(-1);
  for (let i = 0; i < 6; i++) {
    // The first must not be sent again, so that it ends within the reset.
    const flags = i === 0 ? 1 << 8 : 0;
    const bio = makeBio(device, REQ_OP_WRITE | flags, 8 * i, 8);
    bio.endIo = ({ status }) => {
      statuses[i] = status;
      if (i > 0) return;
      device.powerCut({ keep: "none" });
      device.powerOn();
    };
    submitBio(bio);
  }
  device.reset();
  settle(device.clock);
  assertEquals(statuses, new Array(6).fill(BLK_STS_IOERR));
  device.close();
});

Deno.test("NvmeDevice.reset() does not bring back what was closed from within it", () => {
  // Of a polled queue, what is done is found by the reset itself.
  const device = make({ preset: "optane", pollQueues: 1 });
  const bio = makeBio(device, REQ_OP_READ | 1 << 22, 0, 8);
  let status = -1;
  bio.endIo = (ended) => {
    status = ended.status;
    device.close();
  };
  submitBio(bio);
  const { clock } = device;
  clock.at(20 * USEC, () => {}, undefined);
  clock.runUntil(() => clock.now() >= 20 * USEC);
  assertEquals(status, -1);
  device.reset();
  assertEquals(status, BLK_STS_OK);
  const late = submit(makeBio(device, REQ_OP_READ, 0, 8));
  assertEquals(late.status, BLK_STS_OFFLINE);
});

Deno.test("NvmeDevice goes on after an endIo that throws", () => {
  for (const preset of ["null", "mlc-970pro"]) {
    const device = make({ preset });
    const bad = makeBio(device, REQ_OP_WRITE, 0, 8);
    bad.endIo = () => {
      throw new RangeError("not mine");
    };
    assertThrows(() => {
      submitBio(bad);
      settle(device.clock);
    }, RangeError);
    for (let i = 0; i < 3; i++) {
      const good = submit(makeBio(device, REQ_OP_WRITE, 8, 8));
      settle(device.clock);
      assertEquals([good.status, good.times], [BLK_STS_OK, 1]);
    }
    // Not by the timeout.
    assert(device.clock.now() < SEC);
    device.close();
  }
});

Deno.test("NvmeController may be reset from the interrupt of a fused pair, or of a deleted queue", () => {
  const data = () => new Uint8Array(512);
  const pair = (cid: number) => [
    { opcode: NVME_CMD_COMPARE, cid, fuse: 1, memory: data() },
    { opcode: NVME_CMD_WRITE, cid: cid + 1, fuse: 2, memory: data() },
  ];
  const cases = [
    // Both are done, the compare fails, the write is refused.
    pair(1),
    [{ ...pair(1)[0]!, memory: data().fill(1) }, pair(1)[1]!],
    [pair(1)[0]!, { ...pair(1)[1]!, slba: 2 ** 40 }],
  ];
  for (const sqes of [...cases, null]) {
    const host = new RawHost();
    const queue = host.createQueue(1, 16);
    let interrupts = 0;
    host.controller.setInterrupt(1, () => {
      interrupts++;
      host.controller.writeRegister(NVME_REG_CC, 0);
    });
    if (sqes === null) {
      host.controller.namespace.faults.add({ kind: "hang", count: 3 });
      for (const cid of [1, 2, 3]) {
        queue.add({ opcode: NVME_CMD_READ, cid, memory: data() });
      }
      host.ring(queue);
      host.admin.add({ opcode: NVME_ADMIN_DELETE_SQ, cdw10: 1 });
      host.controller.ringSq(0, host.admin.tail);
    } else {
      for (const sqe of sqes) queue.add(sqe);
      host.ring(queue);
    }
    assertEquals(interrupts, 1);
    // Were a record given back twice, two of these commands would share it.
    host.enable();
    const fresh = host.createQueue(1, 16);
    host.controller.namespace.faults.add({ kind: "hang", count: 8 });
    for (let cid = 0; cid < 8; cid++) {
      fresh.add({ opcode: NVME_CMD_READ, cid, memory: data() });
    }
    host.ring(fresh);
    const cids = host.controller.inFlight().map((c) => c.cid);
    assertEquals(new Set(cids).size, 8);
  }
});

/** A load with all that goes wrong, ended by a loss of power at an event, or not. */
function troubled(cutAt: number): { events: number; cut: boolean } {
  const device = make({ seed: 2, queues: 2, pollQueues: 1, depth: 6 });
  const { clock } = device;
  device.faults.add({ kind: "transient", chance: 5 });
  device.faults.add({ kind: "hang", after: 12, count: 2 });
  device.faults.add({ kind: "latent", sector: 64, sectors: 8 });
  const first = device.events;
  if (cutAt > 0) device.powerCutAtEvent(first + cutAt).then(() => {});
  const random = new Prng(4, "load");
  const ends = new Uint8Array(60);
  const ops = [REQ_OP_READ, REQ_OP_WRITE, REQ_OP_WRITE | REQ_FUA].concat(
    REQ_OP_WRITE | REQ_PREFLUSH,
    REQ_OP_DISCARD,
    REQ_OP_WRITE_ZEROES,
  );
  let next = 0;
  const go = () => {
    if (next === ends.length) return;
    const i = next++;
    const op = ops[random.below(ops.length)]!;
    const bio = new Bio(device, op);
    const bytes = 512 * 8;
    if (op === REQ_OP_DISCARD || op === REQ_OP_WRITE_ZEROES) bio.size = bytes;
    else bio.addData(new Uint8Array(bytes), 0, bytes);
    bio.sector = 8 * random.below(32);
    bio.endIo = () => {
      ends[i]!++;
      if (i === 20) device.reset();
      go();
    };
    submitBio(bio);
  };
  for (let i = 0; i < 10; i++) go();
  settle(clock);
  assert(clock.now() < 1000 * SEC);
  assertEquals([...ends], new Array(ends.length).fill(1));
  assertEquals(device.stats.inFlight, 0);
  const cut = device.dead;
  device.powerOn();
  const after = submit(makeBio(device, REQ_OP_WRITE, 0, 8));
  settle(clock);
  assertEquals(after.times, 1);
  const events = device.events - first;
  device.close();
  return { events, cut };
}

Deno.test("NvmeDevice ends every bio once, at whatever event of retries, aborts and resets the power goes", () => {
  const { events, cut } = troubled(0);
  assertEquals(cut, false);
  assert(events > 100);
  let cuts = 0;
  for (let at = 1; at < events; at++) if (troubled(at).cut) cuts++;
  assert(cuts > 100);
});

Deno.test("NvmeController goes on after an interrupt handler that throws, whoever's turn it was", () => {
  const host = new RawHost();
  const queues = [host.createQueue(1, 8), host.createQueue(2, 8)];
  const [first, second] = queues as [typeof queues[0], typeof queues[0]];
  const read = { opcode: NVME_CMD_READ, memory: new Uint8Array(512) };
  host.controller.setInterrupt(1, () => host.ring(second));
  host.controller.setInterrupt(2, () => {
    throw new RangeError("not mine");
  });
  first.add(read);
  second.add(read);
  assertThrows(() => host.ring(first), RangeError);
  host.controller.setInterrupt(2, () => {});
  assertEquals([first.take().length, second.take().length], [1, 1]);
  for (const queue of queues) assertEquals(host.status(queue, read), 0);
});
