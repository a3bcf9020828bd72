/**
 * Checks an XFS image: every structure against every other.
 *
 * ```sh
 * deno task fsck IMAGE
 * ```
 *
 * Prints what is wrong, a line each. Exits with 0 if that is nothing, 1 if there is
 * something, 2 if the image cannot be judged.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { type FsckReader, fsckXfs } from "../mod.ts";

const USAGE = "usage: fsck [--quiet] IMAGE\n";
/** Progress is shown of checks that take longer, milliseconds. */
const PATIENCE = 1000;

/** Reads an image, and never writes to it. */
class ImageReader implements FsckReader {
  readonly size: number;
  readonly #file: Deno.FsFile;

  constructor(path: string) {
    this.#file = Deno.openSync(path, { read: true });
    // Of a device, too, that says no size of itself.
    this.size = this.#file.seekSync(0, Deno.SeekMode.End);
  }

  read(at: number, data: Uint8Array): number {
    try {
      this.#file.seekSync(at, Deno.SeekMode.Start);
      for (let done = 0; done < data.length;) {
        const n = this.#file.readSync(data.subarray(done));
        if (n === null) return -5;
        done += n;
      }
      return 0;
    } catch {
      return -5;
    }
  }

  close(): void {
    this.#file.close();
  }
}

/** Shows how far a check is, on a terminal. */
class Progress {
  #shown = 0;
  readonly #on = Deno.stderr.isTerminal();

  constructor() {
    this.#shown = performance.now();
  }

  readonly show = (phase: string, done: number, total: number): void => {
    const now = performance.now();
    if (!this.#on || now - this.#shown < PATIENCE) return;
    this.#shown = now;
    write(`\r\x1b[K${phase}: ${done} of ${total}`);
  };

  clear(): void {
    if (this.#on) write("\r\x1b[K");
  }
}

function write(text: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(text));
}

/** Checks an image.
 * @returns What to exit with. */
function check(path: string, quiet: boolean): number {
  const reader = new ImageReader(path);
  const progress = new Progress();
  try {
    const report = fsckXfs(reader, { progress: progress.show });
    progress.clear();
    for (const line of report.findings) console.log(line);
    if (report.more > 0) console.log(`and ${report.more} more`);
    if (!report.judged) return 2;
    if (report.findings.length > 0) return 1;
    if (!quiet) console.log(`${path}: clean, ${report.inodes} inodes`);
    return 0;
  } finally {
    reader.close();
  }
}

function main(args: string[]): number {
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        quiet: { type: "boolean", short: "q" },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.help) {
      console.log(USAGE.trimEnd());
      return 0;
    }
    if (positionals.length !== 1) {
      console.error(USAGE.trimEnd());
      return 2;
    }
    return check(positionals[0]!, values.quiet === true);
  } catch (error) {
    console.error(`fsck: ${error instanceof Error ? error.message : error}`);
    return 2;
  }
}

if (import.meta.main) Deno.exit(main(Deno.args));
