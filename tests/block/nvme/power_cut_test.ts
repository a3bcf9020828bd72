import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_PREFLUSH,
  submitBio,
  submitBioWait,
} from "../../../block/mod.ts";
import { FileMedia, MemoryMedia } from "../../../block/nvme/media.ts";
import {
  NVME_CMD_COMPARE,
  NVME_CMD_COPY,
  NVME_CMD_DSM,
  NVME_CMD_FLUSH,
  NVME_CMD_WRITE,
  NVME_CMD_WRITE_ZEROES,
  NVME_CMD_ZONE_APPEND,
  NVME_CMD_ZONE_MGMT_SEND,
  NVME_ZONE_RESET,
} from "../../../block/nvme/nvme.ts";
import {
  checkCutOptions,
  type CutOptions,
  cutStates,
  type TearMode,
} from "../../../block/nvme/power-cut.ts";
import { FsError } from "../../../lib/errno.ts";
import { VirtualClock } from "../../../lib/clock.ts";
import { createNvme, type NvmeDevice } from "../../../mod.ts";
import { makeBio } from "../fake_device.ts";
import { Disk, type DiskOptions } from "./store_disk.ts";

/** All states of some blocks that the power could leave, by every subset and seed. */
function states(disk: Disk, blocks: number, tear: TearMode = "lba"): string[] {
  const found = new Set<string>();
  const count = disk.store.undecided(disk.inFlight, tear).length;
  assert(count <= 12, `${count}`);
  const seeds = count <= 4 ? 64 : 4;
  for (let bits = 0; bits < 2 ** count; bits++) {
    for (let seed = 0; seed < seeds; seed++) {
      const keep = Uint8Array.of(bits, bits >>> 8);
      found.add(disk.fork({ keep, seed, tear }).slice(0, blocks).join());
    }
  }
  return [...found].sort();
}

/** Fragments of one unflushed write. */
function fragments(
  options: DiskOptions,
  block: number,
  blocks: number,
  tear: TearMode = "lba",
): number {
  const disk = new Disk({ blocks: 128, ...options });
  disk.write(block, blocks, 1);
  return disk.store.undecided([], tear).length;
}

Deno.test("corner case 83: an atomic write without FUA may vanish but is never half there", () => {
  // The driver sends an atomic write as one that fits the power-fail unit.
  const disk = new Disk({ awupf: 7 });
  disk.write(0, 8, 1);
  assertEquals(states(disk, 8), ["0,0,0,0,0,0,0,0", "1,1,1,1,1,1,1,1"]);
  const flying = new Disk({ awupf: 7 });
  flying.start(NVME_CMD_WRITE, 0, 8, 1);
  assertEquals(states(flying, 8), ["0,0,0,0,0,0,0,0", "1,1,1,1,1,1,1,1"]);
});

Deno.test("corner case 87: power-fail fragments by AWUPF, NABSPF and tear mode", () => {
  const units = { awupf: 7, nabspf: 15, nabo: 0 };
  assertEquals(fragments(units, 4, 8), 1);
  assertEquals(fragments(units, 12, 8), 8);
  assertEquals(fragments(units, 0, 16), 16);
  assertEquals(fragments(units, 0, 16, "page"), 2);
});

Deno.test("corner case 88: NABO moves the borders of the cells", () => {
  const units = { awupf: 7, nabspf: 15, nabo: 4 };
  assertEquals(fragments(units, 0, 8), 8);
  assertEquals(fragments(units, 4, 8), 1);
  assertEquals(fragments(units, 12, 8), 1);
  assertEquals(fragments(units, 13, 8), 8);
  assertEquals(fragments(units, 20, 8), 1);
  assertEquals(fragments(units, 29, 8), 8);
});

Deno.test("corner case 131: a flush covers what had completed when it was fetched", () => {
  const disk = new Disk();
  const [w1, w2, w3] = [1, 2, 3].map((tag) =>
    disk.start(NVME_CMD_WRITE, tag, 1, tag)
  );
  disk.end(w3!);
  disk.end(w2!);
  const flush = disk.start(NVME_CMD_FLUSH, 0, 0);
  disk.end(w1!);
  disk.end(flush);
  assertEquals(states(disk, 4), ["0,0,2,3", "0,1,2,3"]);
});

