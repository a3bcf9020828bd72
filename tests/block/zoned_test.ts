import { assertEquals } from "@std/assert";
import {
  type Bio,
  BLK_FEAT_NOWAIT,
  BLK_FEAT_ROTATIONAL,
  BLK_FEAT_ZONED,
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_OK,
  BLK_STS_ZONE_ACTIVE_RESOURCE,
  BLK_ZONE_COND_ACTIVE,
  BLK_ZONE_COND_CLOSED,
  BLK_ZONE_COND_EMPTY,
  BLK_ZONE_COND_FULL,
  BLK_ZONE_COND_IMP_OPEN,
  BLK_ZONE_COND_NOT_WP,
  BLK_ZONE_COND_OFFLINE,
  BLK_ZONE_COND_READONLY,
  BLK_ZONE_NO_WP,
  BLK_ZONE_TYPE_CONVENTIONAL,
  BLK_ZONE_TYPE_SEQWRITE_PREF,
  blkdevGetZoneInfo,
  blkdevOpen,
  blkdevReportZones,
  blkdevReportZonesCached,
  blkdevZoneMgmt,
  blkFinishPlug,
  blkMqUpdateNrRequests,
  blkReleaseDiskZones,
  blkRevalidateDiskZones,
  blkStartPlug,
  type BlkZone,
  REQ_FUA,
  REQ_NOMERGE,
  REQ_NOWAIT,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_OP_ZONE_APPEND,
  REQ_OP_ZONE_CLOSE,
  REQ_OP_ZONE_FINISH,
  REQ_OP_ZONE_OPEN,
  REQ_OP_ZONE_RESET,
  REQ_OP_ZONE_RESET_ALL,
  REQ_POLLED,
  REQ_PREFLUSH,
  reqOp,
  submitBio,
} from "../../block/mod.ts";
import {
  EBADF,
  EINVAL,
  EIO,
  ENODEV,
  EOPNOTSUPP,
  EOVERFLOW,
  EPERM,
} from "../../lib/errno.ts";
import { Prng } from "../../lib/prng.ts";
import { FakeDevice, makeBio, settle, submit } from "./fake_device.ts";
import {
  CAPACITY,
  ZONE,
  ZonedDevice,
  type ZonedDeviceOptions,
} from "./zoned_device.ts";

const EMULATED = { limits: { maxHwZoneAppendSectors: 0 } };
const FREE = { maxOpen: 0, maxActive: 0 };

/** Submits a bio, runs the clock until all is done, and says how it ended. */
function run(device: ZonedDevice, bio: Bio): number {
  const ended = submit(bio);
  settle(device.clock);
  assertEquals(ended.times, 1);
  return ended.status;
}

function write(device: ZonedDevice, sector: number, sectors: number): number {
  return run(device, makeBio(device, REQ_OP_WRITE, sector, sectors));
}

function report(
  device: ZonedDevice,
  sector = 0,
  nr = Infinity,
): BlkZone[] {
  const zones: BlkZone[] = [];
  const n = blkdevReportZones(device, sector, nr, (zone) => {
    zones.push({ ...zone });
    return 0;
  });
  assertEquals(n, zones.length);
  return zones;
}

/** Runs the clock until a call that may wait is done. */
function wait(device: ZonedDevice, call: () => number | Promise<number>) {
  device.clock.enterSync();
  try {
    return call() as number;
  } finally {
    device.clock.leaveSync();
  }
}

Deno.test("corner case 110: a write elsewhere than at the write pointer fails before it reaches the device", () => {
  const device = ZonedDevice.registered();
  assertEquals(write(device, 0, 8), BLK_STS_OK);
  device.log.length = 0;

  assertEquals(write(device, 9, 1), BLK_STS_IOERR);

  assertEquals(device.log, []);
  // The block layer does not know any more where the pointer is, until it asks.
  assertEquals(write(device, 8, 8), BLK_STS_IOERR);
  report(device, 0, 1);
  assertEquals(write(device, 8, 8), BLK_STS_OK);
});

Deno.test("corner case 116: an append must be to a zone's start", () => {
  const device = ZonedDevice.registered();
  const bio = makeBio(device, REQ_OP_ZONE_APPEND, ZONE + 1, 4);
  assertEquals(run(device, bio), BLK_STS_IOERR);
  assertEquals(device.log, []);
  const c = {
    at: (ZONE + 1) * 512,
    len: 512,
    zone: 0,
    opened: false,
    epoch: 0,
  };
  assertEquals(device.namespace.submitAppend(c), 0x02);
});

