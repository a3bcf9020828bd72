/** Corner cases 1 to 18 of the iterator; each is tried with callbacks that answer
 * at once and with ones that have to be waited for. */
import { assertEquals } from "@std/assert";
import type { Inode } from "../../fs/fs.ts";
import {
  type Iomap,
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
  iomapWalk,
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
  let round = 0;
  const body = (it: IomapIter) => {
    calls.push("body");
    return answer(walk.body(it, round++));
  };
  const ret = await iomapWalk(iter, ops, body, undefined);
  return { calls, ret, iter };
}

function assertZero(iomap: Iomap): void {
  const { addr, offset, length, type, flags, bdev, inlineData } = iomap;
  assertEquals(
    [addr, offset, length, type, flags, bdev, inlineData],
    [0, 0, 0, IOMAP_HOLE, 0, null, null],
  );
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
    name: "worked example 1; 3 and 4: end runs once a begin, with its position",
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
    name: "2: begin's error is returned without an end",
    walk: { rows: [[0, 4096]], beginErrors: { 0: -ENOSPC }, body: full },
    calls: ["begin 0+10000"],
    ret: -ENOSPC,
  },
  {
    name: "5: the length for end stops at the source mapping's end",
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
    name: "3: end runs after a body that failed",
    walk: { rows: [[0, 4096]], body: () => -ENOSPC },
    calls: ["begin 0+10000", "body", "end 0+4096 written 0"],
    ret: -ENOSPC,
  },
  {
    name: "6: an error of end replaces the body's where nothing was done",
    walk: { rows: [[0, 4096]], endErrors: { 0: -EIO }, body: () => -ENOSPC },
    calls: ["begin 0+10000", "body", "end 0+4096 written 0"],
    ret: -EIO,
  },
  {
    name: "7: an error of end is dropped where something was done",
    walk: {
      rows: [[0, 20000]],
      endErrors: { 0: -EIO },
      body: full,
    },
    calls: ["begin 0+10000", "body", "end 0+10000 written 10000"],
    ret: 0,
  },
  {
    name: "8: a body that does nothing ends the walk",
    walk: { rows: [[0, 4096]], body: () => 0 },
    calls: ["begin 0+10000", "body", "end 0+4096 written 0"],
    ret: 0,
    len: 10000,
  },
  {
    name: "9: a stale mapping is asked for again at the same place",
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
    name: "10: a stale mapping goes on where the body stopped",
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
    name: "11: a negative status counts even if nothing is left",
    walk: {
      rows: [[0, 20000]],
      body: (iter) => full(iter) || -ENOSPC,
    },
    calls: ["begin 0+10000", "body", "end 0+10000 written 10000"],
    ret: -ENOSPC,
    len: 0,
  },
  {
    name: "12: a positive status is -EIO",
    walk: { rows: [[0, 20000]], body: () => 5 },
    calls: ["begin 0+10000", "body", "end 0+10000 written 0"],
    ret: -EIO,
    warns: "status is not a byte count",
  },
  {
    name: "13: advancing past the mapping is -EIO and moves nothing",
    walk: { rows: [[0, 4096]], body: (iter) => iomapIterAdvance(iter, 4097) },
    calls: ["begin 0+10000", "body", "end 0+4096 written 0"],
    ret: -EIO,
    len: 10000,
    warns: "advance past the mapping",
  },
  {
    name: "15 and 16: a mapping may begin before and end after the range",
    walk: { rows: [[0, 20000]], range: [4000, 100], body: full },
    calls: ["begin 4000+100", "body", "end 4000+100 written 100"],
    ret: 0,
    len: 0,
  },
  {
    name: "18: length 0 still asks for a mapping once",
    walk: { rows: [[0, 4096]], range: [0, 0], body: () => 0 },
    calls: ["begin 0+0", "body", "end 0+0 written 0"],
    ret: 0,
  },
  {
    name: "a mapping that begins after pos is -EIO",
    walk: { rows: [[4096, 4096]], body: full },
    calls: ["begin 0+10000"],
    ret: -EIO,
    warns: "begins after pos",
  },
  {
    name: "a mapping that ends before pos is -EIO",
    walk: { rows: [[0, 4096]], range: [4096, 10], body: full },
    calls: ["begin 4096+10"],
    ret: -EIO,
    warns: "ends at or before pos",
  },
  {
    name: "an empty mapping is -EIO",
    walk: { rows: [[0, 0]], body: full },
    calls: ["begin 0+10000"],
    ret: -EIO,
    warns: "the mapping is empty",
  },
];

for (const { name, walk, calls, ret, len, warns } of CASES) {
  test(`iomapIter() ${name}`, async () => {
    for (const later of [false, true]) {
      const got = await run(walk, later);
      assertEquals(got.calls, calls);
      assertEquals(got.ret, ret);
      if (len !== undefined) assertEquals(got.iter.len, len);
    }
  }, warns);
}

test("iomapIter() 1 and 14: asks at first without end, each time with empty maps", () => {
  const calls: string[] = [];
  const ops: IomapOps = {
    iomapBegin(_inode, pos, _length, _flags, iomap, srcmap) {
      calls.push("begin");
      assertZero(iomap);
      assertZero(srcmap);
      Object.assign(iomap, {
        offset: pos,
        length: 10,
        addr: 5,
        type: 2,
        flags: 7,
        private: {},
        inlineData: new Uint8Array(1),
        validityCookie: 3,
      });
      Object.assign(srcmap, iomap);
      return 0;
    },
    iomapEnd() {
      calls.push("end");
      return 0;
    },
  };
  const iter = new IomapIter();
  iomapIterInit(iter, INODE, 0, 20, 0, "test");
  assertEquals(iomapIter(iter, ops), 1);
  assertEquals(calls, ["begin"]);
  iomapIterAdvanceFull(iter);
  assertEquals(iomapIter(iter, ops), 1);
  iomapIterAdvanceFull(iter);
  assertEquals(iomapIter(iter, ops), 0);
  assertEquals(calls, ["begin", "end", "begin", "end"]);
});

test("iomapLength() 17: a source mapping that is a hole does not count", () => {
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
