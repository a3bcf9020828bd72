/**
 * Logs that the kernel has left; see tests/data/xfs/README.md. The images are as they
 * were after XFS_IOC_GOINGDOWN, with what the kernel found on them after its recovery.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { xlogCksum, xlogLogrecHblks } from "../../../fs/xfs/log.ts";
import * as L from "../../../fs/xfs/libxfs/log-format.ts";
import { crc32c } from "../../../lib/crc32c.ts";
import { FsError } from "../../../lib/errno.ts";
import { setLogHandler } from "../../../lib/printk.ts";
import { Prng } from "../../../lib/prng.ts";
import { mount, type NvmeDevice } from "../../../mod.ts";
import { assertCleanImage } from "./clean.ts";
import { xfs } from "./fixture.ts";
import { Image } from "./image.ts";
import { listingDifference, listMount } from "./tree_listing.ts";

const NAMES = ["all", "wrapped", "stripe"];

async function inflate(name: string): Promise<Uint8Array<ArrayBuffer>> {
  const url = new URL(`../../data/xfs/${name}.gz`, import.meta.url);
  const stream = new Blob([await Deno.readFile(url)]).stream()
    .pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function dirty(name: string): Promise<Image> {
  return new Image(await inflate(`dirty-${name}.img`));
}

/** Does something with what is said kept apart. */
async function quietly<T>(work: () => Promise<T>): Promise<[T, string[]]> {
  const said: string[] = [];
  const old = setLogHandler((line) => said.push(line));
  try {
    return [await work(), said];
  } finally {
    setLogHandler(old);
  }
}

/** What an image holds once it has been mounted. */
function recover(device: NvmeDevice, options = ""): Promise<string[]> {
  return quietly(async () => {
    const fs = await mount(device, xfs, { options });
    const lines = await listMount(fs);
    await fs.unmount();
    return lines;
  }).then(([lines]) => lines);
}

/** Why an image is refused. */
async function refusal(image: Image): Promise<string> {
  const device = image.device();
  const [error] = await quietly(() =>
    assertRejects(() => mount(device, xfs), FsError)
  );
  device.close();
  return error.message;
}

/** The log of an image, to be spoiled. */
class Log {
  readonly image: Image;
  readonly bbs: number;
  readonly #at: number;

  constructor(image: Image) {
    const { sb } = image;
    this.image = image;
    this.bbs = sb.logblocks * sb.bbPerBlock;
    this.#at = sb.fsbToByte(sb.logstart);
  }

  bb(block: number): DataView {
    const at = this.#at + (block % this.bbs) * 512;
    return new DataView(this.image.data.buffer, at, 512);
  }

  /** Blocks of records with data, in the order in which they were written. */
  records(): number[] {
    const found: [number, number][] = [];
    for (let bb = 0; bb < this.bbs; bb++) {
      const view = this.bb(bb);
      if (view.getUint32(0) !== L.XLOG_HEADER_MAGIC_NUM) continue;
      if (view.getUint32(L.H_LEN) === 0) continue;
      found.push([view.getUint32(L.H_CYCLE) * this.bbs + bb, bb]);
    }
    return found.sort(([a], [b]) => a - b).map(([, bb]) => bb);
  }

  /** Sets the checksum of a record that does not go around the end. */
  seal(block: number): void {
    const view = this.bb(block);
    const hblks = xlogLogrecHblks(view.getUint32(L.H_SIZE));
    const len = hblks * 512 + view.getUint32(L.H_LEN);
    const data = new Uint8Array(this.image.data.buffer, view.byteOffset, len);
    view.setUint32(L.H_CRC, xlogCksum(data, hblks), true);
  }
}

