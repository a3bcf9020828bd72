import { assertEquals } from "@std/assert";
import {
  type DeferOp,
  type DeferOpType,
  xfsDeferAdd,
  xfsDeferFinish,
} from "../../../../fs/xfs/libxfs/defer.ts";
import type { XfsTrans } from "../../../../fs/xfs/libxfs/trans.ts";
import { EIO } from "../../../../lib/errno.ts";
import { setLogHandler } from "../../../../lib/printk.ts";
import { begin, newMount } from "./fixture.ts";

const MiB = 2 ** 20;

/** What was done: "name" of an item, "-" for a commit, "." for the end of a group. */
class Journal {
  readonly words: string[] = [];
}

/** Items that note when they are done, and leave others when they are. */
class NotedType implements DeferOpType {
  readonly name: string;
  readonly maxItems: number;
  readonly journal: Journal;

  constructor(name: string, maxItems: number, journal: Journal) {
    this.name = name;
    this.maxItems = maxItems;
    this.journal = journal;
  }

  diffItems(a: Item, b: Item): number {
    return a.group - b.group;
  }

  finish(tp: XfsTrans, item: Item): number {
    this.journal.words.push(item.name);
    for (const more of item.leaves) xfsDeferAdd(tp, more);
    item.leaves.length = 0;
    return item.results.shift() ?? 0;
  }

  cleanup(): void {
    this.journal.words.push(".");
  }
}

class Item implements DeferOp {
  readonly type: DeferOpType;
  readonly name: string;
  readonly group: number;
  leaves: Item[] = [];
  results: number[] = [];

  constructor(type: DeferOpType, name: string, group = 0) {
    this.type = type;
    this.name = name;
    this.group = group;
  }
}

/** A transaction that notes its commits. */
async function noted(): Promise<[XfsTrans, Journal]> {
  const mp = await newMount(32 * MiB);
  const tp = begin(mp);
  const journal = new Journal();
  const roll = tp.roll.bind(tp);
  tp.roll = () => {
    journal.words.push("-");
    return roll();
  };
  return [tp, journal];
}

Deno.test("xfsDeferFinish() does a group in each transaction, oldest first", async () => {
  const [tp, journal] = await noted();
  const a = new NotedType("a", 2, journal);
  const b = new NotedType("b", 0, journal);
  for (const name of ["1", "2", "3"]) xfsDeferAdd(tp, new Item(a, name));
  for (const name of ["4", "5", "6"]) xfsDeferAdd(tp, new Item(b, name));
  xfsDeferAdd(tp, new Item(a, "7"));
  assertEquals(xfsDeferFinish(tp), 0);
  assertEquals(journal.words.join(""), "-12.-3.-456.-7.");
  assertEquals(tp.commit(), 0);
});

Deno.test("xfsDeferFinish() puts what is added before what is left", async () => {
  const [tp, journal] = await noted();
  const a = new NotedType("a", 16, journal);
  const b = new NotedType("b", 16, journal);
  const first = new Item(a, "1");
  first.leaves = [new Item(b, "x"), new Item(a, "y")];
  first.leaves[0]!.leaves = [new Item(a, "z")];
  xfsDeferAdd(tp, first);
  xfsDeferAdd(tp, new Item(a, "2"));
  xfsDeferAdd(tp, new Item(b, "3"));
  assertEquals(xfsDeferFinish(tp), 0);
  assertEquals(journal.words.join(""), "-12.-x.-z.-y.-3.");
  assertEquals(tp.commit(), 0);
});

Deno.test("xfsDeferFinish() takes an item up again that asks for another transaction", async () => {
  const [tp, journal] = await noted();
  const a = new NotedType("a", 16, journal);
  const b = new NotedType("b", 16, journal);
  const long = new Item(a, "2");
  long.results = [1, 1, 0];
  long.leaves = [new Item(b, "x")];
  xfsDeferAdd(tp, new Item(a, "1"));
  xfsDeferAdd(tp, long);
  xfsDeferAdd(tp, new Item(a, "3"));
  assertEquals(xfsDeferFinish(tp), 0);
  assertEquals(journal.words.join(""), "-12.-x.-2.-23.");
  assertEquals(tp.commit(), 0);
});

Deno.test("xfsDeferFinish() keeps the items of an allocation group together, in order", async () => {
  const [tp, journal] = await noted();
  const a = new NotedType("a", 16, journal);
  xfsDeferAdd(tp, new Item(a, "1", 2));
  xfsDeferAdd(tp, new Item(a, "2", 1));
  xfsDeferAdd(tp, new Item(a, "3", 2));
  xfsDeferAdd(tp, new Item(a, "4", 1));
  assertEquals(xfsDeferFinish(tp), 0);
  assertEquals(journal.words.join(""), "-2413.");
  assertEquals(tp.commit(), 0);
});

Deno.test("commit() shuts the file system down when deferred work fails", async () => {
  const [tp, journal] = await noted();
  const quiet = setLogHandler(() => {});
  const a = new NotedType("a", 16, journal);
  const bad = new Item(a, "2");
  bad.results = [-EIO];
  xfsDeferAdd(tp, new Item(a, "1"));
  xfsDeferAdd(tp, bad);
  xfsDeferAdd(tp, new Item(a, "3"));
  assertEquals(tp.commit(), -EIO);
  setLogHandler(quiet);
  assertEquals(journal.words.join(""), "-12.");
  assertEquals(tp.mp.dead, true);
});