/** Thirteen appends and what is said of them by corner case 117. */
function appendAll(device: ZonedDevice): void {
  const append = (sectors: number) => {
    const bio = makeBio(device, REQ_OP_ZONE_APPEND, ZONE, sectors);
    bio.vecs[0]!.data.fill(sectors);
    return { bio, ended: submit(bio) };
  };
  const ten = Array.from({ length: 10 }, () => append(4));
  settle(device.clock);
  const places = ten.map(({ bio }) => bio.sector - ZONE).sort((a, b) => a - b);
  assertEquals(places, Array.from({ length: 10 }, (_, i) => 4 * i));
  assertEquals(ten.every(({ ended }) => ended.status === BLK_STS_OK), true);
  // Restored where the block layer made writes of them.
  assertEquals(reqOp(ten[0]!.bio.opf), REQ_OP_ZONE_APPEND);

  const tooLarge = append(9);
  settle(device.clock);
  assertEquals(tooLarge.ended.status, BLK_STS_IOERR);
  report(device);
  assertEquals(device.namespace.written(1), 40 * 512);

  const last = [append(4), append(4)];
  settle(device.clock);
  assertEquals(last.map(({ ended }) => ended.status), [BLK_STS_OK, BLK_STS_OK]);
  assertEquals(device.namespace.cond(1), BLK_ZONE_COND_FULL);
  const full = append(4);
  settle(device.clock);
  assertEquals(full.ended.status, BLK_STS_IOERR);
}

Deno.test("corner case 117: concurrent appends tile the zone, and those without room fail", () => {
  const device = ZonedDevice.registered();
  appendAll(device);
  assertEquals(device.writingZone.get(1)!.most, 10);
});

Deno.test("corner case 119: appends made of writes are told the same, one under way at a time", () => {
  const device = ZonedDevice.registered(EMULATED);
  appendAll(device);
  assertEquals(device.writingZone.get(1)!.most, 1);
  assertEquals(device.log.some((line) => line.startsWith("APPEND")), false);
});

Deno.test("corner case 120: sequential writes submitted at once go one by one in each zone", () => {
  const device = ZonedDevice.registered({ zones: FREE });
  // One that is to be flushed first cannot join another.
  const opf = (i: number) =>
    i % 2 === 0 ? REQ_OP_WRITE : REQ_OP_WRITE | REQ_NOMERGE;
  const bios = Array.from(
    { length: 32 },
    (_, i) => makeBio(device, opf(i), i, 1),
  );
  const x = bios.map(submit);
  const y = bios.map((_, i) => submit(makeBio(device, opf(i), ZONE + i, 1)));
  settle(device.clock);
  for (const ended of [...x, ...y]) {
    assertEquals([ended.status, ended.times], [BLK_STS_OK, 1]);
  }
  assertEquals(device.writingZone.get(0)!.most, 1);
  assertEquals(device.writingZone.get(1)!.most, 1);
  assertEquals(device.writing.most, 2);
  assertEquals(device.namespace.written(0), 32 * 512);
});

/** Three writes of which the middle one fails, and the ways back. */
function failMiddle(
  recover: (device: ZonedDevice) => void,
  next: (device: ZonedDevice) => number,
): void {
  const device = ZonedDevice.registered({
    status: (rq) =>
      reqOp(rq.opf) === REQ_OP_WRITE && rq.sector === 4
        ? BLK_STS_MEDIUM
        : BLK_STS_OK,
  });
  const ended = [0, 4, 8, 12].map((sector) =>
    submit(makeBio(device, REQ_OP_WRITE | REQ_NOMERGE, sector, 4))
  );
  settle(device.clock);
  assertEquals(ended.map(({ status }) => status), [
    BLK_STS_OK,
    BLK_STS_MEDIUM,
    BLK_STS_IOERR,
    BLK_STS_IOERR,
  ]);
  assertEquals(device.writing.most, 1);
  assertEquals(write(device, 8, 1), BLK_STS_IOERR);
  recover(device);
  assertEquals(next(device), BLK_STS_OK);
}

