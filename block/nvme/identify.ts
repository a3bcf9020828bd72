/**
 * Identify: the 4096 bytes in which a controller and a namespace describe
 * themselves. Little-endian; what is not set is 0.
 *
 * Values are as in the structures: what is "0's based" there (0 means 1) is so
 * here.
 *
 * Kernel counterpart: struct nvme_id_ctrl, struct nvme_id_ns, struct
 * nvme_id_ctrl_nvm, struct nvme_id_ns_zns, struct nvme_id_ctrl_zns.
 *
 * @module
 */

import { NVME_CSI_NVM, NVME_NSID } from "./nvme.ts";

/** Bytes of an Identify answer. */
export const NVME_IDENTIFY_DATA_SIZE = 4096;

/** Compare is there (in ONCS). */
export const NVME_CTRL_ONCS_COMPARE = 1 << 0;
/** Write Uncorrectable is there (in ONCS). */
export const NVME_CTRL_ONCS_WRITE_UNCORRECTABLE = 1 << 1;
/** Dataset Management is there (in ONCS). */
export const NVME_CTRL_ONCS_DSM = 1 << 2;
/** Write Zeroes is there (in ONCS). */
export const NVME_CTRL_ONCS_WRITE_ZEROES = 1 << 3;
/** Verify is there (in ONCS). */
export const NVME_CTRL_ONCS_VERIFY = 1 << 7;
/** Copy is there (in ONCS). */
export const NVME_CTRL_ONCS_COPY = 1 << 8;
/** There is a volatile write cache (in VWC). */
export const NVME_CTRL_VWC_PRESENT = 1 << 0;
/** Flush takes every namespace at once (in VWC). */
const VWC_FLUSH_BROADCAST = 3 << 1;
/** Format is there (in OACS). */
const OACS_FORMAT = 1 << 1;
/** The Commands Supported and Effects log is there (in LPA). */
const LPA_CMD_EFFECTS = 1 << 1;
/** A namespace can be write protected (in NWPC). */
const NWPC_PROTECT = 1 << 0;

/** The namespace has atomic units of its own (in NSFEAT). */
export const NVME_NS_FEAT_ATOMICS = 1 << 1;
/** Reads of deallocated blocks can be made to fail (in NSFEAT). */
export const NVME_NS_FEAT_DULBE = 1 << 2;
/** The namespace tells preferred granularities (in NSFEAT). */
export const NVME_NS_FEAT_IO_OPT = 1 << 4;
/** Deallocated blocks read as zeroes (in DLFEAT). */
export const NVME_NS_DLFEAT_READ_ZEROES = 1;
/** Write Zeroes may deallocate (in DLFEAT). */
export const NVME_NS_DLFEAT_DEAC = 1 << 3;
/** The namespace is write protected (in NSATTR). */
export const NVME_NS_ATTR_RO = 1 << 0;

/** Bytes of a logical block, by format. */
export const NVME_FORMATS: readonly number[] = [512, 4096];

/** What a controller says of itself. */
export interface ControllerIdentity {
  /** Model number, up to 40 ASCII characters. */
  model: string;
  /** Recommended arbitration burst, as a power of two. */
  rab: number;
  /** Largest transfer as a power of two of 4 KiB pages; 0 if there is no limit. */
  mdts: number;
  /** Retry delays that a status may select, units of 100 ms. */
  crdt: readonly [number, number, number];
  /** Aborts under way at once, less one. */
  acl: number;
  /** Asynchronous Event Requests under way at once, less one. */
  aerl: number;
  /** Optional commands, `NVME_CTRL_ONCS_*`. */
  oncs: number;
  /** Fused operations: bit 0 compare and write. */
  fuses: number;
  /** Volatile write cache, `NVME_CTRL_VWC_*`. */
  vwc: number;
  /** Atomic write unit in normal operation, blocks less one. */
  awun: number;
  /** Atomic write unit across a power failure, blocks less one. */
  awupf: number;
  /** Atomic compare and write unit, blocks less one. */
  acwu: number;
}

/** What a namespace says of itself. */
export interface NamespaceIdentity {
  /** Logical blocks (NSZE). */
  blocks: number;
  /** Bytes of a logical block. */
  blockSize: number;
  /** `NVME_NS_FEAT_*`. */
  nsfeat: number;
  /** `NVME_NS_DLFEAT_*`. */
  dlfeat: number;
  /** `NVME_NS_ATTR_*`. */
  nsattr: number;
  /** Atomic write unit in normal operation, blocks less one. */
  nawun: number;
  /** Atomic write unit across a power failure, blocks less one. */
  nawupf: number;
  /** Atomic compare and write unit, blocks less one. */
  nacwu: number;
  /** Atomic boundary in normal operation, blocks less one; 0 if there is none. */
  nabsn: number;
  /** First block of the first boundary. */
  nabo: number;
  /** Atomic boundary across a power failure, blocks less one; 0 if there is none. */
  nabspf: number;
  /** Boundary that I/O had better not cross, blocks; 0 if there is none. */
  noiob: number;
  /** Preferred write granularity, blocks less one. */
  npwg: number;
  /** Preferred write alignment, blocks less one. */
  npwa: number;
  /** Preferred deallocate granularity, blocks less one. */
  npdg: number;
  /** Preferred deallocate alignment, blocks less one. */
  npda: number;
  /** Optimal write size, blocks less one. */
  nows: number;
  /** Most blocks of one source range of a copy. */
  mssrl: number;
  /** Most blocks of a copy. */
  mcl: number;
  /** Most source ranges of a copy, less one. */
  msrc: number;
}

