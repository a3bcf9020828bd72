/**
 * Logs that the kernel leaves behind, replayed by the kernel and by us.
 *
 * ```sh
 * deno run --allow-all tests/kernel/recover.ts [--rounds N] [--seed N] [--keep]
 * ```
 *
 * Two programs do random operations on a file system, files without names are held
 * open, and it goes down in their midst. The kernel mounts one copy of the image, we
 * another: both must show the same tree. Ours must be clean then for `xfs_repair -n` and
 * our own check, and the kernel must find the same on it.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { fsckXfs } from "../../fs/xfs/fsck/fsck.ts";
import { setLogHandler } from "../../lib/printk.ts";
import { Prng } from "../../lib/prng.ts";
import { createNvme, mount, RealClock } from "../../mod.ts";
import { FileMedia } from "../../block/nvme/media.ts";
import { xfs } from "../fs/xfs/fixture.ts";
import { listingDifference, listMount } from "../fs/xfs/tree_listing.ts";
import { listHost } from "./both_ways.ts";
import { cutLog } from "./cut_log.ts";
import { FileReader } from "./file_reader.ts";
import { Libc, O_CREAT, O_RDWR } from "./libc.ts";
import { mkfs, repair, run, whyNot, withMount } from "./loop.ts";
import { Operations } from "./ops.ts";
import { compareTrees, readTree, type TreeNode } from "./tree.ts";

const MiB = 2 ** 20;

/** What images are made with, and mounted. */
const SETS: [string, string][] = [
  ["", ""],
  ["-m rmapbt=1 -l size=16m", ""],
  ["-l size=8m", "logbsize=256k"],
  ["-m reflink=0 -l size=8m", "logbsize=64k"],
  ["-b size=1024 -l size=16m", ""],
  ["-m rmapbt=1 -b size=1024 -l size=16m", "logbsize=128k"],
  ["-i sparse=0 -l size=8m", ""],
  ["-i size=1024 -m bigtime=0 -l size=8m", "logbsize=16k"],
  ["-s size=4096 -i nrext64=1 -l size=20m", ""],
  ["-l size=8m,su=64k", ""],
  ["-b size=16384 -m rmapbt=1", "logbsize=256k"],
  ["-n size=16384 -b size=2048 -l size=16m", ""],
  ["-m finobt=0,inobtcount=0 -i size=2048 -l size=16m", ""],
];

/** Writes the log for ever, so that it cuts what others do. */
function writeLog(libc: Libc, dir: string): never {
  const fd = libc.open(`${dir}/log`, O_RDWR | O_CREAT);
  for (let i = 0;; i++) {
    libc.ftruncate(fd, i % 2);
    libc.fsync(fd);
  }
}

/** Operations for ever, in a process of its own: of all kinds, or those that promise
 * most to be done later. */
function child(dir: string, seed: number): never {
  const libc = new Libc();
  const ops = new Operations(libc, dir, seed);
  if (seed < 0) writeLog(libc, dir);
  const work: (() => void)[] = seed % 2 === 0
    ? [() => ops.step()]
    : [() => ops.fragment(), () => ops.clone(), () => ops.truncate()];
  for (let i = 0;; i++) {
    try {
      work[i % work.length]!();
    } catch {
      // The file system is gone.
    }
  }
}

function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** Files without names that stay open. */
function openUnlinked(libc: Libc, dir: string, random: Prng): number[] {
  const fds: number[] = [];
  const data = new Uint8Array(random.below(200_000)).fill(7);
  for (let i = 0; i < 1 + random.below(40); i++) {
    const path = `${dir}/open-${i}`;
    const fd = libc.open(path, O_RDWR | O_CREAT);
    if (fd < 0) continue;
    libc.pwrite(fd, data, 0);
    if (i % 3 === 0) libc.setxattr(path, "user.a", data.subarray(0, 3000));
    if (i % 5 === 0) libc.fsync(fd);
    Deno.removeSync(path);
    fds.push(fd);
  }
  return fds;
}

/** Makes an image whose log is dirty.
 * @param ms How long. */
export function leaveDirty(
  libc: Libc,
  path: string,
  mnt: string,
  size: number,
  set: [string, string],
  seed: number,
  ms: number,
): void {
  const [args, options] = set;
  mkfs(path, size, args.split(" ").filter((arg) => arg !== ""));
  const random = new Prng(seed, "recover");
  const opts = ["loop", ...options === "" ? [] : [options]].join(",");
  withMount(path, mnt, () => {
    Deno.mkdirSync(`${mnt}/a`);
    Deno.mkdirSync(`${mnt}/b`);
    const programs = [seed, -seed].map((n) =>
      new Deno.Command(Deno.execPath(), {
        args: [
          "run",
          "-q",
          "--no-check",
          "--allow-all",
          import.meta.filename!,
          "--child",
          `${mnt}/b`,
          `--seed=${n}`,
        ],
        stdout: "null",
        stderr: "null",
      }).spawn()
    );
    const ops = new Operations(libc, `${mnt}/a`, seed + 1);
    const until = performance.now() + ms;
    while (performance.now() < until) ops.step();
    const fds = openUnlinked(libc, `${mnt}/a`, random);
    for (let i = 0; i < random.below(30); i++) ops.step();
    if (random.below(3) === 0) sleep(random.below(50));
    const mode = [1, 2, 1, 2, 0][random.below(5)]!;
    if (libc.goingDown(mnt, mode) !== 0) throw new Error("goingdown");
    for (const fd of fds) libc.close(fd);
    for (const program of programs) program.kill("SIGKILL");
    // The file system is busy until it is gone.
    sleep(100);
  }, opts);
}

