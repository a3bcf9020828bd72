/**
 * Mapped devices over a device with zones.
 */
import { assertEquals, assertThrows } from "@std/assert";
import {
  Bio,
  BLK_STS_IOERR,
  BLK_STS_OK,
  blkdevReportZones,
  type BlockDevice,
  DelayDevice,
  ErrorDevice,
  FlakeyDevice,
  LinearDevice,
  LogWritesDevice,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_ZONE_APPEND,
  REQ_OP_ZONE_FINISH,
  REQ_OP_ZONE_OPEN,
  REQ_OP_ZONE_RESET,
  REQ_OP_ZONE_RESET_ALL,
  StripeDevice,
} from "../../../block/mod.ts";
import { FsError } from "../../../lib/errno.ts";
import { makeBio, settle, submit } from "../fake_device.ts";
import { ZONE, ZonedDevice } from "../zoned_device.ts";

function manage(bdev: BlockDevice, op: number, sector: number): number {
  const bio = new Bio(bdev, op);
  bio.sector = sector;
  const ended = submit(bio);
  settle(bdev.clock);
  assertEquals(ended.times, 1);
  return ended.status;
}

function io(bdev: BlockDevice, op: number, at: number, sectors: number): Bio {
  const bio = makeBio(bdev, op, at, sectors);
  submit(bio);
  settle(bdev.clock);
  return bio;
}

/** Start, write pointer and condition of zones, as reported. */
function zonesOf(bdev: BlockDevice, from = 0, most = Infinity): number[][] {
  const zones: number[][] = [];
  const n = blkdevReportZones(bdev, from, most, ({ start, wp, cond }) => {
    zones.push([start, wp, cond]);
    return 0;
  });
  assertEquals(n, zones.length);
  return zones;
}

const [EMPTY, IMP_OPEN, EXP_OPEN, FULL] = [1, 2, 3, 0xe];

Deno.test("LinearDevice has the zones that it maps, and their write pointers", () => {
  const disk = ZonedDevice.registered();
  const top = new LinearDevice(disk, {
    startSector: 2 * ZONE,
    nrSectors: 3 * ZONE,
  });
  assertEquals(
    [top.limits.chunkSectors, top.limits.maxOpenZones],
    [ZONE, 2],
  );
  assertEquals(io(top, REQ_OP_WRITE, ZONE, 8).status, BLK_STS_OK);
  assertEquals(manage(top, REQ_OP_ZONE_OPEN, 2 * ZONE), BLK_STS_OK);
  assertEquals(zonesOf(top), [
    [0, 0, EMPTY],
    [ZONE, ZONE + 8, IMP_OPEN],
    [2 * ZONE, 2 * ZONE, EXP_OPEN],
  ]);
  assertEquals(zonesOf(top, ZONE + 3, 1), [[ZONE, ZONE + 8, IMP_OPEN]]);
  assertEquals(zonesOf(disk, 3 * ZONE, 1), [[
    3 * ZONE,
    3 * ZONE + 8,
    IMP_OPEN,
  ]]);
  assertEquals(manage(top, REQ_OP_ZONE_FINISH, ZONE), BLK_STS_OK);
  assertEquals(zonesOf(top, ZONE, 1)[0]![2], FULL);
  assertEquals(manage(top, REQ_OP_ZONE_RESET, ZONE), BLK_STS_OK);
  assertEquals(zonesOf(top, ZONE, 1)[0]![2], EMPTY);
  // The zone behind its end is another's.
  assertEquals(manage(top, REQ_OP_ZONE_RESET, 3 * ZONE), BLK_STS_IOERR);
});

for (const append of [true, false]) {
  Deno.test(`LinearDevice tells where an append went, ${append ? "native" : "emulated"}`, () => {
    const disk = ZonedDevice.registered(
      append
        ? {}
        : { zones: { append: false }, limits: { maxHwZoneAppendSectors: 0 } },
    );
    const top = new LinearDevice(disk, { startSector: 4 * ZONE });
    const over = new ErrorDevice(new LinearDevice(top, { startSector: ZONE }));
    const first = io(over, REQ_OP_ZONE_APPEND, ZONE, 4);
    const second = io(over, REQ_OP_ZONE_APPEND, ZONE, 4);
    assertEquals([first.status, first.sector], [BLK_STS_OK, ZONE]);
    assertEquals([second.status, second.sector], [BLK_STS_OK, ZONE + 4]);
    assertEquals(zonesOf(disk, 6 * ZONE, 1)[0]![1], 6 * ZONE + 8);
    // A zone has its start where a zone of the device below has.
    assertEquals(
      io(over, REQ_OP_ZONE_APPEND, ZONE + 8, 4).status,
      BLK_STS_IOERR,
    );
  });
}

