import { assertEquals } from "@std/assert";
import {
  type NvmeIdentity,
  nvmeQueueLimits,
} from "../../../block/nvme/host-limits.ts";
import {
  type ControllerIdentity,
  type NamespaceIdentity,
  type NvmControllerIdentity,
  NVME_CTRL_ONCS_DSM,
  NVME_CTRL_ONCS_WRITE_ZEROES,
  NVME_CTRL_VWC_PRESENT,
  NVME_NS_DLFEAT_DEAC,
  NVME_NS_DLFEAT_READ_ZEROES,
  NVME_NS_FEAT_ATOMICS,
  NVME_NS_FEAT_IO_OPT,
  type ZonedIdentity,
} from "../../../block/nvme/identify.ts";
import {
  BLK_FEAT_ATOMIC_WRITES,
  BLK_FEAT_FUA,
  BLK_FEAT_NOWAIT,
  BLK_FEAT_POLL,
  BLK_FEAT_ROTATIONAL,
  BLK_FEAT_WRITE_CACHE,
  BLK_FEAT_ZONED,
  type QueueLimits,
} from "../../../block/mod.ts";

interface Says {
  ctrl?: Partial<ControllerIdentity>;
  nvm?: Partial<NvmControllerIdentity>;
  ns?: Partial<NamespaceIdentity>;
  zones?: Partial<ZonedIdentity>;
  zasl?: number;
}

/** Limits of a device of 512-byte blocks that says no more than this. */
function limitsOf(says: Says, features = 0): QueueLimits {
  const identity: NvmeIdentity = {
    ctrl: {
      model: "test",
      mdts: 7,
      rab: 0,
      crdt: [0, 0, 0],
      acl: 3,
      aerl: 3,
      oncs: NVME_CTRL_ONCS_DSM | NVME_CTRL_ONCS_WRITE_ZEROES,
      fuses: 0,
      vwc: 0,
      awun: 0,
      awupf: 0,
      acwu: 0,
      ...says.ctrl,
    },
    nvm: { vsl: 0, wzsl: 0, wusl: 0, dmrl: 0, dmrsl: 0, ...says.nvm },
    ns: {
      blocks: 2 ** 20,
      blockSize: 512,
      nsfeat: 0,
      dlfeat: 0,
      nsattr: 0,
      nawun: 0,
      nawupf: 0,
      nacwu: 0,
      nabsn: 0,
      nabo: 0,
      nabspf: 0,
      noiob: 0,
      npwg: 0,
      npwa: 0,
      npdg: 0,
      npda: 0,
      nows: 0,
      mssrl: 0,
      mcl: 0,
      msrc: 0,
      ...says.ns,
    },
    zones: says.zones === undefined ? null : {
      zoc: 0,
      ozcs: 0,
      mar: 0xffff_ffff,
      mor: 0xffff_ffff,
      zsze: 4096,
      ...says.zones,
    },
    zasl: says.zasl ?? -1,
  };
  return nvmeQueueLimits(identity, features);
}

/** Atomic limits of a namespace whose own fields are valid: hardware maximum,
 * smallest and largest unit, boundary. */
function atomics(ns: Partial<NamespaceIdentity>, awupf = 0): number[] {
  const lim = limitsOf({
    ctrl: { awupf },
    ns: { nsfeat: NVME_NS_FEAT_ATOMICS, ...ns },
  });
  assertEquals(lim.features & BLK_FEAT_ATOMIC_WRITES, BLK_FEAT_ATOMIC_WRITES);
  return [
    lim.atomicWriteHwMax,
    lim.atomicWriteUnitMin,
    lim.atomicWriteUnitMax,
    lim.atomicWriteBoundary,
  ];
}

Deno.test("corner case 84: NAWUPF is the atomic unit if NABO is 0, else one block is", () => {
  assertEquals(atomics({ nawupf: 7 }), [4096, 512, 4096, 0]);
  assertEquals(atomics({ nawupf: 0 }), [512, 512, 512, 0]);
  assertEquals(atomics({ nawupf: 7, nabo: 4 }), [512, 512, 512, 0]);
  assertEquals(atomics({ nawupf: 7, nabspf: 31 }), [4096, 512, 4096, 16384]);
});

Deno.test("corner case 85: NAWUPF 6 gives a largest unit of 2048", () => {
  assertEquals(atomics({ nawupf: 6 }), [3584, 512, 2048, 0]);
});

Deno.test("corner case 86: AWUPF counts for nothing if NSFEAT bit 1 is clear", () => {
  assertEquals(atomics({ nsfeat: 0 }, 255), [512, 512, 512, 0]);
});

Deno.test("nvmeQueueLimits() makes a physical block no larger than what is not torn", () => {
  const nsfeat = NVME_NS_FEAT_IO_OPT | NVME_NS_FEAT_ATOMICS;
  const sizes = (ns: Partial<NamespaceIdentity>) => {
    const lim = limitsOf({ ns: { nsfeat, ...ns } });
    return [lim.physicalBlockSize, lim.ioMin, lim.ioOpt];
  };
  assertEquals(sizes({ npwg: 7, nawupf: 7 }), [4096, 4096, 0]);
  assertEquals(sizes({ npwg: 7, nawupf: 0, nows: 255 }), [512, 4096, 131072]);
  assertEquals(sizes({ npwg: 7, nawupf: 6 }), [2048, 4096, 0]);
  assertEquals(sizes({ npwg: 0, nawupf: 255 }), [512, 512, 0]);
});