function copy(from: string, to: string): void {
  run("cp", ["--sparse=always", from, to]);
}

/** Mounts an image ourselves.
 * @param list Looks at all files, which takes long.
 * @returns What is in it. */
export async function weRecover(
  path: string,
  list: boolean,
): Promise<string[]> {
  const media = FileMedia.open(path);
  const device = createNvme(new RealClock(), { preset: "null", media });
  const log = setLogHandler(() => {});
  try {
    const fs = await mount(device, xfs);
    const lines = list ? await listMount(fs) : [];
    await fs.unmount();
    return lines;
  } finally {
    setLogHandler(log);
    device.close();
  }
}

/** What the log holds, in a few words. */
function describe(path: string): string {
  const { text } = run("xfs_logprint", ["-t", path]);
  const records = /tail: (\d+) head: (\d+) state: (\S+)/.exec(text);
  const kinds = ["EFI", "RUI", "CUI", "BUI"].map((kind) => {
    const begun = text.split(`${kind}:`).length - 1;
    const done = text.split(`${kind.slice(0, 2)}D:`).length - 1;
    return `${kind} ${begun}/${done}`;
  });
  return `${records?.slice(1).join("-")} ${kinds.join(" ")}`;
}

/** One image. @returns What is wrong. */
export async function recoverRound(
  libc: Libc,
  dir: string,
  seed: number,
  ms: number,
): Promise<string[]> {
  const set = SETS[seed % SETS.length]!;
  const dirty = `${dir}/dirty-${seed}.img`;
  const theirs = `${dir}/theirs-${seed}.img`;
  const ours = `${dir}/ours-${seed}.img`;
  const mnt = `${dir}/mnt`;
  leaveDirty(libc, dirty, mnt, 320 * MiB, set, seed, ms);
  const promised = seed % 2 === 1 ? cutLog(dirty) : 0;
  copy(dirty, theirs);
  copy(dirty, ours);
  let lines: string[] = [];
  let tree = new Map<string, TreeNode>();
  const list = seed % 4 === 0;
  try {
    withMount(theirs, mnt, () => {
      tree = readTree(libc, mnt);
      if (list) lines = listHost(libc, mnt);
    });
  } catch (error) {
    // So much was cut off that the kernel cannot mount it either.
    if (promised > 0) return [];
    throw error;
  }
  const complaints: string[] = [];
  // What was cut off the log may be on the device already, and not everything that the
  // kernel makes pleases xfs_repair.
  const kernelClean = repair(theirs, 4) === "";
  if (promised > 0 && !kernelClean) return [];
  const judge = (what: string, said: string) => {
    if (said !== "") complaints.push(`${what}: ${said}`);
  };
  try {
    const found = await weRecover(ours, list);
    judge("we find", listingDifference(lines, found));
    if (kernelClean) judge("xfs_repair", repair(ours, 4));
    const reader = new FileReader(ours);
    if (kernelClean) judge("fsck", fsckXfs(reader).findings.join("\n"));
    reader.close();
    withMount(ours, mnt, () => {
      const found = readTree(libc, mnt);
      judge("the kernel finds", compareTrees(tree, found).join("\n"));
    });
    if (kernelClean) judge("xfs_repair after the kernel", repair(ours, 4));
  } catch (error) {
    complaints.push(String(error));
  }
  console.log(
    `recovery, seed ${seed} ${set.join(" ")}: ${tree.size} names, log ` +
      `${describe(dirty)}, ${promised} promised: ` +
      (complaints.length === 0 ? "equal" : "NOT equal"),
  );
  if (complaints.length === 0) {
    for (const path of [dirty, theirs, ours]) Deno.removeSync(path);
  }
  return complaints;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      rounds: { type: "string", default: String(SETS.length) },
      seed: { type: "string", default: "1" },
      ms: { type: "string", default: "1000" },
      child: { type: "string", default: "" },
    },
  });
  const seed = Number(values.seed);
  if (values.child !== "") child(values.child, seed);
  const why = whyNot();
  if (why !== null) {
    console.log(`skipped: ${why}`);
    return 0;
  }
  const libc = new Libc();
  const dir = Deno.makeTempDirSync({ prefix: "xfs-recover-" });
  let failed = 0;
  for (let i = 0; i < Number(values.rounds); i++) {
    const complaints = await recoverRound(
      libc,
      dir,
      seed + i,
      Number(values.ms),
    );
    for (const line of complaints.slice(0, 20)) {
      console.log(`  ${line.slice(0, 2000)}`);
    }
    if (complaints.length > 0) failed++;
  }
  libc.dispose();
  if (failed === 0) Deno.removeSync(dir, { recursive: true });
  else console.log(`images are in ${dir}`);
  return failed === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main());
