/**
 * What all long runs share: seeds, shards and progress.
 *
 * @module
 */

import process from "node:process";
import { parseArgs } from "node:util";
import cliProgress from "npm:cli-progress@3.12.0";

/** What part of a run this process does. */
export interface Share {
  /** First seed. */
  seed: number;
  /** Units of work in all, over all shards. */
  count: number;
  /** This shard, from 0. */
  shard: number;
  /** Shards. */
  shards: number;
}

function whole(name: string, text: string, min: number): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= min && Number.isSafeInteger(value)) {
    return value;
  }
  throw new Error(`--${name} ${text} is not a whole number from ${min} on`);
}

/**
 * Reads `--seed S --${what} N --shard i/n`.
 *
 * @param what The name of the count.
 * @param count Its value if it is not given.
 * @throws Error naming the argument that cannot be.
 */
export function parseShare(
  args: string[],
  what: string,
  count: number,
): Share {
  const { values } = parseArgs({
    args,
    options: {
      seed: { type: "string", default: "1" },
      shard: { type: "string", default: "1/1" },
      [what]: { type: "string", default: String(count) },
    },
  });
  const given = values as Record<string, string>;
  const [i = "", n = "", ...rest] = given.shard!.split("/");
  const shards = whole("shard", rest.length === 0 ? n : given.shard!, 1);
  const shard = whole("shard", i, 1);
  if (shard > shards) throw new Error(`--shard ${shard}/${shards} is beyond`);
  return {
    seed: whole("seed", given.seed!, 0),
    count: whole(what, given[what]!, 1),
    shard: shard - 1,
    shards,
  };
}

/**
 * Does this process's share of `units` pieces of work, and shows how far it is.
 *
 * @param run Does piece `i` of all.
 * @returns How many it did.
 */
export async function runShare(
  share: Share,
  units: number,
  run: (i: number) => void | Promise<void>,
): Promise<number> {
  const mine = Math.ceil((units - share.shard) / share.shards);
  const bar = new cliProgress.SingleBar({
    format: "{bar} {percentage}% | {value}/{total} | {eta_formatted} left",
    noTTYOutput: true,
    notTTYSchedule: 10_000,
    stream: process.stderr,
  });
  bar.start(mine, 0);
  let done = 0;
  for (let i = share.shard; i < units; i += share.shards) {
    await run(i);
    bar.update(++done);
  }
  bar.stop();
  return done;
}
