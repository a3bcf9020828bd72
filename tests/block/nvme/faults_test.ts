import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  type Fault,
  FAULT_HANG,
  type FaultPlan,
} from "../../../block/nvme/faults.ts";
import {
  NVME_CMD_FLUSH,
  NVME_CMD_READ,
  NVME_CMD_WRITE,
  NVME_CMD_ZONE_MGMT_SEND,
  NVME_SC_CMD_INTERRUPTED,
  NVME_SC_HOST_PATH_ERROR,
  NVME_SC_READ_ERROR,
  NVME_SC_WRITE_FAULT,
} from "../../../block/nvme/nvme.ts";
import { FsError } from "../../../lib/errno.ts";
import { Disk, type TestCommand } from "./store_disk.ts";

/** What a fault plan says of commands, one after the other. */
function strikes(
  faults: FaultPlan,
  opcode: number,
  times: number,
  sector = 0,
): number[] {
  const command = {
    opcode,
    at: sector * 512,
    len: opcode === NVME_CMD_FLUSH ? 0 : 512,
  } as TestCommand;
  return Array.from({ length: times }, () => faults.strike(command));
}

/** Tags of a device as it is after the cache has been written and power was cut. */
function flushed(disk: Disk): number[] {
  assertEquals(disk.flush(), 0);
  disk.cut({ keep: "none" });
  return disk.tags();
}

Deno.test("corner case 139: latent errors and bit rot outlive the power, and a write heals them", () => {
  for (const volatile of [false, true]) {
    const disk = new Disk({ volatile });
    disk.write(0, 8, 0x01010101);
    disk.flush();
    assertEquals(disk.faults.add({ kind: "latent", sector: 1, sectors: 2 }), 0);
    disk.faults.add({ kind: "bit-rot", sector: 4, sectors: 2 });
    const wrong = () => {
      const data = new Uint8Array(1024);
      assertEquals(disk.read(4, data), 0);
      return [...data.keys()].filter((i) => data[i] !== 1);
    };
    const seen = wrong();
    assertEquals(seen.length, 2);
    assert(seen[0]! < 512 && seen[1]! >= 512);
    const unreadable = () =>
      [0, 1, 2, 3].filter((b) => disk.read(b, new Uint8Array(512)) !== 0);
    assertEquals([unreadable(), wrong()], [[1, 2], seen]);
    disk.cut();
    assertEquals([unreadable(), wrong()], [[1, 2], seen]);
    disk.write(1, 1, 7);
    disk.write(4, 1, 0x01010101);
    assertEquals([unreadable(), wrong()], [[2], [seen[1]]]);
    // A write that the power takes away has healed nothing.
    disk.cut({ keep: "none" });
    assertEquals(unreadable(), volatile ? [1, 2] : [2]);
    disk.write(1, 2, 7, true);
    assertEquals(unreadable(), []);
  }
});

Deno.test("corner case 140: a misdirected write leaves the intended block old and the mistaken one new", () => {
  for (const volatile of [false, true]) {
    const disk = new Disk({ volatile });
    disk.write(0, 8, 1);
    disk.flush();
    disk.faults.add({ kind: "misdirected-write", to: 6 });
    assertEquals(disk.write(2, 2, 2), 0);
    assertEquals(flushed(disk).slice(0, 9), [1, 1, 1, 1, 1, 1, 2, 2, 0]);
    assertEquals(disk.faults.list, []);
    // Where nobody says where to, it is another place that is aligned to the size.
    disk.faults.add({ kind: "misdirected-write" });
    disk.write(4, 4, 9);
    const tags = flushed(disk);
    const at = tags.indexOf(9);
    assert(at >= 0 && at !== 4 && at % 4 === 0, `${at}`);
    assertEquals(tags.filter((t) => t === 9).length, 4);
  }
});

Deno.test("FaultPlan: a lost write ends well, and the old data stay", () => {
  for (const volatile of [false, true]) {
    const disk = new Disk({ volatile });
    disk.write(0, 4, 1);
    disk.flush();
    disk.faults.add({ kind: "lost-write", after: 1, sector: 1, sectors: 1 });
    disk.write(0, 1, 2);
    disk.write(1, 1, 3);
    disk.write(0, 2, 4);
    disk.write(2, 1, 5);
    disk.write(3, 1, 6, true);
    assertEquals(flushed(disk).slice(0, 4), [2, 3, 5, 6]);
  }
});