Deno.test("corner case 132: three unflushed single-block writes leave 8 states", () => {
  const disk = new Disk();
  for (const tag of [1, 2, 3]) disk.write(tag - 1, 1, tag);
  assertEquals(states(disk, 3).length, 8);
  assertEquals([...cutStates(disk.undecided())].length, 8);
});

Deno.test("corner case 133: two unflushed writes to one block leave old, first or second", () => {
  const disk = new Disk();
  disk.write(0, 1, 1);
  disk.write(0, 1, 2);
  assertEquals(states(disk, 1), ["0", "1", "2"]);
  assertEquals([...cutStates(disk.undecided())].length, 3);
  // Atomic ones that overlap in part, one after the other: the second is on top.
  const after = new Disk({ awupf: 7 });
  after.write(0, 2, 1);
  after.write(1, 2, 2);
  assertEquals(states(after, 3), ["0,0,0", "0,2,2", "1,1,0", "1,2,2"]);
  // Under way at the same time: either is.
  const both = new Disk({ awupf: 7 });
  const first = both.start(NVME_CMD_WRITE, 0, 2, 1);
  const second = both.start(NVME_CMD_WRITE, 1, 2, 2);
  both.end(first);
  const expected = ["0,0,0", "0,2,2", "1,1,0", "1,1,2", "1,2,2"];
  assertEquals(states(both, 3), expected);
  both.end(second);
  assertEquals(states(both, 3), expected);
});

Deno.test("corner case 134: one write of 8 KiB leaves as many states as its fragments make", () => {
  const count = (o: DiskOptions, blocks: number, tear?: TearMode) =>
    2 ** fragments(o, 0, blocks, tear);
  assertEquals(count({ awupf: 15 }, 16), 2);
  assertEquals(count({ blockSize: 4096 }, 2), 4);
  assertEquals(count({}, 16), 65_536);
  assertEquals(count({}, 16, "page"), 4);
  const disk = new Disk({ blockSize: 4096 });
  disk.write(0, 2, 1);
  assertEquals(states(disk, 2), ["0,0", "0,1", "1,0", "1,1"]);
});

Deno.test("corner case 135: a cut may undo an unflushed deallocation or zone reset", () => {
  const disk = new Disk({ awupf: 3 });
  disk.write(0, 2, 1);
  disk.flush();
  disk.end(disk.start(NVME_CMD_DSM, 0, 2));
  assertEquals(disk.tags(0, 2), [0, 0]);
  assertEquals(states(disk, 2), ["0,0", "1,1"]);

  const zoned = new Disk({ zones: {} });
  zoned.write(0, 4, 1);
  zoned.flush();
  zoned.reset(0);
  assertEquals([zoned.tags(0, 1), zoned.zones!.written(0)], [[0], 0]);
  zoned.cut({ keep: "none" });
  assertEquals(zoned.tags(0, 5), [1, 1, 1, 1, 0]);
  assertEquals(zoned.zones!.written(0), 4 * 512);
  zoned.reset(0);
  zoned.cut({ keep: "all" });
  assertEquals([zoned.tags(0, 1), zoned.zones!.written(0)], [[0], 0]);
});

Deno.test("corner case 136: without a cache what completed survives, what is under way may tear", () => {
  const disk = new Disk({ volatile: false });
  disk.write(0, 2, 1);
  disk.start(NVME_CMD_WRITE, 0, 2, 2);
  assertEquals(states(disk, 2), ["1,1", "1,2", "2,1", "2,2"]);
});

Deno.test("corner case 137: only a liar loses what completed without a cache, or was flushed", () => {
  for (const volatile of [false, true]) {
    for (const lies of [false, true]) {
      const disk = new Disk({ volatile });
      if (lies) disk.faults.add({ kind: "liar" });
      disk.write(0, 1, 1);
      disk.write(1, 1, 2, true);
      assertEquals(disk.flush(), 0);
      assertEquals(disk.store.setVolatile(false), 0);
      assertEquals(disk.tags(0, 2), [1, 2]);
      const left = states(disk, 2);
      assertEquals(left, lies ? ["0,0", "0,2", "1,0", "1,2"] : ["1,2"]);
    }
  }
});

