/** Job files, command lines, and fio's words for what is wrong with them. */
import { assertEquals, assertThrows } from "@std/assert";
import {
  closestOption,
  defaultOptions,
  findOption,
  type JobOptions,
  parseInteger,
  parseTime,
} from "../../tools/fio/options.ts";
import { JobParser, type JobSet, ParseError } from "../../tools/fio/parse.ts";

interface Parsed {
  set: JobSet;
  out: string;
  err: string;
  failed: boolean;
}

/** Parses job files by name, the first one named on the command line. */
function parseFiles(
  files: Record<string, string>,
  env: Record<string, string> = {},
  sections: string[] = [],
  order: string[] = [Object.keys(files)[0]!],
): Parsed {
  let out = "", err = "", failed = false;
  const parser = new JobParser({
    env: (name) => env[name],
    read: (path) => files[path] ?? null,
    out: (text) => out += text,
    err: (text) => err += text,
  }, sections);
  try {
    order.forEach((file, i) => parser.file(file, i > 0));
  } catch (error) {
    if (!(error instanceof ParseError)) throw error;
    failed = true;
  }
  return { set: parser.result, out, err, failed };
}

function parse(text: string): Parsed {
  return parseFiles({ "t.fio": text });
}

/** Options of the only job; everything must be well. */
function job(text: string): JobOptions {
  const { set, err, failed } = parse(`[a]\n${text}\n`);
  assertEquals([err, failed], ["", false]);
  return set.jobs[0]!.options;
}

Deno.test("JobParser gives a job the defaults above it and its own lines", () => {
  const { set } = parse(`
[global]
bs=8k
rw=write
[first]
bs=16k
[globalfoo]
rw=randread
[second job]
; nothing of its own
`);
  const [first, second] = set.jobs;
  assertEquals(set.jobs.map((j) => j.options.name), ["first", "second job"]);
  assertEquals(first!.options.minBs, [16384, 16384, 16384]);
  assertEquals(first!.options.rw, "write");
  assertEquals(second!.options.minBs, [8192, 8192, 8192]);
  assertEquals(second!.options.rw, "randread");
  assertEquals(set.global, [["bs", "8k"], ["rw", "write"], ["rw", "randread"]]);
  assertEquals(first!.given, [["bs", "16k"]]);
});

Deno.test("JobParser cuts comments off and tolerates blanks around =", () => {
  assertEquals(job("  iodepth  =  3 ; x").iodepth, 3);
  assertEquals(job("bs=8k # y").minBs[0], 8192);
  assertEquals(job("size=1m;x").size.bytes, 2 ** 20);
});

Deno.test("JobParser expands the environment, unset names to nothing", () => {
  const text = "[a]\nsize=${SIZE}\ndirectory=x${NONE}y\n";
  const { set } = parseFiles({ "t.fio": text }, { SIZE: "4m" });
  assertEquals(set.jobs[0]!.options.size.bytes, 4 * 2 ** 20);
  assertEquals(set.jobs[0]!.options.directory, ["xy"]);
  assertEquals(set.jobs[0]!.given[0], ["size", "4m"]);
});

Deno.test("JobParser orders options as fio's JSON does", () => {
  const { set } = parse("[a]\nfilename=f\nbs=4k\nstonewall\nsize=1m\n");
  assertEquals(set.jobs[0]!.given, [
    ["bs", "4k"],
    ["size", "1m"],
    ["filename", "f"],
  ]);
});

Deno.test("JobParser takes the lines of an included file, beside it or nested", () => {
  const { set, failed } = parseFiles({
    "d/t.fio": "[a]\ninclude i.inc\nsize=1m\n",
    "d/i.inc": "bs=8k\ninclude d/j.inc\n",
    "d/j.inc": "iodepth=4\n",
  });
  assertEquals(failed, false);
  const o = set.jobs[0]!.options;
  assertEquals([o.minBs[0], o.iodepth, o.size.bytes], [8192, 4, 2 ** 20]);
});

Deno.test("JobParser refuses an include that is missing or has sections", () => {
  const missing = parse("[a]\ninclude missing.fio\nbs=8k\n");
  assertEquals(
    missing.err,
    "fio: unable to open 'missing.fio' job file\n" +
      "Error 1 while parsing include file missing.fio\n",
  );
  const sections = parseFiles({
    "t.fio": "[a]\ninclude i\n",
    "i": "[b]\nbs=4k\n",
  });
  assertEquals(sections.failed, true);
  assertEquals(
    sections.err.startsWith("No new sections in included files\n"),
    true,
  );
});

Deno.test("JobParser puts a barrier between job files", () => {
  const { set } = parseFiles(
    { "1": "[a]\n[b]\n", "2": "[global]\nbs=4k\n[c]\n[d]\n" },
    {},
    [],
    ["1", "2"],
  );
  assertEquals(
    set.jobs.map((j) => j.options.stonewall),
    [false, false, true, false],
  );
});

Deno.test("JobParser takes only the sections that are asked for", () => {
  const { set } = parseFiles({ "t": "[a]\n[b]\n[c]\n" }, {}, ["b"]);
  assertEquals(set.jobs.map((j) => j.options.name), ["b"]);
});