Deno.test("FaultPlan: a write error leaves the data unchanged, or torn", () => {
  const disk = new Disk();
  disk.write(0, 4, 1);
  disk.faults.add({ kind: "write-error", torn: 2 });
  assertEquals(disk.write(0, 4, 2), NVME_SC_WRITE_FAULT);
  assertEquals(disk.tags(0, 4), [2, 2, 1, 1]);
  assertEquals(flushed(disk).slice(0, 4), [2, 2, 1, 1]);
  disk.faults.add({ kind: "write-error" });
  assertEquals(strikes(disk.faults, NVME_CMD_WRITE, 2), [
    NVME_SC_WRITE_FAULT,
    0,
  ]);
});

Deno.test("FaultPlan: reads give data of another place, or of another time", () => {
  const disk = new Disk();
  for (let i = 0; i < 8; i++) disk.write(i, 1, i + 1);
  disk.faults.add({ kind: "misdirected-read", from: 5 });
  assertEquals(disk.tags(0, 3), [6, 2, 3]);
  disk.faults.add({ kind: "stale-read", sector: 2, sectors: 2, count: 3 });
  disk.write(1, 4, 9);
  // Only commands that touch the range count.
  assertEquals(disk.tags(1, 4), [9, 3, 4, 9]);
  const both = new Uint8Array(1024);
  disk.read(1, both);
  const words = new Uint32Array(both.buffer);
  assertEquals([words[0], words[128]], [9, 3]);
  assertEquals(disk.tags(1, 4), [9, 9, 9, 9]);
});

Deno.test("FaultPlan: a shorn write leaves the first sectors of what persists", () => {
  const disk = new Disk({ blockSize: 4096, seed: 3 });
  disk.write(0, 8, 1);
  disk.flush();
  disk.faults.add({ kind: "shorn-write" });
  disk.write(0, 8, 2);
  disk.cut({ keep: "all", seed: 5 });
  const data = new Uint8Array(4096);
  const shorn = Array.from({ length: 8 }, (_, b) => {
    assertEquals(disk.read(b, data), 0);
    const words = new Uint32Array(data.buffer);
    const sectors = words.findLastIndex((w) => w === 2) + 1;
    assertEquals(words.lastIndexOf(2) < words.indexOf(1), true);
    assertEquals(sectors % 128, 0);
    return sectors / 128;
  });
  assert(shorn.every((n) => n >= 1 && n <= 7), `${shorn}`);
  assert(new Set(shorn).size > 2);
});

Deno.test("FaultPlan.strike() lets some pass, counts, and forgets what has struck", () => {
  const { faults } = new Disk();
  faults.add({ kind: "hang", op: "write", after: 2 });
  faults.add({ kind: "transient", op: "read", count: 3 });
  faults.add({ kind: "transient", op: "flush", status: "interrupted" });
  assertEquals(faults.strikes, true);
  assertEquals(strikes(faults, NVME_CMD_WRITE, 5), [0, 0, FAULT_HANG, 0, 0]);
  const path = NVME_SC_HOST_PATH_ERROR;
  assertEquals(strikes(faults, NVME_CMD_READ, 4), [path, path, path, 0]);
  assertEquals(strikes(faults, NVME_CMD_FLUSH, 2), [
    NVME_SC_CMD_INTERRUPTED,
    0,
  ]);
  assertEquals([faults.list, faults.strikes], [[], false]);
  // A command without sectors is not in any range.
  faults.add({ kind: "hang", sector: 0, sectors: 8 });
  assertEquals(strikes(faults, NVME_CMD_FLUSH, 1), [0]);
  assertEquals(strikes(faults, NVME_CMD_READ, 1, 8), [0]);
  assertEquals(strikes(faults, NVME_CMD_ZONE_MGMT_SEND, 1, 7), [FAULT_HANG]);
});

Deno.test("FaultPlan: write errors from a sector on have no end until they are removed", () => {
  const { faults } = new Disk();
  const id = faults.add({ kind: "write-error-from", sector: 8 });
  const at = (sector: number) => strikes(faults, NVME_CMD_WRITE, 2, sector);
  const error = NVME_SC_WRITE_FAULT;
  assertEquals([at(7), at(8), at(60)], [[0, 0], [error, error], [
    error,
    error,
  ]]);
  assertEquals(strikes(faults, NVME_CMD_READ, 1, 8), [0]);
  assertEquals([faults.remove(id), faults.remove(id)], [true, false]);
  assertEquals(at(8), [0, 0]);
});