Deno.test("corner case 138: seed, event and bitmap give the same image, byte for byte", () => {
  const run = (options: CutOptions) => {
    const media = new MemoryMedia(64 * 512);
    const disk = new Disk({ media, seed: 7 });
    const old = disk.start(NVME_CMD_WRITE, 0, 12, 1);
    disk.write(4, 12, 2);
    disk.write(0, 3, 3, true);
    disk.end(old);
    disk.zero(20, 9);
    disk.start(NVME_CMD_WRITE, 18, 8, 4);
    const report = disk.cut(options);
    const image = new Uint8Array(media.size);
    media.read(0, image, 0, image.length);
    return { image, report };
  };
  for (const tear of ["lba", "page", "undefined"] as const) {
    const { image, report } = run({ tear });
    assert(report.seed > 0);
    assertEquals(report.event, 9);
    const { seed, kept } = report;
    const again = run({ tear, seed, keep: kept });
    assertEquals(again.image, image);
    assertEquals(again.report.kept, kept);
    const other = run({ tear, seed: seed + 1, keep: "random" });
    assert(other.image.some((byte, i) => byte !== image[i]));
  }
});

/** A disk with zones of 16 blocks, 12 of which can be written. */
function zonedDisk(): Disk {
  return new Disk({ zones: {} });
}

Deno.test("Store.cut() leaves a prefix of a zone, whatever is to be kept", () => {
  for (let bits = 0; bits < 64; bits++) {
    const disk = zonedDisk();
    disk.write(0, 2, 1);
    disk.flush();
    disk.write(2, 2, 2);
    const late = disk.start(NVME_CMD_WRITE, 4, 2, 3);
    // Done before what lies below it.
    disk.write(6, 2, 4);
    void late;
    const { kept } = disk.cut({ keep: Uint8Array.of(bits) });
    const wp = disk.zones!.written(0) / 512;
    const all = [1, 1, 2, 2, 3, 3, 4, 4];
    assertEquals(disk.tags(0, 9), [
      ...all.slice(0, wp),
      ...Array(9 - wp).fill(0),
    ]);
    let count = 0;
    for (let i = 0; i < 6; i++) if ((kept[0]! & (1 << i)) !== 0) count++;
    assertEquals(wp, 2 + count);
    // Fragments: 2, 3 and then 6, 7 as they completed, and 4, 5 under way.
    const inOrder = [0, 1, 4, 5, 2, 3].map((i) => (bits >>> i) & 1);
    assertEquals(count, [...inOrder, 0].indexOf(0));
  }
});

Deno.test("Store.cut() keeps what lies below a zone's durable data", () => {
  const disk = zonedDisk();
  disk.start(NVME_CMD_ZONE_APPEND, 0, 2, 1);
  const second = disk.start(NVME_CMD_ZONE_APPEND, 0, 2, 2, true);
  disk.start(NVME_CMD_ZONE_APPEND, 0, 2, 3);
  assertEquals(disk.end(second), 0);
  disk.cut({ keep: "none" });
  assertEquals(disk.tags(0, 6), [1, 1, 2, 2, 0, 0]);
  assertEquals(disk.zones!.written(0), 4 * 512);
});

Deno.test("Store.cut() takes writes, resets and finishes of a zone in their order", () => {
  // Each event of the zone, in turn, is the last one that persists.
  const left: [number, number[]][] = [];
  for (let keep = 0; keep <= 5; keep++) {
    const disk = new Disk({ zones: {}, awupf: 7 });
    disk.write(0, 2, 1);
    disk.flush();
    disk.write(2, 2, 2);
    disk.reset(0);
    disk.write(0, 1, 3);
    disk.finish(0);
    disk.startReset(0);
    disk.cut({ keep });
    left.push([disk.zones!.cond(0), disk.tags(0, 4)]);
  }
  const [EMPTY, CLOSED, FULL] = [1, 4, 14];
  assertEquals(left, [
    [CLOSED, [1, 1, 0, 0]],
    [CLOSED, [1, 1, 2, 2]],
    [EMPTY, [0, 0, 0, 0]],
    [CLOSED, [3, 0, 0, 0]],
    [FULL, [3, 0, 0, 0]],
    [EMPTY, [0, 0, 0, 0]],
  ]);
});

