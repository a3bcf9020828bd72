import { OPTION_SETS } from "./option_sets.ts";
import { runTreeStress } from "./tree_stress.ts";

for (const [name, mkfs] of OPTION_SETS) {
  Deno.test(`xfs holds what a model of it holds after random operations: ${name}`, async () => {
    const { device } = await runTreeStress({
      seed: 11,
      ops: 120,
      checkEvery: 40,
      mkfs,
    });
    device.close();
  });
}
