/**
 * Files that share blocks, as far as the trees of groups know of them: each a map from
 * file blocks to blocks, and a model of what the trees have to hold.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import type { XfsMount } from "../../../../fs/xfs/mount.ts";
import {
  XFS_AG_RESV_NONE,
  xfsAgResvInit,
} from "../../../../fs/xfs/libxfs/ag-resv.ts";
import {
  XFS_ALLOC_USERDATA,
  XfsAllocArg,
  xfsAllocVextentNearBno,
  xfsFreeExtentLater,
} from "../../../../fs/xfs/libxfs/alloc.ts";
import * as F from "../../../../fs/xfs/libxfs/format.ts";
import { BmbtIrec } from "../../../../fs/xfs/libxfs/iext.ts";
import {
  xfsRefcountAllocCowExtent,
  xfsRefcountDecreaseExtent,
  xfsRefcountFreeCowExtent,
  xfsRefcountIncreaseExtent,
} from "../../../../fs/xfs/libxfs/refcount.ts";
import {
  xfsRmapConvertExtent,
  xfsRmapMapExtent,
  xfsRmapUnmapExtent,
} from "../../../../fs/xfs/libxfs/rmap.ts";
import type { XfsTrans } from "../../../../fs/xfs/libxfs/trans.ts";
import type { MkfsXfsOptions } from "../../../../fs/xfs/mkfs.ts";
import type { Prng } from "../../../../lib/prng.ts";
import { begin, newMount } from "./fixture.ts";
import { GroupModel, type Holder } from "./share_check.ts";

/** A mount whose groups keep blocks for their trees. */
export async function newShareMount(
  bytes: number,
  options: MkfsXfsOptions,
): Promise<XfsMount> {
  const mp = await newMount(bytes, options);
  prepare(mp);
  return mp;
}

/** Groups keep blocks for their trees from now on, as mount sees to it. */
export function prepare(mp: XfsMount): void {
  for (const pag of mp.perags) assertEquals(xfsAgResvInit(pag, null), 0);
}

/** Counts the transactions that end from now on; what it answers does not count. */
export function finishRoll(mp: XfsMount): () => number {
  const { targ } = mp;
  const before = targ.markDirty;
  const agf = mp.sb.agHeaderDaddr(0, 1);
  let count = 0;
  targ.markDirty = (bp) => {
    if (bp.daddr === agf) count++;
    before.call(targ, bp);
  };
  return () => {
    targ.markDirty = before;
    return count;
  };
}

/** Where a block of a file lies. */
interface Place {
  fsbno: number;
  unwritten: boolean;
}

/** A file, or the attributes of one. */
interface ShareFile {
  ip: XfsInode;
  fork: number;
  blocks: Map<number, Place>;
}

const UNWRITTEN = 1n << 61n;
const ATTR = 1n << 63n;
const COW = BigInt.asUintN(64, BigInt(F.XFS_RMAP_OWN_COW));

/** Files, and what the trees have to hold because of them. */
export class ShareModel {
  readonly mp: XfsMount;
  readonly groups: GroupModel[];
  readonly files: ShareFile[] = [];
  /** Ranges that are set aside: [fsbno, blocks]. */
  readonly cow: [number, number][] = [];
  readonly #touched = new Set<number>();

  constructor(mp: XfsMount) {
    this.mp = mp;
    this.groups = mp.perags.map((pag) => new GroupModel(pag));
  }

  /** A new file. @param reflink It may share blocks. */
  addFile(reflink: boolean, fork: number = F.XFS_DATA_FORK): ShareFile {
    const ino = this.mp.sb.rootino + 3 + this.files.length;
    const ip = { ino, isReflink: reflink } as unknown as XfsInode;
    const file = { ip, fork, blocks: new Map() };
    this.files.push(file);
    return file;
  }

  /** Checks the groups in which something has changed since it was called last. */
  check(): void {
    assert(!this.mp.dead, this.mp.complaint);
    for (const agno of this.#touched) this.groups[agno]!.check();
    this.#touched.clear();
  }

  #group(fsbno: number): GroupModel {
    const agno = this.mp.sb.fsbToAgno(fsbno);
    this.#touched.add(agno);
    return this.groups[agno]!;
  }

