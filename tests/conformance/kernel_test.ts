/**
 * Goal: the same operations get the same answers as from the Linux kernel.
 * Method: every recorded trace in traces/ runs through tools/replay.ts.
 * Oracle: what Linux 6.18 answered, and which mappings its iomap walks obtained.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { replay, Walks } from "../../tools/replay.ts";

const DATA = new URL(".", import.meta.url).pathname;

interface Walk {
  caller: string;
  pos: number;
  flags: string[];
  map: Mapping;
  src?: Mapping;
}
interface Mapping {
  offset: number;
  length: number;
  type: string;
  flags: string[];
}
interface Line extends Record<string, unknown> {
  i: number;
  iomap?: Walk[] | null;
}

/** Fields of an answer that are compared; block counts depend on metadata. */
const ANSWERS = ["ret", "md5", "extents", "size", "nlink", "names", "pages"];

/** A mapping without what is not compared: the DIRTY flag, and how far one goes
 * that reaches the end of the largest file. */
function mapping(m: Mapping): unknown {
  const end = m.offset + m.length >= 2 ** 52 ? "end" : m.offset + m.length;
  const flags = m.flags.filter((f) => f !== "DIRTY").sort();
  return { offset: m.offset, end, type: m.type, flags };
}

function walks(line: Line): unknown[] {
  return (line.iomap ?? []).map((w) => ({
    caller: w.caller,
    pos: w.pos,
    flags: w.flags.toSorted(),
    map: mapping(w.map),
    ...(w.src ? { src: mapping(w.src) } : {}),
  }));
}

function parse(text: string): Line[] {
  return text.trim().split("\n").map((line) => JSON.parse(line));
}

/** The parts of a line that `want` has something to say about. */
function answer(line: Line, want: Line, op: unknown): unknown {
  const fields = ANSWERS.filter((f) => f in want);
  return { op, ...Object.fromEntries(fields.map((f) => [f, line[f]])) };
}

/** Lines up to the first crash: what is left after one, the log decides. */
function beforeCrash(ops: Line[]): number {
  const crash = ops.findIndex(({ op }) => op === "crash");
  return crash < 0 ? ops.length : crash;
}

/** Walks that differ and may: {@link README.md} says why. */
const WALKS = JSON.parse(
  Deno.readTextFileSync(`${DATA}walks.json`),
) as Record<string, number[]>;

const names = [...Deno.readDirSync(`${DATA}traces`)].map((e) => e.name).sort();

for (const name of names) {
  Deno.test(`the stack answers as the kernel does: ${name}`, async () => {
    const path = `${DATA}traces/${name}`;
    const ops = parse(await Deno.readTextFile(path)).slice(1);
    const want = parse(await Deno.readTextFile(`${DATA}kernel/${name}`));
    const differ = new Set(WALKS[name]);

    const got = parse(await replay(path, {}, new Walks()));

    assertEquals(got.length, want.length);
    for (let i = 0; i < beforeCrash(ops); i++) {
      const [g, w] = [got[i]!, want[i]!];
      assertEquals(answer(g, w, ops[i]), answer(w, w, ops[i]), `line ${i}`);
      // null marks a walk that the kernel itself does not repeat exactly.
      if (w.iomap === null) continue;
      if (!differ.has(i)) assertEquals(walks(g), walks(w), `walk ${i}`);
      else assertNotEquals(walks(g), walks(w), `walk ${i} differs no longer`);
    }
  });
}

Deno.test("at most 2 in 100 of the walks differ from the kernel's", () => {
  let all = 0;
  for (const name of names) {
    const ops = parse(Deno.readTextFileSync(`${DATA}traces/${name}`)).slice(1);
    all += beforeCrash(ops);
  }
  const differ = Object.values(WALKS).flat().length;
  assert(differ <= all * 0.02, `${differ} of ${all}`);
});
