import { assertEquals } from "@std/assert";
import {
  Bio,
  bioAdvance,
  bioSplit,
  BLK_FEAT_ZONED,
  BLK_STS_INVAL,
  BLK_STS_MEDIUM,
  BLK_STS_OK,
  type QueueLimits,
  REQ_NOMERGE,
  REQ_OP_DISCARD,
  REQ_OP_READ,
  REQ_OP_SECURE_ERASE,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_OP_ZONE_APPEND,
  submitBio,
} from "../../block/mod.ts";
import { Prng } from "../../lib/prng.ts";
import { FakeDevice, makeBio, settle, submit } from "./fake_device.ts";

type Extent = [number, number];

/** Sectors of the requests that a bio becomes. */
function pieces(
  lim: Partial<QueueLimits>,
  bio: (d: FakeDevice) => Bio,
): Extent[] {
  const device = new FakeDevice({ limits: lim });
  const ended = submit(bio(device));
  settle(device.clock);
  assertEquals([ended.status, ended.times], [BLK_STS_OK, 1]);
  return device.log.map((line) => {
    const [, sector, sectors] = /(\d+)\+(\d+)/.exec(line)!;
    return [Number(sector), Number(sectors)];
  });
}

type Vector = [
  string,
  Partial<QueueLimits>,
  number,
  ...[Extent, Extent[]][],
];

const vectors: Vector[] = [
  [
    "corner case 31: parts end on physical blocks",
    { maxHwSectors: 255, physicalBlockSize: 4096 },
    REQ_OP_WRITE,
    [[5, 1000], [[5, 251], [256, 248], [504, 248], [752, 248], [1000, 5]]],
  ],
  [
    "corner case 32: parts do not cross chunks",
    { maxHwSectors: 2560, chunkSectors: 256 },
    REQ_OP_WRITE,
    [[200, 700], [[200, 56], [256, 256], [512, 256], [768, 132]]],
  ],
  [
    "corner case 33: the limit is rounded to logical blocks",
    { maxHwSectors: 20, logicalBlockSize: 4096 },
    REQ_OP_WRITE,
    [[0, 40], [[0, 16], [16, 16], [32, 8]]],
  ],
  [
    "corner case 34: parts end on physical blocks where that leaves something",
    { maxHwSectors: 10, physicalBlockSize: 8192 },
    REQ_OP_WRITE,
    [[3, 30], [[3, 10], [13, 3], [16, 10], [26, 6], [32, 1]]],
  ],
  [
    "corner case 35: a chunk may be no power of two",
    { maxHwSectors: 2560, chunkSectors: 384, physicalBlockSize: 512 },
    REQ_OP_WRITE,
    [[1000, 500], [[1000, 152], [1152, 348]]],
  ],
  [
    "corner case 37: parts of a discard begin where its units do",
    { maxHwDiscardSectors: 1000, discardGranularity: 8192 },
    REQ_OP_DISCARD,
    [[10, 5000], [
      [10, 982],
      [992, 992],
      [1984, 992],
      [2976, 992],
      [3968, 992],
      [4960, 50],
    ]],
  ],
  [
    "corner case 38: units of discards may begin at an offset",
    {
      maxHwDiscardSectors: 1000,
      discardGranularity: 8192,
      discardAlignment: 2048,
    },
    REQ_OP_DISCARD,
    [[10, 2500], [[10, 986], [996, 992], [1988, 522]]],
  ],
  [
    "bioSplitToLimits() cuts SECURE_ERASE by its own limit, and no discard by chunks",
    { maxSecureEraseSectors: 100, chunkSectors: 64 },
    REQ_OP_SECURE_ERASE,
    [[0, 200], [[0, 100], [100, 100]]],
  ],
  [
    "bioSplitToLimits() cuts WRITE_ZEROES by its own limit",
    { maxWriteZeroesSectors: 128, maxHwSectors: 8 },
    REQ_OP_WRITE_ZEROES,
    [[8, 300], [[8, 128], [136, 128], [264, 44]]],
  ],
  [
    "bioSplitToLimits() cuts WRITE_ZEROES by chunks",
    { maxWriteZeroesSectors: 1000, chunkSectors: 256 },
    REQ_OP_WRITE_ZEROES,
    [[8, 300], [[8, 248], [256, 52]]],
  ],
];

