/**
 * Bios through submission, queue and the `null` device, which ends them within
 * `submitBio`: what the block layer costs. The floor is the copy of the data.
 */
import {
  blkFinishPlug,
  blkStartPlug,
  LinearDevice,
  StripeDevice,
} from "../../block/mod.ts";
import { createNvme, VirtualClock } from "../../mod.ts";
import { figure } from "./figures.ts";
import { Load } from "./load.ts";

const BIOS = 200_000;
const SIZE = 64 * 2 ** 20;
/** Stays in the processor's cache. */
const HOT = 2 ** 20;

const clock = new VirtualClock();
const nvme = () => createNvme(clock, { size: SIZE, preset: "null" });

async function filled(load: Load): Promise<Load> {
  await load.run(4 * SIZE / 4096);
  return load;
}

const group = "4 KiB bios, null device";
const device = nvme();
await filled(new Load(device, { depth: 1, reads: 0 }));

const reads = new Load(device, { depth: 1, region: HOT });
figure({
  group,
  name: "reads",
  ops: BIOS,
  target: 1e6,
  fn: () => reads.run(BIOS),
});
const cold = new Load(device, { depth: 1 });
figure({
  group,
  name: "reads, of 64 MiB",
  ops: BIOS,
  fn: () => cold.run(BIOS),
});
const writes = new Load(device, { depth: 1, reads: 0, region: HOT });
figure({ group, name: "writes", ops: BIOS, fn: () => writes.run(BIOS) });
const plugged = new Load(device, { depth: 32, region: HOT });
figure({
  group,
  name: "reads, 32 under each plug",
  ops: BIOS,
  target: 1e6,
  fn: async () => {
    for (let left = BIOS; left > 0; left -= 32) {
      blkStartPlug();
      plugged.fill();
      blkFinishPlug();
      await null;
    }
  },
});
const linear = new Load(new LinearDevice(device, { startSector: 2048 }), {
  depth: 1,
  region: HOT,
});
figure({
  group,
  name: "reads through a linear mapping",
  ops: BIOS,
  fn: () => linear.run(BIOS),
});
const stripe = new Load(
  new StripeDevice([nvme(), nvme()], { chunkSectors: 128 }),
  { depth: 1, region: HOT },
);
figure({
  group,
  name: "reads through a stripe of two",
  ops: BIOS,
  fn: () => stripe.run(BIOS),
});

const memory = new Uint8Array(SIZE).fill(0x5a);
const buffer = new Uint8Array(4096);
for (const [name, region] of [["", HOT], [", of 64 MiB", SIZE]] as const) {
  const mask = region / 4096 - 1;
  figure({
    group,
    name: `baseline: copies${name}`,
    ops: BIOS,
    fn: () => {
      for (let i = 0; i < BIOS; i++) {
        const at = (i * 40503 & mask) * 4096;
        buffer.set(memory.subarray(at, at + 4096));
      }
    },
  });
}
