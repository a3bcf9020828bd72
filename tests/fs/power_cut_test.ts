/**
 * A file system whose device has lost its power is left alone: it touches what comes
 * after it no more.
 */
import { assertEquals, assertRejects } from "@std/assert";
import {
  createNvme,
  FsError,
  mkfsXfs,
  mount,
  type NvmeDevice,
  VirtualClock,
  xfs,
} from "../../mod.ts";
import { assertCleanImage } from "./xfs/clean.ts";

const MiB = 2 ** 20;

async function makeFs(): Promise<NvmeDevice> {
  const device = createNvme(new VirtualClock(), {
    size: 32 * MiB,
    preset: "mlc-970pro",
  });
  await mkfsXfs(device);
  return device;
}

/** All that is on a device. */
async function image(device: NvmeDevice): Promise<Uint8Array> {
  const data = new Uint8Array(MiB);
  const result = await device.passthru({ opcode: 0x02, cdw12: 1023, data });
  assertEquals(result.status, 0);
  return data;
}

Deno.test("mount() takes a device again that has had a power cut, and the mount before lets go of it", async () => {
  const device = await makeFs();
  const old = await mount(device, xfs);
  const file = await old.open("/a", { read: true, write: true, create: true });
  await file.write(new Uint8Array(MiB).fill(0x0d), { at: 0 });
  device.powerCut({ keep: "none" });
  device.powerOn();
  await mkfsXfs(device);
  const fs = await mount(device, xfs);
  const before = await image(device);

  // What the old one still has goes nowhere.
  await assertRejects(() => file.sync(), FsError, "EIO");
  await assertRejects(() => old.sync(), FsError, "EIO");
  file.close();
  await old.unmount();
  assertEquals(await image(device), before);

  // The new one has the device to itself all the same.
  await assertRejects(() => mount(device, xfs), FsError, "EBUSY");
  await assertRejects(() => mkfsXfs(device), FsError, "EBUSY");
  using again = await fs.open("/b", { write: true, create: true });
  await again.write(new Uint8Array(4096), { at: 0 });
  again.close();
  await fs.unmount();
  await (await mount(device, xfs)).unmount();
  assertCleanImage(device);
  device.close();
});

Deno.test("unmount() of a file system whose device has gone writes nothing and succeeds", async () => {
  const device = await makeFs();
  {
    await using fs = await mount(device, xfs);
    using file = await fs.open("/a", { write: true, create: true });
    await file.write(new Uint8Array(MiB), { at: 0 });
    device.disconnect();
    await assertRejects(() => file.sync(), FsError, "EIO");
  }
  device.powerOn();
  device.close();
});

Deno.test("mount() that is under way when the power goes fails", async () => {
  const device = await makeFs();
  const mounting = mount(device, xfs);
  device.powerCut();
  device.powerOn();
  await assertRejects(() => mounting, FsError, "EIO");
  const fs = await mount(device, xfs);
  await fs.unmount();
  assertCleanImage(device);
  device.close();
});