for (const [name, lim, opf, ...rows] of vectors) {
  Deno.test(name, () => {
    for (const [[sector, sectors], expected] of rows) {
      assertEquals(
        pieces(lim, (d) => rangeBio(d, opf, sector, sectors)),
        expected,
      );
    }
  });
}

/** With memory where the operation has data. */
function rangeBio(
  device: FakeDevice,
  opf: number,
  sector: number,
  sectors: number,
): Bio {
  if (opf === REQ_OP_WRITE) return makeBio(device, opf, sector, sectors);
  const bio = new Bio(device, opf);
  bio.sector = sector;
  bio.size = sectors * 512;
  return bio;
}

Deno.test("corner case 36: where no part can be small enough a bio is INVAL", () => {
  const device = new FakeDevice();
  const ended = submit(
    makeBio(
      Object.assign(device, {
        limits: { ...device.limits, logicalBlockSize: 4096, maxSectors: 7 },
      }),
      REQ_OP_WRITE,
      0,
      8,
    ),
  );
  assertEquals([ended.status, device.log], [BLK_STS_INVAL, []]);
});

Deno.test("bioSplitToLimits() splits where the memory has a gap that the device cannot skip", () => {
  const memory = new Uint8Array(16384);
  const bio = (...parts: Extent[]) => (d: FakeDevice) => {
    const b = new Bio(d, REQ_OP_READ);
    for (const [offset, len] of parts) b.addData(memory, offset, len);
    return b;
  };
  const lim = { virtBoundaryMask: 4095, physicalBlockSize: 512 };
  // The first piece may begin and the last may end anywhere.
  assertEquals(
    pieces(lim, bio([2048, 2048], [8192, 4096], [4096, 1024])),
    [[0, 14]],
  );
  assertEquals(pieces(lim, bio([0, 1024], [4096, 4096])), [[0, 2], [2, 8]]);
  assertEquals(pieces(lim, bio([0, 4096], [9216, 1024])), [[0, 8], [8, 2]]);
});

Deno.test("bioSplitToLimits() splits at the most segments, counting large memory as several", () => {
  const pages = (n: number) => (d: FakeDevice) => {
    const b = new Bio(d, REQ_OP_READ);
    for (let i = 0; i < n; i++) b.addData(new Uint8Array(4096), 0, 4096);
    return b;
  };
  assertEquals(
    pieces({ maxSegments: 4 }, pages(10)),
    [[0, 32], [32, 32], [64, 16]],
  );
  assertEquals(
    pieces(
      { maxSegments: 2, maxSegmentSize: 65536 },
      (d) => makeBio(d, REQ_OP_READ, 0, 512),
    ),
    [[0, 256], [256, 256]],
  );
});

Deno.test("corner case 39: parts are issued in order, before any later bio of the task", () => {
  const device = new FakeDevice({
    limits: { maxHwSectors: 8 },
    time: () => 0,
  });
  const other = makeBio(device, REQ_OP_READ, 1000, 8);
  const bio = makeBio(device, REQ_OP_READ, 0, 24);
  const first = makeBio(device, REQ_OP_READ, 500, 8);
  first.endIo = () => {
    submitBio(bio);
    submitBio(other);
  };

  submitBio(first);

  assertEquals(device.log, [
    "READ 500+8 @0",
    "READ 0+8 @0",
    "READ 8+8 @0",
    "READ 16+8 @0",
    "READ 1000+8 @0",
  ]);
});

Deno.test("corner case 40: the fronts of a split bio carry NOMERGE, the last part does not", () => {
  const marked: boolean[] = [];
  const device = new FakeDevice({
    limits: { maxHwSectors: 8 },
    status: (rq) => {
      marked.push((rq.opf & REQ_NOMERGE) !== 0);
      return BLK_STS_OK;
    },
  });
  submit(makeBio(device, REQ_OP_READ, 0, 24));
  settle(device.clock);
  assertEquals(marked, [true, true, false]);
});