Deno.test("corner case 121: a write that fails fails those that wait, until report, reset or finish", () => {
  // The device kept the place of what failed: with other sizes it can be written.
  failMiddle((device) => report(device), (device) => {
    const bio = makeBio(device, REQ_OP_WRITE_ZEROES, 4, 8);
    bio.vecs.length = 0;
    return run(device, bio);
  });
  failMiddle(
    (device) => {
      const reset = makeBio(device, REQ_OP_ZONE_RESET, 0, 0);
      assertEquals(run(device, reset), BLK_STS_OK);
    },
    (device) => write(device, 0, 4),
  );
  failMiddle(
    (device) => {
      const finish = makeBio(device, REQ_OP_ZONE_FINISH, 0, 0);
      assertEquals(run(device, finish), BLK_STS_OK);
      assertEquals(write(device, 8, 1), BLK_STS_IOERR);
      const reset = makeBio(device, REQ_OP_ZONE_RESET, 0, 0);
      assertEquals(run(device, reset), BLK_STS_OK);
    },
    (device) => write(device, 0, 4),
  );
});

Deno.test("corner case 122: a zone write that must not wait is not told to try again", () => {
  const device = ZonedDevice.registered();
  const ended = [0, 1, 2].map((sector) =>
    submit(makeBio(device, REQ_OP_WRITE | REQ_NOWAIT | REQ_NOMERGE, sector, 1))
  );
  settle(device.clock);
  assertEquals(ended.map(({ status }) => status), [
    BLK_STS_OK,
    BLK_STS_OK,
    BLK_STS_OK,
  ]);
  assertEquals(device.writing.most, 1);

  // Nor when a read has the only tag.
  assertEquals(blkMqUpdateNrRequests(device.queue, 1), 0);
  submit(makeBio(device, REQ_OP_READ, 0, 1));
  const late = makeBio(device, REQ_OP_WRITE | REQ_NOWAIT, 3, 1);
  assertEquals(run(device, late), BLK_STS_OK);
});

Deno.test("corner case 125: zone management is refused for parts of zones, readers and read-only devices", () => {
  const device = ZonedDevice.registered();
  const op = REQ_OP_ZONE_OPEN;
  for (
    const [sector, sectors] of [
      [1, ZONE],
      [0, ZONE + 1],
      [0, 0],
      [0, -ZONE],
      [8 * ZONE, ZONE],
      [7 * ZONE, 2 * ZONE],
      [NaN, ZONE],
      [0, NaN],
    ] as const
  ) {
    assertEquals(blkdevZoneMgmt(device, op, sector, sectors), -EINVAL);
  }
  const file = blkdevOpen(device, { readOnly: true });
  if (typeof file === "number") throw new Error(`open ended with ${file}`);
  assertEquals(file.zoneMgmt(op, 0, ZONE), -EBADF);
  device.readOnly = true;
  assertEquals(blkdevZoneMgmt(device, op, 0, ZONE), -EPERM);
  assertEquals(device.log, []);
});

/** Registers a device whose zone 1 a report tells as it is changed here. */
function register(
  change: Partial<BlkZone> | null,
  options: ZonedDeviceOptions = {},
): number | Promise<number> {
  const device = new ZonedDevice({
    ...options,
    report: (zone) => {
      if (zone.start !== ZONE) return zone;
      return change === null ? null : { ...zone, ...change };
    },
  });
  const error = blkRevalidateDiskZones(device);
  assertEquals(device.zones === null, error !== 0);
  return error;
}

Deno.test("corner case 127: devices whose zones are not as they must be have none", () => {
  const size = 96 * 2 ** 20;
  const odd = new ZonedDevice({
    zones: { size: 4 * size, zoneSize: size, zoneCapacity: size },
  });
  assertEquals(blkRevalidateDiskZones(odd), -ENODEV);
  const conventional = {
    type: BLK_ZONE_TYPE_CONVENTIONAL,
    cond: BLK_ZONE_COND_NOT_WP,
    capacity: ZONE,
  };
  assertEquals(register({}), 0);
  assertEquals(register(conventional), 0);
  const bad: (Partial<BlkZone> | null)[] = [
    { capacity: ZONE + 1 },
    { ...conventional, capacity: ZONE - 1 },
    { cond: 0x7 },
    { cond: BLK_ZONE_COND_NOT_WP },
    { ...conventional, cond: BLK_ZONE_COND_EMPTY },
    { capacity: 0 },
    { capacity: CAPACITY - 1 },
    { type: BLK_ZONE_TYPE_SEQWRITE_PREF },
    { start: ZONE + 1 },
    { len: ZONE / 2, capacity: 8 },
    null,
  ];
  for (const change of bad) {
    assertEquals([change, register(change)], [change, -ENODEV]);
  }
  const allConventional = new ZonedDevice({
    report: (zone) => ({ ...zone, ...conventional }),
  });
  assertEquals(blkRevalidateDiskZones(allConventional), -ENODEV);
});

