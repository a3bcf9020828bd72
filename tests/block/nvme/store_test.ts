import { assert, assertEquals } from "@std/assert";
import { MemoryMedia } from "../../../block/nvme/media.ts";
import {
  NVME_CMD_DSM,
  NVME_CMD_FLUSH,
  NVME_CMD_WRITE,
  NVME_CMD_WRITE_UNCOR,
  NVME_CMD_WRITE_ZEROES,
  NVME_SC_COMPARE_FAILED,
  NVME_SC_DATA_XFER_ERROR,
  NVME_SC_READ_ERROR,
  NVME_SC_WRITE_FAULT,
} from "../../../block/nvme/nvme.ts";
import type { TearMode } from "../../../block/nvme/power-cut.ts";
import { EIO } from "../../../lib/errno.ts";
import { Prng } from "../../../lib/prng.ts";
import { Disk, fill, memoryOf, type TestCommand } from "./store_disk.ts";

/** What may be in a block; independent of how the store keeps it. */
interface Version {
  tag: number;
  submitted: number;
  completed: number;
  durable: boolean;
  /** First block and blocks of a write that is whole or not at all. */
  atomic: [number, number] | null;
}

/**
 * The oracle: versions of each block. A reader sees the one that was completed
 * last. A survivor may find any but those for which there is a durable one that was
 * submitted after they had completed.
 */
class Oracle {
  readonly blocks: Version[][];
  time = 0;

  constructor(count: number) {
    this.blocks = Array.from({ length: count }, () => [{
      tag: 0,
      submitted: -1,
      completed: -1,
      durable: true,
      atomic: null,
    }]);
  }

  submit(block: number, count: number, tag: number, atomic: boolean): Version {
    const version: Version = {
      tag,
      submitted: ++this.time,
      completed: Infinity,
      durable: false,
      atomic: atomic ? [block, count] : null,
    };
    for (let b = block; b < block + count; b++) this.blocks[b]!.push(version);
    return version;
  }

  complete(version: Version, durable: boolean): void {
    version.completed = ++this.time;
    version.durable = durable;
  }

  /** All that had completed at `horizon` is durable. */
  flush(horizon: number): void {
    for (const versions of this.blocks) {
      for (const v of versions) if (v.completed <= horizon) v.durable = true;
    }
  }

  newest(block: number): number {
    const done = this.blocks[block]!.filter((v) => v.completed < Infinity);
    return done.reduce((a, b) => a.completed > b.completed ? a : b).tag;
  }

  /** Checks what a cut has left, and goes on from there. */
  survive(tags: number[]): void {
    const found = tags.map((tag, block) => {
      const all = this.blocks[block]!;
      const may = all.filter((v) =>
        !all.some((w) => w.durable && w.submitted > v.completed)
      );
      // Zeroes are all alike: the latest is the one to which least can be objected.
      const same = may.filter((v) => v.tag === tag);
      const tags = may.map((v) => v.tag);
      assert(same.length > 0, `block ${block} has ${tag}, not of ${tags}`);
      return same.reduce((a, b) => a.completed > b.completed ? a : b);
    });
    for (const v of new Set(found)) {
      if (v.atomic === null) continue;
      const [first, count] = v.atomic;
      for (let b = first; b < first + count; b++) {
        const other = found[b]!;
        assert(
          other === v || other.completed > v.submitted,
          `block ${b} has ${other.tag}, older than atomic ${v.tag}`,
        );
      }
    }
    found.forEach((v, block) => {
      this.blocks[block] = [{ ...v, completed: ++this.time, durable: true }];
      this.blocks[block]![0]!.atomic = null;
    });
  }
}

const TEARS: TearMode[] = ["lba", "page"];

