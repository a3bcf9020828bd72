/**
 * Streams 4 GiB through a cache of 64 MiB, writing and reading, and says how fast it
 * went and how many bytes of folios there were at most: 64 MiB plus a tenth is allowed.
 *
 * Run by `deno task stream`. The file is 512 MiB and gone through again and again, as
 * the device keeps it in memory.
 */
import { createNvme, mkfsXfs, mount, VirtualClock, xfs } from "../../mod.ts";

const MiB = 2 ** 20;
const MEMORY = 64 * MiB;
const FILE = 512 * MiB;
const TOTAL = 4096 * MiB;

const device = createNvme(new VirtualClock(), {
  size: 1024 * MiB,
  preset: "null",
});
await mkfsXfs(device);
const fs = await mount(device, xfs, { memory: MEMORY });
const { mm } = fs.superBlock;
const file = await fs.open("/file", { read: true, write: true, create: true });
let over = false;

async function stream(
  name: string,
  size: number,
  op: (at: number) => Promise<unknown> | unknown,
): Promise<void> {
  let most = 0;
  const start = performance.now();
  for (let done = 0; done < TOTAL; done += size) {
    const result = op(done % FILE);
    if (result instanceof Promise) await result;
    most = Math.max(most, mm.nrPages);
  }
  const seconds = (performance.now() - start) / 1000;
  const bytes = most * 4096;
  over ||= bytes > 1.1 * MEMORY;
  console.log(
    `${name}, ${size / 1024} KiB at a time: ` +
      `${(TOTAL / seconds / 1e9).toFixed(2)} GB/s, ` +
      `${(bytes / MiB).toFixed(1)} MiB of folios at most`,
  );
}

for (const size of [4096, 128 * 1024, MiB]) {
  const chunk = new Uint8Array(size).fill(0x5a);
  await stream("write", size, (at) => file.write(chunk, { at }));
  await stream("writeSync", size, (at) => file.writeSync(chunk, { at }));
  await stream("read", size, (at) => file.read(chunk, { at }));
  await stream("readSync", size, (at) => file.readSync(chunk, { at }));
}
file.close();
await fs.unmount();
device.close();
if (over) {
  console.error("more than 64 MiB plus a tenth");
  Deno.exit(1);
}
