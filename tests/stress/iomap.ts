/**
 * Random schedules of calls on one file, in any number.
 *
 * ```sh
 * deno task stress:iomap --seeds 10000 --seed 1 --shard 1/4
 * ```
 *
 * @module
 */

import { runSeed } from "../iomap/schedules.ts";
import { parseShare, runShare } from "./cli.ts";

const share = parseShare(Deno.args, "seeds", 10_000);
const seeds = await runShare(
  share,
  share.count,
  (i) => runSeed(share.seed + i),
);
console.log(`${seeds} seeds, no difference`);
