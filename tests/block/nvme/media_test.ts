import { assertEquals, assertThrows } from "@std/assert";
import {
  createNvme,
  FileMedia,
  type Media,
  MemoryMedia,
} from "../../../block/nvme/mod.ts";
import { WriteCache } from "../../../block/nvme/cache.ts";
import {
  blkdevIssueFlush,
  REQ_OP_READ,
  REQ_OP_WRITE,
  submitBioWait,
} from "../../../block/mod.ts";
import { VirtualClock } from "../../../lib/clock.ts";
import { EIO, FsError } from "../../../lib/errno.ts";
import { Prng } from "../../../lib/prng.ts";
import { makeBio } from "../fake_device.ts";

const MiB = 2 ** 20;

/** Random writes, zeroes and reads give what an array gives. */
function checkAgainstArray(media: Media, seed: number): void {
  const random = new Prng(seed);
  const model = new Uint8Array(media.size);
  const buffer = new Uint8Array(3 * MiB);
  for (let round = 0; round < 150; round++) {
    const len = 512 * (1 + random.below(round % 10 === 0 ? 5000 : 40));
    const at = 512 * random.below((media.size - len) / 512);
    const offset = random.below(100);
    switch (random.below(3)) {
      case 0:
        buffer.fill(1 + round, offset, offset + len);
        assertEquals(media.write(at, buffer, offset, len), 0);
        model.fill(1 + round, at, at + len);
        break;
      case 1:
        assertEquals(media.zero(at, len), 0);
        model.fill(0, at, at + len);
        break;
      default:
        buffer.fill(0xee);
        assertEquals(media.read(at, buffer, offset, len), 0);
        assertSame(buffer.subarray(offset, offset + len), model.subarray(at));
        assertEquals(buffer[offset + len], 0xee);
    }
  }
  const all = new Uint8Array(media.size);
  media.read(0, all, 0, all.length);
  assertSame(all, model);
}

/** Like assertEquals, in a fraction of the time. */
function assertSame(got: Uint8Array, expected: Uint8Array): void {
  const at = got.findIndex((byte, i) => byte !== expected[i]);
  assertEquals(
    at < 0 ? null : [at, got[at]],
    at < 0 ? null : [
      at,
      expected[at],
    ],
  );
}

Deno.test("MemoryMedia keeps what is written, and holes read as zeroes", () => {
  checkAgainstArray(new MemoryMedia(7 * MiB), 1);
});

Deno.test("MemoryMedia takes memory only for what is written", () => {
  const media = new MemoryMedia(16 * 2 ** 40);
  const page = new Uint8Array(4096).fill(1);
  media.read(8 * 2 ** 40, page, 0, 4096);
  assertEquals([media.allocated, page[0], page[4095]], [0, 0, 0]);
  media.write(8 * 2 ** 40 - 512, page.fill(1), 0, 4096);
  assertEquals(media.allocated, 4 * MiB);
  media.zero(8 * 2 ** 40 - 2 * MiB, 2 * MiB);
  assertEquals(media.allocated, 2 * MiB);
  media.zero(0, 4 * MiB);
  assertEquals(media.allocated, 2 * MiB);
});

Deno.test("FileMedia keeps what is written, and holes read as zeroes", () => {
  const path = Deno.makeTempFileSync();
  try {
    const media = FileMedia.open(path, { size: 5 * MiB });
    checkAgainstArray(media, 2);
    media.close();
  } finally {
    Deno.removeSync(path);
  }
});

Deno.test("FileMedia gives a second device what the first wrote, in a sparse raw image", async () => {
  const dir = Deno.makeTempDirSync();
  const path = `${dir}/disk.img`;
  try {
    const clock = new VirtualClock();
    const first = createNvme(clock, {
      media: FileMedia.open(path, { size: 64 * MiB }),
      preset: "mlc-970pro",
    });
    const bio = makeBio(first, REQ_OP_WRITE, 2048, 8);
    bio.vecs[0]!.data.fill(0x42);
    assertEquals(await submitBioWait(bio), 0);
    assertEquals(Deno.readFileSync(path)[MiB], 0);
    assertEquals(await blkdevIssueFlush(first), 0);
    assertEquals(Deno.readFileSync(path)[MiB], 0x42);
    first.close();
    const { size, blocks } = Deno.statSync(path);
    assertEquals(size, 64 * MiB);
    assertEquals(blocks! * 512 < MiB, true);

    const second = createNvme(clock, { media: FileMedia.open(path) });
    const read = makeBio(second, REQ_OP_READ, 2047, 10);
    assertEquals(await submitBioWait(read), 0);
    const { data } = read.vecs[0]!;
    assertEquals([data[511], data[512], data[4607], data[4608]], [
      0,
      0x42,
      0x42,
      0,
    ]);
    second.close();
  } finally {
    Deno.removeSync(dir, { recursive: true });
  }
});

