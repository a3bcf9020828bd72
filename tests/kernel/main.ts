/**
 * The kernel's XFS and this one, on the same images.
 *
 * ```sh
 * deno task test:kernel [--rounds N] [--ops N] [--seed N] [--keep]
 * ```
 *
 * Each round takes a set of mkfs options, lets the kernel do random operations, and
 * has the image checked after unmount: neither `xfs_repair -n` nor our own check may
 * find anything. Every other image is one of our own mkfs. Takes root, loop devices and xfsprogs; where they are missing, it
 * says so and succeeds.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { OPTION_SETS } from "../fs/xfs/option_sets.ts";
import { bothWays } from "./both_ways.ts";
import { fsckXfs } from "../../fs/xfs/fsck/fsck.ts";
import { FileReader } from "./file_reader.ts";
import { Libc } from "./libc.ts";
import { mkfs, repair, whyNot, withMount } from "./loop.ts";
import { Operations } from "./ops.ts";
import { ourMkfs } from "./ours.ts";
import { recoverRound } from "./recover.ts";
import { compareTrees, readTree } from "./tree.ts";

const MiB = 2 ** 20;

/** What images are made with. */
const SETS: string[] = [
  "",
  "-m rmapbt=1",
  "-m reflink=0",
  "-b size=1024",
  "-m rmapbt=1 -b size=1024",
  "-i sparse=0",
  "-i size=1024 -m bigtime=0",
  "-s size=4096 -i nrext64=1",
  "-d agcount=16",
  "-b size=16384 -m rmapbt=1",
  "-n size=16384 -b size=2048",
  "-m finobt=0,inobtcount=0 -i size=2048",
];

interface Settings {
  rounds: number;
  ops: number;
  seed: number;
  keep: boolean;
}

function round(libc: Libc, dir: string, set: string, s: Settings): string[] {
  const image = `${dir}/${s.seed}.img`;
  const args = set.split(" ").filter((arg) => arg !== "");
  if (s.seed % 2 === 0) ourMkfs(image, 512 * MiB, args);
  else mkfs(image, 512 * MiB, args);
  const complaints: string[] = [];
  let left = new Map();
  // The second mount finds what the first has left.
  for (const half of [0, 1]) {
    withMount(image, `${dir}/mnt`, () => {
      const found = readTree(libc, `${dir}/mnt`);
      if (half > 0) complaints.push(...compareTrees(left, found));
      const ops = new Operations(libc, `${dir}/mnt/${half}`, 2 * s.seed + half);
      Deno.mkdirSync(`${dir}/mnt/${half}`);
      for (let i = 0; i < s.ops / 2; i++) ops.step();
      left = readTree(libc, `${dir}/mnt`);
    });
  }
  const judged = repair(image, 4);
  if (judged !== "") complaints.push(`xfs_repair: ${judged}`);
  const reader = new FileReader(image);
  const begun = performance.now();
  const report = fsckXfs(reader);
  const ms = Math.round(performance.now() - begun);
  reader.close();
  complaints.push(...report.findings);
  console.log(
    `seed ${s.seed} ${set === "" ? "defaults" : set}: ` +
      `${report.inodes} inodes, checked in ${ms} ms, ` +
      (complaints.length === 0 ? "clean" : `${complaints.length} complaints`),
  );
  if (complaints.length === 0 && !s.keep) Deno.removeSync(image);
  return complaints;
}

function settings(): Settings {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      rounds: { type: "string", default: String(SETS.length) },
      ops: { type: "string", default: "1000" },
      seed: { type: "string", default: "1" },
      keep: { type: "boolean", default: false },
    },
  });
  return {
    rounds: Number(values.rounds),
    ops: Number(values.ops),
    seed: Number(values.seed),
    keep: values.keep,
  };
}

async function main(): Promise<number> {
  const why = whyNot();
  if (why !== null) {
    console.log(`skipped: ${why}`);
    return 0;
  }
  const s = settings();
  const libc = new Libc();
  const dir = Deno.makeTempDirSync({ prefix: "xfs-kernel-" });
  let failed = 0;
  try {
    for (let i = 0; i < s.rounds; i++) {
      const set = SETS[(s.seed + i - 1) % SETS.length]!;
      const complaints = round(libc, dir, set, { ...s, seed: s.seed + i });
      for (const line of complaints.slice(0, 20)) console.log(`  ${line}`);
      if (complaints.length > 0) failed++;
    }
    for (let i = 0; i < Math.min(s.rounds, OPTION_SETS.length); i++) {
      const seed = s.seed + i;
      const set = (seed - 1) % OPTION_SETS.length;
      const complaints = await bothWays(libc, dir, set, seed, s.ops);
      for (const line of complaints.slice(0, 20)) console.log(`  ${line}`);
      if (complaints.length > 0) failed++;
    }
    // For more of these: tests/kernel/recover.ts.
    for (let i = 0; i < Math.min(s.rounds, 6); i++) {
      const complaints = await recoverRound(libc, dir, s.seed + i, 1000);
      for (const line of complaints.slice(0, 20)) console.log(`  ${line}`);
      if (complaints.length > 0) failed++;
    }
  } finally {
    libc.dispose();
    if (failed === 0 && !s.keep) Deno.removeSync(dir, { recursive: true });
    else console.log(`images are in ${dir}`);
  }
  return failed === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main());
