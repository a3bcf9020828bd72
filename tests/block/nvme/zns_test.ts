import { assertEquals } from "@std/assert";
import {
  BLK_ZONE_COND_CLOSED as CLOSED,
  BLK_ZONE_COND_EMPTY as EMPTY,
  BLK_ZONE_COND_EXP_OPEN as EXP_OPEN,
  BLK_ZONE_COND_FULL as FULL,
  BLK_ZONE_COND_IMP_OPEN as IMP_OPEN,
  BLK_ZONE_COND_NOT_WP as NOT_WP,
  BLK_ZONE_COND_OFFLINE as OFFLINE,
  BLK_ZONE_COND_READONLY as READONLY,
} from "../../../block/blk-zoned.ts";
import {
  NVME_SC_INVALID_FIELD,
  NVME_SC_INVALID_OPCODE,
  NVME_SC_LBA_RANGE,
  NVME_ZONE_CLOSE as CLOSE,
  NVME_ZONE_FINISH as FINISH,
  NVME_ZONE_OFFLINE as TAKE_OFFLINE,
  NVME_ZONE_OPEN as OPEN,
  NVME_ZONE_RESET as RESET,
} from "../../../block/nvme/nvme.ts";
import {
  badZoneOption,
  NVME_ZONE_ATTR_FINISHED_BY_CONTROLLER,
  type ZonedCommand,
  ZonedNamespace,
  type ZoneOptions,
} from "../../../block/nvme/zns.ts";
import { EINVAL } from "../../../lib/errno.ts";
import { Prng } from "../../../lib/prng.ts";

const BLOCK = 4096;
/** Blocks of a zone, and of its capacity. */
const ZONE = 64;
const CAPACITY = 48;
const [A, B, C, D] = [0, 1, 2, 3] as const;

const OPTIONS: ZoneOptions = {
  size: 8 * ZONE * BLOCK,
  blockSize: BLOCK,
  zoneSize: ZONE * BLOCK,
  zoneCapacity: CAPACITY * BLOCK,
  conventional: 0,
  maxOpen: 2,
  maxActive: 3,
  flavor: "zns",
  crossRead: false,
  append: true,
  maxAppend: 0,
};

/** Zones, commanded in blocks. */
class Zones extends ZonedNamespace {
  /** What has been emptied and finished. */
  readonly changes: string[];

  constructor(options: Partial<ZoneOptions> = {}) {
    const changes: string[] = [];
    super({ ...OPTIONS, ...options }, (zone, action) => {
      changes.push(`${action === RESET ? "reset" : "finish"} ${zone}`);
    });
    this.changes = changes;
  }

  /** Open and active zones. */
  get counts(): [number, number] {
    return [this.open, this.active];
  }

  /** A report's first 1 + `room` entries of 64 bytes. */
  descriptors(at: number, filter = 0, partial = true, room = 8): Descriptors {
    const out = new Uint8Array(64 * (1 + room)).fill(0xaa);
    const status = this.report(at * BLOCK, filter, partial, out);
    return new Descriptors(out, status);
  }

  /** Where a zone's next write goes, as a report tells it, in blocks from its start. */
  wp(zone: number): number {
    return this.descriptors(zone * ZONE).wp(0) - zone * ZONE;
  }
}

class Descriptors {
  readonly status: number;
  readonly #view: DataView;

  constructor(out: Uint8Array, status: number) {
    this.status = status;
    this.#view = new DataView(out.buffer);
  }

