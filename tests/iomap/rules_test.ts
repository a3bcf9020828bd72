/** What a file system may answer: a mapping that breaks a rule is a warning that names
 * it, and -EIO; and it is given back. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import {
  type Iomap,
  IOMAP_DELALLOC,
  IOMAP_F_ANON_WRITE,
  IOMAP_F_BUFFER_HEAD,
  IOMAP_F_STALE,
  IOMAP_HOLE,
  IOMAP_INLINE,
  IOMAP_MAPPED,
  IOMAP_NULL_ADDR,
  IOMAP_UNWRITTEN,
} from "../../iomap/iomap.ts";
import { iomapSeekData } from "../../iomap/seek.ts";
import { setWarningHandler } from "../../lib/bug.ts";
import { EIO } from "../../lib/errno.ts";
import { bytes, test, TestFs } from "./testfs.ts";

interface Rule {
  name: string;
  /** Part of the warning. */
  warning: string;
  /** Makes of a mapping [0, 8192) one that breaks the rule. */
  breakIt: (iomap: Iomap, srcmap: Iomap, t: TestFs) => void;
  /** The call that fails; a write of part of a block by default. */
  call?: (t: TestFs) => Promise<number>;
}

const write = (t: TestFs) => t.write(100, bytes(10, 1));
const zero = async (t: TestFs) => (await t.zero(100, 10)).ret;

/** Makes `map` what nobody has objections to, but for what is changed. */
function source(t: TestFs, map: Iomap, change: Partial<Iomap>): void {
  t.fill(map, { offset: 0, length: 8192, type: IOMAP_MAPPED, addr: 65536 });
  Object.assign(map, change);
}

const RULES: Rule[] = [
  {
    name: "begins after pos",
    warning: "begins after pos",
    breakIt: (m) => m.offset = 4096,
  },
  { name: "is empty", warning: "is empty", breakIt: (m) => m.length = 0 },
  {
    name: "has no length that is a number",
    warning: "is empty",
    breakIt: (m) => m.length = NaN,
  },
  {
    name: "ends at pos",
    warning: "ends at or before pos",
    breakIt: (m) => m.length = 100,
  },
  {
    name: "begins within a byte",
    warning: "is not of whole bytes",
    breakIt: (m) => m.offset = 0.5,
  },
  {
    name: "has no end",
    warning: "is not of whole bytes",
    breakIt: (m) => m.length = Infinity,
  },
  {
    name: "is stale from the start",
    warning: "is stale from the start",
    breakIt: (m) => m.flags |= IOMAP_F_STALE,
  },
  {
    name: "has an unknown type",
    warning: "has an unknown type",
    breakIt: (m) => m.type = 5,
  },
  {
    name: "is DELALLOC at an address",
    warning: "HOLE or DELALLOC at an addr",
    breakIt: (m) => m.type = IOMAP_DELALLOC,
  },
  {
    name: "is a HOLE at an address",
    warning: "HOLE or DELALLOC at an addr",
    breakIt: (m) => m.type = IOMAP_HOLE,
    call: zero,
  },
  {
    name: "is MAPPED without a device",
    warning: "without a device",
    breakIt: (m) => m.bdev = null,
  },
  {
    name: "is UNWRITTEN without an address",
    warning: "without an address",
    breakIt: (m) => {
      m.type = IOMAP_UNWRITTEN;
      m.addr = IOMAP_NULL_ADDR;
    },
  },
  {
    name: "begins within a block",
    warning: "is not of whole blocks",
    breakIt: (m) => m.offset = 50,
  },
  {
    name: "ends within a block",
    warning: "is not of whole blocks",
    breakIt: (m) => m.length = 5000,
    call: zero,
  },
  {
    name: "is INLINE without memory",
    warning: "INLINE without its memory",
    breakIt: (m) => m.type = IOMAP_INLINE,
  },
  {
    name: "is INLINE and longer than its memory",
    warning: "INLINE without its memory",
    breakIt: (m) => {
      m.type = IOMAP_INLINE;
      m.length = 200;
      m.inlineData = bytes(199);
    },
  },
  {
    name: "is INLINE and longer than a page",
    warning: "within a page",
    breakIt: (m) => {
      m.type = IOMAP_INLINE;
      m.inlineData = bytes(8192);
    },
  },
  {
    name: "is a HOLE for a write",
    warning: "is a HOLE, for a write",
    breakIt: (m) => {
      m.type = IOMAP_HOLE;
      m.addr = IOMAP_NULL_ADDR;
    },
  },
  {
    name: "is BUFFER_HEAD for a write",
    warning: "is BUFFER_HEAD, for a write",
    breakIt: (m) => m.flags |= IOMAP_F_BUFFER_HEAD,
  },
  {
    name: "is BUFFER_HEAD for a zeroing",
    warning: "is BUFFER_HEAD, for a write",
    breakIt: (m) => m.flags |= IOMAP_F_BUFFER_HEAD,
    call: zero,
  },
  {
    name: "has a source that does not cover pos",
    warning: "has a source that ends at or before pos",
    breakIt: (_, s, t) => source(t, s, { length: 50 }),
  },
  {
    name: "has a source that begins after pos",
    warning: "has a source that begins after pos",
    breakIt: (_, s, t) => source(t, s, { offset: 4096 }),
  },
  {
    name: "has a source without a device",
    warning: "has a source that is MAPPED or UNWRITTEN without a device",
    breakIt: (_, s, t) => source(t, s, { bdev: null }),
  },
];

