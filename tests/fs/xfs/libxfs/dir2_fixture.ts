/**
 * A directory on a new file system in memory, without a VFS around it.
 *
 * @module
 */

import { S_IFDIR } from "../../../../fs/fs.ts";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import { xfsBmapiWrite, xfsBunmapi } from "../../../../fs/xfs/libxfs/bmap.ts";
import { BmbtIrec } from "../../../../fs/xfs/libxfs/iext.ts";
import type { XfsTrans } from "../../../../fs/xfs/libxfs/trans.ts";
import type { MkfsXfsOptions } from "../../../../fs/xfs/mkfs.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import { begin, newInode, newMount } from "./fixture.ts";

/** What the file system and the directory are made with. */
interface NewDirOptions {
  blockSize?: number;
  dirBlockSize?: number;
  /** Where the attribute fork begins; 0 if absent. */
  forkoff?: number;
}

/** A directory whose inode is in no file system; it has no form yet. */
interface NewDir {
  mp: XfsMount;
  dp: XfsInode;
  begin(blocks?: number): XfsTrans;
}

/** Makes one more directory on a mount. */
export function dirOn(mp: XfsMount, ino: number, forkoff = 0): XfsInode {
  const dp = newInode(mp, ino, S_IFDIR | 0o755);
  dp.forkoff = forkoff;
  return dp;
}

/** Makes a file system of 32 MiB and a directory. */
export async function newDir(options: NewDirOptions): Promise<NewDir> {
  const mkfs: MkfsXfsOptions = {};
  const { blockSize, dirBlockSize, forkoff } = options;
  if (blockSize !== undefined) mkfs.blockSize = blockSize;
  if (dirBlockSize !== undefined) mkfs.dirBlockSize = dirBlockSize;
  const mp = await newMount(32 * 2 ** 20, mkfs);
  // Numbers that a larger file system could have, for those of 8 bytes.
  mp.sb.verifyIno = (ino) => ino >= 64 && ino < 2 ** 40;
  return {
    mp,
    dp: dirOn(mp, mp.sb.rootino, forkoff),
    begin: (blocks = 200) => begin(mp, blocks),
  };
}

/** Fills the free space and frees every other block again. */
export function fragmentSpace(mp: XfsMount): void {
  const hog = dirOn(mp, mp.sb.rootino + 1);
  const mvals = [new BmbtIrec()];
  let end = 0;
  for (;;) {
    const blocks = Math.min(mp.fdblocks - mp.allocSetAside - 64, 30_000);
    if (blocks <= 0) break;
    const tp = begin(mp, blocks + 32);
    const n = xfsBmapiWrite(tp, hog, end, blocks, 0, blocks, mvals, 1);
    tp.commit();
    if (n <= 0) break;
    end = mvals[0]!.endoff;
  }
  for (let bno = 1; bno < end; bno += 2) {
    const tp = begin(mp, 16);
    xfsBunmapi(tp, hog, bno, 1, 0, 0);
    tp.commit();
  }
}
