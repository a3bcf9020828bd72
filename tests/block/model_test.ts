/**
 * Random bios against a plain model of a disk; `model.ts` says how. The rest of
 * ten million is run by `deno task stress:block`.
 */
import { assertThrows } from "@std/assert";
import type { Fault } from "../../mod.ts";
import { ROUND, runRound } from "./model_run.ts";

const BIOS = 100_000;

Deno.test(`${BIOS} random bios show what the model allows`, () => {
  for (let i = 0; i < BIOS / ROUND; i++) runRound(1 + i, ROUND);
});

const faults: Fault[] = [
  { kind: "liar" },
  { kind: "lost-write", chance: 100 },
  { kind: "misdirected-write", chance: 100 },
  { kind: "misdirected-read", chance: 100 },
  { kind: "stale-read", sectors: 64, after: 100, chance: 20 },
  { kind: "bit-rot", sector: 0, sectors: 8 },
  { kind: "shorn-write" },
];
for (const fault of faults) {
  Deno.test(`the model sees a device with the fault "${fault.kind}"`, () => {
    assertThrows(
      () => {
        for (let seed = 1; seed < 40; seed++) runRound(seed, 500, [fault]);
      },
      Error,
      "seed",
    );
  });
}
