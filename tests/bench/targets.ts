/**
 * What was aimed at for the path of a read or write through the public file, what is
 * measured, and whether it holds: `deno task bench:targets`.
 *
 * The peers take turns, a few milliseconds each, and the ratio of each turn counts:
 * whatever else slows the machine down slows all of them. Shown is the median.
 */
import { bytesPerCall } from "./heap.ts";
import {
  DirectReads,
  hotReads,
  peersOf,
  type Workload,
  WORKLOADS,
} from "./workloads.ts";

const ROUNDS = 60;
/** Rounds that come before, so that all code has been optimized. */
const WARM_UP = 5;

let failures = 0;

function report(
  what: string,
  target: string,
  value: string,
  ok: boolean,
): void {
  if (!ok) failures++;
  console.log(
    `${what.padEnd(50)} ${target.padStart(14)} ${value.padStart(12)}   ` +
      (ok ? "ok" : "NOT REACHED"),
  );
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1]!;
}

/** Nanoseconds of a call. */
function time(op: () => void, count: number): number {
  const start = performance.now();
  for (let i = 0; i < count; i++) op();
  return (performance.now() - start) / count * 1e6;
}

/** Time of a workload on iomap, as a share of that on each peer. */
async function ratios(workload: Workload): Promise<Map<string, number>> {
  const all = (await peersOf(workload)).map(([name, peer]) => ({
    name,
    op: workload.op(peer),
    rounds: [] as number[],
  }));
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    for (const peer of all) {
      const ns = time(peer.op, workload.batch);
      if (round >= 0) peer.rounds.push(ns);
    }
  }
  const iomap = all[0]!.rounds;
  return new Map(
    all.map(({ name, rounds }) => [
      name,
      median(iomap.map((ns, i) => ns / rounds[i]!)),
    ]),
  );
}

/** Holds a workload's times against those of peers. */
async function compare(
  workload: Workload,
  targets: Record<string, number>,
): Promise<void> {
  const measured = await ratios(workload);
  for (const [peer, target] of Object.entries(targets)) {
    const ratio = measured.get(peer)!;
    report(
      `${workload.name}: time, by that of ${peer}`,
      `at most ${target.toFixed(2)}`,
      ratio.toFixed(2),
      ratio <= target,
    );
  }
}

/** Holds a workload's speed against a copy's. */
async function compareToCopy(
  workload: Workload,
  target: number,
): Promise<void> {
  const speed = 1 / (await ratios(workload)).get("copy")!;
  report(
    `${workload.name}: speed, by that of a copy`,
    `at least ${target.toFixed(2)}`,
    speed.toFixed(2),
    speed >= target,
  );
}

async function awaited(target: number): Promise<void> {
  const { now, later } = await hotReads();
  const count = 4000;
  const added: number[] = [];
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    const sync = time(now, count);
    const start = performance.now();
    for (let i = 0; i < count; i++) await later();
    const ns = (performance.now() - start) / count * 1e6 - sync;
    if (round >= 0) added.push(ns);
  }
  const ns = median(added);
  report(
    "await read(): longer than readSync()",
    `at most ${target} ns`,
    `${ns.toFixed(0)} ns`,
    ns <= target,
  );
}

async function directReads(target: number): Promise<void> {
  const reads = await DirectReads.make();
  const count = 8192;
  const rates: number[] = [];
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    const start = performance.now();
    await reads.run(count);
    const rate = count / (performance.now() - start) * 1000;
    if (round >= 0) rates.push(rate);
  }
  const rate = median(rates);
  report(
    "direct reads, 4k random, 32 in flight: a second",
    `at least ${target / 1000}k`,
    `${(rate / 1000).toFixed(0)}k`,
    rate >= target,
  );
}

/** A million hits. */
async function heap(workload: Workload): Promise<void> {
  const [, iomap] = (await peersOf(workload))[0]!;
  const bytes = bytesPerCall(workload.op(iomap), 1_000_000);
  report(
    `${workload.name}: allocated by each of a million`,
    "less than 1 B",
    `${bytes.toFixed(2)} B`,
    bytes < 1,
  );
}

const { hotRead, randomRead, randomWrite, append, bigRead, bigWrite } =
  WORKLOADS;
console.log(
  `${"".padEnd(50)} ${"target".padStart(14)} ${"measured".padStart(12)}`,
);
await compare(hotRead, { "memfs": 0.5, "node:fs": 0.25 });
await compare(randomRead, { "memfs": 0.9 });
await compare(randomWrite, { "memfs": 0.85 });
await compare(append, { "node:fs": 0.65 });
await compareToCopy(bigRead, 0.85);
await compareToCopy(bigWrite, 0.85);
await awaited(60);
await directReads(400e3);
await heap(hotRead);
await heap(randomWrite);
const [load = 0] = Deno.loadavg();
if (load > navigator.hardwareConcurrency) {
  console.log(
    `the machine is busy (load ${load.toFixed(1)}): times say little`,
  );
}
console.log(failures === 0 ? "all hold" : `${failures} not reached`);