Deno.test("Store.cut() may leave a copy under way, of what its sources hold, or not", () => {
  const states = new Set<string>();
  for (const keep of ["none", "all"] as const) {
    const disk = new Disk({ awupf: 7 });
    disk.write(0, 2, 1);
    disk.flush();
    disk.write(2, 2, 2);
    const copy = disk.start(NVME_CMD_WRITE, 8, 4);
    copy.opcode = NVME_CMD_COPY;
    copy.memory = null;
    copy.ranges = Float64Array.of(2 * 512, 1024, 0, 1024);
    disk.cut({ keep });
    states.add(disk.tags(8, 4).join());
  }
  assertEquals([...states], ["0,0,0,0", "2,2,1,1"]);
  const unreadable = new Disk();
  unreadable.faults.add({ kind: "latent", sector: 0 });
  const copy = unreadable.start(NVME_CMD_WRITE, 8, 1);
  copy.opcode = NVME_CMD_COPY;
  copy.ranges = Float64Array.of(0, 512);
  assertEquals(unreadable.undecided(), []);
});

Deno.test("Store.cut() leaves the write of a fused pair only if the compare would succeed", () => {
  for (const tag of [1, 2]) {
    const disk = new Disk();
    disk.write(0, 1, 1);
    disk.flush();
    const compare = disk.start(NVME_CMD_WRITE, 0, 1, tag);
    compare.opcode = NVME_CMD_COMPARE;
    const write = disk.start(NVME_CMD_WRITE, 0, 1, 3);
    write.partner = compare;
    compare.partner = write;
    assertEquals(disk.undecided().length, tag === 1 ? 1 : 0);
    disk.cut({ keep: "all" });
    assertEquals(disk.tags(0, 1), [tag === 1 ? 3 : 1]);
  }
});

Deno.test("Store.cut() leaves any of the zones emptied that a command for all was emptying", () => {
  const states = new Set<string>();
  for (let bits = 0; bits < 4; bits++) {
    const disk = zonedDisk();
    disk.write(0, 2, 1);
    disk.write(16, 2, 2);
    disk.flush();
    const all = disk.start(NVME_CMD_FLUSH, 0, 0);
    all.opcode = NVME_CMD_ZONE_MGMT_SEND;
    all.action = NVME_ZONE_RESET;
    const { fragments } = disk.cut({ keep: Uint8Array.of(bits) });
    assertEquals(fragments.map((f) => f.op), ["zone-reset", "zone-reset"]);
    states.add(`${disk.tags(0, 2)};${disk.tags(16, 2)}`);
  }
  assertEquals(states, new Set(["1,1;2,2", "0,0;2,2", "1,1;0,0", "0,0;0,0"]));
});

Deno.test("Store.cut() lets a reset under way fail where it would", () => {
  const disk = new Disk({ zones: { conventional: 1 } });
  for (const zone of [0, 1, 2]) disk.write(zone * 16, 1, zone + 1);
  disk.flush();
  disk.faults.add({ kind: "bad-zone", zone: 1, state: "read-only" });
  for (const zone of [0, 1, 2]) disk.startReset(zone);
  disk.cut({ keep: "all" });
  assertEquals([0, 16, 32].flatMap((b) => disk.tags(b, 1)), [1, 2, 0]);
});

Deno.test("Store: a write through in a zone takes with it what is below", () => {
  const disk = zonedDisk();
  disk.write(0, 3, 1);
  disk.write(16, 3, 2);
  disk.write(3, 1, 3, true);
  disk.cut({ keep: "none" });
  assertEquals(disk.tags(0, 4), [1, 1, 1, 3]);
  assertEquals(disk.tags(16, 3), [0, 0, 0]);
  assertEquals(disk.zones!.written(1), 0);
});

