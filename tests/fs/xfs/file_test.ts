/**
 * Open files, below the public face: which lock is held, and what a close starts.
 */
import { assert, assertEquals } from "@std/assert";
import { createNvme, mkfsXfs, mount, VirtualClock, xfs } from "../../../mod.ts";
import {
  type File,
  FMODE_READ,
  FMODE_WRITE,
  SuperBlock,
} from "../../../fs/fs.ts";
import { IOCB_DIRECT, IOCB_WRITE, Kiocb } from "../../../fs/kiocb.ts";
import { vfsOpen } from "../../../fs/namei.ts";
import { fileClose, vfsFtruncate } from "../../../fs/open.ts";
import { vfsWrite } from "../../../fs/read-write.ts";
import { vfsMount, vfsUnmount } from "../../../fs/super.ts";
import { vfsFsync } from "../../../fs/sync.ts";
import { setIomapTracer } from "../../../iomap/trace.ts";
import { EIOCBQUEUED } from "../../../lib/errno.ts";
import { IovIter } from "../../../lib/iov-iter.ts";
import { Mm } from "../../../mm/mm.ts";
import { assertCleanImage } from "../xfs/clean.ts";

const MiB = 2 ** 20;

async function openFile(sb: SuperBlock, iocbFlags: number): Promise<File> {
  const file = await vfsOpen(sb, "/f", {
    mode: FMODE_READ | FMODE_WRITE,
    iocbFlags,
    create: true,
    exclusive: false,
    truncate: false,
    permissions: 0o644,
  });
  assert(typeof file !== "number");
  return file;
}

function write(file: File, pos: number, len: number) {
  const iocb = new Kiocb(file, pos, IOCB_WRITE | file.iocbFlags);
  return vfsWrite(iocb, new IovIter(new Uint8Array(len).fill(0x77)), 0);
}

Deno.test("an unaligned direct write zeroes up to its start alone, if the file shrank while it waited", async () => {
  const nvme = createNvme(new VirtualClock(), {
    size: 64 * MiB,
    preset: "optane",
  });
  await mkfsXfs(nvme);
  const sb = await vfsMount(xfs, nvme, new Mm(nvme.clock), "");
  assert(sb instanceof SuperBlock);
  const file = await openFile(sb, 0);
  const direct = await openFile(sb, IOCB_DIRECT);
  await write(file, 0, 64 * 1024);
  await vfsFsync(file, false);

  const held: boolean[] = [];
  setIomapTracer((event) => {
    if (event.name === "iomap_iter" && event.caller === "iomap_zero_range") {
      held.push(file.inode.rwsem.isLockedExclusive);
    }
  });
  // A direct write in flight holds up the truncation, and that the writes.
  const inFlight = new Kiocb(direct, 0, IOCB_WRITE | IOCB_DIRECT);
  inFlight.kiComplete = () => {};
  const begun = await vfsWrite(inFlight, new IovIter(new Uint8Array(4096)), 0);
  assertEquals(begun, -EIOCBQUEUED);
  const shrunk = vfsFtruncate(file, 1000);
  assertEquals(file.inode.size, 64 * 1024);
  const written = await Promise.all([
    write(direct, 8192 + 512, 512),
    write(direct, 8192 + 1024, 512),
    shrunk,
  ]);
  setIomapTracer(null);
  assertEquals(written, [512, 512, 0]);
  assert(held.length > 0);
  assert(held.every((exclusive) => exclusive));

  fileClose(file);
  fileClose(direct);
  assertEquals(await vfsUnmount(sb), 0);
  assertCleanImage(nvme);
  nvme.close();
});

Deno.test("close() after truncate() writes back early, but not what follows an fsync", async () => {
  const nvme = createNvme(new VirtualClock(), { size: 64 * MiB });
  await mkfsXfs(nvme);
  await using fs = await mount(nvme, xfs);
  for (const [synced, started] of [[false, 1], [true, 0]] as const) {
    const file = await fs.open(`/${synced}`, {
      read: true,
      write: true,
      create: true,
    });
    const data = new Uint8Array(4096);
    await file.write(data, { at: 0 });
    await file.truncate(0);
    if (synced) await file.sync();
    await file.write(data, { at: 0 });
    const before = nvme.stats.write.bytes;
    file.close();
    assertEquals(nvme.stats.write.bytes - before, started * 4096);
  }
});