function mappedFs(): TestFs {
  return new TestFs({ size: 8192, rows: [[0, 8192, IOMAP_MAPPED]] });
}

/** What `fn` answers, and the warnings that it raised. */
async function warningsOf<T>(fn: () => Promise<T>): Promise<[T, string[]]> {
  const raised: string[] = [];
  const old = setWarningHandler((message) => raised.push(message));
  try {
    return [await fn(), raised];
  } finally {
    setWarningHandler(old);
  }
}

for (const { name, warning, breakIt, call = write } of RULES) {
  test(`a mapping that ${name} is -EIO, with a warning, and is given back`, async () => {
    const t = mappedFs();
    t.tweak = (iomap, srcmap) => breakIt(iomap, srcmap, t);
    // A second time, too: whoever looks into it finds it again.
    for (let i = 0; i < 2; i++) {
      const [ret, raised] = await warningsOf(() => call(t));
      assertEquals(ret, -EIO);
      assertEquals(raised.length, 1);
      assertStringIncludes(raised[0]!, warning);
      assertStringIncludes(raised[0]!, "inode 5, pos 100");
      const calls = t.takeCalls();
      assertEquals(calls.length, 2);
      assert(/^end 100\+\d+ written 0$/.test(calls[1]!), calls[1]);
    }
    assertEquals(t.inode.mapping.nrDirty, 0);
    assertEquals(t.dev.take(), []);
  });
}

test("a mapping that begins after pos makes a read fail with -EIO", async () => {
  const t = mappedFs();
  t.tweak = (iomap) => {
    iomap.offset = 8192;
  };
  const [ret, raised] = await warningsOf(() => t.read(0, 100));
  assertEquals(ret, -EIO);
  assertStringIncludes(raised[0]!, "begins after pos");
});

test("mappings that break no rule: INLINE that is only reported, ANON_WRITE, odd holes", async () => {
  const t = mappedFs();
  t.tweak = (iomap) => {
    iomap.type = IOMAP_INLINE;
    iomap.length = 60;
  };
  assertEquals(await iomapSeekData(t.inode, 0, t.ops), 0);
  t.tweak = (iomap) => {
    iomap.flags |= IOMAP_F_ANON_WRITE;
    iomap.addr = IOMAP_NULL_ADDR;
  };
  assertEquals(await t.write(0, bytes(8192, 1)), 8192);
  const odd = mappedFs();
  odd.tweak = (iomap) => {
    iomap.type = IOMAP_HOLE;
    iomap.addr = IOMAP_NULL_ADDR;
    iomap.length = 8191;
  };
  assertEquals(await odd.zero(8000, 10), { ret: 0, didZero: false });
});

test("writeback to a mapping that is elsewhere is -EIO, with a warning", async () => {
  const t = new TestFs();
  await t.write(8192, bytes(4096, 1));
  const { fill } = t;
  t.fill = (iomap, extent) =>
    fill.call(t, iomap, { ...extent, offset: 0, length: 8192 });
  const [ret, raised] = await warningsOf(() => t.flush());
  assertEquals(ret, -EIO);
  assertStringIncludes(raised[0]!, "a mapping that is elsewhere");
  assertEquals(t.folio(2)!.writeback, false);
});

test("writeback to a mapping without an address is -EIO, with a warning", async () => {
  const t = new TestFs();
  await t.write(0, bytes(8192, 1));
  const { fill } = t;
  t.fill = (iomap, extent) => {
    fill.call(t, iomap, extent);
    iomap.addr = IOMAP_NULL_ADDR;
  };
  const [ret, raised] = await warningsOf(() => t.flush());
  assertEquals(ret, -EIO);
  assertStringIncludes(raised[0]!, "a mapping without address");
  assertEquals(t.dev.take(), []);
});

test("writeback to a mapping without a device is -EIO, with a warning", async () => {
  const t = new TestFs();
  await t.write(0, bytes(4096, 1));
  const { fill } = t;
  t.fill = (iomap, extent) => {
    fill.call(t, iomap, extent);
    iomap.bdev = null;
  };
  const [ret, raised] = await warningsOf(() => t.flush());
  assertEquals(ret, -EIO);
  assertStringIncludes(raised[0]!, "a mapping without storage");
  assertEquals(t.folio(0)!.writeback, false);
});
