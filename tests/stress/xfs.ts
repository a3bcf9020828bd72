/**
 * Random operations on whole file systems, and devices that are filled to the last
 * block, on each set of options.
 *
 * ```sh
 * deno task stress:xfs --ops 5000 --seed 1 --shard 1/4
 * ```
 *
 * There are two pieces for each set: `--ops` operations against a model, and 50 rounds of
 * filling and emptying a device.
 *
 * @module
 */

import { OPTION_SETS } from "../fs/xfs/option_sets.ts";
import { runFullDevice } from "../fs/xfs/full_device.ts";
import { runTreeStress } from "../fs/xfs/tree_stress.ts";
import { parseShare, runShare } from "./cli.ts";

const MiB = 2 ** 20;
const ROUNDS = 50;
const SETS = OPTION_SETS.length;

const share = parseShare(Deno.args, "ops", 5000);
const { seed } = share;
const pieces = await runShare(share, 2 * SETS, async (i) => {
  const [name, mkfs] = OPTION_SETS[i % SETS]!;
  try {
    if (i < SETS) {
      const { device } = await runTreeStress({ seed, ops: share.count, mkfs });
      device.close();
      return;
    }
    // Large blocks and many groups take more.
    const large = (mkfs.blockSize ?? 0) > 4096 || mkfs.agCount !== undefined;
    const size = large ? 256 * MiB : 64 * MiB;
    await runFullDevice({ seed, rounds: ROUNDS, size, mkfs });
  } catch (error) {
    throw new Error(`file system with ${name}`, { cause: error });
  }
});
console.log(`${pieces} pieces, nothing differs and nothing is lost`);
