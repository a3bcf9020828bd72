import { assertEquals, assertMatch } from "@std/assert";
import {
  type ClassedLock,
  Lockdep,
  setLockTracker,
} from "../../lib/lockdep.ts";
import { Mutex, Rwsem } from "../../lib/locks.ts";

/** Two tasks and a checker that is told which of them runs. */
function twoTasks(): {
  lockdep: Lockdep;
  run: (task: number, fn: () => void) => void;
} {
  const tasks = [{}, {}];
  let current = tasks[0]!;
  const lockdep = new Lockdep({
    currentTask: () => current,
    nesting: { leaf: (held, wanted) => held.lockClass <= wanted.lockClass },
  });
  return {
    lockdep,
    run(task, fn) {
      current = tasks[task]!;
      const before = setLockTracker(lockdep);
      try {
        fn();
      } finally {
        setLockTracker(before);
      }
    },
  };
}

Deno.test("Lockdep reports two orders that contradict each other, with both stacks", () => {
  const { lockdep, run } = twoTasks();
  const a = new Mutex("a");
  const b = new Rwsem("b");
  run(0, function first() {
    a.lock();
    b.downRead();
    b.upRead();
    a.unlock();
  });
  assertEquals(lockdep.reports, []);
  run(1, function second() {
    b.downWrite();
    a.lock();
  });
  assertEquals(lockdep.reports.length, 1);
  const [report] = lockdep.reports;
  assertMatch(report!, /^a is asked for with b held\n/);
  assertMatch(report!, /second[\s\S]*b was asked for with a held[\s\S]*first/);
});

Deno.test("Lockdep finds a contradiction through a third lock", () => {
  const { lockdep, run } = twoTasks();
  const [a, b, c] = ["a", "b", "c"].map((name) => new Mutex(name));
  const take = (first: Mutex, second: Mutex) => {
    first.lock();
    second.lock();
    second.unlock();
    first.unlock();
  };
  run(0, () => take(a!, b!));
  run(0, () => take(b!, c!));
  assertEquals(lockdep.reports, []);
  run(1, () => take(c!, a!));
  assertEquals(lockdep.reports.length, 1);
  assertEquals(lockdep.orders, ["a -> b", "b -> c", "c -> a"]);
});

Deno.test("Lockdep does not mind a trylock in the wrong order, which cannot deadlock", () => {
  const { lockdep, run } = twoTasks();
  const a = new Mutex("a");
  const b = new Mutex("b");
  run(0, () => {
    a.lock();
    b.lock();
    b.unlock();
    a.unlock();
  });
  run(1, () => {
    b.lock();
    assertEquals(a.tryLock(), true);
    a.unlock();
    b.unlock();
  });
  assertEquals(lockdep.reports, []);
});

Deno.test("Lockdep reports a lock asked for twice, and two of a class without a rule", () => {
  const { lockdep, run } = twoTasks();
  const one = new Rwsem("one");
  run(0, () => {
    one.downRead();
    one.downRead();
  });
  run(1, () => {
    new Mutex("two").lock();
    new Mutex("two").lock();
  });
  run(1, () => {
    new Mutex("leaf").lock();
    new Mutex("leaf").lock();
  });
  assertEquals(lockdep.reports.map((r) => r.split("\n")[0]), [
    "one is asked for while the same is held",
    "two is asked for while another is held",
  ]);
});

Deno.test("Lockdep knows what a task holds, also when another gives it back", () => {
  const { lockdep, run } = twoTasks();
  const sem = new Rwsem("sem");
  const mutex = new Mutex("mutex");
  const held = () => lockdep.held.map((h) => `${h.lock.lockClass} ${h.mode}`);
  run(0, () => {
    sem.downWrite();
    sem.downgradeWrite();
    mutex.lock();
    assertEquals(held(), ["sem shared", "mutex exclusive"]);
  });
  run(1, () => {
    assertEquals(held(), []);
    mutex.unlock();
  });
  run(0, () => {
    assertEquals(held(), ["sem shared"]);
    sem.upRead();
    assertEquals(held(), []);
  });
});

Deno.test("Lockdep ignores the release of what was taken before it was set", () => {
  const { lockdep, run } = twoTasks();
  const lock: ClassedLock & Mutex = new Mutex("early");
  lock.lock();
  run(0, () => lock.unlock());
  assertEquals(lockdep.reports, []);
});