Deno.test("parseInteger() reads fio's suffixes", () => {
  const cases: [string, number | null][] = [
    ["4k", 4096],
    ["4KB", 4096],
    ["4ki", 4096],
    ["4kib", 4000],
    ["0x10", 16],
    ["1g", 2 ** 30],
    ["2t", 2 * 2 ** 40],
    ["7b", 7],
    ["1.5k", 1],
    ["k", null],
    ["", null],
  ];
  for (const [text, want] of cases) {
    assertEquals(parseInteger(text), want, text);
  }
});

Deno.test("parseTime() reads fio's times", () => {
  assertEquals(parseTime("10", 1e6), 10_000_000);
  assertEquals(parseTime("2ms", 1), 2000);
  assertEquals(parseTime("1h", 1e6), 3_600_000_000);
  assertEquals(parseTime("3usec", 1e6), 3);
  assertEquals(parseTime("10x", 1e6), null);
});

Deno.test("JobParser reads values of each direction", () => {
  assertEquals(job("bs=8k,32k").minBs, [8192, 32768, 32768]);
  assertEquals(job("bs=8k,32k,").minBs, [8192, 32768, 4096]);
  assertEquals(job("bs=,8k").minBs, [4096, 8192, 8192]);
  const range = job("bsrange=8k-4k,1k:2k");
  assertEquals([range.minBs, range.maxBs], [
    [4096, 1024, 1024],
    [8192, 2048, 2048],
  ]);
  assertEquals(job("rate_iops=2000,500").rateIops, [2000, 500, 500]);
  // A range is `bsrange`; here the ends are for reads and writes.
  assertEquals(job("bs=4k-16k").minBs, [4096, 16384, 16384]);
  assertEquals(job("bs=4k,8k:16k").minBs, [4096, 8192, 16384]);
  assertEquals(job("bs=(12k-8k),8k").minBs, [4096, 8192, 8192]);
});

Deno.test("JobParser shares what bssplit leaves open", () => {
  const { bssplit, minBs, maxBs } = job("bssplit=4k/60:8k/:16k/,4k/90:16k/10");
  assertEquals(bssplit[0].map((s) => s.percent), [60, 20, 20]);
  assertEquals(bssplit[1].map((s) => s.size), [4096, 16384]);
  assertEquals(bssplit[2], bssplit[1]);
  assertEquals([minBs[0], maxBs[0]], [4096, 16384]);
});

Deno.test("JobParser works out arithmetic in parentheses", () => {
  assertEquals(job("size=(2*1024*1k)").size.bytes, 2 * 1024 * 1024);
  assertEquals(job("iodepth=((1+2)^2-1)").iodepth, 8);
  assertEquals(job("runtime=(2*3s)").runtime, 6_000_000);
  assertEquals(parse("[a]\nsize=(2*\n").failed, true);
});

Deno.test("JobParser reads patterns and distributions with their suffixes", () => {
  assertEquals(job("rw=randread:8").seqCount, 8);
  assertEquals(job("rw=write:4k").seqAdd, 4096);
  assertEquals(job("readwrite=readwrite").rw, "rw");
  assertEquals(job("random_distribution=zipf:1.2:0.5").distribution, {
    kind: "zipf",
    parameter: 1.2,
    center: 0.5,
  });
  assertEquals(job("file_service_type=random:4").fileServiceCount, 4);
  assertEquals(job("sync_file_range=write,wait_after:8").syncFileRange, {
    flags: 6,
    every: 8,
  });
});

Deno.test("JobParser lets the later of rwmixread and rwmixwrite win", () => {
  assertEquals(job("rwmixread=10\nrwmixwrite=30").rwmixRead, 70);
  assertEquals(job("rwmixwrite=30\nrwmixread=10").rwmixRead, 10);
});

