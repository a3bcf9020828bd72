/**
 * How the cost of XFS's metadata grows with its size: extents of a file, names in a
 * directory.
 *
 * ```sh
 * deno task bench:xfs [--extents 1000000] [--names 100000]
 * ```
 *
 * Times are those of the CPU: they stand still where the machine does something else.
 *
 * @module
 */

import process from "node:process";
import { parseArgs } from "node:util";
import {
  createNvme,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  mkfsXfs,
  type Mount,
  mount,
  VirtualClock,
  xfs,
} from "../../mod.ts";

const BLOCK = 4096;

async function newFs(size: number): Promise<Mount> {
  const device = createNvme(new VirtualClock(), { size, preset: "null" });
  await mkfsXfs(device, { seed: 1 });
  return await mount(device, xfs);
}

/** CPU time that some work takes, seconds. */
async function seconds(work: () => unknown): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

function row(...cells: (string | number)[]): void {
  console.log(cells.map((c) => String(c).padStart(16)).join(""));
}

/** A file of `extents` extents: every second block is punched out of it. */
async function extents(count: number): Promise<void> {
  const fs = await newFs(2 * count * BLOCK + 2 ** 30);
  const path = "/file";
  const file = await fs.open(path, { read: true, write: true, create: true });
  await file.fallocate(0, 0, 2 * count * BLOCK);
  const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  const us = (s: number) => (s / count * 1e6).toFixed(2);
  const punch = await seconds(async () => {
    for (let i = 0; i < count; i++) {
      file.fallocateSync(mode, 2 * i * BLOCK, BLOCK);
      // As a log would, now and then.
      if (i % 10_000 === 0) await fs.sync();
    }
  });
  file.close();
  await fs.sync();
  const again = await fs.open(path, { read: true, write: true });
  const map = await seconds(() => again.fiemapSync({ max: 2 * count }));
  const truncate = await seconds(() => again.truncateSync(0));
  again.close();
  await fs.unmount();
  row(count, us(punch), us(map), us(truncate));
}

/** A directory of `count` names. */
async function names(count: number): Promise<void> {
  const fs = await newFs(4 * 2 ** 30);
  const rate = (s: number) => Math.round(count / s);
  const create = await seconds(() => {
    for (let i = 0; i < count; i++) {
      fs.openSync(`/${i}`, { write: true, create: true }).close();
    }
  });
  await fs.unmount();
  const device = fs.superBlock.bdev;
  const cold = await mount(device, xfs);
  const look = await seconds(() => {
    for (let i = 0; i < count; i++) cold.statSync(`/${i}`);
  });
  const remove = await seconds(() => {
    for (let i = 0; i < count; i++) cold.unlinkSync(`/${i}`);
  });
  await cold.unmount();
  row(count, rate(create), rate(look), rate(remove));
}

const { values } = parseArgs({
  options: { extents: { type: "string" }, names: { type: "string" } },
});
const most = Number(values.extents ?? 1e6);
console.log("us for each extent");
row("extents", "punch", "fiemap", "truncate");
for (let n = 1e4; n <= most; n *= 10) await extents(n);
console.log("a second");
row("names", "create", "look up, cold", "unlink");
const many = Number(values.names ?? 1e5);
for (let n = 1e3; n <= many; n *= 10) await names(n);