Deno.test('Store.cut() in mode "undefined" ruins blocks of large writes under way, no others', () => {
  let garbage = 0;
  let unreadable = 0;
  for (let seed = 1; seed <= 40; seed++) {
    const disk = new Disk({ awupf: 1 });
    disk.write(0, 16, 1);
    disk.flush();
    disk.write(0, 4, 2);
    disk.start(NVME_CMD_WRITE, 4, 4, 3);
    disk.start(NVME_CMD_WRITE, 8, 2, 4);
    disk.cut({ keep: "none", tear: "undefined", seed });
    const block = new Uint8Array(512);
    for (let b = 0; b < 16; b++) {
      const isTorn = b >= 4 && b < 8;
      if (!isTorn) assertEquals(disk.tags(b, 1), [1]);
      else if (disk.read(b, block) !== 0) unreadable++;
      else if (block.some((byte) => byte > 1)) garbage++;
    }
  }
  assert(garbage > 20 && unreadable > 20, `${garbage} ${unreadable}`);
});

Deno.test("Store.fork() leaves the device as it is, however often", () => {
  const disk = new Disk();
  disk.write(0, 4, 1);
  disk.flush();
  disk.write(2, 4, 2);
  const before = disk.tags();
  assertEquals(disk.fork({ keep: "none" }).slice(0, 6), [1, 1, 1, 1, 0, 0]);
  assertEquals(disk.fork({ keep: 3 }).slice(0, 6), [1, 1, 2, 2, 2, 0]);
  assertEquals(disk.fork({ keep: "all" }), before);
  assertEquals(disk.tags(), before);
  disk.write(0, 1, 9, true);
  assertEquals(disk.fork({ keep: "none" }).slice(0, 2), [9, 1]);
});

Deno.test("cutStates() tries each state once, and as many as are asked for", () => {
  const disk = new Disk();
  for (let i = 0; i < 12; i++) disk.write(i, 1, 1);
  assertEquals([...cutStates(disk.undecided(), { limit: 5000 })].length, 4096);
  assertEquals([...cutStates(disk.undecided(), { limit: 10 })].length, 10);
  // Newer ones hide older ones: 3 states a block.
  for (let i = 0; i < 4; i++) disk.write(i, 1, 2);
  const found = new Set<string>();
  for (const keep of cutStates(disk.undecided(), { limit: 300, seed: 3 })) {
    found.add(disk.fork({ keep }).join());
  }
  assertEquals(found.size, 300);
  assertEquals([...cutStates([])], [new Uint8Array(0)]);
});

Deno.test("cutStates() has none, all, prefixes, all but one, only one, pairs and torn writes", () => {
  const disk = new Disk();
  // Completed in another order than submitted, and one under way.
  const first = disk.start(NVME_CMD_WRITE, 0, 1, 1);
  for (let i = 1; i < 12; i++) disk.write(i, 1, i + 1);
  disk.end(first);
  disk.start(NVME_CMD_WRITE, 20, 4, 20);
  const list = disk.undecided();
  assertEquals(list.length, 16);
  const all = [...cutStates(list, { limit: 350 })].map((kept) =>
    kept[0]! | (kept[1]! << 8)
  );
  const has = (bits: number) => assert(all.includes(bits), bits.toString(2));
  for (let n = 0; n <= 16; n++) has(2 ** n - 1);
  // In the order of submission number 11 comes first.
  for (let n = 0; n <= 11; n++) has((2 ** n - 1) | (1 << 11));
  for (let i = 0; i < 16; i++) {
    has(1 << i);
    has(0xffff & ~(1 << i));
    for (let j = 0; j < i; j++) {
      has((1 << i) | (1 << j));
      has(0xffff & ~((1 << i) | (1 << j)));
    }
  }
  for (let n = 12; n <= 16; n++) has(2 ** n - 1);
  assertEquals(new Set(all).size, 350);
});

