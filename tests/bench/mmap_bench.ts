/**
 * Loads and stores through a mapping, beside reads and writes of the same file.
 */
import { createNvme, mkfsXfs, mount, VirtualClock, xfs } from "../../mod.ts";
import { KiB, MiB } from "./peers.ts";

const SIZE = 64 * MiB;
const page = new Uint8Array(4 * KiB).fill(0xa5);
const word = new Uint8Array(8);

const device = createNvme(new VirtualClock(), { size: 256 * MiB });
await mkfsXfs(device);
const fs = await mount(device, xfs);
const file = await fs.open("/a", { read: true, write: true, create: true });
for (let at = 0; at < SIZE; at += page.length) file.writeSync(page, { at });
const map = file.mmapSync({ write: true });
await map.advise("populate-write");

const here = { at: 64 * KiB };
Deno.bench({
  name: "readSync()",
  group: "4k hot",
  baseline: true,
  fn: () => void file.readSync(page, here),
});
Deno.bench("loadSync()", { group: "4k hot" }, () => {
  map.loadSync(64 * KiB, page);
});
Deno.bench("storeSync()", { group: "4k hot" }, () => {
  map.storeSync(64 * KiB, page);
});
Deno.bench("pageSync()", { group: "4k hot" }, () => {
  map.pageSync(64 * KiB);
});

let at = 0;
const next = () => at = (at + 7919 * 4 * KiB) % SIZE;
Deno.bench("loadSync() 8 bytes", { group: "random over 64M" }, () => {
  map.loadSync(next(), word);
});
Deno.bench("storeSync() 8 bytes", { group: "random over 64M" }, () => {
  map.storeSync(next(), word);
});

Deno.bench("minor fault", { group: "faults" }, () => {
  map.adviseSync("dontneed", 0, 64 * KiB);
  map.loadSync(0, word);
});
