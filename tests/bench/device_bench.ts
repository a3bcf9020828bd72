/**
 * Simulated commands a second on the virtual clock, random 4 KiB, by preset and
 * depth: host, controller, latency model and media together.
 */
import { createNvme, VirtualClock } from "../../mod.ts";
import { figure } from "./figures.ts";
import { Load } from "./load.ts";

const COMMANDS = 50_000;
const SIZE = 2 ** 30;
/** What is written before, so that reads find something. */
const REGION = 128 * 2 ** 20;

async function loadOn(
  preset: string,
  depth: number,
  reads: number,
): Promise<Load> {
  const device = createNvme(new VirtualClock(), {
    size: SIZE,
    preset,
    seed: 1,
  });
  await new Load(device, { depth: 32, reads: 0, region: REGION }).run(
    2 * REGION / 4096,
  );
  return new Load(device, { depth, reads, region: REGION });
}

interface Row {
  preset: string;
  depth: number;
  reads: number;
  target?: number;
}

const ROWS: Row[] = [
  { preset: "tlc-dc", depth: 32, reads: 1, target: 300e3 },
  { preset: "tlc-dc", depth: 32, reads: 0, target: 300e3 },
  { preset: "tlc-dc", depth: 32, reads: 0.75, target: 300e3 },
  { preset: "tlc-dc", depth: 1, reads: 1 },
  { preset: "tlc-dc", depth: 256, reads: 1 },
  { preset: "optane", depth: 32, reads: 1 },
  { preset: "qlc", depth: 32, reads: 0.75 },
  { preset: "hdd", depth: 32, reads: 0.75 },
];
for (const { preset, depth, reads, target } of ROWS) {
  const load = await loadOn(preset, depth, reads);
  figure({
    group: "simulated commands",
    name: `${preset}, ${depth} in flight, ${reads * 100} % reads`,
    ops: COMMANDS,
    ...(target === undefined ? {} : { target }),
    fn: () => load.run(COMMANDS),
  });
}
