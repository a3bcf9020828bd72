/*
 * Goal: whatever the trees of reference counts and reverse mappings hold, a change or a
 * question ends, with the right errno if it could not be done, and throws nothing.
 * Method: one block of a good image is changed (a bit, a field, a swap of two pieces) and
 * sealed, then everything is tried on it.
 * Oracle: 0 or a typed error; the file system is shut down after an error of corruption.
 */
import { assert } from "@std/assert";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import { xfsAgResvInit } from "../../../../fs/xfs/libxfs/ag-resv.ts";
import { bufSeal } from "../../../../fs/xfs/libxfs/buf.ts";
import * as F from "../../../../fs/xfs/libxfs/format.ts";
import { BmbtIrec } from "../../../../fs/xfs/libxfs/iext.ts";
import {
  xfsRefcountAllocCowExtent,
  xfsRefcountDecreaseExtent,
  xfsRefcountFindShared,
  xfsRefcountFreeCowExtent,
  xfsRefcountIncreaseExtent,
  xfsRefcountRecoverCowLeftovers,
} from "../../../../fs/xfs/libxfs/refcount.ts";
import {
  xfsRmapConvertExtent,
  xfsRmapMapExtent,
  xfsRmapUnmapExtent,
} from "../../../../fs/xfs/libxfs/rmap.ts";
import { xfsTransAlloc } from "../../../../fs/xfs/libxfs/trans.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import { EFSCORRUPTED, EIO, ENOSPC } from "../../../../lib/errno.ts";
import { setLogHandler } from "../../../../lib/printk.ts";
import { Prng } from "../../../../lib/prng.ts";
import { openMount } from "./fixture.ts";
import { MemoryDevice } from "./memory_device.ts";
import { readBlocks } from "./share_check.ts";
import { newShareMount, ShareModel, ShareRunner } from "./share_fixture.ts";

const MiB = 2 ** 20;
const ROUNDS = 400;
const TYPED: number[] = [0, -EFSCORRUPTED, -EIO, -ENOSPC];

/** An image with trees of some height; its device, and the trees' blocks in bytes. */
async function goodImage(): Promise<[MemoryDevice, number[]]> {
  const options = { blockSize: 1024, agCount: 2, rmapbt: true };
  const mp = await newShareMount(32 * MiB, options);
  const model = new ShareModel(mp);
  for (let i = 0; i < 5; i++) model.addFile(true);
  model.addFile(false);
  const runner = new ShareRunner(model, new Prng(1, "hostile"));
  for (let i = 0; i < 250; i++) runner.step();
  model.check();
  assert(await mp.targ.flush() === 0);
  const { sb } = mp;
  const blocks = mp.perags.flatMap((pag) =>
    readBlocks(pag).map((agbno) => sb.fsbToByte(sb.agbToFsb(pag.agno, agbno)))
  );
  return [mp.bdev as MemoryDevice, blocks];
}

/** Changes one block. */
function damage(device: MemoryDevice, at: number, prng: Prng): void {
  const data = new Uint8Array(1024);
  device.peek(at, data);
  const view = new DataView(data.buffer);
  const n = 1 + prng.below(2);
  for (let i = 0; i < n; i++) {
    // Mostly where there are records.
    const word = prng.below(prng.below(3) === 0 ? 255 : 60) * 4;
    switch (prng.below(5)) {
      case 0:
        data[word]! ^= 1 << prng.below(8);
        break;
      case 1:
        view.setUint32(word, prng.below(20000));
        break;
      case 2:
        view.setUint32(word, view.getUint32(word) + prng.below(5) - 2);
        break;
      case 3:
        view.setUint32(word, [0, 0xffff_ffff, 1, 2 ** 31][prng.below(4)]!);
        break;
      default:
        data.copyWithin(word, 56 + 24 * prng.below(10), 200);
    }
  }
  bufSeal(data, F.SBB_CRC);
  device.poke(at, data);
}

/** One thing after the other, until the file system is shut down. */
function tryAll(mp: XfsMount, prng: Prng): void {
  const { sb } = mp;
  const out = { fbno: 0, flen: 0 };
  for (let i = 0; i < 30 && !mp.dead; i++) {
    const tp = xfsTransAlloc(mp, 100);
    if (typeof tp === "number") return;
    const agno = prng.below(sb.agcount);
    const agbno = sb.headerBlocks + prng.below(12000);
    const fsbno = sb.agbToFsb(agno, agbno);
    const len = 1 + prng.below(prng.below(4) === 0 ? 3000 : 20);
    const unwritten = prng.below(2) === 0;
    const rec = new BmbtIrec().set(prng.below(4000), fsbno, len, unwritten);
    const isReflink = prng.below(2) === 0;
    const ino = sb.rootino + 3 + prng.below(6);
    const ip = { ino, isReflink } as unknown as XfsInode;
    let error = 0;
    switch (prng.below(8)) {
      case 0:
        xfsRefcountIncreaseExtent(tp, rec);
        break;
      case 1:
        xfsRefcountDecreaseExtent(tp, rec);
        break;
      case 2:
        xfsRefcountAllocCowExtent(tp, fsbno, len);
        break;
      case 3:
        xfsRefcountFreeCowExtent(tp, fsbno, len);
        break;
      case 4:
        xfsRmapMapExtent(tp, ip, F.XFS_DATA_FORK, rec);
        break;
      case 5:
        xfsRmapUnmapExtent(tp, ip, F.XFS_DATA_FORK, rec);
        break;
      case 6:
        xfsRmapConvertExtent(tp, ip, F.XFS_DATA_FORK, rec);
        break;
      default: {
        const pag = mp.perags[agno]!;
        error = xfsRefcountFindShared(tp, pag, agbno, len, unwritten, out);
      }
    }
    if (error < 0) tp.cancel();
    else error = tp.commit();
    assert(TYPED.includes(error), `errno ${error}`);
    if (error === -EFSCORRUPTED) assert(mp.dead && mp.complaint !== "");
  }
}

Deno.test("hostile trees of shared blocks give typed errors, and no loop", async () => {
  const quiet = setLogHandler(() => {});
  const [good, blocks] = await goodImage();
  const prng = new Prng(2, "damage");
  let refused = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const device = new MemoryDevice(32 * MiB, good);
    damage(device, blocks[prng.below(blocks.length)]!, prng);
    const mp = openMount(device);
    if (typeof mp === "number") continue;
    for (const pag of mp.perags) {
      xfsAgResvInit(pag, null);
      const error = xfsRefcountRecoverCowLeftovers(pag);
      assert(TYPED.includes(error), `round ${round}: ${error}`);
    }
    tryAll(mp, prng);
    if (mp.dead) refused++;
  }
  setLogHandler(quiet);
  assert(refused > ROUNDS / 4, `${refused} of ${ROUNDS}`);
});
