import { assertEquals } from "@std/assert";
import { crc32c } from "../../lib/crc32c.ts";
import { Prng } from "../../lib/prng.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

// RFC 3720 appendix B.4 and the customary check value.
Deno.test.each([
  ["123456789", bytes("123456789"), 0xe3069283],
  ["nothing", new Uint8Array(0), 0],
  ["32 zeroes", new Uint8Array(32), 0x8a9136aa],
  ["32 ones", new Uint8Array(32).fill(0xff), 0x62a8ab43],
  ["32 ascending", Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
] as [string, Uint8Array, number][])(
  "crc32c() answers the published value for $0",
  (_name, data, expected) => assertEquals(crc32c(data), expected),
);

Deno.test("crc32c() goes on where an earlier call ended, at any offset", () => {
  const prng = new Prng(1, "crc32c");
  const data = Uint8Array.from({ length: 1000 }, () => prng.below(256));
  const whole = crc32c(data);
  for (const cut of [0, 1, 7, 8, 9, 500, 999, 1000]) {
    const first = crc32c(data, 0, cut);
    assertEquals(crc32c(data, cut, data.length, first), whole, `cut ${cut}`);
  }
});
