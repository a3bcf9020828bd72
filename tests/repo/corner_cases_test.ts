/**
 * Every numbered corner case is a test that bears its number, once: those of the
 * block layer and the device, and those of iomap and the page cache.
 */
import { assertEquals } from "@std/assert";
import { resolve } from "node:path";

const TESTS = resolve(import.meta.dirname!, "..");

async function* testFiles(folder: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) yield* testFiles(path);
    else if (path.endsWith("_test.ts")) yield path;
  }
}

/** Whole numbers from `first` to `last`. */
function range(first: number, last = first): string[] {
  return Array.from({ length: last - first + 1 }, (_, i) => `${first + i}`);
}

/** How often each number stands in a name like `corner case 31: …`. */
async function countNames(pattern: RegExp): Promise<Map<string, number>> {
  const count = new Map<string, number>();
  for (const folder of ["block", "lib", "mm", "iomap", "fs"]) {
    for await (const path of testFiles(`${TESTS}/${folder}`)) {
      for (const match of (await Deno.readTextFile(path)).matchAll(pattern)) {
        count.set(match[1]!, (count.get(match[1]!) ?? 0) + 1);
      }
    }
  }
  return count;
}

async function assertOnceEach(
  pattern: RegExp,
  numbers: readonly string[],
): Promise<void> {
  const count = await countNames(pattern);
  assertEquals({
    missing: numbers.filter((n) => !count.has(n)),
    repeated: numbers.filter((n) => count.get(n)! > 1),
    unknown: [...count.keys()].filter((n) => !numbers.includes(n)),
  }, { missing: [], repeated: [], unknown: [] });
}

Deno.test("each corner case of the block layer and the device is one test", () =>
  assertOnceEach(/["'`]corner case (\d+): /g, range(1, 152)));

/** Of what is not here: DAX, and the ext4-like file system. */
const LATER = [
  ...range(127, 136),
  ...["160", "164", "170", "171"],
];

Deno.test("each corner case of iomap and the page cache is one test", () =>
  assertOnceEach(
    /["'`]iomap corner case (\d+a?): /g,
    [...range(1, 174), "126a"].filter((n) => !LATER.includes(n)),
  ));