/** One seed's run of random commands and cuts. */
function run(seed: number, rounds: number): void {
  const random = new Prng(seed, "store test");
  const blocks = 64;
  const awupf = random.below(2) * 7;
  const disk = new Disk({
    blocks,
    awupf,
    capacity: random.below(3) === 0 ? 8192 : 2 ** 20,
    volatile: random.below(5) > 0,
    seed,
  });
  const { store } = disk;
  let oracle = new Oracle(blocks);
  const pending = new Map<TestCommand, Version | number>();
  let tag = 0;
  const submit = () => {
    const kind = random.below(12);
    const count = 1 + random.below(12);
    const block = random.below(blocks - count + 1);
    const fua = random.below(6) === 0;
    const opcode = kind === 0
      ? NVME_CMD_WRITE_ZEROES
      : kind === 1
      ? NVME_CMD_DSM
      : NVME_CMD_WRITE;
    if (kind === 2) {
      pending.set(disk.start(NVME_CMD_FLUSH, 0, 0), ++oracle.time);
      return;
    }
    const data = opcode === NVME_CMD_WRITE ? ++tag : 0;
    const isFua = fua && opcode !== NVME_CMD_DSM;
    const command = disk.start(opcode, block, count, data, isFua);
    const atomic = data > 0 && count <= awupf + 1;
    pending.set(command, oracle.submit(block, count, data, atomic));
  };
  const complete = () => {
    const [command, what] = [...pending][random.below(pending.size)]!;
    pending.delete(command);
    assertEquals(disk.end(command), 0);
    if (typeof what === "number") oracle.flush(what);
    else oracle.complete(what, command.fua || !store.volatile);
  };
  for (let round = 0; round < rounds; round++) {
    const what = random.below(100);
    if (what < 50 || pending.size === 0) submit();
    else if (what < 90) complete();
    else if (what < 95) {
      const block = random.below(blocks);
      assertEquals(disk.tags(block, 1), [oracle.newest(block)]);
    } else if (what < 96) {
      assertEquals(store.setVolatile(!store.volatile), 0);
      if (!store.volatile) oracle.flush(oracle.time);
    } else if (what < 98) {
      const tear = TEARS[random.below(2)]!;
      if (random.below(2) === 0) {
        // A fork finds what is allowed, too, and changes nothing here.
        const copy = Object.assign(new Oracle(blocks), {
          blocks: oracle.blocks.map((v) => v.slice()),
          time: oracle.time,
        });
        copy.survive(disk.fork({ tear }));
        continue;
      }
      disk.cut({ tear });
      pending.clear();
      oracle.survive(disk.tags());
      // In flight are no more: nobody will complete them.
      oracle = Object.assign(new Oracle(blocks), {
        blocks: oracle.blocks,
        time: oracle.time,
      });
    }
  }
}

Deno.test("Store leaves what the rules allow, whatever is cut when", () => {
  // Random writes, FUA, zeroes, deallocations, flushes and changes of the cache,
  // several under way at once, and cuts and forks at any moment; the oracle knows
  // for each block what may be there.
  for (let seed = 1; seed <= 300; seed++) run(seed, 150);
});

Deno.test("Store.read() gives the newest of each block, and writes of any size stay whole", () => {
  const disk = new Disk();
  disk.write(0, 8, 1);
  disk.write(2, 2, 2);
  disk.zero(5, 1);
  assertEquals(disk.tags(0, 9), [1, 1, 2, 2, 1, 0, 1, 1, 0]);
  disk.write(3, 1, 3, true);
  assertEquals(disk.tags(0, 5), [1, 1, 2, 3, 1]);
  assertEquals(disk.flush(), 0);
  assertEquals(disk.tags(0, 9), [1, 1, 2, 3, 1, 0, 1, 1, 0]);
  assertEquals(disk.fork(), disk.tags());
});

Deno.test("Store: the oldest become durable by themselves, in order, when the cache is full", () => {
  const disk = new Disk({ capacity: 4 * 512 });
  for (let i = 0; i < 6; i++) disk.write(i, 1, i + 1);
  assertEquals(disk.fork({ keep: "none" }).slice(0, 6), [1, 2, 0, 0, 0, 0]);
  // What is larger than the cache goes through.
  disk.write(8, 5, 9);
  assertEquals(disk.fork({ keep: "none" }).slice(8, 14), [9, 9, 9, 9, 9, 0]);
});

Deno.test("Store: a deallocation of any size is one version", () => {
  const disk = new Disk({ blocks: 2 ** 31, media: new MemoryMedia(2 ** 40) });
  disk.write(5, 1, 5);
  disk.flush();
  for (let i = 0; i < 100; i++) {
    disk.end(disk.start(NVME_CMD_DSM, 0, 2 ** 31));
    disk.write(i * 1000, 1, i + 1);
  }
  assertEquals(disk.tags(5, 1), [0]);
  assertEquals(disk.tags(99_000, 1), [100]);
  assert(disk.undecided().length < 100 * 70);
  disk.cut({ keep: "none" });
  assertEquals(disk.tags(5, 1), [5]);
});

