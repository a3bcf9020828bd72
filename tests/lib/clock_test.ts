import { assert, assertEquals, assertFalse, assertThrows } from "@std/assert";
import {
  type Clock,
  Lateness,
  MSEC,
  QUIET,
  RealClock,
  SEC,
  USEC,
  VirtualClock,
} from "../../lib/clock.ts";
import { FsError } from "../../lib/errno.ts";
import { Prng } from "../../lib/prng.ts";

Deno.test("corner case 143: VirtualClock runs events of one time in the order they came", () => {
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

/** Follows promises for `hops` turns of the microtask queue. */
async function settle(hops: number): Promise<void> {
  for (let i = 0; i < hops; i++) await null;
}

Deno.test("VirtualClock lets everything that an event set going rest before the next, however many wait", async () => {
  const clock = new VirtualClock();
  const random = new Prng(3);
  const EVENTS = 3000;
  let added = 0;
  let ran = 0;
  let rested = 0;
  await new Promise<void>((resolve) => {
    const event = (due: number) => {
      ran++;
      assertEquals([rested, clock.now()], [ran - 1, due]);
      // A user's own promise, and some that hang on it.
      new Promise<void>((r) => r()).then(() => settle(random.below(12))).then(
        () => {
          assertEquals(clock.now(), due);
          if (++rested === EVENTS) resolve();
          // Sometimes several more, sometimes none: the queue runs low and full.
          for (let n = random.below(4); n > 0 || ran === added; n--) {
            if (added === EVENTS) return;
            add(random.below(3));
          }
        },
      );
    };
    const add = (ns: number) => {
      added++;
      clock.at(clock.now() + ns, event, clock.now() + ns);
    };
    add(0);
  });
  assertEquals([added, ran, rested], [EVENTS, EVENTS, EVENTS]);
});

Deno.test("VirtualClock runs the event after a quiet one at once, and lets go on what others wake", async () => {
  const clock = new VirtualClock();
  const order: string[] = [];
  const say = (what: string) =>
    void Promise.resolve().then(() => order.push(what));
  clock.at(1, () => (say("1"), QUIET), undefined);
  clock.at(2, () => (order.push("event 2"), say("2")), undefined);
  clock.at(3, () => order.push("event 3"), undefined);
  await clock.sleep(4);
  assertEquals(order, ["event 2", "1", "2", "event 3"]);
});

Deno.test("VirtualClock gives way to the event loop within endless quiet events", async () => {
  const clock = new VirtualClock();
  let ran = 0;
  const event = () => {
    if (ran++ < 1_000_000) clock.at(clock.now() + 1, event, undefined);
    return QUIET;
  };
  event();
  await new Promise((resolve) => setTimeout(resolve, 0));
  assert(ran < 1_000_000, `${ran}`);
  clock.runUntil(() => false);
});

Deno.test("VirtualClock goes on after an event that throws", async () => {
  const clock = new VirtualClock();
  const crash = new Error("of the event");
  const seen = new Promise<unknown>((resolve) =>
    addEventListener("error", (event) => {
      event.preventDefault();
      resolve(event.error);
    }, { once: true })
  );
  const times = [1, 2, 2, 3].map((time) =>
    new Promise<number>((resolve) =>
      clock.at(time, () => resolve(clock.now()), undefined)
    )
  );
  clock.at(2, () => {
    throw crash;
  }, undefined);
  assertEquals(await Promise.all(times), [1, 2, 2, 3]);
  assertEquals(await seen, crash);
});

Deno.test("VirtualClock.pending counts what may move time", () => {
  const clock = new VirtualClock();
  const id = clock.at(5, () => {}, undefined);
  clock.atBackground(7, () => {}, undefined);
  clock.at(9, () => {}, undefined);
  assertEquals([clock.pending, clock.lateness], [2, null]);
  clock.setBackground(id, true);
  assertEquals(clock.pending, 1);
  clock.runUntil(() => false);
  assertEquals([clock.pending, clock.now()], [0, 9]);
});

Deno.test("VirtualClock keeps the order of a plain list under random additions and cancellations", () => {
  const clock = new VirtualClock();
  const random = new Prng(7);
  const expected: { time: number; seq: number; id: number }[] = [];
  const ran: number[] = [];
  const gone: number[] = [];
  for (let seq = 0; seq < 20_000; seq++) {
    const time = clock.now() + random.below(1000);
    const id = clock.at(time, (n) => ran.push(n), seq);
    expected.push({ time, seq, id });
    // Phases in which more goes than comes, and the other way round.
    const goes = random.below(10) < (Math.floor(seq / 1000) % 2 === 0 ? 9 : 2);
    if (goes) {
      const [taken] = expected.splice(random.below(expected.length), 1);
      clock.cancel(taken!.id);
      gone.push(taken!.id);
    }
    // Ids of what has long gone are nobody's.
    clock.cancel(gone[random.below(gone.length)] ?? 0);
    if (random.below(8) === 0 && expected.length > 0) {
      expected.sort((a, b) => a.time - b.time || a.seq - b.seq);
      const before = ran.length;
      clock.runUntil(() => ran.length > before);
      const first = expected.shift()!;
      gone.push(first.id);
      assertEquals([ran.at(-1), clock.now()], [first.seq, first.time]);
    }
    assertEquals(clock.pending, expected.length);
  }
});

Deno.test("VirtualClock.cancel() gives back the memory of what was taken back long before its time", () => {
  const clock = new VirtualClock();
  clock.at(SEC, () => {}, undefined);
  // More than may wait at once: places are used again.
  for (let i = 0; i < 2 ** 22 + 100; i++) {
    clock.cancel(clock.at(SEC, () => {}, undefined));
  }
  assertEquals(clock.pending, 1);
  clock.runUntil(() => false);
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

/** Runs `fn` with `globalThis[name]` counting its calls; what they return is kept. */
async function counting(
  name: "setTimeout" | "setImmediate" | "clearTimeout",
  fn: () => Promise<void>,
): Promise<unknown[]> {
  const real = globalThis[name] as (...args: unknown[]) => unknown;
  const made: unknown[] = [];
  const counted = (...args: unknown[]) => {
    const handle = real(...args);
    made.push(handle);
    return handle;
  };
  Object.assign(globalThis, { [name]: counted });
  try {
    await fn();
  } finally {
    Object.assign(globalThis, { [name]: real });
  }
  return made;
}

Deno.test("corner case 147: a scaled real clock completes the set that a virtual one does, out of order at most by its lateness", async () => {
  const CHAINS = 8;
  const LENGTH = 50;
  interface Ended {
    id: number;
    due: number;
    late: number;
  }
  /** Commands in chains, each submitted when the one before has ended. */
  const workload = async (clock: Clock) => {
    const ended: Ended[] = [];
    const start = clock.now() + 100 * USEC;
    const chain = (n: number) =>
      new Promise<void>((resolve) => {
        const random = new Prng(n, "service");
        const submit = (id: number, at: number) => {
          const due = at + random.below(100 * USEC);
          clock.at(due, () => {
            ended.push({ id, due: due - start, late: clock.now() - due });
            if ((id + 1) % LENGTH === 0) resolve();
            else submit(id + 1, due);
          }, undefined);
        };
        submit(n * LENGTH, start);
      });
    await Promise.all(Array.from({ length: CHAINS }, (_, n) => chain(n)));
    return ended;
  };
  const byId = (ended: Ended[]) =>
    ended.map(({ id, due }) => [id, due]).sort(([a], [b]) => a! - b!);

  const virtual = await workload(new VirtualClock());
  const real = await workload(new RealClock({ scale: 4 }));

  assertEquals(byId(real), byId(virtual));
  assertEquals(virtual.every(({ late }) => late === 0), true);
  assert(virtual.every((e, i) => i === 0 || virtual[i - 1]!.due <= e.due));
  const lateness = Math.max(...real.map(({ late }) => late));
  let latest = 0;
  for (const { due, late } of real) {
    assert(late >= 0 && latest - due <= lateness, `${latest} ${due}`);
    latest = Math.max(latest, due);
  }
});

Deno.test("RealClock({ scale }) lets its time pass slower or faster, and refuses what is no speed", () => {
  // Neither a pause between two clocks' beginnings nor one between two readings
  // turns an order round.
  const fast = new RealClock({ scale: 1 / 50 });
  const plain = new RealClock();
  const slow = new RealClock({ scale: 50 });
  plain.at(2 * MSEC, () => {}, undefined);
  plain.runUntil(() => false);
  const before = plain.now();
  const times = [fast.now(), slow.now()];
  const after = plain.now();
  assert(times[0]! > 49 * before, `${times} ${before}`);
  assert(times[1]! * 49 < after, `${times} ${after}`);
  for (const scale of [0, -1, NaN, Infinity, "2" as unknown as number]) {
    assertThrows(() => new RealClock({ scale }), FsError, "scale");
  }
});

Deno.test("corner case 149: no wait of RealClock below 2 ms goes through setTimeout", async () => {
  const clock = new RealClock();
  const timeouts = await counting("setTimeout", async () => {
    for (const ns of [0, 1, 10 * USEC, 300 * USEC, 1999 * USEC]) {
      await clock.sleep(ns);
    }
  });
  assertEquals(timeouts, []);
  // Long enough for a machine that stands still in between.
  const long = await counting("setTimeout", () => clock.sleep(60 * MSEC));
  // One that is over a little early is followed by another.
  assert(long.length >= 1 && long.length <= 3, `${long}`);
});

/** What a program that has `clock`, a real one, prints. */
async function printed(program: string): Promise<string> {
  const module = new URL("../../lib/clock.ts", import.meta.url);
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      "--no-config",
      `import { RealClock } from "${module}"; const clock = new RealClock(); ` +
      program,
    ],
    env: { NO_COLOR: "1" },
  }).output();
  return new TextDecoder().decode(stdout);
}

Deno.test("corner case 150: RealClock keeps the process alive while something is due, and no longer", async () => {
  const say = "console.log(done)";
  const cases: [string, string][] = [
    // Near and far.
    [
      `const done = "near"; clock.at(clock.now() + 1e5, () => ${say});`,
      "near\n",
    ],
    [`const done = "far"; clock.at(clock.now() + 2e7, () => ${say});`, "far\n"],
    [
      `clock.atBackground(clock.now() + 3e6, () => 0);
       const done = "after housekeeping"; clock.at(clock.now() + 2e7, () => ${say});`,
      "after housekeeping\n",
    ],
    // Housekeeping, and what was taken back or ran in place.
    [`const done = "never"; clock.atBackground(36e11, () => ${say});`, ""],
    [`const done = "never"; clock.cancel(clock.at(36e11, () => ${say}));`, ""],
    [
      `const done = "never"; const id = clock.at(36e11, () => ${say});
       clock.atBackground(37e11, () => 0); clock.setBackground(id, true);`,
      "",
    ],
    [
      `const done = "in place"; clock.at(clock.now() + 1e7, () => ${say});
       clock.atBackground(36e11, () => 0); clock.runUntil(() => false);`,
      "in place\n",
    ],
  ];
  const all = await Promise.all(cases.map(([program]) => printed(program)));
  assertEquals(all, cases.map(([, expected]) => expected));
});

Deno.test("corner case 151: RealClock lets the event loop turn between events that are always due", async () => {
  const clock = new RealClock();
  let turns = 0;
  let running = true;
  const turn = () => {
    turns++;
    if (running) setImmediate(turn);
  };
  setImmediate(turn);
  const seen: number[] = [];
  for (let i = 0; i < 20; i++) {
    await clock.sleep(0);
    seen.push(turns);
  }
  running = false;
  await new Promise((resolve) => setImmediate(resolve));
  assert(seen.at(-1)! >= 10, `${seen}`);
});

Deno.test("RealClock.lateness counts what ran, and by how much it was late", async () => {
  const clock = new RealClock();
  const due = clock.now() + 100 * USEC;
  clock.at(due, () => {}, undefined);
  clock.atBackground(due, () => {}, undefined);
  while (clock.now() < due + 100 * USEC);
  await clock.sleep(200 * USEC);
  assertEquals(clock.lateness.count, 2);
  assert(clock.lateness.max >= 100 * USEC, `${clock.lateness.max}`);
  assert(clock.lateness.late >= 1);
  clock.lateness.clear();
  assertEquals([clock.lateness.count, clock.lateness.late], [0, 0]);
});

Deno.test("Lateness counts as late what is late by more than 20 us", () => {
  const lateness = new Lateness();
  for (const ns of [0, 5000, 20_000, 20_001, MSEC]) lateness.record(ns);
  assertEquals([lateness.count, lateness.late, lateness.max], [5, 2, MSEC]);
});

Deno.test("RealClock goes by the nearest of events, in whatever order they are added and taken back", async () => {
  const random = new Prng(11);
  for (let round = 0; round < 20; round++) {
    const clock = new RealClock();
    const due: number[] = [];
    const ran: number[] = [];
    const start = clock.now() + MSEC;
    const ids: number[] = [];
    for (let i = 0; i < 12; i++) {
      const time = start + random.below(6 * MSEC);
      if (random.below(3) === 0) {
        ids.push(clock.at(time, () => ran.push(-1), undefined));
        clock.atBackground(time, () => {}, undefined);
      } else {
        due.push(time);
        clock.at(time, (t) => ran.push(t), time);
      }
      if (random.below(2) === 0) clock.cancel(ids.pop() ?? 0);
    }
    for (const id of ids) clock.cancel(id);
    // An event that is added late is due at once, behind those before it in time:
    // a machine that stood still meanwhile shows nothing about the order.
    const ordered = clock.now() < start;
    await clock.sleep(Math.max(0, start + 7 * MSEC - clock.now()));
    const byTime = (a: number, b: number) => a - b;
    if (!ordered) ran.sort(byTime);
    assertEquals(ran, due.sort(byTime));
    assertEquals(clock.pending, 0);
  }
});

Deno.test("RealClock waits for what is further off than a timeout can be", async () => {
  const clock = new RealClock();
  const timeouts = await counting("setTimeout", async () => {
    // 50 days.
    const id = clock.at(50 * 86400 * SEC, () => {}, undefined);
    await new Promise((resolve) => setTimeout(resolve, 10));
    clock.cancel(id);
  });
  // The clock's and the test's; one too long would end at once, again and again.
  assertEquals(timeouts.length, 2);
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
  clock.at(clock.now() + 5 * MSEC, () => done = true, undefined);
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

Deno.test("RealClock.runUntil() leaves no timer for what has run in place", () => {
  const clock = new RealClock();
  clock.at(clock.now() + 5 * MSEC, () => {}, undefined);
  clock.runUntil(() => false);
  // A timer that were left would fail the sanitizer.
});

Deno.test("RealClock does its housekeeping also where what was due is taken back", async () => {
  const clock = new RealClock();
  const ran = new Promise<void>((resolve) =>
    clock.atBackground(clock.now() + 5 * MSEC, resolve, undefined)
  );
  clock.cancel(clock.at(clock.now() + 10 * MSEC, () => {}, undefined));
  const alive = setInterval(() => {}, 1000);
  await ran;
  clearInterval(alive);
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
