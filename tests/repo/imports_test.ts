/**
 * Holds the import table of ARCHITECTURE.md: which folder may import which, and
 * that what users import by URL needs no import map and no permission.
 */
import { assertEquals } from "@std/assert";
import { dirname, relative, resolve } from "node:path";

const ROOT = resolve(import.meta.dirname!, "../..");

/** Room of a source file; `fs/*.ts` is the VFS, apart from what lies below it. */
function room(path: string): string {
  const parts = path.split("/");
  if (parts.length === 1) return ".";
  const folder = parts.slice(0, -1).join("/");
  return parts[0] === "tools" || parts[0] === "tests" ? parts[0] : folder;
}

const LOWER = ["lib"];
const ALLOWED: Record<string, string[]> = {
  "lib": [],
  "block": ["lib"],
  "block/dm": ["lib", "block"],
  "block/nvme": ["lib", "block"],
  "mm": ["lib"],
  "fs": ["lib", "mm", "block"],
  "iomap": ["lib", "mm", "block", "fs"],
  "dax": ["lib", "mm", "block", "fs", "iomap"],
  "fs/xfs": ["lib", "mm", "block", "fs", "iomap", "dax", "fs/xfs/libxfs"],
  // The format and what is done with it knows of no page cache and no mapping.
  "fs/xfs/libxfs": ["lib", "block", "fs", "fs/xfs"],
  // A mistake of the file system must not hide itself from the check.
  "fs/xfs/fsck": ["lib", "block", "fs", "fs/xfs/libxfs"],
  ".": [
    "lib",
    "mm",
    "block",
    "block/dm",
    "block/nvme",
    "fs",
    "iomap",
    "dax",
    "fs/xfs",
    "fs/xfs/fsck",
  ],
};
/** What tools may import: the public entry points, and each other. */
const ENTRY_POINTS = ["mod.ts", "iomap/mod.ts", "block/mod.ts"];

interface Import {
  from: string;
  specifier: string;
}

/** Static and dynamic imports and re-exports of a source text. */
function specifiers(text: string): string[] {
  const found: string[] = [];
  const code = text.replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, "");
  const pattern =
    /^(?:import|export)\b(?:[^"';]*?\bfrom)?\s*["']([^"']+)["']|\bimport\s*\(\s*["']([^"']+)["']/gm;
  for (const match of code.matchAll(pattern)) found.push(match[1] ?? match[2]!);
  return found;
}

async function* sources(folder: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.name.startsWith(".") || entry.name === "node_modules") continue;
    if (entry.isDirectory) yield* sources(path);
    else if (path.endsWith(".ts")) yield path;
  }
}

async function allImports(): Promise<Import[]> {
  const imports: Import[] = [];
  for await (const path of sources(ROOT)) {
    const text = await Deno.readTextFile(path);
    const from = relative(ROOT, path);
    for (const specifier of specifiers(text)) imports.push({ from, specifier });
  }
  return imports;
}

/** Why an import breaks the table, or null. */
function complaint({ from, specifier }: Import): string | null {
  const here = room(from);
  if (here === "tests") return null;
  const isTool = here === "tools";
  if (!specifier.startsWith(".")) {
    return isTool ? null : `${from}: bare import of ${specifier}`;
  }
  const target = relative(ROOT, resolve(ROOT, dirname(from), specifier));
  const there = room(target);
  if (there === here || (from === "block/mod.ts" && there === "block/dm")) {
    return null;
  }
  if (isTool) {
    return ENTRY_POINTS.includes(target)
      ? null
      : `${from}: ${target} is not a public entry point`;
  }
  return (ALLOWED[here] ?? LOWER).includes(there)
    ? null
    : `${from}: ${here} may not import ${target}`;
}

Deno.test("every folder imports only what the table allows", async () => {
  const imports = await allImports();
  assertEquals(imports.map(complaint).filter((c) => c !== null), []);
  // The search itself works: it sees this file's own imports.
  const own = relative(ROOT, import.meta.filename!);
  assertEquals(
    imports.filter((i) => i.from === own).map((i) => i.specifier),
    ["@std/assert", "node:path"],
  );
});

Deno.test("the import table finds what it forbids", () => {
  const wrong: Import[] = [
    { from: "lib/a.ts", specifier: "../mm/b.ts" },
    { from: "mm/a.ts", specifier: "../block/b.ts" },
    { from: "block/a.ts", specifier: "./nvme/b.ts" },
    { from: "block/a.ts", specifier: "./dm/mod.ts" },
    { from: "block/dm/a.ts", specifier: "../nvme/b.ts" },
    { from: "fs/a.ts", specifier: "./xfs/b.ts" },
    { from: "fs/xfs/libxfs/a.ts", specifier: "../../../iomap/b.ts" },
    { from: "fs/xfs/libxfs/a.ts", specifier: "../fsck/b.ts" },
    { from: "fs/xfs/fsck/a.ts", specifier: "../b.ts" },
    { from: "iomap/a.ts", specifier: "@std/assert" },
    { from: "tools/a.ts", specifier: "../lib/clock.ts" },
  ];
  for (const i of wrong) assertEquals(complaint(i) === null, false, i.from);
});

const TIME_AND_CHANCE =
  /\b(setTimeout|setInterval|setImmediate|clearTimeout|performance\b|new Date\b|Date\.now|Math\.random|crypto\.getRandomValues)/;

/** Source without comments and strings. */
function codeOnly(text: string): string {
  return text
    .replace(/\/\*[\s\S]*?\*\//g, (c) => c.replace(/[^\n]/g, ""))
    .replace(/\/\/.*$/gm, "")
    .replace(/"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`/g, "");
}

Deno.test("only lib/clock.ts and tools/ touch timers, clocks and chance", async () => {
  const found: string[] = [];
  for await (const path of sources(ROOT)) {
    const name = relative(ROOT, path);
    if (/^(tools|tests)\//.test(name) || name === "lib/clock.ts") continue;
    const code = codeOnly(await Deno.readTextFile(path));
    for (const [i, line] of code.split("\n").entries()) {
      const match = TIME_AND_CHANCE.exec(line);
      if (match) found.push(`${name}:${i + 1}: ${match[1]}`);
    }
  }
  assertEquals(found, []);
  assertEquals(TIME_AND_CHANCE.test(codeOnly("x = Date.now(); // y")), true);
});
