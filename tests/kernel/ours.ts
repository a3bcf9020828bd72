/**
 * What our own programs do with an image.
 *
 * @module
 */

import { run } from "./loop.ts";

const TOOLS = new URL("../../tools/", import.meta.url).pathname;

/** Makes an image with `deno task mkfs`. */
export function ourMkfs(path: string, size: number, args: string[]): void {
  const { code, text } = run(Deno.execPath(), [
    "run",
    "--no-check",
    "--allow-read",
    "--allow-write",
    `${TOOLS}mkfs.ts`,
    "xfs",
    "-q",
    "--size",
    String(size),
    ...args,
    path,
  ]);
  if (code !== 0) throw new Error(`mkfs ${args.join(" ")}: ${text}`);
}