Deno.test("FileMedia.open() names what is wrong, and changes nothing", () => {
  const dir = Deno.makeTempDirSync();
  const path = `${dir}/disk.img`;
  try {
    const code = (p: string, options = {}) =>
      assertThrows(() => FileMedia.open(p, options), FsError).code;
    assertEquals(code(path), "ENOENT");
    assertEquals(code(path, { size: 4096, create: false }), "ENOENT");
    assertEquals(code(`${dir}/none/disk.img`, { size: 4096 }), "ENOENT");
    assertEquals(code(dir, { size: 4096 }), "EISDIR");
    for (const size of [0, -4096, 4096.5, NaN]) {
      assertEquals(code(path, { size }), "EINVAL");
    }
    assertThrows(() => Deno.statSync(path), Deno.errors.NotFound);
    Deno.writeFileSync(path, new Uint8Array(8192));
    const error = assertThrows(
      () => FileMedia.open(path, { size: 4096 }),
      FsError,
    );
    assertEquals(error.message.includes("8192 bytes, not 4096"), true);
    assertEquals(Deno.statSync(path).size, 8192);
  } finally {
    Deno.removeSync(dir, { recursive: true });
  }
});

Deno.test("FileMedia.read() answers EIO where the image has been cut short", () => {
  const path = Deno.makeTempFileSync();
  try {
    const media = FileMedia.open(path, { size: 65536 });
    Deno.truncateSync(path, 4096);
    const data = new Uint8Array(8192);
    assertEquals(media.read(0, data, 0, 4096), 0);
    assertEquals(media.read(0, data, 0, 8192), -EIO);
    media.close();
    // As for a host that fails.
    assertEquals(media.write(0, data, 0, 512), -EIO);
  } finally {
    Deno.removeSync(path);
  }
});

Deno.test("WriteCache reads the newest, and drains up to a write and no further", () => {
  // Random writes of random sectors, some past the cache. After each drain the
  // media must hold what was written up to then.
  const random = new Prng(5);
  const size = 16 * 4096;
  for (let run = 0; run < 10; run++) {
    const media = new MemoryMedia(size);
    const cache = new WriteCache(media, 256 * 4096);
    const newest = new Uint8Array(size);
    const history: Uint8Array[] = [newest.slice()];
    const buffer = new Uint8Array(size);
    for (let round = 1; round < 40; round++) {
      const len = 512 * (1 + random.below(40));
      const at = 512 * random.below((size - len) / 512);
      const what = random.below(8);
      if (what === 0) {
        // FUA: it alone becomes durable, whatever is older of its range goes.
        buffer.fill(round, 0, len);
        cache.forget(at, len);
        media.write(at, buffer, 0, len);
        newest.fill(round, at, at + len);
        for (const old of history) old.fill(round, at, at + len);
      } else if (what === 1) {
        const seq = random.below(history.length);
        assertEquals(cache.drain(seq), 0);
        media.read(0, buffer, 0, size);
        assertSame(buffer, history[Math.max(seq, drained(cache, seq))]!);
      } else {
        cache.begin();
        buffer.fill(round, 0, len);
        const error = what === 2
          ? cache.zero(at, len)
          : cache.write(at, buffer, 0, len);
        assertEquals(error, 0);
        newest.fill(what === 2 ? 0 : round, at, at + len);
        history.push(newest.slice());
      }
      buffer.fill(0xee);
      assertEquals(cache.read(0, buffer, 0, size), 0);
      assertSame(buffer, newest);
    }
    cache.drain(cache.seq);
    media.read(0, buffer, 0, size);
    assertSame(buffer, newest);
  }
});

const drains = new WeakMap<WriteCache, number>();
/** The last write that a cache has drained, for a drain never goes back. */
function drained(cache: WriteCache, seq: number): number {
  const last = Math.max(drains.get(cache) ?? 0, seq);
  drains.set(cache, last);
  return last;
}

Deno.test("WriteCache drains its oldest data by itself when it is full", () => {
  const media = new MemoryMedia(MiB);
  const cache = new WriteCache(media, 4 * 4096);
  const page = new Uint8Array(4096);
  for (let i = 0; i < 6; i++) {
    cache.begin();
    cache.write(i * 4096, page.fill(i + 1), 0, 4096);
  }
  const onMedia = Array.from({ length: 6 }, (_, i) => {
    media.read(i * 4096, page, 0, 4096);
    return page[0];
  });
  assertEquals(onMedia, [1, 2, 0, 0, 0, 0]);
});
