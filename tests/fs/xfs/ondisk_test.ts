import { assert, assertEquals, assertMatch } from "@std/assert";
import { XfsPerag } from "../../../fs/xfs/ag.ts";
import { XfsDir } from "../../../fs/xfs/dir.ts";
import {
  BmbtIrec,
  DELAYSTARTBLOCK,
  IextCursor,
  Ifork,
} from "../../../fs/xfs/iext.ts";
import {
  decodeDir,
  decodeExtents,
  decodeGroups,
  decodeInode,
  decodeMap,
  decodeSuper,
  type DiskInode,
  type DiskSuper,
  emptyBlob,
  encodeDir,
  encodeExtents,
  encodeGroups,
  encodeInode,
  encodeMap,
  encodeSuper,
  INLINE_BYTES,
  type Refusal,
  type Run,
} from "../../../fs/xfs/ondisk.ts";
import { crc32c } from "../../../lib/crc32c.ts";
import { Prng } from "../../../lib/prng.ts";

const sb: DiskSuper = {
  blockSize: 4096,
  dblocks: 2 ** 33,
  agCount: 33,
  agBlocks: 2 ** 28,
  rootIno: 2 ** 40 + 128,
  label: "größe",
  clean: true,
  groups: {
    length: 5000,
    crc: 0xdeadbeef,
    runs: [{ start: 99, count: 2 }],
    map: null,
    depth: 0,
  },
};
const bytes = sb.dblocks * sb.blockSize;

Deno.test("encodeSuper() and decodeSuper() are inverse", () => {
  const wide = { ...sb, agCount: 32 };
  assertEquals(decodeSuper(encodeSuper(wide), bytes), wide);
});

Deno.test("decodeSuper() notices every flipped bit (all of the block)", () => {
  const good = encodeSuper({ ...sb, agCount: 32 });
  for (let i = 0; i < good.length; i++) {
    const bad = good.slice();
    bad[i]! ^= 1 << (i & 7);
    assert("reason" in decodeSuper(bad, bytes), `byte ${i}`);
  }
});

/** A super block with a field changed and the checksum made right again. */
function forged(change: (v: DataView) => void): Uint8Array {
  const data = encodeSuper({ ...sb, agCount: 32 });
  const v = new DataView(data.buffer);
  change(v);
  v.setUint32(4, 0);
  v.setUint32(4, crc32c(data));
  return data;
}

Deno.test.each([
  ["version", (v) => v.setUint32(8, 2), "version 2 is unknown"],
  ["block size", (v) => v.setUint32(12, 3000), "block size 3000"],
  ["device size", (v) => v.setUint32(16, 9), "do not fit"],
  ["group count", (v) => v.setUint32(24, 7), "7 groups"],
  ["blob length", (v) => v.setUint32(56, 9000), "do not hold 9000 bytes"],
  ["blob place", (v) => v.setUint32(112, 7), "lies outside"],
  ["blob room", (v) => v.setUint32(120, 2 ** 20), "too many for 5000 bytes"],
  ["group size", (v) => v.setUint32(28, 4095), "groups of 4095 blocks"],
] as [string, (v: DataView) => void, string][])(
  "decodeSuper() checks the $0 even when the checksum is right",
  (_name, change, expected) => {
    const refusal = decodeSuper(forged(change), bytes);
    assert("reason" in refusal && !refusal.foreign);
    assert(refusal.reason.includes(expected), refusal.reason);
  },
);

Deno.test("decodeSuper() tells another's super block from a damaged one", () => {
  const blank = decodeSuper(new Uint8Array(512), bytes);
  assert("reason" in blank && blank.foreign);
  assertEquals(blank.reason, "not an XFS: magic 0x00000000");
  const real = new Uint8Array(512);
  real.set(new TextEncoder().encode("XFSB"));
  const other = decodeSuper(real, bytes);
  assert("reason" in other && other.foreign);
  assert(other.reason.includes("v5 format"), other.reason);
});

const inode: DiskInode = {
  ino: 2 ** 40 + 131,
  mode: 0o100644,
  nlink: 3,
  uid: 1000,
  gid: 100,
  size: Number.MAX_SAFE_INTEGER,
  nblocks: 12,
  atime: 1_735_689_600e9,
  mtime: 1_735_689_600e9 + 4e6,
  ctime: 0,
  diflags: 2,
  inline: Uint8Array.of(1, 2, 3),
  blob: emptyBlob(),
};

