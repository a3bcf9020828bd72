/**
 * Checking symbolic links.
 *
 * @module
 */

import * as F from "../libxfs/format.ts";
import { type BlockKind, type FsckContext, viewOf } from "./context.ts";
import { FileReader, rmtKind } from "./da.ts";
import type { Extents } from "./fork.ts";
import type { InodeImage } from "./inode.ts";

const REMOTE: BlockKind = rmtKind("symlink block", F.XFS_SYMLINK_MAGIC);

/** Looks at a link's target. */
export function checkSymlink(
  ctx: FsckContext,
  image: InodeImage,
  extents: Extents,
): void {
  const { ino, size, dataFork } = image;
  if (size < 1 || size >= F.XFS_SYMLINK_MAXLEN) {
    return ctx.found(`bad size ${size} of symlink ${ino}`);
  }
  if (dataFork.format === F.XFS_DINODE_FMT_LOCAL) {
    if (size > dataFork.size) return;
    const target = image.data.subarray(dataFork.at, dataFork.at + size);
    return checkTarget(ctx, ino, target);
  }
  if (extents.ok) checkRemote(ctx, ino, size, extents);
}

function checkTarget(ctx: FsckContext, ino: number, target: Uint8Array): void {
  if (target.includes(0)) ctx.found(`symlink ${ino}: NUL in its target`);
}

/** Each mapping is one block with one header. */
function checkRemote(
  ctx: FsckContext,
  ino: number,
  size: number,
  extents: Extents,
): void {
  const file = new FileReader(ctx, ino, extents, "symlink");
  const most = Math.ceil(
    F.XFS_SYMLINK_MAXLEN / (ctx.sb.blocksize - F.RMT_HDR_SIZE),
  );
  if (extents.end > most) {
    return file.found(`${extents.end} blocks, at most ${most}`);
  }
  let done = 0;
  for (let i = 0; i < extents.count; i++) {
    const first = extents.offset[i]!;
    const data = file.readKind(REMOTE, first, extents.len[i]!);
    if (data === null) return;
    const view = viewOf(data);
    const offset = view.getUint32(F.RMT_OFFSET);
    const bytes = view.getUint32(F.RMT_BYTES);
    const room = data.length - F.RMT_HDR_SIZE;
    if (offset !== done || bytes > room || bytes > size - done) {
      return file.found(
        `bad symlink header, file block ${first}: offset ${offset} bytes ${bytes}`,
      );
    }
    checkTarget(
      ctx,
      ino,
      data.subarray(F.RMT_HDR_SIZE, F.RMT_HDR_SIZE + bytes),
    );
    done += bytes;
  }
  if (done !== size) file.found(`size ${size}, its blocks hold ${done}`);
}
