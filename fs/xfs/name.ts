/**
 * Names between bytes, as they are on disk, and strings, as programs have them.
 *
 * A name is UTF-8 as a rule, but the disk does not ask: the kernel stores any bytes but 0
 * and "/". A byte that is no part of valid UTF-8 becomes the lone surrogate U+DC00 + byte
 * (U+DC80 to U+DCFF), which valid UTF-8 never yields, and back. So every name on disk has
 * exactly one string, which lists, looks up and removes it; Python calls this
 * "surrogateescape".
 *
 * @module
 */

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** What a byte that is not valid becomes, less the byte. */
const ESCAPE = 0xdc00;

/** Bytes of a name. */
export function encodeName(name: string): Uint8Array {
  if (name.isWellFormed()) return encoder.encode(name);
  const bytes: number[] = [];
  for (const char of name) {
    const code = char.codePointAt(0)!;
    if (code >= ESCAPE + 0x80 && code <= ESCAPE + 0xff) {
      bytes.push(code - ESCAPE);
    } else {
      bytes.push(...encoder.encode(char));
    }
  }
  return Uint8Array.from(bytes);
}

/** String of a name. */
export function decodeName(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch {
    return decodeEscaped(bytes);
  }
}

function decodeEscaped(bytes: Uint8Array): string {
  let name = "";
  for (let i = 0; i < bytes.length;) {
    const n = validAt(bytes, i);
    name += n > 0
      ? decoder.decode(bytes.subarray(i, i + n))
      : String.fromCharCode(ESCAPE + bytes[i]!);
    i += Math.max(n, 1);
  }
  return name;
}

/** Bytes of the valid character at a place, or 0. */
function validAt(bytes: Uint8Array, at: number): number {
  const lead = bytes[at]!;
  if (lead < 0x80) return 1;
  const n = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (at + n > bytes.length) return 0;
  try {
    decoder.decode(bytes.subarray(at, at + n));
    return n;
  } catch {
    return 0;
  }
}
