import { assertEquals, assertThrows } from "@std/assert";
import {
  type Bio,
  BLK_STS_IOERR,
  BLK_STS_OK,
  BLK_STS_ZONE_ACTIVE_RESOURCE,
  BLK_ZONE_COND_CLOSED,
  BLK_ZONE_COND_EMPTY,
  BLK_ZONE_COND_FULL,
  BLK_ZONE_COND_IMP_OPEN,
  blkdevIssueFlush,
  blkdevReportZones,
  blkdevZoneMgmt,
  type BlkZone,
  Partition,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_ZONE_APPEND,
  REQ_OP_ZONE_FINISH,
  REQ_OP_ZONE_RESET,
} from "../../../block/mod.ts";
import {
  createNvme,
  type NvmeDevice,
  type NvmeOptions,
  type NvmeResult,
  type NvmeZonedOptions,
} from "../../../block/nvme/mod.ts";
import {
  NVME_ADMIN_IDENTIFY,
  NVME_CMD_READ,
  NVME_CMD_ZONE_APPEND,
  NVME_CSI_ZNS,
  NVME_ID_CNS_CS_NS,
} from "../../../block/nvme/nvme.ts";
import { type Clock, VirtualClock } from "../../../lib/clock.ts";
import { FsError } from "../../../lib/errno.ts";
import type { MaybePromise } from "../../../lib/maybe-promise.ts";
import { Prng } from "../../../lib/prng.ts";
import { makeBio, settle, submit } from "../fake_device.ts";

/** Sectors of a zone, and of what can be written of it. */
const ZONE = 64;
const CAPACITY = 48;

function create(
  zoned: NvmeZonedOptions = {},
  options: NvmeOptions = {},
): NvmeDevice {
  return createNvme(new VirtualClock(), {
    size: 8 * ZONE * 512,
    zoned: {
      zoneSize: ZONE * 512,
      zoneCapacity: CAPACITY * 512,
      maxOpen: 2,
      maxActive: 3,
      ...zoned,
    },
    ...options,
  });
}

/** Runs the clock in place until a call is done. */
function wait<T>(clock: Clock, call: () => MaybePromise<T>): T {
  clock.enterSync();
  try {
    return call() as T;
  } finally {
    clock.leaveSync();
  }
}

/** Submits a bio, runs the clock until all is done, and says how it ended. */
function run(device: NvmeDevice, bio: Bio): number {
  const ended = submit(bio);
  settle(device.clock);
  assertEquals(ended.times, 1);
  return ended.status;
}

function write(device: NvmeDevice, sector: number, sectors: number): number {
  const bio = makeBio(device, REQ_OP_WRITE, sector, sectors);
  bio.vecs[0]!.data.forEach((_, i, data) => data[i] = 1 + (sector + i) % 255);
  return run(device, bio);
}

function read(device: NvmeDevice, sector: number, sectors: number): Uint8Array {
  const bio = makeBio(device, REQ_OP_READ, sector, sectors);
  const { data } = bio.vecs[0]!;
  data.fill(0xaa);
  assertEquals(run(device, bio), BLK_STS_OK);
  return data;
}

function isZero(data: Uint8Array): boolean {
  return data.every((byte) => byte === 0);
}

function report(device: NvmeDevice, sector = 0, nr = Infinity): BlkZone[] {
  const zones: BlkZone[] = [];
  const n = wait(
    device.clock,
    () =>
      blkdevReportZones(device, sector, nr, (zone) => {
        zones.push({ ...zone });
        return 0;
      }),
  );
  assertEquals(n, zones.length);
  return zones;
}

function passRead(device: NvmeDevice, slba: number): NvmeResult {
  return wait(device.clock, () =>
    device.passthru({
      opcode: NVME_CMD_READ,
      cdw10: slba,
      cdw12: 1,
      data: new Uint8Array(1024),
    }));
}

Deno.test("corner case 111: unwritten blocks read as zeroes, and a read across zones is split", () => {
  const device = create();
  write(device, 0, 8);
  assertEquals(isZero(read(device, 0, 8)), false);
  assertEquals(isZero(read(device, 8, ZONE - 8)), true);

  assertEquals(isZero(read(device, ZONE - 1, 2)), true);
  assertEquals(device.stats.read.ios, 4);

  assertEquals(passRead(device, ZONE - 1).status & 0x7ff, 0x1b8);
  const crossing = create({ crossRead: true });
  assertEquals(passRead(crossing, ZONE - 1).status, 0);
});