Deno.test("nvmeQueueLimits() limits transfers by MDTS, the driver and the count of blocks", () => {
  const sectors = (mdts: number, blockSize = 512) =>
    limitsOf({ ctrl: { mdts }, ns: { blockSize } }).maxHwSectors;
  assertEquals(sectors(0), 16384);
  assertEquals(sectors(5), 256);
  assertEquals(sectors(12), 16384);
  assertEquals(sectors(5, 4096), 256);
  const lim = limitsOf({});
  assertEquals(
    [lim.maxSegments, lim.virtBoundaryMask, lim.dmaAlignment],
    [128, 4095, 3],
  );
});

Deno.test("nvmeQueueLimits() takes FUA with the write cache, and POLL and heads from the driver", () => {
  const features = (vwc: number, more = 0) =>
    limitsOf({ ctrl: { vwc } }, more).features &
    (BLK_FEAT_WRITE_CACHE | BLK_FEAT_FUA | BLK_FEAT_NOWAIT | BLK_FEAT_POLL |
      BLK_FEAT_ROTATIONAL);
  assertEquals(features(0), BLK_FEAT_NOWAIT);
  assertEquals(
    features(NVME_CTRL_VWC_PRESENT),
    BLK_FEAT_NOWAIT | BLK_FEAT_WRITE_CACHE | BLK_FEAT_FUA,
  );
  assertEquals(
    features(0, BLK_FEAT_POLL | BLK_FEAT_ROTATIONAL),
    BLK_FEAT_NOWAIT | BLK_FEAT_POLL | BLK_FEAT_ROTATIONAL,
  );
});

Deno.test("nvmeQueueLimits() discards in up to 256 ranges, of the device's granularity", () => {
  const fields = (says: Says) => {
    const lim = limitsOf(says);
    return [
      lim.maxHwDiscardSectors,
      lim.discardGranularity,
      lim.maxDiscardSegments,
    ];
  };
  assertEquals(fields({}), [0xffff_ffff, 512, 256]);
  assertEquals(fields({ ns: { npdg: 7, npda: 15 } }), [0xffff_ffff, 8192, 256]);
  assertEquals(fields({ nvm: { dmrl: 8, dmrsl: 1024 } }), [1024, 512, 8]);
  assertEquals(fields({ ctrl: { oncs: 0 } }), [0, 0, 1]);
});

Deno.test("nvmeQueueLimits() unmaps with WRITE_ZEROES only where that reads as zeroes", () => {
  const fields = (says: Says) => {
    const lim = limitsOf(says);
    return [lim.maxWriteZeroesSectors, lim.maxHwWzeroesUnmapSectors];
  };
  const deac = NVME_NS_DLFEAT_DEAC | NVME_NS_DLFEAT_READ_ZEROES;
  assertEquals(fields({ ns: { dlfeat: deac } }), [1024, 1024]);
  assertEquals(fields({ ns: { dlfeat: NVME_NS_DLFEAT_DEAC } }), [1024, 0]);
  assertEquals(fields({ ns: { dlfeat: 2 | NVME_NS_DLFEAT_DEAC } }), [1024, 0]);
  assertEquals(fields({ nvm: { wzsl: 3 } }), [64, 0]);
  assertEquals(fields({ nvm: { wzsl: 20 } }), [65536, 0]);
  assertEquals(fields({ ctrl: { oncs: 0 } }), [0, 0]);
});

Deno.test("nvmeQueueLimits() keeps I/O within NOIOB if that is a power of two", () => {
  const chunk = (noiob: number) => limitsOf({ ns: { noiob } }).chunkSectors;
  assertEquals([chunk(0), chunk(256), chunk(96)], [0, 256, 0]);
  const zoned = limitsOf({ ns: { noiob: 256 }, zones: { zsze: 8192 } });
  assertEquals(zoned.chunkSectors, 8192);
});

Deno.test("nvmeQueueLimits() counts zones from MOR and MAR plus one, appends by ZASL", () => {
  const fields = (says: Says) => {
    const lim = limitsOf(says);
    return [
      lim.features & BLK_FEAT_ZONED,
      lim.maxOpenZones,
      lim.maxActiveZones,
      lim.maxZoneAppendSectors,
    ];
  };
  assertEquals(fields({ zones: {} }), [BLK_FEAT_ZONED, 0, 0, 1024]);
  assertEquals(fields({ zones: { mor: 13, mar: 27 }, zasl: 0 }), [
    BLK_FEAT_ZONED,
    14,
    28,
    1024,
  ]);
  assertEquals(fields({ zones: {}, zasl: 2 })[3], 32);
  assertEquals(limitsOf({ zones: {} }).maxHwZoneAppendSectors, 0);
});
