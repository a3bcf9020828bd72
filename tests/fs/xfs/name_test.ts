import { assert, assertEquals } from "@std/assert";
import { decodeName, encodeName } from "../../../fs/xfs/name.ts";
import { Prng } from "../../../lib/prng.ts";

Deno.test("encodeName() and decodeName() keep text and any bytes", () => {
  const cases: [string, number[]][] = [
    ["plain", [0x70, 0x6c, 0x61, 0x69, 0x6e]],
    ["\u00e9\u20ac\u{1f600}", [
      ...[0xc3, 0xa9, 0xe2, 0x82, 0xac],
      ...[0xf0, 0x9f, 0x98, 0x80],
    ]],
    ["\ufeffx", [0xef, 0xbb, 0xbf, 0x78]],
    ["a\udcffb", [0x61, 0xff, 0x62]],
    ["\udcc3(", [0xc3, 0x28]],
    // Half a pair in UTF-8, and a longer form than needed, are no UTF-8.
    ["\udced\udca0\udc80", [0xed, 0xa0, 0x80]],
    ["\udcc0\udcaf", [0xc0, 0xaf]],
    ["\udce2\udc82\u00e9", [0xe2, 0x82, 0xc3, 0xa9]],
  ];
  for (const [text, bytes] of cases) {
    assertEquals(decodeName(Uint8Array.from(bytes)), text);
    assertEquals([...encodeName(text)], bytes);
  }
});

Deno.test("decodeName() answers different strings for different bytes (seed 1)", () => {
  const prng = new Prng(1, "name");
  const interesting = [0x61, 0x80, 0xbf, 0xc3, 0xe2, 0xed, 0xf0, 0xf4, 0xff];
  const seen = new Map<string, string>();
  for (let round = 0; round < 5000; round++) {
    const bytes = Uint8Array.from(
      { length: 1 + prng.below(6) },
      () => interesting[prng.below(interesting.length)]!,
    );
    const text = decodeName(bytes);
    assertEquals(encodeName(text), bytes);
    const hex = bytes.toHex();
    assert(!seen.has(text) || seen.get(text) === hex);
    seen.set(text, hex);
  }
});
