/**
 * Events through the virtual clock, 1,024 of them pending, each of which adds the
 * next. The floor is an array of callbacks, called one after the other.
 */
import { QUIET, USEC, VirtualClock } from "../../lib/clock.ts";
import { Prng } from "../../lib/prng.ts";
import { figure } from "./figures.ts";

const EVENTS = 500_000;
const PENDING = 1024;

const random = new Prng(1, "bench");
const delays = Float64Array.from(
  { length: 1 << 14 },
  () => random.below(100 * USEC),
);

/** Starts the chains; the promise resolves when `EVENTS` have run. */
function chains(
  clock: VirtualClock,
  pending: number,
  answer: typeof QUIET | undefined,
): { done: () => boolean; ended: Promise<void> } {
  let left = EVENTS;
  let resolve: () => void;
  const ended = new Promise<void>((r) => resolve = r);
  const event = (chain: number) => {
    left--;
    if (left >= pending) {
      clock.at(clock.now() + delays[left & 0x3fff]!, event, chain);
    } else if (left === 0) resolve();
    return answer;
  };
  for (let i = 0; i < pending; i++) clock.at(delays[i]!, event, i);
  return { done: () => left === 0, ended };
}

const group = "events, 1,024 pending";
figure({
  group,
  name: "in place (runUntil)",
  ops: EVENTS,
  target: 5e6,
  fn: () => {
    const clock = new VirtualClock();
    clock.runUntil(chains(clock, PENDING, undefined).done);
  },
});
figure({
  group,
  name: "by the event loop, quiet ones",
  ops: EVENTS,
  target: 5e6,
  fn: () => chains(new VirtualClock(), PENDING, QUIET).ended,
});
figure({
  group,
  name: "by the event loop, promises let go on after each",
  ops: EVENTS,
  fn: () => chains(new VirtualClock(), PENDING, undefined).ended,
});
figure({
  group,
  name: "by the event loop, one pending",
  ops: EVENTS,
  fn: () => chains(new VirtualClock(), 1, undefined).ended,
});
figure({
  group,
  name: "baseline: setImmediate from setImmediate",
  ops: EVENTS,
  fn: () =>
    new Promise<void>((resolve) => {
      let left = EVENTS;
      const turn = () => {
        if (--left === 0) resolve();
        else setImmediate(turn);
      };
      setImmediate(turn);
    }),
});

figure({
  group: "tasks",
  name: "32 that sleep",
  ops: EVENTS / 5,
  fn: async () => {
    const clock = new VirtualClock();
    const task = async (n: number) => {
      for (let i = EVENTS / 5 / 32; i > 0; i--) await clock.sleep(100 + n);
    };
    await Promise.all(Array.from({ length: 32 }, (_, n) => task(n)));
  },
});

figure({
  group: "events taken back",
  name: "a timeout for each of 500,000 commands, 1,024 pending",
  ops: EVENTS,
  fn: () => {
    const clock = new VirtualClock();
    const timeouts: number[] = [];
    for (let i = 0; i < EVENTS; i++) {
      const place = i & (PENDING - 1);
      if (i >= PENDING) clock.cancel(timeouts[place]!);
      timeouts[place] = clock.at(30e9 + i, () => {}, undefined);
    }
    for (const id of timeouts) clock.cancel(id);
  },
});