  get count(): number {
    return Number(this.#view.getBigUint64(0, true));
  }

  type(i: number): number {
    return this.#view.getUint8(64 + 64 * i);
  }

  cond(i: number): number {
    return this.#view.getUint8(65 + 64 * i) >> 4;
  }

  attributes(i: number): number {
    return this.#view.getUint8(66 + 64 * i);
  }

  capacity(i: number): number {
    return Number(this.#view.getBigUint64(64 + 64 * i + 8, true));
  }

  start(i: number): number {
    return Number(this.#view.getBigUint64(64 + 64 * i + 16, true));
  }

  wp(i: number): number {
    return Number(this.#view.getBigUint64(64 + 64 * i + 24, true));
  }
}

function command(at: number, blocks: number): ZonedCommand {
  const [from, len] = [at * BLOCK, blocks * BLOCK];
  return { at: from, len, zone: -1, opened: false, epoch: 0 };
}

/** Writes, and is done at once; at the zone's write pointer if no other is given. */
function write(
  zones: ZonedNamespace,
  zone: number,
  blocks: number,
  at = zones.written(zone) / BLOCK,
): number {
  const c = command(zone * ZONE + at, blocks);
  const status = zones.submitWrite(c);
  if (status === 0) zones.completeWrite(c, true);
  return status;
}

Deno.test("corner case 108: a write not at the write pointer is an invalid write, and the pointer stays", () => {
  const zones = new Zones();
  assertEquals(write(zones, A, 8), 0);

  assertEquals(write(zones, A, 1, 9), 0x1bc);
  assertEquals(write(zones, A, 1, 7), 0x1bc);

  assertEquals(zones.wp(A), 8);
  assertEquals(write(zones, A, 1, 8), 0);
});

Deno.test("corner case 109: a write past the capacity is a boundary error, one up to it makes the zone full", () => {
  const zones = new Zones();
  assertEquals(write(zones, A, 49), 0x1b8);
  assertEquals(zones.cond(A), EMPTY);

  assertEquals(write(zones, A, 48), 0);

  assertEquals(zones.cond(A), FULL);
  assertEquals(write(zones, A, 1, 48), 0x1b9);
  assertEquals(write(zones, A, 1, 0), 0x1b9);
  assertEquals(zones.counts, [0, 0]);
});

Deno.test("corner case 112: open and active zones as writes and commands come", () => {
  const zones = new Zones();
  const steps: [string, () => number, number, [number, number]][] = [
    ["write A(8)", () => write(zones, A, 8), 0, [1, 1]],
    ["open B", () => zones.manage(B, OPEN, false), 0, [2, 2]],
    ["write C(8), closing A", () => write(zones, C, 8), 0, [2, 3]],
    ["write D", () => write(zones, D, 8), 0x1bd, [2, 3]],
    ["open A, closing C", () => zones.manage(A, OPEN, false), 0, [2, 3]],
    ["write C", () => write(zones, C, 8), 0x1be, [2, 3]],
    ["finish B", () => zones.manage(B, FINISH, false), 0, [1, 2]],
    ["write C(8)", () => write(zones, C, 8), 0, [2, 2]],
    ["close A", () => zones.manage(A, CLOSE, false), 0, [1, 2]],
    ["reset A", () => zones.manage(A, RESET, false), 0, [1, 1]],
    ["write C(40)", () => write(zones, C, 40), 0x1b8, [1, 1]],
    ["write C(32)", () => write(zones, C, 32), 0, [0, 0]],
  ];
  for (const [name, step, status, counts] of steps) {
    assertEquals([name, step(), zones.counts], [name, status, counts]);
    if (name === "write C(8), closing A") assertEquals(zones.cond(A), CLOSED);
    // Nothing changes: C stays open.
    if (name === "write D") assertEquals(zones.cond(C), IMP_OPEN);
  }
  assertEquals(zones.cond(C), FULL);
});

Deno.test("corner case 113: a zone closed before it was written is empty (zbc) or closed (zns)", () => {
  const results = (["zbc", "zns"] as const).map((flavor) => {
    const zones = new Zones({ flavor });
    assertEquals(zones.manage(A, OPEN, false), 0);
    assertEquals(zones.manage(A, CLOSE, false), 0);
    return [zones.cond(A), zones.active];
  });
  assertEquals(results, [[EMPTY, 0], [CLOSED, 1]]);
});

Deno.test("corner case 114: which transitions are invalid, and which do nothing", () => {
  const zones = new Zones();
  assertEquals(zones.manage(A, CLOSE, false), 0x1bf);
  assertEquals(zones.manage(A, RESET, false), 0);
  write(zones, A, 8);
  assertEquals(zones.manage(A, CLOSE, false), 0);
  assertEquals(zones.manage(A, CLOSE, false), 0);
  write(zones, B, 48);
  assertEquals(zones.manage(B, CLOSE, false), 0x1bf);
  assertEquals(zones.manage(B, OPEN, false), 0x1bf);
  assertEquals(zones.manage(B, FINISH, false), 0);
  assertEquals(zones.changes, []);
});

Deno.test("corner case 123: a reset of all zones leaves those that are read-only, offline or conventional", () => {
  const zones = new Zones({ conventional: 1 });
  write(zones, 1, 8);
  write(zones, 2, 48);
  assertEquals(zones.fail(3, READONLY), 0);
  assertEquals(zones.fail(4, OFFLINE), 0);

  assertEquals(zones.manage(-1, RESET, true), 0);

  const conds = Array.from({ length: 6 }, (_, zone) => zones.cond(zone));
  assertEquals(conds, [NOT_WP, EMPTY, EMPTY, READONLY, OFFLINE, EMPTY]);
  assertEquals(zones.changes, ["reset 1", "reset 2"]);
});

Deno.test("corner case 124: read-only zones can be read, offline ones cannot, neither can be changed", () => {
  const zones = new Zones();
  zones.fail(A, READONLY);
  zones.fail(B, OFFLINE);
  assertEquals(zones.checkRead(0, BLOCK), 0);
  assertEquals(write(zones, A, 1, 0), 0x1ba);
  assertEquals(zones.checkRead(ZONE * BLOCK, BLOCK), 0x1bb);
  assertEquals(write(zones, B, 1, 0), 0x1bb);
  for (const action of [OPEN, CLOSE, FINISH, RESET]) {
    assertEquals(zones.manage(A, action, false), 0x1bf);
    assertEquals(zones.manage(B, action, false), 0x1bf);
  }
});

Deno.test("corner case 126: a report begins with the zone of its block, and counts what matches", () => {
  const zones = new Zones();
  write(zones, 5, 8);
  write(zones, 6, 8);

  const all = zones.descriptors(3 * ZONE + 17, 0, false, 2);
  assertEquals([all.count, all.start(0), all.start(1)], [
    5,
    3 * ZONE,
    4 * ZONE,
  ]);

  const partial = zones.descriptors(3 * ZONE + 17, 0, true, 2);
  assertEquals([partial.count, partial.start(0)], [2, 3 * ZONE]);

  const open = zones.descriptors(0, 2, false, 1);
  assertEquals([open.count, open.start(0), open.wp(0)], [
    2,
    5 * ZONE,
    5 * ZONE + 8,
  ]);
});

Deno.test("ZonedNamespace.report() fills 64-byte descriptors with type, state, capacity and pointer", () => {
  const zones = new Zones({ conventional: 1 });
  write(zones, 1, 8);
  zones.manage(2, FINISH, false);
  const report = zones.descriptors(0);
  assertEquals(report.count, 8);
  const noWp = Number(2n ** 64n - 1n);
  const seen = [0, 1, 2, 3].map((i) => [
    report.type(i),
    report.cond(i),
    report.capacity(i),
    report.start(i),
    report.wp(i),
  ]);
  assertEquals(seen, [
    [1, NOT_WP, ZONE, 0, noWp],
    [2, IMP_OPEN, CAPACITY, ZONE, ZONE + 8],
    [2, FULL, CAPACITY, 2 * ZONE, noWp],
    [2, EMPTY, CAPACITY, 3 * ZONE, 3 * ZONE],
  ]);
});

Deno.test("ZonedNamespace.report() refuses filters, places and buffers that are none", () => {
  const zones = new Zones();
  const header = new Uint8Array(64);
  assertEquals(zones.report(0, 8, false, header), NVME_SC_INVALID_FIELD);
  assertEquals(
    zones.report(0, 0, false, new Uint8Array(60)),
    NVME_SC_INVALID_FIELD,
  );
  assertEquals(
    zones.report(OPTIONS.size, 0, false, header),
    NVME_SC_LBA_RANGE,
  );
  assertEquals(zones.report(0, 0, false, header), 0);
  assertEquals(new Descriptors(header, 0).count, 8);
});

Deno.test("submitWrite() takes several in order, and the report follows as they are done", () => {
  const zones = new Zones();
  const [first, second] = [command(0, 40), command(40, 8)];
  assertEquals(zones.submitWrite(first), 0);
  assertEquals(zones.submitWrite(second), 0);
  assertEquals([first.opened, second.opened], [true, false]);
  assertEquals([zones.wp(A), zones.cond(A)], [0, IMP_OPEN]);

  zones.completeWrite(second, true);
  assertEquals([zones.wp(A), zones.cond(A)], [8, IMP_OPEN]);
  zones.completeWrite(first, true);
  assertEquals(zones.cond(A), FULL);
});

Deno.test("completeWrite() gives the place of a failed write back when nothing follows it", () => {
  const zones = new Zones();
  const [first, second, third] = [command(0, 4), command(4, 4), command(8, 4)];
  for (const c of [first, second, third]) zones.submitWrite(c);
  zones.completeWrite(first, true);
  // What follows has its place: this one leaves a hole.
  zones.completeWrite(second, false);
  zones.completeWrite(third, false);
  assertEquals(zones.wp(A), 8);
  assertEquals(write(zones, A, 4, 8), 0);
});

Deno.test("checkWrite() refuses a write whose zone was emptied, finished or lost meanwhile", () => {
  const cases: [(zones: Zones) => void, number][] = [
    [() => {}, 0],
    [(zones) => zones.manage(A, RESET, false), 0x1bc],
    [(zones) => zones.manage(A, FINISH, false), 0x1b9],
    [(zones) => zones.fail(A, READONLY), 0x1ba],
    [(zones) => zones.fail(A, OFFLINE), 0x1bb],
  ];
  for (const [change, status] of cases) {
    const zones = new Zones();
    write(zones, A, 4);
    const late = command(4, 4);
    assertEquals(zones.submitWrite(late), 0);
    change(zones);
    assertEquals(zones.checkWrite(late), status);
    const before = zones.written(A);
    zones.completeWrite(late, status === 0);
    assertEquals(zones.written(A), status === 0 ? 8 * BLOCK : before);
  }
});

Deno.test("submitAppend() places appends one after the other from the zone's start only", () => {
  const zones = new Zones({ conventional: 1, maxAppend: 8 * BLOCK });
  const append = (at: number, blocks: number) => {
    const c = command(at, blocks);
    const status = zones.submitAppend(c);
    if (status === 0) zones.completeWrite(c, true);
    return [status, c.at / BLOCK];
  };
  assertEquals(append(ZONE, 4), [0, ZONE]);
  assertEquals(append(ZONE, 8), [0, ZONE + 4]);
  assertEquals(append(ZONE + 12, 1), [NVME_SC_INVALID_FIELD, ZONE + 12]);
  assertEquals(append(ZONE, 9), [NVME_SC_INVALID_FIELD, ZONE]);
  assertEquals(append(0, 1), [NVME_SC_INVALID_FIELD, 0]);
  const disk = new Zones({ append: false });
  assertEquals(disk.submitAppend(command(0, 1)), NVME_SC_INVALID_OPCODE);
});

Deno.test("conventional zones are written anywhere and managed not at all", () => {
  const zones = new Zones({ conventional: 2 });
  const c = command(ZONE - 4, 8);
  assertEquals([zones.submitWrite(c), c.zone], [0, -1]);
  zones.completeWrite(c, true);
  assertEquals(zones.submitWrite(command(3, 1)), 0);
  assertEquals(zones.submitWrite(command(2 * ZONE - 1, 2)), 0x1b8);
  for (const action of [OPEN, CLOSE, FINISH, RESET, TAKE_OFFLINE]) {
    assertEquals(zones.manage(0, action, false), 0x1bf);
  }
  assertEquals(zones.fail(0, READONLY), -EINVAL);
});

Deno.test("checkRead() lets reads cross zones only where the namespace says so", () => {
  const [from, len] = [(ZONE - 1) * BLOCK, 2 * BLOCK];
  assertEquals(new Zones().checkRead(from, len), 0x1b8);
  const zones = new Zones({ crossRead: true });
  assertEquals(zones.checkRead(from, len), 0);
  zones.fail(B, OFFLINE);
  assertEquals(zones.checkRead(from, len), 0x1bb);
});

Deno.test("checkManage() names what is no zone and no action", () => {
  const zones = new Zones();
  assertEquals(zones.checkManage(ZONE * BLOCK, OPEN, false), 0);
  assertEquals(zones.checkManage(BLOCK, OPEN, false), NVME_SC_INVALID_FIELD);
  assertEquals(zones.checkManage(BLOCK, OPEN, true), 0);
  assertEquals(
    zones.checkManage(OPTIONS.size, OPEN, false),
    NVME_SC_LBA_RANGE,
  );
  // Descriptor extensions and random write areas do not exist here.
  for (const action of [0, 6, 0x10, 0x11]) {
    assertEquals(zones.checkManage(0, action, false), NVME_SC_INVALID_FIELD);
  }
});

Deno.test("manage() of all zones opens closed ones, closes open ones and finishes both", () => {
  const zones = new Zones({ maxOpen: 3, maxActive: 0 });
  for (const zone of [A, B, C]) write(zones, zone, 4);
  assertEquals(zones.manage(-1, CLOSE, true), 0);
  assertEquals([A, B, C, D].map((z) => zones.cond(z)), [
    CLOSED,
    CLOSED,
    CLOSED,
    EMPTY,
  ]);
  write(zones, D, 4);
  assertEquals(zones.manage(-1, OPEN, true), 0x1be);
  assertEquals(zones.counts, [1, 4]);
  zones.manage(D, RESET, false);
  assertEquals(zones.manage(-1, OPEN, true), 0);
  assertEquals([A, B, C].map((z) => zones.cond(z)), [
    EXP_OPEN,
    EXP_OPEN,
    EXP_OPEN,
  ]);
  zones.manage(A, CLOSE, false);
  assertEquals(zones.manage(-1, FINISH, true), 0);
  assertEquals([A, B, C, D].map((z) => zones.cond(z)), [
    FULL,
    FULL,
    FULL,
    EMPTY,
  ]);
  zones.fail(D, READONLY);
  assertEquals(zones.manage(-1, TAKE_OFFLINE, true), 0);
  assertEquals(zones.cond(D), OFFLINE);
});

Deno.test("manage() of all zones finishes closed ones although others are open", () => {
  for (const flavor of ["zns", "zbc"] as const) {
    const zones = new Zones({ flavor });
    write(zones, A, 4);
    zones.manage(A, CLOSE, false);
    zones.manage(B, OPEN, false);
    zones.manage(C, OPEN, false);
    assertEquals(zones.manage(-1, FINISH, true), 0);
    assertEquals([A, B, C].map((z) => zones.cond(z)), [FULL, FULL, FULL]);
  }
});

Deno.test("an implicitly open zone is closed by age (zns) or in turn by number (zbc)", () => {
  const closed = (flavor: "zns" | "zbc") => {
    const zones = new Zones({ flavor, maxOpen: 2, maxActive: 0 });
    const order: number[] = [];
    for (const zone of [5, 1, 3, 0, 4]) {
      const open = new Set(
        Array.from({ length: 8 }, (_, z) => z).filter((z) =>
          zones.cond(z) === IMP_OPEN
        ),
      );
      write(zones, zone, 1);
      for (const z of open) if (zones.cond(z) === CLOSED) order.push(z);
    }
    return order;
  };
  assertEquals(closed("zns"), [5, 1, 3]);
  assertEquals(closed("zbc"), [1, 3, 5]);
});

Deno.test("manage() finishes an unopened zone without a free one (zns) or not (zbc)", () => {
  for (const [flavor, status] of [["zns", 0], ["zbc", 0x1be]] as const) {
    const zones = new Zones({ flavor });
    zones.manage(A, OPEN, false);
    zones.manage(B, OPEN, false);
    assertEquals([flavor, zones.manage(C, FINISH, false)], [flavor, status]);
    assertEquals(zones.counts, [2, 2]);
  }
});

Deno.test("fail() frees what the zone held of the limits", () => {
  const zones = new Zones();
  zones.manage(A, OPEN, false);
  zones.manage(B, OPEN, false);
  assertEquals(zones.fail(A, READONLY), 0);
  assertEquals(zones.counts, [1, 1]);
  assertEquals(zones.manage(A, TAKE_OFFLINE, false), 0);
  assertEquals(zones.manage(A, TAKE_OFFLINE, false), 0);
  assertEquals(zones.cond(A), OFFLINE);
  assertEquals(zones.manage(B, TAKE_OFFLINE, false), 0x1bf);
  for (const zone of [-1, 8, 0.5]) {
    assertEquals(zones.fail(zone, OFFLINE), -EINVAL);
  }
  assertEquals(zones.fail(B, EMPTY), -EINVAL);
});

Deno.test("powerUp() leaves each zone as its durable pointer says", () => {
  const zones = new Zones({ maxOpen: 0, maxActive: 0 });
  for (const zone of [A, B, C, D]) write(zones, zone, 8);
  write(zones, 4, 48);
  zones.manage(5, FINISH, false);
  zones.fail(6, READONLY);
  zones.persisted(A, 8 * BLOCK, false);
  zones.persisted(B, 3 * BLOCK, false);
  zones.persisted(4, 48 * BLOCK, false);
  zones.persisted(D, 4 * BLOCK, true);

  zones.powerUp();

  const conds = Array.from({ length: 8 }, (_, zone) => zones.cond(zone));
  assertEquals(conds, [
    CLOSED,
    CLOSED,
    EMPTY,
    FULL,
    FULL,
    EMPTY,
    READONLY,
    EMPTY,
  ]);
  assertEquals(
    [A, B, C, D].map((zone) => zones.written(zone) / BLOCK),
    [8, 3, 0, 4],
  );
  assertEquals([zones.finished(D), zones.finished(4)], [true, false]);
  assertEquals(zones.counts, [0, 2]);
  assertEquals(write(zones, B, 1), 0);
});

Deno.test("powerUp() finishes zones for which there is no room among the active", () => {
  const zones = new Zones();
  for (const zone of [A, B, C, D]) zones.persisted(zone, 4 * BLOCK, false);
  zones.powerUp();
  assertEquals([A, B, C, D].map((z) => zones.cond(z)), [
    CLOSED,
    CLOSED,
    CLOSED,
    FULL,
  ]);
  const report = zones.descriptors(D * ZONE);
  assertEquals(report.attributes(0), NVME_ZONE_ATTR_FINISHED_BY_CONTROLLER);
  // That is for good.
  zones.persisted(A, 0, false);
  zones.powerUp();
  assertEquals([zones.cond(A), zones.cond(D)], [EMPTY, FULL]);
  zones.manage(D, RESET, false);
  assertEquals(zones.descriptors(D * ZONE).attributes(0), 0);
});

Deno.test("format() empties all zones that have not failed", () => {
  const zones = new Zones();
  write(zones, A, 8);
  zones.persisted(A, 8 * BLOCK, false);
  zones.manage(B, FINISH, false);
  zones.fail(C, READONLY);
  zones.format();
  assertEquals([A, B, C].map((z) => zones.cond(z)), [EMPTY, EMPTY, READONLY]);
  assertEquals([zones.counts, zones.durable(A)], [[0, 0], 0]);
  assertEquals(write(zones, A, 1), 0);
});

Deno.test("clone() goes its own way", () => {
  const zones = new Zones();
  write(zones, A, 8);
  write(zones, B, 8);
  const copy = zones.clone(() => {});
  assertEquals(write(copy, C, 8), 0);
  assertEquals([copy.cond(A), zones.cond(A)], [CLOSED, IMP_OPEN]);
  assertEquals(write(zones, A, 8), 0);
  assertEquals([copy.written(A), zones.written(A)], [8 * BLOCK, 16 * BLOCK]);
});

Deno.test("the last zone may be smaller", () => {
  const zones = new Zones({ size: (ZONE + 20) * BLOCK });
  assertEquals(zones.nrZones, 2);
  assertEquals(write(zones, B, 21), 0x1b8);
  assertEquals(write(zones, B, 20), 0);
  assertEquals(zones.cond(B), FULL);
});

Deno.test("badZoneOption() names the option that cannot be", () => {
  const bad = (options: Partial<ZoneOptions>) =>
    badZoneOption({ ...OPTIONS, ...options })?.split(" ")[0] ?? null;
  assertEquals(bad({}), null);
  assertEquals(bad({ zoneSize: 96 * 2 ** 20 }), "zoneSize");
  assertEquals(bad({ zoneSize: 2048 }), "zoneSize");
  assertEquals(bad({ size: 2 ** 40, zoneSize: 65536 }), "zoneSize");
  assertEquals(bad({ zoneCapacity: OPTIONS.zoneSize * 2 }), "zoneCapacity");
  assertEquals(bad({ zoneCapacity: 0 }), "zoneCapacity");
  assertEquals(bad({ zoneCapacity: 5000 }), "zoneCapacity");
  assertEquals(bad({ conventional: 8 }), "conventional");
  assertEquals(bad({ maxOpen: -1 }), "maxOpen");
  assertEquals(bad({ maxActive: NaN }), "maxActive");
  assertEquals(bad({ maxOpen: 4, maxActive: 3 }), "maxOpen");
  assertEquals(bad({ maxAppend: 4096 }), "maxAppend");
  assertEquals(bad({ maxAppend: 12288 }), "maxAppend");
  assertEquals(bad({ maxAppend: 8192 }), null);
  assertEquals(bad({ flavor: "zoned" as "zns" }), "flavor");
});

/*
 * Goal: any sequence of commands leaves conditions, pointers and counts as the rules
 * say. Method: random writes, appends, completions, commands and failures, on few zones
 * with narrow limits, against a model that keeps one plain record for each zone and works
 * everything out by looking at all of them. Oracle: status, place and all conditions
 * after each step.
 */
interface ModelZone {
  cond: number;
  next: number;
  done: number;
  openedAt: number;
}

class Model {
  readonly zones: ModelZone[];
  readonly #o: ZoneOptions;
  #serial = 0;
  #cursor = 0;

  constructor(o: ZoneOptions) {
    this.#o = o;
    const n = o.size / o.zoneSize;
    this.zones = Array.from({ length: n }, (_, i) => ({
      cond: i < o.conventional ? NOT_WP : EMPTY,
      next: 0,
      done: 0,
      openedAt: 0,
    }));
  }

  write(zone: number, at: number, blocks: number): number {
    const z = this.zones[zone]!;
    if (z.cond === NOT_WP) return at + blocks > ZONE ? 0x1b8 : 0;
    const late = this.#refused(z);
    if (late !== 0) return late;
    if (at !== z.next) return 0x1bc;
    return this.append(zone, blocks);
  }

  append(zone: number, blocks: number): number {
    const z = this.zones[zone]!;
    const late = this.#refused(z);
    if (late !== 0) return late;
    if (z.next + blocks > CAPACITY) return 0x1b8;
    if (z.cond === EMPTY || z.cond === CLOSED) {
      const status = this.#room(z);
      if (status !== 0) return status;
      z.cond = IMP_OPEN;
      z.openedAt = ++this.#serial;
    }
    z.next += blocks;
    return 0;
  }

  manage(zone: number, action: number): number {
    const z = this.zones[zone]!;
    const { cond } = z;
    const isOpen = cond === IMP_OPEN || cond === EXP_OPEN;
    if (action === OPEN) {
      if (cond === EXP_OPEN) return 0;
      if (cond === EMPTY || cond === CLOSED) {
        const status = this.#room(z);
        if (status !== 0) return status;
      } else if (cond !== IMP_OPEN) return 0x1bf;
      z.cond = EXP_OPEN;
      return 0;
    }
    if (action === CLOSE) {
      if (isOpen) this.#close(z);
      return isOpen || cond === CLOSED ? 0 : 0x1bf;
    }
    if (![EMPTY, IMP_OPEN, EXP_OPEN, CLOSED, FULL].includes(cond)) return 0x1bf;
    if (action === RESET) {
      Object.assign(z, { cond: EMPTY, next: 0, done: 0 });
      return 0;
    }
    if (cond === FULL) return 0;
    if (this.#o.flavor === "zbc" && !isOpen) {
      const status = this.#room(z);
      if (status !== 0) return status;
    }
    Object.assign(z, { cond: FULL, next: z.done });
    return 0;
  }

  count(...conds: number[]): number {
    return this.zones.filter((z) => conds.includes(z.cond)).length;
  }

  #refused(z: ModelZone): number {
    return z.cond === FULL
      ? 0x1b9
      : z.cond === READONLY
      ? 0x1ba
      : z.cond === OFFLINE
      ? 0x1bb
      : 0;
  }

  #room(z: ModelZone): number {
    const { maxOpen, maxActive, flavor } = this.#o;
    const active = this.count(IMP_OPEN, EXP_OPEN, CLOSED);
    if (z.cond === EMPTY && maxActive > 0 && active >= maxActive) return 0x1bd;
    if (maxOpen === 0 || this.count(IMP_OPEN, EXP_OPEN) < maxOpen) return 0;
    const open = this.zones.filter((other) => other.cond === IMP_OPEN);
    if (open.length === 0) return 0x1be;
    let victim = open.reduce((a, b) => a.openedAt < b.openedAt ? a : b);
    if (flavor === "zbc") {
      const from = this.#cursor;
      victim = open.find((o) => this.zones.indexOf(o) >= from) ?? open[0]!;
      this.#cursor = this.zones.indexOf(victim) + 1;
    }
    this.#close(victim);
    return 0;
  }

  #close(z: ModelZone): void {
    z.cond = z.next === 0 && this.#o.flavor === "zbc" ? EMPTY : CLOSED;
  }
}

interface UnderWay {
  c: ZonedCommand;
  zone: number;
  blocks: number;
  /** The zone's life that it belongs to. */
  life: number;
}

function randomRun(seed: number, options: ZoneOptions, steps: number): void {
  const random = new Prng(seed, "zones");
  const zones = new Zones(options);
  const model = new Model(options);
  const lives = model.zones.map(() => 0);
  const underWay: UnderWay[] = [];
  const step = () => {
    const zone = random.below(zones.nrZones);
    const blocks = 1 + random.below(20);
    const z = model.zones[zone]!;
    const dice = random.below(100);
    if (dice < 50) {
      const isAppend = z.cond !== NOT_WP && random.below(3) === 0;
      const at = random.below(10) === 0 ? random.below(ZONE) : z.next;
      const c = command(zone * ZONE + (isAppend ? 0 : at), blocks);
      const place = zone * ZONE + (isAppend ? z.next : at);
      const expected = isAppend
        ? model.append(zone, blocks)
        : model.write(zone, at, blocks);
      const status = isAppend ? zones.submitAppend(c) : zones.submitWrite(c);
      assertEquals(status, expected, `write of ${blocks} to ${zone}+${at}`);
      if (status !== 0 || z.cond === NOT_WP) return;
      assertEquals(c.at, place * BLOCK);
      underWay.push({ c, zone, blocks, life: lives[zone]! });
    } else if (dice < 80 && underWay.length > 0) {
      const [w] = underWay.splice(random.below(underWay.length), 1);
      const target = model.zones[w!.zone]!;
      const ok = random.below(8) > 0;
      const isLate = w!.life !== lives[w!.zone];
      assertEquals(zones.checkWrite(w!.c) !== 0, isLate);
      zones.completeWrite(w!.c, ok && !isLate);
      if (isLate) return;
      const end = w!.c.at / BLOCK - w!.zone * ZONE + w!.blocks;
      if (!ok && end === target.next) target.next -= w!.blocks;
      else target.done += w!.blocks;
      if (target.done === CAPACITY) target.cond = FULL;
    } else if (dice < 99) {
      const action = [OPEN, CLOSE, FINISH, RESET][random.below(4)]!;
      const before = z.cond;
      const expected = model.manage(zone, action);
      assertEquals(zones.manage(zone, action, false), expected);
      const ends = action === FINISH && before !== FULL ||
        action === RESET && before !== EMPTY;
      if (expected === 0 && ends) lives[zone]!++;
    } else if (z.cond !== NOT_WP && random.below(20) === 0) {
      const cond = random.below(2) === 0 ? READONLY : OFFLINE;
      assertEquals(zones.fail(zone, cond), 0);
      z.cond = cond;
      lives[zone]!++;
    }
  };
  for (let i = 0; i < steps; i++) {
    step();
    const conds = model.zones.map((_, n) => zones.cond(n));
    assertEquals(conds, model.zones.map((z) => z.cond), `seed ${seed} at ${i}`);
    assertEquals(zones.counts, [
      model.count(IMP_OPEN, EXP_OPEN),
      model.count(IMP_OPEN, EXP_OPEN, CLOSED),
    ]);
    if (options.maxOpen > 0) assertEquals(zones.open <= options.maxOpen, true);
    model.zones.forEach((z, n) => {
      if (z.cond !== NOT_WP) assertEquals(zones.written(n), z.done * BLOCK);
    });
  }
}

Deno.test("ZonedNamespace agrees with a plain model of zones over random commands", () => {
  for (let seed = 1; seed <= 12; seed++) {
    randomRun(seed, {
      ...OPTIONS,
      conventional: seed % 2,
      flavor: seed % 4 < 2 ? "zns" : "zbc",
      maxOpen: seed % 3 === 0 ? 0 : 2,
      maxActive: seed % 3 === 1 ? 3 : 0,
    }, 1500);
  }
});
