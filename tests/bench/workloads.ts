/**
 * What is done through the public file and through its peers: `file_bench.ts` shows
 * the times, `targets.ts` holds the ratios against what was aimed at.
 */
import type { FsFile } from "../../mod.ts";
import { Prng } from "../../lib/prng.ts";
import { iomapFile, KiB, MiB, type Peer, peers } from "./peers.ts";

const REGION = 256 * MiB;
const page = new Uint8Array(4 * KiB).fill(0xa5);
const big = new Uint8Array(MiB).fill(0xa5);

/** One operation, on all peers. */
export interface Workload {
  name: string;
  /** Bytes of the files before. */
  size: number;
  /** Bytes that the files may grow to; `size` if absent. */
  capacity?: number;
  /** The operation, again and again. */
  op(peer: Peer): () => void;
  /** Operations that are timed together where peers take turns. */
  batch: number;
}

/** Page offsets in a random order, drawn before anything is timed. */
function randomPages(region: number): Float64Array {
  const random = new Prng(1, "bench");
  return Float64Array.from(
    { length: 1 << 16 },
    () => random.below(region / (4 * KiB)) * 4 * KiB,
  );
}
const offsets = randomPages(REGION);

/** Calls `op` at one offset after the other. */
function random(op: (at: number) => void): () => void {
  let i = 0;
  return () => op(offsets[i++ & 0xffff]!);
}

/** Megabytes of the region in order, over and over. */
function sequential(op: (at: number) => void): () => void {
  let at = 0;
  return () => {
    op(at);
    at = (at + MiB) % (32 * MiB);
  };
}

// The file starts again at 64 MiB, so that memory is bounded and recycled: one
// truncation in 16,384 operations, for every peer.
const APPEND_MAX = 64 * MiB;

function append(peer: Peer): () => void {
  let at = 0;
  return () => {
    if (at >= APPEND_MAX) {
      peer.clear();
      at = 0;
    }
    peer.write(page, at);
    at += 4 * KiB;
  };
}

/** All of them. */
export const WORKLOADS = {
  hotRead: {
    name: "read 4k hot",
    size: MiB,
    op: (p) => () => p.read(page, 64 * KiB),
    batch: 4000,
  },
  randomRead: {
    name: "read 4k random 256M",
    size: REGION,
    op: (p) => random((at) => p.read(page, at)),
    batch: 4000,
  },
  randomWrite: {
    name: "write 4k random 256M",
    size: REGION,
    op: (p) => random((at) => p.write(page, at)),
    batch: 4000,
  },
  append: {
    name: "append 4k",
    size: 0,
    capacity: APPEND_MAX,
    op: append,
    batch: APPEND_MAX / (4 * KiB),
  },
  bigRead: {
    name: "read 1M",
    size: REGION,
    op: (p) => sequential((at) => p.read(big, at)),
    batch: 64,
  },
  bigWrite: {
    name: "write 1M",
    size: REGION,
    op: (p) => sequential((at) => p.write(big, at)),
    batch: 64,
  },
} satisfies Record<string, Workload>;

const made = new Map<number, Promise<[string, Peer][]>>();

/** The peers of a workload; those with files of the same size share them. */
export function peersOf(
  { size, capacity }: Workload,
): Promise<[string, Peer][]> {
  let all = made.get(size);
  if (all === undefined) made.set(size, all = peers(size, capacity));
  return all;
}

/** A cached file, and the same read of it with and without a promise. */
export async function hotReads(): Promise<
  { now(): number | null; later(): Promise<number | null> }
> {
  const file = await iomapFile();
  await file.write(big, { at: 0 });
  const at = { at: 64 * KiB };
  return {
    now: () => file.readSync(page, at),
    later: () => file.read(page, at),
  };
}

/** Bytes of the file that {@linkcode DirectReads} reads. */
const DIRECT_REGION = 64 * MiB;
const DEPTH = 32;

/** Direct random reads of 4 KiB, so many in flight, on the `null` device and the
 * virtual clock: what a read costs in real time through the whole stack. */
export class DirectReads {
  readonly #file: FsFile;
  readonly #offsets = randomPages(DIRECT_REGION);
  readonly #buffers = Array.from(
    { length: DEPTH },
    () => new Uint8Array(4 * KiB),
  );
  #next = 0;

  private constructor(file: FsFile) {
    this.#file = file;
  }

  /** Of a file that has been written. */
  static async make(): Promise<DirectReads> {
    const file = await iomapFile(true);
    for (let at = 0; at < DIRECT_REGION; at += MiB) {
      await file.write(big, { at });
    }
    return new DirectReads(file);
  }

  /** Does about `count` reads. */
  async run(count: number): Promise<void> {
    await Promise.all(
      this.#buffers.map((buffer) => this.#reader(buffer, count / DEPTH)),
    );
  }

  async #reader(buffer: Uint8Array, count: number): Promise<void> {
    const options = { at: 0 };
    for (let i = 0; i < count; i++) {
      options.at = this.#offsets[this.#next++ & 0xffff]!;
      await this.#file.read(buffer, options);
    }
  }
}
