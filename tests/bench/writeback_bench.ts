/**
 * Writeback of dirty 4 KiB folios in file order to the `null` device: what it costs to
 * get a page from the cache into a bio, to the media, and clean again.
 */
import { figure } from "./figures.ts";
import { iomapFile, KiB, MiB } from "./peers.ts";

const DIRTY = 64 * MiB;
const TARGET = 2e9;
const page = new Uint8Array(4 * KiB).fill(0xa5);
const file = await iomapFile();

/** Page by page, so that each is a folio. */
function dirty(): void {
  for (let at = 0; at < DIRTY; at += 4 * KiB) file.writeSync(page, { at });
}

// Allocated and on the device: what is measured is overwriting.
dirty();
file.syncSync();

const group = "bytes of dirty 4 KiB folios written back";
figure({
  group,
  name: "fsync",
  ops: DIRTY,
  target: TARGET,
  before: dirty,
  fn: () => file.sync(),
});
figure({
  group,
  name: "fsync, synchronous",
  ops: DIRTY,
  target: TARGET,
  before: dirty,
  fn: () => file.syncSync(),
});