Deno.test("corner case 118: an append tells its sector in the bio, its block in the completion", () => {
  const device = createNvme(new VirtualClock(), {
    size: 2 ** 20,
    logicalBlockSize: 4096,
    zoned: { zoneSize: 2 ** 18 },
  });
  const start = 2 ** 18 / 512;
  const first = makeBio(device, REQ_OP_ZONE_APPEND, start, 8);
  const second = makeBio(device, REQ_OP_ZONE_APPEND, start, 16);
  assertEquals([run(device, first), run(device, second)], [0, 0]);
  assertEquals([first.sector, second.sector], [start, start + 8]);

  const { status, result } = wait(device.clock, () =>
    device.passthru({
      opcode: NVME_CMD_ZONE_APPEND,
      cdw10: start / 8,
      cdw12: 0,
      data: new Uint8Array(4096),
    }));
  assertEquals([status, result], [0, start / 8 + 3]);

  assertThrows(() => new Partition(device, 1, start), FsError, "zones");
});

/** Writes to zones at random, flushes now and then, and cuts the power in between. */
function cutAtRandom(seed: number): void {
  const device = create({ maxOpen: 3, maxActive: 4 }, {
    preset: "tlc-dc",
    writeCache: true,
    seed,
  });
  const random = new Prng(seed, "zone cuts");
  /** Sectors of each zone that have been sent, and that were flushed. */
  const sent = [0, 0, 0, 0];
  const flushed = [0, 0, 0, 0];
  for (let round = 0; round < 12; round++) {
    for (let n = random.below(4); n > 0; n--) {
      const zone = random.below(4);
      const sectors = Math.min(1 + random.below(8), CAPACITY - sent[zone]!);
      if (sectors === 0) continue;
      const at = zone * ZONE + sent[zone]!;
      const bio = makeBio(device, REQ_OP_WRITE, at, sectors);
      const { data } = bio.vecs[0]!;
      for (let i = 0; i < sectors; i++) {
        data.fill(1 + at + i, i * 512, (i + 1) * 512);
      }
      submit(bio);
      sent[zone]! += sectors;
    }
    if (random.below(3) > 0) settle(device.clock);
    if (random.below(4) > 0) continue;
    settle(device.clock);
    assertEquals(wait(device.clock, () => blkdevIssueFlush(device)), 0);
    sent.forEach((sectors, zone) => flushed[zone] = sectors);
  }
  device.powerCut({ seed: seed + 1 });
  settle(device.clock);
  device.powerOn();

  report(device, 0, 4).forEach(({ start, wp, cond }, zone) => {
    const length = cond === BLK_ZONE_COND_FULL ? CAPACITY : wp - start;
    assertEquals(length >= flushed[zone]!, true, `seed ${seed} zone ${zone}`);
    assertEquals(length <= sent[zone]!, true);
    const expected = length === 0
      ? BLK_ZONE_COND_EMPTY
      : length === CAPACITY
      ? BLK_ZONE_COND_FULL
      : BLK_ZONE_COND_CLOSED;
    assertEquals(cond, expected);
    const data = read(device, start, ZONE);
    for (let i = 0; i < ZONE; i++) {
      const value = i < length ? (1 + start + i) % 256 : 0;
      assertEquals(data[i * 512], value, `seed ${seed}, ${start}+${i}`);
    }
    if (length < CAPACITY) {
      assertEquals(write(device, start + length, 1), BLK_STS_OK);
    }
  });
  device.close();
}

Deno.test("corner case 129: a power cut leaves a prefix of each zone, of flushed data all, and open zones closed", () => {
  for (let seed = 1; seed <= 40; seed++) cutAtRandom(seed);
});

Deno.test("corner case 130: limits that the device does not have are none, others one more than it says", () => {
  const limits = (maxOpen: number, maxActive: number) => {
    const size = 100 * ZONE * 512;
    const device = create({ maxOpen, maxActive }, { size });
    const data = new Uint8Array(4096);
    const identify = { opcode: NVME_ADMIN_IDENTIFY, admin: true, data };
    const zns = { cdw10: NVME_ID_CNS_CS_NS, cdw11: NVME_CSI_ZNS * 2 ** 24 };
    wait(device.clock, () => device.passthru({ ...identify, ...zns }));
    const view = new DataView(data.buffer);
    const { maxOpenZones, maxActiveZones } = device.limits;
    return [
      [view.getUint32(8, true), maxOpenZones],
      [view.getUint32(4, true), maxActiveZones],
    ];
  };
  assertEquals(limits(0, 0), [[0xffff_ffff, 0], [0xffff_ffff, 0]]);
  assertEquals(limits(14, 20), [[13, 14], [19, 20]]);
});

