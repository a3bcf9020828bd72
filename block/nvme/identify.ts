/**
 * Identify: the 4096 bytes in which a controller and a namespace describe
 * themselves. Little-endian; what is not set is 0.
 *
 * Kernel counterpart: struct nvme_id_ctrl, struct nvme_id_ns.
 *
 * @module
 */

/** Bytes of an Identify answer. */
export const NVME_IDENTIFY_DATA_SIZE = 4096;

/** The optional command Write Zeroes is there (in ONCS). */
const ONCS_WRITE_ZEROES = 1 << 3;
/** The namespace has power-fail atomic units of its own (in NSFEAT). */
const NS_FEAT_ATOMICS = 1 << 1;
/** The namespace tells its preferred write granularity (in NSFEAT). */
const NS_FEAT_IO_OPT = 1 << 4;
/** Deallocated blocks read as zeroes (in DLFEAT). */
const NS_DLFEAT_READ_ZEROES = 1;

/** What a controller says of itself. */
export interface ControllerIdentity {
  /** Model number, up to 40 ASCII characters. */
  model: string;
  /** Largest transfer as a power of two of 4 KiB pages; 0 if there is no limit. */
  mdts: number;
  /** Whether there is a volatile write cache. */
  vwc: boolean;
  /** Whether there is Write Zeroes. */
  writeZeroes: boolean;
}

/** What a namespace says of itself. */
export interface NamespaceIdentity {
  /** Logical blocks. */
  blocks: number;
  /** Bytes of a logical block. */
  blockSize: number;
  /** Bytes that are best written together, and whole or not at all. */
  writeUnit: number;
}

/** Fills the answer for a controller. */
export function encodeController(
  data: Uint8Array,
  id: ControllerIdentity,
): void {
  const view = clear(data);
  putText(data, 4, 20, "1");
  putText(data, 24, 40, id.model);
  putText(data, 64, 8, "1.0");
  data[77] = id.mdts;
  view.setUint32(80, 0x0002_0000, true);
  data[512] = 0x66;
  data[513] = 0x44;
  view.setUint32(516, 1, true);
  view.setUint16(520, id.writeZeroes ? ONCS_WRITE_ZEROES : 0, true);
  data[525] = id.vwc ? 1 : 0;
}

/** Reads what {@linkcode encodeController} wrote. */
export function decodeController(data: Uint8Array): ControllerIdentity {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const model = new TextDecoder().decode(data.subarray(24, 64)).trimEnd();
  return {
    model,
    mdts: data[77]!,
    vwc: (data[525]! & 1) !== 0,
    writeZeroes: (view.getUint16(520, true) & ONCS_WRITE_ZEROES) !== 0,
  };
}

/** Fills the answer for a namespace. */
export function encodeNamespace(data: Uint8Array, id: NamespaceIdentity): void {
  const view = clear(data);
  for (const at of [0, 8, 16]) putU64(view, at, id.blocks);
  data[24] = NS_FEAT_ATOMICS | NS_FEAT_IO_OPT;
  data[33] = NS_DLFEAT_READ_ZEROES;
  const unit = id.writeUnit / id.blockSize - 1;
  view.setUint16(36, unit, true);
  view.setUint16(64, unit, true);
  data[130] = Math.log2(id.blockSize);
}

/** Reads what {@linkcode encodeNamespace} wrote. */
export function decodeNamespace(data: Uint8Array): NamespaceIdentity {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const blockSize = 1 << data[130]!;
  const atomic = view.getUint16(36, true) + 1;
  const preferred = view.getUint16(64, true) + 1;
  return {
    blocks: view.getUint32(4, true) * 2 ** 32 + view.getUint32(0, true),
    blockSize,
    writeUnit: Math.min(atomic, preferred) * blockSize,
  };
}

function clear(data: Uint8Array): DataView {
  data.fill(0);
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
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

function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}
