import { assert } from "@std/assert";
import { XfsDirReader } from "../../../../fs/xfs/dir2-readdir.ts";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import {
  xfsDirCreatename,
  xfsDirInit,
  xfsDirLookup,
  xfsDirRemovename,
  xfsDirReplace,
} from "../../../../fs/xfs/libxfs/dir2.ts";
import type { XfsBuf } from "../../../../fs/xfs/libxfs/buf.ts";
import { xfsDir2SfVerify } from "../../../../fs/xfs/libxfs/dir2-sf.ts";
import { BmbtIrec, IextCursor } from "../../../../fs/xfs/libxfs/iext.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import { setLogHandler } from "../../../../lib/printk.ts";
import { Prng } from "../../../../lib/prng.ts";
import { dirOn, newDir } from "./dir2_fixture.ts";
import { begin } from "./fixture.ts";

const encoder = new TextEncoder();

function xname(text: string): { name: Uint8Array; type: number } {
  return { name: encoder.encode(text), type: 1 };
}

/** A directory with names "0-n", "1-n" …, after some of them have gone again. */
function filledDir(mp: XfsMount, ino: number, names: number): XfsInode {
  const dp = dirOn(mp, ino);
  const tp = begin(mp);
  xfsDirInit(tp, dp, dp);
  tp.commit();
  for (let i = 0; i < names; i++) {
    const tp = begin(mp, 100);
    xfsDirCreatename(tp, dp, xname(`${i}-n`), 100 + i, 100);
    tp.commit();
  }
  for (let i = 3; i < names; i += 7) {
    const tp = begin(mp, 100);
    xfsDirRemovename(tp, dp, xname(`${i}-n`), 100 + i, 100);
    tp.commit();
  }
  return dp;
}

/** Blocks of the directory that are in memory. */
function blocksOf(dp: XfsInode): XfsBuf[] {
  const cur = new IextCursor();
  const rec = new BmbtIrec();
  const { sb, targ } = dp.mount;
  const bufs: XfsBuf[] = [];
  const { df } = dp;
  for (let more = df.first(cur, rec); more; more = df.next(cur, rec)) {
    for (let i = 0; i < rec.count; i++) {
      const bp = targ.incore(sb.fsbToDaddr(rec.startblock + i));
      if (bp !== null) bufs.push(bp);
    }
  }
  return bufs;
}

/** Changes a byte or a field, often to something that is found elsewhere in it. */
function damage(prng: Prng, data: Uint8Array): void {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const end = data.length;
  // Headers and tails matter most.
  const near = prng.below(3) === 0 ? Math.min(128, end) : end;
  const at = prng.below(2) === 0
    ? prng.below(near)
    : end - 1 - prng.below(near);
  const width = Math.min(4, 2 ** prng.below(3));
  const to = Math.max(0, Math.min(end - width, at - at % width));
  const from = prng.below(end - width + 1);
  for (let i = 0; i < width; i++) {
    switch (prng.below(4)) {
      case 0:
        data[to + i] = prng.below(256);
        break;
      case 1:
        data[to + i] = data[from + i]!;
        break;
      case 2:
        data[to + i]! ^= 1 << prng.below(8);
        break;
      default:
        data[to + i] = prng.below(3) === 0 ? 0xff : 0;
    }
  }
  if (width === 4 && to + 4 <= end && prng.below(4) === 0) {
    view.setUint32(to, view.getUint32(to) + 1);
  }
}

/** Does one of everything; what it answers does not matter, but that it does. */
function useAll(prng: Prng, dp: XfsInode, names: number): void {
  const { mount: mp } = dp;
  const reader = new XfsDirReader(dp, true);
  for (let i = 0; i < 5000 && typeof reader.next() !== "number"; i++);
  for (let i = 0; i < 40; i++) {
    const name = xname(`${prng.below(2 * names)}-n`);
    revive(mp);
    xfsDirLookup(null, dp, name);
    revive(mp);
    const tp = begin(mp, 100);
    const what = prng.below(3);
    const error = what === 0
      ? xfsDirCreatename(tp, dp, xname(`new${i}`), 100 + i, 100)
      : what === 1
      ? xfsDirRemovename(tp, dp, name, 100, 100)
      : xfsDirReplace(tp, dp, name, 5000, 100);
    if (error < 0) tp.cancel();
    else tp.commit();
  }
  revive(mp);
}

/** A corruption shuts down; the test goes on all the same. */
function revive(mp: XfsMount): void {
  mp.dead = false;
  mp.targ.dead = false;
}

/** Goal: no contents of a directory's blocks make any operation throw, hang or read
 * beyond a block. Method: directories of all forms, a few fields changed, then one of
 * everything; blocks are verified as if they came from the device, with checksums
 * mended. */
async function fuzz(seed: number, rounds: number): Promise<void> {
  const prng = new Prng(seed, "fuzz");
  const old = setLogHandler(() => {});
  try {
    let { mp } = await newDir({ blockSize: 1024, dirBlockSize: 1024 });
    let refused = 0;
    for (let round = 0; round < rounds; round++) {
      if (round % 100 === 99) {
        ({ mp } = await newDir({ blockSize: 1024, dirBlockSize: 1024 }));
      }
      const names = [37, 70, 160, 400][round % 4]!;
      const dp = filledDir(mp, 128 + round, names);
      const bufs = blocksOf(dp);
      for (let n = 1 + prng.below(4); n > 0; n--) {
        damage(prng, bufs[prng.below(bufs.length)]!.data);
      }
      for (const bp of bufs) bp.ops = null;
      mp.complaint = "";
      useAll(prng, dp, names);
      if (mp.complaint !== "") refused++;
    }
    assert(refused > rounds / 4, `${refused} refused`);
  } finally {
    setLogHandler(old);
  }
}

Deno.test("directories survive damaged blocks (seed 1)", async () => {
  await fuzz(1, 200);
});

Deno.test("xfsDir2SfVerify() lets only what can be walked pass (seed 2)", async () => {
  const prng = new Prng(2, "fuzz");
  const { mp } = await newDir({});
  const old = setLogHandler(() => {});
  let passed = 0;
  for (let round = 0; round < 2000; round++) {
    const dp = filledDir(mp, 128, 10 + prng.below(10));
    const data = dp.df.local!;
    for (let n = prng.below(3); n >= 0; n--) damage(prng, data);
    const whole = prng.below(4) > 0;
    const short = data.slice(0, prng.below(data.length + 1));
    const local = whole ? data : short;
    if (xfsDir2SfVerify(mp, local) !== null) continue;
    passed++;
    dp.df.local = local;
    dp.diskSize = local.length;
    useAll(prng, dp, 20);
  }
  setLogHandler(old);
  assert(passed > 100, `${passed} passed`);
});