Deno.test("corner case 128: a limit that no writer can reach is none", () => {
  const limitsOf = (
    zones: ZonedDeviceOptions["zones"],
  ) => {
    const { maxOpenZones, maxActiveZones } =
      ZonedDevice.registered({ zones: zones! }).limits;
    return [maxOpenZones, maxActiveZones];
  };
  assertEquals(limitsOf({ maxOpen: 2, maxActive: 3 }), [2, 3]);
  assertEquals(limitsOf({ maxOpen: 8, maxActive: 8 }), [0, 0]);
  assertEquals(limitsOf({ maxOpen: 2, maxActive: 8 }), [2, 0]);
  assertEquals(
    limitsOf({ maxOpen: 6, maxActive: 6, conventional: 2 }),
    [0, 0],
  );
  // The number of plugs that the kernel keeps ready.
  const many = { size: 200 * ZONE * 512, ...FREE };
  assertEquals(limitsOf(many), [128, 0]);
});

Deno.test("corner case 49: a bio joins the back of a write that holds a zone's plug, not its front", () => {
  const device = ZonedDevice.registered();
  blkStartPlug();
  const ended = [
    submit(makeBio(device, REQ_OP_WRITE, 0, 4)),
    submit(makeBio(device, REQ_OP_WRITE, 4, 4)),
  ];
  assertEquals(device.zones!.plugs.get(0)!.wpOffset, 8);
  blkFinishPlug();
  settle(device.clock);
  assertEquals(device.log, ["WRITE 0+8 @0"]);
  assertEquals(ended.map(({ status }) => status), [BLK_STS_OK, BLK_STS_OK]);

  blkStartPlug();
  const back = submit(makeBio(device, REQ_OP_WRITE, 8, 4));
  const front = submit(makeBio(device, REQ_OP_WRITE, 4, 4));
  blkFinishPlug();
  settle(device.clock);
  assertEquals([back.status, front.status], [BLK_STS_OK, BLK_STS_IOERR]);
  assertEquals(device.log.slice(1), ["WRITE 8+4 @10"]);
});

Deno.test("corner case 115: a finished empty zone reads as zeroes, and a reset brings it back", () => {
  const device = ZonedDevice.registered();
  const finish = () => blkdevZoneMgmt(device, REQ_OP_ZONE_FINISH, ZONE, ZONE);
  assertEquals(wait(device, finish), 0);
  assertEquals(report(device, ZONE, 1)[0]!.cond, BLK_ZONE_COND_FULL);
  const read = makeBio(device, REQ_OP_READ, ZONE, ZONE);
  read.vecs[0]!.data.fill(0xaa);
  assertEquals(run(device, read), BLK_STS_OK);
  assertEquals(read.vecs[0]!.data.every((byte) => byte === 0), true);
  assertEquals(write(device, ZONE, 1), BLK_STS_IOERR);
  const reset = () => blkdevZoneMgmt(device, REQ_OP_ZONE_RESET, ZONE, ZONE);
  assertEquals(wait(device, reset), 0);
  assertEquals(write(device, ZONE, 1), BLK_STS_OK);
});

Deno.test("blkdevReportZones() begins with the zone of the sector and ends where it is told to", () => {
  const device = ZonedDevice.registered({ zones: { conventional: 1 } });
  const starts = (sector: number, nr: number) =>
    report(device, sector, nr).map((zone) => zone.start / ZONE);
  assertEquals(starts(3 * ZONE + 17, 2), [3, 4]);
  assertEquals(starts(6 * ZONE, Infinity), [6, 7]);
  assertEquals(starts(8 * ZONE, 1), []);
  assertEquals(starts(0, 0), []);
  const answer = (code: number) => blkdevReportZones(device, 0, 8, () => code);
  assertEquals(answer(-EIO), -EIO);
  assertEquals(blkdevReportZones(device, -1, 1, () => 0), -EINVAL);
  assertEquals(blkdevReportZones(device, 0, NaN, () => 0), -EINVAL);
  const plain = new FakeDevice();
  assertEquals(blkdevReportZones(plain, 0, 1, () => 0), -EOPNOTSUPP);
  assertEquals(
    blkdevZoneMgmt(plain, REQ_OP_ZONE_RESET, 0, ZONE),
    -EOPNOTSUPP,
  );
});

