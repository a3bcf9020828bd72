import { assertEquals, assertInstanceOf } from "@std/assert";
import { BLK_STS_IOERR } from "../../block/blk-types.ts";
import { iomapPageMkwrite } from "../../iomap/buffered-io.ts";
import {
  IOMAP_DELALLOC,
  IOMAP_FAULT,
  IOMAP_MAPPED,
  IOMAP_WRITE,
} from "../../iomap/iomap.ts";
import { EAGAIN, EIO, ENOMEM, ENOSPC } from "../../lib/errno.ts";
import { folioGet, folioPut, folioUnlock, PAGE_SIZE } from "../../mm/folio.ts";
import {
  filemapFault,
  handleMmFault,
  VM_FAULT_ERROR,
  VM_FAULT_LOCKED,
  VM_FAULT_NOPAGE,
  VM_FAULT_OOM,
  VM_FAULT_SIGBUS,
  vmaLoad,
  vmaPresent,
  vmaStore,
  VmFault,
} from "../../mm/mmap.ts";
import {
  VM_SHARED,
  VM_WRITE,
  vmaLink,
  VmArea,
  vmaUnlink,
} from "../../mm/rmap.ts";
import { truncatePagecacheRange } from "../../mm/truncate.ts";
import { bytes, KiB, pattern, test, TestFs } from "./testfs.ts";

const P = PAGE_SIZE;

/** A shared mapping of the test's file. */
function mapFile(fs: TestFs, pages: number): VmArea {
  const vma = new VmArea(
    fs.inode.mapping,
    fs.file.ra,
    0,
    pages - 1,
    VM_WRITE | VM_SHARED,
    {
      fault: filemapFault,
      pageMkwrite: (vmf) => iomapPageMkwrite(vmf, fs.ops, null),
    },
  );
  vmaLink(vma);
  return vma;
}

/** page_mkwrite of the cached folio that holds a page. */
async function mkwrite(fs: TestFs, vma: VmArea, index: number) {
  const vmf = new VmFault(vma, index, true);
  const folio = fs.folio(index)!;
  folioGet(folio);
  vmf.folio = folio;
  const code = await iomapPageMkwrite(vmf, fs.ops, null);
  const locked = folio.locked;
  if (locked) folioUnlock(folio);
  folioPut(folio);
  return { code, locked };
}

/** A process's store: true if it got through. */
async function store(
  vma: VmArea,
  pos: number,
  p: Uint8Array,
): Promise<boolean> {
  let done = vmaStore(vma, pos, p, 0);
  while (done < p.length) {
    const at = Math.floor((pos + done) / P);
    const vmf = new VmFault(vma, at, true);
    const code = await handleMmFault(vmf);
    if ((code & VM_FAULT_ERROR) === 0) {
      done = vmaStore(vma, pos + done, p, done);
    }
    vmf.release();
    if ((code & VM_FAULT_ERROR) !== 0) return false;
  }
  return true;
}

async function load(vma: VmArea, pos: number, len: number) {
  const p = new Uint8Array(len);
  let done = vmaLoad(vma, pos, p, 0);
  while (done < len) {
    const vmf = new VmFault(vma, Math.floor((pos + done) / P), false);
    const code = await handleMmFault(vmf);
    if ((code & VM_FAULT_ERROR) === 0) done = vmaLoad(vma, pos + done, p, done);
    vmf.release();
    if ((code & VM_FAULT_ERROR) !== 0) break;
  }
  return p.subarray(0, done);
}

test("iomap corner case 68: page_mkwrite beyond EOF is NOPAGE, and the EOF folio maps only up to i_size", async () => {
  const fs = new TestFs({ size: 2 * P, rows: [[0, 2 * P, IOMAP_MAPPED]] });
  const vma = mapFile(fs, 4);
  await fs.read(0, 2 * P);
  fs.inode.size = P + 100;
  fs.takeCalls();

  assertEquals(await mkwrite(fs, vma, 1), {
    code: VM_FAULT_LOCKED,
    locked: true,
  });
  assertEquals(fs.takeCalls(), [
    `begin ${P}+100`,
    `end ${P}+100 written 100`,
  ]);

  fs.inode.size = P;
  assertEquals(await mkwrite(fs, vma, 1), {
    code: VM_FAULT_NOPAGE,
    locked: false,
  });
  assertEquals(fs.takeCalls(), []);
  vmaUnlink(vma);
});

test("iomap corner case 69: page_mkwrite dirties all blocks of the folio", async () => {
  const fs = new TestFs({
    blkbits: 10,
    size: 3000,
    rows: [[0, 4 * KiB, IOMAP_MAPPED]],
  });
  fs.fillDisk();
  const vma = mapFile(fs, 1);

  assertEquals(await store(vma, 1500, bytes(10, 9)), true);
  fs.dev.take();
  await fs.flush();

  // Also the block beyond the end, but only as far as the file goes.
  assertEquals(fs.dev.take(), ["W 1048576+3072"]);
  assertEquals(fs.ioends, ["0+3000 0"]);
  vmaUnlink(vma);
});