// What fio 3.33 prints on standard error for these job files.
const WRONG: [string, string][] = [
  [
    "[a]\niodpeth=4\nbs=0\nfoo=1\n[b]\nbarfoo=3\n",
    "bs: min value out of range: 0 (1 min)\nfio: failed parsing bs=0\n" +
    "Bad option <iodpeth=4>\nDid you mean iodepth?\n" +
    "Bad option <foo=1>\nDid you mean flow?\nfio: job a dropped\n",
  ],
  [
    "[a]\niodepth=abc\n",
    "fio: failed parsing iodepth=abc\nfio: job a dropped\n",
  ],
  [
    "[a]\niodepth\n",
    "Option iodepth requires an argument\nfio: failed parsing iodepth\n" +
    "fio: job a dropped\n",
  ],
  [
    "[a]\ndirect=2\nrwmixread=150\n",
    "max value out of range: 2 (1 max)\nfio: failed parsing direct=2\n" +
    "rwmixread: max value out of range: 150 (100 max)\n" +
    "fio: failed parsing rwmixread=150\nfio: job a dropped\n",
  ],
  [
    "[a]\nrw=rw:abc\n",
    "fio: rw postfix parsing failed\nfio: failed parsing rw=rw:abc\n" +
    "fio: job a dropped\n",
  ],
  ["[a]\ndirect=yes\n", "fio: failed parsing direct=yes\nfio: job a dropped\n"],
  ["rw=read\n[a]\n", "fio: option <rw=read> outside of [] job section\n"],
  [
    "[a]\ngroup_reporting=yes\n",
    "fio: failed parsing group_reporting=yes\nfio: job a dropped\n",
  ],
  [
    "[a]\ndirectory=${NOSUCH}\n",
    "fio: failed parsing directory=${NOSUCH}\nfio: job a dropped\n",
  ],
  [
    "[a]\nrandom_distribution=zipf:1\n",
    "fio: zipf theta must different than 1.0\n" +
    "fio: failed parsing random_distribution=zipf:1\nfio: job a dropped\n",
  ],
  ["[a]\nIODEPTH=4\n", "Bad option <IODEPTH=4>\nfio: job a dropped\n"],
  ["[a]\nnumjobs=0\n", "error: maximum number of jobs reached.\n"],
  [
    "[a]\nioengine=nosuch\n",
    "fio: engine nosuch not loadable\nfio: failed to load engine\n",
  ],
  [
    "[a]\nsize=1k\n",
    "fio: size too small, must not be less than minimum block size: 1024 < 4096\n",
  ],
  [
    "[a]\nrate=1m\nrate_iops=4\n",
    "fio: rate and rate_iops are mutually exclusive\n",
  ],
];

for (const [text, want] of WRONG) {
  Deno.test(`JobParser refuses ${JSON.stringify(text)} in fio's words`, () => {
    const { err, failed } = parse(text);
    assertEquals(err, want);
    assertEquals(failed, true);
  });
}

Deno.test("JobParser shows the valid values of a bad word", () => {
  const { out, err } = parse("[a]\nrw=randomread\n");
  assertEquals(out.split("\n").slice(0, 2), [
    "        valid values: read       Sequential read",
    "                    : write      Sequential write",
  ]);
  assertEquals(err, "fio: failed parsing rw=randomread\nfio: job a dropped\n");
});

Deno.test("JobParser names what is real in fio but not supported, with its line", () => {
  const { err, failed } = parse(
    "[a]\nrw=read\nverify=md5\nioengine=mmap\nrandom_distribution=zoned:1/2\n",
  );
  assertEquals(
    err,
    "fio: option <verify=md5> is not supported (t.fio line 3)\n" +
      "fio: option <ioengine=mmap> is not supported (t.fio line 4)\n" +
      "fio: option <random_distribution=zoned:1/2> is not supported " +
      "(t.fio line 5)\nfio: job a dropped\n",
  );
  assertEquals(failed, true);
});

Deno.test("JobParser accepts an unsupported option that changes nothing", () => {
  assertEquals(parse("[a]\nverify=0\ngtod_reduce=0\n").failed, false);
});

Deno.test("JobParser warns of a fraction, which fio reads in part", () => {
  const { err, set } = parse("[a]\niodepth=1.5k\n");
  assertEquals(err, 'fio: iodepth: "1.5k" reads as 1\n');
  assertEquals(set.jobs[0]!.options.iodepth, 1);
});

Deno.test("JobParser ignores time_based without a runtime, and says so", () => {
  const { err, set } = parse("[a]\ntime_based\nsize=1m\n");
  assertEquals(err, "fio: time_based requires a runtime/timeout setting\n");
  assertEquals(set.jobs[0]!.options.timeBased, false);
});

Deno.test("JobParser.commandLine() makes jobs and defaults", () => {
  let err = "";
  const parser = new JobParser({
    env: () => undefined,
    read: () => null,
    out: () => {},
    err: (text) => err += text,
  });
  parser.commandLine(null, [["bs", "8k"]]);
  parser.commandLine("a", [["name", "a"], ["group_reporting", null]]);
  const [{ options, given }] = parser.result.jobs as [JobSet["jobs"][0]];
  assertEquals([options.minBs[0], options.groupReporting], [8192, true]);
  assertEquals(given, [["name", "a"]]);
  assertThrows(() => parser.commandLine(null, [["bs", "0"]]), ParseError);
  assertEquals(
    err,
    "bs: min value out of range: 0 (1 min)\nfio: failed parsing bs=0\n",
  );
  err = "";
  assertThrows(
    () => parser.commandLine("b", [["iodpeth", "3"]]),
    ParseError,
  );
  assertEquals(
    err,
    "fio: unrecognized option '--iodpeth=3'\nDid you mean iodepth?\n",
  );
});

Deno.test("closestOption() suggests within half the length, or nothing", () => {
  assertEquals(closestOption("runtme"), "runtime");
  assertEquals(closestOption("blocksiz"), "bs");
  assertEquals(closestOption("zzzzzzzz"), null);
});

Deno.test("findOption() knows aliases", () => {
  assertEquals(findOption("blocksize"), findOption("bs"));
  assertEquals(findOption("verify"), null);
  assertEquals(defaultOptions().percentileList.length, 17);
});