for (const name of NAMES) {
  Deno.test(`mount() recovers what the kernel recovers: ${name}`, async () => {
    const want = new TextDecoder().decode(await inflate(`dirty-${name}.txt`));
    const image = await dirty(name);
    const device = image.device();

    const got = await recover(device);
    assertEquals(listingDifference(want.split("\n"), got), "");
    assertCleanImage(device);

    // There is nothing left to be replayed.
    const [again, said] = await quietly(() => recover(device));
    assertEquals(again, got);
    assertEquals(said, []);
    device.close();
  });

  Deno.test(`mount() replays for a read-only mount, too: ${name}`, async () => {
    const want = new TextDecoder().decode(await inflate(`dirty-${name}.txt`));
    const device = (await dirty(name)).device();

    const got = await recover(device, "ro");
    assertEquals(listingDifference(want.split("\n"), got), "");
    assertCleanImage(device);
    device.close();
  });

  Deno.test(`mount() drops the last record when it is torn: ${name}`, async () => {
    const image = await dirty(name);
    const log = new Log(image);
    const last = log.records().at(-1)!;
    const hblks = xlogLogrecHblks(log.bb(last).getUint32(L.H_SIZE));
    log.bb(last + hblks).setUint8(100, log.bb(last + hblks).getUint8(100) ^ 1);
    const device = image.device();

    await recover(device);
    assertCleanImage(device);
    device.close();
  });

  Deno.test(`mount() refuses a log of another UUID: ${name}`, async () => {
    const image = await dirty(name);
    const log = new Log(image);
    for (const bb of log.records()) log.bb(bb).setUint8(L.H_FS_UUID, 0xee);

    assert((await refusal(image)).includes("UUID of another file system"));
  });

  Deno.test(`mount() survives any flipped bit of the log: ${name}`, async () => {
    const base = await dirty(name);
    const random = new Prng(1, "flip");
    const records = new Log(base).records();
    for (const [i, block] of records.entries()) {
      if (i % Math.ceil(records.length / 3) !== 0) continue;
      const image = base.fork();
      const log = new Log(image);
      const len = log.bb(block).getUint32(L.H_LEN) / 512;
      const bb = log.bb(block + random.below(1 + len));
      const at = random.below(512);
      bb.setUint8(at, bb.getUint8(at) ^ 1 << random.below(8));
      const device = image.device();
      // A record that was dropped as torn, or a refusal; never a wrong tree.
      const error = await recover(device).then(() => null, (e) => e);
      if (error === null) assertCleanImage(device);
      else assert(error instanceof FsError && /log/.test(error.message), error);
      device.close();
    }
  });

  Deno.test(`mount() bounds whatever a sealed record says: ${name}`, async () => {
    const base = await dirty(name);
    const random = new Prng(2, "hostile");
    const { records, end } = (() => {
      const log = new Log(base);
      return { records: log.records(), end: log.bbs };
    })();
    for (let round = 0; round < 3; round++) {
      const image = base.fork();
      const log = new Log(image);
      const block = records[random.below(records.length)]!;
      const len = log.bb(block).getUint32(L.H_LEN) / 512;
      const hblks = xlogLogrecHblks(log.bb(block).getUint32(L.H_SIZE));
      if (block + hblks + len > end) continue;
      for (let n = 0; n < 1 + random.below(4); n++) {
        const bb = log.bb(block + hblks + random.below(len));
        const value = [0, 0xff, random.below(256)][random.below(3)]!;
        bb.setUint8(4 + random.below(508), value);
      }
      log.seal(block);
      const device = image.device();
      const error = await recover(device).then(() => null, (e) => e);
      assert(error === null || error instanceof FsError, error);
      device.close();
    }
  });
}

Deno.test("mount() names the record when one before the last few is damaged", async () => {
  const image = await dirty("wrapped");
  const log = new Log(image);
  // The oldest record that is not blank; more than eight come after it.
  const first = log.records()[0]!;
  const records = log.records().length;
  assert(records > 8, `${records} records`);
  const hblks = xlogLogrecHblks(log.bb(first).getUint32(L.H_SIZE));
  log.bb(first + hblks).setUint8(100, log.bb(first + hblks).getUint8(100) ^ 1);

  const why = await refusal(image);
  assert(why.includes(`block 0x${first.toString(16)}`), why);
});

Deno.test("mount() refuses norecovery without ro, and looks at nothing with it", async () => {
  const image = await dirty("all");
  const device = image.device();
  const [error] = await quietly(() =>
    assertRejects(() => mount(device, xfs, { options: "norecovery" }), FsError)
  );
  assert(error.message.includes("read-only"), error.message);
  await recover(device, "ro,norecovery").catch(() => null);
  assertEquals(crc32c(Image.of(device).data), crc32c(image.data));
});
