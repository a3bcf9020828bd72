/**
 * Reads the attributes of an inode from its raw blocks and checks everything in them
 * against everything else, without any of the code that makes them.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { XfsInode } from "../../../../fs/xfs/inode.ts";
import { attrLeafOps } from "../../../../fs/xfs/libxfs/attr-leaf.ts";
import { xfsAttr3RmtBufOps } from "../../../../fs/xfs/libxfs/attr-remote.ts";
import { xfsIreadExtents } from "../../../../fs/xfs/libxfs/bmap.ts";
import type { XfsBuf, XfsBufOps } from "../../../../fs/xfs/libxfs/buf.ts";
import { BmbtIrec, IextCursor } from "../../../../fs/xfs/libxfs/iext.ts";

/** Where attributes are. */
export const NONE = 0;
export const SHORT = 1;
export const LEAF = 2;
export const NODE = 3;

/** What an inode has, and how. */
interface AttrContents {
  /** {@linkcode NONE}, ... */
  form: number;
  /** Of each name, as latin1 behind its flags and ":": the value. */
  values: Map<string, Uint8Array>;
  /** Levels of the tree: 1 if a leaf is its root. */
  depth: number;
  leaves: number;
  /** Blocks of remote values. */
  remote: number;
}

/** How {@linkcode AttrContents} calls a name. */
export function keyOf(name: Uint8Array, flags: number): string {
  return `${flags}:${String.fromCharCode(...name)}`;
}

function hashOf(name: Uint8Array): number {
  let hash = 0n;
  for (const byte of name) {
    const turned = ((hash << 7n) | (hash >> 25n)) & 0xffff_ffffn;
    hash = BigInt(byte) ^ turned;
  }
  return Number(hash);
}

/** Checks the attributes of an inode; answers what they are. */
export function checkAttrs(ip: XfsInode): AttrContents {
  return new Checker(ip).check();
}

class Checker {
  readonly ip: XfsInode;
  readonly contents: AttrContents = {
    form: NONE,
    values: new Map(),
    depth: 0,
    leaves: 0,
    remote: 0,
  };
  /** Blocks of the fork: their fsbno. */
  readonly mapped = new Map<number, number>();
  readonly used = new Set<number>();
  lastHash = 0;

  constructor(ip: XfsInode) {
    this.ip = ip;
  }

  check(): AttrContents {
    const { ip, contents } = this;
    const fork = ip.af;
    assertEquals(fork === null, ip.forkoff === 0, "fork and forkoff");
    if (fork === null) return contents;
    const room = ip.mount.sb.inodesize - 176 - ip.forkoff * 8;
    assert(room > 0, `forkoff ${ip.forkoff}`);
    if (fork.format === 1) {
      contents.form = SHORT;
      assert(fork.local!.length <= room, "short form is too long");
      this.shortForm(fork.local!);
      return contents;
    }
    this.map();
    if (this.mapped.size === 0) return contents;
    const chains = new Map<number, number[]>();
    this.node(0, -1, chains);
    for (const chain of chains.values()) this.chain(chain);
    contents.depth = chains.size;
    contents.leaves = chains.get(0)!.length;
    contents.form = contents.depth === 1 ? LEAF : NODE;
    for (const bno of this.mapped.keys()) {
      assert(this.used.has(bno), `block ${bno} is nobody's`);
    }
    return contents;
  }

  put(name: Uint8Array, flags: number, value: Uint8Array): void {
    const key = keyOf(name, flags);
    assert(name.length > 0, "no name");
    assert(!this.contents.values.has(key), `${key} twice`);
    this.contents.values.set(key, value.slice());
  }

  shortForm(data: Uint8Array): void {
    assertEquals(data[0]! * 256 + data[1]!, data.length, "totsize");
    let at = 4;
    for (let i = 0; i < data[2]!; i++) {
      const [n, v, flags] = [data[at]!, data[at + 1]!, data[at + 2]!];
      const name = data.subarray(at + 3, at + 3 + n);
      this.put(name, flags, data.subarray(at + 3 + n, at + 3 + n + v));
      at += 3 + n + v;
    }
    assertEquals(at, data.length, "end of short form");
  }

  map(): void {
    const cur = new IextCursor();
    const rec = new BmbtIrec();
    const { af, nblocks } = this.ip;
    assertEquals(xfsIreadExtents(null, this.ip, 1), 0);
    for (let more = af!.first(cur, rec); more; more = af!.next(cur, rec)) {
      for (let i = 0; i < rec.count; i++) {
        this.mapped.set(rec.startoff + i, rec.startblock + i);
      }
    }
    assert(nblocks >= this.mapped.size, "nblocks");
  }

  read(bno: number, ops: XfsBufOps): XfsBuf {
    const { mount, ino } = this.ip;
    const fsbno = this.mapped.get(bno);
    assert(fsbno !== undefined, `block ${bno} is not mapped`);
    assert(!this.used.has(bno), `block ${bno} is used twice`);
    this.used.add(bno);
    const daddr = mount.sb.fsbToDaddr(fsbno);
    const bp = mount.targ.read(daddr, mount.sb.bbPerBlock, ops);
    assert(typeof bp !== "number", `block ${bno}: ${bp} ${mount.complaint}`);
    assertEquals(ops.verify(bp, mount.targ), null, `block ${bno}`);
    const at = ops === xfsAttr3RmtBufOps ? 32 : 48;
    assertEquals(Number(bp.view.getBigUint64(at)), ino, "owner");
    return bp;
  }

