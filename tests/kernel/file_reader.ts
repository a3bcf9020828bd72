/**
 * An image in a file, to be checked.
 *
 * @module
 */

import type { FsckReader } from "../../fs/xfs/fsck/fsck.ts";

/** Reads a file. */
export class FileReader implements FsckReader {
  readonly size: number;
  readonly #file: Deno.FsFile;

  constructor(path: string) {
    this.#file = Deno.openSync(path, { read: true });
    this.size = this.#file.statSync().size;
  }

  read(at: number, data: Uint8Array): number {
    this.#file.seekSync(at, Deno.SeekMode.Start);
    for (let done = 0; done < data.length;) {
      const n = this.#file.readSync(data.subarray(done));
      if (n === null) return -5;
      done += n;
    }
    return 0;
  }

  close(): void {
    this.#file.close();
  }
}
