/**
 * Direct 4 KiB random reads with 32 in flight, on the `null` device and the
 * virtual clock: what a read costs in real time through the whole stack.
 */
import { Prng } from "../../lib/prng.ts";
import { iomapFile, KiB, MiB } from "./peers.ts";

const REGION = 64 * MiB;
const DEPTH = 32;

const file = await iomapFile(true);
const chunk = new Uint8Array(MiB).fill(0x5a);
for (let at = 0; at < REGION; at += MiB) await file.write(chunk, { at });

const random = new Prng(1, "bench");
const offsets = Float64Array.from(
  { length: 1 << 14 },
  () => random.below(REGION / (4 * KiB)) * 4 * KiB,
);

const buffers = Array.from({ length: DEPTH }, () => new Uint8Array(4 * KiB));
const inFlight: Promise<number | null>[] = buffers.map(() =>
  Promise.resolve(null)
);
let next = 0;

// One read an iteration: waits for the oldest of the 32, and sends the next.
Deno.bench({
  name: "iomap",
  group: "direct read 4k random, queue depth 32",
  fn: async () => {
    const place = next % DEPTH;
    await inFlight[place];
    inFlight[place] = file.read(buffers[place]!, {
      at: offsets[next++ & 0x3fff]!,
    });
  },
});