Deno.test("blkdevZoneMgmt() sends one command for each zone, and one for all to reset all", () => {
  const device = ZonedDevice.registered({ zones: FREE });
  const manage = (op: number, zone: number, zones: number) =>
    wait(device, () => blkdevZoneMgmt(device, op, zone * ZONE, zones * ZONE));
  assertEquals(manage(REQ_OP_ZONE_OPEN, 2, 3), 0);
  assertEquals(device.log.map((line) => line.split("+")[0]), [
    "OPEN 128",
    "OPEN 192",
    "OPEN 256",
  ]);
  assertEquals(manage(REQ_OP_ZONE_CLOSE, 2, 1), 0);
  // The zones behind the one that failed have been done.
  assertEquals(manage(REQ_OP_ZONE_CLOSE, 1, 3), -EIO);
  assertEquals(device.namespace.cond(3), BLK_ZONE_COND_CLOSED);
  device.log.length = 0;
  assertEquals(manage(REQ_OP_ZONE_RESET, 0, 8), 0);
  assertEquals(device.log.map((line) => line.split(" ")[0]), ["RESET_ALL"]);
  assertEquals(manage(REQ_OP_READ, 0, 1), -EOPNOTSUPP);
});

Deno.test("blkdevZoneMgmt() of more zones than it sends at once goes on after an error", () => {
  const zones = { size: 200 * ZONE * 512, maxOpen: 150, maxActive: 150 };
  const device = ZonedDevice.registered({ zones });
  const open = () => blkdevZoneMgmt(device, REQ_OP_ZONE_OPEN, 0, 200 * ZONE);
  assertEquals(wait(device, open), -EOVERFLOW);
  assertEquals(device.namespace.open, 150);
  assertEquals(device.log.length, 200);
});

Deno.test("writes and appends beyond the limits end with the zone's own status", () => {
  const device = ZonedDevice.registered();
  for (const zone of [0, 1, 2]) assertEquals(write(device, zone * ZONE, 1), 0);
  assertEquals(write(device, 3 * ZONE, 1), BLK_STS_ZONE_ACTIVE_RESOURCE);
});

Deno.test("waiting writes that follow one another become one request", () => {
  const device = ZonedDevice.registered();
  const ended = Array.from(
    { length: 32 },
    (_, i) => submit(makeBio(device, REQ_OP_WRITE, i, 1)),
  );
  settle(device.clock);
  assertEquals(ended.every(({ status }) => status === BLK_STS_OK), true);
  assertEquals(device.log, ["WRITE 0+1 @0", "WRITE 1+31 @10"]);
  assertEquals(device.queue.stats.write.merges, 30);
  const separate = ZonedDevice.registered();
  separate.queue.nomerges = 2;
  for (let i = 0; i < 4; i++) {
    submit(makeBio(separate, REQ_OP_WRITE, i, 1));
  }
  settle(separate.clock);
  assertEquals(separate.log.length, 4);
});

Deno.test("a write larger than a request passes the plug in parts, in order", () => {
  const device = ZonedDevice.registered({ limits: { maxHwSectors: 16 } });
  const bio = makeBio(device, REQ_OP_WRITE, 0, 40);
  bio.vecs[0]!.data.forEach((_, i, data) => data[i] = i % 251);
  assertEquals(run(device, bio), BLK_STS_OK);
  assertEquals(device.writing.most, 1);
  assertEquals(device.memory.subarray(0, 40 * 512), bio.vecs[0]!.data);
});

Deno.test("a write across zones is split where the next one begins", () => {
  const device = ZonedDevice.registered({
    zones: { zoneCapacity: ZONE * 512 },
  });
  const bio = makeBio(device, REQ_OP_WRITE, 0, 2 * ZONE);
  assertEquals(run(device, bio), BLK_STS_OK);
  assertEquals(device.log, ["WRITE 0+64 @0", "WRITE 64+64 @0"]);
});

Deno.test("flush flags pass the plug, and an empty flush is no zone's write", () => {
  const device = ZonedDevice.registered();
  const flush = submit(makeBio(device, REQ_OP_WRITE | REQ_PREFLUSH, 0, 0));
  const first = submit(makeBio(device, REQ_OP_WRITE | REQ_FUA, 0, 4));
  const second = submit(makeBio(device, REQ_OP_WRITE, 4, 4));
  settle(device.clock);
  assertEquals([flush, first, second].map(({ status }) => status), [0, 0, 0]);
  assertEquals(device.writing.most, 1);
  assertEquals(device.zones!.plugs.size, 1);
});

