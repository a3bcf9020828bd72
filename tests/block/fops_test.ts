import { assertEquals } from "@std/assert";
import {
  BLK_FEAT_WRITE_CACHE,
  BLK_STS_MEDIUM,
  BLK_STS_NOTSUPP,
  BLK_STS_OK,
  BLK_ZONE_COND_EMPTY,
  blkdevOpen,
  type BlkZone,
  REQ_IDLE,
  REQ_NOUNMAP,
  REQ_NOWAIT,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_OP_ZONE_RESET,
  REQ_SYNC,
  RWF_ATOMIC,
  RWF_DSYNC,
  RWF_HIPRI,
  RWF_NOWAIT,
} from "../../block/mod.ts";
import {
  EAGAIN,
  EBADF,
  EFAULT,
  EINVAL,
  ENODATA,
  ENOSPC,
  ENOTTY,
  EOPNOTSUPP,
  EPERM,
} from "../../lib/errno.ts";
import { FakeDevice, type FakeOptions } from "./fake_device.ts";
import { ZonedDevice } from "./zoned_device.ts";

const KiB = 1024;

/** A device of 64 KiB, its file, and the flags of what reaches it. */
function open(options: FakeOptions = {}, readOnly = false) {
  const opfs: number[] = [];
  const device = new FakeDevice({
    nrSectors: 128,
    time: () => 1000,
    status: (rq) => {
      opfs.push(rq.opf);
      return BLK_STS_OK;
    },
    ...options,
  });
  return { device, opfs, file: blkdevOpen(device, { readOnly }) };
}

const bytes = (n: number) => new Uint8Array(n);

Deno.test("BlkdevFile.read() reads up to the end, and nothing from there on", async () => {
  const { device, file } = open();
  assertEquals(await file.read(bytes(8 * KiB), 4 * KiB), 8 * KiB);
  assertEquals(await file.read(bytes(8 * KiB), 60 * KiB), 4 * KiB);
  assertEquals(await file.read(bytes(8 * KiB), 64 * KiB), 0);
  assertEquals(await file.read(bytes(8 * KiB), 65 * KiB), 0);
  assertEquals(device.log, ["READ 8+16 @0", "READ 120+8 @1"]);
});

Deno.test("BlkdevFile.write() writes up to the end, and is ENOSPC from there on", async () => {
  const { file, opfs } = open();
  assertEquals(await file.write(bytes(8 * KiB), 60 * KiB), 4 * KiB);
  assertEquals(file.write(bytes(8 * KiB), 64 * KiB), -ENOSPC);
  assertEquals(file.write(bytes(0), 64 * KiB), 0);
  assertEquals(opfs, [REQ_OP_WRITE | REQ_SYNC | REQ_IDLE]);
});

Deno.test("BlkdevFile refuses calls that cannot be, without a bio", () => {
  const { device, file } = open();
  const both = (buffers: Uint8Array | Uint8Array[], pos: number, rwf = 0) => [
    file.read(buffers, pos, rwf),
    file.write(buffers, pos, rwf),
  ];
  assertEquals(both(bytes(100), 0), [-EINVAL, -EINVAL]);
  assertEquals(both(bytes(512), 100), [-EINVAL, -EINVAL]);
  assertEquals(both(bytes(512), -512), [-EINVAL, -EINVAL]);
  assertEquals(both(bytes(512), 0.5), [-EINVAL, -EINVAL]);
  assertEquals(both(bytes(512), 0, 0x80), [-EOPNOTSUPP, -EOPNOTSUPP]);
  assertEquals(file.read(bytes(512), 0, RWF_ATOMIC), -EOPNOTSUPP);
  assertEquals(both("no" as unknown as Uint8Array, 0), [-EFAULT, -EFAULT]);
  assertEquals(device.log, []);
});

