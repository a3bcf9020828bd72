/**
 * Goal: the same operations get the same answers as from the Linux kernel.
 * Method: every recorded trace in tests/data/oracle runs through tools/replay.ts.
 * Oracle: what Linux 6.18 answered, and which mappings its iomap walks obtained.
 */
import { assertEquals } from "@std/assert";
import { replay, Walks } from "../../tools/replay.ts";

const DATA = new URL("../data/oracle/", import.meta.url).pathname;

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
function compared(line: Line, want: Line, op: unknown): unknown {
  const fields = ANSWERS.filter((f) => f in want);
  const answer = Object.fromEntries(fields.map((f) => [f, line[f]]));
  // null marks a walk that the kernel itself does not repeat exactly.
  return want.iomap === null
    ? { op, ...answer }
    : { op, ...answer, walks: walks(line) };
}

const names = [...Deno.readDirSync(`${DATA}traces`)].map((e) => e.name).sort();

for (const name of names) {
  Deno.test(`the stack answers as the kernel does: ${name}`, async () => {
    const path = `${DATA}traces/${name}`;
    const ops = parse(await Deno.readTextFile(path)).slice(1);
    const want = parse(
      await Deno.readTextFile(`${DATA}kernel/${name}`),
    );

    const got = parse(await replay(path, {}, new Walks()));

    assertEquals(got.length, want.length);
    for (const [i, w] of want.entries()) {
      assertEquals(compared(got[i]!, w, ops[i]), compared(w, w, ops[i]));
    }
  });
}
