/** Corner cases 1 to 18 of the iterator, each tried with callbacks that answer at once
 * and with ones that have to be waited for; and the rules for mappings. */
import { assertEquals } from "@std/assert";
import type { Inode } from "../../fs/fs.ts";
import {
  Iomap,
  IOMAP_F_STALE,
  IOMAP_HOLE,
  IOMAP_MAPPED,
  IOMAP_NULL_ADDR,
  IomapIter,
  iomapIterInit,
  iomapIterSrcmap,
  iomapLastWrittenBlock,
  iomapLength,
  type IomapOps,
  iomapSector,
} from "../../iomap/iomap.ts";
import {
  iomapIter,
  iomapIterAdvance,
  iomapIterAdvanceFull,
} from "../../iomap/iter.ts";
import { EIO, ENOSPC } from "../../lib/errno.ts";
import { test } from "./testfs.ts";

const INODE = { blkbits: 12, size: 0 } as Inode;

/** [offset, length] of each mapping that begin returns, in order. */
type Rows = [number, number][];

interface Walk {
  rows: Rows;
  srcmap?: [number, number];
  /** Error of the n-th begin or end, from 0. */
  beginErrors?: Record<number, number>;
  endErrors?: Record<number, number>;
  range?: [number, number];
  body: (iter: IomapIter, round: number) => number;
}

/** Runs a walk; the calls in order, and the result. */
async function run(walk: Walk, later: boolean) {
  const calls: string[] = [];
  let begun = 0;
  let ended = 0;
  const answer = (n: number) => later ? Promise.resolve(n) : n;
  const ops: IomapOps = {
    iomapBegin(_inode, pos, length, _flags, iomap, srcmap) {
      calls.push(`begin ${pos}+${length}`);
      assertZero(iomap);
      assertZero(srcmap);
      const error = walk.beginErrors?.[begun];
      const [offset, len] = walk.rows[Math.min(begun, walk.rows.length - 1)]!;
      begun++;
      if (error) return answer(error);
      Object.assign(iomap, { offset, length: len, type: IOMAP_MAPPED });
      if (walk.srcmap) {
        const [sOffset, sLength] = walk.srcmap;
        Object.assign(srcmap, {
          offset: sOffset,
          length: sLength,
          type: IOMAP_MAPPED,
        });
      }
      return answer(0);
    },
    iomapEnd(_inode, pos, length, written) {
      calls.push(`end ${pos}+${length} written ${written}`);
      return answer(walk.endErrors?.[ended++] ?? 0);
    },
  };
  const iter = new IomapIter();
  iomapIterInit(iter, INODE, ...(walk.range ?? [0, 10000]), 0, "test");
  let ret: number;
  for (let round = 0;; round++) {
    ret = await iomapIter(iter, ops);
    if (ret <= 0) return { calls, ret, iter };
    calls.push("body");
    iter.status = walk.body(iter, round);
  }
}

function assertZero(iomap: Iomap): void {
  assertEquals(iomap, new Iomap());
}

const full = (iter: IomapIter) => iomapIterAdvanceFull(iter);

interface Case {
  name: string;
  walk: Walk;
  calls: string[];
  ret: number;
  /** Bytes left at the end. */
  len?: number;
  warns?: string;
}

