/**
 * What a benchmark cannot show of a device: memory of a command in flight, memory
 * that stays behind after ten million, and how late the real clock is.
 *
 * Run by `deno task figures`, which lets it collect garbage when it wants to.
 */
import { createNvme, RealClock, VirtualClock } from "../../mod.ts";
import { Load } from "./load.ts";

const collect = (globalThis as { gc?: () => void }).gc;

/** Bytes in use, within V8 and in its buffers. */
function inUse(): number {
  collect?.();
  collect?.();
  const { heapUsed, external } = Deno.memoryUsage();
  return heapUsed + external;
}

function memoryInFlight(preset: string): void {
  const queues = 8;
  const depth = 1000;
  const device = createNvme(new VirtualClock(), {
    size: 2 ** 30,
    preset,
    queues,
    depth: depth + 1,
  });
  const load = new Load(device, { depth: queues * depth });
  const before = inUse();
  load.fill();
  const bytes = (inUse() - before) / (queues * depth);
  console.log(
    `memory of a command in flight, ${preset}: ${bytes.toFixed(0)} bytes ` +
      `(at most 1024)`,
  );
}

async function memoryLeft(preset: string, millions: number): Promise<void> {
  const device = createNvme(new VirtualClock(), { size: 2 ** 26, preset });
  const load = new Load(device, { depth: 32, reads: 0.5 });
  await load.run(500_000);
  const before = inUse();
  await load.run(millions * 1e6);
  const left = inUse() - before;
  console.log(
    `memory left behind by ${millions} million commands, ${preset}: ` +
      `${(left / millions / 1e6).toFixed(4)} bytes each, ${load.errors} errors`,
  );
}

async function lateness(preset: string, depth: number): Promise<void> {
  const clock = new RealClock();
  const device = createNvme(clock, { size: 2 ** 26, preset, seed: 1 });
  const load = new Load(device, { depth });
  await load.run(20_000);
  clock.lateness.clear();
  const start = clock.now();
  while (clock.now() - start < 2e9) await load.run(1000 * depth);
  const { lateness } = clock;
  const us = (share: number) => (lateness.percentile(share) / 1e3).toFixed(1);
  console.log(
    `lateness, ${preset}, ${depth} in flight: p50 ${us(0.5)} us (at most 5), ` +
      `p99 ${us(0.99)} us (at most 150), p99.9 ${us(0.999)} us; ` +
      `${
        (100 * lateness.late / lateness.count).toFixed(2)
      } % by more than 20 us`,
  );
}

if (collect === undefined) {
  console.log("memory: not measured without --v8-flags=--expose-gc");
} else {
  memoryInFlight("tlc-dc");
  await memoryLeft("null", 10);
  await memoryLeft("tlc-dc", 10);
}
await lateness("tlc-dc", 1);
await lateness("tlc-dc", 32);
await lateness("optane", 1);
await lateness("optane", 8);