/** What a controller says of the NVM command set. */
export interface NvmControllerIdentity {
  /** Largest Verify as a power of two of 4 KiB pages; 0 if there is no limit. */
  vsl: number;
  /** Largest Write Zeroes, likewise. */
  wzsl: number;
  /** Largest Write Uncorrectable, likewise. */
  wusl: number;
  /** Most ranges of a Dataset Management command; 0 if there is no limit. */
  dmrl: number;
  /** Most blocks of one of them; 0 if there is no limit. */
  dmrsl: number;
}

/** What a zoned namespace says of its zones. */
export interface ZonedIdentity {
  /** Zone operation characteristics. */
  zoc: number;
  /** Optional characteristics: bit 0, reads may cross zones. */
  ozcs: number;
  /** Most active zones less one; 0xffff_ffff if there is no limit. */
  mar: number;
  /** Most open zones less one; 0xffff_ffff if there is no limit. */
  mor: number;
  /** Blocks of a zone. */
  zsze: number;
}

function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

function clear(data: Uint8Array): DataView {
  data.fill(0);
  return viewOf(data);
}

/** ASCII, padded with blanks. */
function putText(
  data: Uint8Array,
  at: number,
  len: number,
  text: string,
): void {
  const padded = text.slice(0, len).padEnd(len);
  for (let i = 0; i < len; i++) data[at + i] = padded.charCodeAt(i);
}

/** Stores a safe integer as 64 bits. */
export function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

/** Loads 64 bits as a number; exact up to 2^53. */
export function getU64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

/** Fills the answer for a controller (CNS 1). */
export function encodeController(
  data: Uint8Array,
  id: ControllerIdentity,
): void {
  const view = clear(data);
  putText(data, 4, 20, "1");
  putText(data, 24, 40, id.model);
  putText(data, 64, 8, "1.0");
  data[72] = id.rab;
  data[77] = id.mdts;
  view.setUint32(80, 0x0002_0000, true);
  // An I/O controller.
  data[111] = 1;
  id.crdt.forEach((delay, i) => view.setUint16(128 + 2 * i, delay, true));
  view.setUint16(256, OACS_FORMAT, true);
  data[258] = id.acl;
  data[259] = id.aerl;
  // One firmware slot, which is read-only.
  data[260] = 1 << 1 | 1;
  data[261] = LPA_CMD_EFFECTS;
  data[262] = 63;
  data[512] = 0x66;
  data[513] = 0x44;
  view.setUint32(516, 1, true);
  view.setUint16(520, id.oncs, true);
  view.setUint16(522, id.fuses, true);
  data[525] = id.vwc | VWC_FLUSH_BROADCAST;
  view.setUint16(526, id.awun, true);
  view.setUint16(528, id.awupf, true);
  data[531] = NWPC_PROTECT;
  view.setUint16(532, id.acwu, true);
  putText(data, 768, 256, "nqn.2014-08.org.nvmexpress:uuid:iomap");
}

/** Reads what {@linkcode encodeController} wrote. */
export function decodeController(data: Uint8Array): ControllerIdentity {
  const view = viewOf(data);
  const u16 = (at: number) => view.getUint16(at, true);
  return {
    model: new TextDecoder().decode(data.subarray(24, 64)).trimEnd(),
    rab: data[72]!,
    mdts: data[77]!,
    crdt: [u16(128), u16(130), u16(132)],
    acl: data[258]!,
    aerl: data[259]!,
    oncs: u16(520),
    fuses: u16(522),
    vwc: data[525]!,
    awun: u16(526),
    awupf: u16(528),
    acwu: u16(532),
  };
}

/** Where the 16-bit fields of a namespace lie. */
const NS_FIELDS = {
  nawun: 34,
  nawupf: 36,
  nacwu: 38,
  nabsn: 40,
  nabo: 42,
  nabspf: 44,
  noiob: 46,
  npwg: 64,
  npwa: 66,
  npdg: 68,
  npda: 70,
  nows: 72,
  mssrl: 74,
} as const;