Deno.test("conventional zones have no plug", () => {
  const device = ZonedDevice.registered({ zones: { conventional: 2 } });
  const ended = [40, 0, 20].map((sector) =>
    submit(makeBio(device, REQ_OP_WRITE, sector, 1))
  );
  settle(device.clock);
  assertEquals(ended.map(({ status }) => status), [0, 0, 0]);
  assertEquals([device.writing.most, device.zones!.plugs.size], [3, 0]);
  const append = makeBio(device, REQ_OP_ZONE_APPEND, 0, 1);
  assertEquals(run(device, append), BLK_STS_IOERR);
  for (const op of [REQ_OP_ZONE_OPEN, REQ_OP_ZONE_RESET]) {
    assertEquals(run(device, makeBio(device, op, 0, 0)), BLK_STS_IOERR);
  }
});

Deno.test("a plug goes away when its zone is full or empty and nothing is under way", () => {
  const device = ZonedDevice.registered();
  write(device, 0, 8);
  assertEquals(device.zones!.plugs.size, 1);
  write(device, 8, 40);
  assertEquals(device.zones!.plugs.size, 0);
  write(device, ZONE, 8);
  run(device, makeBio(device, REQ_OP_ZONE_RESET, ZONE, 0));
  assertEquals(device.zones!.plugs.size, 0);
  write(device, ZONE, 8);
  run(device, makeBio(device, REQ_OP_ZONE_RESET_ALL, 0, 0));
  assertEquals(device.zones!.plugs.size, 0);
  assertEquals(write(device, 0, 8), BLK_STS_OK);
});

Deno.test("a reset fails the writes that wait", () => {
  const device = ZonedDevice.registered();
  const writes = [0, 4, 8].map((sector) =>
    submit(makeBio(device, REQ_OP_WRITE | REQ_NOMERGE, sector, 4))
  );
  const ended = submit(makeBio(device, REQ_OP_ZONE_RESET, 0, 0));
  settle(device.clock);
  assertEquals(ended.status, BLK_STS_OK);
  // The first was under way before; what it does not say is whether it landed.
  assertEquals(writes.map(({ times }) => times), [1, 1, 1]);
  assertEquals(writes[2]!.status, BLK_STS_IOERR);
  report(device);
  const wp = device.namespace.written(0) / 512;
  assertEquals(write(device, wp, 4), BLK_STS_OK);
});

Deno.test("an append of the device's own fails the writes that wait for the same zone", () => {
  const device = ZonedDevice.registered();
  const writes = [0, 4, 8].map((sector) =>
    submit(makeBio(device, REQ_OP_WRITE | REQ_NOMERGE, sector, 4))
  );
  const append = submit(makeBio(device, REQ_OP_ZONE_APPEND, 0, 4));
  settle(device.clock);
  assertEquals(writes.map(({ status }) => status), [
    BLK_STS_OK,
    BLK_STS_IOERR,
    BLK_STS_IOERR,
  ]);
  assertEquals(append.status, BLK_STS_OK);
  assertEquals(device.zones!.plugs.size, 0);
});

for (const rotational of [0, BLK_FEAT_ROTATIONAL]) {
  const kind = rotational === 0 ? "any zoned device" : "a rotational one";
  Deno.test(`writes that end at once do not grow the stack of ${kind}`, () => {
    const size = 2 ** 15 * 512;
    const device = ZonedDevice.registered({
      zones: { size: 2 * size, zoneSize: size, zoneCapacity: size },
      time: (rq) => rq.sector === 0 ? 1000 : 0,
      limits: {
        features: BLK_FEAT_NOWAIT | BLK_FEAT_ZONED | rotational,
        maxHwZoneAppendSectors: 0,
      },
    });
    const ended = Array.from(
      { length: 20_000 },
      () => submit(makeBio(device, REQ_OP_ZONE_APPEND, 0, 1)),
    );
    settle(device.clock);
    assertEquals(ended.every(({ status }) => status === BLK_STS_OK), true);
    assertEquals(device.writing.most, 1);
  });
}