Deno.test("BlkdevFile is EBADF for what it was not opened for, EPERM if the device is read-only", () => {
  const { device, file } = open({
    limits: { maxHwDiscardSectors: 64, maxSecureEraseSectors: 64 },
  }, true);
  const ioctls = (f: typeof file) => [
    f.write(bytes(512), 0),
    f.discard(0, 4096),
    f.secureErase(0, 4096),
    f.zeroout(0, 4096),
  ];
  assertEquals(ioctls(file), [-EBADF, -EBADF, -EBADF, -EBADF]);
  device.readOnly = true;
  const writable = blkdevOpen(device);
  assertEquals(ioctls(writable), [-EPERM, -EPERM, -EPERM, -EPERM]);
  writable.close();
  writable.close();
  assertEquals(writable.read(bytes(512), 0), -EBADF);
  assertEquals(writable.fsync(), -EBADF);
  assertEquals(device.log, []);
});

Deno.test("BlkdevFile.write() with RWF_DSYNC writes with FUA, and flushes", async () => {
  const { device, file } = open();
  assertEquals(await file.write(bytes(4096), 0, RWF_DSYNC), 4096);
  assertEquals(device.log, ["WRITE+FUA 0+8 @0", "FLUSH @1"]);
  assertEquals(await file.fsync(), 0);
  assertEquals(device.log.length, 3);
  const without = open({ status: () => BLK_STS_NOTSUPP });
  assertEquals(await without.file.fsync(), 0);
  const broken = open({ status: () => BLK_STS_MEDIUM });
  assertEquals(await broken.file.fsync(), -ENODATA);
});

Deno.test("BlkdevFile answers the first error", async () => {
  const { file } = open({
    limits: { maxHwSectors: 8 },
    status: (rq) => rq.sector === 8 ? BLK_STS_MEDIUM : BLK_STS_OK,
  });
  assertEquals(await file.read(bytes(64 * KiB), 0), -ENODATA);
  assertEquals(await file.read(bytes(4 * KiB), 0), 4 * KiB);
});

Deno.test("BlkdevFile answers RWF_NOWAIT with EAGAIN when all tags are taken, EOPNOTSUPP without the feature", async () => {
  const { file, opfs } = open({ depth: 1 });
  const first = file.read(bytes(4096), 0, RWF_NOWAIT | RWF_HIPRI);
  assertEquals(await file.read(bytes(4096), 0, RWF_NOWAIT), -EAGAIN);
  assertEquals(await first, 4096);
  assertEquals(opfs, [REQ_OP_READ | REQ_NOWAIT | REQ_SYNC]);
  const without = open({ limits: { features: BLK_FEAT_WRITE_CACHE } });
  const refused = without.file.read(bytes(4096), 0, RWF_NOWAIT);
  assertEquals(refused, -EOPNOTSUPP);
});

Deno.test("BlkdevFile takes memory in any number of pieces, of whole blocks together", async () => {
  const { device, file } = open({ limits: { maxSegments: 1000 } });
  const memory = bytes(64 * KiB);
  // 300 pieces are two bios; the first ends where a block does.
  const pieces = Array.from(
    { length: 300 },
    (_, i) => memory.subarray(i * 200, i * 200 + 100),
  );
  pieces.push(memory.subarray(0, 720));
  assertEquals(await file.write(pieces, 0), 30_720);
  // Under one plug they are one request.
  assertEquals(device.log, ["WRITE 0+60 @0"]);
  assertEquals(await file.write(pieces, 0, RWF_NOWAIT), -EAGAIN);
  const tiny = Array.from(
    { length: 512 },
    (_, i) => memory.subarray(2 * i, 2 * i + 1),
  );
  assertEquals(file.write(tiny, 0), -EINVAL);
  assertEquals(device.log.length, 1);
});

