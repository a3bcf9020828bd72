/**
 * Goal: our reports are fio's to the byte. Method: recorded output of the real
 * fio 3.33 is read back into statistics, and reported again. Oracle: the
 * recording. See `tests/data/fio/stdout/README.md`.
 */

import { assertEquals } from "@std/assert";
import { jsonReport } from "../../tools/fio/json.ts";
import { fixed, num2str } from "../../tools/fio/num2str.ts";
import { jobHeaderLines, normalReport } from "../../tools/fio/report.ts";
import { JobStats, Tally } from "../../tools/fio/stat.ts";
import {
  cutOutput,
  DEFAULT_PERCENTILES,
  type FioOutput,
  headersFromFio,
  runFromFio,
} from "./fio_output.ts";

const DATA = new URL("../data/fio/", import.meta.url);

const RUNS = [
  "01-randread-qd8",
  "02-seqwrite-fsync",
  "03-mixed-bssplit-group",
  "04-write-verify",
  "05-layout-then-mixed-reporting",
  "06-rated-poisson",
  "deep-queue",
  "errors",
  "group-samples",
  "null-extremes",
  "unified-both",
];

function read(path: string): string {
  return Deno.readTextFileSync(new URL(path, DATA));
}

function readRun(name: string): FioOutput {
  return cutOutput(read(`stdout/${name}.out`));
}

/** fio measures fdatasync but counts it among short reads; ours counts syncs. */
function countDataSyncs(output: FioOutput): FioOutput {
  return {
    ...output,
    json: output.json.replace(
      /"total_ios" : 0(,\s+"lat_ns" : \{[^}]*?"N" : )([1-9]\d*)/g,
      '"total_ios" : $2$1$2',
    ),
    report: output.report.replace(
      "total=0,256,0,0 short=31,",
      "total=0,256,0,31 short=31,",
    ),
  };
}

Deno.test("normalReport() prints what fio printed for the same numbers", () => {
  for (const name of RUNS) {
    const { json, report } = countDataSyncs(readRun(name));
    // fio forgets the totals of its combined line; its group line has the rate.
    const expected = report.replace(
      "mixed: IOPS=0, BW=0 (0)(0B/1201msec)",
      "mixed: IOPS=44, BW=410KiB/s (419kB/s)(492KiB/1201msec)",
    );

    assertEquals(normalReport(runFromFio(json, report)), expected, name);
  }
});

Deno.test("jsonReport() prints what fio printed for the same numbers", () => {
  for (const name of RUNS) {
    const { json, report } = countDataSyncs(readRun(name));
    const plus = json.includes('"bins"');

    assertEquals(jsonReport(runFromFio(json, report), plus), json, name);
  }
});

Deno.test("jsonReport() reproduces each of the project's JSON samples", () => {
  for (const name of RUNS.slice(0, 6)) {
    const sample = countDataSyncs(cutOutput(read(`json/${name}.out`)));
    const plus = sample.json.includes('"bins"');

    assertEquals(jsonReport(runFromFio(sample.json), plus), sample.json, name);
  }
});

Deno.test("jsonReport() leaves bins out unless asked", () => {
  const { json } = cutOutput(read("json/06-rated-poisson.out"));
  const text = jsonReport(runFromFio(json));

  assertEquals(text.includes('"bins"'), false);
  assertEquals(text.includes('"percentile"'), true);
});

Deno.test("jobHeaderLines() announces jobs as fio does", () => {
  for (const name of RUNS) {
    const { header } = readRun(name);
    const expected = header.slice(0, header.indexOf("fio-3.33"));

    assertEquals(jobHeaderLines(headersFromFio(header)), expected, name);
  }
});

Deno.test("normalReport() picks larger units only where all figures suit", () => {
  const { json, report } = readRun("01-randread-qd8");
  const units = (stddevNs: number, meanKiB: number) => {
    const run = runFromFio(json, report);
    const trim = run.jobs[0]!.stats.directions[2];
    trim.runtimeMs = 1;
    trim.slat.tally.merge(Tally.of(9, 100e6, 200e6, 150e6, stddevNs));
    trim.bw.merge(Tally.of(4, meanKiB, meanKiB, meanKiB, 0));
    const text = normalReport(run).split("  trim: ")[1]!;
    return [text.match(/slat \((\w+)\)/)![1], text.match(/bw \(\s*(\w+)/)![1]];
  };

  // fio stays in ns for a narrow spread, however long the times are.
  assertEquals(units(1000, 1), ["nsec", "KiB"]);
  assertEquals(units(1001, 1048576), ["usec", "KiB"]);
  assertEquals(units(1e6, 1048577), ["usec", "MiB"]);
  assertEquals(units(1.1e6, 1e9), ["msec", "MiB"]);
});

Deno.test("normalReport() leaves out a job that issued nothing", () => {
  const { json, report } = readRun("01-randread-qd8");
  const run = runFromFio(json, report);
  run.jobs[0]!.stats = new JobStats({
    percentiles: DEFAULT_PERCENTILES,
    slatPercentiles: false,
    clatPercentiles: true,
    latPercentiles: false,
    unifiedRw: 0,
  });

  assertEquals(
    normalReport({ ...run, disks: [] }),
    "\n\nRun status group 0 (all jobs):\n",
  );
});

Deno.test("num2str() prints numbers as fio does", () => {
  const rows = read("num2str.tsv").trim().split("\n");
  for (const row of rows) {
    const [kind, value, text] = row.split("\t");
    const unit = kind === "N" ? "" : "B";

    assertEquals(num2str(Number(value), 4, kind === "B2", unit), text, row);
  }
  assertEquals(rows.length, 1601);
});

Deno.test("num2str() fills six characters of a latency", () => {
  // From `min=811, max=3176.1k` in the sample of job file 03.
  assertEquals(num2str(811, 6, false, ""), "811");
  assertEquals(num2str(915639, 6, false, ""), "915639");
  assertEquals(num2str(3176130, 6, false, ""), "3176.1k");
});

Deno.test("fixed() rounds ties to even as C's printf does", () => {
  assertEquals(fixed(0.1953125, 6), "0.195312");
  assertEquals(fixed(0.5859375, 6), "0.585938");
  assertEquals(fixed(0.125, 2), "0.12");
  assertEquals(fixed(0.375, 2), "0.38");
  assertEquals(fixed(2.5, 0), "2");
  assertEquals(fixed(15.95, 1), "15.9");
  assertEquals(fixed(9.999, 2), "10.00");
  assertEquals(fixed(123456789.125, 2), "123456789.12");
});
