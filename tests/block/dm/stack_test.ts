/**
 * Devices stacked on devices, under random bios and under a file system.
 *
 * Goal: bytes at the wrong place, bios that end twice or never.
 * Method: seeded reads, writes, and zeroing of any size and memory, many at once
 * where they do not overlap, on linear mappings over a stripe over linear mappings.
 * Oracle: an array of bytes.
 */
import { assertEquals } from "@std/assert";
import {
  Bio,
  BLK_STS_OK,
  type BlockDevice,
  DelayDevice,
  ErrorDevice,
  FlakeyDevice,
  LinearDevice,
  LogWritesDevice,
  REQ_FUA,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_PREFLUSH,
  StripeDevice,
} from "../../../block/mod.ts";
import { VirtualClock } from "../../../lib/clock.ts";
import { Prng } from "../../../lib/prng.ts";
import {
  createNvme,
  mkfsXfs,
  mount,
  type NvmeDevice,
  xfs,
} from "../../../mod.ts";
import { type Ended, settle, submit } from "../fake_device.ts";

const SIZE = 2 ** 20;

/** Memory of a bio, in pieces of whole sectors that lie apart. */
function pieces(prng: Prng, bytes: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < bytes.length;) {
    const len = Math.min(512 * (1 + prng.below(24)), bytes.length - at);
    const room = new Uint8Array(len + 1024);
    const part = room.subarray(512, 512 + len);
    part.set(bytes.subarray(at, at + len));
    parts.push(part);
    at += len;
  }
  return parts;
}

interface Sent {
  bio: Bio;
  ended: Ended;
  /** What a read is to find. */
  expected: Uint8Array | null;
  parts: Uint8Array[];
}

function send(
  prng: Prng,
  top: BlockDevice,
  model: Uint8Array,
  at: number,
  sectors: number,
): Sent {
  const range = model.subarray(at * 512, (at + sectors) * 512);
  const kind = prng.below(8);
  const isRead = kind < 3;
  const isZeroes = kind === 7 && top.limits.maxWriteZeroesSectors > 0;
  const flags = [0, REQ_FUA, REQ_PREFLUSH, REQ_FUA | REQ_PREFLUSH];
  const op = isRead ? REQ_OP_READ : REQ_OP_WRITE | flags[prng.below(4)]!;
  const bio = new Bio(top, isZeroes ? REQ_OP_WRITE_ZEROES : op);
  bio.sector = at;
  bio.size = isZeroes ? sectors * 512 : 0;
  if (isZeroes) range.fill(0);
  else if (!isRead) {
    for (let i = 0; i < range.length; i++) range[i] = prng.below(256);
  }
  const expected = isRead ? range.slice() : null;
  const memory = isRead ? new Uint8Array(range.length) : range;
  const parts = isZeroes ? [] : pieces(prng, memory);
  for (const part of parts) {
    bio.addData(new Uint8Array(part.buffer), part.byteOffset, part.length);
  }
  return { bio, ended: submit(bio), expected, parts };
}

/** Sends bios that lie side by side, all at once, and looks at what came back. */
function round(prng: Prng, top: BlockDevice, model: Uint8Array): void {
  const sent: Sent[] = [];
  let at = prng.below(64);
  while (at < top.nrSectors && sent.length < 12) {
    const sectors = Math.min(1 + prng.below(200), top.nrSectors - at);
    sent.push(send(prng, top, model, at, sectors));
    at += sectors + prng.below(50);
  }
  settle(top.clock);
  for (const { ended, expected, parts } of sent) {
    assertEquals([ended.status, ended.times], [BLK_STS_OK, 1]);
    if (expected === null) continue;
    let from = 0;
    for (const part of parts) {
      const same = expected.subarray(from, from + part.length);
      assertEquals(part.every((b, i) => b === same[i]), true);
      from += part.length;
    }
  }
}

function nvme(clock: VirtualClock, preset: string, size = SIZE): NvmeDevice {
  return createNvme(clock, { size, preset, queues: 2 });
}

for (const preset of ["null", "optane", "tlc-dc"]) {
  Deno.test(`LinearDevice over StripeDevice holds what is written, as an array of bytes does (${preset})`, () => {
    const prng = new Prng(11, preset);
    for (const chunkSectors of [1, 8, 24, 128]) {
      const clock = new VirtualClock();
      const disks = [0, 1, 2].map(() => nvme(clock, preset));
      const legs = disks.map((disk, i) =>
        new LinearDevice(disk, { startSector: 7 * i })
      );
      const stripe = new StripeDevice(legs, { chunkSectors });
      const top = new LinearDevice(stripe, {
        startSector: 33,
        nrSectors: 3000,
      });
      const model = new Uint8Array(3000 * 512);
      for (let i = 0; i < 12; i++) round(prng, top, model);
      for (const disk of disks) disk.close();
    }
  });
}

/** Stacks that hold a file system. */
const stacks: [string, (disks: NvmeDevice[]) => BlockDevice][] = [
  ["LinearDevice", ([disk]) => new LinearDevice(disk!, { startSector: 63 })],
  ["StripeDevice", (disks) => new StripeDevice(disks, { chunkSectors: 128 })],
  [
    "StripeDevice of odd chunks",
    (disks) => new StripeDevice(disks, { chunkSectors: 24 }),
  ],
  [
    "all layers",
    (disks) => {
      const legs = disks.map((disk, i) =>
        new DelayDevice(disk, { readNs: 1000 * i, writeNs: 3000 })
      );
      const stripe = new StripeDevice(legs, { chunkSectors: 64 });
      const part = new LinearDevice(stripe, { startSector: 128 });
      const good = new FlakeyDevice(part, { fromTime: 2 ** 50 });
      return new LogWritesDevice(new ErrorDevice(good));
    },
  ],
];

for (const [name, stack] of stacks) {
  for (const preset of ["null", "optane"]) {
    Deno.test(`XFS over ${name} keeps its files over a remount (${preset})`, async () => {
      const clock = new VirtualClock();
      const disks = [0, 1].map(() => nvme(clock, preset, 24 * 2 ** 20));
      const device = stack(disks);
      await mkfsXfs(device);
      const prng = new Prng(5, name);
      const data = new Uint8Array(3_000_000).map(() => prng.below(256));
      {
        await using fs = await mount(device, xfs);
        using buffered = await fs.open("/b", { write: true, create: true });
        await buffered.write(data, { at: 4097 });
        await buffered.sync();
        using direct = await fs.open("/d", {
          write: true,
          create: true,
          direct: true,
        });
        await direct.write(data.subarray(0, 2 ** 20), { at: 65536 });
      }
      {
        await using fs = await mount(device, xfs);
        for (
          const [path, at, size] of [["/b", 4097, data.length], [
            "/d",
            65536,
            2 ** 20,
          ]] as const
        ) {
          using file = await fs.open(path, { read: true });
          const seen = new Uint8Array(size);
          for (let done = 0; done < size;) {
            done += (await file.read(seen.subarray(done), { at: at + done }))!;
          }
          assertEquals(seen.every((b, i) => b === data[i]), true, path);
        }
      }
      for (const disk of disks) disk.close();
    });
  }
}
