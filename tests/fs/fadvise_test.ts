import { assertEquals } from "@std/assert";
import {
  type Advice,
  createNvme,
  mkfsXfs,
  mount,
  VirtualClock,
  xfs,
} from "../../mod.ts";
import { assertCleanImage } from "./xfs/clean.ts";

const KIB = 1024;

/** Reads of the device that one of 64 KiB in the middle of a file takes, by advice. */
async function readsAfter(...advice: Advice[]) {
  const device = createNvme(new VirtualClock(), {
    size: 512 * KIB * KIB,
    preset: "null",
  });
  await mkfsXfs(device);
  const fs = await mount(device, xfs);
  const file = await fs.open("a", { read: true, write: true, create: true });
  file.writeSync(new Uint8Array(4 * KIB * KIB));
  file.syncSync();
  file.adviseSync("dontneed");
  for (const kind of advice) file.adviseSync(kind);
  const { ios, bytes } = device.stats.read;
  await file.read(new Uint8Array(64 * KIB), { at: 1024 * KIB });
  const read = device.stats.read;
  const answer = [read.ios - ios, (read.bytes - bytes) / KIB];
  file.close();
  await fs.unmount();
  assertCleanImage(device);
  device.close();
  return answer;
}

Deno.test("advise() random reads what is asked for, in one go and no further", async () => {
  assertEquals(await readsAfter("random"), [1, 64]);
});

Deno.test("advise() normal and sequential take random back", async () => {
  const plain = await readsAfter();
  assertEquals(await readsAfter("random", "normal"), plain);
  assertEquals(await readsAfter("random", "sequential"), plain);
});
