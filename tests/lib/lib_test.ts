import { assert, assertEquals, assertFalse, assertThrows } from "@std/assert";
import {
  bitmapClear,
  bitmapSet,
  bitmapWords,
  clearBit,
  findNextBit,
  findNextZeroBit,
  setBit,
  testBit,
} from "../../lib/bitmap.ts";
import { bugOn, setWarningHandler, warnOn, warnOnOnce } from "../../lib/bug.ts";
import {
  EIOCBQUEUED,
  ENOSPC,
  errnoName,
  EUCLEAN,
  FsError,
  strerror,
} from "../../lib/errno.ts";
import { andThen, repeat } from "../../lib/maybe-promise.ts";
import { Prng } from "../../lib/prng.ts";

Deno.test("bitmap functions agree with an array of booleans", () => {
  const random = new Prng(3);
  const bits = 150;
  const map = new Uint32Array(bitmapWords(bits));
  const model = new Array<boolean>(bits).fill(false);
  for (let round = 0; round < 2000; round++) {
    const start = random.below(bits);
    const count = 1 + random.below(bits - start);
    switch (random.below(4)) {
      case 0:
        bitmapSet(map, start, count);
        model.fill(true, start, start + count);
        break;
      case 1:
        bitmapClear(map, start, count);
        model.fill(false, start, start + count);
        break;
      case 2:
        setBit(map, start);
        model[start] = true;
        break;
      default:
        clearBit(map, start);
        model[start] = false;
    }
    const from = random.below(bits);
    const at = (want: boolean) => {
      const n = model.indexOf(want, from);
      return n < 0 ? bits : n;
    };
    assertEquals(testBit(map, from), model[from]);
    assertEquals(findNextBit(map, bits, from), at(true));
    assertEquals(findNextZeroBit(map, bits, from), at(false));
  }
});

Deno.test("Prng repeats a stream and keeps streams apart", () => {
  const draw = (seed: number, stream: string) => {
    const p = new Prng(seed, stream);
    return Array.from({ length: 8 }, () => p.u32());
  };
  assertEquals(draw(5, "read"), draw(5, "read"));
  assert(draw(5, "read").join() !== draw(5, "write").join());
  assert(draw(5, "read").join() !== draw(6, "read").join());
  const p = new Prng(1);
  const counts = new Array<number>(10).fill(0);
  for (let i = 0; i < 20_000; i++) counts[p.below(10)]!++;
  for (const n of counts) assert(n > 1800 && n < 2200, `${counts}`);
  for (let i = 0; i < 1000; i++) {
    assert(p.below(2 ** 50) < 2 ** 50);
    const f = p.float();
    assert(f >= 0 && f < 1);
  }
});

Deno.test("errno numbers, names and FsError are Linux's", () => {
  assertEquals([ENOSPC, EUCLEAN, EIOCBQUEUED], [28, 117, 529]);
  assertEquals(errnoName(-28), "ENOSPC");
  assertEquals(errnoName(28), "ENOSPC");
  assertEquals(errnoName(-9999), "E9999");
  assertEquals(strerror(-2), "No such file or directory");
  const e = new FsError(-ENOSPC, 'Cannot write "/a"', {
    syscall: "pwrite",
    path: "/a",
  });
  assertEquals([e.code, e.errno, e.syscall, e.path], [
    "ENOSPC",
    28,
    "pwrite",
    "/a",
  ]);
  assert(e instanceof Error && e.message.startsWith('Cannot write "/a": ENOS'));
});

Deno.test("warnOn() reports, warnOnOnce() reports once, bugOn() throws", () => {
  const said: string[] = [];
  const old = setWarningHandler((m) => said.push(m));
  try {
    assert(warnOn(true, "a"));
    assertFalse(warnOn(false, "b"));
    for (let i = 0; i < 3; i++) assert(warnOnOnce(true, "lib_test: once"));
    assertEquals(said, ["a", "lib_test: once"]);
    bugOn(false, "fine");
    assertThrows(() => bugOn(true, "broken"), Error, "BUG: broken");
  } finally {
    setWarningHandler(old);
  }
});

Deno.test("repeat() stays synchronous until a step waits, and runs each step once", async () => {
  const run = (waits: number[]) => {
    let i = 0;
    const result = repeat(() => {
      const more = ++i < 6;
      return waits.includes(i) ? Promise.resolve(more) : more;
    });
    return { result, steps: () => i };
  };
  const plain = run([]);
  assertEquals([plain.result, plain.steps()], [undefined, 6]);
  const waiting = run([2, 3, 6]);
  assert(waiting.result instanceof Promise);
  assertEquals(waiting.steps(), 2);
  await waiting.result;
  assertEquals(waiting.steps(), 6);
});

Deno.test("andThen() passes a value on at once and a promise's later", async () => {
  assertEquals(andThen(2, (n) => n + 1), 3);
  assertEquals(await andThen(Promise.resolve(2), (n) => n + 1), 3);
});