Deno.test("Store.flush() keeps volatile what it could not write, and fails", () => {
  const media = new MemoryMedia(64 * 512);
  const disk = new Disk({ media });
  disk.write(1, 1, 1);
  const { write } = media;
  media.write = () => -EIO;
  assertEquals(disk.flush(), NVME_SC_WRITE_FAULT);
  assertEquals(disk.tags(1, 1), [1]);
  media.write = write;
  assertEquals(disk.fork({ keep: "none" })[1], 0);
  assertEquals(disk.flush(), 0);
  assertEquals(disk.fork({ keep: "none" })[1], 1);
});

Deno.test("Store: a write through comes after what is older of its range, also in the cache", () => {
  const disk = new Disk();
  disk.write(0, 8, 1);
  disk.write(2, 2, 2, true);
  disk.write(3, 1, 3);
  for (const keep of ["none", "all"] as const) {
    const rest = keep === "all" ? 1 : 0;
    const three = keep === "all" ? 3 : 2;
    assertEquals(
      disk.fork({ keep }).slice(0, 5),
      [rest, rest, 2, three, rest],
    );
  }
  disk.flush();
  assertEquals(disk.tags(0, 5), [1, 1, 2, 3, 1]);
});

Deno.test("Store.uncorrectable() lasts until the blocks are written, and may be lost", () => {
  const disk = new Disk();
  disk.write(0, 4, 1);
  disk.flush();
  assertEquals(disk.end(disk.start(NVME_CMD_WRITE_UNCOR, 1, 2)), 0);
  assertEquals(disk.tags(0, 4), [1, -1, -1, 1]);
  assertEquals(disk.store.verify(0, 512), 0);
  assertEquals(disk.store.verify(0, 1024), NVME_SC_READ_ERROR);
  disk.write(1, 1, 2);
  assertEquals(disk.tags(0, 4), [1, 2, -1, 1]);
  disk.cut({ keep: "none" });
  assertEquals(disk.tags(0, 4), [1, 1, 1, 1]);
  disk.end(disk.start(NVME_CMD_WRITE_UNCOR, 1, 2));
  disk.flush();
  disk.cut({ keep: "none" });
  assertEquals(disk.tags(0, 4), [1, -1, -1, 1]);
  assertEquals(disk.store.verify(0, 1024), NVME_SC_READ_ERROR);
  disk.zero(1, 2);
  assertEquals(disk.tags(0, 4), [1, 0, 0, 1]);
});

Deno.test("Store: memory that has gone is a transfer error, and nothing happens", () => {
  for (const volatile of [false, true]) {
    const disk = new Disk({ volatile });
    const command = disk.start(NVME_CMD_WRITE, 0, 4, 1);
    (command.memory!.vecs[0]!.data.buffer as ArrayBuffer).transfer();
    assertEquals(disk.end(command), NVME_SC_DATA_XFER_ERROR);
    const short = disk.start(NVME_CMD_WRITE, 0, 4, 1);
    short.memory = memoryOf(new Uint8Array(512));
    assertEquals(disk.end(short), NVME_SC_DATA_XFER_ERROR);
    assertEquals(disk.tags(0, 4), [0, 0, 0, 0]);
    assertEquals(disk.read(0, new Uint8Array(0)), 0);
    // What is under way then has nothing to leave.
    const gone = disk.start(NVME_CMD_WRITE, 0, 4, 1);
    gone.memory = null;
    assertEquals(disk.undecided(), []);
  }
});

Deno.test("Store takes memory of several bios", () => {
  const disk = new Disk();
  const [a, b] = [fill(2, 512, 1), fill(3, 512, 2)];
  const second = memoryOf(b, 512);
  const memory = { ...memoryOf(a, 700), next: second };
  const command = disk.start(NVME_CMD_WRITE, 3, 5);
  command.memory = memory;
  assertEquals(disk.end(command), 0);
  assertEquals(disk.tags(2, 7), [0, 1, 1, 2, 2, 2, 0]);
  const { store } = disk;
  assertEquals(store.compare(3 * 512, 5 * 512, memory), 0);
  assertEquals(
    store.compare(4 * 512, 5 * 512, memory),
    NVME_SC_COMPARE_FAILED,
  );
});
