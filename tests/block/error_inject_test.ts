import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  Bio,
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_OK,
  BLK_STS_TRANSPORT,
  ErrorInjection,
  REQ_OP_DISCARD,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_ZONE_RESET,
} from "../../block/mod.ts";
import { FsError } from "../../lib/errno.ts";
import { FakeDevice, makeBio, settle, submit } from "./fake_device.ts";

function status(device: FakeDevice, bio: Bio): number {
  const ended = submit(bio);
  settle(device.clock);
  assertEquals(ended.times, 1);
  return ended.status;
}

Deno.test("corner case 142: a rule with chance=10 fails about one in 10, the same ones for one seed", () => {
  const hits = (seed: number) => {
    const disk = new FakeDevice({ time: () => 0 });
    disk.errorInjection = new ErrorInjection(seed, [
      "add,op=READ,status=IOERR,chance=10",
    ]);
    const bios = Array.from(
      { length: 2000 },
      () => makeBio(disk, REQ_OP_READ, 0, 8),
    );
    const failed = bios.map((bio) => status(disk, bio) === BLK_STS_IOERR);
    // What fails does not reach the driver.
    const count = failed.filter((hit) => hit).length;
    assertEquals(disk.log.length, 2000 - count);
    assert(count > 150 && count < 250, `${count}`);
    return failed;
  };
  const first = hits(5);
  assertEquals(hits(5), first);
  assert(hits(6).some((hit, i) => hit !== first[i]));
});

Deno.test("ErrorInjection fails what a rule names, and only that", () => {
  const disk = new FakeDevice();
  const injection = new ErrorInjection();
  disk.errorInjection = injection;
  injection.control("add,op=READ,status=MEDIUM,start=8,nr_sectors=0x8,count=2");
  injection.control("add,op=READ,status=TRANSPORT,start=15,nr_sectors=1");
  const read = (at: number, n: number) =>
    status(disk, makeBio(disk, REQ_OP_READ, at, n));
  assertEquals([read(0, 8), read(16, 8)], [BLK_STS_OK, BLK_STS_OK]);
  assertEquals(
    status(disk, makeBio(disk, REQ_OP_WRITE, 8, 8)),
    BLK_STS_OK,
  );
  assertEquals(disk.log.length, 3);
  assertEquals([read(7, 2), read(15, 8)], [BLK_STS_MEDIUM, BLK_STS_MEDIUM]);
  // The first has struck as often as it may.
  assertEquals([read(15, 8), read(8, 7)], [BLK_STS_TRANSPORT, BLK_STS_OK]);
  injection.control("removeall");
  assertEquals(read(15, 8), BLK_STS_OK);
});

Deno.test("ErrorInjection: a zone operation matches by its first sector", () => {
  const disk = new FakeDevice();
  const injection = new ErrorInjection(1, [
    "add,op=ZONE_RESET,status=IOERR,start=64,nr_sectors=64",
    "add,op=DISCARD,status=IOERR,start=64,nr_sectors=64",
  ]);
  const at = (op: number, sector: number, size: number) => {
    const bio = new Bio(disk, op);
    bio.sector = sector;
    bio.size = size;
    return injection.inject(bio);
  };
  const reset = [0, 64, 127, 128].map((s) => at(REQ_OP_ZONE_RESET, s, 0));
  const hit = BLK_STS_IOERR;
  assertEquals(reset, [0, hit, hit, 0]);
  assertEquals(at(REQ_OP_DISCARD, 0, 128 * 512), hit);
  assertEquals(at(REQ_OP_DISCARD, 0, 64 * 512), 0);
});

Deno.test("ErrorInjection refuses a seed or a rule that cannot be", () => {
  const code = (make: () => unknown) => assertThrows(make, FsError).code;
  assertEquals(code(() => new ErrorInjection(0.5)), "EINVAL");
  assertEquals(code(() => new ErrorInjection(1, ["add,op=READ"])), "EINVAL");
  const injection = new ErrorInjection();
  assertEquals(code(() => injection.control(3 as unknown as string)), "EINVAL");
});