Deno.test("encodeInode() and decodeInode() are inverse, with content in and out of the record", () => {
  const data = new Uint8Array(512).fill(0xff);
  encodeInode(data, inode);
  assertEquals(decodeInode(data, inode.ino, sb), inode);
  const runs = [{ start: 2 ** 32 + 5, count: 1 }, { start: 70, count: 1 }];
  const outside = {
    ...inode,
    inline: null,
    blob: { length: 8000, crc: 7, runs, map: null, depth: 0 },
  };
  encodeInode(data, outside);
  assertEquals(decodeInode(data, inode.ino, sb), outside);
});

Deno.test("decodeInode() gives back times before 1970", () => {
  const data = new Uint8Array(512);
  const early = { ...inode, atime: -1, mtime: -4e6, ctime: -(2 ** 62) };
  encodeInode(data, early);
  assertEquals(decodeInode(data, inode.ino, sb), early);
});

Deno.test("decodeInode() refuses numbers that cannot be even when the checksum is right", () => {
  for (const bad of [{ nlink: 0 }, { size: 2 ** 53 }, { nblocks: 2 ** 34 }]) {
    const data = new Uint8Array(512);
    encodeInode(data, { ...inode, ...bad });
    const refusal = decodeInode(data, inode.ino, sb);
    assert("reason" in refusal && !refusal.foreign, Object.keys(bad)[0]);
  }
});

Deno.test("decodeInode() refuses another's record, a flipped bit, and one that was never written", () => {
  const data = new Uint8Array(512);
  encodeInode(data, inode);
  assert("reason" in decodeInode(data, inode.ino + 1, sb));
  assert("reason" in decodeInode(new Uint8Array(512), inode.ino, sb));
  for (let i = 0; i < 512; i += 3) {
    data[i]! ^= 4;
    assert("reason" in decodeInode(data, inode.ino, sb), `byte ${i}`);
    data[i]! ^= 4;
  }
});

Deno.test("an extent list comes back as it was, but for promised space", () => {
  const fork = new Ifork();
  const cur = new IextCursor();
  for (let k = 0; k < 500; k++) {
    const block = k % 7 === 0 ? DELAYSTARTBLOCK : 2 ** 32 + k * 100;
    const rec = new BmbtIrec()
      .set(2 ** 41 + k * 50, block, 1 + k % 50, k % 3 === 0);
    fork.insert(cur, rec);
    cur.at++;
    fork.get(cur, rec);
  }
  const data = encodeExtents(fork);
  const copy = new Ifork();
  assertEquals(decodeExtents(data, copy, 2 ** 33), null);
  assertEquals(copy.nextents, 500 - Math.ceil(500 / 7));
  assertEquals(encodeExtents(copy), data);
  assert(data.length > INLINE_BYTES);
});

Deno.test("decodeExtents() refuses extents that overlap or lie outside", () => {
  const make = (...recs: [number, number, number][]) => {
    const fork = new Ifork();
    const cur = new IextCursor();
    for (const [off, block, count] of recs) {
      fork.insert(cur, new BmbtIrec().set(off, block, count, false));
      cur.at++;
    }
    return decodeExtents(encodeExtents(fork), new Ifork(), 1000);
  };
  assertEquals(make([0, 100, 5], [5, 50, 5]), null);
  assertEquals(make([0, 100, 5], [4, 50, 5]), "extent 1: 4 at 50+5");
  assertEquals(make([0, 998, 5]), "extent 0: 0 at 998+5");
  assertEquals(make([0, 3, 5]), "extent 0: 0 at 3+5");
});

Deno.test("a directory comes back as it was, whatever its names", () => {
  const dir = new XfsDir(2 ** 40);
  const names = ["a", "größe", "日本", "😀", "x".repeat(255), " ", "-"];
  for (const [i, name] of names.entries()) dir.add(name, 2 ** 40 + i, 0o100000);
  dir.add("sub", 7, 0o040000);
  const copy = new XfsDir(0);
  const data = encodeDir(dir);
  assertEquals(decodeDir(data, copy), null);
  assertEquals([...copy.entries], [...dir.entries]);
  assertEquals([copy.parent, copy.size], [2 ** 40, dir.size]);
  for (const cut of [1, 9, 20, data.length - 1]) {
    const wrong = decodeDir(data.subarray(0, cut), new XfsDir(0));
    assert(wrong !== null, `cut at ${cut}`);
  }
});

