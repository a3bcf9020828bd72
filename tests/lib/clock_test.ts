import { assert, assertEquals, assertFalse } from "@std/assert";
import { MSEC, RealClock, USEC, VirtualClock } from "../../lib/clock.ts";
import { Prng } from "../../lib/prng.ts";

Deno.test("VirtualClock runs events by time, and those of one time in the order they came", () => {
  const clock = new VirtualClock();
  const random = new Prng(1);
  const expected: { time: number; i: number }[] = [];
  const ran: { time: number; i: number }[] = [];
  for (let i = 0; i < 2000; i++) {
    const time = random.below(300);
    expected.push({ time, i });
    clock.at(time, (e) => ran.push(e), { time, i });
  }
  expected.sort((a, b) => a.time - b.time || a.i - b.i);

  assertFalse(clock.runUntil(() => false));

  assertEquals(ran, expected);
  assertEquals(clock.now(), expected.at(-1)!.time);
});

Deno.test("VirtualClock.cancel() takes back one event and no later user of its slot", () => {
  const clock = new VirtualClock();
  const ran: string[] = [];
  const first = clock.at(10, (s) => ran.push(s), "first");
  clock.cancel(first);
  clock.at(20, (s) => ran.push(s), "second");
  clock.cancel(first);

  clock.runUntil(() => false);

  assertEquals(ran, ["second"]);
});

Deno.test("VirtualClock lets promises go on before time moves", async () => {
  const clock = new VirtualClock();
  const seen: [string, number][] = [];
  const task = async (name: string, step: number) => {
    for (let i = 0; i < 3; i++) {
      await clock.sleep(step);
      // Several hops: all of them belong to this moment.
      await null;
      await null;
      seen.push([name, clock.now()]);
    }
  };

  await Promise.all([task("a", 10), task("b", 15)]);

  assertEquals(seen, [
    ["a", 10],
    ["b", 15],
    ["a", 20],
    ["b", 30],
    ["a", 30],
    ["b", 45],
  ]);
});

Deno.test("VirtualClock.atBackground() neither moves time nor runs before its time", async () => {
  const clock = new VirtualClock();
  let ran = -1;
  clock.atBackground(50, () => ran = clock.now(), undefined);
  await clock.sleep(40);
  assertEquals(ran, -1);
  assertFalse(clock.runUntil(() => ran >= 0));
  assertEquals(clock.now(), 40);

  await clock.sleep(40);
  assertEquals(ran, 50);
});

Deno.test("VirtualClock.runUntil() stops at the event that brings the condition about", () => {
  const clock = new VirtualClock();
  let count = 0;
  for (let t = 1; t <= 10; t++) clock.at(t, () => count++, undefined);
  assert(clock.runUntil(() => count === 4));
  assertEquals(clock.now(), 4);
  clock.runUntil(() => false);
});

Deno.test("VirtualClock.runUntil() does not wait for tasks that sleep", async () => {
  const clock = new VirtualClock();
  const order: string[] = [];
  const slept = [5, 3600e9].map((ns) =>
    clock.sleep(ns).then(() => order.push(`sleep ${ns}`))
  );
  clock.at(10, () => order.push("event"), undefined);
  assertFalse(clock.runUntil(() => false));
  assertEquals([clock.now(), order], [10, ["event"]]);
  await Promise.all(slept);
  assertEquals(order, ["event", "sleep 5", "sleep 3600000000000"]);
  assertEquals(clock.now(), 3600e9);
});

Deno.test("RealClock.runUntil() does not wait for tasks that sleep", async () => {
  const clock = new RealClock();
  const slept = clock.sleep(5 * MSEC);
  assertFalse(clock.runUntil(() => clock.now() >= 5 * MSEC));
  await slept;
});

Deno.test("RealClock runs events in order and not before they are due", async () => {
  const clock = new RealClock();
  const start = clock.now() + 50 * MSEC;
  const order: number[] = [];
  const late: number[] = [];
  const all = [3 * MSEC, 50 * USEC, MSEC, 0].map((ns) =>
    new Promise<void>((resolve) =>
      clock.at(start + ns, () => {
        order.push(ns);
        late.push(clock.now() - start - ns);
        resolve();
      }, undefined)
    )
  );
  await Promise.all(all);
  assertEquals(order, [0, 50 * USEC, MSEC, 3 * MSEC]);
  assert(late.every((ns) => ns >= 0), `${late}`);
});

Deno.test("RealClock.runUntil() waits for what is due in place", () => {
  const clock = new RealClock();
  let done = false;
  clock.at(clock.now() + MSEC, () => done = true, undefined);
  const id = clock.at(clock.now() + 3600e9, () => {}, undefined);
  assert(clock.runUntil(() => done));
  clock.cancel(id);
});

Deno.test("RealClock.cancel() of the last event lets the process end", () => {
  const clock = new RealClock();
  const id = clock.at(clock.now() + 3600e9, () => {}, undefined);
  clock.cancel(id);
  // A timer that were left would fail the sanitizer.
});

Deno.test("RealClock.cancel() keeps the events behind the one that is taken back", async () => {
  const clock = new RealClock();
  const due = clock.now() + 5 * MSEC;
  const ran = new Promise<number>((resolve) =>
    clock.at(due, () => resolve(clock.now()), undefined)
  );
  clock.cancel(clock.at(due - MSEC, () => {}, undefined));
  assert(await ran >= due);
});

Deno.test("RealClock goes on after an event that throws", async () => {
  const clock = new RealClock();
  const seen = new Promise<unknown>((resolve) =>
    addEventListener("error", (event) => {
      event.preventDefault();
      resolve(event.error);
    }, { once: true })
  );
  const due = clock.now() + MSEC;
  const crash = new Error("of the event");
  clock.at(due, () => {
    throw crash;
  }, undefined);
  const after = new Promise<void>((resolve) =>
    clock.at(due, resolve, undefined)
  );
  await after;
  assertEquals(await seen, crash);
});
