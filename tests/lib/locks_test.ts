import { assert, assertEquals, assertFalse, assertThrows } from "@std/assert";
import { VirtualClock } from "../../lib/clock.ts";
import { Mutex, Rwsem } from "../../lib/locks.ts";
import { Prng } from "../../lib/prng.ts";
import { Completion, setScheduler, WaitQueue } from "../../lib/wait.ts";

Deno.test("Rwsem costs no promise when nobody is in the way", () => {
  const sem = new Rwsem("test");
  assertEquals(sem.downRead(), undefined);
  assertEquals(sem.downRead(), undefined);
  assertFalse(sem.tryDownWrite());
  sem.upRead();
  sem.upRead();
  assertEquals(sem.downWrite(), undefined);
  assertFalse(sem.tryDownRead());
  sem.upWrite();
  assertFalse(sem.isLocked);
});

Deno.test("Rwsem is fair: a reader does not pass a waiting writer", async () => {
  const sem = new Rwsem("test");
  const order: string[] = [];
  sem.downRead();
  const writer = Promise.resolve(sem.downWrite()).then(() => {
    order.push("writer");
    sem.upWrite();
  });
  const readers = [1, 2].map((n) =>
    Promise.resolve(sem.downRead()).then(() => {
      order.push(`reader ${n}`);
      sem.upRead();
    })
  );
  assertFalse(sem.tryDownRead());
  sem.upRead();
  await Promise.all([writer, ...readers]);
  assertEquals(order, ["writer", "reader 1", "reader 2"]);
});

Deno.test("Rwsem.downgradeWrite() lets waiting readers in and keeps writers out", async () => {
  const sem = new Rwsem("test");
  sem.downWrite();
  let read = false;
  const reader = Promise.resolve(sem.downRead()).then(() => read = true);
  const writer = Promise.resolve(sem.downWrite());
  sem.downgradeWrite();
  await reader;
  assert(read);
  assertFalse(sem.isLockedExclusive);
  sem.upRead();
  sem.upRead();
  await writer;
  assert(sem.isLockedExclusive);
  sem.upWrite();
});

Deno.test("Rwsem holds its invariant under random tasks", async () => {
  const clock = new VirtualClock();
  const random = new Prng(7);
  const sem = new Rwsem("test");
  let readers = 0;
  let writers = 0;
  const task = async () => {
    for (let i = 0; i < 50; i++) {
      await clock.sleep(random.below(20));
      if (random.below(3) === 0) {
        await sem.downWrite();
        assertEquals([readers, writers], [0, 0]);
        writers++;
        await clock.sleep(random.below(10));
        writers--;
        sem.upWrite();
      } else {
        await sem.downRead();
        assertEquals(writers, 0);
        readers++;
        await clock.sleep(random.below(10));
        readers--;
        sem.upRead();
      }
    }
  };
  await Promise.all(Array.from({ length: 8 }, task));
  assertFalse(sem.isLocked);
});

Deno.test("Rwsem and Mutex refuse to give back what is not held", () => {
  assertThrows(() => new Rwsem("test").upRead(), Error, "BUG");
  assertThrows(() => new Rwsem("test").upWrite(), Error, "BUG");
  assertThrows(() => new Mutex("test").unlock(), Error, "BUG");
});

Deno.test("Mutex passes to waiters in the order in which they came", async () => {
  const mutex = new Mutex("test");
  const order: number[] = [];
  mutex.lock();
  const waiters = [1, 2, 3].map((n) =>
    Promise.resolve(mutex.lock()).then(() => {
      order.push(n);
      mutex.unlock();
    })
  );
  assertFalse(mutex.tryLock());
  mutex.unlock();
  await Promise.all(waiters);
  assertEquals(order, [1, 2, 3]);
  assertFalse(mutex.isLocked);
});

Deno.test("Completion.wait() runs the clock in place for a synchronous caller", () => {
  const clock = new VirtualClock();
  const done = new Completion();
  clock.at(100, () => done.complete(), undefined);
  clock.enterSync();
  assertEquals(done.wait(clock), undefined);
  clock.leaveSync();
  assertEquals(clock.now(), 100);
});

Deno.test("WaitQueue.wait() hands a synchronous caller a promise when no event helps", async () => {
  const clock = new VirtualClock();
  const queue = new WaitQueue();
  let ready = false;
  clock.enterSync();
  const wait = queue.wait(clock, () => ready);
  clock.leaveSync();
  assert(wait instanceof Promise);
  queue.wakeAll();
  ready = true;
  queue.wakeAll();
  await wait;
});

Deno.test("setScheduler() decides when those go on who have waited", async () => {
  const resumes: (() => void)[] = [];
  const before = setScheduler((resume) => resumes.push(resume));
  const clock = new VirtualClock();
  const [lock, mutex] = [new Rwsem("rwsem"), new Mutex("mutex")];
  const queue = new WaitQueue();
  lock.downWrite();
  mutex.lock();
  let open = false;
  const order: string[] = [];
  const waits = [
    Promise.resolve(lock.downRead()).then(() => order.push("rwsem")),
    Promise.resolve(mutex.lock()).then(() => order.push("mutex")),
    Promise.resolve(queue.wait(clock, () => open)).then(() =>
      order.push("queue")
    ),
  ];
  lock.upWrite();
  mutex.unlock();
  open = true;
  queue.wakeAll();
  setScheduler(before);

  for (const resume of resumes.toReversed()) {
    resume();
    await new Promise((done) => setTimeout(done));
  }
  await Promise.all(waits);
  assertEquals(order, ["queue", "mutex", "rwsem"]);
  lock.upRead();
  mutex.unlock();
});
