/**
 * Direct 4 KiB random reads with 32 in flight, on the `null` device and the
 * virtual clock: what a read costs in real time through the whole stack.
 */
import { Prng } from "../../lib/prng.ts";
import { iomapFile, KiB, MiB } from "./peers.ts";

const REGION = 64 * MiB;
const DEPTH = 32;
const BATCH = 1024;

const file = await iomapFile(true);
const chunk = new Uint8Array(MiB).fill(0x5a);
for (let at = 0; at < REGION; at += MiB) await file.write(chunk, { at });

const random = new Prng(1, "bench");
const offsets = Float64Array.from(
  { length: 1 << 14 },
  () => random.below(REGION / (4 * KiB)) * 4 * KiB,
);
let next = 0;

/** Keeps one of the 32 places of the queue busy for its share of a batch. */
async function place(buffer: Uint8Array): Promise<void> {
  for (let n = 0; n < BATCH / DEPTH; n++) {
    await file.read(buffer, { at: offsets[next++ & 0x3fff]! });
  }
}

const buffers = Array.from({ length: DEPTH }, () => new Uint8Array(4 * KiB));

Deno.bench({
  name: `iomap, ${BATCH} reads an iteration`,
  group: "direct read 4k random, queue depth 32",
  fn: async () => {
    await Promise.all(buffers.map(place));
  },
});