test("iomap corner case 70: page_mkwrite returns LOCKED with the folio locked and dirty", async () => {
  const fs = new TestFs({ size: P });
  const vma = mapFile(fs, 1);
  await fs.read(0, P);

  assertEquals(await mkwrite(fs, vma, 0), {
    code: VM_FAULT_LOCKED,
    locked: true,
  });
  assertEquals(fs.folio(0)!.dirty, true);
  assertEquals(fs.lookup(0).type, IOMAP_DELALLOC);
  vmaUnlink(vma);
});

test("iomap corner case 71: page_mkwrite does not consult iomapValid", async () => {
  const fs = new TestFs({ size: P });
  const vma = mapFile(fs, 1);
  let asked = 0;
  fs.writeOps = {
    iomapValid: () => {
      asked++;
      return false;
    },
  };

  assertEquals(await store(vma, 0, bytes(10, 1)), true);
  assertEquals(asked, 0);
  vmaUnlink(vma);
});

test("iomapPageMkwrite() asks with WRITE and FAULT, once for each mapping", async () => {
  const fs = new TestFs({ maxOrder: 2 });
  await fs.write(0, pattern(0, 4 * P));
  await fs.flush();
  const vma = mapFile(fs, 4);
  const flags: number[] = [];
  fs.beginError = (_pos, f) => {
    flags.push(f);
    return 0;
  };
  fs.extents = [
    { offset: 0, length: 2 * P, type: IOMAP_MAPPED, addr: 65536 },
    { offset: 2 * P, length: 2 * P, type: IOMAP_MAPPED, addr: 131072 },
  ];

  await store(vma, P, bytes(1, 1));

  assertEquals(flags, [IOMAP_WRITE | IOMAP_FAULT, IOMAP_WRITE | IOMAP_FAULT]);
  // The whole folio may be stored to.
  assertEquals(vmaPresent(vma, 3, true), true);
  vmaUnlink(vma);
});

test("iomapPageMkwrite() answers a folio that has left the file with NOPAGE", async () => {
  const fs = new TestFs({ size: 2 * P });
  const vma = mapFile(fs, 2);
  await fs.read(0, 2 * P);
  const vmf = new VmFault(vma, 1, true);
  const folio = fs.folio(1)!;
  folioGet(folio);
  vmf.folio = folio;
  await truncatePagecacheRange(fs.inode.mapping, P, 2 * P - 1);

  assertEquals(await iomapPageMkwrite(vmf, fs.ops, null), VM_FAULT_NOPAGE);
  assertEquals(folio.locked, false);
  folioPut(folio);
  vmaUnlink(vma);
});

for (
  const [name, errno, code] of [
    ["ENOSPC", ENOSPC, VM_FAULT_SIGBUS],
    ["EIO", EIO, VM_FAULT_SIGBUS],
    ["ENOMEM", ENOMEM, VM_FAULT_OOM],
    ["EAGAIN", EAGAIN, VM_FAULT_NOPAGE],
  ] as const
) {
  test(`iomapPageMkwrite() unlocks the folio and translates ${name}`, async () => {
    const fs = new TestFs({ size: P });
    const vma = mapFile(fs, 1);
    await fs.read(0, P);
    fs.beginError = () => -errno;

    assertEquals(await mkwrite(fs, vma, 0), { code, locked: false });
    assertEquals(fs.folio(0)!.dirty, false);
    assertEquals(vmaPresent(vma, 0, true), false);
    vmaUnlink(vma);
  });
}

test("a store to a hole is on the device after writeback, and the tail is zero", async () => {
  const fs = new TestFs({ size: 2 * P + 10 });
  const vma = mapFile(fs, 3);
  assertEquals(await store(vma, P - 5, pattern(P - 5, P + 5 + P)), true);

  await fs.flush();
  await fs.drop();

  assertEquals(await load(vma, P - 5, P + 15), pattern(P - 5, P + 15));
  assertEquals(await load(vma, 2 * P + 10, P - 10), bytes(P - 10, 0));
  vmaUnlink(vma);
});

test("a store after writeback has begun is written by the next one", async () => {
  const fs = new TestFs({ size: P, rows: [[0, P, IOMAP_MAPPED]] });
  const vma = mapFile(fs, 1);
  await store(vma, 0, bytes(P, 1));

  const flushed = fs.flush();
  assertEquals(fs.folio(0)!.writeback, true);
  assertEquals(vmaPresent(vma, 0, true), false);
  await store(vma, 0, bytes(10, 2));
  assertEquals(fs.folio(0)!.dirty, true);
  await flushed;
  await fs.flush();

  const want = bytes(P, 1);
  want.fill(2, 0, 10);
  assertEquals(fs.dev.data.slice(1024 * KiB, 1024 * KiB + P), want);
  vmaUnlink(vma);
});

test("a fault is SIGBUS where the device fails, and leaves no page", async () => {
  const fs = new TestFs({ size: P, rows: [[0, P, IOMAP_MAPPED]] });
  const vma = mapFile(fs, 1);
  fs.dev.fault = () => BLK_STS_IOERR;
  assertEquals((await load(vma, 0, 10)).length, 0);
  fs.dev.fault = () => 0;
  fs.fillDisk();
  assertEquals(await load(vma, 0, 10), pattern(0, 10));
  assertInstanceOf(fs.folio(0), Object);
  vmaUnlink(vma);
});
