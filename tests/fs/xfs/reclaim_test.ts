/** Names and inodes that nobody uses leave memory, and nobody notices. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { FsError, type Mount, mount, xfs } from "../../../mod.ts";
import { xfsDirInodeOperations } from "../../../fs/xfs/iops.ts";
import { Prng } from "../../../lib/prng.ts";
import { assertCleanImage } from "./clean.ts";
import { newXfs } from "./fixture.ts";

/** Inodes that stay though nobody uses them. */
const UNUSED_MAX = 1024;

async function create(fs: Mount, path: string): Promise<void> {
  const file = await fs.open(path, { write: true, createNew: true });
  file.close();
}

Deno.test("names and inodes that nobody uses leave memory and are found again", async () => {
  const device = await newXfs();
  const fs = await mount(device, xfs);
  const { dcache, inodes } = fs.superBlock;
  dcache.max = 20;
  for (let d = 0; d < 30; d++) {
    await fs.mkdir(`/${d}`);
    for (let f = 0; f < 100; f++) await create(fs, `/${d}/${f}`);
  }
  await fs.link("/3/7", "/3/other");
  assert(inodes.size <= UNUSED_MAX + 60, `${inodes.size} inodes in memory`);

  for (let d = 0; d < 30; d++) {
    for (let f = 0; f < 100; f += 9) {
      assertEquals((await fs.stat(`/${d}/${f}`)).isFile, true);
    }
  }
  assertEquals((await fs.stat("/3/7")).nlink, 2);

  await fs.unmount();
  assertCleanImage(device);
});

Deno.test("an open file and its directories keep their inodes", async () => {
  const device = await newXfs();
  const fs = await mount(device, xfs);
  const { dcache, inodes } = fs.superBlock;
  dcache.max = 4;
  await fs.mkdir("/a");
  await fs.mkdir("/a/b");
  const file = await fs.open("/a/b/open", { write: true, create: true });
  const before = [...inodes.keys()];
  for (let f = 0; f < 2 * UNUSED_MAX; f++) await create(fs, `/${f}`);
  assertEquals(before.filter((ino) => !inodes.has(ino)), []);

  await file.write(new Uint8Array(5));
  file.close();
  assertEquals((await fs.stat("/a/b/open")).size, 5);
  await fs.unmount();
  assertCleanImage(device);
});

/** What one task has made in the directories that all share. */
class Owner {
  readonly #fs: Mount;
  readonly #rand: Prng;
  readonly #id: number;
  readonly #paths = new Set<string>();

  constructor(fs: Mount, id: number) {
    this.#fs = fs;
    this.#id = id;
    this.#rand = new Prng(id, "reclaim");
  }

  #path(): string {
    return `/${this.#rand.below(6)}/${this.#id}-${this.#rand.below(4)}`;
  }

  async step(): Promise<void> {
    const path = this.#path();
    const exists = this.#paths.has(path);
    switch (this.#rand.below(4)) {
      case 0:
        if (exists) {
          return void await this.#fails("EEXIST", create(this.#fs, path));
        }
        await create(this.#fs, path);
        this.#paths.add(path);
        break;
      case 1:
        if (!exists) {
          return void await this.#fails("ENOENT", this.#fs.unlink(path));
        }
        await this.#fs.unlink(path);
        this.#paths.delete(path);
        break;
      case 2: {
        const to = this.#path();
        const moved = this.#fs.rename(path, to);
        if (!exists) return void await this.#fails("ENOENT", moved);
        await moved;
        this.#paths.delete(path);
        this.#paths.add(to);
        break;
      }
      default:
        if (!exists) {
          return void await this.#fails("ENOENT", this.#fs.stat(path));
        }
        assertEquals((await this.#fs.stat(path)).nlink, 1);
    }
  }

  async #fails(code: string, call: Promise<unknown>): Promise<void> {
    assertEquals((await assertRejects(() => call, FsError)).code, code);
  }
}

/** Has every method on names wait before it does anything. */
function slowDown(fs: Mount, rand: Prng): () => void {
  const { clock } = fs.superBlock.bdev;
  const ops = xfsDirInodeOperations as unknown as Record<string, Method>;
  const before = { ...ops };
  for (const name of ["lookup", "create", "unlink", "rename"]) {
    const method = before[name]!;
    ops[name] = (...args) =>
      clock.sleep(rand.below(10_000)).then(() => method(...args));
  }
  return () => void Object.assign(ops, before);
}

type Method = (...args: unknown[]) => unknown;

// Whatever waits goes on with what it has found before.
Deno.test("names are forgotten while many tasks look them up and change them", async () => {
  const device = await newXfs();
  const fs = await mount(device, xfs);
  fs.superBlock.dcache.max = 2;
  for (let d = 0; d < 6; d++) await fs.mkdir(`/${d}`);
  const restore = slowDown(fs, new Prng(1));
  const run = async (id: number) => {
    const owner = new Owner(fs, id);
    for (let i = 0; i < 150; i++) await owner.step();
  };
  try {
    await Promise.all(Array.from({ length: 8 }, (_, id) => run(id)));
  } finally {
    restore();
  }
  await fs.unmount();
  assertCleanImage(device);
});