Deno.test("FaultPlan: chance strikes about so often, the same commands for one seed", () => {
  const run = (seed: number) => {
    const { faults } = new Disk({ seed });
    faults.add({ kind: "read-error", chance: 10 });
    return strikes(faults, NVME_CMD_READ, 2000).map((s) =>
      s === NVME_SC_READ_ERROR
    );
  };
  const first = run(1);
  const count = first.filter((hit) => hit).length;
  assert(count > 150 && count < 250, `${count}`);
  assertEquals(run(1), first);
  assert(run(2).some((hit, i) => hit !== first[i]));
});

Deno.test("FaultPlan: a rate damages that share of the sectors", () => {
  const disk = new Disk({ blocks: 4096 });
  disk.faults.add({ kind: "latent", sector: 1000, sectors: 2000, rate: 0.05 });
  const data = new Uint8Array(512);
  const hurt = Array.from({ length: 4096 }, (_, b) => disk.read(b, data) !== 0)
    .flatMap((is, b) => is ? [b] : []);
  assert(hurt.length > 80 && hurt.length <= 100, `${hurt.length}`);
  assert(hurt.every((b) => b >= 1000 && b < 3000));
});

Deno.test("FaultPlan: a bad zone is read-only or offline for good", () => {
  const disk = new Disk({ zones: {} });
  disk.write(0, 2, 1);
  disk.flush();
  disk.faults.add({ kind: "bad-zone", zone: 0, state: "read-only" });
  disk.faults.add({ kind: "bad-zone", zone: 1, state: "offline" });
  disk.cut();
  disk.faults.clear();
  assertEquals([0, 1, 2].map((z) => disk.zones!.cond(z)), [0xd, 0xf, 1]);
  assertEquals(disk.tags(0, 3), [1, 1, 0]);
  const add = () =>
    disk.faults.add({ kind: "bad-zone", zone: 4, state: "offline" });
  assertThrows(add, FsError, "zone 4 is no sequential zone");
});

Deno.test("FaultPlan.clear() heals, and a fork takes the damage with it", () => {
  const disk = new Disk();
  disk.faults.add({ kind: "latent", sector: 3 });
  disk.faults.add({ kind: "hang" });
  const fork = disk.store.fork([], 0, {}, null)!;
  assertEquals(fork.faults.isUnreadable(3 * 512, 4 * 512), true);
  assertEquals(fork.faults.list, []);
  disk.faults.clear();
  assertEquals(disk.tags(3, 1), [0]);
  assertEquals(disk.faults.list, []);
  assertEquals(fork.faults.isUnreadable(3 * 512, 4 * 512), true);
});

const bad: [unknown, string][] = [
  [null, "null is not an object"],
  [{}, "kind undefined is none of latent"],
  [{ kind: "toString" }, 'kind "toString" is none of'],
  [{ kind: "latent" }, "latent needs sector"],
  [{ kind: "latent", sector: -1 }, "sector -1"],
  [{ kind: "latent", sector: 1.5 }, "sector 1.5"],
  [{ kind: "latent", sector: 64 }, "sectors 64+1 are not among the 64"],
  [{ kind: "latent", sector: 60, sectors: 5 }, "sectors 60+5"],
  [{ kind: "latent", sector: 0, rate: 1.5 }, "rate 1.5"],
  [{ kind: "latent", sector: 0, chance: 2 }, 'latent has no "chance"'],
  [{ kind: "hang", op: "reads" }, 'op "reads"'],
  [{ kind: "hang", after: -1 }, "after -1"],
  [{ kind: "hang", count: 0 }, "count 0"],
  [{ kind: "hang", chance: 0 }, "chance 0"],
  [{ kind: "transient", status: "broken" }, 'status "broken"'],
  [{ kind: "write-error-from" }, "write-error-from needs sector"],
  [{ kind: "write-error", torn: -1 }, "torn -1"],
  [{ kind: "stale-read" }, "stale-read needs sectors"],
  [{ kind: "stale-read", sectors: 100 }, "sectors 0+100"],
  [{ kind: "misdirected-write", to: "here" }, 'to "here"'],
  [{ kind: "bad-zone", zone: 0, state: "dead" }, 'state "dead"'],
  [{ kind: "bad-zone", state: "offline" }, "bad-zone needs zone"],
  [{ kind: "bad-zone", zone: 0, state: "offline" }, "zone 0 is no sequential"],
  [{ kind: "liar", always: true }, 'liar has no "always"'],
];
for (const [fault, says] of bad) {
  Deno.test(`FaultPlan.add() refuses what cannot be: ${says}`, () => {
    const { faults } = new Disk();
    const error = assertThrows(
      () => faults.add(fault as Fault),
      FsError,
      says,
    );
    assertEquals(error.code, "EINVAL");
    assertEquals([faults.list, faults.damage.size], [[], 0]);
  });
}
