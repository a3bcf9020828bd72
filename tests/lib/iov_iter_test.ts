import { assertEquals } from "@std/assert";
import { IovIter } from "../../lib/iov-iter.ts";
import { Prng } from "../../lib/prng.ts";

/** Random buffers, some of them empty. */
function randomBuffers(random: Prng): Uint8Array[] {
  return Array.from(
    { length: 1 + random.below(5) },
    () => new Uint8Array(random.below(20)),
  );
}

Deno.test("IovIter copies, skips, goes back and zeroes as one flat buffer would", () => {
  for (let seed = 0; seed < 300; seed++) {
    const random = new Prng(seed);
    const buffers = randomBuffers(random);
    const total = buffers.reduce((n, b) => n + b.length, 0);
    const flat = new Uint8Array(total);
    const source = Uint8Array.from(
      { length: 64 },
      (_, i) => (seed + i * 7) & 255,
    );
    const iter = new IovIter(...buffers);
    let pos = 0;
    for (let step = 0; step < 30; step++) {
      const len = random.below(24);
      const n = Math.min(len, total - pos);
      switch (random.below(5)) {
        case 0:
          assertEquals(iter.copyTo(source, 3, len), n);
          flat.set(source.subarray(3, 3 + n), pos);
          pos += n;
          break;
        case 1: {
          const out = new Uint8Array(40).fill(255);
          assertEquals(iter.copyFrom(out, 5, len), n);
          assertEquals(out.subarray(5, 5 + n), flat.subarray(pos, pos + n));
          assertEquals(out[5 + n], 255);
          pos += n;
          break;
        }
        case 2:
          assertEquals(iter.zero(len), n);
          flat.fill(0, pos, pos + n);
          pos += n;
          break;
        case 3:
          iter.advance(n);
          pos += n;
          break;
        default: {
          const back = random.below(pos + 1);
          iter.revert(back);
          pos -= back;
        }
      }
      assertEquals(iter.count, total - pos);
      if (iter.count > 0) {
        const piece = iter.segment(8);
        assertEquals(
          piece.data.subarray(piece.offset, piece.offset + piece.len),
          flat.subarray(pos, pos + piece.len),
        );
        assertEquals(piece.len > 0, true);
      }
    }
    const joined = new Uint8Array(total);
    let at = 0;
    for (const b of buffers) {
      joined.set(b, at);
      at += b.length;
    }
    assertEquals(joined, flat);
  }
});

Deno.test("IovIter stops where the caller's memory has gone meanwhile", () => {
  const other = new Uint8Array(8);
  for (const at of [0, 3]) {
    const buffer = new Uint8Array(8);
    const iter = new IovIter(buffer);
    iter.advance(at);
    buffer.buffer.transfer();
    assertEquals(iter.copyTo(other, 0, 4), 0);
    assertEquals(iter.copyFrom(other, 0, 4), 0);
    assertEquals(iter.zero(4), 0);
    assertEquals(iter.count, 8 - at);
  }
});
