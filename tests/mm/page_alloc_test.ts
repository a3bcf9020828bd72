import { assert, assertEquals, assertThrows } from "@std/assert";
import { Prng } from "../../lib/prng.ts";
import {
  CHUNK_FRAMES,
  FIRST_FRAME,
  PageAllocator,
} from "../../mm/page-alloc.ts";

Deno.test("PageAllocator.alloc() gives ascending frames of one chunk", () => {
  const pages = new PageAllocator(2);
  const frames = [0, 1, 2, 3].map(() => pages.alloc(0));
  assertEquals(frames, [0, 1, 2, 3].map((n) => FIRST_FRAME + n));
  const start = pages.offsetOf(frames[0]!);
  assertEquals(pages.offsetOf(frames[3]!), start + 3 * 4096);
  assert(pages.slabOf(frames[0]!) === pages.slabOf(frames[3]!));
  // No more than there may ever be.
  assertEquals(pages.slabOf(frames[0]!).length, 3 * 2 ** 21);
});

Deno.test("PageAllocator.alloc() answers 0 when the last chunk is given out", () => {
  const pages = new PageAllocator(2);
  assertEquals([pages.alloc(9), pages.alloc(9)], [512, 1024]);
  assertEquals(pages.alloc(0), 0);
  pages.free(1024, 9);
  assertEquals(pages.alloc(0), 1024);
});

Deno.test("PageAllocator.free() joins buddies back to a whole chunk", () => {
  const pages = new PageAllocator(1);
  const frames = Array.from({ length: CHUNK_FRAMES }, () => pages.alloc(0));
  assertEquals(pages.alloc(0), 0);
  for (const frame of frames.reverse()) pages.free(frame, 0);
  assertEquals(pages.used, 0);
  assertEquals(pages.alloc(9), FIRST_FRAME);
});

Deno.test("PageAllocator.free() takes the parts of a block one by one", () => {
  const pages = new PageAllocator(1);
  const frame = pages.alloc(9);
  pages.free(frame + 256, 8);
  pages.free(frame, 7);
  pages.free(frame + 128, 7);
  assertEquals(pages.alloc(9), frame);
});

Deno.test("PageAllocator.free() throws when a frame is freed twice", () => {
  const pages = new PageAllocator(1);
  const [frame] = [pages.alloc(0), pages.alloc(0)];
  pages.free(frame!, 0);
  assertThrows(() => pages.free(frame!, 0), Error, "freed twice");
});

// Goal: no two blocks overlap, all are aligned, nothing is lost. Method: random
// calls. Oracle: a byte per frame.
Deno.test("PageAllocator agrees with a model under random use", () => {
  for (const seed of [1, 2, 3]) {
    const random = new Prng(seed, "page-alloc");
    const chunks = 4;
    const pages = new PageAllocator(chunks);
    const taken = new Uint8Array((chunks + 1) * CHUNK_FRAMES);
    const blocks: [number, number][] = [];
    for (let round = 0; round < 4000; round++) {
      if (random.below(100) < 55) {
        const order = random.below(10);
        const frame = pages.alloc(order);
        if (frame === 0) continue;
        assertEquals(frame % 2 ** order, 0);
        const part = taken.subarray(frame, frame + 2 ** order);
        assert(part.every((byte) => byte === 0), `overlap at ${frame}`);
        part.fill(1);
        blocks.push([frame, order]);
      } else if (blocks.length > 0) {
        const [block] = blocks.splice(random.below(blocks.length), 1);
        const [frame, order] = block!;
        taken.fill(0, frame, frame + 2 ** order);
        pages.free(frame, order);
      }
      assertEquals(pages.used, blocks.reduce((n, b) => n + 2 ** b[1], 0));
    }
    for (const [frame, order] of blocks) pages.free(frame, order);
    for (let n = 0; n < chunks; n++) assert(pages.alloc(9) !== 0);
  }
});