/** Fills the answer for a namespace (CNS 0). */
export function encodeNamespace(data: Uint8Array, id: NamespaceIdentity): void {
  const view = clear(data);
  for (const at of [0, 8, 16]) putU64(view, at, id.blocks);
  data[24] = id.nsfeat;
  data[25] = NVME_FORMATS.length - 1;
  data[26] = NVME_FORMATS.indexOf(id.blockSize);
  data[33] = id.dlfeat;
  for (const name of Object.keys(NS_FIELDS) as (keyof typeof NS_FIELDS)[]) {
    view.setUint16(NS_FIELDS[name], id[name], true);
  }
  view.setUint32(76, id.mcl, true);
  data[80] = id.msrc;
  data[99] = id.nsattr;
  putU64(view, 120, NVME_NSID);
  NVME_FORMATS.forEach((size, i) => data[130 + 4 * i] = Math.log2(size));
}

/** Reads what {@linkcode encodeNamespace} wrote. */
export function decodeNamespace(data: Uint8Array): NamespaceIdentity {
  const view = viewOf(data);
  const field = (name: keyof typeof NS_FIELDS) =>
    view.getUint16(NS_FIELDS[name], true);
  return {
    blocks: getU64(view, 0),
    blockSize: 1 << data[130 + 4 * (data[26]! & 15)]!,
    nsfeat: data[24]!,
    dlfeat: data[33]!,
    nsattr: data[99]!,
    nawun: field("nawun"),
    nawupf: field("nawupf"),
    nacwu: field("nacwu"),
    nabsn: field("nabsn"),
    nabo: field("nabo"),
    nabspf: field("nabspf"),
    noiob: field("noiob"),
    npwg: field("npwg"),
    npwa: field("npwa"),
    npdg: field("npdg"),
    npda: field("npda"),
    nows: field("nows"),
    mssrl: field("mssrl"),
    mcl: view.getUint32(76, true),
    msrc: data[80]!,
  };
}

/** Fills the list of active namespaces above `nsid` (CNS 2): the one there is. */
export function encodeActiveList(data: Uint8Array, nsid: number): void {
  const view = clear(data);
  if (nsid < NVME_NSID) view.setUint32(0, NVME_NSID, true);
}

/** Fills the names of the namespace (CNS 3): its EUI-64 and its command set. */
export function encodeDescriptors(data: Uint8Array, csi: number): void {
  const view = clear(data);
  data[0] = 1;
  data[1] = 8;
  putU64(view, 4, NVME_NSID);
  data[12] = 4;
  data[13] = 1;
  data[16] = csi;
}

/** Command set of a namespace, from its names (CNS 3). */
export function decodeCommandSet(data: Uint8Array): number {
  for (let at = 0; data[at] !== 0; at += 4 + data[at + 1]!) {
    if (data[at] === 4) return data[at + 4]!;
  }
  return NVME_CSI_NVM;
}

/** Fills the answer for the NVM command set of a controller (CNS 6, CSI 0). */
export function encodeNvmController(
  data: Uint8Array,
  id: NvmControllerIdentity,
): void {
  const view = clear(data);
  data[0] = id.vsl;
  data[1] = id.wzsl;
  data[2] = id.wusl;
  data[3] = id.dmrl;
  view.setUint32(4, id.dmrsl, true);
}

/** Reads what {@linkcode encodeNvmController} wrote. */
export function decodeNvmController(data: Uint8Array): NvmControllerIdentity {
  const [vsl = 0, wzsl = 0, wusl = 0, dmrl = 0] = data;
  return { vsl, wzsl, wusl, dmrl, dmrsl: viewOf(data).getUint32(4, true) };
}

/**
 * Fills the answer for the zones of a namespace (CNS 5, CSI 2).
 *
 * @param blockSize Bytes of a logical block.
 */
export function encodeZonedNamespace(
  data: Uint8Array,
  id: ZonedIdentity,
  blockSize: number,
): void {
  const view = clear(data);
  view.setUint16(0, id.zoc, true);
  view.setUint16(2, id.ozcs, true);
  view.setUint32(4, id.mar, true);
  view.setUint32(8, id.mor, true);
  // A zone has the same bytes in each format.
  NVME_FORMATS.forEach((size, i) =>
    putU64(view, 2816 + 16 * i, id.zsze * blockSize / size)
  );
}

/** Reads what {@linkcode encodeZonedNamespace} wrote. */
export function decodeZonedNamespace(
  data: Uint8Array,
  blockSize: number,
): ZonedIdentity {
  const view = viewOf(data);
  return {
    zoc: view.getUint16(0, true),
    ozcs: view.getUint16(2, true),
    mar: view.getUint32(4, true),
    mor: view.getUint32(8, true),
    zsze: getU64(view, 2816 + 16 * NVME_FORMATS.indexOf(blockSize)),
  };
}

/**
 * Fills the answer for the zones of a controller (CNS 6, CSI 2).
 *
 * @param zasl Largest append as a power of two of 4 KiB pages; 0 if it is MDTS.
 */
export function encodeZonedController(data: Uint8Array, zasl: number): void {
  data.fill(0);
  data[0] = zasl;
}

/** Reads what {@linkcode encodeZonedController} wrote. */
export function decodeZonedController(data: Uint8Array): number {
  return data[0]!;
}
