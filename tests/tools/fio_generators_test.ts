/**
 * The random streams of tools/fio against what the real fio did.
 *
 * tests/data/fio/07-*.ops and streams.json hold operations that fio 3.33 wrote
 * with `write_iolog`: job options on one side, files and I/Os on the other.
 */
import { assertEquals } from "@std/assert";
import { hashedBlock, RandomMap, Taus88 } from "../../tools/fio/generators.ts";
import { type Io, IoStream, StreamFile } from "../../tools/fio/io-stream.ts";
import type { JobOptions } from "../../tools/fio/options.ts";
import { JobParser } from "../../tools/fio/parse.ts";
import streams from "../data/fio/streams.json" with { type: "json" };

const DATA = new URL("../data/fio/", import.meta.url);
const NAMES = [
  "read",
  "write",
  "trim",
  "sync",
  "datasync",
  "sync_file_range",
];

function silentParser(read: (path: string) => string | null): JobParser {
  return new JobParser({
    env: () => undefined,
    read,
    out: () => {},
    err: () => {},
  });
}

function newIo(): Io {
  return { file: null, ddir: 0, offset: 0, length: 0 };
}

Deno.test("IoStream reproduces the operations of every job of 07-iolog.fio", async () => {
  const text = await Deno.readTextFile(new URL("07-iolog.fio", DATA));
  // The option only says where fio wrote the record.
  const parser = silentParser(() => text.replaceAll(/^write_iolog=.*$/gm, ""));
  parser.file("07-iolog.fio", false);
  const jobs = parser.result.jobs;
  assertEquals(jobs.length, 7);
  for (const [i, { options }] of jobs.entries()) {
    const record = new URL(`07-${options.name}.ops`, DATA);
    const [header, ...want] = (await Deno.readTextFile(record)).trim()
      .split("\n");
    assertEquals(header, "fio version 3 iolog");
    const file = new StreamFile(
      `data/${options.name}.0.0`,
      0,
      2 ** 20,
      2 ** 20,
    );
    const stream = new IoStream(options, [file], i + 1);
    const io = newIo();
    const got = want.map(() => {
      stream.next(io);
      return `${NAMES[io.ddir]} ${io.offset} ${io.length}`;
    });
    assertEquals(got, want, options.name);
  }
});

function optionsOf(text: string): JobOptions {
  const parser = silentParser(() => null);
  const pairs = text.split(" ").map((option): [string, string | null] => {
    const [name = "", value] = option.split(/=(.*)/s);
    return [name, value ?? null];
  });
  parser.commandLine("a", [["directory", "cd"], ...pairs]);
  return parser.result.jobs[0]!.options;
}

/** The I/Os of a job as its loop asks for them, pass after pass. */
function operations(o: JobOptions, files: StreamFile[], most: number) {
  const stream = new IoStream(o, files, 1);
  const size = files.reduce((sum, file) => sum + file.size, 0);
  const limit = (o.ioSize.bytes || Math.min(size, o.size.bytes)) * o.loops;
  const got: string[] = [];
  const io = newIo();
  let issued = 0;
  for (let pass = 0; got.length < most && issued < limit; pass++) {
    if (pass > 0) stream.restart();
    while (issued < limit && got.length < most && stream.next(io)) {
      const file = files.indexOf(io.file!);
      got.push(`${NAMES[io.ddir]} ${file} ${io.offset} ${io.length}`);
      issued += io.length;
    }
  }
  return got;
}

for (const { options, files, sizes, ops } of streams) {
  Deno.test(`IoStream does what fio does with ${options}`, () => {
    const o = optionsOf(options);
    const want = ops.split("; ");
    const start = o.offset.bytes;
    const part = Math.floor(o.size.bytes / files.length);
    const streamFiles = files.map((name, i) =>
      new StreamFile(name, start, part, sizes[i]!)
    );
    assertEquals(operations(o, streamFiles, want.length), want);
  });
}

Deno.test("IoStream.next() answers false when all blocks have been used", () => {
  const file = new StreamFile("f", 0, 64 * 1024, 64 * 1024);
  const stream = new IoStream(
    optionsOf("rw=randread size=64k"),
    [file],
    1,
  );
  const io = newIo();
  const seen = new Set<number>();
  while (stream.next(io)) seen.add(io.offset);
  assertEquals(seen.size, 16);
  assertEquals(stream.exhausted, true);
});

Deno.test("RandomMap finds the same free block as a plain search", () => {
  // Method: marks and searches at random against an array of flags.
  const random = new Taus88(4711);
  for (const blocks of [1, 31, 32, 33, 1024, 1025, 40_000]) {
    const map = new RandomMap(blocks);
    const used = new Array<boolean>(blocks).fill(false);
    for (let step = 0; step < 500; step++) {
      const at = random.between(0, blocks - 1);
      const count = random.between(1, 64);
      const marked = map.mark(at, count);
      let want = 0;
      while (want < count && at + want < blocks && !used[at + want]) {
        used[at + want++] = true;
      }
      assertEquals(marked, want);
      const from = random.between(0, blocks - 1);
      const above = used.indexOf(false, from);
      assertEquals(
        map.nextFree(from),
        above === -1 ? used.indexOf(false) : above,
      );
      assertEquals(map.isFree(from), !used[from]);
    }
    map.reset();
    assertEquals(map.nextFree(blocks - 1), blocks - 1);
  }
});

Deno.test("hashedBlock() computes with 64 bits", () => {
  const random = new Taus88(1);
  for (let i = 0; i < 2000; i++) {
    const v = random.next() * 2 ** (i % 20);
    const shift = random.next() * 2 ** (i % 21);
    const n = 1 + random.next();
    const want = (BigInt(v) * 0x61C8864680B583EBn % (1n << 64n) +
      BigInt(shift)) % (1n << 64n) % BigInt(n);
    assertEquals(hashedBlock(v, shift, n), Number(want));
  }
});