Deno.test("submitBio() ends a split bio with the error of whichever part failed", () => {
  for (let failing = 0; failing < 3; failing++) {
    const device = new FakeDevice({
      limits: { maxHwSectors: 8 },
      status: (rq) => rq.sector === failing * 8 ? BLK_STS_MEDIUM : BLK_STS_OK,
    });
    const ended = submit(makeBio(device, REQ_OP_READ, 0, 24));
    settle(device.clock);
    assertEquals([ended.status, ended.times], [BLK_STS_MEDIUM, 1]);
    assertEquals(device.log.length, 3);
  }
});

Deno.test("bioSplitToLimits() cuts writes to zones by what zones are written in", () => {
  // Pieces of 3 KiB of memory: two would be 6 KiB.
  const device = new FakeDevice({
    limits: {
      features: BLK_FEAT_ZONED,
      zoneWriteGranularity: 4096,
      chunkSectors: 1024,
      maxSegments: 2,
      physicalBlockSize: 512,
    },
  });
  const sizes = (opf: number) => {
    const bio = new Bio(device, opf);
    for (let i = 0; i < 4; i++) bio.addData(new Uint8Array(3072), 0, 3072);
    device.log.length = 0;
    submit(bio);
    settle(device.clock);
    return device.log.map((line) => line.split(" ")[1]);
  };
  assertEquals(sizes(REQ_OP_READ), ["0+12", "12+12"]);
  assertEquals(sizes(REQ_OP_WRITE), ["0+8", "8+8", "16+8"]);
});

Deno.test("bioSplitToLimits() does not cut an append", () => {
  const device = new FakeDevice({
    limits: {
      features: BLK_FEAT_ZONED,
      chunkSectors: 1024,
      maxHwZoneAppendSectors: 64,
      maxSegments: 2,
    },
  });
  const bio = new Bio(device, REQ_OP_ZONE_APPEND);
  for (let i = 0; i < 4; i++) bio.addData(new Uint8Array(4096), 0, 4096);
  assertEquals([submit(bio).status, device.log], [BLK_STS_INVAL, []]);
});

Deno.test("bioSplitToLimits() gives the front what it has in common with the rest", () => {
  const seen: number[][] = [];
  const device = new FakeDevice({
    limits: { maxHwSectors: 16, maxSegmentSize: 4096 },
    status: (rq) => {
      const { ioprio, writeHint, writeStream, nrSegs } = rq.bio!;
      seen.push([ioprio, writeHint, writeStream, nrSegs]);
      return BLK_STS_OK;
    },
  });
  const bio = makeBio(device, REQ_OP_WRITE, 0, 24);
  Object.assign(bio, { ioprio: 1, writeHint: 2, writeStream: 3 });
  submit(bio);
  settle(device.clock);
  assertEquals(seen, [[1, 2, 3, 2], [1, 2, 3, 1]]);
});

Deno.test("bioSplit() and bioAdvance() keep every byte in its place", () => {
  // Random memory pieces, cut at random sectors: the parts' bytes in order are
  // the bio's.
  const random = new Prng(11);
  const device = new FakeDevice();
  for (let round = 0; round < 100; round++) {
    const memory = Uint8Array.from({ length: 32768 }, () => random.below(256));
    const bio = new Bio(device, REQ_OP_READ);
    const expected: number[] = [];
    for (let n = 1 + random.below(5); n > 0; n--) {
      const offset = random.below(32) * 512;
      const len = (1 + random.below(16)) * 512;
      bio.addData(memory, offset, len);
      expected.push(...memory.subarray(offset, offset + len));
    }
    const got: number[] = [];
    while (bio.size > 512) {
      const front = bioSplit(bio, 1 + random.below(bio.size / 512 - 1));
      got.push(...bytesOf(front));
    }
    got.push(...bytesOf(bio));
    bioAdvance(bio, 512);
    assertEquals(bio.size, 0);
    assertEquals(got, expected);
  }
});

function bytesOf(bio: Bio): number[] {
  const bytes: number[] = [];
  let skip = bio.vecDone;
  for (let i = bio.vecIndex; bytes.length < bio.size; i++) {
    const { data, offset, len } = bio.vecs[i]!;
    const n = Math.min(len - skip, bio.size - bytes.length);
    bytes.push(...data.subarray(offset + skip, offset + skip + n));
    skip = 0;
  }
  return bytes;
}
