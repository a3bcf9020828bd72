/**
 * Numbers of up to 53 bits in big-endian fields of 64.
 *
 * @module
 */

/** Reads an unsigned 64-bit field; what is above 2^53 comes out as no safe integer,
 * except that 2^64 - n is -n for n up to 2^32: "none" and special owners. */
export function getU64(view: DataView, at: number): number {
  const high = view.getUint32(at);
  const low = view.getUint32(at + 4);
  if (high === 0xffff_ffff) return low - 2 ** 32;
  return high * 2 ** 32 + low;
}

/** Writes a 64-bit field. `value` is an integer of at most 53 bits, or -1 … -2^32. */
export function putU64(view: DataView, at: number, value: number): void {
  const high = Math.floor(value / 2 ** 32);
  view.setUint32(at, high >>> 0);
  view.setUint32(at + 4, value - high * 2 ** 32);
}

/** Whether two runs of bytes are equal. */
export function bytesEqual(
  a: Uint8Array,
  at: number,
  b: Uint8Array,
  bt: number,
  n: number,
): boolean {
  for (let i = 0; i < n; i++) if (a[at + i] !== b[bt + i]) return false;
  return true;
}