Deno.test("cutStates() is bounded where there is much, and deterministic", () => {
  const disk = new Disk({ blocks: 4096, capacity: 2 ** 24 });
  for (let i = 0; i < 400; i++) disk.write(i * 10, 8, 1);
  disk.end(disk.start(NVME_CMD_WRITE_ZEROES, 0, 4096));
  const list = disk.undecided();
  assertEquals(list.length, 400 * 8 + 64);
  const once = [...cutStates(list, { limit: 50, seed: 2 })];
  assertEquals(once, [...cutStates(list, { limit: 50, seed: 2 })]);
  assertEquals(once.length, 50);
});

const bad: [CutOptions, string][] = [
  [{ seed: 0.5 }, "seed 0.5"],
  [{ keep: "some" as "all" }, 'keep "some"'],
  [{ keep: -1 }, "keep -1"],
  [{ keep: 1.5 }, "keep 1.5"],
  [{ p: 2 }, "p 2"],
  [{ p: NaN }, "p NaN"],
  [{ tear: "sector" as "lba" }, 'tear "sector"'],
  [{ kept: 1 } as CutOptions, '"kept"'],
  [null as unknown as CutOptions, "options are null"],
];
for (const [options, says] of bad) {
  Deno.test(`checkCutOptions() refuses ${says}`, () => {
    const error = assertThrows(() => checkCutOptions(options), FsError, says);
    assertEquals(error.code, "EINVAL");
  });
}

Deno.test("cutStates() refuses a limit or a seed that cannot be", () => {
  const code = (o: object) =>
    assertThrows(() => [...cutStates([], o)], FsError).code;
  assertEquals(code({ limit: 0 }), "EINVAL");
  assertEquals(code({ seed: 1.5 }), "EINVAL");
});

/** A database that writes a record and then, having flushed or not, that it is valid. */
async function commit(device: NvmeDevice, flushes: boolean): Promise<void> {
  const put = async (sector: number, byte: number, flags = 0) => {
    const bio = makeBio(device, REQ_OP_WRITE | flags, sector, 8);
    bio.vecs[0]!.data.fill(byte);
    assertEquals(await submitBioWait(bio), 0);
  };
  await put(8, 7);
  await put(16, 7);
  await put(0, 1, flushes ? REQ_PREFLUSH : 0);
}

/** First bytes of the record's pages and of the mark that it is valid. */
async function found(device: NvmeDevice): Promise<number[]> {
  const bytes = [];
  for (const sector of [8, 16, 0]) {
    const bio = makeBio(device, REQ_OP_READ, sector, 8);
    assertEquals(await submitBioWait(bio), 0);
    bytes.push(bio.vecs[0]!.data[0]!);
  }
  return bytes;
}

for (const flushes of [false, true]) {
  const verb = flushes ? "does not find" : "finds";
  Deno.test(`NvmeDevice.fork() through all cutStates() ${verb} what a missing flush breaks`, async () => {
    const dir = Deno.makeTempDirSync();
    try {
      for (const inFile of [false, true]) {
        const size = 2 ** 20;
        const media = inFile
          ? FileMedia.open(`${dir}/disk.img`, { size })
          : new MemoryMedia(size);
        const clock = new VirtualClock();
        // Pages are written whole.
        const atomics = { awun: 7, nawun: 7, awupf: 7, nawupf: 7 };
        const device = createNvme(clock, {
          media,
          preset: "mlc-970pro",
          atomics,
        });
        await commit(device, flushes);
        // And one that is under way.
        submitBio(makeBio(device, REQ_OP_WRITE, 24, 8));
        const fragments = device.undecided();
        assertEquals(fragments.length, flushes ? 2 : 4);
        assertEquals(fragments.at(-1)!.completed, false);
        let broken = 0;
        let states = 0;
        for (const keep of cutStates(fragments)) {
          const { device: left, report } = device.fork({ keep });
          assertEquals(report.kept, keep);
          const [a, b, valid] = await found(left);
          if (valid === 1 && (a !== 7 || b !== 7)) broken++;
          states++;
          left.close();
        }
        assertEquals([states, broken], flushes ? [4, 0] : [16, 6]);
        // It has gone on meanwhile.
        assertEquals(await found(device), [7, 7, 1]);
        device.close();
      }
    } finally {
      Deno.removeSync(dir, { recursive: true });
    }
  });
}