const CASES: Case[] = [
  {
    name: "iomap corner case 4: end gets the position at which begin was asked",
    walk: { rows: [[0, 4096], [4096, 8192]], body: full },
    calls: [
      "begin 0+10000",
      "body",
      "end 0+4096 written 4096",
      "begin 4096+5904",
      "body",
      "end 4096+5904 written 5904",
    ],
    ret: 0,
    len: 0,
  },
  {
    name: "iomap corner case 2: begin's error is returned without an end",
    walk: { rows: [[0, 4096]], beginErrors: { 0: -ENOSPC }, body: full },
    calls: ["begin 0+10000"],
    ret: -ENOSPC,
  },
  {
    name:
      "iomap corner case 5: the length for end stops at the source mapping's end",
    walk: {
      rows: [[0, 65536]],
      srcmap: [0, 8192],
      range: [1000, 7192],
      body: full,
    },
    calls: ["begin 1000+7192", "body", "end 1000+7192 written 7192"],
    ret: 0,
  },
  {
    name: "iomap corner case 3: end runs once a begin, after a failure, too",
    walk: {
      rows: [[0, 4096], [4096, 8192]],
      body: (iter, round) => round > 0 ? -ENOSPC : full(iter),
    },
    calls: [
      "begin 0+10000",
      "body",
      "end 0+4096 written 4096",
      "begin 4096+5904",
      "body",
      "end 4096+5904 written 0",
    ],
    ret: -ENOSPC,
  },
  {
    name:
      "iomap corner case 6: an error of end replaces the body's where nothing was done",
    walk: { rows: [[0, 4096]], endErrors: { 0: -EIO }, body: () => -ENOSPC },
    calls: ["begin 0+10000", "body", "end 0+4096 written 0"],
    ret: -EIO,
  },
  {
    name:
      "iomap corner case 7: an error of end is dropped where something was done",
    walk: {
      rows: [[0, 20000]],
      endErrors: { 0: -EIO },
      body: full,
    },
    calls: ["begin 0+10000", "body", "end 0+10000 written 10000"],
    ret: 0,
  },
  {
    name: "iomap corner case 8: a body that does nothing ends the walk with 0",
    walk: { rows: [[0, 4096]], body: () => 0 },
    calls: ["begin 0+10000", "body", "end 0+4096 written 0"],
    ret: 0,
    len: 10000,
  },
  {
    name:
      "iomap corner case 9: a stale mapping is asked for again at the same place",
    walk: {
      rows: [[0, 20000]],
      body: (iter, round) => {
        if (round > 0) return full(iter);
        iter.iomap.flags |= IOMAP_F_STALE;
        return 0;
      },
    },
    calls: [
      "begin 0+10000",
      "body",
      "end 0+10000 written 0",
      "begin 0+10000",
      "body",
      "end 0+10000 written 10000",
    ],
    ret: 0,
  },
  {
    name:
      "iomap corner case 10: a stale mapping goes on where the body stopped",
    walk: {
      rows: [[0, 20000]],
      body: (iter, round) => {
        if (round > 0) return full(iter);
        iter.iomap.flags |= IOMAP_F_STALE;
        return iomapIterAdvance(iter, 100);
      },
    },
    calls: [
      "begin 0+10000",
      "body",
      "end 0+10000 written 100",
      "begin 100+9900",
      "body",
      "end 100+9900 written 9900",
    ],
    ret: 0,
  },
  {
    name:
      "iomap corner case 11: a negative status counts even if nothing is left",
    walk: {
      rows: [[0, 20000]],
      body: (iter) => full(iter) || -ENOSPC,
    },
    calls: ["begin 0+10000", "body", "end 0+10000 written 10000"],
    ret: -ENOSPC,
    len: 0,
  },
  {
    name: "iomap corner case 12: a positive status is -EIO",
    walk: { rows: [[0, 20000]], body: () => 5 },
    calls: ["begin 0+10000", "body", "end 0+10000 written 0"],
    ret: -EIO,
    warns: "status is not a byte count",
  },
  {
    name:
      "iomap corner case 13: advancing past the mapping is -EIO and moves nothing",
    walk: { rows: [[0, 4096]], body: (iter) => iomapIterAdvance(iter, 4097) },
    calls: ["begin 0+10000", "body", "end 0+4096 written 0"],
    ret: -EIO,
    len: 10000,
    warns: "advance past the mapping",
  },
  {
    name: "iomapIterAdvance() by less than nothing is -EIO and moves nothing",
    walk: {
      rows: [[0, 4096]],
      body: (iter) => iomapIterAdvance(iter, -1) && iomapIterAdvance(iter, NaN),
    },
    calls: ["begin 0+10000", "body", "end 0+4096 written 0"],
    ret: -EIO,
    len: 10000,
    warns: "advance past the mapping",
  },
  {
    name: "iomap corner case 15: a mapping may begin before the range",
    walk: { rows: [[0, 5000]], range: [4000, 2000], body: () => 0 },
    calls: ["begin 4000+2000", "body", "end 4000+1000 written 0"],
    ret: 0,
  },
  {
    name: "iomap corner case 16: a mapping may end after the range",
    walk: { rows: [[0, 20000]], range: [0, 100], body: full },
    calls: ["begin 0+100", "body", "end 0+100 written 100"],
    ret: 0,
    len: 0,
  },
  {
    name: "iomap corner case 18: length 0 still asks for a mapping once",
    walk: { rows: [[0, 4096]], range: [0, 0], body: () => 0 },
    calls: ["begin 0+0", "body", "end 0+0 written 0"],
    ret: 0,
  },
  {
    name: "iomapIter() gives back a mapping that begins after pos, -EIO",
    walk: { rows: [[4096, 4096]], body: full },
    calls: ["begin 0+10000", "end 0+8192 written 0"],
    ret: -EIO,
    warns: "begins after pos",
  },
  {
    name: "iomapIter() gives back a mapping that ends before pos, -EIO",
    walk: { rows: [[0, 4096]], range: [4096, 10], body: full },
    calls: ["begin 4096+10", "end 4096+0 written 0"],
    ret: -EIO,
    warns: "ends at or before pos",
  },
  {
    name: "iomapIter() gives back an empty mapping, -EIO",
    walk: { rows: [[0, 0]], body: full },
    calls: ["begin 0+10000", "end 0+0 written 0"],
    ret: -EIO,
    warns: "the mapping is empty",
  },
];