Deno.test("BlkdevFile moves bytes of pieces across bios in their order", () => {
  const { device, file } = open({
    limits: { maxSegments: 1000, logicalBlockSize: 4096 },
    status: (rq) => {
      for (let bio = rq.bio; bio !== null; bio = bio.next) {
        for (const { data, offset, len } of bio.vecs) {
          seen.push(...data.subarray(offset, offset + len));
        }
      }
      return BLK_STS_OK;
    },
  });
  device.queue.nomerges = 2;
  const seen: number[] = [];
  const memory = Uint8Array.from({ length: 512 * 104 }, (_, i) => i % 251);
  const pieces = Array.from(
    { length: 512 },
    (_, i) => memory.subarray(i * 104, (i + 1) * 104),
  );
  // Each a copy, so that none follows another in memory.
  const copies = pieces.map((p) => p.slice());
  device.clock.enterSync();
  assertEquals(file.write(copies, 0), 512 * 104);
  device.clock.leaveSync();
  // 256 pieces are six blocks and a half.
  assertEquals(device.log.map((line) => line.split(" ")[1]), [
    "0+48",
    "48+48",
    "96+8",
  ]);
  assertEquals(Uint8Array.from(seen), memory);
});

Deno.test("BlkdevFile.discard() and zeroout() check their range as the ioctls do", async () => {
  const { device, file, opfs } = open({
    limits: {
      logicalBlockSize: 4096,
      maxHwDiscardSectors: 64,
      maxWriteZeroesSectors: 64,
    },
  });
  const ranges: [number, number][] = [
    [0, 0],
    [512, 4096],
    [0, 512],
    [60 * KiB, 8 * KiB],
    [-4096, 4096],
    [NaN, 4096],
  ];
  for (const [start, len] of ranges) {
    assertEquals([file.discard(start, len), file.zeroout(start, len)], [
      -EINVAL,
      -EINVAL,
    ]);
  }
  assertEquals(file.secureErase(0, 4096), -EOPNOTSUPP);
  assertEquals(await file.discard(4096, 8192), 0);
  assertEquals(await file.zeroout(4096, 8192), 0);
  assertEquals(device.log, ["DISCARD 8+16 @0", "WRITE_ZEROES 8+16 @1"]);
  const expected = REQ_OP_WRITE_ZEROES | REQ_NOUNMAP | REQ_SYNC;
  assertEquals(opfs[1], expected);
});

Deno.test("BlkdevFile reports and resets zones", async () => {
  const device = ZonedDevice.registered();
  using file = blkdevOpen(device);
  assertEquals(await file.write(bytes(4096), 64 * 512), 4096);
  const report = await file.reportZones(70, 2);
  if (typeof report === "number") throw new Error(`errno ${report}`);
  assertEquals(report.map((z) => [z.start, z.wp]), [[64, 72], [128, 128]]);
  assertEquals(file.zoneMgmt(REQ_OP_ZONE_RESET, 64, 32), -EINVAL);
  assertEquals(file.zoneMgmt(REQ_OP_WRITE, 64, 64), -ENOTTY);
  assertEquals(await file.zoneMgmt(REQ_OP_ZONE_RESET, 64, 64), 0);
  const [zone] = await file.reportZones(64, 1) as BlkZone[];
  assertEquals([zone!.wp, zone!.cond], [64, BLK_ZONE_COND_EMPTY]);
  assertEquals(file.reportZones(0, 0), -EINVAL);
  using reader = blkdevOpen(device, { readOnly: true });
  assertEquals(reader.zoneMgmt(REQ_OP_ZONE_RESET, 64, 64), -EBADF);
  device.readOnly = true;
  assertEquals(file.zoneMgmt(REQ_OP_ZONE_RESET, 64, 64), -EPERM);
});

Deno.test("BlkdevFile is ENOTTY for zones that the device does not have", () => {
  const { file } = open();
  assertEquals(file.reportZones(0, 1), -ENOTTY);
  assertEquals(file.zoneMgmt(REQ_OP_ZONE_RESET, 0, 128), -ENOTTY);
});
