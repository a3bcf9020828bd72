/**
 * Many tasks on few files in little memory.
 */
import { assert, assertEquals } from "@std/assert";
import { VirtualClock } from "../../lib/clock.ts";
import { IovIter } from "../../lib/iov-iter.ts";
import { Prng } from "../../lib/prng.ts";
import { setScheduler } from "../../lib/wait.ts";
import {
  FGP_DONTCACHE,
  FGP_WRITEBEGIN,
  filemapGetFolio,
  filemapRead,
  filemapWriteAndWaitRange,
} from "../../mm/filemap.ts";
import { folioMarkDirty } from "../../mm/filemap.ts";
import { folioMarkUptodate, folioPut, folioUnlock } from "../../mm/folio.ts";
import { IOCB_DONTCACHE } from "../../mm/iocb-flags.ts";
import { Mm } from "../../mm/mm.ts";
import { balanceDirtyPagesRatelimited } from "../../mm/page-writeback.ts";
import {
  invalidateInodePages2Range,
  invalidateMappingPages,
  truncatePagecacheRange,
} from "../../mm/truncate.ts";
import { shrinkFolios } from "../../mm/vmscan.ts";
import { checkMm } from "./check_mm.ts";
import { FakeFile, type Reader } from "./fake_file.ts";

const PAGE = 4096;
const PAGES = 700;

/** A page says which it is and who has written it last, all over. */
function stamp(bytes: Uint8Array, at: number, index: number, who: number) {
  new Uint16Array(bytes.buffer, bytes.byteOffset + at, PAGE / 2).fill(
    (index << 5) + who,
  );
}

function checkPage(bytes: Uint8Array, at: number, index: number): void {
  const words = new Uint16Array(bytes.buffer, bytes.byteOffset + at, PAGE / 2);
  const [first] = words;
  assert(words.every((word) => word === first), `page ${index} is torn`);
  assert(first === 0 || first! >> 5 === index, `page ${index} is another's`);
}

class Task {
  readonly random: Prng;
  readonly reader: Reader;

  constructor(readonly file: FakeFile, seed: number, readonly who: number) {
    this.random = new Prng(seed, `task ${who}`);
    this.reader = file.open();
  }

  async run(rounds: number, check: () => void): Promise<void> {
    for (let i = 0; i < rounds; i++) {
      this.file.latency = this.random.below(4) * 5000;
      await this.#op();
      check();
    }
  }

  async #op(): Promise<unknown> {
    const { random, file } = this;
    const { mapping } = file;
    const index = random.below(PAGES);
    const count = Math.min(PAGES - index, 1 + random.below(60));
    const start = index * PAGE;
    const last = start + count * PAGE - 1;
    const choice = random.below(20);
    if (choice < 8) return await this.#read(index, count);
    if (choice < 15) return await this.#write(index, count);
    if (choice === 15) {
      return assertEquals(
        await filemapWriteAndWaitRange(mapping, start, last),
        0,
      );
    }
    if (choice === 16) return invalidateMappingPages(mapping, index, index + 9);
    if (choice === 17) return shrinkFolios(mapping.mm, 1 + random.below(100));
    await mapping.invalidateLock.downWrite();
    if (choice === 18) {
      await invalidateInodePages2Range(mapping, start, last);
    } else {
      await truncatePagecacheRange(mapping, start, last);
    }
    mapping.invalidateLock.upWrite();
  }

  async #read(index: number, count: number): Promise<void> {
    const { random, reader } = this;
    const buffer = new Uint8Array(count * PAGE);
    reader.flags = random.below(4) === 0 ? IOCB_DONTCACHE : 0;
    reader.pos = index * PAGE;
    const n = await filemapRead(reader, new IovIter(buffer));
    assertEquals(n, buffer.length);
    for (let i = 0; i < count; i++) checkPage(buffer, i * PAGE, index + i);
  }

  async #write(first: number, count: number): Promise<void> {
    const { file, random, who } = this;
    const dontcache = random.below(4) === 0 ? FGP_DONTCACHE : 0;
    for (let index = first; index < first + count;) {
      await balanceDirtyPagesRatelimited(file.mapping, false);
      const fgp = FGP_WRITEBEGIN | dontcache;
      const size = (first + count - index) * PAGE;
      const folio = await filemapGetFolio(file.mapping, index, fgp, size);
      assert(typeof folio !== "number", `no folio: ${folio}`);
      const end = folio.index + folio.size / PAGE;
      if (!folio.uptodate) {
        const old = file.disk.subarray(folio.pos, folio.pos + folio.size);
        folio.data.set(old, folio.offset);
      }
      for (; index < Math.min(end, first + count); index++) {
        const at = folio.offset + index * PAGE - folio.pos;
        stamp(folio.data, at, index, who);
      }
      folioMarkUptodate(folio);
      folioMarkDirty(folio);
      folioUnlock(folio);
      folioPut(folio);
    }
  }
}

/** Lets tasks go on in any order. */
function shuffled(random: Prng): (resume: () => void) => void {
  const waiting: (() => void)[] = [];
  return (resume) => {
    waiting.push(resume);
    queueMicrotask(() => {
      const [next] = waiting.splice(random.below(waiting.length), 1);
      next!();
    });
  };
}

// Goal: no list, tag or counter drifts, no page is torn and none is lost in memory,
// whatever goes on at the same time. Method: tasks that read, write, sync, truncate,
// invalidate and reclaim at random, woken in any order. Oracle: a page's own contents;
// everything counted again after each call.
Deno.test("lists, tags and counters agree whatever many tasks do", async () => {
  for (let seed = 1; seed <= 4; seed++) {
    const random = new Prng(seed, "stress");
    const mm = new Mm(new VirtualClock(), { memory: 2 ** (20 + seed % 3) });
    const files = [0, seed % 7, 9].map((maxOrder) => {
      const file = new FakeFile({ mm, maxOrder, size: PAGES * PAGE });
      file.disk.fill(0);
      return file;
    });
    const mappings = files.map(({ mapping }) => mapping);
    const before = setScheduler(shuffled(random));
    try {
      const tasks = Array.from(
        { length: 15 },
        (_, who) => new Task(files[who % 3]!, seed, who + 1),
      );
      await Promise.all(
        tasks.map((task) => task.run(30, () => checkMm(mm, mappings))),
      );
      for (const { mapping } of files) {
        await filemapWriteAndWaitRange(mapping, 0, Infinity);
        await truncatePagecacheRange(mapping, 0, Infinity);
      }
      checkMm(mm, mappings);
      assertEquals([mm.nrPages, mm.nrDirty, mm.shadowNodes.size], [0, 0, 0]);
    } finally {
      setScheduler(before);
    }
  }
});
