import { assert, assertEquals } from "@std/assert";
import { VirtualClock } from "../../lib/clock.ts";
import { Prng } from "../../lib/prng.ts";
import { PAGE_SIZE } from "../../mm/folio.ts";
import { Mm } from "../../mm/mm.ts";
import { PageViews } from "../../mm/page-views.ts";

Deno.test("PageViews.get() makes no view of what is wanted for the third time in a row", () => {
  const folio = new Mm(new VirtualClock()).newFolio(2, false)!;
  const views = new PageViews();
  const get = () => views.get(folio, folio.offset + PAGE_SIZE, PAGE_SIZE);
  assert(get() !== get());
  assert(get() === get());
});

// Goal: a view is always of the bytes that were asked for, whatever is kept. Method:
// random ranges of few folios, so that kept views are near misses, seed 1. Oracle:
// subarray().
Deno.test("PageViews.get() gives the bytes that were asked for", () => {
  const mm = new Mm(new VirtualClock(), { memory: 2 ** 27 });
  const views = new PageViews();
  const random = new Prng(1, "page-views");
  const folios = Array.from({ length: 32 }, () => mm.newFolio(9, false)!);
  for (let i = 0; i < 50_000; i++) {
    const folio = folios[random.below(folios.length)]!;
    const page = random.below(3) * PAGE_SIZE;
    const offset = folio.offset + page + random.below(2) * 1024;
    const len = 512 + random.below(2) * 1024;
    const want = folio.data.subarray(offset, offset + len);
    const got = views.get(folio, offset, len);
    assert(got.buffer === want.buffer);
    assertEquals([got.byteOffset, got.length], [offset, len]);
  }
});