  #holders(fsbno: number): Holder[] {
    const { sb } = this.mp;
    return this.#group(fsbno).holders[sb.fsbToAgbno(fsbno)]!;
  }

  #off(file: ShareFile, off: number, unwritten: boolean): bigint {
    const attr = file.fork === F.XFS_ATTR_FORK ? ATTR : 0n;
    return BigInt(off) | attr | (unwritten ? UNWRITTEN : 0n);
  }

  hold(file: ShareFile, off: number, place: Place): void {
    file.blocks.set(off, { ...place });
    this.#holders(place.fsbno).push({
      owner: BigInt(file.ip.ino),
      off: this.#off(file, off, place.unwritten),
    });
  }

  drop(file: ShareFile, off: number): void {
    const place = file.blocks.get(off)!;
    file.blocks.delete(off);
    const list = this.#holders(place.fsbno);
    const key = this.#off(file, off, place.unwritten);
    const at = list.findIndex(({ owner, off }) =>
      owner === BigInt(file.ip.ino) && off === key
    );
    list.splice(at, 1);
  }

  setCow(fsbno: number, len: number, on: boolean): void {
    const { sb } = this.mp;
    const group = this.#group(fsbno);
    for (let i = 0; i < len; i++) {
      const agbno = sb.fsbToAgbno(fsbno) + i;
      group.cow[agbno] = on ? 1 : 0;
      if (on) group.holders[agbno]!.push({ owner: COW, off: 0n });
      else group.holders[agbno]!.pop();
    }
  }
}

/** Allocates blocks that nobody is noted for yet; null if there are none. */
export function takeBlocks(
  tp: XfsTrans,
  target: number,
  len: number,
): [fsbno: number, len: number] | null {
  const args = new XfsAllocArg().init(tp);
  args.minlen = 1;
  args.maxlen = len;
  args.datatype = XFS_ALLOC_USERDATA;
  assertEquals(xfsAllocVextentNearBno(args, target), 0);
  return args.fsbno === F.NULLFSBLOCK ? null : [args.fsbno, args.len];
}

/** A stretch of a file: contiguous on disk, in one group, of one state. */
function stretch(
  file: ShareFile,
  prng: Prng,
  mp: XfsMount,
  most: number,
): BmbtIrec | null {
  const offs = [...file.blocks.keys()];
  if (offs.length === 0) return null;
  const off = offs[prng.below(offs.length)]!;
  const { fsbno, unwritten } = file.blocks.get(off)!;
  const want = 1 + prng.below(most);
  let len = 1;
  for (; len < want; len++) {
    const next = file.blocks.get(off + len);
    if (next === undefined || next.fsbno !== fsbno + len) break;
    if (next.unwritten !== unwritten) break;
    if (mp.sb.fsbToAgbno(fsbno) + len >= mp.sb.agblocks) break;
  }
  return new BmbtIrec().set(off, fsbno, len, unwritten);
}

/** Does random things to files, and to the model. */
export class ShareRunner {
  readonly model: ShareModel;
  readonly prng: Prng;
  readonly counts: Record<string, number> = {};

  constructor(model: ShareModel, prng: Prng) {
    this.model = model;
    this.prng = prng;
  }

