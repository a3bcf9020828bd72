import { assert } from "@std/assert";
import { setLogHandler } from "../../../lib/printk.ts";
import { fuzzBases, runFuzz } from "./fuzz.ts";

Deno.test("xfs answers with nothing but errors when an image is spoilt", async () => {
  const bases = await fuzzBases(1);
  const old = setLogHandler(() => {});
  let [mounted, failed] = [0, 0];
  try {
    for (let seed = 0; seed < 120; seed++) {
      const report = await runFuzz(bases[seed % bases.length]!, seed);
      if (report.mounted) mounted++;
      if (report.errors.has("EUCLEAN")) failed++;
    }
  } finally {
    setLogHandler(old);
  }
  // If all were refused, or none, nothing would have been tried.
  assert(mounted > 60 && failed > 40, `${mounted} mounted, ${failed} failed`);
});