Deno.test("LinearDevice resets all of its own zones, and no other", () => {
  const disk = ZonedDevice.registered();
  const fill = (zone: number) => io(disk, REQ_OP_WRITE, zone * ZONE, 48);
  for (const zone of [0, 1, 2, 3, 4]) fill(zone);
  const some = new LinearDevice(disk, {
    startSector: ZONE,
    nrSectors: 3 * ZONE,
  });
  assertEquals(manage(some, REQ_OP_ZONE_RESET_ALL, 0), BLK_STS_OK);
  const conds = () => zonesOf(disk, 0, 5).map(([, , cond]) => cond);
  assertEquals(conds(), [FULL, EMPTY, EMPTY, EMPTY, FULL]);
  const all = new LinearDevice(disk, { startSector: 0 });
  assertEquals(manage(all, REQ_OP_ZONE_RESET_ALL, 0), BLK_STS_OK);
  assertEquals(conds(), [EMPTY, EMPTY, EMPTY, EMPTY, EMPTY]);
});

Deno.test("DelayDevice, ErrorDevice and FlakeyDevice pass zones on, a bad FlakeyDevice also their resets", () => {
  const disk = ZonedDevice.registered();
  const layers = [
    new DelayDevice(disk, { readNs: 1000 }),
    new ErrorDevice(disk),
    new FlakeyDevice(disk, { fromWrite: 2, errorWrites: true }),
  ];
  for (const top of layers) {
    assertEquals(io(top, REQ_OP_WRITE, 0, 8).status, BLK_STS_OK);
    assertEquals(io(top, REQ_OP_READ, 0, 8).status, BLK_STS_OK);
    assertEquals(zonesOf(top, 0, 1), [[0, 8, IMP_OPEN]]);
    if (top instanceof FlakeyDevice) {
      assertEquals(io(top, REQ_OP_WRITE, 8, 8).status, BLK_STS_IOERR);
    }
    assertEquals(manage(top, REQ_OP_ZONE_RESET, 0), BLK_STS_OK);
    assertEquals(zonesOf(top, 0, 1), [[0, 0, EMPTY]]);
  }
});

Deno.test("DmDevice() refuses zones that it cannot pass on, or not whole", () => {
  const disk = ZonedDevice.registered();
  const refused: [string, () => unknown][] = [
    ["has zones", () => new StripeDevice([disk], { chunkSectors: ZONE })],
    ["has zones", () => new LogWritesDevice(disk)],
    ["is no zone's", () => new LinearDevice(disk, { startSector: 8 })],
    [
      "goes on behind",
      () => new LinearDevice(disk, { startSector: 0, nrSectors: ZONE + 8 }),
    ],
  ];
  for (const [message, make] of refused) {
    assertThrows(make, FsError, message);
  }
});

Deno.test("LinearDevice resets zones that are partly written, or were appended to", () => {
  for (const append of [0, 1024]) {
    const disk = ZonedDevice.registered({
      limits: { maxHwZoneAppendSectors: append },
    });
    assertEquals(io(disk, REQ_OP_WRITE, ZONE, 8).status, BLK_STS_OK);
    assertEquals(io(disk, REQ_OP_ZONE_APPEND, 2 * ZONE, 8).status, BLK_STS_OK);
    const some = new LinearDevice(disk, {
      startSector: ZONE,
      nrSectors: 3 * ZONE,
    });
    assertEquals(manage(some, REQ_OP_ZONE_RESET_ALL, 0), BLK_STS_OK);
    assertEquals(zonesOf(some).map(([, , cond]) => cond), [
      EMPTY,
      EMPTY,
      EMPTY,
    ]);
  }
});
