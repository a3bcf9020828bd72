/**
 * Reads and writes through the public file, one operation an iteration, beside
 * memfs, node:fs on tmpfs, and the copy that none of them can do without.
 */
import { Prng } from "../../lib/prng.ts";
import { KiB, MiB, type Peer, peers } from "./peers.ts";

const REGION = 256 * MiB;
const page = new Uint8Array(4 * KiB).fill(0xa5);
const big = new Uint8Array(MiB).fill(0xa5);

/** Page offsets in a random order, drawn before anything is timed. */
const offsets = Float64Array.from(
  { length: 1 << 16 },
  (() => {
    const random = new Prng(1, "bench");
    return () => random.below(REGION / (4 * KiB)) * 4 * KiB;
  })(),
);

function group(
  name: string,
  all: [string, Peer][],
  op: (peer: Peer) => () => void,
): void {
  for (const [peerName, peer] of all) {
    Deno.bench({
      name: peerName,
      group: name,
      baseline: peerName === "iomap",
      fn: op(peer),
    });
  }
}

/** Calls `op` at one offset after the other. */
function random(op: (at: number) => void): () => void {
  let i = 0;
  return () => op(offsets[i++ & 0xffff]!);
}

const small = await peers(MiB);
const large = await peers(REGION);

group("read 4k hot", small, (p) => () => p.read(page, 64 * KiB));
group("read 4k random 256M", large, (p) => random((at) => p.read(page, at)));
group("write 4k random 256M", large, (p) => random((at) => p.write(page, at)));

// The file starts again at 64 MiB, so that memory is bounded: one truncation
// in 16,384 operations, for every peer.
const APPEND_MAX = 64 * MiB;
group("append 4k", await peers(0, APPEND_MAX), (p) => {
  let at = 0;
  return () => {
    if (at >= APPEND_MAX) {
      p.clear();
      at = 0;
    }
    p.write(page, at);
    at += 4 * KiB;
  };
});

/** Megabytes of the region in order, over and over. */
function sequential(op: (at: number) => void): () => void {
  let at = 0;
  return () => {
    op(at);
    at = (at + MiB) % (32 * MiB);
  };
}
group("read 1M", large, (p) => sequential((at) => p.read(big, at)));
group("write 1M", large, (p) => sequential((at) => p.write(big, at)));
