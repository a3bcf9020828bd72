/**
 * Random bios against the plain model of a disk, in any number.
 *
 * ```sh
 * deno task stress:block --bios 10000000 --seed 1 --shard 1/4
 * ```
 *
 * @module
 */

import { ROUND, runRound } from "../block/model_run.ts";
import { parseShare, runShare } from "./cli.ts";

const share = parseShare(Deno.args, "bios", 10_000_000);
const rounds = await runShare(
  share,
  Math.ceil(share.count / ROUND),
  (i) => runRound(share.seed + i, ROUND),
);
console.log(`${rounds * ROUND} bios, no difference`);
