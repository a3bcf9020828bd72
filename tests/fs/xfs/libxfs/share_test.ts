import { assert, assertEquals } from "@std/assert";
import * as F from "../../../../fs/xfs/libxfs/format.ts";
import { Prng } from "../../../../lib/prng.ts";
import type { MkfsXfsOptions } from "../../../../fs/xfs/mkfs.ts";
import { newShareMount, ShareModel, ShareRunner } from "./share_fixture.ts";

const MiB = 2 ** 20;

/*
 * Goal: after any sequence of allocating, sharing, unmapping, converting and setting
 * aside, both trees hold what the files' maps say, in the fewest records.
 * Method: random changes, several in a transaction, in several groups.
 * Oracle: a list of holders for every block.
 */
const VARIANTS: [string, MkfsXfsOptions, number][] = [
  ["1 KiB blocks", { blockSize: 1024, agCount: 2, rmapbt: true }, 120],
  ["4 KiB blocks", { agCount: 3, rmapbt: true }, 300],
  ["no reverse map", { agCount: 2 }, 150],
  ["no reflink", { agCount: 2, rmapbt: true, reflink: false }, 150],
];

for (const [name, options, steps] of VARIANTS) {
  Deno.test(`reference counts and reverse maps are what files hold, ${name}`, async () => {
    const mp = await newShareMount(options.agCount! * 16 * MiB, options);
    const model = new ShareModel(mp);
    for (let i = 0; i < 6; i++) model.addFile(mp.sb.hasReflink);
    for (let i = 0; i < 2; i++) model.addFile(false);
    model.addFile(mp.sb.hasReflink, F.XFS_ATTR_FORK);
    const runner = new ShareRunner(model, new Prng(7, name));
    for (let i = 0; i < steps; i++) {
      runner.step();
      model.check();
    }
    assert(Object.keys(runner.counts).length === 7);
    assertEquals(mp.dead, false);
  });
}
