/**
 * What every test does that has unmounted a file system: look whether the image is in
 * order.
 *
 * @module
 */

import type { BlockDevice } from "../../../block/blkdev.ts";
import { type FsckReader, fsckXfs } from "../../../fs/xfs/fsck/fsck.ts";

/** Throws, with all findings, if an image is not clean. Nothing is mounted on it. */
export function assertCleanImage(source: BlockDevice | FsckReader): void {
  const { findings, more } = fsckXfs(source);
  if (findings.length === 0) return;
  const rest = more > 0 ? `\n  and ${more} more` : "";
  throw new Error(
    `the image is not clean:\n  ${findings.join("\n  ")}${rest}`,
  );
}
