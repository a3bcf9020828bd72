/**
 * A load of bios: so many in flight, each of which is submitted again when it has
 * ended. No promise until the last has.
 */
import {
  Bio,
  type BlockDevice,
  REQ_OP_READ,
  REQ_OP_WRITE,
  submitBio,
} from "../../block/mod.ts";
import { Prng } from "../../lib/prng.ts";

const BLOCK = 4096;
const SECTORS = BLOCK / 512;

/** What {@linkcode Load} takes. */
export interface LoadOptions {
  /** In flight. */
  depth: number;
  /** Share of reads, 0 to 1; 1 if absent. */
  reads?: number;
  /** Bytes that are touched; the device's if absent. */
  region?: number;
}

/** Random aligned 4 KiB bios. */
export class Load {
  /** Statuses other than OK that were seen. */
  errors = 0;
  readonly #bdev: BlockDevice;
  readonly #blocks: Float64Array;
  readonly #reads: number;
  readonly #depth: number;
  readonly #free: Uint8Array[];
  #left = 0;
  #inFlight = 0;
  #next = 0;
  #ended: (() => void) | null = null;

  constructor(bdev: BlockDevice, { depth, reads = 1, region }: LoadOptions) {
    this.#bdev = bdev;
    const blocks = Math.floor((region ?? bdev.nrSectors * 512) / BLOCK);
    const random = new Prng(1, "load");
    this.#blocks = Float64Array.from(
      { length: 1 << 16 },
      () => random.below(blocks) * SECTORS,
    );
    this.#reads = Math.round(reads * 16);
    this.#depth = depth;
    this.#free = Array.from(
      { length: depth },
      () => new Uint8Array(BLOCK).fill(0x5a),
    );
  }

  /** Submits `count` bios. @returns When all have ended. */
  run(count: number): Promise<void> {
    this.#left = count;
    return new Promise((resolve) => {
      this.#ended = resolve;
      for (const buffer of this.#free.splice(0)) {
        if (this.#left > 0) this.#submit(buffer);
        else this.#free.push(buffer);
      }
    });
  }

  /** Submits one bio for each place, and does not wait. */
  fill(): void {
    this.#left = this.#depth;
    for (const buffer of this.#free.splice(0)) this.#submit(buffer);
  }

  #submit(buffer: Uint8Array): void {
    this.#left--;
    this.#inFlight++;
    const n = this.#next++;
    const bio = new Bio(
      this.#bdev,
      (n & 15) < this.#reads ? REQ_OP_READ : REQ_OP_WRITE,
    );
    bio.addData(buffer, 0, BLOCK);
    bio.sector = this.#blocks[n & 0xffff]!;
    bio.private = buffer;
    bio.endIo = this.#again;
    submitBio(bio);
  }

  readonly #again = (bio: Bio): void => {
    this.#inFlight--;
    if (bio.status !== 0) this.errors++;
    const buffer = bio.private as Uint8Array;
    if (this.#left > 0) return this.#submit(buffer);
    this.#free.push(buffer);
    if (this.#inFlight === 0) this.#ended?.();
  };
}
