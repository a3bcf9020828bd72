import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  createNvme,
  FileMedia,
  type Media,
  MemoryMedia,
  NVME_PRESETS,
} from "../../../block/nvme/mod.ts";
import {
  blkdevIssueFlush,
  REQ_OP_READ,
  REQ_OP_WRITE,
  submitBioWait,
} from "../../../block/mod.ts";
import { VirtualClock } from "../../../lib/clock.ts";
import { EIO, FsError } from "../../../lib/errno.ts";
import { Prng } from "../../../lib/prng.ts";
import { makeBio, settle, submit } from "../fake_device.ts";

const KiB = 2 ** 10;
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
  let at = 0;
  while (at < got.length && got[at] === expected[at]) at++;
  if (at < got.length) assertEquals([at, got[at]], [at, expected[at]]);
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
  assertEquals(media.allocated, 128 * KiB);
  media.zero(8 * 2 ** 40 - MiB, MiB);
  assertEquals(media.allocated, 64 * KiB);
  media.zero(0, 16 * 2 ** 40);
  assertEquals(media.allocated, 0);
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

/** Random writes and zeroes on media and forks of it, each against its own array. */
function checkForks(media: Media, seed: number): void {
  const random = new Prng(seed, "forks");
  const all: { media: Media; model: Uint8Array }[] = [
    { media, model: new Uint8Array(media.size) },
  ];
  const buffer = new Uint8Array(300 * KiB);
  for (let round = 1; round < 120; round++) {
    const chosen = all[random.below(all.length)]!;
    if (round % 10 === 0 && all.length < 5) {
      const fork = chosen.media.fork!();
      all.push({ media: fork, model: chosen.model.slice() });
      continue;
    }
    const len = 512 * (1 + random.below(random.below(2) === 0 ? 600 : 20));
    const at = 512 * random.below((media.size - len) / 512 + 1);
    if (random.below(3) > 0) {
      buffer.fill(round, 0, len);
      assertEquals(chosen.media.write(at, buffer, 0, len), 0);
      chosen.model.fill(round, at, at + len);
    } else {
      assertEquals(chosen.media.zero(at, len), 0);
      chosen.model.fill(0, at, at + len);
    }
    for (const { media, model } of all) {
      const from = 512 * random.below(media.size / 512 - 100);
      assertEquals(media.read(from, buffer, 0, 51200), 0);
      assertSame(buffer.subarray(0, 51200), model.subarray(from));
    }
  }
  const whole = new Uint8Array(media.size);
  for (const { media, model } of all) {
    assertEquals(media.read(0, whole, 0, whole.length), 0);
    assertSame(whole, model);
  }
  for (const one of all.reverse()) one.media.close();
}

Deno.test("MemoryMedia.fork() and the original go their own ways", () => {
  for (let seed = 1; seed < 6; seed++) {
    checkForks(new MemoryMedia(MiB + 512), seed);
  }
});

Deno.test("MemoryMedia.fork() copies only what changes", () => {
  const media = new MemoryMedia(2 ** 40);
  const data = new Uint8Array(MiB).fill(1);
  for (let i = 0; i < 64; i++) media.write(i * MiB, data, 0, MiB);
  const forks = Array.from({ length: 1000 }, () => media.fork());
  forks.forEach((fork, i) => fork.write(i * 512, data, 0, 512));
  assertEquals(forks[0]!.read(MiB, data, 0, 1), 0);
  assertEquals(data[0], 1);
  // Each shares all but a chunk: what it counts is there only once.
  assertEquals(forks[999]!.allocated, 64 * MiB);
});

Deno.test("FileMedia.fork() and the original go their own ways", () => {
  const path = Deno.makeTempFileSync();
  try {
    for (let seed = 1; seed < 3; seed++) {
      Deno.truncateSync(path);
      checkForks(FileMedia.open(path, { size: MiB + 512 }), seed);
    }
  } finally {
    Deno.removeSync(path);
  }
});

