/**
 * A hit allocates nothing. Other kinds of calls come first: code that has only ever
 * seen hits is optimized for hits alone, and allocates less than it would in use.
 */
import { assertLess } from "@std/assert";
import {
  createNvme,
  type FsFile,
  mkfsXfs,
  mount,
  VirtualClock,
  xfs,
} from "../../mod.ts";
import { bytesPerCall } from "../bench/heap.ts";

const PAGE = 4096;
const SIZE = 64 * PAGE;
const HITS = 1_000_000;
/** Bytes of a hit: less than a closure's variables (32) or a view (104). One boxed number
 * (16) may be: where the machine is busy, not all code has been optimized yet. */
const BOUND = 24;

/** A cached file, after writes and reads of all kinds. */
async function usedFile(): Promise<FsFile> {
  const device = createNvme(new VirtualClock(), {
    size: 2 ** 28,
    preset: "tlc-dc",
  });
  await mkfsXfs(device);
  const fs = await mount(device, xfs, { memory: 2 ** 26 });
  const open = { read: true, write: true, create: true };
  const page = new Uint8Array(PAGE);
  const direct = await fs.open("/a", { ...open, direct: true });
  for (let at = 0; at < SIZE; at += PAGE) await direct.write(page, { at });
  const file = await fs.open("/a", open);
  // These miss, and wait for the device.
  for (let at = 0; at < SIZE; at += PAGE) await file.read(page, { at });
  await file.write(page, { at: 0, dsync: true });
  return file;
}

Deno.test("readSync() and writeSync() of cached pages allocate nothing", async () => {
  const file = await usedFile();
  const page = new Uint8Array(PAGE);
  const options = { at: 0 };
  const next = () => options.at = (options.at + PAGE) % SIZE;

  const read = bytesPerCall(() => {
    next();
    file.readSync(page, options);
  }, HITS);
  const written = bytesPerCall(() => {
    next();
    file.writeSync(page, options);
  }, HITS);
  file.close();

  assertLess(read, BOUND);
  assertLess(written, BOUND);
});
