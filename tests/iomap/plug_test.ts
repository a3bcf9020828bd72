import { assertEquals } from "@std/assert";
import {
  createNvme,
  type FsFile,
  mkfsXfs,
  mount,
  VirtualClock,
  xfs,
} from "../../mod.ts";
import { assertCleanImage } from "../fs/xfs/clean.ts";

const KiB = 1024;
/** Data every 256 KiB, so that no two pieces are one mapping. */
const PIECES = Array.from({ length: 16 }, (_, i) => i * 256 * KiB);

/** How often the device is told to begin while `run` uses a sparse file. */
async function doorbells(
  direct: boolean,
  run: (file: FsFile) => Promise<unknown>,
): Promise<number> {
  const device = createNvme(new VirtualClock(), {
    size: 64 * KiB * KiB,
    preset: "optane",
  });
  await mkfsXfs(device);
  const mnt = await mount(device, xfs);
  const options = { read: true, write: true, create: true, direct };
  const file = await mnt.open("/f", options);
  const piece = new Uint8Array(16 * KiB);
  for (const at of PIECES) await file.write(piece, { at });
  const { controller } = device;
  const ring = controller.ringSq.bind(controller);
  let count = 0;
  controller.ringSq = (qid, tail) => {
    count++;
    ring(qid, tail);
  };
  await run(file);
  const rung = count;
  await file.close();
  await mnt.unmount();
  assertCleanImage(device);
  device.close();
  return rung;
}

Deno.test("iomapDioRw() sends what one call submits as one batch", async () => {
  const buffer = new Uint8Array(PIECES.at(-1)! + 16 * KiB);
  const rung = await doorbells(true, (file) => file.read(buffer, { at: 0 }));
  assertEquals(rung, 1);
});

Deno.test("iomapWritepages() sends what one call submits as one batch", async () => {
  const rung = await doorbells(false, (file) => file.sync());
  // The pieces; what the file system's metadata takes comes beside that.
  assertEquals(rung < PIECES.length, true, `${rung}`);
});
