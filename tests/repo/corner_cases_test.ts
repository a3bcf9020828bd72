/**
 * Every numbered corner case of the block layer and the device is a test that
 * bears its number, once.
 */
import { assertEquals } from "@std/assert";
import { resolve } from "node:path";

const TESTS = resolve(import.meta.dirname!, "..");
const CASES = 152;

async function* testFiles(folder: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) yield* testFiles(path);
    else if (path.endsWith("_test.ts")) yield path;
  }
}

/** Numbers in names like `corner case 31: …`, in whatever order. */
function numbers(text: string): number[] {
  return [...text.matchAll(/["'`]corner case (\d+): /g)].map((m) =>
    Number(m[1])
  );
}

Deno.test("each corner case from 1 to 152 is one test", async () => {
  const count = new Map<number, number>();
  for (const folder of ["block", "lib", "fs"]) {
    for await (const path of testFiles(`${TESTS}/${folder}`)) {
      for (const n of numbers(await Deno.readTextFile(path))) {
        count.set(n, (count.get(n) ?? 0) + 1);
      }
    }
  }
  const all = Array.from({ length: CASES }, (_, i) => i + 1);
  assertEquals({
    missing: all.filter((n) => !count.has(n)),
    repeated: all.filter((n) => count.get(n)! > 1),
  }, { missing: [], repeated: [] });
});