Deno.test("a zoned device's limits are those of its zones", () => {
  const { limits } = create({ maxAppend: 8192 });
  assertEquals(limits.chunkSectors, ZONE);
  assertEquals(limits.maxZoneAppendSectors, 16);
  assertEquals([limits.maxOpenZones, limits.maxActiveZones], [2, 3]);
  assertEquals(create({ append: false }).limits.maxHwZoneAppendSectors, 0);
});

Deno.test("blkdevReportZones() of an NVMe device tells its zones as they are", () => {
  const device = create({ conventional: 1 }, { preset: "tlc-dc" });
  assertEquals(write(device, ZONE, 8), BLK_STS_OK);
  assertEquals(write(device, 2 * ZONE, CAPACITY), BLK_STS_OK);
  const zones = report(device);
  assertEquals(
    zones.slice(0, 4).map(({ start, wp, capacity, cond }) => [
      start,
      wp - start,
      capacity,
      cond,
    ]),
    [
      [0, 2 ** 64, ZONE, 0],
      [ZONE, 8, CAPACITY, BLK_ZONE_COND_IMP_OPEN],
      [2 * ZONE, ZONE, CAPACITY, BLK_ZONE_COND_FULL],
      [3 * ZONE, 0, CAPACITY, BLK_ZONE_COND_EMPTY],
    ],
  );
  assertEquals(report(device, 5 * ZONE + 1, 2).map(({ start }) => start), [
    5 * ZONE,
    6 * ZONE,
  ]);
});

Deno.test("zone limits of an NVMe device end bios with their own status", () => {
  const device = create();
  for (const zone of [0, 1, 2]) {
    assertEquals(write(device, zone * ZONE, 8), BLK_STS_OK);
  }
  assertEquals(write(device, 3 * ZONE, 8), BLK_STS_ZONE_ACTIVE_RESOURCE);
  const conds = report(device).map(({ cond }) => cond);
  assertEquals(conds.slice(0, 4), [
    BLK_ZONE_COND_CLOSED,
    BLK_ZONE_COND_IMP_OPEN,
    BLK_ZONE_COND_IMP_OPEN,
    BLK_ZONE_COND_EMPTY,
  ]);
});

for (const append of [true, false]) {
  const how = append ? "the device's own" : "made of writes";
  Deno.test(`appends ${how} through the whole stack tile a zone`, () => {
    const device = create({ append }, { preset: "tlc-dc" });
    const bios = Array.from({ length: 12 }, (_, i) => {
      const bio = makeBio(device, REQ_OP_ZONE_APPEND, ZONE, 4);
      bio.vecs[0]!.data.fill(i + 1);
      return bio;
    });
    const ended = bios.map(submit);
    settle(device.clock);
    assertEquals(ended.every(({ status }) => status === BLK_STS_OK), true);
    const places = bios.map(({ sector }) => sector).sort((a, b) => a - b);
    assertEquals(places, bios.map((_, i) => ZONE + 4 * i));
    bios.forEach(({ sector }, i) => {
      assertEquals(read(device, sector, 1)[0], i + 1);
    });
    const full = makeBio(device, REQ_OP_ZONE_APPEND, ZONE, 4);
    assertEquals(run(device, full), BLK_STS_IOERR);
  });
}

Deno.test("a reset deallocates a zone, a finish leaves what was written", () => {
  const device = create();
  const manage = (op: number, zone: number) =>
    wait(device.clock, () => blkdevZoneMgmt(device, op, zone * ZONE, ZONE));
  write(device, 0, 8);
  write(device, ZONE, 8);
  assertEquals(manage(REQ_OP_ZONE_FINISH, 0), 0);
  assertEquals(isZero(read(device, 0, 8)), false);
  assertEquals(isZero(read(device, 8, 40)), true);
  assertEquals(manage(REQ_OP_ZONE_RESET, 1), 0);
  assertEquals(isZero(read(device, ZONE, 8)), true);
  const resetAll = () => blkdevZoneMgmt(device, REQ_OP_ZONE_RESET, 0, 8 * ZONE);
  assertEquals(wait(device.clock, resetAll), 0);
  assertEquals(isZero(read(device, 0, 8)), true);
  assertEquals(write(device, 0, 8), BLK_STS_OK);
});
