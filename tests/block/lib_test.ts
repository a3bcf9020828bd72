import { assertEquals } from "@std/assert";
import {
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_NOTSUPP,
  BLK_STS_OK,
  BLKDEV_ZERO_NOFALLBACK,
  BLKDEV_ZERO_NOUNMAP,
  blkdevIssueDiscard,
  blkdevIssueSecureErase,
  blkdevIssueZeroout,
  Partition,
  REQ_NOUNMAP,
} from "../../block/mod.ts";
import { EINVAL, EIO, ENODATA, EOPNOTSUPP, EPERM } from "../../lib/errno.ts";
import { FakeDevice, type FakeOptions } from "./fake_device.ts";

/** A device with all the commands. */
function able(options: FakeOptions = {}): FakeDevice {
  return new FakeDevice({
    time: () => 1000,
    nrSectors: 2 ** 31,
    ...options,
    limits: {
      maxHwDiscardSectors: 2 ** 30,
      discardGranularity: 8192,
      maxSecureEraseSectors: 1000,
      maxWriteZeroesSectors: 1000,
      ...options.limits,
    },
  });
}

/** What reached the driver, without times. */
function commands(device: FakeDevice): string[] {
  return device.log.map((line) => line.split(" @")[0]!);
}

const calls = [blkdevIssueDiscard, blkdevIssueSecureErase, blkdevIssueZeroout];

for (const issue of calls) {
  Deno.test(`${issue.name}() refuses what is no range of whole blocks on the device`, () => {
    const device = able({ limits: { logicalBlockSize: 4096 }, nrSectors: 64 });
    const of = (...args: [number, number]) => issue(device, ...args);
    const ranges: [number, number][] = [[4, 8], [0, 4], [-8, 8], [0.5, 8]];
    for (const range of ranges) assertEquals(of(...range), -EINVAL);
    assertEquals([of(64, 8), of(56, 16)], [-EIO, -EIO]);
    assertEquals([of(0, 0), of(64, 0)], [0, 0]);
    device.readOnly = true;
    assertEquals(of(0, 8), -EPERM);
    assertEquals(device.log, []);
  });

  Deno.test(`${issue.name}() answers the error of the bio that failed`, async () => {
    const device = able({
      status: (rq) => rq.sector === 992 ? BLK_STS_MEDIUM : BLK_STS_OK,
    });
    assertEquals(await issue(device, 992, 8), -ENODATA);
    assertEquals(await issue(device, 0, 8), 0);
  });
}

Deno.test("blkdevIssueDiscard() cuts no unit, also in a partition", async () => {
  const device = able();
  device.queue.nomerges = 2;
  assertEquals(await blkdevIssueDiscard(device, 10, 5000), 0);
  assertEquals(commands(device), ["DISCARD 10+6", "DISCARD 16+4994"]);
  device.log.length = 0;
  const part = new Partition(device, 1, 10);
  assertEquals(await blkdevIssueDiscard(part, 0, 5000), 0);
  assertEquals(commands(device), ["DISCARD 10+6", "DISCARD 16+4994"]);
});

Deno.test("blkdevIssueDiscard() is one command where the device takes several ranges, or one so large", async () => {
  const device = able();
  assertEquals(await blkdevIssueDiscard(device, 10, 5000), 0);
  assertEquals(commands(device), ["DISCARD 10+5000"]);
});

Deno.test("blkdevIssueDiscard() is EOPNOTSUPP without support, and no error if that is found out late", async () => {
  assertEquals(blkdevIssueDiscard(new FakeDevice(), 0, 8), -EOPNOTSUPP);
  const device = able({ status: () => BLK_STS_NOTSUPP });
  assertEquals(await blkdevIssueDiscard(device, 0, 8), 0);
});

Deno.test("blkdevIssueSecureErase() sends what the device takes at once, and has no substitute", async () => {
  const none = new FakeDevice({ limits: { maxHwDiscardSectors: 64 } });
  assertEquals(blkdevIssueSecureErase(none, 0, 8), -EOPNOTSUPP);
  const device = able({ limits: { maxSecureEraseSectors: 992 } });
  assertEquals(await blkdevIssueSecureErase(device, 0, 2500), 0);
  assertEquals(commands(device), [
    "SECURE_ERASE 0+992",
    "SECURE_ERASE 992+992",
    "SECURE_ERASE 1984+516",
  ]);
});

Deno.test("blkdevIssueZeroout() lets blocks go unless told not to", async () => {
  const nounmap: boolean[] = [];
  const device = able({
    status: (rq) => {
      nounmap.push((rq.opf & REQ_NOUNMAP) !== 0);
      return BLK_STS_OK;
    },
  });
  await blkdevIssueZeroout(device, 0, 8);
  await blkdevIssueZeroout(device, 0, 8, BLKDEV_ZERO_NOUNMAP);
  assertEquals(nounmap, [false, true]);
});

Deno.test("blkdevIssueZeroout() writes zeroes if the device finds out late that it cannot, unless told not to", async () => {
  const device = able({
    status: (rq) => rq.bio!.vecs.length === 0 ? BLK_STS_NOTSUPP : BLK_STS_OK,
  });
  const noFallback = await blkdevIssueZeroout(
    device,
    0,
    8,
    BLKDEV_ZERO_NOFALLBACK,
  );
  assertEquals(noFallback, -EOPNOTSUPP);
  assertEquals(await blkdevIssueZeroout(device, 0, 8), 0);
  assertEquals(commands(device), [
    "WRITE_ZEROES 0+8",
    "WRITE_ZEROES 0+8",
    "WRITE 0+8",
  ]);
});

Deno.test("blkdevIssueZeroout() has a bounded number of bios under way, and goes on behind a failure", async () => {
  let most = 0;
  const device = able({
    status: (rq) => {
      most = Math.max(most, device.queue.stats.inFlight);
      if (rq.sector === 200_000) return BLK_STS_IOERR;
      return rq.sector === 100_000 ? BLK_STS_MEDIUM : BLK_STS_OK;
    },
  });
  // The first error counts.
  assertEquals(await blkdevIssueZeroout(device, 0, 300_000), -ENODATA);
  assertEquals([most, device.log.length], [64, 300]);
});

Deno.test("blkdevIssueZeroout() answers at once in a synchronous call", () => {
  const device = able();
  device.clock.enterSync();
  assertEquals(blkdevIssueZeroout(device, 0, 300_000), 0);
  device.clock.leaveSync();
  assertEquals(device.log.length, 300);
});