Deno.test("FileMedia keeps an image sparse where zeroes meet zeroes, and at its end", () => {
  const dir = Deno.makeTempDirSync();
  const path = `${dir}/disk.img`;
  try {
    const used = () => Deno.statSync(path).blocks! * 512;
    const media = FileMedia.open(path, { size: 2 ** 40 });
    assertEquals(media.zero(0, 2 ** 40), 0);
    assertEquals(media.zero(0, 2 ** 39), 0);
    const data = new Uint8Array(8 * MiB).fill(1);
    media.write(2 ** 39, data, 0, data.length);
    const before = used();
    media.zero(0, 2 ** 39 + 4096);
    assertEquals(used(), before);
    media.read(2 ** 39 + 4000, data, 0, 200);
    assertEquals([data[95], data[96]], [0, 1]);
    media.zero(2 ** 39 - 512, 2 ** 39 + 512);
    assertEquals(used() < MiB, true);
    media.read(2 ** 39, data, 0, data.length);
    assertEquals(data.every((byte) => byte === 0), true);
    media.close();
    // An image that was there already is looked at.
    const again = FileMedia.open(path);
    again.zero(0, 64 * MiB);
    assertEquals(used() < MiB, true);
    assertEquals(Deno.statSync(path).size, 2 ** 40);
    again.close();
  } finally {
    Deno.removeSync(dir, { recursive: true });
  }
});

Deno.test("MemoryMedia over a failing image answers EIO", () => {
  const path = Deno.makeTempFileSync();
  try {
    const media = FileMedia.open(path, { size: 256 * KiB });
    const fork = media.fork();
    const data = new Uint8Array(512);
    assertEquals(fork.write(0, data, 0, 512), 0);
    Deno.truncateSync(path, 65536);
    assertEquals(fork.read(128 * KiB, data, 0, 512), -EIO);
    assertEquals(fork.write(128 * KiB, data, 0, 512), -EIO);
    assertEquals(fork.zero(128 * KiB, 512), -EIO);
    assertEquals(fork.read(0, data, 0, 512), 0);
    fork.close();
    media.close();
  } finally {
    Deno.removeSync(path);
  }
});

Deno.test("createNvme() makes zones of media that is blank, and refuses what has been written to", () => {
  const make = (media: Media) =>
    createNvme(new VirtualClock(), { media, zoned: { zoneSize: 2 ** 20 } });
  const size = 2 ** 22;
  const path = Deno.makeTempFileSync();
  try {
    for (
      const open of [
        () => new MemoryMedia(size),
        () => FileMedia.open(path, { size }),
      ]
    ) {
      const media = open();
      assertEquals(media.blank, true);
      const device = make(media);
      const bio = makeBio(device, REQ_OP_WRITE, 0, 8);
      bio.vecs[0]!.data.fill(1);
      assertEquals(submit(bio).status, 0);
      assertEquals(media.blank, false);
      if (media instanceof FileMedia) device.close();
      const again = media instanceof FileMedia ? open() : media;
      assertEquals(again.blank, false);
      const { message, code } = assertThrows(() => make(again), FsError);
      assertEquals(code, "EINVAL");
      assert(message.includes("zones begin empty"));
      // Without zones it is taken as it is.
      createNvme(new VirtualClock(), { media: again }).close();
      if (media instanceof MemoryMedia) device.close();
    }
  } finally {
    Deno.removeSync(path);
  }
});

Deno.test("createNvme() makes the largest device of next to nothing, or refuses it", () => {
  for (const preset of Object.keys(NVME_PRESETS)) {
    const sizes = preset === "hdd" ? [2 ** 50, 2 ** 53 - 4096] : [2 ** 50];
    for (const size of sizes) {
      try {
        const device = createNvme(new VirtualClock(), { size, preset });
        const sectors = size / 512;
        const bio = makeBio(device, REQ_OP_WRITE, sectors - 8, 8);
        const zoned = device.zones !== null;
        const ended = submit(bio);
        settle(device.clock);
        assertEquals(ended.status === 0, !zoned);
        device.close();
      } catch (e) {
        assertEquals((e as FsError).code, "EINVAL");
      }
    }
  }
});
