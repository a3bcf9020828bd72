/**
 * Makes a fixture of tests/data/xfs: a small image with a log that the kernel has left,
 * and what the kernel finds on it.
 *
 * ```sh
 * deno run --allow-all tests/kernel/recover_fixture.ts NAME SEED WARM STEPS OPTIONS MKFS...
 * ```
 *
 * What of the log is dead, records before the tail, is blanked but for the numbers of
 * the cycles: it does not compress.
 *
 * @module
 */

import { gzipSync } from "node:zlib";
import { listHost } from "./both_ways.ts";
import { Libc, O_CREAT, O_RDWR } from "./libc.ts";
import { mkfs, run, withMount } from "./loop.ts";
import { Operations } from "./ops.ts";

const MAGIC = 0xfeed_babe;

/** Blanks what is neither head nor tail nor between. */
function blankLog(data: Uint8Array, tail: number, head: number): void {
  const view = new DataView(data.buffer);
  const blocksize = view.getUint32(4);
  const agblklog = view.getUint8(124);
  const logstart = Number(view.getBigUint64(48));
  const agno = Math.floor(logstart / 2 ** agblklog);
  const at = (agno * view.getUint32(84) + logstart % 2 ** agblklog) * blocksize;
  const bbs = view.getUint32(96) * blocksize / 512;
  for (let bb = 0; bb < bbs; bb++) {
    const live = tail <= head
      ? bb >= tail && bb < head
      : bb >= tail || bb < head;
    if (live) continue;
    const from = at + bb * 512;
    const word = view.getUint32(from);
    const cycle = word === MAGIC ? view.getUint32(from + 4) : word;
    data.fill(0, from, from + 512);
    view.setUint32(from, cycle);
  }
}

/** Whether the log, which is 6 MiB, has less than 40 blocks left; looked at now and
 * then. */
function nearEnd(i: number): boolean {
  const every = head > 11_500 ? 1 : 100;
  if (i % every === 0) head = headOf();
  return head > 6 * 2048 - 40;
}

function headOf(): number {
  const { text } = run("xfs_logprint", ["-t", path]);
  return Number(/head: (\d+)/.exec(text)![1]);
}

let head = 0;
const [name, seed, warm, steps, options, ...args] = Deno.args;
const libc = new Libc();
const dir = Deno.makeTempDirSync();
const path = `${dir}/dirty.img`;
const mnt = `${dir}/mnt`;
mkfs(path, 32 * 2 ** 20, args);
withMount(path, mnt, () => {
  Deno.mkdirSync(`${mnt}/d`);
  const ops = new Operations(libc, `${mnt}/d`, Number(seed));
  // As far as the log's end.
  for (let i = 0; warm === "wrap" && !nearEnd(i); i++) {
    Deno.writeTextFileSync(`${mnt}/d/warm-${i % 50}`, "warm");
    const fd = libc.open(`${mnt}/d/warm-${i % 50}`, O_RDWR);
    libc.ftruncate(fd, 0);
    libc.fsync(fd);
    libc.close(fd);
  }
  run("xfs_freeze", ["-f", mnt]);
  run("xfs_freeze", ["-u", mnt]);
  const fds: number[] = [];
  for (let i = 0; i < Number(steps); i++) {
    ops.step();
    if (i % 3 !== 0) continue;
    const fd = libc.open(`${mnt}/d/open`, O_RDWR | O_CREAT);
    libc.pwrite(fd, new Uint8Array(3000).fill(i), 0);
    libc.fsync(fd);
    Deno.removeSync(`${mnt}/d/open`);
    fds.push(fd);
  }
  libc.goingDown(mnt, 1);
  for (const fd of fds) libc.close(fd);
}, `loop${options === "" ? "" : `,${options}`}`);
const { text } = run("xfs_logprint", ["-t", path]);
const [, tail, end] = /tail: (\d+) head: (\d+)/.exec(text)!;
const data = Deno.readFileSync(path);
blankLog(data, Number(tail), Number(end));
const image = gzipSync(data, { level: 9 });
Deno.writeFileSync(path, data);
let lines: string[] = [];
withMount(path, mnt, () => lines = listHost(libc, mnt));
const list = gzipSync(new TextEncoder().encode(lines.join("\n")), { level: 9 });
const out = new URL("../data/xfs/", import.meta.url).pathname;
Deno.writeFileSync(`${out}dirty-${name}.img.gz`, image);
Deno.writeFileSync(`${out}dirty-${name}.txt.gz`, list);
console.log(name, tail, end, image.length, list.length, lines.length);
libc.dispose();
Deno.removeSync(dir, { recursive: true });
