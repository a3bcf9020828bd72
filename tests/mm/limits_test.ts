/**
 * Memory stays within its limit whatever goes through it, and what reclaim may not do.
 */
import { assert, assertEquals } from "@std/assert";
import { setWarningHandler } from "../../lib/bug.ts";
import { EIO } from "../../lib/errno.ts";
import {
  createNvme,
  type FsFile,
  mkfsXfs,
  type Mount,
  mount,
  VirtualClock,
  xfs,
} from "../../mod.ts";
import { shrinkFolios } from "../../mm/vmscan.ts";
import { filemapLookup } from "../../mm/filemap.ts";
import { FakeFile } from "./fake_file.ts";
import { assertCleanImage } from "../fs/xfs/clean.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const MEMORY = 4 * MiB;
const CHUNK = 256 * KiB;

async function mounted(): Promise<Mount> {
  const device = createNvme(new VirtualClock(), {
    size: 512 * MiB,
    preset: "null",
  });
  await mkfsXfs(device);
  return await mount(device, xfs, { memory: MEMORY });
}

/** The bytes at `at`: the offset itself, in each block. */
function fill(chunk: Uint8Array, at: number): void {
  const view = new DataView(chunk.buffer);
  for (let i = 0; i < chunk.length; i += 512) view.setFloat64(i, at + i);
}

/** Streams through a file, and says how many bytes of folios there were at most. */
async function stream(
  fs: Mount,
  bytes: number,
  op: (chunk: Uint8Array, at: number) => Promise<unknown> | unknown,
): Promise<number> {
  const { mm } = fs.superBlock;
  const chunk = new Uint8Array(CHUNK);
  let most = 0;
  for (let at = 0; at < bytes; at += CHUNK) {
    const done = op(chunk, at);
    if (done instanceof Promise) await done;
    most = Math.max(most, mm.nrPages);
  }
  return most * 4096;
}

/** How the bytes get in and out. */
const WAYS: [
  string,
  (file: FsFile) => {
    write(chunk: Uint8Array, at: number): Promise<unknown> | unknown;
    read(chunk: Uint8Array, at: number): Promise<unknown> | unknown;
  },
][] = [
  ["asynchronous", (file) => ({
    write: (chunk, at) => file.write(chunk, { at }),
    read: (chunk, at) => file.read(chunk, { at }),
  })],
  ["synchronous", (file) => ({
    write: (chunk, at) => file.writeSync(chunk, { at }),
    read: (chunk, at) => file.readSync(chunk, { at }),
  })],
];

for (const [name, way] of WAYS) {
  Deno.test(`a file of 16 times the memory, ${name}, stays within the limit`, async () => {
    const fs = await mounted();
    const file = fs.openSync("a", { read: true, write: true, create: true });
    const { write, read } = way(file);
    const expected = new Uint8Array(CHUNK);
    const wrote = await stream(fs, 16 * MEMORY, (chunk, at) => {
      fill(chunk, at);
      return write(chunk, at);
    });
    const readMost = await stream(fs, 16 * MEMORY, async (chunk, at) => {
      await read(chunk, at);
      fill(expected, at);
      // The whole would take long.
      for (let i = 0; i < CHUNK; i += 4096) {
        assertEquals(chunk[i + 5], expected[i + 5]);
        assertEquals(chunk[i + 6], expected[i + 6]);
      }
    });
    assert(wrote <= 1.1 * MEMORY && readMost <= 1.1 * MEMORY);
    assert(wrote >= 0.9 * MEMORY && readMost >= 0.9 * MEMORY);
    file.close();
    await fs.unmount();
    assertCleanImage(fs.superBlock.bdev);
  });
}

Deno.test("many writers at a time stay within the limit", async () => {
  const fs = await mounted();
  const { mm } = fs.superBlock;
  let most = 0;
  const writer = async (name: string) => {
    const file = await fs.open(name, { write: true, create: true });
    const chunk = new Uint8Array(CHUNK);
    for (let at = 0; at < 2 * MEMORY; at += CHUNK) {
      await file.write(chunk, { at });
      most = Math.max(most, mm.nrPages);
    }
    file.close();
  };
  await Promise.all(["a", "b", "c", "d", "e", "f"].map(writer));
  assert(most * 4096 <= 1.1 * MEMORY, `${most} pages`);
  await fs.unmount();
  assertCleanImage(fs.superBlock.bdev);
});

Deno.test("iomap corner case 93: writepages from within reclaim is -EIO, and nothing is written", async () => {
  const warnings: string[] = [];
  const before = setWarningHandler((message) => warnings.push(message));
  try {
    const fs = await mounted();
    const file = fs.openSync("a", { read: true, write: true, create: true });
    file.writeSync(new Uint8Array(8 * KiB));
    const inode = fs.superBlock.inodes.get(file.statSync().ino!)!;
    const { mm } = inode.mapping;
    const clean = new FakeFile({ mm, size: 4096 });
    await clean.open().read(0, 1);
    filemapLookup(clean.mapping, 0)!.private = {};
    const answers: unknown[] = [];
    clean.releaseFolio = (folio) => {
      answers.push(inode.mapping.ops.writepages(inode.mapping, {
        syncAll: true,
        rangeStart: 0,
        rangeEnd: Infinity,
        nrToWrite: Infinity,
        taggedWritepages: false,
      }));
      folio.private = null;
      return true;
    };
    assertEquals([shrinkFolios(mm, 1), answers], [1, [-EIO]]);
    assertEquals(inode.mapping.nrDirty, 2);
    assertEquals(warnings, ["iomap: writeback from within reclaim"]);
    file.close();
    await fs.unmount();
  } finally {
    setWarningHandler(before);
  }
});