Deno.test("XfsDir.size is what the kernel says: 6, 15 for one name of a letter, a block for many", () => {
  const dir = new XfsDir(1);
  assertEquals(dir.size, 6);
  dir.add("h", 2, 0o100000);
  assertEquals(dir.size, 15);
  for (let i = 0; i < 50; i++) dir.add(`name${i}`, i, 0o100000);
  assertEquals(dir.size, 4096);
  for (let i = 0; i < 50; i++) dir.remove(`name${i}`);
  assertEquals(dir.size, 15);
});

// Oracle: what is decoded encodes to the same bytes. The seed scatters free space.
Deno.test("groups come back as they were (seed 2)", () => {
  const prng = new Prng(2, "groups");
  const make = () => [new XfsPerag(0, 5000), new XfsPerag(1, 4000)];
  const ags = make();
  for (const ag of ags) {
    ag.give(16, ag.blocks - 16);
    for (let i = 0; i < 300; i++) {
      const at = 16 + prng.below(ag.blocks - 16);
      ag.bnobt.lookupLt(at, Infinity);
      if (ag.bnobt.a + ag.bnobt.b > at) ag.take(at, 1);
    }
    ag.addChunk(100, -1, 3);
    ag.addChunk(208, -1, -1);
  }
  const data = encodeGroups(ags);
  const copy = make();
  assertEquals(decodeGroups(data, copy, 8), null);
  assertEquals(encodeGroups(copy), data);
  assertEquals(copy[0]!.freeBlocks, ags[0]!.freeBlocks);
  assertEquals(copy[0]!.freeChunks.size, 1);
  assertEquals(
    decodeGroups(data.subarray(0, 20), make(), 8),
    "group 0: cut off",
  );
  assertEquals(
    decodeGroups(data, make().slice(0, 1), 8),
    "bytes after the last group",
  );
  // A free extent that lies on another.
  new DataView(data.buffer).setUint32(16, 0);
  assert(decodeGroups(data, make(), 8)!.startsWith("group 0: free extent"));
});

/** A blob of 100 runs whose map, of one run, a record of `ino` lists. */
function mapped(): { record: Uint8Array; map: Uint8Array; runs: Run[] } {
  const runs = Array.from({ length: 100 }, (_, i) => ({
    start: 1000 + 2 * i,
    count: 1,
  }));
  const blob = { ...emptyBlob(), length: 100 * 4096, crc: 9, runs };
  const map = encodeMap(blob);
  const outer = { ...emptyBlob(), length: map.length, crc: crc32c(map) };
  outer.runs = [{ start: 500, count: 1 }];
  const record = new Uint8Array(512);
  const withMap = { ...blob, map: outer };
  encodeInode(record, { ...inode, inline: null, blob: withMap });
  return { record, map, runs };
}

Deno.test("decodeMap() gives back the runs that are more than a record holds", () => {
  const { record, map, runs } = mapped();
  const { blob } = decodeInode(record, inode.ino, sb) as DiskInode;
  assertEquals([blob.depth, blob.runs], [1, [{ start: 500, count: 1 }]]);
  assertEquals(decodeMap(map, blob, sb), null);
  assertEquals([blob.depth, blob.length, blob.crc], [0, 100 * 4096, 9]);
  assertEquals(blob.runs, runs);
  assertEquals(blob.map?.runs, [{ start: 500, count: 1 }]);
});

Deno.test("decodeMap() refuses a map that says what cannot be", () => {
  const refusal = (forge: (v: DataView) => void) => {
    const { record, map } = mapped();
    const { blob } = decodeInode(record, inode.ino, sb) as DiskInode;
    forge(new DataView(map.buffer));
    return decodeMap(map, blob, sb) ?? "accepted";
  };
  assertMatch(refusal((v) => v.setUint32(8, 101)), /a map of runs has 1212/);
  assertMatch(refusal((v) => v.setUint32(8, 2 ** 32 - 1)), /a map of runs/);
  assertMatch(refusal((v) => v.setUint32(12, 2 ** 20)), /lies outside/);
  assertMatch(refusal((v) => v.setUint32(20, 0)), /lies outside/);
  assertMatch(refusal((v) => v.setUint32(0, 101 * 4096)), /do not hold/);
  assertMatch(refusal((v) => v.setUint32(0, 1)), /too many/);
});

Deno.test("decodeInode() refuses maps of maps without end", () => {
  const { record } = mapped();
  const v = new DataView(record.buffer);
  v.setUint16(80, 5);
  v.setUint32(4, 0);
  v.setUint32(4, crc32c(record));
  const { reason } = decodeInode(record, inode.ino, sb) as Refusal;
  assertMatch(reason, /5 maps of runs/);
});