Deno.test("a rotational device has one write under way on the whole disk", () => {
  const device = ZonedDevice.registered({
    zones: FREE,
    limits: {
      features: BLK_FEAT_NOWAIT | BLK_FEAT_ZONED | BLK_FEAT_ROTATIONAL,
    },
  });
  const ended = [0, 1, 2, 3].flatMap((i) =>
    [0, 1, 2].map((zone) =>
      submit(makeBio(device, REQ_OP_WRITE | REQ_NOMERGE, zone * ZONE + i, 1))
    )
  );
  settle(device.clock);
  assertEquals(ended.every(({ status }) => status === BLK_STS_OK), true);
  assertEquals(device.writing.most, 1);
  // All of one zone, then all of the next.
  const zones = device.log.map((line) =>
    Math.floor(parseInt(line.slice(6)) / ZONE)
  );
  assertEquals(zones, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
  assertEquals(write(device, 4, 1), BLK_STS_OK);
});

Deno.test("a rotational device goes on with other zones when one has failed", () => {
  const device = ZonedDevice.registered({
    zones: FREE,
    limits: {
      features: BLK_FEAT_NOWAIT | BLK_FEAT_ZONED | BLK_FEAT_ROTATIONAL,
    },
    status: (rq) => rq.sector === 1 ? BLK_STS_MEDIUM : BLK_STS_OK,
  });
  const ended = [0, ZONE, 1, ZONE + 1, 2].map((sector) =>
    submit(makeBio(device, REQ_OP_WRITE | REQ_NOMERGE, sector, 1))
  );
  settle(device.clock);
  assertEquals(ended.map(({ status }) => status), [
    BLK_STS_OK,
    BLK_STS_OK,
    BLK_STS_MEDIUM,
    BLK_STS_OK,
    BLK_STS_IOERR,
  ]);
});

Deno.test("blkdevGetZoneInfo() answers without the device, open and closed zones as active", () => {
  const device = ZonedDevice.registered({
    ...EMULATED,
    zones: { conventional: 1 },
  });
  write(device, ZONE, 8);
  write(device, 2 * ZONE, CAPACITY);
  device.log.length = 0;
  const zones: BlkZone[] = [];
  const n = blkdevReportZonesCached(device, 0, 4, (zone) => {
    zones.push({ ...zone });
    return 0;
  });
  assertEquals(n, 4);
  assertEquals(zones.map(({ cond, wp }) => [cond, wp]), [
    [BLK_ZONE_COND_NOT_WP, BLK_ZONE_NO_WP],
    [BLK_ZONE_COND_ACTIVE, ZONE + 8],
    [BLK_ZONE_COND_FULL, BLK_ZONE_NO_WP],
    [BLK_ZONE_COND_EMPTY, 3 * ZONE],
  ]);
  assertEquals(zones.map(({ capacity }) => capacity), [
    ZONE,
    CAPACITY,
    CAPACITY,
    CAPACITY,
  ]);
  assertEquals(device.log, []);
  const zone = { ...zones[0]! };
  assertEquals(blkdevGetZoneInfo(device, 8 * ZONE, zone), -EINVAL);
});

Deno.test("blkdevGetZoneInfo() asks the device once that has appended by itself", () => {
  const device = ZonedDevice.registered();
  run(device, makeBio(device, REQ_OP_ZONE_APPEND, ZONE, 4));
  device.log.length = 0;
  const zone = {} as BlkZone;
  assertEquals(blkdevGetZoneInfo(device, ZONE + 3, zone), 0);
  assertEquals([zone.cond, zone.wp], [BLK_ZONE_COND_ACTIVE, ZONE + 4]);
  assertEquals(device.log, [`REPORT ${ZONE + 3}`]);
  run(device, makeBio(device, REQ_OP_ZONE_RESET_ALL, 0, 0));
  device.log.length = 0;
  assertEquals(blkdevGetZoneInfo(device, ZONE, zone), 0);
  assertEquals([zone.cond, device.log], [BLK_ZONE_COND_EMPTY, []]);
});

Deno.test("blkRevalidateDiskZones() knows the write pointers of zones that are partly written", () => {
  const device = new ZonedDevice(EMULATED);
  const c = { at: ZONE * 512, len: 8 * 512, zone: 0, opened: false, epoch: 0 };
  device.namespace.submitWrite(c);
  device.namespace.completeWrite(c, true);
  assertEquals(report(device, ZONE, 1)[0]!.cond, BLK_ZONE_COND_IMP_OPEN);
  assertEquals(blkRevalidateDiskZones(device), 0);
  const append = makeBio(device, REQ_OP_ZONE_APPEND, ZONE, 4);
  assertEquals(run(device, append), BLK_STS_OK);
  assertEquals(append.sector, ZONE + 8);
});

Deno.test("zones that have become read-only or offline are told by a report and refused", () => {
  for (const cond of [BLK_ZONE_COND_READONLY, BLK_ZONE_COND_OFFLINE]) {
    const device = ZonedDevice.registered();
    write(device, 0, 4);
    device.namespace.fail(0, cond);
    assertEquals(write(device, 4, 4), BLK_STS_IOERR);
    assertEquals(report(device, 0, 1)[0]!.cond, cond);
    device.log.length = 0;
    assertEquals(write(device, 4, 4), BLK_STS_IOERR);
    const read = makeBio(device, REQ_OP_READ, 0, 4);
    const isReadable = cond === BLK_ZONE_COND_READONLY;
    assertEquals(run(device, read), isReadable ? BLK_STS_OK : BLK_STS_IOERR);
  }
});

Deno.test("blkReleaseDiskZones() ends the writes that wait", () => {
  const device = ZonedDevice.registered();
  const ended = [0, 4].map((sector) =>
    submit(makeBio(device, REQ_OP_WRITE | REQ_NOMERGE, sector, 4))
  );
  blkReleaseDiskZones(device);
  assertEquals(ended[1]!.status, BLK_STS_IOERR);
  settle(device.clock);
  assertEquals(ended[0]!.status, BLK_STS_OK);
  assertEquals(blkRevalidateDiskZones(device), 0);
  assertEquals(write(device, 4, 4), BLK_STS_OK);
});

Deno.test("a polled zone write that has to wait is not polled any more", () => {
  const device = ZonedDevice.registered();
  submit(makeBio(device, REQ_OP_WRITE | REQ_NOMERGE, 0, 4));
  const bio = makeBio(device, REQ_OP_WRITE | REQ_NOWAIT, 4, 4);
  submit(bio);
  assertEquals(bio.opf & (REQ_POLLED | REQ_NOWAIT), 0);
  settle(device.clock);
});

/*
 * Goal: whatever users do to zones at once, a zone's content is what was acknowledged,
 * in order, and at most one write of each is under way. Method: writers that write, append
 * (native or emulated), reset and finish at random, several bios at a time, on a device
 * that fails some. Oracle: each acknowledged write is found where it was said to be, until
 * its zone is reset.
 */
function randomRun(seed: number, options: ZonedDeviceOptions): void {
  const random = new Prng(seed, "zoned");
  const device = ZonedDevice.registered({
    ...options,
    zones: FREE,
    time: () => 1000 * random.below(20),
    status: (rq) =>
      reqOp(rq.opf) === REQ_OP_WRITE && random.below(40) === 0
        ? BLK_STS_MEDIUM
        : BLK_STS_OK,
  });
  const written = Array.from({ length: 8 }, () => new Map<number, number>());
  let serial = 0;
  for (let round = 0; round < 300; round++) {
    const zone = random.below(8);
    const start = zone * ZONE;
    const dice = random.below(20);
    if (dice === 0) {
      const op = random.below(2) === 0 ? REQ_OP_ZONE_RESET : REQ_OP_ZONE_FINISH;
      assertEquals(run(device, makeBio(device, op, start, 0)), BLK_STS_OK);
      if (op === REQ_OP_ZONE_RESET) written[zone]!.clear();
      continue;
    }
    const [info] = report(device, start, 1);
    if (info!.cond === BLK_ZONE_COND_FULL) continue;
    const isAppend = random.below(2) === 0;
    let at = info!.wp;
    for (let i = 1 + random.below(8); i > 0; i--) {
      const sectors = 1 + random.below(4);
      const op = isAppend ? REQ_OP_ZONE_APPEND : REQ_OP_WRITE;
      const bio = makeBio(device, op, isAppend ? start : at, sectors);
      at += sectors;
      const mark = ++serial % 256;
      bio.vecs[0]!.data.fill(mark);
      bio.endIo = ({ status, sector }) => {
        if (status !== BLK_STS_OK) return;
        for (let s = 0; s < sectors; s++) written[zone]!.set(sector + s, mark);
      };
      submitBio(bio);
    }
    settle(device.clock);
    for (const [sector, mark] of written[zone]!) {
      assertEquals(device.memory[sector * 512], mark, `seed ${seed}`);
    }
  }
  if (options.limits?.maxHwZoneAppendSectors === 0) {
    for (const { most } of device.writingZone.values()) assertEquals(most, 1);
  }
  assertEquals(device.writing.now, 0);
}

Deno.test("random writes, appends, resets and failures leave in zones what was acknowledged", () => {
  for (let seed = 1; seed <= 6; seed++) {
    randomRun(seed, {});
    randomRun(seed, EMULATED);
  }
});
