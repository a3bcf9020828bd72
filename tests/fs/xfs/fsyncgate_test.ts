import { assertEquals, assertRejects } from "@std/assert";
import {
  createNvme,
  FsError,
  mkfsXfs,
  mount,
  VirtualClock,
  xfs,
} from "../../../mod.ts";
import { assertCleanImage } from "../xfs/clean.ts";

const PAGE = 4096;

Deno.test("corner case 141: the second fsync after a failed one returns 0 though the data are gone", async () => {
  const clock = new VirtualClock();
  const nvme = createNvme(clock, { size: 64 * 2 ** 20, writeCache: true });
  await mkfsXfs(nvme);
  const fs = await mount(nvme, xfs);
  const file = await fs.open("/a", { read: true, write: true, create: true });
  const other = await fs.open("/a", { read: true, write: true });
  await file.write(new Uint8Array(PAGE).fill(1), { at: 0 });
  await file.sync();

  await file.write(new Uint8Array(PAGE).fill(2), { at: 0 });
  const id = nvme.faults.add({ kind: "write-error-from", sector: 0 });
  const error = await assertRejects(() => file.sync(), FsError);
  assertEquals([error.code, error.syscall], ["ENODATA", "fsync"]);
  nvme.faults.remove(id);
  // The page is clean now: it is not written, and who was told is not told again.
  await file.sync();
  // Each open file is told once.
  await assertRejects(() => other.sync(), FsError);
  await other.sync();

  // Readers see the cache until that is gone, and then what the device has.
  const data = new Uint8Array(PAGE);
  await file.read(data, { at: 0 });
  assertEquals(data[0], 2);
  await file.close();
  await other.close();
  await fs.unmount();
  const after = await mount(nvme, xfs);
  const again = await after.open("/a", { read: true });
  await again.read(data, { at: 0 });
  assertEquals(data[0], 1);
  await again.close();
  await after.unmount();
  assertCleanImage(nvme);
  nvme.close();
});