  #file(): ShareFile {
    const { files } = this.model;
    return files[this.prng.below(files.length)]!;
  }

  #target(): number {
    const { sb } = this.model.mp;
    const agno = this.prng.below(sb.agcount);
    const first = sb.headerBlocks;
    const agbno = first + this.prng.below(sb.agSize(agno) - first);
    return sb.agbToFsb(agno, agbno);
  }

  /** One random step: several changes in one transaction. */
  step(): void {
    const tp = begin(this.model.mp, 100);
    const n = 1 + this.prng.below(4);
    for (let i = 0; i < n; i++) this.#change(tp);
    assertEquals(tp.commit(), 0, this.model.mp.complaint);
  }

  #change(tp: XfsTrans): void {
    const kinds = [
      this.alloc,
      this.share,
      this.share,
      this.unmap,
      this.convert,
      this.cowAlloc,
      this.cowFree,
      this.cowEnd,
    ];
    const kind = kinds[this.prng.below(kinds.length)]!;
    this.counts[kind.name] = (this.counts[kind.name] ?? 0) + 1;
    kind.call(this, tp);
  }

  #map(tp: XfsTrans, file: ShareFile, rec: BmbtIrec): void {
    xfsRmapMapExtent(tp, file.ip, file.fork, rec);
    for (let i = 0; i < rec.count; i++) {
      const place = { fsbno: rec.startblock + i, unwritten: rec.unwritten };
      this.model.hold(file, rec.startoff + i, place);
    }
  }

  /** A place in a file where nothing is; sometimes right behind something. */
  #hole(file: ShareFile, len: number): number | null {
    let off = this.prng.below(4000);
    if (this.prng.below(2) === 0) {
      while (file.blocks.has(off)) off++;
      while (off > 0 && !file.blocks.has(off - 1)) off--;
    }
    for (let i = 0; i < len; i++) if (file.blocks.has(off + i)) return null;
    return off;
  }

  alloc(tp: XfsTrans): void {
    const file = this.#file();
    // Mostly next to what the file has: records are to merge.
    let target = this.#target();
    let off = this.#hole(file, 1);
    if (off === null) return;
    const before = file.blocks.get(off - 1);
    if (before !== undefined) {
      const { sb } = this.model.mp;
      const agno = sb.fsbToAgno(before.fsbno);
      if (sb.fsbToAgbno(before.fsbno) + 1 < sb.agSize(agno)) {
        target = before.fsbno + 1;
      }
    }
    const got = takeBlocks(tp, target, 1 + this.prng.below(12));
    if (got === null) return;
    const [fsbno, len] = got;
    off = this.#hole(file, len) ?? 5000 + this.prng.below(1000) * 20;
    while (file.blocks.has(off)) off += 20;
    const unwritten = file.fork === F.XFS_DATA_FORK &&
      this.prng.below(2) === 0;
    this.#map(tp, file, new BmbtIrec().set(off, fsbno, len, unwritten));
  }

  share(tp: XfsTrans): void {
    const [from, to] = [this.#file(), this.#file()];
    if (from.fork !== F.XFS_DATA_FORK || to.fork !== F.XFS_DATA_FORK) return;
    if (!from.ip.isReflink || !to.ip.isReflink) return;
    const rec = stretch(from, this.prng, this.model.mp, 40);
    if (rec === null) return;
    const off = this.#hole(to, rec.count);
    if (off === null) return;
    rec.startoff = off;
    xfsRefcountIncreaseExtent(tp, rec);
    this.#map(tp, to, rec);
  }

  unmap(tp: XfsTrans): void {
    const file = this.#file();
    const rec = stretch(file, this.prng, this.model.mp, 30);
    if (rec === null) return;
    xfsRmapUnmapExtent(tp, file.ip, file.fork, rec);
    if (file.ip.isReflink && file.fork === F.XFS_DATA_FORK) {
      xfsRefcountDecreaseExtent(tp, rec);
    } else {
      const { startblock, count } = rec;
      xfsFreeExtentLater(tp, startblock, count, null, XFS_AG_RESV_NONE);
    }
    for (let i = 0; i < rec.count; i++) this.model.drop(file, rec.startoff + i);
  }

  convert(tp: XfsTrans): void {
    const file = this.#file();
    if (file.fork !== F.XFS_DATA_FORK) return;
    const rec = stretch(file, this.prng, this.model.mp, 8);
    if (rec === null) return;
    rec.unwritten = !rec.unwritten;
    xfsRmapConvertExtent(tp, file.ip, file.fork, rec);
    for (let i = 0; i < rec.count; i++) {
      this.model.drop(file, rec.startoff + i);
      const place = { fsbno: rec.startblock + i, unwritten: rec.unwritten };
      this.model.hold(file, rec.startoff + i, place);
    }
  }

  cowAlloc(tp: XfsTrans): void {
    if (!this.model.mp.sb.hasReflink) return;
    const last = this.model.cow.at(-1);
    const target = last === undefined ? this.#target() : last[0];
    const got = takeBlocks(tp, target, 1 + this.prng.below(20));
    if (got === null) return;
    xfsRefcountAllocCowExtent(tp, ...got);
    this.model.setCow(...got, true);
    this.model.cow.push(got);
  }

  /** Part of a range that is set aside, cut out of the list. */
  #cowPart(): [number, number] | null {
    const { cow } = this.model;
    if (cow.length === 0) return null;
    const [fsbno, len] = cow.splice(this.prng.below(cow.length), 1)[0]!;
    const from = this.prng.below(len);
    const n = 1 + this.prng.below(len - from);
    if (from > 0) cow.push([fsbno, from]);
    if (from + n < len) cow.push([fsbno + from + n, len - from - n]);
    return [fsbno + from, n];
  }

  cowFree(tp: XfsTrans): void {
    const part = this.#cowPart();
    if (part === null) return;
    xfsRefcountFreeCowExtent(tp, ...part);
    xfsFreeExtentLater(tp, ...part, null, XFS_AG_RESV_NONE);
    this.model.setCow(...part, false);
  }

  /** What was set aside becomes a file's. */
  cowEnd(tp: XfsTrans): void {
    const file = this.#file();
    if (!file.ip.isReflink || file.fork !== F.XFS_DATA_FORK) return;
    const part = this.#cowPart();
    if (part === null) return;
    const [fsbno, len] = part;
    const off = this.#hole(file, len);
    if (off === null) {
      this.model.cow.push(part);
      return;
    }
    xfsRefcountFreeCowExtent(tp, fsbno, len);
    this.model.setCow(fsbno, len, false);
    this.#map(tp, file, new BmbtIrec().set(off, fsbno, len, false));
  }
}
