import { assertEquals } from "@std/assert";
import { createNvme, VirtualClock } from "../../../mod.ts";
import { BufCache } from "../../../fs/xfs/buf.ts";
import { EIO } from "../../../lib/errno.ts";
import { FailingDevice } from "./failing_device.ts";

const BLOCK = 4096;

/** A cache over a device that takes its time. */
function cacheOnDevice(): { device: FailingDevice; bufs: BufCache } {
  const clock = new VirtualClock();
  const nvme = createNvme(clock, { size: 2 ** 20, preset: "optane" });
  const device = new FailingDevice(nvme);
  return { device, bufs: new BufCache(device, BLOCK) };
}

/** First byte of a block. */
function firstByte(bufs: BufCache, block: number): number | Promise<number> {
  return bufs.read(block, 1, () => bufs.get(block)[0]!);
}

function change(bufs: BufCache, block: number, byte: number): void {
  bufs.get(block).fill(byte);
  bufs.markDirty(block);
}

Deno.test("BufCache.flush() keeps a block that another flush is writing", async () => {
  const { device, bufs } = cacheOnDevice();
  change(bufs, 7, 1);
  const first = bufs.flush();
  const second = bufs.flush();
  // The device would still answer what was there before.
  assertEquals(firstByte(bufs, 7), 1);
  assertEquals([await first, await second], [0, 0]);
  assertEquals(device.requests, 1);
  assertEquals(await firstByte(bufs, 7), 1);
});

Deno.test("BufCache.flush() keeps what a read brings until it has been used", async () => {
  const { device, bufs } = cacheOnDevice();
  change(bufs, 7, 1);
  await bufs.flush();
  const read = firstByte(bufs, 7);
  change(bufs, 8, 2);
  const flushed = bufs.flush();
  // As a synchronous call does: both end before either goes on.
  device.clock.runUntil(() => false);
  assertEquals(await read, 1);
  assertEquals(await flushed, 0);
});

Deno.test("BufCache.flush() that fails leaves alone what was freed meanwhile", async () => {
  const { device, bufs } = cacheOnDevice();
  change(bufs, 7, 1);
  change(bufs, 9, 1);
  device.fails = () => true;
  const flushed = bufs.flush();
  bufs.forget(7, 1);
  assertEquals(await flushed, -EIO);
  device.fails = () => false;
  const before = device.requests;
  assertEquals(await bufs.flush(), 0);
  assertEquals(device.requests - before, 1, "block 9 alone is written");
});