for (const { name, walk, calls, ret, len, warns } of CASES) {
  test(name, async () => {
    for (const later of [false, true]) {
      const got = await run(walk, later);
      assertEquals(got.calls, calls);
      assertEquals(got.ret, ret);
      if (len !== undefined) assertEquals(got.iter.len, len);
    }
  }, warns);
}

test("iomap corner case 1: the first mapping is asked for without an end before it", () => {
  const calls: string[] = [];
  const ops: IomapOps = {
    iomapBegin(_inode, _pos, _length, _flags, iomap) {
      calls.push("begin");
      Object.assign(iomap, { length: 10, addr: 5, type: IOMAP_MAPPED });
      return 0;
    },
    iomapEnd() {
      calls.push("end");
      return 0;
    },
  };
  const iter = new IomapIter();
  iomapIterInit(iter, INODE, 0, 10, 0, "test");
  assertEquals(iomapIter(iter, ops), 1);
  assertEquals(calls, ["begin"]);
  iomapIterAdvanceFull(iter);
  assertEquals(iomapIter(iter, ops), 0);
  assertEquals(calls, ["begin", "end"]);
});

test("iomap corner case 14: begin is handed empty maps each time", () => {
  let begun = 0;
  const ops: IomapOps = {
    iomapBegin(_inode, pos, _length, _flags, iomap, srcmap) {
      begun++;
      assertZero(iomap);
      assertZero(srcmap);
      Object.assign(iomap, {
        offset: pos,
        length: 10,
        addr: 5,
        type: IOMAP_MAPPED,
        flags: 7,
        private: {},
        inlineData: new Uint8Array(1),
        validityCookie: 3,
      });
      Object.assign(srcmap, iomap);
      return 0;
    },
  };
  const iter = new IomapIter();
  iomapIterInit(iter, INODE, 0, 20, 0, "test");
  while (iomapIter(iter, ops) === 1) iomapIterAdvanceFull(iter);
  assertEquals(begun, 2);
  assertZero(iter.iomap);
});

test("iomap corner case 17: a source mapping that is a hole does not count", () => {
  const iter = new IomapIter();
  iomapIterInit(iter, INODE, 0, 100, 0, "test");
  Object.assign(iter.iomap, { length: 50, type: IOMAP_MAPPED });
  Object.assign(iter.srcmap, { length: 20, type: IOMAP_HOLE });
  assertEquals(iomapLength(iter), 50);
  assertEquals(iomapIterSrcmap(iter), iter.iomap);
  iter.srcmap.type = IOMAP_MAPPED;
  assertEquals(iomapLength(iter), 20);
  assertEquals(iomapIterSrcmap(iter), iter.srcmap);
});

test(
  "iomapIter() gives up on a mapping that is stale whenever it is used, -EIO",
  async () => {
    const walk: Walk = {
      rows: [[0, 20000]],
      body(iter, round) {
        // After progress it is another mapping.
        if (round === 90_000) iomapIterAdvance(iter, 100);
        iter.iomap.flags |= IOMAP_F_STALE;
        return 0;
      },
    };
    const { calls, ret, iter } = await run(walk, false);
    assertEquals([ret, iter.pos], [-EIO, 100]);
    assertEquals(calls.length, 3 * (90_001 + 100_001));
  },
  "stale whenever it is used",
);

test("iomapLastWrittenBlock() rounds up what was written", () => {
  assertEquals(iomapLastWrittenBlock(INODE, 5000, 0), 4096);
  assertEquals(iomapLastWrittenBlock(INODE, 0, 5000), 8192);
  assertEquals(iomapLastWrittenBlock(INODE, 2 ** 40 + 1, 4095), 2 ** 40 + 4096);
});

test("iomapSector() counts from the mapping's address", () => {
  const iter = new IomapIter();
  Object.assign(iter.iomap, { addr: 2 ** 40, offset: 4096, length: 8192 });
  assertEquals(iomapSector(iter.iomap, 4096 + 1024), 2 ** 31 + 2);
  assertEquals(IOMAP_NULL_ADDR, -1);
});