  /** Answers the last hash. */
  node(bno: number, level: number, chains: Map<number, number[]>): number {
    const { view } = this.read(bno, attrLeafOps.bufOps);
    const isLeaf = view.getUint16(8) === 0x3bee;
    const here = isLeaf ? 0 : view.getUint16(58);
    if (level >= 0) assertEquals(here, level, "level");
    if (!chains.has(here)) chains.set(here, []);
    chains.get(here)!.push(bno);
    const count = view.getUint16(56);
    if (isLeaf) {
      this.leaf(view, count);
      return view.getUint32(80 + 8 * (count - 1));
    }
    assert(count > 0, "empty node");
    for (let i = 0; i < count; i++) {
      const child = view.getUint32(64 + 8 * i + 4);
      const last = this.node(child, here - 1, chains);
      assertEquals(view.getUint32(64 + 8 * i), last, `hash of ${child}`);
    }
    return view.getUint32(64 + 8 * (count - 1));
  }

  chain(blocks: number[]): void {
    const { mount } = this.ip;
    blocks.forEach((bno, i) => {
      const daddr = mount.sb.fsbToDaddr(this.mapped.get(bno)!);
      const { view } = mount.targ.incore(daddr)!;
      assertEquals(view.getUint32(0), blocks[i + 1] ?? 0, `forw of ${bno}`);
      assertEquals(view.getUint32(4), blocks[i - 1] ?? 0, `back of ${bno}`);
    });
  }

  leaf(view: DataView, count: number): void {
    const size = view.byteLength;
    const table = 80 + 8 * count;
    assert(count > 0, "empty leaf");
    const regions: [number, number, string][] = [[0, table, "table"]];
    let lowest = size;
    let used = 0;
    for (let i = 0; i < count; i++) {
      const hash = view.getUint32(80 + 8 * i);
      assert(hash >= this.lastHash, "hash order");
      this.lastHash = hash;
      const at = view.getUint16(80 + 8 * i + 4);
      const bytes = this.entry(view, at, view.getUint8(80 + 8 * i + 6), hash);
      regions.push([at, at + bytes, `name ${i}`]);
      lowest = Math.min(lowest, at);
      used += bytes;
    }
    assertEquals(view.getUint16(58), used, "usedbytes");
    const first = view.getUint16(60) || 65536;
    const holes = view.getUint8(62);
    assert(holes === 1 ? first <= lowest : first === lowest, "firstused");
    let free = 0;
    for (let i = 0; i < 3; i++) {
      const base = view.getUint16(64 + 4 * i);
      const bytes = view.getUint16(66 + 4 * i);
      assertEquals([base % 4, bytes % 4], [0, 0]);
      if (bytes > 0) regions.push([base, base + bytes, `free ${i}`]);
      free += bytes;
    }
    if (holes === 0) assertEquals(table + used + free, size, "lost space");
    regions.sort((a, b) => a[0] - b[0]);
    for (let i = 1; i < regions.length; i++) {
      const [from, , what] = regions[i]!;
      const [, end, before] = regions[i - 1]!;
      assert(from >= end, `${what} and ${before} overlap: ${regions}`);
    }
    assert(regions.at(-1)![1] <= size);
  }

  /** Answers the bytes of a name. */
  entry(view: DataView, at: number, flags: number, hash: number): number {
    assertEquals(flags & 0x80, 0, "incomplete");
    const block = new Uint8Array(view.buffer, view.byteOffset);
    const local = (flags & 1) !== 0;
    const n = view.getUint8(at + (local ? 2 : 8));
    const from = at + (local ? 3 : 9);
    const name = block.subarray(from, from + n);
    assertEquals(hashOf(name), hash, "hash");
    const valuelen = local ? view.getUint16(at) : view.getUint32(at + 4);
    const value = local
      ? block.subarray(from + n, from + n + valuelen)
      : this.remoteValue(view.getUint32(at), valuelen);
    this.put(name, flags & 0x0e, value);
    const bytes = Math.ceil((local ? 3 + n + valuelen : 11 + n) / 4) * 4;
    const least = Math.ceil((3 + n + valuelen) / 4) * 4;
    const limit = view.byteLength * 3 / 4;
    assertEquals(local, least < limit, `${least} bytes`);
    return bytes;
  }

  remoteValue(bno: number, valuelen: number): Uint8Array {
    const value = new Uint8Array(valuelen);
    for (let at = 0; at < valuelen; bno++) {
      const { view, data } = this.read(bno, xfsAttr3RmtBufOps);
      const bytes = Math.min(valuelen - at, data.length - 56);
      assertEquals(view.getUint32(4), at, "offset");
      assertEquals(view.getUint32(8), bytes, "bytes");
      assertEquals(view.getBigUint64(48), 2n ** 64n - 1n, "lsn");
      value.set(data.subarray(56, 56 + bytes), at);
      at += bytes;
      this.contents.remote++;
    }
    return value;
  }
}
