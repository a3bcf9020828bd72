/**
 * A mount over a device that is never used, for what works in memory alone.
 *
 * @module
 */

import type { Bio } from "../../../block/bio.ts";
import { BlockDevice, type QueueLimits } from "../../../block/blkdev.ts";
import type { SuperOperations } from "../../../fs/fs.ts";
import { XfsGeometry } from "../../../fs/xfs/format.ts";
import { Ifork } from "../../../fs/xfs/iext.ts";
import type { XfsInode } from "../../../fs/xfs/inode.ts";
import { XfsMount } from "../../../fs/xfs/mount.ts";
import { VirtualClock } from "../../../lib/clock.ts";
import type { Mm } from "../../../mm/mm.ts";

class NoDevice extends BlockDevice {
  readonly name = "none";
  readonly clock = new VirtualClock();
  readonly limits = {
    logicalBlockSize: 512,
    physicalBlockSize: 512,
  } as QueueLimits;
  readonly nrSectors = 0;
  readonly dev = { major: 0, minor: 0 };
  submit(_bio: Bio): void {
    throw new Error("no I/O was expected");
  }
}

/** A mount with all blocks free but the groups' headers. */
export function fakeMount(
  agCount: number,
  agBlocks: number,
  blockSize = 4096,
): XfsMount {
  const geo = new XfsGeometry(
    blockSize,
    agCount * agBlocks,
    agCount,
    agBlocks,
  );
  const mp = new XfsMount(
    new NoDevice(),
    {} as Mm,
    {} as SuperOperations,
    geo,
    "",
    { allocsizeLog: null },
  );
  for (const ag of mp.ags) {
    ag.give(geo.headerBlocks, ag.blocks - geo.headerBlocks);
  }
  mp.countFree();
  return mp;
}

/** As much of an inode as `bmap.ts` touches. */
export function fakeInode(mount: XfsMount, ino: number): XfsInode {
  const ip = {
    mount,
    ino,
    df: new Ifork(),
    nblocks: 0,
    delayedBlocks: 0,
    logMap() {},
  };
  return ip as unknown as XfsInode;
}
